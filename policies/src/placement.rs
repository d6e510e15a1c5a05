//! Choosing a spare: a list of needs, each a function, then an order. Never looks at anything but its arguments.

use crate::capability::Capabilities;
use crate::concession::{Concession, Rung, given_up};
use crate::inventory::{Instance, SwitchPort};
use crate::memory::{LastPower, Presence};
use crate::network::{MacRule, Network};
use crate::observation::Power;
use crate::plan::{Start, Verdict};
use crate::policy::Spares;
use crate::provider::{Provider, ProviderKind};
use crate::readiness::{Finding, Trouble, ports_out, taken};
use crate::state::{ClusterState, NodeRecord, NodeState};
use crate::words::*;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Spares beside the chosen one that a decision names. Bounds its entry in the log.
const RUNNERS_UP_MAX: usize = 10;
/// Spares that a refusal names, with what each misses. Bounds it likewise.
const MISFITS_MAX: usize = 20;

/// A chosen spare.
pub(crate) struct Choice {
    pub(crate) spare: NodeId,
    /// How it is made to run the instance.
    pub(crate) start: Start,
    /// What the policy gave up, for none fits otherwise.
    pub(crate) gives_up: Vec<Concession>,
    /// The others, best first, each with the reason why it was not taken.
    pub(crate) runners_up: Vec<(NodeId, String)>,
}

/// A spare as far as the choice looks at it.
pub(crate) struct Candidate<'a> {
    pub(crate) record: &'a NodeRecord,
    pub(crate) presence: Presence,
    /// A failover that it takes part in although it is a spare.
    plan: Option<PlanId>,
    /// What it has, and what it has less of than was declared.
    capabilities: Cow<'a, Capabilities>,
    mismatch: Option<String>,
    /// Ports that certainly do not work, by their place.
    ports_out: Vec<(usize, Finding)>,
    /// What its cloud says of it, if that is not ours to take.
    taken: Option<Finding>,
    /// The back ends, each of which knows nodes by something else.
    providers: &'a BTreeMap<ProviderId, Provider>,
    /// The moment of the choice, for what counts only for a time.
    now: Wall,
}

/// What is to be placed.
#[derive(Clone, Copy)]
pub(crate) struct Wish<'a> {
    pub(crate) instance: &'a Instance,
    pub(crate) spares: &'a Spares,
    /// The node that it leaves.
    pub(crate) from: &'a NodeRecord,
    /// A hot spare can go on into its kernel.
    pub(crate) kexecs: bool,
}

/// All spares, whether they fit or not: the hot ones first, then by name.
pub(crate) fn candidates<'a>(
    state: &'a ClusterState,
    presence: impl Fn(&NodeId) -> Presence,
    trouble: Trouble,
    now: Wall,
) -> Vec<Candidate<'a>> {
    let spares = state.nodes.values().filter(|record| record.state == NodeState::Spare);
    let candidate = |record| Candidate {
        record,
        presence: presence(&record.node.name),
        plan: state.plan_of_node(&record.node.name).map(|plan| plan.id),
        capabilities: record.capabilities(),
        mismatch: record.mismatch(),
        ports_out: ports_out(&record.node, trouble),
        taken: taken(&record.node, trouble),
        providers: &state.providers,
        now,
    };
    let mut candidates: Vec<Candidate> = spares.map(candidate).collect();
    candidates.sort_by_key(|spare| !spare.presence.waits_hot);
    candidates
}

/// A need wherever the instance runs: says what the node misses.
type Need = fn(&Instance, &Spares, &Candidate) -> Option<String>;

/// Every need, in the order in which a misfit is reported.
const NEEDS: [Need; 17] = [
    cordoned,
    maintenance,
    not_ordered,
    healthy,
    strikes,
    fenceable,
    is_off,
    ports,
    keeps_mac,
    ports_work,
    is_free,
    initiator,
    boot_mac,
    labels,
    pool,
    as_declared,
    capabilities,
];

fn cordoned(_: &Instance, _: &Spares, spare: &Candidate) -> Option<String> {
    spare.record.cordoned.then(|| "cordoned".to_owned())
}

fn maintenance(_: &Instance, _: &Spares, spare: &Candidate) -> Option<String> {
    spare.record.maintenance.as_ref().map(|order| format!("in maintenance ({})", order.reason))
}

fn not_ordered(_: &Instance, _: &Spares, spare: &Candidate) -> Option<String> {
    spare.record.fence_order.as_ref().map(|order| format!("to be fenced ({})", order.reason))
}

