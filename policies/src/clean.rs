//! A fenced node on its way back: released by an operator, cleaned by the cloud that owns it, a spare again.
//!
//! Why it exists: a node that failed has the disks, the firmware settings and the credentials of whoever ran on it. Where a cloud can
//! erase them, it does before anybody else runs there; what could not be cleaned goes back to quarantine and says why.
//! What it never does: clean a node of its own accord, or one that was not proven to be cut off.

use crate::apply::{Story, node_key, wrong_state};
use crate::command::Rejected;
use crate::effect::{Action, Doubt, Outcome, Refusal};
use crate::plan::Intent;
use crate::state::{ClusterState, NodeRecord, NodeState};
use crate::words::*;

impl NodeRecord {
    /// What cleans the node, if it is fenced and released, and belongs to a cloud.
    pub(crate) fn cleaner(&self) -> Option<Action> {
        let NodeState::Cleaning { plan: Some(_), proof: Some(_), .. } = &self.state else { return None };
        Some(Action::Clean { node: self.node.name.clone(), provider: self.cloud()?.clone() })
    }

    /// The tries to clean it since it was released.
    pub(crate) fn cleans(&self) -> impl DoubleEndedIterator<Item = &Intent> {
        let release = match &self.state {
            NodeState::Cleaning { order, .. } => Some(order),
            NodeState::Spare
            | NodeState::Reserved { .. }
            | NodeState::Active { .. }
            | NodeState::Fencing { .. }
            | NodeState::Quarantined { .. } => None,
        };
        let tries = self.by_hand.iter().filter(move |by_hand| Some(&by_hand.order) == release);
        tries.map(|by_hand| &by_hand.intent).filter(|intent| matches!(intent.action, Action::Clean { .. }))
    }
}

impl ClusterState {
    /// A released node is about to be cleaned.
    pub(crate) fn clean(
        &mut self,
        story: &mut Story,
        leader: LeaderEpoch,
        node: &NodeId,
    ) -> Result<(), Rejected> {
        let record = self.node_mut(node)?;
        let (NodeState::Cleaning { order, .. }, Some(action)) = (&record.state, record.cleaner()) else {
            return Err(wrong_state(record, "released, and a cloud's"));
        };
        let order = order.clone();
        let text = format!("{action}, as {} has released it ({})", order.by, story.index);
        record.begin(story, leader, order, action, text)
    }

    /// A try has ended: where a person must act, the node goes back to where it was.
    pub(crate) fn cleaning_ended(&mut self, story: &mut Story, node: &NodeId) -> Result<(), Rejected> {
        let record = self.node_mut(node)?;
        let Some(why) = record.cleans().next_back().and_then(needs_a_person) else { return Ok(()) };
        if let NodeState::Cleaning { plan: Some(plan), proof: Some(proof), .. } = &record.state {
            let (plan, proof) = (*plan, proof.clone());
            story
                .tell(&[node_key(node)], format!("{node} could not be cleaned and stays quarantined: {why}"));
            record.state = NodeState::Quarantined { plan, proof, unclean: Some(why) };
        }
        Ok(())
    }
}

/// Why trying again by itself would not help.
fn needs_a_person(intent: &Intent) -> Option<String> {
    match &intent.end.as_ref()?.0 {
        Outcome::Done(_) => None,
        Outcome::Unknown(Doubt::Failed { .. }) => intent.trouble(),
        Outcome::Unknown(Doubt::NoAnswer { .. } | Doubt::NotSeen { .. } | Doubt::LeadershipEnded) => None,
        Outcome::Refused(refusal) => match refusal {
            Refusal::WrongIdentity { .. }
            | Refusal::DeviceRefused(_)
            | Refusal::HeldByOther(_)
            | Refusal::NotConfigured(_) => intent.trouble(),
            Refusal::LeaseEnded
            | Refusal::Withdrawn
            | Refusal::NotAdmitted(_)
            | Refusal::Unreachable(_)
            | Refusal::TokenTooOld { .. } => None,
        },
    }
}
