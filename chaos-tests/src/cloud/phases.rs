//! How long each part of a failover took, what of it was ours, and how many calls it made.
//!
//! Why it exists: both are promises. All times are the cluster's committed stamps. What it never does: guess; a line of a log that
//! names no effect of the failover is not counted.

use policies::{Action, Intent, LogIndex, Millis, Phase, Plan, Wall};
use std::collections::BTreeSet;
use std::fmt;

/// Calls that one try of a step may make on average, beside one a second that it lasts. A failover in which nothing else goes wrong has six
/// steps that last 24 s together: 60 calls. A step that a second leader takes over is one try, and asks twice.
const CALLS_MAX: usize = 6;

/// A failover that is done, in its parts; each begins where the one before ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Phases {
    /// From the fault to the committed decision.
    detect: Millis,
    /// To the committed proof.
    fence: Millis,
    /// Volume and port to the spare, to the seen end of the deployment and of power on, or to the first heartbeat.
    deploy: Millis,
    /// To the first heartbeat of the new epoch.
    boot: Millis,
    /// What of `fence` and `deploy` passed while nothing was asked of a service.
    pub(super) ours: Millis,
    /// Calls that reached the cloud: what waits for a service that is away is no burden to it.
    pub(super) calls: usize,
    /// The tries of all steps.
    tries: usize,
    /// How long they lasted, together.
    lasted: Millis,
}

impl Phases {
    /// Of a plan that is done; `None` if one of its stamps is missing.
    pub(super) fn of(plan: &Plan, fault: Wall, logs: &str) -> Option<Phases> {
        let entered = |phase| plan.entered.iter().find(|(entered, _)| *entered == phase).map(|(_, at)| *at);
        let (proven, heard) = (entered(Phase::Moving)?, entered(Phase::Done)?);
        let starts = |action: &Action| matches!(action, Action::SetBoot { .. } | Action::PowerOn { .. });
        let orders = plan.intents.iter().filter(|intent| starts(&intent.action) && intent.is_done());
        let ordered = orders.filter_map(|intent| intent.end.as_ref()).map(|(_, at)| *at).max();
        // A node may be heard while its deployment is still being finished.
        let on = ordered.map_or(heard, |at| at.min(heard));
        let span = |intent: &Intent| (intent.at, intent.end.as_ref().map_or(on, |(_, at)| *at));
        let asked: Vec<(Wall, Wall)> = plan.intents.iter().map(span).collect();
        let effects: BTreeSet<LogIndex> = plan.intents.iter().map(|intent| intent.token).collect();
        Some(Phases {
            detect: plan.at.since(fault),
            fence: proven.since(plan.at),
            deploy: on.since(proven),
            boot: heard.since(on),
            tries: asked.len(),
            lasted: Millis(asked.iter().map(|(from, until)| until.since(*from).0).sum()),
            ours: idle(asked, plan.at, on),
            calls: calls(logs, &effects).len(),
        })
    }
}

impl Phases {
    /// As many calls as may be: what the steps need, and looks at what takes its time.
    pub(super) fn calls_max(&self) -> usize {
        let lasted = usize::try_from(self.lasted.0 / 1000).unwrap_or(usize::MAX);
        CALLS_MAX.saturating_mul(self.tries).saturating_add(lasted)
    }
}

impl fmt::Display for Phases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Phases { detect, fence, deploy, boot, ours, calls, tries, lasted: _ } = self;
        write!(f, "detect {detect}, fence {fence}, deploy {deploy}, boot {boot}; ours {ours}, ")?;
        write!(f, "{calls} calls for {tries} tries of steps")
    }
}

/// How much of the time from `from` to `until` lies in none of these spans.
fn idle(mut spans: Vec<(Wall, Wall)>, from: Wall, until: Wall) -> Millis {
    spans.sort();
    let (mut idle, mut covered) = (0, from);
    for (begin, end) in spans {
        idle += begin.min(until).since(covered).0;
        covered = covered.max(end);
    }
    Millis(idle + until.since(covered).0)
}

/// The calls that members made for these effects, from their logs: what each was for.
fn calls(log: &str, effects: &BTreeSet<LogIndex>) -> Vec<String> {
    let call = |line: &str| {
        let (_, after) = line.split_once("effect{token=i")?;
        let (token, after) = after.split_once('}')?;
        let is_its = effects.contains(&LogIndex(token.parse().ok()?));
        let (_, doing) = after.split_once(": asked doing=\"")?;
        let (doing, _) = doing.split_once(" (")?;
        (is_its && !after.contains(": not sent: ")).then(|| doing.to_owned())
    };
    log.lines().filter_map(call).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_apart_by_their_effect() {
        let line = |effect: &str, doing: &str| {
            let at = "2026-11-30T04:00:00.0Z";
            format!(
                "{at} DEBUG {effect}openstack::exchange: asked doing=\"{doing} (GET http://h/v1)\" took=3ms\n"
            )
        };
        let log = [
            line("effect{token=i7}: ", "read node n1"),
            line("", "read node n1"),
            line("effect{token=i8}: ", "read node n2"),
            line("effect{token=i7}: ", "power off n1"),
            "effect{token=i7}: openstack::exchange: asked doing=\"read node n1 (GET u)\" took=1ms error=\"read node n1 (GET u): not sent: x\"\n".to_owned(),
        ];
        let made = calls(&log.concat(), &BTreeSet::from([LogIndex(7)]));
        assert_eq!(made, ["read node n1", "power off n1"]);
    }

    #[test]
    fn what_passes_while_nothing_is_asked_is_ours() {
        let at = |pairs: &[(u64, u64)]| pairs.iter().map(|(from, to)| (Wall(*from), Wall(*to))).collect();
        assert_eq!(idle(at(&[(12, 20), (11, 15), (25, 30)]), Wall(10), Wall(31)), Millis(1 + 5 + 1));
        assert_eq!(idle(vec![], Wall(10), Wall(31)), Millis(21));
        assert_eq!(idle(at(&[(10, 40)]), Wall(10), Wall(31)), Millis(0));
    }
}
