//! The seam between brain and body: an input in, outputs out. One per member; only the leader's proposes and acts.
//! Owns the member's copy of the committed state and everything it believes. Never does anything itself.

mod learn;

use crate::capability::Capabilities;
use crate::command::{Command, Object, Proposal, Step};
use crate::effect::{Effect, Outcome, Seen};
use crate::judge::judge;
use crate::memory::Memory;
use crate::observation::{Power, Report, Stamp};
use crate::plan::{Phase, Verdict};
use crate::planner::{Desk, Subject, Wishes, plan};
use crate::proposals::Proposals;
use crate::readiness::{Check, Checked, Checks, Finding};
use crate::sights::Sights;
use crate::state::{ClusterState, NodeRecord, NodeState};
use crate::waiting::Waiting;
use crate::watch::{Change, Limits};
use crate::words::*;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

/// How often each member reports, even if nothing changed: a third of the age at which a report counts no longer.
pub const REPORT_EVERY: Millis = Millis(1000);
/// How often a leader reads each BMC's power. Slow enough for BMCs that take a second to answer.
pub const POWER_POLL: Millis = Millis(10_000);

/// What the body tells the brain.
#[derive(Debug)]
pub enum Input {
    /// Time has passed. Given every few ten milliseconds; all deadlines are seen here.
    Tick,
    /// An entry was committed and applied by the store.
    Applied {
        /// Its index.
        index: LogIndex,
        /// The entry.
        proposal: Proposal,
    },
    /// The store's state was replaced by a snapshot (or is the first one after the start).
    Installed(Box<ClusterState>),
    /// Who leads, as the store knows.
    Leader {
        /// The leader, if one is known.
        leader: Option<MemberId>,
    },
    /// The voters of the cluster.
    Voters(Vec<MemberId>),
    /// News of the watch table.
    Changed {
        /// Which node.
        node: NodeId,
        /// What.
        change: Change,
    },
    /// The kernel of a node was asked.
    Asked {
        /// Which node.
        node: NodeId,
        /// True if any question was answered; `None` if we could not ask: our own trouble, no sign of death.
        answers: Option<bool>,
    },
    /// A node's power was read.
    PowerRead {
        /// Which node.
        node: NodeId,
        /// The reading; `None`: no answer.
        power: Option<Power>,
    },
    /// A provider was asked beforehand for what a failover will need.
    Checked {
        /// The object.
        check: Check,
        /// What was found.
        finding: Finding,
    },
    /// A node's agent told what hardware it found.
    Found {
        /// Which node.
        node: NodeId,
        /// What.
        found: Box<Capabilities>,
    },
    /// Another member's report.
    Report(Report),
    /// An effect has ended.
    Ended {
        /// Its token.
        token: LogIndex,
        /// How.
        outcome: Outcome,
    },
    /// A proposal was answered: applied, rejected, or lost. Nothing more is said; the log tells what happened.
    Answered {
        /// Its ticket.
        ticket: u64,
        /// Where it stands in the log, if it got there: the matter is open until that entry was applied here.
        index: Option<LogIndex>,
    },
}

/// What the brain wants of the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Put this into the log.
    Propose {
        /// For [`Input::Answered`].
        ticket: u64,
        /// What.
        command: Command,
    },
    /// Carry this out, with the lease checked, within this time.
    Execute {
        /// What.
        effect: Effect,
        /// The time limit.
        limit: Millis,
    },
    /// Ask the node's kernel.
    Ask {
        /// Which node.
        node: NodeId,
        /// For how long this member has not heard it.
        silent: Millis,
        /// How often at the most.
        count: u32,
        /// Pause between two questions.
        interval: Millis,
    },
    /// Read the node's power.
    ReadPower {
        /// Which node.
        node: NodeId,
    },
    /// Ask a provider for what a failover will need. Changes nothing, and nothing waits for it.
    Check(Check),
    /// Send this report to all other members.
    Broadcast(Report),
    /// Watch this node, with these limits. Replaces earlier ones.
    Watch {
        /// Which node.
        node: NodeId,
        /// Deadlines.
        limits: Limits,
        /// Time between two questions, if it has no agent.
        pause: Millis,
    },
    /// Watch it no longer.
    Unwatch {
        /// Which node.
        node: NodeId,
    },
}

/// How a node is watched. With another key it must be watched anew: its heartbeats would not be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Watched {
    limits: Limits,
    key: Option<Sealed>,
    /// How often it is asked, if it has no agent.
    pause: Millis,
}

