//! What this member sees: changes of the watch table and answers of kernels, folded into one sight a node.
//! Never compares members and never decides.

use crate::observation::{FewPaths, Kernel, LastGasp, SelfDoubt, Sight};
use crate::watch::Change;
use crate::words::*;
use std::collections::BTreeMap;

/// A member doubts itself when more than half of its nodes, and at least this many, are silent for it. Lower: two
/// nodes that die together make a small cluster doubt itself. Higher: a member that lost its network reports deaths.
pub(crate) const DOUBT_SILENT_MIN: u32 = 3;
/// After most nodes were silent at once they come back one by one: a switch that restarts brings up its ports over
/// seconds. For this long after the last moment of mass silence a member doubts itself about those that are missing.
/// Lower: nodes that are about to return are fenced. Higher: one that really died in the event waits longer.
pub(crate) const DOUBT_SETTLES: Millis = Millis(30_000);
/// Pause between two rounds of questions to a silent node's kernel; finds the end of a gray node.
pub(crate) const ASK_AGAIN_AFTER: Millis = Millis(1000);

/// One member's eyes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sights {
    nodes: BTreeMap<NodeId, Local>,
    /// The last moment of mass silence, until all that were missing are back or it is long ago.
    mass_silence: Option<Mono>,
}

/// One member's eye on one node.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    last: Last,
    kernel: Kernel,
    asked: Mono,
}

#[derive(Clone, Debug)]
enum Last {
    Alive { epoch: Epoch, write_stale: Option<Millis>, few_paths: Option<FewPaths> },
    Silent { since: Mono, never: bool },
    Gasped(LastGasp),
}

impl Local {
    /// Nothing was heard yet.
    pub(crate) fn new(has_probe: bool, now: Mono) -> Self {
        let kernel = if has_probe { Kernel::Asking } else { Kernel::NoProbe };
        Local { last: Last::Silent { since: now, never: true }, kernel, asked: now }
    }

    /// Takes a change of the watch table. True if the node's kernel must be asked now.
    pub(crate) fn change(&mut self, change: &Change, has_probe: bool, now: Mono) -> bool {
        match (change, &mut self.last) {
            (Change::Heard { epoch, .. }, last) => {
                *last = Last::Alive { epoch: *epoch, write_stale: None, few_paths: None };
            }
            (Change::WriteStale { age }, Last::Alive { write_stale, .. }) => *write_stale = Some(*age),
            (Change::WriteFresh, Last::Alive { write_stale, .. }) => *write_stale = None,
            (Change::PathsFew(few), Last::Alive { few_paths, .. }) => *few_paths = Some(*few),
            (Change::PathsEnough, Last::Alive { few_paths, .. }) => *few_paths = None,
            (
                Change::WriteStale { .. } | Change::WriteFresh | Change::PathsFew(_) | Change::PathsEnough,
                Last::Silent { .. } | Last::Gasped(_),
            ) => {}
            // After an orderly farewell, silence is what was announced.
            (Change::Silent { .. }, Last::Gasped(_)) => {}
            (Change::Silent { since }, last @ (Last::Alive { .. } | Last::Silent { .. })) => {
                *last = Last::Silent { since: *since, never: false };
            }
            (Change::NeverHeard { since }, last) => *last = Last::Silent { since: *since, never: true },
            (Change::LastGasp(gasp), last) => *last = Last::Gasped(*gasp),
        }
        let silent = matches!(self.last, Last::Silent { .. });
        if silent {
            self.kernel = if has_probe { Kernel::Asking } else { Kernel::NoProbe };
            self.asked = now;
        }
        silent && has_probe
    }

    /// Takes the answer, or the missing one, of the node's kernel.
    pub(crate) fn answered(&mut self, answers: Option<bool>, now: Mono) {
        self.kernel = match answers {
            Some(true) => Kernel::Answers,
            Some(false) => Kernel::Mute,
            None => Kernel::Asking,
        };
        self.asked = now;
    }

    /// True if it is silent; one that was never heard only if others know it.
    pub(crate) fn is_silent(&self, known: bool) -> bool {
        matches!(self.last, Last::Silent { never, .. } if known || !never)
    }

    /// What the other members are told of it.
    pub(crate) fn sight(&self, now: Mono) -> Sight {
        match &self.last {
            Last::Alive { epoch, write_stale, few_paths } => {
                Sight::Alive { epoch: *epoch, write_stale: *write_stale, few_paths: *few_paths }
            }
            Last::Silent { since, never } => {
                let lasting = coarse(now.since(*since));
                Sight::Silent { lasting, never: *never, kernel: self.kernel }
            }
            Last::Gasped(gasp) => Sight::Gasped(*gasp),
        }
    }
}

