//! A run in which nothing went wrong, made up: one failover, from an instance's node to a spare.
//!
//! Why it exists: a check is shown to fire by a change of one thing in it.
//! What it never does: make up what an entry does; each is applied by the product.

use super::facts::{End, Ending, Facts, Log, Memory};
use super::notes::{self, Acked};
use crate::rack::array::Run;
use crate::rack::world::World;
use crate::rack::{Change, Description, Journal, Noted, RackSpec};
use policies::*;
use provisioning::rack::{Assignment, BootChange, PortChange, PortSetting, SnapshotChange, VolumeChange};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// When the rack was started.
const STARTED: Wall = Wall(1_700_000_000_000);
/// From one thing that happens to the next.
const STEP_MS: u64 = 10;

pub(super) fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(name: &str) -> T {
    name.parse().unwrap()
}

/// A story while it is told.
struct Story {
    description: Description,
    now: u64,
    state: ClusterState,
    log: Log,
    journal: Journal,
}

impl Story {
    fn begin() -> Story {
        let spec = RackSpec { machines: 3, spares: 1, ..RackSpec::new(name("cautious"), vec![]) };
        let description = Description::draw(&spec).unwrap();
        let journal = World::new(description.clone()).journal();
        Story { description, now: 0, state: ClusterState::default(), log: Log::default(), journal }
    }

    /// An entry is proposed, committed and changes something.
    fn commit(&mut self, command: Command) -> LogIndex {
        self.now += STEP_MS;
        let index = LogIndex(self.state.applied.0 + 1);
        let proposal = Proposal { at: Wall(STARTED.0 + self.now), by: "member/m1".to_owned(), command };
        self.state.apply(index, &proposal).unwrap();
        self.log.entries.insert(index, Arc::new(proposal));
        index
    }

    fn lead(&mut self, step: Step) -> LogIndex {
        let leader = self.state.leadership.unwrap().epoch;
        self.commit(Command::Lead { leader, step })
    }

    /// Something happens in the rack.
    fn happens(&mut self, change: Change) {
        self.now += STEP_MS;
        self.journal.changes.push_back(Noted { at: self.now * 1_000_000, change });
    }

    /// A step of the failover is intended, carried out and resolved.
    fn step(&mut self, plan: PlanId, action: &Action) {
        let token = self.lead(Step::Intend { plan, action: action.clone() });
        let seen = self.carry_out(action, token);
        self.lead(Step::Resolve { token, outcome: Outcome::Done(seen) });
    }

    fn carry_out(&mut self, action: &Action, token: LogIndex) -> Seen {
        let initiator = |node: &NodeId| self.description.machine(node).unwrap().initiator.clone();
        let change = match action.clone() {
            Action::ShutDown { .. } | Action::Diagnose { .. } => return Seen::Diagnosed([].into()),
            Action::Interrupt { .. } => return Seen::Accepted,
            Action::PowerOff { node, .. } => {
                self.happens(Change::Commanded { node: node.clone(), on: false });
                self.happens(Change::Power { node: node.clone(), on: false });
                self.happens(Change::Told { node: node.clone(), on: false });
                self.happens(Change::Told { node, on: false });
                return Seen::OffTwice { already: false, took: Millis(20) };
            }
            Action::PowerOn { node } => {
                self.happens(Change::Commanded { node: node.clone(), on: true });
                self.happens(Change::Power { node, on: true });
                return Seen::On;
            }
            Action::Revoke { node, volume, .. } => {
                let initiator = initiator(&node);
                let change = VolumeChange::Revoke { initiator: initiator.clone(), token };
                self.happens(Change::Volume { volume: volume.clone(), change });
                Change::Reach { volume, initiator, open: false }
            }
            Action::Snapshot { volume, name, keep, .. } => {
                Change::Snapshot { volume, change: SnapshotChange { name, keep, token } }
            }
            Action::Attach { node, volume, .. } => {
                let initiator = initiator(&node);
                let change = VolumeChange::Attach { initiator: initiator.clone(), token };
                self.happens(Change::Volume { volume: volume.clone(), change });
                Change::Reach { volume, initiator, open: true }
            }
            Action::ClosePort { port, .. } => {
                Change::Port { port, change: PortChange { setting: PortSetting::Closed, token } }
            }
            Action::OpenPort { port, vlan, tagged, mac, .. } => Change::Port {
                port,
                change: PortChange { setting: PortSetting::Open { vlan, tagged, mac }, token },
            },
            Action::AttachVif { .. } | Action::Claim { .. } | Action::Clean { .. } => {
                return Seen::ReadBack("the rack has no cloud".to_owned());
            }
            Action::SetBoot { node, instance, image, epoch, .. } => {
                let assignment = Assignment { instance, image, epoch };
                Change::Boot { node, change: BootChange { assignment, token } }
            }
        };
        self.happens(change);
        Seen::ReadBack("as wished".to_owned())
    }

