//! What this node's hardware is, as far as the kernel tells it in files, without any tool.
//!
//! Why it exists: what an operator types by hand is wrong sooner or later, and a memory module may fail. `ha-agent
//! inventory` prints what is to be pasted into the node's document, and what is declared there is compared with it.
//! What it never does: it asks no device, runs no program and needs no privilege; what it cannot read it leaves out and
//! says so. A function of a folder, so that a test can give it a machine made of files.
//!
//! The files are those of the kernel's ABI documents (Documentation/ABI): stable/sysfs-block,
//! stable/sysfs-class-infiniband, testing/sysfs-class-net, testing/sysfs-devices-memory,
//! testing/sysfs-devices-system-cpu; and of PCI/sysfs-pci.rst.

mod qualities;

use policies::{BootMode, Bytes, CAPABILITY_LINES_MAX, CAPABILITY_TEXT_MAX, CPUS_MAX, Capabilities};
use policies::{DiskKind, Disks, Gpus, Nics, PciId, Rdma, Speed};
pub use qualities::least;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

/// Between the first look and the second: members that had not heard this life before the first was told have by then.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Between later looks. Shorter: datagrams that say nothing new. Longer: a failed disk is known later.
const LOOK_EVERY: Duration = Duration::from_secs(300);
/// Longest file that is read; only `/proc/cpuinfo` is longer, and its first CPU is enough.
const FILE_MAX: u64 = 16_384;
/// Most entries of one folder. The largest is that of the memory blocks: 4 TiB in blocks of 128 MiB.
const ENTRIES_MAX: usize = 32_768;
/// Linux counts sectors of 512 bytes, whatever the disk's own are (include/linux/types.h on `sector_t`).
const SECTOR: u64 = 512;
const GB: u64 = 1_000_000_000;
const GIB: u64 = 1 << 30;
/// Displays of BMCs, which every server has: ASPEED, Matrox. They are no GPUs that anybody would ask for.
const BMC_DISPLAYS: [u16; 2] = [0x1a03, 0x102b];
/// `ARPHRD_ETHER` (include/uapi/linux/if_arp.h).
const ETHERNET: &str = "1";

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hardware {
    /// In the words of a node's document.
    pub capabilities: Capabilities,
    /// What is there and could not be read, for people.
    pub remarks: Vec<String>,
}

impl Hardware {
    /// Looks at the files under `root` (`/`, but for tests). `cpu_arch`: what this program was built for.
    pub fn look(root: &Path, cpu_arch: &str) -> Self {
        let mut remarks = vec![];
        let disks = disks(root);
        let capabilities = Capabilities {
            traits: qualities::look(root, cpu_arch, &disks),
            cpu_arch: tidy(cpu_arch),
            cpu_model: cpu_model(root),
            cpus: text(&root.join("sys/devices/system/cpu/online"))
                .and_then(|list| count_of(&list))
                .filter(|cpus| *cpus <= CPUS_MAX),
            memory: memory(root, &mut remarks),
            disks,
            nics: nics(root, &mut remarks),
            gpus: gpus(root),
            boot_mode: boot_mode(root, cpu_arch),
            firmware: text(&root.join("sys/class/dmi/id/bios_version")).and_then(|version| tidy(&version)),
            ..Capabilities::default()
        };
        Hardware { capabilities, remarks }
    }

