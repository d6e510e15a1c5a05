//! A BMC: its settings, its queue, its warm session.
//!
//! Why it exists: on the fence path a command must cost one round trip, so a session is opened once, kept alive and
//! replaced when it is lost. A BMC is asked one thing at a time; most of them can do no more.
//! What it never does: changing the configured cipher suite, showing the password, sending a command that changes
//! something without asking the permit right before the write.

mod learn;

pub(super) use learn::learn;

use super::codec::{self, LanMessage};
use super::commands::{
    ChassisControl, GetChassisStatus, GetSelRecord, GetWatchdog, Read, SelRecord, SetBootDevice, Write,
};
use super::crypto::{Key, SECRET_MAX, Suite, USER_MAX, UserName};
use super::diagnosis::{self, GAP_MAX, Lines, RECORDS_MAX};
use super::listen;
use super::live::{Failed, Live};
use super::open::{self, Login};
use super::port::{Port, lock};
use super::session::Answer;
use super::sol::ActivateSol;
use crate::console::Console;
use crate::fence::millis;
use crate::power::{Act, DriverError, Look, PowerDriver, Weight};
use ipmi_rs_core::app::GetDeviceId;
use ipmi_rs_core::connection::{CompletionErrorCode, IpmiCommand, Message};
use ipmi_rs_core::storage::sel::GetSelInfo;
use learn::Learned;
use policies::{BootDevice, Identity, Millis, Permit};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::sync::{Mutex as Queue, MutexGuard};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

/// How long a warm session may be silent before a new one is tried. Long enough for three transmissions (100 + 200 +
/// 400 ms), short enough that a BMC which has forgotten us costs less than a second.
const PATIENCE: Duration = Duration::from_millis(700);
/// A slow BMC has not forgotten us: a warm session may be silent for this many times its slowest answer.
const PATIENCE_FACTOR: u32 = 4;
/// How long opening a session may take before it is begun anew; doubles. A BMC that does not answer a repeated RAKP 3
/// needs the new beginning, one that takes 500 ms a step must not be disturbed by it.
const OPEN_PATIENCE: Duration = Duration::from_secs(3);
/// Pause before a BMC that lost a half-open session is tried again.
const RESTART_PAUSE: Duration = Duration::from_millis(50);
/// Addresses of one name that are tried in turn.
const ADDRESSES_MAX: usize = 4;
/// How often the idle sessions are looked for.
const KEEP_ALIVE_TICKS: u32 = 5;
/// How long a kept-alive session may take to answer; then it is given up and opened again when it is needed.
const KEEP_ALIVE_WAIT: Duration = Duration::from_secs(2);
/// Sessions that are kept alive at the same moment.
const KEEP_ALIVES_IN_FLIGHT_MAX: usize = 64;
/// Lines of the console that a diagnosis gives.
const CONSOLE_LINES_MAX: usize = 15;
/// As the next record's id: there is none. Asked for: the newest record (IPMI 2.0 §31.5).
const SEL_END: u16 = 0xffff;

/// Privilege levels that a session can ask for (IPMI 2.0 table 13-9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// Reads only; cannot fence.
    User,
    /// Enough for power, boot device and watchdog (IPMI 2.0 appendix G).
    Operator,
    /// Everything. Some BMCs want it for power, against the specification.
    Administrator,
}

/// How to reach and enter one BMC.
#[derive(Clone, Debug)]
pub struct Settings {
    address: String,
    login: Login,
    /// What the node is to start from at each power-on.
    boot_device: Option<BootDevice>,
}

/// Why settings cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSettings {
    /// The user name is too long for the protocol.
    #[error("user: a BMC user name has at most {USER_MAX} bytes")]
    User,
    /// The password is too long for the protocol.
    #[error("password: a BMC password has at most {SECRET_MAX} bytes")]
    Password,
    /// K_g is too long for the protocol.
    #[error("k_g: a BMC key has at most {SECRET_MAX} bytes")]
    Kg,
    /// A suite that we do not speak.
    #[error("cipher_suite: {0} is not spoken here; use 17, or 3 for a BMC that lacks 17")]
    CipherSuite(u8),
    /// No host in the address.
    #[error("address: write host:port; the usual port is 623")]
    Address,
}

