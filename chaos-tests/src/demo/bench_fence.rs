//! How long it takes to prove many nodes off at once.
//!
//! What this is: `fencing::fence` with warm sessions against the rack's BMCs, which run in a process of their own.
//! Why it exists: a rack that loses its cooling has to be fenced in the time that one node takes.
//! What it never does: count the time that the BMCs themselves need to switch off.

use super::process::{Around, Process, Starter};
use super::table::{milliseconds, say, spread, table};
use super::wait::{Look, until};
use super::{DemoError, Home};
use crate::rack::client::Client as RackClient;
use crate::rack::{Description, Fault, MoodChange};
use fencing::{Bmc, PowerDriver};
use policies::{Identity, Millis, NodeId, Outcome, Permit, Power, Refusal, Seen, causes};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How many BMCs there are.
const BMCS: usize = 100;
/// How many are fenced at once.
const COUNTS: [usize; 2] = [1, BMCS];
/// How long a BMC takes to switch off: at once, and as quick as real boards are.
const DELAYS: [Millis; 2] = [Millis(0), Millis(500)];
/// Longest time for anything here.
const LIMIT: Duration = Duration::from_secs(20);

/// Leave to send: this is no cluster, nobody else acts.
struct Always;

impl Permit for Always {
    fn check(&self) -> Result<(), Refusal> {
        Ok(())
    }

    fn token(&self) -> policies::LogIndex {
        policies::LogIndex(7)
    }
}

/// A node to be fenced.
#[derive(Clone)]
struct Target {
    node: NodeId,
    identity: Identity,
    driver: Arc<Bmc>,
}

/// Fences 1 and then 100 nodes at once, `runs` times each.
///
/// # Errors
/// [`DemoError`], also if any fence is not proven.
pub async fn bench_fence(home: &Home, runs: usize) -> Result<(), DemoError> {
    let starter = Starter::new(home.program("rack"))?;
    let (dir, log) = (home.dir().join("bmcs"), home.dir().join("bmcs.log"));
    let (text, count) = (dir.to_string_lossy(), BMCS.to_string());
    let args = ["bmcs", "--dir", &text, "--count", &count];
    let mut bmcs = starter.start("the BMCs", &home.program("rack"), args, &Around::default(), log).await?;
    let rack = connect(&dir, &mut bmcs).await?;
    let targets = targets(&Description::read(&dir).map_err(DemoError::Description)?)?;
    let mut rows = Vec::new();
    for delay in DELAYS {
        change_mood(&rack, &targets, MoodChange::OffDelay(delay)).await?;
        for count in COUNTS {
            let chosen = targets.get(..count).unwrap_or(&targets);
            let mut over = Vec::new();
            for _ in 0..runs {
                switch_on(chosen, bmcs.log()).await?;
                over.push(fence_all(chosen).await?.saturating_sub(Duration::from_millis(delay.0)));
            }
            let spread =
                spread(&over).map(|(median, least, greatest)| [median, least, greatest].map(milliseconds));
            let words = [count.to_string(), delay.to_string(), runs.to_string()];
            rows.push(words.into_iter().chain(spread.into_iter().flatten()).collect());
        }
    }
    bmcs.ask_to_end();
    bmcs.ended(Instant::now() + LIMIT).await?;
    let command = std::env::args().collect::<Vec<_>>().join(" ");
    say(&format!(
        "{command}\n\nfencing::fence with warm sessions: milliseconds over the BMC's own delay until the last node was seen off twice\n"
    ))?;
    say(&table(&["NODES AT ONCE", "BMC DELAY", "RUNS", "MEDIAN", "MIN", "MAX"], &rows))
}

/// Waits for the BMCs' process.
async fn connect(dir: &std::path::Path, bmcs: &mut Process) -> Result<RackClient, DemoError> {
    let log = bmcs.log().to_owned();
    until("the BMCs to answer", LIMIT, &log, async || {
        bmcs.check()?;
        let Ok(description) = Description::read(dir) else {
            return Ok(Look::NotYet("no description".to_owned()));
        };
        let client = RackClient::new(&description)
            .map_err(|source| DemoError::Rack { doing: "prepare to speak to the BMCs", source })?;
        Ok(match client.status().await {
            Ok(_) => Look::There(client),
            Err(error) => Look::NotYet(causes(&error)),
        })
    })
    .await
}

fn targets(description: &Description) -> Result<Vec<Target>, DemoError> {
    let port = fencing::ipmi::Port::new();
    let documents = description.inventory().map_err(DemoError::Description)?;
    let targets = documents.nodes.into_iter().zip(&description.machines).map(|(node, machine)| {
        let none = || DemoError::Unexpected(format!("{} was described without a BMC", node.name));
        let device = node.fencing.first().ok_or_else(none)?;
        let driver = Bmc::from(device, machine.password.0.as_bytes(), &port)
            .map_err(|refusal| DemoError::Unexpected(format!("use the BMC of {}: {refusal}", node.name)))?;
        Ok(Target { node: node.name, identity: node.identity, driver: Arc::new(driver) })
    });
    targets.collect()
}

async fn change_mood(rack: &RackClient, targets: &[Target], mood: MoodChange) -> Result<(), DemoError> {
    for target in targets {
        let changed = rack.fault(&target.node, Fault::BmcMood { mood }).await;
        changed.map_err(|source| DemoError::Rack { doing: "change the mood of a BMC", source })?;
    }
    Ok(())
}

/// Switches on and sees on; this also warms the sessions.
async fn switch_on(targets: &[Target], log: &std::path::Path) -> Result<(), DemoError> {
    for target in targets {
        let deadline = Instant::now() + LIMIT;
        match fencing::power_on(&*target.driver, &target.identity, &Always, deadline).await {
            Outcome::Done(_) => {}
            other @ (Outcome::Refused(_) | Outcome::Unknown(_)) => {
                return Err(DemoError::Unexpected(format!("switch {} on: {other:?}", target.node)));
            }
        }
    }
    until("all nodes to be on", LIMIT, log, async || {
        for target in targets {
            let look = target.driver.look(Instant::now() + LIMIT).await;
            if !matches!(&look, Ok(look) if look.power == Power::On) {
                return Ok(Look::NotYet(format!("{}: {look:?}", target.node)));
            }
        }
        Ok(Look::There(()))
    })
    .await
}

/// Fences all at once; returns the time until the last was proven off.
async fn fence_all(targets: &[Target]) -> Result<Duration, DemoError> {
    let began = Instant::now();
    let mut fences = JoinSet::new();
    for target in targets.iter().cloned() {
        fences.spawn(async move {
            let outcome = fencing::fence(&*target.driver, &target.identity, &Always, began + LIMIT).await;
            (target.node, outcome)
        });
    }
    while let Some(ended) = fences.join_next().await {
        let (node, outcome) = ended.map_err(|error| DemoError::Unexpected(format!("fence: {error}")))?;
        if !matches!(outcome, Outcome::Done(Seen::OffTwice { already: false, .. })) {
            return Err(DemoError::Unexpected(format!("fence {node}: {outcome:?}")));
        }
    }
    Ok(began.elapsed())
}
