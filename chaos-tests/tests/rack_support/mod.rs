//! What the rack's tests share: starting racks, waiting for conditions, calling ipmitool.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

#[path = "../programs/mod.rs"]
pub(crate) mod programs;

use chaos_tests::rack::world::Report;
use chaos_tests::rack::{Binaries, Description, Rack, RackSpec};
use policies::{NodeId, VolumeId};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// Long enough for a loaded machine; a condition that comes true is seen at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn node(number: usize) -> NodeId {
    format!("node-{number}").parse().unwrap()
}

pub(crate) fn volume(number: usize) -> VolumeId {
    format!("vol-{number}").parse().unwrap()
}

pub(crate) fn spec(machines: usize, spares: usize) -> RackSpec {
    RackSpec { machines, spares, ..RackSpec::new("quick".parse().unwrap(), Vec::new()) }
}

pub(crate) fn rack_binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_rack"))
}

/// The agent, built if it is not.
pub(crate) fn agent_binary() -> PathBuf {
    programs::build().join("ha-agent")
}

pub(crate) fn without_agent() -> Binaries {
    Binaries { rack: rack_binary().to_owned(), agent: None }
}

/// Starts a rack without agents; its directory lives as long as the second value.
pub(crate) async fn start(spec: &RackSpec) -> (Rack, TempDir) {
    start_with(spec, without_agent()).await
}

pub(crate) async fn start_with(spec: &RackSpec, binaries: Binaries) -> (Rack, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let description = Description::draw(spec).unwrap();
    let rack = Rack::start(description, dir.path(), binaries).await.unwrap();
    (rack, dir)
}

/// Waits until a condition holds, and says what was waited for if it never does.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "never came true: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// The last value on a volume, and who wrote it.
pub(crate) fn last_write(report: &Report, number: usize) -> (u64, String) {
    let volume = volume(number);
    let report = report.volumes.iter().find(|report| report.volume == volume).unwrap();
    report.runs.last().map_or((0, String::new()), |run| (run.last, run.initiator.clone()))
}

/// Runs ipmitool against a machine's BMC.
pub(crate) fn ipmitool(rack: &Description, node: &NodeId, suite: u8, words: &str) -> Output {
    let machine = rack.machine(node).unwrap();
    let password = machine.password.0.clone();
    ipmitool_as(rack, node, suite, &machine.user.clone(), &password, words)
}

pub(crate) fn ipmitool_as(
    rack: &Description,
    node: &NodeId,
    suite: u8,
    user: &str,
    password: &str,
    words: &str,
) -> Output {
    let bmc = rack.machine(node).unwrap().bmc;
    let mut command = Command::new("ipmitool");
    command.args(["-I", "lanplus", "-N", "1", "-R", "2", "-C", &suite.to_string()]);
    command.args(["-H", &bmc.ip().to_string(), "-p", &bmc.port().to_string(), "-U", user, "-P", password]);
    command.args(words.split(' '));
    command.output().expect("ipmitool is missing: `make test` installs it (Debian: apt-get install ipmitool)")
}

/// Standard output of a call that has to succeed.
pub(crate) fn ipmitool_ok(rack: &Description, node: &NodeId, suite: u8, words: &str) -> String {
    let output = ipmitool(rack, node, suite, words);
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
