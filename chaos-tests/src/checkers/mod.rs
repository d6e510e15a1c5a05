//! What must hold, whatever happens: one property a file, each with its statement and where it comes from.
//!
//! Why it exists: simulated and real runs are judged by the same code, fact by fact, as it happens.
//! What it never does: know how the facts were made, or ask the program whether it thinks that it is right.
//!
//! To add a property: a file with a type that implements [`Checker`], a line in [`all`], and a planted bug in
//! `chaos-tests/planted/` that it finds.
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a checker names the few facts that its property is about; a new kind of fact concerns no other"
)]

mod acknowledged;
mod attach;
mod brakes;
mod bystander;
mod deposed;
mod drained;
mod explained;
mod fact;
mod healthy;
mod identity;
mod insists;
mod intent;
mod linear;
mod log;
mod plans;
mod quarantine;
mod record;
mod truth;
mod writer;

pub use fact::{Answer, Deed, Fact, Request};
pub use truth::Truth;

use policies::{ClusterState, LogIndex, MemberId, NodeId, Proposal};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What a checker may look at besides the fact itself.
#[derive(Debug, Default)]
pub struct Scene {
    /// When the fact happened, in µs.
    pub now: u64,
    /// What is really so, the fact included.
    pub truth: Truth,
    /// The committed state, the fact included.
    pub state: ClusterState,
    /// The fact is an entry that is applied for the first time anywhere, and this is what came of it.
    pub applied: Option<Result<(), policies::Rejected>>,
    /// How long the entry was on its way into the log, in µs, as far as is known.
    pub on_its_way: u64,
    /// What the entry did, for the story.
    pub events: Vec<policies::Event>,
    sometimes: RefCell<BTreeMap<&'static str, u64>>,
}

impl Scene {
    /// Notes that something interesting was reached; a set of runs in which it never is tests too little.
    pub fn sometimes(&self, what: &'static str) {
        *self.sometimes.borrow_mut().entry(what).or_default() += 1;
    }

    /// The entry that was just applied for the first time and has changed something.
    pub fn entry<'a>(&self, fact: &'a Fact) -> Option<(LogIndex, &'a Proposal)> {
        match (fact, &self.applied) {
            (Fact::Applied { index, proposal, .. }, Some(Ok(()))) => Some((*index, proposal)),
            _ => None,
        }
    }
}

/// What a thousand seeds must have reached at least once.
pub const INTERESTING: [&str; 14] = [
    "a client reads the newest state",
    "a failover begins during a backup",
    "a failover is done",
    "a hot spare goes on into the instance",
    "a hot spare is started cold",
    "a node is fenced that a minority still hears",
    "a node is fenced without an instance to move",
    "a power-off takes effect after the node was fenced",
    "a refusal is committed with its reason",
    "a released node becomes a spare again",
    "a snapshot is installed",
    "a volume is backed up while it is in use",
    "a volume's state is kept before it is given on",
    "isolation saves us: a proven node still has power",
];

/// One property.
pub trait Checker: fmt::Debug + Send {
    /// Its name, as in its file's.
    fn name(&self) -> &'static str;
    /// Looks at one fact.
    ///
    /// # Errors
    /// How the property is broken.
    fn see(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String>;
    /// Looks once more when all is over.
    ///
    /// # Errors
    /// How the property is broken.
    fn end(&mut self, _scene: &Scene) -> Result<(), String> {
        Ok(())
    }
}

/// Every property.
pub fn all() -> Vec<Box<dyn Checker>> {
    vec![
        Box::<writer::Writer>::default(),
        Box::<identity::Identity>::default(),
        Box::<attach::Attach>::default(),
        Box::<intent::Intent>::default(),
        Box::<deposed::Deposed>::default(),
        Box::<plans::Plans>::default(),
        Box::<brakes::BrakesHold>::default(),
        Box::<healthy::Healthy>::default(),
        Box::<bystander::Bystander>::default(),
        Box::<quarantine::Quarantine>::default(),
        Box::<drained::Drained>::default(),
        Box::<log::Log>::default(),
        Box::<acknowledged::Acknowledged>::default(),
        Box::<linear::Linear>::default(),
        Box::<explained::Explained>::default(),
        Box::<insists::Insists>::default(),
        Box::<record::Record>::default(),
    ]
}

/// A property that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When, in µs.
    pub at: u64,
    /// Which.
    pub checker: &'static str,
    /// How.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s, {}: {}", self.at as f64 / 1e6, self.checker, self.what)
    }
}

/// Keeps the reference state, and shows each fact to every checker.
#[derive(Debug, Default)]
pub struct Court {
    /// What is known so far.
    pub scene: Scene,
    checkers: Vec<Box<dyn Checker>>,
    /// What was found; the first is the cause, the others may be its consequences.
    pub violations: Vec<Violation>,
}

impl Court {
    /// A court with these checkers.
    pub fn new(checkers: Vec<Box<dyn Checker>>) -> Self {
        Court { checkers, ..Court::default() }
    }

    /// A fact.
    pub fn hear(&mut self, now: u64, fact: &Fact) {
        self.scene.now = now;
        self.scene.truth.take(now, fact);
        self.scene.applied = None;
        match fact {
            Fact::Applied { index, proposal, .. } if *index > self.scene.state.applied => {
                let applied = self.scene.state.apply(*index, proposal);
                self.scene.events.clear();
                self.scene.applied = Some(applied.map(|applied| self.scene.events = applied.events));
            }
            Fact::Installed { state, .. } if state.applied > self.scene.state.applied => {
                self.scene.state = ClusterState::clone(state);
            }
            _ => {}
        }
        for checker in &mut self.checkers {
            if let Err(what) = checker.see(&self.scene, fact) {
                self.violations.push(Violation { at: now, checker: checker.name(), what });
            }
        }
    }

    /// A heartbeat of a node has reached a member: too many to be facts.
    pub fn heard(&mut self, now: u64, node: &NodeId, member: MemberId) {
        self.scene.truth.heard(now, node, member);
    }

    /// A command is on its way to a device, or is no longer.
    pub fn under_way(&mut self, deed: &Deed, change: i64) {
        self.scene.truth.under_way(deed, change);
    }

    /// It is all over.
    pub fn end(&mut self, now: u64) {
        self.scene.now = now;
        for checker in &mut self.checkers {
            if let Err(what) = checker.end(&self.scene) {
                self.violations.push(Violation { at: now, checker: checker.name(), what });
            }
        }
    }

    /// Something that no checker looks for, such as a panic.
    pub fn accuse(&mut self, now: u64, checker: &'static str, what: String) {
        self.violations.push(Violation { at: now, checker, what });
    }

    /// How often each interesting thing was reached.
    pub fn sometimes(&self) -> BTreeMap<&'static str, u64> {
        self.scene.sometimes.borrow().clone()
    }
}

/// A proposal as it was at the same place in the log of another member.
type Entries = BTreeMap<LogIndex, Arc<Proposal>>;
