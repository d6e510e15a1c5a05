//! Carries effects out: finds the device, asks the lease, and reports one of three outcomes.
//!
//! Why it exists: only the executor changes the world, and only with leave: whether this member surely leads, and whether
//! the failover still wants it, is asked when an effect starts and again right before each write to a device, after the
//! last await (R5). What it never does: choose, retry, undo.

use crate::clock;
use crate::outside::Outside;
use fencing::{Act, Look, PowerDriver};
use futures::future::join_all;
use policies::{
    Action, Check, ClusterState, Effect, Finding, Identity, LeaderEpoch, LogIndex, Millis, Node, Outcome,
    Permit, Power, ProviderId, Refusal, Seen,
};
use provisioning::Provider as _;
use provisioning::inventory::Census;
use raft_store::Store;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use tracing::{Instrument, info_span};

/// From the last look at the lease to the arrival at the device: a write to a socket and a LAN. Lower: a scheduling
/// pause after the look is not covered. Higher: a leader whose heartbeats are slow cannot act. What arrives still
/// later is what draining (`power_effect_max`, `provider_effect_max`) is for.
const SEND_MAX: Millis = Millis(50);
/// Time for one reading of power beside a fence. Longer: a fence waits behind it in the BMC's queue, and the reading is no
/// evidence any more. Shorter: slow BMCs seem mute, and their nodes are not taken as spares.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// Time for one question to a provider, beforehand. Longer: one that hangs is told of late, and holds up the questions
/// behind it. Shorter: a storage controller that thinks for seconds seems to be away.
const CHECK_MAX: Duration = Duration::from_secs(5);

/// Leave to send one effect, as long as this member surely leads, and under the same leadership that wanted the effect: a
/// task that was held up while another member led must not send when this member leads again. The store knows better than
/// the engine which leadership that is, and whether the failover still wants the effect: the engine may not have heard of
/// it yet.
struct Lease {
    store: Store,
    leads: Arc<AtomicU64>,
    leader: u64,
    effect: Effect,
}

impl Permit for Lease {
    fn check(&self) -> Result<(), Refusal> {
        let same = self.leader != NOT_LEADING && self.leads.load(Ordering::SeqCst) == self.leader;
        match self.store.lease_end_of(LeaderEpoch(self.leader)) {
            Some(end) if same && clock::mono() + SEND_MAX < end => {}
            Some(_) | None => return Err(Refusal::LeaseEnded),
        }
        match self.store.read(|state| state.wants(&self.effect)) {
            true => Ok(()),
            false => Err(Refusal::Withdrawn),
        }
    }

    fn token(&self) -> LogIndex {
        self.effect.token
    }
}

/// In [`Lease::leads`]: no log index is 0, so no leadership is.
const NOT_LEADING: u64 = 0;

/// The devices of the inventory and the leave to use them.
pub struct Executor<O> {
    store: Store,
    /// The leadership under which this member acts now.
    leads: Arc<AtomicU64>,
    outside: Arc<O>,
}

/// An effect with everything that carrying it out needs, taken from the state when it was decided.
pub struct Job<O: Outside> {
    lease: Lease,
    tool: Result<Tool<O>, Refusal>,
    limit: Duration,
}

enum Tool<O: Outside> {
    Power { driver: Arc<O::Power>, identity: Identity, act: Act },
    Diagnosis { driver: Arc<O::Power> },
    Provider { provider: O::Provider, known_as: Option<String> },
}

impl<O: Outside> Executor<O> {
    /// An executor that reaches `outside` with the leave of `store`.
    pub fn new(store: Store, outside: Arc<O>) -> Self {
        Executor { store, leads: Arc::new(AtomicU64::new(NOT_LEADING)), outside }
    }

    /// Brings an effect and its device together.
    pub fn prepare(&self, state: &ClusterState, effect: Effect, limit: Millis) -> Job<O> {
        let tool = self.tool(state, &effect.action);
        let (store, leads) = (self.store.clone(), Arc::clone(&self.leads));
        let lease = Lease { store, leader: leads.load(Ordering::SeqCst), leads, effect };
        Job { lease, tool, limit: Duration::from_millis(limit.0) }
    }

    /// Says under which leadership effects are wanted from now on; those of an earlier one are no longer sent.
    pub fn lead(&self, leadership: Option<LeaderEpoch>) {
        self.leads.store(leadership.map_or(NOT_LEADING, |epoch| epoch.0), Ordering::SeqCst);
    }

    /// Carries the effect out, within its time limit. Whatever is logged meanwhile carries its token.
    pub async fn carry_out(job: Job<O>) -> Outcome {
        let span = info_span!("effect", token = %job.lease.effect.token);
        Self::do_it(job).instrument(span).await
    }

