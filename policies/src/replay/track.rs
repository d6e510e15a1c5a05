//! The records of all members on one track: numbered nodes and members, moments in order, each silence put where it
//! began. Both policies run on the same track.

use super::{BadTrial, Coverage, MEMBERS_MAX, RECORDS_MAX};
use crate::flight::{Duty, Fact, MARK_EVERY, Record, Sign, Standing};
use crate::observation::{LastGasp, Power};
use crate::words::*;
use std::collections::BTreeMap;

/// Something that a member saw, or that was committed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Moment {
    pub(super) at: Mono,
    pub(super) node: u32,
    pub(super) member: u8,
    pub(super) what: What,
}

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum What {
    /// The member sees, and knows nothing yet.
    Sees,
    /// The member sees nothing from here on.
    Blind,
    /// The node is not heard, since then.
    Quiet { since: Mono, never: bool },
    /// The node is heard.
    Heard,
    /// It said farewell.
    Gasped(LastGasp),
    /// Its last acknowledged write was then.
    WriteStopped { since: Mono },
    /// It writes again.
    WriteFresh,
    /// What its kernel answers.
    Asked(Option<bool>),
    /// What its BMC reads.
    Power(Option<Power>),
    /// What it is there for: the standing of this number.
    Stands(u32),
    /// It is watched no longer.
    Unwatched,
}

/// The track.
pub(super) struct Track {
    pub(super) nodes: Vec<NodeId>,
    pub(super) members: Vec<MemberId>,
    /// The failure domain of each member, as it said last.
    pub(super) domains: Vec<String>,
    pub(super) standings: Vec<Standing>,
    pub(super) moments: Vec<Moment>,
    /// The moment of the last record.
    pub(super) end: Mono,
    pub(super) coverage: Vec<Coverage>,
}

/// What one member's records said of one node last.
#[derive(Clone, Default)]
struct Eye {
    last: Option<What>,
    /// Where its last moment stands on the track: nothing may be put before it.
    at: Mono,
    asked: Option<Option<bool>>,
    stale: bool,
    stands: Option<u32>,
}

/// What is known of a member while its records are read.
#[derive(Default)]
struct Reading {
    boot: Option<BootId>,
    last: Mono,
    doubts_since: Option<Mono>,
    eyes: Vec<Eye>,
}

struct Builder {
    track: Track,
    numbers: BTreeMap<NodeId, u32>,
    known: BTreeMap<Standing, u32>,
    readings: Vec<Reading>,
    /// The standing of each node on the track.
    stands: Vec<Option<u32>>,
}

impl Track {
    pub(super) fn of(records: impl IntoIterator<Item = (MemberId, Record)>) -> Result<Self, BadTrial> {
        let (nodes, members, domains, standings) = (vec![], vec![], vec![], vec![]);
        let track =
            Track { nodes, members, domains, standings, moments: vec![], end: Mono(0), coverage: vec![] };
        let (numbers, known, readings, stands) = (BTreeMap::new(), BTreeMap::new(), vec![], vec![]);
        let mut builder = Builder { track, numbers, known, readings, stands };
        for (count, (member, record)) in records.into_iter().enumerate() {
            if count >= RECORDS_MAX {
                return Err(BadTrial::TooManyRecords);
            }
            builder.take(member, record)?;
        }
        let mut track = builder.track;
        for (coverage, reading) in track.coverage.iter_mut().zip(&builder.readings) {
            coverage.until = Wall(reading.last.0);
            if let Some(since) = reading.doubts_since {
                coverage.doubted.0 += reading.last.since(since).0;
            }
        }
        // A member that has no further record is blind, not a witness of silence.
        let end = builder.readings.iter().map(|reading| reading.last).max().unwrap_or_default();
        track.end = end;
        for (member, reading) in (0..).zip(&builder.readings) {
            if end.since(reading.last).0 > 2 * MARK_EVERY.0 {
                track.moments.push(Moment { at: reading.last, node: 0, member, what: What::Blind });
            }
        }
        // Stable: what one record says stays in its order.
        track.moments.sort_by_key(|moment| moment.at);
        Ok(track)
    }
}

