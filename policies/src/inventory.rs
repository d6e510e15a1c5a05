//! What the operator tells us of the world: nodes, instances, providers. Facts and wishes, no beliefs.

use crate::capability::Capabilities;
use crate::http_url::HttpUrl;
use crate::identity::Identity;
use crate::image::Image;
use crate::mac::Mac;
use crate::requirement::Requirements;
use crate::words::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// A physical server as the operator described it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its name; never reused for other hardware.
    pub name: NodeId,
    /// What tells it from all others.
    #[serde(default, skip_serializing_if = "Identity::is_empty")]
    pub identity: Identity,
    /// Failure domains it stands in, e.g. `rack = "r1"`, `pdu = "p2"`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub domains: BTreeMap<String, String>,
    /// Free labels, matched by instances.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Fencing topology: level 1 first. A node without levels cannot be fenced by power.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fencing: Vec<FenceDevice>,
    /// Switch ports its NICs hang on; port `i` carries network `i` of an instance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<SwitchPort>,
    /// Burned-in addresses of the network cards that it starts from, by which the boot service knows it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boot_macs: Vec<Mac>,
    /// What it boots while it has no instance: a system in memory in which its agent waits. Makes it a hot spare while it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby: Option<Boot>,
    /// The name by which storage knows this node (IQN, host id).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initiator: Option<String>,
    /// What the node's kernel answers to when asked from outside.
    #[serde(default, skip_serializing_if = "Probe::is_empty")]
    pub probe: Probe,
    /// Key of its agent's heartbeats; absent: no agent, only probes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_key: Option<Sealed>,
    /// What its hardware is, for the floors of instances.
    #[serde(default, skip_serializing_if = "Capabilities::is_empty")]
    pub capabilities: Capabilities,
}

impl Node {
    /// True if its console is to be listened to: of its first fencing device.
    pub fn has_console(&self) -> bool {
        match self.fencing.first() {
            Some(FenceDevice::Ipmi { console, .. }) => *console,
            Some(FenceDevice::Redfish { .. }) | None => false,
        }
    }
}

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
}

impl FenceDevice {
    /// The secret to enter it with.
    pub fn password(&self) -> &Sealed {
        match self {
            FenceDevice::Ipmi { password, .. } | FenceDevice::Redfish { password, .. } => password,
        }
    }

    /// The same, to seal or hide it.
    pub fn password_mut(&mut self) -> &mut Sealed {
        match self {
            FenceDevice::Ipmi { password, .. } | FenceDevice::Redfish { password, .. } => password,
        }
    }

    /// Which it is, in the words of its driver: `ipmi:10.1.0.1:623`, `redfish:https://10.1.0.1/1`. No two nodes have the same.
    pub fn place(&self) -> String {
        match self {
            FenceDevice::Ipmi { address, .. } => format!("ipmi:{address}"),
            FenceDevice::Redfish { url, system, .. } => {
                let url = url.trim_end_matches('/');
                system.as_ref().map_or(format!("redfish:{url}"), |system| format!("redfish:{url}/{system}"))
            }
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

/// A switch port under a network provider.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchPort {
    /// Who switches it.
    pub provider: ProviderId,
    /// Its name there, e.g. `sw1/3`.
    pub port: String,
}

/// Where the node answers. Asked by every member: again and again if it has no agent, else when its agent is silent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// `host:port` that is connected to; a refusal counts as an answer, for the kernel gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<String>,
    /// Address that is sent an ICMP echo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<String>,
    /// Address that is asked by plain HTTP. Whoever names one means that the node is to do its work, not only to live:
    /// of a node without an agent, an answer with a status below 500 counts as a heartbeat, and `tcp` and `icmp` no
    /// longer do; a 5xx, a refusal or no answer counts as silence. Whether the kernel of a silent node lives (is it
    /// gray?) is asked by every way that is named, and there a connection or a refusal is proof of life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpUrl>,
    /// The watchdog of its BMC, at the first fencing level, which the agent feeds: one that was fed after the node fell silent
    /// is proof of life. Only for a node with an agent: a watchdog that nobody misses anything of tells nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bmc_watchdog: bool,
}

impl Probe {
    /// True if there is nothing to ask.
    pub fn is_empty(&self) -> bool {
        self.tcp.is_none() && self.icmp.is_none() && self.http.is_none() && !self.bmc_watchdog
    }
}

/// A logical server that fails over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// Its name.
    pub name: InstanceId,
    /// Where it runs when it is first described. Later the cluster's own record counts.
    pub node: NodeId,
    /// The policy that protects it; absent: the most specific one that applies to it, or the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyId>,
    /// Who owns it; policies may apply to their instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Free labels, matched by policies.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Volumes that must be attached to its node and to no other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Networks, in the order of the node's ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Network>,
    /// Who gives its node the boot source, if anyone has to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Boot>,
    /// Labels that a spare must carry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub needs: BTreeMap<String, String>,
    /// What a spare's hardware must be at least.
    #[serde(default, skip_serializing_if = "Requirements::is_empty")]
    pub requires: Requirements,
}

