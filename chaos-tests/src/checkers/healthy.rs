//! **No healthy machine is fenced because we were sick.** When the program decides by itself that a node has fallen
//! silent, it is not so that most of the members that run have received heartbeats of that node all the time.
//! (The mission; design §4.)

use super::{Checker, Fact, Scene};
use policies::{Cause, Command, Step};

/// A node whose newest heartbeat is younger than this, in µs, has not been silent: half of the shortest `suspect_after`.
const JUST_NOW: u64 = 250_000;

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
        let heard = scene.truth.heard.get(&decision.from);
        let hears = |member| {
            let at = heard.and_then(|heard| heard.get(member)).copied().unwrap_or(0);
            scene.now - at < JUST_NOW
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
