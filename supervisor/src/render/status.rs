//! `hactl status`: is it armed, who leads, what is where, and everything that is not as it should be - on one screen.

use super::{Screen, Tone, failovers, time};
use crate::api::answers::{Attention, CoverageTold, MemberLine, Status};
use policies::Millis;
use std::collections::BTreeMap;

/// Lines of trouble that are shown; the rest is counted, so that the screen stays one screen.
const ATTENTION_MAX: usize = 12;

/// Objects that are named before one sentence; the rest is counted.
const NAMED_MAX: usize = 8;

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
    if let Some(covered) = status.coverage.as_ref().filter(|_| status.instances > 0) {
        text.push_str(&format!("Coverage   {}\n", coverage(status.instances, covered, screen)));
    }
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
        false => {
            let until =
                order.until.map_or_else(String::new, |until| format!(", armed again {}", screen.at(until)));
            format!("{} ({by}{until})", screen.tint(Tone::Careful, "no, it watches and does not act"))
        }
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

/// Failure domains that are named; the rest is counted.
const LOSSES_MAX: usize = 3;

fn coverage(instances: u64, covered: &CoverageTold, screen: &Screen) -> String {
    let alone = match covered.instances_uncovered.len() {
        0 => screen.tint(Tone::Good, "each instance has a spare"),
        gaps => screen.tint(Tone::Bad, &format!("{gaps} of {instances} instances have none")),
    };
    let uncovered = &covered.losses_uncovered;
    let more = uncovered.len().saturating_sub(LOSSES_MAX);
    let mut named: Vec<String> = uncovered.iter().take(LOSSES_MAX).cloned().collect();
    if more > 0 {
        named.push(format!("{more} more"));
    }
    let losses = match (covered.losses, named.is_empty()) {
        (0, _) => String::new(),
        (_, true) => "; any one failure domain could be lost".to_owned(),
        (_, false) => screen.tint(Tone::Careful, &format!("; not covered: the loss of {}", named.join(", "))),
    };
    format!("{alone}{losses} (`hactl coverage`)")
}

fn attention(status: &Status, screen: &Screen) -> String {
    if status.attention.is_empty() {
        return format!("\n{}\n", screen.tint(Tone::Good, "Nothing needs attention."));
    }
    let mut text = format!("\n{}\n", screen.tint(Tone::Careful, "Needs attention"));
    let groups = grouped(&status.attention);
    for (what, about) in groups.iter().take(ATTENTION_MAX) {
        text.push_str(&format!("  {}: {what}\n", screen.tint(Tone::Strong, &named(about))));
    }
    let more: usize = groups.iter().skip(ATTENTION_MAX).map(|(_, about)| about.len()).sum();
    if more > 0 {
        text.push_str(&format!("  and {more} more; `hactl node list` and `hactl failover list` show all\n"));
    }
    text.push_str("  `hactl explain NAME` tells the whole story.\n");
    text
}

/// Each sentence once, in the order in which it is said first, with all that it is about.
fn grouped(attention: &[Attention]) -> Vec<(&str, Vec<&str>)> {
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut groups: Vec<(&str, Vec<&str>)> = vec![];
    for item in attention {
        let place = *places.entry(&item.what).or_insert(groups.len());
        match groups.get_mut(place) {
            Some((_, about)) => about.push(&item.about),
            None => groups.push((&item.what, vec![&item.about])),
        }
    }
    groups
}

/// `node/n3, n4, n7`: the kind once.
fn named(about: &[&str]) -> String {
    let mut kind = "";
    let mut names: Vec<String> = vec![];
    for object in about.iter().take(NAMED_MAX) {
        let (of_kind, name) = object.split_once('/').unwrap_or(("", object));
        names.push(if of_kind == kind && !kind.is_empty() { name } else { object }.to_owned());
        kind = of_kind;
    }
    let more = about.len().saturating_sub(NAMED_MAX);
    names.extend((more > 0).then(|| format!("{more} more")));
    names.join(", ")
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}
