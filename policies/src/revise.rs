//! How policies change: each version with who made it and why, past versions kept, nothing deleted that is still needed.
//! Part of `apply`: total, deterministic, no clock.

use crate::command::Rejected;
use crate::policy::Policy;
use crate::state::{ClusterState, DEFAULT_POLICY, Order, PolicyRecord};
use crate::words::*;

/// Past versions of one policy that are kept. Bounds the snapshot (about 1 kB each); older ones are in the history only.
pub const VERSIONS_KEPT_MAX: usize = 20;
/// Policies of one cluster, deleted ones that are remembered included.
pub const POLICIES_MAX: usize = 1_000;

impl ClusterState {
    /// Takes the new content of a policy. Says what has changed, in words.
    pub(crate) fn revise(
        &mut self,
        name: &PolicyId,
        policy: &Policy,
        version: LogIndex,
        order: Order,
    ) -> Result<String, Rejected> {
        policy.validate().map_err(|why| Rejected::BadPolicy { name: name.clone(), why })?;
        self.make_room_for(name)?;
        let record = PolicyRecord { policy: policy.clone(), version, order };
        let Some(old) = self.policies.insert(name.clone(), record) else {
            return Ok("new".to_owned());
        };
        let changes = policy.changes_since(&old.policy);
        self.keep_past(name, old);
        Ok(match changes.as_slice() {
            [] => "nothing is different".to_owned(),
            changes => changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        })
    }

    /// Deletes a policy; what it was can be read and set again. Refused while anything rests on it.
    pub(crate) fn delete_policy(
        &mut self,
        name: &PolicyId,
        version: LogIndex,
        order: Order,
    ) -> Result<(), Rejected> {
        let in_use = |why: String| Err(Rejected::InUse { what: format!("policy {name}"), why });
        if name.as_str() == DEFAULT_POLICY {
            return in_use("it protects every node that carries no instance".to_owned());
        }
        if let Some(record) = self.instances.values().find(|record| record.policy == *name) {
            return in_use(format!("instance {} is protected by it", record.instance.name));
        }
        if let Some(plan) = self.running().find(|plan| plan.decision.policy.0 == *name) {
            return in_use(format!("failover {} goes by it", plan.id));
        }
        let Some(old) = self.policies.remove(name) else {
            return Err(Rejected::NotThere { what: format!("policy {name}") });
        };
        let epitaph = PolicyRecord { policy: old.policy.clone(), version, order };
        self.keep_past(name, old);
        self.keep_past(name, epitaph);
        Ok(())
    }

