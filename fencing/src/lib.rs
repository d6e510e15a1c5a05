//! The hand that stops.
//!
//! What this is: reading and setting the power of nodes, and the one algorithm that proves a node off.
//! Why it exists: "the BMC accepted the command" is not "the node is off"; later steps need what was seen.
//! What it never does: deciding whom to fence, or believing an acknowledgement.

#![deny(clippy::wildcard_enum_match_arm)]

pub mod console;
pub mod contract;
mod fence;
pub mod ipmi;
pub mod ironic;
mod power;
pub mod redfish;

pub use console::{Console, NotTyped};
pub use fence::{carry_out, fence, interrupt, power_on, shut_down};
pub use power::{Act, Bmc, Driver, DriverError, Look, PowerDriver, Weight};
