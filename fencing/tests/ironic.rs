//! The Ironic driver: the contract table with an Ironic that owns the power of a BMC with moods, and what is made of Ironic's own
//! words where no BMC is known. `ironic_live.rs` asks the real one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod redfish_bmc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use fencing::contract::{self, Lease, Mood, Rig};
use fencing::ironic::Ironic;
use fencing::redfish::Redfish;
use fencing::{Act, Bmc, fence, power_on, shut_down};
use openstack::{Cloud, Settings};
use policies::{CloudAccess, CloudInterface, CloudUser, Identity, Outcome, Refusal, Seen};
use redfish_bmc::{PATIENCE, Shared, never, serve, settings, within};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const NODE: &str = "9dec6d8d-d678-4a82-bf92-9c664281f301";
/// For what is waited for in vain.
const SHORT: Duration = Duration::from_millis(600);

/// What Ironic has of the node, what it is asked, and what comes of a command.
struct Desk {
    address: SocketAddr,
    node: Value,
    asked: Vec<String>,
    /// Somebody has the node's lock.
    locked: bool,
    /// It takes maintenance and does not keep it.
    forgets: bool,
    /// What a change of power makes of the node.
    switches: fn(&mut Value, &str),
    /// The BMC that it switches.
    bmc: Option<Shared>,
}

type Ironics = Arc<Mutex<Desk>>;

/// As it should be.
fn obey(node: &mut Value, target: &str) {
    node["power_state"] = json!(target.replace("soft ", ""));
}

fn error(status: StatusCode, text: &str) -> Response {
    let fault = json!({ "faultcode": "Client", "faultstring": text, "debuginfo": null });
    (status, json!({ "error_message": fault.to_string() }).to_string()).into_response()
}

fn act(target: &str) -> Act {
    match target {
        "power off" => Act::Off,
        "soft power off" => Act::SoftOff,
        "power on" => Act::On,
        other => panic!("{other}"),
    }
}

async fn answer(State(desk): State<Ironics>, method: Method, uri: Uri, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let nodes = format!("/v1/nodes/{NODE}");
    let place = uri.path().strip_prefix(&nodes).unwrap_or(uri.path()).to_owned();
    let is_silent = desk.lock().unwrap().bmc.as_ref().is_some_and(|bmc| bmc.lock().unwrap().silent());
    if is_silent {
        return never().await;
    }
    let mut mood = None;
    let response = {
        let mut desk = desk.lock().unwrap();
        match (method.as_str(), place.as_str()) {
            ("POST", "/v3/auth/tokens") => return token(desk.address),
            ("GET", "/v1/") => {
                return json!({ "version": { "min_version": "1.1", "version": "1.99" } })
                    .to_string()
                    .into_response();
            }
            (method, place) => {
                desk.asked.push(format!("{method} {place} {body}").trim_end_matches(" null").to_owned());
            }
        }
        match (method.as_str(), place.as_str()) {
            ("GET", "") => desk.node.to_string().into_response(),
            ("PUT", _) if desk.locked => error(
                StatusCode::CONFLICT,
                &format!("Node {NODE} is locked by host conductor-1, please retry"),
            ),
            ("PUT", "/maintenance") => {
                desk.node["maintenance"] = json!(!desk.forgets);
                desk.node["maintenance_reason"] = body["reason"].clone();
                StatusCode::ACCEPTED.into_response()
            }
            ("PUT", "/states/power") => {
                let (target, switches) = (body["target"].as_str().unwrap(), desk.switches);
                mood = desk.bmc.as_ref().map(|bmc| bmc.lock().unwrap().tell(act(target)));
                switches(&mut desk.node, target);
                StatusCode::ACCEPTED.into_response()
            }
            other => panic!("{other:?}"),
        }
    };
    match mood {
        Some(Mood::Refuses) => error(StatusCode::BAD_REQUEST, "not supported"),
        Some(Mood::OnlyHardOff) if body["target"] == "soft power off" => {
            error(StatusCode::BAD_REQUEST, "not supported")
        }
        Some(Mood::ObeysMute | Mood::FallsSilent) => never().await,
        _ => response,
    }
}

fn token(address: SocketAddr) -> Response {
    let url = format!("http://{address}");
    let endpoint = json!({ "interface": "public", "region_id": "one", "url": url });
    let token = json!({ "token": {
        "issued_at": "2026-01-01T00:00:00.000000Z", "expires_at": "2026-01-01T01:00:00.000000Z", "roles": [],
        "catalog": [{ "type": "baremetal", "name": "ironic", "endpoints": [endpoint] }] } });
    (StatusCode::CREATED, [("x-subject-token", "token")], token.to_string()).into_response()
}

