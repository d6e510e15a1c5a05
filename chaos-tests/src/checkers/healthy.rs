//! **No healthy machine is fenced because we were sick.** When the program decides by itself that a node has fallen
//! silent, it is not so that most of the members that run have received heartbeats of that node all the time.
//! (The mission; design §4.)

use super::{Checker, Fact, Scene};
use policies::{Cause, Command, MemberId, Step};

/// From hearing a node to a decision that knows of it, in µs: a report a second, over lossy ways. How long the decision
/// then took into the log comes on top: a slow disk is no blindness, and before the first command it can be called off.
const KNOWN_AFTER: u64 = 2_000_000;

#[derive(Debug, Default)]
pub(super) struct Healthy;

impl Checker for Healthy {
    fn name(&self) -> &'static str {
        "healthy"
    }

    fn see(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        let Some((_, proposal)) = scene.entry(fact) else { return Ok(()) };
        let Command::Lead { step: Step::Begin(decision), .. } = &proposal.command else { return Ok(()) };
        if decision.cause != Cause::Silent {
            return Ok(());
        }
        let hears = |member: &MemberId| {
            let length = scene.truth.hears_for(&decision.from, *member, scene.now);
            length.is_some_and(|length| length > KNOWN_AFTER + scene.on_its_way)
        };
        let hear = scene.truth.up.iter().filter(|member| hears(member)).count();
        if hear * 2 > scene.truth.up.len() && scene.truth.up.len() > 2 {
            return Err(format!(
                "{} is fenced as silent, but {hear} of {} members hear it",
                decision.from,
                scene.truth.up.len()
            ));
        }
        if hear > 0 {
            scene.sometimes("a node is fenced that a minority still hears");
        }
        Ok(())
    }
}
