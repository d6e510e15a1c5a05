//! How long it takes until a change of a policy is in force on all members.
//!
//! Why it exists: an operator who changes a limit must know from when on it counts. The floor in the same run is a question
//! to each member, for that is how the answer is found.
//! What it never does: count the time of the order itself; it begins at the answer that says "committed".

use super::stage::Stage;
use super::table::{milliseconds, say, spread, table};
use super::{DemoError, Home};
use policies::LogIndex;
use reqwest::Method;
use std::sync::Arc;
use std::time::{Duration, Instant};
use supervisor::api::Policing;
use supervisor::api::answers::Committed;
use supervisor::client::{Client, ClientError};
use tokio::task::JoinSet;

/// Two values in turn, so that each change is one.
const VALUES: [&str; 2] = ["6s", "7s"];

/// Changes a policy `runs` times on a cluster of three.
///
/// # Errors
/// [`DemoError`], also if a member does not answer.
pub async fn bench_policy(home: &Home, runs: usize) -> Result<(), DemoError> {
    let stage = Stage::build(home, home.room("policy")?, |_| Ok(())).await?;
    let measured = measure(&stage, runs).await;
    stage.end().await?;
    let (floor, in_force) = measured?;
    let row = |what: &str, times: &[Duration]| {
        let spread =
            spread(times).map(|(median, least, greatest)| [median, least, greatest].map(milliseconds));
        [what.to_owned(), runs.to_string()].into_iter().chain(spread.into_iter().flatten()).collect()
    };
    let command = std::env::args().collect::<Vec<_>>().join(" ");
    say(&format!("{command}\n\nThree members on loopback, policy quick. Milliseconds.\n"))?;
    let rows: [Vec<String>; 2] = [
        row("one question to each member", &floor),
        row("policy committed -> applied by all members", &in_force),
    ];
    say(&table(&["MILLISECONDS", "RUNS", "MEDIAN", "MIN", "MAX"], &rows))
}

async fn measure(stage: &Stage, runs: usize) -> Result<(Vec<Duration>, Vec<Duration>), DemoError> {
    let clients = stage.cluster.clients()?;
    let any = clients.first().ok_or_else(|| DemoError::Unexpected("a cluster without members".to_owned()))?;
    let (mut floor, mut in_force) = (vec![], vec![]);
    for value in VALUES.iter().cycle().take(runs) {
        floor.push(all_reach(&clients, LogIndex(0)).await?);
        let changes = vec![("detection.gray_after".to_owned(), (*value).to_owned())];
        let policing = Policing { changes, policy: None, check: None, reason: "measured".to_owned() };
        let committed: Committed = any
            .order(Method::PUT, "/v1/policies/quick", &policing)
            .await
            .map_err(|source| DemoError::Cluster { doing: "change a policy", source })?;
        in_force.push(all_reach(&clients, committed.index).await?);
    }
    Ok((floor, in_force))
}

/// The time until every member says that it has applied this entry.
async fn all_reach(clients: &[Arc<Client>], index: LogIndex) -> Result<Duration, DemoError> {
    let began = Instant::now();
    let mut members = JoinSet::new();
    for client in clients {
        let client = Arc::clone(client);
        members.spawn(async move {
            loop {
                let health: serde_json::Value = client.get("/healthz").await?;
                if health.get("applied").and_then(serde_json::Value::as_u64) >= Some(index.0) {
                    return Ok::<(), ClientError>(());
                }
            }
        });
    }
    while let Some(reached) = members.join_next().await {
        let reached = reached.map_err(|error| DemoError::Unexpected(format!("ask a member: {error}")))?;
        reached.map_err(|source| DemoError::Cluster { doing: "ask a member how far it is", source })?;
    }
    Ok(began.elapsed())
}
