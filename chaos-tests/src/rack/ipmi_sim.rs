//! OpenIPMI's `ipmi_sim` in place of our BMCs.
//!
//! What this is: one `ipmi_sim` process a machine, whose chassis program calls the rack's control API back.
//! Why it exists: a BMC that somebody else wrote is the better witness that we speak IPMI.
//! What it never does: cipher suite 17; ipmi_sim has none (facts/lab.md §1).

use super::description::{Description, MachineDescription};
use super::locked;
use super::offspring::Offspring;
use fencing::ipmi::codec::{self, LanMessage};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use policies::NodeId;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

/// How long ipmi_sim may take to start; it reads files and opens a socket.
const START_MAX: Duration = Duration::from_secs(10);
/// When a BMC that does not listen yet is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// The running simulators.
#[derive(Debug, Default)]
pub struct Simulators {
    running: Mutex<BTreeMap<NodeId, Child>>,
}

impl Simulators {
    /// Starts one for each machine; their files go below `dir`.
    ///
    /// # Errors
    /// If a file cannot be written, or an `ipmi_sim` does not answer, as when it is not installed.
    pub async fn start(
        description: &Description,
        dir: &Path,
        rack: &Path,
        offspring: &Offspring,
    ) -> io::Result<Self> {
        let mut running = BTreeMap::new();
        for machine in &description.machines {
            let files = std::path::absolute(dir.join("machines").join(machine.name.as_str()))?;
            write_files(machine, &files, &std::path::absolute(dir)?, &std::path::absolute(rack)?)?;
            let mut command = Command::new("ipmi_sim");
            command.arg("-n").arg("-c").arg(files.join("lan.conf")).arg("-f").arg(files.join("bmc.emu"));
            command.arg("-s").arg(&files).stdin(Stdio::null()).stdout(Stdio::null());
            running.insert(machine.name.clone(), offspring.spawn(command).await?);
        }
        for machine in &description.machines {
            answers(machine.bmc).await?;
        }
        Ok(Simulators { running: Mutex::new(running) })
    }

    /// Stops a machine's simulator or lets it go on: a BMC without supply, or dead, answers nothing.
    pub fn silence(&self, node: &NodeId, silent: bool) {
        let running = locked(&self.running);
        let pid = running.get(node).and_then(Child::id).and_then(|pid| i32::try_from(pid).ok());
        let signal = if silent { Signal::SIGSTOP } else { Signal::SIGCONT };
        if let Some(pid) = pid
            && let Err(error) = kill(Pid::from_raw(pid), signal)
        {
            warn!(%node, %error, "cannot control ipmi_sim");
        }
    }

    /// Kills all: ipmi_sim is slow to end when asked to (facts/lab.md).
    pub async fn stop(&self) {
        let running = std::mem::take(&mut *locked(&self.running));
        for (node, mut child) in running {
            if let Err(error) = child.kill().await {
                warn!(%node, %error, "cannot end ipmi_sim");
            }
        }
    }
}

/// Waits until a BMC answers the question that needs no session: what it can authenticate (IPMI 2.0 §22.13).
async fn answers(bmc: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    socket.connect(bmc).await?;
    let request = LanMessage::request(0x06, 0x38, 1, vec![0x8e, 4]);
    let datagram = codec::v15(&request).unwrap_or_default();
    let deadline = Instant::now() + START_MAX;
    let mut answer = [0; codec::DATAGRAM_MAX];
    while Instant::now() < deadline {
        // Before it listens, sending and receiving may be refused by the kernel; then the pause is all that happens.
        let exchange = async {
            socket.send(&datagram).await?;
            socket.recv(&mut answer).await
        };
        match timeout(ASK_AGAIN, exchange).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(_)) => sleep(ASK_AGAIN).await,
            Err(_) => {}
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("nothing answers at {bmc}")))
}

fn write_files(machine: &MachineDescription, files: &Path, dir: &Path, rack: &Path) -> io::Result<()> {
    let program = files.join("chassis");
    std::fs::write(&program, chassis_program(machine, dir, rack))?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700))?;
    std::fs::write(files.join("bmc.emu"), EMULATION)?;
    let lan = files.join("lan.conf");
    std::fs::write(&lan, lan_conf(machine, &program))?;
    std::fs::set_permissions(&lan, std::fs::Permissions::from_mode(0o600))
}

/// ipmi_sim calls `PROGRAM ... get power` and expects `power:1`; `set power 0`; `set reset 1`; `set shutdown 1`
/// (ipmi_sim_chassis_control(8)).
fn chassis_program(machine: &MachineDescription, dir: &Path, rack: &Path) -> String {
    format!(
        "#!/bin/sh\nexec '{}' chassis --dir '{}' '{}' \"$@\"\n",
        rack.display(),
        dir.display(),
        machine.name
    )
}

fn lan_conf(machine: &MachineDescription, program: &Path) -> String {
    let address = machine.bmc;
    format!(
        "name \"{name}\"\n\
         set_working_mc 0x20\n\
         \x20 startlan 1\n\
         \x20   addr {ip} {port}\n\
         \x20   priv_limit admin\n\
         \x20   allowed_auths_callback md5\n\
         \x20   allowed_auths_user md5\n\
         \x20   allowed_auths_operator md5\n\
         \x20   allowed_auths_admin md5\n\
         \x20   guid {guid}\n\
         \x20 endlan\n\
         \x20 chassis_control \"{program}\"\n\
         {sol}\
         \x20 user 1 false \"\" \"\" user 1 none\n\
         \x20 user 2 true \"{user}\" \"{password}\" admin 15 md5\n",
        name = machine.name,
        ip = address.ip(),
        port = address.port(),
        guid = machine.guid,
        program = program.display(),
        sol = machine.serial.map(|serial| format!("  sol \"tcp:{serial}\" 115200\n")).unwrap_or_default(),
        user = machine.user,
        password = machine.password.0,
    )
}

/// One management controller with a log of 1000 entries and a watchdog sensor.
const EMULATION: &str = "mc_setbmc 0x20\n\
    mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02\n\
    sel_enable 0x20 1000 0x0a\n\
    sensor_add 0x20 0 0 35 0x6f event-only\n\
    mc_enable 0x20\n";
