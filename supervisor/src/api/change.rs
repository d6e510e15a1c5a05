//! Requests that change: each becomes one proposal in the caller's name, and the answer says what was committed.
//!
//! Why it exists: everything that an operator orders must be in the log with who ordered it and why. What it never
//! does: change anything itself, or leave half of a request done.

use super::answers::{Committed, Described};
use super::compare::{compare, duplicate};
use super::gate::{Force, propose_gated};
use super::read::parse;
use super::{ApiState, Code, Problem, tenant};
use crate::auth::{Caller, Reach};
use crate::clock;
use crate::document;
use crate::seal::Seal;
use axum::body::Bytes;
use axum::extract::{FromRequest, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use policies::{ClusterState, Command, Documents, Millis, Object, Proposal, Wall};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::time::Instant;
use utoipa::ToSchema;

/// An order with its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// Why; kept for ever.
    pub reason: String,
}

/// An order that may end by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Limited {
    /// Why; kept for ever.
    pub reason: String,
    /// When it ends by itself, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub until: Option<Wall>,
}

/// An order to switch something on or off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Switch {
    /// On or off.
    pub on: bool,
    /// Why; needed to switch maintenance on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When a maintenance ends by itself, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub until: Option<Wall>,
}

/// Documents to apply. The same form as in TOML: `provider`, `node`, `instance`, `policy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Applying {
    /// The documents; a sealed field holds the plain secret.
    #[schema(value_type = Object)]
    pub documents: Documents,
}

/// A JSON body whose errors name the key.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<ApiState> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, state).await.map_err(|error| {
            let code = if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
                Code::TooLarge
            } else {
                Code::BadRequest
            };
            Problem::new(code, format!("read the body: {error}"), "nothing was changed")
        })?;
        read_json(&bytes).map(Body)
    }
}

pub(crate) fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let read = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let key = error.path().to_string();
        bad_body(&format!("key {key}: "), &error.into_inner())
    })?;
    json.end().map(|()| read).map_err(|error| bad_body("", &error))
}

fn bad_body(key: &str, error: &serde_json::Error) -> Problem {
    let message = error.to_string();
    let meant = document::unknown_key(&message)
        .and_then(|unknown| document::nearest(unknown, document::expected_keys(&message)));
    let hint = match meant {
        Some(meant) => format!("did you mean `{meant}`? Nothing was changed"),
        None => "/openapi.json describes the body; nothing was changed".to_owned(),
    };
    Problem::bad_request(format!("{key}{message}"), hint)
}

/// Proposes in the caller's name and says what was committed.
pub(super) async fn propose(
    state: &ApiState,
    caller: &Caller,
    command: Command,
) -> Result<Json<Committed>, Problem> {
    if let Reach::Tenant { .. } = caller.reach {
        // Whose it is must be the newest that is known, or what has become another's may be moved.
        state.store.barrier().await.map_err(|_| Problem::no_quorum())?;
        state.store.read(|committed| tenant::may_order(committed, caller, &command))?;
    }
    let proposal = Proposal { at: clock::wall(), by: caller.name.clone(), command };
    let began = Instant::now();
    let answer = state.store.propose(proposal).await;
    let result = match &answer {
        Ok((_, Ok(_))) => "applied",
        Ok((_, Err(_))) => "rejected",
        Err(_) => "failed",
    };
    state.metrics.proposed(result, began.elapsed());
    match answer {
        Ok((index, Ok(applied))) => Ok(Json(Committed { index, events: applied.events })),
        Ok((_, Err(why))) => Err(Problem::rejected(&why)),
        Err(error) => Err(Problem::of_propose(&error)),
    }
}

/// An order whose body is only its reason: who gives it and why.
pub(super) struct Order {
    state: ApiState,
    caller: Caller,
    reason: String,
}

impl FromRequest<ApiState> for Order {
    type Rejection = Problem;

    async fn from_request(mut request: Request, state: &ApiState) -> Result<Self, Problem> {
        let caller = request.extensions_mut().remove::<Caller>();
        let caller = caller.ok_or_else(|| Problem::broken("a request came past the authentication"))?;
        let Body(Reason { reason }) = Body::from_request(request, state).await?;
        Ok(Order { state: state.clone(), caller, reason: checked(&reason)? })
    }
}

impl Order {
    pub(super) async fn propose(
        self,
        command: impl FnOnce(String) -> Command,
    ) -> Result<Json<Committed>, Problem> {
        propose(&self.state, &self.caller, command(self.reason)).await
    }

