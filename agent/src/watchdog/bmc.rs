//! The watchdog of the BMC in this node, through the Linux IPMI driver's device (Documentation/driver-api/ipmi.rst).
//!
//! Why it exists: it switches the power *off*, which members can read back, and it works when the kernel does not.
//! What it never does: change anything else in the BMC.
//!
//! The transport is `ipmi-rs`'s; its answers are matched to questions by number, but one that came too late stays in the
//! driver's queue and is taken for the next. So after any failure the device is opened anew, which empties the queue.

use ipmi_rs::connection::{CompletionErrorCode, IpmiCommand, IpmiConnection, Message, NetFn};
use ipmi_rs::{File, Ipmi, IpmiError};
use policies::Millis;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an answer may take. A BMC takes milliseconds; one that starts anew takes a minute, and is asked again.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// The timer counts in tenths of a second.
const TICK_MS: u64 = 100;

/// Timer use SMS/OS: the running system (IPMI 2.0 section 27.6). Without "don't log": that it expired belongs into the
/// event log, where members find why the node died. Without "don't stop": setting it again begins anew.
const USE_OS: u8 = 4;
/// Timeout action: power down.
const ACTION_OFF: u8 = 2;
/// In the timer use, as it is read: it counts.
const RUNS: u8 = 0x40;
/// Of the timer use and of the timeout action. Other bits are not ours.
const LOW: u8 = 0x07;
/// Between two looks at a timer that does not say that it runs: more than two of its ticks.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Completion code of a reset: the timer was never set, so the BMC has started anew (section 27.5).
const NEVER_SET: u8 = 0x80;

/// A BMC's watchdog that counts down.
pub(super) struct Bmc {
    path: PathBuf,
    timeout: Millis,
    /// `None` after a failure.
    open: Option<Ipmi<File>>,
}

impl Bmc {
    pub(super) fn arm(path: &Path, timeout: Millis) -> io::Result<Self> {
        let mut open = open(path)?;
        arm(&mut open, timeout)?;
        Ok(Bmc { path: path.to_owned(), timeout, open: Some(open) })
    }

    pub(super) fn timeout(&self) -> Millis {
        self.timeout
    }

    /// Begins the countdown again; arms it anew if the BMC has forgotten it.
    pub(super) fn feed(&mut self) -> io::Result<()> {
        let mut ipmi = self.take()?;
        feed(&mut ipmi, self.timeout)?;
        self.open = Some(ipmi);
        Ok(())
    }

    pub(super) fn disarm(mut self) -> io::Result<()> {
        disarm(&mut self.take()?)
    }

    fn take(&mut self) -> io::Result<Ipmi<File>> {
        self.open.take().map_or_else(|| open(&self.path), Ok)
    }
}

fn open(path: &Path) -> io::Result<Ipmi<File>> {
    Ok(Ipmi::new(File::new(path, ANSWER_MAX)?))
}

/// Sets the timer, starts it, and reads back whether it does what it was told. If not, nothing counts that nobody feeds.
fn arm<C: IpmiConnection<Error = io::Error>>(ipmi: &mut Ipmi<C>, timeout: Millis) -> io::Result<()> {
    let ticks = u16::try_from(timeout.0 / TICK_MS).unwrap_or(u16::MAX);
    send(ipmi, SetTimer { action: ACTION_OFF, ticks })?;
    send(ipmi, ResetTimer)?;
    let timer = send(ipmi, GetTimer)?;
    let is_ours = (timer.timer_use & LOW, timer.action & LOW, timer.ticks) == (USE_OS, ACTION_OFF, ticks);
    if is_ours && (timer.timer_use & RUNS != 0 || counts(ipmi, &timer)?) {
        return Ok(());
    }
    disarm(ipmi)?;
    Err(io::Error::other(format!(
        "it was told to switch off after {ticks} ticks, and says that it is {timer:?}"
    )))
}

/// Whether it was seen to count. Some BMCs do not set the bit that says so (QEMU's does not).
fn counts<C: IpmiConnection<Error = io::Error>>(ipmi: &mut Ipmi<C>, earlier: &Timer) -> io::Result<bool> {
    std::thread::sleep(LOOK_AGAIN);
    Ok(send(ipmi, GetTimer)?.left < earlier.left)
}

