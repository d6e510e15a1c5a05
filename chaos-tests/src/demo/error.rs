//! Why the demo could not go on, in words that tell a newcomer what to do.
//!
//! What it never does: hide what a program said; the tail of its log is part of the error.

use crate::rack::client::ClientError as RackClientError;
use crate::rack::description::DescriptionError;
use policies::BadName;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use supervisor::client::ClientError;

/// Lines of a log that an error shows.
const TAIL_LINES_MAX: usize = 15;
/// Bytes of a log that are looked at for them.
const TAIL_BYTES_MAX: usize = 64 * 1024;

/// Why the demo could not go on.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The system refused something.
    #[error("{doing}")]
    System {
        /// What we were doing.
        doing: String,
        /// Why not.
        source: io::Error,
    },
    /// A program of this project is not there.
    #[error("there is no {}; build everything first: cargo build --release --bins --workspace", .0.display())]
    NotBuilt(PathBuf),
    /// `ipmi_sim` is wanted and not installed.
    #[error("ipmi_sim is not installed; on Debian: apt-get install openipmi")]
    NoIpmiSim,
    /// The directory is somebody else's.
    #[error("{} {why}", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A program that was run for its answer failed.
    #[error("{command}\n  failed ({status}):\n{output}")]
    Program {
        /// As one would type it.
        command: String,
        /// How it ended.
        status: String,
        /// What it said.
        output: String,
    },
    /// A program that should run on has ended.
    #[error("{name} ended ({status}); the end of its log, {}:\n{tail}", log.display())]
    Ended {
        /// Whose process.
        name: String,
        /// How it ended.
        status: String,
        /// Its log.
        log: PathBuf,
        /// The end of the log.
        tail: String,
    },
    /// Something did not come in time.
    #[error("waited {within:?} for {what}; seen last: {seen}\n  the end of {}:\n{tail}", log.display())]
    Late {
        /// What was awaited.
        what: String,
        /// How long.
        within: Duration,
        /// What was seen instead.
        seen: String,
        /// The log that knows most about it.
        log: PathBuf,
        /// Its end.
        tail: String,
    },
    /// The cluster did not answer.
    #[error("{doing}")]
    Cluster {
        /// What we were doing.
        doing: &'static str,
        /// Why not.
        source: ClientError,
    },
    /// The rack did not answer.
    #[error("{doing}")]
    Rack {
        /// What we were doing.
        doing: &'static str,
        /// Why not.
        source: RackClientError,
    },
    /// The rack's files are not what they should be.
    #[error("read how the rack was described")]
    Description(#[source] DescriptionError),
    /// A name of the demo is none.
    #[error("name the demo's nodes")]
    Name(#[source] BadName),
    /// What came is not what the demo needs to go on.
    #[error("{0}")]
    Unexpected(String),
    /// Not everything held.
    #[error("{failed} of {of} did not hold; the logs are in {}", logs.display())]
    DidNotHold {
        /// How many kinds.
        failed: usize,
        /// Of how many.
        of: usize,
        /// Where the logs are.
        logs: PathBuf,
    },
}

/// Says what we were doing when the system refused.
pub(crate) fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> DemoError {
    let doing = doing.into();
    move |source| DemoError::System { doing, source }
}

/// The last lines of a log, indented.
pub(crate) fn tail(log: &Path) -> String {
    let bytes = match std::fs::read(log) {
        Ok(bytes) => bytes,
        Err(error) => return format!("    (it cannot be read: {error})"),
    };
    let end = bytes.get(bytes.len().saturating_sub(TAIL_BYTES_MAX)..).unwrap_or_default();
    let text = String::from_utf8_lossy(end);
    let lines: Vec<&str> = text.lines().collect();
    let shown = lines.get(lines.len().saturating_sub(TAIL_LINES_MAX)..).unwrap_or_default();
    if shown.is_empty() {
        return "    (it is empty)".to_owned();
    }
    shown.iter().fold(String::new(), |mut text, line| {
        let separator = if text.is_empty() { "" } else { "\n" };
        // Writing into a String cannot fail.
        write!(text, "{separator}    {line}").ok();
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_end_of_the_log_and_says_when_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        assert!(tail(&log).contains("cannot be read"));
        std::fs::write(&log, "").unwrap();
        assert_eq!(tail(&log), "    (it is empty)");
        let lines: String = (0..100).map(|line| format!("line {line}\n")).collect();
        std::fs::write(&log, lines).unwrap();
        let shown = tail(&log);
        assert_eq!(shown.lines().count(), TAIL_LINES_MAX);
        assert!(shown.starts_with("    line 85\n") && shown.ends_with("    line 99"), "{shown}");
    }
}
