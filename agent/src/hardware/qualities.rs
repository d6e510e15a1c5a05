//! Qualities of a node in OpenStack's words (os-traits): what its CPUs can do, whether its NICs and its firmware offer more.
//!
//! Why it exists: an instance that needs AVX-512 dies on a spare without it, at the first instruction. What it never does:
//! guess; a word is told only if a file of the kernel says so, and one that is not told may still be true.
//!
//! The words are those of os-traits 3: hw/cpu/x86, hw/cpu/aarch64, hw/cpu (hyperthreading), hw/nic, storage/disk,
//! compute/security. The flags are those of arch/x86/include/asm/cpufeatures.h and Documentation/arch/arm64/elf_hwcaps.rst.

use super::{entries, is_port, text};
use policies::{DiskKind, Disks, Trait};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The kernel's word for what an x86 CPU can do, and ours; what is asked for most often comes first. What every server of
/// the last ten years has (MMX to SSE4.1) is left out, for all are told in one datagram.
const X86: [(&str, &str); 33] = [
    ("vmx", "HW_CPU_X86_VMX"),
    ("svm", "HW_CPU_X86_SVM"),
    ("avx2", "HW_CPU_X86_AVX2"),
    ("aes", "HW_CPU_X86_AESNI"),
    ("avx512f", "HW_CPU_X86_AVX512F"),
    ("sse4_2", "HW_CPU_X86_SSE42"),
    ("avx", "HW_CPU_X86_AVX"),
    ("fma", "HW_CPU_X86_FMA3"),
    ("bmi2", "HW_CPU_X86_BMI2"),
    ("sha_ni", "HW_CPU_X86_SHA"),
    ("sev", "HW_CPU_X86_AMD_SEV"),
    ("sev_es", "HW_CPU_X86_AMD_SEV_ES"),
    ("sgx", "HW_CPU_X86_SGX"),
    ("tdx_host_platform", "HW_CPU_X86_INTEL_TDX"),
    ("pdpe1gb", "HW_CPU_X86_PDPE1GB"),
    ("avx512bw", "HW_CPU_X86_AVX512BW"),
    ("avx512dq", "HW_CPU_X86_AVX512DQ"),
    ("avx512vl", "HW_CPU_X86_AVX512VL"),
    ("avx512cd", "HW_CPU_X86_AVX512CD"),
    ("avx512_vnni", "HW_CPU_X86_AVX512VNNI"),
    ("rtm", "HW_CPU_X86_TSX"),
    ("bmi1", "HW_CPU_X86_BMI"),
    ("abm", "HW_CPU_X86_ABM"),
    ("f16c", "HW_CPU_X86_F16C"),
    ("pclmulqdq", "HW_CPU_X86_CLMUL"),
    ("avx512ifma", "HW_CPU_X86_AVX512IFMA"),
    ("avx512vbmi", "HW_CPU_X86_AVX512VBMI"),
    ("avx512_vbmi2", "HW_CPU_X86_AVX512VBMI2"),
    ("avx512_bitalg", "HW_CPU_X86_AVX512BITALG"),
    ("avx512_vpopcntdq", "HW_CPU_X86_AVX512VPOPCNTDQ"),
    ("gfni", "HW_CPU_X86_AVX512GFNI"),
    ("vaes", "HW_CPU_X86_AVX512VAES"),
    ("vpclmulqdq", "HW_CPU_X86_AVX512VPCLMULQDQ"),
];
/// The same of a 64-bit ARM CPU.
const AARCH64: [(&str, &str); 10] = [
    ("sve", "HW_CPU_AARCH64_SVE"),
    ("aes", "HW_CPU_AARCH64_AES"),
    ("atomics", "HW_CPU_AARCH64_ATOMICS"),
    ("asimd", "HW_CPU_AARCH64_ASIMD"),
    ("asimddp", "HW_CPU_AARCH64_ASIMDDP"),
    ("asimdhp", "HW_CPU_AARCH64_ASIMDHP"),
    ("sha2", "HW_CPU_AARCH64_SHA2"),
    ("sha512", "HW_CPU_AARCH64_SHA512"),
    ("crc32", "HW_CPU_AARCH64_CRC32"),
    ("pmull", "HW_CPU_AARCH64_PMULL"),
];
/// What does not come from a flag; none of these is left out for room.
const HYPERTHREADING: &str = "HW_CPU_HYPERTHREADING";
const SRIOV: &str = "HW_NIC_SRIOV";
const SECURE_BOOT: &str = "COMPUTE_SECURITY_UEFI_SECURE_BOOT";
const SSD: &str = "STORAGE_DISK_SSD";
const HDD: &str = "STORAGE_DISK_HDD";

