//! What a run knows of one node, of one member, and of one member's eye on one node.

use crate::identity::Identity;
use crate::inventory::{Node, Probe};
use crate::memory::Memory;
use crate::observation::{Power, Report, SelfDoubt, Stamp};
use crate::plan::Verdict;
use crate::sights::Local;
use crate::state::NodeRecord;
use crate::words::*;
use std::collections::{BTreeMap, BTreeSet};

/// One member's eye on one node.
#[derive(Default)]
pub(super) struct Eye {
    pub(super) local: Option<Local>,
    /// Not heard since then.
    pub(super) quiet: Option<(Mono, bool)>,
    pub(super) stale: Option<Mono>,
    /// Counts the changes, so that old timers are known.
    pub(super) turn: u32,
    /// What its kernel answered in this silence, if it was asked in truth.
    pub(super) asked: Option<Option<bool>>,
    /// The time for questions has passed.
    pub(super) done: bool,
    /// Its kernel counts as mute although nobody asked.
    pub(super) assumed: bool,
    /// Counts among the silent nodes of its member.
    pub(super) silent: bool,
}

impl Eye {
    pub(super) fn is_troubled(&self) -> bool {
        self.quiet.is_some() || self.stale.is_some()
    }

    pub(super) fn is_silent(&self, known: bool) -> bool {
        self.local.as_ref().is_some_and(|local| local.is_silent(known))
    }
}

/// One node.
pub(super) struct Patient {
    pub(super) record: NodeRecord,
    pub(super) memory: Memory,
    pub(super) eyes: Vec<Eye>,
    pub(super) standing: Option<u32>,
    /// Its silence means something.
    pub(super) expected: bool,
    /// Really cut off: nothing that is seen of it counts any more.
    pub(super) cut: bool,
    /// Fenced in this run and not back yet.
    pub(super) fenced: bool,
    /// Until then it counts as just failed.
    pub(super) recent_until: Mono,
    /// Counts in the hold.
    pub(super) failing: bool,
    pub(super) power: Option<Power>,
    pub(super) troubled: u32,
    /// Counts its troubles; the same in every run.
    pub(super) trouble: u32,
    pub(super) trouble_since: Mono,
    /// The fence of this trouble, and what a brake stopped in it.
    pub(super) fence: Option<usize>,
    pub(super) braked: Option<usize>,
}

/// One member.
#[derive(Default)]
pub(super) struct Watcher {
    pub(super) sees: bool,
    pub(super) silent: u32,
    pub(super) watched: u32,
    pub(super) mass_silence: Option<Mono>,
    pub(super) doubt: Option<SelfDoubt>,
    pub(super) settles: bool,
}

/// A node of which nothing but its name matters to a verdict.
fn only_a_name(name: NodeId) -> Node {
    Node {
        name,
        identity: Identity::default(),
        domains: BTreeMap::new(),
        labels: BTreeMap::new(),
        fencing: vec![],
        ports: vec![],
        boot_macs: vec![],
        standby: None,
        initiator: None,
        probe: Probe::default(),
        agent_key: None,
        capabilities: crate::capability::Capabilities::default(),
    }
}

impl Patient {
    pub(super) fn new(
        name: &NodeId,
        members: &[MemberId],
        domains: &[String],
        voters: &BTreeSet<MemberId>,
    ) -> Self {
        let report = |member: MemberId, domain: &String| Report {
            member,
            written: Stamp { boot: BootId(0), moment: 0 },
            heard: BTreeMap::new(),
            domain: domain.clone(),
            doubt: None,
            sights: BTreeMap::new(),
        };
        let reports =
            members.iter().zip(domains).map(|(member, domain)| (*member, (report(*member, domain), Mono(0))));
        let memory = Memory { voters: voters.clone(), reports: reports.collect(), ..Memory::default() };
        let record = NodeRecord::new(only_a_name(name.clone()));
        Patient {
            record,
            memory,
            eyes: members.iter().map(|_| Eye::default()).collect(),
            standing: None,
            expected: false,
            cut: false,
            fenced: false,
            recent_until: Mono(0),
            failing: false,
            power: None,
            troubled: 0,
            trouble: 0,
            trouble_since: Mono(0),
            fence: None,
            braked: None,
        }
    }

    pub(super) fn is_known(&self) -> bool {
        self.record.verdict != Verdict::Unknown
    }
}

impl Patient {
    /// Every member that sees reports at once what it sees now; members report once a second and at each change.
    pub(super) fn refresh(&mut self, members: &[MemberId], watchers: &[Watcher], now: Mono) {
        let name = &self.record.node.name;
        for ((member, watcher), eye) in members.iter().zip(watchers).zip(&self.eyes) {
            let Some((report, at)) = self.memory.reports.get_mut(member) else { continue };
            report.doubt.clone_from(&watcher.doubt);
            match eye.local.as_ref().filter(|_| watcher.sees) {
                Some(local) => {
                    let sight = local.sight(now);
                    match report.sights.get_mut(name) {
                        Some(known) => *known = sight,
                        None => drop(report.sights.insert(name.clone(), sight)),
                    }
                }
                None => drop(report.sights.remove(name)),
            }
            *at = now;
        }
        self.memory.fresh_powers.clear();
        if let Some(power) = self.power {
            self.memory.fresh_powers.insert(name.clone(), power);
        }
    }
}
