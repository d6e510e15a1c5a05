//! How far an order has come: under way with its steps so far, done, or not to be done.
//!
//! Why it exists: `--wait` must tell what is done from what only seems so, and that is a function of what the API
//! answered. What it never does: ask, wait, or know the time.

use crate::api::answers::{FailoverDetail, InstanceDetail, NodeDetail, Status};
use crate::api::explain::outcome_text;
use crate::render;
use Progress::{Done, Ended, UnderWay};
use policies::{LogIndex, MemberId, NodeState, Phase, Waiting};

/// Entries that a new member may still lack when it counts as caught up: what a busy cluster writes between two looks.
pub(crate) const BEHIND_MAX: u64 = 16;

/// How far an order has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Not done yet; the steps so far, and what it waits for.
    UnderWay(Vec<String>),
    /// It is done; the steps that led there, the last one says so.
    Done(Vec<String>),
    /// It will not be done, at least not without a human: the steps, and why.
    Ended(Vec<String>, String),
}

/// Of `instance evacuate`, committed as `order`. `plans`: the instance's failovers after that, oldest first.
pub fn evacuation(order: LogIndex, detail: &InstanceDetail, plans: &[FailoverDetail]) -> Progress {
    let name = &detail.record.instance.name;
    match (moved(order, detail, plans), &detail.record.evacuate) {
        (Some(progress), _) => progress,
        (None, Some(_)) => UnderWay(waits(name.as_str(), &detail.line.waiting)),
        (None, None) => Ended(vec![], format!("the order to move {name} was withdrawn")),
    }
}

/// Of `failover approve`, committed as `order`. `node`: the instance's node, read before `detail`, so that an approval
/// that is gone has a failover that is seen, unless it was withdrawn; absent if it is not the caller's to see, who then waits until
/// the time is over. `plans` as for [`evacuation`].
pub fn approval(
    order: LogIndex,
    node: Option<&NodeDetail>,
    detail: &InstanceDetail,
    plans: &[FailoverDetail],
) -> Progress {
    let name = &detail.record.instance.name;
    match (moved(order, detail, plans), node) {
        (Some(progress), _) => progress,
        (None, None) => UnderWay(waits(name.as_str(), &detail.line.waiting)),
        (None, Some(node)) if node.record.approved.is_some() => {
            UnderWay(waits(name.as_str(), &detail.line.waiting))
        }
        (None, Some(node)) => {
            let (node, verdict) = (&node.record.node.name, &node.record.verdict);
            Ended(vec![], format!("{name} is not moved: {node} is {verdict}"))
        }
    }
}

/// How far the instance has moved by the failovers after the order, if there are any.
fn moved(order: LogIndex, detail: &InstanceDetail, plans: &[FailoverDetail]) -> Option<Progress> {
    let name = &detail.record.instance.name;
    let (last, lines) = told(order, plans)?;
    Some(match last.plan.phase {
        Phase::Done => {
            // By the plan, for the plan may be newer than the record.
            let spare = last.plan.decision.spare.as_ref();
            Done(with(lines, spare.map(|spare| format!("{name} runs on {spare}"))))
        }
        Phase::Cancelled => Ended(lines, format!("failover {} was cancelled", last.plan.id)),
        Phase::Reserved
        | Phase::Stopping
        | Phase::Fencing
        | Phase::Moving
        | Phase::Starting
        | Phase::Replaced => under_way(last, lines),
    })
}

