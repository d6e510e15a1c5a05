//! Which policy protects an instance, and why: the one that it names, else the most specific one that applies to it, else
//! the default.
//!
//! Why it exists: who runs hundreds of instances says once what a tier or a tenant is worth, not at each instance. What it
//! never does: choose between two policies of which neither is more specific; whoever makes such a pair is refused.

use crate::command::Rejected;
use crate::inventory::Instance;
use crate::state::ClusterState;
use crate::words::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The instances that a policy protects although they do not name it. Empty: none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Applies {
    /// Tenants, one of which owns the instance; empty: whoever owns it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tenants: BTreeSet<TenantId>,
    /// Labels that the instance carries, all of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl Applies {
    /// True if it applies to no instance.
    pub fn is_empty(&self) -> bool {
        self.tenants.is_empty() && self.labels.is_empty()
    }

    /// Whether it is about this instance.
    pub fn is_to(&self, instance: &Instance) -> bool {
        let is_owner = |tenant: &TenantId| self.tenants.contains(tenant);
        let owned = self.tenants.is_empty() || instance.tenant.as_ref().is_some_and(is_owner);
        !self.is_empty()
            && owned
            && self.labels.iter().all(|(key, value)| instance.labels.get(key) == Some(value))
    }

    /// How many things it asks for: each label, and the tenants. The policy that asks for more goes before.
    pub fn specificity(&self) -> usize {
        self.labels.len() + usize::from(!self.tenants.is_empty())
    }
}

impl fmt::Display for Applies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenants = self.tenants.iter().map(TenantId::as_str).collect::<Vec<_>>().join(" or ");
        let tenants = (!tenants.is_empty()).then(|| format!("tenant {tenants}"));
        let labels = self.labels.iter().map(|(key, value)| format!("label {key}={value}"));
        f.write_str(&tenants.into_iter().chain(labels).collect::<Vec<_>>().join(", "))
    }
}

/// Why a policy protects an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Because {
    /// The instance names it.
    Named,
    /// It applies to the instance, by this.
    Applies(Applies),
    /// Nothing else does.
    Default,
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Because::Named => write!(f, "named by the instance"),
            Because::Applies(applies) => write!(f, "selected by {applies}"),
            Because::Default => write!(f, "the default: it names none, and none applies to it"),
        }
    }
}

/// The policy of an instance, why it is that one, and which others apply to the instance, the most specific first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The policy.
    pub policy: PolicyId,
    /// Why.
    pub because: Because,
    /// The others.
    pub others: Vec<(PolicyId, Applies)>,
}

/// The policies that apply to something, the most specific first, then by name.
struct Selector<'a>(Vec<(&'a PolicyId, &'a Applies)>);

impl<'a> Selector<'a> {
    fn of(state: &'a ClusterState) -> Self {
        let all = state.policies.iter().map(|(name, record)| (name, &record.policy.applies));
        let mut applying: Vec<_> = all.filter(|(_, applies)| !applies.is_empty()).collect();
        // The sort is stable, and they come by name.
        applying.sort_by_key(|(_, applies)| std::cmp::Reverse(applies.specificity()));
        Selector(applying)
    }

    fn matching(&self, instance: &Instance) -> impl Iterator<Item = (&'a PolicyId, &'a Applies)> {
        self.0.iter().copied().filter(|(_, applies)| applies.is_to(instance))
    }

    /// The most specific policy that applies.
    fn select(&self, instance: &Instance) -> Result<Option<&'a PolicyId>, Rejected> {
        let mut matching = self.matching(instance);
        let Some((first, one)) = matching.next() else { return Ok(None) };
        match matching.next().filter(|(_, other)| other.specificity() == one.specificity()) {
            None => Ok(Some(first)),
            Some((second, _)) => Err(Rejected::Ambiguous {
                instance: instance.name.clone(),
                first: first.clone(),
                second: second.clone(),
            }),
        }
    }
}

impl ClusterState {
    /// Writes into each instance's record which policy protects it. On an error the caller drops the half-changed copy.
    ///
    /// # Errors
    /// [`Rejected::Ambiguous`].
    pub(crate) fn select_policies(&mut self) -> Result<(), Rejected> {
        let (selector, mut changed) = (Selector::of(self), vec![]);
        let default = PolicyId::default();
        for (name, record) in &self.instances {
            let selected = match &record.instance.policy {
                Some(named) => named,
                None => selector.select(&record.instance)?.unwrap_or(&default),
            };
            if record.policy != *selected {
                changed.push((name.clone(), selected.clone()));
            }
        }
        for (name, policy) in changed {
            if let Some(record) = self.instances.get_mut(&name) {
                record.policy = policy;
            }
        }
        Ok(())
    }

