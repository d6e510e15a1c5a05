//! Every call, against what real services have said: `testdata/*.json`, recorded by `tests/live.rs`.
//!
//! Why it exists: it needs no services, so it runs with every `cargo test`. Each request must be the recorded one, byte for byte in
//! its path and value for value in its body.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use openstack::*;
use policies::Refusal;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use support::player::{Player, pass};
use support::{Answered, Exchange, Leave, Transcript, connector, peer, within};
use zeroize::Zeroizing;

/// A call that must end well, and use up its transcript. The rest of the arguments is the call.
macro_rules! plays {
    ($name:literal, |$player:ident, $cloud:ident| $call:expr) => {{
        let $player = Player::of($name).await;
        let $cloud = $player.cloud();
        let end = $call.await;
        $player.done();
        end
    }};
}

fn no<T: std::fmt::Debug>(end: Result<T, CallError>) -> (No, String) {
    match end.unwrap_err() {
        CallError::Refused { no, why, .. } => (no, why),
        other => panic!("no refusal: {other:?}"),
    }
}

// ---- Keystone

#[tokio::test]
async fn a_cloud_is_entered() {
    let player = Player::of("enter").await;
    let cloud = player.cloud();
    let admission = cloud.admission(within(5)).await.unwrap();
    assert!(admission.project.is_some());
    assert!(admission.roles.contains("service"));
    assert_eq!(cloud.version(Service::Baremetal, within(5)).await.unwrap().unwrap().to_string(), "1.99");
    assert_eq!(cloud.version(Service::BlockStorage, within(5)).await.unwrap().unwrap().to_string(), "3.71");
    assert_eq!(player.tokens(), 1);
    player.done();
}

#[tokio::test]
async fn a_cloud_is_entered_with_an_application_credential() {
    let player = Player::of("enter_application").await;
    let secret = Zeroizing::new("anything".to_owned());
    let credentials = Credentials::Application { id: player.id("credential"), secret };
    let cloud = Cloud::new(Settings { credentials, ..player.settings() }).unwrap();
    assert!(cloud.admission(within(5)).await.unwrap().roles.contains("admin"));
    player.done();
}

#[tokio::test]
async fn a_wrong_password_is_told_and_not_tried_again() {
    let end = plays!("enter_wrong_password", |player, cloud| cloud.admission(within(5)));
    let error = end.unwrap_err();
    assert!(!error.may_have_happened());
    assert!(matches!(Refusal::from(error), Refusal::NotAdmitted(why) if why.contains("authentication")));
}

#[tokio::test]
async fn a_token_that_is_refused_is_renewed_once() {
    let player = Player::of("renewed").await;
    let (cloud, port) = (player.cloud(), player.id("port"));
    cloud.network().port(&port, within(5)).await.unwrap();
    assert_eq!(player.tokens(), 2);
    player.done();

    // A service that refuses the new one, too, is believed.
    let mut transcript = Transcript::read("renewed");
    let refused = transcript.exchanges.first().cloned().unwrap();
    transcript.exchanges.truncate(2);
    transcript.exchanges.push(refused);
    let player = Player::with(transcript).await;
    let end = player.cloud().network().port(&port, within(5)).await;
    assert_eq!(no(end).0, No::NotAdmitted);
    assert_eq!(player.tokens(), 2);
    player.done();
}

#[tokio::test]
async fn a_token_is_renewed_before_its_end_and_an_old_one_is_used_if_there_is_no_new_one() {
    let (port, enter) = (Transcript::read("port"), Transcript::read("enter").exchanges[0].clone());
    let broken = Exchange { answer: Answered { status: 501, body: Value::Null }, ..enter.clone() };
    let read = port.exchanges[0].clone();
    let exchanges = vec![enter.clone(), read.clone(), broken, read.clone(), read.clone(), enter, read];
    let player = Player::with(Transcript { exchanges, ..port }).await;
    let (cloud, id) = (player.cloud(), player.id("port"));
    cloud.network().port(&id, within(60)).await.unwrap();
    // It lives for an hour.
    pass(Duration::from_secs(3301)).await;
    cloud.network().port(&id, within(60)).await.unwrap();
    cloud.network().port(&id, within(60)).await.unwrap();
    assert_eq!(player.tokens(), 1);
    pass(Duration::from_secs(11)).await;
    cloud.network().port(&id, within(60)).await.unwrap();
    assert_eq!(player.tokens(), 2);
    player.done();
}

