//! When things happened in a failover, each as the time since the fault.
//!
//! What this is: pure functions of what was found. All programs of the demo run on one computer, so their wall clocks
//! are one clock; the array's times are nanoseconds since the rack's start, of which the wall clock is known.
//! What it never does: measure by itself; whoever did or saw a thing stamped it.

use super::findings::Findings;
use policies::{Action, Intent, Phase, Plan, Verdict, Wall};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point on this computer's wall clock, in microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Point(pub(super) u64);

impl Point {
    /// The stamp of a log entry.
    pub(super) fn of(wall: Wall) -> Point {
        Point(wall.0.saturating_mul(1000))
    }

    /// A time of the rack, in nanoseconds since its start.
    pub(super) fn of_rack(started: Wall, at: u64) -> Point {
        Point(Point::of(started).0.saturating_add(at / 1000))
    }

    pub(super) fn now() -> Point {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Point(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    /// Zero if it was earlier: the stamps of log entries are whole milliseconds.
    pub(super) fn since(self, earlier: Point) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Times since the fault; `None`: it did not happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moments {
    /// The first member heard the node no more.
    pub(super) suspected: Option<Duration>,
    /// The cluster committed that the node has failed.
    pub(super) judged: Option<Duration>,
    /// The cluster committed the proof that the node can touch nothing any more.
    pub(super) proven: Option<Duration>,
    /// The array accepted the first write of the new node.
    pub(super) back: Option<Duration>,
    /// How long nobody wrote.
    pub(super) pause: Option<Duration>,
    /// The leader was killed.
    pub(super) killed: Option<Duration>,
    /// The next leader first did something for the failover.
    pub(super) taken_up: Option<Duration>,
    /// From the intent to switch off to its proven end.
    pub(super) power_off: Option<Duration>,
}

impl Moments {
    pub(super) fn of(findings: &Findings) -> Moments {
        let fault = findings.fault_at();
        let since = |point: Point| point.since(fault);
        let plan = findings.plans.first();
        Moments {
            suspected: findings.suspected.values().min().copied().map(since),
            judged: matches!(findings.old.verdict, Verdict::Failed(_))
                .then(|| since(Point::of(findings.old.judged))),
            proven: plan.and_then(proven).map(since),
            back: findings.handover().map(|handover| since(findings.point(handover.first_at))),
            pause: findings
                .handover()
                .map(|handover| Duration::from_nanos(handover.first_at.saturating_sub(handover.last_at))),
            killed: findings.killed.as_ref().map(|killed| since(killed.at)),
            taken_up: findings.killed.as_ref().and_then(|killed| taken_up(plan?, killed.at)).map(since),
            power_off: plan.and_then(power_off),
        }
    }
}

/// When the proof was committed.
fn proven(plan: &Plan) -> Option<Point> {
    let entered = plan.entered.iter().find(|(phase, _)| *phase == Phase::Moving)?;
    Some(Point::of(entered.1))
}

/// The first thing that anybody but the killed leader did: it ended a step that was open, or began one.
fn taken_up(plan: &Plan, killed: Point) -> Option<Point> {
    let first = plan.intents.first()?.leader;
    let began = plan.intents.iter().filter(|intent| intent.leader != first).map(|intent| intent.at);
    let ended = plan.intents.iter().filter_map(|intent| intent.end.as_ref()).map(|(_, at)| *at);
    began.chain(ended).map(Point::of).filter(|at| *at > killed).min()
}

fn power_off(plan: &Plan) -> Option<Duration> {
    let is_it = |intent: &&Intent| {
        matches!(&intent.action, Action::PowerOff { node, .. } if *node == plan.decision.from)
            && intent.is_done()
    };
    let intent = plan.intents.iter().find(is_it)?;
    let (_, ended) = intent.end.as_ref()?;
    Some(Point::of(*ended).since(Point::of(intent.at)))
}
