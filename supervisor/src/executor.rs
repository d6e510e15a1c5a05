//! Carries effects out: finds the device, asks the lease, and reports one of three outcomes.
//!
//! Why it exists: only the executor changes the world, and only with leave: the lease is asked when an effect starts
//! and again right before each write to a device, after the last await (R5). What it never does: choose, retry, undo.

use crate::clock;
use crate::seal::{Seal, Secret};
use fencing::{Driver, PowerDriver, ipmi};
use policies::{
    Action, ClusterState, Effect, FenceDevice, Identity, LeaderEpoch, Millis, Node, NodeId, Outcome, Permit,
    Power, Provider, ProviderId, ProviderKind, Refusal,
};
use provisioning::Backend;
use raft_store::Store;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// From the last look at the lease to the arrival at the device: a write to a socket and a LAN. Lower: a scheduling
/// pause after the look is not covered. Higher: a leader whose heartbeats are slow cannot act. What arrives still
/// later is what draining (`power_effect_max`, `provider_effect_max`) is for.
const SEND_MAX: Millis = Millis(50);
/// Time for one reading of power beside a fence. Longer: a fence waits behind it in the BMC's queue, and the reading is no
/// evidence any more. Shorter: slow BMCs seem mute, and their nodes are not taken as spares.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// Leave to send, as long as this member surely leads, and under the same leadership that wanted the effect: a task that
/// was held up while another member led must not send when this member leads again. The store knows better than the
/// engine which leadership that is: the engine may not have heard of it yet.
struct Lease {
    shared: Arc<Shared>,
    leader: u64,
}

impl Permit for Lease {
    fn check(&self) -> Result<(), Refusal> {
        let same = self.leader != NOT_LEADING && self.shared.leads.load(Ordering::SeqCst) == self.leader;
        match self.shared.store.lease_end_of(LeaderEpoch(self.leader)) {
            Some(end) if same && clock::mono() + SEND_MAX < end => Ok(()),
            Some(_) | None => Err(Refusal::LeaseEnded),
        }
    }
}

/// In [`Shared::leads`]: no log index is 0, so no leadership is.
const NOT_LEADING: u64 = 0;

/// The devices of the inventory and the leave to use them. Cheap to clone.
#[derive(Clone)]
pub struct Executor {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    /// The leadership under which this member acts now.
    leads: AtomicU64,
    seal: Seal,
    port: Arc<ipmi::Port>,
    drivers: Mutex<Drivers>,
    backends: Mutex<Backends>,
}

/// Each device with the description that it was made from; another description makes another driver.
type Drivers = BTreeMap<(NodeId, usize), (FenceDevice, Arc<Driver>)>;
/// The same for providers.
type Backends = BTreeMap<ProviderId, (ProviderKind, Backend)>;

/// An effect with everything that carrying it out needs, taken from the state when it was decided.
pub struct Job {
    effect: Effect,
    lease: Lease,
    tool: Result<Tool, Refusal>,
    limit: Duration,
}

enum Tool {
    Power { driver: Arc<Driver>, identity: Identity, to: Power },
    Provider { backend: Backend, initiator: Option<String> },
}

impl Executor {
    /// An executor without any device yet; they are met as the state names them.
    pub fn new(store: Store, seal: Seal) -> Self {
        let shared = Shared {
            store,
            leads: AtomicU64::new(NOT_LEADING),
            seal,
            port: ipmi::Port::new(),
            drivers: Mutex::default(),
            backends: Mutex::default(),
        };
        Executor { shared: Arc::new(shared) }
    }

    /// Brings an effect and its device together.
    pub fn prepare(&self, state: &ClusterState, effect: Effect, limit: Millis) -> Job {
        let tool = self.tool(state, &effect.action);
        let leader = self.shared.leads.load(Ordering::SeqCst);
        let lease = Lease { shared: Arc::clone(&self.shared), leader };
        Job { effect, lease, tool, limit: Duration::from_millis(limit.0) }
    }

    /// Says under which leadership effects are wanted from now on; those of an earlier one are no longer sent.
    pub fn lead(&self, leadership: Option<LeaderEpoch>) {
        self.shared.leads.store(leadership.map_or(NOT_LEADING, |epoch| epoch.0), Ordering::SeqCst);
    }

