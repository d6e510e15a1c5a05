//! Requests about policies: read them and their past, try them, change them.
//!
//! Why it exists: a policy decides whom this program may switch off, so each version has an author and a reason, and can
//! be tried before it counts. What it never does: know which values are good; the document itself does.

use super::answers::{Committed, PolicyDetail};
use super::change::{Body, checked};
use super::facts::Facts;
use super::gate::{Force, propose_gated};
use super::read::{facts, parse};
use super::{ApiState, Code, Problem};
use crate::auth::Caller;
use crate::clock;
use crate::runtime::Question;
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use policies::{
    Applies, Because, ClusterState, Command, InstanceId, LogIndex, Order, Policy, PolicyChange, PolicyId,
    PolicyRecord, Preview, Selection, Unable,
};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use utoipa::ToSchema;

/// A change of a policy: single keys, or the whole content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Policing {
    /// `section.key` and its new value, in order. On a policy that does not exist they change the default preset.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<(String, String)>,
    /// The whole content, instead of changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub policy: Option<Policy>,
    /// The version that was read; the change is refused if it is another now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub check: Option<LogIndex>,
    /// Why; kept with the version.
    pub reason: String,
}

/// A deletion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Deleting {
    /// The version that was read; the deletion is refused if it is another now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub check: Option<LogIndex>,
    /// Why; kept with the version.
    pub reason: String,
}

/// One version of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyVersion {
    /// Its log index; 0 for an untouched preset.
    #[schema(value_type = u64)]
    pub version: LogIndex,
    /// Who made it, why and when.
    #[schema(value_type = Object)]
    pub order: Order,
    /// What became of the policy with it.
    pub became: Became,
    /// What it changed of the version before; empty for the oldest that is known.
    #[schema(value_type = Vec<Object>)]
    pub changes: Vec<PolicyChange>,
    /// The whole content.
    #[schema(value_type = Object)]
    pub policy: Policy,
}

/// What became of a policy with a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Became {
    /// It counts now.
    InForce,
    /// It counted until the next version.
    Replaced,
    /// The policy was deleted.
    Deleted,
}

/// All policies.
#[utoipa::path(get, path = "/v1/policies", responses((status = 200, body = Vec<PolicyDetail>)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
) -> Json<Vec<PolicyDetail>> {
    Json(facts(&state, &caller, |facts| facts.policies()))
}

/// One policy.
#[utoipa::path(get, path = "/v1/policies/{name}", params(("name" = String, Path)), responses((status = 200, body = PolicyDetail), (status = 404, body = Problem)))]
pub(super) async fn get(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<PolicyDetail>, Problem> {
    let id: PolicyId = parse(&name)?;
    let found = facts(&state, &caller, |facts| facts.policy(&id));
    found.map(Json).ok_or_else(|| Problem::not_there(&format!("policy {id}"), "policy list"))
}

/// The versions of a policy that are kept, newest first; a deleted policy has them too.
#[utoipa::path(get, path = "/v1/policies/{name}/history", params(("name" = String, Path)), responses((status = 200, body = Vec<PolicyVersion>), (status = 404, body = Problem)))]
pub(super) async fn history(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Vec<PolicyVersion>>, Problem> {
    let id: PolicyId = parse(&name)?;
    let versions = facts(&state, &caller, |facts| facts.policy_versions(&id));
    match versions.is_empty() {
        true => Err(Problem::not_there(&format!("policy {id}"), "policy list")),
        false => Ok(Json(versions)),
    }
}

impl Facts<'_> {
    /// `policy effective`.
    pub fn effective_policy(&self, instance: &InstanceId) -> Option<EffectivePolicy> {
        let Selection { policy, because, others } = self.state.selection(instance)?;
        let detail = self.policy(&policy)?;
        let others = others.into_iter().map(|(name, applies)| OtherPolicy { name, applies }).collect();
        Some(EffectivePolicy { detail, instance: instance.clone(), because, others })
    }

    /// `policy history`: newest first.
    pub fn policy_versions(&self, name: &PolicyId) -> Vec<PolicyVersion> {
        let past = self.state.policies_past.get(name).into_iter().flatten();
        let now = self.state.policies.get(name);
        let mut versions: Vec<PolicyVersion> = vec![];
        let mut before: Option<&PolicyRecord> = None;
        let records: Vec<&PolicyRecord> = past.chain(now).collect();
        for (position, record) in records.iter().enumerate() {
            let changes =
                before.map(|before| record.policy.changes_since(&before.policy)).unwrap_or_default();
            let is_last = position + 1 == records.len();
            let became = match (is_last, now.is_some()) {
                (true, true) => Became::InForce,
                (true, false) => Became::Deleted,
                (false, _) => Became::Replaced,
            };
            let PolicyRecord { policy, version, order } = (*record).clone();
            versions.push(PolicyVersion { version, order, became, changes, policy });
            before = Some(record);
        }
        versions.reverse();
        versions
    }
}

/// The policy by which an instance is protected, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EffectivePolicy {
    /// The policy.
    #[serde(flatten)]
    pub detail: PolicyDetail,
    /// The instance.
    #[schema(value_type = String)]
    pub instance: InstanceId,
    /// Why it is this policy: `named` by the instance, `applies` to it, or the `default`.
    #[schema(value_type = Object)]
    pub because: Because,
    /// The others that apply to the instance, the most specific first.
    pub others: Vec<OtherPolicy>,
}

/// A policy that applies to an instance and does not protect it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OtherPolicy {
    /// Its name.
    #[schema(value_type = String)]
    pub name: PolicyId,
    /// To what it applies.
    #[schema(value_type = Object)]
    pub applies: Applies,
}

