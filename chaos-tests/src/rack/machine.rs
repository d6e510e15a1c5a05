//! A machine: power, and the processes that run while it is on.
//!
//! What this is: one task that owns a machine's processes and carries out orders one after the other.
//! Why it exists: off must mean that every process is gone and reaped, before anybody reads "off".
//! What it never does: it knows no BMC and no network, and has no will of its own, except to boot after power-on.

use super::journal::Change;
use super::qmp::Button;
use super::software::{Programs, Software};
use policies::Power;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tracing::error;

/// What a machine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Life {
    /// No power.
    Off,
    /// On; no operating system yet.
    Booting,
    /// All is well.
    Running,
    /// All is well, except that the agent stands still.
    Gray,
    /// The operating system ends in order; then the power goes.
    Stopping,
    /// On; stands still for good.
    Hung,
    /// On; stands still until it thaws.
    Frozen,
    /// On; the operating system is gone.
    Panicked,
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Life::Off => "off",
            Life::Booting => "booting",
            Life::Running => "running",
            Life::Gray => "gray",
            Life::Stopping => "stopping",
            Life::Hung => "hung",
            Life::Frozen => "frozen",
            Life::Panicked => "panicked",
        })
    }
}

impl Life {
    /// What an honest BMC reads.
    pub fn power(self) -> Power {
        match self {
            Life::Off => Power::Off,
            Life::Booting
            | Life::Running
            | Life::Gray
            | Life::Stopping
            | Life::Hung
            | Life::Frozen
            | Life::Panicked => Power::On,
        }
    }

    /// True if the kernel answers the network.
    pub fn kernel_alive(self) -> bool {
        match self {
            Life::Running | Life::Gray | Life::Stopping => true,
            Life::Off | Life::Booting | Life::Hung | Life::Frozen | Life::Panicked => false,
        }
    }
}

/// What can be asked of a machine. An order that does not fit its state does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Switch on and boot.
    PowerOn,
    /// Switch off after this long.
    PowerOff {
        /// How long the board takes.
        after: Duration,
    },
    /// Switch off after this long, then on.
    Cycle {
        /// How long the board takes.
        after: Duration,
    },
    /// Start anew without losing power.
    Reset,
    /// Ask the operating system to shut down in order; then switch off.
    Shutdown {
        /// How long the board takes.
        after: Duration,
    },
    /// See [`super::Fault::Hang`].
    Hang,
    /// See [`super::Fault::Panic`].
    Panic {
        /// The panic hook still sends a farewell.
        gasp: bool,
    },
    /// See [`super::Fault::Freeze`].
    Freeze,
    /// See [`super::Fault::Thaw`].
    Thaw,
    /// See [`super::Fault::StopAgent`].
    StopAgent,
}

/// What the end of a delayed power-off is followed by.
#[derive(Clone, Copy)]
enum Then {
    StayOff,
    Boot,
}

/// Handle of a machine.
#[derive(Clone, Debug)]
pub struct Machine {
    orders: mpsc::UnboundedSender<(Order, Option<oneshot::Sender<()>>)>,
    life: watch::Receiver<Life>,
    lives: broadcast::Sender<Life>,
}

/// Changes of a life that a BMC may be behind; more than a machine goes through in a second.
const LIVES_BEHIND_MAX: usize = 16;
/// How long an operating system that shuts down in order is given for it.
const SHUTDOWN_MAX: Duration = Duration::from_secs(2);

impl Machine {
    /// A machine that is off. It ends, and its processes with it, when the last handle is dropped.
    pub fn install(boot_delay: Duration, software: Software) -> Self {
        let (orders, inbox) = mpsc::unbounded_channel();
        let (state, life) = watch::channel(Life::Off);
        let (lives, _) = broadcast::channel(LIVES_BEHIND_MAX);
        let board = Board {
            boot_delay,
            software,
            programs: Programs::default(),
            life: state,
            lives: lives.clone(),
            off_at: None,
            boot_at: None,
        };
        tokio::spawn(board.run(inbox));
        Machine { orders, life, lives }
    }

    /// What it is doing now.
    pub fn life(&self) -> Life {
        *self.life.borrow()
    }

    /// Told of each change of its life.
    pub fn watch(&self) -> watch::Receiver<Life> {
        self.life.clone()
    }

    /// Told every life that it leads from now on, however short: what a log is made of.
    pub fn lives(&self) -> broadcast::Receiver<Life> {
        self.lives.subscribe()
    }

    /// Gives an order and waits until it is carried out; a delayed power-off is carried out when its time runs.
    pub async fn order(&self, order: Order) {
        let (done, wait) = oneshot::channel();
        // A machine that has ended carries out nothing; then the wait ends at once, too.
        if self.orders.send((order, Some(done))).is_ok() {
            wait.await.unwrap_or_default();
        }
    }

    /// Gives an order and does not wait.
    pub fn post(&self, order: Order) {
        if self.orders.send((order, None)).is_err() {
            error!(?order, "the machine's task has ended");
        }
    }
}

struct Board {
    boot_delay: Duration,
    software: Software,
    programs: Programs,
    life: watch::Sender<Life>,
    lives: broadcast::Sender<Life>,
    off_at: Option<(Instant, Then)>,
    boot_at: Option<Instant>,
}