impl Settings {
    /// Settings with privilege [`Privilege::Operator`] and without K_g. `address` is `host:port` or `host`.
    ///
    /// # Errors
    /// [`BadSettings`] naming the field.
    pub fn new(
        address: &str,
        user: &str,
        password: &[u8],
        cipher_suite: u8,
    ) -> Result<Settings, BadSettings> {
        if address.is_empty() || address.starts_with(':') {
            return Err(BadSettings::Address);
        }
        let login = Login {
            user: UserName::new(user.as_bytes()).ok_or(BadSettings::User)?,
            password: Key::from_secret(password).ok_or(BadSettings::Password)?,
            k_g: None,
            suite: Suite::from_number(cipher_suite).ok_or(BadSettings::CipherSuite(cipher_suite))?,
            privilege: privilege_number(Privilege::Operator),
        };
        Ok(Settings { address: address.to_owned(), login, boot_device: None })
    }

    /// The same with the BMC's own key K_g.
    ///
    /// # Errors
    /// [`BadSettings::Kg`] if it is too long.
    pub fn with_k_g(mut self, k_g: &[u8]) -> Result<Settings, BadSettings> {
        self.login.k_g = Some(Key::from_secret(k_g).ok_or(BadSettings::Kg)?);
        Ok(self)
    }

    /// The same with what the node is to start from at each power-on; `None`: as its firmware is set.
    pub fn with_boot_device(self, boot_device: Option<BootDevice>) -> Settings {
        Settings { boot_device, ..self }
    }

    /// The same with another privilege level.
    pub fn with_privilege(mut self, privilege: Privilege) -> Settings {
        self.login.privilege = privilege_number(privilege);
        self
    }
}

fn privilege_number(privilege: Privilege) -> u8 {
    match privilege {
        Privilege::User => 2,
        Privilege::Operator => 3,
        Privilege::Administrator => 4,
    }
}

/// One BMC. Cheap to clone; all clones share one session and one queue.
#[derive(Clone)]
pub struct Bmc(Arc<Shared>);

/// What the clones of one [`Bmc`] share.
pub(super) struct Shared {
    settings: Settings,
    port: Arc<Port>,
    /// Whoever holds it may send. Fair: first come, first served.
    session: Queue<Option<Live>>,
    /// The sensors that a diagnosis reads; `None`: not known yet.
    sensors: Mutex<Option<Learned>>,
    /// What the node's console said while it was listened to here.
    console: Arc<Console>,
    /// Listens, while that is wanted.
    listening: Mutex<JoinSet<()>>,
}

impl fmt::Debug for Bmc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bmc({})", self.0.settings.address)
    }
}

impl Bmc {
    /// A handle; nothing is sent before it is needed.
    pub fn new(settings: Settings, port: &Arc<Port>) -> Bmc {
        let (session, sensors) = (Queue::new(None), Mutex::new(None));
        let (console, listening, ours) = (Arc::default(), Mutex::default(), Arc::clone(port));
        let shared = Arc::new(Shared { settings, port: ours, session, sensors, console, listening });
        port.keep(Arc::downgrade(&shared));
        Bmc(shared)
    }

    /// Asks something that changes nothing.
    ///
    /// # Errors
    /// [`DriverError`]; at the latest at the deadline.
    pub async fn ask<C: Read>(&self, command: C, deadline: Instant) -> Result<C::Output, DriverError>
    where
        C::Error: fmt::Debug,
    {
        let answered = self.0.run(&command.into(), None, true, deadline).await?;
        answered.read::<C>(&self.0.settings.address)
    }

