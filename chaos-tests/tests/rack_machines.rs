//! The rack's machines: real processes that boot, freeze, hang, move and come back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test support"
)]

mod rack_support;

use chaos_tests::rack::fault::DeviceMood;
use chaos_tests::rack::{Binaries, Change, Description, Fault, Life, Path, Rack, RackSpec};
use ha_agent::key::Key;
use ha_agent::wire::{self, Beat};
use policies::{Epoch, LastGasp, LogIndex};
use provisioning::rack::{Assignment, BootChange, PortChange, PortSetting, VolumeChange};
use rack_support::*;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};

/// A client of the rack's interface for array, switch and boot service, as raw as it gets.
async fn put(rack: &Rack, path: &str, body: &impl serde::Serialize) -> reqwest::StatusCode {
    let http = provisioning::rack::plain_client(PATIENCE).unwrap();
    let url = format!("http://{}/v1/{path}", rack.description().api);
    let request = http.put(url).bearer_auth(&rack.description().token.0).json(body);
    request.send().await.unwrap().status()
}

async fn probe(rack: &Rack, number: usize) -> bool {
    let address = rack.description().machine(&node(number)).unwrap().probe;
    // Loopback answers in microseconds, so this long without an answer is silence; a refusal would be an error.
    match timeout(Duration::from_millis(150), TcpStream::connect(address)).await {
        Ok(connected) => {
            connected.expect("silence, not a refusal");
            true
        }
        Err(_) => false,
    }
}

async fn writes_grow(rack: &Rack, number: usize) {
    let (before, _) = last_write(&rack.report(), number);
    eventually("the volume is written", async || last_write(&rack.report(), number).0 > before + 3).await;
}

/// Moves instance 1 from node 1 to spare 2 by hand.
async fn move_to_spare(rack: &Rack) {
    let [old, new] =
        [1, 2].map(|number| rack.description().machine(&node(number)).unwrap().initiator.clone());
    let token = LogIndex(10);
    let revoke = VolumeChange::Revoke { initiator: old, token };
    assert_eq!(put(rack, "volumes/vol-1", &revoke).await, 200);
    let attach = VolumeChange::Attach { initiator: new, token };
    assert_eq!(put(rack, "volumes/vol-1", &attach).await, 200);
    let assignment =
        Assignment { instance: "web-1".parse().unwrap(), image: "golden-1".to_owned(), epoch: Epoch(2) };
    assert_eq!(put(rack, "boot/node-2", &BootChange { assignment, token }).await, 200);
    assert!(rack.fault(&node(2), Fault::PowerOn).await);
    eventually("the spare writes", async || last_write(&rack.report(), 1).1.ends_with("node-2")).await;
}

#[tokio::test]
async fn an_instance_moves_without_a_lost_write_and_its_frozen_old_node_writes_no_more() {
    let (rack, _dir) = start(&spec(2, 1)).await;
    assert_eq!(rack.status().machines[&node(2)].life, Life::Off, "spares are cold");
    writes_grow(&rack, 1).await;
    assert!(rack.fault(&node(1), Fault::Freeze).await);
    move_to_spare(&rack).await;
    assert!(rack.fault(&node(1), Fault::Thaw).await);
    eventually("the old node is back", async || rack.status().machines[&node(1)].life == Life::Running).await;
    for _ in 0..10 {
        writes_grow(&rack, 1).await;
    }
    let report = rack.report();
    assert_eq!((report.lost_writes, report.overlapping_writes), (0, 0));
    assert_eq!(report.volumes[0].handovers.len(), 1);
    assert!(last_write(&report, 1).1.ends_with("node-2"));

    // Switched off and on again, the old node asks what to boot and gets nothing: its epoch is over.
    assert!(rack.fault(&node(1), Fault::PowerOff).await);
    assert!(rack.fault(&node(1), Fault::PowerOn).await);
    assert!(rack.reaches(&node(1), Life::Running, Instant::now() + PATIENCE).await);
    assert_eq!(rack.status().machines[&node(1)].boots, None);
    writes_grow(&rack, 1).await;
    assert_eq!(rack.report().overlapping_writes, 0);
    rack.stop().await;
}

#[tokio::test]
async fn an_array_that_is_not_exclusive_and_not_revoked_shows_the_two_writers() {
    let (rack, _dir) = start(&RackSpec { exclusive_volumes: false, ..spec(2, 1) }).await;
    writes_grow(&rack, 1).await;
    rack.device_mood(DeviceMood::KeepSessions);
    move_to_spare(&rack).await;
    eventually("both write", async || rack.report().overlapping_writes > 0).await;
    assert!(rack.report().lost_writes > 0, "they overwrite each other");
    rack.stop().await;
}

