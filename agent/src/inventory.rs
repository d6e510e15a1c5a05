//! A node's hardware on the wire: a datagram of its own kind, as pure functions from bytes to values and back.
//!
//! Why it exists: sender and receiver share this one definition. It comes with the heartbeats, proved by the same key, so
//! that nothing else has to be configured; unlike them it is long and rare.
//! What it never does: no socket, no clock, no memory of what came before; whoever receives checks life and sequence.
//!
//! ```text
//! offset  bytes  what (numbers are little-endian)
//!      0      3  "HAI"
//!      3      1  version, 1
//!      4      4  0
//!      8      8  node tag, as in a heartbeat
//!     16      8  boot id, as in a heartbeat
//!     24      8  sequence, from the same count as that of the heartbeats; equal on all paths
//!     32      n  the capabilities as JSON, in the one form in which this program writes them
//!   32+n     16  BLAKE3 of all that comes before, keyed with the node's key, its first 16 bytes
//! ```

use crate::key::Key;
use crate::wire::{MAC_BYTES, NodeTag, mac_of};
use policies::{BootId, Capabilities};
use subtle::ConstantTimeEq;

/// Longest datagram: what IPv6 carries in one piece everywhere (1280 bytes, RFC 8200 section 5) less both headers.
pub const INVENTORY_BYTES_MAX: usize = 1232;

const HEAD_BYTES: usize = 32;
const MAGIC: [u8; 3] = *b"HAI";
const VERSION: u8 = 1;

/// What a node tells of its hardware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// Who speaks.
    pub node: NodeTag,
    /// In which life of its operating system.
    pub boot: BootId,
    /// Grows strictly within one boot, together with that of the heartbeats.
    pub sequence: u64,
    /// What it found.
    pub found: Capabilities,
}

/// Why an inventory is not sent.
#[derive(Debug, thiserror::Error)]
pub enum NotSent {
    /// It does not fit into one datagram.
    #[error(
        "the hardware takes {found} bytes to tell, more than {INVENTORY_BYTES_MAX}: it is not told; declare it"
    )]
    TooLong {
        /// What it would take.
        found: usize,
    },
    /// It is not JSON.
    #[error("write the hardware as JSON")]
    Json(#[source] serde_json::Error),
}

/// Why a datagram is not an inventory of the node that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadInventory {
    /// Too short or too long, or of another protocol or version.
    #[error("the datagram is no inventory of version {VERSION}")]
    Other,
    /// Not made with this key, or changed on the way.
    #[error("the authentication code is wrong")]
    WrongMac,
    /// Made with the right key, but says what version 1 cannot say.
    #[error("an authentic inventory that version {VERSION} does not have")]
    Content,
}

/// True if the datagram means to be an inventory.
pub fn is_inventory(datagram: &[u8]) -> bool {
    datagram.starts_with(&MAGIC)
}

/// The datagram of an inventory.
///
/// # Errors
/// [`NotSent::TooLong`].
pub fn encode(inventory: &Inventory, key: &Key) -> Result<Vec<u8>, NotSent> {
    let json = serde_json::to_vec(&inventory.found).map_err(NotSent::Json)?;
    let [m0, m1, m2] = MAGIC;
    let mut datagram = vec![m0, m1, m2, VERSION, 0, 0, 0, 0];
    for word in [inventory.node.0, inventory.boot.0, inventory.sequence] {
        datagram.extend_from_slice(&word.to_le_bytes());
    }
    datagram.extend_from_slice(&json);
    let mac = mac_of(&datagram, key);
    datagram.extend_from_slice(&mac);
    if datagram.len() > INVENTORY_BYTES_MAX {
        return Err(NotSent::TooLong { found: datagram.len() });
    }
    Ok(datagram)
}

/// Who the datagram says it is from. Nothing is proved yet.
///
/// # Errors
/// [`BadInventory::Other`].
pub fn peek_tag(datagram: &[u8]) -> Result<NodeTag, BadInventory> {
    split(datagram).map(|parts| parts.node)
}

/// The inventory, if it was made with `key`. The code is compared in constant time, and before anything is parsed.
///
/// # Errors
/// [`BadInventory`].
pub fn verify(datagram: &[u8], key: &Key) -> Result<Inventory, BadInventory> {
    let Parts { node, boot, sequence, zero, json, signed, mac } = split(datagram)?;
    if !bool::from(mac_of(signed, key).ct_eq(mac)) {
        return Err(BadInventory::WrongMac);
    }
    let found: Capabilities = serde_json::from_slice(json).map_err(|_| BadInventory::Content)?;
    let canonical = serde_json::to_vec(&found).is_ok_and(|again| again == json);
    if zero != 0 || !canonical || found.check().is_err() {
        return Err(BadInventory::Content);
    }
    Ok(Inventory { node, boot, sequence, found })
}

struct Parts<'a> {
    node: NodeTag,
    boot: BootId,
    sequence: u64,
    zero: u32,
    json: &'a [u8],
    signed: &'a [u8],
    mac: &'a [u8; MAC_BYTES],
}

