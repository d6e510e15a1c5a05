//! The verbs of `hactl`, their arguments and their help.

mod instance;
mod node;
mod openstack;
mod tenant;

pub(crate) use instance::InstanceVerb;
pub(crate) use node::{NodeDelete, NodeRelease, OnOff, PowerVerb};
pub(crate) use openstack::OpenstackVerb;
pub(crate) use tenant::AsTenant;

use clap::{Args, Parser, Subcommand, ValueEnum};
use policies::{BootDevice, Mac};
use std::path::PathBuf;
use std::time::Duration;

/// Exit codes, as documented in `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done; for `status`: nothing needs attention; for `policy replay`: no difference
  1  the answer is no: refused, not there, or (`status`) something needs attention, (`--wait`) stuck or cancelled,
     or (`policy replay`, `openstack drift`) there is a difference, or (`policy lint`) storage cannot
  2  the command line or a file given to it is wrong; nothing was changed
  3  no member can be reached, or none can answer; nothing was changed
  4  the cluster has no quorum; nothing was changed
  5  the outcome is unknown, or (`--wait`) the time is over: look before you try again
  6  not admitted: no valid certificate or token, or its role does not allow this
`policy plan` ends with 0 if nothing would change, 1 if something would, and 255 for any error, as `openstack drift` does.

As a tenant of an OpenStack cloud, with its own instances only:
  hactl --os-cloud shop instance list
  hactl --os-cloud shop instance evacuate web --reason 'fan failing' --wait

Environment: HACTL_CONFIG names the context file, HACTL_CLUSTER the context in it, OS_CLIENT_CONFIG_FILE\nthe clouds.yaml; NO_COLOR switches colours off.";

/// Asks and orders a cluster of failover supervisors.
#[derive(Debug, Parser)]
#[command(name = "hactl", version, arg_required_else_help = true, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Context file: where the cluster is and who you are (made by `ha-supervisord init`).
    #[arg(
        long,
        global = true,
        env = "HACTL_CONFIG",
        value_name = "FILE",
        default_value = "/etc/ha/hactl.toml"
    )]
    pub(crate) context: PathBuf,
    /// Which cluster of the context file, if it has several; without it the current one (`hactl context use`).
    #[arg(long, global = true, env = "HACTL_CLUSTER", value_name = "NAME")]
    pub(crate) cluster: Option<String>,
    #[command(flatten)]
    pub(crate) tenant: AsTenant,
    /// Form of the output.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// How long to look for a member that can answer, e.g. 10s.
    #[arg(long, global = true, value_parser = length, default_value = "10s")]
    pub(crate) timeout: Duration,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For people with a wide screen: lists have more columns.
    Wide,
    /// For programs; stable.
    Json,
    /// The same as YAML.
    Yaml,
}

/// Whether to show it once or again and again.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Watch {
    /// Show it again whenever it has changed, until interrupted: over the old one on a terminal, else below it.
    #[arg(long, short)]
    pub(crate) watch: bool,
}

/// Whether to wait for what was ordered.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Wait {
    /// Wait until it is done, at most so long (10m if no time is given), and say on standard error how it goes.
    /// Exits with 1 if it is stuck, refused or cancelled, with 5 if the time is over.
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "10m",
        value_parser = length
    )]
    pub(crate) wait: Option<Duration>,
}

/// What must be typed before a dangerous verb is carried out.
#[derive(Clone, Debug, Args)]
pub(crate) struct Yes {
    /// The name once more, instead of typing it when asked; where the node's serial number is known, that.
    #[arg(long, value_name = "NAME-OR-SERIAL")]
    pub(crate) yes: Option<String>,
}

