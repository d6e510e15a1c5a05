//! Did the failover keep every promise?
//!
//! What this is: a pure function of the findings to the list of broken promises, each as a sentence.
//! Why it exists: "it looked good" is no proof. The array saw every write, the rack knows what the machine really did,
//! and the cluster's committed record says what was believed; all three have to fit.
//! What it never does: it excuses nothing.

use super::failover::WRITES_AFTER_MIN;
use super::findings::{Failover, Findings, Machine};
use super::kind::Kind;
use crate::rack::Life;
use policies::{Accepted, Phase, Power};
use std::collections::BTreeSet;

/// All broken promises; empty if the failover is as it should be.
pub(super) fn broken(findings: &Findings) -> Vec<String> {
    let mut broken = Vec::new();
    let mut check = |holds: bool, sentence: String| {
        if !holds {
            broken.push(sentence);
        }
    };
    let [failover] = findings.failovers.as_slice() else {
        let ids: Vec<String> = findings.failovers.iter().map(|failover| failover.id.to_string()).collect();
        return vec![format!(
            "there must be exactly one failover, but there are {}: {}",
            ids.len(),
            ids.join(", ")
        )];
    };
    let (victim, placed, id) = (&findings.victim, &findings.placed, failover.id);
    check(failover.phase == Phase::Done, format!("failover {id} is not done but {}", failover.phase));
    check(
        failover.from == victim.node && failover.instance.as_ref() == Some(&victim.instance),
        format!("failover {id} does not move {} off {}", victim.instance, victim.node),
    );
    check(
        failover.spare.as_ref() == Some(&placed.node) && placed.epoch == failover.epoch,
        format!(
            "{} belongs to {} in {}, which is not what was planned",
            victim.instance, placed.node, placed.epoch
        ),
    );
    let (lost, overlapping) = (findings.writes.lost, findings.writes.overlapping);
    check(lost == 0, format!("{lost} acknowledged writes were lost"));
    check(overlapping == 0, format!("{overlapping} writes came from two writers at once"));
    broken.extend(writers(findings));
    broken.extend(neighbours(findings));
    broken.extend(of_this_kind(findings, failover));
    broken
}

/// The volume went from the old node to the new one once, without a gap, and the new one goes on writing.
fn writers(findings: &Findings) -> Option<String> {
    let initiator = |node| findings.initiators.get(node).map_or("", String::as_str);
    let (old, new) = (initiator(&findings.victim.node), initiator(&findings.placed.node));
    let Some(volume) = findings.volume() else {
        return Some(format!("the array knows no {}", findings.victim.volume));
    };
    let volume_name = &volume.volume;
    let [before, after] = volume.runs.as_slice() else {
        let writers: Vec<&str> = volume.runs.iter().map(|run| run.initiator.as_str()).collect();
        return Some(format!(
            "{volume_name} was to go from {old} to {new}, but was written by {}",
            writers.join(", ")
        ));
    };
    if before.initiator != old || after.initiator != new {
        let (from, to) = (&before.initiator, &after.initiator);
        return Some(format!("{volume_name} went from {from} to {to} and not from {old} to {new}"));
    }
    if after.first != before.last + 1 {
        return Some(format!(
            "{new} went on at {} and not after {}, the last write of {old}",
            after.first, before.last
        ));
    }
    let written = after.last + 1 - after.first;
    (written < WRITES_AFTER_MIN).then(|| format!("{new} wrote only {written} times"))
}

/// Nobody else was touched.
fn neighbours(findings: &Findings) -> Vec<String> {
    let others = findings.writes.volumes.iter().filter(|volume| volume.volume != findings.victim.volume);
    let touched = others.filter(|volume| !volume.handovers.is_empty() || volume.runs.len() != 1);
    touched.map(|volume| format!("{} changed hands, and nothing had happened to it", volume.volume)).collect()
}

/// What must hold because of what happened to the node.
fn of_this_kind(findings: &Findings, failover: &Failover) -> Vec<String> {
    let node = &findings.victim.node;
    let Machine { life, reported } = findings.machine;
    let accepted = failover.proof.as_ref().map(|(accepted, _)| accepted);
    let by_power = matches!(accepted, Some(Accepted::PowerAndIsolation));
    let by_isolation = matches!(accepted, Some(Accepted::IsolationAlone { .. }));
    let mut broken = Vec::new();
    let mut check = |holds: bool, sentence: String| {
        if !holds {
            broken.push(sentence);
        }
    };
    match findings.kind {
        Kind::Hang | Kind::Partition | Kind::LeaderDeath => {
            check(life == Life::Off, format!("{node} was to be switched off, but it is {life:?}"));
            check(by_power, format!("the proof was to rest on power and isolation, but it is {accepted:?}"));
        }
        Kind::PowerLoss => {
            check(by_isolation, format!("the proof was to rest on isolation alone, but it is {accepted:?}"));
        }
        Kind::LyingBmc => {
            let lied = life == Life::Running && reported == Power::Off;
            check(lied, format!("the BMC was to lie, but {node} is {life:?} and reads {reported:?}"));
            check(by_power, format!("the lie was to be believed, but the proof is {accepted:?}"));
        }
    }
    if findings.kind.writes_on() {
        let wrote_on = findings.handover().is_some_and(|handover| handover.last_at > findings.fault_ns);
        check(wrote_on, format!("{node} was to go on writing after the fault, but it did not"));
    }
    if findings.kind.kills_leader() {
        check(
            was_taken_over(failover),
            "the failover was to be finished by another leader than began it, but was not".to_owned(),
        );
    }
    broken
}