/// Whether the firmware checks what it boots (UEFI 2.10 §3.3). The file has four bytes of attributes before the value
/// (Documentation/filesystems/efivarfs.rst).
const SECURE_BOOT_VARIABLE: &str = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// All that is known of this machine. `disks`: those that are built in.
pub(super) fn look(root: &Path, cpu_arch: &str, disks: &[Disks]) -> BTreeSet<Trait> {
    let (key, known): (&str, &[(&str, &str)]) = match cpu_arch {
        "x86_64" => ("flags", &X86),
        "aarch64" => ("Features", &AARCH64),
        _ => ("", &[]),
    };
    let flags = cpu_flags(root, key);
    let words = known.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, word)| *word);
    // Two threads of one core run at this moment (Documentation/ABI/testing/sysfs-devices-system-cpu).
    let threads = text(&root.join("sys/devices/system/cpu/smt/active")).as_deref() == Some("1");
    let solid = |disks: &Disks| match disks.kind {
        DiskKind::Ssd | DiskKind::Nvme => true,
        DiskKind::Hdd => false,
    };
    let others = [
        threads.then_some(HYPERTHREADING),
        has_sriov(root).then_some(SRIOV),
        is_secure_boot(root).then_some(SECURE_BOOT),
        disks.iter().any(solid).then_some(SSD),
        disks.iter().any(|disks| !solid(disks)).then_some(HDD),
    ];
    words.chain(others.into_iter().flatten()).filter_map(|word| word.parse().ok()).collect()
}

/// The one that is missed least if not all can be told; `None` if there is none left that may be left out.
pub fn least(traits: &BTreeSet<Trait>) -> Option<Trait> {
    let words = X86.iter().chain(&AARCH64).rev().filter_map(|(_, word)| word.parse().ok());
    words.into_iter().find(|word| traits.contains(word))
}

/// The flags of the first CPU; of a machine with unlike ones (Arm's big.LITTLE), servers are none.
fn cpu_flags(root: &Path, key: &str) -> BTreeSet<String> {
    let info = text(&root.join("proc/cpuinfo")).unwrap_or_default();
    let value = |line: &str| {
        let rest = line.strip_prefix(key)?.trim_start().strip_prefix(':')?;
        Some(rest.split_whitespace().map(str::to_owned).collect())
    };
    info.lines().filter(|_| !key.is_empty()).find_map(value).unwrap_or_default()
}

/// A port whose card can be divided (Documentation/ABI/testing/sysfs-bus-pci).
fn has_sriov(root: &Path) -> bool {
    let parts = |path: &Path| text(&path.join("device/sriov_totalvfs"))?.parse::<u32>().ok();
    entries(&root.join("sys/class/net"))
        .iter()
        .any(|path| is_port(path) && parts(path).is_some_and(|parts| parts > 0))
}

fn is_secure_boot(root: &Path) -> bool {
    let mut variable = [0; 5];
    let read =
        File::open(root.join(SECURE_BOOT_VARIABLE)).and_then(|mut file| file.read_exact(&mut variable));
    read.is_ok() && variable[4] == 1
}
