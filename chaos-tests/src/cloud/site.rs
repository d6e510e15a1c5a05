//! One site: the testbed, three members, and a server on each node; what is done to it and what is waited for.
//!
//! Why it exists: a trial reads as what happens. What it never does: wait for a fixed time without looking, or judge.

use super::inventory::{CLOUD, inventory};
use super::machine::Machines;
use super::testbed::{ByHand, PASSWORD, PATIENCE, Testbed, unexpected};
use super::{Belongings, Described, Pool};
use crate::demo::cluster::Cluster;
use crate::demo::error::system;
use crate::demo::ground::Ground;
use crate::demo::history::History;
use crate::demo::process::{Process, Starter};
use crate::demo::wait::{Look, until};
use crate::demo::{DemoError, Home};
use futures::future::join_all;
use policies::{
    Action, Documents, Effect, Epoch, LogIndex, MemberId, NodeId, NodeState, Outcome, Plan, PlanId, Verdict,
    causes,
};
use provisioning::{Backend, carry_out};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use supervisor::api::answers::{FailoverDetail, FailoverLine, InstanceDetail, NodeLine, Status};
use tokio::time::Instant;

/// How long a spare may take to start, where no trial says otherwise.
pub(super) const START_DEADLINE: &str = "5m";
/// How long everything may take to end when it is asked to; then it is killed.
const END_MAX: Duration = Duration::from_secs(10);

/// A site that is up. Dropping it kills everything that it started.
pub struct Site {
    pub(super) bed: Testbed,
    pub(super) nodes: Vec<Described>,
    pub(super) belongings: BTreeMap<Pool, Belongings>,
    pub(super) cluster: Cluster,
    pub(super) machines: Machines,
    history: History,
}

impl Site {
    /// Builds it on the testbed that runs; returns when both instances are seen and the cluster is armed.
    ///
    /// # Errors
    /// [`DemoError`] with what did not come, or did not start.
    pub async fn build(home: &Home, tell: &dyn Fn(&str)) -> Result<Site, DemoError> {
        let bed = Testbed::find().await?;
        let nodes = bed.nodes().await?;
        let mut belongings = BTreeMap::new();
        for pool in Pool::ALL {
            belongings.insert(pool, bed.belongings(pool).await?);
        }
        tell("the cloud's nodes are cleared, and the first of each kind gets an instance");
        clear(&bed, nodes.iter()).await?;
        let text = inventory(&bed, &nodes, &belongings);
        place(&nodes, &belongings, &text).await?;
        tell("three members");
        let starter = Starter::new(home.program("rack"))?;
        let seats = Ground::loopback()?.seats;
        let cluster =
            Cluster::start(home, &home.room("members")?, &starter, seats, Box::new(|_| Ok(()))).await?;
        let history = History::follow(cluster.clients()?);
        let (agent, members) = (home.program("ha-agent"), cluster.heartbeat_addresses());
        let dir = home.room("servers")?;
        let machines = Machines::start(&nodes, &belongings, &bed, &starter, &agent, &dir, &members);
        let site = Site { bed, nodes, belongings, cluster, machines, history };
        site.introduce(&home.dir().join("inventory.toml"), &text).await?;
        site.await_health().await?;
        site.cluster.hactl(["arm", "--reason", "the site is up"]).await?;
        Ok(site)
    }

    /// Tells the members what there is. The limits are those of services that all run on this computer, and a brake that holds
    /// after the third failover in ten minutes would end every test.
    async fn introduce(&self, file: &Path, inventory: &str) -> Result<(), DemoError> {
        std::fs::write(file, inventory).map_err(system(format!("write {}", file.display())))?;
        self.cluster.hactl(["apply", "-f", &file.to_string_lossy()]).await?;
        let start_deadline = format!("takeover.start_deadline={START_DEADLINE}");
        self.set(&[
            "detection.suspect_after=2s",
            // Ironic takes 6 to 12 s to switch off, and isolation alone is to be proof only of a node that cannot be.
            "fencing.level_deadline=30s",
            "fencing.isolation_alone=30s",
            "takeover.step_deadline=2m",
            &start_deadline,
            "brakes.fences_per_10min_max=1000",
            "brakes.hold_above_failed=1000",
            "brakes.hold_above_failed_per_domain=1000",
        ])
        .await
    }

