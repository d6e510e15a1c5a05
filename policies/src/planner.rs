//! What to do next: a function of the committed state and the leader's memory. Says why, wherever it does nothing.
//! Never acts, never remembers: a new leader that calls it goes on where the old one stopped.

mod aftermath;
mod claim;
mod evidence;
mod ordered;

use crate::brake::{Standing, at_a_time};
use crate::command::{Command, Step};
use crate::concession::given_up;
use crate::effect::{Action, Bearing, Doubt, Effect, Outcome};
use crate::judge::is_alive_for_enough;
use crate::memory::Memory;
use crate::observation::{Kernel, Sight};
use crate::placement::{Candidate, Choice, Wish, candidates, choose};
use crate::plan::*;
use crate::policy::{Acting, After, Mode, Policy};
use crate::readiness::Check;
use crate::sights::Sights;
use crate::state::{ClusterState, InstanceRecord, NodeRecord, NodeState};
use crate::waiting::Waiting;
use crate::words::*;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

/// The pause between tries of a step grows up to this many times `retry_after`. Lower: more entries in the log for a
/// dead device. Higher: a repaired device is noticed later.
const PAUSE_GROWTH_MAX: u64 = 30;
/// Deployments of one spare before the next one is taken, if there is one. Lower: a cloud's service that restarts in the middle
/// costs a spare. Higher: longer without the instance.
const DEPLOY_TRIES_MAX: usize = 2;

/// The least time that a new leader gives a shutdown that another one asked for: two looks at a BMC. Lower: one that has
/// just ended is not seen. Higher: the fence of a node that hangs waits longer.
const LOOK_AGAIN: Millis = Millis(2_000);

/// What a reason is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A node.
    Node(NodeId),
    /// An instance.
    Instance(InstanceId),
    /// A failover.
    Plan(PlanId),
}

/// What the planner wants, and why it wants no more.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    /// Entries for the log.
    pub(crate) commands: Vec<Command>,
    /// Committed intents that are not being carried out by this process, each with its time limit.
    pub(crate) effects: Vec<(Effect, Millis)>,
    /// Why nothing more happens.
    pub(crate) waiting: BTreeMap<Subject, Vec<Waiting>>,
}

/// Everything that a decision may look at.
pub(crate) struct Desk<'a> {
    pub(crate) state: &'a ClusterState,
    pub(crate) memory: &'a Memory,
    pub(crate) sights: &'a Sights,
    /// Nodes whose committed verdict is out of date: another is being proposed.
    pub(crate) rejudged: BTreeSet<NodeId>,
    pub(crate) leader: LeaderEpoch,
    pub(crate) now: Mono,
    pub(crate) wall: Wall,
    /// What the brakes count, and the spares, once a decision has asked for them: passes over all nodes.
    pub(crate) standing: OnceCell<Standing<'a>>,
    pub(crate) candidates: OnceCell<Vec<Candidate<'a>>>,
}

/// Plans for the whole cluster.
pub(crate) fn plan(desk: &Desk) -> Wishes {
    let mut wishes = Wishes::default();
    for plan in desk.state.running() {
        desk.advance(plan, &mut wishes);
    }
    for record in desk.state.nodes.values() {
        desk.node(record, &mut wishes);
    }
    desk.claim(&mut wishes);
    for record in desk.state.instances.values() {
        desk.instance(record, &mut wishes);
    }
    wishes
}

impl Wishes {
    fn lead(&mut self, leader: LeaderEpoch, step: Step) {
        self.commands.push(Command::Lead { leader, step });
    }
    fn wait(&mut self, subject: Subject, why: Waiting) {
        let reasons = self.waiting.entry(subject).or_default();
        match (reasons.last_mut(), why) {
            // One sentence for all that is under way.
            (Some(Waiting::InFlight { steps }), Waiting::InFlight { steps: more }) => steps.extend(more),
            (_, why) => reasons.push(why),
        }
    }
}

