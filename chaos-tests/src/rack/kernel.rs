//! The machines' kernels, as far as the network sees them.
//!
//! What this is: per machine one TCP listener that accepts and closes while the kernel is alive and reachable.
//! Why it exists: a stopped process's listener still completes connections, so the machine's own processes cannot
//! answer for its kernel.
//! What it never does: it refuses no connection. A dead kernel sends nothing at all, and neither does this: its accept
//! queue is kept full, and Linux drops a SYN that finds it full (tcp(7), `tcp_abort_on_overflow`), so connecting times
//! out. A packet filter (SO_ATTACH_FILTER) would be simpler, but some kernels give it to root only.

use super::array_server::ACCEPT_PAUSE;
use super::machine::Machine;
use super::world::World;
use policies::NodeId;
use socket2::SockRef;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, error};

/// Room in a living kernel's accept queue.
const BACKLOG: i32 = 128;
/// A connection over loopback is there at once or, if the queue is full, not at all.
const FILL_MAX: Duration = Duration::from_millis(50);

/// Lets a machine's kernel answer at an address.
///
/// # Errors
/// If the address cannot be had.
pub async fn listen(
    tasks: &mut JoinSet<()>,
    world: &Arc<World>,
    node: &NodeId,
    machine: Machine,
    address: SocketAddr,
) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    fall_silent(&listener).await?;
    tasks.spawn(answer(listener, world.clone(), node.clone(), machine));
    Ok(())
}

async fn answer(listener: TcpListener, world: Arc<World>, node: NodeId, machine: Machine) {
    let (mut life, mut cables) = (machine.watch(), world.watch());
    // The machine ends only with the rack; holding its orders open here would keep it from ending.
    drop(machine);
    let mut alive = false;
    loop {
        let kernel = life.borrow_and_update().kernel_alive();
        cables.borrow_and_update();
        let now_alive = kernel && (world.passes(&node, 0) || world.passes(&node, 1));
        if now_alive != alive {
            let changed = match now_alive {
                // What waits in the queue is accepted below.
                true => SockRef::from(&listener).listen(BACKLOG),
                false => fall_silent(&listener).await,
            };
            if let Err(error) = changed {
                error!(%node, %error, "cannot let a kernel live or die");
                return;
            }
            alive = now_alive;
        }
        tokio::select! {
            changed = life.changed() => if changed.is_err() { return },
            changed = cables.changed() => if changed.is_err() { return },
            accepted = listener.accept(), if alive => {
                if let Err(error) = accepted {
                    debug!(%node, %error, "accept a probe");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Lets the accept queue hold one connection and fills it, unless it is full already. A connection that is closed stays
/// in the queue until it is accepted.
async fn fall_silent(listener: &TcpListener) -> io::Result<()> {
    SockRef::from(listener).listen(0)?;
    match timeout(FILL_MAX, TcpStream::connect(listener.local_addr()?)).await {
        Ok(filled) => filled.map(drop),
        Err(_) => Ok(()),
    }
}
