//! Holds what is wished for, and makes tgt agree with it.
//!
//! What this is: one lock around the records and every change of tgt; [`Keeper::look`] and [`Keeper::change`] for members,
//! [`Keeper::tend`] for the clock. Each makes tgt agree first, so nobody is ever told of a state that is about to change.
//! [`Keeper::snapshots`] and [`Keeper::snapshot`] are the same for snapshots: made only while nobody may write to the volume
//! (or, for backups, where the program can do more), without the lock, for a program of the site may take long and a revoke
//! must not wait for it.
//! Why it exists: tgt's rights must at all times be a subset of what is on disk, also when tgtd or we were killed between any
//! two steps. All can be cut short anywhere: there is no state but the record and tgt, and [`Keeper::tend`] goes on.
//! What it never does: it binds nobody but the recorded holder, and to no target but the recorded one.

use super::config::{Config, ConfigError, Initiator, VolumeConfig};
use super::record::{Generation, Record, RecordError, Store};
use super::show::Target;
use super::snapshots::{SnapshotError, Snapshots};
use super::tgt::{LUN, Tgt, TgtError};
use crate::rack::{Conflict, NotThere, SnapshotChange, SnapshotState, VolumeChange, VolumeState};
use policies::{LogIndex, SnapshotName, VolumeId};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Longest time in which a step is begun to make tgt agree, for one volume. Steps take milliseconds; only a session that ends
/// once the disk has answered takes longer. Then the member is told that nobody knows, and the next [`Keeper::tend`] goes on.
/// Longer would make other volumes wait behind a disk that hangs, shorter would give up slow ones.
const AGREE_MAX: Duration = Duration::from_secs(5);
/// Pause before a step is tried again, while a session ends.
const PAUSE: Duration = Duration::from_millis(5);

/// All volumes of this host.
#[derive(Debug)]
pub struct Keeper {
    config: Config,
    tgt: Tgt,
    snapshots: Option<Snapshots>,
    /// Whoever has it is the only one to change tgt: a target's number must not become another volume's between a reading and
    /// the step that follows.
    store: Mutex<Store>,
}

/// tgt could not be made to agree, or does not say.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// tgt, of no volume.
    #[error("tgtd does not say what it has")]
    Silent(#[source] TgtError),
    /// tgt.
    #[error("volume {volume}")]
    Tgt {
        /// Which.
        volume: VolumeId,
        /// Why.
        source: TgtError,
    },
    /// The disk.
    #[error("keep what is wished for")]
    Record(#[source] RecordError),
    /// A CHAP secret.
    #[error("volume {volume}: read the CHAP secret of its holder")]
    Secret {
        /// Which.
        volume: VolumeId,
        /// Why.
        source: ConfigError,
    },
    /// The holder is not in the configuration any more.
    #[error(
        "volume {volume}: its holder {holder} is no [[initiator]] of the configuration; put it back, or revoke it"
    )]
    Unknown {
        /// Which.
        volume: VolumeId,
        /// Who.
        holder: String,
    },
    /// Its target offers something else.
    #[error(
        "volume {volume}: its target {tid} offers {found}; `tgtadm --lld iscsi --mode target --op delete --tid {tid}`"
    )]
    OtherBacking {
        /// Which.
        volume: VolumeId,
        /// The target.
        tid: u32,
        /// Its backing.
        found: String,
    },
    /// Something else offers it, too, so nobody can tell who may use it.
    #[error("volume {volume}: {target} (target {tid}) offers its backing, too; delete that with tgtadm")]
    OtherTarget {
        /// Which.
        volume: VolumeId,
        /// The other target, or its own with another logical unit.
        target: String,
        /// tgt's number for it.
        tid: u32,
    },
    /// The program for snapshots.
    #[error("volume {volume}")]
    Snapshot {
        /// Which.
        volume: VolumeId,
        /// Why.
        source: SnapshotError,
    },
    /// It still does not agree.
    #[error("volume {volume}: tgt does not come to what is wished for within {AGREE_MAX:?}; next: {next}")]
    Late {
        /// Which.
        volume: VolumeId,
        /// What there is still to do.
        next: String,
    },
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// No such volume.
    #[error("{}", .0.error)]
    NotThere(NotThere),
    /// It may not be made; nothing has changed.
    #[error(transparent)]
    Conflict(Conflict),
    /// Its words cannot be right; nothing has changed.
    #[error("{0}")]
    BadWords(String),
    /// The program for snapshots failed, and there is none of this name.
    #[error("{}", policies::causes(.0))]
    NotMade(SnapshotError),
    /// Nobody knows whether it was made.
    #[error(transparent)]
    Unknown(KeeperError),
}

