//! What a small world is made of and what may happen in it: sizes, budgets, and the one shortcut that it takes, if any.

/// How often each kind of trouble may strike. Every number multiplies the states of a world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    /// Elections of another member; the old leader does not know at first.
    pub(crate) elections: u8,
    /// Leaders that die and are elected again with an empty memory.
    pub(crate) restarts: u8,
    /// BMCs that say "off" and do nothing.
    pub(crate) lies: u8,
    /// Nodes that somebody switches on.
    pub(crate) boots: u8,
    /// Effects whose executor stops waiting while the command may still be on its way.
    pub(crate) timeouts: u8,
    /// Commands that arrive twice.
    pub(crate) copies: u8,
    /// Spares that do not start in time.
    pub(crate) changes: u8,
    /// Operators' cancels.
    pub(crate) cancels: u8,
    /// Operators' releases of a quarantined node.
    pub(crate) releases: u8,
    /// Operators' orders to move an instance again.
    pub(crate) orders: u8,
    /// Operators' cordons of a spare.
    pub(crate) cordons: u8,
}

/// The shortcut that a naive design takes. Each lives in the world or between world and engine, never in the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shortcut {
    /// N2: a command that was accepted counts as done.
    AckIsProof,
    /// N3: a reset in place of power off; nothing is revoked.
    Reset,
    /// N4, N5: storage accepts a revocation and does nothing.
    NoRevocation,
    /// G2: a deposed leader may send as long as it believes to lead.
    NoLease,
    /// G2c: a policy that says that no command is ever late.
    NoDrain,
    /// N1, N10: the leader acts on entries before they are committed.
    ActsBeforeCommit,
    /// N9: a spare is reserved without a look at whether it is free.
    NoCompareAndSet,
    /// N8, N14: a failover may be cancelled after its fence has begun.
    CancelAnyTime,
    /// N6: a spare is changed for another without fencing it.
    SpareChangedFreely,
    /// N13: a fenced node is a spare again at once, and nothing drains.
    NoQuarantine,
    /// R10 half done: a leader that was deposed and elected again without noticing sends what it wanted before.
    LeaseOfAnyLeadership,
}

/// A small world.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) name: &'static str,
    /// Instances, each on a node of its own.
    pub(crate) instances: usize,
    /// Nodes without an instance.
    pub(crate) spares: usize,
    /// Nodes have a switch port each, instances a network each.
    pub(crate) ports: bool,
    /// The storage refuses a second attachment.
    pub(crate) exclusive: bool,
    pub(crate) budget: Budget,
    pub(crate) shortcut: Option<Shortcut>,
}

impl Rules {
    pub(crate) fn nodes(&self) -> usize {
        self.instances + self.spares
    }

    pub(crate) fn takes(&self, shortcut: Shortcut) -> bool {
        self.shortcut == Some(shortcut)
    }

    pub(crate) fn drains(&self) -> bool {
        !self.takes(Shortcut::NoDrain) && !self.takes(Shortcut::NoQuarantine)
    }

    pub(crate) fn revokes(&self) -> bool {
        !self.takes(Shortcut::NoRevocation) && !self.takes(Shortcut::Reset)
    }
}
