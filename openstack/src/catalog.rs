//! Where the services are: Keystone's catalog.
//!
//! Why it exists: clouds name the same service in several ways and offer it at several addresses. What it never does: guess
//! between two regions.

use crate::version::{Microversion, Range};
use policies::CloudInterface;
use reqwest::Url;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fmt;

/// A service that we call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Ironic.
    Baremetal,
    /// Neutron.
    Network,
    /// Cinder.
    BlockStorage,
}

impl Service {
    /// The types under which catalogs have it, the official one first (service-types authority).
    fn types(self) -> &'static [&'static str] {
        match self {
            Service::Baremetal => &["baremetal", "bare-metal"],
            Service::Network => &["network"],
            Service::BlockStorage => &["block-storage", "volumev3", "block-store", "volume"],
        }
    }

    /// The first part of all its paths.
    fn root(self) -> &'static str {
        match self {
            Service::Baremetal => "v1",
            Service::Network => "v2.0",
            Service::BlockStorage => "v3",
        }
    }

    /// The API versions that we can use; `None`: it has none (Neutron has extensions).
    /// Ironic 1.67 attaches a VIF to the NIC that is named; 1.99 was tried. Cinder 3.44 completes attachments; 3.71 was tried.
    pub(crate) fn versions(self) -> Option<Range> {
        let range = |min, max| Some(Range { min, max });
        match self {
            Service::Baremetal => range(Microversion::new(1, 67), Microversion::new(1, 99)),
            Service::BlockStorage => range(Microversion::new(3, 44), Microversion::new(3, 71)),
            Service::Network => None,
        }
    }

    /// The header by which a version is asked for.
    pub(crate) fn version_header(self, version: Microversion) -> (&'static str, String) {
        match self {
            Service::Baremetal => ("x-openstack-ironic-api-version", version.to_string()),
            Service::BlockStorage => ("openstack-api-version", format!("volume {version}")),
            Service::Network => ("openstack-api-version", format!("network {version}")),
        }
    }

    /// The address below which its paths are, from the one in the catalog, which has them or has not.
    pub(crate) fn base(self, mut endpoint: Url) -> Url {
        let has_root =
            endpoint.path_segments().is_some_and(|mut parts| parts.any(|part| part == self.root()));
        if let Ok(mut segments) = endpoint.path_segments_mut() {
            segments.pop_if_empty();
            if !has_root {
                segments.push(self.root());
            }
        }
        endpoint
    }

    /// Where it says which versions it speaks: its root, without what Cinder's address may have after it.
    pub(crate) fn version_document(self, base: &Url) -> Url {
        let mut url = base.clone();
        let above: Vec<&str> = base
            .path_segments()
            .map(|parts| parts.take_while(|part| *part != self.root()).collect())
            .unwrap_or_default();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(above).push(self.root()).push("");
        }
        url
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Service::Baremetal => "bare-metal service",
            Service::Network => "network service",
            Service::BlockStorage => "block-storage service",
        })
    }
}

/// What Keystone knows of all services.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Catalog(Vec<Entry>);

#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Deserialize)]
struct Endpoint {
    interface: String,
    region_id: Option<String>,
    url: String,
}