    /// Carries the effect out, within its time limit.
    pub async fn carry_out(&self, job: Job) -> Outcome {
        let deadline = Instant::now() + job.limit;
        let lease = &job.lease;
        match job.tool {
            Err(refusal) => Outcome::Refused(refusal),
            Ok(Tool::Power { driver, identity, to: Power::Off }) => {
                fencing::fence(&*driver, &identity, lease, deadline).await
            }
            Ok(Tool::Power { driver, identity, to: Power::On }) => {
                fencing::power_on(&*driver, &identity, lease, deadline).await
            }
            Ok(Tool::Provider { backend, initiator }) => {
                provisioning::carry_out(&backend, &job.effect, initiator.as_deref(), lease, deadline).await
            }
        }
    }

    /// A reader of the node's power at its first fencing level.
    ///
    /// # Errors
    /// [`Refusal::NotConfigured`] if the inventory names no device or its secret does not open.
    pub fn power_reader(
        &self,
        node: &Node,
    ) -> Result<impl Future<Output = Option<Power>> + Send + use<>, Refusal> {
        let driver = self.driver(node, 0)?;
        Ok(async move {
            let look = driver.look(Instant::now() + LOOK_MAX).await;
            look.map(|look| look.power).inspect_err(|error| tracing::debug!(%error, "read power")).ok()
        })
    }

    fn tool(&self, state: &ClusterState, action: &Action) -> Result<Tool, Refusal> {
        let record = state.nodes.get(action.node());
        let node = record.map(|record| &record.node);
        let node = node.ok_or_else(|| Refusal::NotConfigured(format!("node {}", action.node())))?;
        let power = |level, to| {
            let driver = self.driver(node, level)?;
            Ok(Tool::Power { driver, identity: node.identity.clone(), to })
        };
        match action {
            Action::PowerOff { level, .. } => power(*level, Power::Off),
            Action::PowerOn { .. } => power(0, Power::On),
            Action::Revoke { provider, .. }
            | Action::ClosePort { provider, .. }
            | Action::Attach { provider, .. }
            | Action::OpenPort { provider, .. }
            | Action::SetBoot { provider, .. } => {
                let provider = state
                    .providers
                    .get(provider)
                    .ok_or_else(|| Refusal::NotConfigured(format!("provider {provider}")))?;
                let initiator = node.initiator.clone();
                Ok(Tool::Provider { backend: self.backend(provider)?, initiator })
            }
        }
    }

    /// The driver of one fencing level, kept so that its session stays warm; a new one if the inventory changed.
    fn driver(&self, node: &Node, level: usize) -> Result<Arc<Driver>, Refusal> {
        let name = &node.name;
        let device = node
            .fencing
            .get(level)
            .ok_or_else(|| Refusal::NotConfigured(format!("fencing level {} of {name}", level + 1)))?;
        let mut drivers = self.shared.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, driver)) = drivers.get(&(name.clone(), level))
            && known == device
        {
            return Ok(driver.clone());
        }
        let FenceDevice::Ipmi { password, .. } = device;
        let password = self
            .shared
            .seal
            .open(Secret::BmcPassword(name), password)
            .map_err(|error| Refusal::NotConfigured(error.to_string()))?;
        let driver = Arc::new(Driver::from(device, &password, &self.shared.port)?);
        drivers.insert((name.clone(), level), (device.clone(), driver.clone()));
        Ok(driver)
    }

    fn backend(&self, provider: &Provider) -> Result<Backend, Refusal> {
        let mut backends = self.shared.backends.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, backend)) = backends.get(&provider.name)
            && *known == provider.kind
        {
            return Ok(backend.clone());
        }
        let ProviderKind::Rack { token, .. } = &provider.kind;
        let not_configured = |error: &dyn std::fmt::Display| Refusal::NotConfigured(error.to_string());
        let secret = self
            .shared
            .seal
            .open(Secret::ProviderToken(&provider.name), token)
            .map_err(|error| not_configured(&error))?;
        let backend =
            Backend::from_config(&provider.kind, &secret).map_err(|error| not_configured(&error))?;
        backends.insert(provider.name.clone(), (provider.kind.clone(), backend.clone()));
        Ok(backend)
    }
}
