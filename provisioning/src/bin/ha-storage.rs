//! The daemon beside tgt on a storage host.
//!
//! Why it exists: `provisioning::storage` needs a process. What it never does: hold logic.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use provisioning::storage::{self, Config, Keeper, Tgt};
use std::io::Write;
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};

/// Gives volumes of this host's tgt to one initiator at a time, as the members of the cluster say.
#[derive(Parser)]
#[command(
    version,
    after_help = "Example of /etc/ha-storage.toml:\n
  listen = \"10.78.0.1:7400\"
  certificate = \"/etc/ha-storage/cert.pem\"
  key = \"/etc/ha-storage/key.pem\"
  token_file = \"/etc/ha-storage/token\"
  state = \"/var/lib/ha-storage\"
  snapshot_program = \"/usr/local/sbin/ha-snapshot\"

  [[volume]]
  name = \"web-root\"
  target = \"iqn.2026-01.org.example:web-root\"
  backing = \"/dev/vg0/web-root\"

  [[initiator]]
  name = \"iqn.2026-01.org.example:n1\"
  chap_user = \"n1\"
  chap_secret_file = \"/etc/ha-storage/chap-n1\"

  ha-storage check && ha-storage          see docs/drivers/iscsi.md"
)]
struct Cli {
    /// The configuration.
    #[arg(long, default_value = "/etc/ha-storage.toml", global = true)]
    config: PathBuf,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Check the configuration, and whether tgtd and snapshot_program answer; changes nothing.
    Check,
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    let config = Config::load(&cli.config).context("read the configuration")?;
    match cli.verb {
        Some(Verb::Check) => check(&config).await,
        None => run(config).await,
    }
}

async fn check(config: &Config) -> Result<()> {
    storage::check(config).context("read the files that the configuration names")?;
    let targets = Tgt::new(config).targets().await.context("ask tgtd")?;
    let snapshots = storage::check_snapshots(config).await.context("ask snapshot_program")?;
    let (volumes, initiators) = (config.volumes.len(), config.initiators.len());
    let snapshots =
        snapshots.map(|ours| format!("; snapshot_program answers, it lists {ours} snapshots of ours"));
    writeln!(
        std::io::stdout(),
        "{volumes} volumes, {initiators} initiators; tgtd answers, it has {} targets{}",
        targets.len(),
        snapshots.unwrap_or_default()
    )?;
    Ok(())
}

async fn run(config: Config) -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let (mut end, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = async move {
        tokio::select! {
            _ = end.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let keeper = Keeper::open(config.clone()).context("read what is wished for")?;
    storage::serve(&config, keeper, stop).await.context("serve")
}
