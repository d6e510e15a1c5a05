//! A device that follows a script: the rack's HTTP interface or a switch's database, with every way to misbehave.

pub(crate) mod cloud;
mod exec;
mod ovsdb;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use policies::LogIndex;
use provisioning::rack::{
    BootChange, BootState, Conflict, ImageState, Link, NotThere, PortChange, PortSetting, PortState,
    SnapshotChange, SnapshotState, VolumeChange, VolumeState,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What the device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Face {
    Rack,
    Ovsdb,
    Exec,
    /// A storage host: the rack's words, for volumes only.
    Iscsi,
    /// An OpenStack cloud.
    Cloud,
}

/// How the device behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Script {
    Obey,
    /// It has seen this token for everything.
    SeenToken(LogIndex),
    HangOnChange,
    HangOnLook,
    /// It obeys and ends the connection instead of answering.
    ObeyAndDropTheConnection,
    /// A cloud that dies before it obeys, and is there again.
    Lose,
    /// A cloud that has noted a fenced node as on.
    ForgotToSwitchOff,
    /// It acknowledges and changes nothing.
    Lie,
    /// It acknowledges; the change shows after so many looks.
    ObeyAfterLooks(usize),
    /// It answers each change with this status.
    Answer(u16),
    Garbage,
    /// It has no object at all and says so.
    HasNothing,
    /// It answers each look with this status and no words.
    LookAnswers(u16),
    /// Its ports have no link.
    NoLink,
    HeldByOther,
    KeepSessions,
    /// A switch that never takes over what its database says.
    NeverApply,
    /// A database in which others write, too.
    ChangedMeanwhile,
    /// Answers without end.
    Flood,
    /// Says on standard error what is wrong, with the secret in it.
    Complains,
    /// A cloud that takes the order for a snapshot and cannot make it.
    Fails,
}

#[derive(Default)]
struct Seen {
    changes: usize,
    looks: usize,
    /// Path to body of the changes that took place.
    done: BTreeMap<String, Vec<u8>>,
    /// Body of the last change that was asked for.
    asked_for: Vec<u8>,
    late: Option<(usize, String, Vec<u8>)>,
}

/// A running device.
pub(crate) struct Device {
    face: Face,
    url: String,
    seen: Arc<Mutex<Seen>>,
    task: Option<JoinHandle<()>>,
    /// Directory of the program, if it is one.
    programs: Option<tempfile::TempDir>,
}

impl Device {
    pub(crate) async fn start(face: Face, script: Script) -> Device {
        if face == Face::Exec {
            return exec::device(Some(script));
        }
        let (listener, url) = listen(face).await;
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let task = match face {
            Face::Rack | Face::Iscsi => {
                let app = Router::new().fallback(answer).with_state((script, seen.clone()));
                tokio::spawn(async move { axum::serve(listener, app).await.unwrap() })
            }
            Face::Cloud => {
                let address = listener.local_addr().unwrap();
                let app = Router::new().fallback(cloud::answer).with_state((script, seen.clone(), address));
                tokio::spawn(async move { axum::serve(listener, app).await.unwrap() })
            }
            Face::Ovsdb | Face::Exec => tokio::spawn(ovsdb::serve(listener, script, seen.clone())),
        };
        Device { face, url, seen, task: Some(task), programs: None }
    }

    /// An address at which nobody listens.
    pub(crate) async fn gone(face: Face) -> Device {
        if face == Face::Exec {
            return exec::device(None);
        }
        let (_, url) = listen(face).await;
        Device { face, url, seen: Arc::default(), task: None, programs: None }
    }

