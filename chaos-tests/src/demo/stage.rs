//! A cluster and a rack, ready for a fault.
//!
//! Why it exists: every failover of the demo begins with the same healthy scene, on fresh directories.
//! What it never does: let anything fail; that is `failover.rs`.

use super::cluster::Cluster;
use super::error::system;
use super::ground::Ground;
use super::history::History;
use super::process::{Around, Process, Starter, answer, end_all};
use super::wait::{Look, until};
use super::{DemoError, Home};
use crate::rack::client::Client as RackClient;
use crate::rack::{Description, Report, Status};
use policies::{NodeState, Verdict, causes};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use supervisor::api::answers::NodeLine;

/// From the start of the rack to its first answer; with `ipmi_sim` six more programs start.
const RACK_START_MAX: Duration = Duration::from_secs(20);
/// From arming the cluster to a healthy verdict on each node that works.
const HEALTHY_MAX: Duration = Duration::from_secs(20);
/// How long programs are given to end when asked to.
const END_MAX: Duration = Duration::from_secs(5);

/// Writes of each instance that are awaited before a fault: something that could be lost, and a second in which all
/// members have heard every node and read its power.
const WRITES_BEFORE_MIN: u64 = 100;

/// What the demo's rack holds.
pub(crate) const NODES: usize = 6;
pub(crate) const SPARES: usize = 2;

/// A cluster and a rack.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) history: History,
    pub(crate) description: Description,
    dir: PathBuf,
    rack_dir: PathBuf,
    rack: Process,
    rack_client: RackClient,
}

impl Stage {
    /// Builds it in `dir`, an empty directory, telling each step; returns when every node that carries an instance is
    /// judged healthy.
    pub(super) async fn build(
        home: &Home,
        dir: PathBuf,
        tell: impl FnMut(&str) -> Result<(), DemoError>,
    ) -> Result<Stage, DemoError> {
        Stage::build_on(home, dir, Ground::loopback()?, tell).await
    }

    /// The same on other ground.
    pub(crate) async fn build_on(
        home: &Home,
        dir: PathBuf,
        ground: Ground,
        mut tell: impl FnMut(&str) -> Result<(), DemoError>,
    ) -> Result<Stage, DemoError> {
        let Ground { seats, rack, rack_around, policy, before_run } = ground;
        let starter = Starter::new(home.program("rack"))?;
        tell("making a cluster of three members (ha-supervisord init, invite, join, run; hactl member add)")?;
        let cluster = Cluster::start(home, &dir, &starter, seats, before_run).await?;
        tell("making a rack of six nodes and switching four of them on (rack init, run)")?;
        let rack_dir = dir.join("rack");
        let place = Place { address: rack, around: rack_around, policy };
        let (description, rack) = start_rack(home, &starter, &rack_dir, &cluster, place).await?;
        let rack_client = RackClient::new(&description)
            .map_err(|source| DemoError::Rack { doing: "prepare to speak to the rack", source })?;
        let history = History::follow(cluster.clients()?);
        let mut stage = Stage { cluster, history, description, dir, rack_dir, rack, rack_client };
        stage.wait_for_rack().await?;
        tell("telling the cluster what there is (hactl apply), and that it may act by itself (hactl arm)")?;
        let inventory = stage.rack_dir.join("inventory.toml");
        stage.cluster.hactl(["apply", "-f", &inventory.to_string_lossy()]).await?;
        stage.cluster.hactl(["arm", "--reason", "the demo begins"]).await?;
        stage.wait_for_health().await?;
        Ok(stage)
    }

    async fn wait_for_rack(&mut self) -> Result<(), DemoError> {
        let (rack, client) = (&mut self.rack, &self.rack_client);
        let log = rack.log().to_owned();
        until("the rack to answer", RACK_START_MAX, &log, async || {
            rack.check()?;
            Ok(match client.status().await {
                Ok(_) => Look::There(()),
                Err(error) => Look::NotYet(causes(&error)),
            })
        })
        .await
    }

