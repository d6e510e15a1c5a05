//! **Reads and writes are linearizable.** A read shows at least everything that was acknowledged, or read, anywhere
//! before it was asked for; a write stands behind all that. Checked by places in the log, which is the total order.
//! (Herlihy and Wing; facts/verification.md I14, section 4.)

use super::{Answer, Checker, Fact, Request, Scene};
use policies::LogIndex;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct Linear {
    /// The newest place that any finished request has shown.
    floor: LogIndex,
    /// What that was when each open request was asked, and whether it writes.
    asked: BTreeMap<u64, (LogIndex, bool)>,
}

impl Checker for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn see(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Asked { request, what } => {
                let writes = matches!(what, Request::Propose(_));
                self.asked.insert(*request, (self.floor, writes));
                Ok(())
            }
            Fact::Answered { request, answer: Answer::Committed(index) | Answer::State(index) } => {
                let Some((floor, writes)) = self.asked.remove(request) else { return Ok(()) };
                self.floor = self.floor.max(*index);
                if !writes {
                    scene.sometimes("a client reads the newest state");
                }
                match if writes { *index > floor } else { *index >= floor } {
                    true => Ok(()),
                    false => Err(format!("request {request} got {index}, but {floor} was complete before")),
                }
            }
            _ => Ok(()),
        }
    }
}
