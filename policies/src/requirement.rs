//! What an instance needs of its node: the words of `[instance.requires]`, and what a node misses of it.
//!
//! Why it exists: one list of floors answers two questions: does a spare fit, and is a node as it was declared?
//! What it never does: it does not choose; `placement.rs` does. More of anything never makes a node miss more.

use crate::assign::assign;
use crate::capability::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// What an instance needs. What is absent does not matter to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirements {
    /// Instruction set, e.g. `x86_64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_arch: Option<String>,
    /// A text that the CPU's model must contain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_model: Option<String>,
    /// Logical CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus_min: Option<u32>,
    /// Installed memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_min: Option<Bytes>,
    /// Disks; no disk counts for two lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<DisksMin>,
    /// Network ports; no port counts for two lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nics: Vec<NicsMin>,
    /// GPUs; no GPU counts for two lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<GpusMin>,
    /// How the firmware must boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_mode: Option<BootMode>,
    /// Versions of the firmware, one of which the node must have. They have no order that holds for every vendor.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub firmware_any: BTreeSet<String>,
    /// How the firmware must be set up, in the operator's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bios_profile: Option<String>,
    /// Qualities that the node must have, all of them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub traits: BTreeSet<Trait>,
    /// The class that the node must be of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_class: Option<String>,
}

/// Some disks of at least a size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DisksMin {
    /// Their kind; absent: any.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<DiskKind>,
    /// Size of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_min: Option<Bytes>,
    /// How many.
    #[serde(default = "one")]
    pub count_min: u32,
}

/// Some network ports of at least a speed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NicsMin {
    /// Speed of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed_min: Option<Speed>,
    /// How many.
    #[serde(default = "one")]
    pub count_min: u32,
    /// The kind of remote memory access that each must offer; absent: none is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdma: Option<Rdma>,
}

/// Some GPUs of one model or vendor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpusMin {
    /// Which; the vendor alone stands for all of its devices, absent for any GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci: Option<PciId>,
    /// How many.
    #[serde(default = "one")]
    pub count_min: u32,
}

impl fmt::Display for DisksMin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Some(kind) => write!(f, "{kind} disks")?,
            None => write!(f, "disks")?,
        }
        self.size_min.map_or(Ok(()), |size| write!(f, " of at least {size}"))
    }
}

impl fmt::Display for NicsMin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rdma {
            Some(rdma) => write!(f, "{rdma} NICs")?,
            None => write!(f, "NICs")?,
        }
        self.speed_min.map_or(Ok(()), |speed| write!(f, " of at least {speed}"))
    }
}

impl fmt::Display for GpusMin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GPUs")?;
        self.pci.map_or(Ok(()), |pci| write!(f, " {pci}"))
    }
}

impl Requirements {
    /// True if nothing is needed.
    pub fn is_empty(&self) -> bool {
        *self == Requirements::default()
    }

    /// What is wrong with it: what no machine could have, or what is too long to be kept.
    ///
    /// # Errors
    /// The first such thing, with its key.
    pub fn check(&self) -> Result<(), String> {
        let texts = [&self.cpu_arch, &self.cpu_model, &self.bios_profile, &self.resource_class];
        check_texts(texts.into_iter().flatten().chain(&self.firmware_any))?;
        let sets = [self.traits.len(), self.firmware_any.len()];
        check_lines([self.disks.len(), self.nics.len(), self.gpus.len()].into_iter().chain(sets))?;
        check_cpus(self.cpus_min)?;
        check_counts("disks", self.disks.iter().map(|disks| disks.count_min))?;
        check_counts("nics", self.nics.iter().map(|nics| nics.count_min))?;
        check_counts("gpus", self.gpus.iter().map(|gpus| gpus.count_min))
    }