#[tokio::test]
async fn a_kernel_answers_only_while_it_lives_and_a_path_is_there() {
    let (rack, _dir) = start(&spec(1, 0)).await;
    let alive = async |wanted: bool, what: &str| {
        eventually(what, async || probe(&rack, 1).await == wanted).await;
    };
    alive(true, "running").await;
    let both = [
        (Fault::Freeze, Fault::Thaw),
        (Fault::CutNic { path: Path::All }, Fault::Heal),
        (Fault::PowerOff, Fault::PowerOn),
    ];
    for (fault, remedy) in both {
        assert!(rack.fault(&node(1), fault.clone()).await);
        alive(false, &format!("silent after {fault:?}")).await;
        assert!(rack.fault(&node(1), remedy.clone()).await);
        alive(true, &format!("answers after {remedy:?}")).await;
    }
    let close = |token| PortChange { setting: PortSetting::Closed, token: LogIndex(token) };
    assert_eq!(put(&rack, "ports/sw-a%2F1", &close(3)).await, 200);
    assert!(probe(&rack, 1).await, "path b is left");
    assert_eq!(put(&rack, "ports/sw-b%2F1", &close(3)).await, 200);
    alive(false, "silent behind closed ports").await;
    let open = PortChange {
        setting: PortSetting::Open { vlan: 100, tagged: BTreeSet::new(), mac: None },
        token: LogIndex(4),
    };
    assert_eq!(put(&rack, "ports/sw-b%2F1", &open).await, 200);
    alive(true, "answers through the opened port").await;
    for fault in [Fault::StopAgent, Fault::Panic { gasp: false }] {
        let life = if fault == Fault::StopAgent { Life::Gray } else { Life::Panicked };
        assert!(rack.fault(&node(1), fault).await);
        assert_eq!(rack.status().machines[&node(1)].life, life);
        alive(life == Life::Gray, "gray answers, panicked does not").await;
    }
    rack.stop().await;
}

#[tokio::test]
async fn a_hung_machine_stays_hung_until_it_is_switched_off_and_on() {
    let (rack, _dir) = start(&spec(1, 0)).await;
    writes_grow(&rack, 1).await;
    for fault in [Fault::Hang, Fault::Thaw, Fault::Freeze] {
        assert!(rack.fault(&node(1), fault).await);
        assert_eq!(rack.status().machines[&node(1)].life, Life::Hung);
    }
    assert!(rack.fault(&node(1), Fault::PowerOff).await);
    assert_eq!(rack.status().machines[&node(1)].life, Life::Off);
    assert!(rack.fault(&node(1), Fault::PowerOn).await);
    writes_grow(&rack, 1).await;
    assert_eq!(rack.report().lost_writes, 0);
    rack.stop().await;
}

#[tokio::test]
async fn an_emulated_machine_is_off_once_its_emulator_has_ended_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mut description = Description::draw(&spec(1, 1)).unwrap();
    // As a system that switches its machine off at once; what the rack adds are a shell's arguments.
    description.machines[0].emulator = ["sh", "-c", "exit 0"].map(str::to_owned).to_vec();
    let rack = Rack::start(description, dir.path(), without_agent()).await.unwrap();
    for _ in 0..2 {
        assert!(rack.fault(&node(1), Fault::PowerOn).await);
        eventually("it is off", async || rack.status().machines[&node(1)].life == Life::Off).await;
    }
    let powers = rack.journal().changes.into_iter().filter_map(|noted| match noted.change {
        Change::Power { on, .. } => Some(on),
        _ => None,
    });
    assert_eq!(powers.collect::<Vec<_>>(), [true, false, true, false]);
    rack.stop().await;
}

#[tokio::test]
async fn a_cut_way_to_the_storage_stalls_writes_and_loses_none() {
    let (rack, _dir) = start(&spec(1, 0)).await;
    writes_grow(&rack, 1).await;
    assert!(rack.fault(&node(1), Fault::CutNic { path: Path::Storage }).await);
    // A write may already be past the cable; after the second look at the same value nothing comes any more.
    eventually("writes have stalled", async || {
        let (before, _) = last_write(&rack.report(), 1);
        timeout(Duration::from_millis(100), async {
            eventually("another write", async || last_write(&rack.report(), 1).0 > before).await;
        })
        .await
        .is_err()
    })
    .await;
    assert!(probe(&rack, 1).await, "the networks are untouched");
    assert!(rack.fault(&node(1), Fault::Heal).await);
    writes_grow(&rack, 1).await;
    assert_eq!(rack.report().lost_writes, 0);
    rack.stop().await;
}

