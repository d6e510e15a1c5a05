//! The rack's shared state: devices, cables, supply, and what has happened.
//!
//! Why it exists: whether a datagram passes depends on cable, supply and switch port at once; here is the one place
//! that knows all three.
//! What it never does: no input or output of its own.

use super::array::{Array, VolumeReport};
use super::boot::BootService;
use super::description::Description;
use super::fault::{DeviceMood, Mood, Path};
use super::journal::{Change, Journal};
use super::locked;
use super::machine::Life;
use super::switch::Switch;
use policies::{InstanceId, LogIndex, Network, NodeId, Power, Vlans, VolumeId, Wall};
use provisioning::rack::{Assignment, Link, PortChange, PortSetting, PortState, VolumeState};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::time::Instant;

/// Events kept for the report; older ones are forgotten, so that a rack can run for days.
const EVENTS_MAX: usize = 10_000;

/// Which of a machine's cables are plugged in, and whether it has a supply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cables {
    /// First network.
    pub a: bool,
    /// Second network.
    pub b: bool,
    /// The way to the storage array.
    pub storage: bool,
    /// Mains.
    pub supply: bool,
    /// How often the mains were lost.
    pub supply_losses: u32,
}

impl Cables {
    const NEW: Cables = Cables { a: true, b: true, storage: true, supply: true, supply_losses: 0 };
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, ns since the rack's start.
    pub at: u64,
    /// A sentence.
    pub text: String,
}

/// What the rack knows of every failover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Wall clock at the rack's start; times in the report count from here, in ns.
    pub started: Wall,
    /// Now, ns.
    pub now: u64,
    /// Sum over all volumes.
    pub lost_writes: u64,
    /// Sum over all volumes.
    pub overlapping_writes: u64,
    /// Each volume.
    pub volumes: Vec<VolumeReport>,
    /// Faults and changes, oldest first.
    pub events: Vec<Event>,
}

/// The rack as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Each machine.
    pub machines: BTreeMap<NodeId, MachineStatus>,
    /// Each volume.
    pub volumes: BTreeMap<VolumeId, VolumeState>,
    /// Each switch port.
    pub ports: BTreeMap<String, PortState>,
}

/// A machine as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineStatus {
    /// What it really does.
    pub life: Life,
    /// What its BMC reads.
    pub reported: Power,
    /// Its BMC's mood.
    pub mood: Mood,
    /// Its cables.
    pub cables: Cables,
    /// What the boot service would let it run.
    pub boots: Option<Assignment>,
}

/// The shared state.
#[derive(Debug)]
pub struct World {
    started: Instant,
    started_wall: Wall,
    /// The storage array.
    pub array: Mutex<Array>,
    /// The switch.
    pub switch: Mutex<Switch>,
    /// The boot service.
    pub boot: Mutex<BootService>,
    /// How these three answer.
    pub device_mood: Mutex<DeviceMood>,
    cables: Mutex<BTreeMap<NodeId, Cables>>,
    events: Mutex<VecDeque<Event>>,
    journal: Mutex<Journal>,
    description: Description,
    changed: watch::Sender<()>,
}

impl World {
    /// The rack as described, before anything happened: instances on their nodes, spares with closed ports.
    pub fn new(description: Description) -> Self {
        let placed = |node: &NodeId| description.instances.iter().find(|instance| instance.node == *node);
        let ports = description.machines.iter().flat_map(|machine| {
            let settings = placed(&machine.name).map(|instance| instance.networks.clone());
            machine.ports.iter().enumerate().map(move |(index, port)| {
                let network = settings.as_ref().and_then(|networks| networks.get(index));
                let open = |Vlans { vlan, tagged, mac }| PortSetting::Open { vlan, tagged, mac };
                let vlans = network.and_then(Network::vlans).cloned();
                (port.clone(), vlans.map_or(PortSetting::Closed, open))
            })
        });
        let ports: Vec<(String, PortSetting)> = ports.collect();
        let volumes = description.instances.iter().map(|instance| {
            let holder = description.machine(&instance.node).map(|machine| machine.initiator.clone());
            (instance.volume.clone(), holder)
        });
        let boots = description.machines.iter().map(|machine| {
            let assignment = placed(&machine.name).map(|instance| Assignment {
                instance: instance.name.clone(),
                image: instance.image.clone(),
                epoch: policies::Epoch(1),
            });
            (machine.name.clone(), assignment)
        });
        let cables = description.machines.iter().map(|machine| (machine.name.clone(), Cables::NEW));
        let (now, since_1970) =
            (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
        let array = Array::new(description.exclusive_volumes, volumes);
        World {
            // Counted from a whole millisecond, so that the times of the report can be compared with others exactly.
            started: now
                .checked_sub(Duration::from_nanos(u64::from(since_1970.subsec_nanos()) % 1_000_000))
                .unwrap_or(now),
            started_wall: Wall(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)),
            journal: Mutex::new(at_first(&description, &array, &ports)),
            array: Mutex::new(array),
            switch: Mutex::new(Switch::new(ports)),
            boot: Mutex::new(BootService::new(boots)),
            device_mood: Mutex::default(),
            cables: Mutex::new(cables.collect()),
            events: Mutex::default(),
            changed: watch::channel(()).0,
            description,
        }
    }