impl Keeper {
    /// Reads the records; tgt is not touched yet.
    ///
    /// # Errors
    /// [`RecordError`] if one cannot be read: without it nobody may be given anything.
    pub fn open(config: Config) -> Result<Keeper, RecordError> {
        let store = Store::open(&config.state)?;
        store.last()?;
        let (tgt, snapshots) = (Tgt::new(&config), Snapshots::new(&config));
        Ok(Keeper { config, tgt, snapshots, store: Mutex::new(store) })
    }

    /// Makes tgt agree for every volume; what went wrong with each.
    pub async fn tend(&self) -> Vec<KeeperError> {
        let mut errors = vec![];
        for volume in &self.config.volumes {
            // Locked for each anew: a member waits for one volume, not for all.
            let store = self.store.lock().await;
            match self.agree(&store, volume).await {
                Ok(_) => {}
                // It would say no more of the others.
                Err(error @ KeeperError::Silent(_)) => return vec![error],
                Err(error) => errors.push(error),
            }
        }
        errors
    }

    /// What tgt says of a volume, once it agrees.
    ///
    /// # Errors
    /// [`ChangeError::NotThere`] if there is none, [`ChangeError::Unknown`] if tgt does not say or does not agree.
    pub async fn look(&self, name: &str) -> Result<VolumeState, ChangeError> {
        let volume = self.volume(name)?;
        let store = self.store.lock().await;
        self.agree(&store, volume).await.map_err(ChangeError::Unknown)
    }

