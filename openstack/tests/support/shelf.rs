//! A cloud that only answers lists, from recorded entries, in whatever order it is asked.
//!
//! Why it exists: the lists of a whole cloud are read at the same time, which a transcript played in its order cannot show; and no
//! testbed has a thousand nodes. What it never does: say anything in another form than the recorded one.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use axum::Router;
use axum::extract::{Query, Request};
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpListener;

/// The first entry of a recorded list.
pub(crate) fn recorded(transcript: &str, list: &str) -> Value {
    exchanges(transcript)[0]["answer"]["body"][list][0].clone()
}

fn exchanges(transcript: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../openstack/testdata/{transcript}.json"));
    let transcript: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    transcript["exchanges"].as_array().unwrap().clone()
}

/// What is on the shelf: entries by the name of their list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shelf(pub(crate) BTreeMap<&'static str, Vec<Value>>);

/// An id by its kind (1 to 9) and number.
pub(crate) fn uuid(kind: u32, number: usize) -> String {
    format!("{kind:08}-0000-4000-8000-{number:012}")
}

/// Kinds of ids.
pub(crate) const NODE: u32 = 1;
pub(crate) const PORT: u32 = 2;
pub(crate) const GROUP: u32 = 3;
pub(crate) const VIF: u32 = 4;
pub(crate) const VOLUME: u32 = 5;

impl Shelf {
    pub(crate) fn put(&mut self, list: &'static str, entry: Value) {
        self.0.entry(list).or_default().push(entry);
    }

    /// A node with two NICs and an initiator. Active ones were deployed from `image`, with a VIF and a volume.
    pub(crate) fn node(&mut self, number: usize, image: Option<&str>) {
        let mut node = recorded("nodes", "nodes");
        node["uuid"] = json!(uuid(NODE, number));
        node["name"] = json!(format!("bm-{number}"));
        node["properties"] = json!({
            "cpus": "64", "memory_mb": 262_144, "local_gb": 893, "cpu_arch": "x86_64",
            "capabilities": "boot_mode:uefi,has_ssd:true,nic_capacity:25Gb",
        });
        node["instance_info"] = json!({});
        if let Some(image) = image {
            node["provision_state"] = json!("active");
            node["instance_uuid"] = json!(uuid(9, number));
            node["instance_info"] = json!({ "image_source": image, "display_name": format!("web-{number}"), "configdrive": "******" });
            let mut target = recorded("volume_targets", "targets");
            target["uuid"] = json!(uuid(6, number));
            target["node_uuid"] = json!(uuid(NODE, number));
            target["volume_id"] = json!(uuid(VOLUME, number));
            self.put("targets", target);
        }
        self.put("nodes", node);
        for nic in 0..2 {
            let mut port = recorded("node_ports", "ports");
            port["uuid"] = json!(uuid(PORT, number * 2 + nic));
            port["node_uuid"] = json!(uuid(NODE, number));
            port["address"] = json!(format!("52:54:00:{:02x}:{:02x}:0{nic}", number / 256, number % 256));
            // The VIF is on the second, which by its address would be the second.
            if image.is_some() && nic == 1 {
                port["internal_info"] = json!({ "tenant_vif_port_id": uuid(VIF, number) });
            }
            self.put("ports", port);
        }
        let mut connector = recorded("volume_connectors", "connectors");
        connector["uuid"] = json!(uuid(7, number));
        connector["node_uuid"] = json!(uuid(NODE, number));
        connector["connector_id"] = json!(format!("iqn.2026-01.test:bm-{number}"));
        self.put("connectors", connector);
    }

    /// The entry of a node, to change it.
    pub(crate) fn of(&mut self, list: &'static str, number: usize) -> &mut Value {
        let key = if list == "nodes" { "uuid" } else { "node_uuid" };
        let entries = self.0.get_mut(list).unwrap();
        entries.iter_mut().find(|entry| entry[key] == json!(uuid(NODE, number))).unwrap()
    }

    /// Serves it in pages, and counts the calls for pages.
    pub(crate) async fn serve(self, page_max: usize) -> (SocketAddr, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        let enter = Arc::new(entering(address));
        let shelf = Arc::new(self);
        let app =
            Router::new().fallback(async move |query: Query<BTreeMap<String, String>>, request: Request| {
                let token = [("x-subject-token", "t")];
                let path = request.uri().path();
                if let Some(body) = enter.get(path) {
                    return (StatusCode::CREATED, token, body.clone());
                }
                count.fetch_add(1, Ordering::Relaxed);
                match path.rsplit('/').next().and_then(|list| shelf.page(list, &query, page_max)) {
                    Some(page) => (StatusCode::OK, token, page.to_string()),
                    None => {
                        let words =
                            json!({ "message": "The resource could not be found.", "code": "404 Not Found" });
                        (StatusCode::NOT_FOUND, token, words.to_string())
                    }
                }
            });
        tokio::spawn(async move { axum::serve(listener, app).await });
        (address, calls)
    }

    fn page(&self, list: &str, query: &BTreeMap<String, String>, page_max: usize) -> Option<Value> {
        // Ironic has each of its lists; only trunks are an extension.
        let entries = match (self.0.get(list), list) {
            (Some(entries), _) => entries.as_slice(),
            (None, "trunks") => return None,
            (None, _) => &[],
        };
        let id = |entry: &Value| entry.get("uuid").or_else(|| entry.get("id")).cloned().unwrap_or_default();
        let from = match query.get("marker") {
            Some(marker) => 1 + entries.iter().position(|entry| id(entry) == json!(marker))?,
            None => 0,
        };
        let limit = query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(page_max).min(page_max);
        let page: Vec<Value> = entries.iter().skip(from).take(limit).cloned().collect();
        let is_end = from + page.len() == entries.len();
        let next = if is_end { Value::Null } else { json!("http://elsewhere/") };
        Some(json!({ list: page, "next": next }))
    }
}

/// What Keystone and the services' version documents say, with this address in it.
fn entering(address: SocketAddr) -> BTreeMap<String, String> {
    let services = ["keystone", "baremetal", "network", "volume"];
    let moved =
        |text: String, name: &&str| text.replace(&format!("{name}.test"), &format!("{address}/{name}"));
    let answer = |exchange: &Value| {
        let ask = &exchange["ask"];
        let path = format!("/{}{}", ask["service"].as_str().unwrap(), ask["path"].as_str().unwrap());
        (path, services.iter().fold(exchange["answer"]["body"].to_string(), moved))
    };
    exchanges("enter").iter().map(answer).collect()
}
