//! Structured log lines on standard error, for people or for programs.
//!
//! Why it exists: one place decides level and form; the journal or the container runtime stores the lines. What it
//! never does: write files, rotate, or print a secret (types that hold one have a redacted `Debug`).

use crate::config::{Log, LogFormat};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Log lines could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error(
        "{from}: {filter:?} is not a log filter; write a level (error, warn, info, debug, trace) or module=level, separated by commas"
    )]
    Filter {
        /// Where it was given.
        from: &'static str,
        /// What was given.
        filter: String,
        /// Why it is none.
        source: tracing_subscriber::filter::ParseError,
    },
    /// This process has set them up already.
    #[error("set up the log lines of this process")]
    Twice(#[source] TryInitError),
}

/// Environment variable that goes before the configured filter.
pub const FILTER_VARIABLE: &str = "HA_LOG";

/// Starts writing log lines of this process to standard error.
///
/// # Errors
/// [`TelemetryError`].
pub fn start(log: &Log) -> Result<(), TelemetryError> {
    let (from, text) = match std::env::var(FILTER_VARIABLE) {
        Ok(text) => (FILTER_VARIABLE, text),
        Err(_) => ("log.filter", log.filter.clone()),
    };
    let filter = filter(from, &text)?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log.format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).finish().try_init(),
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init(),
    }
    .map_err(TelemetryError::Twice)
}

/// Reads a filter, for `check` as well.
///
/// # Errors
/// [`TelemetryError::Filter`].
pub fn filter(from: &'static str, text: &str) -> Result<EnvFilter, TelemetryError> {
    let bad = |source| TelemetryError::Filter { from, filter: text.to_owned(), source };
    EnvFilter::builder().parse(text).map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_checked_and_the_error_says_where_they_came_from() {
        assert!(filter("log.filter", "warn,supervisor=debug").is_ok());
        let said = filter("log.filter", "supervisor=loud").unwrap_err().to_string();
        assert!(said.starts_with("log.filter: \"supervisor=loud\" is not a log filter"), "{said}");
    }
}
