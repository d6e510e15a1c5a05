//! Holds what is wished for, and makes tgt agree with it.
//!
//! What this is: one lock around the records and every change of tgt; [`Keeper::change`] for members, [`Keeper::tend`] for
//! the clock. Why it exists: tgt's rights must at all times be a subset of what is on disk, also when tgtd or we were killed
//! between any two steps. What it never does: it binds nobody but the recorded holder, and to no target but the recorded one.

use super::config::{Config, ConfigError, VolumeConfig, is_iscsi_name};
use super::record::{Generation, Record, RecordError, Store};
use super::show::Target;
use super::tgt::{LUN, Tgt, TgtError};
use crate::rack::{Conflict, NotThere, VolumeChange, VolumeState};
use policies::VolumeId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Longest time in which tgt is made to agree, for one volume; its steps take milliseconds. Then the member is told that
/// nobody knows, and the next [`Keeper::tend`] goes on.
const AGREE_MAX: Duration = Duration::from_secs(10);
/// Pause between two readings while a session ends.
const PAUSE: Duration = Duration::from_millis(5);

/// All volumes of this host.
#[derive(Debug)]
pub struct Keeper {
    config: Config,
    tgt: Tgt,
    book: Mutex<Book>,
}

#[derive(Debug)]
struct Book {
    store: Store,
    records: BTreeMap<VolumeId, Record>,
}

