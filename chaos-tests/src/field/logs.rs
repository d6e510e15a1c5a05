//! The committed log of each member, read from its store once the member has ended.
//!
//! Why it exists: it is the audit trail. A process may say what it likes; what it left on its disk is what it will know.
//! What it never does: touch a store. A copy in memory is opened, by a member that hears nobody and that nobody hears.

use super::facts::Log;
use crate::demo::DemoError;
use crate::demo::error::system;
use policies::{MemberId, causes};
use raft_store::ground::{Door, Ground, Knock, Later, Memory, Stream, Wire};
use raft_store::{Settings, Snapshots, Store, StoreEvent, Timing};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A member's store, in its directory.
const STORE: &str = "raft.redb";
/// The cluster that `demo::stage` makes.
const CLUSTER: &str = "demo";

/// Reads the log of a member out of its directory.
pub(super) async fn read(member: MemberId, dir: &Path) -> Result<Log, DemoError> {
    let path = dir.join(STORE);
    let bytes = std::fs::read(&path).map_err(system(format!("read {}", path.display())))?;
    let medium = Memory::of(&bytes).map_err(system(format!("copy {}", path.display())))?;
    let ground = Ground { medium: Arc::new(medium), wire: Arc::new(Nobody), door: Box::new(Nobody) };
    let (timing, snapshots) = (Timing::default(), Snapshots::default());
    let settings = Settings { me: member, cluster: CLUSTER.to_owned(), timing, snapshots };
    let opened = Store::open_on(ground, settings).await;
    let (store, mut events) = opened
        .map_err(|error| DemoError::Unexpected(format!("open {}: {}", path.display(), causes(&error))))?;
    let mut log = Log::default();
    // What was committed is there when the store is open; alone, it commits nothing more.
    while let Ok(event) = events.try_recv() {
        match event {
            StoreEvent::Installed(state) => log.begins = state,
            StoreEvent::Applied { index, proposal } => drop(log.entries.insert(index, proposal)),
            StoreEvent::Leader { .. } | StoreEvent::Message { .. } => {}
            StoreEvent::Fatal(why) => {
                return Err(DemoError::Unexpected(format!("read {}: {why}", path.display())));
            }
        }
    }
    store.shutdown().await;
    Ok(log)
}

/// Nobody is there.
struct Nobody;

impl Wire for Nobody {
    fn dial(&self, _member: u64, _address: &str) -> Later<io::Result<Box<dyn Stream>>> {
        Box::pin(std::future::ready(Err(io::ErrorKind::NotConnected.into())))
    }
}

impl Door for Nobody {
    fn accept(&self) -> Later<io::Result<Knock>> {
        Box::pin(std::future::pending())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies::{Command, LogIndex, Proposal, Wall};
    use raft_store::Member;

    #[tokio::test]
    async fn what_was_acknowledged_is_read_from_the_file_of_a_member_that_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (me, address) = (MemberId(1), String::new());
        let medium = Arc::new(Memory::default());
        let ground = Ground { medium: medium.clone(), wire: Arc::new(Nobody), door: Box::new(Nobody) };
        let (timing, snapshots) = (Timing::default(), Snapshots::default());
        let settings = Settings { me, cluster: CLUSTER.to_owned(), timing, snapshots };
        let (store, _events) = Store::open_on(ground, settings).await.unwrap();
        let member = Member { id: me, address: address.clone(), api: address, voter: true };
        store.bootstrap(&member).await.unwrap();
        let note = Proposal {
            at: Wall(7),
            by: "admin".to_owned(),
            command: Command::Note { text: "remember this".to_owned() },
        };
        let mut committed = None;
        while committed.is_none() {
            // Nobody leads at first.
            committed = store.propose(note.clone()).await.ok().map(|(index, _)| index);
            tokio::task::yield_now().await;
        }
        store.shutdown().await;
        std::fs::write(dir.path().join(STORE), medium.bytes().unwrap()).unwrap();

        let log = read(me, dir.path()).await.unwrap();
        assert_eq!(log.begins.applied, LogIndex(0));
        assert_eq!(log.entries.get(&committed.unwrap()).map(Arc::as_ref), Some(&note));
        let before = std::fs::read(dir.path().join(STORE)).unwrap();
        assert_eq!(before, medium.bytes().unwrap(), "it is only read");

        std::fs::write(dir.path().join(STORE), &before[..before.len() / 2]).unwrap();
        let error = read(me, dir.path()).await.unwrap_err().to_string();
        assert!(error.contains("raft.redb"), "{error}");
    }
}
