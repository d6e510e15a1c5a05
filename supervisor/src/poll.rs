//! Watches nodes that have no agent: they are asked again and again, and an answer counts as a heartbeat.
//!
//! Why it exists: a node whose owner installs nothing must be protected too. What it never does: judge; silence is
//! news for the brain, which then asks once more, harder.

use policies::watch::{Change, Limits, Slot, Watch};
use policies::{BootId, Epoch, Heartbeat, Millis, Mono, NodeId};
use std::collections::BTreeMap;
use std::time::Duration;

/// The nodes without agents.
pub(crate) struct Poll {
    watch: Watch,
    nodes: BTreeMap<NodeId, Polled>,
    next: u32,
}

struct Polled {
    slot: Slot,
    /// Between two questions.
    pause: Millis,
    due: Mono,
}

impl Poll {
    pub(crate) fn new(now: Mono) -> Self {
        Poll { watch: Watch::new(now), nodes: BTreeMap::new(), next: 0 }
    }

    /// Watches a node, or changes its limits.
    pub(crate) fn enroll(&mut self, node: NodeId, limits: Limits, pause: Millis, now: Mono) {
        let next = &mut self.next;
        let polled = self.nodes.entry(node).or_insert_with(|| {
            *next += 1;
            Polled { slot: Slot(*next - 1), pause, due: now }
        });
        polled.pause = pause;
        self.watch.enroll(polled.slot, limits, now);
    }

    /// Watches it no longer.
    pub(crate) fn forget(&mut self, node: &NodeId) {
        if let Some(polled) = self.nodes.remove(node) {
            self.watch.forget(polled.slot);
        }
    }

    /// The nodes to ask now, each with the time in which an answer counts.
    pub(crate) fn due(&mut self, now: Mono) -> Vec<(NodeId, Duration)> {
        let mut due = vec![];
        for (node, polled) in self.nodes.iter_mut().filter(|(_, polled)| now >= polled.due) {
            polled.due = now + polled.pause;
            due.push((node.clone(), Duration::from_millis(polled.pause.0)));
        }
        due
    }

    /// The node answered.
    pub(crate) fn answered(&mut self, node: &NodeId, now: Mono) -> Option<Change> {
        let slot = self.nodes.get(node)?.slot;
        let beat = Heartbeat { boot: BootId(0), epoch: Epoch(0), write_age: None, last_gasp: None };
        self.watch.beat(slot, now, &beat)
    }

    /// Those that have been silent for too long.
    pub(crate) fn tick(&mut self, now: Mono) -> Vec<(NodeId, Change)> {
        let mut changes = vec![];
        self.watch.tick(now, &mut changes);
        let name = |slot: Slot| {
            self.nodes.iter().find(|(_, polled)| polled.slot == slot).map(|(node, _)| node.clone())
        };
        changes.into_iter().filter_map(|(slot, change)| Some((name(slot)?, change))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_keep_a_node_alive_and_silence_is_news_once() {
        let limits = Limits { suspect_after: Millis(600), write_stale_after: Millis(600), paths_min: 1 };
        let node: NodeId = "n1".parse().unwrap();
        let mut poll = Poll::new(Mono(0));
        poll.enroll(node.clone(), limits, Millis(200), Mono(0));
        assert_eq!(poll.due(Mono(0)).len(), 1);
        assert_eq!(poll.due(Mono(100)).len(), 0);
        assert!(matches!(poll.answered(&node, Mono(100)), Some(Change::Heard { .. })));
        assert_eq!(poll.due(Mono(200)).len(), 1);
        let mut silences = vec![];
        for now in (0..2000).step_by(10) {
            silences.extend(poll.tick(Mono(now)));
        }
        assert!(matches!(silences.as_slice(), [(_, Change::Silent { since: Mono(100) })]), "{silences:?}");
        poll.enroll(node.clone(), limits, Millis(300), Mono(2000));
        assert_eq!(poll.due(Mono(2000)), vec![(node.clone(), Duration::from_millis(300))]);
        assert_eq!(poll.due(Mono(2299)), vec![]);
        poll.forget(&node);
        assert_eq!(poll.due(Mono(5000)), vec![]);
    }
}
