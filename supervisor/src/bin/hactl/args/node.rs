//! What the verbs of `hactl node` take.

use super::{Force, Wait, Yes};
use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub(crate) enum PowerVerb {
    /// What its fencing devices say just now.
    #[command(after_help = "Example:\n  hactl node power status node-3")]
    Status {
        /// The node.
        name: String,
    },
    /// Switch it on: a free spare, or a node in maintenance. What is quarantined must be released first.
    #[command(after_help = "Example:\n  hactl node power on node-3 --reason 'new DIMMs are in' --wait")]
    On {
        /// The node.
        name: String,
        /// Why; kept for ever.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Switch it off at once, and see it off: a free spare, a quarantined node, or a node in maintenance. What carries an
    /// instance and is in service is drained instead (`node drain`).
    #[command(
        after_help = "Example:\n  hactl node power off node-3 --reason 'new DIMMs' --wait\n  hactl node power off node-3 --reason 'new DIMMs' --yes node-3"
    )]
    Off {
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

#[derive(Debug, Args)]
pub(crate) struct NodeDelete {
    /// The node.
    pub(crate) name: String,
    /// Why; kept for ever.
    #[arg(long)]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) yes: Yes,
    #[command(flatten)]
    pub(crate) force: Force,
}

#[derive(Debug, Args)]
pub(crate) struct NodeRelease {
    /// The node.
    pub(crate) name: String,
    /// Why it may run again.
    #[arg(long)]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnOff {
    /// Hands off.
    On,
    /// Hands on again.
    Off,
}
