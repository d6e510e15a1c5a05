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
pub mod command;
mod describe;
pub mod effect;
pub mod inventory;
pub mod observation;
pub mod plan;
pub mod policy;
pub mod state;
mod steps;
pub mod waiting;
pub mod watch;
pub mod words;

pub use command::*;
pub use effect::*;
pub use inventory::*;
pub use observation::*;
pub use plan::*;
pub use policy::*;
pub use state::*;
pub use waiting::*;
pub use words::*;