/// The brain of one member.
#[derive(Clone, Debug)]
pub struct Engine {
    me: MemberId,
    boot: BootId,
    domain: String,
    state: ClusterState,
    /// Who leads, as the store knows.
    leader: Option<MemberId>,
    /// Our leadership, from our committed `TookOver` until we hear of another's (R10).
    leads: Option<LeaderEpoch>,
    memory: Memory,
    sights: Sights,
    watched: BTreeMap<NodeId, Watched>,
    proposals: Proposals,
    power_due: BTreeMap<NodeId, Mono>,
    waiting: BTreeMap<Subject, Vec<Waiting>>,
}

impl Engine {
    /// A brain that knows nothing yet. `domain`: the failure domain this member stands in; `boot`: drawn at random for
    /// each start of the process.
    pub fn new(me: MemberId, boot: BootId, domain: &str) -> Self {
        Engine {
            me,
            boot,
            domain: domain.to_owned(),
            state: ClusterState::default(),
            leader: None,
            leads: None,
            memory: Memory::default(),
            sights: Sights::default(),
            watched: BTreeMap::new(),
            proposals: Proposals::default(),
            power_due: BTreeMap::new(),
            waiting: BTreeMap::new(),
        }
    }

    /// The committed state, as this member knows it.
    pub fn state(&self) -> &ClusterState {
        &self.state
    }

    /// The leadership under which this member acts, if it does.
    pub fn leads(&self) -> Option<LeaderEpoch> {
        self.leads
    }

    /// Takes one input and says what to do. The only entrance.
    pub fn handle(&mut self, now: Now, input: Input) -> Vec<Output> {
        let mut outputs = vec![];
        self.take(now.mono, input, &mut outputs);
        self.report(now.mono, &mut outputs);
        self.lead(now, &mut outputs);
        outputs
    }

    fn take(&mut self, now: Mono, input: Input, outputs: &mut Vec<Output>) {
        match input {
            Input::Tick => {
                self.proposals.tick(now);
                for node in self.sights.due_again(now) {
                    self.ask(node, now, outputs);
                }
            }
            Input::Applied { index, proposal } => self.applied(now, index, &proposal, outputs),
            Input::Installed(state) => self.installed(now, *state, outputs),
            Input::Leader { leader } if leader == self.leader => {}
            Input::Leader { leader } => {
                self.leader = leader;
                if leader != Some(self.me) {
                    self.lead_no_more();
                    self.waiting.clear();
                }
                self.proposals.forget();
            }
            Input::Voters(voters) => {
                self.memory.voters = voters.into_iter().collect();
                let voters = &self.memory.voters;
                self.memory.reports.retain(|member, _| voters.contains(member));
                self.memory.heard.retain(|member, _| voters.contains(member));
            }
            Input::Changed { node, change } => {
                let Some(record) = self.state.nodes.get(&node) else { return };
                let has_probe = !record.node.probe.is_empty();
                if self.sights.change(&node, &change, has_probe, now) {
                    self.ask(node.clone(), now, outputs);
                }
                if self.sights.heard_in(&node).is_none() && self.leads().is_some() {
                    self.read_power(&node, now, outputs);
                }
            }
            Input::Asked { node, answers } => self.sights.answered(&node, answers, now),
            Input::PowerRead { node, power } => {
                // Of one that was deleted meanwhile, nobody wants to know.
                if self.state.nodes.contains_key(&node) {
                    self.memory.powers.insert(node, (power, now));
                }
            }
            Input::Checked { check, finding } => self.memory.checks.answered(&check, finding, now),
            Input::Found { node, found } => {
                let known = self.state.nodes.get(&node).map(|record| record.found.as_ref());
                if known == Some(Some(&found)) {
                    self.memory.found.remove(&node);
                } else if known.is_some() && found.check().is_ok() {
                    // Only what could be committed, and of known nodes: the list stays as short as theirs.
                    self.memory.found.insert(node, found);
                }
            }
            Input::Report(report) => {
                if self.memory.voters.contains(&report.member) && report.member != self.me {
                    self.memory.take_report(report, self.me, self.boot, now);
                }
            }
            Input::Ended { token, outcome } => self.ended(now, token, outcome),
            Input::Answered { ticket, index } => {
                self.proposals.answered(ticket, index, self.state.applied, now);
            }
        }
    }

    fn ask(&self, node: NodeId, now: Mono, outputs: &mut Vec<Output>) {
        let Some((_, policy)) = self.state.policy_of_node(&node) else { return };
        let rules = &policy.policy.detection;
        let (count, interval) = (rules.reprobe_count, rules.reprobe_interval);
        let silent = self.sights.silent_for(&node, now);
        outputs.push(Output::Ask { node, silent, count, interval });
    }