fn split(datagram: &[u8]) -> Result<Parts<'_>, BadInventory> {
    let parts = || {
        let (signed, mac) = datagram.split_last_chunk::<MAC_BYTES>()?;
        let (head, json) = signed.split_first_chunk::<HEAD_BYTES>()?;
        let [first, node, boot, sequence] = head.as_chunks::<8>().0 else { return None };
        let [m0, m1, m2, version, zero @ ..] = *first;
        let ours = [m0, m1, m2] == MAGIC && version == VERSION && datagram.len() <= INVENTORY_BYTES_MAX;
        let (node, boot) = (NodeTag(u64::from_le_bytes(*node)), BootId(u64::from_le_bytes(*boot)));
        let (sequence, zero) = (u64::from_le_bytes(*sequence), u32::from_le_bytes(zero));
        ours.then_some(Parts { node, boot, sequence, zero, json, signed, mac })
    };
    parts().ok_or(BadInventory::Other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies::{Bytes, DiskKind, Disks};
    use proptest::prelude::*;

    const KEY: [u8; 32] = *b"0123456789abcdef0123456789abcdef";

    fn key() -> Key {
        Key::new(KEY)
    }

    fn told() -> Inventory {
        let disks = vec![Disks { kind: DiskKind::Nvme, size: Bytes(3_840_000_000_000), count: 4 }];
        let found = Capabilities { cpus: Some(64), disks, ..Capabilities::default() };
        Inventory { node: NodeTag::of("n1"), boot: BootId(0x2222_2222_2222_2222), sequence: 0x0102, found }
    }

    /// Signs what `encode` would never make.
    fn signed(mut bytes: Vec<u8>) -> Vec<u8> {
        let mac = mac_of(&bytes, &key());
        bytes.extend_from_slice(&mac);
        bytes
    }

    #[test]
    fn the_format_is_the_one_in_the_table() {
        let mut expected = b"HAI\x01\0\0\0\0".to_vec();
        expected.extend(&blake3::hash(b"n1").as_bytes()[..8]);
        expected.extend([0x22; 8]);
        expected.extend([2, 1, 0, 0, 0, 0, 0, 0]);
        expected.extend(br#"{"cpus":64,"disks":[{"type":"nvme","size":"3840GB","count":4}]}"#);
        expected.extend(&blake3::keyed_hash(&KEY, &expected.clone()).as_bytes()[..16]);
        assert_eq!(encode(&told(), &key()).unwrap(), expected);
        assert_eq!(verify(&expected, &key()), Ok(told()));
        assert_eq!(peek_tag(&expected), Ok(NodeTag::of("n1")));
        assert_eq!(verify(&expected, &Key::new([1; 32])), Err(BadInventory::WrongMac));
    }

    #[test]
    fn authentic_nonsense_is_refused() {
        let head = |version: u8, zero: u8| {
            [&[b'H', b'A', b'I', version, zero, 0, 0, 0], [0; 24].as_slice()].concat()
        };
        let with = |head: Vec<u8>, json: &str| signed([head.as_slice(), json.as_bytes()].concat());
        assert!(verify(&with(head(1, 0), r#"{"cpus":64}"#), &key()).is_ok());
        assert_eq!(verify(&with(head(2, 0), r#"{"cpus":64}"#), &key()), Err(BadInventory::Other));
        assert_eq!(verify(&with(head(1, 1), r#"{"cpus":64}"#), &key()), Err(BadInventory::Content));
        for json in [
            "",
            "{",
            "7",
            r#"{"cpus":0}"#,
            r#"{"cpus": 64}"#,
            r#"{"cpus":64,"cores":3}"#,
            r#"{"memory":"1 GB"}"#,
        ] {
            assert_eq!(verify(&with(head(1, 0), json), &key()), Err(BadInventory::Content), "{json}");
        }
        let long = Disks { kind: DiskKind::Hdd, size: Bytes(1), count: 1 };
        let found = Capabilities { disks: vec![long; 64], ..Capabilities::default() };
        assert!(matches!(encode(&Inventory { found, ..told() }, &key()), Err(NotSent::TooLong { .. })));
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_refused(bit in any::<prop::sample::Index>()) {
            let mut bytes = encode(&told(), &key()).unwrap();
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(verify(&bytes, &key()).is_err());
        }

        #[test]
        fn arbitrary_bytes_are_refused_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1400), ours in any::<bool>()) {
            let bytes = if ours { [b"HAI\x01".as_slice(), &bytes].concat() } else { bytes };
            prop_assert!(verify(&bytes, &key()).is_err());
        }

        #[test]
        fn what_is_authentic_and_accepted_encodes_to_the_same_bytes(json in "\\{(\"cpus\":[0-9]{1,4})?,?(\"memory\":\"[0-9.]{1,3}[GT]i?B\")?\\}|\\PC{0,60}") {
            let bytes = signed([b"HAI\x01".as_slice(), &[0; 28], json.as_bytes()].concat());
            if let Ok(inventory) = verify(&bytes, &key()) {
                prop_assert_eq!(encode(&inventory, &key()).unwrap(), bytes);
            }
        }
    }
}
