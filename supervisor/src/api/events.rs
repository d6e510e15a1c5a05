//! The history: what happened, newest last, once or as it happens.
//!
//! Answered by each member from its own copy, so that it can be read while there is no leader.

use super::answers::Events;
use super::{ApiState, Problem, tenant};
use crate::auth::{Caller, Reach};
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures::stream::{self, StreamExt};
use policies::{Event, LogIndex, Wall};
use serde::Deserialize;
use std::convert::Infallible;
use tokio::sync::broadcast;
use tokio::time::{Instant, timeout_at};

/// Which events.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Milliseconds since 1970: not before.
    since: Option<u64>,
    /// Milliseconds since 1970: not after.
    until: Option<u64>,
    /// `node/n1`, `instance/web`, `failover/f12`.
    about: Option<String>,
    /// At most so many, the newest.
    limit: Option<usize>,
    /// Only events of later entries than this; to go on after a break.
    after: Option<u64>,
}

impl Wanted {
    fn query(&self) -> raft_store::Query {
        raft_store::Query {
            since: self.since.map(Wall),
            until: self.until.map(Wall),
            about: self.about.clone(),
            limit: self.limit,
        }
    }

    fn matches(&self, event: &Event) -> bool {
        let about = |wanted: &String| event.about.contains(wanted);
        self.after.is_none_or(|after| event.index > LogIndex(after)) && self.about.as_ref().is_none_or(about)
    }
}

/// Reads the parameters; an unknown one is named.
fn wanted(query: Result<Query<Wanted>, axum::extract::rejection::QueryRejection>) -> Result<Wanted, Problem> {
    let hint = "use since, until (milliseconds since 1970), about, limit, after";
    query.map(|Query(wanted)| wanted).map_err(|error| Problem::bad_request(error.body_text(), hint))
}

async fn past(state: &ApiState, caller: &Caller, wanted: &Wanted) -> Result<Vec<Event>, Problem> {
    let (asked, by) = (state.clone(), caller.clone());
    let found = state.store.history().query_seen(wanted.query(), move |event| sees(&asked, &by, event)).await;
    let mut events = found.map_err(|error| Problem::broken(policies::causes(&error)))?;
    events.retain(|event| wanted.matches(event));
    Ok(events)
}

/// Only of a tenant it has to be known which instances are its own.
fn sees(state: &ApiState, caller: &Caller, event: &Event) -> bool {
    match caller.reach {
        Reach::Cluster => true,
        Reach::Tenant { .. } => state.store.read(|committed| tenant::sees(committed, caller, event)),
    }
}

/// The newest events, oldest first.
#[utoipa::path(get, path = "/v1/events", params(("since" = Option<u64>, Query), ("until" = Option<u64>, Query), ("about" = Option<String>, Query), ("limit" = Option<usize>, Query), ("after" = Option<u64>, Query)), responses((status = 200, body = Events)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<Wanted>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Events>, Problem> {
    let wanted = wanted(query)?;
    Ok(Json(Events { events: past(&state, &caller, &wanted).await? }))
}

/// The newest events and then each further one as it happens, one JSON object a line. A reader that is too slow is cut
/// off and goes on with `after`; so is a tenant when its token is to be looked up again.
#[utoipa::path(get, path = "/v1/events/follow", params(("about" = Option<String>, Query), ("limit" = Option<usize>, Query), ("after" = Option<u64>, Query)), responses((status = 200, content_type = "application/x-ndjson", body = String)))]
pub(super) async fn follow(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<Wanted>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let wanted = wanted(query)?;
    // Subscribed before the query, so that nothing falls between; what comes twice is known by its index.
    let live = state.store.history().subscribe();
    let past = past(&state, &caller, &wanted).await?;
    let last = past.last().map(|event| event.index);
    let future = stream::unfold(Following { state, caller, live, wanted, last }, next);
    let lines = stream::iter(past).chain(future).map(|event| Ok::<_, Infallible>(line(&event)));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

struct Following {
    state: ApiState,
    caller: Caller,
    live: broadcast::Receiver<Event>,
    wanted: Wanted,
    last: Option<LogIndex>,
}

impl Following {
    /// The next event that is sent; `None` if there will be none.
    async fn event(&mut self) -> Option<Event> {
        // One that is too slow has missed some, and goes on with `after`.
        match self.caller.reach {
            Reach::Cluster => self.live.recv().await.ok(),
            // Asked first, for what is there already is given out however late it is.
            Reach::Tenant { until, .. } if Instant::now() < until => {
                timeout_at(until, self.live.recv()).await.ok()?.ok()
            }
            Reach::Tenant { .. } => None,
        }
    }

    fn takes(&self, event: &Event) -> bool {
        self.wanted.matches(event)
            && self.last.is_none_or(|last| event.index > last)
            && sees(&self.state, &self.caller, event)
    }
}

async fn next(mut following: Following) -> Option<(Event, Following)> {
    loop {
        let event = following.event().await?;
        if following.takes(&event) {
            return Some((event, following));
        }
    }
}

fn line(event: &Event) -> String {
    // An `Event` holds only numbers and texts, which JSON can always say.
    serde_json::to_string(event).map_or_else(|_| String::new(), |json| json + "\n")
}