/// Whether cover may be taken away.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Force {
    /// Even if it leaves an instance or a failure domain without cover that has it now. The log says that it was forced.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Is it armed, who leads, what is where, and what needs attention.
    #[command(after_help = "Example:\n  hactl status --watch\n  hactl status || page-somebody")]
    Status(Watch),
    /// The whole terminal: status, nodes, failovers, trouble and history as they change. `q` quits.
    #[command(after_help = "Example:\n  hactl watch\n  hactl watch --cluster lab")]
    Watch,
    /// Describe providers, nodes, instances and policies: the whole file or nothing.
    #[command(
        after_help = "Example:\n  hactl apply -f inventory.toml\n  generate-inventory | hactl apply -f -"
    )]
    Apply {
        /// TOML file with [[provider]], [[node]], [[instance]], [[policy]] tables; `-` is standard input.
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        force: Force,
    },
    /// Physical servers.
    #[command(subcommand)]
    Node(NodeVerb),
    /// Logical servers that fail over.
    #[command(subcommand)]
    Instance(InstanceVerb),
    /// Nodes that stand ready to take an instance.
    #[command(subcommand)]
    Spare(SpareVerb),
    /// Back ends that hold volumes, switch ports or boot sources.
    #[command(subcommand)]
    Provider(ProviderVerb),
    /// What an OpenStack cloud has, against what is described.
    #[command(subcommand)]
    Openstack(OpenstackVerb),
    /// Failovers, under way and finished.
    #[command(subcommand)]
    Failover(FailoverVerb),
    /// Seen? Judged? Planned? Attempted? Proved? And what it waits for.
    #[command(
        after_help = "Example:\n  hactl explain node-3 --watch\n  hactl explain instance/web\n  hactl explain f1234"
    )]
    Explain {
        /// A node, an instance or a failover.
        name: String,
        #[command(flatten)]
        watch: Watch,
    },
    /// Cut a node off (power, volumes, network), whatever its health. An instance on it is moved.
    #[command(
        after_help = "Example:\n  hactl fence node-3 --reason 'smoke in rack 4' --wait\n  hactl fence node-3 --reason drill --yes node-3"
    )]
    Fence {
        /// The node.
        node: String,
        /// Why; kept for ever.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        yes: Yes,
        #[command(flatten)]
        wait: Wait,
    },
    /// Vouch that a node that is being fenced is off. Only if you have seen it yourself.
    #[command(after_help = "Example:\n  hactl confirm-off node-3 --reason 'cable pulled, INC-4711'")]
    ConfirmOff {
        /// The node.
        node: String,
        /// How you know.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        yes: Yes,
    },
    /// Let the cluster act by itself.
    #[command(after_help = "Example:\n  hactl arm --reason 'inventory checked'")]
    Arm {
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// Let the cluster only watch. Failovers under way go on.
    #[command(
        after_help = "Example:\n  hactl disarm --until 06:00 --reason 'work on the core switch'\n  hactl disarm --reason 'until I have understood it'"
    )]
    Disarm {
        /// Why.
        #[arg(long)]
        reason: String,
        /// When it is armed again by itself: 2h, 06:00, 2026-11-26T06:00, or with an offset.
        #[arg(long, value_name = "TIME", value_parser = crate::until::from_now)]
        until: Option<policies::Wall>,
    },
    /// Who would take over from whom, and which racks, PDUs or switches could be lost. Exit code 1: something is not covered.
    #[command(after_help = "Example:\n  hactl coverage\n  hactl coverage --losing rack/r2")]
    Coverage {
        /// Only this failure domain, as KIND/NAME, with the spare of each instance.
        #[arg(long, value_name = "DOMAIN")]
        losing: Option<String>,
    },
    /// The supervisor processes of the cluster.
    #[command(subcommand)]
    Member(MemberVerb),
    /// How carefully instances are protected.
    #[command(subcommand)]
    Policy(PolicyVerb),
    /// What happened, oldest first.
    #[command(
        after_help = "Example:\n  hactl events --about node/node-3 --since 2h\n  hactl events --follow -o json"
    )]
    Events {
        /// Go on as things happen, until interrupted.
        #[arg(long, short = 'F')]
        follow: bool,
        /// Only about this: node/NAME, instance/NAME, failover/ID, policy/NAME, member/mID.
        #[arg(long)]
        about: Option<String>,
        /// Not longer ago than this, e.g. 30m, 2h, 7d.
        #[arg(long, value_parser = length)]
        since: Option<Duration>,
        /// At most so many, the newest.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// The clusters of the context file, and which of them is meant. Asks no cluster.
    #[command(subcommand)]
    Context(ContextVerb),
    /// What helps to find out why.
    #[command(subcommand)]
    Debug(DebugVerb),
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  hactl completion bash > /etc/bash_completion.d/hactl")]
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, one for each verb, into a directory.
    #[command(after_help = "Example:\n  hactl man /usr/local/share/man/man1")]
    Man {
        /// The directory; it must exist.
        dir: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeVerb {
    /// All nodes.
    #[command(
        after_help = "Example:\n  hactl node list --watch\n  hactl node list -o json | jq '.[] | select(.state == \"spare\")'"
    )]
    List(Watch),
    /// One node in full; its secrets are hidden.
    #[command(after_help = "Example:\n  hactl node show node-3")]
    Show {
        /// The node.
        name: String,
        #[command(flatten)]
        watch: Watch,
    },
    /// No new instance for this node.
    #[command(after_help = "Example:\n  hactl node cordon node-3\n  hactl node cordon node-3 --force")]
    Cordon {
        /// The node.
        name: String,
        #[command(flatten)]
        force: Force,
    },
    /// Lift a cordon.
    #[command(after_help = "Example:\n  hactl node uncordon node-3")]
    Uncordon {
        /// The node.
        name: String,
    },
    /// Hands off this node (`on`), or hands on again (`off`).
    #[command(
        after_help = "Example:\n  hactl node maintenance on node-3 --until 2h --reason 'new DIMMs'\n  hactl node maintenance off node-3"
    )]
    Maintenance {
        /// On or off.
        switch: OnOff,
        /// The node.
        name: String,
        /// Why; needed for `on`.
        #[arg(long, required_if_eq("switch", "on"))]
        reason: Option<String>,
        /// When it ends by itself: 2h, 06:00, 2026-11-26T06:00, or with an offset.
        #[arg(long, value_name = "TIME", value_parser = crate::until::from_now)]
        until: Option<policies::Wall>,
        #[command(flatten)]
        force: Force,
    },
    /// Take a spare out of the inventory: it is not watched, counted on or fenced any more. One that carries an instance, is
    /// quarantined or being cleaned stays; cordon what is quarantined before you release it, so that it is not taken.
    #[command(
        after_help = "Example:\n  hactl node delete node-3 --reason 'sent back, RMA-4711'\n  hactl node delete node-3 --reason scrapped --yes node-3 --force"
    )]
    Delete(NodeDelete),
    /// Move what a node carries to a spare, politely: its system is asked to shut down, then it is fenced. Cordons it.
    #[command(
        after_help = "Example:\n  hactl node drain node-3 --reason 'new DIMMs' --wait\n  hactl node drain node-3 --reason 'new DIMMs' --shutdown 10m --yes node-3"
    )]
    Drain {
        /// The node.
        name: String,
        /// Why; kept for ever.
        #[arg(long)]
        reason: String,
        /// How long its system has to shut down before the node is fenced, e.g. 10m; without it as the policy says
        /// (takeover.shutdown_deadline).
        #[arg(long, value_name = "TIME")]
        shutdown: Option<policies::Millis>,
        #[command(flatten)]
        yes: Yes,
        #[command(flatten)]
        force: Force,
        #[command(flatten)]
        wait: Wait,
    },
    /// Let a quarantined node become a spare again. A cloud's node is cleaned by the cloud before: its disks are erased
    #[command(
        after_help = "Example:\n  hactl node release node-3 --reason 'disk replaced, memory tested' --wait"
    )]
    Release(NodeRelease),
    /// What a node's serial console said, and what it says until you interrupt it; or attach to it and type
    Console(NodeConsole),
    /// Look at a node's power, or switch it by hand through its first fencing device.
    #[command(subcommand)]
    Power(PowerVerb),
    /// Send a node's kernel a diagnostic interrupt (NMI), once: it dumps, if it is set up to, and dies. An instance on it fails over.
    #[command(
        after_help = "Example:\n  hactl node nmi node-3 --reason 'hangs, we want the dump' --wait\n  hactl node nmi node-3 --reason 'hangs' --yes node-3"
    )]
    Nmi {
        /// The node.
        name: String,
        /// Why; kept for ever.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        yes: Yes,
        #[command(flatten)]
        wait: Wait,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SpareVerb {
    /// All spares: power, hardware, strikes, whom each would cover, for how many it fits, and why not for the others.
    #[command(after_help = "Example:\n  hactl spare list --watch\n  hactl spare list -o wide")]
    List(Watch),
    /// Describe a new node that carries nothing. Its password is read from a file, never from the command line.
    #[command(
        after_help = "Example:\n  hactl spare add node-9 --bmc 10.1.0.9 --user ha --password-file node-9.pw --domain rack=r2 --port rack/sw1/9\n  pass bmc/node-9 | hactl spare add node-9 --bmc 10.1.0.9:7623 --user ha --password-file - --cipher-suite 3"
    )]
    Add(Box<SpareAdd>),
    /// Take a spare out of the inventory, as `node delete` does.
    #[command(
        after_help = "Example:\n  hactl spare remove node-9 --reason 'sent back, RMA-4711' --yes node-9"
    )]
    Remove(NodeDelete),
    /// Let a quarantined node become a spare again, as `node release` does.
    #[command(after_help = "Example:\n  hactl spare release node-9 --reason 'disk replaced' --wait")]
    Release(NodeRelease),
}

