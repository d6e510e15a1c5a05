//! What a tenant may do, and what it sees: its own instances and what happens to them.
//!
//! Why it exists: both are said in one place, so that a new route is closed to tenants, a new kind of order refused, and a new field of
//! the state empty, until somebody writes otherwise here. What it never does: tell a tenant apart what is another's and what is not there.
//!
//! Answers are not filtered one by one. They are made by the same functions as everybody's, from a state that has nothing else in it.

use super::{Code, Problem};
use crate::auth::{Caller, Reach};
use crate::tenants::Denied;
use axum::http::Method;
use policies::{
    Check, ClusterState, Command, Event, InstanceId, InstanceRecord, NodeView, Plan, PolicyRecord, TenantId,
    View, Waiting,
};

/// What tenants may do with a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// Read, or order, about their own.
    Own,
    /// Nothing.
    Closed,
}
use Access::{Closed, Own};

/// Every route. What is not in it is closed.
const ROUTES: &[(&str, &str, Access)] = &[
    ("GET", "/healthz", Closed),
    ("GET", "/metrics", Closed),
    ("GET", "/openapi.json", Closed),
    ("GET", "/v1/members", Closed),
    ("GET", "/v1/events", Own),
    ("GET", "/v1/events/follow", Own),
    ("GET", "/v1/flight", Closed),
    ("GET", "/v1/status", Closed),
    ("GET", "/v1/nodes", Closed),
    ("GET", "/v1/nodes/{name}", Closed),
    ("DELETE", "/v1/nodes/{name}", Closed),
    ("POST", "/v1/nodes/{name}/cordon", Closed),
    ("POST", "/v1/nodes/{name}/maintenance", Closed),
    ("POST", "/v1/nodes/{name}/drain", Closed),
    ("POST", "/v1/nodes/{name}/fence", Closed),
    ("POST", "/v1/nodes/{name}/confirm-off", Closed),
    ("POST", "/v1/nodes/{name}/release", Closed),
    ("GET", "/v1/nodes/{name}/power", Closed),
    ("POST", "/v1/nodes/{name}/power", Closed),
    ("GET", "/v1/nodes/{name}/console", Closed),
    ("POST", "/v1/nodes/{name}/console", Closed),
    ("POST", "/v1/nodes/{name}/nmi", Closed),
    ("GET", "/v1/instances", Own),
    ("GET", "/v1/instances/{name}", Own),
    ("DELETE", "/v1/instances/{name}", Closed),
    ("POST", "/v1/instances/{name}/evacuate", Own),
    ("POST", "/v1/instances/{name}/approve", Own),
    ("GET", "/v1/instances/{name}/policy", Own),
    ("GET", "/v1/spares", Closed),
    ("GET", "/v1/providers", Closed),
    ("DELETE", "/v1/providers/{name}", Closed),
    ("GET", "/v1/providers/{name}/inventory", Closed),
    ("GET", "/v1/failovers", Own),
    ("GET", "/v1/failovers/{id}", Own),
    ("POST", "/v1/failovers/{id}/cancel", Own),
    ("GET", "/v1/explain/{*target}", Own),
    ("GET", "/v1/policies", Closed),
    ("GET", "/v1/policies/{name}", Closed),
    ("PUT", "/v1/policies/{name}", Closed),
    ("DELETE", "/v1/policies/{name}", Closed),
    ("GET", "/v1/policies/{name}/history", Closed),
    ("POST", "/v1/policies/{name}/plan", Closed),
    ("GET", "/v1/coverage", Closed),
    ("POST", "/v1/apply", Closed),
    ("POST", "/v1/arm", Closed),
    ("POST", "/v1/disarm", Closed),
    ("POST", "/v1/members", Closed),
    ("DELETE", "/v1/members/{id}", Closed),
    ("POST", "/v1/members/{id}/promote", Closed),
    ("POST", "/v1/leader", Closed),
];

/// Whether this caller may use this route at all.
///
/// # Errors
/// What tenants may do instead.
pub(super) fn may_use(caller: &Caller, method: &Method, route: Option<&str>) -> Result<(), Problem> {
    // Whatever is answered to GET is answered to HEAD, without its body.
    let method = if *method == Method::HEAD { Method::GET } else { method.clone() };
    let is_this = |(of, path, _): &&(&str, &str, Access)| *of == method.as_str() && Some(*path) == route;
    let access = ROUTES.iter().find(is_this).map_or(Closed, |(_, _, access)| *access);
    match (&caller.reach, access) {
        (Reach::Cluster, Own | Closed) | (Reach::Tenant { .. }, Own) => Ok(()),
        (Reach::Tenant { .. }, Closed) => Err(not_for_tenants(caller)),
    }
}

