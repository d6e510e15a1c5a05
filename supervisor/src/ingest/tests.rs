//! The ingest with real datagrams on the loopback.

use super::*;
use ha_agent::answer::{self, Answer};
use ha_agent::inventory::Inventory;
use ha_agent::wire::{Beat, encode};
use policies::{BootId, Epoch, Heartbeat, LastGasp, Millis};
use std::future::Future;
use std::net::UdpSocket as Sender;
use std::time::Instant;

const DEADLINE: Duration = Duration::from_secs(10);
/// So long that silence plays no part in a test.
const PATIENT: Limits =
    Limits { suspect_after: Millis(3_600_000), write_stale_after: Millis(u64::MAX), paths_min: 1 };

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn key(of: u8) -> Key {
    Key::new([of; 32])
}

fn beat(name: &str, boot: u64, sequence: u64) -> Beat {
    let said = Heartbeat { boot: BootId(boot), epoch: Epoch(1), write_age: None, last_gasp: None };
    Beat { node: NodeTag::of(name), path: 0, sequence, asks: false, said }
}

fn heard(name: &str, boot: u64) -> (NodeId, Change) {
    (node(name), Change::Heard { boot: BootId(boot), epoch: Epoch(1) })
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("it did not happen before the deadline")
}

/// A running ingest and someone who sends to it.
struct Rig {
    sender: Sender,
    commands: mpsc::Sender<Command>,
    batches: mpsc::Receiver<Batch>,
    counters: Arc<Counters>,
    ingest: tokio::task::JoinHandle<Result<(), IngestError>>,
}

impl Rig {
    fn start(batches_max: usize) -> Rig {
        let counters = Arc::new(Counters::default());
        let ingest = Ingest::bind("127.0.0.1:0".parse().unwrap(), counters.clone()).unwrap();
        let ingest = ingest.answering(MemberId(3));
        let sender = Sender::bind("127.0.0.1:0").unwrap();
        sender.connect(ingest.local_addr()).unwrap();
        let (commands, obeyed) = mpsc::channel(8);
        let (noticed, batches) = mpsc::channel(batches_max);
        let ingest = tokio::spawn(ingest.run(obeyed, noticed));
        Rig { sender, commands, batches, counters, ingest }
    }

    async fn enroll(&self, name: &str, key_of: u8, limits: Limits) {
        let enroll = Command::Enroll { node: node(name), key: key(key_of), limits };
        self.commands.send(enroll).await.unwrap();
        // Commands are obeyed in order: once the snapshot is there, the node is enrolled.
        assert!(self.snapshot().await.contains_key(&node(name)));
    }

    async fn snapshot(&self) -> BTreeMap<NodeId, Option<Seen>> {
        let (answer, asked) = oneshot::channel();
        self.commands.send(Command::Snapshot(answer)).await.unwrap();
        soon(asked).await.unwrap()
    }

    fn send(&self, beat: &Beat, key_of: u8) {
        self.sender.send(&encode(beat, &key(key_of))).unwrap();
    }

    /// The next changes, up to and with one of this node. Datagrams of one sender are read in the order of sending,
    /// so all that was sent before it has been dealt with.
    async fn changes_until(&mut self, name: &str) -> Vec<(NodeId, Change)> {
        let mut changes = vec![];
        while changes.iter().all(|(who, _)| *who != node(name)) {
            changes.extend(soon(self.batches.recv()).await.expect("the ingest ended").changes);
        }
        changes
    }

    fn counted(&self) -> [u64; 8] {
        self.counters.totals().map(|(_, total)| total)
    }
}

