//! What a stage is built on: where the members and the rack stand, and what is around them.
//!
//! Why it exists: the demo builds on loopback, the field (`crate::field`) in network namespaces with failing disks; the
//! scene is the same.
//! What it never does: it makes nothing; addresses and namespaces are there before.

use super::process::Around;
use super::{DemoError, ports};
use policies::MemberId;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

/// Members: the smallest cluster that survives one of them.
pub(crate) const MEMBERS: usize = 3;
/// Log levels of the members: `supervisor::runtime` at `debug` says when a node is heard no more, `openstack` what a cloud was asked.
const LOG_FILTER: (&str, &str) = ("HA_LOG", "info,supervisor::runtime=debug,openstack=debug");

/// Where one member listens, and what is around it.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    pub(crate) member: SocketAddr,
    pub(crate) api: SocketAddr,
    pub(crate) heartbeat: SocketAddr,
    pub(crate) around: Around,
}

impl Seat {
    /// A seat at these addresses with nothing special around it.
    pub(crate) fn new(member: SocketAddr, api: SocketAddr, heartbeat: SocketAddr) -> Seat {
        let (name, value) = LOG_FILTER;
        let environment = vec![(name.to_owned(), value.to_owned())];
        Seat { member, api, heartbeat, around: Around { environment, net: None } }
    }

    /// As `init` and `invite` take them.
    pub(super) fn flags(&self) -> [String; 6] {
        let flag = str::to_owned;
        [
            flag("--member-addr"),
            self.member.to_string(),
            flag("--api-addr"),
            self.api.to_string(),
            flag("--heartbeat-addr"),
            self.heartbeat.to_string(),
        ]
    }
}

/// Is called when the members' directories, in the given one, are made and before any member runs.
pub(crate) type BeforeRun = Box<dyn FnOnce(&Path) -> Result<(), DemoError>>;

/// Everything that a stage is built on.
pub(crate) struct Ground {
    pub(crate) seats: BTreeMap<MemberId, Seat>,
    /// Where array, switch, BMCs and nodes are.
    pub(crate) rack: IpAddr,
    pub(crate) rack_around: Around,
    /// The policy that protects every instance.
    pub(crate) policy: String,
    pub(crate) before_run: BeforeRun,
}

impl Ground {
    /// Loopback, with the policy `quick`.
    pub(crate) fn loopback() -> Result<Ground, DemoError> {
        let mut free = ports::draw(3 * MEMBERS)?.into_iter();
        let mut next =
            || free.next().ok_or_else(|| DemoError::Unexpected("there are too few free ports".to_owned()));
        let mut seats = BTreeMap::new();
        for id in (1..).take(MEMBERS) {
            seats.insert(MemberId(id), Seat::new(next()?, next()?, next()?));
        }
        Ok(Ground {
            seats,
            rack: Ipv4Addr::LOCALHOST.into(),
            rack_around: Around::default(),
            policy: "quick".to_owned(),
            before_run: Box::new(|_| Ok(())),
        })
    }
}
