//! What runs on a machine: the real agent and a workload.
//!
//! What this is: how a machine that boots asks what it may run, and the processes that come of it.
//! Why it exists: a machine must learn its instance and epoch from the boot service at each start, or a fenced one
//! that is switched on again would become its instance a second time.
//! What it never does: it decides nothing about power.

use super::offspring::Offspring;
use super::qmp::{self, Button};
use super::world::World;
use super::{hex, locked};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use policies::{Epoch, Millis, NodeId};
use serde::Serialize;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tracing::warn;

/// How to start a machine's processes.
#[derive(Debug)]
pub struct Software {
    /// The machine.
    pub node: NodeId,
    /// Where its files are.
    pub dir: PathBuf,
    /// The `rack` binary, which is also the workload.
    pub rack: PathBuf,
    /// The `ha-agent` binary; without one the machine has no agent.
    pub agent: Option<PathBuf>,
    /// The agent's key, 64 hexadecimal digits.
    pub agent_key: String,
    /// Time between heartbeats.
    pub heartbeat: Millis,
    /// Time between writes.
    pub write_every: Millis,
    /// Per network path: its name and where the agent sends its heartbeats, one address a member.
    pub paths: Vec<(String, Vec<String>)>,
    /// The array's address.
    pub array: String,
    /// The name by which the array knows this machine.
    pub initiator: String,
    /// Who forks.
    pub offspring: Offspring,
    /// Whom to ask what to boot.
    pub world: Arc<World>,
    /// A command of QEMU's that is the machine in place of all that; empty: none.
    pub emulator: Vec<String>,
    /// Where its serial port is served, if a BMC is to connect to it.
    pub serial: Option<SocketAddr>,
}

/// The agent's configuration file (docs/agent.md).
#[derive(Serialize)]
struct AgentConfig<'a> {
    node: &'a str,
    key: &'a str,
    boot_id: String,
    epoch: u64,
    interval: String,
    /// The rack's machines share the hardware of this one; it would be told as theirs.
    inventory: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    write_probe: Option<WriteProbe>,
    paths: Vec<AgentPath<'a>>,
}

#[derive(Serialize)]
struct WriteProbe {
    file: PathBuf,
    mode: &'static str,
}

#[derive(Serialize)]
struct AgentPath<'a> {
    name: &'a str,
    members: &'a [String],
}

impl Software {
    /// Asks the boot service and starts what it allows: an idle agent, or the agent of an instance and its workloads.
    ///
    /// # Errors
    /// If a file cannot be written or a process not be started.
    pub async fn start(&self) -> io::Result<Programs> {
        if let Some((program, arguments)) = self.emulator.split_first() {
            return self.emulate(program, arguments).await;
        }
        let assignment = locked(&self.world.boot).answer(&self.node).cloned();
        let written = self.dir.join("written");
        match fs::remove_file(&written) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut programs = Programs::default();
        if let Some(assignment) = &assignment {
            for volume in self.world.volumes(&assignment.instance) {
                let mut command = Command::new(&self.rack);
                command.stdin(Stdio::null()).arg("workload").args([
                    "--array",
                    &self.array,
                    "--initiator",
                    &self.initiator,
                ]);
                command.args(["--volume", volume.as_str(), "--every", &self.write_every.to_string()]);
                command.arg("--touch").arg(&written);
                programs.workloads.push(self.offspring.spawn(command).await?);
            }
        }
        if let Some(agent) = &self.agent {
            let epoch = assignment.as_ref().map_or(Epoch(0), |assignment| assignment.epoch);
            fs::write(self.agent_config(), self.agent_toml(epoch, assignment.is_some())?)?;
            let mut command = Command::new(agent);
            command.stdin(Stdio::null()).args(["run", "--config"]).arg(self.agent_config());
            programs.agent = Some(self.offspring.spawn(command).await?);
        }
        Ok(programs)
    }

    async fn emulate(&self, program: &str, arguments: &[String]) -> io::Result<Programs> {
        let file = self.dir.join("console");
        let console = fs::OpenOptions::new().create(true).append(true).open(&file)?;
        let mut command = Command::new(program);
        command.args(arguments);
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", self.monitor().display()));
        if let Some(serial) = self.serial {
            let (ip, port, file) = (serial.ip(), serial.port(), file.display());
            let served = format!("socket,id=serial,host={ip},port={port},server=on,wait=off");
            command.arg("-chardev").arg(format!("{served},logfile={file},logappend=on"));
            command.args(["-serial", "chardev:serial"]);
        }
        command.stdin(Stdio::null()).stderr(console.try_clone()?).stdout(console);
        Ok(Programs { emulator: Some(self.offspring.spawn(command).await?), ..Programs::default() })
    }