/// Of `fence`, committed as `order`. `plans`: the failovers away from the node after that, oldest first. Done as soon as
/// the node is proven to touch nothing; an instance moves on without it.
pub fn fence(order: LogIndex, detail: &NodeDetail, plans: &[FailoverDetail]) -> Progress {
    let name = &detail.record.node.name;
    let Some((last, lines)) = told(order, plans) else {
        return match &detail.record.fence_order {
            Some(_) => UnderWay(waits(name.as_str(), &reasons(detail))),
            None => Ended(vec![], format!("the order to fence {name} was withdrawn")),
        };
    };
    match last.plan.phase {
        Phase::Moving | Phase::Starting | Phase::Done | Phase::Replaced => {
            let proof = last.plan.proof.as_ref().map(|proof| format!(": {proof}")).unwrap_or_default();
            Done(with(lines, [format!("{name} can touch nothing any more{proof}")]))
        }
        Phase::Cancelled => Ended(lines, format!("failover {} was cancelled", last.plan.id)),
        Phase::Reserved | Phase::Stopping | Phase::Fencing => under_way(last, lines),
    }
}

/// Of `node release`.
pub fn release(detail: &NodeDetail) -> Progress {
    let name = &detail.record.node.name;
    match &detail.record.state {
        NodeState::Cleaning { .. } => {
            UnderWay(with(vec![format!("{name} is being cleaned")], waits(name.as_str(), &reasons(detail))))
        }
        NodeState::Spare => Done(vec![format!("{name} is a spare")]),
        // It was a spare for a moment and is in use already.
        NodeState::Reserved { .. } | NodeState::Active { .. } => {
            Done(vec![format!("{name} is {}", detail.record.state)])
        }
        NodeState::Quarantined { unclean: Some(why), .. } => {
            Ended(vec![], format!("{name} could not be cleaned: {why}"))
        }
        NodeState::Fencing { .. } | NodeState::Quarantined { unclean: None, .. } => {
            Ended(vec![], format!("{name} is {} again", detail.record.state))
        }
    }
}

/// Of `node power on|off` and `node nmi`, committed as `order`.
pub fn by_hand(order: LogIndex, detail: &NodeDetail) -> Progress {
    let record = &detail.record;
    let Some(by_hand) = record.by_hand.iter().find(|by_hand| by_hand.intent.token == order) else {
        return Ended(vec![], format!("the order about {} is not recorded any more", record.node.name));
    };
    let intent = &by_hand.intent;
    match &intent.end {
        None => UnderWay(waits(record.node.name.as_str(), &reasons(detail))),
        Some((outcome, _)) if intent.is_done() => {
            Done(vec![format!("{}: {}", intent.action, outcome_text(outcome))])
        }
        Some((outcome, _)) => Ended(vec![], format!("{}: {}", intent.action, outcome_text(outcome))),
    }
}

/// Of `instance backup`, committed as `order`.
pub fn backup(order: LogIndex, detail: &InstanceDetail) -> Progress {
    let record = &detail.record;
    let name = &record.instance.name;
    let Some(backup) = record.backups.iter().find(|backup| backup.id.0 == order.0) else {
        return Ended(vec![], format!("the backup of {name} is not recorded any more"));
    };
    let told = |intent: &policies::Intent| {
        let (outcome, _) = intent.end.as_ref()?;
        Some(format!("{}: {}", intent.action, outcome_text(outcome)))
    };
    let lines: Vec<String> = backup.intents.iter().filter_map(told).collect();
    let (kept, of) = (backup.kept(), backup.actions.len());
    match (backup.is_over(), kept == of) {
        (false, _) => UnderWay(lines),
        (true, true) => Done(with(lines, [format!("backup {} of {name} is there", backup.id)])),
        (true, false) => {
            Ended(lines, format!("backup {} of {name}: only {kept} of {of} volumes were kept", backup.id))
        }
    }
}

