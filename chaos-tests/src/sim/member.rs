//! One life of a member: the product, put together as the daemon does, on a runtime of its own.
//!
//! Why it exists: a runtime of its own is what makes a member a process: dropping it is `kill -9` at whatever its tasks
//! were waiting for, not running it is SIGSTOP, and its clock is its own.
//! What it never does: anything that `supervisor::daemon` would not do, but for the HTTPS API, whose place is taken
//! by [`Call`].

use super::disk::Disk;
use super::libc::{self, Clock};
use super::net::SimWire;
use super::outside::SimOutside;
use super::scene::Setup;
use super::world::{Death, World};
use crate::checkers::{Answer, Fact};
use policies::{MemberId, Proposal, View};
use raft_store::ground::Ground;
use raft_store::{Member, ProposeError, Settings, Store, StoreEvent, Tape};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use supervisor::clock;
use supervisor::executor::Executor;
use supervisor::ingest::{Batch, Command, Counters, Ears, IngestError, Table};
use supervisor::metrics::Metrics;
use supervisor::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

/// How often silence is looked for: twice the product's step, which costs 20 ms of detection and halves the work.
const EARS_TICK: Duration = Duration::from_millis(20);

/// What a client asks a member for.
#[derive(Debug)]
pub enum Call {
    /// Put this into the log.
    Propose {
        /// The request's number.
        request: u64,
        /// What.
        proposal: Arc<Proposal>,
    },
    /// Read the newest state.
    Read {
        /// The request's number.
        request: u64,
    },
    /// Let this member learn, then vote.
    Admit(MemberId),
    /// Remove a member, once its successor votes.
    Remove {
        /// The member.
        old: MemberId,
        /// Its successor.
        new: MemberId,
    },
    /// Hand leadership over.
    Transfer(MemberId),
}

/// A life that is going on.
pub struct Life {
    runtime: tokio::runtime::Runtime,
    origin: Instant,
    clock: Clock,
    /// How far its clock is, in ns since the origin.
    passed: u64,
    /// Its store, once it is open: for judging what it knows at the end.
    pub store: watch::Receiver<Option<Store>>,
}

impl Life {
    /// Begins a life.
    pub fn begin(world: &World, member: MemberId, setup: &Arc<Setup>) -> std::io::Result<Life> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let (calls, called) = mpsc::unbounded_channel();
        let (clock, life) = world.with(|inner| {
            let now = inner.now;
            let process = inner.process(member);
            process.life += 1;
            (process.running, process.doomed) = (true, None);
            process.inbox.clear();
            process.calls = Some(calls);
            let life = process.life;
            let boottime = process.local;
            let wall = process.wall();
            inner.forget_knocking(member);
            inner.mix(&[now, member.0, life]);
            inner.fact(Fact::Started { member, life });
            ((boottime, wall), life)
        });
        let origin = {
            let _inside = runtime.enter();
            Instant::now()
        };
        let clock = Clock { origin, boottime: clock.0, wall: clock.1 };
        let (opened, store) = watch::channel(None);
        let body = Body { world: world.clone(), member, life, setup: Arc::clone(setup), opened };
        let world = world.clone();
        runtime.spawn(async move {
            let why = body.run(called).await;
            world.with(|inner| {
                if inner.process(member).is(life) {
                    inner.fact(Fact::Trouble { what: format!("{member} stops: {why}") });
                    inner.process(member).excused |= why.contains(raft_store::DEPOSED_MEANWHILE);
                    inner.doom(member, Some(Death::Stopped));
                }
            });
        });
        Ok(Life { runtime, origin, clock, passed: 0, store })
    }

    /// Lets it run for `length` ns of its own clock. `jump`: the clock moves first, and everything is late.
    pub fn run(&mut self, length: u64, jump: bool) {
        self.passed += length;
        let end = self.origin + Duration::from_nanos(self.passed);
        libc::set_clock(Some(self.clock));
        self.runtime.block_on(async move {
            if jump {
                tokio::time::advance(end.saturating_duration_since(Instant::now())).await;
            }
            tokio::time::sleep_until(end).await;
        });
        libc::set_clock(None);
    }

    /// The wall clock jumps.
    pub fn step_wall(&mut self, by: u64) {
        self.clock.wall += by;
    }

    /// The machine was suspended: CLOCK_BOOTTIME has gone on, nothing else has.
    pub fn suspend(&mut self, by: u64) {
        self.clock.boottime += by;
        self.clock.wall += by;
    }
}

