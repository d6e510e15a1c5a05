//! The `ovsdb` provider against the real Open vSwitch: `ovsdb-server` and `ovs-vswitchd` (userspace datapath), over TCP and TLS.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use policies::{
    Action, Effect, LogIndex, Outcome, OvsdbTls, Permit, PlanId, ProviderKind, Refusal, Sealed, Seen,
};
use provisioning::{Backend, Us, carry_out};
use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::Instant;

const PARK: u16 = 4000;
/// For everything that takes a moment; generous, for machines are shared.
const PATIENCE: Duration = Duration::from_secs(60);

struct Always;

impl Permit for Always {
    fn check(&self) -> Result<(), Refusal> {
        Ok(())
    }

    fn token(&self) -> policies::LogIndex {
        policies::LogIndex(7)
    }
}

/// A switch of our own: database and daemon end with it.
struct Switch {
    directory: TempDir,
    children: Vec<Child>,
    tcp: u16,
    ssl: u16,
}

impl Switch {
    /// A switch `sw0` with the ports `p1`, `p2` and the LAG `lag1` of two links.
    fn start() -> Switch {
        let directory = TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        make_keys(directory.path());
        run("ovsdb-tool", &["create", &path("conf.db"), "/usr/share/openvswitch/vswitch.ovsschema"]);
        let (tcp, ssl) = (free_port(), free_port());
        let server = spawn(
            &directory,
            "ovsdb-server",
            &[
                &path("conf.db"),
                &format!("--remote=punix:{}", path("db.sock")),
                &format!("--remote=ptcp:{tcp}:127.0.0.1"),
                &format!("--remote=pssl:{ssl}:127.0.0.1"),
                &format!("--private-key={}", path("switch-privkey.pem")),
                &format!("--certificate={}", path("switch-cert.pem")),
                &format!("--ca-cert={}", path("pki/switchca/cacert.pem")),
                &format!("--unixctl={}", path("db.ctl")),
            ],
        );
        let mut switch = Switch { directory, children: vec![server], tcp, ssl };
        switch.wait_for(&switch.directory.path().join("db.sock"));
        switch.vsctl(&["--no-wait", "init"]);
        let database = format!("unix:{}", switch.path("db.sock"));
        let unixctl = format!("--unixctl={}", switch.path("vs.ctl"));
        let daemon = spawn(&switch.directory, "ovs-vswitchd", &[&database, &unixctl, "--disable-system"]);
        switch.children.push(daemon);
        // Ports of the type `dummy` would need a special start; patch ports have no device of the host.
        let mut words = vec!["add-br", "sw0", "--", "set", "bridge", "sw0", "datapath_type=netdev"];
        for port in ["p1", "p2"] {
            words.extend(["--", "add-port", "sw0", port, "--", "set", "interface", port, "type=patch"]);
            words.push(if port == "p1" { "options:peer=x1" } else { "options:peer=x2" });
        }
        words.extend(["--", "add-bond", "sw0", "lag1", "l1", "l2"]);
        words.extend(["--", "set", "port", "p1", "external_ids:owner=somebody"]);
        // Without --no-wait it returns once the switch has taken the change over; the links of the bond do not exist.
        switch.vsctl(&words);
        switch
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn vsctl(&self, words: &[&str]) -> String {
        let database = format!("--db=unix:{}", self.path("db.sock"));
        let words: Vec<&str> = ["--timeout=50", &database].into_iter().chain(words.iter().copied()).collect();
        String::from_utf8(run("ovs-vsctl", &words).stdout).unwrap()
    }

    /// What the switch's own tool says of a port.
    fn port(&self, port: &str) -> String {
        let words = ["get", "port", port, "tag", "vlan_mode", "protected", "external_ids"];
        self.vsctl(&words).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Whether the switch takes a packet of this VLAN (0: without a tag) from the node at `p2`, by its own tracing.
    fn passes(&self, vlan: u16) -> bool {
        let tag = if vlan == 0 { String::new() } else { format!(",dl_vlan={vlan}") };
        let flow = format!("in_port=p2,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:02{tag}");
        let words = ["-t", &self.path("vs.ctl"), "ofproto/trace", "sw0", &flow];
        let trace = String::from_utf8(run("ovs-appctl", &words).stdout).unwrap();
        assert!(trace.contains("bridge(\"sw0\")"), "{trace}");
        !trace.contains("dropping VLAN") && !trace.contains("drop,")
    }

    fn wait_for(&self, path: &Path) {
        let end = std::time::Instant::now() + PATIENCE;
        while !path.exists() {
            assert!(std::time::Instant::now() < end, "{} did not come", path.display());
            std::thread::yield_now();
        }
    }

    fn plain(&self) -> Backend {
        let kind =
            ProviderKind::Ovsdb { url: format!("tcp://127.0.0.1:{}", self.tcp), park_vlan: PARK, tls: None };
        Backend::from_config(&kind, b"", Us::nobody()).unwrap()
    }

    /// Over TLS, trusting the authority in this file.
    fn encrypted(&self, ca: &str) -> Backend {
        let read = |name: &str| fs::read_to_string(self.directory.path().join(name)).unwrap();
        let key = read("ours-privkey.pem");
        let tls = OvsdbTls { ca: read(ca), certificate: read("ours-cert.pem"), key: Sealed(String::new()) };
        let kind = ProviderKind::Ovsdb {
            url: format!("ssl://127.0.0.1:{}", self.ssl),
            park_vlan: PARK,
            tls: Some(tls),
        };
        Backend::from_config(&kind, key.as_bytes(), Us::nobody()).unwrap()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        for child in &mut self.children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

/// Keys as an operator makes them: with `ovs-pki`.
fn make_keys(directory: &Path) {
    let pki = directory.join("pki").display().to_string();
    let log = directory.join("pki.log").display().to_string();
    let make = |words: &[&str]| {
        let (dir, log) = (format!("--dir={pki}"), format!("--log={log}"));
        let words: Vec<&str> =
            [dir.as_str(), log.as_str()].into_iter().chain(words.iter().copied()).collect();
        let made = Command::new("ovs-pki").args(&words).current_dir(directory).output().unwrap();
        assert!(made.status.success(), "ovs-pki {words:?}: {made:?}");
    };
    make(&["init"]);
    make(&["req+sign", "switch", "switch"]);
    make(&["req+sign", "ours", "switch"]);
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn spawn(directory: &TempDir, program: &str, words: &[&str]) -> Child {
    let log = format!("--log-file={}", directory.path().join(format!("{program}.log")).display());
    Command::new(program)
        .args(words)
        .arg(log)
        .env("OVS_RUNDIR", directory.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; `make tools` installs it"))
}

fn run(program: &str, words: &[&str]) -> Output {
    let output = Command::new(program).args(words).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; `make tools` installs it"));
    assert!(output.status.success(), "{program} {words:?}: {output:?}");
    output
}

fn close(port: &str) -> Action {
    Action::ClosePort { node: "n1".parse().unwrap(), provider: "sw".parse().unwrap(), port: port.to_owned() }
}

fn open(port: &str, vlan: u16) -> Action {
    let (node, provider) = ("n2".parse().unwrap(), "sw".parse().unwrap());
    Action::OpenPort { node, provider, port: port.to_owned(), vlan, tagged: BTreeSet::new(), mac: None }
}

async fn carry(backend: &Backend, action: &Action, token: u64) -> Outcome {
    let effect = Effect { token: LogIndex(token), plan: Some(PlanId(1)), action: action.clone() };
    carry_out(backend, &effect, None, &Always, Instant::now() + PATIENCE).await
}

fn read_back(outcome: Outcome) -> String {
    match outcome {
        Outcome::Done(Seen::ReadBack(reading)) => reading,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn ports_are_parked_and_opened_and_the_switch_says_so_itself() {
    let switch = Switch::start();
    let backend = switch.plain();
    let parked = read_back(carry(&backend, &close("p1"), 7).await);
    assert!(parked.starts_with("vlan 4000, isolated, link p1"), "{parked}");
    assert_eq!(switch.port("p1"), "4000 access true {ha-token=\"7\", owner=somebody}");
    assert_eq!(read_back(carry(&backend, &close("p1"), 7).await), parked, "again changes nothing");
    let opened = read_back(carry(&backend, &open("p2", 100), 8).await);
    assert!(opened.starts_with("vlan 100, link p2"), "{opened}");
    assert_eq!(switch.port("p2"), "100 access false {ha-token=\"8\"}");
    // A leader that was replaced comes late.
    let late = carry(&backend, &open("p1", 100), 6).await;
    assert_eq!(late, Outcome::Refused(Refusal::TokenTooOld { ours: LogIndex(6), newest: LogIndex(7) }));
    let reading = read_back(carry(&backend, &close("lag1"), 9).await);
    assert!(reading.contains("link l1") && reading.contains("link l2"), "a LAG moves as one: {reading}");
    let missing = carry(&backend, &close("p9"), 9).await;
    assert_eq!(missing, Outcome::Refused(Refusal::NotConfigured("the switch has no port p9".to_owned())));
}

/// Several networks on one port.
#[tokio::test]
async fn a_port_passes_its_tagged_networks_and_no_other() {
    let switch = Switch::start();
    let backend = switch.plain();
    let trunk = |tagged: &[u16]| {
        let (node, provider) = ("n2".parse().unwrap(), "sw".parse().unwrap());
        let tagged = tagged.iter().copied().collect();
        Action::OpenPort { node, provider, port: "p2".to_owned(), vlan: 100, tagged, mac: None }
    };
    let opened = read_back(carry(&backend, &trunk(&[200, 300]), 7).await);
    assert!(opened.starts_with("vlan 100 +200 +300, native-untagged, link p2"), "{opened}");
    assert_eq!(read_back(carry(&backend, &trunk(&[200, 300]), 8).await), opened, "again changes nothing");
    assert_eq!([0, 100, 200, 300, 400].map(|vlan| switch.passes(vlan)), [true, true, true, true, false]);
    let fewer = read_back(carry(&backend, &trunk(&[300]), 9).await);
    assert!(fewer.starts_with("vlan 100 +300, native-untagged"), "{fewer}");
    assert_eq!([0, 200, 300].map(|vlan| switch.passes(vlan)), [true, false, true]);
    let none = read_back(carry(&backend, &trunk(&[]), 10).await);
    assert!(none.starts_with("vlan 100, link p2"), "{none}");
    assert_eq!([0, 200, 300].map(|vlan| switch.passes(vlan)), [true, false, false]);
    read_back(carry(&backend, &trunk(&[200]), 11).await);
    let parked = read_back(carry(&backend, &close("p2"), 12).await);
    assert!(parked.starts_with("vlan 4000, isolated"), "{parked}");
    assert_eq!([200, 300].map(|vlan| switch.passes(vlan)), [false, false]);
    let refused = carry(&backend, &trunk(&[PARK]), 13).await;
    assert!(
        matches!(&refused, Outcome::Refused(Refusal::NotConfigured(why)) if why.contains("park VLAN")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn over_tls_only_the_right_authority_will_do() {
    let switch = Switch::start();
    let reading = read_back(carry(&switch.encrypted("pki/switchca/cacert.pem"), &close("p1"), 7).await);
    assert!(reading.starts_with("vlan 4000"), "{reading}");
    let wrong = carry(&switch.encrypted("pki/controllerca/cacert.pem"), &close("p2"), 8).await;
    let Outcome::Refused(Refusal::Unreachable(why)) = wrong else { panic!("{wrong:?}") };
    assert!(why.contains("certificate"), "{why}");
    assert_eq!(switch.port("p2"), "[] [] false {}");
}

#[tokio::test]
async fn a_switch_whose_daemon_is_dead_has_closed_nothing() {
    let mut switch = Switch::start();
    let mut daemon = switch.children.pop().unwrap();
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let effect = Effect { token: LogIndex(7), plan: Some(PlanId(1)), action: close("p1") };
    let deadline = Instant::now() + Duration::from_secs(1);
    let outcome = carry_out(&switch.plain(), &effect, None, &Always, deadline).await;
    let Outcome::Unknown(why) = outcome else { panic!("{outcome:?}") };
    assert!(why.to_string().contains("not yet taken over by the switch"), "{why}");
}
