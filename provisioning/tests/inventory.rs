//! What a cloud has, in our words, and against what is described: from recorded entries to differences.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "../../openstack/tests/support/shelf.rs"]
mod shelf;

use policies::*;
use provisioning::inventory::{Census, SpareRule, survey};
use provisioning::{Backend, Provider as _, Us};
use serde_json::{Value, json};
use shelf::{GROUP, NODE, PORT, Shelf, VIF, VOLUME, recorded, uuid};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

const IMAGE: &str = "http://images/web.qcow2";

fn provider(address: SocketAddr) -> Provider {
    let text = format!(
        "name = \"cloud\"\nkind = \"openstack\"\nkeystone = \"http://{address}/keystone/v3\"\nsecret = \"s\"\n\
         user = {{ by = \"application-credential\", id = \"x\" }}\n\
         [deployments.web]\ninstance_info = {{ image_source = \"{IMAGE}\" }}\n\
         [deployments.db]\ninstance_info = {{ image_source = \"http://images/{{instance}}/{{epoch}}.img\" }}\n"
    );
    toml::from_str(&text).unwrap()
}

async fn read(shelf: &Shelf) -> (Provider, Census) {
    let (address, _) = shelf.clone().serve(500).await;
    let provider = provider(address);
    let backend = Backend::from_config(&provider.kind, b"s", Us::nobody()).unwrap();
    let census = backend.census(Instant::now() + Duration::from_secs(20)).await.unwrap();
    (provider, census)
}

async fn surveyed(shelf: &Shelf, rule: &str) -> (Provider, Survey) {
    let (provider, census) = read(shelf).await;
    let survey = survey(&provider, &rule.parse().unwrap(), &census);
    (provider, survey)
}

/// Three nodes: 0 and 1 run something, 2 is free.
fn three() -> Shelf {
    let mut shelf = Shelf::default();
    shelf.node(0, Some(IMAGE));
    shelf.node(1, Some(IMAGE));
    shelf.node(2, None);
    shelf
}

fn load<'a>(survey: &'a Survey, name: &str) -> &'a Load {
    &survey
        .nodes
        .iter()
        .find(|it| it.node.name.as_str() == name)
        .unwrap_or_else(|| panic!("{survey:#?}"))
        .load
}

fn unclear(survey: &Survey, name: &str) -> String {
    match load(survey, name) {
        Load::Unclear(why) | Load::Free(why) => why.clone(),
        other => panic!("{other:?}"),
    }
}

/// A cluster in which this is described.
fn cluster(provider: &Provider, documents: &Documents) -> ClusterState {
    let mut state = ClusterState::default();
    let documents = Documents { providers: vec![provider.clone()], ..documents.clone() };
    describe(&mut state, documents).unwrap();
    state
}

fn describe(state: &mut ClusterState, documents: Documents) -> Result<Applied, Rejected> {
    let command = Command::Describe(Box::new(documents));
    let proposal = Proposal { at: Wall(0), by: "admin".into(), command };
    state.apply(LogIndex(state.applied.0 + 1), &proposal)
}

/// One line for each difference.
fn told(differences: &Differences) -> Vec<String> {
    let line = |it: &Difference| match &it.drift {
        Drift::New => format!("{} new", it.object),
        Drift::Gone => format!("{} gone", it.object),
        Drift::Changed(fields) => {
            let fields = fields.iter().map(|it| format!(" {}: {} -> {};", it.key, it.ours, it.theirs));
            format!("{} changed{}", it.object, fields.collect::<String>())
        }
    };
    differences.lines.iter().map(line).collect()
}

