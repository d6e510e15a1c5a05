//! Self-fencing: the agent feeds the node's watchdogs only while the node may live.
//!
//! Why it exists: a node that nobody can reach any more, not even through its BMC, has to end by itself, within a time that
//! can be stated. So a watchdog, which acts unless it is fed, is fed only while a quorum of the members hears this node, and
//! while its disk takes writes.
//! What it never does: it arms nothing before the node may live for the first time (a node must be able to start while the
//! members are away), it lets go of an armed watchdog only in good order and while the node may live, and it never waits for
//! a device where heartbeats would wait with it: each watchdog has a thread of its own.
//!
//! The bound. An answer counts from when its heartbeat was *sent*, so once no heartbeat is taken by a quorum any more, the
//! last time at which the node might be fed is `heard_within` after the last that was. Feeding follows the look at the clock,
//! and a process may stop in between, but for no longer than `timeout`: then the watchdog has acted already. It acts `timeout`
//! after it was fed last. Together [`bound`]; of a process that does not stop, one `timeout` less.

mod bmc;
mod kernel;

use crate::config::WatchdogConfig;
use crate::watched::Watched;
use bmc::Bmc;
use kernel::Kernel;
use policies::{MemberId, Millis, Mono};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::mem::{Discriminant, discriminant};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A watchdog is fed at least so often within its timeout: a device that is busy once is no harm.
const FEEDS: u32 = 4;
/// And at least so often: members read a BMC's watchdog as a sign of life (`probe.bmc_watchdog`), and judge after two seconds.
const FEED_EVERY_MAX: Duration = Duration::from_secs(1);
/// How often a watchdog that is not armed is looked after. More seldom: the node is unguarded for longer.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long an orderly end waits for a device. A BMC that takes longer acts later, as if the agent had been killed. Two
/// of them fit into the unit's `TimeoutStopSec`.
const DISARM_MAX: Duration = Duration::from_secs(2);

/// While what holds a node may live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// So many members must have answered...
    pub quorum: usize,
    /// ...a heartbeat that is no older.
    pub heard_within: Millis,
    /// Oldest that the last acknowledged disk write may be, once there was one. `None`: writes do not count.
    pub write_within: Option<Millis>,
}

/// Why a node may not live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyNot {
    /// Too few members hear it.
    FewAnswers {
        /// So many have answered.
        answered: usize,
        /// So many would have to.
        quorum: usize,
        /// Within this time.
        within: Millis,
    },
    /// Its disk takes no writes.
    OldWrite {
        /// Age of the last one.
        age: Millis,
        /// The oldest that it may be.
        within: Millis,
    },
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WhyNot::FewAnswers { answered, quorum, within } => {
                write!(f, "{answered} members have answered in the last {within}, {quorum} have to")
            }
            WhyNot::OldWrite { age, within } => {
                write!(f, "the last acknowledged disk write is {age} old, more than {within}")
            }
        }
    }
}

/// Whether the node may live: `answered` says of each member when the newest heartbeat that it answered was sent.
///
/// # Errors
/// The first rule that does not hold.
pub fn may_feed(
    rules: &Rules,
    answered: &BTreeMap<MemberId, Mono>,
    write_age: Option<Millis>,
    now: Mono,
) -> Result<(), WhyNot> {
    let Rules { quorum, heard_within, write_within } = *rules;
    let answered = answered.values().filter(|sent| now.since(**sent) <= heard_within).count();
    if answered < quorum {
        return Err(WhyNot::FewAnswers { answered, quorum, within: heard_within });
    }
    match (write_age, write_within) {
        (Some(age), Some(within)) if age > within => Err(WhyNot::OldWrite { age, within }),
        (Some(_) | None, Some(_) | None) => Ok(()),
    }
}

/// The longest that a node lives after the last heartbeat that a quorum answered.
pub fn bound(heard_within: Millis, timeout: Millis) -> Millis {
    Millis(heard_within.0.saturating_add(timeout.0.saturating_mul(2)))
}

