//! Text scenarios: every `scenarios/NAME.scn` is played on the real engines and compared with its expected lines.
//! Why it exists: a decision that can be read can be discussed; most of our tests are these files.
//! What it never does: it contains no expectation of its own. `UPDATE_EXPECT=1` rewrites the files; read the diff.
//!
//! The format is described in `scenarios/README.md`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

mod world;

use std::path::{Path, PathBuf};
use std::{env, fs};

const RULER: &str = "----";

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("read {}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "scn"))
        .collect();
    files.sort();
    files
}

/// The script and the expected lines.
fn split(text: &str) -> (&str, &str) {
    let ruler = format!("\n{RULER}\n");
    text.split_once(&ruler).unwrap_or((text.trim_end_matches(['\n', '-']), ""))
}

/// The first lines in which two texts differ, for people.
fn difference(expected: &str, found: &str) -> String {
    let (expected, found): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    let same = expected.iter().zip(&found).take_while(|(a, b)| a == b).count();
    let show = |lines: &[&str], mark: char| {
        lines.iter().skip(same).take(6).map(|line| format!("  {mark} {line}\n")).collect::<String>()
    };
    format!("  from line {} of the expected part:\n{}{}", same + 1, show(&expected, '-'), show(&found, '+'))
}

#[test]
fn every_scenario_plays_as_written() {
    let update = env::var_os("UPDATE_EXPECT").is_some_and(|value| value == "1");
    let mut failures = vec![];
    for file in files() {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).unwrap();
        let (script, expected) = split(&text);
        match world::play(script) {
            Err(why) => failures.push(format!("{name}: {why}")),
            Ok(found) if update => fs::write(&file, format!("{script}\n{RULER}\n{found}")).unwrap(),
            Ok(found) if found == expected => {}
            Ok(found) => failures.push(format!("{name}:\n{}", difference(expected, &found))),
        }
    }
    let hint = "read the difference; UPDATE_EXPECT=1 rewrites the files";
    assert!(failures.is_empty(), "{}\n{hint}", failures.join("\n"));
}

#[test]
fn the_same_script_gives_the_same_bytes() {
    let text = fs::read_to_string(files().first().unwrap()).unwrap();
    assert_eq!(world::play(split(&text).0), world::play(split(&text).0));
}

#[test]
fn a_script_with_a_mistake_names_the_line() {
    let script = "A mistake is found.\nnode n1\nat 1s n1 explodes\n";
    assert_eq!(world::play(script), Err("line 3: cannot read \"n1 explodes\"".to_owned()));
    assert!(world::play("node n1\nnode n1 levels=x\n").is_err());
}
