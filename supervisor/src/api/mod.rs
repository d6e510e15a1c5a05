//! The HTTPS API of a member: who may ask, what is answered, what is proposed.
//!
//! Why it exists: `hactl`, Prometheus and other programs speak to the cluster only through it. Handlers read committed
//! state, or propose and return. What it never does: act on the world, decide, or answer from a state that no quorum
//! stands behind without saying so.

pub mod answers;
mod boot;
mod change;
pub mod compare;
mod console;
mod events;
pub mod explain;
pub mod facts;
mod flight;
mod gate;
mod inventory;
mod members;
mod openapi;
mod policy;
mod power;
mod problem;
mod providers;
mod read;
mod serve;
mod spares;
mod tenant;

pub use boot::boot_router;
pub(crate) use change::read_json;
pub use change::{Applying, Draining, Limited, Reason, Switch};
pub use console::{HOW as CONSOLE_HOW, Typing};
pub use inventory::{DifferenceLine, FieldLine, How, ProviderInventory, RemarkLine};
pub use members::{NewMember, Transfer};
pub use openapi::description;
pub use policy::{Became, Deleting, EffectivePolicy, OtherPolicy, Policing, PolicyVersion};
pub use power::Powering;
pub use problem::{Code, Problem};
pub use providers::ProviderLine;
pub use serve::{Peer, serve};
pub use spares::SpareLine;

use crate::auth::{Caller, Reach, Role, Tokens};
use crate::clock;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::runtime::Question;
use crate::seal::Seal;
use crate::tenants::{self, Tenants};
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Router, middleware};
use policies::View;
use raft_store::{BarrierError, Flight, Store};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use zeroize::Zeroizing;

/// What the handlers work with.
#[derive(Clone)]
pub struct ApiState {
    /// The replicated log and the committed state.
    pub store: Store,
    /// What this member observed.
    pub flight: Flight,
    /// What this member believes and why it waits, as the engine last said.
    pub view: watch::Receiver<Arc<View>>,
    /// Asks the loop.
    pub ask: mpsc::Sender<Question>,
    /// Seals secrets of incoming documents.
    pub seal: Seal,
    /// Counters, and the text of `/metrics`.
    pub metrics: Metrics,
    /// API tokens.
    pub tokens: Arc<Tokens>,
    /// Keystone's tokens.
    pub tenants: Arc<Tenants>,
    /// This member's configuration.
    pub config: Arc<Config>,
}

/// All routes, with authentication, limits and metrics around them.
pub fn router(state: ApiState) -> Router {
    let body_bytes_max = state.config.api.body_bytes_max;
    let by_leader = middleware::from_fn_with_state(state.clone(), lead);
    answered_here()
        .merge(answered_by_leader().route_layer(by_leader))
        .fallback(unknown_route)
        .layer(DefaultBodyLimit::max(body_bytes_max))
        .layer(middleware::from_fn_with_state(state.clone(), limit_time))
        .layer(middleware::from_fn_with_state(state.clone(), authenticate))
        .layer(middleware::from_fn_with_state(state.clone(), count))
        .with_state(state)
}

/// What each member answers for itself.
fn answered_here() -> Router<ApiState> {
    Router::new()
        .route("/healthz", get(read::healthz))
        .route("/metrics", get(read::metrics))
        .route("/openapi.json", get(openapi::document))
        .route("/v1/members", get(members::list))
        .route("/v1/events", get(events::list))
        .route("/v1/events/follow", get(events::follow))
        .route("/v1/flight", get(flight::record))
}

