//! What members see of nodes. Beliefs, never decisions.

use crate::words::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Power as a BMC reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Power {
    /// On.
    On,
    /// Off.
    Off,
}

/// What an authenticated, fresh heartbeat said. Produced by the ingest after key, replay and format checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Which life of the node's operating system.
    pub boot: BootId,
    /// The placement that the node believes to run; 0 if it knows of none, [`Epoch::STANDBY`] on a hot spare.
    pub epoch: Epoch,
    /// Age of the last acknowledged disk write; `None`: no write yet or none watched.
    pub write_age: Option<Millis>,
    /// The node says that it is going down: a positive sign, no waiting.
    pub last_gasp: Option<LastGasp>,
}

/// Why a node says farewell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LastGasp {
    /// The operating system is shutting down in order.
    Shutdown,
    /// The kernel panicked.
    Panic,
}

/// What one member sees of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sight {
    /// Heartbeats (or, without an agent, answers) arrive.
    Alive {
        /// The placement that the node believes to run.
        epoch: Epoch,
        /// Its last acknowledged write is too old: the age.
        write_stale: Option<Millis>,
        /// It is heard on too few of its paths.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        few_paths: Option<FewPaths>,
    },
    /// Nothing arrives.
    Silent {
        /// For how long, when this was written.
        lasting: Millis,
        /// Never heard since this member began to watch.
        never: bool,
        /// What its kernel answered when asked.
        kernel: Kernel,
    },
    /// It said farewell.
    Gasped(LastGasp),
}

/// On how many of its paths a node is heard, where that is too few.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FewPaths {
    /// Paths by which its heartbeats arrive.
    pub heard: u32,
    /// Paths by which they should.
    pub wanted: u32,
}

/// What a node's kernel answers to a question from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kernel {
    /// Not asked yet, or the question is under way.
    Asking,
    /// It answers: the kernel lives.
    Answers,
    /// No answer to any question.
    Mute,
    /// The inventory names nothing that could be asked.
    NoProbe,
}

/// What a sight means for the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The node works.
    Lives,
    /// Its kernel lives or it shuts down in order; a slower deadline runs.
    Limps,
    /// Too early to tell: the question is under way, or it was never heard and may never have been there.
    Unclear,
    /// Dead.
    Dead,
}

impl Sight {
    /// True if the node waits as a hot spare.
    pub fn waits_hot(&self) -> bool {
        matches!(self, Sight::Alive { epoch: Epoch::STANDBY, .. })
    }

    /// What this member's sight means. `known`: the cluster has seen the node alive before, as it is described now.
    /// A node that was never heard is no dead node: its agent may never have run, its address may be wrong.
    pub fn meaning(&self, known: bool) -> Meaning {
        match self {
            Sight::Alive { write_stale: None, few_paths: None, .. } => Meaning::Lives,
            Sight::Alive { .. } => Meaning::Limps,
            Sight::Silent { kernel, never, .. } => match kernel {
                Kernel::Asking => Meaning::Unclear,
                Kernel::Answers => Meaning::Limps,
                Kernel::Mute | Kernel::NoProbe if *never && !known => Meaning::Unclear,
                Kernel::Mute | Kernel::NoProbe => Meaning::Dead,
            },
            Sight::Gasped(LastGasp::Panic) => Meaning::Dead,
            Sight::Gasped(LastGasp::Shutdown) => Meaning::Limps,
        }
    }
}

impl fmt::Display for Sight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sight::Alive { epoch: Epoch::STANDBY, .. } => write!(f, "waits as a hot spare"),
            Sight::Alive { write_stale, few_paths, .. } => {
                f.write_str("alive")?;
                if let Some(age) = write_stale {
                    write!(f, ", last write {age} ago")?;
                }
                if let Some(FewPaths { heard, wanted }) = few_paths {
                    write!(f, ", heard on {heard} of {wanted} paths")?;
                }
                Ok(())
            }
            Sight::Silent { lasting, never, kernel } => {
                let kernel = match kernel {
                    Kernel::Asking => "asking its kernel",
                    Kernel::Answers => "its kernel answers",
                    Kernel::Mute => "its kernel is mute",
                    Kernel::NoProbe => "nothing to ask its kernel by",
                };
                write!(f, "silent for {lasting}{}, {kernel}", if *never { " (never heard)" } else { "" })
            }
            Sight::Gasped(LastGasp::Panic) => write!(f, "said that its kernel panicked"),
            Sight::Gasped(LastGasp::Shutdown) => write!(f, "said that it shuts down"),
        }
    }
}

/// Why a member does not trust its own eyes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SelfDoubt {
    /// Most of the nodes fell silent for this member at once: probably it is the member.
    MostNodesSilent {
        /// Silent nodes.
        silent: u32,
        /// Watched nodes.
        watched: u32,
    },
    /// Most of the nodes were silent for this member a short while ago, and these are not back yet.
    NotAllBack {
        /// Silent nodes.
        silent: u32,
        /// Watched nodes.
        watched: u32,
    },
}

impl fmt::Display for SelfDoubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SelfDoubt::MostNodesSilent { silent, watched } => {
                write!(f, "{silent} of {watched} nodes are silent for it; it doubts itself")
            }
            SelfDoubt::NotAllBack { silent, watched } => {
                write!(
                    f,
                    "most nodes were silent for it a moment ago, and {silent} of {watched} are not back yet"
                )
            }
        }
    }
}

/// A moment of one process. It means something only to the process whose moment it is: the others give it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The process.
    pub boot: BootId,
    /// Milliseconds on its own clock.
    pub moment: u64,
}

/// One member's summary of all nodes, sent to all members when it changes and once a second.
///
/// A network may deliver it long after it was written, and no clock is shared. So it names the newest moment of each other
/// member that its writer knew of: whoever receives it knows that it was written after that moment of his own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whose.
    pub member: MemberId,
    /// When it was written, for nobody but its writer.
    pub written: Stamp,
    /// When the newest report of each other member was written that has reached the writer.
    pub heard: BTreeMap<MemberId, Stamp>,
    /// The failure domain the member stands in.
    pub domain: String,
    /// Set if the member does not trust its own eyes; its observations then do not count.
    pub doubt: Option<SelfDoubt>,
    /// Every node that it watches.
    pub sights: BTreeMap<NodeId, Sight>,
}
