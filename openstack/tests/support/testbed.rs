//! Where the testbed of `chaos-tests/openstack` is: for the live tests of all crates.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use policies::{CloudAccess, CloudInterface, CloudUser};
use std::path::PathBuf;
use std::process::Command;

/// Keystone's port; those of the others are in `common.sh`.
pub(crate) const KEYSTONE: u16 = 500;

/// Every port is the base and a constant.
pub(crate) fn port(offset: u16) -> u16 {
    std::env::var("OPENSTACK_PORT_BASE").map_or(17000, |text| text.parse::<u16>().unwrap()) + offset
}

pub(crate) fn address(offset: u16) -> String {
    format!("127.0.0.1:{}", port(offset))
}

/// The user `failover`, whose password is [`PASSWORD`].
pub(crate) fn access() -> CloudAccess {
    let user = CloudUser::Password {
        name: "failover".to_owned(),
        domain: "default".to_owned(),
        project: "service".to_owned(),
        project_domain: "default".to_owned(),
    };
    let keystone = format!("http://{}/v3", address(KEYSTONE));
    CloudAccess { keystone, ca: None, region: None, interface: CloudInterface::Public, user }
}

pub(crate) const PASSWORD: &str = "secret";

/// Does something at a BMC, behind Ironic's back, and returns what that says: `bmc ipmi 1 freeze`.
pub(crate) fn bmc(words: &[&str]) -> String {
    let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../chaos-tests/openstack/bmc");
    let output = Command::new(program).args(words).output().unwrap();
    assert!(output.status.success(), "bmc {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
