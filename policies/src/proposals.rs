//! What this member has proposed and not yet heard the end of. Keeps one proposal on its way for each matter, and a
//! pause after one that failed. Never proposes anything itself.

use crate::command::{Command, Step};
use crate::words::*;
use std::collections::BTreeMap;

/// Pause after a proposal that was lost or rejected. Lower: a log that takes nothing is asked in a busy loop. Higher: a
/// decision that was overtaken by another is made anew later.
const PROPOSE_AGAIN: Millis = Millis(100);

/// Open proposals by ticket.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proposals {
    open: BTreeMap<u64, Open>,
    last: u64,
}

#[derive(Clone, Debug)]
struct Open {
    command: Command,
    fate: Fate,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// Not answered yet.
    OnItsWay,
    /// In the log there, not yet applied here.
    At(LogIndex),
    /// Lost or rejected; the same matter may be proposed again from then on.
    Failed { again: Mono },
}

impl Proposals {
    /// A ticket for the command, unless one about the same matter is open.
    pub(crate) fn admit(&mut self, command: &Command) -> Option<u64> {
        if self.open.values().any(|open| same_matter(&open.command, command)) {
            return None;
        }
        self.last += 1;
        self.open.insert(self.last, Open { command: command.clone(), fate: Fate::OnItsWay });
        Some(self.last)
    }

    /// The store has answered: where the entry stands, or `None` if it is lost. `applied`: how far this member is.
    pub(crate) fn answered(&mut self, ticket: u64, index: Option<LogIndex>, applied: LogIndex, now: Mono) {
        let Some(open) = self.open.get_mut(&ticket) else { return };
        match (&open.fate, index) {
            (Fate::Failed { .. }, _) => {}
            (Fate::OnItsWay | Fate::At(_), Some(index)) if index > applied => open.fate = Fate::At(index),
            (Fate::OnItsWay | Fate::At(_), Some(_)) => {
                self.open.remove(&ticket);
            }
            (Fate::OnItsWay | Fate::At(_), None) => open.fate = Fate::Failed { again: now + PROPOSE_AGAIN },
        }
    }

    /// An entry was applied here, or rejected.
    pub(crate) fn applied(&mut self, index: LogIndex, command: &Command, rejected: bool, now: Mono) {
        for open in self.open.values_mut().filter(|open| rejected && open.command == *command) {
            open.fate = Fate::Failed { again: now + PROPOSE_AGAIN };
        }
        self.reached(index);
    }

    /// The state is as of this entry, whatever led to it.
    pub(crate) fn reached(&mut self, applied: LogIndex) {
        self.open.retain(|_, open| match open.fate {
            Fate::OnItsWay | Fate::Failed { .. } => true,
            Fate::At(index) => index > applied,
        });
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Mono) {
        self.open.retain(|_, open| match open.fate {
            Fate::OnItsWay | Fate::At(_) => true,
            Fate::Failed { again } => now < again,
        });
    }

    /// Another leads, or we lead anew: nothing of this counts any more.
    pub(crate) fn forget(&mut self) {
        self.open.clear();
    }
}

/// True if two commands are about the same matter, so that the second waits for the first.
fn same_matter(a: &Command, b: &Command) -> bool {
    match (a, b) {
        (Command::Lead { step: a, .. }, Command::Lead { step: b, .. }) => match (a, b) {
            (Step::Judge { node: a, .. }, Step::Judge { node: b, .. }) => a == b,
            (Step::Withhold { node: a, .. }, Step::Withhold { node: b, .. }) => a == b,
            // One plan at a time: the second is decided on the state that the first has left (brakes, spares).
            (Step::Begin(_) | Step::Replace { .. }, Step::Begin(_) | Step::Replace { .. }) => true,
            (Step::Stick { plan: a, .. }, Step::Stick { plan: b, .. }) => a == b,
            (Step::Resolve { token: a, .. }, Step::Resolve { token: b, .. }) => a == b,
            (Step::Place { plan: a, .. }, Step::Place { plan: b, .. }) => a == b,
            (Step::Finish { plan: a, .. }, Step::Finish { plan: b, .. }) => a == b,
            (Step::Discover { node: a, .. }, Step::Discover { node: b, .. }) => a == b,
            (a, b) => a == b,
        },
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(text: &str) -> Command {
        Command::Note { text: text.to_owned() }
    }

    #[test]
    fn one_matter_has_one_proposal_until_its_entry_is_applied() {
        let mut proposals = Proposals::default();
        let ticket = proposals.admit(&note("a")).unwrap();
        assert_eq!(proposals.admit(&note("a")), None);
        assert!(proposals.admit(&note("b")).is_some());
        proposals.answered(ticket, Some(LogIndex(7)), LogIndex(6), Mono(0));
        assert_eq!(proposals.admit(&note("a")), None);
        proposals.applied(LogIndex(7), &note("a"), false, Mono(0));
        assert!(proposals.admit(&note("a")).is_some());
    }

    #[test]
    fn an_answer_after_the_entry_closes_the_matter() {
        let mut proposals = Proposals::default();
        let ticket = proposals.admit(&note("a")).unwrap();
        proposals.applied(LogIndex(7), &note("a"), false, Mono(0));
        proposals.answered(ticket, Some(LogIndex(7)), LogIndex(7), Mono(0));
        assert!(proposals.admit(&note("a")).is_some());
    }

    #[test]
    fn a_snapshot_closes_what_it_contains() {
        let mut proposals = Proposals::default();
        let ticket = proposals.admit(&note("a")).unwrap();
        proposals.answered(ticket, Some(LogIndex(7)), LogIndex(1), Mono(0));
        proposals.reached(LogIndex(6));
        assert_eq!(proposals.admit(&note("a")), None);
        proposals.reached(LogIndex(9));
        assert!(proposals.admit(&note("a")).is_some());
    }

    #[test]
    fn what_failed_is_not_proposed_again_at_once() {
        for lost in [true, false] {
            let mut proposals = Proposals::default();
            let ticket = proposals.admit(&note("a")).unwrap();
            if lost {
                proposals.answered(ticket, None, LogIndex(1), Mono(1000));
            } else {
                proposals.applied(LogIndex(7), &note("a"), true, Mono(1000));
                proposals.answered(ticket, Some(LogIndex(7)), LogIndex(7), Mono(1000));
            }
            proposals.tick(Mono(1000 + PROPOSE_AGAIN.0 - 1));
            assert_eq!(proposals.admit(&note("a")), None);
            proposals.tick(Mono(1000 + PROPOSE_AGAIN.0));
            assert!(proposals.admit(&note("a")).is_some());
        }
    }
}