    /// In words for people, one kind a line.
    pub fn lines(&self) -> Vec<String> {
        let words = |word: &str, text: &Option<String>| text.as_ref().map(|text| format!("{word} {text}"));
        let versions: Vec<&str> = self.firmware_any.iter().map(String::as_str).collect();
        let traits: Vec<String> = self.traits.iter().map(ToString::to_string).collect();
        let mut lines = vec![];
        lines.extend(words("CPU architecture", &self.cpu_arch));
        lines.extend(words("CPU model", &self.cpu_model));
        lines.extend(self.cpus_min.map(|cpus| format!("{cpus} or more CPUs")));
        lines.extend(self.memory_min.map(|memory| format!("memory of at least {memory}")));
        lines.extend(self.disks.iter().map(|line| format!("{} or more {line}", line.count_min)));
        lines.extend(self.nics.iter().map(|line| format!("{} or more {line}", line.count_min)));
        lines.extend(self.gpus.iter().map(|line| format!("{} or more {line}", line.count_min)));
        lines.extend(self.boot_mode.map(|mode| format!("boot mode {mode}")));
        lines.extend(Some(format!("firmware {}", versions.join(" or "))).filter(|_| !versions.is_empty()));
        lines.extend(words("BIOS profile", &self.bios_profile));
        lines.extend(Some(format!("traits {}", traits.join(", "))).filter(|_| !traits.is_empty()));
        lines.extend(words("resource class", &self.resource_class));
        lines
    }

    /// What a node with `has` misses, all of it; `None` if it misses nothing.
    pub fn missing(&self, has: &Capabilities) -> Option<String> {
        if has.is_empty() && !self.is_empty() {
            // Twelve times "unknown" would hide that one thing is to be done.
            return Some("nothing is known of its hardware, and the instance requires some".to_owned());
        }
        self.missing_as("needed", has)
    }

    fn missing_as(&self, word: &str, has: &Capabilities) -> Option<String> {
        let missing: Vec<String> = FLOORS.iter().filter_map(|floor| floor(self, has, word)).collect();
        (!missing.is_empty()).then(|| missing.join(", and "))
    }
}

impl Capabilities {
    /// What was found to be less than, or other than, declared here; `None` if nothing was. More than declared is
    /// well. What no agent can see is not compared, and neither is what this one could not read.
    pub fn mismatch(&self, found: &Capabilities) -> Option<String> {
        let disks = self.disks.iter().map(|disks| DisksMin {
            kind: Some(disks.kind),
            size_min: Some(disks.size),
            count_min: disks.count,
        });
        let nics = self.nics.iter().map(|nics| NicsMin {
            speed_min: Some(nics.speed),
            count_min: nics.count,
            rdma: nics.rdma,
        });
        let gpus = self.gpus.iter().map(|gpus| GpusMin { pci: Some(gpus.pci), count_min: gpus.count });
        let declared = Requirements {
            cpu_arch: self.cpu_arch.clone().filter(|_| found.cpu_arch.is_some()),
            cpu_model: self.cpu_model.clone().filter(|_| found.cpu_model.is_some()),
            cpus_min: self.cpus.filter(|_| found.cpus.is_some()),
            memory_min: self.memory.filter(|_| found.memory.is_some()),
            disks: disks.collect(),
            nics: nics.collect(),
            gpus: gpus.collect(),
            boot_mode: self.boot_mode.filter(|_| found.boot_mode.is_some()),
            firmware_any: self.firmware.iter().filter(|_| found.firmware.is_some()).cloned().collect(),
            bios_profile: None,
            traits: BTreeSet::new(),
            resource_class: None,
        };
        declared.missing_as("declared", found)
    }
}

/// Says what of one kind a node misses; the last argument is why it is wanted: "needed" or "declared".
type Floor = fn(&Requirements, &Capabilities, &str) -> Option<String>;

/// Every kind, in the order in which it is reported: what decides whether the instance boots at all comes first.
const FLOORS: [Floor; 12] = [
    cpu_arch,
    boot_mode,
    firmware,
    bios_profile,
    cpu_model,
    cpus,
    memory,
    disks,
    nics,
    gpus,
    traits,
    resource_class,
];

fn cpu_arch(needs: &Requirements, has: &Capabilities, word: &str) -> Option<String> {
    other("CPU architecture", &needs.cpu_arch, &has.cpu_arch, word)
}

fn boot_mode(needs: &Requirements, has: &Capabilities, word: &str) -> Option<String> {
    other("boot mode", &needs.boot_mode, &has.boot_mode, word)
}

fn firmware(needs: &Requirements, has: &Capabilities, word: &str) -> Option<String> {
    let fits = has.firmware.as_ref().is_some_and(|version| needs.firmware_any.contains(version));
    if fits || needs.firmware_any.is_empty() {
        return None;
    }
    let versions: Vec<&str> = needs.firmware_any.iter().map(String::as_str).collect();
    Some(format!("firmware {}, {} {word}", or_unknown(has.firmware.as_ref()), versions.join(" or ")))
}

