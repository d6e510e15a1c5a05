//! The hand that moves: volumes, networks, boot.
//!
//! What this is: the back ends that give a node its volumes, switch ports and boot source and take them away, and
//! [`carry_out`], the one algorithm by which every such change is made.
//! Why it exists: a storage array that says "accepted" has not changed anything yet. Here an effect ends as done only
//! when the wished-for state was read back, as refused only when it certainly did not happen, and else as unknown.
//! What it never does: it decides nothing, retries no change on its own, and undoes nothing.

pub mod boot;
mod carry_out;
mod check;
pub mod exec;
pub mod inventory;
pub mod ipxe;
pub mod iscsi;
pub mod openstack;
pub mod ovsdb;
mod program;
pub mod rack;
pub mod storage;
mod wish;

pub use carry_out::carry_out;
pub use check::check;
pub use wish::Wish;

use ::openstack::{Cloud, Settings};
use policies::{Check, Doubt, Finding, LogIndex, Millis, Outcome, Permit, ProviderKind, Refusal};
use std::future::Future;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// Who asks, as back ends must know us.
#[derive(Clone, Copy, Debug)]
pub struct Us<'a> {
    /// The id of our cluster, in whose name a cloud's nodes are claimed.
    pub cluster: &'a str,
    /// Where the programs of `exec` providers are.
    pub programs: &'a Path,
}

impl Us<'_> {
    /// Whoever is a member of no cluster, and has no programs.
    pub fn nobody() -> Us<'static> {
        Us { cluster: "nobody", programs: Path::new("/nowhere") }
    }
}

/// A configured back end. Closed, so that adding a kind makes the compiler show every place that has to know it.
/// Cheap to clone; clones share their connections, so build one per configured provider and keep it.
#[derive(Clone, Debug)]
pub enum Backend {
    /// The emulated rack.
    Rack(rack::Rack),
    /// A switch with an OVSDB database.
    Ovsdb(ovsdb::Ovsdb),
    /// The members' own boot service.
    Boot(boot::Boot),
    /// A site's own program.
    Exec(exec::Exec),
    /// A storage host with tgt.
    Iscsi(iscsi::Iscsi),
    /// An OpenStack cloud.
    Openstack(openstack::Openstack),
}

/// Whoever keeps volumes, networks or boot sources and can be asked for a state of them.
pub trait Provider: Send + Sync {
    /// Reads whether the wished-for state holds. Changes nothing.
    ///
    /// # Errors
    /// [`ProviderError`] if it could not be read by the deadline.
    fn look(
        &self,
        wish: &Wish,
        deadline: Instant,
    ) -> impl Future<Output = Result<State, ProviderError>> + Send;

    /// Reads whether an object that a failover will need is there and works, as far as that can be seen. Changes nothing.
    /// A third method, for what is asked here is about no wish: there is no node, no epoch and no token yet. What the
    /// provider does not know it must not guess: a port that is shut down has no link and may be fine.
    ///
    /// # Errors
    /// [`ProviderError`] if there was no answer that says yes or no.
    fn check(
        &self,
        check: &Check,
        deadline: Instant,
    ) -> impl Future<Output = Result<Finding, ProviderError>> + Send;

    /// Reads what nodes there are and what they have. Changes nothing. For clouds; no other provider keeps a list of nodes.
    ///
    /// # Errors
    /// [`ProviderError`] if there is no list, or it could not be read by the deadline.
    fn census(
        &self,
        _deadline: Instant,
    ) -> impl Future<Output = Result<inventory::Census, ProviderError>> + Send {
        async { Err(no_census()) }
    }

    /// The pause before it is read again, after so long a wait.
    fn pause(&self, waited: Duration) -> Duration {
        carry_out::pause(waited)
    }

