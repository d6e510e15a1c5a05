//! A member that ended by itself said why, in a line of its own on standard error.

use super::Check;
use crate::field::facts::{End, Ending, Facts};

pub(super) const CHECK: Check = Check { statement: "a member that stops says why", broken };

fn broken(facts: &Facts) -> Vec<String> {
    let silent = |end: &&End| match end.ending {
        Ending::Killed | Ending::OutOfMemory => false,
        Ending::GaveUp | Ending::Unexpected => {
            !end.last_words.iter().any(|line| line.starts_with("ha-supervisord: "))
        }
    };
    let ends = facts.ends.iter().filter(silent);
    ends.map(|end| {
        format!("{} ended ({}) with the words: {}", end.member, end.status, end.last_words.join(" / "))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::said;
    use super::*;

    #[test]
    fn an_end_without_a_word_is_said() {
        let said = said(&CHECK, |facts| facts.ends[0].last_words = vec!["INFO all is well".to_owned()]);
        assert_eq!(said, "m2 ended (exit status: 1) with the words: INFO all is well");
    }
}
