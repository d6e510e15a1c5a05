//! How a rack is built: its machines, addresses, keys; and what the supervisor is told of it.
//!
//! What this is: the file `rack.toml`, which `rack init` writes and `rack run` reads, and the supervisor's inventory
//! that follows from it.
//! Why it exists: rack and supervisor must agree on every address, key and identity, so both come from one value.
//! What it never does: it starts nothing.

use super::hex;
use policies::{
    BadName, Boot, Documents, FenceDevice, Identity, Instance, InstanceId, Millis, Network, Node, NodeId,
    PolicyId, Probe, Provider, ProviderId, ProviderKind, Sealed, SwitchPort, Vlans, Volume, VolumeId,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Name of the rack's own file in its directory.
pub const RACK_FILE: &str = "rack.toml";
/// Name of the supervisor's inventory in its directory.
pub const INVENTORY_FILE: &str = "inventory.toml";
/// Machines of one rack. Each takes four ports of the few thousand that we draw from.
pub const MACHINES_MAX: usize = 2000;
/// Ports are drawn from here: above the usual services and below Linux's own range (32768 and up), which any
/// outgoing connection may take between `rack init` and `rack run`.
const PORTS: std::ops::Range<u16> = 12_000..32_000;
/// Drawing a free port this often without success means that there is none.
const PORT_TRIES_MAX: usize = 10_000;

/// What kind of rack is wanted.
#[derive(Clone, Debug)]
pub struct RackSpec {
    /// Machines, spares included.
    pub machines: usize,
    /// How many of them are spares. They are off at first.
    pub spares: usize,
    /// The policy that protects every instance.
    pub policy: PolicyId,
    /// Heartbeat addresses of the supervisor's members, `host:port`.
    pub members: Vec<String>,
    /// Where everything of the rack listens. Loopback, unless the rack is in a network namespace of its own.
    pub address: IpAddr,
    /// Whose BMCs.
    pub bmc: BmcKind,
    /// Cipher suite: 17 or 3.
    pub suite: u8,
    /// From power-on to a running operating system.
    pub boot_delay: Millis,
    /// Time between heartbeats.
    pub heartbeat: Millis,
    /// Time between two writes of a workload.
    pub write_every: Millis,
    /// Whether the array refuses to give a volume to two initiators.
    pub exclusive_volumes: bool,
}

impl RackSpec {
    /// Six machines, two of them spares, with our own BMCs.
    pub fn new(policy: PolicyId, members: Vec<String>) -> Self {
        RackSpec {
            machines: 6,
            spares: 2,
            policy,
            members,
            address: Ipv4Addr::LOCALHOST.into(),
            bmc: BmcKind::Own,
            suite: 17,
            boot_delay: Millis(100),
            heartbeat: Millis(100),
            write_every: Millis(10),
            exclusive_volumes: true,
        }
    }
}

/// Whose BMCs the machines have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BmcKind {
    /// Ours: suites 3 and 17, all moods.
    Own,
    /// OpenIPMI's `ipmi_sim`: suite 3 only.
    IpmiSim,
}

/// Why a rack cannot be described.
#[derive(Debug, thiserror::Error)]
pub enum DescriptionError {
    /// The wishes contradict each other.
    #[error("describe a rack: {0}")]
    Wrong(String),
    /// A file could not be read or written.
    #[error("{doing} {path}")]
    File {
        /// What we were doing.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {why}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        why: String,
    },
    /// A name is none.
    #[error(transparent)]
    Name(#[from] BadName),
    /// No free ports.
    #[error("find a free port in {}..{}: none in {PORT_TRIES_MAX} tries", PORTS.start, PORTS.end)]
    NoPort,
}

/// A rack, described completely.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// Address of the control API.
    pub api: SocketAddr,
    /// Bearer token of the control API.
    pub token: Sealed,
    /// Heartbeat addresses of the supervisor's members.
    pub members: Vec<String>,
    /// Whose BMCs.
    pub bmc: BmcKind,
    /// Cipher suite of the BMCs.
    pub suite: u8,
    /// From power-on to a running operating system.
    pub boot_delay: Millis,
    /// Time between heartbeats.
    pub heartbeat: Millis,
    /// Time between two writes of a workload.
    pub write_every: Millis,
    /// Whether the array refuses to give a volume to two initiators.
    pub exclusive_volumes: bool,
    /// The machines.
    #[serde(rename = "machine", default)]
    pub machines: Vec<MachineDescription>,
    /// What runs on them.
    #[serde(rename = "instance", default)]
    pub instances: Vec<InstanceDescription>,
}

