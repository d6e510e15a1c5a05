//! A member ends only if something was done to it.

use super::Check;
use crate::field::facts::{Ending, Facts};

pub(super) const CHECK: Check = Check { statement: "a member without a fault runs on", broken };

fn broken(facts: &Facts) -> Vec<String> {
    let ends = facts.ends.iter().filter(|end| match end.ending {
        Ending::Killed | Ending::OutOfMemory | Ending::GaveUp => false,
        Ending::Unexpected => true,
    });
    ends.map(|end| format!("{} ended ({}): {}", end.member, end.status, end.last_words.join(" / "))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::said;
    use super::*;

    #[test]
    fn an_end_that_nobody_caused_is_said() {
        let said = said(&CHECK, |facts| facts.ends[0].ending = Ending::Unexpected);
        assert!(said.starts_with("m2 ended (exit status: 1): "), "{said}");
    }
}
