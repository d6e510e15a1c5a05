//! The heartbeat on the wire: one UDP datagram of 64 bytes, as pure functions from bytes to values and back.
//!
//! Why it exists: sender and receiver share this one definition. 64 bytes are one BLAKE3 block, and enough.
//! What it never does: no socket, no clock, no memory of what came before; whoever receives checks the sequence.
//!
//! ```text
//! offset  bytes  what (numbers are little-endian)
//!      0      3  "HAB"
//!      3      1  version, 1
//!      4      1  flags: bit 0 shutdown, bit 1 panic, bit 2 the write age is valid, bit 3 wants an answer; other bits 0
//!      5      1  path: which of the sender's paths this datagram took
//!      6      2  0
//!      8      8  node tag: the first 8 bytes of BLAKE3 of the node's name
//!     16      8  boot id: drawn at the start of the node's operating system
//!     24      8  sequence: grows strictly within one boot; equal on all paths of one heartbeat
//!     32      8  epoch that the node believes to run; 0 on a spare
//!     40      4  age of the last acknowledged disk write in ms; 0 if not valid
//!     44      4  0
//!     48     16  BLAKE3 of bytes 0..48 keyed with the node's key, its first 16 bytes
//! ```
//!
//! Bit 3 came later: members that do not know it refuse such a heartbeat, so upgrade members first ([`crate::answer`]).

use crate::key::Key;
use policies::{BootId, Epoch, Heartbeat, LastGasp, Millis};
use std::fmt;
use subtle::ConstantTimeEq;

/// Length of a heartbeat in bytes.
pub const BEAT_BYTES: usize = 64;

pub(crate) const MAC_BYTES: usize = 16;
pub(crate) const SIGNED_BYTES: usize = BEAT_BYTES - MAC_BYTES;
const MAGIC: [u8; 3] = *b"HAB";
const VERSION: u8 = 1;
const SHUTDOWN: u8 = 1;
const PANIC: u8 = 2;
const WRITE_AGE: u8 = 4;
const ASKS: u8 = 8;

/// The name of a node on the wire. Not a secret; only for finding the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeTag(pub u64);

impl NodeTag {
    /// The tag of the node with this name.
    pub fn of(name: &str) -> Self {
        NodeTag(hash_of(name))
    }
}

impl fmt::Display for NodeTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The boot id that stands for a text which is new in each life of an operating system, such as
/// `/proc/sys/kernel/random/boot_id` (proc(5)). Space around it does not count.
pub fn boot_id_of(text: &str) -> BootId {
    BootId(hash_of(text.trim()))
}

/// The first 8 bytes of BLAKE3, as a number.
fn hash_of(text: &str) -> u64 {
    let hash = blake3::hash(text.as_bytes());
    let (words, _) = hash.as_bytes().as_chunks::<8>();
    words.first().map_or(0, |word| u64::from_le_bytes(*word))
}

/// One heartbeat of a node over one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Who speaks.
    pub node: NodeTag,
    /// Over which of its paths, in the order of its configuration.
    pub path: u8,
    /// Grows strictly within one boot; the same on all paths.
    pub sequence: u64,
    /// Whether it wants an answer of whoever takes it ([`crate::answer`]).
    pub asks: bool,
    /// What it says.
    pub said: Heartbeat,
}

/// Why a datagram is not a heartbeat of the node that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Not 64 bytes.
    #[error("a heartbeat is {BEAT_BYTES} bytes, this datagram is {found}")]
    Length {
        /// Its length, or more than 64 if it was cut.
        found: usize,
    },
    /// Some other protocol.
    #[error("the datagram does not begin as a heartbeat does")]
    Magic,
    /// Another version of this protocol.
    #[error("heartbeat version {found}; this program knows version {VERSION}")]
    Version {
        /// Its version.
        found: u8,
    },
    /// Not made with this key, or changed on the way.
    #[error("the authentication code is wrong")]
    WrongMac,
    /// Made with the right key, but says what version 1 cannot say.
    #[error("an authentic heartbeat with fields that version {VERSION} does not have")]
    Fields,
}