/// An Ironic with a node that it has as on, in nobody's maintenance.
async fn ironic(bmc: Option<Shared>) -> (Ironics, Ironic) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let node = json!({ "uuid": NODE, "driver": "redfish", "power_state": "power on", "target_power_state": null,
        "provision_state": "active", "target_provision_state": null, "maintenance": false,
        "maintenance_reason": null, "fault": null, "last_error": null, "reservation": null });
    let desk = Desk {
        address,
        node,
        asked: vec![],
        locked: false,
        forgets: false,
        switches: obey,
        bmc: bmc.clone(),
    };
    let desk = Arc::new(Mutex::new(desk));
    let app = Router::new().fallback(answer).with_state(desk.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let own = match bmc {
        Some(bmc) => {
            let driver = Redfish::new(settings(serve(bmc).await)).unwrap();
            Some(Arc::new(Bmc::Redfish(driver)))
        }
        None => None,
    };
    let driver = Ironic::new(cloud(address), NODE.parse().unwrap(), own);
    (desk, driver)
}

fn cloud(address: SocketAddr) -> Cloud {
    let user = CloudUser::ApplicationCredential { id: "credential".to_owned() };
    let keystone = format!("http://{address}");
    let access = CloudAccess { keystone, ca: None, region: None, interface: CloudInterface::Public, user };
    Cloud::new(Settings::new(&access, b"open sesame").unwrap()).unwrap()
}

/// An Ironic and a BMC for each row.
#[derive(Default)]
struct Owned {
    newest: Mutex<Option<Shared>>,
}

impl Rig for Owned {
    type Driver = Ironic;

    async fn device(&self, mood: Mood) -> Ironic {
        let bmc = redfish_bmc::Bmc::new(mood);
        *self.newest.lock().unwrap() = Some(bmc.clone());
        ironic(Some(bmc)).await.1
    }

    fn commands(&self) -> Vec<Act> {
        self.newest.lock().unwrap().as_ref().unwrap().lock().unwrap().commands.clone()
    }

