//! Machines made of files, in the form in which the kernel shows real ones.

use super::*;
use proptest::prelude::*;
use std::os::unix::fs::symlink;

/// A folder that stands for `/`.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        Tree(tempfile::tempdir().unwrap())
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, path: &str, text: impl AsRef<[u8]>) -> &Self {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// A device, and the link by which its class shows it.
    fn device(&self, place: &str, class: &str, files: &[(&str, &str)]) -> &Self {
        fs::create_dir_all(self.root().join("sys").join(place)).unwrap();
        for (name, text) in files {
            self.file(&format!("sys/{place}/{name}"), text);
        }
        let name = place.rsplit('/').next().unwrap();
        let link = self.root().join("sys").join(class).join(name);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        let up = "../".repeat(class.split('/').count());
        symlink(format!("{up}{place}"), link).unwrap();
        self
    }

    /// A disk; its size in sectors.
    fn disk(&self, place: &str, size: &str, rotational: &str) -> &Self {
        let files =
            [("size", size), ("removable", "0\n"), ("hidden", "0\n"), ("queue/rotational", rotational)];
        self.device(&format!("devices/{place}"), "block", &files)
    }

    /// A network port `name` of the card in `card`.
    fn nic(&self, card: &str, name: &str, files: &[(&str, &str)]) -> &Self {
        self.device(&format!("devices/{card}/net/{name}"), "class/net", &[("type", "1\n")])
            .link_card(card, name);
        for (file, text) in files {
            self.file(&format!("sys/devices/{card}/net/{name}/{file}"), text);
        }
        self
    }

    fn link_card(&self, card: &str, name: &str) {
        symlink("../..", self.root().join(format!("sys/devices/{card}/net/{name}/device"))).unwrap();
    }

    fn pci(&self, slot: &str, class: &str, vendor: &str, device: &str) -> &Self {
        let files = [("class", class), ("vendor", vendor), ("device", device)];
        self.device(&format!("devices/pci0000:00/{slot}"), "bus/pci/devices", &files)
    }

    fn look(&self) -> Hardware {
        Hardware::look(self.root(), "x86_64")
    }
}

/// Where the kernel shows whether the firmware checks what it boots.
const SECURE_BOOT: &str = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// A server with two SATA SSDs, four NVMe disks of which one is behind a multipath head, and volumes of three SANs.
fn server() -> Tree {
    let tree = Tree::new();
    let flags = "fpu ht sse4_2 svm avx aes avx2 bmi2 pdpe1gb sha_ni avx512f vaes sev sev_es nosuchflag";
    let cpu = |number: u32| {
        format!(
            "processor\t: {number}\nmodel name\t: AMD EPYC  9354 32-Core Processor\nflags\t\t: {flags}\n\n"
        )
    };
    tree.file("proc/cpuinfo", cpu(0) + &cpu(1)).file("sys/devices/system/cpu/online", "0-62,63\n");
    tree.file("sys/devices/system/memory/block_size_bytes", "80000000\n");
    for block in 0..12 {
        tree.file(&format!("sys/devices/system/memory/memory{block}/state"), "online\n");
    }
    tree.file("sys/devices/system/memory/memory12/state", "offline\n");
    for name in ["sda", "sdb"] {
        tree.disk(
            &format!("pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/{name}"),
            "937703088\n",
            "0\n",
        );
    }
    for number in 0..3 {
        let controller = format!("pci0000:40/0000:41:00.{number}/nvme/nvme{number}");
        tree.disk(&format!("{controller}/nvme{number}n1"), "7501476528\n", "0\n");
        tree.file(&format!("sys/devices/{controller}/transport"), "pcie\n");
        symlink("..", tree.root().join(format!("sys/devices/{controller}/nvme{number}n1/device"))).unwrap();
    }
    let head = "virtual/nvme-subsystem/nvme-subsys3";
    tree.disk(&format!("{head}/nvme3n1"), "7501476528\n", "0\n")
        .file(&format!("sys/devices/{head}/nvme3/transport"), "pcie\n");
    symlink("..", tree.root().join(format!("sys/devices/{head}/nvme3n1/device"))).unwrap();
    tree.disk("pci0000:40/0000:44:00.0/nvme/nvme3/nvme3c3n1", "7501476528\n", "0\n");
    tree.file("sys/block/nvme3c3n1/hidden", "1\n");
    // None of these is built in.
    let fabric = "virtual/nvme-fabrics/ctl/nvme4";
    tree.disk(&format!("{fabric}/nvme4n1"), "2147483648\n", "0\n")
        .file(&format!("sys/devices/{fabric}/transport"), "tcp\n");
    symlink("..", tree.root().join(format!("sys/devices/{fabric}/nvme4n1/device"))).unwrap();
    tree.disk("platform/host9/session1/target9:0:0/9:0:0:0/block/sdc", "2147483648\n", "1\n");
    tree.disk(
        "pci0000:60/0000:61:00.0/host8/rport-8:0-1/target8:0:0/8:0:0:0/block/sdd",
        "2147483648\n",
        "1\n",
    );
    tree.disk("pci0000:00/0000:00:14.0/usb1/1-1/host7/target7:0:0/7:0:0:0/block/sde", "2147483648\n", "1\n");
    tree.disk("virtual/block/loop0", "2147483648\n", "0\n").disk("virtual/block/dm-0", "2147483648\n", "0\n");
    tree.file("sys/class/dmi/id/bios_version", "2.19.1\n").file("sys/firmware/efi/fw_platform_size", "64\n");
    tree.file("sys/devices/system/cpu/smt/active", "1\n").file(SECURE_BOOT, [6, 0, 0, 0, 1]);
    tree
}

