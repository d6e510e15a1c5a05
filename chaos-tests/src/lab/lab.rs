//! One lab: everything put together and started, what can be done to it, and what is waited for.
//!
//! Why it exists: a trial reads as what happens. What it never does: wait for a fixed time without looking, or judge.

use super::fabric::{Card, Fabric};
use super::guest::{self, Files, Guest};
use super::storage::Storage;
use super::{INSTANCES, MACHINES, VLAN_TENANT, at, documents};
use crate::demo::cluster::Cluster;
use crate::demo::error::system;
use crate::demo::ground::Seat;
use crate::demo::process::{Starter, answer, end_all};
use crate::demo::wait::Look;
use crate::demo::watched::{Watched, told};
use crate::demo::{DemoError, Home};
use crate::rack::{Binaries, BmcKind, Description, Fault, MoodChange, Rack, RackSpec};
use policies::{MemberId, NodeId, NodeState, causes};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use supervisor::api::answers::NodeLine;

/// How long a spare may take to start: as long.
pub(super) const START_DEADLINE: &str = "5m";
/// How long everything may take to end when it is asked to; then it is killed.
const END_MAX: Duration = Duration::from_secs(10);
/// Counts of the new node that are awaited after the first: a second writer would be seen among them.
pub(super) const COUNTS_AFTER_MIN: u64 = 20;

/// A lab that is up. Dropping it kills everything that it started.
pub struct Lab {
    pub(super) dir: PathBuf,
    pub(super) members: Watched,
    pub(super) rack: Rack,
    pub(super) fabric: Fabric,
    pub(super) storage: Storage,
    _files: Files,
}

impl Lab {
    /// Builds it; returns when both instances serve and the cluster is armed. Has to be called inside a [`super::Namespace`].
    ///
    /// # Errors
    /// [`DemoError`] with what did not come, or did not start.
    pub async fn build(home: &Home, tell: &dyn Fn(&str)) -> Result<Lab, DemoError> {
        let ha_storage = home.program("ha-storage");
        if !ha_storage.exists() {
            return Err(DemoError::NotBuilt(ha_storage));
        }
        tell("the guests' system, from Debian's packages");
        let target = home.dir().parent().unwrap_or(home.dir());
        let guest = Guest::build(&target.join("guest"))?;
        tell("Open vSwitch, tgt");
        let starter = Starter::new(home.program("rack"))?;
        let mut fabric = Fabric::start(&starter, &home.room("fabric")?).await?;
        let storage = Storage::start(&starter, &home.room("storage")?, &ha_storage).await?;
        tell("three members");
        let dir = home.room("members")?;
        let cluster = Cluster::start(home, &dir, &starter, seats(), Box::new(serve_boot)).await?;
        let members = Watched::new(cluster)?;
        tell("four machines with their BMCs");
        let rack_dir = home.room("rack")?;
        let description = describe(&rack_dir)?;
        let machines = description.machines.clone();
        let binaries = Binaries { rack: home.program("rack"), agent: None };
        let rack = Rack::start(description, &rack_dir, binaries).await;
        let rack = rack.map_err(|error| DemoError::Unexpected(causes(&error)))?;
        let inventory = documents::inventory(&machines, &storage.ca, &storage.token);
        introduce(&members, &home.dir().join("inventory.toml"), &inventory).await?;
        let first_script = first_script(&members).await?;
        let disks = home.room("disks")?;
        let agent = home.program("ha-agent");
        let files = Files::serve(&guest, &machines, &agent, &disks, first_script).await?;
        fabric.serve_dhcp(&starter, &guest.busybox(), &Files::url("start")).await?;
        let lab = Lab { dir: home.dir().to_owned(), members, rack, fabric, storage, _files: files };
        tell("web-1 on node-1, web-2 on node-2: they start from the network");
        lab.begin().await?;
        Ok(lab)
    }

