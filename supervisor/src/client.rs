//! The client of the API: finds the member that can answer and says honestly what became of a request.
//!
//! Why it exists: there are several members, one of them leads, and any of them may be gone. What it never does: send
//! a change a second time once the first may have arrived, follow a redirect away from TLS, trust a certificate
//! that is not of the cluster's CA, or say who it is in two ways at once.

use crate::api::{Code, Problem, TENANT_PROVIDER, TENANT_TOKEN};
use crate::clouds_yaml::{CloudsError, Entrance};
use crate::context::ContextFile;
use crate::document::DocumentError;
use crate::files::{self, FileError};
use crate::init::Context;
use crate::tls::{self, Credentials, TlsError};
use openstack::{CallError, Cloud};
use reqwest::header::HeaderValue;
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Limit of one attempt to connect. A member in the same site answers within milliseconds; a dead one must not hold up
/// the question to the next.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
/// Redirects in one attempt. One is normal; a second happens when the leader changes meanwhile.
const REDIRECTS_MAX: usize = 4;
/// Pause before all members are asked again while there is no leader.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Largest answer in bytes: a list of 10,000 nodes has some 6 MB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The context file cannot be used.
    #[error("{0}")]
    Context(String),
    /// A file of the context could not be read.
    #[error("read the context")]
    File(#[source] FileError),
    /// The context is not one.
    #[error("read the context")]
    Document(#[source] DocumentError),
    /// Its certificates cannot be used.
    #[error("use the certificates of the context")]
    Tls(#[source] TlsError),
    /// It is not known how to enter the cloud.
    #[error(transparent)]
    Clouds(CloudsError),
    /// Its Keystone gave no token; nothing was asked of a member.
    #[error("enter the cloud")]
    Keystone(#[source] CallError),
    /// No member could be asked; nothing was changed.
    #[error("no member can be reached: {}", .0.join("; "))]
    Unreachable(Vec<String>),
    /// The cluster said no.
    #[error("{}", .0.error)]
    Refused(Problem),
    /// What came is no answer of this API.
    #[error("{endpoint} gave an answer that is not understood: {why}")]
    BadAnswer {
        /// Who answered.
        endpoint: String,
        /// What is wrong.
        why: String,
    },
}

/// A way to the cluster.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    endpoints: Vec<Url>,
    identity: Identity,
    patience: Duration,
}

/// How a client says who it is.
#[derive(Clone, Debug)]
enum Identity {
    /// By its certificate, or not at all.
    Certificate,
    /// By a token of the cluster's own.
    Token(Zeroizing<String>),
    /// By a token of a cloud's Keystone, and the provider that this cloud is, if it was named.
    Tenant { by: TokenSource, provider: Option<String> },
}

/// Where a token of Keystone comes from.
#[derive(Clone)]
enum TokenSource {
    /// From there; it is renewed while it is needed.
    Keystone(Cloud),
    /// It was given.
    Given(Zeroizing<String>),
}

impl std::fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TokenSource::Keystone(cloud) => write!(f, "{cloud:?}"),
            TokenSource::Given(_) => f.write_str("Given(..)"),
        }
    }
}

/// What goes with each request to say who it is from.
enum Shown {
    Nothing,
    Bearer(HeaderValue),
    Tenant(HeaderValue, Option<String>),
}

impl Shown {
    fn on(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Shown::Nothing => request,
            Shown::Bearer(token) => request.header("authorization", token),
            Shown::Tenant(token, provider) => {
                let request = request.header(TENANT_TOKEN, token);
                match provider {
                    Some(provider) => request.header(TENANT_PROVIDER, provider),
                    None => request,
                }
            }
        }
    }
}

