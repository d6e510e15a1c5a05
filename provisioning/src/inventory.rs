//! What a cloud has, put into our words: Ironic's nodes, NICs, volumes and VIFs as nodes, instances and spares.
//!
//! Why it exists: what a failover needs to know of a node stands in six lists of two services; typed by hand it is wrong sooner or
//! later. What it never does: guess. An instance of which one part has no place in our words is left out with the reason, for a
//! failover that moves the rest would start it without that part.

use crate::openstack::Claimant;
use ::openstack::{Everything, InstanceInfo, NodePort, PortGroup, ProvisionState, Trunk, VolumeTarget};
use policies::{
    Boot, Deployment, FenceDevice, Instance, InstanceId, Load, Network, Node, NodeId, Provider, ProviderKind,
    Remark, Requirements, Survey, Surveyed, SwitchPort, TenantId, Volume, first_of,
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

mod hardware;

/// Objects that a note names before it counts the rest.
const NAMED_MAX: usize = 3;
/// How much of an id makes a name that is taken another one: 32 bits tell a few thousand nodes apart.
const ID_PART: usize = 8;
/// Longest name (`policies::words`).
const NAME_MAX: usize = 63;

/// What was read of a cloud.
#[derive(Clone, Debug)]
pub struct Census {
    /// What Ironic has.
    pub everything: Everything,
    /// Neutron's trunks, or why they could not be read: they are only told of.
    pub trunks: Result<Vec<Trunk>, String>,
    /// In whose name we claim its nodes.
    pub(crate) claimant: Claimant,
}

/// Which of a cloud's free nodes become spares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SpareRule {
    /// None.
    #[default]
    None,
    /// All that are available.
    Available,
    /// Those of the class.
    ResourceClass(String),
    /// Those with the trait.
    Trait(String),
}

/// Why a text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no rule for spares: write none, available, resource-class=CLASS or trait=TRAIT")]
pub struct BadRule(String);

impl FromStr for SpareRule {
    type Err = BadRule;
    fn from_str(text: &str) -> Result<Self, BadRule> {
        match text.split_once('=') {
            None if text == "none" => Ok(SpareRule::None),
            None if text == "available" => Ok(SpareRule::Available),
            Some(("resource-class", class)) if !class.is_empty() => {
                Ok(SpareRule::ResourceClass(class.to_owned()))
            }
            Some(("trait", name)) if !name.is_empty() => Ok(SpareRule::Trait(name.to_owned())),
            None | Some(_) => Err(BadRule(text.chars().take(NAME_MAX).collect())),
        }
    }
}

impl fmt::Display for SpareRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpareRule::None => f.write_str("none"),
            SpareRule::Available => f.write_str("available"),
            SpareRule::ResourceClass(class) => write!(f, "resource-class={class}"),
            SpareRule::Trait(name) => write!(f, "trait={name}"),
        }
    }
}

impl SpareRule {
    fn takes(&self, node: &::openstack::Node) -> bool {
        match self {
            SpareRule::None => false,
            SpareRule::Available => true,
            SpareRule::ResourceClass(class) => node.resource_class.as_ref() == Some(class),
            SpareRule::Trait(name) => node.traits.contains(name),
        }
    }
}

/// Puts what was read into our words.
pub fn survey(provider: &Provider, spares: &SpareRule, census: &Census) -> Survey {
    let parts = Parts::of(&census.everything);
    let owners = owners(&census.everything.nodes, &parts);
    let mut notes = Notes::default();
    let mut names = Names::default();
    let mut instances = Names::default();
    let trunks = trunks(census, &mut notes);
    // What is a name of ours already keeps it, so that another node's does not push it aside.
    let mut nodes: Vec<&::openstack::Node> = census.everything.nodes.iter().collect();
    nodes.sort_by_key(|node| {
        let name = node.name.clone().unwrap_or_default();
        (name.parse::<NodeId>().is_err(), name, node.uuid.clone())
    });
    let mut surveyed = vec![];
    for node in nodes {
        let uuid = node.uuid.as_str().to_ascii_lowercase();
        let Some(name) = names.free::<NodeId>(node.name.as_deref(), &uuid) else { continue };
        let (parts, owners, claimant) = (parts.at(&uuid), &owners, &census.claimant);
        let scribe = Scribe { provider, node, uuid: &uuid, name: &name, parts, owners, claimant };
        let load = scribe.load(spares, &mut instances, &mut notes);
        if let Load::Runs(instance) = &load {
            for trunk in instance.networks.iter().filter_map(|network| trunks.get(network.vif()?)) {
                notes.say(&format!("instance/{}", instance.name), trunk.clone());
            }
        }
        surveyed.push(Surveyed { node: scribe.node(&mut notes), load });
    }
    let unread = census.everything.unread.iter().filter(|it| it.kind == "node");
    Survey {
        provider: provider.name.clone(),
        nodes: surveyed,
        unread: unread.filter_map(|it| it.uuid.as_ref()).map(|uuid| uuid.to_ascii_lowercase()).collect(),
        notes: unread_notes(&census.everything).chain(notes.told()).collect(),
    }
}