    /// Asks once for the wished-for state. `Ok` is an acknowledgement and proves nothing.
    /// The permit is asked right before the request is handed to the connection (R5); the token goes with it (R8).
    ///
    /// # Errors
    /// [`ProviderError::Refused`] and [`ProviderError::Unreachable`] if it certainly did not happen;
    /// the others if we cannot tell.
    fn act(
        &self,
        wish: &Wish,
        token: LogIndex,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> impl Future<Output = Result<(), ProviderError>> + Send;
}

/// What a back end read of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// How near it is to what is wished.
    pub stage: Stage,
    /// The reading, in the provider's words, for people.
    pub reading: String,
}

/// How near an object is to what is wished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is as wished.
    There,
    /// Not yet, or it was not asked for.
    NotYet,
    /// Not, and nobody is at it; asking twice does no harm, however late the first comes.
    Idle,
    /// What was asked for last has failed, and nothing more comes of it by itself.
    Failed,
}

impl State {
    /// One that is as wished, or is not yet.
    pub fn new(holds: bool, reading: String) -> State {
        State { stage: if holds { Stage::There } else { Stage::NotYet }, reading }
    }

    /// One that is not as wished, and that the provider does nothing about.
    pub fn idle(reading: String) -> State {
        State { stage: Stage::Idle, reading }
    }

    /// One at which the provider has failed.
    pub fn failed(reading: String) -> State {
        State { stage: Stage::Failed, reading }
    }
}

/// What a library said.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a back end could not look or act.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// No connection: nothing was sent.
    #[error("{doing}: cannot connect")]
    Unreachable {
        /// What we were doing.
        doing: String,
        /// Why not.
        source: Cause,
    },
    /// The request may have been received, but no answer came.
    #[error("{doing}: no answer")]
    NoAnswer {
        /// What we were doing.
        doing: String,
        /// How the wait ended; absent if it was the deadline.
        source: Option<Cause>,
    },
    /// There was an answer, but it says neither yes nor no.
    #[error("{doing}: cannot understand the answer: {why}")]
    Garbled {
        /// What we were doing.
        doing: String,
        /// What is wrong with it.
        why: String,
    },
    /// It did not happen.
    #[error("{doing}: {why}")]
    Refused {
        /// What we were doing.
        doing: String,
        /// Why not.
        why: Refusal,
    },
    /// The configuration of the provider cannot be used.
    #[error("configure provider: {0}")]
    Configuration(String),
}

impl ProviderError {
    /// The refusal to report if this error ended an exchange that changes nothing (a look).
    fn into_refusal(self) -> Refusal {
        match self {
            ProviderError::Refused { why, .. } => why,
            ProviderError::Unreachable { .. }
            | ProviderError::NoAnswer { .. }
            | ProviderError::Garbled { .. } => Refusal::Unreachable(policies::causes(&self)),
            ProviderError::Configuration(why) => Refusal::NotConfigured(why),
        }
    }
}

impl Backend {
    /// Builds the back end for a configured provider, for us. `secret` is the opened secret of its configuration.
    ///
    /// # Errors
    /// [`ProviderError::Configuration`] if the address or the secret cannot be used.
    pub fn from_config(kind: &ProviderKind, secret: &[u8], us: Us<'_>) -> Result<Self, ProviderError> {
        match kind {
            ProviderKind::Rack { url, token: _ } => Ok(Backend::Rack(rack::Rack::new(url, secret)?)),
            ProviderKind::Ovsdb { url, park_vlan, tls } => {
                let settings = ovsdb::Settings {
                    url,
                    park_vlan: *park_vlan,
                    ca: tls.as_ref().map(|tls| tls.ca.as_str()),
                    certificate: tls.as_ref().map(|tls| tls.certificate.as_str()),
                    key: secret,
                };
                Ok(Backend::Ovsdb(ovsdb::Ovsdb::new(&settings)?))
            }
            ProviderKind::Boot { urls, images } => {
                Ok(Backend::Boot(boot::Boot::new(urls, images.keys().cloned().collect())?))
            }
            ProviderKind::Exec { program, settings, secret: _ } => {
                Ok(Backend::Exec(exec::Exec::new(program, settings, secret, us.programs)?))
            }
            ProviderKind::Iscsi { url, ca, token: _ } => {
                Ok(Backend::Iscsi(iscsi::Iscsi::new(url, ca.as_deref(), secret)?))
            }
            ProviderKind::Openstack { cloud, secret: _, deployments } => {
                let cloud = Settings::new(cloud, secret).and_then(Cloud::new)?;
                Ok(Backend::Openstack(openstack::Openstack::new(cloud, deployments.clone(), us.cluster)))
            }
        }
    }
}

