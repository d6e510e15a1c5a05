//! One failover: the fault, and everything that is to be seen until it is over.
//!
//! Why it exists: show, once and bench do the same thing and differ in what they tell of it.
//! What it never does: help the cluster along.

use super::DemoError;
use super::findings::{Failover, Findings, Killed, Machine, Placed, Victim, Writes, handover};
use super::history::suspicions;
use super::kind::Kind;
use super::moments::Point;
use super::narrator::Narrator;
use super::stage::{Stage, keep};
use super::wait::{Look, until};
use crate::rack::array::Handover;
use crate::rack::{Description, Fault, Report};
use policies::{Action, Event, Verdict, causes};
use std::path::PathBuf;
use std::time::Duration;
use supervisor::api::answers::{FailoverDetail, FailoverLine, InstanceDetail, NodeDetail};
use tokio::sync::watch;
use tokio::time::timeout;

/// From the fault to the end of the failover. The slowest kind needs the time after which isolation alone is accepted
/// (2 s with the policy `quick`) or an election, some 4 s in all.
const FAILOVER_MAX: Duration = Duration::from_secs(30);
/// Writes of the new node that are awaited after the first: a second writer would be seen among them.
pub(super) const WRITES_AFTER_MIN: u64 = 50;

/// Lets the first node with an instance fail and waits until the failover is over. If it fails because a process has
/// ended, that is the error.
pub(super) async fn run(stage: &mut Stage, kind: Kind, aloud: bool) -> Result<Findings, DemoError> {
    match strike_and_watch(stage, kind, aloud).await {
        Ok(findings) => Ok(findings),
        Err(error) => Err(stage.check().err().unwrap_or(error)),
    }
}

async fn strike_and_watch(stage: &mut Stage, kind: Kind, aloud: bool) -> Result<Findings, DemoError> {
    let victim = Victim::of(&stage.description)?;
    if let Some(mood) = kind.mood() {
        let ill = stage.rack().fault(&victim.node, Fault::BmcMood { mood }).await;
        ill.map_err(|source| DemoError::Rack { doing: "change the mood of a BMC", source })?;
    }
    let events = stage.history.subscribe();
    let told_before = events.borrow().len();
    let leader = stage.cluster.leader().await?;
    let fault_ns = strike(stage, kind, &victim).await?;
    let fault_at = Point::of_rack(stage.report().await?.started, fault_ns);
    let narrator = aloud.then(|| {
        let logs = stage.cluster.logs();
        Narrator::begin(victim.node.clone(), fault_at, logs, (events.clone(), told_before))
    });
    if let Some(narrator) = &narrator {
        narrator.tell(fault_at, format!("{} {}", victim.node, kind.fault()));
    }
    let mut killed = None;
    if kind.kills_leader() {
        await_fence_intent(&victim, events, told_before).await?;
        let none = || DemoError::Unexpected("there was no leader to be killed".to_owned());
        let member = leader.ok_or_else(none)?;
        stage.cluster.kill(member).await?;
        killed = Some(Killed { member, at: Point::now() });
    }
    let ended = await_end(stage, &victim, fault_ns, narrator.as_ref()).await;
    if let Some(narrator) = narrator {
        narrator.end().await?;
    }
    ended?;
    let findings = gather(stage, kind, victim, fault_ns, killed).await?;
    let text = serde_json::to_string_pretty(&findings)
        .map_err(|error| DemoError::Unexpected(format!("write the findings: {error}")))?;
    keep(&stage.dir().join("findings.json"), &text)?;
    Ok(findings)
}

/// Lets the fault happen; returns when it did, in nanoseconds since the rack's start.
async fn strike(stage: &Stage, kind: Kind, victim: &Victim) -> Result<u64, DemoError> {
    let fault = kind.fault();
    let text = format!("{} {fault}", victim.node);
    let struck = stage.rack().fault(&victim.node, fault).await;
    struck.map_err(|source| DemoError::Rack { doing: "let a fault happen", source })?;
    let report = stage.report().await?;
    let event = report.events.iter().rev().find(|event| event.text == text);
    event
        .map(|event| event.at)
        .ok_or_else(|| DemoError::Unexpected(format!("the rack's report does not say {text:?}")))
}

/// Waits until the cluster has committed that it will switch the node off.
async fn await_fence_intent(
    victim: &Victim,
    mut events: watch::Receiver<Vec<Event>>,
    told_before: usize,
) -> Result<(), DemoError> {
    let intent = Action::PowerOff { node: victim.node.clone(), level: 0 }.to_string();
    let committed =
        events.wait_for(|events| events.iter().skip(told_before).any(|event| event.text.contains(&intent)));
    match timeout(FAILOVER_MAX, committed).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(DemoError::Unexpected("the history of the cluster ended".to_owned())),
        Err(_) => Err(DemoError::Unexpected(format!("waited {FAILOVER_MAX:?} for the intent to {intent}"))),
    }
}