/// True if one leadership began it and a later one went on.
fn was_taken_over(failover: &Failover) -> bool {
    let leaders: BTreeSet<_> = failover.steps.iter().map(|step| step.leader).collect();
    leaders.len() >= 2 && failover.steps.first().map(|step| step.leader) == leaders.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::findings::tests::hang;
    use policies::LeaderEpoch;

    /// The one sentence that is said after this change.
    fn said(change: impl FnOnce(&mut Findings)) -> String {
        let mut findings = hang();
        change(&mut findings);
        let broken = broken(&findings);
        assert_eq!(broken.len(), 1, "{broken:?}");
        broken.concat()
    }

    #[test]
    fn a_failover_that_kept_every_promise_breaks_none() {
        assert_eq!(broken(&hang()), Vec::<String>::new());
    }

    #[test]
    fn every_broken_promise_of_the_cluster_is_said() {
        let twice = said(|findings| findings.failovers.push(findings.failovers[0].clone()));
        assert!(twice.contains("exactly one failover, but there are 2"), "{twice}");
        let never = said(|findings| findings.failovers.clear());
        assert!(never.contains("there are 0"), "{never}");
        let open = said(|findings| findings.failovers[0].phase = Phase::Starting);
        assert!(open.contains("is not done but starting"), "{open}");
        let other = said(|findings| findings.failovers[0].from = "node-2".parse().unwrap());
        assert!(other.contains("does not move web-1 off node-1"), "{other}");
        let epoch = said(|findings| findings.placed.epoch.0 += 1);
        assert!(epoch.contains("in e3, which is not what was planned"), "{epoch}");
    }

    #[test]
    fn every_broken_promise_about_the_writes_is_said() {
        assert_eq!(said(|findings| findings.writes.lost = 3), "3 acknowledged writes were lost");
        let overlap = said(|findings| findings.writes.overlapping = 1);
        assert_eq!(overlap, "1 writes came from two writers at once");
        let back = said(|findings| {
            let runs = &mut findings.writes.volumes[0].runs;
            runs.push(runs[0].clone());
        });
        assert!(back.contains("was written by"), "{back}");
        let gap = said(|findings| findings.writes.volumes[0].runs[1].first += 1);
        assert!(gap.contains("and not after"), "{gap}");
        let short = said(|findings| {
            let run = &mut findings.writes.volumes[0].runs[1];
            run.last = run.first;
        });
        assert!(short.contains("wrote only 1 times"), "{short}");
        let neighbour = said(|findings| {
            let handovers = findings.writes.volumes[0].handovers.clone();
            findings.writes.volumes[1].handovers = handovers;
        });
        assert!(neighbour.contains("vol-2 changed hands"), "{neighbour}");
    }

    #[test]
    fn each_kind_has_promises_of_its_own() {
        let on = said(|findings| findings.machine.life = Life::Hung);
        assert_eq!(on, "node-1 was to be switched off, but it is Hung");
        let proof = said(|findings| findings.kind = Kind::PowerLoss);
        assert!(proof.contains("isolation alone, but it is Some(PowerAndIsolation)"), "{proof}");
        let honest = said(|findings| {
            findings.kind = Kind::LyingBmc;
            findings.writes.volumes[0].handovers[0].last_at = findings.fault_ns + 1;
        });
        assert!(honest.contains("the BMC was to lie, but node-1 is Off"), "{honest}");
        let still = said(|findings| {
            findings.kind = Kind::Partition;
            findings.writes.volumes[0].handovers[0].last_at = findings.fault_ns - 1;
        });
        assert!(still.contains("was to go on writing after the fault"), "{still}");
        let alone = said(|findings| findings.kind = Kind::LeaderDeath);
        assert!(alone.contains("finished by another leader"), "{alone}");
    }

    #[test]
    fn a_failover_that_a_later_leadership_finished_was_taken_over() {
        let mut failover = hang().failovers.remove(0);
        assert!(!was_taken_over(&failover));
        let later = LeaderEpoch(failover.steps[0].leader.0 + 5);
        failover.steps.last_mut().unwrap().leader = later;
        assert!(was_taken_over(&failover));
    }
}
