//! TLS settings from the files of a member's directory: for traffic between members and for the HTTPS API.
//!
//! Why it exists: there is one place that says what is trusted: certificates of the cluster's own CA, TLS 1.3, the
//! ring provider. What it never does: trust the machine's list of authorities, or fall back to an older version.

use crate::config::Home;
use crate::files::{self, FileError};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("set up TLS")]
    File(#[source] FileError),
    /// A file is not what it should be.
    #[error("{}: it holds no {what} in PEM form", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// "certificate" or "private key".
        what: &'static str,
        /// Why not.
        source: pem::Error,
    },
    /// A certificate, a key and the CA do not belong together.
    #[error("{doing}")]
    Rustls {
        /// What was being set up.
        doing: &'static str,
        /// Why not.
        source: rustls::Error,
    },
    /// The CA's certificate cannot be used to check clients.
    #[error("use the CA to check client certificates")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

/// The CA and one certificate with its key.
pub struct Credentials {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Credentials {
    /// A member's own.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn of_member(home: &Home) -> Result<Self, TlsError> {
        Credentials::load(&home.ca_cert(), &home.member_cert(), &home.member_key())
    }

    /// From three PEM files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(ca: &Path, cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain = vec![read_cert(cert)?];
        let text = Zeroizing::new(files::read_text(key).map_err(TlsError::File)?);
        let not_pem = |source| TlsError::Pem { path: key.to_owned(), what: "private key", source };
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(not_pem)?;
        Ok(Credentials { roots: read_roots(ca)?, chain, key })
    }

    /// Server for other members: they must show a certificate of the CA. Whose it is, raft-store checks.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn member_server(&self) -> Result<Arc<ServerConfig>, TlsError> {
        self.server(false, &[])
    }

    /// Client of other members.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn member_client(&self) -> Result<Arc<ClientConfig>, TlsError> {
        Ok(Arc::new(self.client()?))
    }

    /// Server of the HTTPS API: a client certificate is checked if there is one; without it a token must come.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn api_server(&self) -> Result<Arc<ServerConfig>, TlsError> {
        self.server(true, &[b"h2", b"http/1.1"])
    }

    /// Client that shows this certificate.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn client(&self) -> Result<ClientConfig, TlsError> {
        let doing = "set up a TLS client";
        client_builder(self.roots.clone(), doing)?
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|source| TlsError::Rustls { doing, source })
    }

    fn server(&self, anonymous: bool, protocols: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
        let doing = "set up a TLS server";
        let clients = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider());
        let clients = if anonymous { clients.allow_unauthenticated() } else { clients };
        let clients = clients.build().map_err(TlsError::Verifier)?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|source| TlsError::Rustls { doing, source })?
            .with_client_cert_verifier(clients)
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|source| TlsError::Rustls { doing, source })?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }
}

/// Client without a certificate, for those who have a token.
///
/// # Errors
/// [`TlsError`].
pub fn token_client(ca: &Path) -> Result<ClientConfig, TlsError> {
    Ok(client_builder(read_roots(ca)?, "set up a TLS client")?.with_no_client_auth())
}

/// Common name of a certificate that the CA check has accepted.
pub fn common_name(cert: &CertificateDer<'_>) -> Option<String> {
    let (_, cert) = x509_parser::parse_x509_certificate(cert).ok()?;
    let name = cert.subject().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}

fn client_builder(
    roots: Arc<RootCertStore>,
    doing: &'static str,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| TlsError::Rustls { doing, source })?;
    Ok(builder.with_root_certificates(roots))
}

fn read_cert(path: &Path) -> Result<CertificateDer<'static>, TlsError> {
    let text = files::read_text(path).map_err(TlsError::File)?;
    let not_pem = |source| TlsError::Pem { path: path.to_owned(), what: "certificate", source };
    CertificateDer::from_pem_slice(text.as_bytes()).map_err(not_pem)
}

fn read_roots(ca: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    let refused = |source| TlsError::Rustls { doing: "trust the CA's certificate", source };
    roots.add(read_cert(ca)?).map_err(refused)?;
    Ok(Arc::new(roots))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