    pub(crate) fn face(&self) -> Face {
        self.face
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// Requests for a change so far.
    pub(crate) fn changes(&self) -> usize {
        if self.face == Face::Exec {
            return self.counted("\"op\":\"act\"");
        }
        self.seen.lock().unwrap().changes
    }

    /// Requests for a reading so far.
    pub(crate) fn looks(&self) -> usize {
        if self.face == Face::Exec {
            return self.counted("\"op\":\"look\"");
        }
        self.seen.lock().unwrap().looks
    }
}

async fn listen(face: Face) -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let scheme = match face {
        Face::Rack | Face::Iscsi | Face::Cloud => "http",
        Face::Ovsdb | Face::Exec => "tcp",
    };
    let url = format!("{scheme}://{}", listener.local_addr().unwrap());
    (listener, url)
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn answer(
    State((script, seen)): State<(Script, Arc<Mutex<Seen>>)>,
    request: Request<Body>,
) -> Response {
    let path = request.uri().path().to_owned();
    assert_eq!(request.headers().get("authorization").unwrap(), "Bearer token");
    if request.method() == Method::GET {
        return look(script, &seen, &path).await;
    }
    let body = axum::body::to_bytes(request.into_body(), 65_536).await.unwrap().to_vec();
    seen.lock().unwrap().changes += 1;
    match script {
        Script::Obey | Script::KeepSessions | Script::NoLink => done(&seen, path, body),
        Script::SeenToken(newest) if token(&path, &body) < newest => {
            return (StatusCode::CONFLICT, Json(Conflict::TokenTooOld { newest })).into_response();
        }
        Script::SeenToken(_) => done(&seen, path, body),
        Script::HangOnChange => std::future::pending().await,
        Script::ObeyAndDropTheConnection => {
            done(&seen, path, body);
            // hyper ends the connection when its handler panics; the test does not see this panic.
            panic!("the connection is dropped by intention");
        }
        Script::Lie => {}
        Script::ObeyAfterLooks(looks) => seen.lock().unwrap().late = Some((looks, path, body)),
        Script::Answer(status) => return StatusCode::from_u16(status).unwrap().into_response(),
        Script::HeldByOther => {
            let conflict = Conflict::HeldByOther { holder: "iqn.n9".to_owned() };
            return (StatusCode::CONFLICT, Json(conflict)).into_response();
        }
        Script::HangOnLook | Script::Garbage | Script::HasNothing | Script::LookAnswers(_) => {
            unreachable!("a change without a look")
        }
        Script::Fails | Script::Lose | Script::ForgotToSwitchOff => unreachable!("a cloud's manners"),
        Script::NeverApply | Script::ChangedMeanwhile | Script::Flood | Script::Complains => {
            unreachable!("a switch's manners")
        }
    }
    StatusCode::OK.into_response()
}

fn done(seen: &Mutex<Seen>, path: String, body: Vec<u8>) {
    seen.lock().unwrap().done.insert(path, body);
}

fn token(path: &str, body: &[u8]) -> LogIndex {
    if path.starts_with("/v1/volumes/") {
        match serde_json::from_slice(body).unwrap() {
            VolumeChange::Attach { token, .. } | VolumeChange::Revoke { token, .. } => token,
        }
    } else if path.starts_with("/v1/snapshots/") {
        serde_json::from_slice::<SnapshotChange>(body).unwrap().token
    } else if path.starts_with("/v1/ports/") {
        serde_json::from_slice::<PortChange>(body).unwrap().token
    } else {
        serde_json::from_slice::<BootChange>(body).unwrap().token
    }
}

async fn look(script: Script, seen: &Mutex<Seen>, path: &str) -> Response {
    seen.lock().unwrap().looks += 1;
    if matches!(script, Script::HangOnLook) {
        std::future::pending::<()>().await;
    }
    if matches!(script, Script::Garbage) {
        return "neither yes nor no".into_response();
    }
    if let Script::LookAnswers(status) = script {
        return StatusCode::from_u16(status).unwrap().into_response();
    }
    if matches!(script, Script::HasNothing) {
        let error = format!("there is no {}", path.rsplit('/').next().unwrap());
        return (StatusCode::NOT_FOUND, Json(NotThere { error })).into_response();
    }
    let mut seen = seen.lock().unwrap();
    if let Some((looks, path, body)) = seen.late.take() {
        if looks == 0 {
            seen.done.insert(path, body);
        } else {
            seen.late = Some((looks - 1, path, body));
        }
    }
    let change = seen.done.get(path);
    match path.strip_prefix("/v1/").and_then(|rest| rest.split_once('/')) {
        Some(("volumes", volume)) => Json(volume_state(script, volume, change)).into_response(),
        Some(("snapshots", "v1" | "v2")) => Json(snapshot_state(change)).into_response(),
        Some(("ports", port)) => Json(port_state(script, port, change)).into_response(),
        Some(("images", image)) => Json(ImageState { image: image.to_owned() }).into_response(),
        Some(("boot", "n1")) => Json(boot_state(change)).into_response(),
        other => panic!("{other:?}"),
    }
}

/// `v1` is held by n1 with a session, `v2` by nobody or, by script, by another.
fn volume_state(script: Script, volume: &str, change: Option<&Vec<u8>>) -> VolumeState {
    let n1 = || vec!["iqn.n1".to_owned()];
    let mut state = VolumeState::default();
    match (volume, change.map(|body| serde_json::from_slice(body).unwrap())) {
        ("v1", None) => (state.holders, state.sessions) = (n1(), n1()),
        ("v1", Some(VolumeChange::Revoke { .. })) if matches!(script, Script::KeepSessions) => {
            state.sessions = n1();
        }
        ("v2", None) if matches!(script, Script::HeldByOther) => state.holders = vec!["iqn.n9".to_owned()],
        ("v1", Some(VolumeChange::Revoke { .. })) | ("v2", None) => {}
        ("v2", Some(VolumeChange::Attach { initiator, .. })) => state.holders = vec![initiator],
        other => panic!("{other:?}"),
    }
    state
}

fn snapshot_state(change: Option<&Vec<u8>>) -> SnapshotState {
    let made = change.map(|body| serde_json::from_slice::<SnapshotChange>(body).unwrap().name);
    SnapshotState { snapshots: made.into_iter().collect(), newest: LogIndex(0), in_use: true }
}

/// `sw1/3` is open, `sw1/4` closed. The slash arrives escaped: it is part of a name, not of the path.
fn port_state(script: Script, port: &str, change: Option<&Vec<u8>>) -> PortState {
    let setting = match (port, change) {
        (_, Some(body)) => serde_json::from_slice::<PortChange>(body).unwrap().setting,
        ("sw1%2F3", None) => PortSetting::Open { vlan: 7, tagged: BTreeSet::new(), mac: None },
        ("sw1%2F4", None) => PortSetting::Closed,
        other => panic!("{other:?}"),
    };
    let link = matches!(script, Script::NoLink).then_some(Link::Down);
    PortState { setting, newest: LogIndex(0), link }
}

fn boot_state(change: Option<&Vec<u8>>) -> BootState {
    let assignment = change.map(|body| serde_json::from_slice::<BootChange>(body).unwrap().assignment);
    BootState { assignment, newest: LogIndex(0) }
}