    /// Places the instances, as somebody did by hand before there was a supervisor, and arms it once they are seen.
    async fn begin(&self) -> Result<(), DemoError> {
        for number in 1..=INSTANCES {
            self.storage.give(number, number).await?;
            self.fabric.open(&Card::Tenant.port(number), VLAN_TENANT).await?;
            self.fault(number, Fault::PowerOn).await?;
        }
        for number in 1..=INSTANCES {
            self.served(number, |_| true).await?;
        }
        self.await_health().await?;
        self.members.cluster.hactl(["arm", "--reason", "the lab is up"]).await.map(drop)
    }

    // --- what is done ---

    pub(super) async fn fault(&self, machine: u8, fault: Fault) -> Result<(), DemoError> {
        match self.rack.fault(&node(machine)?, fault).await {
            true => Ok(()),
            false => Err(DemoError::Unexpected(format!("the rack has no machine {machine}"))),
        }
    }

    pub(super) async fn mood(&self, machine: u8, mood: MoodChange) -> Result<(), DemoError> {
        self.fault(machine, Fault::BmcMood { mood }).await
    }

    /// Lets a spare wait hot, and returns which.
    pub(super) async fn warm(&self) -> Result<u8, DemoError> {
        let spares = self.members.nodes().await?;
        let spare = spares.iter().find(|line| line.state == NodeState::Spare);
        let machine = spare.and_then(|line| number(&line.name));
        let machine = machine.ok_or_else(|| DemoError::Unexpected("there is no spare".to_owned()))?;
        let before = self.console(machine).map_or(0, |console| console.len());
        self.fault(machine, Fault::PowerOn).await?;
        self.waits_hot(machine).await?;
        // Members hear it earlier than that: it has now fetched what can be fetched beforehand.
        self.members
            .look(&format!("node-{machine} to say that it waits"), async || {
                let console = self.console(machine)?;
                let said = console.get(before..).unwrap_or_default();
                Ok(match said.contains("ha-agent: waits as a hot spare") {
                    true => Look::There(()),
                    false => Look::NotYet("it has not said so".to_owned()),
                })
            })
            .await?;
        Ok(machine)
    }

    /// Makes everything whole again: cables, BMCs, and nodes that were fenced become spares, all off. As an operator would,
    /// who sees to it that they are.
    pub(super) async fn repair(&self) -> Result<(), DemoError> {
        for number in 1..=MACHINES {
            for card in Card::ALL {
                Fabric::plug(number, card, true)?;
            }
            self.fault(number, Fault::Heal).await?;
        }
        for line in self.members.nodes().await? {
            let name = line.name.to_string();
            match line.state {
                NodeState::Quarantined { .. } => {
                    self.rack.fault(&line.name, Fault::PowerOff).await;
                    self.members.cluster.hactl(["node", "release", &name, "--reason", "repaired"]).await?;
                }
                NodeState::Spare => drop(self.rack.fault(&line.name, Fault::PowerOff).await),
                NodeState::Active { .. }
                | NodeState::Reserved { .. }
                | NodeState::Fencing { .. }
                | NodeState::Cleaning { .. } => {}
            }
            if line.cordoned {
                self.members.cluster.hactl(["node", "uncordon", &name]).await?;
            }
        }
        self.members
            .look("every node to be whole again", async || {
                let nodes = self.members.nodes().await?;
                let is_off = |line: &&NodeLine| line.power.as_deref() == Some("off");
                let spares = nodes.iter().filter(|line| line.state == NodeState::Spare).filter(is_off);
                Ok(match spares.count() {
                    spares if spares == usize::from(MACHINES - INSTANCES) => Look::There(()),
                    _ => Look::NotYet(told(&nodes)),
                })
            })
            .await?;
        self.await_health().await
    }

    /// Makes sure that everything still runs that should.
    pub(super) fn check(&mut self) -> Result<(), DemoError> {
        self.fabric.check()?;
        self.storage.check()?;
        self.members.cluster.check()
    }

    /// The file that tells `hactl` where the cluster is.
    pub fn context(&self) -> &Path {
        self.members.cluster.context()
    }

