//! The sequence window of a session: each number is accepted once, and not when it is too old (IPMI 2.0 §6.12.13).
//!
//! Why it exists: a packet that somebody recorded and sends again must not be taken for news.
//! What it never does: judging a packet whose code was not checked first.

/// How far behind the newest number a number may be, inclusive (IPMI 2.0 §6.12.13 allows 15 or 16 behind).
const BEHIND_MAX: u32 = 15;

/// Which session sequence numbers were seen. Ahead there is no limit: only the holder of the keys can make a packet
/// with a high number, and a BMC whose packets were lost for a while must be heard again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    newest: u32,
    /// Bit `i` is set if `newest - i` was seen.
    seen: u32,
}

impl Window {
    /// True if the number is new; it is then remembered. 0 belongs to no session and is never accepted.
    pub fn accept(&mut self, sequence: u32) -> bool {
        if sequence == 0 {
            return false;
        }
        if sequence > self.newest {
            let ahead = sequence - self.newest;
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.newest = sequence;
            return true;
        }
        let behind = self.newest - sequence;
        let bit = 1u32.checked_shl(behind).unwrap_or(0);
        let fresh = behind <= BEHIND_MAX && self.seen & bit == 0;
        if fresh {
            self.seen |= bit;
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_number_is_accepted_at_most_once_and_never_when_far_behind(numbers in prop::collection::vec(0u32..80, 0..200)) {
            let (mut window, mut accepted) = (Window::default(), BTreeSet::new());
            for number in numbers {
                let newest = accepted.last().copied().unwrap_or(0);
                let want = number != 0 && !accepted.contains(&number) && number + BEHIND_MAX >= newest;
                prop_assert_eq!(window.accept(number), want, "{} after {:?}", number, accepted);
                if want {
                    accepted.insert(number);
                }
            }
        }
    }

    #[test]
    fn a_jump_to_the_end_of_the_numbers_is_taken() {
        let mut window = Window::default();
        assert!(window.accept(1) && window.accept(u32::MAX) && window.accept(u32::MAX - 15));
        assert!(!window.accept(u32::MAX) && !window.accept(u32::MAX - 16) && !window.accept(1));
    }
}
