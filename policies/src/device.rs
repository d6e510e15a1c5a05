//! How a node's power is switched: the devices of its fencing topology, as the operator describes them.
//!
//! Why it exists: a device is described once, for whoever seals its secret, shows it, checks it and uses it. What it never does: reach
//! one.

use crate::words::*;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// One rung of a node's fencing topology.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "driver", rename_all = "kebab-case", deny_unknown_fields)]
pub enum FenceDevice {
    /// An IPMI 2.0 BMC.
    Ipmi {
        /// `host:port`; the usual port is 623.
        address: String,
        /// User name.
        user: String,
        /// Password, sealed.
        password: Sealed,
        /// Cipher suite: 17 (default) or 3. Never changed silently.
        #[serde(default = "suite_17")]
        cipher_suite: u8,
        /// What the BMC is told, before each power-on, to let the node start from; absent: as its firmware is set.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        boot_device: Option<BootDevice>,
        /// Listen to the node's serial console (Serial over LAN), at the first level: most BMCs give it to one session.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        console: bool,
    },
    /// A BMC that speaks DMTF Redfish (DSP0266).
    Redfish {
        /// `https://host`, or `http://host` in a network that nobody else reads.
        url: String,
        /// User name.
        user: String,
        /// Password, sealed.
        password: Sealed,
        /// Who signed its certificate, PEM.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ca: Option<String>,
        /// Or the SHA-256 of its certificate, as openssl prints it: most BMCs sign their own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fingerprint: Option<String>,
        /// The last part of the system's path, where the BMC has several.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        system: Option<String>,
        /// As for IPMI.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        boot_device: Option<BootDevice>,
    },
    /// OpenStack's Ironic, for a node that is Ironic's: what is done behind its back it undoes (`docs/adr/0024`).
    Ironic {
        /// The cloud: a provider of the kind `openstack`.
        provider: ProviderId,
        /// The node's UUID there.
        node: String,
        /// The node's BMC, by which its power is read: what Ironic says of it is what its database has. Absent: off is believed
        /// only of a power-off that Ironic was seen to carry out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bmc: Option<Box<FenceDevice>>,
    },
}

impl FenceDevice {
    /// The BMC that is spoken to, if one is.
    pub fn bmc(&self) -> Option<&FenceDevice> {
        match self {
            FenceDevice::Ipmi { .. } | FenceDevice::Redfish { .. } => Some(self),
            FenceDevice::Ironic { bmc, .. } => bmc.as_deref(),
        }
    }

    /// The cloud that it belongs to, if it does to one.
    pub fn cloud(&self) -> Option<&ProviderId> {
        match self {
            FenceDevice::Ironic { provider, .. } => Some(provider),
            FenceDevice::Ipmi { .. } | FenceDevice::Redfish { .. } => None,
        }
    }

    /// The node's UUID at that cloud.
    pub(crate) fn node_at(&self, cloud: &ProviderId) -> Option<&str> {
        match self {
            FenceDevice::Ironic { provider, node, .. } if provider == cloud => Some(node),
            FenceDevice::Ironic { .. } | FenceDevice::Ipmi { .. } | FenceDevice::Redfish { .. } => None,
        }
    }

    /// The secret to enter its BMC with. (A cloud's stands with its provider.)
    pub fn password(&self) -> Option<&Sealed> {
        match self {
            FenceDevice::Ipmi { password, .. } | FenceDevice::Redfish { password, .. } => Some(password),
            FenceDevice::Ironic { bmc, .. } => bmc.as_ref()?.password(),
        }
    }

    /// The same, to seal or hide it.
    pub fn password_mut(&mut self) -> Option<&mut Sealed> {
        match self {
            FenceDevice::Ipmi { password, .. } | FenceDevice::Redfish { password, .. } => Some(password),
            FenceDevice::Ironic { bmc, .. } => bmc.as_mut()?.password_mut(),
        }
    }

    /// Which it is, in the words of its driver: `ipmi:10.1.0.1:623`, `redfish:https://10.1.0.1/1`, `ironic:cloud/UUID`. No two
    /// nodes have the same.
    pub fn place(&self) -> String {
        match self {
            FenceDevice::Ipmi { address, .. } => format!("ipmi:{address}"),
            FenceDevice::Redfish { url, system, .. } => {
                let url = url.trim_end_matches('/');
                system.as_ref().map_or(format!("redfish:{url}"), |system| format!("redfish:{url}/{system}"))
            }
            FenceDevice::Ironic { provider, node, .. } => format!("ironic:{provider}/{node}"),
        }
    }

    /// Why it cannot be used, as far as that shows without asking it.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            FenceDevice::Ipmi { cipher_suite: 3 | 17, .. } => Ok(()),
            FenceDevice::Ipmi { cipher_suite, .. } => {
                Err(format!("cipher suite {cipher_suite} is not offered; 17 is the default, 3 for old BMCs"))
            }
            FenceDevice::Redfish { url, ca, fingerprint, .. } => {
                let is_https = url.starts_with("https://");
                if !is_https && !url.starts_with("http://") {
                    return Err(format!("Redfish url {url:?} is not https://host"));
                }
                match (is_https, ca, fingerprint) {
                    (true, Some(_), None) | (true, None, Some(_)) | (false, None, None) => Ok(()),
                    (true, None, None) => Err(format!("{url} needs `ca` or `fingerprint` to be known by")),
                    (true, Some(_), Some(_)) => Err(format!("{url} has `ca` and `fingerprint`; give one")),
                    (false, ..) => {
                        Err(format!("{url} is plain http, for which `ca` and `fingerprint` mean nothing"))
                    }
                }
            }
            FenceDevice::Ironic { node, .. } if !is_uuid(node) => Err(format!(
                "{node:?} is no UUID; Ironic's names change hands (`openstack baremetal node show NAME -c uuid`)"
            )),
            FenceDevice::Ironic { bmc: Some(bmc), .. } => match **bmc {
                FenceDevice::Ironic { .. } => Err("bmc has to be of the driver ipmi or redfish".to_owned()),
                FenceDevice::Ipmi { .. } | FenceDevice::Redfish { .. } => bmc.check(),
            },
            FenceDevice::Ironic { bmc: None, .. } => Ok(()),
        }
    }
}

/// What a node starts from, and whether its firmware starts it as UEFI or as a PC's BIOS does (IPMI 2.0 table 28-14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootDevice {
    /// The network, BIOS.
    Pxe,
    /// The network, UEFI.
    PxeUefi,
    /// The first disk, BIOS.
    Disk,
    /// The first disk, UEFI.
    DiskUefi,
}

/// RFC 9562, section 4, in small letters as OpenStack writes it.
pub(crate) fn is_uuid(text: &str) -> bool {
    let is_part = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    text.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && text.split('-').all(is_part)
}

fn suite_17() -> u8 {
    17
}

impl fmt::Display for BootDevice {
    /// As in a document.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BootDevice::Pxe => "pxe",
            BootDevice::PxeUefi => "pxe-uefi",
            BootDevice::Disk => "disk",
            BootDevice::DiskUefi => "disk-uefi",
        })
    }
}

/// Why a text is no boot device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write pxe, pxe-uefi, disk or disk-uefi")]
pub struct BadBootDevice;

impl FromStr for BootDevice {
    type Err = BadBootDevice;
    fn from_str(text: &str) -> Result<Self, BadBootDevice> {
        let all = [BootDevice::Pxe, BootDevice::PxeUefi, BootDevice::Disk, BootDevice::DiskUefi];
        all.into_iter().find(|device| device.to_string() == text).ok_or(BadBootDevice)
    }
}