    /// Tells the BMC to change something, if the permit allows it at the moment of each write. `Ok` means that the
    /// BMC accepted.
    ///
    /// # Errors
    /// [`DriverError`]; at the latest at the deadline.
    pub async fn tell<C: Write>(
        &self,
        command: C,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<C::Output, DriverError>
    where
        C::Error: fmt::Debug,
    {
        let repeatable = command.repeatable();
        let answered = self.0.run(&command.into(), Some(permit), repeatable, deadline).await?;
        answered.read::<C>(&self.0.settings.address)
    }

    /// Records of the system event log from `first` (0: the oldest) on, at most `records_max`.
    ///
    /// # Errors
    /// [`DriverError`]; at the latest at the deadline.
    pub async fn event_log(
        &self,
        first: u16,
        records_max: usize,
        deadline: Instant,
    ) -> Result<Vec<SelRecord>, DriverError> {
        let mut records = Vec::new();
        let mut id = first;
        while id != SEL_END && records.len() < records_max {
            let record = self.ask(GetSelRecord { id }, deadline).await?;
            id = record.next;
            records.push(record);
        }
        Ok(records)
    }

    /// Chassis status, the newest records of the event log, and the sensors.
    async fn read_diagnosis(&self, lines: &mut Lines, deadline: Instant) -> Result<(), DriverError> {
        match answered(self.ask(GetChassisStatus, deadline).await)? {
            Ok(status) => {
                lines.add(diagnosis::chassis_now(&status));
                lines.add(diagnosis::chassis_before(&status));
            }
            Err(why) => lines.add(format_args!("chassis: {why}")),
        }
        let wanted = match answered(self.ask(GetSelInfo, deadline).await)? {
            Ok(log) => {
                lines.add(diagnosis::log_size(&log));
                usize::from(log.entries).min(RECORDS_MAX)
            }
            Err(why) => {
                lines.add(format_args!("event log: {why}"));
                0
            }
        };
        let found = if wanted == 0 { 0 } else { self.newest_events(lines, wanted, deadline).await? };
        if found < wanted {
            lines.add(format_args!("event log: only {found} of its newest {wanted} records were found"));
        }
        self.read_sensors(lines, deadline).await
    }

    /// Adds up to so many records, the newest first; says how many there were.
    async fn newest_events(
        &self,
        lines: &mut Lines,
        wanted: usize,
        deadline: Instant,
    ) -> Result<usize, DriverError> {
        let Ok(newest) = answered(self.ask(GetSelRecord { id: SEL_END }, deadline).await)? else {
            return Ok(0);
        };
        lines.add(diagnosis::event(&newest));
        let (mut id, mut step) = (newest.id(), 1);
        for found in 1..wanted {
            let Some(record) = self.record_before(id, step, deadline).await? else { return Ok(found) };
            lines.add(diagnosis::event(&record));
            (id, step) = (record.id(), id - record.id());
        }
        Ok(wanted)
    }

    /// The record before that one. The log is linked forward only, so it is searched for by falling ids. A leap of `step`,
    /// the last distance, is tried first; it counts if no record lies between.
    async fn record_before(
        &self,
        id: u16,
        step: u16,
        deadline: Instant,
    ) -> Result<Option<SelRecord>, DriverError> {
        let leap = (step > 1).then_some((step, true));
        let walk = (1..=GAP_MAX).map(|distance| (distance, false));
        for (distance, leaps) in leap.into_iter().chain(walk) {
            // Id 0 would be the oldest record.
            let Some(tried @ 1..) = id.checked_sub(distance) else { continue };
            match answered(self.ask(GetSelRecord { id: tried }, deadline).await)? {
                Ok(record) if record.id() == tried && (!leaps || record.next == id) => {
                    return Ok(Some(record));
                }
                // A BMC that gives another record than it was asked for must not lead us in circles.
                Ok(_) => {}
                Err(why) => tracing::debug!(%why, tried, "no such record"),
            }
        }
        Ok(None)
    }

    /// Ends the session, if there is one, so that the BMC frees its slot. The next request opens another.
    pub async fn close(&self) {
        *self.0.session.lock().await = None;
    }
}

impl PowerDriver for Bmc {
    async fn look(&self, deadline: Instant) -> Result<Look, DriverError> {
        let answered = self.0.run(&GetChassisStatus.into(), None, true, deadline).await?;
        let status = answered.read::<GetChassisStatus>(&self.0.settings.address)?;
        Ok(Look { power: status.power, identity: answered.identity, weight: Weight::Lasts })
    }

