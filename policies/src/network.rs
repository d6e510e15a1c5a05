//! What an instance hangs on in the network: the identity that moves.
//!
//! Why it exists: a switch port is opened into VLANs, a cloud's is given a port of Neutron's; both move in the same step of a
//! failover. What it never does: reach a switch.

use crate::effect::vlans;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// A network of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Document", into = "Document")]
pub enum Network {
    /// VLANs of a switch port.
    Vlans(Vlans),
    /// A port of Neutron's, by its id: with its addresses and security groups. (Ironic calls it a VIF.)
    Vif(String),
}

/// What a switch port passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vlans {
    /// VLAN id, 1 to 4094; untagged.
    pub vlan: u16,
    /// Further networks on the same port: their VLAN ids, tagged (IEEE 802.1Q).
    pub tagged: BTreeSet<u16>,
    /// The instance's MAC address, if it is to move along.
    pub mac: Option<String>,
}

/// Whether an instance may get another MAC address. A cloud sets that of its port to the one of the spare's NIC; a switch port lets the
/// instance bring its own along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MacRule {
    /// Whatever the spare has.
    #[default]
    Any,
    /// Only its own: for licences and neighbours that know it by that.
    Keep,
}

impl MacRule {
    pub(crate) fn is_any(&self) -> bool {
        *self == MacRule::Any
    }
}

/// A network as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vlan: Option<u16>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    tagged: BTreeSet<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vif: Option<String>,
}

/// Why something is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a network has either a `vlan`, and may have `tagged` and `mac`, or a `vif` and nothing else")]
pub struct BadNetwork;

impl TryFrom<Document> for Network {
    type Error = BadNetwork;
    fn try_from(document: Document) -> Result<Self, BadNetwork> {
        match document {
            Document { vlan: Some(vlan), tagged, mac, vif: None } => {
                Ok(Network::Vlans(Vlans { vlan, tagged, mac }))
            }
            Document { vlan: None, tagged, mac: None, vif: Some(vif) } if tagged.is_empty() => {
                Ok(Network::Vif(vif))
            }
            Document { .. } => Err(BadNetwork),
        }
    }
}

impl From<Network> for Document {
    fn from(network: Network) -> Self {
        match network {
            Network::Vlans(Vlans { vlan, tagged, mac }) => {
                Document { vlan: Some(vlan), tagged, mac, vif: None }
            }
            Network::Vif(vif) => Document { vlan: None, tagged: BTreeSet::new(), mac: None, vif: Some(vif) },
        }
    }
}

impl Network {
    /// Its VLANs, if it has some.
    pub fn vlans(&self) -> Option<&Vlans> {
        match self {
            Network::Vlans(vlans) => Some(vlans),
            Network::Vif(_) => None,
        }
    }

    /// Neutron's port, if it is one.
    pub fn vif(&self) -> Option<&str> {
        match self {
            Network::Vif(vif) => Some(vif),
            Network::Vlans(_) => None,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Network::Vlans(Vlans { vlan, tagged, mac }) => {
                write!(f, "VLAN {}", vlans(*vlan, tagged))?;
                mac.as_ref().map_or(Ok(()), |mac| write!(f, ", MAC {mac}"))
            }
            Network::Vif(vif) => write!(f, "VIF {vif}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_written_as_before_there_were_vifs_and_is_one_of_both() {
        for text in
            [r#"{"vlan":10}"#, r#"{"vlan":10,"tagged":[20],"mac":"02:00:00:00:00:01"}"#, r#"{"vif":"a-b"}"#]
        {
            let network: Network = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&network).unwrap(), text);
        }
        for text in
            [r#"{}"#, r#"{"vlan":10,"vif":"a"}"#, r#"{"vif":"a","mac":"m"}"#, r#"{"vif":"a","tagged":[1]}"#]
        {
            let error = serde_json::from_str::<Network>(text).unwrap_err();
            assert!(error.to_string().contains("either a `vlan`"), "{error}");
        }
    }
}
