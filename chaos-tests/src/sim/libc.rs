//! The C library's clock and random numbers, replaced for the process that simulates.
//!
//! Why it exists: the product asks the operating system for the time (CLOCK_BOOTTIME, the wall clock) and for random
//! numbers (boot ids, election times, hash seeds, tokio's own dice). In a simulation both must come from the seed,
//! and no line of the product may know. The linker prefers these three functions to those of the C library; the
//! idea is that of mad-turmoil and madsim.
//! What it never does: change anything for a thread that has not called [`seed`] or [`set_clock`].
#![allow(unsafe_code, reason = "these are C functions, called by C rules")]

use super::dice::Dice;
use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_long, c_uint, c_void};

thread_local! {
    static DICE: RefCell<Option<Dice>> = const { RefCell::new(None) };
    static CLOCK: Cell<Option<Clock>> = const { Cell::new(None) };
}

/// The clock of the member whose code runs now.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// A moment of its runtime's clock ...
    pub origin: tokio::time::Instant,
    /// ... and what CLOCK_BOOTTIME and CLOCK_MONOTONIC showed then, in ns.
    pub boottime: u64,
    /// What the wall clock showed then, in ns since 1970.
    pub wall: u64,
}

/// From now on this thread's random numbers come from `seed`.
pub fn seed(seed: u64) {
    DICE.set(Some(Dice::new(seed)));
}

/// Sets whose clock this thread reads; `None`: the machine's.
pub fn set_clock(clock: Option<Clock>) {
    CLOCK.set(clock);
}

/// How many random numbers this thread has drawn; differs if anything else drew one.
pub fn drawn() -> u64 {
    DICE.with_borrow(|dice| dice.as_ref().map_or(0, Dice::drawn))
}

/// getrandom(2).
///
/// # Safety
/// `buffer` must have room for `length` bytes, as the C library demands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: c_uint) -> isize {
    let seeded = DICE.try_with(|dice| {
        let mut dice = dice.try_borrow_mut().ok()?;
        let dice = dice.as_mut()?;
        // SAFETY: the caller gives `length` writable bytes.
        let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
        bytes.fill_with(|| dice.byte());
        Some(length.cast_signed())
    });
    match seeded {
        Ok(Some(length)) => length,
        // SAFETY: the kernel checks the arguments.
        Ok(None) | Err(_) => unsafe {
            let arguments = [buffer as c_long, length.cast_signed() as c_long, c_long::from(flags), 0, 0, 0];
            to_errno(enter_kernel(nix::libc::SYS_getrandom, arguments)) as isize
        },
    }
}

/// clock_gettime(2).
///
/// # Safety
/// `time` must point to a timespec.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(id: c_int, time: *mut nix::libc::timespec) -> c_int {
    let Ok(Some(clock)) = CLOCK.try_with(Cell::get) else {
        // SAFETY: the kernel checks the arguments.
        return unsafe {
            let arguments = [c_long::from(id), time as c_long, 0, 0, 0, 0];
            to_errno(enter_kernel(nix::libc::SYS_clock_gettime, arguments)) as c_int
        };
    };
    // The runtime's clock is paused, so this does not come back here.
    let passed = tokio::time::Instant::now().duration_since(clock.origin).as_nanos() as u64;
    let nanos = passed + if id == nix::libc::CLOCK_REALTIME { clock.wall } else { clock.boottime };
    // SAFETY: the caller gives a timespec.
    unsafe {
        (*time).tv_sec = (nanos / 1_000_000_000).cast_signed();
        (*time).tv_nsec = (nanos % 1_000_000_000).cast_signed();
    }
    0
}

/// syscall(2), because `getrandom` 0.2 (openraft's random numbers) goes this way.
///
/// # Safety
/// As the system call demands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    if number == nix::libc::SYS_getrandom {
        // SAFETY: the same arguments.
        return unsafe { getrandom(a as *mut c_void, b.cast_unsigned() as usize, 0) as c_long };
    }
    // SAFETY: the kernel checks the arguments.
    unsafe { to_errno(enter_kernel(number, [a, b, c, d, e, f])) }
}

#[cfg(target_arch = "x86_64")]
unsafe fn enter_kernel(number: c_long, [a, b, c, d, e, f]: [c_long; 6]) -> c_long {
    let result;
    // SAFETY: the calling convention of Linux on x86-64 (syscall(2)).
    unsafe {
        std::arch::asm!(
            "syscall", inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _, options(nostack)
        );
    }
    result
}

#[cfg(target_arch = "aarch64")]
unsafe fn enter_kernel(number: c_long, [a, b, c, d, e, f]: [c_long; 6]) -> c_long {
    let result;
    // SAFETY: the calling convention of Linux on ARM64 (syscall(2)).
    unsafe {
        std::arch::asm!(
            "svc 0", in("x8") number, inlateout("x0") a => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f, options(nostack)
        );
    }
    result
}

/// The kernel gives errors as small negative numbers; C gives -1 and `errno`.
unsafe fn to_errno(result: c_long) -> c_long {
    if (-4095..0).contains(&result) {
        // SAFETY: always points to this thread's errno.
        unsafe { *nix::libc::__errno_location() = -(result as c_int) };
        return -1;
    }
    result
}
