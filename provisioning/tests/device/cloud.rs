//! A cloud that follows a script: Keystone, Ironic, Neutron and Cinder at one address.

use super::{Script, Seen};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

/// The node that is taken from and given to.
pub(crate) const NODE: &str = "11111111-1111-4111-8111-111111111111";
/// One that we have fenced.
pub(crate) const FENCED: &str = "12121212-1212-4212-8212-121212121212";
/// Another one.
pub(crate) const OTHER: &str = "99999999-9999-4999-8999-999999999999";
/// The volume that the node has, and one that nobody has.
pub(crate) const HELD: &str = "22222222-2222-4222-8222-222222222222";
pub(crate) const FREE: &str = "33333333-3333-4333-8333-333333333333";
/// The port that is bound to the node, and one that is bound to nothing.
pub(crate) const BOUND: &str = "44444444-4444-4444-8444-444444444444";
pub(crate) const LOOSE: &str = "55555555-5555-4555-8555-555555555555";
/// The node's NIC.
pub(crate) const NIC: &str = "66666666-6666-4666-8666-666666666666";
const ATTACHMENT: &str = "77777777-7777-4777-8777-777777777777";
const SOMETHING: &str = "88888888-8888-4888-8888-888888888888";

pub(super) type Cloud = (Script, Arc<Mutex<Seen>>, SocketAddr);

pub(super) async fn answer(State((script, seen, address)): State<Cloud>, request: Request<Body>) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    match (&method, uri.path()) {
        (_, "/v3/auth/tokens") => return token(address),
        (_, "/v1/") => return answered(&json!({ "version": { "min_version": "1.1", "version": "1.99" } })),
        (_, "/v3/") => {
            return answered(
                &json!({ "versions": [{ "id": "v3.0", "min_version": "3.0", "version": "3.71" }] }),
            );
        }
        (&Method::GET, path) => return look(script, &seen, path, uri.query().unwrap_or_default()).await,
        _ => {}
    }
    assert_eq!(request.headers().get("x-auth-token").unwrap(), "token");
    let if_match = request.headers().get("if-match").cloned();
    let as_service = request.headers().contains_key("x-service-token");
    let path = uri.path().to_owned();
    let body = match path.as_str() {
        "/v3/snapshots" | "/v1/allocations" => {
            axum::body::to_bytes(request.into_body(), 10_000).await.unwrap()
        }
        _ => Default::default(),
    };
    let mut made = vec![];
    let (what, reply) = match (method.as_str(), path.as_str()) {
        // What Ironic forgets and notes beside the change itself.
        ("DELETE", path) if path.starts_with("/v1/nodes/") => return StatusCode::NO_CONTENT.into_response(),
        ("POST", path) if path.starts_with("/v3/volumes/") => {
            assert!(as_service, "Cinder would ask Nova");
            seen.lock().unwrap().done.insert("disconnected".to_owned(), vec![]);
            return StatusCode::ACCEPTED.into_response();
        }
        ("DELETE", path) if path.starts_with("/v3/snapshots/") => {
            seen.lock().unwrap().done.remove("snapshot");
            return StatusCode::ACCEPTED.into_response();
        }
        ("DELETE", path) if path.starts_with("/v1/allocations/") => {
            let mut seen = seen.lock().unwrap();
            seen.done.remove("claimed");
            seen.asked_for.clear();
            return StatusCode::NO_CONTENT.into_response();
        }
        ("PUT", path) if path.ends_with("/states/power") => {
            assert!(path.contains(FENCED));
            seen.lock().unwrap().done.insert("off".to_owned(), vec![]);
            return StatusCode::ACCEPTED.into_response();
        }
        ("PUT", path)
            if path.ends_with("/states/provision")
                && path.contains(FENCED)
                && is_on(script, &seen.lock().unwrap()) =>
        {
            panic!("Ironic would forget no volume of a node that it has noted as on")
        }
        ("PATCH", _) => return answered(&node(&seen.lock().unwrap())),
        ("DELETE", path) if path.starts_with("/v3/attachments/") => {
            assert!(as_service, "Cinder would ask Nova");
            let is_first = seen.lock().unwrap().done.contains_key("disconnected");
            assert!(is_first, "storage would go on serving the node, and nothing would show it");
            ("revoked", answered(&json!({ "attachments": [] })))
        }
        ("PUT", path) if path.starts_with("/v2.0/ports/") => {
            assert_eq!(if_match.unwrap(), "revision_number=3");
            ("closed", answered(&json!({ "port": port(BOUND, "") })))
        }
        ("POST", "/v1/volume/targets") => ("attached", answered(&target())),
        ("POST", path) if path.ends_with("/vifs") => ("vif", StatusCode::NO_CONTENT.into_response()),
        ("POST", "/v3/snapshots") => {
            let wish: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(wish["snapshot"].get("force"), None, "from 3.66 on it is a word of the past");
            made = body.to_vec();
            ("snapshot", answered(&json!({ "snapshot": snapshot(&made, "creating") })))
        }
        ("POST", "/v1/allocations") => {
            made = body.to_vec();
            ("claimed", answered(&allocation(&made, "allocating")))
        }
        ("PUT", path) if path.ends_with("/states/provision") && path.contains(FENCED) => {
            ("cleaned", StatusCode::ACCEPTED.into_response())
        }
        ("PUT", path) if path.ends_with("/states/provision") => {
            ("boots", StatusCode::ACCEPTED.into_response())
        }
        other => panic!("{other:?}"),
    };
    {
        let mut seen = seen.lock().unwrap();
        seen.changes += 1;
        seen.asked_for = made.clone();
    }
    let what = what.to_owned();
    match script {
        Script::Obey | Script::HeldByOther | Script::Fails | Script::ForgotToSwitchOff => {
            drop(seen.lock().unwrap().done.insert(what, made));
        }
        Script::HangOnChange => std::future::pending().await,
        Script::ObeyAndDropTheConnection => {
            seen.lock().unwrap().done.insert(what, made);
            // hyper ends the connection when its handler panics; the test does not see this panic.
            panic!("the connection is dropped by intention");
        }
        Script::Lose => panic!("the connection is dropped by intention"),
        Script::Lie => {}
        Script::ObeyAfterLooks(looks) => seen.lock().unwrap().late = Some((looks, what, made)),
        Script::Answer(status) => return StatusCode::from_u16(status).unwrap().into_response(),
        other => unreachable!("{other:?} is no cloud's manner"),
    }
    reply
}

