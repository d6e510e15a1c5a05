//! When not to act. Every gate before a plan, in order, with what was found: the first that is closed is the reason.

use crate::memory::Memory;
use crate::plan::{Cause, Gate, Phase, Verdict};
use crate::policy::Brakes;
use crate::sights::Sights;
use crate::state::{ClusterState, NodeRecord, NodeState};
use crate::waiting::Waiting;
use crate::words::*;
use std::collections::{BTreeMap, BTreeSet};

/// What the gates count, for the whole cluster: a pass over all nodes and plans, taken once for all decisions of a moment.
pub(crate) struct Standing<'a> {
    state: &'a ClusterState,
    /// Nodes that count as failed: in the cluster and in each failure domain.
    failed: u32,
    failed_in: BTreeMap<(&'a str, &'a str), u32>,
    /// What all of them have in common.
    common: Option<String>,
    settles: bool,
    in_flight: u32,
    begun: u32,
}

impl<'a> Standing<'a> {
    pub(crate) fn take(state: &'a ClusterState, memory: &Memory, sights: &Sights, now: Mono) -> Self {
        let counts = |record: &&NodeRecord| counts_as_failed(state, record, memory, sights, now);
        let failed: Vec<&NodeRecord> = state.nodes.values().filter(counts).collect();
        let mut failed_in: BTreeMap<(&str, &str), u32> = BTreeMap::new();
        for (kind, name) in failed.iter().flat_map(|record| &record.node.domains) {
            *failed_in.entry((kind, name)).or_default() += 1;
        }
        Standing {
            state,
            failed: count(failed.len()),
            failed_in,
            common: common_domain(&failed),
            settles: settles(state, memory, now),
            in_flight: state.fences_in_flight(),
            begun: fences_begun(state, memory, now),
        }
    }

    /// Passes all gates or names the closed one. An operator's order passes `armed`, `maintenance` and `hold`, but not
    /// the limits of fences at a time and within ten minutes.
    pub(crate) fn may_begin(
        &self,
        node: &NodeRecord,
        cause: &Cause,
        brakes: &Brakes,
    ) -> Result<Vec<Gate>, Waiting> {
        let ordered = *cause == Cause::Ordered;
        let mut gates = vec![];
        let mut passed = |name: &str, found: String| gates.push(Gate { name: name.to_owned(), found });
        if ordered {
            passed("order", "an operator ordered it".to_owned());
        } else {
            let armed = &self.state.armed;
            if !armed.armed {
                return Err(Waiting::Disarmed { reason: armed.order.reason.clone() });
            }
            passed("armed", format!("by {}", armed.order.by));
            if let Some(order) = &node.maintenance {
                let (node, reason) = (node.node.name.clone(), order.reason.clone());
                return Err(Waiting::Maintenance { node, reason });
            }
            passed("maintenance", "none".to_owned());
            passed("hold", self.hold(brakes)?);
            if self.settles {
                return Err(Waiting::HoldSettles { after: HOLD_SETTLES });
            }
        }
        let (in_flight, begun) = (self.in_flight, self.begun);
        limits(in_flight, begun, brakes)?;
        passed("fences in flight", format!("{in_flight} of at most {}", brakes.fences_in_flight_max));
        passed("fences in ten minutes", format!("{begun} of at most {}", brakes.fences_per_10min_max));
        Ok(gates)
    }

    /// Counts failed, silent and just fenced nodes in the cluster and in each failure domain. Silent ones count before
    /// they are judged: when a switch dies, the first node to be judged must not be fenced before the others are.
    fn hold(&self, brakes: &Brakes) -> Result<String, Waiting> {
        hold_above(self.failed, &self.failed_in, brakes, || self.common.clone())
    }
}

/// The limit of fences at a time.
pub(crate) fn at_a_time(in_flight: u32, brakes: &Brakes) -> Result<(), Waiting> {
    let max = brakes.fences_in_flight_max;
    if in_flight >= max {
        return Err(Waiting::FencesInFlight { now: in_flight, max });
    }
    Ok(())
}

