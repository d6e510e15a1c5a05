//! Tests of what is on disk: openraft's own suite, reopening, damage, the exact bytes, and `kill -9`.

use crate::disk::DiskError;
use crate::history;
use crate::identity::{self, Home, OpenError};
use crate::log::Log;
use crate::machine::Machine;
use crate::seal;
use crate::types::{Address, Content, LogEntry, LogId, Members, SnapshotHead, Types, Vote};
use openraft::storage::RaftLogStorage;
use openraft::testing::{StoreBuilder, Suite};
use openraft::{RaftLogReader, StorageError};
use policies::{Command, MemberId, Millis, Proposal, Wall};
use redb::ReadableTable;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

const ME: MemberId = MemberId(3);
const CLUSTER: &str = "test";

fn open(dir: &Path) -> Home {
    identity::open(dir, ME, CLUSTER).unwrap()
}

fn id(term: u64, index: u64) -> LogId {
    LogId { term, member: 3, index }
}

fn note(text: &str) -> Proposal {
    Proposal { at: Wall(1_790_000_000_000), by: "ann".into(), command: Command::Note { text: text.into() } }
}

fn entry(index: u64, text: &str) -> LogEntry {
    LogEntry { id: id(1, index), content: Content::Proposal(note(text)) }
}

struct Builder;

impl StoreBuilder<Types, Log, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, Log, Machine), StorageError<u64>> {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(open(dir.path()).disk);
        let (_history, recorder) = history::open(dir.path().join("history"), Millis::secs(86_400));
        let (events, _receiver) = tokio::sync::mpsc::unbounded_channel();
        let machine = Machine::open(Arc::clone(&disk), events, recorder).unwrap();
        Ok((dir, Log { me: ME.0, disk }, machine))
    }
}

#[test]
fn openrafts_own_suite_passes() {
    Suite::test_all(Builder).unwrap();
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let vote = Vote { term: 4, member: 1, committed: true };
    let head = SnapshotHead { last: Some(id(1, 2)), members_at: None, members: members(), id: "s".into() };
    let data = seal::seal(&policies::ClusterState::default()).unwrap();
    let home = open(dir.path());
    assert!(home.fresh);
    let entries: Vec<_> = (0..6).map(|index| entry(index, &format!("note {index}"))).collect();
    home.disk.append(&entries).await.unwrap();
    home.disk.save_vote(vote).await.unwrap();
    home.disk.save_snapshot(&head, data.clone()).await.unwrap();
    home.disk.purge(id(1, 1)).await.unwrap();
    home.disk.truncate(5).await.unwrap();
    home.disk.save_committed(Some(id(1, 3))).await.unwrap();
    home.disk.save_acquaintances(&BTreeMap::from([(1, 17)])).await.unwrap();
    let store = home.identity.store;
    home.disk.close();
    assert!(matches!(home.disk.vote(), Err(DiskError::Closed)));
    drop(home);

    let home = open(dir.path());
    assert!(!home.fresh);
    assert_eq!(home.identity.store, store);
    assert_eq!(home.disk.entries(0, 100, usize::MAX).unwrap(), entries[2..5]);
    let bounds = home.disk.bounds().unwrap();
    assert_eq!((bounds.purged, bounds.last), (Some(id(1, 1)), Some(id(1, 4))));
    assert_eq!(home.disk.vote().unwrap(), Some(vote));
    assert_eq!(home.disk.snapshot().unwrap(), Some((head, data)));
    assert_eq!(home.disk.committed().unwrap(), Some(id(1, 3)));
    assert_eq!(home.disk.acquaintances().unwrap(), BTreeMap::from([(1, 17)]));
}

/// Seed 2700 of the simulator: a build that took long replaced the snapshot that the leader had sent meanwhile, the log
/// was purged up to that one, and the member could never start again.
#[tokio::test]
async fn an_older_snapshot_does_not_replace_a_newer_one() {
    let dir = tempfile::tempdir().unwrap();
    let home = open(dir.path());
    let head = |index| SnapshotHead {
        last: Some(id(1, index)),
        members_at: None,
        members: members(),
        id: "s".into(),
    };
    home.disk.save_snapshot(&head(7), b"installed".to_vec()).await.unwrap();
    home.disk.purge(id(1, 7)).await.unwrap();
    home.disk.save_snapshot(&head(4), b"built".to_vec()).await.unwrap();
    assert_eq!(home.disk.snapshot().unwrap(), Some((head(7), b"installed".to_vec())));
    home.disk.save_snapshot(&head(9), b"next".to_vec()).await.unwrap();
    assert_eq!(home.disk.snapshot().unwrap(), Some((head(9), b"next".to_vec())));
}

