//! What a member reaches the world by: fencing devices, providers, and questions to kernels.
//!
//! Why it exists: the loop and the executor are the same on a machine and in a simulation; what they reach is not.
//! What it never does: choose, retry, undo.

use crate::probe::{self, About, Answer};
use crate::seal::{Seal, Secret};
use fencing::{Driver, PowerDriver, ipmi};
use policies::{FenceDevice, Node, NodeId, Probe, Provider, ProviderId, ProviderKind, Refusal};
use provisioning::Backend;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The world of one member.
pub trait Outside: Send + Sync + 'static {
    /// What switches power.
    type Power: PowerDriver + 'static;
    /// What moves volumes, networks and boot sources.
    type Provider: provisioning::Provider + 'static;

    /// The device at one fencing level of a node, the same one each time, so that its session stays warm.
    ///
    /// # Errors
    /// [`Refusal::NotConfigured`] if the inventory names no device or its secret does not open.
    fn power(&self, node: &Node, level: usize) -> Result<Arc<Self::Power>, Refusal>;

    /// The provider as it is described now.
    ///
    /// # Errors
    /// [`Refusal::NotConfigured`] if the description cannot be used.
    fn provider(&self, provider: &Provider) -> Result<Self::Provider, Refusal>;

    /// Asks a node; see [`probe::ask`].
    fn ask(
        &self,
        probe: &Probe,
        about: About,
        count: u32,
        interval: Duration,
    ) -> impl Future<Output = Answer> + Send;
}

/// The world itself.
pub struct Devices {
    seal: Seal,
    port: Arc<ipmi::Port>,
    drivers: Mutex<Drivers>,
    backends: Mutex<Backends>,
    /// Where the programs of `exec` providers are.
    programs: PathBuf,
}

/// Each device with the description that it was made from; another description makes another driver.
type Drivers = BTreeMap<(NodeId, usize), (FenceDevice, Arc<Driver>)>;
/// The same for providers.
type Backends = BTreeMap<ProviderId, (ProviderKind, Backend)>;

impl Devices {
    /// No device yet; they are met as the state names them.
    pub fn new(seal: Seal, programs: PathBuf) -> Self {
        let (drivers, backends) = (Mutex::default(), Mutex::default());
        Devices { seal, port: ipmi::Port::new(), drivers, backends, programs }
    }
}

impl Outside for Devices {
    type Power = Driver;
    type Provider = Backend;

    fn power(&self, node: &Node, level: usize) -> Result<Arc<Driver>, Refusal> {
        let name = &node.name;
        let device = node
            .fencing
            .get(level)
            .ok_or_else(|| Refusal::NotConfigured(format!("fencing level {} of {name}", level + 1)))?;
        let mut drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, driver)) = drivers.get(&(name.clone(), level))
            && known == device
        {
            return Ok(driver.clone());
        }
        let password = self
            .seal
            .open(Secret::BmcPassword(name), device.password())
            .map_err(|error| Refusal::NotConfigured(error.to_string()))?;
        let driver = Arc::new(Driver::from(device, &password, &self.port)?);
        drivers.insert((name.clone(), level), (device.clone(), driver.clone()));
        Ok(driver)
    }

    fn provider(&self, provider: &Provider) -> Result<Backend, Refusal> {
        let mut backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, backend)) = backends.get(&provider.name)
            && *known == provider.kind
        {
            return Ok(backend.clone());
        }
        let not_configured = |error: &dyn std::fmt::Display| Refusal::NotConfigured(error.to_string());
        let open = |sealed| self.seal.open(Secret::ProviderToken(&provider.name), sealed);
        let secret = provider.kind.secret().map(open).transpose().map_err(|error| not_configured(&error))?;
        let secret = secret.as_ref().map_or(&[][..], |secret| secret.as_slice());
        let backend = Backend::from_config(&provider.kind, secret, &self.programs)
            .map_err(|error| not_configured(&error))?;
        backends.insert(provider.name.clone(), (provider.kind.clone(), backend.clone()));
        Ok(backend)
    }

    async fn ask(&self, probe: &Probe, about: About, count: u32, interval: Duration) -> Answer {
        probe::ask(probe, about, count, interval).await
    }
}
