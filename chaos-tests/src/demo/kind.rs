//! The kinds of failure that the demo shows.
//!
//! Why it exists: each kind is a promise: what happens to the node, and what must hold afterwards in spite of it.
//! What it never does: it carries nothing out and judges nothing.

use crate::rack::{Fault, MoodChange, Path};
use policies::Millis;

/// How long a BMC takes to switch off where a kind needs time in the middle of a fence: 0.5 s, as quick as real boards
/// are. Less, and the leader may be through before it can be killed.
pub(super) const OFF_DELAY: Millis = Millis(500);

/// A kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The node stands still; its kernel answers nothing, its power is on.
    Hang,
    /// The node loses its supply, and its BMC with it: nobody can tell whether it is off.
    PowerLoss,
    /// Both networks of a healthy node are cut: it looks dead and goes on writing.
    Partition,
    /// The node hangs, and the leader is killed right after the intent to fence it was committed.
    LeaderDeath,
    /// A cut-off node whose BMC says "off" and lets it run on, writing.
    LyingBmc,
}

impl Kind {
    /// All, in the order in which they are shown.
    pub const ALL: [Kind; 5] =
        [Kind::Hang, Kind::PowerLoss, Kind::Partition, Kind::LeaderDeath, Kind::LyingBmc];

    /// A short name for tables.
    pub(super) fn title(self) -> &'static str {
        match self {
            Kind::Hang => "hang",
            Kind::PowerLoss => "power loss with the BMC",
            Kind::Partition => "partition of a node",
            Kind::LeaderDeath => "leader killed meanwhile",
            Kind::LyingBmc => "lying BMC",
        }
    }

    /// What happens, for somebody who sees it for the first time.
    pub(super) fn story(self) -> &'static str {
        match self {
            Kind::Hang => "a node stands still; its kernel answers nothing, its power is on",
            Kind::PowerLoss => "a node and its BMC lose their supply; nobody can ask whether it is off",
            Kind::Partition => "both networks of a node are cut; it works and goes on writing",
            Kind::LeaderDeath => "a node hangs, and the leader is killed once it has decided to fence it",
            Kind::LyingBmc => {
                "a node is cut off, and its BMC says \"off\" while it works and goes on writing"
            }
        }
    }

    /// A name for a directory, as on the command line.
    pub(super) fn word(self) -> &'static str {
        match self {
            Kind::Hang => "hang",
            Kind::PowerLoss => "power-loss",
            Kind::Partition => "partition",
            Kind::LeaderDeath => "leader-death",
            Kind::LyingBmc => "lying-bmc",
        }
    }

    /// How the node's BMC behaves from before the fault on, if not well.
    pub(super) fn mood(self) -> Option<MoodChange> {
        match self {
            Kind::Hang | Kind::PowerLoss | Kind::Partition => None,
            Kind::LeaderDeath => Some(MoodChange::OffDelay(OFF_DELAY)),
            Kind::LyingBmc => Some(MoodChange::Lying),
        }
    }

    /// What happens to the node.
    pub(super) fn fault(self) -> Fault {
        match self {
            Kind::Hang | Kind::LeaderDeath => Fault::Hang,
            Kind::PowerLoss => Fault::PowerLoss,
            Kind::Partition | Kind::LyingBmc => Fault::CutNic { path: Path::All },
        }
    }

    /// Whether the leader is killed in the middle of it.
    pub(super) fn kills_leader(self) -> bool {
        match self {
            Kind::Hang | Kind::PowerLoss | Kind::Partition | Kind::LyingBmc => false,
            Kind::LeaderDeath => true,
        }
    }

    /// Whether the old node goes on writing until somebody stops it.
    pub(super) fn writes_on(self) -> bool {
        match self {
            Kind::Hang | Kind::PowerLoss | Kind::LeaderDeath => false,
            Kind::Partition | Kind::LyingBmc => true,
        }
    }
}
