//! One thing in full: a node, an instance, a failover, a policy, an explanation, an event.

use super::{Screen, Tone, failovers, or_dash, time};
use crate::api::answers::{
    Change, Committed, Described, FailoverDetail, InstanceDetail, NodeDetail, NodePower, PolicyDetail,
};
use crate::api::explain::{Explanation, outcome_text};
use crate::api::{Became, EffectivePolicy, OtherPolicy, PolicyVersion};
use crate::bundle::BundleContents;
use crate::context::ContextDetail;
use policies::{
    Action, Backup, Because, BootDevice, ByHand, Event, FenceDevice, Intent, Order, Outcome, Power,
};
use std::collections::BTreeMap;

/// Orders by hand that `hactl node show` shows, the newest; `-o json` has all that are kept.
const BY_HAND_SHOWN_MAX: usize = 5;

/// A screen of `Name  value` lines; a value of several lines is indented under its name.
struct Sheet {
    text: String,
}

impl Sheet {
    fn new() -> Self {
        Sheet { text: String::new() }
    }

    fn line(&mut self, name: &str, value: impl AsRef<str>) {
        let mut lines = value.as_ref().lines();
        self.text.push_str(format!("{name:<13}{}", lines.next().unwrap_or("-")).trim_end());
        self.text.push('\n');
        for line in lines {
            self.text.push_str(format!("{:<13}{line}", "").trim_end());
            self.text.push('\n');
        }
    }

    fn lines(&mut self, name: &str, values: impl IntoIterator<Item = String>) {
        let values: Vec<String> = values.into_iter().collect();
        if !values.is_empty() {
            self.line(name, values.join("\n"));
        }
    }
}

/// `hactl context show`: paths, never what is in them.
pub fn context(detail: &ContextDetail, screen: &Screen) -> String {
    let mut sheet = Sheet::new();
    let name = detail.name.clone().unwrap_or_else(|| "without a name".to_owned());
    sheet.line("Context", screen.tint(Tone::Strong, &name));
    sheet.line("File", detail.file.display().to_string());
    sheet.line("Current", if detail.current { "yes" } else { "no" });
    sheet.lines("Endpoints", detail.endpoints.clone());
    sheet.line("CA", detail.ca.display().to_string());
    for (name, path) in [("Certificate", &detail.cert), ("Key", &detail.key), ("Token", &detail.token_file)] {
        sheet.lines(name, path.iter().map(|path| path.display().to_string()));
    }
    sheet.text
}

/// `hactl debug bundle`: what is in the archive, and what is not.
pub fn bundle(contents: &BundleContents) -> String {
    let file = contents.file.display();
    let mut text = format!("{file}: {} parts, {}\n", contents.parts.len(), size(contents.bytes));
    text.extend(contents.parts.iter().map(|part| format!("  {:>8}  {}\n", size(part.bytes), part.name)));
    for missing in &contents.missing {
        text.push_str(&format!("  missing: {}: {}\n", missing.name, missing.why));
    }
    text.push_str("Secrets are hidden; names and addresses are not. Nothing was sent anywhere.\n");
    text
}

/// Bytes as people read them, in powers of 1024.
fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        _ => format!("{} MiB", bytes / 1_048_576),
    }
}