fn bios_profile(needs: &Requirements, has: &Capabilities, word: &str) -> Option<String> {
    other("BIOS profile", &needs.bios_profile, &has.bios_profile, word)
}

fn cpu_model(needs: &Requirements, has: &Capabilities, word: &str) -> Option<String> {
    let part = needs.cpu_model.as_ref()?;
    let fits = has.cpu_model.as_ref().is_some_and(|model| model.contains(part.as_str()));
    (!fits).then(|| format!("CPU model {}, {part} {word}", or_unknown(has.cpu_model.as_ref())))
}

fn cpus(needs: &Requirements, has: &Capabilities, word: &str) -> Option<String> {
    below("CPUs", needs.cpus_min, has.cpus.as_ref(), word)
}

fn memory(needs: &Requirements, has: &Capabilities, word: &str) -> Option<String> {
    below("memory", needs.memory_min, has.memory.as_ref(), word)
}

/// The most demanding lines are given their disks first, so that what is missing is told of the lines that demand less.
fn disks(needs: &Requirements, has: &Capabilities, word: &str) -> Option<String> {
    let mut lines: Vec<(&DisksMin, u32)> = needs.disks.iter().map(|line| (line, line.count_min)).collect();
    lines.sort_by_key(|(line, _)| std::cmp::Reverse((line.size_min, line.kind)));
    let stock: Vec<(&Disks, u32)> = has.disks.iter().map(|disks| (disks, disks.count)).collect();
    let fits = |line: &&DisksMin, disks: &&Disks| {
        line.size_min.is_none_or(|size| size <= disks.size) && line.kind.is_none_or(|kind| kind == disks.kind)
    };
    too_few(&lines, &stock, fits, word)
}

fn nics(needs: &Requirements, has: &Capabilities, word: &str) -> Option<String> {
    let mut lines: Vec<(&NicsMin, u32)> = needs.nics.iter().map(|line| (line, line.count_min)).collect();
    lines.sort_by_key(|(line, _)| std::cmp::Reverse((line.speed_min, line.rdma)));
    let stock: Vec<(&Nics, u32)> = has.nics.iter().map(|nics| (nics, nics.count)).collect();
    let fits = |line: &&NicsMin, nics: &&Nics| {
        line.speed_min.is_none_or(|speed| speed <= nics.speed)
            && (line.rdma.is_none() || line.rdma == nics.rdma)
    };
    too_few(&lines, &stock, fits, word)
}

fn gpus(needs: &Requirements, has: &Capabilities, word: &str) -> Option<String> {
    let mut lines: Vec<(&GpusMin, u32)> = needs.gpus.iter().map(|line| (line, line.count_min)).collect();
    lines.sort_by_key(|(line, _)| std::cmp::Reverse(line.pci));
    let stock: Vec<(&Gpus, u32)> = has.gpus.iter().map(|gpus| (gpus, gpus.count)).collect();
    let fits = |line: &&GpusMin, gpus: &&Gpus| line.pci.is_none_or(|pci| pci.covers(gpus.pci));
    too_few(&lines, &stock, fits, word)
}

fn traits(needs: &Requirements, has: &Capabilities, _: &str) -> Option<String> {
    let missing: Vec<String> = needs.traits.difference(&has.traits).map(ToString::to_string).collect();
    match missing.as_slice() {
        [] => None,
        [one] => Some(format!("trait {one} is missing")),
        several => Some(format!("traits {} are missing", several.join(", "))),
    }
}

fn resource_class(needs: &Requirements, has: &Capabilities, word: &str) -> Option<String> {
    other("resource class", &needs.resource_class, &has.resource_class, word)
}

fn other<T: PartialEq + fmt::Display>(
    what: &str,
    needs: &Option<T>,
    has: &Option<T>,
    word: &str,
) -> Option<String> {
    let wanted = needs.as_ref().filter(|_| needs != has)?;
    Some(format!("{what} {}, {wanted} {word}", or_unknown(has.as_ref())))
}

