//! Members that do not hear each other, or the nodes, in one direction or both.

use super::net::Host;
use super::scene::Scene;
use crate::demo::DemoError;
use crate::demo::wait::Look;
use crate::rack::Fault;
use policies::MemberId;
use std::time::{Duration, Instant};

/// How long a cut member is watched once it doubts itself: longer than it takes to judge and fence a node.
const DOUBTFUL: Duration = Duration::from_secs(5);
/// Acknowledged orders by which a cluster shows that it works.
const ORDERS: usize = 10;

/// What the leader sends arrives at no follower; what they send arrives.
pub(super) async fn leader_is_not_heard(scene: &mut Scene<'_>) -> Result<String, DemoError> {
    let leader = scene.leader().await?;
    for other in scene.others(leader) {
        scene.net.cut(Host::Member(leader), Host::Member(other))?;
    }
    elect_and_fail_over(scene, leader).await
}

/// What the followers send does not arrive at the leader; what it sends arrives.
pub(super) async fn leader_does_not_hear(scene: &mut Scene<'_>) -> Result<String, DemoError> {
    let leader = scene.leader().await?;
    for other in scene.others(leader) {
        scene.net.cut(Host::Member(other), Host::Member(leader))?;
    }
    elect_and_fail_over(scene, leader).await
}

/// The others must elect, and the cluster must still be able to move an instance; then everything is healed.
async fn elect_and_fail_over(scene: &mut Scene<'_>, leader: MemberId) -> Result<String, DemoError> {
    let cut = Instant::now();
    let next = scene.other_leader(leader).await?;
    let elected = cut.elapsed();
    let (victim, _) = scene.victim()?;
    scene.strike(&victim, Fault::Hang).await?;
    let pause = scene.await_failover().await?;
    scene.net.heal()?;
    scene.await_orders(ORDERS).await?;
    let leads = scene.leader().await?;
    Ok(format!(
        "{next} led {elected:.1?} after the cut of {leader}, a failover took {pause:.1?}; healed, {leads} leads"
    ))
}

/// The leader hears no node and reaches none: it must doubt itself, and nobody may be fenced.
pub(super) async fn leader_without_nodes(scene: &mut Scene<'_>) -> Result<String, DemoError> {
    let member = scene.leader().await?;
    isolate(scene, member).await
}

/// The same for a follower.
pub(super) async fn follower_without_nodes(scene: &mut Scene<'_>) -> Result<String, DemoError> {
    let member = scene.follower().await?;
    isolate(scene, member).await
}

async fn isolate(scene: &mut Scene<'_>, member: MemberId) -> Result<String, DemoError> {
    scene.net.cut(Host::Rack, Host::Member(member))?;
    scene.net.cut(Host::Member(member), Host::Rack)?;
    let cut = Instant::now();
    // A member is asked for its own doubt by way of another, to which it reports.
    let asked = scene.others(member).into_iter().next().unwrap_or(member);
    let said = scene
        .look_for(&format!("{member} to doubt itself"), async || match scene.members_seen_by(asked).await {
            Ok(seen) => {
                let line = seen.members.into_iter().find(|line| line.id == member);
                match line.and_then(|line| line.doubt) {
                    Some(doubt) => Look::There(doubt),
                    None => Look::NotYet("no doubt".to_owned()),
                }
            }
            Err(error) => Look::NotYet(error.to_string()),
        })
        .await?;
    let after = cut.elapsed();
    scene.look_on(DOUBTFUL, async || scene.is_calm().await).await?;
    scene.net.heal()?;
    scene.await_orders(ORDERS).await?;
    Ok(format!("after {after:.1?}: {said:?}; nothing was fenced in {DOUBTFUL:?}"))
}
