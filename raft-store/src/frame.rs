//! What members say to each other: frames and hellos, as pure functions.
//!
//! Why it exists: this is the only place where bytes from the network become values. Everything is bounded before it
//! is allocated, and no input panics (see the property tests).
//! What it never does: I/O, except for the two generic functions that move one frame.
//!
//! ```text
//! frame = length: u32 big endian, of all that follows | kind: u8 | id: u64 big endian | body
//! ```
//! The first frame of a connection is a hello; the accepting side answers with a welcome or a refusal.
//! Then requests and replies follow, matched by id. There is no checksum: TLS has one.

use crate::types::{LogEntry, LogId, SnapshotHead, Vote};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Version of everything in this file. Another version is refused in the hello, by name.
pub(crate) const PROTOCOL: u32 = 1;
/// Kind and id.
const HEAD_BYTES: usize = 9;
/// A hello is small, and comes from a peer that we know only by certificate yet.
pub(crate) const HELLO_BYTES_MAX: usize = 4 << 10;
/// Largest frame. Append calls hold at most 1 MiB of log (`log.rs`) plus one proposal; snapshots come in chunks.
pub(crate) const FRAME_BYTES_MAX: usize = 8 << 20;
/// Largest piece of a snapshot in one frame.
pub(crate) const SNAPSHOT_CHUNK_BYTES: u64 = 1 << 20;
/// Largest snapshot that is taken from a peer. 10,000 nodes with their history of failovers are a few tens of MiB.
pub(crate) const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Hello,
    Welcome,
    Refused,
    Append,
    Vote,
    Snapshot,
    Campaign,
    Reply,
    Failed,
    Message,
}

const KINDS: [Kind; 10] = [
    Kind::Hello,
    Kind::Welcome,
    Kind::Refused,
    Kind::Append,
    Kind::Vote,
    Kind::Snapshot,
    Kind::Campaign,
    Kind::Reply,
    Kind::Failed,
    Kind::Message,
];

impl Kind {
    fn number(self) -> u8 {
        match self {
            Kind::Hello => 1,
            Kind::Welcome => 2,
            Kind::Refused => 3,
            Kind::Append => 4,
            Kind::Vote => 5,
            Kind::Snapshot => 6,
            Kind::Campaign => 7,
            Kind::Reply => 8,
            Kind::Failed => 9,
            Kind::Message => 10,
        }
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    /// Chosen by who asks; the reply repeats it.
    pub(crate) id: u64,
    pub(crate) body: Vec<u8>,
}

/// Why bytes are not what they should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadFrame {
    #[error("a frame of {found} bytes, where at most {max} are allowed")]
    TooLarge { found: usize, max: usize },
    #[error("a frame of {0} bytes, too short to be one")]
    TooShort(usize),
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    #[error("a {kind:?} frame whose content does not parse")]
    Content {
        kind: Kind,
        #[source]
        source: serde_json::Error,
    },
    #[error("a snapshot frame that is cut short")]
    Snapshot,
}

impl Frame {
    /// A frame with a JSON body.
    pub(crate) fn json<T: Serialize>(kind: Kind, id: u64, body: &T) -> Result<Frame, BadFrame> {
        let body = serde_json::to_vec(body).map_err(|source| BadFrame::Content { kind, source })?;
        Ok(Frame { kind, id, body })
    }