impl<'a> Desk<'a> {
    /// A node: an order to fence it, a release that drains, or the reason why it stays as it is.
    fn node(&self, record: &NodeRecord, wishes: &mut Wishes) {
        let node = &record.node.name;
        let subject = Subject::Node(node.clone());
        match &record.state {
            NodeState::Quarantined { proof, unclean, .. } => {
                self.quarantined(record, proof, unclean.as_deref(), wishes);
            }
            NodeState::Cleaning { .. } => self.clean(record, wishes),
            NodeState::Spare if matches!(record.verdict, Verdict::Failed(_)) => {
                wishes.wait(subject.clone(), Waiting::NothingToMove);
            }
            NodeState::Spare
            | NodeState::Reserved { .. }
            | NodeState::Active { .. }
            | NodeState::Fencing { .. } => {}
        }
        self.by_hand(record, wishes);
        let Some(_) = &record.fence_order else { return };
        if let Some(plan) = self.state.plan_of_node(node) {
            return wishes.wait(subject, Waiting::PlanRunning { plan: plan.id });
        }
        let Some((name, policy)) = self.state.policy_of_node(node) else { return };
        match self.standing().may_begin(record, &Cause::Ordered, &policy.policy.brakes) {
            Err(why) => wishes.wait(subject, why),
            Ok(gates) => {
                let decision = Decision {
                    instance: None,
                    from: node.clone(),
                    spare: None,
                    cause: Cause::Ordered,
                    evidence: record.evidence.clone(),
                    policy: (name.clone(), policy.version),
                    gates,
                    runners_up: vec![],
                    shutdown: None,
                    start: Start::PowerOn,
                };
                wishes.lead(self.leader, Step::Begin(Box::new(decision)));
            }
        }
    }

    /// An instance without a running plan: must it move?
    fn instance(&self, record: &InstanceRecord, wishes: &mut Wishes) {
        let (name, node) = (&record.instance.name, &record.node);
        self.back_up(record, wishes);
        if let Some(plan) = self.state.plan_of_instance(name).or_else(|| self.state.plan_of_node(node)) {
            return wishes.wait(Subject::Instance(name.clone()), Waiting::PlanRunning { plan: plan.id });
        }
        let Some(from) = self.state.nodes.get(node) else { return };
        let Some(cause) = must_move(record, from) else { return };
        if cause != Cause::Ordered && self.rejudged.contains(node) {
            return;
        }
        match self.decide(record, from, cause) {
            Ok(decision) => wishes.lead(self.leader, Step::Begin(Box::new(decision))),
            Err(why) => {
                // A refusal is committed once per kind; numbers in it may change without a new entry.
                let kind = std::mem::discriminant(&why);
                if from.withheld.as_ref().map(std::mem::discriminant) != Some(kind) {
                    wishes.lead(self.leader, Step::Withhold { node: node.clone(), why: why.clone() });
                }
                wishes.wait(Subject::Instance(name.clone()), why);
            }
        }
    }

    fn decide(&self, record: &InstanceRecord, from: &NodeRecord, cause: Cause) -> Result<Decision, Waiting> {
        let instance = &record.instance;
        let no_policy = || Waiting::Disarmed { reason: format!("policy {} is missing", record.policy) };
        let policy = self.state.policies.get(&record.policy).ok_or_else(no_policy)?;
        if let Some(called_off @ Waiting::CalledOff { .. }) = &from.withheld {
            return Err(called_off.clone());
        }
        let brakes = &policy.policy.brakes;
        let mut gates = self.standing().may_begin(from, &cause, brakes)?;
        let kexecs = self.state.kexecs(instance, &policy.policy);
        let wish = Wish { instance, spares: &policy.policy.spares, from, kexecs };
        let Choice { spare, start, gives_up, runners_up } = choose(self.state, self.candidates(), &wish)
            .map_err(|missing| Waiting::NoFittingSpare { missing })?;
        if !gives_up.is_empty() {
            let found = format!("no spare fits without giving up {}", given_up(&gives_up));
            gates.push(Gate { name: "wishes".to_owned(), found });
        }
        gates.extend(self.leave(&wish, &cause, &policy.policy.acting, &spare)?);
        Ok(Decision {
            instance: Some(instance.name.clone()),
            from: from.node.name.clone(),
            spare: Some(spare),
            evidence: from.evidence.clone(),
            policy: (record.policy.clone(), policy.version),
            gates,
            runners_up,
            shutdown: shutdown(record, from, &cause),
            start,
            cause,
        })
    }

