//! One run: the track under one set of policies. An event queue; only the node that a moment or a timer is about is
//! looked at. The decisions are production's: [`Local::change`], [`doubt`], [`judge`], and in `gates.rs` the brakes.

use super::patient::{Eye, Patient, Watcher};
use super::track::{Moment, Track, What};
use super::{Doings, Trial};
use crate::flight::{Duty, Standing};
use crate::judge::judge;
use crate::plan::Verdict;
use crate::policy::{Detection, Policy};
use crate::sights::{DOUBT_SETTLES, Local, doubt};
use crate::state::DEFAULT_POLICY;
use crate::watch::Change;
use crate::words::*;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

/// How long a fence counts as under way. BMCs switch off in 1 s to 10 s; the policies differ in when it begins.
pub(super) const FENCE_TAKES: Millis = Millis(5000);
/// Pause between looks at nodes that a brake withholds, in the first minute and later.
pub(super) const RETRY: (Millis, Millis) = (Millis(1000), Millis(10_000));

/// Something to look at later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// `suspect_after` has passed since the eye heard the node, if its turn is still this one.
    Suspect(u32, u8, u32),
    /// The questions to its kernel have been asked.
    Answered(u32, u8, u32),
    /// Its writes are stale.
    Stale(u32, u8, u32),
    /// A deadline of the verdict has passed.
    Judge(u32),
    /// A fenced node no longer counts as just failed.
    Forget(u32),
    /// A member's doubt may have settled.
    Settle(u8),
    /// A fence is complete.
    Fenced,
    /// Brakes may be open again.
    Retry,
}

/// What a run gives: what was done, each with the number of the node and of its trouble.
#[derive(Default)]
pub(super) struct Played {
    pub(super) doings: Doings,
    /// Of each fence: node, trouble.
    pub(super) keys: Vec<(u32, u32)>,
    /// Of each braked trouble: node, trouble.
    pub(super) braked: Vec<(u32, u32)>,
    /// Nodes that were really cut off while something was wrong with them.
    pub(super) really: Vec<(u32, u32)>,
}

pub(super) struct World<'a> {
    pub(super) track: &'a Track,
    pub(super) policies: &'a BTreeMap<PolicyId, Policy>,
    pub(super) majority: u32,
    pub(super) since: Mono,
    pub(super) now: Mono,
    pub(super) patients: Vec<Patient>,
    pub(super) watchers: Vec<Watcher>,
    pub(super) timers: BinaryHeap<Reverse<(Mono, u64, Timer)>>,
    pub(super) filed: u64,
    pub(super) troubled: BTreeSet<u32>,
    /// Failed and not yet fenced.
    pub(super) pending: BTreeSet<u32>,
    pub(super) pending_since: Mono,
    pub(super) retries: bool,
    pub(super) failing: u32,
    pub(super) domains: BTreeMap<(&'a str, &'a str), u32>,
    pub(super) held: Option<Mono>,
    pub(super) in_flight: u32,
    pub(super) begun: VecDeque<Mono>,
    pub(super) played: Played,
}

/// Plays the track under these policies.
pub(super) fn play(track: &Track, policies: &BTreeMap<PolicyId, Policy>, trial: &Trial) -> Played {
    let mut world = World::new(track, policies, trial);
    for moment in &track.moments {
        world.run_until(moment.at);
        world.take(*moment);
    }
    world.run_until(track.end);
    world.played
}

impl<'a> World<'a> {
    fn new(track: &'a Track, policies: &'a BTreeMap<PolicyId, Policy>, trial: &Trial) -> Self {
        // How many there are is all that counts; some may have no record.
        let voters = (1..=u64::from(trial.voters)).map(MemberId).collect();
        let patient = |name| Patient::new(name, &track.members, &track.domains, &voters);
        World {
            track,
            policies,
            majority: trial.voters / 2 + 1,
            since: Mono(trial.since.0),
            now: Mono(0),
            patients: track.nodes.iter().map(patient).collect(),
            watchers: track.members.iter().map(|_| Watcher::default()).collect(),
            timers: BinaryHeap::new(),
            filed: 0,
            troubled: BTreeSet::new(),
            pending: BTreeSet::new(),
            pending_since: Mono(0),
            retries: false,
            failing: 0,
            domains: BTreeMap::new(),
            held: None,
            in_flight: 0,
            begun: VecDeque::new(),
            played: Played::default(),
        }
    }

