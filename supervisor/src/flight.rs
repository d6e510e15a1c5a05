//! Writes down what this member observes: the flight recorder's pen (ADR 0012).
//!
//! Why it exists: the loop sees every observation on its way to the brain; what a replay needs of them is chosen here,
//! and what has not changed is left out. What it never does: change an input, wait, or fail.

use policies::flight::{Fact, MARK_EVERY, Record, Sign, Standing};
use policies::watch::Change;
use policies::{BootId, ClusterState, Epoch, Input, LastGasp, LogIndex, Millis, Mono, NodeId, Now, Power};
use raft_store::{Tape, TapeState};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

/// What a member wrote down, and what it must tell again when everything is told anew.
pub struct Recorder {
    tape: Tape,
    boot: BootId,
    domain: String,
    nodes: BTreeMap<NodeId, Known>,
    doubts: bool,
    /// When anything was written by the loop, so that the next mark is due.
    wrote: Option<Mono>,
    /// When everything was told last.
    told_all: Option<Mono>,
    wants_all: bool,
    /// The newest entry whose state was looked at.
    looked: Option<LogIndex>,
    lost: u64,
}

/// What was written down of a node last.
#[derive(Default)]
struct Known {
    standing: Option<Standing>,
    last: Option<Last>,
    /// Its last acknowledged write, if that is stale.
    stale: Option<Mono>,
    asked: Option<Option<bool>>,
    power: Option<Option<Power>>,
}

enum Last {
    Heard(Epoch),
    Silent(Mono),
    NeverHeard(Mono),
    Gasped(LastGasp),
}

impl Known {
    /// Takes a change of the watch table; gives what is written down of it. Which paths a node is heard on is not.
    fn change(&mut self, now: Mono, change: Change) -> Option<Sign> {
        Some(match change {
            Change::Heard { epoch, .. } => {
                (self.last, self.stale) = (Some(Last::Heard(epoch)), None);
                Sign::Heard { epoch }
            }
            Change::Silent { since } => {
                self.fell(Last::Silent(since));
                Sign::Silent { lasting: now.since(since) }
            }
            Change::NeverHeard { since } => {
                self.fell(Last::NeverHeard(since));
                Sign::NeverHeard { lasting: now.since(since) }
            }
            Change::LastGasp(gasp) => {
                self.fell(Last::Gasped(gasp));
                Sign::Gasped(gasp)
            }
            Change::WriteStale { age } => {
                self.stale = Some(Mono(now.0.saturating_sub(age.0)));
                Sign::WriteStale { age }
            }
            Change::WriteFresh => {
                self.stale = None;
                Sign::WriteFresh
            }
            Change::PathsFew(_) | Change::PathsEnough => return None,
        })
    }

    /// In each silence the first answers are news, even if they are the same as in the last one.
    fn fell(&mut self, last: Last) {
        (self.last, self.asked, self.power) = (Some(last), None, None);
    }

    /// Everything, in the order in which it can be understood.
    fn all(&self, now: Mono) -> impl Iterator<Item = Sign> {
        let last = self.last.as_ref().map(|last| match last {
            Last::Heard(epoch) => Sign::Heard { epoch: *epoch },
            Last::Silent(since) => Sign::Silent { lasting: now.since(*since) },
            Last::NeverHeard(since) => Sign::NeverHeard { lasting: now.since(*since) },
            Last::Gasped(gasp) => Sign::Gasped(*gasp),
        });
        let stale = self.stale.map(|since| Sign::WriteStale { age: now.since(since) });
        let (asked, power) = (self.asked.map(Sign::Asked), self.power.map(Sign::Power));
        self.standing.clone().map(Sign::Stands).into_iter().chain(last).chain(stale).chain(asked).chain(power)
    }
}

impl Recorder {
    /// Writes on this tape, for this life of the member.
    pub fn new(tape: Tape, boot: BootId, domain: &str) -> Self {
        Recorder {
            tape,
            boot,
            domain: domain.to_owned(),
            nodes: BTreeMap::new(),
            doubts: false,
            wrote: None,
            told_all: None,
            wants_all: false,
            looked: None,
            lost: 0,
        }
    }

    /// Takes note of an input on its way to the brain.
    pub fn input(&mut self, now: Now, input: &Input) {
        if !self.tape.runs() {
            return;
        }
        match input {
            Input::Changed { node, change } => {
                if let Some(sign) = self.known(node).change(now.mono, *change) {
                    self.write(now, Fact::Node(node.clone(), sign));
                }
            }
            Input::Asked { node, answers } => {
                if self.known(node).asked.replace(*answers) != Some(*answers) {
                    self.write(now, Fact::Node(node.clone(), Sign::Asked(*answers)));
                }
            }
            Input::PowerRead { node, power } => {
                if self.known(node).power.replace(*power) != Some(*power) {
                    self.write(now, Fact::Node(node.clone(), Sign::Power(*power)));
                }
            }
            Input::Tick
            | Input::Applied { .. }
            | Input::Installed(_)
            | Input::Leader { .. }
            | Input::Voters(_)
            | Input::Report(_)
            | Input::Found { .. }
            | Input::Checked { .. }
            | Input::Ended { .. }
            | Input::Answered { .. } => {}
        }
    }

    /// Takes note of whether this member doubts itself, as it reports to the others.
    pub fn reports(&mut self, now: Now, doubts: bool) {
        if self.tape.runs() && std::mem::replace(&mut self.doubts, doubts) != doubts {
            self.write(now, Fact::Doubts(doubts));
        }
    }

