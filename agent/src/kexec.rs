//! Going on into another Linux kernel without the firmware's help: kexec_file_load(2), then reboot(2).
//!
//! Why it exists: a server's firmware takes minutes, its kernel seconds. What it never does: choose a kernel, or start one
//! before it is told to.

use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::reboot::{RebootMode, reboot};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Tells the kernel that there is no initial RAM disk (linux/kexec.h).
const KEXEC_FILE_NO_INITRAMFS: libc::c_ulong = 4;

/// A file that is only in memory.
///
/// # Errors
/// There is no memory for it.
pub fn file_in_memory(name: &str) -> io::Result<File> {
    Ok(File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC)?))
}

/// Loads a kernel, its initial RAM disks one after the other in one file, and its command line. Nothing else changes; what
/// was loaded before is forgotten. Needs CAP_SYS_BOOT and a kernel with CONFIG_KEXEC_FILE.
///
/// # Errors
/// The running kernel refused: the image is none, is not signed where that is wanted, or there is no memory.
pub fn load(kernel: &File, initrd: Option<&File>, args: &str) -> io::Result<()> {
    let args = CString::new(args).map_err(io::Error::other)?;
    let (initrd, flags) = match initrd {
        Some(initrd) => (initrd.as_raw_fd(), 0),
        None => (-1, KEXEC_FILE_NO_INITRAMFS),
    };
    let bytes = args.as_bytes_with_nul();
    #[expect(unsafe_code, reason = "no crate that we know wraps this call")]
    // SAFETY: the kernel reads the two files, which are open, and `bytes.len()` bytes at `bytes`, which outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            kernel.as_raw_fd(),
            initrd,
            bytes.len(),
            bytes.as_ptr(),
            flags,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Goes on into the kernel that was loaded. Returns only if that failed.
pub fn go() -> io::Error {
    nix::unistd::sync();
    end(RebootMode::RB_KEXEC)
}

/// Switches the machine off. Returns only if that failed.
pub fn power_off() -> io::Error {
    nix::unistd::sync();
    end(RebootMode::RB_POWER_OFF)
}

fn end(how: RebootMode) -> io::Error {
    match reboot(how) {
        Ok(never) => match never {},
        Err(error) => error.into(),
    }
}
