//! Requests to a BMC: TLS, limits, and what an answer, or none, means.
//!
//! Why it exists: a command whose answer is lost may have been carried out, and one that was refused certainly not; the
//! fencing algorithm lives on the difference. What it never does: decide, repeat a command, log a password.

use super::model;
use crate::fence::millis;
use crate::power::DriverError;
use policies::{BootDevice, Permit};
use reqwest::{Method, RequestBuilder, StatusCode, Url, header};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

/// Longest time for a connection with its handshake: BMCs' processors are small, and take a second for it.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Longest time for one request, whatever the deadline.
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// Largest answer that is read, in bytes. A system of a large server has 20 KiB.
const ANSWER_MAX: usize = 1 << 20;

/// Whom to believe that it is the BMC.
#[derive(Clone, PartialEq, Eq)]
enum Trust {
    /// Who signed its certificate.
    Authority(Vec<CertificateDer<'static>>),
    /// This certificate, by its SHA-256: most BMCs sign their own.
    Certificate([u8; 32]),
    /// Anybody: plain HTTP.
    Nobody,
}

/// How to reach and enter one BMC.
#[derive(Clone)]
pub struct Settings {
    base: Url,
    user: String,
    password: Zeroizing<String>,
    trust: Trust,
    /// The system, by the last part of its path; absent: the only one.
    pub(super) system: Option<String>,
    pub(super) boot_device: Option<BootDevice>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Settings({} as {})", self.base, self.user)
    }
}

/// Why settings cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSettings {
    /// No address of a BMC.
    #[error("url: {0}; write https://host")]
    Url(String),
    /// The password is no text.
    #[error("password: it is no text")]
    Password,
    /// Not exactly one way to know the BMC by.
    #[error("an https url needs `ca` or `fingerprint`, one of them; http needs neither")]
    Trust,
    /// No certificate in PEM form.
    #[error("ca: {0}")]
    Authority(String),
    /// No SHA-256.
    #[error("fingerprint: a certificate's SHA-256 has 64 hexadecimal digits, colons between them or not")]
    Fingerprint,
    /// TLS cannot be set up.
    #[error("set up TLS: {0}")]
    Tls(String),
}

impl Settings {
    /// For the BMC at `url`, as this user.
    ///
    /// # Errors
    /// [`BadSettings`] naming the field.
    pub fn new(
        url: &str,
        user: &str,
        password: &[u8],
        ca: Option<&str>,
        fingerprint: Option<&str>,
    ) -> Result<Settings, BadSettings> {
        let base = Url::parse(url).map_err(|error| BadSettings::Url(error.to_string()))?;
        let has_host = base.host_str().is_some_and(|host| !host.is_empty());
        if !has_host || base.path() != "/" || base.query().is_some() || !base.username().is_empty() {
            return Err(BadSettings::Url("it has a path, a user or no host".to_owned()));
        }
        let trust = match (base.scheme(), ca, fingerprint) {
            ("https", Some(ca), None) => Trust::Authority(certificates(ca)?),
            ("https", None, Some(text)) => {
                Trust::Certificate(sha256_of(text).ok_or(BadSettings::Fingerprint)?)
            }
            ("http", None, None) => Trust::Nobody,
            ("http" | "https", _, _) => return Err(BadSettings::Trust),
            (other, _, _) => return Err(BadSettings::Url(format!("{other} is not spoken here"))),
        };
        let password = std::str::from_utf8(password).map_err(|_| BadSettings::Password)?.to_owned();
        let (user, password) = (user.to_owned(), Zeroizing::new(password));
        Ok(Settings { base, user, password, trust, system: None, boot_device: None })
    }

    /// The same for one of several systems, by the last part of its path.
    pub fn with_system(self, system: Option<String>) -> Settings {
        Settings { system, ..self }
    }

    /// The same with what the node is to start from at each power-on; `None`: as its firmware is set.
    pub fn with_boot_device(self, boot_device: Option<BootDevice>) -> Settings {
        Settings { boot_device, ..self }
    }

