//! What was ordered outside of failovers: by hand, and backups.
//!
//! Why it exists: an order is done once, by the leadership that recorded it. What it never does: make a failover wait.

use super::aftermath::CLEAN_WATCH_MAX;
use super::{Desk, Subject, Wishes};
use crate::command::Step;
use crate::effect::{Action, Doubt, Effect, Outcome};
use crate::plan::Intent;
use crate::state::{InstanceRecord, NodeRecord};
use crate::waiting::Waiting;
use crate::words::Millis;

impl Desk<'_> {
    /// What was ordered by hand.
    pub(super) fn by_hand(&self, record: &NodeRecord, wishes: &mut Wishes) {
        let policy = self.state.policy_of_node(&record.node.name);
        let limit = policy.map(|(_, policy)| policy.policy.fencing.level_deadline);
        let subject = Subject::Node(record.node.name.clone());
        let is_cleaning = |intent: &&Intent| matches!(intent.action, Action::Clean { .. });
        self.ordered(record.ordered().filter(|intent| !is_cleaning(intent)), &subject, limit, wishes);
        self.ordered(record.ordered().filter(is_cleaning), &subject, Some(CLEAN_WATCH_MAX), wishes);
    }

    /// What is to be kept of an instance's volumes: all of them at once, for what is kept of one should not be much older than
    /// what is kept of the next.
    pub(super) fn back_up(&self, record: &InstanceRecord, wishes: &mut Wishes) {
        let Some(backup) = record.backing_up() else { return };
        let policy = self.state.policies.get(&record.policy);
        let limit = policy.map(|policy| policy.policy.backups.deadline);
        let instance = &record.instance.name;
        for action in backup.left() {
            let (instance, action) = (instance.clone(), action.clone());
            wishes.lead(self.leader, Step::Keep { instance, action });
        }
        self.ordered(backup.intents.iter(), &Subject::Instance(instance.clone()), limit, wishes);
    }

    /// What was ordered outside of failovers is done by the leadership that recorded it, once; of another one's nobody knows
    /// whether it was done, and it is not repeated.
    fn ordered<'i>(
        &self,
        intents: impl Iterator<Item = &'i Intent>,
        subject: &Subject,
        limit: Option<Millis>,
        wishes: &mut Wishes,
    ) {
        for intent in intents.filter(|intent| intent.end.is_none()) {
            let (token, action) = (intent.token, intent.action.clone());
            if self.memory.in_flight.contains_key(&token) || intent.leader == self.leader {
                let steps = vec![action.to_string()];
                wishes.wait(subject.clone(), Waiting::InFlight { steps });
                if let Some(limit) = limit.filter(|_| !self.memory.in_flight.contains_key(&token)) {
                    wishes.effects.push((Effect { token, plan: None, action }, limit));
                }
            } else {
                let outcome = Outcome::Unknown(Doubt::LeadershipEnded);
                wishes.lead(self.leader, Step::Resolve { token, outcome });
            }
        }
    }
}
