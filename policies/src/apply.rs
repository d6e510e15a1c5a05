//! How the log changes the state. Total and deterministic: the same entries give the same state on every member.
//! Never asks for the time, never trusts the proposer: what a plan needs is checked again here.

use crate::brake::at_a_time;
use crate::capability::Capabilities;
use crate::command::*;
use crate::effect::{Action, Outcome};
use crate::plan::*;
use crate::state::*;
use crate::words::*;
use std::collections::BTreeSet;

/// Objects that the event of a forced order names; a whole inventory may be forced at once.
const ABOUT_MAX: usize = 20;
/// Tries of one step that a plan remembers; the others are only in the history. Bounds the snapshot.
const TRIES_KEPT_MAX: usize = 40;
/// Instances that one event names whose policy has become another. Bounds the event.
const PROTECTION_TOLD_MAX: usize = 20;

/// Collects the history of one entry.
pub(crate) struct Story {
    pub(crate) index: LogIndex,
    pub(crate) at: Wall,
    events: Vec<Event>,
}

impl Story {
    pub(crate) fn tell(&mut self, about: &[String], text: String) {
        self.events.push(Event { index: self.index, at: self.at, about: about.to_vec(), text });
    }

    /// Tells which instances are protected by another policy than before; the first ones by name.
    fn tell_protection(&mut self, old: &ClusterState, new: &ClusterState) {
        let before = |name: &InstanceId| old.instances.get(name).map(|record| &record.policy);
        let changed = |(name, record): (&InstanceId, &InstanceRecord)| {
            let before = before(name).filter(|before| **before != record.policy)?;
            Some((instance_key(name), format!("{name} ({before} -> {})", record.policy)))
        };
        let (about, mut told): (Vec<String>, Vec<String>) = new.instances.iter().filter_map(changed).unzip();
        let shown = about.get(..PROTECTION_TOLD_MAX).unwrap_or(&about);
        if shown.is_empty() {
            return;
        }
        let more = told.len() - shown.len();
        told.truncate(shown.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        self.tell(shown, format!("protected by another policy now: {}{more}", told.join(", ")));
    }
}

pub(crate) fn node_key(node: &NodeId) -> String {
    format!("node/{node}")
}
pub(crate) fn instance_key(instance: &InstanceId) -> String {
    format!("instance/{instance}")
}
pub(crate) fn plan_keys(plan: &Plan) -> Vec<String> {
    let mut keys = vec![format!("failover/{}", plan.id), node_key(&plan.decision.from)];
    keys.extend(plan.decision.instance.as_ref().map(instance_key));
    keys.extend(plan.decision.spare.as_ref().map(node_key));
    keys
}

impl ClusterState {
    /// Applies one entry.
    ///
    /// # Errors
    /// [`Rejected`] if the command does not fit the state; then only `applied` has changed.
    pub fn apply(&mut self, index: LogIndex, proposal: &Proposal) -> Result<Applied, Rejected> {
        self.applied = index;
        let mut story = Story { index, at: proposal.at, events: vec![] };
        self.obey(&mut story, proposal.by.as_str(), &proposal.command)?;
        Ok(Applied { events: story.events })
    }