fn healthy(_: &Instance, _: &Spares, spare: &Candidate) -> Option<String> {
    match &spare.record.verdict {
        Verdict::Failed(cause) => Some(format!("failed ({cause})")),
        Verdict::Unknown | Verdict::Healthy | Verdict::Gray => {
            (spare.presence.power == LastPower::Mute).then(|| "its BMC does not answer".to_owned())
        }
    }
}

/// What has failed again and again will do so again, however healthy it looks now.
fn strikes(_: &Instance, spares: &Spares, spare: &Candidate) -> Option<String> {
    let (max, within) = (spares.strikes_max?, spares.strikes_within);
    let count = spare.record.strikes.iter().filter(|at| spare.now.since(**at) < within).count();
    (count > max as usize).then(|| format!("fenced {count} times within {within}, {max} are allowed"))
}

fn fenceable(_: &Instance, _: &Spares, spare: &Candidate) -> Option<String> {
    let fencing = &spare.record.node.fencing;
    fencing.is_empty().then(|| "no fencing device: it could be neither started nor fenced".to_owned())
}

/// Power on does nothing to a running node: it would keep what runs on it, with the instance's volumes attached. A hot
/// spare is told to go on into the instance, and a cloud deploys it on one that is on.
fn is_off(instance: &Instance, _: &Spares, spare: &Candidate) -> Option<String> {
    let Presence { power, waits_hot } = spare.presence;
    (power == LastPower::Read(Power::On) && !waits_hot && !deploys(instance, spare))
        .then(|| "its power is on: it would not boot the instance".to_owned())
}

fn ports(instance: &Instance, _: &Spares, spare: &Candidate) -> Option<String> {
    let ports = &spare.record.node.ports;
    let (has, needs) = (ports.len(), instance.networks.len());
    if has < needs {
        return Some(format!("{has} ports, {needs} needed"));
    }
    unlike(&instance.networks, ports, spare.providers)
}

/// Why one of the ports cannot carry its network; they go in pairs.
pub(crate) fn unlike(
    networks: &[Network],
    ports: &[SwitchPort],
    providers: &BTreeMap<ProviderId, Provider>,
) -> Option<String> {
    networks.iter().zip(ports).find_map(|(network, port)| {
        let is_clouds = matches!(providers.get(&port.provider)?.kind, ProviderKind::Openstack { .. });
        let why = match (network, is_clouds) {
            (Network::Vlans(_), false) | (Network::Vif(_), true) => return None,
            (Network::Vlans(_), true) => "is a cloud's, which gives it a `vif`, no VLAN",
            (Network::Vif(_), false) => "is no cloud's, and the instance's network is one's (`vif`)",
        };
        Some(format!("port {} at {} {why}", port.port, port.provider))
    })
}

/// Ironic sets the MAC address of a port to that of the NIC.
fn keeps_mac(instance: &Instance, spares: &Spares, spare: &Candidate) -> Option<String> {
    let mut networks = instance.networks.iter().zip(&spare.record.node.ports);
    let (_, port) = networks.find(|(network, _)| spares.mac == MacRule::Keep && network.vif().is_some())?;
    Some(format!("at port {} the instance would get its MAC address, and is to keep its own", port.port))
}

/// True if a cloud deploys the instance, whatever the spare's power is before.
fn deploys(instance: &Instance, spare: &Candidate) -> bool {
    let provider = instance.boot.as_ref().and_then(|boot| spare.providers.get(&boot.provider));
    provider.is_some_and(|provider| matches!(provider.kind, ProviderKind::Openstack { .. }))
}

/// A port that is not there counts even if no network needs it: it could never be closed again, should the spare fail.
fn ports_work(instance: &Instance, _: &Spares, spare: &Candidate) -> Option<String> {
    let counts = |(at, finding): &&(usize, Finding)| match finding {
        Finding::Absent(_) => true,
        Finding::Faulty(_) => *at < instance.networks.len(),
        Finding::Fine | Finding::Unclaimed | Finding::CannotTell(_) => false,
    };
    let (at, finding) = spare.ports_out.iter().find(counts)?;
    spare.record.node.ports.get(*at).map(|port| format!("port {}: {finding}", port.port))
}

fn is_free(_: &Instance, _: &Spares, spare: &Candidate) -> Option<String> {
    spare.taken.as_ref().map(|finding| format!("its cloud has not got it free: {finding}"))
}

