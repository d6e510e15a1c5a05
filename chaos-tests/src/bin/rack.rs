//! `rack`: the emulated rack on the command line.
//!
//! Why it exists: so that anybody can watch a server die and come back, with nothing but a Rust toolchain.
//! What it never does: it needs no root and leaves nothing running.

use anyhow::{Context, Result, bail};
use chaos_tests::netns;
use chaos_tests::rack::client::Client;
use chaos_tests::rack::workload::Workload;
use chaos_tests::rack::{
    Binaries, BmcKind, Description, Fault, MoodChange, Path as Cable, Rack, RackSpec, api::ChassisCommand,
    fault::DeviceMood,
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};
use policies::{Millis, NodeId, PolicyId, Power};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use tokio::signal::unix::{SignalKind, signal};

/// An emulated rack of servers: real processes, real IPMI, a storage array that knows who wrote when.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Example:\n  rack init --dir /tmp/r --members 127.0.0.1:7301\n  rack run --dir /tmp/r &\n  rack do --dir /tmp/r hang node-1"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Describe a new rack: writes DIR/rack.toml and, for the supervisor, DIR/inventory.toml
    Init(Init),
    /// Run a rack until SIGTERM or SIGINT
    Run(Run),
    /// Only BMCs, in a directory of their own: for measuring many fences at once
    Bmcs(Bmcs),
    /// Let something happen to a running rack, or look at it
    Do(Do),
    /// Answer ipmi_sim's chassis program
    #[command(hide = true)]
    Chassis(Chassis),
    /// Write a growing number to a volume
    #[command(hide = true)]
    Workload(Workload),
    /// Become a program that ends with its parent
    #[command(hide = true)]
    Child(Child),
}

