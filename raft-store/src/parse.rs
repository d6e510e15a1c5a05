//! Entry points for the fuzz harness (`chaos_tests::fuzzing`): everything here that reads bytes of strangers.
//!
//! Why it exists: frames, records and the store's file are private, and should stay so; the harness needs only to know
//! whether bytes were taken, and as what. So each function gives back what it read, written again: whoever reads that
//! must get the same once more.
//! What it never does: be used by the product, or decide anything.

use crate::disk::{Disk, engine_settings};
use crate::frame::{self, Append, Appended, Ballot, Campaign, FRAME_BYTES_MAX, Frame, HELLO_BYTES_MAX};
use crate::frame::{Hello, Kind, Refusal, Voted, Welcome};
use crate::ground::{Backend, Medium, Memory};
use crate::identity::Identity;
use crate::seal;
use crate::types::{Content, Entry, LogEntry, LogId, SnapshotHead, SnapshotMeta, Vote};
use policies::{ClusterState, Proposal, causes};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Largest frame before and after the hello.
pub const FRAME_MAX: (usize, usize) = (HELLO_BYTES_MAX, FRAME_BYTES_MAX);

/// Reads one frame off a stream; gives its whole bytes and its body.
///
/// # Errors
/// What the connection would be closed with.
pub fn read_frame(stream: &mut &[u8], max: usize) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let reading = pin!(frame::read(stream, max));
    // A slice is never waited for.
    let Poll::Ready(frame) = reading.poll(&mut Context::from_waker(Waker::noop())) else {
        return Err(io::Error::other("a slice that is not ready"));
    };
    let frame = frame?;
    Ok((frame.encode().map_err(io::Error::other)?, frame.body))
}

/// What a frame says, written again as the same frame; `None` if it says nothing of its kind.
pub fn content(frame: &[u8]) -> Option<Vec<u8>> {
    let frame = Frame::decode(frame.get(4..)?).ok()?;
    let again = match frame.kind {
        Kind::Hello => json::<Hello>(&frame)?,
        Kind::Welcome => json::<Welcome>(&frame)?,
        Kind::Refused | Kind::Failed => json::<Refusal>(&frame)?,
        Kind::Append => json_of(&frame, &through_openraft(frame.parse::<Append>().ok()?))?,
        Kind::Vote => json::<Ballot>(&frame)?,
        Kind::Snapshot => {
            let (mut chunk, data) = frame::parse_snapshot(&frame).ok()?;
            chunk.head = SnapshotHead::from(&SnapshotMeta::from(chunk.head));
            Frame { id: frame.id, ..frame::snapshot_frame(&chunk, &data).ok()? }
        }
        Kind::Campaign => json::<Campaign>(&frame)?,
        // The caller knows which reply it waits for; all three are tried.
        Kind::Reply => {
            json::<Appended>(&frame).or_else(|| json::<Voted>(&frame)).or_else(|| json::<Vote>(&frame))?
        }
        Kind::Message => frame,
    };
    again.encode().ok()
}

fn json<T: DeserializeOwned + Serialize>(frame: &Frame) -> Option<Frame> {
    json_of(frame, &frame.parse::<T>().ok()?)
}

fn json_of<T: Serialize>(frame: &Frame, value: &T) -> Option<Frame> {
    Frame::json(frame.kind, frame.id, value).ok()
}

/// Entries cross into openraft's types and back, as on their way to the log.
fn through_openraft(append: Append) -> Append {
    let entries = append.entries.into_iter().map(crossed).collect();
    Append { entries, ..append }
}

fn crossed(entry: LogEntry) -> LogEntry {
    LogEntry::from(&Entry::from(entry))
}

/// Puts a record's head before `json`, as if this member had written it.
pub fn sealed(json: &[u8]) -> Vec<u8> {
    [&seal::head(json)[..], json].concat()
}