    async fn delete_gated(self, what: Object, force: Force) -> Result<Json<Committed>, Problem> {
        let command = Command::Delete { what, reason: self.reason };
        propose_gated(&self.state, &self.caller, command, force).await
    }
}

/// Longest reason in bytes: it is kept in the log for ever.
const REASON_BYTES_MAX: usize = 1000;

pub(super) fn checked(reason: &str) -> Result<String, Problem> {
    let reason = reason.trim();
    match reason.len() {
        1..=REASON_BYTES_MAX => Ok(reason.to_owned()),
        _ => Err(Problem::bad_request(
            format!("key reason: must have 1 to {REASON_BYTES_MAX} bytes; nothing was changed"),
            "say in a few words why, for those who read it later",
        )),
    }
}

/// An order that has ended before it begins is a slip of the pen.
fn in_the_future(until: Wall) -> Result<Wall, Problem> {
    match until > clock::wall() {
        true => Ok(until),
        false => Err(Problem::bad_request(
            "key until: that time is over; nothing was changed",
            "give a time that is still to come, by the clock of this member",
        )),
    }
}

/// Cordons a node, or lifts it.
#[utoipa::path(post, path = "/v1/nodes/{name}/cordon", params(("name" = String, Path), Force), request_body = Switch, responses((status = 200, body = Committed), (status = 409, body = Problem)))]
pub(super) async fn cordon(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(force): Query<Force>,
    Body(Switch { on, .. }): Body<Switch>,
) -> Result<Json<Committed>, Problem> {
    let node = parse(&name)?;
    let command = Command::Cordon { node, on };
    // To lift it takes nothing away.
    match on {
        true => propose_gated(&state, &caller, command, force).await,
        false => propose(&state, &caller, command).await,
    }
}

/// Puts a node into maintenance, or ends it.
#[utoipa::path(post, path = "/v1/nodes/{name}/maintenance", params(("name" = String, Path), Force), request_body = Switch, responses((status = 200, body = Committed), (status = 409, body = Problem)))]
pub(super) async fn maintenance(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(force): Query<Force>,
    Body(Switch { on, reason, until }): Body<Switch>,
) -> Result<Json<Committed>, Problem> {
    let node = parse(&name)?;
    let reason = if on { Some(checked(&reason.unwrap_or_default())?) } else { None };
    let until = until.map(in_the_future).transpose()?;
    let command = Command::Maintain { node, reason, until };
    match on {
        true => propose_gated(&state, &caller, command, force).await,
        false => propose(&state, &caller, command).await,
    }
}

/// Fences a node, whatever its health.
#[utoipa::path(post, path = "/v1/nodes/{name}/fence", params(("name" = String, Path)), request_body = Reason, responses((status = 200, body = Committed), (status = 409, body = Problem)))]
pub(super) async fn fence(Path(name): Path<String>, order: Order) -> Result<Json<Committed>, Problem> {
    let node = parse(&name)?;
    order.propose(|reason| Command::Fence { node, reason }).await
}

/// A planned move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Draining {
    /// Why; kept for ever.
    pub reason: String,
    /// How long the node's system has to shut down before the node is fenced, e.g. `5m`; absent: as the policy says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub shutdown: Option<Millis>,
}

/// Cordons a node and moves its instance politely.
#[utoipa::path(post, path = "/v1/nodes/{name}/drain", params(("name" = String, Path), Force), request_body = Draining, responses((status = 200, body = Committed), (status = 409, body = Problem)))]
pub(super) async fn drain(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(force): Query<Force>,
    Body(Draining { reason, shutdown }): Body<Draining>,
) -> Result<Json<Committed>, Problem> {
    let (node, reason) = (parse(&name)?, checked(&reason)?);
    let by_policy = |state: &ClusterState| {
        state.policy_of_node(&node).map(|(_, record)| record.policy.takeover.shutdown_deadline)
    };
    let shutdown = shutdown.or_else(|| state.store.read(by_policy)).unwrap_or_default();
    propose_gated(&state, &caller, Command::Drain { node, reason, shutdown }, force).await
}

/// Vouches that a node is off.
#[utoipa::path(post, path = "/v1/nodes/{name}/confirm-off", params(("name" = String, Path)), request_body = Reason, responses((status = 200, body = Committed), (status = 409, body = Problem)))]
pub(super) async fn confirm_off(Path(name): Path<String>, order: Order) -> Result<Json<Committed>, Problem> {
    let node = parse(&name)?;
    order.propose(|reason| Command::ConfirmOff { node, reason }).await
}

