//! The Ironic driver against the real Ironic, which `make test-openstack` starts with BMCs by `ipmi_sim`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../../openstack/tests/support/testbed.rs"]
mod testbed;

use fencing::contract::Lease;
use fencing::ipmi::Port;
use fencing::ironic::Ironic;
use fencing::{Bmc, PowerDriver, Weight, fence, power_on};
use openstack::{Cloud, Node, NodeFilter, NodeUuid, PowerState, Settings};
use policies::{FenceDevice, Identity, Outcome, Power, Refusal, Sealed, Seen};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// For what takes a moment or a minute; generous, for machines are shared.
const PATIENCE: Duration = Duration::from_secs(120);
/// More than two rounds of the power sync of the testbed's Ironic (10 s).
const TWO_ROUNDS: Duration = Duration::from_secs(25);
const LOOK_EVERY: Duration = Duration::from_millis(500);

fn within(time: Duration) -> Instant {
    Instant::now() + time
}

/// A node of the testbed whose BMC is an `ipmi_sim`.
struct Subject {
    number: u8,
    cloud: Cloud,
    uuid: NodeUuid,
}

impl Subject {
    /// On, in no maintenance, its BMC well, whatever an earlier run left.
    async fn running(number: u8) -> Subject {
        let settings = Settings::new(&testbed::access(), testbed::PASSWORD.as_bytes()).unwrap();
        let cloud = Cloud::new(settings).unwrap();
        let nodes = cloud.baremetal().nodes(&NodeFilter::default(), within(PATIENCE)).await.unwrap();
        let name = format!("ipmi{number}");
        let node = nodes.into_iter().find(|node| node.name.as_ref() == Some(&name)).unwrap();
        let subject = Subject { number, cloud, uuid: node.uuid };
        subject.bmc("thaw");
        let lease = Lease::endless();
        let baremetal = subject.cloud.baremetal();
        baremetal.clear_maintenance(&subject.uuid, &lease, within(PATIENCE)).await.unwrap();
        let on = power_on(&subject.alone(), &Identity::default(), &lease, within(PATIENCE)).await;
        assert_eq!(on, Outcome::Done(Seen::On));
        assert_eq!(subject.bmc("state"), "1");
        subject
    }

    /// What happens at its BMC, behind Ironic's back; what that says.
    fn bmc(&self, what: &str) -> String {
        testbed::bmc(&["ipmi", &self.number.to_string(), what])
    }

    /// A driver that knows no BMC, for one effect.
    fn alone(&self) -> Ironic {
        Ironic::new(self.cloud.clone(), self.uuid.clone(), None)
    }

    /// A driver that reads the BMC itself, for one effect.
    fn with_bmc(&self) -> Ironic {
        let device = FenceDevice::Ipmi {
            address: testbed::address(230 + u16::from(self.number)),
            user: "admin".to_owned(),
            password: Sealed(String::new()),
            cipher_suite: 3,
            boot_device: None,
            console: false,
        };
        let bmc = Bmc::from(&device, b"secret", &Port::new()).unwrap();
        Ironic::new(self.cloud.clone(), self.uuid.clone(), Some(Arc::new(bmc)))
    }

    async fn read(&self) -> Node {
        self.cloud.baremetal().node(&self.uuid, within(PATIENCE)).await.unwrap()
    }

    /// Waits until nobody has the node's lock.
    async fn settled(&self) -> Node {
        let deadline = within(PATIENCE);
        loop {
            let node = self.read().await;
            if node.is_settled() {
                return node;
            }
            assert!(Instant::now() < deadline, "{node:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

async fn fenced(driver: &Ironic, time: Duration) -> Outcome {
    fence(driver, &Identity::default(), &Lease::endless(), within(time)).await
}

#[tokio::test]
#[ignore = "needs real services: make test-openstack"]
async fn a_node_is_fenced_and_its_bmc_is_read() {
    let subject = Subject::running(1).await;
    let outcome = fenced(&subject.with_bmc(), PATIENCE).await;
    assert!(matches!(outcome, Outcome::Done(Seen::OffTwice { already: false, .. })), "{outcome:?}");
    assert_eq!(subject.bmc("state"), "0");
    let node = subject.settled().await;
    assert_eq!(node.maintenance_reason.as_deref(), Some("fenced by ha-supervisord, token i7"));
    assert_eq!(node.power_state, Some(PowerState::Off));
}

/// Without maintenance Ironic's power sync would switch it on again.
#[tokio::test]
#[ignore = "needs real services: make test-openstack"]
async fn a_node_that_was_switched_off_behind_ironics_back_stays_off_once_it_is_fenced() {
    let subject = Subject::running(2).await;
    subject.bmc("off");
    let outcome = fenced(&subject.with_bmc(), PATIENCE).await;
    assert!(matches!(outcome, Outcome::Done(Seen::OffTwice { .. })), "{outcome:?}");
    let deadline = within(TWO_ROUNDS);
    while Instant::now() < deadline {
        assert_eq!(subject.bmc("state"), "0");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let node = subject.read().await;
    assert!(node.maintenance && node.power_state == Some(PowerState::Off), "{node:?}");
}

#[tokio::test]
#[ignore = "needs real services: make test-openstack"]
async fn without_its_bmc_only_what_ironic_was_seen_to_do_counts() {
    let subject = Subject::running(3).await;
    // With a dead BMC Ironic takes the command, holds the lock, and has done nothing.
    subject.bmc("freeze");
    let outcome = fenced(&subject.alone(), Duration::from_secs(20)).await;
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
    assert!(subject.read().await.maintenance);
    subject.bmc("thaw");
    assert_eq!(subject.bmc("state"), "1");
    subject.settled().await;

    let outcome = fenced(&subject.alone(), PATIENCE).await;
    assert!(matches!(outcome, Outcome::Done(Seen::OffTwice { already: false, .. })), "{outcome:?}");
    assert_eq!(subject.bmc("state"), "0");

    // What it has noted is none, for whoever did not see it done; in maintenance it may be old.
    subject.bmc("on");
    let look = subject.alone().look(within(PATIENCE)).await.unwrap();
    assert_eq!((look.power, look.weight), (Power::Off, Weight::Noted));
    let outcome = fenced(&subject.alone(), PATIENCE).await;
    assert!(matches!(outcome, Outcome::Done(Seen::OffTwice { already: false, .. })), "{outcome:?}");
    assert_eq!(subject.bmc("state"), "0");
    let on = power_on(&subject.alone(), &Identity::default(), &Lease::endless(), within(PATIENCE)).await;
    let Outcome::Refused(Refusal::DeviceRefused(why)) = &on else { panic!("{on:?}") };
    assert!(why.contains("is in maintenance (fenced by ha-supervisord, token i7)"), "{why}");
}