fn not_for_tenants(caller: &Caller) -> Problem {
    let error = format!("{} may not do this: it is for operators of the cluster", caller.name);
    let hint = "a tenant may use, for its own instances and failovers, `instance list` and `show`, `instance evacuate`, \
                `failover list`, `show`, `approve` and `cancel`, `explain`, `events` and `policy effective`";
    Problem::new(Code::NotAllowed, error, hint)
}

/// Whether this caller may give this order: a tenant, only about what is its own. What is another's is not there.
///
/// # Errors
/// Why not.
pub(super) fn may_order(state: &ClusterState, caller: &Caller, order: &Command) -> Result<(), Problem> {
    let Reach::Tenant { tenant, .. } = &caller.reach else { return Ok(()) };
    match order {
        Command::Evacuate { instance, .. } | Command::Approve { instance, .. } => {
            let is_own = state.instances.get(instance).is_some_and(|record| owns(tenant, record));
            let not_there = || Problem::not_there(&format!("instance {instance}"), "instance list");
            is_own.then_some(()).ok_or_else(not_there)
        }
        Command::Cancel { plan, .. } => {
            let is_own = state.plans.get(plan).is_some_and(|plan| moves_own(state, tenant, plan));
            let not_there = || Problem::not_there(&format!("failover {plan}"), "failover list");
            is_own.then_some(()).ok_or_else(not_there)
        }
        Command::Note { .. }
        | Command::Describe(_)
        | Command::SetPolicy { .. }
        | Command::DeletePolicy { .. }
        | Command::Delete { .. }
        | Command::Forced { .. }
        | Command::Arm { .. }
        | Command::Disarm { .. }
        | Command::Cordon { .. }
        | Command::Maintain { .. }
        | Command::Drain { .. }
        | Command::Fence { .. }
        | Command::ConfirmOff { .. }
        | Command::Release { .. }
        | Command::ByHand { .. }
        | Command::TookOver { .. }
        | Command::Lead { .. } => Err(not_for_tenants(caller)),
    }
}

fn owns(tenant: &TenantId, record: &InstanceRecord) -> bool {
    record.instance.tenant.as_ref() == Some(tenant)
}

fn moves_own(state: &ClusterState, tenant: &TenantId, plan: &Plan) -> bool {
    let instance = plan.decision.instance.as_ref().and_then(|name| state.instances.get(name));
    instance.is_some_and(|record| owns(tenant, record))
}

/// The part of the state and of the view that is the tenant's: its instances, their nodes, policies and failovers.
pub(super) fn part(state: &ClusterState, view: &View, tenant: &TenantId) -> (ClusterState, View) {
    let instances = state.instances.iter().filter(|(_, record)| owns(tenant, record));
    let mut own = ClusterState {
        applied: state.applied,
        leadership: state.leadership,
        armed: state.armed.clone(),
        instances: instances.map(|(name, record)| (name.clone(), record.clone())).collect(),
        // Not what comes with an empty state: policies that protect none of its instances are not its business.
        policies: Default::default(),
        ..ClusterState::default()
    };
    for record in own.instances.values() {
        own.nodes.extend(state.nodes.get_key_value(&record.node).map(|(k, v)| (k.clone(), v.clone())));
        let policy = state.policies.get_key_value(&record.policy);
        own.policies.extend(policy.map(|(name, policy)| (name.clone(), only_for(tenant, policy))));
    }
    for record in own.nodes.values_mut() {
        record.withheld = record.withheld.take().map(without_others);
    }
    let plans = state.plans.values().filter(|plan| moves_own(state, tenant, plan));
    own.plans = plans.map(|plan| (plan.id, without_runners_up(plan))).collect();
    let view = part_of_view(view, &own);
    (own, view)
}

fn part_of_view(view: &View, own: &ClusterState) -> View {
    let plain = |reasons: &Vec<Waiting>| reasons.iter().cloned().map(without_others).collect::<Vec<_>>();
    let nodes = view.nodes.iter().filter(|(name, _)| own.nodes.contains_key(*name));
    let instances = view.instances.iter().filter(|(name, _)| own.instances.contains_key(*name));
    let plans = view.plans.iter().filter(|(id, _)| own.plans.contains_key(id));
    let is_own = |check: &Check| {
        own.instances.values().any(|record| match check {
            Check::Port(_) | Check::Free(_) => false,
            Check::Volume(volume) | Check::Snapshot(volume) => record.instance.volumes.contains(volume),
            Check::Boot(boot) => record.instance.boot.as_ref() == Some(boot),
        })
    };
    View {
        member: view.member,
        at: view.at,
        leads: view.leads,
        not_acting: view.not_acting.clone().map(without_others),
        members: view.members.clone(),
        nodes: nodes
            .map(|(name, node)| (name.clone(), NodeView { waiting: plain(&node.waiting), ..node.clone() }))
            .collect(),
        instances: instances.map(|(name, reasons)| (name.clone(), plain(reasons))).collect(),
        plans: plans.map(|(id, reasons)| (*id, plain(reasons))).collect(),
        checks: view.checks.iter().filter(|checked| is_own(&checked.check)).cloned().collect(),
    }
}

