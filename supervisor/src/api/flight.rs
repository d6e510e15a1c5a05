//! The flight record of this member, as a stream.
//!
//! Answered by each member from its own record, whoever leads: a replay needs those of all.

use super::{ApiState, Problem};
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::stream::{self, TryStreamExt};
use policies::Wall;
use raft_store::{Blocks, Cursor, Flight};
use serde::Deserialize;
use std::io;

/// From when on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Milliseconds since 1970. The answer begins with that day, where everything is told anew.
    since: u64,
}

/// What this member observed since then, in the bytes of `policies::flight`: records one after the other, in order.
#[utoipa::path(get, path = "/v1/flight", params(("since" = u64, Query)), responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>)))]
pub(super) async fn record(
    State(state): State<ApiState>,
    query: Result<Query<Wanted>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let hint = "use since (milliseconds since 1970)";
    let Query(wanted) = query.map_err(|error| Problem::bad_request(error.body_text(), hint))?;
    let flight = state.flight.clone();
    let begin =
        tokio::task::spawn_blocking(move || flight.begin(Wall(wanted.since)).map_err(io::Error::other));
    let broken = |error: io::Error| Problem::broken(policies::causes(&error));
    let begin = begin.await.map_err(io::Error::other).and_then(|begin| begin).map_err(broken)?;
    let flight = state.flight.clone();
    let blocks = stream::try_unfold(begin, move |cursor| read(flight.clone(), cursor))
        .map_ok(|blocks| blocks.concat());
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], Body::from_stream(blocks)).into_response())
}

/// Some blocks and where to go on. An error cuts the answer off, so that nobody takes it for the whole.
async fn read(flight: Flight, cursor: Option<Cursor>) -> io::Result<Option<(Vec<Vec<u8>>, Option<Cursor>)>> {
    let Some(cursor) = cursor else { return Ok(None) };
    let read = tokio::task::spawn_blocking(move || flight.read(cursor)).await.map_err(io::Error::other)?;
    let Blocks { blocks, next } = read.map_err(io::Error::other)?;
    Ok(Some((blocks, next)))
}
