//! Free loopback addresses for the members of the demo's cluster.
//!
//! What it never does: hold an address; whoever it is for binds it again.

use super::DemoError;
use super::error::system;
use socket2::{Domain, Socket, Type};
use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

/// Ports are drawn from here: above the usual services and below Linux's own range (32768 and up), which any outgoing
/// connection may take before the member binds its port.
const PORTS: std::ops::Range<u16> = 12_000..32_000;
/// Drawing this often without success means that there is no free port.
const TRIES_MAX: usize = 10_000;

/// Draws this many different addresses that are free for TCP and UDP.
///
/// # Errors
/// If there are not as many.
pub(super) fn draw(count: usize) -> Result<Vec<SocketAddr>, DemoError> {
    let mut drawn = BTreeSet::new();
    for _ in 0..TRIES_MAX {
        if drawn.len() == count {
            return Ok(drawn.into_iter().collect());
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, rand::random_range(PORTS)));
        if is_free_for_tcp(address) && UdpSocket::bind(address).is_ok() {
            drawn.insert(address);
        }
    }
    let none = io::Error::new(io::ErrorKind::AddrNotAvailable, format!("none in {TRIES_MAX} tries"));
    Err(system(format!("find {count} free ports in {PORTS:?}"))(none))
}

/// Binds as a listener would, but never listens: a process that is being started at this moment inherits the socket until
/// its exec, and one that listened would keep the port from its owner for so long.
fn is_free_for_tcp(address: SocketAddr) -> bool {
    let probe = Socket::new(Domain::IPV4, Type::STREAM, None);
    probe.is_ok_and(|probe| probe.set_reuse_address(true).is_ok() && probe.bind(&address.into()).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn an_address_on_which_somebody_listens_is_not_free() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(!is_free_for_tcp(taken.local_addr().unwrap()));
    }

    #[test]
    fn drawn_addresses_differ_and_can_be_bound() {
        let drawn = draw(9).unwrap();
        let held: Vec<TcpListener> =
            drawn.iter().map(|address| TcpListener::bind(address).unwrap()).collect();
        assert_eq!(held.len(), 9);
    }
}
