//! Planted bugs: the product is broken on purpose, one bug at a time, and the simulator has to notice.
//!
//! Why it exists: a checker that never fires proves nothing. Each file in `chaos-tests/planted/` is one bug and the number
//! of seeds within which it must be found.
//! What it never does: leave a trace in the product. The bugs are edits to a copy of the sources, all of them in one build,
//! each switched on by its name in [`SWITCH`]; with none switched on the copy plays every seed as the product does.

use crate::cargo::cargo;
use crate::sim::campaign::{Player, Run, Verdict, play_each};
use crate::sim::script::Mode;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The environment variable that names the bug to switch on.
const SWITCH: &str = "CHAOS_PLANTED";
/// Where the copy and its build are, below the workspace.
const PLACE: &str = "target/planted";
/// Seeds that the copy must play as the product does while no bug is switched on. Fewer: an edit that is not switched
/// may stay unseen. More: every run of the test is longer.
const SAME_SEEDS: u64 = 50;
/// Most seeds that a bug may take: what takes longer is not seen by those who play a thousand, as TESTING.md says.
const SEEDS_MAX: u64 = 1_000;
/// How a run ends that gave no verdict: the process died.
const CRASH: &str = "crash";

/// What each edited crate gets, so that a bug can ask whether it is switched on.
const MODULE: &str = r#"//! Added to this copy by `cargo chaos planted`.

/// Whether this bug is switched on.
pub(crate) fn planted(name: &str) -> bool {
    static ON: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    ON.get_or_init(|| std::env::var("CHAOS_PLANTED").ok()).as_deref() == Some(name)
}
"#;
/// How it is made part of the crate.
const MODULE_LINE: &str = "\nmod planted;\npub(crate) use planted::planted;\n";

/// Why nothing could be said about a bug.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// A file or a process.
    #[error("{doing}")]
    Io {
        /// What we were doing.
        doing: String,
        /// What happened.
        source: io::Error,
    },
    /// A bug's file is not what it should be.
    #[error("{file} is no planted bug")]
    Document {
        /// The file.
        file: String,
        /// Why.
        source: toml::de::Error,
    },
    /// The product has changed, or the edit was never right.
    #[error("planted bug {bug}: an edit of {file} does not fit: {why}")]
    Edit {
        /// The bug.
        bug: String,
        /// The file to be edited.
        file: String,
        /// Why.
        why: String,
    },
    /// Nobody has planted it.
    #[error("there is no planted bug {0}")]
    Unknown(String),
    /// It allows itself too much.
    #[error("planted bug {0} may take at most {SEEDS_MAX} seeds")]
    TooLong(String),
    /// The copy does not compile.
    #[error("the copy with the planted bugs does not build:\n{0}")]
    Build(String),
    /// The copy differs from the product although no bug is switched on.
    #[error("with no bug switched on, seed {seed}: {what}")]
    NotTheProduct {
        /// The seed.
        seed: u64,
        /// How it differs.
        what: String,
    },
}

/// One bug.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bug {
    /// Its name, as its file's.
    #[serde(skip)]
    pub name: String,
    /// What is wrong, and what it would do.
    pub what: String,
    /// Where the idea comes from.
    pub source: String,
    /// The checkers that may be the first to find it.
    pub finds: BTreeSet<String>,
    /// Within how many seeds it is found.
    pub seeds_max: u64,
    /// In which kind of run.
    #[serde(default)]
    mode: Judged,
    /// How it is made.
    edit: Vec<Edit>,
}

/// [`Mode`], as a file says it.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Judged {
    #[default]
    Safety,
    Liveness,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    file: String,
    find: String,
    replace: String,
}

/// How a bug was found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The first seed that shows it.
    pub seed: u64,
    /// The checker that noticed first.
    pub checker: String,
    /// What it said.
    pub what: String,
}

/// What came of one bug.
#[derive(Debug)]
pub struct Outcome {
    /// How it was found, if it was.
    pub found: Option<Finding>,
    /// Seeds that failed in another way than the bug's file allows, the first of each checker.
    pub other: BTreeMap<String, u64>,
    /// How long it took.
    pub took: Duration,
}

fn doing(what: impl Into<String>) -> impl FnOnce(io::Error) -> Broken {
    let doing = what.into();
    move |source| Broken::Io { doing, source }
}

