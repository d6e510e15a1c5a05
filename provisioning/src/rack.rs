//! The emulated rack as a provider: its storage array, switch and boot service.
//!
//! What this is: the client of the rack's HTTP interface, and the words of that interface, which the rack itself uses.
//! Why it exists: the demo, the tests and a newcomer need storage, a switch and a boot service without owning any.
//! What it never does: it trusts no acknowledgement and follows no redirect, and shows its token to nobody.

use crate::{ProviderError, State, Wish};
use policies::{Check, Epoch, Finding, InstanceId, LogIndex, Permit, Refusal, SnapshotName, vlans};
use reqwest::{Client, Method, Response, StatusCode, Url};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

/// Longest time for a connection. Loopback connects in microseconds; what takes this long is not there.
const CONNECT_MAX: Duration = Duration::from_millis(500);
/// Longest time for one request, whatever the deadline: a device that hangs must not hold a connection for ever.
pub(crate) const REQUEST_MAX: Duration = Duration::from_secs(30);
/// Largest answer that is read, in bytes. The rack's answers have a few hundred.
const ANSWER_MAX: usize = 64 * 1024;

/// What the array says of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeState {
    /// Initiators with a right to the volume; an exclusive array has one at most.
    pub holders: Vec<String>,
    /// Initiators with live sessions.
    pub sessions: Vec<String>,
    /// The newest token seen for it.
    pub newest: LogIndex,
}

/// A change of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "change", deny_unknown_fields)]
pub enum VolumeChange {
    /// Give the initiator the exclusive right.
    Attach {
        /// Who gets it.
        initiator: String,
        /// Token of the change.
        token: LogIndex,
    },
    /// Take the initiator's right and drop its sessions.
    Revoke {
        /// Who loses it.
        initiator: String,
        /// Token of the change.
        token: LogIndex,
    },
}

/// What the array says of a volume's snapshots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotState {
    /// Those of ours; what others made is nobody's business here.
    pub snapshots: BTreeSet<SnapshotName>,
    /// The newest token seen for the volume.
    pub newest: LogIndex,
    /// Whether a backup can be made while somebody writes to the volume.
    #[serde(default)]
    pub in_use: bool,
}

/// Asks for a snapshot of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotChange {
    /// Its name. One that is there already is not made again. One of a failover is made only while nobody may write to the
    /// volume; one of a backup needs only be of one moment.
    pub name: SnapshotName,
    /// How many snapshots of ours of its kind the volume has at most afterwards, this one included; older ones are deleted.
    pub keep: u32,
    /// Token of the change, compared with the volume's.
    pub token: LogIndex,
}

impl SnapshotChange {
    /// Those of `ours` that go once this one is there: the oldest, and never itself.
    pub fn surplus(&self, ours: &BTreeSet<SnapshotName>) -> Vec<SnapshotName> {
        self.name.surplus(self.keep, ours)
    }
}

/// How a switch port is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state", deny_unknown_fields)]
pub enum PortSetting {
    /// Nothing passes.
    #[default]
    Closed,
    /// The VLAN passes.
    Open {
        /// VLAN id, untagged.
        vlan: u16,
        /// Further VLANs that it passes, tagged (IEEE 802.1Q).
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        tagged: BTreeSet<u16>,
        /// The MAC address expected behind the port.
        mac: Option<String>,
    },
}

/// What the switch says of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortState {
    /// Its setting.
    pub setting: PortSetting,
    /// The newest token seen for it.
    pub newest: LogIndex,
    /// Whether there is a link, however it is set; absent: the switch does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Link>,
}

/// Whether something is plugged into a port and alive. A machine that is off keeps its link as long as it has a supply:
/// it waits to be woken over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// There is.
    Up,
    /// There is not.
    Down,
}

/// A change of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortChange {
    /// The new setting.
    pub setting: PortSetting,
    /// Token of the change.
    pub token: LogIndex,
}

/// What a node boots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    /// The instance.
    pub instance: InstanceId,
    /// The boot source.
    pub image: String,
    /// The placement for which it is valid.
    pub epoch: Epoch,
}

/// What the boot service says of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootState {
    /// Its assignment.
    pub assignment: Option<Assignment>,
    /// The newest token seen for it.
    pub newest: LogIndex,
}

