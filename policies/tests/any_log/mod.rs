//! Logs of any entries, sensible or not, and what must hold of the state that they leave.
//! Why it exists: the properties here and the fuzz target `commands` (`chaos-tests/src/fuzzing`) say the same.
//! What it never does: know why an entry was rejected; only that what is left holds together.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "shared by tests of two crates"
)]

use policies::*;
use std::collections::BTreeSet;

macro_rules! holds {
    ($what:expr, $($why:tt)+) => {
        if !$what {
            return Err(format!($($why)+));
        }
    };
}

const NODES: [&str; 5] = ["n1", "n2", "n3", "s1", "s2"];
const INSTANCES: [&str; 3] = ["a", "b", "c"];

/// What a random entry wants, with its objects chosen by index, so that most entries are about something that exists.
#[derive(Clone, Debug)]
pub enum Want {
    Arm(bool),
    Cordon(Pick, bool),
    Maintain(Pick, bool),
    Evacuate(Pick),
    Drain(Pick),
    Fence(Pick),
    ConfirmOff(Pick),
    Cancel(Pick),
    Release(Pick),
    Delete(Pick, Pick),
    TookOver(Pick),
    Describe(Pick, bool),
    Judge(Pick, u8),
    Begin { instance: Option<Pick>, from: Pick, stray: bool, spare: Option<Pick>, cause: u8 },
    Replace { plan: Pick, spare: Pick },
    Intend { plan: Pick, action: Pick, foreign: bool },
    Resolve { plan: Pick, intent: Pick, outcome: u8 },
    Place { plan: Pick, tried: u64 },
    Finish(Pick),
    Stick(Pick, bool),
    Claim(Pick),
    Clean(Pick),
    CutAgain(Pick),
    Cleaned(Pick),
    Discover(Pick, u8),
    OldLeader(Pick),
    Apply(Pick, u8),
    Label(Pick, u8),
    ByHand(Pick, u8),
    ResolveByHand(Pick, u8),
    Backup(Pick),
    Keep(Pick),
    ResolveBackup(Pick, u8),
}

/// A choice among however many there are.
#[derive(Clone, Copy, Debug)]
pub struct Pick(u8);

impl Pick {
    fn of(self, many: usize) -> usize {
        usize::from(self.0) % many
    }
}

/// A want in bytes.
pub type Choice = [u8; 6];

impl Want {
    /// Any six bytes are a want. Kinds that move a plan on come more often, or few logs would finish one.
    pub fn read([kind, a, b, c, d, e]: Choice) -> Want {
        let (pa, pb, pc) = (Pick(a), Pick(b), Pick(c));
        let (on, rarely) = (b.is_multiple_of(2), d.is_multiple_of(10));
        match kind % 61 {
            0 | 1 => Want::Arm(a.is_multiple_of(2)),
            2 => Want::Cordon(pa, on),
            3 => Want::Maintain(pa, on),
            4 => Want::Evacuate(pa),
            5 => Want::Drain(pa),
            6 => Want::Fence(pa),
            7 | 8 => Want::ConfirmOff(pa),
            9 => Want::Cancel(pa),
            10 | 11 => Want::Release(pa),
            12 => Want::TookOver(pa),
            13 => Want::Describe(pa, on),
            14 | 15 => Want::Judge(pa, b % 5),
            16..=19 => {
                let (instance, spare) = ((!e.is_multiple_of(5)).then_some(pa), Some(pc).filter(|_| e >= 25));
                Want::Begin { instance, from: pb, stray: rarely, spare, cause: d % 6 }
            }
            20 => Want::Replace { plan: pa, spare: pb },
            21..=32 => Want::Intend { plan: pa, action: pb, foreign: rarely },
            33..=44 => Want::Resolve { plan: pa, intent: pb, outcome: c % 8 },
            45..=48 => Want::Place { plan: pa, tried: u64::from(b) * 20 },
            49 | 50 => Want::Finish(pa),
            51 => Want::Stick(pa, on),
            52 => Want::Cleaned(pa),
            53 => Want::Discover(pa, b),
            54 if on => Want::Delete(pa, pc),
            54 => Want::OldLeader(pa),
            55 => Want::Apply(pa, b),
            56 => Want::Label(pa, b),
            57 if d % 3 == 1 => Want::Backup(pa),
            57 => Want::ByHand(pa, b % 3),
            58 if d % 3 == 1 => Want::Claim(pa),
            58 => Want::Clean(pa),
            59 => Want::CutAgain(pa),
            _ if d % 3 == 1 => Want::Keep(pa),
            _ if d % 3 == 2 => Want::ResolveBackup(pa, c % 8),
            _ => Want::ResolveByHand(pa, c % 8),
        }
    }
}