/// What is known of the members' answers, for all threads.
#[derive(Debug)]
struct Guard {
    rules: Rules,
    answered: Mutex<BTreeMap<MemberId, Mono>>,
    watched: Arc<Watched>,
}

impl Guard {
    fn heard(&self, member: MemberId, sent: Mono) {
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = answered.entry(member).or_insert(sent);
        *newest = sent.max(*newest);
    }

    fn may_feed(&self) -> Result<(), WhyNot> {
        let (_, write_age) = self.watched.said();
        let answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        may_feed(&self.rules, &answered, write_age, crate::beacon::now())
    }
}

/// One watchdog of the node, as configured.
#[derive(Debug, Clone)]
enum Device {
    /// The kernel's.
    Kernel(PathBuf),
    /// That of the BMC.
    Bmc(PathBuf),
}

impl Device {
    fn arm(&self, timeout: Millis) -> io::Result<Armed> {
        match self {
            Device::Kernel(file) => Kernel::arm(file, timeout).map(Armed::Kernel),
            Device::Bmc(file) => Bmc::arm(file, timeout).map(Armed::Bmc),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Kernel(file) => write!(f, "watchdog {}", file.display()),
            Device::Bmc(file) => write!(f, "the BMC's watchdog, through {}", file.display()),
        }
    }
}

/// One that counts down. If it is dropped, it goes on counting down.
enum Armed {
    Kernel(Kernel),
    Bmc(Bmc),
}

impl Armed {
    fn timeout(&self) -> Millis {
        match self {
            Armed::Kernel(kernel) => kernel.timeout(),
            Armed::Bmc(bmc) => bmc.timeout(),
        }
    }

    fn feed(&mut self) -> io::Result<()> {
        match self {
            Armed::Kernel(kernel) => kernel.feed(),
            Armed::Bmc(bmc) => bmc.feed(),
        }
    }

    fn disarm(self) -> io::Result<()> {
        match self {
            Armed::Kernel(kernel) => kernel.disarm(),
            Armed::Bmc(bmc) => bmc.disarm(),
        }
    }
}

/// How it is with one watchdog. A line is said when this becomes another.
#[derive(Debug)]
enum Course {
    /// It is not armed yet.
    Waits(WhyNot),
    /// It is armed and fed.
    Fed {
        /// How long it then waits.
        timeout: Millis,
    },
    /// It is armed and not fed: the node is about to end.
    Starves(WhyNot),
    /// It is to be armed or fed, and that fails.
    Fails(io::Error),
}

impl Course {
    fn kind(&self) -> (Discriminant<Course>, Option<Discriminant<WhyNot>>) {
        let why = match self {
            Course::Waits(why) | Course::Starves(why) => Some(discriminant(why)),
            Course::Fed { .. } | Course::Fails(_) => None,
        };
        (discriminant(self), why)
    }
}

/// A thread that feeds one watchdog.
#[derive(Debug)]
struct Feeder {
    /// Told something: let go in good order. Dropped: end, and let the watchdog act.
    end: Sender<()>,
    /// What the thread says last, if it let go of something; it is dropped when the thread has ended.
    ended: Receiver<String>,
}

/// The node's watchdogs.
#[derive(Debug)]
pub struct Watchdog {
    config: WatchdogConfig,
    guard: Arc<Guard>,
    feeders: Vec<Feeder>,
}

impl Watchdog {
    /// The watchdogs as configured. Touches none yet.
    pub fn new(config: WatchdogConfig, watched: Arc<Watched>) -> Self {
        let guard = Guard { rules: config.rules, answered: Mutex::default(), watched };
        Watchdog { config, guard: Arc::new(guard), feeders: vec![] }
    }

