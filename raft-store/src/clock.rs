//! The one clock of this crate that is compared with other readings of itself.
//!
//! Why it exists: a lease must run while the machine is suspended, so it is measured with CLOCK_BOOTTIME
//! (clock_gettime(2)); `std::time::Instant` uses CLOCK_MONOTONIC, which stands still then.
//! What it never does: tell the time of day.

use nix::time::{ClockId, clock_gettime};
use policies::Mono;

/// Milliseconds since boot, suspended time included.
///
/// Falls back to the end of time if the kernel does not know the clock (Linux before 2.6.39): a lease is then always
/// over, and nothing is done under it.
pub(crate) fn boottime() -> Mono {
    let Ok(time) = clock_gettime(ClockId::CLOCK_BOOTTIME) else { return Mono(u64::MAX) };
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    Mono(part(time.tv_sec()).saturating_mul(1000).saturating_add(part(time.tv_nsec()) / 1_000_000))
}