    /// Looks again and again, in a thread of its own: a driver may let a reader of its files wait, and heartbeats must not.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn keep_looking(cpu_arch: &'static str) -> io::Result<Receiver<Hardware>> {
        let (tell, looks) = sync_channel(1);
        let work = move || {
            let mut pause = LOOK_AGAIN;
            // Ends with whoever listens.
            while tell.send(Hardware::look(Path::new("/"), cpu_arch)).is_ok() {
                std::thread::sleep(pause);
                pause = LOOK_EVERY;
            }
        };
        std::thread::Builder::new().name("hardware".into()).spawn(work)?;
        Ok(looks)
    }

    /// The `[node.capabilities]` table, to be pasted below a node's other keys.
    pub fn to_document(&self) -> String {
        let has = &self.capabilities;
        let mut lines: Vec<String> = self.remarks.iter().map(|remark| format!("# {remark}")).collect();
        lines.push("[node.capabilities]".to_owned());
        let mut line = |key: &str, value: Option<String>| {
            lines.extend(value.map(|value| format!("{key} = {value}")));
        };
        line("cpu_arch", has.cpu_arch.as_deref().map(quoted));
        line("cpu_model", has.cpu_model.as_deref().map(quoted));
        line("cpus", has.cpus.map(|cpus| cpus.to_string()));
        line("memory", has.memory.map(|memory| quoted(&memory.to_string())));
        let disk = |disks: &Disks| {
            let kind = match disks.kind {
                DiskKind::Hdd => "hdd",
                DiskKind::Ssd => "ssd",
                DiskKind::Nvme => "nvme",
            };
            format!("{{ type = \"{kind}\", size = \"{}\", count = {} }}", disks.size, disks.count)
        };
        line("disks", list(has.disks.iter().map(disk)));
        let nic = |nics: &Nics| {
            let rdma = match nics.rdma {
                None => "",
                Some(Rdma::Infiniband) => ", rdma = \"infiniband\"",
                Some(Rdma::Roce) => ", rdma = \"roce\"",
            };
            format!("{{ speed = \"{}\", count = {}{rdma} }}", nics.speed, nics.count)
        };
        line("nics", list(has.nics.iter().map(nic)));
        let gpu = |gpus: &Gpus| format!("{{ pci = \"{}\", count = {} }}", gpus.pci, gpus.count);
        line("gpus", list(has.gpus.iter().map(gpu)));
        line("boot_mode", has.boot_mode.map(|mode| quoted(&mode.to_string())));
        line("firmware", has.firmware.as_deref().map(quoted));
        line("traits", list(has.traits.iter().map(|word| quoted(&word.to_string()))));
        lines.join("\n") + "\n"
    }
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn list(items: impl Iterator<Item = String>) -> Option<String> {
    let items: Vec<String> = items.collect();
    match items.as_slice() {
        [] => None,
        [one] => Some(format!("[{one}]")),
        several => Some(format!("[\n  {},\n]", several.join(",\n  "))),
    }
}

fn cpu_model(root: &Path) -> Option<String> {
    let info = text(&root.join("proc/cpuinfo"))?;
    let value = |line: &str| line.strip_prefix("model name")?.trim_start().strip_prefix(':').and_then(tidy);
    info.lines().find_map(value)
}

