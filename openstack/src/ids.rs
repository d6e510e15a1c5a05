//! Ids, each kind a type of its own.
//!
//! Why it exists: an id becomes part of a path; what is no id could name another object (`..`), and a volume's id in the
//! place of a port's would be sent without a doubt. What it never does: hold what it has not checked.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {kind}")]
pub struct BadId {
    text: String,
    kind: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $fits:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<String> for $type {
            type Error = BadId;
            fn try_from(text: String) -> Result<Self, BadId> {
                if $fits(&text) {
                    return Ok($type(text));
                }
                Err(BadId { text: text.chars().take(80).collect(), kind: $kind })
            }
        }
        impl FromStr for $type {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                text.to_owned().try_into()
            }
        }
        impl From<$type> for String {
            fn from(id: $type) -> String {
                id.0
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

id!(
    /// An Ironic node.
    NodeUuid, "UUID of a node", is_uuid
);
id!(
    /// A physical NIC of an Ironic node.
    PortUuid, "UUID of a bare-metal port", is_uuid
);
id!(
    /// A volume target of an Ironic node: a volume that it is to have.
    TargetUuid, "UUID of a volume target", is_uuid
);
id!(
    /// A volume connector of an Ironic node: the name by which storage knows it.
    ConnectorUuid, "UUID of a volume connector", is_uuid
);
id!(
    /// A Neutron port. Ironic calls one that is attached to a node a VIF.
    PortId, "id of a port", is_uuid
);
id!(
    /// A Cinder volume.
    VolumeId, "id of a volume", is_uuid
);
id!(
    /// A Cinder attachment: one node's right to one volume.
    AttachmentId, "id of an attachment", is_uuid
);
id!(
    /// A snapshot of a Cinder volume.
    SnapshotId, "id of a snapshot", is_uuid
);
id!(
    /// The name of an Ironic allocation, or its UUID where one is read. Ironic keeps names unique, so it is also a token (R8).
    AllocationName, "name of an allocation (1 to 255 of a-z, A-Z, 0-9, '-', '_', '.'; first a letter or digit)", is_name
);
id!(
    /// An Ironic allocation: a claim of a node.
    AllocationUuid, "UUID of an allocation", is_uuid
);
id!(
    /// A Keystone project: whoever owns or leases something.
    ProjectId, "id of a project", is_project
);

/// 8-4-4-4-12 hexadecimal digits, as all these services write it.
fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn is_name(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Ids of projects come from Keystone's back end and are mostly 32 hexadecimal digits; LDAP may have others.
fn is_project(text: &str) -> bool {
    (1..=255).contains(&text.len()) && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_name_something_else_is_no_id() {
        let uuid = "1be26c0b-03f2-4d2e-ae87-c02d7f33c123";
        assert_eq!(uuid.parse::<NodeUuid>().unwrap().to_string(), uuid);
        for bad in [
            "",
            "..",
            "node-1",
            "1be26c0b-03f2-4d2e-ae87-c02d7f33c12/",
            "1be26c0b003f2-4d2e-ae87-c02d7f33c123",
        ] {
            let error = bad.parse::<NodeUuid>().unwrap_err();
            assert_eq!(error.to_string(), format!("{bad:?} is no UUID of a node"));
        }
        assert!("failover-7.n4_b".parse::<AllocationName>().is_ok());
        for bad in ["", "..", ".a", "a/b", "a b", &"a".repeat(256)] {
            assert!(bad.parse::<AllocationName>().is_err(), "{bad}");
        }
    }
}
