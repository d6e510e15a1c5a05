//! The verbs about instances.

use super::{Force, Wait, Watch, Yes};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum InstanceVerb {
    /// All instances.
    #[command(after_help = "Example:\n  hactl instance list -o wide")]
    List(Watch),
    /// One instance in full.
    #[command(after_help = "Example:\n  hactl instance show web --watch")]
    Show {
        /// The instance.
        name: String,
        #[command(flatten)]
        watch: Watch,
    },
    /// Move an instance after a fence of its node, whatever the node's health.
    #[command(
        after_help = "Example:\n  hactl instance evacuate web --reason 'fan failing in node-3'\n  hactl instance evacuate web --reason drill --yes web --wait=5m || page-somebody"
    )]
    Evacuate {
        /// The instance.
        name: String,
        /// Why; kept for ever.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        yes: Yes,
        #[command(flatten)]
        wait: Wait,
    },
    /// Keep what is on an instance's volumes now, each as a snapshot `ha-bN` at its storage, once. The instance runs on: what is
    /// kept of a volume in use is what a sudden loss of power would have left (crash-consistent), and of each volume at a moment
    /// of its own, not of all at the same. Its policy says how many are kept (`backups.kept`).
    #[command(
        after_help = "Example:\n  hactl instance backup web --reason 'before the upgrade' --wait\n  hactl instance backup web --reason nightly --wait=10m || page-somebody"
    )]
    Backup {
        /// The instance.
        name: String,
        /// Why; kept for ever.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Protect an instance no more. What runs goes on running, with its volumes and ports; its node is cordoned, and is a
    /// spare only when you say so (`node uncordon`). To leave nothing behind, fence the node first with its spares cordoned.
    #[command(
        after_help = "Example:\n  hactl instance delete web --reason 'moved to the cloud'\n  hactl instance delete web --reason 'moved to the cloud' --yes web"
    )]
    Delete {
        /// The instance.
        name: String,
        /// Why; kept for ever.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        yes: Yes,
        #[command(flatten)]
        force: Force,
    },
}
