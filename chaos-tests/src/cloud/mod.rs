//! The cloud: failovers of nodes that are OpenStack's, by real members against real services.
//!
//! What this is: the testbed of `chaos-tests/openstack` (Keystone, Ironic, Neutron, Cinder, their BMCs and an iSCSI target),
//! three members, and a server on each node. Why it exists: what each call does is tried by itself elsewhere; here a node dies
//! and nobody but the members does anything about it. What it never does: start or stop the testbed, or use a service otherwise
//! than a client may. What is ours is the server on a node, which its BMC switches (`machine`): the testbed has none.
//!
//! ```text
//! trial ── site ─┬─ demo::watched                 inventory: what `hactl apply` is given (pure)
//!                ├─ machine: what runs on nodes   phases: how long, and with how many calls (pure)
//!                └─ testbed: services, BMCs, and what is true of a node, port and volume
//! ```

mod inventory;
mod machine;
mod phases;
mod site;
mod testbed;
mod trial;

pub use site::Site;
pub use trial::{Trial, test};

/// A node of the testbed.
#[derive(Clone, Debug)]
struct Described {
    name: policies::NodeId,
    pool: Pool,
    /// The number of its BMC among those of its kind.
    bmc: u8,
    uuid: openstack::NodeUuid,
    nic: openstack::PortUuid,
    mac: String,
    agent_key: String,
}

impl Described {
    /// The name by which its iSCSI target knows it.
    fn initiator(&self) -> String {
        format!("iqn.2026-01.test:{}", self.name)
    }
}

/// What runs on a pool's nodes, and keeps its port and volume wherever that is.
#[derive(Clone, Debug)]
struct Belongings {
    port: openstack::PortId,
    volume: openstack::VolumeId,
}

/// Nodes of one kind: one with an instance at first, the others spares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pool {
    /// `rf1`, ...: Redfish BMCs, started from virtual media, with a configuration drive. Their power is read through Ironic only.
    Redfish,
    /// `pxe1`, ...: IPMI BMCs, which the members read themselves; started by iPXE, with a volume.
    Pxe,
}

impl Pool {
    const ALL: [Pool; 2] = [Pool::Redfish, Pool::Pxe];

    /// What its nodes' names begin with.
    fn prefix(self) -> &'static str {
        match self {
            Pool::Redfish => "rf",
            Pool::Pxe => "pxe",
        }
    }

    fn instance(self) -> &'static str {
        match self {
            Pool::Redfish => "web",
            Pool::Pxe => "db",
        }
    }

    fn has_volume(self) -> bool {
        self == Pool::Pxe
    }
}
