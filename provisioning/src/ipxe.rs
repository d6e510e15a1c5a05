//! Boot scripts in iPXE's language (<https://ipxe.org/scripting>).
//!
//! Why it exists: most network cards start iPXE, or a loader that can; a script is all that it needs. What it never does:
//! decide. A script does what a [`BootRole`] says, and unless it boots, the question comes again.

use policies::{BootRole, Booting, HttpUrl, Image};

/// Seconds between two rounds in which no member answered. An election takes less than one.
const PAUSE: u32 = 2;
/// Seconds between two questions of a node that has nothing to do.
const WAIT: u32 = 5;

/// The script that a node is given first, the same for all: it asks each member in turn, for the leader alone answers.
pub fn start(members: &[HttpUrl]) -> String {
    let ask = |member: &HttpUrl| {
        let host = member.authority();
        format!("chain --autofree http://{host}/boot/mac/${{netX/mac}}/ipxe && goto answered ||")
    };
    let mut lines = vec!["#!ipxe".to_owned(), ":ask".to_owned()];
    lines.extend(members.iter().map(ask));
    lines.push("echo No member of the cluster has an answer, asking again".to_owned());
    lines.push(format!("sleep {PAUSE}"));
    lines.extend([":answered", "isset ${ha-local} && exit ||", "goto ask"].map(str::to_owned));
    finished(&lines)
}

/// The script of a role.
pub fn script(role: &BootRole) -> String {
    let mut lines = vec!["#!ipxe".to_owned(), format!("echo {role}")];
    match role {
        BootRole::Boots(Booting { image, initiator, .. }) => {
            lines.extend(initiator.iter().map(|initiator| format!("set initiator-iqn {initiator}")));
            lines.extend(boot(image));
        }
        BootRole::Stands { image, .. } => lines.extend(boot(image)),
        BootRole::Local { .. } => lines.push("set ha-local 1".to_owned()),
        BootRole::Waits { .. } => lines.push(format!("sleep {WAIT}")),
        // Time to read why. Not every iPXE can switch off.
        BootRole::Halts { .. } => lines.extend([format!("sleep {WAIT}"), "poweroff ||".to_owned()]),
    }
    finished(&lines)
}

fn boot(image: &Image) -> Vec<String> {
    match image {
        Image::Linux { kernel, initrd, args } => {
            let mut lines = vec!["imgfree".to_owned(), format!("kernel {kernel} {args}")];
            lines.extend(initrd.iter().map(|initrd| format!("initrd {initrd}")));
            lines.push("boot".to_owned());
            lines
        }
        Image::San { uri } => vec![format!("sanboot {uri}")],
    }
}

fn finished(lines: &[String]) -> String {
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies::Epoch;

    #[test]
    fn the_first_script_asks_each_member_until_one_answers() {
        let members = ["http://10.0.0.1:7480", "http://[fd00::2]:7480"].map(|url| url.parse().unwrap());
        let expected = "#!ipxe
:ask
chain --autofree http://10.0.0.1:7480/boot/mac/${netX/mac}/ipxe && goto answered ||
chain --autofree http://[fd00::2]:7480/boot/mac/${netX/mac}/ipxe && goto answered ||
echo No member of the cluster has an answer, asking again
sleep 2
:answered
isset ${ha-local} && exit ||
goto ask
";
        assert_eq!(start(&members), expected);
    }

    #[test]
    fn each_role_has_its_script() {
        let boots = |image, initiator: Option<&str>| {
            BootRole::Boots(Booting {
                instance: "web".parse().unwrap(),
                epoch: Epoch(2),
                name: "debian".to_owned(),
                image,
                initiator: initiator.map(str::to_owned),
            })
        };
        let standby =
            Image::Linux { kernel: "http://h/vmlinuz".to_owned(), initrd: vec![], args: String::new() };
        let stands = BootRole::Stands { name: "standby".to_owned(), image: standby, prepares: None };
        let linux = Image::Linux {
            kernel: "http://h/vmlinuz".to_owned(),
            initrd: vec!["http://h/a".to_owned(), "http://h/b".to_owned()],
            args: "quiet ha.epoch=2".to_owned(),
        };
        let why = "n1 is quarantined by f7".to_owned();
        for (role, expected) in [
            (
                boots(linux, None),
                "echo boots web in e2 from debian
imgfree
kernel http://h/vmlinuz quiet ha.epoch=2
initrd http://h/a
initrd http://h/b
boot
",
            ),
            (
                boots(Image::San { uri: "iscsi:h:::1:iqn.t".to_owned() }, Some("iqn.n1")),
                "echo boots web in e2 from debian\nset initiator-iqn iqn.n1\nsanboot iscsi:h:::1:iqn.t\n",
            ),
            (stands, "echo waits as a hot spare in standby\nimgfree\nkernel http://h/vmlinuz \nboot\n"),
            (
                BootRole::Local { why: why.clone() },
                "echo boots by itself: n1 is quarantined by f7\nset ha-local 1\n",
            ),
            (BootRole::Waits { why: why.clone() }, "echo waits: n1 is quarantined by f7\nsleep 5\n"),
            (BootRole::Halts { why }, "echo must not run: n1 is quarantined by f7\nsleep 5\npoweroff ||\n"),
        ] {
            assert_eq!(script(&role), format!("#!ipxe\n{expected}"));
        }
    }
}
