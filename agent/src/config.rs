//! The agent's configuration: a TOML file, parsed and checked once at the start.
//!
//! Why it exists: everything that can be wrong with the file is said here, with file, line and key.
//! What it never does: no error repeats a line of the file, for the line may hold the key.

mod watchdog;

use crate::key::Key;
use crate::wire::boot_id_of;
use policies::{BootId, Epoch, HEARTBEAT_PATHS_MAX, HttpUrl, Millis, NodeId};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeSet;
use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
pub use watchdog::{ASK_EVERY, WatchdogConfig};
use zeroize::Zeroizing;

/// Shortest interval. Shorter ones would cost every member more than they tell (facts/performance.md §2b).
pub const INTERVAL_MIN: Millis = Millis(10);
/// Longest interval: a node that is heard less often cannot be judged in any useful time.
pub const INTERVAL_MAX: Millis = Millis::secs(60);
/// Most paths of a node; a heartbeat is one datagram for each path and member.
pub const PATHS_MAX: usize = HEARTBEAT_PATHS_MAX as usize;
/// Most members on one path; a cluster has 3 or 5, and grows by one before it shrinks.
pub const MEMBERS_MAX: usize = 16;
/// Longest configuration, key, epoch or boot id file in bytes.
pub const FILE_MAX: u64 = 65_536;

const KERNEL_BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What the agent is to do.
#[derive(Debug)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// Its key.
    pub key: Key,
    /// This life of its operating system.
    pub boot: BootId,
    /// Where it learns its epoch.
    pub epoch: EpochSource,
    /// Time between heartbeats.
    pub interval: Millis,
    /// Ways to the members; each heartbeat takes all of them.
    pub paths: Vec<PathConfig>,
    /// How it learns the age of the last acknowledged disk write.
    pub write_probe: Option<WriteProbe>,
    /// Whether it tells its hardware.
    pub inventory: bool,
    /// The members' boot services, for a hot spare.
    pub boot_services: Vec<HttpUrl>,
    /// The watchdogs that it feeds.
    pub watchdog: Option<WatchdogConfig>,
}

/// Where the node learns its epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EpochSource {
    /// From the configuration.
    Fixed(Epoch),
    /// From a file that the boot source writes and the agent reads again and again. No file: epoch 0, a spare.
    File(PathBuf),
}

/// One way to the members.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathConfig {
    /// For the log.
    pub name: String,
    /// Address to send from; it chooses the network. Port 0: any. Absent: the kernel chooses.
    pub bind: Option<SocketAddr>,
    /// Where the members listen. Addresses only: a heartbeat must not depend on a name server.
    pub members: Vec<SocketAddr>,
}

impl PathConfig {
    /// The address to bind to.
    pub fn source(&self) -> SocketAddr {
        let any = if self.members.iter().all(SocketAddr::is_ipv4) {
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
        } else {
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
        };
        self.bind.unwrap_or(any)
    }
}

/// How the age of the last acknowledged disk write is learned.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteProbe {
    /// The file that is looked at.
    pub file: PathBuf,
    /// How it is read.
    pub mode: WriteProbeMode,
}

