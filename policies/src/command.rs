//! Entries of the replicated log: the only thing that changes state.

use crate::words::*;
use serde::{Deserialize, Serialize};

/// One entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Stamped by whoever proposed it; `apply` never asks for the time.
    pub at: Wall,
    /// Who wants it.
    pub by: String,
    /// What is wanted.
    pub command: Command,
}

/// What can be wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// An operator's remark, kept in the history.
    Note {
        /// The remark.
        text: String,
    },
}

/// The replicated state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    /// Index of the last applied entry.
    pub applied: LogIndex,
    notes: u64,
}

/// What an applied command did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// For the history and for people, oldest first.
    pub events: Vec<Event>,
}

/// One line of history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The entry that caused it.
    pub index: LogIndex,
    /// When, by the stamp of the entry.
    pub at: Wall,
    /// Nodes, instances and failovers that it is about, as `node/n1`, `instance/web`, `failover/f12`.
    pub about: Vec<String>,
    /// A sentence.
    pub text: String,
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Rejected {
    /// Nothing there by that name.
    #[error("there is no {what}")]
    Unknown {
        /// Kind and name.
        what: String,
    },
}

impl ClusterState {
    /// Applies one entry. Total and deterministic: same state and entry, same result, on every member.
    ///
    /// # Errors
    /// [`Rejected`] if the command does not fit the state; then only `applied` has changed.
    pub fn apply(&mut self, index: LogIndex, proposal: &Proposal) -> Result<Applied, Rejected> {
        self.applied = index;
        match &proposal.command {
            Command::Note { text } => {
                self.notes += 1;
                let event = Event { index, at: proposal.at, about: vec![], text: format!("note: {text}") };
                Ok(Applied { events: vec![event] })
            }
        }
    }
}
