//! What a cloud has, against what is described here: what is new, what is other, what is gone.
//!
//! Why it exists: whoever deploys, rewires or scraps a node through its cloud does not tell us, and a failover by an old description
//! moves the wrong volume. What it never does: read a cloud, or change a description. A difference is told; a person takes it.

use crate::capability::Capabilities;
use crate::command::Documents;
use crate::describe::{LIST_MAX, check_node};
use crate::inventory::{Instance, Node, SwitchPort, Volume};
use crate::network::Network;
use crate::state::{ClusterState, InstanceRecord, NodeRecord, NodeState};
use crate::words::*;
use std::collections::{BTreeMap, BTreeSet};

/// What a cloud has, in our words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// The cloud.
    pub provider: ProviderId,
    /// Its nodes.
    pub nodes: Vec<Surveyed>,
    /// Nodes that are there and of which nothing else is known, by their ids at the cloud.
    pub unread: BTreeSet<String>,
    /// What of it has no place in our words.
    pub notes: Vec<Remark>,
}

/// One node of a cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surveyed {
    /// As it would be described, with one fencing device: the cloud's.
    pub node: Node,
    /// What it is there for.
    pub load: Load,
}

/// What a node of a cloud is there for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Load {
    /// This instance runs on it.
    Runs(Box<Instance>),
    /// Nothing runs on it, and it is to be a spare.
    Spare,
    /// Nothing runs on it, and it is to be none; why.
    Free(String),
    /// Something may run on it that cannot be described; why.
    Unclear(String),
}

/// Something that is to be said of an object or of several.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remark {
    /// Of which.
    pub about: String,
    /// What.
    pub text: String,
}

/// A cloud and a cluster, compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Each object that is not the same in both.
    pub lines: Vec<Difference>,
    /// What would describe that which is new.
    pub additions: Documents,
    /// What is described already, as the cloud has it now. What only we know is kept.
    pub changes: Documents,
    /// The cloud's nodes that nobody has described and that are not proposed either, with the reason.
    pub left_out: Vec<Remark>,
    /// What was not compared, or not understood.
    pub notes: Vec<Remark>,
}

/// An object that is not the same in both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// `node/n1`, `instance/web`.
    pub object: String,
    /// In what.
    pub drift: Drift,
}

/// How an object differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drift {
    /// Nobody has described it.
    New,
    /// It is described, and otherwise.
    Changed(Vec<Field>),
    /// It is described, and the cloud has it no more.
    Gone,
}

/// A key that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The key, as in a document.
    pub key: &'static str,
    /// What is described; empty: nothing.
    pub ours: String,
    /// What the cloud has; empty: nothing.
    pub theirs: String,
}

impl Differences {
    /// How many objects that are described are other at the cloud, or gone. What is new is none: not every node of a cloud is to
    /// be protected.
    pub fn drifted(&self) -> usize {
        self.lines.iter().filter(|line| line.drift != Drift::New).count()
    }
}

impl Survey {
    /// Compares the cloud with what is described. What takes part in a failover is not compared: it is on its way.
    pub fn against(&self, state: &ClusterState) -> Differences {
        let described =
            state.nodes.values().filter_map(|record| Some((record.node.at_cloud(&self.provider)?, record)));
        let mut comparison = Comparison {
            survey: self,
            state,
            described: described.collect(),
            holders: holders(state),
            met: BTreeSet::new(),
            found: Differences { notes: self.notes.clone(), ..Differences::default() },
        };
        for surveyed in &self.nodes {
            comparison.node(surveyed);
        }
        comparison.gone();
        comparison.found
    }
}

/// Which instance has a VIF or a volume. Both are had by one only, so they tell an instance that has moved.
fn holders(state: &ClusterState) -> BTreeMap<Claim<'_>, &InstanceRecord> {
    let records = state.instances.values();
    records.flat_map(|record| claims(&record.instance).map(move |claim| (claim, record))).collect()
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Claim<'a> {
    Vif(&'a str),
    Volume(&'a Volume),
}

fn claims(instance: &Instance) -> impl Iterator<Item = Claim<'_>> {
    let vifs = instance.networks.iter().filter_map(Network::vif).map(Claim::Vif);
    vifs.chain(instance.volumes.iter().map(Claim::Volume))
}

