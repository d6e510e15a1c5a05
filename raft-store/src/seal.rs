//! The form of every record on disk: one version byte, a CRC-32 (little endian), JSON.
//!
//! Why it exists: a record that was damaged, or written by a newer program, must be noticed before it is believed.
//! What it never does: repair. A damaged record is an error that names itself.
//!
//! JSON, because an operator with nothing but `strings` can read it at three in the morning, and because unknown
//! fields survive a downgrade; the log holds tens of entries a second at most. The checksum covers the version byte.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Version of the records' form. A program reads its own and all earlier ones.
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 5;

/// Why the bytes are not a record.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadRecord {
    #[error("it has {0} bytes, fewer than a record's head")]
    Short(usize),
    #[error("it was written in version {0}; this program knows version {VERSION}")]
    Version(u8),
    #[error("its checksum is {found:08x}, but {stored:08x} was stored with it")]
    Checksum { stored: u32, found: u32 },
    #[error("its content does not parse")]
    Content(#[source] serde_json::Error),
}

fn checksum(version: u8, json: &[u8]) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    hash.update(&[version]);
    hash.update(json);
    hash.finalize()
}

/// Makes a record.
pub(crate) fn seal<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = vec![0; HEAD_BYTES];
    serde_json::to_writer(&mut bytes, value)?;
    let head = head(bytes.get(HEAD_BYTES..).unwrap_or_default());
    bytes.iter_mut().zip(head).for_each(|(byte, value)| *byte = value);
    Ok(bytes)
}

/// What stands before the JSON of a record.
pub(crate) fn head(json: &[u8]) -> [u8; HEAD_BYTES] {
    let [crc0, crc1, crc2, crc3] = checksum(VERSION, json).to_le_bytes();
    [VERSION, crc0, crc1, crc2, crc3]
}

/// Reads a record.
pub(crate) fn open<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BadRecord> {
    let (&[version, crc0, crc1, crc2, crc3], json) =
        bytes.split_first_chunk::<HEAD_BYTES>().ok_or(BadRecord::Short(bytes.len()))?;
    if version != VERSION {
        return Err(BadRecord::Version(version));
    }
    let stored = u32::from_le_bytes([crc0, crc1, crc2, crc3]);
    let found = checksum(version, json);
    if stored != found {
        return Err(BadRecord::Checksum { stored, found });
    }
    serde_json::from_slice(json).map_err(BadRecord::Content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_comes_back_and_every_flipped_bit_is_noticed(text in ".{0,60}", at in any::<usize>(), bit in 0_u8..8) {
            let mut bytes = seal(&text).unwrap();
            prop_assert_eq!(open::<String>(&bytes).unwrap(), text);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(open::<String>(&bytes).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(open::<String>(&bytes).is_err());
        }
    }
}
