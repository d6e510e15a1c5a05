//! Did the failover keep every promise?
//!
//! What this is: a pure function of the findings to the list of broken promises, each as a sentence.
//! Why it exists: "it looked good" is no proof. The array saw every write, the rack knows what the machine really did,
//! and the cluster's committed record says what was believed; all three have to fit.
//! What it never does: it excuses nothing.

use super::failover::WRITES_AFTER_MIN;
use super::findings::Findings;
use super::kind::Kind;
use crate::rack::Life;
use policies::{Accepted, FenceProof, Phase, Plan, Power};
use std::collections::BTreeSet;

/// All broken promises; empty if the failover is as it should be.
pub(super) fn broken(findings: &Findings) -> Vec<String> {
    let mut broken = Vec::new();
    let mut check = |holds: bool, sentence: String| {
        if !holds {
            broken.push(sentence);
        }
    };
    let [plan] = findings.plans.as_slice() else {
        let ids: Vec<String> = findings.plans.iter().map(|plan| plan.id.to_string()).collect();
        return vec![format!(
            "there must be exactly one failover, but there are {}: {}",
            ids.len(),
            ids.join(", ")
        )];
    };
    let (victim, placed) = (&findings.victim, &findings.placed);
    check(plan.phase == Phase::Done, format!("failover {} is not done but {}", plan.id, plan.phase));
    check(
        plan.decision.from == victim.node && plan.decision.instance.as_ref() == Some(&victim.instance),
        format!("failover {} does not move {} off {}", plan.id, victim.instance, victim.node),
    );
    check(
        plan.decision.spare.as_ref() == Some(&placed.node) && placed.epoch == plan.epoch,
        format!(
            "{} belongs to {} in {}, which is not what was planned",
            victim.instance, placed.node, placed.epoch
        ),
    );
    check(
        findings.report.lost_writes == 0,
        format!("{} acknowledged writes were lost", findings.report.lost_writes),
    );
    check(
        findings.report.overlapping_writes == 0,
        format!("{} writes came from two writers at once", findings.report.overlapping_writes),
    );
    broken.extend(writers(findings));
    broken.extend(neighbours(findings));
    broken.extend(of_this_kind(findings, plan));
    broken
}

/// The volume went from the old node to the new one once, without a gap, and the new one goes on writing.
fn writers(findings: &Findings) -> Option<String> {
    let initiator = |node| findings.initiators.get(node).map_or("", String::as_str);
    let (old, new) = (initiator(&findings.victim.node), initiator(&findings.placed.node));
    let volume = findings.volume()?;
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
    let others = findings.report.volumes.iter().filter(|volume| volume.volume != findings.victim.volume);
    let touched = others.filter(|volume| !volume.handovers.is_empty() || volume.runs.len() != 1);
    touched.map(|volume| format!("{} changed hands, and nothing had happened to it", volume.volume)).collect()
}

/// What must hold because of what happened to the node.
fn of_this_kind(findings: &Findings, plan: &Plan) -> Vec<String> {
    let node = &findings.victim.node;
    let Some(machine) = findings.machine() else { return vec![format!("the rack knows no {node}")] };
    let accepted = plan.proof.as_ref().map(FenceProof::accepted);
    let by_power = matches!(accepted, Some(Accepted::PowerAndIsolation));
    let by_isolation = matches!(accepted, Some(Accepted::IsolationAlone { .. }));
    let is_off = machine.life == Life::Off;
    let mut broken = Vec::new();
    let mut check = |holds: bool, sentence: String| {
        if !holds {
            broken.push(sentence);
        }
    };
    match findings.kind {
        Kind::Hang | Kind::Partition | Kind::LeaderDeath => {
            check(is_off, format!("{node} was to be switched off, but it is {:?}", machine.life));
            check(by_power, format!("the proof was to rest on power and isolation, but it is {accepted:?}"));
        }
        Kind::PowerLoss => {
            check(by_isolation, format!("the proof was to rest on isolation alone, but it is {accepted:?}"));
        }
        Kind::LyingBmc => {
            let lied = machine.life == Life::Running && machine.reported == Power::Off;
            check(
                lied,
                format!(
                    "the BMC was to lie, but {node} is {:?} and reads {:?}",
                    machine.life, machine.reported
                ),
            );
            check(by_power, format!("the lie was to be believed, but the proof is {accepted:?}"));
        }
    }
    if findings.kind.writes_on() {
        let wrote_on = findings.handover().is_some_and(|handover| handover.last_at > findings.fault_ns);
        check(wrote_on, format!("{node} was to go on writing after the fault, but it did not"));
    }
    if findings.kind.kills_leader() {
        check(
            was_taken_over(plan),
            "the failover was to be finished by another leader than began it, but was not".to_owned(),
        );
    }
    broken
}

/// True if one leadership began it and a later one went on.
fn was_taken_over(plan: &Plan) -> bool {
    let leaders: BTreeSet<_> = plan.intents.iter().map(|intent| intent.leader).collect();
    leaders.len() >= 2 && plan.intents.first().map(|intent| intent.leader) == leaders.first().copied()
}
