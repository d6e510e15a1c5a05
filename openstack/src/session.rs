//! One cloud: how it is entered, and how calls to it are made.
//!
//! Why it exists: tokens, versions, limits, repeats and the meaning of a lost answer are the same for every call.
//! What it never does: repeat a change of which it does not know that it was not carried out; follow a redirect; speak plain
//! HTTP to anybody once an authority is configured.

use crate::auth::{Credentials, Domain, Reference, Scope, Token};
use crate::catalog::Service;
use crate::error::{CallError, No};
use crate::exchange::{
    Answer, CHANGE_MAX, Failed, Pauses, READ_MAX, before_the_call, client, exchange, exchange_about_secret,
    may_speak_to, parse, patiently, secret,
};
use crate::ids::ProjectId;
use crate::version::{self, Microversion};
use crate::{Baremetal, Network, Volumes};
use bytes::Bytes;
use policies::{CloudAccess, CloudInterface, CloudUser, Millis, Permit};
use reqwest::{Method, RequestBuilder, StatusCode, Url, header};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

/// Longest time for which a call waits for a new token while the old one is good: no Keystone must hold up a fence.
const RENEW_MAX: Duration = Duration::from_secs(1);
/// After a renewal that failed, the old token is used for this long without another try.
const RENEW_PAUSE: Duration = Duration::from_secs(10);

/// How to reach and enter one cloud.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Keystone's address, with or without `/v3`.
    pub keystone: String,
    /// Who signed the certificates of all services, PEM; then nothing but HTTPS is spoken. Absent: plain HTTP, where the
    /// network itself is trusted.
    pub ca: Option<String>,
    /// Which region of the catalog; may be absent if there is only one.
    pub region: Option<String>,
    /// Which of the services' addresses.
    pub interface: CloudInterface,
    /// How to enter.
    pub credentials: Credentials,
}

impl Settings {
    /// From the inventory. `secret` is its opened secret.
    ///
    /// # Errors
    /// [`CallError::Unusable`] if the secret is no text.
    pub fn new(cloud: &CloudAccess, secret: &[u8]) -> Result<Settings, CallError> {
        let CloudAccess { keystone, ca, region, interface, user } = cloud.clone();
        let secret = std::str::from_utf8(secret).map_err(|_| CallError::Unusable {
            doing: format!("use the cloud at {keystone}"),
            why: "its secret is no text".to_owned(),
        })?;
        let secret = Zeroizing::new(secret.to_owned());
        let credentials = match user {
            CloudUser::ApplicationCredential { id } => Credentials::Application { id, secret },
            CloudUser::Password { name: user, domain, project, project_domain } => {
                let named = |name, domain| Reference::Name { name, domain: Domain::Id(domain) };
                let scope = Scope::Project(named(project, project_domain));
                Credentials::Password { user: named(user, domain), password: secret, scope }
            }
        };
        Ok(Settings { keystone, ca, region, interface, credentials })
    }
}

/// As whom we were let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The token's project; absent if it is for the whole system.
    pub project: Option<ProjectId>,
    /// Names of the roles, implied ones included.
    pub roles: BTreeSet<String>,
}

/// Client of one cloud. Cheap to clone; clones share token and connections, so build one per cloud and keep it.
#[derive(Clone)]
pub struct Cloud(Arc<Shared>);

struct Shared {
    http: reqwest::Client,
    settings: Settings,
    tokens_url: Url,
    /// Only held for moments.
    known: Mutex<Known>,
    /// Held by whoever gets a token, so that Keystone is not asked by all calls at once.
    entering: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    token: Option<Arc<Token>>,
    /// No renewal before this.
    renew_after: Option<Instant>,
    versions: BTreeMap<Service, Microversion>,
}

impl fmt::Debug for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cloud({} as {:?})", self.0.tokens_url, self.0.settings.credentials)
    }
}

/// One call, before it is known where to.
pub(crate) struct Ask {
    service: Service,
    method: Method,
    path: Vec<String>,
    query: Vec<(&'static str, String)>,
    body: Option<Value>,
    if_match: Option<String>,
    as_service: bool,
    doing: String,
}

impl Ask {
    /// `doing` says what the call is for: "attach VIF ... to node ...".
    pub(crate) fn new(service: Service, method: Method, path: &[&str], doing: String) -> Ask {
        let path = path.iter().map(|&part| part.to_owned()).collect();
        let (query, body, if_match) = (vec![], None, None);
        Ask { service, method, path, query, body, if_match, as_service: false, doing }
    }

    pub(crate) fn doing(&self) -> &str {
        &self.doing
    }

    pub(crate) fn query(mut self, key: &'static str, value: impl fmt::Display) -> Ask {
        self.query.push((key, value.to_string()));
        self
    }

