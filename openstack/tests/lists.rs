//! The lists of a whole cloud, read at the same time.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "support/shelf.rs"]
mod shelf;

use openstack::{Cloud, Credentials, Settings, Unread};
use serde_json::{Value, json};
use shelf::{NODE, Shelf, VIF, uuid};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;
use zeroize::Zeroizing;

fn cloud(address: SocketAddr) -> Cloud {
    let credentials = Credentials::Application { id: "x".to_owned(), secret: Zeroizing::new("y".to_owned()) };
    let interface = policies::CloudInterface::Public;
    let keystone = format!("http://{address}/keystone/v3");
    Cloud::new(Settings { keystone, ca: None, region: None, interface, credentials }).unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

#[tokio::test]
async fn a_whole_cloud_is_read_in_a_few_pages_whatever_the_number_of_its_nodes() {
    let mut shelf = Shelf::default();
    (0..1000).for_each(|number| shelf.node(number, (number % 2 == 0).then_some("http://images/web")));
    let (address, calls) = shelf.serve(500).await;
    let read = cloud(address).baremetal().everything(soon()).await.unwrap();
    assert_eq!((read.nodes.len(), read.ports.len(), read.connectors.len()), (1000, 2000, 1000));
    assert_eq!((read.targets.len(), read.port_groups.len(), read.unread.len()), (500, 0, 0));
    // 2 pages of nodes, 4 of ports, 1 of port groups, 1 of targets, 2 of connectors.
    assert_eq!(calls.load(Ordering::Relaxed), 10);
    let info = read.nodes[0].instance_info.as_ref().unwrap();
    assert_eq!(
        (info.image_source.as_deref(), info.display_name.as_deref()),
        (Some("http://images/web"), Some("web-0"))
    );
    assert_eq!(read.ports[1].vif(), Some(uuid(VIF, 0).as_str()));
    assert_eq!(read.ports[0].vif(), None);
}

#[tokio::test]
async fn one_odd_entry_hides_no_other_and_is_told() {
    let mut shelf = Shelf::default();
    (0..3).for_each(|number| shelf.node(number, Some("http://images/web")));
    shelf.of("targets", 1)["volume_id"] = json!("a volume of somebody's own storage");
    shelf.of("nodes", 2)["provision_state"] = json!(7);
    let (address, _) = shelf.clone().serve(2).await;
    let read = cloud(address).baremetal().everything(soon()).await.unwrap();
    assert_eq!((read.nodes.len(), read.targets.len()), (2, 2));
    let Unread { kind, uuid: id, node, why } = &read.unread[1];
    assert_eq!(
        (*kind, id.as_deref(), node.as_deref()),
        ("volume target", Some(uuid(6, 1).as_str()), Some(uuid(NODE, 1).as_str()))
    );
    assert!(why.contains("is no id of a volume"), "{why}");
    assert_eq!(read.unread[0].kind, "node");
    // A page whose last entry has no id is none that a next one could follow.
    shelf.of("nodes", 1)["uuid"] = Value::Null;
    let (address, _) = shelf.serve(2).await;
    let error = cloud(address).baremetal().everything(soon()).await.unwrap_err();
    assert!(error.to_string().contains("an entry of the list has no uuid"), "{error}");
}

#[tokio::test]
async fn trunks_are_read_where_there_are_any() {
    let mut shelf = Shelf::default();
    let (address, _) = shelf.clone().serve(500).await;
    assert_eq!(cloud(address).network().trunks(soon()).await.unwrap(), []);
    for number in 0..3 {
        let sub_port =
            json!({ "port_id": uuid(VIF, 100 + number), "segmentation_id": 10, "segmentation_type": "vlan" });
        shelf.put(
            "trunks",
            json!({ "id": uuid(8, number), "port_id": uuid(VIF, number), "sub_ports": [sub_port] }),
        );
    }
    let (address, _) = shelf.serve(2).await;
    let trunks = cloud(address).network().trunks(soon()).await.unwrap();
    assert_eq!((trunks.len(), trunks[2].sub_ports[0].segmentation_id), (3, Some(10)));
}

#[tokio::test]
async fn an_entry_that_comes_twice_is_taken_once_and_a_list_without_end_is_ended() {
    let mut shelf = Shelf::default();
    (0..3).for_each(|number| shelf.node(number, None));
    let again = shelf.of("nodes", 1).clone();
    shelf.put("nodes", again);
    let (address, _) = shelf.clone().serve(500).await;
    assert_eq!(cloud(address).baremetal().everything(soon()).await.unwrap().nodes.len(), 3);
    shelf.node(3, None);
    let (address, _) = shelf.serve(1).await;
    let error = cloud(address).baremetal().everything(soon()).await.unwrap_err();
    assert!(error.to_string().contains("brings nothing new"), "{error}");
}