#[tokio::test]
async fn a_token_of_somebody_else_is_looked_up() {
    let shown = &Zeroizing::new("somebody-s".to_owned());
    let subject = plays!("subject", |player, cloud| cloud.subject(shown, within(5))).unwrap().unwrap();
    assert_eq!(subject.user_name, "demo");
    assert!(
        subject.project.is_some() && subject.roles.contains("member") && !subject.roles.contains("admin")
    );
    assert!(subject.expires > jiff::Timestamp::UNIX_EPOCH);
    let unknown = plays!("subject_absent", |player, cloud| cloud.subject(shown, within(5)));
    assert_eq!(unknown.unwrap(), None);
    let (not_admitted, why) = no(plays!("subject_refused", |player, cloud| cloud.subject(shown, within(5))));
    assert_eq!((not_admitted, why.as_str()), (No::NotAdmitted, "403 Forbidden"));
}

#[tokio::test]
async fn what_an_answer_says_of_somebody_s_token_is_not_repeated() {
    for status in [400, 404, 500] {
        let mut transcript = Transcript::read("subject_absent");
        let answer = &mut transcript.exchanges[0].answer;
        let words = "Could not find token: somebody-s";
        *answer = Answered { status, body: json!({ "error": { "message": words, "code": status } }) };
        let ends = if status == 500 { 5 } else { 1 };
        transcript.exchanges = vec![transcript.exchanges[0].clone(); ends];
        let player = Player::with(transcript).await;
        let end = player.cloud().subject(&Zeroizing::new("somebody-s".to_owned()), within(5)).await;
        assert!(!format!("{end:?}").contains("somebody-s"), "{end:?}");
        player.done();
    }
}

#[tokio::test]
async fn our_own_token_is_renewed_when_it_is_refused_and_somebody_s_is_looked_up_again() {
    let mut transcript = Transcript::read("subject");
    let mut refused = transcript.exchanges[0].clone();
    refused.answer = Answered { status: 401, body: Value::Null };
    transcript.exchanges.insert(0, refused);
    let player = Player::with(transcript).await;
    let cloud = player.cloud();
    let before = cloud.own_token(within(5)).await.unwrap();
    assert!(cloud.subject(&Zeroizing::new("somebody-s".to_owned()), within(5)).await.unwrap().is_some());
    assert_ne!(cloud.own_token(within(5)).await.unwrap(), before);
    assert_eq!(player.tokens(), 2);
    player.done();
}

#[tokio::test]
async fn a_cloud_is_entered_with_another_token() {
    let player = Player::of("enter_token").await;
    let project = Reference::Id(player.id::<ProjectId>("project").into());
    let (token, scope) = (Zeroizing::new("anything".to_owned()), Scope::Project(project));
    let credentials = Credentials::Token { token, scope };
    let cloud = Cloud::new(Settings { credentials, ..player.settings() }).unwrap();
    assert!(cloud.admission(within(5)).await.unwrap().roles.contains("member"));
    player.done();
}

// ---- Ironic

#[tokio::test]
async fn nodes_are_read() {
    let nodes =
        plays!("nodes", |player, cloud| cloud.baremetal().nodes(&NodeFilter::default(), within(5))).unwrap();
    assert_eq!(nodes.len(), 7, "in pages of three");
    assert!(
        nodes
            .iter()
            .any(|node| node.name.as_deref() == Some("ipmi3") && node.traits.contains("CUSTOM_RACK_B"))
    );
    let filter = NodeFilter {
        provision_state: Some("available".to_owned()),
        resource_class: Some("bm.redfish".to_owned()),
        maintenance: Some(false),
        associated: Some(false),
        owner: None,
    };
    let free = plays!("nodes_free", |player, cloud| cloud.baremetal().nodes(&filter, within(5))).unwrap();
    assert!(free.iter().all(|node| node.provision_state == ProvisionState::Available));
    let node = plays!("node", |player, cloud| cloud.baremetal().node(&player.id("node"), within(5))).unwrap();
    assert_eq!((node.name.as_deref(), node.driver.as_str()), (Some("rf4"), "redfish"));
    assert_eq!(node.network_interface.as_deref(), Some("neutron"));
    let nobody = "00000000-0000-4000-8000-000000000000".parse().unwrap();
    let end = plays!("node_absent", |player, cloud| cloud.baremetal().node(&nobody, within(5)));
    assert_eq!(no(end).0, No::Absent);
}

