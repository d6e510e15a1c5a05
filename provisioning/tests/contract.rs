//! The contract of all providers, as one table, against a device that lies.
//!
//! What this is: what must come out when the device obeys, hangs, lies, refuses, has seen a newer token, or when the
//! lease ends; each row for each kind of change.
//! Why it exists: a new provider adds a device here and inherits every row.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test support"
)]

mod device;

use device::{Device, Face, Script, cloud};
use policies::{
    Action, BackupId, Boot, Check, CloudAccess, CloudInterface, CloudNode, CloudUser, Deployment, Doubt,
    Effect, Epoch, Finding, LogIndex, NodeId, Outcome, Permit, PlanId, ProviderId, ProviderKind, Refusal,
    Sealed, Seen, SnapshotName, SwitchPort, Volume, VolumeId,
};
use provisioning::{Backend, Provider, Stage, Us, Wish, carry_out, check};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

const INITIATOR: &str = "iqn.n1";

/// Long enough for a loaded machine; only rows that wait for it in vain take this long.
const PATIENCE: Duration = Duration::from_secs(20);
/// For rows in which the deadline passes by design.
const SHORT: Duration = Duration::from_millis(300);
/// The same where each question is a process of its own, or several requests.
const SHORT_OF_A_PROCESS: Duration = Duration::from_secs(4);

fn short(face: Face) -> Duration {
    match face {
        Face::Rack | Face::Ovsdb | Face::Iscsi => SHORT,
        Face::Exec | Face::Cloud => SHORT_OF_A_PROCESS,
    }
}

struct Always;

impl Permit for Always {
    fn check(&self) -> Result<(), Refusal> {
        Ok(())
    }

    fn token(&self) -> policies::LogIndex {
        policies::LogIndex(7)
    }
}

/// A lease that ends after it was asked this often.
struct Lease(AtomicUsize);

impl Permit for Lease {
    fn check(&self) -> Result<(), Refusal> {
        let left = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.map(|_| ()).map_err(|_| Refusal::LeaseEnded)
    }

    fn token(&self) -> policies::LogIndex {
        policies::LogIndex(7)
    }
}

/// Each kind of change that each provider can make.
fn cases() -> Vec<(Face, Action)> {
    let by =
        |face, can: fn(&Action) -> bool| actions().into_iter().filter(can).map(move |action| (face, action));
    let switches = |action: &Action| matches!(action, Action::ClosePort { .. } | Action::OpenPort { .. });
    let stores = |action: &Action| {
        matches!(action, Action::Revoke { .. } | Action::Snapshot { .. } | Action::Attach { .. })
    };
    let all = by(Face::Rack, |_| true).chain(by(Face::Ovsdb, switches)).chain(by(Face::Exec, |_| true));
    let all = all.chain(by(Face::Iscsi, stores));
    all.chain(cloud_actions().into_iter().map(|action| (Face::Cloud, action))).collect()
}

/// Runs each row, a few at a time: where a deadline passes by design, waiting is most of it.
async fn each_row(row: impl AsyncFn(Face, Action)) {
    let lane = async |number| {
        for (face, action) in cases().into_iter().skip(number).step_by(6) {
            row(face, action).await;
        }
    };
    tokio::join!(lane(0), lane(1), lane(2), lane(3), lane(4), lane(5));
}

/// The name by which the device knows the node.
fn known_as(face: Face, action: &Action) -> &'static str {
    match face {
        Face::Rack | Face::Ovsdb | Face::Exec | Face::Iscsi => INITIATOR,
        Face::Cloud if matches!(action, Action::Clean { .. }) => cloud::FENCED,
        Face::Cloud => cloud::NODE,
    }
}

fn cloud_kind(url: &str) -> ProviderKind {
    let user = CloudUser::ApplicationCredential { id: "credential".to_owned() };
    let (keystone, interface) = (format!("{url}/v3"), CloudInterface::Public);
    let cloud = CloudAccess { keystone, ca: None, region: None, interface, user };
    let instance_info = [("boot_iso".to_owned(), "http://images/{instance}.iso".to_owned())].into();
    let deployments = [("golden".to_owned(), Deployment { instance_info, user_data: None })].into();
    ProviderKind::Openstack { cloud, secret: Sealed("sealed:".to_owned()), deployments }
}

