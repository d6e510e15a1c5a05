//! The rules of this repository that are stated by absence: what no file may contain, what no crate may know.
//! Why it exists: a reviewer sees what is there; only a machine sees every time that something is not there.
//! What it never does: judge style. Each check is a function of text, with a test that shows that it fires.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Longest source file, in lines. Longer ones are two things in one file.
const LINES_MAX: usize = 800;
/// Scenarios that there must be at least.
const SCENARIOS_MIN: usize = 40;

// ---- what is checked -------------------------------------------------------------------------------------------

#[test]
fn crates_form_a_star_around_policies() {
    none(
        files("toml")
            .iter()
            .filter(|(path, _)| path.ends_with("Cargo.toml"))
            .flat_map(|(path, text)| star(path, text)),
    );
}

#[test]
fn the_brain_has_no_hands() {
    none(brain().iter().flat_map(|(path, text)| impure(path, text)));
}

#[test]
fn new_variants_make_the_compiler_ask() {
    none(wildcards_are_denied(&read("policies/src/lib.rs")));
}

#[test]
fn every_reason_has_a_scenario() {
    let scenarios: Vec<String> = files("scn").into_values().collect();
    assert!(scenarios.len() >= SCENARIOS_MIN, "{} scenarios, {SCENARIOS_MIN} are the least", scenarios.len());
    let reasons = [
        ("waiting.rs", "Waiting", "wait"),
        ("command.rs", "Rejected", "no"),
        ("effect.rs", "Refusal", "end"),
    ];
    none(reasons.iter().flat_map(|(file, name, line)| {
        let variants = variants(&read(&format!("policies/src/{file}")), name);
        assert!(!variants.is_empty(), "no variant of {name} was found in {file}");
        unshown(name, &variants, line, &scenarios)
    }));
}

#[test]
fn tests_wait_for_conditions() {
    none(files("rs").iter().flat_map(|(path, text)| sleeps(path, &tests_of(path, text))));
}

#[test]
fn only_tests_and_the_simulator_stop_the_clock() {
    let files = files("rs");
    let product = files.iter().filter(|(path, _)| !path.starts_with("chaos-tests/") && !is_test_file(path));
    none(product.flat_map(|(path, text)| stopped_clocks(path, &code_of(text).0)));
}

#[test]
fn nothing_is_left_for_later_and_every_exception_has_a_reason() {
    none(files("rs").iter().flat_map(|(path, text)| unfinished(path, text)));
}

#[test]
fn no_file_is_too_long() {
    none(files("rs").iter().flat_map(|(path, text)| too_long(path, text)));
}

#[test]
fn no_file_names_a_package_registry() {
    let texts = ["rs", "toml", "md", "yml", "yaml", "sh", "scn", "txt", "run", "service", "Makefile"];
    none(texts.iter().flat_map(|ending| files(ending)).flat_map(|(path, text)| registries(&path, &text)));
}

#[test]
fn every_decision_record_is_listed() {
    let records: Vec<String> = files("md")
        .into_keys()
        .filter_map(|path| path.strip_prefix("docs/adr/").map(str::to_owned))
        .filter(|name| name != "README.md")
        .collect();
    none(unlisted(&records, &files("md").remove("docs/adr/README.md").unwrap_or_default()));
}

fn none(findings: impl Iterator<Item = String>) {
    let findings: Vec<String> = findings.collect();
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

// ---- the repository --------------------------------------------------------------------------------------------

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("read {path}: {error}"))
}

/// Every text file whose name ends so, by its path from the root. Hidden folders are looked into, except git's.
fn files(ending: &str) -> BTreeMap<String, String> {
    let (root, mut found, mut folders) = (root(), BTreeMap::new(), vec![root()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let kind = entry.file_type().unwrap();
            if kind.is_dir() && name != ".git" && name != "target" {
                folders.push(path);
            } else if kind.is_file() && (name == ending || name.ends_with(&format!(".{ending}"))) {
                let short = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                found.insert(short, fs::read_to_string(&path).unwrap_or_default());
            }
        }
    }
    found
}