fn unread_notes(everything: &Everything) -> impl Iterator<Item = Remark> {
    everything.unread.iter().map(|it| {
        let uuid = it.uuid.as_deref().unwrap_or("without a uuid");
        Remark { about: format!("{} {uuid}", it.kind), text: format!("cannot be understood: {}", it.why) }
    })
}

/// What is told of each trunk, by its parent.
fn trunks(census: &Census, notes: &mut Notes) -> BTreeMap<String, String> {
    let told = |trunk: &Trunk| {
        let tags = trunk
            .sub_ports
            .iter()
            .map(|port| port.segmentation_id.map_or("?".to_owned(), |tag| tag.to_string()));
        let tags: Vec<String> = tags.collect();
        let text =
            format!("VIF {} is the parent of a trunk: VLAN {} move along", trunk.port_id, tags.join(", "));
        (trunk.port_id.as_str().to_ascii_lowercase(), text)
    };
    match &census.trunks {
        Ok(trunks) => trunks.iter().filter(|trunk| !trunk.sub_ports.is_empty()).map(told).collect(),
        Err(why) => {
            notes.say(
                "trunks",
                format!("not read, so it is not told which VIFs carry several networks: {why}"),
            );
            BTreeMap::new()
        }
    }
}

/// What belongs to each node.
struct Parts<'a>(BTreeMap<String, Part<'a>>);

#[derive(Clone, Default)]
struct Part<'a> {
    ports: Vec<&'a NodePort>,
    groups: Vec<&'a PortGroup>,
    targets: Vec<&'a VolumeTarget>,
    initiators: BTreeSet<&'a str>,
    unread: Vec<String>,
}

impl<'a> Parts<'a> {
    fn of(everything: &'a Everything) -> Parts<'a> {
        let mut parts: BTreeMap<String, Part<'a>> = BTreeMap::new();
        let key = |uuid: &str| uuid.to_ascii_lowercase();
        for port in &everything.ports {
            parts.entry(key(port.node_uuid.as_str())).or_default().ports.push(port);
        }
        for group in &everything.port_groups {
            parts.entry(key(group.node_uuid.as_str())).or_default().groups.push(group);
        }
        for target in &everything.targets {
            parts.entry(key(target.node_uuid.as_str())).or_default().targets.push(target);
        }
        for connector in everything.connectors.iter().filter(|connector| connector.kind == "iqn") {
            let part = parts.entry(key(connector.node_uuid.as_str())).or_default();
            part.initiators.insert(&connector.connector_id);
        }
        for unread in &everything.unread {
            let Some(node) = &unread.node else { continue };
            let uuid = unread.uuid.as_deref().unwrap_or("without a uuid");
            parts.entry(key(node)).or_default().unread.push(format!("{} {uuid}", unread.kind));
        }
        for part in parts.values_mut() {
            part.targets.sort_by_key(|target| (target.boot_index, target.uuid.clone()));
        }
        Parts(parts)
    }

    fn at(&self, uuid: &str) -> Part<'a> {
        self.0.get(uuid).cloned().unwrap_or_default()
    }
}

/// A NIC or a group of them, as a place for a VIF.
struct Place<'a> {
    uuid: &'a str,
    vif: Option<&'a str>,
    /// By what it stands before others: what carries a VIF, so that networks and ports of an instance match; then its physical
    /// network, so that those of its spares do; groups before NICs and NICs to start from before others, as Ironic chooses; its
    /// name and address.
    rank: (bool, bool, &'a str, bool, bool, &'a str, &'a str),
}

