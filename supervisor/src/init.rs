//! Makes the directories of a cluster's members: the first by `init`, the others by `invite` and `join`.
//!
//! Why it exists: a newcomer gets a cluster with its own CA, sealing key and certificates from one command, and nobody
//! has to copy keys by hand. What it never does: overwrite anything, or let the CA's key leave its directory.

use crate::config::{Cluster, Config, ConfigError, Home, Member, host_port};
use crate::document::{self, DocumentError};
use crate::files::{self, Access, FileError};
use crate::pki::{self, Issued, PkiError};
use crate::seal::{Seal, SealError, hex};
use jiff::Timestamp;
use policies::MemberId;
use rand::TryRngCore;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use zeroize::{Zeroize, Zeroizing};

/// A member's directory could not be made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is something already.
    #[error("{} is there already, and nothing is overwritten; choose another directory, or remove it if it is yours to remove", .0.display())]
    Exists(PathBuf),
    /// The values do not fit.
    #[error("check the values for the new member")]
    Config(#[source] ConfigError),
    /// A file could not be read or written.
    #[error("make the directory of a member")]
    File(#[source] FileError),
    /// A certificate could not be made.
    #[error("make the certificates")]
    Pki(#[source] PkiError),
    /// The sealing key could not be drawn.
    #[error("make the sealing key")]
    Seal(#[source] SealError),
    /// The bundle or context is not one.
    #[error("read what another member wrote")]
    Document(#[source] DocumentError),
    /// A rule is broken.
    #[error("{0}")]
    Refused(String),
    /// No random numbers.
    #[error("draw the cluster's id from the operating system")]
    Random(#[source] rand::rand_core::OsError),
}

/// Where `hactl` finds a cluster and what it shows there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// `https://host:port` of one or more members.
    pub endpoints: Vec<String>,
    /// Certificate of the cluster's CA; a relative path is relative to this file.
    pub ca: PathBuf,
    /// Client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// Its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// File that holds a token, instead of a certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
}

/// What `invite` writes and `join` reads. Holds the new member's key and the sealing key: as secret as both.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bundle {
    format: u32,
    ca: String,
    cert: String,
    key: String,
    seal_key: String,
    cluster: Cluster,
    member: Member,
}

/// The bundles that this program reads.
const BUNDLE_FORMAT: u32 = 1;

impl Drop for Bundle {
    fn drop(&mut self) {
        self.key.zeroize();
        self.seal_key.zeroize();
    }
}

/// Where a new member is, as given on the command line: addresses are `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// For other members.
    pub member: String,
    /// For the HTTPS API.
    pub api: String,
    /// For heartbeats.
    pub heartbeat: String,
    /// The failure domain that the member stands in.
    pub domain: String,
}

impl Addresses {
    /// The member's part of a configuration. Where an address is a name, the member listens on all its interfaces.
    fn into_member(self, id: MemberId) -> Member {
        let everywhere = |addr: &str| {
            let (host, port) = host_port(addr)?;
            let named = host.parse::<std::net::IpAddr>().is_err();
            named.then(|| std::net::SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), port))
        };
        Member {
            id: id.0,
            domain: self.domain,
            member_listen: everywhere(&self.member),
            api_listen: everywhere(&self.api),
            heartbeat_listen: everywhere(&self.heartbeat),
            boot_listen: None,
            member_addr: self.member,
            api_addr: self.api,
            heartbeat_addr: self.heartbeat,
        }
    }
}

/// Makes a new cluster with its first member.
///
/// # Errors
/// [`InitError`]; [`InitError::Exists`] before anything is written.
pub fn init(
    home: &Home,
    id: MemberId,
    cluster: &str,
    addrs: Addresses,
    now: Timestamp,
) -> Result<Config, InitError> {
    refuse_existing(home)?;
    let mut cluster_id = [0; 16];
    rand::rngs::OsRng.try_fill_bytes(&mut cluster_id).map_err(InitError::Random)?;
    let cluster = Cluster { name: cluster.to_owned(), id: hex(&cluster_id) };
    let member = addrs.into_member(id);
    let (text, config) = configuration(home, &cluster, &member)?;
    let ca = pki::make_ca(&cluster.name, now).map_err(InitError::Pki)?;
    let cert = issue(&ca, &member, now)?;
    let admin = pki::make_operator(&ca, "admin", now).map_err(InitError::Pki)?;
    let seal_key = Seal::draw_key().map_err(InitError::Seal)?;
    let context = Context {
        endpoints: vec![format!("https://{}", member.api_addr)],
        ca: "ca.pem".into(),
        cert: Some("admin.pem".into()),
        key: Some("admin.key".into()),
        token_file: None,
    };
    files::create_dir(home.dir()).map_err(InitError::File)?;
    write_all(&[
        (home.ca_key(), ca.key.as_str(), Access::Private),
        (home.ca_cert(), &ca.cert, Access::Public),
        (home.admin_key(), &admin.key, Access::Private),
        (home.admin_cert(), &admin.cert, Access::Public),
        (home.hactl(), &context_text(&context)?, Access::Public),
        (home.founding(), "", Access::Private),
    ])?;
    write_member(home, &ca.cert, &cert, &seal_key, &text, false)?;
    Ok(config)
}

