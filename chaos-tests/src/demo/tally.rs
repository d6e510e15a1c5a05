//! Trials one after the other: a line for each, and how many held.
//!
//! What it never does: end early; one that did not hold is told, and the next one runs.

use super::DemoError;
use policies::causes;
use std::fmt::Display;
use std::path::Path;
use std::time::Instant;

/// What has held so far.
pub(crate) struct Tally<'a> {
    tell: &'a dyn Fn(&str),
    began: Instant,
    tried: usize,
    failed: usize,
}

impl<'a> Tally<'a> {
    pub(crate) fn new(tell: &'a dyn Fn(&str)) -> Tally<'a> {
        Tally { tell, began: Instant::now(), tried: 0, failed: 0 }
    }

    /// Runs one, and tells what was seen, or why it did not hold.
    pub(crate) async fn run(
        &mut self,
        name: impl Display,
        trial: impl Future<Output = Result<String, DemoError>>,
    ) {
        let started = Instant::now();
        let done = trial.await;
        let took = started.elapsed().as_secs_f64();
        self.tried += 1;
        match done {
            Ok(seen) => (self.tell)(&format!("PASS  {name:<21} {took:>6.1} s  {seen}")),
            Err(error) => {
                self.failed += 1;
                (self.tell)(&format!("FAIL  {name:<21} {took:>6.1} s\n{}", causes(&error)));
            }
        }
    }

    /// Tells how many held.
    ///
    /// # Errors
    /// [`DemoError::DidNotHold`] if one of them did not.
    pub(crate) fn end(self, logs: &Path) -> Result<(), DemoError> {
        let Tally { tell, began, tried, failed } = self;
        tell(&format!("{} of {tried} held, in {:.0} s", tried - failed, began.elapsed().as_secs_f64()));
        match failed {
            0 => Ok(()),
            failed => Err(DemoError::DidNotHold { failed, of: tried, logs: logs.to_owned() }),
        }
    }
}
