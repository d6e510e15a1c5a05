//! `clouds.yaml`: how somebody enters a cloud, in the file of OpenStack's own clients.
//!
//! Why it exists: whoever works with `openstack --os-cloud NAME` says the same to `hactl` and needs no second account. What it never
//! does: guess who is meant (a key that changes that and is not understood is an error), trust a server without a certificate, or
//! show what is in the file: not even the parser's own words, which quote it.
//!
//! Keys and their meaning: openstacksdk, "Configuring OpenStack SDK Applications", and keystoneauth1's plugins.

use crate::document;
use crate::files::{self, FileError};
use openstack::{Credentials, Domain, Reference, Scope, Settings};
use policies::CloudInterface;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Largest file in bytes. One of a hundred clouds has some 50 KB.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The domain of whoever names none: the first of a Keystone, as for the `openstack` command.
const DOMAIN: &str = "default";
/// Where distributions keep the authorities that the machine trusts (Debian, Fedora, SUSE, Alpine).
const AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why it is not known how to enter a cloud.
#[derive(Debug, thiserror::Error)]
pub enum CloudsError {
    /// There is no file.
    #[error("there is no clouds.yaml; looked for {}", .0.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "))]
    NoFile(Vec<PathBuf>),
    /// One cannot be read.
    #[error("read how to enter the cloud")]
    File(#[source] FileError),
    /// It is no YAML, or not of that form. What is wrong is not told: it would show what is there.
    #[error("{}: line {line}: this is not the YAML of a clouds.yaml", .file.display())]
    Yaml {
        /// The file.
        file: PathBuf,
        /// Where.
        line: u64,
    },
    /// The cloud is not in it.
    #[error("{}: there is no cloud {name:?}{meant}", .file.display())]
    NoCloud {
        /// The file.
        file: PathBuf,
        /// What was asked for.
        name: String,
        /// What was probably meant.
        meant: String,
    },
    /// A key is missing, not understood, or says what is not done.
    #[error("{}: cloud {cloud}: key {key}: {why}", .file.display())]
    Key {
        /// The file.
        file: PathBuf,
        /// The cloud.
        cloud: String,
        /// The key.
        key: String,
        /// What is wrong.
        why: String,
    },
}

/// How to get a token that says who one is.
pub enum Entrance {
    /// From Keystone.
    Keystone(Settings),
    /// It is in the file.
    Token(Zeroizing<String>),
}

impl fmt::Debug for Entrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Entrance::Keystone(settings) => write!(f, "Keystone({settings:?})"),
            Entrance::Token(_) => f.write_str("Token(..)"),
        }
    }
}

/// Where to look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// In this order; the first file that is there counts.
    files: Vec<PathBuf>,
    home: Option<PathBuf>,
}

impl Places {
    /// As OpenStack's own clients: `OS_CLIENT_CONFIG_FILE`, this directory, the user's, the machine's.
    pub fn of(environment: impl Fn(&str) -> Option<std::ffi::OsString>) -> Places {
        let set = |name: &str| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = set("HOME");
        let named = set("OS_CLIENT_CONFIG_FILE");
        let user = home.as_ref().map(|home| home.join(".config/openstack/clouds.yaml"));
        let fixed = ["clouds.yaml", "/etc/openstack/clouds.yaml"].map(PathBuf::from);
        let [here, machine] = fixed;
        Places { files: named.into_iter().chain([here]).chain(user).chain([machine]).collect(), home }
    }

    /// How to enter this cloud.
    ///
    /// # Errors
    /// [`CloudsError`]; it shows nothing secret.
    pub fn entrance(&self, cloud: &str) -> Result<Entrance, CloudsError> {
        let file = self.files.iter().find(|file| file.exists());
        let file = file.ok_or_else(|| CloudsError::NoFile(self.files.clone()))?;
        let secure = file.with_file_name("secure.yaml");
        let mut entries = read(file)?;
        let mut described = entries.remove(cloud).ok_or_else(|| no_cloud(file, cloud, &entries))?;
        if secure.exists() {
            described.merge(read(&secure)?.remove(cloud).unwrap_or_default());
        }
        let bad =
            |(key, why): Bad| CloudsError::Key { file: file.clone(), cloud: cloud.to_owned(), key, why };
        let Meant { keystone, cacert, identity } = described.meant().map_err(bad)?;
        let credentials = match identity {
            Identity::Enter(credentials) => credentials,
            Identity::Shown(token) => return Ok(Entrance::Token(token)),
        };
        let ca = self.authority(&keystone, cacert.as_deref())?;
        let (region, interface) = (None, CloudInterface::Public);
        Ok(Entrance::Keystone(Settings { keystone, ca, region, interface, credentials }))
    }

