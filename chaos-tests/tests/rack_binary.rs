//! The `rack` program: described, run, tormented, asked, ended.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test support"
)]

mod rack_support;

use chaos_tests::rack::world::Report;
use chaos_tests::rack::{Life, Status};
use rack_support::*;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

fn rack(arguments: &[&str]) -> Output {
    Command::new(rack_binary()).args(arguments).output().unwrap()
}

fn rack_do(dir: &str, words: &str) -> Output {
    let mut arguments = vec!["do", "--dir", dir];
    arguments.extend(words.split(' '));
    rack(&arguments)
}

/// A running `rack run`; killed when the test ends early.
struct Running(Child);

impl Running {
    fn start(dir: &str) -> Running {
        let mut command = Command::new(rack_binary());
        command.args(["run", "--dir", dir, "--agent"]).arg(agent_binary()).stdout(Stdio::piped());
        let mut running = Running(command.spawn().unwrap());
        let mut ready = String::new();
        BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert!(ready.starts_with("ready: 3 machines"), "{ready}");
        running
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.0.id() as i32), signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        self.0.kill().unwrap_or_default();
        self.0.wait().unwrap();
    }
}

/// Processes whose command line names `dir`, the rack's own not among them.
fn offspring(dir: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    processes
        .filter_map(|process| std::fs::read_to_string(process.path().join("cmdline")).ok())
        .filter(|words| words.contains(&format!("{dir}/machines")))
        .collect()
}

fn described(dir: &Path) -> String {
    let dir = dir.join("rack").to_str().unwrap().to_owned();
    let output =
        rack(&["init", "--dir", &dir, "--machines", "3", "--spares", "1", "--members", "127.0.0.1:9"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    dir
}

#[tokio::test]
async fn it_runs_faults_and_reports_and_ends_with_all_its_processes() {
    let temp = tempfile::tempdir().unwrap();
    let dir = described(temp.path());
    assert!(!rack(&["init", "--dir", &dir, "--members", "x:1"]).status.success(), "never overwritten");
    let mut running = Running::start(&dir);
    assert_eq!(offspring(&dir).len(), 4, "two agents and two workloads");
    assert!(rack_do(&dir, "hang node-1").status.success());
    assert!(rack_do(&dir, "bmc-mood node-2 slow=5ms").status.success());
    assert!(rack_do(&dir, "power-loss node-2").status.success());
    let status: Status = serde_json::from_slice(&rack_do(&dir, "status").stdout).unwrap();
    assert_eq!(status.machines[&node(1)].life, Life::Hung);
    assert_eq!(status.machines[&node(2)].life, Life::Off);
    assert!(!status.machines[&node(2)].cables.supply);
    let report: Report = serde_json::from_slice(&rack_do(&dir, "report").stdout).unwrap();
    assert!(report.events.iter().any(|event| event.text == "node-1 hangs"));

    let unknown = rack_do(&dir, "hang node-9");
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there is no machine node-9"));
    let bad = rack_do(&dir, "bmc-mood node-1 angry");
    assert!(String::from_utf8_lossy(&bad.stderr).contains("ignore-off"), "the choices are named");

    running.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(running.0.wait().unwrap().success());
    assert_eq!(offspring(&dir), Vec::<String>::new(), "ended before the rack did, stopped ones included");
    assert!(!rack_do(&dir, "status").status.success(), "nobody is there any more");
}

#[tokio::test]
async fn killed_without_warning_it_still_leaves_no_process_behind() {
    let temp = tempfile::tempdir().unwrap();
    let dir = described(temp.path());
    let running = Running::start(&dir);
    assert!(rack_do(&dir, "freeze node-1").status.success());
    assert_eq!(offspring(&dir).len(), 4, "two agents and two workloads");
    running.signal(nix::sys::signal::Signal::SIGKILL);
    eventually("its processes are gone", async || offspring(&dir).is_empty()).await;
}
