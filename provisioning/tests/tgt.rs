//! The `iscsi` provider against the real tgt: `tgtd`, the real `ha-storage` over HTTPS, and initiators that log in and write.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use policies::{
    Action, BackupId, Check, Doubt, Effect, Finding, LogIndex, Outcome, Permit, PlanId, ProviderKind,
    Refusal, Sealed, Seen, SnapshotName, Volume,
};
use provisioning::storage::Config;
use provisioning::storage::show::{self, Target};
use provisioning::{Backend, Us, carry_out, check};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant as Clock};
use tempfile::TempDir;
use tokio::time::Instant;

/// For everything that takes a moment; generous, for machines are shared.
const PATIENCE: Duration = Duration::from_secs(60);
const TOKEN: &str = "a-token-for-tests-only";
const TARGET: &str = "iqn.2026-01.lab:v1";
const OTHER: &str = "iqn.2026-01.lab:other";
const N1: &str = "iqn.2026-01.lab:n1";
const N2: &str = "iqn.2026-01.lab:n2";
/// Has no CHAP account.
const N3: &str = "iqn.2026-01.lab:n3";
/// How tgt refuses who is not in the access list, or when there is no target.
const NO_TARGET: &str = "Target not found(515)";
/// How it refuses who is there with another secret or none.
const NO_ACCOUNT: &str = "Authentication failure(513)";

/// The shell of `docs/drivers/iscsi.md`, which a test below compares.
const SNAPSHOT_PROGRAM: &str = r#"#!/bin/sh
[ ! -f "${0%/*}/manners" ] || . "${0%/*}/manners"
set -eu
verb=$1 volume=$2 backing=$3 name=${4:-}
case $verb in
create) cp --reflink=auto "$backing" "$backing@.$name"; sync "$backing@.$name"; mv "$backing@.$name" "$backing@$name" ;;
list)   for file in "$backing"@ha-*; do [ ! -e "$file" ] || echo "${file##*@}"; done ;;
delete) rm -f "$backing@$name" ;;
esac
"#;

struct Always;

impl Permit for Always {
    fn check(&self) -> Result<(), Refusal> {
        Ok(())
    }

    fn token(&self) -> policies::LogIndex {
        policies::LogIndex(7)
    }
}

/// Ends with its owner.
struct Process(Child);

impl Process {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A storage host of our own.
struct Host {
    tgtd: Option<Process>,
    daemon: Option<Process>,
    directory: TempDir,
    programs: Option<TempDir>,
    portal: u16,
    api: u16,
    ca: String,
}

impl Host {
    fn start() -> Host {
        Host::start_with("")
    }

    /// With a `snapshot_program` that copies the volume, and does what the file `manners` beside it says first.
    fn start_with_snapshots() -> Host {
        Host::start_with_snapshots_and("")
    }

    fn start_with_snapshots_and(settings: &str) -> Host {
        let programs = TempDir::new().unwrap();
        let program = programs.path().join("snapshot");
        fs::write(&program, SNAPSHOT_PROGRAM).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let mut host = Host::start_with(&format!("snapshot_program = \"{}\"\n{settings}", program.display()));
        host.programs = Some(programs);
        host
    }

    /// Shell that the snapshot program runs first from now on.
    fn snapshots_first(&self, manners: &str) {
        fs::write(self.programs.as_ref().unwrap().path().join("manners"), manners).unwrap();
    }

    /// The snapshots of the volume, as files.
    fn snapshots(&self) -> Vec<String> {
        let files = fs::read_dir(self.directory.path()).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> =
            names.filter_map(|name| Some(name.strip_prefix("v1.img@")?.to_owned())).collect();
        names.sort();
        names
    }

