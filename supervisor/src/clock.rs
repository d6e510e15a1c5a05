//! The clocks of this process, read in one place.
//!
//! Why it exists: leases and deadlines count on CLOCK_BOOTTIME, which goes on while the machine sleeps and is never
//! set (design R5); people read the wall clock. Newtypes keep the two apart.
//! What it never does: it does not compare clocks of two machines.

use nix::time::{ClockId, clock_gettime};
use policies::{Mono, Now, Wall};
use std::time::{SystemTime, UNIX_EPOCH};

/// CLOCK_BOOTTIME in milliseconds.
///
/// # Panics
/// If the kernel has no such clock (Linux before 2.6.39): a supervisor without a clock must not go on.
#[expect(clippy::panic, reason = "without this clock no lease can be kept; ending is the only safe answer")]
pub fn mono() -> Mono {
    match clock_gettime(ClockId::CLOCK_BOOTTIME) {
        Ok(time) => {
            let (seconds, nanos) = (u64::try_from(time.tv_sec()), u64::try_from(time.tv_nsec()));
            Mono(seconds.unwrap_or(0).saturating_mul(1000).saturating_add(nanos.unwrap_or(0) / 1_000_000))
        }
        Err(error) => panic!("read CLOCK_BOOTTIME: {error}"),
    }
}

/// The wall clock in milliseconds since 1970; 0 if it is set to a time before that.
pub fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Both clocks, read together.
pub fn now() -> Now {
    Now { mono: mono(), wall: wall() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_counts_from_the_boot_and_the_wall_clock_from_1970() {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let (first, second) = (now(), now());
        assert!((first.mono.0 as f64 / 1000.0 - seconds).abs() < 5.0, "{first:?}, uptime {seconds}");
        assert!(second.mono >= first.mono);
        assert!(first.wall > Wall(1_700_000_000_000));
    }
}
