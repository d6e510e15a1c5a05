//! What can go wrong in the lab, one by one, and what must come of it.
//!
//! Why it exists: `make lab-test`. What it never does: look into the product; it asks clients, volumes and the API.
//!
//! After each the instance serves at its address in a newer epoch, its count goes on, and its volume shows that each count was
//! written once and none by an older epoch after a newer one.

use super::client::ask;
use super::fabric::{Card, Fabric};
use super::lab::{COUNTS_AFTER_MIN, Lab, START_DEADLINE, node};
use super::ledger;
use super::moving::Moving;
use crate::demo::DemoError;
use crate::demo::process::Process;
use crate::demo::tally::Tally;
use crate::demo::wait::Look;
use crate::field::control;
use crate::rack::{Fault, MoodChange};
use clap::ValueEnum;
use nix::sys::signal::Signal;
use policies::{Action, Intent, Millis, NodeState, Outcome, Phase, Seen, Verdict, causes};
use std::fmt;
use std::path::Path;
use std::time::Instant;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Trial {
    /// All processors of the node stand still
    Hang,
    /// Its kernel panics
    Panic,
    /// The cable of its storage, heartbeats and start is pulled
    StorageCable,
    /// All its cables are pulled
    AllCables,
    /// Its BMC dies, and nothing else
    BmcDies,
    /// It loses its power supply, and its BMC with it
    PowerLoss,
    /// It hangs, and its BMC takes 3 s to switch off
    BmcLate,
    /// It hangs, and its BMC accepts to switch off and does not
    BmcIgnores,
    /// It hangs, and its BMC says that it is off and is not
    BmcLies,
    /// It hangs with a dead BMC, and goes on when its instance is elsewhere
    Thaw,
    /// It hangs while the switch does not answer
    SwitchAway,
    /// It hangs while the storage host does not answer
    StorageAway,
    /// It hangs, and the leader dies when it has begun to fence
    LeaderDiesFencing,
    /// It hangs, and the leader dies when it has proof
    LeaderDiesMoving,
    /// It hangs, and the leader dies when it has begun to start the spare
    LeaderDiesStarting,
    /// Its kernel panics, and what it said last is kept with the failover
    Console,
    /// Two nodes hang at once
    TwoAtOnce,
    /// An operator drains it: its system shuts down by itself
    Drain,
    /// It hangs, and the spare waits hot
    Hot,
    /// The same, and the leader dies when it has told the spare to go on
    HotLeaderDies,
    /// It hangs, and so does the spare that waits hot when it is told to go on: it is started cold
    HotSpareHangs,
    /// It hangs, and the spare dies with its BMC while it starts
    SpareDies,
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

/// Runs these in a lab that is up, a line for each; between them everything is made whole.
///
/// # Errors
/// [`DemoError::DidNotHold`] if one of them did not hold; the lab itself stops the rest.
pub async fn test(lab: &mut Lab, trials: &[Trial], dir: &Path, tell: &dyn Fn(&str)) -> Result<(), DemoError> {
    let mut tally = Tally::new(tell);
    for trial in trials {
        tally.run(trial, trial.run(lab)).await;
        lab.repair().await?;
        lab.check()?;
    }
    tally.end(dir)
}

/// One failover, with its phases by the record of the cluster.
///
/// # Errors
/// [`DemoError`] if it does not come about.
pub async fn demo(lab: &mut Lab, tell: &dyn Fn(&str)) -> Result<(), DemoError> {
    let (machine, _) = lab.placed(1).await?;
    tell(&format!(
        "web-1 counts on its volume, served by node-{machine}; now all processors of that stand still"
    ));
    let began = Instant::now();
    let seen = Trial::Hang.run(lab).await?;
    tell(&format!("{seen}, after {:.1} s; hactl failover show says:", began.elapsed().as_secs_f64()));
    let newest = lab.members.failovers().await?.iter().map(|line| line.id).max();
    let newest = newest.ok_or_else(|| DemoError::Unexpected("there was no failover".to_owned()))?;
    tell(lab.members.cluster.hactl(["failover", "show", &newest.to_string()]).await?.trim_end());
    Ok(())
}

impl Trial {
    async fn run(self, lab: &mut Lab) -> Result<String, DemoError> {
        match self {
            Trial::BmcDies => bmc_dies(lab).await,
            Trial::TwoAtOnce => two_at_once(lab).await,
            Trial::Drain => drain(lab).await,
            Trial::Console => console(lab).await,
            Trial::Hot => hot(lab, Trial::Hang).await,
            Trial::HotLeaderDies => hot(lab, Trial::HotLeaderDies).await,
            Trial::HotSpareHangs => hot_spare_hangs(lab).await,
            Trial::SpareDies => spare_dies(lab).await,
            Trial::Thaw => thaw(lab).await,
            Trial::Hang
            | Trial::Panic
            | Trial::StorageCable
            | Trial::AllCables
            | Trial::PowerLoss
            | Trial::BmcLate
            | Trial::BmcIgnores
            | Trial::BmcLies
            | Trial::SwitchAway
            | Trial::StorageAway
            | Trial::LeaderDiesFencing
            | Trial::LeaderDiesMoving
            | Trial::LeaderDiesStarting => {
                let moving = Moving::begin(lab, 1).await?;
                self.strike(lab, moving.from).await?;
                moving.end(lab).await.map(|moved| moved.to_string())
            }
        }
    }

    /// What befalls the node, and whoever has to deal with it.
    pub(super) async fn strike(self, lab: &mut Lab, machine: u8) -> Result<(), DemoError> {
        let hang = Fault::Hang;
        match self {
            Trial::Hang => lab.fault(machine, hang).await,
            Trial::Panic => lab.fault(machine, Fault::Panic { gasp: false }).await,
            Trial::StorageCable => Fabric::plug(machine, Card::Infra, false),
            Trial::AllCables => Card::ALL.into_iter().try_for_each(|card| Fabric::plug(machine, card, false)),
            Trial::PowerLoss => lab.fault(machine, Fault::PowerLoss).await,
            Trial::BmcLate => {
                lab.mood(machine, MoodChange::OffDelay(Millis(3_000))).await?;
                lab.fault(machine, hang).await
            }
            Trial::BmcIgnores => {
                lab.mood(machine, MoodChange::IgnoreOff).await?;
                lab.fault(machine, hang).await
            }
            Trial::BmcLies => {
                lab.mood(machine, MoodChange::Lying).await?;
                lab.fault(machine, hang).await
            }
            Trial::SwitchAway => {
                stop(&lab.fabric.database)?;
                let waited = waits_for(lab, machine, "close port").await;
                go_on(&lab.fabric.database)?;
                waited
            }
            Trial::StorageAway => {
                stop(&lab.storage.daemon)?;
                let waited = waits_for(lab, machine, "revoke").await;
                go_on(&lab.storage.daemon)?;
                waited
            }
            Trial::LeaderDiesFencing => {
                let intent = Action::PowerOff { node: node(machine)?, level: 0 }.to_string();
                leader_dies(lab, machine, &intent).await
            }
            Trial::LeaderDiesMoving => leader_dies(lab, machine, "can touch nothing any more").await,
            Trial::LeaderDiesStarting => leader_dies(lab, machine, ": power on ").await,
            Trial::HotLeaderDies => leader_dies(lab, machine, ": let ").await,
            Trial::BmcDies
            | Trial::Thaw
            | Trial::TwoAtOnce
            | Trial::Drain
            | Trial::Console
            | Trial::Hot
            | Trial::HotSpareHangs
            | Trial::SpareDies => Ok(()),
        }
    }
}

/// A healthy node whose BMC is dead goes on, and so does its instance.
async fn bmc_dies(lab: &Lab) -> Result<String, DemoError> {
    let before = Moving::begin(lab, 1).await?;
    lab.mood(before.from, MoodChange::Dead).await?;
    lab.members
        .look("the cluster to miss the BMC", async || {
            let nodes = lab.members.nodes().await?;
            let name = node(before.from)?;
            let power = nodes.iter().find(|line| line.name == name).and_then(|line| line.power.clone());
            Ok(match power.as_deref() {
                Some("no answer") => Look::There(()),
                other => Look::NotYet(format!("its power reads {other:?}")),
            })
        })
        .await?;
    let later = lab.served(1, |served| served.count >= before.count + COUNTS_AFTER_MIN).await?;
    let detail = lab.node(before.from).await?;
    let is_left_alone = matches!(detail.record.state, NodeState::Active { .. })
        && detail.record.verdict == Verdict::Healthy
        && later.epoch == before.epoch;
    match is_left_alone {
        true => Ok("nothing was done to it".to_owned()),
        false => Err(DemoError::Unexpected(format!(
            "node-{} is {} and {}",
            before.from, detail.record.state, detail.record.verdict
        ))),
    }
}

/// A node that could not be switched off is cut off from volume and network; when it goes on, it can do nothing.
async fn thaw(lab: &Lab) -> Result<String, DemoError> {
    let moving = Moving::begin(lab, 1).await?;
    let old = moving.from;
    lab.mood(old, MoodChange::Dead).await?;
    lab.fault(old, Fault::Freeze).await?;
    let seen = moving.end(lab).await?;
    let before = lab.served(1, |_| true).await?;
    lab.fault(old, Fault::Thaw).await?;
    // It tries to write all the time: its kernel gives up, its program tries again.
    lab.served(1, |served| served.count >= before.count + 3 * COUNTS_AFTER_MIN).await?;
    match ledger::faults(&lab.ledger(1)?).as_slice() {
        [] => Ok(format!("{seen}; thawed, it wrote nothing")),
        wrong => Err(DemoError::Unexpected(wrong.join("; "))),
    }
}

async fn two_at_once(lab: &Lab) -> Result<String, DemoError> {
    let both = [Moving::begin(lab, 1).await?, Moving::begin(lab, 2).await?];
    for moving in &both {
        lab.fault(moving.from, Fault::Hang).await?;
    }
    let mut seen = vec![];
    for moving in both {
        seen.push(moving.end(lab).await?.to_string());
    }
    Ok(seen.join("; "))
}

/// The system of a healthy node ends in order, and switches the node off by itself before that is fenced.
async fn drain(lab: &Lab) -> Result<String, DemoError> {
    let moving = Moving::begin(lab, 1).await?;
    let old = node(moving.from)?;
    let before = lab.console(moving.from)?.len();
    let name = old.to_string();
    lab.members.cluster.hactl(["node", "drain", &name, "--reason", "a trial", "--yes", &name]).await?;
    let moved = moving.end(lab).await?;
    let plan = lab.members.newest_failover("web-1").await?;
    let asked = plan.intents.iter().find(|intent| matches!(intent.action, Action::ShutDown { .. }));
    let console = lab.console(moved.from)?;
    let said = console.get(before..).unwrap_or_default();
    let in_order = ["the power button was pressed", "counts no more", "the agent ended"];
    let missing: Vec<&str> = in_order.into_iter().filter(|line| !said.contains(line)).collect();
    match asked {
        Some(asked) if asked.is_done() && missing.is_empty() => {
            let took = asked.end.as_ref().map_or(Millis(0), |(_, at)| at.since(asked.at));
            Ok(format!("{moved}; {old} was off by itself after {took}"))
        }
        Some(asked) => Err(DemoError::Unexpected(format!(
            "asked to shut down, {old}: {}; not on its console: {missing:?}",
            asked.trouble().unwrap_or_else(|| "off".to_owned())
        ))),
        None => Err(DemoError::Unexpected(format!("{old} was not asked to shut down"))),
    }
}

/// The leader listens to the node's serial console, and the BMC's last words of it go into the diagnosis.
async fn console(lab: &Lab) -> Result<String, DemoError> {
    let moving = Moving::begin(lab, 1).await?;
    let name = node(moving.from)?.to_string();
    lab.members
        .look(&format!("the console of {name} to be listened to"), async || {
            Ok(match lab.members.cluster.console(&name).await {
                Ok(how) if how.starts_with("listened to") => Look::There(()),
                Ok(how) => Look::NotYet(how),
                Err(error) => Look::NotYet(causes(&error)),
            })
        })
        .await?;
    lab.members.set_policy(&["fencing.diagnose_max=5s"], "a trial").await?;
    lab.fault(moving.from, Fault::Panic { gasp: false }).await?;
    let moved = moving.end(lab).await?;
    lab.members.set_policy(&["fencing.diagnose_max=0ms"], "a trial").await?;
    let plan = lab.members.newest_failover("web-1").await?;
    let told: Vec<String> = plan.intents.iter().flat_map(diagnosed).collect();
    match told.iter().rev().find(|line| line.contains("Kernel panic")) {
        Some(line) => Ok(format!("{moved}; it said {line:?}")),
        None => Err(DemoError::Unexpected(format!("{moved}; its diagnosis is {told:#?}"))),
    }
}

fn diagnosed(intent: &Intent) -> Vec<String> {
    match &intent.end {
        Some((Outcome::Done(Seen::Diagnosed(lines)), _)) => lines.to_vec(),
        Some((Outcome::Done(_) | Outcome::Refused(_) | Outcome::Unknown(_), _)) | None => vec![],
    }
}

/// A spare that waits goes on into the instance's kernel, and its firmware has no part in it.
async fn hot(lab: &mut Lab, strike: Trial) -> Result<String, DemoError> {
    let spare = lab.warm().await?;
    let before = lab.console(spare)?.len();
    let moving = Moving::begin(lab, 1).await?;
    strike.strike(lab, moving.from).await?;
    let moved = moving.end(lab).await?;
    let console = lab.console(spare)?;
    let said = console.get(before..).unwrap_or_default();
    let is_warm = said.contains("going on into web-1") && !said.contains("iPXE initialising");
    match moved.to == spare && is_warm {
        true => Ok(format!("{moved}, hot")),
        false => {
            Err(DemoError::Unexpected(format!("{moved}; node-{spare}, which waited hot, said:\n{said}")))
        }
    }
}

/// The spare is switched off and on, and takes over in the same failover.
async fn hot_spare_hangs(lab: &Lab) -> Result<String, DemoError> {
    let spare = lab.warm().await?;
    let moving = Moving::begin(lab, 1).await?;
    let events = lab.members.events();
    lab.fault(moving.from, Fault::Hang).await?;
    lab.members.told(events, &format!(": let node-{spare} boot ")).await?;
    lab.fault(spare, Fault::Hang).await?;
    let before = lab.console(spare)?.len();
    let moved = moving.end(lab).await?;
    let console = lab.console(spare)?;
    let is_anew = console.get(before..).is_some_and(|said| said.contains("iPXE initialising"));
    match moved.to == spare && is_anew {
        true => Ok(format!("{moved}, started cold")),
        false => Err(DemoError::Unexpected(format!("{moved}; node-{spare} was not started anew"))),
    }
}

/// The first spare is given up and fenced, the second takes over. The first has a short time, for it will not use it.
async fn spare_dies(lab: &Lab) -> Result<String, DemoError> {
    let moving = Moving::begin(lab, 1).await?;
    lab.members.set_policy(&["takeover.start_deadline=20s"], "a trial").await?;
    let events = lab.members.events();
    lab.fault(moving.from, Fault::Hang).await?;
    lab.members.told(events, ": power on ").await?;
    let running = lab.members.failovers().await?;
    let spare = running.iter().find(|line| line.phase == Phase::Starting).and_then(|line| line.spare.clone());
    let spare = spare.ok_or_else(|| DemoError::Unexpected("no spare is starting".to_owned()))?;
    // It is on, or the BMC would switch it on later.
    lab.members.told(events, &format!("{} done", Action::PowerOn { node: spare.clone() })).await?;
    lab.rack.fault(&spare, Fault::PowerLoss).await;
    lab.members.told(events, &format!("gives {spare} up")).await?;
    lab.members.set_policy(&[&format!("takeover.start_deadline={START_DEADLINE}")], "a trial").await?;
    let seen = moving.end(lab).await?;
    let (to, _) = lab.placed(1).await?;
    match node(to)? == spare {
        false => Ok(format!("{seen}; {spare} was given up")),
        true => Err(DemoError::Unexpected(format!("web-1 is on {spare}, which has no power"))),
    }
}

/// Lets the node hang; returns when the failover waits for an answer to such a step.
async fn waits_for(lab: &Lab, machine: u8, step: &str) -> Result<(), DemoError> {
    let events = lab.members.events();
    lab.fault(machine, Fault::Hang).await?;
    lab.members.told(events, &format!(": {step}")).await?;
    // The proof of power is there, and still nothing goes to the spare.
    let off = Action::PowerOff { node: node(machine)?, level: 0 }.to_string();
    lab.members.told(events, &format!("{off} done")).await?;
    match ask(1).await {
        Err(_) => Ok(()),
        Ok(served) => {
            Err(DemoError::Unexpected(format!("web-1 serves before its fence is proven: {served:?}")))
        }
    }
}

/// Lets the node hang, kills the leader when an event says this, and starts it again.
async fn leader_dies(lab: &mut Lab, machine: u8, moment: &str) -> Result<(), DemoError> {
    let (leader, events) = (lab.members.leader().await?, lab.members.events());
    lab.fault(machine, Fault::Hang).await?;
    lab.members.leader_dies(leader, events, moment).await
}

fn stop(process: &Process) -> Result<(), DemoError> {
    signal(process, Signal::SIGSTOP)
}

fn go_on(process: &Process) -> Result<(), DemoError> {
    signal(process, Signal::SIGCONT)
}

fn signal(process: &Process, signal: Signal) -> Result<(), DemoError> {
    let pid = process.pid().ok_or_else(|| DemoError::Unexpected("a process has ended".to_owned()))?;
    control::signal(pid, signal)
}
