//! The brain of the failover supervisor.
//!
//! What this is: the vocabulary, the replicated state machine, the failure judge, the planner, the brakes.
//! Why it exists: everything that decides is here, so that it can be read, replayed and checked without a machine.
//! What it never does: no async, clock, network, files, randomness, logging. Time and ids are arguments.
//!
//! ```text
//! sample -> observe -> judge -> [log] -> plan -> [log] -> effects -> execute -> outcome -> [log]
//! ```
//!
//! The seam to the body is [`Engine::handle`]: an [`Input`] in, [`Output`]s out. State changes only in
//! [`ClusterState::apply`].

#![deny(clippy::wildcard_enum_match_arm)]

mod apply;
mod assign;
mod backup;
mod brake;
pub mod capability;
mod claim;
mod clean;
pub mod command;
pub mod concession;
pub mod coverage;
mod delete;
mod describe;
pub mod device;
pub mod effect;
pub mod engine;
pub mod flight;
pub mod gap;
pub mod http_url;
mod identity;
pub mod image;
pub mod inventory;
mod judge;
pub mod keys;
pub mod mac;
mod memory;
pub mod network;
pub mod observation;
mod orders;
mod placement;
pub mod plan;
mod planner;
pub mod policy;
pub mod preview;
mod proposals;
pub mod provider;
pub mod readiness;
pub mod replay;
pub mod requirement;
mod revise;
pub mod role;
pub mod select;
mod sights;
mod snapshot;
pub mod spares;
pub mod state;
mod steps;
pub mod survey;
mod unable;
pub mod view;
pub mod waiting;
pub mod watch;
pub mod window;
pub mod words;

pub use backup::Backup;
pub use capability::*;
pub use command::*;
pub use concession::*;
pub use coverage::{Cover, Coverage, Held, Loss};
pub use device::*;
pub use effect::*;
pub use engine::{Engine, Input, Output};
pub use gap::{Gap, gaps};
pub use http_url::{BadUrl, HttpUrl};
pub use identity::Identity;
pub use image::Image;
pub use inventory::*;
pub use judge::REPORT_AGE_MAX;
pub use keys::{KEYS, Key, Kind};
pub use mac::{BadMac, Mac};
pub use network::*;
pub use observation::*;
pub use plan::*;
pub use planner::Subject;
pub use policy::*;
pub use preview::{Changed, Fate, LossTold, Preview};
pub use provider::*;
pub use readiness::{CANNOT_TELL_MAX, CHECK_EVERY, Check, Checked, CloudNode, Finding};
pub use requirement::*;
pub use revise::{POLICIES_MAX, VERSIONS_KEPT_MAX};
pub use role::{BootRole, Booting};
pub use select::*;
pub use snapshot::{BadSnapshotName, SnapshotName};
pub use spares::{SpareUse, spare_uses};
pub use state::*;
pub use survey::{Difference, Differences, Drift, Field, Load, Remark, Survey, Surveyed};
pub use unable::Unable;
pub use view::*;
pub use waiting::*;
pub use window::{BadWindow, Hour, Window};
pub use words::*;