#[tokio::test]
async fn what_belongs_to_a_node_is_read() {
    let ports = plays!("node_ports", |player, cloud| {
        let node: NodeUuid = player.id("node");
        async move { cloud.baremetal().ports(Some(&node), within(5)).await }
    });
    assert_eq!(ports.unwrap()[0].local_link_connection.switch_info.as_deref(), Some("sw0"));
    let groups = plays!("node_port_groups", |player, cloud| {
        let node: NodeUuid = player.id("node");
        async move { cloud.baremetal().port_groups(Some(&node), within(5)).await }
    });
    assert_eq!(groups.unwrap()[0].name.as_deref(), Some("bond-rf4"));
    let traits =
        plays!("node_traits", |player, cloud| cloud.baremetal().traits(&player.id("node"), within(5)));
    assert_eq!(traits.unwrap(), ["CUSTOM_RACK_A".to_owned()].into());
    let validation =
        plays!("node_validate", |player, cloud| cloud.baremetal().validate(&player.id("node"), within(5)));
    let unfit = validation.unwrap().unfit(&["power", "deploy", "nothing"]);
    assert!(unfit["deploy"].starts_with("Cannot validate image information"));
    assert_eq!(unfit["nothing"], "the node has no such interface");
    assert!(!unfit.contains_key("power"));
    let device =
        plays!("boot_device", |player, cloud| cloud.baremetal().boot_device(&player.id("node"), within(5)));
    assert_eq!(device.unwrap().device.as_deref(), Some("pxe"));
}

#[tokio::test]
async fn a_node_is_changed() {
    let pxe = BootDevice { device: Some("pxe".to_owned()), persistent: Some(false) };
    plays!("boot_device_set", |player, cloud| cloud.baremetal().set_boot_device(
        &player.id("node"),
        &pxe,
        &Leave,
        within(5)
    ))
    .unwrap();
    let reason = "ha-failover 7: token 4711";
    plays!("maintenance_set", |player, cloud| cloud.baremetal().set_maintenance(
        &player.id("node"),
        reason,
        &Leave,
        within(5)
    ))
    .unwrap();
    plays!("maintenance_cleared", |player, cloud| cloud.baremetal().clear_maintenance(
        &player.id("node"),
        &Leave,
        within(5)
    ))
    .unwrap();
    for (name, target) in [("power_on", PowerTarget::On), ("power_off", PowerTarget::Off)] {
        let player = Player::of(name).await;
        player.cloud().baremetal().set_power(&player.id("node"), target, &Leave, within(5)).await.unwrap();
        player.done();
    }
    let info = BTreeMap::from([("capabilities".to_owned(), json!({ "boot_option": "local" }))]);
    plays!("instance_info", |player, cloud| cloud.baremetal().set_instance(
        &player.id("node"),
        &info,
        &BTreeMap::new(),
        &Leave,
        within(5)
    ))
    .unwrap();
}

#[tokio::test]
async fn a_node_is_deployed_and_undeployed() {
    let drive = ConfigDrive {
        meta_data: [("name".to_owned(), json!("server-1"))].into(),
        network_data: BTreeMap::new(),
        user_data: Some("#cloud-config\n".to_owned()),
    };
    assert!(!format!("{drive:?}").contains("cloud-config"));
    for (name, target) in [
        ("provision_active", ProvisionTarget::Active(Some(drive))),
        ("provision_deleted", ProvisionTarget::Deleted),
    ] {
        let player = Player::of(name).await;
        player
            .cloud()
            .baremetal()
            .set_provision(&player.id("node"), &target, &Leave, within(5))
            .await
            .unwrap();
        player.done();
    }
    let end = plays!("provision_no_way", |player, cloud| cloud.baremetal().set_provision(
        &player.id("node"),
        &ProvisionTarget::Provide,
        &Leave,
        within(5)
    ));
    let (kind, why) = no(end);
    assert_eq!(kind, No::Other(400));
    assert!(why.contains("provide"), "{why}");
}