fn initiator(instance: &Instance, _: &Spares, spare: &Candidate) -> Option<String> {
    let node = &spare.record.node;
    let cloud = instance.boot.iter().filter(|_| deploys(instance, spare)).map(|boot| &boot.provider);
    let providers = instance.volumes.iter().map(|volume| &volume.provider).chain(cloud);
    let strangers = providers.map(|name| spare.providers.get(name));
    let mut strangers = strangers.filter(|provider| match provider {
        Some(provider) => node.known_to(provider).is_none(),
        None => node.initiator.is_none(),
    });
    Some(match strangers.next()? {
        Some(Provider { name, kind: ProviderKind::Openstack { .. } }) => {
            format!("it has no fencing device `ironic` at {name}, by which that would know it")
        }
        Some(_) | None => "it has no initiator, by which storage would know it".to_owned(),
    })
}

fn boot_mac(instance: &Instance, _: &Spares, spare: &Candidate) -> Option<String> {
    let provider = spare.providers.get(&instance.boot.as_ref()?.provider)?;
    let missing = provider.kind.boot_service().is_some() && spare.record.node.boot_macs.is_empty();
    missing.then(|| format!("it has no boot_macs, by which {} would know it", provider.name))
}

fn labels(instance: &Instance, _: &Spares, spare: &Candidate) -> Option<String> {
    missing_label(instance.needs.iter(), spare)
}

fn pool(_: &Instance, spares: &Spares, spare: &Candidate) -> Option<String> {
    missing_label(spares.labels.iter(), spare).map(|missing| format!("{missing} (by the policy)"))
}

fn missing_label<'a>(
    mut wanted: impl Iterator<Item = (&'a String, &'a String)>,
    spare: &Candidate,
) -> Option<String> {
    let missing = wanted.find(|(key, value)| spare.record.node.labels.get(*key) != Some(*value));
    missing.map(|(key, value)| format!("label {key}={value} is missing"))
}

/// What broke in it breaks the instance too, whether or not the instance requires it: the next thing may break soon.
fn as_declared(_: &Instance, _: &Spares, spare: &Candidate) -> Option<String> {
    spare.mismatch.as_ref().map(|mismatch| format!("its hardware is not as declared: {mismatch}"))
}

/// All that it misses, for one that is told a line at a time buys the wrong memory first.
fn capabilities(instance: &Instance, _: &Spares, spare: &Candidate) -> Option<String> {
    instance.requires.missing(&spare.capabilities)
}

/// Where the spare must stand in another failure domain, one of which we do not know where it stands will not do.
pub(crate) fn elsewhere(wish: &Wish, spare: &Candidate) -> Option<String> {
    wish.spares.differs_in.iter().find_map(|kind| {
        match (wish.from.node.domains.get(kind), spare.record.node.domains.get(kind)) {
            (Some(left), Some(here)) if left == here => Some(format!("in {kind} {here}, as the failed node")),
            (Some(_), Some(_)) => None,
            (_, None) => Some(format!("its {kind} is not known, and the policy wants another")),
            (None, Some(_)) => Some(format!("the {kind} of {} is not known", wish.from.node.name)),
        }
    })
}

/// What the spare misses wherever the instance runs.
pub(crate) fn misfit(instance: &Instance, spares: &Spares, spare: &Candidate) -> Option<String> {
    NEEDS.iter().find_map(|need| need(instance, spares, spare))
}

/// A node that was released and cleaned while the failover away from it still goes on. One that is to be replaced frees it.
pub(crate) fn takes_part(spare: &Candidate, own: Option<PlanId>) -> Option<String> {
    let plan = spare.plan?;
    let replaced = own == Some(plan);
    (!replaced).then(|| format!("failover {plan} away from it still goes on"))
}

/// Chooses a spare; if none fits, with fewer and fewer of the policy's wishes.
///
/// # Errors
/// What the spares miss even so.
pub(crate) fn choose(
    state: &ClusterState,
    candidates: &[Candidate],
    wish: &Wish,
) -> Result<Choice, Vec<(NodeId, String)>> {
    let mut missing = vec![];
    for Rung { gives_up, spares } in wish.spares.ladder() {
        let wish = Wish { spares: &spares, ..*wish };
        match choose_by(state, candidates, &wish, gives_up) {
            Ok(choice) => return Ok(choice),
            Err(misfits) => missing = misfits,
        }
    }
    Err(missing)
}

