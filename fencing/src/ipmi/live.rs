//! An open session together with its line: one request, one answer.
//!
//! Why it exists: retransmission and its end are the same for the session's own commands and for the caller's.
//! What it never does: sending without asking the permit, opening sessions, sending a command twice that does
//! something else the second time.

use super::codec::LanMessage;
use super::port::Line;
use super::session::{Answer, NoNumber, NotTheAnswer, Session};
use super::sol::SolPacket;
use crate::power::DriverError;
use ipmi_rs_core::app::GetDeviceId;
use ipmi_rs_core::connection::Message;
use policies::{Identity, Permit};
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};

/// First wait for an answer; doubles. Lower: a slow BMC gets each request several times. Higher: one lost datagram
/// costs more.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// Completion code "node busy": ask again later (IPMI 2.0 table 5-2).
const NODE_BUSY: u8 = 0xc0;

/// Why there is no session or no answer.
#[derive(Debug)]
pub(super) enum Failed {
    /// Nothing came in time.
    Silent,
    /// The session is of no more use; a new one may help.
    Restart,
    /// A new session would not help.
    For(DriverError),
}

/// An open session. Dropping it tells the BMC to free the slot, as far as one datagram can.
pub(super) struct Live {
    line: Line,
    session: Session,
    identity: Identity,
    last_used: Instant,
    /// Since when requests have gone unanswered.
    silent_since: Option<Instant>,
    slowest: Duration,
}

impl Live {
    pub(super) fn new(line: Line, session: Session) -> Live {
        Live {
            line,
            session,
            identity: Identity::default(),
            last_used: Instant::now(),
            silent_since: None,
            slowest: Duration::ZERO,
        }
    }

    pub(super) fn set_identity(&mut self, identity: Identity) {
        self.identity = identity;
    }

    /// Whose BMC this is. Read once: the session's keys bind it to one BMC.
    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// When the BMC was last heard in this session.
    pub(super) fn last_used(&self) -> Instant {
        self.last_used
    }

    /// For how long requests have gone unanswered, over all callers.
    pub(super) fn silent_for(&self) -> Duration {
        self.silent_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// The longest that the BMC took for an answer in this session.
    pub(super) fn slowest(&self) -> Duration {
        self.slowest
    }

    /// Sends the request until it is answered. `repeatable`: it may be sent more than once. `sent` counts the
    /// datagrams that left, over all sessions that were used for this request.
    pub(super) async fn exchange(
        &mut self,
        request: &mut LanMessage,
        permit: Option<&dyn Permit>,
        repeatable: bool,
        sent: &mut u32,
        deadline: Instant,
    ) -> Result<Answer, Failed> {
        self.session.begin();
        let started = Instant::now();
        self.silent_since = self.silent_since.or(Some(started));
        let mut wait = FIRST_WAIT;
        loop {
            if repeatable || *sent == 0 {
                self.send(request, permit, sent, deadline).await?;
            }
            let until = deadline.min(Instant::now() + wait);
            if let Some(answer) = self.answer(request, until).await {
                self.last_used = Instant::now();
                self.silent_since = None;
                self.slowest = self.slowest.max(started.elapsed());
                if answer.completion != NODE_BUSY || !repeatable {
                    return Ok(answer);
                }
                sleep_until(until).await;
            }
            if until >= deadline {
                return Err(Failed::Silent);
            }
            wait *= 2;
        }
    }

    /// Sends the request once. After the first time a permit that ended only stops the repeating: the first datagram
    /// may have worked, so its answer is still waited for.
    async fn send(
        &mut self,
        request: &mut LanMessage,
        permit: Option<&dyn Permit>,
        sent: &mut u32,
        deadline: Instant,
    ) -> Result<(), Failed> {
        let datagram = loop {
            match self.session.pack(request, Instant::now()) {
                Ok(datagram) => break datagram,
                Err(NoNumber::Wait(until)) if until < deadline => sleep_until(until).await,
                Err(NoNumber::Wait(_)) => return Err(Failed::Silent),
                Err(NoNumber::Spent) => return Err(Failed::Restart),
            }
        };
        match self.line.send(&datagram, permit).await {
            Ok(()) => {
                *sent += 1;
                Ok(())
            }
            Err(not_sent) if *sent > 0 => {
                tracing::debug!(to = %self.line.to(), ?not_sent, "request not sent again");
                Ok(())
            }
            Err(not_sent) => Err(Failed::from_not_sent(self.line.to(), not_sent)),
        }
    }

    /// The answer, if it comes in time; everything else that comes is dropped.
    async fn answer(&mut self, request: &LanMessage, until: Instant) -> Option<Answer> {
        while let Ok(datagram) = timeout_at(until, self.line.receive()).await {
            match self.session.accept(&datagram, request) {
                Ok(answer) => return Some(answer),
                Err(why) if self.is_sign_of_life(&why) => self.silent_since = Some(Instant::now()),
                Err(_) => {}
            }
        }
        None
    }

    /// True if what came is of no use, but shows that the BMC lives. What is not, is dropped.
    fn is_sign_of_life(&self, why: &NotTheAnswer) -> bool {
        match why {
            NotTheAnswer::Late => true,
            // No warning: a stranger who can send us datagrams could fill the log.
            NotTheAnswer::Malformed(_)
            | NotTheAnswer::Stranger
            | NotTheAnswer::Replayed
            | NotTheAnswer::OtherCommand => {
                tracing::debug!(from = %self.line.to(), ?why, "datagram dropped");
                false
            }
        }
    }
}

/// Of a session that carries the node's console.
impl Live {
    /// The next packet of the console, if one comes in time. Whatever else comes of this session is a sign of life.
    pub(super) async fn console(&mut self, until: Instant) -> Option<SolPacket> {
        while let Ok(datagram) = timeout_at(until, self.line.receive()).await {
            match self.session.console(&datagram) {
                Ok(packet) => {
                    self.last_used = Instant::now();
                    return Some(packet);
                }
                Err(why) if self.is_sign_of_life(&why) => self.last_used = Instant::now(),
                Err(_) => {}
            }
        }
        None
    }

    /// Sends a packet of the console, once: what is lost is sent or asked for again.
    pub(super) async fn send_console(&mut self, packet: &SolPacket) -> Result<(), Failed> {
        let datagram = self.session.pack_console(packet).map_err(|_| Failed::Restart)?;
        self.send_once(&datagram).await
    }

    /// Asks something small and waits for nothing.
    pub(super) async fn nudge(&mut self) -> Result<(), Failed> {
        let message: Message = GetDeviceId.into();
        let mut request = LanMessage::request(message.netfn_raw(), message.cmd(), 0, Vec::new());
        self.session.begin();
        let datagram = self.session.pack(&mut request, Instant::now()).map_err(|_| Failed::Restart)?;
        self.send_once(&datagram).await
    }

    async fn send_once(&mut self, datagram: &[u8]) -> Result<(), Failed> {
        let sent = self.line.send(datagram, None).await;
        sent.map_err(|not_sent| Failed::from_not_sent(self.line.to(), not_sent))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(datagram) = self.session.farewell() {
            self.line.send_farewell(&datagram);
        }
    }
}
