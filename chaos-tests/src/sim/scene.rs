//! What a simulation begins with: members, nodes, instances, a policy.
//!
//! Why it exists: everything here is drawn from the seed before anything happens, so that it can be printed and cut
//! down.
//! What it never does: change afterwards.

use super::dice::Dice;
use super::script::Script;
use ha_agent::key::Key;
use policies::*;
use raft_store::{Snapshots, Timing};
use std::collections::BTreeMap;
use supervisor::seal::{Seal, Secret};

/// The only image that the boot service has.
pub const IMAGE: &str = "image";

/// What stays the same.
pub struct Setup {
    /// The member that begins the cluster.
    pub founder: MemberId,
    /// Election and time limits.
    pub timing: Timing,
    /// When snapshots are made.
    pub snapshots: Snapshots,
    /// The policy of all instances.
    pub policy: Policy,
    /// Seals the inventory's secrets.
    pub seal: Seal,
}

/// The inventory: what is described to the cluster, and each node's key.
pub struct Inventory {
    /// For `hactl apply`.
    pub documents: Documents,
    /// Keys of the agents.
    pub keys: BTreeMap<NodeId, Key>,
}

/// A name that is one.
fn name<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    #[expect(clippy::expect_used, reason = "names are written in this file")]
    text.parse().expect("a good name")
}

/// Nodes that carry an instance each, and spares, in racks of four. The members' own boot service serves them.
pub fn inventory(seal: &Seal, script: &Script, dice: &mut Dice) -> Inventory {
    let (instances, spares) = (script.instances, script.spares);
    let mut documents = Documents::default();
    let mut keys = BTreeMap::new();
    let linux = Image::Linux { kernel: "http://sim".to_owned(), initrd: vec![], args: String::new() };
    let (urls, images) = (vec![name("http://sim")], BTreeMap::from([(IMAGE.to_owned(), linux)]));
    documents.providers.push(Provider { name: name("boot"), kind: ProviderKind::Boot { urls, images } });
    for kind in ["array", "switch"] {
        let provider: ProviderId = name(kind);
        let token = sealed(seal, Secret::ProviderToken(&provider), b"token");
        let kind = ProviderKind::Rack { url: "http://sim".to_owned(), token };
        documents.providers.push(Provider { name: provider, kind });
    }
    for number in 0..instances + spares {
        let kind = if number < instances { "n" } else { "s" };
        let node: NodeId = name(&format!("{kind}{number:02}"));
        let key = Key::new(std::array::from_fn(|_| dice.byte()));
        documents.nodes.push(describe(seal, &node, &key, number, script.hot > 0));
        keys.insert(node, key);
    }
    for (number, node) in (0..instances).zip(&documents.nodes) {
        documents.instances.push(Instance {
            name: name(&format!("i{number:02}")),
            node: node.name.clone(),
            policy: Some(name("sim")),
            tenant: None,
            labels: BTreeMap::new(),
            volumes: vec![Volume { provider: name("array"), volume: name(&format!("v{number:02}")) }],
            networks: vec![Network::Vlans(Vlans {
                vlan: 100 + u16::try_from(number).unwrap_or(0),
                tagged: std::collections::BTreeSet::new(),
                mac: None,
            })],
            boot: Some(Boot { provider: name("boot"), image: IMAGE.to_owned() }),
            needs: BTreeMap::new(),
            requires: Default::default(),
        });
    }
    documents.policies.push(PolicyDocument { name: name("sim"), policy: script.policy.clone() });
    Inventory { documents, keys }
}

fn sealed(seal: &Seal, secret: Secret<'_>, plain: &[u8]) -> Sealed {
    #[expect(clippy::expect_used, reason = "short secrets can be sealed")]
    seal.seal(secret, plain).expect("a sealed secret")
}

fn describe(seal: &Seal, node: &NodeId, key: &Key, number: u64, hot: bool) -> Node {
    let rack = number / 4;
    let password = sealed(seal, Secret::BmcPassword(node), b"password");
    Node {
        name: node.clone(),
        identity: Identity::default(),
        domains: BTreeMap::from([("rack".to_owned(), format!("r{rack}"))]),
        labels: BTreeMap::new(),
        fencing: vec![FenceDevice::Ipmi {
            address: node.to_string(),
            user: "sim".to_owned(),
            password,
            cipher_suite: 17,
            boot_device: None,
            console: false,
        }],
        ports: vec![SwitchPort { provider: name("switch"), port: node.to_string() }],
        boot_macs: vec![name(&format!("02:00:00:00:00:{number:02x}"))],
        standby: hot.then(|| Boot { provider: name("boot"), image: IMAGE.to_owned() }),
        initiator: Some(node.to_string()),
        probe: Probe { tcp: Some(node.to_string()), ..Probe::default() },
        agent_key: Some(sealed(seal, Secret::AgentKey(node), key.to_hex().as_bytes())),
        capabilities: Default::default(),
    }
}