    /// Who signed Keystone's certificate: whom the file names, else whom the machine trusts.
    fn authority(&self, keystone: &str, cacert: Option<&str>) -> Result<Option<String>, CloudsError> {
        let path = match (cacert, &self.home) {
            (Some(path), Some(home)) => {
                Some(path.strip_prefix("~/").map_or(path.into(), |rest| home.join(rest)))
            }
            (Some(path), None) => Some(path.into()),
            (None, _) if keystone.starts_with("https:") => {
                AUTHORITIES.iter().map(PathBuf::from).find(|path| path.exists())
            }
            (None, _) => None,
        };
        path.map(|path| files::read_text(&path).map_err(CloudsError::File)).transpose()
    }
}

fn no_cloud(file: &Path, name: &str, entries: &BTreeMap<String, Entry>) -> CloudsError {
    let names = || entries.keys().map(String::as_str);
    let meant = match document::nearest(name, names()) {
        Some(near) => format!("; did you mean `{near}`?"),
        None => format!("; there are: {}", names().collect::<Vec<_>>().join(", ")),
    };
    CloudsError::NoCloud { file: file.to_owned(), name: name.to_owned(), meant }
}

fn read(file: &Path) -> Result<BTreeMap<String, Entry>, CloudsError> {
    let text = Zeroizing::new(files::read_text_of(file, FILE_BYTES_MAX).map_err(CloudsError::File)?);
    parse(&text).map_err(|line| CloudsError::Yaml { file: file.to_owned(), line })
}

/// # Errors
/// The line of the first mistake.
fn parse(text: &str) -> Result<BTreeMap<String, Entry>, u64> {
    let read = serde_saphyr::from_str::<Document>(text);
    read.map(|document| document.clouds)
        .map_err(|error| error.location().map_or(1, |location| location.line()))
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    clouds: BTreeMap<String, Entry>,
}

/// A value of the file; whatever it is, it may be secret.
type Secret = Zeroizing<String>;

/// The entry of a cloud: what says who one is and whom one trusts, and the names of all other keys.
#[derive(Default)]
struct Entry {
    auth: BTreeMap<String, Secret>,
    settings: BTreeMap<String, Secret>,
    others: BTreeSet<String>,
}

/// Keys of an entry that have a value for us.
const SETTINGS: [&str; 5] = ["auth_type", "cacert", "verify", "insecure", "identity_api_version"];

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entry, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a cloud")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Entry, M::Error> {
                let mut entry = Entry::default();
                while let Some(key) = map.next_key::<String>()? {
                    let key = normal(&key);
                    if key == "auth" {
                        let auth = map.next_value::<Option<BTreeMap<String, Option<String>>>>()?;
                        let set = auth.unwrap_or_default().into_iter();
                        entry.auth =
                            set.filter_map(|(key, value)| Some((normal(&key), value?.into()))).collect();
                    } else if SETTINGS.contains(&key.as_str()) {
                        let value = map.next_value::<Option<String>>()?;
                        entry.settings.extend(value.map(|value| (key, value.into())));
                    } else {
                        map.next_value::<IgnoredAny>()?;
                        entry.others.insert(key);
                    }
                }
                Ok(entry)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// OpenStack's own clients take `auth-url` for `auth_url`.
fn normal(key: &str) -> String {
    key.replace('-', "_")
}

/// What an entry comes to.
struct Meant {
    keystone: String,
    cacert: Option<String>,
    identity: Identity,
}

enum Identity {
    Enter(Credentials),
    Shown(Secret),
}

/// A key, and what is wrong with it.
type Bad = (String, String);

fn bad(key: &str, why: impl Into<String>) -> Bad {
    (key.to_owned(), why.into())
}

impl Entry {
    /// What `secure.yaml` says counts more.
    fn merge(&mut self, secure: Entry) {
        self.auth.extend(secure.auth);
        self.settings.extend(secure.settings);
        self.others.extend(secure.others);
    }