/// A policy may name other tenants to which it applies, too.
fn only_for(tenant: &TenantId, record: &PolicyRecord) -> PolicyRecord {
    let mut record = record.clone();
    record.policy.applies.tenants.retain(|applies| applies == tenant);
    record
}

/// Why a spare was not taken may tell to whom it is promised.
fn without_runners_up(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    plan.decision.runners_up = vec![];
    plan
}

/// A reason without what it says of others' spares and failovers.
fn without_others(reason: Waiting) -> Waiting {
    match reason {
        Waiting::NoFittingSpare { .. } => Waiting::NoFittingSpare { missing: vec![] },
        Waiting::Draining { token, older: _ } => {
            Waiting::Draining { older: "a step of an earlier failover".to_owned(), token }
        }
        Waiting::OutsideWindow { begins, meanwhile } => {
            Waiting::OutsideWindow { begins, meanwhile: Box::new(without_others(*meanwhile)) }
        }
        reason @ (Waiting::NotLeader { .. }
        | Waiting::TakingOver
        | Waiting::Disarmed { .. }
        | Waiting::Maintenance { .. }
        | Waiting::MembersDisagree { .. }
        | Waiting::MembersDoubt { .. }
        | Waiting::DomainsTooFew { .. }
        | Waiting::AskingKernel
        | Waiting::NeverHeard
        | Waiting::Gray { .. }
        | Waiting::Hold { .. }
        | Waiting::CalledOff { .. }
        | Waiting::HoldSettles { .. }
        | Waiting::FencesInFlight { .. }
        | Waiting::FencesPer10Min { .. }
        | Waiting::Shadow { .. }
        | Waiting::Approval { .. }
        | Waiting::NotReady { .. }
        | Waiting::IsolationMissing { .. }
        | Waiting::PowerProofMissing { .. }
        | Waiting::NothingToIsolate { .. }
        | Waiting::InFlight { .. }
        | Waiting::Retrying { .. }
        | Waiting::CrashDump { .. }
        | Waiting::StartsCold { .. }
        | Waiting::FirstHeartbeat { .. }
        | Waiting::PlanRunning { .. }
        | Waiting::NothingToMove
        | Waiting::Quarantined
        | Waiting::Unclean { .. }
        | Waiting::QuarantinedButOn { .. }
        | Waiting::QuarantinedButAlive { .. }) => reason,
    }
}

/// Whether a caller sees an event: a tenant does if it is about its instances, by who owns what now, and about nobody else's.
pub(super) fn sees(state: &ClusterState, caller: &Caller, event: &Event) -> bool {
    let Reach::Tenant { tenant, .. } = &caller.reach else { return true };
    let is_own = |name: &str| {
        let record = name.parse::<InstanceId>().ok().and_then(|name| state.instances.get(&name));
        record.is_some_and(|record| owns(tenant, record))
    };
    let mut about_own = false;
    for object in &event.about {
        match object.split_once('/') {
            Some(("instance", name)) if is_own(name) => about_own = true,
            // A failover is told together with the instance that it moves.
            Some(("node" | "failover", _)) => {}
            _ => return false,
        }
    }
    // What a forced order leaves without cover is only in its text.
    let mut named = event.text.split_whitespace().filter_map(|word| word.strip_prefix("instance/"));
    about_own && named.all(|name| is_own(name.trim_end_matches([':', ';', ',', '.'])))
}

/// Why a tenant was not let in, as an answer.
pub(super) fn denied(why: &Denied) -> Problem {
    let (code, hint) = match why {
        Denied::NoCloud | Denied::Unknown => (
            Code::NotAuthenticated,
            "get a new token of the cloud whose project the instances belong to, and show it as `X-Auth-Token`",
        ),
        Denied::WhichCloud | Denied::NotThere => (
            Code::BadRequest,
            "name the provider whose Keystone knows you: `X-HA-Provider: NAME` (`hactl --os-provider NAME`)",
        ),
        Denied::NoProject => {
            (Code::NotAllowed, "enter with a project: it is as a project that one is a tenant here")
        }
        Denied::NoRole(_) => {
            (Code::NotAllowed, "ask who administers the project for the role reader or member")
        }
        Denied::CannotTell(_) => (
            Code::NotYet,
            "nothing was done; try again when that Keystone answers. The log of this member says what is wrong; operators are let in with their certificates",
        ),
    };
    Problem::new(code, why.to_string(), hint)
}
