//! What operators order to be kept of an instance's volumes: the record, the order, and who may still carry it out. Part of
//! `apply`: total, deterministic, no clock.
//!
//! Why it exists: an order is one, its volumes are several, and each is kept by an effect of its own with an intent before it
//! (R1). What it never does: wait for anything, or let a failover wait for it: one that begins meanwhile goes before, and
//! what was not sent by then is not sent any more.

use crate::apply::{Story, instance_key, not_there};
use crate::command::Rejected;
use crate::effect::{Action, Effect};
use crate::inventory::Volume;
use crate::plan::Intent;
use crate::snapshot::SnapshotName;
use crate::state::{ClusterState, InstanceRecord, Order};
use crate::words::*;
use serde::{Deserialize, Serialize};

/// Backups that an instance's record keeps. Lower: the ends of the last ones are only in the history. Higher: a larger
/// state, with up to 64 volumes for each.
const BACKUPS_KEPT_MAX: usize = 5;
/// Backups under way in the whole cluster. Lower: who backs up a hall waits longer. Higher: storage makes so many snapshots
/// at once, beside what a failover needs of it.
const BACKUPS_IN_FLIGHT_MAX: u64 = 8;

/// An order to keep what is on an instance's volumes. Like a plan, it says at once what is to be done and never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// The log index of the order; its snapshots are called after it.
    pub id: BackupId,
    /// Who, why, when.
    pub order: Order,
    /// What is to be done, a volume each.
    pub actions: Vec<Action>,
    /// What was begun of it, and its end.
    pub intents: Vec<Intent>,
}

impl Backup {
    /// What was not begun yet.
    pub fn left(&self) -> impl Iterator<Item = &Action> {
        let is_begun = |action: &Action| self.intents.iter().any(|intent| intent.action == *action);
        self.actions.iter().filter(move |action| !is_begun(action))
    }

    /// True once each volume's end is recorded, whatever it is. Each action has one intent at most.
    pub fn is_over(&self) -> bool {
        self.intents.len() == self.actions.len() && self.intents.iter().all(|intent| intent.end.is_some())
    }

    /// Volumes that were kept.
    pub fn kept(&self) -> usize {
        self.intents.iter().filter(|intent| intent.is_done()).count()
    }
}

impl InstanceRecord {
    /// The backup that is under way: the newest, for none is taken while another one is.
    pub fn backing_up(&self) -> Option<&Backup> {
        self.backups.last().filter(|backup| !backup.is_over())
    }
}

impl ClusterState {
    /// The intent with this token, if it is one of a backup.
    pub(crate) fn backup_intent(&self, token: LogIndex) -> Option<(&InstanceRecord, &Backup, &Intent)> {
        self.instances.values().find_map(|record| {
            let mut all =
                record.backups.iter().flat_map(|it| it.intents.iter().map(move |intent| (it, intent)));
            let (backup, intent) = all.find(|(_, intent)| intent.token == token)?;
            Some((record, backup, intent))
        })
    }

    /// Takes the order, or refuses it at once: where a failover acts, and where the policy keeps no backups.
    pub(crate) fn back_up(
        &mut self,
        story: &mut Story,
        by: &str,
        name: &InstanceId,
        reason: &str,
    ) -> Result<(), Rejected> {
        let record = self.instances.get(name).ok_or_else(|| not_there("instance", name))?;
        let what = instance_key(name);
        if let Some(plan) = self.plan_of_instance(name).or_else(|| self.plan_of_node(&record.node)) {
            return Err(Rejected::PlanExists { what, plan: plan.id });
        }
        if record.instance.volumes.is_empty() {
            let why = "it has no volumes that could be kept".to_owned();
            return Err(Rejected::BadValue { what, why });
        }
        let policy = &record.policy;
        let of_policy = self.policies.get(policy).ok_or_else(|| not_there("policy", policy))?;
        let keep = of_policy.policy.backups.kept;
        if keep == 0 {
            let why = format!(
                "policy {policy} keeps no backups; `hactl policy set {policy} backups.kept=3 --reason ...` keeps three"
            );
            return Err(Rejected::BadValue { what, why });
        }
        if let Some(backup) = record.backing_up() {
            let open = backup.intents.iter().find(|intent| intent.end.is_none());
            let token = open.map_or(LogIndex(backup.id.0), |intent| intent.token);
            let action = open.map(|intent| &intent.action).or_else(|| backup.left().next());
            let action = action.map(ToString::to_string).unwrap_or_default();
            return Err(Rejected::AlreadyIntended { action, token });
        }
        let now = self.instances.values().filter(|record| record.backing_up().is_some()).count() as u64;
        if now >= BACKUPS_IN_FLIGHT_MAX {
            let what = "backups under way (`--wait` waits for the end of one)".to_owned();
            return Err(Rejected::TooMany { what, now: now + 1, max: BACKUPS_IN_FLIGHT_MAX });
        }
        let id = BackupId(story.index.0);
        let node = record.node.clone();
        let action = |volume: &Volume| Action::Snapshot {
            node: node.clone(),
            provider: volume.provider.clone(),
            volume: volume.volume.clone(),
            name: SnapshotName::Backup(id),
            keep,
        };
        let actions: Vec<Action> = record.instance.volumes.iter().map(action).collect();
        story.tell(&[what], format!("{by} ordered backup {id} of {name}: {reason}"));
        let record = self.instances.get_mut(name).ok_or_else(|| not_there("instance", name))?;
        record.backups.push(Backup { id, order: Order::new(by, reason, story.at), actions, intents: vec![] });
        record.backups.drain(..record.backups.len().saturating_sub(BACKUPS_KEPT_MAX));
        Ok(())
    }

    /// Records that a volume is about to be kept. Also while a failover runs: then it is not sent, and that is its end.
    pub(crate) fn keep(
        &mut self,
        story: &mut Story,
        leader: LeaderEpoch,
        name: &InstanceId,
        action: &Action,
    ) -> Result<(), Rejected> {
        let record = self.instances.get_mut(name).ok_or_else(|| not_there("instance", name))?;
        let mut backups = record.backups.iter_mut();
        let no_step = || not_there("backup that is to", action);
        let backup = backups.find(|it| it.actions.contains(action)).ok_or_else(no_step)?;
        if let Some(known) = backup.intents.iter().find(|intent| intent.action == *action) {
            return Err(Rejected::AlreadyIntended { action: action.to_string(), token: known.token });
        }
        let (token, at) = (story.index, story.at);
        backup.intents.push(Intent { token, leader, at, action: action.clone(), end: None });
        story.tell(&[instance_key(name)], format!("backup {}: {action} ({token})", backup.id));
        Ok(())
    }

    /// Whether an effect of a backup that is about to be sent is still wanted: the instance is where it was, and no failover
    /// is about it or its node.
    pub(crate) fn wants_backup(&self, effect: &Effect) -> bool {
        let Some((record, _, intent)) = self.backup_intent(effect.token) else { return false };
        let (name, node) = (&record.instance.name, effect.action.node());
        let stays = record.node == *node;
        let moves = self.plan_of_instance(name).or_else(|| self.plan_of_node(node)).is_some();
        intent.action == effect.action && intent.end.is_none() && stays && !moves
    }
}
