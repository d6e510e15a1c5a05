//! An OpenStack cloud as a provider: Cinder's volumes, Neutron's ports, Ironic's deployments.
//!
//! What this is: our wishes in the calls of those services (docs/adr/0025).
//! Why it exists: where Ironic owns the nodes, what they have is given and taken there.
//! What it never does: it waits for no lock of Ironic's when something is to be taken from a node, takes no volume or port
//! from anybody but that node, and deploys on no node that runs something else. Where a change takes several calls and one is refused,
//! those before it were answered: no copy of them is on its way.

use crate::inventory::Census;
use crate::{ProviderError, State, Wish};
use ::openstack::{
    Attachment, CallError, Cloud, ConfigDrive, No, Node, NodeUuid, Peer, Port, PortChange, PortId, PortUuid,
    ProvisionState, ProvisionTarget, Snapshot, SnapshotState, Volume, VolumeId, VolumeState, VolumeTarget,
    VolumeTargetWish,
};
use policies::{Check, Deployment, Epoch, Finding, InstanceId, NodeId, Permit, Refusal, SnapshotName};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;
use tokio::time::Instant;

mod claim;
mod clean;

pub(crate) use claim::Claimant;

/// In a port's `binding:profile`, while it is bound to nothing: the node that it was taken from.
const FROM: &str = "ha_from";
/// In a node's `extra`: what we told it to run.
pub(crate) const MARK: &str = "ha_boots";

/// What is left of the time for a snapshot or a claim, at most, for the look that tells how it ended. Lower: a slow service's answer
/// comes too late to tell what it last said. Higher: a snapshot that takes all of its time leaves one too many until the next.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// Client of one cloud.
#[derive(Clone, Debug)]
pub struct Openstack {
    cloud: Cloud,
    deployments: BTreeMap<String, Deployment>,
    claimant: Claimant,
}

/// A volume, and who has it.
struct Held {
    volume: Volume,
    /// The node's.
    own: Vec<Attachment>,
    /// Everybody else's.
    others: Vec<Attachment>,
}

impl Openstack {
    /// A client of the cloud, with what it can deploy by name; its nodes are claimed for the cluster of this id.
    pub fn new(cloud: Cloud, deployments: BTreeMap<String, Deployment>, cluster: &str) -> Openstack {
        Openstack { cloud, deployments, claimant: Claimant::new(cluster) }
    }

    pub(crate) async fn look(&self, wish: &Wish, deadline: Instant) -> Result<State, ProviderError> {
        match wish {
            Wish::Revoked { volume, holder } => {
                let held = self.held(volume.as_str(), holder, deadline).await?;
                let is_free = held.own.is_empty() && (held.volume.multiattach || held.others.is_empty());
                let is_at_rest = held.volume.status != VolumeState::Detaching;
                // Cinder lets Ironic attach it again, whoever has it by then.
                let is_forgotten = !held.volume.multiattach
                    || self.target(&held.volume.id, holder, deadline).await?.is_none();
                Ok(State::new(is_free && is_at_rest && is_forgotten, held.reading()))
            }
            Wish::Attached { volume, holder, .. } => {
                let held = self.held(volume.as_str(), holder, deadline).await?;
                let is_only = held.volume.multiattach || held.others.is_empty();
                let is_noted = self.target(&held.volume.id, holder, deadline).await?.is_some();
                let noted = if is_noted { "noted at the node" } else { "not noted at the node" };
                Ok(State::new(is_only && is_noted, format!("{}; {noted}", held.reading())))
            }
            Wish::Snapshot { volume, name, .. } => {
                let snapshots = self.snapshots(volume.as_str(), deadline).await?;
                let is_made = snapshots.get(name).is_some_and(|it| it.status == SnapshotState::Available);
                let told = |(name, it): (&SnapshotName, &Snapshot)| match &it.status {
                    SnapshotState::Available => name.to_string(),
                    SnapshotState::Creating
                    | SnapshotState::Deleting
                    | SnapshotState::Error
                    | SnapshotState::Other(_) => format!("{name} ({:?})", it.status),
                };
                let names: Vec<String> = snapshots.iter().map(told).collect();
                Ok(State::new(is_made, names.join(", ")))
            }
            Wish::PortClosed { holder, .. } => {
                let bound = self.bound(holder.as_deref(), deadline).await?;
                let reading = match bound.as_slice() {
                    [] => "nothing is bound to the node".to_owned(),
                    bound => {
                        let ids: Vec<&str> = bound.iter().map(|port| port.id.as_str()).collect();
                        format!("bound to the node: {}", ids.join(", "))
                    }
                };
                Ok(State::new(bound.is_empty(), reading))
            }
            Wish::VifAttached { vif, holder, .. } => {
                let (node, vif) = (id::<NodeUuid>(holder)?, id::<PortId>(vif)?);
                let port = self.cloud.network().port(&vif, deadline).await?;
                let vifs = self.cloud.baremetal().vifs(&node, deadline).await?;
                let is_there = host(&port) == Some(node.as_str()) && vifs.contains(&vif);
                let place = host(&port).unwrap_or("nothing");
                Ok(State::new(is_there, format!("bound to {place}, {}", port.status)))
            }
            Wish::Boots { holder, instance, epoch, .. } => {
                let node = self.node(holder.as_deref(), deadline).await?;
                let is_ours = marked(&node) == Some(mark(instance, *epoch).as_str());
                Ok(match (is_ours, node.reservation.is_none(), &node.provision_state) {
                    (true, true, ProvisionState::DeployFailed) => State::failed(told(&node)),
                    (_, true, ProvisionState::Available) => State::idle(told(&node)),
                    (is_ours, is_unlocked, state) => {
                        State::new(is_ours && is_unlocked && *state == ProvisionState::Active, told(&node))
                    }
                })
            }
            Wish::Claimed { holder, .. } => self.is_claimed(holder, deadline).await,
            Wish::Cleaned { holder } => self.is_clean(holder, deadline).await,
            Wish::PortOpen { .. } => Err(unable(wish)),
        }
    }

