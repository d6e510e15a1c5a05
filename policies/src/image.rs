//! What the boot service gives a node to start from.
//!
//! Why it exists: one image serves many instances, so its texts have gaps for what differs between them. What it never
//! does: fetch an image, or look whether it is there.

use crate::words::{Epoch, InstanceId, NodeId};
use leon::Template;
use serde::{Deserialize, Serialize};

/// Longest text of an image, in bytes, before its gaps are filled. Kernels take 2,048 bytes of arguments (x86,
/// `COMMAND_LINE_SIZE`).
const TEXT_BYTES_MAX: usize = 2048;
/// Initial RAM disks of one image.
const INITRD_MAX: usize = 8;
/// The gaps that a text may have, in braces.
const GAPS: [&str; 4] = ["instance", "epoch", "node", "initiator"];

/// A boot image. In every text, `{instance}`, `{epoch}`, `{node}` and `{initiator}` stand for those of the placement; a
/// brace that is meant is written `\{`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Image {
    /// A Linux kernel.
    Linux {
        /// URL of the kernel.
        kernel: String,
        /// URLs of its initial RAM disks.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        initrd: Vec<String>,
        /// Its command line.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        args: String,
    },
    /// A disk in the network.
    San {
        /// iPXE's SAN URI, e.g. `iscsi:10.78.0.1:::1:iqn.2026-01.example:{instance}`.
        uri: String,
    },
}

/// What fills the gaps.
pub(crate) struct Filling<'a> {
    /// Absent on a hot spare: a text that asks for it cannot be filled there.
    pub(crate) placed: Option<(&'a InstanceId, Epoch)>,
    pub(crate) node: &'a NodeId,
    /// Absent: a text that asks for it cannot be filled.
    pub(crate) initiator: Option<&'a str>,
}

impl Image {
    /// What is wrong with it, whoever boots it.
    pub(crate) fn check(&self) -> Result<(), String> {
        if let Image::Linux { initrd, .. } = self
            && initrd.len() > INITRD_MAX
        {
            return Err(format!("more than {INITRD_MAX} initrd"));
        }
        self.each(|text| {
            if text.len() > TEXT_BYTES_MAX {
                return Err(format!("a text of {} bytes is longer than {TEXT_BYTES_MAX}", text.len()));
            }
            match template(text)?.keys().find(|key| !GAPS.contains(key)) {
                Some(key) => Err(format!("{{{key}}} is not known; there are {{{}}}", GAPS.join("}, {"))),
                None => Ok(text.to_owned()),
            }
        })
        .map(drop)
    }

    /// The image of one placement.
    ///
    /// # Errors
    /// In words, what cannot be filled.
    pub(crate) fn fill(&self, filling: &Filling) -> Result<Image, String> {
        let (instance, epoch) = filling.placed.unzip();
        let epoch = epoch.map(|epoch| epoch.0.to_string());
        let names = [
            ("instance", instance.map(InstanceId::as_str)),
            ("epoch", epoch.as_deref()),
            ("node", Some(filling.node.as_str())),
            ("initiator", filling.initiator),
        ];
        let values: Vec<(&str, &str)> =
            names.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))).collect();
        self.each(|text| template(text)?.render(&values).map_err(|error| format!("{text:?}: {error}")))
    }

    /// The same with each text changed. A control character would end a line of a boot script, so none may be in it.
    fn each(&self, change: impl Fn(&str) -> Result<String, String>) -> Result<Image, String> {
        let change = |text: &String| {
            let changed = change(text)?;
            match changed.chars().any(char::is_control) {
                true => Err(format!("{changed:?} has a control character")),
                false => Ok(changed),
            }
        };
        Ok(match self {
            Image::Linux { kernel, initrd, args } => Image::Linux {
                kernel: change(kernel)?,
                initrd: initrd.iter().map(change).collect::<Result<_, _>>()?,
                args: change(args)?,
            },
            Image::San { uri } => Image::San { uri: change(uri)? },
        })
    }
}

fn template(text: &str) -> Result<Template<'_>, String> {
    Template::parse(text).map_err(|error| format!("{text:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linux(args: &str) -> Image {
        Image::Linux {
            kernel: "http://k".to_owned(),
            initrd: vec!["http://i/{node}".to_owned()],
            args: args.to_owned(),
        }
    }

    #[test]
    fn gaps_are_filled_and_unknown_ones_are_refused_beforehand() {
        let (instance, node) = ("web".parse().unwrap(), "n1".parse().unwrap());
        let filling = |initiator| Filling { placed: Some((&instance, Epoch(3))), node: &node, initiator };
        let image = linux(r"root={instance}-{epoch} at={initiator} a=\{b\}");
        image.check().unwrap();
        let Image::Linux { kernel, initrd, args } = image.fill(&filling(Some("iqn.n1"))).unwrap() else {
            panic!("another kind of image")
        };
        assert_eq!((kernel.as_str(), initrd), ("http://k", vec!["http://i/n1".to_owned()]));
        assert_eq!(args, "root=web-3 at=iqn.n1 a={b}");
        assert!(image.fill(&filling(None)).unwrap_err().contains("initiator"));
        assert!(image.fill(&filling(Some("a\nb"))).unwrap_err().contains("control character"));
        for (args, why) in [
            ("{instanze}", "{instanze} is not known; there are {instance}, {epoch}, {node}, {initiator}"),
            ("a\nboot", "control character"),
            (&"x".repeat(TEXT_BYTES_MAX + 1), "longer than 2048"),
            ("{instance", "{instance"),
        ] {
            assert!(linux(args).check().unwrap_err().contains(why), "{:?}", linux(args).check());
        }
    }
}
