//! What operators order of nodes, instances and failovers. Part of `apply`: total, deterministic, no clock.
//!
//! Why it exists: an order is taken or refused at once and says why; what follows from it the leader decides, as of
//! everything else. What it never does: touch the world, or undo what is past the point of no return (R6).

use crate::apply::{Story, enter, instance_key, node_key, not_there, plan_keys, wrong_state};
use crate::command::{Command, Hand, Rejected};
use crate::effect::Action;
use crate::plan::{Intent, Phase, Plan, Verdict};
use crate::state::*;
use crate::waiting::Waiting;
use crate::words::*;

/// Orders by hand that a node's record keeps. Lower: a node that is switched that often within `power_effect_max` may be hit
/// by a late copy of the first. Higher: a larger snapshot, and people do not read it.
const BY_HAND_KEPT_MAX: usize = 20;

impl NodeRecord {
    /// Notes and tells what is about to be done by an order, as the intent that this entry of the log is (R1): one thing at a time.
    pub(crate) fn begin(
        &mut self,
        story: &mut Story,
        leader: LeaderEpoch,
        order: Order,
        action: Action,
        text: String,
    ) -> Result<(), Rejected> {
        if let Some(ByHand { intent, .. }) = self.open() {
            return Err(Rejected::AlreadyIntended { action: intent.action.to_string(), token: intent.token });
        }
        let intent = Intent { token: story.index, leader, at: story.at, action, end: None };
        self.by_hand.push(ByHand { order, intent });
        self.by_hand.drain(..self.by_hand.len().saturating_sub(BY_HAND_KEPT_MAX));
        story.tell(&[node_key(&self.node.name)], text);
        Ok(())
    }

    /// What was begun by orders, oldest first.
    pub(crate) fn ordered(&self) -> impl DoubleEndedIterator<Item = &Intent> {
        self.by_hand.iter().map(|by_hand| &by_hand.intent)
    }

    /// What has switched it off outside of failovers.
    pub(crate) fn power_offs(&self) -> impl DoubleEndedIterator<Item = &Intent> {
        self.ordered().filter(|intent| matches!(intent.action, Action::PowerOff { .. }))
    }

    /// What is under way by an order.
    pub(crate) fn open(&self) -> Option<&ByHand> {
        self.by_hand.iter().find(|by_hand| by_hand.intent.end.is_none())
    }

    /// True if something is.
    pub(crate) fn is_ordered(&self) -> bool {
        self.open().is_some()
    }

    /// Whether this may be done to the node by hand, no failover being about it. What carries an instance is switched only
    /// in maintenance, which keeps the cluster's hands off; what was fenced is never switched on, but by its release.
    pub(crate) fn allows(&self, hand: Hand) -> Result<(), Rejected> {
        let refuse = |wanted: &str| Err(wrong_state(self, wanted));
        match (&self.state, hand) {
            (NodeState::Spare, Hand::PowerOn | Hand::PowerOff | Hand::Interrupt)
            | (NodeState::Active { .. }, Hand::Interrupt)
            | (NodeState::Quarantined { .. }, Hand::PowerOff) => Ok(()),
            (NodeState::Active { .. }, Hand::PowerOn | Hand::PowerOff) if self.maintenance.is_some() => {
                Ok(())
            }
            (NodeState::Active { .. }, Hand::PowerOn | Hand::PowerOff) => refuse(
                "in maintenance: `hactl node maintenance on` keeps the cluster's hands off, `hactl node drain` moves what it carries",
            ),
            (NodeState::Quarantined { .. }, Hand::PowerOn | Hand::Interrupt) => {
                refuse("released: it must not run before `hactl node release`")
            }
            (
                NodeState::Reserved { .. } | NodeState::Fencing { .. } | NodeState::Cleaning { .. },
                Hand::PowerOn | Hand::PowerOff | Hand::Interrupt,
            ) => refuse("a free spare: wait until that is over (`hactl node show` tells)"),
        }
    }
}

impl ClusterState {
    pub(crate) fn arm(
        &mut self,
        story: &mut Story,
        by: &str,
        armed: bool,
        reason: &str,
        until: Option<Wall>,
    ) {
        let order = Order { until, ..Order::new(by, reason, story.at) };
        self.armed = Armed { armed, order };
        let word = if armed { "armed" } else { "disarmed" };
        story.tell(&[], format!("{by} {word} the cluster: {reason}"));
    }

