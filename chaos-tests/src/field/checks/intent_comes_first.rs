//! Whatever array, switch or boot service carried out bears the token of a committed intent (rules R1 and R8, invariant
//! I4).

use super::Check;
use crate::field::facts::Facts;
use policies::{Intent, LogIndex};
use std::collections::BTreeSet;

pub(super) const CHECK: Check = Check { statement: "every effect has a committed intent", broken };

fn broken(facts: &Facts) -> Vec<String> {
    let intents = facts.plans().iter().flat_map(|plan| &plan.intents);
    let tokens: BTreeSet<LogIndex> = intents.map(|Intent { token, .. }| *token).collect();
    let effects = facts.report.events.iter().filter_map(|event| Some((token(&event.text)?, &event.text)));
    effects
        .filter(|(token, _)| !tokens.contains(token))
        .map(|(token, text)| format!("{token} was never intended: {text}"))
        .collect()
}

/// The token at the end of an event of the rack: `vol-1 is attached to iqn-2 (i25)`.
fn token(text: &str) -> Option<LogIndex> {
    text.strip_suffix(')')?.rsplit_once("(i")?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::tests::said;
    use super::*;

    #[test]
    fn an_effect_without_intent_is_said() {
        let said = said(&CHECK, |facts| {
            facts.report.events[1].text = "port sw-a/1 is closed (i26)".to_owned();
        });
        assert_eq!(said, "i26 was never intended: port sw-a/1 is closed (i26)");
        assert_eq!(token("node-1 hangs"), None);
    }
}
