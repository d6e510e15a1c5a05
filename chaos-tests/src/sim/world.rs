//! The world: one clock, one queue of what will happen, and everything that members can touch.
//!
//! Why it exists: nothing in a simulation happens but by this queue, so the same seed gives the same history.
//! What it never does: run a member; that is `simulation.rs`.

use super::array::Array;
use super::dice::Dice;
use super::fault::{Blow, Moment};
use super::machine::Machine;
use super::net::Net;
use super::trace::Trace;
use crate::checkers::{Court, Fact};
use policies::{MemberId, NodeId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

/// A heartbeat on the wire.
pub type Datagram = [u8; ha_agent::wire::BEAT_BYTES];

/// The world, shared by everything in it. One thread: the lock is never waited for.
#[derive(Clone, Debug)]
pub struct World(Arc<Mutex<Inner>>);

impl World {
    /// An empty world.
    pub fn new(dice: Dice, trace: Trace, court: Court) -> Self {
        World(Arc::new(Mutex::new(Inner {
            now: 0,
            queue: BTreeMap::new(),
            queued: 0,
            checks: Dice::of(dice.clone().draw(), "checks"),
            dice,
            trace,
            court,
            net: Net::default(),
            processes: BTreeMap::new(),
            machines: BTreeMap::new(),
            array: Array::default(),
            cut_nodes: BTreeMap::new(),
            requests: 0,
            trap: None,
            echo: ECHO,
        })))
    }

    /// Looks at the world, or changes it.
    pub fn with<T>(&self, doing: impl FnOnce(&mut Inner) -> T) -> T {
        doing(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Something that will happen.
type Happening = Box<dyn FnOnce(&mut Inner) + Send>;

/// Of 1,000 commands to devices so many are usually carried out twice: a retry by what lies between.
pub const ECHO: u64 = 10;

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// The process is killed; its machine lives on.
    Killed,
    /// The machine loses power.
    Power,
    /// It stopped by itself.
    Stopped,
}

/// A member, seen from outside.
#[derive(Debug, Default)]
pub struct Process {
    /// Counts its starts.
    pub life: u64,
    /// Set the moment its life is over: from then on nothing that it does reaches the world.
    pub doomed: Option<Death>,
    /// True while a life is going on.
    pub running: bool,
    /// Its disk.
    pub platter: super::disk::Platter,
    /// Heartbeats that have arrived and were not read yet.
    pub inbox: Vec<Datagram>,
    /// Who reads them.
    pub ears: Option<Waker>,
    /// It dies after this many more syncs.
    pub dies_after_syncs: Option<(u64, Death)>,
    /// It dies after this many more commands to devices.
    pub dies_after_sends: Option<(u64, Death)>,
    /// Runs no instruction until then (SIGSTOP, a frozen virtual machine).
    pub paused_until: u64,
    /// How fast its clock runs, in millionths.
    pub rate: u64,
    /// What its clock has passed since the beginning, in ns.
    pub local: u64,
    /// Of that, what its life has not yet been given.
    pub unserved: u64,
    /// Added to what its wall clock shows, in ns.
    pub wall_step: u64,
    /// Of that, what its life does not know yet.
    pub wall_stepped: u64,
    /// Where clients reach it.
    pub calls: Option<tokio::sync::mpsc::UnboundedSender<super::member::Call>>,
    /// It has begun the cluster.
    pub founded: bool,
    /// How long it stays down when it dies next, in µs.
    pub down: u64,
    /// When its next life begins.
    pub restart_at: Option<u64>,
    /// It may stop by itself: its disk fails.
    pub excused: bool,
    /// It was removed from the cluster for good.
    pub retired: bool,
    /// Its disk has changed what it keeps: it may find that out and stop, at every start.
    pub unsound: bool,
    /// Its disk has lost what it had said to keep: it reaches nobody any more.
    pub outcast: bool,
    /// Its machine sleeps until then: all its clocks but CLOCK_BOOTTIME stand still.
    pub asleep_until: u64,
    /// What CLOCK_BOOTTIME is to jump ahead by when it wakes, in ns.
    pub suspended: u64,
}

/// A proposal that seems older, in ms, was made before the clock was moved.
const CLOCK_MOVED: u64 = 20_000;
/// What wall clocks show when a simulation begins, in ns since 1970.
const WALL: u64 = 1_800_000_000_000_000_000;

impl Process {
    /// What its wall clock shows, in ns since 1970.
    pub fn wall(&self) -> u64 {
        WALL + self.local + self.wall_step
    }

    /// True if this life is still going on.
    pub fn is(&self, life: u64) -> bool {
        self.life == life && self.is_up()
    }

    /// True if any life is going on.
    pub fn is_up(&self) -> bool {
        self.running && self.doomed.is_none()
    }
}

/// What the world consists of.
pub struct Inner {
    /// Its clock, in µs.
    pub now: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    queued: u64,
    /// Its chances.
    pub dice: Dice,
    /// Chances of questions that change nothing, so that asking them leaves all others as they are.
    pub checks: Dice,
    /// What is told.
    pub trace: Trace,
    /// Who judges.
    pub court: Court,
    /// The network between members.
    pub net: Net,
    /// The members.
    pub processes: BTreeMap<MemberId, Process>,
    /// The nodes.
    pub machines: BTreeMap<NodeId, Machine>,
    /// Storage, switch and boot service.
    pub array: Array,
    /// Ways between a node and a member that are cut, until this time: heartbeats, and questions to the kernel.
    pub cut_nodes: BTreeMap<(NodeId, MemberId), u64>,
    /// Requests of clients so far.
    pub requests: u64,
    /// Whoever comes to this moment after so many others is struck, for so many µs.
    pub trap: Option<(Moment, u64, Blow, u64)>,
    /// Of 1,000 commands to devices so many are carried out twice.
    pub echo: u64,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the world at {} µs", self.now)
    }
}

impl Inner {
    /// Lets something happen at `time`, after all that happens then already.
    pub fn at(&mut self, time: u64, happening: impl FnOnce(&mut Inner) + Send + 'static) {
        self.queued += 1;
        self.queue.insert((time.max(self.now), self.queued), Box::new(happening));
    }

    /// The same, `delay` µs from now.
    pub fn after(&mut self, delay: u64, happening: impl FnOnce(&mut Inner) + Send + 'static) {
        self.at(self.now + delay, happening);
    }

    /// Lets everything happen that is due by `time`.
    pub fn advance(&mut self, time: u64) {
        while let Some(((due, _), _)) = self.queue.first_key_value()
            && *due <= time
        {
            let Some(((due, _), happening)) = self.queue.pop_first() else { break };
            self.now = self.now.max(due);
            happening(self);
        }
        self.now = time;
    }

    /// A member, as it is seen from outside.
    pub fn process(&mut self, member: MemberId) -> &mut Process {
        self.processes.entry(member).or_insert_with(|| Process { rate: 1_000_000, ..Process::default() })
    }

    /// Something happened that is told and judged.
    #[expect(clippy::needless_pass_by_value, reason = "whoever tells a fact is done with it")]
    pub fn fact(&mut self, fact: Fact) {
        self.trace.fact(self.now, &fact);
        self.court.scene.on_its_way = self.on_its_way(&fact);
        self.court.hear(self.now, &fact);
        self.tell(&fact);
    }

    /// How long ago a member proposed an entry, in µs, by that member's own clock. 0 if that has been moved since.
    fn on_its_way(&self, fact: &Fact) -> u64 {
        let Fact::Applied { proposal, .. } = fact else { return 0 };
        let member = proposal.by.strip_prefix("member/").and_then(|member| member.parse().ok());
        let Some(process) = member.and_then(|member| self.processes.get(&member)) else { return 0 };
        let age = (process.wall() / 1_000_000).saturating_sub(proposal.at.0);
        if age < CLOCK_MOVED { age * 1000 } else { 0 }
    }

    /// A fact in the words of the scenarios.
    fn tell(&mut self, fact: &Fact) {
        let now = self.now;
        match fact {
            Fact::Trouble { what } => self.trace.tell(now, || format!(">    {what}")),
            Fact::Started { member, .. } => self.trace.tell(now, || format!(">    {member} starts")),
            Fact::Died { member, how } => self.trace.tell(now, || format!(">    {member} dies ({how})")),
            Fact::Sent { member, deed, .. } => self.trace.tell(now, || format!("do   {deed} ({member})")),
            Fact::Power { .. } | Fact::Session { .. } | Fact::Port { .. } => {
                self.trace.tell(now, || fact.to_string().replacen("world  ", "is   ", 1));
            }
            Fact::Applied { index, proposal, .. } => {
                for event in std::mem::take(&mut self.court.scene.events) {
                    self.trace.tell(now, || format!("log  {}", event.text));
                }
                if let Some(Err(why)) = &self.court.scene.applied {
                    self.trace.tell(now, || format!("no   {index} by {}: {why}", proposal.by));
                }
            }
            Fact::Struck { .. }
            | Fact::Looked { .. }
            | Fact::Installed { .. }
            | Fact::Asked { .. }
            | Fact::Answered { .. } => {}
        }
    }

    /// Something happened that only makes this history different from others.
    pub fn mix(&mut self, numbers: &[u64]) {
        self.trace.mix(self.now, numbers);
    }

    /// A sync has succeeded: the moment at which a crash is most revealing.
    pub fn maybe_die_after_sync(&mut self, member: MemberId) {
        let process = self.process(member);
        let due = count_down(&mut process.dies_after_syncs);
        self.doom(member, due);
    }

    /// A command has been sent: the next such moment.
    pub fn maybe_die_after_send(&mut self, member: MemberId) {
        let process = self.process(member);
        let due = count_down(&mut process.dies_after_sends);
        self.doom(member, due);
        self.spring(member, Moment::Sent);
    }

    /// A member has come to a moment in which it may be struck. True if the device's answer to it is to be late.
    pub fn spring(&mut self, member: MemberId, moment: Moment) -> bool {
        let Some((at, skips, blow, length)) = &mut self.trap else { return false };
        if *at != moment {
            return false;
        }
        if *skips > 0 {
            *skips -= 1;
            return false;
        }
        let (blow, length) = (*blow, *length);
        self.trap = None;
        self.fact(Fact::Trouble {
            what: format!("{member} is struck ({blow:?}) when it has just {moment:?}"),
        });
        match blow {
            Blow::Pause => self.process(member).paused_until = self.now + length,
            Blow::CutOff => self.isolate(member, length),
            Blow::Kill => {
                self.process(member).down = length;
                self.doom(member, Some(Death::Killed));
            }
        }
        blow == Blow::CutOff
    }

    /// Ends a life, now.
    pub fn doom(&mut self, member: MemberId, death: Option<Death>) {
        let Some(death) = death else { return };
        let process = self.process(member);
        if !process.is_up() {
            return;
        }
        process.doomed = Some(death);
        (process.dies_after_syncs, process.dies_after_sends) = (None, None);
        let life = process.life;
        self.fact(Fact::Died { member, how: format!("{death:?}") });
        match death {
            Death::Power => {
                let mut dice = Dice::new(self.dice.draw());
                let process = self.process(member);
                let lied = std::mem::take(&mut process.platter.lying);
                (process.unsound, process.outcast) = (process.unsound | lied, process.outcast | lied);
                process.platter.lose_power(&mut dice);
            }
            Death::Killed | Death::Stopped => self.close_streams(member, life),
        }
    }
}

fn count_down(counter: &mut Option<(u64, Death)>) -> Option<Death> {
    match counter {
        Some((0, death)) => Some(*death),
        Some((left, _)) => {
            *left -= 1;
            None
        }
        None => None,
    }
}
