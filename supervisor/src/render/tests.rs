//! Golden screens: a small cluster in mid-failover, made by the real state machine, printed and compared with
//! `testdata/`. `UPDATE_EXPECT=1 cargo test -p supervisor` rewrites them; read the difference.

use super::*;
use crate::api::answers::{
    self, Attention, Committed, Described, LevelPower, MemberLine, Members, NodePower, Status,
};
use crate::api::explain::explain;
use crate::api::facts::Facts;
use policies::*;
use std::path::Path;

/// 2026-11-23 05:20:00 UTC.
const BEGIN: u64 = 1_795_411_200_000;

pub(crate) struct Story {
    pub(crate) state: ClusterState,
    pub(crate) view: View,
    pub(crate) events: Vec<Event>,
    index: u64,
}

impl Story {
    fn then(&mut self, seconds: u64, by: &str, command: Command) -> LogIndex {
        self.index += 1;
        let proposal = Proposal { at: Wall(BEGIN + seconds * 1000), by: by.into(), command };
        let applied = self.state.apply(LogIndex(self.index), &proposal).unwrap();
        self.events.extend(applied.events);
        LogIndex(self.index)
    }

    fn leads(&mut self, seconds: u64, step: Step) -> LogIndex {
        let leader = self.state.leadership.unwrap().epoch;
        self.then(seconds, "member/m1", Command::Lead { leader, step })
    }

    pub(crate) fn facts(&self) -> Facts<'_> {
        Facts { state: &self.state, view: &self.view, now: screen().now }
    }
}

pub(crate) fn screen() -> Screen {
    Screen {
        now: Wall(BEGIN + 95_000),
        zone: TimeZone::fixed(jiff::tz::offset(1)),
        colour: false,
        wide: false,
    }
}

pub(crate) fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn node_described(number: u8) -> Node {
    let text = format!(
        "name = \"n{number}\"\ndomains = {{ rack = \"r{number}\" }}\ninitiator = \"iqn.n{number}\"\n\
         identity = {{ guid = \"{}\" }}\nprobe = {{ tcp = \"10.0.0.{number}:22\" }}\nagent_key = \"sealed:v1:00\"\n\
         ports = [{{ provider = \"rack\", port = \"sw1/{number}\" }}]\n\
         [[fencing]]\ndriver = \"ipmi\"\naddress = \"10.1.0.{number}:623\"\nuser = \"ha\"\npassword = \"sealed:v1:00\"\n",
        format!("{number:02x}").repeat(16)
    );
    toml::from_str(&text).unwrap()
}

fn documents() -> Documents {
    let kind =
        ProviderKind::Rack { url: "http://127.0.0.1:7300".into(), token: Sealed("sealed:v1:00".into()) };
    let instance = "name = \"web\"\nnode = \"n1\"\npolicy = \"quick\"\nnetworks = [{ vlan = 100 }]\n\
                    volumes = [{ provider = \"rack\", volume = \"vol-web\" }]\n";
    Documents {
        providers: vec![Provider { name: name("rack"), kind }],
        nodes: (1..=3).map(node_described).collect(),
        instances: vec![toml::from_str(instance).unwrap()],
        policies: vec![],
    }
}

fn evidence() -> Evidence {
    let silent = Sight::Silent { lasting: Millis(520), never: false, kernel: Kernel::Mute };
    Evidence {
        members: [(MemberId(1), silent.clone()), (MemberId(2), silent)].into(),
        doubts: [(MemberId(3), SelfDoubt::MostNodesSilent { silent: 3, watched: 3 })].into(),
        power: Some(Power::On),
        dead: 2,
        needed: 2,
    }
}

/// Before anything happens.
fn calm() -> Story {
    let mut story = Story { state: ClusterState::default(), view: View::default(), events: vec![], index: 0 };
    story.then(0, "admin", Command::Describe(Box::new(documents())));
    story.then(1, "admin", Command::Arm { reason: "go live".into() });
    story.then(2, "admin", Command::Cordon { node: name("n3"), on: true });
    story.then(3, "member/m1", Command::TookOver { member: MemberId(1), boot: BootId(7) });
    for node in ["n1", "n2", "n3"] {
        let (evidence, verdict) = (Evidence::default(), Verdict::Healthy);
        story.leads(4, Step::Judge { node: name(node), verdict, evidence });
    }
    story
}

