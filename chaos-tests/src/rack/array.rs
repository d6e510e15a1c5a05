//! The storage array: who may write to which volume, who does, and who wrote what when.
//!
//! What this is: volumes with access lists, live sessions and a log of accepted writes, as plain data.
//! Why it exists: it is the judge of every failover. It alone sees whether a write was lost and whether two nodes
//! wrote at once, and it sees it no matter what the supervisor believes.
//! What it never does: no network and no clock; times are arguments, in nanoseconds since the rack's start.

use super::conflict::{DeviceError, newest_first};
use policies::{LogIndex, SnapshotName, VolumeId};
use provisioning::rack::{Conflict, SnapshotChange, SnapshotState, VolumeChange, VolumeState};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Names one session of one initiator with one volume. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(u64);

/// Why the array took no write or no login.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAccepted {
    /// No such volume.
    #[error("no volume {0}")]
    NoVolume(VolumeId),
    /// The initiator is not in the access list.
    #[error("{0} has no right to the volume")]
    NoRight(String),
    /// The session was dropped.
    #[error("the session was dropped")]
    NoSession,
}

/// An unbroken series of writes of one session: each value one greater than the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Who wrote.
    pub initiator: String,
    /// Counts the grants of the volume: a later grant has the greater number.
    pub grant: u64,
    /// First value.
    pub first: u64,
    /// Last value.
    pub last: u64,
    /// When the first was accepted, ns.
    pub first_at: u64,
    /// When the last was accepted, ns.
    pub last_at: u64,
}

/// What the log of one volume says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeReport {
    /// The volume.
    pub volume: VolumeId,
    /// Accepted writes.
    pub writes: u64,
    /// Acknowledged values that a later writer did not find or that were skipped.
    pub lost_writes: u64,
    /// Writes under an older grant accepted after a write under a newer one.
    pub overlapping_writes: u64,
    /// The log, oldest first.
    pub runs: Vec<Run>,
    /// Changes of the writer, oldest first.
    pub handovers: Vec<Handover>,
    /// What was kept of it: the last value in each snapshot.
    pub snapshots: BTreeMap<SnapshotName, u64>,
}

/// The volume went from one writer to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// Who wrote before.
    pub from: String,
    /// Who wrote after.
    pub to: String,
    /// Last write of the old one, ns.
    pub last_at: u64,
    /// First write of the new one, ns.
    pub first_at: u64,
}

#[derive(Debug, Default)]
struct Volume {
    /// Initiator to grant number.
    rights: BTreeMap<String, u64>,
    grants: u64,
    newest: LogIndex,
    sessions: BTreeMap<SessionId, (String, u64)>,
    runs: Vec<Run>,
    snapshots: BTreeMap<SnapshotName, u64>,
    newest_grant_written: u64,
    writes: u64,
    lost: u64,
    overlapping: u64,
}

/// The array.
#[derive(Debug)]
pub struct Array {
    exclusive: bool,
    volumes: BTreeMap<VolumeId, Volume>,
    sessions: u64,
}

impl Array {
    /// An array with these volumes, each given to its initiator. An exclusive array gives a volume to one initiator at
    /// a time; one that is not relies, as many real ones do, on whoever manages it.
    pub fn new(exclusive: bool, volumes: impl IntoIterator<Item = (VolumeId, Option<String>)>) -> Self {
        let volumes = volumes.into_iter().map(|(id, holder)| {
            let mut volume = Volume::default();
            if let Some(holder) = holder {
                volume.grant(&holder);
            }
            (id, volume)
        });
        Array { exclusive, volumes: volumes.collect(), sessions: 0 }
    }

    /// Reads a volume's access list and sessions.
    ///
    /// # Errors
    /// [`DeviceError::NotFound`] if there is no such volume.
    pub fn state(&self, id: &VolumeId) -> Result<VolumeState, DeviceError> {
        let volume =
            self.volumes.get(id).ok_or_else(|| DeviceError::NotFound { what: format!("volume {id}") })?;
        let mut sessions: Vec<String> = volume.sessions.values().map(|(name, _)| name.clone()).collect();
        sessions.dedup();
        Ok(VolumeState { holders: volume.rights.keys().cloned().collect(), sessions, newest: volume.newest })
    }

