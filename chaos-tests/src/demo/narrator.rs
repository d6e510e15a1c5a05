//! Tells a failover while it happens.
//!
//! What this is: the cluster's history and the members' suspicions, merged by their stamps and printed.
//! Why it exists: the reader sees what was decided when, and why, in the words of the committed records.
//! What it never does: invent a line; each is an entry of the replicated log, a line of a member's log, or what the rack saw.

use super::DemoError;
use super::history::suspicions;
use super::moments::Point;
use super::table::{say, timeline};
use policies::{Event, MemberId, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

/// Lines wait this long, so that an earlier one that comes later still stands before them.
const HOLD: Duration = Duration::from_millis(150);
/// How often it looks for new lines.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A telling under way.
pub(super) struct Narrator {
    seen: mpsc::UnboundedSender<(Point, String)>,
    task: JoinHandle<Result<(), DemoError>>,
}

impl Narrator {
    /// Begins to tell what happens to `node`. `events`: the history, and how much of it is older than the fault.
    pub(super) fn begin(
        node: NodeId,
        fault_at: Point,
        logs: BTreeMap<MemberId, PathBuf>,
        (events, told): (watch::Receiver<Vec<Event>>, usize),
    ) -> Narrator {
        let (seen, inbox) = mpsc::unbounded_channel();
        let telling = Telling {
            node,
            fault_at,
            logs,
            events,
            told,
            suspecting: BTreeSet::new(),
            named: BTreeSet::new(),
            waiting: BTreeMap::new(),
            lines: 0,
        };
        Narrator { seen, task: tokio::spawn(telling.run(inbox)) }
    }

    /// Adds something that was seen outside the cluster.
    pub(super) fn tell(&self, at: Point, text: String) {
        // It fails only if the telling has ended already, and then `end` says why.
        self.seen.send((at, text)).ok();
    }

    /// Tells what is left and ends.
    pub(super) async fn end(self) -> Result<(), DemoError> {
        drop(self.seen);
        self.task.await.map_err(|error| DemoError::Unexpected(format!("tell the failover: {error}")))?
    }
}

struct Telling {
    node: NodeId,
    fault_at: Point,
    logs: BTreeMap<MemberId, PathBuf>,
    events: watch::Receiver<Vec<Event>>,
    told: usize,
    suspecting: BTreeSet<MemberId>,
    /// Failovers whose number was told.
    named: BTreeSet<String>,
    /// By time, and by order of arrival where times are the same.
    waiting: BTreeMap<(Point, u64), String>,
    lines: u64,
}

impl Telling {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<(Point, String)>) -> Result<(), DemoError> {
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                seen = inbox.recv() => match seen {
                    Some((at, text)) => self.add(at, text),
                    None => {
                        self.gather();
                        return self.tell(Point(u64::MAX));
                    }
                }
            }
            self.gather();
            let ripe = Point::now().0.saturating_sub(u64::try_from(HOLD.as_micros()).unwrap_or(0));
            self.tell(Point(ripe))?;
        }
    }

    fn gather(&mut self) {
        let news: Vec<Event> = self.events.borrow_and_update().iter().skip(self.told).cloned().collect();
        self.told += news.len();
        for event in news {
            let text = sentence(&event, &mut self.named);
            self.add(Point::of(event.at), text);
        }
        for (member, at) in suspicions(&self.logs, &self.node, self.fault_at) {
            if self.suspecting.insert(member) {
                let node = &self.node;
                self.add(
                    at,
                    format!("{member} hears {node} no more: it suspects it, and asks its kernel and its BMC"),
                );
            }
        }
    }

    fn add(&mut self, at: Point, text: String) {
        self.lines += 1;
        self.waiting.insert((at, self.lines), text);
    }

    fn tell(&mut self, until: Point) -> Result<(), DemoError> {
        while let Some(entry) = self.waiting.first_entry()
            && entry.key().0 <= until
        {
            let ((at, _), text) = entry.remove_entry();
            say(&timeline(at.since(self.fault_at), &text))?;
        }
        Ok(())
    }
}

/// An event's sentence, with the number of its failover only where that is new. An entry that names its own index is
/// an intent: the committed record that something is about to be done.
fn sentence(event: &Event, named: &mut BTreeSet<String>) -> String {
    let failover = event.about.iter().find_map(|about| about.strip_prefix("failover/"));
    let prefix = failover.map(|id| format!("failover {id}: ")).unwrap_or_default();
    let short = match failover {
        Some(id) if !named.insert(id.to_owned()) => event.text.strip_prefix(&prefix).unwrap_or(&event.text),
        Some(_) | None => &event.text,
    };
    match short.ends_with(&format!("({})", event.index)) {
        true => format!("intent: {short}"),
        false => short.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies::{LogIndex, Wall};

    #[test]
    fn a_failover_is_named_once_and_an_intent_is_marked() {
        let mut named = BTreeSet::new();
        let mut told = |index: u64, text: &str| {
            let about = vec!["failover/f20".to_owned(), "node/node-1".to_owned()];
            sentence(&Event { index: LogIndex(index), at: Wall(1), about, text: text.to_owned() }, &mut named)
        };
        assert_eq!(told(20, "failover f20: web-1 moves"), "failover f20: web-1 moves");
        assert_eq!(told(21, "failover f20: power off node-1 (i21)"), "intent: power off node-1 (i21)");
        assert_eq!(
            told(25, "failover f20: power off node-1 done (i21, 19ms)"),
            "power off node-1 done (i21, 19ms)"
        );
        assert_eq!(told(44, "failover f20 is done"), "failover f20 is done");
    }
}
