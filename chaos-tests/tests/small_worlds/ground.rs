//! The ground truth of a small world: which node has power, which node each device lets in.
//!
//! Why it exists: the engines believe, the laws ask what is. What it never does: look at an engine.

use super::cluster::{network_number, number, volume_number};
use super::rules::{Rules, Shortcut};
use policies::{Action, Outcome, Seen};

/// A set of nodes: bit `i` is node `i`.
type Nodes = u8;

/// What is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ground {
    /// Nodes with power.
    pub(crate) on: Nodes,
    /// Nodes whose BMC says "off" and lies.
    pub(crate) lied: Nodes,
    /// Nodes whose power was off, or was lied to be, since a command switched them on.
    pub(crate) was_off: Nodes,
    /// By volume: nodes that may use it.
    pub(crate) access: Vec<Nodes>,
    /// By volume: nodes that ever could use it.
    pub(crate) held: Vec<Nodes>,
    /// By network: nodes whose port is open into it.
    pub(crate) open: Vec<Nodes>,
}

impl Ground {
    pub(crate) fn new(rules: &Rules) -> Self {
        let own: Vec<Nodes> = (0..rules.instances).map(|node| 1 << node).collect();
        let on = (1 << rules.instances) - 1;
        let open = if rules.ports { own.clone() } else { vec![] };
        Ground { on, lied: 0, was_off: !on, access: own.clone(), held: own, open }
    }

    pub(crate) fn is_on(&self, node: usize) -> bool {
        self.on & 1 << node != 0
    }

    /// What the node's BMC says.
    pub(crate) fn reads_on(&self, node: usize) -> bool {
        self.is_on(node) && self.lied & 1 << node == 0
    }

    /// A device obeys.
    pub(crate) fn obey(&mut self, action: &Action, rules: &Rules) {
        let bit: Nodes = 1 << number(action.node());
        match action {
            Action::ShutDown { .. } | Action::PowerOff { .. } => {
                self.was_off |= bit;
                if !rules.takes(Shortcut::Reset) {
                    self.on &= !bit;
                }
            }
            Action::PowerOn { .. } => {
                self.on |= bit;
                self.lied &= !bit;
                self.was_off &= !bit;
            }
            Action::Revoke { volume, .. } if rules.revokes() => self.access[volume_number(volume)] &= !bit,
            Action::Attach { volume, .. } => {
                let access = &mut self.access[volume_number(volume)];
                if !rules.exclusive || *access & !bit == 0 {
                    *access |= bit;
                    self.held[volume_number(volume)] |= bit;
                }
            }
            Action::ClosePort { .. } if rules.revokes() => {
                self.open.iter_mut().for_each(|open| *open &= !bit);
            }
            Action::OpenPort { vlan, .. } => self.open[network_number(*vlan)] |= bit,
            Action::Diagnose { .. }
            | Action::Interrupt { .. }
            | Action::Snapshot { .. }
            | Action::Revoke { .. }
            | Action::ClosePort { .. }
            | Action::AttachVif { .. }
            | Action::Claim { .. }
            | Action::Clean { .. }
            | Action::SetBoot { .. } => {}
        }
    }

    /// A BMC says "off" and does nothing.
    pub(crate) fn lie(&mut self, node: usize) {
        self.lied |= 1 << node;
        self.was_off |= 1 << node;
    }

    /// Somebody switches the node on.
    pub(crate) fn boot(&mut self, node: usize) {
        self.on |= 1 << node;
        self.lied &= !(1 << node);
    }

    /// What reading back shows, if it shows that the action is done.
    pub(crate) fn shows(&self, action: &Action, rules: &Rules) -> Option<Outcome> {
        let node = number(action.node());
        let bit: Nodes = 1 << node;
        let read = Seen::ReadBack("r".to_owned());
        let cut_off = Seen::OffTwice { already: false, took: policies::Millis(0) };
        let naive = rules.takes(Shortcut::AckIsProof) || rules.takes(Shortcut::Reset);
        let (shown, seen) = match action {
            Action::Diagnose { .. } => (true, Seen::Diagnosed([].into())),
            Action::Interrupt { .. } => (true, Seen::Accepted),
            Action::ShutDown { .. } | Action::PowerOff { .. } => (naive || !self.reads_on(node), cut_off),
            Action::PowerOn { .. } => (self.reads_on(node), Seen::On),
            Action::Revoke { volume, .. } => {
                let gone = self.access[volume_number(volume)] & bit == 0;
                (naive || gone || !rules.revokes(), read)
            }
            Action::Attach { volume, .. } => (self.access[volume_number(volume)] & bit != 0, read),
            Action::ClosePort { .. } => {
                let closed = self.open.iter().all(|open| open & bit == 0);
                (naive || closed || !rules.revokes(), read)
            }
            Action::OpenPort { vlan, .. } => (self.open[network_number(*vlan)] & bit != 0, read),
            Action::Snapshot { .. }
            | Action::AttachVif { .. }
            | Action::Claim { .. }
            | Action::Clean { .. }
            | Action::SetBoot { .. } => (true, read),
        };
        shown.then_some(Outcome::Done(seen))
    }
}
