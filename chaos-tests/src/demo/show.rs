//! The demo for a person: build, break, watch, look around.
//!
//! Why it exists: it is the first thing that a newcomer sees of this program.
//! What it never does: end by itself before it was told to.

use super::failover;
use super::findings::Findings;
use super::kind::Kind;
use super::moments::Moments;
use super::stage::Stage;
use super::table::{Ink, ink, moment, say};
use super::verdict::broken;
use super::{DemoError, Home};
use std::future::Future;
use std::path::Path;
use std::time::Duration;
use tokio::time::interval;

/// How often the processes are looked after while the demo stays up.
const LOOK_EVERY: Duration = Duration::from_secs(1);

const WORDS: &str = "  node      a physical server, with a BMC that switches its power. Here: processes on this computer.
  instance  what runs on a node and has to go on: its identity, networks, volumes. Here: it counts, on its volume.
  spare     a node without an instance, switched off, ready to take one.
  member    a supervisor. Three of them watch every node and decide by majority; one of them leads.
  fence     to prove that a node can touch neither network nor volumes any more, before anything else may.
";

/// Shows a failover and stays up until `stop` ends.
///
/// # Errors
/// [`DemoError`]; also if the failover broke a promise.
pub async fn show(home: &Home, stop: impl Future<Output = ()>) -> Result<(), DemoError> {
    tokio::pin!(stop);
    say(&format!("{}\n\n{WORDS}", ink(Ink::Bold, "A server hangs, and nobody is on call.")))?;
    let building = Stage::build(home, home.room("scene")?, |step| say(&ink(Ink::Dim, &format!("  {step}"))));
    let mut stage = tokio::select! {
        built = building => built?,
        () = &mut stop => return Ok(()),
    };
    let findings = tokio::select! {
        findings = watch(&mut stage) => findings?,
        () = &mut stop => return stage.end().await,
    };
    next_steps(home, &stage, &findings).await?;
    let fallen = tokio::select! {
        () = &mut stop => Ok(()),
        fallen = look_after(&mut stage) => fallen,
    };
    say("\nending all processes")?;
    stage.end().await?;
    fallen
}

async fn watch(stage: &mut Stage) -> Result<Findings, DemoError> {
    let carried = stage.description.instances.iter();
    let carried: Vec<String> = carried.map(|one| format!("{} runs on {}", one.name, one.node)).collect();
    say(&format!("\n{}; the other nodes are spares.", carried.join(", ")))?;
    say("Now a node hangs: its programs stand still, its kernel answers nothing, its power stays on.")?;
    say(&ink(
        Ink::Dim,
        "Seconds since the fault, and entries of the cluster's replicated log. What is to be done is committed first\n\
         (i12: index in the log), then done, then read back; only what was seen counts.\n",
    ))?;
    let findings = failover::run(stage, Kind::Hang, true).await?;
    let back = Moments::of(&findings).back;
    let (lost, overlapping) = (findings.writes.lost, findings.writes.overlapping);
    let sentence =
        format!("service back after {}, lost writes {lost}, overlapping writers {overlapping}", moment(back));
    let broken = broken(&findings);
    let colour = if broken.is_empty() { Ink::Good } else { Ink::Bad };
    say(&format!("\n{}", ink(colour, &sentence)))?;
    say(&ink(
        Ink::Dim,
        "counted by the storage array, which sees every write, whatever the supervisor believes",
    ))?;
    match broken.is_empty() {
        true => Ok(findings),
        false => Err(DemoError::Unexpected(format!(
            "the failover broke a promise: {}; logs: {}",
            broken.join("; "),
            stage.dir().display()
        ))),
    }
}

/// Looks after the processes: a member may be killed by the reader, for that is the point; without the rack there is
/// nothing left to see.
async fn look_after(stage: &mut Stage) -> Result<(), DemoError> {
    let mut look = interval(LOOK_EVERY);
    loop {
        look.tick().await;
        stage.check_rack()?;
        for (member, how) in stage.cluster.bury() {
            say(&format!("member {member} has ended ({how}); the others go on while two are left"))?;
        }
    }
}

async fn next_steps(home: &Home, stage: &Stage, findings: &Findings) -> Result<(), DemoError> {
    let plan = findings.failovers.first().map_or_else(String::new, |failover| failover.id.to_string());
    let rack = shorter(stage.rack_dir());
    let node = &findings.victim.node;
    let leader = stage.cluster.leader().await?;
    let pid = leader.and_then(|leader| stage.cluster.pid(leader)).map(|pid| pid.to_string());
    let steps = [
        (format!("export PATH={}:$PATH", home.programs().display()), ""),
        (format!("export HACTL_CONFIG={}", stage.cluster.context().display()), ""),
        ("hactl status".to_owned(), "the cluster on one screen"),
        (format!("hactl explain {node}"), "seen, judged, planned, done, proved"),
        (format!("hactl failover show {plan}"), "every step of it, with its evidence"),
        ("hactl events --follow".to_owned(), "what you saw above, as it goes on"),
        (format!("rack do --dir {rack} power-loss node-2"), "another failure; the last spare is taken"),
        (format!("rack do --dir {rack} report"), "what the storage array has seen"),
        (
            format!("hactl node release {node} --reason repaired"),
            "a spare again, once older commands have drained",
        ),
        (format!("kill -9 {}", pid.unwrap_or_default()), "the leader dies; another member takes over"),
    ];
    say("\nEverything stays up. In another terminal:\n")?;
    for (command, what) in steps {
        say(format!("  {command:<58} {}", ink(Ink::Dim, what)).trim_end())?;
    }
    say(&format!("\nLogs of all processes: {}    Ctrl-C ends everything.", shorter(stage.dir())))
}

/// The path from the current directory, if it is below it.
fn shorter(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let relative = here.and_then(|here| path.strip_prefix(here).ok());
    relative.unwrap_or(path).display().to_string()
}
