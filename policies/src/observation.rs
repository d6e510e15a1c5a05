//! What members see of nodes. Beliefs, never decisions.

use crate::words::*;
use serde::{Deserialize, Serialize};

/// Power as a BMC reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Power {
    /// On.
    On,
    /// Off.
    Off,
}

/// What an authenticated, fresh heartbeat said. Produced by the ingest after key, replay and format checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Which life of the node's operating system.
    pub boot: BootId,
    /// The placement that the node believes to run; 0 on a spare.
    pub epoch: Epoch,
    /// Age of the last acknowledged disk write; `None`: no write yet or none watched.
    pub write_age: Option<Millis>,
    /// The node says that it is going down: a positive sign, no waiting.
    pub last_gasp: Option<LastGasp>,
}

/// Why a node says farewell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LastGasp {
    /// The operating system is shutting down in order.
    Shutdown,
    /// The kernel panicked.
    Panic,
}
