//! The boot service: what a node that starts is told, over plain HTTP, for firmware speaks nothing else.
//!
//! Why it exists: a node asks what to run by the address of its network card, and is told what the committed state says
//! of it now, by the leader with a quorum behind it; so a node that was replaced while it was off learns of it before it
//! runs anything. What it never does: change anything, or tell a secret. Anybody in the nodes' network may ask.

use super::problem::{Code, Problem};
use super::{ApiState, count, limit_time};
use axum::extract::{Path, Query, Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use policies::{BootRole, Epoch, Mac, NodeId, ProviderId};
use provisioning::ipxe;
use raft_store::BarrierError;
use serde::{Deserialize, Serialize};

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
    match state.store.barrier().await {
        Ok(()) => next.run(request).await,
        Err(BarrierError::NotLeader { .. }) => {
            Problem::new(Code::NotYet, "this member does not lead", "ask the next member").into_response()
        }
        Err(BarrierError::NoQuorum { .. }) => Problem::no_quorum().into_response(),
        Err(BarrierError::Fatal(why)) => Problem::broken(why).into_response(),
    }
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
) -> Json<BootRole> {
    Json(state.store.read(|state| state.boot_role(&node, asked.epoch)))
}

async fn role_of_mac(
    State(state): State<ApiState>,
    Path(mac): Path<Mac>,
    Query(asked): Query<Asked>,
) -> Json<BootRole> {
    Json(role(&state, mac, asked.epoch))
}

async fn script(State(state): State<ApiState>, Path(mac): Path<Mac>) -> Response {
    let role = role(&state, mac, None);
    match role {
        BootRole::Boots { .. } => tracing::info!(%mac, %role, "a node starts"),
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