/// The policy by which an instance is protected, and why.
#[utoipa::path(get, path = "/v1/instances/{name}/policy", params(("name" = String, Path)), responses((status = 200, body = EffectivePolicy), (status = 404, body = Problem)))]
pub(super) async fn effective(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<EffectivePolicy>, Problem> {
    let id: InstanceId = parse(&name)?;
    let found = facts(&state, &caller, |facts| facts.effective_policy(&id));
    found.map(Json).ok_or_else(|| Problem::not_there(&format!("instance {id}"), "instance list"))
}

/// What policies want of the volumes of their instances and storage cannot do: snapshots and backups.
#[utoipa::path(get, path = "/v1/lint", responses((status = 200, body = Vec<Object>)))]
pub(super) async fn lint(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
) -> Json<Vec<Unable>> {
    Json(facts(&state, &caller, |facts| Unable::all(facts.state, &facts.view.checks)))
}

/// What a change of a policy would change now, without making it.
#[utoipa::path(post, path = "/v1/policies/{name}/plan", params(("name" = String, Path)), request_body = Policing, responses((status = 200, body = Object), (status = 409, body = Problem)))]
pub(super) async fn plan(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Body(policing): Body<Policing>,
) -> Result<Json<Preview>, Problem> {
    let name: PolicyId = parse(&name)?;
    let (answer, engine) = oneshot::channel();
    let gone = || Problem::new(Code::NotYet, "this member is starting or stopping", "try again");
    state.ask.send(Question::Brain(answer)).await.map_err(|_| gone())?;
    let engine = engine.await.map_err(|_| gone())?;
    let (policy, check) = new_policy(engine.state(), &name, policing)?;
    engine.state().check_version(&name, check).map_err(|why| Problem::rejected(&why))?;
    let preview = tokio::task::spawn_blocking(move || engine.preview(clock::now(), &name, &policy)).await;
    let preview = preview.map_err(|error| Problem::broken(format!("work out the preview: {error}")))?;
    preview.map(Json).map_err(|why| Problem::rejected(&why))
}

/// Changes a policy.
#[utoipa::path(put, path = "/v1/policies/{name}", params(("name" = String, Path), Force), request_body = Policing, responses((status = 200, body = Committed), (status = 409, body = Problem)))]
pub(super) async fn set(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(force): Query<Force>,
    Body(policing): Body<Policing>,
) -> Result<Json<Committed>, Problem> {
    let name: PolicyId = parse(&name)?;
    let reason = checked(&policing.reason)?;
    let (policy, check) = state.store.read(|committed| new_policy(committed, &name, policing))?;
    let command = Command::SetPolicy { name, policy: Box::new(policy), check, reason };
    propose_gated(&state, &caller, command, force).await
}

/// The whole new content, and the version on which it rests.
fn new_policy(
    state: &ClusterState,
    name: &PolicyId,
    policing: Policing,
) -> Result<(Policy, Option<LogIndex>), Problem> {
    let bad = |why: &dyn std::fmt::Display| Problem::bad_request(why.to_string(), "nothing was changed");
    let Policing { changes, policy, check, reason: _ } = policing;
    match (policy, changes.is_empty()) {
        (Some(policy), true) => {
            policy.validate().map_err(|why| bad(&why))?;
            Ok((policy, check))
        }
        (None, false) => {
            let default = || Policy::presets().into_iter().next().map(|(_, policy)| (policy, None));
            let old = state.policies.get(name).map(|record| (record.policy.clone(), Some(record.version)));
            let (old, version) = old.or_else(default).ok_or_else(|| bad(&"there is no policy to change"))?;
            let changes = changes.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            let policy = old.with(changes).map_err(|why| bad(&why))?;
            // Two operators who change different keys at once must not undo each other.
            Ok((policy, check.or(version)))
        }
        (Some(_), false) | (None, true) => Err(bad(&"give either `policy` or at least one of `changes`")),
    }
}

/// Deletes a policy that nothing rests on.
#[utoipa::path(delete, path = "/v1/policies/{name}", params(("name" = String, Path), Force), request_body = Deleting, responses((status = 200, body = Committed), (status = 409, body = Problem)))]
pub(super) async fn delete(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(force): Query<Force>,
    Body(Deleting { check, reason }): Body<Deleting>,
) -> Result<Json<Committed>, Problem> {
    let (name, reason) = (parse(&name)?, checked(&reason)?);
    propose_gated(&state, &caller, Command::DeletePolicy { name, check, reason }, force).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_keys_change_the_version_that_was_read() {
        let state = ClusterState::default();
        let name: PolicyId = "quick".parse().unwrap();
        let change = |key: &str, value: &str| Policing {
            changes: vec![(key.into(), value.into())],
            policy: None,
            check: None,
            reason: "tried".into(),
        };
        let (policy, check) = new_policy(&state, &name, change("detection.suspect_after", "1s")).unwrap();
        assert_eq!(policy.detection.suspect_after, policies::Millis::secs(1));
        assert_eq!(check, Some(LogIndex(0)));
        let problem = new_policy(&state, &name, change("detection.suspect_afetr", "1s")).unwrap_err();
        assert!(problem.error.contains("detection.suspect_after"), "{problem:?}");
        let nothing = Policing { changes: vec![], policy: None, check: None, reason: String::new() };
        assert_eq!(new_policy(&state, &name, nothing).unwrap_err().code, Code::BadRequest);
        let new: PolicyId = "mine".parse().unwrap();
        assert_eq!(new_policy(&state, &new, change("detection.reprobe_count", "5")).unwrap().1, None);
    }
}
