//! `cargo chaos`: plays the whole product in simulated worlds, finds what breaks, and tells the story of it.
//!
//! Why it exists: anyone can check in two minutes that it never lets two machines write to one volume, and can play a
//! failing seed again, cut down to the few troubles that matter.
//! What it never does: touch the machine that it runs on.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line talks to people")]

use anyhow::{Context, Result, bail, ensure};
use chaos_tests::checkers::INTERESTING;
use chaos_tests::planted;
use chaos_tests::sim::campaign::{Run, Verdict, play_all, shrink};
use chaos_tests::sim::script::{Mode, Script};
use chaos_tests::sim::story;
use clap::{Args, Parser, Subcommand};
use policies::Millis;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// With fewer seeds than this, it says nothing that an interesting thing was not reached.
const ENOUGH: usize = 200;

/// Plays the whole product in simulated worlds: three or five members, twelve nodes, and everything that can go wrong.
#[derive(Parser)]
#[command(
    name = "cargo chaos",
    version,
    after_help = "Example: cargo chaos run --seeds 1..1000\n\
    A failing seed:  cargo chaos explain 42;  cargo chaos shrink 42;  cargo chaos replay 42 --trace"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Play many seeds. Those that ever failed are played first.
    #[command(after_help = "Example: cargo chaos run --seeds 1..1000 --mode liveness")]
    Run {
        /// First and last seed.
        #[arg(long, default_value = "1..1000", value_parser = range)]
        seeds: (u64, u64),
        /// How to judge: nothing bad happens (safety), or everything comes back (liveness).
        #[arg(long, value_enum, default_value = "safety")]
        mode: Mode,
        /// Go on with further seeds for so many minutes.
        #[arg(long)]
        minutes: Option<u64>,
        /// Seeds at a time; by default one for each processor.
        #[arg(long)]
        jobs: Option<usize>,
        /// Stop at the first seed that fails.
        #[arg(long)]
        first: bool,
    },
    /// Play one seed again.
    #[command(after_help = "Example: cargo chaos replay 42 --trace | less")]
    Replay {
        #[command(flatten)]
        what: What,
        /// Print everything that happened.
        #[arg(long)]
        trace: bool,
    },
    /// Cut a failing seed down to the troubles that matter.
    #[command(after_help = "Example: cargo chaos shrink 42")]
    Shrink {
        #[command(flatten)]
        what: What,
    },
    /// Tell the story of a seed in the words of the text scenarios.
    #[command(after_help = "Example: cargo chaos explain 42 --only 3,7")]
    Explain {
        #[command(flatten)]
        what: What,
    },
    /// Break a copy of the product in known ways, one at a time; each must be found.
    #[command(after_help = "Example: cargo chaos planted spare-not-reserved")]
    Planted {
        /// Only these bugs, by the names of their files in chaos-tests/planted/.
        names: Vec<String>,
        /// Seeds at a time; by default one for each processor.
        #[arg(long)]
        jobs: Option<usize>,
    },
    /// Play one seed and print the result as JSON; for `run`.
    #[command(hide = true)]
    One {
        #[command(flatten)]
        what: What,
    },
}

#[derive(Args)]
struct What {
    /// The seed.
    seed: u64,
    /// How to judge.
    #[arg(long, value_enum, default_value = "safety")]
    mode: Mode,
    /// Only these troubles, by their numbers (`replay` lists them).
    #[arg(long, value_delimiter = ',')]
    only: Option<Vec<usize>>,
    /// End then, as in 31s.
    #[arg(long)]
    until: Option<Millis>,
}

impl From<What> for Run {
    fn from(What { seed, mode, only, until }: What) -> Run {
        Run { seed, mode, only, until: until.map(|until| until.0) }
    }
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let bad = || format!("{text:?} is not a range of seeds; write it as 1..1000");
    let (first, last) = text.split_once("..").ok_or_else(bad)?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| bad());
    let (first, last) = (number(first)?, number(last)?);
    if first <= last { Ok((first, last)) } else { Err(bad()) }
}

