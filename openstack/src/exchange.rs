//! One request and its answer: TLS, limits, tries, and what no answer means.
//!
//! Why it exists: what was not sent did not happen, what was not answered may have. What it never does: know any service.

use crate::error::{self, CallError, Cause};
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{RequestBuilder, StatusCode, Url};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;
use zeroize::Zeroizing;

/// Longest time for a connection with its handshake: a load balancer in the same hall takes milliseconds; a longer wait leaves
/// a failover no time for a second try.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Longest time for one reading, whatever the deadline: what takes longer is tried again. The slowest seen, a page of nodes
/// under load, took 3 s.
pub(crate) const READ_MAX: Duration = Duration::from_secs(15);
/// Longest time for one change. Ironic attaches a VIF before it answers, which took up to 28 s.
pub(crate) const CHANGE_MAX: Duration = Duration::from_secs(120);
/// How often one reading is tried. With the pauses below that spans 1.5 s, which outlives a load balancer's restart.
const READ_TRIES_MAX: u32 = 5;
/// The first pause between two tries, about one exchange; each is twice the one before.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause: Ironic itself looks at a node's lock as often.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Largest answer that is read, in bytes. A page of 500 nodes has 1 MiB.
const ANSWER_MAX: usize = 16 << 20;
/// What is asked for in one page of a list. Services give fewer if they are configured so (Ironic's `[api] max_limit`, 1000; Neutron's
/// `pagination_max_limit`).
pub(crate) const PAGE_MAX: u32 = 500;
/// Most objects that one list is read to. A cloud with more is not ours to watch, or does not end its list.
pub(crate) const LISTED_MAX: usize = 50_000;

/// An answer that is a success.
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// Why there is none.
pub(crate) struct Failed {
    pub(crate) error: CallError,
    /// Of the answer, if there was one.
    pub(crate) status: Option<StatusCode>,
    /// True if it may well be gone at the next try.
    passing: bool,
}

impl From<CallError> for Failed {
    /// What ended a call before it was sent, and was tried often enough.
    fn from(error: CallError) -> Failed {
        Failed { error, status: None, passing: false }
    }
}

/// Sends one request and reads its answer; what was asked, and how it ended, is in the log (`openstack=debug`).
pub(crate) async fn exchange(
    doing: &str,
    request: RequestBuilder,
    deadline: Instant,
) -> Result<Answer, Failed> {
    let asked = Instant::now();
    told(doing, asked, answer(doing, request, deadline).await)
}

/// The same for a question about somebody else's secret, which an error may repeat (Keystone's `TokenNotFound` does): of a no only the
/// status is kept.
pub(crate) async fn exchange_about_secret(
    doing: &str,
    request: RequestBuilder,
    deadline: Instant,
) -> Result<Answer, Failed> {
    let asked = Instant::now();
    let end = answer(doing, request, deadline).await.map_err(|mut failed| {
        if let (Some(status), CallError::Refused { why, .. } | CallError::Unclear { why, .. }) =
            (failed.status, &mut failed.error)
        {
            *why = status.to_string();
        }
        failed
    });
    told(doing, asked, end)
}

fn told(doing: &str, asked: Instant, end: Result<Answer, Failed>) -> Result<Answer, Failed> {
    let error = end.as_ref().err().map(|failed| policies::causes(&failed.error));
    debug!(doing, took = ?asked.elapsed(), error, "asked");
    end
}

async fn answer(doing: &str, request: RequestBuilder, deadline: Instant) -> Result<Answer, Failed> {
    let doing = || doing.to_owned();
    let passing = |error| Failed { error, status: None, passing: true };
    let answered = async {
        let mut response = request.send().await?;
        let (status, headers, mut body) = (response.status(), response.headers().clone(), vec![]);
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > ANSWER_MAX {
                return Ok((status, headers, None));
            }
            body.extend_from_slice(&chunk);
        }
        Ok::<_, reqwest::Error>((status, headers, Some(body)))
    };
    let (status, headers, body) = match timeout_at(deadline, answered).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            // The address is in what we were doing.
            let (is_connect, source) = (error.is_connect(), Cause::from(error.without_url()));
            return Err(passing(match is_connect {
                true => CallError::Unreachable { doing: doing(), source },
                false => CallError::NoAnswer { doing: doing(), source: Some(source) },
            }));
        }
        Err(_) => return Err(passing(CallError::NoAnswer { doing: doing(), source: None })),
    };
    match body {
        Some(body) if status.is_success() => Ok(Answer { headers, body }),
        None if status.is_success() => {
            let why = format!("the answer has more than {ANSWER_MAX} bytes");
            Err(Failed {
                error: CallError::Unclear { doing: doing(), why },
                status: Some(status),
                passing: false,
            })
        }
        body => Err(Failed {
            error: error::of_answer(doing(), status, &body.unwrap_or_default()),
            status: Some(status),
            passing: matches!(status.as_u16(), 429 | 500 | 502 | 503 | 504),
        }),
    }
}