    /// Compare-and-set.
    ///
    /// # Errors
    /// [`Rejected::PolicyChanged`] if the policy is not at the version that was named.
    pub fn check_version(&self, name: &PolicyId, check: Option<LogIndex>) -> Result<(), Rejected> {
        let found = self.policies.get(name).map_or(LogIndex(0), |record| record.version);
        match check {
            Some(expected) if expected != found => {
                Err(Rejected::PolicyChanged { name: name.clone(), expected, found })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The policy, or what it was when it was deleted: how long a command may take effect late does not end with the
    /// policy that said so.
    pub(crate) fn policy_even_if_deleted(&self, name: &PolicyId) -> Option<&PolicyRecord> {
        self.policies.get(name).or_else(|| self.policies_past.get(name)?.last())
    }

    fn keep_past(&mut self, name: &PolicyId, record: PolicyRecord) {
        let past = self.policies_past.entry(name.clone()).or_default();
        past.push(record);
        past.drain(..past.len().saturating_sub(VERSIONS_KEPT_MAX));
    }

    /// A new name may push out the policy that was deleted longest ago, but none by which a known failover went.
    fn make_room_for(&mut self, name: &PolicyId) -> Result<(), Rejected> {
        let is_new = !self.policies.contains_key(name) && !self.policies_past.contains_key(name);
        let deleted = self.policies_past.keys().filter(|name| !self.policies.contains_key(*name)).count();
        let now = self.policies.len() + deleted;
        if !is_new || now < POLICIES_MAX {
            return Ok(());
        }
        let needed = |name: &PolicyId| self.plans.values().any(|plan| plan.decision.policy.0 == *name);
        let dropped = self.policies_past.iter().filter(|(name, _)| !self.policies.contains_key(*name));
        let oldest =
            dropped.filter(|(name, _)| !needed(name)).min_by_key(|(_, past)| past.last().map(|r| r.version));
        let Some(oldest) = oldest.map(|(name, _)| name.clone()) else {
            let (now, max) = (now as u64 + 1, POLICIES_MAX as u64);
            return Err(Rejected::TooMany { what: "policies".to_owned(), now, max });
        };
        self.policies_past.remove(&oldest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, Proposal};

    fn name(text: &str) -> PolicyId {
        text.parse().unwrap()
    }

    /// Sets or, without a value, deletes the policy with the entry of this index.
    fn change(
        state: &mut ClusterState,
        index: u64,
        policy: &str,
        suspect_after: Option<&str>,
    ) -> Result<String, Rejected> {
        let name = name(policy);
        let reason = format!("change {index}");
        let command = match suspect_after {
            Some(value) => {
                let policy =
                    Policy::presets().remove(0).1.with([("detection.suspect_after", value)]).unwrap();
                Command::SetPolicy { name, policy: Box::new(policy), check: None, reason }
            }
            None => Command::DeletePolicy { name, check: None, reason },
        };
        let applied =
            state.apply(LogIndex(index), &Proposal { at: Wall(index), by: "ann".to_owned(), command })?;
        Ok(applied.events.into_iter().map(|event| event.text).collect())
    }

    #[test]
    fn each_version_is_kept_with_author_and_reason_and_says_what_changed() {
        let mut state = ClusterState::default();
        assert_eq!(change(&mut state, 1, "mine", Some("2s")).unwrap(), "ann set policy mine (new): change 1");
        assert_eq!(
            change(&mut state, 2, "mine", Some("1s")).unwrap(),
            "ann set policy mine (detection.suspect_after: 2s -> 1s): change 2"
        );
        assert_eq!(change(&mut state, 3, "mine", None).unwrap(), "ann deleted policy mine: change 3");
        let past = &state.policies_past[&name("mine")];
        let told: Vec<_> =
            past.iter().map(|r| (r.version.0, r.order.by.as_str(), r.order.reason.as_str())).collect();
        assert_eq!(told, [(1, "ann", "change 1"), (2, "ann", "change 2"), (3, "ann", "change 3")]);
        assert!(state.policy_even_if_deleted(&name("mine")).is_some());
        for index in 4..100 {
            change(&mut state, index, "mine", Some(if index % 2 == 0 { "1s" } else { "2s" })).unwrap();
        }
        assert_eq!(state.policies_past[&name("mine")].len(), VERSIONS_KEPT_MAX);
    }

    #[test]
    fn deleted_names_make_room_and_living_ones_do_not() {
        let mut state = ClusterState::default();
        let mut index = 0;
        let mut next = || {
            index += 1;
            index
        };
        while state.policies.len() < POLICIES_MAX {
            let (at, policy) = (next(), format!("p{}", state.policies.len()));
            change(&mut state, at, &policy, Some("2s")).unwrap();
        }
        let refused = change(&mut state, next(), "one-more", Some("2s")).unwrap_err();
        assert!(matches!(refused, Rejected::TooMany { .. }), "{refused}");
        change(&mut state, next(), "p7", None).unwrap();
        change(&mut state, next(), "p8", None).unwrap();
        change(&mut state, next(), "one-more", Some("2s")).unwrap();
        assert!(!state.policies_past.contains_key(&name("p7")), "deleted first");
        assert!(state.policies_past.contains_key(&name("p8")));
        change(&mut state, next(), "p8", Some("2s")).unwrap();
    }
}