/// Applies what is wanted to two copies of a state that begins with a described and armed cluster; all must hold after
/// each entry.
pub fn check(wants: impl IntoIterator<Item = Want>) -> Result<ClusterState, String> {
    let (mut state, mut copy) = (ClusterState::default(), ClusterState::default());
    for (at, command) in setup().into_iter().enumerate() {
        let result = apply_to_both(&mut state, &mut copy, at as u64 + 1, command)?;
        holds!(result.is_ok(), "the setup was refused: {result:?}");
    }
    for (at, want) in wants.into_iter().enumerate() {
        let before = state.clone();
        let wanted = command(&state, &want);
        if apply_to_both(&mut state, &mut copy, at as u64 + 4, wanted)?.is_err() {
            let unchanged = ClusterState { applied: state.applied, ..before.clone() };
            holds!(state == unchanged, "a rejected entry changed something");
        }
        plans_do_not_share(&state)?;
        nodes_and_instances_agree(&state)?;
        proof_comes_first(&state)?;
        volumes_are_kept_first(&state)?;
        backups_stand_back(&before, &state)?;
        policies_are_selected(&state)?;
        hands_keep_off(&before, &state)?;
        time_runs_forward(&before, &state)?;
    }
    let text = serde_json::to_string(&state).unwrap();
    holds!(serde_json::from_str::<ClusterState>(&text).unwrap() == state, "a snapshot says something else");
    Ok(state)
}

/// Applies what is wanted to a state that may never have come about, such as one from a damaged snapshot: any state and
/// any entry give a state, the same in each copy. More is not promised where a name leads nowhere: an entry may then be
/// rejected half-way. No log makes such a state, for nothing is deleted while anything leads to it.
#[allow(dead_code, reason = "only the fuzz harness has such states")]
pub fn check_total(
    mut state: ClusterState,
    wants: impl IntoIterator<Item = Want>,
) -> Result<ClusterState, String> {
    let mut copy = state.clone();
    // The log of a real cluster ends long before its indexes do.
    let first = state.applied.0.min(u64::MAX / 2) + 1;
    for (index, want) in (first..).zip(wants) {
        let wanted = command(&state, &want);
        // What it gave is compared with the copy; taken or rejected, both are right.
        drop(apply_to_both(&mut state, &mut copy, index, wanted)?);
    }
    Ok(state)
}

/// A cluster that is described and armed.
pub fn setup() -> [Command; 3] {
    [
        Command::Describe(Box::new(documents())),
        Command::Arm { reason: "ready".to_owned() },
        Command::TookOver { member: MemberId(1), boot: BootId(1) },
    ]
}

fn apply_to_both(
    state: &mut ClusterState,
    copy: &mut ClusterState,
    index: u64,
    command: Command,
) -> Result<Result<Applied, Rejected>, String> {
    let proposal = Proposal { at: Wall(index.saturating_mul(100)), by: "test".to_owned(), command };
    let result = state.apply(LogIndex(index), &proposal);
    let same = result == copy.apply(LogIndex(index), &proposal);
    holds!(same && state == copy, "two copies of the state disagree");
    Ok(result)
}

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn node(name_: &str, ports: usize) -> Node {
    let port = |i| SwitchPort { provider: name("rack"), port: format!("{name_}-{i}") };
    let device = |level| FenceDevice::Ipmi {
        address: format!("{name_}.bmc{level}"),
        user: "ha".to_owned(),
        password: Sealed("sealed".to_owned()),
        cipher_suite: 17,
        boot_device: None,
        console: false,
    };
    Node {
        name: name(name_),
        identity: Identity::default(),
        domains: Default::default(),
        labels: Default::default(),
        fencing: (1..=2).map(device).collect(),
        ports: (0..ports).map(port).collect(),
        boot_macs: vec![],
        standby: None,
        initiator: Some(format!("iqn.{name_}")),
        probe: Probe::default(),
        agent_key: None,
        capabilities: Default::default(),
    }
}

