//! Requests about providers: which there are, and who relies on each.
//!
//! Why it exists: a provider can be deleted once nothing relies on it, and that must be seen before. What it never does:
//! show a token, sealed or not.

use super::ApiState;
use super::facts::Facts;
use super::read::facts;
use crate::auth::Caller;
use axum::extract::State;
use axum::{Extension, Json};
use policies::{FenceDevice, Provider, ProviderId, ProviderKind};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

/// A provider in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProviderLine {
    /// Its name.
    #[schema(value_type = String)]
    pub name: ProviderId,
    /// What it is, as in its document.
    pub kind: String,
    /// Where it is.
    pub address: String,
    /// Nodes with a port at it.
    pub nodes: u64,
    /// Instances with a volume or a boot source at it.
    pub instances: u64,
}

/// All providers.
#[utoipa::path(get, path = "/v1/providers", responses((status = 200, body = Vec<ProviderLine>)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
) -> Json<Vec<ProviderLine>> {
    Json(facts(&state, &caller, |facts| facts.providers()))
}

impl Facts<'_> {
    /// `provider list`.
    pub fn providers(&self) -> Vec<ProviderLine> {
        // One pass over each list, for a count by provider would be a pass for each.
        let (mut nodes, mut instances) = (BTreeMap::new(), BTreeMap::new());
        for record in self.state.nodes.values() {
            let clouds = record.node.fencing.iter().filter_map(FenceDevice::cloud);
            let used: BTreeSet<_> =
                record.node.ports.iter().map(|port| &port.provider).chain(clouds).collect();
            used.into_iter().for_each(|name| *nodes.entry(name).or_insert(0u64) += 1);
        }
        for record in self.state.instances.values() {
            let instance = &record.instance;
            let volumes = instance.volumes.iter().map(|volume| &volume.provider);
            let used: BTreeSet<_> = volumes.chain(instance.boot.iter().map(|boot| &boot.provider)).collect();
            used.into_iter().for_each(|name| *instances.entry(name).or_insert(0u64) += 1);
        }
        let line = |Provider { name, kind }: &Provider| {
            let (word, address) = match kind {
                ProviderKind::Rack { url, .. } => ("rack", place(url)),
                ProviderKind::Ovsdb { url, .. } => ("ovsdb", place(url)),
                ProviderKind::Boot { urls, .. } => {
                    ("boot", urls.iter().map(|url| url.authority()).collect::<Vec<_>>().join(" "))
                }
                ProviderKind::Exec { program, .. } => ("exec", program.to_string()),
                ProviderKind::Iscsi { url, .. } => ("iscsi", place(url)),
                ProviderKind::Openstack { cloud, .. } => ("openstack", place(&cloud.keystone)),
            };
            ProviderLine {
                name: name.clone(),
                kind: word.to_owned(),
                address,
                nodes: nodes.get(name).copied().unwrap_or(0),
                instances: instances.get(name).copied().unwrap_or(0),
            }
        };
        self.state.providers.values().map(line).collect()
    }
}

/// The URL without what could be a secret in it: a user with a password (RFC 3986 §3.2.1).
fn place(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    if scheme.is_empty() { host.to_owned() } else { format!("{scheme}://{host}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_holds_no_password() {
        for (url, shown) in [
            ("http://127.0.0.1:7300", "http://127.0.0.1:7300"),
            ("https://ha:pa@ss@array.lan/v1?token=x", "https://array.lan"),
            ("array.lan", "array.lan"),
            ("", ""),
        ] {
            assert_eq!(place(url), shown);
        }
    }
}
