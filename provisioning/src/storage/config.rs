//! The configuration of `ha-storage`.
//!
//! Why it exists: what an administrator writes is parsed once, here, and refused with the place and the reason.
//! What it never does: it holds or shows no secret; those are in files of their own that nobody else may read.

use policies::VolumeId;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Longest configuration, key or token that is read, in bytes. A thousand volumes have a fifth of it.
const FILE_MAX: u64 = 1024 * 1024;
/// Longest iSCSI name, in bytes (RFC 7143 §4.2.7.2).
const NAME_MAX: usize = 223;
/// Longest name of a volume, in bytes: tgt's `SCSI_SN_LEN`, for it becomes the disk's serial number.
const VOLUME_NAME_MAX: usize = 36;
/// Shortest CHAP secret, in bytes (RFC 7143 §9.2.1: 96 bits).
const CHAP_SECRET_MIN: usize = 12;
/// Shortest bearer token, in bytes: 96 bits of base64.
const TOKEN_MIN: usize = 16;
/// Longest of either, in bytes; tgt cuts longer ones off.
const SECRET_MAX: usize = 255;

/// What `/etc/ha-storage.toml` says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where members reach it.
    pub listen: SocketAddr,
    /// Its certificate chain, PEM; absent only on loopback.
    pub certificate: Option<PathBuf>,
    /// The key of it, PEM.
    pub key: Option<PathBuf>,
    /// The bearer token of members, in a file of one line.
    pub token_file: PathBuf,
    /// Directory of what is wished for.
    pub state: PathBuf,
    /// The program.
    #[serde(default = "tgtadm")]
    pub tgtadm: PathBuf,
    /// tgtd's control socket without the number at its end (`TGT_IPC_SOCKET`); absent: tgt's own.
    pub socket: Option<PathBuf>,
    /// tgtd's control port (`tgtd -C`).
    #[serde(default)]
    pub control_port: u16,
    /// What makes snapshots of the volumes' backings; absent: nothing does.
    pub snapshot_program: Option<PathBuf>,
    /// True if what the program makes is of one moment also while somebody writes to the volume, as LVM's and ZFS's are and a
    /// copy is not. Only then are backups of volumes in use made.
    #[serde(default)]
    pub snapshot_in_use: bool,
    /// Volumes.
    #[serde(default, rename = "volume")]
    pub volumes: Vec<VolumeConfig>,
    /// Who may be given volumes.
    #[serde(default, rename = "initiator")]
    pub initiators: Vec<Initiator>,
}

/// A volume; its target at tgt is ours alone.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeConfig {
    /// Its name, as instances say it.
    pub name: VolumeId,
    /// The target's iSCSI name.
    pub target: String,
    /// Device or file.
    pub backing: PathBuf,
    /// tgt's backing store type.
    #[serde(default)]
    pub backing_type: BackingType,
}

/// How tgt reads and writes the backing (`tgtadm --bstype`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackingType {
    /// `rdwr` with `--bsoflags direct`.
    #[default]
    Direct,
    /// `rdwr` through the page cache: only with a file whose loss is no loss.
    Cached,
    /// Linux AIO.
    Aio,
}

/// A node's initiator.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Initiator {
    /// Its iSCSI name: `initiator` of the node.
    pub name: String,
    /// Its CHAP account; no other initiator's.
    pub chap_user: Option<String>,
    /// The secret, in a file of one line.
    pub chap_secret_file: Option<PathBuf>,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is no such document.
    #[error("{}", path.display())]
    Document {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: Box<toml::de::Error>,
    },
    /// A value cannot be right.
    #[error("{0}")]
    Value(String),
}

fn tgtadm() -> PathBuf {
    PathBuf::from("tgtadm")
}

