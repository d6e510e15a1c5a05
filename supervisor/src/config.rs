//! The configuration of one member (`config.toml`) and the places of the files in its directory.
//!
//! Why it exists: everything that differs between members, and nothing else, is here; what the cluster decides on
//! (nodes, instances, policies) is in the replicated state. What it never does: hold a secret, read a clock, or accept
//! a key that it does not know.

use crate::document::{self, DocumentError};
use crate::files::{self, FileError};
use policies::{MemberId, Millis};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// Why a member's configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It could not be read.
    #[error("read the configuration of this member")]
    File(#[source] FileError),
    /// It is not a configuration.
    #[error("read the configuration of this member")]
    Document(#[source] DocumentError),
    /// Its values do not fit each other.
    #[error("{file}: {key}: {why}")]
    Value {
        /// The file.
        file: String,
        /// The key, with its table.
        key: &'static str,
        /// What is wrong and what to do.
        why: String,
    },
}

/// The files of a member's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    dir: PathBuf,
}

impl Home {
    /// The member's directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Home { dir: dir.into() }
    }

    /// The directory itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// [`Config`].
    pub fn config(&self) -> PathBuf {
        self.dir.join("config.toml")
    }

    /// Certificate of the cluster's CA (PEM).
    pub fn ca_cert(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// Key of the CA; only where the cluster was made. Keep a copy off line.
    pub fn ca_key(&self) -> PathBuf {
        self.dir.join("ca.key")
    }

    /// This member's certificate (PEM).
    pub fn member_cert(&self) -> PathBuf {
        self.dir.join("member.pem")
    }

    /// This member's key (PEM).
    pub fn member_key(&self) -> PathBuf {
        self.dir.join("member.key")
    }

    /// Certificate of the first operator, `admin` (PEM).
    pub fn admin_cert(&self) -> PathBuf {
        self.dir.join("admin.pem")
    }

    /// Key of the first operator (PEM).
    pub fn admin_key(&self) -> PathBuf {
        self.dir.join("admin.key")
    }

    /// The cluster's sealing key, the same at every member.
    pub fn seal_key(&self) -> PathBuf {
        self.dir.join("seal.key")
    }

    /// Hashes of the API tokens; may be missing.
    pub fn tokens(&self) -> PathBuf {
        self.dir.join("tokens.toml")
    }

    /// The context of `hactl` for the first operator.
    pub fn hactl(&self) -> PathBuf {
        self.dir.join("hactl.toml")
    }

    /// Leave to begin a new cluster, once: written by `init`, removed when the cluster has begun. A member that has
    /// lost its store has no such leave, so it cannot come back as an empty cluster with the old name.
    pub fn founding(&self) -> PathBuf {
        self.dir.join("founding")
    }

    /// Directory of the flight record: what this member observed.
    pub fn flight(&self) -> PathBuf {
        self.dir.join("flight")
    }

    /// Directory of the programs of `exec` providers; may be missing.
    pub fn providers(&self) -> PathBuf {
        self.dir.join("providers")
    }

    /// Directory of the replicated log, the snapshots and the history.
    pub fn store(&self) -> PathBuf {
        self.dir.join("store")
    }
}

/// The configuration of one member.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Which cluster.
    pub cluster: Cluster,
    /// Which member of it, and where it listens.
    pub member: Member,
    /// Times of the replicated log.
    #[serde(default)]
    pub raft: Raft,
    /// The searchable history.
    #[serde(default)]
    pub history: History,
    /// The flight record.
    #[serde(default)]
    pub flight: Flight,
    /// Limits of the HTTP API.
    #[serde(default)]
    pub api: Api,
    /// What is written to standard error.
    #[serde(default)]
    pub log: Log,
}

/// Which cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Its name, for people.
    pub name: String,
    /// Drawn at random by `init`: members of other clusters are refused by it, and sealed secrets are bound to it.
    pub id: String,
}

/// Which member, and where it listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its number. Never used again for another store.
    pub id: u64,
    /// The failure domain it stands in (a site, a room, a rack): policies may ask for verdicts from several.
    #[serde(default = "one_domain")]
    pub domain: String,
    /// `host:port` where other members reach it (TCP, mutual TLS).
    pub member_addr: String,
    /// `host:port` where operators and members reach its HTTPS API.
    pub api_addr: String,
    /// `host:port` where agents send heartbeats (UDP).
    pub heartbeat_addr: String,
    /// Where it listens for members, if not at `member_addr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_listen: Option<SocketAddr>,
    /// Where it listens for the API, if not at `api_addr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_listen: Option<SocketAddr>,
    /// Where it listens for heartbeats, if not at `heartbeat_addr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_listen: Option<SocketAddr>,
    /// Where it serves nodes that start (plain HTTP, `docs/drivers/boot.md`); absent: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_listen: Option<SocketAddr>,
}