struct Comparison<'a> {
    survey: &'a Survey,
    state: &'a ClusterState,
    /// By their ids at the cloud.
    described: BTreeMap<&'a str, &'a NodeRecord>,
    holders: BTreeMap<Claim<'a>, &'a InstanceRecord>,
    /// Instances that the cloud has.
    met: BTreeSet<&'a InstanceId>,
    found: Differences,
}

impl<'a> Comparison<'a> {
    fn node(&mut self, surveyed: &'a Surveyed) {
        let theirs = &surveyed.node;
        let record = theirs.at_cloud(&self.survey.provider).and_then(|id| self.described.get(id).copied());
        let name = match (record, &surveyed.load) {
            (Some(record), _) => {
                self.described_node(record, theirs);
                &record.node.name
            }
            (None, Load::Free(why) | Load::Unclear(why)) => return self.leave_out(&theirs.name, why.clone()),
            (None, Load::Runs(_) | Load::Spare) => {
                if let Some(why) = self.unfit(theirs) {
                    self.leave_out(&theirs.name, why);
                    if let Load::Runs(instance) = &surveyed.load
                        && let Some(ours) = self.holder(instance)
                    {
                        self.described_instance(ours, &theirs.name, instance);
                    }
                    return;
                }
                self.found.additions.nodes.push(theirs.clone());
                self.note_line(format!("node/{}", theirs.name), Drift::New);
                &theirs.name
            }
        };
        match &surveyed.load {
            Load::Runs(instance) => self.instance(name, record, instance),
            Load::Unclear(why) if record.is_some() => {
                self.remark(format!("node/{name}"), format!("what runs on it was not compared: {why}"));
            }
            Load::Spare | Load::Free(_) | Load::Unclear(_) => {}
        }
    }

