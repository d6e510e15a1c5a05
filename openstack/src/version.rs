//! Microversions: which of a service's many API versions is spoken.
//!
//! Why it exists: without one, services answer as they did ten years ago. We ask for the newest that both know and that was
//! tried. What it never does: speak a version newer than the tried one, whose answers nobody has looked at.

use serde::Deserialize;
use std::fmt;
use std::str::FromStr;

/// One version, `1.99`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Microversion {
    major: u16,
    minor: u16,
}

impl Microversion {
    pub(crate) const fn new(major: u16, minor: u16) -> Microversion {
        Microversion { major, minor }
    }
}

impl fmt::Display for Microversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Microversion {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (major, minor) = text.split_once('.').ok_or(())?;
        let number = |digits: &str| digits.parse().map_err(|_| ());
        Ok(Microversion { major: number(major)?, minor: number(minor)? })
    }
}

/// From which to which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) min: Microversion,
    pub(crate) max: Microversion,
}

impl Range {
    /// The newest that both have.
    pub(crate) fn newest_common(self, other: Range) -> Option<Microversion> {
        let newest = self.max.min(other.max);
        (newest >= self.min && newest >= other.min).then_some(newest)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}

/// A service's root document. Ironic has one `version`, Cinder a list of them; older major versions there have an empty
/// `version`.
#[derive(Deserialize)]
struct Document {
    version: Option<Entry>,
    #[serde(default)]
    versions: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    min_version: String,
    #[serde(default)]
    version: String,
}

/// What a service speaks, from its root document.
pub(crate) fn spoken(body: &[u8]) -> Option<Range> {
    let document: Document = serde_json::from_slice(body).ok()?;
    let mut entries = document.version.into_iter().chain(document.versions);
    entries.find_map(|it| Some(Range { min: it.min_version.parse().ok()?, max: it.version.parse().ok()? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_that_both_have_is_spoken() {
        let range = |min: &str, max: &str| Range { min: min.parse().unwrap(), max: max.parse().unwrap() };
        let ours = range("1.65", "1.99");
        for (theirs, common) in [
            (range("1.1", "1.115"), Some("1.99")),
            (range("1.1", "1.99"), Some("1.99")),
            (range("1.1", "1.72"), Some("1.72")),
            (range("1.1", "1.65"), Some("1.65")),
            (range("1.1", "1.64"), None),
            (range("1.100", "1.115"), None),
        ] {
            assert_eq!(ours.newest_common(theirs).map(|it| it.to_string()).as_deref(), common, "{theirs}");
        }
        for bad in ["", "1", "1.", "a.b", "1.2.3", "-1.2", "1.99999"] {
            assert!(bad.parse::<Microversion>().is_err(), "{bad}");
        }
    }

    #[test]
    fn both_root_documents_are_read() {
        let ironic = br#"{"id": "v1", "version": {"id": "v1", "status": "CURRENT", "min_version": "1.1", "version": "1.115"}}"#;
        assert_eq!(spoken(ironic).unwrap().to_string(), "1.1 to 1.115");
        let cinder = br#"{"versions": [{"id": "v2.0", "version": "", "min_version": ""}, {"id": "v3.0", "min_version": "3.0", "version": "3.71"}]}"#;
        assert_eq!(spoken(cinder).unwrap().to_string(), "3.0 to 3.71");
        assert_eq!(spoken(b"{}"), None);
        assert_eq!(spoken(b"<html>"), None);
    }
}
