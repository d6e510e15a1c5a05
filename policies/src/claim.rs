//! A cloud's spare that is kept for us: claimed at its cloud, so that nobody else gets it.
//!
//! Why it exists: a cloud gives what is free to whoever asks. A spare that it gave away while we take it is a machine of somebody else's
//! that we would deploy on, and fence should it not start. What it never does: claim what is not a spare, or take a claim away.

use crate::apply::{Story, wrong_state};
use crate::command::Rejected;
use crate::effect::Action;
use crate::plan::Intent;
use crate::state::{ClusterState, NodeRecord, NodeState, Order};
use crate::words::*;

impl NodeRecord {
    /// What claims the node, if it is a spare and belongs to a cloud.
    pub(crate) fn claimer(&self) -> Option<Action> {
        let NodeState::Spare = &self.state else { return None };
        Some(Action::Claim { node: self.node.name.clone(), provider: self.cloud()?.clone() })
    }

    /// The cloud that owns it, if one does.
    pub(crate) fn cloud(&self) -> Option<&ProviderId> {
        self.node.fencing.iter().find_map(|device| device.cloud())
    }

    /// The tries to claim it, oldest first.
    pub(crate) fn claims(&self) -> impl DoubleEndedIterator<Item = &Intent> {
        self.ordered().filter(|intent| matches!(intent.action, Action::Claim { .. }))
    }
}

impl ClusterState {
    /// A spare is about to be claimed.
    pub(crate) fn claim(
        &mut self,
        story: &mut Story,
        leader: LeaderEpoch,
        node: &NodeId,
    ) -> Result<(), Rejected> {
        let record = self.node_mut(node)?;
        let action = record.claimer().ok_or_else(|| wrong_state(record, "a cloud's, and a spare"))?;
        let text = format!("{action}, for it is a spare ({})", story.index);
        let order = Order::new("the cluster", "it is a spare", story.at);
        record.begin(story, leader, order, action, text)
    }
}