/// How a write probe's file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WriteProbeMode {
    /// The workload touches the file after each acknowledged write; the age is that of its modification time.
    AgeOfFile,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file could not be read.
    #[error("read {what} {}", file.display())]
    Read {
        /// What it is for.
        what: &'static str,
        /// Which.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The text is not such a configuration.
    #[error("{}:{line}: {message}", file.display())]
    Parse {
        /// Which file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong; names the key, shows no value that could be secret.
        message: String,
    },
    /// Each line is right, the whole is not.
    #[error("{}: {message}", file.display())]
    Whole {
        /// Which file.
        file: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    node: NodeId,
    #[serde(default, deserialize_with = "key_from_hex")]
    key: Option<Key>,
    key_file: Option<PathBuf>,
    boot_id: Option<String>,
    epoch: Option<Epoch>,
    epoch_file: Option<PathBuf>,
    interval: Option<Millis>,
    paths: Vec<PathConfig>,
    write_probe: Option<WriteProbe>,
    inventory: Option<bool>,
    #[serde(default)]
    boot_services: Vec<HttpUrl>,
    watchdog: Option<watchdog::RawWatchdog>,
}

fn key_from_hex<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Key>, D::Error> {
    let text = Zeroizing::new(String::deserialize(from)?);
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

impl Config {
    /// Reads and checks a configuration file, and the key file and kernel boot id where it asks for them.
    ///
    /// # Errors
    /// [`ConfigError`], which names the file, the line and the key where it can.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        Config::parse(file, &read_bounded(file, "configuration")?, read_bounded)
    }

    /// Checks the text of a configuration file; `read` reads the other files that it asks for.
    ///
    /// # Errors
    /// [`ConfigError`], which names the file, the line and the key where it can.
    pub fn parse(
        file: &Path,
        text: &str,
        read: impl Fn(&Path, &'static str) -> Result<Zeroizing<String>, ConfigError>,
    ) -> Result<Self, ConfigError> {
        let raw: Raw = toml::from_str(text).map_err(|error| ConfigError::Parse {
            file: file.to_owned(),
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        })?;
        let whole = |message: String| ConfigError::Whole { file: file.to_owned(), message };
        let interval = raw.interval.unwrap_or(Millis(250));
        check(&raw.paths, interval).map_err(whole)?;
        let no_paths = raw.boot_services.iter().try_for_each(HttpUrl::check_no_path);
        no_paths.map_err(|why| whole(format!("boot_services: {why}")))?;
        if raw.boot_services.len() > MEMBERS_MAX {
            return Err(whole(format!("boot_services: more than {MEMBERS_MAX} members")));
        }
        let watchdog =
            raw.watchdog.map(|section| section.check(&raw.paths, interval, raw.write_probe.is_some()));
        let watchdog = watchdog.transpose().map_err(whole)?;
        let key = match (raw.key, raw.key_file) {
            (Some(key), None) => key,
            (None, Some(path)) => parse_key(&path, &read(&path, "key file")?)?,
            (None, None) => return Err(whole("no key: write key = \"...\" or key_file = \"...\"".into())),
            (Some(_), Some(_)) => return Err(whole("both key and key_file: leave one of them out".into())),
        };
        let epoch = match (raw.epoch, raw.epoch_file) {
            (Some(epoch), None) => EpochSource::Fixed(epoch),
            (None, Some(path)) => EpochSource::File(path),
            (None, None) => EpochSource::Fixed(Epoch(0)),
            (Some(_), Some(_)) => {
                return Err(whole("both epoch and epoch_file: leave one of them out".into()));
            }
        };
        let boot = match raw.boot_id {
            Some(text) => boot_id_of(&text),
            None => boot_id_of(&read(Path::new(KERNEL_BOOT_ID), "the kernel's boot id")?),
        };
        let (node, paths, write_probe) = (raw.node, raw.paths, raw.write_probe);
        Ok(Config {
            node,
            key,
            boot,
            epoch,
            interval,
            paths,
            write_probe,
            inventory: raw.inventory.unwrap_or(true),
            boot_services: raw.boot_services,
            watchdog,
        })
    }
}

fn read_bounded(file: &Path, what: &'static str) -> Result<Zeroizing<String>, ConfigError> {
    let read = |file: &Path| {
        let mut text = Zeroizing::new(String::new());
        std::fs::File::open(file)?.take(FILE_MAX + 1).read_to_string(&mut text)?;
        if text.len() as u64 > FILE_MAX {
            return Err(std::io::Error::other(format!("it is longer than {FILE_MAX} bytes")));
        }
        Ok(text)
    };
    read(file).map_err(|source| ConfigError::Read { what, file: file.to_owned(), source })
}

fn parse_key(file: &Path, text: &str) -> Result<Key, ConfigError> {
    text.trim().parse().map_err(|error: crate::key::BadKey| ConfigError::Whole {
        file: file.to_owned(),
        message: error.to_string(),
    })
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// The relations between values that no single line can have wrong.
fn check(paths: &[PathConfig], interval: Millis) -> Result<(), String> {
    if !(INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) {
        return Err(format!("interval {interval} is not between {INTERVAL_MIN} and {INTERVAL_MAX}"));
    }
    if !(1..=PATHS_MAX).contains(&paths.len()) {
        return Err(format!("{} paths; there must be 1 to {PATHS_MAX}", paths.len()));
    }
    let mut names = BTreeSet::new();
    for path in paths {
        let (name, count) = (&path.name, path.members.len());
        if !names.insert(name) {
            return Err(format!("two paths are called {name:?}; the log could not tell them apart"));
        }
        if !(1..=MEMBERS_MAX).contains(&count) {
            return Err(format!("path {name:?} has {count} members; there must be 1 to {MEMBERS_MAX}"));
        }
        let source = path.source();
        if let Some(member) = path.members.iter().find(|member| member.is_ipv4() != source.is_ipv4()) {
            return Err(format!(
                "path {name:?} cannot reach {member} from {source}: IPv4 and IPv6 are mixed"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
node = "n1"
key = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
boot_id = "life one"

[[paths]]
name = "blue"
bind = "127.0.0.1:0"
members = ["127.0.0.1:7201", "127.0.0.2:7201"]

[write_probe]
file = "/srv/written"
mode = "age-of-file"
"#;

    fn read(text: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.toml");
        std::fs::write(&file, text).unwrap();
        Config::read(&file)
    }

    fn refused(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn a_good_file_is_read_with_the_defaults() {
        let config = read(GOOD).unwrap();
        assert_eq!(config.node.as_str(), "n1");
        assert_eq!(config.interval, Millis(250));
        assert_eq!(config.epoch, EpochSource::Fixed(Epoch(0)));
        assert_eq!(config.boot, boot_id_of("life one"));
        assert_eq!(config.paths[0].members.len(), 2);
        assert!(!format!("{config:?}").contains("0c0d"));
    }

    #[test]
    fn an_unknown_key_is_refused_with_file_line_and_key() {
        for (after, key, line) in [("node = \"n1\"", "intervall", 3), ("name = \"blue\"", "bindd", 8)] {
            let error = refused(&GOOD.replace(after, &format!("{after}\n{key} = 1")));
            assert!(error.contains(&format!("agent.toml:{line}: unknown field `{key}`")), "{error}");
        }
    }

    #[test]
    fn a_wrong_key_is_refused_at_its_line_and_not_shown() {
        let error = refused(&GOOD.replace("000102", "zz0102"));
        assert!(error.contains("agent.toml:3: not a key: write 64 hexadecimal digits"), "{error}");
        assert!(!error.contains("zz0102"), "{error}");
        let error = refused(&GOOD.replace("1e1f\"", "1e1f"));
        assert!(error.contains("agent.toml:3: ") && !error.contains("000102"), "{error}");
    }

    #[test]
    fn what_does_not_fit_together_is_refused_with_a_reason() {
        let cases = [
            ("boot_id = ", "epoch = 1\nepoch_file = \"/e\"\nboot_id = ", "both epoch and epoch_file"),
            ("boot_id = ", "key_file = \"/k\"\nboot_id = ", "both key and key_file"),
            ("boot_id = ", "interval = \"5ms\"\nboot_id = ", "interval 5ms is not between 10ms and 1m"),
            ("\"127.0.0.2:7201\"", "\"[::1]:7201\"", "IPv4 and IPv6 are mixed"),
            ("\"127.0.0.2:7201\"", "\"m2:7201\"", "invalid socket address syntax"),
            ("[\"127.0.0.1:7201\", \"127.0.0.2:7201\"]", "[]", "has 0 members"),
            ("age-of-file", "age", "unknown variant `age`"),
            ("boot_id = ", "boot_services = [\"http://m1/x\"]\nboot_id = ", "leave out the path"),
            (
                "[write_probe]",
                "[[paths]]\nname=\"blue\"\nmembers=[\"127.0.0.1:1\"]\n[write_probe]",
                "two paths",
            ),
        ];
        for (from, to, expected) in cases {
            let error = refused(&GOOD.replace(from, to));
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn the_key_may_be_in_a_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, format!("{}\n", "ab".repeat(32))).unwrap();
        let text = GOOD.lines().filter(|line| !line.starts_with("key =")).collect::<Vec<_>>().join("\n");
        let with = |file: &Path| text.replacen("boot_id", &format!("key_file = {file:?}\nboot_id"), 1);
        assert_eq!(read(&with(&file)).unwrap().key, "ab".repeat(32).parse().unwrap());
        assert!(refused(&with(&folder.path().join("none"))).contains("read key file"));
        assert!(refused(&text).contains("no key"));
    }
}