    /// Which policy protects an instance, why, and which others would. For people; deciding reads the record.
    pub fn selection(&self, name: &InstanceId) -> Option<Selection> {
        let record = self.instances.get(name)?;
        let selector = Selector::of(self);
        let applies =
            |policy: &PolicyId| self.policies.get(policy).map(|record| record.policy.applies.clone());
        let because = match &record.instance.policy {
            Some(_) => Because::Named,
            None => applies(&record.policy)
                .filter(|applies| applies.is_to(&record.instance))
                .map_or(Because::Default, Because::Applies),
        };
        let others = selector.matching(&record.instance).filter(|(policy, _)| **policy != record.policy);
        let others = others.map(|(policy, applies)| (policy.clone(), applies.clone())).collect();
        Some(Selection { policy: record.policy.clone(), because, others })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, Documents, Proposal};
    use crate::coverage::tests::{PROVIDER, node};
    use proptest::collection::{btree_map, btree_set, vec};
    use proptest::option::of;
    use proptest::prelude::*;

    fn apply(state: &mut ClusterState, command: Command) -> Result<Vec<String>, Rejected> {
        let proposal = Proposal { at: Wall(0), by: "ann".to_owned(), command };
        let applied = state.apply(LogIndex(state.applied.0 + 1), &proposal)?;
        Ok(applied.events.into_iter().map(|event| event.text).collect())
    }

    fn describe(state: &mut ClusterState, text: &str) -> Result<Vec<String>, Rejected> {
        let documents: Documents = toml::from_str(text).unwrap();
        apply(state, Command::Describe(Box::new(documents)))
    }

    fn set(state: &mut ClusterState, name: &str, changes: &[(&str, &str)]) -> Result<Vec<String>, Rejected> {
        let name: PolicyId = name.parse().unwrap();
        let old = state.policies.get(&name).or_else(|| state.policies.get(&PolicyId::default()));
        let policy = Box::new(old.unwrap().policy.with(changes.iter().copied()).unwrap());
        apply(state, Command::SetPolicy { name, policy, check: None, reason: "why not".to_owned() })
    }

    fn protects(state: &ClusterState, instance: &str) -> (String, String) {
        let instance: InstanceId = instance.parse().unwrap();
        let Selection { policy, because, others } = state.selection(&instance).unwrap();
        assert_eq!(policy, state.instances[&instance].policy);
        let others: Vec<&str> = others.iter().map(|(policy, _)| policy.as_str()).collect();
        (policy.to_string(), format!("{because}; {}", others.join(" ")))
    }

    fn web(more: &str) -> String {
        format!("[[instance]]\nname = \"web\"\nnode = \"n1\"\n{more}\n")
    }

    #[test]
    fn the_named_then_the_most_specific_then_the_default() {
        let mut state = ClusterState::default();
        describe(&mut state, &[PROVIDER, &node("n1", "r1"), &web("")].concat()).unwrap();
        let default = "the default: it names none, and none applies to it; ";
        assert_eq!(protects(&state, "web"), ("cautious".to_owned(), default.to_owned()));

        set(&mut state, "gold", &[("applies.labels", "tier=gold")]).unwrap();
        let told =
            describe(&mut state, &web("labels = { tier = \"gold\", zone = \"a\" }\ntenant = \"acme\""))
                .unwrap();
        assert_eq!(
            told,
            ["ann changed instance/web", "protected by another policy now: web (cautious -> gold)"]
        );
        assert_eq!(protects(&state, "web").1, "selected by label tier=gold; ");

        let told =
            set(&mut state, "acme", &[("applies.labels", "tier=gold"), ("applies.tenants", "acme,foo")])
                .unwrap();
        assert_eq!(told[1], "protected by another policy now: web (gold -> acme)");
        assert_eq!(protects(&state, "web").1, "selected by tenant acme or foo, label tier=gold; gold");

        describe(&mut state, &web("policy = \"quick\"\nlabels = { tier = \"gold\" }\ntenant = \"acme\""))
            .unwrap();
        assert_eq!(
            protects(&state, "web"),
            ("quick".to_owned(), "named by the instance; acme gold".to_owned())
        );
    }

