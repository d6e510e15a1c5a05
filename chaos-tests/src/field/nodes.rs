//! Nodes of which only one direction works.

use super::scene::Scene;
use crate::demo::DemoError;
use crate::rack::{Fault, Path};

/// Nobody hears a node, and it goes on writing: it must be cut off before the spare writes.
pub(super) async fn beats_are_lost(scene: &mut Scene<'_>) -> Result<String, DemoError> {
    let (victim, volume) = scene.victim()?;
    scene.strike(&victim, Fault::CutNic { path: Path::All }).await?;
    let pause = scene.await_failover().await?;
    let report = scene.stage.report().await?;
    let volume = report.volumes.iter().find(|seen| seen.volume == volume);
    let written = volume.and_then(|volume| volume.runs.first()).map_or(0, |run| run.last);
    Ok(format!("{victim} wrote on up to {written} until it was cut off; nobody wrote for {pause:.1?}"))
}

/// A node is heard, but its writes do not arrive: it is gray and then, after the policy's time, moved.
pub(super) async fn writes_are_lost(scene: &mut Scene<'_>) -> Result<String, DemoError> {
    let (victim, _) = scene.victim()?;
    scene.strike(&victim, Fault::CutNic { path: Path::Storage }).await?;
    let pause = scene.await_failover().await?;
    let lines = scene.failovers().await?;
    let cause = lines.first().map_or_else(String::new, |line| line.cause.to_string());
    Ok(format!("{victim} was moved: {cause}; nobody wrote for {pause:.1?}"))
}