fn main() -> Result<ExitCode> {
    match Cli::parse().verb {
        Verb::One { what } => {
            println!("{}", serde_json::to_string(&Run::from(what).here_for_another())?);
            Ok(ExitCode::SUCCESS)
        }
        Verb::Run { seeds, mode, minutes, jobs, first } => {
            run(seeds, mode, minutes, jobs.unwrap_or_else(processors), first)
        }
        Verb::Planted { names, jobs } => hunt(&names, jobs.unwrap_or_else(processors)),
        Verb::Replay { what, trace } => replay(&what.into(), trace),
        Verb::Shrink { what } => {
            let best = shrink(&what.into(), processors(), |run| {
                eprintln!("{} troubles left", run.only.as_ref().map_or(0, Vec::len));
            });
            let best = best.context("shrink")?;
            let faults = Script::draw(best.seed, best.mode).faults;
            for number in best.only.iter().flatten() {
                if let Some((at, fault)) = faults.get(*number) {
                    println!("{number:>3}  {:>8.3}  {fault}", *at as f64 / 1e3);
                }
            }
            println!("cargo chaos explain {}", best.words().join(" "));
            Ok(ExitCode::SUCCESS)
        }
        Verb::Explain { what } => {
            let run = what.into();
            print!("{}", story::tell(&run));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

/// Where seeds that ever failed are kept.
fn kept() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("seeds/failed.txt")
}

/// `MODE SEED  # what it was`, a line each.
fn kept_seeds(mode: Mode) -> Result<Vec<u64>> {
    let path = kept();
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let mut seeds = vec![];
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(of), Some(seed)) = (words.next(), words.next()) else { continue };
        if of == mode.to_string() {
            seeds.push(seed.parse().with_context(|| format!("{}: {line:?}", path.display()))?);
        }
    }
    Ok(seeds)
}

#[derive(Default)]
struct Tally {
    played: u64,
    length: u64,
    facts: u64,
    failed: BTreeMap<u64, String>,
    sometimes: BTreeMap<String, u64>,
}

impl Tally {
    fn add(&mut self, run: &Run, verdict: std::io::Result<Verdict>) {
        self.played += 1;
        match verdict {
            Err(error) => drop(self.failed.insert(run.seed, error.to_string())),
            Ok(verdict) => {
                self.length += verdict.length;
                self.facts += verdict.facts;
                for (what, times) in verdict.sometimes {
                    *self.sometimes.entry(what).or_default() += times;
                }
                if let Some((at, checker, what)) = verdict.violations.first() {
                    let text = format!("{:.3} s, {checker}: {what}", *at as f64 / 1e6);
                    self.failed.insert(run.seed, text);
                }
            }
        }
    }
}

fn run(
    (first, last): (u64, u64),
    mode: Mode,
    minutes: Option<u64>,
    jobs: usize,
    stop_at_first: bool,
) -> Result<ExitCode> {
    let began = Instant::now();
    let end = minutes.map(|minutes| began + Duration::from_secs(60 * minutes));
    let tally = Mutex::new(Tally::default());
    let kept = kept_seeds(mode)?;
    let mut seeds: Vec<u64> =
        kept.iter().copied().chain((first..=last).filter(|s| !kept.contains(s))).collect();
    let mut next = last + 1;
    loop {
        let runs: Vec<Run> = seeds.iter().map(|seed| Run::whole(*seed, mode)).collect();
        play_all(&runs, jobs, |run, verdict| {
            let Ok(mut tally) = tally.lock() else { return false };
            let before = tally.failed.len();
            tally.add(run, verdict);
            if let Some(why) = tally.failed.get(&run.seed).filter(|_| tally.failed.len() > before) {
                println!("seed {} FAILED  {why}", run.seed);
            }
            progress(&tally, began);
            (tally.failed.is_empty() || !stop_at_first) && end.is_none_or(|end| Instant::now() < end)
        });
        let failed = tally.lock().map_or(true, |tally| stop_at_first && !tally.failed.is_empty());
        if failed || end.is_none_or(|end| Instant::now() >= end) {
            break;
        }
        seeds = (next..next + 1000).collect();
        next += 1000;
    }
    let tally = tally.into_inner().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
    summary(&tally, mode, began)
}

