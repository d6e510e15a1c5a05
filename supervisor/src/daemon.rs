//! Puts a member together and runs it until it is told to stop or cannot go on.
//!
//! Why it exists: the order matters: memory first, ears second, then the API, and readiness is said last. What it
//! never does: restart a part that failed; a process that exits is restarted whole by its service manager.

use crate::api::{self, ApiState};
use crate::auth::{AuthError, Tokens};
use crate::clouds::Clouds;
use crate::config::{Config, Home};
use crate::executor::Executor;
use crate::ingest::{Counters, Ears, Ingest, IngestError};
use crate::metrics::{Metrics, MetricsError};
use crate::notify;
use crate::outside::Devices;
use crate::runtime::{Runtime, Stopped};
use crate::seal::{Seal, SealError};
use crate::tenants::Tenants;
use crate::tls::{Credentials, TlsError};
use futures::future::OptionFuture;
use policies::View;
use raft_store::{BootstrapError, Flight, OpenError, Store, StoreEvent, Timing, Tls};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

/// Why a member did not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// An address in the configuration cannot be listened on.
    #[error("{key}: {why}")]
    Address {
        /// The key.
        key: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The certificates cannot be used.
    #[error("read this member's certificates")]
    Tls(#[source] TlsError),
    /// The sealing key cannot be used.
    #[error("read the sealing key")]
    Seal(#[source] SealError),
    /// The tokens cannot be used.
    #[error("read the API tokens")]
    Tokens(#[source] AuthError),
    /// The metrics could not be made.
    #[error("make the metrics")]
    Metrics(#[source] MetricsError),
    /// The memory does not open.
    #[error("open the store")]
    Open(#[source] OpenError),
    /// The new cluster could not begin.
    #[error("begin a new cluster")]
    Bootstrap(#[source] BootstrapError),
    /// The leave to begin a cluster could not be used up.
    #[error("remove {path}")]
    Founding {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Heartbeats cannot be heard.
    #[error("listen for heartbeats")]
    Ingest(#[source] IngestError),
    /// Something else has the address.
    #[error("listen on {address} for {what}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What for.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// It ran, and could not go on.
    #[error("this member had to stop")]
    Stopped(#[source] Stopped),
}

/// Copies of the brain that are waited for at a time; more callers wait in line.
const QUESTIONS_MAX: usize = 4;

/// Runs the member until `stop` becomes true.
///
/// # Errors
/// [`DaemonError`]: what was being done when it failed.
pub async fn run(home: &Home, config: Config, stop: watch::Receiver<bool>) -> Result<(), DaemonError> {
    let address = |(key, why)| DaemonError::Address { key, why };
    let credentials = Credentials::of_member(home).map_err(DaemonError::Tls)?;
    let seal = Seal::load(&home.seal_key(), &config.cluster.id).map_err(DaemonError::Seal)?;
    let tokens = Arc::new(Tokens::open(home.tokens()).map_err(DaemonError::Tokens)?);
    let metrics = Metrics::new(&config.cluster.name, config.me()).map_err(DaemonError::Metrics)?;

    let hears = config.member.heartbeat_socket().map_err(address)?;
    let heard = Arc::new(Counters::default());
    let (flight, tape) = Flight::open(home.flight(), config.flight.keep, config.flight.bytes_max);
    let ingest = Ingest::bind(hears, heard.clone()).map_err(DaemonError::Ingest)?;
    let ingest = ingest.recording(tape.clone()).answering(config.me());
    let serves = config.member.api_socket().map_err(address)?;
    let listener = listen(serves, "the API").await?;
    let boots = match config.member.boot_listen {
        Some(boots) => Some(listen(boots, "nodes that start").await?),
        None => None,
    };
    let (store, events) = open_store(home, &config, &credentials).await?;
    tracing::info!(member = %config.me(), api = %serves, heartbeats = %hears, "this member runs");

    let (view, viewed) = watch::channel(Arc::new(View::default()));
    let (ask, questions) = mpsc::channel(QUESTIONS_MAX);
    let state = ApiState {
        store: store.clone(),
        flight: flight.clone(),
        view: viewed,
        ask,
        seal: seal.clone(),
        metrics: metrics.clone(),
        tokens,
        tenants: Arc::new(Tenants::new(Clouds::new(seal.clone()))),
        config: Arc::new(config.clone()),
    };
    let tls = credentials.api_server().map_err(DaemonError::Tls)?;
    let boot =
        boots.map(|boots| api::serve(boots, None, config.api, api::boot_router(state.clone()), stop.clone()));
    let api = api::serve(listener, Some(tls), config.api, api::router(state), stop.clone());
    let api = tokio::spawn(async move {
        tokio::join!(api, OptionFuture::from(boot));
    });
    if let Err(error) = notify::ready() {
        tracing::warn!(%error, "tell systemd that we are ready");
    }
    let outside = Arc::new(Devices::new(seal.clone(), home.providers()));
    let executor = Executor::new(store.clone(), Arc::clone(&outside));
    let ears = Ears::of(|commands, batches| ingest.run(commands, batches));
    let (me, domain) = (config.me(), config.member.domain.clone());
    let runtime = Runtime {
        store: store.clone(),
        events,
        ears,
        heard,
        executor,
        outside,
        seal,
        metrics,
        view,
        questions,
        me,
        domain,
        tape,
    };
    let ended = runtime.run(stop).await;
    if let Err(error) = notify::stopping() {
        tracing::warn!(%error, "tell systemd that we stop");
    }
    if ended.is_err() {
        api.abort();
    }
    close_flight(flight).await;
    store.shutdown().await;
    match api.await {
        Ok(()) => {}
        Err(error) if error.is_cancelled() => {}
        Err(error) => return ended.and(Err(Stopped::Task(error))).map_err(DaemonError::Stopped),
    }
    ended.map_err(DaemonError::Stopped)
}

async fn listen(address: SocketAddr, what: &'static str) -> Result<TcpListener, DaemonError> {
    TcpListener::bind(address).await.map_err(|source| DaemonError::Listen { address, what, source })
}

/// Before the store, whose lock keeps the next process away: it would take files that are still open for damaged ones.
async fn close_flight(flight: Flight) {
    if let Err(error) = tokio::task::spawn_blocking(move || flight.close()).await {
        tracing::warn!(%error, "the flight record did not close cleanly");
    }
}

/// Opens the memory; begins the cluster if this is its first member's first start.
async fn open_store(
    home: &Home,
    config: &Config,
    credentials: &Credentials,
) -> Result<(Store, mpsc::UnboundedReceiver<StoreEvent>), DaemonError> {
    let times = config.raft;
    let timing = Timing {
        heartbeat: times.heartbeat,
        election_min: times.election_min,
        election_max: times.election_max,
        ..Timing::default()
    };
    let tls = Tls {
        server: credentials.member_server().map_err(DaemonError::Tls)?,
        client: credentials.member_client().map_err(DaemonError::Tls)?,
    };
    let listen = config.member.member_socket().map_err(|(key, why)| DaemonError::Address { key, why })?;
    let (store, events) = Store::open(raft_store::Config {
        dir: home.store(),
        me: config.me(),
        cluster: config.cluster.id.clone(),
        listen,
        tls,
        timing,
        snapshots: raft_store::Snapshots::default(),
        history_keep: config.history.keep,
    })
    .await
    .map_err(DaemonError::Open)?;
    let founding = home.founding();
    if founding.exists() {
        let me = raft_store::Member {
            id: config.me(),
            address: config.member.member_addr.clone(),
            api: config.member.api_addr.clone(),
            voter: true,
        };
        match store.bootstrap(&me).await {
            // It began, but the leave was not used up before the process ended: no harm.
            Ok(()) | Err(BootstrapError::NotEmpty) => {}
            Err(error) => return Err(DaemonError::Bootstrap(error)),
        }
        std::fs::remove_file(&founding)
            .map_err(|source| DaemonError::Founding { path: founding.display().to_string(), source })?;
    }
    Ok((store, events))
}