    /// Ends everything, in order.
    ///
    /// # Errors
    /// If something cannot be ended.
    pub async fn end(self) -> Result<(), DemoError> {
        self.rack.stop().await;
        let processes = self.members.into_processes().chain(self.storage.into_processes());
        end_all(processes.chain(self.fabric.into_processes()).collect(), END_MAX).await
    }
}

pub(super) fn node(machine: u8) -> Result<NodeId, DemoError> {
    format!("node-{machine}").parse().map_err(DemoError::Name)
}

/// Of which machine this is the name.
pub(super) fn number(node: &NodeId) -> Option<u8> {
    node.as_str().rsplit('-').next()?.parse().ok()
}

fn seats() -> std::collections::BTreeMap<MemberId, Seat> {
    let seat = |number: u8| {
        let oob = |port| SocketAddr::from((at::member_oob(number), port));
        let heartbeat = SocketAddr::from((at::member_infra(number), 7300));
        (MemberId(u64::from(number)), Seat::new(oob(7100), oob(7200), heartbeat))
    };
    (1..=3).map(seat).collect()
}

/// Lets each member serve what machines start with.
fn serve_boot(members: &Path) -> Result<(), DemoError> {
    for number in 1..=3 {
        let file = members.join(format!("m{number}")).join("config.toml");
        let doing = || system(format!("let member {number} serve machines, in {}", file.display()));
        let text = std::fs::read_to_string(&file).map_err(doing())?;
        let listen = format!("[member]\nboot_listen = \"{}:{}\"\n", at::member_infra(number), at::BOOT);
        std::fs::write(&file, text.replacen("[member]\n", &listen, 1)).map_err(doing())?;
    }
    Ok(())
}

/// Machines with BMCs of OpenIPMI's, all off.
fn describe(dir: &Path) -> Result<Description, DemoError> {
    let policy = "quick".parse().map_err(DemoError::Name)?;
    let spec = RackSpec {
        machines: usize::from(MACHINES),
        spares: usize::from(MACHINES),
        address: at::SWITCH.into(),
        bmc: BmcKind::IpmiSim,
        suite: 3,
        ..RackSpec::new(policy, vec![])
    };
    let mut description = Description::draw(&spec).map_err(DemoError::Description)?;
    for (number, machine) in (1..=MACHINES).zip(&mut description.machines) {
        machine.bmc = at::bmc(number);
        machine.initiator = at::initiator(number);
        machine.emulator = guest::emulator(number);
        machine.serial = Some(at::serial(number));
    }
    // `ipmi_sim` finds the rack by its file.
    description.write(dir).map_err(DemoError::Description)?;
    Ok(description)
}

/// Tells the cluster what there is. The limits are those of a computer on which four machines are emulated, and a brake that
/// holds after the third failover in ten minutes would end every test.
async fn introduce(members: &Watched, file: &Path, inventory: &str) -> Result<(), DemoError> {
    members.apply(file, inventory).await?;
    let start_deadline = format!("takeover.start_deadline={START_DEADLINE}");
    let limits = [
        "detection.suspect_after=2s",
        "fencing.power_effect_max=5s",
        &start_deadline,
        "takeover.kexec_max=90s",
        "brakes.fences_per_10min_max=1000",
        "brakes.hold_above_failed=1000",
        "brakes.hold_above_failed_per_domain=1000",
    ];
    members.set_policy(&limits, "a laboratory on one computer").await
}

/// What machines start with; the same whoever is asked, and so it is kept: no member may be needed for it.
async fn first_script(members: &Watched) -> Result<String, DemoError> {
    let url = documents::first_script_url();
    members
        .look("the boot service", async || {
            let words = ["--silent", "--show-error", "--fail-with-body", &url];
            Ok(match answer(Path::new("curl"), words, &[]).await {
                Ok(script) => Look::There(script),
                Err(error) => Look::NotYet(causes(&error)),
            })
        })
        .await
}