fn progress(tally: &Tally, began: Instant) {
    if std::io::stderr().is_terminal() && tally.played.is_multiple_of(20) {
        eprint!("\r{} seeds, {} failed, {:.0?} ", tally.played, tally.failed.len(), began.elapsed());
    }
}

fn summary(tally: &Tally, mode: Mode, began: Instant) -> Result<ExitCode> {
    println!(
        "{mode}: {} seeds, {:.1} simulated hours, {} facts judged, {} failed, in {:.1} s",
        tally.played,
        tally.length as f64 / 3.6e6,
        tally.facts,
        tally.failed.len(),
        began.elapsed().as_secs_f64()
    );
    for (what, times) in &tally.sometimes {
        println!("{times:>9}  {what}");
    }
    let mut missed = INTERESTING.iter().filter(|what| !tally.sometimes.contains_key(**what)).peekable();
    if mode == Mode::Safety && usize::try_from(tally.played)? >= ENOUGH && missed.peek().is_some() {
        for what in missed {
            println!("        0  {what}");
        }
        bail!("interesting things were never reached: these worlds are too kind");
    }
    for seed in tally.failed.keys().take(3) {
        println!("look at it:  cargo chaos shrink {seed} --mode={mode}");
    }
    if !tally.failed.is_empty() {
        println!("keep them:   a line in {} each", kept().display());
    }
    Ok(if tally.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn replay(run: &Run, trace: bool) -> Result<ExitCode> {
    let script = Script::draw(run.seed, run.mode);
    ensure!(
        run.only.iter().flatten().all(|number| *number < script.faults.len()),
        "seed {} has only {} troubles",
        run.seed,
        script.faults.len()
    );
    print!("{}", story::script(&script));
    let report = run.here(trace);
    for (at, line) in &report.lines {
        println!("{:>10.3} {line}", *at as f64 / 1e6);
    }
    println!("digest {:016x}, {} facts, {} ms", report.digest, report.facts, report.length);
    for violation in &report.violations {
        println!("VIOLATION  {violation}");
    }
    Ok(if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Plants the bugs and looks for each.
fn hunt(names: &[String], jobs: usize) -> Result<ExitCode> {
    let began = Instant::now();
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let workspace = workspace.parent().context("find the workspace")?;
    // All are built, whichever are played: another choice needs no other build.
    let all = planted::bugs(workspace, &[])?;
    let bugs = planted::bugs(workspace, names)?;
    let program = planted::build(workspace, &all)?;
    println!("{} bugs planted and built in {:.0} s", all.len(), began.elapsed().as_secs_f64());
    planted::is_the_product(&program, jobs)?;
    println!("with none switched on, the copy plays as the product does");
    println!("{:<34} {:>5} {:>5}  {:<13} {:>7}", "bug", "seeds", "limit", "checker", "seconds");
    let mut missed = 0;
    for bug in &bugs {
        let outcome = planted::hunt(&program, bug, jobs);
        let (seeds, checker) = match &outcome.found {
            Some(finding) => (finding.seed.to_string(), finding.checker.as_str()),
            None => ("-".to_owned(), "NOT FOUND"),
        };
        let (limit, took) = (bug.seeds_max, outcome.took.as_secs_f64());
        println!("{:<34} {seeds:>5} {limit:>5}  {checker:<13} {took:>7.1}", bug.name);
        for (checker, seed) in outcome.other.iter().filter(|_| outcome.found.is_none()) {
            println!("    seed {seed} fails in another way than expected: {checker}");
        }
        missed += usize::from(outcome.found.is_none());
    }
    println!("{} of {} found, in {:.0} s", bugs.len() - missed, bugs.len(), began.elapsed().as_secs_f64());
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
