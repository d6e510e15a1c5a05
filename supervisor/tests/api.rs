//! The API over real TLS with real stores: who is let in, who is sent where, what is committed, what is refused.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what a test did not expect must end it; the helpers of tests are tests too"
)]

mod daemon;

use daemon::*;
use policies::flight::{Duty, Fact, Record, Sign, Standing};
use policies::{BootId, Documents, Epoch, MemberId, Millis, Wall};
use reqwest::Method;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use supervisor::api::answers::{Committed, Events, Members, NodeDetail, Status};
use supervisor::api::{Applying, Code, NewMember, Reason};
use supervisor::auth::{Role, create_token};
use supervisor::client::{Client, ClientError};
use supervisor::clock;
use supervisor::config::Home;
use supervisor::init;

fn code(error: &ClientError) -> Option<Code> {
    match error {
        ClientError::Refused(problem) => Some(problem.code),
        _ => None,
    }
}

fn reason() -> Reason {
    Reason { reason: "because".into() }
}

fn node(text: &str) -> Applying {
    let documents: Documents = toml::from_str(text).unwrap();
    Applying { documents }
}

const NODE: &str = "[[node]]\nname = \"n1\"\n[[node.fencing]]\ndriver = \"ipmi\"\naddress = \"127.0.0.1:623\"\n\
                    user = \"ha\"\npassword = \"calvin-secret\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_decides_what_is_allowed() {
    let (_dir, daemon) = one_member().await;
    let nobody = Client::open(&token_context(&daemon, "hat_0000"), PATIENCE).unwrap();
    let refused = nobody.get::<Status>("/v1/status").await.unwrap_err();
    assert_eq!(code(&refused), Some(Code::NotAuthenticated));
    for path in ["/healthz", "/metrics", "/openapi.json", "/v1/events", "/nowhere"] {
        let refused = nobody.get::<serde_json::Value>(path).await.unwrap_err();
        assert_eq!(code(&refused), Some(Code::NotAuthenticated), "{path}");
    }
    let (token, _) = create_token(&daemon.home.tokens(), "grafana", Role::Reader, clock::wall()).unwrap();
    let reader = Client::open(&token_context(&daemon, &token), PATIENCE).unwrap();
    assert_eq!(reader.get::<Status>("/v1/status").await.unwrap().cluster, "test");
    let refused = reader.order::<Committed>(Method::POST, "/v1/arm", &reason()).await.unwrap_err();
    assert_eq!(code(&refused), Some(Code::NotAllowed));
    assert!(!daemon.store.read(|state| state.armed.armed));

    let (token, _) = create_token(&daemon.home.tokens(), "deploy", Role::Operator, clock::wall()).unwrap();
    let operator = Client::open(&token_context(&daemon, &token), PATIENCE).unwrap();
    operator.order::<Committed>(Method::POST, "/v1/arm", &reason()).await.unwrap();
    assert_eq!(daemon.store.read(|state| state.armed.order.by.clone()), "token/deploy");
    daemon.client().order::<Committed>(Method::POST, "/v1/disarm", &reason()).await.unwrap();
    assert_eq!(daemon.store.read(|state| state.armed.order.by.clone()), "admin");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_another_cluster_open_nothing() {
    let (_dir, daemon) = one_member().await;
    let (_other_dir, other) = one_member().await;
    let context = |text: String, name: &str| {
        let path = other.home.dir().join(name);
        std::fs::write(&path, text).unwrap();
        Client::open(&path, Duration::from_secs(1)).unwrap()
    };
    let theirs = std::fs::read_to_string(other.home.hactl()).unwrap();
    let here = theirs.replace(&other.config.member.api_addr, &daemon.config.member.api_addr);
    // They do not trust us ...
    let refused = context(here.clone(), "here.toml").get::<Status>("/v1/status").await.unwrap_err();
    assert!(
        matches!(&refused, ClientError::Unreachable(why) if why[0].contains("certificate")),
        "{refused:?}"
    );
    // ... and if they did, their certificate would not be trusted here, and the order certainly not be carried out.
    let ca = format!("ca = \"{}\"", daemon.home.ca_cert().display());
    let trusting = context(here.replace("ca = \"ca.pem\"", &ca), "trusting.toml");
    let refused = trusting.order::<Committed>(Method::POST, "/v1/arm", &reason()).await.unwrap_err();
    assert!(matches!(refused, ClientError::Unreachable(_)), "{refused:?}");
    assert!(!daemon.store.read(|state| state.armed.armed));
    daemon.end().await;
    other.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_strangers_do_not_hold_the_places_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::new(dir.path().join("m1"));
    init::init(&home, MemberId(1), "test", addresses(), jiff::Timestamp::now()).unwrap();
    let text = std::fs::read_to_string(home.config()).unwrap();
    let limits = "\n[api]\nconnections_max = 2\nheader_time_max = \"100ms\"\n";
    std::fs::write(home.config(), text + limits).unwrap();
    let daemon = Daemon::start(home).await;
    daemon.leads().await;
    let address = daemon.config.member.api_addr.clone();
    let strangers: Vec<_> = (0..5).map(|_| std::net::TcpStream::connect(&address).unwrap()).collect();
    assert_eq!(daemon.client().get::<Status>("/v1/status").await.unwrap().cluster, "test");
    drop(strangers);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_sealed_on_the_way_in_and_hidden_on_the_way_out() {
    let (_dir, daemon) = one_member().await;
    let client = daemon.client();
    let apply =
        async |text: &str| client.order::<serde_json::Value>(Method::POST, "/v1/apply", &node(text)).await;
    let first = apply(NODE).await.unwrap();
    assert_eq!(first["objects"][0]["change"], "created");
    let again = apply(NODE).await.unwrap();
    assert_eq!(
        (&again["objects"][0]["change"], &again["index"]),
        (&"unchanged".into(), &serde_json::Value::Null)
    );
    let changed = apply(&NODE.replace("calvin", "hobbes")).await.unwrap();
    assert_eq!(changed["objects"][0]["change"], "configured");

    let stored = daemon.store.read(|state| serde_json::to_string(state).unwrap());
    assert!(stored.contains("sealed:v1:") && !stored.contains("-secret"), "{stored}");
    let shown = serde_json::to_string(&client.get::<NodeDetail>("/v1/nodes/n1").await.unwrap()).unwrap();
    assert!(shown.contains("sealed:unchanged") && !shown.contains("sealed:v1:"), "{shown}");
    let kept = apply(&NODE.replace("calvin-secret", "sealed:unchanged")).await.unwrap();
    assert_eq!(kept["objects"][0]["change"], "unchanged");
    until("the history is written", || {
        let store = daemon.store.clone();
        let search = async move { store.history().query(raft_store::Query::default()).await };
        let found =
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(search)).unwrap();
        let text = serde_json::to_string(&found).unwrap();
        assert!(!text.contains("-secret"));
        found.len() >= 2
    })
    .await;
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_name_the_key_and_change_nothing() {
    let (_dir, daemon) = one_member().await;
    let client = daemon.client();
    let problem = |error: ClientError| match error {
        ClientError::Refused(problem) => problem,
        other => panic!("{other:?}"),
    };
    let body = serde_json::json!({ "raeson": "x" });
    let refused = problem(client.order::<Committed>(Method::POST, "/v1/arm", &body).await.unwrap_err());
    assert_eq!(refused.code, Code::BadRequest);
    assert!(refused.error.contains("`raeson`") && refused.hint.contains("`reason`"), "{refused:?}");

    let twice = format!("{NODE}{NODE}");
    let refused = client.order::<Committed>(Method::POST, "/v1/apply", &node(&twice)).await.unwrap_err();
    assert!(problem(refused).error.contains("node/n1 is described twice"));
    assert!(daemon.store.read(|state| state.nodes.is_empty()));

    let refused = client.order::<Committed>(Method::POST, "/v1/nodes/n9/fence", &reason()).await.unwrap_err();
    assert_eq!(problem(refused).code, Code::Rejected);
    let refused =
        client.order::<Committed>(Method::POST, "/v1/nodes/N%209/fence", &reason()).await.unwrap_err();
    assert_eq!(problem(refused).code, Code::BadRequest);
    let refused = client.get::<serde_json::Value>("/v1/nodes/n9").await.unwrap_err();
    assert_eq!(problem(refused).code, Code::NotThere);
    let refused = client.get::<serde_json::Value>("/v1/events?sinse=1").await.unwrap_err();
    assert!(problem(refused).error.contains("sinse"));
    let large = Reason { reason: "x".repeat(daemon.config.api.body_bytes_max) };
    let refused = client.order::<Committed>(Method::POST, "/v1/arm", &large).await.unwrap_err();
    assert_eq!(problem(refused).code, Code::TooLarge);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_member_joins_and_sends_what_is_the_leaders_to_the_leader() {
    let (dir, one) = one_member().await;
    let bundle = dir.path().join("m2.bundle");
    let addrs = addresses();
    let new = NewMember { id: MemberId(2), member_addr: addrs.member.clone(), api_addr: addrs.api.clone() };
    init::invite(&one.home, MemberId(2), addrs, &bundle, jiff::Timestamp::now()).unwrap();
    let home = Home::new(dir.path().join("m2"));
    init::join(&home, &bundle).unwrap();
    let two = Daemon::start(home).await;
    let client = one.client();
    client.order::<Committed>(Method::POST, "/v1/members", &new).await.unwrap();
    let promoted = client.order::<Committed>(Method::POST, "/v1/members/2/promote", &()).await.unwrap();
    assert!(promoted.events[0].text.contains("made m2 a voter"), "{promoted:?}");

    // A context that knows only the follower.
    let text = std::fs::read_to_string(one.home.hactl()).unwrap();
    let only_two = text.replace(&format!("\"https://{}\",", one.config.member.api_addr), "");
    let path = one.home.dir().join("two.toml");
    std::fs::write(&path, only_two.replace(&format!("\"https://{}\", ", one.config.member.api_addr), ""))
        .unwrap();
    let by_two = Client::open(&path, PATIENCE).unwrap();
    until("member 2 sees the leader", || two.store.leader().is_some()).await;
    let members = by_two.get::<Members>("/v1/members").await.unwrap();
    assert_eq!((members.answered_by, members.members.len()), (MemberId(2), 2));
    assert_eq!(by_two.get::<Status>("/v1/status").await.unwrap().answered_by, MemberId(1));
    by_two.order::<Committed>(Method::POST, "/v1/arm", &reason()).await.unwrap();
    assert!(one.store.read(|state| state.armed.armed));
    let local = by_two.get::<Status>("/v1/status?local=true").await.unwrap();
    assert_eq!((local.answered_by, local.local), (MemberId(2), true));

    // Without the leader two members have no quorum: nothing is changed, and it is said.
    one.end().await;
    let hasty = Client::open(&path, Duration::from_secs(3)).unwrap();
    until("member 2 has noticed", || two.store.leader().is_none()).await;
    let refused = hasty.order::<Committed>(Method::POST, "/v1/disarm", &reason()).await.unwrap_err();
    assert_eq!(code(&refused), Some(Code::NoQuorum), "{refused:?}");
    assert!(two.store.read(|state| state.armed.armed));
    assert!(hasty.get::<Status>("/v1/status?local=true").await.unwrap().local);
    two.end().await;
    let gone = hasty.get::<Status>("/v1/status").await.unwrap_err();
    assert!(matches!(gone, ClientError::Unreachable(_)), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_followed_without_a_gap() {
    let (_dir, daemon) = one_member().await;
    let client = daemon.client();
    client.order::<Committed>(Method::POST, "/v1/arm", &reason()).await.unwrap();
    let mut stream = client.stream("/v1/events/follow").await.unwrap();
    client.order::<Committed>(Method::POST, "/v1/disarm", &reason()).await.unwrap();
    let mut seen = String::new();
    while seen.lines().count() < 2 {
        let chunk = tokio::time::timeout(PATIENCE, stream.chunk()).await.unwrap().unwrap().unwrap();
        seen.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    assert!(seen.find(" armed the cluster").unwrap() < seen.find("disarmed the cluster").unwrap(), "{seen}");
    let events = client.get::<Events>("/v1/events?limit=1").await.unwrap().events;
    assert!(events[0].text.contains("disarmed"), "{events:?}");
    drop(stream);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_port_harms_nobody() {
    let (_dir, daemon) = one_member().await;
    let address: SocketAddr = daemon.config.member.api_addr.parse().unwrap();
    let garbage = tokio::task::spawn_blocking(move || {
        use std::io::Write;
        let mut held = vec![];
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], b"\x16\x03\x01\xff\xff", b""] {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream.write_all(bytes).unwrap();
            held.push(stream);
        }
        held
    });
    let held = garbage.await.unwrap();
    let metrics = daemon.client().get::<serde_json::Value>("/healthz").await.unwrap();
    assert_eq!(metrics["leader"], 1);
    drop(held);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_are_linted_and_edited() {
    let (_dir, daemon) = one_member().await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let run = |args: &[&str], editor: &str| {
        let output = hactl_with_editor(&daemon, args, editor);
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    let (_, quick, _) = run(&["policy", "get", "quick"], "true");
    let mine = daemon.home.dir().join("mine.toml");
    std::fs::write(&mine, &quick).unwrap();
    let mine = mine.to_str().unwrap();
    let offline = ["--context", "/nonexistent", "policy", "lint", mine];
    assert_eq!(run(&offline, "true"), (0, format!("{mine}: a policy that would be taken\n"), String::new()));
    std::fs::write(mine, quick.replace("start_deadline = \"", "start_deadline = \"1s\" # \"")).unwrap();
    let (code, _, said) = run(&offline, "true");
    assert!(code == 2 && said.contains("takeover.start_deadline = 1s must be at least"), "{said}");

    let edit = ["policy", "edit", "quick", "--reason", "INC-1"];
    // Nothing is changed by who changes nothing, makes a mistake, or has no editor; what was typed is kept.
    let (code, said, _) = run(&edit, "true");
    assert_eq!((code, said.as_str()), (0, "policy quick is as it was; nothing was changed\n"));
    let (code, _, said) = run(&edit, "sed -i s/suspect_after/suspect_afetr/");
    assert!(code == 2 && said.contains("did you mean `suspect_after`?"), "{said}");
    let kept = said.lines().find_map(|line| line.strip_prefix("What was typed is in ")).unwrap();
    assert!(std::fs::read_to_string(kept).unwrap().contains("suspect_afetr"));
    std::fs::remove_file(kept).unwrap();
    let (code, _, said) = run(&edit, "false");
    assert!(code == 2 && said.contains("the editor `false` ended with"), "{said}");
    let kept = said.lines().find_map(|line| line.strip_prefix("What was typed is in ")).unwrap();
    std::fs::remove_file(kept).unwrap();

    let (code, said, _) = run(&edit, "sed -i 's/^gray_after = .*/gray_after = \"77s\"/'");
    assert_eq!(
        (code, said.as_str()),
        (0, "admin set policy quick (detection.gray_after: 5s -> 77s): INC-1\n")
    );
    assert!(run(&["policy", "get", "quick"], "true").1.contains("gray_after = \"77s\""));

    // Every version has its author and reason; an earlier one comes back as a new one.
    let set = ["policy", "set", "mine", "brakes.fences_in_flight_max=1", "--reason", "for web"];
    let (code, said, _) = run(&set, "true");
    assert!(code == 0 && said.starts_with("admin set policy mine (new): for web"), "{said}");
    let (code, said, _) = run(&["policy", "rollback", "quick", "--reason", "false alarms"], "true");
    assert!(
        code == 0 && said.contains("(detection.gray_after: 77s -> 5s): back to version i0: false"),
        "{said}"
    );
    let (code, said, _) = run(&["policy", "rollback", "quick", "--to", "i9999", "--reason", "x"], "true");
    assert!(code == 1 && said.is_empty(), "{said}");
    let (_, said, _) = run(&["policy", "history", "quick"], "true");
    let heads: Vec<&str> = said.lines().filter(|line| line.starts_with("version")).collect();
    assert!(
        heads.len() == 3 && heads[0].contains("in force") && heads[2].contains("from the beginning"),
        "{said}"
    );

    let web = NODE.to_owned() + "[[instance]]\nname = \"web\"\nnode = \"n1\"\npolicy = \"quick\"\n";
    let file = daemon.home.dir().join("web.toml");
    let apply = |web: &str| {
        std::fs::write(&file, web).unwrap();
        assert_eq!(run(&["apply", "-f", file.to_str().unwrap()], "true").0, 0);
        let (code, said, _) = run(&["policy", "effective", "web"], "true");
        assert_eq!(code, 0, "{said}");
        said.lines()
            .take(2)
            .map(|line| line.split(", version").next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let said = apply(&web);
    assert_eq!(said, ["# web is protected by policy quick: named by the instance", "# policy quick"]);
    let windows = "acting.windows=Mon..Fri 08:00-18:00, Sat 22:00-02:00";
    let set = |name| {
        ["policy", "set", name, "applies.labels=tier=gold", windows, "spares.give_up=labels", "--reason", "x"]
    };
    assert_eq!(run(&set("gold"), "true").0, 0);
    let said = apply(&web.replace("policy = \"quick\"", "labels = { tier = \"gold\" }"));
    assert_eq!(said, ["# web is protected by policy gold: selected by label tier=gold", "# policy gold"]);
    let (code, _, said) = run(&set("silver"), "true");
    assert!(
        code == 1 && said.contains("policy gold and policy silver, and neither is more specific"),
        "{said}"
    );
    let (code, _, said) = run(&["policy", "plan", "silver", "applies.labels=tier=gold"], "true");
    assert!(code == 255 && said.contains("neither is more specific"), "{said}");
    let (code, said, _) = run(&["policy", "plan", "gold", "applies.labels="], "true");
    assert!(code == 1 && said.contains("web: gold -> cautious"), "{said}");
    apply(&web);
    assert_eq!(run(&["policy", "effective", "db"], "true").0, 1);

    // A change can be tried: what it would do is told, nothing is done, and the exit code says whether it would do anything.
    let try_it = ["policy", "plan", "quick", "fencing.isolation_alone=never", "fencing.power_alone=true"];
    let (code, said, _) = run(&try_it, "true");
    assert!(code == 1 && said.contains("fencing.isolation_alone: 2s -> never"), "{said}");
    assert!(said.contains("No instance, node, failover or spare would be affected"), "{said}");
    let (code, said, _) = run(&["policy", "plan", "quick", "fencing.power_alone=false"], "true");
    assert_eq!((code, said.as_str()), (0, "Policy quick is so already; nothing would change.\n"));
    assert_eq!(run(&["policy", "plan", "quick", "fencing.isolation_alon=never"], "true").0, 255);
    assert_eq!(run(&["coverage"], "true").0, 1, "it was never heard");
    let (code, _, said) = run(&["coverage", "--losing", "rack/r1"], "true");
    assert!(code == 2 && said.contains("no instance runs in the failure domain"), "{said}");

    // Nothing that protects anything is deleted, and what is deleted comes back.
    let (code, _, said) = run(&["policy", "delete", "quick", "--reason", "x"], "true");
    assert!(code == 1 && said.contains("instance web is protected by it"), "{said}");
    let (code, said, _) = run(&["policy", "delete", "mine", "--reason", "unused"], "true");
    assert_eq!((code, said.as_str()), (0, "admin deleted policy mine: unused\n"));
    assert_eq!(run(&["policy", "get", "mine"], "true").0, 1);
    let (code, said, _) = run(&["policy", "rollback", "mine", "--reason", "needed"], "true");
    assert!(code == 0 && said.contains("back to version"), "{said}");
    assert!(run(&["policy", "get", "mine"], "true").1.contains("fences_in_flight_max = 1"));
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hactl_says_by_its_exit_code_what_happened() {
    let (_dir, daemon) = one_member().await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let run = |args: &[&str]| {
        let output = hactl(&daemon, args);
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    let file = daemon.home.dir().join("inventory.toml");
    std::fs::write(&file, NODE).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(run(&["apply", "-f", file]), (0, "node/n1 created\n".into(), String::new()));
    assert_eq!(run(&["apply", "-f", file]).1, "node/n1 unchanged\n");
    std::fs::write(daemon.home.dir().join("bad.toml"), NODE.replace("user", "usr")).unwrap();
    let bad = daemon.home.dir().join("bad.toml");
    let (code, _, said) = run(&["apply", "-f", bad.to_str().unwrap()]);
    assert_eq!(code, 2);
    assert!(
        said.contains("bad.toml:6: unknown field `usr`") && said.contains("did you mean `user`?"),
        "{said}"
    );

    let (code, said, _) = run(&["status"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("1 voter, member 1 leads") && said.contains("Nothing needs attention."), "{said}");
    assert_eq!(run(&["arm", "--reason", "go"]), (0, "admin armed the cluster: go\n".into(), String::new()));
    let (code, said, _) = run(&["node", "list", "-o", "json"]);
    let nodes: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &nodes[0]["name"]), (0, &"n1".into()));
    assert!(run(&["node", "show", "n1", "-o", "yaml"]).1.contains("name: n1"));
    assert_eq!(run(&["node", "show", "n9"]).0, 1);
    assert_eq!(run(&["node", "frobnicate"]).0, 2);
    let (code, _, said) = run(&["fence", "n1", "--reason", "drill"]);
    assert!(code == 2 && said.contains("--yes n1"), "{said}");
    assert_eq!(run(&["fence", "n1", "--reason", "drill", "--yes", "n2"]).0, 2);
    assert_eq!(run(&["fence", "n1", "--reason", "drill", "--yes", "n1"]).0, 0);
    assert_eq!(run(&["node", "release", "n1", "--reason", "x"]).0, 1);
    let (code, _, said) = run(&["policy", "set", "quick", "--reason", "x", "detection.suspect_afetr=1s"]);
    assert!(code == 2 && said.contains("detection.suspect_after"), "{said}");
    assert_eq!(run(&["policy", "set", "quick", "--reason", "x", "detection.suspect_after=1s"]).0, 0);
    assert!(run(&["policy", "get", "quick"]).1.contains("suspect_after = \"1s\""));
    assert_eq!(run(&["explain", "n1"]).0, 0);
    assert!(run(&["completion", "bash"]).1.contains("_hactl"));
    let man = daemon.home.dir().join("man");
    assert_eq!(run(&["man", man.to_str().unwrap()]).0, 3, "there is no such directory");
    std::fs::create_dir(&man).unwrap();
    assert_eq!(run(&["man", man.to_str().unwrap()]), (0, String::new(), String::new()));
    let page = std::fs::read_to_string(man.join("hactl-policy-edit.1")).unwrap();
    assert!(page.contains("Open a policy in $VISUAL"), "{page}");
    assert_eq!(run(&["--context", "/nonexistent", "status"]).0, 2);
    let dead = daemon.home.dir().join("dead.toml");
    let context = std::fs::read_to_string(daemon.home.hactl()).unwrap();
    let dead_api = addresses().api;
    std::fs::write(&dead, context.replace(&daemon.config.member.api_addr, &dead_api)).unwrap();
    let (code, _, said) = run(&["--context", dead.to_str().unwrap(), "--timeout", "1s", "status"]);
    assert!(code == 3 && said.contains(&dead_api), "{said}");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_gives_what_it_observed_and_the_command_line_replays_it() {
    let (_dir, daemon) = one_member().await;
    let now = clock::wall().0;
    let sign = |node: &str, sign| Fact::Node(node.parse().unwrap(), sign);
    let standing = |policy: &str| {
        let duty = Duty::Protected(policy.parse().unwrap());
        Sign::Stands(Standing { duty, has_probe: false, has_agent: true, domains: [].into() })
    };
    let facts = [
        Fact::Began { boot: BootId(1), lost: 0, domain: "room".into() },
        sign("n1", standing("cautious")),
        sign("n1", Sign::Heard { epoch: Epoch(1) }),
        sign("n1", Sign::Gap { lasting: Millis(1500) }),
    ];
    let moments = [9000, 8999, 8998, 1000];
    let records = moments.into_iter().zip(facts).map(|(ago, fact)| Record { at: Wall(now - ago), fact });
    daemon.tape.keep(records.collect());
    until("it is kept", || daemon.tape.state().unwrap().kept.load(Relaxed) == 4).await;

    let since = now - 60_000;
    let api = &daemon.config.member.api_addr;
    let answer = daemon.client().stream_from(api, &format!("/v1/flight?since={since}")).await.unwrap();
    let bytes = answer.bytes().await.unwrap();
    let mut rest = &bytes[..];
    let mut read = 0;
    while let Some(record) = Record::decode(&mut rest).unwrap() {
        assert!(record.at.0 > since);
        read += 1;
    }
    assert_eq!(read, 4);
    let refused = daemon.client().stream_from(api, "/v1/flight?until=3").await.unwrap_err();
    assert_eq!(code(&refused), Some(Code::BadRequest));

    let file = daemon.home.dir().join("quick.toml");
    let quick = policies::Policy::presets().remove(0).1.with([("detection.suspect_after", "1s")]).unwrap();
    std::fs::write(&file, toml::to_string(&quick).unwrap()).unwrap();
    let replay = ["policy", "replay", file.to_str().unwrap(), "--since", "1d"];
    let output = hactl(&daemon, &replay);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("added") && said.contains("n1"), "{said}");
    assert_eq!(output.status.code(), Some(1), "{said}");
    std::fs::write(&file, toml::to_string(&policies::Policy::presets()[0].1).unwrap()).unwrap();
    assert_eq!(hactl(&daemon, &replay).status.code(), Some(0));
    daemon.end().await;
}
