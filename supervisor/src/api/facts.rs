//! How answers are made: pure functions of the committed state and of the leader's view.
//!
//! Why it exists: each answer is put together in one place, whoever asks. What it never does: show a secret, sealed or not.

use super::answers::*;
use crate::seal;
use policies::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The committed state and the leader's view of it: what every answer is made of.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Committed.
    pub state: &'a ClusterState,
    /// Believed.
    pub view: &'a View,
    /// The answering member's clock.
    pub now: Wall,
}

pub(super) fn power(read: Option<Power>) -> &'static str {
    match read {
        Some(Power::On) => "on",
        Some(Power::Off) => "off",
        None => "no answer",
    }
}

impl Facts<'_> {
    /// What the node's BMC said last, as a word.
    pub(super) fn power_of(&self, node: &NodeId) -> Option<String> {
        let reading = self.view.nodes.get(node).and_then(|node| node.power);
        reading.map(|(read, _)| power(read).to_owned())
    }

    /// `node list`.
    pub fn nodes(&self) -> Vec<NodeLine> {
        // One pass over the instances, for `instance_on` would be a pass for each node.
        let carries: BTreeMap<&NodeId, &InstanceId> =
            self.state.instances.iter().map(|(name, record)| (&record.node, name)).collect();
        let line = |(name, record): (&NodeId, &NodeRecord)| NodeLine {
            name: name.clone(),
            state: record.state.clone(),
            verdict: record.verdict.clone(),
            power: self.power_of(name),
            instance: carries.get(name).map(|instance| (*instance).clone()),
            cordoned: record.cordoned,
            maintenance: record.maintenance.is_some(),
            waiting: self.node_waiting(name, record),
            judged: record.judged,
            agent: record.node.agent_key.is_some(),
            fencing: record.node.fencing.iter().map(FenceDevice::place).collect(),
            serial: record.node.identity.serial.clone(),
            domains: record.node.domains.clone(),
            labels: record.node.labels.clone(),
        };
        self.state.nodes.iter().map(line).collect()
    }

    /// What the view says, or else the committed reason: a follower's view knows none.
    fn node_waiting(&self, name: &NodeId, record: &NodeRecord) -> Vec<String> {
        let believed = self.view.nodes.get(name).map(|node| sentences(&node.waiting)).unwrap_or_default();
        if believed.is_empty() { sentences(record.withheld.as_slice()) } else { believed }
    }

    /// `node show`.
    pub fn node(&self, name: &NodeId) -> Option<NodeDetail> {
        let mut record = self.state.nodes.get(name)?.clone();
        seal::hide_node(Arc::make_mut(&mut record.node));
        let node = Arc::clone(&record.node);
        Some(NodeDetail {
            record,
            view: self.view.nodes.get(name).cloned().unwrap_or_default(),
            instance: self.state.instance_on(name).map(|record| record.instance.name.clone()),
            policy: self.state.policy_of_node(name).map(|(name, _)| name.clone()),
            checks: self.checked(|check| match check {
                Check::Port(port) => node.ports.contains(port),
                Check::Free(free) => node.at_cloud(&free.provider) == Some(&free.node),
                Check::Volume(_) | Check::Boot(_) | Check::Snapshot(_) | Check::Backup(_) => false,
            }),
            now: self.now,
        })
    }

    /// `instance list`.
    pub fn instances(&self) -> Vec<InstanceLine> {
        let moving: BTreeMap<&InstanceId, PlanId> = self
            .state
            .running()
            .filter_map(|plan| Some((plan.decision.instance.as_ref()?, plan.id)))
            .collect();
        let line = |(name, record): (&InstanceId, &InstanceRecord)| {
            self.instance_line(name, record, moving.get(name).copied())
        };
        self.state.instances.iter().map(line).collect()
    }

    fn instance_line(
        &self,
        name: &InstanceId,
        record: &InstanceRecord,
        failover: Option<PlanId>,
    ) -> InstanceLine {
        let Instance { volumes, networks, boot, needs, tenant, labels, .. } = &*record.instance;
        InstanceLine {
            name: name.clone(),
            node: record.node.clone(),
            verdict: self.state.nodes.get(&record.node).map(|node| node.verdict.clone()).unwrap_or_default(),
            epoch: record.epoch,
            policy: record.policy.clone(),
            failover,
            waiting: self.view.instances.get(name).map(|reasons| sentences(reasons)).unwrap_or_default(),
            vlans: networks.iter().filter_map(Network::vlans).map(|it| it.vlan).collect(),
            volumes: volumes.iter().map(|volume| format!("{}/{}", volume.provider, volume.volume)).collect(),
            boot: boot.as_ref().map(|boot| boot.image.clone()),
            needs: needs.clone(),
            tenant: tenant.clone(),
            labels: labels.clone(),
        }
    }

    /// `instance show`.
    pub fn instance(&self, name: &InstanceId) -> Option<InstanceDetail> {
        let record = self.state.instances.get(name)?;
        let failover = self.state.plan_of_instance(name).map(|plan| plan.id);
        let plans = self.state.plans.values().rev();
        let its = plans.filter(|plan| plan.decision.instance.as_ref() == Some(name));
        Some(InstanceDetail {
            record: record.clone(),
            line: self.instance_line(name, record, failover),
            because: self.state.selection(name).map(|selection| selection.because),
            failovers: its.map(|plan| self.failover_line(plan)).collect(),
            checks: self.checked(|check| match check {
                Check::Port(_) | Check::Free(_) => false,
                Check::Volume(volume) | Check::Snapshot(volume) | Check::Backup(volume) => {
                    record.instance.volumes.contains(volume)
                }
                Check::Boot(boot) => record.instance.boot.as_ref() == Some(boot),
            }),
            now: self.now,
        })
    }

    fn checked(&self, concerns: impl Fn(&Check) -> bool) -> Vec<Checked> {
        self.view.checks.iter().filter(|checked| concerns(&checked.check)).cloned().collect()
    }

    /// `failover list`: newest first.
    pub fn failovers(&self) -> Vec<FailoverLine> {
        self.state.plans.values().rev().map(|plan| self.failover_line(plan)).collect()
    }

    fn failover_line(&self, plan: &Plan) -> FailoverLine {
        FailoverLine {
            id: plan.id,
            at: plan.at,
            instance: plan.decision.instance.clone(),
            from: plan.decision.from.clone(),
            spare: plan.decision.spare.clone(),
            cause: plan.decision.cause.clone(),
            phase: plan.phase,
            entered: plan.entered.last().map_or(plan.at, |(_, at)| *at),
            stuck: plan.stuck.clone(),
            waiting: self.plan_waiting(plan.id),
        }
    }

    fn plan_waiting(&self, id: PlanId) -> Vec<String> {
        self.view.plans.get(&id).map(|reasons| sentences(reasons)).unwrap_or_default()
    }

    /// `failover show`.
    pub fn failover(&self, id: PlanId) -> Option<FailoverDetail> {
        let plan = self.state.plans.get(&id)?.clone();
        Some(FailoverDetail { plan, waiting: self.plan_waiting(id), now: self.now })
    }

    /// `policy list`.
    pub fn policies(&self) -> Vec<PolicyDetail> {
        self.state.policies.keys().filter_map(|name| self.policy(name)).collect()
    }

    /// `policy get`.
    pub fn policy(&self, name: &PolicyId) -> Option<PolicyDetail> {
        let record = self.state.policies.get(name)?;
        let protects = |instance: &&InstanceRecord| instance.policy == *name;
        Some(PolicyDetail {
            name: name.clone(),
            version: record.version,
            order: record.order.clone(),
            instances: self.state.instances.values().filter(protects).count() as u64,
            policy: record.policy.clone(),
        })
    }

    /// How many nodes are in each state; states without nodes are there with 0.
    pub fn node_counts(&self) -> BTreeMap<String, u64> {
        let words = ["active", "spare", "reserved", "fencing", "quarantined", "cleaning"];
        let mut counts: BTreeMap<String, u64> = words.into_iter().map(|word| (word.to_owned(), 0)).collect();
        for record in self.state.nodes.values() {
            *counts.entry(state_word(&record.state).to_owned()).or_default() += 1;
        }
        counts
    }

    /// Everything that is not as it should be.
    pub fn attention(&self) -> Vec<Attention> {
        let mut found = vec![];
        let mut add = |about: String, what: String| found.push(Attention { about, what });
        for plan in self.state.running() {
            let why = plan.stuck.clone().map(|stuck| format!("stuck: {stuck}"));
            let waits = self.plan_waiting(plan.id);
            let waits = (!waits.is_empty()).then(|| format!("{}: {}", plan.phase, waits.join("; ")));
            if let Some(what) = why.or(waits) {
                add(format!("failover/{}", plan.id), what);
            }
        }
        for (name, record) in &self.state.nodes {
            if let Some(what) = self.node_attention(name, record) {
                add(format!("node/{name}"), what);
            }
        }
        for (member, view) in &self.view.members {
            if view.report_age > policies::REPORT_AGE_MAX {
                let age = Millis::secs(view.report_age.0 / 1000);
                add(format!("member/{member}"), format!("has not reported for {age}"));
            } else if let Some(doubt) = &view.doubt {
                add(format!("member/{member}"), doubt.to_string());
            }
        }
        for (name, reasons) in &self.view.instances {
            if !reasons.is_empty() {
                add(format!("instance/{name}"), sentences(reasons).join("; "));
            }
        }
        found
    }

    fn node_attention(&self, name: &NodeId, record: &NodeRecord) -> Option<String> {
        let mut what = vec![];
        match (&record.state, &record.verdict) {
            (NodeState::Quarantined { .. }, _) => what.push("quarantined".to_owned()),
            (_, Verdict::Gray | Verdict::Failed(_)) => what.push(record.verdict.to_string()),
            (
                NodeState::Spare
                | NodeState::Reserved { .. }
                | NodeState::Active { .. }
                | NodeState::Fencing { .. }
                | NodeState::Cleaning { .. },
                Verdict::Unknown | Verdict::Healthy,
            ) => {}
        }
        if let Some(Order { by, reason, .. }) = &record.maintenance {
            what.push(format!("in maintenance by {by}: {reason}"));
        }
        if let Some(mismatch) = record.mismatch() {
            what.push(format!("its hardware is not as declared: {mismatch}"));
        }
        let waiting = self.node_waiting(name, record);
        // A quarantined node's wait says the same again.
        if record.maintenance.is_none() && !matches!(record.state, NodeState::Quarantined { .. }) {
            what.extend(waiting);
        } else {
            what.extend(waiting.into_iter().filter(|waiting| waiting.contains("beats")));
        }
        (!what.is_empty()).then(|| what.join("; "))
    }
}

/// The word for a node's state, as in `--output json` and in metrics.
pub fn state_word(state: &NodeState) -> &'static str {
    match state {
        NodeState::Spare => "spare",
        NodeState::Reserved { .. } => "reserved",
        NodeState::Active { .. } => "active",
        NodeState::Fencing { .. } => "fencing",
        NodeState::Quarantined { .. } => "quarantined",
        NodeState::Cleaning { .. } => "cleaning",
    }
}

fn sentences(reasons: &[Waiting]) -> Vec<String> {
    reasons.iter().map(Waiting::to_string).collect()
}
