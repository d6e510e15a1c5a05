//! What a leader knows beside the committed state: reports, readings, and when it saw what on its own clock.
//! All of it can be lost: a new leader begins with nothing and is only slower (R5), never less safe.

use crate::capability::Capabilities;
use crate::command::Step;
use crate::effect::{Action, Outcome};
use crate::judge::REPORT_AGE_MAX;
use crate::observation::{Power, Report, Sight, Stamp};
use crate::plan::{Intent, Phase, Verdict};
use crate::policy::{Detection, Policy};
use crate::readiness::Checks;
use crate::state::ClusterState;
use crate::words::*;
use std::collections::{BTreeMap, BTreeSet};

/// A BMC reading older than this is no evidence.
pub(crate) const POWER_AGE_MAX: Millis = Millis(2000);
/// The window of the brake `fences_per_10min_max`, and of counting fenced nodes as failed.
pub(crate) const BRAKE_WINDOW: Millis = Millis(600_000);

/// Pause between two records of one node's hardware. Lower: a port that loses its link again and again, or an agent gone
/// mad, fills the log. Higher: a repaired node is a spare later. Agents tell every five minutes.
pub(crate) const DISCOVER_PAUSE: Millis = Millis(60_000);

/// The newest answer of a BMC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastPower {
    NeverAsked,
    Mute,
    Read(Power),
}

/// What is seen of a node that may become a spare.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Presence {
    pub(crate) power: LastPower,
    /// Some member hears it wait as a hot spare. One is enough: if it is wrong, the spare is started cold.
    pub(crate) waits_hot: bool,
}

impl LastPower {
    /// From an answer; `None`: there was none.
    pub(crate) fn of(answer: Option<Power>) -> Self {
        answer.map_or(LastPower::Mute, LastPower::Read)
    }
}

/// Leader-local beliefs and times.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// The voters of the Raft cluster.
    pub(crate) voters: BTreeSet<MemberId>,
    /// The newest report of each member, our own included, and a moment of ours after which it was written.
    pub(crate) reports: BTreeMap<MemberId, (Report, Mono)>,
    /// When the newest report of each other member was written, for it to be given back.
    pub(crate) heard: BTreeMap<MemberId, Stamp>,
    /// The newest answer of each BMC (`None`: it did not answer), and when it came.
    pub(crate) powers: BTreeMap<NodeId, (Option<Power>, Mono)>,
    /// The present moment's view of `powers`: readings that are fresh enough to be evidence.
    pub(crate) fresh_powers: BTreeMap<NodeId, Power>,
    /// When each node was last found to be alive: judged healthy, or seen to have taken over.
    pub(crate) alive_since: BTreeMap<NodeId, Mono>,
    /// When each node that is judged failed was first known here to be so.
    pub(crate) failed_since: BTreeMap<NodeId, Mono>,
    /// Since when enough members see a node gray.
    pub(crate) gray_since: BTreeMap<NodeId, Mono>,
    /// When each intent was applied here, and when its end was.
    pub(crate) intents: BTreeMap<LogIndex, (Mono, Option<Mono>)>,
    /// The present phase of each plan, and when it was entered, as applied here.
    pub(crate) phases: BTreeMap<PlanId, (Phase, Mono)>,
    /// Effects that this process is carrying out (`None`) or that have ended without the log knowing it yet. They
    /// outlast a leadership: whoever leads again must not send a second copy beside one that still runs.
    pub(crate) in_flight: BTreeMap<LogIndex, Option<Outcome>>,
    /// Hardware that agents told of and that the log may not know yet.
    pub(crate) found: BTreeMap<NodeId, Box<Capabilities>>,
    /// When a node's hardware was last committed, as applied here.
    pub(crate) discovered: BTreeMap<NodeId, Mono>,
    /// What providers say beforehand of what a failover will need. Lost with the leadership.
    pub(crate) checks: Checks,
    /// The last moment at which a hold kept this leader from acting.
    pub(crate) held: Option<Mono>,
    /// When this member took over; older intents may be in flight until then and longer.
    pub(crate) took_over: Mono,
}

