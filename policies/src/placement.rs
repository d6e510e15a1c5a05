//! Choosing a spare: a list of needs, each a function, then an order. Never looks at anything but its arguments.

use crate::inventory::Instance;
use crate::memory::Memory;
use crate::plan::Verdict;
use crate::state::{ClusterState, NodeRecord, NodeState};
use crate::words::*;

/// The chosen spare, and the others, best first, each with the reason why it was not taken.
pub(crate) type Choice = (NodeId, Vec<(NodeId, String)>);

/// A need: says what the node misses.
type Need = fn(&Instance, &NodeRecord, &Memory) -> Option<String>;

/// Every need, in the order in which a misfit is reported.
const NEEDS: [Need; 10] = [
    cordoned,
    maintenance,
    not_ordered,
    healthy,
    fenceable,
    is_off,
    ports,
    labels,
    as_declared,
    capabilities,
];

fn cordoned(_: &Instance, node: &NodeRecord, _: &Memory) -> Option<String> {
    node.cordoned.then(|| "cordoned".to_owned())
}

fn maintenance(_: &Instance, node: &NodeRecord, _: &Memory) -> Option<String> {
    node.maintenance.as_ref().map(|order| format!("in maintenance ({})", order.reason))
}

fn not_ordered(_: &Instance, node: &NodeRecord, _: &Memory) -> Option<String> {
    node.fence_order.as_ref().map(|order| format!("to be fenced ({})", order.reason))
}

fn healthy(_: &Instance, node: &NodeRecord, memory: &Memory) -> Option<String> {
    match &node.verdict {
        Verdict::Failed(cause) => Some(format!("failed ({cause})")),
        Verdict::Unknown | Verdict::Healthy | Verdict::Gray => {
            memory.bmc_is_mute(&node.node.name).then(|| "its BMC does not answer".to_owned())
        }
    }
}

fn fenceable(_: &Instance, node: &NodeRecord, _: &Memory) -> Option<String> {
    node.node
        .fencing
        .is_empty()
        .then(|| "no fencing device: it could be neither started nor fenced".to_owned())
}

/// Power on does nothing to a running node: it would keep what runs on it, with the instance's volumes attached.
fn is_off(_: &Instance, node: &NodeRecord, memory: &Memory) -> Option<String> {
    memory.is_on(&node.node.name).then(|| "its power is on: it would not boot the instance".to_owned())
}

fn ports(instance: &Instance, node: &NodeRecord, _: &Memory) -> Option<String> {
    let (has, needs) = (node.node.ports.len(), instance.networks.len());
    (has < needs).then(|| format!("{has} ports, {needs} needed"))
}

fn labels(instance: &Instance, node: &NodeRecord, _: &Memory) -> Option<String> {
    let missing = instance.needs.iter().find(|(key, value)| node.node.labels.get(*key) != Some(*value));
    missing.map(|(key, value)| format!("label {key}={value} is missing"))
}

/// What broke in it breaks the instance too, whether or not the instance requires it: the next thing may break soon.
fn as_declared(_: &Instance, node: &NodeRecord, _: &Memory) -> Option<String> {
    node.mismatch().map(|mismatch| format!("its hardware is not as declared: {mismatch}"))
}

/// All that it misses, for one that is told a line at a time buys the wrong memory first.
fn capabilities(instance: &Instance, node: &NodeRecord, _: &Memory) -> Option<String> {
    instance.requires.missing(&node.capabilities())
}

/// A node that was released and cleaned while the failover away from it still goes on. One that is to be replaced frees it.
fn takes_part(state: &ClusterState, node: &NodeRecord, from: &NodeRecord) -> Option<String> {
    let plan = state.plan_of_node(&node.node.name)?.id;
    let replaced = state.plan_of_node(&from.node.name).is_some_and(|own| own.id == plan);
    (!replaced).then(|| format!("failover {plan} away from it still goes on"))
}

/// Chooses a spare for an instance that leaves `from`.
///
/// # Errors
/// What each spare misses.
pub(crate) fn choose(
    state: &ClusterState,
    memory: &Memory,
    instance: &Instance,
    from: &NodeRecord,
) -> Result<Choice, Vec<(NodeId, String)>> {
    let mut misfits = vec![];
    let mut fitting = vec![];
    for record in state.nodes.values().filter(|record| record.state == NodeState::Spare) {
        let name = record.node.name.clone();
        let misfit = NEEDS.iter().find_map(|need| need(instance, record, memory));
        match misfit.or_else(|| takes_part(state, record, from)) {
            Some(misfit) => misfits.push((name, misfit)),
            None => fitting.push((shared_domains(from, record), name)),
        }
    }
    // Farthest from the failed node first: what killed it may reach its neighbours.
    fitting.sort();
    let mut fitting = fitting.into_iter();
    let Some((_, chosen)) = fitting.next() else { return Err(misfits) };
    let runner_up = |(shared, node)| match shared {
        0 => (node, "fits as well".to_owned()),
        shared => (node, format!("fits, but shares {shared} failure domains with {}", from.node.name)),
    };
    Ok((chosen, fitting.map(runner_up).chain(misfits).collect()))
}

fn shared_domains(a: &NodeRecord, b: &NodeRecord) -> usize {
    a.node.domains.iter().filter(|(kind, name)| b.node.domains.get(*kind) == Some(*name)).count()
}