/// The datagram of a heartbeat. A write age of more than 49 days is sent as 49 days.
pub fn encode(beat: &Beat, key: &Key) -> [u8; BEAT_BYTES] {
    let (gasp, age) = (beat.said.last_gasp, beat.said.write_age);
    let mut flags = match gasp {
        None => 0,
        Some(LastGasp::Shutdown) => SHUTDOWN,
        Some(LastGasp::Panic) => PANIC,
    };
    if age.is_some() {
        flags |= WRITE_AGE;
    }
    if beat.asks {
        flags |= ASKS;
    }
    let age_ms = age.map_or(0, |age| u32::try_from(age.0).unwrap_or(u32::MAX));
    let [m0, m1, m2] = MAGIC;
    let mut out = [0; BEAT_BYTES];
    let fields = [
        &[m0, m1, m2, VERSION, flags, beat.path, 0, 0],
        &beat.node.0.to_le_bytes(),
        &beat.said.boot.0.to_le_bytes(),
        &beat.sequence.to_le_bytes(),
        &beat.said.epoch.0.to_le_bytes(),
        &u64::from(age_ms).to_le_bytes(),
    ];
    let (words, _) = out.as_chunks_mut::<8>();
    for (word, field) in words.iter_mut().zip(fields) {
        *word = *field;
    }
    if let Some((signed, mac)) = out.split_first_chunk_mut::<SIGNED_BYTES>() {
        mac.copy_from_slice(&mac_of(signed, key));
    }
    out
}

/// Who the datagram says it is from. Nothing is proved yet.
///
/// # Errors
/// [`WireError`] if it is not a heartbeat of this version.
pub fn peek_tag(datagram: &[u8]) -> Result<NodeTag, WireError> {
    parse(datagram).map(|(words, ..)| NodeTag(words.node))
}

/// The heartbeat, if it was made with `key`. The code is compared in constant time.
///
/// # Errors
/// [`WireError`] if it is not a heartbeat of this version, not authentic, or not canonical.
pub fn verify(datagram: &[u8], key: &Key) -> Result<Beat, WireError> {
    let (words, signed, mac) = parse(datagram)?;
    if !bool::from(mac_of(signed, key).ct_eq(mac)) {
        return Err(WireError::WrongMac);
    }
    let [_, _, _, _, flags, path, zero0, zero1] = words.head;
    let age_ms = u32::try_from(words.age).map_err(|_| WireError::Fields)?;
    let write_age = match (flags & WRITE_AGE != 0, age_ms) {
        (true, ms) => Some(Millis(u64::from(ms))),
        (false, 0) => None,
        (false, _) => return Err(WireError::Fields),
    };
    let last_gasp = match flags & !(WRITE_AGE | ASKS) {
        0 => None,
        SHUTDOWN => Some(LastGasp::Shutdown),
        PANIC => Some(LastGasp::Panic),
        _ => return Err(WireError::Fields),
    };
    if (zero0, zero1) != (0, 0) {
        return Err(WireError::Fields);
    }
    let said = Heartbeat { boot: BootId(words.boot), epoch: Epoch(words.epoch), write_age, last_gasp };
    Ok(Beat { node: NodeTag(words.node), path, sequence: words.sequence, asks: flags & ASKS != 0, said })
}

/// The signed part, in units of 8 bytes.
struct Words {
    head: [u8; 8],
    node: u64,
    boot: u64,
    sequence: u64,
    epoch: u64,
    age: u64,
}

/// Splits a datagram that looks like a heartbeat into words, signed part and code.
fn parse(datagram: &[u8]) -> Result<(Words, &[u8; SIGNED_BYTES], &[u8; MAC_BYTES]), WireError> {
    let wrong_length = WireError::Length { found: datagram.len() };
    let whole: &[u8; BEAT_BYTES] = datagram.try_into().map_err(|_| wrong_length)?;
    let (signed, rest) = whole.split_first_chunk::<SIGNED_BYTES>().ok_or(wrong_length)?;
    let mac: &[u8; MAC_BYTES] = rest.try_into().map_err(|_| wrong_length)?;
    let (words, _) = signed.as_chunks::<8>();
    let [head, node, boot, sequence, epoch, age] = words else { return Err(wrong_length) };
    let [m0, m1, m2, version, ..] = *head;
    if [m0, m1, m2] != MAGIC {
        return Err(WireError::Magic);
    }
    if version != VERSION {
        return Err(WireError::Version { found: version });
    }
    let [node, boot, sequence, epoch, age] =
        [node, boot, sequence, epoch, age].map(|word| u64::from_le_bytes(*word));
    Ok((Words { head: *head, node, boot, sequence, epoch, age }, signed, mac))
}