    fn read_power(&mut self, node: &NodeId, now: Mono, outputs: &mut Vec<Output>) {
        let fenceable = self.state.nodes.get(node).is_some_and(|record| !record.node.fencing.is_empty());
        if fenceable {
            self.power_due.insert(node.clone(), now + POWER_POLL);
            outputs.push(Output::ReadPower { node: node.clone() });
        }
    }

    /// The outcome is kept until it is in the log; a proposal may be lost.
    fn ended(&mut self, now: Mono, token: LogIndex, outcome: Outcome) {
        self.learn_power(token, &outcome, now);
        if self.state.is_open(token) {
            self.memory.in_flight.insert(token, Some(outcome));
        } else {
            self.memory.in_flight.remove(&token);
        }
    }

    /// What a fence or a start has read is newer than what the last poll read.
    fn learn_power(&mut self, token: LogIndex, outcome: &Outcome, now: Mono) {
        let power = match outcome {
            Outcome::Done(Seen::OffTwice { .. }) => Power::Off,
            Outcome::Done(Seen::On) => Power::On,
            Outcome::Done(Seen::ReadBack(_) | Seen::Diagnosed(_) | Seen::Accepted)
            | Outcome::Refused(_)
            | Outcome::Unknown(_) => {
                return;
            }
        };
        if let Some(intent) = self.state.any_intent(token) {
            self.memory.powers.insert(intent.action.node().clone(), (Some(power), now));
        }
    }

    /// Sends our report when it says something new, and once in a while.
    fn report(&mut self, now: Mono, outputs: &mut Vec<Output>) {
        let state = &self.state;
        let expected = self.watched.keys().filter_map(|name| {
            let record = state.nodes.get(name)?;
            let expected = is_expected_alive(state, record) && record.maintenance.is_none();
            expected.then(|| (name.clone(), record.verdict != Verdict::Unknown))
        });
        let (doubt, sights) = self.sights.report(expected, now);
        let says_the_same = |last: &Report| last.doubt == doubt && last.sights == sights;
        let last = self.memory.reports.get(&self.me);
        if last.is_some_and(|(last, at)| says_the_same(last) && now.since(*at) < REPORT_EVERY) {
            return;
        }
        let report = Report {
            member: self.me,
            written: Stamp { boot: self.boot, moment: now.0 },
            heard: self.memory.heard.clone(),
            domain: self.domain.clone(),
            doubt,
            sights,
        };
        self.memory.reports.insert(self.me, (report.clone(), now));
        outputs.push(Output::Broadcast(report));
    }

    /// A leader's work: judge, plan, propose, act.
    fn lead(&mut self, Now { mono: now, wall }: Now, outputs: &mut Vec<Output>) {
        // Without the list of voters no majority can be told.
        if self.leader != Some(self.me) || self.memory.voters.is_empty() {
            return;
        }
        let Some(leader) = self.leads else {
            let command = Command::TookOver { member: self.me, boot: self.boot };
            return self.propose(command, outputs);
        };
        self.poll_power(now, outputs);
        outputs.extend(self.memory.checks.due(now).into_iter().map(Output::Check));
        let mut waiting = BTreeMap::new();
        let judged = self.judge_all(leader, now, &mut waiting);
        let rejudged = judged.iter().filter_map(Command::judges).cloned().collect();
        for command in judged {
            self.propose(command, outputs);
        }
        for (token, outcome) in self.memory.in_flight.clone() {
            if let Some(outcome) = outcome {
                self.propose(Command::Lead { leader, step: Step::Resolve { token, outcome } }, outputs);
            }
        }
        for step in lapsed(&self.state, wall) {
            self.propose(Command::Lead { leader, step }, outputs);
        }
        for step in self.memory.news_of_hardware(&self.state, now) {
            self.propose(Command::Lead { leader, step }, outputs);
        }
        let Wishes { commands, effects, waiting: planned } =
            plan(&self.desk(leader, rejudged, Now { mono: now, wall }));
        let holds = |why: &Waiting| matches!(why, Waiting::Hold { .. });
        if planned.values().flatten().any(holds) {
            self.memory.held = Some(now);
        }
        for (subject, why) in self.memory.checks.reasons(&self.state, now) {
            waiting.entry(subject.clone()).or_default().push(why.clone());
        }
        for (subject, reasons) in planned {
            waiting.entry(subject).or_insert_with(Vec::new).extend(reasons);
        }
        self.waiting = waiting;
        for command in commands {
            self.propose(command, outputs);
        }
        for (effect, limit) in effects {
            self.memory.in_flight.insert(effect.token, None);
            outputs.push(Output::Execute { effect, limit });
        }
    }