/// One machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineDescription {
    /// Its name.
    pub name: NodeId,
    /// Its BMC's address.
    pub bmc: SocketAddr,
    /// User of its BMC.
    pub user: String,
    /// Password of its BMC.
    pub password: Sealed,
    /// GUID that its BMC reports, 32 hexadecimal digits in wire order.
    pub guid: String,
    /// Where its kernel answers TCP probes.
    pub probe: SocketAddr,
    /// The name by which the array knows it.
    pub initiator: String,
    /// Key of its agent, 64 hexadecimal digits.
    pub agent_key: Sealed,
    /// Its switch ports: network a, network b.
    pub ports: [String; 2],
    /// The cabinet that it stands in.
    pub cabinet: String,
    /// A command of QEMU's that is the machine in place of our agent and workload; the rack adds its monitor and
    /// its serial port. What it boots is not the rack's business then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub emulator: Vec<String>,
    /// Where the emulator's serial port is, to which its BMC connects for Serial over LAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<SocketAddr>,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceDescription {
    /// Its name.
    pub name: InstanceId,
    /// Where it runs at first.
    pub node: NodeId,
    /// Its policy.
    pub policy: PolicyId,
    /// Its volume.
    pub volume: VolumeId,
    /// What it boots.
    pub image: String,
    /// Its networks.
    pub networks: Vec<Network>,
}

impl Description {
    /// Draws keys and free ports for a rack of this kind.
    ///
    /// # Errors
    /// [`DescriptionError`] if the wishes contradict each other or no port is free.
    pub fn draw(spec: &RackSpec) -> Result<Self, DescriptionError> {
        let wrong = |why: &str| Err(DescriptionError::Wrong(why.to_owned()));
        if spec.machines == 0 || spec.machines > MACHINES_MAX || spec.spares > spec.machines {
            return wrong("it needs 1 to 2000 machines, and no more spares than machines");
        }
        match (spec.bmc, spec.suite) {
            (BmcKind::Own, 3 | 17) | (BmcKind::IpmiSim, 3) => {}
            (BmcKind::Own, _) => return wrong("the cipher suite has to be 17 or 3"),
            (BmcKind::IpmiSim, _) => return wrong("ipmi_sim knows no cipher suite 17; use --suite 3"),
        }
        let mut ports = Ports { address: spec.address, given: BTreeSet::new() };
        let machines: Result<_, _> =
            (1..=spec.machines).map(|number| MachineDescription::draw(number, &mut ports)).collect();
        let instances: Result<_, _> =
            (1..=spec.machines - spec.spares).map(|number| InstanceDescription::new(number, spec)).collect();
        Ok(Description {
            api: ports.draw()?,
            token: Sealed(hex(&rand::random::<[u8; 16]>())),
            members: spec.members.clone(),
            bmc: spec.bmc,
            suite: spec.suite,
            boot_delay: spec.boot_delay,
            heartbeat: spec.heartbeat,
            write_every: spec.write_every,
            exclusive_volumes: spec.exclusive_volumes,
            machines: machines?,
            instances: instances?,
        })
    }

    /// The machine of that name.
    pub fn machine(&self, name: &NodeId) -> Option<&MachineDescription> {
        self.machines.iter().find(|machine| machine.name == *name)
    }

