//! **A leader that is refused thinks again.** The log does not refuse the same thing to one leadership again and again:
//! whoever insists does nothing else, fills the log, and says no reason. (Liveness seeds 94 and 416.)

use super::{Checker, Fact, Scene};
use policies::{Command, LeaderEpoch};
use std::collections::BTreeMap;

/// So often it may be refused: a proposal is made again when its answer was lost or late.
const REFUSALS_MAX: u32 = 30;

#[derive(Debug, Default)]
pub(super) struct Insists {
    leader: LeaderEpoch,
    refused: BTreeMap<String, u32>,
}

impl Checker for Insists {
    fn name(&self) -> &'static str {
        "insists"
    }

    fn see(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        let (Fact::Applied { proposal, .. }, Some(Err(why))) = (fact, &scene.applied) else { return Ok(()) };
        let Command::Lead { leader, .. } = &proposal.command else { return Ok(()) };
        if *leader != self.leader {
            (self.leader, self.refused) = (*leader, BTreeMap::new());
        }
        let why = why.to_string();
        let times = self.refused.entry(why.clone()).or_default();
        *times += 1;
        match *times > REFUSALS_MAX {
            true => Err(format!("{leader} was refused {times} times, and proposes it again: {why}")),
            false => Ok(()),
        }
    }
}
