//! What a member learns from the log: an entry that was applied, or a whole state that was installed.
//!
//! Why it exists: the state says what was decided; when it was decided, on our own clock, and what we still carry out for it,
//! is the engine's memory. What it never does: decide or act; all that it wants of the body is to watch other nodes.

use super::*;
use crate::effect::Action;
use crate::plan::Intent;

/// Times of intents that are remembered before those of forgotten plans are dropped.
const INTENTS_REMEMBERED_MAX: usize = 20_000;

impl Engine {
    pub(super) fn installed(&mut self, now: Mono, state: ClusterState, outputs: &mut Vec<Output>) {
        for plan in state.plans.values() {
            self.memory.enter(plan.id, plan.phase, now);
        }
        for intent in all_intents(&state) {
            let times = self.memory.intents.entry(intent.token).or_insert((now, None));
            if intent.end.is_some() {
                times.1.get_or_insert(now);
            }
        }
        for (node, record) in &state.nodes {
            let is_news = self.state.nodes.get(node).is_none_or(|known| known.verdict != record.verdict);
            if is_news && record.verdict != Verdict::Healthy {
                self.memory.judged(node, &record.verdict, now);
            }
        }
        if self.leads != state.leadership.map(|leadership| leadership.epoch) {
            self.lead_no_more();
        }
        self.proposals.reached(state.applied);
        self.state = state;
        self.forget_the_deleted();
        // What ended here and was recorded by another leader needs no record of ours; what still runs stays.
        self.memory.in_flight.retain(|token, outcome| outcome.is_none() || self.state.is_open(*token));
        self.rewatch(now, outputs);
    }

    pub(super) fn applied(
        &mut self,
        now: Mono,
        index: LogIndex,
        proposal: &Proposal,
        outputs: &mut Vec<Output>,
    ) {
        let result = self.state.apply(index, proposal);
        self.proposals.applied(index, &proposal.command, result.is_err(), now);
        // A rejection changed nothing; whoever proposed it is told by the store.
        if result.is_err() {
            return;
        }
        match proposal.command.unforced() {
            Command::TookOver { member, boot } if *member == self.me && *boot == self.boot => {
                self.leads = Some(LeaderEpoch(index.0));
                self.memory.took_over = now;
                self.power_due.clear();
                self.memory.checks = Checks::default();
                self.memory.checks.describe(&self.state, now);
            }
            Command::TookOver { .. } => self.lead_no_more(),
            Command::Lead { step, .. } => self.remember(now, index, step, outputs),
            Command::Describe(_) | Command::SetPolicy { .. } | Command::DeletePolicy { .. } => {
                self.rewatch(now, outputs);
            }
            Command::Delete { what, .. } => {
                self.forget_the_deleted();
                if let Object::Node(node) = what {
                    // What was written of it until now is not about whoever gets its name next.
                    self.memory.alive_since.insert(node.clone(), now);
                }
                self.rewatch(now, outputs);
            }
            Command::ByHand { .. } => {
                self.memory.intents.insert(index, (now, None));
            }
            Command::Note { .. }
            | Command::Forced { .. }
            | Command::Arm { .. }
            | Command::Disarm { .. }
            | Command::Cordon { .. }
            | Command::Maintain { .. }
            | Command::Evacuate { .. }
            | Command::Drain { .. }
            | Command::Fence { .. }
            | Command::ConfirmOff { .. }
            | Command::Approve { .. }
            | Command::Cancel { .. }
            | Command::Backup { .. }
            | Command::Release { .. } => {}
        }
    }