impl Builder {
    fn take(&mut self, member: MemberId, record: Record) -> Result<(), BadTrial> {
        let (member, is_new) = self.member(member, record.at)?;
        let place = usize::from(member);
        let Some(reading) = self.readings.get_mut(place) else { return Ok(()) };
        let (before, at) = (reading.last, Mono(record.at.0).max(reading.last));
        reading.last = at;
        if let Some(coverage) = self.track.coverage.get_mut(place) {
            coverage.records += 1;
        }
        let late = at.since(before).0 > 2 * MARK_EVERY.0;
        match record.fact {
            Fact::Began { boot, lost, domain } => {
                let same = self.readings.get_mut(place).map(|reading| reading.boot.replace(boot))
                    == Some(Some(boot));
                if let Some(known) = self.track.domains.get_mut(place) {
                    *known = domain;
                }
                if is_new || !same || lost > 0 || late {
                    self.blind(member, before, at, is_new);
                    self.readings.iter_mut().skip(place).take(1).for_each(|reading| reading.eyes.clear());
                }
            }
            Fact::Mark => self.after_hole(member, before, at, is_new, late),
            Fact::Doubts(doubts) => {
                self.after_hole(member, before, at, is_new, late);
                self.doubts(place, doubts, at);
            }
            Fact::Node(node, sign) => {
                self.after_hole(member, before, at, is_new, late);
                let node = self.node(node);
                self.sign(member, node, sign, at);
            }
        }
        Ok(())
    }

