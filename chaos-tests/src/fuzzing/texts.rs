//! Targets of texts that people and programs write: `documents_toml`, `policy_set`, `agent_config`, `member_config`,
//! `tokens_file`, `api_body`.
//!
//! Why it exists: bad input gets an error that says where, and changes nothing; what is taken is what was written.

use policies::{ClusterState, Documents, Policy, PolicyId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::path::Path;
use std::sync::LazyLock;
use supervisor::api::{Applying, NewMember, Policing, Reason, Switch, Transfer};
use supervisor::config::{Config, ConfigError};
use supervisor::document::{self, DocumentError};
use supervisor::parse;
use zeroize::Zeroizing;

/// Begins the secrets of the seeds: no error may show it.
const SECRET: &str = "c0ffee";

/// Reading them takes longer than all that is done with them here.
static PRESETS: LazyLock<Vec<(PolicyId, Policy)>> = LazyLock::new(Policy::presets);

fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// An error points into the text.
fn points_into(text: &str, error: &DocumentError) {
    let lines = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
    assert!((1..=lines).contains(&error.line), "line {} of {lines}", error.line);
}

/// What is given to `hactl apply -f`.
pub(super) fn documents(data: &[u8]) -> bool {
    let Some(text) = text(data) else { return false };
    let documents: Documents = match document::read("fuzz.toml", text) {
        Ok(documents) => documents,
        Err(error) => {
            points_into(text, &error);
            return false;
        }
    };
    let again = toml::to_string(&documents).expect("documents can be written");
    assert_eq!(
        document::read("again.toml", &again).as_ref(),
        Ok(&documents),
        "written again they say something else"
    );
    let state = ClusterState::default();
    if state.check_documents(&documents).is_ok() {
        let holds = |policy: &Policy| policy.validate().is_ok();
        assert!(
            documents.policies.iter().all(|document| holds(&document.policy)),
            "a contradiction was taken"
        );
    }
    assert_eq!(state, ClusterState::default(), "a check changed something");
    true
}

pub(super) fn documents_seeds() -> Vec<Vec<u8>> {
    let node = "[[node]]\nname = \"n1\"\nagent_key = \"k\"\ninitiator = \"iqn.n1\"\ndomains = { rack = \"r1\" }\n\
                labels = { cpu = \"x\" }\nprobe = { tcp = \"10.0.0.1:22\", icmp = \"10.0.0.1\" }\n\
                ports = [{ provider = \"rack\", port = \"n1-0\" }]\n\
                identity = { guid = \"00112233445566778899aabbccddeeff\" }\n[[node.fencing]]\ndriver = \"ipmi\"\n\
                address = \"10.0.1.1:623\"\nuser = \"ha\"\npassword = \"p\"\ncipher_suite = 3\n";
    let rack =
        "[[provider]]\nname = \"rack\"\nkind = \"rack\"\nurl = \"http://127.0.0.1:1\"\ntoken = \"t\"\n";
    let instance = "[[instance]]\nname = \"db\"\nnode = \"n1\"\npolicy = \"quick\"\ntenant = \"acme\"\n\
                    labels = { tier = \"gold\" }\nneeds = { cpu = \"x\" }\n\
                    volumes = [{ provider = \"rack\", volume = \"v1\" }]\nnetworks = [{ vlan = 10, mac = \"m\" }]\n\
                    boot = { provider = \"rack\", image = \"img\" }\n";
    let policy = Policy::presets().into_iter().next().expect("a preset").1;
    let policy = policy.with(CHOICES).expect("choices that hold");
    let policy = toml::to_string(&policy).expect("a policy can be written");
    let sections = format!("\n{policy}").replace("\n[", "\n[policy.");
    let policy = format!("[[policy]]\nname = \"mine\"{sections}");
    let whole = [rack, node, instance].concat();
    [node, rack, instance, &whole, &policy].map(|text| text.as_bytes().to_vec()).to_vec()
}

/// What is given to `hactl policy set`: a line for each `section.key=value`, on the preset that the first byte names.
pub(super) fn policy_set(data: &[u8]) -> bool {
    let Some((choice, data)) = data.split_first() else { return false };
    let Some(text) = text(data) else { return false };
    let (_, old) = &PRESETS[usize::from(*choice) % PRESETS.len()];
    let changes: Vec<_> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let Ok(new) = old.with(changes.iter().copied()) else { return false };
    assert_eq!(new.validate(), Ok(()), "a contradiction was taken");
    assert_eq!(
        new.with(changes.iter().copied()).as_ref(),
        Ok(&new),
        "the same change twice is another change"
    );
    assert!(!changes.is_empty() || new == *old, "no change changed something");
    let again = toml::to_string(&new).expect("a policy can be written");
    assert_eq!(toml::from_str(&again).as_ref(), Ok(&new), "written again it says something else");
    !changes.is_empty()
}

/// Which instances, when, and what is given up.
const CHOICES: [(&str, &str); 6] = [
    ("applies.tenants", "acme,foo"),
    ("applies.labels", "tier=gold"),
    ("spares.differs_in", "rack"),
    ("spares.give_up", "differs_in,labels"),
    ("acting.windows", "Mon,Wed..Fri 08:00-18:00,Sat 22:00-02:00"),
    ("acting.outside", "shadow"),
];

pub(super) fn policy_set_seeds() -> Vec<Vec<u8>> {
    let choices: String = CHOICES.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
    let times = "detection.suspect_after=1s\ndetection.gray_after=1m\nfencing.isolation_alone=never\n";
    let counts = "brakes.fences_per_10min_max=9\nbrakes.hold_above_failed=7\ndetection.members_min=2\n";
    let others = "fencing.power_alone=true\nfencing.isolation_alone=5s\ntakeover.start_deadline=1d\n";
    let others = format!("{others}{choices}");
    [times, counts, &others]
        .into_iter()
        .zip(0..)
        .map(|(text, at)| [&[at][..], text.as_bytes()].concat())
        .collect()
}

/// The configuration of an agent. Its other files are read as the text of a key.
pub(super) fn agent_config(data: &[u8]) -> bool {
    let Some(text) = text(data) else { return false };
    let other = |_: &Path, _: &'static str| Ok(Zeroizing::new("ab".repeat(32)));
    // Elsewhere the same letters may be a name, which may be shown.
    let is_key = |line: &&str| line.starts_with("key = \"") && line.contains(SECRET);
    let secret = text.lines().filter(is_key).count();
    let is_secret = secret > 0 && secret == text.matches(SECRET).count();
    match ha_agent::config::Config::parse(Path::new("agent.toml"), text, other) {
        Ok(config) => {
            let (paths, members) = (&config.paths, |path: &ha_agent::config::PathConfig| path.members.len());
            assert!(
                (1..=8).contains(&paths.len()) && paths.iter().all(|path| (1..=16).contains(&members(path)))
            );
            assert!((10..=60_000).contains(&config.interval.0), "an interval of {}", config.interval);
            assert!(!is_secret || !format!("{config:?}").contains(SECRET), "a configuration shows its key");
            if let Some(watchdog) = &config.watchdog {
                let most = paths.iter().map(members).max().unwrap_or_default();
                let majority = 2 * watchdog.rules.quorum > watchdog.members && watchdog.members >= most;
                assert!(majority, "no majority keeps the node alive: {watchdog}");
                assert!(watchdog.device.is_some() || watchdog.bmc.is_some(), "nothing is fed");
            }
            true
        }
        Err(error) => {
            assert!(!is_secret || !error.to_string().contains(SECRET), "an error shows the key: {error}");
            false
        }
    }
}

pub(super) fn agent_config_seeds() -> Vec<Vec<u8>> {
    let key = format!("key = \"{SECRET}{}\"\n", "0".repeat(58));
    let paths = "[[paths]]\nname = \"blue\"\nbind = \"127.0.0.1:0\"\nmembers = [\"127.0.0.1:7201\", \"10.0.0.2:7\"]\n\
                 [[paths]]\nname = \"green\"\nmembers = [\"[::1]:7201\"]\n\
                 [write_probe]\nfile = \"/srv/written\"\nmode = \"age-of-file\"\n";
    let inline = format!("node = \"n1\"\n{key}boot_id = \"one\"\nepoch = 3\ninterval = \"100ms\"\n{paths}");
    let watchdog =
        "[watchdog]\nbmc = \"/dev/ipmi0\"\ntimeout = \"5s\"\nheard_within = \"20s\"\nmembers = 3\n";
    let files = format!("node = \"n1\"\nkey_file = \"/k\"\nepoch_file = \"/e\"\n{paths}{watchdog}");
    let least = format!("node = \"n1\"\n{key}paths = [{{ name = \"a\", members = [\"10.0.0.1:1\"] }}]\n");
    vec![inline.into_bytes(), files.into_bytes(), least.into_bytes()]
}

/// The configuration of a member.
pub(super) fn member_config(data: &[u8]) -> bool {
    let Some(text) = text(data) else { return false };
    match Config::parse("config.toml", text) {
        Ok(config) => {
            let member = &config.member;
            let sockets = [member.member_socket(), member.api_socket(), member.heartbeat_socket()];
            assert!(sockets.iter().all(Result::is_ok), "a member that cannot listen was taken");
            let raft = &config.raft;
            let apart =
                raft.election_min.0 / 3 >= raft.heartbeat.0 && raft.election_max.0 > raft.election_min.0;
            assert!(apart, "elections between heartbeats were taken: {raft:?}");
            true
        }
        Err(ConfigError::Document(error)) => {
            points_into(text, &error);
            false
        }
        Err(ConfigError::File(_) | ConfigError::Value { .. }) => false,
    }
}

pub(super) fn member_config_seeds() -> Vec<Vec<u8>> {
    let least = "[cluster]\nname = \"demo\"\nid = \"00112233445566778899aabbccddeeff\"\n[member]\nid = 1\n\
                 member_addr = \"127.0.0.1:7101\"\napi_addr = \"127.0.0.1:7201\"\nheartbeat_addr = \"[::1]:7301\"\n";
    let more = "domain = \"room-1\"\nmember_listen = \"0.0.0.0:7101\"\n[raft]\nheartbeat = \"80ms\"\n\
                election_min = \"250ms\"\nelection_max = \"450ms\"\n[history]\nkeep = \"90d\"\n[api]\n\
                connections_max = 512\nbody_bytes_max = 8192\nheader_time_max = \"5s\"\nrequest_time_max = \"10s\"\n\
                [log]\nfilter = \"info\"\nformat = \"json\"\n";
    let named = least.replace("127.0.0.1:7101", "ha1.example:7101");
    [least.to_owned(), format!("{least}{more}"), format!("{named}{more}")].map(String::into_bytes).to_vec()
}

/// The hashes of the API tokens.
pub(super) fn tokens(data: &[u8]) -> bool {
    let Some(text) = text(data) else { return false };
    let Ok(callers) = parse::tokens(text) else { return false };
    assert!(callers.len() <= 1000, "{} tokens", callers.len());
    assert!(callers.iter().all(|caller| caller.starts_with("token/")), "a token speaks for something else");
    !callers.is_empty()
}

pub(super) fn tokens_seeds() -> Vec<Vec<u8>> {
    let token = |name: &str, role: &str| {
        let hash = "5d".repeat(32);
        format!(
            "[[token]]\nname = \"{name}\"\nrole = \"{role}\"\nblake3 = \"{hash}\"\ncreated = \"2026-01-01\"\n"
        )
    };
    let (reader, operator) = (token("prometheus", "reader"), token("ci", "operator"));
    vec![reader.clone().into_bytes(), [reader, operator].concat().into_bytes()]
}

/// The body of a request; the first byte says of which kind.
pub(super) fn body(data: &[u8]) -> bool {
    let Some((choice, body)) = data.split_first() else { return false };
    match choice % 6 {
        0 => takes::<Reason>(body),
        1 => takes::<Switch>(body),
        2 => takes::<Policing>(body),
        3 => takes::<Applying>(body),
        4 => takes::<NewMember>(body),
        _ => takes::<Transfer>(body),
    }
}

fn takes<T: DeserializeOwned + Serialize + PartialEq + Debug>(body: &[u8]) -> bool {
    let read: T = match parse::body(body) {
        Ok(read) => read,
        Err(problem) => {
            assert!(!problem.error.is_empty() && !problem.hint.is_empty(), "a refusal that says nothing");
            return false;
        }
    };
    let whole = serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
    assert!(whole, "a part of a body was taken for the whole");
    let again = serde_json::to_vec(&read).expect("a body can be written");
    assert_eq!(parse::body::<T>(&again).ok().as_ref(), Some(&read), "written again it says something else");
    true
}

pub(super) fn body_seeds() -> Vec<Vec<u8>> {
    let (_, policy) = Policy::presets().into_iter().next().expect("a preset");
    let changes = vec![("detection.suspect_after".to_owned(), "1s".to_owned())];
    let single = Policing { changes, policy: None, check: None, reason: "why".into() };
    let whole = Policing {
        changes: vec![],
        policy: Some(policy),
        check: Some(policies::LogIndex(7)),
        reason: "why".into(),
    };
    let documents: Vec<Documents> =
        documents_seeds().iter().filter_map(|text| toml::from_slice(text).ok()).collect();
    let mut seeds = vec![
        written(0, &Reason { reason: "dead disk".to_owned() }),
        written(1, &Switch { on: true, reason: Some("new fans".to_owned()), until: None }),
        written(2, &single),
        written(2, &whole),
        written(
            4,
            &serde_json::json!({ "id": 4, "member_addr": "10.0.0.4:7101", "api_addr": "10.0.0.4:7201" }),
        ),
        written(5, &serde_json::json!({ "to": 2 })),
    ];
    seeds.extend(documents.iter().map(|documents| written(3, documents)));
    seeds
}

fn written<T: Serialize>(kind: u8, body: &T) -> Vec<u8> {
    [&[kind][..], &serde_json::to_vec(body).expect("a body can be written")].concat()
}