/// n1 died; it is off, its volume is revoked, and its switch port does not answer.
pub(crate) fn mid_failover() -> Story {
    let mut story = calm();
    let verdict = Verdict::Failed(Cause::Silent);
    story.leads(60, Step::Judge { node: name("n1"), verdict, evidence: evidence() });
    let decision = Decision {
        instance: Some(name("web")),
        from: name("n1"),
        spare: Some(name("n2")),
        cause: Cause::Silent,
        evidence: evidence(),
        policy: (name("quick"), LogIndex(0)),
        gates: vec![Gate { name: "fences in flight".into(), found: "0 of 2".into() }],
        runners_up: vec![(name("n3"), "cordoned".into())],
        shutdown: None,
        start: Start::PowerOn,
    };
    let plan = PlanId(story.leads(60, Step::Begin(Box::new(decision))).0);
    let (rack, n1): (ProviderId, NodeId) = (name("rack"), name("n1"));
    let off = Action::PowerOff { node: n1.clone(), level: 0 };
    let revoke = Action::Revoke { node: n1.clone(), provider: rack.clone(), volume: name("vol-web") };
    let close = Action::ClosePort { node: n1.clone(), provider: rack, port: "sw1/1".into() };
    let seen_off = Outcome::Done(Seen::OffTwice { already: false, took: Millis(340) });
    let read_back = Outcome::Done(Seen::ReadBack("no access, no session".into()));
    let mute = Outcome::Unknown(Doubt::NoAnswer { waited: Millis(5000) });
    for (action, seconds, outcome) in [(off, 61, seen_off), (revoke, 62, read_back), (close, 66, mute)] {
        let token = story.leads(60, Step::Intend { plan, action });
        story.leads(seconds, Step::Resolve { token, outcome });
    }
    story.leads(90, Step::Stick { plan, why: Some("port sw1/1 of n1 is not closed".into()) });
    story.view = view(plan);
    story
}

fn view(plan: PlanId) -> View {
    let silent = Sight::Silent { lasting: Millis(35_000), never: false, kernel: Kernel::Mute };
    let alive = Sight::Alive { epoch: Epoch(0), write_stale: None, few_paths: None };
    let see = |sight: &Sight| [(MemberId(1), sight.clone()), (MemberId(2), sight.clone())].into();
    let node = |sight, power| NodeView { sights: see(sight), power, waiting: vec![] };
    let off = Some((Some(Power::Off), Millis(1200)));
    let member = |age| MemberView { domain: "room-a".into(), report_age: Millis(age), doubt: None };
    let doubt = Some(SelfDoubt::MostNodesSilent { silent: 3, watched: 3 });
    let doubting = MemberView { doubt, ..member(4200) };
    let missing = vec!["close port sw1/1 of n1".to_owned()];
    View {
        member: MemberId(1),
        at: screen().now,
        leads: Some(LeaderEpoch(4)),
        not_acting: None,
        members: [(MemberId(1), member(0)), (MemberId(2), member(400)), (MemberId(3), doubting)].into(),
        nodes: [(name("n1"), node(&silent, off)), (name("n2"), node(&alive, None))].into(),
        instances: [].into(),
        plans: [(plan, vec![Waiting::IsolationMissing { missing }])].into(),
        checks: vec![],
    }
}

pub(crate) fn members() -> Vec<MemberLine> {
    let member = |id: u64, age: Option<u64>| MemberLine {
        id: MemberId(id),
        address: format!("10.2.0.{id}:7101"),
        api: format!("10.2.0.{id}:7201"),
        voter: id != 4,
        leader: id == 1,
        domain: (id < 4).then(|| "room-a".into()),
        report_age_ms: age,
        behind: (id > 1).then_some(if id == 4 { 1200 } else { 0 }),
        doubt: (id == 3).then(|| "3 of 3 nodes are silent for it; it doubts itself".into()),
    };
    vec![member(1, None), member(2, Some(400)), member(3, Some(4200)), member(4, None)]
}

pub(crate) fn status_of(story: &Story) -> Status {
    let facts = story.facts();
    Status {
        cluster: "demo".into(),
        now: facts.now,
        answered_by: MemberId(1),
        local: false,
        not_acting: facts.view.not_acting.as_ref().map(ToString::to_string),
        coverage: Some(answers::CoverageTold {
            instances_uncovered: vec![],
            losses_uncovered: ["r1", "r2", "r3", "r4", "r5"].map(|rack| format!("rack/{rack}")).into(),
            losses: 6,
        }),
        not_judging: answers::not_judging(&members()),
        armed: facts.state.armed.clone(),
        members: members(),
        nodes: facts.node_counts(),
        instances: facts.state.instances.len() as u64,
        failovers: facts.failovers(),
        attention: facts.attention(),
    }
}

/// Compares with `testdata/NAME.txt`; with `UPDATE_EXPECT=1` writes it.
pub(crate) fn golden(name: &str, found: &str) {
    assert!(!found.contains("sealed:v1"), "{name} shows a sealed secret");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        found, expected,
        "{name}: if the change is meant, run with UPDATE_EXPECT=1 and read the difference"
    );
}