    /// The instance that is described and has something of this one.
    fn holder(&self, instance: &Instance) -> Option<&'a InstanceRecord> {
        claims(instance).find_map(|claim| self.holders.get(&claim).copied())
    }

    /// Why a node that is new cannot be described as it is.
    fn unfit(&self, node: &Node) -> Option<String> {
        if self.state.nodes.contains_key(&node.name) {
            let provider = &self.survey.provider;
            return Some(format!(
                "{} is described here without a fencing device `ironic` of {provider}; if it is this node, add the device",
                node.name
            ));
        }
        check_node(node).err().map(|why| why.to_string())
    }

    fn described_node(&mut self, record: &NodeRecord, theirs: &Node) {
        let ours = &record.node;
        let object = format!("node/{}", ours.name);
        if let Some(plan) = self.state.plan_of_node(&ours.name) {
            return self
                .remark(object, format!("it takes part in failover {} and was not compared", plan.id));
        }
        let provider = &self.survey.provider;
        let is_theirs = |port: &&SwitchPort| port.provider == *provider;
        let merged = Node {
            ports: merged(&ours.ports, &theirs.ports, |port| port.provider == *provider),
            initiator: theirs.initiator.clone().or_else(|| ours.initiator.clone()),
            capabilities: as_told(&ours.capabilities, &theirs.capabilities),
            ..(**ours).clone()
        };
        let names = |ports: &[SwitchPort]| {
            ports.iter().filter(is_theirs).map(|port| port.port.clone()).collect::<BTreeSet<_>>()
        };
        let mut fields = vec![];
        differ(&mut fields, "ports", listed(names(&ours.ports)), listed(names(&merged.ports)));
        let told = |text: &Option<String>| text.clone().unwrap_or_default();
        differ(&mut fields, "initiator", told(&ours.initiator), told(&merged.initiator));
        for ((key, ours), (_, theirs)) in
            capabilities(&ours.capabilities).into_iter().zip(capabilities(&merged.capabilities))
        {
            differ(&mut fields, key, ours, theirs);
        }
        if !fields.is_empty() {
            self.found.changes.nodes.push(merged);
            self.note_line(object, Drift::Changed(fields));
        }
    }

    /// An instance that the cloud has on the node that we call so.
    fn instance(&mut self, node: &NodeId, record: Option<&NodeRecord>, theirs: &Instance) {
        if let Some(ours) = self.holder(theirs) {
            return self.described_instance(ours, node, theirs);
        }
        let object = format!("instance/{}", theirs.name);
        let why = match record.map(|record| &record.state) {
            _ if self.state.instances.contains_key(&theirs.name) => Some(format!(
                "another instance is called so here; the one on {node} has none of its ports and volumes"
            )),
            None | Some(NodeState::Spare) => too_long(theirs),
            Some(state) => Some(format!("{node} is {state} here, and runs something else at the cloud")),
        };
        match why {
            Some(why) => self.remark(object, why),
            None => {
                self.found.additions.instances.push(Instance { node: node.clone(), ..theirs.clone() });
                self.note_line(object, Drift::New);
            }
        }
    }

    fn described_instance(&mut self, record: &'a InstanceRecord, node: &NodeId, theirs: &Instance) {
        let ours = &record.instance;
        let object = format!("instance/{}", ours.name);
        if !self.met.insert(&ours.name) {
            return self.remark(object, format!("a part of what it has is on {node}, too, at the cloud"));
        }
        if let Some(plan) = self.state.plan_of_instance(&ours.name) {
            return self.remark(object, format!("failover {} is moving it; it was not compared", plan.id));
        }
        let provider = &self.survey.provider;
        let others = ours.volumes.iter().filter(|volume| volume.provider != *provider);
        let merged = Instance {
            networks: merged(&ours.networks, &theirs.networks, |network| network.vif().is_some()),
            // Their order means something: the first is the one that it starts from.
            volumes: theirs.volumes.iter().chain(others).cloned().collect(),
            tenant: theirs.tenant.clone().or_else(|| ours.tenant.clone()),
            boot: theirs.boot.clone().or_else(|| ours.boot.clone()),
            ..(**ours).clone()
        };
        let vifs = |networks: &[Network]| {
            networks.iter().filter_map(Network::vif).map(str::to_owned).collect::<BTreeSet<_>>()
        };
        let volumes = |it: &Instance| {
            let theirs = it.volumes.iter().filter(|volume| volume.provider == *provider);
            listed(theirs.map(|volume| volume.volume.to_string()))
        };
        let boot = |it: &Instance| it.boot.as_ref().map_or(String::new(), |boot| boot.image.clone());
        let tenant = |it: &Instance| it.tenant.as_ref().map_or(String::new(), ToString::to_string);
        let mut fields = vec![];
        differ(&mut fields, "networks", listed(vifs(&ours.networks)), listed(vifs(&merged.networks)));
        differ(&mut fields, "volumes", volumes(ours), volumes(&merged));
        differ(&mut fields, "tenant", tenant(ours), tenant(&merged));
        differ(&mut fields, "boot", boot(ours), boot(&merged));
        if !fields.is_empty() {
            self.found.changes.instances.push(merged);
        }
        // It moves by a failover or not at all: no description changes that.
        differ(&mut fields, "node", record.node.to_string(), node.to_string());
        if !fields.is_empty() {
            self.note_line(object, Drift::Changed(fields));
        }
    }

    /// What is described and was not met.
    fn gone(&mut self) {
        let ids: BTreeMap<&str, &Load> = self
            .survey
            .nodes
            .iter()
            .filter_map(|it| Some((it.node.at_cloud(&self.survey.provider)?, &it.load)))
            .collect();
        let described = std::mem::take(&mut self.described);
        let at: BTreeMap<&NodeId, &str> =
            described.iter().map(|(id, record)| (&record.node.name, *id)).collect();
        for (id, record) in &described {
            let object = format!("node/{}", record.node.name);
            if self.survey.unread.contains(*id) {
                self.remark(object, "the cloud has it, but cannot tell it clearly".to_owned());
            } else if !ids.contains_key(id) {
                self.note_line(object, Drift::Gone);
            }
        }
        for record in self.state.instances.values() {
            let (name, has) = (&record.instance.name, claims(&record.instance).next().is_some());
            let Some(id) = at.get(&record.node).filter(|_| has && !self.met.contains(name)) else { continue };
            let is_unclear =
                matches!(ids.get(id), Some(Load::Unclear(_))) || self.survey.unread.contains(*id);
            if !is_unclear && self.state.plan_of_instance(name).is_none() {
                self.note_line(format!("instance/{name}"), Drift::Gone);
            }
        }
    }

    fn note_line(&mut self, object: String, drift: Drift) {
        self.found.lines.push(Difference { object, drift });
    }

    fn leave_out(&mut self, name: &NodeId, text: String) {
        self.found.left_out.push(Remark { about: format!("node/{name}"), text });
    }

    fn remark(&mut self, about: String, text: String) {
        self.found.notes.push(Remark { about, text });
    }
}

