//! An operator who keeps giving orders and remembers what the cluster acknowledged.
//!
//! Why it exists: whatever breaks, an acknowledged order must be in the state of every member afterwards.
//! What it never does: send an order twice. One without an answer may or may not have happened, and counts for nothing.

use policies::{BadPolicy, Command, LogIndex, Policy, PolicyId};
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use supervisor::api::Policing;
use supervisor::api::answers::Committed;
use supervisor::client::Client;
use tokio::task::JoinSet;

/// Pause between two orders: enough of them that each fault meets one, too few to fill the state.
const PACE: Duration = Duration::from_millis(200);

/// What each new policy has instead of the default: one value, so that an order cannot be taken for a preset.
const CHANGE: (&str, &str) = ("brakes.fences_per_10min_max", "2");

/// The reason that is given with each.
const REASON: &str = "the operator of the test";

/// An order that was acknowledged: it is this entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Acked {
    pub(super) order: Command,
    pub(super) index: LogIndex,
    /// When it was given, in µs since 1970.
    pub(super) asked: u64,
    /// When it was answered.
    pub(super) answered: u64,
}

/// The order to make a policy of this name, as it must be found in the log.
pub(super) fn order(name: PolicyId) -> Result<Command, BadPolicy> {
    let preset = Policy::presets().into_iter().next();
    let nothing = || BadPolicy::Unreadable("there is no preset".to_owned());
    let policy = preset.ok_or_else(nothing)?.1.with([CHANGE])?;
    Ok(Command::SetPolicy { name, policy: Box::new(policy), check: None, reason: REASON.into() })
}

/// What the operator knows.
#[derive(Clone, Debug, Default)]
struct Ledger {
    acked: Vec<Acked>,
    unanswered: usize,
    newest: Option<Instant>,
    longest_gap: Duration,
}

/// The operator. Dropping it ends it.
pub(super) struct Notes {
    ledger: Arc<Mutex<Ledger>>,
    tasks: JoinSet<()>,
}

impl Notes {
    /// Begins to give orders through these clients, each of which asks one member, all at the same time: whoever answers
    /// sends an order on to the leader, and a member that is gone holds up no orders but its own.
    pub(super) fn begin(clients: Vec<Arc<Client>>) -> Notes {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let mut tasks = JoinSet::new();
        for (by, client) in (1..).zip(clients) {
            tasks.spawn(give_orders(by, client, ledger.clone()));
        }
        Notes { ledger, tasks }
    }

    /// How many orders were acknowledged until now.
    pub(super) fn count(&self) -> usize {
        self.look(|ledger| ledger.acked.len())
    }

    /// How many orders got no answer.
    pub(super) fn unanswered(&self) -> usize {
        self.look(|ledger| ledger.unanswered)
    }

    /// The longest time between two acknowledgements.
    pub(super) fn longest_gap(&self) -> Duration {
        self.look(|ledger| ledger.longest_gap)
    }

    /// Stops giving orders; returns what was acknowledged.
    pub(super) async fn end(&mut self) -> Vec<Acked> {
        self.tasks.shutdown().await;
        self.look(|ledger| ledger.acked.clone())
    }

    fn look<T>(&self, at: impl FnOnce(&Ledger) -> T) -> T {
        at(&self.ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn give_orders(by: usize, client: Arc<Client>, ledger: Arc<Mutex<Ledger>>) {
    for number in 1_u64.. {
        let Ok(policy) = format!("note-{by}-{number}").parse::<PolicyId>() else { return };
        let Ok(order) = order(policy.clone()) else { return };
        let changes = vec![(CHANGE.0.to_owned(), CHANGE.1.to_owned())];
        let body = Policing { changes, policy: None, check: None, reason: REASON.into() };
        let path = format!("/v1/policies/{policy}");
        let asked = micros();
        let answer = client.order::<Committed>(reqwest::Method::PUT, &path, &body).await;
        {
            let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
            match answer {
                Ok(Committed { index, .. }) => {
                    let now = Instant::now();
                    if let Some(before) = ledger.newest.replace(now) {
                        ledger.longest_gap = ledger.longest_gap.max(now - before);
                    }
                    ledger.acked.push(Acked { order, index, asked, answered: micros() });
                }
                Err(_) => ledger.unanswered += 1,
            }
        }
        tokio::time::sleep(PACE).await;
    }
}

/// µs since 1970.
fn micros() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX)
}