    async fn act(&self, act: Act, permit: &dyn Permit, deadline: Instant) -> Result<(), DriverError> {
        let control = match act {
            Act::On => ChassisControl::On,
            Act::Off => ChassisControl::Off,
            Act::SoftOff => ChassisControl::Soft,
            Act::Interrupt => ChassisControl::Diagnostic,
        };
        if let (Act::On, Some(device)) = (act, self.0.settings.boot_device) {
            let told = self.tell(SetBootDevice::from(device), permit, deadline).await;
            told.map_err(before_power)?;
        }
        self.tell(control, permit, deadline).await
    }

    async fn diagnose(&self, deadline: Instant) -> Result<Vec<String>, DriverError> {
        let mut lines = Lines::default();
        let read = self.read_diagnosis(&mut lines, deadline).await;
        // Of a BMC that has died with its node, this is what is left.
        let said = self.0.console.last_lines(CONSOLE_LINES_MAX);
        match read {
            Err(error) if lines.is_empty() && said.is_empty() => return Err(error),
            Err(error) => lines.add(format_args!("cut short: {error}")),
            Ok(()) => {}
        }
        if !said.is_empty() {
            lines.add(format_args!("console, {}, its last lines:", self.0.console.how()));
            said.into_iter().for_each(|line| lines.add(line));
        }
        Ok(lines.into_inner())
    }

    async fn fed(&self, deadline: Instant) -> Result<Option<Millis>, DriverError> {
        Ok(self.ask(GetWatchdog, deadline).await?.fed())
    }

    fn listen(&self, wanted: bool) {
        let mut listening = lock(&self.0.listening);
        match (wanted, listening.is_empty()) {
            (true, true) => {
                listening.spawn(listen::listen(Arc::downgrade(&self.0), Arc::clone(&self.0.console)));
            }
            (false, false) => {
                *listening = JoinSet::new();
                self.0.console.closed("nobody listens here any more".to_owned());
            }
            (true, false) | (false, true) => {}
        }
    }

    fn console(&self) -> Option<Arc<Console>> {
        Some(Arc::clone(&self.0.console))
    }
}

/// The same where whether the boot device was set does not matter, for the power command after it was certainly not sent.
fn before_power(error: DriverError) -> DriverError {
    match error {
        DriverError::NoAnswer { .. } => DriverError::Unreachable { what: error.to_string(), source: None },
        DriverError::Unclear(why) => DriverError::Refused(why),
        DriverError::NotPermitted(_)
        | DriverError::Unreachable { .. }
        | DriverError::NotAdmitted(_)
        | DriverError::Refused(_) => error,
    }
}

/// Tells a BMC that answered something else than was wished from one that did not answer, with which nothing more can be
/// read.
fn answered<T>(result: Result<T, DriverError>) -> Result<Result<T, DriverError>, DriverError> {
    match result {
        Ok(read) => Ok(Ok(read)),
        Err(error @ (DriverError::Refused(_) | DriverError::Unclear(_))) => Ok(Err(error)),
        Err(
            error @ (DriverError::NotPermitted(_)
            | DriverError::Unreachable { .. }
            | DriverError::NotAdmitted(_)
            | DriverError::NoAnswer { .. }),
        ) => Err(error),
    }
}

/// An answer and how it was got.
struct Answered {
    answer: Answer,
    /// Whose BMC it is.
    identity: Identity,
    /// How many datagrams carried the request.
    sent: u32,
}

impl Answered {
    /// The answer as the command reads it.
    fn read<C: IpmiCommand>(&self, address: &str) -> Result<C::Output, DriverError>
    where
        C::Error: fmt::Debug,
    {
        let Answer { completion, data } = &self.answer;
        if let Ok(code) = CompletionErrorCode::try_from(*completion) {
            let text = format!("the BMC at {address} answered {code:?} (completion code {completion:#04x})");
            // After a repetition the code may speak of the second datagram, and the first may have worked.
            return Err(if did_nothing(*completion) && self.sent <= 1 {
                DriverError::Refused(text)
            } else {
                DriverError::Unclear(text)
            });
        }
        C::parse_success_response(data).map_err(|error| {
            DriverError::Unclear(format!(
                "the BMC at {address} gave an answer that cannot be read: {error:?}"
            ))
        })
    }
}

/// True for the completion codes that mean "not carried out" without a doubt (IPMI 2.0 table 5-2): invalid command,
/// invalid for this LUN, wrong length, too long, parameter out of range, invalid field, insufficient privilege,
/// disabled. Others, such as a time-out inside the BMC or "not in this state", leave it open.
fn did_nothing(completion: u8) -> bool {
    matches!(completion, 0xc1 | 0xc2 | 0xc7 | 0xc8 | 0xc9 | 0xcc | 0xd4 | 0xd6)
}

impl Shared {
    /// One request, one answer, over as many sessions as it takes.
    async fn run(
        &self,
        message: &Message,
        permit: Option<&dyn Permit>,
        repeatable: bool,
        deadline: Instant,
    ) -> Result<Answered, DriverError> {
        let started = Instant::now();
        let mut request = LanMessage::request(message.netfn_raw(), message.cmd(), 0, message.data().to_vec());
        let Ok(mut slot) = timeout_at(deadline, self.session.lock()).await else {
            return Err(self.unreachable("wait for earlier requests", started));
        };
        let (mut sent, mut attempt) = (0, 0u32);
        loop {
            let failed = match self.session(&mut slot, attempt, deadline).await {
                Ok((live, until)) => {
                    let until = if repeatable { until } else { deadline };
                    match live.exchange(&mut request, permit, repeatable, &mut sent, until).await {
                        Ok(answer) => {
                            return Ok(Answered { answer, identity: live.identity().clone(), sent });
                        }
                        Err(failed) => failed,
                    }
                }
                Err(failed) => failed,
            };
            let may_have_happened = sent > 0 && permit.is_some();
            match failed {
                Failed::For(error) if !may_have_happened => return Err(error),
                Failed::For(_) => return Err(self.no_answer(started)),
                // A caller in a hurry says nothing about the session; several of them do.
                Failed::Silent if slot.as_ref().is_some_and(|live| live.silent_for() < patience(live)) => {}
                // The BMC may have forgotten the session, so the next attempt opens another.
                Failed::Silent => *slot = None,
                Failed::Restart => {
                    *slot = None;
                    sleep(RESTART_PAUSE).await;
                }
            }
            if Instant::now() >= deadline || (sent > 0 && !repeatable) {
                return Err(if may_have_happened {
                    self.no_answer(started)
                } else {
                    self.unreachable("ask", started)
                });
            }
            attempt = attempt.saturating_add(1);
        }
    }