    fn meant(self) -> Result<Meant, Bad> {
        let setting = |key: &str| self.settings.get(key).map(|value| value.to_ascii_lowercase());
        if setting("verify").is_some_and(|value| ["false", "no", "off", "n", "0"].contains(&value.as_str())) {
            return Err(bad("verify", NOT_UNVERIFIED));
        }
        if setting("insecure").is_some_and(|value| ["true", "yes", "on", "y", "1"].contains(&value.as_str()))
        {
            return Err(bad("insecure", NOT_UNVERIFIED));
        }
        if setting("identity_api_version").is_some_and(|version| !version.starts_with('3')) {
            return Err(bad("identity_api_version", "only version 3 of Keystone's API is spoken"));
        }
        self.others.iter().try_for_each(|key| is_harmless(key))?;
        let kind = setting("auth_type");
        let kind = kind.as_deref().unwrap_or(match self.auth.contains_key("token") {
            true => "token",
            false => "password",
        });
        let mut auth = Auth(self.auth);
        let keystone = auth.needed("auth_url")?.to_string();
        let identity = match kind {
            "password" | "v3password" => {
                let (user, password) = (auth.user()?, auth.needed("password")?);
                let scope = auth.project()?.ok_or_else(|| bad("auth.project_name", NO_PROJECT))?;
                Identity::Enter(Credentials::Password { user, password, scope: Scope::Project(scope) })
            }
            "v3applicationcredential" => {
                let id = auth.needed("application_credential_id")?.to_string();
                let secret = auth.needed("application_credential_secret")?;
                Identity::Enter(Credentials::Application { id, secret })
            }
            "token" | "v3token" => {
                let token = auth.needed("token")?;
                match auth.project()? {
                    Some(project) => {
                        Identity::Enter(Credentials::Token { token, scope: Scope::Project(project) })
                    }
                    None => Identity::Shown(token),
                }
            }
            _ => {
                return Err(bad(
                    "auth_type",
                    "only password, v3applicationcredential and token are understood",
                ));
            }
        };
        auth.done(kind)?;
        let cacert = self.settings.get("cacert").map(|path| path.to_string());
        Ok(Meant { keystone, cacert, identity })
    }
}

const NOT_UNVERIFIED: &str = "whoever stands between would get the password and the token, so nothing is sent to a server that \
                              is not verified; name the authority that signed its certificate: `cacert`";
const NO_PROJECT: &str = "it is missing; it is as a project that one is a tenant";

/// Keys outside of `auth` that would change who one is, or where one enters, and are not understood there. All other keys are about
/// services that are not spoken to.
fn is_harmless(key: &str) -> Result<(), Bad> {
    let identity =
        ["application_credential_", "default_domain_", "domain_", "project_", "tenant_", "user_", "trust_"];
    if identity.iter().any(|prefix| key.starts_with(prefix))
        || ["auth_token", "auth_url", "passcode", "password", "system_scope", "token", "username"]
            .contains(&key)
    {
        return Err(bad(key, "it is understood below `auth` only"));
    }
    match key {
        "profile" | "cloud" => {
            Err(bad(key, "profiles of vendors are not read; write `auth_url` and `cacert` out"))
        }
        "auth_methods" => Err(bad(key, "entering by several means at once is not supported")),
        "cert" | "key" => Err(bad(key, "client certificates for Keystone are not supported")),
        _ => Ok(()),
    }
}

/// What is left of `auth`.
struct Auth(BTreeMap<String, Secret>);

impl Auth {
    fn take(&mut self, key: &str) -> Option<Secret> {
        self.0.remove(key)
    }

    fn needed(&mut self, key: &str) -> Result<Secret, Bad> {
        self.take(key).ok_or_else(|| bad(&format!("auth.{key}"), "it is missing"))
    }

    fn user(&mut self) -> Result<Reference, Bad> {
        let domain = self.domain("user_domain");
        match self.either("user_id", "username")? {
            Some(Either::Id(id)) => Ok(Reference::Id(id)),
            Some(Either::Name(name)) => Ok(Reference::Name { name, domain: domain? }),
            None => Err(bad("auth.username", "it is missing")),
        }
    }

    fn project(&mut self) -> Result<Option<Reference>, Bad> {
        let domain = self.domain("project_domain");
        self.default_domain_is_used();
        Ok(match self.either("project_id", "project_name")? {
            Some(Either::Id(id)) => Some(Reference::Id(id)),
            Some(Either::Name(name)) => Some(Reference::Name { name, domain: domain? }),
            None => None,
        })
    }