    /// The BMC's address, without a slash at its end.
    pub(super) fn url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }
}

fn certificates(ca: &str) -> Result<Vec<CertificateDer<'static>>, BadSettings> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(ca.as_bytes()).collect();
    match read {
        Ok(read) if !read.is_empty() => Ok(read),
        Ok(_) => Err(BadSettings::Authority("no certificate in PEM form".to_owned())),
        Err(error) => Err(BadSettings::Authority(error.to_string())),
    }
}

/// A SHA-256 as openssl prints it, or without colons.
fn sha256_of(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    let mut hash = [0; 32];
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(hash)
}

/// How something is changed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verb {
    /// An action.
    Post,
    /// A property.
    Patch,
}

/// Speaks to one BMC.
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    user: String,
    password: Zeroizing<String>,
}

impl Client {
    pub(super) fn new(settings: &Settings) -> Result<Client, BadSettings> {
        let tls = |error: &dyn std::error::Error| BadSettings::Tls(policies::causes(error));
        let config = tls_config(&settings.trust).map_err(|error| tls(&error))?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_MAX)
            .timeout(REQUEST_MAX)
            .tcp_nodelay(true)
            .build()
            .map_err(|error| tls(&error))?;
        let (base, user, password) =
            (settings.base.clone(), settings.user.clone(), settings.password.clone());
        Ok(Client { http, base, user, password })
    }

    /// Reads a document.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        path: &str,
        deadline: Instant,
    ) -> Result<T, DriverError> {
        let what = format!("read {}", self.place(path));
        let begun = Instant::now();
        let (status, body) = match self.exchange(self.request(Method::GET, path)?, deadline).await {
            Ok(answer) => answer,
            // Nothing was to be changed, so an answer that did not come leaves no doubt.
            Err(Lost::NotSent(why)) => return Err(unreachable(&what, &why)),
            Err(Lost::Unanswered(why)) => {
                let waited = millis(begun.elapsed());
                return Err(unreachable(&what, &format!("{why}, waited {waited}")));
            }
        };
        match status {
            StatusCode::OK => serde_json::from_slice(&body)
                .map_err(|error| DriverError::Unclear(format!("{what}: not as Redfish has it: {error}"))),
            status => Err(refused(&what, status, &body)),
        }
    }

    /// Asks for a change, if the permit allows it now. `Ok` means that the BMC accepted.
    pub(super) async fn change(
        &self,
        verb: Verb,
        doing: &str,
        path: &str,
        body: &serde_json::Value,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), DriverError> {
        let what = format!("{doing} at {}", self.place(path));
        let method = match verb {
            Verb::Post => Method::POST,
            Verb::Patch => Method::PATCH,
        };
        let mut request = self.request(method, path)?.json(body);
        if let Verb::Patch = verb {
            // Whatever its version: nobody else sets it between our two requests, and some BMCs insist on the header.
            request = request.header(header::IF_MATCH, "*");
        }
        let begun = Instant::now();
        permit.check().map_err(DriverError::NotPermitted)?;
        match self.exchange(request, deadline).await {
            Ok((status, _)) if status.is_success() => Ok(()),
            Ok((status, body)) if status.is_server_error() => {
                Err(DriverError::Unclear(told(&what, status, &body)))
            }
            Ok((status, body)) => Err(refused(&what, status, &body)),
            Err(Lost::NotSent(why)) => Err(unreachable(&what, &why)),
            Err(Lost::Unanswered(_)) => Err(DriverError::NoAnswer { what, waited: millis(begun.elapsed()) }),
        }
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, DriverError> {
        let url = self.base.join(path).map_err(|error| DriverError::Refused(format!("{path}: {error}")))?;
        let request = self.http.request(method, url).header(header::ACCEPT, "application/json");
        Ok(request.header("OData-Version", "4.0").basic_auth(&self.user, Some(self.password.as_str())))
    }

    async fn exchange(
        &self,
        request: RequestBuilder,
        deadline: Instant,
    ) -> Result<(StatusCode, Vec<u8>), Lost> {
        let answered = async {
            let mut response = request.send().await?;
            let (status, mut body) = (response.status(), vec![]);
            while let Some(chunk) = response.chunk().await? {
                if body.len() + chunk.len() > ANSWER_MAX {
                    break;
                }
                body.extend_from_slice(&chunk);
            }
            Ok::<_, reqwest::Error>((status, body))
        };
        match timeout_at(deadline, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Lost::from(error)),
            Err(_) => Err(Lost::Unanswered("no answer by the deadline".to_owned())),
        }
    }

    fn place(&self, path: &str) -> String {
        format!("{}{path}", self.base.as_str().trim_end_matches('/'))
    }
}