    /// Changes a volume's access list. Returns the sessions that were dropped by it; with `keep_sessions`, as on
    /// arrays whose access list counts at login only, none.
    ///
    /// # Errors
    /// [`DeviceError`] if there is no such volume, the token is older than the newest seen, or, on an exclusive
    /// array, another initiator has the right. Nothing has changed then.
    pub fn change(
        &mut self,
        id: &VolumeId,
        change: &VolumeChange,
        keep_sessions: bool,
    ) -> Result<Vec<SessionId>, DeviceError> {
        let volume =
            self.volumes.get_mut(id).ok_or_else(|| DeviceError::NotFound { what: format!("volume {id}") })?;
        match change {
            VolumeChange::Attach { initiator, token } => {
                newest_first(volume.newest, *token)?;
                let other = volume.rights.keys().find(|holder| *holder != initiator);
                if let (true, Some(holder)) = (self.exclusive, other) {
                    return Err(Conflict::HeldByOther { holder: holder.clone() }.into());
                }
                volume.newest = *token;
                volume.grant(initiator);
                Ok(Vec::new())
            }
            VolumeChange::Revoke { initiator, token } => {
                newest_first(volume.newest, *token)?;
                volume.newest = *token;
                volume.rights.remove(initiator);
                if keep_sessions {
                    return Ok(Vec::new());
                }
                let dropped: Vec<SessionId> = volume.sessions_of(initiator).collect();
                volume.sessions.retain(|id, _| !dropped.contains(id));
                Ok(dropped)
            }
        }
    }

    /// Reads which snapshots of a volume there are.
    ///
    /// # Errors
    /// [`DeviceError::NotFound`] if there is no such volume.
    pub fn snapshots(&self, id: &VolumeId) -> Result<SnapshotState, DeviceError> {
        let not_found = || DeviceError::NotFound { what: format!("volume {id}") };
        let volume = self.volumes.get(id).ok_or_else(not_found)?;
        let snapshots = volume.snapshots.keys().copied().collect();
        Ok(SnapshotState { snapshots, newest: volume.newest, in_use: true })
    }

    /// Keeps what is on a volume, and deletes what is too much then. What is kept already stays as it is.
    ///
    /// # Errors
    /// [`DeviceError`] if there is no such volume, the token is older than the newest seen, or, but for a backup, somebody's
    /// writes can arrive. Nothing has changed then.
    pub fn keep(&mut self, id: &VolumeId, change: &SnapshotChange) -> Result<(), DeviceError> {
        let writer = self.reach(id).pop_first();
        let not_found = || DeviceError::NotFound { what: format!("volume {id}") };
        let volume = self.volumes.get_mut(id).ok_or_else(not_found)?;
        newest_first(volume.newest, change.token)?;
        match (writer, change.name) {
            (Some(holder), SnapshotName::Failover(_)) => return Err(Conflict::HeldByOther { holder }.into()),
            (Some(_), SnapshotName::Backup(_)) | (None, _) => {}
        }
        volume.newest = change.token;
        let last = volume.last();
        volume.snapshots.entry(change.name).or_insert(last);
        let ours = volume.snapshots.keys().copied().collect();
        for old in change.surplus(&ours) {
            volume.snapshots.remove(&old);
        }
        Ok(())
    }

    /// Opens a session. Returns it and the last value on the volume, from which the writer goes on.
    ///
    /// # Errors
    /// [`NotAccepted`] if there is no such volume or the initiator is not in its access list.
    pub fn login(&mut self, id: &VolumeId, initiator: &str) -> Result<(SessionId, u64), NotAccepted> {
        let volume = self.volumes.get_mut(id).ok_or_else(|| NotAccepted::NoVolume(id.clone()))?;
        let grant =
            *volume.rights.get(initiator).ok_or_else(|| NotAccepted::NoRight(initiator.to_owned()))?;
        self.sessions += 1;
        let session = SessionId(self.sessions);
        volume.sessions.insert(session, (initiator.to_owned(), grant));
        Ok((session, volume.last()))
    }

    /// Ends a session. Ending one that was dropped does nothing.
    pub fn logout(&mut self, id: &VolumeId, session: SessionId) {
        if let Some(volume) = self.volumes.get_mut(id) {
            volume.sessions.remove(&session);
        }
    }

    /// Accepts a write.
    ///
    /// # Errors
    /// [`NotAccepted`] if the session was dropped; nothing was written then.
    pub fn write(
        &mut self,
        id: &VolumeId,
        session: SessionId,
        value: u64,
        at: u64,
    ) -> Result<(), NotAccepted> {
        let volume = self.volumes.get_mut(id).ok_or_else(|| NotAccepted::NoVolume(id.clone()))?;
        let (initiator, grant) = volume.sessions.get(&session).cloned().ok_or(NotAccepted::NoSession)?;
        volume.record(initiator, grant, value, at);
        Ok(())
    }

