//! What a driver is, and why it could not do what it was asked.
//!
//! Why it exists: the fencing algorithm sees every device through two methods, look and act. A third, diagnose, is for
//! people: what the device knows about the node before we change it, which a power-off destroys.
//! What it never does: deciding from an error; [`crate::fence`] does that.

use crate::console::Console;
use crate::{ipmi, ironic, redfish};
use policies::{FenceDevice, Identity, Millis, Permit, Power, Refusal};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Longest time given to a command, and never more than half of what is left: a device that obeys but does not answer must
/// still be looked at, and soon. Enough for five transmissions by the IPMI driver.
const ACT_MAX: Duration = Duration::from_secs(3);
/// A look comes at the latest this fraction of the time waited so far after the one before: what we add to the
/// device's own delay is at most 1.6 % of it. Smaller: the reading is older when it comes. Larger: more load on the
/// BMC.
const LOOK_FRACTION: u32 = 64;
/// Shortest time between two looks. With [`LOOK_FRACTION`] a driver sees at most 64 looks in the first 256 ms and
/// then fewer; a BMC's processor is small.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(4);
/// Longest time between two looks, reached after 16 s.
const LOOK_PAUSE_MAX: Duration = Duration::from_millis(250);

/// What one look at a device showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Power, as the device says.
    pub power: Power,
    /// Which machine the device says it belongs to.
    pub identity: Identity,
    /// What that is worth.
    pub weight: Weight,
}

/// What a reading of power is worth; more is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// It is what somebody noted earlier.
    Noted,
    /// The node itself was read, but somebody who owns its power has not been told and may change it back.
    Read,
    /// The node itself was read, and nobody but us changes it.
    Lasts,
}

/// What a device can be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Switch on.
    On,
    /// Switch off at once, whatever the node is doing.
    Off,
    /// Let the operating system shut itself down and switch off: a wish to software, which may ignore it or take
    /// minutes. A driver sends it once, for a second press of a power button can mean something else than the first.
    SoftOff,
    /// Send the kernel a diagnostic interrupt, on which it dumps and dies. A driver sends it once: the second would hit the
    /// kernel that dumps.
    Interrupt,
}

/// A device that reads and sets the power of one node.
pub trait PowerDriver: Send + Sync {
    /// Reads power and identity in an exchange that begins now; a reading from before is never given.
    ///
    /// # Errors
    /// [`DriverError`]; at the latest at the deadline.
    fn look(&self, deadline: Instant) -> impl Future<Output = Result<Look, DriverError>> + Send;

    /// The longest time in which it takes what it is asked to do, not in which it does it.
    fn act_max(&self) -> Duration {
        ACT_MAX
    }

    /// The pause before the next look, after so long a wait: it grows, for a BMC's processor is small.
    fn pause(&self, waited: Duration) -> Duration {
        (waited / LOOK_FRACTION).clamp(LOOK_PAUSE_MIN, LOOK_PAUSE_MAX)
    }