impl<'a> Place<'a> {
    /// `late`: it is no group, and the node does not start from it.
    fn new(
        uuid: &'a str,
        vif: Option<&'a str>,
        network: Option<&'a str>,
        late: [bool; 2],
        name: &'a str,
        address: &'a str,
    ) -> Place<'a> {
        let [single, no_start] = late;
        let network = (network.is_none(), network.unwrap_or_default());
        Place { uuid, vif, rank: (vif.is_none(), network.0, network.1, single, no_start, name, address) }
    }
}

impl<'a> Part<'a> {
    /// Its places for VIFs, in an order that does not change. A NIC of a group is none of its own, unless it has a VIF.
    fn places(&self) -> Vec<Place<'a>> {
        let text = |text: &'a Option<String>| text.as_deref().unwrap_or_default();
        let groups = self.groups.iter().map(|group| {
            let members =
                || self.ports.iter().filter(|port| port.portgroup_uuid.as_ref() == Some(&group.uuid));
            let network = members().find_map(|port| port.physical_network.as_deref());
            let starts = members().any(|port| port.pxe_enabled);
            Place::new(
                group.uuid.as_str(),
                group.vif(),
                network,
                [false, !starts],
                text(&group.name),
                text(&group.address),
            )
        });
        let alone = self.ports.iter().filter(|port| port.portgroup_uuid.is_none() || port.vif().is_some());
        let alone = alone.map(|port| {
            let network = port.physical_network.as_deref();
            Place::new(
                port.uuid.as_str(),
                port.vif(),
                network,
                [true, !port.pxe_enabled],
                text(&port.name),
                &port.address,
            )
        });
        let mut places: Vec<Place<'a>> = groups.chain(alone).collect();
        places.sort_by(|one, other| (&one.rank, one.uuid).cmp(&(&other.rank, other.uuid)));
        places
    }

    /// What only one node can have: VIFs and volumes.
    fn claims(&self) -> Vec<String> {
        let vifs = self.places().into_iter().filter_map(|place| place.vif.map(|vif| format!("VIF {vif}")));
        vifs.chain(self.targets.iter().map(|target| format!("volume {}", target.volume_id))).collect()
    }
}

/// Which active node has each VIF and volume; `None`: several say so. After a failover the old node, in maintenance, is still
/// noted with what its successor has.
type Owners = BTreeMap<String, Option<String>>;

fn owners(nodes: &[::openstack::Node], parts: &Parts<'_>) -> Owners {
    let (mut owners, mut resting) = (Owners::new(), Owners::new());
    for node in nodes.iter().filter(|node| node.provision_state == ProvisionState::Active) {
        let uuid = node.uuid.as_str().to_ascii_lowercase();
        for claim in parts.at(&uuid).claims() {
            let place = if node.maintenance { resting.entry(claim) } else { owners.entry(claim) };
            place.and_modify(|owner| *owner = None).or_insert_with(|| Some(uuid.clone()));
        }
    }
    resting.extend(owners);
    resting
}

/// Writes one node down.
struct Scribe<'a> {
    provider: &'a Provider,
    node: &'a ::openstack::Node,
    uuid: &'a str,
    name: &'a NodeId,
    parts: Part<'a>,
    owners: &'a Owners,
    claimant: &'a Claimant,
}