pub(crate) fn mac_of(signed: &[u8], key: &Key) -> [u8; MAC_BYTES] {
    let mut mac = [0; MAC_BYTES];
    for (to, from) in mac.iter_mut().zip(blake3::keyed_hash(key.bytes(), signed).as_bytes()) {
        *to = *from;
    }
    mac
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: [u8; 32] = *b"0123456789abcdef0123456789abcdef";

    fn key() -> Key {
        Key::new(KEY)
    }

    fn beats() -> impl Strategy<Value = Beat> {
        let gasps = prop_oneof![Just(None), Just(Some(LastGasp::Shutdown)), Just(Some(LastGasp::Panic))];
        let ids = (any::<u64>(), any::<u8>(), any::<u64>(), any::<bool>(), any::<u64>(), any::<u64>());
        (ids, proptest::option::of(any::<u32>()), gasps).prop_map(|(ids, age, last_gasp)| {
            let (node, path, sequence, asks, boot, epoch) = ids;
            let write_age = age.map(|ms| Millis(u64::from(ms)));
            let said = Heartbeat { boot: BootId(boot), epoch: Epoch(epoch), write_age, last_gasp };
            Beat { node: NodeTag(node), path, sequence, asks, said }
        })
    }

    /// Signs bytes that `encode` would never make.
    fn sign(mut datagram: [u8; BEAT_BYTES]) -> [u8; BEAT_BYTES] {
        let (signed, mac) = datagram.split_first_chunk_mut::<SIGNED_BYTES>().unwrap();
        mac.copy_from_slice(&mac_of(signed, &key()));
        datagram
    }

    #[test]
    fn the_format_is_the_one_in_the_table() {
        let said = Heartbeat {
            boot: BootId(0x2222_2222_2222_2222),
            epoch: Epoch(7),
            write_age: Some(Millis(1234)),
            last_gasp: Some(LastGasp::Panic),
        };
        let beat = Beat { node: NodeTag::of("n1"), path: 3, sequence: 0x0102, asks: true, said };
        let bytes = encode(&beat, &key());
        let mut expected = b"HAB\x01\x0e\x03\0\0".to_vec();
        expected.extend(&blake3::hash(b"n1").as_bytes()[..8]);
        expected.extend([0x22; 8]);
        expected.extend([2, 1, 0, 0, 0, 0, 0, 0]);
        expected.extend([7, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([0xd2, 4, 0, 0, 0, 0, 0, 0]);
        expected.extend(&blake3::keyed_hash(&KEY, &expected.clone()).as_bytes()[..16]);
        assert_eq!(bytes.to_vec(), expected);
    }

    #[test]
    fn authentic_nonsense_is_refused() {
        let said = Heartbeat { boot: BootId(1), epoch: Epoch(1), write_age: None, last_gasp: None };
        let good = encode(&Beat { node: NodeTag(1), path: 0, sequence: 1, asks: false, said }, &key());
        for (offset, byte) in [(4, 3), (4, 16), (4, 128), (6, 1), (7, 1), (40, 1), (44, 1), (47, 255)] {
            let mut bad = good;
            bad[offset] = byte;
            assert_eq!(verify(&sign(bad), &key()), Err(WireError::Fields), "byte {offset} = {byte}");
        }
        let mut other = good;
        other[3] = 2;
        assert_eq!(verify(&sign(other), &key()), Err(WireError::Version { found: 2 }));
    }

    #[test]
    fn a_boot_id_is_that_of_the_text_without_space_around_it() {
        assert_eq!(boot_id_of("5f2a\n"), boot_id_of("5f2a"));
        assert_ne!(boot_id_of("5f2a"), boot_id_of("5f2b"));
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_read_back(beat in beats()) {
            let bytes = encode(&beat, &key());
            prop_assert_eq!(peek_tag(&bytes), Ok(beat.node));
            prop_assert_eq!(verify(&bytes, &key()), Ok(beat));
        }

        #[test]
        fn any_flipped_bit_is_refused(beat in beats(), bit in 0..BEAT_BYTES * 8) {
            let mut bytes = encode(&beat, &key());
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(verify(&bytes, &key()).is_err());
        }

        #[test]
        fn another_key_is_refused(beat in beats(), other in any::<[u8; 32]>()) {
            prop_assume!(other != KEY);
            prop_assert_eq!(verify(&encode(&beat, &Key::new(other)), &key()), Err(WireError::WrongMac));
        }

        #[test]
        fn arbitrary_bytes_are_refused_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(verify(&bytes, &key()).is_err());
        }

        #[test]
        fn what_is_authentic_and_accepted_encodes_to_the_same_bytes(head in any::<[u8; 2]>(), tail in any::<[u8; 8]>()) {
            let mut bytes = [0; BEAT_BYTES];
            bytes[..4].copy_from_slice(b"HAB\x01");
            bytes[4..6].copy_from_slice(&[head[0] & 31, head[1]]);
            bytes[40..48].copy_from_slice(&(u64::from_le_bytes(tail) & 0x1_0000_00ff).to_le_bytes());
            let bytes = sign(bytes);
            if let Ok(beat) = verify(&bytes, &key()) {
                prop_assert_eq!(encode(&beat, &key()), bytes);
            }
        }
    }
}