    /// With more lines for the configuration of `ha-storage`.
    fn start_with(settings: &str) -> Host {
        let directory = TempDir::new().unwrap();
        let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let (portal, api, ca) = (free_port(), free_port(), key.cert.pem());
        let mut host = Host { tgtd: None, daemon: None, programs: None, directory, portal, api, ca };
        let at = host.directory.path().display();
        let mut config = format!(
            "listen = \"127.0.0.1:{api}\"\ncertificate = \"{at}/cert.pem\"\nkey = \"{at}/key.pem\"\n\
             token_file = \"{at}/token\"\nstate = \"{at}/state\"\nsocket = \"{at}/tgt\"\n{settings}\n\
             [[volume]]\nname = \"v1\"\ntarget = \"{TARGET}\"\nbacking = \"{at}/v1.img\"\n\
             [[initiator]]\nname = \"{N3}\"\n"
        );
        for (node, name) in [("n1", N1), ("n2", N2)] {
            config += &format!(
                "[[initiator]]\nname = \"{name}\"\nchap_user = \"{node}\"\nchap_secret_file = \"{at}/chap-{node}\"\n"
            );
        }
        for (name, text) in [
            ("ha-storage.toml", config.as_bytes()),
            ("cert.pem", host.ca.as_bytes()),
            ("key.pem", key.signing_key.serialize_pem().as_bytes()),
            ("token", TOKEN.as_bytes()),
            ("v1.img", &[0; 1 << 20]),
            ("chap-n1", secret_of("n1").as_bytes()),
            ("chap-n2", secret_of("n2").as_bytes()),
        ] {
            let mut file = fs::OpenOptions::new();
            file.write(true).create_new(true).mode(0o600);
            file.open(host.path(name)).unwrap().write_all(text).unwrap();
        }
        host.start_tgtd();
        host.start_daemon();
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn log(&self, name: &str) -> fs::File {
        fs::OpenOptions::new().append(true).create(true).open(self.path(name)).unwrap()
    }

    /// Stops it, if it runs, with SIGKILL, and starts it again: it has forgotten everything.
    fn start_tgtd(&mut self) {
        self.tgtd = None;
        let tgtd = Command::new("tgtd")
            .args(["-f", "--iscsi", &format!("portal=127.0.0.1:{}", self.portal)])
            .env("TGT_IPC_SOCKET", self.path("tgt"))
            .stdout(self.log("tgtd.log"))
            .stderr(self.log("tgtd.log"))
            .spawn()
            .unwrap_or_else(|error| panic!("tgtd: {error}; `make tools` installs it"));
        let mut tgtd = Process(tgtd);
        wait_for("tgtd", || {
            let said = || fs::read_to_string(self.path("tgtd.log")).unwrap();
            assert!(!tgtd.has_ended(), "tgtd: {}", said());
            self.tgtadm(&["--mode", "sys", "--op", "show"]).is_some()
        });
        self.tgtd = Some(tgtd);
        // Somebody else's; without any target tgtd hangs up before a login can be refused.
        self.tgtadm(&["--mode", "target", "--op", "new", "--tid", "1", "-T", OTHER]).unwrap();
    }

    /// The same; this one has to remember.
    fn start_daemon(&mut self) {
        self.daemon = None;
        let mut daemon = Process(self.ha_storage().stderr(self.log("ha-storage.log")).spawn().unwrap());
        wait_for("ha-storage", || {
            let said = || fs::read_to_string(self.path("ha-storage.log")).unwrap();
            assert!(!daemon.has_ended(), "ha-storage: {}", said());
            std::net::TcpStream::connect(("127.0.0.1", self.api)).is_ok()
        });
        self.daemon = Some(daemon);
    }

    fn ha_storage(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ha-storage"));
        command.arg("--config").arg(self.path("ha-storage.toml")).env("CHANGES_LEFT", self.path("left"));
        command
    }

    /// What tgt's own tool says; none if it fails.
    fn tgtadm(&self, words: &[&str]) -> Option<String> {
        let output = Command::new("tgtadm")
            .args(["--lld", "iscsi"])
            .args(words)
            .env("TGT_IPC_SOCKET", self.path("tgt"))
            .output()
            .unwrap_or_else(|error| panic!("tgtadm: {error}; `make tools` installs it"));
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    /// The volume's target, by tgt itself.
    fn target(&self) -> Option<Target> {
        let shown = self.tgtadm(&["--mode", "target", "--op", "show"]).unwrap();
        let mut targets = show::targets(&shown).unwrap();
        assert_eq!(targets.remove(0).name, OTHER);
        targets.pop()
    }

    /// Its access list and accounts.
    fn rights(&self) -> (Vec<String>, Vec<String>) {
        self.target().map(|target| (target.rules, target.accounts)).unwrap_or_default()
    }

    fn backend(&self) -> Backend {
        self.backend_with(&self.ca, TOKEN)
    }

    fn backend_with(&self, ca: &str, token: &str) -> Backend {
        let url = format!("https://127.0.0.1:{}", self.api);
        let kind = ProviderKind::Iscsi { url, ca: Some(ca.to_owned()), token: Sealed(String::new()) };
        Backend::from_config(&kind, token.as_bytes(), Us::nobody()).unwrap()
    }

    async fn carry(&self, action: &Action, initiator: &str, token: u64) -> Outcome {
        self.carry_for(action, initiator, token, PATIENCE).await
    }

    async fn carry_for(&self, action: &Action, initiator: &str, token: u64, time: Duration) -> Outcome {
        let effect = Effect { token: LogIndex(token), plan: Some(PlanId(1)), action: action.clone() };
        carry_out(&self.backend(), &effect, Some(initiator), &Always, Instant::now() + time).await
    }

    /// A login from which nothing more is wanted: how tgt refuses it.
    fn login(&self, initiator: &str, account: Option<(&str, &str)>) -> Result<(), &'static str> {
        let account = account.map(|(user, secret)| format!("{user}%{secret}@")).unwrap_or_default();
        let url = format!("iscsi://{account}127.0.0.1:{}/{TARGET}/1", self.portal);
        let output = Command::new("iscsi-inq").args(["-i", initiator, &url]).output();
        let output = output.unwrap_or_else(|error| panic!("iscsi-inq: {error}; `make tools` installs it"));
        if output.status.success() {
            return Ok(());
        }
        let why = String::from_utf8(output.stderr).unwrap();
        let refusals = [NO_TARGET, NO_ACCOUNT].into_iter();
        Err(refusals
            .clone()
            .find(|refusal| why.contains(refusal))
            .unwrap_or_else(|| panic!("iscsi-inq: {why}")))
    }

    /// The node with the right account and secret.
    fn login_node(&self, node: &str) -> Result<(), &'static str> {
        self.login(&name_of(node), Some((node, &secret_of(node))))
    }