/// The sources of the brain without their tests.
fn brain() -> BTreeMap<String, String> {
    let is_brain = |path: &String| path.starts_with("policies/src/") && !is_test_file(path);
    files("rs")
        .into_iter()
        .filter(|(path, _)| is_brain(path))
        .map(|(path, text)| (path, code_of(&text).0))
        .collect()
}

fn is_test_file(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs")
}

/// The test code of a file: all of it below `tests/`, else what follows `#[cfg(test)]`.
fn tests_of(path: &str, text: &str) -> String {
    if is_test_file(path) { bare(text) } else { code_of(text).1 }
}

/// Code without comments and strings, and the same of its tests. By our habit the tests come last in a file.
fn code_of(text: &str) -> (String, String) {
    let bare = bare(text);
    let is_block = |at: &usize| {
        let item = &bare[*at..];
        item.find('{') < item.find(';').or(Some(usize::MAX)) && item.contains('{')
    };
    let tests =
        bare.match_indices("#[cfg(test)]\nmod ").map(|(at, _)| at).find(is_block).unwrap_or(bare.len());
    let (code, tests) = bare.split_at(tests);
    (code.to_owned(), tests.to_owned())
}

/// A source text with comments and the contents of strings taken out; lines stay where they are.
fn bare(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(next) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(hashes) = raw_string(rest) {
            let (open, close) = (hashes + 2, format!("\"{}", "#".repeat(hashes)));
            rest[open..].find(&close).map_or(rest.len(), |end| open + end + close.len())
        } else if next == '"' {
            string_end(rest)
        } else if rest.starts_with("'\"'") {
            3
        } else if rest.starts_with("'\\\"'") || rest.starts_with("'\\\\'") {
            4
        } else {
            out.push(next);
            rest = &rest[next.len_utf8()..];
            continue;
        };
        let (gone, left) = rest.split_at(skipped);
        out.extend(gone.chars().filter(|c| *c == '\n'));
        rest = left;
    }
    out
}

/// The number of hashes if a raw string begins here.
fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then_some(hashes)
}

/// Where a string that begins here has ended.
fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// Each line that holds one of the words, with its place.
fn lines_with(path: &str, text: &str, words: &[&str], why: &str) -> Vec<String> {
    let numbered = text.lines().enumerate();
    let hits = numbered.flat_map(|(at, line)| {
        words
            .iter()
            .filter(|word| has_word(line, word))
            .map(move |word| format!("{path}:{}: `{word}` {why}", at + 1))
    });
    hits.collect()
}

/// True if `word` stands in the line by itself, not as a part of a longer name.
fn has_word(line: &str, word: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        let ends_open = word.ends_with(['(', '!', ':']);
        !part(line[..at].chars().last()) && (ends_open || !part(line[at + word.len()..].chars().next()))
    })
}

// ---- the checks ------------------------------------------------------------------------------------------------

/// Which of our crates each of them may use, in its library and in its tests.
const STAR: [(&str, &[&str]); 9] = [
    ("policies", &[]),
    ("raft-store", &["policies"]),
    // What two hands need that do not know each other (docs/adr/0022).
    ("openstack", &["policies"]),
    ("fencing", &["policies", "openstack"]),
    ("provisioning", &["policies", "openstack"]),
    ("ha-agent", &["policies"]),
    ("supervisor", &["policies", "raft-store", "openstack", "fencing", "provisioning", "ha-agent"]),
    (
        "chaos-tests",
        &["policies", "raft-store", "openstack", "fencing", "provisioning", "ha-agent", "supervisor"],
    ),
    ("chaos-tests-fuzz", &["chaos-tests"]),
];

/// Only the memory knows how it remembers.
const ENGINES: [&str; 3] = ["openraft", "redb", "sled"];