/// Why there is no answer.
enum Lost {
    /// There was no connection, so nothing was asked.
    NotSent(String),
    /// It may have been asked.
    Unanswered(String),
}

impl From<reqwest::Error> for Lost {
    fn from(error: reqwest::Error) -> Lost {
        // The address is in what we were doing.
        let error = error.without_url();
        let why = policies::causes(&error);
        if error.is_connect() { Lost::NotSent(why) } else { Lost::Unanswered(why) }
    }
}

fn unreachable(what: &str, why: &str) -> DriverError {
    DriverError::Unreachable { what: format!("{what}: {why}"), source: None }
}

/// An answer by which certainly nothing was changed.
fn refused(what: &str, status: StatusCode, body: &[u8]) -> DriverError {
    match status {
        StatusCode::UNAUTHORIZED => DriverError::NotAdmitted(told(what, status, body)),
        _ => DriverError::Refused(told(what, status, body)),
    }
}

fn told(what: &str, status: StatusCode, body: &[u8]) -> String {
    match model::message(body) {
        Some(message) => format!("{what}: {status}: {message}"),
        None => format!("{what}: {status}"),
    }
}

fn tls_config(trust: &Trust) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let mut roots = RootCertStore::empty();
    match trust {
        Trust::Authority(certificates) => {
            certificates.iter().try_for_each(|certificate| roots.add(certificate.clone()))?;
        }
        Trust::Certificate(hash) => {
            let pinned = Arc::new(Pinned { hash: *hash, provider });
            return Ok(builder.dangerous().with_custom_certificate_verifier(pinned).with_no_client_auth());
        }
        Trust::Nobody => {}
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Believes one certificate, whatever it says of itself; who uses it still has to prove that he has its key.
#[derive(Debug)]
struct Pinned {
    hash: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found: [u8; 32] = Sha256::digest(certificate).into();
        if found == self.hash {
            return Ok(ServerCertVerified::assertion());
        }
        let digits: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
        Err(rustls::Error::General(format!("its certificate has another fingerprint: {digits}")))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str, ca: Option<&str>, fingerprint: Option<&str>) -> String {
        Settings::new(url, "ha", b"secret", ca, fingerprint).unwrap_err().to_string()
    }

    #[test]
    fn settings_that_cannot_work_name_their_field() {
        let hash = "ab".repeat(32);
        assert!(refused("10.0.0.1", None, None).starts_with("url: "));
        assert!(refused("ftp://10.0.0.1", None, None).starts_with("url: "));
        assert!(refused("https://10.0.0.1/redfish/v1", None, Some(&hash)).starts_with("url: "));
        assert!(refused("https://user@10.0.0.1", None, Some(&hash)).starts_with("url: "));
        assert!(refused("https://10.0.0.1", None, None).contains("needs `ca` or `fingerprint`"));
        assert!(refused("http://10.0.0.1", None, Some(&hash)).contains("http needs neither"));
        assert!(refused("https://10.0.0.1", Some("none"), None).starts_with("ca: "));
        assert!(refused("https://10.0.0.1", None, Some("ab:cd")).starts_with("fingerprint: "));
        let colons = vec!["AB"; 32].join(":");
        let settings = Settings::new("https://10.0.0.1", "ha", b"secret", None, Some(&colons)).unwrap();
        assert!(settings.trust == Trust::Certificate([0xab; 32]));
        assert!(!format!("{settings:?}").contains("secret"));
    }
}
