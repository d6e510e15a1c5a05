//! What must hold after every scenario, whatever happened in it, beside what `court` asks. One file a statement.
//!
//! Why it exists: a scenario only has to break things and wait; whether the cluster kept its promises is asked
//! afterwards. Here is what only real processes show: that they run, what they say when they end, what they remember,
//! and whom we had struck.
//! What it never does: look at a process; every check is a function of [`Facts`].

mod ends_are_explained;
mod healthy_is_left_alone;
mod memory_is_its_log;
mod no_write_is_lost;
mod only_the_struck_end;
mod quorum_is_there;

use super::facts::Facts;

/// A statement, and the function that says where it does not hold.
struct Check {
    statement: &'static str,
    broken: fn(&Facts) -> Vec<String>,
}

const CHECKS: [Check; 6] = [
    no_write_is_lost::CHECK,
    healthy_is_left_alone::CHECK,
    quorum_is_there::CHECK,
    memory_is_its_log::CHECK,
    ends_are_explained::CHECK,
    only_the_struck_end::CHECK,
];

/// Everything that does not hold; empty if all is well.
pub(super) fn broken(facts: &Facts) -> Vec<String> {
    let broken = CHECKS.iter().flat_map(|check| {
        (check.broken)(facts).into_iter().map(|what| format!("{}: {what}", check.statement))
    });
    broken.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::calm::calm;

    #[test]
    fn nothing_is_broken_when_nothing_went_wrong() {
        assert_eq!(broken(&calm()), Vec::<String>::new());
    }

    /// What the check of this statement says after a change, and that no other check is disturbed by it.
    pub(super) fn said(check: &Check, change: impl FnOnce(&mut Facts)) -> String {
        let mut facts = calm();
        change(&mut facts);
        let said = (check.broken)(&facts).join("; ");
        assert!(!said.is_empty(), "{} was to be broken", check.statement);
        assert_eq!(broken(&facts).len(), (check.broken)(&facts).len(), "{:?}", broken(&facts));
        said
    }
}