    fn domain(&mut self, kind: &str) -> Result<Domain, Bad> {
        let own = self.either(&format!("{kind}_id"), &format!("{kind}_name"))?;
        let default = |key: &str| self.0.get(key).map(|value| value.to_string());
        Ok(match (own, default("default_domain_id"), default("default_domain_name")) {
            (Some(Either::Id(id)), ..) | (None, Some(id), _) => Domain::Id(id),
            (Some(Either::Name(name)), ..) | (None, None, Some(name)) => Domain::Name(name),
            (None, None, None) => Domain::Id(DOMAIN.to_owned()),
        })
    }

    /// The user's domain is read before the project's.
    fn default_domain_is_used(&mut self) {
        self.take("default_domain_id");
        self.take("default_domain_name");
    }

    fn either(&mut self, id: &str, name: &str) -> Result<Option<Either>, Bad> {
        match (self.take(id), self.take(name)) {
            // An id says more than a name, and a name beside it that is another's would not be seen.
            (Some(_), Some(_)) => Err(bad(&format!("auth.{name}"), format!("give either this or `{id}`"))),
            (Some(id), None) => Ok(Some(Either::Id(id.to_string()))),
            (None, Some(name)) => Ok(Some(Either::Name(name.to_string()))),
            (None, None) => Ok(None),
        }
    }

    /// Nothing was said that was not understood.
    fn done(self, kind: &str) -> Result<(), Bad> {
        match self.0.into_keys().next() {
            Some(key) => {
                Err(bad(&format!("auth.{key}"), format!("it is not understood with the auth_type {kind}")))
            }
            None => Ok(()),
        }
    }
}

