//! What applying documents would change.
//!
//! Why it exists: what is answered to `apply` and what is proposed must be the same. What it never does: look at anything
//! but the documents and the committed state.

use super::answers::{Change, ObjectChange};
use policies::{ClusterState, Instance, InstanceRecord, Node};

/// What `apply` would do with each object of `documents`, which are already sealed. Also drops what is unchanged from
/// them, so that nothing is written twice.
pub fn compare(state: &ClusterState, documents: &mut policies::Documents) -> Vec<ObjectChange> {
    let mut objects = vec![];
    let mut note = |object: String, old: Option<bool>| {
        let change = match old {
            None => Change::Created,
            Some(false) => Change::Configured,
            Some(true) => Change::Unchanged,
        };
        objects.push(ObjectChange { object, change });
        change != Change::Unchanged
    };
    documents.providers.retain(|new| {
        let old = state.providers.get(&new.name);
        note(format!("provider/{}", new.name), old.map(|old| old == new))
    });
    documents.nodes.retain(|new| {
        let old = state.nodes.get(&new.name);
        note(format!("node/{}", new.name), old.map(|old| *old.node == *new))
    });
    documents.instances.retain(|new| {
        let old = state.instances.get(&new.name);
        note(format!("instance/{}", new.name), old.map(|old| same_instance(old, new)))
    });
    documents.policies.retain(|new| {
        let old = state.policies.get(&new.name);
        note(format!("policy/{}", new.name), old.map(|old| old.policy == new.policy))
    });
    objects
}

/// `node` says only where an instance was when it was first described; after a failover the document still says so,
/// and applying it again changes nothing.
fn same_instance(old: &InstanceRecord, new: &Instance) -> bool {
    Instance { node: old.instance.node.clone(), ..new.clone() } == *old.instance
}

/// A node that is described twice in one document would silently take the last description.
pub fn duplicate(documents: &policies::Documents) -> Option<String> {
    let names = documents
        .nodes
        .iter()
        .map(|Node { name, .. }| format!("node/{name}"))
        .chain(documents.instances.iter().map(|instance| format!("instance/{}", instance.name)))
        .chain(documents.providers.iter().map(|provider| format!("provider/{}", provider.name)))
        .chain(documents.policies.iter().map(|policy| format!("policy/{}", policy.name)));
    let mut seen = std::collections::BTreeSet::new();
    names.into_iter().find(|name| !seen.insert(name.clone()))
}
