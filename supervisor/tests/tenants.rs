//! The real `hactl --os-cloud` against a real member and a Keystone of recorded answers: what a tenant sees, what it may order, and that
//! it cannot tell what is another's from what is not there.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what a test did not expect must end it; the helpers of tests are tests too"
)]

mod daemon;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use daemon::*;
use policies::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use supervisor::clock;
use tokio::net::TcpListener;

/// The body of a recorded answer of Keystone.
fn recorded(transcript: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../openstack/testdata/{transcript}.json"));
    let transcript: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    transcript["exchanges"][0]["answer"]["body"].clone()
}

/// A Keystone with these users, each with a project and a role. The password of all is `secret-word`.
#[derive(Clone, Default)]
struct Keystone {
    /// Tokens that are good, with what they stand for.
    tokens: Arc<Mutex<BTreeMap<String, Value>>>,
    looked_up: Arc<AtomicUsize>,
}

/// Name, project, role.
const USERS: [(&str, &str, &str); 4] = [
    ("ann", "aaaa", "member"),
    ("bob", "bbbb", "admin"),
    ("eve", "aaaa", "reader"),
    ("tom", "aaaa", "auditor"),
];

impl Keystone {
    async fn serve(self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().fallback(async move |request: Request| {
            let (head, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            self.answer(head.method.as_str(), &head.headers, &body)
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        address
    }

    fn answer(&self, method: &str, headers: &HeaderMap, body: &[u8]) -> (StatusCode, HeaderMap, String) {
        let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let mut given = HeaderMap::new();
        if method == "GET" {
            assert_eq!(
                header("x-auth-token").as_deref(),
                Some("token-of-members"),
                "only members look tokens up"
            );
            self.looked_up.fetch_add(1, Ordering::Relaxed);
            let shown = header("x-subject-token").unwrap();
            return match self.tokens.lock().unwrap().get(&shown) {
                Some(subject) => (StatusCode::OK, given, subject.to_string()),
                None => (StatusCode::NOT_FOUND, given, recorded("subject_absent").to_string()),
            };
        }
        let asked: Value = serde_json::from_slice(body).unwrap();
        let identity = &asked["auth"]["identity"];
        if identity["methods"][0] == "application_credential" {
            given.insert("x-subject-token", "token-of-members".parse().unwrap());
            return (StatusCode::CREATED, given, recorded("enter").to_string());
        }
        let user = &identity["password"]["user"];
        let known =
            USERS.iter().find(|(name, ..)| user["name"] == *name && user["password"] == "secret-word");
        let Some((name, ..)) = known else {
            return (StatusCode::UNAUTHORIZED, given, recorded("enter_wrong_password").to_string());
        };
        let token = self.grant(name);
        given.insert("x-subject-token", token.parse().unwrap());
        (StatusCode::CREATED, given, recorded("enter").to_string())
    }

    /// A token of this user. It is always the same.
    fn grant(&self, name: &str) -> String {
        let (_, project, role) = USERS.iter().find(|user| user.0 == name).unwrap();
        let mut subject = recorded("subject");
        let token = &mut subject["token"];
        token["user"]["name"] = json!(name);
        token["project"]["id"] = json!(project);
        token["roles"] = json!([{ "id": "1", "name": role }]);
        token["expires_at"] = json!("2999-01-01T00:00:00.000000Z");
        let token = format!("secret-token-of-{name}");
        self.tokens.lock().unwrap().insert(token.clone(), subject);
        token
    }
}

fn apply(daemon: &Daemon, document: &str) {
    let path = daemon.home.dir().join("document.toml");
    std::fs::write(&path, document).unwrap();
    let output = hactl(daemon, &["apply", "-f", path.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn provider(name: &str, keystone: SocketAddr) -> String {
    format!(
        "[[provider]]\nname = \"{name}\"\nkind = \"openstack\"\nkeystone = \"http://{keystone}/v3\"\nsecret = \"c-secret\"\n\
         user = {{ by = \"application-credential\", id = \"x\" }}\n"
    )
}

fn instance(name: &str, node: &str, tenant: &str) -> String {
    format!(
        "[[node]]\nname = \"{node}\"\nprobe = {{ tcp = \"127.0.0.1:22\" }}\n[[node.fencing]]\ndriver = \"ipmi\"\n\
         address = \"127.0.0.1:{}\"\nuser = \"ha\"\npassword = \"p-secret\"\n\
         [[instance]]\nname = \"{name}\"\nnode = \"{node}\"\ntenant = \"{tenant}\"\npolicy = \"quick\"\n",
        node.trim_start_matches('n')
    )
}

/// `web-a` is ann's and eve's, `web-b` bob's; clouds.yaml has an entry for each user.
async fn cluster() -> (tempfile::TempDir, Daemon, Keystone, SocketAddr) {
    let (dir, daemon) = one_member().await;
    let keystone = Keystone::default();
    let address = keystone.clone().serve().await;
    let documents =
        [provider("cloud", address), instance("web-a", "n1", "aaaa"), instance("web-b", "n2", "bbbb")];
    apply(&daemon, &documents.concat());
    let entry = |(name, _, _): &(&str, &str, &str)| {
        format!(
            "  {name}:\n    auth: {{ auth_url: 'http://{address}/v3', username: {name}, password: secret-word, project_name: p }}\n"
        )
    };
    let users: String = USERS.iter().map(entry).collect();
    let wrong = format!(
        "  wrong:\n    auth: {{ auth_url: 'http://{address}/v3', username: ann, password: secret-guess, project_name: p }}\n"
    );
    let given = |name: &str, token: &str| {
        format!(
            "  {name}:\n    auth_type: token\n    auth: {{ auth_url: 'http://{address}', token: {token} }}\n"
        )
    };
    let given = [given("revoked", "secret-token-of-nobody"), given("later", "secret-token-of-ann")].concat();
    std::fs::write(daemon.home.dir().join("clouds.yaml"), format!("clouds:\n{users}{wrong}{given}")).unwrap();
    (dir, daemon, keystone, address)
}

/// Exit code, standard output, standard error, of `hactl --os-cloud USER`. Nothing secret is ever shown.
fn run(daemon: &Daemon, user: &str, args: &[&str]) -> (i32, String, String) {
    let mut command = hactl_command(daemon, &[&["--os-cloud", user][..], args].concat());
    command.env("OS_CLIENT_CONFIG_FILE", daemon.home.dir().join("clouds.yaml"));
    let output = tokio::task::block_in_place(|| command.output()).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, told) = (text(&output.stdout), text(&output.stderr));
    assert!(!said.contains("secret-") && !told.contains("secret-"), "{args:?}: {said}{told}");
    (output.status.code().unwrap(), said, told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_sees_its_own_and_what_is_another_s_is_not_there() {
    let (_dir, daemon, keystone, _) = cluster().await;
    for (user, own, other) in
        [("ann", "web-a", "web-b"), ("eve", "web-a", "web-b"), ("bob", "web-b", "web-a")]
    {
        let (code, said, told) = run(&daemon, user, &["instance", "list", "-o", "json"]);
        assert!(code == 0 && said.contains(own) && !said.contains(other), "{user}: {said}{told}");
        for args in [&["instance", "show"][..], &["explain"], &["policy", "effective"]] {
            let of = |name: &str| run(&daemon, user, &[args, &[name]].concat());
            assert_eq!(of(own).0, 0, "{user} {args:?}");
            let (code, said, told) = of(other);
            assert!(code == 1 && said.is_empty(), "{user} {args:?}: {said}{told}");
            assert_eq!(told.replace(other, "X"), of("web-x").2.replace("web-x", "X"), "{user} {args:?}");
        }
        let (code, said, _) = run(&daemon, user, &["events", "-o", "json"]);
        assert!(code == 0 && said.contains(own) && !said.contains(other), "{user}: {said}");
    }
    assert_eq!(keystone.looked_up.load(Ordering::Relaxed), 3, "what Keystone said is believed for a while");
    let effective = run(&daemon, "ann", &["policy", "effective", "web-a", "-o", "json"]).1;
    let effective: Value = serde_json::from_str(&effective).unwrap();
    assert_eq!(
        (&effective["name"], &effective["instances"]),
        (&json!("quick"), &json!(1)),
        "only its own are counted"
    );

    // Everything else is closed, whatever the role.
    for args in [
        &["node", "list"][..],
        &["node", "show", "n2"],
        &["status"],
        &["spare", "list"],
        &["policy", "list"],
        &["member", "list"],
        &["coverage"],
        &["debug", "bundle"],
        &["arm", "--reason", "x"],
        &["fence", "n2", "--reason", "x", "--yes", "n2"],
        &["instance", "delete", "web-b", "--reason", "x", "--yes", "web-b"],
    ] {
        let (code, said, told) = run(&daemon, "bob", args);
        assert!(code == 6 && said.is_empty(), "{args:?}: {code} {said}{told}");
        assert!(
            told.contains("tenant/bbbb/bob may not do this") && told.contains("`instance evacuate`"),
            "{told}"
        );
    }
    assert!(daemon.store.read(|state| !state.armed.armed && state.instances.len() == 2));
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_moves_its_own_instance_in_its_own_name() {
    let (_dir, daemon, _, _) = cluster().await;
    let reason = ["--reason", "fan failing"];
    let evacuate = |user: &str, name: &str| {
        run(&daemon, user, &[&["instance", "evacuate", name, "--yes", name][..], &reason].concat())
    };
    let ordered = |name: &str| {
        daemon.store.read(|state| state.instances[&name.parse::<InstanceId>().unwrap()].evacuate.clone())
    };
    let (code, _, told) = evacuate("eve", "web-a");
    assert!(
        code == 6 && told.contains("tenant/aaaa/eve is a reader") && told.contains("role member"),
        "{told}"
    );
    for name in ["web-b", "web-x"] {
        let (code, _, told) = evacuate("ann", name);
        assert!(code == 1 && told.contains(&format!("there is no instance {name}")), "{told}");
    }
    for args in [["failover", "approve", "web-b"], ["failover", "cancel", "f77"]] {
        let (code, _, told) = run(&daemon, "ann", &[&args[..], &reason].concat());
        assert!(code == 1 && told.contains("there is no "), "{told}");
    }
    assert_eq!((ordered("web-a"), ordered("web-b")), (None, None));
    let (code, said, told) = evacuate("ann", "web-a");
    assert!(
        code == 0 && said.contains("tenant/aaaa/ann ordered to move web-a off n1: fan failing"),
        "{said}{told}"
    );
    assert_eq!(ordered("web-a").unwrap().order.by, "tenant/aaaa/ann");
    let events = |user: &str| run(&daemon, user, &["events"]).1;
    assert!(events("eve").contains("fan failing") && !events("bob").contains("fan failing"));
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_not_known_is_told_what_to_do() {
    let (_dir, daemon, keystone, address) = cluster().await;
    let list = ["instance", "list", "--timeout", "1s"];
    let refused = |user: &str, code: i32, words: &str| {
        let (found, said, told) = run(&daemon, user, &list);
        assert!(found == code && said.is_empty() && told.contains(words), "{user}: {found} {said}{told}");
    };
    refused("wrong", 6, "enter the cloud");
    refused("revoked", 6, "Keystone does not know your token (any more)");
    refused("tom", 6, "none of the roles reader, member and admin in the project aaaa");
    refused("anna", 2, "did you mean `ann`?");
    keystone.grant("ann");
    assert_eq!(run(&daemon, "later", &list).0, 0);

    // Two clouds: it must be said which one knows the token.
    apply(&daemon, &provider("other", address));
    refused("ann", 2, "--os-provider NAME");
    assert_eq!(run(&daemon, "ann", &[&list[..], &["--os-provider", "cloud"]].concat()).0, 0);
    let (code, _, told) = run(&daemon, "ann", &[&list[..], &["--os-provider", "nobody"]].concat());
    assert!(code == 2 && told.contains("there is no cloud of that name"), "{told}");

    // Keystone is away. Its own people are let in.
    let gone: SocketAddr = "127.0.0.1:1".parse().unwrap();
    apply(&daemon, &provider("other", gone));
    let patient = ["instance", "list", "--timeout", "3s", "--os-provider", "other"];
    let (code, _, told) = run(&daemon, "later", &patient);
    assert!(code == 4 && told.contains("the Keystone of other cannot be asked who you are"), "{code} {told}");
    assert_eq!(hactl(&daemon, &["instance", "list"]).status.code(), Some(0));
    assert_eq!(hactl(&daemon, &["instance", "list", "--os-provider", "cloud"]).status.code(), Some(2));
    let proposal =
        Proposal { at: clock::wall(), by: "m1".into(), command: Command::Note { text: "x".into() } };
    daemon.store.propose(proposal).await.unwrap().1.unwrap();
    daemon.end().await;
}
