//! One scenario's stage with everything that can be broken in it, and what is waited for.
//!
//! Why it exists: a scenario reads as what happens: `hang`, `kill`, `await_failover`.
//! What it never does: wait for a fixed time without looking, or judge.

use super::clock::{self, WallClock};
use super::control::{self, Group};
use super::facts::{End, Ending};
use super::faultfs::{Disk, Mounted};
use super::net::{Host, Network};
use super::notes::Notes;
use crate::demo::error::{system, tail};
use crate::demo::ground::{Ground, MEMBERS, Seat};
use crate::demo::process::Around;
use crate::demo::stage::Stage;
use crate::demo::wait::{Look, until};
use crate::demo::{DemoError, Home};
use crate::rack::{Fault, MoodChange};
use nix::sys::signal::Signal;
use policies::{Action, Event, MemberId, Millis, NodeId, VolumeId, causes};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use supervisor::api::answers::{FailoverLine, Members, NodeDetail, Status};
use supervisor::client::Client;
use tokio::time::Instant;

/// How long anything is waited for. Far more than it takes: the computer is shared, and a slow one is no failure.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// A BMC that takes half a second to switch off, so that something can happen in the middle of a fence.
pub(super) const LATE_OFF: MoodChange = MoodChange::OffDelay(Millis(500));
/// A BMC that takes its time for each answer: the fence is still at its first question when something happens.
pub(super) const LATE_ANSWERS: MoodChange = MoodChange::Slow(Millis(150));
/// Writes of the new node that are awaited after the first: a second writer would be seen among them.
const WRITES_AFTER_MIN: u64 = 50;

/// What a scenario is built on, beside members, rack and network.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    /// The members' stores are on disks of ours.
    pub(super) disks: bool,
    /// The members' wall clocks can be moved.
    pub(super) clocks: bool,
    /// The policy of every instance.
    pub(super) policy: &'static str,
}

impl Default for Setting {
    /// The default preset: the computer is shared, and `quick` would take its pauses for deaths.
    fn default() -> Self {
        Setting { disks: false, clocks: false, policy: "cautious" }
    }
}

/// A stage, and what can be broken. Fields are dropped in this order: processes before the disks that they use.
pub(super) struct Scene<'a> {
    pub(super) notes: Notes,
    pub(super) stage: Stage,
    pub(super) net: &'a Network,
    pub(super) groups: Vec<Group>,
    disks: BTreeMap<MemberId, Mounted>,
    clocks: BTreeMap<MemberId, WallClock>,
    clients: BTreeMap<MemberId, Arc<Client>>,
    pub(super) struck: BTreeSet<NodeId>,
    pub(super) ends: Vec<End>,
    pub(super) chance: StdRng,
}