    /// Writes the wish down, then makes tgt agree with it.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn change(&self, name: &str, change: &VolumeChange) -> Result<(), ChangeError> {
        let volume = self.volume(name)?;
        let store = self.store.lock().await;
        let unknown = |error| ChangeError::Unknown(KeeperError::Record(error));
        let next = self.wish(store.read(&volume.name).map_err(unknown)?, change)?;
        // Also if nothing is new: the last time may have failed after the file was in place, before it was on the disk.
        store.keep(&volume.name, &next).map_err(unknown)?;
        self.agree(&store, volume).await.map(drop).map_err(ChangeError::Unknown)
    }

    /// The snapshots of a volume, as the program lists them.
    ///
    /// # Errors
    /// [`ChangeError::NotThere`] if there is no such volume, or nothing makes snapshots here; [`ChangeError::Unknown`] if the
    /// program does not say.
    pub async fn snapshots(&self, name: &str) -> Result<SnapshotState, ChangeError> {
        let (volume, snapshots) = (self.volume(name)?, self.program()?);
        let unknown = |source| ChangeError::Unknown(KeeperError::snapshot(volume, source));
        let ours = snapshots.list(volume).await.map_err(unknown)?;
        let record = self.store.lock().await.read(&volume.name);
        let record = record.map_err(|error| ChangeError::Unknown(KeeperError::Record(error)))?;
        Ok(SnapshotState { snapshots: ours, newest: record.newest, in_use: self.config.snapshot_in_use })
    }

    /// Makes a snapshot of a volume, and deletes those of ours of that kind that are too many then.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn snapshot(&self, name: &str, change: &SnapshotChange) -> Result<(), ChangeError> {
        let (volume, snapshots) = (self.volume(name)?, self.program()?);
        let unknown = |source| ChangeError::Unknown(KeeperError::snapshot(volume, source));
        let _turn = snapshots.turn(volume, change.name).await;
        self.may_keep(volume, change).await?;
        let there = snapshots.list(volume).await.map_err(unknown)?;
        if !there.contains(&change.name) {
            self.make(snapshots, volume, change).await?;
        }
        for old in change.surplus(&there) {
            match snapshots.delete(volume, old).await {
                Ok(()) => tracing::info!(volume = %volume.name, snapshot = %old, "deleted"),
                // The new one is there, and that is what was asked for; the next one tries again.
                Err(error) => {
                    let error = policies::causes(&error);
                    tracing::warn!(volume = %volume.name, error, "delete an old snapshot");
                }
            }
        }
        Ok(())
    }

    /// What the program failed to make, and what was made while somebody was given the volume, is deleted again: nobody knows
    /// what is in it.
    async fn make(
        &self,
        snapshots: &Snapshots,
        volume: &VolumeConfig,
        change: &SnapshotChange,
    ) -> Result<(), ChangeError> {
        let unknown = |source| ChangeError::Unknown(KeeperError::snapshot(volume, source));
        let made = snapshots.create(volume, change.name).await.map_err(ChangeError::NotMade);
        let made = match made {
            // Of one moment, whoever was given the volume since.
            Ok(()) if self.keeps_in_use(change) => Ok(()),
            Ok(()) => self.may_keep(volume, change).await,
            Err(error) => Err(error),
        };
        if made.is_err() && snapshots.list(volume).await.map_err(unknown)?.contains(&change.name) {
            snapshots.delete(volume, change.name).await.map_err(unknown)?;
        }
        made.inspect(|()| tracing::info!(volume = %volume.name, snapshot = %change.name, "kept"))
    }

    /// True for a backup, where the administrator says that the program can make one of a volume in use.
    fn keeps_in_use(&self, change: &SnapshotChange) -> bool {
        match change.name {
            SnapshotName::Failover(_) => false,
            SnapshotName::Backup(_) => self.config.snapshot_in_use,
        }
    }

    /// Takes note of the token, if nobody may write to the volume: nobody is recorded, and tgt agrees. A backup that can be
    /// made of a volume in use is only compared with the volume's token: what a failover has done since goes before.
    async fn may_keep(&self, volume: &VolumeConfig, change: &SnapshotChange) -> Result<(), ChangeError> {
        let store = self.store.lock().await;
        let unknown = |error| ChangeError::Unknown(KeeperError::Record(error));
        let record = newer(store.read(&volume.name).map_err(unknown)?, change.token)?;
        if self.keeps_in_use(change) {
            return store.keep(&volume.name, &record).map_err(unknown);
        }
        match (record.holder.clone(), change.name) {
            (Some(holder), SnapshotName::Failover(_)) => {
                return Err(ChangeError::Conflict(Conflict::HeldByOther { holder }));
            }
            (Some(holder), SnapshotName::Backup(_)) => {
                return Err(ChangeError::BadWords(format!(
                    "{holder} has the volume, and this storage host keeps none that is in use: it is not said of its \
                     snapshot_program that it can (`snapshot_in_use`)"
                )));
            }
            (None, _) => {}
        }
        store.keep(&volume.name, &record).map_err(unknown)?;
        self.agree(&store, volume).await.map(drop).map_err(ChangeError::Unknown)
    }

    fn program(&self) -> Result<&Snapshots, ChangeError> {
        let error = || "this storage host cannot make snapshots: it has no `snapshot_program`".to_owned();
        self.snapshots.as_ref().ok_or_else(|| ChangeError::NotThere(NotThere { error: error() }))
    }

    fn volume(&self, name: &str) -> Result<&VolumeConfig, ChangeError> {
        let not_there = || ChangeError::NotThere(NotThere { error: format!("there is no volume {name}") });
        self.config.volume(name).ok_or_else(not_there)
    }

    /// The record after the change.
    fn wish(&self, record: Record, change: &VolumeChange) -> Result<Record, ChangeError> {
        let (VolumeChange::Attach { initiator, token } | VolumeChange::Revoke { initiator, token }) = change;
        let record = newer(record, *token)?;
        let is_holder = record.holder.as_ref() == Some(initiator);
        match (change, &record.holder) {
            (VolumeChange::Attach { .. }, Some(holder)) if !is_holder => {
                Err(ChangeError::Conflict(Conflict::HeldByOther { holder: holder.clone() }))
            }
            (VolumeChange::Attach { .. }, _) if self.config.initiator(initiator).is_none() => {
                Err(ChangeError::BadWords(format!("{initiator} is no [[initiator]] of the configuration")))
            }
            (VolumeChange::Attach { .. }, _) => Ok(Record { holder: Some(initiator.clone()), ..record }),
            (VolumeChange::Revoke { .. }, _) if is_holder => {
                Ok(Record { holder: None, target: Generation::Spent(record.target.last()), ..record })
            }
            (VolumeChange::Revoke { .. }, _) => Ok(record),
        }
    }

    /// One step at a time, each followed by a new reading, until there is nothing to do: what that reading says.
    async fn agree(&self, store: &Store, volume: &VolumeConfig) -> Result<VolumeState, KeeperError> {
        let end = Instant::now() + AGREE_MAX;
        let mut last = None;
        loop {
            let record = store.read(&volume.name).map_err(KeeperError::Record)?;
            let targets = self.tgt.targets().await.map_err(KeeperError::Silent)?;
            let target = targets.iter().find(|target| target.name == volume.target);
            let Some(step) = self.step(volume, &record, &targets, target)? else {
                return Ok(state(&record, target));
            };
            if Instant::now() >= end {
                return Err(KeeperError::Late { volume: volume.name.clone(), next: step.to_string() });
            }
            let is_again = last.as_ref() == Some(&step);
            if is_again {
                tokio::time::sleep(PAUSE).await;
            }
            match self.go(store, volume, &record, &targets, &step).await {
                Ok(()) if is_again => {}
                Ok(()) => tracing::info!(volume = %volume.name, "{step}"),
                // Who has to go may have gone by himself; the next reading tells.
                Err(KeeperError::Tgt { .. }) if step.takes() && Instant::now() < end => {}
                Err(error) => return Err(error),
            }
            last = Some(step);
        }
    }

    /// What to do next; none: tgt agrees. Taking comes before giving, and nothing stands in the way of taking. A target is one
    /// holder's: it is made for him and given up with his right.
    fn step(
        &self,
        volume: &VolumeConfig,
        record: &Record,
        targets: &[Target],
        target: Option<&Target>,
    ) -> Result<Option<Step>, KeeperError> {
        let holder = record.holder.as_deref();
        let Some(target) = target else {
            alone(volume, targets)?;
            return Ok(holder.map(|_| Step::MakeTarget));
        };
        let owner = holder.filter(|_| record.target == Generation::Current(target.tid));
        if let Some(step) = put_out(target, owner) {
            return Ok(Some(step));
        }
        let Some(owner) = owner else { return Ok(Some(Step::DeleteTarget(target.tid))) };
        alone(volume, targets)?;
        match self.config.initiator(owner) {
            Some(initiator) => furnish(volume, target, initiator),
            None => Err(KeeperError::Unknown { volume: volume.name.clone(), holder: owner.to_owned() }),
        }
    }

    async fn go(
        &self,
        store: &Store,
        volume: &VolumeConfig,
        record: &Record,
        targets: &[Target],
        step: &Step,
    ) -> Result<(), KeeperError> {
        let tgt = &self.tgt;
        let gone = match step {
            Step::MakeTarget => {
                let last = store.last().map_err(KeeperError::Record)?;
                let tid = targets.iter().map(|target| target.tid).fold(last, u32::max).saturating_add(1);
                let next = Record { target: Generation::Current(tid), ..record.clone() };
                store.keep(&volume.name, &next).map_err(KeeperError::Record)?;
                tgt.make_target(tid, volume).await
            }
            Step::MakeLun(tid) => tgt.make_lun(*tid, volume).await,
            Step::NameLun(tid) => tgt.name_lun(*tid, volume).await,
            Step::BindAccount(tid, user) => return self.bind_account(volume, *tid, user).await,
            Step::Bind(tid, holder) => tgt.bind(*tid, holder).await,
            Step::Unbind(tid, rule) => tgt.unbind(*tid, rule).await,
            Step::EndConnection(tid, sid, cid) => tgt.end_connection(*tid, *sid, *cid).await,
            Step::Wait => Ok(()),
            Step::UnbindAccount(tid, user) => tgt.unbind_account(*tid, user).await,
            Step::DeleteTarget(tid) => tgt.delete_target(*tid).await,
        };
        gone.map_err(|source| KeeperError::tgt(volume, source))
    }

    /// tgt keeps accounts beside its targets; a new tgtd has none.
    async fn bind_account(&self, volume: &VolumeConfig, tid: u32, user: &str) -> Result<(), KeeperError> {
        let tgt = |source| KeeperError::tgt(volume, source);
        if !self.tgt.accounts().await.map_err(tgt)?.iter().any(|account| account == user) {
            let secret = self.config.chap_secret(user);
            let secret =
                secret.map_err(|source| KeeperError::Secret { volume: volume.name.clone(), source })?;
            self.tgt.make_account(user, &secret).await.map_err(tgt)?;
        }
        self.tgt.bind_account(tid, user).await.map_err(tgt)
    }
}