    pub(crate) async fn act(
        &self,
        wish: &Wish,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), ProviderError> {
        match wish {
            Wish::Revoked { volume, holder } => {
                let held = self.held(volume.as_str(), holder, deadline).await?;
                if held.own.is_empty() && !held.volume.multiattach {
                    return Err(held.by_other(wish));
                }
                // First at the storage, for the attachment is all that is seen of it.
                if !held.own.is_empty()
                    && let Some(peer) = self.peer(holder, deadline).await?
                {
                    self.cloud.volumes().end_connection(&held.volume.id, &peer, permit, deadline).await?;
                }
                for attachment in &held.own {
                    self.cloud.volumes().delete_attachment(&attachment.id, permit, deadline).await?;
                }
                if held.volume.multiattach
                    && let Some(target) = self.target(&held.volume.id, holder, deadline).await?
                {
                    self.cloud.baremetal().delete_volume_target(&target.uuid, permit, deadline).await?;
                }
                Ok(())
            }
            Wish::Attached { volume, holder, index } => {
                let held = self.held(volume.as_str(), holder, deadline).await?;
                if !held.volume.multiattach && !held.others.is_empty() {
                    return Err(held.by_other(wish));
                }
                let node_uuid = id::<NodeUuid>(holder)?;
                let (volume_type, boot_index) = ("iscsi".to_owned(), *index);
                let target =
                    VolumeTargetWish { node_uuid, volume_type, boot_index, volume_id: held.volume.id };
                self.cloud.baremetal().create_volume_target(&target, permit, deadline).await?;
                Ok(())
            }
            Wish::Snapshot { volume, name, keep } => {
                self.snapshot(wish, volume.as_str(), (*name, *keep), permit, deadline).await
            }
            Wish::PortClosed { holder, .. } => {
                for port in self.bound(holder.as_deref(), deadline).await? {
                    self.unbind(&port, permit, deadline).await?;
                }
                Ok(())
            }
            Wish::VifAttached { port: nic, vif, holder } => {
                let (node, vif, nic) = (id::<NodeUuid>(holder)?, id::<PortId>(vif)?, id::<PortUuid>(nic)?);
                let port = self.cloud.network().port(&vif, deadline).await?;
                if let Some(other) = host(&port).filter(|host| *host != node.as_str()) {
                    let why = Refusal::HeldByOther(format!("node {other}"));
                    return Err(ProviderError::Refused { doing: wish.to_string(), why });
                }
                self.forget(wish, &port, permit, deadline).await?;
                Ok(self.cloud.baremetal().attach_vif(&node, &vif, Some(&nic), permit, deadline).await?)
            }
            Wish::Boots { holder, node, instance, image, epoch } => {
                let target = self.node(holder.as_deref(), deadline).await?;
                let order = Order { node, instance, image, epoch: *epoch };
                self.deploy(wish, &target, &order, permit, deadline).await
            }
            Wish::Claimed { node, holder } => self.claim(wish, (node, holder), permit, deadline).await,
            Wish::Cleaned { holder } => self.clean(wish, holder, permit, deadline).await,
            Wish::PortOpen { .. } => Err(unable(wish)),
        }
    }

