//! The simulator's checkers, judging a real run.
//!
//! Why it exists: one statement of each property, wherever it is tried.
//! What it never does: leave a checker out without saying why; a test compares both lists with all there are.

use crate::checkers::{Court, Fact, all};

/// Those that judge real runs.
const USED: [&str; 14] = [
    "writer",
    "identity",
    "attach",
    "intent",
    "plans",
    "brakes",
    "bystander",
    "quarantine",
    "log",
    "acknowledged",
    "linear",
    "explained",
    "insists",
    "record",
];

/// Everything that does not hold, in words; the first is the cause, the others may be its consequences.
pub(super) fn broken(trail: &Result<Vec<(u64, Fact)>, String>) -> Vec<String> {
    let trail = match trail {
        Ok(trail) => trail,
        Err(why) => return vec![format!("the audit trail is whole and can be read: {why}")],
    };
    let mut court = Court::new(all().into_iter().filter(|checker| USED.contains(&checker.name())).collect());
    for (at, fact) in trail {
        court.hear(*at, fact);
    }
    court.end(trail.last().map_or(0, |(at, _)| *at));
    court.violations.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::calm::{calm, name};
    use crate::field::facts::Facts;
    use crate::field::notes::{self, Acked};
    use crate::field::trail::trail;
    use crate::rack::{Change, Noted};
    use policies::{
        Cause, ClusterState, Command, Evidence, LogIndex, MemberId, Millis, NodeId, PlanId, Proposal,
        SnapshotName, Step, Verdict, Wall,
    };
    use provisioning::rack::{PortChange, PortSetting, SnapshotChange, VolumeChange};
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    /// What a checker says after a change of one thing.
    fn said(checker: &str, change: impl FnOnce(&mut Facts)) -> String {
        let mut facts = calm();
        change(&mut facts);
        let said = broken(&trail(&facts));
        let ours = said.iter().find_map(|what| Some(what.split_once(&format!(" s, {checker}: "))?.1));
        ours.unwrap_or_else(|| panic!("{checker} was to object, but: {said:?}")).to_owned()
    }

    /// Something more happens in the rack when all is over.
    fn then(facts: &mut Facts, changes: impl IntoIterator<Item = Change>) {
        let at = facts.report.now;
        facts.journal.changes.extend(changes.into_iter().map(|change| Noted { at, change }));
    }

    /// A leader writes so many steps more, each made of its number.
    fn leader_goes_on(facts: &mut Facts, number: u32, step: impl Fn(u32) -> Step) {
        edit(facts, |entries| {
            let (last, proposal) = entries.iter().next_back().unwrap();
            let (last, proposal) = (last.0, Proposal::clone(proposal));
            let Command::Lead { leader, .. } = proposal.command else { panic!("{proposal:?}") };
            for more in 1..=number {
                let next =
                    Proposal { command: Command::Lead { leader, step: step(more) }, ..proposal.clone() };
                entries.insert(LogIndex(last + u64::from(more)), Arc::new(next));
            }
        });
    }

    /// All members have other entries.
    fn edit(facts: &mut Facts, edit: impl Fn(&mut BTreeMap<LogIndex, Arc<Proposal>>)) {
        facts.logs.values_mut().for_each(|log| edit(&mut log.entries));
    }

    /// The place of the first entry like this.
    fn place(facts: &Facts, like: impl Fn(&Step) -> bool) -> LogIndex {
        let lead = |proposal: &Proposal| {
            let Command::Lead { step, .. } = &proposal.command else { return false };
            like(step)
        };
        let mut entries = facts.logs[&MemberId(1)].entries.iter();
        *entries.find(|(_, proposal)| lead(proposal)).unwrap().0
    }

    /// All members begin with the state as of this entry, after a change that no entry could make.
    fn begin_with(facts: &mut Facts, upto: LogIndex, change: impl Fn(&mut ClusterState)) {
        for log in facts.logs.values_mut() {
            let later = log.entries.split_off(&LogIndex(upto.0 + 1));
            let mut state = ClusterState::default();
            for (index, proposal) in std::mem::replace(&mut log.entries, later) {
                state.apply(index, &proposal).unwrap();
            }
            change(&mut state);
            log.begins = Arc::new(state);
        }
    }

    fn initiator(facts: &Facts, node: &str) -> String {
        facts.initiators[&name::<NodeId>(node)].clone()
    }

    fn port(facts: &Facts, node: &str) -> String {
        facts.ports.iter().find(|(_, behind)| behind.as_str() == node).unwrap().0.clone()
    }

    #[test]
    fn a_calm_run_is_beyond_reproach() {
        assert_eq!(broken(&trail(&calm())), Vec::<String>::new());
    }

    #[test]
    fn every_checker_judges_real_runs_or_the_guide_says_why_not() {
        let all: BTreeSet<&str> = all().iter().map(|checker| checker.name()).collect();
        let unused = ["deposed", "drained", "healthy"];
        assert_eq!(all, USED.into_iter().chain(unused).collect());
        let guide = include_str!("../../../docs/CHAOS.md");
        for name in unused {
            assert!(
                guide.contains(&format!("* `{name}`:")),
                "docs/CHAOS.md does not say why {name} is not used"
            );
        }
    }

    #[test]
    fn two_writers_are_seen_by_their_rights_and_by_their_writes() {
        let right = said("writer", |facts| {
            let initiator = initiator(facts, "node-3");
            then(facts, [Change::Reach { volume: name("vol-2"), initiator, open: true }]);
        });
        assert!(right.starts_with("vol-2 can be written by"), "{right}");
        let write = said("writer", |facts| {
            facts.report.volumes[0].runs[1].initiator = initiator(facts, "node-2");
        });
        assert!(write.starts_with("vol-1 can be written by"), "{write}");
    }

    #[test]
    fn two_bearers_of_one_identity_are_seen() {
        let said = said("identity", |facts| {
            let mut ports = facts.journal.changes.iter().filter_map(|noted| {
                let Change::Port { port, change } = &noted.change else { return None };
                Some((port, change.setting.clone()))
            });
            let home = port(facts, "node-1");
            let (_, setting) = ports.find(|(port, _)| **port == home).unwrap();
            let change = PortChange { setting, token: LogIndex(0) };
            let port = port(facts, "node-2");
            then(facts, [Change::Port { port, change }]);
        });
        assert_eq!(said, "node-2 and node-3 are both in vlan 1");
    }

    #[test]
    fn what_is_given_without_proof_is_seen() {
        let still_writes = said("attach", |facts| {
            facts.journal.changes.retain(|noted| !matches!(&noted.change, Change::Reach { open: false, .. }));
        });
        assert!(still_writes.contains("is proven, but node-1 can still write vol-1"), "{still_writes}");
        let off_once = said("attach", |facts| {
            let told = |noted: &Noted| matches!(&noted.change, Change::Told { on: false, .. });
            let first = facts.journal.changes.iter().position(told).unwrap();
            facts.journal.changes.remove(first);
        });
        assert!(off_once.ends_with("says that node-1 was seen off twice; nobody has"), "{off_once}");
        let open = said("attach", |facts| {
            let closes = |change: &PortChange| change.token.0 > 0 && change.setting == PortSetting::Closed;
            facts
                .journal
                .changes
                .retain(|noted| !matches!(&noted.change, Change::Port { change, .. } if closes(change)));
        });
        assert!(open.ends_with("is proven, but the port of node-1 is open"), "{open}");
        let stranger = said("attach", |facts| {
            let change = VolumeChange::Attach { initiator: initiator(facts, "node-2"), token: LogIndex(5) };
            then(facts, [Change::Volume { volume: name("vol-1"), change }]);
        });
        assert_eq!(stranger, "`attach vol-1 to node-2` was sent without any proven plan for it");
        let torn = said("attach", |facts| {
            let change =
                SnapshotChange { name: SnapshotName::Failover(PlanId(6)), keep: 2, token: LogIndex(5) };
            then(facts, [Change::Snapshot { volume: name("vol-1"), change }]);
        });
        assert_eq!(torn, "the state of vol-1 is kept while node-3 can write to it");
    }

    #[test]
    fn what_nobody_intended_is_seen_and_what_was_done_before_it_was_committed() {
        let other_token = said("intent", |facts| {
            let mut changes = facts.journal.changes.iter_mut();
            let token = changes.find_map(|noted| {
                let Change::Boot { change, .. } = &mut noted.change else { return None };
                Some(&mut change.token)
            });
            token.unwrap().0 += 1;
        });
        assert!(other_token.starts_with("m1 sent `let node-3 boot web-1 e2`"), "{other_token}");
        let too_early = said("intent", |facts| {
            let mut changes = facts.journal.changes.iter_mut();
            let off = changes.find(|noted| matches!(&noted.change, Change::Commanded { on: false, .. }));
            // The intent has been proposed 10 ms before.
            off.unwrap().at -= 11_000_000;
        });
        assert!(too_early.starts_with("m1 sent `power off node-1` (None) without"), "{too_early}");
    }

    #[test]
    fn two_plans_for_one_node_are_seen() {
        let said = said("plans", |facts| {
            let begun = place(facts, |step| matches!(step, Step::Begin(_)));
            begin_with(facts, begun, |state| {
                let mut second = state.plans[&PlanId(begun.0)].clone();
                second.id = PlanId(1);
                state.plans.insert(second.id, second);
            });
        });
        assert_eq!(said, "node-1 takes part in two plans, one of them f6");
    }

    #[test]
    fn too_many_fences_are_seen() {
        let said = said("brakes", |facts| {
            let begun = place(facts, |step| matches!(step, Step::Begin(_)));
            begin_with(facts, begun, |state| {
                let policy = state.policies.get_mut(&name("cautious")).unwrap();
                policy.policy.brakes.fences_per_10min_max = 0;
            });
        });
        assert!(said.contains("were fenced within ten minutes, at most 0 may be"), "{said}");
    }

    #[test]
    fn a_bystander_who_is_switched_off_is_seen() {
        let said = said("bystander", |facts| {
            let node: NodeId = name("node-2");
            let off = Change::Commanded { node: node.clone(), on: false };
            then(facts, [off, Change::Power { node, on: false }]);
        });
        assert_eq!(said, "node-2 was switched off although web-2 belongs to it");
    }

    #[test]
    fn a_quarantined_node_that_is_switched_on_is_seen() {
        let said = said("quarantine", |facts| {
            then(facts, [Change::Commanded { node: name("node-1"), on: true }]);
        });
        assert!(said.starts_with("`power on node-1` was sent although it is quarantined"), "{said}");
    }

    #[test]
    fn members_that_remember_different_logs_are_seen() {
        let said = said("log", |facts| {
            let log = facts.logs.get_mut(&MemberId(3)).unwrap();
            let (index, proposal) = log.entries.iter().next_back().unwrap();
            let other = Proposal { by: "member/m3".to_owned(), ..Proposal::clone(proposal) };
            let index = *index;
            log.entries.insert(index, Arc::new(other));
        });
        assert!(said.starts_with("m3 applied another entry at "), "{said}");
    }

    #[test]
    fn an_acknowledged_order_that_is_not_there_is_seen() {
        let another = said("acknowledged", |facts| {
            facts.acked[0].order = notes::order(name("note-2")).unwrap();
        });
        assert!(another.ends_with("something else is there"), "{another}");
        let lost = said("acknowledged", |facts| facts.acked[0].index = LogIndex(1000));
        assert!(lost.starts_with("i1000 was acknowledged, but the log ends at"), "{lost}");
    }

    /// Its first answer was lost with a leader, the client gave it again, and the API let it rest on the first one.
    #[test]
    fn an_order_that_was_given_again_is_the_same_order() {
        let mut facts = calm();
        let index = facts.acked[0].index;
        edit(&mut facts, |entries| {
            let mut again = Proposal::clone(&entries[&index]);
            let Command::SetPolicy { check, .. } = &mut again.command else { panic!("{again:?}") };
            *check = Some(LogIndex(0));
            entries.insert(index, Arc::new(again));
        });
        assert_eq!(broken(&trail(&facts)), Vec::<String>::new());
    }

    #[test]
    fn an_order_that_overtook_an_older_one_is_seen() {
        let said = said("linear", |facts| {
            let first = facts.acked[0].clone();
            let (asked, answered) = (first.answered + 1, first.answered + 2);
            facts.acked.push(Acked { index: LogIndex(first.index.0 - 1), asked, answered, ..first });
        });
        assert_eq!(said, "request 2 got i3, but i4 was complete before");
    }

    #[test]
    fn a_failed_node_about_which_nothing_is_said_is_seen() {
        let said = said("explained", |facts| {
            leader_goes_on(facts, 61, |dead| {
                let evidence = Evidence { dead, ..Evidence::default() };
                Step::Judge { node: name("node-2"), verdict: Verdict::Failed(Cause::Silent), evidence }
            });
        });
        assert_eq!(said, "web-2 should leave node-2, and nothing says why it does not");
    }

    #[test]
    fn a_leader_that_insists_is_seen() {
        let said = said("insists", |facts| {
            leader_goes_on(facts, 31, |_| Step::Finish { plan: PlanId(1), seen: "nothing".to_owned() });
        });
        assert!(said.contains("was refused 31 times"), "{said}");
    }

    #[test]
    fn a_decision_without_its_grounds_is_seen() {
        let said = said("record", |facts| {
            let begun = place(facts, |step| matches!(step, Step::Begin(_)));
            edit(facts, |entries| {
                let mut proposal = Proposal::clone(&entries[&begun]);
                if let Command::Lead { step: Step::Begin(decision), .. } = &mut proposal.command {
                    decision.gates.clear();
                }
                entries.insert(begun, Arc::new(proposal));
            });
        });
        assert_eq!(said, "f6 names no gate");
    }

    #[test]
    fn a_trail_that_is_not_whole_or_names_strangers_is_said() {
        let said = |change: fn(&mut Facts)| {
            let mut facts = calm();
            change(&mut facts);
            broken(&trail(&facts)).concat()
        };
        assert!(said(|facts| facts.journal.forgotten = 1).ends_with("the rack has forgotten 1 changes"));
        let stranger = said(|facts| facts.report.volumes[0].runs[0].initiator = "iqn.x".to_owned());
        assert!(stranger.ends_with("the array speaks of \"iqn.x\", which is no node's"), "{stranger}");
        let port = said(|facts| facts.ports.clear());
        assert!(port.contains("behind which no node is"), "{port}");
    }

    #[test]
    fn clocks_that_are_days_off_move_nothing() {
        let times = |facts: &Facts| trail(facts).unwrap().into_iter().map(|(at, _)| at).collect::<Vec<_>>();
        let mut facts = calm();
        let straight = times(&facts);
        edit(&mut facts, |entries| {
            for (index, proposal) in entries {
                let days = Millis(5 * 24 * 3600 * 1000).0;
                let at = if index.0 % 2 == 0 { proposal.at.0 + days } else { proposal.at.0 - 2 * days };
                *proposal = Arc::new(Proposal { at: Wall(at), ..Proposal::clone(proposal) });
            }
        });
        assert_eq!(times(&facts), straight);
    }

    #[test]
    fn what_bears_a_token_comes_after_its_entry() {
        let mut facts = calm();
        for noted in &mut facts.journal.changes {
            if matches!(&noted.change, Change::Boot { .. }) {
                // Its intent was proposed 10 ms before: the stamp is rounded, the token is not.
                noted.at -= 10_500_000;
            }
        }
        facts.journal.changes.make_contiguous().sort_by_key(|noted| noted.at);
        assert_eq!(broken(&trail(&facts)), Vec::<String>::new());
    }
}
