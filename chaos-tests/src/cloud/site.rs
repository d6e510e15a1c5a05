//! One site: the testbed, three members, and a server on each node; what is done to it and what is waited for.
//!
//! Why it exists: a trial reads as what happens. What it never does: wait for a fixed time without looking, or judge.

use super::inventory::{CLOUD, inventory};
use super::machine::Machines;
use super::testbed::{ByHand, LOOK_EVERY, PASSWORD, Testbed, unexpected};
use super::{Belongings, Described, Pool};
use crate::demo::cluster::Cluster;
use crate::demo::error::system;
use crate::demo::ground::Ground;
use crate::demo::process::{Starter, end_all};
use crate::demo::wait::{Look, until_every};
use crate::demo::watched::{PATIENCE, Watched, told, under_way};
use crate::demo::{DemoError, Home};
use futures::future::join_all;
use policies::{Action, Documents, Effect, Epoch, LogIndex, NodeId, NodeState, Outcome, Verdict, causes};
use provisioning::{Backend, Us, carry_out};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use supervisor::api::answers::NodeLine;
use supervisor::api::{How, ProviderInventory};
use tokio::time::Instant;

/// How long everything may take to end when it is asked to; then it is killed.
const END_MAX: Duration = Duration::from_secs(10);

/// A site that is up. Dropping it kills everything that it started.
pub struct Site {
    pub(super) bed: Testbed,
    pub(super) nodes: Vec<Described>,
    pub(super) belongings: BTreeMap<Pool, Belongings>,
    pub(super) members: Watched,
    pub(super) machines: Machines,
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
        for Belongings { port, .. } in belongings.values() {
            bed.unbind(port).await?;
        }
        let text = inventory(&bed, &nodes, &belongings);
        place(&nodes, &belongings, &text).await?;
        tell("three members");
        let starter = Starter::new(home.program("rack"))?;
        let seats = Ground::loopback()?.seats;
        let cluster =
            Cluster::start(home, &home.room("members")?, &starter, seats, Box::new(|_| Ok(()))).await?;
        let (agent, heartbeat) = (home.program("ha-agent"), cluster.heartbeat_addresses());
        let dir = home.room("servers")?;
        let machines = Machines::start(&nodes, &belongings, &bed, &starter, &agent, &dir, &heartbeat);
        let members = Watched::new(cluster)?;
        let site = Site { bed, nodes, belongings, members, machines };
        site.introduce(&home.dir().join("inventory.toml"), &text).await?;
        site.await_health().await?;
        site.take_over().await?;
        site.members.cluster.hactl(["arm", "--reason", "the site is up"]).await?;
        site.await_claims().await?;
        Ok(site)
    }

    /// Tells the members what there is. The limits are those of services that all run on this computer, and a brake that holds
    /// after the third failover in ten minutes would end every test.
    async fn introduce(&self, file: &Path, inventory: &str) -> Result<(), DemoError> {
        self.members.apply(file, inventory).await?;
        let limits = [
            "detection.suspect_after=2s",
            // Ironic takes 6 to 12 s to switch off, and isolation alone is to be proof only of a node that cannot be.
            "fencing.level_deadline=30s",
            "fencing.isolation_alone=30s",
            "takeover.step_deadline=2m",
            "takeover.start_deadline=5m",
            "brakes.fences_per_10min_max=1000",
            "brakes.hold_above_failed=1000",
            "brakes.hold_above_failed_per_domain=1000",
        ];
        // What is released carries nothing: this policy says how long it drains.
        let drains =
            ["fencing.level_deadline=15s", "fencing.power_effect_max=15s", "fencing.provider_effect_max=5s"];
        let words = ["policy", "set", "cautious"].into_iter().chain(drains).chain(["--reason", "a trial"]);
        self.members.cluster.hactl(words).await?;
        self.members.set_policy(&limits, "services on one computer").await
    }

    /// Takes over what the cloud tells of nodes and instances and nobody has written down: hardware, owners.
    async fn take_over(&self) -> Result<(), DemoError> {
        let import = ["openstack", "import", CLOUD];
        let said = self.members.cluster.hactl(import.into_iter().chain(["-o", "json"])).await?;
        let found = serde_json::from_str::<ProviderInventory>(&said);
        let found = found.map_err(|error| unexpected(format!("{error}: {said}")))?;
        let known = found.differences.iter().filter(|line| line.how != How::New);
        let changes = known.flat_map(|line| ["--change", &line.object]);
        self.members.cluster.hactl(import.into_iter().chain(["--apply"]).chain(changes)).await?;
        self.agrees().await
    }

    /// That nothing is other at the cloud than described: `drift` ends with 1 if something is.
    async fn agrees(&self) -> Result<(), DemoError> {
        self.members.cluster.hactl(["openstack", "drift", CLOUD]).await.map(drop)
    }

    // --- what is done ---

    /// Makes everything whole again, as an operator would: BMCs are mended, upon which the cluster switches off what they left on;
    /// fenced nodes are released, upon which Ironic cleans them and they become spares.
    pub(super) async fn repair(&self) -> Result<(), DemoError> {
        self.members.calm().await?;
        let lines = self.members.nodes().await?;
        let fenced = lines.iter().filter(|line| matches!(line.state, NodeState::Quarantined { .. }));
        for name in fenced.map(|line| &line.name) {
            self.bed.mend(self.described(name)?).await?;
            let words = ["node", "release", name.as_str(), "--reason", "repaired", "--wait"];
            self.members.cluster.hactl(words).await?;
        }
        self.await_health().await?;
        let mut wrong = vec![];
        for pool in Pool::ALL {
            let (node, _) = self.members.placed(pool.instance()).await?;
            wrong.extend(self.away_from(pool, self.described(&node)?).await?);
        }
        self.await_claims().await?;
        if !wrong.is_empty() {
            return Err(unexpected(format!("after the cleaning: {}", wrong.join("; "))));
        }
        self.agrees().await
    }

    /// Makes sure that everything still runs that should.
    pub(super) fn check(&mut self) -> Result<(), DemoError> {
        self.members.cluster.check()
    }

    /// The file that tells `hactl` where the cluster is.
    pub fn context(&self) -> &Path {
        self.members.cluster.context()
    }

    /// Ends everything, in order. The testbed goes on.
    ///
    /// # Errors
    /// If something cannot be ended.
    pub async fn end(self) -> Result<(), DemoError> {
        drop(self.machines);
        end_all(self.members.into_processes().collect(), END_MAX).await
    }

    // --- what is seen ---

    pub(super) fn described(&self, name: &NodeId) -> Result<&Described, DemoError> {
        let node = self.nodes.iter().find(|node| node.name == *name);
        node.ok_or_else(|| unexpected(format!("there is no {name}")))
    }

    pub(super) fn belongings(&self, pool: Pool) -> Result<&Belongings, DemoError> {
        self.belongings.get(&pool).ok_or_else(|| unexpected(format!("{} has nothing", pool.instance())))
    }

    /// Waits until the instance of a pool is in a newer epoch and no failover is under way.
    pub(super) async fn moved(&self, pool: Pool, than: Epoch) -> Result<(), DemoError> {
        self.members
            .look(&format!("{} to be elsewhere", pool.instance()), async || {
                let (placed, lines) =
                    match (self.members.placed(pool.instance()).await, self.members.failovers().await) {
                        (Ok(placed), Ok(lines)) => (placed, lines),
                        (Err(error), _) | (_, Err(error)) => return Ok(Look::NotYet(causes(&error))),
                    };
                let (_, epoch) = placed;
                Ok(match epoch > than && lines.iter().all(|line| line.phase.is_over()) {
                    true => Look::There(()),
                    false => Look::NotYet(under_way(&lines)),
                })
            })
            .await
    }

    /// What an instance should have on its node and has not.
    pub(super) async fn away_from(&self, pool: Pool, node: &Described) -> Result<Vec<String>, DemoError> {
        let (mut wrong, belongings) = (vec![], self.belongings(pool)?);
        let port = self.bed.port(&belongings.port).await?;
        if port.host_id.as_deref() != Some(node.uuid.as_str()) || port.status != "ACTIVE" {
            wrong.push(format!("its port is {} at {:?}, not at {}", port.status, port.host_id, node.uuid));
        }
        if pool.has_volume() {
            // Ironic attaches for the claim of a node that has one.
            let claim = self.bed.node(&node.uuid).await?.instance_uuid;
            let holder = claim.unwrap_or_else(|| node.uuid.to_string());
            let holders = self.bed.holders(&belongings.volume).await?;
            if holders != [holder.as_str()] {
                wrong.push(format!("its volume is attached for {holders:?}, not for {holder}"));
            }
            if !self.bed.reaches(&node.initiator(), &belongings.volume).await {
                wrong.push(format!("{} cannot reach its volume", node.name));
            }
        }
        Ok(wrong)
    }

    async fn await_health(&self) -> Result<(), DemoError> {
        self.members
            .look("both instances to be healthy, all other nodes spares", async || {
                let lines = match self.members.nodes().await {
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
                    false => Look::NotYet(told(&lines)),
                })
            })
            .await
    }

    /// Waits until Ironic keeps every spare for the cluster.
    async fn await_claims(&self) -> Result<(), DemoError> {
        let log = self.members.log();
        until_every(LOOK_EVERY, "all spares to be claimed", PATIENCE, &log, async || {
            let mut unclaimed = vec![];
            for line in self.members.nodes().await? {
                let node = self.described(&line.name)?;
                if line.state == NodeState::Spare && self.bed.node(&node.uuid).await?.instance_uuid.is_none()
                {
                    unclaimed.push(line.name.to_string());
                }
            }
            Ok(if unclaimed.is_empty() { Look::There(()) } else { Look::NotYet(unclaimed.join(", ")) })
        })
        .await
    }

    /// Everything that the members have logged in all their lives.
    pub(super) fn logs(&self) -> Result<String, DemoError> {
        let read =
            |log: PathBuf| std::fs::read_to_string(&log).map_err(system(format!("read {}", log.display())));
        self.members.cluster.all_logs().into_iter().map(read).collect()
    }
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
    let backend = Backend::from_config(kind, PASSWORD.as_bytes(), Us::nobody());
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
