//! What holds for every call: tries, limits, permits, versions, and what a bad answer means.
//!
//! Answers are recorded ones, changed where a service would not say on demand what is to be shown.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use axum::Router;
use axum::http::StatusCode;
use openstack::*;
use policies::{Permit, Refusal};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::player::Player;
use support::{Answered, Exchange, Leave, Transcript, within};
use tokio::net::TcpListener;
use tokio::time::Instant;
use zeroize::Zeroizing;

/// A transcript with other answers: one exchange for each, with the first request of `name`.
fn answers(name: &str, answers: impl IntoIterator<Item = (u16, Value)>) -> Transcript {
    let mut transcript = Transcript::read(name);
    let ask = transcript.exchanges[0].ask.clone();
    let with = |(status, body)| Exchange { ask: ask.clone(), answer: Answered { status, body } };
    transcript.exchanges = answers.into_iter().map(with).collect();
    transcript
}

fn good(name: &str) -> (u16, Value) {
    let answer = Transcript::read(name).exchanges.remove(0).answer;
    (answer.status, answer.body)
}

fn bad(status: u16) -> (u16, Value) {
    (status, Value::Null)
}

/// Leave for so many times.
struct Times(AtomicU32);

impl Times {
    fn new(times: u32) -> Times {
        Times(AtomicU32::new(times))
    }

