//! What each spare is good for: whom it would cover, for how many it fits, and what keeps it from being taken.
//!
//! Why it exists: the coverage tells each instance its spare; who looks after the spares asks the other way round. The needs
//! are those of `placement.rs`, in the same words. What it never does: choose.

use crate::coverage::{Cover, Coverage, Troubles};
use crate::inventory::Instance;
use crate::placement::{Candidate, Wish, elsewhere, misfit, takes_part};
use crate::policy::Spares;
use crate::state::{ClusterState, InstanceRecord};
use crate::view::View;
use crate::words::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Reasons that are told of one spare.
const REASONS_MAX: usize = 3;

/// What a spare is good for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpareUse {
    /// Instances that would move to it if their node were lost now.
    pub covers: Vec<InstanceId>,
    /// Instances for which it would do.
    pub fits: u64,
    /// Why it would not do for those for which it does not; some of them, if there are many.
    pub misses: Vec<String>,
}

/// Instances that need the same of a spare wherever they run.
struct Class<'a> {
    instance: &'a Instance,
    spares: &'a Spares,
    members: Vec<&'a InstanceRecord>,
}

/// Of every spare. Costs a pass over all instances for each.
pub fn spare_uses(state: &ClusterState, view: &View) -> BTreeMap<NodeId, SpareUse> {
    let candidates = Troubles::of(view).candidates(state, view);
    let mut covers: BTreeMap<NodeId, Vec<InstanceId>> = BTreeMap::new();
    for (instance, cover) in Coverage::of(state, view).instances {
        match cover {
            Cover::Spare(spare) | Cover::Lesser { spare, .. } => {
                covers.entry(spare).or_default().push(instance);
            }
            Cover::Moving(_) | Cover::Uncovered(_) => {}
        }
    }
    let classes = classes(state);
    let of_spare = |spare: &Candidate| {
        let name = spare.record.node.name.clone();
        let covers = covers.get(&name).cloned().unwrap_or_default();
        (name, SpareUse { covers, ..fit(state, &classes, spare) })
    };
    candidates.iter().map(of_spare).collect()
}

fn fit(state: &ClusterState, classes: &[Class], spare: &Candidate) -> SpareUse {
    let (mut fits, mut misses) = (0, BTreeSet::new());
    for class in classes {
        if let Some(why) = misfit(class.instance, class.spares, spare).or_else(|| takes_part(spare, None)) {
            misses.insert(why);
            continue;
        }
        for record in &class.members {
            let Some(from) = state.nodes.get(&record.node) else { continue };
            let wish = Wish { instance: &record.instance, spares: class.spares, from, kexecs: false };
            match elsewhere(&wish, spare) {
                Some(why) => drop(misses.insert(why)),
                None => fits += 1,
            }
        }
    }
    SpareUse { covers: vec![], fits, misses: misses.into_iter().take(REASONS_MAX).collect() }
}

fn classes(state: &ClusterState) -> Vec<Class<'_>> {
    let mut classes: Vec<Class> = vec![];
    for record in state.instances.values() {
        let instance = &*record.instance;
        let Some(policy) = state.policies.get(&record.policy) else { continue };
        let spares = &policy.policy.spares;
        let same = |class: &&mut Class| class.instance.needs_the_same_as(instance) && class.spares == spares;
        match classes.iter_mut().find(same) {
            Some(class) => class.members.push(record),
            None => classes.push(Class { instance, spares, members: vec![record] }),
        }
    }
    classes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, Documents, Proposal};
    use crate::coverage::tests::{PROVIDER, instance, node};

    #[test]
    fn a_spare_says_whom_it_covers_for_how_many_it_fits_and_what_it_lacks() {
        let nodes = [node("n1", "r1"), node("n2", "r1"), node("s1", "r1"), node("s2", "r2")].concat();
        let instances =
            [instance("web", "n1", ""), instance("db", "n2", "needs = { disk = \"fast\" }")].concat();
        let documents: Documents = toml::from_str(&[PROVIDER.to_owned(), nodes, instances].concat()).unwrap();
        let (mut state, mut index) = (ClusterState::default(), 0);
        let mut apply = |command| {
            index += 1;
            let proposal = Proposal { at: Wall(0), by: "test".to_owned(), command };
            state.apply(LogIndex(index), &proposal).unwrap();
        };
        apply(Command::Describe(Box::new(documents)));
        apply(Command::Cordon { node: "s1".parse().unwrap(), on: true });
        for record in state.nodes.values_mut().filter(|record| record.node.name.as_str().starts_with('n')) {
            record.verdict = crate::plan::Verdict::Healthy;
        }
        let uses = spare_uses(&state, &View::default());
        let of = |name: &str| &uses[&name.parse::<NodeId>().unwrap()];
        let (web, cordoned) = ("web".parse().unwrap(), "cordoned".to_owned());
        assert_eq!(*of("s1"), SpareUse { covers: vec![], fits: 0, misses: vec![cordoned] });
        let misses = vec!["label disk=fast is missing".to_owned()];
        assert_eq!(*of("s2"), SpareUse { covers: vec![web], fits: 1, misses });
        assert_eq!(uses.len(), 2);
    }
}
