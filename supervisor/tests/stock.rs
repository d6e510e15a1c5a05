//! The real `hactl` against a real member: spares come and go, things are deleted, and what takes cover away is asked for
//! twice.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what a test did not expect must end it; the helpers of tests are tests too"
)]

mod daemon;

use daemon::*;
use nix::pty::openpty;
use policies::*;
use std::io::Write;
use std::process::Stdio;
use supervisor::clock;

/// Exit code, standard output, standard error.
fn run(daemon: &Daemon, args: &[&str]) -> (i32, String, String) {
    let output = hactl(daemon, args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn write(daemon: &Daemon, name: &str, text: &str) -> String {
    let path = daemon.home.dir().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

async fn propose(daemon: &Daemon, command: Command) -> LogIndex {
    let proposal = Proposal { at: clock::wall(), by: "member/m1".into(), command };
    let (index, applied) = daemon.store.propose(proposal).await.unwrap();
    applied.unwrap();
    index
}

/// `web` on n1, which is healthy and has a serial number; no spare.
async fn cluster() -> (tempfile::TempDir, Daemon) {
    let (dir, daemon) = one_member().await;
    let inventory = "[[provider]]\nname = \"rack\"\nkind = \"rack\"\nurl = \"http://127.0.0.1:1\"\ntoken = \"t-secret\"\n\
                     [[node]]\nname = \"n1\"\nidentity = { serial = \"CZJ0123456\" }\ndomains = { rack = \"r1\" }\n\
                     ports = [{ provider = \"rack\", port = \"sw1/1\" }]\nprobe = { tcp = \"127.0.0.1:22\" }\n\
                     [[node.fencing]]\ndriver = \"ipmi\"\naddress = \"127.0.0.1:1\"\nuser = \"ha\"\npassword = \"p-secret\"\n\
                     [[instance]]\nname = \"web\"\nnode = \"n1\"\npolicy = \"quick\"\n\
                     networks = [{ vlan = 10 }]\n";
    let file = write(&daemon, "inventory.toml", inventory);
    assert_eq!(run(&daemon, &["apply", "-f", &file]).0, 0);
    let leader =
        LeaderEpoch(propose(&daemon, Command::TookOver { member: MemberId(1), boot: BootId(7) }).await.0);
    let (node, evidence) = ("n1".parse().unwrap(), Evidence::default());
    let step = Step::Judge { node, verdict: Verdict::Healthy, evidence };
    propose(&daemon, Command::Lead { leader, step }).await;
    (dir, daemon)
}

fn add(daemon: &Daemon, name: &str, bmc: &str, password: &str) -> (i32, String, String) {
    let port = format!("rack/sw1/{name}");
    let spare = ["spare", "add", name, "--bmc", bmc, "--user", "ha", "--password-file", password];
    run(daemon, &[&spare[..], &["--domain", "rack=r2", "--port", &port]].concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spare_comes_covers_and_goes() {
    let (_dir, daemon) = cluster().await;
    let password = write(&daemon, "s1.pw", "calvin-secret\nnot this line\n");
    let (code, said, _) = add(&daemon, "s1", "127.0.0.9", &password);
    assert!(code == 0 && said.contains("node/s1 created"), "{said}");
    let stored = daemon.store.read(|state| serde_json::to_string(state).unwrap());
    assert!(stored.contains("127.0.0.9:623") && !stored.contains("-secret"), "{stored}");
    let (code, _, said) = add(&daemon, "s1", "127.0.0.8", &password);
    assert!(code == 1 && said.contains("s1 is there already (spare)"), "{said}");
    let empty = write(&daemon, "empty.pw", "\n");
    let (code, _, said) = add(&daemon, "s9", "127.0.0.8", &empty);
    assert!(code == 2 && said.contains("no password in its first line"), "{said}");

    let (code, said, _) = run(&daemon, &["spare", "list", "-o", "json"]);
    let listed: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &listed[0]["name"], &listed[0]["covers"][0]), (0, &"s1".into(), &"web".into()));

    // It is the only one: cordon, maintenance and removal are refused, unless forced.
    for order in [
        &["node", "cordon", "s1"][..],
        &["node", "maintenance", "on", "s1", "--reason", "x"],
        &["spare", "remove", "s1", "--reason", "x", "--yes", "s1"],
        &["policy", "set", "quick", "acting.mode=shadow", "--reason", "x"],
    ] {
        let before = daemon.store.read(|state| state.applied);
        let (code, said, told) = run(&daemon, order);
        assert!(code == 1 && said.is_empty(), "{order:?}: {said}{told}");
        assert!(told.contains("without cover, so nothing was changed: instance/web: "), "{told}");
        assert!(told.contains("`--force`"), "{told}");
        assert_eq!(daemon.store.read(|state| state.applied), before);
    }
    let (code, said, _) = run(&daemon, &["node", "cordon", "s1", "--force"]);
    assert!(
        code == 0 && said.contains("admin cordoned s1\nadmin forced this, although it takes cover away: "),
        "{said}"
    );
    // Now nothing is covered by it, and nothing needs force.
    assert_eq!(run(&daemon, &["node", "maintenance", "on", "s1", "--reason", "x"]).0, 0);
    let (code, _, said) = run(&daemon, &["spare", "remove", "s1", "--reason", "x", "--yes", "s2"]);
    assert!(code == 2 && said.contains("\"s2\" is not \"s1\": nothing was done"), "{said}");
    let (code, said, _) = run(&daemon, &["spare", "remove", "s1", "--reason", "RMA", "--yes", "s1"]);
    assert_eq!((code, said.as_str()), (0, "admin deleted node/s1: RMA\n"));
    assert!(run(&daemon, &["spare", "list"]).1.starts_with("There is no spare"));
    assert_eq!(add(&daemon, "s1", "127.0.0.9", &password).0, 0, "the name may be used again");
    daemon.end().await;
}

/// Runs `hactl` at a terminal where this is typed.
fn typed(daemon: &Daemon, args: &[&str], answer: &str) -> (i32, String, String) {
    let pair = openpty(None, None).unwrap();
    let mut command = hactl_command(daemon, args);
    command.stdin(Stdio::from(pair.slave)).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut terminal = std::fs::File::from(pair.master);
    writeln!(terminal, "{answer}").unwrap();
    let output = tokio::task::block_in_place(|| command.output()).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_a_terminal_it_is_asked_whether_to_do_it_anyway() {
    let (_dir, daemon) = cluster().await;
    let password = write(&daemon, "s1.pw", "calvin-secret\n");
    assert_eq!(add(&daemon, "s1", "127.0.0.9", &password).0, 0);
    let cordon = ["node", "cordon", "s1"];
    for no in ["", "n", "what?"] {
        let (code, _, said) = typed(&daemon, &cordon, no);
        assert!(code == 1 && said.contains("Do it anyway? [y/N] "), "{said}");
        assert!(daemon.store.read(|state| !state.nodes[&"s1".parse::<NodeId>().unwrap()].cordoned));
    }
    let (code, said, _) = typed(&daemon, &cordon, "y");
    assert!(code == 0 && said.contains("admin forced this"), "{said}");
    let (code, _, said) = typed(&daemon, &["fence", "n1", "--reason", "x"], "n1");
    assert!(code == 2 && said.contains("Type the serial number that is printed on n1 to go on: "), "{said}");
    assert_eq!(typed(&daemon, &["fence", "n1", "--reason", "x"], "CZJ0123456").0, 0);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_serial_number_must_be_typed_where_it_is_known() {
    let (_dir, daemon) = cluster().await;
    let fence =
        |yes: &'static [&'static str]| run(&daemon, &[&["fence", "n1", "--reason", "x"][..], yes].concat());
    for yes in [&[][..], &["--yes", "n1"], &["--yes", "CZJ012345"]] {
        let (code, _, said) = fence(yes);
        assert!(code == 2 && said.contains("serial number") && !said.contains("CZJ0123456"), "{said}");
    }
    let (code, _, said) = run(&daemon, &["instance", "evacuate", "web", "--reason", "x", "--yes", "web"]);
    assert!(code == 2 && said.contains("\"web\" is not the serial number of n1"), "{said}");
    let evacuate = ["instance", "evacuate", "web", "--reason", "x", "--yes", "CZJ0123456"];
    assert_eq!(run(&daemon, &evacuate).0, 0);
    assert_eq!(fence(&["--yes", "czj0123456"]).0, 0);
    assert!(run(&daemon, &["node", "show", "n1"]).1.contains("CZJ0123456"));
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_use_is_not_deleted() {
    let (_dir, daemon) = cluster().await;
    let (code, _, said) = run(&daemon, &["provider", "delete", "rack", "--reason", "x"]);
    assert!(code == 1 && said.contains("node/n1 rely on it"), "{said}");
    let (code, _, said) = run(&daemon, &["node", "delete", "n1", "--reason", "x", "--yes", "CZJ0123456"]);
    assert!(code == 1 && said.contains("it carries web; move that away or delete it first"), "{said}");
    let (code, said, _) =
        run(&daemon, &["instance", "delete", "web", "--reason", "moved to the cloud", "--yes", "web"]);
    assert!(code == 0 && said.contains("n1 is cordoned: what runs there goes on"), "{said}");
    let found = daemon.store.read(|state| state.nodes[&"n1".parse::<NodeId>().unwrap()].clone());
    assert!(found.cordoned && matches!(found.state, NodeState::Cleaning { plan: None, .. }), "{found:?}");
    // Without the leader's loop nobody says that it has drained.
    let leader = daemon.store.read(|state| state.leadership.unwrap().epoch);
    let step = Step::Cleaned { node: "n1".parse().unwrap() };
    propose(&daemon, Command::Lead { leader, step }).await;
    assert_eq!(run(&daemon, &["node", "delete", "n1", "--reason", "x", "--yes", "CZJ0123456"]).0, 0);
    let (code, said, _) = run(&daemon, &["provider", "list"]);
    let row: Vec<&str> = said.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((code, row), (0, vec!["rack", "rack", "http://127.0.0.1:1", "0", "0"]));
    assert_eq!(run(&daemon, &["provider", "delete", "rack", "--reason", "x"]).0, 0);
    assert!(run(&daemon, &["provider", "list"]).1.starts_with("No providers"));
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_switched_and_interrupted_by_hand_where_no_failover_is_crossed() {
    let (_dir, daemon) = cluster().await;
    let password = write(&daemon, "s1.pw", "calvin-secret\n");
    assert_eq!(add(&daemon, "s1", "127.0.0.9", &password).0, 0);
    let (code, said, _) = run(&daemon, &["node", "power", "status", "s1"]);
    assert!(code == 1 && said.contains("not read at ipmi:127.0.0.9:623"), "{said}");
    let (code, _, said) = run(&daemon, &["node", "power", "status", "s9"]);
    assert!(code == 1 && said.contains("there is no node s9"), "{said}");

    let off = ["node", "power", "off", "s1", "--reason", "new DIMMs"];
    let (code, _, said) = run(&daemon, &off);
    assert!(code == 2 && said.contains("--yes s1"), "{said}");
    let (code, said, _) = run(&daemon, &[&off[..], &["--yes", "s1"]].concat());
    assert!(
        code == 0 && said.starts_with("admin ordered to power off s1 (level 1) by hand: new DIMMs (i"),
        "{said}"
    );
    let on = ["node", "power", "on", "s1", "--reason", "at once"];
    let (code, _, said) = run(&daemon, &on);
    assert!(code == 1 && said.contains("`power off s1 (level 1)` is already under way as i"), "{said}");

    // What is in service is not switched; its kernel may be interrupted, by whoever knows its serial number.
    let (code, _, said) =
        run(&daemon, &["node", "power", "off", "n1", "--reason", "x", "--yes", "CZJ0123456"]);
    assert!(code == 1 && said.contains("n1 is active with web, not in maintenance: `hactl node"), "{said}");
    let nmi = ["node", "nmi", "n1", "--reason", "it hangs", "--yes"];
    assert_eq!(run(&daemon, &[&nmi[..], &["n1"]].concat()).0, 2);
    let (code, said, _) = run(&daemon, &[&nmi[..], &["CZJ0123456"]].concat());
    assert!(
        code == 0 && said.starts_with("admin ordered to interrupt n1 (NMI) by hand: it hangs (i"),
        "{said}"
    );
    let (_, said, _) = run(&daemon, &["node", "show", "n1"]);
    assert!(said.contains("interrupt n1 (NMI) - under way; admin: it hangs"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_is_backed_up_where_its_policy_keeps_backups() {
    let (_dir, daemon) = cluster().await;
    let backup = ["instance", "backup", "web", "--reason", "before the upgrade"];
    let (code, _, said) = run(&daemon, &backup);
    assert!(code == 1 && said.contains("instance/web: it has no volumes that could be kept"), "{said}");
    let volumes = "[[provider]]\nname = \"pxe\"\nkind = \"boot\"\nurls = [\"http://127.0.0.1:1\"]\nimages = {}\n\
                   [[instance]]\nname = \"web\"\nnode = \"n1\"\npolicy = \"quick\"\nnetworks = [{ vlan = 10 }]\n\
                   volumes = [{ provider = \"rack\", volume = \"vol-web\" }, { provider = \"pxe\", volume = \"vol-db\" }]\n";
    let file = write(&daemon, "volumes.toml", volumes);
    let (code, _, said) = run(&daemon, &["apply", "-f", &file]);
    assert!(code == 0, "{said}");
    let (code, _, said) = run(&daemon, &backup);
    assert!(
        code == 1 && said.contains("policy quick keeps no backups; `hactl policy set quick backups.kept=3")
    );
    let (code, said, _) = run(&daemon, &["policy", "lint"]);
    assert!(code == 0 && said.starts_with("Nothing that policies want"), "{said}");

    // Which storage cannot is said before it is set, and after.
    let cannot =
        "instance/web: policy quick wants backups of volume vol-db at pxe: the boot service has no volumes";
    let (code, said, _) = run(&daemon, &["policy", "plan", "quick", "backups.kept=3"]);
    assert!(code == 1 && said.contains(cannot), "{said}");
    assert_eq!(run(&daemon, &["policy", "set", "quick", "backups.kept=3", "--reason", "upgrades"]).0, 0);
    let (code, said, _) = run(&daemon, &["policy", "lint"]);
    assert_eq!((code, said), (1, format!("{cannot}\n")));

    // Nobody decides in this test: what the leader would do is written by hand.
    let mut order = hactl_command(&daemon, &[&backup[..], &["--wait=20s"]].concat());
    let order = order.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let web: InstanceId = "web".parse().unwrap();
    let backups = || daemon.store.read(|state| state.instances[&web].backups.clone());
    until("it is ordered", || !backups().is_empty()).await;
    let (code, _, said) = run(&daemon, &backup);
    assert!(code == 1 && said.contains("is already under way as i"), "{said}");
    let (code, _, said) =
        run(&daemon, &["instance", "delete", "web", "--reason", "x", "--yes", "web", "--force"]);
    assert!(code == 1 && said.contains("admin ordered backup b"), "{said}");
    let (leader, id) = (daemon.store.read(|state| state.leadership).unwrap().epoch, backups()[0].id);
    let refused = Refusal::NotConfigured("the boot service has no volumes".to_owned());
    let ends = [Outcome::Done(Seen::ReadBack(format!("snapshots ha-{id}"))), Outcome::Refused(refused)];
    for (action, outcome) in backups()[0].actions.clone().into_iter().zip(ends) {
        let step = Step::Keep { instance: web.clone(), action };
        let token = propose(&daemon, Command::Lead { leader, step }).await;
        propose(&daemon, Command::Lead { leader, step: Step::Resolve { token, outcome } }).await;
    }
    let output = tokio::task::block_in_place(|| order.wait_with_output()).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains(&format!("keep vol-web as snapshot ha-{id}: done: read back snapshots ha-{id}")),
        "{said}"
    );
    assert!(said.contains(&format!("backup {id} of web: only 1 of 2 volumes were kept")), "{said}");
    let (_, said, _) = run(&daemon, &["instance", "show", "web"]);
    assert!(said.contains(&format!("{id}: 1 of 2 kept; admin: before the upgrade")), "{said}");
    assert!(said.contains("vol-db at pxe: none, not configured: the boot service has no volumes"), "{said}");
    let (_, said, _) = run(&daemon, &["events", "--about", "instance/web"]);
    assert!(said.contains(&format!("backup {id} of web is over: 1 of 2 volumes kept")), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_console_is_read_where_it_is_listened_to() {
    let (_dir, daemon) = cluster().await;
    let (code, _, said) = run(&daemon, &["node", "console", "n1", "--once"]);
    assert!(code == 1 && said.contains("`console = true`"), "{said}");
    let described = daemon.store.read(|state| state.nodes[&"n1".parse::<NodeId>().unwrap()].node.clone());
    let mut node = (*described).clone();
    let FenceDevice::Ipmi { console, password, .. } = &mut node.fencing[0] else { panic!("no IPMI") };
    (*console, *password) = (true, Sealed("p-secret".into()));
    let text = toml::to_string(&Documents { nodes: vec![node], ..Documents::default() }).unwrap();
    assert!(text.contains("console = true"), "{text}");
    let file = write(&daemon, "console.toml", &text);
    let (code, _, said) = run(&daemon, &["apply", "-f", &file]);
    assert!(code == 0, "{said}");
    let (code, said, how) = run(&daemon, &["node", "console", "n1", "--once"]);
    assert_eq!((code, said.as_str()), (0, "Kernel panic - not syncing\r\n"), "{how}");
    assert_eq!(how, "[n1: listened to since 1970-01-01T00:00:00Z]\n");
    let (_, said, _) = run(&daemon, &["node", "show", "n1"]);
    assert!(said.contains("its console is listened to"), "{said}");
}