    fn obey(&mut self, story: &mut Story, by: &str, command: &Command) -> Result<(), Rejected> {
        match command {
            Command::Note { text } => story.tell(&[], format!("{by} notes: {text}")),
            Command::Describe(documents) => {
                let mut next = self.clone();
                story.events = next.describe(story.index, story.at, by, documents)?;
                story.tell_protection(self, &next);
                *self = next;
            }
            Command::Delete { what, reason } => self.delete(story, what, Order::new(by, reason, story.at))?,
            Command::Forced { order, gaps } => {
                if !order.can_be_forced() {
                    let what = "a forced order".to_owned();
                    let why = "only what may take cover away can be forced".to_owned();
                    return Err(Rejected::BadValue { what, why });
                }
                self.obey(story, by, order)?;
                let about: BTreeSet<String> =
                    story.events.iter().flat_map(|event| &event.about).cloned().collect();
                let about: Vec<String> = about.into_iter().take(ABOUT_MAX).collect();
                story.tell(
                    &about,
                    format!("{by} forced this, although it takes cover away: {}", gaps.join("; ")),
                );
            }
            Command::SetPolicy { name, policy, check, reason } => {
                self.check_version(name, *check)?;
                let order = Order::new(by, reason, story.at);
                let mut next = self.clone();
                let changes = next.revise(name, policy, story.index, order)?;
                next.select_policies()?;
                story.tell(
                    &[format!("policy/{name}")],
                    format!("{by} set policy {name} ({changes}): {reason}"),
                );
                story.tell_protection(self, &next);
                *self = next;
            }
            Command::DeletePolicy { name, check, reason } => {
                self.check_version(name, *check)?;
                let order = Order::new(by, reason, story.at);
                self.delete_policy(name, story.index, order)?;
                story.tell(&[format!("policy/{name}")], format!("{by} deleted policy {name}: {reason}"));
            }
            Command::Arm { reason } => self.arm(story, by, true, reason, None),
            Command::Disarm { reason, until } => self.arm(story, by, false, reason, *until),
            Command::TookOver { member, boot } => {
                let epoch = LeaderEpoch(story.index.0);
                self.leadership = Some(Leadership { epoch, member: *member, boot: *boot });
                story.tell(&[format!("member/{member}")], format!("{member} leads as {epoch}"));
            }
            Command::Cancel { plan, reason } => self.cancel(story, by, *plan, reason)?,
            Command::Cordon { .. }
            | Command::Maintain { .. }
            | Command::Evacuate { .. }
            | Command::Drain { .. }
            | Command::Fence { .. }
            | Command::ConfirmOff { .. }
            | Command::Approve { .. }
            | Command::Release { .. }
            | Command::ByHand { .. }
            | Command::Backup { .. } => self.order(story, by, command)?,
            Command::Lead { leader, step } => {
                let newest = self.leadership.map_or(LeaderEpoch(0), |l| l.epoch);
                if *leader != newest {
                    return Err(Rejected::OldLeadership { given: *leader, newest });
                }
                self.lead(story, *leader, step)?;
            }
        }
        Ok(())
    }