    /// Begins to arm and feed them as soon as the node may live, each in a thread of its own, and passes on what is to be
    /// said about it. `say` must not wait.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start<S: Fn(String) + Clone + Send + 'static>(&mut self, say: &S) -> io::Result<()> {
        let kernel = self.config.device.clone().map(Device::Kernel);
        let bmc = self.config.bmc.clone().map(Device::Bmc);
        for device in kernel.into_iter().chain(bmc) {
            let (end, ends) = channel();
            let (ending, ended) = channel();
            let (guard, timeout, say) = (self.guard.clone(), self.config.timeout, say.clone());
            let work = move || {
                if let Some(last) = keep(&device, timeout, &guard, &ends, &say) {
                    // Fails only if nobody waits for it any more.
                    ending.send(last).ok();
                }
            };
            std::thread::Builder::new().name("watchdog".into()).spawn(work)?;
            self.feeders.push(Feeder { end, ended });
        }
        Ok(())
    }

    /// A member answered the heartbeat that was sent then.
    pub fn heard(&self, member: MemberId, sent: Mono) {
        self.guard.heard(member, sent);
    }

    /// Lets go of them, if the node may live, and tells what became of those that were armed. Waits for slow devices, not
    /// for dead ones.
    pub fn stop(&mut self) -> Vec<String> {
        for feeder in &self.feeders {
            // Fails only if the thread has ended.
            feeder.end.send(()).ok();
        }
        let last = |feeder: Feeder| match feeder.ended.recv_timeout(DISARM_MAX) {
            Ok(last) => Some(last),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                Some("a watchdog takes too long to let go; it may act".to_owned())
            }
        };
        self.feeders.drain(..).filter_map(last).collect()
    }
}

/// The life of one feeder. What it says last, if it had to let go of something.
fn keep(
    device: &Device,
    timeout: Millis,
    guard: &Guard,
    end: &Receiver<()>,
    say: &impl Fn(String),
) -> Option<String> {
    let mut armed = None;
    let mut said = None;
    loop {
        let course = step(device, timeout, guard, &mut armed);
        if said.replace(course.kind()) != Some(course.kind()) {
            say(told(device, &guard.rules, &course));
        }
        let pause = |armed: &Armed| FEED_EVERY_MAX.min(Duration::from_millis(armed.timeout().0) / FEEDS);
        match end.recv_timeout(armed.as_ref().map_or(LOOK_EVERY, pause)) {
            Err(RecvTimeoutError::Timeout) => {}
            // The agent has failed. What is armed goes on counting.
            Err(RecvTimeoutError::Disconnected) => return None,
            Ok(()) => return armed.map(|armed| let_go(device, guard, armed)),
        }
    }
}

/// Feeds or arms the watchdog if the node may live. Nothing comes between the look at the clock and that.
fn step(device: &Device, timeout: Millis, guard: &Guard, armed: &mut Option<Armed>) -> Course {
    let done = match (guard.may_feed(), armed.as_mut()) {
        (Err(why), None) => return Course::Waits(why),
        (Err(why), Some(_)) => return Course::Starves(why),
        (Ok(()), Some(armed)) => armed.feed().map(|()| armed.timeout()),
        (Ok(()), None) => device.arm(timeout).map(|new| armed.insert(new).timeout()),
    };
    match done {
        Ok(timeout) => Course::Fed { timeout },
        Err(error) => Course::Fails(error),
    }
}

/// An agent that ends in good order must not reset the node; but one whose node may not live must not save it either.
fn let_go(device: &Device, guard: &Guard, armed: Armed) -> String {
    match guard.may_feed().map(|()| armed.disarm()) {
        Ok(Ok(())) => format!("{device}: let go of"),
        Ok(Err(error)) => format!("{device}: let go of: {error}; it may act yet"),
        Err(why) => format!("{device}: left armed: {why}"),
    }
}

fn told(device: &Device, rules: &Rules, course: &Course) -> String {
    match course {
        Course::Waits(why) => format!("{device}: not armed yet: {why}"),
        Course::Fed { timeout } => format!(
            "{device}: fed, it waits {timeout}; it acts within {} after the last heartbeat that {} members answered",
            bound(rules.heard_within, *timeout),
            rules.quorum
        ),
        Course::Starves(why) => format!("{device}: not fed any more: {why}"),
        Course::Fails(error) => format!("{device}: {error}; trying again"),
    }
}

#[cfg(test)]
mod tests;
