//! The rack with OpenIPMI's `ipmi_sim` for BMCs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test support"
)]

mod rack_support;

use chaos_tests::rack::{BmcKind, Fault, Life, MoodChange, RackSpec};
use rack_support::*;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_chassis_control_acts_on_the_racks_machines() {
    let installed =
        std::env::split_paths(&std::env::var_os("PATH").unwrap()).any(|dir| dir.join("ipmi_sim").exists());
    assert!(installed, "ipmi_sim is missing: `make test` installs it (Debian: apt-get install openipmi)");
    let dir = tempfile::tempdir().unwrap();
    let spec = RackSpec { bmc: BmcKind::IpmiSim, suite: 3, ..spec(2, 1) };
    let described = chaos_tests::rack::Description::draw(&spec).unwrap();
    // Its chassis program reads the rack's file to find the rack.
    described.write(dir.path()).unwrap();
    let rack = chaos_tests::rack::Rack::start(described, dir.path(), without_agent()).await.unwrap();
    let described = rack.description().clone();
    let tool = async |number, words: &'static str| {
        let described = described.clone();
        let call = move || ipmitool(&described, &node(number), 3, words);
        let output = tokio::task::spawn_blocking(call).await.unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    eventually("ipmi_sim is up", async || tool(1, "chassis power status").await.0).await;
    assert!(tool(1, "chassis power status").await.1.contains("is on"));
    assert!(tool(2, "chassis power status").await.1.contains("is off"));

    assert!(tool(1, "chassis power off").await.0);
    assert!(rack.reaches(&node(1), Life::Off, Instant::now() + PATIENCE).await);
    assert!(tool(1, "chassis power status").await.1.contains("is off"));
    assert!(tool(1, "chassis power on").await.0);
    assert!(rack.reaches(&node(1), Life::Running, Instant::now() + PATIENCE).await);
    let guid = tool(1, "raw 6 0x37").await.1;
    assert_eq!(guid.split_whitespace().collect::<String>(), described.machines[0].guid);

    assert!(rack.fault(&node(1), Fault::BmcMood { mood: MoodChange::Lying }).await);
    assert!(tool(1, "chassis power off").await.0);
    assert!(tool(1, "chassis power status").await.1.contains("is off"));
    assert_eq!(rack.status().machines[&node(1)].life, Life::Running, "it lies");

    assert!(rack.fault(&node(1), Fault::PowerLoss).await);
    assert!(!tool(1, "chassis power status").await.0, "a BMC without supply");
    assert!(rack.fault(&node(1), Fault::Heal).await);
    assert!(tool(1, "chassis power status").await.1.contains("is off"));
    rack.stop().await;
}
