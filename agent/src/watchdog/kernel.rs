//! A watchdog device of the Linux kernel, through its character device (Documentation/watchdog/watchdog-api.rst).
//!
//! What it never does: let go of the device, unless it is told to. Closed without the magic character, it goes on counting.

use nix::libc::c_int;
use policies::Millis;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Written before the device is closed: this is on purpose. Drivers with `nowayout` do not care.
const MAGIC_CLOSE: &[u8] = b"V";
/// Anything else feeds it.
const FOOD: &[u8] = b"\0";

/// A device that counts down.
pub(super) struct Kernel {
    file: File,
    timeout: Millis,
}

impl Kernel {
    /// Opens the device, and with that it counts.
    pub(super) fn arm(path: &Path, wanted: Millis) -> io::Result<Self> {
        // Any other file would be written to.
        if !path.metadata()?.file_type().is_char_device() {
            return Err(io::Error::other("it is no device"));
        }
        let file = File::options().write(true).open(path)?;
        match set(&file, wanted) {
            Ok(timeout) => Ok(Kernel { file, timeout }),
            Err(error) => {
                // Whether it is a watchdog or not, it must not be one that counts and that nobody feeds.
                Kernel { file, timeout: wanted }.disarm()?;
                Err(error)
            }
        }
    }

    /// Not fed for so long, it acts.
    pub(super) fn timeout(&self) -> Millis {
        self.timeout
    }

    pub(super) fn feed(&mut self) -> io::Result<()> {
        self.file.write_all(FOOD)
    }

    pub(super) fn disarm(mut self) -> io::Result<()> {
        self.file.write_all(MAGIC_CLOSE)
    }
}

mod ioctl {
    #![allow(
        unsafe_code,
        reason = "the macros make unsafe functions, for whoever upholds what is said below"
    )]
    use nix::libc::c_int;

    nix::ioctl_readwrite!(set_timeout, b'W', 6, c_int);
    nix::ioctl_read!(get_timeout, b'W', 7, c_int);
}

/// Sets the timeout, if the device can, and reads back what it took; that counts.
fn set(file: &File, wanted: Millis) -> io::Result<Millis> {
    let (fd, mut seconds) = (file.as_raw_fd(), c_int::try_from(wanted.0 / 1000).unwrap_or(c_int::MAX));
    #[expect(unsafe_code, reason = "nix has no safe form of this call")]
    // SAFETY: the descriptor is open, and the kernel reads and writes one int there, which outlives the calls.
    let read_back = unsafe {
        // Some cannot be set; what they have is read all the same.
        ioctl::set_timeout(fd, &raw mut seconds).ok();
        ioctl::get_timeout(fd, &raw mut seconds)
    };
    read_back?;
    u64::try_from(seconds)
        .ok()
        .filter(|seconds| *seconds > 0)
        .map(Millis::secs)
        .ok_or_else(|| io::Error::other(format!("it says that it waits {seconds} s")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_fed_with_anything_and_let_go_with_a_v() {
        let mut written = tempfile::NamedTempFile::new().unwrap();
        let armed = |file: File| Kernel { file, timeout: Millis::secs(10) };
        let mut kernel = armed(written.reopen().unwrap());
        kernel.feed().unwrap();
        kernel.feed().unwrap();
        drop(kernel);
        let text = |written: &mut tempfile::NamedTempFile| std::fs::read(written.path()).unwrap();
        assert_eq!(text(&mut written), b"\0\0", "an agent that was killed says nothing");
        armed(written.reopen().unwrap()).disarm().unwrap();
        assert_eq!(text(&mut written), b"V\0");
    }

    #[test]
    fn what_is_no_watchdog_is_refused_and_files_are_not_written_to() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = |path: &Path| Kernel::arm(path, Millis::secs(10)).err().unwrap().to_string();
        assert_eq!(refused(file.path()), "it is no device");
        assert_eq!(file.path().metadata().unwrap().len(), 0);
        assert!(refused(Path::new("/dev/null")).contains("Inappropriate ioctl"));
        assert!(refused(Path::new("/nowhere")).contains("No such file"));
    }
}