    fn no_answer(&self, started: Instant) -> DriverError {
        let what = format!("command the BMC at {}", self.settings.address);
        DriverError::NoAnswer { what, waited: millis(started.elapsed()) }
    }

    fn unreachable(&self, doing: &str, started: Instant) -> DriverError {
        let (address, waited) = (&self.settings.address, millis(started.elapsed()));
        let what = format!("{doing}: no answer from the BMC at {address} in {waited}");
        DriverError::Unreachable { what, source: None }
    }

    /// The session to use, opened if there is none, and until when it may be silent.
    async fn session<'a>(
        &self,
        slot: &'a mut Option<Live>,
        attempt: u32,
        deadline: Instant,
    ) -> Result<(&'a mut Live, Instant), Failed> {
        if let Some(live) = slot {
            let until = deadline.min(Instant::now() + patience(live));
            return Ok((live, until));
        }
        let patience = OPEN_PATIENCE.saturating_mul(1 << attempt.min(8));
        let until = deadline.min(Instant::now() + patience);
        let to = timeout_at(until, self.resolve(attempt)).await.map_err(|_| Failed::Silent)??;
        let line = self.port.line(to).map_err(|source| self.no_way("open a socket for", source))?;
        let live = open::open(line, &self.settings.login, until).await?;
        // It has just answered; if it is silent now, then it is slow and not forgetful.
        Ok((slot.insert(live), deadline))
    }

