//! Who we are, and what Keystone gives for it: a token and the catalog (Identity API v3).
//!
//! Why it exists: every call needs a token that is still valid, and tokens live an hour. How long is told by Keystone's own
//! two times, so that its clock and ours need not agree. What it never does: print a password, a secret or a token.

use crate::catalog::Catalog;
use crate::ids::ProjectId;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;
use zeroize::Zeroizing;

/// A token is renewed when it has this long to live, or half of its life if that is less. An image that a service writes
/// with our token takes minutes; a Keystone that is down for less than this is not noticed.
const RENEW_BEFORE: Duration = Duration::from_secs(300);
/// Longest life that is believed. Keystone's default is an hour; a day is common.
const LIFE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// How to enter.
#[derive(Clone)]
pub enum Credentials {
    /// A user with a password.
    Password {
        /// The user.
        user: Reference,
        /// The password.
        password: Zeroizing<String>,
        /// What the token is for.
        scope: Scope,
    },
    /// An application credential, whose project and roles were fixed when it was made.
    Application {
        /// Its id.
        id: String,
        /// Its secret.
        secret: Zeroizing<String>,
    },
    /// Another token, for a new one with another scope.
    Token {
        /// The token.
        token: Zeroizing<String>,
        /// What the new one is for.
        scope: Scope,
    },
}

/// A user or a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// By its id.
    Id(String),
    /// By its name, which its domain knows.
    Name {
        /// Its name.
        name: String,
        /// Its domain.
        domain: Domain,
    },
}

/// A domain: where names of users and projects are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Domain {
    /// By its id; `default` is that of the first one of most clouds.
    Id(String),
    /// By its name.
    Name(String),
}

impl Domain {
    fn json(&self) -> Value {
        match self {
            Domain::Id(id) => json!({ "id": id }),
            Domain::Name(name) => json!({ "name": name }),
        }
    }
}

impl Reference {
    fn json(&self) -> Value {
        match self {
            Reference::Id(id) => json!({ "id": id }),
            Reference::Name { name, domain } => json!({ "name": name, "domain": domain.json() }),
        }
    }
}

/// What a token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A project.
    Project(Reference),
    /// The whole system (role `admin` there). Ironic and Cinder take it, Neutron does not.
    System,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credentials::Password { user, password: _, scope } => {
                write!(f, "Password({user:?}, {scope:?})")
            }
            Credentials::Application { id, secret: _ } => write!(f, "Application({id})"),
            Credentials::Token { token: _, scope } => write!(f, "Token({scope:?})"),
        }
    }
}

impl Credentials {
    /// The body of `POST /v3/auth/tokens`.
    pub(crate) fn body(&self) -> Zeroizing<Vec<u8>> {
        let body = match self {
            Credentials::Password { user, password, scope } => {
                let mut user = user.json();
                if let Some(user) = user.as_object_mut() {
                    user.insert("password".to_owned(), json!(password.as_str()));
                }
                let identity = json!({ "methods": ["password"], "password": { "user": user } });
                json!({ "auth": { "identity": identity, "scope": scope.json() } })
            }
            Credentials::Application { id, secret } => json!({ "auth": { "identity": {
                "methods": ["application_credential"],
                "application_credential": { "id": id, "secret": secret.as_str() },
            } } }),
            Credentials::Token { token, scope } => json!({ "auth": {
                "identity": { "methods": ["token"], "token": { "id": token.as_str() } },
                "scope": scope.json(),
            } }),
        };
        let bytes = Zeroizing::new(body.to_string().into_bytes());
        wipe(body);
        bytes
    }
}

impl Scope {
    fn json(&self) -> Value {
        match self {
            Scope::Project(project) => json!({ "project": project.json() }),
            Scope::System => json!({ "system": { "all": true } }),
        }
    }
}

