//! Accepts connections, of HTTPS or of plain HTTP, and hands their requests to a router.
//!
//! Why it exists: `axum::serve` knows neither TLS nor limits. Here each connection has a place among
//! `connections_max`, a time limit for its handshake and for each request's headers, and the name in its client
//! certificate goes along with every request. What it never does: wait for one connection while another is ready.

use crate::auth::{Caller, caller_of_certificate};
use crate::config::Api;
use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// What the accept loop adds to every request.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Who the client certificate names, if there was one with a role.
    pub caller: Option<Caller>,
    /// From where.
    pub address: SocketAddr,
}

/// How long requests under way may take after the daemon was told to stop.
const GOODBYE: Duration = Duration::from_secs(2);

/// Serves HTTPS, or without `tls` plain HTTP, until `stop` becomes true or its sender is gone; then lets requests under way end.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    limits: Api,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let acceptor = tls.map(TlsAcceptor::from);
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            Some(ended) = connections.join_next() => {
                report(ended);
                continue;
            }
            () = told(&mut stop) => break,
        };
        let Some((stream, address, place)) = accepted else { continue };
        let (acceptor, router, stop) = (acceptor.clone(), router.clone(), stop.clone());
        connections.spawn(async move {
            connection(stream, address, acceptor, limits, router, stop).await;
            drop(place);
        });
    }
    let all_ended = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if tokio::time::timeout(GOODBYE, all_ended).await.is_err() {
        tracing::info!(open = connections.len(), "closing API connections that did not end in time");
    }
}

/// The next connection, once there is a place for it; until then the kernel's queue holds it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, address)) => Some((stream, address, place)),
        Err(error) => {
            // Out of file descriptors is the usual reason; without a pause this would spin.
            tracing::warn!(%error, "accept an API connection");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    limits: Api,
    router: Router,
    stop: watch::Receiver<bool>,
) {
    let header_time = Duration::from_millis(limits.header_time_max.0);
    // Small answers must not wait for an acknowledgement (Nagle); that it cannot be set only costs time.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%address, %error, "set TCP_NODELAY");
    }
    let Some(acceptor) = acceptor else {
        let peer = Peer { caller: None, address };
        return requests(stream, peer, header_time, router, stop).await;
    };
    let handshake = acceptor.accept(stream).into_fallible();
    let stream = match tokio::time::timeout(header_time, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err((error, stream))) => {
            tracing::debug!(%address, %error, "TLS handshake");
            return let_the_alert_arrive(stream, header_time).await;
        }
        Err(_) => return tracing::debug!(%address, "TLS handshake took too long"),
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let peer = Peer { caller: certificate.and_then(caller_of_certificate), address };
    requests(stream, peer, header_time, router, stop).await;
}

/// Answers the requests of one connection until it ends, or those under way if the daemon is told to stop.
async fn requests(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    header_time: Duration,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let address = peer.address;
    let service = TowerToHyperService::new(router.layer(Extension(peer)));
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(header_time);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(20))
        .max_concurrent_streams(64);
    let serving = server.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = told(&mut stop) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%address, %error, "API connection");
    }
}

/// Reads what a refused client still sends, until it hangs up. Closing with bytes unread resets the connection, and a
/// reset overtakes the alert that says why (RFC 1122 §4.2.2.13): the client could not tell a bad certificate from an
/// order whose outcome is unknown.
async fn let_the_alert_arrive(mut stream: TcpStream, header_time: Duration) {
    let mut sink = tokio::io::sink();
    let until_it_hangs_up = tokio::io::copy(&mut stream, &mut sink);
    // However that ends, there is nothing more to say to it.
    drop(tokio::time::timeout(header_time, until_it_hangs_up).await);
}

/// Waits until the daemon is told to stop, or until whoever would tell is gone.
async fn told(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// A panic in one connection ends that connection only, but it is our mistake and must be seen.
fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "an API connection's task ended badly");
    }
}
