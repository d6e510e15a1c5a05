//! **A deposed leader sends nothing.** When a command leaves a member, no newer leadership than its own is committed,
//! and each leadership is newer than the one before. (R5, R10; facts/verification.md I5, I12, I16.)

use super::{Checker, Fact, Scene};
use policies::{Command, LeaderEpoch};

#[derive(Debug, Default)]
pub(super) struct Deposed {
    newest: LeaderEpoch,
}

impl Checker for Deposed {
    fn name(&self) -> &'static str {
        "deposed"
    }

    fn see(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        if let Fact::Sent { member, deed, .. } = fact {
            return match scene.state.leadership {
                Some(leadership) if leadership.member == *member => Ok(()),
                Some(newest) => {
                    Err(format!("{member} sent `{deed}`, but {} leads as {}", newest.member, newest.epoch))
                }
                None => Err(format!("{member} sent `{deed}`, and nobody has ever led")),
            };
        }
        let Some((index, proposal)) = scene.entry(fact) else { return Ok(()) };
        if let Command::TookOver { .. } = &proposal.command {
            let epoch = LeaderEpoch(index.0);
            if epoch <= self.newest {
                return Err(format!("{epoch} follows {}", self.newest));
            }
            self.newest = epoch;
            if scene.state.running().next().is_some() {
                scene.sometimes("leadership changes in mid-failover");
            }
        }
        Ok(())
    }
}
