//! The demo: a cluster, a rack, a fault, and what became of it.
//!
//! What this is: it runs the real programs as a user would, lets a node fail, tells what happens and why, and lets the
//! storage array judge. Why it exists: a newcomer sees in one command what the program is for, and the same code
//! measures it (`make demo`, `make demo ONCE=1`, `make bench`).
//! What it never does: it asks for no root, touches nothing but loopback and its own directory, leaves nothing
//! running, and prints no number that it did not measure.
//!
//! ```text
//! show / once / bench ── failover ── stage ─┬─ cluster: three ha-supervisord, hactl
//!                           │               └─ rack: nodes, BMCs, storage array, switch
//!                           └─ findings ── verdict (pure), moments (pure), table (pure)
//! ```
//!
//! `crate::field`, `crate::lab` and `crate::cloud` are built of the same parts; `watched` and `tally` are theirs.

mod bench;
mod bench_fence;
mod bench_policy;
pub(crate) mod cluster;
pub(crate) mod error;
mod failover;
mod findings;
pub(crate) mod ground;
pub(crate) mod history;
pub(crate) mod home;
mod kind;
mod moments;
mod narrator;
mod once;
mod ports;
pub(crate) mod process;
mod show;
pub(crate) mod stage;
pub(crate) mod table;
pub(crate) mod tally;
mod verdict;
pub(crate) mod wait;
pub(crate) mod watched;

pub use bench::bench;
pub use bench_fence::bench_fence;
pub use bench_policy::bench_policy;
pub use error::DemoError;
pub use home::{Bmcs, Home};
pub use kind::Kind;
pub use once::once;
pub use show::show;