    fn lead(&mut self, story: &mut Story, leader: LeaderEpoch, step: &Step) -> Result<(), Rejected> {
        match step {
            Step::Judge { node, verdict, evidence } => self.judge(story, node, verdict, evidence)?,
            Step::Withhold { node, why } => {
                self.node_mut(node)?.withheld = Some(why.clone());
                story.tell(&[node_key(node)], format!("{node} is not acted on: {why}"));
            }
            Step::Begin(decision) => self.draft(story, decision)?,
            Step::Replace { plan, decision } => self.replace(story, *plan, decision)?,
            Step::Intend { plan, action } => self.intend(story, leader, *plan, action)?,
            Step::Keep { instance, action } => self.keep(story, leader, instance, action)?,
            Step::Resolve { token, outcome } => self.resolve(story, *token, outcome)?,
            Step::Place { plan, tried } => self.place(story, *plan, *tried)?,
            Step::Finish { plan, seen } => self.finish(story, *plan, seen)?,
            Step::Stick { plan, why } => {
                let plan = self.plan_mut(*plan)?;
                plan.stuck.clone_from(why);
                let text = match why {
                    Some(why) => format!("failover {} is stuck: {why}", plan.id),
                    None => format!("failover {} goes on", plan.id),
                };
                story.tell(&plan_keys(plan), text);
            }
            Step::Lapse { node: None } => {
                let Armed { armed: false, order } = &self.armed else { return Err(Rejected::NothingLapsed) };
                if !order.has_lapsed(story.at) {
                    return Err(Rejected::NothingLapsed);
                }
                let Order { by, reason, .. } = order;
                let reason = format!("the time is over for which {by} disarmed it ({reason})");
                story.tell(&[], format!("the cluster is armed again: {reason}"));
                self.armed = Armed { armed: true, order: Order::new("the cluster", &reason, story.at) };
            }
            Step::Lapse { node: Some(node) } => {
                let record = self.node_mut(node)?;
                let Some(order) = record.maintenance.take_if(|order| order.has_lapsed(story.at)) else {
                    return Err(Rejected::NothingLapsed);
                };
                let Order { by, reason, .. } = order;
                let text = format!("the time is over for which {by} put {node} into maintenance ({reason})");
                story.tell(&[node_key(node)], text);
            }
            Step::Cleaned { node } => {
                let record = self.node_mut(node)?;
                let NodeState::Cleaning { .. } = record.state else {
                    return Err(wrong_state(record, "being cleaned"));
                };
                if record.cleaner().is_some() && !record.cleans().next_back().is_some_and(Intent::is_done) {
                    return Err(wrong_state(record, "cleaned by its cloud"));
                }
                record.state = NodeState::Spare;
                record.verdict = Verdict::Unknown;
                record.withheld = None;
                story.tell(&[node_key(node)], format!("{node} is a spare again"));
            }
            Step::CutAgain { node } => self.cut_again(story, leader, node)?,
            Step::Claim { node } => self.claim(story, leader, node)?,
            Step::Clean { node } => self.clean(story, leader, node)?,
            Step::Discover { node, found } => self.discover(story, node, found)?,
        }
        Ok(())
    }

    fn discover(&mut self, story: &mut Story, node: &NodeId, found: &Capabilities) -> Result<(), Rejected> {
        found.check().map_err(|why| Rejected::BadValue { what: node_key(node), why })?;
        let record = self.node_mut(node)?;
        record.found = Some(Box::new(found.clone()));
        let text = match record.mismatch() {
            None => format!("{node} tells its hardware: nothing declared is missing"),
            Some(mismatch) => format!("{node} tells its hardware, and it is not as declared: {mismatch}"),
        };
        story.tell(&[node_key(node)], text);
        Ok(())
    }

