//! The machines' kernels, as far as the network sees them.
//!
//! What this is: per machine one TCP listener that accepts and closes while the kernel is alive and reachable.
//! Why it exists: a stopped process's listener still completes connections, so the machine's own processes cannot
//! answer for its kernel.
//! What it never does: it refuses no connection. A dead kernel sends nothing at all, and neither does this: a filter
//! that drops every packet is put before the listener (SO_ATTACH_FILTER, socket(7)), so connecting times out.

use super::array_server::ACCEPT_PAUSE;
use super::machine::Machine;
use super::world::World;
use policies::NodeId;
use socket2::{SockFilter, SockRef};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, error};

/// The shortest filter program: return 0, "keep no byte of the packet" (BPF_RET | BPF_K, linux/filter.h).
const DROP_ALL: [SockFilter; 1] = [SockFilter::new(0x06, 0, 0, 0)];

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
    set_alive(&listener, false)?;
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
            if let Err(error) = set_alive(&listener, now_alive) {
                error!(%node, %error, "cannot filter the packets of a kernel");
                return;
            }
            alive = now_alive;
        }
        tokio::select! {
            changed = life.changed() => if changed.is_err() { return },
            changed = cables.changed() => if changed.is_err() { return },
            accepted = listener.accept() => {
                if let Err(error) = accepted {
                    debug!(%node, %error, "accept a probe");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

fn set_alive(listener: &TcpListener, alive: bool) -> io::Result<()> {
    let socket = SockRef::from(listener);
    if alive { socket.detach_filter() } else { socket.attach_filter(&DROP_ALL) }
}
