//! All links to other members, and what we remember about them.
//!
//! Why it exists: openraft asks for a new client for every vote and read; they must share connections. And a member
//! whose directory was wiped must not come back under its old id: its certificate is right, but its vote is gone.
//! What it never does: decide who is a member.

use crate::config::Timing;
use crate::disk::{Disk, DiskError};
use crate::frame::{Frame, Kind, Purpose};
use crate::ground::Wire;
use crate::identity::Identity;
use crate::link::{Link, Route};
use policies::MemberId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// One call of a snapshot transfer may take this long: the last one is answered only when the state is on disk.
pub(crate) const SNAPSHOT_CALL_LIMIT: Duration = Duration::from_secs(10);

/// Why a peer is not talked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stranger {
    #[error(
        "{member} comes with another store ({found:016x}, known is {known:016x}): it lost its memory, so it lost its \
         vote; run `hactl member remove {member}` and let it join again under a new id"
    )]
    OtherStore { member: MemberId, known: u64, found: u64 },
    #[error("remember the store of {member}")]
    Disk {
        member: MemberId,
        #[source]
        source: DiskError,
    },
}

/// Which store each member had when we first met it. Kept on disk, for ever: ids are never used again.
#[derive(Debug)]
pub(crate) struct Acquaintances {
    disk: Arc<Disk>,
    /// Locked while it is written, so that an older list never follows a newer one to disk.
    known: tokio::sync::Mutex<BTreeMap<u64, u64>>,
}

impl Acquaintances {
    pub(crate) fn open(disk: Arc<Disk>) -> Result<Acquaintances, DiskError> {
        let known = tokio::sync::Mutex::new(disk.acquaintances()?);
        Ok(Acquaintances { disk, known })
    }

    /// Compares `store` with what we remember of `member`, and remembers it if that is nothing.
    pub(crate) async fn meet(&self, member: MemberId, store: u64) -> Result<(), Stranger> {
        let mut known = self.known.lock().await;
        match known.get(&member.0) {
            Some(&same) if same == store => Ok(()),
            Some(&known) => Err(Stranger::OtherStore { member, known, found: store }),
            None => {
                known.insert(member.0, store);
                let failed = |source| Stranger::Disk { member, source };
                self.disk.save_acquaintances(&known).await.map_err(failed)
            }
        }
    }
}

/// The links to one member.
#[derive(Debug, Clone)]
pub(crate) struct Links {
    pub(crate) heartbeat: Link,
    pub(crate) append: Link,
    pub(crate) snapshot: Link,
    message: Link,
}

/// The links to all members.
pub(crate) struct Peers {
    identity: Identity,
    wire: Arc<dyn Wire>,
    timing: Timing,
    pub(crate) acquaintances: Arc<Acquaintances>,
    /// With the address that they lead to: a member that moved gets new ones.
    links: Mutex<BTreeMap<u64, (String, Links)>>,
}

impl Peers {
    pub(crate) fn new(
        identity: Identity,
        wire: Arc<dyn Wire>,
        timing: Timing,
        acquaintances: Arc<Acquaintances>,
    ) -> Peers {
        Peers { identity, wire, timing, acquaintances, links: Mutex::default() }
    }

    /// The links to `member` at `address`.
    pub(crate) fn links(&self, member: u64, address: &str) -> Links {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        match links.get(&member) {
            Some((known, same)) if known == address => same.clone(),
            Some(_) | None => {
                let made = self.connect(member, address);
                links.insert(member, (address.to_owned(), made.clone()));
                made
            }
        }
    }

    fn connect(&self, member: u64, address: &str) -> Links {
        let election_max = Duration::from_millis(self.timing.election_max.0);
        let link = |purpose, silence_max| {
            Link::new(Route {
                peer: MemberId(member),
                address: address.to_owned(),
                purpose,
                me: self.identity.member,
                cluster: self.identity.cluster.clone(),
                store: self.identity.store,
                wire: Arc::clone(&self.wire),
                acquaintances: Arc::clone(&self.acquaintances),
                connect_limit: election_max,
                silence_max,
            })
        };
        Links {
            heartbeat: link(Purpose::Heartbeat, election_max),
            append: link(Purpose::Append, election_max),
            snapshot: link(Purpose::Snapshot, SNAPSHOT_CALL_LIMIT),
            message: link(Purpose::Message, election_max),
        }
    }

    /// Sends `bytes` to each of `members`, best effort.
    pub(crate) fn broadcast(&self, members: impl Iterator<Item = (u64, String)>, bytes: &[u8]) {
        for (member, address) in members {
            let frame = Frame { kind: Kind::Message, id: 0, body: bytes.to_vec() };
            if !self.links(member, &address).message.send(frame) {
                tracing::debug!(peer = %MemberId(member), "a message was dropped: too many wait already");
            }
        }
    }

    /// Closes the links to everybody else.
    pub(crate) fn keep(&self, still: impl Fn(u64) -> bool) {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).retain(|&member, _| still(member));
    }
}
