//! The key that a node shares with the members.
//!
//! Why it exists: one place where the secret is read, kept and wiped.
//! What it never does: it is not written to a log, an error or a `Debug` output, not even in part.

use std::fmt;
use std::str::FromStr;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Length of a key in bytes: that of BLAKE3's keyed mode.
pub const KEY_BYTES: usize = 32;

/// The secret of one node: 32 random bytes. Each node has its own, so that a stolen one speaks for no other.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Key([u8; KEY_BYTES]);

/// Why a text is not a key. Says nothing about the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a key: write 64 hexadecimal digits (32 random bytes)")]
pub struct BadKey;

impl Key {
    /// A key from its bytes.
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Key(bytes)
    }

    /// The key as 64 hexadecimal digits, for the file from which the agent reads it.
    pub fn to_hex(&self) -> Zeroizing<String> {
        let mut hex = Zeroizing::new(String::with_capacity(2 * KEY_BYTES));
        let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
        for byte in self.0 {
            hex.push(digit(byte >> 4));
            hex.push(digit(byte & 15));
        }
        hex
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl FromStr for Key {
    type Err = BadKey;
    fn from_str(text: &str) -> Result<Self, BadKey> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != KEY_BYTES || !rest.is_empty() {
            return Err(BadKey);
        }
        let mut key = Key([0; KEY_BYTES]);
        for (byte, [high, low]) in key.0.iter_mut().zip(pairs) {
            *byte = (nibble(*high)? << 4) | nibble(*low)?;
        }
        Ok(key)
    }
}

fn nibble(digit: u8) -> Result<u8, BadKey> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(BadKey),
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<key>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_from_hex_in_either_case_and_written_back() {
        let text = "00ff10".to_owned() + &"aB".repeat(29);
        let key: Key = text.parse().unwrap();
        assert_eq!(key.bytes()[..4], [0x00, 0xff, 0x10, 0xab]);
        assert_eq!(*key.to_hex(), text.to_lowercase());
    }

    #[test]
    fn a_bad_key_is_refused_without_repeating_it() {
        for bad in ["", "ab", &"a".repeat(63), &"a".repeat(65), &"g".repeat(64), &"ä".repeat(32)] {
            let error = bad.parse::<Key>().unwrap_err().to_string();
            assert_eq!(error, "not a key: write 64 hexadecimal digits (32 random bytes)");
        }
    }

    #[test]
    fn debug_shows_no_byte_of_it() {
        assert_eq!(format!("{:?}", Key::new([0xab; 32])), "<key>");
    }
}
