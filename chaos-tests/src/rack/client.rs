//! The client of the rack's control API, for `rack do` and for tests of a rack in another process.
//!
//! Why it exists: faults are injected from outside while supervisor and rack run.
//! What it never does: it knows no fault by itself; it carries what [`super::fault`] defines.

use super::api::{ChassisCommand, ChassisReading, FaultRequest};
use super::description::Description;
use super::fault::{DeviceMood, Fault};
use super::journal::Journal;
use super::world::{Report, Status};
use policies::{NodeId, Power};
use reqwest::{Client as Http, Method, RequestBuilder};
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Longest time for one request. Everything is on loopback; a fault that waits for processes takes some milliseconds.
const REQUEST_MAX: Duration = Duration::from_secs(10);

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No answer.
    #[error("{doing}")]
    Http {
        /// What we were doing.
        doing: String,
        /// How it failed.
        source: reqwest::Error,
    },
    /// The rack said no.
    #[error("{doing}: {why}")]
    Refused {
        /// What we were doing.
        doing: String,
        /// What it said.
        why: String,
    },
    /// No client could be made.
    #[error("prepare a client: {0}")]
    Client(String),
}

/// A running rack, seen from outside.
#[derive(Clone, Debug)]
pub struct Client {
    base: String,
    token: policies::Sealed,
    http: Http,
}

impl Client {
    /// A client of the rack that is described so.
    ///
    /// # Errors
    /// If the HTTP client cannot be made.
    pub fn new(description: &Description) -> Result<Self, ClientError> {
        let http = provisioning::rack::plain_client(REQUEST_MAX)
            .map_err(|error| ClientError::Client(error.to_string()))?;
        let base = format!("http://{}/v1", description.api);
        Ok(Client { base, token: description.token.clone(), http })
    }

    /// Lets a fault happen to a machine.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn fault(&self, node: &NodeId, fault: Fault) -> Result<(), ClientError> {
        let request = FaultRequest { node: node.clone(), fault };
        self.send(Method::POST, "faults", |builder| builder.json(&request)).await
    }

    /// Changes how array, switch and boot service answer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn device_mood(&self, mood: DeviceMood) -> Result<(), ClientError> {
        self.send(Method::PUT, "device-mood", |builder| builder.json(&mood)).await
    }

    /// The rack as it is now.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.send(Method::GET, "status", |builder| builder).await
    }

    /// What the array has seen.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn report(&self) -> Result<Report, ClientError> {
        self.send(Method::GET, "report", |builder| builder).await
    }

    /// What a judge needs to know of all that happened.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn journal(&self) -> Result<Journal, ClientError> {
        self.send(Method::GET, "journal", |builder| builder).await
    }

    /// Reads power as a BMC would.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn power(&self, node: &NodeId) -> Result<Power, ClientError> {
        let reading: ChassisReading =
            self.send(Method::GET, &format!("chassis/{node}"), |builder| builder).await?;
        Ok(reading.power)
    }

    /// Gives a chassis command as a BMC would.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn chassis(&self, node: &NodeId, command: ChassisCommand) -> Result<(), ClientError> {
        self.send(Method::PUT, &format!("chassis/{node}"), |builder| builder.json(&command)).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        with: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<T, ClientError> {
        let doing = format!("{method} {}/{path}", self.base);
        let failed = |source| ClientError::Http { doing: doing.clone(), source };
        let request = self.http.request(method, format!("{}/{path}", self.base)).bearer_auth(&self.token.0);
        let response = with(request).send().await.map_err(failed)?;
        if response.status().is_success() {
            return response.json().await.map_err(failed);
        }
        let status = response.status();
        let text = response.text().await.map_err(failed)?;
        Err(ClientError::Refused { doing: doing.clone(), why: format!("{status}: {text}") })
    }
}
