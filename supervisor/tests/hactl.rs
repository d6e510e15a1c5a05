//! The real `hactl` against a real member: contexts, watching, waiting, the debug bundle.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what a test did not expect must end it; the helpers of tests are tests too"
)]

mod daemon;

use daemon::*;
use nix::pty::{Winsize, openpty};
use nix::sys::termios::{LocalFlags, tcgetattr};
use policies::*;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Stdio};
use std::time::Instant;
use supervisor::auth::{Role, create_token};
use supervisor::clock;
use supervisor::config::Home;
use supervisor::init;

/// Exit code, standard output, standard error.
fn run(daemon: &Daemon, args: &[&str]) -> (i32, String, String) {
    let output = hactl(daemon, args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_several_clusters_is_chosen_by_name() {
    let (_dir, daemon) = one_member().await;
    let one = std::fs::read_to_string(daemon.home.hactl()).unwrap();
    let gone = one.replace(&daemon.config.member.api_addr, &addresses().api);
    let several = daemon.home.dir().join("several.toml");
    std::fs::write(&several, format!("current = \"gone\"\n[context.gone]\n{gone}\n[context.here]\n{one}\n"))
        .unwrap();
    let several = several.to_str().unwrap();
    let run = |args: &[&str]| run(&daemon, &[&["--context", several, "--timeout", "1s"], args].concat());

    assert_eq!(run(&["status"]).0, 3, "nobody is there");
    assert_eq!(run(&["--cluster", "here", "status"]).0, 0);
    let (code, _, said) = run(&["--cluster", "hree", "status"]);
    assert!(code == 2 && said.contains("there is no context \"hree\"; did you mean `here`?"), "{said}");
    assert!(run(&["context", "list"]).1.contains("*         gone   https://"));
    let (code, said, _) = run(&["context", "use", "here"]);
    assert_eq!((code, said.as_str()), (0, format!("{several}: here is the current context\n").as_str()));
    assert_eq!(run(&["status"]).0, 0);
    assert_eq!(run(&["context", "use", "hre"]).0, 2);
    let (code, _, said) = run(&["fence", "n1", "--reason", "x"]);
    assert!(code == 2 && said.starts_with("hactl: n1 in here: This cuts it off"), "{said}");
    let (code, said, _) = run(&["context", "show", "-o", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &shown["name"], &shown["current"]), (0, &"here".into(), &true.into()));
    assert!(shown["key"].as_str().unwrap().ends_with(".key"), "{shown}");
    let key = std::fs::read_to_string(shown["key"].as_str().unwrap()).unwrap();
    assert!(!said.contains(key.lines().nth(1).unwrap()), "{said}");
    daemon.end().await;
}

/// `hactl` while it runs; what it says is read line by line.
struct Running {
    child: Child,
    out: Option<BufReader<ChildStdout>>,
    err: BufReader<ChildStderr>,
}

impl Running {
    fn start(daemon: &Daemon, args: &[&str]) -> Running {
        let mut command = hactl_command(daemon, args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = child.stdout.take().map(BufReader::new);
        let err = BufReader::new(child.stderr.take().unwrap());
        Running { child, out, err }
    }

    /// The next line of standard output; waits for it.
    fn says(&mut self) -> String {
        let mut line = String::new();
        tokio::task::block_in_place(|| self.out.as_mut().unwrap().read_line(&mut line)).unwrap();
        line.trim_end().to_owned()
    }

    /// The next line of standard error; waits for it.
    fn tells(&mut self) -> String {
        let mut line = String::new();
        tokio::task::block_in_place(|| self.err.read_line(&mut line)).unwrap();
        line.trim_end().to_owned()
    }

    /// Exit code, and the rest of standard error.
    fn ends(mut self) -> (i32, String) {
        let mut rest = String::new();
        tokio::task::block_in_place(|| self.err.read_to_string(&mut rest)).unwrap();
        (self.child.wait().unwrap().code().unwrap(), rest)
    }
}

/// What the missing loop would have recorded.
struct Hand<'a> {
    daemon: &'a Daemon,
    leader: LeaderEpoch,
}

impl Hand<'_> {
    async fn propose(daemon: &Daemon, command: Command) -> LogIndex {
        let proposal = Proposal { at: clock::wall(), by: "member/m1".into(), command };
        let (index, applied) = daemon.store.propose(proposal).await.unwrap();
        applied.unwrap();
        index
    }

    async fn of(daemon: &Daemon) -> Hand<'_> {
        let took_over = Command::TookOver { member: MemberId(1), boot: BootId(7) };
        let index = Hand::propose(daemon, took_over).await;
        Hand { daemon, leader: LeaderEpoch(index.0) }
    }

    async fn step(&self, step: Step) -> LogIndex {
        Hand::propose(self.daemon, Command::Lead { leader: self.leader, step }).await
    }

    async fn begin(&self, node: &str) -> PlanId {
        let decision = Decision {
            instance: None,
            from: node.parse().unwrap(),
            spare: None,
            cause: Cause::Ordered,
            evidence: Evidence::default(),
            policy: ("cautious".parse().unwrap(), LogIndex(0)),
            gates: vec![],
            runners_up: vec![],
            shutdown: None,
            start: Start::PowerOn,
        };
        PlanId(self.step(Step::Begin(Box::new(decision))).await.0)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn following_ends_when_the_reader_has_gone() {
    let (_dir, daemon) = one_member().await;
    let mut following = Running::start(&daemon, &["events", "--follow"]);
    assert_eq!(run(&daemon, &["arm", "--reason", "x"]).0, 0);
    assert!(following.says().ends_with("admin armed the cluster: x"));
    following.out = None;
    assert_eq!(run(&daemon, &["disarm", "--reason", "x"]).0, 0);
    assert_eq!(following.ends(), (0, String::new()));
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_watched_is_shown_again_when_it_has_changed() {
    let (_dir, daemon) = one_member().await;
    let file = daemon.home.dir().join("nodes.toml");
    std::fs::write(&file, "[[node]]\nname = \"n1\"\n").unwrap();
    assert_eq!(run(&daemon, &["apply", "-f", file.to_str().unwrap()]).0, 0);
    let mut list = Running::start(&daemon, &["node", "list", "--watch", "-o", "json"]);
    let mut status = Running::start(&daemon, &["status", "-w"]);
    let cordoned = |line: &str| {
        let nodes: serde_json::Value = serde_json::from_str(line).unwrap();
        nodes[0]["cordoned"].as_bool().unwrap()
    };
    assert!(!cordoned(&list.says()));
    while !status.says().starts_with("Armed      no") {}
    assert_eq!(run(&daemon, &["node", "cordon", "n1"]).0, 0);
    assert!(cordoned(&list.says()));
    assert_eq!(run(&daemon, &["arm", "--reason", "x"]).0, 0);
    while !status.says().starts_with("Armed      yes") {}
    (list.out, status.out) = (None, None);
    assert_eq!(run(&daemon, &["node", "uncordon", "n1"]).0, 0);
    assert_eq!(run(&daemon, &["disarm", "--reason", "x"]).0, 0);
    assert_eq!((list.ends(), status.ends()), ((0, String::new()), (0, String::new())));
    assert_eq!(run(&daemon, &["node", "show", "n9", "--watch"]).0, 1, "it is not there");
    let (code, said, told) = run(&daemon, &["watch"]);
    assert!(code == 2 && said.is_empty() && told.contains("`hactl status --watch`"), "{said}{told}");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_and_its_past_are_watched() {
    let (_dir, daemon) = one_member().await;
    let mut policy = Running::start(&daemon, &["policy", "get", "quick", "--watch", "-o", "json"]);
    let mut past = Running::start(&daemon, &["policy", "history", "quick", "-w", "-o", "json"]);
    let read = |line: String| serde_json::from_str::<serde_json::Value>(&line).unwrap();
    assert_eq!(read(policy.says())["version"], 0);
    assert_eq!(read(past.says()).as_array().unwrap().len(), 1);
    let set = ["policy", "set", "quick", "detection.gray_after=9s", "--reason", "x"];
    assert_eq!(run(&daemon, &set).0, 0);
    assert_eq!(read(policy.says())["policy"]["detection"]["gray_after"], "9s");
    assert_eq!(read(past.says())[0]["order"]["reason"], "x");
    (policy.out, past.out) = (None, None);
    let set = ["policy", "set", "quick", "detection.gray_after=8s", "--reason", "y"];
    assert_eq!(run(&daemon, &set).0, 0);
    assert_eq!((policy.ends().0, past.ends().0), (0, 0));
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_is_told_each_phase_and_how_it_ended() {
    let (_dir, daemon) = one_member().await;
    let nodes: String = (1..=3)
        .map(|number| {
            format!(
                "[[node]]\nname = \"n{number}\"\n[[node.fencing]]\ndriver = \"ipmi\"\nuser = \"ha\"\n\
                 address = \"127.0.0.1:{number}\"\npassword = \"calvin\"\n"
            )
        })
        .collect();
    let file = daemon.home.dir().join("nodes.toml");
    std::fs::write(&file, nodes).unwrap();
    assert_eq!(run(&daemon, &["apply", "-f", file.to_str().unwrap()]).0, 0);
    let hand = Hand::of(&daemon).await;
    let fence =
        |node: &'static str, wait: &'static str| ["fence", node, "--reason", "x", "--yes", node, wait];

    let mut waiting = Running::start(&daemon, &fence("n1", "--wait"));
    assert_eq!(waiting.says(), "admin ordered to fence n1: x");
    let plan = hand.begin("n1").await;
    assert_eq!(waiting.tells(), format!("failover {plan}: n1 is fenced"));
    assert_eq!(waiting.tells(), format!("failover {plan}: reserved (after 0ms)"));
    let action = Action::PowerOff { node: "n1".parse().unwrap(), level: 0 };
    let token = hand.step(Step::Intend { plan, action }).await;
    assert!(waiting.tells().starts_with(&format!("failover {plan}: fencing (after ")));
    let outcome = Outcome::Done(Seen::OffTwice { already: false, took: Millis(340) });
    hand.step(Step::Resolve { token, outcome }).await;
    hand.step(Step::Place { plan, tried: Millis(400) }).await;
    let (code, told) = waiting.ends();
    assert_eq!(code, 0, "{told}");
    let last: Vec<&str> = told.lines().collect();
    assert!(last[0].starts_with(&format!("failover {plan}: done (after ")), "{told}");
    assert!(last[1].starts_with("n1 can touch nothing any more: "), "{told}");

    let mut waiting = Running::start(&daemon, &["node", "release", "n1", "--reason", "x", "--wait=1m"]);
    assert_eq!(waiting.says(), "admin released n1: x");
    assert_eq!(waiting.tells(), "n1 is being cleaned");
    hand.step(Step::Cleaned { node: "n1".parse().unwrap() }).await;
    assert_eq!(waiting.ends(), (0, "n1 is a spare\n".into()));

    let mut waiting = Running::start(&daemon, &fence("n2", "--wait"));
    waiting.says();
    let plan = hand.begin("n2").await;
    hand.step(Step::Stick { plan, why: Some("its BMC is gone".into()) }).await;
    let (code, told) = waiting.ends();
    assert!(
        code == 1 && told.ends_with(&format!("hactl: failover {plan} is stuck: its BMC is gone\n")),
        "{told}"
    );
    assert_eq!(run(&daemon, &["failover", "cancel", &plan.to_string(), "--reason", "x"]).0, 0);

    let mut cancelled = Running::start(&daemon, &fence("n3", "--wait"));
    cancelled.says();
    let plan = hand.begin("n3").await;
    cancelled.tells();
    assert_eq!(run(&daemon, &["failover", "cancel", &plan.to_string(), "--reason", "x"]).0, 0);
    assert!(matches!(cancelled.ends(), (1, told) if told.contains("was cancelled")));

    let (code, _, told) = run(&daemon, &fence("n3", "--wait=1ms"));
    assert!(code == 5 && told.contains("not done after 1ms, and it may go on"), "{told}");
    let led = (0, "member 1 leads\n".into(), "m1 leads\n".into());
    assert_eq!(run(&daemon, &["member", "transfer", "1", "--wait"]), led);
    assert_eq!(run(&daemon, &fence("n3", "--wait=soon")).0, 2);
    daemon.end().await;
}

/// The parts of an archive, by their names within its folder.
fn parts(archive: &Path) -> BTreeMap<String, String> {
    let file = std::fs::File::open(archive).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut parts = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().components().skip(1).collect::<PathBuf>().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        parts.insert(name, text);
    }
    parts
}

/// Neither these, nor a sealed one, nor a key of the member.
fn assert_no_secret(daemon: &Daemon, found: &BTreeMap<String, String>, plain: &[&str]) {
    let sealed =
        daemon.store.read(|state| state.nodes.values().next().unwrap().node.agent_key.clone().unwrap().0);
    let seal_key = std::fs::read_to_string(daemon.home.seal_key()).unwrap();
    let sealed = sealed.strip_prefix("sealed:v1:").unwrap();
    let secrets = [plain, &["sealed:v1:", sealed, seal_key.trim(), "PRIVATE KEY"]].concat();
    for (name, text) in found {
        for secret in &secrets {
            assert!(!text.contains(secret), "{name} holds {secret}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_debug_bundle_has_everything_but_secrets() {
    let (_dir, daemon) = one_member().await;
    let home = daemon.home.dir();
    let inventory = home.join("inventory.toml");
    let agent_key = "5ec7e7".repeat(11)[..64].to_owned();
    let text = format!(
        "[[provider]]\nkind = \"rack\"\nname = \"rack\"\nurl = \"http://127.0.0.1:1\"\ntoken = \"geheim-rack\"\n\
         [[node]]\nname = \"n1\"\nagent_key = \"{agent_key}\"\n[[node.fencing]]\ndriver = \"ipmi\"\n\
         address = \"127.0.0.1:623\"\nuser = \"ha\"\npassword = \"geheim-bmc\"\n\
         [[instance]]\nname = \"web\"\nnode = \"n1\"\npolicy = \"quick\"\n"
    );
    std::fs::write(&inventory, text).unwrap();
    let (code, _, told) = run(&daemon, &["apply", "-f", inventory.to_str().unwrap()]);
    assert_eq!(code, 0, "{told}");
    let hand = Hand::of(&daemon).await;
    let plan = hand.begin("n1").await;
    // A token that slipped into a reason is hidden as well.
    let tokens = daemon.home.tokens();
    let (token, _) = create_token(&tokens, "asker", Role::Operator, clock::wall()).unwrap();
    let context = token_context(&daemon, &token);
    let with_token = ["--context", context.to_str().unwrap()];
    let arm = [&with_token[..], &["arm", "--reason", &token]].concat();
    assert_eq!(run(&daemon, &arm).0, 0);
    // The history is written behind the log.
    let is_written = || run(&daemon, &["events"]).1.contains("armed the cluster");
    until("the history has the arming", is_written).await;

    let file = home.join("bundle.tar.gz");
    let bundle = [&with_token[..], &["debug", "bundle", file.to_str().unwrap()]].concat();
    let (code, said, told) = run(&daemon, &bundle);
    assert_eq!(code, 0, "{told}");
    assert!(said.contains("  status.json\n") && said.ends_with("Nothing was sent anywhere.\n"), "{said}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let found = parts(&file);
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    let (failover, member) = (format!("failovers/{plan}.json"), "members/m1");
    for part in [
        "events.json",
        "failovers.json",
        &failover,
        "hactl.json",
        "instances.json",
        "instances/web.json",
        &format!("{member}/members.json"),
        &format!("{member}/metrics.txt"),
        &format!("{member}/version.json"),
        "nodes.json",
        "nodes/n1.json",
        "policies.json",
        "status.json",
    ] {
        assert!(found.contains_key(part), "{part} is not among {names:?}");
    }
    assert!(
        found["events.json"].contains("armed the cluster")
            && found["nodes/n1.json"].contains("127.0.0.1:623")
    );
    assert_eq!(found["members/m1/version.json"], format!("{:?}", env!("CARGO_PKG_VERSION")));
    assert!(found["members/m1/metrics.txt"].contains("ha_"), "{}", found["members/m1/metrics.txt"]);

    assert_no_secret(&daemon, &found, &["geheim", &agent_key, &token]);

    // Nothing is overwritten unasked.
    std::fs::write(&file, "mine").unwrap();
    let (code, _, told) = run(&daemon, &bundle);
    assert!(code == 2 && told.contains("say --force"), "{told}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    assert_eq!(run(&daemon, &[&bundle[..], &["--force", "--events", "1", "-o", "json"]].concat()).0, 0);
    let events: serde_json::Value = serde_json::from_str(&parts(&file)["events.json"]).unwrap();
    assert_eq!(events["events"].as_array().unwrap().len(), 1);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go_and_what_is_left_is_still_bundled() {
    let (dir, one) = one_member().await;
    let file = dir.path().join("m2.bundle");
    let addrs = addresses();
    let (member, api) = (addrs.member.clone(), addrs.api.clone());
    init::invite(&one.home, MemberId(2), addrs, &file, jiff::Timestamp::now()).unwrap();
    let home = Home::new(dir.path().join("m2"));
    init::join(&home, &file).unwrap();
    let add = ["member", "add", "2", "--member-addr", &member, "--api-addr", &api];

    // Nobody is there yet: it is a learner that does not answer.
    let early = [&add[..], &["--learner", "--wait=100ms"]].concat();
    let (code, said, told) = run(&one, &early);
    assert_eq!((code, said.as_str()), (5, "admin notes: added m2 as a learner\n"), "{told}");
    let two = Daemon::start(home).await;
    let (code, _, told) = run(&one, &[&add[..], &["--learner", "--wait"]].concat());
    assert!(code == 0 && told.ends_with("m2 has caught up\n"), "{told}");

    // With a vote that is never given there is no quorum, and only one member's memory to be had.
    assert_eq!(run(&one, &add).0, 0);
    two.end().await;
    let file = dir.path().join("bundle.tar.gz");
    let bundle = ["--timeout", "1s", "debug", "bundle", file.to_str().unwrap()];
    let (code, said, told) = run(&one, &bundle);
    assert!(
        code == 0 && said.contains("  missing: members/m2/members.json: no member can be reached"),
        "{told}"
    );
    let found = parts(&file);
    assert!(found["hactl.json"].contains("no quorum stands behind this"), "{}", found["hactl.json"]);
    assert!(found.contains_key("policies.json") && found.contains_key("members/m1/metrics.txt"));
    one.end().await;
}

/// A terminal of 80 by 24, as a shell would have it: our end, and the end for the program.
fn terminal() -> (std::fs::File, std::fs::File) {
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let pair = openpty(Some(&size), None).unwrap();
    (pair.master.into(), pair.slave.into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_terminal_is_given_back_as_it_was() {
    let (_dir, daemon) = one_member().await;
    for keys in [&b"q"[..], b"\x1b", b"\x03"] {
        let (mut ours, its) = terminal();
        let before = tcgetattr(&its).unwrap();
        let mut command = hactl_command(&daemon, &["watch"]);
        let end = || Stdio::from(its.try_clone().unwrap());
        let mut child =
            command.env("TERM", "xterm").stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        // It draws every second, so that a read comes back and the deadline is seen.
        let mut seen = Vec::new();
        let began = Instant::now();
        let has = |seen: &[u8], text: &str| String::from_utf8_lossy(seen).contains(text);
        while !has(&seen, "Events") {
            assert!(began.elapsed() < PATIENCE, "{}", String::from_utf8_lossy(&seen));
            let mut bytes = [0; 4096];
            let count = tokio::task::block_in_place(|| ours.read(&mut bytes)).unwrap();
            seen.extend_from_slice(&bytes[..count]);
        }
        assert!(!tcgetattr(&its).unwrap().local_flags.contains(LocalFlags::ICANON), "keys come at once");
        ours.write_all(keys).unwrap();
        let ended = tokio::task::block_in_place(|| child.wait()).unwrap();
        assert_eq!(ended.code(), Some(0), "{keys:?}");
        assert_eq!(tcgetattr(&its).unwrap(), before, "{keys:?}");
        let mut bytes = [0; 65_536];
        let count = ours.read(&mut bytes).unwrap();
        seen.extend_from_slice(&bytes[..count]);
        assert!(has(&seen, "\x1b[?1049l") && has(&seen, "\x1b[?25h"), "the screen and the cursor come back");
    }
    daemon.end().await;
}
