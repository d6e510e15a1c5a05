//! `cloud`: failovers of nodes that are OpenStack's, against real services.
//!
//! Why it exists: `make test-openstack` calls it. What it never does: hold logic; it reads its command line and calls
//! `chaos_tests::cloud`.

use anyhow::Result;
use chaos_tests::cloud::{self, Site, Trial};
use chaos_tests::command::{self, say};
use chaos_tests::demo::{Bmcs, Home};
use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;

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

#[tokio::main]
async fn main() -> ExitCode {
    command::end("cloud", &run(&Cli::parse()).await)
}

async fn run(cli: &Cli) -> Result<()> {
    let home = Home::prepare(cli.dir.as_deref(), "cloud", Bmcs::Own)?;
    command::until_stopped(matches!(cli.verb, Verb::Up), async {
        let mut site = Site::build(&home, &|what| say(&format!("  {what}"))).await?;
        let done = match &cli.verb {
            Verb::Up => stay(&site, &home).await,
            Verb::Test { trials, all } => {
                let trials = if *all { Trial::value_variants() } else { trials.as_slice() };
                cloud::test(&mut site, trials, home.dir(), &say).await.map_err(Into::into)
            }
        };
        site.end().await?;
        done
    })
    .await
}

/// Says how to use it, and waits to be stopped.
async fn stay(site: &Site, home: &Home) -> Result<()> {
    let hactl = home.program("hactl");
    let hactl = format!("env HACTL_CONFIG={} {}", site.context().display(), hactl.display());
    say(&format!(
        "it is up. In another terminal:\n  {hactl} status\n  {hactl} instance list\n  {hactl} watch\nCtrl-C here ends it; the testbed goes on."
    ));
    std::future::pending().await
}
