//! The command line of `field`. The scenarios themselves need root and minutes: `make test-chaos`.

use std::process::Command;

#[test]
fn the_list_shows_every_scenario_with_what_is_done() {
    let output = Command::new(env!("CARGO_BIN_EXE_field")).arg("list").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert_eq!(said.lines().count(), chaos_tests::field::Scenario::ALL.len());
    assert!(said.lines().all(|line| line.split_whitespace().count() > 3), "{said}");
}

#[test]
fn every_scenario_is_documented() {
    let doc = include_str!("../../docs/CHAOS.md");
    for scenario in chaos_tests::field::Scenario::ALL {
        let (name, _) = scenario.describe();
        assert!(doc.contains(&format!("`{name}`")), "docs/CHAOS.md does not name {name}");
    }
}
