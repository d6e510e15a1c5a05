//! Lists: one line for each thing, the same columns always. `-o wide` has more of them, before the last ones.

use super::{Screen, Tone, or_dash, table, time};
use crate::api::answers::{FailoverLine, InstanceLine, MemberLine, Members, NodeLine, PolicyDetail};
use crate::api::facts::state_word;
use crate::context::ContextDetail;
use policies::{After, Millis, NodeState, Verdict};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The columns of a list. The last ones may hold sentences, so the wide ones stand before them.
pub(super) fn columns<T>(screen: &Screen, first: Vec<T>, wide: Vec<T>, last: Vec<T>) -> Vec<T> {
    let wide = if screen.wide { wide } else { vec![] };
    first.into_iter().chain(wide).chain(last).collect()
}

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
        let power = match node.power.as_deref() {
            Some("no answer") => screen.tint(Tone::Careful, "no answer"),
            read => or_dash(read.map(str::to_owned)),
        };
        let instance = or_dash(node.instance.as_ref().map(ToString::to_string));
        let first = vec![node.name.to_string(), state, verdict(&node.verdict, screen), power, instance];
        columns(screen, first, node_wide(node, screen), vec![or_dash(Some(node.waiting.join("; ")))])
    };
    let none = "No nodes are described yet; `hactl apply -f FILE` describes them.";
    let first = vec!["NAME", "STATE", "HEALTH", "POWER", "INSTANCE"];
    let wide = vec!["PLAN", "JUDGED", "AGENT", "FENCING", "SERIAL", "DOMAINS", "LABELS"];
    table(&columns(screen, first, wide, vec!["WAITING"]), nodes.iter().map(row).collect(), none)
}

fn node_wide(node: &NodeLine, screen: &Screen) -> Vec<String> {
    let plan = match &node.state {
        NodeState::Spare | NodeState::Active { .. } => None,
        NodeState::Reserved { plan } | NodeState::Fencing { plan } | NodeState::Quarantined { plan, .. } => {
            Some(plan.to_string())
        }
        NodeState::Cleaning { plan, .. } => plan.map(|plan| plan.to_string()),
    };
    vec![
        or_dash(plan),
        // Zero: nobody has judged it, or the member is older than this column.
        or_dash((node.judged.0 > 0).then(|| time::ago(node.judged, screen.now))),
        if node.agent { "yes" } else { "no" }.to_owned(),
        or_dash(Some(node.fencing.join(","))),
        or_dash(node.serial.clone()),
        or_dash(Some(pairs(&node.domains))),
        or_dash(Some(pairs(&node.labels))),
    ]
}

/// `hactl instance list`.
pub fn instances(instances: &[InstanceLine], screen: &Screen) -> String {
    let row = |instance: &InstanceLine| {
        let first = vec![
            instance.name.to_string(),
            instance.node.to_string(),
            verdict(&instance.verdict, screen),
            instance.epoch.to_string(),
            instance.policy.to_string(),
            or_dash(instance.failover.map(|id| id.to_string())),
        ];
        let vlans = instance.vlans.iter().map(ToString::to_string).collect::<Vec<_>>();
        let wide = vec![
            or_dash(Some(vlans.join(","))),
            or_dash(Some(instance.volumes.join(","))),
            or_dash(instance.boot.clone()),
            or_dash(Some(pairs(&instance.needs))),
            or_dash(instance.tenant.as_ref().map(ToString::to_string)),
            or_dash(Some(pairs(&instance.labels))),
        ];
        columns(screen, first, wide, vec![or_dash(Some(instance.waiting.join("; ")))])
    };
    let first = vec!["NAME", "NODE", "HEALTH", "EPOCH", "POLICY", "FAILOVER"];
    let wide = vec!["VLANS", "VOLUMES", "BOOT", "NEEDS", "TENANT", "LABELS"];
    let headers = columns(screen, first, wide, vec!["WAITING"]);
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
        let first = vec![
            failover.id.to_string(),
            or_dash(failover.instance.as_ref().map(ToString::to_string)),
            failover.from.to_string(),
            or_dash(failover.spare.as_ref().map(ToString::to_string)),
            phase,
            time::length(until.since(failover.at)),
            time::ago(failover.at, screen.now),
        ];
        let entered = time::ago(failover.entered, screen.now);
        // What a human has to do comes first; the rest of the reasons repeat it in other words.
        let waiting = failover.stuck.clone().unwrap_or_else(|| failover.waiting.join("; "));
        let mut last = vec![failover.cause.to_string()];
        last.extend(screen.wide.then(|| or_dash(Some(waiting))));
        columns(screen, first, vec![entered], last)
    };
    let first = vec!["ID", "INSTANCE", "FROM", "TO", "PHASE", "TOOK", "BEGAN"];
    let last = if screen.wide { vec!["CAUSE", "WAITING"] } else { vec!["CAUSE"] };
    let headers = columns(screen, first, vec!["IN-PHASE-SINCE"], last);
    table(&headers, failovers.iter().map(row).collect(), "There has been no failover.")
}