    fn desk(
        &self,
        leader: LeaderEpoch,
        rejudged: BTreeSet<NodeId>,
        Now { mono: now, wall }: Now,
    ) -> Desk<'_> {
        let (state, memory, sights) = (&self.state, &self.memory, &self.sights);
        let (standing, candidates) = (OnceCell::new(), OnceCell::new());
        Desk { state, memory, sights, rejudged, leader, now, wall, standing, candidates }
    }

    fn poll_power(&mut self, now: Mono, outputs: &mut Vec<Output>) {
        let is_due = |node: &NodeId| self.power_due.get(node).is_none_or(|due| now >= *due);
        let nodes =
            self.state.nodes.iter().filter(|(node, record)| !record.node.fencing.is_empty() && is_due(node));
        let nodes: Vec<NodeId> = nodes.map(|(node, _)| node.clone()).collect();
        for node in nodes {
            self.read_power(&node, now, outputs);
        }
    }

    fn judge_all(
        &mut self,
        leader: LeaderEpoch,
        now: Mono,
        waiting: &mut BTreeMap<Subject, Vec<Waiting>>,
    ) -> Vec<Command> {
        self.memory.refresh(now);
        let mut commands = vec![];
        for (name, record) in &self.state.nodes {
            // A spare that was never seen alive is expected to be off; it can only become healthy.
            let may_be_off = record.state == NodeState::Spare && record.verdict == Verdict::Unknown;
            if !may_be_off && !is_expected_alive(&self.state, record) {
                continue;
            }
            if !self.watched.contains_key(name) {
                if !may_be_off {
                    waiting.entry(Subject::Node(name.clone())).or_default().push(Waiting::NeverHeard);
                }
                continue;
            }
            let Some((_, policy)) = self.state.policy_of_node(name) else { continue };
            let judgement = judge(record, &policy.policy.detection, &self.memory, now);
            if may_be_off && judgement.verdict != Some(Verdict::Healthy) {
                continue;
            }
            judgement.remember_gray(name, &mut self.memory, now);
            if let Some(why) = judgement.waiting {
                waiting.entry(Subject::Node(name.clone())).or_default().push(why);
            }
            if let Some(verdict) = judgement.verdict {
                let (node, evidence) = (name.clone(), judgement.evidence);
                commands.push(Command::Lead { leader, step: Step::Judge { node, verdict, evidence } });
            }
        }
        commands
    }

    /// Proposes a command unless the same one, or one about the same thing, is on its way.
    fn propose(&mut self, command: Command, outputs: &mut Vec<Output>) {
        let Some(ticket) = self.proposals.admit(&command) else { return };
        outputs.push(Output::Propose { ticket, command });
    }

    /// Why nothing more happens, as of the last input.
    pub fn waiting(&self) -> &BTreeMap<Subject, Vec<Waiting>> {
        &self.waiting
    }

    /// Why this member does not act, if it does not.
    pub fn not_acting(&self) -> Option<Waiting> {
        match (self.leader == Some(self.me), self.leads) {
            (false, _) => Some(Waiting::NotLeader { leader: self.leader }),
            (true, None) => Some(Waiting::TakingOver),
            (true, Some(_)) => None,
        }
    }

    pub(crate) fn reports(&self) -> impl Iterator<Item = (&Report, Mono)> {
        self.memory.reports.values().map(|(report, at)| (report, *at))
    }

    pub(crate) fn power_reading(&self, node: &NodeId) -> Option<(Option<Power>, Mono)> {
        self.memory.powers.get(node).copied()
    }

    pub(crate) fn checks(&self, now: Mono) -> Vec<Checked> {
        self.memory.checks.all(now)
    }

    /// What providers said to a leader is told by leaders only.
    fn lead_no_more(&mut self) {
        self.leads = None;
        self.memory.checks = Checks::default();
    }

    /// For a copy that is only asked what it would do.
    pub(crate) fn state_mut(&mut self) -> &mut ClusterState {
        &mut self.state
    }

    /// For a copy likewise.
    pub(crate) fn reports_mut(&mut self) -> impl Iterator<Item = &mut Report> {
        self.memory.reports.values_mut().map(|(report, _)| report)
    }

    /// What it would judge now, if it led.
    pub(crate) fn judge_now(&mut self, now: Mono) -> Vec<Command> {
        self.judge_all(self.leads.unwrap_or_default(), now, &mut BTreeMap::new())
    }

    /// What it would plan now, if it led.
    pub(crate) fn plan_now(&self, now: Now) -> Wishes {
        plan(&self.desk(self.leads.unwrap_or_default(), BTreeSet::new(), now))
    }

    pub(crate) fn me(&self) -> MemberId {
        self.me
    }
}

