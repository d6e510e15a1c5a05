//! The cluster's events as they happen, from whichever member can be reached.
//!
//! Why it exists: whoever watches or waits is told when there is something to look at, so that nobody asks in circles.
//! What it never does: lose an event because a member went away; it goes on at another one, after the last that it had.

use crate::run::Failure;
use policies::{Event, LogIndex};
use reqwest::Response;
use std::time::Duration;
use supervisor::client::{Client, ClientError};
use tokio::time::Instant;

/// Pause before a broken stream of events is opened again.
const FOLLOW_AGAIN: Duration = Duration::from_millis(500);
/// How long after an event others are taken together with it: a failover writes some twenty entries within a second, and
/// each look is a question to the leader. Longer, and the screen is late.
const TOGETHER: Duration = Duration::from_millis(100);

/// A stream of events that does not end.
pub(crate) struct Feed<'a> {
    client: &'a Client,
    query: String,
    after: Option<LogIndex>,
    stream: Option<Response>,
    arrived: Vec<u8>,
}

impl<'a> Feed<'a> {
    /// `query`: the parameters of `/v1/events/follow`.
    pub(crate) fn new(client: &'a Client, query: String) -> Feed<'a> {
        Feed { client, query, after: None, stream: None, arrived: vec![] }
    }

    /// Only what happens from now on.
    pub(crate) fn from_now(client: &'a Client) -> Feed<'a> {
        Feed::new(client, "limit=0".to_owned())
    }

    /// Begins to listen, so that what happens after this call is not missed. Whoever looks next, only looks if this went
    /// well: if no member can be reached, one search for them is enough.
    pub(crate) async fn listen(&mut self) -> Result<(), ClientError> {
        if self.stream.is_none() {
            self.stream = Some(self.open().await?);
        }
        Ok(())
    }

    async fn open(&self) -> Result<Response, ClientError> {
        let resume = self.after.map(|index| format!("&after={}", index.0)).unwrap_or_default();
        self.client.stream(&format!("/v1/events/follow?{}{resume}", self.query)).await
    }

    /// The next event. Only not finding any member is an error. May be dropped before it ends; nothing is lost.
    pub(crate) async fn next(&mut self) -> Result<Event, Failure> {
        loop {
            if let Some(event) = self.pop()? {
                return Ok(event);
            }
            self.listen().await?;
            let Some(stream) = &mut self.stream else { continue };
            match stream.chunk().await {
                Ok(Some(chunk)) => self.arrived.extend_from_slice(&chunk),
                Ok(None) | Err(_) => {
                    self.stream = None;
                    self.arrived.clear();
                    tokio::time::sleep(FOLLOW_AGAIN).await;
                }
            }
        }
    }

    /// Returns once something has happened, or at `until`. Members that cannot be reached are no error here: whoever
    /// waits asks next, and hears it then.
    pub(crate) async fn something(&mut self, until: Instant) -> Result<(), Failure> {
        match tokio::time::timeout_at(until, self.next()).await {
            Ok(Ok(_)) => tokio::time::sleep(TOGETHER).await,
            Ok(Err(Failure::Cluster(_))) => tokio::time::sleep_until(until).await,
            Ok(Err(failure)) => return Err(failure),
            Err(_) => return Ok(()),
        }
        // What came together needs no look of its own.
        while let Ok(Ok(_)) = tokio::time::timeout(Duration::ZERO, self.next()).await {}
        Ok(())
    }

    fn pop(&mut self) -> Result<Option<Event>, Failure> {
        let Some(end) = self.arrived.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let line: Vec<u8> = self.arrived.drain(..=end).collect();
        let event: Event =
            serde_json::from_slice(&line).map_err(|error| Failure::local("read an event", &error))?;
        self.after = Some(event.index);
        Ok(Some(event))
    }
}