/// How many a list such as `0-63,66` names.
fn count_of(list: &str) -> Option<u32> {
    list.split(',').try_fold(0u32, |count, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        count.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

/// The memory blocks are what is built in; `MemTotal` lacks what the kernel took for itself before it counted.
fn memory(root: &Path, remarks: &mut Vec<String>) -> Option<Bytes> {
    let folder = root.join("sys/devices/system/memory");
    let block = text(&folder.join("block_size_bytes"));
    let block = block.and_then(|hex| u64::from_str_radix(hex.trim_start_matches("0x"), 16).ok());
    let online = |path: &PathBuf| text(&path.join("state")).as_deref() == Some("online");
    let blocks = entries(&folder).iter().filter(|path| online(path)).count() as u64;
    if let Some(bytes) = block.and_then(|block| block.checked_mul(blocks)).filter(|bytes| *bytes > 0) {
        return Some(Bytes(bytes));
    }
    let info = text(&root.join("proc/meminfo"))?;
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"))?;
    let bytes = total.trim().parse::<u64>().ok()?.checked_mul(1024)?;
    remarks.push(
        "memory is what the kernel has left of it: there are no memory blocks to be counted".to_owned(),
    );
    Some(Bytes(bytes / GIB * GIB)).filter(|bytes| bytes.0 > 0)
}

fn disks(root: &Path) -> Vec<Disks> {
    let mut found = BTreeMap::new();
    for path in entries(&root.join("sys/block")) {
        if let Some(kind) = disk_kind(&path)
            && let Some(sectors) = text(&path.join("size")).and_then(|size| size.parse::<u64>().ok())
            // Whole gigabytes: disks of one label differ in the last sectors.
            && let Some(size) = sectors.checked_mul(SECTOR).map(|bytes| bytes / GB * GB).filter(|size| *size > 0)
        {
            *found.entry((kind, Bytes(size))).or_insert(0) += 1;
        }
    }
    let disks = found.into_iter().map(|((kind, size), count)| Disks { kind, size, count });
    disks.take(CAPABILITY_LINES_MAX).collect()
}

/// The kind of a disk that is built in; `None` for volumes of a SAN, media of the BMC, and what is no disk.
fn disk_kind(path: &Path) -> Option<DiskKind> {
    let is = |file: &str| text(&path.join(file)).as_deref() == Some("1");
    let (name, place) = (path.file_name()?.to_str()?, place(path));
    if is("hidden") || is("removable") {
        return None;
    }
    if name.starts_with("nvme") {
        // Of the controller, or of each path of a subsystem (`transport` in drivers/nvme/host/sysfs.c).
        let controllers = entries(&path.join("device")).into_iter().chain([path.join("device")]);
        let transports: Vec<String> = controllers.filter_map(|path| text(&path.join("transport"))).collect();
        let local = transports.iter().all(|transport| transport == "pcie");
        return (local && (!transports.is_empty() || place.contains("/pci"))).then_some(DiskKind::Nvme);
    }
    // iSCSI disks hang on a session, those of Fibre Channel on a remote port, virtual media of BMCs on USB.
    let remote = ["/session", "/rport-", "/usb"].iter().any(|part| place.contains(part));
    if !name.starts_with("sd") || remote {
        return None;
    }
    Some(if is("queue/rotational") { DiskKind::Hdd } else { DiskKind::Ssd })
}

fn nics(root: &Path, remarks: &mut Vec<String>) -> Vec<Nics> {
    let mut found = BTreeMap::new();
    let mut count = |port: &str, speed: Option<u64>, rdma: Option<Rdma>| match speed {
        Some(speed) => *found.entry((Speed(speed), rdma)).or_insert(0) += 1,
        None => remarks.push(format!("{port} has no link: its speed is not known, it is not among the nics")),
    };
    for path in entries(&root.join("sys/class/net")).iter().filter(|path| is_port(path)) {
        // -1, or an error, while there is no link.
        let speed = text(&path.join("speed")).and_then(|speed| speed.parse().ok()).filter(|speed| *speed > 0);
        count(&name_of(path), speed, offers_roce(path).then_some(Rdma::Roce));
    }
    for device in entries(&root.join("sys/class/infiniband")) {
        if device.join("device/physfn").exists() {
            continue;
        }
        for port in entries(&device.join("ports")) {
            if text(&port.join("link_layer")).as_deref() == Some("InfiniBand") {
                let name = format!("{} port {}", name_of(&device), name_of(&port));
                count(&name, infiniband_speed(&port), Some(Rdma::Infiniband));
            }
        }
    }
    let nics = found.into_iter().map(|((speed, rdma), count)| Nics { speed, count, rdma });
    nics.take(CAPABILITY_LINES_MAX).collect()
}

/// True for a port of a network card that is built in: no bridge, virtual function, representor, radio or USB device.
fn is_port(path: &Path) -> bool {
    let port_name = text(&path.join("phys_port_name")).unwrap_or_default();
    let stands_for_another =
        port_name.starts_with("pf") && (port_name.contains("vf") || port_name.contains("sf"));
    path.join("device").exists()
        && text(&path.join("type")).as_deref() == Some(ETHERNET)
        && !["device/physfn", "wireless", "phy80211"].iter().any(|file| path.join(file).exists())
        && !place(path).contains("/usb")
        && !stands_for_another
}

/// A channel adapter over Ethernet is RoCE; an RNIC over Ethernet is iWARP (RDMA_NODE_RNIC is 2).
fn offers_roce(nic: &Path) -> bool {
    let over_ethernet = |port: &PathBuf| text(&port.join("link_layer")).as_deref() == Some("Ethernet");
    let is_adapter =
        |device: &PathBuf| text(&device.join("node_type")).is_some_and(|kind| kind.starts_with("1:"));
    let devices = entries(&nic.join("device/infiniband"));
    devices
        .iter()
        .filter(|device| is_adapter(device))
        .any(|device| entries(&device.join("ports")).iter().any(over_ethernet))
}

/// `100 Gb/sec (4X EDR)` in megabits a second. Without a link the rate is that of the slowest link.
fn infiniband_speed(port: &Path) -> Option<u64> {
    text(&port.join("state")).filter(|state| state.ends_with("ACTIVE"))?;
    let rate = text(&port.join("rate"))?;
    let (number, _) = rate.split_once(" Gb/sec")?;
    format!("{number}Gbps").parse::<Speed>().ok().map(|speed| speed.0).filter(|speed| *speed > 0)
}

/// Display controllers (class 03) and processing accelerators (class 12), but no virtual functions.
fn gpus(root: &Path) -> Vec<Gpus> {
    let number =
        |path: &Path, file: &str| u32::from_str_radix(text(&path.join(file))?.strip_prefix("0x")?, 16).ok();
    let mut found = BTreeMap::new();
    for path in entries(&root.join("sys/bus/pci/devices")) {
        let is_gpu = number(&path, "class").is_some_and(|class| [0x03, 0x12].contains(&(class >> 16)));
        let id = |file: &str| number(&path, file).and_then(|id| u16::try_from(id).ok());
        if is_gpu
            && !path.join("physfn").exists()
            && let (Some(vendor), Some(device)) = (id("vendor"), id("device"))
            && !BMC_DISPLAYS.contains(&vendor)
        {
            *found.entry(PciId { vendor, device: Some(device) }).or_insert(0) += 1;
        }
    }
    found.into_iter().map(|(pci, count)| Gpus { pci, count }).take(CAPABILITY_LINES_MAX).collect()
}

/// The kernel makes the folder if it was started by UEFI. Only PCs have a BIOS to be started by else.
fn boot_mode(root: &Path, cpu_arch: &str) -> Option<BootMode> {
    let firmware = root.join("sys/firmware");
    match firmware.join("efi").exists() {
        true => Some(BootMode::Uefi),
        false => (firmware.exists() && cpu_arch == "x86_64").then_some(BootMode::Bios),
    }
}

/// Where in the tree of devices the link of a class leads; a folder that is no link leads nowhere.
fn place(path: &Path) -> String {
    fs::read_link(path).map(|target| target.to_string_lossy().into_owned()).unwrap_or_default()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What is in a folder, in the order of names; nothing if it is not there.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return vec![] };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).take(ENTRIES_MAX).collect();
    paths.sort();
    paths
}

/// The beginning of a file, without space around it; `None` if it cannot be read or says nothing.
fn text(path: &Path) -> Option<String> {
    let mut bytes = vec![];
    File::open(path).and_then(|file| file.take(FILE_MAX).read_to_end(&mut bytes)).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim().to_owned()).filter(|text| !text.is_empty())
}

/// A text as a capability may have it: one line, single blanks, not too long.
fn tidy(text: &str) -> Option<String> {
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    let mut tidy = words.join(" ");
    tidy.truncate(tidy.floor_char_boundary(CAPABILITY_TEXT_MAX));
    Some(tidy).filter(|tidy| !tidy.is_empty())
}

#[cfg(test)]
mod tests;
