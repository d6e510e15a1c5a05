//! This computer's clock, which everything that runs on it shares.

use policies::Wall;
use std::time::{SystemTime, UNIX_EPOCH};

/// Now, as the members stamp what they commit.
pub(crate) fn now() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