    fn doubts(&mut self, place: usize, doubts: bool, at: Mono) {
        let Some(reading) = self.readings.get_mut(place) else { return };
        match (doubts, reading.doubts_since) {
            (true, None) => reading.doubts_since = Some(at),
            (false, Some(since)) => {
                reading.doubts_since = None;
                if let Some(coverage) = self.track.coverage.get_mut(place) {
                    coverage.doubted.0 += at.since(since).0;
                }
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// The member's number, and whether this is its first record.
    fn member(&mut self, member: MemberId, at: Wall) -> Result<(u8, bool), BadTrial> {
        if let Some(place) = self.track.members.iter().position(|known| *known == member) {
            return Ok((u8::try_from(place).unwrap_or(0), false));
        }
        let place = self.track.members.len();
        if place >= MEMBERS_MAX {
            return Err(BadTrial::TooManyMembers);
        }
        self.track.members.push(member);
        self.track.domains.push(String::new());
        let (blind, doubted) = (Millis(0), Millis(0));
        self.track.coverage.push(Coverage { member, records: 0, from: at, until: at, blind, doubted });
        self.readings.push(Reading { last: Mono(at.0), ..Reading::default() });
        Ok((u8::try_from(place).unwrap_or(0), true))
    }

    fn node(&mut self, node: NodeId) -> u32 {
        if let Some(number) = self.numbers.get(&node) {
            return *number;
        }
        let number = u32::try_from(self.track.nodes.len()).unwrap_or(u32::MAX);
        self.track.nodes.push(node.clone());
        self.stands.push(None);
        self.numbers.insert(node, number);
        number
    }

    /// The member saw nothing in between.
    fn blind(&mut self, member: u8, before: Mono, at: Mono, is_new: bool) {
        if !is_new {
            self.push(before, 0, member, What::Blind);
            if let Some(coverage) = self.track.coverage.get_mut(usize::from(member)) {
                coverage.blind.0 += at.since(before).0;
            }
        }
        self.push(at, 0, member, What::Sees);
    }

    /// A hole without a new beginning: the process stood still, and knows afterwards what it knew before.
    fn after_hole(&mut self, member: u8, before: Mono, at: Mono, is_new: bool, late: bool) {
        if !late && !is_new {
            return;
        }
        self.blind(member, before, at, is_new);
        let place = usize::from(member);
        let known = self.readings.get(place).map(|reading| reading.eyes.as_slice()).unwrap_or_default();
        let restated: Vec<(u32, What)> =
            (0..).zip(known).filter_map(|(node, eye)| Some((node, eye.last?))).collect();
        for (node, what) in restated {
            self.push(at, node, member, what);
        }
    }

    fn push(&mut self, at: Mono, node: u32, member: u8, what: What) {
        self.track.moments.push(Moment { at, node, member, what });
    }

    fn eye(&mut self, member: u8, node: u32) -> Option<&mut Eye> {
        let eyes = &mut self.readings.get_mut(usize::from(member))?.eyes;
        if eyes.len() <= node as usize {
            eyes.resize(node as usize + 1, Eye::default());
        }
        eyes.get_mut(node as usize)
    }

    fn sign(&mut self, member: u8, node: u32, sign: Sign, at: Mono) {
        let back = |length: Millis| Mono(at.0.saturating_sub(length.0));
        match sign {
            Sign::Heard { .. } => self.heard(member, node, at),
            Sign::Gap { lasting } => {
                self.quiet(member, node, at, back(lasting), false);
                self.heard(member, node, at);
            }
            Sign::Silent { lasting } => self.quiet(member, node, at, back(lasting), false),
            Sign::NeverHeard { lasting } => self.quiet(member, node, at, back(lasting), true),
            Sign::Gasped(gasp) => self.put(member, node, at, What::Gasped(gasp)),
            Sign::WriteStale { age } => {
                let Some(eye) = self.eye(member, node).filter(|eye| !eye.stale) else { return };
                eye.stale = true;
                let (since, from) = (back(age), back(age).max(eye.at));
                self.push(from, node, member, What::WriteStopped { since });
            }
            Sign::WriteFresh => {
                if let Some(eye) = self.eye(member, node) {
                    (eye.stale, eye.at) = (false, at);
                    self.push(at, node, member, What::WriteFresh);
                }
            }
            Sign::Asked(answers) => {
                let Some(eye) = self.eye(member, node) else { return };
                let first = eye.asked.is_none();
                if eye.asked.replace(answers) != Some(answers) {
                    // What was found first in a silence counts from its beginning: nobody asked earlier.
                    let from = if first { eye.at } else { at };
                    self.push(from, node, member, What::Asked(answers));
                }
            }
            Sign::Power(power) => self.push(at, node, member, What::Power(power)),
            Sign::Stands(standing) => self.stands(member, node, standing, at),
            Sign::Unwatched => {
                if let Some(eye) = self.eye(member, node) {
                    *eye = Eye { at, stands: eye.stands, ..Eye::default() };
                    self.push(at, node, member, What::Unwatched);
                }
            }
        }
    }

    fn heard(&mut self, member: u8, node: u32, at: Mono) {
        let alive = |eye: &Eye| eye.last == Some(What::Heard) && !eye.stale;
        if self.eye(member, node).is_some_and(|eye| !alive(eye)) {
            self.put(member, node, at, What::Heard);
        }
    }

    fn quiet(&mut self, member: u8, node: u32, at: Mono, since: Mono, never: bool) {
        let quiet = |eye: &Eye| matches!(eye.last, Some(What::Quiet { .. }));
        let Some(eye) = self.eye(member, node).filter(|eye| !quiet(eye)) else { return };
        let from = since.max(eye.at).min(at);
        self.put(member, node, from, What::Quiet { since, never });
    }

    fn put(&mut self, member: u8, node: u32, at: Mono, what: What) {
        let Some(eye) = self.eye(member, node) else { return };
        if eye.last == Some(what) && !eye.stale {
            return;
        }
        *eye = Eye { last: Some(what), at, asked: None, stale: false, stands: eye.stands };
        self.push(at, node, member, what);
    }

    /// The first member to tell counts. One that only repeats what it said before has not heard the news yet.
    fn stands(&mut self, member: u8, node: u32, standing: Standing, at: Mono) {
        let number = match self.known.get(&standing) {
            Some(number) => *number,
            None => {
                let number = u32::try_from(self.track.standings.len()).unwrap_or(u32::MAX);
                self.track.standings.push(standing.clone());
                self.known.insert(standing, number);
                number
            }
        };
        let before = self.eye(member, node).and_then(|eye| eye.stands.replace(number));
        let Some(current) = self.stands.get_mut(node as usize) else { return };
        if before == Some(number) || *current == Some(number) {
            return;
        }
        let was_cut = current.replace(number).is_some_and(|before| self.track.is_cut(before));
        self.push(at, node, member, What::Stands(number));
        if was_cut && !self.track.is_cut(number) {
            // What was seen while it was cut off says nothing of its new life.
            for reading in &mut self.readings {
                for eye in reading.eyes.iter_mut().skip(node as usize).take(1) {
                    (eye.last, eye.asked, eye.stale) = (None, None, false);
                }
            }
        }
    }
}

impl Track {
    pub(super) fn is_cut(&self, standing: u32) -> bool {
        self.standings.get(standing as usize).is_some_and(|standing| standing.duty == Duty::Cut)
    }
}
