//! A BMC that speaks Redfish, with the moods of the contract table.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use fencing::Act;
use fencing::contract::{GUID, Mood};
use fencing::redfish::Settings;
use policies::Power;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

pub(crate) const USER: &str = "ha";
pub(crate) const PASSWORD: &[u8] = b"open sesame";
/// For everything that takes a moment; generous, for machines are shared.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const SYSTEM: &str = "/redfish/v1/Systems/1";

pub(crate) fn within(time: Duration) -> Instant {
    Instant::now() + time
}

/// What the BMC knows and was told.
pub(crate) struct Bmc {
    pub(crate) mood: Mood,
    pub(crate) power: Power,
    /// When it was told to switch off.
    told: Option<Instant>,
    /// Readings since then; before it, of all.
    looks: u32,
    pub(crate) commands: Vec<Act>,
    pub(crate) boots: Vec<Value>,
}

pub(crate) type Shared = Arc<Mutex<Bmc>>;

impl Bmc {
    pub(crate) fn new(mood: Mood) -> Shared {
        let power = if mood == Mood::AlreadyOff { Power::Off } else { Power::On };
        Arc::new(Mutex::new(Bmc { mood, power, told: None, looks: 0, commands: vec![], boots: vec![] }))
    }

    /// The next reading.
    fn read(&mut self) -> Power {
        self.looks += 1;
        let off_if = |off| if off { Power::Off } else { Power::On };
        match (self.mood, self.told) {
            (Mood::OffOnce, None) => off_if(self.looks == 1),
            (Mood::ObeysLate, Some(told)) => off_if(told.elapsed() >= Duration::from_millis(200)),
            (Mood::Wavers, Some(_)) => off_if(self.looks != 2),
            (Mood::Lies, Some(_)) => off_if(self.looks % 2 == 1),
            _ => self.power,
        }
    }

    /// It is told this; what it says to that is its mood's.
    pub(crate) fn tell(&mut self, act: Act) -> Mood {
        self.commands.push(act);
        match self.mood {
            Mood::Refuses | Mood::Ignores => {}
            Mood::OnlyHardOff if act == Act::SoftOff => {}
            _ if act == Act::Interrupt => self.told = Some(Instant::now()),
            _ => {
                let power = if act == Act::On { Power::On } else { Power::Off };
                (self.power, self.told, self.looks) = (power, Some(Instant::now()), 0);
            }
        }
        self.mood
    }

    pub(crate) fn silent(&self) -> bool {
        self.mood == Mood::Deaf || self.mood == Mood::FallsSilent && self.told.is_some()
    }
}

pub(crate) async fn never() -> Response {
    std::future::pending().await
}

fn lets_in(headers: &HeaderMap) -> bool {
    // base64("ha:open sesame")
    headers.get("authorization").is_some_and(|value| value == "Basic aGE6b3BlbiBzZXNhbWU=")
}

fn error(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({ "error": { "code": "Base", "message": text } }))).into_response()
}

async fn root(State(bmc): State<Shared>) -> Response {
    if bmc.lock().unwrap().silent() {
        return never().await;
    }
    Json(json!({ "Systems": { "@odata.id": "/redfish/v1/Systems" } })).into_response()
}

async fn systems(State(bmc): State<Shared>) -> Response {
    if bmc.lock().unwrap().silent() {
        return never().await;
    }
    Json(json!({ "Members": [{ "@odata.id": SYSTEM }] })).into_response()
}

async fn system(State(bmc): State<Shared>, headers: HeaderMap) -> Response {
    if bmc.lock().unwrap().silent() {
        return never().await;
    }
    if !lets_in(&headers) {
        return error(StatusCode::UNAUTHORIZED, "who are you?");
    }
    let mut bmc = bmc.lock().unwrap();
    let power = if bmc.read() == Power::On { "On" } else { "Off" };
    let uuid = match bmc.mood {
        Mood::OtherIdentity => json!("ffffffff-0203-0405-0607-08090a0b0c0d"),
        Mood::NoIdentity => Value::Null,
        _ => {
            let [a, b, c, d, e] = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &GUID[part]);
            json!(format!("{a}-{b}-{c}-{d}-{e}").to_uppercase())
        }
    };
    Json(json!({
        "PowerState": power, "UUID": uuid, "Oem": { "x": [1, 2] }, "Status": { "Health": "Critical" },
        "Actions": { "#ComputerSystem.Reset": { "target": format!("{SYSTEM}/Actions/ComputerSystem.Reset") } },
    }))
    .into_response()
}

async fn reset(State(bmc): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    assert!(lets_in(&headers));
    let body: Value = serde_json::from_slice(&body).unwrap();
    let act = match body["ResetType"].as_str().unwrap() {
        "ForceOff" => Act::Off,
        "GracefulShutdown" => Act::SoftOff,
        "On" => Act::On,
        "Nmi" => Act::Interrupt,
        other => panic!("{other}"),
    };
    let mood = bmc.lock().unwrap().tell(act);
    match mood {
        Mood::Refuses => error(StatusCode::FORBIDDEN, "insufficient privilege"),
        Mood::OnlyHardOff if act == Act::SoftOff => error(StatusCode::BAD_REQUEST, "not supported"),
        Mood::ObeysMute | Mood::FallsSilent => never().await,
        _ => StatusCode::NO_CONTENT.into_response(),
    }
}

async fn set(State(bmc): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    assert!(lets_in(&headers) && headers.get("if-match").is_some_and(|value| value == "*"));
    bmc.lock().unwrap().boots.push(serde_json::from_slice(&body).unwrap());
    StatusCode::OK.into_response()
}

pub(crate) async fn serve(bmc: Shared) -> SocketAddr {
    let router = Router::new()
        .route("/redfish/v1/", get(root))
        .route("/redfish/v1/Systems", get(systems))
        .route(SYSTEM, get(system))
        .route(SYSTEM, patch(set))
        .route(&format!("{SYSTEM}/Actions/ComputerSystem.Reset"), post(reset))
        .with_state(bmc);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    at
}

pub(crate) fn settings(at: SocketAddr) -> Settings {
    Settings::new(&format!("http://{at}"), USER, PASSWORD, None, None).unwrap()
}