impl Scribe<'_> {
    fn node(&self, notes: &mut Notes) -> Node {
        let provider = self.provider.name.clone();
        let about = format!("node/{}", self.name);
        if self.parts.initiators.len() > 1 {
            notes.say(&about, "has several initiators (connectors `iqn`); the first is taken".to_owned());
        }
        let port = |place: Place<'_>| SwitchPort {
            provider: provider.clone(),
            port: place.uuid.to_ascii_lowercase(),
        };
        let capabilities =
            hardware::capabilities(self.node, &self.parts.ports, &mut |text| notes.say(&about, text));
        Node {
            name: self.name.clone(),
            identity: policies::Identity::default(),
            domains: BTreeMap::new(),
            labels: BTreeMap::new(),
            fencing: vec![FenceDevice::Ironic {
                provider: provider.clone(),
                node: self.uuid.to_owned(),
                bmc: None,
            }],
            ports: self.parts.places().into_iter().map(port).collect(),
            boot_macs: vec![],
            standby: None,
            initiator: self.parts.initiators.first().map(|&name| name.to_owned()),
            probe: policies::Probe::default(),
            agent_key: None,
            capabilities,
        }
    }

    fn load(&self, spares: &SpareRule, names: &mut Names, notes: &mut Notes) -> Load {
        match &self.node.provision_state {
            ProvisionState::Active => self.active(names, notes),
            ProvisionState::Available => self.available(spares),
            ProvisionState::Enroll | ProvisionState::Verifying | ProvisionState::Manageable => Load::Free(
                format!("its state is {:?}, not available", self.node.provision_state).to_lowercase(),
            ),
            state => Load::Unclear(format!("its state is {state:?}").to_lowercase()),
        }
    }

    fn available(&self, spares: &SpareRule) -> Load {
        let node = self.node;
        if let Some(why) = self.claimant.in_use(node) {
            return Load::Free(why);
        }
        match spares.takes(node) {
            true => Load::Spare,
            false => Load::Free(format!("it is available, and no spare by the rule `{spares}`")),
        }
    }

    /// What runs on a node, if all of it can be described.
    fn active(&self, names: &mut Names, notes: &mut Notes) -> Load {
        if let Some(part) = self.parts.unread.first() {
            return Load::Unclear(format!("its {part} cannot be understood"));
        }
        let claims = self.parts.claims();
        let owner = |claim: &String| self.owners.get(claim).and_then(Option::as_deref);
        if claims.is_empty() {
            let why = "it is active, with neither a VIF nor a volume that a failover could move";
            return Load::Unclear(why.to_owned());
        }
        if claims.iter().all(|claim| owner(claim).is_some_and(|owner| owner != self.uuid)) {
            return Load::Free("it is active, and another node has what it had: undeploy it".to_owned());
        }
        if let Some(claim) = claims.iter().find(|claim| owner(claim) != Some(self.uuid)) {
            return Load::Unclear(format!("another node has {claim}, too"));
        }
        let (volumes, networks) = match (self.volumes(), self.networks()) {
            (Ok(volumes), Ok(networks)) => (volumes, networks),
            (Err(why), _) | (_, Err(why)) => return Load::Unclear(why),
        };
        let Some(boot) = self.boot() else {
            let provider = &self.provider.name;
            return Load::Unclear(format!(
                "no deployment of {provider} has its image, so no failover could start it on a spare; describe one in [provider.deployments]"
            ));
        };
        let Some(name) = names.free::<InstanceId>(self.instance_name(), self.uuid) else {
            return Load::Unclear("no name for what runs on it is free".to_owned());
        };
        let tenant = self.tenant(&format!("instance/{name}"), notes);
        Load::Runs(Box::new(Instance {
            name,
            node: self.name.clone(),
            policy: None,
            tenant,
            labels: BTreeMap::new(),
            volumes,
            networks,
            boot: Some(boot),
            needs: BTreeMap::new(),
            requires: Requirements::default(),
        }))
    }

    fn volumes(&self) -> Result<Vec<Volume>, String> {
        if let Some(other) = self.parts.targets.iter().find(|target| target.volume_type != "iscsi") {
            return Err(format!(
                "its volume {} is {}; only iscsi is moved",
                other.volume_id, other.volume_type
            ));
        }
        if let Some(first) = self.parts.targets.first().filter(|target| target.boot_index != 0) {
            return Err(format!(
                "its first volume has boot_index {}; a failover would start the spare from it",
                first.boot_index
            ));
        }
        let volume = |target: &&VolumeTarget| {
            let volume = target.volume_id.as_str().to_ascii_lowercase();
            let volume = volume.parse().map_err(|error| format!("its volume: {error}"))?;
            Ok(Volume { provider: self.provider.name.clone(), volume })
        };
        self.parts.targets.iter().map(volume).collect()
    }

    fn networks(&self) -> Result<Vec<Network>, String> {
        let places = self.parts.places();
        let network = |vif: &str| match vif.parse::<::openstack::PortId>() {
            Ok(vif) => Ok(Network::Vif(vif.as_str().to_ascii_lowercase())),
            Err(error) => Err(format!("its VIF: {error}")),
        };
        places.iter().filter_map(|place| place.vif).map(network).collect()
    }

    /// What it was deployed with, if the provider has that by a name.
    fn boot(&self) -> Option<Boot> {
        let ProviderKind::Openstack { deployments, .. } = &self.provider.kind else { return None };
        let none = InstanceInfo::default();
        let info = self.node.instance_info.as_ref().unwrap_or(&none);
        let (image, _) = deployments.iter().find(|(_, deployment)| is_of(info, deployment))?;
        Some(Boot { provider: self.provider.name.clone(), image: image.clone() })
    }

    /// As we told it to run, or as Nova did, or as its node is called.
    fn instance_name(&self) -> Option<&str> {
        let ours = self.node.extra.get(crate::openstack::MARK).and_then(Value::as_str);
        let ours = ours.and_then(|mark| mark.split_whitespace().next());
        let novas = || self.node.instance_info.as_ref()?.display_name.as_deref();
        ours.or_else(novas).or(Some(self.name.as_str()))
    }

    fn tenant(&self, about: &str, notes: &mut Notes) -> Option<TenantId> {
        let project = self.node.lessee.as_ref().or(self.node.owner.as_ref())?;
        let tenant = project.as_str().parse();
        if tenant.is_err() {
            notes.say(about, "its project's id is no name of a tenant here; it has none".to_owned());
        }
        tenant.ok()
    }
}

