//! `lab`: servers that nobody of us wrote, and the real programs around them.
//!
//! Why it exists: `make lab`, `make lab-demo`, `make lab-test` and `make lab-down` call it. What it never does: hold logic; it
//! reads its command line and calls `chaos_tests::lab`.

use anyhow::{Context, Result, bail};
use chaos_tests::demo::{Bmcs, Home};
use chaos_tests::lab::{self, Lab, Namespace, Trial};
use clap::{Parser, Subcommand, ValueEnum};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

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
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // If even standard error is gone, nobody is left to tell; the exit code still says it.
        Err(error) => {
            writeln!(std::io::stderr(), "lab: {error:#}").map_or(ExitCode::from(2), |()| ExitCode::FAILURE)
        }
    }
}

fn say(line: &str) {
    // Whoever has gone away need not be told.
    writeln!(std::io::stdout(), "{line}").ok();
}

fn run(cli: Cli) -> Result<()> {
    if matches!(cli.verb, Verb::Down) {
        say(if Namespace::end()? { "the lab is down" } else { "no lab is up" });
        return Ok(());
    }
    let this = std::env::current_exe().context("find this program")?;
    let usual = this.ancestors().nth(2).map(|target| target.join("lab"));
    let dir = cli.dir.or(usual);
    // Before the runtime, whose threads have to be where this one is.
    let _namespace = Namespace::enter()?;
    let home = Home::prepare(dir.clone(), Bmcs::IpmiSim)?;
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).context("catch SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("catch SIGTERM")?;
        let work = async {
            let mut lab = Lab::build(&home, &|what| say(&format!("  {what}"))).await?;
            let done = match &cli.verb {
                Verb::Up => stay(&lab, &this).await,
                Verb::Demo => lab::demo(&mut lab, &say).await.map_err(Into::into),
                Verb::Test { trials, all } => {
                    let trials = if *all { Trial::value_variants() } else { trials.as_slice() };
                    let logs = dir.as_deref().unwrap_or(Path::new("target/lab"));
                    lab::test(&mut lab, trials, logs, &say).await.map_err(Into::into)
                }
                Verb::Bench { runs } => lab::bench(&lab, *runs, &say).await.map_err(Into::into),
                Verb::Soak { failovers } => lab::soak(&mut lab, *failovers, &say).await.map_err(Into::into),
                Verb::Down => Ok(()),
            };
            lab.end().await?;
            done
        };
        // Dropping the work kills every process that it started.
        tokio::select! {
            done = work => done,
            _ = interrupt.recv() => match cli.verb {
                Verb::Up => Ok(()),
                Verb::Demo | Verb::Test { .. } | Verb::Bench { .. } | Verb::Soak { .. } | Verb::Down => {
                    bail!("stopped")
                }
            },
            _ = terminate.recv() => Ok(()),
        }
    })
}

/// Says how to use it, and waits to be stopped.
async fn stay(lab: &Lab, this: &Path) -> Result<()> {
    let hactl = this.with_file_name("hactl");
    let enter =
        format!("ip netns exec ha-lab env HACTL_CONFIG={} {}", lab.context().display(), hactl.display());
    let rack = this.with_file_name("rack");
    let dir = this.ancestors().nth(2).unwrap_or(Path::new("target")).join("lab/rack");
    say(&format!(
        "the lab is up. In another terminal, as root:\n  {enter} status\n  \
         ip netns exec ha-lab curl http://10.100.0.11/\n  ip netns exec ha-lab {} do --dir {} hang node-1\n  {enter} watch\n\
         Ctrl-C here, or `make lab-down`, ends it.",
        rack.display(),
        dir.display()
    ));
    std::future::pending().await
}