fn cloud_actions() -> Vec<Action> {
    let (port, vif) = (cloud::NIC.to_owned(), cloud::LOOSE.to_owned());
    let (node, provider): (NodeId, ProviderId) = ("n1".parse().unwrap(), "cloud".parse().unwrap());
    let open = Action::AttachVif { node: node.clone(), provider: provider.clone(), port, vif };
    let mut actions = one_of_each("cloud", [cloud::HELD, cloud::FREE], cloud::NIC, open);
    actions.push(Action::Clean { node: node.clone(), provider: provider.clone() });
    actions.push(Action::Claim { node, provider });
    actions
}

fn exec_kind() -> ProviderKind {
    let settings = [("place".to_owned(), "hall 3".to_owned())].into();
    let secret = Some(Sealed("sealed:".to_owned()));
    ProviderKind::Exec { program: "device".parse().unwrap(), settings, secret }
}

fn iscsi_kind(url: &str, ca: Option<&str>) -> ProviderKind {
    let (ca, token) = (ca.map(str::to_owned), Sealed("sealed:".to_owned()));
    ProviderKind::Iscsi { url: url.to_owned(), ca, token }
}

fn actions() -> Vec<Action> {
    let open = Action::OpenPort {
        node: "n1".parse().unwrap(),
        provider: "rack".parse().unwrap(),
        port: "sw1/4".to_owned(),
        vlan: 100,
        tagged: [200, 300].into(),
        mac: Some("02:00:00:00:00:01".to_owned()),
    };
    one_of_each("rack", ["v1", "v2"], "sw1/3", open)
}

/// One of each kind of change, none of which is there yet at the device: n1 has the first volume and is behind the port. The
/// last is a backup of the volume that n1 has.
fn one_of_each(provider: &str, [held, free]: [&str; 2], port: &str, open: Action) -> Vec<Action> {
    let (node, provider): (NodeId, ProviderId) = ("n1".parse().unwrap(), provider.parse().unwrap());
    let (held, free): (VolumeId, VolumeId) = (held.parse().unwrap(), free.parse().unwrap());
    vec![
        Action::Revoke { node: node.clone(), provider: provider.clone(), volume: held.clone() },
        Action::ClosePort { node: node.clone(), provider: provider.clone(), port: port.to_owned() },
        Action::Attach { node: node.clone(), provider: provider.clone(), volume: free.clone(), index: 0 },
        open,
        Action::Snapshot {
            node: node.clone(),
            provider: provider.clone(),
            volume: free,
            name: SnapshotName::Failover(PlanId(7)),
            keep: 2,
        },
        Action::SetBoot {
            node: node.clone(),
            provider: provider.clone(),
            instance: "web".parse().unwrap(),
            image: "golden".to_owned(),
            epoch: Epoch(2),
        },
        Action::Snapshot { node, provider, volume: held, name: SnapshotName::Backup(BackupId(7)), keep: 2 },
    ]
}

fn effect(action: &Action, token: u64) -> Effect {
    Effect { token: LogIndex(token), plan: Some(PlanId(1)), action: action.clone() }
}

fn backend(device: &Device) -> Backend {
    let kind = match device.face() {
        Face::Rack => ProviderKind::Rack { url: device.url(), token: Sealed("sealed:".to_owned()) },
        Face::Ovsdb => ProviderKind::Ovsdb { url: device.url(), park_vlan: 4000, tls: None },
        Face::Exec => exec_kind(),
        Face::Iscsi => iscsi_kind(&device.url(), None),
        Face::Cloud => cloud_kind(&device.url()),
    };
    Backend::from_config(&kind, b"token", Us { cluster: "c1", programs: &device.programs() }).unwrap()
}

async fn run(device: &Device, action: &Action, token: u64, permit: &dyn Permit, time: Duration) -> Outcome {
    let (effect, known_as) = (effect(action, token), known_as(device.face(), action));
    carry_out(&backend(device), &effect, Some(known_as), permit, Instant::now() + time).await
}

fn is_done(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Done(Seen::ReadBack(_)))
}

#[tokio::test]
async fn acting_twice_is_acting_once() {
    for (face, action) in cases() {
        let device = Device::start(face, Script::Obey).await;
        assert!(is_done(&run(&device, &action, 7, &Always, PATIENCE).await), "{action}");
        assert!(is_done(&run(&device, &action, 7, &Always, PATIENCE).await), "{action}");
        assert_eq!(device.changes(), 1, "{action}: the second time it was seen to be there");
    }
}

