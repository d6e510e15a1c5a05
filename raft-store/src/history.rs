//! The searchable history: every event of every applied command, one sled database a day.
//!
//! Why it exists: operators ask what happened, weeks later, and the replicated state must not grow for that. Each
//! member keeps its own copy, fed from the log.
//! What it never does: stop the member. It can be lost: sled 0.34's `flush` is no fsync, it may refuse to open after
//! a torn write, and it does not give purged space back (ADR 0002). So a day that does not open is moved aside and
//! begun anew, a day that is too old is dropped whole, and events are dropped rather than waited for.
//!
//! Keys are `index of the entry: u64 big endian | number of the event within it: u32 big endian`, so applying an
//! entry again after a restart writes the same event in the same place.

use crate::days::{Days, DaysError, day_of};
use jiff::civil::Date;
use policies::{Event, LogIndex, Millis, Wall};
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::broadcast;

/// Events that wait to be written. A failover gives some tens; a full queue means that the disk hangs.
const QUEUE_MAX: usize = 4096;
/// Events that a slow subscriber may lag behind before it is told that it missed some.
const SUBSCRIBER_LAG_MAX: usize = 1024;
/// Most events that one query returns.
pub const QUERY_EVENTS_MAX: usize = 10_000;

/// What to look for. The default finds the newest events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Not before this stamp.
    pub since: Option<Wall>,
    /// Not after this stamp.
    pub until: Option<Wall>,
    /// Only events about this, as in `node/n1`.
    pub about: Option<String>,
    /// At most so many, the newest ones; never more than [`QUERY_EVENTS_MAX`]. `None` is 100.
    pub limit: Option<usize>,
}

impl Query {
    fn limit(&self) -> usize {
        self.limit.unwrap_or(100).min(QUERY_EVENTS_MAX)
    }

    fn matches(&self, event: &Event) -> bool {
        let about = |wanted: &String| event.about.iter().any(|about| about == wanted);
        self.since.is_none_or(|since| event.at >= since)
            && self.until.is_none_or(|until| event.at <= until)
            && self.about.as_ref().is_none_or(about)
    }
}

/// The history, for readers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct History {
    days: Arc<Mutex<Days>>,
    live: broadcast::Sender<Event>,
}

/// The history, for the state machine.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    queue: SyncSender<Vec<Event>>,
}

/// Opens the history in `dir`. Cannot fail: what does not open is moved aside or goes without history.
pub(crate) fn open(dir: PathBuf, keep: Millis) -> (History, Recorder) {
    let (queue, waiting) = sync_channel(QUEUE_MAX);
    let days = Arc::new(Mutex::new(Days::new("history", dir, keep)));
    let history = History { days, live: broadcast::Sender::new(SUBSCRIBER_LAG_MAX) };
    let writer = history.clone();
    let started =
        std::thread::Builder::new().name("history".to_owned()).spawn(move || writer.write_all(&waiting));
    if let Err(error) = started {
        tracing::warn!(%error, "no thread for the history; this member runs without");
    }
    (history, Recorder { queue })
}

/// No history: whoever stands on a medium has no directory for it. Nothing is found in it.
pub(crate) fn none() -> (History, Recorder) {
    let (queue, _nobody) = sync_channel(1);
    let mut days = Days::new("history", PathBuf::new(), Millis(0));
    days.close();
    let history = History { days: Arc::new(Mutex::new(days)), live: broadcast::Sender::new(1) };
    (history, Recorder { queue })
}

impl Recorder {
    /// Hands events over to be written. Never waits.
    pub(crate) fn record(&self, events: &[Event]) {
        if events.is_empty() {
            return;
        }
        match self.queue.try_send(events.to_vec()) {
            Ok(()) => {}
            Err(TrySendError::Full(lost)) => {
                tracing::warn!(lost = lost.len(), "the history's disk does not keep up; events are lost");
            }
            Err(TrySendError::Disconnected(_)) => tracing::debug!("the history is closed"),
        }
    }
}

impl History {
    /// Events from now on. An event is stored before it is sent: who subscribes first and queries then misses none.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.live.subscribe()
    }

    /// The newest events that match, oldest first.
    ///
    /// # Errors
    /// [`DaysError`] if a day could not be read; the cluster is not affected.
    pub async fn query(&self, query: Query) -> Result<Vec<Event>, DaysError> {
        self.query_seen(query, |_| true).await
    }

    /// The same for who may not see all of them: the newest of those that match and are seen.
    ///
    /// # Errors
    /// As [`History::query`].
    pub async fn query_seen(
        &self,
        query: Query,
        sees: impl Fn(&Event) -> bool + Send + 'static,
    ) -> Result<Vec<Event>, DaysError> {
        let days = Arc::clone(&self.days);
        let search = move || search(&mut days.lock().unwrap_or_else(PoisonError::into_inner), &query, sees);
        tokio::task::spawn_blocking(search).await.map_err(DaysError::Stopped)?
    }

    /// Closes all days, for good: the next process may open them.
    pub(crate) fn close(&self) {
        self.days.lock().unwrap_or_else(PoisonError::into_inner).close();
    }

    fn write_all(&self, waiting: &Receiver<Vec<Event>>) {
        while let Ok(events) = waiting.recv() {
            for (number, event) in (0_u32..).zip(events) {
                let mut days = self.days.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = write(&mut days, number, &event) {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "an event is lost to the history"
                    );
                }
                drop(days);
                // Nobody may be listening.
                drop(self.live.send(event));
            }
        }
    }
}