    // ---- time ----------------------------------------------------------------------------------------------------

    pub(super) fn file(&mut self, at: Mono, timer: Timer) {
        self.filed += 1;
        self.timers.push(Reverse((at.max(self.now), self.filed, timer)));
    }

    fn run_until(&mut self, end: Mono) {
        while let Some(Reverse((at, _, timer))) = self.timers.peek().copied() {
            if at > end {
                break;
            }
            self.timers.pop();
            self.now = at;
            self.fire(timer);
        }
        self.now = end;
    }

    fn fire(&mut self, timer: Timer) {
        match timer {
            Timer::Suspect(node, member, turn) => self.suspect(node, member, turn),
            Timer::Answered(node, member, turn) => self.answered(node, member, turn),
            Timer::Stale(node, member, turn) => {
                let (now, Some(eye)) = (self.now, self.eye(node, member)) else { return };
                if let (Some(since), Some(local)) = (eye.stale.filter(|_| eye.turn == turn), &mut eye.local) {
                    local.change(&Change::WriteStale { age: now.since(since) }, false, now);
                    self.judge(node);
                }
            }
            Timer::Judge(node) => self.judge(node),
            Timer::Forget(node) => self.recount(node),
            Timer::Settle(member) => {
                if let Some(watcher) = self.watchers.get_mut(usize::from(member)) {
                    watcher.settles = false;
                }
                self.redoubt(member);
            }
            Timer::Fenced => {
                self.in_flight = self.in_flight.saturating_sub(1);
                self.retry();
            }
            Timer::Retry => {
                self.retries = false;
                self.retry();
            }
        }
    }

    fn suspect(&mut self, node: u32, member: u8, turn: u32) {
        let (now, has_probe) = (self.now, self.standing(node).is_some_and(|standing| standing.has_probe));
        let asking = self.rules(node).map_or(Millis(0), |rules| {
            Millis(u64::from(rules.reprobe_count).saturating_mul(rules.reprobe_interval.0))
        });
        let Some(eye) = self.eye(node, member) else { return };
        let Some((since, never)) = eye.quiet.filter(|_| eye.turn == turn) else { return };
        let change = if never { Change::NeverHeard { since } } else { Change::Silent { since } };
        let local = eye.local.get_or_insert_with(|| Local::new(has_probe, now));
        if local.change(&change, has_probe, now) {
            self.file(now + asking, Timer::Answered(node, member, turn));
        }
        self.recount_eye(node, member);
        self.recount(node);
        self.judge(node);
    }

    fn answered(&mut self, node: u32, member: u8, turn: u32) {
        let (now, Some(eye)) = (self.now, self.eye(node, member)) else { return };
        if eye.turn != turn {
            return;
        }
        eye.done = true;
        eye.assumed = eye.asked.is_none();
        let answers = eye.asked.unwrap_or(Some(false));
        if let Some(local) = &mut eye.local {
            local.answered(answers, now);
        }
        self.judge(node);
    }

    // ---- what was seen -------------------------------------------------------------------------------------------

    fn take(&mut self, moment: Moment) {
        let Moment { node, member, what, .. } = moment;
        match what {
            What::Sees => return self.sees(member, true),
            What::Blind => return self.sees(member, false),
            What::Stands(standing) => return self.stands(node, standing),
            What::Quiet { .. }
            | What::Heard
            | What::Gasped(_)
            | What::WriteStopped { .. }
            | What::WriteFresh
            | What::Asked(_)
            | What::Power(_)
            | What::Unwatched => {}
        }
        if self.patient(node).is_none_or(|patient| patient.cut) {
            return;
        }
        match what {
            What::Quiet { since, never } => self.quiet(node, member, since, never),
            What::Heard => self.heard(node, member),
            What::Gasped(gasp) => {
                let now = self.now;
                self.change(node, member, &Change::LastGasp(gasp), |eye| eye.quiet = Some((now, false)));
            }
            What::WriteStopped { since } => {
                let limit = self.rules(node).map_or(Millis(u64::MAX), |rules| rules.write_stale_after);
                self.change_eye(node, member, |eye| eye.stale = Some(since));
                let turn = self.eye(node, member).map_or(0, |eye| eye.turn);
                self.file(since + limit, Timer::Stale(node, member, turn));
            }
            What::WriteFresh => self.change(node, member, &Change::WriteFresh, |eye| eye.stale = None),
            What::Asked(answers) => {
                let (now, Some(eye)) = (self.now, self.eye(node, member)) else { return };
                eye.asked = Some(answers);
                if let (true, Some(local)) = (eye.done, &mut eye.local) {
                    eye.assumed = false;
                    local.answered(answers, now);
                    self.judge(node);
                }
            }
            What::Power(power) => {
                if let Some(patient) = self.patient(node).filter(|patient| patient.troubled > 0) {
                    patient.power = power;
                    self.judge(node);
                }
            }
            What::Unwatched => {
                self.change_eye(node, member, |eye| *eye = Eye { turn: eye.turn, ..Eye::default() });
                self.recount(node);
            }
            What::Sees | What::Blind | What::Stands(_) => {}
        }
    }

