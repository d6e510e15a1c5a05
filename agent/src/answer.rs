//! A member's answer to a heartbeat that wants one, on the wire: pure functions from bytes to values and back.
//!
//! Why it exists: from sending alone a node cannot know whether anybody hears it. One under a watchdog has to, for it lives
//! only while a majority of the members hears it ([`crate::watchdog`]).
//! What it never does: no socket, no clock. An answer is as long as what it answers, so nobody gets more out of a member
//! than was put in; it says nothing that the heartbeat did not, but who took it.
//!
//! ```text
//! offset  bytes  what (numbers are little-endian)
//!      0      3  "HAA"
//!      3      1  version, 1
//!      4      4  0
//!      8      8  node tag, as in the heartbeat that is answered
//!     16      8  boot id, as there
//!     24      8  sequence, as there
//!     32      8  member id: who answers
//!     40      8  0
//!     48     16  BLAKE3 of bytes 0..48 keyed with the answers' key, its first 16 bytes
//! ```
//!
//! The answers' key is derived from the node's (BLAKE3's key derivation), so that no code of a heartbeat is one of an
//! answer, whatever later versions of either may say.

use crate::key::Key;
use crate::wire::{BEAT_BYTES, Beat, NodeTag, SIGNED_BYTES, mac_of};
use policies::{BootId, MemberId};
use subtle::ConstantTimeEq;

const HEAD: [u8; 8] = *b"HAA\x01\0\0\0\0";
/// Names the answers' key; never changes within a version.
const CONTEXT: &str = "ha-agent 2026-11-29 answers to heartbeats version 1";

/// That a member took a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who took it.
    pub member: MemberId,
    /// Whose heartbeat it was.
    pub node: NodeTag,
    /// In which life.
    pub boot: BootId,
    /// Which one: it was sent when its sequence was new.
    pub sequence: u64,
}

impl Answer {
    /// The answer of `member` to this heartbeat.
    pub fn to(beat: &Beat, member: MemberId) -> Self {
        Answer { member, node: beat.node, boot: beat.said.boot, sequence: beat.sequence }
    }
}

/// The datagram of an answer, made with the key of the node that it is for.
pub fn encode(answer: &Answer, key: &Key) -> [u8; BEAT_BYTES] {
    let mut out = [0; BEAT_BYTES];
    let fields = [
        &HEAD,
        &answer.node.0.to_le_bytes(),
        &answer.boot.0.to_le_bytes(),
        &answer.sequence.to_le_bytes(),
        &answer.member.0.to_le_bytes(),
    ];
    let (words, _) = out.as_chunks_mut::<8>();
    for (word, field) in words.iter_mut().zip(fields) {
        *word = *field;
    }
    if let Some((signed, mac)) = out.split_first_chunk_mut::<SIGNED_BYTES>() {
        mac.copy_from_slice(&mac_of(signed, &answers_key(key)));
    }
    out
}

/// The answer, if the datagram is one that was made with the key of this node. The code is compared in constant time.
pub fn verify(datagram: &[u8], key: &Key) -> Option<Answer> {
    let whole: &[u8; BEAT_BYTES] = datagram.try_into().ok()?;
    let (signed, mac) = whole.split_first_chunk::<SIGNED_BYTES>()?;
    let ([head, node, boot, sequence, member, zero], []) = signed.as_chunks::<8>() else { return None };
    if *head != HEAD || !bool::from(mac_of(signed, &answers_key(key)).ct_eq(mac)) || *zero != [0; 8] {
        return None;
    }
    let [node, boot, sequence, member] = [node, boot, sequence, member].map(|word| u64::from_le_bytes(*word));
    Some(Answer { member: MemberId(member), node: NodeTag(node), boot: BootId(boot), sequence })
}

fn answers_key(key: &Key) -> Key {
    Key::new(blake3::derive_key(CONTEXT, key.bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;
    use policies::{Epoch, Heartbeat};
    use proptest::prelude::*;

    fn key() -> Key {
        Key::new([7; 32])
    }

    fn answers() -> impl Strategy<Value = Answer> {
        any::<[u64; 4]>().prop_map(|[member, node, boot, sequence]| Answer {
            member: MemberId(member),
            node: NodeTag(node),
            boot: BootId(boot),
            sequence,
        })
    }

    #[test]
    fn the_format_is_the_one_in_the_table() {
        let said = Heartbeat { boot: BootId(0x22), epoch: Epoch(7), write_age: None, last_gasp: None };
        let beat = Beat { node: NodeTag::of("n1"), path: 3, sequence: 0x0102, asks: true, said };
        let mut expected = b"HAA\x01\0\0\0\0".to_vec();
        expected.extend(&blake3::hash(b"n1").as_bytes()[..8]);
        expected.extend([0x22, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([2, 1, 0, 0, 0, 0, 0, 0]);
        expected.extend([5, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([0; 8]);
        let derived = blake3::derive_key("ha-agent 2026-11-29 answers to heartbeats version 1", &[7; 32]);
        expected.extend(&blake3::keyed_hash(&derived, &expected.clone()).as_bytes()[..16]);
        assert_eq!(encode(&Answer::to(&beat, MemberId(5)), &key()).to_vec(), expected);
    }

    #[test]
    fn neither_passes_for_the_other() {
        let said = Heartbeat { boot: BootId(1), epoch: Epoch(0), write_age: None, last_gasp: None };
        let beat = Beat { node: NodeTag(1), path: 0, sequence: 1, asks: true, said };
        assert_eq!(verify(&wire::encode(&beat, &key()), &key()), None);
        let mut answer = encode(&Answer::to(&beat, MemberId(1)), &key());
        assert!(wire::verify(&answer, &key()).is_err());
        // Not even under the other's name.
        answer[..3].copy_from_slice(b"HAB");
        assert_eq!(wire::verify(&answer, &key()), Err(wire::WireError::WrongMac));
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_read_back(answer in answers()) {
            prop_assert_eq!(verify(&encode(&answer, &key()), &key()), Some(answer));
        }

        #[test]
        fn any_flipped_bit_is_refused(answer in answers(), bit in 0..BEAT_BYTES * 8) {
            let mut bytes = encode(&answer, &key());
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(verify(&bytes, &key()), None);
        }

        #[test]
        fn another_key_and_arbitrary_bytes_are_refused(answer in answers(), bytes in any::<Vec<u8>>()) {
            prop_assert_eq!(verify(&encode(&answer, &Key::new([8; 32])), &key()), None);
            prop_assert_eq!(verify(&bytes, &key()), None);
        }
    }
}