/// tgt could not be made to agree, or does not say.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
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
    #[error("volume {volume}: its holder {holder} is no [[initiator]] of the configuration")]
    Unknown {
        /// Which.
        volume: VolumeId,
        /// Who.
        holder: String,
    },
    /// The target offers something else.
    #[error("volume {volume}: its target offers {found}; stop ha-storage, delete the target, start again")]
    OtherBacking {
        /// Which.
        volume: VolumeId,
        /// Its backing.
        found: String,
    },
    /// It still does not agree.
    #[error("volume {volume}: tgt does not come to what is wished for; last: {last}")]
    Late {
        /// Which.
        volume: VolumeId,
        /// The step that was last tried.
        last: String,
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
        let record = |volume: &VolumeConfig| {
            Ok((volume.name.clone(), store.read(&volume.name)?.unwrap_or_default()))
        };
        let records = config.volumes.iter().map(record).collect::<Result<_, RecordError>>()?;
        Ok(Keeper { tgt: Tgt::new(&config), config, book: Mutex::new(Book { store, records }) })
    }

    /// Makes tgt agree for every volume; what went wrong with each.
    pub async fn tend(&self) -> Vec<KeeperError> {
        let mut book = self.book.lock().await;
        let mut errors = vec![];
        for volume in &self.config.volumes {
            errors.extend(self.agree(&mut book, volume).await.err());
        }
        errors
    }

    /// What tgt says of a volume now.
    ///
    /// # Errors
    /// [`ChangeError::NotThere`] if there is none, [`ChangeError::Unknown`] if tgt does not say.
    pub async fn look(&self, name: &str) -> Result<VolumeState, ChangeError> {
        let volume = self.volume(name)?;
        let book = self.book.lock().await;
        let targets = self.targets(volume).await.map_err(ChangeError::Unknown)?;
        let newest = book.records.get(&volume.name).cloned().unwrap_or_default().newest;
        let target = targets.iter().find(|target| target.name == volume.target);
        Ok(VolumeState { newest, ..target.map(|target| self.read(target)).unwrap_or_default() })
    }

    /// Writes the wish down, then makes tgt agree with it, then returns. Must not be cancelled: run it in a task of its own.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn change(&self, name: &str, change: &VolumeChange) -> Result<(), ChangeError> {
        let volume = self.volume(name)?;
        let mut book = self.book.lock().await;
        let record = book.records.get(&volume.name).cloned().unwrap_or_default();
        let next = self.wish(&record, change)?;
        if next != record {
            book.keep(volume, next).map_err(ChangeError::Unknown)?;
        }
        self.agree(&mut book, volume).await.map_err(ChangeError::Unknown)
    }

    fn volume(&self, name: &str) -> Result<&VolumeConfig, ChangeError> {
        let not_there = || ChangeError::NotThere(NotThere { error: format!("there is no volume {name}") });
        self.config.volume(name).ok_or_else(not_there)
    }

    /// The record after the change.
    fn wish(&self, record: &Record, change: &VolumeChange) -> Result<Record, ChangeError> {
        let (VolumeChange::Attach { initiator, token } | VolumeChange::Revoke { initiator, token }) = change;
        if *token < record.newest {
            return Err(ChangeError::Conflict(Conflict::TokenTooOld { newest: record.newest }));
        }
        let mut next = Record { newest: *token, ..record.clone() };
        match (change, &record.holder) {
            (VolumeChange::Attach { .. }, Some(holder)) if holder != initiator => {
                return Err(ChangeError::Conflict(Conflict::HeldByOther { holder: holder.clone() }));
            }
            (VolumeChange::Attach { .. }, Some(_) | None) => {
                if self.config.initiator(initiator).is_none() {
                    let why = format!("{initiator} is no [[initiator]] of the configuration");
                    return Err(ChangeError::BadWords(why));
                }
                next.holder = Some(initiator.clone());
            }
            (VolumeChange::Revoke { .. }, holder) => {
                if !is_iscsi_name(initiator) {
                    return Err(ChangeError::BadWords(format!("{initiator:?} is no iSCSI name")));
                }
                if holder.as_ref() == Some(initiator) {
                    next.holder = None;
                    next.target = Generation::Spent(record.target.last());
                }
            }
        }
        Ok(next)
    }

    async fn targets(&self, volume: &VolumeConfig) -> Result<Vec<Target>, KeeperError> {
        self.tgt.targets().await.map_err(|source| KeeperError::Tgt { volume: volume.name.clone(), source })
    }

    /// One step at a time, each followed by a new reading, until a reading is as wished.
    async fn agree(&self, book: &mut Book, volume: &VolumeConfig) -> Result<(), KeeperError> {
        let end = Instant::now() + AGREE_MAX;
        let mut last = None;
        loop {
            let targets = self.targets(volume).await?;
            let record = book.records.get(&volume.name).cloned().unwrap_or_default();
            let target = targets.iter().find(|target| target.name == volume.target);
            let step = self.step(volume, &record, target)?;
            if let Step::Done = step {
                return Ok(());
            }
            if Instant::now() >= end {
                let last = last.unwrap_or_else(|| step.to_string());
                return Err(KeeperError::Late { volume: volume.name.clone(), last });
            }
            let waits = matches!(step, Step::Wait);
            // A step may fail because the world has moved on meanwhile (a session that ended by itself); the next reading says
            // what there is to do now.
            if let Err(error) = self.go(book, volume, &record, &targets, &step).await? {
                last = Some(policies::causes(&error));
                tokio::time::sleep(PAUSE).await;
            } else if waits {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// What to do next. Taking comes before giving; who has lost a right loses the whole target.
    fn step(
        &self,
        volume: &VolumeConfig,
        record: &Record,
        target: Option<&Target>,
    ) -> Result<Step, KeeperError> {
        let Some(target) = target else { return Ok(Step::MakeTarget) };
        let tid = target.tid;
        let is_ours = record.target == Generation::Current(tid);
        let holder = record.holder.as_deref().filter(|_| is_ours);
        let account = holder.and_then(|name| self.config.initiator(name)).and_then(|i| i.chap_user.as_deref());
        if let Some(rule) = target.rules.iter().find(|rule| Some(rule.as_str()) != holder) {
            return Ok(Step::Unbind(tid, rule.clone()));
        }
        let is_open = account.is_some_and(|account| !target.accounts.iter().any(|name| name == account));
        if let (true, Some(rule)) = (is_open, target.rules.first()) {
            // Somebody took the account away: without it the name alone would do.
            return Ok(Step::Unbind(tid, rule.clone()));
        }
        let mut strangers = target.sessions.iter().filter(|session| Some(session.initiator.as_str()) != holder);
        if let Some(stranger) = strangers.next() {
            return Ok(match stranger.connections.first() {
                Some(cid) => Step::EndConnection(tid, stranger.sid, *cid),
                None => Step::Wait,
            });
        }
        if let Some(stranger) = target.accounts.iter().find(|name| Some(name.as_str()) != account) {
            return Ok(Step::UnbindAccount(tid, stranger.clone()));
        }
        if !is_ours {
            return Ok(Step::DeleteTarget(tid));
        }
        match target.luns.iter().find(|lun| lun.number == LUN) {
            None => return Ok(Step::MakeLun(tid)),
            Some(lun) if volume.backing.to_str() != Some(&lun.path) => {
                let (volume, found) = (volume.name.clone(), lun.path.clone());
                return Err(KeeperError::OtherBacking { volume, found });
            }
            Some(lun) if lun.serial != volume.name.as_str() => return Ok(Step::NameLun(tid)),
            Some(_) => {}
        }
        match (holder, account) {
            (None, _) => Ok(Step::Done),
            (Some(_), Some(account)) if is_open => Ok(Step::BindAccount(tid, account.to_owned())),
            (Some(_), _) if !target.rules.is_empty() => Ok(Step::Done),
            (Some(holder), _) if self.config.initiator(holder).is_none() => {
                Err(KeeperError::Unknown { volume: volume.name.clone(), holder: holder.to_owned() })
            }
            (Some(holder), _) => Ok(Step::Bind(tid, holder.to_owned())),
        }
    }

    async fn go(
        &self,
        book: &mut Book,
        volume: &VolumeConfig,
        record: &Record,
        targets: &[Target],
        step: &Step,
    ) -> Result<Result<(), TgtError>, KeeperError> {
        tracing::info!(volume = %volume.name, "{step}");
        let tgt = &self.tgt;
        Ok(match step {
            Step::MakeTarget => {
                let used = book.records.values().map(|record| record.target.last());
                let tid = used.chain(targets.iter().map(|target| target.tid)).max().unwrap_or(0) + 1;
                book.keep(volume, Record { target: Generation::Current(tid), ..record.clone() })?;
                tgt.make_target(tid, volume).await
            }
            Step::MakeLun(tid) => tgt.make_lun(*tid, volume).await,
            Step::NameLun(tid) => tgt.name_lun(*tid, volume).await,
            Step::DeleteTarget(tid) => tgt.delete_target(*tid).await,
            Step::Unbind(tid, rule) => tgt.unbind(*tid, rule).await,
            Step::UnbindAccount(tid, user) => tgt.unbind_account(*tid, user).await,
            Step::EndConnection(tid, sid, cid) => tgt.end_connection(*tid, *sid, *cid).await,
            Step::BindAccount(tid, user) => {
                let made = match self.tgt.accounts().await {
                    Ok(accounts) if accounts.contains(user) => Ok(()),
                    Ok(_) => self.make_account(volume, record, user).await?,
                    Err(error) => Err(error),
                };
                match made {
                    Ok(()) => tgt.bind_account(*tid, user).await,
                    Err(error) => Err(error),
                }
            }
            Step::Bind(tid, holder) => tgt.bind(*tid, holder).await,
            Step::Wait | Step::Done => Ok(()),
        })
    }

    async fn make_account(
        &self,
        volume: &VolumeConfig,
        record: &Record,
        user: &str,
    ) -> Result<Result<(), TgtError>, KeeperError> {
        let initiator = record.holder.as_deref().and_then(|holder| self.config.initiator(holder));
        let chap = initiator.map_or(Ok(None), |initiator| initiator.chap());
        let chap = chap.map_err(|source| KeeperError::Secret { volume: volume.name.clone(), source })?;
        match chap {
            Some((_, secret)) => Ok(self.tgt.make_account(user, &secret).await),
            None => Ok(Ok(())),
        }
    }

    /// A right that is only half there, or that asks for no secret where there is one, is said with words that are no
    /// initiator's name: it is neither attached nor revoked.
    fn read(&self, target: &Target) -> VolumeState {
        let mut holders: BTreeSet<String> = target.rules.iter().cloned().collect();
        for initiator in &self.config.initiators {
            let Some(user) = &initiator.chap_user else { continue };
            let is_named = target.rules.contains(&initiator.name);
            match (is_named, target.accounts.contains(user)) {
                (true, true) | (false, false) => {}
                (true, false) => drop(holders.insert(format!("{} without account", initiator.name))),
                (false, true) => {
                    holders.extend([initiator.name.clone(), format!("account {user} without name")]);
                }
            }
        }
        let sessions: BTreeSet<String> = target.sessions.iter().map(|session| session.initiator.clone()).collect();
        VolumeState {
            holders: holders.into_iter().collect(),
            sessions: sessions.into_iter().collect(),
            ..VolumeState::default()
        }
    }
}

impl Book {
    /// On disk first, then in memory.
    fn keep(&mut self, volume: &VolumeConfig, record: Record) -> Result<(), KeeperError> {
        self.store.keep(&volume.name, &record).map_err(KeeperError::Record)?;
        self.records.insert(volume.name.clone(), record);
        Ok(())
    }
}

/// One change of tgt.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    MakeTarget,
    MakeLun(u32),
    NameLun(u32),
    DeleteTarget(u32),
    Unbind(u32, String),
    UnbindAccount(u32, String),
    EndConnection(u32, u64, u32),
    BindAccount(u32, String),
    Bind(u32, String),
    /// A session without a connection is about to end.
    Wait,
    Done,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Step::MakeTarget => write!(f, "make its target"),
            Step::MakeLun(tid) => write!(f, "make the logical unit of target {tid}"),
            Step::NameLun(tid) => write!(f, "name the logical unit of target {tid}"),
            Step::DeleteTarget(tid) => write!(f, "give up target {tid}"),
            Step::Unbind(tid, rule) => write!(f, "take the right to target {tid} from {rule}"),
            Step::UnbindAccount(tid, user) => write!(f, "take account {user} from target {tid}"),
            Step::EndConnection(tid, sid, cid) => {
                write!(f, "end connection {cid} of session {sid} with target {tid}")
            }
            Step::BindAccount(tid, user) => write!(f, "ask for account {user} at target {tid}"),
            Step::Bind(tid, holder) => write!(f, "give the right to target {tid} to {holder}"),
            Step::Wait => write!(f, "wait for a session to end"),
            Step::Done => write!(f, "nothing to do"),
        }
    }
}