#[test]
fn status_says_on_one_screen_what_is_wrong() {
    let story = mid_failover();
    golden("status", &status(&status_of(&story), &screen()));
}

#[test]
fn status_says_each_sentence_once() {
    let mut found = status_of(&mid_failover());
    let mut add = |about: String, what: &str| found.attention.push(Attention { about, what: what.into() });
    for number in 10..30 {
        add(format!("node/n{number}"), "failed: silent, and its kernel does not answer");
        add(format!("instance/i{number}"), if number < 13 { "there is no spare" } else { "no spare fits" });
    }
    for number in 10..20 {
        add(format!("member/m{number}"), &format!("has not reported for {number}s"));
    }
    golden("status_grouped", &status(&found, &screen()));
}

#[test]
fn what_stands_ready() {
    let mut story = mid_failover();
    let mut spare = node_described(4);
    spare.identity.serial = Some("CZJ0123456".into());
    let has = "cpus = 64\nmemory = \"384GiB\"\ndisks = [{ type = \"nvme\", size = \"3.84TB\", count = 4 }]\n";
    spare.capabilities = toml::from_str(has).unwrap();
    story.then(
        92,
        "admin",
        Command::Describe(Box::new(Documents { nodes: vec![spare], ..Documents::default() })),
    );
    story.state.nodes.get_mut(&name("n3")).unwrap().strikes = vec![Wall(BEGIN)];
    let n4 = story.state.nodes.get_mut(&name("n4")).unwrap();
    n4.takeover = Some(LastTakeover { start: Start::Kexec, took: Millis(4_300) });
    let hot = Sight::Alive { epoch: Epoch::STANDBY, write_stale: None, few_paths: None };
    story.view.nodes.insert(
        name("n4"),
        NodeView {
            power: Some((Some(Power::On), Millis(900))),
            sights: [(MemberId(1), hot)].into(),
            ..NodeView::default()
        },
    );
    let uses = spare_uses(&story.state, &story.view);
    let (facts, wide) = (story.facts(), Screen { wide: true, ..screen() });
    golden("spare_list", &spares(&facts.spares(&uses), &screen()));
    golden("spare_list_wide", &spares(&facts.spares(&uses), &wide));
    golden("provider_list", &providers(&facts.providers(), &screen()));
    golden("node_show_serial", &node(&facts.node(&name("n4")).unwrap(), &screen()));
}

#[test]
fn what_is_done_by_hand() {
    let mut story = mid_failover();
    let order = |hand, reason: &str| {
        let (node, reason) = (name("n3"), reason.to_owned());
        Command::ByHand { node, hand, reason }
    };
    let token = story.then(91, "admin", order(Hand::PowerOff, "new DIMMs"));
    let outcome = Outcome::Done(Seen::OffTwice { already: false, took: Millis(340) });
    story.leads(92, Step::Resolve { token, outcome });
    story.then(94, "admin", order(Hand::PowerOn, "DIMMs are in"));
    golden("node_show_by_hand", &node(&story.facts().node(&name("n3")).unwrap(), &screen()));
    let level = |device: &str, power: Option<&str>, guid: Option<&str>, trouble: Option<&str>| {
        let text = |text: Option<&str>| text.map(ToOwned::to_owned);
        LevelPower { device: device.into(), power: text(power), guid: text(guid), trouble: text(trouble) }
    };
    let levels = vec![
        level("ipmi:10.1.0.3:623", Some("on"), Some("4c4c45"), Some("the BMC is another machine's")),
        level("ipmi:10.1.1.3:623", None, None, Some("unreachable: ask: no answer from the BMC in 2000ms")),
    ];
    let answer = NodePower { name: name("n3"), levels };
    golden("node_power", &power(&answer, &screen()));
    golden("node_power_none", &power(&NodePower { levels: vec![], ..answer }, &screen()));
}

#[test]
fn status_without_a_quorum_says_so_first() {
    let mut story = mid_failover();
    story.view.not_acting = Some(Waiting::NotLeader { leader: None });
    let mut found = status_of(&story);
    found.local = true;
    golden("status_no_quorum", &status(&found, &screen()));
    found.members.iter_mut().for_each(|member| member.leader = false);
    assert!(status(&found, &screen()).contains("3 voters, no leader"));
}

#[test]
fn status_says_that_members_doubt_themselves_and_what_only_people_can_know() {
    let mut found = status_of(&mid_failover());
    assert_eq!(found.not_judging, None, "two of three voters are sure");
    found.members[1].doubt = found.members[2].doubt.clone();
    found.not_judging = answers::not_judging(&found.members);
    golden("status_doubt", &status(&found, &screen()));
}