    /// What `hactl apply -f` is given: secrets are still plain, the supervisor seals them.
    ///
    /// # Errors
    /// [`DescriptionError::Name`], if the provider's name became none.
    pub fn inventory(&self) -> Result<Documents, DescriptionError> {
        // Array, switch and boot service are one provider.
        let rack: ProviderId = "rack".parse()?;
        let kind = ProviderKind::Rack { url: format!("http://{}", self.api), token: self.token.clone() };
        Ok(Documents {
            nodes: self.machines.iter().map(|machine| machine.node(&rack, self.suite)).collect(),
            instances: self.instances.iter().map(|instance| instance.instance(&rack)).collect(),
            providers: vec![Provider { name: rack, kind }],
            policies: Vec::new(),
        })
    }

    /// Writes both files into a directory that is made if it is not there. Readable by the owner only.
    ///
    /// # Errors
    /// [`DescriptionError::File`], also if there is a rack already.
    pub fn write(&self, dir: &Path) -> Result<(), DescriptionError> {
        let failed = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| DescriptionError::File { doing, path, source }
        };
        std::fs::create_dir_all(dir).map_err(failed("make directory", dir))?;
        let texts =
            [(RACK_FILE, toml::to_string(self)), (INVENTORY_FILE, toml::to_string(&self.inventory()?))];
        for (file, text) in texts {
            let path = dir.join(file);
            let text = text.map_err(|error| DescriptionError::Malformed {
                path: path.clone(),
                why: error.to_string(),
            })?;
            let mut options = OpenOptions::new();
            let opened = options.write(true).create_new(true).mode(0o600).open(&path);
            opened
                .and_then(|mut opened| opened.write_all(text.as_bytes()))
                .map_err(failed("write", &path))?;
        }
        Ok(())
    }

    /// Reads a rack's own file from its directory.
    ///
    /// # Errors
    /// [`DescriptionError`] naming file, line and key.
    pub fn read(dir: &Path) -> Result<Self, DescriptionError> {
        let path = dir.join(RACK_FILE);
        let text = std::fs::read_to_string(&path).map_err(|source| DescriptionError::File {
            doing: "read",
            path: path.clone(),
            source,
        })?;
        toml::from_str(&text).map_err(|error| DescriptionError::Malformed { path, why: error.to_string() })
    }
}

impl MachineDescription {
    fn draw(number: usize, ports: &mut Ports) -> Result<Self, DescriptionError> {
        Ok(MachineDescription {
            name: format!("node-{number}").parse()?,
            bmc: ports.draw()?,
            user: "admin".to_owned(),
            // 16 characters: some BMCs take no more (IPMI 1.5), and IPMI 2.0 takes 20.
            password: Sealed(hex(&rand::random::<[u8; 8]>())),
            guid: hex(&rand::random::<[u8; 16]>()),
            probe: ports.draw()?,
            initiator: format!("iqn.2026-01.rack:node-{number}"),
            agent_key: Sealed(hex(&rand::random::<[u8; 32]>())),
            ports: [format!("sw-a/{number}"), format!("sw-b/{number}")],
            cabinet: format!("r{}", 1 + (number - 1) % 3),
            emulator: vec![],
            serial: None,
        })
    }

    fn node(&self, rack: &ProviderId, suite: u8) -> Node {
        let port = |port: &String| SwitchPort { provider: rack.clone(), port: port.clone() };
        Node {
            name: self.name.clone(),
            identity: Identity { guid: Some(self.guid.clone()), ..Identity::default() },
            domains: BTreeMap::from([("rack".to_owned(), self.cabinet.clone())]),
            labels: BTreeMap::new(),
            fencing: vec![FenceDevice::Ipmi {
                address: self.bmc.to_string(),
                user: self.user.clone(),
                password: self.password.clone(),
                cipher_suite: suite,
                boot_device: None,
                console: self.serial.is_some(),
            }],
            ports: self.ports.iter().map(port).collect(),
            boot_macs: vec![],
            standby: None,
            initiator: Some(self.initiator.clone()),
            probe: Probe { tcp: Some(self.probe.to_string()), ..Probe::default() },
            agent_key: Some(self.agent_key.clone()),
            capabilities: Default::default(),
        }
    }
}