#[derive(Debug, Args)]
pub(crate) struct SpareAdd {
    /// Its name. One that was deleted may be used again: the node begins anew.
    pub(crate) name: String,
    /// Its BMC; the usual port is 623.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) bmc: String,
    /// User name at its BMC.
    #[arg(long)]
    pub(crate) user: String,
    /// File whose first line is the password of that user; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: PathBuf,
    /// IPMI cipher suite: 17, or 3 for old BMCs.
    #[arg(long, value_name = "NUMBER", default_value_t = 17)]
    pub(crate) cipher_suite: u8,
    /// A failure domain that it stands in; may be repeated.
    #[arg(long, value_name = "KIND=NAME")]
    pub(crate) domain: Vec<String>,
    /// A label; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    /// A switch port that it hangs on, in the order of an instance's networks; may be repeated.
    #[arg(long, value_name = "PROVIDER/PORT")]
    pub(crate) port: Vec<String>,
    /// The name by which storage knows it.
    #[arg(long, value_name = "IQN")]
    pub(crate) initiator: Option<String>,
    /// Burned-in address of a network card that it starts from, for the boot service; may be repeated.
    #[arg(long, value_name = "MAC")]
    pub(crate) boot_mac: Vec<Mac>,
    /// What its BMC lets it start from at each power-on: pxe, pxe-uefi, disk, disk-uefi.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) boot_device: Option<BootDevice>,
    /// What its kernel answers to when it runs.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) probe_tcp: Option<String>,
    /// The serial number that is printed on it; then it must be typed before it is fenced or removed.
    #[arg(long)]
    pub(crate) serial: Option<String>,
    /// The GUID that its BMC must report before any power-off.
    #[arg(long)]
    pub(crate) guid: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProviderVerb {
    /// All providers, and how much relies on each.
    #[command(after_help = "Example:\n  hactl provider list")]
    List(Watch),
    /// Delete a provider on which no port, volume or boot source relies.
    #[command(after_help = "Example:\n  hactl provider delete old-array --reason 'emptied, INC-4711'")]
    Delete {
        /// The provider.
        name: String,
        /// Why; kept for ever.
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum FailoverVerb {
    /// All failovers, newest first.
    #[command(after_help = "Example:\n  hactl failover list --watch -o json")]
    List(Watch),
    /// One failover in full: phases, steps, proof.
    #[command(after_help = "Example:\n  hactl failover show f1234 --watch")]
    Show {
        /// The failover, e.g. f1234.
        id: String,
        #[command(flatten)]
        watch: Watch,
    },
    /// Let a decided failover begin that waits for a human (policy key acting.mode = approval).
    #[command(after_help = "Example:\n  hactl failover approve web --reason 'seen it burn' --wait")]
    Approve {
        /// The instance that is to move: before it begins, a failover has no number.
        instance: String,
        /// Why; kept for ever.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Call a failover off; only before anything was done.
    #[command(after_help = "Example:\n  hactl failover cancel f1234 --reason 'it is only rebooting'")]
    Cancel {
        /// The failover, e.g. f1234.
        id: String,
        /// Why.
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum MemberVerb {
    /// The members, as the one that answers sees them.
    #[command(after_help = "Example:\n  hactl member list --watch")]
    List(Watch),
    /// Add a member: it learns the log, then it votes.
    #[command(
        after_help = "Example:\n  hactl member add 2 --member-addr 10.0.0.2:7101 --api-addr 10.0.0.2:7201"
    )]
    Add {
        /// Its number, as given to `ha-supervisord invite`.
        id: u64,
        #[command(flatten)]
        addrs: Box<MemberAddrs>,
        /// Leave it a learner.
        #[arg(long)]
        learner: bool,
        #[command(flatten)]
        wait: Wait,
    },
    /// Remove a member. Its number is never used again.
    #[command(after_help = "Example:\n  hactl member remove 2 --wait=30s")]
    Remove {
        /// Its number.
        id: u64,
        #[command(flatten)]
        wait: Wait,
    },
    /// Give the leadership to another member.
    #[command(after_help = "Example:\n  hactl member transfer 2 --wait=30s")]
    Transfer {
        /// Its number.
        id: u64,
        #[command(flatten)]
        wait: Wait,
    },
}

#[derive(Debug, Args)]
pub(crate) struct MemberAddrs {
    /// host:port of the traffic between members.
    #[arg(long)]
    pub(crate) member_addr: String,
    /// host:port of its API.
    #[arg(long)]
    pub(crate) api_addr: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContextVerb {
    /// All contexts of the file.
    #[command(after_help = "Example:\n  hactl context list -o wide")]
    List,
    /// Make a context the one that is meant without --cluster.
    #[command(after_help = "Example:\n  hactl context use prod")]
    Use {
        /// The context.
        name: String,
    },
    /// One context: where its members are and which files it uses. What is in these is not shown.
    #[command(after_help = "Example:\n  hactl context show\n  hactl context show prod")]
    Show {
        /// The context; without it the current one.
        name: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DebugVerb {
    /// Collect status, lists, details, history and metrics in one archive, without secrets. It is sent nowhere.
    #[command(
        after_help = "Example:\n  hactl debug bundle\n  hactl debug bundle INC-4711.tar.gz --events 5000"
    )]
    Bundle(Bundling),
}

#[derive(Debug, Args)]
pub(crate) struct Bundling {
    /// The archive; without it, a name with the cluster and the time, in this directory.
    #[arg(value_name = "FILE.tar.gz")]
    pub(crate) file: Option<PathBuf>,
    /// At most so many events, the newest.
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    pub(crate) events: usize,
    /// Overwrite the archive.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyVerb {
    /// All policies.
    #[command(after_help = "Example:\n  hactl policy list")]
    List(Watch),
    /// One policy, as the document that `policy set -f` takes.
    #[command(
        after_help = "Example:\n  hactl policy get quick > quick.toml\n  hactl policy get quick --watch"
    )]
    Get {
        /// The policy.
        name: String,
        #[command(flatten)]
        watch: Watch,
    },
    /// The policy by which an instance is protected, and why it is that one.
    #[command(after_help = "Example:\n  hactl policy effective web")]
    Effective {
        /// The instance.
        instance: String,
    },
    /// Whether a file is a policy that would be taken: unknown keys, values, contradictions. Needs no cluster. Without a file:
    /// what the policies in force want of volumes (snapshots, backups) and their storage cannot do; exit code 1: something.
    #[command(after_help = "Example:\n  hactl policy lint mine.toml\n  hactl policy lint")]
    Lint {
        /// The file; `-` is standard input.
        file: Option<PathBuf>,
    },
    /// Open a policy in $VISUAL or $EDITOR and set what is saved, if nobody else has changed it meanwhile.
    #[command(after_help = "Example:\n  hactl policy edit quick --reason 'the new switches settle faster'")]
    Edit {
        /// The policy.
        name: String,
        /// Why; kept with the version.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        force: Force,
    },
    /// The versions of a policy, newest first: who made each, why, and what it changed. Deleted policies have them too.
    #[command(
        after_help = "Example:\n  hactl policy history quick\n  hactl policy history quick -o json | jq '.[0].changes'"
    )]
    History {
        /// The policy.
        name: String,
        #[command(flatten)]
        watch: Watch,
    },
    /// Set an earlier version again, as a new version.
    #[command(
        after_help = "Example:\n  hactl policy rollback quick --reason 'two false alarms since'\n  hactl policy rollback quick --to i4711 --reason 'as it was in May'"
    )]
    Rollback {
        /// The policy; one that was deleted comes back.
        name: String,
        /// The version (`policy history` shows them); by default the one before this.
        #[arg(long, value_name = "VERSION")]
        to: Option<policies::LogIndex>,
        /// Why; kept with the version.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        force: Force,
    },
    /// Delete a policy that protects nothing. `policy rollback` brings it back.
    #[command(after_help = "Example:\n  hactl policy delete mine --reason 'nobody uses it'")]
    Delete {
        /// The policy.
        name: String,
        /// Why; kept with the version.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        force: Force,
        /// Only if it is still at this version (`policy list` shows it).
        #[arg(long, value_name = "VERSION")]
        check: Option<policies::LogIndex>,
    },
    /// What a change would change now: keys, verdicts, fences, spares. Nothing is set. Exit code 0: nothing, 1: something,
    /// 255: error.
    #[command(
        after_help = "Example:\n  hactl policy plan quick detection.members_min=2 spares.differs_in=rack\n  hactl policy plan mine -f mine.toml"
    )]
    Plan {
        /// The policy.
        name: String,
        /// section.key=value
        #[arg(required_unless_present = "file", conflicts_with = "file")]
        changes: Vec<String>,
        /// The whole content, from a file.
        #[arg(short, long)]
        file: Option<PathBuf>,
    },
    /// What a candidate would have done: plays the flight records of all members under the policies in force and with the
    /// candidate in the place of one of them. Exit code 0: both would have done the same; 1: they would
    /// not; 255: error.
    #[command(
        after_help = "Example:\n  hactl policy replay mine.toml --since 30d\n  hactl policy replay mine.toml --name quick --since 7d -o json"
    )]
    Replay {
        /// The candidate, as a document; `-` is standard input.
        file: PathBuf,
        /// The policy that it would replace.
        #[arg(long, default_value = policies::DEFAULT_POLICY)]
        name: policies::PolicyId,
        /// From how long ago on, e.g. 12h, 30d.
        #[arg(long, value_parser = length, default_value = "30d")]
        since: Duration,
        /// How long a failover takes, e.g. 90s. Absent: the median of those that this cluster has made.
        #[arg(long, value_parser = length)]
        failover_takes: Option<Duration>,
    },
    /// Change keys of a policy, or replace it by a file. A new name makes a new policy.
    #[command(
        after_help = "Example:\n  hactl policy set quick detection.suspect_after=1s brakes.fences_in_flight_max=1 --reason 'INC-4711'\n  hactl policy set mine -f mine.toml --reason 'for the database'"
    )]
    Set {
        /// The policy.
        name: String,
        /// section.key=value
        #[arg(required_unless_present = "file", conflicts_with = "file")]
        changes: Vec<String>,
        /// The whole content, from a file.
        #[arg(short, long)]
        file: Option<PathBuf>,
        /// Only if it is still at this version (`policy list` shows it).
        #[arg(long, value_name = "VERSION")]
        check: Option<policies::LogIndex>,
        /// Why; kept with the version.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        force: Force,
    },
}