#[test]
fn a_quiet_cluster_says_that_nothing_needs_attention() {
    let mut story = Story { state: ClusterState::default(), view: View::default(), events: vec![], index: 0 };
    story.then(0, "admin", Command::Describe(Box::new(documents())));
    let mut found = status_of(&story);
    found.members.truncate(1);
    golden("status_quiet", &status(&found, &screen()));
}

#[test]
fn lists() {
    let story = mid_failover();
    let (facts, screen) = (story.facts(), screen());
    golden("node_list", &nodes(&facts.nodes(), &screen));
    golden("instance_list", &instances(&facts.instances(), &screen));
    golden("failover_list", &failovers(&facts.failovers(), &screen));
    golden("policy_list", &policies(&facts.policies(), &screen));
    let members = Members { answered_by: MemberId(1), members: members() };
    golden("member_list", &super::members(&members, &screen));
    assert_eq!(failovers(&[], &screen), "There has been no failover.\n");
}

#[test]
fn wide_lists_have_more_columns() {
    let mut story = mid_failover();
    let settled = "name = \"db\"\nnode = \"n2\"\npolicy = \"cautious\"\nneeds = { cpu = \"epyc\" }\n\
                   boot = { provider = \"rack\", image = \"db-7\" }\nnetworks = [{ vlan = 7 }, { vlan = 8 }]\n\
                   tenant = \"acme\"\nlabels = { tier = \"gold\", zone = \"a\" }\n";
    story.state.instances.insert(
        name("db"),
        InstanceRecord {
            instance: toml::from_str(settled).unwrap(),
            node: name("n2"),
            epoch: Epoch(1),
            evacuate: None,
            policy: name("cautious"),
            backups: vec![],
        },
    );
    let (facts, screen) = (story.facts(), Screen { wide: true, ..screen() });
    golden("node_list_wide", &nodes(&facts.nodes(), &screen));
    golden("instance_list_wide", &instances(&facts.instances(), &screen));
    golden("failover_list_wide", &failovers(&facts.failovers(), &screen));
    golden("policy_list_wide", &policies(&facts.policies(), &screen));
    let members = Members { answered_by: MemberId(1), members: members() };
    golden("member_list_wide", &super::members(&members, &screen));
}

#[test]
fn contexts_are_listed_and_shown_without_what_is_in_their_files() {
    let lab = crate::context::ContextDetail {
        name: Some("lab".into()),
        current: true,
        file: "/home/me/hactl.toml".into(),
        endpoints: vec!["https://10.0.0.1:7201".into(), "https://10.0.0.2:7201".into()],
        ca: "/home/me/lab/ca.crt".into(),
        cert: Some("/home/me/lab/me.crt".into()),
        key: Some("/home/me/lab/me.key".into()),
        token_file: None,
    };
    let prod = crate::context::ContextDetail {
        name: Some("prod".into()),
        current: false,
        cert: None,
        key: None,
        token_file: Some("/home/me/prod.token".into()),
        ..lab.clone()
    };
    golden("context_show", &context(&lab, &screen()));
    let all = [lab, prod];
    golden("context_list", &contexts(&all, &screen()));
    golden("context_list_wide", &contexts(&all, &Screen { wide: true, ..screen() }));
}

#[test]
fn a_bundle_says_what_is_in_it() {
    let part = |name: &str, bytes| crate::bundle::PartSize { name: name.into(), bytes };
    let contents = crate::bundle::BundleContents {
        file: "hactl-debug-demo-20261123T052000Z.tar.gz".into(),
        bytes: 4_200,
        parts: vec![
            part("status.json", 812),
            part("events.json", 3_500_000),
            part("members/m1/metrics.txt", 20_000),
        ],
        missing: vec![crate::bundle::Missing {
            name: "members/m3/members.json".into(),
            why: "no member can be reached: 10.2.0.3:7201: connection refused".into(),
        }],
    };
    golden("debug_bundle", &bundle(&contents));
}

#[test]
fn details() {
    let story = mid_failover();
    let (facts, screen) = (story.facts(), screen());
    golden("node_show", &node(&facts.node(&name("n1")).unwrap(), &screen));
    golden("instance_show", &instance(&facts.instance(&name("web")).unwrap(), &screen));
    let id = facts.failovers()[0].id;
    golden("failover_show", &failover(&facts.failover(id).unwrap(), &screen));
    let text = policy(&facts.policy(&name("quick")).unwrap()).unwrap();
    assert_eq!(toml::from_str::<Policy>(&text).unwrap(), story.state.policies[&name("quick")].policy);
}

