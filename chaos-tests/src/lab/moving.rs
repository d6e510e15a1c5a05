//! One instance on its way to another node: how it was before, and all that must hold after.
//!
//! Why it exists: a trial, a bench and a soak let different things happen and judge the same. What it never does: let anything
//! happen.

use super::client::Served;
use super::lab::{COUNTS_AFTER_MIN, Lab};
use super::ledger;
use super::phases::seconds;
use crate::clock::now;
use crate::demo::DemoError;
use policies::{Epoch, Millis, Wall};
use std::fmt;

/// An instance before something happens to its node.
pub(super) struct Moving {
    pub(super) instance: u8,
    pub(super) from: u8,
    pub(super) epoch: Epoch,
    pub(super) count: u64,
    began: Wall,
}

/// An instance that was moved, and serves again.
#[derive(Clone, Debug)]
pub(super) struct Moved {
    instance: u8,
    pub(super) from: u8,
    pub(super) to: u8,
    /// Right before it happened.
    pub(super) began: Wall,
    /// The first answer of the new epoch.
    pub(super) first: Served,
}

impl Moved {
    /// From the fault to the first answer.
    pub(super) fn took(&self) -> Millis {
        self.first.at.since(self.began)
    }
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Moved { instance, from, to, .. } = self;
        let took = seconds(self.took());
        write!(f, "web-{instance} from node-{from} to node-{to}; served again after {took} s")
    }
}

impl Moving {
    pub(super) async fn begin(lab: &Lab, instance: u8) -> Result<Moving, DemoError> {
        let served = lab.served(instance, |_| true).await?;
        let (from, epoch) = lab.placed(instance).await?;
        Ok(Moving { instance, from, epoch, count: served.count, began: now() })
    }

    /// Waits until it serves again, elsewhere, and has gone on for a while; then looks at all that it left behind.
    pub(super) async fn end(self, lab: &Lab) -> Result<Moved, DemoError> {
        let first = lab.served(self.instance, |served| served.epoch > self.epoch).await?;
        let enough = first.count + COUNTS_AFTER_MIN;
        lab.served(self.instance, |served| served.count >= enough).await?;
        lab.members.calm().await?;
        let (to, epoch) = lab.placed(self.instance).await?;
        let mut wrong = ledger::faults(&lab.ledger(self.instance)?);
        if first.count < self.count {
            wrong.push(format!("it had counted to {}, and serves {}", self.count, first.count));
        }
        if to == self.from || epoch <= self.epoch {
            wrong.push(format!(
                "it is on node-{to} in {epoch}, and was on node-{} in {}",
                self.from, self.epoch
            ));
        }
        let Moving { instance, from, began, .. } = self;
        match wrong.as_slice() {
            [] => Ok(Moved { instance, from, to, began, first }),
            wrong => Err(DemoError::Unexpected(wrong.join("; "))),
        }
    }
}
