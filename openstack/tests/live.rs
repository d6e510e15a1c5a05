//! Every call, against real services: `make test-openstack` starts them, and runs this.
//!
//! Why it exists: the recorded transcripts say what the services said once; this says what they say now. With `UPDATE_EXPECT=1`
//! it records them anew.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use openstack::*;
use policies::{Permit, Refusal};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use support::recorder::Recorder;
use support::testbed::{self, bmc};
use support::{Leave, PEER, connector, peer, plain_client, within};
use zeroize::Zeroizing;

/// The services of the testbed, and where they are.
fn services() -> Vec<(&'static str, String)> {
    let services = [("keystone", testbed::KEYSTONE), ("baremetal", 385), ("network", 696), ("volume", 776)];
    services.into_iter().map(|(name, offset)| (name, testbed::address(offset))).collect()
}

/// A client behind a recorder, and raw requests for what the client is not for.
struct Bed {
    recorder: Recorder,
    cloud: Cloud,
    http: reqwest::Client,
    token: String,
}

impl Bed {
    async fn new() -> Bed {
        let recorder = Recorder::new(&services()).await;
        let cloud = Cloud::new(settings(&recorder, password("secret"))).unwrap();
        let mut bed = Bed { recorder, cloud, http: plain_client(), token: String::new() };
        bed.token = bed.raw_token().await;
        // Entering is recorded once, in a test of its own.
        for service in [Service::Baremetal, Service::BlockStorage] {
            bed.cloud.version(service, within(60)).await.unwrap();
        }
        bed
    }

    async fn raw_token(&self) -> String {
        let body = json!({ "auth": {
            "identity": { "methods": ["password"], "password": { "user": {
                "name": "failover", "domain": { "id": "default" }, "password": "secret" } } },
            "scope": { "project": { "name": "service", "domain": { "id": "default" } } } } });
        let request = self.http.post(format!("http://{}/v3/auth/tokens", services()[0].1));
        let answer =
            request.header("content-type", "application/json").body(body.to_string()).send().await.unwrap();
        answer.headers()["x-subject-token"].to_str().unwrap().to_owned()
    }