    #[test]
    fn whoever_would_make_two_equal_ones_is_refused_and_nothing_has_changed() {
        let mut state = ClusterState::default();
        describe(
            &mut state,
            &[PROVIDER, &node("n1", "r1"), &web("labels = { a = \"1\", b = \"2\" }")].concat(),
        )
        .unwrap();
        set(&mut state, "one", &[("applies.labels", "a=1")]).unwrap();
        let before = state.clone();
        let refused = set(&mut state, "two", &[("applies.labels", "b=2")]).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "instance web is matched by policy one and policy two, and neither is more specific: name one of them in the \
             instance, or give one of them another label or a tenant in its [applies]"
        );
        assert_eq!(state, ClusterState { applied: state.applied, ..before });
        // What is more specific than both decides, and then neither of them matters.
        set(&mut state, "both", &[("applies.labels", "a=1,b=2")]).unwrap();
        set(&mut state, "two", &[("applies.labels", "b=2")]).unwrap();
        assert_eq!(protects(&state, "web").1, "selected by label a=1, label b=2; one two");
        let refused = set(&mut state, "both", &[("applies.labels", "")]).unwrap_err();
        assert!(matches!(refused, Rejected::Ambiguous { .. }), "{refused}");
        // One that is named needs no choice.
        describe(&mut state, &web("policy = \"two\"\nlabels = { a = \"1\", b = \"2\" }")).unwrap();
        set(&mut state, "both", &[("applies.labels", "")]).unwrap();
        let refused = describe(&mut state, &web("labels = { a = \"1\", b = \"2\" }")).unwrap_err();
        assert!(matches!(refused, Rejected::Ambiguous { .. }), "{refused}");
    }

    #[test]
    fn a_policy_that_was_selected_is_not_deleted() {
        let mut state = ClusterState::default();
        describe(&mut state, &[PROVIDER, &node("n1", "r1"), &web("tenant = \"acme\"")].concat()).unwrap();
        set(&mut state, "acme", &[("applies.tenants", "acme")]).unwrap();
        let delete =
            Command::DeletePolicy { name: "acme".parse().unwrap(), check: None, reason: "x".to_owned() };
        assert!(matches!(apply(&mut state, delete.clone()), Err(Rejected::InUse { .. })));
        describe(&mut state, &web("")).unwrap();
        apply(&mut state, delete).unwrap();
    }

    #[test]
    fn records_of_before_there_was_a_selection_are_protected_by_the_policy_that_they_name() {
        let mut state = ClusterState::default();
        describe(&mut state, &[PROVIDER, &node("n1", "r1"), &web("policy = \"quick\"")].concat()).unwrap();
        let mut old = serde_json::to_value(&state).unwrap();
        let record = old.pointer_mut("/instances/web").and_then(serde_json::Value::as_object_mut).unwrap();
        assert_eq!(record.remove("policy").unwrap(), "quick");
        assert_eq!(serde_json::from_value::<ClusterState>(old).unwrap(), state);
    }

    fn words() -> impl Strategy<Value = BTreeMap<String, String>> {
        btree_map("[abc]", "[12]", 0..4)
    }

    proptest! {
        /// Whatever policies and instances there are: the record says what the rule says, or the change was refused.
        #[test]
        fn the_record_is_the_rule(
            policies in vec((btree_set("[tu]", 0..2), words()), 0..6),
            labels in words(),
            tenant in of("[tu]"),
        ) {
            let mut state = ClusterState::default();
            let tenant_line = tenant.as_ref().map_or(String::new(), |tenant| format!("tenant = \"{tenant}\"\n"));
            let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key} = \"{value}\"")).collect();
            let more = format!("{tenant_line}labels = {{ {} }}", pairs.join(", "));
            describe(&mut state, &[PROVIDER, &node("n1", "r1"), &web(&more)].concat()).unwrap();
            let mut taken: Vec<(String, usize)> = vec![];
            for (number, (tenants, labels_of)) in policies.iter().enumerate() {
                let is_to = (!tenants.is_empty() || !labels_of.is_empty())
                    && (tenants.is_empty() || tenant.as_ref().is_some_and(|tenant| tenants.contains(tenant)))
                    && labels_of.iter().all(|(key, value)| labels.get(key) == Some(value));
                let weight = labels_of.len() + usize::from(!tenants.is_empty());
                let name = format!("p{number}");
                let labels_of: Vec<String> = labels_of.iter().map(|(key, value)| format!("{key}={value}")).collect();
                let tenants: Vec<&str> = tenants.iter().map(String::as_str).collect();
                let changes = [("applies.labels", &*labels_of.join(",")), ("applies.tenants", &*tenants.join(","))];
                let result = set(&mut state, &name, &changes);
                let most = taken.iter().map(|(_, weight)| *weight).max();
                let tie = is_to && most == Some(weight);
                prop_assert_eq!(result.is_err(), tie);
                if is_to && !tie {
                    taken.push((name, weight));
                }
            }
            let expected = taken.iter().max_by_key(|(_, weight)| *weight).map_or("cautious", |(name, _)| name);
            prop_assert_eq!(protects(&state, "web").0, expected);
        }
    }
}
