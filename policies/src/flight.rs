//! What a member writes down of what it observes, and the bytes of it: the flight record.
//!
//! Why it exists: a policy that is not in force can be tried on what really happened only if somebody kept it, and also
//! what was no news to the policy of the day: short silences (ADR 0012). What it never does: reach the engine.
//!
//! Durations are measured on the member's steady clock and written as durations; moments are its wall clock's, so that
//! the records of several members can be laid side by side.

use crate::observation::{LastGasp, Power};
use crate::plan::Verdict;
use crate::state::{ClusterState, NodeRecord, NodeState};
use crate::words::*;
use std::collections::BTreeMap;

/// How often a member that records says so. What it did not say for longer than twice this it did not see. Lower: more
/// bytes; higher: more of a member's last moments are in doubt.
pub const MARK_EVERY: Millis = Millis(10_000);
/// Longest encoded record in bytes: a node with [`DOMAINS_MAX`] domains of longest names.
pub const RECORD_BYTES_MAX: usize = 4096;
/// Failure domains of one node that are written down; further ones are left out.
pub const DOMAINS_MAX: usize = 8;
/// Longest text in a record, in bytes. A longer domain is cut.
const TEXT_BYTES_MAX: usize = 200;

/// One thing that one member wrote down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When, by the member's wall clock.
    pub at: Wall,
    /// What.
    pub fact: Fact,
}

/// What can be written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Everything is told anew from here on: the member began, or a new partition did, or records were lost.
    Began {
        /// Which life of the member.
        boot: BootId,
        /// Records that were lost since the last one that was kept.
        lost: u64,
        /// The failure domain the member stands in.
        domain: String,
    },
    /// The member records, and there is nothing to tell.
    Mark,
    /// It began, or ceased, to doubt itself.
    Doubts(bool),
    /// Something about a node.
    Node(NodeId, Sign),
}

/// What a node showed, or what was committed about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It is heard: for the first time, again, in a new life or in a new epoch.
    Heard {
        /// The placement that it believes to run.
        epoch: Epoch,
    },
    /// It was not heard for this long and is heard again. Too short to be news for the policy in force.
    Gap {
        /// How long.
        lasting: Millis,
    },
    /// It fell silent by the policy in force.
    Silent {
        /// How long ago it was heard last.
        lasting: Millis,
    },
    /// It was not heard once since it is watched.
    NeverHeard {
        /// For how long it has been watched.
        lasting: Millis,
    },
    /// It said farewell.
    Gasped(LastGasp),
    /// Its last acknowledged write is old.
    WriteStale {
        /// How old.
        age: Millis,
    },
    /// Its disk is written again.
    WriteFresh,
    /// What its kernel answered; `None`: we could not ask.
    Asked(Option<bool>),
    /// What its BMC read; `None`: no answer.
    Power(Option<Power>),
    /// What it is there for, as it was committed.
    Stands(Standing),
    /// It is watched no longer.
    Unwatched,
}

/// What a node is there for and how it can be seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Standing {
    /// What for.
    pub duty: Duty,
    /// Its kernel can be asked.
    pub has_probe: bool,
    /// It has an agent; without one its kernel is asked at the pace of the policy in force.
    pub has_agent: bool,
    /// The failure domains it stands in.
    pub domains: BTreeMap<String, String>,
}

/// What a node is there for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Duty {
    /// It carries an instance that this policy protects.
    Protected(PolicyId),
    /// It carries none and was seen alive.
    Spare,
    /// It is cut off, or is being cut off.
    Cut,
    /// Nothing is expected of it: maintenance, reserved, cleaning, never seen.
    Aside,
}

impl Standing {
    /// Of a node, as it is committed now.
    pub fn of(state: &ClusterState, record: &NodeRecord) -> Self {
        let node = &record.node;
        let duty = match &record.state {
            NodeState::Fencing { .. } | NodeState::Quarantined { .. } => Duty::Cut,
            NodeState::Active { .. } | NodeState::Spare if record.maintenance.is_some() => Duty::Aside,
            NodeState::Active { instance } => match state.instances.get(instance) {
                Some(record) => Duty::Protected(record.policy.clone()),
                None => Duty::Aside,
            },
            NodeState::Spare if record.verdict != Verdict::Unknown => Duty::Spare,
            NodeState::Spare | NodeState::Reserved { .. } | NodeState::Cleaning { .. } => Duty::Aside,
        };
        let (has_probe, has_agent) = (!node.probe.is_empty(), node.agent_key.is_some());
        let domains =
            node.domains.iter().take(DOMAINS_MAX).map(|(kind, name)| (cut(kind), cut(name))).collect();
        Standing { duty, has_probe, has_agent, domains }
    }
}

