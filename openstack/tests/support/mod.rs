//! Recorded requests and answers, for the tests: what a file of `testdata/` holds, and how it is read.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use openstack::{Connector, NodeUuid, Peer, VolumeConnector};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

pub(crate) mod player;
pub(crate) mod recorder;
pub(crate) mod testbed;

/// What was said about one call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Transcript {
    /// What it shows.
    pub(crate) about: String,
    /// Ids by name, for the test that plays it.
    pub(crate) ids: BTreeMap<String, String>,
    pub(crate) exchanges: Vec<Exchange>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Exchange {
    pub(crate) ask: Asked,
    pub(crate) answer: Answered,
}

/// A request, without what is secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) service: String,
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    /// Those that mean something: API version, condition.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) headers: BTreeMap<String, String>,
    /// True if a service token was sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) as_service: bool,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub(crate) body: Value,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub(crate) body: Value,
}

pub(crate) fn testdata() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

impl Transcript {
    pub(crate) fn read(name: &str) -> Transcript {
        let path = testdata().join(format!("{name}.json"));
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub(crate) fn write(&self, name: &str) {
        let mut text = serde_json::to_string_pretty(self).unwrap();
        text.push('\n');
        std::fs::write(testdata().join(format!("{name}.json")), text).unwrap();
    }
}

impl Asked {
    /// From what was received. Of a body with a password or a secret only the rest is kept.
    pub(crate) fn new(
        service: &str,
        method: &str,
        path: &str,
        headers: &axum::http::HeaderMap,
        body: &[u8],
    ) -> Asked {
        let kept = ["x-openstack-ironic-api-version", "openstack-api-version", "if-match"];
        let value = |name: &str| Some((name.to_owned(), headers.get(name)?.to_str().unwrap().to_owned()));
        let mut body = if body.is_empty() { Value::Null } else { serde_json::from_slice(body).unwrap() };
        for secret in [
            "/auth/identity/password/user/password",
            "/auth/identity/application_credential/secret",
            "/auth/identity/token/id",
        ] {
            if let Some(secret) = body.pointer_mut(secret) {
                *secret = json!("<secret>");
            }
        }
        Asked {
            service: service.to_owned(),
            method: method.to_owned(),
            path: path.to_owned(),
            headers: kept.iter().filter_map(|name| value(name)).collect(),
            as_service: headers.contains_key("x-service-token"),
            body,
        }
    }
}

pub(crate) fn within(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

/// Leave to send anything.
pub(crate) struct Leave;

impl policies::Permit for Leave {
    fn check(&self) -> Result<(), policies::Refusal> {
        Ok(())
    }

    fn token(&self) -> policies::LogIndex {
        policies::LogIndex(7)
    }
}

/// A client for plain HTTP. Its TLS trusts nobody; it only spares the process-wide choice of a TLS provider.
pub(crate) fn plain_client() -> reqwest::Client {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = tls.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap()
}

/// What Cinder is told of a node.
/// The node that has [`connector`]`("n5")`, as Ironic knows it.
pub(crate) const PEER: &str = "9dec6d8d-d678-4a82-bf92-9c664281f301";

pub(crate) fn peer(node: &NodeUuid) -> Peer {
    let (kind, connector_id) = ("iqn".to_owned(), connector("n5").initiator);
    let uuid = "2e4e4e4e-0000-4000-8000-00000000c0de".parse().unwrap();
    Peer::new(node, &[VolumeConnector { uuid, node_uuid: node.clone(), kind, connector_id }]).unwrap()
}

pub(crate) fn connector(name: &str) -> Connector {
    Connector {
        initiator: format!("iqn.2026-01.test:{name}"),
        host: name.to_owned(),
        ip: "127.0.0.1".to_owned(),
        multipath: false,
        platform: "x86_64".to_owned(),
        os_type: "linux".to_owned(),
    }
}