    pub(crate) fn cancel(
        &mut self,
        story: &mut Story,
        by: &str,
        id: PlanId,
        reason: &str,
    ) -> Result<(), Rejected> {
        let plan = self.plans.get(&id).ok_or_else(|| not_there("failover", &id))?;
        match plan.phase {
            Phase::Reserved => {}
            Phase::Stopping | Phase::Fencing | Phase::Moving | Phase::Starting => {
                let fence = plan.intents.first().map_or(LogIndex(id.0), |intent| intent.token);
                return Err(Rejected::PointOfNoReturn { plan: id, fence });
            }
            Phase::Done | Phase::Replaced | Phase::Cancelled => {
                return Err(Rejected::WrongPhase { plan: id, phase: plan.phase });
            }
        }
        let from = plan.decision.from.clone();
        self.call_off(story, id, format!("{by} cancelled failover {id}: {reason}"))?;
        // Else the same failover would be begun again at once.
        let record = self.node_mut(&from)?;
        record.withheld = Some(Waiting::CalledOff { by: by.to_owned(), reason: reason.to_owned() });
        Ok(())
    }

    /// Ends a plan of which nothing was done yet, and the orders that led to it.
    pub(crate) fn call_off(&mut self, story: &mut Story, id: PlanId, text: String) -> Result<(), Rejected> {
        let at = story.at;
        let plan = self.plan_mut(id)?;
        enter(plan, Phase::Cancelled, at);
        plan.stuck = None;
        story.tell(&plan_keys(plan), text);
        let decision = plan.decision.clone();
        if let Some(record) = decision.spare.and_then(|spare| self.nodes.get_mut(&spare)) {
            record.state = NodeState::Spare;
        }
        if let Some(record) = decision.instance.and_then(|instance| self.instances.get_mut(&instance)) {
            record.evacuate = None;
        }
        let record = self.node_mut(&decision.from)?;
        record.fence_order = None;
        record.confirmed_off = None;
        Ok(())
    }

    /// An operator's order about one node or instance.
    pub(crate) fn order(&mut self, story: &mut Story, by: &str, command: &Command) -> Result<(), Rejected> {
        let at = story.at;
        let order = |reason: &String| Order::new(by, reason, at);
        match command {
            Command::Cordon { node, on } => {
                self.node_mut(node)?.cordoned = *on;
                let word = if *on { "cordoned" } else { "uncordoned" };
                story.tell(&[node_key(node)], format!("{by} {word} {node}"));
                if !on {
                    self.withdraw_drain(story, node);
                }
            }
            Command::Maintain { node, reason, until } => {
                let limited = |reason: &String| Order { until: *until, ..order(reason) };
                self.node_mut(node)?.maintenance = reason.as_ref().map(limited);
                let text = match reason {
                    Some(reason) => format!("{by} put {node} into maintenance: {reason}"),
                    None => format!("{by} ended the maintenance of {node}"),
                };
                story.tell(&[node_key(node)], text);
            }
            Command::Evacuate { instance, reason } => {
                if let Some(plan) = self.plan_of_instance(instance) {
                    return Err(Rejected::PlanExists { what: instance_key(instance), plan: plan.id });
                }
                let record =
                    self.instances.get_mut(instance).ok_or_else(|| not_there("instance", instance))?;
                record.evacuate = Some(Evacuation { order: order(reason), shutdown: None });
                let node = record.node.clone();
                let about = [instance_key(instance), node_key(&record.node)];
                story.tell(&about, format!("{by} ordered to move {instance} off {node}: {reason}"));
                self.node_mut(&node)?.withheld = None;
            }
            Command::Drain { node, reason, shutdown } => {
                self.no_plan_about(node)?;
                let record = self.node_mut(node)?;
                record.cordoned = true;
                let NodeState::Active { instance } = &record.state else {
                    let text = format!("{by} drained {node}, which carries nothing: {reason}");
                    story.tell(&[node_key(node)], text);
                    return Ok(());
                };
                let instance = instance.clone();
                record.withheld = None;
                let about = [instance_key(&instance), node_key(node)];
                let text = format!(
                    "{by} ordered to drain {node} and move {instance}, its system has {shutdown} to shut down: {reason}"
                );
                story.tell(&about, text);
                if let Some(record) = self.instances.get_mut(&instance) {
                    record.evacuate = Some(Evacuation { order: order(reason), shutdown: Some(*shutdown) });
                }
            }
            Command::Fence { node, reason } => {
                self.no_plan_about(node)?;
                self.node_mut(node)?.fence_order = Some(order(reason));
                story.tell(&[node_key(node)], format!("{by} ordered to fence {node}: {reason}"));
            }
            Command::ConfirmOff { node, reason } => {
                let is_open = |plan: &&Plan| match plan.phase {
                    Phase::Reserved | Phase::Stopping | Phase::Fencing => plan.decision.from == *node,
                    Phase::Moving | Phase::Starting | Phase::Done | Phase::Replaced | Phase::Cancelled => {
                        false
                    }
                };
                if self.running().find(is_open).is_none() {
                    return Err(wrong_state(self.node(node)?, "being fenced"));
                }
                self.node_mut(node)?.confirmed_off = Some(order(reason));
                story.tell(&[node_key(node)], format!("{by} vouches that {node} is off: {reason}"));
            }
            Command::Approve { instance, reason } => {
                if let Some(plan) = self.plan_of_instance(instance) {
                    return Err(Rejected::PlanExists { what: instance_key(instance), plan: plan.id });
                }
                let record = self.instances.get(instance).ok_or_else(|| not_there("instance", instance))?;
                let node = record.node.clone();
                let record = self.node_mut(&node)?;
                match record.verdict {
                    Verdict::Failed(_) => record.approved = Some(order(reason)),
                    Verdict::Unknown | Verdict::Healthy | Verdict::Gray => {
                        let (found, wanted) = (format!("judged {}", record.verdict), "failed".to_owned());
                        return Err(Rejected::WrongState { node, found, wanted });
                    }
                }
                let about = [instance_key(instance), node_key(&node)];
                story.tell(&about, format!("{by} approved to move {instance} off {node}: {reason}"));
            }
            Command::Release { node, reason } => {
                if let Some(instance) = self.instance_on(node) {
                    let what = node_key(node);
                    let why = format!("{} still belongs to it", instance.instance.name);
                    return Err(Rejected::InUse { what, why });
                }
                let record = self.node_mut(node)?;
                let NodeState::Quarantined { plan, proof, .. } = &record.state else {
                    return Err(wrong_state(record, "quarantined"));
                };
                let (plan, proof) = (Some(*plan), Some(proof.clone()));
                record.state = NodeState::Cleaning { plan, order: order(reason), proof };
                story.tell(&[node_key(node)], format!("{by} released {node}: {reason}"));
            }
            Command::ByHand { node, hand, reason } => self.by_hand(story, by, node, *hand, reason)?,
            Command::Backup { instance, reason } => self.back_up(story, by, instance, reason)?,
            Command::Note { .. }
            | Command::Describe(_)
            | Command::SetPolicy { .. }
            | Command::DeletePolicy { .. }
            | Command::Delete { .. }
            | Command::Forced { .. }
            | Command::Arm { .. }
            | Command::Disarm { .. }
            | Command::Cancel { .. }
            | Command::TookOver { .. }
            | Command::Lead { .. } => {}
        }
        Ok(())
    }

