//! The wall clock of one member, moved while it runs.
//!
//! Why it exists: wall clocks jump (a dead battery, a wrong NTP server, a person), and no decision may depend on them.
//! What it never does: move any other clock. Debian's `faketime` leaves CLOCK_MONOTONIC and CLOCK_BOOTTIME alone with
//! the settings here (measured: a jump of 5 days moved only CLOCK_REALTIME). The MT library, for the plain one breaks
//! `clock_nanosleep` (facts/verification.md section 3).

use crate::demo::DemoError;
use crate::demo::error::system;
use std::path::{Path, PathBuf};

/// Where Debian keeps it, by architecture.
const LIBRARIES: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
];

/// The library, if it is installed.
pub(super) fn library() -> Option<&'static str> {
    LIBRARIES.into_iter().find(|library| Path::new(library).exists())
}

/// A clock that can be moved.
#[derive(Clone, Debug)]
pub(super) struct WallClock {
    file: PathBuf,
}

impl WallClock {
    /// A clock that shows the right time.
    pub(super) fn new(file: PathBuf) -> Result<WallClock, DemoError> {
        let clock = WallClock { file };
        clock.set("+0")?;
        Ok(clock)
    }

    /// Moves it to so far from the right time: `+5d`, `-10d`.
    pub(super) fn set(&self, offset: &str) -> Result<(), DemoError> {
        std::fs::write(&self.file, offset).map_err(system(format!("write {}", self.file.display())))
    }

    /// What a program needs in its environment to go by this clock.
    pub(super) fn environment(&self, library: &str) -> Vec<(String, String)> {
        let pairs = [
            ("LD_PRELOAD", library.to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }
}