    async fn wait_for_health(&mut self) -> Result<(), DemoError> {
        let log = self.cluster.logs().into_values().next().unwrap_or_default();
        until(
            "every node with an instance to be judged healthy and to write",
            HEALTHY_MAX,
            &log,
            async || {
                self.check()?;
                let nodes: Vec<NodeLine> = match self.cluster.get("ask for the nodes", "/v1/nodes").await {
                    Ok(nodes) => nodes,
                    Err(error) => return Ok(Look::NotYet(causes(&error))),
                };
                let healthy = |node: &&NodeLine| {
                    matches!(node.state, NodeState::Active { .. }) && node.verdict == Verdict::Healthy
                };
                let writes = self
                    .report()
                    .await?
                    .volumes
                    .iter()
                    .filter(|volume| volume.writes >= WRITES_BEFORE_MIN)
                    .count();
                let healthy = nodes.iter().filter(healthy).count();
                if (healthy, writes) == (NODES - SPARES, NODES - SPARES) {
                    return Ok(Look::There(()));
                }
                let seen = nodes.iter().map(|node| format!("{} {} {}", node.name, node.state, node.verdict));
                Ok(Look::NotYet(format!(
                    "{}; {writes} volumes with {WRITES_BEFORE_MIN} writes",
                    seen.collect::<Vec<_>>().join(", ")
                )))
            },
        )
        .await
    }

    /// Makes sure that everything still runs.
    pub(crate) fn check(&mut self) -> Result<(), DemoError> {
        self.cluster.check()?;
        self.check_rack()
    }

    /// Makes sure that the rack still runs.
    pub(super) fn check_rack(&mut self) -> Result<(), DemoError> {
        self.rack.check()
    }

    /// What the array has seen.
    pub(crate) async fn report(&self) -> Result<Report, DemoError> {
        let doing = "ask the storage array for its report";
        self.rack_client.report().await.map_err(|source| DemoError::Rack { doing, source })
    }

    /// The rack as it is now.
    pub(crate) async fn status(&self) -> Result<Status, DemoError> {
        self.rack_client
            .status()
            .await
            .map_err(|source| DemoError::Rack { doing: "look at the rack", source })
    }

    /// The rack's control.
    pub(crate) fn rack(&self) -> &RackClient {
        &self.rack_client
    }

    /// Where everything of this stage is.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The rack's directory.
    pub(super) fn rack_dir(&self) -> &Path {
        &self.rack_dir
    }

    /// Ends everything: all are asked at once, and killed if they do not end.
    pub(crate) async fn end(self) -> Result<(), DemoError> {
        drop(self.history);
        end_all(self.cluster.into_processes().chain([self.rack]).collect(), END_MAX).await
    }
}

/// Where the rack stands, and the policy of its instances.
struct Place {
    address: IpAddr,
    around: Around,
    policy: String,
}

async fn start_rack(
    home: &Home,
    starter: &Starter,
    dir: &Path,
    cluster: &Cluster,
    place: Place,
) -> Result<(Description, Process), DemoError> {
    let text = dir.to_string_lossy();
    let members = cluster.heartbeat_addresses().join(",");
    let (machines, spares) = (NODES.to_string(), SPARES.to_string());
    let program = home.program("rack");
    let init = ["init", "--dir", &text, "--machines", &machines, "--spares", &spares];
    let address = place.address.to_string();
    let rest = ["--members", &members, "--bmc", home.bmcs().word()];
    let rest = rest.into_iter().chain(["--policy", &place.policy, "--address", &address]);
    answer(&program, init.into_iter().chain(rest), &[]).await?;
    let log = dir.with_extension("log");
    let rack = starter.start("the rack", &program, ["run", "--dir", &text], &place.around, log).await?;
    let description = Description::read(dir).map_err(DemoError::Description)?;
    Ok((description, rack))
}

/// Writes something that a reader of the logs may want to see later.
pub(crate) fn keep(path: &Path, text: &str) -> Result<(), DemoError> {
    std::fs::write(path, text).map_err(system(format!("write {}", path.display())))
}