fn one_domain() -> String {
    "default".to_owned()
}

/// Times of the replicated log. The same at every member, or the lease (R5) is not safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Raft {
    /// The leader speaks at least this often. Lower: more packets; higher: later detection of a dead leader.
    /// 80 ms: openraft looks at its clock every 1.5 heartbeats, and a new leader has to act within 1.5 s.
    pub heartbeat: Millis,
    /// A follower waits at least this long before it elects. Lower than 3 heartbeats: one lost packet elects.
    pub election_min: Millis,
    /// ... and at most this long. The spread keeps two members from electing at once.
    pub election_max: Millis,
}

impl Default for Raft {
    fn default() -> Self {
        Raft { heartbeat: Millis(80), election_min: Millis(250), election_max: Millis(450) }
    }
}

/// The searchable history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct History {
    /// Days that are older than this are dropped. 90 d: a quarter's report can still be made.
    pub keep: Millis,
}

impl Default for History {
    fn default() -> Self {
        History { keep: Millis(90 * 86_400_000) }
    }
}

/// The flight record: what this member observed, for `hactl policy replay`. Both bounds drop whole days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Flight {
    /// Days that are older than this are dropped. 30 d: a month has its backups, its maintenance and its bad night.
    pub keep: Millis,
    /// Bytes on disk, at the most. 1 GiB: 10,000 nodes, each with ten records a day, take a third of it in 30 days.
    pub bytes_max: u64,
}

impl Default for Flight {
    fn default() -> Self {
        Flight { keep: Millis(30 * 86_400_000), bytes_max: 1 << 30 }
    }
}

/// Limits of the HTTP API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// Connections at once; further ones wait in the kernel. 512: dashboards, Prometheus and a team of operators
    /// need tens; each costs about 60 kB, so 512 is 30 MB at worst.
    pub connections_max: usize,
    /// Largest request body in bytes. 4 MiB: an inventory of some thousand nodes in one `apply`.
    pub body_bytes_max: usize,
    /// A TLS handshake or a request's headers must be complete in this time. Higher: idle strangers hold connections.
    pub header_time_max: Millis,
    /// A request must be answered in this time; event streams are not bound by it. Must be longer than an election.
    pub request_time_max: Millis,
}

impl Default for Api {
    fn default() -> Self {
        Api {
            connections_max: 512,
            body_bytes_max: 4 << 20,
            header_time_max: Millis::secs(5),
            request_time_max: Millis::secs(10),
        }
    }
}

/// What is written to standard error.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Level, or levels by module: `info`, `warn,supervisor=debug`. The environment's `HA_LOG` goes before it.
    /// openraft is off: while a member is away it repeats an ERROR ten times a second; what a person must know of it,
    /// the store says.
    pub filter: String,
    /// Lines for people or for programs.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Log { filter: "info,openraft=off".to_owned(), format: LogFormat::Text }
    }
}

/// Form of the log's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// Reads and checks the configuration of a member's directory.
    ///
    /// # Errors
    /// [`ConfigError`], naming file, line and key.
    pub fn load(home: &Home) -> Result<Config, ConfigError> {
        let path = home.config();
        let text = files::read_text(&path).map_err(ConfigError::File)?;
        Config::parse(&path.display().to_string(), &text)
    }

    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// [`ConfigError`], naming file, line and key.
    pub fn parse(file: &str, text: &str) -> Result<Config, ConfigError> {
        let config: Config = document::read(file, text).map_err(ConfigError::Document)?;
        config.validate().map_err(|(key, why)| ConfigError::Value { file: file.to_owned(), key, why })?;
        Ok(config)
    }

    /// This member.
    pub fn me(&self) -> MemberId {
        MemberId(self.member.id)
    }

    /// The relations between values, as key and sentence.
    fn validate(&self) -> Result<(), (&'static str, String)> {
        let must = |holds: bool, key, why: &str| if holds { Ok(()) } else { Err((key, why.to_owned())) };
        must(
            (1..=63).contains(&self.cluster.name.chars().count()),
            "cluster.name",
            "must have 1 to 63 characters",
        )?;
        must(
            is_cluster_id(&self.cluster.id),
            "cluster.id",
            "must be the 32 hexadecimal digits that `init` wrote",
        )?;
        self.member.validate()?;
        let raft = &self.raft;
        must(raft.heartbeat.0 >= 10, "raft.heartbeat", "must be at least 10ms")?;
        must(raft.election_max.0 <= 60_000, "raft.election_max", "must be at most 1m")?;
        must(
            raft.election_min.0 >= raft.heartbeat.0.saturating_mul(3),
            "raft.election_min",
            "must be at least three times raft.heartbeat, or one lost packet elects",
        )?;
        must(
            2 * raft.election_max.0 >= raft.election_min.0.saturating_mul(3),
            "raft.election_max",
            "must be at least one and a half times raft.election_min, or two members elect at once",
        )?;
        must(
            self.history.keep.0 >= 86_400_000,
            "history.keep",
            "must be at least 1d, for a day is dropped whole",
        )?;
        must(
            self.flight.keep.0 >= 86_400_000,
            "flight.keep",
            "must be at least 1d, for a day is dropped whole",
        )?;
        must(
            self.flight.bytes_max >= 16 << 20,
            "flight.bytes_max",
            "must be at least 16777216, for sled writes 512 kB at a time",
        )?;
        let api = &self.api;
        must((1..=65_536).contains(&api.connections_max), "api.connections_max", "must be 1 to 65536")?;
        must(
            (4096..=64 << 20).contains(&api.body_bytes_max),
            "api.body_bytes_max",
            "must be 4096 to 67108864 bytes",
        )?;
        must(api.header_time_max.0 >= 100, "api.header_time_max", "must be at least 100ms")?;
        must(
            api.request_time_max.0 >= 2 * raft.election_max.0,
            "api.request_time_max",
            "must be at least twice raft.election_max, or requests fail during each election",
        )
    }
}

