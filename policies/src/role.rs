//! What a node may run: a function of the committed state, for the node that asks when it starts.
//!
//! Why it exists: a node that was cut off and is switched on by hand must not begin again where it had stopped. What it
//! never does: grant anything. Volumes and ports are given by a failover alone; a role only names them.

use crate::image::{Filling, Image};
use crate::mac::Mac;
use crate::state::{ClusterState, InstanceRecord, NodeState};
use crate::words::*;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a node may run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "role", deny_unknown_fields)]
pub enum BootRole {
    /// It boots this.
    Boots {
        /// The instance.
        instance: InstanceId,
        /// The placement for which it is valid.
        epoch: Epoch,
        /// The name of the image.
        name: String,
        /// The image, with its gaps filled.
        image: Image,
        /// The name by which storage knows the node.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        initiator: Option<String>,
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
            BootRole::Boots { instance, epoch, name, .. } => {
                write!(f, "boots {instance} in {epoch} from {name}")
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
        let NodeState::Active { instance } = &record.state else {
            return BootRole::Halts { why: format!("{node} is {}", record.state) };
        };
        let Some(placed) = self.instances.get(instance).filter(|placed| placed.node == *node) else {
            return BootRole::Halts { why: format!("{instance} is not on {node}") };
        };
        if let Some(runs) = runs.filter(|runs| *runs != placed.epoch) {
            return BootRole::Halts {
                why: format!("{instance} is in {}, no longer in {runs}", placed.epoch),
            };
        }
        self.boots(placed, record.node.initiator.as_deref())
    }

    /// What a node boots that has the instance.
    fn boots(&self, placed: &InstanceRecord, initiator: Option<&str>) -> BootRole {
        let instance = &placed.instance.name;
        let elsewhere = || BootRole::Local { why: format!("{instance} has no boot source of this service") };
        let Some(boot) = &placed.instance.boot else { return elsewhere() };
        let provider = self.providers.get(&boot.provider);
        let Some((_, images)) = provider.and_then(|provider| provider.kind.boot_service()) else {
            return elsewhere();
        };
        let filling = Filling { instance, epoch: placed.epoch, node: &placed.node, initiator };
        let image = match images.get(&boot.image) {
            Some(image) => image.fill(&filling),
            None => Err(format!("provider {} has none", boot.provider)),
        };
        match image {
            Ok(image) => BootRole::Boots {
                instance: instance.clone(),
                epoch: placed.epoch,
                name: boot.image.clone(),
                image,
                initiator: initiator.map(ToOwned::to_owned),
            },
            Err(why) => BootRole::Waits { why: format!("image {} of {instance}: {why}", boot.image) },
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::describe::tests::described;
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
        for cut in [NodeState::Fencing { plan: PlanId(7) }, NodeState::Cleaning { plan: None, order }] {
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
            matches!(state.boot_role(&s1, Some(Epoch(2))), BootRole::Boots { image: found, .. } if found == image)
        );
        let told = state.boot_role(&s1, Some(Epoch(1))).to_string();
        assert_eq!(told, "must not run: web is in e2, no longer in e1");
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
        for (from, to, why) in [
            ("http://m1:7480", "http://m1:7480/boot", "leave out the path"),
            ("\"http://m1:7480\"", "", "urls has to name 1 to 64"),
            ("{initiator}", "{initiatr}", "image disk: {initiatr} is not known"),
            ("00:02", "00:01", "boot MAC 52:54:00:00:00:01"),
            ("52:54:00:00:00:02", "52:54:00", "not a MAC address"),
            ("san = {", "san = { ur = 1, ", "unknown field"),
        ] {
            let text = DOCUMENTS.replace(from, to);
            assert_ne!(text, DOCUMENTS);
            let told = described(&text).unwrap_err();
            assert!(told.contains(why), "{to}: {told}");
        }
    }
}
