//! What a node may run: a function of the committed state, for the node that asks when it starts.
//!
//! Why it exists: a node that was cut off and is switched on by hand must not begin again where it had stopped. What it
//! never does: grant anything. Volumes and ports are given by a failover alone; a role only names them.

use crate::effect::Action;
use crate::image::{Filling, Image};
use crate::inventory::{Boot, Instance, Node};
use crate::mac::Mac;
use crate::plan::{Plan, Start};
use crate::policy::Policy;
use crate::state::{ClusterState, NodeState};
use crate::words::*;
use serde::{Deserialize, Serialize};
use std::fmt;

/// An instance as a node boots it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booting {
    /// The instance.
    pub instance: InstanceId,
    /// The placement for which it is valid.
    pub epoch: Epoch,
    /// The name of the image.
    pub name: String,
    /// The image, with its gaps filled.
    pub image: Image,
    /// The name by which storage knows the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initiator: Option<String>,
}

impl fmt::Display for Booting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {} from {}", self.instance, self.epoch, self.name)
    }
}

/// What a node may run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "role")]
pub enum BootRole {
    /// It boots this, or goes on into it if it waited.
    Boots(Booting),
    /// It boots a system in which it waits for an instance: it is a hot spare.
    Stands {
        /// The name of the image.
        name: String,
        /// The image, with its gaps filled.
        image: Image,
        /// What it will be told to boot if the failover that has reserved it goes on: to be loaded, and not yet started.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prepares: Option<Booting>,
    },
    /// It boots what its firmware finds by itself.
    Local {
        /// Why.
        why: String,
    },
    /// Nothing can be said yet; it asks again.
    Waits {
        /// What for.
        why: String,
    },
    /// It must not run.
    Halts {
        /// Why.
        why: String,
    },
}

impl fmt::Display for BootRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BootRole::Boots(booting) => write!(f, "boots {booting}"),
            BootRole::Stands { name, prepares: None, .. } => write!(f, "waits as a hot spare in {name}"),
            BootRole::Stands { name, prepares: Some(booting), .. } => {
                write!(f, "waits as a hot spare in {name}, prepares {booting}")
            }
            BootRole::Local { why } => write!(f, "boots by itself: {why}"),
            BootRole::Waits { why } => write!(f, "waits: {why}"),
            BootRole::Halts { why } => write!(f, "must not run: {why}"),
        }
    }
}

impl ClusterState {
    /// The node with this network card.
    pub fn node_with_mac(&self, mac: Mac) -> Option<&NodeId> {
        let known = self.nodes.iter().find(|(_, record)| record.node.boot_macs.contains(&mac));
        known.map(|(name, _)| name)
    }

    /// What a node may run. `runs` is the epoch that it believes to run, if it has one.
    pub fn boot_role(&self, node: &NodeId, runs: Option<Epoch>) -> BootRole {
        let Some(record) = self.nodes.get(node) else {
            return BootRole::Waits { why: format!("there is no node {node}") };
        };
        let instance = match &record.state {
            NodeState::Active { instance } => instance,
            NodeState::Spare | NodeState::Reserved { .. } if record.node.standby.is_some() => {
                return self.stands(&record.node);
            }
            NodeState::Spare
            | NodeState::Reserved { .. }
            | NodeState::Fencing { .. }
            | NodeState::Quarantined { .. }
            | NodeState::Cleaning { .. } => {
                return BootRole::Halts { why: format!("{node} is {}", record.state) };
            }
        };
        let Some(placed) = self.instances.get(instance).filter(|placed| placed.node == *node) else {
            return BootRole::Halts { why: format!("{instance} is not on {node}") };
        };
        if let Some(runs) = runs.filter(|runs| *runs != placed.epoch) {
            return BootRole::Halts {
                why: format!("{instance} is in {}, no longer in {runs}", placed.epoch),
            };
        }
        // A hot spare goes on into what it is told: not before the intent to tell it is committed (R1).
        let is_told = |plan: &Plan| plan.intents.iter().any(|i| matches!(i.action, Action::SetBoot { .. }));
        let takes_over = self.plan_of_node(node).filter(|plan| plan.decision.spare.as_ref() == Some(node));
        if takes_over.is_some_and(|plan| plan.decision.start != Start::PowerOn && !is_told(plan)) {
            return self.stands(&record.node);
        }
        self.boots(&placed.instance, placed.epoch, &record.node)
    }

