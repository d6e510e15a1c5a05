//! The rack's HTTP interface: array, switch and boot service for the supervisor, faults and reports for people.
//!
//! Why it exists: the supervisor's `rack` provider, `rack do` and ipmi_sim's chassis program all come through here.
//! What it never does: it answers nobody without the rack's token, and decides nothing.

use super::array_server::Connections;
use super::chassis::{Chassis, Control};
use super::conflict::DeviceError;
use super::fault::{DeviceMood, Fault};
use super::journal::{Change, Journal};
use super::locked;
use super::running::Site;
use super::world::{Report, Status};
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use policies::{NodeId, Power, VolumeId};
use provisioning::rack::{
    BootChange, BootState, ImageState, NotThere, PortChange, PortSetting, PortState, SnapshotChange,
    SnapshotState, VolumeChange, VolumeState,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// Largest request body, in bytes.
const BODY_MAX: usize = 64 * 1024;

/// Body of `POST /v1/faults`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultRequest {
    /// To whom.
    pub node: NodeId,
    /// What.
    #[serde(flatten)]
    pub fault: Fault,
}

/// Answer of `GET /v1/chassis/NODE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChassisReading {
    /// What the BMC reads.
    pub power: Power,
}

/// Body of `PUT /v1/chassis/NODE`: a chassis command as ipmi_sim's chassis program gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChassisCommand {
    /// Power up.
    On,
    /// Power down.
    Off,
    /// Hard reset.
    Reset,
    /// Soft shutdown.
    Soft,
}

impl From<ChassisCommand> for Control {
    fn from(command: ChassisCommand) -> Control {
        match command {
            ChassisCommand::On => Control::On,
            ChassisCommand::Off => Control::Off,
            ChassisCommand::Reset => Control::Reset,
            ChassisCommand::Soft => Control::Soft,
        }
    }
}

/// Why a request changed nothing.
#[derive(Debug)]
enum ApiError {
    Device(DeviceError),
    NoMachine(NodeId),
    Refused(String),
}

impl From<DeviceError> for ApiError {
    fn from(error: DeviceError) -> Self {
        ApiError::Device(error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let text = |status: StatusCode, error: String| (status, Json(NotThere { error })).into_response();
        match self {
            ApiError::Device(DeviceError::Conflict(conflict)) => {
                (StatusCode::CONFLICT, Json(conflict)).into_response()
            }
            ApiError::Device(error @ DeviceError::NotFound { .. }) => {
                text(StatusCode::NOT_FOUND, error.to_string())
            }
            ApiError::Device(error @ DeviceError::Refused) => text(StatusCode::FORBIDDEN, error.to_string()),
            ApiError::NoMachine(node) => text(StatusCode::NOT_FOUND, format!("there is no machine {node}")),
            ApiError::Refused(why) => text(StatusCode::FORBIDDEN, why),
        }
    }
}

/// What the handlers know.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) site: Arc<Site>,
    pub(super) connections: Connections,
}

/// The whole interface.
pub(super) fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/volumes/{volume}", get(volume).put(change_volume))
        .route("/v1/snapshots/{volume}", get(snapshots).put(make_snapshot))
        .route("/v1/ports/{port}", get(port).put(change_port))
        .route("/v1/images/{image}", get(image))
        .route("/v1/boot/{node}", get(boot).put(change_boot))
        .route("/v1/device-mood", put(device_mood))
        .route("/v1/faults", post(fault))
        .route("/v1/chassis/{node}", get(read_chassis).put(command_chassis))
        .route("/v1/status", get(status))
        .route("/v1/journal", get(journal))
        .route("/v1/report", get(report))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn_with_state(api.clone(), admit))
        .with_state(api)
}

/// Lets nobody pass without the token.
async fn admit(State(api): State<Api>, request: Request<Body>, next: Next) -> Response {
    let given =
        request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
    let wanted = format!("Bearer {}", api.site.world.description().token.0);
    if bool::from(given.ct_eq(wanted.as_bytes())) {
        next.run(request).await
    } else {
        let error = serde_json::json!({ "error": "the rack's token is needed" });
        (StatusCode::UNAUTHORIZED, Json(error)).into_response()
    }
}

impl Api {
    fn chassis(&self, node: NodeId) -> Result<&Chassis, ApiError> {
        self.site.machines.get(&node).ok_or(ApiError::NoMachine(node))
    }

    /// What the devices' mood makes of a change: `Ok(true)` if it is to be carried out.
    async fn in_the_mood(&self) -> Result<bool, DeviceError> {
        let mood = *locked(&self.site.world.device_mood);
        match mood {
            DeviceMood::Ok | DeviceMood::KeepSessions => Ok(true),
            DeviceMood::Hang => std::future::pending().await,
            DeviceMood::Lie => Ok(false),
            DeviceMood::Refuse => Err(DeviceError::Refused),
        }
    }
}

async fn volume(State(api): State<Api>, Path(volume): Path<VolumeId>) -> Result<Json<VolumeState>, ApiError> {
    Ok(Json(locked(&api.site.world.array).state(&volume)?))
}