/// A beat that came to a member: who, by which path, in which epoch.
async fn beat(member: &UdpSocket, key: &Key) -> Beat {
    let mut datagram = [0; 128];
    let (length, _) = timeout(PATIENCE, member.recv_from(&mut datagram)).await.unwrap().unwrap();
    wire::verify(&datagram[..length], key).unwrap()
}

async fn farewell(member: &UdpSocket, key: &Key) -> LastGasp {
    loop {
        if let Some(gasp) = beat(member, key).await.said.last_gasp {
            return gasp;
        }
    }
}

#[tokio::test]
async fn heartbeats_of_the_real_agent_take_every_path_that_is_there() {
    let member = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let members = vec![member.local_addr().unwrap().to_string()];
    let binaries = Binaries { rack: rack_binary().to_owned(), agent: Some(agent_binary()) };
    let (rack, _dir) = start_with(&RackSpec { members, ..spec(1, 0) }, binaries).await;
    let key: Key = rack.description().machine(&node(1)).unwrap().agent_key.0.parse().unwrap();

    let mut paths = BTreeSet::new();
    while paths.len() < 2 {
        let beat = beat(&member, &key).await;
        assert_eq!(beat.said.epoch, Epoch(1));
        paths.insert(beat.path);
    }
    let mut writes = None;
    while writes.is_none() {
        writes = beat(&member, &key).await.said.write_age;
    }
    assert!(rack.fault(&node(1), Fault::CutNic { path: Path::A }).await);
    // What was sent before the cut may still be waiting in the socket.
    let mut in_a_row = 0;
    let deadline = Instant::now() + PATIENCE;
    while in_a_row < 10 {
        assert!(Instant::now() < deadline, "path a is still heard");
        in_a_row = if beat(&member, &key).await.path == 1 { in_a_row + 1 } else { 0 };
    }
    assert!(rack.fault(&node(1), Fault::Panic { gasp: true }).await);
    assert_eq!(farewell(&member, &key).await, LastGasp::Panic);

    assert!(rack.fault(&node(1), Fault::PowerOff).await);
    assert!(rack.fault(&node(1), Fault::PowerOn).await);
    // The farewells of the last start may still be waiting.
    while beat(&member, &key).await.said.last_gasp.is_some() {}
    let described = rack.description().clone();
    let soft = move || ipmitool_ok(&described, &node(1), 17, "chassis power soft");
    tokio::task::spawn_blocking(soft).await.unwrap();
    assert_eq!(farewell(&member, &key).await, LastGasp::Shutdown);
    assert!(rack.reaches(&node(1), Life::Off, Instant::now() + PATIENCE).await);
    rack.stop().await;
}

#[tokio::test]
async fn nobody_gets_in_without_the_token_and_garbage_changes_nothing() {
    let (rack, _dir) = start(&spec(1, 0)).await;
    let api = rack.description().api;
    let http = provisioning::rack::plain_client(PATIENCE).unwrap();
    for path in ["status", "report", "volumes/vol-1", "ports/x", "nothing"] {
        let url = format!("http://{api}/v1/{path}");
        assert_eq!(http.get(&url).send().await.unwrap().status(), 401, "{path}");
        assert_eq!(http.get(&url).bearer_auth("wrong").send().await.unwrap().status(), 401, "{path}");
    }
    // The workload's session may begin at any moment; who holds what, and by which token, may not change.
    let rights = || rack.status().volumes.into_values().map(|v| (v.holders, v.newest)).collect::<Vec<_>>();
    let before = rights();
    assert!(put(&rack, "volumes/vol-1", &"attach").await.is_client_error());
    assert_eq!(
        put(&rack, "volumes/vol-9", &VolumeChange::Revoke { initiator: String::new(), token: LogIndex(9) })
            .await,
        404
    );
    assert_eq!(rights(), before);
    rack.stop().await;
}

#[tokio::test]
async fn the_array_ends_a_connection_that_does_not_speak_its_protocol() {
    let (rack, _dir) = start(&spec(1, 0)).await;
    let long = vec![b'x'; 100_000];
    for garbage in [b"hello\n".as_slice(), b"\xff\xfe\n", &long, b"write 1\n", b"login nobody vol-1\n"] {
        let mut stream = TcpStream::connect(rack.array()).await.unwrap();
        // The array may end the connection while we still write.
        let written = stream.write_all(garbage).await;
        let mut answer = Vec::new();
        let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
        assert!(written.is_err() || read.is_err() || !answer.starts_with(b"last"), "{answer:?}");
    }
    writes_grow(&rack, 1).await;
    assert_eq!(rack.report().lost_writes, 0);
    rack.stop().await;
}