    fn judge(
        &mut self,
        story: &mut Story,
        node: &NodeId,
        verdict: &Verdict,
        evidence: &Evidence,
    ) -> Result<(), Rejected> {
        let record = self.node_mut(node)?;
        let changed = record.verdict != *verdict;
        record.verdict = verdict.clone();
        record.evidence = evidence.clone();
        record.judged = story.at;
        if changed {
            record.withheld = None;
            record.approved = None;
            story.tell(&[node_key(node)], format!("{node} is judged {verdict} ({evidence})"));
        }
        // Nothing was done yet: a failover whose reason is gone is called off (R6).
        let by_health = |plan: &&Plan| match plan.decision.cause {
            Cause::Silent | Cause::PowerOff | Cause::Gasped | Cause::GrayTooLong => true,
            Cause::Ordered | Cause::DidNotStart => false,
        };
        let plan = self.plan_of_node(node).filter(|plan| plan.phase == Phase::Reserved).filter(by_health);
        match plan.map(|plan| (plan.id, plan.decision.from == *node)) {
            Some((id, true)) if *verdict == Verdict::Healthy => {
                let text =
                    format!("failover {id} is called off: {node} is healthy again, nothing was done yet");
                self.call_off(story, id, text)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What holds for every new fence, whoever decided it on whatever knowledge.
    fn check_brakes(&self, decision: &Decision) -> Result<(), Rejected> {
        if decision.cause != Cause::Ordered && !self.armed.armed {
            return Err(Rejected::NotArmed);
        }
        self.check_in_flight(decision)
    }

    fn check_in_flight(&self, decision: &Decision) -> Result<(), Rejected> {
        let (now, brakes) = (self.fences_in_flight(), &self.policy(&decision.policy.0)?.policy.brakes);
        at_a_time(now, brakes).map_err(|_| {
            let (what, max) = ("fences under way".to_owned(), u64::from(brakes.fences_in_flight_max));
            Rejected::TooMany { what, now: u64::from(now) + 1, max }
        })
    }

    fn replace(&mut self, story: &mut Story, old: PlanId, decision: &Decision) -> Result<(), Rejected> {
        let plan = self.plans.get(&old).ok_or_else(|| not_there("failover", &old))?;
        match plan.phase {
            Phase::Moving | Phase::Starting => {}
            Phase::Reserved
            | Phase::Stopping
            | Phase::Fencing
            | Phase::Done
            | Phase::Replaced
            | Phase::Cancelled => {
                return Err(Rejected::WrongPhase { plan: old, phase: plan.phase });
            }
        }
        if plan.decision.spare.as_ref() != Some(&decision.from) || plan.decision.instance != decision.instance
        {
            let action = format!("move {:?} on from {}", decision.instance, decision.from);
            return Err(Rejected::NotAStep { plan: old, action });
        }
        let mut next = self.clone();
        if let Some(plan) = next.plans.get_mut(&old) {
            enter(plan, Phase::Replaced, story.at);
            plan.stuck = None;
            let text = format!("failover {old} gives {} up: {}", decision.from, decision.cause);
            story.tell(&plan_keys(plan), text);
        }
        // What was believed of it while it was a spare counts no longer.
        next.node_mut(&decision.from)?.verdict = Verdict::Failed(Cause::DidNotStart);
        next.draft(story, decision)?;
        *self = next;
        Ok(())
    }

    /// That no failover is about the node, or moves something to it.
    pub(crate) fn no_plan_about(&self, node: &NodeId) -> Result<(), Rejected> {
        match self.plan_of_node(node) {
            Some(plan) => Err(Rejected::PlanExists { what: node_key(node), plan: plan.id }),
            None => Ok(()),
        }
    }

    /// Reserves the spare and creates the plan (R7).
    fn draft(&mut self, story: &mut Story, decision: &Decision) -> Result<(), Rejected> {
        self.check_brakes(decision)?;
        let from = self.node(&decision.from)?;
        for node in std::iter::once(&decision.from).chain(&decision.spare) {
            self.no_plan_about(node)?;
        }
        let epoch = match (&decision.instance, &decision.spare) {
            (Some(instance), Some(spare)) => {
                let record = self.instances.get(instance).ok_or_else(|| not_there("instance", instance))?;
                if record.node != decision.from {
                    return Err(wrong_state(from, &format!("the node of {instance}")));
                }
                let spare = self.node(spare)?;
                if spare.state != NodeState::Spare {
                    return Err(wrong_state(spare, "spare"));
                }
                let max = u64::MAX;
                let what = || format!("placements of {instance}");
                let next = record.epoch.0.checked_add(1);
                Epoch(next.ok_or_else(|| Rejected::TooMany { what: what(), now: max, max })?)
            }
            (None, None) => Epoch(0),
            (Some(_), None) => return Err(not_there("spare in the decision about", &decision.from)),
            (None, Some(_)) => return Err(not_there("instance in the decision about", &decision.from)),
        };
        let id = PlanId(story.index.0);
        let record = self.node_mut(&decision.from)?;
        record.withheld = None;
        record.approved = None;
        if let Some(spare) = &decision.spare {
            self.node_mut(spare)?.state = NodeState::Reserved { plan: id };
        }
        let plan = Plan {
            id,
            at: story.at,
            decision: decision.clone(),
            epoch,
            phase: Phase::Reserved,
            stuck: None,
            intents: vec![],
            proof: None,
            entered: vec![(Phase::Reserved, story.at)],
        };
        let text = match (&decision.instance, &decision.spare) {
            (Some(instance), Some(spare)) => {
                format!(
                    "failover {id}: {instance} moves from {} to {spare} ({})",
                    decision.from, decision.cause
                )
            }
            (_, _) => format!("failover {id}: {} is fenced ({})", decision.from, decision.cause),
        };
        story.tell(&plan_keys(&plan), text);
        self.plans.insert(id, plan);
        self.forget_old_plans();
        Ok(())
    }

    fn forget_old_plans(&mut self) {
        let over: Vec<PlanId> = self.plans.values().filter(|p| p.phase.is_over()).map(|p| p.id).collect();
        for id in over.iter().take(over.len().saturating_sub(PLANS_KEPT_MAX)) {
            self.plans.remove(id);
        }
    }

    fn intend(
        &mut self,
        story: &mut Story,
        leader: LeaderEpoch,
        id: PlanId,
        action: &Action,
    ) -> Result<(), Rejected> {
        let plan = self.plans.get(&id).ok_or_else(|| not_there("failover", &id))?;
        let not_a_step = || Rejected::NotAStep { plan: id, action: action.to_string() };
        let next_phase = match plan.phase {
            Phase::Reserved | Phase::Stopping | Phase::Fencing => {
                let phase = self.cutting_phase(plan, action).ok_or_else(not_a_step)?;
                // A drain becomes a fence only now.
                if (plan.phase, phase) == (Phase::Stopping, Phase::Fencing) {
                    self.check_in_flight(&plan.decision)?;
                }
                phase
            }
            Phase::Moving if self.move_actions(plan).contains(action) => Phase::Moving,
            // Asked for once.
            Phase::Moving if self.snapshot_actions(plan).contains(action) && !plan.tried(action) => {
                Phase::Moving
            }
            Phase::Moving if self.may_start(plan, action) => {
                if !self.move_actions(plan).iter().all(|action| plan.did(action)) {
                    return Err(not_a_step());
                }
                Phase::Starting
            }
            Phase::Starting if self.may_start(plan, action) => Phase::Starting,
            Phase::Moving | Phase::Starting => return Err(not_a_step()),
            Phase::Done | Phase::Replaced | Phase::Cancelled => {
                return Err(Rejected::WrongPhase { plan: id, phase: plan.phase });
            }
        };
        if let Some(open) = plan.intents.iter().find(|i| i.action == *action && i.end.is_none()) {
            return Err(Rejected::AlreadyIntended { action: action.to_string(), token: open.token });
        }
        let from = plan.decision.from.clone();
        let plan = self.plan_mut(id)?;
        forget_tries(plan, action);
        plan.intents.push(Intent {
            token: story.index,
            leader,
            at: story.at,
            action: action.clone(),
            end: None,
        });
        enter(plan, next_phase, story.at);
        let keys = plan_keys(plan);
        if next_phase == Phase::Fencing {
            self.node_mut(&from)?.state = NodeState::Fencing { plan: id };
        }
        story.tell(&keys, format!("failover {id}: {action} ({})", story.index));
        Ok(())
    }

    /// The phase that this step against the old node belongs to. Its system is asked once, and nothing else is done while it
    /// shuts down; why it died is read once, and its kernel is interrupted once.
    fn cutting_phase(&self, plan: &Plan, action: &Action) -> Option<Phase> {
        let shutdown = self.shutdown_action(plan);
        if shutdown.as_ref() == Some(action) {
            return (!plan.tried(action)).then_some(Phase::Stopping);
        }
        if !shutdown.is_none_or(|shutdown| plan.ended(&shutdown)) {
            return None;
        }
        let mut once = self.diagnose_action(plan).into_iter().chain(self.crash_dump_action(plan));
        let fits = match once.any(|once| once == *action) {
            true => !plan.tried(action),
            false => self.fence_actions(plan).contains(action),
        };
        fits.then_some(Phase::Fencing)
    }

    fn resolve(&mut self, story: &mut Story, token: LogIndex, outcome: &Outcome) -> Result<(), Rejected> {
        let at = story.at;
        let (keys, what, intent) = self.intent_mut(token).ok_or_else(|| not_there("intent", &token))?;
        if intent.end.is_some() {
            return Err(Rejected::EndedAlready { token });
        }
        intent.end = Some((outcome.clone(), at));
        let took = at.since(intent.at);
        let end = intent.trouble().map_or_else(|| "done".to_owned(), |trouble| format!("failed: {trouble}"));
        story.tell(&keys, format!("{what}{} {end} ({token}, {took})", intent.action));
        let action = intent.action.clone();
        if let Some((record, backup, _)) = self.backup_intent(token).filter(|(_, backup, _)| backup.is_over())
        {
            let (name, kept, of) = (&record.instance.name, backup.kept(), backup.actions.len());
            story.tell(&keys, format!("backup {} of {name} is over: {kept} of {of} volumes kept", backup.id));
        }
        if let Action::Clean { node, .. } = action { self.cleaning_ended(story, &node) } else { Ok(()) }
    }

    /// The intent with this token, what it is about, and how its history begins.
    fn intent_mut(&mut self, token: LogIndex) -> Option<(Vec<String>, String, &mut Intent)> {
        let is_it = |intent: &&mut Intent| intent.token == token;
        if let Some(id) = self.intent(token).map(|(plan, _)| plan.id) {
            let plan = self.plans.get_mut(&id)?;
            let keys = plan_keys(plan);
            return Some((keys, format!("failover {id}: "), plan.intents.iter_mut().find(is_it)?));
        }
        let of_backup = self.backup_intent(token);
        if let Some((name, id)) = of_backup.map(|(record, it, _)| (record.instance.name.clone(), it.id)) {
            let backups = &mut self.instances.get_mut(&name)?.backups;
            let mut intents = backups.iter_mut().flat_map(|backup| &mut backup.intents);
            return Some((vec![instance_key(&name)], format!("backup {id}: "), intents.find(is_it)?));
        }
        let node = self.ordered_by_hand(token)?.intent.action.node().clone();
        let mut intents = self.nodes.get_mut(&node)?.by_hand.iter_mut().map(|by_hand| &mut by_hand.intent);
        Some((vec![node_key(&node)], String::new(), intents.find(is_it)?))
    }

    fn place(&mut self, story: &mut Story, id: PlanId, tried: Millis) -> Result<(), Rejected> {
        let plan = self.plans.get(&id).ok_or_else(|| not_there("failover", &id))?;
        match plan.phase {
            // Without any device only an operator's word can be the proof, and no intent comes before it.
            Phase::Reserved | Phase::Stopping | Phase::Fencing => {}
            Phase::Moving | Phase::Starting | Phase::Done | Phase::Replaced | Phase::Cancelled => {
                return Err(Rejected::WrongPhase { plan: id, phase: plan.phase });
            }
        }
        let from = self.node(&plan.decision.from)?;
        let instance = plan.decision.instance.as_ref().and_then(|name| self.instances.get(name));
        let policy = self.policy(&plan.decision.policy.0)?;
        let vouched = from.confirmed_off.as_ref().map(|order| (order.by.as_str(), order.reason.as_str()));
        let carried = self.carried(plan).or(instance).map(|record| &*record.instance);
        let proof = prove(plan, &from.node, carried, &policy.policy, tried, vouched)
            .map_err(|missing| Rejected::NotProven { plan: id, missing })?;
        let (from, spare) = (plan.decision.from.clone(), plan.decision.spare.clone());
        let (instance, epoch) = (plan.decision.instance.clone(), plan.epoch);
        let strike = (plan.decision.cause != Cause::Ordered).then_some(story.at);
        let plan = self.plan_mut(id)?;
        plan.proof = Some(proof.clone());
        plan.stuck = None;
        enter(plan, if instance.is_some() { Phase::Moving } else { Phase::Done }, story.at);
        let keys = plan_keys(plan);
        story.tell(&keys, format!("failover {id}: {from} can touch nothing any more: {proof}"));
        let record = self.node_mut(&from)?;
        record.state = NodeState::Quarantined { plan: id, proof, unclean: None };
        record.fence_order = None;
        record.confirmed_off = None;
        record.withheld = None;
        record.strikes.extend(strike);
        record.strikes.drain(..record.strikes.len().saturating_sub(STRIKES_KEPT_MAX));
        if let (Some(instance), Some(spare)) = (instance, spare) {
            self.node_mut(&spare)?.state = NodeState::Active { instance: instance.clone() };
            if let Some(record) = self.instances.get_mut(&instance) {
                record.node = spare.clone();
                record.epoch = epoch;
                record.evacuate = None;
            }
            story.tell(&keys, format!("failover {id}: {instance} now belongs to {spare} in {epoch}"));
        }
        Ok(())
    }

    fn finish(&mut self, story: &mut Story, id: PlanId, seen: &str) -> Result<(), Rejected> {
        let plan = self.plan_mut(id)?;
        if plan.phase != Phase::Starting {
            return Err(Rejected::WrongPhase { plan: id, phase: plan.phase });
        }
        // It was heard when its time was up, and is being switched off by now: both were on their way into the log.
        if plan.is_restarting() {
            return Err(Rejected::NotAStep { plan: id, action: format!("end, for {seen}") });
        }
        enter(plan, Phase::Done, story.at);
        plan.stuck = None;
        let took = story.at.since(plan.at);
        let text = format!("failover {id} is done {took} after the decision: {seen}");
        story.tell(&plan_keys(plan), text);
        let takeover = LastTakeover::of(plan);
        let spare = plan.decision.spare.clone();
        if let Some(record) = spare.and_then(|spare| self.nodes.get_mut(&spare)) {
            record.takeover = takeover;
            // It was seen alive; from now on its silence means something.
            record.verdict = Verdict::Healthy;
            record.judged = story.at;
        }
        Ok(())
    }

    pub(crate) fn node(&self, node: &NodeId) -> Result<&NodeRecord, Rejected> {
        self.nodes.get(node).ok_or_else(|| not_there("node", node))
    }
    pub(crate) fn node_mut(&mut self, node: &NodeId) -> Result<&mut NodeRecord, Rejected> {
        self.nodes.get_mut(node).ok_or_else(|| not_there("node", node))
    }
    fn policy(&self, name: &PolicyId) -> Result<&PolicyRecord, Rejected> {
        self.policies.get(name).ok_or_else(|| not_there("policy", name))
    }
    pub(crate) fn plan_mut(&mut self, plan: PlanId) -> Result<&mut Plan, Rejected> {
        self.plans.get_mut(&plan).ok_or_else(|| not_there("failover", &plan))
    }
}

/// Keeps the first and the newest tries of a step: the first tells how long it has been tried, and an older end is
/// drained before a newer one.
fn forget_tries(plan: &mut Plan, action: &Action) {
    let tries = plan.intents.iter().enumerate().filter(|(_, intent)| intent.action == *action);
    let places: Vec<usize> = tries.map(|(place, _)| place).collect();
    if let Some(place) = places.get(1).filter(|_| places.len() >= TRIES_KEPT_MAX) {
        plan.intents.remove(*place);
    }
}

pub(crate) fn enter(plan: &mut Plan, phase: Phase, at: Wall) {
    if plan.phase != phase {
        plan.phase = phase;
        plan.entered.push((phase, at));
    }
}

pub(crate) fn not_there(kind: &str, name: &dyn std::fmt::Display) -> Rejected {
    Rejected::NotThere { what: format!("{kind} {name}") }
}

pub(crate) fn wrong_state(record: &NodeRecord, wanted: &str) -> Rejected {
    let node = record.node.name.clone();
    Rejected::WrongState { node, found: record.state.to_string(), wanted: wanted.to_owned() }
}
