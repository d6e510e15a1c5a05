//! What is seen of a lab, and what is waited for.
//!
//! Why it exists: trials, benches and soaks look at the same things. What it never does: change anything.

use super::INSTANCES;
use super::client::{Served, ask_until};
use super::lab::{Lab, node, number};
use super::ledger::{self, Entry};
use crate::demo::DemoError;
use crate::demo::error::{system, tail};
use crate::demo::wait::Look;
use crate::demo::watched::{PATIENCE, told};
use policies::{Epoch, NodeState, Verdict, causes};
use supervisor::api::SpareLine;
use supervisor::api::answers::NodeDetail;
use tokio::time::timeout;

impl Lab {
    pub(super) async fn node(&self, machine: u8) -> Result<NodeDetail, DemoError> {
        self.members.cluster.get("ask for a node", &format!("/v1/nodes/node-{machine}")).await
    }

    /// Where an instance is, by the cluster.
    pub(super) async fn placed(&self, instance: u8) -> Result<(u8, Epoch), DemoError> {
        let (node, epoch) = self.members.placed(&format!("web-{instance}")).await?;
        let machine = number(&node);
        let machine = machine.ok_or_else(|| DemoError::Unexpected(format!("{node} has no number")))?;
        Ok((machine, epoch))
    }

    /// Waits until a spare waits hot.
    pub(super) async fn waits_hot(&self, machine: u8) -> Result<(), DemoError> {
        let name = node(machine)?;
        self.members
            .look(&format!("{name} to wait hot"), async || {
                let spares = match self
                    .members
                    .cluster
                    .get::<Vec<SpareLine>>("ask for the spares", "/v1/spares")
                    .await
                {
                    Ok(spares) => spares,
                    Err(error) => return Ok(Look::NotYet(causes(&error))),
                };
                Ok(match spares.iter().find(|spare| spare.name == name) {
                    Some(spare) if spare.waits_hot => Look::There(()),
                    Some(spare) => Look::NotYet(format!("its power reads {:?}", spare.power)),
                    None => Look::NotYet("it is no spare".to_owned()),
                })
            })
            .await
    }

    /// What stands on an instance's volume.
    pub(super) fn ledger(&self, instance: u8) -> Result<Vec<Entry>, DemoError> {
        ledger::entries(&self.storage.read(instance)?)
            .map_err(|why| DemoError::Unexpected(format!("the volume of web-{instance}: {why}")))
    }

    /// Waits until an instance serves and says what is wished for.
    pub(super) async fn served(
        &self,
        instance: u8,
        wished: impl Fn(&Served) -> bool,
    ) -> Result<Served, DemoError> {
        let mut seen = Err("nothing".to_owned());
        match timeout(PATIENCE, ask_until(instance, wished, &mut seen)).await {
            Ok(served) => Ok(served),
            Err(_) => {
                let (what, log) = (format!("web-{instance} to serve"), self.members.log());
                let seen = format!("{seen:?}; {}", self.members.under_way().await);
                Err(DemoError::Late { what, within: PATIENCE, seen, tail: tail(&log), log })
            }
        }
    }

    pub(super) async fn await_health(&self) -> Result<(), DemoError> {
        self.members
            .look("both instances to be healthy", async || {
                let nodes = match self.members.nodes().await {
                    Ok(nodes) => nodes,
                    Err(error) => return Ok(Look::NotYet(causes(&error))),
                };
                let healthy = nodes.iter().filter(|line| {
                    matches!(line.state, NodeState::Active { .. }) && line.verdict == Verdict::Healthy
                });
                Ok(match healthy.count() == usize::from(INSTANCES) {
                    true => Look::There(()),
                    false => Look::NotYet(told(&nodes)),
                })
            })
            .await
    }

    /// Where a machine's console is kept, of all its lives.
    pub(super) fn console(&self, machine: u8) -> Result<String, DemoError> {
        let file = self.dir.join(format!("rack/machines/node-{machine}/console"));
        let bytes = std::fs::read(&file).map_err(system(format!("read {}", file.display())))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
