//! What can be done to a running process of ours: standing still, fewer files, less memory, less processor time.
//!
//! Why it exists: the faults of real computers that no network and no disk shows.
//! What it never does: touch a process that this program did not start; every process is named by the pid of a child.

use crate::demo::DemoError;
use crate::demo::error::system;
use crate::demo::process::run;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where cgroup v1 controllers are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Sends a signal to a child.
pub(crate) fn signal(pid: u32, signal: Signal) -> Result<(), DemoError> {
    let number = i32::try_from(pid).map_err(|_| DemoError::Unexpected(format!("{pid} is no pid")))?;
    kill(Pid::from_raw(number), signal)
        .map_err(|errno| system(format!("send {signal} to process {pid}"))(errno.into()))
}

/// Lets a child open no file beyond this number. The hard limit stays, or only the kernel could lift this one again.
pub(super) fn limit_files(pid: u32, max: u64) -> Result<(), DemoError> {
    let (pid, limit) = (pid.to_string(), format!("--nofile={max}:"));
    run(Command::new("prlimit").args(["--pid", &pid, &limit]), None)
}

/// How many files a child has open.
pub(super) fn open_files(pid: u32) -> Result<u64, DemoError> {
    let dir = format!("/proc/{pid}/fd");
    let listed = fs::read_dir(&dir).map_err(system(format!("list {dir}")))?;
    Ok(u64::try_from(listed.count()).unwrap_or(u64::MAX))
}

/// Bytes of memory that a child has in use now.
pub(super) fn resident(pid: u32) -> Result<u64, DemoError> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).map_err(system(format!("read {path}")))?;
    let kib = text.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    let kib: Option<u64> = kib.and_then(|kib| kib.trim().parse().ok());
    let bad = || DemoError::Unexpected(format!("{path} does not say how much memory is in use"));
    Ok(kib.ok_or_else(bad)? * 1024)
}

/// A controller of cgroup v1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Controller {
    Cpu,
    Memory,
    Freezer,
}

impl Controller {
    const ALL: [Controller; 3] = [Controller::Cpu, Controller::Memory, Controller::Freezer];

    fn root(self) -> PathBuf {
        Path::new(CGROUPS).join(match self {
            Controller::Cpu => "cpu",
            Controller::Memory => "memory",
            Controller::Freezer => "freezer",
        })
    }

    /// What is missing to use it, if anything.
    pub(super) fn missing(self) -> Option<String> {
        let tasks = self.root().join("cgroup.procs");
        let missing = !tasks.exists();
        missing.then(|| format!("there is no cgroup v1 controller at {}", self.root().display()))
    }
}

/// A group of processes with limits. Dropping it lets them go.
pub(super) struct Group {
    controller: Controller,
    dir: PathBuf,
}

impl Group {
    /// A new group of these children.
    pub(super) fn of(controller: Controller, name: &str, pids: &[u32]) -> Result<Group, DemoError> {
        let dir = controller.root().join(format!("vf-{name}"));
        fs::create_dir_all(&dir).map_err(system(format!("make {}", dir.display())))?;
        let group = Group { controller, dir };
        for pid in pids {
            group.set("cgroup.procs", &pid.to_string())?;
        }
        Ok(group)
    }

    /// Sets a limit.
    pub(super) fn set(&self, file: &str, value: &str) -> Result<(), DemoError> {
        let path = self.dir.join(file);
        fs::write(&path, value).map_err(system(format!("write {value} to {}", path.display())))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        release(self.controller, &self.dir);
    }
}

/// Puts the processes of a group back where all others are and removes the group.
fn release(controller: Controller, dir: &Path) {
    if controller == Controller::Freezer {
        fs::write(dir.join("freezer.state"), "THAWED").ok();
    }
    let pids = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    for pid in pids.lines() {
        // One that has just ended is no error.
        fs::write(controller.root().join("cgroup.procs"), pid).ok();
    }
    fs::remove_dir(dir).ok();
}

/// Removes the groups that an earlier run left.
pub(super) fn sweep() {
    for controller in Controller::ALL {
        let Ok(listed) = fs::read_dir(controller.root()) else { continue };
        for entry in listed.flatten() {
            if entry.file_name().to_string_lossy().starts_with("vf-") {
                release(controller, &entry.path());
            }
        }
    }
}
