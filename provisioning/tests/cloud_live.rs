//! The cloud as a provider, against real Keystone, Ironic, Neutron and Cinder, which `make test-openstack` starts.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "../../openstack/tests/support/testbed.rs"]
mod testbed;

use openstack::{
    Cloud, Node, NodeFilter, NodeUuid, PortId, PortUuid, PowerState, PowerTarget, ProvisionState,
    ProvisionTarget, Settings, VolumeId,
};
use policies::{
    Action, BackupId, Check, CloudNode, Deployment, Effect, Epoch, Finding, LogIndex, NodeId, Outcome,
    Permit, PlanId, ProviderKind, Refusal, Sealed, Seen, SnapshotName,
};
use provisioning::{Backend, Us, carry_out, check};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use testbed::address;
use tokio::time::Instant;

/// For what takes a moment or two minutes; generous, for machines are shared.
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(300);

struct Leave;

impl Permit for Leave {
    fn check(&self) -> Result<(), Refusal> {
        Ok(())
    }

    fn token(&self) -> LogIndex {
        LogIndex(7)
    }
}

fn within(time: Duration) -> Instant {
    Instant::now() + time
}

struct Bed {
    cloud: Cloud,
    kind: ProviderKind,
    provider: Backend,
    http: reqwest::Client,
    token: String,
}

impl Bed {
    async fn new() -> Bed {
        let (access, password) = (testbed::access(), testbed::PASSWORD.as_bytes());
        let cloud = Cloud::new(Settings::new(&access, password).unwrap()).unwrap();
        let instance_info =
            [("boot_iso".to_owned(), format!("http://{}/images/img.iso", address(380)))].into();
        let user_data = Some("#cloud-config\n# {instance} in {epoch} on {node}\n".to_owned());
        let deployments = [("web".to_owned(), Deployment { instance_info, user_data })].into();
        let kind = ProviderKind::Openstack { cloud: access, secret: Sealed(String::new()), deployments };
        let provider = backend(&kind, "nobody");
        let http = provisioning::rack::plain_client(PATIENCE).unwrap();
        let mut bed = Bed { cloud, kind, provider, http, token: String::new() };
        let body = json!({ "auth": {
            "identity": { "methods": ["password"], "password": { "user": {
                "name": "failover", "domain": { "id": "default" }, "password": "secret" } } },
            "scope": { "project": { "name": "service", "domain": { "id": "default" } } } } });
        let request = bed.http.post(format!("http://{}/v3/auth/tokens", address(testbed::KEYSTONE)));
        let answer =
            request.header("content-type", "application/json").body(body.to_string()).send().await.unwrap();
        bed.token = answer.headers()["x-subject-token"].to_str().unwrap().to_owned();
        bed
    }

    /// The same provider, as members of this cluster have it.
    fn backend(&self, cluster: &str) -> Backend {
        backend(&self.kind, cluster)
    }