/// A header that no log shows. What cannot be one is no token, and is sent as nothing.
fn hidden(text: &str) -> HeaderValue {
    let mut value = HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

impl Identity {
    async fn shown(&self, patience: Duration) -> Result<Shown, ClientError> {
        Ok(match self {
            Identity::Certificate => Shown::Nothing,
            Identity::Token(token) => {
                Shown::Bearer(hidden(&Zeroizing::new(format!("Bearer {}", token.as_str()))))
            }
            Identity::Tenant { by: TokenSource::Given(token), provider } => {
                Shown::Tenant(hidden(token), provider.clone())
            }
            Identity::Tenant { by: TokenSource::Keystone(cloud), provider } => {
                let token = cloud.own_token(tokio::time::Instant::now() + patience).await;
                Shown::Tenant(hidden(&token.map_err(ClientError::Keystone)?), provider.clone())
            }
        })
    }
}

/// What became of one attempt.
enum Attempt {
    Answer(Response),
    /// It certainly did not arrive.
    NotSent(String),
    /// It may have arrived.
    NoAnswer(String),
}

impl Client {
    /// From a context file. `patience`: how long to look for a member that can answer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn open(path: &Path, patience: Duration) -> Result<Client, ClientError> {
        Client::open_cluster(&ContextFile::load(path)?, None, patience)
    }

    /// As [`Client::open`], of the cluster with that name, if the file has several.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn open_cluster(
        file: &ContextFile,
        cluster: Option<&str>,
        patience: Duration,
    ) -> Result<Client, ClientError> {
        let (context, dir) = (file.pick(cluster)?, file.dir());
        let ca = dir.join(&context.ca);
        let tls = match (&context.cert, &context.key) {
            (Some(cert), Some(key)) => {
                Credentials::load(&ca, &dir.join(cert), &dir.join(key)).and_then(|c| c.client())
            }
            (None, None) => tls::token_client(&ca),
            (Some(_), None) | (None, Some(_)) => {
                let why = format!("{}: `cert` and `key` belong together", file.path().display());
                return Err(ClientError::Context(why));
            }
        };
        let identity = match &context.token_file {
            Some(file) => {
                let text = Zeroizing::new(files::read_text(&dir.join(file)).map_err(ClientError::File)?);
                Identity::Token(Zeroizing::new(text.trim().to_owned()))
            }
            None => Identity::Certificate,
        };
        Client::new(tls.map_err(ClientError::Tls)?, endpoints_of(file, context)?, identity, patience)
    }

    /// As [`Client::open_cluster`], as a tenant: of the context only where the members are is used, and who signed their
    /// certificates. `provider`: which of the cluster's clouds that is, if it has several.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn open_as_tenant(
        file: &ContextFile,
        cluster: Option<&str>,
        entrance: Entrance,
        provider: Option<String>,
        patience: Duration,
    ) -> Result<Client, ClientError> {
        let context = file.pick(cluster)?;
        let tls = tls::token_client(&file.dir().join(&context.ca)).map_err(ClientError::Tls)?;
        let by = match entrance {
            Entrance::Token(token) => TokenSource::Given(token),
            Entrance::Keystone(settings) => {
                TokenSource::Keystone(Cloud::new(settings).map_err(ClientError::Keystone)?)
            }
        };
        let identity = Identity::Tenant { by, provider };
        Client::new(tls, endpoints_of(file, context)?, identity, patience)
    }

    fn new(
        tls: rustls::ClientConfig,
        endpoints: Vec<Url>,
        identity: Identity,
        patience: Duration,
    ) -> Result<Client, ClientError> {
        if endpoints.is_empty() {
            return Err(ClientError::Context("the context names no endpoints".to_owned()));
        }
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIME_MAX.min(patience))
            .build()
            .map_err(|error| ClientError::Context(format!("set up HTTPS: {}", policies::causes(&error))))?;
        Ok(Client { http, endpoints, identity, patience })
    }

    /// Asks. Any member that can answer will do, so it is asked again until there is an answer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, ClientError> {
        let response = self.send(Method::GET, path, None).await?;
        read_answer(response).await
    }

    /// Asks for a text.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get_text(&self, path: &str) -> Result<String, ClientError> {
        let response = self.send(Method::GET, path, None).await?;
        let endpoint = place(response.url());
        let body =
            read_body(response).await.and_then(|body| String::from_utf8(body).map_err(|e| e.to_string()));
        body.map_err(|why| ClientError::BadAnswer { endpoint, why })
    }

    /// The way to one member alone, whose API is at `host:port`.
    ///
    /// # Errors
    /// [`ClientError::Context`] if that is no address.
    pub fn at(&self, api: &str, patience: Duration) -> Result<Client, ClientError> {
        let endpoints = vec![endpoint_url(Path::new("member list"), &format!("https://{api}"))?];
        Ok(Client { http: self.http.clone(), endpoints, identity: self.identity.clone(), patience })
    }

    /// What must not be seen by others. A token that Keystone gives anew is not among it.
    pub fn secrets(&self) -> Vec<Zeroizing<String>> {
        match &self.identity {
            Identity::Token(token) | Identity::Tenant { by: TokenSource::Given(token), .. } => {
                vec![token.clone()]
            }
            Identity::Certificate | Identity::Tenant { by: TokenSource::Keystone(_), .. } => vec![],
        }
    }

    /// Orders. Sent again only while it is certain that it did not arrive.
    ///
    /// # Errors
    /// [`ClientError`]; [`Code::OutcomeUnknown`] if it may have happened.
    pub async fn order<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<A, ClientError> {
        let response = self.order_raw(method, path, body).await?;
        read_answer(response).await
    }

    /// As [`Client::order`], for orders that are answered without a body.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn order_quietly(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<(), ClientError> {
        self.order_raw(method, path, body).await.map(drop)
    }

    async fn order_raw(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Response, ClientError> {
        let body = serde_json::to_vec(body)
            .map_err(|error| ClientError::Context(format!("write the request: {error}")))?;
        self.send(method, path, Some(body)).await
    }

    /// Opens a stream of lines.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn stream(&self, path: &str) -> Result<Response, ClientError> {
        self.send(Method::GET, path, None).await
    }

    /// Opens a stream at this member (`host:port` of its API) and no other; it is asked once.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn stream_from(&self, api: &str, path: &str) -> Result<Response, ClientError> {
        let endpoint = endpoint_url(Path::new("the list of members"), &format!("https://{api}"))?;
        let shown = self.identity.shown(self.patience).await?;
        match self.attempt(&endpoint, &shown, &Method::GET, path, None, self.patience).await {
            Attempt::Answer(response) if response.status().is_success() => Ok(response),
            Attempt::Answer(response) => Err(ClientError::Refused(read_problem(response).await?)),
            Attempt::NotSent(why) | Attempt::NoAnswer(why) => {
                Err(ClientError::Unreachable(vec![format!("{}: {why}", place(&endpoint))]))
            }
        }
    }

    async fn send(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Response, ClientError> {
        let began = Instant::now();
        let shown = self.identity.shown(self.patience).await?;
        loop {
            let mut failures = vec![];
            let mut refused = None;
            for endpoint in &self.endpoints {
                let left =
                    self.patience.saturating_sub(began.elapsed()).max(CONNECT_TIME_MAX.min(self.patience));
                match self.attempt(endpoint, &shown, &method, path, body.as_deref(), left).await {
                    Attempt::Answer(response) if response.status().is_success() => return Ok(response),
                    Attempt::Answer(response) => {
                        let problem = read_problem(response).await?;
                        match problem.code {
                            Code::NoQuorum | Code::NotYet | Code::Broken => refused = Some(problem),
                            Code::BadRequest
                            | Code::NotAuthenticated
                            | Code::NotAllowed
                            | Code::NotThere
                            | Code::Rejected
                            | Code::BreaksCoverage
                            | Code::TooLarge
                            | Code::OutcomeUnknown => return Err(ClientError::Refused(problem)),
                        }
                    }
                    Attempt::NotSent(why) => failures.push(format!("{}: {why}", place(endpoint))),
                    Attempt::NoAnswer(why) if method == Method::GET => {
                        failures.push(format!("{}: {why}", place(endpoint)));
                    }
                    Attempt::NoAnswer(_) => return Err(ClientError::Refused(Problem::outcome_unknown())),
                }
            }
            if began.elapsed() + AGAIN_AFTER >= self.patience {
                return Err(match refused {
                    Some(problem) => ClientError::Refused(problem),
                    None => ClientError::Unreachable(failures),
                });
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// One member, and where it sends us.
    async fn attempt(
        &self,
        endpoint: &Url,
        shown: &Shown,
        method: &Method,
        path: &str,
        body: Option<&[u8]>,
        left: Duration,
    ) -> Attempt {
        let Ok(mut url) = endpoint.join(path) else {
            return Attempt::NotSent(format!("{path:?} is not a path"));
        };
        for _ in 0..REDIRECTS_MAX {
            let mut request = shown.on(self.http.request(method.clone(), url.clone()));
            if let Some(body) = body {
                request = request.header("content-type", "application/json").body(body.to_vec());
            }
            // Only the time to the answer's head is limited: a stream of events has no end.
            let response = match tokio::time::timeout(left, request.send()).await {
                Ok(Ok(response)) => response,
                Ok(Err(error)) if error.is_connect() || certainly_unread(&error) => {
                    return Attempt::NotSent(root(&error));
                }
                Ok(Err(error)) => return Attempt::NoAnswer(root(&error)),
                Err(_) => return Attempt::NoAnswer(format!("no answer within {left:?}")),
            };
            if response.status() != reqwest::StatusCode::TEMPORARY_REDIRECT {
                return Attempt::Answer(response);
            }
            let location = response.headers().get("location").and_then(|value| value.to_str().ok());
            match location.and_then(|location| url.join(location).ok()) {
                Some(next) if next.scheme() == "https" => url = next,
                Some(_) | None => return Attempt::NotSent("it sends us nowhere".to_owned()),
            }
        }
        Attempt::NotSent("the members send us to each other: the leader is changing".to_owned())
    }
}

fn endpoints_of(file: &ContextFile, context: &Context) -> Result<Vec<Url>, ClientError> {
    context.endpoints.iter().map(|endpoint| endpoint_url(file.path(), endpoint)).collect()
}

fn endpoint_url(file: &Path, endpoint: &str) -> Result<Url, ClientError> {
    let url = Url::parse(endpoint).ok().filter(|url| url.scheme() == "https" && url.has_host());
    url.ok_or_else(|| {
        ClientError::Context(format!("{}: endpoint {endpoint:?} is not https://host:port", file.display()))
    })
}

fn place(endpoint: &Url) -> String {
    format!("{}:{}", endpoint.host_str().unwrap_or("?"), endpoint.port_or_known_default().unwrap_or(443))
}

/// The innermost reason: the outer ones only repeat the address.
fn root(error: &reqwest::Error) -> String {
    let mut reason: &dyn std::error::Error = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    reason.to_string()
}

/// Whether the request certainly reached nobody. With TLS 1.3 a client learns only after its own part of the handshake
/// that its certificate was refused, and a server that has sent such an alert has read no request (RFC 8446 §4.4.2.4,
/// §6.2). If the alert is there before the request is begun, hyper cancels the request unsent.
fn certainly_unread(error: &reqwest::Error) -> bool {
    let mut reason: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = reason {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls =
            inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()).or_else(|| error.downcast_ref());
        let unsent = error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled);
        if unsent || matches!(tls, Some(rustls::Error::AlertReceived(_))) {
            return true;
        }
        reason = error.source();
    }
    false
}

async fn read_answer<A: DeserializeOwned>(response: Response) -> Result<A, ClientError> {
    let endpoint = place(response.url());
    let bad = |why: String| ClientError::BadAnswer { endpoint: endpoint.clone(), why };
    let body = read_body(response).await.map_err(bad)?;
    serde_json::from_slice(&body)
        .map_err(|error| bad(format!("{error}; hactl and the member may be of different versions")))
}

async fn read_problem(response: Response) -> Result<Problem, ClientError> {
    let (endpoint, status) = (place(response.url()), response.status());
    let bad = |why: String| ClientError::BadAnswer { endpoint: endpoint.clone(), why };
    let body = read_body(response).await.map_err(bad)?;
    serde_json::from_slice(&body).map_err(|_| bad(format!("HTTP {status} without an explanation")))
}

async fn read_body(mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = vec![];
    while let Some(chunk) = response.chunk().await.map_err(|error| root(&error))? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(format!("more than {ANSWER_BYTES_MAX} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
