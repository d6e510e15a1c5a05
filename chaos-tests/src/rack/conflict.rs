//! Why a device of the rack refuses a change.
//!
//! What this is: the refusals that array, switch and boot service share, and the comparison of tokens behind them.
//! Why it exists: a device that compares tokens turns a leader that was replaced into a harmless one (R8).
//! What it never does: it changes nothing.

use policies::LogIndex;
use provisioning::rack::Conflict;

/// Why nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// There is no such object.
    #[error("there is no {what}")]
    NotFound {
        /// Kind and name.
        what: String,
    },
    /// The change contradicts what the device has seen.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The device is in the mood to refuse.
    #[error("the device refuses every change")]
    Refused,
}

/// Lets a change pass whose token is not older than the newest one seen. The same token again is the same command.
pub(super) fn newest_first(newest: LogIndex, token: LogIndex) -> Result<(), Conflict> {
    if token < newest { Err(Conflict::TokenTooOld { newest }) } else { Ok(()) }
}