fn read(path: &Path) -> Result<String, Broken> {
    std::fs::read_to_string(path).map_err(doing(format!("read {}", path.display())))
}

/// Reads the bugs of `chaos-tests/planted/`, all of them or those named.
///
/// # Errors
/// One cannot be read, or none has that name.
pub fn bugs(workspace: &Path, names: &[String]) -> Result<Vec<Bug>, Broken> {
    let dir = workspace.join("chaos-tests/planted");
    let failed = || format!("list {}", dir.display());
    let mut bugs = vec![];
    for entry in std::fs::read_dir(&dir).map_err(doing(failed()))? {
        let path = entry.map_err(doing(failed()))?.path();
        if path.extension() == Some(OsStr::new("toml")) {
            bugs.push(bug(&path)?);
        }
    }
    bugs.sort_by(|a: &Bug, b| a.name.cmp(&b.name));
    if let Some(unknown) = names.iter().find(|name| !bugs.iter().any(|bug| bug.name == **name)) {
        return Err(Broken::Unknown(unknown.clone()));
    }
    bugs.retain(|bug| names.is_empty() || names.contains(&bug.name));
    Ok(bugs)
}

fn bug(path: &Path) -> Result<Bug, Broken> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let bug: Bug = toml::from_str(&read(path)?)
        .map_err(|source| Broken::Document { file: path.display().to_string(), source })?;
    if bug.seeds_max > SEEDS_MAX {
        return Err(Broken::TooLong(name));
    }
    Ok(Bug { name, ..bug })
}

/// Makes the copy with all bugs in it and builds it. Gives the program.
///
/// # Errors
/// An edit does not fit, or the copy does not build.
pub fn build(workspace: &Path, bugs: &[Bug]) -> Result<PathBuf, Broken> {
    let tree = workspace.join(PLACE).join("tree");
    let mut edited = edit(workspace, bugs)?;
    let crates: BTreeSet<String> =
        edited.keys().filter_map(|file| file.split('/').next()).map(str::to_owned).collect();
    for name in crates {
        let root = format!("{name}/src/lib.rs");
        let text = match edited.remove(&root) {
            Some(text) => text,
            None => read(&workspace.join(&root))?,
        };
        edited.insert(root, text + MODULE_LINE);
        edited.insert(format!("{name}/src/planted.rs"), MODULE.to_owned());
    }
    copy(workspace, &tree, &edited)?;
    compile(workspace, &tree)
}

/// The edited files, by their names, as they are with all bugs.
fn edit(workspace: &Path, bugs: &[Bug]) -> Result<BTreeMap<String, String>, Broken> {
    let mut by_file: BTreeMap<&str, Vec<(&Bug, &Edit)>> = BTreeMap::new();
    for bug in bugs {
        for edit in &bug.edit {
            by_file.entry(&edit.file).or_default().push((bug, edit));
        }
    }
    let mut edited = BTreeMap::new();
    for (file, edits) in by_file {
        let text = read(&workspace.join(file))?;
        edited.insert(file.to_owned(), edit_file(&text, &edits)?);
    }
    Ok(edited)
}

/// Every edit is looked for in the text as the product has it, so that no bug depends on another.
fn edit_file(text: &str, edits: &[(&Bug, &Edit)]) -> Result<String, Broken> {
    let mut places: Vec<(Range<usize>, &Bug, &Edit)> = vec![];
    for (bug, edit) in edits {
        let place = place(text, bug, edit)?;
        places.push((place, bug, edit));
    }
    places.sort_by_key(|(place, _, _)| place.start);
    let mut result = String::with_capacity(2 * text.len());
    let mut end = 0;
    for (place, bug, edit) in places {
        let between = text.get(end..place.start);
        let between = between.ok_or_else(|| misfit(bug, edit, "another bug edits the same lines"))?;
        result.push_str(between);
        result.push_str(&edit.replace);
        end = place.end;
    }
    result.push_str(text.get(end..).unwrap_or_default());
    Ok(result)
}

fn misfit(bug: &Bug, edit: &Edit, why: impl Into<String>) -> Broken {
    Broken::Edit { bug: bug.name.clone(), file: edit.file.clone(), why: why.into() }
}

