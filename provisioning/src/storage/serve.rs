//! Speaks with the members: HTTPS, a bearer token, the rack's words for volumes and their snapshots.
//!
//! Why it exists: the look and the change of a volume or its snapshots, and nothing else, leave the storage host.
//! What it never does: it answers nobody without the token, and says nothing of a volume of which tgt says nothing (503).

use super::config::{Config, ConfigError, read, read_private};
use super::keeper::{ChangeError, Keeper};
use crate::rack::{SnapshotChange, VolumeChange};
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

/// Most connections at once: a few for each member.
const CONNECTIONS_MAX: usize = 64;
/// Longest time for a handshake and for a request's headers.
const HEADER_MAX: Duration = Duration::from_secs(10);
/// Longest body of a request, in bytes. A change has a few hundred.
const BODY_MAX: usize = 16 * 1024;
/// How often tgt is looked at without being asked. While tgtd has forgotten everything the holder has no access.
const TEND_EVERY: Duration = Duration::from_secs(1);
/// Pause after a failed accept (out of descriptors), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// It cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A file that the configuration names.
    #[error(transparent)]
    Config(ConfigError),
    /// Certificate or key.
    #[error("set up TLS with `certificate` and `key`")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The address.
    #[error("listen on {address}")]
    Listen {
        /// Which.
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

#[derive(Clone)]
struct Api {
    keeper: Arc<Keeper>,
    token: Arc<Zeroizing<String>>,
}

/// Reads every file that the configuration names, as [`serve`] does, and looks for the volumes' backings.
///
/// # Errors
/// [`ServeError`] that says which and why.
pub fn check(config: &Config) -> Result<(), ServeError> {
    prepare(config)?;
    config.check_backings().map_err(ServeError::Config)
}

fn prepare(config: &Config) -> Result<(Zeroizing<String>, Option<TlsAcceptor>), ServeError> {
    let token = config.token().map_err(ServeError::Config)?;
    config.check_secrets().map_err(ServeError::Config)?;
    Ok((token, acceptor(config)?))
}

/// Serves, and has tgt agree again and again, until `stop` resolves; tgt keeps what it has then.
///
/// # Errors
/// [`ServeError`] if it cannot begin.
pub async fn serve(
    config: &Config,
    keeper: Keeper,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let (token, tls) = prepare(config)?;
    let keeper = Arc::new(keeper);
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|source| ServeError::Listen { address: config.listen, source })?;
    tracing::info!(listen = %config.listen, volumes = config.volumes.len(), "serving");
    let router = router(Api { keeper: Arc::clone(&keeper), token: Arc::new(token) });
    let mut connections = JoinSet::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // Not a task: if it ever panicked the process has to end, for nobody would give the holder his rights back.
    let tending = tend(&keeper);
    tokio::pin!(stop, tending);
    loop {
        let accept = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        tokio::select! {
            () = &mut stop => return Ok(()),
            never = &mut tending => match never {},
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection has panicked");
                }
            }
            (place, accepted) = accept => match accepted {
                Ok((stream, address)) => {
                    let (tls, router) = (tls.clone(), router.clone());
                    connections.spawn(async move {
                        connection(stream, tls, router).await;
                        tracing::debug!(%address, "connection ended");
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

/// tgtd may have been restarted, or somebody else has changed a target of ours.
async fn tend(keeper: &Keeper) -> Infallible {
    let mut every = tokio::time::interval(TEND_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut before = vec![];
    loop {
        every.tick().await;
        let errors: Vec<String> = keeper.tend().await.iter().map(|error| policies::causes(error)).collect();
        if errors != before {
            errors
                .iter()
                .for_each(|error| tracing::warn!(error, "tgt does not agree with what is wished for"));
            if errors.is_empty() {
                tracing::info!("tgt agrees with what is wished for");
            }
            before = errors;
        }
    }
}

fn acceptor(config: &Config) -> Result<Option<TlsAcceptor>, ServeError> {
    let (Some(certificate), Some(key)) = (&config.certificate, &config.key) else { return Ok(None) };
    let chain = read(certificate).map_err(ServeError::Config)?;
    let key = read_private(key).map_err(ServeError::Config)?;
    let build = || -> Result<ServerConfig, Box<dyn std::error::Error + Send + Sync>> {
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Ok(ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?)
    };
    Ok(Some(TlsAcceptor::from(Arc::new(build().map_err(ServeError::Tls)?))))
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, router: Router) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "set TCP_NODELAY");
    }
    match tls {
        None => http(stream, router).await,
        Some(tls) => match tokio::time::timeout(HEADER_MAX, tls.accept(stream)).await {
            Ok(Ok(stream)) => http(stream, router).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake"),
            Err(_) => tracing::debug!("TLS handshake took too long"),
        },
    }
}

async fn http(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let mut server = auto::Builder::new(TokioExecutor::new()).http1_only();
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_MAX);
    let service = TowerToHyperService::new(router);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(error, "connection");
    }
}

fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/volumes/{name}", get(look).put(change))
        .route("/v1/snapshots/{name}", get(look_at_snapshots).put(make_snapshot))
        .layer(middleware::from_fn_with_state(api.clone(), admit))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(api)
}

async fn admit(State(api): State<Api>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = shown.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    match bool::from(shown.as_bytes().ct_eq(api.token.as_bytes())) {
        true => next.run(request).await,
        false => StatusCode::UNAUTHORIZED.into_response(),
    }
}

async fn look(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, Refused> {
    Ok(Json(api.keeper.look(&name).await?).into_response())
}

async fn change(
    State(api): State<Api>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<StatusCode, Refused> {
    let change: VolumeChange = read_body(&body)?;
    api.keeper.change(&name, &change).await?;
    Ok(StatusCode::OK)
}

async fn look_at_snapshots(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, Refused> {
    Ok(Json(api.keeper.snapshots(&name).await?).into_response())
}

async fn make_snapshot(
    State(api): State<Api>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<StatusCode, Refused> {
    let change: SnapshotChange = read_body(&body)?;
    api.keeper.snapshot(&name, &change).await?;
    Ok(StatusCode::OK)
}

fn read_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(Refused::NoChange)
}

/// Why something was not done.
enum Refused {
    /// The body asks for nothing that there is.
    NoChange(serde_json::Error),
    Change(ChangeError),
}

impl From<ChangeError> for Refused {
    fn from(error: ChangeError) -> Refused {
        Refused::Change(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self {
            Refused::NoChange(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
            Refused::Change(ChangeError::NotThere(not_there)) => {
                (StatusCode::NOT_FOUND, Json(not_there)).into_response()
            }
            Refused::Change(ChangeError::Conflict(conflict)) => {
                (StatusCode::CONFLICT, Json(conflict)).into_response()
            }
            Refused::Change(ChangeError::BadWords(why)) => {
                (StatusCode::UNPROCESSABLE_ENTITY, why).into_response()
            }
            Refused::Change(error @ ChangeError::NotMade(_)) => {
                (StatusCode::FAILED_DEPENDENCY, error.to_string()).into_response()
            }
            Refused::Change(ChangeError::Unknown(why)) => {
                (StatusCode::SERVICE_UNAVAILABLE, policies::causes(&why)).into_response()
            }
        }
    }
}
