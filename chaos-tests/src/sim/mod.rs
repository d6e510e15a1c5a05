//! The deterministic simulator: the whole product in a world that is made of one seed.
//!
//! What this is: three or five members, each the real engine, the real store (openraft and redb), the real loop and
//! executor, on simulated disks, networks, clocks, BMCs, volumes and switches.
//! Why it exists: a fault that needs three coincidences is found here in minutes, and found again by its seed.
//! What it never does: change a line of the product. What members stand on is given to them (`raft_store::ground`,
//! `supervisor::outside`); the clock and the random numbers of the C library are replaced for this process (`libc`).
//!
//! ```text
//! script     what a seed decides: knobs, and a list of faults with their times
//! simulation plays it: forms the cluster, steps the world, steps each member
//!   world    one clock, one queue; net, disk, machine, array, outside: what members touch
//!   member   one life: the product on a tokio runtime of its own, whose clock is paused
//!   trouble  what each fault means
//! ../checkers judge every fact
//! ```
#![allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a simulator that is wrong must stop at once, as an assertion does; it runs on 64 bits"
)]

pub mod ambush;
pub mod array;
pub mod campaign;
pub mod dice;
pub mod disk;
pub mod fault;
pub mod libc;
pub mod machine;
pub mod member;
pub mod net;
pub mod outside;
pub mod scene;
pub mod script;
pub mod simulation;
pub mod story;
pub mod trace;
pub mod trouble;
pub mod world;

pub use world::Death;
