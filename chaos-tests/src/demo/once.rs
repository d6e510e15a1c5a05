//! One failover of each kind, each on a fresh cluster and rack, and a table of what held.
//!
//! Why it exists: `make demo ONCE=1` is the whole product's own test, as an operator would see it.
//! What it never does: reuse a scene; a drain or a brake of one failover would change the next.

use super::kind::Kind;
use super::moments::Moments;
use super::stage::Stage;
use super::table::{Ink, ink, moment, say, table};
use super::{DemoError, Home, failover, verdict};
use crate::demo::findings::Findings;
use policies::causes;
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
        say(&format!("{}: {}", ink(Ink::Bold, kind.title()), kind.story()))?;
        let result = one(home, *kind, &room).await;
        let broken = match &result {
            Ok(findings) => verdict::broken(findings),
            Err(error) => vec![causes(error)],
        };
        if let (Ok(findings), true) = (&result, broken.is_empty()) {
            say(&format!("  {}", ink(Ink::Good, &in_short(findings))))?;
        }
        for sentence in &broken {
            say(&format!("  {} {sentence}", ink(Ink::Bad, "DOES NOT HOLD:")))?;
        }
        if !broken.is_empty() {
            say(&format!("  logs: {}", home.dir().join(&room).display()))?;
        }
        failed += usize::from(!broken.is_empty());
        rows.push(row(*kind, result.as_ref().ok(), broken.is_empty()));
    }
    let head = ["KIND", "DETECTED", "FENCED", "SERVICE BACK", "NO WRITES FOR", "LOST", "OVERLAPPING", ""];
    say(&format!("\n{}", table(&head, &rows)))?;
    say(&format!(
        "\nDetected, fenced, service back: since the fault. A node that is only cut off writes on until it is fenced.\n\
         Detected and fenced are stamps of the replicated log; everything else was seen by the storage array.\n\
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
    let findings = failover::run(&mut stage, kind, false).await;
    stage.end().await?;
    findings
}

/// What became of it, in a line.
fn in_short(findings: &Findings) -> String {
    let proof = findings.failovers.first().map_or("none", |failover| failover.proof_text.as_str());
    format!(
        "{} goes on at {} after {}; proof: {}",
        findings.victim.instance,
        findings.placed.node,
        moment(Moments::of(findings).back),
        proof
    )
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
        moment(moments.pause),
        count(|findings| findings.writes.lost),
        count(|findings| findings.writes.overlapping),
        if holds { "holds" } else { "DOES NOT HOLD" }.to_owned(),
    ]
}