#[tokio::test]
async fn each_bad_datagram_moves_its_counter_and_nothing_else() {
    let mut rig = Rig::start(8);
    rig.enroll("n1", 1, PATIENT).await;
    rig.enroll("last", 2, PATIENT).await;
    rig.send(&beat("n1", 7, 100), 1);
    assert_eq!(rig.changes_until("n1").await, [heard("n1", 7)]);
    let before = rig.snapshot().await;

    let good = encode(&beat("n1", 7, 101), &key(1));
    rig.sender.send(&[]).unwrap();
    rig.sender.send(&good[..63]).unwrap();
    rig.sender.send(&[good.as_slice(), &[0]].concat()).unwrap();
    rig.sender.send(&[good.as_slice(), &[0; 1400]].concat()).unwrap();
    rig.sender.send(&[0xff; 64]).unwrap();
    let mut other_version = good;
    other_version[3] = 2;
    rig.sender.send(&other_version).unwrap();
    let forged =
        Beat { said: Heartbeat { last_gasp: Some(LastGasp::Panic), ..good_said() }, ..beat("n1", 7, 102) };
    rig.send(&forged, 2);
    let mut changed = good;
    changed[32] ^= 1;
    rig.sender.send(&changed).unwrap();
    rig.send(&beat("stranger", 1, 1), 1);
    rig.send(&Beat { path: 1, ..beat("n1", 7, 100) }, 1);
    rig.send(&beat("n1", 7, 99), 1);
    rig.send(&beat("n1", 8, 500), 1);
    rig.send(&beat("last", 9, 1), 2);

    assert_eq!(rig.changes_until("last").await, [heard("last", 9)]);
    assert_eq!(rig.counted(), [2, 1, 1, 1, 2, 1, 6, 0]);
    assert_eq!(rig.snapshot().await[&node("n1")], before[&node("n1")]);
}

fn good_said() -> Heartbeat {
    beat("n1", 7, 1).said
}

#[test]
fn a_copy_over_another_path_shows_that_this_path_works() {
    let mut table = Table::new(Mono(0), Arc::default());
    let limits = Limits { suspect_after: Millis(500), paths_min: 2, ..PATIENT };
    table.obey(Command::Enroll { node: node("n1"), key: key(1), limits }, Mono(0));
    let mut hear = |now: u64, paths: std::ops::Range<u8>| {
        for path in paths {
            table.datagram(&encode(&Beat { path, ..beat("n1", 7, now) }, &key(1)), Mono(now));
        }
        table.take_news().map(|batch| batch.changes).unwrap_or_default()
    };
    assert_eq!(hear(1000, 0..2), [heard("n1", 7)]);
    assert_eq!(hear(1500, 0..2), []);
    assert_eq!(hear(1750, 0..1), []);
    assert_eq!(hear(2000, 0..1), [], "the second path was heard at the beginning of this round");
    let few = Change::PathsFew(policies::FewPaths { heard: 1, wanted: 2 });
    assert_eq!(hear(2500, 0..1), [(node("n1"), few)]);
    assert_eq!(hear(2600, 0..2), []);
    assert_eq!(hear(3000, 0..2), [(node("n1"), Change::PathsEnough)]);
}

#[tokio::test]
async fn silence_is_told_after_the_deadline_and_a_heartbeat_ends_it() {
    let mut rig = Rig::start(8);
    let limits = Limits { suspect_after: Millis(120), ..PATIENT };
    rig.enroll("n1", 1, limits).await;
    rig.send(&beat("n1", 7, 1), 1);
    assert_eq!(rig.changes_until("n1").await, [heard("n1", 7)]);
    let batch = soon(rig.batches.recv()).await.unwrap();
    let [(who, Change::Silent { since })] = batch.changes.as_slice() else { panic!("{batch:?}") };
    assert_eq!(who, &node("n1"));
    assert!(batch.at.since(*since) >= Millis(120), "{batch:?}");
    rig.send(&beat("n1", 7, 2), 1);
    assert_eq!(rig.changes_until("n1").await, [heard("n1", 7)]);

    rig.enroll("n2", 2, limits).await;
    let changes = rig.changes_until("n2").await;
    assert!(matches!(changes.last(), Some((_, Change::NeverHeard { .. }))), "{changes:?}");
}

#[tokio::test]
async fn heartbeats_that_waited_through_a_stall_of_the_member_are_not_silence() {
    let mut rig = Rig::start(8);
    rig.enroll("n1", 1, Limits { suspect_after: Millis(200), ..PATIENT }).await;
    rig.enroll("last", 2, PATIENT).await;
    rig.send(&beat("n1", 7, 1), 1);
    assert_eq!(rig.changes_until("n1").await, [heard("n1", 7)]);
    // This runtime has one thread, and nothing here awaits: the ingest stands still, its socket does not.
    let (start, mut sequence) = (Instant::now(), 1);
    while start.elapsed() < Duration::from_millis(500) {
        if start.elapsed() > Duration::from_millis(50 * sequence) {
            sequence += 1;
            rig.send(&beat("n1", 7, sequence), 1);
        }
        std::hint::spin_loop();
    }
    rig.send(&beat("last", 9, 1), 2);
    assert_eq!(rig.changes_until("last").await, [heard("last", 9)]);
}