impl Instance {
    /// True if whatever spare fits one of them fits the other, wherever they run.
    pub(crate) fn needs_the_same_as(&self, other: &Instance) -> bool {
        // All fields, so that a new one asks whether it is a need.
        let Instance {
            name: _,
            node: _,
            policy: _,
            tenant: _,
            labels: _,
            volumes,
            networks,
            boot,
            needs,
            requires,
        } = self;
        let booted_by = |boot: &Option<Boot>| boot.as_ref().map(|boot| boot.provider.clone());
        networks.len() == other.networks.len()
            && volumes.is_empty() == other.volumes.is_empty()
            && booted_by(boot) == booted_by(&other.boot)
            && *needs == other.needs
            && *requires == other.requires
    }
}

/// A volume of an instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Who stores it.
    pub provider: ProviderId,
    /// Its id there.
    pub volume: VolumeId,
}

/// A network of an instance: the identity that moves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// VLAN id, 1 to 4094; untagged.
    pub vlan: u16,
    /// Further networks on the same port: their VLAN ids, tagged (IEEE 802.1Q).
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tagged: BTreeSet<u16>,
    /// The instance's MAC address, if it is to move along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
}

/// The boot source of an instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// Who serves it.
    pub provider: ProviderId,
    /// What is served, in the provider's words.
    pub image: String,
}

/// A configured back end for storage, network or boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ProviderDocument", into = "ProviderDocument")]
pub struct Provider {
    /// Its name.
    pub name: ProviderId,
    /// What it is.
    pub kind: ProviderKind,
}

/// The kinds of back end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderKind {
    /// The emulated rack's storage array, switch and boot service.
    Rack {
        /// Base URL, e.g. `http://127.0.0.1:7300`.
        url: String,
        /// Bearer token, sealed.
        token: Sealed,
    },
    /// A switch whose configuration is an OVSDB database (Open vSwitch, RFC 7047).
    Ovsdb {
        /// `tcp://host:port` or `ssl://host:port`.
        url: String,
        /// VLAN of closed ports; nothing else may be in it.
        park_vlan: u16,
        /// For `ssl`.
        tls: Option<OvsdbTls>,
    },
    /// The members' own boot service (`docs/drivers/boot.md`).
    Boot {
        /// Where nodes reach it: `http://host:port` of each member.
        urls: Vec<HttpUrl>,
        /// What it serves, by name.
        images: BTreeMap<String, Image>,
    },
    /// A site's own program, run for each question (`docs/drivers/exec.md`).
    Exec {
        /// Its name in each member's directory of programs.
        program: ProgramName,
        /// What it is told with each question, in its own words.
        settings: BTreeMap<String, String>,
        /// What it is told that nobody else may know, sealed.
        secret: Option<Sealed>,
    },
    /// A storage host on which `ha-storage` runs beside tgt (`docs/drivers/iscsi.md`).
    Iscsi {
        /// `https://host:port`; `http` on loopback only.
        url: String,
        /// The authority that signed its certificate, PEM; for `https`.
        ca: Option<String>,
        /// Bearer token, sealed.
        token: Sealed,
    },
}

/// How an OVSDB server is told who we are, and who it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OvsdbTls {
    /// The authority that signed the switch's certificate, PEM.
    pub ca: String,
    /// Our certificate, PEM.
    pub certificate: String,
    /// Its key, PEM, sealed.
    pub key: Sealed,
}

/// A provider as it is written: one flat table whose `kind` says which other keys it has. (Serde cannot refuse unknown
/// keys in a flattened enum.)
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum ProviderDocument {
    Rack {
        name: ProviderId,
        url: String,
        token: Sealed,
    },
    Ovsdb {
        name: ProviderId,
        url: String,
        park_vlan: u16,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tls: Option<OvsdbTls>,
    },
    Boot {
        name: ProviderId,
        urls: Vec<HttpUrl>,
        images: BTreeMap<String, Image>,
    },
    Exec {
        name: ProviderId,
        program: ProgramName,
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        settings: BTreeMap<String, String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        secret: Option<Sealed>,
    },
    Iscsi {
        name: ProviderId,
        url: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ca: Option<String>,
        token: Sealed,
    },
}