    /// Opens a session of its own and takes the node's console over it.
    pub(super) async fn open_console(&self, deadline: Instant) -> Result<Live, String> {
        let to = timeout_at(deadline, self.resolve(0)).await.map_err(|_| "no address in time".to_owned())?;
        let to = to.map_err(listen::told)?;
        let line = self.port.line(to).map_err(|error| format!("open a socket: {error}"))?;
        let mut live = open::open(line, &self.settings.login, deadline).await.map_err(listen::told)?;
        let message: Message = ActivateSol.into();
        let mut request = LanMessage::request(message.netfn_raw(), message.cmd(), 0, message.data().to_vec());
        let answer = live.exchange(&mut request, None, true, &mut 0, deadline).await.map_err(listen::told)?;
        if let Some(why) = ActivateSol::why_not(answer.completion) {
            return Err(why);
        }
        let activated = ActivateSol::parse_success_response(&answer.data);
        let activated = activated.map_err(|error| format!("Activate Payload: {error:?}"))?;
        match activated.port == to.port() {
            true => Ok(live),
            false => Err(format!("the BMC wants it at port {}, which is not spoken here", activated.port)),
        }
    }

    /// The address; of several, another one at each attempt.
    async fn resolve(&self, attempt: u32) -> Result<SocketAddr, Failed> {
        let address = &self.settings.address;
        if let Ok(to) = address.parse::<SocketAddr>() {
            return Ok(to);
        }
        if let Ok(ip) = address.parse::<IpAddr>() {
            return Ok(SocketAddr::new(ip, codec::PORT));
        }
        let found = if address.contains(':') {
            lookup_host(address.as_str()).await.map(|found| found.take(ADDRESSES_MAX).collect())
        } else {
            let found = lookup_host((address.as_str(), codec::PORT)).await;
            found.map(|found| found.take(ADDRESSES_MAX).collect())
        };
        let found: Vec<SocketAddr> = found.map_err(|source| self.no_way("look up the address of", source))?;
        let turn = usize::try_from(attempt).unwrap_or(0) % found.len().max(1);
        let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        found.get(turn).copied().ok_or_else(|| self.no_way("look up the address of", none()))
    }

    fn no_way(&self, doing: &str, source: io::Error) -> Failed {
        let what = format!("{doing} the BMC at {}", self.settings.address);
        Failed::For(DriverError::Unreachable { what, source: Some(source) })
    }

    /// The queue, if its session is idle for at least that long and nobody is using it.
    fn idle(&self, at_least: Duration) -> Option<MutexGuard<'_, Option<Live>>> {
        let slot = self.session.try_lock().ok()?;
        let idle = slot.as_ref().is_some_and(|live| live.last_used().elapsed() >= at_least);
        idle.then_some(slot)
    }

    /// Asks something small; a session that does not answer is given up.
    async fn keep_alive(&self, idle_max: Duration) {
        let Some(mut slot) = self.idle(idle_max) else { return };
        let Some(live) = slot.as_mut() else { return };
        let message: Message = GetDeviceId.into();
        let mut request = LanMessage::request(message.netfn_raw(), message.cmd(), 0, Vec::new());
        let deadline = Instant::now() + KEEP_ALIVE_WAIT;
        if let Err(why) = live.exchange(&mut request, None, true, &mut 0, deadline).await {
            tracing::debug!(bmc = self.settings.address, ?why, "idle session lost");
            *slot = None;
        }
    }
}

/// How long this session may be silent.
fn patience(live: &Live) -> Duration {
    PATIENCE.max(live.slowest() * PATIENCE_FACTOR)
}

/// Keeps the idle sessions of all BMCs alive, for ever; ends when the port is dropped.
pub(super) async fn keep_alive(bmcs: Arc<Mutex<Vec<Weak<Shared>>>>, idle_max: Duration) {
    let mut ticks = tokio::time::interval((idle_max / KEEP_ALIVE_TICKS).max(Duration::from_millis(1)));
    loop {
        ticks.tick().await;
        lock(&bmcs).retain(|bmc| bmc.strong_count() > 0);
        let known: Vec<_> = lock(&bmcs).iter().filter_map(Weak::upgrade).collect();
        let mut asking = JoinSet::new();
        for bmc in known.into_iter().filter(|bmc| bmc.idle(idle_max).is_some()) {
            if asking.len() >= KEEP_ALIVES_IN_FLIGHT_MAX {
                asking.join_next().await;
            }
            asking.spawn(async move { bmc.keep_alive(idle_max).await });
        }
        while asking.join_next().await.is_some() {}
    }
}