impl Memory {
    /// More than half of the voters.
    pub(crate) fn majority(&self) -> u32 {
        u32::try_from(self.voters.len() / 2 + 1).unwrap_or(u32::MAX)
    }

    /// Takes another member's report. How old it is only a moment of ours tells that its writer knew of; without one it
    /// may be as old as it likes, and is no opinion.
    pub(crate) fn take_report(&mut self, report: Report, me: MemberId, boot: BootId, now: Mono) {
        let (member, written) = (report.member, report.written);
        let overtaken = |known: &Stamp| known.boot == written.boot && known.moment > written.moment;
        if self.heard.get(&member).is_some_and(overtaken) {
            return;
        }
        self.heard.insert(member, written);
        let ours = report.heard.get(&me).filter(|ours| ours.boot == boot && ours.moment <= now.0);
        match ours.map(|ours| Mono(ours.moment)) {
            Some(after) => drop(self.reports.insert(member, (report, after))),
            None => drop(self.reports.remove(&member)),
        }
    }

    /// Drops what is about nodes that are not kept; not since when which reports count, for old ones may yet arrive.
    pub(crate) fn keep_only(&mut self, keep: impl Fn(&NodeId) -> bool) {
        for (report, _) in self.reports.values_mut() {
            report.sights.retain(|node, _| keep(node));
        }
        self.powers.retain(|node, _| keep(node));
        self.fresh_powers.retain(|node, _| keep(node));
        self.failed_since.retain(|node, _| keep(node));
        self.gray_since.retain(|node, _| keep(node));
        self.found.retain(|node, _| keep(node));
        self.discovered.retain(|node, _| keep(node));
    }

    /// A verdict is committed.
    pub(crate) fn judged(&mut self, node: &NodeId, verdict: &Verdict, now: Mono) {
        match verdict {
            Verdict::Failed(_) => drop(self.failed_since.entry(node.clone()).or_insert(now)),
            Verdict::Healthy => {
                self.alive_since.insert(node.clone(), now);
                self.failed_since.remove(node);
            }
            Verdict::Unknown | Verdict::Gray => drop(self.failed_since.remove(node)),
        }
    }

    /// How long the node has been judged failed, as known here.
    pub(crate) fn failed_for(&self, node: &NodeId, now: Mono) -> Millis {
        self.failed_since.get(node).map_or(Millis(0), |since| now.since(*since))
    }

    /// What agents have found and the state does not say yet.
    pub(crate) fn news_of_hardware(&self, state: &ClusterState, now: Mono) -> Vec<Step> {
        let is_news = |node: &NodeId, found: &Capabilities| {
            let record = state.nodes.get(node);
            let paused = self.discovered.get(node).is_some_and(|at| now.since(*at) < DISCOVER_PAUSE);
            record.is_some_and(|record| record.found.as_deref() != Some(found)) && !paused
        };
        let news = self.found.iter().filter(|(node, found)| is_news(node, found));
        news.map(|(node, found)| Step::Discover { node: node.clone(), found: found.clone() }).collect()
    }

    /// Fresh power reading of a node.
    pub(crate) fn power(&self, node: &NodeId) -> Option<Power> {
        self.fresh_powers.get(node).copied()
    }

    /// Recomputes which power readings are fresh enough to be evidence.
    pub(crate) fn refresh(&mut self, now: Mono) {
        let fresh = |(power, at): &(Option<Power>, Mono)| power.filter(|_| now.since(*at) <= POWER_AGE_MAX);
        self.fresh_powers =
            self.powers.iter().filter_map(|(node, reading)| Some((node.clone(), fresh(reading)?))).collect();
    }

    /// From when on a report of this sight is evidence of death. What a member wrote before the node was found alive is
    /// about its past, and silence must have lasted since then for as long as silence must.
    pub(crate) fn counts_from(&self, node: &NodeId, sight: &Sight, rules: &Detection) -> Mono {
        match (self.alive_since.get(node), sight) {
            (None, _) => Mono(0),
            (Some(since), Sight::Gasped(_)) => *since,
            (Some(since), Sight::Alive { .. } | Sight::Silent { .. }) => *since + rules.suspect_after,
        }
    }