/// Lets a quarantined node become a spare again.
#[utoipa::path(post, path = "/v1/nodes/{name}/release", params(("name" = String, Path)), request_body = Reason, responses((status = 200, body = Committed), (status = 409, body = Problem)))]
pub(super) async fn release(Path(name): Path<String>, order: Order) -> Result<Json<Committed>, Problem> {
    let node = parse(&name)?;
    order.propose(|reason| Command::Release { node, reason }).await
}

/// Moves an instance after a fence of its node.
#[utoipa::path(post, path = "/v1/instances/{name}/evacuate", params(("name" = String, Path)), request_body = Reason, responses((status = 200, body = Committed), (status = 409, body = Problem)))]
pub(super) async fn evacuate(Path(name): Path<String>, order: Order) -> Result<Json<Committed>, Problem> {
    let instance = parse(&name)?;
    order.propose(|reason| Command::Evacuate { instance, reason }).await
}

/// Keeps what is on the instance's volumes now, each as a snapshot of its own.
#[utoipa::path(post, path = "/v1/instances/{name}/backup", params(("name" = String, Path)), request_body = Reason, responses((status = 200, body = Committed), (status = 409, body = Problem)))]
pub(super) async fn backup(Path(name): Path<String>, order: Order) -> Result<Json<Committed>, Problem> {
    let instance = parse(&name)?;
    order.propose(|reason| Command::Backup { instance, reason }).await
}

/// Lets a decided failover of this instance begin that waits for a human.
#[utoipa::path(post, path = "/v1/instances/{name}/approve", params(("name" = String, Path)), request_body = Reason, responses((status = 200, body = Committed), (status = 409, body = Problem)))]
pub(super) async fn approve(Path(name): Path<String>, order: Order) -> Result<Json<Committed>, Problem> {
    let instance = parse(&name)?;
    order.propose(|reason| Command::Approve { instance, reason }).await
}

/// Calls a failover off before anything was done.
#[utoipa::path(post, path = "/v1/failovers/{id}/cancel", params(("id" = String, Path)), request_body = Reason, responses((status = 200, body = Committed), (status = 409, body = Problem)))]
pub(super) async fn cancel(Path(id): Path<String>, order: Order) -> Result<Json<Committed>, Problem> {
    let plan = parse(&id)?;
    order.propose(|reason| Command::Cancel { plan, reason }).await
}

/// Deletes a node; only a spare can go.
#[utoipa::path(delete, path = "/v1/nodes/{name}", params(("name" = String, Path), Force), request_body = Reason, responses((status = 200, body = Committed), (status = 409, body = Problem)))]
pub(super) async fn delete_node(
    Path(name): Path<String>,
    Query(force): Query<Force>,
    order: Order,
) -> Result<Json<Committed>, Problem> {
    let what = Object::Node(parse(&name)?);
    order.delete_gated(what, force).await
}

/// Deletes an instance: it is protected no more. Its node goes on running it, and is cordoned.
#[utoipa::path(delete, path = "/v1/instances/{name}", params(("name" = String, Path), Force), request_body = Reason, responses((status = 200, body = Committed), (status = 409, body = Problem)))]
pub(super) async fn delete_instance(
    Path(name): Path<String>,
    Query(force): Query<Force>,
    order: Order,
) -> Result<Json<Committed>, Problem> {
    let what = Object::Instance(parse(&name)?);
    order.delete_gated(what, force).await
}

/// Deletes a provider on which nothing relies.
#[utoipa::path(delete, path = "/v1/providers/{name}", params(("name" = String, Path)), request_body = Reason, responses((status = 200, body = Committed), (status = 409, body = Problem)))]
pub(super) async fn delete_provider(
    Path(name): Path<String>,
    order: Order,
) -> Result<Json<Committed>, Problem> {
    let what = Object::Provider(parse(&name)?);
    order.propose(|reason| Command::Delete { what, reason }).await
}

/// Lets the cluster act by itself.
#[utoipa::path(post, path = "/v1/arm", request_body = Reason, responses((status = 200, body = Committed), (status = 409, body = Problem)))]
pub(super) async fn arm(order: Order) -> Result<Json<Committed>, Problem> {
    order.propose(|reason| Command::Arm { reason }).await
}

