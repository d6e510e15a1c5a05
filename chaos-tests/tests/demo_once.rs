//! One failover from end to end, through the real programs: what `make demo ONCE=1` does for every kind of failure.
//!
//! Why it exists: `cargo test` alone shows whether the parts still fit together.
//! What it never does: run old programs.

mod programs;

use std::process::Command;

#[test]
fn a_node_hangs_and_its_instance_goes_on_at_a_spare() {
    let demo = programs::build().join("demo");
    let dir = tempfile::tempdir().unwrap();
    let room = dir.path().join("demo");
    let said =
        programs::run(Command::new(demo).args(["--once", "--kind", "hang", "--dir"]).arg(&room)).unwrap();
    let row = said.lines().find(|line| line.starts_with("hang ") && line.ends_with("holds"));
    assert!(row.is_some(), "no row that holds in:\n{said}");
    assert!(room.join("1-hang/findings.json").exists(), "the findings are kept beside the logs");
}