/// Makes the bundle for a further member, in the directory in which the cluster was made, and adds the member's API to
/// the `hactl` context there.
///
/// # Errors
/// [`InitError`]; then no bundle is there.
pub fn invite(
    home: &Home,
    id: MemberId,
    addrs: Addresses,
    out: &Path,
    now: Timestamp,
) -> Result<(), InitError> {
    let config = Config::load(home).map_err(InitError::Config)?;
    if config.me() == id {
        return Err(InitError::Refused(format!(
            "{} is this member's own number; numbers are never used twice",
            id.0
        )));
    }
    if !home.ca_key().exists() {
        let why = format!("{} is not here: run invite where `init` was run", home.ca_key().display());
        return Err(InitError::Refused(why));
    }
    let member = addrs.into_member(id);
    configuration(home, &config.cluster, &member)?;
    let ca_key = Zeroizing::new(files::read_text(&home.ca_key()).map_err(InitError::File)?);
    let ca = Issued { cert: files::read_text(&home.ca_cert()).map_err(InitError::File)?, key: ca_key };
    let issued = issue(&ca, &member, now)?;
    let endpoint = format!("https://{}", member.api_addr);
    let bundle = Bundle {
        format: BUNDLE_FORMAT,
        ca: ca.cert.clone(),
        cert: issued.cert.clone(),
        key: issued.key.to_string(),
        seal_key: files::read_text(&home.seal_key()).map_err(InitError::File)?,
        cluster: config.cluster,
        member,
    };
    let text = Zeroizing::new(to_toml(&bundle)?);
    files::create(out, text.as_bytes(), Access::Private).map_err(InitError::File)?;
    add_endpoint(home, endpoint)
}

fn add_endpoint(home: &Home, endpoint: String) -> Result<(), InitError> {
    let path = home.hactl();
    let text = files::read_text(&path).map_err(InitError::File)?;
    let mut context: Context =
        document::read(&path.display().to_string(), &text).map_err(InitError::Document)?;
    if !context.endpoints.contains(&endpoint) {
        context.endpoints.push(endpoint);
        files::replace(&path, context_text(&context)?.as_bytes(), Access::Public).map_err(InitError::File)?;
    }
    Ok(())
}

/// Makes a further member's directory from its bundle.
///
/// # Errors
/// [`InitError`]; [`InitError::Exists`] before anything is written.
pub fn join(home: &Home, bundle: &Path) -> Result<Config, InitError> {
    refuse_existing(home)?;
    let text = Zeroizing::new(files::read_text(bundle).map_err(InitError::File)?);
    let mut bundle: Bundle =
        document::read(&bundle.display().to_string(), &text).map_err(InitError::Document)?;
    if bundle.format != BUNDLE_FORMAT {
        let why = format!(
            "the bundle has format {}, this program reads {BUNDLE_FORMAT}: use one version",
            bundle.format
        );
        return Err(InitError::Refused(why));
    }
    let (text, config) = configuration(home, &bundle.cluster, &bundle.member)?;
    let issued = Issued {
        cert: std::mem::take(&mut bundle.cert),
        key: Zeroizing::new(std::mem::take(&mut bundle.key)),
    };
    files::create_dir(home.dir()).map_err(InitError::File)?;
    write_member(home, &bundle.ca, &issued, &bundle.seal_key, &text, true)?;
    Ok(config)
}

fn issue(ca: &Issued, member: &Member, now: Timestamp) -> Result<Issued, InitError> {
    let addrs = [member.member_addr.as_str(), &member.api_addr];
    pki::make_member(ca, MemberId(member.id), &addrs, now).map_err(InitError::Pki)
}

fn refuse_existing(home: &Home) -> Result<(), InitError> {
    let ours =
        [home.config(), home.ca_cert(), home.ca_key(), home.member_key(), home.seal_key(), home.store()];
    match ours.into_iter().find(|path| path.exists()) {
        Some(path) => Err(InitError::Exists(path)),
        None => Ok(()),
    }
}

/// The configuration comes last: a directory without it was not finished and is not run.
fn write_member(
    home: &Home,
    ca: &str,
    issued: &Issued,
    seal_key: &str,
    config: &str,
    with_ca: bool,
) -> Result<(), InitError> {
    if with_ca {
        write_all(&[(home.ca_cert(), ca, Access::Public)])?;
    }
    write_all(&[
        (home.member_key(), issued.key.as_str(), Access::Private),
        (home.member_cert(), &issued.cert, Access::Public),
        (home.seal_key(), seal_key, Access::Private),
        (home.config(), config, Access::Public),
    ])
}

