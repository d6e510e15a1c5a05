//! How long failovers of real machines take, cold and hot by turns.
//!
//! Why it exists: a figure without runs, median and range is an anecdote; and cold and hot can only be compared if they were
//! measured on the same computer in the same minutes. What it never does: leave a run out.

use super::lab::Lab;
use super::moving::Moving;
use super::phases::{Part, Phases, ours_by_hand, seconds};
use crate::demo::DemoError;
use crate::demo::table::{spread, table};
use crate::rack::Fault;
use policies::{Millis, Start};
use std::fmt;
use std::time::Duration;

/// What may be ours of a failover.
const OURS_MAX: Millis = Millis(500);
/// What a failover to a hot spare may take of the time of one to a cold spare, in percent.
const HOT_PERCENT_MAX: u64 = 50;

/// How the spare is before the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Cold,
    Hot,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Cold => "cold",
            Kind::Hot => "hot",
        })
    }
}

/// One failover, measured.
struct Run {
    kind: Kind,
    phases: Phases,
    total: Millis,
}

/// Measures so many of each kind.
///
/// # Errors
/// [`DemoError`] if one does not come about or breaks a promise, or if it is not as quick as it has to be.
pub async fn bench(lab: &Lab, runs: usize, tell: &dyn Fn(&str)) -> Result<(), DemoError> {
    let titles = Part::ALL.map(|part| part.title().to_owned());
    tell("\nall processors of a node stand still; seconds");
    tell(&line("RUN", "SPARE", titles.into_iter().chain(["TOTAL".to_owned()])));
    let mut measured = vec![];
    for number in 1..=runs {
        for kind in [Kind::Cold, Kind::Hot] {
            let run = one(lab, kind).await?;
            let lengths = Part::ALL.map(|part| run.phases.length(part)).into_iter().chain([run.total]);
            tell(&line(&number.to_string(), &kind.to_string(), lengths.map(seconds)));
            measured.push(run);
        }
    }
    tell("");
    tell(&summary(&measured));
    judge(&measured, tell)
}

async fn one(lab: &Lab, kind: Kind) -> Result<Run, DemoError> {
    let wanted = match kind {
        Kind::Cold => Start::PowerOn,
        Kind::Hot => {
            lab.warm().await?;
            Start::Kexec
        }
    };
    let moving = Moving::begin(lab, 1).await?;
    lab.fault(moving.from, Fault::Hang).await?;
    let moved = moving.end(lab).await?;
    let plan = lab.members.newest_failover("web-1").await?;
    if plan.decision.start != wanted {
        let got = plan.decision.start;
        return Err(DemoError::Unexpected(format!("{moved}, by {got:?} and not by {wanted:?}")));
    }
    let phases = Phases::of(&plan, moved.began, moved.first.at);
    let phases =
        phases.ok_or_else(|| DemoError::Unexpected(format!("failover {} lacks a stamp", plan.id)))?;
    lab.repair().await?;
    Ok(Run { kind, phases, total: moved.took() })
}

fn line(number: &str, kind: &str, cells: impl Iterator<Item = String>) -> String {
    cells.fold(format!("{number:>4}  {kind:<5}"), |line, cell| format!("{line}  {cell:>7}"))
}

/// Median, least and greatest of each part and kind, beside what it took by hand.
fn summary(runs: &[Run]) -> String {
    let mut rows = vec![];
    for kind in [Kind::Cold, Kind::Hot] {
        let of = |read: &dyn Fn(&Run) -> Millis| lengths(runs, kind, read);
        for part in Part::ALL {
            let name = part.title().to_lowercase();
            rows.push(row(kind, &name, &of(&|run| run.phases.length(part)), Some(part.by_hand())));
        }
        rows.push(row(kind, "ours", &of(&|run| run.phases.ours()), Some(ours_by_hand())));
        rows.push(row(kind, "total", &of(&|run| run.total), None));
    }
    table(&["SECONDS", "RUNS", "MEDIAN", "MIN", "MAX", "BY HAND", "RATIO"], &rows)
}

fn row(kind: Kind, name: &str, lengths: &[Duration], by_hand: Option<Millis>) -> Vec<String> {
    let spread = spread(lengths).map(|(median, least, greatest)| [median, least, greatest].map(millis));
    let compared = spread.zip(by_hand).map(|([median, ..], hand)| [seconds(hand), ratio(median, hand)]);
    let cells = spread.into_iter().flatten().map(seconds).chain(compared.into_iter().flatten());
    [format!("{kind}: {name}"), lengths.len().to_string()].into_iter().chain(cells).collect()
}

fn lengths(runs: &[Run], kind: Kind, read: &dyn Fn(&Run) -> Millis) -> Vec<Duration> {
    runs.iter().filter(|run| run.kind == kind).map(|run| Duration::from_millis(read(run).0)).collect()
}

fn median(runs: &[Run], kind: Kind, read: &dyn Fn(&Run) -> Millis) -> Millis {
    spread(&lengths(runs, kind, read)).map_or(Millis(0), |(median, ..)| millis(median))
}

fn millis(length: Duration) -> Millis {
    Millis(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
}

fn ratio(of: Millis, to: Millis) -> String {
    match (of.0 * 100).checked_div(to.0) {
        Some(percent) => format!("{}.{:02}", percent / 100, percent % 100),
        None => "-".to_owned(),
    }
}

/// Whether it is as quick as it has to be.
fn judge(runs: &[Run], tell: &dyn Fn(&str)) -> Result<(), DemoError> {
    let mut missed = vec![];
    for kind in [Kind::Cold, Kind::Hot] {
        let ours = median(runs, kind, &|run| run.phases.ours());
        let hand = ours_by_hand();
        tell(&format!(
            "{kind}: {} s of it are ours (fence, give, order), at most {} s; by hand {} s (facts/lab.md), ratio {}",
            seconds(ours),
            seconds(OURS_MAX),
            seconds(hand),
            ratio(ours, hand)
        ));
        if ours > OURS_MAX {
            missed.push(format!("{} s of a {kind} failover are ours", seconds(ours)));
        }
    }
    let [cold, hot] = [Kind::Cold, Kind::Hot].map(|kind| median(runs, kind, &|run| run.total));
    let share = ratio(hot, cold);
    tell(&format!("hot / cold, from the fault to the answer: {share}, at most 0.{HOT_PERCENT_MAX}"));
    if hot.0 * 100 > cold.0 * HOT_PERCENT_MAX {
        missed.push(format!("a hot spare takes {share} of a cold one's time"));
    }
    match missed.as_slice() {
        [] => Ok(()),
        missed => Err(DemoError::Unexpected(missed.join("; "))),
    }
}
