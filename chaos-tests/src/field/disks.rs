//! Disks of members that are full, fail or forget.

use super::facts::Ending;
use super::faultfs::Disk;
use super::platter::{Ills, PowerLoss};
use super::scene::{LATE_OFF, Scene, members};
use crate::demo::DemoError;
use crate::demo::wait::Look;
use crate::rack::Fault;
use policies::MemberId;
use rand::Rng;
use std::time::Duration;

/// Acknowledged orders by which a cluster shows that it works.
const ORDERS: usize = 10;
/// What a member says of one that comes back with an empty store.
const REFUSED: &str = "comes with another store";
/// How long nobody may lead: several elections.
const WITHOUT_QUORUM: Duration = Duration::from_secs(5);

/// The store of a follower finds no space: the member must stop and say so; with space again it comes back.
pub(super) async fn full(scene: &mut Scene<'_>) -> Result<String, DemoError> {
    let member = scene.follower().await?;
    ends_and_comes_back(scene, member, Ills { space_left: Some(0), ..Ills::default() }).await
}

/// Every fsync of the leader's store fails: it must stop at the first one and say so; repaired, it comes back.
pub(super) async fn fsync_fails(scene: &mut Scene<'_>) -> Result<String, DemoError> {
    let member = scene.leader().await?;
    ends_and_comes_back(scene, member, Ills { fsync_fails: true, ..Ills::default() }).await
}

async fn ends_and_comes_back(
    scene: &mut Scene<'_>,
    member: MemberId,
    ills: Ills,
) -> Result<String, DemoError> {
    let disk = scene.disk(member)?;
    disk.set(ills);
    let said = scene.await_end(member, Ending::GaveUp).await?;
    let (failed, refused) = disk.counts();
    if failed + refused == 0 {
        return Err(DemoError::Unexpected(format!("{member} ended, but not because of its disk")));
    }
    scene.await_orders(ORDERS).await?;
    // As after a reboot: what was never safe is gone with the page cache.
    let lost = disk.lose_power(PowerLoss::LosesUnsynced);
    disk.set(Ills::default());
    scene.run(member).await?;
    scene.await_orders(ORDERS).await?;
    Ok(format!(
        "{member} met {failed} failed fsyncs and {refused} writes without space and said {said:?}; {lost} unsynced \
         writes were lost, and it came back"
    ))
}

/// The power of all members fails at once and takes everything that was not synced.
pub(super) async fn power_loss(scene: &mut Scene<'_>) -> Result<String, DemoError> {
    all_lose_power(scene, |_| PowerLoss::LosesUnsynced).await
}

/// The same, and writes under way are torn.
pub(super) async fn torn(scene: &mut Scene<'_>) -> Result<String, DemoError> {
    all_lose_power(scene, |seed| PowerLoss::Tears { seed }).await
}

/// In the middle of a failover, so that there is much to remember.
async fn all_lose_power(scene: &mut Scene<'_>, loss: impl Fn(u64) -> PowerLoss) -> Result<String, DemoError> {
    scene.await_orders(ORDERS).await?;
    scene.hang_until_fence_begins(LATE_OFF).await?;
    for member in members() {
        scene.kill(member).await?;
    }
    let acked = scene.notes.count();
    let mut lost = Vec::new();
    for member in members() {
        let seed = scene.chance.random();
        lost.push(scene.disk(member)?.lose_power(loss(seed)).to_string());
    }
    for member in members() {
        scene.run(member).await?;
    }
    let pause = scene.await_failover().await?;
    scene.await_orders(ORDERS).await?;
    Ok(format!(
        "{acked} orders were acknowledged; {} unsynced writes were struck; the failover went on ({pause:.1?} without \
         writes)",
        lost.join("+")
    ))
}

/// A follower gets a new, empty disk and starts under its old id. Its vote is lost, so nobody may count on it: with it
/// and one other member there is no leader, and the two that remember go on.
pub(super) async fn replaced(scene: &mut Scene<'_>) -> Result<String, DemoError> {
    let (leader, member) = (scene.leader().await?, scene.follower().await?);
    scene.kill(member).await?;
    scene.disk(member)?.replace();
    scene.run(member).await?;
    let log = scene.stage.cluster.newest_log(leader);
    let what = format!("{leader} to refuse {member}");
    scene
        .look_for(&what, async || match std::fs::read_to_string(&log) {
            Ok(text) if text.contains(&format!("{member} {REFUSED}")) => Look::There(()),
            Ok(text) => Look::NotYet(format!("{} lines in its log", text.lines().count())),
            Err(error) => Look::NotYet(error.to_string()),
        })
        .await?;
    scene.await_orders(ORDERS).await?;
    scene.kill(leader).await?;
    scene
        .look_on(WITHOUT_QUORUM, async || match scene.status().await {
            Ok(status) => {
                Err(format!("{} leads with the vote of a member that lost its own", status.answered_by))
            }
            Err(_) => Ok(()),
        })
        .await?;
    scene.run(leader).await?;
    scene.await_orders(ORDERS).await?;
    scene.kill(member).await?;
    Ok(format!(
        "{leader} refused {member}; without {leader} nobody led for {WITHOUT_QUORUM:?}; with it, orders again"
    ))
}

/// The leader loses power and its writes are torn, while the others go on; it comes back and learns what it lacks.
pub(super) async fn torn_leader(scene: &mut Scene<'_>) -> Result<String, DemoError> {
    let leader = scene.leader().await?;
    scene.await_orders(ORDERS).await?;
    scene.kill(leader).await?;
    let disk: Disk = scene.disk(leader)?;
    let lost = disk.lose_power(PowerLoss::Tears { seed: scene.chance.random() });
    let next = scene.other_leader(leader).await?;
    let (victim, _) = scene.victim()?;
    scene.strike(&victim, Fault::Hang).await?;
    scene.run(leader).await?;
    let pause = scene.await_failover().await?;
    scene.await_orders(ORDERS).await?;
    Ok(format!(
        "{lost} writes of {leader} were torn; {next} led a failover ({pause:.1?}); {leader} came back"
    ))
}