/// `hactl node show`.
pub fn node(detail: &NodeDetail, screen: &Screen) -> String {
    let record = &detail.record;
    let described = &record.node;
    let mut sheet = Sheet::new();
    sheet.line("Node", screen.tint(Tone::Strong, &described.name.to_string()));
    sheet.line("State", record.state.to_string() + if record.cordoned { ", cordoned" } else { "" });
    sheet.line("Health", record.verdict.to_string());
    sheet.line("Instance", or_dash(detail.instance.as_ref().map(ToString::to_string)));
    sheet.line("Policy", or_dash(detail.policy.as_ref().map(ToString::to_string)));
    if let Some(order) = &record.maintenance {
        sheet.line("Maintenance", format!("{}: {}, {}", order.by, order.reason, screen.at(order.at)));
    }
    sheet.lines("Domains", pairs(&described.domains));
    sheet.lines("Labels", pairs(&described.labels));
    sheet.lines("Declared", described.capabilities.lines());
    sheet.lines("Found", record.found.iter().flat_map(|found| found.lines()));
    if let Some(mismatch) = record.mismatch() {
        sheet.line("Mismatch", screen.tint(Tone::Bad, &mismatch));
    }
    let no_guid = "not known: it cannot be checked that the BMC is this node's";
    sheet.line(
        "Identity",
        described.identity.guid.as_deref().map_or(no_guid.to_owned(), |guid| format!("GUID {guid}")),
    );
    if let Some(serial) = &described.identity.serial {
        sheet.line("Serial", serial.clone());
    }
    let levels = described.fencing.iter().zip(1..);
    let levels: Vec<String> =
        levels.map(|(device, level)| format!("level {level}: {}", self::device(device))).collect();
    let none = vec!["none: it cannot be fenced by power".to_owned()];
    sheet.lines("Fencing", if levels.is_empty() { none } else { levels });
    sheet.lines("Ports", described.ports.iter().map(|port| format!("{} at {}", port.port, port.provider)));
    sheet.lines("Checked", detail.checks.iter().map(|checked| super::checked(checked, screen)));
    sheet.line("Initiator", or_dash(described.initiator.clone()));
    if !described.boot_macs.is_empty() {
        let macs: Vec<String> = described.boot_macs.iter().map(ToString::to_string).collect();
        sheet.line("Boots by", macs.join(" "));
    }
    sheet.lines(
        "Probe",
        described
            .probe
            .tcp
            .iter()
            .map(|to| format!("TCP {to}"))
            .chain(described.probe.icmp.iter().map(|to| format!("ICMP {to}")))
            .chain(described.probe.bmc_watchdog.then(|| "its BMC's watchdog".to_owned()))
            .chain(described.probe.http.iter().map(|to| format!("HTTP {to}"))),
    );
    sheet.line(
        "Agent",
        if described.agent_key.is_some() { "with key" } else { "none: watched by probes only" },
    );
    sheet.lines(
        "By hand",
        record.by_hand.iter().rev().take(BY_HAND_SHOWN_MAX).map(|done| by_hand(done, screen)),
    );
    sheet.lines("Seen", detail.view.sights.iter().map(|(member, sight)| format!("{member}: {sight}")));
    if let Some((power, age)) = detail.view.power {
        let read = match power {
            Some(Power::On) => "on",
            Some(Power::Off) => "off",
            None => "no answer",
        };
        sheet.line("Power", format!("{read}, {} ago", time::length(age)));
    }
    let committed = record.withheld.as_slice();
    let waiting = if detail.view.waiting.is_empty() { committed } else { &detail.view.waiting };
    sheet.lines("Waiting", waiting.iter().map(ToString::to_string));
    sheet.text
}

/// One line of what was done to a node by hand.
/// One fencing device.
fn device(device: &FenceDevice) -> String {
    let boots =
        |device: &Option<BootDevice>| device.map_or(String::new(), |it| format!(", powers on from {it}"));
    match device {
        FenceDevice::Ipmi { address, user, cipher_suite, boot_device, password: _, console } => {
            let console = if *console { ", its console is listened to" } else { "" };
            let boots = boots(boot_device);
            format!("IPMI at {address} as {user}, cipher suite {cipher_suite}{boots}{console}")
        }
        FenceDevice::Redfish { url, user, system, boot_device, password: _, ca: _, fingerprint: _ } => {
            let system = system.as_ref().map_or(String::new(), |system| format!(", system {system}"));
            format!("Redfish at {url} as {user}{system}{}", boots(boot_device))
        }
        FenceDevice::Ironic { provider, node, bmc: None } => format!("Ironic of {provider}, node {node}"),
        FenceDevice::Ironic { provider, node, bmc: Some(bmc) } => {
            format!("Ironic of {provider}, node {node}; read by {}", self::device(bmc))
        }
    }
}

fn by_hand(done: &ByHand, screen: &Screen) -> String {
    let ByHand { order: Order { by, reason, .. }, intent } = done;
    let end = intent.end.as_ref().map_or("under way".to_owned(), |(outcome, _)| outcome_text(outcome));
    format!("{}  {} - {end}; {by}: {reason}", screen.at(intent.at), intent.action)
}

/// `hactl node power status`.
pub fn power(power: &NodePower, screen: &Screen) -> String {
    let mut sheet = Sheet::new();
    sheet.line("Node", screen.tint(Tone::Strong, &power.name.to_string()));
    for (level, said) in power.levels.iter().enumerate() {
        let read = said.power.as_deref().unwrap_or("not read");
        let tone = if said.trouble.is_some() { Tone::Bad } else { Tone::Strong };
        let guid = said.guid.as_ref().map_or(String::new(), |guid| format!(", GUID {guid}"));
        let trouble = said.trouble.as_ref().map_or(String::new(), |trouble| format!("\n{trouble}"));
        let value = format!("{} at {}{guid}{trouble}", screen.tint(tone, read), said.device);
        sheet.line(&format!("Level {}", level + 1), value);
    }
    if power.levels.is_empty() {
        sheet.line("Power", "not known: it has no fencing device that could be asked");
    }
    sheet.text
}