    /// True if a hot spare is to go on into the instance's kernel: it boots a Linux of the boot service, and the policy allows
    /// it the time.
    pub(crate) fn kexecs(&self, instance: &Instance, policy: &Policy) -> bool {
        if policy.takeover.kexec_max == Millis(0) {
            return false;
        }
        let image = instance.boot.as_ref().and_then(|boot| self.image(boot)).and_then(Result::ok);
        matches!(image, Some(Image::Linux { .. }))
    }

    /// The image of a boot source, if that is this service.
    fn image(&self, boot: &Boot) -> Option<Result<&Image, String>> {
        let (_, images) = self.providers.get(&boot.provider)?.kind.boot_service()?;
        Some(images.get(&boot.image).ok_or_else(|| format!("provider {} has none", boot.provider)))
    }

    /// The image of a boot source for this node, with its gaps filled, if it is this service's. `placed`: the instance whose
    /// boot source it is, in which placement.
    fn filled(
        &self,
        boot: &Boot,
        placed: Option<(&InstanceId, Epoch)>,
        node: &Node,
    ) -> Option<Result<Image, String>> {
        let filling = Filling { placed, node: &node.name, initiator: node.initiator.as_deref() };
        Some(self.image(boot)?.and_then(|image| image.fill(&filling)))
    }

    /// What a node boots that has the instance.
    fn boots(&self, instance: &Instance, epoch: Epoch, node: &Node) -> BootRole {
        let instance_name = &instance.name;
        let filled = |boot| Some((boot, self.filled(boot, Some((instance_name, epoch)), node)?));
        match instance.boot.as_ref().and_then(filled) {
            None => BootRole::Local { why: format!("{instance_name} has no boot source of this service") },
            Some((Boot { image: name, .. }, Ok(image))) => BootRole::Boots(Booting {
                instance: instance_name.clone(),
                epoch,
                name: name.clone(),
                image,
                initiator: node.initiator.clone(),
            }),
            Some((Boot { image: name, .. }, Err(why))) => {
                BootRole::Waits { why: format!("image {name} of {instance_name}: {why}") }
            }
        }
    }

    /// What a hot spare boots, and what it prepares for.
    fn stands(&self, node: &Node) -> BootRole {
        match node.standby.as_ref().and_then(|boot| Some((boot, self.filled(boot, None, node)?))) {
            None => BootRole::Halts { why: format!("{} has no standby image of this service", node.name) },
            Some((Boot { image: name, .. }, Ok(image))) => {
                BootRole::Stands { name: name.clone(), image, prepares: self.prepares(node) }
            }
            Some((Boot { image: name, .. }, Err(why))) => {
                BootRole::Waits { why: format!("standby image {name}: {why}") }
            }
        }
    }

