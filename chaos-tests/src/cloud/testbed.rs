//! The testbed: where it is, what can be done to it, and what is true in it.
//!
//! Why it exists: trials judge by what the services and BMCs themselves say, not by what the members believe.
//! What it never does: start or stop the testbed.

use super::{Belongings, Described, Pool};
use crate::demo::DemoError;
use crate::demo::error::system;
use crate::demo::process::answer;
use crate::demo::wait::{Look, until_every};
use crate::demo::watched::PATIENCE;
use openstack::{
    AllocationName, AllocationWish, BadId, CallError, Cloud, Node, NodeFilter, NodeUuid, Port, PortChange,
    PortId, PowerState, PowerTarget, ProvisionState, ProvisionTarget, Settings, VolumeId,
};
use policies::{CloudAccess, CloudInterface, CloudUser, LogIndex, NodeId, Permit, Refusal, causes};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// Pause between two questions to a service: they all share this computer.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);
pub(super) const PASSWORD: &str = "secret";
/// Ports are this and a constant (`common.sh`), unless `OPENSTACK_PORT_BASE` says otherwise.
const PORT_BASE: u16 = 17_000;
/// The first BMC of the iPXE nodes comes after those of the nodes `ipmi1` to `ipmi3`.
const IPMI_NODES: u8 = 3;

/// Whoever does by hand what a person would.
pub(super) struct ByHand;

impl Permit for ByHand {
    fn check(&self) -> Result<(), Refusal> {
        Ok(())
    }

    fn token(&self) -> LogIndex {
        LogIndex(0)
    }
}

/// How Ironic cleans a node (`lib/seed.py`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cleaning {
    /// With a step that leaves a note at the BMC.
    Cleans,
    /// With a step that no BMC knows.
    Fails,
}

/// The running testbed.
#[derive(Clone)]
pub(super) struct Testbed {
    base: u16,
    scripts: PathBuf,
    /// Its data and logs.
    work: PathBuf,
    http: reqwest::Client,
    pub(super) cloud: Cloud,
}

impl Testbed {
    /// Finds it.
    ///
    /// # Errors
    /// If its services are not all there; says how to start them.
    pub(super) async fn find() -> Result<Testbed, DemoError> {
        let base = match std::env::var("OPENSTACK_PORT_BASE") {
            Ok(text) => {
                text.parse().map_err(|_| unexpected(format!("OPENSTACK_PORT_BASE={text} is no port")))?
            }
            Err(_) => PORT_BASE,
        };
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("openstack");
        let work = std::env::var_os("OPENSTACK_WORK").map(PathBuf::from);
        let work = work.unwrap_or_else(|| scripts.join("../../target/openstack"));
        let failed = |error: &dyn std::error::Error| unexpected(causes(error));
        let http = provisioning::rack::plain_client(PATIENCE).map_err(|error| failed(&*error))?;
        let settings = Settings::new(&access(base), PASSWORD.as_bytes()).map_err(|error| failed(&error))?;
        let cloud = Cloud::new(settings).map_err(|error| failed(&error))?;
        let bed = Testbed { base, scripts, work, http, cloud };
        match bed.script("ready", &[]).await {
            Ok(_) => Ok(bed),
            Err(error) => Err(unexpected(format!(
                "the testbed does not run: chaos-tests/openstack/setup && chaos-tests/openstack/start\n{error}"
            ))),
        }
    }

    pub(super) fn access(&self) -> CloudAccess {
        access(self.base)
    }

    /// Where a service of the testbed is.
    pub(super) fn address(&self, offset: u16) -> String {
        format!("127.0.0.1:{}", self.base + offset)
    }

    /// Its BMC, as the members reach it.
    pub(super) fn ipmi(&self, node: &Described) -> String {
        self.address(230 + u16::from(node.bmc))
    }

    async fn script(&self, name: &str, words: &[&str]) -> Result<String, DemoError> {
        answer(&self.scripts.join(name), words, &[]).await
    }

    /// What befalls a service: `kill`, `start`, `freeze`, `thaw`.
    pub(super) async fn service(&self, name: &str, what: &str) -> Result<(), DemoError> {
        self.script("service", &[name, what]).await.map(drop)
    }

    /// Makes the token that the members have invalid.
    pub(super) async fn revoke_tokens(&self) -> Result<(), DemoError> {
        self.script("revoke", &[]).await.map(drop)
    }

    /// Has Cinder's book say this of a volume, whatever is true.
    pub(super) async fn set_status(&self, volume: &VolumeId, status: &str) -> Result<(), DemoError> {
        self.script("volume", &[volume.as_str(), status]).await.map(drop)
    }