impl Member {
    fn validate(&self) -> Result<(), (&'static str, String)> {
        if self.id == 0 {
            return Err(("member.id", "must be 1 or more".to_owned()));
        }
        if !(1..=63).contains(&self.domain.len()) {
            return Err(("member.domain", "must have 1 to 63 bytes".to_owned()));
        }
        self.member_socket()?;
        self.api_socket()?;
        self.heartbeat_socket()?;
        let member = host_port(&self.member_addr);
        if member.is_some() && member == host_port(&self.api_addr) {
            return Err(("member.api_addr", "must differ from member.member_addr".to_owned()));
        }
        Ok(())
    }

    /// Where to listen for other members.
    ///
    /// # Errors
    /// Key and sentence, if neither address can be listened on.
    pub fn member_socket(&self) -> Result<SocketAddr, (&'static str, String)> {
        listen_at(self.member_listen, &self.member_addr, "member.member_addr", "member_listen")
    }

    /// Where to listen for the API.
    ///
    /// # Errors
    /// Key and sentence, if neither address can be listened on.
    pub fn api_socket(&self) -> Result<SocketAddr, (&'static str, String)> {
        listen_at(self.api_listen, &self.api_addr, "member.api_addr", "api_listen")
    }

    /// Where to listen for heartbeats.
    ///
    /// # Errors
    /// Key and sentence, if neither address can be listened on.
    pub fn heartbeat_socket(&self) -> Result<SocketAddr, (&'static str, String)> {
        listen_at(self.heartbeat_listen, &self.heartbeat_addr, "member.heartbeat_addr", "heartbeat_listen")
    }
}

fn listen_at(
    listen: Option<SocketAddr>,
    addr: &str,
    key: &'static str,
    listen_key: &str,
) -> Result<SocketAddr, (&'static str, String)> {
    let Some((host, port)) = host_port(addr) else {
        return Err((key, format!("{addr:?} is not host:port")));
    };
    match (listen, host.parse::<IpAddr>()) {
        (Some(listen), _) => Ok(listen),
        (None, Ok(ip)) => Ok(SocketAddr::new(ip, port)),
        (None, Err(_)) => {
            Err((key, format!("is a name, so say in member.{listen_key} on which ip:port to listen")))
        }
    }
}

/// Splits `host:port`; an IPv6 address stands in brackets. `None` if it is neither.
pub fn host_port(addr: &str) -> Option<(&str, u16)> {
    let (host, port) = addr.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let fits = !host.is_empty()
        && host.len() <= 253
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:".contains(&b));
    fits.then_some((host, port))
}