impl ProviderKind {
    /// Where nodes reach the boot service and what it serves, if it is one.
    pub fn boot_service(&self) -> Option<(&[HttpUrl], &BTreeMap<String, Image>)> {
        match self {
            ProviderKind::Boot { urls, images } => Some((urls, images)),
            ProviderKind::Rack { .. }
            | ProviderKind::Ovsdb { .. }
            | ProviderKind::Exec { .. }
            | ProviderKind::Iscsi { .. } => None,
        }
    }

    /// Its secret, if it has one.
    pub fn secret(&self) -> Option<&Sealed> {
        match self {
            ProviderKind::Rack { token, .. } => Some(token),
            ProviderKind::Ovsdb { tls, .. } => tls.as_ref().map(|tls| &tls.key),
            ProviderKind::Boot { .. } => None,
            ProviderKind::Exec { secret, .. } => secret.as_ref(),
            ProviderKind::Iscsi { token, .. } => Some(token),
        }
    }

    /// The same, to be sealed.
    pub fn secret_mut(&mut self) -> Option<&mut Sealed> {
        match self {
            ProviderKind::Rack { token, .. } => Some(token),
            ProviderKind::Ovsdb { tls, .. } => tls.as_mut().map(|tls| &mut tls.key),
            ProviderKind::Boot { .. } => None,
            ProviderKind::Exec { secret, .. } => secret.as_mut(),
            ProviderKind::Iscsi { token, .. } => Some(token),
        }
    }
}

impl From<ProviderDocument> for Provider {
    fn from(document: ProviderDocument) -> Self {
        match document {
            ProviderDocument::Rack { name, url, token } => {
                Provider { name, kind: ProviderKind::Rack { url, token } }
            }
            ProviderDocument::Ovsdb { name, url, park_vlan, tls } => {
                Provider { name, kind: ProviderKind::Ovsdb { url, park_vlan, tls } }
            }
            ProviderDocument::Boot { name, urls, images } => {
                Provider { name, kind: ProviderKind::Boot { urls, images } }
            }
            ProviderDocument::Exec { name, program, settings, secret } => {
                Provider { name, kind: ProviderKind::Exec { program, settings, secret } }
            }
            ProviderDocument::Iscsi { name, url, ca, token } => {
                Provider { name, kind: ProviderKind::Iscsi { url, ca, token } }
            }
        }
    }
}

impl From<Provider> for ProviderDocument {
    fn from(Provider { name, kind }: Provider) -> Self {
        match kind {
            ProviderKind::Rack { url, token } => ProviderDocument::Rack { name, url, token },
            ProviderKind::Ovsdb { url, park_vlan, tls } => {
                ProviderDocument::Ovsdb { name, url, park_vlan, tls }
            }
            ProviderKind::Boot { urls, images } => ProviderDocument::Boot { name, urls, images },
            ProviderKind::Exec { program, settings, secret } => {
                ProviderDocument::Exec { name, program, settings, secret }
            }
            ProviderKind::Iscsi { url, ca, token } => ProviderDocument::Iscsi { name, url, ca, token },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stored entries and snapshots of older versions know no capabilities.
    #[test]
    fn without_capabilities_a_node_and_an_instance_are_written_as_before_there_were_any() {
        let node = r#"{"name":"n1"}"#;
        let instance = r#"{"name":"web","node":"n1","policy":"quick"}"#;
        let again = serde_json::to_string(&serde_json::from_str::<Node>(node).unwrap());
        assert_eq!(again.unwrap(), node);
        let again = serde_json::to_string(&serde_json::from_str::<Instance>(instance).unwrap());
        assert_eq!(again.unwrap(), instance);
    }

    #[test]
    fn a_provider_is_a_flat_table_and_unknown_keys_are_refused() {
        let text = "name = \"r\"\nkind = \"rack\"\nurl = \"http://127.0.0.1:1\"\ntoken = \"t\"\n";
        let provider: Provider = toml::from_str(text).unwrap();
        assert_eq!(provider.name.as_str(), "r");
        assert_eq!(toml::from_str::<Provider>(&toml::to_string(&provider).unwrap()), Ok(provider));
        assert!(toml::from_str::<Provider>(&format!("{text}urll = 1\n")).is_err());
    }
}
