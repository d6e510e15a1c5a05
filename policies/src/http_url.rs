//! The address of a plain HTTP question.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Longest address, in bytes.
const URL_BYTES_MAX: usize = 1024;

/// An address such as `http://10.0.0.7:8080/healthz` or `http://[fd00::7]/`: host, port (80) and path, parsed once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HttpUrl {
    authority: String,
    host: String,
    port: u16,
    target: String,
}

/// Why a text is no address for an HTTP probe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no address of an HTTP probe: {why}; write http://HOST:PORT/PATH")]
pub struct BadUrl {
    text: String,
    why: &'static str,
}

impl HttpUrl {
    /// Name or address of the host, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as written, for the `Host` header (RFC 9110 §7.2).
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Path and query: what is asked for.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// That it names a server and nothing on it.
    ///
    /// # Errors
    /// In words, what to write instead.
    pub fn check_no_path(&self) -> Result<(), String> {
        match self.target.as_str() {
            "/" => Ok(()),
            _ => Err(format!("{self}: leave out the path, write http://host:port")),
        }
    }
}

impl FromStr for HttpUrl {
    type Err = BadUrl;
    fn from_str(text: &str) -> Result<Self, BadUrl> {
        let bad = |why| BadUrl { text: text.chars().take(80).collect(), why };
        if text.len() > URL_BYTES_MAX {
            return Err(bad("it is too long"));
        }
        if text.starts_with("https:") {
            return Err(bad(
                "a probe speaks plain HTTP only, for a node must not fail because a certificate has expired",
            ));
        }
        let rest = text.strip_prefix("http://").ok_or_else(|| bad("it does not begin with http://"))?;
        if !rest.bytes().all(|byte| byte.is_ascii_graphic()) || rest.contains(['#', '\\', '"', '<', '>']) {
            return Err(bad("it has a character that an address cannot have"));
        }
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(bad("it has a user name"));
        }
        let is_v6 = |host: &&str| host.bytes().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(&byte));
        let bracketed = authority.strip_prefix('[').map(|rest| rest.split_once(']'));
        let (host, port) = match bracketed {
            Some(Some((host, port))) => (Some(host).filter(is_v6), port.strip_prefix(':').or(none(port))),
            Some(None) => (None, None),
            None => match authority.split_once(':') {
                Some((host, port)) => (Some(host), Some(port)),
                None => (Some(authority), Some("80")),
            },
        };
        let host = host.filter(|host| !host.is_empty()).ok_or_else(|| bad("its host cannot be read"))?;
        let digits = |port: &&str| port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.filter(digits).and_then(|port| port.parse().ok()).filter(|port| *port != 0);
        let target = match target {
            path if path.starts_with('/') => path.to_owned(),
            query => format!("/{query}"),
        };
        Ok(HttpUrl {
            authority: authority.to_owned(),
            host: host.to_owned(),
            port: port.ok_or_else(|| bad("its port is not one of 1 to 65535"))?,
            target,
        })
    }
}

/// The port of HTTP where no other is written.
fn none(port: &str) -> Option<&'static str> {
    port.is_empty().then_some("80")
}

impl TryFrom<String> for HttpUrl {
    type Error = BadUrl;
    fn try_from(text: String) -> Result<Self, BadUrl> {
        text.parse()
    }
}

impl From<HttpUrl> for String {
    fn from(url: HttpUrl) -> String {
        url.to_string()
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_address_is_taken_apart() {
        for (text, host, port, target) in [
            ("http://10.0.0.7:8080/healthz", "10.0.0.7", 8080, "/healthz"),
            ("http://db-1", "db-1", 80, "/"),
            ("http://db-1?deep=1", "db-1", 80, "/?deep=1"),
            ("http://[fd00::7]:81/a/b?c=d:e", "fd00::7", 81, "/a/b?c=d:e"),
            ("http://[::1]/", "::1", 80, "/"),
        ] {
            let url: HttpUrl = text.parse().unwrap();
            assert_eq!((url.host(), url.port(), url.target()), (host, port, target), "{text}");
            assert_eq!(String::from(url.clone()).parse(), Ok(url));
        }
    }

    #[test]
    fn what_is_no_plain_http_address_is_refused_with_the_reason() {
        for (text, why) in [
            ("https://db-1/", "plain HTTP only"),
            ("db-1:80", "does not begin"),
            ("http://", "host"),
            ("http://:80/", "host"),
            ("http://[fd00::7/", "host"),
            ("http://[fe80::1%eth0]/", "host"),
            ("http://a:b@c/", "user name"),
            ("http://a:0/", "port"),
            ("http://a:65536/", "port"),
            ("http://a:+80/", "port"),
            ("http://[::1]x/", "port"),
            ("http://fd00::7/", "port"),
            ("http://a/ b", "character"),
            ("http://a/\r\nX: y", "character"),
            (&format!("http://{}", "a".repeat(URL_BYTES_MAX)), "too long"),
        ] {
            let error = text.parse::<HttpUrl>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_or_refused(text in "(http://)?\\PC{0,40}") {
            if let Ok(url) = text.parse::<HttpUrl>() {
                prop_assert_eq!(url.to_string().parse(), Ok(url));
            }
        }
    }
}
