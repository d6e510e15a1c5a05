//! The members' own boot service as a provider: the client that reads it as a node would.
//!
//! What this is: the look at what a node is told to boot. The service itself is the supervisor's (`api/boot.rs`).
//! Why it exists: before a spare is switched on it must be sure that it will be told the right thing, by somebody.
//! What it never does: it sends no change. What a node boots follows from the committed state alone.

use crate::rack::{body, parse, plain_client, said};
use crate::{ProviderError, State, Wish};
use policies::{BootRole, Booting, Check, Finding, HttpUrl, Refusal};
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Longest time for one member to answer; then the next is asked. The leader asks a quorum first, which takes milliseconds.
const REQUEST_MAX: Duration = Duration::from_secs(2);

/// Client of the boot services of all members.
#[derive(Clone, Debug)]
pub struct Boot {
    members: Arc<[HttpUrl]>,
    images: Arc<BTreeSet<String>>,
    http: Client,
}

/// What a member answers to the question whether its boot service has answers.
#[derive(Deserialize)]
struct Serves {}

impl Boot {
    /// A client of these members' services, which serve images of these names.
    ///
    /// # Errors
    /// [`ProviderError::Configuration`] if the client cannot be set up.
    pub fn new(members: &[HttpUrl], images: BTreeSet<String>) -> Result<Self, ProviderError> {
        let http = plain_client(REQUEST_MAX)
            .map_err(|error| ProviderError::Configuration(policies::causes(error.as_ref())))?;
        Ok(Boot { members: members.into(), images: Arc::new(images), http })
    }

    pub(crate) async fn look(&self, wish: &Wish, deadline: Instant) -> Result<State, ProviderError> {
        match wish {
            Wish::Boots { node, holder: _, instance: wanted, image, epoch: current } => {
                let doing = format!("look whether to {wish}");
                let role: BootRole = self.ask(&doing, &format!("/boot/node/{node}"), deadline).await?;
                let holds = matches!(&role, BootRole::Boots(Booting { instance, epoch, name, .. })
                    if (instance, epoch, name) == (wanted, current, image));
                Ok(State::new(holds, role.to_string()))
            }
            Wish::Revoked { .. }
            | Wish::Attached { .. }
            | Wish::Snapshot { .. }
            | Wish::PortClosed { .. }
            | Wish::PortOpen { .. }
            | Wish::VifAttached { .. }
            | Wish::Claimed { .. }
            | Wish::Cleaned { .. } => {
                Err(ProviderError::Configuration(format!("a boot service cannot {wish}")))
            }
        }
    }

    pub(crate) async fn check(&self, check: &Check, deadline: Instant) -> Result<Finding, ProviderError> {
        match check {
            Check::Boot(boot) if !self.images.contains(&boot.image) => {
                Ok(Finding::Absent(format!("it has no image {}", boot.image)))
            }
            Check::Boot(_) => {
                let Serves {} = self.ask(&format!("look for {check}"), "/boot", deadline).await?;
                Ok(Finding::Fine)
            }
            Check::Port(_) | Check::Volume(_) | Check::Snapshot(_) | Check::Backup(_) | Check::Free(_) => {
                Ok(Finding::CannotTell(format!("a boot service knows nothing of {check}")))
            }
        }
    }

    /// There is nothing to send: the placement that was committed before is the change.
    #[expect(clippy::unused_self, reason = "a provider's method")]
    pub(crate) fn act(&self, wish: &Wish) -> Result<(), ProviderError> {
        let why = "the committed state says otherwise, and the boot service takes no orders".to_owned();
        Err(ProviderError::Refused { doing: wish.to_string(), why: Refusal::DeviceRefused(why) })
    }

    /// Asks the members in turn; the leader alone answers, with a quorum behind it.
    async fn ask<T: for<'a> Deserialize<'a>>(
        &self,
        doing: &str,
        path: &str,
        deadline: Instant,
    ) -> Result<T, ProviderError> {
        let mut told = vec![];
        for member in &*self.members {
            let host = member.authority();
            match timeout_at(deadline, self.get(doing, host, path, deadline)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(why)) => told.push(format!("{host}: {why}")),
                Err(_) => told.push(format!("{host}: no answer")),
            }
        }
        Err(ProviderError::Unreachable { doing: doing.to_owned(), source: told.join("; ").into() })
    }

    async fn get<T: for<'a> Deserialize<'a>>(
        &self,
        doing: &str,
        host: &str,
        path: &str,
        deadline: Instant,
    ) -> Result<T, String> {
        let answered = self.http.get(format!("http://{host}{path}")).send().await;
        let response = answered.map_err(|error| policies::causes(&error))?;
        let status = response.status();
        let body = body(doing, response, deadline).await.map_err(|error| policies::causes(&error))?;
        match status {
            StatusCode::OK => parse(doing, &body).map_err(|error| policies::causes(&error)),
            status => Err(said(status, &body)),
        }
    }
}
