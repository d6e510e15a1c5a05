//! What an order would leave without cover, before it is given.
//!
//! Why it exists: a cordon, a maintenance, a drain or a deletion takes a spare away, and who gives it looks at the node and not at
//! those whom it protects. The same functions that tell the coverage are asked twice, on copies: without the order and with
//! it. What it never does: refuse; whoever gives the order may give it all the same.

use crate::command::{Command, Proposal, Rejected};
use crate::coverage::{Cover, Coverage, Loss};
use crate::plan::Verdict;
use crate::state::{ClusterState, NodeState};
use crate::view::View;
use crate::waiting::Waiting;
use crate::words::NodeId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// An instance or failure domain that is covered now and would not be any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Which: `instance/web`, or a failure domain as in the coverage, `rack/r1`.
    pub about: String,
    /// Why it would not be covered.
    pub why: String,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.about, self.why)
    }
}

/// What this command would leave without cover. What has none already is not told again; what is new needs a moment until it
/// was heard, and that is no gap; and a node in maintenance is not protected because somebody said so.
///
/// An order that would be refused leaves everything as it is.
pub fn gaps(state: &ClusterState, view: &View, proposal: &Proposal) -> Vec<Gap> {
    let mut before = state.clone();
    presume_heard(&mut before, state);
    let mut after = before.clone();
    let applied: Result<_, Rejected> =
        after.apply(crate::LogIndex(state.applied.0.saturating_add(1)), proposal);
    if applied.is_err() {
        return vec![];
    }
    let covered = Coverage::of(&before, view);
    if let Command::Drain { node, .. } = proposal.command.unforced() {
        carry_over(&mut after, node, &covered);
    }
    presume_heard(&mut after, &before);
    let (before, after) = (covered, Coverage::of(&after, view));
    let mut gaps = vec![];
    for (name, cover) in &after.instances {
        let was_covered = before.instances.get(name).is_some_and(is_covered);
        if let Cover::Uncovered(why) = cover
            && was_covered
            && !is_intended(cover)
        {
            gaps.push(Gap { about: format!("instance/{name}"), why: why.to_string() });
        }
    }
    let losses = after.losses.iter().filter_map(|(domain, loss)| {
        let why = loss_made(before.losses.get(domain)?, loss, &after.instances)?;
        Some(Gap { about: domain.clone(), why })
    });
    gaps.extend(losses);
    gaps
}

fn is_covered(cover: &Cover) -> bool {
    match cover {
        Cover::Spare(_) | Cover::Lesser { .. } | Cover::Moving(_) => true,
        Cover::Uncovered(_) => false,
    }
}

fn is_intended(cover: &Cover) -> bool {
    matches!(cover, Cover::Uncovered(Waiting::Maintenance { .. }))
}

/// Why the loss of a domain would not be covered any more; `None` if it still would be, or was not before. An instance that
/// is uncovered by itself is told as such.
fn loss_made(before: &Loss, after: &Loss, covers: &BTreeMap<crate::InstanceId, Cover>) -> Option<String> {
    if let (None, Some(held)) = (&before.held, &after.held) {
        return Some(held.to_string());
    }
    let had_one = |name| before.spares.get(name).is_some_and(Option::is_some);
    let alone = |name| covers.get(name).is_some_and(is_covered);
    let mut left = after
        .spares
        .iter()
        .filter(|(name, spare)| spare.is_none() && alone(*name) && (had_one(*name) || before.is_covered()));
    let (first, _) = left.next()?;
    Some(match left.count() {
        0 => format!("if it were lost at once, no spare would be left for {first}"),
        more => format!("if it were lost at once, no spare would be left for {first} and {more} more"),
    })
}

/// A drain is asked about as it will be when it is over: the instance runs on the spare that covers it, and its old node,
/// which the drain cordons, is none. An evacuation or a fence is not: who orders one has no time to be asked.
fn carry_over(state: &mut ClusterState, drained: &NodeId, before: &Coverage) {
    let Some(from) = state.nodes.get_mut(drained) else { return };
    let NodeState::Active { instance } = from.state.clone() else { return };
    let cover = before.instances.get(&instance);
    let Some(Cover::Spare(spare) | Cover::Lesser { spare, .. }) = cover else { return };
    from.state = NodeState::Spare;
    if let Some(record) = state.instances.get_mut(&instance) {
        (record.node, record.evacuate) = (spare.clone(), None);
    }
    if let Some(to) = state.nodes.get_mut(spare) {
        to.state = NodeState::Active { instance };
    }
}