fn below<T: PartialOrd + fmt::Display>(
    what: &str,
    needs: Option<T>,
    has: Option<&T>,
    word: &str,
) -> Option<String> {
    let min = needs.filter(|min| has.is_none_or(|has| has < min))?;
    Some(format!("{what} {}, {min} {word}", or_unknown(has)))
}

fn or_unknown<T: fmt::Display>(has: Option<&T>) -> String {
    has.map_or_else(|| "unknown".to_owned(), ToString::to_string)
}

fn too_few<L: fmt::Display, S>(
    lines: &[(L, u32)],
    stock: &[(S, u32)],
    fits: impl Fn(&L, &S) -> bool,
    word: &str,
) -> Option<String> {
    let given = assign(lines, stock, fits);
    let short = lines.iter().zip(given).filter(|((_, count), given)| given < count);
    let short: Vec<String> =
        short.map(|((line, count), given)| format!("{given} of {count} {line}")).collect();
    (!short.is_empty()).then(|| format!("{} {word}", short.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{btree_set, vec};
    use proptest::option::of;
    use proptest::prelude::*;

    fn needs(text: &str) -> Requirements {
        toml::from_str(text).unwrap()
    }

    fn has(text: &str) -> Capabilities {
        toml::from_str(text).unwrap()
    }

    fn missing(needed: &str, there: &str) -> String {
        needs(needed).missing(&has(there)).unwrap_or_default()
    }

    #[test]
    fn no_piece_counts_twice_and_none_is_wasted() {
        let two = "disks = [{ type = \"nvme\", size_min = \"1TB\", count_min = 2 }, { count_min = 2 }]";
        assert_eq!(missing(two, "disks = [{ type = \"nvme\", size = \"2TB\", count = 4 }]"), "");
        assert_eq!(
            missing(two, "disks = [{ type = \"nvme\", size = \"2TB\", count = 3 }]"),
            "1 of 2 disks needed"
        );
        let mixed = "disks = [{ type = \"nvme\", size = \"960GB\", count = 9 }, { type = \"ssd\", size = \"2TB\", count = 9 }]";
        assert_eq!(missing(two, mixed), "0 of 2 NVMe disks of at least 1TB needed");
        // Neither line demands more than the other: the fast port must not be the only one with RDMA.
        let ports = "nics = [{ speed_min = \"100Gbps\" }, { speed_min = \"25Gbps\", rdma = \"roce\" }]";
        let both = "nics = [{ speed = \"100Gbps\", rdma = \"roce\" }, { speed = \"100Gbps\" }]";
        assert_eq!(missing(ports, both), "");
        let slow = "nics = [{ speed = \"100Gbps\", rdma = \"roce\" }, { speed = \"25Gbps\" }]";
        assert_eq!(missing(ports, slow), "0 of 1 RoCE NICs of at least 25Gbps needed");
        let any = "gpus = [{ count_min = 1 }, { pci = \"10de\", count_min = 2 }]";
        assert_eq!(missing(any, "gpus = [{ pci = \"10de:2330\", count = 2 }, { pci = \"1002:740c\" }]"), "");
    }

    #[test]
    fn every_key_is_documented_and_the_example_can_be_read() {
        let doc = include_str!("../../docs/CONFIGURATION.md");
        let rows = doc
            .lines()
            .filter(|line| line.starts_with("| `capabilities.") || line.starts_with("| `requires."));
        let mut documented: Vec<&str> = rows.filter_map(|row| row.split('`').nth(1)).collect();
        documented.sort_unstable();
        let fields = |name: &str, error: String| -> Vec<String> {
            let (_, expected) = error.split_once("expected one of ").unwrap();
            expected.split('`').skip(1).step_by(2).map(|key| format!("{name}.{key}")).collect()
        };
        let unknown = "no-such-key = 1";
        let mut keys =
            fields("capabilities", toml::from_str::<Capabilities>(unknown).unwrap_err().to_string());
        keys.extend(fields("requires", toml::from_str::<Requirements>(unknown).unwrap_err().to_string()));
        keys.sort();
        assert_eq!(documented, keys);
        let table = |name: &str| {
            let (_, rest) = doc.split_once(&format!("\n[{name}]\n")).unwrap();
            rest.split("\n```").next().and_then(|rest| rest.split("\n\n").next()).unwrap()
        };
        let (node, instance) = (has(table("node.capabilities")), needs(table("instance.requires")));
        assert_eq!((node.check(), instance.check(), instance.missing(&node)), (Ok(()), Ok(()), None));
    }

    #[test]
    fn less_than_declared_is_a_mismatch_and_more_is_none() {
        let declared = has("memory = \"256GiB\"\ncpus = 64\nboot_mode = \"uefi\"\ntraits = [\"CUSTOM_X\"]\n\
                            disks = [{ type = \"nvme\", size = \"3.84TB\", count = 4 }]\nfirmware = \"2.1\"\n");
        let more = has("memory = \"512GiB\"\nboot_mode = \"uefi\"\n\
                        disks = [{ type = \"nvme\", size = \"3840755982336B\", count = 5 }]\n");
        assert_eq!(declared.mismatch(&more), None);
        let less = has("memory = \"224GiB\"\nboot_mode = \"bios\"\nfirmware = \"2.2\"\n\
                        disks = [{ type = \"nvme\", size = \"3.84TB\", count = 3 }]\n");
        assert_eq!(
            declared.mismatch(&less).unwrap(),
            "boot mode bios, uefi declared, and firmware 2.2, 2.1 declared, and memory 224GiB, 256GiB declared, \
             and 3 of 4 NVMe disks of at least 3840GB declared"
        );
        assert_eq!(Capabilities::default().mismatch(&less), None);
    }

    fn kinds() -> impl Strategy<Value = DiskKind> {
        prop_oneof![Just(DiskKind::Hdd), Just(DiskKind::Ssd), Just(DiskKind::Nvme)]
    }

    fn rdma() -> impl Strategy<Value = Option<Rdma>> {
        of(prop_oneof![Just(Rdma::Infiniband), Just(Rdma::Roce)])
    }

    fn pci() -> impl Strategy<Value = PciId> {
        (0u16..2, of(0u16..2)).prop_map(|(vendor, device)| PciId { vendor, device })
    }

    fn text() -> impl Strategy<Value = Option<String>> {
        of("[ab]{1,2}")
    }

    fn all_traits() -> impl Strategy<Value = BTreeSet<Trait>> {
        btree_set("[AB]{1,2}".prop_map(|text| text.parse().unwrap()), 0..3)
    }

    prop_compose! {
        fn capabilities()(
            texts in [text(), text(), text(), text(), text()],
            cpus in of(1u32..4),
            memory in of((0u64..4).prop_map(Bytes)),
            disks in vec((kinds(), 0u64..4, 1u32..3), 0..4),
            nics in vec((0u64..4, 1u32..3, rdma()), 0..4),
            gpus in vec((pci(), 1u32..3), 0..4),
            boot_mode in of(prop_oneof![Just(BootMode::Bios), Just(BootMode::Uefi)]),
            traits in all_traits(),
        ) -> Capabilities {
            let [cpu_arch, cpu_model, firmware, bios_profile, resource_class] = texts;
            let disks = disks.into_iter().map(|(kind, size, count)| Disks { kind, size: Bytes(size), count });
            let nics = nics.into_iter().map(|(speed, count, rdma)| Nics { speed: Speed(speed), count, rdma });
            let gpus = gpus.into_iter().map(|(pci, count)| Gpus { pci, count });
            let (disks, nics, gpus) = (disks.collect(), nics.collect(), gpus.collect());
            Capabilities { cpu_arch, cpu_model, cpus, memory, disks, nics, gpus, boot_mode, firmware, bios_profile, traits, resource_class }
        }
    }

    prop_compose! {
        fn requirements()(
            texts in [text(), text(), text(), text()],
            cpus_min in of(1u32..4),
            memory_min in of((0u64..4).prop_map(Bytes)),
            disks in vec((of(kinds()), of(0u64..4), 1u32..3), 0..4),
            nics in vec((of(0u64..4), 1u32..3, rdma()), 0..4),
            gpus in vec((of(pci()), 1u32..3), 0..4),
            boot_mode in of(prop_oneof![Just(BootMode::Bios), Just(BootMode::Uefi)]),
            firmware_any in btree_set("[ab]{1,2}", 0..3),
            traits in all_traits(),
        ) -> Requirements {
            let [cpu_arch, cpu_model, bios_profile, resource_class] = texts;
            let disks = disks.into_iter().map(|(kind, size, count_min)| DisksMin { kind, size_min: size.map(Bytes), count_min });
            let nics = nics.into_iter().map(|(speed, count_min, rdma)| NicsMin { speed_min: speed.map(Speed), count_min, rdma });
            let gpus = gpus.into_iter().map(|(pci, count_min)| GpusMin { pci, count_min });
            let (disks, nics, gpus) = (disks.collect(), nics.collect(), gpus.collect());
            Requirements { cpu_arch, cpu_model, cpus_min, memory_min, disks, nics, gpus, boot_mode, firmware_any, bios_profile, traits, resource_class }
        }
    }

    /// Adds to each kind what `extra` has of it; texts that are known stay as they are.
    fn more(has: &Capabilities, extra: &Capabilities) -> Capabilities {
        let mut more = has.or(extra);
        more.cpus = has.cpus.map(|cpus| cpus + extra.cpus.unwrap_or(0)).or(extra.cpus);
        more.memory =
            has.memory.map(|memory| Bytes(memory.0 + extra.memory.unwrap_or_default().0)).or(extra.memory);
        more.disks = has.disks.iter().chain(&extra.disks).cloned().collect();
        more.nics = has.nics.iter().chain(&extra.nics).cloned().collect();
        more.gpus = has.gpus.iter().chain(&extra.gpus).cloned().collect();
        for disks in &mut more.disks {
            disks.size.0 += u64::from(extra.cpus.unwrap_or(0));
        }
        for nics in &mut more.nics {
            nics.speed.0 += u64::from(extra.cpus.unwrap_or(0));
        }
        more
    }

    /// The most pieces that lines can get, tried out in every way: one unit of a line after the other.
    fn most(lines: &[usize], stock: &[usize], fits: &dyn Fn(usize, usize) -> bool, used: u32) -> usize {
        let Some((line, rest)) = lines.split_first() else { return 0 };
        let skipped = most(rest, stock, fits, used);
        let free = (0..stock.len()).filter(|at| used & 1 << at == 0 && fits(*line, stock[*at]));
        free.map(|at| 1 + most(rest, stock, fits, used | 1 << at)).chain([skipped]).max().unwrap_or(0)
    }

    proptest! {
        #[test]
        fn more_capability_never_makes_a_node_fit_less(needs in requirements(), has in capabilities(), extra in capabilities()) {
            let then = more(&has, &extra);
            if needs.missing(&has).is_none() {
                prop_assert_eq!(needs.missing(&then), None);
            }
            for floor in FLOORS {
                if floor(&needs, &has, "needed").is_none() {
                    prop_assert_eq!(floor(&needs, &then, "needed"), None);
                }
            }
        }

        #[test]
        fn a_node_is_as_it_was_declared_if_that_was_found_or_more(has in capabilities(), extra in capabilities()) {
            prop_assert_eq!(has.mismatch(&has), None);
            prop_assert_eq!(has.mismatch(&more(&has, &extra)), None);
        }

        #[test]
        fn as_many_are_given_as_can_be_and_the_first_lines_first(
            counts in vec(1u32..3, 1..4),
            pieces in vec(1u32..3, 0..4),
            fits in vec(any::<bool>(), 16),
        ) {
            let lines: Vec<(usize, u32)> = counts.into_iter().enumerate().collect();
            let stock: Vec<(usize, u32)> = pieces.into_iter().enumerate().collect();
            let fits = |line: usize, piece: usize| fits[line * 4 + piece];
            let given = assign(&lines, &stock, |line, piece| fits(*line, *piece));
            let units = |of: &[(usize, u32)]| -> Vec<usize> {
                of.iter().flat_map(|(at, count)| vec![*at; *count as usize]).collect()
            };
            for first in 1..=lines.len() {
                let got: u32 = given[..first].iter().sum();
                prop_assert_eq!(got as usize, most(&units(&lines[..first]), &units(&stock), &fits, 0));
            }
        }

        #[test]
        fn documents_are_read_as_they_were_written(needs in requirements(), has in capabilities()) {
            prop_assert_eq!(toml::from_str::<Requirements>(&toml::to_string(&needs).unwrap()).unwrap(), needs);
            prop_assert_eq!(toml::from_str::<Capabilities>(&toml::to_string(&has).unwrap()).unwrap(), has);
        }
    }
}