    /// A fenced node is on: the cluster switches it off, by one level after the other.
    pub(crate) fn cut_again(
        &mut self,
        story: &mut Story,
        leader: LeaderEpoch,
        node: &NodeId,
    ) -> Result<(), Rejected> {
        self.no_plan_about(node)?;
        let record = self.node_mut(node)?;
        let NodeState::Quarantined { .. } = record.state else {
            return Err(wrong_state(record, "quarantined"));
        };
        let Some(level) = record.power_offs().count().checked_rem(record.node.fencing.len()) else {
            return Err(wrong_state(record, "with a fencing device"));
        };
        let action = Action::PowerOff { node: node.clone(), level };
        let text = format!("{node} is quarantined, and its power is on: {action} ({})", story.index);
        let order = Order::new("the cluster", "it is quarantined, and its power is on", story.at);
        record.begin(story, leader, order, action, text)
    }

    /// What is to be done by hand: only where no failover acts, and one thing at a time.
    fn by_hand(
        &mut self,
        story: &mut Story,
        by: &str,
        node: &NodeId,
        hand: Hand,
        reason: &str,
    ) -> Result<(), Rejected> {
        self.no_plan_about(node)?;
        let leader = self.leadership.map(|leadership| leadership.epoch).unwrap_or_default();
        let record = self.node_mut(node)?;
        record.allows(hand)?;
        if record.node.fencing.is_empty() {
            let why = "it has no fencing device that could do it; describe one in its `fencing`".to_owned();
            return Err(Rejected::BadValue { what: node_key(node), why });
        }
        let action = hand.action(node);
        let text = format!("{by} ordered to {action} by hand: {reason} ({})", story.index);
        record.begin(story, leader, Order::new(by, reason, story.at), action, text)
    }

    /// A drain that waits (for a spare, say) ends with the cordon that came with it.
    fn withdraw_drain(&mut self, story: &mut Story, node: &NodeId) {
        let drains = |order: &Evacuation| order.shutdown.is_some();
        let carried = self.instance_on(node).filter(|record| record.evacuate.as_ref().is_some_and(drains));
        let Some(name) = carried.map(|record| record.instance.name.clone()) else { return };
        if self.plan_of_instance(&name).is_some() {
            return;
        }
        if let Some(record) = self.instances.get_mut(&name) {
            record.evacuate = None;
        }
        let about = [instance_key(&name), node_key(node)];
        story.tell(&about, format!("{name} need not leave {node} any more"));
        if let Some(record) = self.nodes.get_mut(node) {
            record.withheld = None;
        }
    }
}
