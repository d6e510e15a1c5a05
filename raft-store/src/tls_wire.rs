//! The way to other members on a machine: mutual TLS over TCP.
//!
//! Why it exists: whoever is at the far end must hold a certificate of the cluster's authority with its own name.
//! What it never does: look at what is said over the stream.

use crate::config::Tls;
use crate::ground::{Door, Knock, Later, Proven, Stream, Wire};
use rustls::pki_types::ServerName;
use std::io;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Our keys for connections that we make.
pub(crate) struct TlsWire(TlsConnector);

impl TlsWire {
    pub(crate) fn new(tls: &Tls) -> TlsWire {
        TlsWire(Arc::clone(&tls.client).into())
    }
}

/// The listener, and our keys for connections that others make.
pub(crate) struct TlsDoor {
    listener: Arc<TcpListener>,
    acceptor: TlsAcceptor,
}

impl TlsDoor {
    pub(crate) fn new(listener: TcpListener, tls: &Tls) -> TlsDoor {
        TlsDoor { listener: Arc::new(listener), acceptor: Arc::clone(&tls.server).into() }
    }
}

impl Wire for TlsWire {
    fn dial(&self, member: u64, address: &str) -> Later<io::Result<Box<dyn Stream>>> {
        let (connector, address) = (self.0.clone(), address.to_owned());
        Box::pin(async move {
            let tcp = TcpStream::connect(&address).await?;
            tcp.set_nodelay(true)?;
            let name = server_name(member).map_err(io::Error::other)?;
            Ok(Box::new(connector.connect(name, tcp).await?) as Box<dyn Stream>)
        })
    }
}

impl Door for TlsDoor {
    fn accept(&self) -> Later<io::Result<Knock>> {
        let (listener, acceptor) = (Arc::clone(&self.listener), self.acceptor.clone());
        Box::pin(async move {
            let (tcp, address) = listener.accept().await?;
            let enters = async move {
                tcp.set_nodelay(true)?;
                let stream = acceptor.accept(tcp).await?;
                let proven = proven(&stream);
                Ok((Box::new(stream) as Box<dyn Stream>, proven))
            };
            Ok(Knock { from: address.to_string(), enters: Box::pin(enters) })
        })
    }
}

/// The name that a member's certificate must carry.
fn server_name(member: u64) -> Result<ServerName<'static>, rustls::pki_types::InvalidDnsNameError> {
    ServerName::try_from(format!("member-{member}"))
}

/// Asks the peer's certificate, which rustls has verified, whether it carries the name of a member.
fn proven(stream: &TlsStream<TcpStream>) -> Proven {
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let certificate = certificates.first().map(|certificate| certificate.clone().into_owned());
    Box::new(move |member| {
        let Some(certificate) = &certificate else { return false };
        let Ok(parsed) = rustls::server::ParsedCertificate::try_from(certificate) else { return false };
        server_name(member).is_ok_and(|name| rustls::client::verify_server_name(&parsed, &name).is_ok())
    })
}