fn star(path: &str, manifest: &str) -> Vec<String> {
    let table: toml::Table = manifest.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
    let name = table.get("package").and_then(|package| package.get("name")).and_then(toml::Value::as_str);
    let Some(name) = name else { return vec![] };
    let Some((_, allowed)) = STAR.iter().find(|(ours, _)| *ours == name) else {
        return vec![format!("{path}: {name} has no place in the star: say in tidy.rs what it may use")];
    };
    let mut uses = vec![];
    let targets =
        table.get("target").and_then(toml::Value::as_table).into_iter().flat_map(|targets| targets.values());
    for section in targets.filter_map(toml::Value::as_table).chain([&table]) {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            uses.extend(
                section.get(kind).and_then(toml::Value::as_table).into_iter().flat_map(|table| table.keys()),
            );
        }
    }
    let is_ours = |used: &str| STAR.iter().any(|(ours, _)| *ours == used);
    let wrong = |used: &&&String| {
        is_ours(used) && !allowed.contains(&used.as_str())
            || ENGINES.contains(&used.as_str()) && name != "raft-store"
    };
    uses.iter().filter(wrong).map(|used| format!("{path}: {name} must not depend on {used}")).collect()
}

fn impure(path: &str, code: &str) -> Vec<String> {
    let hands = [
        "async",
        "await",
        "tokio",
        "std::time",
        "Instant",
        "SystemTime",
        "rand",
        "std::fs",
        "std::net",
        "std::io",
        "std::env",
        "HashMap",
        "HashSet",
        "println!",
        "eprintln!",
        "tracing",
        "log",
        "std::thread",
        "std::process",
    ];
    lines_with(path, code, &hands, "in the brain, which has no hands, clock, chance or order of its own")
}

fn wildcards_are_denied(lib: &str) -> std::vec::IntoIter<String> {
    let denied = bare(lib).contains("#![deny(clippy::wildcard_enum_match_arm)]");
    let finding = "policies/src/lib.rs does not deny clippy::wildcard_enum_match_arm".to_owned();
    Some(finding).filter(|_| !denied).into_iter().collect::<Vec<_>>().into_iter()
}

/// The variants of an enum, as `rustfmt` writes them: four blanks and a capital.
fn variants(source: &str, name: &str) -> Vec<String> {
    let body = source.split_once(&format!("pub enum {name} {{\n")).map_or("", |(_, body)| body);
    let body = body.split_once("\n}").map_or(body, |(body, _)| body);
    let variant = |line: &str| {
        let text =
            line.strip_prefix("    ").filter(|text| text.starts_with(|c: char| c.is_ascii_uppercase()))?;
        Some(text.chars().take_while(char::is_ascii_alphanumeric).collect())
    };
    body.lines().filter_map(variant).collect()
}

/// Variants that no expected line of this kind (`wait`, `no`, `end`) names.
fn unshown(name: &str, variants: &[String], kind: &str, scenarios: &[String]) -> Vec<String> {
    let expected =
        scenarios.iter().filter_map(|text| text.split_once("\n----\n")).map(|(_, expected)| expected);
    let is_kind = |line: &&str| line.split_whitespace().nth(1) == Some(kind);
    let lines: Vec<&str> = expected.flat_map(str::lines).filter(is_kind).collect();
    let shown = |variant: &&String| lines.iter().any(|line| line.contains(&format!("[{variant}]")));
    let missing = variants.iter().filter(|variant| !shown(variant));
    missing.map(|variant| format!("{name}::{variant} appears in no scenario")).collect()
}

/// A pause is only right between two looks at a condition, in a function that names its deadline, and in an emulated
/// device that answers after its `delay`.
fn sleeps(path: &str, tests: &str) -> Vec<String> {
    let mut findings = vec![];
    for function in tests.split("fn ").map(|function| function.replace("sleep(delay)", "")) {
        if has_word(&function, "sleep(") && !function.contains("deadline") {
            let name = function.split(['(', '<']).next().unwrap_or_default();
            findings.push(format!("{path}: {name} sleeps; wait for a condition with a deadline"));
        }
    }
    findings
}

/// What tokio has for tests only: `.ci/run` builds with the simulator, whose features hide that it is missing elsewhere.
fn stopped_clocks(path: &str, code: &str) -> Vec<String> {
    let words = ["start_paused", "time::pause", "time::resume", "time::advance"];
    lines_with(path, code, &words, "needs tokio's `test-util`")
}