/// Chooses a spare by exactly these wishes.
fn choose_by(
    state: &ClusterState,
    candidates: &[Candidate],
    wish: &Wish,
    gives_up: Vec<Concession>,
) -> Result<Choice, Vec<(NodeId, String)>> {
    let own = state.plan_of_node(&wish.from.node.name).map(|plan| plan.id);
    let mut misfits = vec![];
    let mut fitting = vec![];
    let mut far = 0;
    for spare in candidates {
        let misfit = misfit(wish.instance, wish.spares, spare).or_else(|| elsewhere(wish, spare));
        match misfit.or_else(|| takes_part(spare, own)) {
            Some(misfit) => misfits.push((&spare.record.node.name, misfit)),
            None => {
                let preference = preference(wish, spare);
                far += usize::from(preference.is_best());
                fitting.push(preference);
            }
        }
        // The hot ones come first, then by name: no later one is better than these.
        if far > RUNNERS_UP_MAX {
            break;
        }
    }
    fitting.sort_unstable();
    let told = |(node, why): (&NodeId, String)| (node.clone(), why);
    let mut fitting = fitting.into_iter();
    let Some(chosen) = fitting.next() else {
        return Err(misfits.into_iter().take(MISFITS_MAX).map(told).collect());
    };
    let also = match gives_up.as_slice() {
        [] => String::new(),
        gives_up => format!(", giving up {}", given_up(gives_up)),
    };
    let runner_up = |Preference { shared, start, node }: Preference| match (shared, start > chosen.start) {
        (0, false) => (node.clone(), format!("fits as well{also}")),
        (0, true) => (node.clone(), format!("fits, but would start later{also}")),
        (shared, _) => {
            let from = &wish.from.node.name;
            (node.clone(), format!("fits, but shares {shared} failure domains with {from}{also}"))
        }
    };
    let runners_up = fitting.map(runner_up).chain(misfits.into_iter().map(told));
    let runners_up = runners_up.take(RUNNERS_UP_MAX).collect();
    Ok(Choice { spare: chosen.node.clone(), start: chosen.start, gives_up, runners_up })
}

/// How good a spare is: less is better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Preference<'a> {
    /// Farthest from the failed node first: what killed it may reach its neighbours.
    shared: usize,
    /// The quickest first. A hot one is known to work as well.
    start: Start,
    pub(crate) node: &'a NodeId,
}

impl Preference<'_> {
    /// True if none that comes later is better, where hot ones come first.
    pub(crate) fn is_best(&self) -> bool {
        self.shared == 0 && self.start <= Start::PowerOn
    }
}

pub(crate) fn preference<'a>(wish: &Wish, spare: &Candidate<'a>) -> Preference<'a> {
    let (from, node) = (&wish.from.node, &spare.record.node);
    let shared = from.domains.iter().filter(|(kind, name)| node.domains.get(*kind) == Some(*name));
    let start = match (spare.presence.waits_hot, wish.kexecs) {
        _ if deploys(wish.instance, spare) => Start::Deploy,
        (true, true) => Start::Kexec,
        (true, false) => Start::PowerCycle,
        (false, _) => Start::PowerOn,
    };
    Preference { shared: shared.count(), start, node: &node.name }
}

#[cfg(test)]
pub(crate) const UNSEEN: Presence = Presence { power: LastPower::NeverAsked, waits_hot: false };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::describe::tests::described;
    use crate::inventory::Volume;
    use crate::policy::Policy;
    use crate::role::tests::DOCUMENTS;

    #[test]
    fn a_spare_that_storage_or_the_boot_service_would_not_know_is_passed_over() {
        let state = described(&DOCUMENTS.replace("\"52:54:00:00:00:02\"", "")).unwrap();
        let mut instance = state.instances.values().next().unwrap().instance.as_ref().clone();
        let spares = Policy::presets().remove(0).1.spares;
        let [spare] = candidates(&state, |_| UNSEEN, &|_| None, Wall(1)).try_into().ok().unwrap();
        assert_eq!(
            boot_mac(&instance, &spares, &spare).as_deref(),
            Some("it has no boot_macs, by which pxe would know it")
        );
        assert_eq!(initiator(&instance, &spares, &spare), None, "there are no volumes");
        instance.boot = None;
        assert_eq!(boot_mac(&instance, &spares, &spare), None);
        let provider = "array".parse().unwrap();
        instance.volumes = vec![Volume { provider, volume: "root".parse().unwrap() }];
        assert!(initiator(&instance, &spares, &spare).is_some());
    }
}