/// What only the leader answers: its state is the newest, and its view is the one that is acted on.
fn answered_by_leader() -> Router<ApiState> {
    Router::new()
        .route("/v1/status", get(read::status))
        .route("/v1/nodes", get(read::nodes))
        .route("/v1/nodes/{name}", get(read::node).delete(change::delete_node))
        .route("/v1/nodes/{name}/cordon", post(change::cordon))
        .route("/v1/nodes/{name}/maintenance", post(change::maintenance))
        .route("/v1/nodes/{name}/drain", post(change::drain))
        .route("/v1/nodes/{name}/fence", post(change::fence))
        .route("/v1/nodes/{name}/confirm-off", post(change::confirm_off))
        .route("/v1/nodes/{name}/release", post(change::release))
        .route("/v1/nodes/{name}/power", get(power::look).post(power::switch))
        .route("/v1/nodes/{name}/console", get(console::read).post(console::type_in))
        .route("/v1/nodes/{name}/nmi", post(power::interrupt))
        .route("/v1/instances", get(read::instances))
        .route("/v1/instances/{name}", get(read::instance).delete(change::delete_instance))
        .route("/v1/instances/{name}/evacuate", post(change::evacuate))
        .route("/v1/instances/{name}/backup", post(change::backup))
        .route("/v1/instances/{name}/approve", post(change::approve))
        .route("/v1/instances/{name}/policy", get(policy::effective))
        .route("/v1/spares", get(spares::list))
        .route("/v1/providers", get(providers::list))
        .route("/v1/providers/{name}", delete(change::delete_provider))
        .route("/v1/providers/{name}/inventory", get(inventory::compare))
        .route("/v1/failovers", get(read::failovers))
        .route("/v1/failovers/{id}", get(read::failover))
        .route("/v1/failovers/{id}/cancel", post(change::cancel))
        .route("/v1/explain/{*target}", get(read::explanation))
        .route("/v1/policies", get(policy::list))
        .route("/v1/policies/{name}", get(policy::get).put(policy::set).delete(policy::delete))
        .route("/v1/policies/{name}/history", get(policy::history))
        .route("/v1/policies/{name}/plan", post(policy::plan))
        .route("/v1/coverage", get(read::coverage))
        .route("/v1/lint", get(policy::lint))
        .route("/v1/apply", post(change::apply))
        .route("/v1/arm", post(change::arm))
        .route("/v1/disarm", post(change::disarm))
        .route("/v1/members", post(members::add))
        .route("/v1/members/{id}", delete(members::remove))
        .route("/v1/members/{id}/promote", post(members::promote))
        .route("/v1/leader", post(members::transfer))
}

/// True in the extensions of a request that is answered from this member's own memory, whoever leads.
#[derive(Clone, Copy, Debug)]
struct Local(bool);

/// Lets a request through if this member leads (reads: confirmed by a quorum) or if it asks for this member's own
/// memory (`?local=true`); sends it to the leader otherwise.
async fn lead(State(state): State<ApiState>, mut request: Request, next: Next) -> Response {
    let reads = request.method() == Method::GET || request.method() == Method::HEAD;
    let local =
        reads && request.uri().query().is_some_and(|query| query.split('&').any(|part| part == "local=true"));
    request.extensions_mut().insert(Local(local));
    if local {
        return next.run(request).await;
    }
    if !state.store.is_leader() {
        return redirect(&state, request).await;
    }
    if !reads {
        return next.run(request).await;
    }
    match state.store.barrier().await {
        Ok(()) => next.run(request).await,
        Err(BarrierError::NotLeader { .. }) => redirect(&state, request).await,
        Err(BarrierError::NoQuorum { .. }) => Problem::no_quorum().into_response(),
        Err(BarrierError::Fatal(why)) => Problem::broken(why).into_response(),
    }
}

async fn redirect(state: &ApiState, request: Request) -> Response {
    let leader = match state.store.leader() {
        Some(leader) if leader.id != state.config.me() => leader,
        Some(_) => {
            let error = "the leader is changing; nothing was changed";
            return Problem::new(Code::NotYet, error, "try again").into_response();
        }
        None => return Problem::no_quorum().into_response(),
    };
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    // A body that is left unread makes an HTTP/1.1 connection end before the client has read the answer.
    if axum::body::to_bytes(request.into_body(), state.config.api.body_bytes_max).await.is_err() {
        return Problem::new(Code::TooLarge, "the body is too large", "send less at once").into_response();
    }
    let location = format!("https://{}{path}", leader.api);
    (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location)]).into_response()
}

