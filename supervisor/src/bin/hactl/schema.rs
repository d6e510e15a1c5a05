//! What each verb prints with `-o json` and `-o yaml`, for `docs/CLI.md`; compared with it by a test.
//!
//! Why it exists: scripts rest on these types, so whoever adds a verb must say which one it prints, and whoever takes a
//! type away must see it. What it never does: name a type that the API does not describe.

use crate::args::Cli;
use clap::CommandFactory;
use serde_json::Value;
use std::path::Path;

/// What is printed.
enum Prints {
    /// The answer to a request, with the method and the path by which `/openapi.json` has it.
    Answer(&'static str, &'static str),
    /// A type of this program, and what it says.
    Own(&'static str),
    /// Nothing for programs; what is printed instead.
    Text(&'static str),
}
use Prints::{Answer, Own, Text};

const COMMITTED: Prints = Answer("post", "/v1/arm");

/// Every verb.
const VERBS: &[(&str, Prints)] = &[
    ("apply", Answer("post", "/v1/apply")),
    ("arm", COMMITTED),
    ("completion", Text("a script for the shell")),
    ("confirm-off", Answer("post", "/v1/nodes/{name}/confirm-off")),
    (
        "context list",
        Own(
            "`ContextDetail`, a list: `name`, `current`, `file`, `endpoints`, `ca`, `cert`, `key`, `token_file`",
        ),
    ),
    ("context show", Own("`ContextDetail`")),
    ("context use", Text("a line")),
    (
        "coverage",
        Own(
            "`Coverage`: `instances` (by name: `spare`, `lesser`, `moving` or `uncovered`), `losses` (by domain: `spares`, `gives_up`, `held`), `troubles` (what failovers would need and is not fine; absent: nothing); with `--losing` one of `losses`",
        ),
    ),
    (
        "debug bundle",
        Own("`BundleContents`: `file`, `bytes`, `parts` (`name`, `bytes`), `missing` (`name`, `why`)"),
    ),
    ("disarm", Answer("post", "/v1/disarm")),
    ("events", Answer("get", "/v1/events")),
    ("explain", Answer("get", "/v1/explain/{target}")),
    ("failover approve", Answer("post", "/v1/instances/{name}/approve")),
    ("failover cancel", Answer("post", "/v1/failovers/{id}/cancel")),
    ("failover list", Answer("get", "/v1/failovers")),
    ("failover show", Answer("get", "/v1/failovers/{id}")),
    ("fence", Answer("post", "/v1/nodes/{name}/fence")),
    ("instance backup", Answer("post", "/v1/instances/{name}/backup")),
    ("instance delete", Answer("delete", "/v1/instances/{name}")),
    ("instance evacuate", Answer("post", "/v1/instances/{name}/evacuate")),
    ("instance list", Answer("get", "/v1/instances")),
    ("instance show", Answer("get", "/v1/instances/{name}")),
    ("man", Text("nothing; it writes files")),
    ("member add", Answer("post", "/v1/members")),
    ("member list", Answer("get", "/v1/members")),
    ("member remove", Answer("delete", "/v1/members/{id}")),
    ("member transfer", Own("`Transfer`, as in the request")),
    ("node console", Text("what the console says, as it is")),
    ("node cordon", Answer("post", "/v1/nodes/{name}/cordon")),
    ("node delete", Answer("delete", "/v1/nodes/{name}")),
    ("node drain", Answer("post", "/v1/nodes/{name}/drain")),
    ("node list", Answer("get", "/v1/nodes")),
    ("node maintenance", Answer("post", "/v1/nodes/{name}/maintenance")),
    ("node nmi", Answer("post", "/v1/nodes/{name}/nmi")),
    ("node power off", Answer("post", "/v1/nodes/{name}/power")),
    ("node power on", Answer("post", "/v1/nodes/{name}/power")),
    ("node power status", Answer("get", "/v1/nodes/{name}/power")),
    ("node release", Answer("post", "/v1/nodes/{name}/release")),
    ("node show", Answer("get", "/v1/nodes/{name}")),
    ("node uncordon", Answer("post", "/v1/nodes/{name}/cordon")),
    ("openstack drift", Answer("get", "/v1/providers/{name}/inventory")),
    (
        "openstack import",
        Own("`ProviderInventory`; with `--apply`, `Described`; with `--document`, TOML for `hactl apply`"),
    ),
    ("policy delete", Answer("delete", "/v1/policies/{name}")),
    ("policy edit", Answer("put", "/v1/policies/{name}")),
    ("policy effective", Answer("get", "/v1/instances/{name}/policy")),
    ("policy get", Answer("get", "/v1/policies/{name}")),
    ("policy history", Answer("get", "/v1/policies/{name}/history")),
    (
        "policy lint",
        Own(
            "without a file `Unable`, a list: `policy`, `instance`, `check` (what is wanted, of which provider), `why`; with one a line",
        ),
    ),
    ("policy list", Answer("get", "/v1/policies")),
    (
        "policy plan",
        Own(
            "`Preview`: `version`, `new`, `changes` (`key`, `old`, `new`), `instances`, and `before` and `after` of what would change in `protected`, `verdicts`, `fences`, `covers`, `losses`; `unable` (what storage cannot do of it; absent: nothing)",
        ),
    ),
    (
        "policy replay",
        Own(
            "`Replayed`: `candidate`, `missing`, `failover_takes`, and `replay` with `members`, `in_force`, `candidate`, `differences`, `downtime_ms`, `notes`",
        ),
    ),
    ("policy rollback", Answer("put", "/v1/policies/{name}")),
    ("policy set", Answer("put", "/v1/policies/{name}")),
    ("provider delete", Answer("delete", "/v1/providers/{name}")),
    ("provider list", Answer("get", "/v1/providers")),
    ("spare add", Answer("post", "/v1/apply")),
    ("spare list", Answer("get", "/v1/spares")),
    ("spare release", Answer("post", "/v1/nodes/{name}/release")),
    ("spare remove", Answer("delete", "/v1/nodes/{name}")),
    ("status", Answer("get", "/v1/status")),
    ("watch", Text("the whole terminal")),
];

/// The verbs that do something, by their paths, with their commands.
pub(crate) fn leaves() -> Vec<(String, clap::Command)> {
    fn below(command: &clap::Command, path: &str, found: &mut Vec<(String, clap::Command)>) {
        for verb in command.get_subcommands() {
            let path = format!("{path} {}", verb.get_name()).trim_start().to_owned();
            match verb.has_subcommands() {
                true => below(verb, &path, found),
                false => found.push((path, verb.clone())),
            }
        }
    }
    let mut found = vec![];
    below(&Cli::command(), "", &mut found);
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found
}

/// The type of an answer with status 200, by its name in `/openapi.json`.
fn type_of(api: &Value, method: &str, path: &str) -> String {
    let answer = &api["paths"][path][method]["responses"]["200"]["content"]["application/json"]["schema"];
    let name = |schema: &Value| {
        let reference = schema["$ref"].as_str().unwrap_or_else(|| panic!("{method} {path}: {answer}"));
        reference.rsplit('/').next().unwrap_or_default().to_owned()
    };
    match answer["type"].as_str() {
        Some("array") => format!("`{}`, a list", name(&answer["items"])),
        Some(_) | None => format!("`{}`", name(answer)),
    }
}

fn table() -> String {
    let api = serde_json::to_value(supervisor::api::description()).unwrap();
    let mut text = "| verb | prints |\n| --- | --- |\n".to_owned();
    for (verb, prints) in VERBS {
        let prints = match prints {
            Answer(method, path) => type_of(&api, method, path),
            Own(what) => (*what).to_owned(),
            Text(what) => format!("no JSON: {what}"),
        };
        text.push_str(&format!("| `{verb}` | {prints} |\n"));
    }
    text
}

#[test]
fn the_page_says_what_each_verb_prints() {
    let verbs: Vec<String> = leaves().into_iter().map(|(path, _)| path).collect();
    let named: Vec<&str> = VERBS.iter().map(|(verb, _)| *verb).collect();
    assert_eq!(verbs, named, "name each verb, in order, in VERBS");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/CLI.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- verbs: made by a test -->\n", "<!-- end of verbs -->");
    let (before, rest) = page.split_once(begin).unwrap();
    let (found, after) = rest.split_once(end).unwrap();
    let expected = table();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, format!("{before}{begin}{expected}{end}{after}")).unwrap();
        return;
    }
    assert_eq!(found, expected, "run with UPDATE_EXPECT=1 and read the difference");
}

#[test]
fn every_verb_has_a_manual_page_and_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    clap_mangen::generate_to(Cli::command(), dir.path()).unwrap();
    let mut script = vec![];
    clap_complete::generate(clap_complete::Shell::Bash, &mut Cli::command(), "hactl", &mut script);
    let script = String::from_utf8(script).unwrap();
    for (path, verb) in leaves() {
        let page = dir.path().join(format!("hactl-{}.1", path.replace(' ', "-")));
        let text =
            std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        assert!(text.contains("Example"), "{path}");
        for option in verb.get_arguments().filter_map(clap::Arg::get_long) {
            assert!(text.contains(&option.replace('-', "\\-")), "{path}: --{option} is not in its page");
            assert!(script.contains(&format!("--{option}")), "{path}: --{option} is not completed");
        }
        let case = format!("hactl__subcmd__{}", path.replace(['-', ' '], "__subcmd__"));
        assert!(script.contains(&case), "{path} is not completed: {case}");
    }
}