/// `hactl instance show`.
pub fn instance(detail: &InstanceDetail, screen: &Screen) -> String {
    let record = &detail.record;
    let described = &record.instance;
    let mut sheet = Sheet::new();
    sheet.line("Instance", screen.tint(Tone::Strong, &described.name.to_string()));
    sheet.line("Node", record.node.to_string());
    sheet.line("Health", detail.line.verdict.to_string());
    sheet.line("Epoch", record.epoch.to_string());
    let because = detail.because.as_ref().map(|because| format!(" ({because})")).unwrap_or_default();
    sheet.line("Policy", format!("{}{because}", record.policy));
    sheet.lines("Tenant", described.tenant.iter().map(ToString::to_string));
    sheet.lines("Labels", pairs(&described.labels));
    sheet.lines(
        "Volumes",
        described.volumes.iter().map(|volume| format!("{} at {}", volume.volume, volume.provider)),
    );
    sheet.lines("Networks", described.networks.iter().map(ToString::to_string));
    sheet.lines("Boot", described.boot.iter().map(|boot| format!("{} from {}", boot.image, boot.provider)));
    sheet.lines("Checked", detail.checks.iter().map(|checked| super::checked(checked, screen)));
    sheet.lines("Needs", pairs(&described.needs));
    sheet.lines("Requires", described.requires.lines());
    if let Some(order) = &record.evacuate {
        let Order { by, reason, at, .. } = &order.order;
        sheet.line("Evacuate", format!("{by}: {reason}, {}", screen.at(*at)));
    }
    sheet.lines("Waiting", detail.line.waiting.clone());
    sheet.lines("Backups", record.backups.iter().rev().map(|backup| self::backup(backup, screen)));
    if !detail.failovers.is_empty() {
        sheet.lines("Failovers", [failovers(&detail.failovers, screen)]);
    }
    sheet.text
}

/// `hactl failover show`.
pub fn failover(detail: &FailoverDetail, screen: &Screen) -> String {
    let plan = &detail.plan;
    let decision = &plan.decision;
    let mut sheet = Sheet::new();
    sheet.line("Failover", screen.tint(Tone::Strong, &plan.id.to_string()));
    sheet.line("Began", screen.at(plan.at));
    sheet.line("Instance", or_dash(decision.instance.as_ref().map(ToString::to_string)));
    sheet.line("From", format!("{}: {}", decision.from, decision.cause));
    sheet.line("To", or_dash(decision.spare.as_ref().map(ToString::to_string)));
    sheet.line("Phase", plan.phase.to_string());
    if let Some(stuck) = &plan.stuck {
        sheet.line("Stuck", screen.tint(Tone::Bad, stuck));
    }
    sheet.lines("Waiting", detail.waiting.clone());
    sheet.line("Epoch", plan.epoch.to_string());
    sheet.line("Policy", format!("{} at version {}", decision.policy.0, decision.policy.1));
    sheet.lines("Proof", plan.proof.iter().map(ToString::to_string));
    let phases = plan.entered.iter().map(|(phase, at)| {
        format!("{}  {:>8}  {phase}", time::clock(*at, &screen.zone), after(at.since(plan.at)))
    });
    sheet.lines("Phases", phases);
    let steps = plan.intents.iter().map(|intent| {
        let end = match &intent.end {
            Some((outcome, at)) => {
                format!("{} (took {})", outcome_text(outcome), time::length(at.since(intent.at)))
            }
            None => "under way".to_owned(),
        };
        let begun = after(intent.at.since(plan.at));
        format!("{}  {begun:>8}  {} - {end}", time::clock(intent.at, &screen.zone), intent.action)
    });
    sheet.lines("Steps", steps);
    sheet.lines("Snapshots", plan.intents.iter().filter_map(snapshot));
    sheet.lines("BMC told", plan.intents.iter().flat_map(Intent::told).cloned());
    sheet.text
}

/// One backup, and what was kept of each volume.
fn backup(backup: &Backup, screen: &Screen) -> String {
    let Order { by, reason, at, .. } = &backup.order;
    let (kept, of) = (backup.kept(), backup.actions.len());
    let state = if backup.is_over() { "" } else { ", under way" };
    let head = format!("{}  {}: {kept} of {of} kept{state}; {by}: {reason}", screen.at(*at), backup.id);
    let ends = backup.intents.iter().filter_map(snapshot).map(|line| format!("  {line}"));
    std::iter::once(head).chain(ends).collect::<Vec<_>>().join("\n")
}

/// What was kept of a volume, or why nothing.
fn snapshot(intent: &Intent) -> Option<String> {
    let Action::Snapshot { provider, volume, name, .. } = &intent.action else { return None };
    let what = match &intent.end {
        Some((Outcome::Done(_), _)) => name.to_string(),
        Some((Outcome::Refused(refusal), _)) => format!("none, {refusal}"),
        Some((Outcome::Unknown(doubt), _)) => format!("perhaps {name}, {doubt}"),
        None => format!("{name} is under way"),
    };
    Some(format!("{volume} at {provider}: {what}"))
}

