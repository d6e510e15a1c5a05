//! `lab`: servers that nobody of us wrote, and the real programs around them.
//!
//! Why it exists: `make lab`, `make lab-demo`, `make lab-test` and `make lab-down` call it. What it never does: hold logic; it
//! reads its command line and calls `chaos_tests::lab`.

use anyhow::{Context, Result};
use chaos_tests::command::{self, say};
use chaos_tests::demo::{Bmcs, Home};
use chaos_tests::lab::{self, Lab, Namespace, Trial};
use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;

/// Four emulated machines (QEMU) with IPMI BMCs (ipmi_sim), iSCSI storage (tgt), a switch (Open vSwitch) and three members, in
/// a network namespace of their own. Needs root.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  lab up\n  lab demo\n  lab test hang thaw\n  lab test --all\n  \
                  lab bench --runs 10\n  lab soak --failovers 30\n  lab down"
)]
struct Cli {
    /// Directory for everything; emptied at each start. Default: lab in cargo's target directory
    #[arg(long, global = true)]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Bring it up and keep it until Ctrl-C or `lab down`
    Up,
    /// Bring it up, let a node hang, show what comes of it, take it down
    Demo,
    /// Bring it up, let things go wrong one after the other, take it down
    Test {
        /// Which, in this order
        #[arg(required_unless_present = "all")]
        trials: Vec<Trial>,
        /// All of them
        #[arg(long, conflicts_with = "trials")]
        all: bool,
    },
    /// Bring it up, measure failovers to cold and to hot spares by turns, take it down
    Bench {
        /// How many of each
        #[arg(long, default_value_t = 10)]
        runs: usize,
    },
    /// Bring it up, let one instance fail over again and again, take it down
    Soak {
        /// How often
        #[arg(long, default_value_t = 30)]
        failovers: usize,
    },
    /// End the lab that is up
    Down,
}

fn main() -> ExitCode {
    command::end("lab", &run(&Cli::parse()))
}

fn run(cli: &Cli) -> Result<()> {
    if matches!(cli.verb, Verb::Down) {
        say(if Namespace::end()? { "the lab is down" } else { "no lab is up" });
        return Ok(());
    }
    // Before the runtime, whose threads have to be where this one is.
    let _namespace = Namespace::enter()?;
    let home = Home::prepare(cli.dir.as_deref(), "lab", Bmcs::IpmiSim)?;
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    runtime.block_on(command::until_stopped(matches!(cli.verb, Verb::Up), async {
        let mut lab = Lab::build(&home, &|what| say(&format!("  {what}"))).await?;
        let done = match &cli.verb {
            Verb::Up => stay(&lab, &home).await,
            Verb::Demo => lab::demo(&mut lab, &say).await.map_err(Into::into),
            Verb::Test { trials, all } => {
                let trials = if *all { Trial::value_variants() } else { trials.as_slice() };
                lab::test(&mut lab, trials, home.dir(), &say).await.map_err(Into::into)
            }
            Verb::Bench { runs } => lab::bench(&lab, *runs, &say).await.map_err(Into::into),
            Verb::Soak { failovers } => lab::soak(&mut lab, *failovers, &say).await.map_err(Into::into),
            Verb::Down => Ok(()),
        };
        lab.end().await?;
        done
    }))
}

/// Says how to use it, and waits to be stopped.
async fn stay(lab: &Lab, home: &Home) -> Result<()> {
    let (hactl, rack, dir) = (home.program("hactl"), home.program("rack"), home.dir().join("rack"));
    let enter =
        format!("ip netns exec ha-lab env HACTL_CONFIG={} {}", lab.context().display(), hactl.display());
    say(&format!(
        "the lab is up. In another terminal, as root:\n  {enter} status\n  \
         ip netns exec ha-lab curl http://10.100.0.11/\n  ip netns exec ha-lab {} do --dir {} hang node-1\n  {enter} watch\n\
         Ctrl-C here, or `make lab-down`, ends it.",
        rack.display(),
        dir.display()
    ));
    std::future::pending().await
}
