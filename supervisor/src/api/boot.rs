//! The boot service: what a node that starts is told, over plain HTTP, for firmware speaks nothing else.
//!
//! Why it exists: a node asks what to run by the address of its network card, and is told what the committed state says
//! of it now, by the leader with a quorum behind it; so a node that was replaced while it was off learns of it before it
//! runs anything. What it never does: change anything, or tell a secret. Anybody in the nodes' network may ask.

use super::problem::{Code, Problem};
use super::{ApiState, count, limit_time};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use policies::{BootRole, Epoch, Mac, NodeId, ProviderId};
use provisioning::ipxe;
use raft_store::BarrierError;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::Instant;

/// Longest time that a question waits for news. Higher: a member that leads no more, and hears nothing any more, is found
/// out later. Lower: more questions that change nothing.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// The routes of the boot service.
pub fn boot_router(state: ApiState) -> Router {
    let by_leader = middleware::from_fn_with_state(state.clone(), lead);
    Router::new()
        .route("/boot", get(serves))
        .route("/boot/node/{node}", get(role_of_node))
        .route("/boot/mac/{mac}", get(role_of_mac))
        .route("/boot/mac/{mac}/ipxe", get(script))
        .route_layer(by_leader)
        .route("/boot/start/{provider}", get(start))
        .layer(middleware::from_fn_with_state(state.clone(), limit_time))
        .layer(middleware::from_fn_with_state(state.clone(), count))
        .with_state(state)
}

/// Lets a question through only if this member leads and a quorum confirms it. Elsewhere than in the API nobody is sent to
/// the leader: a node has the addresses of all members and asks the next.
async fn lead(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    match leads(&state).await {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

async fn leads(state: &ApiState) -> Result<(), Problem> {
    state.store.barrier().await.map_err(|error| match error {
        BarrierError::NotLeader { .. } => {
            Problem::new(Code::NotYet, "this member does not lead", "ask the next member")
        }
        BarrierError::NoQuorum { .. } => Problem::no_quorum(),
        BarrierError::Fatal(why) => Problem::broken(why),
    })
}

/// That this member has answers.
#[derive(Serialize)]
struct Serves {
    member: u64,
}

async fn serves(State(state): State<ApiState>) -> Json<Serves> {
    Json(Serves { member: state.config.me().0 })
}

/// What the node says of itself.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// The epoch that it believes to run.
    epoch: Option<Epoch>,
}

async fn role_of_node(
    State(state): State<ApiState>,
    Path(node): Path<NodeId>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Response {
    let role = || state.store.read(|state| state.boot_role(&node, asked.epoch));
    tell(&state, &headers, role).await
}

async fn role_of_mac(
    State(state): State<ApiState>,
    Path(mac): Path<Mac>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Response {
    tell(&state, &headers, || role(&state, mac, asked.epoch)).await
}

/// Tells a role. Who knows it already (`If-None-Match`, RFC 9110 §13.1.2) and would rather wait for another (`Prefer: wait=N`,
/// RFC 7240 §4.3) is told when it changes.
async fn tell(state: &ApiState, headers: &HeaderMap, role: impl Fn() -> BootRole) -> Response {
    let limit = Duration::from_millis(state.config.api.request_time_max.0) / 2;
    let until = Instant::now() + patience(headers).min(limit);
    let mut news = state.store.history().subscribe();
    loop {
        let role = role();
        let body = match serde_json::to_string(&role) {
            Ok(body) => body,
            Err(error) => return Problem::broken(error.to_string()).into_response(),
        };
        let mark = format!("\"{}\"", blake3::hash(body.as_bytes()).to_hex());
        if headers.get(header::IF_NONE_MATCH).is_none_or(|known| known.as_bytes() != mark.as_bytes()) {
            let json = (header::CONTENT_TYPE, "application/json".to_owned());
            return ([json, (header::ETAG, mark)], body).into_response();
        }
        // Whether something was told or missed: it is looked at again.
        if tokio::time::timeout_at(until, news.recv()).await.is_err() {
            return (StatusCode::NOT_MODIFIED, [(header::ETAG, mark)]).into_response();
        }
        // What was committed meanwhile counts only if this member still leads.
        if let Err(problem) = leads(state).await {
            return problem.into_response();
        }
    }
}

/// How long whoever asks would rather wait for news than be told that there are none.
fn patience(headers: &HeaderMap) -> Duration {
    let preferred = headers.get("prefer").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let wait = preferred.split(',').find_map(|wish| wish.trim().strip_prefix("wait="));
    let wait = wait.and_then(|seconds| seconds.parse().ok()).map_or(Duration::ZERO, Duration::from_secs);
    wait.min(WAIT_MAX)
}

async fn script(State(state): State<ApiState>, Path(mac): Path<Mac>) -> Response {
    let role = role(&state, mac, None);
    match role {
        BootRole::Boots(_) | BootRole::Stands { .. } => tracing::info!(%mac, %role, "a node starts"),
        // Asked every few seconds.
        BootRole::Local { .. } | BootRole::Waits { .. } | BootRole::Halts { .. } => {
            tracing::debug!(%mac, %role, "a node asks");
        }
    }
    text(ipxe::script(&role))
}

fn role(state: &ApiState, mac: Mac, runs: Option<Epoch>) -> BootRole {
    state.store.read(|state| match state.node_with_mac(mac) {
        Some(node) => state.boot_role(node, runs),
        None => BootRole::Waits { why: format!("no node has {mac} among its boot_macs") },
    })
}

/// The first script, from any member.
async fn start(State(state): State<ApiState>, Path(provider): Path<ProviderId>) -> Response {
    let first = state.store.read(|state| {
        let (members, _) = state.providers.get(&provider)?.kind.boot_service()?;
        Some(ipxe::start(members))
    });
    match first {
        Some(script) => text(script),
        None => {
            let error = format!("there is no provider {provider} of the kind `boot`");
            Problem::new(Code::NotThere, error, "see `hactl provider list`").into_response()
        }
    }
}

fn text(script: String) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], script).into_response()
}