#[tokio::test]
async fn a_call_takes_entries_up_to_its_size_but_never_none() {
    let dir = tempfile::tempdir().unwrap();
    let home = open(dir.path());
    let entries: Vec<_> = (0..3).map(|index| entry(index, &"x".repeat(1000))).collect();
    home.disk.append(&entries).await.unwrap();
    let count = |bytes_max| home.disk.entries(0, 3, bytes_max).unwrap().len();
    assert_eq!((count(1), count(2500), count(1 << 20)), (1, 2, 3));
}

#[tokio::test]
async fn our_own_committed_vote_comes_back_uncommitted_and_anybody_elses_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(open(dir.path()).disk);
    let mut log = Log { me: ME.0, disk: Arc::clone(&disk) };
    disk.save_vote(Vote { term: 7, member: ME.0, committed: true }).await.unwrap();
    assert_eq!(log.read_vote().await.unwrap(), Some(openraft::Vote::new(7, ME.0)));
    disk.save_vote(Vote { term: 8, member: 1, committed: true }).await.unwrap();
    assert_eq!(log.read_vote().await.unwrap(), Some(openraft::Vote::new_committed(8, 1)));
}

#[test]
fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let home = open(dir.path());
    let error = identity::open(dir.path(), ME, CLUSTER).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    // A child process that is being started holds a copy of every file until its exec; the next owner need not wait.
    let copy_of_a_child = home.lock.as_ref().unwrap().0.try_clone().unwrap();
    drop(home);
    drop(open(dir.path()));
    drop(copy_of_a_child);
    // The lock counts even while there is no store to lock: two first starts must not both make one.
    std::fs::remove_file(dir.path().join("raft.redb")).unwrap();
    std::fs::remove_file(dir.path().join("member")).unwrap();
    let other = std::fs::File::open(dir.path().join("lock")).unwrap();
    other.lock().unwrap();
    let error = identity::open(dir.path(), ME, CLUSTER).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    drop(other);
    assert!(open(dir.path()).fresh);
}

#[test]
fn a_store_that_is_gone_is_an_error_that_says_what_to_do_and_not_an_empty_start() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    std::fs::remove_file(dir.path().join("raft.redb")).unwrap();
    let error = identity::open(dir.path(), ME, CLUSTER).unwrap_err();
    assert!(matches!(error, OpenError::Missing { .. }), "{error}");
    assert!(error.to_string().contains("hactl member remove m3"), "{error}");
    assert!(!dir.path().join("raft.redb").exists());
}

#[test]
fn a_creation_that_was_cut_short_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("raft.redb.new"), b"half a store").unwrap();
    assert!(open(dir.path()).fresh);
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    for (member, cluster) in [(MemberId(4), CLUSTER), (ME, "other")] {
        let error = identity::open(dir.path(), member, cluster).unwrap_err();
        assert!(matches!(error, OpenError::NotOurs { .. }), "{error}");
    }
}

/// Changes the store behind our back.
fn tamper(dir: &Path, change: impl FnOnce(&redb::WriteTransaction)) {
    let db = redb::Database::open(dir.join("raft.redb")).unwrap();
    let transaction = db.begin_write().unwrap();
    change(&transaction);
    transaction.commit().unwrap();
}

const LOG: redb::TableDefinition<'_, [u8; 8], &[u8]> = redb::TableDefinition::new("log");
const META: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("meta");

async fn damage(change: impl FnOnce(&redb::WriteTransaction)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let home = open(dir.path());
    home.disk.append(&[entry(0, "a"), entry(1, "b"), entry(2, "c")]).await.unwrap();
    home.disk.close();
    drop(home);
    tamper(dir.path(), change);
    let error = identity::open(dir.path(), ME, CLUSTER).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("hactl member remove m3"), "{text}");
    text
}