    /// A request of the test's own.
    async fn raw(&self, method: &str, service: &str, path: &str, body: Value) -> Value {
        let address = &services().into_iter().find(|it| it.0 == service).unwrap().1;
        let request = self.http.request(method.parse().unwrap(), format!("http://{address}{path}"));
        let request = request.header("x-auth-token", &self.token).header("content-type", "application/json");
        let request = request.header("x-openstack-ironic-api-version", "1.99");
        let request = request.header("openstack-api-version", "volume 3.71");
        let request = if body.is_null() { request } else { request.body(body.to_string()) };
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{method} {path}: {status}: {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    async fn node(&self, name: &str) -> Node {
        let uuid = self.raw("GET", "baremetal", &format!("/v1/nodes/{name}"), Value::Null).await;
        self.cloud
            .baremetal()
            .node(&uuid["uuid"].as_str().unwrap().parse().unwrap(), within(60))
            .await
            .unwrap()
    }

    /// Waits until the node is as wished and nobody has its lock.
    async fn until(&self, node: &NodeUuid, seconds: u64, what: &str, is_so: impl Fn(&Node) -> bool) -> Node {
        let deadline = within(seconds);
        loop {
            let read = self.cloud.baremetal().node(node, deadline).await.unwrap();
            if read.is_settled() && is_so(&read) {
                return read;
            }
            assert!(tokio::time::Instant::now() < deadline, "{what}: not in {seconds} s: {read:?}");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// A node without anything, off and available, whatever an earlier run left.
    async fn fresh(&self, name: &str) -> Node {
        let node = self.node(name).await;
        let (baremetal, uuid) = (self.cloud.baremetal(), &node.uuid);
        if node.provision_state == ProvisionState::Active {
            baremetal.set_provision(uuid, &ProvisionTarget::Deleted, &Leave, within(60)).await.unwrap();
        }
        self.until(uuid, 120, "undeployed", |node| node.provision_state == ProvisionState::Available).await;
        let claims = self.raw("GET", "baremetal", "/v1/allocations", Value::Null).await;
        for claim in claims["allocations"].as_array().unwrap() {
            if claim["candidate_nodes"].as_array().unwrap().contains(&json!(uuid)) {
                baremetal
                    .delete_allocation(&claim["name"].as_str().unwrap().parse().unwrap(), &Leave, within(60))
                    .await
                    .unwrap();
            }
        }
        for vif in baremetal.vifs(uuid, within(60)).await.unwrap() {
            baremetal.detach_vif(uuid, &vif, &Leave, within(60)).await.unwrap();
        }
        baremetal.set_power(uuid, PowerTarget::Off, &Leave, within(60)).await.unwrap();
        self.until(uuid, 60, "off", |node| node.power_state == Some(PowerState::Off)).await;
        for target in baremetal.volume_targets(Some(uuid), within(60)).await.unwrap() {
            baremetal.delete_volume_target(&target.uuid, &Leave, within(60)).await.unwrap();
        }
        baremetal.clear_maintenance(uuid, &Leave, within(60)).await.unwrap();
        self.until(uuid, 60, "fresh", |node| !node.maintenance).await
    }

    async fn new_port(&self) -> PortId {
        let networks = self.raw("GET", "network", "/v2.0/networks?name=tenant", Value::Null).await;
        let body = json!({ "port": { "network_id": networks["networks"][0]["id"], "name": "server-1",
            "binding:vnic_type": "baremetal", "device_owner": "baremetal:none" } });
        let port = self.raw("POST", "network", "/v2.0/ports", body).await;
        port["port"]["id"].as_str().unwrap().parse().unwrap()
    }

    async fn new_volume(&self, kind: &str) -> VolumeId {
        let body = json!({ "volume": { "size": 1, "name": "server-1", "volume_type": kind } });
        let made = self.raw("POST", "volume", "/v3/volumes", body).await;
        let id: VolumeId = made["volume"]["id"].as_str().unwrap().parse().unwrap();
        self.volume_until(&id, &VolumeState::Available).await;
        id
    }

    async fn volume_until(&self, volume: &VolumeId, state: &VolumeState) {
        let deadline = within(60);
        loop {
            let read = self.cloud.volumes().volume(volume, deadline).await.unwrap();
            if read.status == *state {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "volume {volume} is not {state:?}: {read:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

fn settings(recorder: &Recorder, credentials: Credentials) -> Settings {
    Settings {
        keystone: format!("http://{}/v3", recorder.address("keystone")),
        ca: None,
        region: None,
        interface: policies::CloudInterface::Public,
        credentials,
    }
}

fn password(password: &str) -> Credentials {
    of_user("failover", "service", password)
}

fn of_user(user: &str, project: &str, password: &str) -> Credentials {
    let named =
        |name: &str| Reference::Name { name: name.to_owned(), domain: Domain::Id("default".to_owned()) };
    let (user, scope) = (named(user), Scope::Project(named(project)));
    Credentials::Password { user, password: Zeroizing::new(password.to_owned()), scope }
}

fn no(end: Result<impl std::fmt::Debug, CallError>) -> No {
    match end.unwrap_err() {
        CallError::Refused { no, .. } => no,
        other => panic!("no refusal: {other:?}"),
    }
}

// ---- Keystone

#[tokio::test]
#[ignore = "needs real services: make test-openstack"]
async fn a_cloud_is_entered_by_password_and_by_application_credential() {
    let bed = Bed::new().await;
    let cloud = Cloud::new(settings(&bed.recorder, password("secret"))).unwrap();
    let admission = bed
        .recorder
        .record("enter", "A token by password, and which versions are spoken.", &[], async {
            let admission = cloud.admission(within(60)).await.unwrap();
            assert_eq!(
                cloud.version(Service::Baremetal, within(60)).await.unwrap().unwrap().to_string(),
                "1.99"
            );
            assert_eq!(
                cloud.version(Service::BlockStorage, within(60)).await.unwrap().unwrap().to_string(),
                "3.71"
            );
            assert_eq!(cloud.version(Service::Network, within(60)).await.unwrap(), None);
            admission
        })
        .await;
    assert!(admission.roles.is_superset(&["admin", "service"].map(str::to_owned).into()));

    let tokens = bed.raw("GET", "keystone", "/v3/users?name=failover", Value::Null).await;
    let user = tokens["users"][0]["id"].as_str().unwrap();
    let name = format!("live-{}", std::process::id());
    let wish = json!({ "application_credential": { "name": name, "roles": [{ "name": "service" }, { "name": "admin" }] } });
    let made = bed.raw("POST", "keystone", &format!("/v3/users/{user}/application_credentials"), wish).await;
    let made = &made["application_credential"];
    let text = |key: &str| made[key].as_str().unwrap().to_owned();
    let credentials = Credentials::Application { id: text("id"), secret: Zeroizing::new(text("secret")) };
    let cloud = Cloud::new(settings(&bed.recorder, credentials)).unwrap();
    let about = "A token by application credential; its project and roles are the credential's.";
    let ids = [("credential", made["id"].as_str().unwrap())];
    let entered =
        bed.recorder.record("enter_application", about, &ids, cloud.admission(within(60))).await.unwrap();
    assert_eq!(entered.project, admission.project);
    bed.raw(
        "DELETE",
        "keystone",
        &format!("/v3/users/{user}/application_credentials/{}", text("id")),
        Value::Null,
    )
    .await;
}

#[tokio::test]
#[ignore = "needs real services: make test-openstack"]
async fn a_wrong_password_is_told() {
    let bed = Bed::new().await;
    let cloud = Cloud::new(settings(&bed.recorder, password("wrong"))).unwrap();
    let about = "A wrong password.";
    let end = bed.recorder.record("enter_wrong_password", about, &[], cloud.admission(within(60))).await;
    assert_eq!(no(end), No::NotAdmitted);
}

#[tokio::test]
#[ignore = "needs real services: make test-openstack"]
async fn a_token_that_was_made_invalid_is_renewed() {
    let bed = Bed::new().await;
    let port = bed.new_port().await;
    bed.cloud.network().port(&port, within(60)).await.unwrap();
    let request = bed.http.delete(format!("http://{}/v3/auth/tokens", services()[0].1));
    let request = request.header("x-auth-token", &bed.token).header("x-subject-token", bed.recorder.token());
    assert!(request.send().await.unwrap().status().is_success());
    let about = "A token was revoked: 401, a new token, the same reading again.";
    let ids = [("port", port.as_str())];
    bed.recorder.record("renewed", about, &ids, bed.cloud.network().port(&port, within(60))).await.unwrap();
    bed.raw("DELETE", "network", &format!("/v2.0/ports/{port}"), Value::Null).await;
}

#[tokio::test]
#[ignore = "needs real services: make test-openstack"]
async fn a_token_of_somebody_else_is_looked_up() {
    let bed = Bed::new().await;
    let tenant = Cloud::new(settings(&bed.recorder, of_user("demo", "demo", "secret"))).unwrap();
    let token = tenant.own_token(within(60)).await.unwrap();
    let about = "Whom a token of a tenant stands for.";
    let subject = bed.recorder.record("subject", about, &[], bed.cloud.subject(&token, within(60))).await;
    let subject = subject.unwrap().unwrap();
    assert_eq!((subject.user_name.as_str(), subject.roles.contains("member")), ("demo", true));
    assert_eq!(subject.project, tenant.admission(within(60)).await.unwrap().project);

    let project = String::from(subject.project.unwrap());
    let scope = Scope::Project(Reference::Id(project.clone()));
    let again = Cloud::new(settings(&bed.recorder, Credentials::Token { token, scope })).unwrap();
    let (about, ids) = ("A token for a token, for a project by its id.", [("project", project.as_str())]);
    bed.recorder.record("enter_token", about, &ids, again.admission(within(60))).await.unwrap();

    let about = "A token that Keystone does not know.";
    let nobody = Zeroizing::new("nobody-s".to_owned());
    let unknown = bed.recorder.record("subject_absent", about, &[], bed.cloud.subject(&nobody, within(60)));
    assert_eq!(unknown.await.unwrap(), None);
    let about = "Only a user with the role service may ask about tokens of others.";
    let ours = Zeroizing::new(bed.token.clone());
    let refused = bed.recorder.record("subject_refused", about, &[], tenant.subject(&ours, within(60))).await;
    assert_eq!(no(refused), No::NotAdmitted);
}

// ---- Ironic

#[tokio::test]
#[ignore = "needs real services: make test-openstack"]
async fn nodes_and_what_belongs_to_them_are_read() {
    let bed = Bed::new().await;
    let baremetal = bed.cloud.baremetal();
    let nodes = bed
        .recorder
        .record("nodes", "All nodes, in pages.", &[], baremetal.nodes(&NodeFilter::default(), within(60)))
        .await
        .unwrap();
    assert!(nodes.len() >= 7, "{nodes:?}");
    let names: BTreeSet<&str> = nodes.iter().filter_map(|node| node.name.as_deref()).collect();
    assert!(names.is_superset(&["rf1", "rf4", "ipmi1", "ipmi3"].into()));
    let filter = NodeFilter {
        provision_state: Some("available".to_owned()),
        resource_class: Some("bm.redfish".to_owned()),
        maintenance: Some(false),
        associated: Some(false),
        owner: None,
    };
    let about = "Free nodes of a class.";
    let free =
        bed.recorder.record("nodes_free", about, &[], baremetal.nodes(&filter, within(60))).await.unwrap();
    assert!(free.iter().all(|node| node.resource_class.as_deref() == Some("bm.redfish")));

    let uuid = nodes.iter().find(|node| node.name.as_deref() == Some("rf4")).unwrap().uuid.clone();
    let ids = [("node", uuid.as_str())];
    let read =
        bed.recorder.record("node", "One node.", &ids, baremetal.node(&uuid, within(60))).await.unwrap();
    assert_eq!(read.driver, "redfish");
    let ports =
        bed.recorder.record("node_ports", "Its NICs.", &ids, baremetal.ports(Some(&uuid), within(60))).await;
    assert_eq!(ports.unwrap()[0].local_link_connection.port_id.as_deref(), Some("Ethernet4"));
    let all = baremetal.everything(within(60)).await.unwrap();
    assert!(all.ports.len() >= 7 && all.nodes.iter().all(|node| node.instance_info.is_some()));
    assert_eq!(all.unread, []);
    bed.cloud.network().trunks(within(60)).await.unwrap();

    let group =
        json!({ "node_uuid": uuid, "address": "52:54:00:bb:00:04", "mode": "802.3ad", "name": "bond-rf4" });
    let made = bed.raw("POST", "baremetal", "/v1/portgroups", group).await;
    let about = "Its port groups.";
    let groups = bed
        .recorder
        .record("node_port_groups", about, &ids, baremetal.port_groups(Some(&uuid), within(60)))
        .await;
    bed.raw(
        "DELETE",
        "baremetal",
        &format!("/v1/portgroups/{}", made["uuid"].as_str().unwrap()),
        Value::Null,
    )
    .await;
    assert_eq!(groups.unwrap()[0].mode.as_deref(), Some("802.3ad"));

    let traits =
        bed.recorder.record("node_traits", "Its traits.", &ids, baremetal.traits(&uuid, within(60))).await;
    assert_eq!(traits.unwrap(), ["CUSTOM_RACK_A".to_owned()].into());
    let about = "What could do its part of a deployment.";
    let validation =
        bed.recorder.record("node_validate", about, &ids, baremetal.validate(&uuid, within(60))).await;
    let unfit = validation.unwrap().unfit(&["power", "network", "deploy", "nonsense"]);
    assert_eq!(unfit.keys().map(String::as_str).collect::<Vec<_>>(), ["deploy", "nonsense"]);

    let nobody = "00000000-0000-4000-8000-000000000000".parse().unwrap();
    let about = "A node that does not exist.";
    let end = bed.recorder.record("node_absent", about, &[], baremetal.node(&nobody, within(60))).await;
    assert!(end.unwrap_err().is_absent());
}

#[tokio::test]
#[ignore = "needs real services: make test-openstack"]
async fn what_a_node_starts_from_is_set_at_its_bmc() {
    let bed = Bed::new().await;
    let (baremetal, node) = (bed.cloud.baremetal(), bed.fresh("rf3").await.uuid);
    let ids = [("node", node.as_str())];
    let wish = BootDevice { device: Some("pxe".to_owned()), persistent: Some(false) };
    let set = baremetal.set_boot_device(&node, &wish, &Leave, within(60));
    bed.recorder.record("boot_device_set", "A boot device is set.", &ids, set).await.unwrap();
    let read = baremetal.boot_device(&node, within(60));
    let read = bed.recorder.record("boot_device", "A boot device is read.", &ids, read).await.unwrap();
    assert_eq!(read.device.as_deref(), Some("pxe"));
}

#[tokio::test]
#[ignore = "needs real services: make test-openstack"]
async fn power_is_switched_and_a_dead_bmc_holds_its_node() {
    let bed = Bed::new().await;
    bmc(&["ipmi", "1", "thaw"]);
    let (baremetal, node) = (bed.cloud.baremetal(), bed.fresh("ipmi1").await.uuid);
    let ids = [("node", node.as_str())];
    let reason = "ha-failover 7: token 4711";
    let set = baremetal.set_maintenance(&node, reason, &Leave, within(60));
    bed.recorder.record("maintenance_set", "Maintenance with a reason.", &ids, set).await.unwrap();
    assert_eq!(baremetal.node(&node, within(60)).await.unwrap().maintenance_reason.as_deref(), Some(reason));
    let on = baremetal.set_power(&node, PowerTarget::On, &Leave, within(60));
    bed.recorder.record("power_on", "A node is to be switched on.", &ids, on).await.unwrap();
    bed.until(&node, 60, "on", |node| node.power_state == Some(PowerState::On)).await;
    assert_eq!(bmc_state("1"), "1");

    // Its BMC freezes: Ironic accepts, keeps the node locked, and gives up.
    bmc(&["ipmi", "1", "freeze"]);
    let off = baremetal.set_power(&node, PowerTarget::Off, &Leave, within(60));
    bed.recorder
        .record("power_off", "A node is to be switched off; its BMC is dead.", &ids, off)
        .await
        .unwrap();
    let locked = baremetal.set_maintenance(&node, "locked", &Leave, within(4));
    let about = "A node's lock is held by another operation for longer than we wait.";
    match bed.recorder.record("locked", about, &ids, locked).await.unwrap_err() {
        CallError::Locked { why, .. } => assert!(why.contains("is locked by host"), "{why}"),
        other => panic!("not locked: {other:?}"),
    }
    let waited = baremetal.set_maintenance(&node, reason, &Leave, within(120));
    let about = "A node's lock is waited for.";
    bed.recorder.record("locked_for_a_while", about, &ids, waited).await.unwrap();
    let failed = bed.until(&node, 60, "given up", |node| node.last_error.is_some()).await;
    assert_ne!(failed.power_state, Some(PowerState::Off), "{failed:?}");
    bmc(&["ipmi", "1", "thaw"]);
    assert_eq!(bmc_state("1"), "1", "the machine is still on");

    baremetal.set_power(&node, PowerTarget::Off, &Leave, within(60)).await.unwrap();
    bed.until(&node, 90, "off", |node| node.power_state == Some(PowerState::Off)).await;
    assert_eq!(bmc_state("1"), "0");
    let cleared = baremetal.clear_maintenance(&node, &Leave, within(60));
    bed.recorder.record("maintenance_cleared", "The end of maintenance.", &ids, cleared).await.unwrap();
}

/// The power of an IPMI node, behind Ironic's back.
fn bmc_state(node: &str) -> String {
    bmc(&["ipmi", node, "state"])
}

#[tokio::test]
#[ignore = "needs real services: make test-openstack"]
async fn a_spare_is_claimed_once_gets_a_port_is_deployed_and_undeployed() {
    let bed = Bed::new().await;
    let (baremetal, network) = (bed.cloud.baremetal(), bed.cloud.network());
    let (node, other) = (bed.fresh("ipmi2").await.uuid, bed.fresh("ipmi3").await.uuid);
    let ids = [("node", node.as_str())];

    let claim = |number: &str| AllocationWish {
        uuid: None,
        name: format!("failover-{}-{number}", std::process::id()).parse().unwrap(),
        resource_class: "bm.ipmi".to_owned(),
        traits: BTreeSet::new(),
        candidate_nodes: vec![node.clone()],
        extra: [("epoch".to_owned(), json!(7))].into(),
    };
    let names = |wish: &AllocationWish| wish.name.to_string();
    let (first, second) = (claim("1"), claim("2"));
    let ids_of_claim = |name| vec![("node", node.to_string()), ("allocation", name)];
    let noted = ids_of_claim(names(&first));
    let noted: Vec<(&str, &str)> = noted.iter().map(|(key, id)| (*key, id.as_str())).collect();
    let made = baremetal.create_allocation(&first, &Leave, within(60));
    bed.recorder.record("allocation_create", "A spare is claimed.", &noted, made).await.unwrap();
    settled(&bed, &first.name).await;
    let read = baremetal.allocation(&first.name, within(60));
    let read = bed.recorder.record("allocation", "The claim has its node.", &noted, read).await.unwrap();
    assert_eq!((&read.state, read.node_uuid.as_ref()), (&AllocationState::Active, Some(&node)));
    assert_eq!(read.extra["epoch"], json!(7));
    let twice = baremetal.create_allocation(&first, &Leave, within(60));
    let about = "The same claim again: its name is taken.";
    assert_eq!(no(bed.recorder.record("allocation_twice", about, &noted, twice).await), No::Conflict);
    baremetal.create_allocation(&second, &Leave, within(60)).await.unwrap();
    settled(&bed, &second.name).await;
    let noted = ids_of_claim(names(&second));
    let noted: Vec<(&str, &str)> = noted.iter().map(|(key, id)| (*key, id.as_str())).collect();
    let read = baremetal.allocation(&second.name, within(60));
    let read = bed
        .recorder
        .record("allocation_lost", "Another claim of the same node has none.", &noted, read)
        .await
        .unwrap();
    assert_eq!((&read.state, read.node_uuid), (&AllocationState::Error, None));
    let why = read.last_error.unwrap();
    assert!(why.contains("none of the requested nodes are available"), "{why}");
    let deleted = baremetal.delete_allocation(&second.name, &Leave, within(60));
    bed.recorder.record("allocation_delete", "A claim is given back.", &noted, deleted).await.unwrap();

    let port = bed.new_port().await;
    let nic = baremetal.ports(Some(&node), within(60)).await.unwrap().remove(0).uuid;
    let noted = [("node", node.as_str()), ("port", port.as_str()), ("nic", nic.as_str())];
    let read = baremetal.has_nic(&nic, within(60));
    assert!(bed.recorder.record("nic", "A NIC is there.", &noted, read).await.unwrap());
    let attached = baremetal.attach_vif(&node, &port, Some(&nic), &Leave, within(120));
    bed.recorder.record("vif_attach", "A port is attached.", &noted, attached).await.unwrap();
    let read = baremetal.vifs(&node, within(60));
    assert_eq!(
        bed.recorder.record("vifs", "A node's VIFs.", &noted, read).await.unwrap(),
        [port.clone()].into()
    );
    let again = baremetal.attach_vif(&node, &port, None, &Leave, within(120));
    let about = "The same port again.";
    assert_eq!(no(bed.recorder.record("vif_attach_again", about, &noted, again).await), No::Conflict);
    let read = network.port(&port, within(60));
    let read =
        bed.recorder.record("port_bound", "A port that Ironic has bound.", &noted, read).await.unwrap();
    assert_eq!(read.host_id.as_deref(), Some(node.as_str()));
    let read = network.bound_to(&node, within(60));
    let read = bed.recorder.record("ports_bound", "All ports of a node.", &noted, read).await.unwrap();
    assert!(read.iter().map(|it| &it.id).eq([&port]), "{read:?}");
    // Ironic does not look whether another node has it.
    baremetal.attach_vif(&other, &port, None, &Leave, within(120)).await.unwrap();
    assert_eq!(network.port(&port, within(60)).await.unwrap().host_id.as_deref(), Some(other.as_str()));
    baremetal.detach_vif(&other, &port, &Leave, within(120)).await.unwrap();
    let detached = baremetal.detach_vif(&node, &port, &Leave, within(120));
    bed.recorder.record("vif_detach", "A port is detached.", &noted, detached).await.unwrap();
    let again = baremetal.detach_vif(&node, &port, &Leave, within(120));
    let about = "A port that is not attached is to be detached.";
    assert_eq!(no(bed.recorder.record("vif_detach_again", about, &noted, again).await), No::Other(400));

    baremetal.attach_vif(&node, &port, None, &Leave, within(120)).await.unwrap();
    let info = BTreeMap::from([("capabilities".to_owned(), json!({ "boot_option": "local" }))]);
    let extra = BTreeMap::new();
    let set = baremetal.set_instance(&node, &info, &extra, &Leave, within(60));
    bed.recorder.record("instance_info", "What a deployment takes is set.", &ids, set).await.unwrap();
    let drive = ConfigDrive {
        meta_data: [("name".to_owned(), json!("server-1"))].into(),
        network_data: BTreeMap::new(),
        user_data: Some("#cloud-config\n".to_owned()),
    };
    let target = ProvisionTarget::Active(Some(drive));
    let deploy = baremetal.set_provision(&node, &target, &Leave, within(60));
    bed.recorder.record("provision_active", "A node is to be deployed.", &ids, deploy).await.unwrap();
    bed.until(&node, 120, "active", |node| node.provision_state == ProvisionState::Active).await;
    let no_way = baremetal.set_provision(&node, &ProvisionTarget::Provide, &Leave, within(60));
    let about = "There is no way from active to available but through deleted.";
    assert_eq!(no(bed.recorder.record("provision_no_way", about, &ids, no_way).await), No::Other(400));
    let undeploy = baremetal.set_provision(&node, &ProvisionTarget::Deleted, &Leave, within(60));
    bed.recorder.record("provision_deleted", "A node is to be undeployed.", &ids, undeploy).await.unwrap();
    bed.until(&node, 120, "available", |node| node.provision_state == ProvisionState::Available).await;
    assert!(baremetal.allocation(&first.name, within(60)).await.unwrap_err().is_absent());
    bed.raw("DELETE", "network", &format!("/v2.0/ports/{port}"), Value::Null).await;
}

/// Waits until Ironic has decided about a claim.
async fn settled(bed: &Bed, name: &AllocationName) {
    let deadline = within(60);
    while bed.cloud.baremetal().allocation(name, deadline).await.unwrap().state == AllocationState::Allocating
    {
        assert!(tokio::time::Instant::now() < deadline, "{name} is not decided");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
#[ignore = "needs real services: make test-openstack"]
async fn a_node_is_told_which_volumes_it_has() {
    let bed = Bed::new().await;
    let (baremetal, node) = (bed.cloud.baremetal(), bed.fresh("rf1").await.uuid);
    let volume = bed.new_volume("filetgt").await;
    let noted = [("node", node.as_str()), ("volume", volume.as_str())];
    let wish = VolumeTargetWish {
        node_uuid: node.clone(),
        volume_type: "iscsi".to_owned(),
        boot_index: 0,
        volume_id: volume.clone(),
    };
    let made = baremetal.create_volume_target(&wish, &Leave, within(60));
    let made = bed
        .recorder
        .record("volume_target_create", "A node is to have a volume.", &noted, made)
        .await
        .unwrap();
    let read = baremetal.volume_targets(Some(&node), within(60));
    let read = bed
        .recorder
        .record("volume_targets", "Which volumes a node is to have.", &noted, read)
        .await
        .unwrap();
    assert_eq!(read, std::slice::from_ref(&made));

    baremetal.set_power(&node, PowerTarget::On, &Leave, within(60)).await.unwrap();
    bed.until(&node, 60, "on", |node| node.power_state == Some(PowerState::On)).await;
    let target = [("target", made.uuid.as_str())];
    let end = baremetal.delete_volume_target(&made.uuid, &Leave, within(60));
    let about = "While the node is on, its volumes stay.";
    assert_eq!(no(bed.recorder.record("volume_target_delete_on", about, &target, end).await), No::Other(400));
    baremetal.set_power(&node, PowerTarget::Off, &Leave, within(60)).await.unwrap();
    bed.until(&node, 60, "off", |node| node.power_state == Some(PowerState::Off)).await;
    let end = baremetal.delete_volume_target(&made.uuid, &Leave, within(60));
    bed.recorder.record("volume_target_delete", "A volume target is deleted.", &target, end).await.unwrap();

    let iqn = format!("iqn.2026-01.test:live-{}", std::process::id());
    let noted = [("node", node.as_str()), ("iqn", iqn.as_str())];
    let made = baremetal.create_volume_connector(&node, &iqn, &Leave, within(60));
    let made =
        bed.recorder.record("volume_connector_create", "A node's initiator.", &noted, made).await.unwrap();
    let twice = baremetal.create_volume_connector(&node, &iqn, &Leave, within(60));
    let about = "The same initiator again.";
    assert_eq!(no(bed.recorder.record("volume_connector_twice", about, &noted, twice).await), No::Conflict);
    let read = baremetal.volume_connectors(Some(&node), within(60));
    let read = bed.recorder.record("volume_connectors", "A node's initiators.", &noted, read).await.unwrap();
    assert!(read.contains(&made));
    let noted = [("connector", made.uuid.as_str())];
    let end = baremetal.delete_volume_connector(&made.uuid, &Leave, within(60));
    bed.recorder.record("volume_connector_delete", "An initiator is forgotten.", &noted, end).await.unwrap();
    bed.raw("DELETE", "volume", &format!("/v3/volumes/{volume}"), Value::Null).await;
}

// ---- Neutron

#[tokio::test]
#[ignore = "needs real services: make test-openstack"]
async fn a_port_is_changed_by_who_has_seen_it_last() {
    let bed = Bed::new().await;
    let (network, port) = (bed.cloud.network(), bed.new_port().await);
    let noted = [("port", port.as_str())];
    let read = network.port(&port, within(60));
    let read = bed.recorder.record("port", "A port.", &noted, read).await.unwrap();
    assert_eq!(read.vif_type.as_deref(), Some("unbound"));
    let change = PortChange {
        admin_state_up: Some(false),
        description: Some("ha token 4711".to_owned()),
        ..PortChange::default()
    };
    let changed = network.update_port(&port, &change, read.revision_number, &Leave, within(60));
    let changed = bed.recorder.record("port_update", "A port is closed.", &noted, changed).await.unwrap();
    assert!(changed.revision_number > read.revision_number);
    let stale = network.update_port(&port, &change, read.revision_number, &Leave, within(60));
    let about = "Somebody with an old reading is too late.";
    assert_eq!(no(bed.recorder.record("port_update_stale", about, &noted, stale).await), No::Stale);
    let refused = network.update_port(&port, &change, changed.revision_number, &Never, within(60)).await;
    assert!(matches!(refused, Err(CallError::NotPermitted { why: Refusal::LeaseEnded, .. })), "{refused:?}");
    bed.raw("DELETE", "network", &format!("/v2.0/ports/{port}"), Value::Null).await;
    let about = "A port that does not exist.";
    let end = bed.recorder.record("port_absent", about, &noted, network.port(&port, within(60))).await;
    assert!(end.unwrap_err().is_absent());
}

/// No leave to send anything.
struct Never;

impl Permit for Never {
    fn check(&self) -> Result<(), Refusal> {
        Err(Refusal::LeaseEnded)
    }

    fn token(&self) -> policies::LogIndex {
        policies::LogIndex(7)
    }
}

// ---- Cinder

#[tokio::test]
#[ignore = "needs real services: make test-openstack"]
async fn a_volume_moves_from_one_node_to_another() {
    let bed = Bed::new().await;
    let (volumes, volume) = (bed.cloud.volumes(), bed.new_volume("filetgt").await);
    let noted = [("volume", volume.as_str())];
    let (old, new) = (connector("n4"), connector("n5"));
    let instance = "6f2b7d39-2f0e-4f6c-9f3b-6a2b3c4d5e6f";

    let read = volumes.volume(&volume, within(60));
    let read = bed.recorder.record("volume", "A volume.", &noted, read).await.unwrap();
    assert_eq!((read.size, read.multiattach), (1, false));
    let made = volumes.create_attachment(&volume, Some(instance), None, &Leave, within(60));
    let made = bed.recorder.record("attachment_create", "A volume is reserved.", &noted, made).await.unwrap();
    assert_eq!((&made.status, &made.target), (&AttachmentState::Reserved, &None));
    let noted = [("volume", volume.as_str()), ("attachment", made.id.as_str())];
    let connected = volumes.update_attachment(&made.id, &old, &Leave, within(60));
    let connected =
        bed.recorder.record("attachment_update", "It is connected.", &noted, connected).await.unwrap();
    assert_eq!(connected.target.unwrap().lun, 1);
    let completed = volumes.complete_attachment(&made.id, &Leave, within(60));
    bed.recorder.record("attachment_complete", "It is in use.", &noted, completed).await.unwrap();
    bed.volume_until(&volume, &VolumeState::InUse).await;
    let read = volumes.attachment(&made.id, within(60));
    let read = bed.recorder.record("attachment", "An attachment.", &noted, read).await.unwrap();
    assert_eq!(read.status, AttachmentState::Attached);
    let list = volumes.attachments(&volume, within(60));
    let list = bed.recorder.record("attachments", "Who has a volume.", &noted, list).await.unwrap();
    assert_eq!(list.iter().map(|it| &it.id).collect::<Vec<_>>(), [&made.id]);

    let second = volumes.create_attachment(&volume, None, Some(&new), &Leave, within(60));
    let about = "A second node wants a volume that only one may have.";
    assert_eq!(no(bed.recorder.record("attachment_second", about, &noted, second).await), No::Other(400));
    let deleted = volumes.delete_attachment(&made.id, &Leave, within(60));
    bed.recorder.record("attachment_delete", "The right is taken away.", &noted, deleted).await.unwrap();
    bed.volume_until(&volume, &VolumeState::Available).await;
    let about = "An attachment that is gone.";
    let gone = bed
        .recorder
        .record("attachment_absent", about, &noted, volumes.attachment(&made.id, within(60)))
        .await;
    assert!(gone.unwrap_err().is_absent());

    let made = volumes.create_attachment(&volume, None, Some(&new), &Leave, within(60));
    let about = "The spare gets the volume, connected at once.";
    let made = bed.recorder.record("attachment_create_connected", about, &noted, made).await.unwrap();
    volumes.complete_attachment(&made.id, &Leave, within(60)).await.unwrap();
    bed.volume_until(&volume, &VolumeState::InUse).await;
    let node = PEER.parse().unwrap();
    let (noted, peer) = ([("volume", volume.as_str()), ("node", PEER)], peer(&node));
    let ended = volumes.end_connection(&volume, &peer, &Leave, within(60));
    let about = "What storage gave a node is taken away, whatever Cinder has recorded.";
    bed.recorder.record("connection_end", about, &noted, ended).await.unwrap();
    // And once more.
    volumes.end_connection(&volume, &peer, &Leave, within(60)).await.unwrap();
    volumes.delete_attachment(&made.id, &Leave, within(60)).await.unwrap();
    bed.volume_until(&volume, &VolumeState::Available).await;
    assert!(volumes.attachments(&volume, within(60)).await.unwrap().is_empty());

    let made = volumes.create_snapshot(&volume, "ha-f7", false, &Leave, within(60));
    let made = bed.recorder.record("snapshot_create", "A snapshot is made.", &noted, made).await.unwrap();
    let deadline = within(60);
    while volumes.snapshots(&volume, deadline).await.unwrap()[0].status != SnapshotState::Available {
        assert!(tokio::time::Instant::now() < deadline, "no snapshot");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let noted = [("volume", volume.as_str()), ("snapshot", made.id.as_str())];
    let list = volumes.snapshots(&volume, within(60));
    let list = bed.recorder.record("snapshots", "A volume's snapshots.", &noted, list).await.unwrap();
    assert_eq!(list[0].name.as_deref(), Some("ha-f7"));
    let deleted = volumes.delete_snapshot(&made.id, &Leave, within(60));
    bed.recorder.record("snapshot_delete", "A snapshot is deleted.", &noted, deleted).await.unwrap();
    let deadline = within(60);
    while !volumes.snapshots(&volume, deadline).await.unwrap().is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "the snapshot is still there");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    bed.raw("DELETE", "volume", &format!("/v3/volumes/{volume}"), Value::Null).await;
}

#[tokio::test]
#[ignore = "needs real services: make test-openstack"]
async fn a_multiattach_volume_is_shared() {
    let bed = Bed::new().await;
    let (volumes, volume) = (bed.cloud.volumes(), bed.new_volume("filetgt-multi").await);
    assert!(volumes.volume(&volume, within(60)).await.unwrap().multiattach);
    let mut made = vec![];
    for name in ["n4", "n5"] {
        let attachment = volumes
            .create_attachment(&volume, None, Some(&connector(name)), &Leave, within(60))
            .await
            .unwrap();
        volumes.complete_attachment(&attachment.id, &Leave, within(60)).await.unwrap();
        made.push(attachment.id);
    }
    volumes.delete_attachment(&made[0], &Leave, within(60)).await.unwrap();
    let left = volumes.attachments(&volume, within(60)).await.unwrap();
    assert_eq!(left.iter().map(|it| &it.id).collect::<Vec<_>>(), [&made[1]]);
    volumes.delete_attachment(&made[1], &Leave, within(60)).await.unwrap();
    bed.raw("DELETE", "volume", &format!("/v3/volumes/{volume}"), Value::Null).await;
}
