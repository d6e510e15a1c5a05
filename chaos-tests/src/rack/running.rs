//! A running rack.
//!
//! What this is: everything of a rack put together and started, and taken apart again.
//! Why it exists: the `rack` binary and tests start the same thing.
//! What it never does: it starts no supervisor.

use super::api::{self, Api};
use super::array_server::{self, Connections};
use super::bmc::{self, Account};
use super::chassis::Chassis;
use super::description::{BmcKind, Description, MachineDescription};
use super::fault::Fault;
use super::ipmi_sim::Simulators;
use super::journal::Journal;
use super::machine::{Life, Machine, Order};
use super::offspring::Offspring;
use super::software::Software;
use super::world::{MachineStatus, Report, Status, World};
use super::{kernel, locked, nic, unhex};
use fencing::ipmi::crypto::{Key, UserName};
use policies::NodeId;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tracing::error;

/// How long the machines are given to go off when the rack stops.
const STOP_MAX: Duration = Duration::from_secs(5);

/// How long a machine may take to start its programs, on top of the boot delay.
const BOOT_MAX: Duration = Duration::from_secs(10);

/// The programs that a rack starts.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// This project's `rack`.
    pub rack: PathBuf,
    /// This project's `ha-agent`; `None`: the machines have no agents.
    pub agent: Option<PathBuf>,
}

impl Binaries {
    /// The programs beside `rack`, where cargo puts them.
    pub fn beside(rack: &Path) -> Self {
        let agent = rack.with_file_name("ha-agent");
        Binaries { rack: rack.to_owned(), agent: agent.exists().then_some(agent) }
    }
}

/// Why a rack does not start.
#[derive(Debug, thiserror::Error)]
pub enum RackError {
    /// The system refused something.
    #[error("{doing}")]
    System {
        /// What we were doing.
        doing: String,
        /// Why not.
        source: io::Error,
    },
    /// A value in the description cannot be used.
    #[error("{node}: its {what} cannot be used")]
    Value {
        /// Whose.
        node: NodeId,
        /// Which.
        what: &'static str,
    },
}

fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> RackError {
    let doing = doing.into();
    move |source| RackError::System { doing, source }
}

/// Machines and what they share.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) world: Arc<World>,
    pub(super) machines: BTreeMap<NodeId, Chassis>,
    simulators: Simulators,
}

impl Site {
    /// Lets a fault happen. False if there is no such machine.
    pub(super) async fn fault(&self, node: &NodeId, fault: Fault) -> bool {
        let Some(chassis) = self.machines.get(node) else { return false };
        let machine = chassis.machine();
        self.world.note(format!("{node} {fault}"));
        match fault {
            Fault::PowerOn if self.world.cables(node).is_some_and(|cables| cables.supply) => {
                machine.order(Order::PowerOn).await;
            }
            // There is nothing to switch on with.
            Fault::PowerOn => {}
            Fault::PowerOff => machine.order(Order::PowerOff { after: Duration::ZERO }).await,
            Fault::Hang => machine.order(Order::Hang).await,
            Fault::Panic { gasp } => machine.order(Order::Panic { gasp }).await,
            Fault::Freeze => machine.order(Order::Freeze).await,
            Fault::Thaw => machine.order(Order::Thaw).await,
            Fault::StopAgent => machine.order(Order::StopAgent).await,
            Fault::PowerLoss => {
                self.world.cut_supply(node);
                machine.order(Order::PowerOff { after: Duration::ZERO }).await;
            }
            Fault::CutNic { path } => self.world.cut(node, path),
            Fault::Heal => {
                self.world.plug_in(node);
                chassis.change_mood(super::fault::MoodChange::Ok);
            }
            Fault::BmcMood { mood } => chassis.change_mood(mood),
        }
        let supplied = self.world.cables(node).is_some_and(|cables| cables.supply);
        self.simulators.silence(node, chassis.mood().dead || !supplied);
        true
    }

