//! Target `heartbeat`: a script of datagrams to the table that a member keeps of its nodes' heartbeats and inventories.
//!
//! Why it exists: a heartbeat that is forged or replayed keeps a dead node alive in the members' eyes, and an answer to one
//! keeps its watchdog quiet.

use super::script::Script;
use ha_agent::answer;
use ha_agent::inventory::{self, Inventory};
use ha_agent::key::Key;
use ha_agent::wire::{BEAT_BYTES, Beat, NodeTag, encode, verify};
use policies::watch::Limits;
use policies::{BootId, Capabilities, Epoch, Heartbeat, LastGasp, MemberId, Millis, Mono, NodeId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use supervisor::ingest::{Command, Counters};
use supervisor::parse::Table;

const NAMES: [&str; 3] = ["n1", "n2", "n3"];
const STEPS_MAX: usize = 200;
const ME: MemberId = MemberId(1);

struct Bench {
    table: Table,
    counters: Arc<Counters>,
    now: Mono,
    /// The keys of the nodes that are enrolled.
    keys: BTreeMap<u64, u8>,
    /// The newest heartbeat that counted, of each.
    newest: BTreeMap<u64, (BootId, u64)>,
    /// The newest inventory that counted, of each.
    told: BTreeMap<u64, (BootId, u64)>,
    /// The newest heartbeat that was answered, of each.
    answered: BTreeMap<u64, (BootId, u64)>,
    sent: Vec<Vec<u8>>,
}

pub(super) fn run(data: &[u8]) -> bool {
    let counters = Arc::new(Counters::default());
    let table = Table::new(Mono(0), Arc::clone(&counters)).answering(ME);
    let (keys, newest, told, answered) = Default::default();
    let mut bench = Bench { table, counters, now: Mono(0), keys, newest, told, answered, sent: vec![] };
    let mut script = Script::new(data);
    bench.enroll(0, 0);
    for _ in 0..STEPS_MAX {
        if script.is_over() {
            break;
        }
        bench.step(&mut script);
    }
    bench.counters.accepted.load(Relaxed) > 0
}

fn key(number: u8) -> Key {
    Key::new([number; 32])
}

impl Bench {
    fn step(&mut self, script: &mut Script<'_>) {
        match script.byte() % 8 {
            0 => {
                let datagram = script.bytes().to_vec();
                self.deliver(&datagram);
            }
            1 => {
                let again = script.pick(&self.sent).cloned().unwrap_or_default();
                self.deliver(&again);
            }
            2 => {
                let sent = self.sent.last().cloned().unwrap_or_default();
                self.deliver(&script.damage(&sent));
            }
            3 => self.enroll(script.byte(), script.byte()),
            4 => self.forget(script.byte()),
            5 => {
                self.now = Mono(self.now.0.saturating_add(u64::from(script.u16()) * 4));
                self.table.tick(self.now);
                self.table.take_news();
            }
            7 => self.inventory(script),
            _ => self.beat(script),
        }
    }

    fn enroll(&mut self, at: u8, key_number: u8) {
        let name = NAMES[usize::from(at) % NAMES.len()];
        let limits = Limits { suspect_after: Millis(2000), write_stale_after: Millis(9000), paths_min: 2 };
        let node: NodeId = name.parse().expect("a name");
        self.table.obey(Command::Enroll { node, key: key(key_number % 4), limits }, self.now);
        self.keys.insert(NodeTag::of(name).0, key_number % 4);
    }

    fn forget(&mut self, at: u8) {
        let name = NAMES[usize::from(at) % NAMES.len()];
        self.table.obey(Command::Forget { node: name.parse().expect("a name") }, self.now);
        self.keys.remove(&NodeTag::of(name).0);
        self.newest.remove(&NodeTag::of(name).0);
        self.told.remove(&NodeTag::of(name).0);
        self.answered.remove(&NodeTag::of(name).0);
    }

    /// A heartbeat that is made as an agent makes it, with this or that key.
    fn beat(&mut self, script: &mut Script<'_>) {
        let (at, key_number, path) = (script.byte(), script.byte(), script.byte());
        let choice = script.byte();
        let last_gasp =
            [None, None, Some(LastGasp::Shutdown), Some(LastGasp::Panic)][usize::from(choice % 4)];
        let write_age = (choice & 4 != 0).then(|| Millis(u64::from(script.u16())));
        let sequence = if choice & 8 != 0 { script.u64() } else { u64::from(script.byte()) };
        let (boot, epoch) = (BootId(u64::from(script.byte() % 8)), Epoch(u64::from(script.byte())));
        let said = Heartbeat { boot, epoch, write_age, last_gasp };
        let node = NodeTag::of(NAMES[usize::from(at) % NAMES.len()]);
        let beat = Beat { node, path, sequence, asks: choice & 16 != 0, said };
        let datagram = encode(&beat, &key(key_number % 4)).to_vec();
        self.deliver(&datagram);
        self.sent.push(datagram);
    }

    /// An inventory as an agent makes it, or with content that no agent would make.
    fn inventory(&mut self, script: &mut Script<'_>) {
        let (at, key_number, sequence) = (script.byte(), script.byte(), u64::from(script.byte()));
        let boot = BootId(u64::from(script.byte() % 8));
        let node = NodeTag::of(NAMES[usize::from(at) % NAMES.len()]);
        let found = Capabilities { cpus: Some(u32::from(script.byte())), ..Capabilities::default() };
        let told = Inventory { node, boot, sequence, found };
        let datagram = inventory::encode(&told, &key(key_number % 4)).expect("it is short");
        self.deliver(&datagram);
        self.sent.push(datagram);
    }

    fn total(&self) -> u64 {
        self.counters.totals().iter().map(|(_, count)| count).sum()
    }

    /// Every datagram moves one counter; one that counts is new, whole, and of an enrolled node.
    fn deliver(&mut self, datagram: &[u8]) {
        let before = (self.total(), self.counters.accepted.load(Relaxed));
        self.table.datagram(datagram, self.now);
        if let Some(batch) = self.table.take_news() {
            batch.found.iter().for_each(|(node, found)| self.found(datagram, node, found));
        }
        assert_eq!(self.total(), before.0 + 1, "a datagram moves exactly one counter");
        let accepted = self.counters.accepted.load(Relaxed) > before.1;
        for number in 0..4 {
            let Ok(beat) = verify(datagram, &key(number)) else { continue };
            assert_eq!(encode(&beat, &key(number))[..], *datagram, "a heartbeat has one form");
        }
        let answer = self.table.take_answer();
        if !accepted && answer.is_none() {
            return;
        }
        assert_eq!(datagram.len(), BEAT_BYTES, "a heartbeat of another length counted");
        let beat = self.keys.iter().find_map(|(tag, number)| {
            verify(datagram, &key(*number)).ok().filter(|beat| beat.node.0 == *tag)
        });
        let beat = beat.expect("what counted was not made with the key of the node that it names");
        let this = (beat.said.boot, beat.sequence);
        if let Some(answer) = answer {
            self.answer(&beat, &answer);
        }
        if !accepted {
            assert_eq!(self.newest.get(&beat.node.0), Some(&this), "what is not the newest was answered");
            return;
        }
        let newest = self.newest.insert(beat.node.0, this);
        let replayed = newest.is_some_and(|(boot, sequence)| boot == this.0 && sequence >= this.1);
        assert!(!replayed, "a heartbeat that is not newer than the newest counted");
    }

    /// An answer is to a heartbeat that asked, says which, was not given before, and is no heartbeat.
    fn answer(&mut self, beat: &Beat, datagram: &[u8; BEAT_BYTES]) {
        assert!(beat.asks, "nobody asked");
        let key = key(*self.keys.get(&beat.node.0).expect("an answer to a node that is not enrolled"));
        assert_eq!(answer::verify(datagram, &key), Some(answer::Answer::to(beat, ME)));
        assert!(verify(datagram, &key).is_err(), "an answer passes for a heartbeat");
        let this = (beat.said.boot, beat.sequence);
        assert_ne!(self.answered.insert(beat.node.0, this), Some(this), "a heartbeat was answered twice");
    }

    /// Hardware that counts is of the node that told it, of the life that is heard, and newer than what counted before.
    fn found(&mut self, datagram: &[u8], node: &NodeId, found: &Capabilities) {
        let tag = NodeTag::of(node.as_str());
        let key = key(*self.keys.get(&tag.0).expect("hardware of a node that is not enrolled"));
        let told = inventory::verify(datagram, &key).expect("hardware that its node did not tell");
        assert_eq!((told.node, &told.found), (tag, found), "hardware of another node, or other hardware");
        let heard = self.newest.get(&tag.0).map(|(boot, _)| *boot);
        assert_eq!(heard, Some(told.boot), "hardware of a life that is not heard");
        let newest = self.told.insert(tag.0, (told.boot, told.sequence));
        let replayed = newest.is_some_and(|(boot, sequence)| boot == told.boot && sequence >= told.sequence);
        assert!(!replayed, "hardware that is not newer than the newest counted");
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let beat = |sequence: u8, boot: u8| [6, 0, 0, 1, 0, sequence, boot, 2];
    let gasp = [6, 0, 0, 0, 6, 9, 1, 7, 1, 2];
    let other_key = [3, 0, 1, 6, 0, 1, 0, 0, 8, 1, 1];
    let told = [7, 0, 0, 2, 1, 64, 1, 3, 7, 0, 0, 3, 1, 32, 7, 0, 0, 9, 2, 16];
    let raw = encode(
        &Beat {
            node: NodeTag::of("n1"),
            path: 0,
            sequence: 5,
            asks: true,
            said: Heartbeat { boot: BootId(3), epoch: Epoch(1), write_age: Some(Millis(7)), last_gasp: None },
        },
        &key(0),
    );
    vec![
        [&beat(1, 1)[..], &beat(2, 1), &[1, 0, 1, 1], &beat(3, 2), &told].concat(),
        [&beat(1, 1)[..], &[5, 0, 8], &beat(1, 2), &beat(9, 1), &gasp].concat(),
        [&beat(1, 1)[..], &[2, 9, 0, 1], &other_key, &[4, 0], &beat(3, 1)].concat(),
        [&[0, 64][..], &raw, &[1, 0], &[3, 1, 0, 6, 1, 0, 0, 0, 1, 1, 1]].concat(),
        [6, 0, 0, 0, 8, 255, 255, 255, 255, 255, 255, 255, 255, 1, 1].to_vec(),
    ]
}