#[tokio::test]
async fn a_lock_is_waited_for_and_told() {
    let player = Player::of("locked_for_a_while").await;
    let (cloud, node) = (player.cloud(), player.id("node"));
    let reason = "ha-failover 7: token 4711";
    cloud.baremetal().set_maintenance(&node, reason, &Leave, within(60)).await.unwrap();
    player.done();

    // The next try would not be over by the deadline.
    let player = Player::of("locked").await;
    let (cloud, node) = (player.cloud(), player.id("node"));
    cloud.version(Service::Baremetal, within(60)).await.unwrap();
    player.slow(Duration::from_secs(100));
    let error = cloud.baremetal().set_maintenance(&node, "locked", &Leave, within(150)).await.unwrap_err();
    assert!(!error.may_have_happened());
    assert!(error.to_string().contains("is locked by host testbed-conductor"), "{error}");
    assert!(matches!(error, CallError::Locked { waited: policies::Millis(100_000..), .. }), "{error:?}");
    assert!(matches!(Refusal::from(error), Refusal::DeviceRefused(_)));
    player.done();
}

#[tokio::test]
async fn a_vif_is_attached_and_detached() {
    assert!(
        plays!("nic", |player, cloud| cloud.baremetal().has_nic(&player.id("nic"), within(5))).unwrap(),
        "it is there"
    );
    let bound =
        plays!("ports_bound", |player, cloud| cloud.network().bound_to(&player.id("node"), within(5)));
    assert_eq!(bound.unwrap().len(), 1);
    plays!("vif_attach", |player, cloud| cloud.baremetal().attach_vif(
        &player.id("node"),
        &player.id("port"),
        Some(&player.id("nic")),
        &Leave,
        within(5)
    ))
    .unwrap();
    let again = plays!("vif_attach_again", |player, cloud| cloud.baremetal().attach_vif(
        &player.id("node"),
        &player.id("port"),
        None,
        &Leave,
        within(5)
    ));
    let (kind, why) = no(again);
    assert_eq!(kind, No::Conflict);
    assert!(why.contains("is already attached to Ironic Port"), "{why}");
    let player = Player::of("vifs").await;
    let vifs = player.cloud().baremetal().vifs(&player.id("node"), within(5)).await.unwrap();
    assert_eq!(vifs, [player.id("port")].into());
    player.done();
    plays!("vif_detach", |player, cloud| cloud.baremetal().detach_vif(
        &player.id("node"),
        &player.id("port"),
        &Leave,
        within(5)
    ))
    .unwrap();
    let again = plays!("vif_detach_again", |player, cloud| cloud.baremetal().detach_vif(
        &player.id("node"),
        &player.id("port"),
        &Leave,
        within(5)
    ));
    assert_eq!(no(again).0, No::Other(400));
}

