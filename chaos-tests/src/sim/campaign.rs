//! Many seeds, each in a process of its own, and what to do with one that fails.
//!
//! Why it exists: a process for each seed makes the history of a seed depend on nothing but the seed (tokio counts its
//! runtimes process by process, and mixes that number into its dice), and a crash of one takes no other along.
//! What it never does: look into a run.

use super::script::{Mode, Script};
use super::simulation::{Report, play};
use crate::checkers::Violation;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is to be played: the seed, and which part of its script.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// How it is judged.
    pub mode: Mode,
    /// The faults that happen, by number; `None`: all.
    pub only: Option<Vec<usize>>,
    /// When it ends, in ms; `None`: as the mode says.
    pub until: Option<u64>,
}

/// What came of it, as one process tells the other.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// The seed.
    pub seed: u64,
    /// The digest of the whole history, in hexadecimal.
    pub digest: String,
    /// When, which property, and how it was broken.
    pub violations: Vec<(u64, String, String)>,
    /// Interesting things that were reached, and how often.
    pub sometimes: BTreeMap<String, u64>,
    /// Simulated ms.
    pub length: u64,
    /// Facts.
    pub facts: u64,
}

impl Verdict {
    fn of(seed: u64, report: Report) -> Self {
        let tell = |violation: Violation| (violation.at, violation.checker.to_owned(), violation.what);
        Verdict {
            seed,
            digest: format!("{:016x}", report.digest),
            violations: report.violations.into_iter().map(tell).collect(),
            sometimes: report.sometimes.into_iter().map(|(what, times)| (what.to_owned(), times)).collect(),
            length: report.length,
            facts: report.facts,
        }
    }

    /// The property that was broken first.
    pub fn broken(&self) -> Option<&str> {
        self.violations.first().map(|(_, checker, _)| checker.as_str())
    }
}

/// The program whose `one` plays a seed.
#[derive(Clone, Debug)]
pub struct Player {
    /// Where it is.
    pub program: PathBuf,
    /// What it finds in its environment, besides what this process has in its own.
    pub environment: Vec<(String, String)>,
}

impl Player {
    /// This program.
    ///
    /// # Errors
    /// The system does not say where it is.
    pub fn this() -> io::Result<Player> {
        Ok(Player { program: std::env::current_exe()?, environment: vec![] })
    }
}

impl Run {
    /// A whole seed.
    pub fn whole(seed: u64, mode: Mode) -> Run {
        Run { seed, mode, only: None, until: None }
    }

    /// The words that make this program play it.
    pub fn words(&self) -> Vec<String> {
        let mut words = vec![self.seed.to_string(), format!("--mode={}", self.mode)];
        if let Some(only) = &self.only {
            let numbers: Vec<String> = only.iter().map(usize::to_string).collect();
            words.push(format!("--only={}", numbers.join(",")));
        }
        words.extend(self.until.map(|until| format!("--until={until}ms")));
        words
    }

    /// Plays it here. Once in a process: see above.
    pub fn here(&self, lines: bool) -> Report {
        play(Script::draw(self.seed, self.mode), self.only.as_deref(), self.until, lines)
    }

    /// Plays it here, for the process that asked.
    pub fn here_for_another(&self) -> Verdict {
        Verdict::of(self.seed, self.here(false))
    }

    /// Plays it in another process of this program.
    ///
    /// # Errors
    /// The process could not be started, or it died: what it said.
    pub fn elsewhere(&self) -> io::Result<Verdict> {
        self.played_by(&Player::this()?)
    }

    /// Plays it in a process of that program.
    ///
    /// # Errors
    /// The process could not be started, or it died: what it said.
    pub fn played_by(&self, player: &Player) -> io::Result<Verdict> {
        let mut child = Command::new(&player.program);
        child.arg("one").args(self.words()).stdin(Stdio::null());
        child.envs(player.environment.iter().map(|(name, value)| (name, value)));
        let output = child.output()?;
        let said = || {
            let said = String::from_utf8_lossy(&output.stderr);
            let last: Vec<&str> = said.lines().rev().take(12).collect();
            last.into_iter().rev().collect::<Vec<_>>().join("\n")
        };
        match serde_json::from_slice(&output.stdout) {
            Ok(verdict) if output.status.success() => Ok(verdict),
            Ok(_) | Err(_) => Err(io::Error::other(format!("it ended with {}: {}", output.status, said()))),
        }
    }
}

/// Plays all of them, `jobs` at a time, and tells each as it ends; stops early if `tell` says so.
pub fn play_all(runs: &[Run], jobs: usize, tell: impl Fn(&Run, io::Result<Verdict>) -> bool + Sync) {
    play_each(runs, jobs, Run::elsewhere, tell);
}

/// The same, each played as `play` says.
pub fn play_each(
    runs: &[Run],
    jobs: usize,
    play: impl Fn(&Run) -> io::Result<Verdict> + Sync,
    tell: impl Fn(&Run, io::Result<Verdict>) -> bool + Sync,
) {
    let next = AtomicUsize::new(0);
    let telling = Mutex::new(());
    let work = || {
        while let Some(run) = runs.get(next.fetch_add(1, Ordering::SeqCst)) {
            let verdict = play(run);
            let _one_at_a_time = telling.lock();
            if !tell(run, verdict) {
                next.store(runs.len(), Ordering::SeqCst);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(work);
        }
    });
}

/// Cuts a failing run down: first its end, then its faults, as long as the same property is broken (delta debugging,
/// Zeller 2002).
///
/// # Errors
/// A process could not be started, or the run does not fail.
pub fn shrink(run: &Run, jobs: usize, progress: impl Fn(&Run)) -> io::Result<Run> {
    let verdict = run.elsewhere()?;
    let Some((at, broken, _)) = verdict.violations.first().cloned() else {
        return Err(io::Error::other("nothing is broken in this run"));
    };
    let faults = Script::draw(run.seed, run.mode).faults;
    let before = |number: &usize| faults.get(*number).is_some_and(|(begins, _)| begins * 1000 <= at);
    let all: Vec<usize> = match &run.only {
        Some(only) => only.clone(),
        None => (0..faults.len()).filter(before).collect(),
    };
    let until = (run.mode == Mode::Safety).then_some(at / 1000 + 1);
    let mut best = Run { only: Some(all), until, ..run.clone() };
    if best.elsewhere()?.broken() != Some(&broken) {
        best = Run { only: Some((0..faults.len()).collect()), until: None, ..run.clone() };
    }
    let mut parts = 2;
    loop {
        progress(&best);
        let only = best.only.clone().unwrap_or_default();
        let size = only.len().div_ceil(parts).max(1);
        let without = |part: usize| -> Vec<usize> {
            let keeps = |(place, _): &(usize, &usize)| *place / size != part;
            only.iter().enumerate().filter(keeps).map(|(_, number)| *number).collect()
        };
        let tries =
            (0..only.len().div_ceil(size)).map(|part| Run { only: Some(without(part)), ..best.clone() });
        let tries: Vec<Run> = tries.collect();
        let found = Mutex::new(None);
        play_all(&tries, jobs, |tried, verdict| {
            let same = verdict.is_ok_and(|verdict| verdict.broken() == Some(&broken));
            if same && let Ok(mut found) = found.lock() {
                *found = Some(tried.clone());
            }
            !same
        });
        match found.into_inner().ok().flatten() {
            Some(smaller) => {
                best = smaller;
                parts = (parts - 1).max(2);
            }
            None if size <= 1 => return Ok(best),
            None => parts = (parts * 2).min(only.len().max(2)),
        }
    }
}
