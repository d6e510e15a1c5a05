//! What a heartbeat costs the member: CPU time of the thread that reads, proves and files them, per heartbeat.
//!
//! Why it exists: goals for the ingest are given in heartbeats a second and core (facts/performance.md §1b), and only
//! CPU time can be compared on a machine that does other things too.
//! What it never does: it says nothing about a network card's interrupts; all datagrams come over the loopback.
//!
//! `cargo run --release -p supervisor --example ingest_rate -- [NODES] [SECONDS]`

use ha_agent::key::Key;
use ha_agent::wire::{Beat, NodeTag, encode};
use nix::time::{ClockId, clock_gettime};
use policies::watch::Limits;
use policies::{BootId, Epoch, Heartbeat, Millis, NodeId};
use std::error::Error;
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use supervisor::ingest::{Command, Counters, Ingest};
use tokio::sync::{mpsc, oneshot};

/// Fits the receive buffer that any user gets; four reads of the ingest.
const BURST: usize = 256;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let nodes: u64 = arguments.next().map_or(Ok(10_000), |text| text.parse())?.max(1);
    let seconds: u64 = arguments.next().map_or(Ok(5), |text| text.parse())?;
    // One thread: it sends a burst, then reads it, and only the reading is measured.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure(nodes, seconds))
}

async fn measure(nodes: u64, seconds: u64) -> Result<(), Failure> {
    let counters = Arc::new(Counters::default());
    let ingest = Ingest::bind(SocketAddr::from(([127, 0, 0, 1], 0)), counters.clone())?;
    let local = ingest.local_addr();
    let (commands, obeyed) = mpsc::channel(64);
    let (noticed, mut batches) = mpsc::channel(64);
    let running = tokio::spawn(ingest.run(obeyed, noticed));
    tokio::spawn(async move { while batches.recv().await.is_some() {} });
    let limits = Limits { suspect_after: Millis::secs(2), write_stale_after: Millis::secs(30), paths_min: 1 };
    for number in 0..nodes {
        let (node, key) = node(number)?;
        commands.send(Command::Enroll { node, key, limits }).await?;
    }
    let (answer, asked) = oneshot::channel();
    commands.send(Command::Snapshot(answer)).await?;
    let enrolled = asked.await?.len();

    let mut sender = Sender::new(local, nodes)?;
    let (start, mut cpu, mut sent) = (Instant::now(), Duration::ZERO, 0);
    while start.elapsed() < Duration::from_secs(seconds) {
        sent += sender.burst()?;
        let before = thread_cpu()?;
        while counters.accepted.load(Relaxed) < sent {
            if start.elapsed() > Duration::from_secs(2 * seconds) {
                return Err(format!("lost heartbeats: {:?}", counters.totals()).into());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        cpu += thread_cpu()?.saturating_sub(before);
    }
    drop(commands);
    running.await??;
    let each = cpu.as_nanos() / u128::from(sent.max(1));
    writeln!(
        std::io::stdout(),
        "{enrolled} nodes, {sent} heartbeats in bursts of {BURST}: {each} ns of CPU for each"
    )?;
    Ok(())
}

fn node(number: u64) -> Result<(NodeId, Key), Failure> {
    Ok((format!("n{number}").parse()?, Key::new(*blake3::hash(&number.to_le_bytes()).as_bytes())))
}

/// Heartbeats of all nodes in turn.
struct Sender {
    socket: UdpSocket,
    nodes: Vec<(NodeTag, Key)>,
    sent: usize,
}

impl Sender {
    fn new(to: SocketAddr, nodes: u64) -> Result<Self, Failure> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(to)?;
        let tagged = |number| node(number).map(|(name, key)| (NodeTag::of(name.as_str()), key));
        Ok(Sender { socket, nodes: (0..nodes).map(tagged).collect::<Result<_, _>>()?, sent: 0 })
    }

    /// Sends a burst; how many it was.
    fn burst(&mut self) -> Result<u64, Failure> {
        let said =
            Heartbeat { boot: BootId(1), epoch: Epoch(1), write_age: Some(Millis(1)), last_gasp: None };
        for (node, key) in self.nodes.iter().cycle().skip(self.sent % self.nodes.len()).take(BURST) {
            self.sent += 1;
            let beat = Beat { node: *node, path: 0, sequence: self.sent as u64, asks: false, said };
            self.socket.send(&encode(&beat, key))?;
        }
        Ok(BURST as u64)
    }
}

fn thread_cpu() -> Result<Duration, Failure> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}
