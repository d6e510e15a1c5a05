//! Tests with a real process that dies: killed at random points, or cut off from its disk.
//!
//! The test binary starts itself again as the child. The child proposes without end and prints each acknowledged
//! index and text to a pipe; whatever arrived in the pipe before the child died must be on disk afterwards.

use crate::common::{Authority, config, note, text_of};
use crate::identity;
use crate::store::{Store, StoreEvent};
use crate::types::Content;
use crate::{Config, Snapshots, Timing};
use policies::{MemberId, Millis};
use rand::Rng;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const ME: MemberId = MemberId(1);
const CHILD: &str = "RAFT_STORE_CHILD_DIR";
const ROUNDS: usize = 200;
const PATIENCE: Duration = Duration::from_secs(20);

fn child_config(dir: &Path) -> Config {
    let timing = Timing {
        heartbeat: Millis(4),
        election_min: Millis(12),
        election_max: Millis(24),
        propose_limit: Millis(10_000),
    };
    let snapshots = Snapshots { after_entries: 150, keep_entries: 1500 };
    Config { timing, snapshots, ..config(dir, ME, Authority::new().tls("member-1")) }
}

/// Proposes from several tasks at once until it dies.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by the other tests of this file, as a process of its own"]
async fn child() {
    let dir = std::env::var_os(CHILD).unwrap();
    let (store, mut events) = Store::open(child_config(Path::new(&dir))).await.unwrap();
    if store.members().is_empty() {
        let address = store.local_address().to_string();
        let me = crate::Member { id: ME, address, api: String::new(), voter: true };
        store.bootstrap(&me).await.unwrap();
    }
    for task in 0..4 {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 0.. {
                let text = format!("{}-{task}-{number}", std::process::id());
                match store.propose(note(&text)).await {
                    Ok((index, _)) => say(&format!("ack {} {text}\n", index.0)),
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        });
    }
    loop {
        if let StoreEvent::Fatal(why) = events.recv().await.unwrap() {
            say(&format!("fatal {why}\n"));
            assert!(matches!(store.propose(note("x")).await, Err(crate::ProposeError::Fatal(_))));
            assert!(matches!(store.barrier().await, Err(crate::BarrierError::Fatal(_))));
            assert!(matches!(store.remove(ME).await, Err(crate::MemberError::Fatal(_))));
            assert!(!store.is_leader() && store.lease_end().is_none());
            say("every call fails\n");
            return;
        }
    }
}

/// One write call, so that no line is torn between tasks.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).unwrap();
    out.flush().unwrap();
}

/// Starts the child, behind `wrapper` if there is one, and gives the lines that it says.
fn start(dir: &Path, wrapper: &[&str]) -> (Child, Receiver<String>) {
    let this = std::env::current_exe().unwrap();
    let mut command = match wrapper {
        [] => Command::new(&this),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(&this);
            command
        }
    };
    command.args(["crash::child", "--exact", "--ignored", "--nocapture"]).env(CHILD, dir);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let (lines, said) = channel();
    let out = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    (child, said)
}

/// What was acknowledged, by index.
#[derive(Default)]
struct Acknowledged(BTreeMap<u64, String>);

impl Acknowledged {
    fn note(&mut self, line: &str) -> bool {
        let Some(ack) = line.strip_prefix("ack ") else { return false };
        let (index, text) = ack.split_once(' ').unwrap();
        let known = self.0.insert(index.parse().unwrap(), text.to_owned());
        assert_eq!(known, None, "two proposals were acknowledged at index {index}");
        true
    }

    /// Everything acknowledged is on disk, word for word, or covered by the snapshot.
    fn check(&self, dir: &Path) {
        let home = identity::open(dir, ME, "rack-7").unwrap();
        let bounds = home.disk.bounds().unwrap();
        let entries = home.disk.entries(0, u64::MAX, usize::MAX).unwrap();
        let stored: BTreeMap<u64, String> = entries
            .into_iter()
            .filter_map(|entry| match entry.content {
                Content::Proposal(proposal) => Some((entry.id.index, text_of(&proposal)?)),
                Content::Blank | Content::Members(_) => None,
            })
            .collect();
        let purged = bounds.purged.map_or(0, |id| id.index);
        let snapshot = home.disk.snapshot_head().unwrap().and_then(|head| head.last).map_or(0, |id| id.index);
        assert!(snapshot >= purged);
        for (index, text) in self.0.range(purged + 1..) {
            assert_eq!(stored.get(index), Some(text), "entry {index} was acknowledged");
        }
    }
}

/// Takes what the child says until `end`.
fn listen(said: &Receiver<String>, end: Instant, acknowledged: &mut Acknowledged) {
    while let Ok(line) = said.recv_timeout(end.saturating_duration_since(Instant::now())) {
        acknowledged.note(&line);
    }
}

#[test]
fn nothing_acknowledged_is_lost_in_two_hundred_kills_at_random_points() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::default();
    let begun = Instant::now();
    let mut rounds_with_acks = 0;
    for round in 0..ROUNDS {
        let before = acknowledged.0.len();
        let (mut child, said) = start(dir.path(), &[]);
        // Most rounds die while they work; each eighth dies anywhere, in its opening or election as well.
        if round % 8 != 7 {
            let first = std::iter::from_fn(|| said.recv_timeout(PATIENCE).ok());
            let worked = first.into_iter().any(|line| acknowledged.note(&line));
            assert!(worked, "round {round}: the child acknowledged nothing");
        }
        let life = Duration::from_micros(rand::rng().random_range(0..40_000));
        listen(&said, Instant::now() + life, &mut acknowledged);
        child.kill().unwrap();
        child.wait().unwrap();
        listen(&said, Instant::now() + PATIENCE, &mut acknowledged);
        acknowledged.check(dir.path());
        rounds_with_acks += usize::from(acknowledged.0.len() > before);
    }
    assert!(rounds_with_acks >= ROUNDS * 7 / 8);
    println!("{ROUNDS} kills, {} acknowledged, 0 lost, {:?}", acknowledged.0.len(), begun.elapsed());
}

#[test]
fn a_member_that_cannot_write_says_so_stops_and_keeps_what_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::default();
    // From here on no file may grow beyond 300 KiB (600 blocks of 512 bytes): the write fails with EFBIG.
    let limited = ["sh", "-c", "trap '' XFSZ; ulimit -f 600; exec \"$@\"", "sh"];
    let (mut child, said) = start(dir.path(), &limited);
    let mut rest = Vec::new();
    let end = Instant::now() + PATIENCE;
    while let Ok(line) = said.recv_timeout(end.saturating_duration_since(Instant::now())) {
        if !acknowledged.note(&line) {
            rest.push(line);
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let rest = rest.join("\n");
    let fatal = rest.lines().find(|line| line.starts_with("fatal ")).unwrap();
    assert_eq!(fatal.matches("os error 27").count(), 1, "each cause is said once: {fatal}");
    assert!(rest.contains("every call fails"), "{rest}");
    assert!(!acknowledged.0.is_empty());
    acknowledged.check(dir.path());
}
