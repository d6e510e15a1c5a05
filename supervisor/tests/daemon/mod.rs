//! A member without its loop, for tests of the API and of `hactl`: real TLS, a real store, nobody who decides.

#![allow(dead_code, reason = "each test uses its own part")]

use policies::{MemberId, Millis, View};
use raft_store::{Member, Store, StoreEvent};
use socket2::{Domain, Socket, Type};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use supervisor::api::{self, ApiState};
use supervisor::auth::Tokens;
use supervisor::client::Client;
use supervisor::config::{Config, Home};
use supervisor::init::{self, Addresses};
use supervisor::metrics::Metrics;
use supervisor::seal::Seal;
use supervisor::tls;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

/// Everything here happens within milliseconds; the limit is for a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Daemon {
    pub(crate) home: Home,
    pub(crate) config: Arc<Config>,
    pub(crate) store: Store,
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
    _view: watch::Sender<Arc<View>>,
    _events: mpsc::UnboundedReceiver<StoreEvent>,
}

/// Below Linux's own range (32768 and up), which any outgoing connection of another test may take meanwhile.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Ports that were given away; their owners may not have bound them yet.
static DRAWN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// An address that is free for TCP and UDP. The probe does not listen: a process that is being started at this moment
/// inherits it until its exec.
pub(crate) fn free_tcp() -> String {
    loop {
        let port = rand::random_range(PORTS);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let probe = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        probe.set_reuse_address(true).unwrap();
        let is_free = probe.bind(&address.into()).is_ok() && UdpSocket::bind(address).is_ok();
        if is_free && DRAWN.lock().unwrap().insert(port) {
            return address.to_string();
        }
    }
}

pub(crate) fn addresses() -> Addresses {
    Addresses { member: free_tcp(), api: free_tcp(), heartbeat: free_tcp(), domain: "default".into() }
}

impl Daemon {
    /// Everything of a member but the loop: the API has no need of it.
    pub(crate) async fn start(home: Home) -> Daemon {
        let config = Arc::new(Config::load(&home).unwrap());
        let credentials = tls::Credentials::of_member(&home).unwrap();
        let (store, events) = Store::open(raft_store::Config {
            dir: home.store(),
            me: config.me(),
            cluster: config.cluster.id.clone(),
            listen: config.member.member_socket().unwrap(),
            tls: raft_store::Tls {
                server: credentials.member_server().unwrap(),
                client: credentials.member_client().unwrap(),
            },
            timing: raft_store::Timing::default(),
            snapshots: raft_store::Snapshots::default(),
            history_keep: Millis(86_400_000),
        })
        .await
        .unwrap();
        if home.founding().exists() {
            let (address, api) = (config.member.member_addr.clone(), config.member.api_addr.clone());
            store.bootstrap(&Member { id: config.me(), address, api, voter: true }).await.unwrap();
        }
        let (view_sender, view) = watch::channel(Arc::new(View::default()));
        let (stop, stopped) = watch::channel(false);
        let state = ApiState {
            store: store.clone(),
            view,
            seal: Seal::load(&home.seal_key(), &config.cluster.id).unwrap(),
            metrics: Metrics::new(&config.cluster.name, config.me()).unwrap(),
            tokens: Arc::new(Tokens::open(home.tokens()).unwrap()),
            config: Arc::clone(&config),
        };
        let listen: SocketAddr = config.member.api_socket().unwrap();
        let listener = tokio::net::TcpListener::bind(listen).await.unwrap();
        let router = api::router(state);
        let serving = tokio::spawn(api::serve(
            listener,
            credentials.api_server().unwrap(),
            config.api,
            router,
            stopped,
        ));
        Daemon { home, config, store, stop, serving, _view: view_sender, _events: events }
    }

    pub(crate) fn client(&self) -> Client {
        Client::open(&self.home.hactl(), PATIENCE).unwrap()
    }

    pub(crate) async fn leads(&self) {
        until("it leads", || self.store.is_leader()).await;
    }

    pub(crate) async fn end(self) {
        self.stop.send_replace(true);
        self.serving.await.unwrap();
        self.store.shutdown().await;
    }
}

pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::task::yield_now().await;
    }
}

pub(crate) async fn one_member() -> (TempDir, Daemon) {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::new(dir.path().join("m1"));
    init::init(&home, MemberId(1), "test", addresses(), jiff::Timestamp::now()).unwrap();
    let daemon = Daemon::start(home).await;
    daemon.leads().await;
    (dir, daemon)
}

/// A context with a token in place of the certificate.
pub(crate) fn token_context(daemon: &Daemon, token: &str) -> PathBuf {
    let dir = daemon.home.dir();
    std::fs::write(dir.join("token"), token).unwrap();
    let path = dir.join("token.toml");
    let api = &daemon.config.member.api_addr;
    std::fs::write(
        &path,
        format!("endpoints = [\"https://{api}\"]\nca = \"ca.pem\"\ntoken_file = \"token\"\n"),
    )
    .unwrap();
    path
}

/// Runs the real `hactl` against the daemon.
pub(crate) fn hactl(daemon: &Daemon, args: &[&str]) -> Output {
    hactl_with_editor(daemon, args, "true")
}

pub(crate) fn hactl_with_editor(daemon: &Daemon, args: &[&str], editor: &str) -> Output {
    let mut command = hactl_command(daemon, args);
    tokio::task::block_in_place(|| command.env("EDITOR", editor).output()).unwrap()
}

pub(crate) fn hactl_command(daemon: &Daemon, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hactl"));
    command.env_clear().env("HACTL_CONFIG", daemon.home.hactl()).env("TZ", "UTC").args(args);
    command
}
