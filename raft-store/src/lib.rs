//! The memory of a member: the replicated log, the state that it makes, and the history of it.
//!
//! Why it exists: what one member decided, all members must remember, through any crash. Raft (openraft) agrees on the
//! log, redb keeps it on disk, sled keeps a searchable copy of what happened. Only this crate names the three.
//! What it never does: decide anything about nodes. What a log entry means is `policies::ClusterState::apply`'s
//! business.
//!
//! ```text
//! store    propose, read, barrier, lease_end, members      the interface
//!   members  learner, voter, removal, transfer
//! openraft  <- log (redb), machine (policies), network     what openraft asks for
//! disk     one writer thread, one fsync for all that waits
//! identity whose directory; never an empty start by mistake
//! lease    until when nobody else can lead; gate: which votes we may give
//! network -> peers -> link  ===TLS===>  listen             four connections per pair, heartbeats on their own
//! ground   what all this stands on: a machine (tls_wire), or a simulation
//! parse    the readers of frames, records and stores, for the fuzz harness
//! frame    the bytes between members;  seal: the bytes on disk;  types: both without openraft's structs
//! history, flight  over days: sled, one database a day, may be lost
//! ```

#![deny(clippy::wildcard_enum_match_arm)]

// The harness of the cluster tests, which names this crate from outside, serves the crash tests inside as well.
#[cfg(test)]
extern crate self as raft_store;

mod clock;
#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod common;
mod config;
#[cfg(test)]
mod crash;
mod days;
mod disk;
mod flight;
mod frame;
mod gate;
pub mod ground;
mod history;
mod identity;
mod lease;
mod link;
mod listen;
mod log;
mod machine;
mod members;
mod network;
#[doc(hidden)]
pub mod parse;
mod peers;
mod seal;
mod store;
#[cfg(test)]
mod tests;
mod tls_wire;
mod types;

pub use config::{BadConfig, Config, Settings, Snapshots, Timing, Tls};
pub use days::DaysError;
pub use flight::{Blocks, Cursor, Flight, Tape, TapeState};
pub use history::{History, QUERY_EVENTS_MAX, Query};
pub use identity::OpenError;
pub use members::MemberError;
pub use store::{
    BarrierError, BootstrapError, DEPOSED_MEANWHILE, MESSAGE_BYTES_MAX, PROPOSAL_BYTES_MAX, Progress,
    ProposeError, Store, StoreEvent,
};
pub use types::Member;
