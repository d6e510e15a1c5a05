//! `hactl explain`: seen? judged? planned? attempted? proved? - of a node, an instance or a failover.
//!
//! Why it exists: whoever is woken must see within a minute what the cluster believes, what it did, and what exactly it
//! waits for. Pure functions of the committed state and of the leader's view. What it never does: judge anew; it only
//! prints what was recorded.

use crate::api::facts::Facts;
use policies::{
    Backup, ByHand, Decision, Evidence, InstanceId, Intent, NodeId, NodeRecord, Order, Outcome, Plan, PlanId,
    Power, Seen, Start, Waiting, Wall,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Answer to `explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// `node/n1`, `instance/web`, `failover/f12`.
    pub about: String,
    /// How it is, in one sentence.
    pub answer: String,
    /// Why nothing (more) happens; empty: nothing has to.
    pub waiting: Vec<String>,
    /// The way there, question by question.
    pub sections: Vec<Section>,
    /// The answering member's clock.
    #[schema(value_type = u64)]
    pub now: Wall,
}

/// One question and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Section {
    /// `seen`, `judged`, `planned`, `attempted`, `proved`, `reached`, `done by hand`, `backed up`.
    pub question: String,
    /// What is recorded.
    pub lines: Vec<Line>,
}

/// One recorded thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Line {
    /// When it was recorded; absent if it is what is believed now.
    #[schema(value_type = Option<u64>)]
    pub at: Option<Wall>,
    /// The sentence.
    pub text: String,
}

impl Line {
    fn now(text: impl Into<String>) -> Self {
        Line { at: None, text: text.into() }
    }

    fn at(at: Wall, text: impl Into<String>) -> Self {
        Line { at: Some(at), text: text.into() }
    }
}

/// Why a name is not explained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unexplained {
    /// Nothing has this name.
    #[error("there is no node, instance or failover {0:?}")]
    NotThere(String),
    /// More than one thing has it.
    #[error("{0:?} is both a node and an instance; write node/{0} or instance/{0}")]
    Ambiguous(String),
}

/// Explains `node/n1`, `instance/web`, `failover/f12`, or a bare name that only one of them has.
///
/// # Errors
/// [`Unexplained`].
pub fn explain(facts: Facts<'_>, target: &str) -> Result<Explanation, Unexplained> {
    let (kind, name) = match target.split_once('/') {
        Some((kind, name)) => (Some(kind), name),
        None => (None, target),
    };
    let wanted = |this: &str| kind.is_none_or(|kind| kind == this);
    let node = name.parse().ok().filter(|_| wanted("node")).and_then(|name| explain_node(facts, &name));
    let instance =
        name.parse().ok().filter(|_| wanted("instance")).and_then(|name| explain_instance(facts, &name));
    let id: Option<PlanId> = name.strip_prefix('f').and_then(|_| name.parse().ok());
    let plan = id.filter(|_| wanted("failover")).and_then(|id| explain_plan(facts, id));
    match (node, instance, plan) {
        (Some(_), Some(_), _) => Err(Unexplained::Ambiguous(name.to_owned())),
        (Some(found), None, _) | (None, Some(found), _) | (None, None, Some(found)) => Ok(found),
        (None, None, None) => Err(Unexplained::NotThere(target.chars().take(80).collect())),
    }
}

fn explain_node(facts: Facts<'_>, name: &NodeId) -> Option<Explanation> {
    let record = facts.state.nodes.get(name)?;
    let takes_part = |plan: &&Plan| plan.decision.from == *name || plan.decision.spare.as_ref() == Some(name);
    let plan = facts.state.plans.values().rev().find(takes_part);
    let mut sections = vec![seen(facts, name), judged(record)];
    sections.extend(plan.map(planned).into_iter().flatten());
    if !record.by_hand.is_empty() {
        sections.push(section("done by hand", record.by_hand.iter().flat_map(by_hand).collect(), "nothing"));
    }
    let believed = facts.view.nodes.get(name).map_or(&[][..], |node| &node.waiting);
    let committed = record.withheld.as_slice();
    let running =
        plan.filter(|plan| !plan.phase.is_over()).map_or(&[][..], |plan| plan_waiting(facts, plan.id));
    let reasons = if believed.is_empty() { committed } else { believed };
    let mut answer = format!("{name} is {}; it is believed to be {}", record.state, record.verdict);
    if record.cordoned {
        answer.push_str("; cordoned: it takes no new instance");
    }
    if let Some(order) = &record.maintenance {
        answer.push_str(&format!("; in maintenance by {} ({}): hands off", order.by, order.reason));
    }
    Some(finish(facts, format!("node/{name}"), answer, &[reasons, running].concat(), sections))
}

fn explain_instance(facts: Facts<'_>, name: &InstanceId) -> Option<Explanation> {
    let record = facts.state.instances.get(name)?;
    let node = facts.state.nodes.get(&record.node);
    let plan = facts.state.plans.values().rev().find(|plan| plan.decision.instance.as_ref() == Some(name));
    let mut sections = vec![seen(facts, &record.node)];
    sections.extend(node.map(judged));
    sections.extend(plan.map(planned).into_iter().flatten());
    if let Some(newest) = record.backups.last() {
        sections.push(section("backed up", backed_up(newest), "nothing"));
    }
    let mut reasons = facts.view.instances.get(name).cloned().unwrap_or_default();
    match plan.filter(|plan| !plan.phase.is_over()) {
        Some(plan) => reasons.extend_from_slice(plan_waiting(facts, plan.id)),
        None => reasons
            .extend(facts.view.nodes.get(&record.node).into_iter().flat_map(|node| node.waiting.clone())),
    }
    let belief = node.map_or_else(|| "unknown".to_owned(), |node| node.verdict.to_string());
    let mut answer = format!(
        "{name} belongs to {} in {}; that node is believed to be {belief}",
        record.node, record.epoch
    );
    if let Some(order) = &record.evacuate {
        let Order { by, reason, .. } = &order.order;
        answer.push_str(&format!("; {by} ordered it to be moved ({reason})"));
    }
    Some(finish(facts, format!("instance/{name}"), answer, &reasons, sections))
}

fn explain_plan(facts: Facts<'_>, id: PlanId) -> Option<Explanation> {
    let plan = facts.state.plans.get(&id)?;
    let what = match &plan.decision.instance {
        Some(instance) => format!("moves {instance} from {}", plan.decision.from),
        None => format!("fences {}", plan.decision.from),
    };
    let to = plan.decision.spare.as_ref().map(|spare| format!(" to {spare}")).unwrap_or_default();
    let mut answer = format!("{id} {what}{to}: {}", plan.phase);
    if let Some(stuck) = &plan.stuck {
        answer.push_str(&format!("; stuck, it needs a human: {stuck}"));
    }
    let reasons = plan_waiting(facts, id);
    Some(finish(facts, format!("failover/{id}"), answer, reasons, planned(plan)))
}

fn plan_waiting(facts: Facts<'_>, id: PlanId) -> &[Waiting] {
    facts.view.plans.get(&id).map_or(&[][..], Vec::as_slice)
}

fn finish(
    facts: Facts<'_>,
    about: String,
    answer: String,
    reasons: &[Waiting],
    sections: Vec<Section>,
) -> Explanation {
    let mut waiting: Vec<String> = reasons.iter().map(Waiting::to_string).collect();
    if let Some(why) = &facts.view.not_acting {
        waiting.push(why.to_string());
    }
    waiting.dedup();
    Explanation { about, answer, waiting, sections, now: facts.now }
}

fn section(question: &str, lines: Vec<Line>, none: &str) -> Section {
    let lines = if lines.is_empty() { vec![Line::now(none)] } else { lines };
    Section { question: question.to_owned(), lines }
}

fn seen(facts: Facts<'_>, name: &NodeId) -> Section {
    let view = facts.view.nodes.get(name);
    let mut lines: Vec<Line> = view
        .into_iter()
        .flat_map(|node| &node.sights)
        .map(|(member, sight)| Line::now(format!("{member}: {sight}")))
        .collect();
    for (member, view) in &facts.view.members {
        if let Some(doubt) = &view.doubt {
            lines.push(Line::now(format!("{member} does not count: {doubt}")));
        }
    }
    if let Some((power, age)) = view.and_then(|view| view.power) {
        let read = match power {
            Some(Power::On) => "read power on",
            Some(Power::Off) => "read power off",
            None => "did not answer",
        };
        lines.push(Line::now(format!("its BMC {read} {} ago", crate::render::length(age))));
    }
    section("seen", lines, "no member has reported on it yet")
}

fn judged(record: &NodeRecord) -> Section {
    let mut lines = vec![];
    if record.judged != Wall(0) {
        lines.push(Line::at(record.judged, record.verdict.to_string()));
        lines.extend(evidence(record.judged, &record.evidence));
    }
    if let Some(why) = &record.withheld {
        lines.push(Line::now(format!("not acted on: {why}")));
    }
    if let Some(order) = &record.fence_order {
        lines.push(Line::at(order.at, format!("{} ordered a fence: {}", order.by, order.reason)));
    }
    if let Some(order) = &record.confirmed_off {
        lines.push(Line::at(order.at, format!("{} vouches that it is off: {}", order.by, order.reason)));
    }
    section("judged", lines, "no verdict has been committed yet")
}

fn planned(plan: &Plan) -> Vec<Section> {
    let attempted = plan.intents.iter().flat_map(attempt).collect();
    let proved = plan.proof.iter().map(|proof| {
        let tokens: Vec<String> = proof.rests_on().map(|token| token.to_string()).collect();
        Line::now(format!("{proof}; it rests on {}", tokens.join(", ")))
    });
    let reached = plan.entered.iter().map(|(phase, at)| Line::at(*at, phase.to_string()));
    vec![
        section("planned", decided(plan), "nothing"),
        section("attempted", attempted, "nothing has been done to the world yet"),
        section("proved", proved.collect(), "not yet"),
        section("reached", reached.collect(), "nothing yet"),
    ]
}

/// One line for each witness: they are compared, so they stand below each other.
fn evidence(at: Wall, evidence: &Evidence) -> Vec<Line> {
    let mut lines = vec![format!("{} of {} needed members see it dead", evidence.dead, evidence.needed)];
    lines.extend(evidence.members.iter().map(|(member, sight)| format!("  {member}: {sight}")));
    lines.extend(evidence.doubts.iter().map(|(member, doubt)| format!("  {member} does not count: {doubt}")));
    lines.extend(evidence.power.map(|power| match power {
        Power::On => "  its BMC: power on".to_owned(),
        Power::Off => "  its BMC: power off".to_owned(),
    }));
    lines.into_iter().map(|line| Line::at(at, line)).collect()
}

fn decided(plan: &Plan) -> Vec<Line> {
    let Decision {
        instance,
        from,
        spare,
        cause,
        evidence: grounds,
        policy,
        gates,
        runners_up,
        shutdown,
        start,
    } = &plan.decision;
    let what = match (instance, spare) {
        (Some(instance), Some(spare)) => format!("{}: move {instance} from {from} to {spare}", plan.id),
        (Some(instance), None) => format!("{}: move {instance} away from {from}", plan.id),
        (None, _) => format!("{}: fence {from}", plan.id),
    };
    let (policy, version) = policy;
    let mut lines = vec![Line::at(plan.at, what), Line::at(plan.at, format!("because {from}: {cause}"))];
    lines.extend(shutdown.map(|time| Line::at(plan.at, format!("its system has {time} to shut down first"))));
    lines.extend(match start {
        Start::PowerOn => None,
        Start::Kexec => Some(Line::at(plan.at, "the spare waits hot: it goes on into the instance's kernel")),
        Start::Deploy => {
            let told =
                "its cloud deploys the instance on the spare, and gives its ports the MAC addresses there";
            Some(Line::at(plan.at, told))
        }
        Start::PowerCycle => Some(Line::at(plan.at, "the spare waits hot: it is switched off and on")),
    });
    lines.extend(evidence(plan.at, grounds));
    lines.push(Line::at(plan.at, format!("policy {policy} at version {version}")));
    lines
        .extend(gates.iter().map(|gate| Line::at(plan.at, format!("checked {}: {}", gate.name, gate.found))));
    lines.extend(runners_up.iter().map(|(node, why)| Line::at(plan.at, format!("not {node}: {why}"))));
    lines
}

fn by_hand(done: &ByHand) -> Vec<Line> {
    let Order { by, reason, at, .. } = &done.order;
    let mut lines = vec![Line::at(*at, format!("{by} ordered it: {reason}"))];
    lines.extend(attempt(&done.intent));
    lines
}

/// The newest backup of an instance; `hactl instance show` has those before it.
fn backed_up(backup: &Backup) -> Vec<Line> {
    let Order { by, reason, at, .. } = &backup.order;
    let mut lines = vec![Line::at(*at, format!("{by} ordered backup {}: {reason}", backup.id))];
    lines.extend(backup.intents.iter().flat_map(attempt));
    lines.extend(backup.left().map(|action| Line::now(format!("{action}: not begun yet"))));
    lines
}

fn attempt(intent: &Intent) -> Vec<Line> {
    let Intent { token, leader, at, action, end } = intent;
    let begun = Some(Line::at(*at, format!("{action} ({token}, recorded by {leader})")));
    let end = end.as_ref().map(|(outcome, ended)| {
        let after = crate::render::length(ended.since(*at));
        Line::at(*ended, format!("  {} (took {after})", outcome_text(outcome)))
    });
    let told = intent.told().iter().map(|line| Line::at(*at, format!("  {line}")));
    begun.into_iter().chain(end).chain(told).collect()
}

/// How an effect ended, as a sentence.
pub fn outcome_text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done(Seen::OffTwice { already: true, .. }) => {
            "done: it was off already, seen twice".to_owned()
        }
        Outcome::Done(Seen::OffTwice { already: false, took }) => {
            format!("done: seen off twice within {took}")
        }
        Outcome::Done(Seen::On) => "done: seen on".to_owned(),
        Outcome::Done(Seen::Accepted) => "done, as its BMC says".to_owned(),
        Outcome::Done(Seen::Diagnosed(lines)) => format!("done: {} lines", lines.len()),
        Outcome::Done(Seen::ReadBack(read)) => format!("done: read back {read}"),
        Outcome::Refused(refusal) => format!("refused: {refusal}"),
        Outcome::Unknown(doubt) => format!("unknown: {doubt}"),
    }
}