/// What the boot service says of an image that it serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageState {
    /// Its name.
    pub image: String,
}

/// Why an object could not be read (HTTP 404).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotThere {
    /// In words.
    pub error: String,
}

/// A change of a node's assignment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootChange {
    /// The new assignment.
    pub assignment: Assignment,
    /// Token of the change.
    pub token: LogIndex,
}

/// Why the rack did not change anything (HTTP 409).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "conflict")]
pub enum Conflict {
    /// A newer token was seen.
    #[error("a newer command was seen: {newest}")]
    TokenTooOld {
        /// That token.
        newest: LogIndex,
    },
    /// Another initiator has the exclusive right.
    #[error("held by {holder}")]
    HeldByOther {
        /// Who.
        holder: String,
    },
}

/// Client of one rack.
#[derive(Clone)]
pub struct Rack {
    base: Url,
    token: Arc<Zeroizing<String>>,
    http: Client,
}

impl fmt::Debug for Rack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rack").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

impl Rack {
    /// A client for the rack at `url` (`http://host:port`); `token` is its bearer token.
    ///
    /// # Errors
    /// [`ProviderError::Configuration`] if the address is no plain HTTP address or the token is no text.
    pub fn new(url: &str, token: &[u8]) -> Result<Self, ProviderError> {
        let unusable = |why: String| ProviderError::Configuration(format!("rack at {url}: {why}"));
        let base = Url::parse(url).map_err(|error| unusable(error.to_string()))?;
        if base.scheme() != "http" || base.host_str().is_none() || base.cannot_be_a_base() {
            return Err(unusable("the address has to be http://host:port".to_owned()));
        }
        let http = plain_client(REQUEST_MAX).map_err(|error| unusable(policies::causes(error.as_ref())))?;
        Rack::over(http, base, token).map_err(unusable)
    }

    /// The same words over another connection: `ha-storage` speaks them, too.
    pub(crate) fn over(http: Client, base: Url, token: &[u8]) -> Result<Self, String> {
        let token = std::str::from_utf8(token).map_err(|_| "its token is not a text".to_owned())?;
        Ok(Rack { base, token: Arc::new(Zeroizing::new(token.to_owned())), http })
    }

    pub(crate) async fn look(&self, wish: &Wish, deadline: Instant) -> Result<State, ProviderError> {
        let doing = format!("look whether to {wish}");
        let path = place(wish);
        match wish {
            Wish::Revoked { holder, .. } => {
                let state: VolumeState = self.read(&doing, path, deadline).await?;
                Ok(State::new(is_revoked(&state, holder), read_volume(&state)))
            }
            Wish::Attached { holder, .. } => {
                let state: VolumeState = self.read(&doing, path, deadline).await?;
                Ok(State::new(is_attached(&state, holder), read_volume(&state)))
            }
            Wish::Snapshot { name, .. } => {
                let state: SnapshotState = self.read(&doing, path, deadline).await?;
                Ok(State::new(state.snapshots.contains(name), read_snapshots(&state)))
            }
            Wish::PortClosed { .. } => {
                let state: PortState = self.read(&doing, path, deadline).await?;
                Ok(State::new(state.setting == PortSetting::Closed, read_port(&state)))
            }
            Wish::PortOpen { vlan, tagged, mac, .. } => {
                let state: PortState = self.read(&doing, path, deadline).await?;
                let wished = PortSetting::Open { vlan: *vlan, tagged: tagged.clone(), mac: mac.clone() };
                Ok(State::new(state.setting == wished, read_port(&state)))
            }
            Wish::VifAttached { .. } | Wish::Claimed { .. } | Wish::Cleaned { .. } => {
                Err(crate::clouds_only(wish))
            }
            Wish::Boots { instance, image, epoch, .. } => {
                let state: BootState = self.read(&doing, path, deadline).await?;
                let wished = Assignment { instance: instance.clone(), image: image.clone(), epoch: *epoch };
                Ok(State::new(state.assignment.as_ref() == Some(&wished), read_boot(&state)))
            }
        }
    }

