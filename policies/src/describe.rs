//! `hactl apply`: documents into state, all or nothing. Checks what can be checked without asking the world.

use crate::apply::not_there;
use crate::command::{Documents, Event, Rejected};
use crate::device::{FenceDevice, is_uuid};
use crate::image::Image;
use crate::inventory::{Boot, Instance, Node, SwitchPort};
use crate::network::{Network, Vlans};
use crate::placement::unlike;
use crate::plan::{Evidence, Verdict};
use crate::provider::ProviderKind;
use crate::state::*;
use crate::words::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Longest free text of a document (an address, a label, an image). Bounds the snapshot.
pub(crate) const TEXT_MAX: usize = 1024;
/// Longest serial number. SMBIOS strings have at most 64 bytes in most firmware; printed ones are shorter.
const SERIAL_MAX: usize = 64;
/// Volumes, networks, ports, levels or labels of one object.
pub(crate) const LIST_MAX: usize = 64;

impl NodeRecord {
    /// Of a node that was described just now.
    pub(crate) fn new(node: Node) -> Self {
        NodeRecord {
            node: Arc::new(node),
            state: NodeState::Spare,
            verdict: Verdict::Unknown,
            evidence: Evidence::default(),
            judged: Wall(0),
            withheld: None,
            cordoned: false,
            maintenance: None,
            fence_order: None,
            approved: None,
            strikes: vec![],
            takeover: None,
            confirmed_off: None,
            by_hand: vec![],
            found: None,
        }
    }
}

impl ClusterState {
    /// Takes the documents. On an error the caller drops the half-changed copy.
    pub(crate) fn describe(
        &mut self,
        index: LogIndex,
        at: Wall,
        by: &str,
        documents: &Documents,
    ) -> Result<Vec<Event>, Rejected> {
        let mut events = vec![];
        let mut tell = |about: String, new: bool| {
            let word = if new { "created" } else { "changed" };
            let text = format!("{by} {word} {about}");
            events.push(Event { index, at, about: vec![about], text });
        };
        for document in &documents.policies {
            let new = !self.policies.contains_key(&document.name);
            let order = Order::new(by, "applied with other documents", at);
            self.revise(&document.name, &document.policy, index, order)?;
            tell(format!("policy/{}", document.name), new);
        }
        for provider in &documents.providers {
            let what = || format!("provider/{}", provider.name);
            provider.kind.check().map_err(|why| Rejected::BadValue { what: what(), why })?;
            let old = self.providers.insert(provider.name.clone(), provider.clone());
            tell(format!("provider/{}", provider.name), old.is_none());
        }
        for node in &documents.nodes {
            let new = self.describe_node(node)?;
            tell(format!("node/{}", node.name), new);
        }
        for instance in &documents.instances {
            let new = self.describe_instance(instance)?;
            tell(format!("instance/{}", instance.name), new);
        }
        self.check_claims()?;
        self.select_policies()?;
        let counts = [self.nodes.len(), self.instances.len(), self.providers.len(), self.policies.len()];
        match counts.into_iter().max() {
            Some(most) if most > OBJECTS_MAX => Err(Rejected::TooMany {
                what: "objects of one kind".to_owned(),
                now: most as u64,
                max: OBJECTS_MAX as u64,
            }),
            Some(_) | None => Ok(events),
        }
    }