#[tokio::test]
async fn a_deployed_node_is_described_with_all_that_a_failover_needs() {
    let (_, survey) = surveyed(&three(), "available").await;
    let node = &survey.nodes[0].node;
    let text = toml::to_string(node).unwrap();
    let expected = format!(
        "name = \"bm-0\"\ninitiator = \"iqn.2026-01.test:bm-0\"\n\n\
         [[fencing]]\ndriver = \"ironic\"\nprovider = \"cloud\"\nnode = \"{}\"\n\n\
         [[ports]]\nprovider = \"cloud\"\nport = \"{}\"\n\n[[ports]]\nprovider = \"cloud\"\nport = \"{}\"\n\n\
         [capabilities]\ncpu_arch = \"x86_64\"\ncpus = 64\nmemory = \"256GiB\"\nboot_mode = \"uefi\"\n\
         traits = [\"CUSTOM_RACK_B\"]\nresource_class = \"bm.redfish\"\n\n\
         [[capabilities.disks]]\ntype = \"ssd\"\nsize = \"893GiB\"\n\n[[capabilities.nics]]\nspeed = \"25Gbps\"\n",
        uuid(NODE, 0),
        // The one with the VIF first: port i carries network i.
        uuid(PORT, 1),
        uuid(PORT, 0),
    );
    assert_eq!(text, expected);
    let Load::Runs(instance) = load(&survey, "bm-0") else { panic!("{survey:#?}") };
    let expected = format!(
        "name = \"web-0\"\nnode = \"bm-0\"\ntenant = \"36f35fbac7b8412884b3a6862060c643\"\n\n\
         [[volumes]]\nprovider = \"cloud\"\nvolume = \"{}\"\n\n[[networks]]\nvif = \"{}\"\n\n\
         [boot]\nprovider = \"cloud\"\nimage = \"web\"\n",
        uuid(VOLUME, 0),
        uuid(VIF, 0)
    );
    assert_eq!(toml::to_string(instance).unwrap(), expected);
    assert_eq!(load(&survey, "bm-2"), &Load::Spare);
}

#[tokio::test]
async fn spares_are_chosen_by_the_stated_rule_only() {
    let shelf = three();
    for (rule, is_spare) in [
        ("none", false),
        ("available", true),
        ("resource-class=bm.redfish", true),
        ("resource-class=bm.other", false),
        ("trait=CUSTOM_RACK_B", true),
        ("trait=CUSTOM_RACK_C", false),
    ] {
        let (_, survey) = surveyed(&shelf, rule).await;
        assert_eq!(*load(&survey, "bm-2") == Load::Spare, is_spare, "{rule}");
        assert_eq!(rule.parse::<SpareRule>().unwrap().to_string(), rule);
    }
    for bad in ["", "all", "resource-class", "trait=", "name=x"] {
        assert!(bad.parse::<SpareRule>().is_err(), "{bad}");
    }
    for (key, value, why) in [
        ("maintenance", json!(true), "it is in maintenance: no reason given"),
        ("retired", json!(true), "it is retired"),
        ("instance_uuid", json!(uuid(9, 1)), "it is claimed (instance_uuid "),
        ("provision_state", json!("manageable"), "its state is manageable, not available"),
        ("provision_state", json!("clean wait"), "its state is cleanwait"),
        ("provision_state", json!("rescue"), "its state is other(\"rescue\")"),
    ] {
        let mut shelf = three();
        shelf.of("nodes", 2)[key] = value;
        let (_, survey) = surveyed(&shelf, "available").await;
        assert!(unclear(&survey, "bm-2").starts_with(why), "{}", unclear(&survey, "bm-2"));
    }
}

#[tokio::test]
async fn an_instance_of_which_a_part_cannot_be_moved_is_left_out_with_the_reason() {
    type Spoil = fn(&mut Shelf);
    let cases: [(Spoil, &str); 7] = [
        (
            |it| it.of("nodes", 0)["instance_info"]["image_source"] = json!("else"),
            "no deployment of cloud has its image",
        ),
        (
            |it| it.of("targets", 0)["volume_type"] = json!("fibre_channel"),
            "is fibre_channel; only iscsi is moved",
        ),
        (|it| it.of("targets", 0)["boot_index"] = json!(1), "its first volume has boot_index 1"),
        (
            |it| it.of("targets", 0)["volume_id"] = json!("mine"),
            "its volume target 00000006-0000-4000-8000-000000000000 cannot be",
        ),
        (|it| it.of("targets", 0)["volume_id"] = json!(uuid(VOLUME, 1)), "another node has volume"),
        (
            |it| it.0.get_mut("ports").unwrap()[1]["internal_info"] = json!({ "tenant_vif_port_id": "x" }),
            "is no id of a port",
        ),
        (
            |it| {
                it.0.get_mut("ports").unwrap()[1]["internal_info"] = json!({});
                it.0.get_mut("targets").unwrap().remove(0);
            },
            "neither a VIF nor a volume",
        ),
    ];
    for (spoil, why) in cases {
        let mut shelf = three();
        spoil(&mut shelf);
        let (provider, survey) = surveyed(&shelf, "none").await;
        let told = format!("{:?}", (load(&survey, "bm-0"), load(&survey, "bm-1")));
        assert!(told.contains(why), "{why}: {told}");
        let found = survey.against(&cluster(&provider, &Documents::default()));
        // Where two nodes say that they have one volume, neither is believed.
        let described = if why.starts_with("another") { 0 } else { 1 };
        assert_eq!(found.additions.instances.len(), described, "{found:#?}");
    }
}