/// `hactl member list`.
pub fn members(members: &Members, screen: &Screen) -> String {
    let row = |member: &MemberLine| {
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
        let first = vec![
            member.id.0.to_string(),
            role,
            or_dash(member.domain.clone()),
            member.address.clone(),
            member.api.clone(),
            report,
            or_dash(member.behind.map(|behind| behind.to_string())),
        ];
        let without = match members.has_quorum_without(member.id) {
            true => "quorum".to_owned(),
            false => screen.tint(Tone::Bad, "no quorum"),
        };
        columns(screen, first, vec![without], vec![or_dash(member.doubt.clone())])
    };
    let first = vec!["ID", "ROLE", "DOMAIN", "ADDRESS", "API", "REPORT", "BEHIND"];
    let headers = columns(screen, first, vec!["WITHOUT-IT"], vec!["DOUBT"]);
    table(&headers, members.members.iter().map(row).collect(), "This member belongs to no cluster yet.")
}

/// `hactl policy list`.
pub fn policies(policies: &[PolicyDetail], screen: &Screen) -> String {
    let row = |policy: &PolicyDetail| {
        let first = vec![
            policy.name.to_string(),
            policy.version.to_string(),
            policy.order.by.clone(),
            policy.instances.to_string(),
            policy.policy.detection.suspect_after.to_string(),
        ];
        let content = &policy.policy;
        let isolation_alone = match content.fencing.isolation_alone {
            After::Never => "never".to_owned(),
            After::Time(length) => length.to_string(),
        };
        let wide = vec![
            content.detection.gray_after.to_string(),
            isolation_alone,
            content.takeover.start_deadline.to_string(),
            content.brakes.fences_in_flight_max.to_string(),
            content.brakes.fences_per_10min_max.to_string(),
            content.brakes.hold_above_failed.to_string(),
        ];
        columns(screen, first, wide, vec![])
    };
    let first = vec!["NAME", "VERSION", "BY", "INSTANCES", "SUSPECT-AFTER"];
    let wide = vec![
        "GRAY-AFTER",
        "ISOLATION-ALONE",
        "START-DEADLINE",
        "FENCES-IN-FLIGHT-MAX",
        "FENCES-PER-10MIN-MAX",
        "HOLD-ABOVE-FAILED",
    ];
    let headers = columns(screen, first, wide, vec![]);
    table(&headers, policies.iter().map(row).collect(), "There are no policies.")
}

/// `hactl context list`.
pub fn contexts(contexts: &[ContextDetail], screen: &Screen) -> String {
    let row = |context: &ContextDetail| {
        let first = vec![
            if context.current { "*" } else { "-" }.to_owned(),
            or_dash(context.name.clone()),
            context.endpoints.join(","),
        ];
        let path = |path: &Option<PathBuf>| or_dash(path.as_ref().map(|path| path.display().to_string()));
        let wide = vec![context.ca.display().to_string(), path(&context.cert), path(&context.token_file)];
        columns(screen, first, wide, vec![])
    };
    let headers = columns(screen, vec!["CURRENT", "NAME", "ENDPOINTS"], vec!["CA", "CERT", "TOKEN"], vec![]);
    table(&headers, contexts.iter().map(row).collect(), "The file names no context.")
}

/// `rack=r1,pdu=p2`: one word, so that columns stay aligned for `awk`.
pub(super) fn pairs(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
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
