//! How things leave the inventory: nodes, instances, providers. Part of `apply`: total, deterministic, no clock.
//!
//! Why it exists: hardware is scrapped and services end, and what is gone must not be counted on. What is deleted leaves
//! nothing behind that could hit whoever gets its name, its BMC or its volumes next: a node goes only when it is a spare,
//! which it is not before every older command against it has drained (R5). What it never does: touch the world. What runs
//! goes on running, and has the volumes and ports that it had.

use crate::apply::{Story, instance_key, node_key, not_there};
use crate::command::{Object, Rejected};
use crate::inventory::Node;
use crate::plan::Verdict;
use crate::state::{ClusterState, NodeState, Order};
use crate::words::*;

/// Users of a provider that a refusal names.
const USERS_NAMED_MAX: usize = 3;

impl ClusterState {
    /// Takes something out of the inventory. Failovers in the history go on naming it.
    pub(crate) fn delete(&mut self, story: &mut Story, what: &Object, order: Order) -> Result<(), Rejected> {
        let Order { by, reason, .. } = &order;
        let text = format!("{by} deleted {what}: {reason}");
        match what {
            Object::Node(node) => {
                self.delete_node(node)?;
                story.tell(&[node_key(node)], text);
            }
            Object::Instance(instance) => {
                let (node, freed) = self.delete_instance(instance, order)?;
                let about = [instance_key(instance), node_key(&node)];
                story.tell(&about, text);
                story.tell(&about, freed);
            }
            Object::Provider(provider) => {
                self.delete_provider(provider)?;
                story.tell(&[what.to_string()], text);
            }
        }
        Ok(())
    }

    /// Only a spare can go: nothing runs for it, and nothing older can hit it any more.
    fn delete_node(&mut self, name: &NodeId) -> Result<(), Rejected> {
        let record = self.node(name)?;
        self.no_plan_about(name)?;
        let in_use = |why: String| Err(Rejected::InUse { what: node_key(name), why });
        match &record.state {
            NodeState::Spare => {}
            NodeState::Active { instance } => {
                return in_use(format!("it carries {instance}; move that away or delete it first"));
            }
            NodeState::Quarantined { .. } => {
                return in_use(match self.instance_on(name) {
                    Some(record) => format!("{} still belongs to it", record.instance.name),
                    None => "it is quarantined; cordon it, release it, and delete it once it is a spare"
                        .to_owned(),
                });
            }
            NodeState::Cleaning { .. } => {
                return in_use(
                    "it is being cleaned, or an older command may still hit it; it can go once it is a spare"
                        .to_owned(),
                );
            }
            NodeState::Reserved { plan } | NodeState::Fencing { plan } => {
                return Err(Rejected::PlanExists { what: node_key(name), plan: *plan });
            }
        }
        if let Some(order) = &record.fence_order {
            return in_use(format!("{} ordered to fence it ({})", order.by, order.reason));
        }
        if let Some(by_hand) = record.open() {
            return in_use(format!("{} ordered to {}", by_hand.order.by, by_hand.intent.action));
        }
        self.nodes.remove(name);
        Ok(())
    }

    /// Forgets the protection of an instance. Its node still runs it, with its volumes: it is cordoned, so that it is taken
    /// for no other before a human has looked after it, and is no spare before older commands have drained.
    fn delete_instance(&mut self, name: &InstanceId, order: Order) -> Result<(NodeId, String), Rejected> {
        let known = self.instances.get(name).ok_or_else(|| not_there("instance", name))?;
        let (node, epoch) = (known.node.clone(), known.epoch);
        if let Some(plan) = self.plan_of_instance(name).or_else(|| self.plan_of_node(&node)) {
            return Err(Rejected::PlanExists { what: instance_key(name), plan: plan.id });
        }
        if let Some(backup) = known.backing_up() {
            let why = format!("{} ordered backup {}, which is under way", backup.order.by, backup.id);
            return Err(Rejected::InUse { what: instance_key(name), why });
        }
        let record = self.node_mut(&node)?;
        if let Some(order) = &record.fence_order {
            let why = format!("{} ordered to fence {node}, where it runs ({})", order.by, order.reason);
            return Err(Rejected::InUse { what: instance_key(name), why });
        }
        record.withheld = None;
        record.approved = None;
        let freed = match record.state {
            NodeState::Active { .. } => {
                record.cordoned = true;
                record.verdict = Verdict::Unknown;
                record.state = NodeState::Cleaning { plan: None, order, proof: None };
                format!(
                    "{node} is cordoned: what runs there goes on with the volumes of {name}; `hactl node uncordon {node}` \
                     once it is off and has them no more"
                )
            }
            NodeState::Spare
            | NodeState::Reserved { .. }
            | NodeState::Fencing { .. }
            | NodeState::Quarantined { .. }
            | NodeState::Cleaning { .. } => format!("{node} stays {}", record.state),
        };
        self.epochs_gone = self.epochs_gone.max(epoch);
        self.instances.remove(name);
        Ok((node, freed))
    }

    fn delete_provider(&mut self, name: &ProviderId) -> Result<(), Rejected> {
        if !self.providers.contains_key(name) {
            return Err(not_there("provider", name));
        }
        let nodes = self.nodes.values().filter(|record| {
            let Node { ports, standby, fencing, .. } = &*record.node;
            ports.iter().any(|port| port.provider == *name)
                || standby.iter().any(|boot| boot.provider == *name)
                || fencing.iter().any(|device| device.cloud() == Some(name))
        });
        let instances = self.instances.values().filter(|record| {
            let instance = &record.instance;
            instance.volumes.iter().any(|volume| volume.provider == *name)
                || instance.boot.iter().any(|boot| boot.provider == *name)
        });
        let nodes = nodes.map(|record| node_key(&record.node.name));
        let users: Vec<String> =
            nodes.chain(instances.map(|record| instance_key(&record.instance.name))).collect();
        if !users.is_empty() {
            let more = users.len().saturating_sub(USERS_NAMED_MAX);
            let mut named: Vec<String> = users.into_iter().take(USERS_NAMED_MAX).collect();
            named.extend((more > 0).then(|| format!("{more} more")));
            let why = format!("{} rely on it", named.join(", "));
            return Err(Rejected::InUse { what: format!("provider/{name}"), why });
        }
        self.providers.remove(name);
        Ok(())
    }
}
