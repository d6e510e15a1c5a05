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

/// A measured length of one run: its column, its row, and how to read it.
type Measure = (&'static str, &'static str, fn(&Moments) -> Option<Duration>);

const HANG: [Measure; 5] = [
    ("SUSPECTED", "fault -> suspected by the first member", |moments| moments.suspected),
    ("VERDICT", "fault -> verdict committed", |moments| moments.judged),
    ("PROVEN", "fault -> fence proven", |moments| moments.proven),
    ("BACK", "fault -> service back", |moments| moments.back),
    ("POWER OFF", "power-off intent -> seen off twice, BMC delay 0", |moments| moments.power_off),
];

const LEADER: [Measure; 4] = [
    ("NEXT LEADER", "leader killed -> next leader's first action", |moments| {
        later(moments.killed, moments.taken_up)
    }),
    ("AFTER KILL", "leader killed -> service back", |moments| later(moments.killed, moments.back)),
    ("KILLED", "fault -> leader killed", |moments| moments.killed),
    ("BACK", "fault -> service back", |moments| moments.back),
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
    say("\nA node hangs; its BMC switches off at once. Seconds.\n")?;
    let hangs = measure(home, Kind::Hang, runs, &HANG).await?;
    let halves = runs.div_ceil(2);
    say(&format!(
        "\nA node hangs, its BMC takes {OFF_DELAY}, and the leader is killed once the fence intent is committed. Seconds.\n"
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
    say(&line("RUN", measures.iter().map(|(column, _, _)| (*column).to_owned())))?;
    for run in 1..=runs {
        let findings = one(home, kind, run).await?;
        let moments = Moments::of(&findings);
        let cells =
            measures.iter().map(|(_, _, measure)| measure(&moments).map_or_else(|| "-".to_owned(), seconds));
        say(&line(&run.to_string(), cells))?;
        all.push(moments);
    }
    Ok(all)
}

/// A line of the running table; the columns are as wide as their longest title.
fn line(first: &str, cells: impl Iterator<Item = String>) -> String {
    cells.fold(format!("{first:>4}"), |line, cell| format!("{line}  {cell:>11}"))
}

async fn one(home: &Home, kind: Kind, run: usize) -> Result<Findings, DemoError> {
    let room = home.room(&format!("{}-{run}", kind.word()))?;
    let mut stage = Stage::build(home, room.clone(), |_| Ok(())).await?;
    let findings = failover::run(&mut stage, kind, false).await;
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
    measures.iter().map(|(_, what, measure)| {
        let lengths: Vec<Duration> = runs.iter().filter_map(measure).collect();
        let spread = spread(&lengths).map(|(median, least, greatest)| [median, least, greatest].map(seconds));
        let count = lengths.len().to_string();
        [(*what).to_owned(), count].into_iter().chain(spread.into_iter().flatten()).collect()
    })
}
