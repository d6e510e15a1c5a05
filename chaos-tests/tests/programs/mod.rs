//! The real programs for tests that start them: cargo builds none of other packages for a test.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "the helpers of tests are tests too, and each test binary uses its own part"
)]

use chaos_tests::cargo::cargo;
use std::path::Path;
use std::process::Command;

/// Runs a program; what it said.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("run {command:?}: {error}"))?;
    let said = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    match output.status.success() {
        true => Ok(said.concat()),
        false => Err(format!("{command:?} failed ({}):\n{}", output.status, said.concat())),
    }
}

/// Builds all programs, unless they are built; where they are.
pub(crate) fn build() -> &'static Path {
    // Where cargo put this test's programs: TARGET/PROFILE/rack; the profile `dev` goes to `debug`.
    let out = Path::new(env!("CARGO_BIN_EXE_rack")).parent().unwrap();
    let profile = out.file_name().unwrap().to_str().unwrap();
    let mut build = cargo();
    build.args(["build", "--quiet", "--locked", "--bins"]);
    // With this package, so that the features of all dependencies are those of the test and nothing is built twice.
    build.args(["--package", "supervisor", "--package", "ha-agent", "--package", "chaos-tests"]);
    if cfg!(feature = "sim") {
        build.args(["--features", "chaos-tests/sim"]);
    }
    build.args(["--profile", if profile == "debug" { "dev" } else { profile }]);
    build.arg("--target-dir").arg(out.parent().unwrap());
    run(build.current_dir(env!("CARGO_MANIFEST_DIR"))).unwrap();
    out
}
