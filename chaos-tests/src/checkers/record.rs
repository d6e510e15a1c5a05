//! **The decision record of a failover is complete.** It names its policy version and the gates that were passed; a
//! failover that was not ordered names its evidence; one whose instance was placed keeps its proof, and the proof rests
//! on intents that ended as done. (Design §7; facts/verification.md I20.)

use super::{Checker, Fact, Scene};
use policies::{Cause, LastTakeover, Phase, Plan, Start};

#[derive(Debug, Default)]
pub(super) struct Record;

impl Checker for Record {
    fn name(&self) -> &'static str {
        "record"
    }

    fn see(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        let Some((index, _)) = scene.entry(fact) else { return Ok(()) };
        let mut began = scene.state.plans.values().filter(|plan| plan.id.0 == index.0);
        began.try_for_each(begins)?;
        scene.state.running().try_for_each(goes_on)?;
        for plan in scene.state.plans.values().filter(|plan| plan.phase == Phase::Done) {
            goes_on(plan)?;
            if plan.decision.instance.is_some() {
                scene.sometimes("a failover is done");
            }
            if LastTakeover::of(plan).is_some_and(|takeover| takeover.start == Start::Kexec) {
                scene.sometimes("a hot spare goes on into the instance");
            }
        }
        Ok(())
    }
}

fn begins(plan: &Plan) -> Result<(), String> {
    let decision = &plan.decision;
    let seen = decision.evidence.members.len() + usize::from(decision.evidence.power.is_some());
    match decision.cause {
        _ if decision.gates.is_empty() => Err(format!("{} names no gate", plan.id)),
        Cause::Silent | Cause::PowerOff | Cause::Gasped | Cause::GrayTooLong if seen == 0 => {
            Err(format!("{} rests on no evidence", plan.id))
        }
        _ => Ok(()),
    }
}

fn goes_on(plan: &Plan) -> Result<(), String> {
    let placed = matches!(plan.phase, Phase::Moving | Phase::Starting | Phase::Done);
    let Some(proof) = &plan.proof else {
        return if placed { Err(format!("{} is {} without proof", plan.id, plan.phase)) } else { Ok(()) };
    };
    for token in proof.rests_on() {
        if !plan.intents.iter().any(|intent| intent.token == token && intent.is_done()) {
            return Err(format!("the proof of {} rests on {token}, which did not end as done", plan.id));
        }
    }
    Ok(())
}
