//! How long a failover takes, measured many times.
//!
//! Why it exists: a figure without runs, median and range is an anecdote.
//! What it never does: leave a run out; a run that broke a promise ends the measurement with an error.

use super::findings::Findings;
use super::kind::{Kind, OFF_DELAY};
use super::moments::Moments;
use super::stage::Stage;
use super::table::{say, seconds, spread, table};
use super::{DemoError, Home, failover, verdict};
use std::time::Duration;

/// A measured length of one run.
type Measure = (&'static str, fn(&Moments) -> Option<Duration>);

const HANG: [Measure; 5] = [
    ("fault -> suspected by the first member", |moments| moments.suspected),
    ("fault -> verdict committed", |moments| moments.judged),
    ("fault -> fence proven", |moments| moments.proven),
    ("fault -> service back", |moments| moments.back),
    ("intent to power off -> seen off twice (BMC delay 0)", |moments| moments.power_off),
];

const LEADER: [Measure; 4] = [
    ("leader killed -> next leader's first action", |moments| later(moments.killed, moments.taken_up)),
    ("leader killed -> service back", |moments| later(moments.killed, moments.back)),
    ("fault -> leader killed", |moments| moments.killed),
    ("fault -> service back", |moments| moments.back),
];

fn later(from: Option<Duration>, to: Option<Duration>) -> Option<Duration> {
    to?.checked_sub(from?)
}

/// Measures `runs` hangs, and half as many with the leader killed in the middle, each on a fresh cluster and rack.
///
/// # Errors
/// [`DemoError`], also if any run broke a promise.
pub async fn bench(home: &Home, runs: usize) -> Result<(), DemoError> {
    say(&format!(
        "{runs} runs, each on a fresh cluster of three members and a fresh rack of six nodes; policy quick."
    ))?;
    say("\na node hangs; its BMC switches off at once\n")?;
    let hangs = measure(home, Kind::Hang, runs, &HANG).await?;
    let halves = runs.div_ceil(2);
    say(&format!(
        "\na node hangs, its BMC takes {OFF_DELAY}, and the leader is killed once the fence intent is committed\n"
    ))?;
    let leaders = measure(home, Kind::LeaderDeath, halves, &LEADER).await?;
    let command = std::env::args().collect::<Vec<_>>().join(" ");
    say(&format!("\n{command}\n"))?;
    let head = ["SECONDS", "RUNS", "MEDIAN", "MIN", "MAX"];
    let rows: Vec<Vec<String>> = summary(&HANG, &hangs).chain(summary(&LEADER, &leaders)).collect();
    say(&table(&head, &rows))
}

async fn measure(
    home: &Home,
    kind: Kind,
    runs: usize,
    measures: &[Measure],
) -> Result<Vec<Moments>, DemoError> {
    let mut all = Vec::new();
    for run in 1..=runs {
        let findings = one(home, kind, run).await?;
        let moments = Moments::of(&findings);
        let lengths = measures.iter().map(|(what, measure)| {
            let length = measure(&moments).map_or_else(|| "-".to_owned(), seconds);
            format!("{what} {length}")
        });
        say(&format!("  {run:>3}  {}", lengths.collect::<Vec<_>>().join(" | ")))?;
        all.push(moments);
    }
    Ok(all)
}

async fn one(home: &Home, kind: Kind, run: usize) -> Result<Findings, DemoError> {
    let room = home.room(&format!("{}-{run}", kind.word()))?;
    let mut stage = Stage::build(home, room.clone(), |_| Ok(())).await?;
    let findings = failover::run(&mut stage, kind, None, false).await;
    stage.end().await?;
    let findings = findings?;
    let broken = verdict::broken(&findings);
    match broken.is_empty() {
        true => Ok(findings),
        false => Err(DemoError::Unexpected(format!(
            "run {run} broke a promise: {}; logs: {}",
            broken.join("; "),
            room.display()
        ))),
    }
}

fn summary(measures: &[Measure], runs: &[Moments]) -> impl Iterator<Item = Vec<String>> {
    measures.iter().map(|(what, measure)| {
        let lengths: Vec<Duration> = runs.iter().filter_map(measure).collect();
        let spread = spread(&lengths).map(|(median, least, greatest)| [median, least, greatest].map(seconds));
        let count = lengths.len().to_string();
        [(*what).to_owned(), count].into_iter().chain(spread.into_iter().flatten()).collect()
    })
}