fn instance(name_: &str, node: &str) -> Instance {
    Instance {
        name: name(name_),
        node: name(node),
        policy: Some(name("quick")),
        tenant: None,
        labels: Default::default(),
        volumes: vec![Volume { provider: name("rack"), volume: name(&format!("vol-{name_}")) }],
        networks: vec![Network::Vlans(Vlans { vlan: 10, tagged: Default::default(), mac: None })],
        boot: None,
        needs: Default::default(),
        requires: Default::default(),
    }
}

fn documents() -> Documents {
    let kind =
        ProviderKind::Rack { url: "http://127.0.0.1:1".to_owned(), token: Sealed("sealed".to_owned()) };
    let (_, mut policy) = Policy::presets().remove(1);
    policy.takeover.snapshot_max = Millis(1);
    policy.backups.kept = 2;
    Documents {
        providers: vec![Provider { name: name("rack"), kind }],
        nodes: NODES.iter().map(|name| node(name, 1)).collect(),
        instances: INSTANCES.iter().zip(NODES).map(|(name, node)| instance(name, node)).collect(),
        policies: vec![PolicyDocument { name: name("quick"), policy }],
    }
}

fn verdict(number: u8) -> Verdict {
    match number {
        0 => Verdict::Unknown,
        1 => Verdict::Healthy,
        2 => Verdict::Gray,
        3 => Verdict::Failed(Cause::Silent),
        _ => Verdict::Failed(Cause::PowerOff),
    }
}

fn outcome(number: u8, action: &Action) -> Outcome {
    match (number, action) {
        (0..=4, Action::ShutDown { .. } | Action::PowerOff { .. }) => {
            Outcome::Done(Seen::OffTwice { already: false, took: Millis(1) })
        }
        (0..=4, Action::PowerOn { .. }) | (5, _) => Outcome::Done(Seen::On),
        (0..=4, Action::Interrupt { .. }) => Outcome::Done(Seen::Accepted),
        (0..=4, _) => Outcome::Done(Seen::ReadBack("as wished".to_owned())),
        (6, _) => Outcome::Refused(Refusal::LeaseEnded),
        (_, _) => Outcome::Unknown(Doubt::NoAnswer { waited: Millis(1) }),
    }
}

