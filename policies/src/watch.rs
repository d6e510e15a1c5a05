//! The watch table: one packed record a node, folded from heartbeats, and the deadlines on a lazy timer wheel.
//!
//! Why it exists: heartbeats come by the hundred thousand a second and change nothing; only silence, farewell, a new
//! life, a new epoch and a stuck disk are news. A heartbeat stores what it said and touches no timer; the wheel looks
//! at a node when its old deadline passes and files it again if it was heard since (facts/performance.md §1c, §1d).
//!
//! What it never does: no clock, no allocation for a heartbeat, no judgement. It does not check keys or sequences
//! either; the ingest has done that.
//!
//! Lives. A node's operating system draws a new boot id at each start, and boot ids have no order. So a life that is
//! being heard is never displaced: another boot id is taken up only after the known life fell silent or said farewell,
//! and a life that was displaced does not come back ([`LIVES_REMEMBERED`] of them are known). A recorded old heartbeat
//! or a cloned disk can therefore not make a node flap between two lives.
//!
//! Paths. Which paths a node has is known only from what came by them in its present life: one that was never heard is
//! not missed. They are counted in rounds as long as `suspect_after`, at the first heartbeat after a round's end, so a
//! path that is cut is news after one round, or two.

use crate::observation::{FewPaths, Heartbeat, LastGasp};
use crate::policy::{HEARTBEAT_INTERVAL, HEARTBEAT_PATHS_MAX};
use crate::words::{BootId, Epoch, Millis, Mono};

/// How many displaced lives of a node are known not to come back. Fewer: a recording from an older life would be
/// believed once the node is silent; more: 8 bytes each in every record.
pub const LIVES_REMEMBERED: usize = 4;

/// Length of a wheel step, in ms. Silence is noticed at most this much late, plus the lateness of [`Watch::tick`].
pub const STEP_MS: u64 = 10;

/// Steps of the wheel: 5.12 s, more than the longest usual deadline. Later deadlines are looked at once a turn.
const STEPS: u16 = 512;

/// Two heartbeat intervals: no policy's `suspect_after` may be shorter, so a shorter gap can be news for none.
pub const GAP_MIN: Millis = Millis(2 * HEARTBEAT_INTERVAL.0);

/// A node's place in the table: a small dense number that the caller hands out and uses again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// When a node is news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Silent after this long without a heartbeat. Kept in 32 bits: more than 49 days count as 49 days.
    pub suspect_after: Millis,
    /// Its disk is stale if the last acknowledged write is older than this. `Millis(u64::MAX)`: never.
    pub write_stale_after: Millis,
    /// Paths on which it must be heard, as far as it has so many. At most [`HEARTBEAT_PATHS_MAX`]; 0 and 1: any path will do.
    pub paths_min: u8,
}

/// What a node said last, and when it was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When the ingest read it.
    pub at: Mono,
    /// What it said.
    pub heartbeat: Heartbeat,
}

/// News of a node. A heartbeat gives at most one, the weightiest; what is left to say comes with the next heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is heard: for the first time, again after silence, in a new life, in a new epoch, or in spite of its
    /// farewell. Says nothing of the disk and of the paths: a disk that is stale is told anew with the next heartbeat,
    /// a path that is missing after the next round.
    Heard {
        /// Which life.
        boot: BootId,
        /// The placement that it believes to run; 0 on a spare.
        epoch: Epoch,
    },
    /// It has been silent for `suspect_after`.
    Silent {
        /// When it was last heard.
        since: Mono,
    },
    /// It was enrolled and has not been heard once in `suspect_after`. No sign of death: the agent may never have run.
    NeverHeard {
        /// When it was enrolled.
        since: Mono,
    },
    /// It says farewell.
    LastGasp(LastGasp),
    /// Its last acknowledged disk write is older than `write_stale_after`.
    WriteStale {
        /// How old, when it was said.
        age: Millis,
    },
    /// The disk is written again, or its writes are no longer watched.
    WriteFresh,
    /// It is heard on fewer paths than it should be.
    PathsFew(FewPaths),
    /// It is heard on enough of them again.
    PathsEnough,
}

/// What we know of a node, in the order in which it usually happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No node here.
    Vacant,
    /// Enrolled, not yet heard; its deadline runs.
    Awaited,
    /// Enrolled, not heard, and that was reported.
    Missed,
    /// Heard; its deadline runs.
    Alive,
    /// Has said farewell; its deadline runs.
    Leaving,
    /// Silent, and that was reported.
    Silent,
}

