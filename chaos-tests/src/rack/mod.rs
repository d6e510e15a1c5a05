//! The emulated rack: machines as real processes, each with a BMC, on a shared array, switch and boot service.
//!
//! Why it exists: a newcomer with a Rust toolchain and nothing else can watch a server die and come back.
//! What it never does: it needs no root, leaves the loopback interface alone otherwise, and outlives nobody: its
//! processes end with it.
//!
//! ```text
//! control API ──┬─ array ◄─ TCP ─ workload ┐
//! (axum)        ├─ boot ── starts ──────────┤ machine (real processes, stopped and killed by signals)
//!               ├─ switch ─┬─ nic ◄── UDP ─ agent ┘
//!               │          └─ kernel (answers TCP probes)
//!               └─ chassis ◄─ bmc ◄── RMCP+ ── supervisor
//! ```

pub mod api;
pub mod array;
pub mod array_server;
pub mod bmc;
pub mod boot;
pub mod chassis;
pub mod client;
pub mod conflict;
pub mod description;
pub mod fault;
pub mod ipmi_sim;
pub mod journal;
pub mod kernel;
pub mod machine;
pub mod nic;
pub mod offspring;
pub mod qmp;
mod running;
pub mod software;
pub mod switch;
pub mod workload;
pub mod world;

pub use description::{BmcKind, Description, RackSpec};
pub use fault::{Fault, Mood, MoodChange, Path};
pub use journal::{Change, Journal, Noted};
pub use machine::Life;
pub use running::{Binaries, Rack, RackError};
pub use world::{Report, Status};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks plain data. A panic elsewhere cannot have left it half changed: no critical section here can panic.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads hexadecimal digits into exactly `N` bytes.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}