#[tokio::test]
async fn damage_is_found_at_opening_and_named() {
    let flip = |transaction: &redb::WriteTransaction| {
        let mut log = transaction.open_table(LOG).unwrap();
        let mut record = log.get(1_u64.to_be_bytes()).unwrap().unwrap().value().to_vec();
        record[20] ^= 1;
        log.insert(1_u64.to_be_bytes(), record.as_slice()).unwrap();
    };
    let text = damage(flip).await;
    assert!(text.contains("log entry 1 is damaged: its checksum is"), "{text}");

    let hole = |transaction: &redb::WriteTransaction| {
        transaction.open_table(LOG).unwrap().remove(1_u64.to_be_bytes()).unwrap();
    };
    let text = damage(hole).await;
    assert!(text.contains("the log has a hole: expected entry 1, found 2"), "{text}");

    let newer = |transaction: &redb::WriteTransaction| {
        transaction.open_table(META).unwrap().insert("vote", [9_u8; 8].as_slice()).unwrap();
    };
    let text = damage(newer).await;
    assert!(text.contains("\"vote\" is damaged: it was written in version 9"), "{text}");

    let purged = |transaction: &redb::WriteTransaction| {
        let record = seal::seal(&id(1, 2)).unwrap();
        transaction.open_table(META).unwrap().insert("purged", record.as_slice()).unwrap();
    };
    let text = damage(purged).await;
    assert!(text.contains("but the snapshot reaches only None"), "{text}");
}

/// A vote that is not found can be given twice. The damage is in redb's own page, where no checksum of ours looks.
#[tokio::test]
async fn a_vote_whose_name_is_damaged_is_not_a_vote_that_was_never_given() {
    let dir = tempfile::tempdir().unwrap();
    let home = open(dir.path());
    home.disk.save_vote(Vote { term: 4, member: 1, committed: true }).await.unwrap();
    home.disk.close();
    drop(home);
    let path = dir.path().join("raft.redb");
    let mut file = std::fs::read(&path).unwrap();
    let places: Vec<_> = (0..file.len() - 4).filter(|at| file[*at..].starts_with(b"vote")).collect();
    assert!(!places.is_empty());
    places.into_iter().for_each(|at| file[at] ^= 1);
    std::fs::write(&path, file).unwrap();
    let error = identity::open(dir.path(), ME, CLUSTER).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

#[test]
fn a_file_that_is_no_store_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    std::fs::write(dir.path().join("raft.redb"), vec![0x55; 8192]).unwrap();
    let error = identity::open(dir.path(), ME, CLUSTER).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

fn members() -> Members {
    let address = |n: u32| Address { peer: format!("10.0.0.{n}:7800"), api: format!("10.0.0.{n}:7801") };
    Members {
        voters: vec![BTreeSet::from([1, 2]), BTreeSet::from([1, 3])],
        addresses: (1_u32..4).map(|n| (u64::from(n), address(n))).collect(),
    }
}

/// A leader's record of a node's hardware, with every word that hardware has.
fn discover() -> LogEntry {
    let found = r#"{"cpu_arch":"x86_64","cpu_model":"AMD EPYC 9354","cpus":64,"memory":"384GiB","disks":[{"type":"nvme",
        "size":"3840GB","count":4},{"type":"ssd","size":"480GB"},{"type":"hdd","size":"4TB"}],"nics":[{"speed":"25Gbps",
        "count":2,"rdma":"roce"},{"speed":"200Gbps","rdma":"infiniband"},{"speed":"2500Mbps"}],"gpus":[{"pci":"10de:2330"}],
        "boot_mode":"uefi","firmware":"2.19.1","bios_profile":"low-latency","traits":["CUSTOM_FPGA"],
        "resource_class":"baremetal.gold"}"#;
    let found = Box::new(serde_json::from_str(found).unwrap());
    let step = policies::Step::Discover { node: "n1".parse().unwrap(), found };
    let command = policies::Command::Lead { leader: policies::LeaderEpoch(40), step };
    let proposal = Proposal { at: policies::Wall(1_790_000_000_000), by: "member/m3".to_owned(), command };
    LogEntry { id: id(7, 45), content: Content::Proposal(proposal) }
}

/// An operator's forced deletion.
fn forced_deletion() -> LogEntry {
    let what = policies::Object::Node("s1".parse().unwrap());
    let order = Box::new(policies::Command::Delete { what, reason: "scrapped".to_owned() });
    let command =
        policies::Command::Forced { order, gaps: vec!["instance/web: there is no spare".to_owned()] };
    let proposal = Proposal { at: policies::Wall(1_790_000_000_000), by: "ann".to_owned(), command };
    LogEntry { id: id(7, 46), content: Content::Proposal(proposal) }
}