    /// Whose writes to the volume can arrive: who has the right, or still a session.
    pub fn reach(&self, id: &VolumeId) -> BTreeSet<String> {
        let Some(volume) = self.volumes.get(id) else { return BTreeSet::new() };
        let sessions = volume.sessions.values().map(|(name, _)| name);
        volume.rights.keys().chain(sessions).cloned().collect()
    }

    /// What the logs of all volumes say.
    pub fn report(&self) -> Vec<VolumeReport> {
        self.volumes.iter().map(|(id, volume)| volume.report(id)).collect()
    }
}

impl Volume {
    fn last(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.last)
    }

    fn sessions_of(&self, initiator: &str) -> impl Iterator<Item = SessionId> {
        self.sessions.iter().filter(move |(_, (name, _))| name == initiator).map(|(id, _)| *id)
    }

    /// Granting again what is already granted is the same grant.
    fn grant(&mut self, initiator: &str) {
        if !self.rights.contains_key(initiator) {
            self.grants += 1;
            self.rights.insert(initiator.to_owned(), self.grants);
        }
    }

    fn record(&mut self, initiator: String, grant: u64, value: u64, at: u64) {
        let expected = self.last().saturating_add(1);
        self.writes += 1;
        self.lost = self.lost.saturating_add(value.abs_diff(expected));
        if grant < self.newest_grant_written {
            self.overlapping += 1;
        }
        self.newest_grant_written = self.newest_grant_written.max(grant);
        match self.runs.last_mut() {
            Some(run) if run.grant == grant && run.initiator == initiator && value == expected => {
                run.last = value;
                run.last_at = at;
            }
            Some(_) | None => {
                self.runs.push(Run {
                    initiator,
                    grant,
                    first: value,
                    last: value,
                    first_at: at,
                    last_at: at,
                });
            }
        }
    }

    fn report(&self, id: &VolumeId) -> VolumeReport {
        let pairs = self.runs.iter().zip(self.runs.iter().skip(1));
        let handovers =
            pairs.filter(|(old, new)| old.initiator != new.initiator).map(|(old, new)| Handover {
                from: old.initiator.clone(),
                to: new.initiator.clone(),
                last_at: old.last_at,
                first_at: new.first_at,
            });
        VolumeReport {
            volume: id.clone(),
            writes: self.writes,
            lost_writes: self.lost,
            overlapping_writes: self.overlapping,
            runs: self.runs.clone(),
            handovers: handovers.collect(),
            snapshots: self.snapshots.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies::{BackupId, PlanId};

    fn volume() -> VolumeId {
        "v1".parse().unwrap()
    }

    fn array(exclusive: bool) -> Array {
        Array::new(exclusive, [(volume(), Some("n1".to_owned()))])
    }

    fn attach(initiator: &str, token: u64) -> VolumeChange {
        VolumeChange::Attach { initiator: initiator.to_owned(), token: LogIndex(token) }
    }

    fn revoke(initiator: &str, token: u64) -> VolumeChange {
        VolumeChange::Revoke { initiator: initiator.to_owned(), token: LogIndex(token) }
    }

    #[test]
    fn a_clean_handover_loses_nothing_and_overlaps_nowhere() {
        let mut array = array(true);
        let (old, last) = array.login(&volume(), "n1").unwrap();
        assert_eq!(last, 0);
        for value in 1..=3 {
            array.write(&volume(), old, value, value * 10).unwrap();
        }
        assert!(array.reach(&volume()).contains("n1"));
        assert_eq!(array.change(&volume(), &revoke("n1", 5), false), Ok(vec![old]));
        assert!(array.reach(&volume()).is_empty());
        assert_eq!(array.write(&volume(), old, 4, 35), Err(NotAccepted::NoSession));
        assert_eq!(array.login(&volume(), "n1"), Err(NotAccepted::NoRight("n1".to_owned())));
        array.change(&volume(), &attach("n2", 6), false).unwrap();
        let (new, last) = array.login(&volume(), "n2").unwrap();
        assert_eq!(last, 3);
        array.write(&volume(), new, 4, 90).unwrap();

        let report = array.report().remove(0);
        assert_eq!((report.writes, report.lost_writes, report.overlapping_writes), (4, 0, 0));
        assert_eq!(
            report.handovers,
            [Handover { from: "n1".to_owned(), to: "n2".to_owned(), last_at: 30, first_at: 90 }]
        );
    }

    #[test]
    fn an_exclusive_array_refuses_a_second_holder_and_older_tokens() {
        let mut array = array(true);
        let held = Conflict::HeldByOther { holder: "n1".to_owned() };
        assert_eq!(array.change(&volume(), &attach("n2", 5), false), Err(held.into()));
        array.change(&volume(), &revoke("n1", 7), false).unwrap();
        let old = Conflict::TokenTooOld { newest: LogIndex(7) };
        assert_eq!(array.change(&volume(), &attach("n2", 6), false), Err(old.into()));
        assert_eq!(
            array.change(&volume(), &revoke("n1", 7), false),
            Ok(vec![]),
            "the same token again is welcome"
        );
    }

    #[test]
    fn what_is_kept_of_a_volume_is_what_was_on_it_when_nobody_wrote() {
        let mut array = array(true);
        let keep = |failover, token| SnapshotChange {
            name: SnapshotName::Failover(PlanId(failover)),
            keep: 2,
            token: LogIndex(token),
        };
        let (mut writer, mut value) = ("n1", 0);
        for (failover, next) in [(2, "n2"), (9, "n1"), (10, "n2")] {
            let (session, _) = array.login(&volume(), writer).unwrap();
            value += 1;
            array.write(&volume(), session, value, value).unwrap();
            let held = Conflict::HeldByOther { holder: writer.to_owned() };
            assert_eq!(array.keep(&volume(), &keep(failover, failover)), Err(held.into()));
            let backup =
                SnapshotChange { name: SnapshotName::Backup(BackupId(failover)), ..keep(0, failover) };
            array.keep(&volume(), &backup).unwrap();
            array.change(&volume(), &revoke(writer, failover), false).unwrap();
            array.keep(&volume(), &keep(failover, failover)).unwrap();
            array.keep(&volume(), &keep(failover, failover)).unwrap();
            let old = Conflict::TokenTooOld { newest: LogIndex(failover) };
            assert_eq!(array.keep(&volume(), &keep(failover, failover - 1)), Err(old.into()));
            array.change(&volume(), &attach(next, failover), false).unwrap();
            writer = next;
        }
        let kept = [
            (SnapshotName::Failover(PlanId(9)), 2),
            (SnapshotName::Failover(PlanId(10)), 3),
            (SnapshotName::Backup(BackupId(9)), 2),
            (SnapshotName::Backup(BackupId(10)), 3),
        ];
        assert_eq!(array.report()[0].snapshots, kept.into());
    }

    #[test]
    fn an_array_that_is_not_exclusive_shows_two_writers_at_once() {
        let mut array = array(false);
        let (old, _) = array.login(&volume(), "n1").unwrap();
        array.change(&volume(), &attach("n2", 5), false).unwrap();
        let (new, _) = array.login(&volume(), "n2").unwrap();
        array.write(&volume(), old, 1, 10).unwrap();
        array.write(&volume(), new, 2, 20).unwrap();
        array.write(&volume(), old, 2, 30).unwrap();
        let report = array.report().remove(0);
        assert_eq!((report.overlapping_writes, report.lost_writes), (1, 1));
    }

    #[test]
    fn skipped_and_repeated_values_are_lost_writes() {
        let mut array = array(true);
        let (session, _) = array.login(&volume(), "n1").unwrap();
        for value in [1, 2, 5, 4, 5] {
            array.write(&volume(), session, value, value).unwrap();
        }
        assert_eq!(array.report()[0].lost_writes, 2 + 2);
    }

    #[test]
    fn coming_back_under_a_new_grant_is_no_overlap() {
        let mut array = array(true);
        let mut value = 0;
        for (token, (from, to)) in [("n1", "n2"), ("n2", "n1"), ("n1", "n2")].iter().enumerate() {
            let (session, last) = array.login(&volume(), from).unwrap();
            assert_eq!(last, value);
            value += 1;
            array.write(&volume(), session, value, value).unwrap();
            array.change(&volume(), &revoke(from, token as u64 + 1), false).unwrap();
            array.change(&volume(), &attach(to, token as u64 + 1), false).unwrap();
        }
        let report = array.report().remove(0);
        assert_eq!((report.overlapping_writes, report.lost_writes, report.handovers.len()), (0, 0, 2));
    }
}