    fn quiet(&mut self, node: u32, member: u8, since: Mono, never: bool) {
        let Some(after) = self.rules(node).map(|rules| rules.suspect_after) else { return };
        self.change_eye(node, member, |eye| {
            (eye.quiet, eye.asked, eye.done, eye.assumed) = (Some((since, never)), None, false, false);
        });
        let turn = self.eye(node, member).map_or(0, |eye| eye.turn);
        self.file(since + after, Timer::Suspect(node, member, turn));
    }

    fn heard(&mut self, node: u32, member: u8) {
        let change = Change::Heard { boot: BootId(0), epoch: Epoch(0) };
        self.change(node, member, &change, |eye| {
            (eye.quiet, eye.stale, eye.asked, eye.done, eye.assumed) = (None, None, None, false, false);
        });
    }

    /// A change that the eye believes at once.
    fn change(&mut self, node: u32, member: u8, change: &Change, mut edit: impl FnMut(&mut Eye)) {
        let (now, has_probe) = (self.now, self.standing(node).is_some_and(|standing| standing.has_probe));
        self.change_eye(node, member, |eye| {
            edit(eye);
            eye.local.get_or_insert_with(|| Local::new(has_probe, now)).change(change, has_probe, now);
        });
        if self.eye(node, member).is_some_and(|eye| !eye.is_troubled()) {
            self.come_back(node);
        }
        self.recount(node);
        self.judge(node);
    }

    /// Edits an eye and counts who is in trouble; a trouble begins with its first eye.
    fn change_eye(&mut self, node: u32, member: u8, edit: impl FnOnce(&mut Eye)) {
        let now = self.now;
        let Some(patient) = self.patients.get_mut(node as usize) else { return };
        let Some(eye) = patient.eyes.get_mut(usize::from(member)) else { return };
        let before = eye.is_troubled();
        edit(eye);
        eye.turn = eye.turn.wrapping_add(1);
        match (before, eye.is_troubled()) {
            (false, true) => {
                if patient.troubled == 0 {
                    let since = eye.quiet.map(|(since, _)| since).or(eye.stale).unwrap_or(now);
                    patient.trouble += 1;
                    (patient.trouble_since, patient.power) = (since, None);
                    (patient.fence, patient.braked) = (None, None);
                    self.troubled.insert(node);
                }
                patient.troubled += 1;
            }
            (true, false) => {
                patient.troubled = patient.troubled.saturating_sub(1);
                if patient.troubled == 0 {
                    patient.power = None;
                    self.troubled.remove(&node);
                }
            }
            (true, true) | (false, false) => {}
        }
        self.recount_eye(node, member);
    }

    /// The node is back once those who do not hear it are too few for a majority.
    fn come_back(&mut self, node: u32) {
        let (now, majority) = (self.now, self.majority);
        let Some(patient) = self.patients.get_mut(node as usize) else { return };
        if patient.troubled >= majority {
            return;
        }
        if let Some(fence) = patient.fence.and_then(|fence| self.played.doings.fences.get_mut(fence))
            && fence.back_after.is_none()
        {
            fence.back_after = Some(now.since(Mono(fence.at.0)));
        }
        if patient.fenced {
            patient.fenced = false;
            patient.record.verdict = Verdict::Healthy;
            self.live(node);
            self.expect(node);
        }
    }