/// The record with this token, unless it has seen a newer one (R8).
fn newer(record: Record, token: LogIndex) -> Result<Record, ChangeError> {
    match token < record.newest {
        true => Err(ChangeError::Conflict(Conflict::TokenTooOld { newest: record.newest })),
        false => Ok(Record { newest: token, ..record }),
    }
}

/// What a reading says. Sessions are named as often as they are.
fn state(record: &Record, target: Option<&Target>) -> VolumeState {
    let (holders, sessions) = match target {
        Some(target) => (target.rules.clone(), target.sessions.iter().map(|s| s.initiator.clone()).collect()),
        None => (vec![], vec![]),
    };
    VolumeState { holders, sessions, newest: record.newest }
}

/// Refuses a volume whose backing is offered a second time, for instance by the target that it had in an older configuration.
fn alone(volume: &VolumeConfig, targets: &[Target]) -> Result<(), KeeperError> {
    let luns = targets.iter().flat_map(|target| target.luns.iter().map(move |lun| (target, lun)));
    let mut others = luns.filter(|(target, lun)| (&target.name, lun.number) != (&volume.target, LUN));
    match others.find(|(_, lun)| volume.backing.to_str() == Some(&lun.path)) {
        None => Ok(()),
        Some((target, _)) => Err(KeeperError::OtherTarget {
            volume: volume.name.clone(),
            target: target.name.clone(),
            tid: target.tid,
        }),
    }
}

