//! **Every effect is preceded by a committed record of exactly that effect.** When a command leaves a member, an intent
//! of that very action is in the committed log; where the device takes a token, it is that intent's. (R1, R8;
//! facts/verification.md I4.)

use super::{Checker, Deed, Fact, Scene};

#[derive(Debug, Default)]
pub(super) struct Intent;

impl Checker for Intent {
    fn name(&self) -> &'static str {
        "intent"
    }

    fn see(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        let Fact::Sent { member, deed, token } = fact else { return Ok(()) };
        let planned = scene.state.plans.values().flat_map(|plan| &plan.intents);
        let backups = scene.state.instances.values().flat_map(|record| &record.backups);
        let intents = planned.chain(backups.flat_map(|backup| &backup.intents));
        let mut ours = intents.filter(|intent| Deed::by(&intent.action).as_ref() == Some(deed));
        match ours.any(|intent| token.is_none_or(|token| token == intent.token)) {
            true => Ok(()),
            false => Err(format!("{member} sent `{deed}` ({token:?}) without a committed intent")),
        }
    }
}