    /// What is known of a node that may become a spare: what its BMC said last, however long ago, and whether it waits hot.
    pub(crate) fn presence(&self, node: &NodeId, now: Mono) -> Presence {
        let power = self.powers.get(node).map_or(LastPower::NeverAsked, |(power, _)| LastPower::of(*power));
        let fresh = self.reports.values().filter(|(_, at)| now.since(*at) <= REPORT_AGE_MAX);
        let waits_hot = fresh.filter_map(|(report, _)| report.sights.get(node)).any(Sight::waits_hot);
        Presence { power, waits_hot }
    }

    /// True once no copy of this intent's effect can still take effect: it has ended, or its leader has lost the
    /// right to send, longer ago than `effect_max` of its device class (R5). Even an effect that was seen done, or that
    /// the device refused, may have a late duplicate on the way.
    pub(crate) fn is_drained(
        &self,
        intent: &Intent,
        leader: LeaderEpoch,
        policy: &Policy,
        now: Mono,
    ) -> bool {
        if self.in_flight.contains_key(&intent.token) {
            return false;
        }
        // What was not sent under this leadership may still have been sent under the one before.
        let unsent = matches!(&intent.end, Some((Outcome::Refused(refusal), _)) if refusal.is_unsent());
        if intent.leader == leader && unsent {
            return true;
        }
        let Some((began, ended)) = self.intents.get(&intent.token) else { return false };
        let sent_until = match (ended, intent.leader == leader) {
            (Some(ended), true) => *ended,
            (Some(ended), false) => (*ended).max(self.took_over),
            // Not in flight and never ended under this leadership: it was not sent and will not be.
            (None, true) => *began,
            (None, false) => (*began).max(self.took_over),
        };
        now.since(sent_until) >= effect_max(&intent.action, policy)
    }

    /// Fences begun within the window: the first power-off or isolation of each plan, as applied here.
    pub(crate) fn is_recent(&self, token: LogIndex, now: Mono) -> bool {
        self.intents.get(&token).is_none_or(|(began, _)| now.since(*began) < BRAKE_WINDOW)
    }

    /// How long ago the intent was applied here.
    pub(crate) fn age(&self, token: LogIndex, now: Mono) -> Millis {
        self.intents.get(&token).map_or(Millis(0), |(began, _)| now.since(*began))
    }

    /// How long ago the intent's end was applied here.
    pub(crate) fn ended_ago(&self, token: LogIndex, now: Mono) -> Millis {
        let ended = self.intents.get(&token).and_then(|(_, ended)| *ended);
        ended.map_or(Millis(0), |ended| now.since(ended))
    }

    /// True if the intent's end was applied here less than `length` ago.
    pub(crate) fn ended_within(&self, token: LogIndex, length: Millis, now: Mono) -> bool {
        let ended = self.intents.get(&token).and_then(|(_, ended)| *ended);
        ended.is_some_and(|ended| now.since(ended) < length)
    }

    /// How long ago the plan entered its phase, as applied here.
    pub(crate) fn in_phase(&self, plan: PlanId, now: Mono) -> Millis {
        self.phases.get(&plan).map_or(Millis(0), |(_, since)| now.since(*since))
    }

    /// The plan is in this phase, perhaps since now.
    pub(crate) fn enter(&mut self, plan: PlanId, phase: Phase, now: Mono) {
        let entered = self.phases.entry(plan).or_insert((phase, now));
        if entered.0 != phase {
            *entered = (phase, now);
        }
    }
}

/// The latest that an action may take effect after it was sent, by device class.
fn effect_max(action: &Action, policy: &Policy) -> Millis {
    match action {
        Action::Diagnose { .. } | Action::Snapshot { .. } => Millis(0),
        Action::ShutDown { .. }
        | Action::PowerOff { .. }
        | Action::PowerOn { .. }
        | Action::Interrupt { .. } => policy.fencing.power_effect_max,
        Action::Revoke { .. }
        | Action::ClosePort { .. }
        | Action::Attach { .. }
        | Action::OpenPort { .. }
        | Action::AttachVif { .. }
        | Action::Claim { .. }
        | Action::Clean { .. }
        | Action::SetBoot { .. } => policy.fencing.provider_effect_max,
    }
}
