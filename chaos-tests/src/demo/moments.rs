//! When things happened in a failover, each as the time since the fault.
//!
//! What this is: pure functions of what was found. All programs of the demo run on one computer, so their wall clocks
//! are one clock; the array's times are nanoseconds since the rack's start, of which the wall clock is known.
//! What it never does: measure by itself; whoever did or saw a thing stamped it.

use super::findings::{Failover, Findings};
use policies::{Action, Wall};
use serde::Serialize;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point on this computer's wall clock, in microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
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
        let failover = findings.failovers.first();
        Moments {
            suspected: findings.suspected.values().min().copied().map(since),
            judged: judged(findings).map(since),
            proven: failover.and_then(|failover| failover.proof.as_ref()).map(|(_, at)| since(*at)),
            back: findings.handover().map(|handover| since(findings.point(handover.first_at))),
            pause: findings
                .handover()
                .map(|handover| Duration::from_nanos(handover.first_at.saturating_sub(handover.last_at))),
            killed: findings.killed.as_ref().map(|killed| since(killed.at)),
            taken_up: findings.killed.as_ref().and_then(|killed| taken_up(failover?, killed.at)).map(since),
            power_off: failover.and_then(power_off),
        }
    }
}

/// When the verdict was committed. A later verdict, with a better cause, may have taken its place since; then the
/// decision that rests on the first one is the nearest stamp that is left.
fn judged(findings: &Findings) -> Option<Point> {
    let decided = findings.failovers.first().map(|failover| failover.decided);
    findings.judged.into_iter().chain(decided).min()
}

/// The first thing that anybody but the killed leader did: it ended a step that was open, or began one.
fn taken_up(failover: &Failover, killed: Point) -> Option<Point> {
    let first = failover.steps.first()?.leader;
    let began = failover.steps.iter().filter(|step| step.leader != first).map(|step| step.intended);
    let ended = failover.steps.iter().filter_map(|step| step.ended);
    began.chain(ended).filter(|at| *at > killed).min()
}

fn power_off(failover: &Failover) -> Option<Duration> {
    let is_it = |action: &Action| matches!(action, Action::PowerOff { node, .. } if *node == failover.from);
    let step = failover.steps.iter().find(|step| step.done && is_it(&step.action))?;
    Some(step.ended?.since(step.intended))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::findings::tests::hang;

    const fn ms(ms: u64) -> Option<Duration> {
        Some(Duration::from_millis(ms))
    }

    #[test]
    fn times_count_from_the_fault() {
        let pause = Some(Duration::from_nanos(1_000_000_005));
        let expected = Moments {
            suspected: ms(490),
            judged: ms(700),
            proven: ms(750),
            back: ms(1000),
            pause,
            power_off: ms(25),
            ..Moments::default()
        };
        assert_eq!(Moments::of(&hang()), expected);
    }

    #[test]
    fn a_later_verdict_does_not_hide_when_the_first_one_came() {
        let mut findings = hang();
        findings.judged = findings.judged.map(|at| Point(at.0 + 9_000_000));
        assert_eq!(Moments::of(&findings).judged, ms(701), "the decision");
    }

    #[test]
    fn the_next_leader_takes_up_with_the_first_thing_after_the_kill() {
        let mut failover = hang().failovers.remove(0);
        let killed = failover.steps[0].intended;
        assert_eq!(taken_up(&failover, killed), failover.steps[0].ended);
        failover.steps[0].ended = None;
        failover.steps[1].leader.0 += 1;
        assert_eq!(taken_up(&failover, killed), Some(failover.steps[1].intended));
        assert_eq!(taken_up(&failover, Point(u64::MAX)), None);
    }
}