impl Phase {
    /// True if the passing of a deadline is news.
    fn is_timed(self) -> bool {
        match self {
            Phase::Awaited | Phase::Alive | Phase::Leaving => true,
            Phase::Vacant | Phase::Missed | Phase::Silent => false,
        }
    }

    /// True if at least one heartbeat has come.
    fn is_heard(self) -> bool {
        match self {
            Phase::Alive | Phase::Leaving | Phase::Silent => true,
            Phase::Vacant | Phase::Awaited | Phase::Missed => false,
        }
    }
}

/// No slot, in a chain of the wheel.
const NONE: u32 = u32::MAX;
/// No step: the record is not filed.
const UNFILED: u16 = u16::MAX;
/// No write age.
const NO_AGE: u32 = u32::MAX;

/// One node.
#[derive(Clone, Copy)]
struct Record {
    /// When it was last heard; when it was enrolled, if it was not heard yet.
    at: Mono,
    boot: BootId,
    epoch: Epoch,
    /// Displaced lives, newest first. Places not yet used hold the first life, which is displaced or current anyway.
    displaced: [BootId; LIVES_REMEMBERED],
    write_age_ms: u32,
    suspect_after_ms: u32,
    write_stale_after_ms: u32,
    /// Neighbours in the chain of wheel step `step`.
    next: u32,
    prev: u32,
    step: u16,
    phase: Phase,
    last_gasp: Option<LastGasp>,
    write_stale: bool,
    paths_min: u8,
    /// Paths by which something came, a bit each: in this life, and in this round.
    paths_known: u8,
    paths_heard: u8,
    paths_few: bool,
    /// When this round began.
    round: Mono,
}

const VACANT: Record = Record {
    at: Mono(0),
    boot: BootId(0),
    epoch: Epoch(0),
    displaced: [BootId(0); LIVES_REMEMBERED],
    write_age_ms: NO_AGE,
    suspect_after_ms: 0,
    write_stale_after_ms: 0,
    next: NONE,
    prev: NONE,
    step: UNFILED,
    phase: Phase::Vacant,
    last_gasp: None,
    write_stale: false,
    paths_min: 0,
    paths_known: 0,
    paths_heard: 0,
    paths_few: false,
    round: Mono(0),
};

impl Record {
    fn deadline(&self) -> Mono {
        self.at + Millis(u64::from(self.suspect_after_ms))
    }

    fn admits(&self, boot: BootId) -> bool {
        match self.phase {
            Phase::Vacant => false,
            Phase::Awaited | Phase::Missed => true,
            Phase::Alive => boot == self.boot,
            Phase::Leaving | Phase::Silent => boot == self.boot || !self.displaced.contains(&boot),
        }
    }

    /// Stores an admitted heartbeat and tells what is new about it.
    fn take(&mut self, now: Mono, beat: &Heartbeat) -> Option<Change> {
        let before = *self;
        let same_life = before.phase.is_heard() && before.boot == beat.boot;
        if !before.phase.is_heard() {
            self.displaced = [beat.boot; LIVES_REMEMBERED];
        } else if !same_life {
            self.displaced.rotate_right(1);
            if let Some(newest) = self.displaced.first_mut() {
                *newest = before.boot;
            }
        }
        self.at = now;
        self.boot = beat.boot;
        self.epoch = beat.epoch;
        self.write_age_ms = beat.write_age.map_or(NO_AGE, |age| to_u32(age).min(NO_AGE - 1));
        self.last_gasp = beat.last_gasp;
        if let Some(gasp) = beat.last_gasp {
            self.phase = Phase::Leaving;
            let repeated = same_life && before.phase == Phase::Leaving && before.last_gasp == Some(gasp);
            return (!repeated).then_some(Change::LastGasp(gasp));
        }
        self.phase = Phase::Alive;
        if !same_life || before.phase != Phase::Alive || before.epoch != beat.epoch {
            self.write_stale = false;
            if !same_life {
                self.paths_known = 0;
            }
            (self.paths_heard, self.paths_few, self.round) = (0, false, now);
            return Some(Change::Heard { boot: beat.boot, epoch: beat.epoch });
        }
        self.judge_write(beat.write_age).or_else(|| self.judge_paths(now))
    }