    fn left(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Permit for Times {
    fn check(&self) -> Result<(), Refusal> {
        match self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
            Ok(_) => Ok(()),
            Err(_) => Err(Refusal::LeaseEnded),
        }
    }

    fn token(&self) -> policies::LogIndex {
        policies::LogIndex(7)
    }
}

#[tokio::test]
async fn a_reading_is_tried_again_and_a_change_is_not() {
    let player = Player::with(answers("port", [bad(503), bad(500), bad(429), good("port")])).await;
    player.cloud().network().port(&player.id("port"), within(10)).await.unwrap();
    player.done();
    let player = Player::with(answers("port", [bad(404)])).await;
    let end = player.cloud().network().port(&player.id("port"), within(10)).await;
    assert!(matches!(end, Err(CallError::Refused { no: No::Other(404), .. })), "{end:?}");
    player.done();
    let player = Player::with(answers("port", [502; 5].map(bad))).await;
    let error = player.cloud().network().port(&player.id("port"), within(10)).await.unwrap_err();
    assert!(matches!(&error, CallError::Unclear { why, .. } if why == "502 Bad Gateway"), "{error:?}");
    player.done();
    for status in [500, 503, 408, 302] {
        let player = Player::with(answers("power_off", [bad(status)])).await;
        let (cloud, node) = (player.cloud(), player.id("node"));
        let end = cloud.baremetal().set_power(&node, PowerTarget::Off, &Leave, within(10)).await;
        assert!(end.unwrap_err().may_have_happened(), "{status}");
        player.done();
    }
}

#[tokio::test]
async fn the_permit_is_asked_before_each_sending() {
    let transcript = Transcript::read("locked_for_a_while");
    let (sent, reason) = (u32::try_from(transcript.exchanges.len()).unwrap(), "ha-failover 7: token 4711");
    assert!(sent > 1);
    let (player, permit) = (Player::of("locked_for_a_while").await, Times::new(sent));
    player
        .cloud()
        .baremetal()
        .set_maintenance(&player.id("node"), reason, &permit, within(60))
        .await
        .unwrap();
    assert_eq!(permit.left(), 0);
    player.done();

    // It is withdrawn while the lock is waited for.
    let mut transcript = transcript;
    transcript.exchanges.truncate(1);
    let player = Player::with(transcript).await;
    let end = player
        .cloud()
        .baremetal()
        .set_maintenance(&player.id("node"), reason, &Times::new(1), within(60))
        .await;
    assert!(matches!(end, Err(CallError::NotPermitted { why: Refusal::LeaseEnded, .. })), "{end:?}");
    player.done();
}

/// A transcript that begins with what the bare-metal service says of its versions.
fn speaking(min: &str, max: &str, name: &str) -> Transcript {
    let enter = Transcript::read("enter").exchanges;
    let mut versions = enter.into_iter().find(|it| it.ask.service == "baremetal").unwrap();
    versions.answer.body["version"]["min_version"] = json!(min);
    versions.answer.body["version"]["version"] = json!(max);
    let mut transcript = Transcript::read(name);
    transcript.exchanges.insert(0, versions);
    transcript
}

#[tokio::test]
async fn the_newest_version_that_both_have_is_spoken() {
    let mut transcript = speaking("1.1", "1.72", "vifs");
    let header = "x-openstack-ironic-api-version".to_owned();
    transcript.exchanges[1].ask.headers.insert(header, "1.72".to_owned());
    // Then the service is changed for an older one.
    transcript.exchanges.push(transcript.exchanges[1].clone());
    transcript.exchanges[2].answer.status = 406;
    transcript.exchanges.push(speaking("1.1", "1.38", "vifs").exchanges.remove(0));
    let player = Player::with(transcript).await;
    let (cloud, node) = (player.cloud(), player.id("node"));
    cloud.baremetal().vifs(&node, within(5)).await.unwrap();
    assert!(matches!(
        cloud.baremetal().vifs(&node, within(5)).await,
        Err(CallError::Refused { no: No::Other(406), .. })
    ));
    let error = cloud.baremetal().vifs(&node, within(5)).await.unwrap_err();
    assert!(error.to_string().ends_with("it speaks 1.1 to 1.38, we need one of 1.67 to 1.99"), "{error}");
    assert!(!error.may_have_happened());
    player.done();
}

#[tokio::test]
async fn a_thousand_nodes_are_listed_in_two_pages() {
    let recorded = Transcript::read("nodes");
    let node = recorded.exchanges[0].answer.body["nodes"][0].clone();
    let uuid = |number: usize| format!("00000000-0000-4000-8000-{number:012}");
    let page = |from: usize, next: Value| {
        let node = |number| {
            let mut node = node.clone();
            node["uuid"] = json!(uuid(number));
            node
        };
        json!({ "nodes": (from..from + 500).map(node).collect::<Vec<_>>(), "next": next })
    };
    let mut transcript =
        answers("nodes", [(200, page(0, json!("http://elsewhere/"))), (200, page(500, Value::Null))]);
    transcript.exchanges[1].ask.path += &format!("&marker={}", uuid(499));
    let player = Player::with(transcript).await;
    let begun = Instant::now();
    let nodes = player.cloud().baremetal().nodes(&NodeFilter::default(), within(10)).await.unwrap();
    assert_eq!(nodes.len(), 1000);
    assert!(begun.elapsed() < Duration::from_secs(10));
    player.done();
}

/// Settings for whatever is at an address.
fn at(address: SocketAddr) -> Settings {
    Settings {
        keystone: format!("http://{address}/v3"),
        ca: None,
        region: None,
        interface: policies::CloudInterface::Public,
        credentials: Credentials::Application { id: "x".to_owned(), secret: Zeroizing::new("y".to_owned()) },
    }
}

#[tokio::test]
async fn without_a_keystone_nothing_is_sent() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for address in [closed, silent.local_addr().unwrap()] {
        let cloud = Cloud::new(at(address)).unwrap();
        let node = "00000000-0000-4000-8000-000000000000".parse().unwrap();
        let deadline = Instant::now() + Duration::from_millis(300);
        let error =
            cloud.baremetal().set_power(&node, PowerTarget::Off, &Times::new(0), deadline).await.unwrap_err();
        assert!(matches!(error, CallError::Unreachable { .. }), "{error:?}");
        assert!(error.to_string().starts_with("enter the cloud"), "{error}");
    }
}

#[tokio::test]
async fn what_was_sent_and_not_answered_may_have_happened() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut enter = Transcript::read("enter").exchanges.remove(0);
    let catalog =
        enter.answer.body.to_string().replace("network.test", &silent.local_addr().unwrap().to_string());
    enter.answer.body = serde_json::from_str(&catalog).unwrap();
    let player = Player::with(Transcript { exchanges: vec![enter], ..Transcript::read("port") }).await;
    let revision = serde_json::from_value(json!(1)).unwrap();
    let (cloud, port, change) = (player.cloud(), player.id("port"), PortChange::default());
    cloud.admission(within(5)).await.unwrap();
    let deadline = Instant::now() + Duration::from_millis(200);
    let error = cloud.network().update_port(&port, &change, revision, &Leave, deadline).await.unwrap_err();
    assert!(matches!(error, CallError::NoAnswer { .. }) && error.may_have_happened(), "{error:?}");
    let late = cloud.network().update_port(&port, &change, revision, &Times::new(0), Instant::now()).await;
    assert!(matches!(late, Err(CallError::Unreachable { .. })), "{late:?}");
    player.done();
}