enum Either {
    Id(String),
    Name(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: &str = "
clouds:
  pass:
    region_name: RegionOne
    identity_api_version: 3
    compute_api_version: '2.1'
    networks: [{ name: x }]
    cacert: /etc/ssl/mine.pem
    auth: &base
      auth_url: https://cloud:5000/v3
      username: eve
      password: 0123
      project_name: shop
      user_domain_name: Users
  ids: { auth: { auth-url: http://c/v3, user_id: u1, password: yes, project_id: p1, user_domain_id: ~ } }
  domains: { auth: { auth_url: http://c, username: eve, password: x, project_name: p, default_domain_name: D } }
  app:
    auth_type: v3applicationcredential
    auth: { auth_url: http://c, application_credential_id: a1, application_credential_secret: geheim }
  token: { auth_type: token, auth: { auth_url: http://c, token: geheim } }
  scoped: { auth_type: v3token, auth: { auth_url: http://c, token: geheim, project_name: p, project_domain_id: d } }
  bare: { auth: { auth_url: http://c, username: eve, password: geheim } }
  open: { verify: false, auth: { auth_url: http://c } }
  lax: { insecure: True, auth: { auth_url: http://c } }
  old: { identity_api_version: 2.0, auth: { auth_url: http://c } }
  vendor: { profile: rackspace, auth: { username: eve } }
  above: { username: eve, auth: { auth_url: http://c } }
  sso: { auth_type: v3oidcpassword, auth: { auth_url: http://c } }
  trust: { auth: { auth_url: http://c, username: eve, password: geheim, project_name: p, trust_id: t } }
  both: { auth: { auth_url: http://c, username: eve, user_id: u, password: geheim, project_name: p } }
  mixed: { auth_type: v3applicationcredential, auth: { auth_url: http://c, application_credential_id: a, application_credential_secret: geheim, project_id: p } }
";

    fn meant(name: &str) -> Result<String, String> {
        let entry = parse(ALL).unwrap().remove(name).unwrap();
        let told = |it: Meant| match it.identity {
            Identity::Enter(credentials) => format!("{} {credentials:?}", it.keystone),
            Identity::Shown(token) => format!("shown {}", *token),
        };
        entry.meant().map(told).map_err(|(key, why)| format!("{key}: {why}"))
    }

    #[test]
    fn every_way_to_enter_is_read() {
        for (name, expected) in [
            (
                "pass",
                "https://cloud:5000/v3 Password(Name { name: \"eve\", domain: Name(\"Users\") }, Project(Name { name: \"shop\", domain: Id(\"default\") }))",
            ),
            ("ids", "http://c/v3 Password(Id(\"u1\"), Project(Id(\"p1\")))"),
            (
                "domains",
                "http://c Password(Name { name: \"eve\", domain: Name(\"D\") }, Project(Name { name: \"p\", domain: Name(\"D\") }))",
            ),
            ("app", "http://c Application(a1)"),
            ("token", "shown geheim"),
            ("scoped", "http://c Token(Project(Name { name: \"p\", domain: Id(\"d\") }))"),
        ] {
            assert_eq!(meant(name).as_deref(), Ok(expected), "{name}");
        }
    }

    #[test]
    fn what_looks_like_a_number_or_a_truth_is_the_text_that_was_written() {
        let mut read = parse(ALL).unwrap();
        for (name, password) in [("pass", "0123"), ("ids", "yes")] {
            assert_eq!(read.remove(name).unwrap().auth["password"].as_str(), password);
        }
    }

    #[test]
    fn what_would_change_who_one_is_and_is_not_understood_is_named() {
        for (name, key) in [
            ("bare", "auth.project_name: it is missing"),
            ("open", "verify: whoever stands between"),
            ("lax", "insecure: whoever stands between"),
            ("old", "identity_api_version: "),
            ("vendor", "profile: "),
            ("above", "username: it is understood below `auth` only"),
            ("sso", "auth_type: only password, "),
            ("trust", "auth.trust_id: it is not understood"),
            ("both", "auth.username: give either"),
            ("mixed", "auth.project_id: it is not understood with the auth_type v3applicationcredential"),
        ] {
            let said = meant(name).unwrap_err();
            assert!(said.starts_with(key) && !said.contains("geheim"), "{name}: {said}");
        }
    }

    #[test]
    fn the_first_file_counts_and_secure_yaml_beside_it_counts_more() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join(".config/openstack");
        std::fs::create_dir_all(&home).unwrap();
        let environment = |name: &str| match name {
            "HOME" => Some(dir.path().as_os_str().to_owned()),
            "OS_CLIENT_CONFIG_FILE" => Some(dir.path().join("named/clouds.yaml").into_os_string()),
            _ => None,
        };
        let places = Places::of(environment);
        assert_eq!(places.files[0], dir.path().join("named/clouds.yaml"));
        assert_eq!(
            places.files[1..],
            [PathBuf::from("clouds.yaml"), home.join("clouds.yaml"), "/etc/openstack/clouds.yaml".into()]
        );
        let nowhere = places.entrance("c").unwrap_err().to_string();
        assert!(nowhere.starts_with("there is no clouds.yaml; looked for "), "{nowhere}");

        let token = |token: &str| {
            format!(
                "clouds:\n  c:\n    auth_type: token\n    auth:\n      auth_url: http://c\n      token: {token}\n"
            )
        };
        std::fs::write(home.join("clouds.yaml"), token("one")).unwrap();
        let shown = || match places.entrance("c").unwrap() {
            Entrance::Token(token) => token.to_string(),
            Entrance::Keystone(other) => panic!("{other:?}"),
        };
        assert_eq!(shown(), "one");
        std::fs::write(home.join("secure.yaml"), "clouds: { c: { auth: { token: two } } }").unwrap();
        assert_eq!(shown(), "two");
        std::fs::create_dir(dir.path().join("named")).unwrap();
        std::fs::write(dir.path().join("named/clouds.yaml"), token("three")).unwrap();
        assert_eq!(shown(), "three", "no secure.yaml is beside it");
        assert!(
            places
                .entrance("d")
                .unwrap_err()
                .to_string()
                .ends_with("there is no cloud \"d\"; did you mean `c`?")
        );
    }

    #[test]
    fn a_mistake_is_told_by_its_line_and_shows_nothing() {
        for text in
            ["clouds:\n  c:\n    auth: { password: geheim\n", "clouds:\n  c:\n    auth: [geheim]\n", "geheim"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("clouds.yaml");
        std::fs::write(&file, "clouds:\n  c:\n    auth: [geheim]\n").unwrap();
        let said = format!("{:?} {0}", read(&file).err().unwrap());
        assert!(said.contains("line 3") && !said.contains("geheim"), "{said}");
        std::fs::write(&file, " ".repeat(usize::try_from(FILE_BYTES_MAX).unwrap() + 1)).unwrap();
        assert!(matches!(read(&file), Err(CloudsError::File(FileError::TooLarge { .. }))));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,200}", deep in 0usize..3000) {
            let nested = format!("clouds: {}{}", "[".repeat(deep), "]".repeat(deep));
            let mapped = format!("clouds: {{ c: {{ auth: {{ a: {text} }}, {text} }} }}");
            let lines = format!("clouds:\n  c:\n    auth:\n      {text}\n");
            for text in [text, nested, mapped, lines] {
                if let Ok(entries) = parse(&text) {
                    entries.into_values().for_each(|entry| drop(entry.meant()));
                }
            }
        }
    }
}