    pub(crate) async fn census(&self, deadline: Instant) -> Result<Census, ProviderError> {
        let (baremetal, network) = (self.cloud.baremetal(), self.cloud.network());
        let (everything, trunks) = tokio::join!(baremetal.everything(deadline), network.trunks(deadline));
        let trunks = trunks.map_err(|error| policies::causes(&error));
        Ok(Census { everything: everything?, trunks, claimant: self.claimant.clone() })
    }

    pub(crate) async fn check(&self, check: &Check, deadline: Instant) -> Result<Finding, ProviderError> {
        match check {
            Check::Volume(volume) | Check::Snapshot(volume) | Check::Backup(volume) => {
                let read = self.cloud.volumes().volume(&id(volume.volume.as_str())?, deadline).await;
                Ok(match read {
                    Ok(Volume { status: VolumeState::Error, .. }) => {
                        Finding::Faulty("its status is error".to_owned())
                    }
                    Ok(_) => Finding::Fine,
                    Err(error) if error.is_absent() => Finding::Absent(policies::causes(&error)),
                    Err(error) => return Err(error.into()),
                })
            }
            Check::Port(port) => {
                let nic = id::<PortUuid>(&port.port)?;
                let found = self.cloud.baremetal().has_nic(&nic, deadline).await?;
                Ok(match found {
                    true => Finding::Fine,
                    false => Finding::Absent(format!("Ironic has no port or port group {nic}")),
                })
            }
            Check::Free(free) => Ok(match self.cloud.baremetal().node(&id(&free.node)?, deadline).await {
                Ok(node) => self.claimant.finding(&node),
                Err(error) if error.is_absent() => Finding::Absent(policies::causes(&error)),
                Err(error) => return Err(error.into()),
            }),
            Check::Boot(boot) => Ok(match self.deployments.contains_key(&boot.image) {
                true => Finding::Fine,
                false => Finding::Absent(format!("no deployment is called {}", boot.image)),
            }),
        }
    }

    // ---- volumes

    /// Who has the volume: the node, and others. Ironic attaches for the node's UUID, or for an instance that it notes at the
    /// volume; what it has not noted there counts as another's.
    async fn held(&self, volume: &str, holder: &str, deadline: Instant) -> Result<Held, ProviderError> {
        let volume = id(volume)?;
        let read = self.cloud.volumes().volume(&volume, deadline).await?;
        let attachments = self.cloud.volumes().attachments(&volume, deadline).await?;
        let noted = read.metadata.get(&format!("ironic_node_{holder}"));
        let noted: Option<Value> = noted.and_then(|text| serde_json::from_str(text).ok());
        let instance = noted.as_ref().and_then(|noted| noted.get("instance_uuid")).and_then(Value::as_str);
        let is_own = |attachment: &Attachment| {
            let whose = attachment.instance.as_deref();
            whose == Some(holder) || whose.is_some() && whose == instance
        };
        let (own, others) = attachments.into_iter().partition(is_own);
        Ok(Held { volume: read, own, others })
    }

    /// The node as storage knows it. Reading Ironic waits for no lock.
    async fn peer(&self, holder: &str, deadline: Instant) -> Result<Option<Peer>, ProviderError> {
        let node = id::<NodeUuid>(holder)?;
        let connectors = self.cloud.baremetal().volume_connectors(Some(&node), deadline).await?;
        Ok(Peer::new(&node, &connectors))
    }