#[test]
fn settings_that_cannot_work_are_told() {
    let address = "127.0.0.1:1".parse().unwrap();
    let error = |keystone: &str, ca: Option<&str>| {
        let (keystone, ca) = (keystone.to_owned(), ca.map(str::to_owned));
        Cloud::new(Settings { keystone, ca, ..at(address) }).unwrap_err().to_string()
    };
    assert!(error("10.0.0.1", None).contains("keystone: "));
    assert!(error("ftp://10.0.0.1", None).contains("write https://host:port/v3"));
    assert!(error("https://10.0.0.1:5000", None).ends_with("needs a `ca`"));
    assert!(error("http://10.0.0.1:5000", Some("x")).contains("it is plain HTTP"));
    assert!(error("https://10.0.0.1:5000", Some("x")).contains("no certificate"));
    let shown = format!("{:?}", Cloud::new(at(address)).unwrap());
    assert_eq!(shown, "Cloud(http://127.0.0.1:1/v3/auth/tokens as Application(x))");
}

// ---- no answer does harm

/// A server that lets in and answers everything else in one way.
async fn answering(answer: Arc<Mutex<(u16, String)>>) -> Cloud {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut enter = std::collections::BTreeMap::new();
    for exchange in Transcript::read("enter").exchanges {
        let name = exchange.ask.service.as_str();
        let services = ["keystone", "baremetal", "network", "volume"];
        let moved =
            |text: String, name: &&str| text.replace(&format!("{name}.test"), &format!("{address}/{name}"));
        let body = services.iter().fold(exchange.answer.body.to_string(), moved);
        enter.insert(format!("/{name}{}", exchange.ask.path), body);
    }
    let app = Router::new().fallback(async move |request: axum::extract::Request| {
        let token = [("x-subject-token", "t")];
        match enter.get(request.uri().path()) {
            Some(body) => (StatusCode::CREATED, token, body.clone()),
            None => {
                let (status, body) = answer.lock().unwrap().clone();
                (StatusCode::from_u16(status).unwrap(), token, body)
            }
        }
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    Cloud::new(Settings { keystone: format!("http://{address}/keystone/v3"), ..at(address) }).unwrap()
}

/// JSON in the forms of the services, with anything in its places.
fn some_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        Just(json!("00000000-0000-4000-8000-000000000000")),
        Just(json!("power off")),
    ];
    let key = prop_oneof![
        Just("uuid"),
        Just("id"),
        Just("nodes"),
        Just("next"),
        Just("vifs"),
        Just("port"),
        Just("attachment"),
        Just("status"),
        Just("error_message"),
        Just("faultstring"),
        Just("connection_info"),
        Just("power_state"),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

#[test]
fn no_answer_makes_it_panic() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = Arc::new(Mutex::new((200, String::new())));
    let cloud = runtime.block_on(answering(Arc::clone(&answer)));
    let body = prop_oneof![some_json().prop_map(|json| json.to_string()), ".{0,200}"];
    let status = prop::sample::select(vec![200_u16, 202, 204, 400, 401, 403, 404, 406, 409, 412, 500]);
    let config = ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(status in status, body in body)| {
        *answer.lock().unwrap() = (status, body);
        runtime.block_on(async {
            let soon = Instant::now() + Duration::from_millis(40);
            let uuid = "00000000-0000-4000-8000-000000000000";
            let (node, port, volume) = (uuid.parse().unwrap(), uuid.parse().unwrap(), uuid.parse().unwrap());
            let ends = [
                cloud.baremetal().node(&node, soon).await.map(drop),
                cloud.baremetal().nodes(&NodeFilter::default(), soon).await.map(drop),
                cloud.baremetal().everything(soon).await.map(drop),
                cloud.network().trunks(soon).await.map(drop),
                cloud.baremetal().vifs(&node, soon).await.map(drop),
                cloud.baremetal().validate(&node, soon).await.map(drop),
                cloud.network().port(&port, soon).await.map(drop),
                cloud.volumes().create_attachment(&volume, None, None, &Leave, soon).await.map(drop),
            ];
            for error in ends.into_iter().filter_map(Result::err) {
                prop_assert!(!policies::causes(&error).is_empty());
            }
            Ok(())
        })?;
    });
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_its_end() {
    let answer = Arc::new(Mutex::new((200, " ".repeat(17 << 20))));
    let cloud = answering(answer).await;
    let port = "00000000-0000-4000-8000-000000000000".parse().unwrap();
    let error = cloud.network().port(&port, within(10)).await.unwrap_err();
    assert!(
        matches!(&error, CallError::Unclear { why, .. } if why == "the answer has more than 16777216 bytes"),
        "{error:?}"
    );
}
