//! The one algorithm by which a provider's state is changed.
//!
//! What this is: look, act, look again, and say honestly what was seen.
//! Why it exists: every provider shares it, so none can take an acknowledgement for a proof.
//! What it never does: it sends the change more than once; doing it again is the planner's decision.

use crate::{Provider, ProviderError, Stage, State, Wish, no_answer, waited};
use policies::{Doubt, Effect, Outcome, Permit, Seen};
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};

/// Longest pause between two readings. Longer would be felt in the failover, shorter only burdens a slow device.
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// Shortest pause between two readings: about one exchange with a fast device.
const PAUSE_MIN: Duration = Duration::from_millis(2);
/// How long after a change without an answer a provider that is at nothing is taken to have lost it. It is asked again then, so only
/// what does no harm when it comes late reads [`Stage::Idle`]. Shorter: it may still be taking it up. Longer: what died with a
/// service begins that much later.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// What came back for a change.
enum Answer {
    Accepted,
    Missing { since: Instant },
}

/// Carries out one effect at a provider. `known_as` is the name by which that knows the effect's node.
///
/// Ends as [`Outcome::Done`] only if the wished-for state was read back, as [`Outcome::Refused`] only if the change
/// certainly did not happen, and else as [`Outcome::Unknown`]. Safe to start twice and late: the state that is
/// already there is success, and the token lets the device refuse what is older than what it has seen.
pub async fn carry_out(
    provider: &impl Provider,
    effect: &Effect,
    known_as: Option<&str>,
    permit: &dyn Permit,
    deadline: Instant,
) -> Outcome {
    if let Err(refusal) = permit.check() {
        return Outcome::Refused(refusal);
    }
    let wish = match Wish::new(&effect.action, known_as) {
        Ok(wish) => wish,
        Err(refusal) => return Outcome::Refused(refusal),
    };
    match provider.look(&wish, deadline).await {
        Ok(state) if state.stage == Stage::There => return Outcome::Done(Seen::ReadBack(state.reading)),
        // What has failed before is tried again.
        Ok(_) => {}
        // Only reading was tried, so nothing can have changed.
        Err(error) => return Outcome::Refused(error.into_refusal()),
    }
    let sent = Instant::now();
    let acted = provider.act(&wish, effect.token, permit, deadline).await;
    match acted {
        Ok(()) => see(provider, &wish, sent, deadline, &Answer::Accepted).await,
        Err(error @ (ProviderError::Refused { .. } | ProviderError::Unreachable { .. })) => {
            Outcome::Refused(error.into_refusal())
        }
        Err(error @ ProviderError::Configuration(_)) => Outcome::Refused(error.into_refusal()),
        Err(ProviderError::NoAnswer { .. } | ProviderError::Garbled { .. }) => {
            see(provider, &wish, sent, deadline, &Answer::Missing { since: Instant::now() }).await
        }
    }
}

/// Reads until the wished-for state is there, the deadline has passed, or it is seen that nothing more will come of it.
async fn see(
    provider: &impl Provider,
    wish: &Wish,
    sent: Instant,
    deadline: Instant,
    answer: &Answer,
) -> Outcome {
    let mut last = None;
    loop {
        match provider.look(wish, deadline).await {
            Ok(State { stage: Stage::There, reading }) => return Outcome::Done(Seen::ReadBack(reading)),
            Ok(State { stage, reading }) => match (stage, answer) {
                // Without its word that it took the command, it may speak of an earlier one.
                (Stage::Failed, Answer::Accepted) => {
                    return Outcome::Unknown(Doubt::Failed { waited: waited(sent), last: reading });
                }
                (Stage::Idle, Answer::Missing { since }) if since.elapsed() >= LOST_AFTER => {
                    return no_answer(sent);
                }
                (Stage::There | Stage::NotYet | Stage::Idle | Stage::Failed, _) => last = Some(reading),
            },
            // A reading that failed says nothing; the next one may succeed.
            Err(_) => {}
        }
        let next = Instant::now() + provider.pause(sent.elapsed());
        if timeout_at(deadline, sleep_until(next)).await.is_err() {
            break;
        }
    }
    match (last, answer) {
        (Some(last), Answer::Accepted) => Outcome::Unknown(Doubt::NotSeen { waited: waited(sent), last }),
        (None, _) | (Some(_), Answer::Missing { .. }) => no_answer(sent),
    }
}

/// The pause between two readings of a device that does in milliseconds what it is asked: it grows with the time waited, so that it
/// costs at most a sixteenth of it.
pub(crate) fn pause(waited: Duration) -> Duration {
    (waited / 16).clamp(PAUSE_MIN, PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_with_the_time_waited_and_are_bounded() {
        assert_eq!(pause(Duration::ZERO), PAUSE_MIN);
        assert_eq!(pause(Duration::from_millis(160)), Duration::from_millis(10));
        assert_eq!(pause(Duration::from_secs(60)), PAUSE_MAX);
    }
}