struct Body {
    world: World,
    member: MemberId,
    life: u64,
    setup: Arc<Setup>,
    opened: watch::Sender<Option<Store>>,
}

fn address(member: MemberId) -> Member {
    Member { id: member, address: member.to_string(), api: member.to_string(), voter: true }
}

impl Body {
    /// Runs until it cannot go on; says why.
    async fn run(self, calls: mpsc::UnboundedReceiver<Call>) -> String {
        let (world, member, life) = (self.world.clone(), self.member, self.life);
        let medium = Arc::new(Disk { world: world.clone(), member, life });
        let wire = SimWire { world: world.clone(), member, life };
        let settings = Settings {
            me: member,
            cluster: "sim".to_owned(),
            timing: self.setup.timing,
            snapshots: self.setup.snapshots,
        };
        let ground = Ground { medium, wire: Arc::new(wire.clone()), door: Box::new(wire) };
        let (store, events) = match Store::open_on(ground, settings).await {
            Ok(opened) => opened,
            Err(error) => return policies::causes(&error),
        };
        self.opened.send_replace(Some(store.clone()));
        if self.setup.founder == member
            && world.with(|inner| !std::mem::replace(&mut inner.process(member).founded, true))
            && let Err(error) = store.bootstrap(&address(member)).await
        {
            return policies::causes(&error);
        }
        tokio::spawn(self.answer(store.clone(), calls));
        let outside = Arc::new(SimOutside {
            world: world.clone(),
            member,
            life,
            power_effect_max: self.setup.policy.fencing.power_effect_max,
            provider_effect_max: self.setup.policy.fencing.provider_effect_max,
        });
        let heard = Arc::new(Counters::default());
        let counters = Arc::clone(&heard);
        let ears = Ears::of(|commands, batches| listen(world.clone(), member, commands, batches, counters));
        let Ok(metrics) = Metrics::new("sim", member) else { return "no metrics".to_owned() };
        let (view, _viewed) = watch::channel(Arc::new(View::default()));
        let (_stop, stop) = watch::channel(false);
        // Nobody asks here what the brain would do.
        let (_, questions) = mpsc::channel(1);
        let runtime = Runtime {
            questions,
            store: store.clone(),
            events: self.overhear(events),
            ears,
            heard,
            executor: Executor::new(store, Arc::clone(&outside)),
            outside,
            seal: self.setup.seal.clone(),
            metrics,
            view,
            me: member,
            domain: format!("room-{member}"),
            tape: Tape::none(),
        };
        match runtime.run(stop).await {
            Ok(()) => "it was told to".to_owned(),
            Err(error) => policies::causes(&error),
        }
    }

