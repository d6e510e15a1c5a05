//! What is seen of a lab, and what is waited for.
//!
//! Why it exists: trials, benches and soaks look at the same things. What it never does: change anything.

use super::INSTANCES;
use super::client::{Served, ask_until};
use super::lab::{Lab, PATIENCE, node, number};
use super::ledger::{self, Entry};
use crate::demo::DemoError;
use crate::demo::error::{system, tail};
use crate::demo::wait::{Look, until};
use policies::{Epoch, MemberId, NodeState, Plan, Verdict, causes};
use std::path::PathBuf;
use supervisor::api::SpareLine;
use supervisor::api::answers::{FailoverDetail, FailoverLine, InstanceDetail, NodeDetail, NodeLine, Status};
use tokio::time::timeout;

impl Lab {
    pub(super) async fn leader(&self) -> Result<MemberId, DemoError> {
        self.look("a leader", async || {
            let status = self.cluster.get::<Status>("ask for the status", "/v1/status").await;
            Ok(match status {
                Ok(status) => Look::There(status.answered_by),
                Err(error) => Look::NotYet(causes(&error)),
            })
        })
        .await
    }

    pub(super) async fn nodes(&self) -> Result<Vec<NodeLine>, DemoError> {
        self.cluster.get("ask for the nodes", "/v1/nodes").await
    }

    pub(super) async fn node(&self, machine: u8) -> Result<NodeDetail, DemoError> {
        self.cluster.get("ask for a node", &format!("/v1/nodes/node-{machine}")).await
    }

    /// Where an instance is, by the cluster.
    pub(super) async fn placed(&self, instance: u8) -> Result<(u8, Epoch), DemoError> {
        let path = format!("/v1/instances/web-{instance}");
        let detail: InstanceDetail = self.cluster.get("ask for an instance", &path).await?;
        let machine = number(&detail.record.node);
        let machine =
            machine.ok_or_else(|| DemoError::Unexpected(format!("{} has no number", detail.record.node)))?;
        Ok((machine, detail.record.epoch))
    }

    pub(super) async fn failovers(&self) -> Result<Vec<FailoverLine>, DemoError> {
        self.cluster.get("ask for the failovers", "/v1/failovers").await
    }

    /// What the cluster committed about the newest failover of an instance.
    pub(super) async fn newest_failover(&self, instance: u8) -> Result<Plan, DemoError> {
        let name = format!("web-{instance}");
        let is_its = |line: &&FailoverLine| line.instance.as_ref().is_some_and(|it| it.as_str() == name);
        let newest = self.failovers().await?.iter().filter(is_its).map(|line| line.id).max();
        let newest = newest.ok_or_else(|| DemoError::Unexpected(format!("{name} never failed over")))?;
        let path = format!("/v1/failovers/{newest}");
        self.cluster.get::<FailoverDetail>("ask for a failover", &path).await.map(|detail| detail.plan)
    }

    /// Waits until a spare waits hot.
    pub(super) async fn waits_hot(&self, machine: u8) -> Result<(), DemoError> {
        let name = node(machine)?;
        self.look(&format!("{name} to wait hot"), async || {
            let spares = match self.cluster.get::<Vec<SpareLine>>("ask for the spares", "/v1/spares").await {
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
                let (what, log) = (format!("web-{instance} to serve"), self.log());
                let seen = format!("{seen:?}; {}", self.describe().await);
                Err(DemoError::Late { what, within: PATIENCE, seen, tail: tail(&log), log })
            }
        }
    }

    /// Waits until an event says this of what has happened since `after` events.
    pub(super) async fn told(&self, after: usize, text: &str) -> Result<(), DemoError> {
        let events = self.history.subscribe();
        self.look(&format!("the event {text:?}"), async || {
            match events.borrow().iter().skip(after).any(|event| event.text.contains(text)) {
                true => Ok(Look::There(())),
                false => Ok(Look::NotYet("no such event".to_owned())),
            }
        })
        .await
    }

    /// Events so far.
    pub(super) fn events(&self) -> usize {
        self.history.subscribe().borrow().len()
    }

    /// Waits until no failover is under way.
    pub(super) async fn calm(&self) -> Result<(), DemoError> {
        self.look("the end of every failover", async || {
            let lines = match self.failovers().await {
                Ok(lines) => lines,
                Err(error) => return Ok(Look::NotYet(causes(&error))),
            };
            Ok(match lines.iter().all(|line| line.phase.is_over()) {
                true => Look::There(()),
                false => Look::NotYet(self.describe().await),
            })
        })
        .await
    }

    pub(super) async fn await_health(&self) -> Result<(), DemoError> {
        self.look("both instances to be healthy", async || {
            let nodes = match self.nodes().await {
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

    /// What is under way and what it waits for, for messages.
    async fn describe(&self) -> String {
        match self.failovers().await {
            Ok(lines) => {
                let running = lines.iter().filter(|line| !line.phase.is_over());
                let line = |line: &FailoverLine| {
                    let why: Vec<String> = line.stuck.iter().chain(&line.waiting).cloned().collect();
                    format!("failover {} is {}: {}", line.id, line.phase, why.join("; "))
                };
                running.map(line).collect::<Vec<_>>().join(", ")
            }
            Err(error) => causes(&error),
        }
    }

    pub(super) async fn look<T>(
        &self,
        what: &str,
        look: impl AsyncFnMut() -> Result<Look<T>, DemoError>,
    ) -> Result<T, DemoError> {
        until(what, PATIENCE, &self.log(), look).await
    }

    fn log(&self) -> PathBuf {
        self.cluster.newest_log(MemberId(1))
    }

    /// Where a machine's console is kept, of all its lives.
    pub(super) fn console(&self, machine: u8) -> Result<String, DemoError> {
        let file = self.dir.join(format!("rack/machines/node-{machine}/console"));
        let bytes = std::fs::read(&file).map_err(system(format!("read {}", file.display())))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// What is told of nodes while something of them is waited for.
pub(crate) fn told(nodes: &[NodeLine]) -> String {
    let line = |line: &NodeLine| format!("{} {} {}", line.name, line.state, line.verdict);
    nodes.iter().map(line).collect::<Vec<_>>().join(", ")
}
