//! The daemon: makes a member's directory, checks it, runs the member.
//!
//! Why it exists: one binary is all that a member needs. What it never does: hold logic; each verb calls the library.

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;
use policies::{MemberId, Wall};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use supervisor::auth::{Role, Tokens, create_token};
use supervisor::config::{Config, Home};
use supervisor::init::{self, Addresses};
use supervisor::seal::Seal;
use supervisor::{daemon, telemetry, tls};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Watches bare-metal servers, fences the dead and brings their instances back on spares.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a new cluster: its CA, its sealing key and the directory of its first member.
    #[command(
        after_help = "Example:\n  ha-supervisord init --dir /var/lib/ha --id 1 --cluster prod \\\n    \
        --member-addr 10.0.0.1:7101 --api-addr 10.0.0.1:7201 --heartbeat-addr 10.0.0.1:7301"
    )]
    Init {
        #[command(flatten)]
        dir: Dir,
        /// Number of the first member.
        #[arg(long, default_value_t = 1)]
        id: u64,
        /// Name of the cluster, for people.
        #[arg(long)]
        cluster: String,
        #[command(flatten)]
        addrs: Addrs,
    },
    /// Make the bundle from which a further member joins. Run it where `init` was run.
    #[command(
        after_help = "Example:\n  ha-supervisord invite --dir /var/lib/ha --id 2 --member-addr 10.0.0.2:7101 \\\n    \
        --api-addr 10.0.0.2:7201 --heartbeat-addr 10.0.0.2:7301 --out m2.bundle"
    )]
    Invite {
        #[command(flatten)]
        dir: Dir,
        /// Number of the new member; a number is never used twice.
        #[arg(long)]
        id: u64,
        #[command(flatten)]
        addrs: Addrs,
        /// The bundle to write. It holds keys: move it by a safe way and delete it afterwards.
        #[arg(long)]
        out: PathBuf,
    },
    /// Make the directory of a further member from its bundle.
    #[command(after_help = "Example:\n  ha-supervisord join --dir /var/lib/ha --bundle m2.bundle")]
    Join {
        #[command(flatten)]
        dir: Dir,
        /// The bundle that `invite` wrote.
        #[arg(long)]
        bundle: PathBuf,
    },
    /// Check a member's directory without starting anything.
    Check {
        #[command(flatten)]
        dir: Dir,
    },
    /// Run the member until it gets SIGTERM or SIGINT.
    Run {
        #[command(flatten)]
        dir: Dir,
    },
    /// Tokens for programs that use the API of this member.
    #[command(subcommand)]
    Token(TokenVerb),
}

#[derive(Subcommand)]
enum TokenVerb {
    /// Make a token, print it once, and keep only its hash.
    #[command(
        after_help = "Example:\n  ha-supervisord token create --dir /var/lib/ha --name prometheus --role reader"
    )]
    Create {
        #[command(flatten)]
        dir: Dir,
        /// Its name in the log.
        #[arg(long)]
        name: String,
        /// What it may do.
        #[arg(long, value_enum)]
        role: RoleName,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum RoleName {
    /// Read everything but secrets.
    Reader,
    /// Read, and change everything.
    Operator,
}

#[derive(Args)]
struct Dir {
    /// The member's directory.
    #[arg(long)]
    dir: PathBuf,
}

#[derive(Args)]
struct Addrs {
    /// host:port for the other members (TCP).
    #[arg(long)]
    member_addr: String,
    /// host:port for the HTTPS API (TCP).
    #[arg(long)]
    api_addr: String,
    /// host:port for heartbeats (UDP).
    #[arg(long)]
    heartbeat_addr: String,
    /// The failure domain that the member stands in (a site, a room, a rack).
    #[arg(long, default_value = "default")]
    domain: String,
}

impl From<Addrs> for Addresses {
    fn from(addrs: Addrs) -> Self {
        let Addrs { member_addr, api_addr, heartbeat_addr, domain } = addrs;
        Addresses { member: member_addr, api: api_addr, heartbeat: heartbeat_addr, domain }
    }
}

fn main() -> ExitCode {
    match carry_out(Cli::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If even standard error is gone, nobody is left to tell; the exit code still says it.
            writeln!(std::io::stderr(), "ha-supervisord: {error:#}")
                .map_or(ExitCode::from(2), |()| ExitCode::FAILURE)
        }
    }
}

