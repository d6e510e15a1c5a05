//! IPMI 2.0 over LAN (RMCP+).
//!
//! Why it exists: nearly every server of the last fifteen years can be powered off this way.
//! What it never does: cipher suite 0 or any other suite without encryption, authentication and integrity; changing
//! the configured suite; taking a late or forged packet for an answer.

mod bmc;
pub mod codec;
pub mod commands;
pub mod crypto;
pub mod diagnosis;
mod listen;
mod live;
mod open;
mod port;
pub mod rakp;
pub mod sensors;
mod session;
pub mod sol;
pub mod window;

pub use bmc::{BadSettings, Bmc, Privilege, Settings};
pub use port::Port;
pub(crate) use port::lock;

/// For the fuzz harness (`chaos_tests::fuzzing`) alone: what decides whether a datagram is the answer.
#[doc(hidden)]
pub mod parse {
    pub use super::session::{Answer, NoNumber, NotTheAnswer, Session};
}