fn feed<C: IpmiConnection<Error = io::Error>>(ipmi: &mut Ipmi<C>, timeout: Millis) -> io::Result<()> {
    match ipmi.send_recv(ResetTimer) {
        Err(IpmiError::Failed {
            completion_code: CompletionErrorCode::CommandSpecific(NEVER_SET), ..
        }) => arm(ipmi, timeout),
        done => done.map_err(|error| failed(ResetTimer::NAME, error)),
    }
}

fn disarm<C: IpmiConnection<Error = io::Error>>(ipmi: &mut Ipmi<C>) -> io::Result<()> {
    send(ipmi, SetTimer { action: 0, ticks: 0 })
}

fn send<C: IpmiConnection<Error = io::Error>, T: Named>(
    ipmi: &mut Ipmi<C>,
    command: T,
) -> io::Result<T::Output> {
    ipmi.send_recv(command).map_err(|error| failed(T::NAME, error))
}

fn failed<E: fmt::Debug>(name: &str, error: IpmiError<io::Error, E>) -> io::Error {
    match error {
        IpmiError::Connection(error) => io::Error::new(error.kind(), format!("{name}: {error}")),
        IpmiError::Failed { completion_code, .. } => io::Error::other(format!("{name}: {completion_code:?}")),
        error @ (IpmiError::NetFnIsResponse(_)
        | IpmiError::UnexpectedResponse { .. }
        | IpmiError::Command { .. }) => io::Error::other(format!("{name}: {error:?}")),
    }
}

trait Named: IpmiCommand<Error = Short> {
    const NAME: &'static str;
}

/// An answer that is too short.
#[derive(Debug)]
struct Short;

/// Reset Watchdog Timer (section 27.5).
struct ResetTimer;

impl From<ResetTimer> for Message {
    fn from(_: ResetTimer) -> Message {
        Message::new_request(NetFn::App, 0x22, vec![])
    }
}

impl IpmiCommand for ResetTimer {
    type Output = ();
    type Error = Short;

    fn parse_success_response(_: &[u8]) -> Result<(), Short> {
        Ok(())
    }
}

impl Named for ResetTimer {
    const NAME: &'static str = "reset the timer";
}

/// Set Watchdog Timer (section 27.6): it stands still, its pre-timeout is off, and it has not expired.
struct SetTimer {
    action: u8,
    ticks: u16,
}

impl From<SetTimer> for Message {
    fn from(set: SetTimer) -> Message {
        let [low, high] = set.ticks.to_le_bytes();
        Message::new_request(NetFn::App, 0x24, vec![USE_OS, set.action, 0, 1 << USE_OS, low, high])
    }
}

impl IpmiCommand for SetTimer {
    type Output = ();
    type Error = Short;

    fn parse_success_response(_: &[u8]) -> Result<(), Short> {
        Ok(())
    }
}

impl Named for SetTimer {
    const NAME: &'static str = "set the timer";
}

/// Get Watchdog Timer (section 27.7).
struct GetTimer;

/// What is read of it.
#[derive(Debug, PartialEq, Eq)]
struct Timer {
    timer_use: u8,
    action: u8,
    /// Where it begins.
    ticks: u16,
    /// Where it is.
    left: u16,
}

impl From<GetTimer> for Message {
    fn from(_: GetTimer) -> Message {
        Message::new_request(NetFn::App, 0x25, vec![])
    }
}

impl IpmiCommand for GetTimer {
    type Output = Timer;
    type Error = Short;

    fn parse_success_response(data: &[u8]) -> Result<Timer, Short> {
        let [timer_use, actions, _pre, _expired, i0, i1, l0, l1, ..] = data else { return Err(Short) };
        let [ticks, left] = [[*i0, *i1], [*l0, *l1]].map(u16::from_le_bytes);
        Ok(Timer { timer_use: *timer_use, action: *actions, ticks, left })
    }
}

impl Named for GetTimer {
    const NAME: &'static str = "read the timer";
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipmi_rs::connection::{Request, Response};

