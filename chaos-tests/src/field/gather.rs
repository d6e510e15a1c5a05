//! The end of a scenario: everything is healed, the members come to rest, and what they remember is read.
//!
//! Why it exists: members can only be compared at an equal log index, and only a healed cluster comes to one.
//! What it never does: judge; a member that does not answer is missing from the facts, and a check says so.

use super::facts::{Facts, Memory};
use super::logs;
use super::scene::{Scene, members};
use crate::demo::DemoError;
use crate::demo::wait::Look;
use crate::rack::description::MachineDescription;
use policies::{LogIndex, MemberId, causes};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use supervisor::api::answers::{
    FailoverDetail, FailoverLine, InstanceDetail, InstanceLine, NodeDetail, NodeLine, PolicyDetail, Status,
};

/// Ends the scenario and returns what is known of it.
pub(super) async fn gather(mut scene: Scene<'_>) -> Result<Facts, DemoError> {
    scene.net.heal()?;
    scene.groups.clear();
    let acked = scene.notes.end().await;
    scene.note_unexpected_ends();
    let memories = memories(&scene).await?;
    let report = scene.stage.report().await?;
    scene.note_unexpected_ends();
    let journal = scene.stage.rack().journal().await;
    let journal =
        journal.map_err(|source| DemoError::Rack { doing: "ask the rack for its journal", source })?;
    let machines = &scene.stage.description.machines;
    let behind =
        |machine: &MachineDescription| machine.ports.clone().map(|port| (port, machine.name.clone()));
    let mut facts = Facts {
        initiators: machines
            .iter()
            .map(|machine| (machine.name.clone(), machine.initiator.clone()))
            .collect(),
        ports: machines.iter().flat_map(behind).collect(),
        report,
        journal,
        struck: scene.struck.clone(),
        acked,
        ends: scene.ends.clone(),
        memories,
        logs: BTreeMap::new(),
    };
    let dir = scene.stage.dir().to_owned();
    scene.stage.end().await?;
    // The disks are still there: they go with the rest of the scene.
    for member in members() {
        let store = supervisor::config::Home::new(dir.join(member.to_string())).store();
        facts.logs.insert(member, logs::read(member, &store).await?);
    }
    Ok(facts)
}

/// What every running member remembers, all at the same index.
async fn memories(scene: &Scene<'_>) -> Result<BTreeMap<MemberId, Memory>, DemoError> {
    let running: Vec<MemberId> = members().filter(|id| scene.stage.cluster.pid(*id).is_some()).collect();
    scene
        .look_for("all running members to remember up to the same index", async || {
            let mut found = BTreeMap::new();
            for member in &running {
                match memory(scene, *member).await {
                    Ok(memory) => found.insert(*member, memory),
                    Err(error) => return Look::NotYet(format!("{member}: {}", causes(&error))),
                };
            }
            let indices: Vec<LogIndex> = found.values().map(|memory| memory.applied).collect();
            match indices.windows(2).all(|pair| pair.first() == pair.last()) {
                true => Look::There(found),
                false => Look::NotYet(format!("{indices:?}")),
            }
        })
        .await
}

/// What one member remembers; read again if it learned something meanwhile.
async fn memory(scene: &Scene<'_>, member: MemberId) -> Result<Memory, DemoError> {
    let before = applied(scene, member).await?;
    let nodes: Vec<NodeLine> = get(scene, member, "/v1/nodes").await?;
    let mut records = BTreeMap::new();
    for name in nodes.into_iter().map(|line| line.name) {
        let detail: NodeDetail = get(scene, member, &format!("/v1/nodes/{name}")).await?;
        records.insert(name, detail.record);
    }
    let lines: Vec<InstanceLine> = get(scene, member, "/v1/instances").await?;
    let mut instances = BTreeMap::new();
    for name in lines.into_iter().map(|line| line.name) {
        let detail: InstanceDetail = get(scene, member, &format!("/v1/instances/{name}")).await?;
        instances.insert(name, detail.record);
    }
    let lines: Vec<FailoverLine> = get(scene, member, "/v1/failovers").await?;
    let mut plans = BTreeMap::new();
    for id in lines.into_iter().map(|line| line.id) {
        let detail: FailoverDetail = get(scene, member, &format!("/v1/failovers/{id}")).await?;
        plans.insert(id, detail.plan);
    }
    let policies: Vec<PolicyDetail> = get(scene, member, "/v1/policies").await?;
    let status: Status = get(scene, member, "/v1/status").await?;
    let applied = applied(scene, member).await?;
    if applied != before {
        return Err(DemoError::Unexpected(format!("it went on from {before} to {applied}")));
    }
    Ok(Memory {
        applied,
        nodes: records,
        instances,
        plans: plans.into_values().collect(),
        policies: policies.into_iter().map(|policy| (policy.name, policy.version)).collect(),
        armed: status.armed,
    })
}

/// A member's own memory, whoever leads.
async fn get<A: DeserializeOwned>(scene: &Scene<'_>, member: MemberId, path: &str) -> Result<A, DemoError> {
    let answer = scene.client(member)?.get(&format!("{path}?local=true")).await;
    answer.map_err(|source| DemoError::Cluster { doing: "ask a member what it remembers", source })
}

async fn applied(scene: &Scene<'_>, member: MemberId) -> Result<LogIndex, DemoError> {
    let text = metrics(scene, member).await?;
    let index = value(&text, "ha_raft_applied_index").and_then(|value| value.parse().ok());
    let missing = || DemoError::Unexpected("its metrics do not say what it has applied".to_owned());
    index.map(LogIndex).ok_or_else(missing)
}

/// A member's metrics, as text.
pub(super) async fn metrics(scene: &Scene<'_>, member: MemberId) -> Result<String, DemoError> {
    let failed = |source| DemoError::Cluster { doing: "ask a member for its metrics", source };
    let response = scene.client(member)?.stream("/metrics").await.map_err(failed)?;
    let text = response.text().await;
    text.map_err(|error| DemoError::Unexpected(format!("read the metrics of {member}: {}", causes(&error))))
}

/// The value of a metric without labels.
fn value<'a>(text: &'a str, metric: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let text = "# HELP ha_x Y.\nha_x_total 3\nha_x 42\n";
        assert_eq!(value(text, "ha_x"), Some("42"));
        assert_eq!(value(text, "ha_y"), None);
    }
}
