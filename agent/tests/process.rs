//! The real process: what it sends over the loopback, how it ends, and what it says about a bad configuration.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panicking, as the tests themselves do"
)]

use ha_agent::answer::{self, Answer};
use ha_agent::hardware::Hardware;
use ha_agent::inventory;
use ha_agent::key::Key;
use ha_agent::wire::{BEAT_BYTES, Beat, NodeTag, boot_id_of, verify};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use policies::{Epoch, LastGasp, MemberId, Millis};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

const DEADLINE: Duration = Duration::from_secs(10);

fn key() -> Key {
    Key::new([0xab; 32])
}

/// Two members, a folder for the agent's files, and the agent.
struct Rig {
    folder: tempfile::TempDir,
    members: [UdpSocket; 2],
    agent: Option<Child>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(agent) = &mut self.agent {
            agent.kill().ok();
            agent.wait().ok();
        }
    }
}

impl Rig {
    fn new() -> Rig {
        let members = [(); 2].map(|()| {
            let member = UdpSocket::bind("127.0.0.1:0").unwrap();
            member.set_read_timeout(Some(DEADLINE)).unwrap();
            member
        });
        Rig { folder: tempfile::tempdir().unwrap(), members, agent: None }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A path that cannot be bound, one to a member only, and one to both, the first of which is not reachable.
    fn configure(&self) -> PathBuf {
        let [first, second] = [0, 1].map(|member| self.members[member].local_addr().unwrap());
        let text = format!(
            r#"node = "n1"
key = "{}"
boot_id = "first life"
epoch_file = {:?}
interval = "20ms"
inventory = false
paths = [
    {{ name = "dead", bind = "203.0.113.1:0", members = ["{first}"] }},
    {{ name = "blue", bind = "127.0.0.1:0", members = ["203.0.113.1:9", "{first}"] }},
    {{ name = "green", members = ["{first}", "{second}"] }},
]
write_probe = {{ file = {:?}, mode = "age-of-file" }}
"#,
            key().to_hex().as_str(),
            self.file("epoch"),
            self.file("written"),
        );
        let file = self.file("agent.toml");
        fs::write(&file, text).unwrap();
        file
    }

    fn run(&mut self) {
        self.start(&self.configure());
    }

    fn start(&mut self, file: &Path) {
        let agent = Command::new(env!("CARGO_BIN_EXE_ha-agent"))
            .args(["run", "--config"])
            .arg(file)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        self.agent = Some(agent);
    }

    /// Sends a signal to the agent and waits for its end: whether it succeeded, and what it had to say.
    fn end(&mut self, signal: Signal) -> Output {
        let agent = self.agent.take().unwrap();
        kill(Pid::from_raw(agent.id().try_into().unwrap()), signal).unwrap();
        agent.wait_with_output().unwrap()
    }

    fn next(&self, member: usize) -> Beat {
        let mut buffer = [0; 100];
        let length = self.members[member].recv(&mut buffer).expect("no heartbeat before the deadline");
        assert_eq!(length, BEAT_BYTES);
        verify(&buffer[..length], &key()).unwrap()
    }

    fn next_where(&self, what: &str, fits: impl Fn(&Beat) -> bool) -> Beat {
        let start = Instant::now();
        loop {
            let beat = self.next(0);
            if fits(&beat) {
                return beat;
            }
            assert!(start.elapsed() < DEADLINE, "no heartbeat with {what} before the deadline");
        }
    }

    /// All that has arrived at a member.
    fn rest(&self, member: usize) -> Vec<Beat> {
        let socket = &self.members[member];
        socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; BEAT_BYTES];
        std::iter::from_fn(|| socket.recv(&mut buffer).ok().map(|_| verify(&buffer, &key()).unwrap()))
            .collect()
    }
}

fn gasps(beats: &[Beat]) -> Vec<(u8, Option<LastGasp>)> {
    beats
        .iter()
        .filter(|beat| beat.said.last_gasp.is_some())
        .map(|beat| (beat.path, beat.said.last_gasp))
        .collect()
}

#[test]
fn heartbeats_take_every_path_that_works_with_one_sequence() {
    let mut rig = Rig::new();
    fs::write(rig.file("epoch"), "7\n").unwrap();
    rig.run();
    let first = rig.next(0);
    assert_eq!(first.node, NodeTag::of("n1"));
    assert_eq!(first.said.boot, boot_id_of("first life"));
    assert_eq!((first.said.epoch, first.said.write_age, first.said.last_gasp), (Epoch(7), None, None));
    let copy = rig.next(0);
    assert_eq!((first.path, copy.path), (1, 2), "the path that cannot be bound is left out");
    assert_eq!(copy.sequence, first.sequence);
    assert_eq!(rig.next(1).sequence, first.sequence);
    assert!(rig.next(0).sequence > first.sequence);
    let said = String::from_utf8(rig.end(Signal::SIGHUP).stderr).unwrap();
    assert_eq!(said.matches("path dead: bind: ").count(), 1, "told once, not for each heartbeat: {said}");
}