/// The next step to rid a target of everybody but its owner: first nobody can log in any more, then nobody is logged in.
fn put_out(target: &Target, owner: Option<&str>) -> Option<Step> {
    let tid = target.tid;
    if let Some(rule) = target.rules.iter().find(|rule| Some(rule.as_str()) != owner) {
        return Some(Step::Unbind(tid, rule.clone()));
    }
    let stranger = target.sessions.iter().find(|session| Some(session.initiator.as_str()) != owner)?;
    Some(match stranger.connections.first() {
        Some(cid) => Step::EndConnection(tid, stranger.sid, *cid),
        None => Step::Wait,
    })
}

/// The next step until a target offers its volume to its owner: the name comes last, for without an account in front of it the
/// name alone would do.
fn furnish(volume: &VolumeConfig, target: &Target, owner: &Initiator) -> Result<Option<Step>, KeeperError> {
    let tid = target.tid;
    let account = owner.chap_user.as_ref().filter(|user| !target.accounts.contains(user));
    if let (Some(_), Some(rule)) = (account, target.rules.first()) {
        return Ok(Some(Step::Unbind(tid, rule.clone())));
    }
    if let Some(stranger) = target.accounts.iter().find(|user| Some(*user) != owner.chap_user.as_ref()) {
        return Ok(Some(Step::UnbindAccount(tid, stranger.clone())));
    }
    match target.luns.iter().find(|lun| lun.number == LUN) {
        None => return Ok(Some(Step::MakeLun(tid))),
        Some(lun) if volume.backing.to_str() != Some(&lun.path) => {
            let (volume, found) = (volume.name.clone(), lun.path.clone());
            return Err(KeeperError::OtherBacking { volume, tid, found });
        }
        Some(lun) if lun.serial != volume.name.as_str() => return Ok(Some(Step::NameLun(tid))),
        Some(_) => {}
    }
    Ok(match account {
        Some(account) => Some(Step::BindAccount(tid, account.clone())),
        None if target.rules.is_empty() => Some(Step::Bind(tid, owner.name.clone())),
        None => None,
    })
}

impl KeeperError {
    fn tgt(volume: &VolumeConfig, source: TgtError) -> KeeperError {
        KeeperError::Tgt { volume: volume.name.clone(), source }
    }

    fn snapshot(volume: &VolumeConfig, source: SnapshotError) -> KeeperError {
        KeeperError::Snapshot { volume: volume.name.clone(), source }
    }
}

/// One change of tgt; targets, sessions and connections by tgt's numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    MakeTarget,
    MakeLun(u32),
    NameLun(u32),
    BindAccount(u32, String),
    Bind(u32, String),
    Unbind(u32, String),
    EndConnection(u32, u64, u32),
    /// A session without a connection is about to end: the disk still has a command of it.
    Wait,
    UnbindAccount(u32, String),
    DeleteTarget(u32),
}

impl Step {
    /// Whether it takes something, which may have gone already.
    fn takes(&self) -> bool {
        match self {
            Step::Unbind(..) | Step::EndConnection(..) | Step::Wait => true,
            Step::UnbindAccount(..) | Step::DeleteTarget(_) => true,
            Step::MakeTarget | Step::MakeLun(_) | Step::NameLun(_) => false,
            Step::BindAccount(..) | Step::Bind(..) => false,
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Step::MakeTarget => write!(f, "make its target"),
            Step::MakeLun(tid) => write!(f, "make the logical unit of target {tid}"),
            Step::NameLun(tid) => write!(f, "name the logical unit of target {tid}"),
            Step::BindAccount(tid, user) => write!(f, "ask for account {user} at target {tid}"),
            Step::Bind(tid, holder) => write!(f, "give the right to target {tid} to {holder}"),
            Step::Unbind(tid, rule) => write!(f, "take the right to target {tid} from {rule}"),
            Step::EndConnection(tid, sid, cid) => {
                write!(f, "end connection {cid} of session {sid} with target {tid}")
            }
            Step::Wait => write!(f, "wait for a session to end"),
            Step::UnbindAccount(tid, user) => write!(f, "take account {user} from target {tid}"),
            Step::DeleteTarget(tid) => write!(f, "give up target {tid}"),
        }
    }
}