    /// A BMC as the specification has it; its commands are written down.
    #[derive(Default)]
    struct Emulated {
        set: Option<[u8; 6]>,
        runs: bool,
        /// Does not start when it is told to.
        lies: bool,
        /// Does not say that it runs.
        shy: bool,
        /// Times that it was read since it started.
        read: u8,
        asked: Vec<u8>,
        answer: Vec<u8>,
    }

    impl IpmiConnection for Emulated {
        type SendError = io::Error;
        type RecvError = io::Error;
        type Error = io::Error;

        fn send(&mut self, request: &mut Request) -> io::Result<()> {
            assert_eq!(request.netfn_raw(), 6);
            self.asked.push(request.cmd());
            self.answer = match (request.cmd(), request.data(), self.set) {
                (0x22, [], None) => vec![NEVER_SET],
                (0x22, [], Some(_)) => {
                    self.runs = !self.lies;
                    vec![0]
                }
                (0x24, set, _) => {
                    self.set = Some(set.try_into().unwrap());
                    self.runs = false;
                    vec![0]
                }
                (0x25, [], Some([timer_use, action, pre, _, low, high])) => {
                    let timer_use = timer_use | if self.runs && !self.shy { RUNS } else { 0 };
                    self.read += 1;
                    let counted = if self.runs { self.read } else { 0 };
                    vec![0, timer_use, action, pre, 0, low, high, low - counted, high]
                }
                other => panic!("{other:?}"),
            };
            Ok(())
        }

        fn recv(&mut self) -> io::Result<Response> {
            let cmd = *self.asked.last().unwrap();
            Ok(Response::new(Message::new_response(NetFn::App, cmd, self.answer.clone()), 0).unwrap())
        }

        fn send_recv(&mut self, request: &mut Request) -> io::Result<Response> {
            self.send(request)?;
            self.recv()
        }
    }

    const TIMEOUT: Millis = Millis::secs(60);

    #[test]
    fn it_is_set_to_power_off_started_and_read_back() {
        let mut ipmi = Ipmi::new(Emulated::default());
        arm(&mut ipmi, TIMEOUT).unwrap();
        feed(&mut ipmi, TIMEOUT).unwrap();
        let bmc = ipmi.inner_mut();
        // 600 ticks are 60 s; bit 4 of the fourth byte clears the flag "SMS/OS expired".
        assert_eq!((bmc.set, bmc.runs), (Some([4, 2, 0, 0x10, 0x58, 2]), true));
        assert_eq!(bmc.asked, [0x24, 0x22, 0x25, 0x22]);
        disarm(&mut ipmi).unwrap();
        let bmc = ipmi.inner_mut();
        assert_eq!((bmc.set, bmc.runs), (Some([4, 0, 0, 0x10, 0, 0]), false));
    }

    #[test]
    fn a_bmc_that_has_started_anew_is_armed_anew() {
        let mut ipmi = Ipmi::new(Emulated::default());
        feed(&mut ipmi, TIMEOUT).unwrap();
        assert!(ipmi.inner_mut().runs);
        assert_eq!(ipmi.inner_mut().asked, [0x22, 0x24, 0x22, 0x25]);
    }

    #[test]
    fn a_bmc_that_only_says_so_is_not_believed() {
        let mut ipmi = Ipmi::new(Emulated { lies: true, ..Emulated::default() });
        let error = arm(&mut ipmi, TIMEOUT).unwrap_err().to_string();
        assert!(
            error.contains("says that it is Timer { timer_use: 4, action: 2, ticks: 600, left: 600 }"),
            "{error}"
        );
        assert_eq!(ipmi.inner_mut().set, Some([4, 0, 0, 0x10, 0, 0]), "it may count all the same");
    }

    #[test]
    fn a_bmc_that_is_seen_to_count_is_believed() {
        let mut ipmi = Ipmi::new(Emulated { shy: true, ..Emulated::default() });
        arm(&mut ipmi, TIMEOUT).unwrap();
        assert_eq!(ipmi.inner_mut().asked, [0x24, 0x22, 0x25, 0x25]);
    }

    #[test]
    fn no_device_is_an_error() {
        assert!(Bmc::arm(Path::new("/nowhere"), TIMEOUT).is_err());
    }
}