    pub(crate) async fn check(&self, check: &Check, deadline: Instant) -> Result<Finding, ProviderError> {
        let doing = format!("look for {check}");
        let read = match check {
            Check::Free(_) => return Ok(Finding::CannotTell(format!("a rack knows nothing of {check}"))),
            Check::Port(port) => {
                self.find(&doing, ["ports", &port.port], deadline).await?.map(|port| link_found(&port))
            }
            Check::Volume(volume) => {
                let state = self.find(&doing, ["volumes", volume.volume.as_str()], deadline).await?;
                state.map(|_: VolumeState| Finding::Fine)
            }
            Check::Snapshot(volume) => {
                let state = self.find(&doing, ["snapshots", volume.volume.as_str()], deadline).await?;
                state.map(|_: SnapshotState| Finding::Fine)
            }
            Check::Backup(volume) => {
                let state = self.find(&doing, ["snapshots", volume.volume.as_str()], deadline).await?;
                state.map(|state: SnapshotState| match state.in_use {
                    true => Finding::Fine,
                    false => Finding::Absent(
                        "it keeps a volume only while nobody has it (`snapshot_in_use`)".to_owned(),
                    ),
                })
            }
            Check::Boot(boot) => {
                let state = self.find(&doing, ["images", &boot.image], deadline).await?;
                state.map(|_: ImageState| Finding::Fine)
            }
        };
        Ok(read.unwrap_or_else(|not_there| Finding::Absent(not_there.error)))
    }

    pub(crate) async fn act(
        &self,
        wish: &Wish,
        token: LogIndex,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), ProviderError> {
        let doing = wish.to_string();
        let body =
            encode(wish, token).map_err(|error| ProviderError::Configuration(format!("{doing}: {error}")))?;
        let request = self.request(Method::PUT, place(wish)).body(body);
        permit.check().map_err(|why| ProviderError::Refused { doing: doing.clone(), why })?;
        let response = self.answer(&doing, request, deadline).await?;
        accepted(&doing, token, response, deadline).await
    }

    /// Paths are built from segments, so that a port named `sw1/3` stays one segment.
    fn request(&self, method: Method, path: [&str; 2]) -> reqwest::RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(path);
        }
        self.http
            .request(method, url)
            .bearer_auth(self.token.as_str())
            .header(reqwest::header::CONTENT_TYPE, "application/json")
    }

    async fn read<T: DeserializeOwned>(
        &self,
        doing: &str,
        path: [&str; 2],
        deadline: Instant,
    ) -> Result<T, ProviderError> {
        match self.get(doing, path, deadline).await? {
            (StatusCode::OK, body) => parse(doing, &body),
            (status, body) => Err(not_ok(doing, LogIndex(0), status, &body)),
        }
    }

    /// The same for an object that may not be there. Only the rack's own words say that it is not: any web server at a wrong
    /// address answers 404.
    async fn find<T: DeserializeOwned>(
        &self,
        doing: &str,
        path: [&str; 2],
        deadline: Instant,
    ) -> Result<Result<T, NotThere>, ProviderError> {
        match self.get(doing, path, deadline).await? {
            (StatusCode::OK, body) => parse(doing, &body).map(Ok),
            (StatusCode::NOT_FOUND, body) => parse(doing, &body).map(Err),
            (status, body) => Err(not_ok(doing, LogIndex(0), status, &body)),
        }
    }

    async fn get(
        &self,
        doing: &str,
        path: [&str; 2],
        deadline: Instant,
    ) -> Result<(StatusCode, Vec<u8>), ProviderError> {
        let response = self.answer(doing, self.request(Method::GET, path), deadline).await?;
        let status = response.status();
        Ok((status, body(doing, response, deadline).await?))
    }

    async fn answer(
        &self,
        doing: &str,
        request: reqwest::RequestBuilder,
        deadline: Instant,
    ) -> Result<Response, ProviderError> {
        match timeout_at(deadline, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(source)) if source.is_connect() => {
                Err(ProviderError::Unreachable { doing: doing.to_owned(), source: source.into() })
            }
            Ok(Err(source)) => {
                Err(ProviderError::NoAnswer { doing: doing.to_owned(), source: Some(source.into()) })
            }
            Err(_) => Err(ProviderError::NoAnswer { doing: doing.to_owned(), source: None }),
        }
    }
}

