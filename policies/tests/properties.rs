//! Properties of the replicated state under any sequence of entries, sensible or not.
//! Why it exists: scenarios show what should happen; this shows what never does, whoever writes into the log.
//! What it never does: know why an entry was rejected; only that what is left holds together.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may")]

use policies::*;
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::BTreeSet;

const NODES: [&str; 5] = ["n1", "n2", "n3", "s1", "s2"];
const INSTANCES: [&str; 3] = ["a", "b", "c"];

/// What a random entry wants, with its objects chosen by index, so that most entries are about something that exists.
#[derive(Clone, Debug)]
enum Want {
    Arm(bool),
    Cordon(Index, bool),
    Maintain(Index, bool),
    Evacuate(Index),
    Fence(Index),
    ConfirmOff(Index),
    Cancel(Index),
    Release(Index),
    TookOver(Index),
    Describe(Index, bool),
    Judge(Index, u8),
    Begin { instance: Option<Index>, from: Index, stray: bool, spare: Option<Index>, cause: u8 },
    Replace { plan: Index, spare: Index },
    Intend { plan: Index, action: Index, foreign: bool },
    Resolve { plan: Index, intent: Index, outcome: u8 },
    Place { plan: Index, tried: u64 },
    Finish(Index),
    Stick(Index, bool),
    Cleaned(Index),
    OldLeader(Index),
}

fn index() -> impl Strategy<Value = Index> {
    any::<Index>()
}

fn want() -> impl Strategy<Value = Want> {
    let begin = (prop::option::weighted(0.8, index()), index(), prop::bool::weighted(0.1));
    let begin = (begin, prop::option::weighted(0.9, index()), 0..6u8);
    let operator = prop_oneof![
        any::<bool>().prop_map(Want::Arm),
        (index(), any::<bool>()).prop_map(|(node, on)| Want::Cordon(node, on)),
        (index(), any::<bool>()).prop_map(|(node, on)| Want::Maintain(node, on)),
        index().prop_map(Want::Evacuate),
        index().prop_map(Want::Fence),
        index().prop_map(Want::ConfirmOff),
        index().prop_map(Want::Cancel),
        index().prop_map(Want::Release),
        index().prop_map(Want::TookOver),
        (index(), any::<bool>()).prop_map(|(node, more)| Want::Describe(node, more)),
    ];
    let leader = prop_oneof![
        2 => (index(), 0..5u8).prop_map(|(node, verdict)| Want::Judge(node, verdict)),
        4 => begin.prop_map(|((instance, from, stray), spare, cause)| {
            Want::Begin { instance, from, stray, spare, cause }
        }),
        1 => (index(), index()).prop_map(|(plan, spare)| Want::Replace { plan, spare }),
        12 => (index(), index(), prop::bool::weighted(0.1))
            .prop_map(|(plan, action, foreign)| Want::Intend { plan, action, foreign }),
        12 => (index(), index(), 0..8u8)
            .prop_map(|(plan, intent, outcome)| Want::Resolve { plan, intent, outcome }),
        4 => (index(), 0..5_000u64).prop_map(|(plan, tried)| Want::Place { plan, tried }),
        2 => index().prop_map(Want::Finish),
        1 => (index(), any::<bool>()).prop_map(|(plan, on)| Want::Stick(plan, on)),
        2 => index().prop_map(Want::Cleaned),
        1 => index().prop_map(Want::OldLeader),
    ];
    prop_oneof![1 => operator, 3 => leader]
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
    };
    Node {
        name: name(name_),
        identity: Identity::default(),
        domains: Default::default(),
        labels: Default::default(),
        fencing: (1..=2).map(device).collect(),
        ports: (0..ports).map(port).collect(),
        initiator: None,
        probe: Probe::default(),
        agent_key: None,
    }
}

fn instance(name_: &str, node: &str) -> Instance {
    Instance {
        name: name(name_),
        node: name(node),
        policy: name("quick"),
        volumes: vec![Volume { provider: name("rack"), volume: name(&format!("vol-{name_}")) }],
        networks: vec![Network { vlan: 10, mac: None }],
        boot: None,
        needs: Default::default(),
    }
}

fn documents() -> Documents {
    let kind =
        ProviderKind::Rack { url: "http://127.0.0.1:1".to_owned(), token: Sealed("sealed".to_owned()) };
    Documents {
        providers: vec![Provider { name: name("rack"), kind }],
        nodes: NODES.iter().map(|name| node(name, 1)).collect(),
        instances: INSTANCES.iter().zip(NODES).map(|(name, node)| instance(name, node)).collect(),
        policies: vec![],
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
        (0..=4, Action::PowerOff { .. }) => Outcome::Done(Seen::OffTwice { already: false, took: Millis(1) }),
        (0..=4, Action::PowerOn { .. }) | (5, _) => Outcome::Done(Seen::On),
        (0..=4, _) => Outcome::Done(Seen::ReadBack("as wished".to_owned())),
        (6, _) => Outcome::Refused(Refusal::LeaseEnded),
        (_, _) => Outcome::Unknown(Doubt::NoAnswer { waited: Millis(1) }),
    }
}