/// Orders whose time is over, by this clock. It is the wall clock, for people mean six o'clock: one that is wrong by an hour
/// arms the cluster an hour early or late.
fn lapsed(state: &ClusterState, now: Wall) -> Vec<Step> {
    let armed =
        (!state.armed.armed && state.armed.order.has_lapsed(now)).then_some(Step::Lapse { node: None });
    let over = |record: &&NodeRecord| record.maintenance.as_ref().is_some_and(|order| order.has_lapsed(now));
    let nodes =
        state.nodes.values().filter(over).map(|record| Step::Lapse { node: Some(record.node.name.clone()) });
    armed.into_iter().chain(nodes).collect()
}

/// True for a node whose silence means something: it carries an instance, and no plan has begun to cut it off or is
/// starting it.
fn is_expected_alive(state: &ClusterState, record: &NodeRecord) -> bool {
    let carries = match &record.state {
        NodeState::Active { .. } => true,
        NodeState::Spare => record.verdict != Verdict::Unknown,
        NodeState::Reserved { .. }
        | NodeState::Fencing { .. }
        | NodeState::Quarantined { .. }
        | NodeState::Cleaning { .. } => false,
    };
    let plan = state.plan_of_node(&record.node.name);
    carries && plan.is_none_or(|plan| plan.phase == Phase::Reserved && plan.decision.from == record.node.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Documents;

    /// The nodes that are watched anew after `n1` was described with this agent key.
    fn described(engine: &mut Engine, index: u64, key: Option<&str>) -> Vec<NodeId> {
        let key = key.map_or(String::new(), |key| format!("agent_key = {key:?}\n"));
        let text = format!("[[node]]\nname = \"n1\"\n{key}probe = {{ tcp = \"127.0.0.1:22\" }}\n");
        let documents: Documents = toml::from_str(&text).unwrap();
        let command = Command::Describe(Box::new(documents));
        let proposal = Proposal { at: Wall(0), by: "test".to_owned(), command };
        let outputs = engine.handle(Now::default(), Input::Applied { index: LogIndex(index), proposal });
        let watched = |output| if let Output::Watch { node, .. } = output { Some(node) } else { None };
        outputs.into_iter().filter_map(watched).collect()
    }

    #[test]
    fn a_node_with_another_key_is_watched_anew() {
        let mut engine = Engine::new(MemberId(1), BootId(1), "room");
        let n1: NodeId = "n1".parse().unwrap();
        assert_eq!(described(&mut engine, 1, Some("sealed:a")), vec![n1.clone()]);
        assert_eq!(described(&mut engine, 2, Some("sealed:a")), vec![]);
        assert_eq!(described(&mut engine, 3, Some("sealed:b")), vec![n1.clone()]);
        assert_eq!(described(&mut engine, 4, None), vec![n1]);
    }

    #[test]
    fn a_node_that_was_deleted_is_forgotten_and_its_name_begins_anew() {
        let mut engine = Engine::new(MemberId(1), BootId(1), "room");
        let n1: NodeId = "n1".parse().unwrap();
        described(&mut engine, 1, Some("sealed:a"));
        let read = |power| Input::PowerRead { node: "n1".parse().unwrap(), power: Some(power) };
        engine.handle(Now::default(), read(Power::On));
        assert!(engine.power_reading(&n1).is_some());
        let command = Command::Delete { what: Object::Node(n1.clone()), reason: "scrapped".to_owned() };
        let proposal = Proposal { at: Wall(0), by: "test".to_owned(), command };
        let outputs = engine.handle(Now::default(), Input::Applied { index: LogIndex(2), proposal });
        assert!(outputs.contains(&Output::Unwatch { node: n1.clone() }), "{outputs:?}");
        // An answer that comes too late is about nobody.
        engine.handle(Now::default(), read(Power::Off));
        assert_eq!(engine.power_reading(&n1), None);
        assert_eq!(described(&mut engine, 3, Some("sealed:a")), vec![n1.clone()]);
        assert_eq!(engine.power_reading(&n1), None);
    }
}