#[tokio::test]
async fn a_forgotten_node_is_unknown_and_its_place_starts_anew() {
    let mut rig = Rig::start(8);
    rig.enroll("n1", 1, PATIENT).await;
    rig.send(&beat("n1", 7, 100), 1);
    assert_eq!(rig.changes_until("n1").await, [heard("n1", 7)]);
    rig.commands.send(Command::Forget { node: node("n1") }).await.unwrap();
    rig.enroll("n2", 2, PATIENT).await;
    rig.send(&beat("n1", 7, 101), 1);
    rig.send(&beat("n2", 3, 1), 2);
    assert_eq!(rig.changes_until("n2").await, [heard("n2", 3)]);
    assert_eq!(rig.counted(), [2, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(rig.snapshot().await.keys().collect::<Vec<_>>(), [&node("n2")]);
}

#[tokio::test]
async fn a_node_enrolled_again_keeps_what_was_heard_and_takes_the_new_key() {
    let mut rig = Rig::start(8);
    rig.enroll("n1", 1, PATIENT).await;
    rig.send(&beat("n1", 7, 100), 1);
    assert_eq!(rig.changes_until("n1").await, [heard("n1", 7)]);
    rig.enroll("n1", 2, PATIENT).await;
    assert!(rig.snapshot().await[&node("n1")].is_some());
    rig.send(&beat("n1", 7, 101), 1);
    let next = Beat { said: Heartbeat { epoch: Epoch(2), ..good_said() }, ..beat("n1", 7, 102) };
    rig.send(&next, 2);
    let expected = (node("n1"), Change::Heard { boot: BootId(7), epoch: Epoch(2) });
    assert_eq!(rig.changes_until("n1").await, [expected]);
    assert_eq!(rig.counted(), [2, 0, 0, 0, 1, 0, 0, 0]);
}

fn hardware(cpus: u32) -> Box<Capabilities> {
    Box::new(Capabilities { cpus: Some(cpus), ..Capabilities::default() })
}

fn inventory(name: &str, boot: u64, sequence: u64, cpus: u32) -> Vec<u8> {
    let found = *hardware(cpus);
    let told = Inventory { node: NodeTag::of(name), boot: BootId(boot), sequence, found };
    ha_agent::inventory::encode(&told, &key(1)).unwrap()
}

#[tokio::test]
async fn an_inventory_is_taken_once_of_the_life_that_is_heard() {
    let mut rig = Rig::start(8);
    rig.enroll("n1", 1, PATIENT).await;
    let send = |datagram: &[u8]| rig.sender.send(datagram).unwrap();
    // Nothing was heard yet; then of another life, older than the newest, once more, of a stranger, changed, cut.
    send(&inventory("n1", 7, 90, 1));
    rig.send(&beat("n1", 7, 100), 1);
    let good = inventory("n1", 7, 101, 64);
    send(&good);
    send(&inventory("n1", 6, 200, 2));
    send(&inventory("n1", 7, 99, 3));
    send(&good);
    send(&inventory("n2", 7, 102, 4));
    let mut changed = good.clone();
    changed[40] ^= 1;
    send(&changed);
    send(&good[..20]);
    send(&[good.as_slice(), &[0; 1400]].concat());
    send(&inventory("n1", 7, 103, 32));
    let mut found = vec![];
    while found.len() < 2 {
        found.extend(soon(rig.batches.recv()).await.unwrap().found);
    }
    assert_eq!(found, [(node("n1"), hardware(64)), (node("n1"), hardware(32))]);
    assert_eq!(rig.counted(), [1, 1, 1, 2, 1, 1, 2, 2]);
}

#[tokio::test]
async fn a_slow_receiver_loses_no_change_and_does_not_stop_the_commands() {
    let mut rig = Rig::start(1);
    rig.enroll("n1", 1, PATIENT).await;
    let rounds = 40;
    for epoch in 1..=rounds {
        let said = Heartbeat { epoch: Epoch(epoch), ..good_said() };
        rig.send(&Beat { said, ..beat("n1", 7, epoch) }, 1);
        // Gives the ingest a turn, so that the changes come in many batches; it answers though nobody takes them.
        rig.snapshot().await;
    }
    let mut epochs = vec![];
    while epochs.len() < 40 {
        for (_, change) in rig.changes_until("n1").await {
            let Change::Heard { epoch, .. } = change else { panic!("{change:?}") };
            epochs.push(epoch.0);
        }
    }
    assert_eq!(epochs, (1..=rounds).collect::<Vec<_>>());
    drop(rig.commands);
    soon(rig.ingest).await.unwrap().unwrap();
}

#[test]
fn a_gap_that_is_no_news_is_told_only_to_a_recorder() {
    for wanted in [false, true] {
        let mut table = Table::new(Mono(0), Arc::default());
        table.gaps = wanted.then(Vec::new);
        let limits = Limits { suspect_after: Millis(2000), ..PATIENT };
        table.obey(Command::Enroll { node: node("n1"), key: key(7), limits }, Mono(0));
        for (sequence, at) in [(1, 100), (2, 1500), (3, 1900)] {
            table.datagram(&encode(&beat("n1", 1, sequence), &key(7)), Mono(at));
        }
        let gaps = if wanted { vec![(node("n1"), Millis(1400))] } else { vec![] };
        assert_eq!(table.take_gaps(), gaps);
        assert_eq!(table.take_news().map(|batch| batch.changes.len()), Some(1));
    }
}

#[test]
fn the_first_copy_that_asks_is_answered_and_nothing_that_was_answered_before() {
    let mut table = Table::new(Mono(0), Arc::default()).answering(MemberId(3));
    table.obey(Command::Enroll { node: node("n1"), key: key(1), limits: PATIENT }, Mono(0));
    let mut answer = |sequence: u64, path: u8, asks: bool, boot: u64, key_of: u8| {
        let beat = Beat { path, asks, ..beat("n1", boot, sequence) };
        table.datagram(&encode(&beat, &key(key_of)), Mono(1));
        let said = answer::verify(&table.take_answer()?, &key(1)).expect("an answer that the node believes");
        assert_eq!(said, Answer { member: MemberId(3), node: beat.node, boot: BootId(boot), sequence });
        Some(sequence)
    };
    assert_eq!(answer(10, 0, true, 7, 1), Some(10));
    assert_eq!(answer(10, 0, true, 7, 1), None, "once more");
    assert_eq!(answer(11, 0, false, 7, 1), None, "this path does not ask");
    assert_eq!(answer(11, 1, true, 7, 1), Some(11), "the copy over the other path does");
    assert_eq!(answer(11, 2, true, 7, 1), None, "one answer is enough");
    assert_eq!(answer(10, 0, true, 7, 1), None, "a replay");
    assert_eq!(answer(12, 0, true, 7, 2), None, "forged");
    assert_eq!(answer(13, 0, true, 6, 1), None, "another life");
    assert_eq!(answer(12, 0, true, 7, 1), Some(12));

    let mut silent = Table::new(Mono(0), Arc::default());
    silent.obey(Command::Enroll { node: node("n1"), key: key(1), limits: PATIENT }, Mono(0));
    silent.datagram(&encode(&Beat { asks: true, ..beat("n1", 7, 1) }, &key(1)), Mono(1));
    assert_eq!(silent.take_answer(), None, "it has no name to answer in");
}

#[tokio::test]
async fn an_answer_goes_where_the_heartbeat_came_from() {
    let rig = Rig::start(8);
    rig.enroll("n1", 1, PATIENT).await;
    let asking = |sequence| Beat { asks: true, ..beat("n1", 7, sequence) };
    let other = Sender::bind("127.0.0.1:0").unwrap();
    for (sender, sequence) in [(&rig.sender, 100), (&other, 101)] {
        sender.set_nonblocking(true).unwrap();
        let to = rig.sender.peer_addr().unwrap();
        let sender = UdpSocket::from_std(sender.try_clone().unwrap()).unwrap();
        sender.send_to(&encode(&asking(sequence), &key(1)), to).await.unwrap();
        let mut buffer = [0; 100];
        let (length, from) = soon(sender.recv_from(&mut buffer)).await.unwrap();
        assert_eq!((length, from), (BEAT_BYTES, to));
        let expected = Answer::to(&asking(sequence), MemberId(3));
        assert_eq!(answer::verify(&buffer[..length], &key(1)), Some(expected));
    }
    assert_eq!(rig.counters.answered.totals(), [("sent", 2), ("dropped", 0)]);
    assert_eq!(rig.counted(), [2, 0, 0, 0, 0, 0, 0, 0]);
}