impl<'a> Scene<'a> {
    /// Builds it in `dir`; returns when every instance is healthy and the operator gives orders.
    pub(super) async fn build(
        home: &Home,
        net: &'a Network,
        dir: PathBuf,
        setting: &Setting,
        seed: u64,
    ) -> Result<Scene<'a>, DemoError> {
        net.heal()?;
        let clocks = if setting.clocks { make_clocks(&dir)? } else { BTreeMap::new() };
        let seats = members().map(|id| (id, seat(id, &clocks))).collect();
        let mounted = Rc::new(RefCell::new(BTreeMap::new()));
        let (with_disks, mounts) = (setting.disks, mounted.clone());
        let mount = move |dir: &Path| {
            for id in members().filter(|_| with_disks) {
                let at = supervisor::config::Home::new(dir.join(id.to_string())).store();
                mounts.borrow_mut().insert(id, Mounted::at(&at)?);
            }
            Ok(())
        };
        let ground = Ground {
            seats,
            rack: Host::Rack.address(),
            rack_around: Around { net: Some(Host::Rack.file()), ..Around::default() },
            policy: setting.policy.to_owned(),
            before_run: Box::new(mount),
        };
        let stage = Stage::build_on(home, dir, ground, |_| Ok(())).await?;
        let clients: BTreeMap<_, _> = members().zip(stage.cluster.clients()?).collect();
        Ok(Scene {
            notes: Notes::begin(stage.cluster.clients()?),
            stage,
            net,
            groups: Vec::new(),
            disks: mounted.take(),
            clocks,
            clients,
            struck: BTreeSet::new(),
            ends: Vec::new(),
            chance: StdRng::seed_from_u64(seed),
        })
    }

    // --- who is who ---

    /// The member that a quorum confirms as leader.
    pub(super) async fn leader(&self) -> Result<MemberId, DemoError> {
        self.look_for("a leader", async || match self.status().await {
            Ok(status) => Look::There(status.answered_by),
            Err(error) => Look::NotYet(causes(&error)),
        })
        .await
    }

    /// Waits for another leader than this member.
    pub(super) async fn other_leader(&self, than: MemberId) -> Result<MemberId, DemoError> {
        self.look_for(&format!("another leader than {than}"), async || match self.status().await {
            Ok(status) if status.answered_by != than => Look::There(status.answered_by),
            Ok(status) => Look::NotYet(format!("{} leads", status.answered_by)),
            Err(error) => Look::NotYet(causes(&error)),
        })
        .await
    }

    /// A member that does not lead.
    pub(super) async fn follower(&self) -> Result<MemberId, DemoError> {
        let leader = self.leader().await?;
        let follower = members().find(|id| *id != leader);
        follower.ok_or_else(|| DemoError::Unexpected("there is no follower".to_owned()))
    }

    /// All members but this one.
    pub(super) fn others(&self, than: MemberId) -> Vec<MemberId> {
        members().filter(|id| *id != than).collect()
    }

    /// The cluster's state, confirmed by a quorum.
    pub(super) async fn status(&self) -> Result<Status, DemoError> {
        self.stage.cluster.get("ask for the status", "/v1/status").await
    }

    /// What one member says of all members.
    pub(super) async fn members_seen_by(&self, member: MemberId) -> Result<Members, DemoError> {
        let client = self.client(member)?;
        let doing = "ask one member who the members are";
        client.get("/v1/members").await.map_err(|source| DemoError::Cluster { doing, source })
    }

    pub(super) fn client(&self, member: MemberId) -> Result<&Client, DemoError> {
        let client = self.clients.get(&member).map(Arc::as_ref);
        client.ok_or_else(|| DemoError::Unexpected(format!("there is no {member}")))
    }

    /// The process of a member that runs.
    pub(super) fn pid(&self, member: MemberId) -> Result<u32, DemoError> {
        let pid = self.stage.cluster.pid(member);
        pid.ok_or_else(|| DemoError::Unexpected(format!("{member} does not run")))
    }

    pub(super) fn disk(&self, member: MemberId) -> Result<Disk, DemoError> {
        let disk = self.disks.get(&member).map(|mounted| mounted.disk.clone());
        disk.ok_or_else(|| DemoError::Unexpected(format!("{member} has no disk of ours")))
    }

    pub(super) fn clock(&self, member: MemberId) -> Result<&WallClock, DemoError> {
        let clock = self.clocks.get(&member);
        clock.ok_or_else(|| DemoError::Unexpected(format!("{member} has no clock of ours")))
    }

    // --- what is done to members ---

    /// kill -9.
    pub(super) async fn kill(&mut self, member: MemberId) -> Result<(), DemoError> {
        let log = self.stage.cluster.newest_log(member);
        self.stage.cluster.kill(member).await?;
        self.note_end(member, Ending::Killed, "signal: 9 (SIGKILL)".to_owned(), &log);
        Ok(())
    }

    /// Starts a member again.
    pub(super) async fn run(&mut self, member: MemberId) -> Result<(), DemoError> {
        self.stage.cluster.run(member).await
    }

    /// SIGSTOP.
    pub(super) fn stop(&self, member: MemberId) -> Result<(), DemoError> {
        control::signal(self.pid(member)?, Signal::SIGSTOP)
    }

    /// SIGCONT.
    pub(super) fn go_on(&self, member: MemberId) -> Result<(), DemoError> {
        control::signal(self.pid(member)?, Signal::SIGCONT)
    }

    /// Waits until a member has ended because of what was done to it; returns its last words.
    pub(super) async fn await_end(&mut self, member: MemberId, ending: Ending) -> Result<String, DemoError> {
        let log = self.stage.cluster.newest_log(member);
        let cluster = &mut self.stage.cluster;
        let mut others = Vec::new();
        let status = until(&format!("{member} to end"), PATIENCE, &log, async || {
            for (ended, status) in cluster.bury() {
                match ended == member {
                    true => return Ok(Look::There(status)),
                    false => others.push((ended, status)),
                }
            }
            Ok(Look::NotYet("it runs".to_owned()))
        })
        .await;
        for (other, status) in others {
            let log = self.stage.cluster.newest_log(other);
            self.note_end(other, Ending::Unexpected, status, &log);
        }
        self.note_end(member, ending, status?, &log);
        let words = self.ends.last().and_then(|end| end.last_words.last());
        Ok(words.map_or_else(String::new, |line| line.trim_start_matches("ha-supervisord: ").to_owned()))
    }

    /// Notes members that ended without anybody asking.
    pub(super) fn note_unexpected_ends(&mut self) {
        for (member, status) in self.stage.cluster.bury() {
            let log = self.stage.cluster.newest_log(member);
            self.note_end(member, Ending::Unexpected, status, &log);
        }
    }

    fn note_end(&mut self, member: MemberId, ending: Ending, status: String, log: &Path) {
        let last_words = tail(log).lines().map(|line| line.trim_start().to_owned()).collect();
        self.ends.push(End { member, ending, status, last_words });
    }

    // --- what is done to nodes ---

    /// The node of the rack's first instance, and its volume.
    pub(super) fn victim(&self) -> Result<(NodeId, VolumeId), DemoError> {
        let first = self.stage.description.instances.first();
        let first = first.ok_or_else(|| DemoError::Unexpected("there are no instances".to_owned()))?;
        Ok((first.node.clone(), first.volume.clone()))
    }

    /// Lets something happen to a node, which may then be fenced.
    pub(super) async fn strike(&mut self, node: &NodeId, fault: Fault) -> Result<(), DemoError> {
        self.struck.insert(node.clone());
        self.fault(node, fault).await
    }

    async fn fault(&self, node: &NodeId, fault: Fault) -> Result<(), DemoError> {
        let doing = "let a fault happen";
        self.stage.rack().fault(node, fault).await.map_err(|source| DemoError::Rack { doing, source })
    }

    /// Lets the victim hang, with a BMC in this mood; returns when the cluster has committed that it will switch it off.
    pub(super) async fn hang_until_fence_begins(&mut self, mood: MoodChange) -> Result<(), DemoError> {
        let (victim, _) = self.victim()?;
        self.fault(&victim, Fault::BmcMood { mood }).await?;
        let events = self.stage.history.subscribe();
        self.strike(&victim, Fault::Hang).await?;
        let intent = Action::PowerOff { node: victim, level: 0 }.to_string();
        let says_so = |event: &Event| event.text.contains(&intent);
        self.look_for(&format!("the intent to {intent}"), async || {
            match events.borrow().iter().any(says_so) {
                true => Look::There(()),
                false => Look::NotYet("no such event".to_owned()),
            }
        })
        .await
    }

    /// Waits until the victim's instance writes from a spare and no failover is under way. Returns how long nobody
    /// wrote.
    pub(super) async fn await_failover(&self) -> Result<Duration, DemoError> {
        let (_, volume) = self.victim()?;
        self.look_for("the failover to be over", async || {
            let report = match self.stage.report().await {
                Ok(report) => report,
                Err(error) => return Look::NotYet(causes(&error)),
            };
            let seen = report.volumes.iter().find(|seen| seen.volume == volume);
            let Some((handover, run)) =
                seen.and_then(|seen| Some((seen.handovers.last()?, seen.runs.last()?)))
            else {
                return Look::NotYet(self.describe_failovers().await);
            };
            let wrote = run.initiator == handover.to && run.last + 1 - run.first >= WRITES_AFTER_MIN;
            match (wrote, self.failovers().await) {
                (true, Ok(lines)) if lines.iter().all(|line| line.phase.is_over()) => {
                    let pause = handover.first_at.saturating_sub(handover.last_at);
                    Look::There(Duration::from_nanos(pause))
                }
                (_, Ok(_)) => Look::NotYet(self.describe_failovers().await),
                (_, Err(error)) => Look::NotYet(causes(&error)),
            }
        })
        .await
    }

    pub(super) async fn failovers(&self) -> Result<Vec<FailoverLine>, DemoError> {
        self.stage.cluster.get("ask for the failovers", "/v1/failovers").await
    }

    async fn describe_failovers(&self) -> String {
        let lines = match self.failovers().await {
            Ok(lines) => lines,
            Err(error) => return causes(&error),
        };
        let line = |line: &FailoverLine| {
            let why: Vec<String> = line.stuck.iter().chain(&line.waiting).cloned().collect();
            format!("failover {} is {}: {}", line.id, line.phase, why.join("; "))
        };
        if !lines.is_empty() {
            return lines.iter().map(line).collect::<Vec<_>>().join(", ");
        }
        let Ok((victim, _)) = self.victim() else { return "no failover".to_owned() };
        let path = format!("/v1/nodes/{victim}");
        match self.stage.cluster.get::<NodeDetail>("ask for the node", &path).await {
            Ok(NodeDetail { record, view, .. }) => {
                let waiting: Vec<String> = view.waiting.iter().map(ToString::to_string).collect();
                format!("no failover; the node is {}: {}", record.verdict, waiting.join("; "))
            }
            Err(error) => causes(&error),
        }
    }

    // --- waiting ---

    /// Waits for the operator to get this many more acknowledgements: the cluster works.
    pub(super) async fn await_orders(&self, more: usize) -> Result<(), DemoError> {
        let wanted = self.notes.count() + more;
        self.look_for(&format!("{more} more orders to be acknowledged"), async || {
            let count = self.notes.count();
            if count >= wanted { Look::There(()) } else { Look::NotYet(format!("{count} of {wanted}")) }
        })
        .await
    }

    /// Looks on for this long: what must not happen needs a time in which it could have. Ends early with what a look
    /// says against it.
    pub(super) async fn look_on(
        &self,
        length: Duration,
        mut look: impl AsyncFnMut() -> Result<(), String>,
    ) -> Result<(), DemoError> {
        let end = Instant::now() + length;
        let seen =
            self.look_for("the end of the time in which nothing may happen", async || match look().await {
                Err(wrong) => Look::There(Some(wrong)),
                Ok(()) if Instant::now() >= end => Look::There(None),
                Ok(()) => Look::NotYet("all is quiet".to_owned()),
            });
        match seen.await? {
            None => Ok(()),
            Some(wrong) => Err(DemoError::Unexpected(wrong)),
        }
    }

    /// Nothing is fenced, as far as the cluster says now.
    pub(super) async fn is_calm(&self) -> Result<(), String> {
        match self.failovers().await {
            Ok(lines) if lines.is_empty() => Ok(()),
            Ok(_) => Err(self.describe_failovers().await),
            // Whoever cannot be asked now is asked again; at the end the committed state is looked at anyway.
            Err(_) => Ok(()),
        }
    }

    /// Waits for something; `look` says what it sees.
    pub(super) async fn look_for<T>(
        &self,
        what: &str,
        mut look: impl AsyncFnMut() -> Look<T>,
    ) -> Result<T, DemoError> {
        let log = self.stage.cluster.newest_log(MemberId(1));
        until(what, PATIENCE, &log, async || Ok(look().await)).await
    }
}

pub(super) fn members() -> impl Iterator<Item = MemberId> {
    (1..).take(MEMBERS).map(MemberId)
}

fn seat(id: MemberId, clocks: &BTreeMap<MemberId, WallClock>) -> Seat {
    let host = Host::Member(id);
    let at = |port: u16| SocketAddr::new(host.address(), port);
    let mut seat = Seat::new(at(7101), at(7201), at(7301));
    seat.around.net = Some(host.file());
    if let (Some(clock), Some(library)) = (clocks.get(&id), clock::library()) {
        seat.around.environment.extend(clock.environment(library));
    }
    seat
}

fn make_clocks(dir: &Path) -> Result<BTreeMap<MemberId, WallClock>, DemoError> {
    let room = dir.join("clocks");
    std::fs::create_dir_all(&room).map_err(system(format!("make directory {}", room.display())))?;
    members().map(|id| Ok((id, WallClock::new(room.join(id.to_string()))?))).collect()
}