    // --- what is done ---

    /// Changes the policy of both instances.
    pub(super) async fn set(&self, changes: &[&str]) -> Result<(), DemoError> {
        let words = ["policy", "set", "quick"].iter().chain(changes).chain(&["--reason", "a trial"]);
        self.cluster.hactl(words.copied()).await.map(drop)
    }

    /// Makes everything whole again, as an operator would: nodes that were fenced, or did not start, become spares.
    pub(super) async fn repair(&self) -> Result<(), DemoError> {
        let lines = self.lines().await?;
        let spent = lines.iter().filter(|line| !matches!(line.state, NodeState::Active { .. }));
        let spent: Vec<&NodeId> = spent.map(|line| &line.name).collect();
        clear(&self.bed, self.nodes.iter().filter(|node| spent.contains(&&node.name))).await?;
        for line in &lines {
            let name = line.name.to_string();
            if matches!(line.state, NodeState::Quarantined { .. }) {
                self.cluster.hactl(["node", "release", &name, "--reason", "repaired"]).await?;
            }
        }
        self.await_health().await
    }

    /// Makes sure that everything still runs that should.
    pub(super) fn check(&mut self) -> Result<(), DemoError> {
        self.cluster.check()
    }

    /// The file that tells `hactl` where the cluster is.
    pub fn context(&self) -> &Path {
        self.cluster.context()
    }

    /// Ends everything, in order. The testbed goes on.
    ///
    /// # Errors
    /// If something cannot be ended.
    pub async fn end(self) -> Result<(), DemoError> {
        drop((self.history, self.machines));
        let processes: Vec<Process> = self.cluster.into_processes().collect();
        processes.iter().for_each(Process::ask_to_end);
        let deadline = Instant::now() + END_MAX;
        for process in processes {
            process.ended(deadline).await?;
        }
        Ok(())
    }

    // --- what is seen ---

    pub(super) fn described(&self, name: &NodeId) -> Result<&Described, DemoError> {
        let node = self.nodes.iter().find(|node| node.name == *name);
        node.ok_or_else(|| unexpected(format!("there is no {name}")))
    }

    pub(super) fn belongings(&self, pool: Pool) -> Result<&Belongings, DemoError> {
        self.belongings.get(&pool).ok_or_else(|| unexpected(format!("{} has nothing", pool.instance())))
    }

    async fn lines(&self) -> Result<Vec<NodeLine>, DemoError> {
        self.cluster.get("ask for the nodes", "/v1/nodes").await
    }

    /// Where the instance of a pool is, by the cluster.
    pub(super) async fn placed(&self, pool: Pool) -> Result<(NodeId, Epoch), DemoError> {
        let path = format!("/v1/instances/{}", pool.instance());
        let detail: InstanceDetail = self.cluster.get("ask for an instance", &path).await?;
        Ok((detail.record.node, detail.record.epoch))
    }

    pub(super) async fn failovers(&self) -> Result<Vec<FailoverLine>, DemoError> {
        self.cluster.get("ask for the failovers", "/v1/failovers").await
    }

    pub(super) async fn failover(&self, id: PlanId) -> Result<Plan, DemoError> {
        let path = format!("/v1/failovers/{id}");
        self.cluster.get::<FailoverDetail>("ask for a failover", &path).await.map(|detail| detail.plan)
    }

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

    /// Waits until the instance of a pool is in a newer epoch and no failover is under way.
    pub(super) async fn moved(&self, pool: Pool, than: Epoch) -> Result<(), DemoError> {
        self.look(&format!("{} to be elsewhere", pool.instance()), async || {
            let (placed, lines) = match (self.placed(pool).await, self.failovers().await) {
                (Ok(placed), Ok(lines)) => (placed, lines),
                (Err(error), _) | (_, Err(error)) => return Ok(Look::NotYet(causes(&error))),
            };
            let (_, epoch) = placed;
            Ok(match epoch > than && lines.iter().all(|line| line.phase.is_over()) {
                true => Look::There(()),
                false => Look::NotYet(described(&lines)),
            })
        })
        .await
    }

