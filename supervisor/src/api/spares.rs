//! Requests about spares: which there are, whom each would cover, and what keeps it from being taken.
//!
//! Why it exists: spares are looked after as a stock, and `node list` tells of each only what it tells of every node. What
//! it never does: choose one, or change one; adding and removing are those of nodes.

use super::facts::Facts;
use super::read::facts;
use super::{ApiState, Problem};
use crate::auth::Caller;
use axum::extract::State;
use axum::{Extension, Json};
use policies::{Bytes, InstanceId, LastTakeover, NodeId, NodeRecord, NodeState, NodeView, SpareUse, Wall};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A spare in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SpareLine {
    /// Its name.
    #[schema(value_type = String)]
    pub name: NodeId,
    /// What its BMC said last: `on`, `off`, `no answer`; `null` if this member never asked it.
    pub power: Option<String>,
    /// It is on, and its agent waits for an instance.
    pub waits_hot: bool,
    /// Its last takeover: how it was started, and how long it took from the proof that the old node was cut off until the
    /// instance was seen on it; `null` if there was none.
    #[schema(value_type = Option<Object>)]
    pub takeover: Option<LastTakeover>,
    /// No new instance.
    pub cordoned: bool,
    /// Hands off.
    pub maintenance: bool,
    /// Serial number that is printed on it.
    pub serial: Option<String>,
    /// Its logical CPUs, as far as they are known.
    pub cpus: Option<u32>,
    /// Its memory, likewise.
    #[schema(value_type = Option<String>)]
    pub memory: Option<Bytes>,
    /// Its hardware, as declared and as found, one kind a line.
    pub hardware: Vec<String>,
    /// When it was fenced because it had failed or did not start, as far as it is remembered.
    #[schema(value_type = Vec<u64>)]
    pub strikes: Vec<Wall>,
    /// Failure domains it stands in.
    pub domains: BTreeMap<String, String>,
    /// Instances that would move to it if their node were lost now.
    #[schema(value_type = Vec<String>)]
    pub covers: Vec<InstanceId>,
    /// Instances for which it would do.
    pub fits: u64,
    /// Why it would not do for others.
    pub misses: Vec<String>,
}

/// All spares.
#[utoipa::path(get, path = "/v1/spares", responses((status = 200, body = Vec<SpareLine>)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<SpareLine>>, Problem> {
    let view = state.view.borrow().clone();
    let committed = state.store.read(Clone::clone);
    let uses = tokio::task::spawn_blocking(move || policies::spare_uses(&committed, &view)).await;
    let uses =
        uses.map_err(|error| Problem::broken(format!("work out what the spares are good for: {error}")))?;
    Ok(Json(facts(&state, &caller, |facts| facts.spares(&uses))))
}

impl Facts<'_> {
    /// `spare list`.
    pub fn spares(&self, uses: &BTreeMap<NodeId, SpareUse>) -> Vec<SpareLine> {
        let spares = self.state.nodes.iter().filter(|(_, record)| record.state == NodeState::Spare);
        let line = |(name, record): (&NodeId, &NodeRecord)| {
            let SpareUse { covers, fits, misses } = uses.get(name).cloned().unwrap_or_default();
            let capabilities = record.capabilities();
            SpareLine {
                name: name.clone(),
                power: self.power_of(name),
                waits_hot: self.view.nodes.get(name).is_some_and(NodeView::waits_hot),
                takeover: record.takeover,
                cordoned: record.cordoned,
                maintenance: record.maintenance.is_some(),
                serial: record.node.identity.serial.clone(),
                cpus: capabilities.cpus,
                memory: capabilities.memory,
                hardware: capabilities.lines(),
                strikes: record.strikes.clone(),
                domains: record.node.domains.clone(),
                covers,
                fits,
                misses,
            }
        };
        spares.map(line).collect()
    }
}
