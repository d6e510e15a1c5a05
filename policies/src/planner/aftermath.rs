//! What becomes of a fenced node: it stays off, and once it is released it is cleaned and comes back.
//!
//! Why it exists: a fence is for good only if somebody looks after it. What it never does: give the node anything.

use super::*;
use crate::memory::POWER_AGE_MAX;
use crate::observation::Power;

/// How long one effect watches a node being cleaned; it takes minutes to hours, and the next one goes on watching. Lower: more entries
/// in the log. Higher: a watch that hangs is noticed later.
pub(super) const CLEAN_WATCH_MAX: Millis = Millis(600_000);

impl Desk<'_> {
    /// A quarantined node: whether it shows any life, and why it stays there.
    pub(super) fn quarantined(
        &self,
        record: &NodeRecord,
        proof: &FenceProof,
        unclean: Option<&str>,
        wishes: &mut Wishes,
    ) {
        let node = record.node.name.clone();
        let subject = Subject::Node(node.clone());
        match unclean {
            _ if self.is_on_again(record, proof) => {
                wishes.wait(subject, Waiting::QuarantinedButOn { node });
                self.cut_again(record, wishes);
            }
            _ if self.still_beats(&node, proof) => {
                wishes.wait(subject, Waiting::QuarantinedButAlive { node });
            }
            Some(why) => wishes.wait(subject, Waiting::Unclean { why: why.to_owned() }),
            None => wishes.wait(subject, Waiting::Quarantined),
        }
    }

    /// True if a fenced node is heard although it would have fallen silent by now.
    fn still_beats(&self, node: &NodeId, proof: &FenceProof) -> bool {
        let policy = self.state.policy_of_node(node);
        let silence = policy.map_or(Millis(0), |(_, record)| record.policy.detection.suspect_after);
        let settles = Millis(silence.0.saturating_mul(2));
        self.sights.heard_in(node).is_some()
            && !proof.rests_on().any(|token| self.memory.ended_within(token, settles, self.now))
    }

    /// True if a fenced node reads on, by a reading that is newer than what switched it off, and no failover is about it any more.
    fn is_on_again(&self, record: &NodeRecord, proof: &FenceProof) -> bool {
        let is_recent = |token| self.memory.ended_within(token, POWER_AGE_MAX, self.now);
        let cuts = record.power_offs().map(|intent| intent.token);
        self.memory.power(&record.node.name) == Some(Power::On)
            && self.state.plan_of_node(&record.node.name).is_none()
            && !proof.rests_on().chain(cuts).any(is_recent)
    }

    /// A fence is for good: what is on again, by whomever, is switched off again.
    fn cut_again(&self, record: &NodeRecord, wishes: &mut Wishes) {
        let hands_off = !self.state.armed.armed || record.maintenance.is_some();
        if hands_off || record.node.fencing.is_empty() || record.is_ordered() {
            return;
        }
        let step = Step::CutAgain { node: record.node.name.clone() };
        match record.power_offs().next_back() {
            Some(last) => self.again(record, last, record.power_offs().count(), step, wishes),
            None => wishes.lead(self.leader, step),
        }
    }

    /// The next try of a step, after a pause that grows with the tries before it.
    fn again(&self, record: &NodeRecord, last: &Intent, tries: usize, step: Step, wishes: &mut Wishes) {
        let Some((_, policy)) = self.state.policy_of_node(&record.node.name) else { return };
        let pause = grown(policy.policy.fencing.retry_after, tries as u64);
        self.again_after(pause, record, last, step, wishes);
    }

    /// The next try, after this pause.
    pub(super) fn again_after(
        &self,
        pause: Millis,
        record: &NodeRecord,
        last: &Intent,
        step: Step,
        wishes: &mut Wishes,
    ) {
        if self.memory.ended_ago(last.token, self.now) >= pause {
            return wishes.lead(self.leader, step);
        }
        let (step, last) = (last.action.to_string(), last.trouble().unwrap_or_else(|| "done".to_owned()));
        wishes.wait(Subject::Node(record.node.name.clone()), Waiting::Retrying { step, last });
    }

    /// A released node: older commands drain, its cloud cleans it, the cleaning drains. A try without a clear end is made again.
    pub(super) fn clean(&self, record: &NodeRecord, wishes: &mut Wishes) {
        let node = record.node.name.clone();
        let subject = Subject::Node(node.clone());
        let last = record.cleans().next_back();
        match (record.cleaner(), last) {
            // It goes on with what else was ordered by hand.
            (Some(_), Some(last)) if last.end.is_none() => {}
            (Some(_), Some(last)) if !last.is_done() => {
                self.again(record, last, record.cleans().count(), Step::Clean { node }, wishes);
            }
            (cleaner, last) => {
                let planned = self.undrained(|_, intent| *intent.action.node() == node);
                match (planned.or_else(|| self.undrained_by_hand(record, |_| true)), cleaner, last) {
                    (Some(older), _, _) => wishes.wait(subject, older),
                    (None, Some(_), None) => wishes.lead(self.leader, Step::Clean { node }),
                    (None, _, _) => wishes.lead(self.leader, Step::Cleaned { node }),
                }
            }
        }
    }
}
