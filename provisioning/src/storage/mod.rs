//! The daemon beside tgt on a storage host: who may use which volume, kept durably, carried out at tgt, read back from tgt.
//!
//! What this is: the library of `ha-storage`. [`Config`] says which volumes there are, [`Keeper`] holds what is wished for and
//! makes tgt agree, and has a program make snapshots, [`serve`] speaks with the members (`docs/drivers/iscsi.md`, ADR 0016).
//! Why it exists: tgt is configured on its own host only, forgets everything when it restarts, and knows no tokens (R8).
//! What it never does: it gives no right before the wish for it is on disk, and answers no question from memory.

mod config;
mod keeper;
mod record;
mod serve;
pub mod show;
mod snapshots;
mod tgt;

pub use config::{Config, ConfigError, Initiator, VolumeConfig};
pub use keeper::{ChangeError, Keeper, KeeperError};
pub use record::RecordError;
pub use serve::{ServeError, check, serve};
pub use snapshots::{SnapshotError, check_snapshots};
pub use tgt::{Tgt, TgtError};