fn key_of(index: LogIndex, number: u32) -> [u8; 12] {
    let mut key = [0; 12];
    let bytes = index.0.to_be_bytes().into_iter().chain(number.to_be_bytes());
    key.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    key
}

fn write(days: &mut Days, number: u32, event: &Event) -> Result<(), DaysError> {
    let day = day_of(event.at);
    let json = serde_json::to_vec(event).map_err(io::Error::other);
    let path = days.path(day);
    let json = json.map_err(|source| DaysError::Files { doing: "encode an event for", path, source })?;
    days.insert(day, key_of(event.index, number), json)
}

fn search(days: &mut Days, query: &Query, sees: impl Fn(&Event) -> bool) -> Result<Vec<Event>, DaysError> {
    let mut found = Vec::new();
    let in_range = |day: &Date| {
        query.since.is_none_or(|since| *day >= day_of(since))
            && query.until.is_none_or(|until| *day <= day_of(until))
    };
    for day in days.stored()?.into_iter().filter(in_range).rev() {
        let path = days.path(day);
        for item in days.day(day)?.iter().values().rev() {
            if found.len() >= query.limit() {
                break;
            }
            let engine = |source| DaysError::Engine { doing: "read", path: path.clone(), source };
            match serde_json::from_slice::<Event>(&item.map_err(engine)?) {
                Ok(event) if query.matches(&event) && sees(&event) => found.push(event),
                Ok(_) => {}
                Err(error) => tracing::warn!(%day, %error, "an event of the history does not parse"),
            }
        }
    }
    found.reverse();
    found.sort_by_key(|event| (event.at, event.index));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const DAY: u64 = 86_400_000;

    fn event(index: u64, at: u64, about: &str) -> Event {
        Event {
            index: LogIndex(index),
            at: Wall(at),
            about: vec![about.into()],
            text: format!("event {index}"),
        }
    }

    fn days(dir: &Path, keep: u64) -> Days {
        Days::new("history", dir.to_owned(), Millis(keep))
    }

    fn texts(events: Vec<Event>) -> Vec<u64> {
        events.into_iter().map(|event| event.index.0).collect()
    }

    #[test]
    fn events_are_found_by_time_and_object_newest_within_the_limit_and_oldest_first() {
        let dir = tempfile::tempdir().unwrap();
        let mut days = days(dir.path(), 100 * DAY);
        for index in 0..10 {
            let about = if index % 2 == 0 { "node/n1" } else { "node/n2" };
            write(&mut days, 0, &event(index, DAY * 20_000 + index * DAY / 2, about)).unwrap();
        }
        let mut find = |query| texts(search(&mut days, &query, |_| true).unwrap());
        assert_eq!(find(Query::default()), (0..10).collect::<Vec<_>>());
        assert_eq!(find(Query { limit: Some(3), ..Query::default() }), [7, 8, 9]);
        assert_eq!(find(Query { about: Some("node/n1".into()), ..Query::default() }), [0, 2, 4, 6, 8]);
        let since = Some(Wall(DAY * 20_001));
        let until = Some(Wall(DAY * 20_003));
        assert_eq!(find(Query { since, until, ..Query::default() }), [2, 3, 4, 5, 6]);
    }

    #[test]
    fn applying_an_entry_again_writes_its_events_in_the_same_place() {
        let dir = tempfile::tempdir().unwrap();
        let mut days = days(dir.path(), DAY);
        for _ in 0..2 {
            write(&mut days, 0, &event(7, DAY, "a")).unwrap();
            write(&mut days, 1, &event(7, DAY, "b")).unwrap();
        }
        assert_eq!(search(&mut days, &Query::default(), |_| true).unwrap().len(), 2);
    }

    #[test]
    fn old_days_go_whole_but_neither_a_wild_stamp_nor_a_wild_clock_wipes_the_history() {
        let dir = tempfile::tempdir().unwrap();
        let mut days = days(dir.path(), 7 * DAY);
        write(&mut days, 0, &event(1, DAY * 10, "old")).unwrap();
        write(&mut days, 0, &event(2, DAY * 30, "new")).unwrap();
        assert_eq!(
            texts(search(&mut days, &Query::default(), |_| true).unwrap()),
            [2],
            "1970-01-11 is dropped"
        );
        write(&mut days, 0, &event(3, u64::MAX, "wild")).unwrap();
        let mut found = texts(search(&mut days, &Query::default(), |_| true).unwrap());
        found.sort_unstable();
        assert_eq!(found, [3], "by our own clock, 1970-01-31 is old as well");
    }

    #[test]
    fn a_day_that_does_not_open_is_moved_aside_and_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let at = DAY * 20_000;
        let path = dir.path().join(day_of(Wall(at)).to_string());
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("conf"), b"this is no sled").unwrap();
        let mut days = days(dir.path(), DAY);
        write(&mut days, 0, &event(1, at, "n")).unwrap();
        assert_eq!(texts(search(&mut days, &Query::default(), |_| true).unwrap()), [1]);
        let aside = PathBuf::from(format!("{}.corrupt-1", path.display()));
        assert!(aside.join("conf").exists());
    }

    #[tokio::test]
    async fn a_subscriber_sees_what_is_recorded_and_finds_it_stored() {
        let dir = tempfile::tempdir().unwrap();
        let (history, recorder) = open(dir.path().to_owned(), Millis(DAY));
        let mut live = history.subscribe();
        recorder.record(&[event(5, 1, "n")]);
        let seen = live.recv().await.unwrap();
        assert_eq!(history.query(Query::default()).await.unwrap(), [seen]);
    }
}