    /// Asks the device to do it. `Ok` means that the device accepted, nothing more. The permit is checked right
    /// before each write to the device, after the last await.
    ///
    /// # Errors
    /// [`DriverError`]; at the latest at the deadline. [`DriverError::may_have_happened`] tells what it means.
    fn act(
        &self,
        act: Act,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> impl Future<Output = Result<(), DriverError>> + Send;

    /// Reads what the device knows about why the node is as it is: few and short lines for people, for whom alone they
    /// are. Changes nothing. A device that keeps no records has no lines.
    ///
    /// # Errors
    /// [`DriverError`] if nothing was read by the deadline; what was read by then is given, and a line says that more is
    /// missing.
    fn diagnose(&self, _deadline: Instant) -> impl Future<Output = Result<Vec<String>, DriverError>> + Send {
        std::future::ready(Ok(Vec::new()))
    }

    /// How long ago the node fed its watchdog, if the device keeps one for it and it runs.
    ///
    /// # Errors
    /// [`DriverError`] if that was not read by the deadline.
    fn fed(&self, _deadline: Instant) -> impl Future<Output = Result<Option<Millis>, DriverError>> + Send {
        std::future::ready(Ok(None))
    }

    /// Listens to the node's console from now on, or no more. One process at a time should: most BMCs give it to one session.
    fn listen(&self, _wanted: bool) {}

    /// What the console said while it was listened to; `None`: the device has none.
    fn console(&self) -> Option<Arc<Console>> {
        None
    }
}

/// Why a driver has no result.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The permit said no before anything was sent.
    #[error("not sent: {0}")]
    NotPermitted(Refusal),
    /// The device could not be asked. The request itself was not sent, or it changes nothing.
    #[error("{what}")]
    Unreachable {
        /// What was being done, with the address.
        what: String,
        /// What the operating system said, if it said anything.
        source: Option<std::io::Error>,
    },
    /// The device does not let us in.
    #[error("{0}")]
    NotAdmitted(String),
    /// The device said no, and that certainly means that it did nothing.
    #[error("{0}")]
    Refused(String),
    /// The device answered, but not so that we would know whether it did it.
    #[error("{0}")]
    Unclear(String),
    /// The command was sent at least once and not answered.
    #[error("{what}: no answer in {waited}")]
    NoAnswer {
        /// What was being done, with the address.
        what: String,
        /// Since the command was first wanted.
        waited: Millis,
    },
}

impl DriverError {
    /// True if the device may have done what it was asked, although there was no good answer.
    pub fn may_have_happened(&self) -> bool {
        match self {
            DriverError::NoAnswer { .. } | DriverError::Unclear(_) => true,
            DriverError::NotPermitted(_)
            | DriverError::Unreachable { .. }
            | DriverError::NotAdmitted(_)
            | DriverError::Refused(_) => false,
        }
    }
}

impl From<DriverError> for Refusal {
    /// The refusal that stands for this error where nothing can have happened.
    fn from(error: DriverError) -> Refusal {
        match error {
            DriverError::NotPermitted(refusal) => refusal,
            DriverError::Unreachable { what, source } => match source {
                Some(source) => Refusal::Unreachable(format!("{what}: {source}")),
                None => Refusal::Unreachable(what),
            },
            DriverError::NotAdmitted(why) => Refusal::NotAdmitted(why),
            DriverError::Refused(why) | DriverError::Unclear(why) => Refusal::DeviceRefused(why),
            error @ DriverError::NoAnswer { .. } => Refusal::Unreachable(error.to_string()),
        }
    }
}

/// Every kind of fencing device. Closed: a new driver is a new variant, and the compiler shows the rest.
pub enum Driver {
    /// A BMC that is spoken to.
    Bmc(Arc<Bmc>),
    /// OpenStack's Ironic.
    Ironic(ironic::Ironic),
}

/// Every kind of BMC.
pub enum Bmc {
    /// IPMI 2.0 over LAN.
    Ipmi(ipmi::Bmc),
    /// Redfish over HTTPS.
    Redfish(redfish::Redfish),
}

impl Bmc {
    /// The driver for a device of the inventory. `password` is the opened secret; it is copied and wiped on drop.
    ///
    /// # Errors
    /// [`Refusal::NotConfigured`] if the description cannot work, naming the field.
    pub fn from(device: &FenceDevice, password: &[u8], port: &Arc<ipmi::Port>) -> Result<Bmc, Refusal> {
        match device {
            FenceDevice::Ipmi { address, user, password: _sealed, cipher_suite, boot_device, console: _ } => {
                let settings = ipmi::Settings::new(address, user, password, *cipher_suite);
                let settings = settings.map_err(|wrong| Refusal::NotConfigured(wrong.to_string()))?;
                Ok(Bmc::Ipmi(ipmi::Bmc::new(settings.with_boot_device(*boot_device), port)))
            }
            FenceDevice::Redfish { url, user, password: _sealed, ca, fingerprint, system, boot_device } => {
                let settings =
                    redfish::Settings::new(url, user, password, ca.as_deref(), fingerprint.as_deref());
                let settings = settings.map(|settings| settings.with_system(system.clone()));
                let driver = settings.and_then(|it| redfish::Redfish::new(it.with_boot_device(*boot_device)));
                driver.map(Bmc::Redfish).map_err(|wrong| Refusal::NotConfigured(wrong.to_string()))
            }
            FenceDevice::Ironic { .. } => {
                Err(Refusal::NotConfigured(format!("{} is no BMC", device.place())))
            }
        }
    }
}