#[derive(Debug, Args)]
struct Init {
    /// Directory of the rack
    #[arg(long)]
    dir: PathBuf,
    /// Machines, spares included
    #[arg(long, default_value_t = 6)]
    machines: usize,
    /// How many of them are spares
    #[arg(long, default_value_t = 2)]
    spares: usize,
    /// Policy of every instance
    #[arg(long, default_value = "quick")]
    policy: PolicyId,
    /// Heartbeat addresses of the supervisor's members
    #[arg(long, value_delimiter = ',', required = true)]
    members: Vec<String>,
    /// Where everything of the rack listens
    #[arg(long, default_value = "127.0.0.1")]
    address: std::net::IpAddr,
    /// Whose BMCs
    #[arg(long, default_value = "own")]
    bmc: Bmc,
    /// Cipher suite of the BMCs: 17 or 3. Default: 17, with ipmi_sim 3
    #[arg(long)]
    suite: Option<u8>,
    /// From power-on to a running operating system
    #[arg(long, default_value = "100ms")]
    boot_delay: Millis,
    /// Time between heartbeats
    #[arg(long, default_value = "100ms")]
    heartbeat: Millis,
    /// Time between two writes of a workload
    #[arg(long, default_value = "10ms")]
    write_every: Millis,
    /// The array gives a volume to whoever is attached, also to two at once
    #[arg(long)]
    shared_volumes: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Bmc {
    Own,
    #[value(name = "ipmi_sim", alias = "ipmi-sim")]
    IpmiSim,
}

#[derive(Debug, Args)]
struct Run {
    /// Directory of the rack
    #[arg(long)]
    dir: PathBuf,
    /// The ha-agent binary; default: the one beside this program
    #[arg(long)]
    agent: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Bmcs {
    /// Directory, written anew
    #[arg(long)]
    dir: PathBuf,
    /// How many
    #[arg(long)]
    count: usize,
    /// Cipher suite in the inventory: 17 or 3
    #[arg(long, default_value_t = 17)]
    suite: u8,
}

#[derive(Debug, Args)]
struct Do {
    /// Directory of the rack
    #[arg(long)]
    dir: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Press the power button
    PowerOn { node: NodeId },
    /// Hold the power button
    PowerOff { node: NodeId },
    /// Stand still for good; the kernel answers nothing
    Hang { node: NodeId },
    /// Panic the kernel
    Panic {
        node: NodeId,
        /// The panic hook still sends a farewell
        #[arg(long)]
        gasp: bool,
    },
    /// Stand still until thawed
    Freeze { node: NodeId },
    /// End a freeze
    Thaw { node: NodeId },
    /// Stop only the agent
    StopAgent { node: NodeId },
    /// Take the supply from the machine and its BMC
    PowerLoss { node: NodeId },
    /// Pull a network cable
    CutNic {
        node: NodeId,
        /// a, b, all, or storage
        #[arg(long, default_value = "all")]
        path: Which,
    },
    /// Plug everything in, give the supply back, make the BMC behave
    Heal { node: NodeId },
    /// ok, dead, slow[=200ms], off-delay[=1s], lying, ignore-off, ignore-soft, refuse, sessions[=1]
    BmcMood { node: NodeId, mood: MoodChange },
    /// How array, switch and boot service answer
    DeviceMood { mood: Devices },
    /// The rack as it is now, as JSON
    Status,
    /// What the array has seen, as JSON
    Report,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Which {
    A,
    B,
    All,
    Storage,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Devices {
    Ok,
    Hang,
    Lie,
    Refuse,
    KeepSessions,
}

#[derive(Debug, Args)]
struct Chassis {
    #[arg(long)]
    dir: PathBuf,
    node: NodeId,
    /// get or set, then pairs or names as ipmi_sim gives them
    #[arg(required = true, num_args = 1.., allow_hyphen_values = true)]
    words: Vec<String>,
}

#[derive(Debug, Args)]
struct Child {
    #[arg(long)]
    parent: i32,
    /// File of the network namespace to be in
    #[arg(long)]
    net: Option<PathBuf>,
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

fn main() -> Result<()> {
    match Cli::parse().verb {
        Verb::Init(init) => init.run(),
        Verb::Run(run) => serve(&run.dir, run.agent.as_deref()),
        Verb::Bmcs(bmcs) => bmcs.run(),
        Verb::Do(request) => request.run(),
        Verb::Chassis(chassis) => chassis.run(),
        Verb::Workload(workload) => workload.run().context("write to the volume"),
        Verb::Child(child) => child.run(),
    }
}

/// Writes a line to standard output. A reader that has gone (`| head`) is no error.
fn say(line: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("write to standard output"),
    }
}

impl Init {
    fn run(&self) -> Result<()> {
        let (bmc, usual_suite) = match self.bmc {
            Bmc::Own => (BmcKind::Own, 17),
            Bmc::IpmiSim => (BmcKind::IpmiSim, 3),
        };
        let spec = RackSpec {
            machines: self.machines,
            spares: self.spares,
            address: self.address,
            bmc,
            suite: self.suite.unwrap_or(usual_suite),
            boot_delay: self.boot_delay,
            heartbeat: self.heartbeat,
            write_every: self.write_every,
            exclusive_volumes: !self.shared_volumes,
            ..RackSpec::new(self.policy.clone(), self.members.clone())
        };
        Description::draw(&spec)?.write(&self.dir)?;
        let dir = self.dir.display();
        say(&format!("described {} machines in {dir}; next:", self.machines))?;
        say(&format!("  rack run --dir {dir}\n  hactl apply -f {dir}/inventory.toml"))
    }
}

impl Bmcs {
    fn run(&self) -> Result<()> {
        let policy = "quick".parse().context("name of the policy")?;
        let spec = RackSpec {
            machines: self.count,
            spares: self.count,
            suite: self.suite,
            ..RackSpec::new(policy, Vec::new())
        };
        Description::draw(&spec)?.write(&self.dir)?;
        serve(&self.dir, None)
    }
}

/// Runs the rack in `dir` until somebody asks it to stop.
fn serve(dir: &Path, agent: Option<&Path>) -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let description = Description::read(dir)?;
    let this = std::env::current_exe().context("find this program")?;
    let mut binaries = Binaries::beside(&this);
    if let Some(agent) = agent {
        binaries.agent = Some(agent.to_owned());
    }
    if binaries.agent.as_ref().is_none_or(|agent| !agent.exists()) && !description.members.is_empty() {
        bail!(
            "there is no ha-agent beside {}; build it (cargo build -p ha-agent) or give --agent",
            this.display()
        );
    }
    allow_many_sockets()?;
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    runtime.block_on(async {
        // Signals are caught before anything is started that a signal would have to end.
        let mut terminate = signal(SignalKind::terminate()).context("catch SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("catch SIGINT")?;
        let (machines, api) = (description.machines.len(), description.api);
        let rack = Rack::start(description, dir, binaries).await?;
        say(&format!("ready: {machines} machines, control API at http://{api}"))?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        rack.stop().await;
        Ok(())
    })
}

/// A machine has a socket for its BMC and one for its kernel; the usual limit of 1024 files ends at 500 machines.
fn allow_many_sockets() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("read the limit of open files")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raise the limit of open files")
}

impl Do {
    fn run(&self) -> Result<()> {
        let client = Client::new(&Description::read(&self.dir)?)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.send(&client))
    }