/// What is described anew was not heard yet, which is no lasting gap: it is taken for what it was before, or for healthy.
fn presume_heard(state: &mut ClusterState, before: &ClusterState) {
    for (name, record) in &mut state.nodes {
        let is_active = matches!(record.state, NodeState::Active { .. });
        if record.verdict == Verdict::Unknown && is_active {
            let known = before.nodes.get(name).map(|known| &known.verdict);
            let known = known.filter(|verdict| **verdict != Verdict::Unknown);
            record.verdict = known.cloned().unwrap_or(Verdict::Healthy);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Documents, Object};
    use crate::coverage::tests::{PROVIDER, instance, node};
    use crate::words::{Millis, Wall};

    fn proposal(command: Command) -> Proposal {
        Proposal { at: Wall(0), by: "test".to_owned(), command }
    }

    fn described(parts: &[String]) -> Command {
        let documents: Documents = toml::from_str(&parts.concat()).unwrap();
        Command::Describe(Box::new(documents))
    }

    /// `web` and `db` in rack r1, `s1` and `s2` in r2; nobody was heard yet.
    fn cluster() -> ClusterState {
        let mut state = ClusterState::default();
        let nodes = [node("n1", "r1"), node("n2", "r1"), node("s1", "r2"), node("s2", "r2")].concat();
        let instances = [instance("web", "n1", ""), instance("db", "n2", "")].concat();
        let command = described(&[PROVIDER.to_owned(), nodes, instances]);
        state.apply(crate::LogIndex(1), &proposal(command)).unwrap();
        state
    }

    fn told(state: &ClusterState, command: Command) -> Vec<String> {
        gaps(state, &View::default(), &proposal(command)).iter().map(ToString::to_string).collect()
    }

    fn cordon(node: &str) -> Command {
        Command::Cordon { node: node.parse().unwrap(), on: true }
    }

    fn apply(state: &mut ClusterState, command: Command) {
        state.apply(crate::LogIndex(state.applied.0 + 1), &proposal(command)).unwrap();
    }

    #[test]
    fn only_what_was_covered_is_a_gap() {
        let mut state = cluster();
        let domain = "rack/r1: if it were lost at once, no spare would be left for web";
        assert_eq!(told(&state, cordon("s1")), [domain]);
        let delete = |name: &str| Command::Delete {
            what: Object::Node(name.parse().unwrap()),
            reason: "scrapped".to_owned(),
        };
        assert_eq!(told(&state, delete("s1")), [domain]);
        assert_eq!(told(&state, delete("n1")), [""; 0], "refused, for it carries web");
        apply(&mut state, cordon("s1"));
        let missing = "no spare fits; s1: cordoned; s2: cordoned";
        assert_eq!(
            told(&state, cordon("s2")),
            [format!("instance/db: {missing}"), format!("instance/web: {missing}")]
        );
        apply(&mut state, cordon("s2"));
        assert_eq!(told(&state, delete("s2")), [""; 0], "nothing was covered any more");
    }

    #[test]
    fn a_drain_takes_the_spare_that_the_instance_moves_to() {
        let mut state = cluster();
        let drain = |node: &str| Command::Drain {
            node: node.parse().unwrap(),
            reason: "new DIMMs".to_owned(),
            shutdown: Millis(1000),
        };
        assert_eq!(told(&state, drain("n1")), [""; 0], "s2 is left for both");
        apply(&mut state, cordon("s2"));
        let missing = "no spare fits; n1: cordoned; s2: cordoned";
        assert_eq!(
            told(&state, drain("n1")),
            [format!("instance/db: {missing}"), format!("instance/web: {missing}")]
        );
        assert_eq!(told(&state, drain("s1")).len(), 2, "a spare that is drained is one that is cordoned");
    }

    #[test]
    fn what_is_new_or_meant_is_no_gap() {
        let state = cluster();
        let maintain = |node: &str| Command::Maintain {
            node: node.parse().unwrap(),
            reason: Some("new DIMMs".to_owned()),
            until: None,
        };
        assert_eq!(told(&state, maintain("n1")), [""; 0], "that web is left alone is the order itself");
        assert_eq!(told(&state, maintain("s1")).len(), 1);
        // Described anew, n1 is not judged yet.
        let moved = node("n1", "r1").replace("10.0.0.1", "10.0.0.9");
        assert_eq!(told(&state, described(&[moved])), [""; 0]);
        let elsewhere = [node("n3", "r3"), instance("app", "n3", "")];
        assert_eq!(told(&state, described(&elsewhere)), [""; 0]);
        // In the same rack it takes the spare on which another one counted.
        let mut state = ClusterState::default();
        let nodes = [node("n1", "r1"), node("s1", "r2")].concat();
        apply(&mut state, described(&[PROVIDER.to_owned(), nodes, instance("web", "n1", "")]));
        let second = [node("n3", "r1"), instance("app", "n3", "")];
        let domain = "rack/r1: if it were lost at once, no spare would be left for web";
        assert_eq!(told(&state, described(&second)), [domain]);
    }

    #[test]
    fn only_what_may_take_cover_away_can_be_forced_and_once() {
        let mut state = cluster();
        let forced =
            |order: Command| Command::Forced { order: Box::new(order), gaps: vec!["web: x".to_owned()] };
        for order in [Command::Arm { reason: "x".to_owned() }, forced(cordon("s1"))] {
            let (before, index) = (state.clone(), crate::LogIndex(state.applied.0 + 1));
            let refused = state.apply(index, &proposal(forced(order))).unwrap_err();
            assert!(matches!(refused, Rejected::BadValue { .. }), "{refused}");
            state.applied = before.applied;
            assert_eq!(state, before);
        }
        let applied = state.apply(crate::LogIndex(9), &proposal(forced(cordon("s1")))).unwrap();
        let told: Vec<&str> = applied.events.iter().map(|event| event.text.as_str()).collect();
        assert_eq!(told, ["test cordoned s1", "test forced this, although it takes cover away: web: x"]);
        assert!(applied.events.iter().all(|event| event.about == ["node/s1"]));
    }

    #[test]
    fn a_policy_that_only_watches_covers_nothing() {
        let state = cluster();
        let name: crate::PolicyId = "quick".parse().unwrap();
        let policy = state.policies[&name].policy.with([("acting.mode", "shadow")]).unwrap();
        let set = Command::SetPolicy { name, policy: Box::new(policy), check: None, reason: String::new() };
        let told = told(&state, set);
        assert!(
            told.len() == 2 && told.iter().all(|gap| gap.contains("the policy only watches")),
            "{told:?}"
        );
    }
}
