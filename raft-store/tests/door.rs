//! Strangers, impostors and garbage at the door. Nothing that they send may harm the member.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests stop the test")]

mod common;

use common::{Authority, Cluster, note, until};
use policies::Millis;
use raft_store::{ProposeError, Timing};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const REFUSED: u8 = 3;
const APPEND: u8 = 4;
const VOTE: u8 = 5;
const CAMPAIGN: u8 = 7;
const FAILED: u8 = 9;

/// A frame as `frame.rs` describes it, made by hand.
fn frame(kind: u8, id: u64, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(9 + body.len()).unwrap();
    [&length.to_be_bytes(), [kind].as_slice(), &id.to_be_bytes(), body].concat()
}

async fn connect(address: SocketAddr, client: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("member-1").unwrap();
    let tcp = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::clone(client)).connect(name, tcp).await
}

async fn send(stream: &mut TlsStream<TcpStream>, kind: u8, body: &Value) -> io::Result<(u8, Value)> {
    stream.write_all(&frame(kind, 7, body.to_string().as_bytes())).await?;
    answer(stream).await
}

async fn answer(stream: &mut TlsStream<TcpStream>) -> io::Result<(u8, Value)> {
    let length = stream.read_u32().await?;
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut bytes).await?;
    Ok((bytes[0], serde_json::from_slice(&bytes[9..]).unwrap()))
}

fn hello() -> Value {
    json!({"protocol": 1, "cluster": "rack-7", "member": 9, "store": 99, "purpose": "append"})
}

fn with(mut hello: Value, key: &str, value: Value) -> Value {
    hello[key] = value;
    hello
}