impl InstanceDescription {
    fn new(number: usize, spec: &RackSpec) -> Result<Self, BadName> {
        // Two VLANs for all, as in a plain data centre; the MAC address tells the instances apart.
        let network = |vlan: u16, card: u8| {
            let [.., high, low] = number.to_be_bytes();
            Network::Vlans(Vlans {
                vlan,
                tagged: std::collections::BTreeSet::new(),
                mac: Some(format!("02:00:00:{card:02x}:{high:02x}:{low:02x}")),
            })
        };
        Ok(InstanceDescription {
            name: format!("web-{number}").parse()?,
            node: format!("node-{number}").parse()?,
            policy: spec.policy.clone(),
            volume: format!("vol-{number}").parse()?,
            image: format!("golden-{number}"),
            networks: vec![network(100, 0xa), network(200, 0xb)],
        })
    }

    fn instance(&self, rack: &ProviderId) -> Instance {
        Instance {
            name: self.name.clone(),
            node: self.node.clone(),
            policy: Some(self.policy.clone()),
            tenant: None,
            labels: BTreeMap::new(),
            volumes: vec![Volume { provider: rack.clone(), volume: self.volume.clone() }],
            networks: self.networks.clone(),
            boot: Some(Boot { provider: rack.clone(), image: self.image.clone() }),
            needs: BTreeMap::new(),
            requires: Default::default(),
        }
    }
}

/// Free ports, each given out once. They are tried, not held: whoever starts the rack binds them again.
struct Ports {
    address: IpAddr,
    given: BTreeSet<u16>,
}

impl Ports {
    fn draw(&mut self) -> Result<SocketAddr, DescriptionError> {
        for _ in 0..PORT_TRIES_MAX {
            let address = SocketAddr::from((self.address, rand::random_range(PORTS)));
            // An address that is not ours is in another namespace, where the rack will be alone.
            let foreign = |error: &io::Error| error.kind() == io::ErrorKind::AddrNotAvailable;
            let free = || {
                TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
                    || TcpListener::bind(address).is_err_and(|error| foreign(&error))
            };
            if !self.given.contains(&address.port()) && free() {
                self.given.insert(address.port());
                return Ok(address);
            }
        }
        Err(DescriptionError::NoPort)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> RackSpec {
        RackSpec::new("quick".parse().unwrap(), vec!["127.0.0.1:7301".to_owned()])
    }

    #[test]
    fn a_rack_is_written_and_read_and_its_inventory_is_what_the_supervisor_takes() {
        let dir = tempfile::tempdir().unwrap();
        let rack = Description::draw(&spec()).unwrap();
        rack.write(dir.path()).unwrap();
        assert_eq!(Description::read(dir.path()).unwrap(), rack);
        let text = std::fs::read_to_string(dir.path().join(INVENTORY_FILE)).unwrap();
        let inventory: Documents = toml::from_str(&text).unwrap();
        assert_eq!(inventory, rack.inventory().unwrap());
        assert_eq!((inventory.nodes.len(), inventory.instances.len()), (6, 4));
        assert!(matches!(rack.write(dir.path()), Err(DescriptionError::File { .. })), "never overwritten");
    }

    #[test]
    fn wishes_that_contradict_each_other_are_refused() {
        let refused = |change: fn(&mut RackSpec)| {
            let mut spec = spec();
            change(&mut spec);
            matches!(Description::draw(&spec), Err(DescriptionError::Wrong(_)))
        };
        assert!(refused(|spec| spec.spares = 7));
        assert!(refused(|spec| spec.machines = 0));
        assert!(refused(|spec| spec.suite = 0));
        assert!(refused(|spec| spec.bmc = BmcKind::IpmiSim), "it has no suite 17");
    }

    #[test]
    fn a_wrong_key_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(RACK_FILE), "colour = \"red\"\n").unwrap();
        let error = Description::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("line 1") && error.contains("colour"), "{error}");
    }
}