/// The longest beginning of a text that is written down.
fn cut(text: &str) -> String {
    text.char_indices().take_while(|(at, c)| at + c.len_utf8() <= TEXT_BYTES_MAX).map(|(_, c)| c).collect()
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// They end too early.
    #[error("a flight record ends too early")]
    Short,
    /// A number, a text or a kind that does not exist.
    #[error("a flight record holds {0} that cannot be")]
    Value(&'static str),
}

impl Record {
    /// Appends the bytes: kind, moment, fields; numbers in LEB128, texts with their length before them.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (kind, node) = match &self.fact {
            Fact::Began { .. } => (0, None),
            Fact::Mark => (1, None),
            Fact::Doubts(false) => (2, None),
            Fact::Doubts(true) => (3, None),
            Fact::Node(node, sign) => (kind_of(sign), Some((node, sign))),
        };
        out.push(kind);
        number(self.at.0, out);
        if let Fact::Began { boot, lost, domain } = &self.fact {
            number(boot.0, out);
            number(*lost, out);
            text(&cut(domain), out);
        }
        let Some((node, sign)) = node else { return };
        text(node.as_str(), out);
        match sign {
            Sign::Heard { epoch } => number(epoch.0, out),
            Sign::Gap { lasting: length }
            | Sign::Silent { lasting: length }
            | Sign::NeverHeard { lasting: length }
            | Sign::WriteStale { age: length } => number(length.0, out),
            Sign::Gasped(_) | Sign::WriteFresh | Sign::Asked(_) | Sign::Power(_) | Sign::Unwatched => {}
            Sign::Stands(standing) => standing.encode(out),
        }
    }

    /// Takes one record off the bytes; `None` at their end.
    ///
    /// # Errors
    /// [`BadRecord`]; what follows cannot be read either.
    pub fn decode(bytes: &mut &[u8]) -> Result<Option<Record>, BadRecord> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let kind = take(bytes)?;
        let at = Wall(take_number(bytes)?);
        let fact = match kind {
            0 => {
                let (boot, lost) = (BootId(take_number(bytes)?), take_number(bytes)?);
                Fact::Began { boot, lost, domain: take_text(bytes)? }
            }
            1 => Fact::Mark,
            2 => Fact::Doubts(false),
            3 => Fact::Doubts(true),
            kind => {
                let node = take_text(bytes)?.parse().map_err(|_| BadRecord::Value("a name"))?;
                Fact::Node(node, take_sign(kind, bytes)?)
            }
        };
        Ok(Some(Record { at, fact }))
    }
}

fn kind_of(sign: &Sign) -> u8 {
    match sign {
        Sign::Heard { .. } => 8,
        Sign::Gap { .. } => 9,
        Sign::Silent { .. } => 10,
        Sign::NeverHeard { .. } => 11,
        Sign::Gasped(LastGasp::Shutdown) => 12,
        Sign::Gasped(LastGasp::Panic) => 13,
        Sign::WriteStale { .. } => 14,
        Sign::WriteFresh => 15,
        Sign::Asked(None) => 16,
        Sign::Asked(Some(false)) => 17,
        Sign::Asked(Some(true)) => 18,
        Sign::Power(None) => 19,
        Sign::Power(Some(Power::Off)) => 20,
        Sign::Power(Some(Power::On)) => 21,
        Sign::Stands(_) => 22,
        Sign::Unwatched => 23,
    }
}

fn take_sign(kind: u8, bytes: &mut &[u8]) -> Result<Sign, BadRecord> {
    Ok(match kind {
        8 => Sign::Heard { epoch: Epoch(take_number(bytes)?) },
        9 => Sign::Gap { lasting: Millis(take_number(bytes)?) },
        10 => Sign::Silent { lasting: Millis(take_number(bytes)?) },
        11 => Sign::NeverHeard { lasting: Millis(take_number(bytes)?) },
        12 => Sign::Gasped(LastGasp::Shutdown),
        13 => Sign::Gasped(LastGasp::Panic),
        14 => Sign::WriteStale { age: Millis(take_number(bytes)?) },
        15 => Sign::WriteFresh,
        16 => Sign::Asked(None),
        17 => Sign::Asked(Some(false)),
        18 => Sign::Asked(Some(true)),
        19 => Sign::Power(None),
        20 => Sign::Power(Some(Power::Off)),
        21 => Sign::Power(Some(Power::On)),
        22 => Sign::Stands(Standing::decode(bytes)?),
        23 => Sign::Unwatched,
        _ => return Err(BadRecord::Value("a kind")),
    })
}