/// JSON values do not wipe themselves.
fn wipe(value: Value) {
    match value {
        Value::String(text) => drop(Zeroizing::new(text)),
        Value::Array(items) => items.into_iter().for_each(wipe),
        Value::Object(fields) => fields.into_iter().for_each(|(_, value)| wipe(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A token, how long it lives, and what came with it.
pub(crate) struct Token {
    pub(crate) secret: Zeroizing<String>,
    /// From when on another one should be got.
    pub(crate) renew: Instant,
    /// From when on it is worth nothing.
    pub(crate) end: Instant,
    pub(crate) project: Option<ProjectId>,
    pub(crate) roles: BTreeSet<String>,
    pub(crate) catalog: Catalog,
}

#[derive(Deserialize)]
struct Answer {
    token: Body,
}

#[derive(Deserialize)]
struct Body {
    issued_at: String,
    expires_at: String,
    project: Option<Project>,
    #[serde(default)]
    roles: Vec<Role>,
    #[serde(default)]
    catalog: Catalog,
}

#[derive(Deserialize)]
pub(crate) struct Project {
    pub(crate) id: ProjectId,
}

#[derive(Deserialize)]
pub(crate) struct Role {
    pub(crate) name: String,
}

impl Token {
    /// Reads Keystone's answer. `asked` is when it was asked for: the token lives at least since then.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read(secret: Zeroizing<String>, body: &[u8], asked: Instant) -> Result<Token, String> {
        let Answer { token } = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let time =
            |text: &str| text.parse::<Timestamp>().map_err(|error| format!("its time {text:?}: {error}"));
        let life = Duration::try_from(time(&token.expires_at)?.duration_since(time(&token.issued_at)?))
            .map_err(|_| "its token has ended before it began".to_owned())?
            .min(LIFE_MAX);
        Ok(Token {
            secret,
            renew: asked + life.saturating_sub(RENEW_BEFORE.min(life / 2)),
            end: asked + life,
            project: token.project.map(|project| project.id),
            roles: token.roles.into_iter().map(|role| role.name).collect(),
            catalog: token.catalog,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(issued: &str, expires: &str) -> Result<Token, String> {
        let body = json!({ "token": { "issued_at": issued, "expires_at": expires } }).to_string();
        Token::read(Zeroizing::default(), body.as_bytes(), Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_renewed_before_its_end() {
        let now = Instant::now();
        let hour = read("2026-11-29T20:00:00.000000Z", "2026-11-29T21:00:00.000000Z").unwrap();
        assert_eq!(
            (hour.renew - now, hour.end - now),
            (Duration::from_secs(3300), Duration::from_secs(3600))
        );
        let minute = read("2026-11-29T20:00:00Z", "2026-11-29T20:01:00Z").unwrap();
        assert_eq!(minute.renew - now, Duration::from_secs(30));
        let age = read("2000-01-01T00:00:00Z", "9999-01-01T00:00:00Z").unwrap();
        assert_eq!(age.end - now, LIFE_MAX);
        assert!(read("2026-11-29T20:00:00Z", "2026-11-29T19:00:00Z").is_err());
        assert!(read("yesterday", "2026-11-29T19:00:00Z").is_err());
    }

    #[test]
    fn secrets_are_shown_by_nothing() {
        let secret = || Zeroizing::new("open sesame".to_owned());
        let scope = || Scope::Project(Reference::Id("b0b".to_owned()));
        let domain = Domain::Name("Default".to_owned());
        let user = Reference::Name { name: "failover".to_owned(), domain };
        let password = Credentials::Password { user, password: secret(), scope: scope() };
        let application = Credentials::Application { id: "abc".to_owned(), secret: secret() };
        let token = Credentials::Token { token: secret(), scope: scope() };
        for credentials in [password, application, token] {
            assert!(!format!("{credentials:?}").contains("sesame"));
            assert!(String::from_utf8_lossy(&credentials.body()).contains("open sesame"));
        }
    }
}