/// A memory module and a port are gone; the disks are more than was declared.
#[test]
fn a_node_shows_what_was_declared_what_was_found_and_what_is_missing() {
    let mut story = mid_failover();
    let mut documents = Documents { nodes: vec![node_described(3)], ..Documents::default() };
    let declared = "cpu_arch = \"x86_64\"\ncpu_model = \"EPYC\"\ncpus = 64\nmemory = \"384GiB\"\nboot_mode = \"uefi\"\n\
                    bios_profile = \"low-latency\"\ntraits = [\"CUSTOM_FPGA\", \"CUSTOM_TPM\"]\nfirmware = \"2.19\"\n\
                    disks = [{ type = \"nvme\", size = \"3.84TB\", count = 4 }]\nresource_class = \"baremetal.gold\"\n\
                    nics = [{ speed = \"25Gbps\", count = 2, rdma = \"roce\" }, { speed = \"1Gbps\" }]\n\
                    gpus = [{ pci = \"10de:2330\" }]\n";
    documents.nodes[0].capabilities = toml::from_str(declared).unwrap();
    story.then(92, "admin", Command::Describe(Box::new(documents)));
    let found = "cpu_arch = \"x86_64\"\ncpu_model = \"AMD EPYC 9354\"\ncpus = 64\nmemory = \"352GiB\"\nboot_mode = \"uefi\"\n\
                 disks = [{ type = \"nvme\", size = \"3.84TB\", count = 5 }]\nfirmware = \"2.19\"\n\
                 nics = [{ speed = \"25Gbps\", rdma = \"roce\" }, { speed = \"1Gbps\" }]\ngpus = [{ pci = \"10de:2330\" }]\n";
    let found = Box::new(toml::from_str(found).unwrap());
    story.leads(93, Step::Discover { node: name("n3"), found });
    let instance = InstanceRecord {
        instance: toml::from_str(
            "name = \"db\"\nnode = \"n3\"\npolicy = \"quick\"\n[requires]\ncpus_min = 32\nmemory_min = \"256GiB\"\n\
             disks = [{ type = \"nvme\", size_min = \"1TB\", count_min = 2 }]\nnics = [{ speed_min = \"25Gbps\", rdma = \"roce\" }]\n\
             gpus = [{ pci = \"10de\" }]\nfirmware_any = [\"2.19\", \"2.20\"]\ntraits = [\"CUSTOM_FPGA\"]\n",
        )
        .unwrap(),
        node: name("n3"),
        epoch: Epoch(1),
        evacuate: None,
        policy: name("quick"),
        backups: vec![],
    };
    story.state.instances.insert(name("db"), instance);
    let (facts, screen) = (story.facts(), screen());
    golden("node_show_hardware", &node(&facts.node(&name("n3")).unwrap(), &screen));
    golden("instance_show_requires", &super::instance(&facts.instance(&name("db")).unwrap(), &screen));
    let attention = facts.attention();
    assert!(
        attention.iter().any(|line| format!("{line:?}").contains("its hardware is not as declared")),
        "{attention:?}"
    );
}

#[test]
fn the_past_of_a_policy() {
    let mut story = mid_failover();
    let set = |changes: &[(&str, &str)], reason: &str| Command::SetPolicy {
        name: name("mine"),
        policy: Box::new(Policy::presets().remove(0).1.with(changes.iter().copied()).unwrap()),
        check: None,
        reason: reason.into(),
    };
    story.then(96, "admin", set(&[], "for the database"));
    let changes = [("detection.suspect_after", "3s"), ("detection.members_min", "2")];
    story.then(97, "token/deploy", set(&changes, "INC-4711"));
    let history = |story: &Story| {
        let now = Screen { now: Wall(BEGIN + 200_000), ..screen() };
        policy_history(&story.facts().policy_versions(&name("mine")), &now)
    };
    golden("policy_history", &history(&story));
    let delete = Command::DeletePolicy { name: name("mine"), check: None, reason: "nobody uses it".into() };
    story.then(98, "admin", delete);
    golden("policy_history_deleted", &history(&story));
}

#[test]
fn a_policy_says_why_it_is_the_one() {
    let mut story = mid_failover();
    let set = |which: &str, changes: &[(&str, &str)]| Command::SetPolicy {
        name: name(which),
        policy: Box::new(Policy::presets().remove(0).1.with(changes.iter().copied()).unwrap()),
        check: None,
        reason: "by tier".into(),
    };
    story.then(96, "admin", set("gold", &[("applies.labels", "tier=gold")]));
    story.then(97, "admin", set("acme", &[("applies.labels", "tier=gold"), ("applies.tenants", "acme,foo")]));
    let text =
        "[[instance]]\nname = \"db\"\nnode = \"n3\"\ntenant = \"acme\"\nlabels = { tier = \"gold\" }\n";
    story.then(98, "admin", Command::Describe(Box::new(toml::from_str(text).unwrap())));
    let effective = |instance: &str| {
        let text = effective_policy(&story.facts().effective_policy(&name(instance)).unwrap()).unwrap();
        text.lines()
            .take_while(|line| line.starts_with('#'))
            .map(|line| format!("{line}\n"))
            .collect::<String>()
    };
    golden("policy_effective", &(effective("db") + &effective("web")));
    golden(
        "instance_show_selected",
        &super::instance(&story.facts().instance(&name("db")).unwrap(), &screen()),
    );
}

