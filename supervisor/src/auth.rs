//! Who is asking, and what they may do.
//!
//! Why it exists: every request is answered in someone's name, and that name goes into the log with the command. What
//! it never does: let a request without a certificate or token through, keep a token, or say why one was refused.
//!
//! Tokens are 256 random bits, so a plain hash protects them at rest; BLAKE3 in key-derivation mode keeps the hash from
//! meaning anything elsewhere. Hashes are compared in constant time.

use crate::document::{self, DocumentError};
use crate::files::{self, Access, FileError};
use crate::seal::hex;
use crate::tls;
use policies::{TenantId, Wall};
use rand::TryRngCore;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;
use tokio::time::Instant;
use zeroize::Zeroizing;

const TOKEN_PREFIX: &str = "hat_";
const TOKEN_BYTES: usize = 32;
/// Longer texts are no tokens of ours; they are not hashed.
const TOKEN_CHARS_MAX: usize = TOKEN_PREFIX.len() + 2 * TOKEN_BYTES;
/// Tokens in one file: each request with a token compares with all of them. 1,000 comparisons are some 10 µs.
const TOKENS_MAX: usize = 1000;

/// What someone may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Read everything but secrets.
    Reader,
    /// Read, and change everything.
    Operator,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Role::Reader => "reader",
            Role::Operator => "operator",
        })
    }
}

/// Who is asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// For the log: `admin`, `operator-eve`, `member-2`, `token/prometheus`, `tenant/PROJECT/USER`.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// With what.
    pub reach: Reach,
}

/// With what someone may do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// With the whole cluster.
    Cluster,
    /// With what belongs to a tenant, as far as tenants may.
    Tenant {
        /// Whose instances.
        tenant: TenantId,
        /// When their token is to be looked up again: no answer goes on for longer.
        until: Instant,
    },
}

