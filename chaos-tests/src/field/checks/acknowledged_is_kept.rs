//! Every order that was acknowledged is in the memory of every member, at the log index that was answered (invariant
//! I13).

use super::Check;
use crate::field::facts::{Facts, Memory};
use crate::field::notes::Acked;

pub(super) const CHECK: Check = Check { statement: "what was acknowledged is remembered", broken };

fn broken(facts: &Facts) -> Vec<String> {
    let missing = |memory: &Memory| {
        let missing =
            facts.acked.iter().filter(|acked| memory.policies.get(&acked.policy) != Some(&acked.index));
        missing.map(|Acked { policy, index }| format!("{policy} ({index})")).collect::<Vec<_>>()
    };
    let members = facts.memories.iter().map(|(member, memory)| (member, missing(memory)));
    members
        .filter(|(_, missing)| !missing.is_empty())
        .map(|(member, missing)| format!("{member} does not know {}", missing.join(", ")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::said;
    use super::*;
    use policies::LogIndex;

    #[test]
    fn what_is_forgotten_or_at_another_index_is_said() {
        let forgotten = said(&CHECK, |facts| {
            facts.acked.push(Acked { policy: "note-2".parse().unwrap(), index: LogIndex(33) });
        });
        assert!(forgotten.starts_with("m1 does not know note-2 (i33); m2 does not"), "{forgotten}");
        let moved = said(&CHECK, |facts| facts.acked[0].index = LogIndex(29));
        assert!(moved.contains("m3 does not know note-1 (i29)"), "{moved}");
    }
}