#[tokio::test]
async fn what_was_imported_is_no_difference_and_what_is_ours_is_kept() {
    let (provider, survey) = surveyed(&three(), "available").await;
    let mut state = cluster(&provider, &Documents::default());
    let found = survey.against(&state);
    let new = ["node/bm-0 new", "instance/web-0 new", "node/bm-1 new", "instance/web-1 new", "node/bm-2 new"];
    assert_eq!(told(&found), new);
    assert_eq!(found.drifted(), 0);
    describe(&mut state, found.additions).unwrap();
    assert_eq!(told(&survey.against(&state)), Vec::<String>::new());
    // A spare that the rule does not choose any more stays one: only the cloud's own facts are compared.
    let (_, other) = surveyed(&three(), "none").await;
    assert_eq!(told(&other.against(&state)), Vec::<String>::new());

    let mut node = (*state.nodes[&"bm-0".parse::<NodeId>().unwrap()].node).clone();
    node.labels.insert("pool".into(), "gold".into());
    node.domains.insert("rack".into(), "r1".into());
    node.agent_key = Some(Sealed("sealed:v1:00".into()));
    node.capabilities.cpu_model = Some("EPYC".into());
    node.ports.reverse();
    let bmc = "driver = \"ipmi\"\naddress = \"h:623\"\nuser = \"u\"\npassword = \"sealed:v1:00\"\n";
    let ipmi: FenceDevice = toml::from_str(bmc).unwrap();
    let FenceDevice::Ironic { bmc, .. } = &mut node.fencing[0] else { panic!() };
    *bmc = Some(Box::new(ipmi));
    let mut instance = (*state.instances[&"web-0".parse::<InstanceId>().unwrap()].instance).clone();
    instance.labels.insert("tier".into(), "gold".into());
    let described =
        Documents { nodes: vec![node.clone()], instances: vec![instance], ..Documents::default() };
    describe(&mut state, described).unwrap();
    assert_eq!(told(&survey.against(&state)), Vec::<String>::new());

    // A change at the cloud is told with both sides, and taking it keeps what only we know.
    let mut shelf = three();
    shelf.of("nodes", 0)["properties"]["memory_mb"] = json!("131072");
    shelf.of("nodes", 0)["traits"] = json!(["CUSTOM_RACK_C"]);
    shelf.of("nodes", 0)["lessee"] = json!("p2");
    shelf.of("targets", 0)["volume_id"] = json!(uuid(VOLUME, 7));
    let (_, changed) = surveyed(&shelf, "none").await;
    let found = changed.against(&state);
    assert_eq!(
        told(&found),
        [
            "node/bm-0 changed capabilities.memory: memory 256GiB -> memory 128GiB; \
             capabilities.traits: traits CUSTOM_RACK_B -> traits CUSTOM_RACK_C;"
                .to_owned(),
            format!(
                "instance/web-0 changed volumes: {} -> {}; tenant: 36f35fbac7b8412884b3a6862060c643 -> p2;",
                uuid(VOLUME, 0),
                uuid(VOLUME, 7)
            ),
        ]
    );
    assert_eq!(found.drifted(), 2);
    let mut taken = found.changes.nodes[0].clone();
    assert_eq!(taken.capabilities.cpu_model.as_deref(), Some("EPYC"));
    taken.capabilities = node.capabilities.clone();
    assert_eq!(taken, node);
    describe(&mut state, found.changes).unwrap();
    assert_eq!(told(&changed.against(&state)), Vec::<String>::new());
}

