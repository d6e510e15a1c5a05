//! Network namespaces: for whoever needs a network of his own.
//!
//! What it never does: touch this computer's own network, unless it is told the names of its interfaces.

use crate::demo::DemoError;
use crate::demo::process::run;
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::Command;

/// Puts the calling thread, and all that it will start, into the network namespace of this file.
///
/// # Errors
/// What the system says.
pub fn enter(file: &Path) -> io::Result<()> {
    Ok(setns(File::open(file)?, CloneFlags::CLONE_NEWNET)?)
}

/// Runs `ip`, which must succeed.
pub(crate) fn ip(args: &[&str]) -> Result<(), DemoError> {
    run(Command::new("ip").args(args), None)
}