impl Board {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<(Order, Option<oneshot::Sender<()>>)>) {
        loop {
            tokio::select! {
                () = until(self.next_due()) => self.catch_up().await,
                () = self.programs.emulator_ended() => self.off().await,
                order = inbox.recv() => {
                    let Some((order, done)) = order else { break };
                    self.obey(order).await;
                    // A power-off without delay is over before its order counts as carried out.
                    self.catch_up().await;
                    if let Some(done) = done {
                        // Whoever gave the order need not wait for it.
                        done.send(()).unwrap_or_default();
                    }
                }
            }
        }
        self.off().await;
    }

    fn life(&self) -> Life {
        *self.life.borrow()
    }

    fn lead(&self, life: Life) {
        let power = life.power();
        if self.life().power() != power {
            // Before anybody can read it.
            let node = self.software.node.clone();
            self.software.world.record(Change::Power { node, on: power == Power::On });
        }
        if self.life.send_replace(life) != life {
            // Nobody need be listening.
            self.lives.send(life).unwrap_or_default();
            self.software.world.note(format!("{} is {life}", self.software.node));
        }
    }

    fn next_due(&self) -> Option<Instant> {
        self.off_at.map(|(at, _)| at).into_iter().chain(self.boot_at).min()
    }

    /// Does what is due by now.
    async fn catch_up(&mut self) {
        let now = Instant::now();
        if let Some((_, then)) = self.off_at.take_if(|(at, _)| *at <= now) {
            self.off().await;
            match then {
                Then::StayOff => {}
                Then::Boot => self.on(),
            }
        }
        if self.boot_at.take_if(|at| *at <= now).is_some() {
            self.boot().await;
        }
    }

    async fn obey(&mut self, order: Order) {
        if self.life() == Life::Off {
            match order {
                Order::PowerOn => self.on(),
                Order::PowerOff { .. } | Order::Cycle { .. } | Order::Reset | Order::Shutdown { .. } => {}
                Order::Hang | Order::Panic { .. } | Order::Freeze | Order::Thaw | Order::StopAgent => {}
            }
            return;
        }
        match order {
            Order::PowerOn => {}
            Order::PowerOff { after } => self.off_at = Some((Instant::now() + after, Then::StayOff)),
            Order::Cycle { after } => self.off_at = Some((Instant::now() + after, Then::Boot)),
            Order::Reset => {
                self.off().await;
                self.on();
            }
            Order::Shutdown { after } => self.shut_down(after).await,
            Order::Hang => self.hang(),
            Order::Panic { gasp } => self.panic(gasp).await,
            Order::Freeze => self.freeze(),
            Order::Thaw => self.thaw(),
            Order::StopAgent => self.stop_agent(),
        }
    }

    fn on(&mut self) {
        self.lead(Life::Booting);
        self.boot_at = Some(Instant::now() + self.boot_delay);
    }

    /// Only when every process is gone and reaped does anybody read "off".
    async fn off(&mut self) {
        self.boot_at = None;
        self.programs.kill().await;
        self.lead(Life::Off);
    }

    async fn boot(&mut self) {
        match self.software.start().await {
            Ok(programs) => self.programs = programs,
            Err(error) => error!(node = %self.software.node, %error, "the machine did not boot"),
        }
        self.lead(Life::Running);
    }

    /// What stands still cannot shut down; a real machine then ignores the power button, too.
    /// Workloads and agent are told to end; the agent says farewell. An emulated machine ends by itself, or does not.
    async fn shut_down(&mut self, after: Duration) {
        match self.life() {
            Life::Running | Life::Gray | Life::Stopping if self.software.is_emulated() => {
                self.lead(Life::Stopping);
                self.software.press(Button::Power).await;
            }
            Life::Running | Life::Gray => {
                self.lead(Life::Stopping);
                self.programs.end(SHUTDOWN_MAX).await;
                self.off_at = Some((Instant::now() + after, Then::StayOff));
            }
            Life::Off | Life::Booting | Life::Stopping | Life::Hung | Life::Frozen | Life::Panicked => {}
        }
    }

    /// The kernel falls silent before its processes stand still.
    fn hang(&mut self) {
        self.boot_at = None;
        self.lead(Life::Hung);
        self.programs.stop();
    }

    fn freeze(&mut self) {
        match self.life() {
            Life::Running | Life::Gray => {
                self.lead(Life::Frozen);
                self.programs.stop();
            }
            Life::Off | Life::Booting | Life::Stopping | Life::Hung | Life::Frozen | Life::Panicked => {}
        }
    }

    fn thaw(&mut self) {
        if self.life() == Life::Frozen {
            self.programs.go_on();
            self.lead(Life::Running);
        }
    }

    fn stop_agent(&mut self) {
        if self.life() == Life::Running {
            self.programs.stop_agent();
            self.lead(Life::Gray);
        }
    }

    async fn panic(&mut self, gasp: bool) {
        self.boot_at = None;
        self.lead(Life::Panicked);
        if self.software.is_emulated() {
            // What is dead is up to its kernel, and so are last words.
            return self.software.press(Button::Interrupt).await;
        }
        self.programs.kill().await;
        if gasp {
            self.software.gasp().await;
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