impl Provider for Backend {
    async fn look(&self, wish: &Wish, deadline: Instant) -> Result<State, ProviderError> {
        match self {
            Backend::Rack(rack) => rack.look(wish, deadline).await,
            Backend::Ovsdb(ovsdb) => ovsdb.look(wish, deadline).await,
            Backend::Boot(boot) => boot.look(wish, deadline).await,
            Backend::Exec(exec) => exec.look(wish, deadline).await,
            Backend::Iscsi(iscsi) => iscsi.look(wish, deadline).await,
            Backend::Openstack(cloud) => cloud.look(wish, deadline).await,
        }
    }

    async fn check(&self, check: &Check, deadline: Instant) -> Result<Finding, ProviderError> {
        match self {
            Backend::Rack(rack) => rack.check(check, deadline).await,
            Backend::Ovsdb(ovsdb) => ovsdb.check(check, deadline).await,
            Backend::Boot(boot) => boot.check(check, deadline).await,
            Backend::Exec(exec) => exec.check(check, deadline).await,
            Backend::Iscsi(iscsi) => iscsi.check(check, deadline).await,
            Backend::Openstack(cloud) => cloud.check(check, deadline).await,
        }
    }

    async fn census(&self, deadline: Instant) -> Result<inventory::Census, ProviderError> {
        match self {
            Backend::Openstack(cloud) => cloud.census(deadline).await,
            Backend::Rack(_)
            | Backend::Ovsdb(_)
            | Backend::Boot(_)
            | Backend::Exec(_)
            | Backend::Iscsi(_) => Err(no_census()),
        }
    }

    fn pause(&self, waited: Duration) -> Duration {
        match self {
            Backend::Openstack(_) => ::openstack::pause(waited),
            Backend::Rack(_)
            | Backend::Ovsdb(_)
            | Backend::Boot(_)
            | Backend::Exec(_)
            | Backend::Iscsi(_) => carry_out::pause(waited),
        }
    }

    async fn act(
        &self,
        wish: &Wish,
        token: LogIndex,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), ProviderError> {
        match self {
            Backend::Rack(rack) => rack.act(wish, token, permit, deadline).await,
            Backend::Ovsdb(ovsdb) => ovsdb.act(wish, token, permit, deadline).await,
            Backend::Boot(boot) => boot.act(wish),
            Backend::Exec(exec) => exec.act(wish, token, permit, deadline).await,
            Backend::Iscsi(iscsi) => iscsi.act(wish, token, permit, deadline).await,
            Backend::Openstack(cloud) => cloud.act(wish, permit, deadline).await,
        }
    }
}

/// For providers that are no clouds.
fn no_census() -> ProviderError {
    ProviderError::Configuration("it keeps no inventory of nodes: only a cloud does".to_owned())
}

/// For what no other provider can.
fn clouds_only(wish: &Wish) -> ProviderError {
    ProviderError::Configuration(format!("only a cloud can {wish}"))
}

/// Time since `start` in our unit.
fn waited(start: Instant) -> Millis {
    Millis(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX))
}

/// The outcome when nothing told us whether the change happened.
fn no_answer(start: Instant) -> Outcome {
    Outcome::Unknown(Doubt::NoAnswer { waited: waited(start) })
}
