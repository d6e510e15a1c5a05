//! What a member remembers while it runs is what the log makes that it leaves on its disk (invariant I15; the court sees
//! that all logs are the same).

use super::Check;
use crate::field::facts::{Facts, Memory};

pub(super) const CHECK: Check = Check { statement: "a member remembers what is in its log", broken };

fn broken(facts: &Facts) -> Vec<String> {
    let differs = |(member, memory): (_, &Memory)| {
        let Some(log) = facts.logs.get(member) else { return Some(format!("{member} left no log")) };
        let mut state = (*log.begins).clone();
        for (index, proposal) in log.entries.range(..=memory.applied) {
            // What an entry could not do, it could do nowhere, and it changed nothing.
            drop(state.apply(*index, proposal));
        }
        let made = Memory::of(&state, memory.applied);
        let parts = [
            ("nodes", made.nodes == memory.nodes),
            ("instances", made.instances == memory.instances),
            ("failovers", made.plans == memory.plans),
            ("policies", made.policies == memory.policies),
            ("switch", made.armed == memory.armed),
        ];
        let parts: Vec<&str> = parts.into_iter().filter(|(_, same)| !same).map(|(part, _)| part).collect();
        (!parts.is_empty()).then(|| {
            format!("{member} remembers other {} at {} than its log makes", parts.join(", "), memory.applied)
        })
    };
    facts.memories.iter().filter_map(differs).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::said;
    use super::*;
    use policies::{LogIndex, MemberId};

    #[test]
    fn a_member_that_remembers_something_else_is_said() {
        let other = said(&CHECK, |facts| {
            let memory = facts.memories.get_mut(&MemberId(3)).unwrap();
            memory.policies.insert("stray".parse().unwrap(), LogIndex(31));
            memory.plans[0].stuck = Some("hm".to_owned());
        });
        assert_eq!(other, "m3 remembers other failovers, policies at i30 than its log makes");
        let short = said(&CHECK, |facts| {
            let log = facts.logs.get_mut(&MemberId(2)).unwrap();
            log.entries.pop_last();
        });
        assert_eq!(short, "m2 remembers other nodes, failovers at i30 than its log makes");
        assert_eq!(said(&CHECK, |facts| drop(facts.logs.remove(&MemberId(1)))), "m1 left no log");
    }
}
