//! What happened, as lines for people and as one number for machines.
//!
//! Why it exists: the same seed must give the same history, and a failing one must be readable.
//! What it never does: keep lines that nobody asked for.

use crate::checkers::Fact;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

/// The history so far.
#[derive(Debug, Default)]
pub struct Trace {
    digest: DefaultHasher,
    lines: Option<Vec<(u64, String)>>,
    story: Vec<(u64, String)>,
    /// Facts so far.
    pub facts: u64,
}

impl Trace {
    /// Keeps lines if `lines`.
    pub fn new(lines: bool) -> Self {
        // `DefaultHasher::new` has fixed keys.
        Trace { digest: DefaultHasher::new(), lines: lines.then(Vec::new), story: vec![], facts: 0 }
    }

    /// Adds a fact.
    pub fn fact(&mut self, now: u64, fact: &Fact) {
        self.facts += 1;
        let line = fact.to_string();
        (now, &line).hash(&mut self.digest);
        if let Some(lines) = &mut self.lines {
            lines.push((now, line));
        }
    }

    /// Adds a line to the story, if anybody wants it.
    pub fn tell(&mut self, now: u64, line: impl FnOnce() -> String) {
        if self.lines.is_some() {
            self.story.push((now, line()));
        }
    }

    /// The story, with the times in µs.
    pub fn story(&self) -> &[(u64, String)] {
        &self.story
    }

    /// Adds numbers that are in no line.
    pub fn mix(&mut self, now: u64, numbers: &[u64]) {
        (now, numbers).hash(&mut self.digest);
    }

    /// One number for the whole history.
    pub fn digest(&self) -> u64 {
        self.digest.finish()
    }

    /// The lines, with their times in µs.
    pub fn lines(&self) -> &[(u64, String)] {
        self.lines.as_deref().unwrap_or_default()
    }
}
