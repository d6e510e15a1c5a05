//! The network of a scenario: each member, the rack and the operator in a network namespace of its own, on one bridge.
//!
//! Why it exists: a one-way partition between real processes needs a packet filter of each side's own.
//! What it never does: touch a namespace, interface or rule that is not named `vf-...`, or the network of this computer.
//!
//! ```text
//! vf-m1 10.77.0.1 ─┐
//! vf-m2 10.77.0.2 ─┤                  ┌─ 10.77.0.10  vf-rack  (array, switch, BMCs, nodes)
//! vf-m3 10.77.0.3 ─┴─ bridge (vf-sw) ─┴─ 10.77.0.100 vf-op    (this program, hactl)
//! ```

use crate::demo::DemoError;
use crate::demo::error::system;
use crate::demo::process::run;
use crate::netns::{self, ip};
use policies::MemberId;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where `ip netns` keeps its names.
const NAMES: &str = "/run/netns";
/// The namespace that holds the bridge.
const SWITCH: &str = "vf-sw";
/// Each namespace filters what comes in; `cut` adds rules.
const FILTER: &str = "table inet vf { chain in { type filter hook input priority 0; policy accept; }; }";

/// Somebody on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Host {
    Member(MemberId),
    Rack,
    /// This program.
    Operator,
}

impl Host {
    pub(super) const ALL: [Host; 5] = [
        Host::Member(MemberId(1)),
        Host::Member(MemberId(2)),
        Host::Member(MemberId(3)),
        Host::Rack,
        Host::Operator,
    ];

    fn name(self) -> String {
        match self {
            Host::Member(id) => id.to_string(),
            Host::Rack => "rack".to_owned(),
            Host::Operator => "op".to_owned(),
        }
    }

    fn namespace(self) -> String {
        format!("vf-{}", self.name())
    }

    pub(super) fn address(self) -> IpAddr {
        let last = match self {
            Host::Member(id) => u8::try_from(id.0).unwrap_or(u8::MAX),
            Host::Rack => 10,
            Host::Operator => 100,
        };
        Ipv4Addr::new(10, 77, 0, last).into()
    }

    /// The file by which a process enters the namespace.
    pub(super) fn file(self) -> PathBuf {
        Path::new(NAMES).join(self.namespace())
    }
}

/// The namespaces. Dropping it removes them.
pub(super) struct Network {
    _private: (),
}

impl Network {
    /// Makes the namespaces, the bridge, and an empty filter in each namespace.
    pub(super) fn build() -> Result<Network, DemoError> {
        sweep();
        let network = Network { _private: () };
        ip(&["netns", "add", SWITCH])?;
        ip(&["-n", SWITCH, "link", "add", "vf-br", "type", "bridge"])?;
        ip(&["-n", SWITCH, "link", "set", "vf-br", "up"])?;
        for host in Host::ALL {
            plug(host)?;
            nft(host, FILTER)?;
        }
        Ok(network)
    }

    /// Puts the calling thread, and all that it will start, into the operator's namespace.
    pub(super) fn enter(&self) -> Result<(), DemoError> {
        let path = Host::Operator.file();
        netns::enter(&path).map_err(system(format!("enter {}", path.display())))
    }

    /// Nothing that `from` sends arrives at `to` any more; the other direction stays as it is.
    pub(super) fn cut(&self, from: Host, to: Host) -> Result<(), DemoError> {
        nft(to, &format!("add rule inet vf in ip saddr {} counter drop", from.address()))
    }

    /// Everything arrives everywhere.
    pub(super) fn heal(&self) -> Result<(), DemoError> {
        Host::ALL.into_iter().try_for_each(|host| nft(host, "flush chain inet vf in"))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        sweep();
    }
}

/// Removes what an earlier run left.
pub(super) fn sweep() {
    let ours = Host::ALL.map(Host::namespace);
    for name in ours.iter().map(String::as_str).chain([SWITCH]) {
        if Path::new(NAMES).join(name).exists() {
            // What cannot be removed is in the way of the next `add`, which says so.
            ip(&["netns", "del", name]).ok();
        }
    }
}

/// True if this kernel and its programs can do all this; otherwise what is missing.
pub(super) fn missing() -> Option<String> {
    let is_there = |program: &str, arg: &str| {
        let mut command = Command::new(program);
        command.arg(arg).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !is_there("ip", "-V") {
        return Some("there is no `ip` (Debian: iproute2)".to_owned());
    }
    if !is_there("nft", "--version") {
        return Some("there is no `nft` (Debian: nftables)".to_owned());
    }
    None
}

fn plug(host: Host) -> Result<(), DemoError> {
    let (name, space) = (host.name(), host.namespace());
    let (inside, outside) = (format!("vf-e-{name}"), format!("vf-p-{name}"));
    let address = format!("{}/24", host.address());
    ip(&["netns", "add", &space])?;
    ip(&[
        "link", "add", &inside, "netns", &space, "type", "veth", "peer", "name", &outside, "netns", SWITCH,
    ])?;
    ip(&["-n", &space, "addr", "add", &address, "dev", &inside])?;
    ip(&["-n", &space, "link", "set", &inside, "up"])?;
    ip(&["-n", &space, "link", "set", "lo", "up"])?;
    ip(&["-n", SWITCH, "link", "set", &outside, "master", "vf-br", "up"])
}

fn nft(host: Host, rules: &str) -> Result<(), DemoError> {
    let space = host.namespace();
    run(Command::new("ip").args(["netns", "exec", &space, "nft", "-f", "-"]), Some(rules))
}
