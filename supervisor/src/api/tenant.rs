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
    ("POST", "/v1/instances/{name}/backup", Own),
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
    ("GET", "/v1/lint", Closed),
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
    let hint = "a tenant may use, for its own instances and failovers, `instance list` and `show`, `instance evacuate`, `instance backup`, \
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
        Command::Evacuate { instance, .. }
        | Command::Approve { instance, .. }
        | Command::Backup { instance, .. } => {
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
            Check::Volume(volume) | Check::Snapshot(volume) | Check::Backup(volume) => {
                record.instance.volumes.contains(volume)
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::explain::{Unexplained, explain};
    use crate::api::facts::Facts;
    use crate::auth::Role;
    use crate::render::tests::{mid_failover, name};
    use policies::{InstanceId, LogIndex, PlanId, Wall};
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use tokio::time::Instant;

    fn caller(tenant: &str) -> Caller {
        let reach = Reach::Tenant { tenant: name(tenant), until: Instant::now() };
        Caller { name: format!("tenant/{tenant}/eve"), role: Role::Operator, reach }
    }

    /// `web`, which moves from n1 to n2, is shop's; `db` on n3 is bank's.
    fn two_tenants() -> (ClusterState, View) {
        let story = mid_failover();
        let (mut state, mut view) = (story.state, story.view);
        let web = state.instances.get_mut(&name::<InstanceId>("web")).unwrap();
        Arc::make_mut(&mut web.instance).tenant = Some(name("shop"));
        let mut db = web.clone();
        let described = Arc::make_mut(&mut db.instance);
        (described.name, described.tenant, described.volumes) = (name("db"), Some(name("bank")), vec![]);
        (described.node, db.node) = (name("n3"), name("n3"));
        state.instances.insert(name("db"), db);
        let applies = &mut state.policies.get_mut(&name("quick")).unwrap().policy.applies;
        applies.tenants = [name("shop"), name("bank")].into();
        let missing = vec![(name("n3"), "it carries db".to_owned())];
        view.instances.insert(name("web"), vec![Waiting::NoFittingSpare { missing: missing.clone() }]);
        view.instances.insert(name("db"), vec![Waiting::NoFittingSpare { missing }]);
        (state, view)
    }

    fn listed() -> BTreeSet<(String, String)> {
        ROUTES.iter().map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned())).collect()
    }

    #[test]
    fn every_route_is_open_or_closed_to_tenants() {
        let described = serde_json::to_value(crate::api::description()).unwrap();
        let mut routes = BTreeSet::from([("GET".to_owned(), "/openapi.json".to_owned())]);
        for (path, methods) in described["paths"].as_object().unwrap() {
            let path = path.replace("{target}", "{*target}");
            routes.extend(methods.as_object().unwrap().keys().map(|it| (it.to_uppercase(), path.clone())));
        }
        assert_eq!(listed(), routes);
        assert_eq!(ROUTES.len(), routes.len(), "each is said once");
        let open = ROUTES.iter().filter(|(_, _, access)| *access == Own);
        let changing: Vec<&str> = open.filter(|it| it.0 != "GET").map(|it| it.1).collect();
        let own = [
            "instances/{name}/evacuate",
            "instances/{name}/approve",
            "instances/{name}/backup",
            "failovers/{id}/cancel",
        ];
        assert_eq!(changing, own.map(|path| format!("/v1/{path}")));
    }

    #[test]
    fn what_is_not_listed_is_closed_to_tenants_and_to_nobody_else() {
        let (operator, tenant) = (Caller { reach: Reach::Cluster, ..caller("shop") }, caller("shop"));
        for (method, route, open) in [
            (Method::GET, Some("/v1/instances"), true),
            (Method::HEAD, Some("/v1/instances"), true),
            (Method::POST, Some("/v1/instances"), false),
            (Method::GET, Some("/v1/nodes"), false),
            (Method::GET, Some("/v1/new"), false),
            (Method::GET, None, false),
        ] {
            assert!(may_use(&operator, &method, route).is_ok());
            assert_eq!(may_use(&tenant, &method, route).is_ok(), open, "{method} {route:?}");
        }
    }

    #[test]
    fn the_part_of_a_tenant_has_nothing_of_another() {
        let (state, view) = two_tenants();
        let told = |tenant: &str| {
            let (own, own_view) = part(&state, &view, &name(tenant));
            let own = serde_json::to_string(&own).unwrap();
            own + &serde_json::to_string(&own_view).unwrap()
        };
        let shop = told("shop");
        for (other, is_there) in [("\"web\"", true), ("bank", false), ("db", false), ("n3", false)] {
            assert_eq!(shop.contains(other), is_there, "{other}: {shop}");
        }
        let bank = told("bank");
        for other in ["web", "shop", "n1", "n2"] {
            assert!(!bank.contains(other), "{other}: {bank}");
        }
        let (nobody, nobody_view) = part(&state, &view, &name("nobody"));
        assert!(nobody.instances.is_empty() && nobody.nodes.is_empty() && nobody.plans.is_empty());
        assert!(nobody.policies.is_empty() && nobody_view.nodes.is_empty() && nobody_view.checks.is_empty());
    }

    #[test]
    fn answers_are_made_of_the_part() {
        let (state, view) = two_tenants();
        let (own, own_view) = part(&state, &view, &name("shop"));
        let facts = Facts { state: &own, view: &own_view, now: Wall(0) };
        assert_eq!(facts.instances().len(), 1);
        assert_eq!(facts.instances()[0].waiting, ["there is no spare"]);
        let plan = *own.plans.keys().next().unwrap();
        assert_eq!(facts.failover(plan).unwrap().plan.decision.runners_up, []);
        assert_eq!(facts.effective_policy(&name("web")).unwrap().detail.instances, 1);
        assert!(explain(facts, "web").is_ok() && explain(facts, &format!("{plan}")).is_ok());
        for other in ["db", "n2", "n3", "nothing"] {
            assert_eq!(explain(facts, other), Err(Unexplained::NotThere(other.to_owned())));
        }
    }

    #[test]
    fn a_tenant_orders_what_is_its_own_and_nothing_else() {
        let (state, _) = two_tenants();
        let reason = || "x".to_owned();
        let plan = *state.plans.keys().next().unwrap();
        let may = |tenant: &str, order: &Command| {
            may_order(&state, &caller(tenant), order).map_err(|problem| problem.code)
        };
        for (instance, tenant, expected) in [
            ("web", "shop", Ok(())),
            ("web", "bank", Err(Code::NotThere)),
            ("new", "bank", Err(Code::NotThere)),
        ] {
            let instance: InstanceId = name(instance);
            let evacuate = Command::Evacuate { instance: instance.clone(), reason: reason() };
            let approve = Command::Approve { instance, reason: reason() };
            assert_eq!((may(tenant, &evacuate), may(tenant, &approve)), (expected, expected));
        }
        let cancel = |plan| Command::Cancel { plan, reason: reason() };
        assert_eq!(may("shop", &cancel(plan)), Ok(()));
        assert_eq!(may("bank", &cancel(plan)), Err(Code::NotThere));
        assert_eq!(may("shop", &cancel(PlanId(4711))), Err(Code::NotThere));
        let forced = Command::Forced { order: Box::new(cancel(plan)), gaps: vec![] };
        for order in
            [Command::Arm { reason: reason() }, Command::Fence { node: name("n1"), reason: reason() }, forced]
        {
            assert_eq!(may("shop", &order), Err(Code::NotAllowed));
            assert!(may_order(&state, &Caller { reach: Reach::Cluster, ..caller("shop") }, &order).is_ok());
        }
    }

    #[test]
    fn an_event_is_seen_if_it_is_about_one_s_own_and_about_nobody_else_s() {
        let (state, _) = two_tenants();
        let of = |about: &[&str], text: &str| {
            let about = about.iter().map(|&object| object.to_owned()).collect();
            let event = Event { index: LogIndex(1), at: Wall(1), about, text: text.to_owned() };
            assert!(sees(&state, &Caller { reach: Reach::Cluster, ..caller("shop") }, &event));
            sees(&state, &caller("shop"), &event)
        };
        assert!(of(&["instance/web"], "x"));
        assert!(of(&["failover/f9", "node/n1", "instance/web", "node/n2"], "x"));
        assert!(of(&["node/n1", "instance/web"], "forced: instance/web: no spare"));
        for about in [&[][..], &["node/n1"], &["instance/db"], &["instance/web", "instance/db"]] {
            assert!(!of(about, "x"), "{about:?}");
        }
        for about in ["policy/quick", "provider/rack", "member/m1", "something"] {
            assert!(!of(&["instance/web", about], "x"), "{about}");
        }
        assert!(!of(&["node/n1", "instance/web"], "forced: instance/web: no spare; instance/db: no spare"));
    }
}