/// Whether the fenced node is on, by Ironic's note.
fn is_on(script: Script, seen: &Seen) -> bool {
    matches!(script, Script::ForgotToSwitchOff) && !seen.done.contains_key("off")
}

async fn look(script: Script, seen: &Mutex<Seen>, path: &str, query: &str) -> Response {
    seen.lock().unwrap().looks += 1;
    match script {
        Script::HangOnLook => std::future::pending::<()>().await,
        Script::Garbage => return "neither yes nor no".into_response(),
        Script::HasNothing => {
            let words = json!({ "itemNotFound": { "message": "there is no such thing", "code": 404 } });
            return (StatusCode::NOT_FOUND, words.to_string()).into_response();
        }
        _ => {}
    }
    let mut seen = seen.lock().unwrap();
    match seen.late.take() {
        Some((0, what, body)) => drop(seen.done.insert(what, body)),
        Some((looks, what, body)) => seen.late = Some((looks - 1, what, body)),
        None => {}
    }
    let has = |what: &str| seen.done.contains_key(what);
    let by_other = matches!(script, Script::HeldByOther);
    // The node that had the port is locked, and Ironic still notes the port for it.
    let by_locked = matches!(script, Script::KeepSessions);
    let holder = match query {
        query if query.contains(HELD) && !has("revoked") => Some(NODE),
        query if query.contains(FREE) && by_other => Some(OTHER),
        _ => None,
    };
    let body = match path.split('/').skip(1).collect::<Vec<_>>().as_slice() {
        ["v3", "volumes", volume] => {
            let status = if *volume == HELD && !has("revoked") { "in-use" } else { "available" };
            json!({ "volume": { "id": volume, "status": status, "size": 1, "metadata": {} } })
        }
        ["v3", "attachments"] => {
            let volume = if query.contains(HELD) { HELD } else { FREE };
            let attachment = |holder| json!({ "id": ATTACHMENT, "volume_id": volume, "status": "attached", "instance": holder });
            json!({ "attachments": holder.map(attachment).into_iter().collect::<Vec<_>>() })
        }
        ["v3", "snapshots", "detail"] => {
            let status = if matches!(script, Script::Fails) { "error" } else { "available" };
            let made = seen.done.get("snapshot").map(|made| snapshot(made, status));
            json!({ "snapshots": made.into_iter().collect::<Vec<_>>() })
        }
        ["v1", "volume", "targets"] => {
            json!({ "targets": if has("attached") { vec![target()] } else { vec![] } })
        }
        ["v1", "volume", "connectors"] => {
            let id = "2e4e4e4e-0000-4000-8000-00000000c0de";
            json!({ "connectors": [{ "uuid": id, "node_uuid": NODE, "type": "iqn", "connector_id": "iqn.n1" }] })
        }
        ["v2.0", "ports"] => {
            json!({ "ports": if has("closed") { vec![] } else { vec![port(BOUND, NODE)] } })
        }
        ["v2.0", "ports", vif] => {
            let host = if has("vif") {
                NODE
            } else if by_other {
                OTHER
            } else {
                ""
            };
            let mut port = port(vif, host);
            if by_locked {
                port["binding:profile"] = json!({ "ha_from": OTHER });
            }
            json!({ "port": port })
        }
        ["v1", "nodes", of, "vifs"] => {
            let is_noted = if *of == OTHER { by_locked } else { has("vif") };
            json!({ "vifs": if is_noted { vec![json!({ "id": LOOSE })] } else { vec![] } })
        }
        ["v1", "nodes", of] if *of == OTHER => {
            let mut node = node(&seen);
            (node["uuid"], node["reservation"]) = (json!(OTHER), json!("conductor-1"));
            node
        }
        ["v1", "nodes", of] if *of == FENCED => {
            let mut node = node(&seen);
            let is_clean = has("cleaned");
            node["uuid"] = json!(FENCED);
            node["provision_state"] = json!(if is_clean { "available" } else { "active" });
            node["maintenance"] = json!(!is_clean);
            node["maintenance_reason"] = json!("fenced by ha-supervisord, token i3");
            node["power_state"] = json!(if is_on(script, &seen) { "power on" } else { "power off" });
            node
        }
        ["v1", "nodes", _] => {
            let mut node = node(&seen);
            match script {
                Script::HeldByOther => node["instance_uuid"] = json!(OTHER),
                Script::Fails => node["instance_uuid"] = Value::Null,
                _ => {}
            }
            node
        }
        ["v1", "allocations", uuid] => {
            let (made, state) = match (seen.done.get("claimed"), script) {
                (Some(made), Script::Fails) => (made, "error"),
                (Some(made), _) => (made, "active"),
                (None, _) if seen.asked_for.is_empty() => {
                    let words = json!({ "error_message": "Allocation could not be found." });
                    return (StatusCode::NOT_FOUND, words.to_string()).into_response();
                }
                (None, _) => (&seen.asked_for, "allocating"),
            };
            let allocation = allocation(made, state);
            assert_eq!(allocation["uuid"], *uuid);
            allocation
        }
        ["v1", "ports", nic] => json!({ "uuid": nic }),
        other => panic!("{other:?}"),
    };
    answered(&body)
}

