//! Whose directory is this? Opening it, and refusing to start empty where a store used to be.
//!
//! Why it exists: a member that lost its store lost its vote. If it started empty under its old id it could vote a
//! second time in a term, or help to elect a leader that misses committed entries (facts F5). So a marker outside the
//! store remembers that there was one, and a lock keeps a second process out.
//! What it never does: delete or repair anything.

use crate::disk::{Disk, DiskError};
use crate::ground::Medium;
use policies::{MemberId, causes};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const STORE: &str = "raft.redb";
const STORE_NEW: &str = "raft.redb.new";
const MARKER: &str = "member";
const MARKER_NEW: &str = "member.new";
const LOCK: &str = "lock";

/// Who a store belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) member: MemberId,
    pub(crate) cluster: String,
    /// Drawn at random when the store was made. Peers remember it: the same id with another store is refused.
    pub(crate) store: u64,
}

/// Why a member's memory does not open. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The configuration contradicts itself.
    #[error("the member's configuration does not hold")]
    Config(#[from] crate::config::BadConfig),
    /// The file system refused.
    #[error("{doing} {}", path.display())]
    Files {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another process has it open.
    #[error("{} is in use by another process; stop that one first", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// There was a store, and it is gone.
    #[error("the store of {me} is gone: {} is missing, but {me} has been part of a cluster. {}", path.display(), way_out(*me))]
    Missing {
        /// The missing file.
        path: PathBuf,
        /// The member.
        me: MemberId,
    },
    /// The store does not open, or is damaged.
    #[error("the store {} of {me} cannot be used: {what}. {}", path.display(), way_out(*me))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The member.
        me: MemberId,
        /// What is wrong, with its causes.
        what: String,
    },
    /// The directory belongs to another member or cluster.
    #[error(
        "{} belongs to member {found_member} of cluster {found_cluster:?}, not to {member} of {cluster:?}; \
         give this member its own directory",
        path.display()
    )]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// Configured.
        member: MemberId,
        /// Configured.
        cluster: String,
        /// In the store.
        found_member: MemberId,
        /// In the store.
        found_cluster: String,
    },
    /// The address for member traffic could not be bound.
    #[error("listen for other members on {address}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// openraft did not start.
    #[error("start the Raft core: {0}")]
    Core(String),
}

fn way_out(me: MemberId) -> String {
    format!(
        "It must not start empty under the same id, because its vote is lost: run `hactl member remove {me}` at \
         another member, delete the directory, and join again under a new id"
    )
}

/// The store in `dir` cannot be used. What only hinders us now must not be taken for damage, since the way out of
/// damage is to give the member up.
pub(crate) fn damaged(dir: &Path, me: MemberId, error: &DiskError) -> OpenError {
    let path = dir.join(STORE);
    let what = causes(error);
    if let DiskError::Engine { source, .. } = error {
        if matches!(**source, redb::Error::DatabaseAlreadyOpen) {
            return OpenError::InUse { path: dir.to_owned() };
        }
        if let redb::Error::Io(cause) = &**source
            && !is_content(cause.kind())
        {
            return OpenError::Files { doing: "read", path, source: io::Error::new(cause.kind(), what) };
        }
    }
    OpenError::Damaged { path, me, what }
}

/// Whether an I/O error speaks of what is in the file, and not of the way to it.
fn is_content(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// An opened directory. Dropping it lets the next process in.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) disk: Disk,
    pub(crate) identity: Identity,
    /// The store has never voted or stored an entry.
    pub(crate) fresh: bool,
    /// Locked as long as it is open; a medium has nobody else to be locked against.
    pub(crate) lock: Option<DirLock>,
}

