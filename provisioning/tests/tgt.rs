//! The `iscsi` provider against the real tgt: `tgtd`, the real `ha-storage` over HTTPS, and initiators that log in and write.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use policies::{
    Action, Check, Effect, Finding, LogIndex, Outcome, Permit, PlanId, ProviderKind, Refusal, Sealed, Seen,
    Volume,
};
use provisioning::{Backend, carry_out, check};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant as Clock};
use tempfile::TempDir;
use tokio::time::Instant;

/// For everything that takes a moment; generous, for machines are shared.
const PATIENCE: Duration = Duration::from_secs(60);
const TOKEN: &str = "a-token-for-tests-only";
const TARGET: &str = "iqn.2026-01.lab:v1";
const N1: &str = "iqn.2026-01.lab:n1";
const N2: &str = "iqn.2026-01.lab:n2";
/// Has no CHAP account.
const N3: &str = "iqn.2026-01.lab:n3";

struct Always;

impl Permit for Always {
    fn check(&self) -> Result<(), Refusal> {
        Ok(())
    }
}

/// Ends with its owner.
struct Process(Child);

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
    portal: u16,
    api: u16,
    ca: String,
}

impl Host {
    fn start() -> Host {
        let directory = TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name);
        let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        fs::write(path("cert.pem"), key.cert.pem()).unwrap();
        fs::write(path("key.pem"), key.signing_key.serialize_pem()).unwrap();
        fs::write(path("token"), format!("{TOKEN}\n")).unwrap();
        fs::write(path("v1.img"), vec![0; 1 << 20]).unwrap();
        for node in ["n1", "n2"] {
            fs::write(path(&format!("chap-{node}")), format!("secret-of-node-{node}\n")).unwrap();
        }
        let (portal, api) = (free_port(), free_port());
        let at = directory.path().display();
        let mut config = format!(
            "listen = \"127.0.0.1:{api}\"\ncertificate = \"{at}/cert.pem\"\nkey = \"{at}/key.pem\"\n\
             token_file = \"{at}/token\"\nstate = \"{at}/state\"\nsocket = \"{at}/tgt\"\n\
             [[volume]]\nname = \"v1\"\ntarget = \"{TARGET}\"\nbacking = \"{at}/v1.img\"\n\
             [[initiator]]\nname = \"{N3}\"\n"
        );
        for (node, name) in [("n1", N1), ("n2", N2)] {
            config += &format!(
                "[[initiator]]\nname = \"{name}\"\nchap_user = \"{node}\"\nchap_secret_file = \"{at}/chap-{node}\"\n"
            );
        }
        fs::write(path("ha-storage.toml"), config).unwrap();
        let ca = key.cert.pem();
        let mut host = Host { tgtd: None, daemon: None, directory, portal, api, ca };
        host.start_tgtd();
        host.start_daemon();
        host
    }

    fn start_tgtd(&mut self) {
        let log = fs::File::create(self.directory.path().join("tgtd.log")).unwrap();
        let tgtd = Command::new("tgtd")
            .args(["-f", "--iscsi", &format!("portal=127.0.0.1:{}", self.portal)])
            .env("TGT_IPC_SOCKET", self.directory.path().join("tgt"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("tgtd: {error}; `make tools` installs it"));
        self.tgtd = Some(Process(tgtd));
        wait_for("tgtd", || self.tgtadm(&["--mode", "sys", "--op", "show"]).is_some());
    }

    /// Stops it, if it runs, with SIGKILL, and starts it again.
    fn start_daemon(&mut self) {
        self.daemon = None;
        let log = fs::File::create(self.directory.path().join("ha-storage.log")).unwrap();
        let daemon = self.ha_storage().stderr(log).spawn().unwrap();
        self.daemon = Some(Process(daemon));
        wait_for("ha-storage", || std::net::TcpStream::connect(("127.0.0.1", self.api)).is_ok());
    }

    fn ha_storage(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ha-storage"));
        command.arg("--config").arg(self.directory.path().join("ha-storage.toml"));
        command
    }

    /// What tgt's own tool says; none if it fails.
    fn tgtadm(&self, words: &[&str]) -> Option<String> {
        let output = Command::new("tgtadm")
            .args(["--lld", "iscsi"])
            .args(words)
            .env("TGT_IPC_SOCKET", self.directory.path().join("tgt"))
            .output()
            .unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    fn targets(&self) -> Vec<provisioning::storage::show::Target> {
        let shown = self.tgtadm(&["--mode", "target", "--op", "show"]).unwrap();
        provisioning::storage::show::targets(&shown).unwrap()
    }

    /// Access list and accounts of the volume, by tgt itself.
    fn rights(&self) -> (Vec<String>, Vec<String>) {
        self.targets().into_iter().next().map(|target| (target.rules, target.accounts)).unwrap_or_default()
    }

    fn backend(&self) -> Backend {
        self.backend_with(&self.ca, TOKEN)
    }

    fn backend_with(&self, ca: &str, token: &str) -> Backend {
        let url = format!("https://127.0.0.1:{}", self.api);
        let kind = ProviderKind::Iscsi { url, ca: Some(ca.to_owned()), token: Sealed(String::new()) };
        Backend::from_config(&kind, token.as_bytes(), Path::new("/nowhere")).unwrap()
    }

    async fn carry(&self, action: &Action, initiator: &str, token: u64) -> Outcome {
        self.carry_for(action, initiator, token, PATIENCE).await
    }

    async fn carry_for(&self, action: &Action, initiator: &str, token: u64, time: Duration) -> Outcome {
        let effect = Effect { token: LogIndex(token), plan: PlanId(1), action: action.clone() };
        carry_out(&self.backend(), &effect, Some(initiator), &Always, Instant::now() + time).await
    }

    /// A login from which nothing more is wanted: whether it succeeds.
    fn admits(&self, initiator: &str, account: Option<(&str, &str)>) -> bool {
        let account = account.map(|(user, secret)| format!("{user}%{secret}@")).unwrap_or_default();
        let url = format!("iscsi://{account}127.0.0.1:{}/{TARGET}/1", self.portal);
        let output = Command::new("iscsi-inq").args(["-i", initiator, &url]).output();
        output.unwrap_or_else(|error| panic!("iscsi-inq: {error}; `make tools` installs it")).status.success()
    }

    /// The node with the right account and secret.
    fn admits_node(&self, node: &str) -> bool {
        let secret = format!("secret-of-node-{node}");
        self.admits(&format!("iqn.2026-01.lab:{node}"), Some((node, &secret)))
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
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Initiator { child: Process(child), lines }
    }

    fn writer(&self, node: &str) -> Initiator {
        let name = format!("iqn.2026-01.lab:{node}");
        self.initiator(&["write", &name, node, &format!("secret-of-node-{node}")])
    }
}

struct Initiator {
    child: Process,
    lines: BufReader<ChildStdout>,
}

impl Initiator {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
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

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
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
    Action::Attach { node, provider, volume: "v1".parse().unwrap() }
}

fn revoke() -> Action {
    let (node, provider) = ("n1".parse().unwrap(), "stor".parse().unwrap());
    Action::Revoke { node, provider, volume: "v1".parse().unwrap() }
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
    assert!(!host.admits_node("n1"), "nobody may before somebody was attached");
    done(host.carry(&attach(), N1, 5).await);
    assert!(!host.admits(N1, Some(("n1", "another-secret"))) && !host.admits(N1, None), "CHAP");
    assert!(!host.admits_node("n2"));
    let mut writer = host.writer("n1");
    assert_eq!(writer.line(), "1");
    let held = host.carry(&attach(), N2, 6).await;
    assert_eq!(held, Outcome::Refused(Refusal::HeldByOther(N1.to_owned())));
    assert_eq!(done(host.carry(&revoke(), N1, 7).await), "held by nobody, sessions of nobody, token 7");
    let before = fs::read(host.directory.path().join("v1.img")).unwrap();
    let (last, why) = writer.end();
    assert!(why.starts_with("write: "), "{why}");
    let number = u64::from_be_bytes(before[..8].try_into().unwrap());
    // What was taken before the cut and not yet answered may be there, too.
    assert!((last..=last + 1).contains(&number), "{last} {number}");
    assert!(!host.admits_node("n1"));
    done(host.carry(&attach(), N2, 8).await);
    assert_eq!(host.writer("n2").line(), "1");
    assert!(!host.admits_node("n1"));
    // A leader that was replaced comes late.
    let late = host.carry(&attach(), N1, 6).await;
    assert_eq!(late, Outcome::Refused(Refusal::TokenTooOld { ours: LogIndex(6), newest: LogIndex(8) }));
    assert_eq!(host.rights(), (vec![N2.to_owned()], vec!["n2".to_owned()]));
    let log = fs::read_to_string(host.directory.path().join("ha-storage.log")).unwrap();
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
    let mut late = host.initiator(&["half-open", N3]);
    assert_eq!(late.line(), "begun");
    done(host.carry(&revoke(), N3, 6).await);
    late.go_on();
    assert_eq!(late.line(), "refused");
    assert!(host.targets().iter().all(|target| target.sessions.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_of_tgtd_the_holder_has_access_and_the_old_node_has_not() {
    let mut host = Host::start();
    done(host.carry(&attach(), N1, 5).await);
    done(host.carry(&revoke(), N1, 6).await);
    done(host.carry(&attach(), N2, 7).await);
    host.tgtd = None;
    let volume = Volume { provider: "stor".parse().unwrap(), volume: "v1".parse().unwrap() };
    let deadline = Instant::now() + PATIENCE;
    let finding = check(&host.backend(), &Check::Volume(volume), deadline).await;
    assert!(matches!(finding, Finding::CannotTell(_)), "{finding:?}");
    let unknown = host.carry_for(&revoke(), N1, 8, Duration::from_secs(2)).await;
    assert!(matches!(unknown, Outcome::Refused(Refusal::Unreachable(_))), "never revoked: {unknown:?}");
    host.start_tgtd();
    wait_for("n2 has access", || {
        assert!(!host.admits_node("n1"));
        host.admits_node("n2")
    });
    assert_eq!(host.rights(), (vec![N2.to_owned()], vec!["n2".to_owned()]));
    let luns = host.targets().remove(0).luns;
    assert_eq!(luns[1].serial, "v1", "the same disk as before");
}

/// Changes are cut short by SIGKILL at whatever step they have come to; what tgt has is then never more than what is on disk,
/// and all of that once the daemon runs again.
#[tokio::test(flavor = "multi_thread")]
async fn killed_between_any_two_steps_the_daemon_goes_on() {
    let mut host = Host::start();
    done(host.carry(&attach(), N1, 1).await);
    for round in 0..12u64 {
        let (old, new) = if round % 2 == 0 { (N1, N2) } else { (N2, N1) };
        let token = 10 + round * 10;
        let (give, take) = (attach(), revoke());
        let changes = async {
            host.carry(&take, old, token).await;
            host.carry(&give, new, token + 1).await
        };
        // Later in each round: before the wish is written, between any two steps, after all.
        let cut = tokio::time::timeout(Duration::from_millis(round * 8), changes).await;
        drop(cut);
        host.start_daemon();
        let holder = || {
            let text = fs::read_to_string(host.directory.path().join("state/v1.json")).unwrap();
            let record: serde_json::Value = serde_json::from_str(&text).unwrap();
            record["holder"].as_str().map(|holder| vec![holder.to_owned()]).unwrap_or_default()
        };
        wait_for("tgt agrees", || host.rights().0 == holder());
        done(host.carry(&take, old, token + 2).await);
        assert!(!host.admits(old, Some((&old[old.len() - 2..], &format!("secret-of-node-{}", &old[old.len() - 2..])))));
        done(host.carry(&give, new, token + 3).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_lets_in_is_put_out() {
    let host = Host::start();
    done(host.carry(&attach(), N1, 5).await);
    let tid = host.targets()[0].tid.to_string();
    for (kind, who) in [("--initiator-name", N3), ("--initiator-address", "ALL")] {
        host.tgtadm(&["--mode", "target", "--op", "bind", "--tid", &tid, kind, who]).unwrap();
    }
    wait_for("they are gone", || host.rights().0 == [N1]);
    host.tgtadm(&["--mode", "account", "--op", "unbind", "--tid", &tid, "--user", "n1"]).unwrap();
    wait_for("CHAP is asked again", || host.rights() == (vec![N1.to_owned()], vec!["n1".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_right_authority_and_token_will_do() {
    let host = Host::start();
    let volume = |name: &str| {
        Check::Volume(Volume { provider: "stor".parse().unwrap(), volume: name.parse().unwrap() })
    };
    let asked = |backend: Backend, name: &'static str| async move {
        check(&backend, &volume(name), Instant::now() + PATIENCE).await
    };
    assert_eq!(asked(host.backend(), "v1").await, Finding::Fine);
    assert_eq!(asked(host.backend(), "v9").await, Finding::Absent("there is no volume v9".to_owned()));
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap().cert.pem();
    for backend in [host.backend_with(&other, TOKEN), host.backend_with(&host.ca, "wrong")] {
        assert!(matches!(asked(backend, "v1").await, Finding::CannotTell(_)));
    }
    let unknown = host.carry(&attach(), "iqn.2026-01.lab:n9", 5).await;
    let Outcome::Refused(Refusal::DeviceRefused(why)) = unknown else { panic!("{unknown:?}") };
    assert!(why.contains("no [[initiator]]"), "{why}");
    let checked = host.ha_storage().arg("check").output().unwrap();
    let said = String::from_utf8(checked.stdout).unwrap();
    assert_eq!(said, "1 volumes, 3 initiators; tgtd answers, it has 1 targets\n");
}