    /// What a hot spare will boot if the failover that has reserved it goes on.
    fn prepares(&self, node: &Node) -> Option<Booting> {
        let plan = self.plan_of_node(&node.name).filter(|plan| plan.decision.start == Start::Kexec)?;
        match self.boots(&self.carried(plan)?.instance, plan.epoch, node) {
            BootRole::Boots(booting) => Some(booting),
            // It is said when the time has come.
            BootRole::Stands { .. }
            | BootRole::Local { .. }
            | BootRole::Waits { .. }
            | BootRole::Halts { .. } => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::describe::tests::described;
    use crate::plan::{Cause, Decision, Evidence, Intent, Phase};
    use crate::state::Order;
    use std::sync::Arc;

    pub(crate) const DOCUMENTS: &str = r#"
        provider = [{ name = "pxe", kind = "boot", urls = ["http://m1:7480"],
                      images = { disk = { san = { uri = "iscsi:h:::1:{initiator}" } } } }]
        node = [{ name = "n1", boot_macs = ["52:54:00:00:00:01"], initiator = "iqn.n1" },
                { name = "s1", boot_macs = ["52:54:00:00:00:02"] }]
        instance = [{ name = "web", node = "n1", boot = { provider = "pxe", image = "disk" } }]"#;

    fn role(state: &ClusterState, node: &str) -> String {
        state.boot_role(&node.parse().unwrap(), None).to_string()
    }

    #[test]
    fn only_the_node_that_has_the_instance_boots_it() {
        let mut state = described(DOCUMENTS).unwrap();
        let (n1, s1): (NodeId, NodeId) = ("n1".parse().unwrap(), "s1".parse().unwrap());
        assert_eq!(state.node_with_mac("52-54-00-00-00-02".parse().unwrap()), Some(&s1));
        assert_eq!(role(&state, "n1"), "boots web in e1 from disk");
        assert_eq!(role(&state, "s1"), "must not run: s1 is spare");
        let order = Order::new("alice", "moved", Wall(2));
        for cut in
            [NodeState::Fencing { plan: PlanId(7) }, NodeState::Cleaning { plan: None, order, proof: None }]
        {
            state.nodes.get_mut(&n1).unwrap().state = cut;
            assert!(role(&state, "n1").starts_with("must not run: n1 is being"), "{}", role(&state, "n1"));
        }
        let web = state.instances.values_mut().next().unwrap();
        (web.node, web.epoch) = (s1.clone(), Epoch(2));
        let instance = web.instance.name.clone();
        state.nodes.get_mut(&s1).unwrap().state = NodeState::Active { instance };
        assert_eq!(
            role(&state, "s1"),
            "waits: image disk of web: \"iscsi:h:::1:{initiator}\": missing key `initiator`"
        );
        Arc::make_mut(&mut state.nodes.get_mut(&s1).unwrap().node).initiator = Some("iqn.s1".to_owned());
        let image = Image::San { uri: "iscsi:h:::1:iqn.s1".to_owned() };
        assert!(
            matches!(state.boot_role(&s1, Some(Epoch(2))), BootRole::Boots(booting) if booting.image == image)
        );
        let told = state.boot_role(&s1, Some(Epoch(1))).to_string();
        assert_eq!(told, "must not run: web is in e2, no longer in e1");
    }

    /// `DOCUMENTS` with `s1` as a hot spare and an image that a running Linux can go on into.
    fn hot() -> String {
        let linux = "disk = { linux = { kernel = \"http://h/{instance}\" } }, ram = { linux = { kernel = \"http://h/{node}\" } }";
        let text = DOCUMENTS.replace("disk = { san = { uri = \"iscsi:h:::1:{initiator}\" } }", linux);
        let standby =
            "{ name = \"s1\", agent_key = \"k\", standby = { provider = \"pxe\", image = \"ram\" },";
        text.replace("{ name = \"s1\",", standby)
    }

    #[test]
    fn a_hot_spare_prepares_and_is_told_to_boot_once_that_is_committed() {
        let mut state = described(&hot()).unwrap();
        let (n1, s1): (NodeId, NodeId) = ("n1".parse().unwrap(), "s1".parse().unwrap());
        assert_eq!(role(&state, "s1"), "waits as a hot spare in ram");
        let web = state.instances.values().next().unwrap().instance.name.clone();
        let decision = Decision {
            instance: Some(web.clone()),
            from: n1,
            spare: Some(s1.clone()),
            cause: Cause::Silent,
            evidence: Evidence::default(),
            policy: ("quick".parse().unwrap(), LogIndex(0)),
            gates: vec![],
            runners_up: vec![],
            shutdown: None,
            start: Start::Kexec,
        };
        let mut plan = Plan {
            id: PlanId(7),
            at: Wall(1),
            decision,
            epoch: Epoch(2),
            phase: Phase::Fencing,
            stuck: None,
            intents: vec![],
            proof: None,
            entered: vec![],
        };
        state.nodes.get_mut(&s1).unwrap().state = NodeState::Reserved { plan: plan.id };
        state.plans.insert(plan.id, plan.clone());
        assert_eq!(role(&state, "s1"), "waits as a hot spare in ram, prepares web in e2 from disk");
        let record = state.instances.get_mut(&web).unwrap();
        (record.node, record.epoch) = (s1.clone(), Epoch(2));
        state.nodes.get_mut(&s1).unwrap().state = NodeState::Active { instance: web };
        plan.phase = Phase::Moving;
        state.plans.insert(plan.id, plan.clone());
        assert_eq!(role(&state, "s1"), "waits as a hot spare in ram, prepares web in e2 from disk");
        let action = state.boot_action(&plan).unwrap();
        let (token, leader) = (LogIndex(9), LeaderEpoch(1));
        plan.intents.push(Intent { token, leader, at: Wall(2), action, end: None });
        state.plans.insert(plan.id, plan.clone());
        assert_eq!(role(&state, "s1"), "boots web in e2 from disk");
        plan.phase = Phase::Done;
        state.plans.insert(plan.id, plan);
        assert_eq!(role(&state, "s1"), "boots web in e2 from disk", "at its next start, too");
    }

    #[test]
    fn a_standby_image_that_could_not_be_waited_in_is_refused_when_it_is_described() {
        described(&hot()).unwrap();
        refused(
            &hot(),
            &[
                ("image = \"ram\"", "image = \"rom\"", "standby: provider pxe has no image rom"),
                ("agent_key = \"k\", ", "", "without agent_key nobody hears that it waits"),
                ("[\"52:54:00:00:00:02\"]", "[]", "without boot_macs the boot service does not know it"),
                ("ram = { linux = { kernel = ", "ram = { san = { uri = ", "a spare waits in its memory"),
                ("standby = { provider = \"pxe\"", "standby = { provider = \"pix\"", "no provider pix"),
            ],
        );
    }

    #[test]
    fn a_node_without_a_boot_source_here_goes_its_own_way() {
        let text = DOCUMENTS.replace(", boot = { provider = \"pxe\", image = \"disk\" }", "");
        assert_eq!(
            role(&described(&text).unwrap(), "n1"),
            "boots by itself: web has no boot source of this service"
        );
        let text = DOCUMENTS.replace("image = \"disk\"", "image = \"dusk\"");
        assert_eq!(role(&described(&text).unwrap(), "n1"), "waits: image dusk of web: provider pxe has none");
    }

    #[test]
    fn what_could_not_be_served_is_refused_when_it_is_described() {
        refused(
            DOCUMENTS,
            &[
                ("http://m1:7480", "http://m1:7480/boot", "leave out the path"),
                ("\"http://m1:7480\"", "", "urls has to name 1 to 64"),
                ("{initiator}", "{initiatr}", "image disk: {initiatr} is not known"),
                ("00:02", "00:01", "boot MAC 52:54:00:00:00:01"),
                ("52:54:00:00:00:02", "52:54:00", "not a MAC address"),
                ("san = {", "san = { ur = 1, ", "unknown field"),
            ],
        );
    }

    /// Each replacement makes good documents bad, and why is said.
    fn refused(good: &str, replacements: &[(&str, &str, &str)]) {
        for (from, to, why) in replacements {
            let text = good.replace(from, to);
            assert_ne!(text, good);
            let told = described(&text).unwrap_err();
            assert!(told.contains(why), "{to}: {told}");
        }
    }
}
