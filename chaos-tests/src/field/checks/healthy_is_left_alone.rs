//! Only nodes that were made ill are fenced (invariants I10 and I11).

use super::Check;
use crate::field::facts::Facts;

pub(super) const CHECK: Check = Check { statement: "no healthy node is fenced", broken };

fn broken(facts: &Facts) -> Vec<String> {
    let plans = facts.plans().iter().filter(|plan| !facts.struck.contains(&plan.decision.from));
    plans
        .map(|plan| format!("failover {} of {}: {}", plan.id, plan.decision.from, plan.decision.evidence))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::said;
    use super::*;

    #[test]
    fn a_false_fence_is_said_with_its_evidence() {
        let said = said(&CHECK, |facts| facts.struck.clear());
        assert_eq!(said, "failover f6 of node-1: 2 of 2 needed members see it dead; BMC: power on");
    }
}