    pub(super) fn status(&self) -> Status {
        let description = self.world.description();
        let machines = self.machines.iter().filter_map(|(node, chassis)| {
            let status = MachineStatus {
                life: chassis.machine().life(),
                reported: chassis.power(),
                mood: chassis.mood(),
                cables: self.world.cables(node)?,
                boots: locked(&self.world.boot).answer(node).cloned(),
            };
            Some((node.clone(), status))
        });
        let volumes = description.instances.iter().filter_map(|instance| {
            let state = locked(&self.world.array).state(&instance.volume).ok()?;
            Some((instance.volume.clone(), state))
        });
        let ports = description.machines.iter().flat_map(|machine| &machine.ports).filter_map(|port| {
            let state = locked(&self.world.switch).state(port).ok()?;
            Some((port.clone(), state))
        });
        Status { machines: machines.collect(), volumes: volumes.collect(), ports: ports.collect() }
    }
}

/// A running rack. Dropping it ends its processes without ceremony; [`Rack::stop`] waits for their end.
#[derive(Debug)]
pub struct Rack {
    site: Arc<Site>,
    array: SocketAddr,
    tasks: JoinSet<()>,
}

impl Rack {
    /// Starts a rack; files of its machines go below `dir`. Machines with an instance boot, spares stay off. With
    /// `ipmi_sim`, whose chassis program is told where the rack is by its file, the description has to be written
    /// to `dir` first.
    ///
    /// # Errors
    /// [`RackError`] if an address is taken, a program is missing or the description has an unusable value.
    pub async fn start(description: Description, dir: &Path, binaries: Binaries) -> Result<Self, RackError> {
        let world = Arc::new(World::new(description));
        let mut tasks = JoinSet::new();
        let connections = Connections::default();
        let array = array_server::serve(&mut tasks, world.clone(), connections.clone())
            .await
            .map_err(system("serve the storage array"))?;
        let offspring = Offspring::start().map_err(system("start the forking thread"))?;
        let api = world.description().api;
        let listener =
            TcpListener::bind(api).await.map_err(system(format!("serve the control API at {api}")))?;

        let builder =
            Builder { world: world.clone(), dir, binaries: &binaries, offspring, array: array.to_string() };
        let mut machines = BTreeMap::new();
        for machine in &world.description().machines {
            let chassis = builder.machine(&mut tasks, machine).await?;
            machines.insert(machine.name.clone(), chassis);
        }
        let simulators = match world.description().bmc {
            BmcKind::Own => Simulators::default(),
            BmcKind::IpmiSim => {
                Simulators::start(world.description(), dir, &binaries.rack, &builder.offspring)
                    .await
                    .map_err(system("start ipmi_sim (Debian: apt-get install openipmi)"))?
            }
        };
        let site = Arc::new(Site { world, machines, simulators });
        let router = api::router(Api { site: site.clone(), connections });
        tasks.spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                error!(%error, "the control API ended");
            }
        });
        let rack = Rack { site, array, tasks };
        rack.boot_instances().await?;
        Ok(rack)
    }

    async fn boot_instances(&self) -> Result<(), RackError> {
        let rack = self.description();
        let deadline = Instant::now() + Duration::from_millis(rack.boot_delay.0) + BOOT_MAX;
        for instance in &rack.instances {
            if let Some(chassis) = self.site.machines.get(&instance.node) {
                chassis.machine().order(Order::PowerOn).await;
            }
        }
        for instance in &rack.instances {
            if !self.reaches(&instance.node, Life::Running, deadline).await {
                let late = io::Error::from(io::ErrorKind::TimedOut);
                return Err(system(format!("boot {}", instance.node))(late));
            }
        }
        Ok(())
    }

    /// How it was described.
    pub fn description(&self) -> &Description {
        self.site.world.description()
    }

    /// Where the storage array listens.
    pub fn array(&self) -> SocketAddr {
        self.array
    }

    /// Lets a fault happen to a machine. False if there is no such machine.
    pub async fn fault(&self, node: &NodeId, fault: Fault) -> bool {
        self.site.fault(node, fault).await
    }

    /// Changes how array, switch and boot service answer.
    pub fn device_mood(&self, mood: super::fault::DeviceMood) {
        *locked(&self.site.world.device_mood) = mood;
    }

    /// The rack as it is now.
    pub fn status(&self) -> Status {
        self.site.status()
    }

    /// What the array has seen.
    pub fn report(&self) -> Report {
        self.site.world.report()
    }

    /// What a judge needs to know of all that happened.
    pub fn journal(&self) -> Journal {
        self.site.world.journal()
    }

    /// Waits until a machine leads a certain life. False if the deadline passes first or there is no such machine.
    pub async fn reaches(&self, node: &NodeId, wanted: Life, deadline: Instant) -> bool {
        let Some(chassis) = self.site.machines.get(node) else { return false };
        let mut life = chassis.machine().watch();
        let reached = timeout_at(deadline, life.wait_for(|life| *life == wanted)).await;
        matches!(reached, Ok(Ok(_)))
    }

    /// Switches all machines off, waits until their processes are gone, and ends.
    pub async fn stop(mut self) {
        let deadline = Instant::now() + STOP_MAX;
        let mut ends = JoinSet::new();
        for chassis in self.site.machines.values() {
            let machine = chassis.machine().clone();
            ends.spawn(async move { machine.order(Order::PowerOff { after: Duration::ZERO }).await });
        }
        if timeout_at(deadline, ends.join_all()).await.is_err() {
            error!("some processes did not end; they are killed when the rack is gone");
        }
        self.site.simulators.stop().await;
        self.tasks.shutdown().await;
    }
}

