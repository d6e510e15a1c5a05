//! `--watch`: shows an answer again whenever it has changed.
//!
//! Why it exists: during an outage the same question is asked again and again; this asks it when the cluster says that
//! something happened, and once in a while. What it never does: end by itself, except when its reader has gone.

use crate::args::Watch;
use crate::feed::Feed;
use crate::output::Reader;
use crate::run::{Done, Failure, Session};
use crate::wait::{LOOK_AGAIN, may_pass};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Write;
use std::process::ExitCode;
use supervisor::client::ClientError;
use supervisor::render::Screen;
use supervisor::still::Still;
use tokio::time::Instant;

impl Session {
    /// Shows the answer once or, with `--watch`, again and again.
    pub(crate) async fn show_or_watch<A: DeserializeOwned + Serialize + Still>(
        &self,
        watch: Watch,
        path: &str,
        screen: impl Fn(&A, &Screen) -> String,
    ) -> Done {
        match watch.watch {
            true => self.watch(async || self.client.get::<A>(path).await, screen).await,
            false => self.show(path, screen).await,
        }
    }

    pub(crate) async fn watch<A: Serialize + Still>(
        &self,
        look: impl AsyncFn() -> Result<A, ClientError>,
        screen: impl Fn(&A, &Screen) -> String,
    ) -> Done {
        let mut feed = Feed::from_now(&self.client);
        let mut shown: Option<A> = None;
        loop {
            // Listening begins before the look, so that nothing falls between.
            let looked = match feed.listen().await {
                Ok(()) => look().await,
                Err(error) => Err(error),
            };
            match looked {
                Ok(answer) => {
                    let still = answer.clone().still();
                    let has_changed = shown.as_ref() != Some(&still);
                    // On a terminal the ages on the screen go on.
                    if (has_changed || self.printer.repaints())
                        && self.printer.print_again(&answer, &screen)? == Reader::Gone
                    {
                        return Ok(ExitCode::SUCCESS);
                    }
                    shown = Some(still);
                }
                Err(error) if shown.is_some() && may_pass(&error) => {
                    let said = writeln!(std::io::stderr(), "{}; still watching", Failure::from(error));
                    said.map_err(|error| Failure::local("write to standard error", &error))?;
                }
                Err(error) => return Err(error.into()),
            }
            feed.something(Instant::now() + LOOK_AGAIN).await?;
        }
    }
}