    /// Looks at the paths if a round is over, and begins the next.
    fn judge_paths(&mut self, now: Mono) -> Option<Change> {
        if now.since(self.round) < Millis(u64::from(self.suspect_after_ms)) {
            return None;
        }
        let wanted = self.paths_known.count_ones().min(u32::from(self.paths_min));
        let heard = std::mem::take(&mut self.paths_heard).count_ones();
        self.round = now;
        let few = heard < wanted;
        let is_news = few != std::mem::replace(&mut self.paths_few, few);
        let change = if few { Change::PathsFew(FewPaths { heard, wanted }) } else { Change::PathsEnough };
        is_news.then_some(change)
    }

    /// A write age that is not told is not stale: an operator who takes the write probe out means it.
    fn judge_write(&mut self, age: Option<Millis>) -> Option<Change> {
        let limit = Millis(u64::from(self.write_stale_after_ms));
        match (age.filter(|age| *age > limit), self.write_stale) {
            (Some(age), false) => {
                self.write_stale = true;
                Some(Change::WriteStale { age })
            }
            (None, true) => {
                self.write_stale = false;
                Some(Change::WriteFresh)
            }
            (Some(_), true) | (None, false) => None,
        }
    }

    /// Called when a timed record's deadline has passed.
    fn expire(&mut self) -> Option<Change> {
        match self.phase {
            Phase::Awaited => {
                self.phase = Phase::Missed;
                Some(Change::NeverHeard { since: self.at })
            }
            Phase::Alive | Phase::Leaving => {
                self.phase = Phase::Silent;
                Some(Change::Silent { since: self.at })
            }
            Phase::Vacant | Phase::Missed | Phase::Silent => None,
        }
    }
}

fn to_u32(length: Millis) -> u32 {
    u32::try_from(length.0).unwrap_or(u32::MAX)
}

/// The table. Memory: one record for each slot up to the largest ever enrolled.
pub struct Watch {
    records: Vec<Record>,
    /// First record of each step's chain; `STEPS` long.
    heads: Vec<u32>,
    /// The last step that was looked at, counted from time 0.
    turned: u64,
}

impl Watch {
    /// An empty table whose time begins at `now`.
    pub fn new(now: Mono) -> Self {
        Watch { records: Vec::new(), heads: vec![NONE; usize::from(STEPS)], turned: now.0 / STEP_MS }
    }

    /// Watches a node. A node that is enrolled already keeps all that was heard of it and gets the new limits.
    pub fn enroll(&mut self, slot: Slot, limits: Limits, now: Mono) {
        let place = slot.0 as usize;
        if place >= self.records.len() {
            self.records.resize(place + 1, VACANT);
        }
        self.unfile(slot.0);
        let Some(record) = self.records.get_mut(place) else { return };
        if record.phase == Phase::Vacant {
            *record = Record { at: now, phase: Phase::Awaited, ..VACANT };
        }
        record.suspect_after_ms = to_u32(limits.suspect_after);
        record.write_stale_after_ms = to_u32(limits.write_stale_after);
        record.paths_min = limits.paths_min;
        if record.phase.is_timed() {
            // Looked at early, and at a step of its own: nodes enrolled together would otherwise be looked at
            // together for ever after (one tick of 5 ms at a million nodes).
            let early = scatter(slot.0) % u64::from(record.suspect_after_ms).max(1);
            let look = (now + Millis(early)).min(record.deadline());
            self.file(slot.0, look);
        }
    }

    /// Stops watching a node and forgets all of it. A slot that is not enrolled stays so.
    pub fn forget(&mut self, slot: Slot) {
        self.unfile(slot.0);
        if let Some(record) = self.records.get_mut(slot.0 as usize) {
            *record = VACANT;
        }
    }

    /// True if a heartbeat of this life would be taken: the node is enrolled and the life is the known one or may
    /// displace it. The ingest asks before it moves its replay window.
    pub fn admits(&self, slot: Slot, boot: BootId) -> bool {
        self.records.get(slot.0 as usize).is_some_and(|record| record.admits(boot))
    }

    /// How long the gap is that a heartbeat would end which came now: if it is longer than [`GAP_MIN`], and too short
    /// to be news. For the flight recorder, which asks before it gives the heartbeat to [`Watch::beat`].
    pub fn gap(&self, slot: Slot, now: Mono) -> Option<Millis> {
        let record = self.records.get(slot.0 as usize)?;
        let lasting = now.since(record.at);
        (lasting > GAP_MIN && record.phase == Phase::Alive).then_some(lasting)
    }

