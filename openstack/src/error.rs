//! Why a call has no result, and whether what it was to change may have changed all the same.
//!
//! Why it exists: an effect ends as done, refused or unknown; the callers of this crate live on the difference. OpenStack's
//! services have four ways to write an error down. What it never does: keep more of an answer than a person can read.

use policies::{Millis, Refusal};
use reqwest::StatusCode;
use serde_json::Value;

/// Longest text that is kept of what a service said, in characters. Tracebacks of services can be megabytes.
const WORDS_MAX: usize = 500;

/// What a library said.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection, or no token to be had: the call was not sent.
    #[error("{doing}: not sent")]
    Unreachable {
        /// What we were doing, with the address.
        doing: String,
        /// Why not.
        source: Cause,
    },
    /// The permit said no before anything was sent (R5).
    #[error("{doing}: not sent: {why}")]
    NotPermitted {
        /// What we were doing.
        doing: String,
        /// The permit's words.
        why: Refusal,
    },
    /// Another operation had the node until the deadline. Ironic has no way to break its lock.
    #[error("{doing}: locked for {waited}: {why}")]
    Locked {
        /// What we were doing.
        doing: String,
        /// How long we tried.
        waited: Millis,
        /// Who has the lock, in Ironic's words.
        why: String,
    },
    /// The service said no: it did not happen.
    #[error("{doing}: {why}")]
    Refused {
        /// What we were doing.
        doing: String,
        /// What kind of no.
        no: No,
        /// The service's words.
        why: String,
    },
    /// There was an answer, but it says neither yes nor no.
    #[error("{doing}: {why}")]
    Unclear {
        /// What we were doing.
        doing: String,
        /// What is wrong with it.
        why: String,
    },
    /// The call may have been received, but no answer came.
    #[error("{doing}: no answer")]
    NoAnswer {
        /// What we were doing.
        doing: String,
        /// How the wait ended; absent if it was the deadline.
        source: Option<Cause>,
    },
    /// This cloud cannot be used as it is configured, or it is too old. Nothing was sent.
    #[error("{doing}: {why}")]
    Unusable {
        /// What we were doing.
        doing: String,
        /// Why not.
        why: String,
    },
}

/// Kinds of no, as far as callers act on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum No {
    /// The token or its roles do not allow it (401, 403). Ironic also hides what one may not see behind [`No::Absent`].
    NotAdmitted,
    /// There is no such object (404, in the service's own words).
    Absent,
    /// It is in a state in which this cannot be (409).
    Conflict,
    /// It has changed since it was read (412).
    Stale,
    /// Any other.
    Other(u16),
}

impl CallError {
    /// True if what was to be changed may have changed, although there was no good answer.
    pub fn may_have_happened(&self) -> bool {
        match self {
            CallError::NoAnswer { .. } | CallError::Unclear { .. } => true,
            CallError::Unreachable { .. }
            | CallError::NotPermitted { .. }
            | CallError::Locked { .. }
            | CallError::Refused { .. }
            | CallError::Unusable { .. } => false,
        }
    }

    /// True if the service said that there is no such object.
    pub fn is_absent(&self) -> bool {
        matches!(self, CallError::Refused { no: No::Absent, .. })
    }
}

impl From<CallError> for Refusal {
    /// The refusal that stands for this error where nothing can have happened.
    fn from(error: CallError) -> Refusal {
        let text = policies::causes(&error);
        match error {
            CallError::NotPermitted { why, .. } => why,
            CallError::Refused { no: No::NotAdmitted, .. } => Refusal::NotAdmitted(text),
            CallError::Refused { .. } | CallError::Locked { .. } => Refusal::DeviceRefused(text),
            CallError::Unreachable { .. } | CallError::NoAnswer { .. } | CallError::Unclear { .. } => {
                Refusal::Unreachable(text)
            }
            CallError::Unusable { .. } => Refusal::NotConfigured(text),
        }
    }
}

/// The error for an answer that is no success. Of those only 4xx say that nothing was done, and not all: 408 is sent by
/// proxies that have given up on the service behind them.
pub(crate) fn of_answer(doing: String, status: StatusCode, body: &[u8]) -> CallError {
    let words = words(body);
    let is_its_own = words.is_some();
    let why = match words {
        Some(words) => format!("{status}: {words}"),
        None => status.to_string(),
    };
    let no = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => No::NotAdmitted,
        // Any web server at a wrong address answers 404: only in the service's own form it says that the object is gone.
        StatusCode::NOT_FOUND if is_its_own => No::Absent,
        StatusCode::CONFLICT => No::Conflict,
        StatusCode::PRECONDITION_FAILED => No::Stale,
        StatusCode::REQUEST_TIMEOUT => return CallError::Unclear { doing, why },
        other if other.is_client_error() => No::Other(other.as_u16()),
        _ => return CallError::Unclear { doing, why },
    };
    CallError::Refused { doing, no, why }
}