fn cards(tree: &Tree) {
    // Two ports with RoCE, and a virtual function and a representor that share their card.
    for (card, name) in [("pci0000:80/0000:81:00.0", "ens1f0"), ("pci0000:80/0000:81:00.1", "ens1f1")] {
        tree.nic(card, name, &[("speed", "25000\n"), ("phys_port_name", "p0\n")]);
        tree.file(&format!("sys/devices/{card}/infiniband/mlx5_{name}/node_type"), "1: CA\n");
        tree.file(&format!("sys/devices/{card}/infiniband/mlx5_{name}/ports/1/link_layer"), "Ethernet\n");
    }
    tree.nic("pci0000:80/0000:81:00.2", "ens1f0v0", &[("speed", "25000\n")]);
    tree.file("sys/devices/pci0000:80/0000:81:00.2/physfn/vendor", "0x15b3\n");
    tree.nic("pci0000:80/0000:81:00.0", "ens1f0r0", &[("speed", "25000\n"), ("phys_port_name", "pf0vf0\n")]);
    // iWARP is no RoCE.
    tree.nic("pci0000:80/0000:82:00.0", "ens2", &[("speed", "10000\n")]);
    tree.file("sys/devices/pci0000:80/0000:82:00.0/infiniband/irdma0/node_type", "2: RNIC\n");
    tree.file("sys/devices/pci0000:80/0000:82:00.0/infiniband/irdma0/ports/1/link_layer", "Ethernet\n");
    tree.nic("pci0000:00/0000:00:1f.6", "eno1", &[("speed", "1000\n")]);
    tree.nic("pci0000:00/0000:00:1f.7", "eno2", &[("speed", "-1\n")]);
    tree.nic("pci0000:00/0000:00:14.0/usb1/1-2", "usb0", &[("speed", "100\n")]);
    tree.device("devices/virtual/net/bond0", "class/net", &[("type", "1\n"), ("speed", "50000\n")]);
    for (number, state, rate) in
        [(0, "4: ACTIVE\n", "200 Gb/sec (4X HDR)\n"), (1, "1: DOWN\n", "10 Gb/sec (4X SDR)\n")]
    {
        let files =
            [("ports/1/link_layer", "InfiniBand\n"), ("ports/1/state", state), ("ports/1/rate", rate)];
        tree.device(
            &format!("devices/pci0000:c0/0000:c1:00.{number}/infiniband/mlx5_{number}"),
            "class/infiniband",
            &files,
        );
    }
    tree.file("sys/devices/pci0000:80/0000:81:00.0/sriov_totalvfs", "8\n");
    tree.pci("0000:02:00.0", "0x030000\n", "0x1a03\n", "0x2000\n");
    for slot in ["0000:17:00.0", "0000:18:00.0"] {
        tree.pci(slot, "0x030200\n", "0x10de\n", "0x2330\n");
    }
    tree.pci("0000:19:00.0", "0x120000\n", "0x1002\n", "0x74a1\n");
    tree.pci("0000:1a:00.0", "0x020000\n", "0x15b3\n", "0x1017\n");
}