    fn standing(&self) -> &Standing<'a> {
        self.standing.get_or_init(|| Standing::take(self.state, self.memory, self.sights, self.now))
    }

    fn candidates(&self) -> &[Candidate<'a>] {
        self.candidates.get_or_init(|| {
            let trouble = |check: &Check| self.memory.checks.trouble(check, self.now);
            candidates(self.state, |node| self.memory.presence(node, self.now), &trouble, self.wall)
        })
    }

    /// Whether the policy lets it begin. An order is a leave, and what has begun goes on (R4).
    fn leave(
        &self,
        wish: &Wish,
        cause: &Cause,
        acting: &Acting,
        spare: &NodeId,
    ) -> Result<Vec<Gate>, Waiting> {
        let from = &wish.from.node.name;
        let hour = match cause {
            Cause::Ordered | Cause::DidNotStart => return Ok(vec![]),
            Cause::Silent | Cause::PowerOff | Cause::Gasped | Cause::GrayTooLong => acting.hour(self.wall),
        };
        let gate = |name: &str, found| Gate { name: name.to_owned(), found };
        let window = hour.told().map(|found| gate("window", found));
        let passed = |found| Ok(window.clone().into_iter().chain([gate("approval", found)]).collect());
        let waits = |why| Err(hour.excuse(why));
        // Nobody was asked before the hour began in which one has to be.
        let failed_for = self.memory.failed_for(from, self.now);
        let asked_for = hour.since().map_or(failed_for, |since| since.min(failed_for));
        match (acting.mode_in(&hour), &wish.from.approved, acting.unapproved_after) {
            (Mode::Automatic, ..) => Ok(window.into_iter().collect()),
            (Mode::Shadow, ..) => waits(Waiting::Shadow { node: from.clone(), spare: spare.clone() }),
            (Mode::Approval, Some(order), _) => passed(format!("{}: {}", order.by, order.reason)),
            (Mode::Approval, None, After::Time(after)) if asked_for >= after => {
                passed(format!("nobody answered within {after}"))
            }
            (Mode::Approval, None, unapproved_after) => waits(Waiting::Approval {
                instance: wish.instance.name.clone(),
                spare: spare.clone(),
                unapproved_after,
            }),
        }
    }

    /// A running plan: its next steps.
    fn advance(&self, plan: &Plan, wishes: &mut Wishes) {
        let Some(record) = self.state.policies.get(&plan.decision.policy.0) else { return };
        let (policy, before) = (&record.policy, wishes.commands.len());
        match plan.phase {
            Phase::Reserved | Phase::Stopping | Phase::Fencing => match self.stopping(plan) {
                Some((action, limit)) => self.take(plan, policy, &action, limit, wishes),
                None => self.fence(plan, policy, wishes),
            },
            Phase::Moving => self.hand_over(plan, policy, wishes),
            Phase::Starting => self.start(plan, policy, wishes),
            Phase::Done | Phase::Replaced | Phase::Cancelled => {}
        }
        // What moves is not stuck, and the reasons of this moment are about to change.
        if wishes.commands.len() == before {
            self.stick(plan, policy, wishes);
        }
    }

    /// The polite part of a drain and the time that is left for it, while it is not over.
    fn stopping(&self, plan: &Plan) -> Option<(Action, Millis)> {
        let action = self.state.shutdown_action(plan).filter(|action| !plan.ended(action))?;
        let asked = plan.intents.iter().find(|intent| intent.action == action);
        let used = asked.map_or(Millis(0), |asked| self.memory.age(asked.token, self.now));
        let left = plan.decision.shutdown.unwrap_or_default().0.saturating_sub(used.0);
        // A new leader looks again, however little time is left.
        Some((action, Millis(left).max(LOOK_AGAIN)))
    }

    /// Cuts the old node off: power, volumes and ports in parallel; places the instance when it is proven.
    fn fence(&self, plan: &Plan, policy: &Policy, wishes: &mut Wishes) {
        let Some(from) = self.state.nodes.get(&plan.decision.from) else { return };
        // A drain becomes a fence only now.
        if plan.phase == Phase::Stopping
            && let Err(why) = at_a_time(self.state.fences_in_flight(), &policy.brakes)
        {
            return wishes.wait(Subject::Plan(plan.id), why);
        }
        let instance = self.state.carried(plan).map(|record| &*record.instance);
        let power_waits = self.before_power(plan, policy, wishes);
        if let Some(action) = power_off(plan, from).filter(|_| !power_waits) {
            self.take(plan, policy, &action, policy.fencing.level_deadline, wishes);
        }
        for action in isolation(&from.node, instance) {
            self.take(plan, policy, &action, policy.takeover.step_deadline, wishes);
        }
        // Time in which power could not be tried yet, for older commands had to drain, does not count.
        let is_power = |intent: &&Intent| matches!(intent.action, Action::PowerOff { .. });
        let has_power = !from.node.fencing.is_empty();
        let first = plan.intents.iter().find(|intent| !has_power || is_power(intent));
        let tried = first.map_or(Millis(0), |first| self.memory.age(first.token, self.now));
        let vouched = from.confirmed_off.as_ref().map(|order| (order.by.as_str(), order.reason.as_str()));
        match prove(plan, &from.node, instance, policy, tried, vouched) {
            Ok(_) => wishes.lead(self.leader, Step::Place { plan: plan.id, tried }),
            Err(why) => wishes.wait(Subject::Plan(plan.id), why),
        }
    }

    /// Gives the spare everything, then starts it.
    fn hand_over(&self, plan: &Plan, policy: &Policy, wishes: &mut Wishes) {
        let actions = self.state.move_actions(plan);
        for action in &actions {
            if !self.snapshot(plan, policy, action, wishes) {
                self.take(plan, policy, action, policy.takeover.step_deadline, wishes);
            }
        }
        if actions.iter().all(|action| plan.did(action)) {
            self.start(plan, policy, wishes);
        } else if self.memory.in_phase(plan.id, self.now) >= policy.takeover.start_deadline {
            self.give_up(plan, wishes);
        }
    }

    /// Starts the spare and waits for its first sign of life in the new epoch.
    fn start(&self, plan: &Plan, policy: &Policy, wishes: &mut Wishes) {
        let spare = plan.decision.spare.as_ref().and_then(|spare| self.state.nodes.get(spare));
        let Some((spare, action)) =
            spare.and_then(|spare| Some((spare, self.start_step(plan, policy, spare)?)))
        else {
            return;
        };
        let started = plan.intents.iter().find(|intent| intent.action == action && intent.is_done());
        if let Some(seen) = self.sign_of_life(plan, policy, spare, started) {
            return wishes.lead(self.leader, Step::Finish { plan: plan.id, seen });
        }
        if plan.decision.start == Start::Kexec && action.bearing() == Bearing::Takes {
            let (node, after) = (spare.node.name.clone(), policy.takeover.kexec_max);
            wishes.wait(Subject::Plan(plan.id), Waiting::StartsCold { node, epoch: plan.epoch, after });
        }
        self.take(plan, policy, &action, policy.takeover.step_deadline, wishes);
        if started.is_some() {
            let why = Waiting::FirstHeartbeat { node: spare.node.name.clone(), epoch: plan.epoch };
            wishes.wait(Subject::Plan(plan.id), why);
        }
        if self.starting_cold(plan, policy) >= policy.takeover.start_deadline || self.cannot_deploy(plan) {
            self.give_up(plan, wishes);
        }
    }

    /// True once a cloud has failed to deploy the spare, and failed or refused to do it again: time would not help.
    fn cannot_deploy(&self, plan: &Plan) -> bool {
        let Some(boot) = self.state.boot_action(plan) else { return false };
        let mut failed =
            plan.intents.iter().filter(|intent| intent.action == boot && intent.trouble().is_some());
        let has_failed =
            |intent: &Intent| matches!(intent.end, Some((Outcome::Unknown(Doubt::Failed { .. }), _)));
        failed.clone().count() >= DEPLOY_TRIES_MAX && failed.any(has_failed)
    }

    /// For how long the spare has been starting cold. A hot one has all that time if it comes to that, the drain of the command
    /// that switches it off left out.
    fn starting_cold(&self, plan: &Plan, policy: &Policy) -> Millis {
        if plan.phase != Phase::Starting {
            return Millis(0);
        }
        match (plan.restarted_first(), plan.decision.start) {
            (Some(off), _) => {
                let age = self.memory.age(off.token, self.now);
                Millis(age.0.saturating_sub(policy.fencing.power_effect_max.0))
            }
            (None, Start::Kexec) => Millis(0),
            (None, Start::PowerOn | Start::PowerCycle | Start::Deploy) => {
                self.memory.in_phase(plan.id, self.now)
            }
        }
    }

    /// What is to start the spare now. A hot one is told to go on into the instance; if it is not heard there in time, it is
    /// switched off, and once that is seen and no copy of the command can arrive any more, on.
    fn start_step(&self, plan: &Plan, policy: &Policy, spare: &NodeRecord) -> Option<Action> {
        let on = || Action::PowerOn { node: spare.node.name.clone() };
        let has_time = || {
            plan.phase == Phase::Moving || self.memory.in_phase(plan.id, self.now) < policy.takeover.kexec_max
        };
        match (plan.decision.start, plan.restart()) {
            (Start::PowerOn, _) => Some(on()),
            (Start::Deploy, _) => {
                Some(self.state.boot_action(plan).filter(|boot| !plan.did(boot)).unwrap_or_else(on))
            }
            (Start::Kexec | Start::PowerCycle, Some(off)) if off.is_done() => {
                Some(self.state.boot_action(plan).filter(|boot| !plan.did(boot)).unwrap_or_else(on))
            }
            (Start::Kexec, None) if has_time() => self.state.boot_action(plan),
            (Start::Kexec | Start::PowerCycle, _) => power_off(plan, spare),
        }
    }

    /// What shows that the instance runs on the spare: a heartbeat in the plan's epoch. Where nobody tells the node its
    /// epoch (no boot provider), any heartbeat after its start; without an agent, an answer of its kernel, or of its service
    /// where that is what tells that it works: a service that is slow to start is no failure. What was heard of a spare that
    /// was switched off meanwhile counts only once it would have fallen silent.
    fn sign_of_life(
        &self,
        plan: &Plan,
        policy: &Policy,
        record: &NodeRecord,
        started: Option<&Intent>,
    ) -> Option<String> {
        if plan.phase != Phase::Starting {
            return None;
        }
        if plan.restart().is_some() {
            let settles = Millis(policy.detection.suspect_after.0.saturating_mul(2));
            started.filter(|on| !self.memory.ended_within(on.token, settles, self.now))?;
        }
        let (spare, started) = (&record.node.name, started.is_some());
        let boots = self.state.carried(plan).is_some_and(|record| record.instance.boot.is_some());
        let (has_agent, has_service) = (record.node.agent_key.is_some(), record.node.probe.http.is_some());
        let counts = |sight: &Sight| match sight {
            Sight::Alive { epoch: Epoch::STANDBY, .. } => false,
            Sight::Alive { epoch, .. } if has_agent => *epoch == plan.epoch || started && !boots,
            Sight::Alive { .. } => started && !has_agent,
            Sight::Silent { kernel: Kernel::Answers, .. } => started && !has_agent && !has_service,
            Sight::Silent { kernel: Kernel::Asking | Kernel::Mute | Kernel::NoProbe, .. }
            | Sight::Gasped(_) => false,
        };
        let seen = is_alive_for_enough(spare, counts, &policy.detection, self.memory, self.now);
        seen.then(|| match (has_agent, boots) {
            (true, true) => format!("{spare} beats in {}", plan.epoch),
            (true, false) => format!("{spare} beats"),
            (false, _) if has_service => format!("{spare} answers at its HTTP address"),
            (false, _) => format!("the kernel of {spare} answers"),
        })
    }

    /// R4: a spare that does not come up is fenced like any failed node, and the next one is taken.
    fn give_up(&self, plan: &Plan, wishes: &mut Wishes) {
        let instance = plan.decision.instance.as_ref().and_then(|name| self.state.instances.get(name));
        let spare = plan.decision.spare.as_ref().and_then(|name| self.state.nodes.get(name));
        let (Some(record), Some(spare)) = (instance, spare) else { return };
        match self.decide(record, spare, Cause::DidNotStart) {
            Err(why) => wishes.wait(Subject::Plan(plan.id), why),
            Ok(decision) => {
                let decision = Box::new(decision);
                wishes.lead(self.leader, Step::Replace { plan: plan.id, decision });
            }
        }
    }

    /// One action of a plan: record the intent, carry it out, or say why not.
    fn take(&self, plan: &Plan, policy: &Policy, action: &Action, limit: Millis, wishes: &mut Wishes) {
        let subject = Subject::Plan(plan.id);
        let step = action.to_string();
        let last = plan.intents.iter().rev().find(|intent| intent.action == *action);
        match last {
            Some(intent) if intent.is_done() => {}
            Some(intent) if intent.end.is_none() => {
                if !self.memory.in_flight.contains_key(&intent.token) {
                    let effect = Effect { token: intent.token, plan: Some(plan.id), action: action.clone() };
                    wishes.effects.push((effect, limit));
                }
                wishes.wait(subject, Waiting::InFlight { steps: vec![step] });
            }
            Some(intent) if self.memory.ended_ago(intent.token, self.now) < pause(plan, action, policy) => {
                let last = intent.trouble().unwrap_or_default();
                wishes.wait(subject, Waiting::Retrying { step, last });
            }
            Some(_) | None => match self.contradiction(plan, action) {
                Some(older) => wishes.wait(subject, older),
                None => wishes.lead(self.leader, Step::Intend { plan: plan.id, action: action.clone() }),
            },
        }
    }

    /// R5, drain: a step waits for every older command of another plan that could still undo it, and for what this plan itself
    /// has switched its spare off by. What gives the instance to a node waits for what could give it to another node or cut
    /// this one off. What cuts a node off waits for what could give it back the same thing later than we looked.
    fn contradiction(&self, plan: &Plan, action: &Action) -> Option<Waiting> {
        let target = action.node();
        let contradicts = |other: &Action, same_instance: bool| {
            let at_target = other.node() == target;
            match (action.bearing(), other.bearing()) {
                (Bearing::Reads, _) | (_, Bearing::Reads) | (Bearing::Takes, Bearing::Takes) => false,
                (Bearing::Takes, Bearing::Gives) => at_target && action.is_undone_by(other),
                (Bearing::Gives, Bearing::Takes) => at_target,
                (Bearing::Gives, Bearing::Gives) => same_instance && !at_target,
            }
        };
        let planned = self.undrained(|other, intent| {
            let same_instance = other.decision.instance == plan.decision.instance;
            (other.id != plan.id || plan.restarts(&intent.action))
                && contradicts(&intent.action, same_instance)
        });
        let by_hand = |record| self.undrained_by_hand(record, |intent| contradicts(&intent.action, false));
        planned.or_else(|| self.state.nodes.get(target).and_then(by_hand))
    }

    /// The first order by hand of this kind that may still take effect on the node.
    fn undrained_by_hand(&self, record: &NodeRecord, concerns: impl Fn(&Intent) -> bool) -> Option<Waiting> {
        let (_, policy) = self.state.policy_of_node(&record.node.name)?;
        let mut intents = record.ordered().filter(|intent| concerns(intent));
        let is_drained = |intent: &&Intent| {
            intent.end.is_some() && self.memory.is_drained(intent, self.leader, &policy.policy, self.now)
        };
        let older = intents.find(|intent| !is_drained(intent))?;
        Some(Waiting::Draining { older: older.action.to_string(), token: older.token })
    }

    /// The first intent of this kind that may still take effect.
    fn undrained(&self, concerns: impl Fn(&Plan, &Intent) -> bool) -> Option<Waiting> {
        for plan in self.state.plans.values() {
            let Some(record) = self.state.policy_even_if_deleted(&plan.decision.policy.0) else { continue };
            for intent in plan.intents.iter().filter(|intent| concerns(plan, intent)) {
                let open = intent.end.is_none() && plan.phase == plan.phase_of(&intent.action);
                if open || !self.memory.is_drained(intent, self.leader, &record.policy, self.now) {
                    return Some(Waiting::Draining { older: intent.action.to_string(), token: intent.token });
                }
            }
        }
        None
    }

    /// Makes a plan's trouble visible once its phase takes longer than it should, and takes that back.
    fn stick(&self, plan: &Plan, policy: &Policy, wishes: &mut Wishes) {
        let limit = match plan.phase {
            Phase::Reserved | Phase::Fencing => policy.fencing.level_deadline,
            Phase::Stopping => plan.decision.shutdown.unwrap_or_default(),
            Phase::Moving => policy.takeover.step_deadline,
            Phase::Starting => policy.takeover.start_deadline,
            Phase::Done | Phase::Replaced | Phase::Cancelled => return,
        };
        let reasons = wishes.waiting.get(&Subject::Plan(plan.id)).map_or(&[][..], Vec::as_slice);
        let needs_nobody = |why: &Waiting| {
            matches!(
                why,
                Waiting::InFlight { .. }
                    | Waiting::FirstHeartbeat { .. }
                    | Waiting::StartsCold { .. }
                    | Waiting::CrashDump { .. }
            )
        };
        // What drains or dumps, or is under way for the first time, goes on by itself.
        let fresh = plan.intents.iter().all(|intent| intent.trouble().is_none());
        let goes_on = reasons.iter().any(|why| {
            matches!(why, Waiting::Draining { .. } | Waiting::CrashDump { .. })
                || fresh && matches!(why, Waiting::InFlight { .. })
        });
        let why = reasons.iter().rev().find(|why| !goes_on && !needs_nobody(why)).map(Waiting::to_string);
        let overdue = self.memory.in_phase(plan.id, self.now) >= limit;
        match (overdue, &plan.stuck, why) {
            (true, stuck, Some(why)) if stuck.as_ref() != Some(&why) => {
                wishes.lead(self.leader, Step::Stick { plan: plan.id, why: Some(why) });
            }
            (false, Some(_), _) => wishes.lead(self.leader, Step::Stick { plan: plan.id, why: None }),
            (_, _, _) => {}
        }
    }
}