#[tokio::test]
async fn what_the_cloud_has_no_more_is_gone_but_what_it_cannot_tell_is_not() {
    let (provider, survey) = surveyed(&three(), "available").await;
    let state = cluster(&provider, &survey.against(&cluster(&provider, &Documents::default())).additions);
    let mut shelf = three();
    shelf.0.get_mut("nodes").unwrap().remove(0);
    shelf.of("nodes", 1)["provision_state"] = json!("available");
    shelf.of("nodes", 2)["provision_state"] = json!(5);
    let (_, after) = surveyed(&shelf, "none").await;
    let found = after.against(&state);
    assert_eq!(told(&found), ["node/bm-0 gone", "instance/web-0 gone", "instance/web-1 gone"]);
    assert!(found.notes.iter().any(|note| note.about == "node/bm-2"), "{:?}", found.notes);
    assert!(
        found.notes.iter().any(|note| note.text.starts_with("cannot be understood: ")),
        "{:?}",
        found.notes
    );
}

/// `web-0` is described on bm-0, and the cloud has it on bm-2, where our mark says that we have put it.
fn moved(shelf: &mut Shelf) {
    let mut target = shelf.of("targets", 0).clone();
    target["uuid"] = json!(uuid(6, 2));
    target["node_uuid"] = json!(uuid(NODE, 2));
    shelf.put("targets", target);
    let ports = shelf.0.get_mut("ports").unwrap();
    let vif = std::mem::replace(&mut ports[1]["internal_info"], json!({}));
    ports[5]["internal_info"] = vif;
    let old = shelf.of("nodes", 0);
    old["maintenance"] = json!(true);
    let new = shelf.of("nodes", 2);
    new["provision_state"] = json!("active");
    new["instance_info"] = json!({ "image_source": IMAGE });
    new["extra"] = json!({ "ha_boots": "web-0 e8" });
}

#[tokio::test]
async fn a_failover_is_no_drift_and_a_move_that_nobody_ordered_is() {
    let (provider, survey) = surveyed(&three(), "available").await;
    let mut state = cluster(&provider, &survey.against(&cluster(&provider, &Documents::default())).additions);
    let mut shelf = three();
    moved(&mut shelf);
    let (_, after) = surveyed(&shelf, "available").await;
    assert!(unclear(&after, "bm-0").contains("another node has what it had"), "{after:#?}");
    assert_eq!(told(&after.against(&state)), ["instance/web-0 changed node: bm-0 -> bm-2;"]);
    assert!(after.against(&state).changes.instances.is_empty(), "no description moves it");
    // Our own record says so, too.
    let (old, new): (NodeId, NodeId) = ("bm-0".parse().unwrap(), "bm-2".parse().unwrap());
    state.instances.get_mut(&"web-0".parse::<InstanceId>().unwrap()).unwrap().node = new.clone();
    let active = std::mem::replace(&mut state.nodes.get_mut(&old).unwrap().state, NodeState::Spare);
    state.nodes.get_mut(&new).unwrap().state = active;
    assert_eq!(told(&after.against(&state)), Vec::<String>::new());
}

#[tokio::test]
async fn groups_stand_for_their_nics_and_trunks_are_told() {
    let mut shelf = three();
    let mut group = recorded("node_port_groups", "portgroups");
    group["uuid"] = json!(uuid(GROUP, 0));
    group["node_uuid"] = json!(uuid(NODE, 2));
    shelf.put("portgroups", group);
    for port in &mut shelf.0.get_mut("ports").unwrap()[4..6] {
        port["portgroup_uuid"] = json!(uuid(GROUP, 0));
    }
    shelf.0.get_mut("ports").unwrap()[4]["extra"] = json!({ "client-id": "ff:00", "ha_speed": "100Gbps" });
    shelf.0.get_mut("ports").unwrap()[5]["extra"] = json!({ "client-id": "ff:01" });
    let sub_port = json!({ "port_id": uuid(VIF, 9), "segmentation_id": 20, "segmentation_type": "vlan" });
    shelf.put("trunks", json!({ "id": uuid(8, 0), "port_id": uuid(VIF, 1), "sub_ports": [sub_port] }));
    let (_, survey) = surveyed(&shelf, "available").await;
    let bundled = &survey.nodes[2].node;
    assert_eq!(bundled.ports.iter().map(|it| it.port.as_str()).collect::<Vec<_>>(), [uuid(GROUP, 0)]);
    assert_eq!(bundled.capabilities.lines()[3], "1 x InfiniBand NIC of 100Gbps");
    let said =
        |about: &str, text: &str| survey.notes.iter().any(|it| it.about == about && it.text.contains(text));
    assert!(said("node/bm-2", "an InfiniBand NIC that is not counted"), "{:?}", survey.notes);
    assert!(said("instance/web-1", "is the parent of a trunk: VLAN 20 move along"), "{:?}", survey.notes);
}