    fn describe_node(&mut self, node: &Node) -> Result<bool, Rejected> {
        check_node(node)?;
        for port in &node.ports {
            if !self.providers.contains_key(&port.provider) {
                return Err(not_there("provider", &port.provider));
            }
        }
        self.check_standby(node)?;
        self.check_clouds(node)?;
        if let Some(plan) = self.plan_of_node(&node.name) {
            let why = format!("it takes part in failover {}", plan.id);
            return Err(Rejected::InUse { what: format!("node/{}", node.name), why });
        }
        let networks = self.instance_on(&node.name).map_or(&[][..], |record| &record.instance.networks);
        let bad = |why| Err(Rejected::BadValue { what: format!("node/{}", node.name), why });
        if node.ports.len() < networks.len() {
            let networks = networks.len();
            return bad(format!("{} ports for the {networks} networks of its instance", node.ports.len()));
        }
        if let Some(why) = unlike(networks, &node.ports, &self.providers) {
            return bad(why);
        }
        if let Some(record) = self.nodes.get_mut(&node.name) {
            if *record.node != *node {
                // Its addresses may be new: what we saw under the old ones counts no longer.
                record.verdict = Verdict::Unknown;
            }
            record.node = Arc::new(node.clone());
            return Ok(false);
        }
        self.nodes.insert(node.name.clone(), NodeRecord::new(node.clone()));
        Ok(true)
    }

    /// A hot spare boots like any node, and its agent has to tell that it waits.
    fn check_standby(&self, node: &Node) -> Result<(), Rejected> {
        let Some(Boot { provider, image }) = &node.standby else { return Ok(()) };
        let provider = self.providers.get(provider).ok_or_else(|| not_there("provider", provider))?;
        let served = provider.kind.boot_service().map(|(_, images)| images.get(image));
        let why = match served {
            None => format!("standby: provider {} is not of the kind `boot`", provider.name),
            Some(None) => format!("standby: provider {} has no image {image}", provider.name),
            Some(Some(Image::San { .. })) => {
                format!(
                    "standby: image {image} is a disk in the network; a spare waits in its memory, in a `linux` image"
                )
            }
            Some(Some(Image::Linux { .. })) if node.boot_macs.is_empty() => {
                "standby: without boot_macs the boot service does not know it".to_owned()
            }
            Some(Some(Image::Linux { .. })) if node.agent_key.is_none() => {
                "standby: without agent_key nobody hears that it waits".to_owned()
            }
            Some(Some(Image::Linux { .. })) => return Ok(()),
        };
        Err(Rejected::BadValue { what: format!("node/{}", node.name), why })
    }

    /// A node is fenced through clouds that there are, and a cloud whose ports it has knows it.
    fn check_clouds(&self, node: &Node) -> Result<(), Rejected> {
        let bad = |why: String| Err(Rejected::BadValue { what: format!("node/{}", node.name), why });
        for SwitchPort { provider: name, port } in &node.ports {
            let Some(provider) = self.providers.get(name) else { continue };
            match (&provider.kind, node.known_to(provider)) {
                (ProviderKind::Openstack { .. }, None) => {
                    return bad(format!(
                        "port {port} is of {name}, which needs a fencing device `ironic` of it"
                    ));
                }
                (ProviderKind::Openstack { .. }, Some(_)) if !is_uuid(port) => {
                    return bad(format!(
                        "port {port:?} of {name} is no UUID (`openstack baremetal port list`)"
                    ));
                }
                (_, _) => {}
            }
        }
        for name in node.fencing.iter().filter_map(FenceDevice::cloud) {
            let provider = self.providers.get(name).ok_or_else(|| not_there("provider", name))?;
            if !matches!(provider.kind, ProviderKind::Openstack { .. }) {
                return bad(format!("fencing: provider {name} is not of the kind `openstack`"));
            }
        }
        Ok(())
    }

