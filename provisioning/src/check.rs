//! Asks a provider beforehand whether what a failover will need is there.
//!
//! What this is: one question, and an honest answer: fine, certainly not, or that nobody can tell.
//! Why it exists: what is missing is to be found while there is time to repair it.
//! What it never does: it changes nothing, tries nothing twice, and takes silence for no answer of either kind.

use crate::Provider;
use policies::{Check, Finding, causes};
use tokio::time::Instant;

/// Asks once. Whatever went wrong on the way to an answer is [`Finding::CannotTell`].
pub async fn check(provider: &impl Provider, check: &Check, deadline: Instant) -> Finding {
    provider.check(check, deadline).await.unwrap_or_else(|error| Finding::CannotTell(causes(&error)))
}