fn answered(body: &Value) -> Response {
    body.to_string().into_response()
}

fn token(address: SocketAddr) -> Response {
    let service = |kind: &str| {
        let endpoint =
            json!({ "interface": "public", "region_id": "one", "url": format!("http://{address}") });
        json!({ "type": kind, "name": kind, "endpoints": [endpoint] })
    };
    let catalog = ["baremetal", "network", "block-storage"].map(service);
    let token = json!({ "token": { "issued_at": "2026-01-01T00:00:00.000000Z",
        "expires_at": "2026-01-01T01:00:00.000000Z", "roles": [], "catalog": catalog } });
    (StatusCode::CREATED, [("x-subject-token", "token")], token.to_string()).into_response()
}

/// A node that is free, or runs what it was told to.
fn node(seen: &Seen) -> Value {
    let (state, extra) = match seen.done.contains_key("boots") {
        true => ("active", json!({ "ha_boots": "web e2" })),
        false => ("available", json!({})),
    };
    let claim = seen.done.get("claimed").filter(|_| state == "available");
    let claim = claim.map(|made| allocation(made, "active")["uuid"].clone());
    json!({ "uuid": NODE, "driver": "redfish", "provision_state": state, "maintenance": false, "extra": extra,
        "instance_uuid": claim, "resource_class": "metal" })
}

fn allocation(wish: &[u8], state: &str) -> Value {
    let mut allocation: Value = serde_json::from_slice(wish).unwrap();
    allocation["state"] = json!(state);
    allocation["last_error"] =
        json!((state == "error").then_some("none of the requested nodes are available"));
    allocation
}

fn port(id: &str, host: &str) -> Value {
    json!({ "id": id, "network_id": SOMETHING, "mac_address": "fa:16:3e:00:00:01", "status": "DOWN",
        "binding:host_id": host, "revision_number": 3 })
}

fn target() -> Value {
    json!({ "uuid": SOMETHING, "node_uuid": NODE, "volume_type": "iscsi", "boot_index": 0, "volume_id": FREE })
}

fn snapshot(wish: &[u8], status: &str) -> Value {
    let wish: Value = serde_json::from_slice(wish).unwrap();
    let wish = &wish["snapshot"];
    json!({ "id": SOMETHING, "volume_id": wish["volume_id"], "name": wish["name"], "status": status })
}
