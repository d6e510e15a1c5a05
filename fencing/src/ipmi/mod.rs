//! IPMI 2.0 over LAN (RMCP+).
//!
//! Why it exists: nearly every server of the last fifteen years can be powered off this way.
//! What it never does: cipher suite 0 or any other suite without encryption, authentication and integrity; changing
//! the configured suite; taking a late or forged packet for an answer.

pub mod codec;
pub mod crypto;
pub mod rakp;
pub mod window;