impl Config {
    /// From a file.
    ///
    /// # Errors
    /// [`ConfigError`] that says where and why.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = read(path)?;
        let config: Config = toml::from_str(&text)
            .map_err(|source| ConfigError::Document { path: path.to_owned(), source: Box::new(source) })?;
        config.check()?;
        Ok(config)
    }

    /// The bearer token.
    ///
    /// # Errors
    /// [`ConfigError`] if the file has none.
    pub fn token(&self) -> Result<Zeroizing<String>, ConfigError> {
        secret(&self.token_file, TOKEN_MIN)
    }

    /// The secret of a CHAP account.
    pub(super) fn chap_secret(&self, user: &str) -> Result<Zeroizing<String>, ConfigError> {
        let is_his = |initiator: &&Initiator| initiator.chap_user.as_deref() == Some(user);
        match self.initiators.iter().find(is_his).and_then(|his| his.chap_secret_file.as_ref()) {
            Some(path) => secret(path, CHAP_SECRET_MIN),
            None => Err(ConfigError::Value(format!("no [[initiator]] has the chap_user {user}"))),
        }
    }

    /// Reads every CHAP secret, so that one that is missing is not found out in a failover.
    pub(super) fn check_secrets(&self) -> Result<(), ConfigError> {
        let mut users = self.initiators.iter().filter_map(|initiator| initiator.chap_user.as_ref());
        users.try_for_each(|user| self.chap_secret(user).map(drop))
    }

    /// Whether there is something behind every volume.
    pub(super) fn check_backings(&self) -> Result<(), ConfigError> {
        self.volumes.iter().try_for_each(|volume| open(&volume.backing).map(drop))
    }

    pub(super) fn initiator(&self, name: &str) -> Option<&Initiator> {
        self.initiators.iter().find(|initiator| initiator.name == name)
    }

    pub(super) fn volume(&self, name: &str) -> Option<&VolumeConfig> {
        self.volumes.iter().find(|volume| volume.name.as_str() == name)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let bad = |why: String| Err(ConfigError::Value(why));
        if self.snapshot_in_use && self.snapshot_program.is_none() {
            return bad("snapshot_in_use says something of a snapshot_program, and there is none".to_owned());
        }
        match (&self.certificate, &self.key) {
            (Some(_), Some(_)) => {}
            (None, None) if self.listen.ip().is_loopback() => {}
            (None, None) => return bad(format!("listen on {}: needs `certificate` and `key`", self.listen)),
            (Some(_), None) | (None, Some(_)) => {
                return bad("`certificate` and `key` go together".to_owned());
            }
        }
        if let Some(program) = self.snapshot_program.as_ref().filter(|program| !program.is_absolute()) {
            return bad(format!("snapshot_program {program:?} is not an absolute path"));
        }
        let (mut names, mut targets, mut backings) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for VolumeConfig { name, target, backing, .. } in &self.volumes {
            if name.as_str().len() > VOLUME_NAME_MAX {
                return bad(format!("volume {name}: a name has {VOLUME_NAME_MAX} characters at most here"));
            }
            if !is_iscsi_name(target) {
                return bad(format!("volume {name}: {target:?} is no iSCSI name"));
            }
            let is_plain = backing.to_str().is_some_and(|path| !path.contains(char::is_control));
            if !backing.is_absolute() || !is_plain {
                return bad(format!("volume {name}: backing {backing:?} is not an absolute path"));
            }
            if !names.insert(name) || !targets.insert(target) || !backings.insert(backing) {
                return bad(format!("volume {name}: its name, target or backing is another's, too"));
            }
        }
        let (mut names, mut users) = (BTreeSet::new(), BTreeSet::new());
        for Initiator { name, chap_user, chap_secret_file } in &self.initiators {
            if !is_iscsi_name(name) {
                return bad(format!("initiator {name:?} is no iSCSI name"));
            }
            if chap_user.is_some() != chap_secret_file.is_some() {
                return bad(format!("initiator {name}: `chap_user` and `chap_secret_file` go together"));
            }
            let is_user = |user: &String| {
                (1..=NAME_MAX).contains(&user.len())
                    && user.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
            };
            if let Some(user) = chap_user.as_ref().filter(|user| !is_user(user)) {
                return bad(format!("initiator {name}: chap_user {user:?} is not of a-z, A-Z, 0-9, '-._'"));
            }
            let is_new = chap_user.as_ref().is_none_or(|user| users.insert(user));
            if !names.insert(name.to_ascii_lowercase()) || !is_new {
                return bad(format!("initiator {name}: its name or chap_user is another's, too"));
            }
        }
        Ok(())
    }
}