    fn describe_instance(&mut self, instance: &Instance) -> Result<bool, Rejected> {
        let what = format!("instance/{}", instance.name);
        let bad = |why: String| Rejected::BadValue { what: what.clone(), why };
        let tables = [&instance.needs, &instance.labels].map(BTreeMap::len);
        let lists = [instance.volumes.len(), instance.networks.len()];
        let vlans = || instance.networks.iter().filter_map(Network::vlans);
        let tagged = vlans().map(|vlans| vlans.tagged.len());
        if tables.into_iter().chain(lists).chain(tagged).any(|length| length > LIST_MAX) {
            return Err(bad(format!("a list has more than {LIST_MAX} items")));
        }
        let mut texts = instance.labels.iter().flat_map(|(key, value)| [key, value]);
        if let Some(long) = texts.find(|text| text.len() > TEXT_MAX) {
            return Err(bad(format!("a text of {} bytes is longer than {TEXT_MAX}", long.len())));
        }
        instance.requires.check().map_err(bad)?;
        for Vlans { vlan, tagged, .. } in vlans() {
            if let Some(vlan) = tagged.iter().chain([vlan]).find(|vlan| !(1..=4094).contains(*vlan)) {
                return Err(bad(format!("vlan {vlan} is not one of 1 to 4094")));
            }
            if tagged.contains(vlan) {
                return Err(bad(format!("vlan {vlan} is both untagged and tagged on one port")));
            }
        }
        let mut vifs = instance.networks.iter().filter_map(Network::vif);
        if let Some(vif) = vifs.find(|vif| !is_uuid(vif)) {
            return Err(bad(format!("vif {vif:?} is no UUID (`openstack port show NAME -c id`)")));
        }
        if let Some(named) = instance.policy.as_ref().filter(|named| !self.policies.contains_key(*named)) {
            return Err(not_there("policy", named));
        }
        let providers =
            instance.volumes.iter().map(|v| &v.provider).chain(instance.boot.iter().map(|b| &b.provider));
        for provider in providers {
            if !self.providers.contains_key(provider) {
                return Err(not_there("provider", provider));
            }
        }
        if let Some(plan) = self.plan_of_instance(&instance.name) {
            return Err(Rejected::InUse { what, why: format!("failover {} is moving it", plan.id) });
        }
        let known = self.instances.get(&instance.name);
        let node = self.node(known.map_or(&instance.node, |record| &record.node))?;
        if node.node.ports.len() < instance.networks.len() {
            let (ports, networks) = (node.node.ports.len(), instance.networks.len());
            return Err(bad(format!("{} has {ports} ports for {networks} networks", node.node.name)));
        }
        if let Some(why) = unlike(&instance.networks, &node.node.ports, &self.providers) {
            return Err(bad(format!("{}: {why}", node.node.name)));
        }
        if known.is_none() && node.state != NodeState::Spare {
            let (node, found) = (instance.node.clone(), node.state.to_string());
            return Err(Rejected::WrongState { node, found, wanted: "spare".to_owned() });
        }
        if let Some(record) = self.instances.get_mut(&instance.name) {
            record.instance = Arc::new(instance.clone());
            return Ok(false);
        }
        // Boot services and agents remember the epochs of a name; those of one that was deleted are not used again.
        let max = u64::MAX;
        let too_many = || Rejected::TooMany { what: "placements of all instances".to_owned(), now: max, max };
        let epoch = Epoch(self.epochs_gone.0.checked_add(1).ok_or_else(too_many)?);
        if let Some(record) = self.nodes.get_mut(&instance.node) {
            record.state = NodeState::Active { instance: instance.name.clone() };
        }
        let record = InstanceRecord {
            instance: Arc::new(instance.clone()),
            node: instance.node.clone(),
            epoch,
            evacuate: None,
            // Until all documents are taken and the policies are selected.
            policy: instance.policy.clone().unwrap_or_default(),
            backups: vec![],
        };
        self.instances.insert(instance.name.clone(), record);
        Ok(true)
    }

