//! Two runs of the same track, trouble by trouble: what only one of them fences, and what one fences sooner.

use super::track::Track;
use super::world::Played;
use super::{Difference, Fence, Replay, Row, Trial};
use crate::flight::Duty;
use crate::policy::{Acting, Policy};
use std::collections::BTreeMap;

/// What one run did to each trouble of each node.
type Fences<'a> = BTreeMap<(u32, u32), &'a Fence>;

pub(super) fn compare(
    trial: &Trial,
    current: &Policy,
    track: &Track,
    in_force: Played,
    candidate: Played,
) -> Replay {
    let (old, new) = (fences(&in_force), fences(&candidate));
    let keys = old.keys().chain(new.keys().filter(|key| !old.contains_key(key)));
    let mut differences: Vec<Row> =
        keys.filter_map(|key| row(old.get(key).copied(), new.get(key).copied(), trial)).collect();
    differences.sort_by(|a, b| (a.trouble_since, &a.node).cmp(&(b.trouble_since, &b.node)));
    let downtime_ms = differences.iter().filter_map(|row| row.downtime_ms).sum();
    let mut downtime_by_node_ms = BTreeMap::new();
    for row in &differences {
        if let Some(downtime) = row.downtime_ms {
            *downtime_by_node_ms.entry(row.node.clone()).or_insert(0) += downtime;
        }
    }
    let found = in_force.really.iter().filter(|key| old.contains_key(key)).count();
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let really_fenced = (count(in_force.really.len()), count(found));
    let until = track.coverage.iter().map(|coverage| coverage.until).max().unwrap_or(trial.since);
    let begin = track.coverage.iter().map(|coverage| coverage.from).min().unwrap_or(trial.since);
    Replay {
        policy: trial.name.clone(),
        since: trial.since.max(begin),
        until,
        members: track.coverage.clone(),
        differences,
        downtime_ms,
        downtime_by_node_ms,
        really_fenced,
        notes: notes(trial, current, track, &candidate),
        in_force: in_force.doings,
        candidate: candidate.doings,
    }
}

fn fences(played: &Played) -> Fences<'_> {
    played.keys.iter().copied().zip(&played.doings.fences).collect()
}

fn row(old: Option<&Fence>, new: Option<&Fence>, trial: &Trial) -> Option<Row> {
    let either = old.or(new)?;
    let difference = match (old, new) {
        (None, _) => Difference::Added,
        (Some(_), None) => Difference::Avoided,
        (Some(old), Some(new)) if new.at > old.at => Difference::Later,
        (Some(old), Some(new)) if new.at < old.at => Difference::Sooner,
        (Some(_), Some(_)) => return None,
    };
    // A trouble ends with the failover, or with the node's return. If the record ends before, nobody knows.
    let back = either.back_after.map(|after| signed(either.at.0.saturating_add(after.0)));
    let end = |fence: Option<&Fence>| match fence {
        Some(fence) => Some(signed(fence.at.0.saturating_add(trial.failover_takes.0))),
        None => back,
    };
    let downtime_ms = end(new).zip(end(old)).map(|(new, old)| new.saturating_sub(old));
    Some(Row {
        node: either.node.clone(),
        trouble_since: either.trouble_since,
        difference,
        in_force: old.cloned(),
        candidate: new.cloned(),
        downtime_ms,
    })
}

fn signed(at: u64) -> i64 {
    i64::try_from(at).unwrap_or(i64::MAX)
}

/// What nobody can know from these records, in sentences.
fn notes(trial: &Trial, current: &Policy, track: &Track, candidate: &Played) -> Vec<String> {
    let mut notes = vec![];
    let (old, new) = (&current.detection, &trial.candidate.detection);
    let assumed = candidate.doings.fences.iter().filter(|fence| fence.assumed).count();
    if assumed > 0 {
        notes.push(format!(
            "fences of the candidate that rest on a kernel that nobody asked at the time, and that counts as mute: {assumed}"
        ));
    }
    let agentless = |standing: &crate::flight::Standing| {
        !standing.has_agent && standing.duty == Duty::Protected(trial.name.clone())
    };
    if new.suspect_after < old.suspect_after && track.standings.iter().any(agentless) {
        let pace = old.suspect_after;
        notes.push(format!(
            "nodes without an agent were asked at the pace of {pace}: their shorter silences are not in the record"
        ));
    }
    if new.write_stale_after < old.write_stale_after {
        let limit = old.write_stale_after;
        notes.push(format!("writes that were late by less than {limit} are not in the record"));
    }
    if new.paths_min.is_some() || old.paths_min.is_some() {
        notes.push(
            "detection.paths_min is not looked at: which path a heartbeat took is not in the record"
                .to_owned(),
        );
    }
    if trial.candidate.acting != Acting::default() || current.acting != Acting::default() {
        notes.push("acting.mode is not looked at: both are played as if they acted by themselves".to_owned());
    }
    if trial.candidate.applies != current.applies {
        notes.push(
            "applies is not looked at: each node is judged by the policy that protected it then".to_owned(),
        );
    }
    let missing = u64::from(trial.voters).saturating_sub(track.members.len() as u64);
    if missing > 0 {
        notes.push(format!(
            "members without a record here, which count as blind: {missing} of {}",
            trial.voters
        ));
    }
    let fenced =
        candidate.doings.fences.iter().filter(|fence| !fence.really && fence.back_after.is_none()).count();
    if fenced > 0 {
        notes.push(format!(
            "nodes that the candidate fences and that were not heard again before the record ends: {fenced}"
        ));
    }
    notes
}
