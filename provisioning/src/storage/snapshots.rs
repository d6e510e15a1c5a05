//! Snapshots of volumes, made by the site's own program.
//!
//! What this is: `snapshot_program` with its three verbs: `create`, `list`, `delete` (`docs/drivers/iscsi.md`).
//! Why it exists: whether a backing is LVM, ZFS or a file only the storage host's administrator knows.
//! What it never does: take another's snapshot for one of ours, or give the program a name that is not ours.

use super::config::{Config, VolumeConfig};
use crate::program::{Ended, Run};
use policies::{SnapshotName, VolumeId};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout_at};

/// Longest time of one run. Snapshots that are worth the name take moments, and the policy's `takeover.snapshot_max` is what
/// a failover waits; this is for a program that hangs while the member waits on. Longer than a request makes no sense.
const RUN_MAX: Duration = Duration::from_secs(20);

/// Who makes snapshots here.
#[derive(Debug)]
pub(super) struct Snapshots {
    program: PathBuf,
    /// One at a time for each volume and kind; volumes do not wait for each other, and a failover does not for a backup.
    turns: BTreeMap<VolumeId, Turns>,
}

/// Of one volume.
#[derive(Debug, Default)]
struct Turns {
    failover: Mutex<()>,
    backup: Mutex<()>,
}

/// The program did not do it.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It could not be run.
    #[error("{doing}: run {}", program.display())]
    Run {
        /// What we were doing.
        doing: String,
        /// The program.
        program: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It took too long and was ended.
    #[error("{doing}: {} did not end within {RUN_MAX:?}", program.display())]
    Late {
        /// What we were doing.
        doing: String,
        /// The program.
        program: PathBuf,
    },
    /// It said no.
    #[error("{doing}: {} failed: {said}", program.display())]
    Failed {
        /// What we were doing.
        doing: String,
        /// The program.
        program: PathBuf,
        /// In its words.
        said: String,
    },
    /// It says that it is done and lists no such snapshot.
    #[error("{doing}: {} succeeded, and does not list it", program.display())]
    NotListed {
        /// What we were doing.
        doing: String,
        /// The program.
        program: PathBuf,
    },
}

impl Snapshots {
    /// The program that the configuration names, if it names one.
    pub(super) fn new(config: &Config) -> Option<Snapshots> {
        let program = config.snapshot_program.clone()?;
        let turns = config.volumes.iter().map(|volume| (volume.name.clone(), Turns::default()));
        Some(Snapshots { program, turns: turns.collect() })
    }

    /// Nobody else makes or deletes snapshots of this volume and of the kind of `name` meanwhile.
    pub(super) async fn turn(&self, volume: &VolumeConfig, name: SnapshotName) -> Option<MutexGuard<'_, ()>> {
        let turns = self.turns.get(&volume.name)?;
        Some(match name {
            SnapshotName::Failover(_) => turns.failover.lock().await,
            SnapshotName::Backup(_) => turns.backup.lock().await,
        })
    }

    /// Those of ours. A line that is not exactly a name of ours is another's.
    pub(super) async fn list(&self, volume: &VolumeConfig) -> Result<BTreeSet<SnapshotName>, SnapshotError> {
        let doing = format!("list snapshots of {}", volume.name);
        let answer = self.run(&doing, "list", volume, None).await?;
        Ok(String::from_utf8_lossy(&answer).lines().filter_map(|line| line.trim().parse().ok()).collect())
    }

    /// Makes it, and sees it listed.
    pub(super) async fn create(
        &self,
        volume: &VolumeConfig,
        name: SnapshotName,
    ) -> Result<(), SnapshotError> {
        let doing = format!("make snapshot {name} of {}", volume.name);
        self.run(&doing, "create", volume, Some(name)).await?;
        match self.list(volume).await?.contains(&name) {
            true => Ok(()),
            false => Err(SnapshotError::NotListed { doing, program: self.program.clone() }),
        }
    }

    /// Deletes one of ours.
    pub(super) async fn delete(
        &self,
        volume: &VolumeConfig,
        name: SnapshotName,
    ) -> Result<(), SnapshotError> {
        let doing = format!("delete snapshot {name} of {}", volume.name);
        self.run(&doing, "delete", volume, Some(name)).await.map(drop)
    }

    /// One run: what it prints.
    async fn run(
        &self,
        doing: &str,
        verb: &str,
        volume: &VolumeConfig,
        name: Option<SnapshotName>,
    ) -> Result<Vec<u8>, SnapshotError> {
        let (doing, program) = (doing.to_owned(), self.program.clone());
        let name = name.map(|name| name.to_string());
        let words = [verb.as_ref(), volume.name.as_str().as_ref(), volume.backing.as_os_str()];
        let words = words.into_iter().chain(name.as_deref().map(OsStr::new));
        let mut run = match Run::start(&self.program, words) {
            Ok(run) => run,
            Err(source) => return Err(SnapshotError::Run { doing, program, source }),
        };
        match timeout_at(Instant::now() + RUN_MAX, run.talk(&[])).await {
            Ok(Ok(Ended { answer, success: true, .. })) => Ok(answer),
            Ok(Ok(Ended { complaint, .. })) => Err(SnapshotError::Failed { doing, program, said: complaint }),
            Ok(Err(source)) => Err(SnapshotError::Run { doing, program, source }),
            Err(_) => Err(SnapshotError::Late { doing, program }),
        }
    }
}

/// Whether the program works: how many snapshots of ours there are, of all volumes. None: there is no program.
///
/// # Errors
/// [`SnapshotError`] of the first volume of which it does not say.
pub async fn check_snapshots(config: &Config) -> Result<Option<usize>, SnapshotError> {
    let Some(snapshots) = Snapshots::new(config) else { return Ok(None) };
    let mut ours = 0;
    for volume in &config.volumes {
        ours += snapshots.list(volume).await?.len();
    }
    Ok(Some(ours))
}
