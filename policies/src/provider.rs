//! Who keeps volumes, networks and boot sources, as the operator describes them.
//!
//! Why it exists: a provider is described once, for whoever seals its secret, shows it, checks it and uses it. What it never does:
//! reach one.

use crate::describe::{LIST_MAX, TEXT_MAX};
use crate::http_url::HttpUrl;
use crate::image::Image;
use crate::words::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Images of one boot service, or deployments of one cloud. Bounds the snapshot: at 1 kB each, 1 MB.
const IMAGES_MAX: usize = 1000;
/// Longest text for cloud-init, in bytes: what clouds take (Nova's limit is 65,535 in base 64).
const USER_DATA_MAX: usize = 48 * 1024;

/// A configured back end for storage, network or boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ProviderDocument", into = "ProviderDocument")]
pub struct Provider {
    /// Its name.
    pub name: ProviderId,
    /// What it is.
    pub kind: ProviderKind,
}

/// The kinds of back end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderKind {
    /// The emulated rack's storage array, switch and boot service.
    Rack {
        /// Base URL, e.g. `http://127.0.0.1:7300`.
        url: String,
        /// Bearer token, sealed.
        token: Sealed,
    },
    /// A switch whose configuration is an OVSDB database (Open vSwitch, RFC 7047).
    Ovsdb {
        /// `tcp://host:port` or `ssl://host:port`.
        url: String,
        /// VLAN of closed ports; nothing else may be in it.
        park_vlan: u16,
        /// For `ssl`.
        tls: Option<OvsdbTls>,
    },
    /// The members' own boot service (`docs/drivers/boot.md`).
    Boot {
        /// Where nodes reach it: `http://host:port` of each member.
        urls: Vec<HttpUrl>,
        /// What it serves, by name.
        images: BTreeMap<String, Image>,
    },
    /// A site's own program, run for each question (`docs/drivers/exec.md`).
    Exec {
        /// Its name in each member's directory of programs.
        program: ProgramName,
        /// What it is told with each question, in its own words.
        settings: BTreeMap<String, String>,
        /// What it is told that nobody else may know, sealed.
        secret: Option<Sealed>,
    },
    /// A storage host on which `ha-storage` runs beside tgt (`docs/drivers/iscsi.md`).
    Iscsi {
        /// `https://host:port`; `http` on loopback only.
        url: String,
        /// The authority that signed its certificate, PEM; for `https`.
        ca: Option<String>,
        /// Bearer token, sealed.
        token: Sealed,
    },
    /// An OpenStack cloud (`docs/openstack.md`).
    Openstack {
        /// Where its Keystone is, and who we are there.
        cloud: CloudAccess,
        /// What is entered with, sealed.
        secret: Sealed,
        /// What it can deploy, by name.
        deployments: BTreeMap<String, Deployment>,
    },
}

/// What a cloud deploys. In each text `{node}`, `{instance}` and `{epoch}` are filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// Ironic's `instance_info`: `image_source`, `boot_iso`, `capabilities`, ...
    pub instance_info: BTreeMap<String, String>,
    /// For cloud-init. No place for secrets: it is shown, and stored as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
}

/// How a cloud is reached and entered, but for the secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudAccess {
    /// Keystone's address: `https://host:port/v3`, or `http` in a network that nobody else reads.
    pub keystone: String,
    /// The authority that signed the certificates of all its services, PEM; for `https`.
    pub ca: Option<String>,
    /// Which region of its catalog; may be absent if there is only one.
    pub region: Option<String>,
    /// Which of its services' addresses.
    pub interface: CloudInterface,
    /// As whom it is entered.
    pub user: CloudUser,
}

impl CloudAccess {
    fn check(&self) -> Result<(), String> {
        let CloudAccess { keystone, ca, region, interface: _, user } = self;
        let names: Vec<&String> = match user {
            CloudUser::ApplicationCredential { id } => vec![id],
            CloudUser::Password { name, domain, project, project_domain } => {
                vec![name, domain, project, project_domain]
            }
        };
        if names.into_iter().chain(region).any(|text| text.is_empty() || is_long(text)) {
            return Err(format!("a text of user, or region, is empty or has more than {TEXT_MAX} bytes"));
        }
        check_url("keystone", "https://host:port/v3", keystone, ca.as_ref())
    }
}

fn is_long(text: &str) -> bool {
    text.len() > TEXT_MAX
}

/// An address with an authority is HTTPS, and one without is not.
fn check_url(key: &str, form: &str, url: &str, ca: Option<&String>) -> Result<(), String> {
    match (url.split_once("://"), ca) {
        (Some(("https", _)), Some(_)) | (Some(("http", _)), None) => Ok(()),
        (Some(("https", _)), None) => Err(format!("{key} is https://, which needs `ca`")),
        (Some(("http", _)), Some(_)) => {
            Err(format!("{key} is http://, which uses no `ca`; did you mean https://?"))
        }
        (_, _) => Err(format!("{key} has to be {form}")),
    }
}

