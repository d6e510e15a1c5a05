//! The same seed gives the same history, byte for byte, in every process.
//!
//! Why it exists: a failing seed that cannot be played again is an anecdote.
//! What it never does: look for bugs; `make smoke` plays the seeds that do.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may")]

use std::process::Command;

/// Plays a seed in a process of its own: the digest of all that happened, and how much that was.
fn play(seed: &str, mode: &str) -> (String, u64) {
    let mut chaos = Command::new(env!("CARGO_BIN_EXE_chaos"));
    let output = chaos.args(["one", seed, "--mode", mode]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let verdict: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    (verdict["digest"].as_str().unwrap().to_owned(), verdict["facts"].as_u64().unwrap())
}

#[test]
fn the_same_seed_gives_the_same_history_in_every_process() {
    for (seed, mode) in [("1", "safety"), ("18", "safety"), ("3", "liveness")] {
        let first = play(seed, mode);
        assert_eq!(first, play(seed, mode), "seed {seed}");
        assert!(first.1 > 300, "seed {seed} has only {} facts", first.1);
    }
}

#[test]
fn another_seed_gives_another_history() {
    assert_ne!(play("1", "safety").0, play("2", "safety").0);
}
