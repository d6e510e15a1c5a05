//! What a member reaches the world by: fencing devices, providers, and questions to kernels.
//!
//! Why it exists: the loop and the executor are the same on a machine and in a simulation; what they reach is not.
//! What it never does: choose, retry, undo.

use crate::clouds::Clouds;
use crate::probe::{self, About, Answer};
use crate::seal::{Seal, Secret};
use fencing::ironic::Ironic;
use fencing::{Bmc, Driver, PowerDriver, ipmi};
use openstack::NodeUuid;
use policies::{ClusterState, FenceDevice, Node, NodeId, Probe, Provider, ProviderId, ProviderKind, Refusal};
use provisioning::{Backend, Us};
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

    /// The device at one fencing level of a node; the session with its BMC stays warm.
    ///
    /// # Errors
    /// [`Refusal::NotConfigured`] if the inventory names no device or its secret does not open.
    fn power(&self, state: &ClusterState, node: &Node, level: usize) -> Result<Arc<Self::Power>, Refusal>;

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
    bmcs: Mutex<Bmcs>,
    backends: Mutex<Backends>,
    /// Their tokens and connections both hands share.
    clouds: Clouds,
    /// Where the programs of `exec` providers are.
    programs: PathBuf,
}

/// Each BMC with the description that it was made from; another description makes another driver.
type Bmcs = BTreeMap<(NodeId, usize), (FenceDevice, Arc<Bmc>)>;
/// The same for providers.
type Backends = BTreeMap<ProviderId, (ProviderKind, Backend)>;

impl Devices {
    /// No device yet; they are met as the state names them.
    pub fn new(seal: Seal, programs: PathBuf) -> Self {
        let (bmcs, backends, clouds) = (Mutex::default(), Mutex::default(), Clouds::new(seal.clone()));
        Devices { seal, port: ipmi::Port::new(), bmcs, backends, clouds, programs }
    }

    fn bmc(&self, node: &NodeId, level: usize, device: &FenceDevice) -> Result<Arc<Bmc>, Refusal> {
        let mut bmcs = self.bmcs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, bmc)) = bmcs.get(&(node.clone(), level))
            && known == device
        {
            return Ok(bmc.clone());
        }
        let open = |password| self.seal.open(Secret::BmcPassword(node), password).map_err(not_configured);
        let password = device.password().map(open).transpose()?.unwrap_or_default();
        let bmc = Arc::new(Bmc::from(device, &password, &self.port)?);
        bmcs.insert((node.clone(), level), (device.clone(), bmc.clone()));
        Ok(bmc)
    }
}

fn not_configured(error: impl std::error::Error) -> Refusal {
    Refusal::NotConfigured(policies::causes(&error))
}

impl Outside for Devices {
    type Power = Driver;
    type Provider = Backend;

    fn power(&self, state: &ClusterState, node: &Node, level: usize) -> Result<Arc<Driver>, Refusal> {
        let name = &node.name;
        let device = node.fencing.get(level);
        let device =
            device.ok_or_else(|| Refusal::NotConfigured(format!("fencing level {} of {name}", level + 1)))?;
        let bmc = device.bmc().map(|bmc| self.bmc(name, level, bmc)).transpose()?;
        let driver = match (device, bmc) {
            (FenceDevice::Ironic { provider, node, .. }, bmc) => {
                let provider = state.providers.get(provider).ok_or_else(|| {
                    Refusal::NotConfigured(format!("provider {provider}, through which {name} is fenced"))
                })?;
                let node = node.parse::<NodeUuid>().map_err(not_configured)?;
                Driver::Ironic(Ironic::new(self.clouds.cloud(provider)?, node, bmc))
            }
            (FenceDevice::Ipmi { .. } | FenceDevice::Redfish { .. }, Some(bmc)) => Driver::Bmc(bmc),
            (FenceDevice::Ipmi { .. } | FenceDevice::Redfish { .. }, None) => {
                return Err(Refusal::NotConfigured(format!("{} has no BMC", device.place())));
            }
        };
        Ok(Arc::new(driver))
    }

    fn provider(&self, provider: &Provider) -> Result<Backend, Refusal> {
        let mut backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, backend)) = backends.get(&provider.name)
            && *known == provider.kind
        {
            return Ok(backend.clone());
        }
        let open = |sealed| self.seal.open(Secret::ProviderToken(&provider.name), sealed);
        let secret = provider.kind.secret().map(open).transpose().map_err(not_configured)?;
        let secret = secret.as_ref().map_or(&[][..], |secret| secret.as_slice());
        let us = Us { cluster: self.seal.cluster(), programs: &self.programs };
        let backend = Backend::from_config(&provider.kind, secret, us).map_err(not_configured)?;
        backends.insert(provider.name.clone(), (provider.kind.clone(), backend.clone()));
        Ok(backend)
    }

    async fn ask(&self, probe: &Probe, about: About, count: u32, interval: Duration) -> Answer {
        probe::ask(probe, about, count, interval).await
    }
}