    fn remember(&mut self, now: Mono, index: LogIndex, step: &Step, outputs: &mut Vec<Output>) {
        match step {
            Step::Begin(_) | Step::Replace { .. } => self.entered(now, PlanId(index.0)),
            Step::Claim { .. } | Step::Clean { .. } | Step::CutAgain { .. } => {
                self.memory.intents.insert(index, (now, None));
            }
            Step::Intend { plan, .. } => {
                self.memory.intents.insert(index, (now, None));
                self.entered(now, *plan);
            }
            Step::Keep { .. } => {
                self.memory.intents.insert(index, (now, None));
            }
            Step::Resolve { token, .. } => {
                // One that still runs stays: it is not drained before it ends.
                if self.memory.in_flight.get(token).is_some_and(Option::is_some) {
                    self.memory.in_flight.remove(token);
                }
                if let Some(times) = self.memory.intents.get_mut(token) {
                    times.1 = Some(now);
                }
                let ended = self.state.ordered_by_hand(*token).map(|by_hand| &by_hand.intent.action);
                if let Some(Action::Claim { node, .. }) = ended
                    && let Some(record) = self.state.nodes.get(node)
                {
                    self.memory.checks.ask_again(&record.node, now);
                }
            }
            Step::Place { plan, .. } => {
                self.entered(now, *plan);
                self.rewatch(now, outputs);
            }
            Step::Judge { node, verdict, .. } => self.memory.judged(node, verdict, now),
            Step::Finish { plan, .. } => {
                let plan = self.state.plans.get(plan);
                if let Some(spare) = plan.and_then(|plan| plan.decision.spare.clone()) {
                    self.memory.alive_since.insert(spare, now);
                }
            }
            Step::Discover { node, found } => {
                // What was told since then waits; it will be told again should this be older news than the log's.
                self.memory.found.retain(|other, told| other != node || told != found);
                self.memory.discovered.insert(node.clone(), now);
            }
            Step::Cleaned { node } => {
                self.memory.checks.describe(&self.state, now);
                if let Some(record) = self.state.nodes.get(node) {
                    self.memory.checks.ask_again(&record.node, now);
                }
            }
            Step::Withhold { .. } | Step::Stick { .. } | Step::Lapse { .. } => {}
        }
        if self.memory.intents.len() > INTENTS_REMEMBERED_MAX {
            self.forget_intents();
        }
    }

    /// Notes the moment if the plan's phase is a new one.
    fn entered(&mut self, now: Mono, plan: PlanId) {
        if let Some(phase) = self.state.plans.get(&plan).map(|plan| plan.phase) {
            self.memory.enter(plan, phase, now);
        }
    }

    /// Drops the times of intents whose plans are no longer kept.
    fn forget_intents(&mut self) {
        let state = &self.state;
        let kept: BTreeSet<LogIndex> = all_intents(state).map(|intent| intent.token).collect();
        self.memory.intents.retain(|token, _| kept.contains(token));
        self.memory.phases.retain(|plan, _| state.plans.contains_key(plan));
    }

    /// Drops what is believed of nodes that are no longer there.
    fn forget_the_deleted(&mut self) {
        let nodes = &self.state.nodes;
        self.memory.keep_only(|node| nodes.contains_key(node));
        self.power_due.retain(|node, _| nodes.contains_key(node));
    }

    /// Brings the watch table, and what providers are asked, in line with the state.
    fn rewatch(&mut self, now: Mono, outputs: &mut Vec<Output>) {
        let mut wanted = BTreeMap::new();
        for (name, record) in &self.state.nodes {
            if record.node.agent_key.is_none() && record.node.probe.is_empty() {
                continue;
            }
            let Some((_, policy)) = self.state.policy_of_node(name) else { continue };
            let rules = &policy.policy.detection;
            let limits = Limits {
                suspect_after: rules.suspect_after,
                write_stale_after: rules.write_stale_after,
                paths_min: rules.paths_min.unwrap_or(1),
            };
            let (key, pause) = (record.node.agent_key.clone(), rules.probe_pause());
            wanted.insert(name.clone(), Watched { limits, key, pause });
        }
        for (node, watched) in &wanted {
            if self.watched.get(node) != Some(watched) {
                outputs.push(Output::Watch {
                    node: node.clone(),
                    limits: watched.limits,
                    pause: watched.pause,
                });
            }
        }
        for node in self.watched.keys().filter(|node| !wanted.contains_key(*node)) {
            self.sights.forget(node);
            outputs.push(Output::Unwatch { node: node.clone() });
        }
        self.watched = wanted;
        if self.leads.is_some() {
            self.memory.checks.describe(&self.state, now);
        }
    }
}

/// Of all plans, of what was ordered by hand, and of backups.
fn all_intents(state: &ClusterState) -> impl Iterator<Item = &Intent> {
    let by_hand = state.nodes.values().flat_map(|record| record.ordered());
    let backups = state.instances.values().flat_map(|record| &record.backups);
    let kept = backups.flat_map(|backup| &backup.intents);
    state.plans.values().flat_map(|plan| &plan.intents).chain(by_hand).chain(kept)
}
