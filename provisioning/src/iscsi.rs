//! A storage host with tgt as a provider of volumes: the client of the `ha-storage` that runs on it.
//!
//! What this is: the rack's words for volumes and their snapshots (`rack`), over TLS, with an authority of the provider's own.
//! Why it exists: tgt can be configured on its own host only; `ha-storage` does it there and reads tgt back (`storage`).
//! What it never does: it opens no port and boots nothing, and sends its token to nobody whom its authority did not sign.

use crate::rack::{self, Rack};
use crate::{ProviderError, State, Wish};
use policies::{Check, Finding, LogIndex, Permit};
use reqwest::Url;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;

/// Longest time for a connection with its handshake. A storage host in the same hall takes milliseconds; longer ones leave a
/// failover no time for a second try.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// Client of one storage host.
#[derive(Clone, Debug)]
pub struct Iscsi(Rack);

impl Iscsi {
    /// A client for the `ha-storage` at `url`. `ca` is the authority that signed its certificate, PEM; absent only for plain
    /// HTTP on loopback.
    ///
    /// # Errors
    /// [`ProviderError::Configuration`] if one of them cannot be used.
    pub fn new(url: &str, ca: Option<&str>, token: &[u8]) -> Result<Self, ProviderError> {
        let unusable = |why: String| ProviderError::Configuration(format!("storage host at {url}: {why}"));
        let base = Url::parse(url).map_err(|error| unusable(error.to_string()))?;
        let host = base.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let is_loopback = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let roots = match (base.scheme(), ca) {
            ("https", Some(ca)) => roots(ca).map_err(|error| unusable(policies::causes(error.as_ref())))?,
            ("http", None) if is_loopback => RootCertStore::empty(),
            _ => return Err(unusable("it has to be https://host:port with its `ca`".to_owned())),
        };
        let http = rack::client(roots, CONNECT_MAX, rack::REQUEST_MAX)
            .map_err(|error| unusable(policies::causes(error.as_ref())))?;
        Rack::over(http, base, token).map(Iscsi).map_err(unusable)
    }

    pub(crate) async fn look(&self, wish: &Wish, deadline: Instant) -> Result<State, ProviderError> {
        of_a_volume(wish)?;
        self.0.look(wish, deadline).await
    }

    pub(crate) async fn check(&self, check: &Check, deadline: Instant) -> Result<Finding, ProviderError> {
        match check {
            Check::Volume(_) | Check::Snapshot(_) | Check::Backup(_) => self.0.check(check, deadline).await,
            Check::Port(_) | Check::Boot(_) | Check::Free(_) => {
                Ok(Finding::CannotTell(format!("a storage host knows nothing of {check}")))
            }
        }
    }

    pub(crate) async fn act(
        &self,
        wish: &Wish,
        token: LogIndex,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), ProviderError> {
        of_a_volume(wish)?;
        self.0.act(wish, token, permit, deadline).await
    }
}

fn of_a_volume(wish: &Wish) -> Result<(), ProviderError> {
    match wish {
        Wish::Revoked { .. } | Wish::Attached { .. } | Wish::Snapshot { .. } => Ok(()),
        Wish::PortClosed { .. }
        | Wish::PortOpen { .. }
        | Wish::VifAttached { .. }
        | Wish::Claimed { .. }
        | Wish::Cleaned { .. }
        | Wish::Boots { .. } => Err(ProviderError::Configuration(format!("a storage host cannot {wish}"))),
    }
}

fn roots(ca: &str) -> Result<RootCertStore, crate::Cause> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(root?)?;
    }
    match roots.is_empty() {
        true => Err("`ca` holds no certificate in PEM form".into()),
        false => Ok(roots),
    }
}