/// What the service said, from any of the forms in use:
/// Ironic `{"error_message": "{\"faultstring\": \"...\"}"}` (JSON in a string; `description` where it is the web framework's),
/// Keystone `{"error": {"message": ...}}`, Neutron `{"NeutronError": {"message": ...}}`,
/// Cinder `{"badRequest": {"message": ...}}` (`itemNotFound`, `conflictingRequest`, ...),
/// and the common guidelines' `{"errors": [{"detail": ...}]}`.
pub(crate) fn words(body: &[u8]) -> Option<String> {
    let Ok(json) = serde_json::from_slice::<Value>(body) else {
        return None;
    };
    let inner = match json.get("error_message") {
        Some(Value::String(text)) => match serde_json::from_str::<Value>(text) {
            Ok(inner) => inner,
            Err(_) => Value::String(text.clone()),
        },
        Some(inner) => inner.clone(),
        None => json,
    };
    let text = said(&inner).or_else(|| match &inner {
        Value::Object(fields) => fields.values().find_map(|field| match field {
            Value::Array(items) => items.first().and_then(said),
            field => said(field),
        }),
        _ => None,
    })?;
    Some(line(text))
}

/// A text of a service as it is shown and kept: one line, not too long.
pub(crate) fn line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ").chars().take(WORDS_MAX).collect()
}

fn said(value: &Value) -> Option<&str> {
    if let Value::String(text) = value {
        return Some(text);
    }
    ["faultstring", "message", "description", "detail", "title"]
        .iter()
        .find_map(|key| value.get(key)?.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_error_is_read() {
        for (body, expected) in [
            (
                r#"{"error_message": "{\"faultcode\": \"Client\", \"faultstring\": \"Node n is locked\"}"}"#,
                "Node n is locked",
            ),
            (r#"{"error_message": {"faultcode": "Client", "faultstring": "No such node"}}"#, "No such node"),
            (r#"{"error_message": "no JSON"}"#, "no JSON"),
            (
                r#"{"error_message": "{\"code\": 406, \"title\": \"No\", \"description\": \"range\"}"}"#,
                "range",
            ),
            (r#"{"error": {"code": 401, "message": "Log in", "title": "Unauthorized"}}"#, "Log in"),
            (r#"{"NeutronError": {"type": "X", "message": "stale", "detail": ""}}"#, "stale"),
            (r#"{"NeutronError": "plain"}"#, "plain"),
            (r#"{"badRequest": {"code": 400, "message": "in-use"}}"#, "in-use"),
            (r#"{"errors": [{"status": 406, "detail": "no such version"}]}"#, "no such version"),
            (r#"{"message": "at the top", "code": "404"}"#, "at the top"),
            (r#"{"message": "Unavailable.<br/>\n\n\u001b[2J Later.\n"}"#, "Unavailable.<br/> [2J Later."),
        ] {
            assert_eq!(words(body.as_bytes()).as_deref(), Some(expected), "{body}");
        }
        for body in ["", "<html>", "[]", "{}", "1", r#"{"a": 1}"#] {
            assert_eq!(words(body.as_bytes()), None, "{body}");
        }
        let long = format!(r#"{{"error": {{"message": "{}"}}}}"#, "ä".repeat(9000));
        assert_eq!(words(long.as_bytes()).unwrap().chars().count(), WORDS_MAX);
    }

    #[test]
    fn a_web_server_at_a_wrong_address_says_nothing_of_an_object() {
        let of = |body: &[u8]| of_answer("x".to_owned(), StatusCode::NOT_FOUND, body);
        assert!(of(br#"{"NeutronError": {"message": "Port could not be found."}}"#).is_absent());
        assert!(matches!(of(b"<html>not found</html>"), CallError::Refused { no: No::Other(404), .. }));
    }

    #[test]
    fn only_a_no_says_that_nothing_was_done() {
        for status in [400, 401, 403, 404, 406, 409, 412, 413, 429] {
            let error = of_answer("x".to_owned(), StatusCode::from_u16(status).unwrap(), b"");
            assert!(!error.may_have_happened(), "{status}");
        }
        for status in [300, 302, 408, 500, 502, 503, 504] {
            let error = of_answer("x".to_owned(), StatusCode::from_u16(status).unwrap(), b"");
            assert!(error.may_have_happened(), "{status}");
        }
    }
}