/// `10s`, `2h`, ... in the same form as everywhere else.
fn length(text: &str) -> Result<Duration, policies::BadMillis> {
    text.parse::<policies::Millis>().map(|length| Duration::from_millis(length.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_verb_has_an_example_that_is_accepted() {
        Cli::command().debug_assert();
        let mut found = 0;
        for (path, verb) in crate::schema::leaves() {
            let path = format!("hactl {path}");
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Example:\n"), "{path} has no example");
            for line in help.lines().skip(1).filter(|line| line.trim_start().starts_with("hactl ")) {
                let line = line.split(['|', '>']).next().unwrap_or_default();
                let words = line.split('\'').enumerate().flat_map(|(part, text)| match part % 2 {
                    0 => text.split_whitespace().collect::<Vec<_>>(),
                    _ => vec![text],
                });
                assert!(line.trim_start().starts_with(&path), "{path}: {line}");
                if let Err(error) = Cli::try_parse_from(words) {
                    panic!("{line}: {error}");
                }
                found += 1;
            }
        }
        assert!(found > 25, "{found}");
    }
}

/// A node's console. It needs `console = true` in the node's first fencing device.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  hactl node console node-3\n  hactl node console node-3 --once | tail -40\n  hactl node console node-3 -i"
)]
pub(crate) struct NodeConsole {
    /// The node.
    pub name: String,
    /// Only what is kept; do not go on.
    #[arg(long)]
    pub once: bool,
    /// Attach: what you type goes to the node. `~.` at the beginning of a line detaches
    #[arg(long, short, conflicts_with = "once")]
    pub interactive: bool,
}