/// Turns a want into a command on this state.
pub fn command(state: &ClusterState, want: &Want) -> Command {
    let node = |index: &Pick| name::<NodeId>(NODES[index.of(NODES.len())]);
    let instance = |index: &Pick| name::<InstanceId>(INSTANCES[index.of(INSTANCES.len())]);
    let plan = |index: &Pick| {
        let ids: Vec<PlanId> = state.plans.keys().copied().collect();
        if ids.is_empty() { PlanId(0) } else { ids[index.of(ids.len())] }
    };
    let reason = || "why not".to_owned();
    let leader = state.leadership.map_or(LeaderEpoch(0), |leadership| leadership.epoch);
    let lead = |step| Command::Lead { leader, step };
    let decide = |instance: Option<InstanceId>, from: NodeId, spare: Option<NodeId>, cause: u8| {
        let causes = [
            Cause::Silent,
            Cause::PowerOff,
            Cause::Gasped,
            Cause::GrayTooLong,
            Cause::Ordered,
            Cause::DidNotStart,
        ];
        let carried = instance.as_ref().and_then(|instance| state.instances.get(instance));
        let order = carried.and_then(|record| record.evacuate.as_ref());
        Box::new(Decision {
            shutdown: order.and_then(|order| order.shutdown),
            start: match state.applied.0 % 4 {
                0 => Start::PowerOn,
                1 => Start::Kexec,
                2 => Start::Deploy,
                _ => Start::PowerCycle,
            },
            instance,
            from,
            spare,
            cause: causes[usize::from(cause)].clone(),
            evidence: Evidence::default(),
            policy: (name("quick"), LogIndex(0)),
            gates: vec![],
            runners_up: vec![],
        })
    };
    match want {
        Want::Arm(true) => Command::Arm { reason: reason() },
        Want::Arm(false) => Command::Disarm { reason: reason(), until: None },
        Want::Cordon(at, on) => Command::Cordon { node: node(at), on: *on },
        Want::Maintain(at, on) => Command::Maintain { node: node(at), reason: on.then(reason), until: None },
        Want::Evacuate(at) => Command::Evacuate { instance: instance(at), reason: reason() },
        Want::Drain(at) => Command::Drain { node: node(at), reason: reason(), shutdown: Millis(1000) },
        Want::Fence(at) => Command::Fence { node: node(at), reason: reason() },
        Want::ConfirmOff(at) => Command::ConfirmOff { node: node(at), reason: reason() },
        Want::Cancel(at) => Command::Cancel { plan: plan(at), reason: reason() },
        Want::Release(at) => Command::Release { node: node(at), reason: reason() },
        Want::Delete(what, at) => {
            let what = match what.of(5) {
                0 => Object::Provider(name("rack")),
                1 | 2 => Object::Instance(instance(at)),
                _ => Object::Node(node(at)),
            };
            let order = Command::Delete { what, reason: reason() };
            match at.0.is_multiple_of(3) {
                true => Command::Forced { order: Box::new(order), gaps: vec!["a: no spare fits".to_owned()] },
                false => order,
            }
        }
        Want::TookOver(at) => Command::TookOver { member: MemberId(at.of(3) as u64), boot: BootId(1) },
        Want::Describe(at, more) => {
            let which = NODES[at.of(NODES.len())];
            let nodes = vec![self::node(which, if *more { 2 } else { 1 })];
            // What was deleted comes back, each with what it needs.
            let Documents { providers, instances, .. } = documents();
            let gone = |instance: &Instance| {
                !state.instances.contains_key(&instance.name) && instance.node.as_str() == which
            };
            let instances = if *more { vec![] } else { instances.into_iter().filter(gone).collect() };
            Command::Describe(Box::new(Documents { providers, nodes, instances, policies: vec![] }))
        }
        Want::Judge(at, number) => {
            let (verdict, evidence) = (verdict(*number), Evidence::default());
            lead(Step::Judge { node: node(at), verdict, evidence })
        }
        Want::Begin { instance: which, from, stray, spare, cause } => {
            let which = which.as_ref().map(instance);
            let owner = which.as_ref().and_then(|which| state.instances.get(which)).filter(|_| !stray);
            let from = owner.map_or_else(|| node(from), |owner| owner.node.clone());
            lead(Step::Begin(decide(which, from, spare.as_ref().map(node), *cause)))
        }
        Want::Replace { plan: at, spare } => {
            let (at, next) = (plan(at), node(spare));
            let old = state.plans.get(&at).map(|plan| &plan.decision);
            let from = old.and_then(|old| old.spare.clone()).unwrap_or_else(|| next.clone());
            let decision = decide(old.and_then(|old| old.instance.clone()), from, Some(next), 5);
            lead(Step::Replace { plan: at, decision })
        }
        Want::Intend { plan: at, action, foreign } => {
            let actions = state.plans.get(&plan(at)).map_or(vec![], |plan| match foreign {
                false => state.phase_actions(plan).into_iter().chain(state.start_actions(plan)).collect(),
                true => state.move_actions(plan),
            });
            let spare = || Action::PowerOn { node: name("s1") };
            let chosen = (!actions.is_empty()).then(|| actions[action.of(actions.len())].clone());
            lead(Step::Intend { plan: plan(at), action: chosen.unwrap_or_else(spare) })
        }
        Want::Resolve { plan: at, intent, outcome: number } => {
            let intents = state.plans.get(&plan(at)).map_or(&[][..], |plan| &plan.intents);
            match intents.get(intent.of(intents.len().max(1))) {
                None => Command::Note { text: reason() },
                Some(intent) => {
                    let outcome = outcome(*number, &intent.action);
                    lead(Step::Resolve { token: intent.token, outcome })
                }
            }
        }
        Want::Place { plan: at, tried } => lead(Step::Place { plan: plan(at), tried: Millis(*tried) }),
        Want::Finish(at) => lead(Step::Finish { plan: plan(at), seen: "a heartbeat".to_owned() }),
        Want::Stick(at, on) => lead(Step::Stick { plan: plan(at), why: on.then(reason) }),
        Want::Claim(at) => lead(Step::Claim { node: node(at) }),
        Want::Clean(at) => lead(Step::Clean { node: node(at) }),
        Want::CutAgain(at) => lead(Step::CutAgain { node: node(at) }),
        Want::Cleaned(at) => lead(Step::Cleaned { node: node(at) }),
        Want::Discover(at, cpus) => {
            let found = Capabilities { cpus: Some(u32::from(*cpus)), ..Capabilities::default() };
            lead(Step::Discover { node: node(at), found: Box::new(found) })
        }
        Want::Apply(at, bits) => {
            let labels = labels(*bits);
            let applies = Applies { labels, ..Applies::default() };
            let (_, preset) = Policy::presets().remove(1);
            let policy = Box::new(Policy { applies, ..preset });
            let name = name(["one", "two", "three"][at.of(3)]);
            Command::SetPolicy { name, policy, check: None, reason: reason() }
        }
        Want::Label(at, bits) => {
            let number = at.of(INSTANCES.len());
            let described = self::instance(INSTANCES[number], NODES[number]);
            let policy = described.policy.clone().filter(|_| bits.is_multiple_of(3));
            let instances = vec![Instance { policy, labels: labels(*bits), ..described }];
            Command::Describe(Box::new(Documents { instances, ..Documents::default() }))
        }
        Want::ByHand(at, which) => {
            let hand = [Hand::PowerOn, Hand::PowerOff, Hand::Interrupt][usize::from(*which)];
            Command::ByHand { node: node(at), hand, reason: reason() }
        }
        Want::ResolveByHand(at, number) => {
            let newest = state.nodes.get(&node(at)).and_then(|record| record.by_hand.last());
            match newest.map(|by_hand| &by_hand.intent) {
                None => Command::Note { text: reason() },
                Some(intent) => {
                    let outcome = outcome(*number, &intent.action);
                    lead(Step::Resolve { token: intent.token, outcome })
                }
            }
        }
        Want::Backup(at) => {
            Command::Backup { instance: name(INSTANCES[at.of(INSTANCES.len())]), reason: reason() }
        }
        Want::Keep(at) => {
            let instance: InstanceId = name(INSTANCES[at.of(INSTANCES.len())]);
            let backup = state.instances.get(&instance).and_then(|record| record.backups.last());
            match backup.and_then(|backup| backup.actions.first()) {
                None => Command::Note { text: reason() },
                Some(action) => lead(Step::Keep { instance, action: action.clone() }),
            }
        }
        Want::ResolveBackup(at, number) => {
            let instance: InstanceId = name(INSTANCES[at.of(INSTANCES.len())]);
            let backup = state.instances.get(&instance).and_then(|record| record.backups.last());
            match backup.and_then(|backup| backup.intents.last()) {
                None => Command::Note { text: reason() },
                Some(intent) => {
                    let outcome = outcome(*number, &intent.action);
                    lead(Step::Resolve { token: intent.token, outcome })
                }
            }
        }
        Want::OldLeader(at) => Command::Lead {
            leader: LeaderEpoch(leader.0.wrapping_sub(1)),
            step: Step::Cleaned { node: node(at) },
        },
    }
}

