//! One failover of each kind, each on a fresh cluster and rack, and a table of what held.
//!
//! Why it exists: `make demo ONCE=1` is the whole product's own test, as an operator would see it.
//! What it never does: reuse a scene; a drain or a brake of one failover would change the next.

use super::kind::Kind;
use super::moments::Moments;
use super::stage::Stage;
use super::table::{Ink, ink, moment, say, table};
use super::{DemoError, Home, failover, verdict};
use crate::demo::cluster::chain;
use crate::demo::findings::Findings;
use std::time::Instant;

/// Runs each of these kinds once.
///
/// # Errors
/// [`DemoError::DidNotHold`] if any promise was broken; it has been said which.
pub async fn once(home: &Home, kinds: &[Kind]) -> Result<(), DemoError> {
    let began = Instant::now();
    say(
        "One failover of each kind, each on a fresh cluster of three members and a fresh rack of six nodes.\n",
    )?;
    let mut rows = Vec::new();
    let mut failed = 0;
    for (number, kind) in (1..).zip(kinds) {
        let room = format!("{number}-{}", kind.word());
        let result = one(home, *kind, &room).await;
        let broken = match &result {
            Ok(findings) => verdict::broken(findings),
            Err(error) => vec![chain(error)],
        };
        let mark = if broken.is_empty() { ink(Ink::Good, "holds") } else { ink(Ink::Bad, "DOES NOT HOLD") };
        say(&format!("  {:<26} {mark}", kind.title()))?;
        for sentence in &broken {
            say(&format!("    {sentence}\n    logs: {}", home.dir().join(&room).display()))?;
        }
        failed += usize::from(!broken.is_empty());
        rows.push(row(*kind, result.as_ref().ok(), broken.is_empty()));
    }
    let head = ["KIND", "DETECTED", "FENCED", "SERVICE BACK", "LOST WRITES", "OVERLAPPING", ""];
    say(&format!("\n{}", table(&head, &rows)))?;
    say(&format!(
        "\nSeconds since the fault. Detected and fenced: stamps of the replicated log; the rest: the storage array.\n\
         {} s in all; logs and findings are in {}",
        began.elapsed().as_secs(),
        home.dir().display()
    ))?;
    match failed {
        0 => Ok(()),
        failed => Err(DemoError::DidNotHold { failed, of: kinds.len(), logs: home.dir().to_owned() }),
    }
}

async fn one(home: &Home, kind: Kind, room: &str) -> Result<Findings, DemoError> {
    let mut stage = Stage::build(home, home.room(room)?, |_| Ok(())).await?;
    let findings = failover::run(&mut stage, kind, None, false).await;
    stage.end().await?;
    findings
}

fn row(kind: Kind, findings: Option<&Findings>, holds: bool) -> Vec<String> {
    let moments = findings.map(Moments::of).unwrap_or_default();
    let count =
        |count: fn(&Findings) -> u64| findings.map_or("-".to_owned(), |findings| count(findings).to_string());
    vec![
        kind.title().to_owned(),
        moment(moments.judged),
        moment(moments.proven),
        moment(moments.back),
        count(|findings| findings.report.lost_writes),
        count(|findings| findings.report.overlapping_writes),
        if holds { "holds" } else { "DOES NOT HOLD" }.to_owned(),
    ]
}