impl Catalog {
    /// The address of a service.
    ///
    /// # Errors
    /// What there is instead.
    pub(crate) fn find(
        &self,
        service: Service,
        region: Option<&str>,
        interface: CloudInterface,
    ) -> Result<Url, String> {
        let wanted = match interface {
            CloudInterface::Public => "public",
            CloudInterface::Internal => "internal",
            CloudInterface::Admin => "admin",
        };
        let fits = |endpoint: &&Endpoint| {
            endpoint.interface == wanted && (region.is_none() || region == endpoint.region_id.as_deref())
        };
        let of_type = |kind: &'static &'static str| {
            let entries = self.0.iter().filter(|entry| entry.kind == **kind);
            let fitting: Vec<&Endpoint> = entries.flat_map(|entry| &entry.endpoints).filter(fits).collect();
            (!fitting.is_empty()).then_some((*kind, fitting))
        };
        let Some((kind, fitting)) = service.types().iter().find_map(of_type) else {
            let has: BTreeSet<&str> = self.0.iter().map(|entry| entry.kind.as_str()).collect();
            let has: Vec<&str> = has.into_iter().collect();
            let place = region.map(|region| format!(" in region {region}")).unwrap_or_default();
            let types = service.types().join(", ");
            return Err(format!("the catalog has no {wanted} {types}{place}; it has: {}", has.join(", ")));
        };
        let regions: BTreeSet<&str> = fitting.iter().filter_map(|it| it.region_id.as_deref()).collect();
        if regions.len() > 1 {
            let regions: Vec<&str> = regions.into_iter().collect();
            return Err(format!("{kind} is in several regions, name one: {}", regions.join(", ")));
        }
        let url = fitting.first().map_or("", |endpoint| endpoint.url.as_str());
        match Url::parse(url) {
            Ok(url) if url.has_host() && !url.cannot_be_a_base() => Ok(url),
            Ok(_) => Err(format!("the catalog's address of {kind} is {url:?}")),
            Err(error) => Err(format!("the catalog's address of {kind} is {url:?}: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn catalog() -> Catalog {
        let at = |interface: &str, region: &str, url: &str| json!({ "interface": interface, "region": region, "region_id": region, "url": url });
        serde_json::from_value(json!([
            { "type": "baremetal", "name": "ironic", "endpoints": [
                at("public", "one", "http://one:6385"), at("public", "two", "http://two/baremetal/v1/") ] },
            { "type": "volumev3", "endpoints": [ at("internal", "one", "http://one:8776/v3/abc") ] },
            { "type": "network", "endpoints": [ at("public", "one", "nonsense") ] },
        ]))
        .unwrap()
    }

    #[test]
    fn a_service_is_found_by_any_of_its_types() {
        let catalog = catalog();
        let find = |service, region, interface| catalog.find(service, region, interface).map(String::from);
        assert_eq!(
            find(Service::Baremetal, Some("one"), CloudInterface::Public),
            Ok("http://one:6385/".to_owned())
        );
        assert_eq!(
            find(Service::BlockStorage, None, CloudInterface::Internal),
            Ok("http://one:8776/v3/abc".to_owned())
        );
        assert_eq!(
            find(Service::Baremetal, None, CloudInterface::Public).unwrap_err(),
            "baremetal is in several regions, name one: one, two"
        );
        assert_eq!(
            find(Service::BlockStorage, Some("two"), CloudInterface::Public).unwrap_err(),
            "the catalog has no public block-storage, volumev3, block-store, volume in region two; it has: baremetal, network, volumev3"
        );
        assert!(find(Service::Network, None, CloudInterface::Public).unwrap_err().contains("\"nonsense\""));
    }

    #[test]
    fn an_address_has_its_version_once() {
        for (service, url, base, document) in [
            (Service::Baremetal, "http://a:6385", "http://a:6385/v1", "http://a:6385/v1/"),
            (Service::Baremetal, "http://a/baremetal/v1/", "http://a/baremetal/v1", "http://a/baremetal/v1/"),
            (Service::Network, "http://a:9696/", "http://a:9696/v2.0", "http://a:9696/v2.0/"),
            (
                Service::BlockStorage,
                "http://a/volume/v3/abc",
                "http://a/volume/v3/abc",
                "http://a/volume/v3/",
            ),
            (Service::BlockStorage, "http://a:8776/v3", "http://a:8776/v3", "http://a:8776/v3/"),
        ] {
            let found = service.base(Url::parse(url).unwrap());
            assert_eq!((found.as_str(), service.version_document(&found).as_str()), (base, document));
        }
    }
}
