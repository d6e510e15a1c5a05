//! What of an answer changes by more than the passing of time.
//!
//! Why it exists: `--watch` prints again when something has changed, and an age that grows is no change. What it never
//! does: leave out anything that an operator could have to act on: a report that becomes too old is a change.

use crate::api::answers::{
    FailoverDetail, FailoverLine, InstanceDetail, InstanceLine, MemberLine, Members, NodeDetail, NodeLine,
    PolicyDetail, Status,
};
use crate::api::explain::Explanation;
use crate::api::{PolicyVersion, ProviderLine, SpareLine};
use crate::progress::BEHIND_MAX;
use policies::{MemberId, Millis, Sight, Wall};

/// An answer that can be compared with a later one.
pub trait Still: Clone + PartialEq {
    /// The same answer without ages and clocks.
    #[must_use]
    fn still(self) -> Self;
}

impl Still for Status {
    fn still(self) -> Self {
        let members = self.members.into_iter().map(|line| still_member(line, self.answered_by)).collect();
        Status { now: Wall(0), members, ..self }
    }
}

impl Still for Members {
    fn still(self) -> Self {
        let members = self.members.into_iter().map(|line| still_member(line, self.answered_by)).collect();
        Members { members, ..self }
    }
}

fn still_member(line: MemberLine, answered_by: MemberId) -> MemberLine {
    MemberLine {
        report_age_ms: line.is_heard_by(answered_by).then_some(0),
        behind: line.behind.map(|behind| if behind <= BEHIND_MAX { 0 } else { behind }),
        ..line
    }
}

impl Still for NodeDetail {
    fn still(mut self) -> Self {
        for sight in self.view.sights.values_mut() {
            match sight {
                Sight::Alive { write_stale, .. } => *write_stale = write_stale.map(|_| Millis(0)),
                Sight::Silent { lasting, .. } => *lasting = Millis(0),
                Sight::Gasped(_) => {}
            }
        }
        self.view.power = self.view.power.map(|(read, _)| (read, Millis(0)));
        NodeDetail { now: Wall(0), ..self }
    }
}

impl Still for InstanceDetail {
    fn still(self) -> Self {
        InstanceDetail { now: Wall(0), ..self }
    }
}

impl Still for FailoverDetail {
    fn still(self) -> Self {
        FailoverDetail { now: Wall(0), ..self }
    }
}

impl Still for PolicyDetail {
    fn still(self) -> Self {
        self
    }
}

impl Still for Explanation {
    /// Its sentences may tell ages, which cannot be told from other words: better once too often than not.
    fn still(self) -> Self {
        Explanation { now: Wall(0), ..self }
    }
}

/// Lists hold no ages of their own.
macro_rules! still_already {
    ($($line:ty),*) => {
        $(impl Still for Vec<$line> {
            fn still(self) -> Self {
                self
            }
        })*
    };
}

still_already!(NodeLine, InstanceLine, FailoverLine, PolicyDetail, PolicyVersion, SpareLine, ProviderLine);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::tests::{mid_failover, name, status_of};
    use policies::Verdict;

    #[test]
    fn the_passing_of_time_is_no_change() {
        let mut story = mid_failover();
        let (status, node) = (status_of(&story), story.facts().node(&name("n1")).unwrap());
        let mut later = status.clone();
        later.now = Wall(status.now.0 + 2000);
        later.members[1].report_age_ms = Some(900);
        later.members[3].behind = Some(1100);
        assert_ne!(status.clone().still(), later.clone().still(), "it learns");
        later.members[3].behind = status.members[3].behind;
        later.members[2].behind = Some(3);
        assert_eq!(status.clone().still(), later.clone().still());
        later.members[1].report_age_ms = Some(3001);
        assert_ne!(status.still(), later.still(), "its report is too old");

        let view = story.view.nodes.get_mut(&name("n1")).unwrap();
        for sight in view.sights.values_mut() {
            let Sight::Silent { lasting, .. } = sight else { panic!("{sight}") };
            lasting.0 += 2000;
        }
        view.power = view.power.map(|(read, age)| (read, Millis(age.0 + 2000)));
        let mut later = story.facts().node(&name("n1")).unwrap();
        assert_ne!(node, later);
        assert_eq!(node.clone().still(), later.clone().still());
        later.record.verdict = Verdict::Gray;
        assert_ne!(node.still(), later.still());
    }
}
