//! The gate before orders that may take cover away: they are refused with what they would leave without, unless forced.
//!
//! Why it exists: who cordons a spare looks at the spare and not at the instances that count on it. What it never does: hold
//! an order up that only makes things no worse, or that somebody insists on; that they did is in the log.

use super::answers::Committed;
use super::change::propose;
use super::{ApiState, Problem};
use crate::auth::Caller;
use crate::clock;
use axum::Json;
use policies::{Command, Gap, Proposal, first_of};
use serde::Deserialize;
use utoipa::IntoParams;

/// Gaps that the log keeps with a forced order.
const GAPS_KEPT_MAX: usize = 10;
/// Gaps that a refusal names.
const GAPS_NAMED_MAX: usize = 5;

/// Whether an order is carried out although it takes cover away.
#[derive(Clone, Copy, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Force {
    /// True: carry it out even if it leaves an instance or a failure domain without cover.
    #[serde(default)]
    force: bool,
}

/// Proposes an order if it takes no cover away, or by force.
pub(super) async fn propose_gated(
    state: &ApiState,
    caller: &Caller,
    command: Command,
    Force { force }: Force,
) -> Result<Json<Committed>, Problem> {
    let gaps = gaps(state, caller, &command).await?;
    let command = match (gaps.is_empty(), force) {
        (true, _) => command,
        (false, true) => Command::Forced { order: Box::new(command), gaps: told(&gaps, GAPS_KEPT_MAX) },
        (false, false) => return Err(Problem::breaks_coverage(gaps.len(), &told(&gaps, GAPS_NAMED_MAX))),
    };
    propose(state, caller, command).await
}

async fn gaps(state: &ApiState, caller: &Caller, command: &Command) -> Result<Vec<Gap>, Problem> {
    let proposal = Proposal { at: clock::wall(), by: caller.name.clone(), command: command.clone() };
    let view = state.view.borrow().clone();
    // A copy, for the state's lock must not be held as long as this takes.
    let committed = state.store.read(Clone::clone);
    let gaps = tokio::task::spawn_blocking(move || policies::gaps(&committed, &view, &proposal)).await;
    gaps.map_err(|error| Problem::broken(format!("work out what it would leave without cover: {error}")))
}

fn told(gaps: &[Gap], max: usize) -> Vec<String> {
    first_of(gaps.iter().map(ToString::to_string), max)
}