    /// Ironic's note that the node is to have the volume.
    async fn target(
        &self,
        volume: &VolumeId,
        holder: &str,
        deadline: Instant,
    ) -> Result<Option<VolumeTarget>, ProviderError> {
        let targets = self.cloud.baremetal().volume_targets(Some(&id(holder)?), deadline).await?;
        Ok(targets.into_iter().find(|target| target.volume_id == *volume))
    }

    /// The snapshots of ours, the oldest first.
    async fn snapshots(
        &self,
        volume: &str,
        deadline: Instant,
    ) -> Result<BTreeMap<SnapshotName, Snapshot>, ProviderError> {
        let all = self.cloud.volumes().snapshots(&id(volume)?, deadline).await?;
        let named = |it: Snapshot| Some((it.name.as_deref()?.parse().ok()?, it));
        Ok(all.into_iter().filter_map(named).collect())
    }

    /// For a failover of a volume that nobody has; for a backup whoever has it. Cinder makes two of one name, and one of a
    /// volume that is written to. Older ones go only once it is there: what was asked for may fail, and then they are the last.
    async fn snapshot(
        &self,
        wish: &Wish,
        volume: &str,
        (name, keep): (SnapshotName, u32),
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), ProviderError> {
        let in_use = match name {
            SnapshotName::Failover(_) => {
                let held = self.held(volume, "", deadline).await?;
                if !held.others.is_empty() {
                    return Err(held.by_other(wish));
                }
                false
            }
            SnapshotName::Backup(_) => true,
        };
        let known = self.snapshots(volume, deadline).await?;
        if !known.contains_key(&name) {
            // Where each takes longer than its time, nobody sees it made.
            self.thin_out(name, keep.saturating_add(1), &known, permit, deadline).await;
            let text = name.to_string();
            let volumes = self.cloud.volumes();
            volumes.create_snapshot(&id(volume)?, &text, in_use, permit, deadline).await?;
        }
        if let Some(known) = self.made(wish, volume, name, permit, deadline).await? {
            self.thin_out(name, keep, &known, permit, deadline).await;
        }
        Ok(())
    }

    /// Deletes those of ours that are too many beside this one. What cannot be deleted the next one tries again: what was asked
    /// for is the new one.
    async fn thin_out(
        &self,
        name: SnapshotName,
        keep: u32,
        known: &BTreeMap<SnapshotName, Snapshot>,
        permit: &dyn Permit,
        deadline: Instant,
    ) {
        for old in name.surplus(keep, &known.keys().copied().collect()) {
            let Some(Snapshot { id, volume_id, .. }) = known.get(&old) else { continue };
            if let Err(error) = self.cloud.volumes().delete_snapshot(id, permit, deadline).await {
                let error = policies::causes(&error);
                tracing::warn!(volume = %volume_id, snapshot = %old, error, "delete an old snapshot");
            }
        }
    }