/// Tries something that changes nothing until it succeeds, fails for good, or was tried often enough. (A plain closure: what an
/// async one gives back is not seen to be `Send`.)
pub(crate) async fn patiently<T, F: Future<Output = Result<T, Failed>>>(
    deadline: Instant,
    mut attempt: impl FnMut() -> F,
) -> Result<T, Failed> {
    let (mut pauses, mut tries) = (Pauses::until(deadline), 0);
    loop {
        tries += 1;
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(Failed { passing: true, .. }) if tries < READ_TRIES_MAX && pauses.wait().await => {}
            Err(failed) => return Err(Failed { passing: false, ..failed }),
        }
    }
}

/// The pause between two looks at something that the cloud does, after so long a wait: Ironic takes seconds for it, and every look is
/// a call or two. With these, a power off in 10 s and a deployment in 30 s are looked at about thirty times; longer ones would be felt
/// in the failover.
pub fn pause(waited: Duration) -> Duration {
    (waited / 5).clamp(Duration::from_millis(500), Duration::from_secs(2))
}

/// Growing pauses until a deadline.
pub(crate) struct Pauses {
    next: Duration,
    deadline: Instant,
}

impl Pauses {
    pub(crate) fn until(deadline: Instant) -> Pauses {
        Pauses { next: PAUSE_MIN, deadline }
    }

    /// Waits; false if there is no time left for that.
    pub(crate) async fn wait(&mut self) -> bool {
        self.wait_and_leave(Duration::ZERO).await
    }

    /// Waits; false if less than `needed` would be left then.
    pub(crate) async fn wait_and_leave(&mut self, needed: Duration) -> bool {
        if Instant::now() + self.next + needed >= self.deadline {
            return false;
        }
        sleep(self.next).await;
        self.next = (self.next * 2).min(PAUSE_MAX);
        true
    }
}

/// What the end of an exchange before a call (for its token, say) means for the call: it was not sent.
pub(crate) fn before_the_call(failed: Failed) -> Failed {
    let error = match failed.error {
        CallError::NoAnswer { doing, source } => {
            let source = source.unwrap_or_else(|| "no answer".into());
            CallError::Unreachable { doing, source }
        }
        CallError::Unclear { doing, why } => CallError::Unreachable { doing, source: why.into() },
        other @ (CallError::Unreachable { .. }
        | CallError::NotPermitted { .. }
        | CallError::Locked { .. }
        | CallError::Refused { .. }
        | CallError::Unusable { .. }) => other,
    };
    Failed { error, ..failed }
}

pub(crate) fn parse<T: DeserializeOwned>(doing: String, body: &[u8]) -> Result<T, CallError> {
    serde_json::from_slice(body)
        .map_err(|error| CallError::Unclear { doing, why: format!("cannot understand the answer: {error}") })
}

/// A header that no log shows. A token with a control character in it is none, and is sent as nothing.
pub(crate) fn secret(token: &Zeroizing<String>) -> HeaderValue {
    let mut value = HeaderValue::from_str(token).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// Whether an address may be spoken to: with an authority only over TLS, without one only in the clear.
///
/// # Errors
/// Why not.
pub(crate) fn may_speak_to(url: &Url, has_authority: bool) -> Result<(), String> {
    match (url.scheme(), has_authority) {
        ("https", true) | ("http", false) => Ok(()),
        ("http", true) => Err(format!("with a `ca`, {url} is not spoken to: it is plain HTTP")),
        ("https", false) => Err(format!("{url} needs a `ca`")),
        _ => Err(format!("{url} is no address of a service")),
    }
}

/// The client of all services: no proxy, no redirect, no authority but this one.
pub(crate) fn client(ca: Option<&str>) -> Result<reqwest::Client, Cause> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(ca.unwrap_or_default().as_bytes()) {
        roots.add(root?)?;
    }
    if ca.is_some() && roots.is_empty() {
        return Err("`ca` holds no certificate in PEM form".into());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_MAX)
        .tcp_nodelay(true)
        .build()?;
    Ok(client)
}