/// Which of the addresses of a cloud's service is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CloudInterface {
    /// For everybody.
    #[default]
    Public,
    /// For services of the cloud.
    Internal,
    /// For administrators; few services still have one of its own.
    Admin,
}

impl CloudInterface {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if wants a reference")]
    fn is_public(&self) -> bool {
        *self == CloudInterface::Public
    }
}

/// As whom a cloud is entered (Identity API v3). The provider's `secret` goes with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case", deny_unknown_fields)]
pub enum CloudUser {
    /// An application credential, whose project and roles were fixed when it was made.
    ApplicationCredential {
        /// Its id.
        id: String,
    },
    /// A user with a password.
    Password {
        /// The user's name.
        name: String,
        /// Id of the user's domain.
        #[serde(default = "default_domain")]
        domain: String,
        /// Name of the project for which the user enters.
        project: String,
        /// Id of the project's domain.
        #[serde(default = "default_domain")]
        project_domain: String,
    },
}

fn default_domain() -> String {
    "default".to_owned()
}

/// How an OVSDB server is told who we are, and who it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OvsdbTls {
    /// The authority that signed the switch's certificate, PEM.
    pub ca: String,
    /// Our certificate, PEM.
    pub certificate: String,
    /// Its key, PEM, sealed.
    pub key: Sealed,
}

/// A provider as it is written: one flat table whose `kind` says which other keys it has. (Serde cannot refuse unknown
/// keys in a flattened enum.)
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum ProviderDocument {
    Rack {
        name: ProviderId,
        url: String,
        token: Sealed,
    },
    Ovsdb {
        name: ProviderId,
        url: String,
        park_vlan: u16,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tls: Option<OvsdbTls>,
    },
    Boot {
        name: ProviderId,
        urls: Vec<HttpUrl>,
        images: BTreeMap<String, Image>,
    },
    Exec {
        name: ProviderId,
        program: ProgramName,
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        settings: BTreeMap<String, String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        secret: Option<Sealed>,
    },
    Iscsi {
        name: ProviderId,
        url: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ca: Option<String>,
        token: Sealed,
    },
    Openstack {
        name: ProviderId,
        keystone: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ca: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        region: Option<String>,
        #[serde(default, skip_serializing_if = "CloudInterface::is_public")]
        interface: CloudInterface,
        user: CloudUser,
        secret: Sealed,
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        deployments: BTreeMap<String, Deployment>,
    },
}

impl ProviderKind {
    /// Where nodes reach the boot service and what it serves, if it is one.
    pub fn boot_service(&self) -> Option<(&[HttpUrl], &BTreeMap<String, Image>)> {
        match self {
            ProviderKind::Boot { urls, images } => Some((urls, images)),
            ProviderKind::Rack { .. }
            | ProviderKind::Ovsdb { .. }
            | ProviderKind::Exec { .. }
            | ProviderKind::Iscsi { .. }
            | ProviderKind::Openstack { .. } => None,
        }
    }