/// Some of two labels.
fn labels(bits: u8) -> std::collections::BTreeMap<String, String> {
    let given = ["a", "b"].into_iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1);
    given.map(|(_, key)| (key.to_owned(), "1".to_owned())).collect()
}

/// The record says by which policy an instance is protected: the named one, the most specific one, or the default.
fn policies_are_selected(state: &ClusterState) -> Result<(), String> {
    for (name, record) in &state.instances {
        let applying =
            state.policies.iter().filter(|(_, policy)| policy.policy.applies.is_to(&record.instance));
        let weight = |policy: &PolicyRecord| policy.policy.applies.specificity();
        let most = applying.clone().map(|(_, policy)| weight(policy)).max();
        let best: Vec<_> = applying
            .filter(|(_, policy)| Some(weight(policy)) == most)
            .map(|(name, _)| name.as_str())
            .collect();
        let named = record.instance.policy.as_ref().map(PolicyId::as_str);
        holds!(named.is_some() || best.len() < 2, "{name} has two policies");
        let expected = named.or(best.first().copied()).unwrap_or(DEFAULT_POLICY);
        holds!(
            record.policy.as_str() == expected,
            "{name} is protected by {}, not {expected}",
            record.policy
        );
    }
    Ok(())
}

/// At most one running plan for each node, instance and spare (R7).
fn plans_do_not_share(state: &ClusterState) -> Result<(), String> {
    let (mut nodes, mut instances) = (BTreeSet::new(), BTreeSet::new());
    for plan in state.running() {
        for node in std::iter::once(&plan.decision.from).chain(&plan.decision.spare) {
            holds!(nodes.insert(node), "{node} takes part in two running plans");
        }
        for instance in plan.decision.instance.iter() {
            holds!(instances.insert(instance), "{instance} is moved by two running plans");
        }
    }
    Ok(())
}

