//! A member without its loop, for tests of the API and of `hactl`: real TLS, a real store, nobody who decides.

#![allow(dead_code, reason = "each test uses its own part")]

use policies::{BootId, Engine, Input, MemberId, Millis, Refusal, View};
use raft_store::{Flight, Member, Store, StoreEvent, Tape};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};
use supervisor::api::{self, ApiState};
use supervisor::auth::Tokens;
use supervisor::client::Client;
use supervisor::clouds::Clouds;
use supervisor::config::{Config, Home};
use supervisor::executor::Executor;
use supervisor::init::{self, Addresses};
use supervisor::metrics::Metrics;
use supervisor::outside::Devices;
use supervisor::runtime::Question;
use supervisor::seal::Seal;
use supervisor::tenants::Tenants;
use supervisor::{clock, tls};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

/// Everything here happens within milliseconds; the limit is for a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Daemon {
    pub(crate) home: Home,
    pub(crate) config: Arc<Config>,
    pub(crate) store: Store,
    /// Where its boot service listens: of all loopback addresses, QEMU's user network reaches this one.
    pub(crate) boot: SocketAddr,
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
    booting: tokio::task::JoinHandle<()>,
    pub(crate) flight: Flight,
    pub(crate) tape: Tape,
    _view: watch::Sender<Arc<View>>,
    _events: mpsc::UnboundedReceiver<StoreEvent>,
}

/// Each member of these tests has a loopback address of its own (all of 127.0.0.0/8 is local), so that no port that was
/// free a moment ago can be somebody else's by now.
pub(crate) fn addresses() -> Addresses {
    static MEMBERS: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, 64 + high % 64, low, MEMBERS.fetch_add(1, Ordering::Relaxed));
    let port = |port: u16| format!("{own}:{port}");
    Addresses { member: port(7101), api: port(7201), heartbeat: port(7301), domain: "default".into() }
}

impl Daemon {
    /// Everything of a member but the loop, in whose place a task answers questions from the committed state.
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
        let (ask, mut questions) = mpsc::channel::<Question>(1);
        let asked = store.clone();
        let seal = Seal::load(&home.seal_key(), &config.cluster.id).unwrap();
        let outside = Arc::new(Devices::new(seal.clone(), home.dir().join("programs")));
        let executor = Executor::new(store.clone(), outside);
        tokio::spawn(async move {
            while let Some(question) = questions.recv().await {
                let mut engine = Engine::new(MemberId(1), BootId(1), "default");
                let state = Box::new(asked.read(Clone::clone));
                engine.handle(clock::now(), Input::Installed(state));
                match question {
                    Question::Brain(answer) => drop(answer.send(engine)),
                    Question::Console(_, answer) => {
                        let console = fencing::Console::default();
                        console.opened(jiff::Timestamp::UNIX_EPOCH);
                        console.add(b"Kernel panic - not syncing\r\n");
                        drop(answer.send(Arc::new(console)));
                    }
                    Question::Census(cloud, deadline, answer) => {
                        let census = executor.census(engine.state(), &cloud, deadline);
                        drop(answer.send(census.await));
                    }
                    Question::Power(node, answer) => {
                        let levels = engine.state().nodes[&node].node.fencing.len();
                        let mute = || Err(Refusal::Unreachable("no BMC in this test".to_owned()));
                        drop(answer.send((0..levels).map(|_| mute()).collect()));
                    }
                }
            }
        });
        let (stop, stopped) = watch::channel(false);
        let (flight, tape) = Flight::open(home.flight(), Millis(86_400_000), 1 << 30);
        let state = ApiState {
            store: store.clone(),
            flight: flight.clone(),
            view,
            ask,
            seal: seal.clone(),
            metrics: Metrics::new(&config.cluster.name, config.me()).unwrap(),
            tokens: Arc::new(Tokens::open(home.tokens()).unwrap()),
            tenants: Arc::new(Tenants::new(Clouds::new(seal.clone()))),
            config: Arc::clone(&config),
        };
        let listen: SocketAddr = config.member.api_socket().unwrap();
        let listener = tokio::net::TcpListener::bind(listen).await.unwrap();
        let boot_router = api::boot_router(state.clone());
        let router = api::router(state);
        let serving = tokio::spawn(api::serve(
            listener,
            Some(credentials.api_server().unwrap()),
            config.api,
            router,
            stopped.clone(),
        ));
        let boot_listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let boot = boot_listener.local_addr().unwrap();
        let booting = tokio::spawn(api::serve(boot_listener, None, config.api, boot_router, stopped));
        Daemon {
            home,
            config,
            store,
            boot,
            stop,
            serving,
            booting,
            flight,
            tape,
            _view: view_sender,
            _events: events,
        }
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
        self.booting.await.unwrap();
        self.flight.close();
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