    /// No volume, switch port, BMC address, GUID or serial number may be claimed twice: fencing one would hit the other.
    fn check_claims(&self) -> Result<(), Rejected> {
        let mut claims: BTreeMap<String, String> = BTreeMap::new();
        let mut claim = |what: String, who: String| match claims.insert(what.clone(), who.clone()) {
            Some(first) if first != who => Err(Rejected::Conflict { what, first, second: who }),
            Some(_) | None => Ok(()),
        };
        for (name, record) in &self.nodes {
            let who = format!("node/{name}");
            for port in &record.node.ports {
                claim(format!("switch port {} of {}", port.port, port.provider), who.clone())?;
            }
            let devices = record.node.fencing.iter().flat_map(|device| [Some(device), device.bmc()]);
            for device in devices.flatten() {
                claim(format!("BMC {}", device.place()), who.clone())?;
            }
            if let Some(guid) = &record.node.identity.guid {
                claim(format!("GUID {guid}"), who.clone())?;
            }
            if let Some(serial) = &record.node.identity.serial {
                claim(format!("serial number {}", serial.to_ascii_uppercase()), who.clone())?;
            }
            for mac in &record.node.boot_macs {
                claim(format!("boot MAC {mac}"), who.clone())?;
            }
            if let Some(initiator) = &record.node.initiator {
                claim(format!("initiator {initiator}"), who)?;
            }
        }
        for (name, record) in &self.instances {
            for volume in &record.instance.volumes {
                let what = format!("volume {} of {}", volume.volume, volume.provider);
                claim(what, format!("instance/{name}"))?;
            }
            for vif in record.instance.networks.iter().filter_map(Network::vif) {
                claim(format!("VIF {vif}"), format!("instance/{name}"))?;
            }
        }
        Ok(())
    }
}

