//! What would happen: the plan of a policy, the coverage of losses.

use super::{Screen, Tone, table};
use policies::{
    Changed, Checked, Concession, Cover, Coverage, Fate, InstanceId, Loss, LossTold, NodeId, PolicyId,
    Preview, Unable, given_up,
};
use std::collections::BTreeMap;
use std::fmt::Display;

/// `hactl policy plan`: what a change would change now.
pub fn policy_plan(name: &PolicyId, preview: &Preview, screen: &Screen) -> String {
    let Preview { version, new, changes, instances, protected, verdicts, fences, covers, losses, unable } =
        preview;
    if preview.is_nothing() {
        return format!("Policy {name} is so already; nothing would change.\n");
    }
    let mut text = match new {
        true => format!("Policy {name} would be new.\n"),
        false => format!("Policy {name} at version {version} protects {instances} instances.\n"),
    };
    let mut part = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            text.push_str(&format!("\n{}\n", screen.tint(Tone::Strong, title)));
            lines.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
        }
    };
    part("Keys", changes.iter().map(ToString::to_string).collect());
    part("Instances that another policy would protect", both(protected, ToString::to_string));
    part("Nodes that would be judged otherwise now", both(verdicts, ToString::to_string));
    part("Nodes that would be treated otherwise now", both(fences, |fate| fate_told(fate, screen)));
    part("Instances that would have another spare", both(covers, |cover| cover_told(cover, screen)));
    part("Losses that would be covered otherwise", both(losses, |loss| loss_told(loss, screen)));
    part("What storage cannot do", unable.iter().map(ToString::to_string).collect());
    if protected.is_empty()
        && verdicts.is_empty()
        && fences.is_empty()
        && covers.is_empty()
        && losses.is_empty()
    {
        text.push_str("\nNo instance, node, failover or spare would be affected at this moment.\n");
    }
    text.push_str(&format!(
        "\n`hactl policy set {name} ... --check {version}` sets it, if nobody changes it meanwhile.\n"
    ));
    text
}

/// `hactl policy lint`: what policies want of volumes, and their storage cannot do.
pub fn policy_lint(unable: &[Unable], screen: &Screen) -> String {
    if unable.is_empty() {
        return "Nothing that policies want of volumes is known to be more than their storage can.\n"
            .to_owned();
    }
    unable.iter().map(|it| format!("{}\n", screen.tint(Tone::Careful, &it.to_string()))).collect()
}

fn both<K: Display, T>(changed: &BTreeMap<K, Changed<T>>, told: impl Fn(&T) -> String) -> Vec<String> {
    let line =
        |(key, pair): (&K, &Changed<T>)| format!("{key}: {} -> {}", told(&pair.before), told(&pair.after));
    changed.iter().map(line).collect()
}

fn fate_told(fate: &Fate, screen: &Screen) -> String {
    match fate {
        Fate::LeftAlone => "left alone".to_owned(),
        Fate::Fenced { spare: None } => screen.tint(Tone::Bad, "fenced"),
        Fate::Fenced { spare: Some(spare) } => screen.tint(Tone::Bad, &format!("fenced, {spare} takes over")),
        Fate::Withheld(why) => screen.tint(Tone::Careful, &format!("not acted on ({why})")),
    }
}

fn cover_told(cover: &Cover, screen: &Screen) -> String {
    match cover {
        Cover::Spare(node) => screen.tint(Tone::Good, node.as_str()),
        Cover::Lesser { spare, gives_up } => lesser(spare, gives_up, screen),
        Cover::Moving(plan) => screen.tint(Tone::Careful, &format!("moving by failover {plan}")),
        Cover::Uncovered(why) => screen.tint(Tone::Bad, &format!("none ({why})")),
    }
}

fn lesser(spare: &NodeId, gives_up: &[Concession], screen: &Screen) -> String {
    screen.tint(Tone::Careful, &format!("{spare} (gives up {})", given_up(gives_up)))
}

fn loss_told(loss: &LossTold, screen: &Screen) -> String {
    let LossTold { covered, of, held } = loss;
    match held {
        Some(held) => screen.tint(Tone::Bad, &format!("held ({held})")),
        None if covered == of => screen.tint(Tone::Good, &format!("all {of} instances")),
        None => screen.tint(Tone::Bad, &format!("{covered} of {of} instances")),
    }
}

/// `hactl coverage`: who would take over from whom, and which failure domains may be lost.
pub fn coverage(coverage: &Coverage, screen: &Screen) -> String {
    let row = |(name, cover): (&InstanceId, &Cover)| vec![name.to_string(), cover_told(cover, screen)];
    let instances = coverage.instances.iter().map(row).collect();
    let mut text = table(&["INSTANCE", "SPARE"], instances, "No instances are described yet.");
    if !coverage.losses.is_empty() {
        let row =
            |(domain, loss): (&String, &Loss)| vec![domain.clone(), loss_told(&LossTold::of(loss), screen)];
        let losses = coverage.losses.iter().map(row).collect();
        text.push_str(&format!("\n{}", table(&["LOSS OF", "COVERED"], losses, "")));
    }
    if !coverage.troubles.is_empty() {
        text.push_str(&format!(
            "\n{}\n",
            screen.tint(Tone::Strong, "What failovers would need and is not fine")
        ));
        let line = |checked: &Checked| format!("  {}\n", super::checked(checked, screen));
        text.extend(coverage.troubles.iter().map(line));
    }
    text
}

/// `hactl coverage --losing rack/r1`.
pub fn losing(domain: &str, loss: &Loss, screen: &Screen) -> String {
    let mut text = format!("Losing {domain} is covered: {}\n", loss_told(&LossTold::of(loss), screen));
    let spare = |name: &InstanceId, spare: &Option<NodeId>| match (spare, loss.gives_up.get(name)) {
        (Some(spare), None) => screen.tint(Tone::Good, spare.as_str()),
        (Some(spare), Some(gives_up)) => lesser(spare, gives_up, screen),
        (None, _) => screen.tint(Tone::Bad, "none is left"),
    };
    let rows = loss.spares.iter().map(|(name, node)| vec![name.to_string(), spare(name, node)]).collect();
    text.push_str(&table(&["INSTANCE", "SPARE"], rows, "No instance runs there."));
    text
}