#[test]
fn a_server_is_read_and_printed_as_a_document() {
    let tree = server();
    cards(&tree);
    let hardware = tree.look();
    let expected = r##"# eno2 has no link: its speed is not known, it is not among the nics
# mlx5_1 port 1 has no link: its speed is not known, it is not among the nics
[node.capabilities]
cpu_arch = "x86_64"
cpu_model = "AMD EPYC 9354 32-Core Processor"
cpus = 64
memory = "24GiB"
disks = [
  { type = "ssd", size = "480GB", count = 2 },
  { type = "nvme", size = "3840GB", count = 4 },
]
nics = [
  { speed = "1Gbps", count = 1 },
  { speed = "10Gbps", count = 1 },
  { speed = "25Gbps", count = 2, rdma = "roce" },
  { speed = "200Gbps", count = 1, rdma = "infiniband" },
]
gpus = [
  { pci = "1002:74a1", count = 1 },
  { pci = "10de:2330", count = 2 },
]
boot_mode = "uefi"
firmware = "2.19.1"
traits = [
  "COMPUTE_SECURITY_UEFI_SECURE_BOOT",
  "HW_CPU_HYPERTHREADING",
  "HW_CPU_X86_AESNI",
  "HW_CPU_X86_AMD_SEV",
  "HW_CPU_X86_AMD_SEV_ES",
  "HW_CPU_X86_AVX",
  "HW_CPU_X86_AVX2",
  "HW_CPU_X86_AVX512F",
  "HW_CPU_X86_AVX512VAES",
  "HW_CPU_X86_BMI2",
  "HW_CPU_X86_PDPE1GB",
  "HW_CPU_X86_SHA",
  "HW_CPU_X86_SSE42",
  "HW_CPU_X86_SVM",
  "HW_NIC_SRIOV",
  "STORAGE_DISK_SSD",
]
"##;
    assert_eq!(hardware.to_document(), expected);
    let node: policies::Node =
        toml::from_str(&format!("name = \"n1\"\n{}", expected.replace("[node.", "["))).unwrap();
    assert_eq!(node.capabilities, hardware.capabilities);
    assert_eq!(node.capabilities.check(), Ok(()));
}

#[test]
fn what_is_not_there_is_left_out() {
    let tree = Tree::new();
    assert_eq!(tree.look().to_document(), "[node.capabilities]\ncpu_arch = \"x86_64\"\n");
    tree.file("proc/meminfo", "MemTotal:       16266120 kB\nMemFree: 1 kB\n")
        .file("sys/firmware/memmap/0/type", "x");
    let hardware = tree.look();
    assert_eq!(hardware.capabilities.memory, Some(Bytes(15 << 30)));
    assert_eq!(hardware.capabilities.boot_mode, Some(BootMode::Bios));
    assert!(hardware.remarks[0].starts_with("memory is what the kernel has left"));
    assert_eq!(Hardware::look(tree.root(), "aarch64").capabilities.boot_mode, None);
}

