//! A machine's BMC: IPMI 2.0 over LAN, as real as a client can tell.
//!
//! What this is: the socket of one BMC and its task; the protocol is in `session`, what it can do in `unit`.
//! Why it exists: ipmi_sim has no suite 17, forks a program for each status and cannot be had by the thousand. This one
//! is a socket and a small task, and it can be slow, dead, short of sessions and a liar.
//! What it never does: it has no thread of its own, and gives nothing away to who does not know the password.

mod records;
mod session;
#[cfg(test)]
mod tests;
mod unit;

pub use session::{Account, Bmc, Surroundings};

use super::chassis::{Chassis, Control};
use super::journal::Change;
use super::world::World;
use fencing::ipmi::codec::DATAGRAM_MAX;
use policies::{NodeId, Power};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::UdpSocket;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::debug;

/// Puts a BMC at an address.
///
/// # Errors
/// If the address cannot be had.
pub async fn install(
    tasks: &mut JoinSet<()>,
    world: &Arc<World>,
    node: &NodeId,
    chassis: Chassis,
    account: Account,
    address: SocketAddr,
) -> io::Result<()> {
    let socket = UdpSocket::bind(address).await?;
    let task = Task { socket, world: world.clone(), node: node.clone(), chassis, started: Instant::now() };
    tasks.spawn(task.run(Bmc::new(account)));
    Ok(())
}

struct Task {
    socket: UdpSocket,
    world: Arc<World>,
    node: NodeId,
    chassis: Chassis,
    started: Instant,
}

impl Task {
    async fn run(self, mut bmc: Bmc) {
        let mut lives = self.chassis.machine().lives();
        let mut buffer = [0; DATAGRAM_MAX + 1];
        let mut losses = 0;
        loop {
            let supply_losses = self.world.cables(&self.node).map_or(0, |cables| cables.supply_losses);
            if supply_losses != losses {
                losses = supply_losses;
                bmc.lose_supply(self.surroundings().seconds);
            }
            let watchdog = bmc.watchdog_due().map(|due| self.started + due);
            tokio::select! {
                received = self.socket.recv_from(&mut buffer) => match received {
                    Ok((length, from)) => {
                        let datagram = buffer.get(..length).unwrap_or_default();
                        self.answer(&mut bmc, datagram, from).await;
                    }
                    // The error is that of an earlier answer to somebody who has gone.
                    Err(error) => debug!(node = %self.node, %error, "receive at a BMC"),
                },
                life = lives.recv() => match life {
                    Ok(life) if self.supplied() => bmc.saw(life, self.surroundings().seconds),
                    // It missed something, as a BMC that is off or busy does.
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                },
                () = expiry(watchdog) => {
                    // A watchdog without supply runs out and does nothing.
                    if let (Some(control), true) = (bmc.watchdog_expired(self.surroundings()), self.supplied()) {
                        self.control(control);
                    }
                }
            }
        }
    }

    async fn answer(&self, bmc: &mut Bmc, datagram: &[u8], from: SocketAddr) {
        let mood = self.chassis.mood();
        if mood.dead || !self.supplied() {
            return;
        }
        let Some(answer) = bmc.handle(datagram, from, self.surroundings(), &mut rand::rng()) else { return };
        if let Some(control) = answer.control {
            let node = self.node.clone();
            self.world.record(match control {
                Control::Soft => Change::Asked { node },
                Control::Off => Change::Commanded { node, on: false },
                Control::On | Control::Cycle | Control::Reset | Control::Diagnostic => {
                    Change::Commanded { node, on: true }
                }
            });
            self.control(control);
        }
        if let Some(power) = answer.told {
            self.world.record(Change::Told { node: self.node.clone(), on: power == Power::On });
        }
        if mood.reply_delay.0 > 0 {
            sleep(Duration::from_millis(mood.reply_delay.0)).await;
        }
        if let Err(error) = self.socket.send_to(&answer.datagram, from).await {
            debug!(node = %self.node, %error, "answer of a BMC");
        }
    }

    /// The mood was asked before the command was accepted, so a refusal here comes of a change in between.
    fn control(&self, control: Control) {
        if let Err(error) = self.chassis.control(control) {
            debug!(node = %self.node, %error, "power plane");
        }
    }

    fn supplied(&self) -> bool {
        self.world.cables(&self.node).is_some_and(|cables| cables.supply)
    }

    fn surroundings(&self) -> Surroundings {
        let mood = self.chassis.mood();
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Surroundings {
            now: self.started.elapsed(),
            seconds: u32::try_from(since_1970.as_secs()).unwrap_or(u32::MAX),
            power: self.chassis.power(),
            refuses_power: mood.honesty == super::fault::Honesty::Refuses,
            sessions_max: mood.sessions_max,
        }
    }
}

async fn expiry(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