    async fn await_health(&self) -> Result<(), DemoError> {
        self.look("both instances to be healthy, all other nodes spares", async || {
            let lines = match self.lines().await {
                Ok(lines) => lines,
                Err(error) => return Ok(Look::NotYet(causes(&error))),
            };
            let healthy = lines.iter().filter(|line| {
                matches!(line.state, NodeState::Active { .. }) && line.verdict == Verdict::Healthy
            });
            let is_spare =
                |line: &&NodeLine| line.state == NodeState::Spare && line.power.as_deref() == Some("off");
            let spares = lines.iter().filter(is_spare).count();
            Ok(match healthy.count() == Pool::ALL.len() && spares + Pool::ALL.len() == self.nodes.len() {
                true => Look::There(()),
                false => Look::NotYet(crate::lab::told(&lines)),
            })
        })
        .await
    }

    pub(super) async fn look<T>(
        &self,
        what: &str,
        look: impl AsyncFnMut() -> Result<Look<T>, DemoError>,
    ) -> Result<T, DemoError> {
        until(what, PATIENCE, &self.cluster.newest_log(MemberId(1)), look).await
    }

    /// Everything that the members have logged in all their lives.
    pub(super) fn logs(&self) -> Result<String, DemoError> {
        let read =
            |log: PathBuf| std::fs::read_to_string(&log).map_err(system(format!("read {}", log.display())));
        self.cluster.all_logs().into_iter().map(read).collect()
    }
}

/// What is under way and what it waits for, for messages.
fn described(lines: &[FailoverLine]) -> String {
    let running = lines.iter().filter(|line| !line.phase.is_over());
    let line = |line: &FailoverLine| {
        let why: Vec<String> = line.stuck.iter().chain(&line.waiting).cloned().collect();
        format!("failover {} is {}: {}", line.id, line.phase, why.join("; "))
    };
    running.map(line).collect::<Vec<_>>().join(", ")
}

/// Gives nodes back as they were in the beginning, all at once.
async fn clear(bed: &Testbed, nodes: impl Iterator<Item = &Described>) -> Result<(), DemoError> {
    let cleared = join_all(nodes.map(|node| bed.clear(node))).await;
    cleared.into_iter().collect()
}

/// Deploys both instances, as somebody did by hand before there was a supervisor.
async fn place(
    nodes: &[Described],
    belongings: &BTreeMap<Pool, Belongings>,
    inventory: &str,
) -> Result<(), DemoError> {
    let documents: Documents =
        toml::from_str(inventory).map_err(|error| unexpected(format!("{error}\n{inventory}")))?;
    let kind = documents.providers.first().map(|provider| &provider.kind);
    let kind = kind.ok_or_else(|| unexpected("the inventory has no provider".to_owned()))?;
    let backend = Backend::from_config(kind, PASSWORD.as_bytes(), Path::new("/nowhere"));
    let backend = backend.map_err(|error| unexpected(causes(&error)))?;
    for (pool, Belongings { port, volume }) in belongings {
        let Some(node) = nodes.iter().find(|node| node.pool == *pool) else { continue };
        let (nic, port) = (node.nic.to_string(), port.to_string());
        let at = || Ok::<_, DemoError>((node.name.clone(), CLOUD.parse().map_err(DemoError::Name)?));
        let mut actions = vec![];
        if pool.has_volume() {
            let ((node, provider), volume) = (at()?, volume.as_str().parse().map_err(DemoError::Name)?);
            actions.push(Action::Attach { node, provider, volume, index: 0 });
        }
        let (of, provider) = at()?;
        actions.push(Action::AttachVif { node: of, provider, port: nic, vif: port });
        let ((of, provider), image) = (at()?, pool.instance().to_owned());
        let instance = pool.instance().parse().map_err(DemoError::Name)?;
        actions.push(Action::SetBoot { node: of, provider, instance, image, epoch: Epoch(1) });
        for action in actions {
            let effect = Effect { token: LogIndex(0), plan: None, action };
            let known_as = Some(node.uuid.as_str());
            match carry_out(&backend, &effect, known_as, &ByHand, Instant::now() + PATIENCE).await {
                Outcome::Done(_) => {}
                other @ (Outcome::Refused(_) | Outcome::Unknown(_)) => {
                    return Err(unexpected(format!("{}: {other:?}", effect.action)));
                }
            }
        }
    }
    Ok(())
}