#[test]
fn a_quality_is_told_only_if_a_file_says_so() {
    let tree = Tree::new();
    let told = |arch: &str| -> Vec<String> {
        Hardware::look(tree.root(), arch).capabilities.traits.iter().map(ToString::to_string).collect()
    };
    // The flag `ht` says what the CPU could do, not that it does.
    tree.file("proc/cpuinfo", "flags\t: ht vmx avx2x\nflags\t: avx2\n")
        .file("sys/devices/system/cpu/smt/active", "0\n");
    tree.file(SECURE_BOOT, [6, 0, 0, 0, 0]).disk("pci0000:00/ata1/block/sda", "937703088\n", "1\n");
    tree.nic("pci0000:80/0000:81:00.0", "ens1", &[("speed", "25000\n")]);
    tree.file("sys/devices/pci0000:80/0000:81:00.0/sriov_totalvfs", "0\n");
    assert_eq!(told("x86_64"), ["HW_CPU_X86_VMX", "STORAGE_DISK_HDD"]);
    // Cut off, or longer than a variable of one byte.
    tree.file(SECURE_BOOT, [6, 0, 0, 0]);
    assert_eq!(told("x86_64").len(), 2);
    tree.file("proc/cpuinfo", "processor\t: 0\nFeatures\t: fp asimd aes crc32 atomics sve\n");
    let arm = ["AES", "ASIMD", "ATOMICS", "CRC32", "SVE"].map(|word| format!("HW_CPU_AARCH64_{word}"));
    assert_eq!(told("aarch64")[..5], arm);
    assert_eq!(told("riscv64"), ["STORAGE_DISK_HDD"]);
}

#[test]
fn what_is_missed_least_is_left_out_first() {
    let tree = server();
    cards(&tree);
    let mut traits = tree.look().capabilities.traits;
    let mut left_out = vec![];
    while let Some(word) = least(&traits) {
        traits.remove(&word);
        left_out.push(word.to_string());
    }
    assert_eq!(left_out.first().map(String::as_str), Some("HW_CPU_X86_AVX512VAES"));
    assert_eq!(left_out.last().map(String::as_str), Some("HW_CPU_X86_SVM"));
    let kept: Vec<String> = traits.iter().map(ToString::to_string).collect();
    assert_eq!(
        kept,
        ["COMPUTE_SECURITY_UEFI_SECURE_BOOT", "HW_CPU_HYPERTHREADING", "HW_NIC_SRIOV", "STORAGE_DISK_SSD"]
    );
}

#[test]
fn this_machine_is_read_into_a_document_that_can_be_read_back() {
    let document = Hardware::look(Path::new("/"), std::env::consts::ARCH).to_document();
    let node: policies::Node =
        toml::from_str(&format!("name = \"n1\"\n{}", document.replace("[node.", "["))).unwrap();
    assert!(node.capabilities.cpus > Some(0) && node.capabilities.memory > Some(Bytes(0)), "{document}");
}

/// Drivers and firmware write these files; whatever they write, the document can be read and is within its limits.
#[test]
fn any_content_gives_a_document_that_can_be_read() {
    let tree = server();
    cards(&tree);
    let files = [
        "sys/class/dmi/id/bios_version",
        "sys/devices/system/cpu/online",
        "sys/class/net/eno1/speed",
        "sys/block/sda/size",
        "sys/devices/system/memory/block_size_bytes",
        "sys/bus/pci/devices/0000:17:00.0/vendor",
        "sys/class/infiniband/mlx5_0/ports/1/rate",
    ];
    let limits = ProptestConfig { cases: 200, ..ProptestConfig::default() };
    proptest!(limits, |(bytes in proptest::collection::vec(any::<u8>(), 0..300))| {
        for file in files {
            tree.file(file, &bytes);
        }
        let cpuinfo = [b"model name\t: ".as_slice(), &bytes, b"\nflags\t: avx2 ", &bytes].concat();
        tree.file("proc/cpuinfo", cpuinfo).file(SECURE_BOOT, &bytes);
        tree.file("sys/devices/system/cpu/smt/active", &bytes);
        let hardware = tree.look();
        let text = format!("name = \"n1\"\n{}", hardware.to_document().replace("[node.", "["));
        let node: policies::Node = toml::from_str(&text).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(node.capabilities.check(), Ok(()));
        prop_assert_eq!(node.capabilities, hardware.capabilities);
    });
}

proptest! {
    #[test]
    fn lists_of_cpus_are_counted_or_refused(text in "[0-9,-]{0,30}") {
        count_of(&text);
    }
}
