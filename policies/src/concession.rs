//! What a policy gives up first when no spare fits.
//!
//! Why it exists: another rack is better than the same one, and the same one is better than none. What it never does: give up
//! what the instance itself needs.

use crate::policy::Spares;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A key of `[spares]` that is a wish, not a need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Concession {
    /// `strikes_max`: hardware that failed again and again will do.
    Strikes,
    /// `labels`: a spare of another pool will do.
    Labels,
    /// `differs_in`: a spare in the same failure domain will do.
    DiffersIn,
}

/// Every one, with its word.
const WORDS: [(Concession, &str); 3] =
    [(Concession::Strikes, "strikes"), (Concession::Labels, "labels"), (Concession::DiffersIn, "differs_in")];

/// Why a text is not a concession.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} cannot be given up; did you mean {nearest:?}?")]
pub struct BadConcession {
    text: String,
    nearest: String,
}

impl TryFrom<String> for Concession {
    type Error = BadConcession;
    fn try_from(text: String) -> Result<Self, BadConcession> {
        let found = WORDS.iter().find(|(_, word)| *word == text);
        found.map(|(concession, _)| *concession).ok_or_else(|| {
            let likeness = |word: &str| strsim::jaro_winkler(&text, word);
            let nearest = WORDS.iter().max_by(|(_, a), (_, b)| likeness(a).total_cmp(&likeness(b)));
            let nearest = nearest.map_or("", |(_, word)| *word).to_owned();
            BadConcession { text: text.chars().take(80).collect(), nearest }
        })
    }
}
impl From<Concession> for String {
    fn from(concession: Concession) -> String {
        concession.to_string()
    }
}
impl fmt::Display for Concession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Concession::Strikes => "strikes",
            Concession::Labels => "labels",
            Concession::DiffersIn => "differs_in",
        })
    }
}

/// The words of some concessions: `strikes, differs_in`.
pub fn given_up(concessions: &[Concession]) -> String {
    concessions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What is left of the wishes after some were given up.
pub(crate) struct Rung {
    pub(crate) gives_up: Vec<Concession>,
    pub(crate) spares: Spares,
}

impl Spares {
    /// The wishes, first all of them, then fewer and fewer. What is not wished cannot be given up.
    pub(crate) fn ladder(&self) -> Vec<Rung> {
        let mut spares = Spares { give_up: vec![], ..self.clone() };
        let mut ladder = vec![Rung { gives_up: vec![], spares: spares.clone() }];
        let mut gives_up = vec![];
        for concession in &self.give_up {
            let before = spares.clone();
            match concession {
                Concession::Strikes => spares.strikes_max = None,
                Concession::Labels => spares.labels.clear(),
                Concession::DiffersIn => spares.differs_in.clear(),
            }
            if spares != before {
                gives_up.push(*concession);
                ladder.push(Rung { gives_up: gives_up.clone(), spares: spares.clone() });
            }
        }
        ladder
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::policy::Policy;
    use crate::preview::tests::{LATER, commit, decided, fallen, gates};

    #[test]
    fn wishes_are_given_up_in_order_and_only_those_that_there_are() {
        let policy = Policy::presets().remove(1).1;
        let policy = policy.with([("spares.differs_in", "rack"), ("spares.labels", "pool=gold")]).unwrap();
        let policy = policy.with([("spares.give_up", "strikes,differs_in,labels")]).unwrap();
        let ladder = policy.spares.ladder();
        let told: Vec<String> = ladder.iter().map(|rung| given_up(&rung.gives_up)).collect();
        assert_eq!(told, ["", "differs_in", "differs_in, labels"]);
        let left: Vec<_> =
            ladder.iter().map(|r| (r.spares.differs_in.len(), r.spares.labels.len())).collect();
        assert_eq!(left, [(1, 1), (0, 1), (0, 0)]);
        for (_, word) in WORDS {
            assert_eq!(Concession::try_from(word.to_owned()).unwrap().to_string(), word);
        }
    }

    #[test]
    fn a_decision_that_gave_something_up_says_so() {
        let text = "[[node]]\nname = \"s2\"\ndomains = { rack = \"r1\" }\nports = [{ provider = \"sw\", port = \"s2\" }]\n\
                    [[node.fencing]]\ndriver = \"ipmi\"\naddress = \"s2:623\"\nuser = \"u\"\npassword = \"sealed\"\n";
        let mut engine = fallen(&[("spares.differs_in", "rack"), ("spares.give_up", "labels,differs_in")]);
        commit(&mut engine, Command::Describe(Box::new(toml::from_str(text).unwrap())));
        let told = gates(&engine, LATER);
        assert_eq!(told, ["wishes: no spare fits without giving up differs_in"]);
        let others = decided(&engine, LATER).unwrap().runners_up;
        let also = "fits, but shares 1 failure domains with n1, giving up differs_in";
        assert_eq!(others, [("s2".parse().unwrap(), also.to_owned())]);
        let text = text.replace("r1", "r2");
        commit(&mut engine, Command::Describe(Box::new(toml::from_str(&text).unwrap())));
        assert_eq!(gates(&engine, LATER), [""; 0], "one fits");
    }

    #[test]
    fn what_cannot_be_given_up_or_is_given_up_twice_is_refused() {
        let policy = Policy::presets().remove(1).1;
        let why = |value: &str| policy.with([("spares.give_up", value)]).unwrap_err().to_string();
        assert!(why("difers_in").contains("\"difers_in\" cannot be given up; did you mean \"differs_in\"?"));
        assert_eq!(why("labels,strikes,labels"), "spares.give_up: labels is given up twice");
    }
}
