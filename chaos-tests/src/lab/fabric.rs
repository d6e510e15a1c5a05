//! The lab's network: a namespace of its own, a switch in it, and addresses for machines.
//!
//! Why it exists: cables that can be cut, and VLANs that really separate.
//! What it never does: touch an interface outside its namespace.

use super::{MACHINES, VLAN_INFRA, VLAN_PARK, VLAN_TENANT, at};
use crate::demo::DemoError;
use crate::demo::error::system;
use crate::demo::process::{Around, Process, Starter, answer};
use crate::demo::wait::{Look, until};
use crate::netns::{self, ip};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

const NAME: &str = "ha-lab";
/// Held while a lab is there; holds the pid of who has it.
const LOCK: &str = "/run/lock/ha-lab";
/// The file of the namespace.
const FILE: &str = "/run/netns/ha-lab";
/// For a daemon to open its socket, on a busy computer.
const START_MAX: Duration = Duration::from_secs(20);
/// Open vSwitch's description of its database, where Debian has it.
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// The network namespace of the lab. Dropping it removes it.
pub struct Namespace {
    _lock: Flock<File>,
}

impl Namespace {
    /// Makes it and puts the calling thread into it: has to be called before a runtime has threads.
    ///
    /// # Errors
    /// [`DemoError`] without root, or if another lab is up.
    pub fn enter() -> Result<Namespace, DemoError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(DemoError::Unexpected(
                "the lab needs root: it makes a network of its own".to_owned(),
            ));
        }
        let lock = File::options().create(true).truncate(false).write(true).open(LOCK);
        let lock = lock.map_err(system(format!("make {LOCK}")))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
            system("begin a lab; another one is up (`make lab-down` ends it)")(errno.into())
        })?;
        fs::write(LOCK, std::process::id().to_string()).map_err(system(format!("write {LOCK}")))?;
        // A lab that was killed leaves its namespace.
        if Path::new(FILE).exists() {
            ip(&["netns", "del", NAME])?;
        }
        ip(&["netns", "add", NAME])?;
        let namespace = Namespace { _lock: lock };
        netns::enter(Path::new(FILE)).map_err(system(format!("enter {FILE}")))?;
        Ok(namespace)
    }

    /// Asks the lab that is up, if there is one, to end, and waits until it has. False if there was none.
    ///
    /// # Errors
    /// [`DemoError`] if it does not end within a minute.
    pub fn end() -> Result<bool, DemoError> {
        let Ok(lock) = File::options().write(true).open(LOCK) else { return Ok(false) };
        let lock = match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            Ok(_) => return Ok(false),
            Err((lock, _)) => lock,
        };
        let pid = fs::read_to_string(LOCK).map_err(system(format!("read {LOCK}")))?;
        let pid = pid.trim().parse().map_err(|_| DemoError::Unexpected(format!("{LOCK} holds no pid")))?;
        kill(Pid::from_raw(pid), Signal::SIGTERM).map_err(|errno| system("end the lab")(errno.into()))?;
        // Returns when whoever held it is gone, with all that it had.
        Flock::lock(lock, FlockArg::LockExclusive)
            .map_err(|(_, errno)| system("wait for the end of the lab")(errno.into()))?;
        Ok(true)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What cannot be removed now, the next lab removes.
        ip(&["netns", "del", NAME]).ok();
    }
}

/// A machine's cards, by the network that they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Card {
    /// Start, heartbeats, storage.
    Infra,
    /// The instance's own network.
    Tenant,
}

impl Card {
    pub(super) const ALL: [Card; 2] = [Card::Infra, Card::Tenant];

    /// The switch's port for it.
    pub(super) fn port(self, machine: u8) -> String {
        match self {
            Card::Infra => format!("i{machine}"),
            Card::Tenant => format!("t{machine}"),
        }
    }

    fn vlan(self) -> u16 {
        match self {
            Card::Infra => VLAN_INFRA,
            Card::Tenant => VLAN_PARK,
        }
    }
}

/// The switch and the DHCP server.
pub(super) struct Fabric {
    dir: PathBuf,
    pub(super) database: Process,
    daemon: Process,
    dhcp: Option<Process>,
}