/// Of `member add`.
pub fn joined(id: MemberId, as_learner: bool, status: &Status) -> Progress {
    let Some(line) = status.members.iter().find(|line| line.id == id) else {
        return Ended(vec![], format!("{id} is no member any more"));
    };
    let behind = line.behind.unwrap_or(u64::MAX);
    // Only voters report, and a voter that nobody hears is no help.
    let is_heard = as_learner || line.is_heard_by(status.answered_by);
    match (line.voter || as_learner, behind <= BEHIND_MAX, is_heard) {
        (true, true, true) => Done(vec![format!("{id} has caught up")]),
        (false, _, _) => UnderWay(vec![format!("{id} does not vote yet")]),
        (true, false, _) if line.behind.is_none() => UnderWay(vec![format!("{id} does not answer yet")]),
        (true, false, _) => UnderWay(vec![format!("{id} lacks {behind} entries of the log")]),
        (true, true, false) => UnderWay(vec![format!("{id} has not reported yet")]),
    }
}

/// Of `member remove`.
pub fn removed(id: MemberId, status: &Status) -> Progress {
    match status.members.iter().any(|line| line.id == id) {
        true => UnderWay(vec![format!("{id} is still a member")]),
        false => Done(vec![format!("{id} is no member any more")]),
    }
}

/// Of `member transfer`.
pub fn transferred(to: MemberId, status: &Status) -> Progress {
    if status.answered_by != to {
        return UnderWay(vec![format!("{} leads", status.answered_by)]);
    }
    match &status.not_acting {
        Some(why) => UnderWay(vec![format!("{to} leads and does not act yet: {why}")]),
        None => Done(vec![format!("{to} leads")]),
    }
}

/// The newest of the failovers that the order led to, and the steps of all of them.
fn told(order: LogIndex, plans: &[FailoverDetail]) -> Option<(&FailoverDetail, Vec<String>)> {
    let led_to: Vec<&FailoverDetail> = plans.iter().filter(|detail| detail.plan.id.0 > order.0).collect();
    let lines = led_to.iter().flat_map(|detail| steps(detail)).collect();
    Some((*led_to.last()?, lines))
}

fn steps(detail: &FailoverDetail) -> Vec<String> {
    let plan = &detail.plan;
    let (id, decision) = (plan.id, &plan.decision);
    let what = match (&decision.instance, &decision.spare) {
        (Some(instance), Some(spare)) => format!("{instance} moves from {} to {spare}", decision.from),
        (Some(_), None) | (None, _) => format!("{} is fenced", decision.from),
    };
    let mut lines = vec![format!("failover {id}: {what}")];
    lines.extend(
        plan.entered.iter().map(|(phase, at)| {
            format!("failover {id}: {phase} (after {})", render::length(at.since(plan.at)))
        }),
    );
    lines
}

fn under_way(last: &FailoverDetail, lines: Vec<String>) -> Progress {
    let id = last.plan.id;
    match &last.plan.stuck {
        Some(why) => Ended(lines, format!("failover {id} is stuck: {why}")),
        None => UnderWay(with(lines, waits(&format!("failover {id}"), &last.waiting))),
    }
}

/// Why the node waits. That it is quarantined is no reason to wait with a fence, and with a release it is the past.
fn reasons(detail: &NodeDetail) -> Vec<String> {
    let counts = |waiting: &&Waiting| !matches!(waiting, Waiting::Quarantined | Waiting::Unclean { .. });
    detail.view.waiting.iter().filter(counts).map(ToString::to_string).collect()
}

fn waits(subject: &str, reasons: &[String]) -> Vec<String> {
    reasons.iter().map(|reason| format!("{subject} waits: {reason}")).collect()
}