    fn has_owner(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn the_driver_keeps_the_contract() {
    contract::check(&Owned::default()).await.unwrap_or_else(|broken| panic!("{broken}"));
}

fn asked(desk: &Ironics) -> Vec<String> {
    std::mem::take(&mut desk.lock().unwrap().asked)
}

/// The node as Ironic has it, changed.
fn note(desk: &Ironics, changes: &Value) {
    let mut desk = desk.lock().unwrap();
    for (key, value) in changes.as_object().unwrap() {
        desk.node[key] = value.clone();
    }
}

async fn fenced(driver: &Ironic, time: Duration) -> Outcome {
    fence(driver, &Identity::default(), &Lease::endless(), within(time)).await
}

const SET: &str = r#"PUT /maintenance {"reason":"fenced by ha-supervisord, token i7"}"#;
const OFF: &str = r#"PUT /states/power {"target":"power off"}"#;

#[tokio::test]
async fn what_ironic_has_noted_is_no_proof_and_what_it_was_seen_to_do_is() {
    let (desk, driver) = ironic(None).await;
    note(&desk, &json!({ "power_state": "power off" }));
    let outcome = fenced(&driver, PATIENCE).await;
    assert!(matches!(outcome, Outcome::Done(Seen::OffTwice { already: false, .. })), "{outcome:?}");
    // A look, maintenance first and read back, the command, two looks.
    assert_eq!(asked(&desk), ["GET ", "GET ", SET, "GET ", OFF, "GET ", "GET "]);
}

#[tokio::test]
async fn maintenance_of_somebody_else_is_left_as_it_is() {
    let (desk, driver) = ironic(None).await;
    note(&desk, &json!({ "maintenance": true, "maintenance_reason": "new fans" }));
    let outcome = fenced(&driver, PATIENCE).await;
    assert!(matches!(outcome, Outcome::Done(Seen::OffTwice { .. })), "{outcome:?}");
    assert_eq!(asked(&desk), ["GET ", "GET ", OFF, "GET ", "GET "]);
    assert_eq!(desk.lock().unwrap().node["maintenance_reason"], "new fans");
}

/// Each way in which Ironic takes the command and has not done it; it had the node as off before.
#[tokio::test]
async fn a_command_that_ironic_took_and_has_not_carried_out_proves_nothing() {
    let ways: [fn(&mut Value, &str); 5] = [
        // The BMC did not answer: the database keeps what it had.
        |node, _| node["last_error"] = json!("Failed to change power state to 'power off': no answer"),
        |node, _| node["reservation"] = json!("conductor-1"),
        |node, _| node["target_power_state"] = json!("power off"),
        |node, _| node["fault"] = json!("power failure"),
        |node, _| node["power_state"] = Value::Null,
    ];
    for (way, switches) in ways.into_iter().enumerate() {
        let (desk, driver) = ironic(None).await;
        note(&desk, &json!({ "power_state": "power off" }));
        desk.lock().unwrap().switches = switches;
        let outcome = fenced(&driver, SHORT).await;
        assert!(matches!(outcome, Outcome::Unknown(_)), "{way}: {outcome:?}");
    }
}

/// Ironic clears its complaint when it begins, but for a node whose deployment or cleaning failed.
#[tokio::test]
async fn an_old_complaint_about_something_else_does_not_count() {
    let failed = "Failed to change power state to 'power off': no answer";
    for (complaint, is_done) in [("no image", true), (failed, false)] {
        let (desk, driver) = ironic(None).await;
        note(&desk, &json!({ "provision_state": "deploy failed", "last_error": complaint }));
        let outcome = fenced(&driver, if is_done { PATIENCE } else { SHORT }).await;
        assert_eq!(matches!(outcome, Outcome::Done(_)), is_done, "{complaint}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_locked_node_is_a_refusal_that_names_the_holder() {
    let (desk, driver) = ironic(None).await;
    desk.lock().unwrap().locked = true;
    let outcome = fenced(&driver, Duration::from_secs(2)).await;
    let Outcome::Refused(Refusal::DeviceRefused(why)) = &outcome else { panic!("{outcome:?}") };
    assert!(why.contains("is locked by host conductor-1"), "{why}");
    assert!(!asked(&desk).contains(&OFF.to_owned()));
}

#[tokio::test]
async fn who_owns_the_power_is_told_that_a_node_which_is_off_stays_off() {
    let bmc = redfish_bmc::Bmc::new(Mood::AlreadyOff);
    let (desk, driver) = ironic(Some(bmc)).await;
    let outcome = fenced(&driver, PATIENCE).await;
    assert!(matches!(outcome, Outcome::Done(Seen::OffTwice { already: false, .. })), "{outcome:?}");
    assert_eq!(asked(&desk), ["GET ", SET, "GET ", OFF]);
}

#[tokio::test]
async fn without_maintenance_nothing_is_switched() {
    let bmc = redfish_bmc::Bmc::new(Mood::Obeys);
    let (desk, driver) = ironic(Some(bmc.clone())).await;
    desk.lock().unwrap().forgets = true;
    let outcome = fenced(&driver, PATIENCE).await;
    let Outcome::Refused(Refusal::DeviceRefused(why)) = &outcome else { panic!("{outcome:?}") };
    assert!(why.contains("is in no maintenance"), "{why}");
    assert_eq!(bmc.lock().unwrap().commands, []);
}

#[tokio::test]
async fn a_node_in_maintenance_is_not_switched_on() {
    let (desk, driver) = ironic(None).await;
    note(
        &desk,
        &json!({ "power_state": "power off", "maintenance": true, "maintenance_reason": "new fans" }),
    );
    let outcome = power_on(&driver, &Identity::default(), &Lease::endless(), within(PATIENCE)).await;
    let Outcome::Refused(Refusal::DeviceRefused(why)) = &outcome else { panic!("{outcome:?}") };
    assert!(why.contains("new fans") && why.contains("maintenance unset"), "{why}");
    // That Ironic has it as on is no reading either.
    let (desk, driver) = ironic(None).await;
    let outcome = power_on(&driver, &Identity::default(), &Lease::endless(), within(PATIENCE)).await;
    assert_eq!(outcome, Outcome::Done(Seen::On));
    assert!(asked(&desk).contains(&r#"PUT /states/power {"target":"power on"}"#.to_owned()));
}

#[tokio::test]
async fn a_shutdown_needs_no_maintenance_and_an_interrupt_a_bmc() {
    let (desk, driver) = ironic(None).await;
    let outcome = shut_down(&driver, &Identity::default(), &Lease::endless(), within(PATIENCE)).await;
    assert!(matches!(outcome, Outcome::Done(Seen::OffTwice { already: false, .. })), "{outcome:?}");
    assert_eq!(asked(&desk), ["GET ", r#"PUT /states/power {"target":"soft power off"}"#, "GET ", "GET "]);
    let outcome =
        fencing::interrupt(&driver, &Identity::default(), &Lease::endless(), within(PATIENCE)).await;
    assert!(matches!(&outcome, Outcome::Refused(Refusal::DeviceRefused(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_cloud_that_is_not_there_is_told_and_its_secret_is_not() {
    let (_, driver) = ironic(None).await;
    assert!(!format!("{driver:?}").contains("sesame"));
    let nowhere = Ironic::new(cloud("127.0.0.1:1".parse().unwrap()), NODE.parse().unwrap(), None);
    let outcome = fenced(&nowhere, SHORT).await;
    assert!(matches!(&outcome, Outcome::Refused(Refusal::Unreachable(_))), "{outcome:?}");
}
