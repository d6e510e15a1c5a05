//! What `hactl` prints: screens as pure functions of what the API answered and of the time.
//!
//! Why it exists: an operator decides by these lines at three in the morning, so each screen is compared with a text
//! in `testdata/`. What it never does: ask for the time, for the terminal or for the cluster.

mod time;

pub use time::{ago, at, clock, length, local, utc};
