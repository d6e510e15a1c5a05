//! `hactl watch`: the whole terminal, until `q`.
//!
//! Why it exists: during an outage one wants to see everything at once, as it happens. What it never does: leave the
//! terminal as no shell can use it, or wait for a member before it hears a key.

use crate::feed::Feed;
use crate::output::Printer;
use crate::run::{Done, Failure, Session};
use crate::wait::{LOOK_AGAIN, may_pass};
use crossterm::event::{Event, EventStream, KeyCode, KeyEventKind, KeyModifiers};
use futures::StreamExt;
use ratatui::DefaultTerminal;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;
use supervisor::api::answers::{Events, NodeLine};
use supervisor::client::ClientError;
use supervisor::render::{self, Live};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

/// How often the screen is drawn although nothing was answered: its clock and its ages show seconds.
const DRAW_AGAIN: Duration = Duration::from_secs(1);
/// Events that are asked for: more than the lines of a high screen.
const EVENTS_MAX: usize = 100;

impl Session {
    pub(crate) async fn watch_all(&self) -> Done {
        if !std::io::stdout().is_terminal() {
            let why = "watch needs a terminal; `hactl status --watch` prints to anything";
            return Err(Failure::Usage(why.to_owned()));
        }
        let (shown, to_draw) = watch::channel(None);
        let mut terminal = Whole::take()?;
        let ended = tokio::select! {
            ended = self.keep_looking(&shown) => ended,
            ended = draw(&mut terminal, to_draw, &self.printer) => ended,
        };
        drop(terminal);
        ended
    }

    /// Looks when something happens, and once in a while.
    async fn keep_looking(&self, shown: &watch::Sender<Option<Live>>) -> Done {
        let mut feed = Feed::from_now(&self.client);
        loop {
            let looked = match feed.listen().await {
                Ok(()) => self.look().await,
                Err(error) => Err(error),
            };
            match looked {
                Ok(live) => drop(shown.send_replace(Some(live))),
                Err(error) if may_pass(&error) && shown.borrow().is_some() => shown.send_modify(|shown| {
                    if let Some(live) = shown {
                        live.trouble = Some(policies::causes(&error));
                    }
                }),
                Err(error) => return Err(error.into()),
            }
            feed.something(Instant::now() + LOOK_AGAIN).await?;
        }
    }

    async fn look(&self) -> Result<Live, ClientError> {
        let status = self.read_status().await?;
        let nodes = if status.local { "/v1/nodes?local=true" } else { "/v1/nodes" };
        let nodes: Vec<NodeLine> = self.client.get(nodes).await?;
        let events: Events = self.client.get(&format!("/v1/events?limit={EVENTS_MAX}")).await?;
        Ok(Live { status, nodes, events: events.events, trouble: None })
    }
}

/// Draws what is to be shown until somebody wants to leave.
async fn draw(terminal: &mut Whole, mut shown: watch::Receiver<Option<Live>>, printer: &Printer) -> Done {
    let signals = |kind| signal(kind).map_err(|error| Failure::local("catch signals", &error));
    let (mut terminate, mut hangup) = (signals(SignalKind::terminate())?, signals(SignalKind::hangup())?);
    let mut interrupt = signals(SignalKind::interrupt())?;
    let mut keys = EventStream::new();
    loop {
        terminal.draw(shown.borrow_and_update().as_ref(), printer)?;
        tokio::select! {
            key = keys.next() => match key {
                Some(Ok(key)) if wants_to_leave(&key) => return Ok(ExitCode::SUCCESS),
                // Everything else, a new size among it, only draws again.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(Failure::local("read the keyboard", &error)),
                None => return Ok(ExitCode::SUCCESS),
            },
            changed = shown.changed() => if changed.is_err() {
                return Ok(ExitCode::SUCCESS);
            },
            () = tokio::time::sleep(DRAW_AGAIN) => {}
            _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
            _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
            _ = hangup.recv() => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// In raw mode Ctrl-C is a key like others.
fn wants_to_leave(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let is_ctrl_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press && (is_ctrl_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

/// The whole terminal; given back however this ends. After a panic ratatui's hook does, before the message is printed.
struct Whole {
    terminal: Option<DefaultTerminal>,
}

impl Whole {
    fn take() -> Result<Whole, Failure> {
        // Made first, so that a half-taken terminal is given back as well.
        let mut whole = Whole { terminal: None };
        let taken = ratatui::try_init();
        whole.terminal = Some(taken.map_err(|error| Failure::local("take the terminal", &error))?);
        Ok(whole)
    }

    fn draw(&mut self, shown: Option<&Live>, printer: &Printer) -> Result<(), Failure> {
        let Some(terminal) = &mut self.terminal else { return Ok(()) };
        let screen = printer.screen();
        let drawn = terminal.draw(|frame| render::live(shown, &screen, frame.area(), frame.buffer_mut()));
        drawn.map(drop).map_err(|error| Failure::local("draw", &error))
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        // Its own end shows the cursor again.
        drop(self.terminal.take());
        ratatui::restore();
    }
}