    async fn do_it(job: Job<O>) -> Outcome {
        let deadline = Instant::now() + job.limit;
        let lease = &job.lease;
        match job.tool {
            Err(refusal) => Outcome::Refused(refusal),
            Ok(Tool::Power { driver, identity, act }) => {
                fencing::carry_out(&*driver, act, &identity, lease, deadline).await
            }
            Ok(Tool::Diagnosis { driver }) => match driver.diagnose(deadline).await {
                Ok(lines) => Outcome::Done(Seen::Diagnosed(lines.into())),
                Err(error) => Outcome::Refused(error.into()),
            },
            Ok(Tool::Provider { provider, known_as }) => {
                provisioning::carry_out(&provider, &lease.effect, known_as.as_deref(), lease, deadline).await
            }
        }
    }

    /// A reader of the node's power at its first fencing level.
    ///
    /// # Errors
    /// [`Refusal::NotConfigured`] if the inventory names no device or its secret does not open.
    pub fn power_reader(
        &self,
        state: &ClusterState,
        node: &Node,
    ) -> Result<impl Future<Output = Option<Power>> + Send + use<O>, Refusal> {
        let driver = self.outside.power(state, node, 0)?;
        Ok(async move {
            let look = driver.look(Instant::now() + LOOK_MAX).await;
            look.map(|look| look.power).inspect_err(|error| tracing::debug!(%error, "read power")).ok()
        })
    }

    /// Looks at the node's power and identity at each of its fencing levels, all at once. Needs no lease, for it changes
    /// nothing.
    pub fn looks(
        &self,
        state: &ClusterState,
        node: &Node,
    ) -> impl Future<Output = Vec<Result<Look, Refusal>>> + Send + use<O> {
        let drivers: Vec<_> =
            (0..node.fencing.len()).map(|level| self.outside.power(state, node, level)).collect();
        async move {
            let deadline = Instant::now() + LOOK_MAX;
            join_all(drivers.into_iter().map(|driver| async move { Ok(driver?.look(deadline).await?) })).await
        }
    }

    /// Asks a provider for an object that a failover will need. Needs no lease, for it changes nothing.
    pub fn checker(
        &self,
        state: &ClusterState,
        check: Check,
    ) -> impl Future<Output = (Check, Finding)> + Send + use<O> {
        let provider = self.provider(state, check.provider());
        async move {
            let finding = match provider {
                Ok(provider) => provisioning::check(&provider, &check, Instant::now() + CHECK_MAX).await,
                Err(refusal) => Finding::CannotTell(refusal.to_string()),
            };
            (check, finding)
        }
    }

    /// Asks a cloud what nodes it has, and what they have. Needs no lease, for it changes nothing.
    pub fn census(
        &self,
        state: &ClusterState,
        cloud: &ProviderId,
        deadline: Instant,
    ) -> impl Future<Output = Result<Census, String>> + Send + use<O> {
        let provider = self.provider(state, cloud);
        async move {
            let provider = provider.map_err(|refusal| refusal.to_string())?;
            provider.census(deadline).await.map_err(|error| policies::causes(&error))
        }
    }

    fn provider(&self, state: &ClusterState, name: &ProviderId) -> Result<O::Provider, Refusal> {
        let provider = state.providers.get(name);
        self.outside.provider(provider.ok_or_else(|| Refusal::NotConfigured(format!("provider {name}")))?)
    }

    fn tool(&self, state: &ClusterState, action: &Action) -> Result<Tool<O>, Refusal> {
        let record = state.nodes.get(action.node());
        let node = record.map(|record| &record.node);
        let node = node.ok_or_else(|| Refusal::NotConfigured(format!("node {}", action.node())))?;
        let power = |level, act| {
            let driver = self.outside.power(state, node, level)?;
            Ok(Tool::Power { driver, identity: node.identity.clone(), act })
        };
        match action {
            Action::Diagnose { .. } => Ok(Tool::Diagnosis { driver: self.outside.power(state, node, 0)? }),
            Action::ShutDown { .. } => power(0, Act::SoftOff),
            Action::PowerOff { level, .. } => power(*level, Act::Off),
            Action::PowerOn { .. } => power(0, Act::On),
            Action::Interrupt { .. } => power(0, Act::Interrupt),
            Action::Revoke { provider, .. }
            | Action::ClosePort { provider, .. }
            | Action::Snapshot { provider, .. }
            | Action::Attach { provider, .. }
            | Action::OpenPort { provider, .. }
            | Action::AttachVif { provider, .. }
            | Action::Claim { provider, .. }
            | Action::Clean { provider, .. }
            | Action::SetBoot { provider, .. } => {
                let known_as = state.providers.get(provider).and_then(|it| node.known_to(it));
                let known_as = known_as.map(str::to_owned);
                Ok(Tool::Provider { provider: self.provider(state, provider)?, known_as })
            }
        }
    }
}
