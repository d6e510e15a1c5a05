//! What the cluster says that it does, as it happens.
//!
//! What this is: the event streams of all members merged into one list, and the moments at which members heard a node
//! no more, from their logs.
//! Why it exists: whoever leads says it first, and the leader may be killed; so all are followed.
//! What it never does: interpret the sentences; times and causes come from the committed records.

use super::moments::Point;
use jiff::Timestamp;
use policies::{Event, MemberId, NodeId};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use supervisor::client::Client;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Longest line of an event stream, in bytes; an event is one sentence.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Pause before a member that does not answer is asked again.
const AGAIN: Duration = Duration::from_millis(200);

/// The merged history. Ends following when it is dropped.
pub(crate) struct History {
    events: watch::Receiver<Vec<Event>>,
    _tasks: JoinSet<()>,
}

impl History {
    /// Follows each of these members.
    pub(crate) fn follow(clients: Vec<Arc<Client>>) -> History {
        let (sender, events) = watch::channel(Vec::new());
        let sender = Arc::new(sender);
        let mut tasks = JoinSet::new();
        for client in clients {
            tasks.spawn(follow(client, sender.clone()));
        }
        History { events, _tasks: tasks }
    }

    /// All events so far, in the order of arrival, and those to come.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Vec<Event>> {
        self.events.clone()
    }
}

/// Follows one member; a stream that breaks is taken up where it ended, also after the member was killed and runs again.
async fn follow(client: Arc<Client>, heard: Arc<watch::Sender<Vec<Event>>>) {
    let mut after = 0;
    loop {
        let Ok(mut response) = client.stream(&format!("/v1/events/follow?after={after}")).await else {
            tokio::time::sleep(AGAIN).await;
            continue;
        };
        let mut buffer: Vec<u8> = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            buffer.extend_from_slice(&chunk);
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                if let Ok(event) = serde_json::from_slice::<Event>(&line) {
                    after = after.max(event.index.0);
                    add(&heard, event);
                }
            }
            if buffer.len() > LINE_BYTES_MAX {
                break;
            }
        }
    }
}

/// Each event comes from every member; the first to come counts.
fn add(heard: &watch::Sender<Vec<Event>>, event: Event) {
    heard.send_if_modified(|events| {
        let new = !events.contains(&event);
        if new {
            events.push(event);
        }
        new
    });
}

/// When each member heard the node no more for the first time since `since`.
pub(super) fn suspicions(
    logs: &BTreeMap<MemberId, PathBuf>,
    node: &NodeId,
    since: Point,
) -> BTreeMap<MemberId, Point> {
    let first = |(member, log): (&MemberId, &PathBuf)| {
        // A member whose log cannot be read has no say here.
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let at = text.lines().filter_map(|line| silent(line, node)).find(|at| *at >= since)?;
        Some((*member, at))
    };
    logs.iter().filter_map(first).collect()
}

/// Reads the line by which a member says that it heard this node no more.
fn silent(line: &str, node: &NodeId) -> Option<Point> {
    let said = format!(": heard node={node} change=Silent ");
    let (stamp, _) = line.split_once(' ').filter(|(_, rest)| rest.contains(&said))?;
    let at: Timestamp = stamp.parse().ok()?;
    u64::try_from(at.as_microsecond()).ok().map(Point)
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies::{LogIndex, Wall};

    #[test]
    fn an_event_that_comes_from_two_members_is_one_event() {
        let (sender, events) = watch::channel(Vec::new());
        let event = |text: &str| Event {
            index: LogIndex(7),
            at: Wall(1),
            about: vec!["node/n1".to_owned()],
            text: text.to_owned(),
        };
        for text in ["one", "two", "one", "two"] {
            add(&sender, event(text));
        }
        assert_eq!(*events.borrow(), [event("one"), event("two")]);
    }

    #[test]
    fn the_first_silence_after_the_fault_is_found_in_a_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("m1.log");
        let node: NodeId = "node-1".parse().unwrap();
        let line = |second: u32, node: &str, change: &str| {
            format!(
                "2026-01-02T03:04:{second:02}.500000Z DEBUG supervisor::runtime: heard node={node} change={change}\n"
            )
        };
        let text = [
            line(1, "node-1", "Silent { since: Mono(1) }"),
            line(5, "node-10", "Silent { since: Mono(2) }"),
            line(6, "node-1", "Heard { boot: b1, epoch: e1 }"),
            line(7, "node-1", "Silent { since: Mono(3) }"),
            line(8, "node-1", "Silent { since: Mono(4) }"),
        ];
        std::fs::write(&log, text.concat()).unwrap();
        let at: Timestamp = "2026-01-02T03:04:04Z".parse().unwrap();
        let since = Point(u64::try_from(at.as_microsecond()).unwrap());
        let found = suspicions(&BTreeMap::from([(MemberId(1), log)]), &node, since);
        assert_eq!(found, BTreeMap::from([(MemberId(1), Point(since.0 + 3_500_000))]));
    }
}