/// Why an instance that is new cannot be described.
fn too_long(instance: &Instance) -> Option<String> {
    let longest = instance.networks.len().max(instance.volumes.len());
    (longest > LIST_MAX).then(|| format!("it has {longest} networks or volumes, more than {LIST_MAX}"))
}

/// Ours in our order without those of the cloud's that it has no more, and then the ones that are new.
fn merged<T: Clone + PartialEq>(ours: &[T], theirs: &[T], is_clouds: impl Fn(&T) -> bool) -> Vec<T> {
    let kept = ours.iter().filter(|item| !is_clouds(item) || theirs.contains(item));
    kept.chain(theirs.iter().filter(|item| !ours.contains(item))).cloned().collect()
}

/// What the cloud tells, and what is described where it tells nothing.
fn as_told(ours: &Capabilities, theirs: &Capabilities) -> Capabilities {
    let traits = if theirs.traits.is_empty() { &ours.traits } else { &theirs.traits }.clone();
    Capabilities { traits, ..theirs.or(ours) }
}

/// Each key of the capabilities, with its value in words.
fn capabilities(of: &Capabilities) -> Vec<(&'static str, String)> {
    let Capabilities {
        cpu_arch,
        cpu_model,
        cpus,
        memory,
        disks,
        nics,
        gpus,
        boot_mode,
        firmware,
        bios_profile,
        traits,
        resource_class,
    } = of.clone();
    let none = Capabilities::default;
    let each = [
        ("capabilities.cpu_arch", Capabilities { cpu_arch, ..none() }),
        ("capabilities.cpu_model", Capabilities { cpu_model, ..none() }),
        ("capabilities.cpus", Capabilities { cpus, ..none() }),
        ("capabilities.memory", Capabilities { memory, ..none() }),
        ("capabilities.disks", Capabilities { disks, ..none() }),
        ("capabilities.nics", Capabilities { nics, ..none() }),
        ("capabilities.gpus", Capabilities { gpus, ..none() }),
        ("capabilities.boot_mode", Capabilities { boot_mode, ..none() }),
        ("capabilities.firmware", Capabilities { firmware, ..none() }),
        ("capabilities.bios_profile", Capabilities { bios_profile, ..none() }),
        ("capabilities.traits", Capabilities { traits, ..none() }),
        ("capabilities.resource_class", Capabilities { resource_class, ..none() }),
    ];
    each.into_iter().map(|(key, one)| (key, one.lines().join(", "))).collect()
}

fn listed(items: impl IntoIterator<Item = String>) -> String {
    items.into_iter().collect::<Vec<_>>().join(", ")
}

fn differ(fields: &mut Vec<Field>, key: &'static str, ours: String, theirs: String) {
    if ours != theirs {
        fields.push(Field { key, ours, theirs });
    }
}