    /// A node is watched no longer.
    pub fn unwatched(&mut self, now: Now, node: &NodeId) {
        if self.tape.runs() && self.nodes.remove(node).is_some() {
            self.write(now, Fact::Node(node.clone(), Sign::Unwatched));
        }
    }

    /// Looks at the committed state, and at the clock. A pass over all nodes if anything was committed.
    pub fn look(&mut self, now: Now, state: &ClusterState) {
        if !self.tape.runs() {
            return;
        }
        if self.looked.replace(state.applied) != Some(state.applied) {
            for (node, record) in &state.nodes {
                let standing = Standing::of(state, record);
                let known = self.known(node);
                if known.standing.as_ref() != Some(&standing) {
                    known.standing = Some(standing.clone());
                    self.write(now, Fact::Node(node.clone(), Sign::Stands(standing)));
                }
            }
        }
        self.wants_all |= self.tape.wants_all();
        // Not again at once: a disk that takes nothing would be told everything all the time.
        let may = self.told_all.is_none_or(|at| now.mono.since(at) >= MARK_EVERY);
        if self.wants_all && may {
            self.tell_all(now);
        } else if self.wrote.is_none_or(|at| now.mono.since(at) >= MARK_EVERY) {
            self.write(now, Fact::Mark);
        }
    }

    /// How the tape is; `None`: there is none.
    pub fn state(&self) -> Option<&TapeState> {
        self.tape.state()
    }

    fn tell_all(&mut self, now: Now) {
        (self.wants_all, self.told_all, self.wrote) = (false, Some(now.mono), Some(now.mono));
        let lost = self.tape.state().map_or(0, |state| state.lost.load(Relaxed));
        let missing = lost - std::mem::replace(&mut self.lost, lost);
        let began = Fact::Began { boot: self.boot, lost: missing, domain: self.domain.clone() };
        let nodes = self
            .nodes
            .iter()
            .flat_map(|(node, known)| known.all(now.mono).map(|sign| Fact::Node(node.clone(), sign)));
        let doubts = self.doubts.then_some(Fact::Doubts(true));
        let facts = std::iter::once(began).chain(doubts).chain(nodes);
        self.tape.keep(facts.map(|fact| Record { at: now.wall, fact }).collect());
    }

    fn write(&mut self, now: Now, fact: Fact) {
        // Every record of a life comes after its beginning.
        if self.told_all.is_none() {
            return self.tell_all(now);
        }
        self.wrote = Some(now.mono);
        self.tape.keep(vec![Record { at: now.wall, fact }]);
    }

    fn known(&mut self, node: &NodeId) -> &mut Known {
        self.nodes.entry(node.clone()).or_default()
    }
}

/// A gap between two heartbeats that was no news, as the ingest found it.
pub fn gap(now: Now, node: NodeId, lasting: Millis) -> Record {
    Record { at: now.wall, fact: Fact::Node(node, Sign::Gap { lasting }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies::Wall;
    use raft_store::Flight;
    use std::time::{Duration, Instant};

    /// Far enough from any real day's edge for the test's records to be in one day.
    fn at(ms: u64) -> Now {
        let day = clock_day();
        Now { mono: Mono(1_000_000 + ms), wall: Wall(day + ms) }
    }

    fn clock_day() -> u64 {
        crate::clock::wall().0 / 86_400_000 * 86_400_000
    }

    /// All that was kept, once it is as much as is expected.
    fn kept(flight: &Flight, count: usize) -> Vec<String> {
        let began = Instant::now();
        loop {
            let mut found = vec![];
            let mut next = flight.begin(Wall(0)).unwrap();
            while let Some(cursor) = next {
                let read = flight.read(cursor).unwrap();
                for block in &read.blocks {
                    let mut rest = block.as_slice();
                    while let Some(record) = Record::decode(&mut rest).unwrap() {
                        found.push(format!("{} {:?}", record.at.0 - clock_day(), record.fact));
                    }
                }
                next = read.next;
            }
            if found.len() >= count {
                return found;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{found:?}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn changes_are_written_once_and_all_is_told_at_the_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let (flight, tape) = Flight::open(dir.path().to_owned(), Millis(30 * 86_400_000), 1 << 30);
        let mut recorder = Recorder::new(tape, BootId(7), "room");
        let node: NodeId = "n1".parse().unwrap();
        let state = ClusterState::default();
        let changed = |change| Input::Changed { node: "n1".parse().unwrap(), change };
        recorder.input(at(10), &changed(Change::Heard { boot: BootId(1), epoch: Epoch(3) }));
        recorder.look(at(20), &state);
        recorder.input(at(5000), &changed(Change::Silent { since: Mono(1_003_000) }));
        for ms in [5200, 6200, 7200] {
            recorder.input(at(ms), &Input::Asked { node: node.clone(), answers: Some(ms > 7000) });
            recorder.input(at(ms), &Input::PowerRead { node: node.clone(), power: Some(Power::On) });
        }
        recorder.reports(at(7300), true);
        recorder.reports(at(7400), true);
        recorder.look(at(17_299), &state);
        recorder.look(at(17_300), &state);
        recorder.unwatched(at(17_400), &node);
        assert_eq!(
            kept(&flight, 9),
            [
                "10 Began { boot: b7, lost: 0, domain: \"room\" }",
                "10 Node(n1, Heard { epoch: e3 })",
                "5000 Node(n1, Silent { lasting: 2s })",
                "5200 Node(n1, Asked(Some(false)))",
                "5200 Node(n1, Power(Some(On)))",
                "7200 Node(n1, Asked(Some(true)))",
                "7300 Doubts(true)",
                "17300 Mark",
                "17400 Node(n1, Unwatched)",
            ]
        );
        flight.close();
    }
}