/// A frame of this kind, as it goes over the wire.
pub fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len().saturating_add(9)).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], &[kind], &7_u64.to_be_bytes(), body].concat()
}

/// Reads a record of the log: the record written again, and its proposal.
///
/// # Errors
/// Why it is none.
pub fn log_record(bytes: &[u8]) -> Result<(Vec<u8>, Option<Proposal>), String> {
    let entry = crossed(seal::open(bytes).map_err(|error| causes(&error))?);
    let again = seal::seal(&entry).map_err(|error| causes(&error))?;
    let proposal = match entry.content {
        Content::Proposal(proposal) => Some(proposal),
        Content::Blank | Content::Members(_) => None,
    };
    Ok((again, proposal))
}

/// Reads the data of a snapshot: the record written again, and the state.
///
/// # Errors
/// Why it is none.
pub fn snapshot(bytes: &[u8]) -> Result<(Vec<u8>, ClusterState), String> {
    let state: ClusterState = seal::open(bytes).map_err(|error| causes(&error))?;
    Ok((seal::seal(&state).map_err(|error| causes(&error))?, state))
}

/// What a store says that matters, as text.
fn told(disk: &Disk, identity: &Identity) -> Result<String, String> {
    let said = |error: crate::disk::DiskError| causes(&error);
    let (vote, entries) = (disk.vote().map_err(said)?, disk.entries(0, u64::MAX, usize::MAX).map_err(said)?);
    let (bounds, snapshot) = (disk.bounds().map_err(said)?, disk.snapshot().map_err(said)?);
    let known = disk.acquaintances().map_err(said)?;
    Ok(format!("{identity:?} {vote:?} {bounds:?} {known:?} {snapshot:?} {entries:?}"))
}

/// Reads a store's file.
///
/// # Errors
/// Why it is none.
pub fn store(file: &[u8]) -> Result<String, String> {
    if file.is_empty() {
        return Err("an empty file is never opened".to_owned());
    }
    let memory = Memory::of(file).map_err(|error| causes(&error))?;
    let db = engine_settings().create_with_backend(Backend(Arc::new(memory)));
    let db = db.map_err(|error| causes(&error))?;
    let (disk, identity) = Disk::over(db).map_err(|error| causes(&error))?;
    told(&disk, &identity)
}

/// A store after each of some writes: what it says then, and its file at that moment, as a crash would leave it; the
/// last file was closed in order.
///
/// # Errors
/// If it cannot be made.
pub fn stores() -> Result<Vec<(String, Vec<u8>)>, String> {
    let said = |error: crate::disk::DiskError| causes(&error);
    let memory = Arc::new(Memory::default());
    let identity = Identity { member: policies::MemberId(3), cluster: "fuzz".to_owned(), store: 7 };
    let medium: Arc<dyn Medium> = Arc::clone(&memory) as _;
    let open = || engine_settings().create_with_backend(Backend(Arc::clone(&medium)));
    Disk::fill(&open().map_err(|error| causes(&error))?, &identity).map_err(said)?;
    let (disk, identity) = Disk::over(open().map_err(|error| causes(&error))?).map_err(said)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| causes(&error))?;
    let file = || memory.bytes().map_err(|error| causes(&error));
    let mut stores = vec![(told(&disk, &identity)?, file()?)];
    for round in 0..4_u64 {
        let id = |index| LogId { term: 1 + round, member: 3, index };
        let entries: Vec<_> =
            (0..6).map(|at| LogEntry { id: id(round * 6 + at), content: Content::Blank }).collect();
        runtime.block_on(disk.append(&entries)).map_err(said)?;
        stores.push((told(&disk, &identity)?, file()?));
        runtime
            .block_on(disk.save_vote(Vote { term: 2 + round, member: 3, committed: false }))
            .map_err(said)?;
        stores.push((told(&disk, &identity)?, file()?));
    }
    let last = told(&disk, &identity)?;
    disk.close();
    stores.push((last, file()?));
    Ok(stores)
}