#[tokio::test]
async fn looking_changes_nothing() {
    for (face, action) in cases() {
        let device = Device::start(face, Script::Obey).await;
        let wish = Wish::new(&action, Some(known_as(face, &action))).unwrap();
        let state = backend(&device).look(&wish, Instant::now() + PATIENCE).await.unwrap();
        assert!(state.stage != Stage::There, "{action}");
        assert_eq!(device.changes(), 0, "{action}");
    }
}

#[tokio::test]
async fn an_older_token_is_refused() {
    // A cloud's services take no tokens: what they compare is revisions, and who has a volume.
    for (face, action) in cases().into_iter().filter(|(face, _)| *face != Face::Cloud) {
        let device = Device::start(face, Script::SeenToken(LogIndex(9))).await;
        let old = Refusal::TokenTooOld { ours: LogIndex(8), newest: LogIndex(9) };
        assert_eq!(run(&device, &action, 8, &Always, PATIENCE).await, Outcome::Refused(old), "{action}");
        assert!(
            is_done(&run(&device, &action, 9, &Always, PATIENCE).await),
            "{action}: the same token passes"
        );
    }
}

#[tokio::test]
async fn a_device_that_hangs_after_the_request_leaves_doubt() {
    each_row(async |face, action| {
        let device = Device::start(face, Script::HangOnChange).await;
        let outcome = run(&device, &action, 7, &Always, short(face)).await;
        assert!(matches!(outcome, Outcome::Unknown(Doubt::NoAnswer { .. })), "{action}: {outcome:?}");
        assert_eq!(device.changes(), 1, "{action}: it was asked");
    })
    .await;
}

#[tokio::test]
async fn a_change_whose_answer_was_lost_is_found_by_looking() {
    for (face, action) in cases() {
        let device = Device::start(face, Script::ObeyAndDropTheConnection).await;
        assert!(is_done(&run(&device, &action, 7, &Always, PATIENCE).await), "{action}");
        assert_eq!(device.changes(), 1, "{action}: nothing sends it again by itself");
    }
}