/// Turns a want into a command on this state.
fn command(state: &ClusterState, want: &Want) -> Command {
    let node = |index: &Index| name::<NodeId>(NODES[index.index(NODES.len())]);
    let instance = |index: &Index| name::<InstanceId>(INSTANCES[index.index(INSTANCES.len())]);
    let plan = |index: &Index| {
        let ids: Vec<PlanId> = state.plans.keys().copied().collect();
        if ids.is_empty() { PlanId(0) } else { ids[index.index(ids.len())] }
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
        Box::new(Decision {
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
        Want::Arm(false) => Command::Disarm { reason: reason() },
        Want::Cordon(at, on) => Command::Cordon { node: node(at), on: *on },
        Want::Maintain(at, on) => Command::Maintain { node: node(at), reason: on.then(reason) },
        Want::Evacuate(at) => Command::Evacuate { instance: instance(at), reason: reason() },
        Want::Fence(at) => Command::Fence { node: node(at), reason: reason() },
        Want::ConfirmOff(at) => Command::ConfirmOff { node: node(at), reason: reason() },
        Want::Cancel(at) => Command::Cancel { plan: plan(at), reason: reason() },
        Want::Release(at) => Command::Release { node: node(at), reason: reason() },
        Want::TookOver(at) => Command::TookOver { member: MemberId(at.index(3) as u64), boot: BootId(1) },
        Want::Describe(at, more) => {
            let which = NODES[at.index(NODES.len())];
            let nodes = vec![self::node(which, if *more { 2 } else { 1 })];
            Command::Describe(Box::new(Documents { nodes, ..Documents::default() }))
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
                false => state.phase_actions(plan).into_iter().chain(state.start_action(plan)).collect(),
                true => state.move_actions(plan),
            });
            let spare = || Action::PowerOn { node: name("s1") };
            let chosen = (!actions.is_empty()).then(|| actions[action.index(actions.len())].clone());
            lead(Step::Intend { plan: plan(at), action: chosen.unwrap_or_else(spare) })
        }
        Want::Resolve { plan: at, intent, outcome: number } => {
            let intents = state.plans.get(&plan(at)).map_or(&[][..], |plan| &plan.intents);
            match intents.get(intent.index(intents.len().max(1))) {
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
        Want::Cleaned(at) => lead(Step::Cleaned { node: node(at) }),
        Want::OldLeader(at) => Command::Lead {
            leader: LeaderEpoch(leader.0.wrapping_sub(1)),
            step: Step::Cleaned { node: node(at) },
        },
    }
}

/// At most one running plan for each node, instance and spare (R7).
fn plans_do_not_share(state: &ClusterState) -> Result<(), TestCaseError> {
    let (mut nodes, mut instances) = (BTreeSet::new(), BTreeSet::new());
    for plan in state.running() {
        for node in std::iter::once(&plan.decision.from).chain(&plan.decision.spare) {
            prop_assert!(nodes.insert(node), "{node} takes part in two running plans");
        }
        for instance in plan.decision.instance.iter() {
            prop_assert!(instances.insert(instance), "{instance} is moved by two running plans");
        }
    }
    Ok(())
}

/// An instance's node carries it or is cut off; a node without an instance is not active; promises are kept by a plan.
fn nodes_and_instances_agree(state: &ClusterState) -> Result<(), TestCaseError> {
    for (name, record) in &state.instances {
        let carrier = &state.nodes[&record.node].state;
        let fits = match carrier {
            NodeState::Active { instance } => instance == name,
            NodeState::Fencing { .. } | NodeState::Quarantined { .. } => true,
            NodeState::Spare | NodeState::Reserved { .. } | NodeState::Cleaning { .. } => false,
        };
        prop_assert!(fits, "{name} belongs to {}, which is {carrier}", record.node);
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
        prop_assert!(fits, "{name} is {} without a reason", record.state);
    }
    Ok(())
}

/// No step in favour of a spare before the proof, and no phase after the fence without it (R3).
fn proof_comes_first(state: &ClusterState) -> Result<(), TestCaseError> {
    for plan in state.plans.values() {
        let gives = |intent: &&Intent| match intent.action {
            Action::PowerOff { .. } | Action::Revoke { .. } | Action::ClosePort { .. } => false,
            Action::Attach { .. }
            | Action::OpenPort { .. }
            | Action::SetBoot { .. }
            | Action::PowerOn { .. } => true,
        };
        let needs_proof = match plan.phase {
            Phase::Reserved | Phase::Fencing | Phase::Cancelled => plan.intents.iter().any(|i| gives(&i)),
            Phase::Moving | Phase::Starting | Phase::Done | Phase::Replaced => true,
        };
        prop_assert!(!needs_proof || plan.proof.is_some(), "{} is {} without a proof", plan.id, plan.phase);
        let cancelled = plan.phase == Phase::Cancelled;
        prop_assert!(
            !cancelled || plan.intents.is_empty(),
            "{} was cancelled after its fence began",
            plan.id
        );
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
        prop_assert!(rests.is_subset(&done), "the proof of {} rests on what was not done", plan.id);
        let first = plan.intents.iter().find(gives).map(|intent| intent.token);
        let last = rests.last().copied();
        prop_assert!(first.is_none() || last < first, "{} gave before it had proved", plan.id);
    }
    Ok(())
}

/// Epochs and leaderships only grow; a plan that is over stays over.
fn time_runs_forward(before: &ClusterState, after: &ClusterState) -> Result<(), TestCaseError> {
    prop_assert!(before.leadership.map(|l| l.epoch) <= after.leadership.map(|l| l.epoch));
    for (name, record) in &before.instances {
        let new = &after.instances[name];
        prop_assert!(record.epoch <= new.epoch, "the epoch of {name} fell");
        prop_assert!(
            (record.node == new.node) == (record.epoch == new.epoch),
            "{name} moved without an epoch"
        );
    }
    for (id, plan) in &before.plans {
        let new = &after.plans[id];
        prop_assert!(plan.phase <= new.phase, "{id} went back from {} to {}", plan.phase, new.phase);
        prop_assert!(!plan.phase.is_over() || plan.phase == new.phase, "{id} rose from the dead");
        prop_assert_eq!(&plan.decision, &new.decision, "a plan changed its choice");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn any_log_leaves_a_state_that_holds_together(wants in prop::collection::vec(want(), 1..160)) {
        let mut state = ClusterState::default();
        let mut copy = ClusterState::default();
        let setup = [
            Command::Describe(Box::new(documents())),
            Command::Arm { reason: "ready".to_owned() },
            Command::TookOver { member: MemberId(1), boot: BootId(1) },
        ];
        let mut index = 0;
        let mut apply = |state: &mut ClusterState, copy: &mut ClusterState, command: Command| {
            index += 1;
            let proposal = Proposal { at: Wall(index * 100), by: "test".to_owned(), command };
            let result = state.apply(LogIndex(index), &proposal);
            (result.clone(), result == copy.apply(LogIndex(index), &proposal))
        };
        for command in setup {
            prop_assert!(apply(&mut state, &mut copy, command).0.is_ok());
        }
        for want in &wants {
            let before = state.clone();
            let wanted = command(&state, want);
            let (result, same) = apply(&mut state, &mut copy, wanted);
            prop_assert!(same && state == copy, "two copies of the state disagree");
            if result.is_err() {
                let unchanged = ClusterState { applied: state.applied, ..before.clone() };
                prop_assert_eq!(&state, &unchanged, "a rejected entry changed something");
            }
            plans_do_not_share(&state)?;
            nodes_and_instances_agree(&state)?;
            proof_comes_first(&state)?;
            time_runs_forward(&before, &state)?;
        }
        let text = serde_json::to_string(&state).unwrap();
        prop_assert_eq!(serde_json::from_str::<ClusterState>(&text).unwrap(), state);
    }
}

/// The random logs reach every phase; else the property above would hold of nothing.
#[test]
fn random_logs_reach_every_phase() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeSet::new();
    for _ in 0..400 {
        let wants = prop::collection::vec(want(), 160).new_tree(&mut runner).unwrap().current();
        let mut state = ClusterState::default();
        let setup = [Command::Describe(Box::new(documents())), Command::Arm { reason: String::new() }];
        for (at, command) in setup.into_iter().enumerate() {
            let proposal = Proposal { at: Wall(0), by: "test".to_owned(), command };
            state.apply(LogIndex(at as u64 + 1), &proposal).unwrap();
        }
        for (at, want) in wants.iter().enumerate() {
            let command = command(&state, want);
            let proposal = Proposal { at: Wall(0), by: "test".to_owned(), command };
            state.apply(LogIndex(at as u64 + 3), &proposal).ok();
        }
        seen.extend(state.plans.values().flat_map(|plan| &plan.entered).map(|(phase, _)| *phase));
    }
    let all = [
        Phase::Reserved,
        Phase::Fencing,
        Phase::Moving,
        Phase::Starting,
        Phase::Done,
        Phase::Replaced,
        Phase::Cancelled,
    ];
    assert_eq!(seen, BTreeSet::from(all));
}
