//! The targets of `make fuzz` on the stable toolchain: changed valid inputs, random bytes, and the kept corpora.
//!
//! Why it exists: what a long run has found must stay found, in every `cargo test`. What it never does: search deeply;
//! `make fuzz` does. To see how a target is added read `chaos-tests/fuzz/README.md`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use chaos_tests::fuzzing::{TARGETS, Target};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Most files of one corpus: they are read in every `cargo test`, and by people.
const FILES_MAX: usize = 40;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn corpus(name: &str) -> PathBuf {
    fuzz().join("corpus").join(name)
}

fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).unwrap()
}

/// Gives a target bytes; if something does not hold, says which bytes those were.
fn give(target: &Target, bytes: &[u8], whence: &str) -> bool {
    let run = std::panic::AssertUnwindSafe(|| (target.run)(bytes));
    let taken = std::panic::catch_unwind(run);
    taken.unwrap_or_else(|_| panic!("{} with {whence}: \"{}\"", target.name, bytes.escape_ascii()))
}

/// One change of a valid input.
#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, u8),
    Repeat(Index, u8),
    Cut(Index),
    Splice(Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    let interesting = prop_oneof![Just(0u8), Just(255), Just(128), any::<u8>()];
    prop_oneof![
        (any::<Index>(), interesting).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<Index>(), 0..8u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (any::<Index>(), vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (any::<Index>(), 1..20u8).prop_map(|(at, length)| Change::Remove(at, length)),
        (any::<Index>(), 1..40u8).prop_map(|(at, length)| Change::Repeat(at, length)),
        any::<Index>().prop_map(Change::Cut),
        (any::<Index>(), any::<Index>()).prop_map(|(seed, at)| Change::Splice(seed, at)),
    ]
}

fn changed(bytes: &mut Vec<u8>, change: &Change, seeds: &[Vec<u8>]) {
    let place = |at: &Index, bytes: &[u8]| at.index(bytes.len() + 1);
    match change {
        Change::Set(at, byte) => {
            let at = place(at, bytes);
            if let Some(old) = bytes.get_mut(at) {
                *old = *byte;
            }
        }
        Change::Flip(at, bit) => {
            let at = place(at, bytes);
            if let Some(old) = bytes.get_mut(at) {
                *old ^= 1 << bit;
            }
        }
        Change::Insert(at, new) => {
            let at = place(at, bytes);
            bytes.splice(at..at, new.iter().copied());
        }
        Change::Remove(at, length) => {
            let at = place(at, bytes);
            bytes.drain(at..(at + usize::from(*length)).min(bytes.len()));
        }
        Change::Repeat(at, length) => {
            let at = place(at, bytes);
            let part = bytes[at..(at + usize::from(*length)).min(bytes.len())].to_vec();
            bytes.splice(at..at, part);
        }
        Change::Cut(at) => bytes.truncate(place(at, bytes)),
        Change::Splice(seed, at) => {
            let seed = seed.get(seeds);
            bytes.truncate(place(at, bytes));
            bytes.extend_from_slice(&seed[at.index(seed.len() + 1)..]);
        }
    }
}

/// Valid inputs are taken, changed ones and random bytes break nothing.
fn check(name: &str, cases: u32) {
    let target = target(name);
    let seeds = (target.seeds)();
    for seed in &seeds {
        assert!(
            give(target, seed, "a seed"),
            "{name} does not take its own seed \"{}\"",
            seed.escape_ascii()
        );
    }
    let mut runner =
        TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() });
    let near = (any::<Index>(), vec(change(), 1..5)).prop_map({
        let seeds = seeds.clone();
        move |(seed, changes)| {
            let mut bytes = seed.get(&seeds).clone();
            changes.iter().for_each(|change| changed(&mut bytes, change, &seeds));
            bytes
        }
    });
    let far = vec(any::<u8>(), 0..300);
    let both = prop_oneof![4 => near, 1 => far];
    let given = runner.run(&both, |bytes| {
        (target.run)(&bytes);
        Ok(())
    });
    given.unwrap_or_else(|error| panic!("{name}: {error}"));
}

macro_rules! targets {
    ($($name:ident: $cases:expr),+ $(,)?) => {
        $(
            #[test]
            fn $name() {
                check(stringify!($name), $cases);
            }
        )+

        #[test]
        fn every_target_is_tried_here_and_by_make_fuzz() {
            let here = BTreeSet::from([$(stringify!($name)),+]);
            assert_eq!(here, TARGETS.iter().map(|target| target.name).collect());
            let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
            let manifest: toml::Table = manifest.parse().unwrap();
            let bins = manifest["bin"].as_array().unwrap();
            assert_eq!(here, bins.iter().map(|bin| bin["name"].as_str().unwrap()).collect());
            for name in here {
                let path = fuzz().join(format!("fuzz_targets/{name}.rs"));
                let text = fs::read_to_string(path).unwrap();
                assert!(text.contains(&format!("\"{name}\"")), "{name}.rs runs another target");
            }
        }
    };
}

targets! {
    rmcp: 4000,
    rmcp_session: 2000,
    ipmi_answer: 4000,
    bmc: 500,
    redfish: 2000,
    heartbeat: 2000,
    member_frame: 1500,
    log_record: 500,
    snapshot: 200,
    store_file: 100,
    documents_toml: 800,
    policy_set: 800,
    agent_config: 1000,
    member_config: 1000,
    tokens_file: 1000,
    api_body: 1000,
    commands: 200,
}

/// The files of a corpus by name.
fn kept(name: &str) -> Vec<(String, Vec<u8>)> {
    let Ok(files) = fs::read_dir(corpus(name)) else { return vec![] };
    let mut files: Vec<_> = files
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn the_kept_corpora_break_nothing() {
    for target in TARGETS {
        let files = kept(target.name);
        assert!(files.len() <= FILES_MAX, "{}: {} files", target.name, files.len());
        for (name, bytes) in files {
            give(&target, &bytes, &name);
        }
    }
}

#[test]
fn the_corpora_hold_the_seeds() {
    for target in TARGETS {
        let is_seed = |(name, _): &(String, Vec<u8>)| name.starts_with("seed-");
        let files: Vec<_> = kept(target.name).into_iter().filter(is_seed).collect();
        let seeds = (target.seeds)().into_iter().enumerate();
        let seeds: Vec<_> = seeds.map(|(at, seed)| (format!("seed-{at:02}"), seed)).collect();
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::create_dir_all(corpus(target.name)).unwrap();
            files.iter().for_each(|(name, _)| fs::remove_file(corpus(target.name).join(name)).unwrap());
            seeds.iter().for_each(|(name, seed)| fs::write(corpus(target.name).join(name), seed).unwrap());
        } else {
            assert!(files == seeds, "{}: the seeds have changed; run with UPDATE_EXPECT=1", target.name);
        }
    }
}
