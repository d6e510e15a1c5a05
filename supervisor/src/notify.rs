//! Tells systemd that the daemon is ready or stopping (sd_notify(3): one datagram to `$NOTIFY_SOCKET`).
//!
//! Why it exists: with `Type=notify` a unit that waits for the supervisor starts when it answers, not when it was
//! forked. What it never does: fail the daemon, for it runs without systemd as well.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends `READY=1`; nothing without systemd.
///
/// # Errors
/// If systemd gave a socket and it cannot be written.
pub fn ready() -> io::Result<()> {
    send("READY=1")
}

/// Sends `STOPPING=1`; nothing without systemd.
///
/// # Errors
/// If systemd gave a socket and it cannot be written.
pub fn stopping() -> io::Result<()> {
    send("STOPPING=1")
}

fn send(state: &str) -> io::Result<()> {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    // A name that begins with '@' lives in the abstract namespace of unix(7).
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}