    pub(crate) fn body(self, body: Value) -> Ask {
        Ask { body: Some(body), ..self }
    }

    /// Only if the object still is as it was when `condition` was read (RFC 9110, If-Match).
    pub(crate) fn if_match(self, condition: String) -> Ask {
        Ask { if_match: Some(condition), ..self }
    }

    /// With a second token, as one service speaks to another: only those may detach a volume behind Nova's back
    /// (OSSA-2023-003).
    pub(crate) fn with_service_token(self) -> Ask {
        Ask { as_service: true, ..self }
    }
}

impl Cloud {
    /// A client of the cloud. Connects nowhere yet.
    ///
    /// # Errors
    /// [`CallError::Unusable`] naming the setting.
    pub fn new(settings: Settings) -> Result<Cloud, CallError> {
        let unusable = |why: String| CallError::Unusable {
            doing: format!("use the cloud at {}", settings.keystone),
            why,
        };
        let mut tokens_url =
            Url::parse(&settings.keystone).map_err(|error| unusable(format!("keystone: {error}")))?;
        let is_http = matches!(tokens_url.scheme(), "http" | "https");
        if !is_http
            || !tokens_url.has_host()
            || !tokens_url.username().is_empty()
            || tokens_url.query().is_some()
        {
            return Err(unusable("keystone: write https://host:port/v3".to_owned()));
        }
        may_speak_to(&tokens_url, settings.ca.is_some()).map_err(unusable)?;
        let has_version = tokens_url.path_segments().is_some_and(|mut parts| parts.any(|part| part == "v3"));
        if let Ok(mut segments) = tokens_url.path_segments_mut() {
            segments.pop_if_empty();
            if !has_version {
                segments.push("v3");
            }
            segments.extend(["auth", "tokens"]);
        }
        let http =
            client(settings.ca.as_deref()).map_err(|error| unusable(policies::causes(error.as_ref())))?;
        let (known, entering) = (Mutex::default(), tokio::sync::Mutex::new(()));
        Ok(Cloud(Arc::new(Shared { http, settings, tokens_url, known, entering })))
    }

    /// Ironic's calls.
    pub fn baremetal(&self) -> Baremetal<'_> {
        Baremetal::new(self)
    }

