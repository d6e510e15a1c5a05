//! Small worlds: every order of events that two real engines can meet, explored to the end.
//!
//! Why it exists: scenarios show what happens in one order, the simulator in many; here it is all of them, for worlds
//! small enough. The engines are the production ones (`policies::Engine` with its log, planner, drains, proposals);
//! only log, lease, devices and time are the world's. What it never does: model the core a second time.
//!
//! Each shortcut that a simpler design would take must break a law, or these worlds would be too small to mean anything.
//! `cargo test -p chaos-tests --test small_worlds -- --nocapture` prints what was found.
//!
//! What is left out, to keep the worlds small. Failovers begin with an operator's order: judging is the scenarios' work.
//! The log is faster than any device, and an election may come between any two entries. Two equal commands on their way
//! are one, which may arrive twice at a price. A command that was sent is gone after `effect_max`, and a deposed
//! leader's lease is over before its successor is elected: this is what R5 assumes, and where a shortcut drops it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints what it found"
)]

mod small_worlds {
    pub(crate) mod cluster;
    pub(crate) mod explore;
    pub(crate) mod ground;
    pub(crate) mod laws;
    pub(crate) mod member;
    pub(crate) mod moves;
    pub(crate) mod naive;
    pub(crate) mod rules;
    pub(crate) mod world;
    pub(crate) mod worlds;
}

use small_worlds::explore::{Findings, explore};
use small_worlds::rules::Rules;
use small_worlds::worlds;
#[test]
fn safe_worlds_are_exhausted_and_keep_every_law() {
    let mut wrong = vec![];
    for rules in worlds::safe() {
        let found = explore(&rules, None);
        let result = match (&found.broken[..], found.trapped.len(), found.exhausted, found.served) {
            ([], 0, true, true) => "safe, exhausted; rest always in reach".to_owned(),
            ([], 0, true, false) => "no failover was ever done".to_owned(),
            ([], trapped, true, _) => format!("{trapped} states without a way to rest"),
            ([], _, false, _) => "not exhausted".to_owned(),
            ([(law, way), ..], _, _, _) => format!("BREAKS {law}:\n    {}", way.join("\n    ")),
        };
        show(&rules, &found, &result);
        if !result.starts_with("safe") {
            wrong.push(format!("{}: {result}", rules.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_shortcut_breaks_its_law() {
    let mut wrong = vec![];
    for (rules, law) in worlds::naive() {
        let found = explore(&rules, Some(law));
        let result = match &found.broken[..] {
            [(broken, way), ..] => format!("breaks `{broken}` in {} moves", way.len()),
            [] => format!("KEEPS `{}`", law.name()),
        };
        show(&rules, &found, &result);
        if found.broken.is_empty() {
            wrong.push(format!("{}: {result}", rules.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// One row of the table.
fn show(rules: &Rules, found: &Findings, result: &str) {
    let (states, steps, seconds) = (found.states, found.transitions, found.took.as_secs_f64());
    println!("| {:62} | {states:7} | {steps:7} | {seconds:5.1} s | {result} |", rules.name);
}