/// A tokens file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// It could not be read or written.
    #[error("use the tokens file")]
    File(#[source] FileError),
    /// It is not a tokens file.
    #[error("read the tokens file")]
    Document(#[source] DocumentError),
    /// A limit or a rule is broken.
    #[error("{file}: {why}")]
    Value {
        /// The file.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// No random numbers.
    #[error("draw a token from the operating system")]
    Random(#[source] rand::rand_core::OsError),
}

/// Who shows this certificate, which the CA check has accepted; `None` if its name has no role.
pub fn caller_of_certificate(cert: &CertificateDer<'_>) -> Option<Caller> {
    caller_named(&tls::common_name(cert)?)
}

fn caller_named(name: &str) -> Option<Caller> {
    let member = name.strip_prefix("member-").is_some_and(|id| id.parse::<u64>().is_ok());
    let operator = name.strip_prefix("operator-").is_some_and(|who| !who.is_empty());
    (name == "admin" || member || operator).then(|| Caller {
        name: name.to_owned(),
        role: Role::Operator,
        reach: Reach::Cluster,
    })
}

/// One line of a tokens file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    name: String,
    role: Role,
    blake3: String,
    created: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenFile {
    #[serde(default)]
    token: Vec<Token>,
}

/// The tokens of a member. The file is read again when it has changed, so a removed token stops working at once.
#[derive(Debug)]
pub struct Tokens {
    path: PathBuf,
    read: Mutex<Option<Read>>,
}

#[derive(Clone, Debug)]
struct Read {
    stamp: (SystemTime, u64),
    tokens: Vec<(Caller, blake3::Hash)>,
}

impl Tokens {
    /// The tokens in this file; that it is missing means that there are none.
    ///
    /// # Errors
    /// [`AuthError`] if it is there and is not a tokens file.
    pub fn open(path: PathBuf) -> Result<Tokens, AuthError> {
        let tokens = Tokens { path, read: Mutex::new(None) };
        tokens.refresh()?;
        Ok(tokens)
    }

    /// Who shows this token; `None` if nobody may.
    ///
    /// # Errors
    /// [`AuthError`] if the file has changed to something that is no tokens file; then no token is accepted.
    pub fn caller(&self, token: &str) -> Result<Option<Caller>, AuthError> {
        if token.len() > TOKEN_CHARS_MAX {
            return Ok(None);
        }
        let shown = hash(token);
        let tokens = self.refresh()?;
        // `blake3::Hash` compares in constant time; all are compared, so the time does not tell which one matched.
        let matching =
            tokens.iter().filter(|(_, hash)| *hash == shown).fold(None, |_, (caller, _)| Some(caller));
        Ok(matching.cloned())
    }

    fn refresh(&self) -> Result<Vec<(Caller, blake3::Hash)>, AuthError> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(meta) = std::fs::metadata(&self.path) else {
            *read = None;
            return Ok(vec![]);
        };
        let stamp = (meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), meta.len());
        if let Some(read) = read.as_ref().filter(|read| read.stamp == stamp) {
            return Ok(read.tokens.clone());
        }
        *read = None;
        let tokens = parse(&self.path, &files::read_text(&self.path).map_err(AuthError::File)?)?;
        *read = Some(Read { stamp, tokens: tokens.clone() });
        Ok(tokens)
    }
}

pub(crate) fn parse(path: &Path, text: &str) -> Result<Vec<(Caller, blake3::Hash)>, AuthError> {
    let file = path.display().to_string();
    let wrong = |why: String| AuthError::Value { file: file.clone(), why };
    let read: TokenFile = document::read(&file, text).map_err(AuthError::Document)?;
    if read.token.len() > TOKENS_MAX {
        return Err(wrong(format!("{} tokens; at most {TOKENS_MAX} are allowed", read.token.len())));
    }
    let one = |token: Token| {
        let hash = blake3::Hash::from_hex(&token.blake3)
            .map_err(|_| wrong(format!("token {:?}: blake3 must be 64 hexadecimal digits", token.name)))?;
        let name = format!("token/{}", token.name);
        Ok((Caller { name, role: token.role, reach: Reach::Cluster }, hash))
    };
    read.token.into_iter().map(one).collect()
}

/// Adds a token to a member's file and returns it; it is shown once and can never be shown again. Also returns the
/// entry, to be copied to the other members' files.
///
/// # Errors
/// [`AuthError`]; then the file is as it was.
pub fn create_token(
    path: &Path,
    name: &str,
    role: Role,
    now: Wall,
) -> Result<(Zeroizing<String>, String), AuthError> {
    let file = path.display().to_string();
    let wrong = |why: String| AuthError::Value { file: file.clone(), why };
    name.parse::<policies::NodeId>().map_err(|error| wrong(error.to_string()))?;
    let text = if path.exists() { files::read_text(path).map_err(AuthError::File)? } else { String::new() };
    let read: TokenFile = document::read(&file, &text).map_err(AuthError::Document)?;
    if read.token.iter().any(|token| token.name == name) {
        return Err(wrong(format!("there is a token {name:?} already; delete its entry to take it back")));
    }
    if read.token.len() >= TOKENS_MAX {
        return Err(wrong(format!("at most {TOKENS_MAX} tokens are allowed")));
    }
    let mut bytes = Zeroizing::new([0; TOKEN_BYTES]);
    rand::rngs::OsRng.try_fill_bytes(bytes.as_mut()).map_err(AuthError::Random)?;
    let token = Zeroizing::new(format!("{TOKEN_PREFIX}{}", *Zeroizing::new(hex(bytes.as_ref()))));
    let created = crate::render::utc(now);
    let entry = format!(
        "[[token]]\nname = \"{name}\"\nrole = \"{role}\"\nblake3 = \"{}\"\ncreated = \"{created}\"\n",
        hash(&token).to_hex()
    );
    let gap = if text.is_empty() { "" } else { "\n" };
    files::replace(path, format!("{text}{gap}{entry}").as_bytes(), Access::Private)
        .map_err(AuthError::File)?;
    Ok((token, entry))
}

fn hash(token: &str) -> blake3::Hash {
    blake3::Hash::from(blake3::derive_key("ha-supervisor 2026-11 API token v1", token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_with_a_role_are_callers() {
        for name in ["admin", "operator-eve", "member-2"] {
            assert_eq!(caller_named(name).map(|caller| caller.role), Some(Role::Operator), "{name}");
        }
        for name in ["", "operator-", "member-", "member-x", "Admin", "admin2", "root", "localhost"] {
            assert_eq!(caller_named(name), None, "{name}");
        }
    }

    #[test]
    fn a_token_is_accepted_until_its_entry_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.toml");
        let tokens = Tokens::open(path.clone()).unwrap();
        assert_eq!(tokens.caller("hat_0").unwrap(), None);
        let (reader, _) = create_token(&path, "prometheus", Role::Reader, Wall(0)).unwrap();
        let (operator, entry) = create_token(&path, "ci", Role::Operator, Wall(0)).unwrap();
        let is = |token: &str| tokens.caller(token).unwrap().map(|caller| (caller.name, caller.role));
        assert_eq!(is(&reader), Some(("token/prometheus".into(), Role::Reader)));
        assert_eq!(is(&operator), Some(("token/ci".into(), Role::Operator)));
        assert_eq!(is(&format!("{}0", &reader[..reader.len() - 1])).is_some(), reader.ends_with('0'));
        assert_eq!(is(&"x".repeat(10_000)), None);
        let file = std::fs::read_to_string(&path).unwrap();
        assert!(!file.contains(&*reader) && file.contains(&entry));
        std::fs::write(&path, &entry).unwrap();
        assert_eq!(is(&reader), None);
        assert!(is(&operator).is_some());
    }

    #[test]
    fn a_broken_file_lets_nobody_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.toml");
        let (token, _) = create_token(&path, "ci", Role::Operator, Wall(0)).unwrap();
        let tokens = Tokens::open(path.clone()).unwrap();
        assert!(tokens.caller(&token).unwrap().is_some());
        std::fs::write(&path, "[[tokens]]\n").unwrap();
        assert!(tokens.caller(&token).is_err());
        assert!(create_token(&path, "other", Role::Reader, Wall(0)).is_err());
    }

    #[test]
    fn a_name_is_used_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.toml");
        create_token(&path, "ci", Role::Reader, Wall(0)).unwrap();
        let again = create_token(&path, "ci", Role::Operator, Wall(0)).unwrap_err();
        assert!(again.to_string().contains("there is a token \"ci\" already"));
        assert!(create_token(&path, "C I", Role::Reader, Wall(0)).is_err());
    }
}
