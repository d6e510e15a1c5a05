//! Spares that their cloud keeps for nobody are claimed.
//!
//! Why it exists: a spare is one only if nobody else can be given it. What it never does: claim by a reading that is older than the
//! last claim, or begin more at once than a cloud's services answer soon.

use super::{Desk, Wishes};
use crate::command::Step;
use crate::state::NodeRecord;
use crate::words::Millis;

/// Claims that are under way at the same time. Lower: a new cluster with a thousand spares takes longer to have them. Higher: a cloud
/// that has just come back has more to do at once; Ironic on SQLite failed three of five.
const CLAIMS_IN_FLIGHT_MAX: usize = 4;
/// How much longer the pause is after each claim that failed, and how often it grows. Lower: an entry in the log every minute for a spare
/// that lacks something. Higher: what was mended is a spare later.
const CLAIM_AGAIN: Millis = Millis(60_000);
const CLAIM_PAUSES_MAX: u64 = 10;

impl Desk<'_> {
    /// Claims what nobody has, as long as the cluster may act and is to have its hands on the spare.
    pub(super) fn claim(&self, wishes: &mut Wishes) {
        if !self.state.armed.armed {
            return;
        }
        let unclaimed = self.memory.checks.unclaimed(self.now);
        let records = unclaimed.filter_map(|(node, age)| Some((self.state.nodes.get(node)?, age)));
        let (busy, idle): (Vec<_>, Vec<_>) = records.partition(|(record, _)| record.is_ordered());
        let before = wishes.commands.len();
        for (record, age) in idle.into_iter().filter(|(record, _)| is_ours_to_claim(record)) {
            if busy.len() + wishes.commands.len() - before >= CLAIMS_IN_FLIGHT_MAX {
                return;
            }
            let step = Step::Claim { node: record.node.name.clone() };
            match record.claims().next_back() {
                None => wishes.lead(self.leader, step),
                // What was read before it ended says nothing of it.
                Some(last) if self.memory.ended_ago(last.token, self.now) <= age => {}
                Some(last) => {
                    let failed = record.claims().rev().take_while(|claim| !claim.is_done()).count() as u64;
                    let pause = Millis(CLAIM_AGAIN.0.saturating_mul(failed.min(CLAIM_PAUSES_MAX)));
                    self.again_after(pause, record, last, step, wishes);
                }
            }
        }
    }
}

fn is_ours_to_claim(record: &NodeRecord) -> bool {
    record.claimer().is_some() && !record.cordoned && record.maintenance.is_none()
}