fn place(text: &str, bug: &Bug, edit: &Edit) -> Result<Range<usize>, Broken> {
    let asks = format!("planted(\"{}\")", bug.name);
    if !bug.edit.iter().any(|edit| edit.replace.contains(&asks)) {
        return Err(misfit(bug, edit, format!("no edit of this bug asks {asks}")));
    }
    let mut found = text.match_indices(&edit.find);
    match (found.next(), found.next()) {
        (Some((start, found)), None) => Ok(start..start + found.len()),
        (None, _) => Err(misfit(bug, edit, format!("this is not there: {}", edit.find.trim()))),
        (Some(_), Some(_)) => {
            Err(misfit(bug, edit, format!("this is there more than once: {}", edit.find.trim())))
        }
    }
}

/// Copies what git keeps of the workspace, with these files edited. What is the same is not touched, so that cargo builds
/// only what has changed.
fn copy(workspace: &Path, tree: &Path, edited: &BTreeMap<String, String>) -> Result<(), Broken> {
    let mut git = Command::new("git");
    git.arg("-C").arg(workspace).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let output = git.output().map_err(doing("ask git for the files of the workspace"))?;
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    let names: BTreeSet<&str> = names.split('\0').filter(|name| !name.is_empty()).collect();
    for name in names.iter().filter(|name| !edited.contains_key(**name)) {
        let from = workspace.join(name);
        // Removed, but not from git yet.
        if from.is_file() {
            put(&tree.join(name), &std::fs::read(&from).map_err(doing(format!("read {name}")))?)?;
        }
    }
    edited.iter().try_for_each(|(name, text)| put(&tree.join(name), text.as_bytes()))
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), Broken> {
    if std::fs::read(path).is_ok_and(|found| found == bytes) {
        return Ok(());
    }
    let write = || {
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::write(path, bytes)
    };
    write().map_err(doing(format!("write {}", path.display())))
}