    /// All of ours once this one is there; `None` if that takes too long. One that Cinder could not make is deleted again.
    async fn made(
        &self,
        wish: &Wish,
        volume: &str,
        name: SnapshotName,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<Option<BTreeMap<SnapshotName, Snapshot>>, ProviderError> {
        let (asked, until) = (Instant::now(), last_look(deadline));
        loop {
            // A reading that failed says nothing; the next one may succeed.
            let known = self.snapshots(volume, deadline).await.unwrap_or_default();
            match known.get(&name) {
                Some(Snapshot { status: SnapshotState::Available, .. }) => return Ok(Some(known)),
                Some(Snapshot { status: SnapshotState::Error, id, .. }) => {
                    self.cloud.volumes().delete_snapshot(id, permit, deadline).await?;
                    let why =
                        Refusal::DeviceRefused("Cinder could not make it: its status was error".to_owned());
                    return Err(ProviderError::Refused { doing: wish.to_string(), why });
                }
                Some(_) | None => {}
            }
            if !next_look(asked, until).await {
                return Ok(None);
            }
        }
    }

    // ---- networks

    async fn bound(&self, holder: Option<&str>, deadline: Instant) -> Result<Vec<Port>, ProviderError> {
        let node = id::<NodeUuid>(holder.ok_or_else(unknown)?)?;
        Ok(self.cloud.network().bound_to(&node, deadline).await?)
    }

    /// Unbinds the port, if it still is as it was read, and notes at it from whom it was taken: Ironic goes on noting that too.
    async fn unbind(&self, port: &Port, permit: &dyn Permit, deadline: Instant) -> Result<(), ProviderError> {
        let from = host(port).map(|node| (FROM.to_owned(), json!(node)));
        let (host_id, profile) = (Some(String::new()), Some(from.into_iter().collect()));
        let change = PortChange { host_id, profile, ..PortChange::default() };
        self.cloud.network().update_port(&port.id, &change, port.revision_number, permit, deadline).await?;
        Ok(())
    }

    /// Lets Ironic forget that the port was a node's. Whatever it notes it unbinds when it undeploys that node, also if the port is
    /// another's by then; and a request that waits for the node's lock may be carried out when it is. So nobody else gets the
    /// port before, and nothing is sent while the node is locked.
    async fn forget(
        &self,
        wish: &Wish,
        port: &Port,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), ProviderError> {
        let Some(from) = port.profile.get(FROM).and_then(Value::as_str) else { return Ok(()) };
        let (from, baremetal) = (id::<NodeUuid>(from)?, self.cloud.baremetal());
        let noted = match baremetal.vifs(&from, deadline).await {
            Err(error) if error.is_absent() => return Ok(()),
            noted => noted?,
        };
        if !noted.contains(&port.id) {
            return Ok(());
        }
        if let Some(holder) = baremetal.node(&from, deadline).await?.reservation {
            let why = format!("node {from}, from which it is to be detached, is locked by {holder}");
            return Err(ProviderError::Refused { doing: wish.to_string(), why: Refusal::DeviceRefused(why) });
        }
        Ok(baremetal.detach_vif(&from, &port.id, permit, deadline).await?)
    }

    // ---- deployments

    async fn node(&self, holder: Option<&str>, deadline: Instant) -> Result<Node, ProviderError> {
        let node = id::<NodeUuid>(holder.ok_or_else(unknown)?)?;
        Ok(self.cloud.baremetal().node(&node, deadline).await?)
    }

    async fn deploy(
        &self,
        wish: &Wish,
        node: &Node,
        order: &Order<'_>,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), ProviderError> {
        let Some(deployment) = self.deployments.get(order.image) else {
            return Err(ProviderError::Configuration(format!(
                "{wish}: no deployment is called {}",
                order.image
            )));
        };
        if let Some(claim) = self.claimant.other(node) {
            let why = claim::claimed_by_other(claim);
            return Err(ProviderError::Refused { doing: wish.to_string(), why });
        }
        let mark = mark(order.instance, order.epoch);
        let is_ours = marked(node) == Some(mark.as_str());
        match &node.provision_state {
            ProvisionState::Available | ProvisionState::DeployFailed if !node.maintenance => {}
            // It is under way, or done.
            ProvisionState::Deploying | ProvisionState::DeployWait | ProvisionState::Active if is_ours => {
                return Ok(());
            }
            _ => {
                let why = Refusal::DeviceRefused(format!("it is {}", told(node)));
                return Err(ProviderError::Refused { doing: wish.to_string(), why });
            }
        }
        let baremetal = self.cloud.baremetal();
        let info =
            deployment.instance_info.iter().map(|(key, text)| (key.clone(), json!(order.filled(text))));
        let extra = [(MARK.to_owned(), json!(mark))].into();
        baremetal.set_instance(&node.uuid, &info.collect(), &extra, permit, deadline).await?;
        let target = ProvisionTarget::Active(Some(order.drive(deployment)));
        Ok(baremetal.set_provision(&node.uuid, &target, permit, deadline).await?)
    }
}

impl Held {
    fn reading(&self) -> String {
        let whose = |it: &Attachment| it.instance.clone().unwrap_or_else(|| format!("attachment {}", it.id));
        let all: Vec<String> = self.own.iter().chain(&self.others).map(whose).collect();
        match all.is_empty() {
            true => format!("{:?}, nobody has it", self.volume.status),
            false => format!("{:?}, attached for {}", self.volume.status, all.join(", ")),
        }
    }