/// The pause before the next try of a step: longer after each, for a device that is dead for days must not fill the log.
fn pause(plan: &Plan, action: &Action, policy: &Policy) -> Millis {
    let tries = plan.intents.iter().filter(|intent| intent.action == *action).count() as u64;
    grown(policy.fencing.retry_after, tries)
}

fn grown(pause: Millis, tries: u64) -> Millis {
    Millis(pause.0.saturating_mul(tries.min(PAUSE_GROWTH_MAX)))
}

/// The next power-off to try: one level at a time, the next level after each failure, round and round.
fn power_off(plan: &Plan, from: &NodeRecord) -> Option<Action> {
    let is_its_power =
        |action: &Action| matches!(action, Action::PowerOff { node, .. } if *node == from.node.name);
    let last = plan.intents.iter().rev().find(|intent| is_its_power(&intent.action));
    let level = match last.map(|last| (&last.action, last.end.is_none() || last.is_done())) {
        Some((action, true)) => return Some(action.clone()),
        Some((Action::PowerOff { level, .. }, false)) => level + 1,
        Some((_, false)) | None => 0,
    };
    let level = level.checked_rem(from.node.fencing.len())?;
    Some(Action::PowerOff { node: from.node.name.clone(), level })
}

/// How long the old node's system has to shut down, if the order says so and there is any hope that it listens.
fn shutdown(record: &InstanceRecord, from: &NodeRecord, cause: &Cause) -> Option<Millis> {
    let ordered = record.evacuate.as_ref().filter(|_| *cause == Cause::Ordered);
    let listens = match (&from.state, &from.verdict) {
        (NodeState::Active { .. }, Verdict::Unknown | Verdict::Healthy | Verdict::Gray) => true,
        (NodeState::Active { .. }, Verdict::Failed(_)) => false,
        (
            NodeState::Spare
            | NodeState::Reserved { .. }
            | NodeState::Fencing { .. }
            | NodeState::Quarantined { .. }
            | NodeState::Cleaning { .. },
            _,
        ) => false,
    };
    ordered.filter(|_| listens)?.shutdown
}

/// Why an instance must leave its node, if it must.
fn must_move(record: &InstanceRecord, from: &NodeRecord) -> Option<Cause> {
    if record.evacuate.is_some() {
        return Some(Cause::Ordered);
    }
    match (&from.state, &from.verdict) {
        // An order to fence the node went before; the instance follows whatever the verdict has become.
        (NodeState::Quarantined { .. }, _) => Some(Cause::Ordered),
        (_, Verdict::Failed(cause)) => Some(cause.clone()),
        (_, Verdict::Unknown | Verdict::Healthy | Verdict::Gray) => None,
    }
}
