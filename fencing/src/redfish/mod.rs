//! The Redfish driver: power of a system behind a BMC that speaks DMTF Redfish over HTTPS.
//!
//! What this is: the few resources and the one action that a failover needs (DSP0266 1.20, DSP2046 2023.3). Why it exists: newer BMCs
//! speak it and not IPMI. What it never does: believe an answer to a command, open a session (BMCs have few, and a member that
//! died would keep one), follow a redirect, show the password.
//!
//! * [`client`]: requests, TLS, what an answer means for a command.
//! * [`model`]: what is read of the BMC's documents; bounded, and pure.

pub mod client;
pub mod model;

pub use client::{BadSettings, Settings};

use crate::power::{Act, DriverError, Look, PowerDriver, Weight};
use client::Client;
use model::{Collection, Reset, Root, System};
use policies::{BootDevice, Permit};
use serde_json::json;
use std::fmt;
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// One system behind a BMC. Cheap to clone.
#[derive(Clone)]
pub struct Redfish(Arc<Shared>);

struct Shared {
    client: Client,
    settings: Settings,
    /// Where the system is, once it was found. Asked one after the other: the second asker need not look.
    place: Mutex<Option<String>>,
}

impl fmt::Debug for Redfish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redfish({})", self.0.settings.url())
    }
}

impl Redfish {
    /// A handle; nothing is sent before it is needed.
    ///
    /// # Errors
    /// [`BadSettings`] naming the field.
    pub fn new(settings: Settings) -> Result<Redfish, BadSettings> {
        let client = Client::new(&settings)?;
        Ok(Redfish(Arc::new(Shared { client, settings, place: Mutex::new(None) })))
    }

    /// The system as it is now, in an exchange that begins now, and where it is.
    async fn system(&self, deadline: Instant) -> Result<(String, System), DriverError> {
        let mut place = self.0.place.lock().await;
        let path = match place.as_ref() {
            Some(path) => path.clone(),
            None => self.find(deadline).await?,
        };
        let read = self.0.client.read::<System>(&path, deadline).await;
        // A BMC whose firmware was renewed may have put it elsewhere.
        *place = read.is_ok().then(|| path.clone());
        Ok((path, read?))
    }

    /// The system of the settings, or the only one.
    async fn find(&self, deadline: Instant) -> Result<String, DriverError> {
        let (client, url) = (&self.0.client, self.0.settings.url());
        let root: Root = client.read("/redfish/v1/", deadline).await?;
        let systems: Collection = client.read(&root.systems, deadline).await?;
        let members = systems.paths();
        let wanted = self.0.settings.system.as_deref();
        let mut found = members.iter().filter(|path| wanted.is_none_or(|id| model::last(path) == id));
        match (found.next(), found.next()) {
            (Some(path), None) => Ok(path.clone()),
            _ => {
                let ids: Vec<&str> = members.iter().map(|path| model::last(path)).collect();
                let wanted = wanted.map_or(String::new(), |id| format!("{id:?}, "));
                Err(DriverError::Refused(format!(
                    "{url}: which system? `system` has to name one of: {}; it is {wanted}of {}",
                    ids.join(", "),
                    ids.len()
                )))
            }
        }
    }

    /// Lets the system start from this, the next time only (DSP2046, ComputerSystem, Boot).
    async fn set_boot(
        &self,
        path: &str,
        device: BootDevice,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), DriverError> {
        let (target, mode) = match device {
            BootDevice::Pxe => ("Pxe", "Legacy"),
            BootDevice::PxeUefi => ("Pxe", "UEFI"),
            BootDevice::Disk => ("Hdd", "Legacy"),
            BootDevice::DiskUefi => ("Hdd", "UEFI"),
        };
        let body = json!({ "Boot": {
            "BootSourceOverrideEnabled": "Once",
            "BootSourceOverrideTarget": target,
            "BootSourceOverrideMode": mode,
        } });
        let what = format!("start from {device}");
        self.0.client.change(client::Verb::Patch, &what, path, &body, permit, deadline).await
    }
}

impl PowerDriver for Redfish {
    async fn look(&self, deadline: Instant) -> Result<Look, DriverError> {
        let (path, system) = self.system(deadline).await?;
        let power = system.power().map_err(|state| {
            DriverError::Unclear(format!("{}{path}: its power state is {state}", self.0.settings.url()))
        })?;
        Ok(Look { power, identity: system.identity(), weight: Weight::Lasts })
    }

    async fn act(&self, act: Act, permit: &dyn Permit, deadline: Instant) -> Result<(), DriverError> {
        let (path, system) = self.system(deadline).await?;
        let reset = match act {
            Act::On => [Reset::On, Reset::ForceOn].as_slice(),
            Act::Off => &[Reset::ForceOff],
            Act::SoftOff => &[Reset::GracefulShutdown],
            Act::Interrupt => &[Reset::Nmi],
        };
        let (target, reset) = system
            .reset(reset)
            .map_err(|why| DriverError::Refused(format!("{}{path}: {why}", self.0.settings.url())))?;
        // Before each power-on, for BMCs forget it after one start; and what is not accepted must not start another system.
        if let (Act::On, Some(device)) = (act, self.0.settings.boot_device) {
            self.set_boot(&path, device, permit, deadline).await?;
        }
        let body = json!({ "ResetType": reset.word() });
        self.0.client.change(client::Verb::Post, reset.word(), &target, &body, permit, deadline).await
    }

    async fn diagnose(&self, deadline: Instant) -> Result<Vec<String>, DriverError> {
        let (_, system) = self.system(deadline).await?;
        Ok(system.lines())
    }
}
