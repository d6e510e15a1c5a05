//! What a node's console said, and says.
//!
//! Why it exists: whoever is woken wants to see the panic, and whoever repairs a machine wants to see it start and log in. What it
//! never does: show it to readers, for a console may say anything, secrets included; log what is typed.

use super::read::parse;
use super::{ApiState, Code, Problem, change};
use crate::auth::{Caller, Role};
use crate::runtime::Question;
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fencing::{Console, NotTyped};
use futures::stream;
use policies::NodeId;
use raft_store::Store;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use utoipa::{IntoParams, ToSchema};

/// Says since when this member listens, or why not now.
pub const HOW: HeaderName = HeaderName::from_static("x-console");
/// How often a reader of a quiet console is looked after: another member may lead, and listen, by then.
const LEADS_STILL: Duration = Duration::from_secs(1);

/// How much of it.
#[derive(Clone, Copy, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Following {
    /// True: what is kept and then all that comes, until another member leads.
    #[serde(default)]
    follow: bool,
}

/// What a node's console said since this member leads, at most 64 KiB, and (`follow`) what it says from now on; as the node
/// sent it.
#[utoipa::path(get, path = "/v1/nodes/{name}/console", params(("name" = String, Path), Following), responses((status = 200, content_type = "application/octet-stream", body = String), (status = 404, body = Problem)))]
pub(super) async fn read(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    following: Result<Query<Following>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let Query(Following { follow }) =
        following.map_err(|error| Problem::bad_request(error.body_text(), "use follow=true"))?;
    if caller.role < Role::Operator {
        let error = format!("{} is a {}, and a console may show secrets", caller.name, caller.role);
        return Err(Problem::new(Code::NotAllowed, error, "ask an operator"));
    }
    let console = find(&state, &parse(&name)?).await?;
    let how = HeaderValue::from_str(&console.how()).unwrap_or_else(|_| HeaderValue::from_static("?"));
    let body = match follow {
        false => Body::from(console.since(0).0),
        true => Body::from_stream(stream::unfold((console.more(), console, 0, state.store), next)),
    };
    let kind = HeaderValue::from_static("application/octet-stream");
    Ok(([(header::CONTENT_TYPE, kind), (HOW, how)], body).into_response())
}

/// What is typed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Typing {
    /// Characters as a terminal sends them: a return is `\r`.
    pub text: String,
}

/// Types characters at a node's console. They are on their way, and no more is known of them; what comes of them is read there.
#[utoipa::path(post, path = "/v1/nodes/{name}/console", params(("name" = String, Path)), request_body = Typing, responses((status = 204), (status = 404, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn type_in(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    change::Body(Typing { text }): change::Body<Typing>,
) -> Result<StatusCode, Problem> {
    let name = parse(&name)?;
    let console = find(&state, &name).await?;
    let later = |why: NotTyped| Problem::new(Code::NotYet, why.to_string(), "try again in a moment");
    console.type_in(text.as_bytes()).map_err(later)?;
    tracing::info!(node = %name, by = caller.name, bytes = text.len(), "typed at a console");
    Ok(StatusCode::NO_CONTENT)
}

/// The console of a node, if this member listens to it.
async fn find(state: &ApiState, name: &NodeId) -> Result<Arc<Console>, Problem> {
    let has_console = |record: &policies::NodeRecord| record.node.has_console();
    match state.store.read(|state| state.nodes.get(name).map(has_console)) {
        None => return Err(Problem::not_there(&format!("node {name}"), "node list")),
        Some(false) => {
            let error = format!("nobody listens to the console of {name}");
            return Err(Problem::new(
                Code::NotThere,
                error,
                "set `console = true` in its first `fencing` device",
            ));
        }
        Some(true) => {}
    }
    let (answer, console) = oneshot::channel();
    let not_yet = || Problem::new(Code::NotYet, "this member does not listen to it yet", "try again");
    state.ask.send(Question::Console(name.clone(), answer)).await.map_err(|_| not_yet())?;
    console.await.map_err(|_| not_yet())
}

type Reader = (watch::Receiver<u64>, Arc<Console>, u64, Store);

async fn next((mut more, console, from, store): Reader) -> Option<(Result<Bytes, Infallible>, Reader)> {
    while store.is_leader() {
        more.mark_unchanged();
        let (bytes, said) = console.since(from);
        if !bytes.is_empty() {
            return Some((Ok(Bytes::from(bytes)), (more, console, said, store)));
        }
        // Whether it came or not, the console itself tells.
        drop(tokio::time::timeout(LEADS_STILL, more.changed()).await);
    }
    None
}