async fn refused(cluster: &Cluster, name: &str, hello: &Value) -> String {
    let client = cluster.authority.tls(name).client;
    let mut stream = connect(cluster.node(1).config.listen, &client).await.unwrap();
    let (kind, body) = send(&mut stream, HELLO, hello).await.unwrap();
    assert_eq!(kind, REFUSED, "{body}");
    assert!(answer(&mut stream).await.is_err(), "and the connection is closed");
    body["why"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_that_does_not_fit_is_refused_with_the_reason() {
    let cluster = Cluster::new(1).await;
    let why = refused(&cluster, "member-9", &with(hello(), "cluster", json!("rack-8"))).await;
    assert!(why.contains("\"rack-7\"") && why.contains("\"rack-8\""), "{why}");
    let why = refused(&cluster, "member-9", &with(hello(), "protocol", json!(2))).await;
    assert_eq!(why, "this member speaks protocol 1, the peer 2");
    let why = refused(&cluster, "member-8", &hello()).await;
    assert!(why.contains("not that of m9"), "{why}");
    let why = refused(&cluster, "hactl", &hello()).await;
    assert!(why.contains("not that of m9"), "{why}");
    let why = refused(&cluster, "member-9", &json!({"protocol": 1})).await;
    assert!(why.contains("does not parse"), "{why}");
    cluster.propose("unharmed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_lost_its_store_is_refused_under_its_old_id() {
    let mut cluster = Cluster::new(1).await;
    let known = cluster.authority.tls("member-9").client;
    let mut stream = connect(cluster.node(1).config.listen, &known).await.unwrap();
    assert_eq!(send(&mut stream, HELLO, &hello()).await.unwrap().0, WELCOME);
    let other = with(hello(), "store", json!(100));
    let why = refused(&cluster, "member-9", &other).await;
    assert!(why.contains("hactl member remove m9"), "{why}");
    // It is remembered on disk.
    cluster.node(1).stop().await;
    cluster.node_mut(1).start().await;
    let why = refused(&cluster, "member-9", &other).await;
    assert!(why.contains("hactl member remove m9"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_member_is_sent_nothing_even_if_the_cluster_must_stand_still() {
    let mut cluster = Cluster::new(2).await;
    cluster.propose("before").await;
    let leader = cluster.leader().await.store.clone();
    let wiped = if leader.me().0 == 1 { 2 } else { 1 };
    cluster.node(wiped).stop().await;
    std::fs::remove_dir_all(&cluster.node(wiped).dir).unwrap();
    cluster.node_mut(wiped).start().await;
    // It would make the quorum, if it were believed: it lost its vote, and what it had acknowledged.
    let error = leader.propose(note("after")).await.unwrap_err();
    assert!(matches!(error, ProposeError::OutcomeUnknown { .. }), "{error}");
    assert!(cluster.node(wiped).store.members().is_empty());
    assert!(cluster.node_mut(wiped).applied().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_do_not_get_in() {
    let cluster = Cluster::new(1).await;
    let address = cluster.node(1).config.listen;
    // Another authority made this certificate, and vouches for nobody here.
    let stranger = Authority::new().tls("member-9").client;
    assert!(connect(address, &stranger).await.is_err());
    // This one trusts our authority, but shows no certificate: TLS 1.3 tells it at the first read.
    if let Ok(mut stream) = connect(address, &cluster.authority.anonymous()).await {
        assert!(send(&mut stream, HELLO, &hello()).await.is_err());
    }
    // This one speaks no TLS at all.
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(&frame(HELLO, 0, hello().to_string().as_bytes())).await.unwrap();
    let mut rest = Vec::new();
    plain.read_to_end(&mut rest).await.unwrap();
    assert!(rest.len() < 16, "an alert at most");
    cluster.propose("unharmed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_member_that_sends_garbage_harms_nobody() {
    let cluster = Cluster::new(1).await;
    let address = cluster.node(1).config.listen;
    let known = cluster.authority.tls("member-9").client;
    let welcomed = async || {
        let mut stream = connect(address, &known).await.unwrap();
        assert_eq!(send(&mut stream, HELLO, &hello()).await.unwrap().0, WELCOME);
        stream
    };
    // A hello that is too large, and a frame that is: closed before it is read.
    for (mut stream, length) in [
        (connect(address, &known).await.unwrap(), 5000_u32),
        (welcomed().await, u32::MAX),
        (welcomed().await, (8 << 20) + 1),
        (welcomed().await, 3),
    ] {
        stream.write_all(&length.to_be_bytes()).await.unwrap();
        assert!(answer(&mut stream).await.is_err(), "{length}");
    }
    // A kind that does not exist.
    let mut stream = welcomed().await;
    stream.write_all(&frame(200, 1, b"{}")).await.unwrap();
    assert!(answer(&mut stream).await.is_err());
    // Calls that do not parse, are no calls, or speak for somebody else.
    let mut stream = welcomed().await;
    let (kind, body) = send(&mut stream, APPEND, &json!({"vote": "me"})).await.unwrap();
    assert!(kind == FAILED && body["why"].as_str().unwrap().contains("does not parse"), "{body}");
    let (kind, body) = send(&mut stream, WELCOME, &json!({})).await.unwrap();
    assert!(kind == FAILED && body["why"].as_str().unwrap().contains("not a request"), "{body}");
    let vote = json!({"term": 99, "member": 2, "committed": true});
    let append = json!({"vote": vote, "previous": null, "entries": [], "committed": null});
    let (kind, body) = send(&mut stream, APPEND, &append).await.unwrap();
    assert!(kind == FAILED && body["why"] == "m9 speaks for another member", "{body}");
    until("nobody took it for a leader", || cluster.node(1).store.is_leader()).await;
    cluster.propose("unharmed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn votes_are_refused_after_a_start_and_while_a_lease_runs() {
    let mut cluster = Cluster::new(1).await;
    cluster.node(1).stop().await;
    cluster.node_mut(1).config.timing = Timing {
        election_min: Millis(1500),
        election_max: Millis(2500),
        propose_limit: Millis(5000),
        ..common::TIMING
    };
    cluster.node_mut(1).start().await;
    let known = cluster.authority.tls("member-9").client;
    let mut stream = connect(cluster.node(1).config.listen, &known).await.unwrap();
    assert_eq!(send(&mut stream, HELLO, &hello()).await.unwrap().0, WELCOME);
    let vote = json!({"term": 99, "member": 9, "committed": false});
    let last = json!({"term": 98, "member": 9, "index": 999});
    let ballot = json!({"vote": vote, "last": last});

    let (kind, body) = send(&mut stream, VOTE, &ballot).await.unwrap();
    assert!(kind == FAILED && body["why"].as_str().unwrap().contains("started a moment ago"), "{body}");
    // It goes on to lead, and hands out leases while the candidate asks again and again.
    let deadline = Instant::now() + common::PATIENCE;
    loop {
        let lease = cluster.node(1).store.lease_end();
        let (kind, body) = send(&mut stream, VOTE, &ballot).await.unwrap();
        assert_eq!(kind, FAILED, "no vote was given: {body}");
        if body["why"].as_str().unwrap().contains("own lease as leader lasts") {
            assert!(lease.is_some());
            break;
        }
        assert!(Instant::now() < deadline, "{body}");
    }
    assert!(cluster.node(1).store.is_leader());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_request_to_campaign_does_not_break_the_promise_to_the_leader() {
    let cluster = Cluster::new(2).await;
    cluster.propose("heard by both").await;
    let leader = cluster.leader().await;
    let follower = cluster.nodes.iter().find(|node| node.id != leader.id).unwrap();
    // The request as the leader itself would have sent it; only its term is a guess, and wrong guesses are refused.
    let marker = std::fs::read_to_string(leader.dir.join("member")).unwrap();
    let (_, store) = marker.trim().rsplit_once("store ").unwrap();
    let hello = with(hello(), "member", json!(leader.id));
    let hello = with(hello, "store", json!(u64::from_str_radix(store, 16).unwrap()));
    let name = format!("member-{}", leader.id.0);
    let known = cluster.authority.tls(&name).client;
    let server = ServerName::try_from(format!("member-{}", follower.id.0)).unwrap();
    let tcp = TcpStream::connect(follower.config.listen).await.unwrap();
    let mut stream = TlsConnector::from(known).connect(server, tcp).await.unwrap();
    assert_eq!(send(&mut stream, HELLO, &hello).await.unwrap().0, WELCOME);
    let mut promised = 0;
    for term in 0..20 {
        let vote = json!({"term": term, "member": leader.id, "committed": true});
        let (kind, body) = send(&mut stream, CAMPAIGN, &json!({ "vote": vote })).await.unwrap();
        assert_eq!(kind, FAILED, "{body}");
        promised += u32::from(body["why"].as_str().unwrap().contains("promised not to campaign"));
    }
    assert_eq!(promised, 1, "the right term is among them");
    assert_eq!(cluster.leader().await.id, leader.id);
}
