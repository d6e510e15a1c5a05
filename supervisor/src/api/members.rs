//! The members of the cluster: who they are, and how they come and go.
//!
//! What it never does: wait until a new member has caught up. `hactl member add` asks again.

use super::answers::{Committed, MemberLine, Members};
use super::change::{Body, propose};
use super::read::parse;
use super::{ApiState, Code, Problem};
use crate::auth::Caller;
use crate::config::host_port;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use policies::{Command, MemberId};
use raft_store::Member;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A member to be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMember {
    /// Its number, never used before.
    #[schema(value_type = u64)]
    pub id: MemberId,
    /// `host:port` of the traffic between members.
    pub member_addr: String,
    /// `host:port` of its API.
    pub api_addr: String,
}

/// Where the leadership is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    /// The voter that is to lead.
    #[schema(value_type = u64)]
    pub to: MemberId,
}

/// The members as this one sees them.
pub(super) fn lines(state: &ApiState) -> Vec<MemberLine> {
    let view = state.view.borrow().clone();
    let leader = state.store.leader().map(|leader| leader.id);
    let progress = state.store.progress();
    let behind = |id: MemberId| Some(progress.last?.0.saturating_sub(progress.replicated.get(&id)?.0));
    let line = |member: Member| {
        let reported = view.members.get(&member.id);
        MemberLine {
            leader: leader == Some(member.id),
            domain: reported.map(|reported| reported.domain.clone()),
            report_age_ms: reported
                .filter(|_| member.id != state.config.me())
                .map(|reported| reported.report_age.0),
            doubt: reported.and_then(|reported| reported.doubt.as_ref()).map(ToString::to_string),
            behind: behind(member.id),
            id: member.id,
            address: member.address,
            api: member.api,
            voter: member.voter,
        }
    };
    state.store.members().into_iter().map(line).collect()
}

/// The members, as the one that is asked sees them.
#[utoipa::path(get, path = "/v1/members", responses((status = 200, body = Members)))]
pub(super) async fn list(State(state): State<ApiState>) -> Json<Members> {
    Json(Members { answered_by: state.config.me(), members: lines(&state) })
}

/// Adds a member that does not vote yet.
#[utoipa::path(post, path = "/v1/members", request_body = NewMember, responses((status = 200, body = Committed), (status = 409, body = Problem)))]
pub(super) async fn add(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Body(new): Body<NewMember>,
) -> Result<Json<Committed>, Problem> {
    for (key, addr) in [("member_addr", &new.member_addr), ("api_addr", &new.api_addr)] {
        if host_port(addr).is_none() {
            return Err(Problem::bad_request(
                format!("key {key}: {addr:?} is not host:port"),
                "nothing was changed",
            ));
        }
    }
    let NewMember { id, member_addr: address, api_addr: api } = new;
    let added = state.store.add_learner(Member { id, address, api, voter: false }).await;
    added.map_err(|error| Problem::of_member(&error))?;
    note(&state, &caller, format!("added {id} as a learner")).await
}

/// Lets a member that has caught up vote.
#[utoipa::path(post, path = "/v1/members/{id}/promote", params(("id" = u64, Path)), responses((status = 200, body = Committed), (status = 409, body = Problem)))]
pub(super) async fn promote(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Committed>, Problem> {
    let id = known(&state, &id)?;
    state.store.promote(id).await.map_err(|error| Problem::of_member(&error))?;
    note(&state, &caller, format!("made {id} a voter")).await
}

/// Removes a member; its number is never used again.
#[utoipa::path(delete, path = "/v1/members/{id}", params(("id" = u64, Path)), responses((status = 200, body = Committed), (status = 409, body = Problem)))]
pub(super) async fn remove(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Committed>, Problem> {
    let id = known(&state, &id)?;
    if id == state.config.me() {
        let hint = "give the leadership away first: hactl member transfer ID";
        return Err(Problem::new(Code::Rejected, format!("{id} leads and does not remove itself"), hint));
    }
    state.store.remove(id).await.map_err(|error| Problem::of_member(&error))?;
    note(&state, &caller, format!("removed {id}")).await
}

/// Gives the leadership to another voter.
#[utoipa::path(post, path = "/v1/leader", request_body = Transfer, responses((status = 204), (status = 409, body = Problem)))]
pub(super) async fn transfer(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Body(Transfer { to }): Body<Transfer>,
) -> Result<axum::http::StatusCode, Problem> {
    let to = known(&state, &to.0.to_string())?;
    tracing::info!(by = caller.name, %to, "leadership transfer ordered");
    state.store.transfer(to).await.map_err(|error| Problem::of_member(&error))?;
    Ok(axum::http::StatusCode::NO_CONTENT)
}

fn known(state: &ApiState, text: &str) -> Result<MemberId, Problem> {
    let id: MemberId = parse(text)?;
    let found = state.store.members().into_iter().any(|member| member.id == id);
    found.then_some(id).ok_or_else(|| Problem::not_there(&format!("member {id}"), "member list"))
}

/// Changes of the members are entries of the log's own; the note puts who ordered them into the history.
async fn note(state: &ApiState, caller: &Caller, text: String) -> Result<Json<Committed>, Problem> {
    propose(state, caller, Command::Note { text }).await
}
