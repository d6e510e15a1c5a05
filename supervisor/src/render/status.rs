//! `hactl status`: is it armed, who leads, what is where, and everything that is not as it should be - on one screen.

use super::{Screen, Tone, failovers, time};
use crate::api::answers::{MemberLine, Status};
use policies::Millis;

/// Lines of trouble that are shown; the rest is counted, so that the screen stays one screen.
const ATTENTION_MAX: usize = 12;

/// `hactl status`.
pub fn status(status: &Status, screen: &Screen) -> String {
    let mut text = String::new();
    if status.local {
        let warning = format!(
            "Only member {} answered, from its own memory: no quorum stands behind this.",
            status.answered_by.0
        );
        text.push_str(&format!("{}\n", screen.tint(Tone::Bad, &warning)));
    }
    text.push_str(&format!("Cluster    {}\n", screen.tint(Tone::Strong, &status.cluster)));
    text.push_str(&format!("Armed      {}\n", armed(status, screen)));
    text.push_str(&format!("Members    {}\n", members(status, screen)));
    if let Some(why) = &status.not_acting {
        text.push_str(&format!("Acting     {}\n", screen.tint(Tone::Bad, &format!("no: {why}"))));
    }
    if let Some(why) = &status.not_judging {
        let hint = "If the silent nodes are really dead, say so: `hactl instance evacuate NAME`, `hactl fence NODE`.";
        text.push_str(&format!("Judging    {}\n", screen.tint(Tone::Bad, &format!("no: {why}"))));
        text.push_str(&format!("           {hint}\n"));
    }
    text.push_str(&format!("Nodes      {}\n", nodes(status, screen)));
    text.push_str(&format!("Instances  {}\n", status.instances));
    if !status.failovers.is_empty() {
        text.push_str("\nFailovers under way\n");
        text.push_str(&indent(&failovers(&status.failovers, screen)));
    }
    text.push_str(&attention(status, screen));
    text
}

fn armed(status: &Status, screen: &Screen) -> String {
    let order = &status.armed.order;
    let by = match order.at.0 {
        0 => order.reason.clone(),
        _ => format!("{}: {}, {}", order.by, order.reason, screen.at(order.at)),
    };
    match status.armed.armed {
        true => format!("{} ({by})", screen.tint(Tone::Good, "yes")),
        false => format!("{} ({by})", screen.tint(Tone::Careful, "no, it watches and does not act")),
    }
}

pub(super) fn members(status: &Status, screen: &Screen) -> String {
    let voters = status.members.iter().filter(|member| member.voter).count();
    let learners = status.members.len() - voters;
    let leader = status.members.iter().find(|member| member.leader);
    let leads = match leader {
        Some(leader) if status.local => format!("member {} was the last leader", leader.id.0),
        Some(leader) => format!("member {} leads", leader.id.0),
        None => screen.tint(Tone::Bad, "no leader"),
    };
    let plural = if voters == 1 { "" } else { "s" };
    let mut text = format!("{voters} voter{plural}, {leads}");
    if learners > 0 {
        text.push_str(&format!(", {learners} learning"));
    }
    let late = |member: &&MemberLine| !member.is_heard_by(status.answered_by);
    for member in status.members.iter().filter(late) {
        let since = match member.report_age_ms {
            Some(age) => format!("silent for {}", time::length(Millis(age))),
            None => "never heard".to_owned(),
        };
        text.push_str(&screen.tint(Tone::Bad, &format!(", member {} {since}", member.id.0)));
    }
    text
}

fn nodes(status: &Status, screen: &Screen) -> String {
    let order = ["active", "spare", "reserved", "fencing", "quarantined", "cleaning"];
    let count = |word: &str| status.nodes.get(word).copied().unwrap_or(0);
    let all: u64 = status.nodes.values().sum();
    let part = |word: &&str| {
        let text = format!("{} {word}", count(word));
        match *word {
            "spare" if count(word) == 0 => Some(screen.tint(Tone::Bad, &text)),
            "active" | "spare" => Some(text),
            _ if count(word) == 0 => None,
            _ => Some(screen.tint(Tone::Careful, &text)),
        }
    };
    format!("{all}: {}", order.iter().filter_map(part).collect::<Vec<_>>().join(", "))
}

fn attention(status: &Status, screen: &Screen) -> String {
    if status.attention.is_empty() {
        return format!("\n{}\n", screen.tint(Tone::Good, "Nothing needs attention."));
    }
    let mut text = format!("\n{}\n", screen.tint(Tone::Careful, "Needs attention"));
    for item in status.attention.iter().take(ATTENTION_MAX) {
        text.push_str(&format!("  {}: {}\n", screen.tint(Tone::Strong, &item.about), item.what));
    }
    let more = status.attention.len().saturating_sub(ATTENTION_MAX);
    if more > 0 {
        text.push_str(&format!("  and {more} more; `hactl node list` and `hactl failover list` show all\n"));
    }
    text.push_str("  `hactl explain NAME` tells the whole story.\n");
    text
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}