fn after(length: policies::Millis) -> String {
    format!("+{}.{:03}", length.0 / 1000, length.0 % 1000)
}

/// `hactl policy get`: a document that `hactl policy set NAME -f` takes back.
///
/// # Errors
/// If the policy cannot be written as TOML, which the tests of `policies` rule out.
pub fn policy(detail: &PolicyDetail) -> Result<String, toml::ser::Error> {
    let body = toml::to_string(&detail.policy)?;
    Ok(format!(
        "# policy {}, version {}, by {}, protects {} instances\n{body}",
        detail.name, detail.version, detail.order.by, detail.instances
    ))
}

/// `hactl policy effective`: why it is this policy, and then its document.
///
/// # Errors
/// As [`policy`].
pub fn effective_policy(effective: &EffectivePolicy) -> Result<String, toml::ser::Error> {
    let EffectivePolicy { detail, instance, because, others } = effective;
    let other = |other: &OtherPolicy| {
        format!("# less specific: {}, which applies to {}\n", other.name, other.applies)
    };
    let other_if_named = |other: &OtherPolicy| {
        format!("# not asked for: {}, which applies to {}\n", other.name, other.applies)
    };
    let others: String = match because {
        Because::Named => others.iter().map(other_if_named).collect(),
        Because::Applies(_) | Because::Default => others.iter().map(other).collect(),
    };
    Ok(format!("# {instance} is protected by policy {}: {because}\n{others}{}", detail.name, policy(detail)?))
}

/// `hactl policy history`.
pub fn policy_history(versions: &[PolicyVersion], screen: &Screen) -> String {
    let mut text = String::new();
    for version in versions {
        let became = match version.became {
            Became::InForce => screen.tint(Tone::Good, "in force"),
            Became::Replaced => "replaced".to_owned(),
            Became::Deleted => screen.tint(Tone::Careful, "deleted"),
        };
        let Order { by, reason, at, .. } = &version.order;
        let when = match version.version.0 {
            0 => "from the beginning".to_owned(),
            _ => format!("{}, {}", screen.at(*at), by),
        };
        let head = screen.tint(Tone::Strong, &format!("version {}", version.version));
        text.push_str(&format!("{head}  {became}  {when}: {reason}\n"));
        for change in &version.changes {
            text.push_str(&format!("    {change}\n"));
        }
    }
    text
}

/// `hactl explain`.
pub fn explanation(explanation: &Explanation, screen: &Screen) -> String {
    let mut text = format!("{}\n", screen.tint(Tone::Strong, &explanation.answer));
    match explanation.waiting.as_slice() {
        [] => text.push_str("It waits for nothing.\n"),
        [one] => text.push_str(&format!("{} {one}\n", screen.tint(Tone::Careful, "It waits:"))),
        many => {
            text.push_str(&format!("{}\n", screen.tint(Tone::Careful, "It waits:")));
            text.extend(many.iter().map(|reason| format!("  {reason}\n")));
        }
    }
    for section in &explanation.sections {
        let mut question = section.question.clone();
        if let Some(first) = question.get_mut(0..1) {
            first.make_ascii_uppercase();
        }
        text.push_str(&format!("\n{}?\n", screen.tint(Tone::Strong, &question)));
        for line in &section.lines {
            let at = line.at.map_or_else(String::new, |at| time::clock(at, &screen.zone));
            text.push_str(format!("  {at:<12}  {}\n", line.text).trim_start_matches('\n'));
        }
    }
    text
}

/// `hactl events`: one event a line.
pub fn event(event: &Event, screen: &Screen) -> String {
    let about = event.about.join(" ");
    format!("{}  {:<24}  {}\n", time::local(event.at, &screen.zone), about, event.text)
}

/// Answer to an order.
pub fn committed(committed: &Committed) -> String {
    match committed.events.as_slice() {
        [] => format!("committed at {}\n", committed.index),
        events => events.iter().map(|event| format!("{}\n", event.text)).collect(),
    }
}

/// Answer to `hactl apply`: one line for each object, as `kubectl` prints them.
pub fn described(described: &Described, screen: &Screen) -> String {
    let line = |object: &crate::api::answers::ObjectChange| {
        let change = match object.change {
            Change::Created => screen.tint(Tone::Good, "created"),
            Change::Configured => screen.tint(Tone::Careful, "configured"),
            Change::Unchanged => "unchanged".to_owned(),
        };
        format!("{} {change}\n", object.object)
    };
    described.objects.iter().map(line).collect()
}

fn pairs(map: &BTreeMap<String, String>) -> Vec<String> {
    map.iter().map(|(key, value)| format!("{key}={value}")).collect()
}