fn unfinished(path: &str, text: &str) -> Vec<String> {
    let code = bare(text);
    let mut findings = lines_with(path, &code, &["todo!", "unimplemented!"], "is left for later");
    for (at, _) in code.match_indices("#[ignore") {
        // Only the body of a process that other tests start is no test of its own; it is named `child`. And `make test-openstack`
        // runs what needs real services.
        let function = code[at..].split("fn ").nth(1).unwrap_or_default();
        let needs_services = path.contains("/tests/") && path.ends_with("live.rs");
        if !function.starts_with("child(") && !needs_services {
            findings.push(format!("{path}: `#[ignore]` hides a test"));
        }
    }
    // The reason itself is a string, and is gone from the bare text; its key is not.
    for start in ["#[allow(", "#![allow(", "#[expect(", "#![expect("] {
        for (at, _) in code.match_indices(start) {
            let exception = code[at..].split(']').next().unwrap_or_default();
            if !exception.contains("reason =") {
                findings.push(format!("{path}: `{exception}]` gives no reason"));
            }
        }
    }
    findings
}

fn too_long(path: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    (lines > LINES_MAX).then(|| format!("{path}: {lines} lines, at most {LINES_MAX}"))
}

fn registries(path: &str, text: &str) -> Vec<String> {
    // Written apart, so that this file does not name one.
    let hosts = [
        concat!("crates", ".io"),
        concat!("registry.npmjs", ".org"),
        concat!("pypi", ".org"),
        concat!("files.pythonhosted", ".org"),
        concat!("proxy.golang", ".org"),
        concat!("deb.debian", ".org"),
        concat!("rubygems", ".org"),
    ];
    hosts
        .iter()
        .filter(|host| text.contains(**host))
        .map(|host| format!("{path} names the registry {host}"))
        .collect()
}

fn unlisted(records: &[String], list: &str) -> std::vec::IntoIter<String> {
    let missing = records.iter().filter(|record| !list.contains(record.as_str()));
    missing.map(|record| format!("docs/adr/README.md does not list {record}")).collect::<Vec<_>>().into_iter()
}

// ---- each check fires ------------------------------------------------------------------------------------------

mod fires {
    use super::*;

    #[test]
    fn on_a_crate_that_knows_too_much() {
        let manifest =
            |name: &str, dependencies: &str| format!("[package]\nname = \"{name}\"\n{dependencies}");
        let bad = [
            ("policies", "[dependencies]\nfencing = { workspace = true }"),
            ("fencing", "[dependencies]\nraft-store = \"1\""),
            ("provisioning", "[dev-dependencies]\nfencing = { path = \"../fencing\" }"),
            ("supervisor", "[dependencies]\nopenraft = \"1\""),
            ("supervisor", "[dev-dependencies]\nchaos-tests = { workspace = true }"),
            ("ha-agent", "[target.'cfg(unix)'.dependencies]\nsled = \"1\""),
            ("stranger", ""),
        ];
        for (name, dependencies) in bad {
            assert_eq!(star("x", &manifest(name, dependencies)).len(), 1, "{name}: {dependencies}");
        }
        assert!(
            star("x", &manifest("raft-store", "[dependencies]\nopenraft = \"1\"\npolicies = \"1\""))
                .is_empty()
        );
        assert!(star("x", "[workspace]\n").is_empty());
    }

    #[test]
    fn on_hands_in_the_brain() {
        for bad in [
            "async fn look() {}",
            "use std::time::Duration;",
            "let now = Instant::now();",
            "use std::collections::HashMap;",
            "println!();",
            "tracing::info!();",
            "let x: u64 = rand::random();",
        ] {
            assert!(!impure("x", &code_of(bad).0).is_empty(), "{bad}");
        }
        let good = "// no async, no clock\nlet brand = \"tokio\"; /// std::fs\n#[cfg(test)]\nmod tests {\n use std::fs;\n}";
        assert_eq!(impure("x", &code_of(good).0), Vec::<String>::new());
    }

