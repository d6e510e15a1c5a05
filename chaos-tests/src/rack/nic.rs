//! The machines' network cards.
//!
//! What this is: per machine, network path and member one UDP socket; what the agent sends to it goes on to the member
//! as long as cable, supply and switch port let it pass.
//! Why it exists: so the agent is the real one, and cutting a cable or closing a port really cuts it off.
//! What it never does: it reads or changes no datagram.

use super::world::World;
use policies::NodeId;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tracing::debug;

/// Longest datagram that is forwarded, in bytes. A heartbeat has 64.
const DATAGRAM_MAX: usize = 2048;

/// Puts a card into a machine: path number `index`, a way to each member. Returns where the agent sends to.
///
/// # Errors
/// If there is no socket to be had.
pub async fn plug(
    tasks: &mut JoinSet<()>,
    world: &Arc<World>,
    node: &NodeId,
    index: usize,
    members: &[String],
) -> io::Result<Vec<String>> {
    let mut ways = Vec::new();
    for member in members {
        let socket = UdpSocket::bind(SocketAddr::new(world.description().api.ip(), 0)).await?;
        ways.push(socket.local_addr()?.to_string());
        tasks.spawn(forward(socket, world.clone(), node.clone(), index, member.clone()));
    }
    Ok(ways)
}

async fn forward(socket: UdpSocket, world: Arc<World>, node: NodeId, index: usize, member: String) {
    let mut datagram = [0; DATAGRAM_MAX];
    loop {
        // Errors on a UDP socket are those of an earlier send: a member that is not there. The next one may arrive.
        let received = match socket.recv(&mut datagram).await {
            Ok(received) => received,
            Err(error) => {
                debug!(%node, %error, "receive from the agent");
                continue;
            }
        };
        let Some(datagram) = datagram.get(..received) else { continue };
        if world.passes(&node, index)
            && let Err(error) = socket.send_to(datagram, &member).await
        {
            debug!(%node, %member, %error, "forward a heartbeat");
        }
    }
}
