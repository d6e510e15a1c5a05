//! One member of a small world: the real engine, and a fingerprint of it that does not grow.
//!
//! Why it exists: log indexes, tickets and clocks grow without bound, so two states that behave alike would never be
//! found equal. The fingerprint names an index by what its entry is about, and an age by its size.
//! What it never does: change what the engine is told or wants.

use super::cluster::Span;
use policies::*;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write as _;
use std::sync::Arc;

/// An entry of the log, with a name that is the same in every history that leads to the same thing.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) index: LogIndex,
    pub(crate) name: u64,
    /// Its ticket, for a proposer that was deposed before it could be answered.
    pub(crate) ticket: Option<u64>,
    pub(crate) proposal: Proposal,
}

/// Names of the indexes that a member knows.
pub(crate) type Names = Arc<BTreeMap<u64, u64>>;

#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) engine: Engine,
    pub(crate) names: Names,
    pub(crate) print: u64,
    /// True once an input was taken after the fingerprint.
    pub(crate) touched: bool,
}

impl Member {
    pub(crate) fn new(id: MemberId, boot: BootId) -> Self {
        let engine = Engine::new(id, boot, "d");
        Member { engine, names: Names::default(), print: 0, touched: true }
    }

    pub(crate) fn handle(&mut self, now: Now, input: Input) -> Vec<Output> {
        self.touched = true;
        self.engine.handle(now, input)
    }

    /// What the entry's index will be called. Twice the same thing gets two names.
    pub(crate) fn name(&self, command: &Command) -> u64 {
        let state = self.engine.state();
        if let Command::TookOver { .. } = command {
            return self.names.values().filter(|name| **name < TAKE_OVERS_MAX).count() as u64;
        }
        let Command::Lead { step, .. } = command else { return NAMELESS };
        if let Step::Begin(decision) | Step::Replace { decision, .. } = step {
            return hash_of(&("plan", state.plans.len(), decision.from.as_str()));
        }
        let Step::Intend { plan, action } = step else { return NAMELESS };
        let intents = state.plans.get(plan).map_or(&[][..], |plan| &plan.intents);
        let tries = intents.iter().filter(|intent| intent.action == *action).count();
        hash_of(&("intent", self.names.get(&plan.0), action.to_string(), tries))
    }

    pub(crate) fn knows(&mut self, entry: &Entry) {
        Arc::make_mut(&mut self.names).insert(entry.index.0, entry.name);
    }

    pub(crate) fn take_print(&mut self, now: Now) {
        if self.touched {
            self.print = canonical(&self.engine, &self.names, now.mono);
            self.touched = false;
        }
    }
}

/// Names below this are those of take-overs.
const TAKE_OVERS_MAX: u64 = 100;
/// The name of an entry that nothing refers to later.
const NAMELESS: u64 = u64::MAX;

pub(crate) fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A fingerprint of anything that prints indexes, tickets and times as the core does.
pub(crate) fn canonical(value: &impl std::fmt::Debug, names: &BTreeMap<u64, u64>, now: Mono) -> u64 {
    let mut text = Vec::with_capacity(8192);
    write!(text, "{value:?}").unwrap();
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        at += match word(rest) {
            Some((Word::Time(time), length)) => {
                out.push(if time > now.0 { b'+' } else { Span::of_age(now.since(Mono(time))) });
                length
            }
            Some((Word::Index(index), length)) => {
                out.extend(names.get(&index).copied().unwrap_or(index).to_le_bytes());
                length
            }
            Some((Word::Counter, length)) => length,
            None => {
                let word = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
                let gap = rest[word..].iter().take_while(|byte| !byte.is_ascii_alphanumeric()).count();
                out.extend_from_slice(&rest[..word + gap]);
                word + gap
            }
        };
    }
    hash_of(&out)
}

enum Word {
    /// A moment on a member's clock.
    Time(u64),
    /// An index of the log, in any of its roles.
    Index(u64),
    /// A number that only grows.
    Counter,
}

/// The word that begins here, if it is one of these, and its length.
fn word(text: &[u8]) -> Option<(Word, usize)> {
    match text[0] {
        b'M' => {
            let digits = text.strip_prefix(b"Mono(")?;
            let (time, length) = leading_number(digits)?;
            Some((Word::Time(time), "Mono(".len() + length))
        }
        b'm' => {
            let digits = text.strip_prefix(b"moment: ")?;
            let (time, length) = leading_number(digits)?;
            Some((Word::Time(time), "moment: ".len() + length))
        }
        b'i' | b'f' | b'L' => {
            let (index, length) = leading_number(&text[1..])?;
            let ends = text.get(1 + length).is_none_or(|next| !next.is_ascii_alphanumeric());
            ends.then_some((Word::Index(index), 1 + length))
        }
        // The state's own position says nothing that its content does not say.
        b'a' => {
            let digits = text.strip_prefix(b"applied: i")?;
            Some((Word::Counter, "applied: i".len() + leading_number(digits)?.1))
        }
        // The last ticket, and the open ones.
        b'l' => {
            let digits = text.strip_prefix(b"last: ")?;
            Some((Word::Counter, "last: ".len() + leading_number(digits)?.1))
        }
        // How long power was tried: makes a proof only where isolation alone may be one, which no small world allows.
        b't' => {
            let length = text.strip_prefix(b"tried: ")?;
            let length = length.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
            Some((Word::Counter, "tried: ".len() + length))
        }
        b'0'..=b'9' => {
            let (_, length) = leading_number(text)?;
            text[length..].starts_with(b": Open {").then_some((Word::Counter, length))
        }
        _ => None,
    }
}

fn leading_number(text: &[u8]) -> Option<(u64, usize)> {
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let digits = std::str::from_utf8(&text[..length]).ok()?;
    Some((digits.parse().ok()?, length))
}