fn with(mut lines: Vec<String>, more: impl IntoIterator<Item = String>) -> Vec<String> {
    lines.extend(more);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::facts::Facts;
    use crate::render::tests::{Story, members, mid_failover, name, status_of};
    use policies::*;

    fn instance(story: &Story) -> InstanceDetail {
        story.facts().instance(&name("web")).unwrap()
    }

    fn plans(facts: Facts<'_>) -> Vec<FailoverDetail> {
        facts.state.plans.keys().map(|id| facts.failover(*id).unwrap()).collect()
    }

    fn evacuated(story: &Story, order: u64) -> Progress {
        evacuation(LogIndex(order), &instance(story), &plans(story.facts()))
    }

    fn texts(lines: &[&str]) -> Vec<String> {
        lines.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_failover_is_told_phase_by_phase_until_it_is_done_or_stuck() {
        let mut story = mid_failover();
        let begun = ["failover f9: web moves from n1 to n2", "failover f9: reserved (after 0ms)"];
        let fencing = [&begun[..], &["failover f9: fencing (after 0ms)"]].concat();
        assert_eq!(
            evacuated(&story, 1),
            Ended(texts(&fencing), "failover f9 is stuck: port sw1/1 of n1 is not closed".into())
        );
        let plan = story.state.plans.get_mut(&PlanId(9)).unwrap();
        plan.stuck = None;
        let waits = "failover f9 waits: not isolated: close port sw1/1 of n1 is not proven";
        let UnderWay(lines) = evacuated(&story, 1) else { panic!("{:?}", evacuated(&story, 1)) };
        assert_eq!(lines[..3], texts(&fencing));
        assert!(lines[3].starts_with("failover f9 waits: ") && lines.len() == 4, "{lines:?} {waits}");

        let plan = story.state.plans.get_mut(&PlanId(9)).unwrap();
        plan.phase = Phase::Done;
        plan.entered.push((Phase::Done, Wall(plan.at.0 + 65_000)));
        let Done(lines) = evacuated(&story, 1) else { panic!("{:?}", evacuated(&story, 1)) };
        assert_eq!(lines[3], "failover f9: done (after 1m 5s)");
        assert_eq!(lines[4], "web runs on n2");
        story.state.plans.get_mut(&PlanId(9)).unwrap().phase = Phase::Cancelled;
        assert!(
            matches!(evacuated(&story, 1), Ended(_, why) if why == "failover f9 was cancelled"),
            "{:?}",
            evacuated(&story, 1)
        );
        // One that took over from it is waited for as well.
        story.state.plans.get_mut(&PlanId(9)).unwrap().phase = Phase::Replaced;
        assert!(matches!(evacuated(&story, 1), UnderWay(_)));
    }

    #[test]
    fn failovers_from_before_the_order_are_not_its_doing() {
        let mut story = mid_failover();
        assert_eq!(evacuated(&story, 9), Ended(vec![], "the order to move web was withdrawn".into()));
        let order = Order::new("admin", "fan", Wall(1));
        let order = Evacuation { order, shutdown: None };
        story.state.instances.get_mut(&name("web")).unwrap().evacuate = Some(order);
        story.view.instances.insert(name("web"), vec![Waiting::PlanRunning { plan: PlanId(3) }]);
        let UnderWay(lines) = evacuated(&story, 9) else { panic!("{:?}", evacuated(&story, 9)) };
        assert!(lines.len() == 1 && lines[0].starts_with("web waits: "), "{lines:?}");
    }

    #[test]
    fn an_approval_is_withdrawn_when_the_node_is_well_again() {
        let mut story = mid_failover();
        let approved = |story: &Story, order| {
            let node = story.facts().node(&name("n1")).unwrap();
            approval(LogIndex(order), Some(&node), &instance(story), &plans(story.facts()))
        };
        assert!(matches!(approved(&story, 1), Ended(_, why) if why.contains("stuck")));
        let order = Order::new("admin", "seen", Wall(1));
        story.state.nodes.get_mut(&name("n1")).unwrap().approved = Some(order);
        assert_eq!(approved(&story, 9), UnderWay(vec![]));
        let node = story.state.nodes.get_mut(&name("n1")).unwrap();
        (node.approved, node.verdict) = (None, Verdict::Healthy);
        assert_eq!(approved(&story, 9), Ended(vec![], "web is not moved: n1 is healthy".into()));
    }

    #[test]
    fn a_fence_is_done_when_it_is_proven() {
        let mut story = mid_failover();
        let fenced = |story: &Story, order| {
            let node = story.facts().node(&name("n1")).unwrap();
            fence(LogIndex(order), &node, &plans(story.facts()))
        };
        assert!(matches!(fenced(&story, 1), Ended(_, why) if why.contains("stuck")));
        story.state.plans.get_mut(&PlanId(9)).unwrap().phase = Phase::Starting;
        let Done(lines) = fenced(&story, 1) else { panic!() };
        assert_eq!(lines.last().unwrap(), "n1 can touch nothing any more");
        assert!(matches!(fenced(&story, 9), Ended(_, why) if why == "the order to fence n1 was withdrawn"));
        let order = Order::new("admin", "smoke", Wall(1));
        story.state.nodes.get_mut(&name("n1")).unwrap().fence_order = Some(order.clone());
        assert_eq!(fenced(&story, 9), UnderWay(vec![]));
        // Released, it is cleaned and then a spare.
        let mut node = story.facts().node(&name("n1")).unwrap();
        assert_eq!(release(&node), Ended(vec![], "n1 is being fenced by f9 again".into()));
        node.record.state = NodeState::Cleaning { plan: Some(PlanId(9)), order, proof: None };
        assert_eq!(release(&node), UnderWay(vec!["n1 is being cleaned".into()]));
        node.record.state = NodeState::Spare;
        assert_eq!(release(&node), Done(vec!["n1 is a spare".into()]));
    }

    #[test]
    fn what_is_done_by_hand_is_told_by_its_own_end() {
        let mut node = mid_failover().facts().node(&name("n2")).unwrap();
        let action = Action::Interrupt { node: name("n2") };
        let intent = Intent { token: LogIndex(12), leader: LeaderEpoch(1), at: Wall(1), action, end: None };
        node.record.by_hand = vec![ByHand { order: Order::new("admin", "hangs", Wall(1)), intent }];
        assert_eq!(by_hand(LogIndex(12), &node), UnderWay(vec![]));
        let mut ended = |outcome| {
            node.record.by_hand[0].intent.end = Some((outcome, Wall(2)));
            by_hand(LogIndex(12), &node)
        };
        let done = Done(texts(&["interrupt n2 (NMI): done, as its BMC says"]));
        assert_eq!(ended(Outcome::Done(Seen::Accepted)), done);
        let Ended(_, why) = ended(Outcome::Unknown(Doubt::LeadershipEnded)) else { panic!() };
        assert!(why.starts_with("interrupt n2 (NMI): unknown: the leader changed"), "{why}");
        let lost = "the order about n2 is not recorded any more";
        assert_eq!(by_hand(LogIndex(3), &node), Ended(vec![], lost.into()));
    }

    #[test]
    fn a_member_has_joined_when_it_votes_has_the_log_and_is_heard() {
        let mut status = status_of(&mid_failover());
        status.members = members();
        let said = |status: &Status, id| match joined(MemberId(id), false, status) {
            UnderWay(lines) | Done(lines) => lines.join(""),
            Ended(_, why) => why,
        };
        assert_eq!(said(&status, 2), "m2 has caught up");
        assert_eq!(said(&status, 3), "m3 has not reported yet");
        assert_eq!(said(&status, 4), "m4 does not vote yet");
        assert_eq!(said(&status, 5), "m5 is no member any more");
        let lacks = UnderWay(vec!["m4 lacks 1200 entries of the log".into()]);
        assert_eq!(joined(MemberId(4), true, &status), lacks);
        assert_eq!(removed(MemberId(4), &status), UnderWay(vec!["m4 is still a member".into()]));
        assert!(matches!(removed(MemberId(5), &status), Done(_)));
        assert_eq!(transferred(MemberId(2), &status), UnderWay(vec!["m1 leads".into()]));
        assert_eq!(transferred(MemberId(1), &status), Done(vec!["m1 leads".into()]));
        status.not_acting = Some("it has just been elected".into());
        assert!(matches!(transferred(MemberId(1), &status), UnderWay(_)));
    }
}