    /// How Ironic is to clean a node of [`Pool::Pxe`] from now on.
    pub(super) async fn set_cleaning(&self, node: &NodeId, how: Cleaning) -> Result<(), DemoError> {
        let runbook = match how {
            Cleaning::Cleans => "CUSTOM_CLEANS",
            Cleaning::Fails => "CUSTOM_FAILS",
        };
        self.script("runbook", &[node.as_str(), runbook]).await.map(drop)
    }

    /// How often Ironic has cleaned a node of [`Pool::Pxe`], by the notes at its BMC.
    pub(super) async fn cleaned(&self, node: &Described) -> Result<u64, DemoError> {
        let said = self.bmc(node, "cleaned").await?;
        said.trim().parse().map_err(|_| unexpected(format!("no number of cleanings: {said}")))
    }

    /// What befalls a BMC.
    pub(super) async fn bmc(&self, node: &Described, what: &str) -> Result<String, DemoError> {
        let kind = match node.pool {
            Pool::Redfish => "redfish",
            Pool::Pxe => "ipmi",
        };
        self.script("bmc", &[kind, &node.bmc.to_string(), what]).await
    }

    // ---- what there is

    /// The nodes of both pools.
    pub(super) async fn nodes(&self) -> Result<Vec<Described>, DemoError> {
        let baremetal = self.cloud.baremetal();
        let all = baremetal.nodes(&NodeFilter::default(), soon()).await.map_err(cloud("list the nodes"))?;
        let mut found = vec![];
        for node in all {
            let Some((name, pool, number)) = node.name.as_deref().and_then(named) else { continue };
            let nics =
                baremetal.ports(Some(&node.uuid), soon()).await.map_err(cloud("list a node's NICs"))?;
            let nic = nics.into_iter().next().ok_or_else(|| unexpected(format!("{name} has no NIC")))?;
            let agent_key = crate::rack::hex(&rand::random::<[u8; 32]>());
            let bmc = if pool == Pool::Pxe { number + IPMI_NODES } else { number };
            let name = name.parse().map_err(DemoError::Name)?;
            let (nic, mac) = (nic.uuid, nic.address);
            found.push(Described { name, pool, bmc, uuid: node.uuid, nic, mac, agent_key });
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    /// What the instance of a pool keeps, made if need be.
    pub(super) async fn belongings(&self, pool: Pool) -> Result<Belongings, DemoError> {
        let said = self.script("instance", &[pool.instance()]).await?;
        let ids = said.split_once(char::is_whitespace).and_then(|(port, volume)| {
            Some(Belongings { port: port.parse().ok()?, volume: volume.trim().parse().ok()? })
        });
        ids.ok_or_else(|| unexpected(format!("no ids of a port and a volume: {said}")))
    }

    // ---- what is true

    pub(super) async fn node(&self, node: &NodeUuid) -> Result<Node, DemoError> {
        self.cloud.baremetal().node(node, soon()).await.map_err(cloud("read a node"))
    }

    pub(super) async fn port(&self, port: &PortId) -> Result<Port, DemoError> {
        self.cloud.network().port(port, soon()).await.map_err(cloud("read a port"))
    }

    /// For whom a volume is attached.
    pub(super) async fn holders(&self, volume: &VolumeId) -> Result<Vec<String>, DemoError> {
        let attachments = self.cloud.volumes().attachments(volume, soon()).await;
        let attachments = attachments.map_err(cloud("list a volume's attachments"))?;
        Ok(attachments.into_iter().map(|it| it.instance.unwrap_or_else(|| it.id.to_string())).collect())
    }

    /// Whether the node's power is on, by the BMC itself and whatever is between it and others.
    pub(super) async fn is_on(&self, node: &Described) -> Result<bool, DemoError> {
        match node.pool {
            Pool::Redfish => {
                let system = self.redfish(node, "").await?;
                Ok(system.get("PowerState").and_then(Value::as_str) == Some("On"))
            }
            // No file: it was never switched.
            Pool::Pxe => {
                let file = self.work.join(format!("data/ipmi/power{}", node.bmc));
                match std::fs::read_to_string(&file) {
                    Ok(state) => Ok(state.trim() == "1"),
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
                    Err(error) => Err(system(format!("read {}", file.display()))(error)),
                }
            }
        }
    }

    /// The address of the configuration drive that hangs on a Redfish BMC.
    pub(super) async fn drive(&self, node: &Described) -> Result<Option<String>, DemoError> {
        let media = self.redfish(node, "/VirtualMedia/Floppy").await?;
        let is_in = media.get("Inserted") == Some(&Value::Bool(true));
        Ok(media.get("Image").and_then(Value::as_str).filter(|_| is_in).map(str::to_owned))
    }

    async fn redfish(&self, node: &Described, path: &str) -> Result<Value, DemoError> {
        let emulator = self.address(1);
        let number = node.bmc;
        let url = format!("http://{emulator}/redfish/v1/Systems/00000000-0000-0000-0000-{number:012}{path}");
        let bytes = self.fetch(&url).await?;
        serde_json::from_slice(&bytes).map_err(|error| unexpected(format!("{url}: {error}")))
    }

    /// The iPXE script that Ironic has written for a NIC.
    pub(super) async fn ipxe(&self, mac: &str) -> Result<String, DemoError> {
        let url = format!("http://{}/pxelinux.cfg/{}", self.address(380), mac.replace(':', "-"));
        self.fetch(&url).await.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    pub(super) async fn fetch(&self, url: &str) -> Result<Vec<u8>, DemoError> {
        let failed =
            |error: reqwest::Error| unexpected(format!("fetch {url}: {}", causes(&error.without_url())));
        let answer = self.http.get(url).send().await.map_err(failed)?;
        Ok(answer.error_for_status().map_err(failed)?.bytes().await.map_err(failed)?.to_vec())
    }

    /// Whether this initiator can reach the volume: a login and an INQUIRY by libiscsi.
    pub(super) async fn reaches(&self, initiator: &str, volume: &VolumeId) -> bool {
        let portal = self.address(260);
        let url = format!("iscsi://{portal}/iqn.2010-10.org.openstack:volume-{volume}/1");
        answer(Path::new("iscsi-inq"), ["-i", initiator, &url], &[]).await.is_ok()
    }

    // ---- what a person does

    /// Ends a node's maintenance and switches it on at its BMC. (Ironic itself would not: the node's volume is somebody else's.)
    pub(super) async fn switch_on(&self, node: &Described) -> Result<(), DemoError> {
        let ended = self.cloud.baremetal().clear_maintenance(&node.uuid, &ByHand, soon()).await;
        ended.map_err(cloud("end a maintenance"))?;
        self.bmc(node, "on").await.map(drop)
    }

    /// Waits until a node is in a maintenance of ours, and off by its BMC.
    pub(super) async fn fenced(&self, node: &Described) -> Result<(), DemoError> {
        self.off(node, "to be fenced again", Node::is_fenced).await
    }

    /// Waits until a node is off by its BMC, and like this by Ironic.
    async fn off(
        &self,
        node: &Described,
        what: &str,
        is_so: impl Fn(&Node) -> bool,
    ) -> Result<(), DemoError> {
        let log = self.log("ironic");
        until_every(LOOK_EVERY, &format!("{} {what}", node.name), PATIENCE, &log, async || {
            let (read, is_on) = (self.node(&node.uuid).await?, self.is_on(node).await?);
            Ok(match is_so(&read) && !is_on {
                true => Look::There(()),
                false => Look::NotYet(format!("on: {is_on}; {read:?}")),
            })
        })
        .await
    }

    /// Takes a spare that is claimed for us, as an administrator can: ends our claim and makes another. Tells its name.
    pub(super) async fn take(&self, node: &Described) -> Result<String, DemoError> {
        let (baremetal, doing) = (self.cloud.baremetal(), || cloud("claim a node"));
        let read = self.node(&node.uuid).await?;
        let claim = read.instance_uuid.ok_or_else(|| unexpected(format!("{} is not claimed", node.name)))?;
        self.unclaim(&claim).await?;
        let name = "somebody-elses".to_owned();
        let wish = AllocationWish {
            uuid: None,
            name: allocation(&name)?,
            resource_class: read.resource_class.unwrap_or_default(),
            traits: BTreeSet::new(),
            candidate_nodes: vec![node.uuid.clone()],
            extra: BTreeMap::new(),
        };
        baremetal.create_allocation(&wish, &ByHand, soon()).await.map_err(doing())?;
        self.until(&node.uuid, "to be claimed", |node| node.instance_uuid.is_some()).await?;
        Ok(name)
    }

    /// Ends a claim, by its name or UUID.
    pub(super) async fn unclaim(&self, claim: &str) -> Result<(), DemoError> {
        let deleted = self.cloud.baremetal().delete_allocation(&allocation(claim)?, &ByHand, soon()).await;
        deleted.map_err(cloud("give a node back"))
    }

    /// Mends a node's BMC, ends what Ironic has begun because of it (a maintenance of ours stays), and waits until it is off.
    pub(super) async fn mend(&self, node: &Described) -> Result<(), DemoError> {
        self.bmc(node, if node.pool == Pool::Redfish { "up" } else { "thaw" }).await?;
        let read = self.until(&node.uuid, "to be let go", |_| true).await?;
        if read.maintenance && !read.is_fenced() {
            let ended = self.cloud.baremetal().clear_maintenance(&node.uuid, &ByHand, soon()).await;
            ended.map_err(cloud("mend a node"))?;
        }
        self.off(node, "to be off", Node::is_settled).await
    }

    /// Unbinds a port that no node has by Ironic's note, as an administrator can: of a failover that was never ended.
    pub(super) async fn unbind(&self, port: &PortId) -> Result<(), DemoError> {
        let read = self.port(port).await?;
        if read.host_id.is_none_or(|host| host.is_empty()) {
            return Ok(());
        }
        let change = PortChange { host_id: Some(String::new()), ..PortChange::default() };
        let unbound =
            self.cloud.network().update_port(port, &change, read.revision_number, &ByHand, soon()).await;
        unbound.map(drop).map_err(cloud("unbind a port"))
    }

    /// Gives a node back as it was in the beginning: well, off, available, with nothing.
    pub(super) async fn clear(&self, node: &Described) -> Result<(), DemoError> {
        self.bmc(node, if node.pool == Pool::Redfish { "up" } else { "thaw" }).await?;
        let (baremetal, uuid, name) = (self.cloud.baremetal(), &node.uuid, &node.name);
        self.until(uuid, "to be let go", |_| true).await?;
        let doing = || cloud("clear a node");
        baremetal.clear_maintenance(uuid, &ByHand, soon()).await.map_err(doing())?;
        let mut read = self.until(uuid, "to be out of maintenance", |node| !node.maintenance).await?;
        // Undeploying a node whose BMC was dead a moment ago may fail once, and is done again, as a person would.
        for _ in 0..2 {
            if read.provision_state == ProvisionState::Available {
                break;
            }
            let deleted = ProvisionTarget::Deleted;
            baremetal.set_provision(uuid, &deleted, &ByHand, soon()).await.map_err(doing())?;
            let is_over = |node: &Node| {
                matches!(node.provision_state, ProvisionState::Available | ProvisionState::Error)
            };
            read = self.until(uuid, "to be undeployed", is_over).await?;
        }
        if read.provision_state != ProvisionState::Available {
            return Err(unexpected(format!("{name} is {:?} and cannot be undeployed", read.provision_state)));
        }
        // Of a cluster that is no more.
        if let Some(claim) = &read.instance_uuid {
            self.unclaim(claim).await?;
        }
        for vif in baremetal.vifs(uuid, soon()).await.map_err(doing())? {
            baremetal.detach_vif(uuid, &vif, &ByHand, soon()).await.map_err(doing())?;
        }
        // Ironic only says what it has noted: the BMC is asked.
        if self.is_on(node).await? {
            baremetal.set_power(uuid, PowerTarget::Off, &ByHand, soon()).await.map_err(doing())?;
        }
        self.until(uuid, "to be off", |node| node.power_state == Some(PowerState::Off)).await?;
        for target in baremetal.volume_targets(Some(uuid), soon()).await.map_err(doing())? {
            baremetal.delete_volume_target(&target.uuid, &ByHand, soon()).await.map_err(doing())?;
        }
        Ok(())
    }

    /// Waits until nothing is under way at the node and it is as wished.
    async fn until(
        &self,
        node: &NodeUuid,
        what: &str,
        is_so: impl Fn(&Node) -> bool,
    ) -> Result<Node, DemoError> {
        let log = self.log("ironic");
        until_every(LOOK_EVERY, &format!("node {node} {what}"), PATIENCE, &log, async || {
            let read = self.node(node).await?;
            let is_there = read.is_settled() && is_so(&read);
            Ok(if is_there { Look::There(read) } else { Look::NotYet(format!("{read:?}")) })
        })
        .await
    }

    fn log(&self, service: &str) -> PathBuf {
        self.work.join(format!("log/{service}.log"))
    }
}

fn access(base: u16) -> CloudAccess {
    let user = CloudUser::Password {
        name: "failover".to_owned(),
        domain: "default".to_owned(),
        project: "service".to_owned(),
        project_domain: "default".to_owned(),
    };
    let keystone = format!("http://127.0.0.1:{}/v3", base + 500);
    CloudAccess { keystone, ca: None, region: None, interface: CloudInterface::Public, user }
}

/// `pxe2`: of which pool, and which of it.
fn named(name: &str) -> Option<(&str, Pool, u8)> {
    Pool::ALL.into_iter().find_map(|pool| Some((name, pool, name.strip_prefix(pool.prefix())?.parse().ok()?)))
}

fn allocation(claim: &str) -> Result<AllocationName, DemoError> {
    claim.parse().map_err(|error: BadId| unexpected(error.to_string()))
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

pub(super) fn unexpected(what: String) -> DemoError {
    DemoError::Unexpected(what)
}

fn cloud(doing: &'static str) -> impl FnOnce(CallError) -> DemoError {
    move |error| unexpected(format!("{doing}: {}", causes(&error)))
}
