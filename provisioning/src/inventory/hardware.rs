//! What Ironic tells of a node's hardware, in the words of `[node.capabilities]`.
//!
//! Why it exists: `properties` are free texts of operators and of a dozen inspection drivers. What it never does: claim more than is
//! told: a spare that is believed to have what it lacks is taken in the middle of a failover.

use ::openstack::{Node, NodePort};
use policies::{BootMode, Bytes, Capabilities, DiskKind, Disks, Nics, Rdma, Speed, Trait};
use serde_json::Value;
use std::collections::BTreeMap;

/// In a NIC's `extra`, by a convention of ours (Ironic has no place for it): its speed, as in `25Gbps`.
const SPEED: &str = "ha_speed";
/// And its remote memory access: `roce`. (InfiniBand shows by Ironic's own `client-id`.)
const RDMA: &str = "ha_rdma";

/// What is told of a node; of the rest it is said why it is not believed.
pub(super) fn capabilities(node: &Node, ports: &[&NodePort], say: &mut impl FnMut(String)) -> Capabilities {
    let flags = flags(node);
    let number = |key: &str| number(node.properties.get(key)?).filter(|number| *number > 0);
    let memory = number("memory_mb").and_then(|mib| mib.checked_mul(1 << 20)).map(Bytes);
    let found = Capabilities {
        cpu_arch: node.properties.get("cpu_arch").and_then(Value::as_str).map(str::to_owned),
        cpus: number("cpus").and_then(|cpus| u32::try_from(cpus).ok()),
        memory,
        disks: number("local_gb").and_then(|gib| disk(gib, &flags, say)).into_iter().collect(),
        nics: nics(ports, &flags, say),
        boot_mode: boot_mode(&flags),
        firmware: flags.get("rom_firmware_version").cloned(),
        traits: node.traits.iter().filter_map(|text| text.parse::<Trait>().ok()).collect(),
        resource_class: node.resource_class.clone(),
        ..Capabilities::default()
    };
    match found.check() {
        Ok(()) => found,
        Err(why) => {
            say(format!("nothing of its hardware is taken: {why}"));
            Capabilities::default()
        }
    }
}

/// Inspection writes numbers, people write texts.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// `properties.capabilities`: `k:v,k:v`.
fn flags(node: &Node) -> BTreeMap<String, String> {
    let text = node.properties.get("capabilities").and_then(Value::as_str).unwrap_or_default();
    let pairs = text.split(',').filter_map(|pair| pair.split_once(':'));
    pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())).collect()
}

fn has(flags: &BTreeMap<String, String>, key: &str) -> bool {
    flags.get(key).is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// The disk that Ironic installs to. Of what kind it is shows only if the node has one kind of disk.
fn disk(gib: u64, flags: &BTreeMap<String, String>, say: &mut impl FnMut(String)) -> Option<Disks> {
    let kinds =
        [("has_ssd", DiskKind::Ssd), ("has_nvme_ssd", DiskKind::Nvme), ("has_rotational", DiskKind::Hdd)];
    let kinds: Vec<DiskKind> =
        kinds.into_iter().filter(|(key, _)| has(flags, key)).map(|(_, kind)| kind).collect();
    let size = gib.checked_mul(1 << 30).map(Bytes)?;
    match kinds.as_slice() {
        [kind] => Some(Disks { kind: *kind, size, count: 1 }),
        _ => {
            say("Ironic does not tell of what kind its disks are (`has_ssd`, `has_nvme_ssd` or `has_rotational` in its \
                 properties' capabilities); `local_gb` is not taken"
                .to_owned());
            None
        }
    }
}

fn nics(ports: &[&NodePort], flags: &BTreeMap<String, String>, say: &mut impl FnMut(String)) -> Vec<Nics> {
    let mut counts: BTreeMap<(Speed, Option<Rdma>), u32> = BTreeMap::new();
    for port in ports {
        let told = port.extra.get(SPEED).and_then(Value::as_str);
        let rdma = match (port.infiniband(), port.extra.get(RDMA).and_then(Value::as_str)) {
            (Some(_), _) => Some(Rdma::Infiniband),
            (None, Some("roce")) => Some(Rdma::Roce),
            (None, _) => None,
        };
        match (told.map(str::parse::<Speed>), rdma) {
            (Some(Ok(speed)), rdma) => *counts.entry((speed, rdma)).or_default() += 1,
            (Some(Err(why)), _) => say(format!("`{SPEED}` of a NIC is not taken: {why}")),
            (None, Some(rdma)) => {
                say(format!(
                    "has an {rdma} NIC that is not counted: `{SPEED}` in its port's extra has to tell its speed"
                ));
            }
            (None, None) => {}
        }
    }
    // The fastest NIC that an inspection has found: one such there is.
    let fastest =
        flags.get("nic_capacity").and_then(|text| format!("{}ps", text.trim_end_matches("ps")).parse().ok());
    match (counts.is_empty(), fastest) {
        (true, Some(speed)) => vec![Nics { speed, count: 1, rdma: None }],
        (_, _) => counts.into_iter().map(|((speed, rdma), count)| Nics { speed, count, rdma }).collect(),
    }
}

fn boot_mode(flags: &BTreeMap<String, String>) -> Option<BootMode> {
    match (
        flags.get("boot_mode").map(String::as_str),
        has(flags, "boot_mode_uefi"),
        has(flags, "boot_mode_bios"),
    ) {
        (Some("uefi"), _, _) | (None, true, false) => Some(BootMode::Uefi),
        (Some("bios"), _, _) | (None, false, true) => Some(BootMode::Bios),
        (_, _, _) => None,
    }
}
