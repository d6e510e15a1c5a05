//! What is kept before it is lost: why the node died and its crash dump before its power is cut, a volume's state before the
//! spare gets it.
//!
//! Why it exists: each is asked for once, with a limit of its own, and must hold up nothing but what would destroy it.
//! What it never does: stop a failover, or be part of a proof.

use super::{Desk, Subject, Wishes};
use crate::effect::{Action, Outcome};
use crate::plan::{Intent, Plan};
use crate::policy::Policy;
use crate::waiting::Waiting;
use crate::words::Millis;

impl Desk<'_> {
    /// Does what is wanted before the node's power is cut, and says whether its power must still wait for that.
    pub(super) fn before_power(&self, plan: &Plan, policy: &Policy, wishes: &mut Wishes) -> bool {
        let is_late = plan.intents.iter().any(|intent| matches!(intent.action, Action::PowerOff { .. }));
        !is_late && (self.diagnose(plan, policy, wishes) || self.dump(plan, policy, wishes))
    }

    /// Reads why the node died, if the policy wants to know, and says whether its power must wait for that.
    fn diagnose(&self, plan: &Plan, policy: &Policy, wishes: &mut Wishes) -> bool {
        let action = self.state.diagnose_action(plan);
        self.goes_before(plan, policy, action, policy.fencing.diagnose_max, wishes)
    }

    /// Interrupts the node's kernel, if the policy wants its crash dump, and says whether its power must wait for the dump.
    fn dump(&self, plan: &Plan, policy: &Policy, wishes: &mut Wishes) -> bool {
        let max = policy.fencing.crash_dump_max;
        let Some(action) = self.state.crash_dump_action(plan).filter(|_| max > Millis(0)) else {
            return false;
        };
        // What an operator interrupted shortly before dumps already, and a second interrupt would hit that.
        let counts = |intent: &&Intent| intent.action == action && plan.at.since(intent.at) < max;
        let record = self.state.nodes.get(action.node());
        let by_hand = || record?.ordered().find(counts);
        let own = plan.intents.iter().find(|intent| intent.action == action);
        let is_over = |intent: &Intent| {
            let is_refused = matches!(intent.end, Some((Outcome::Refused(_), _)));
            is_refused || self.memory.age(intent.token, self.now) >= max
        };
        match own.or_else(by_hand) {
            Some(interrupt) if is_over(interrupt) => return false,
            Some(interrupt) if own.is_none() || interrupt.end.is_some() => {
                let why = Waiting::CrashDump { node: action.node().clone(), max };
                wishes.wait(Subject::Plan(plan.id), why);
            }
            Some(_) | None => self.take(plan, policy, &action, max, wishes),
        }
        true
    }

    /// Keeps the state of the volume that `attach` gives to the spare, if the policy wants that, and says whether the spare must
    /// wait for it.
    pub(super) fn snapshot(
        &self,
        plan: &Plan,
        policy: &Policy,
        attach: &Action,
        wishes: &mut Wishes,
    ) -> bool {
        let action = self.state.snapshot_before(plan, attach);
        self.goes_before(plan, policy, action, policy.takeover.snapshot_max, wishes)
    }

    /// What goes before something else, is asked for once and has `max` for it, and whether the other must still wait for it.
    /// However it ends, it stops nothing.
    fn goes_before(
        &self,
        plan: &Plan,
        policy: &Policy,
        action: Option<Action>,
        max: Millis,
        wishes: &mut Wishes,
    ) -> bool {
        let wanted = action.filter(|action| max > Millis(0) && !plan.ended(action));
        let Some(action) = wanted else { return false };
        let asked = plan.intents.iter().find(|intent| intent.action == action);
        if asked.is_some_and(|asked| self.memory.age(asked.token, self.now) >= max) {
            return false;
        }
        self.take(plan, policy, &action, max, wishes);
        true
    }
}