    /// The number that was last written into the volume.
    fn written(&self) -> u64 {
        let mut number = [0; 8];
        fs::File::open(self.path("v1.img")).unwrap().read_exact(&mut number).unwrap();
        u64::from_be_bytes(number)
    }

    /// Who has the volume, by the record on disk.
    fn holder(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("state/v1.json")).unwrap();
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        record["holder"].as_str().map(str::to_owned).into_iter().collect()
    }

    async fn asked(&self) -> Finding {
        ask(&self.backend(), "v1").await
    }

    fn initiator(&self, words: &[&str]) -> Initiator {
        let mut child = Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/initiator.py"))
            .arg(words[0])
            .args([&format!("127.0.0.1:{}", self.portal), TARGET])
            .args(&words[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("python3: {error}; `make tools` installs it"));
        let lines = BufReader::new(child.stdout.take().unwrap());
        Initiator { child: Process(child), lines }
    }

    fn writer(&self, node: &str) -> Initiator {
        self.initiator(&["write", &name_of(node), node, &secret_of(node)])
    }
}

struct Initiator {
    child: Process,
    lines: BufReader<ChildStdout>,
}

impl Initiator {
    fn line(&mut self) -> String {
        let (mut line, mut why) = (String::new(), String::new());
        if self.lines.read_line(&mut line).unwrap() == 0 {
            self.child.0.stderr.as_mut().unwrap().read_to_string(&mut why).unwrap();
            panic!("initiator.py: {why}; `make tools` installs what it needs");
        }
        line.trim().to_owned()
    }

    fn go_on(&mut self) {
        writeln!(self.child.0.stdin.as_mut().unwrap()).unwrap();
    }