    /// The JSON body.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, BadFrame> {
        serde_json::from_slice(&self.body).map_err(|source| BadFrame::Content { kind: self.kind, source })
    }

    /// The bytes on the wire.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, BadFrame> {
        let length = HEAD_BYTES + self.body.len();
        let too_large = BadFrame::TooLarge { found: length, max: FRAME_BYTES_MAX };
        if length > FRAME_BYTES_MAX {
            return Err(too_large);
        }
        let announced = u32::try_from(length).map_err(|_too_large| too_large)?;
        let mut bytes = Vec::with_capacity(4 + length);
        bytes.extend_from_slice(&announced.to_be_bytes());
        bytes.push(self.kind.number());
        bytes.extend_from_slice(&self.id.to_be_bytes());
        bytes.extend_from_slice(&self.body);
        Ok(bytes)
    }

    /// Reads what follows the length.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Frame, BadFrame> {
        let (&[kind, id @ ..], body) =
            bytes.split_first_chunk::<HEAD_BYTES>().ok_or(BadFrame::TooShort(bytes.len()))?;
        let known = KINDS.into_iter().find(|known| known.number() == kind);
        Ok(Frame {
            kind: known.ok_or(BadFrame::Kind(kind))?,
            id: u64::from_be_bytes(id),
            body: body.to_vec(),
        })
    }
}

/// The announced length, if it may be allocated.
pub(crate) fn length(announced: [u8; 4], max: usize) -> Result<usize, BadFrame> {
    let found = usize::try_from(u32::from_be_bytes(announced)).unwrap_or(usize::MAX);
    match found {
        too_large if too_large > max => Err(BadFrame::TooLarge { found, max }),
        too_short if too_short < HEAD_BYTES => Err(BadFrame::TooShort(found)),
        _ => Ok(found),
    }
}

/// Reads one frame of at most `max` bytes. Not cancel safe: a cancelled read leaves the stream in mid-frame.
pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin), max: usize) -> io::Result<Frame> {
    let mut announced = [0; 4];
    from.read_exact(&mut announced).await?;
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut bytes = vec![0; length(announced, max).map_err(invalid)?];
    from.read_exact(&mut bytes).await?;
    Frame::decode(&bytes).map_err(invalid)
}

/// Writes one frame.
pub(crate) async fn write(to: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> io::Result<()> {
    let bytes = frame.encode().map_err(io::Error::other)?;
    to.write_all(&bytes).await?;
    to.flush().await
}

/// What a connection is for. Each has its own, so that a large append or snapshot never delays a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Purpose {
    /// Heartbeats, votes and other calls that must not wait.
    Heartbeat,
    /// Entries of the log.
    Append,
    /// Snapshots.
    Snapshot,
    /// Messages of the supervisor.
    Message,
}

/// The first frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) protocol: u32,
    pub(crate) cluster: String,
    /// Who speaks; must match the certificate.
    pub(crate) member: u64,
    /// Which store it speaks for (see `identity.rs`).
    pub(crate) store: u64,
    pub(crate) purpose: Purpose,
}

/// The answer to a hello that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) store: u64,
}

/// The answer to a hello or request that was not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) why: String,
}

/// An append call or heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Append {
    pub(crate) vote: Vote,
    pub(crate) previous: Option<LogId>,
    pub(crate) entries: Vec<LogEntry>,
    pub(crate) committed: Option<LogId>,
}

/// Its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Appended {
    All,
    Upto(Option<LogId>),
    Conflict,
    HigherVote(Vote),
}

/// A candidate asks for a vote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ballot {
    pub(crate) vote: Vote,
    pub(crate) last: Option<LogId>,
}

/// Its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Voted {
    pub(crate) vote: Vote,
    pub(crate) granted: bool,
    pub(crate) last: Option<LogId>,
}

/// A piece of a snapshot; the raw bytes follow the JSON in the frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chunk {
    pub(crate) vote: Vote,
    pub(crate) head: SnapshotHead,
    /// Where the piece begins; pieces come in order on one connection.
    pub(crate) offset: u64,
    pub(crate) done: bool,
}

/// Puts `data` behind the chunk's JSON: `length of JSON: u32 big endian | JSON | data`.
pub(crate) fn snapshot_frame(chunk: &Chunk, data: &[u8]) -> Result<Frame, BadFrame> {
    let json = Frame::json(Kind::Snapshot, 0, chunk)?.body;
    let length = u32::try_from(json.len()).map_err(|_too_large| BadFrame::Snapshot)?;
    Ok(Frame { kind: Kind::Snapshot, id: 0, body: [&length.to_be_bytes(), json.as_slice(), data].concat() })
}