async fn unknown_route(request: Request) -> Problem {
    let error = format!("there is no {} {}", request.method(), request.uri().path());
    Problem::new(Code::NotThere, error, "/openapi.json lists what there is")
}

/// Who has an account in a cloud shows a token of its Keystone in this header, as to every service there.
pub const TENANT_TOKEN: &str = "x-auth-token";
/// Which of several clouds gave it.
pub const TENANT_PROVIDER: &str = "x-ha-provider";

/// Lets a request through only with a caller whose role allows its method: reading needs `reader`, all else `operator`. Whoever
/// shows a token of a cloud comes as its tenant, even with a certificate: of two names the one with less rights counts.
async fn authenticate(
    State(state): State<ApiState>,
    Extension(peer): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let caller = match (request.headers_mut().remove(TENANT_TOKEN), peer.caller) {
        (Some(token), _) => tenant_caller(&state, &token, request.headers().get(TENANT_PROVIDER)).await,
        (None, Some(caller)) => Ok(caller),
        (None, None) => token_caller(&state.tokens, &request),
    };
    let caller = match caller.and_then(|caller| may(caller, &request)) {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    request.extensions_mut().insert(caller);
    next.run(request).await
}

fn may(caller: Caller, request: &Request) -> Result<Caller, Problem> {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    tenant::may_use(&caller, request.method(), route)?;
    let needed = match *request.method() {
        Method::GET | Method::HEAD => Role::Reader,
        _ => Role::Operator,
    };
    if caller.role >= needed {
        return Ok(caller);
    }
    let error = format!("{} is a {} and may not do this", caller.name, caller.role);
    let hint = match caller.reach {
        Reach::Cluster => "ask an operator",
        Reach::Tenant { .. } => "it needs the role member in the project",
    };
    Err(Problem::new(Code::NotAllowed, error, hint))
}

async fn tenant_caller(
    state: &ApiState,
    token: &HeaderValue,
    provider: Option<&HeaderValue>,
) -> Result<Caller, Problem> {
    let denied = |why| tenant::denied(&why);
    let token = Zeroizing::new(token.to_str().unwrap_or_default().to_owned());
    // What is no text names no provider.
    let named = provider.map(|name| name.to_str().unwrap_or_default());
    let provider = state.store.read(|committed| tenants::cloud(committed, named)).map_err(denied)?;
    state.tenants.caller(&provider, &token, clock::wall()).await.map_err(denied)
}

fn token_caller(tokens: &Tokens, request: &Request) -> Result<Caller, Problem> {
    let unknown = || {
        let hint = "show a client certificate of the cluster's CA, `Authorization: Bearer` with a token of \
                    `ha-supervisord token create`, or `X-Auth-Token` with one of a cloud's Keystone";
        Problem::new(Code::NotAuthenticated, "you have not said who you are", hint)
    };
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = shown.and_then(|value| value.strip_prefix("Bearer ")).ok_or_else(unknown)?;
    match tokens.caller(token.trim()) {
        Ok(caller) => caller.ok_or_else(unknown),
        Err(error) => {
            tracing::error!(
                error = policies::causes(&error),
                "no token is accepted until the tokens file is repaired"
            );
            Err(unknown())
        }
    }
}

/// Answers 503 when a request takes longer than `request_time_max`; a stream of events has none, for only the time to
/// its first byte counts.
async fn limit_time(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let limit = Duration::from_millis(state.config.api.request_time_max.0);
    let reads = request.method() == Method::GET;
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) if reads => {
            let error = format!("no answer within {}", state.config.api.request_time_max);
            Problem::new(Code::NotYet, error, "try again").into_response()
        }
        Err(_) => Problem::outcome_unknown().into_response(),
    }
}

async fn count(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let mut response = next.run(request).await;
    state.metrics.answered(method.as_str(), &route, response.status().as_u16(), began.elapsed());
    // Answers say what is so now; nobody between may keep them.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
