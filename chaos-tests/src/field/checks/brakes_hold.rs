//! The brakes hold: never more fences at a time or within ten minutes than the policy allows.

use super::Check;
use crate::field::facts::Facts;
use policies::{Action, Phase, Plan, Wall};

pub(super) const CHECK: Check = Check { statement: "the brakes hold", broken };

const TEN_MINUTES_MS: u64 = 600_000;

fn broken(facts: &Facts) -> Vec<String> {
    let fences: Vec<(Wall, Wall)> = facts.plans().iter().filter_map(fence).collect();
    let within = |from: Wall, length: u64| {
        fences.iter().filter(|(begun, _)| begun.0 >= from.0 && begun.0 - from.0 < length).count()
    };
    let at = |moment: Wall| {
        fences.iter().filter(|(begun, ended)| begun.0 <= moment.0 && moment.0 < ended.0).count()
    };
    let most =
        |count: &dyn Fn(Wall) -> usize| fences.iter().map(|(begun, _)| count(*begun)).max().unwrap_or(0);
    let (in_flight, in_ten_minutes) = (most(&at), most(&|begun| within(begun, TEN_MINUTES_MS)));
    let limits = [
        (in_flight, facts.brakes.fences_in_flight_max, "at a time"),
        (in_ten_minutes, facts.brakes.fences_per_10min_max, "within ten minutes"),
    ];
    let over =
        limits.into_iter().filter(|(found, max, _)| u32::try_from(*found).is_ok_and(|found| found > *max));
    over.map(|(found, max, when)| format!("{found} fences {when}, at most {max} are allowed")).collect()
}

/// From the intent to switch a node off until the failover left its fencing phase.
fn fence(plan: &Plan) -> Option<(Wall, Wall)> {
    let off = plan.intents.iter().find(|intent| matches!(intent.action, Action::PowerOff { .. }))?;
    let left = plan.entered.iter().find(|(phase, _)| *phase > Phase::Fencing);
    Some((off.at, left.map_or(Wall(u64::MAX), |(_, at)| *at)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::said;
    use super::*;

    #[test]
    fn too_many_fences_are_said() {
        let add = |facts: &mut Facts, count: usize| {
            for memory in facts.memories.values_mut() {
                memory.plans = vec![memory.plans[0].clone(); count];
            }
        };
        let said_of = |count| {
            said(&CHECK, |facts| {
                facts.brakes.fences_in_flight_max = 1;
                facts.brakes.fences_per_10min_max = 3;
                add(facts, count);
            })
        };
        assert_eq!(said_of(2), "2 fences at a time, at most 1 are allowed");
        assert!(said_of(4).contains("4 fences within ten minutes, at most 3 are allowed"));
    }
}