/// A name by which tgt's access list can name an initiator (RFC 7143 §4.2.7): nothing that it takes for an address or `ALL`.
fn is_iscsi_name(name: &str) -> bool {
    let begins = ["iqn.", "eui.", "naa."].iter().any(|begin| name.starts_with(begin));
    begins
        && name.len() <= NAME_MAX
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.:".contains(&b))
}

fn open(path: &Path) -> Result<File, ConfigError> {
    File::open(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

/// A text file of bounded length.
pub(super) fn read(path: &Path) -> Result<Zeroizing<String>, ConfigError> {
    let mut text = Zeroizing::new(String::new());
    let length = open(path)?.take(FILE_MAX + 1).read_to_string(&mut text);
    match length.map_err(|source| ConfigError::Read { path: path.to_owned(), source })? as u64 > FILE_MAX {
        true => Err(ConfigError::Value(format!("{}: it is longer than {FILE_MAX} bytes", path.display()))),
        false => Ok(text),
    }
}

/// The same for a file that nobody but its owner may use.
pub(super) fn read_private(path: &Path) -> Result<Zeroizing<String>, ConfigError> {
    let metadata = open(path)?.metadata();
    match metadata.map_err(|source| ConfigError::Read { path: path.to_owned(), source })?.mode() & 0o077 {
        0 => read(path),
        _ => Err(ConfigError::Value(format!("{}: others can use it; `chmod 600` it", path.display()))),
    }
}

fn secret(path: &Path, min: usize) -> Result<Zeroizing<String>, ConfigError> {
    let secret = Zeroizing::new(read_private(path)?.trim().to_owned());
    let is_plain = secret.bytes().all(|b| b.is_ascii_graphic() && b != b',');
    match is_plain && (min..=SECRET_MAX).contains(&secret.len()) {
        true => Ok(secret),
        false => Err(ConfigError::Value(format!(
            "{}: a secret is one line of {min} to {SECRET_MAX} printable ASCII characters without spaces and commas",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        listen = "127.0.0.1:7400"
        token_file = "/t"
        state = "/s"
        [[volume]]
        name = "v1"
        target = "iqn.2026-01.lab:v1"
        backing = "/dev/vg/v1"
        [[initiator]]
        name = "iqn.2026-01.lab:n1"
    "#;

    fn check(text: &str) -> Result<(), String> {
        let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())
    }

    #[test]
    fn what_cannot_be_right_is_refused_with_its_place() {
        assert_eq!(check(GOOD), Ok(()));
        for (old, new, says) in [
            ("127.0.0.1", "10.0.0.1", "needs `certificate`"),
            ("token_file", "key = \"/k\"\ntoken_file", "go together"),
            ("iqn.2026-01.lab:v1", "ALL", "no iSCSI name"),
            ("iqn.2026-01.lab:n1", "10.0.0.1", "no iSCSI name"),
            ("iqn.2026-01.lab:n1", "iqn.2026-01.lab:N1", "no iSCSI name"),
            ("/dev/vg/v1", "vg/v1", "absolute"),
            ("lab:n1\"", "lab:n1\"\nchap_user = \"u\"", "go together"),
            ("state", "stat", "unknown field"),
            ("state", "snapshot_program = \"snap\"\nstate", "absolute"),
        ] {
            let why = check(&GOOD.replace(old, new)).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
        let twice =
            GOOD.replace("[[initiator]]", "[[initiator]]\nname = \"iqn.2026-01.lab:n1\"\n[[initiator]]");
        assert!(check(&twice).unwrap_err().contains("another's"));
    }

    #[test]
    fn a_secret_is_read_from_a_file_of_ones_own_only() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let read = |mode: u32, text: &str| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            secret(&path, CHAP_SECRET_MIN).map(|secret| secret.to_string()).map_err(|error| error.to_string())
        };
        assert_eq!(read(0o600, "twelve-chars\n").as_deref(), Ok("twelve-chars"));
        for (mode, text, says) in [
            (0o640, "twelve-chars\n", "others can use it"),
            (0o600, "eleven-char\n", "one line of 12 to"),
            (0o600, "twelve-chars\nand more", "without spaces"),
        ] {
            let why = read(mode, text).unwrap_err();
            assert!(why.contains(says) && !why.contains("twelve"), "{why}");
        }
    }
}