/// Lets the cluster only watch.
#[utoipa::path(post, path = "/v1/disarm", request_body = Limited, responses((status = 200, body = Committed), (status = 409, body = Problem)))]
pub(super) async fn disarm(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Body(Limited { reason, until }): Body<Limited>,
) -> Result<Json<Committed>, Problem> {
    let (reason, until) = (checked(&reason)?, until.map(in_the_future).transpose()?);
    propose(&state, &caller, Command::Disarm { reason, until }).await
}

/// Describes providers, nodes, instances and policies: all of it or nothing.
#[utoipa::path(post, path = "/v1/apply", params(Force), request_body = Applying, responses((status = 200, body = Described), (status = 400, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn apply(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Query(force): Query<Force>,
    Body(Applying { mut documents }): Body<Applying>,
) -> Result<Json<Described>, Problem> {
    // What is compared must be the newest state, or "unchanged" may be wrong.
    state.store.barrier().await.map_err(|_| Problem::no_quorum())?;
    let objects = state.store.read(|committed| prepare(committed, &state.seal, &mut documents))?;
    if documents == Documents::default() {
        return Ok(Json(Described { objects, index: None }));
    }
    let command = Command::Describe(Box::new(documents));
    let Json(committed) = propose_gated(&state, &caller, command, force).await?;
    Ok(Json(Described { objects, index: Some(committed.index) }))
}

/// Seals the secrets, keeps what did not change out of the log, and says what will be done with each object.
fn prepare(
    state: &ClusterState,
    seal: &Seal,
    documents: &mut Documents,
) -> Result<Vec<super::answers::ObjectChange>, Problem> {
    let bad = |why: String| Problem::bad_request(why, "nothing was changed");
    if let Some(twice) = duplicate(documents) {
        return Err(bad(format!("{twice} is described twice")));
    }
    for node in &mut documents.nodes {
        let old = state.nodes.get(&node.name).map(|record| &*record.node);
        seal.seal_node(node, old).map_err(|error| bad(error.to_string()))?;
    }
    for provider in &mut documents.providers {
        let old = state.providers.get(&provider.name);
        seal.seal_provider(provider, old).map_err(|error| bad(error.to_string()))?;
    }
    for instance in &documents.instances {
        let Some(record) = state.instances.get(&instance.name) else { continue };
        if instance.node != record.node && instance.node != record.instance.node {
            return Err(Problem::bad_request(
                format!(
                    "instance/{}: `node` says {}, but it is on {}",
                    instance.name, instance.node, record.node
                ),
                format!(
                    "`node` is only where it is at first; `hactl instance evacuate {}` moves it",
                    instance.name
                ),
            ));
        }
    }
    Ok(compare(state, documents))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bad_body_names_the_key() {
        let problem = read_json::<Reason>(br#"{"raeson":"x"}"#).unwrap_err();
        assert!(problem.error.contains("unknown field `raeson`"), "{problem:?}");
        assert!(problem.hint.starts_with("did you mean `reason`?"), "{problem:?}");
        let problem = read_json::<Applying>(br#"{"node":[{"name":"n1"},{"name":"N 2"}]}"#).unwrap_err();
        assert!(problem.error.starts_with("key node[1].name: "), "{problem:?}");
        assert!(read_json::<Reason>(br#"{"reason":"x"} more"#).is_err());
        assert_eq!(problem.code, Code::BadRequest);
    }

    #[test]
    fn a_reason_is_needed() {
        assert_eq!(checked("  dead disk "), Ok("dead disk".to_owned()));
        assert!(checked("   ").is_err());
        assert!(checked(&"x".repeat(REASON_BYTES_MAX + 1)).is_err());
    }

    proptest! {
        #[test]
        fn any_body_is_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Err(problem) = read_json::<Applying>(&body) {
                prop_assert_eq!(problem.code, Code::BadRequest);
            }
        }

        #[test]
        fn any_json_is_read_or_refused(key in "[a-z_]{0,12}", text in "\\PC{0,60}", deep in 0usize..300) {
            let nested = format!("{}{}", "[".repeat(deep), "]".repeat(deep));
            let value = serde_json::json!({ "node": [{ "name": text, key: text }] }).to_string();
            for body in [nested, value] {
                if let Err(problem) = read_json::<Applying>(body.as_bytes()) {
                    prop_assert_eq!(problem.code, Code::BadRequest);
                }
            }
        }
    }
}
