//! The agent on a node, as a library: what the sender and the receiver of heartbeats must agree on, and the sender.
//!
//! What this is: the wire format ([`wire`], and [`answer`] of the way back), the node's key ([`key`]), the agent's
//! configuration ([`config`]), its watched files ([`watched`]), its sending half ([`beacon`]), what it sees of its node
//! ([`hardware`]), and how it tells that ([`inventory`]); when it feeds the node's watchdogs ([`watchdog`]); how a hot spare
//! waits ([`standby`]) and goes on into an instance's kernel ([`kexec`]). The supervisor's ingest uses the wire formats and
//! the key.
//! Why it exists: a node that says every 250 ms that it lives, which life it is and that its disk still takes writes
//! is judged dead sooner and wrongly less often than one that is only asked from outside.
//! What it never does: it obeys no datagram, decides nothing about any other node, and carries no secret but the node's own
//! key.

pub mod answer;
pub mod beacon;
pub mod config;
pub mod hardware;
pub mod inventory;
pub mod kept;
pub mod kexec;
pub mod key;
pub mod standby;
pub mod watchdog;
pub mod watched;
pub mod wire;