/// An instance's node carries it or is cut off; a node without an instance is not active; promises are kept by a plan.
fn nodes_and_instances_agree(state: &ClusterState) -> Result<(), String> {
    for (name, record) in &state.instances {
        let carrier = &state.nodes[&record.node].state;
        let fits = match carrier {
            NodeState::Active { instance } => instance == name,
            NodeState::Fencing { .. } | NodeState::Quarantined { .. } => true,
            NodeState::Spare | NodeState::Reserved { .. } | NodeState::Cleaning { .. } => false,
        };
        holds!(fits, "{name} belongs to {}, which is {carrier}", record.node);
    }
    for (name, record) in &state.nodes {
        let running = |plan: &PlanId| state.plans.get(plan).filter(|plan| !plan.phase.is_over());
        let fits = match &record.state {
            NodeState::Active { instance } => state.instances[instance].node == *name,
            NodeState::Reserved { plan } => {
                running(plan).is_some_and(|plan| plan.decision.spare.as_ref() == Some(name))
            }
            NodeState::Fencing { plan } => running(plan).is_some_and(|plan| plan.decision.from == *name),
            NodeState::Spare | NodeState::Quarantined { .. } | NodeState::Cleaning { .. } => true,
        };
        holds!(fits, "{name} is {} without a reason", record.state);
    }
    Ok(())
}

/// No step in favour of a spare before the proof, and no phase after the fence without it (R3).
fn proof_comes_first(state: &ClusterState) -> Result<(), String> {
    for plan in state.plans.values() {
        let gives = |intent: &&Intent| match intent.action {
            Action::ShutDown { .. }
            | Action::Diagnose { .. }
            | Action::PowerOff { .. }
            | Action::Revoke { .. }
            | Action::ClosePort { .. }
            | Action::Claim { .. }
            | Action::Clean { .. }
            | Action::Interrupt { .. } => false,
            Action::Snapshot { .. }
            | Action::Attach { .. }
            | Action::OpenPort { .. }
            | Action::AttachVif { .. }
            | Action::SetBoot { .. }
            | Action::PowerOn { .. } => true,
        };
        let needs_proof = match plan.phase {
            Phase::Reserved | Phase::Stopping | Phase::Fencing | Phase::Cancelled => {
                plan.intents.iter().any(|i| gives(&i))
            }
            Phase::Moving | Phase::Starting | Phase::Done | Phase::Replaced => true,
        };
        holds!(!needs_proof || plan.proof.is_some(), "{} is {} without a proof", plan.id, plan.phase);
        let cancelled = plan.phase == Phase::Cancelled;
        holds!(!cancelled || plan.intents.is_empty(), "{} was cancelled after its fence began", plan.id);
        let rests = plan.proof.iter().flat_map(FenceProof::rests_on).collect::<BTreeSet<_>>();
        // R2: power is off if it was read so twice; the rest was read back.
        let shown = |intent: &&Intent| match (&intent.action, &intent.end) {
            (Action::PowerOff { .. }, Some((Outcome::Done(Seen::OffTwice { .. }), _))) => true,
            (
                Action::Revoke { .. } | Action::ClosePort { .. },
                Some((Outcome::Done(Seen::ReadBack(_)), _)),
            ) => true,
            (_, _) => false,
        };
        let done = plan.intents.iter().filter(shown).map(|i| i.token).collect::<BTreeSet<_>>();
        holds!(rests.is_subset(&done), "the proof of {} rests on what was not done", plan.id);
        let first = plan.intents.iter().find(gives).map(|intent| intent.token);
        let last = rests.last().copied();
        holds!(first.is_none() || last < first, "{} gave before it had proved", plan.id);
    }
    Ok(())
}