fn is_cluster_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[cluster]\nname = \"demo\"\nid = \"00112233445566778899aabbccddeeff\"\n[member]\nid = 1\n\
        member_addr = \"127.0.0.1:7101\"\napi_addr = \"127.0.0.1:7201\"\nheartbeat_addr = \"127.0.0.1:7301\"\n";

    fn refused(text: &str) -> String {
        let error = Config::parse("config.toml", text).unwrap_err();
        match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        }
    }

    #[test]
    fn the_shortest_configuration_has_the_defaults() {
        let config = Config::parse("config.toml", GOOD).unwrap();
        assert_eq!(config.raft, Raft::default());
        assert_eq!(config.api, Api::default());
        assert_eq!(config.me(), MemberId(1));
        assert_eq!(config.member.api_socket().unwrap().to_string(), "127.0.0.1:7201");
    }

    #[test]
    fn each_relation_names_its_key() {
        for (more, key) in [
            ("[raft]\nheartbeat = \"200ms\"\n", "raft.election_min"),
            ("[raft]\nelection_max = \"310ms\"\n", "raft.election_max"),
            ("[raft]\nheartbeat = \"1ms\"\n", "raft.heartbeat"),
            ("[history]\nkeep = \"1h\"\n", "history.keep"),
            ("[flight]\nkeep = \"1h\"\n", "flight.keep"),
            ("[flight]\nbytes_max = 1\n", "flight.bytes_max"),
            ("[api]\nconnections_max = 0\n", "api.connections_max"),
            ("[api]\nbody_bytes_max = 1\n", "api.body_bytes_max"),
            ("[api]\nheader_time_max = \"1ms\"\n", "api.header_time_max"),
            ("[api]\nrequest_time_max = \"800ms\"\n", "api.request_time_max"),
        ] {
            let said = refused(&format!("{GOOD}{more}"));
            assert!(said.starts_with(&format!("config.toml: {key}: ")), "{said}");
        }
        assert!(refused(&GOOD.replace("id = 1", "id = 0")).contains("member.id"));
        assert!(refused(&GOOD.replace("ff\"", "\"")).contains("cluster.id"));
        assert!(refused(&GOOD.replace("7201", "7101")).contains("member.api_addr"));
    }

    #[test]
    fn a_mistyped_key_is_named_with_its_line() {
        let said = refused(&format!("{GOOD}[api]\nconections_max = 3\n"));
        assert!(said.contains("config.toml:10: unknown field `conections_max`"), "{said}");
        assert!(said.ends_with("did you mean `connections_max`?"), "{said}");
    }

    #[test]
    fn a_name_needs_an_address_to_listen_on() {
        let named = GOOD.replace("127.0.0.1:7101", "ha1.example:7101");
        assert!(refused(&named).contains("member_listen"));
        let config = Config::parse("c", &format!("{named}member_listen = \"0.0.0.0:7101\"\n")).unwrap();
        assert_eq!(config.member.member_socket().unwrap().to_string(), "0.0.0.0:7101");
    }

    #[test]
    fn host_and_port_are_split() {
        assert_eq!(host_port("[::1]:80"), Some(("::1", 80)));
        assert_eq!(host_port("a.b:1"), Some(("a.b", 1)));
        for bad in ["", "a", "a:", ":1", "a:0", "a:65536", "::1:80", "[::1:80", "a b:1"] {
            assert_eq!(host_port(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_address_is_split_or_refused(text in "\\PC{0,40}") {
            if let Some((host, port)) = host_port(&text) {
                assert!(!host.is_empty() && port > 0);
            }
        }
    }

    /// Keys of `docs/CONFIGURATION.md` that are wanted, with what stands in a column of their row.
    fn documented(column: usize, wanted: impl Fn(&str) -> bool) -> Vec<(String, String)> {
        let doc = include_str!("../../docs/CONFIGURATION.md");
        let cells =
            |line: &str| line.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect();
        let rows = doc.lines().filter(|line| line.starts_with("| `")).map(cells);
        let rows = rows.filter(|row: &Vec<String>| wanted(&row[1]));
        rows.map(|row| (row[1].clone(), row[column].clone())).collect()
    }

    fn as_toml(rows: &[(String, String)]) -> String {
        let line = |(key, value): &(String, String)| match value.as_str() {
            "absent" => String::new(),
            "false" | "[]" | "{}" => format!("{key} = {value}\n"),
            _ if value.parse::<u64>().is_ok() => format!("{key} = {value}\n"),
            _ => format!("{key} = \"{value}\"\n"),
        };
        rows.iter().map(line).collect()
    }

    #[test]
    fn every_key_is_documented_with_its_default() {
        for (section, keys_min) in [("raft", 3), ("history", 1), ("flight", 2), ("api", 4), ("log", 2)] {
            let rows = documented(2, |key| key.starts_with(&format!("{section}.")));
            assert!(rows.len() >= keys_min, "{section}");
            let config = Config::parse("doc", &format!("{}\n{GOOD}", as_toml(&rows))).unwrap();
            assert_eq!(config, Config::parse("doc", GOOD).unwrap(), "{section}");
        }
        for section in ["cluster", "member", "raft", "history", "flight", "api", "log"] {
            let known = refused(&format!("{section}.x = 1\n"));
            let documented: Vec<String> = documented(1, |key| key.starts_with(&format!("{section}.")))
                .into_iter()
                .map(|row| row.0)
                .collect();
            for key in crate::document::expected_keys(&known) {
                assert!(
                    documented.contains(&format!("{section}.{key}")),
                    "{section}.{key} is not documented"
                );
            }
        }
    }
}