    fn fail_over(&mut self) -> PlanId {
        let from: NodeId = name("node-1");
        let evidence = Evidence { power: Some(Power::On), dead: 2, needed: 2, ..Evidence::default() };
        let verdict = Verdict::Failed(Cause::Silent);
        self.lead(Step::Judge { node: from.clone(), verdict, evidence: evidence.clone() });
        let decision = Decision {
            instance: Some(name("web-1")),
            from,
            spare: Some(name("node-3")),
            cause: Cause::Silent,
            evidence,
            policy: (name("cautious"), LogIndex(0)),
            gates: vec![Gate { name: "armed".to_owned(), found: "yes".to_owned() }],
            runners_up: Vec::new(),
            shutdown: None,
            start: Start::PowerOn,
        };
        let plan = PlanId(self.lead(Step::Begin(Box::new(decision))).0);
        self.steps(plan);
        self.lead(Step::Place { plan, tried: Millis(100) });
        self.steps(plan);
        let start = self.state.start_actions(&self.state.plans[&plan]).remove(0);
        self.step(plan, &start);
        self.lead(Step::Finish { plan, seen: "a heartbeat".to_owned() });
        plan
    }

    /// All steps of a phase.
    fn steps(&mut self, plan: PlanId) {
        let actions = self.state.phase_actions(&self.state.plans[&plan]);
        assert!(!actions.is_empty(), "{:?}", self.state.plans[&plan].phase);
        for action in actions {
            self.step(plan, &action);
        }
    }
}

/// The whole run.
pub(super) fn calm() -> Facts {
    let mut story = Story::begin();
    story.commit(Command::Describe(Box::new(story.description.inventory().unwrap())));
    story.commit(Command::Arm { reason: "the story begins".to_owned() });
    story.commit(Command::TookOver { member: MemberId(1), boot: BootId(1) });
    for node in ["node-1", "node-2"] {
        story.happens(Change::Power { node: name(node), on: true });
    }
    let asked = (STARTED.0 + story.now) * 1000;
    let order = notes::order(name("note-1")).unwrap();
    let index = story.commit(order.clone());
    let answered = (STARTED.0 + story.now + STEP_MS) * 1000;
    let wrote_until = story.now * 1_000_000;
    story.fail_over();
    let run = |initiator: &str, grant, first_at, last_at| {
        let initiator = story.description.machine(&name(initiator)).unwrap().initiator.clone();
        Run { initiator, grant, first: first_at, last: last_at, first_at, last_at }
    };
    let now = (story.now + STEP_MS) * 1_000_000;
    let runs = vec![run("node-1", 1, wrote_until - 1, wrote_until), run("node-3", 2, now - 1, now)];
    let mut report = World::new(story.description.clone()).report();
    (report.started, report.now) = (STARTED, now);
    report.volumes.retain(|volume| volume.volume == name("vol-1"));
    report.volumes[0].runs = runs;
    let machines = &story.description.machines;
    let ports =
        machines.iter().flat_map(|machine| machine.ports.clone().map(|port| (port, machine.name.clone())));
    let memory = Memory::of(&story.state, story.state.applied);
    let members = (1..=3).map(MemberId);
    Facts {
        initiators: machines.iter().map(|node| (node.name.clone(), node.initiator.clone())).collect(),
        ports: ports.collect(),
        report,
        journal: story.journal,
        struck: BTreeSet::from([name("node-1")]),
        acked: vec![Acked { order, index, asked, answered }],
        ends: vec![End {
            member: MemberId(2),
            ending: Ending::GaveUp,
            status: "exit status: 1".to_owned(),
            last_words: vec![
                "2026-01-02T03:04:05Z ERROR raft_store: write to the store; this member stops".to_owned(),
                "ha-supervisord: this member had to stop: the store failed".to_owned(),
            ],
        }],
        memories: members.clone().map(|id| (id, memory.clone())).collect::<BTreeMap<_, _>>(),
        logs: members.map(|id| (id, story.log.clone())).collect(),
    }
}