#[test]
fn a_new_epoch_and_a_disk_write_are_told_without_a_restart() {
    let mut rig = Rig::new();
    rig.run();
    assert_eq!(rig.next(0).said.epoch, Epoch(0));
    fs::write(rig.file("epoch"), "8").unwrap();
    rig.next_where("epoch 8", |beat| beat.said.epoch == Epoch(8));
    let written = fs::File::create(rig.file("written")).unwrap();
    written.set_modified(SystemTime::now() - Duration::from_secs(100)).unwrap();
    let age = |beat: &Beat| beat.said.write_age.unwrap_or(Millis(0));
    rig.next_where("a write 100 s ago", |beat| (Millis(100_000)..Millis(200_000)).contains(&age(beat)));
    written.set_modified(SystemTime::now()).unwrap();
    rig.next_where("a new write", |beat| beat.said.write_age.is_some_and(|age| age < Millis(50_000)));
}

#[test]
fn an_orderly_end_is_told_three_times_on_each_path() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut rig = Rig::new();
        rig.run();
        rig.next(0);
        let output = rig.end(signal);
        assert!(output.status.success(), "{output:?}");
        let beats = rig.rest(0);
        let shutdown = Some(LastGasp::Shutdown);
        assert_eq!(gasps(&beats), [(1, shutdown), (2, shutdown)].repeat(3));
        assert!(beats.last().unwrap().said.last_gasp.is_some(), "nothing comes after the farewell");
    }
}

#[test]
fn an_agent_that_is_only_restarted_says_no_farewell_and_its_sequence_goes_on() {
    let mut rig = Rig::new();
    rig.run();
    rig.next(1);
    assert!(rig.end(Signal::SIGHUP).status.success());
    let before = rig.rest(0);
    assert_eq!(gasps(&before), []);
    rig.members[0].set_nonblocking(false).unwrap();
    rig.run();
    let after = rig.next(0);
    assert!(after.sequence > before.last().unwrap().sequence);
    assert_eq!(after.said.boot, before.last().unwrap().said.boot);
}

#[test]
fn a_crash_kernel_can_tell_of_the_panic() {
    let rig = Rig::new();
    let output = Command::new(env!("CARGO_BIN_EXE_ha-agent"))
        .args(["gasp", "--panic", "--config"])
        .arg(rig.configure())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let panic = Some(LastGasp::Panic);
    assert_eq!(gasps(&rig.rest(0)), [(1, panic), (2, panic)].repeat(3));
}

#[test]
fn the_hardware_is_told_after_a_heartbeat() {
    let mut rig = Rig::new();
    let file = rig.configure();
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("inventory = false\n", "")).unwrap();
    rig.start(&file);
    let first = rig.next(1);
    let mut buffer = [0; 1500];
    let told = loop {
        let length = rig.members[1].recv(&mut buffer).expect("no inventory before the deadline");
        if inventory::is_inventory(&buffer[..length]) {
            break inventory::verify(&buffer[..length], &key()).unwrap();
        }
    };
    assert_eq!((told.node, told.boot), (first.node, first.said.boot));
    assert!(told.sequence > first.sequence);
    assert_eq!(told.found, Hardware::look(Path::new("/"), std::env::consts::ARCH).capabilities);
}

#[test]
fn a_watchdog_is_armed_once_a_majority_has_answered() {
    let mut rig = Rig::new();
    let file = rig.configure();
    let section = "\n[watchdog]\ndevice = \"/nowhere\"\ntimeout = \"2s\"\n";
    fs::write(&file, fs::read_to_string(&file).unwrap() + section).unwrap();
    rig.start(&file);
    let mut said =
        BufReader::new(rig.agent.as_mut().unwrap().stderr.take().unwrap()).lines().map(Result::unwrap);
    let waits = "not armed yet: 0 members have answered in the last 10s, 2 have to";
    assert!(said.any(|line| line.contains(waits)));
    let began = Instant::now();
    for (member, socket) in (1..).zip(&rig.members) {
        let mut buffer = [0; BEAT_BYTES];
        loop {
            assert!(began.elapsed() < DEADLINE, "no heartbeat asks before the deadline");
            let (length, from) = socket.recv_from(&mut buffer).expect("no heartbeat before the deadline");
            let beat = verify(&buffer[..length], &key()).unwrap();
            if beat.asks {
                let answer = answer::encode(&Answer::to(&beat, MemberId(member)), &key());
                socket.send_to(&answer, from).unwrap();
                break;
            }
        }
    }
    let line = said.find(|line| line.contains("watchdog /nowhere: No such file or directory"));
    assert!(line.is_some_and(|line| line.ends_with("trying again")));
    assert!(rig.end(Signal::SIGTERM).status.success());
}

#[test]
fn a_bad_configuration_is_named_with_its_line_and_nothing_is_sent() {
    let rig = Rig::new();
    let file = rig.configure();
    let check = |expected: i32| {
        let agent = env!("CARGO_BIN_EXE_ha-agent");
        let output = Command::new(agent).args(["check", "--config"]).arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(expected), "{output:?}");
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let tag = NodeTag::of("n1");
    let expected = format!("node n1 (tag {tag}), a heartbeat every 20ms over 3 paths to 5 addresses\n");
    assert_eq!(check(0).0, expected);
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("interval", "intervall")).unwrap();
    let (_, error) = check(1);
    assert!(error.contains("agent.toml:5: unknown field `intervall`"), "{error}");
    assert!(!error.contains("abab"), "{error}");
    assert!(rig.rest(0).is_empty());
}