    /// Tells what the store tells.
    fn overhear(
        &self,
        mut events: mpsc::UnboundedReceiver<StoreEvent>,
    ) -> mpsc::UnboundedReceiver<StoreEvent> {
        let (to, overheard) = mpsc::unbounded_channel();
        let (world, member, life) = (self.world.clone(), self.member, self.life);
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let fact = match &event {
                    StoreEvent::Applied { index, proposal } => {
                        Some(Fact::Applied { member, index: *index, proposal: Arc::clone(proposal) })
                    }
                    StoreEvent::Installed(state) => {
                        Some(Fact::Installed { member, state: Arc::clone(state) })
                    }
                    StoreEvent::Leader { .. } | StoreEvent::Message { .. } | StoreEvent::Fatal(_) => None,
                };
                world.with(|inner| {
                    if let Some(fact) = fact.filter(|_| inner.process(member).is(life)) {
                        inner.fact(fact);
                    }
                });
                if to.send(event).is_err() {
                    return;
                }
            }
        });
        overheard
    }

    /// Serves clients, in place of the HTTPS API.
    fn answer(
        &self,
        store: Store,
        mut calls: mpsc::UnboundedReceiver<Call>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (world, member, life) = (self.world.clone(), self.member, self.life);
        async move {
            while let Some(call) = calls.recv().await {
                let (world, store) = (world.clone(), store.clone());
                tokio::spawn(async move {
                    let served = serve(&store, call).await;
                    world.with(|inner| match served {
                        Some(Served::Answer { request, answer }) if inner.process(member).is(life) => {
                            inner.fact(Fact::Answered { request, answer });
                        }
                        Some(Served::Removed(old)) if inner.process(member).is(life) => inner.retire(old),
                        Some(_) | None => {}
                    });
                });
            }
        }
    }
}

/// What came of a call.
enum Served {
    /// A client is told.
    Answer { request: u64, answer: Answer },
    /// The member is out.
    Removed(MemberId),
}

async fn serve(store: &Store, call: Call) -> Option<Served> {
    match call {
        Call::Propose { request, proposal } => {
            let answer = match store.propose((*proposal).clone()).await {
                Ok((index, _)) => Answer::Committed(index),
                Err(ProposeError::OutcomeUnknown { .. }) => Answer::Unknown,
                Err(ProposeError::NotLeader { .. } | ProposeError::TooLarge { .. }) => Answer::Failed,
                Err(ProposeError::Fatal(_)) => Answer::Unknown,
            };
            Some(Served::Answer { request, answer })
        }
        Call::Read { request } => {
            let answer = match store.barrier().await {
                Ok(()) => Answer::State(store.read(|state| state.applied)),
                Err(_) => Answer::Failed,
            };
            Some(Served::Answer { request, answer })
        }
        Call::Admit(member) => {
            drop(store.add_learner(address(member)).await);
            drop(store.promote(member).await);
            None
        }
        Call::Remove { old, new } => {
            let votes = store.members().iter().any(|member| member.id == new && member.voter);
            let removed = votes && store.remove(old).await.is_ok();
            removed.then_some(Served::Removed(old))
        }
        Call::Transfer(member) => {
            drop(store.transfer(member).await);
            None
        }
    }
}

/// The ingest, fed by the world instead of a socket.
async fn listen(
    world: World,
    member: MemberId,
    mut commands: mpsc::Receiver<Command>,
    batches: mpsc::Sender<Batch>,
    counters: Arc<Counters>,
) -> Result<(), IngestError> {
    let mut table = Table::new(clock::mono(), counters);
    let mut ticks = tokio::time::interval(EARS_TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let arrived = std::future::poll_fn(|context| {
            world.with(|inner| {
                let process = inner.process(member);
                process.ears = process.inbox.is_empty().then(|| context.waker().clone());
                if process.ears.is_some() { Poll::Pending } else { Poll::Ready(()) }
            })
        });
        let ticked = tokio::select! {
            command = commands.recv() => match command {
                Some(command) => {
                    table.obey(command, clock::mono());
                    false
                }
                None => return Ok(()),
            },
            () = arrived => false,
            _ = ticks.tick() => true,
        };
        // As in the product: what has arrived comes before silence.
        for datagram in world.with(|inner| std::mem::take(&mut inner.process(member).inbox)) {
            table.datagram(&datagram, clock::mono());
        }
        if ticked {
            table.tick(clock::mono());
        }
        if let Some(batch) = table.take_news()
            && batches.send(batch).await.is_err()
        {
            return Ok(());
        }
    }
}