/// Waits until the new node writes, the failover is over, and the new node has gone on writing.
async fn await_end(
    stage: &mut Stage,
    victim: &Victim,
    fault_ns: u64,
    narrator: Option<&Narrator>,
) -> Result<(), DemoError> {
    let log = leader_log(stage).await;
    let what = format!("{} to write again, from a spare", victim.instance);
    let (at, text) = until(&what, FAILOVER_MAX, &log, async || {
        stage.check()?;
        let report = stage.report().await?;
        match handover(&report, &victim.volume, fault_ns) {
            Some(seen) => {
                let at = Point::of_rack(report.started, seen.first_at);
                Ok(Look::There((at, first_write(&stage.description, &report, seen))))
            }
            None => Ok(Look::NotYet(progress(stage).await)),
        }
    })
    .await?;
    if let Some(narrator) = narrator {
        narrator.tell(at, text);
    }
    until("the failover to be over", FAILOVER_MAX, &log, async || {
        stage.check()?;
        let lines: Vec<FailoverLine> = match stage.cluster.get("ask for the failovers", "/v1/failovers").await
        {
            Ok(lines) => lines,
            Err(error) => return Ok(Look::NotYet(causes(&error))),
        };
        match lines.iter().all(|line| line.phase.is_over()) && !lines.is_empty() {
            true => Ok(Look::There(())),
            false => Ok(Look::NotYet(describe(&lines))),
        }
    })
    .await?;
    until("the new node to go on writing", FAILOVER_MAX, &log, async || {
        let report = stage.report().await?;
        let volume = report.volumes.iter().find(|volume| volume.volume == victim.volume);
        let written = volume.and_then(|volume| volume.runs.last()).map_or(0, |run| run.last + 1 - run.first);
        match written >= WRITES_AFTER_MIN {
            true => Ok(Look::There(())),
            false => Ok(Look::NotYet(format!("{written} writes"))),
        }
    })
    .await
}

/// What the array saw when the new node took over.
fn first_write(description: &Description, report: &Report, seen: &Handover) -> String {
    let node = |initiator: &str| {
        let machine = description.machines.iter().find(|machine| machine.initiator == initiator);
        machine.map_or_else(|| initiator.to_owned(), |machine| machine.name.to_string())
    };
    let mut runs = report.volumes.iter().flat_map(|volume| &volume.runs);
    let first = runs.find(|run| run.first_at == seen.first_at && run.initiator == seen.to);
    let first = first.map_or(0, |run| run.first);
    let (from, to, last) = (node(&seen.from), node(&seen.to), first.saturating_sub(1));
    format!("the storage array accepts the first write of {to}: {first}; the last one of {from} was {last}")
}

/// The log of the member that knows most about a failover that does not go on.
async fn leader_log(stage: &Stage) -> PathBuf {
    let leader = stage.cluster.leader().await.ok().flatten();
    let logs = stage.cluster.logs();
    let log = leader.and_then(|leader| logs.get(&leader)).or_else(|| logs.values().next());
    log.cloned().unwrap_or_default()
}

/// How far the cluster is, for an error.
async fn progress(stage: &Stage) -> String {
    match stage.cluster.get::<Vec<FailoverLine>>("ask for the failovers", "/v1/failovers").await {
        Ok(lines) => describe(&lines),
        Err(error) => causes(&error),
    }
}

fn describe(lines: &[FailoverLine]) -> String {
    if lines.is_empty() {
        return "no failover".to_owned();
    }
    let line = |line: &FailoverLine| {
        let stuck = line.stuck.iter().map(|why| format!("stuck: {why}"));
        let why: Vec<String> = stuck.chain(line.waiting.iter().cloned()).collect();
        format!("failover {} is {}: {}", line.id, line.phase, why.join("; "))
    };
    lines.iter().map(line).collect::<Vec<_>>().join(", ")
}

async fn gather(
    stage: &Stage,
    kind: Kind,
    victim: Victim,
    fault_ns: u64,
    killed: Option<Killed>,
) -> Result<Findings, DemoError> {
    let cluster = &stage.cluster;
    let node: NodeDetail = cluster.get("ask for the node", &format!("/v1/nodes/{}", victim.node)).await?;
    let path = format!("/v1/instances/{}", victim.instance);
    let instance: InstanceDetail = cluster.get("ask for the instance", &path).await?;
    let lines: Vec<FailoverLine> = cluster.get("ask for the failovers", "/v1/failovers").await?;
    let mut failovers = Vec::new();
    for line in lines.iter().rev() {
        let path = format!("/v1/failovers/{}", line.id);
        let detail: FailoverDetail = cluster.get("ask for a failover", &path).await?;
        failovers.push(Failover::from(&detail.plan));
    }
    let (report, status) = (stage.report().await?, stage.status().await?);
    let machine = status.machines.get(&victim.node);
    let machine = machine.ok_or_else(|| DemoError::Unexpected(format!("the rack has no {}", victim.node)))?;
    let (record, placed) = (node.record, instance.record);
    let fault_at = Point::of_rack(report.started, fault_ns);
    let machines = stage.description.machines.iter();
    Ok(Findings {
        kind,
        suspected: suspicions(&cluster.logs(), &victim.node, fault_at),
        judged: matches!(record.verdict, Verdict::Failed(_)).then_some(Point::of(record.judged)),
        initiators: machines.map(|machine| (machine.name.clone(), machine.initiator.clone())).collect(),
        victim,
        started: report.started,
        fault_ns,
        killed,
        failovers,
        placed: Placed { node: placed.node, epoch: placed.epoch },
        machine: Machine { life: machine.life, reported: machine.reported },
        writes: Writes {
            lost: report.lost_writes,
            overlapping: report.overlapping_writes,
            volumes: report.volumes,
        },
    })
}