    /// Why it cannot be used, as far as that shows without asking it. Secrets and certificates are looked at by whoever uses them.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            ProviderKind::Rack { .. } => Ok(()),
            ProviderKind::Boot { urls, images } => {
                if !(1..=LIST_MAX).contains(&urls.len()) {
                    return Err(format!("urls has to name 1 to {LIST_MAX} members' boot services"));
                }
                urls.iter().try_for_each(HttpUrl::check_no_path).map_err(|why| format!("url {why}"))?;
                if images.len() > IMAGES_MAX || images.keys().any(|name| is_long(name)) {
                    return Err(format!(
                        "more than {IMAGES_MAX} images, or a name of more than {TEXT_MAX} bytes"
                    ));
                }
                images
                    .iter()
                    .try_for_each(|(name, image)| image.check().map_err(|why| format!("image {name}: {why}")))
            }
            ProviderKind::Exec { settings, .. } => {
                let mut texts = settings.iter().flat_map(|(key, value)| [key, value]);
                match settings.len() > LIST_MAX || texts.any(|text| is_long(text)) {
                    true => {
                        Err(format!("more than {LIST_MAX} settings, or one has more than {TEXT_MAX} bytes"))
                    }
                    false => Ok(()),
                }
            }
            ProviderKind::Iscsi { url, ca, .. } => check_url("url", "https://host:port", url, ca.as_ref()),
            ProviderKind::Openstack { cloud, deployments, .. } => {
                let pairs = deployments.values().flat_map(|it| &it.instance_info);
                let mut texts = pairs.flat_map(|(key, value)| [key, value]).chain(deployments.keys());
                if deployments.len() > IMAGES_MAX || texts.any(|text| is_long(text)) {
                    return Err(format!(
                        "more than {IMAGES_MAX} deployments, or a text of one has more than {TEXT_MAX} bytes"
                    ));
                }
                let mut data = deployments.values().filter_map(|it| it.user_data.as_ref());
                if data.any(|text| text.len() > USER_DATA_MAX) {
                    return Err(format!("user_data has more than {USER_DATA_MAX} bytes"));
                }
                cloud.check()
            }
            ProviderKind::Ovsdb { park_vlan, .. } if !(1..=4094).contains(park_vlan) => {
                Err("park_vlan is not one of 1 to 4094".to_owned())
            }
            ProviderKind::Ovsdb { url, tls, .. } => Err(match (url.split_once("://"), tls) {
                (Some(("tcp", _)), None) | (Some(("ssl", _)), Some(_)) => return Ok(()),
                (Some(("tcp", _)), Some(_)) => "url is tcp://, which uses no `tls`; did you mean ssl://?",
                (Some(("ssl", _)), None) => "url is ssl://, which needs `tls` (ca, certificate, key)",
                (_, _) => "url has to be tcp://host:port or ssl://host:port",
            }
            .to_owned()),
        }
    }

    /// Its secret, if it has one.
    pub fn secret(&self) -> Option<&Sealed> {
        match self {
            ProviderKind::Rack { token, .. } => Some(token),
            ProviderKind::Ovsdb { tls, .. } => tls.as_ref().map(|tls| &tls.key),
            ProviderKind::Boot { .. } => None,
            ProviderKind::Exec { secret, .. } => secret.as_ref(),
            ProviderKind::Iscsi { token, .. } => Some(token),
            ProviderKind::Openstack { secret, .. } => Some(secret),
        }
    }

    /// The same, to be sealed.
    pub fn secret_mut(&mut self) -> Option<&mut Sealed> {
        match self {
            ProviderKind::Rack { token, .. } => Some(token),
            ProviderKind::Ovsdb { tls, .. } => tls.as_mut().map(|tls| &mut tls.key),
            ProviderKind::Boot { .. } => None,
            ProviderKind::Exec { secret, .. } => secret.as_mut(),
            ProviderKind::Iscsi { token, .. } => Some(token),
            ProviderKind::Openstack { secret, .. } => Some(secret),
        }
    }
}

impl From<ProviderDocument> for Provider {
    fn from(document: ProviderDocument) -> Self {
        match document {
            ProviderDocument::Rack { name, url, token } => {
                Provider { name, kind: ProviderKind::Rack { url, token } }
            }
            ProviderDocument::Ovsdb { name, url, park_vlan, tls } => {
                Provider { name, kind: ProviderKind::Ovsdb { url, park_vlan, tls } }
            }
            ProviderDocument::Boot { name, urls, images } => {
                Provider { name, kind: ProviderKind::Boot { urls, images } }
            }
            ProviderDocument::Exec { name, program, settings, secret } => {
                Provider { name, kind: ProviderKind::Exec { program, settings, secret } }
            }
            ProviderDocument::Iscsi { name, url, ca, token } => {
                Provider { name, kind: ProviderKind::Iscsi { url, ca, token } }
            }
            ProviderDocument::Openstack {
                name,
                keystone,
                ca,
                region,
                interface,
                user,
                secret,
                deployments,
            } => {
                let cloud = CloudAccess { keystone, ca, region, interface, user };
                Provider { name, kind: ProviderKind::Openstack { cloud, secret, deployments } }
            }
        }
    }
}

impl From<Provider> for ProviderDocument {
    fn from(Provider { name, kind }: Provider) -> Self {
        match kind {
            ProviderKind::Rack { url, token } => ProviderDocument::Rack { name, url, token },
            ProviderKind::Ovsdb { url, park_vlan, tls } => {
                ProviderDocument::Ovsdb { name, url, park_vlan, tls }
            }
            ProviderKind::Boot { urls, images } => ProviderDocument::Boot { name, urls, images },
            ProviderKind::Exec { program, settings, secret } => {
                ProviderDocument::Exec { name, program, settings, secret }
            }
            ProviderKind::Iscsi { url, ca, token } => ProviderDocument::Iscsi { name, url, ca, token },
            ProviderKind::Openstack { cloud, secret, deployments } => {
                let CloudAccess { keystone, ca, region, interface, user } = cloud;
                ProviderDocument::Openstack {
                    name,
                    keystone,
                    ca,
                    region,
                    interface,
                    user,
                    secret,
                    deployments,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_a_flat_table_and_unknown_keys_are_refused() {
        let text = "name = \"r\"\nkind = \"rack\"\nurl = \"http://127.0.0.1:1\"\ntoken = \"t\"\n";
        let provider: Provider = toml::from_str(text).unwrap();
        assert_eq!(provider.name.as_str(), "r");
        assert_eq!(toml::from_str::<Provider>(&toml::to_string(&provider).unwrap()), Ok(provider));
        assert!(toml::from_str::<Provider>(&format!("{text}urll = 1\n")).is_err());
    }
}