#[tokio::test]
async fn a_node_is_told_which_volumes_it_has() {
    let player = Player::of("volume_target_create").await;
    let wish = VolumeTargetWish {
        node_uuid: player.id("node"),
        volume_type: "iscsi".to_owned(),
        boot_index: 0,
        volume_id: player.id("volume"),
    };
    let made = player.cloud().baremetal().create_volume_target(&wish, &Leave, within(5)).await.unwrap();
    assert_eq!(made.volume_id, wish.volume_id);
    player.done();
    let player = Player::of("volume_targets").await;
    let node = player.id("node");
    assert_eq!(player.cloud().baremetal().volume_targets(Some(&node), within(5)).await.unwrap(), [made]);
    player.done();
    let end = plays!("volume_target_delete_on", |player, cloud| cloud.baremetal().delete_volume_target(
        &player.id("target"),
        &Leave,
        within(5)
    ));
    assert_eq!(no(end).0, No::Other(400));
    plays!("volume_target_delete", |player, cloud| cloud.baremetal().delete_volume_target(
        &player.id("target"),
        &Leave,
        within(5)
    ))
    .unwrap();

    let player = Player::of("volume_connector_create").await;
    let (node, iqn): (NodeUuid, String) = (player.id("node"), player.id("iqn"));
    let made =
        player.cloud().baremetal().create_volume_connector(&node, &iqn, &Leave, within(5)).await.unwrap();
    assert_eq!((made.kind.as_str(), &made.connector_id), ("iqn", &iqn));
    player.done();
    let player = Player::of("volume_connector_twice").await;
    let end = player.cloud().baremetal().create_volume_connector(&node, &iqn, &Leave, within(5)).await;
    assert_eq!(no(end).0, No::Conflict);
    player.done();
    let player = Player::of("volume_connectors").await;
    let read = player.cloud().baremetal().volume_connectors(Some(&node), within(5)).await.unwrap();
    assert!(read.contains(&made));
    player.done();
    plays!("volume_connector_delete", |player, cloud| cloud.baremetal().delete_volume_connector(
        &player.id("connector"),
        &Leave,
        within(5)
    ))
    .unwrap();
}

#[tokio::test]
async fn a_spare_is_claimed_once() {
    let player = Player::of("allocation_create").await;
    let wish = AllocationWish {
        uuid: None,
        name: player.id("allocation"),
        resource_class: "bm.ipmi".to_owned(),
        traits: BTreeSet::new(),
        candidate_nodes: vec![player.id("node")],
        extra: [("epoch".to_owned(), json!(7))].into(),
    };
    let made = player.cloud().baremetal().create_allocation(&wish, &Leave, within(5)).await.unwrap();
    assert_eq!((&made.state, made.name.as_ref()), (&AllocationState::Allocating, Some(&wish.name)));
    player.done();
    let player = Player::of("allocation_twice").await;
    let end = player.cloud().baremetal().create_allocation(&wish, &Leave, within(5)).await;
    assert_eq!(no(end).0, No::Conflict);
    player.done();
    let player = Player::of("allocation").await;
    let read = player.cloud().baremetal().allocation(&wish.name, within(5)).await.unwrap();
    assert_eq!((read.state, read.node_uuid), (AllocationState::Active, Some(player.id("node"))));
    player.done();
    let lost = plays!("allocation_lost", |player, cloud| cloud
        .baremetal()
        .allocation(&player.id("allocation"), within(5)));
    let lost = lost.unwrap();
    assert_eq!((lost.state, lost.node_uuid), (AllocationState::Error, None));
    assert!(lost.last_error.unwrap().contains("none of the requested nodes are available"));
    plays!("allocation_delete", |player, cloud| cloud.baremetal().delete_allocation(
        &player.id("allocation"),
        &Leave,
        within(5)
    ))
    .unwrap();
}

// ---- Neutron

#[tokio::test]
async fn a_port_is_changed_by_who_has_seen_it_last() {
    let port = plays!("port", |player, cloud| cloud.network().port(&player.id("port"), within(5))).unwrap();
    assert_eq!((port.status.as_str(), port.vif_type.as_deref()), ("DOWN", Some("unbound")));
    assert_eq!(port.fixed_ips.len(), 1);
    let bound =
        plays!("port_bound", |player, cloud| cloud.network().port(&player.id("port"), within(5))).unwrap();
    assert!(bound.host_id.is_some_and(|host| host.parse::<NodeUuid>().is_ok()));
    let description = Some("ha token 4711".to_owned());
    let change = PortChange { admin_state_up: Some(false), description, ..PortChange::default() };
    let changed = plays!("port_update", |player, cloud| cloud.network().update_port(
        &port.id,
        &change,
        port.revision_number,
        &Leave,
        within(5)
    ));
    assert!(changed.unwrap().revision_number > port.revision_number);
    let stale = plays!("port_update_stale", |player, cloud| cloud.network().update_port(
        &port.id,
        &change,
        port.revision_number,
        &Leave,
        within(5)
    ));
    assert_eq!(no(stale).0, No::Stale);
    let end = plays!("port_absent", |player, cloud| cloud.network().port(&player.id("port"), within(5)));
    assert!(end.unwrap_err().is_absent());
}