    /// True if an emulator is the machine.
    pub fn is_emulated(&self) -> bool {
        !self.emulator.is_empty()
    }

    /// Presses a button of the emulated machine. What stands still, or is not there, does not take it.
    pub async fn press(&self, button: Button) {
        if let Err(error) = qmp::press(&self.monitor(), button).await {
            warn!(node = %self.node, ?button, %error, "a button was pressed in vain");
        }
    }

    fn monitor(&self) -> PathBuf {
        self.dir.join("monitor")
    }

    /// Lets the agent send the farewell of a panicked kernel, as a crash kernel's hook would.
    pub async fn gasp(&self) {
        let Some(agent) = &self.agent else { return };
        let mut command = Command::new(agent);
        command.stdin(Stdio::null()).args(["gasp", "--panic", "--config"]).arg(self.agent_config());
        let ended = match self.offspring.spawn(command).await {
            Ok(mut child) => child.wait().await,
            Err(error) => Err(error),
        };
        match ended {
            Ok(status) if status.success() => {}
            Ok(status) => warn!(node = %self.node, %status, "the farewell failed"),
            Err(error) => warn!(node = %self.node, %error, "the farewell failed"),
        }
    }

    fn agent_config(&self) -> PathBuf {
        self.dir.join("agent.toml")
    }

    fn agent_toml(&self, epoch: Epoch, writes: bool) -> io::Result<String> {
        let config = AgentConfig {
            node: self.node.as_str(),
            key: &self.agent_key,
            boot_id: hex(&rand::random::<[u8; 8]>()),
            epoch: epoch.0,
            interval: self.heartbeat.to_string(),
            inventory: false,
            write_probe: writes.then(|| WriteProbe { file: self.dir.join("written"), mode: "age-of-file" }),
            paths: self.paths.iter().map(|(name, members)| AgentPath { name, members }).collect(),
        };
        toml::to_string(&config).map_err(io::Error::other)
    }
}

/// The running processes of a machine.
#[derive(Debug, Default)]
pub struct Programs {
    agent: Option<Child>,
    workloads: Vec<Child>,
    emulator: Option<Child>,
}

impl Programs {
    fn all(&mut self) -> impl Iterator<Item = &mut Child> {
        self.workloads.iter_mut().chain(self.agent.as_mut()).chain(self.emulator.as_mut())
    }

    /// Waits until the emulator has ended by itself, as it does when its system switches the machine off.
    pub async fn emulator_ended(&mut self) {
        let Some(emulator) = &mut self.emulator else { return std::future::pending().await };
        match emulator.wait().await {
            Ok(status) if status.success() => {}
            Ok(status) => warn!(%status, "an emulator failed"),
            Err(error) => warn!(%error, "cannot wait for an emulator"),
        }
        self.emulator = None;
    }

    fn signal(&mut self, signal: Signal) {
        self.all().for_each(|child| send(child, signal));
    }

    /// Stops all (SIGSTOP).
    pub fn stop(&mut self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets all go on (SIGCONT).
    pub fn go_on(&mut self) {
        self.signal(Signal::SIGCONT);
    }

    /// Stops the agent only.
    pub fn stop_agent(&mut self) {
        if let Some(agent) = &self.agent {
            send(agent, Signal::SIGSTOP);
        }
    }

    /// Asks all to end and waits for it, at most this long.
    pub async fn end(&mut self, wait_max: Duration) {
        self.signal(Signal::SIGTERM);
        let all_ended = async {
            for child in self.all() {
                report(child.wait().await.map(drop));
            }
        };
        if timeout(wait_max, all_ended).await.is_err() {
            warn!("processes of a machine did not end when asked to");
        }
    }

    /// Kills all and reaps them. SIGKILL also ends what is stopped.
    pub async fn kill(&mut self) {
        for child in self.all() {
            report(child.start_kill());
        }
        for child in self.all() {
            report(child.wait().await.map(drop));
        }
        *self = Programs::default();
    }
}

fn send(child: &Child, signal: Signal) {
    // A child without a pid has been reaped.
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(pid) = pid {
        report(kill(Pid::from_raw(pid), signal).map_err(io::Error::from));
    }
}

fn report(result: io::Result<()>) {
    if let Err(error) = result {
        warn!(%error, "cannot control a process of a machine");
    }
}
