//! **Nothing that was acknowledged is lost.** What a client was told to be in the log at a place is there in every log
//! that reaches that far. (facts/verification.md I13, I18.)

use super::{Answer, Checker, Entries, Fact, Request, Scene};
use policies::{LogIndex, Proposal};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, Default)]
pub(super) struct Acknowledged {
    asked: BTreeMap<u64, Arc<Proposal>>,
    acknowledged: Entries,
    applied: BTreeMap<LogIndex, Arc<Proposal>>,
}

fn compare(index: LogIndex, promised: &Proposal, found: &Proposal) -> Result<(), String> {
    match promised == found {
        true => Ok(()),
        false => Err(format!("{:?} was acknowledged at {index}; something else is there", promised.command)),
    }
}

impl Checker for Acknowledged {
    fn name(&self) -> &'static str {
        "acknowledged"
    }

    fn see(&mut self, _scene: &Scene, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Asked { request, what: Request::Propose(proposal) } => {
                self.asked.insert(*request, Arc::clone(proposal));
            }
            Fact::Answered { request, answer: Answer::Committed(index) } => {
                let Some(proposal) = self.asked.get(request) else { return Ok(()) };
                self.acknowledged.insert(*index, Arc::clone(proposal));
                if let Some(found) = self.applied.get(index) {
                    return compare(*index, proposal, found);
                }
            }
            Fact::Applied { index, proposal, .. } => {
                self.applied.entry(*index).or_insert_with(|| Arc::clone(proposal));
                if let Some(promised) = self.acknowledged.get(index) {
                    return compare(*index, promised, proposal);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, scene: &Scene) -> Result<(), String> {
        let mut lost = self.acknowledged.keys().filter(|index| **index > scene.state.applied);
        match lost.next() {
            Some(index) => {
                Err(format!("{index} was acknowledged, but the log ends at {}", scene.state.applied))
            }
            None => Ok(()),
        }
    }
}
