//! Lists: one line for each thing, the same columns always.

use super::{Screen, Tone, or_dash, table, time};
use crate::api::answers::{FailoverLine, InstanceLine, Members, NodeLine, PolicyDetail, state_word};
use policies::{Millis, Verdict};

/// `hactl node list`.
pub fn nodes(nodes: &[NodeLine], screen: &Screen) -> String {
    let row = |node: &NodeLine| {
        let mut state = state_word(&node.state).to_owned();
        if node.cordoned {
            state.push_str(",cordoned");
        }
        if node.maintenance {
            state.push_str(",maintenance");
        }
        vec![
            node.name.to_string(),
            state,
            verdict(&node.verdict, screen),
            match node.power.as_deref() {
                Some("no answer") => screen.tint(Tone::Careful, "no answer"),
                read => or_dash(read.map(str::to_owned)),
            },
            or_dash(node.instance.as_ref().map(ToString::to_string)),
            or_dash(Some(node.waiting.join("; "))),
        ]
    };
    let none = "No nodes are described yet; `hactl apply -f FILE` describes them.";
    let headers = ["NAME", "STATE", "HEALTH", "POWER", "INSTANCE", "WAITING"];
    table(&headers, nodes.iter().map(row).collect(), none)
}

/// `hactl instance list`.
pub fn instances(instances: &[InstanceLine], screen: &Screen) -> String {
    let row = |instance: &InstanceLine| {
        vec![
            instance.name.to_string(),
            instance.node.to_string(),
            verdict(&instance.verdict, screen),
            instance.epoch.to_string(),
            instance.policy.to_string(),
            or_dash(instance.failover.map(|id| id.to_string())),
            or_dash(Some(instance.waiting.join("; "))),
        ]
    };
    let headers = ["NAME", "NODE", "HEALTH", "EPOCH", "POLICY", "FAILOVER", "WAITING"];
    table(&headers, instances.iter().map(row).collect(), "No instances are described yet.")
}

/// `hactl failover list`.
pub fn failovers(failovers: &[FailoverLine], screen: &Screen) -> String {
    let row = |failover: &FailoverLine| {
        let phase = match (&failover.stuck, failover.phase.is_over()) {
            (Some(_), false) => screen.tint(Tone::Bad, &format!("{},stuck", failover.phase)),
            (Some(_) | None, true) => failover.phase.to_string(),
            (None, false) => screen.tint(Tone::Careful, &failover.phase.to_string()),
        };
        let until = if failover.phase.is_over() { failover.entered } else { screen.now };
        vec![
            failover.id.to_string(),
            or_dash(failover.instance.as_ref().map(ToString::to_string)),
            failover.from.to_string(),
            or_dash(failover.spare.as_ref().map(ToString::to_string)),
            phase,
            time::length(until.since(failover.at)),
            time::ago(failover.at, screen.now),
            failover.cause.to_string(),
        ]
    };
    let headers = ["ID", "INSTANCE", "FROM", "TO", "PHASE", "TOOK", "BEGAN", "CAUSE"];
    table(&headers, failovers.iter().map(row).collect(), "There has been no failover.")
}

/// `hactl member list`.
pub fn members(members: &Members, screen: &Screen) -> String {
    let row = |member: &crate::api::answers::MemberLine| {
        let role = match (member.leader, member.voter) {
            (true, _) => screen.tint(Tone::Strong, "leader"),
            (false, true) => "voter".to_owned(),
            (false, false) => "learner".to_owned(),
        };
        let report = match (member.id == members.answered_by, member.report_age_ms) {
            (true, _) => "(answers)".to_owned(),
            (false, Some(age)) => format!("{} ago", time::length(Millis(age))),
            (false, None) => screen.tint(Tone::Careful, "never"),
        };
        vec![
            member.id.0.to_string(),
            role,
            or_dash(member.domain.clone()),
            member.address.clone(),
            member.api.clone(),
            report,
            or_dash(member.behind.map(|behind| behind.to_string())),
            or_dash(member.doubt.clone()),
        ]
    };
    let headers = ["ID", "ROLE", "DOMAIN", "ADDRESS", "API", "REPORT", "BEHIND", "DOUBT"];
    table(&headers, members.members.iter().map(row).collect(), "This member belongs to no cluster yet.")
}

/// `hactl policy list`.
pub fn policies(policies: &[PolicyDetail]) -> String {
    let row = |policy: &PolicyDetail| {
        vec![
            policy.name.to_string(),
            policy.version.to_string(),
            policy.order.by.clone(),
            policy.instances.to_string(),
            policy.policy.detection.suspect_after.to_string(),
        ]
    };
    let headers = ["NAME", "VERSION", "BY", "INSTANCES", "SUSPECT-AFTER"];
    table(&headers, policies.iter().map(row).collect(), "There are no policies.")
}

/// The belief in its colour; the cause is told by `explain`.
pub(super) fn verdict(verdict: &Verdict, screen: &Screen) -> String {
    match verdict {
        Verdict::Unknown => "unknown".to_owned(),
        Verdict::Healthy => screen.tint(Tone::Good, "healthy"),
        Verdict::Gray => screen.tint(Tone::Careful, "gray"),
        Verdict::Failed(_) => screen.tint(Tone::Bad, "failed"),
    }
}
