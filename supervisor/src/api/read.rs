//! Requests that read. Each is one pure function of [`Facts`].

use super::answers::{
    self, FailoverDetail, FailoverLine, InstanceDetail, InstanceLine, NodeDetail, NodeLine, Status,
};
use super::explain::{Explanation, explain};
use super::facts::Facts;
use super::{ApiState, Code, Local, Problem, members, tenant};
use crate::auth::{Caller, Reach};
use crate::clock;
use crate::metrics::Scene;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use policies::{Coverage, InstanceId, NodeId, PlanId};
use serde::{Deserialize, Serialize};
use std::str::FromStr;
use utoipa::ToSchema;

/// How the answering member is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(super) struct Health {
    /// The answering member.
    member: u64,
    /// The leader that it sees; absent: no quorum, nothing is done.
    leader: Option<u64>,
    /// Log index of the last applied entry.
    applied: u64,
}

/// Answers with the committed state and the newest view, or with the caller's part of them.
pub(super) fn facts<T>(state: &ApiState, caller: &Caller, answer: impl FnOnce(Facts<'_>) -> T) -> T {
    let view = state.view.borrow().clone();
    let now = clock::wall();
    state.store.read(|committed| match &caller.reach {
        Reach::Cluster => answer(Facts { state: committed, view: &view, now }),
        Reach::Tenant { tenant, .. } => {
            let (own, view) = tenant::part(committed, &view, tenant);
            answer(Facts { state: &own, view: &view, now })
        }
    })
}

/// Who would take over from whom, and which failure domains could be lost.
#[utoipa::path(get, path = "/v1/coverage", responses((status = 200, body = Object)))]
pub(super) async fn coverage(State(state): State<ApiState>) -> Result<Json<Coverage>, Problem> {
    work_out_coverage(&state).await.map(Json)
}

async fn work_out_coverage(state: &ApiState) -> Result<Coverage, Problem> {
    let view = state.view.borrow().clone();
    // A copy, for the state's lock must not be held as long as this takes.
    let committed = state.store.read(Clone::clone);
    let coverage = tokio::task::spawn_blocking(move || Coverage::of(&committed, &view)).await;
    coverage.map_err(|error| Problem::broken(format!("work out the coverage: {error}")))
}

/// The same, if this member leads: the others do not know which spares are off.
async fn coverage_if_leader(state: &ApiState) -> Result<Option<Coverage>, Problem> {
    let leads = state.view.borrow().leads.is_some();
    if leads { work_out_coverage(state).await.map(Some) } else { Ok(None) }
}

/// Reads a name of a path; a text that is no name is a 400 that says what a name is.
pub(super) fn parse<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Problem> {
    text.parse()
        .map_err(|error: T::Err| Problem::bad_request(error.to_string(), "give the name as in the list"))
}

/// Whether this member sees a leader.
#[utoipa::path(get, path = "/healthz", responses((status = 200, body = Health), (status = 503, body = Health)))]
pub(super) async fn healthz(State(state): State<ApiState>) -> Response {
    let leader = state.store.leader().map(|leader| leader.id.0);
    let applied = state.store.read(|committed| committed.applied.0);
    let status = if leader.is_some() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Health { member: state.config.member.id, leader, applied })).into_response()
}

