//! When a scenario is over, at least two of the three members run and remember.

use super::Check;
use crate::field::facts::Facts;

pub(super) const CHECK: Check = Check { statement: "a quorum of the members runs on", broken };

fn broken(facts: &Facts) -> Vec<String> {
    let running = facts.memories.len();
    if running >= 2 { Vec::new() } else { vec![format!("only {running} of 3 run")] }
}

#[cfg(test)]
mod tests {
    use super::super::tests::said;
    use super::*;

    #[test]
    fn a_cluster_without_quorum_is_said() {
        let said = said(&CHECK, |facts| facts.memories.retain(|id, _| id.0 == 3));
        assert_eq!(said, "only 1 of 3 run");
    }
}
