//! One failover from end to end, through the real programs: what `make demo ONCE=1` does for every kind of failure.
//!
//! Why it exists: `cargo test` alone shows whether the parts still fit together.
//! What it never does: run old programs; cargo builds those of the other packages first, for it gives a test only the
//! programs of the test's own package.

use std::path::Path;
use std::process::Command;

/// Runs a program; what it said.
fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("run {command:?}: {error}"))?;
    let said = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    match output.status.success() {
        true => Ok(said.concat()),
        false => Err(format!("{command:?} failed ({}):\n{}", output.status, said.concat())),
    }
}

#[test]
fn a_node_hangs_and_its_instance_goes_on_at_a_spare() {
    let demo = Path::new(env!("CARGO_BIN_EXE_demo"));
    // Where cargo put this test's programs: TARGET/PROFILE/demo; the profile `dev` goes to `debug`.
    let out = demo.parent().unwrap();
    let profile = out.file_name().unwrap().to_str().unwrap();
    let mut build = Command::new(env!("CARGO"));
    // What cargo tells a test about its package would make build scripts think that they are that package's, and
    // everything behind them would be built anew.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_"]
            .iter()
            .any(|own| text.starts_with(own))
        {
            build.env_remove(&name);
        }
    }
    build.args(["build", "--quiet", "--locked", "--bins"]);
    // With this package, so that the features of all dependencies are those of the test and nothing is built twice.
    build.args(["--package", "supervisor", "--package", "ha-agent", "--package", "chaos-tests"]);
    if cfg!(feature = "sim") {
        build.args(["--features", "chaos-tests/sim"]);
    }
    build.args(["--profile", if profile == "debug" { "dev" } else { profile }]);
    build.arg("--target-dir").arg(out.parent().unwrap());
    run(build.current_dir(env!("CARGO_MANIFEST_DIR"))).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let room = dir.path().join("demo");
    let said = run(Command::new(demo).args(["--once", "--kind", "hang", "--dir"]).arg(&room)).unwrap();
    let row = said.lines().find(|line| line.starts_with("hang ") && line.ends_with("holds"));
    assert!(row.is_some(), "no row that holds in:\n{said}");
    assert!(room.join("1-hang/findings.json").exists(), "the findings are kept beside the logs");
}
