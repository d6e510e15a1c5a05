//! The real `hactl` against a real member and a cloud of recorded entries: import, drift, and that nothing is overwritten.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what a test did not expect must end it; the helpers of tests are tests too"
)]

mod daemon;
#[path = "../../openstack/tests/support/shelf.rs"]
mod shelf;

use daemon::*;
use policies::*;
use serde_json::{Value, json};
use shelf::{Shelf, VOLUME, uuid};

const IMAGE: &str = "http://images/web.qcow2";

/// Exit code, standard output, standard error.
fn run(daemon: &Daemon, args: &[&str]) -> (i32, String, String) {
    let output = hactl(daemon, args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn apply(daemon: &Daemon, document: &str) -> (i32, String, String) {
    let path = daemon.home.dir().join("document.toml");
    std::fs::write(&path, document).unwrap();
    run(daemon, &["apply", "-f", path.to_str().unwrap()])
}

/// Describes the provider `cloud` as one that has this.
async fn cloud(daemon: &Daemon, shelf: &Shelf) {
    let (address, _) = shelf.clone().serve(500).await;
    let provider = format!(
        "[[provider]]\nname = \"cloud\"\nkind = \"openstack\"\nkeystone = \"http://{address}/keystone/v3\"\nsecret = \"c-secret\"\n\
         user = {{ by = \"application-credential\", id = \"x\" }}\n\
         deployments.web.instance_info = {{ image_source = \"{IMAGE}\" }}\n"
    );
    let (code, _, said) = apply(daemon, &provider);
    assert_eq!(code, 0, "{said}");
}

fn three() -> Shelf {
    let mut shelf = Shelf::default();
    shelf.node(0, Some(IMAGE));
    shelf.node(1, Some(IMAGE));
    shelf.node(2, None);
    shelf
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_is_imported_and_later_changes_are_told_and_taken_one_by_one() {
    let (_dir, daemon) = one_member().await;
    let mut shelf = three();
    cloud(&daemon, &shelf).await;
    let import = ["openstack", "import", "cloud", "--spares", "available"];
    let (code, said, _) = run(&daemon, &import);
    assert_eq!(code, 0);
    assert!(said.contains("node/bm-2 "), "{said}");
    assert!(
        said.contains("--apply` (with the same --spares) describes what is new: 3 nodes, 2 instances."),
        "{said}"
    );
    // A look has changed nothing, and what is printed as a document is what `apply` takes.
    assert_eq!(daemon.store.read(|state| state.nodes.len()), 0);
    let (code, document, _) = run(&daemon, &[&import[..], &["--document"]].concat());
    assert!(code == 0 && document.starts_with("# What is new at cloud.\n"), "{document}");
    let (code, said, _) =
        apply(&daemon, &document.replace("name = \"bm-2\"", "name = \"bm-2\"\nlabels = { pool = \"gold\" }"));
    assert!(code == 0 && said.contains("instance/web-1 created"), "{said}");
    assert_eq!(
        run(&daemon, &[&import[..], &["--apply"]].concat()).1,
        "There is nothing new, and nothing was changed.\n"
    );
    let (code, said, _) = run(&daemon, &["openstack", "drift", "cloud"]);
    assert_eq!((code, said.as_str()), (0, "cloud has 3 nodes; what is described of them is so.\n"));

    // The cloud changes.
    shelf.of("targets", 0)["volume_id"] = json!(uuid(VOLUME, 7));
    shelf.of("nodes", 2)["resource_class"] = json!("bm.gold");
    shelf.node(3, None);
    cloud(&daemon, &shelf).await;
    let (code, said, _) = run(&daemon, &["openstack", "drift", "cloud"]);
    assert!(code == 1 && said.contains(&uuid(VOLUME, 7)) && !said.contains("bm-3"), "{said}");
    let volumes = |daemon: &Daemon| {
        daemon
            .store
            .read(|state| state.instances[&"web-0".parse::<InstanceId>().unwrap()].instance.volumes.clone())
    };
    let (code, said, _) = run(&daemon, &[&import[..], &["--apply"]].concat());
    assert_eq!((code, said.as_str()), (0, "node/bm-3 created\n"), "only what is new");
    assert_eq!(volumes(&daemon)[0].volume.as_str(), uuid(VOLUME, 0));
    let (code, _, said) = run(&daemon, &["openstack", "import", "cloud", "--apply", "--change", "node/bm-9"]);
    assert!(code == 2 && said.contains("nothing was changed"), "{said}");
    let (code, said, _) =
        run(&daemon, &["openstack", "import", "cloud", "--apply", "--change", "instance/web-0"]);
    assert_eq!((code, said.as_str()), (0, "instance/web-0 configured\n"));
    assert_eq!(volumes(&daemon)[0].volume.as_str(), uuid(VOLUME, 7));
    let (code, said, _) = run(&daemon, &["openstack", "drift", "cloud", "-o", "json"]);
    let left: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, left["differences"].as_array().unwrap().len()), (1, 1), "{left}");
    assert_eq!(left["changes"]["node"][0]["labels"]["pool"], "gold", "what only we know is kept");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_told_and_changes_nothing() {
    let (_dir, daemon) = one_member().await;
    cloud(&daemon, &three()).await;
    let rack =
        "[[provider]]\nname = \"rack\"\nkind = \"rack\"\nurl = \"http://127.0.0.1:1\"\ntoken = \"t\"\n";
    assert_eq!(apply(&daemon, rack).0, 0);
    for (args, code, why) in [
        (&["import", "cloud", "--spares", "all"][..], 2, "\"all\" is no rule for spares"),
        (&["import", "rack"], 2, "is not of the kind `openstack`"),
        (&["import", "nobody"], 1, "there is no provider nobody"),
        (&["drift", "rack"], 255, "is not of the kind `openstack`"),
    ] {
        let (found, _, said) = run(&daemon, &[&["openstack"], args].concat());
        assert!(found == code && said.contains(why), "{args:?}: {found} {said}");
    }
    let gone = "[[provider]]\nname = \"cloud\"\nkind = \"openstack\"\nkeystone = \"http://127.0.0.1:1/v3\"\nsecret = \"c-secret\"\n\
                user = { by = \"application-credential\", id = \"x\" }\n";
    assert_eq!(apply(&daemon, gone).0, 0);
    let (code, _, said) = run(&daemon, &["openstack", "import", "cloud"]);
    assert!(code == 1 && said.contains("read what cloud has: ") && !said.contains("c-secret"), "{said}");
    daemon.end().await;
}