impl Sights {
    /// Takes a change of the watch table. True if the node's kernel must be asked now.
    pub(crate) fn change(&mut self, node: &NodeId, change: &Change, has_probe: bool, now: Mono) -> bool {
        let local = self.nodes.entry(node.clone()).or_insert_with(|| Local::new(has_probe, now));
        local.change(change, has_probe, now)
    }

    /// Takes the answer, or the missing one, of a node's kernel; `None`: we could not ask and will try again.
    pub(crate) fn answered(&mut self, node: &NodeId, answers: Option<bool>, now: Mono) {
        if let Some(local) = self.nodes.get_mut(node) {
            local.answered(answers, now);
        }
    }

    /// Silent nodes whose kernel is to be asked again: what it said last may have changed.
    pub(crate) fn due_again(&mut self, now: Mono) -> Vec<NodeId> {
        let due = |local: &Local| {
            local.kernel != Kernel::NoProbe
                && matches!(local.last, Last::Silent { .. })
                && now.since(local.asked) >= ASK_AGAIN_AFTER
        };
        let mut nodes = vec![];
        for (node, local) in self.nodes.iter_mut().filter(|(_, local)| due(local)) {
            local.asked = now;
            nodes.push(node.clone());
        }
        nodes
    }

    /// Forgets a node that is no longer watched.
    pub(crate) fn forget(&mut self, node: &NodeId) {
        self.nodes.remove(node);
    }

    /// The epoch in which this node is heard now.
    pub(crate) fn heard_in(&self, node: &NodeId) -> Option<Epoch> {
        match self.nodes.get(node).map(|local| &local.last) {
            Some(Last::Alive { epoch, .. }) => Some(*epoch),
            Some(Last::Silent { .. } | Last::Gasped(_)) | None => None,
        }
    }

    /// For how long the node has been silent; 0 if it is not.
    pub(crate) fn silent_for(&self, node: &NodeId, now: Mono) -> Millis {
        match self.nodes.get(node).map(|local| &local.last) {
            Some(Last::Silent { since, .. }) => now.since(*since),
            Some(Last::Alive { .. } | Last::Gasped(_)) | None => Millis(0),
        }
    }

    /// True if the node was heard once and is silent now.
    pub(crate) fn fell_silent(&self, node: &NodeId) -> bool {
        self.nodes.get(node).is_some_and(|local| local.is_silent(false))
    }

    /// What the other members are told: our doubt of ourselves, and our sights. `expected`: nodes that should be alive, and
    /// whether the cluster has ever seen them so; only they cast doubt on the member. One that this member never heard,
    /// but others did, is silent for it.
    pub(crate) fn report(
        &mut self,
        expected: impl Iterator<Item = (NodeId, bool)>,
        now: Mono,
    ) -> (Option<SelfDoubt>, BTreeMap<NodeId, Sight>) {
        let sights: BTreeMap<NodeId, Sight> =
            self.nodes.iter().map(|(node, local)| (node.clone(), local.sight(now))).collect();
        let (mut watched, mut silent) = (0u32, 0u32);
        for (node, known) in expected {
            watched += 1;
            if let Some(Sight::Silent { never, .. }) = sights.get(&node)
                && (known || !never)
            {
                silent += 1;
            }
        }
        (doubt(&mut self.mass_silence, silent, watched, now), sights)
    }
}

/// Whether a member for which so many of its nodes are silent doubts itself. `mass_silence`: the last moment of mass
/// silence, which is kept here.
pub(crate) fn doubt(
    mass_silence: &mut Option<Mono>,
    silent: u32,
    watched: u32,
    now: Mono,
) -> Option<SelfDoubt> {
    // Doubt ends when most nodes are heard, not when a fence leaves fewer that could be silent.
    let most = silent * 2 > watched && (mass_silence.is_some() || silent >= DOUBT_SILENT_MIN);
    if most {
        *mass_silence = Some(now);
    }
    *mass_silence = mass_silence.filter(|at| silent > 0 && now.since(*at) < DOUBT_SETTLES);
    mass_silence.map(|_| match most {
        true => SelfDoubt::MostNodesSilent { silent, watched },
        false => SelfDoubt::NotAllBack { silent, watched },
    })
}

/// A length of silence for people: coarser the longer it is, so that reports do not change all the time.
fn coarse(length: Millis) -> Millis {
    let grain = match length.0 {
        0..2_000 => 100,
        2_000..60_000 => 1_000,
        _ => 60_000,
    };
    Millis(length.0 / grain * grain)
}