/// Opens the store in `dir`, or makes it if nothing says that there ever was one.
pub(crate) fn open(dir: &Path, member: MemberId, cluster: &str) -> Result<Home, OpenError> {
    let files = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Files { doing, path, source }
    };
    std::fs::create_dir_all(dir).map_err(files("make", dir))?;
    let lock = lock(dir)?;
    let (store, marker) = (dir.join(STORE), dir.join(MARKER));
    let exists = |path: &Path| path.try_exists().map_err(files("look for", path));
    match (exists(&store)?, exists(&marker)?) {
        (false, true) => return Err(OpenError::Missing { path: store, me: member }),
        (false, false) => {
            let identity = Identity { member, cluster: cluster.to_owned(), store: rand::random() };
            create(dir, &identity)?;
        }
        (true, _) => {}
    }
    let damaged = |error: DiskError| damaged(dir, member, &error);
    let (disk, identity) = Disk::open(&store).map_err(damaged)?;
    if identity.member != member || identity.cluster != cluster {
        return Err(OpenError::NotOurs {
            path: dir.to_owned(),
            member,
            cluster: cluster.to_owned(),
            found_member: identity.member,
            found_cluster: identity.cluster,
        });
    }
    // The marker comes after the store and before the first vote: it never names a store that was not there.
    if !exists(&marker)? {
        let text = format!("member {} of cluster {:?}, store {:016x}\n", member, cluster, identity.store);
        replace(dir, MARKER_NEW, MARKER, text.as_bytes()).map_err(files("write", &marker))?;
    }
    let fresh = disk.is_fresh().map_err(damaged)?;
    Ok(Home { disk, identity, fresh, lock: Some(lock) })
}

/// The same on a medium, whose owner vouches that it never was another member's and is empty only the first time.
pub(crate) fn open_on(medium: &Arc<dyn Medium>, member: MemberId, cluster: &str) -> Result<Home, OpenError> {
    let damaged = |error: DiskError| damaged(Path::new("the medium"), member, &error);
    let unread = |error| DiskError::Inconsistent(format!("look for the store: {error}"));
    if medium.is_empty().map_err(unread).map_err(damaged)? {
        let identity = Identity { member, cluster: cluster.to_owned(), store: rand::random() };
        Disk::create_on(medium, &identity).map_err(damaged)?;
    }
    let (disk, identity) = Disk::open_on(medium).map_err(damaged)?;
    let fresh = disk.is_fresh().map_err(damaged)?;
    Ok(Home { disk, identity, fresh, lock: None })
}

/// The directory is ours as long as this lives.
///
/// Closing the file would not be enough: a child process that another thread is starting right now has a copy of it
/// until its `exec`, and flock(2) holds until the last copy is closed *or* one of them is unlocked.
#[derive(Debug)]
pub(crate) struct DirLock(pub(crate) File);

impl Drop for DirLock {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "unlock the store's directory");
        }
    }
}

fn lock(dir: &Path) -> Result<DirLock, OpenError> {
    let path = dir.join(LOCK);
    let files = |source| OpenError::Files { doing: "lock", path: path.clone(), source };
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(files)?;
    match lock.try_lock() {
        Ok(()) => Ok(DirLock(lock)),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(files(source)),
    }
}

/// Makes the store under another name first, so that a crash leaves either nothing or a whole store.
fn create(dir: &Path, identity: &Identity) -> Result<(), OpenError> {
    let new = dir.join(STORE_NEW);
    let files = |doing| {
        let path = new.clone();
        move |source| OpenError::Files { doing, path, source }
    };
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(files("remove")(error)),
        Ok(()) | Err(_) => {}
    }
    let failed = |error: DiskError| files("make")(io::Error::other(causes(&error)));
    Disk::create(&new, identity).map_err(failed)?;
    std::fs::rename(&new, dir.join(STORE)).map_err(files("rename"))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(files("sync the directory of"))
}

fn replace(dir: &Path, new: &str, name: &str, content: &[u8]) -> io::Result<()> {
    let new = dir.join(new);
    let mut file = File::create(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&new, dir.join(name))?;
    File::open(dir)?.sync_all()
}
