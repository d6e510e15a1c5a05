//! Waiting for something to become true, with a deadline and a good error.
//!
//! Why it exists: everything in the demo takes as long as it takes, and what does not come must be explained.
//! What it never does: wait for a fixed time.

use super::DemoError;
use super::error::tail;
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Pause between two looks. Lower costs processor time that the measured programs need; no result depends on it, for
/// all times come from the programs themselves.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// What a look showed.
pub(crate) enum Look<T> {
    /// It is so.
    There(T),
    /// Not yet; this is what was seen.
    NotYet(String),
}

/// Looks until it is so.
///
/// # Errors
/// [`DemoError::Late`] with the end of `log`, or what a look returned.
pub(crate) async fn until<T>(
    what: &str,
    within: Duration,
    log: &Path,
    look: impl AsyncFnMut() -> Result<Look<T>, DemoError>,
) -> Result<T, DemoError> {
    until_every(LOOK_EVERY, what, within, log, look).await
}

/// The same with another pause, for looks that cost others more.
///
/// # Errors
/// As of [`until`].
pub(crate) async fn until_every<T>(
    pause: Duration,
    what: &str,
    within: Duration,
    log: &Path,
    mut look: impl AsyncFnMut() -> Result<Look<T>, DemoError>,
) -> Result<T, DemoError> {
    let deadline = Instant::now() + within;
    loop {
        let seen = match look().await? {
            Look::There(found) => return Ok(found),
            Look::NotYet(seen) => seen,
        };
        if Instant::now() >= deadline {
            let (what, log) = (what.to_owned(), log.to_owned());
            return Err(DemoError::Late { what, within, seen, tail: tail(&log), log });
        }
        sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_deadline_says_what_was_awaited_and_what_was_seen() {
        let mut looks = 0;
        let found = until("a third look", Duration::from_secs(1), Path::new("/nowhere"), async || {
            looks += 1;
            Ok(if looks == 3 { Look::There(looks) } else { Look::NotYet(format!("look {looks}")) })
        });
        assert_eq!(found.await.unwrap(), 3);
        let never = until("better times", Duration::ZERO, Path::new("/nowhere"), async || {
            Ok(Look::<()>::NotYet("the same times".to_owned()))
        });
        let said = never.await.unwrap_err().to_string();
        assert!(said.starts_with("waited 0ns for better times; seen last: the same times\n"), "{said}");
    }
}