/// The limits of fences at a time and within ten minutes.
pub(crate) fn limits(in_flight: u32, begun: u32, brakes: &Brakes) -> Result<(), Waiting> {
    at_a_time(in_flight, brakes)?;
    let max = brakes.fences_per_10min_max;
    if begun >= max {
        return Err(Waiting::FencesPer10Min { now: begun, max });
    }
    Ok(())
}

/// After a hold the nodes come back one by one, and the last ones must not be fenced because the others are back. For
/// this long after the last moment of a hold nothing is begun. Higher: one that really died in the event waits longer.
pub(crate) const HOLD_SETTLES: Millis = Millis(30_000);

/// True if a hold has ended a short while ago. A new leader knows of it by what the old one committed.
fn settles(state: &ClusterState, memory: &Memory, now: Mono) -> bool {
    let held = |record: &NodeRecord| {
        matches!(record.withheld, Some(Waiting::Hold { .. } | Waiting::HoldSettles { .. }))
    };
    let since = memory.held.or_else(|| state.nodes.values().any(held).then_some(memory.took_over));
    since.is_some_and(|since| now.since(since) < HOLD_SETTLES)
}

/// Whether so many failed nodes, in the cluster and in each failure domain, are too many to act.
pub(crate) fn hold_above<T: AsRef<str>>(
    all: u32,
    domains: &BTreeMap<(T, T), u32>,
    brakes: &Brakes,
    common: impl FnOnce() -> Option<String>,
) -> Result<String, Waiting> {
    let max = brakes.hold_above_failed;
    if all > max {
        return Err(Waiting::Hold { place: "the cluster".to_owned(), failed: all, max, common: common() });
    }
    let max = brakes.hold_above_failed_per_domain;
    match domains.iter().find(|(_, failed)| **failed > max) {
        Some(((kind, name), failed)) => {
            let place = format!("{} {}", kind.as_ref(), name.as_ref());
            Err(Waiting::Hold { place, failed: *failed, max, common: None })
        }
        None => Ok(format!("{all} of at most {} nodes failed", brakes.hold_above_failed)),
    }
}

fn counts_as_failed(
    state: &ClusterState,
    record: &NodeRecord,
    memory: &Memory,
    sights: &Sights,
    now: Mono,
) -> bool {
    // An operator works on it: its silence says nothing about the others.
    if record.maintenance.is_some() {
        return false;
    }
    match &record.state {
        NodeState::Fencing { .. } => true,
        NodeState::Quarantined { plan, .. } => {
            let first = state.plans.get(plan).and_then(|plan| plan.intents.first());
            first.is_some_and(|intent| memory.is_recent(intent.token, now))
        }
        NodeState::Active { .. } => {
            matches!(record.verdict, Verdict::Failed(_)) || sights.fell_silent(&record.node.name)
        }
        NodeState::Spare | NodeState::Reserved { .. } => matches!(record.verdict, Verdict::Failed(_)),
        NodeState::Cleaning { .. } => false,
    }
}

/// The one failure domain in which all of them stand: probably the cause.
fn common_domain(failed: &[&NodeRecord]) -> Option<String> {
    let (first, rest) = failed.split_first()?;
    let shared = |(kind, name): &(&String, &String)| {
        rest.iter().all(|record| record.node.domains.get(*kind) == Some(*name))
    };
    first.node.domains.iter().find(shared).map(|(kind, name)| format!("{kind} {name}"))
}

fn fences_begun(state: &ClusterState, memory: &Memory, now: Mono) -> u32 {
    let recent = |plan: &&crate::plan::Plan| match plan.intents.first() {
        Some(intent) => memory.is_recent(intent.token, now),
        // It will fence as soon as older commands have drained, or a new leader goes on with it.
        None => plan.phase == Phase::Reserved,
    };
    // A node that is fenced first and moved from later is fenced once.
    let nodes: BTreeSet<&NodeId> =
        state.plans.values().filter(recent).map(|plan| &plan.decision.from).collect();
    count(nodes.len())
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
