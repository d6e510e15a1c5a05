//! A cluster together with what it has said since it began: what is asked of it, waited for and ordered.
//!
//! Why it exists: laboratories of different hardware look at the same members. What it never does: judge, or wait for a fixed time
//! without looking.

use super::DemoError;
use super::cluster::Cluster;
use super::error::system;
use super::history::History;
use super::process::Process;
use super::wait::{Look, until};
use policies::{Epoch, MemberId, NodeId, Plan, causes};
use std::path::{Path, PathBuf};
use std::time::Duration;
use supervisor::api::answers::{FailoverDetail, FailoverLine, InstanceDetail, NodeLine, Status};

/// How long anything is waited for. Far more than it takes: everything runs on one busy computer, machines included.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// A cluster and its history.
pub(crate) struct Watched {
    pub(crate) cluster: Cluster,
    history: History,
}

impl Watched {
    /// Follows what happens from now on.
    pub(crate) fn new(cluster: Cluster) -> Result<Watched, DemoError> {
        let history = History::follow(cluster.clients()?);
        Ok(Watched { cluster, history })
    }

    // --- what is asked ---

    pub(crate) async fn nodes(&self) -> Result<Vec<NodeLine>, DemoError> {
        self.cluster.get("ask for the nodes", "/v1/nodes").await
    }

    /// Where an instance is.
    pub(crate) async fn placed(&self, instance: &str) -> Result<(NodeId, Epoch), DemoError> {
        let path = format!("/v1/instances/{instance}");
        let detail: InstanceDetail = self.cluster.get("ask for an instance", &path).await?;
        Ok((detail.record.node, detail.record.epoch))
    }

    pub(crate) async fn failovers(&self) -> Result<Vec<FailoverLine>, DemoError> {
        self.cluster.get("ask for the failovers", "/v1/failovers").await
    }

    /// What was committed about the newest failover of an instance.
    pub(crate) async fn newest_failover(&self, instance: &str) -> Result<Plan, DemoError> {
        let is_its = |line: &&FailoverLine| line.instance.as_ref().is_some_and(|it| it.as_str() == instance);
        let newest = self.failovers().await?.iter().filter(is_its).map(|line| line.id).max();
        let newest = newest.ok_or_else(|| DemoError::Unexpected(format!("{instance} never failed over")))?;
        let path = format!("/v1/failovers/{newest}");
        self.cluster.get::<FailoverDetail>("ask for a failover", &path).await.map(|detail| detail.plan)
    }

    /// What is under way, for messages.
    pub(crate) async fn under_way(&self) -> String {
        match self.failovers().await {
            Ok(lines) => under_way(&lines),
            Err(error) => causes(&error),
        }
    }

    /// Events so far.
    pub(crate) fn events(&self) -> usize {
        self.history.subscribe().borrow().len()
    }

    /// The log that knows most.
    pub(crate) fn log(&self) -> PathBuf {
        self.cluster.newest_log(MemberId(1))
    }

    // --- what is waited for ---

    pub(crate) async fn look<T>(
        &self,
        what: &str,
        look: impl AsyncFnMut() -> Result<Look<T>, DemoError>,
    ) -> Result<T, DemoError> {
        until(what, PATIENCE, &self.log(), look).await
    }

    pub(crate) async fn leader(&self) -> Result<MemberId, DemoError> {
        self.look("a leader", async || {
            let status = self.cluster.get::<Status>("ask for the status", "/v1/status").await;
            Ok(match status {
                Ok(status) => Look::There(status.answered_by),
                Err(error) => Look::NotYet(causes(&error)),
            })
        })
        .await
    }

    /// Waits until a member that stood still hears a leader again, and has told it what it sees.
    pub(crate) async fn follows(&self, member: MemberId) -> Result<(), DemoError> {
        self.look(&format!("{member} to follow"), async || {
            let status = match self.cluster.get::<Status>("ask for the status", "/v1/status").await {
                Ok(status) => status,
                Err(error) => return Ok(Look::NotYet(causes(&error))),
            };
            let line = status.members.iter().find(|line| line.id == member);
            Ok(match line.is_some_and(|line| line.report_age_ms.is_some_and(|age| age < 1000)) {
                true => Look::There(()),
                false => Look::NotYet(format!("{line:?}")),
            })
        })
        .await
    }

    /// Waits until an event says this of what has happened since `after` events.
    pub(crate) async fn told(&self, after: usize, text: &str) -> Result<(), DemoError> {
        let events = self.history.subscribe();
        self.look(&format!("the event {text:?}"), async || {
            match events.borrow().iter().skip(after).any(|event| event.text.contains(text)) {
                true => Ok(Look::There(())),
                false => Ok(Look::NotYet("no such event".to_owned())),
            }
        })
        .await
    }

    /// Waits until no failover is under way.
    pub(crate) async fn calm(&self) -> Result<(), DemoError> {
        self.look("the end of every failover", async || {
            let lines = match self.failovers().await {
                Ok(lines) => lines,
                Err(error) => return Ok(Look::NotYet(causes(&error))),
            };
            Ok(match lines.iter().all(|line| line.phase.is_over()) {
                true => Look::There(()),
                false => Look::NotYet(under_way(&lines)),
            })
        })
        .await
    }

    // --- what is done ---

    /// Tells the members what there is.
    pub(crate) async fn apply(&self, file: &Path, inventory: &str) -> Result<(), DemoError> {
        std::fs::write(file, inventory).map_err(system(format!("write {}", file.display())))?;
        self.cluster.hactl(["apply", "-f", &file.to_string_lossy()]).await.map(drop)
    }

    /// Changes the policy of all instances.
    pub(crate) async fn set_policy(&self, changes: &[&str], reason: &str) -> Result<(), DemoError> {
        let words = [&["policy", "set", "quick"], changes, &["--reason", reason]].concat();
        self.cluster.hactl(words).await.map(drop)
    }

    /// Kills the leader when an event says this of what has happened since `after` events, and starts it again once another leads.
    pub(crate) async fn leader_dies(
        &mut self,
        leader: MemberId,
        after: usize,
        moment: &str,
    ) -> Result<(), DemoError> {
        self.told(after, moment).await?;
        self.cluster.kill(leader).await?;
        let next = self.leader().await?;
        if next == leader {
            return Err(DemoError::Unexpected(format!("{leader} leads, which was killed")));
        }
        self.cluster.run(leader).await
    }

    /// Its processes, to be ended.
    pub(crate) fn into_processes(self) -> impl Iterator<Item = Process> {
        self.cluster.into_processes()
    }
}

/// What is under way and what it waits for, for messages.
pub(crate) fn under_way(lines: &[FailoverLine]) -> String {
    let running = lines.iter().filter(|line| !line.phase.is_over());
    let line = |line: &FailoverLine| {
        let why: Vec<String> = line.stuck.iter().chain(&line.waiting).cloned().collect();
        format!("failover {} is {}: {}", line.id, line.phase, why.join("; "))
    };
    running.map(line).collect::<Vec<_>>().join(", ")
}

/// What is told of nodes while something of them is waited for.
pub(crate) fn told(nodes: &[NodeLine]) -> String {
    let line = |line: &NodeLine| format!("{} {} {}", line.name, line.state, line.verdict);
    nodes.iter().map(line).collect::<Vec<_>>().join(", ")
}