/// What is ordered by hand is one thing at a time, and never to switch on or interrupt what was fenced, or to switch what is
/// in service.
fn hands_keep_off(before: &ClusterState, state: &ClusterState) -> Result<(), String> {
    for (name, record) in &state.nodes {
        let open: Vec<&ByHand> =
            record.by_hand.iter().filter(|by_hand| by_hand.intent.end.is_none()).collect();
        holds!(open.len() <= 1, "two things are done to {name} by hand");
        let ordered_now = open.iter().find(|by_hand| by_hand.intent.token == state.applied);
        let (Some(ordered), Some(record)) = (ordered_now, before.nodes.get(name)) else { continue };
        let in_service = matches!(record.state, NodeState::Active { .. }) && record.maintenance.is_none();
        let action = &ordered.intent.action;
        let may_run = matches!(record.state, NodeState::Spare | NodeState::Active { .. });
        let fits = matches!(action, Action::PowerOn { .. }) && may_run && !in_service
            || matches!(action, Action::PowerOff { .. }) && !in_service
            || matches!(action, Action::Interrupt { .. }) && may_run;
        holds!(fits && before.plan_of_node(name).is_none(), "{action} by hand");
    }
    Ok(())
}

/// One backup of an instance at a time, ordered while no failover is about it, and what is done is what was ordered, once.
fn backups_stand_back(before: &ClusterState, state: &ClusterState) -> Result<(), String> {
    for (name, record) in &state.instances {
        let open: Vec<&Backup> = record.backups.iter().filter(|backup| !backup.is_over()).collect();
        holds!(open.len() <= 1, "two backups of {name} are under way");
        let ordered_now = open.iter().any(|backup| backup.id.0 == state.applied.0);
        holds!(
            !ordered_now || before.plan_of_instance(name).is_none(),
            "a backup of {name} crosses a failover"
        );
        for backup in &record.backups {
            let actions: BTreeSet<&Action> = backup.intents.iter().map(|intent| &intent.action).collect();
            holds!(actions.len() == backup.intents.len(), "backup {} keeps something twice", backup.id);
            let is_ordered = |action: &&Action| backup.actions.contains(action);
            holds!(actions.iter().all(is_ordered), "backup {} does what nobody ordered", backup.id);
        }
    }
    Ok(())
}

/// A volume's state is kept once, and before the spare is given the volume.
fn volumes_are_kept_first(state: &ClusterState) -> Result<(), String> {
    for plan in state.plans.values() {
        let (mut kept, mut given) = (BTreeSet::new(), BTreeSet::new());
        for intent in &plan.intents {
            if let Action::Attach { volume, .. } = &intent.action {
                given.insert(volume);
            }
            if let Action::Snapshot { volume, .. } = &intent.action {
                holds!(!given.contains(volume), "{}: {volume} is kept after it was given away", plan.id);
                holds!(kept.insert(volume), "{}: {volume} is kept twice", plan.id);
            }
        }
    }
    Ok(())
}

/// Epochs and leaderships only grow; a plan that is over stays over.
fn time_runs_forward(before: &ClusterState, after: &ClusterState) -> Result<(), String> {
    let leads = |state: &ClusterState| state.leadership.map(|l| l.epoch);
    for (name, record) in after.instances.iter().filter(|(name, _)| !before.instances.contains_key(*name)) {
        holds!(record.epoch > after.epochs_gone, "{name} begins with an epoch that was used");
    }
    holds!(leads(before) <= leads(after), "the leadership fell");
    for (name, record) in &before.instances {
        let Some(new) = after.instances.get(name) else {
            holds!(record.epoch <= after.epochs_gone, "the epochs of {name} may be used again");
            continue;
        };
        holds!(record.epoch <= new.epoch, "the epoch of {name} fell");
        holds!((record.node == new.node) == (record.epoch == new.epoch), "{name} moved without an epoch");
    }
    for (id, plan) in &before.plans {
        let new = &after.plans[id];
        holds!(plan.phase <= new.phase, "{id} went back from {} to {}", plan.phase, new.phase);
        holds!(!plan.phase.is_over() || plan.phase == new.phase, "{id} rose from the dead");
        holds!(plan.decision == new.decision, "{id} changed its choice");
    }
    Ok(())
}