pub(crate) fn parse<T: DeserializeOwned>(doing: &str, body: &[u8]) -> Result<T, ProviderError> {
    serde_json::from_slice(body)
        .map_err(|error| ProviderError::Garbled { doing: doing.to_owned(), why: error.to_string() })
}

fn link_found(port: &PortState) -> Finding {
    match port.link {
        Some(Link::Up) | None => Finding::Fine,
        Some(Link::Down) => Finding::Faulty("it has no link".to_owned()),
    }
}

/// An HTTP client for the rack, whose requests take `request_max` at most. The rack lives on loopback: no proxy, no
/// redirect, and a TLS set-up that trusts nobody, which only spares the process-wide choice of a TLS provider.
///
/// # Errors
/// If TLS or the client cannot be set up.
pub fn plain_client(request_max: Duration) -> Result<Client, Box<dyn std::error::Error + Send + Sync>> {
    client(rustls::RootCertStore::empty(), CONNECT_MAX, request_max)
}

/// An HTTP client that trusts these authorities and no other.
pub(crate) fn client(
    roots: rustls::RootCertStore,
    connect_max: Duration,
    request_max: Duration,
) -> Result<Client, crate::Cause> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(connect_max)
        .timeout(request_max)
        .tcp_nodelay(true)
        .build()?;
    Ok(client)
}

/// Where the object of a wish is found.
fn place(wish: &Wish) -> [&str; 2] {
    match wish {
        Wish::Revoked { volume, .. } | Wish::Attached { volume, .. } => ["volumes", volume.as_str()],
        Wish::Snapshot { volume, .. } => ["snapshots", volume.as_str()],
        Wish::PortClosed { port, .. } | Wish::PortOpen { port, .. } | Wish::VifAttached { port, .. } => {
            ["ports", port]
        }
        Wish::Boots { node, .. } => ["boot", node.as_str()],
        Wish::Claimed { holder, .. } | Wish::Cleaned { holder } => ["nodes", holder],
    }
}

/// The request that asks for the wish.
fn encode(wish: &Wish, token: LogIndex) -> Result<Vec<u8>, serde_json::Error> {
    match wish {
        Wish::Revoked { holder, .. } => {
            serde_json::to_vec(&VolumeChange::Revoke { initiator: holder.clone(), token })
        }
        Wish::Attached { holder, .. } => {
            serde_json::to_vec(&VolumeChange::Attach { initiator: holder.clone(), token })
        }
        Wish::Snapshot { name, keep, .. } => {
            serde_json::to_vec(&SnapshotChange { name: *name, keep: *keep, token })
        }
        Wish::PortClosed { .. } => serde_json::to_vec(&PortChange { setting: PortSetting::Closed, token }),
        Wish::PortOpen { vlan, tagged, mac, .. } => {
            let setting = PortSetting::Open { vlan: *vlan, tagged: tagged.clone(), mac: mac.clone() };
            serde_json::to_vec(&PortChange { setting, token })
        }
        Wish::VifAttached { .. } | Wish::Claimed { .. } | Wish::Cleaned { .. } => {
            Err(serde::ser::Error::custom(crate::clouds_only(wish)))
        }
        Wish::Boots { instance, image, epoch, .. } => {
            let assignment = Assignment { instance: instance.clone(), image: image.clone(), epoch: *epoch };
            serde_json::to_vec(&BootChange { assignment, token })
        }
    }
}

async fn accepted(
    doing: &str,
    token: LogIndex,
    response: Response,
    deadline: Instant,
) -> Result<(), ProviderError> {
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(());
    }
    let body = body(doing, response, deadline).await?;
    Err(not_ok(doing, token, status, &body))
}

/// Reads an answer, at most [`ANSWER_MAX`] bytes of it.
pub(crate) async fn body(
    doing: &str,
    mut response: Response,
    deadline: Instant,
) -> Result<Vec<u8>, ProviderError> {
    let mut body = Vec::new();
    loop {
        match timeout_at(deadline, response.chunk()).await {
            Ok(Ok(Some(chunk))) if body.len() + chunk.len() <= ANSWER_MAX => body.extend_from_slice(&chunk),
            Ok(Ok(Some(_))) => {
                let why = format!("it is longer than {ANSWER_MAX} bytes");
                return Err(ProviderError::Garbled { doing: doing.to_owned(), why });
            }
            Ok(Ok(None)) => return Ok(body),
            Ok(Err(source)) => {
                return Err(ProviderError::NoAnswer { doing: doing.to_owned(), source: Some(source.into()) });
            }
            Err(_) => return Err(ProviderError::NoAnswer { doing: doing.to_owned(), source: None }),
        }
    }
}