impl Fabric {
    /// A switch with a port for each card, and everybody's addresses; the machines' cables are in.
    pub(super) async fn start(starter: &Starter, dir: &Path) -> Result<Fabric, DemoError> {
        ip(&["link", "set", "lo", "up"])?;
        // Members ask a machine's kernel by ICMP; a new namespace lets nobody do that.
        let echoes = "/proc/sys/net/ipv4/ping_group_range";
        fs::write(echoes, "0 2147483647").map_err(system(format!("write {echoes}")))?;
        let members = (1..=3).map(at::member_oob);
        let bmcs = (1..=MACHINES).map(|number| at::bmc(number).ip().to_string());
        let out_of_band = [at::SWITCH.to_string()].into_iter().chain(members.map(|ip| ip.to_string()));
        for address in out_of_band.chain(bmcs) {
            ip(&["addr", "add", &format!("{address}/24"), "dev", "lo"])?;
        }
        let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
        let (file, socket) = (path("conf.db"), path("db.sock"));
        answer(Path::new("ovsdb-tool"), ["create", &file, SCHEMA], &[]).await?;
        let around = Around { environment: vec![("OVS_RUNDIR".to_owned(), path(""))], ..Around::default() };
        let remotes = [
            format!("--remote=punix:{socket}"),
            format!("--remote=ptcp:{}:{}", at::OVSDB, at::SWITCH),
            format!("--unixctl={}", path("db.ctl")),
        ];
        let args = [file.as_str()].into_iter().chain(remotes.iter().map(String::as_str));
        let server = Path::new("ovsdb-server");
        let log = dir.join("ovsdb-server.log");
        let mut database = starter.start("the switch's database", server, args, &around, log).await?;
        let log = database.log().to_owned();
        until("the switch's database", START_MAX, &log, async || {
            database.check()?;
            Ok(if Path::new(&socket).exists() {
                Look::There(())
            } else {
                Look::NotYet("no socket".to_owned())
            })
        })
        .await?;
        vsctl(dir, &["--no-wait", "init"]).await?;
        let (remote, unixctl) = (format!("unix:{socket}"), format!("--unixctl={}", path("vs.ctl")));
        let args = [remote.as_str(), &unixctl, "--disable-system"];
        let log = dir.join("ovs-vswitchd.log");
        let daemon = starter.start("the switch", Path::new("ovs-vswitchd"), args, &around, log).await?;
        make_ports(dir).await?;
        Ok(Fabric { dir: dir.to_owned(), database, daemon, dhcp: None })
    }

    /// Gives machines their addresses, and the first script to start with.
    pub(super) async fn serve_dhcp(
        &mut self,
        starter: &Starter,
        busybox: &Path,
        first_script: &str,
    ) -> Result<(), DemoError> {
        let leases = self.dir.join("leases");
        fs::write(&leases, "").map_err(system(format!("write {}", leases.display())))?;
        let mut config = format!(
            "interface inf\nstart 10.78.0.200\nend 10.78.0.220\nlease_file {}\nopt subnet 255.255.255.0\n\
             boot_file {first_script}\n",
            leases.display()
        );
        for number in 1..=MACHINES {
            config += &format!("static_lease {} {}\n", at::boot_mac(number), at::machine(number));
        }
        let file = self.dir.join("udhcpd.conf");
        fs::write(&file, config).map_err(system(format!("write {}", file.display())))?;
        let args = ["udhcpd".as_ref(), "-f".as_ref(), file.as_os_str()];
        let log = self.dir.join("udhcpd.log");
        self.dhcp = Some(starter.start("the DHCP server", busybox, args, &Around::default(), log).await?);
        Ok(())
    }

    /// Opens a port by hand, as when an instance was set up.
    pub(super) async fn open(&self, port: &str, vlan: u16) -> Result<(), DemoError> {
        let tag = format!("tag={vlan}");
        vsctl(&self.dir, &["set", "port", port, &tag, "vlan_mode=access", "protected=false"]).await
    }

    /// Pulls a cable, or plugs it in.
    pub(super) fn plug(machine: u8, card: Card, is_in: bool) -> Result<(), DemoError> {
        ip(&["link", "set", &card.port(machine), if is_in { "up" } else { "down" }])
    }

    pub(super) fn check(&mut self) -> Result<(), DemoError> {
        self.database.check()?;
        self.daemon.check()?;
        self.dhcp.as_mut().map_or(Ok(()), Process::check)
    }

    pub(super) fn into_processes(self) -> impl Iterator<Item = Process> {
        [self.daemon, self.database].into_iter().chain(self.dhcp)
    }
}

async fn make_ports(dir: &Path) -> Result<(), DemoError> {
    vsctl(dir, &["add-br", "sw0", "--", "set", "bridge", "sw0", "datapath_type=netdev"]).await?;
    for (name, vlan) in [("inf", VLAN_INFRA), ("ten", VLAN_TENANT)] {
        let tag = format!("tag={vlan}");
        vsctl(dir, &["add-port", "sw0", name, &tag, "--", "set", "interface", name, "type=internal"]).await?;
        ip(&["link", "set", name, "up"])?;
    }
    for address in [at::STORAGE].into_iter().chain((1..=3).map(at::member_infra)) {
        ip(&["addr", "add", &format!("{address}/24"), "dev", "inf"])?;
    }
    ip(&["addr", "add", &format!("{}/24", at::CLIENT), "dev", "ten"])?;
    for number in 1..=MACHINES {
        for card in Card::ALL {
            let (port, tag) = (card.port(number), format!("tag={}", card.vlan()));
            ip(&["tuntap", "add", &port, "mode", "tap"])?;
            Fabric::plug(number, card, true)?;
            vsctl(dir, &["add-port", "sw0", &port, &tag]).await?;
        }
    }
    Ok(())
}

async fn vsctl(dir: &Path, words: &[&str]) -> Result<(), DemoError> {
    let database = format!("--db=unix:{}", dir.join("db.sock").display());
    let words = ["--timeout=20", &database].into_iter().chain(words.iter().copied());
    answer(Path::new("ovs-vsctl"), words, &[]).await.map(drop)
}
