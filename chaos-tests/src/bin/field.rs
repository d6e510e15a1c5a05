//! `field`: the real programs under real faults.
//!
//! Why it exists: `make test-chaos` calls it. What it never does: hold logic; it reads its command line and calls
//! `chaos_tests::field`.

use anyhow::{Context, Result};
use chaos_tests::command;
use chaos_tests::demo::{Bmcs, Home};
use chaos_tests::field::{Field, Scenario};
use clap::{Parser, Subcommand};
use policies::Millis;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Runs the real programs beside this one in network namespaces and breaks things. Needs root; without it, or where
/// the kernel lacks something, scenarios are skipped and say so.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  field list\n  field run leader-stopped\n  field run --all\n  field soak 1h"
)]
struct Cli {
    /// Directory for everything; emptied at each start. Default: field in cargo's target directory
    #[arg(long, global = true)]
    dir: Option<PathBuf>,
    /// Draws what scenarios leave to chance
    #[arg(long, global = true)]
    seed: Option<u64>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// All scenarios
    List,
    /// Run scenarios
    Run {
        /// Which, in this order
        #[arg(required_unless_present = "all")]
        scenarios: Vec<Scenario>,
        /// All of them
        #[arg(long, conflicts_with = "scenarios")]
        all: bool,
    },
    /// Run scenarios drawn by chance for this long, e.g. 1h
    Soak {
        /// How long
        length: Millis,
    },
}

fn main() -> ExitCode {
    command::end("field", &run(&Cli::parse()))
}

fn run(cli: &Cli) -> Result<()> {
    if matches!(cli.verb, Verb::List) {
        return list();
    }
    // Before the runtime, whose threads have to be where this one is; and before the directory is emptied, in which a
    // killed run may have left mounts.
    let field = Field::open()?;
    let home = Home::prepare(cli.dir.as_deref(), "field", Bmcs::Own)?;
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).context("catch SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("catch SIGTERM")?;
        let seed = cli.seed.unwrap_or(1);
        let work = async {
            match &cli.verb {
                Verb::List => Ok(()),
                Verb::Run { all: true, .. } => field.run(&home, &Scenario::ALL, seed).await,
                Verb::Run { scenarios, .. } => field.run(&home, scenarios, seed).await,
                Verb::Soak { length } => {
                    let seed = cli.seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
                    field.soak(&home, Duration::from_millis(length.0), seed).await
                }
            }
        };
        // Dropping the work kills every process that it started.
        tokio::select! {
            done = work => Ok(done?),
            _ = interrupt.recv() => anyhow::bail!("stopped"),
            _ = terminate.recv() => anyhow::bail!("stopped"),
        }
    })
}

fn list() -> Result<()> {
    let mut out = std::io::stdout().lock();
    for scenario in Scenario::ALL {
        let (name, done) = scenario.describe();
        writeln!(out, "{name:<22} {done}").context("write to standard output")?;
    }
    Ok(())
}
