//! Only the owner of the epoch wrote: the writers of a volume are its first node and then, in the order of their epochs,
//! the spares to which committed failovers moved its instance.

use super::Check;
use crate::field::facts::{Facts, Place};
use policies::{Phase, Plan};
use std::collections::BTreeMap;

pub(super) const CHECK: Check = Check { statement: "only the owner of the epoch wrote", broken };

fn broken(facts: &Facts) -> Vec<String> {
    facts
        .report
        .volumes
        .iter()
        .filter_map(|volume| {
            let Some(home) = facts.homes.get(&volume.volume) else {
                return Some(format!("{} belongs to nobody", volume.volume));
            };
            let owners = owners(facts, home);
            let mut left = owners.iter();
            let mut writers: Vec<&str> = volume.runs.iter().map(|run| run.initiator.as_str()).collect();
            writers.dedup();
            // Each writer must come among the owners after the one before; an owner need not have written.
            let in_order = writers.iter().all(|writer| left.any(|owner| owner == writer));
            (!in_order).then(|| {
                format!(
                    "{} was written by {}, but owned by {}",
                    volume.volume,
                    writers.join(", "),
                    owners.join(", ")
                )
            })
        })
        .collect()
}

/// The names by which the array knows the owners, in the order of their epochs.
fn owners<'a>(facts: &'a Facts, home: &'a Place) -> Vec<&'a str> {
    let moved = |plan: &&Plan| match plan.phase {
        Phase::Moving | Phase::Starting | Phase::Done | Phase::Replaced => {
            plan.decision.instance.as_ref() == Some(&home.instance)
        }
        Phase::Reserved | Phase::Fencing | Phase::Cancelled => false,
    };
    let plans: BTreeMap<_, _> =
        facts.plans().iter().filter(moved).map(|plan| ((plan.epoch, plan.id), plan)).collect();
    let spares = plans.into_values().filter_map(|plan| plan.decision.spare.as_ref());
    let nodes = std::iter::once(&home.node).chain(spares);
    nodes.filter_map(|node| facts.initiators.get(node)).map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::said;
    use super::*;

    #[test]
    fn a_stranger_and_an_owner_who_comes_back_are_said() {
        let stranger = said(&CHECK, |facts| facts.report.volumes[0].runs[1].initiator = "iqn-3".to_owned());
        assert_eq!(stranger, "vol-1 was written by iqn-1, iqn-3, but owned by iqn-1, iqn-2");
        let back = said(&CHECK, |facts| {
            let runs = &mut facts.report.volumes[0].runs;
            runs.push(runs[0].clone());
        });
        assert_eq!(back, "vol-1 was written by iqn-1, iqn-2, iqn-1, but owned by iqn-1, iqn-2");
    }
}
