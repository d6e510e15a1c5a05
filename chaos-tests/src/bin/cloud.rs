//! `cloud`: failovers of nodes that are OpenStack's, against real services.
//!
//! Why it exists: `make test-openstack` calls it. What it never does: hold logic; it reads its command line and calls
//! `chaos_tests::cloud`.

use anyhow::{Context, Result, bail};
use chaos_tests::cloud::{self, Site, Trial};
use chaos_tests::demo::{Bmcs, Home};
use clap::{Parser, Subcommand, ValueEnum};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Three members and the nodes of the OpenStack testbed, which has to run already: chaos-tests/openstack/start.
#[derive(Debug, Parser)]
#[command(version, after_help = "Examples:\n  cloud test hang spare-fails\n  cloud test --all\n  cloud up")]
struct Cli {
    /// Directory for everything; emptied at each start. Default: cloud in cargo's target directory
    #[arg(long, global = true)]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Bring it up and keep it until Ctrl-C
    Up,
    /// Bring it up, let things go wrong one after the other, take it down
    Test {
        /// Which, in this order
        #[arg(required_unless_present = "all")]
        trials: Vec<Trial>,
        /// All of them
        #[arg(long, conflicts_with = "trials")]
        all: bool,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // If even standard error is gone, nobody is left to tell; the exit code still says it.
        Err(error) => {
            writeln!(std::io::stderr(), "cloud: {error:#}").map_or(ExitCode::from(2), |()| ExitCode::FAILURE)
        }
    }
}

fn say(line: &str) {
    // Whoever has gone away need not be told.
    writeln!(std::io::stdout(), "{line}").ok();
}

#[tokio::main]
async fn run(cli: Cli) -> Result<()> {
    let this = std::env::current_exe().context("find this program")?;
    let usual = this.ancestors().nth(2).map(|target| target.join("cloud"));
    let dir = cli.dir.or(usual);
    let home = Home::prepare(dir.clone(), Bmcs::Own)?;
    let mut interrupt = signal(SignalKind::interrupt()).context("catch SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("catch SIGTERM")?;
    let work = async {
        let mut site = Site::build(&home, &|what| say(&format!("  {what}"))).await?;
        let done = match &cli.verb {
            Verb::Up => stay(&site, &this).await,
            Verb::Test { trials, all } => {
                let trials = if *all { Trial::value_variants() } else { trials.as_slice() };
                let logs = dir.as_deref().unwrap_or(Path::new("target/cloud"));
                cloud::test(&mut site, trials, logs, &say).await.map_err(Into::into)
            }
        };
        site.end().await?;
        done
    };
    // Dropping the work kills every process that it started.
    tokio::select! {
        done = work => done,
        _ = interrupt.recv() => match cli.verb {
            Verb::Up => Ok(()),
            Verb::Test { .. } => bail!("stopped"),
        },
        _ = terminate.recv() => Ok(()),
    }
}

/// Says how to use it, and waits to be stopped.
async fn stay(site: &Site, this: &Path) -> Result<()> {
    let hactl = this.with_file_name("hactl");
    let hactl = format!("env HACTL_CONFIG={} {}", site.context().display(), hactl.display());
    say(&format!(
        "it is up. In another terminal:\n  {hactl} status\n  {hactl} instance list\n  {hactl} watch\nCtrl-C here ends it; the testbed goes on."
    ));
    std::future::pending().await
}