#[tokio::test]
async fn a_deployment_that_a_cloud_has_lost_is_told_long_before_the_time_is_over() {
    let mut actions = cloud_actions().into_iter();
    let deploys = actions.find(|action| matches!(action, Action::SetBoot { .. })).unwrap();
    let device = Device::start(Face::Cloud, Script::Lose).await;
    match run(&device, &deploys, 7, &Always, PATIENCE * 100).await {
        Outcome::Unknown(Doubt::NoAnswer { waited }) => {
            assert!(u128::from(waited.0) < (PATIENCE * 10).as_millis(), "{waited}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(device.changes(), 1, "nothing sends it again by itself");
}

#[tokio::test]
async fn a_fenced_node_that_its_cloud_has_noted_as_on_is_switched_off_before_it_is_cleaned() {
    let mut actions = cloud_actions().into_iter();
    let cleans = actions.find(|action| matches!(action, Action::Clean { .. })).unwrap();
    let device = Device::start(Face::Cloud, Script::ForgotToSwitchOff).await;
    assert!(is_done(&run(&device, &cleans, 7, &Always, PATIENCE).await));
}

#[tokio::test]
async fn a_device_that_hangs_from_the_beginning_was_asked_to_change_nothing() {
    each_row(async |face, action| {
        let device = Device::start(face, Script::HangOnLook).await;
        let outcome = run(&device, &action, 7, &Always, short(face)).await;
        assert!(matches!(outcome, Outcome::Refused(Refusal::Unreachable(_))), "{action}: {outcome:?}");
        assert_eq!(device.changes(), 0, "{action}");
    })
    .await;
}

#[tokio::test]
async fn an_acknowledgement_is_no_proof() {
    each_row(async |face, action| {
        let device = Device::start(face, Script::Lie).await;
        let outcome = run(&device, &action, 7, &Always, short(face)).await;
        assert!(matches!(outcome, Outcome::Unknown(Doubt::NotSeen { .. })), "{action}: {outcome:?}");
    })
    .await;
}

#[tokio::test]
async fn a_change_that_takes_its_time_is_waited_for() {
    for (face, action) in cases() {
        let device = Device::start(face, Script::ObeyAfterLooks(5)).await;
        assert!(is_done(&run(&device, &action, 7, &Always, PATIENCE).await), "{action}");
    }
}

#[tokio::test]
async fn a_refusal_is_a_refusal_and_an_internal_error_is_doubt() {
    each_row(async |face, action| {
        let device = Device::start(face, Script::Answer(403)).await;
        let outcome = run(&device, &action, 7, &Always, PATIENCE).await;
        let is_no = |why: &Refusal| matches!(why, Refusal::DeviceRefused(_) | Refusal::NotAdmitted(_));
        assert!(matches!(&outcome, Outcome::Refused(why) if is_no(why)), "{action}: {outcome:?}");
        let device = Device::start(face, Script::Answer(500)).await;
        let outcome = run(&device, &action, 7, &Always, short(face)).await;
        assert!(matches!(outcome, Outcome::Unknown(Doubt::NoAnswer { .. })), "{action}: {outcome:?}");
    })
    .await;
}

#[tokio::test]
async fn the_lease_is_asked_at_the_start_and_right_before_sending() {
    for (face, action) in cases() {
        for asked in [0, 1] {
            let device = Device::start(face, Script::Obey).await;
            let lease = Lease(AtomicUsize::new(asked));
            let outcome = run(&device, &action, 7, &lease, PATIENCE).await;
            assert_eq!(outcome, Outcome::Refused(Refusal::LeaseEnded), "{action}");
            assert_eq!(device.changes(), 0, "{action}");
            assert_eq!(device.looks() == 0, asked == 0, "{action}: at the start not even a look");
        }
    }
}

#[tokio::test]
async fn nobody_at_the_address_means_that_nothing_happened() {
    for (face, action) in cases() {
        let device = Device::gone(face).await;
        let outcome = run(&device, &action, 7, &Always, PATIENCE).await;
        assert!(
            matches!(outcome, Outcome::Refused(Refusal::Unreachable(_) | Refusal::NotConfigured(_))),
            "{action}: {outcome:?}"
        );
    }
}

#[tokio::test]
async fn garbage_for_an_answer_proves_nothing() {
    for (face, action) in cases() {
        let device = Device::start(face, Script::Garbage).await;
        let outcome = run(&device, &action, 7, &Always, PATIENCE).await;
        assert!(matches!(outcome, Outcome::Refused(Refusal::Unreachable(_))), "{action}: {outcome:?}");
        assert_eq!(device.changes(), 0, "{action}: what cannot be read is not changed");
    }
}

#[tokio::test]
async fn a_volume_that_another_holds_is_neither_kept_nor_attached() {
    for face in [Face::Rack, Face::Iscsi] {
        let device = Device::start(face, Script::HeldByOther).await;
        for action in [actions().remove(2), actions().remove(4)] {
            let held = Refusal::HeldByOther("iqn.n9".to_owned());
            assert_eq!(run(&device, &action, 7, &Always, PATIENCE).await, Outcome::Refused(held), "{action}");
        }
    }
}

#[tokio::test]
async fn a_cloud_takes_nothing_from_anybody_but_the_node() {
    let device = Device::start(Face::Cloud, Script::HeldByOther).await;
    let actions = cloud_actions();
    let [_, _, attach, vif, snapshot, ..] = actions.as_slice() else { panic!("{actions:?}") };
    for action in [attach, vif, snapshot] {
        let outcome = run(&device, action, 7, &Always, PATIENCE).await;
        let Outcome::Refused(Refusal::HeldByOther(who)) = &outcome else { panic!("{action}: {outcome:?}") };
        assert!(who.contains(cloud::OTHER), "{who}");
    }
    let claimed = Outcome::Refused(Refusal::HeldByOther(format!(
        "whoever claimed it in Ironic (instance_uuid {})",
        cloud::OTHER
    )));
    for action in [&actions[5], &actions[8]] {
        assert_eq!(run(&device, action, 7, &Always, PATIENCE).await, claimed, "{action}");
    }
    // Nor does a revocation that comes late, when another has the volume.
    let free = cloud::FREE.parse().unwrap();
    let revoke =
        Action::Revoke { node: "n1".parse().unwrap(), provider: "cloud".parse().unwrap(), volume: free };
    let outcome = run(&device, &revoke, 7, &Always, PATIENCE).await;
    assert!(matches!(&outcome, Outcome::Refused(Refusal::HeldByOther(_))), "{outcome:?}");
    assert_eq!(device.changes(), 0);
}

/// Ironic unbinds what it notes, whoever has it by then.
#[tokio::test]
async fn nobody_gets_a_port_that_ironic_still_notes_for_a_locked_node() {
    let device = Device::start(Face::Cloud, Script::KeepSessions).await;
    let vif = cloud_actions().remove(3);
    let outcome = run(&device, &vif, 7, &Always, PATIENCE).await;
    let Outcome::Refused(Refusal::DeviceRefused(why)) = &outcome else { panic!("{outcome:?}") };
    assert!(why.contains(cloud::OTHER) && why.contains("is locked by conductor-1"), "{why}");
    assert_eq!(device.changes(), 0);
}

/// Until the new one is there the older ones may be the last.
#[tokio::test]
async fn what_a_cloud_could_not_make_is_refused_and_leaves_nothing() {
    for action in [cloud_actions().remove(4), cloud_actions().remove(6)] {
        let device = Device::start(Face::Cloud, Script::Fails).await;
        let outcome = run(&device, &action, 7, &Always, PATIENCE).await;
        let Outcome::Refused(Refusal::DeviceRefused(why)) = &outcome else { panic!("{action}: {outcome:?}") };
        assert!(why.contains("error"), "{why}");
        let wish = Wish::new(&action, Some(cloud::NODE)).unwrap();
        let state = backend(&device).look(&wish, Instant::now() + PATIENCE).await.unwrap();
        assert_eq!(state.reading, "", "{action}");
    }
}

#[tokio::test]
async fn a_claim_that_came_too_late_is_refused_and_not_in_the_way() {
    let (device, claim) = (Device::start(Face::Cloud, Script::Fails).await, cloud_actions().remove(8));
    for _ in 0..2 {
        let why = "it could not be claimed: none of the requested nodes are available".to_owned();
        let outcome = run(&device, &claim, 7, &Always, PATIENCE).await;
        assert_eq!(outcome, Outcome::Refused(Refusal::DeviceRefused(why)));
    }
    assert_eq!(device.changes(), 2, "the second one was asked for anew");
}

#[tokio::test]
async fn a_backup_is_made_of_a_volume_that_somebody_has() {
    for face in [Face::Iscsi, Face::Cloud] {
        let device = Device::start(face, Script::HeldByOther).await;
        let backup = if face == Face::Cloud { cloud_actions() } else { actions() }.remove(6);
        // The storage host says itself whether it can.
        let outcome = run(&device, &backup, 7, &Always, PATIENCE).await;
        assert_eq!(is_done(&outcome), face == Face::Cloud, "{outcome:?}");
    }
    let told = Device::start(Face::Exec, Script::Obey).await;
    assert!(is_done(&run(&told, &actions().remove(6), 7, &Always, PATIENCE).await));
    let wish = r#""wish":{"want":"backup","volume":"v1","name":"ha-b7","keep":2}"#;
    assert!(told.told().contains(wish), "not the wish that a program knows that copies: {}", told.told());
}

#[tokio::test]
async fn a_cloud_says_what_it_has() {
    let provider = || "cloud".parse::<ProviderId>().unwrap();
    let free = |node: &str| Check::Free(CloudNode { provider: provider(), node: node.to_owned() });
    let checks = [
        Check::Port(SwitchPort { provider: provider(), port: cloud::NIC.to_owned() }),
        Check::Volume(Volume { provider: provider(), volume: cloud::HELD.parse().unwrap() }),
        free(cloud::NODE),
        Check::Boot(Boot { provider: provider(), image: "golden".to_owned() }),
    ];
    let device = Device::start(Face::Cloud, Script::Obey).await;
    assert_eq!(found(&device, &free(cloud::NODE), PATIENCE).await, Finding::Unclaimed);
    assert!(is_done(&run(&device, &cloud_actions().remove(8), 7, &Always, PATIENCE).await));
    for asked in &checks {
        assert_eq!(found(&device, asked, PATIENCE).await, Finding::Fine, "{asked}");
    }
    let used = found(&device, &free(cloud::FENCED), PATIENCE).await;
    assert_eq!(used, Finding::Faulty("it is Active, in maintenance".to_owned()));
    let device = Device::start(Face::Cloud, Script::HasNothing).await;
    for asked in &checks[..3] {
        let finding = found(&device, asked, PATIENCE).await;
        assert!(matches!(finding, Finding::Absent(_)), "{asked}: {finding:?}");
    }
    let unknown = Check::Boot(Boot { provider: provider(), image: "silver".to_owned() });
    assert_eq!(
        found(&device, &unknown, PATIENCE).await,
        Finding::Absent("no deployment is called silver".to_owned())
    );
}

#[tokio::test]
async fn a_live_session_without_a_right_is_not_revoked() {
    for face in [Face::Rack, Face::Iscsi] {
        let device = Device::start(face, Script::KeepSessions).await;
        let outcome = run(&device, &actions()[0], 7, &Always, SHORT).await;
        assert!(matches!(outcome, Outcome::Unknown(Doubt::NotSeen { .. })), "{outcome:?}");
    }
}

/// One object of each kind.
fn checks() -> [Check; 5] {
    let provider = || "rack".parse::<ProviderId>().unwrap();
    [
        Check::Port(SwitchPort { provider: provider(), port: "sw1/3".to_owned() }),
        Check::Volume(Volume { provider: provider(), volume: "v1".parse().unwrap() }),
        Check::Boot(Boot { provider: provider(), image: "golden".to_owned() }),
        Check::Snapshot(Volume { provider: provider(), volume: "v1".parse().unwrap() }),
        Check::Backup(Volume { provider: provider(), volume: "v1".parse().unwrap() }),
    ]
}

async fn found(device: &Device, asked: &Check, time: Duration) -> Finding {
    check(&backend(device), asked, Instant::now() + time).await
}

#[tokio::test]
async fn what_is_there_is_fine_and_asking_changes_nothing() {
    let device = Device::start(Face::Rack, Script::Obey).await;
    for asked in checks() {
        assert_eq!(found(&device, &asked, PATIENCE).await, Finding::Fine, "{asked}");
    }
    assert_eq!(device.changes(), 0);
}

#[tokio::test]
async fn what_the_provider_says_is_not_there_is_certainly_not() {
    let device = Device::start(Face::Rack, Script::HasNothing).await;
    for (asked, name) in checks().iter().zip(["sw1%2F3", "v1", "golden", "v1", "v1"]) {
        let absent = Finding::Absent(format!("there is no {name}"));
        assert_eq!(found(&device, asked, PATIENCE).await, absent, "{asked}");
    }
}

#[tokio::test]
async fn a_port_without_a_link_does_not_work() {
    let device = Device::start(Face::Rack, Script::NoLink).await;
    let [port, volume, image, snapshot, backup] = checks();
    assert_eq!(found(&device, &port, PATIENCE).await, Finding::Faulty("it has no link".to_owned()));
    for asked in [volume, image, snapshot, backup] {
        assert_eq!(found(&device, &asked, PATIENCE).await, Finding::Fine, "{asked}");
    }
}

#[tokio::test]
async fn without_an_answer_that_says_yes_or_no_nobody_can_tell() {
    for asked in checks() {
        for script in
            [Script::Garbage, Script::LookAnswers(404), Script::LookAnswers(401), Script::LookAnswers(500)]
        {
            let finding = found(&Device::start(Face::Rack, script).await, &asked, PATIENCE).await;
            assert!(matches!(finding, Finding::CannotTell(_)), "{asked}, {script:?}: {finding:?}");
        }
        let finding = found(&Device::start(Face::Rack, Script::HangOnLook).await, &asked, SHORT).await;
        assert!(
            matches!(&finding, Finding::CannotTell(why) if why.contains("no answer")),
            "{asked}: {finding:?}"
        );
        let finding = found(&Device::gone(Face::Rack).await, &asked, PATIENCE).await;
        assert!(
            matches!(&finding, Finding::CannotTell(why) if why.contains("connect")),
            "{asked}: {finding:?}"
        );
    }
}

#[test]
fn unusable_configuration_is_refused_and_the_token_is_never_shown() {
    let kind = |url: &str| ProviderKind::Rack { url: url.to_owned(), token: Sealed(String::new()) };
    for url in ["", "127.0.0.1:1", "https://127.0.0.1:1", "ftp://x", "unix:/x"] {
        assert!(Backend::from_config(&kind(url), b"token", Us::nobody()).is_err(), "{url}");
    }
    let backend = Backend::from_config(&kind("http://127.0.0.1:1"), b"sesame", Us::nobody()).unwrap();
    assert!(!format!("{backend:?}").contains("sesame"));
    let error = Backend::from_config(&kind("http://127.0.0.1:1"), &[0xff, 0xfe], Us::nobody()).unwrap_err();
    assert!(error.to_string().contains("not a text"));
}

#[tokio::test]
async fn a_storage_host_is_asked_for_volumes_only_and_trusted_by_its_authority_only() {
    let device = Device::start(Face::Iscsi, Script::Obey).await;
    let [port, volume, image, snapshot, backup] = checks();
    for asked in [volume, snapshot, backup] {
        assert_eq!(found(&device, &asked, PATIENCE).await, Finding::Fine, "{asked}");
    }
    for asked in [port, image] {
        assert!(matches!(found(&device, &asked, PATIENCE).await, Finding::CannotTell(_)), "{asked}");
    }
    let close = &actions()[1];
    let outcome = run(&device, close, 7, &Always, PATIENCE).await;
    assert!(matches!(outcome, Outcome::Refused(Refusal::NotConfigured(_))), "{outcome:?}");
    let absent = Device::start(Face::Iscsi, Script::HasNothing).await;
    assert_eq!(found(&absent, &volume_check(), PATIENCE).await, Finding::Absent("there is no v1".to_owned()));
    for (url, ca) in [
        ("http://10.0.0.1:1", None),
        ("https://10.0.0.1:1", None),
        ("https://10.0.0.1:1", Some("no certificate")),
        ("http://127.0.0.1:1", Some("no certificate")),
        ("tcp://127.0.0.1:1", None),
    ] {
        assert!(Backend::from_config(&iscsi_kind(url, ca), b"token", Us::nobody()).is_err(), "{url}");
    }
    let backend = Backend::from_config(&iscsi_kind("http://127.0.0.1:1", None), b"sesame", Us::nobody());
    assert!(!format!("{backend:?}").contains("sesame"));
}

fn volume_check() -> Check {
    let [_, volume, _, _, _] = checks();
    volume
}

/// The two ports of a switch, and the words that its database has for them.
fn switch_actions() -> impl Iterator<Item = Action> {
    cases().into_iter().filter(|(face, _)| *face == Face::Ovsdb).map(|(_, action)| action)
}

#[tokio::test]
async fn what_the_switch_has_not_taken_over_is_not_there() {
    for action in switch_actions() {
        let device = Device::start(Face::Ovsdb, Script::NeverApply).await;
        let outcome = run(&device, &action, 7, &Always, SHORT).await;
        let Outcome::Unknown(Doubt::NotSeen { last, .. }) = &outcome else { panic!("{outcome:?}") };
        assert!(last.ends_with("not yet taken over by the switch"), "{last}");
    }
}

#[tokio::test]
async fn a_row_that_somebody_else_changed_meanwhile_is_left_alone() {
    for action in switch_actions() {
        let device = Device::start(Face::Ovsdb, Script::ChangedMeanwhile).await;
        let outcome = run(&device, &action, 7, &Always, PATIENCE).await;
        assert!(matches!(outcome, Outcome::Refused(Refusal::DeviceRefused(_))), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_switch_is_asked_beforehand_for_its_ports_only() {
    let device = Device::start(Face::Ovsdb, Script::Obey).await;
    let [port, volume, image, snapshot, backup] = checks();
    assert_eq!(found(&device, &port, PATIENCE).await, Finding::Fine);
    let gone = SwitchPort { provider: "sw".parse().unwrap(), port: "sw1/9".to_owned() };
    let absent = Finding::Absent("the switch has no port sw1/9".to_owned());
    assert_eq!(found(&device, &Check::Port(gone), PATIENCE).await, absent);
    for asked in [volume, image, snapshot, backup] {
        assert!(matches!(found(&device, &asked, PATIENCE).await, Finding::CannotTell(_)), "{asked}");
    }
    let finding = found(&Device::gone(Face::Ovsdb).await, &port, PATIENCE).await;
    assert!(matches!(finding, Finding::CannotTell(_)), "{finding:?}");
}

#[tokio::test]
async fn a_port_that_is_not_there_is_named() {
    let port = "sw1/9".to_owned();
    let close = Action::ClosePort { node: "n1".parse().unwrap(), provider: "sw".parse().unwrap(), port };
    let device = Device::start(Face::Ovsdb, Script::Obey).await;
    let missing = Refusal::NotConfigured("the switch has no port sw1/9".to_owned());
    assert_eq!(run(&device, &close, 7, &Always, PATIENCE).await, Outcome::Refused(missing));
}

#[tokio::test]
async fn an_answer_without_an_end_is_not_kept() {
    for action in switch_actions() {
        let device = Device::start(Face::Ovsdb, Script::Flood).await;
        let outcome = run(&device, &action, 7, &Always, PATIENCE).await;
        assert!(
            matches!(&outcome, Outcome::Refused(Refusal::Unreachable(why)) if why.contains("longer than")),
            "{outcome:?}"
        );
    }
}

#[tokio::test]
async fn nothing_is_opened_into_the_park_vlan_and_keys_are_never_shown() {
    let kind = ProviderKind::Ovsdb { url: "tcp://127.0.0.1:1".to_owned(), park_vlan: 100, tls: None };
    let backend = Backend::from_config(&kind, b"sesame", Us::nobody()).unwrap();
    assert!(!format!("{backend:?}").contains("sesame"));
    let open = actions().remove(3);
    let outcome = carry_out(&backend, &effect(&open, 7), None, &Always, Instant::now() + PATIENCE).await;
    let Outcome::Refused(Refusal::NotConfigured(why)) = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("park VLAN"), "{why}");
    for url in ["", "127.0.0.1:6640", "http://127.0.0.1:6640", "tcp://127.0.0.1", "ssl://127.0.0.1:6640"] {
        let kind = ProviderKind::Ovsdb { url: url.to_owned(), park_vlan: 100, tls: None };
        assert!(Backend::from_config(&kind, b"", Us::nobody()).is_err(), "{url}");
    }
}

#[tokio::test]
async fn a_program_is_told_all_it_needs_on_its_standard_input_only() {
    let device = Device::start(Face::Exec, Script::Obey).await;
    let attach = actions().remove(2);
    assert!(is_done(&run(&device, &attach, 7, &Always, PATIENCE).await));
    let told = device.told();
    let asked: serde_json::Value =
        serde_json::from_str(told.lines().find(|line| line.contains("act")).unwrap()).unwrap();
    let wish = serde_json::json!({ "want": "attached", "volume": "v2", "initiator": INITIATOR });
    let all = serde_json::json!({ "version": 1, "op": "act", "wish": wish, "token": 7,
        "settings": { "place": "hall 3" }, "secret": "token" });
    assert_eq!(asked, all);
    assert_eq!(device.environment(), "", "nothing of ours but PATH");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_a_refusal() {
    let backend = Backend::from_config(&exec_kind(), b"token", Us::nobody()).unwrap();
    let effect = effect(&actions()[0], 7);
    let outcome = carry_out(&backend, &effect, Some(INITIATOR), &Always, Instant::now() + PATIENCE).await;
    let Outcome::Refused(Refusal::NotConfigured(why)) = outcome else { panic!("{outcome:?}") };
    assert!(why.starts_with("start /nowhere/device: "), "{why}");
    assert!(!format!("{backend:?}").contains("token"));
}

#[tokio::test]
async fn what_a_program_complains_of_is_told_without_the_secret() {
    let device = Device::start(Face::Exec, Script::Complains).await;
    let finding = found(&device, &checks()[0], PATIENCE).await;
    let Finding::CannotTell(why) = finding else { panic!("{finding:?}") };
    assert!(why.contains("cannot log in with (secret)") && !why.contains("token"), "{why}");
}

#[tokio::test]
async fn a_program_that_hangs_ends_with_all_that_it_started() {
    let device = Device::start(Face::Exec, Script::HangOnChange).await;
    let outcome = run(&device, &actions()[0], 7, &Always, SHORT_OF_A_PROCESS).await;
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
    let child = device.child();
    let end = Instant::now() + PATIENCE;
    // A zombie is gone, too: nobody here waits for the child of a child.
    let lives =
        || std::fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    while lives() {
        assert!(Instant::now() < end, "{child} still runs");
        tokio::task::yield_now().await;
    }
}
