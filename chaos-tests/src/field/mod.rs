//! The field: the real programs in network namespaces, on disks that forget and fail, with clocks that jump.
//!
//! What this is: a score of scenarios. Each builds a cluster and a rack, breaks something, waits until the cluster has
//! dealt with it, and asks the audit trail what became of the promises.
//! Why it exists: the simulator knows every interleaving and no kernel; here are the kernel's sockets, files, signals
//! and limits.
//! What it never does: leave a namespace, mount, process or group behind (all are named `vf-...`; what a killed run left
//! is swept by the next), touch this computer's own network, or end a process that it did not start.
//!
//! ```text
//! run ─ scenario ─┬─ kills, partitions, disks, scarcity, nodes ─ scene ─┬─ demo::stage (members, rack)
//!                 │                                                     ├─ net, control, clock
//!                 │                                                     └─ faultfs ─ platter (pure)
//!                 └─ gather ─┬─ facts (plain data) ─┬─ checks (pure)
//!                            └─ logs                └─ trail ─ court ─ crate::checkers (pure)
//! ```

#[cfg(test)]
mod calm;
mod checks;
mod clock;
pub(crate) mod control;
mod court;
mod disks;
mod facts;
mod faultfs;
mod gather;
mod kills;
mod logs;
mod net;
mod nodes;
mod notes;
mod partitions;
mod platter;
mod run;
mod scarcity;
mod scenario;
mod scene;
mod trail;

pub use run::Field;
pub use scenario::Scenario;