    /// Waits until it fails: the last number that was taken, and why no more was.
    fn end(mut self) -> (u64, String) {
        let (mut written, mut why) = (String::new(), String::new());
        self.lines.read_to_string(&mut written).unwrap();
        self.child.0.stderr.take().unwrap().read_to_string(&mut why).unwrap();
        (written.lines().last().map_or(0, |line| line.parse().unwrap()), why)
    }
}

fn name_of(node: &str) -> String {
    format!("iqn.2026-01.lab:{node}")
}

fn secret_of(node: &str) -> String {
    format!("secret-of-node-{node}")
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Clock::now() + PATIENCE;
    while !is_so() {
        assert!(Clock::now() < end, "{what}: not within {PATIENCE:?}");
        std::thread::yield_now();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn attach() -> Action {
    let (node, provider) = ("n1".parse().unwrap(), "stor".parse().unwrap());
    Action::Attach { node, provider, volume: "v1".parse().unwrap(), index: 0 }
}

fn revoke() -> Action {
    let (node, provider) = ("n1".parse().unwrap(), "stor".parse().unwrap());
    Action::Revoke { node, provider, volume: "v1".parse().unwrap() }
}

fn snapshot(failover: u64) -> Action {
    let (node, provider) = ("n2".parse().unwrap(), "stor".parse().unwrap());
    let name = SnapshotName::Failover(PlanId(failover));
    Action::Snapshot { node, provider, volume: "v1".parse().unwrap(), name, keep: 2 }
}

async fn ask(backend: &Backend, volume: &str) -> Finding {
    let volume = Volume { provider: "stor".parse().unwrap(), volume: volume.parse().unwrap() };
    check(backend, &Check::Volume(volume), Instant::now() + PATIENCE).await
}

#[track_caller]
fn done(outcome: Outcome) -> String {
    match outcome {
        Outcome::Done(Seen::ReadBack(reading)) => reading,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_is_cut_off_and_another_takes_over() {
    let host = Host::start();
    assert_eq!(host.login_node("n1"), Err(NO_TARGET), "nobody may before somebody was attached");
    done(host.carry(&attach(), N1, 5).await);
    assert_eq!(host.login(N1, Some(("n1", "another-secret"))), Err(NO_ACCOUNT));
    assert_eq!(host.login(N1, None), Err(NO_ACCOUNT));
    assert_eq!(host.login_node("n2"), Err(NO_TARGET));
    let mut writer = host.writer("n1");
    assert_eq!(writer.line(), "1");
    let held = host.carry(&attach(), N2, 6).await;
    assert_eq!(held, Outcome::Refused(Refusal::HeldByOther(N1.to_owned())));
    assert_eq!(done(host.carry(&revoke(), N1, 7).await), "held by nobody, sessions of nobody, token i7");
    let written = host.written();
    let (last, why) = writer.end();
    assert!(why.starts_with("write: "), "{why}");
    // What was taken before the cut and not yet answered is there, too; nothing comes after it.
    assert!((last..=last + 1).contains(&written), "{last} {written}");
    assert_eq!(host.login_node("n1"), Err(NO_TARGET));
    assert_eq!(host.written(), written);
    done(host.carry(&attach(), N2, 8).await);
    assert_eq!(host.writer("n2").line(), "1");
    assert_eq!(host.login_node("n1"), Err(NO_TARGET));
    // A leader that was replaced comes late.
    let late = host.carry(&attach(), N1, 6).await;
    assert_eq!(late, Outcome::Refused(Refusal::TokenTooOld { ours: LogIndex(6), newest: LogIndex(8) }));
    assert_eq!(host.rights(), (vec![N2.to_owned()], vec!["n2".to_owned()]));
    let log = fs::read_to_string(host.path("ha-storage.log")).unwrap();
    assert!(log.contains("give the right") && !log.contains("secret-of") && !log.contains(TOKEN), "{log}");
}

/// tgt asks its access list when a login begins, and not when it ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_began_before_the_revoke_never_ends_well() {
    let host = Host::start();
    done(host.carry(&attach(), N3, 5).await);
    let mut early = host.initiator(&["half-open", N3]);
    assert_eq!(early.line(), "begun");
    early.go_on();
    assert_eq!(early.line(), "in", "without a revoke between");
    let mut late = [host.initiator(&["half-open", N3]), host.initiator(&["half-open", N3])];
    late.iter_mut().for_each(|login| assert_eq!(login.line(), "begun"));
    done(host.carry(&revoke(), N3, 6).await);
    late[0].go_on();
    assert_eq!(late[0].line(), "refused");
    // Nor when the target is there again, for somebody else or for the same.
    done(host.carry(&attach(), N3, 7).await);
    late[1].go_on();
    assert_eq!(late[1].line(), "refused");
    assert!(host.target().unwrap().sessions.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_of_tgtd_the_holder_has_access_and_the_old_node_has_not() {
    let mut host = Host::start();
    done(host.carry(&attach(), N1, 5).await);
    done(host.carry(&revoke(), N1, 6).await);
    done(host.carry(&attach(), N2, 7).await);
    host.tgtd = None;
    let finding = host.asked().await;
    assert!(matches!(finding, Finding::CannotTell(_)), "{finding:?}");
    let unknown = host.carry_for(&revoke(), N2, 8, Duration::from_secs(2)).await;
    assert!(matches!(unknown, Outcome::Refused(Refusal::Unreachable(_))), "never revoked: {unknown:?}");
    host.start_tgtd();
    wait_for("n2 has access", || {
        assert_eq!(host.login_node("n1"), Err(NO_TARGET));
        host.login_node("n2").is_ok()
    });
    assert_eq!(host.rights(), (vec![N2.to_owned()], vec!["n2".to_owned()]));
    let luns = host.target().unwrap().luns;
    assert_eq!(luns[1].serial, "v1", "the same disk as before");
    // A tgtd that has just forgotten everything shows nobody. That is no revoke.
    host.start_tgtd();
    done(host.carry(&revoke(), N2, 9).await);
    assert_eq!(host.holder(), [""; 0]);
    done(host.carry(&attach(), N1, 10).await);
    assert_eq!((host.login_node("n1"), host.login_node("n2")), (Ok(()), Err(NO_TARGET)));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_tgtd_that_hangs_nobody_can_tell() {
    let host = Host::start();
    done(host.carry(&attach(), N1, 5).await);
    let tgtd = host.tgtd.as_ref().unwrap();
    tgtd.signal(Signal::SIGSTOP);
    let finding = host.asked().await;
    assert!(matches!(&finding, Finding::CannotTell(why) if why.contains("did not answer")), "{finding:?}");
    tgtd.signal(Signal::SIGCONT);
    assert_eq!(host.asked().await, Finding::Fine);
    done(host.carry(&revoke(), N1, 6).await);
    assert_eq!(host.login_node("n1"), Err(NO_TARGET));
}

/// SIGKILL comes before the first change of tgt, before the second, and so on until none is left. Whoever has a right at tgt then
/// is the recorded holder, or the old one if nobody is recorded; once the daemon runs again it is the recorded one.
#[tokio::test(flavor = "multi_thread")]
async fn killed_between_any_two_steps_the_daemon_goes_on() {
    let at = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tgtadm-fuse");
    let mut host = Host::start_with(&format!("tgtadm = \"{at}\""));
    let (mut old, mut new) = ("n1", "n2");
    done(host.carry(&attach(), N1, 1).await);
    for kills in 0.. {
        let token = 10 * (kills + 1);
        let (was, is) = (name_of(old), name_of(new));
        // tgtd may still be ending the last round's login, and would be told to end it: one change more.
        wait_for("the last login has ended", || host.target().unwrap().sessions.is_empty());
        let mut writer = host.writer(old);
        assert_eq!(writer.line(), "1");
        fs::write(host.path("left"), kills.to_string()).unwrap();
        let mut daemon = host.daemon.take().unwrap();
        let moved = async {
            done(host.carry(&revoke(), &was, token).await);
            done(host.carry(&attach(), &is, token + 1).await);
        };
        let killed = async {
            while !daemon.has_ended() {
                tokio::task::yield_now().await;
            }
        };
        let is_killed = tokio::select! {
            () = killed => true,
            () = moved => false,
        };
        host.daemon = Some(daemon);
        fs::remove_file(host.path("left")).unwrap();
        if is_killed {
            let ((rules, accounts), holder) = (host.rights(), host.holder());
            let may = if holder.is_empty() { vec![was.clone()] } else { holder };
            assert!(rules.is_empty() || rules == may, "before change {kills}: {rules:?} {may:?}");
            assert!(rules.is_empty() || accounts.len() == 1, "before change {kills}: a name is not enough");
            host.start_daemon();
            wait_for("tgt agrees", || host.rights().0 == host.holder());
            done(host.carry(&revoke(), &was, token + 2).await);
            done(host.carry(&attach(), &is, token + 3).await);
        }
        let (_, why) = writer.end();
        assert!(why.starts_with("write: "), "{why}");
        assert_eq!((host.login_node(old), host.login_node(new)), (Err(NO_TARGET), Ok(())));
        (old, new) = (new, old);
        if !is_killed {
            // Right, connection, target; target, logical unit, its name, account, right.
            assert_eq!(kills, 8, "changes of tgt in one move");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_lets_in_is_put_out() {
    let host = Host::start();
    done(host.carry(&attach(), N1, 5).await);
    let tid = host.target().unwrap().tid.to_string();
    for (kind, who) in [("--initiator-name", N3), ("--initiator-address", "ALL")] {
        host.tgtadm(&["--mode", "target", "--op", "bind", "--tid", &tid, kind, who]).unwrap();
        // With `ALL` nobody's right is gone, whatever names there are.
        done(host.carry(&revoke(), N3, 6).await);
        assert_eq!(host.rights().0, [N1], "{who}");
    }
    host.tgtadm(&["--mode", "account", "--op", "unbind", "--tid", &tid, "--user", "n1"]).unwrap();
    wait_for("CHAP is asked again", || host.rights() == (vec![N1.to_owned()], vec!["n1".to_owned()]));
    // The target that the volume had in an older configuration, say.
    host.tgtadm(&["--mode", "target", "--op", "new", "--tid", "99", "-T", "iqn.2026-01.lab:old"]).unwrap();
    let backing = host.path("v1.img").display().to_string();
    host.tgtadm(&["--mode", "logicalunit", "--op", "new", "--tid", "99", "--lun", "1", "-b", &backing])
        .unwrap();
    let finding = host.asked().await;
    assert!(
        matches!(&finding, Finding::CannotTell(why) if why.contains("iqn.2026-01.lab:old")),
        "{finding:?}"
    );
    let unknown = host.carry_for(&revoke(), N1, 7, Duration::from_secs(2)).await;
    assert!(matches!(unknown, Outcome::Refused(Refusal::Unreachable(_))), "{unknown:?}");
    host.tgtadm(&["--mode", "target", "--op", "delete", "--tid", "99"]).unwrap();
    done(host.carry(&revoke(), N1, 8).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_right_authority_and_token_will_do() {
    let host = Host::start();
    assert_eq!(host.asked().await, Finding::Fine);
    assert_eq!(ask(&host.backend(), "v9").await, Finding::Absent("there is no volume v9".to_owned()));
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap().cert.pem();
    for backend in [host.backend_with(&other, TOKEN), host.backend_with(&host.ca, "wrong")] {
        assert!(matches!(ask(&backend, "v1").await, Finding::CannotTell(_)));
    }
    let unknown = host.carry(&attach(), "iqn.2026-01.lab:n9", 5).await;
    let Outcome::Refused(Refusal::DeviceRefused(why)) = unknown else { panic!("{unknown:?}") };
    assert!(why.contains("no [[initiator]]"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_ends_politely_and_says_beforehand_what_is_wrong() {
    let mut host = Host::start();
    done(host.carry(&attach(), N1, 5).await);
    let mut daemon = host.daemon.take().unwrap();
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.0.wait().unwrap().success());
    assert_eq!(host.login_node("n1"), Ok(()), "tgt keeps what it has");
    let checked = |host: &Host| {
        let output = host.ha_storage().arg("check").output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    assert_eq!(checked(&host), "1 volumes, 3 initiators; tgtd answers, it has 2 targets\n");
    host.tgtd = None;
    assert!(checked(&host).contains("ask tgtd"), "{}", checked(&host));
    fs::set_permissions(host.path("chap-n1"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(checked(&host).contains("chap-n1: others can use it; `chmod 600` it"), "{}", checked(&host));
}

#[test]
fn the_example_of_the_help_text_is_a_configuration() {
    let help = Command::new(env!("CARGO_BIN_EXE_ha-storage")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let (_, example) = help.split_once("ha-storage.toml:\n").unwrap();
    let (example, _) = example.split_once("ha-storage check").unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, example).unwrap();
    let config = Config::load(file.path()).unwrap();
    assert_eq!((config.volumes.len(), config.initiators.len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_made_of_a_volume_that_nobody_has_and_old_ones_of_ours_go() {
    let host = Host::start_with_snapshots();
    fs::write(host.path("v1.img@nightly"), "another's").unwrap();
    let (mut old, mut new, mut token) = ("n1", "n2", 10);
    done(host.carry(&attach(), N1, 1).await);
    for failover in [3, 9, 12] {
        let mut writer = host.writer(old);
        assert_eq!(writer.line(), "1");
        let held = host.carry(&snapshot(failover), N2, token).await;
        assert_eq!(held, Outcome::Refused(Refusal::HeldByOther(name_of(old))));
        done(host.carry(&revoke(), &name_of(old), token).await);
        let reading = done(host.carry(&snapshot(failover), N2, token + 1).await);
        assert!(reading.ends_with(&format!("ha-f{failover}, token i{}", token + 1)), "{reading}");
        let kept = fs::read(host.path(&format!("v1.img@ha-f{failover}"))).unwrap();
        assert!(kept == fs::read(host.path("v1.img")).unwrap(), "all that was written is in it");
        done(host.carry(&attach(), &name_of(new), token + 2).await);
        drop(writer);
        (old, new, token) = (new, old, token + 10);
    }
    assert_eq!(host.snapshots(), ["ha-f12", "ha-f9", "nightly"]);
    // A leader that was replaced comes late, and would keep a volume that is in use.
    let late = host.carry(&snapshot(4), N2, 20).await;
    assert_eq!(late, Outcome::Refused(Refusal::TokenTooOld { ours: LogIndex(20), newest: LogIndex(32) }));
    assert_eq!(host.snapshots(), ["ha-f12", "ha-f9", "nightly"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_fails_or_hangs_leaves_nothing_and_holds_nothing_up() {
    let host = Host::start_with_snapshots();
    host.snapshots_first("[ $1 != create ] || { echo 'no space in the pool' >&2; exit 1; }");
    let Outcome::Refused(Refusal::DeviceRefused(why)) = host.carry(&snapshot(3), N2, 2).await else {
        panic!()
    };
    assert!(why.contains("no space in the pool"), "{why}");
    // It has made something before it failed.
    host.snapshots_first("[ $1 != create ] || { echo torn >\"$3@$4\"; exit 1; }");
    let torn = host.carry(&snapshot(3), N2, 3).await;
    assert!(matches!(torn, Outcome::Refused(Refusal::DeviceRefused(_))), "{torn:?}");
    // It says that it has, and has not.
    host.snapshots_first("[ $1 != create ] || exit 0");
    let lied = host.carry(&snapshot(3), N2, 4).await;
    assert!(
        matches!(&lied, Outcome::Refused(Refusal::DeviceRefused(why)) if why.contains("does not list it"))
    );
    assert_eq!(host.snapshots(), [""; 0]);
    host.snapshots_first("[ $1 != create ] || { echo $$ >\"${0%/*}/pid\"; sleep 3600; }");
    let slow = host.carry_for(&snapshot(3), N2, 5, Duration::from_secs(2)).await;
    assert!(matches!(slow, Outcome::Unknown(Doubt::NoAnswer { .. } | Doubt::NotSeen { .. })), "{slow:?}");
    done(host.carry(&attach(), N2, 6).await);
    assert_eq!(host.login_node("n2"), Ok(()));
    let pid = fs::read_to_string(host.programs.as_ref().unwrap().path().join("pid")).unwrap();
    wait_for("the program ends once nobody waits for it", || {
        !Path::new(&format!("/proc/{}", pid.trim())).exists()
    });
    assert_eq!(host.snapshots(), [""; 0]);
}

/// The program is slower than the policy lets the spare wait: what it makes is no still volume's.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_while_the_volume_was_given_on_is_deleted_again() {
    let host = Host::start_with_snapshots();
    let programs = host.programs.as_ref().unwrap().path().to_owned();
    host.snapshots_first(
        "[ $1 != create ] || { mkfifo \"${0%/*}/go\"; : >\"${0%/*}/began\"; read -r _ <\"${0%/*}/go\" || :; }",
    );
    let keep = async { host.carry(&snapshot(3), N2, 5).await };
    let give = async {
        while !programs.join("began").exists() {
            tokio::task::yield_now().await;
        }
        done(host.carry(&attach(), N2, 6).await);
        fs::write(programs.join("go"), "\n").unwrap();
    };
    let (kept, ()) = tokio::join!(keep, give);
    assert_eq!(kept, Outcome::Refused(Refusal::TokenTooOld { ours: LogIndex(5), newest: LogIndex(6) }));
    assert_eq!(host.snapshots(), [""; 0]);
}

fn backup(number: u64) -> Action {
    let Action::Snapshot { node, provider, volume, .. } = snapshot(0) else { unreachable!("it is one") };
    Action::Snapshot { node, provider, volume, name: SnapshotName::Backup(BackupId(number)), keep: 2 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_in_use_is_backed_up_only_where_the_program_can() {
    let asked = Check::Backup(Volume { provider: "stor".parse().unwrap(), volume: "v1".parse().unwrap() });
    let ask = async |host: &Host| check(&host.backend(), &asked, Instant::now() + PATIENCE).await;
    let host = Host::start_with_snapshots();
    let finding = ask(&host).await;
    assert!(matches!(&finding, Finding::Absent(why) if why.contains("snapshot_in_use")), "{finding:?}");
    done(host.carry(&attach(), N1, 1).await);
    let Outcome::Refused(Refusal::DeviceRefused(why)) = host.carry(&backup(5), N1, 5).await else { panic!() };
    assert!(why.contains(N1) && why.contains("snapshot_in_use"), "{why}");
    drop(host);

    let host = Host::start_with_snapshots_and("snapshot_in_use = true");
    assert_eq!(ask(&host).await, Finding::Fine);
    done(host.carry(&snapshot(3), N2, 1).await);
    done(host.carry(&attach(), N1, 2).await);
    for number in [5, 6, 7] {
        done(host.carry(&backup(number), N1, number).await);
    }
    assert_eq!(host.snapshots(), ["ha-b6", "ha-b7", "ha-f3"], "the kinds do not push each other out");
    assert!(matches!(host.carry(&snapshot(8), N2, 8).await, Outcome::Refused(Refusal::HeldByOther(_))));

    // A failover begins while the program is at it: nothing of it waits, nor does the snapshot that it wants itself.
    let programs = host.programs.as_ref().unwrap().path().to_owned();
    host.snapshots_first(
        "case $1$4 in createha-b*) mkfifo \"${0%/*}/go\"; : >\"${0%/*}/began\"; read -r _ <\"${0%/*}/go\" || :;; esac",
    );
    let keep = async { host.carry(&backup(9), N1, 9).await };
    let fail_over = async {
        while !programs.join("began").exists() {
            tokio::task::yield_now().await;
        }
        done(host.carry(&revoke(), N1, 10).await);
        done(host.carry(&snapshot(10), N2, 11).await);
        done(host.carry(&attach(), N2, 12).await);
        fs::write(programs.join("go"), "\n").unwrap();
    };
    let (kept, ()) = tokio::join!(keep, fail_over);
    done(kept);
    assert_eq!(host.snapshots(), ["ha-b7", "ha-b9", "ha-f10", "ha-f3"]);
    // One that comes late does nothing.
    let late = host.carry(&backup(8), N1, 8).await;
    assert_eq!(late, Outcome::Refused(Refusal::TokenTooOld { ours: LogIndex(8), newest: LogIndex(12) }));
}

#[tokio::test(flavor = "multi_thread")]
async fn whether_snapshots_can_be_made_is_said_beforehand() {
    let host = Host::start();
    let asked = Check::Snapshot(Volume { provider: "stor".parse().unwrap(), volume: "v1".parse().unwrap() });
    let ask = async |host: &Host| check(&host.backend(), &asked, Instant::now() + PATIENCE).await;
    let finding = ask(&host).await;
    assert!(matches!(&finding, Finding::Absent(why) if why.contains("no `snapshot_program`")), "{finding:?}");
    let refused = host.carry(&snapshot(3), N2, 5).await;
    let Outcome::Refused(Refusal::NotConfigured(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains("no `snapshot_program`"), "{why}");
    drop(host);
    let host = Host::start_with_snapshots();
    assert_eq!(ask(&host).await, Finding::Fine);
    let checked = || {
        let output = host.ha_storage().arg("check").output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    fs::write(host.path("v1.img@ha-f7"), "").unwrap();
    assert!(checked().ends_with("snapshot_program answers, it lists 1 snapshots of ours\n"), "{}", checked());
    host.snapshots_first("echo 'no such pool' >&2; exit 1");
    assert!(checked().contains("no such pool"), "{}", checked());
    let finding = ask(&host).await;
    assert!(matches!(&finding, Finding::CannotTell(why) if why.contains("no such pool")), "{finding:?}");
}

#[test]
fn the_snapshot_program_of_the_documentation_is_the_one_that_is_tested() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/drivers/iscsi.md");
    let (_, body) = SNAPSHOT_PROGRAM.split_once("manners\"\n").unwrap();
    assert!(fs::read_to_string(page).unwrap().contains(body));
}
