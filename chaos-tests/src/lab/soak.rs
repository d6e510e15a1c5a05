//! Failovers without end, each judged.
//!
//! Why it exists: what goes wrong once in thirty times is not seen in one. What it never does: go on after a lost or doubled write.

use super::lab::Lab;
use super::moving::Moving;
use super::phases::seconds;
use super::trial::Trial;
use crate::clock::now;
use crate::demo::DemoError;
use policies::Epoch;
use std::collections::BTreeMap;

/// What happens, in turn; to a cold and to a hot spare by turns as well, as the number of kinds is odd.
const KINDS: [Trial; 5] =
    [Trial::Hang, Trial::Panic, Trial::PowerLoss, Trial::StorageCable, Trial::LeaderDiesMoving];

/// So many failovers of web-1 in a row, and a tally.
///
/// # Errors
/// [`DemoError`] with the first that does not come about, or after which a write is missing or there twice.
pub async fn soak(lab: &mut Lab, failovers: usize, tell: &dyn Fn(&str)) -> Result<(), DemoError> {
    let began = now();
    let before = Moving::begin(lab, 1).await?;
    let (mut tally, mut last) = (BTreeMap::<(String, &str), usize>::new(), before.count);
    for (number, kind) in (1..=failovers).zip(KINDS.into_iter().cycle()) {
        let spare = if number % 2 == 0 { "hot" } else { "cold" };
        if spare == "hot" {
            lab.warm().await?;
        }
        let moving = Moving::begin(lab, 1).await?;
        kind.strike(lab, moving.from).await?;
        let moved = moving.end(lab).await?;
        let kept = lab.ledger(1)?;
        // What was not looked at before stands on the volume still, without a gap to what was.
        if kept.first().is_none_or(|first| first.count > last + 1) {
            return Err(DemoError::Unexpected(format!("the volume keeps too little to judge since {last}")));
        }
        last = kept.last().map_or(last, |entry| entry.count);
        *tally.entry((kind.to_string(), spare)).or_default() += 1;
        tell(&format!("{number:>4}  {kind:<20} {spare:<4}  {moved}; {last} counts"));
        lab.repair().await?;
        lab.check()?;
    }
    let (_, epoch) = lab.placed(1).await?;
    if epoch != Epoch(before.epoch.0 + u64::try_from(failovers).unwrap_or(u64::MAX)) {
        return Err(DemoError::Unexpected(format!(
            "after {failovers} failovers of {} it is {epoch}",
            before.epoch
        )));
    }
    tell(&format!(
        "{failovers} failovers in {} s, {} to {epoch}: {} counts written, none lost, none by two",
        seconds(now().since(began)),
        before.epoch,
        last - before.count
    ));
    for ((kind, spare), times) in tally {
        tell(&format!("  {times:>3}  {kind}, {spare} spare"));
    }
    Ok(())
}
