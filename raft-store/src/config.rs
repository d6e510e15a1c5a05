//! What a member must know before it can open its memory.
//!
//! Why it exists: every number that election, lease and time limits depend on is in one place, with the relations
//! between them checked once, before anything is opened.
//! What it never does: read files or environment variables. The supervisor parses; this crate only checks.

use policies::{MemberId, Millis};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// How to open the memory of one member. Not `Debug`: it holds private keys.
#[derive(Clone)]
pub struct Config {
    /// Directory of this member alone. Made if it is absent.
    pub dir: PathBuf,
    /// Our id. Written into the store at its first opening; later openings must give the same.
    pub me: MemberId,
    /// Id of the cluster, 1 to 128 bytes. Said in every hello; a peer that says another is refused.
    pub cluster: String,
    /// Where to accept the traffic of other members. Port 0 takes a free one; see `Store::local_address`.
    pub listen: SocketAddr,
    /// Keys and certificates for the traffic between members.
    pub tls: Tls,
    /// Election and time limits.
    pub timing: Timing,
    /// When to make snapshots and how much log to keep behind them.
    pub snapshots: Snapshots,
    /// Days of history that are older than this are dropped. Losing history never affects the cluster.
    pub history_keep: Millis,
}

/// Mutual TLS. Both sides must demand a certificate of the cluster's authority; each certificate carries the DNS
/// name `member-<number>` of its owner as subject alternative name, and [`Config::me`] must match our own.
#[derive(Clone)]
pub struct Tls {
    /// For accepted connections; must require a client certificate.
    pub server: Arc<rustls::ServerConfig>,
    /// For our own connections; must present our certificate.
    pub client: Arc<rustls::ClientConfig>,
}

/// Election, lease and time limits.
///
/// With the defaults a dead leader is replaced 0.7 s to 1.0 s after its last heartbeat: followers first wait out its lease
/// (`election_max`), then a random time between `election_min` and `election_max`, rounded up to openraft's tick
/// (1.5 heartbeats).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats, and the time limit of one append or heartbeat call. openraft looks at its clock every
    /// 1.5 heartbeats. Lower costs CPU and lets a slow disk look like a dead leader; higher delays elections.
    pub heartbeat: Millis,
    /// The shortest time after which a follower may campaign, and the length of a leader's lease (R5).
    pub election_min: Millis,
    /// The longest such time; also how long a follower that heard the leader refuses to vote for anybody else
    /// (openraft 0.9.25 `engine_config.rs:56`, `engine_impl.rs:305`).
    pub election_max: Millis,
    /// After this long a proposal or barrier returns "outcome unknown".
    pub propose_limit: Millis,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            heartbeat: Millis(80),
            election_min: Millis(250),
            election_max: Millis(450),
            propose_limit: Millis(3000),
        }
    }
}

/// Compaction of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshots {
    /// A snapshot is made when this many entries were committed since the last. Lower costs writes of the whole
    /// state; higher makes opening slower, since these entries are applied again.
    pub after_entries: u64,
    /// This many entries stay in the log behind a snapshot, so that a member that was away for a moment need not be
    /// sent the whole state.
    pub keep_entries: u64,
}

impl Default for Snapshots {
    fn default() -> Self {
        Snapshots { after_entries: 5000, keep_entries: 1000 }
    }
}

/// What is wrong with a [`Config`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadConfig {
    /// A relation between two times does not hold.
    #[error("{what} is {found}, but must be {bound}: {why}")]
    Timing {
        /// The time that is wrong.
        what: &'static str,
        /// Its value.
        found: Millis,
        /// What it must be.
        bound: String,
        /// What breaks otherwise.
        why: &'static str,
    },
    /// The cluster id is empty or too long.
    #[error("the cluster id must have 1 to {CLUSTER_BYTES_MAX} bytes, but has {found}")]
    Cluster {
        /// Its length in bytes.
        found: usize,
    },
}

/// A cluster id fits a hello frame with room to spare.
pub(crate) const CLUSTER_BYTES_MAX: usize = 128;

impl Config {
    /// Checks what can be checked without touching anything.
    ///
    /// # Errors
    /// The first relation that does not hold.
    pub fn validate(&self) -> Result<(), BadConfig> {
        self.settings().validate()
    }

    /// The part that is not about this machine.
    pub(crate) fn settings(&self) -> Settings {
        let (me, cluster) = (self.me, self.cluster.clone());
        Settings { me, cluster, timing: self.timing, snapshots: self.snapshots }
    }
}

/// What a member must know whatever it stands on.
#[derive(Clone, Debug)]
pub struct Settings {
    /// See [`Config::me`].
    pub me: MemberId,
    /// See [`Config::cluster`].
    pub cluster: String,
    /// See [`Config::timing`].
    pub timing: Timing,
    /// See [`Config::snapshots`].
    pub snapshots: Snapshots,
}

impl Settings {
    pub(crate) fn validate(&self) -> Result<(), BadConfig> {
        if !(1..=CLUSTER_BYTES_MAX).contains(&self.cluster.len()) {
            return Err(BadConfig::Cluster { found: self.cluster.len() });
        }
        self.timing.validate()
    }
}

impl Timing {
    /// Checks the relations between the times.
    ///
    /// # Errors
    /// The first relation that does not hold.
    pub fn validate(&self) -> Result<(), BadConfig> {
        let at_least = |what, found: Millis, least: Millis, why| {
            if found >= least {
                return Ok(());
            }
            Err(BadConfig::Timing { what, found, bound: format!("at least {least}"), why })
        };
        at_least(
            "heartbeat",
            self.heartbeat,
            Millis(2),
            "openraft's tick is 1.5 heartbeats in whole milliseconds",
        )?;
        at_least(
            "election_min",
            self.election_min,
            Millis(self.heartbeat.0.saturating_mul(3)),
            "a lease must outlive one lost heartbeat, and heartbeats go out every 1.5 heartbeat intervals",
        )?;
        at_least(
            "election_max",
            self.election_max,
            Millis(self.election_min.0.saturating_add(self.heartbeat.0)),
            "election times are drawn between election_min and election_max; equal ones split the vote for ever",
        )?;
        at_least(
            "propose_limit",
            self.propose_limit,
            Millis(self.election_max.0.saturating_mul(2)),
            "a proposal must be able to survive an election",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_and_each_broken_relation_is_named() {
        let good = Timing::default();
        assert_eq!(good.validate(), Ok(()));
        let broken = [
            ("heartbeat", Timing { heartbeat: Millis(1), ..good }),
            ("election_min", Timing { election_min: Millis(239), ..good }),
            ("election_max", Timing { election_max: good.election_min, ..good }),
            ("propose_limit", Timing { propose_limit: Millis(899), ..good }),
        ];
        for (name, timing) in broken {
            let error = timing.validate().unwrap_err();
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }
}