    /// The refusal, naming who has it.
    fn by_other(&self, wish: &Wish) -> ProviderError {
        ProviderError::Refused { doing: wish.to_string(), why: Refusal::HeldByOther(self.reading()) }
    }
}

/// What is to be deployed, as the plan says.
struct Order<'a> {
    node: &'a NodeId,
    instance: &'a InstanceId,
    image: &'a str,
    epoch: Epoch,
}

impl Order<'_> {
    /// The text with `{node}`, `{instance}` and `{epoch}` filled in. No template as of boot images: these texts are other languages'
    /// (JSON, YAML, Jinja), with braces of their own.
    fn filled(&self, text: &str) -> String {
        let text = text.replace("{node}", self.node.as_str()).replace("{instance}", self.instance.as_str());
        text.replace("{epoch}", &self.epoch.0.to_string())
    }

    /// What the node's agent reads to know what it runs, and cloud-init to set it up.
    fn drive(&self, deployment: &Deployment) -> ConfigDrive {
        let ha = json!({ "instance": self.instance, "epoch": self.epoch, "node": self.node });
        let meta_data = [("name".to_owned(), json!(self.instance)), ("ha".to_owned(), ha)].into();
        let user_data = deployment.user_data.as_ref().map(|text| self.filled(text));
        ConfigDrive { meta_data, network_data: BTreeMap::new(), user_data }
    }
}

fn mark(instance: &InstanceId, epoch: Epoch) -> String {
    format!("{instance} {epoch}")
}

/// What the node was told to run.
fn marked(node: &Node) -> Option<&str> {
    node.extra.get(MARK).and_then(Value::as_str)
}

/// Why it is in maintenance.
fn reason(node: &Node) -> &str {
    node.maintenance_reason.as_deref().unwrap_or("no reason given")
}

fn told(node: &Node) -> String {
    let runs = marked(node).map(|mark| format!(", told to run {mark}")).unwrap_or_default();
    let maintenance = if node.maintenance { ", in maintenance" } else { "" };
    let error = node.last_error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    format!("{:?}{runs}{maintenance}{error}", node.provision_state)
}

/// When to wait no longer: what is left then is for the look that has to tell how it is.
fn last_look(deadline: Instant) -> Instant {
    let last_look = LAST_LOOK.min(deadline.saturating_duration_since(Instant::now()) / 4);
    deadline.checked_sub(last_look).unwrap_or(deadline)
}

/// Waits until it is time for the next look at what was asked for; false if that would be too late.
async fn next_look(asked: Instant, until: Instant) -> bool {
    let next = Instant::now() + ::openstack::pause(asked.elapsed());
    if next >= until {
        return false;
    }
    tokio::time::sleep_until(next).await;
    true
}

/// Where the port is bound.
fn host(port: &Port) -> Option<&str> {
    port.host_id.as_deref().filter(|host| !host.is_empty())
}

/// A name that becomes part of a path.
fn id<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, ProviderError> {
    text.parse().map_err(|error: T::Err| ProviderError::Configuration(error.to_string()))
}

fn unknown() -> ProviderError {
    ProviderError::Configuration("the node has no fencing device `ironic` of this cloud".to_owned())
}

fn unable(wish: &Wish) -> ProviderError {
    ProviderError::Configuration(format!("a cloud cannot {wish}; it gives nodes a `vif`"))
}

impl From<CallError> for ProviderError {
    fn from(error: CallError) -> ProviderError {
        let text = policies::causes(&error);
        match error {
            CallError::Unreachable { doing, source } => ProviderError::Unreachable { doing, source },
            CallError::NotPermitted { doing, why } => ProviderError::Refused { doing, why },
            CallError::Refused { doing, no: No::NotAdmitted, why } => {
                ProviderError::Refused { doing, why: Refusal::NotAdmitted(why) }
            }
            CallError::Refused { doing, why, .. } => {
                ProviderError::Refused { doing, why: Refusal::DeviceRefused(why) }
            }
            CallError::Locked { doing, waited, why } => {
                let why = Refusal::DeviceRefused(format!("locked for {waited}: {why}"));
                ProviderError::Refused { doing, why }
            }
            CallError::Unclear { doing, why } => ProviderError::Garbled { doing, why },
            CallError::NoAnswer { doing, source } => ProviderError::NoAnswer { doing, source },
            CallError::Unusable { .. } => ProviderError::Configuration(text),
        }
    }
}
