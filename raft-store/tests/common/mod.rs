//! A cluster on loopback, in one process, with real TLS and real disks.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of this harness")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a harness that fails should stop the test")]

use policies::{Command, LogIndex, MemberId, Millis, Proposal, Wall};
use raft_store::{Config, Member, Snapshots, Store, StoreEvent, Timing, Tls};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::mpsc::UnboundedReceiver;

/// Longer than any healthy step on a machine that is busy with six other builds.
pub const PATIENCE: Duration = Duration::from_secs(30);

const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Short enough for quick tests, long enough for a busy machine.
pub const TIMING: Timing = Timing {
    heartbeat: Millis(60),
    election_min: Millis(300),
    election_max: Millis(600),
    propose_limit: Millis(3000),
};

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Authority { issuer: Issuer::new(params, key), certificate }
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        Arc::new(roots)
    }

    /// A client that trusts this authority and shows no certificate.
    pub fn anonymous(&self) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        Arc::new(client.unwrap().with_root_certificates(self.roots()).with_no_client_auth())
    }

    /// Mutual TLS for whoever is called `name`.
    pub fn tls(&self, name: &str) -> Tls {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let chain = vec![params.signed_by(&key, &self.issuer).unwrap().der().clone()];
        let key = || PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots(), Arc::clone(&provider));
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(chain.clone(), key())
            .unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots())
            .with_client_auth_cert(chain, key())
            .unwrap();
        Tls { server: Arc::new(server), client: Arc::new(client) }
    }
}

/// One member that can be stopped and started again.
pub struct Node {
    pub id: MemberId,
    pub dir: PathBuf,
    pub config: Config,
    pub store: Store,
    pub events: UnboundedReceiver<StoreEvent>,
}

impl Node {
    pub fn member(&self) -> Member {
        let address = self.config.listen.to_string();
        Member { id: self.id, address, api: format!("api-of-{}", self.id), voter: true }
    }

    /// Stops it, as a process that ends.
    pub async fn stop(&self) {
        self.store.shutdown().await;
    }

    /// Starts it again on the same disk and address.
    pub async fn start(&mut self) {
        let config = self.config.clone();
        let opened = Store::open(config).await;
        (self.store, self.events) = opened.unwrap();
    }

    /// The text of each remark that was applied since the last call, in order.
    pub fn applied(&mut self) -> Vec<String> {
        let mut texts = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            if let StoreEvent::Applied { proposal, .. } = event {
                texts.extend(text_of(&proposal));
            }
        }
        texts
    }
}

pub fn text_of(proposal: &Proposal) -> Option<String> {
    if let Command::Note { text } = &proposal.command { Some(text.clone()) } else { None }
}

pub fn note(text: impl Into<String>) -> Proposal {
    Proposal { at: Wall(1_790_000_000_000), by: "test".into(), command: Command::Note { text: text.into() } }
}

pub fn config(dir: &Path, id: MemberId, tls: Tls) -> Config {
    Config {
        dir: dir.to_owned(),
        me: id,
        cluster: "rack-7".into(),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        tls,
        timing: TIMING,
        snapshots: Snapshots { after_entries: 40, keep_entries: 10 },
        history_keep: Millis::secs(7 * 86_400),
    }
}

/// Several members and the authority that vouches for them.
pub struct Cluster {
    pub authority: Authority,
    pub home: TempDir,
    pub nodes: Vec<Node>,
}

impl Cluster {
    /// A cluster with `voters` voters, one of which leads.
    pub async fn new(voters: u64) -> Cluster {
        let home = tempfile::tempdir().unwrap();
        let mut cluster = Cluster { authority: Authority::new(), home, nodes: Vec::new() };
        cluster.spawn(1).await;
        let first = &cluster.nodes[0];
        first.store.bootstrap(&first.member()).await.unwrap();
        until("the first member leads", || first.store.is_leader()).await;
        for id in 2..=voters {
            cluster.spawn(id).await;
            cluster.join(id).await;
        }
        cluster
    }

    /// Starts a member that belongs to nothing yet.
    pub async fn spawn(&mut self, id: u64) {
        let (id, dir) = (MemberId(id), self.home.path().join(format!("m{id}")));
        let mut config = config(&dir, id, self.authority.tls(&format!("member-{}", id.0)));
        let (store, events) = Store::open(config.clone()).await.unwrap();
        config.listen = store.local_address();
        self.nodes.push(Node { id, dir, config, store, events });
    }

    /// Makes it a voter.
    pub async fn join(&self, id: u64) {
        let member = self.node(id).member();
        let leader = self.leader().await;
        leader.store.add_learner(member).await.unwrap();
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = leader.store.promote(MemberId(id)).await {
            assert!(Instant::now() < deadline, "promote m{id}: {error}");
            look_again().await;
        }
    }

    pub fn node(&self, id: u64) -> &Node {
        self.nodes.iter().find(|node| node.id == MemberId(id)).unwrap()
    }

    pub fn node_mut(&mut self, id: u64) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.id == MemberId(id)).unwrap()
    }

    /// The member that leads and can prove it.
    pub async fn leader(&self) -> &Node {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for node in self.nodes.iter().filter(|node| node.store.is_leader()) {
                if node.store.barrier().await.is_ok() {
                    return node;
                }
            }
            assert!(Instant::now() < deadline, "there is no leader");
            look_again().await;
        }
    }

    /// Proposes at whoever leads, until it is surely committed.
    pub async fn propose(&self, text: &str) -> LogIndex {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.leader().await.store.propose(note(text)).await {
                Ok((index, result)) => {
                    result.unwrap();
                    return index;
                }
                Err(error) => assert!(Instant::now() < deadline, "propose {text}: {error}"),
            }
        }
    }
}

/// Waits for a condition, with a deadline.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        look_again().await;
    }
}

/// Lets others run before a condition is looked at again.
async fn look_again() {
    tokio::time::interval_at(tokio::time::Instant::now() + LOOK_EVERY, LOOK_EVERY).tick().await;
}