    /// Nanoseconds since the rack's start.
    pub fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// How the rack was described.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The volumes of an instance.
    pub fn volumes(&self, instance: &InstanceId) -> Vec<VolumeId> {
        let of_it = self.description.instances.iter().filter(|known| known.name == *instance);
        of_it.map(|known| known.volume.clone()).collect()
    }

    /// Notes what happened.
    pub fn note(&self, text: String) {
        let mut events = locked(&self.events);
        if events.len() == EVENTS_MAX {
            events.pop_front();
        }
        events.push_back(Event { at: self.now(), text });
    }

    /// Notes a change for whoever judges; within the same lock as the change, if others could come between.
    pub fn record(&self, change: Change) {
        let mut journal = locked(&self.journal);
        journal.add(self.now(), change);
    }

    /// What was recorded.
    pub fn journal(&self) -> Journal {
        locked(&self.journal).clone()
    }

    /// Does something to a volume, and records whose writes arrive since then, or no longer.
    pub fn on_volume<T>(&self, volume: &VolumeId, act: impl FnOnce(&mut Array) -> T) -> T {
        let mut array = locked(&self.array);
        let before = array.reach(volume);
        let done = act(&mut array);
        let after = array.reach(volume);
        for initiator in before.symmetric_difference(&after) {
            let (volume, initiator) = (volume.clone(), initiator.clone());
            let open = after.contains(&initiator);
            self.record(Change::Reach { volume, initiator, open });
        }
        done
    }

    /// Wakes whoever watches cables and ports.
    pub fn rewired(&self) {
        self.changed.send_replace(());
    }

    /// Told of each change of cables and ports.
    pub fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The cables of a node.
    pub fn cables(&self, node: &NodeId) -> Option<Cables> {
        locked(&self.cables).get(node).copied()
    }

    /// Pulls a cable.
    pub fn cut(&self, node: &NodeId, path: Path) {
        self.set_cables(node, |cables| match path {
            Path::A => cables.a = false,
            Path::B => cables.b = false,
            Path::All => (cables.a, cables.b) = (false, false),
            Path::Storage => cables.storage = false,
        });
    }

    /// Takes the supply away.
    pub fn cut_supply(&self, node: &NodeId) {
        self.set_cables(node, |cables| {
            cables.supply = false;
            cables.supply_losses += 1;
        });
    }

    /// Plugs everything in.
    pub fn plug_in(&self, node: &NodeId) {
        self.set_cables(node, |cables| {
            *cables = Cables { supply_losses: cables.supply_losses, ..Cables::NEW }
        });
    }

    fn set_cables(&self, node: &NodeId, set: impl FnOnce(&mut Cables)) {
        if let Some(cables) = locked(&self.cables).get_mut(node) {
            set(cables);
        }
        self.rewired();
    }

    /// Whether there is a link at the port: something is plugged in, and it has a supply.
    pub fn link(&self, port: &str) -> Link {
        let plugged = self.description.machines.iter().find_map(|machine| {
            let index = machine.ports.iter().position(|its| its == port)?;
            let cables = self.cables(&machine.name)?;
            Some(cables.supply && [cables.a, cables.b].get(index).copied().unwrap_or(false))
        });
        if plugged == Some(true) { Link::Up } else { Link::Down }
    }

    /// True if the node's network path number `index` carries traffic: cable, supply and switch port.
    pub fn passes(&self, node: &NodeId, index: usize) -> bool {
        let plugged = self
            .cables(node)
            .is_some_and(|cables| cables.supply && [cables.a, cables.b].get(index).copied().unwrap_or(false));
        let port = self.description.machine(node).and_then(|machine| machine.ports.get(index));
        plugged && port.is_some_and(|port| locked(&self.switch).passes(port))
    }

    /// What the logs say.
    pub fn report(&self) -> Report {
        let volumes = locked(&self.array).report();
        Report {
            started: self.started_wall,
            now: self.now(),
            lost_writes: volumes.iter().map(|volume| volume.lost_writes).sum(),
            overlapping_writes: volumes.iter().map(|volume| volume.overlapping_writes).sum(),
            volumes,
            events: locked(&self.events).iter().cloned().collect(),
        }
    }
}

/// What the journal begins with: who may write where, and what each port is set to. All machines are off.
fn at_first(description: &Description, array: &Array, ports: &[(String, PortSetting)]) -> Journal {
    let volumes = description.instances.iter().map(|instance| &instance.volume);
    let reaches = volumes.flat_map(|volume| {
        let reach = |initiator| Change::Reach { volume: volume.clone(), initiator, open: true };
        array.reach(volume).into_iter().map(reach)
    });
    let ports = ports.iter().map(|(port, setting)| Change::Port {
        port: port.clone(),
        change: PortChange { setting: setting.clone(), token: LogIndex(0) },
    });
    let mut journal = Journal::default();
    reaches.chain(ports).for_each(|change| journal.add(0, change));
    journal
}