fn write_all(files: &[(PathBuf, &str, Access)]) -> Result<(), InitError> {
    for (path, content, access) in files {
        files::create(path, content.as_bytes(), *access).map_err(InitError::File)?;
    }
    Ok(())
}

fn configuration(home: &Home, cluster: &Cluster, member: &Member) -> Result<(String, Config), InitError> {
    #[derive(Serialize)]
    struct Parts<'a> {
        cluster: &'a Cluster,
        member: &'a Member,
    }
    let tables = to_toml(&Parts { cluster, member })?;
    let text = format!(
        "# Configuration of one member. `ha-supervisord check` checks it; docs/CONFIGURATION.md explains each key.\n\
         # [raft], [history], [flight], [api] and [log] may follow; their defaults are good for a cluster in one site.\n\n{tables}"
    );
    let config = Config::parse(&home.config().display().to_string(), &text).map_err(InitError::Config)?;
    Ok((text, config))
}

fn context_text(context: &Context) -> Result<String, InitError> {
    let body = to_toml(context)?;
    Ok(format!("# Where hactl finds the cluster: `hactl --context FILE` or HACTL_CONFIG=FILE.\n{body}"))
}

fn to_toml(value: &impl Serialize) -> Result<String, InitError> {
    toml::to_string(value).map_err(|error| InitError::Refused(format!("write TOML: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn addresses(base: u16) -> Addresses {
        Addresses {
            member: format!("127.0.0.1:{}", base + 1),
            api: format!("127.0.0.1:{}", base + 2),
            heartbeat: format!("127.0.0.1:{}", base + 3),
            domain: "default".into(),
        }
    }

    fn now() -> Timestamp {
        Timestamp::now()
    }

    #[test]
    fn a_new_cluster_has_private_keys_and_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().join("m1"));
        let config = init(&home, MemberId(1), "demo", addresses(7000), now()).unwrap();
        assert_eq!(Config::load(&home).unwrap(), config);
        for path in [home.ca_key(), home.admin_key(), home.member_key(), home.seal_key()] {
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
        }
        assert!(home.founding().exists());
        let before = std::fs::read(home.ca_key()).unwrap();
        let again = init(&home, MemberId(1), "demo", addresses(7000), now()).unwrap_err();
        assert!(matches!(again, InitError::Exists(_)), "{again}");
        assert_eq!(std::fs::read(home.ca_key()).unwrap(), before);
    }

    #[test]
    fn a_second_member_joins_by_its_bundle_without_the_cas_key() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (Home::new(dir.path().join("m1")), Home::new(dir.path().join("m2")));
        let bundle = dir.path().join("m2.bundle");
        let first = init(&one, MemberId(1), "demo", addresses(7000), now()).unwrap();
        invite(&one, MemberId(2), addresses(7100), &bundle, now()).unwrap();
        assert_eq!(std::fs::metadata(&bundle).unwrap().permissions().mode() & 0o777, 0o600);
        let second = join(&two, &bundle).unwrap();
        assert_eq!(second.cluster, first.cluster);
        assert_eq!(second.me(), MemberId(2));
        assert!(!two.ca_key().exists() && !two.founding().exists());
        let key = |home: &Home| std::fs::read_to_string(home.seal_key()).unwrap();
        assert_eq!(key(&one), key(&two));
        let context = std::fs::read_to_string(one.hactl()).unwrap();
        assert!(context.contains("https://127.0.0.1:7002") && context.contains("https://127.0.0.1:7102"));
        assert!(matches!(join(&two, &bundle), Err(InitError::Exists(_))));
        let elsewhere = invite(&two, MemberId(3), addresses(7200), &dir.path().join("m3.bundle"), now());
        assert!(elsewhere.unwrap_err().to_string().contains("where `init` was run"));
        let own = invite(&one, MemberId(1), addresses(7200), &dir.path().join("m3.bundle"), now());
        assert!(own.unwrap_err().to_string().contains("never used twice"));
    }

    #[test]
    fn bad_addresses_and_bundles_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().join("m1"));
        let bad = Addresses { api: "here".into(), ..addresses(7000) };
        assert!(matches!(init(&home, MemberId(1), "demo", bad, now()), Err(InitError::Config(_))));
        let bundle = dir.path().join("bundle");
        std::fs::write(&bundle, "format = 1\n").unwrap();
        assert!(matches!(join(&home, &bundle), Err(InitError::Document(_))));
        assert!(!home.dir().exists());
    }

    #[test]
    fn a_named_member_listens_everywhere() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().join("m1"));
        let named = Addresses { member: "ha1.example:7101".into(), ..addresses(7000) };
        let config = init(&home, MemberId(1), "demo", named, now()).unwrap();
        assert_eq!(config.member.member_socket().unwrap().to_string(), "[::]:7101");
        assert_eq!(config.member.api_listen, None);
    }
}
