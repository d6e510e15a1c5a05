//! Properties of the replicated state under any sequence of entries, sensible or not.
//! Why it exists: scenarios show what should happen; this shows what never does, whoever writes into the log.
//! What it never does: say itself what must hold; `any_log` does.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod any_log;

use any_log::{Choice, Want};
use policies::Phase;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::BTreeSet;

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn any_log_leaves_a_state_that_holds_together(wants in vec(any::<Choice>(), 1..160)) {
        any_log::check(wants.into_iter().map(Want::read)).map_err(TestCaseError::fail)?;
    }
}

/// The random logs reach every phase; else the property above would hold of nothing.
#[test]
fn random_logs_reach_every_phase() {
    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeSet::new();
    for _ in 0..400 {
        let wants = vec(any::<Choice>(), 160).new_tree(&mut runner).unwrap().current();
        let state = any_log::check(wants.into_iter().map(Want::read)).unwrap();
        seen.extend(state.plans.values().flat_map(|plan| &plan.entered).map(|(phase, _)| *phase));
    }
    let all = [
        Phase::Reserved,
        Phase::Stopping,
        Phase::Fencing,
        Phase::Moving,
        Phase::Starting,
        Phase::Done,
        Phase::Replaced,
        Phase::Cancelled,
    ];
    assert_eq!(seen, BTreeSet::from(all));
}