/// What an operator does to a node by hand.
fn by_hand() -> LogEntry {
    let (node, reason) = ("n1".parse().unwrap(), "it hangs".to_owned());
    let command = policies::Command::ByHand { node, hand: policies::Hand::Interrupt, reason };
    let proposal = Proposal { at: policies::Wall(1_790_000_000_000), by: "ann".to_owned(), command };
    LogEntry { id: id(7, 47), content: Content::Proposal(proposal) }
}

/// A backup that an operator orders.
fn backup() -> LogEntry {
    let (instance, reason) = ("web".parse().unwrap(), "before the upgrade".to_owned());
    let command = policies::Command::Backup { instance, reason };
    let proposal = Proposal { at: policies::Wall(1_790_000_000_000), by: "ann".to_owned(), command };
    LogEntry { id: id(7, 48), content: Content::Proposal(proposal) }
}

/// What the leader records of it before it keeps a volume.
fn keep() -> LogEntry {
    let action = policies::Action::Snapshot {
        node: "n1".parse().unwrap(),
        provider: "cloud".parse().unwrap(),
        volume: "vol-web".parse().unwrap(),
        name: "ha-b48".parse().unwrap(),
        keep: 3,
    };
    let step = policies::Step::Keep { instance: "web".parse().unwrap(), action };
    let command = policies::Command::Lead { leader: policies::LeaderEpoch(40), step };
    let proposal = Proposal { at: policies::Wall(1_790_000_000_000), by: "member/m3".to_owned(), command };
    LogEntry { id: id(7, 49), content: Content::Proposal(proposal) }
}

/// What is on disk today must be readable for ever. To see why a line changed, read it: it is JSON behind five bytes.
#[test]
fn the_bytes_on_disk_do_not_change() {
    let records: [(&str, Vec<u8>); 11] = [
        ("vote", seal::seal(&Vote { term: 7, member: 3, committed: true }).unwrap()),
        ("purged", seal::seal(&id(7, 41)).unwrap()),
        ("blank", seal::seal(&LogEntry { id: id(7, 42), content: Content::Blank }).unwrap()),
        ("members", seal::seal(&LogEntry { id: id(7, 43), content: Content::Members(members()) }).unwrap()),
        ("proposal", seal::seal(&entry(44, "a remark")).unwrap()),
        (
            "head",
            seal::seal(&SnapshotHead {
                last: Some(id(7, 44)),
                members_at: Some(id(7, 43)),
                members: members(),
                id: "7-3-44".into(),
            })
            .unwrap(),
        ),
        ("discover", seal::seal(&discover()).unwrap()),
        ("delete", seal::seal(&forced_deletion()).unwrap()),
        ("by_hand", seal::seal(&by_hand()).unwrap()),
        ("backup", seal::seal(&backup()).unwrap()),
        ("keep", seal::seal(&keep()).unwrap()),
    ];
    let escape = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let found: String = records.iter().map(|(name, bytes)| format!("{name} {}\n", escape(bytes))).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/records.txt");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    assert_eq!(
        found,
        std::fs::read_to_string(&path).unwrap(),
        "run with UPDATE_EXPECT=1 and read the difference"
    );
    assert_eq!(seal::open::<LogEntry>(&records[4].1).unwrap(), entry(44, "a remark"));
    assert_eq!(seal::open::<LogEntry>(&records[6].1).unwrap(), discover());
    assert_eq!(seal::open::<LogEntry>(&records[7].1).unwrap(), forced_deletion());
    assert_eq!(seal::open::<LogEntry>(&records[8].1).unwrap(), by_hand());
    assert_eq!(seal::open::<LogEntry>(&records[9].1).unwrap(), backup());
    assert_eq!(seal::open::<LogEntry>(&records[10].1).unwrap(), keep());
    assert_eq!(seal::open::<LogEntry>(&records[3].1).unwrap().content, Content::Members(members()));
}

#[tokio::test]
async fn the_log_is_read_by_any_range() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(open(dir.path()).disk);
    disk.append(&(0..5).map(|index| entry(index, "x")).collect::<Vec<_>>()).await.unwrap();
    let mut log = Log { me: ME.0, disk };
    async fn read(
        log: &mut Log,
        range: impl std::ops::RangeBounds<u64> + Clone + std::fmt::Debug + Send,
    ) -> Vec<u64> {
        log.try_get_log_entries(range).await.unwrap().iter().map(|entry| entry.log_id.index).collect()
    }
    assert_eq!(read(&mut log, ..).await, [0, 1, 2, 3, 4]);
    assert_eq!(read(&mut log, 1..=2).await, [1, 2]);
    assert_eq!(read(&mut log, 3..9).await, [3, 4]);
}