/// The metrics of this member in the Prometheus text form.
#[utoipa::path(get, path = "/metrics", responses((status = 200, content_type = "text/plain", body = String)))]
pub(super) async fn metrics(State(state): State<ApiState>) -> Result<Response, Problem> {
    let leader = state.store.leader().map(|leader| leader.id);
    let me = state.config.me();
    let progress = &state.store.progress();
    let coverage = coverage_if_leader(&state).await?;
    let coverage = coverage.as_ref();
    let text = state
        .store
        .read(|committed| state.metrics.text(Scene { state: committed, me, leader, progress, coverage }));
    let text = text.map_err(|error| Problem::broken(policies::causes(&error)))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

/// The one-screen status.
#[utoipa::path(get, path = "/v1/status", params(("local" = Option<bool>, Query)), responses((status = 200, body = Status)))]
pub(super) async fn status(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Extension(Local(local)): Extension<Local>,
) -> Result<Json<Status>, Problem> {
    let members = members::lines(&state);
    let coverage = coverage_if_leader(&state).await?;
    Ok(Json(facts(&state, &caller, |facts| Status {
        cluster: state.config.cluster.name.clone(),
        now: facts.now,
        answered_by: state.config.me(),
        local,
        not_acting: facts.view.not_acting.as_ref().map(ToString::to_string),
        not_judging: answers::not_judging(&members),
        armed: facts.state.armed.clone(),
        members,
        nodes: facts.node_counts(),
        instances: facts.state.instances.len() as u64,
        failovers: facts.failovers().into_iter().filter(|line| !line.phase.is_over()).collect(),
        coverage: coverage.as_ref().map(answers::CoverageTold::of),
        attention: facts.attention(),
    })))
}

/// All nodes.
#[utoipa::path(get, path = "/v1/nodes", responses((status = 200, body = Vec<NodeLine>)))]
pub(super) async fn nodes(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
) -> Json<Vec<NodeLine>> {
    Json(facts(&state, &caller, |facts| facts.nodes()))
}

/// One node.
#[utoipa::path(get, path = "/v1/nodes/{name}", params(("name" = String, Path)), responses((status = 200, body = NodeDetail), (status = 404, body = Problem)))]
pub(super) async fn node(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<NodeDetail>, Problem> {
    let id: NodeId = parse(&name)?;
    facts(&state, &caller, |facts| facts.node(&id))
        .map(Json)
        .ok_or_else(|| Problem::not_there(&format!("node {id}"), "node list"))
}

/// All instances.
#[utoipa::path(get, path = "/v1/instances", responses((status = 200, body = Vec<InstanceLine>)))]
pub(super) async fn instances(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
) -> Json<Vec<InstanceLine>> {
    Json(facts(&state, &caller, |facts| facts.instances()))
}

/// One instance.
#[utoipa::path(get, path = "/v1/instances/{name}", params(("name" = String, Path)), responses((status = 200, body = InstanceDetail), (status = 404, body = Problem)))]
pub(super) async fn instance(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<InstanceDetail>, Problem> {
    let id: InstanceId = parse(&name)?;
    let found = facts(&state, &caller, |facts| facts.instance(&id));
    found.map(Json).ok_or_else(|| Problem::not_there(&format!("instance {id}"), "instance list"))
}

/// Failovers, newest first.
#[utoipa::path(get, path = "/v1/failovers", responses((status = 200, body = Vec<FailoverLine>)))]
pub(super) async fn failovers(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
) -> Json<Vec<FailoverLine>> {
    Json(facts(&state, &caller, |facts| facts.failovers()))
}

/// One failover.
#[utoipa::path(get, path = "/v1/failovers/{id}", params(("id" = String, Path)), responses((status = 200, body = FailoverDetail), (status = 404, body = Problem)))]
pub(super) async fn failover(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<FailoverDetail>, Problem> {
    let id: PlanId = parse(&id)?;
    let found = facts(&state, &caller, |facts| facts.failover(id));
    found.map(Json).ok_or_else(|| Problem::not_there(&format!("failover {id}"), "failover list"))
}

/// Seen? Judged? Planned? Attempted? Proved?
#[utoipa::path(get, path = "/v1/explain/{target}", params(("target" = String, Path)), responses((status = 200, body = Explanation), (status = 404, body = Problem)))]
pub(super) async fn explanation(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(target): Path<String>,
) -> Result<Json<Explanation>, Problem> {
    let found = facts(&state, &caller, |facts| explain(facts, &target));
    let hint = "`hactl node list`, `hactl instance list` and `hactl failover list` show what there is";
    found.map(Json).map_err(|error| Problem::new(Code::NotThere, error.to_string(), hint))
}