    fn sees(&mut self, member: u8, sees: bool) {
        for node in 0..u32::try_from(self.patients.len()).unwrap_or(u32::MAX) {
            let has_state = |eye: &Eye| eye.local.is_some() || eye.is_troubled();
            let clear = self.patient(node).is_some_and(|patient| {
                !patient.cut && patient.eyes.get(usize::from(member)).is_some_and(has_state)
            });
            if clear {
                self.change_eye(node, member, |eye| *eye = Eye { turn: eye.turn, ..Eye::default() });
            }
        }
        if let Some(watcher) = self.watchers.get_mut(usize::from(member)) {
            (watcher.sees, watcher.mass_silence, watcher.doubt) = (sees, None, None);
        }
        // Another member may lead now, and the hold counts what the leader does not hear.
        for node in self.troubled.clone() {
            self.recount(node);
        }
    }

    fn stands(&mut self, node: u32, number: u32) {
        let cut = self.track.is_cut(number);
        // Its failure domains may be others now.
        if let Some(patient) = self.patient(node) {
            patient.recent_until = if cut { patient.recent_until } else { Mono(0) };
            let (was_cut, troubled) = (patient.cut, patient.troubled > 0);
            if cut && !was_cut {
                patient.cut = true;
                let key = (node, patient.trouble);
                if troubled && self.now >= self.since {
                    self.played.really.push(key);
                }
                return self.cut(node);
            }
            if cut {
                return;
            }
            if was_cut {
                self.begin_anew(node);
            }
        }
        self.uncount(node);
        if let Some(patient) = self.patient(node) {
            patient.standing = Some(number);
        }
        self.expect(node);
        self.recount(node);
    }

    /// Really cut off. What this run has not decided yet follows from what was seen until now.
    fn cut(&mut self, node: u32) {
        let Some(patient) = self.patients.get_mut(node as usize) else { return };
        if let Some(fence) = patient.fence.and_then(|fence| self.played.doings.fences.get_mut(fence)) {
            fence.really = true;
        } else if patient.troubled == 0 {
            self.expect(node);
        }
    }

    /// A new life after it was cut off: nothing of the old one counts.
    fn begin_anew(&mut self, node: u32) {
        for member in 0..u8::try_from(self.watchers.len()).unwrap_or(u8::MAX) {
            self.change_eye(node, member, |eye| *eye = Eye { turn: eye.turn, ..Eye::default() });
        }
        self.pending.remove(&node);
        if let Some(patient) = self.patient(node) {
            (patient.cut, patient.fenced, patient.fence, patient.braked) = (false, false, None, None);
            patient.record.verdict = Verdict::Unknown;
            patient.memory.gray_since.clear();
            patient.memory.alive_since.clear();
        }
    }

    // ---- what members and the cluster make of it -------------------------------------------------------------------

    /// Whether silence of this node means something now; if that changes, the members' counts do.
    pub(super) fn expect(&mut self, node: u32) {
        let on_duty = self.standing(node).is_some_and(|standing| match standing.duty {
            Duty::Protected(_) | Duty::Spare => true,
            Duty::Cut | Duty::Aside => false,
        });
        let Some(patient) = self.patient(node) else { return };
        let expected = on_duty && !patient.fenced && !(patient.cut && patient.troubled == 0);
        if std::mem::replace(&mut patient.expected, expected) == expected {
            return;
        }
        for member in 0..u8::try_from(self.watchers.len()).unwrap_or(u8::MAX) {
            self.recount_eye(node, member);
            self.redoubt(member);
            if let Some(watcher) = self.watchers.get_mut(usize::from(member)) {
                match expected {
                    true => watcher.watched += 1,
                    false => watcher.watched = watcher.watched.saturating_sub(1),
                }
            }
            self.redoubt(member);
        }
        if !expected {
            self.pending.remove(&node);
        }
    }

    /// Counts the silent nodes of a member.
    fn recount_eye(&mut self, node: u32, member: u8) {
        let Some(patient) = self.patients.get_mut(node as usize) else { return };
        let (known, expected) = (patient.is_known(), patient.expected);
        let Some(eye) = patient.eyes.get_mut(usize::from(member)) else { return };
        let silent = expected && eye.is_silent(known);
        if std::mem::replace(&mut eye.silent, silent) == silent {
            return;
        }
        self.redoubt(member);
        if let Some(watcher) = self.watchers.get_mut(usize::from(member)) {
            match silent {
                true => watcher.silent += 1,
                false => watcher.silent = watcher.silent.saturating_sub(1),
            }
        }
        self.redoubt(member);
    }