    async fn send(&self, client: &Client) -> Result<()> {
        let (node, fault) = match &self.what {
            What::PowerOn { node } => (node, Fault::PowerOn),
            What::PowerOff { node } => (node, Fault::PowerOff),
            What::Hang { node } => (node, Fault::Hang),
            What::Panic { node, gasp } => (node, Fault::Panic { gasp: *gasp }),
            What::Freeze { node } => (node, Fault::Freeze),
            What::Thaw { node } => (node, Fault::Thaw),
            What::StopAgent { node } => (node, Fault::StopAgent),
            What::PowerLoss { node } => (node, Fault::PowerLoss),
            What::CutNic { node, path } => (node, Fault::CutNic { path: (*path).into() }),
            What::Heal { node } => (node, Fault::Heal),
            What::BmcMood { node, mood } => (node, Fault::BmcMood { mood: *mood }),
            What::DeviceMood { mood } => return Ok(client.device_mood((*mood).into()).await?),
            What::Status => {
                return say(&serde_json::to_string_pretty(&client.status().await?)?);
            }
            What::Report => {
                return say(&serde_json::to_string_pretty(&client.report().await?)?);
            }
        };
        Ok(client.fault(node, fault).await?)
    }
}

impl From<Which> for Cable {
    fn from(which: Which) -> Cable {
        match which {
            Which::A => Cable::A,
            Which::B => Cable::B,
            Which::All => Cable::All,
            Which::Storage => Cable::Storage,
        }
    }
}

impl From<Devices> for DeviceMood {
    fn from(mood: Devices) -> DeviceMood {
        match mood {
            Devices::Ok => DeviceMood::Ok,
            Devices::Hang => DeviceMood::Hang,
            Devices::Lie => DeviceMood::Lie,
            Devices::Refuse => DeviceMood::Refuse,
            Devices::KeepSessions => DeviceMood::KeepSessions,
        }
    }
}

impl Chassis {
    /// Speaks as ipmi_sim's chassis program has to (ipmi_sim_chassis_control(8)).
    fn run(&self) -> Result<()> {
        let client = Client::new(&Description::read(&self.dir)?)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        runtime.block_on(async {
            match words.as_slice() {
                ["get", "power"] => {
                    let power = client.power(&self.node).await?;
                    say(&format!("power:{}", u8::from(power == Power::On)))
                }
                ["set", "power", "0"] => Ok(client.chassis(&self.node, ChassisCommand::Off).await?),
                ["set", "power", _] => Ok(client.chassis(&self.node, ChassisCommand::On).await?),
                ["set", "reset", _] => Ok(client.chassis(&self.node, ChassisCommand::Reset).await?),
                ["set", "shutdown", _] => Ok(client.chassis(&self.node, ChassisCommand::Soft).await?),
                // The boot device: our machines have one boot source, the boot service.
                ["set", "boot", _] => Ok(()),
                ["get", "boot"] => say("boot:none"),
                other => bail!("ipmi_sim asked for {other:?}, which no machine has"),
            }
        })
    }
}

impl Child {
    fn run(&self) -> Result<()> {
        set_pdeathsig(Signal::SIGKILL).context("ask to be ended with the parent")?;
        // The parent may have ended before the kernel knew of our wish.
        if getppid() != Pid::from_raw(self.parent) {
            bail!("the parent has ended");
        }
        if let Some(net) = &self.net {
            netns::enter(net).with_context(|| format!("enter the network namespace {}", net.display()))?;
        }
        let Some((program, arguments)) = self.command.split_first() else { bail!("no program to become") };
        Err(std::process::Command::new(program).args(arguments).exec())
            .with_context(|| format!("become {program}"))
    }
}