/// Takes them apart again.
pub(crate) fn parse_snapshot(frame: &Frame) -> Result<(Chunk, Vec<u8>), BadFrame> {
    let (&length, rest) = frame.body.split_first_chunk::<4>().ok_or(BadFrame::Snapshot)?;
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(|_too_large| BadFrame::Snapshot)?;
    let (json, data) = rest.split_at_checked(length).ok_or(BadFrame::Snapshot)?;
    let chunk: Chunk =
        serde_json::from_slice(json).map_err(|source| BadFrame::Content { kind: frame.kind, source })?;
    Ok((chunk, data.to_vec()))
}

/// A leader asks a caught-up voter to campaign now (see `transfer.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Campaign {
    /// The leadership that is being handed over; a newer one makes the request void.
    pub(crate) vote: Vote,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_kind_survives_the_wire() {
        for kind in KINDS {
            let frame = Frame { kind, id: u64::MAX - 3, body: b"body".to_vec() };
            let bytes = frame.encode().unwrap();
            let (announced, rest) = bytes.split_first_chunk::<4>().unwrap();
            assert_eq!(length(*announced, FRAME_BYTES_MAX).unwrap(), rest.len());
            assert_eq!(Frame::decode(rest).unwrap(), frame);
        }
    }

    #[tokio::test]
    async fn a_frame_that_is_too_large_is_refused_before_it_is_read() {
        let mut wire = u32::MAX.to_be_bytes().to_vec();
        wire.push(1);
        let error = read(&mut wire.as_slice(), HELLO_BYTES_MAX).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("4294967295 bytes, where at most 4096"), "{error}");
        let huge = Frame { kind: Kind::Append, id: 1, body: vec![0; FRAME_BYTES_MAX] };
        assert!(matches!(huge.encode(), Err(BadFrame::TooLarge { .. })));
    }

    #[test]
    fn a_snapshot_chunk_survives_the_wire() {
        let vote = Vote { term: 2, member: 1, committed: true };
        let last = Some(LogId { term: 2, member: 1, index: 9 });
        let head = SnapshotHead { last, members_at: None, members: Default::default(), id: "x".into() };
        let chunk = Chunk { vote, head, offset: 3, done: false };
        let frame = snapshot_frame(&chunk, b"\x00raw\xff").unwrap();
        assert_eq!(parse_snapshot(&frame).unwrap(), (chunk, b"\x00raw\xff".to_vec()));
    }

    fn parse_everything(frame: &Frame) {
        drop(frame.parse::<Hello>());
        drop(frame.parse::<Welcome>());
        drop(frame.parse::<Refusal>());
        drop(frame.parse::<Append>());
        drop(frame.parse::<Appended>());
        drop(frame.parse::<Ballot>());
        drop(frame.parse::<Voted>());
        drop(frame.parse::<Campaign>());
        drop(parse_snapshot(frame));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            announced in any::<[u8; 4]>(),
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            if let Ok(length) = length(announced, HELLO_BYTES_MAX) {
                prop_assert!((HEAD_BYTES..=HELLO_BYTES_MAX).contains(&length));
            }
            if let Ok(frame) = Frame::decode(&bytes) {
                parse_everything(&frame);
                prop_assert_eq!(&frame.encode().unwrap()[4..], bytes.as_slice());
            }
            parse_everything(&Frame { kind: Kind::Snapshot, id: 0, body: bytes });
        }

        #[test]
        fn a_damaged_hello_never_panics(at in 0_usize..100, to in any::<u8>(), cluster in ".{0,40}") {
            let hello = Hello { protocol: PROTOCOL, cluster, member: 3, store: 7, purpose: Purpose::Append };
            let mut frame = Frame::json(Kind::Hello, 0, &hello).unwrap();
            prop_assert_eq!(&frame.parse::<Hello>().unwrap(), &hello);
            if let Some(byte) = frame.body.get_mut(at) {
                *byte = to;
            }
            parse_everything(&frame);
        }
    }
}
