//! Members without files, memory, processor time, or the right time.

use super::control::{self, Controller, Group};
use super::facts::Ending;
use super::scene::{Scene, members};
use crate::demo::DemoError;
use crate::rack::Fault;
use std::net::TcpStream;
use std::time::Duration;

/// How long nothing may happen: more than twice what a fence of a node takes from its death on (`cautious`).
const QUIET: Duration = Duration::from_secs(6);
/// How long the members starve: long enough that a node would be suspected several times.
const STARVATION: Duration = Duration::from_secs(12);
/// Processor time of all three members together: 5 % of one core.
const STARVED_QUOTA_US: &str = "5000";
/// Idle connections that take the files of a member.
const CONNECTIONS: usize = 40;
/// Acknowledged orders by which a cluster shows that it works.
const ORDERS: usize = 10;

/// The leader's wall clock jumps by days, forth and back: nothing happens. Then a node hangs, and it is moved.
pub(super) async fn clock_jumps(scene: &mut Scene<'_>) -> Result<String, DemoError> {
    let leader = scene.leader().await?;
    let mut led = Vec::new();
    for offset in ["+5d", "-10d"] {
        scene.clock(leader)?.set(offset)?;
        scene.look_on(QUIET, async || scene.is_calm().await).await?;
        scene.await_orders(ORDERS).await?;
        led.push(format!("{offset}: {} leads", scene.leader().await?));
    }
    let (victim, _) = scene.victim()?;
    scene.strike(&victim, Fault::Hang).await?;
    let pause = scene.await_failover().await?;
    scene.clock(leader)?.set("+0")?;
    Ok(format!("{}; a failover with the wrong time took {pause:.1?}", led.join(", ")))
}

/// The leader can open no further file while strangers connect to it; then it may again.
pub(super) async fn no_files(scene: &mut Scene<'_>) -> Result<String, DemoError> {
    let leader = scene.leader().await?;
    let pid = scene.pid(leader)?;
    let open = control::open_files(pid)?;
    control::limit_files(pid, open)?;
    let api = std::net::SocketAddr::new(super::net::Host::Member(leader).address(), 7201);
    let limit = Duration::from_millis(200);
    let strangers: Vec<TcpStream> =
        (0..CONNECTIONS).filter_map(|_| TcpStream::connect_timeout(&api, limit).ok()).collect();
    let count = strangers.len();
    scene.look_on(QUIET, async || scene.is_calm().await).await?;
    let (victim, _) = scene.victim()?;
    scene.strike(&victim, Fault::Hang).await?;
    let meanwhile = scene.notes.count();
    scene.look_on(QUIET, async || Ok(())).await?;
    let orders = scene.notes.count() - meanwhile;
    control::limit_files(pid, open + 1000)?;
    drop(strangers);
    let pause = scene.await_failover().await?;
    scene.await_orders(ORDERS).await?;
    let leads = scene.leader().await?;
    Ok(format!(
        "{leader} had {open} files and no more, {count} strangers connected; {orders} orders in {QUIET:?}; a failover \
         took {pause:.1?}; {leads} leads"
    ))
}

/// A member gets less memory than it has: the kernel kills it, the others go on, and it comes back.
pub(super) async fn no_memory(scene: &mut Scene<'_>) -> Result<String, DemoError> {
    let leader = scene.leader().await?;
    let pid = scene.pid(leader)?;
    let resident = control::resident(pid)?;
    let group = Group::of(Controller::Memory, "memory", &[pid])?;
    // Memory that was taken before is charged elsewhere; what it takes from now on ends here.
    group.set("memory.limit_in_bytes", "65536")?;
    scene.await_end(leader, Ending::OutOfMemory).await?;
    drop(group);
    let next = scene.other_leader(leader).await?;
    scene.run(leader).await?;
    scene.await_orders(ORDERS).await?;
    let gap = scene.notes.longest_gap();
    Ok(format!(
        "{leader} ({} MiB) was killed by the kernel; {next} took over; longest time without an order {gap:.1?}",
        resident >> 20
    ))
}

/// All members together get a twentieth of a core: they may be slow, but must not take that for the death of nodes.
pub(super) async fn no_processor(scene: &mut Scene<'_>) -> Result<String, DemoError> {
    let pids = members().map(|id| scene.pid(id)).collect::<Result<Vec<u32>, _>>()?;
    let group = Group::of(Controller::Cpu, "starved", &pids)?;
    group.set("cpu.cfs_quota_us", STARVED_QUOTA_US)?;
    let before = scene.notes.count();
    scene.look_on(STARVATION, async || Ok(())).await?;
    let orders = scene.notes.count() - before;
    drop(group);
    scene.await_orders(ORDERS).await?;
    scene.look_on(QUIET, async || scene.is_calm().await).await?;
    let unanswered = scene.notes.unanswered();
    Ok(format!(
        "5 % of a core for {STARVATION:?}: {orders} orders, {unanswered} unanswered; nothing was fenced"
    ))
}