/// True if the node was deployed with what the deployment names, as far as that tells deployments apart.
fn is_of(info: &InstanceInfo, deployment: &Deployment) -> bool {
    let InstanceInfo { image_source, boot_iso, kernel, ramdisk, display_name: _ } = info;
    let keys =
        [("image_source", image_source), ("boot_iso", boot_iso), ("kernel", kernel), ("ramdisk", ramdisk)];
    keys.into_iter().all(|(key, has)| match (deployment.instance_info.get(key), has) {
        (None, None) => true,
        (Some(template), Some(text)) => fills(template, text),
        (None, Some(_)) | (Some(_), None) => false,
    })
}

/// True if the text may be the template with its `{node}`, `{instance}`, `{epoch}` filled in.
fn fills(template: &str, text: &str) -> bool {
    let template = template.replace("{instance}", "{node}").replace("{epoch}", "{node}");
    let pieces: Vec<&str> = template.split("{node}").collect();
    let [first, between @ .., last] = pieces.as_slice() else { return template == text };
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    for piece in between {
        let Some(at) = rest.find(piece) else { return false };
        rest = rest.get(at + piece.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

/// Names that were given.
#[derive(Default)]
struct Names(BTreeSet<String>);

impl Names {
    /// The name that is nearest to the wished-for one and free; the same for the same cloud.
    fn free<T: FromStr>(&mut self, wished: Option<&str>, uuid: &str) -> Option<T> {
        let plain = wished.map(plain).filter(|name| !name.is_empty());
        let part = uuid.get(..ID_PART).unwrap_or(uuid);
        let longer = plain.as_ref().map(|name| {
            let kept: String = name.chars().take(NAME_MAX - ID_PART - 1).collect();
            format!("{kept}-{part}")
        });
        let candidates = [plain, longer, Some(uuid.to_owned())];
        let free = candidates
            .into_iter()
            .flatten()
            .find(|name| !self.0.contains(name) && name.parse::<T>().is_ok())?;
        let name = free.parse().ok();
        self.0.insert(free);
        name
    }
}

/// A name of ours that looks like the text: in small letters, with `-` for what no name has.
fn plain(text: &str) -> String {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
    let letters = text.chars().map(|c| c.to_ascii_lowercase()).map(|c| if fits(c) { c } else { '-' });
    letters.skip_while(|c| !c.is_ascii_alphanumeric()).take(NAME_MAX).collect()
}

/// What is to be said, and of which objects: one line for a thousand nodes.
#[derive(Default)]
struct Notes(BTreeMap<String, Vec<String>>);

impl Notes {
    fn say(&mut self, about: &str, text: String) {
        self.0.entry(text).or_default().push(about.to_owned());
    }

    fn told(self) -> impl Iterator<Item = Remark> {
        self.0.into_iter().map(|(text, about)| Remark { about: first_of(about, NAMED_MAX).join(", "), text })
    }
}
