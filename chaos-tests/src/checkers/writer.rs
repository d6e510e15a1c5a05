//! **Never two machines write to one volume.** At no moment is there more than one node with power whose writes to a
//! volume arrive. (The mission; facts/verification.md I1.)

use super::{Checker, Fact, Scene};

#[derive(Debug, Default)]
pub(super) struct Writer;

impl Checker for Writer {
    fn name(&self) -> &'static str {
        "writer"
    }

    fn see(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        let (Fact::Session { open: true, .. } | Fact::Power { on: true, .. }) = fact else { return Ok(()) };
        for volume in scene.truth.writers.keys() {
            let writers = scene.truth.live_writers(volume);
            if writers.len() > 1 {
                return Err(format!("{volume} can be written by {writers:?} at once"));
            }
        }
        Ok(())
    }
}