impl Standing {
    fn encode(&self, out: &mut Vec<u8>) {
        let duty = match &self.duty {
            Duty::Protected(_) => 0,
            Duty::Spare => 1,
            Duty::Cut => 2,
            Duty::Aside => 3,
        };
        out.push(duty | u8::from(self.has_probe) << 2 | u8::from(self.has_agent) << 3);
        if let Duty::Protected(policy) = &self.duty {
            text(policy.as_str(), out);
        }
        out.push(u8::try_from(self.domains.len().min(DOMAINS_MAX)).unwrap_or(0));
        for (kind, name) in self.domains.iter().take(DOMAINS_MAX) {
            text(&cut(kind), out);
            text(&cut(name), out);
        }
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, BadRecord> {
        let bits = take(bytes)?;
        if bits > 15 {
            return Err(BadRecord::Value("a duty"));
        }
        let duty = match bits & 3 {
            0 => Duty::Protected(take_text(bytes)?.parse().map_err(|_| BadRecord::Value("a policy"))?),
            1 => Duty::Spare,
            2 => Duty::Cut,
            _ => Duty::Aside,
        };
        let count = usize::from(take(bytes)?);
        if count > DOMAINS_MAX {
            return Err(BadRecord::Value("a number of domains"));
        }
        let pairs = (0..count).map(|_| Ok((take_text(bytes)?, take_text(bytes)?)));
        let domains = pairs.collect::<Result<_, BadRecord>>()?;
        Ok(Standing { duty, has_probe: bits & 4 != 0, has_agent: bits & 8 != 0, domains })
    }
}

fn number(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

/// A text of at most [`TEXT_BYTES_MAX`] bytes; names of nodes and policies are 63 at the most.
fn text(text: &str, out: &mut Vec<u8>) {
    number(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

fn take(bytes: &mut &[u8]) -> Result<u8, BadRecord> {
    let (first, rest) = bytes.split_first().ok_or(BadRecord::Short)?;
    *bytes = rest;
    Ok(*first)
}

fn take_number(bytes: &mut &[u8]) -> Result<u64, BadRecord> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes)?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            break;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(BadRecord::Value("a number"))
}

fn take_text(bytes: &mut &[u8]) -> Result<String, BadRecord> {
    let length = usize::try_from(take_number(bytes)?).unwrap_or(usize::MAX);
    if length > TEXT_BYTES_MAX {
        return Err(BadRecord::Value("a length"));
    }
    let (text, rest) = bytes.split_at_checked(length).ok_or(BadRecord::Short)?;
    *bytes = rest;
    std::str::from_utf8(text).map(str::to_owned).map_err(|_| BadRecord::Value("a text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sign() -> impl Strategy<Value = Sign> {
        let standing = ("[a-z]{1,8}", any::<bool>(), any::<bool>(), 0..4_u8).prop_map(
            |(name, has_probe, has_agent, duty)| {
                let duty = match duty {
                    0 => Duty::Protected(name.parse().unwrap()),
                    1 => Duty::Spare,
                    2 => Duty::Cut,
                    _ => Duty::Aside,
                };
                let domains = [("rack".to_owned(), name)].into();
                Sign::Stands(Standing { duty, has_probe, has_agent, domains })
            },
        );
        prop_oneof![
            any::<u64>().prop_map(|epoch| Sign::Heard { epoch: Epoch(epoch) }),
            any::<u64>().prop_map(|length| Sign::Gap { lasting: Millis(length) }),
            any::<u64>().prop_map(|length| Sign::Silent { lasting: Millis(length) }),
            any::<u64>().prop_map(|length| Sign::NeverHeard { lasting: Millis(length) }),
            any::<u64>().prop_map(|length| Sign::WriteStale { age: Millis(length) }),
            Just(Sign::Gasped(LastGasp::Panic)),
            Just(Sign::Gasped(LastGasp::Shutdown)),
            Just(Sign::WriteFresh),
            Just(Sign::Unwatched),
            any::<Option<bool>>().prop_map(Sign::Asked),
            Just(Sign::Power(None)),
            Just(Sign::Power(Some(Power::On))),
            Just(Sign::Power(Some(Power::Off))),
            standing,
        ]
    }

    fn fact() -> impl Strategy<Value = Fact> {
        let began = (any::<u64>(), any::<u64>(), "\\PC{0,20}");
        prop_oneof![
            began.prop_map(|(boot, lost, domain)| Fact::Began { boot: BootId(boot), lost, domain }),
            Just(Fact::Mark),
            any::<bool>().prop_map(Fact::Doubts),
            ("[a-z][a-z0-9-]{0,40}", sign()).prop_map(|(node, sign)| Fact::Node(node.parse().unwrap(), sign)),
        ]
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(facts in proptest::collection::vec((any::<u64>(), fact()), 0..20)) {
            let records: Vec<Record> = facts.into_iter().map(|(at, fact)| Record { at: Wall(at), fact }).collect();
            let mut bytes = vec![];
            for record in &records {
                let before = bytes.len();
                record.encode(&mut bytes);
                prop_assert!(bytes.len() - before <= RECORD_BYTES_MAX);
            }
            let mut rest = bytes.as_slice();
            let mut read = vec![];
            while let Some(record) = Record::decode(&mut rest).unwrap() {
                read.push(record);
            }
            prop_assert_eq!(read, records);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut rest = bytes.as_slice();
            let mut before = rest.len() + 1;
            while let Ok(Some(_)) = Record::decode(&mut rest) {
                prop_assert!(rest.len() < before);
                before = rest.len();
            }
        }
    }

    #[test]
    fn a_record_takes_a_few_ten_bytes() {
        let mut bytes = vec![];
        let sign = Sign::Gap { lasting: Millis(700) };
        Record { at: Wall(1_795_411_200_000), fact: Fact::Node("node-1234".parse().unwrap(), sign) }
            .encode(&mut bytes);
        assert_eq!(bytes.len(), 19);
    }
}