    /// Lets a member look at itself: before its counts change, so that it knows until when they were so, and after.
    fn redoubt(&mut self, member: u8) {
        let now = self.now;
        let Some(watcher) = self.watchers.get_mut(usize::from(member)).filter(|watcher| watcher.sees) else {
            return;
        };
        let before = watcher.doubt.is_some();
        watcher.doubt = doubt(&mut watcher.mass_silence, watcher.silent, watcher.watched, now);
        let ended = before && watcher.doubt.is_none();
        if watcher.doubt.is_some() && !std::mem::replace(&mut watcher.settles, true) {
            self.file(now + DOUBT_SETTLES, Timer::Settle(member));
        }
        if ended {
            for node in self.troubled.clone() {
                self.file(now, Timer::Judge(node));
            }
        }
    }

    fn judge(&mut self, node: u32) {
        let now = self.now;
        let Some(rules) = self.rules(node) else { return };
        let Some(patient) = self.patients.get_mut(node as usize).filter(|patient| patient.expected) else {
            return;
        };
        if patient.troubled == 0 && patient.record.verdict == Verdict::Healthy {
            return;
        }
        patient.refresh(&self.track.members, &self.watchers, now);
        let judgement = judge(&patient.record, rules, &patient.memory, now);
        let name = patient.record.node.name.clone();
        judgement.remember_gray(&name, &mut patient.memory, now);
        let due = patient.memory.gray_since.get(&name).map(|since| *since + rules.gray_after);
        if let Some(due) = due.filter(|due| judgement.is_gray && *due > now) {
            self.file(due, Timer::Judge(node));
        }
        if let Some(verdict) = judgement.verdict {
            self.believe(node, verdict);
        }
    }

    fn believe(&mut self, node: u32, verdict: Verdict) {
        let (fails, lives) = (matches!(verdict, Verdict::Failed(_)), verdict == Verdict::Healthy);
        if let Some(patient) = self.patient(node) {
            patient.record.verdict = verdict;
        }
        if lives {
            self.live(node);
        }
        if !fails {
            self.pending.remove(&node);
        }
        self.recount_eyes(node);
        self.recount(node);
        if fails {
            self.fail(node);
        }
    }

    /// The node was found alive: older silence is no evidence, and is looked at again once it could be.
    fn live(&mut self, node: u32) {
        let (now, after) = (self.now, self.rules(node).map_or(Millis(0), |rules| rules.suspect_after));
        if let Some(patient) = self.patient(node) {
            patient.memory.alive_since.insert(patient.record.node.name.clone(), now);
        }
        self.file(now + after, Timer::Judge(node));
    }

    fn recount_eyes(&mut self, node: u32) {
        for member in 0..u8::try_from(self.watchers.len()).unwrap_or(u8::MAX) {
            self.recount_eye(node, member);
        }
    }

    // ---- small things ------------------------------------------------------------------------------------------------

    fn patient(&mut self, node: u32) -> Option<&mut Patient> {
        self.patients.get_mut(node as usize)
    }

    fn eye(&mut self, node: u32, member: u8) -> Option<&mut Eye> {
        self.patients.get_mut(node as usize)?.eyes.get_mut(usize::from(member))
    }

    pub(super) fn standing(&self, node: u32) -> Option<&'a Standing> {
        self.track.standings.get(self.patients.get(node as usize)?.standing? as usize)
    }

    pub(super) fn policy_name(&self, node: u32) -> Option<&'a PolicyId> {
        match self.standing(node).map(|standing| &standing.duty) {
            Some(Duty::Protected(name)) => self.policies.get_key_value(name).map(|(name, _)| name),
            Some(Duty::Spare | Duty::Cut | Duty::Aside) | None => {
                self.policies.keys().find(|name| name.as_str() == DEFAULT_POLICY)
            }
        }
    }

    pub(super) fn policy(&self, node: u32) -> Option<&'a Policy> {
        self.policies.get(self.policy_name(node)?)
    }

    fn rules(&self, node: u32) -> Option<&'a Detection> {
        self.policy(node).map(|policy| &policy.detection)
    }
}