#[test]
fn what_would_happen() {
    let story = mid_failover();
    let (db, web): (InstanceId, InstanceId) = (name("db"), name("web"));
    let missing = vec![(name("n2"), "label pool=gold is missing (by the policy)".to_owned())];
    let gap = Cover::Uncovered(Waiting::NoFittingSpare { missing });
    let mail: InstanceId = name("mail");
    let spares =
        [(db.clone(), Some(name("n2"))), (mail.clone(), Some(name("n3"))), (web.clone(), None)].into();
    let gives_up = vec![Concession::Strikes, Concession::DiffersIn];
    let short = Loss { spares, gives_up: [(mail.clone(), gives_up.clone())].into(), held: None };
    let coverage = Coverage {
        instances: [
            (name("cache"), Cover::Moving(PlanId(9))),
            (db, Cover::Spare(name("n2"))),
            (mail, Cover::Lesser { spare: name("n3"), gives_up }),
            (web.clone(), gap.clone()),
        ]
        .into(),
        losses: [
            ("rack/r1".to_owned(), short.clone()),
            (
                "rack/r3".to_owned(),
                Loss { held: Some(Held::Doubt { silent: 4, watched: 7 }), ..short.clone() },
            ),
        ]
        .into(),
        troubles: vec![
            checked(port("sw1/9"), Finding::Absent("there is no port sw1/9".into())),
            checked(image("web-7"), Finding::CannotTell("look for image web-7 at rack: no answer".into())),
        ],
    };
    golden("coverage", &super::coverage(&coverage, &screen()));
    golden("coverage_losing", &losing("rack/r1", &short, &screen()));
    let before = Cover::Spare(name("n2"));
    let held = Held::Brake {
        policy: name("quick"),
        key: "brakes.hold_above_failed_per_domain".into(),
        failed: 2,
        max: 1,
    };
    let quick = &story.state.policies[&name("quick")].policy;
    let changes = [("detection.members_min", "1"), ("brakes.hold_above_failed_per_domain", "1")];
    let preview = Preview {
        version: LogIndex(4711),
        new: false,
        changes: quick.with(changes).unwrap().changes_since(quick),
        instances: 2,
        protected: [(web.clone(), Changed { before: name("cautious"), after: name("quick") })].into(),
        verdicts: [(name("n3"), Changed { before: Verdict::Healthy, after: Verdict::Failed(Cause::Silent) })]
            .into(),
        fences: [(name("n3"), Changed { before: Fate::LeftAlone, after: Fate::Fenced { spare: None } })]
            .into(),
        covers: [(web, Changed { before, after: gap })].into(),
        losses: [(
            "rack/r3".to_owned(),
            Changed {
                before: LossTold { covered: 1, of: 1, held: None },
                after: LossTold { covered: 1, of: 1, held: Some(held) },
            },
        )]
        .into(),
        unable: vec![unable("a switch has no volumes")],
    };
    golden("policy_plan", &policy_plan(&name("quick"), &preview, &screen()));
}

fn unable(why: &str) -> Unable {
    let check = Check::Backup(Volume { provider: name("rack"), volume: name("vol-web") });
    Unable { policy: name("quick"), instance: name("web"), check, why: why.into() }
}

#[test]
fn what_storage_cannot_do_is_told() {
    let why = ["it keeps a volume only while nobody has it (`snapshot_in_use`)", "cannot tell: no answer"];
    golden("policy_lint", &super::policy_lint(&why.map(unable), &screen()));
    golden("policy_lint_nothing", &super::policy_lint(&[], &screen()));
}

