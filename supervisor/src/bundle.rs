//! The archive of `hactl debug bundle`: everything that helps to find out why, in one file that can be passed on.
//!
//! Why it exists: whoever asks for help should not have to remember what to collect, nor fear what is in it. What it
//! never does: send anything anywhere, or hold a secret. The API hides secrets already; what looks like one is hidden
//! here once more, whoever let it through.

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use std::io;
use std::path::PathBuf;

/// A part of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its path in the archive.
    pub name: String,
    /// Its content.
    pub text: String,
}

/// What could not be collected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The part.
    pub name: String,
    /// Why not.
    pub why: String,
}

/// What was collected.
#[derive(Clone, Debug, Default)]
pub struct Bundle {
    parts: Vec<Part>,
    missing: Vec<Missing>,
    secrets: Vec<zeroize::Zeroizing<String>>,
}

/// What is in a written archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BundleContents {
    /// The archive.
    pub file: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Its parts and their sizes.
    pub parts: Vec<PartSize>,
    /// What could not be collected.
    pub missing: Vec<Missing>,
}

/// A part of a written archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartSize {
    /// Its path in the archive.
    pub name: String,
    /// Its size before compression.
    pub bytes: u64,
}

impl Bundle {
    /// An empty one. `secrets`: what must not be in it, wherever it comes from.
    pub fn new(secrets: Vec<zeroize::Zeroizing<String>>) -> Bundle {
        Bundle { secrets, ..Bundle::default() }
    }

    /// Adds a part, without what must not be in it.
    pub fn add(&mut self, name: &str, text: &str) {
        let mut text = hide_sealed(text);
        for secret in self.secrets.iter().filter(|secret| !secret.is_empty()) {
            text = text.replace(secret.as_str(), HIDDEN);
        }
        self.parts.push(Part { name: name.to_owned(), text });
    }

    /// Notes what could not be collected.
    pub fn lack(&mut self, name: &str, why: String) {
        self.missing.push(Missing { name: name.to_owned(), why });
    }

    /// The parts so far.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// What is missing so far.
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// The archive: `tar`, compressed by `gzip`; all parts lie in the folder `folder`.
    ///
    /// # Errors
    /// If a part's name is too long for `tar`.
    pub fn archive(&self, folder: &str, modified: u64) -> io::Result<Vec<u8>> {
        let mut archive = tar::Builder::new(GzEncoder::new(vec![], Compression::default()));
        for part in &self.parts {
            let mut header = tar::Header::new_gnu();
            header.set_size(part.text.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(modified);
            archive.append_data(&mut header, format!("{folder}/{}", part.name), part.text.as_bytes())?;
        }
        archive.into_inner()?.finish()
    }

    /// What an archive of that size in that file holds.
    pub fn contents(&self, file: PathBuf, bytes: u64) -> BundleContents {
        let size = |part: &Part| PartSize { name: part.name.clone(), bytes: part.text.len() as u64 };
        BundleContents {
            file,
            bytes,
            parts: self.parts.iter().map(size).collect(),
            missing: self.missing.clone(),
        }
    }
}

/// What stands where a secret was.
const HIDDEN: &str = "[hidden]";

/// A sealed secret is of no use without the sealing key, but whoever has that one could open it.
fn hide_sealed(text: &str) -> String {
    let mut parts = text.split(crate::seal::SEALED_V1);
    let mut hidden = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        hidden.push_str(HIDDEN);
        hidden.push_str(part.trim_start_matches(|c: char| c.is_ascii_hexdigit()));
    }
    hidden
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn what_looks_like_a_secret_is_hidden_whoever_let_it_through() {
        let mut bundle = Bundle::new(vec!["hat_0123".to_owned().into(), String::new().into()]);
        bundle.add("a", "{\"password\": \"sealed:v1:00ffAB\", \"b\": \"sealed:v1:\"} Bearer hat_0123.");
        let expected = "{\"password\": \"[hidden]\", \"b\": \"[hidden]\"} Bearer [hidden].";
        assert_eq!(bundle.parts()[0].text, expected);
    }

    #[test]
    fn the_archive_is_read_back_by_tar_and_gzip() {
        let mut bundle = Bundle::default();
        bundle.add("status.json", "{}");
        bundle.add("members/127.0.0.1_7201/metrics.txt", "ha_up 1\n");
        let bytes = bundle.archive("bundle", 1_795_411_200).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&bytes[..]));
        let mut found = vec![];
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            found.push((entry.path().unwrap().display().to_string(), text));
        }
        assert_eq!(found[0], ("bundle/status.json".into(), "{}".into()));
        assert_eq!(found[1], ("bundle/members/127.0.0.1_7201/metrics.txt".into(), "ha_up 1\n".into()));
        let contents = bundle.contents("b.tar.gz".into(), bytes.len() as u64);
        assert_eq!(contents.parts[1].bytes, 8);
    }
}
