//! The story of a run, in the words of the text scenarios.
//!
//! Why it exists: whoever reads a failing seed wants `>` what was done, `log` what was decided and `do` what was sent;
//! and wants to play it on the engines alone, as a scenario.
//! What it never does: judge.

use super::campaign::Run;
use super::fault::{Fault, Order};
use super::machine::Mood;
use super::script::Script;

/// Everything that a seed decides, one line each.
pub fn script(script: &Script) -> String {
    let mut out = String::new();
    let mut line = |text: String| out.push_str(&format!("{text}\n"));
    line(format!(
        "seed {} ({}): {} members, {} instances, {} spares; storage {}, tokens {}; a snapshot every {} entries",
        script.seed,
        script.mode,
        script.members,
        script.instances,
        script.spares,
        if script.exclusive { "exclusive" } else { "not exclusive" },
        if script.tokens { "compared" } else { "not compared" },
        script.snapshot_after,
    ));
    for (number, (at, fault)) in script.faults.iter().enumerate() {
        line(format!("{number:>3}  {:>8.3}  {fault}", *at as f64 / 1e3));
    }
    out
}

/// Plays the run and tells it; then the same as a scenario, as far as the language of scenarios goes.
pub fn tell(run: &Run) -> String {
    let drawn = Script::draw(run.seed, run.mode);
    let report = run.here(true);
    let mut out = String::new();
    for (at, line) in &report.story {
        out.push_str(&format!("{:>8.3} {line}\n", *at as f64 / 1e6));
    }
    for violation in &report.violations {
        out.push_str(&format!("BROKEN   {violation}\n"));
    }
    out.push_str("\n# As a scenario (policies/scenarios/NAME.scn; its clock begins 5 s later):\n");
    out.push_str(&scenario(&drawn, run));
    out
}

/// The scenario: world and timeline. What the language cannot say becomes a comment.
fn scenario(drawn: &Script, run: &Run) -> String {
    let mut out = format!("Seed {} of the simulator, {} mode.\n\n", drawn.seed, drawn.mode);
    for (number, name) in super::script::node_names(drawn.instances, drawn.spares).iter().enumerate() {
        out.push_str(&format!("node {name} rack=r{}\n", number / 4));
    }
    for number in 0..drawn.instances {
        out.push_str(&format!("instance i{number:02} on n{number:02}\n"));
    }
    out.push('\n');
    for (number, (at, fault)) in drawn.faults.iter().enumerate() {
        if run.only.as_ref().is_some_and(|only| !only.contains(&number)) {
            continue;
        }
        let at = at - super::script::BEGIN;
        let lines = phrases(fault);
        if lines.is_empty() {
            out.push_str(&format!("# at {at}ms {fault}\n"));
        }
        for (later, phrase) in lines {
            out.push_str(&format!("at {}ms {phrase}\n", at + later));
        }
    }
    out
}

/// What the scenario language says for it, each with how much later.
fn phrases(fault: &Fault) -> Vec<(u64, String)> {
    let now = |text: String| vec![(0, text)];
    let pair = |begins: String, length: &u64, ends: String| vec![(0, begins), (*length, ends)];
    match fault {
        Fault::Die { member, down, .. }
        | Fault::DieAfterSyncs { member, down, .. }
        | Fault::DieAfterSends { member, down, .. }
        | Fault::FailingDisk { member, down, .. }
        | Fault::Rot { member, down, .. } => {
            pair(format!("{member} dies"), down, format!("{member} restarts"))
        }
        Fault::Hang { node, length } => pair(format!("{node} hangs"), length, format!("{node} returns")),
        Fault::AgentDies { node, length } => {
            pair(format!("{node} agent dies"), length, format!("{node} returns"))
        }
        Fault::Panic { node } => now(format!("{node} panics")),
        Fault::PowerLoss { node, with_bmc: false } => now(format!("{node} loses power")),
        Fault::PowerLoss { node, with_bmc: true } => now(format!("{node} loses power with its bmc")),
        Fault::Nic { node, length } => pair(format!("{node} hangs"), length, format!("{node} returns")),
        Fault::Deaf { node, member, length } => {
            pair(format!("{member} is cut off from {node}"), length, format!("{member} recovers"))
        }
        Fault::DeafToAll { member, length } | Fault::Isolate { member, length } => {
            pair(format!("{member} is cut off"), length, format!("{member} recovers"))
        }
        Fault::Bmc { node, mood: Mood::Lies, length } => {
            pair(format!("{node} bmc lies"), length, format!("{node} bmc recovers"))
        }
        Fault::Bmc { node, mood: Mood::Dead, length } => {
            pair(format!("{node} bmc dies"), length, format!("{node} bmc recovers"))
        }
        Fault::WontBoot { node, length } => {
            pair(format!("{node} will not boot"), length, format!("{node} will boot"))
        }
        Fault::Order(order) => said(order),
        Fault::Pause { .. }
        | Fault::Trap { .. }
        | Fault::LyingDisk { .. }
        | Fault::Echo { .. }
        | Fault::Suspend { .. }
        | Fault::Rate { .. }
        | Fault::WallClock { .. }
        | Fault::OneWay { .. }
        | Fault::Lossy { .. }
        | Fault::SlowDisk { .. }
        | Fault::Bmc { .. }
        | Fault::SelfBoot { .. }
        | Fault::Provider { .. } => vec![],
    }
}

fn said(order: &Order) -> Vec<(u64, String)> {
    match order {
        Order::Evacuate(number) => vec![(0, format!("operator: evacuate i{number:02} sim"))],
        Order::Backup(number) => vec![(0, format!("operator: backup i{number:02} sim"))],
        Order::Drain { node, .. } => vec![(0, format!("operator: drain {node} sim"))],
        Order::Fence(node) => vec![(0, format!("operator: fence {node} sim"))],
        Order::CancelAny => vec![(0, "operator: cancel $plan sim".to_owned())],
        Order::Disarm { length } => {
            vec![(0, "operator: disarm sim".to_owned()), (*length, "operator: arm sim".to_owned())]
        }
        Order::Maintain { node, length } => vec![
            (0, format!("operator: maintenance {node} sim")),
            (*length, format!("operator: maintenance {node} ends")),
        ],
        Order::Cordon { node, length } => {
            vec![(0, format!("operator: cordon {node}")), (*length, format!("operator: uncordon {node}"))]
        }
        Order::Transfer(member) => vec![(0, format!("leadership moves to {member}"))],
        Order::ReleaseAll
        | Order::Chase { .. }
        | Order::Hurry { .. }
        | Order::ConfirmOff
        | Order::Policy { .. }
        | Order::Replace { .. } => vec![],
    }
}
