//! What a candidate policy would have done, as `hactl policy replay` prints it.

use super::{Screen, Tone, length, local, table};
use policies::replay::{Doings, Fence, Replay, Row};
use policies::{MemberId, Millis, Wall};
use serde::{Deserialize, Serialize};

/// Rows that a screen shows; the other forms of output have them all.
const ROWS_MAX: usize = 40;

/// A replay and how it came about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    /// Where the candidate is from.
    pub candidate: String,
    /// Members whose record is missing, and why.
    pub missing: Vec<(MemberId, String)>,
    /// How long a failover is taken to last.
    pub failover_takes: Millis,
    /// Of how many failovers that is the median; 0: it was given or assumed.
    pub failovers_measured: usize,
    /// The answer.
    pub replay: Replay,
}

/// The screen.
pub fn replayed(replayed: &Replayed, screen: &Screen) -> String {
    let Replayed { replay, candidate, .. } = replayed;
    let span = length(replay.until.since(replay.since));
    let (from, to) = (local(replay.since, &screen.zone), local(replay.until, &screen.zone));
    let mut text = format!("Policy {} as in {candidate}, from {from} to {to} ({span})\n\n", replay.policy);
    text.push_str(&members(replayed, screen));
    text.push('\n');
    text.push_str(&doings(&replay.in_force, &replay.candidate));
    text.push('\n');
    let rows = replay.differences.iter().take(ROWS_MAX).map(|row| cells(row, screen)).collect();
    let headers =
        ["DIFFERENCE", "NODE", "TROUBLE SINCE", "IN FORCE", "CANDIDATE", "BACK BY ITSELF", "DOWNTIME"];
    text.push_str(&table(&headers, rows, "No difference: both would have done the same."));
    if let Some(more) = replay.differences.len().checked_sub(ROWS_MAX).filter(|more| *more > 0) {
        text.push_str(&format!("... and {more} more; -o json has all\n"));
    }
    if replay.differs() {
        text.push_str(&by_node(replayed));
    }
    let (really, found) = replay.really_fenced;
    if really > 0 {
        text.push_str(&format!("\nReally fenced while in trouble: {really}; this replay of the policy in force finds {found} of them.\n"));
    }
    for note in &replay.notes {
        text.push_str(&format!("Note: {note}.\n"));
    }
    text
}

fn members(replayed: &Replayed, screen: &Screen) -> String {
    let kept = replayed.replay.members.iter().map(|member| {
        vec![
            member.member.to_string(),
            member.records.to_string(),
            local(member.from, &screen.zone),
            length(member.blind),
            length(member.doubted),
        ]
    });
    let mut text =
        table(&["MEMBER", "RECORDS", "FROM", "BLIND", "DOUBTED"], kept.collect(), "No member has a record.");
    for (member, why) in &replayed.missing {
        text.push_str(&screen.tint(Tone::Bad, &format!("{member}: its record is missing: {why}")));
        text.push('\n');
    }
    text
}

fn doings(in_force: &Doings, candidate: &Doings) -> String {
    let line = |who: &str, doings: &Doings| {
        let back = |fence: &&Fence| fence.back_after.is_some() && !fence.really;
        let came_back = doings.fences.iter().filter(back).count();
        let for_good = doings.braked.iter().filter(|braked| !braked.fenced_later).count();
        vec![
            who.to_owned(),
            doings.fences.len().to_string(),
            came_back.to_string(),
            doings.braked.len().to_string(),
            for_good.to_string(),
        ]
    };
    let headers = ["", "FENCES", "OF NODES THAT CAME BACK", "WITHHELD BY A BRAKE", "FOR GOOD"];
    table(&headers, vec![line("in force", in_force), line("candidate", candidate)], "")
}

fn cells(row: &Row, screen: &Screen) -> Vec<String> {
    let after = |fence: &Option<Fence>| match fence {
        Some(fence) => {
            let assumed = if fence.assumed { " (assumed)" } else { "" };
            format!("after {}{assumed}", short(fence.at.since(row.trouble_since)))
        }
        None => "-".to_owned(),
    };
    let either = row.candidate.as_ref().or(row.in_force.as_ref());
    let back = either.and_then(|fence| {
        let back = Wall(fence.at.0.saturating_add(fence.back_after?.0));
        Some(format!("after {}", short(back.since(row.trouble_since))))
    });
    vec![
        format!("{:?}", row.difference).to_lowercase(),
        row.node.to_string(),
        local(row.trouble_since, &screen.zone),
        after(&row.in_force),
        after(&row.candidate),
        back.unwrap_or_else(|| "no".to_owned()),
        row.downtime_ms.map_or_else(|| "unknown".to_owned(), signed),
    ]
}

fn by_node(replayed: &Replayed) -> String {
    let replay = &replayed.replay;
    let source = match replayed.failovers_measured {
        0 => "as given or assumed".to_owned(),
        count => format!("the median of {count}"),
    };
    let mut text = format!(
        "\nDowntime in all: {}, if a failover takes {} ({source})\n",
        signed(replay.downtime_ms),
        length(replayed.failover_takes)
    );
    let mut nodes: Vec<_> = replay.downtime_by_node_ms.iter().collect();
    nodes.sort_by_key(|(_, downtime)| std::cmp::Reverse(downtime.unsigned_abs()));
    for (node, downtime) in nodes.into_iter().take(10) {
        text.push_str(&format!("  {node}: {}\n", signed(*downtime)));
    }
    text
}

/// With milliseconds while they matter: `1.200s`, `2m 5s`.
fn short(span: Millis) -> String {
    match span.0 {
        0..60_000 => format!("{}.{:03}s", span.0 / 1000, span.0 % 1000),
        _ => length(span),
    }
}

/// `+` is lost, `-` is won.
fn signed(downtime_ms: i64) -> String {
    let sign = if downtime_ms < 0 { '-' } else { '+' };
    format!("{sign}{}", short(Millis(downtime_ms.unsigned_abs())))
}
