//! At an equal log index all members remember the same (invariant I15).

use super::Check;
use crate::field::facts::{Facts, Memory};

pub(super) const CHECK: Check = Check { statement: "all members remember the same", broken };

fn broken(facts: &Facts) -> Vec<String> {
    let mut members = facts.memories.iter();
    let Some((first, memory)) = members.next() else { return Vec::new() };
    let differs = |other: &Memory| {
        let parts = [
            ("index", other.applied == memory.applied),
            ("nodes", other.nodes == memory.nodes),
            ("instances", other.instances == memory.instances),
            ("failovers", other.plans == memory.plans),
            ("policies", other.policies == memory.policies),
            ("switch", other.armed == memory.armed),
        ];
        parts.into_iter().filter(|(_, same)| !same).map(|(part, _)| part).collect::<Vec<_>>().join(", ")
    };
    members
        .map(|(member, other)| (member, differs(other)))
        .filter(|(_, parts)| !parts.is_empty())
        .map(|(member, parts)| format!("{member} differs from {first} in {parts}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::said;
    use super::*;
    use policies::{LogIndex, MemberId};

    #[test]
    fn a_member_that_remembers_something_else_is_said() {
        let said = said(&CHECK, |facts| {
            let memory = facts.memories.get_mut(&MemberId(3)).unwrap();
            memory.policies.insert("stray".parse().unwrap(), LogIndex(31));
            memory.plans[0].stuck = Some("hm".to_owned());
        });
        assert_eq!(said, "m3 differs from m1 in failovers, policies");
    }
}
