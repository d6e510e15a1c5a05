//! What the lab tells `hactl apply`: an inventory as an operator would write it.
//!
//! What it never does: read or write a file.

use super::guest::Files;
use super::{INSTANCES, MACHINES, VLAN_PARK, VLAN_TENANT, at};
use crate::rack::description::MachineDescription;
use std::fmt::Write;

/// Where the boot service is; `{boot}` in its addresses.
pub(super) fn first_script_url() -> String {
    format!("http://{}:{}/boot/start/pxe", at::member_infra(1), at::BOOT)
}

/// Providers, nodes and instances, as TOML.
pub(super) fn inventory(machines: &[MachineDescription], ca: &str, token: &str) -> String {
    let mut text = providers(ca, token);
    for (number, machine) in (1..=MACHINES).zip(machines) {
        // Writing into a String cannot fail.
        write!(text, "{}", node(number, machine)).ok();
    }
    for number in 1..=INSTANCES {
        write!(text, "{}", instance(number)).ok();
    }
    text
}

fn providers(ca: &str, token: &str) -> String {
    let services: Vec<String> =
        (1..=3).map(|number| format!("\"http://{}:{}\"", at::member_infra(number), at::BOOT)).collect();
    let mut text = format!(
        "[[provider]]\nname = \"switch\"\nkind = \"ovsdb\"\nurl = \"tcp://{}:{}\"\npark_vlan = {VLAN_PARK}\n\n\
         [[provider]]\nname = \"array\"\nkind = \"iscsi\"\nurl = \"https://{}:{}\"\nca = '''\n{ca}'''\n\
         token = \"{token}\"\n\n\
         [[provider]]\nname = \"pxe\"\nkind = \"boot\"\nurls = [{}]\n",
        at::SWITCH,
        at::OVSDB,
        at::STORAGE,
        at::HA_STORAGE,
        services.join(", ")
    );
    text += &image("standby", "ha.standby");
    for number in 1..=INSTANCES {
        let args = format!(
            "ha.instance={{instance}} ha.epoch={{epoch}} lab.initiator={{initiator}} lab.target={} lab.portal={} \
             lab.mac={} lab.address={}/24",
            at::target(number),
            at::STORAGE,
            at::instance_mac(number),
            at::instance(number)
        );
        text += &image(&format!("web-{number}"), &args);
    }
    text
}

/// What is booted: always the same system, which learns from its command line what it is. The kernel's check of its timer counts
/// ticks while it spins, and panics on an emulated processor that is kept waiting meanwhile: hence `no_timer_check` (the
/// kernel's kernel-parameters.txt).
fn image(name: &str, args: &str) -> String {
    let (kernel, base, lab, own) =
        (Files::url("vmlinuz"), Files::url("base.cpio"), Files::url("lab.cpio"), Files::url("{node}.cpio"));
    format!(
        "[provider.images.{name}.linux]\nkernel = \"{kernel}\"\ninitrd = [\"{base}\", \"{lab}\", \"{own}\"]\n\
         args = \"console=ttyS0 quiet panic=0 no_timer_check {args}\"\n"
    )
}

fn node(number: u8, machine: &MachineDescription) -> String {
    format!(
        "\n[[node]]\nname = \"{}\"\nidentity = {{ guid = \"{}\" }}\ndomains = {{ rack = \"r{number}\" }}\n\
         ports = [{{ provider = \"switch\", port = \"t{number}\" }}]\n\
         standby = {{ provider = \"pxe\", image = \"standby\" }}\nboot_macs = [\"{}\"]\ninitiator = \"{}\"\n\
         probe = {{ icmp = \"{}\" }}\nagent_key = \"{}\"\n\
         [[node.fencing]]\ndriver = \"ipmi\"\naddress = \"{}\"\nuser = \"{}\"\npassword = \"{}\"\ncipher_suite = 3\n\
         boot_device = \"pxe\"\nconsole = true\n",
        machine.name,
        machine.guid,
        at::boot_mac(number),
        at::initiator(number),
        at::machine(number),
        machine.agent_key.0,
        machine.bmc,
        machine.user,
        machine.password.0
    )
}

fn instance(number: u8) -> String {
    format!(
        "\n[[instance]]\nname = \"web-{number}\"\nnode = \"node-{number}\"\npolicy = \"quick\"\n\
         volumes = [{{ provider = \"array\", volume = \"vol-{number}\" }}]\n\
         networks = [{{ vlan = {VLAN_TENANT}, mac = \"{}\" }}]\nboot = {{ provider = \"pxe\", image = \"web-{number}\" }}\n",
        at::instance_mac(number)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rack::{Description, RackSpec};
    use policies::Documents;

    #[test]
    fn the_inventory_is_what_the_supervisor_takes() {
        let spec = RackSpec {
            machines: usize::from(MACHINES),
            spares: usize::from(MACHINES),
            ..RackSpec::new("quick".parse().unwrap(), vec![])
        };
        let rack = Description::draw(&spec).unwrap();
        let text = inventory(&rack.machines, "certificate\n", "token");
        let documents: Documents = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!((documents.providers.len(), documents.nodes.len(), documents.instances.len()), (3, 4, 2));
    }
}
