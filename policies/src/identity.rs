//! What tells a machine from all others, and whether a BMC is the one of a node.
//!
//! Why it exists: the fence and `hactl node power` ask the same question and must give the same answer. What it never does: ask
//! a BMC; it is given what one said.

use crate::effect::Refusal;
use serde::{Deserialize, Serialize};

/// What tells a machine from all others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// System GUID as 32 hexadecimal digits, in one of the orders in which BMCs write it ([`Identity::admits`]). Its BMC must
    /// report it before any power-off; absent: not compared (and said so in `hactl node show`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guid: Option<String>,
    /// Serial number as it is printed on the machine, for people: who does something dangerous to the node must type it. It
    /// is not read from the BMC and not compared with anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
}

impl Identity {
    /// True if nothing is known to compare with.
    pub fn is_empty(&self) -> bool {
        self.guid.is_none() && self.serial.is_none()
    }

    /// Whether a BMC that says that it is `found` is the one of the node that is described so.
    ///
    /// A GUID is the same in each order in which BMCs write it: as it is; all bytes reversed, as IPMI sends a UUID (IPMI 2.0
    /// §20.8); or the first three fields reversed, as SMBIOS keeps it (DSP0134 7.2.1), which BMCs hand on by either way.
    ///
    /// # Errors
    /// [`Refusal::WrongIdentity`], also if the BMC does not say.
    pub fn admits(&self, found: &Identity) -> Result<(), Refusal> {
        let Some(expected) = &self.guid else { return Ok(()) };
        match &found.guid {
            Some(guid) if orders(guid).contains(&expected.to_ascii_lowercase()) => Ok(()),
            other => Err(Refusal::WrongIdentity {
                expected: expected.clone(),
                found: other.clone().unwrap_or_else(|| "none".to_owned()),
            }),
        }
    }
}

/// A GUID in each order, in small letters.
fn orders(guid: &str) -> [String; 3] {
    let digits: Vec<char> = guid.to_ascii_lowercase().chars().collect();
    let bytes: Vec<String> = digits.chunks(2).map(|pair| pair.iter().collect()).collect();
    let reversed: Vec<String> = bytes.iter().rev().cloned().collect();
    let mut fields = bytes.clone();
    for (from, to) in [(0, 4), (4, 6), (6, 8)] {
        if let Some(field) = fields.get_mut(from..to) {
            field.reverse();
        }
    }
    [bytes, reversed, fields].map(|bytes| bytes.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(guid: Option<&str>) -> Identity {
        Identity { guid: guid.map(str::to_owned), ..Identity::default() }
    }

    #[test]
    fn a_guid_is_the_same_in_each_order_in_which_bmcs_write_it() {
        let uuid = "00112233445566778899aabbccddeeff";
        let reversed = "ffeeddccbbaa99887766554433221100";
        let fields = "33221100554477668899aabbccddeeff";
        for found in [uuid, reversed, fields, "00112233445566778899AABBCCDDEEFF"] {
            assert_eq!(of(Some(uuid)).admits(&of(Some(found))), Ok(()), "{found}");
        }
        for other in
            [None, Some(""), Some("00112233445566778899aabbccddee"), Some("11002233445566778899aabbccddeeff")]
        {
            let refused = of(Some(uuid)).admits(&of(other)).unwrap_err();
            assert!(matches!(refused, Refusal::WrongIdentity { .. }), "{other:?}");
        }
        assert_eq!(of(None).admits(&of(None)), Ok(()), "nothing to compare with");
    }
}