impl PowerDriver for Bmc {
    async fn look(&self, deadline: Instant) -> Result<Look, DriverError> {
        match self {
            Bmc::Ipmi(bmc) => bmc.look(deadline).await,
            Bmc::Redfish(system) => system.look(deadline).await,
        }
    }

    async fn act(&self, act: Act, permit: &dyn Permit, deadline: Instant) -> Result<(), DriverError> {
        match self {
            Bmc::Ipmi(bmc) => bmc.act(act, permit, deadline).await,
            Bmc::Redfish(system) => system.act(act, permit, deadline).await,
        }
    }

    async fn diagnose(&self, deadline: Instant) -> Result<Vec<String>, DriverError> {
        match self {
            Bmc::Ipmi(bmc) => bmc.diagnose(deadline).await,
            Bmc::Redfish(system) => system.diagnose(deadline).await,
        }
    }

    async fn fed(&self, deadline: Instant) -> Result<Option<Millis>, DriverError> {
        match self {
            Bmc::Ipmi(bmc) => bmc.fed(deadline).await,
            Bmc::Redfish(_) => Ok(None),
        }
    }

    fn listen(&self, wanted: bool) {
        match self {
            Bmc::Ipmi(bmc) => bmc.listen(wanted),
            Bmc::Redfish(_) => {}
        }
    }

    fn console(&self) -> Option<Arc<Console>> {
        match self {
            Bmc::Ipmi(bmc) => bmc.console(),
            Bmc::Redfish(_) => None,
        }
    }
}

impl Driver {
    /// The BMC that is spoken to, if one is: records, watchdog and console are its.
    fn bmc(&self) -> Option<&Bmc> {
        match self {
            Driver::Bmc(bmc) => Some(bmc),
            Driver::Ironic(ironic) => ironic.bmc(),
        }
    }
}

impl PowerDriver for Driver {
    async fn look(&self, deadline: Instant) -> Result<Look, DriverError> {
        match self {
            Driver::Bmc(bmc) => bmc.look(deadline).await,
            Driver::Ironic(ironic) => ironic.look(deadline).await,
        }
    }

    fn act_max(&self) -> Duration {
        match self {
            Driver::Bmc(bmc) => bmc.act_max(),
            Driver::Ironic(ironic) => ironic.act_max(),
        }
    }

    fn pause(&self, waited: Duration) -> Duration {
        match self {
            Driver::Bmc(bmc) => bmc.pause(waited),
            Driver::Ironic(ironic) => ironic.pause(waited),
        }
    }

    async fn act(&self, act: Act, permit: &dyn Permit, deadline: Instant) -> Result<(), DriverError> {
        match self {
            Driver::Bmc(bmc) => bmc.act(act, permit, deadline).await,
            Driver::Ironic(ironic) => ironic.act(act, permit, deadline).await,
        }
    }

    async fn diagnose(&self, deadline: Instant) -> Result<Vec<String>, DriverError> {
        match self.bmc() {
            Some(bmc) => bmc.diagnose(deadline).await,
            None => Ok(vec![]),
        }
    }

    async fn fed(&self, deadline: Instant) -> Result<Option<Millis>, DriverError> {
        match self.bmc() {
            Some(bmc) => bmc.fed(deadline).await,
            None => Ok(None),
        }
    }

    fn listen(&self, wanted: bool) {
        if let Some(bmc) = self.bmc() {
            bmc.listen(wanted);
        }
    }

    fn console(&self) -> Option<Arc<Console>> {
        self.bmc()?.console()
    }
}