    /// Takes a heartbeat. One that [`Watch::admits`] does not admit changes nothing.
    pub fn beat(&mut self, slot: Slot, now: Mono, beat: &Heartbeat) -> Option<Change> {
        let record = self.records.get_mut(slot.0 as usize).filter(|record| record.admits(beat.boot))?;
        let change = record.take(now, beat);
        if record.step == UNFILED {
            let deadline = record.deadline();
            self.file(slot.0, deadline);
        }
        change
    }

    /// The heartbeat that was taken last came by this path, by the first one as well as by others. A number that no path has
    /// is none.
    pub fn came_by(&mut self, slot: Slot, path: u8) {
        let Some(record) = self.records.get_mut(slot.0 as usize) else { return };
        if path < HEARTBEAT_PATHS_MAX {
            record.paths_known |= 1 << path;
            record.paths_heard |= 1 << path;
        }
    }

    /// Appends the news of passed deadlines, in the order of slots. To be called after the heartbeats that have
    /// already arrived were taken, else a stall of the caller looks like silence of the nodes.
    pub fn tick(&mut self, now: Mono, out: &mut Vec<(Slot, Change)>) {
        let today = now.0 / STEP_MS;
        if today <= self.turned {
            return;
        }
        let before = out.len();
        let first = (self.turned + 1).max((today + 1).saturating_sub(u64::from(STEPS)));
        self.turned = today;
        for step in first..=today {
            let mut slot = match self.heads.get_mut(usize::from(chain_of(step))) {
                Some(head) => std::mem::replace(head, NONE),
                None => NONE,
            };
            while let Some(record) = self.records.get_mut(slot as usize) {
                let next = std::mem::replace(&mut record.next, NONE);
                record.prev = NONE;
                record.step = UNFILED;
                let deadline = record.deadline();
                if step_of(deadline) > today {
                    self.file(slot, deadline);
                } else if let Some(change) = record.expire() {
                    out.push((Slot(slot), change));
                }
                slot = next;
            }
        }
        if let Some(new) = out.get_mut(before..) {
            new.sort_unstable_by_key(|(slot, _)| *slot);
        }
    }

    /// What the node said last; `None` if it is not enrolled or was never heard.
    pub fn last(&self, slot: Slot) -> Option<Seen> {
        let record = self.records.get(slot.0 as usize).filter(|record| record.phase.is_heard())?;
        let write_age = (record.write_age_ms != NO_AGE).then(|| Millis(u64::from(record.write_age_ms)));
        let heartbeat =
            Heartbeat { boot: record.boot, epoch: record.epoch, write_age, last_gasp: record.last_gasp };
        Some(Seen { at: record.at, heartbeat })
    }

    /// Puts an unfiled record into the chain of the step at which `due` has passed, or of the last step of this turn.
    fn file(&mut self, slot: u32, due: Mono) {
        let step = chain_of(step_of(due).clamp(self.turned + 1, self.turned + u64::from(STEPS) - 1));
        let Some(head) = self.heads.get_mut(usize::from(step)) else { return };
        let next = std::mem::replace(head, slot);
        if let Some(record) = self.records.get_mut(slot as usize) {
            record.next = next;
            record.prev = NONE;
            record.step = step;
        }
        if let Some(neighbour) = self.records.get_mut(next as usize) {
            neighbour.prev = slot;
        }
    }

    /// Takes a record out of its chain, if it is in one.
    fn unfile(&mut self, slot: u32) {
        let Some(record) = self.records.get_mut(slot as usize) else { return };
        let step = std::mem::replace(&mut record.step, UNFILED);
        if step == UNFILED {
            return;
        }
        let next = std::mem::replace(&mut record.next, NONE);
        let prev = std::mem::replace(&mut record.prev, NONE);
        if let Some(after) = self.records.get_mut(next as usize) {
            after.prev = prev;
        }
        if let Some(before) = self.records.get_mut(prev as usize) {
            before.next = next;
        } else if let Some(head) = self.heads.get_mut(usize::from(step)) {
            *head = next;
        }
    }
}

/// The first step at whose beginning `due` has passed.
fn step_of(due: Mono) -> u64 {
    due.0.div_ceil(STEP_MS)
}

/// The chain in which a step's records hang.
#[expect(clippy::cast_possible_truncation, reason = "the rest is smaller than STEPS, a u16")]
fn chain_of(step: u64) -> u16 {
    (step % u64::from(STEPS)) as u16
}

/// A number that differs widely between neighbouring slots (the finalizer of splitmix64).
fn scatter(slot: u32) -> u64 {
    let mut x = u64::from(slot).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests;
