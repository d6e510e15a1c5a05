//! `demo`: watch a hung server come back on other hardware.
//!
//! Why it exists: one command, no root, nothing but cargo; `make demo` calls it.
//! What it never does: hold logic; it reads its command line and calls `chaos_tests::demo`.

use anyhow::{Context, Result};
use chaos_tests::demo::{self, Bmcs, Home, Kind};
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Watch a hung server come back on other hardware.
///
/// Runs the real programs beside this one (ha-supervisord, hactl, rack, ha-agent) on loopback: three members, six
/// nodes, a storage array. Without options it lets a node hang, tells what happens, and stays up until Ctrl-C, also
/// when standard output is no terminal.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  demo\n  demo --once\n  demo --once --kind lying-bmc\n  demo --bench 10"
)]
struct Cli {
    /// Directory for everything; emptied at each start. Default: demo in cargo's target directory
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Whose BMCs the nodes have
    #[arg(long, default_value = "own")]
    bmc: Bmcs,
    /// One failover of each kind; exits with 0 only if everything held
    #[arg(long)]
    once: bool,
    /// Only this kind of failure; may be given several times
    #[arg(long, requires = "once")]
    kind: Vec<Kind>,
    /// Measure this many failovers
    #[arg(long, value_name = "RUNS", conflicts_with_all = ["once", "bench_fence"], value_parser = clap::value_parser!(u16).range(1..))]
    bench: Option<u16>,
    /// Measure fences of 1 and of 100 nodes at once, this many times each
    #[arg(long, value_name = "RUNS", conflicts_with = "once", num_args = 0..=1, default_missing_value = "10", value_parser = clap::value_parser!(u16).range(1..))]
    bench_fence: Option<u16>,
    /// Measure from when on a changed policy is in force on all members, this many times
    #[arg(long, value_name = "RUNS", conflicts_with_all = ["once", "bench", "bench_fence"], value_parser = clap::value_parser!(u16).range(1..))]
    bench_policy: Option<u16>,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write;
            // If even standard error is gone, nobody is left to tell; the exit code still says it.
            writeln!(std::io::stderr(), "\ndemo: {error:#}").map_or(ExitCode::from(2), |()| ExitCode::FAILURE)
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let home = Home::prepare(cli.dir.as_deref(), "demo", cli.bmc)?;
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    runtime.block_on(async {
        // Signals are caught before anything is started that they would have to end.
        let mut interrupt = signal(SignalKind::interrupt()).context("catch SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("catch SIGTERM")?;
        let mut hangup = signal(SignalKind::hangup()).context("catch SIGHUP")?;
        let stop = async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        };
        let kinds = if cli.kind.is_empty() { Kind::ALL.to_vec() } else { cli.kind.clone() };
        let work = async {
            match (cli.bench, cli.bench_fence, cli.bench_policy) {
                (Some(runs), ..) => demo::bench(&home, usize::from(runs)).await,
                (None, Some(runs), _) => demo::bench_fence(&home, usize::from(runs)).await,
                (None, None, Some(runs)) => demo::bench_policy(&home, usize::from(runs)).await,
                (None, None, None) => demo::once(&home, &kinds).await,
            }
        };
        if cli.once || cli.bench.is_some() || cli.bench_fence.is_some() || cli.bench_policy.is_some() {
            // Dropping the work kills every process that it started.
            tokio::select! {
                done = work => Ok(done?),
                () = stop => anyhow::bail!("stopped"),
            }
        } else {
            Ok(demo::show(&home, stop).await?)
        }
    })
}