    #[test]
    fn on_a_wildcard_that_is_allowed() {
        assert_eq!(wildcards_are_denied("// #![deny(clippy::wildcard_enum_match_arm)]\n").count(), 1);
        assert_eq!(wildcards_are_denied("#![deny(clippy::wildcard_enum_match_arm)]\n").count(), 0);
    }

    #[test]
    fn on_a_reason_without_a_scenario() {
        let source = "pub enum Why {\n    /// One.\n    One,\n    Two {\n        /// Field.\n        field: Up,\n    },\n}\nOther";
        let variants = variants(source, "Why");
        assert_eq!(variants, ["One", "Two"]);
        let scenario = "Title [Two].\nat 1s\n----\n   1.000 wait n1 [One] text\n   2.000 end  x [Two] text\n";
        assert_eq!(
            unshown("Why", &variants, "wait", &[scenario.to_owned()]),
            ["Why::Two appears in no scenario"]
        );
    }

    #[test]
    fn on_a_sleep_in_a_test() {
        let bad = "#[cfg(test)]\nmod tests {\n#[test]\nfn a() { thread::sleep(x); }\n}";
        let good = "fn body() { sleep(x); }\n#[cfg(test)]\nmod tests {\n// sleep(\nfn wait() { while now < deadline { sleep(x); } }\nfn late() { sleep(delay) }\n}";
        assert_eq!(sleeps("src/a.rs", &tests_of("src/a.rs", bad)).len(), 1);
        assert_eq!(sleeps("src/a.rs", &tests_of("src/a.rs", good)), Vec::<String>::new());
        assert_eq!(sleeps("a/tests/b.rs", &tests_of("a/tests/b.rs", "fn a() { sleep(x) }")).len(), 1);
    }

    #[test]
    fn on_a_clock_that_is_stopped() {
        let bad = "fn a() { tokio::time::pause(); }\n#[cfg(test)]\nmod tests {}";
        assert_eq!(stopped_clocks("x", &code_of(bad).0).len(), 1);
        let good = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { tokio::time::pause(); } }";
        assert_eq!(stopped_clocks("x", &code_of(good).0), Vec::<String>::new());
    }

    #[test]
    fn on_what_is_left_for_later() {
        for bad in [
            "fn a() { todo!() }",
            "fn a() { unimplemented!() }",
            "#[test]\n#[ignore = \"later\"]\nfn a() {}",
            "#[allow(dead_code)]\nfn a() {}",
            "#![expect(\n    unused\n)]",
        ] {
            assert_eq!(unfinished("x", bad).len(), 1, "{bad}");
        }
        let good = "#[allow(dead_code, reason = \"each binary uses a part\")]\n// todo!()\nlet x = \"#[ignore]\";\n#[ignore = \"a process of its own\"]\nasync fn child() {}";
        assert_eq!(unfinished("x", good), Vec::<String>::new());
        let live = "#[test]\n#[ignore = \"needs real services\"]\nfn a() {}";
        assert_eq!(unfinished("fencing/tests/ironic_live.rs", live), Vec::<String>::new());
        assert_eq!(unfinished("fencing/src/ipmi/live.rs", live).len(), 1, "it is no test of the testbed's");
    }

    #[test]
    fn on_a_long_file_a_registry_and_an_unlisted_record() {
        assert!(too_long("x", &"\n".repeat(LINES_MAX + 1)).is_some());
        assert!(too_long("x", &"\n".repeat(LINES_MAX)).is_none());
        assert_eq!(registries("x", concat!("see https://crates", ".io/crates/x")).len(), 1);
        assert_eq!(registries("x", "see the registry").len(), 0);
        let records = ["0001-a.md".to_owned(), "0002-b.md".to_owned()];
        assert_eq!(unlisted(&records, "| [0001](0001-a.md) |").count(), 1);
    }

    #[test]
    fn and_strings_and_comments_are_no_code() {
        let text = "a \"b \\\" c\" d // e\nf r#\"g \" h\"# i '\"' j /* k\n */ l 'm";
        assert_eq!(bare(text), "a  d \nf  i  j \n l 'm");
    }
}