#[test]
fn a_backup_says_what_was_kept_of_each_volume_or_why_nothing() {
    let mut story = calm();
    let quick = &story.state.policies[&name::<PolicyId>("quick")].policy;
    let policy = Box::new(quick.with([("backups.kept", "3")]).unwrap());
    let reason = "before upgrades".to_owned();
    story.then(92, "admin", Command::SetPolicy { name: name("quick"), policy, check: None, reason });
    let more = ["vol-db", "vol-log"].map(|volume| Volume { provider: name("rack"), volume: name(volume) });
    let web = story.state.instances.get_mut(&name::<InstanceId>("web")).unwrap();
    std::sync::Arc::make_mut(&mut web.instance).volumes.extend(more);
    let back_up = |story: &mut Story, at| {
        let reason = "before the upgrade".to_owned();
        story.then(at, "ann", Command::Backup { instance: name("web"), reason })
    };
    back_up(&mut story, 93);
    let actions = story.state.instances[&name::<InstanceId>("web")].backups[0].actions.clone();
    let refused =
        Refusal::DeviceRefused("iqn.n1 has the volume, and this storage host keeps none in use".into());
    let mut ends = [
        Outcome::Done(Seen::ReadBack("ha-b24".into())),
        Outcome::Refused(refused),
        Outcome::Unknown(Doubt::NoAnswer { waited: Millis(120_000) }),
    ]
    .into_iter();
    for action in actions {
        let token = story.leads(93, Step::Keep { instance: name("web"), action });
        story.leads(95, Step::Resolve { token, outcome: ends.next().unwrap() });
    }
    back_up(&mut story, 96);
    let action = story.state.instances[&name::<InstanceId>("web")].backups[1].actions[0].clone();
    story.leads(96, Step::Keep { instance: name("web"), action });
    let detail = story.facts().instance(&name("web")).unwrap();
    golden("instance_show_backups", &super::instance(&detail, &screen()));
    golden("explain_backup", &explanation(&explain(story.facts(), "instance/web").unwrap(), &screen()));
}

fn port(port: &str) -> Check {
    Check::Port(SwitchPort { provider: name("rack"), port: port.into() })
}

fn image(image: &str) -> Check {
    Check::Boot(Boot { provider: name("rack"), image: image.into() })
}

fn checked(check: Check, finding: Finding) -> Checked {
    Checked { check: check.into(), finding, age: Millis(12_000), lasting: Millis(425_000) }
}

#[test]
fn what_providers_say_beforehand_is_shown_with_the_node_and_the_instance() {
    let mut story = mid_failover();
    let ports = story.state.nodes[&name::<NodeId>("n2")].node.ports.clone();
    let volumes = story.state.instances[&name::<InstanceId>("web")].instance.volumes.clone();
    let fine = ports.into_iter().map(Check::Port).chain(volumes.into_iter().map(Check::Volume));
    story.view.checks = fine.map(|check| checked(check, Finding::Fine)).collect();
    story.view.checks.push(checked(port("of another node"), Finding::Fine));
    let volume = Volume { provider: name("rack"), volume: name("vol-web") };
    let cannot =
        Finding::Absent("this storage host cannot make snapshots: it has no `snapshot_program`".into());
    story.view.checks.push(checked(Check::Snapshot(volume), cannot));
    let why = "look for port sw1/2 at rack: cannot connect: Connection refused";
    story.view.checks[0].finding = Finding::CannotTell(why.into());
    let (facts, screen) = (story.facts(), screen());
    golden("node_show_checked", &node(&facts.node(&name("n2")).unwrap(), &screen));
    golden("instance_show_checked", &super::instance(&facts.instance(&name("web")).unwrap(), &screen));
}

#[test]
fn a_failover_says_what_was_kept_of_each_volume_or_why_nothing() {
    let mut story = mid_failover();
    let quick = &story.state.policies[&name::<PolicyId>("quick")].policy;
    let policy = Box::new(quick.with([("takeover.snapshot_max", "2s")]).unwrap());
    let reason = "data first".to_owned();
    story.then(92, "admin", Command::SetPolicy { name: name("quick"), policy, check: None, reason });
    let more = ["vol-db", "vol-log"].map(|volume| Volume { provider: name("rack"), volume: name(volume) });
    let web = story.state.instances.get_mut(&name::<InstanceId>("web")).unwrap();
    std::sync::Arc::make_mut(&mut web.instance).volumes.extend(more);
    let plan = story.facts().failovers()[0].id;
    let read_back = || Outcome::Done(Seen::ReadBack("snapshots ha-f3 ha-f9, token i24".into()));
    let isolate = story.state.phase_actions(&story.state.plans[&plan]);
    let isolate = isolate.into_iter().filter(|action| match action {
        Action::ClosePort { .. } => true,
        Action::Revoke { volume, .. } => volume.as_str() != "vol-web",
        _ => false,
    });
    for action in isolate {
        let token = story.leads(92, Step::Intend { plan, action });
        story.leads(93, Step::Resolve { token, outcome: read_back() });
    }
    story.leads(93, Step::Place { plan, tried: Millis(33_000) });
    let refused = Refusal::NotConfigured("this storage host cannot make snapshots".into());
    let mut ends =
        [read_back(), Outcome::Refused(refused), Outcome::Unknown(Doubt::NoAnswer { waited: Millis(2000) })]
            .into_iter();
    for action in story.state.snapshot_actions(&story.state.plans[&plan]) {
        let token = story.leads(93, Step::Intend { plan, action });
        story.leads(95, Step::Resolve { token, outcome: ends.next().unwrap() });
    }
    assert_eq!(ends.next(), None);
    golden("failover_show_snapshots", &failover(&story.facts().failover(plan).unwrap(), &screen()));
}

