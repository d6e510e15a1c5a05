//! Members that die or stand still.

use super::control::{Controller, Group};
use super::scene::{LATE_ANSWERS, LATE_OFF, Scene, members};
use crate::demo::DemoError;
use crate::demo::wait::Look;
use crate::rack::{Fault, Life};
use policies::{MemberId, NodeId, causes};
use std::time::Duration;

/// How long everything stands still: longer than `suspect_after` of the policy `cautious` (2 s) and any lease.
const STANDSTILL: Duration = Duration::from_secs(4);
/// How long a member that goes on is watched: a late command would come within the time limit of an effect.
const AFTERMATH: Duration = Duration::from_secs(3);
/// Acknowledged orders by which a cluster shows that it works.
const ORDERS: usize = 10;

/// kill -9 of the leader once it has committed that it will fence.
pub(super) async fn leader_in_mid_failover(scene: &mut Scene<'_>) -> Result<String, DemoError> {
    let leader = scene.leader().await?;
    scene.hang_until_fence_begins(LATE_OFF).await?;
    scene.kill(leader).await?;
    let pause = scene.await_failover().await?;
    let next = scene.other_leader(leader).await?;
    scene.run(leader).await?;
    scene.await_orders(ORDERS).await?;
    Ok(format!("{next} took over from {leader}; nobody wrote for {pause:.1?}"))
}

/// kill -9 of one member after the other, each started again.
pub(super) async fn all_in_turn(scene: &mut Scene<'_>) -> Result<String, DemoError> {
    let mut led = Vec::new();
    for member in members() {
        let leader = scene.leader().await?;
        scene.kill(member).await?;
        // The first acknowledgements may have been under way; the last ones are the work of the two that are left.
        scene.await_orders(ORDERS).await?;
        led.push(format!("{leader}>{}", scene.leader().await?));
        scene.run(member).await?;
        await_report(scene, member).await?;
    }
    let gap = scene.notes.longest_gap();
    Ok(format!("leaders {}; longest time without an acknowledged order {gap:.1?}", led.join(" ")))
}

/// Waits until the leader hears from a member again: only then is the next one killed.
async fn await_report(scene: &Scene<'_>, member: MemberId) -> Result<(), DemoError> {
    scene
        .look_for(&format!("{member} to have caught up"), async || match scene.status().await {
            Ok(status) => {
                let line = status.members.iter().find(|line| line.id == member);
                let there = line.is_some_and(|line| {
                    line.leader || (line.voter && line.behind.is_some_and(|behind| behind < 50))
                });
                let fresh =
                    line.is_some_and(|line| line.leader || line.report_age_ms.is_some_and(|age| age < 1000));
                if there && fresh { Look::There(()) } else { Look::NotYet(format!("{line:?}")) }
            }
            Err(error) => Look::NotYet(error.to_string()),
        })
        .await
}

/// SIGSTOP of the leader in the middle of a fence, for longer than its lease. Meanwhile another leader finishes, and
/// somebody switches the old node on again to clean it. When the stopped one goes on, it must not send the power-off
/// that it had begun with: nothing may happen in the rack any more.
pub(super) async fn leader_stopped_past_its_lease(scene: &mut Scene<'_>) -> Result<String, DemoError> {
    let leader = scene.leader().await?;
    scene.hang_until_fence_begins(LATE_ANSWERS).await?;
    scene.stop(leader)?;
    let pause = scene.await_failover().await?;
    let next = scene.other_leader(leader).await?;
    let (victim, _) = scene.victim()?;
    scene.strike(&victim, Fault::PowerOn).await?;
    let what = format!("{victim} to run");
    let before = scene.look_for(&what, async || runs(scene, &victim).await).await?;
    scene.go_on(leader)?;
    scene.look_on(AFTERMATH, async || Ok(())).await?;
    await_report(scene, leader).await?;
    let after = scene.stage.report().await?.events;
    if let Some(event) = after.get(before) {
        let late = format!("after {leader} went on, something still happened: {}", event.text);
        return Err(DemoError::Unexpected(late));
    }
    Ok(format!(
        "{next} finished the failover ({pause:.1?} without writes); {leader} went on and sent nothing"
    ))
}

/// How many events the rack knows of once the node runs.
async fn runs(scene: &Scene<'_>, node: &NodeId) -> Look<usize> {
    let (status, report) = match (scene.stage.status().await, scene.stage.report().await) {
        (Ok(status), Ok(report)) => (status, report),
        (Err(error), _) | (_, Err(error)) => return Look::NotYet(causes(&error)),
    };
    match status.machines.get(node).map(|machine| machine.life) {
        Some(Life::Running) => Look::There(report.events.len()),
        life => Look::NotYet(format!("{life:?}")),
    }
}

/// All members stand still at once, as virtual machines do during a snapshot, for longer than nodes may be silent.
pub(super) async fn all_frozen(scene: &mut Scene<'_>) -> Result<String, DemoError> {
    let pids = members().map(|id| scene.pid(id)).collect::<Result<Vec<u32>, _>>()?;
    let group = Group::of(Controller::Freezer, "members", &pids)?;
    group.set("freezer.state", "FROZEN")?;
    scene.look_on(STANDSTILL, async || Ok(())).await?;
    group.set("freezer.state", "THAWED")?;
    drop(group);
    scene.await_orders(ORDERS).await?;
    scene.look_on(AFTERMATH, async || scene.is_calm().await).await?;
    Ok(format!("all stood still for {STANDSTILL:?}; nothing was fenced in the {AFTERMATH:?} after it"))
}