    /// A request of the test's own.
    async fn raw(&self, method: &str, offset: u16, path: &str, body: Value) -> Value {
        let request = self.http.request(method.parse().unwrap(), format!("http://{}{path}", address(offset)));
        let request = request.header("x-auth-token", &self.token).header("content-type", "application/json");
        let request = request.header("openstack-api-version", "volume 3.71");
        // Neutron takes no body in a DELETE.
        let request = if body.is_null() { request } else { request.body(body.to_string()) };
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{method} {path}: {status}: {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    async fn new_port(&self) -> PortId {
        let networks = self.raw("GET", 696, "/v2.0/networks?name=tenant", Value::Null).await;
        let body = json!({ "port": { "network_id": networks["networks"][0]["id"], "name": "web",
            "binding:vnic_type": "baremetal", "device_owner": "baremetal:none" } });
        let port = self.raw("POST", 696, "/v2.0/ports", body).await;
        port["port"]["id"].as_str().unwrap().parse().unwrap()
    }

    async fn new_volume(&self, kind: &str) -> VolumeId {
        let body = json!({ "volume": { "size": 1, "name": "web", "volume_type": kind } });
        let made = self.raw("POST", 776, "/v3/volumes", body).await;
        let id: VolumeId = made["volume"]["id"].as_str().unwrap().parse().unwrap();
        let deadline = within(PATIENCE);
        while self.cloud.volumes().volume(&id, deadline).await.unwrap().status
            != openstack::VolumeState::Available
        {
            assert!(Instant::now() < deadline, "{id} is not available");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        id
    }

    /// Attaches a volume to a node, as Ironic does.
    async fn attach(&self, volume: &VolumeId, side: &Side) {
        let connector = json!({ "initiator": format!("iqn.2026-01.test:{}", side.name), "host": side.name,
            "ip": "127.0.0.1", "platform": "x86_64", "os_type": "linux", "multipath": false });
        let wish = json!({ "volume_uuid": volume, "instance_uuid": side.uuid, "connector": connector });
        let made = self.raw("POST", 776, "/v3/attachments", json!({ "attachment": wish })).await;
        let attachment: openstack::AttachmentId = made["attachment"]["id"].as_str().unwrap().parse().unwrap();
        let volumes = self.cloud.volumes();
        volumes.complete_attachment(&attachment, &Leave, within(PATIENCE)).await.unwrap();
    }

    /// For whom a volume is attached.
    async fn holders(&self, volume: &VolumeId) -> BTreeSet<String> {
        let attachments = self.cloud.volumes().attachments(volume, within(PATIENCE)).await.unwrap();
        attachments.into_iter().map(|it| it.instance.unwrap()).collect()
    }

    async fn until(&self, node: &NodeUuid, what: &str, is_so: impl Fn(&Node) -> bool) -> Node {
        let deadline = within(PATIENCE);
        loop {
            let read = self.cloud.baremetal().node(node, deadline).await.unwrap();
            if read.is_settled() && is_so(&read) {
                return read;
            }
            assert!(Instant::now() < deadline, "{what}: {read:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// A node without anything, off and available, whatever an earlier run left; and its NIC.
    async fn fresh(&self, name: &str) -> (NodeUuid, PortUuid) {
        let baremetal = self.cloud.baremetal();
        let nodes = baremetal.nodes(&NodeFilter::default(), within(PATIENCE)).await.unwrap();
        let node = nodes.into_iter().find(|node| node.name.as_deref() == Some(name)).unwrap();
        let (uuid, deadline) = (node.uuid, within(PATIENCE));
        baremetal.clear_maintenance(&uuid, &Leave, deadline).await.unwrap();
        if node.provision_state != ProvisionState::Available {
            baremetal.set_provision(&uuid, &ProvisionTarget::Deleted, &Leave, deadline).await.unwrap();
        }
        let available = |node: &Node| node.provision_state == ProvisionState::Available;
        if let Some(claim) = self.until(&uuid, "undeployed", available).await.instance_uuid {
            baremetal.delete_allocation(&claim.parse().unwrap(), &Leave, deadline).await.unwrap();
        }
        for vif in baremetal.vifs(&uuid, deadline).await.unwrap() {
            baremetal.detach_vif(&uuid, &vif, &Leave, deadline).await.unwrap();
        }
        baremetal.set_power(&uuid, PowerTarget::Off, &Leave, deadline).await.unwrap();
        self.until(&uuid, "off", |node| node.power_state == Some(PowerState::Off)).await;
        for target in baremetal.volume_targets(Some(&uuid), deadline).await.unwrap() {
            baremetal.delete_volume_target(&target.uuid, &Leave, deadline).await.unwrap();
        }
        let nics = baremetal.ports(Some(&uuid), deadline).await.unwrap();
        (uuid, nics[0].uuid.clone())
    }

    async fn does(&self, action: Action, node: &NodeUuid) -> Outcome {
        let effect = Effect { token: LogIndex(7), plan: Some(PlanId(1)), action };
        carry_out(&self.provider, &effect, Some(node.as_str()), &Leave, within(PATIENCE)).await
    }
}

fn backend(kind: &ProviderKind, cluster: &str) -> Backend {
    let us = Us { cluster, ..Us::nobody() };
    Backend::from_config(kind, testbed::PASSWORD.as_bytes(), us).unwrap()
}

/// One node of the plan.
struct Side {
    name: NodeId,
    uuid: NodeUuid,
    nic: PortUuid,
}

impl Side {
    async fn fresh(bed: &Bed, name: &str) -> Side {
        let (uuid, nic) = bed.fresh(name).await;
        Side { name: name.parse().unwrap(), uuid, nic }
    }

    fn attach_vif(&self, vif: &PortId) -> Action {
        let (port, vif) = (self.nic.to_string(), vif.to_string());
        Action::AttachVif { node: self.name.clone(), provider: "cloud".parse().unwrap(), port, vif }
    }

    fn close(&self) -> Action {
        let port = self.nic.to_string();
        Action::ClosePort { node: self.name.clone(), provider: "cloud".parse().unwrap(), port }
    }

    fn boot(&self, epoch: u64) -> Action {
        Action::SetBoot {
            node: self.name.clone(),
            provider: "cloud".parse().unwrap(),
            instance: "web".parse().unwrap(),
            image: "web".to_owned(),
            epoch: Epoch(epoch),
        }
    }
}

fn is_done(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Done(Seen::ReadBack(_)))
}

/// Ironic gives it to nobody else then, also not to another cluster of ours.
#[tokio::test]
#[ignore = "needs real services: make test-openstack"]
async fn a_spare_is_claimed_for_one_cluster() {
    let bed = Bed::new().await;
    let (side, provider) = (Side::fresh(&bed, "pxe3").await, || "cloud".parse().unwrap());
    let free = Check::Free(CloudNode { provider: provider(), node: side.uuid.to_string() });
    let found = async |cluster| check(&bed.backend(cluster), &free, within(PATIENCE)).await;
    assert_eq!(found("nobody").await, Finding::Unclaimed);
    let claim = Action::Claim { node: side.name.clone(), provider: provider() };
    for _ in 0..2 {
        let outcome = bed.does(claim.clone(), &side.uuid).await;
        assert!(is_done(&outcome), "{outcome:?}");
    }
    assert_eq!(found("nobody").await, Finding::Fine);
    let finding = found("another").await;
    assert!(matches!(&finding, Finding::Faulty(why) if why.contains("it is claimed")), "{finding:?}");
    let effect = Effect { token: LogIndex(8), plan: None, action: claim };
    let another = bed.backend("another");
    let refused = carry_out(&another, &effect, Some(side.uuid.as_str()), &Leave, within(PATIENCE)).await;
    assert!(matches!(refused, Outcome::Refused(Refusal::HeldByOther(_))), "{refused:?}");
    bed.fresh("pxe3").await;
    assert_eq!(found("another").await, Finding::Unclaimed);
}

/// The addresses, and what hangs on the port, stay; the old node has nothing of it, also in what Ironic notes.
#[tokio::test]
#[ignore = "needs real services: make test-openstack"]
async fn a_port_moves_with_its_addresses_and_the_instance_is_deployed_behind_it() {
    let bed = Bed::new().await;
    let (old, spare) = (Side::fresh(&bed, "rf3").await, Side::fresh(&bed, "rf4").await);
    let vif = bed.new_port().await;
    let read = async || bed.cloud.network().port(&vif, within(PATIENCE)).await.unwrap();
    let before = read().await;

    for (action, node) in [(old.attach_vif(&vif), &old), (old.boot(1), &old)] {
        let outcome = bed.does(action.clone(), &node.uuid).await;
        assert!(is_done(&outcome), "{action}: {outcome:?}");
    }
    let bound = read().await;
    assert_eq!((bound.host_id.as_deref(), bound.status.as_str()), (Some(old.uuid.as_str()), "ACTIVE"));
    // The spare does not get what the old node has.
    let early = bed.does(spare.attach_vif(&vif), &spare.uuid).await;
    assert!(matches!(early, Outcome::Refused(Refusal::HeldByOther(_))), "{early:?}");

    let closed = bed.does(old.close(), &old.uuid).await;
    assert!(is_done(&closed), "{closed:?}");
    assert_eq!(read().await.host_id.as_deref(), Some(""));
    let noted = async || bed.cloud.baremetal().vifs(&old.uuid, within(PATIENCE)).await.unwrap();
    assert!(noted().await.contains(&vif), "isolation asks Ironic for nothing");

    for (action, node) in [(spare.attach_vif(&vif), &spare), (spare.boot(2), &spare)] {
        let outcome = bed.does(action.clone(), &node.uuid).await;
        assert!(is_done(&outcome), "{action}: {outcome:?}");
    }
    assert!(noted().await.is_empty(), "undeploying the old node would unbind it");
    let moved = read().await;
    assert_eq!((moved.host_id.as_deref(), moved.status.as_str()), (Some(spare.uuid.as_str()), "ACTIVE"));
    assert_eq!((&moved.fixed_ips, &moved.security_groups), (&before.fixed_ips, &before.security_groups));
    let node = bed.until(&spare.uuid, "on", |node| node.power_state == Some(PowerState::On)).await;
    assert_eq!(node.extra["ha_boots"], json!("web e2"));

    // What comes late does no harm: the old node's port is closed, and it runs something else.
    assert!(is_done(&bed.does(old.close(), &old.uuid).await));
    assert_eq!(read().await.host_id.as_deref(), Some(spare.uuid.as_str()));
    let late = bed.does(spare.boot(1), &spare.uuid).await;
    assert!(matches!(late, Outcome::Refused(Refusal::DeviceRefused(_))), "{late:?}");

    for side in [&old, &spare] {
        bed.fresh(side.name.as_str()).await;
    }
    bed.raw("DELETE", 696, &format!("/v2.0/ports/{vif}"), Value::Null).await;
}

#[tokio::test]
#[ignore = "needs real services: make test-openstack"]
async fn a_volume_is_taken_from_a_node_and_noted_at_another() {
    let bed = Bed::new().await;
    let (old, spare) = (Side::fresh(&bed, "rf1").await, Side::fresh(&bed, "rf2").await);
    let volume = bed.new_volume("filetgt").await;
    let (volumes, provider) = (bed.cloud.volumes(), || "cloud".parse().unwrap());
    let id = || volume.as_str().parse().unwrap();
    let attach =
        |node: &NodeId| Action::Attach { node: node.clone(), provider: provider(), volume: id(), index: 0 };
    let revoke = |node: &NodeId| Action::Revoke { node: node.clone(), provider: provider(), volume: id() };
    let keep = Action::Snapshot {
        node: spare.name.clone(),
        provider: provider(),
        volume: id(),
        name: SnapshotName::Failover(PlanId(7)),
        keep: 1,
    };
    bed.attach(&volume, &old).await;

    for (action, side) in
        [(attach(&spare.name), &spare), (keep.clone(), &spare), (revoke(&spare.name), &spare)]
    {
        let refused = bed.does(action.clone(), &side.uuid).await;
        assert!(matches!(refused, Outcome::Refused(Refusal::HeldByOther(_))), "{action}: {refused:?}");
    }
    // A backup is made whoever has it, older ones go, and what a failover keeps stays.
    let back_up = |number| Action::Snapshot {
        node: old.name.clone(),
        provider: provider(),
        volume: id(),
        name: SnapshotName::Backup(BackupId(number)),
        keep: 1,
    };
    for number in [8, 9] {
        let outcome = bed.does(back_up(number), &old.uuid).await;
        assert!(is_done(&outcome), "{outcome:?}");
    }
    let names = async || {
        let all = volumes.snapshots(&volume, within(PATIENCE)).await.unwrap();
        let kept = all.into_iter().filter(|it| it.status == openstack::SnapshotState::Available);
        kept.filter_map(|it| it.name).collect::<BTreeSet<String>>()
    };
    assert_eq!(names().await, ["ha-b9".to_owned()].into());
    let revoked = bed.does(revoke(&old.name), &old.uuid).await;
    assert!(is_done(&revoked), "{revoked:?}");
    assert_eq!(bed.holders(&volume).await, BTreeSet::new());
    for action in [keep, attach(&spare.name)] {
        let outcome = bed.does(action.clone(), &spare.uuid).await;
        assert!(is_done(&outcome), "{action}: {outcome:?}");
    }
    assert_eq!(names().await, ["ha-b9".to_owned(), "ha-f7".to_owned()].into());
    let targets = bed.cloud.baremetal().volume_targets(Some(&spare.uuid), within(PATIENCE)).await.unwrap();
    assert_eq!(targets.iter().map(|it| (&it.volume_id, it.boot_index)).collect::<Vec<_>>(), [(&volume, 0)]);
    bed.fresh("rf2").await;
}

/// What several may have is taken from the one, given to the next, and stays the others'.
#[tokio::test]
#[ignore = "needs real services: make test-openstack"]
async fn a_volume_of_several_is_taken_from_one() {
    let bed = Bed::new().await;
    let sides = [Side::fresh(&bed, "ipmi1").await, Side::fresh(&bed, "ipmi2").await];
    let ([old, other], spare) = (&sides, Side::fresh(&bed, "ipmi3").await);
    let volume = bed.new_volume("filetgt-multi").await;
    let (provider, id) = (|| "cloud".parse().unwrap(), volume.as_str().parse().unwrap());
    for side in &sides {
        bed.attach(&volume, side).await;
    }
    let revoke = Action::Revoke { node: old.name.clone(), provider: provider(), volume: id };
    let outcome = bed.does(revoke.clone(), &old.uuid).await;
    assert!(is_done(&outcome), "{outcome:?}");
    assert_eq!(bed.holders(&volume).await, [other.uuid.to_string()].into());
    let volume_id = volume.as_str().parse().unwrap();
    let give = Action::Attach { node: spare.name.clone(), provider: provider(), volume: volume_id, index: 0 };
    let outcome = bed.does(give, &spare.uuid).await;
    assert!(is_done(&outcome), "{outcome:?}");
    // Late copies of a leader that was deposed take nothing from the others.
    assert!(is_done(&bed.does(revoke, &old.uuid).await));
    assert_eq!(bed.holders(&volume).await, [other.uuid.to_string()].into());
    bed.fresh("ipmi3").await;
}
