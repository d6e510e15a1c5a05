//! The world that lies: everything that the supervisor is tried against.
//!
//! What this is: the emulated rack of machines, BMCs, storage array, switch and boot service.
//! Why it exists: a failover is proved by whoever stores the data, on machines that hang, lie and come back.
//! What it never does: no part of the product depends on it, and it knows nothing of the supervisor's insides.

#![deny(clippy::wildcard_enum_match_arm)]

pub mod cargo;
pub mod checkers;
mod clock;
pub mod cloud;
pub mod command;
pub mod demo;
pub mod field;
pub mod fuzzing;
pub mod lab;
pub mod netns;
#[cfg(feature = "sim")]
pub mod planted;
pub mod rack;
#[cfg(feature = "sim")]
pub mod sim;
