//! The boot service: what a node may boot.
//!
//! What this is: the assignment of instances to nodes, and the answer to a node that starts.
//! Why it exists: a fenced node that somebody switches on again must not become its instance a second time.
//! What it never does: it starts nothing.

use super::conflict::{DeviceError, newest_first};
use policies::{Epoch, InstanceId, LogIndex, NodeId};
use provisioning::rack::{Assignment, BootChange, BootState, ImageState};
use std::collections::{BTreeMap, BTreeSet};

/// The boot service.
#[derive(Debug)]
pub struct BootService {
    nodes: BTreeMap<NodeId, BootState>,
    newest: BTreeMap<InstanceId, Epoch>,
    images: BTreeSet<String>,
}

impl BootService {
    /// A service for these nodes, with what they boot at first. It serves the images of those, and no others.
    pub fn new(nodes: impl IntoIterator<Item = (NodeId, Option<Assignment>)>) -> Self {
        let (newest, images) = (BTreeMap::new(), BTreeSet::new());
        let mut service = BootService { nodes: BTreeMap::new(), newest, images };
        for (node, assignment) in nodes {
            service.remember(assignment.as_ref());
            service.images.extend(assignment.as_ref().map(|assignment| assignment.image.clone()));
            service.nodes.insert(node, BootState { assignment, newest: LogIndex(0) });
        }
        service
    }

    /// Reads the assignment of a node.
    ///
    /// # Errors
    /// [`DeviceError::NotFound`] if there is no such node.
    pub fn state(&self, node: &NodeId) -> Result<BootState, DeviceError> {
        let not_found = || DeviceError::NotFound { what: format!("node {node}") };
        self.nodes.get(node).cloned().ok_or_else(not_found)
    }

    /// Reads an image.
    ///
    /// # Errors
    /// [`DeviceError::NotFound`] if it is not served.
    pub fn image(&self, image: &str) -> Result<ImageState, DeviceError> {
        let not_found = || DeviceError::NotFound { what: format!("image {image}") };
        self.images.get(image).map(|image| ImageState { image: image.clone() }).ok_or_else(not_found)
    }

    /// What the node may boot now: its assignment, unless the instance has been placed anew since.
    pub fn answer(&self, node: &NodeId) -> Option<&Assignment> {
        let assignment = self.nodes.get(node)?.assignment.as_ref()?;
        (self.newest.get(&assignment.instance) == Some(&assignment.epoch)).then_some(assignment)
    }

    /// Sets the assignment of a node.
    ///
    /// # Errors
    /// [`DeviceError`] if there is no such node or image or the token is older than the newest seen. Nothing has changed then.
    pub fn change(&mut self, node: &NodeId, change: &BootChange) -> Result<(), DeviceError> {
        let not_found = || DeviceError::NotFound { what: format!("node {node}") };
        self.image(&change.assignment.image)?;
        let state = self.nodes.get_mut(node).ok_or_else(not_found)?;
        newest_first(state.newest, change.token)?;
        *state = BootState { assignment: Some(change.assignment.clone()), newest: change.token };
        self.remember(Some(&change.assignment));
        Ok(())
    }

    fn remember(&mut self, assignment: Option<&Assignment>) {
        if let Some(assignment) = assignment {
            let newest = self.newest.entry(assignment.instance.clone()).or_default();
            *newest = (*newest).max(assignment.epoch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_whose_instance_was_placed_anew_boots_nothing() {
        let node = |name: &str| -> NodeId { name.parse().unwrap() };
        let web = |epoch| Assignment {
            instance: "web".parse().unwrap(),
            image: "golden".to_owned(),
            epoch: Epoch(epoch),
        };
        let mut service = BootService::new([(node("n1"), Some(web(1))), (node("n2"), None)]);
        assert_eq!(service.answer(&node("n1")), Some(&web(1)));
        assert_eq!(service.answer(&node("n2")), None);
        let change = BootChange { assignment: web(2), token: LogIndex(9) };
        service.change(&node("n2"), &change).unwrap();
        assert_eq!(service.answer(&node("n2")), Some(&web(2)));
        assert_eq!(service.answer(&node("n1")), None, "its epoch is over");
        let late = BootChange { token: LogIndex(8), ..change.clone() };
        assert!(matches!(service.change(&node("n2"), &late), Err(DeviceError::Conflict(_))));
        let unknown = Assignment { image: "silver".to_owned(), ..web(3) };
        let change = BootChange { assignment: unknown, token: LogIndex(10) };
        let not_there = DeviceError::NotFound { what: "image silver".to_owned() };
        assert_eq!(service.change(&node("n2"), &change), Err(not_there), "it could not serve it");
        assert_eq!(service.answer(&node("n2")), Some(&web(2)));
    }
}