fn carry_out(verb: Verb) -> Result<()> {
    match verb {
        Verb::Init { dir, id, cluster, addrs } => {
            let home = Home::new(dir.dir);
            let config = init::init(&home, MemberId(id), &cluster, addrs.into(), Timestamp::now())?;
            say(&after_init(&home, &config))
        }
        Verb::Invite { dir, id, addrs, out } => {
            let addresses = Addresses::from(addrs);
            let add = format!(
                "hactl member add {id} --member-addr {} --api-addr {}",
                addresses.member, addresses.api
            );
            init::invite(&Home::new(dir.dir), MemberId(id), addresses, &out, Timestamp::now())?;
            say(&format!(
                "Wrote {}; it holds keys. On the new member:\n  ha-supervisord join --dir DIR --bundle {}\n  \
                 ha-supervisord run --dir DIR\nthen, anywhere:\n  {add}\n",
                out.display(),
                out.display()
            ))
        }
        Verb::Join { dir, bundle } => {
            let home = Home::new(dir.dir);
            let config = init::join(&home, &bundle)?;
            say(&format!(
                "Made {} for member {} of {}. Delete {}; then:\n  ha-supervisord run --dir {}\n",
                home.dir().display(),
                config.member.id,
                config.cluster.name,
                bundle.display(),
                home.dir().display()
            ))
        }
        Verb::Check { dir } => {
            let home = Home::new(dir.dir);
            let config = check(&home)?;
            say(&format!(
                "{}: member {} of {}: good\n",
                home.config().display(),
                config.member.id,
                config.cluster.name
            ))
        }
        Verb::Run { dir } => run(&Home::new(dir.dir)),
        Verb::Token(TokenVerb::Create { dir, name, role }) => {
            let role = match role {
                RoleName::Reader => Role::Reader,
                RoleName::Operator => Role::Operator,
            };
            let now = Wall(u64::try_from(Timestamp::now().as_millisecond()).context("read the clock")?);
            let path = Home::new(dir.dir).tokens();
            let (token, entry) = create_token(&path, &name, role, now)?;
            say(&format!(
                "{}\n\nThis is the only time that it is shown. It works at this member at once; for the others append \
                 to their tokens.toml:\n\n{entry}",
                *token
            ))
        }
    }
}

/// Everything that can be known to be wrong before anything runs.
fn check(home: &Home) -> Result<Config> {
    let config = Config::load(home)?;
    telemetry::filter("log.filter", &config.log.filter)?;
    let credentials = tls::Credentials::of_member(home)?;
    credentials.member_server()?;
    credentials.member_client()?;
    Seal::load(&home.seal_key(), &config.cluster.id)?;
    Tokens::open(home.tokens())?;
    Ok(config)
}

fn run(home: &Home) -> Result<()> {
    let config = check(home)?;
    telemetry::start(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("start the async runtime")?;
    runtime.block_on(async {
        let (stopper, stop) = watch::channel(false);
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let signals = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            stopper.send_replace(true);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = daemon::run(home, config, stop) => ended.map_err(anyhow::Error::from),
            () = signals => Ok(()),
        }
    })
}

fn after_init(home: &Home, config: &Config) -> String {
    let dir = home.dir().display();
    format!(
        "Made cluster {} and member {} in {dir}.\n\
         Keep a copy of {} off line: who has it can make members and operators.\n\n\
         Next:\n  ha-supervisord run --dir {dir}\n  export HACTL_CONFIG={}\n  hactl status\n  \
         ha-supervisord invite --dir {dir} --id 2 ... --out m2.bundle    (for each further member; 3 or 5 in all)\n",
        config.cluster.name,
        config.member.id,
        home.ca_key().display(),
        home.hactl().display(),
    )
}

fn say(text: &str) -> Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("write to standard output")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }
}
