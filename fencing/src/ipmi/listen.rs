//! Listens to the console of one node, over a session of its own (IPMI 2.0 §15).
//!
//! Why it exists: Serial over LAN must never hold up the session that fences, and most BMCs give it to one session at a time.
//! What it never does: ending another's session, sending the node what nobody typed, lasting longer than its BMC's handle.

use super::bmc::Shared;
use super::live::{Failed, Live};
use super::sol::{Received, SolPacket, TYPED_AT_ONCE_MAX, Typed};
use crate::console::Console;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Longest opening of the session. Higher: a BMC that answers nothing is noticed later; nobody waits for it.
const OPEN_MAX: Duration = Duration::from_secs(20);
/// Pause before the next try; doubles. Lower: a BMC whose console another has is asked in circles, each time with a session.
const AGAIN_FIRST: Duration = Duration::from_secs(5);
/// Longest pause.
const AGAIN_MAX: Duration = Duration::from_secs(60);
/// How often a quiet BMC is asked something small: it would end a session after 60 s (IPMI 2.0 §6.12.15).
const NUDGE_EVERY: Duration = Duration::from_secs(20);
/// How long it may be silent: three of these questions were not answered.
const SILENT_MAX: Duration = Duration::from_secs(65);

/// Listens, for ever; ends when the BMC's handle is gone.
pub(super) async fn listen(bmc: Weak<Shared>, console: Arc<Console>) {
    let mut pause = AGAIN_FIRST;
    loop {
        let Some(shared) = bmc.upgrade() else { return };
        let opened = shared.open_console(Instant::now() + OPEN_MAX).await;
        drop(shared);
        let why = match opened {
            Ok(live) => {
                console.opened(jiff::Timestamp::now());
                pause = AGAIN_FIRST;
                follow(live, &console).await
            }
            Err(why) => why,
        };
        tracing::debug!(why, "a console is not listened to");
        console.closed(why);
        sleep(pause).await;
        pause = (pause * 2).min(AGAIN_MAX);
    }
}

/// Takes what comes until it ends, and says why it did.
async fn follow(mut live: Live, console: &Console) -> String {
    let (mut received, mut typed, mut nudged) = (Received::default(), Typed::default(), Instant::now());
    loop {
        let nudge = nudged + NUDGE_EVERY;
        let until = typed.again().map_or(nudge, |again| again.min(nudge));
        let packet = tokio::select! {
            packet = live.console(until) => packet,
            bytes = console.typed(TYPED_AT_ONCE_MAX), if typed.is_done() => {
                typed.take(bytes);
                None
            }
        };
        let brought = packet.map(|packet| {
            typed.acknowledged_by(&packet, Instant::now());
            received.take(&packet)
        });
        let mut answers: Vec<SolPacket> = typed.due(Instant::now()).into_iter().collect();
        if let Some(brought) = brought {
            if brought.overrun {
                console.add(b"\r\n[the BMC lost characters here]\r\n");
            }
            console.add(&brought.data);
            if brought.ended {
                return "the BMC has ended it; another session may have it now".to_owned();
            }
            answers.extend(brought.answer);
        }
        for packet in answers {
            if let Err(failed) = live.send_console(&packet).await {
                return told(failed);
            }
        }
        if Instant::now() >= nudge {
            if live.last_used().elapsed() > SILENT_MAX {
                return "the BMC has fallen silent".to_owned();
            }
            if let Err(failed) = live.nudge().await {
                return told(failed);
            }
            nudged = Instant::now();
        }
    }
}

/// Why there is no session, as a sentence.
pub(super) fn told(failed: Failed) -> String {
    match failed {
        Failed::Silent => "no answer from the BMC".to_owned(),
        Failed::Restart => "the BMC has lost the session".to_owned(),
        Failed::For(error) => policies::causes(&error),
    }
}
