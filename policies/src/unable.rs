//! What policies want of volumes and storage cannot do: snapshots before a failover gives a volume on, and backups.
//!
//! Why it exists: nothing fails for want of a snapshot, so nobody would notice before it is needed. Some of it a provider's
//! kind tells; the rest the leader has asked the providers. What it never does: take "not asked" for "cannot".

use crate::provider::{Provider, ProviderKind};
use crate::readiness::{Check, Checked, Finding, likes};
use crate::state::ClusterState;
use crate::words::{InstanceId, PolicyId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A volume of which a policy wants more than its storage can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unable {
    /// The policy.
    pub policy: PolicyId,
    /// The instance that it protects.
    pub instance: InstanceId,
    /// What is wanted.
    pub check: Check,
    /// Why that cannot be.
    pub why: String,
}

impl Unable {
    /// Of all instances. `checks`: what providers said beforehand; a member that does not lead knows none.
    pub fn all(state: &ClusterState, checks: &[Checked]) -> Vec<Unable> {
        let asked: BTreeMap<&Check, &Finding> =
            checks.iter().map(|checked| (&*checked.check, &checked.finding)).collect();
        let mut all = vec![];
        for (instance, record) in &state.instances {
            for check in likes(state, record) {
                let kind = state.providers.get(check.provider()).and_then(no_storage);
                let said = || asked.get(&check).filter(|it| ***it != Finding::Fine).map(ToString::to_string);
                if let Some(why) = kind.map(str::to_owned).or_else(said) {
                    let (policy, instance) = (record.policy.clone(), instance.clone());
                    all.push(Unable { policy, instance, check, why });
                }
            }
        }
        all
    }
}

/// Why there can be no volumes at all at a provider of this kind.
fn no_storage(provider: &Provider) -> Option<&'static str> {
    match &provider.kind {
        ProviderKind::Ovsdb { .. } => Some("a switch has no volumes"),
        ProviderKind::Boot { .. } => Some("the boot service has no volumes"),
        ProviderKind::Rack { .. }
        | ProviderKind::Exec { .. }
        | ProviderKind::Iscsi { .. }
        | ProviderKind::Openstack { .. } => None,
    }
}

impl fmt::Display for Unable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unable { policy, instance, check, why } = self;
        write!(f, "instance/{instance}: policy {policy} wants {check}: {why}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, Documents, Proposal};
    use crate::coverage::tests::{PROVIDER, instance, node};
    use crate::words::{LogIndex, Millis, Wall};

    #[test]
    fn what_storage_cannot_is_told_where_a_policy_wants_it() {
        let volumes = "volumes = [{ provider = \"sw\", volume = \"v1\" }]";
        let text = [PROVIDER.to_owned(), node("n1", "r1"), instance("web", "n1", volumes)].concat();
        let documents: Documents = toml::from_str(&text).unwrap();
        let mut state = ClusterState::default();
        let command = Command::Describe(Box::new(documents));
        state.apply(LogIndex(1), &Proposal { at: Wall(0), by: "test".to_owned(), command }).unwrap();
        assert_eq!(Unable::all(&state, &[]), [], "no policy wants anything");
        for record in state.policies.values_mut() {
            record.policy.backups.kept = 1;
        }
        let told = |state: &ClusterState, checks: &[Checked]| {
            Unable::all(state, checks).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let wanted = "instance/web: policy quick wants backups of volume v1 at sw: ";
        assert_eq!(told(&state, &[]), [""; 0], "not asked is not unable");
        let volume = state.instances.values().next().unwrap().instance.volumes[0].clone();
        let (check, finding) = (Check::Backup(volume).into(), Finding::Absent("not while in use".to_owned()));
        let checked = Checked { check, finding, age: Millis(0), lasting: Millis(0) };
        assert_eq!(told(&state, std::slice::from_ref(&checked)), [format!("{wanted}not while in use")]);
        let fine = Checked { finding: Finding::Fine, ..checked };
        assert_eq!(told(&state, &[fine]), [""; 0]);
        for provider in state.providers.values_mut() {
            provider.kind = ProviderKind::Boot { urls: vec![], images: Default::default() };
        }
        assert_eq!(told(&state, &[]), [format!("{wanted}the boot service has no volumes")]);
    }
}