async fn change_volume(
    State(api): State<Api>,
    Path(volume): Path<VolumeId>,
    Json(change): Json<VolumeChange>,
) -> Result<Json<VolumeState>, ApiError> {
    let world = &api.site.world;
    if api.in_the_mood().await? {
        let keep_sessions = *locked(&world.device_mood) == DeviceMood::KeepSessions;
        let dropped = world.on_volume(&volume, |array| {
            let dropped = array.change(&volume, &change, keep_sessions)?;
            world.record(Change::Volume { volume: volume.clone(), change: change.clone() });
            Ok::<_, DeviceError>(dropped)
        })?;
        api.connections.close(dropped);
        world.note(match &change {
            VolumeChange::Attach { initiator, token } => {
                format!("{volume} is attached to {initiator} ({token})")
            }
            VolumeChange::Revoke { initiator, token } => {
                format!("{volume} is revoked from {initiator} ({token})")
            }
        });
    }
    Ok(Json(locked(&world.array).state(&volume)?))
}

async fn snapshots(
    State(api): State<Api>,
    Path(volume): Path<VolumeId>,
) -> Result<Json<SnapshotState>, ApiError> {
    Ok(Json(locked(&api.site.world.array).snapshots(&volume)?))
}

async fn make_snapshot(
    State(api): State<Api>,
    Path(volume): Path<VolumeId>,
    Json(change): Json<SnapshotChange>,
) -> Result<Json<SnapshotState>, ApiError> {
    let world = &api.site.world;
    if api.in_the_mood().await? {
        let text = format!("{volume} is kept as {} ({})", change.name, change.token);
        world.on_volume(&volume, |array| {
            array.keep(&volume, &change)?;
            world.record(Change::Snapshot { volume: volume.clone(), change });
            Ok::<_, DeviceError>(())
        })?;
        world.note(text);
    }
    Ok(Json(locked(&world.array).snapshots(&volume)?))
}

async fn port(State(api): State<Api>, Path(port): Path<String>) -> Result<Json<PortState>, ApiError> {
    let state = locked(&api.site.world.switch).state(&port)?;
    Ok(Json(PortState { link: Some(api.site.world.link(&port)), ..state }))
}

async fn change_port(
    State(api): State<Api>,
    Path(port): Path<String>,
    Json(change): Json<PortChange>,
) -> Result<Json<PortState>, ApiError> {
    let world = &api.site.world;
    if api.in_the_mood().await? {
        let setting = match &change.setting {
            PortSetting::Closed => "closed".to_owned(),
            PortSetting::Open { vlan, tagged, .. } => {
                format!("opened into vlan {}", policies::vlans(*vlan, tagged))
            }
        };
        let text = format!("port {port} is {setting} ({})", change.token);
        {
            let mut switch = locked(&world.switch);
            switch.change(&port, change.clone())?;
            world.record(Change::Port { port: port.clone(), change });
        }
        world.rewired();
        world.note(text);
    }
    Ok(Json(locked(&world.switch).state(&port)?))
}

async fn boot(State(api): State<Api>, Path(node): Path<NodeId>) -> Result<Json<BootState>, ApiError> {
    Ok(Json(locked(&api.site.world.boot).state(&node)?))
}

async fn image(State(api): State<Api>, Path(image): Path<String>) -> Result<Json<ImageState>, ApiError> {
    Ok(Json(locked(&api.site.world.boot).image(&image)?))
}

async fn change_boot(
    State(api): State<Api>,
    Path(node): Path<NodeId>,
    Json(change): Json<BootChange>,
) -> Result<Json<BootState>, ApiError> {
    let world = &api.site.world;
    if api.in_the_mood().await? {
        let boots = &change.assignment;
        let text = format!("{node} is to boot {} {} ({})", boots.instance, boots.epoch, change.token);
        {
            let mut boot = locked(&world.boot);
            boot.change(&node, &change)?;
            world.record(Change::Boot { node: node.clone(), change });
        }
        world.note(text);
    }
    Ok(Json(locked(&world.boot).state(&node)?))
}

async fn device_mood(State(api): State<Api>, Json(mood): Json<DeviceMood>) -> Json<()> {
    *locked(&api.site.world.device_mood) = mood;
    api.site.world.note(format!("array, switch and boot service are now in the mood {mood}"));
    Json(())
}

async fn fault(State(api): State<Api>, Json(request): Json<FaultRequest>) -> Result<Json<()>, ApiError> {
    let node = request.node.clone();
    match api.site.fault(&request.node, request.fault).await {
        true => Ok(Json(())),
        false => Err(ApiError::NoMachine(node)),
    }
}

async fn read_chassis(
    State(api): State<Api>,
    Path(node): Path<NodeId>,
) -> Result<Json<ChassisReading>, ApiError> {
    Ok(Json(ChassisReading { power: api.chassis(node)?.power() }))
}

async fn command_chassis(
    State(api): State<Api>,
    Path(node): Path<NodeId>,
    Json(command): Json<ChassisCommand>,
) -> Result<Json<()>, ApiError> {
    let supplied = api.site.world.cables(&node).is_some_and(|cables| cables.supply);
    let chassis = api.chassis(node)?;
    // The BMC's last words, before it lost its supply with the machine.
    if !supplied {
        return Ok(Json(()));
    }
    chassis.control(command.into()).map_err(|refused| ApiError::Refused(refused.to_string()))?;
    Ok(Json(()))
}

async fn status(State(api): State<Api>) -> Json<Status> {
    Json(api.site.status())
}

async fn journal(State(api): State<Api>) -> Json<Journal> {
    Json(api.site.world.journal())
}

async fn report(State(api): State<Api>) -> Json<Report> {
    Json(api.site.world.report())
}