/// An answer other than 200 in short, for people.
pub(crate) fn said(status: StatusCode, body: &[u8]) -> String {
    format!("{status}: {}", String::from_utf8_lossy(body).chars().take(200).collect::<String>())
}

/// What an answer other than 200 means. The rack gives 4xx only if it changed nothing; a 5xx says nothing.
fn not_ok(doing: &str, token: LogIndex, status: StatusCode, body: &[u8]) -> ProviderError {
    let doing = doing.to_owned();
    let text = || said(status, body);
    let why = match status {
        StatusCode::CONFLICT => match serde_json::from_slice::<Conflict>(body) {
            Ok(Conflict::TokenTooOld { newest }) => Refusal::TokenTooOld { ours: token, newest },
            Ok(Conflict::HeldByOther { holder }) => Refusal::HeldByOther(holder),
            Err(_) => Refusal::DeviceRefused(text()),
        },
        StatusCode::UNAUTHORIZED => Refusal::NotAdmitted("it does not know the token".to_owned()),
        StatusCode::NOT_FOUND => Refusal::NotConfigured(text()),
        status if status.is_client_error() => Refusal::DeviceRefused(text()),
        _ => return ProviderError::Garbled { doing, why: text() },
    };
    ProviderError::Refused { doing, why }
}

/// A right without a session is as bad as a session without a right: both must be gone (R3).
fn is_revoked(state: &VolumeState, initiator: &str) -> bool {
    !state.holders.iter().chain(&state.sessions).any(|name| name == initiator)
}

fn is_attached(state: &VolumeState, initiator: &str) -> bool {
    state.holders == [initiator] && state.sessions.iter().all(|session| session == initiator)
}

fn read_volume(state: &VolumeState) -> String {
    let names = |names: &[String]| if names.is_empty() { "nobody".to_owned() } else { names.join(" ") };
    let (holders, sessions) = (names(&state.holders), names(&state.sessions));
    format!("held by {holders}, sessions of {sessions}, token {}", state.newest)
}

fn read_snapshots(state: &SnapshotState) -> String {
    let names: String = state.snapshots.iter().map(|name| format!(" {name}")).collect();
    match names.is_empty() {
        true => format!("no snapshots, token {}", state.newest),
        false => format!("snapshots{names}, token {}", state.newest),
    }
}

fn read_port(state: &PortState) -> String {
    match &state.setting {
        PortSetting::Closed => format!("closed, token {}", state.newest),
        PortSetting::Open { vlan, tagged, mac } => {
            let whose = mac.as_ref().map_or(String::new(), |mac| format!(" for {mac}"));
            format!("open in vlan {}{whose}, token {}", vlans(*vlan, tagged), state.newest)
        }
    }
}

fn read_boot(state: &BootState) -> String {
    match &state.assignment {
        None => format!("boots nothing, token {}", state.newest),
        Some(a) => format!("boots {} {} from {}, token {}", a.instance, a.epoch, a.image, state.newest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies::PlanId;

    #[test]
    fn the_oldest_snapshots_go_and_never_the_new_one() {
        let name = |number| SnapshotName::Failover(PlanId(number));
        let surplus = |new: u64, keep: u32, there: &[u64]| {
            let change = SnapshotChange { name: name(new), keep, token: LogIndex(1) };
            change.surplus(&there.iter().copied().map(name).collect())
        };
        assert_eq!(surplus(12, 2, &[12]), []);
        assert_eq!(surplus(12, 2, &[9, 12]), []);
        assert_eq!(surplus(12, 2, &[3, 9, 12]), [name(3)]);
        assert_eq!(surplus(12, 1, &[3, 9, 12]), [name(3), name(9)]);
        assert_eq!(surplus(12, 0, &[12]), [], "what was just made stays");
        assert_eq!(surplus(4, 2, &[4, 900, 901]), [name(900)], "a cluster that begins anew counts anew");
    }
}