#[tokio::test]
async fn names_become_names_of_ours_and_none_is_taken_twice() {
    let mut shelf = Shelf::default();
    for (number, name) in [
        json!("web"),
        json!("Web"),
        json!("WEB"),
        Value::Null,
        json!("_ä!"),
        json!("x".repeat(200)),
        json!("web"),
    ]
    .into_iter()
    .enumerate()
    {
        shelf.node(number, None);
        shelf.of("nodes", number)["name"] = name;
    }
    let (provider, survey) = surveyed(&shelf, "available").await;
    let names: BTreeSet<String> = survey.nodes.iter().map(|it| it.node.name.to_string()).collect();
    let ids = [1, 2, 3, 4].map(|number| uuid(NODE, number));
    let expected = ["web".to_owned(), "web-00000001".to_owned(), "x".repeat(63)];
    assert_eq!(names, ids.into_iter().chain(expected).collect());
    // A node that somebody has described by hand is not described again over it.
    let hand = "[[node]]\nname = \"web\"\n";
    let found = survey.against(&cluster(&provider, &toml::from_str(hand).unwrap()));
    assert!(found.additions.nodes.iter().all(|node| node.name.as_str() != "web"));
    assert!(
        found.left_out[0].text.contains("without a fencing device `ironic` of cloud"),
        "{:?}",
        found.left_out
    );
}

#[tokio::test]
async fn absurd_entries_are_told_and_nothing_of_them_is_believed() {
    for properties in [
        json!({ "cpus": -1, "memory_mb": "lots", "local_gb": 1e99, "cpu_arch": 7, "capabilities": [] }),
        json!({ "cpus": u64::MAX, "memory_mb": u64::MAX, "local_gb": u64::MAX, "capabilities": "has_ssd:true" }),
        json!({ "cpu_arch": "x".repeat(100_000), "capabilities": "a:b:c,,:,boot_mode:warp,nic_capacity:fast" }),
        json!({ "cpus": 100_000 }),
    ] {
        let mut shelf = three();
        shelf.of("nodes", 2)["properties"] = properties;
        shelf.of("nodes", 2)["traits"] = json!(["lower case"]);
        shelf.of("nodes", 2)["resource_class"] = Value::Null;
        let (_, survey) = surveyed(&shelf, "available").await;
        let found = &survey.nodes[2].node.capabilities;
        assert_eq!(*found, Capabilities::default());
    }
    // More NICs than a description may have.
    let mut shelf = three();
    let port = shelf.0["ports"][4].clone();
    for number in 100..200 {
        let mut port = port.clone();
        port["uuid"] = json!(uuid(PORT, number));
        shelf.put("ports", port);
    }
    let (provider, survey) = surveyed(&shelf, "available").await;
    let found = survey.against(&cluster(&provider, &Documents::default()));
    assert!(found.left_out.iter().any(|it| it.text.contains("more than 64 items")), "{:?}", found.left_out);
    // No lists at all.
    let (provider, empty) = surveyed(&Shelf::default(), "available").await;
    assert_eq!(empty.against(&cluster(&provider, &Documents::default())).lines, []);
}

#[tokio::test]
async fn a_thousand_nodes_are_described_at_once() {
    let mut shelf = Shelf::default();
    (0..1000).for_each(|number| shelf.node(number, (number % 10 != 0).then_some(IMAGE)));
    let (provider, survey) = surveyed(&shelf, "trait=CUSTOM_RACK_B").await;
    let mut state = cluster(&provider, &Documents::default());
    let found = survey.against(&state);
    assert_eq!((found.additions.nodes.len(), found.additions.instances.len()), (1000, 900));
    let text = toml::to_string(&found.additions).unwrap();
    assert_eq!(
        toml::from_str::<Documents>(&text).unwrap(),
        found.additions,
        "`hactl apply -f` reads what is printed"
    );
    describe(&mut state, found.additions).unwrap();
    assert_eq!(survey.against(&state).lines, []);
}