pub(crate) fn check_node(node: &Node) -> Result<(), Rejected> {
    let bad = |why: String| Err(Rejected::BadValue { what: format!("node/{}", node.name), why });
    let texts = node.domains.iter().chain(&node.labels).flat_map(|(key, value)| [key, value]);
    let texts = texts.chain(&node.probe.tcp).chain(&node.probe.icmp).chain(&node.initiator);
    if let Some(long) = texts.into_iter().find(|text| text.len() > TEXT_MAX) {
        return bad(format!("a text of {} bytes is longer than {TEXT_MAX}", long.len()));
    }
    if let Err(why) = node.capabilities.check() {
        return bad(why);
    }
    let Node { domains, labels, fencing, ports, boot_macs, .. } = node;
    let lists = [domains.len(), labels.len(), fencing.len(), ports.len(), boot_macs.len()];
    if lists.into_iter().any(|length| length > LIST_MAX) {
        return bad(format!("a list has more than {LIST_MAX} items"));
    }
    let bmc = fencing.first().and_then(FenceDevice::bmc);
    let has_watchdog = node.agent_key.is_some() && matches!(bmc, Some(FenceDevice::Ipmi { .. }));
    if node.probe.bmc_watchdog && !has_watchdog {
        let why =
            "probe.bmc_watchdog needs an agent, which feeds it, and an IPMI BMC as the first fencing level";
        return bad(why.to_owned());
    }
    if let Some(why) = node.fencing.iter().find_map(|device| device.check().err()) {
        return bad(why);
    }
    if node.identity.guid.is_some() && fencing.iter().any(|device| device.bmc().is_none()) {
        let why = "Ironic does not tell the guid: give `bmc` beside its `node`, or leave the guid out";
        return bad(why.to_owned());
    }
    if let Some(serial) = &node.identity.serial
        && (!(1..=SERIAL_MAX).contains(&serial.len()) || !serial.bytes().all(|byte| byte.is_ascii_graphic()))
    {
        return bad(format!("serial {serial:?} is not 1 to {SERIAL_MAX} printed characters without blanks"));
    }
    match &node.identity.guid {
        Some(guid)
            if guid.len() != 32
                || !guid.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()) =>
        {
            bad(format!("guid {guid:?} is not 32 lower-case hexadecimal digits"))
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::command::{Command, Proposal};

    /// The state of a new cluster with these documents, or why they were refused.
    pub(crate) fn described(text: &str) -> Result<ClusterState, String> {
        let documents: Documents = toml::from_str(text).map_err(|error| error.to_string())?;
        let command = Command::Describe(Box::new(documents));
        let mut state = ClusterState::default();
        let proposal = Proposal { at: Wall(1), by: "test".to_owned(), command };
        state.apply(LogIndex(1), &proposal).map_err(|rejected| rejected.to_string())?;
        Ok(state)
    }

    #[test]
    fn a_watchdog_that_nobody_feeds_or_reads_is_no_probe() {
        let document =
            |more: &str| format!("[[node]]\nname = \"n1\"\nprobe = {{ bmc_watchdog = true }}\n{more}");
        let key = "agent_key = \"k\"\n";
        let ipmi = "fencing = [{ driver = \"ipmi\", address = \"b:623\", user = \"u\", password = \"p\" }]\n";
        described(&document(&format!("{key}{ipmi}"))).unwrap();
        for more in [key, ipmi] {
            let told = described(&document(more)).unwrap_err();
            assert!(told.contains("needs an agent, which feeds it, and an IPMI BMC"), "{told}");
        }
    }

    #[test]
    fn networks_of_one_port_differ_and_are_vlans() {
        let document = |network: &str| {
            format!(
                "provider = [{{ name = \"r\", kind = \"rack\", url = \"http://r\", token = \"t\" }}]\n\
                 node = [{{ name = \"n1\", ports = [{{ provider = \"r\", port = \"p1\" }}] }}]\n\
                 instance = [{{ name = \"web\", node = \"n1\", networks = [{network}] }}]"
            )
        };
        described(&document("{ vlan = 10, tagged = [20, 4094] }")).unwrap();
        for (network, why) in [
            ("{ vlan = 10, tagged = [20, 10] }", "vlan 10 is both untagged and tagged on one port"),
            ("{ vlan = 10, tagged = [4095] }", "vlan 4095 is not one of 1 to 4094"),
            ("{ vlan = 0 }", "vlan 0 is not one of 1 to 4094"),
        ] {
            let told = described(&document(network)).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }

    #[test]
    fn what_a_cloud_is_to_do_it_can_do_and_it_knows_the_node() {
        let (uuid, other) = ("9dec6d8d-d678-4a82-bf92-9c664281f301", "9dec6d8d-d678-4a82-bf92-9c664281f302");
        let document = |keystone: &str, node: &str, networks: &str| {
            format!(
                "[[provider]]\nname = \"c\"\nkind = \"openstack\"\nkeystone = \"{keystone}\"\nsecret = \"s\"\n\
                 user = {{ by = \"application-credential\", id = \"i\" }}\n\
                 [[provider]]\nname = \"r\"\nkind = \"rack\"\nurl = \"http://r\"\ntoken = \"t\"\n\
                 [[node]]\nname = \"n1\"\n{node}\n\
                 [[instance]]\nname = \"web\"\nnode = \"n1\"\nnetworks = [{networks}]\n"
            )
        };
        let ironic = |node: &str| {
            format!("fencing = [{{ driver = \"ironic\", provider = \"c\", node = \"{node}\" }}]")
        };
        let port =
            |provider: &str| format!("ports = [{{ provider = \"{provider}\", port = \"{other}\" }}]\n");
        let (good, vif) = (format!("{}{}", port("c"), ironic(uuid)), format!("{{ vif = \"{other}\" }}"));
        described(&document("http://k", &good, &vif)).unwrap();
        for (keystone, node, networks, why) in [
            ("https://k", good.clone(), vif.as_str(), "which needs `ca`"),
            ("http://k", port("c"), vif.as_str(), "needs a fencing device `ironic` of it"),
            ("http://k", format!("{}{}", port("c"), ironic("n1")), vif.as_str(), "is no UUID"),
            ("http://k", ironic(uuid).replace("\"c\"", "\"r\""), "", "is not of the kind `openstack`"),
            ("http://k", good.clone(), "{ vlan = 10 }", "which gives it a `vif`, no VLAN"),
            ("http://k", port("r"), vif.as_str(), "is no cloud's"),
            ("http://k", good.clone(), "{ vif = \"web\" }", "vif \"web\" is no UUID"),
            (
                "http://k",
                format!("identity = {{ guid = \"{0}{0}\" }}\n{1}", "00112233aabbccdd", ironic(uuid)),
                "",
                "Ironic does not tell the guid",
            ),
        ] {
            let told = described(&document(keystone, &node, networks)).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }
}
