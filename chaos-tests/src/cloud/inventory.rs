//! What the cloud's members are told: an inventory as an operator would write it.
//!
//! What it never does: read or write a file.

use super::testbed::{PASSWORD, Testbed};
use super::{Belongings, Described, Pool};
use std::collections::BTreeMap;
use std::fmt::Write;

/// How the members call the cloud.
pub(super) const CLOUD: &str = "cloud";

/// The cloud, its nodes, and an instance on the first node of each pool.
pub(super) fn inventory(
    bed: &Testbed,
    nodes: &[Described],
    belongings: &BTreeMap<Pool, Belongings>,
) -> String {
    let keystone = bed.access().keystone;
    let images = format!("http://{}/images", bed.address(380));
    let mut text = format!(
        "[[provider]]\nname = \"{CLOUD}\"\nkind = \"openstack\"\nkeystone = \"{keystone}\"\n\
         user = {{ by = \"password\", name = \"failover\", project = \"service\" }}\nsecret = \"{PASSWORD}\"\n\
         [provider.deployments.{}]\ninstance_info = {{ boot_iso = \"{images}/img.iso\" }}\n\
         [provider.deployments.{}]\ninstance_info = {{ kernel = \"{images}/kernel\", ramdisk = \"{images}/ramdisk\", \
         kernel_append_params = \"ha.instance={{instance}} ha.epoch={{epoch}}\" }}\n",
        Pool::Redfish.instance(),
        Pool::Pxe.instance(),
    );
    for node in nodes {
        // Writing into a String cannot fail.
        write!(text, "{}", described(bed, node)).ok();
    }
    for (pool, belongings) in belongings {
        let Some(first) = nodes.iter().find(|node| node.pool == *pool) else { continue };
        write!(text, "{}", instance(*pool, first, belongings)).ok();
    }
    text
}

fn described(bed: &Testbed, node: &Described) -> String {
    let Described { name, pool, uuid, nic, agent_key, .. } = node;
    let mut text = format!(
        "\n[[node]]\nname = \"{name}\"\nlabels = {{ pool = \"{}\" }}\ninitiator = \"{}\"\n\
         ports = [{{ provider = \"{CLOUD}\", port = \"{nic}\" }}]\nagent_key = \"{agent_key}\"\n\
         [[node.fencing]]\ndriver = \"ironic\"\nprovider = \"{CLOUD}\"\nnode = \"{uuid}\"\n",
        pool.prefix(),
        node.initiator(),
    );
    if *pool == Pool::Pxe {
        // Writing into a String cannot fail.
        write!(
            text,
            "[node.fencing.bmc]\ndriver = \"ipmi\"\naddress = \"{}\"\nuser = \"admin\"\npassword = \"secret\"\n\
             cipher_suite = 3\n",
            bed.ipmi(node)
        )
        .ok();
    }
    text
}

fn instance(pool: Pool, node: &Described, belongings: &Belongings) -> String {
    let (name, Belongings { port, volume }) = (pool.instance(), belongings);
    let volumes = match pool.has_volume() {
        true => format!("volumes = [{{ provider = \"{CLOUD}\", volume = \"{volume}\" }}]\n"),
        false => String::new(),
    };
    format!(
        "\n[[instance]]\nname = \"{name}\"\nnode = \"{}\"\npolicy = \"quick\"\nneeds = {{ pool = \"{}\" }}\n\
         networks = [{{ vif = \"{port}\" }}]\n{volumes}boot = {{ provider = \"{CLOUD}\", image = \"{name}\" }}\n",
        node.name,
        pool.prefix(),
    )
}