// ---- Cinder

#[tokio::test]
async fn a_volume_is_attached() {
    let volume =
        plays!("volume", |player, cloud| cloud.volumes().volume(&player.id("volume"), within(5))).unwrap();
    assert_eq!((volume.status, volume.size), (VolumeState::Available, 1));
    let instance = "6f2b7d39-2f0e-4f6c-9f3b-6a2b3c4d5e6f";
    let made = plays!("attachment_create", |player, cloud| cloud.volumes().create_attachment(
        &player.id("volume"),
        Some(instance),
        None,
        &Leave,
        within(5)
    ));
    assert_eq!(made.unwrap().status, AttachmentState::Reserved);
    let connected = plays!("attachment_update", |player, cloud| cloud.volumes().update_attachment(
        &player.id("attachment"),
        &connector("n4"),
        &Leave,
        within(5)
    ));
    let target = connected.unwrap().target.unwrap();
    assert_eq!((target.lun, target.iqn.starts_with("iqn.2010-10.org.openstack:")), (1, true));
    plays!("attachment_complete", |player, cloud| cloud.volumes().complete_attachment(
        &player.id("attachment"),
        &Leave,
        within(5)
    ))
    .unwrap();
    let read =
        plays!("attachment", |player, cloud| cloud.volumes().attachment(&player.id("attachment"), within(5)));
    assert_eq!(read.unwrap().status, AttachmentState::Attached);
    let player = Player::of("attachments").await;
    let list = player.cloud().volumes().attachments(&player.id("volume"), within(5)).await.unwrap();
    assert_eq!(list.iter().map(|it| it.id.clone()).collect::<Vec<_>>(), [player.id("attachment")]);
    player.done();
    let second = plays!("attachment_second", |player, cloud| cloud.volumes().create_attachment(
        &player.id("volume"),
        None,
        Some(&connector("n5")),
        &Leave,
        within(5)
    ));
    let (kind, why) = no(second);
    assert_eq!(kind, No::Other(400));
    assert!(why.contains("in-use"), "{why}");
    let made = plays!("attachment_create_connected", |player, cloud| cloud.volumes().create_attachment(
        &player.id("volume"),
        None,
        Some(&connector("n5")),
        &Leave,
        within(5)
    ));
    assert!(made.unwrap().target.is_some());
}

#[tokio::test]
async fn a_volume_is_taken_away() {
    // The recording says that a service token was sent, which only Cinder is given, and only here.
    assert!(Transcript::read("attachment_delete").exchanges[0].ask.as_service);
    plays!("attachment_delete", |player, cloud| cloud.volumes().delete_attachment(
        &player.id("attachment"),
        &Leave,
        within(5)
    ))
    .unwrap();
    let gone = plays!("attachment_absent", |player, cloud| cloud
        .volumes()
        .attachment(&player.id("attachment"), within(5)));
    assert!(gone.unwrap_err().is_absent());
    plays!("connection_end", |player, cloud| cloud.volumes().end_connection(
        &player.id("volume"),
        &peer(&player.id("node")),
        &Leave,
        within(5)
    ))
    .unwrap();
}

#[tokio::test]
async fn a_snapshot_is_made_and_deleted() {
    let made = plays!("snapshot_create", |player, cloud| cloud.volumes().create_snapshot(
        &player.id("volume"),
        "ha-f7",
        false,
        &Leave,
        within(5)
    ));
    assert_eq!(made.unwrap().status, SnapshotState::Creating);
    let list =
        plays!("snapshots", |player, cloud| cloud.volumes().snapshots(&player.id("volume"), within(5)))
            .unwrap();
    assert_eq!((list[0].name.as_deref(), &list[0].status), (Some("ha-f7"), &SnapshotState::Available));
    plays!("snapshot_delete", |player, cloud| cloud.volumes().delete_snapshot(
        &player.id("snapshot"),
        &Leave,
        within(5)
    ))
    .unwrap();
}
