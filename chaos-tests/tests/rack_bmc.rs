//! The rack's BMCs as ipmitool sees them: somebody else's client is the judge of our protocol.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test support"
)]

mod rack_support;

use chaos_tests::rack::{Description, Fault, Life, MoodChange, RackSpec};
use policies::{Millis, Power};
use rack_support::*;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// ipmitool blocks, and the BMC that it asks runs on this runtime.
async fn tool(rack: &Description, number: usize, suite: u8, words: &'static str) -> String {
    let rack = rack.clone();
    tokio::task::spawn_blocking(move || ipmitool_ok(&rack, &node(number), suite, words)).await.unwrap()
}

async fn tool_fails(rack: &Description, number: usize, words: &'static str) -> String {
    let rack = rack.clone();
    let call = move || ipmitool(&rack, &node(number), 17, words);
    let output = tokio::task::spawn_blocking(call).await.unwrap();
    assert!(!output.status.success(), "{words} succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn ipmitool_reads_and_sets_everything_with_both_suites() {
    let (rack, _dir) = start(&spec(1, 0)).await;
    let described = rack.description();
    let guid = described.machines[0].guid.clone();
    for suite in [3, 17] {
        let expected = [
            ("chassis status", "System Power         : on"),
            ("mc info", "IPMI Version              : 2.0"),
            ("mc selftest", "passed"),
            ("sdr list", "45 degrees C"),
            ("sensor", "Cpu Temp"),
            ("sel list", "Power Unit"),
            ("sel info", "Entries"),
            ("sel time get", "/"),
            ("chassis bootdev pxe", "Set Boot Device to pxe"),
            ("chassis bootparam get 5", "Force PXE"),
            ("mc watchdog get", "Stopped"),
            ("chassis identify 1", "Chassis identify interval"),
        ];
        for (words, text) in expected {
            let output = tool(described, 1, suite, words).await;
            assert!(output.contains(text), "-C {suite} {words}: {output}");
        }
        // `mc guid` prints in whatever order it takes the bytes to be encoded; raw shows them as they come.
        assert!(tool(described, 1, suite, "mc guid").await.contains("GUID"));
        let output = tool(described, 1, suite, "raw 6 0x37").await;
        assert_eq!(output.split_whitespace().collect::<String>(), guid);

        tool(described, 1, suite, "chassis power off").await;
        assert!(rack.reaches(&node(1), Life::Off, Instant::now() + PATIENCE).await);
        assert!(tool(described, 1, suite, "chassis power status").await.contains("off"));
        tool(described, 1, suite, "chassis power on").await;
        assert!(rack.reaches(&node(1), Life::Running, Instant::now() + PATIENCE).await);
        tool(described, 1, suite, "chassis power cycle").await;
        eventually("off and on again", async || rack.status().machines[&node(1)].life == Life::Running).await;
        tool(described, 1, suite, "chassis power diag").await;
        assert!(rack.reaches(&node(1), Life::Panicked, Instant::now() + PATIENCE).await);
        eventually("the log tells of it", async || {
            tool(described, 1, suite, "sel list").await.contains("OS Critical Stop")
        })
        .await;
        tool(described, 1, suite, "sel clear").await;
        tool(described, 1, suite, "chassis power reset").await;
        assert!(rack.reaches(&node(1), Life::Running, Instant::now() + PATIENCE).await);
        tool(described, 1, suite, "chassis power soft").await;
        assert!(rack.reaches(&node(1), Life::Off, Instant::now() + PATIENCE).await);
        tool(described, 1, suite, "chassis power on").await;
        assert!(rack.reaches(&node(1), Life::Running, Instant::now() + PATIENCE).await);
    }
    rack.stop().await;
}

#[tokio::test]
async fn strangers_are_not_admitted() {
    let (rack, _dir) = start(&spec(1, 1)).await;
    let described = rack.description().clone();
    let password = described.machines[0].password.0.clone();
    for (user, password) in [("admin", "wrong".to_owned()), ("root", password)] {
        let described = described.clone();
        let call = move || ipmitool_as(&described, &node(1), 17, user, &password, "chassis power status");
        let output = tokio::task::spawn_blocking(call).await.unwrap();
        assert!(!output.status.success(), "{user}");
    }
    rack.stop().await;
}

#[tokio::test]
async fn a_bmc_lies_ignores_and_falls_silent_on_demand() {
    let (rack, _dir) = start(&spec(1, 0)).await;
    let described = rack.description();
    let mood = async |mood| assert!(rack.fault(&node(1), Fault::BmcMood { mood }).await);
    let real = || rack.status().machines[&node(1)].life;

    mood(MoodChange::Lying).await;
    tool(described, 1, 17, "chassis power off").await;
    assert!(tool(described, 1, 17, "chassis power status").await.contains("off"));
    assert_eq!((real(), rack.status().machines[&node(1)].reported), (Life::Running, Power::Off));

    mood(MoodChange::Ok).await;
    mood(MoodChange::IgnoreOff).await;
    tool(described, 1, 17, "chassis power off").await;
    assert!(tool(described, 1, 17, "chassis power status").await.contains("on"));
    assert_eq!(real(), Life::Running);

    mood(MoodChange::Refuse).await;
    assert!(tool_fails(described, 1, "chassis power off").await.contains("not supported in present state"));

    mood(MoodChange::Ok).await;
    mood(MoodChange::Sessions(0)).await;
    assert!(tool_fails(described, 1, "chassis power status").await.contains("insufficient resources"));

    mood(MoodChange::Ok).await;
    mood(MoodChange::Dead).await;
    tool_fails(described, 1, "chassis power status").await;

    mood(MoodChange::Ok).await;
    mood(MoodChange::Slow(Millis(50))).await;
    let asked = Instant::now();
    tool(described, 1, 17, "chassis power status").await;
    assert!(asked.elapsed() >= Duration::from_millis(250), "each of five exchanges is late");

    mood(MoodChange::Ok).await;
    mood(MoodChange::OffDelay(Millis(700))).await;
    let asked = Instant::now();
    tool(described, 1, 17, "chassis power off").await;
    assert!(rack.reaches(&node(1), Life::Off, Instant::now() + PATIENCE).await);
    assert!(asked.elapsed() >= Duration::from_millis(700));

    assert!(rack.fault(&node(1), Fault::PowerLoss).await);
    tool_fails(described, 1, "chassis power status").await;
    assert!(rack.fault(&node(1), Fault::Heal).await);
    assert!(tool(described, 1, 17, "chassis power status").await.contains("off"), "the power stays off");
    rack.stop().await;
}

#[tokio::test]
async fn a_thousand_bmcs_answer_at_once() {
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let (rack, _dir) = start(&RackSpec { boot_delay: Millis(0), ..spec(1000, 1000) }).await;
    let mut pings = JoinSet::new();
    for machine in &rack.description().machines {
        let bmc = machine.bmc;
        pings.spawn(async move {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            socket.send_to(&fencing::ipmi::codec::ping(9), bmc).await.unwrap();
            let mut pong = [0; 64];
            let (length, from) = timeout(PATIENCE, socket.recv_from(&mut pong)).await.unwrap().unwrap();
            assert_eq!((&pong[..length], from), (fencing::ipmi::codec::pong(9).as_slice(), bmc));
        });
    }
    assert_eq!(pings.join_all().await.len(), 1000);
    rack.stop().await;
}
