//! From what members see to what the cluster believes. One node at a time, a pure function.

use crate::memory::Memory;
use crate::observation::{LastGasp, Meaning, Power, Sight};
use crate::plan::{Cause, Evidence, Verdict};
use crate::policy::Detection;
use crate::state::NodeRecord;
use crate::waiting::Waiting;
use crate::words::*;
use std::collections::BTreeSet;

/// A report that is older than this is no opinion. Members report once a second and at each change.
pub const REPORT_AGE_MAX: Millis = Millis(3000);

/// True if the node shows a sign of life that `counts`, and too few members see none for them to judge it failed: it
/// would otherwise be given up at the moment in which it has begun to serve. Hearing is evidence even to a member that
/// doubts itself; not hearing is not.
pub(crate) fn is_alive_for_enough(
    node: &NodeId,
    counts: impl Fn(&Sight) -> bool,
    rules: &Detection,
    memory: &Memory,
    now: Mono,
) -> bool {
    let fresh = memory.reports.values().filter(|(_, at)| now.since(*at) <= REPORT_AGE_MAX);
    let (mut alive, mut blind) = (0, 0);
    for (report, _) in fresh {
        match (report.sights.get(node).is_some_and(&counts), &report.doubt) {
            (true, _) => alive += 1,
            (false, None) => blind += 1,
            (false, Some(_)) => {}
        }
    }
    alive > 0 && blind < rules.members_min.unwrap_or(memory.majority())
}

/// What follows from the members' sights of one node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// The new verdict; `None`: the old one stands.
    pub(crate) verdict: Option<Verdict>,
    /// Why the node is not (yet) failed, if something is wrong with it.
    pub(crate) waiting: Option<Waiting>,
    /// True while enough members see it gray, whatever the verdict.
    pub(crate) is_gray: bool,
    /// What it rests on.
    pub(crate) evidence: Evidence,
}

impl Judgement {
    /// Remembers since when the node is gray; its slower deadline counts from there.
    pub(crate) fn remember_gray(&self, node: &NodeId, memory: &mut Memory, now: Mono) {
        if self.is_gray {
            memory.gray_since.entry(node.clone()).or_insert(now);
        } else if self.waiting.is_none() {
            memory.gray_since.remove(node);
        }
    }
}

/// Judges one node that is expected to be alive.
pub(crate) fn judge(record: &NodeRecord, rules: &Detection, memory: &Memory, now: Mono) -> Judgement {
    let node = &record.node.name;
    // What the cluster once believed alive counts as known even to a member that has just started.
    let known = !matches!(record.verdict, Verdict::Unknown);
    let needed = rules.members_min.unwrap_or(memory.majority());
    // What a database says of its power is no evidence.
    let power = memory.power(node).filter(|_| !record.node.is_power_hearsay());
    let mut evidence = Evidence { power, needed, ..Evidence::default() };
    let (mut dead, mut limps, mut lives, mut unclear) = (0, 0, 0, 0);
    let mut domains = BTreeSet::new();
    let mut panicked = false;
    for (member, (report, at)) in &memory.reports {
        if now.since(*at) > REPORT_AGE_MAX {
            continue;
        }
        if let Some(doubt) = &report.doubt {
            evidence.doubts.insert(*member, doubt.clone());
            // Hearing is evidence even to a member that doubts itself; not hearing is not.
            let heard = report.sights.get(node).filter(|sight| sight.meaning(known) == Meaning::Lives);
            if let Some(sight) = heard {
                evidence.members.insert(*member, sight.clone());
                lives += 1;
            }
            continue;
        }
        let Some(sight) = report.sights.get(node) else { continue };
        evidence.members.insert(*member, sight.clone());
        let counts_from = memory.counts_from(node, sight, rules);
        let mut meaning = sight.meaning(known);
        // Written before the node began to live as it does now, or too soon after.
        if meaning == Meaning::Dead && *at < counts_from {
            meaning = Meaning::Unclear;
        }
        match meaning {
            Meaning::Dead => {
                dead += 1;
                domains.insert(report.domain.as_str());
                panicked |= *sight == Sight::Gasped(LastGasp::Panic);
            }
            Meaning::Limps => limps += 1,
            Meaning::Lives => lives += 1,
            Meaning::Unclear => unclear += 1,
        }
    }
    evidence.dead = dead;
    let domains = u32::try_from(domains.len()).unwrap_or(u32::MAX);
    let doubting = u32::try_from(evidence.doubts.len()).unwrap_or(u32::MAX);
    let doubt = evidence.doubts.iter().next().map(|(member, doubt)| format!("{member}: {doubt}"));
    let is_off =
        evidence.power == Some(Power::Off) && known && lives == 0 && dead + limps + unclear >= needed;
    let mut is_gray = false;
    let (verdict, waiting) = if is_off {
        (Some(Verdict::Failed(Cause::PowerOff)), None)
    } else if dead >= needed && domains < rules.domains_min {
        (None, Some(Waiting::DomainsTooFew { domains, needed: rules.domains_min }))
    } else if dead >= needed {
        (Some(Verdict::Failed(if panicked { Cause::Gasped } else { Cause::Silent })), None)
    } else if dead + limps >= needed {
        is_gray = true;
        let since = memory.gray_since.get(node).copied().unwrap_or(now);
        if now.since(since) >= rules.gray_after {
            (Some(Verdict::Failed(Cause::GrayTooLong)), None)
        } else {
            (Some(Verdict::Gray), Some(Waiting::Gray { after: rules.gray_after }))
        }
    } else if unclear > 0 && dead + limps + unclear >= needed {
        (None, Some(if known { Waiting::AskingKernel } else { Waiting::NeverHeard }))
    } else if let Some(why) = doubt.filter(|_| lives == 0 && dead + limps + unclear < needed) {
        (None, Some(Waiting::MembersDoubt { doubting, needed, why }))
    } else if dead + limps > 0 {
        // Those who do not hear it are too few; if most hear it, it is not failed, whatever it was before.
        let heard = (lives >= memory.majority()).then_some(Verdict::Healthy);
        (heard, Some(Waiting::MembersDisagree { dead: dead + limps, needed }))
    } else if lives > 0 {
        (Some(Verdict::Healthy), None)
    } else {
        (None, None)
    };
    // A failed node stays failed for the reason that was found first: readings come and go.
    let news = |verdict: &Verdict| match (&record.verdict, verdict) {
        (Verdict::Failed(_), Verdict::Failed(_)) => false,
        // Only a new leader, whose clock of gray nodes begins anew, comes to this.
        (Verdict::Failed(Cause::GrayTooLong), Verdict::Gray) => false,
        (old, new) => old != new,
    };
    Judgement { verdict: verdict.filter(news), waiting, is_gray, evidence }
}