/// A target directory of its own: cargo names a workspace's crates by their place within it, so it would take the mutants for
/// the product.
fn compile(workspace: &Path, tree: &Path) -> Result<PathBuf, Broken> {
    let target = workspace.join(PLACE).join("build");
    lend(tree, &workspace.join("target/release"), &target.join("release"))?;
    let mut cargo = cargo();
    cargo.current_dir(tree).args(["build", "--release", "--locked", "--quiet"]);
    cargo.args(["--package", "chaos-tests", "--features", "sim", "--bin", "chaos", "--target-dir"]);
    let output = cargo.arg(&target).output().map_err(doing("start cargo"))?;
    match output.status.success() {
        true => Ok(target.join("release/chaos")),
        false => Err(Broken::Build(String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}

/// What we need of `cargo metadata`.
#[derive(Deserialize)]
struct Workspace {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
}

/// The names of our own packages.
fn own_packages(tree: &Path) -> Result<BTreeSet<String>, Broken> {
    let asking = || doing("ask cargo for our own packages");
    let mut metadata = cargo();
    metadata.current_dir(tree).args(["metadata", "--no-deps", "--format-version", "1", "--locked"]);
    let output = metadata.output().map_err(asking())?;
    let workspace: Workspace =
        serde_json::from_slice(&output.stdout).map_err(|error| asking()(error.into()))?;
    Ok(workspace.packages.into_iter().map(|package| package.name).collect())
}

/// Gives the copy what the product's dependencies were built into, at its first build. What cargo knows of our own crates is
/// left out, so that it builds those.
fn lend(tree: &Path, built: &Path, to: &Path) -> Result<(), Broken> {
    if to.exists() || !built.exists() {
        return Ok(());
    }
    let lending = || format!("copy what was built from {} to {}", built.display(), to.display());
    std::fs::create_dir_all(to).map_err(doing(lending()))?;
    // With their times, by which cargo tells whether they are old.
    let mut copy = Command::new("cp");
    copy.arg("--archive").args(["deps", "build", ".fingerprint"].map(|part| built.join(part))).arg(to);
    let copied = copy.status().map_err(doing(lending()))?;
    let (known, ours) = (to.join(".fingerprint"), own_packages(tree)?);
    if !copied.success() {
        return Err(doing(lending())(io::Error::other(format!("cp: {copied}"))));
    }
    for entry in std::fs::read_dir(&known).map_err(doing(lending()))? {
        let path = entry.map_err(doing(lending()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let package = name.rsplit_once('-').map_or("", |(package, _)| package);
        if ours.contains(package) {
            std::fs::remove_dir_all(&path).map_err(doing(lending()))?;
        }
    }
    Ok(())
}

/// With no bug switched on, the copy must play the first seeds as this program does.
///
/// # Errors
/// It does not.
pub fn is_the_product(program: &Path, jobs: usize) -> Result<(), Broken> {
    let copy = Player { program: program.to_owned(), environment: vec![(SWITCH.to_owned(), String::new())] };
    let runs: Vec<Run> = (1..=SAME_SEEDS).map(|seed| Run::whole(seed, Mode::Safety)).collect();
    let product = Mutex::new(BTreeMap::new());
    play_each(&runs, jobs, Run::elsewhere, |run, verdict| {
        product.lock().is_ok_and(|mut product| product.insert(run.seed, digest(verdict)).is_none())
    });
    let product = product.into_inner().unwrap_or_default();
    let difference = Mutex::new(None);
    play_each(
        &runs,
        jobs,
        |run| run.played_by(&copy),
        |run, verdict| {
            let what = match (&digest(verdict), product.get(&run.seed)) {
                (Ok(copied), Some(Ok(original))) if copied == original => return true,
                (Ok(_), Some(Ok(_))) => "another history than the product's".to_owned(),
                (Err(what), _) | (_, Some(Err(what))) => what.clone(),
                (Ok(_), None) => "not played by the product".to_owned(),
            };
            if let Ok(mut difference) = difference.lock() {
                *difference = Some((run.seed, what));
            }
            false
        },
    );
    match difference.into_inner().ok().flatten() {
        Some((seed, what)) => Err(Broken::NotTheProduct { seed, what }),
        None => Ok(()),
    }
}

/// The history's digest; or how the run failed.
fn digest(verdict: io::Result<Verdict>) -> Result<String, String> {
    match verdict {
        Err(error) => Err(error.to_string()),
        Ok(verdict) => match verdict.violations.first() {
            Some((_, checker, what)) => Err(format!("{checker}: {what}")),
            None => Ok(verdict.digest),
        },
    }
}

/// Plays seeds with the bug switched on until one shows it.
pub fn hunt(program: &Path, bug: &Bug, jobs: usize) -> Outcome {
    let began = Instant::now();
    let environment = vec![(SWITCH.to_owned(), bug.name.clone())];
    let player = Player { program: program.to_owned(), environment };
    let mode = match bug.mode {
        Judged::Safety => Mode::Safety,
        Judged::Liveness => Mode::Liveness,
    };
    let runs: Vec<Run> = (1..=bug.seeds_max).map(|seed| Run::whole(seed, mode)).collect();
    let (found, other) = (Mutex::new(None::<Finding>), Mutex::new(BTreeMap::new()));
    play_each(
        &runs,
        jobs,
        |run| run.played_by(&player),
        |run, verdict| {
            let Some(finding) = broken(run.seed, verdict) else { return true };
            let expected = bug.finds.contains(&finding.checker) && is_sound(program, run);
            if expected && let Ok(mut found) = found.lock() {
                // Two seeds are played at a time; which of them ends first says nothing.
                if found.as_ref().is_none_or(|known| finding.seed < known.seed) {
                    *found = Some(finding);
                }
            } else if let Ok(mut other) = other.lock() {
                other.entry(finding.checker).or_insert(finding.seed);
            }
            !expected
        },
    );
    Outcome {
        found: found.into_inner().ok().flatten(),
        other: other.into_inner().unwrap_or_default(),
        took: began.elapsed(),
    }
}

/// A seed that fails without any bug as well says nothing about one.
fn is_sound(program: &Path, run: &Run) -> bool {
    let environment = vec![(SWITCH.to_owned(), String::new())];
    let sound = run.played_by(&Player { program: program.to_owned(), environment });
    sound.is_ok_and(|verdict| verdict.violations.is_empty())
}

fn broken(seed: u64, verdict: io::Result<Verdict>) -> Option<Finding> {
    match verdict {
        Err(error) => Some(Finding { seed, checker: CRASH.to_owned(), what: error.to_string() }),
        Ok(verdict) => {
            verdict.violations.into_iter().next().map(|(_, checker, what)| Finding { seed, checker, what })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Building the copy takes minutes; that an edit has lost its place is said at once.
    #[test]
    fn every_edit_finds_its_place() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let bugs = bugs(workspace, &[]).unwrap();
        let edited = edit(workspace, &bugs).unwrap();
        assert!(bugs.iter().all(|bug| edited.values().any(|text| text.contains(&bug.name))));
    }
}
