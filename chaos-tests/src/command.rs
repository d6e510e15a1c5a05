//! What the programs that run the product have in common: how they speak, how they are stopped, how they end.

use anyhow::{Context, Result, bail};
use std::io::Write;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Writes a line to standard output. Whoever has gone away need not be told.
pub fn say(line: &str) {
    writeln!(std::io::stdout(), "{line}").ok();
}

/// How a program ends. If even standard error is gone, nobody is left to tell; the exit code still says it.
pub fn end(program: &str, done: &Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => writeln!(std::io::stderr(), "{program}: {error:#}")
            .map_or(ExitCode::from(2), |()| ExitCode::FAILURE),
    }
}

/// Does the work until it is done or a signal stops it: then it is dropped, which kills every process that it started. What was to
/// `stay` until somebody ends it ends well by Ctrl-C, too.
///
/// # Errors
/// Those of the work; that it was stopped.
pub async fn until_stopped(stay: bool, work: impl Future<Output = Result<()>>) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("catch SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("catch SIGTERM")?;
    tokio::select! {
        done = work => done,
        _ = interrupt.recv() => if stay { Ok(()) } else { bail!("stopped") },
        _ = terminate.recv() => Ok(()),
    }
}
