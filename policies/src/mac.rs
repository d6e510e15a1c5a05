//! The address of a network card.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A MAC address (EUI-48) as it is burned in: six octets. Read with colons or hyphens, in either case, as firmware and iPXE
/// write it; written as `52:54:00:0a:0b:0c`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

/// Why a text is no MAC address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a MAC address: write six pairs of hexadecimal digits, as 52:54:00:0a:0b:0c")]
pub struct BadMac {
    text: String,
}

impl FromStr for Mac {
    type Err = BadMac;
    fn from_str(text: &str) -> Result<Self, BadMac> {
        let bad = || BadMac { text: text.chars().take(80).collect() };
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut octets = [0; 6];
        let mut pairs = text.split(separator);
        for octet in &mut octets {
            let pair =
                pairs.next().filter(|pair| pair.len() == 2 && !pair.starts_with('+')).ok_or_else(bad)?;
            *octet = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
        }
        if pairs.next().is_some() { Err(bad()) } else { Ok(Mac(octets)) }
    }
}

impl TryFrom<String> for Mac {
    type Error = BadMac;
    fn try_from(text: String) -> Result<Self, BadMac> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_read_as_firmware_writes_it_and_nothing_else_is() {
        for text in ["52:54:00:0a:0B:ff", "52-54-00-0A-0b-FF"] {
            assert_eq!(text.parse::<Mac>().unwrap().to_string(), "52:54:00:0a:0b:ff");
        }
        for text in [
            "",
            "52:54:00:0a:0b",
            "52:54:00:0a:0b:ff:00",
            "52:54:00:0a:0b:+f",
            "52:54-00:0a:0b:ff",
            "5254000a0bff",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }
}