/// Puts machines together.
struct Builder<'a> {
    world: Arc<World>,
    dir: &'a Path,
    binaries: &'a Binaries,
    offspring: Offspring,
    array: String,
}

impl Builder<'_> {
    async fn machine(
        &self,
        tasks: &mut JoinSet<()>,
        described: &MachineDescription,
    ) -> Result<Chassis, RackError> {
        let (node, rack) = (&described.name, self.world.description());
        let software = self.software(tasks, described).await?;
        let boot_delay = Duration::from_millis(rack.boot_delay.0);
        let machine = Machine::install(boot_delay, software);
        kernel::listen(tasks, &self.world, node, machine.clone(), described.probe)
            .await
            .map_err(system(format!("let the kernel of {node} answer at {}", described.probe)))?;
        let chassis = Chassis::new(machine);
        match rack.bmc {
            BmcKind::Own => {
                let address = described.bmc;
                bmc::install(tasks, &self.world, node, chassis.clone(), account(described)?, address)
                    .await
                    .map_err(system(format!("put the BMC of {node} at {address}")))?;
            }
            BmcKind::IpmiSim => {}
        }
        Ok(chassis)
    }

    async fn software(
        &self,
        tasks: &mut JoinSet<()>,
        described: &MachineDescription,
    ) -> Result<Software, RackError> {
        let (node, rack) = (&described.name, self.world.description());
        let dir = self.dir.join("machines").join(node.as_str());
        std::fs::create_dir_all(&dir).map_err(system(format!("make directory {}", dir.display())))?;
        let mut paths = Vec::new();
        for (index, name) in ["a", "b"].into_iter().enumerate() {
            let ways = nic::plug(tasks, &self.world, node, index, &rack.members)
                .await
                .map_err(system(format!("plug network {name} of {node} in")))?;
            paths.push((name.to_owned(), ways));
        }
        Ok(Software {
            node: node.clone(),
            dir,
            rack: self.binaries.rack.clone(),
            // An agent without a member to talk to does not start.
            agent: self.binaries.agent.clone().filter(|_| !rack.members.is_empty()),
            agent_key: described.agent_key.0.clone(),
            heartbeat: rack.heartbeat,
            write_every: rack.write_every,
            paths,
            array: self.array.clone(),
            initiator: described.initiator.clone(),
            offspring: self.offspring.clone(),
            world: self.world.clone(),
            emulator: described.emulator.clone(),
            serial: described.serial,
        })
    }
}

fn account(described: &MachineDescription) -> Result<Account, RackError> {
    let unusable = |what| RackError::Value { node: described.name.clone(), what };
    Ok(Account {
        guid: unhex(&described.guid).ok_or_else(|| unusable("GUID"))?,
        user: UserName::new(described.user.as_bytes()).ok_or_else(|| unusable("user"))?,
        password: Key::from_secret(described.password.0.as_bytes()).ok_or_else(|| unusable("password"))?,
    })
}