    /// Neutron's calls.
    pub fn network(&self) -> Network<'_> {
        Network::new(self)
    }

    /// Cinder's calls.
    pub fn volumes(&self) -> Volumes<'_> {
        Volumes::new(self)
    }

    /// Enters if we are not in yet, and says as whom.
    ///
    /// # Errors
    /// [`CallError`]; nothing is changed by it.
    pub async fn admission(&self, deadline: Instant) -> Result<Admission, CallError> {
        let token = self.token(deadline).await?;
        Ok(Admission { project: token.project.clone(), roles: token.roles.clone() })
    }

    /// The token itself, renewed when it is time: for who has to show somebody else who they are.
    ///
    /// # Errors
    /// [`CallError`]; nothing is changed by it.
    pub async fn own_token(&self, deadline: Instant) -> Result<Zeroizing<String>, CallError> {
        Ok(self.token(deadline).await?.secret.clone())
    }

    /// What Keystone says of a token of somebody else's, without the catalog.
    pub(crate) async fn look_up(
        &self,
        doing: &str,
        shown: &Zeroizing<String>,
        deadline: Instant,
    ) -> Result<Vec<u8>, CallError> {
        let mut url = self.0.tokens_url.clone();
        url.set_query(Some("nocatalog"));
        let ask = async |ours: &Token| {
            let request = self.0.http.get(url.clone()).header(header::ACCEPT, "application/json");
            let request = request.header("x-auth-token", secret(&ours.secret));
            let request = request.header("x-subject-token", secret(shown));
            exchange_about_secret(doing, request, deadline.min(Instant::now() + READ_MAX)).await
        };
        let once = async || {
            let ours = self.token(deadline).await?;
            match ask(&ours).await {
                // It is ours that was not admitted.
                Err(Failed { status: Some(StatusCode::UNAUTHORIZED), .. }) => {
                    self.forget(&ours);
                    ask(&*self.token(deadline).await?).await
                }
                end => end,
            }
        };
        patiently(deadline, once).await.map(|answer| answer.body).map_err(|failed| failed.error)
    }

    /// Which version of its API is spoken with a service; `None`: it has none. Asked once.
    ///
    /// # Errors
    /// [`CallError::Unusable`] if there is none that both know, naming both ranges.
    pub async fn version(
        &self,
        service: Service,
        deadline: Instant,
    ) -> Result<Option<Microversion>, CallError> {
        let token = self.token(deadline).await?;
        self.version_with(&token, service, deadline).await.map_err(|failed| failed.error)
    }

    async fn version_with(
        &self,
        token: &Token,
        service: Service,
        deadline: Instant,
    ) -> Result<Option<Microversion>, Failed> {
        let Some(ours) = service.versions() else { return Ok(None) };
        if let Some(known) = self.known().versions.get(&service) {
            return Ok(Some(*known));
        }
        let base = self.base(service, token)?;
        let url = service.version_document(&base);
        let doing = format!("ask which versions the {service} speaks ({url})");
        let asked = patiently(deadline, || {
            let request = self.0.http.get(url.clone()).header("x-auth-token", secret(&token.secret));
            exchange(&doing, request, deadline.min(Instant::now() + READ_MAX))
        });
        let body = asked.await.map_err(before_the_call)?.body;
        let Some(theirs) = version::spoken(&body) else {
            return Err(CallError::Unusable { doing, why: "it does not say".to_owned() }.into());
        };
        let Some(newest) = ours.newest_common(theirs) else {
            let why = format!("it speaks {theirs}, we need one of {ours}");
            return Err(CallError::Unusable { doing, why }.into());
        };
        self.known().versions.insert(service, newest);
        Ok(Some(newest))
    }

    /// Reads something; tries again what failed in passing.
    pub(crate) async fn read<T: DeserializeOwned>(
        &self,
        ask: Ask,
        deadline: Instant,
    ) -> Result<T, CallError> {
        let answer = patiently(deadline, || self.once(&ask, None, deadline)).await;
        parse(ask.doing, &answer.map_err(|failed| failed.error)?.body)
    }

    /// Changes something: sends it once, but again as long as another operation has the node's lock, and once more with a
    /// new token. The permit is asked right before each time (R5).
    pub(crate) async fn change(
        &self,
        ask: Ask,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), CallError> {
        self.changed(&ask, permit, deadline).await.map(drop)
    }

    /// The same for a change whose answer is wanted.
    pub(crate) async fn change_for<T: DeserializeOwned>(
        &self,
        ask: Ask,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<T, CallError> {
        let body = self.changed(&ask, permit, deadline).await?;
        parse(ask.doing, &body)
    }

    async fn changed(&self, ask: &Ask, permit: &dyn Permit, deadline: Instant) -> Result<Vec<u8>, CallError> {
        let (begun, mut pauses) = (Instant::now(), Pauses::until(deadline));
        loop {
            let sent = Instant::now();
            let why = match self.once(ask, Some(permit), deadline).await.map_err(|failed| failed.error) {
                Ok(answer) => return Ok(answer.body),
                Err(CallError::Refused { no: No::Conflict, why, .. }) if is_locked(ask.service, &why) => why,
                Err(error) => return Err(error),
            };
            // Ironic itself waits for the lock before it says no. A try that the deadline would cut short teaches nothing,
            // and leaves open whether it was carried out.
            if !pauses.wait_and_leave(sent.elapsed()).await {
                let waited = Millis(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
                return Err(CallError::Locked { doing: ask.doing.clone(), waited, why });
            }
        }
    }

    /// One exchange; a second with a new token if the first was not admitted.
    async fn once(
        &self,
        ask: &Ask,
        permit: Option<&dyn Permit>,
        deadline: Instant,
    ) -> Result<Answer, Failed> {
        let token = self.token(deadline).await?;
        match self.send(ask, &token, permit, deadline).await {
            Err(Failed { status: Some(StatusCode::UNAUTHORIZED), .. }) => {
                self.forget(&token);
                let token = self.token(deadline).await?;
                self.send(ask, &token, permit, deadline).await
            }
            end => end,
        }
    }

    async fn send(
        &self,
        ask: &Ask,
        token: &Token,
        permit: Option<&dyn Permit>,
        deadline: Instant,
    ) -> Result<Answer, Failed> {
        let version = self.version_with(token, ask.service, deadline).await?;
        let url = self.url(ask, token)?;
        let doing =
            format!("{} ({} {}{})", ask.doing, ask.method, url.origin().ascii_serialization(), url.path());
        let request = self.request(ask, url, token, version);
        let limit = match permit {
            Some(permit) => {
                if Instant::now() >= deadline {
                    return Err(
                        CallError::Unreachable { doing, source: "the deadline had passed".into() }.into()
                    );
                }
                permit.check().map_err(|why| CallError::NotPermitted { doing: doing.clone(), why })?;
                CHANGE_MAX
            }
            None => READ_MAX,
        };
        let end = exchange(&doing, request, deadline.min(Instant::now() + limit)).await;
        if let Err(Failed { status: Some(StatusCode::NOT_ACCEPTABLE), .. }) = &end {
            // The service was changed for an older one meanwhile: the next call asks again what it speaks.
            self.known().versions.remove(&ask.service);
        }
        end
    }

    fn request(&self, ask: &Ask, url: Url, token: &Token, version: Option<Microversion>) -> RequestBuilder {
        let mut request =
            self.0.http.request(ask.method.clone(), url).header(header::ACCEPT, "application/json");
        request = request.header("x-auth-token", secret(&token.secret));
        if ask.as_service {
            request = request.header("x-service-token", secret(&token.secret));
        }
        if let Some(version) = version {
            let (name, value) = ask.service.version_header(version);
            request = request.header(name, value);
        }
        if let Some(condition) = &ask.if_match {
            request = request.header(header::IF_MATCH, condition);
        }
        if let Some(body) = &ask.body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body.to_string());
        }
        request
    }

    fn url(&self, ask: &Ask, token: &Token) -> Result<Url, CallError> {
        let mut url = self.base(ask.service, token)?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(&ask.path);
        }
        if !ask.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&ask.query);
        }
        Ok(url)
    }

    fn base(&self, service: Service, token: &Token) -> Result<Url, CallError> {
        let Settings { region, interface, ca, .. } = &self.0.settings;
        let found = token.catalog.find(service, region.as_deref(), *interface).and_then(|url| {
            may_speak_to(&url, ca.is_some())?;
            Ok(service.base(url))
        });
        found.map_err(|why| CallError::Unusable { doing: format!("find the {service}"), why })
    }

    // ---- the token

    /// A token that is good now; got, or renewed, if need be.
    async fn token(&self, deadline: Instant) -> Result<Arc<Token>, CallError> {
        if let Some(token) = self.held() {
            if Instant::now() < token.renew
                || self.known().renew_after.is_some_and(|time| Instant::now() < time)
            {
                return Ok(token);
            }
            // Whoever comes while another renews takes the old one, as does who cannot renew it.
            let Ok(_entering) = self.0.entering.try_lock() else { return Ok(token) };
            return match self.enter(deadline.min(Instant::now() + RENEW_MAX)).await {
                Ok(new) => Ok(new),
                Err(_) => {
                    self.known().renew_after = Some(Instant::now() + RENEW_PAUSE);
                    Ok(token)
                }
            };
        }
        let waiting = timeout_at(deadline, self.0.entering.lock()).await;
        let Ok(_entering) = waiting else {
            let source = "another call is still waiting for a token".into();
            return Err(CallError::Unreachable { doing: self.entering(), source });
        };
        match self.held() {
            Some(token) => Ok(token),
            None => self.enter(deadline).await,
        }
    }

    fn held(&self) -> Option<Arc<Token>> {
        let token = self.known().token.clone();
        token.filter(|token| Instant::now() < token.end)
    }

    /// The service did not take it. Another call may have got a new one meanwhile.
    fn forget(&self, refused: &Arc<Token>) {
        let mut known = self.known();
        if known.token.as_ref().is_some_and(|token| Arc::ptr_eq(token, refused)) {
            known.token = None;
        }
    }

    async fn enter(&self, deadline: Instant) -> Result<Arc<Token>, CallError> {
        let got = patiently(deadline, || self.ask_for_token(deadline)).await;
        let token = Arc::new(got.map_err(|failed| before_the_call(failed).error)?);
        let mut known = self.known();
        known.token = Some(Arc::clone(&token));
        known.renew_after = None;
        Ok(token)
    }

    async fn ask_for_token(&self, deadline: Instant) -> Result<Token, Failed> {
        let doing = self.entering();
        let (asked, body) = (Instant::now(), Bytes::from_owner(self.0.settings.credentials.body()));
        let request = self.0.http.post(self.0.tokens_url.clone()).header(header::ACCEPT, "application/json");
        let request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        let answer = exchange(&doing, request, deadline.min(asked + READ_MAX)).await?;
        let unclear = |why: &str| CallError::Unclear { doing: doing.clone(), why: why.to_owned() };
        let secret = answer.headers.get("x-subject-token").and_then(|value| value.to_str().ok());
        let secret =
            Zeroizing::new(secret.ok_or_else(|| unclear("there is no token in the answer"))?.to_owned());
        Ok(Token::read(secret, &answer.body, asked).map_err(|why| unclear(&why))?)
    }

    fn entering(&self) -> String {
        format!("enter the cloud ({})", self.0.tokens_url)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ironic has no code for it: 409 is sent for other conflicts, too (`NodeLocked` in ironic/common/exception.py).
fn is_locked(service: Service, why: &str) -> bool {
    service == Service::Baremetal && why.contains("is locked by host")
}
