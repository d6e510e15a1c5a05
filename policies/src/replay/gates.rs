//! The brakes in a run: who counts in the hold, what waits, what is fenced. The gates are production's.

use super::world::{FENCE_TAKES, RETRY, Timer, World};
use super::{Braked, Fence};
use crate::brake::{HOLD_SETTLES, hold_above, limits};
use crate::flight::{Duty, Standing};
use crate::memory::BRAKE_WINDOW;
use crate::plan::{Cause, Verdict};
use crate::policy::Policy;
use crate::waiting::Waiting;
use crate::words::*;
use std::collections::BTreeSet;

impl World<'_> {
    /// Counts the node in the hold, or no more.
    pub(super) fn recount(&mut self, node: u32) {
        let leader = self.watchers.iter().position(|watcher| watcher.sees);
        let Some(patient) = self.patients.get(node as usize) else { return };
        let failed = matches!(patient.record.verdict, Verdict::Failed(_));
        let silent =
            leader.and_then(|leader| patient.eyes.get(leader)).is_some_and(|eye| eye.is_silent(false));
        let counts = match self.standing(node).map(|standing| &standing.duty) {
            _ if self.now < patient.recent_until => true,
            Some(Duty::Protected(_)) => patient.expected && (failed || silent),
            Some(Duty::Spare) => patient.expected && failed,
            Some(Duty::Cut | Duty::Aside) | None => false,
        };
        self.count(node, counts);
    }

    pub(super) fn uncount(&mut self, node: u32) {
        self.count(node, false);
    }

    pub(super) fn count(&mut self, node: u32, counts: bool) {
        let track = self.track;
        let Some(patient) = self.patients.get_mut(node as usize) else { return };
        if std::mem::replace(&mut patient.failing, counts) == counts {
            return;
        }
        let standing = patient.standing.and_then(|number| track.standings.get(number as usize));
        if !counts {
            // Until this moment the hold was as it was.
            self.hold();
        }
        self.failing = if counts { self.failing + 1 } else { self.failing.saturating_sub(1) };
        for (kind, name) in standing.iter().flat_map(|standing| &standing.domains) {
            let failing = self.domains.entry((kind, name)).or_default();
            *failing = if counts { *failing + 1 } else { failing.saturating_sub(1) };
        }
        self.domains.retain(|_, failing| *failing > 0);
    }

    /// If anything waits, whether a hold keeps it; remembers that it does.
    pub(super) fn hold(&mut self) {
        if let Some(brakes) =
            self.pending.first().and_then(|node| self.policy(*node)).map(|policy| &policy.brakes)
            && hold_above(self.failing, &self.domains, brakes, || None).is_err()
        {
            self.held = Some(self.now);
        }
    }

    pub(super) fn fail(&mut self, node: u32) {
        let protected = |standing: &Standing| matches!(standing.duty, Duty::Protected(_));
        if !self.standing(node).is_some_and(protected) {
            return;
        }
        self.pending.insert(node);
        self.pending_since = self.now;
        self.attempt(node);
    }

    /// Looks at all that waits again. What keeps one node of a policy keeps all of them.
    pub(super) fn retry(&mut self) {
        let mut shut: BTreeSet<&PolicyId> = BTreeSet::new();
        for node in self.pending.clone() {
            let Some(name) = self.policy_name(node).filter(|name| !shut.contains(name)) else { continue };
            if !self.attempt(node) {
                shut.insert(name);
            }
        }
    }

    /// Begins the fence of a failed node, if the brakes are open. The same gates in the same order as production's.
    pub(super) fn attempt(&mut self, node: u32) -> bool {
        let Some(policy) = self.policy(node) else { return false };
        match self.may_begin(policy) {
            Ok(()) => {
                self.fence(node);
                true
            }
            Err(why) => {
                if matches!(why, Waiting::Hold { .. }) {
                    self.held = Some(self.now);
                }
                self.brake(node, &why);
                if !std::mem::replace(&mut self.retries, true) {
                    let young = self.now.since(self.pending_since) < Millis(60_000);
                    let pause = if young { RETRY.0 } else { RETRY.1 };
                    self.file(self.now + pause, Timer::Retry);
                }
                false
            }
        }
    }

    pub(super) fn may_begin(&mut self, policy: &Policy) -> Result<(), Waiting> {
        hold_above(self.failing, &self.domains, &policy.brakes, || None)?;
        if self.held.is_some_and(|held| self.now.since(held) < HOLD_SETTLES) {
            return Err(Waiting::HoldSettles { after: HOLD_SETTLES });
        }
        while self.begun.front().is_some_and(|begun| self.now.since(*begun) >= BRAKE_WINDOW) {
            self.begun.pop_front();
        }
        limits(self.in_flight, u32::try_from(self.begun.len()).unwrap_or(u32::MAX), &policy.brakes)
    }

    pub(super) fn brake(&mut self, node: u32, why: &Waiting) {
        let (now, since) = (self.now, self.since);
        let Some(patient) = self.patients.get_mut(node as usize) else { return };
        if patient.braked.is_some() || now < since {
            return;
        }
        let list = &mut self.played.doings.braked;
        patient.braked = Some(list.len());
        self.played.braked.push((node, patient.trouble));
        let name = patient.record.node.name.clone();
        list.push(Braked { node: name, at: Wall(now.0), why: why.to_string(), fenced_later: false });
    }

    pub(super) fn fence(&mut self, node: u32) {
        let (now, since) = (self.now, self.since);
        self.pending.remove(&node);
        self.in_flight += 1;
        self.begun.push_back(now);
        self.file(now + FENCE_TAKES, Timer::Fenced);
        self.file(now + BRAKE_WINDOW, Timer::Forget(node));
        let Some(patient) = self.patients.get_mut(node as usize) else { return };
        (patient.fenced, patient.recent_until) = (true, now + BRAKE_WINDOW);
        if let Some(braked) = patient.braked.and_then(|at| self.played.doings.braked.get_mut(at)) {
            braked.fenced_later = true;
        }
        if now >= since {
            let cause = match &patient.record.verdict {
                Verdict::Failed(cause) => cause.clone(),
                Verdict::Unknown | Verdict::Healthy | Verdict::Gray => Cause::Silent,
            };
            patient.fence = Some(self.played.doings.fences.len());
            self.played.keys.push((node, patient.trouble));
            self.played.doings.fences.push(Fence {
                node: patient.record.node.name.clone(),
                at: Wall(now.0),
                trouble_since: Wall(patient.trouble_since.0),
                assumed: cause == Cause::Silent && patient.eyes.iter().any(|eye| eye.assumed),
                cause,
                really: patient.cut,
                back_after: None,
            });
        }
        self.expect(node);
        self.recount(node);
    }
}