#[test]
fn explanations_answer_the_five_questions() {
    let story = mid_failover();
    let told = |target: &str| explanation(&explain(story.facts(), target).unwrap(), &screen());
    golden("explain_node", &told("n1"));
    golden("explain_spare", &told("node/n2"));
    golden("explain_instance", &told("instance/web"));
    let id = story.facts().failovers()[0].id;
    golden("explain_failover", &told(&id.to_string()));
    assert_eq!(told(&id.to_string()), told(&format!("failover/{id}")));
    let error = explain(story.facts(), "n9").unwrap_err();
    assert_eq!(error.to_string(), "there is no node, instance or failover \"n9\"");
}

#[test]
fn the_history_is_one_line_an_event() {
    let story = mid_failover();
    golden("events", &story.events.iter().map(|event| super::event(event, &screen())).collect::<String>());
}

#[test]
fn answers_to_orders() {
    let mut story = mid_failover();
    let index =
        story.then(91, "admin", Command::Disarm { reason: "maintenance of the switch".into(), until: None });
    let events = story.events.iter().filter(|event| event.index == index).cloned().collect();
    assert_eq!(
        committed(&Committed { index, events }),
        "admin disarmed the cluster: maintenance of the switch\n"
    );
    let mut documents = documents();
    documents.nodes[1].probe.tcp = None;
    documents.nodes.push(node_described(4));
    let objects = crate::api::compare::compare(&story.state, &mut documents);
    assert_eq!(documents.nodes.len(), 2);
    golden("apply", &described(&Described { objects, index: Some(index) }, &screen()));
}

#[test]
fn colours_are_for_terminals() {
    let story = mid_failover();
    let coloured = Screen { colour: true, ..screen() };
    let plain = status(&status_of(&story), &screen());
    let found = status(&status_of(&story), &coloured);
    assert!(!plain.contains('\x1b') && found.contains("\x1b[32myes\x1b[0m"));
}

proptest::proptest! {
    #[test]
    fn any_name_is_explained_or_refused(text in "\\PC{0,100}") {
        let story = mid_failover();
        if let Err(error) = explain(story.facts(), &text) {
            assert!(error.to_string().contains("there is no"), "{error}");
        }
    }
}

#[test]
fn a_replay_shows_what_would_be_different_and_what_nobody_knows() {
    use policies::flight::{Duty, Fact, Record, Sign, Standing};
    use policies::replay::{Trial, in_order, replay};
    let at = |at: u64, fact| Record { at: Wall(BEGIN + at), fact };
    let sign = |ms, node: &str, sign| at(ms, Fact::Node(name(node), sign));
    let tape = |member: u64| {
        let begin = Fact::Began { boot: BootId(1), lost: 0, domain: "room".into() };
        let mut records = vec![at(0, begin)];
        for node in ["n1", "n2", "n3"] {
            let duty = Duty::Protected(name("cautious"));
            let standing = Standing { duty, has_probe: true, has_agent: true, domains: [].into() };
            records.push(sign(1, node, Sign::Stands(standing)));
            records.push(sign(2, node, Sign::Heard { epoch: Epoch(1) }));
        }
        records.push(sign(21_200, "n1", Sign::Gap { lasting: Millis(1200) }));
        records.extend((1..6).map(|mark| at(mark * 10_000, Fact::Mark)));
        records.push(sign(62_000, "n2", Sign::Silent { lasting: Millis(2000) }));
        records.push(sign(62_200, "n2", Sign::Asked(Some(false))));
        records.push(at(70_000, Fact::Mark));
        records.sort_by_key(|record| record.at);
        (MemberId(member), records.into_iter())
    };
    let in_force: std::collections::BTreeMap<PolicyId, Policy> = Policy::presets().into_iter().collect();
    let trial = Trial {
        candidate: in_force[&name::<PolicyId>("cautious")].with([("detection.suspect_after", "1s")]).unwrap(),
        in_force,
        name: name("cautious"),
        voters: 3,
        since: Wall(BEGIN),
        failover_takes: Millis(90_000),
    };
    let replay = replay(&trial, in_order([tape(1), tape(2)])).unwrap();
    let missing =
        vec![(MemberId(3), "no member can be reached: 10.0.0.3:7201: Connection refused".to_owned())];
    let candidate = "mine.toml".to_owned();
    let all = Replayed { candidate, missing, failover_takes: Millis(90_000), failovers_measured: 4, replay };
    golden("policy_replay", &replayed(&all, &screen()));
}
