//! Runs scenarios one after the other and says what came of each, in a line.
//!
//! Why it exists: `make test-chaos` is this, and its exit code.
//! What it never does: go on in silence: a scenario that cannot be run here says SKIPPED and why.

use super::scenario::Scenario;
use super::scene::Scene;
use super::{checks, control, court, faultfs, gather, net, trail};
use crate::demo::error::system;
use crate::demo::stage::keep;
use crate::demo::table::say;
use crate::demo::{DemoError, Home};
use nix::fcntl::{Flock, FlockArg};
use policies::causes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fs::File;
use std::time::{Duration, Instant};

/// Held while scenarios run: two runs at once would take each other's namespaces away.
const LOCK: &str = "/run/lock/vf-field";

/// Longest line of what does not hold, in characters.
const LINE_CHARS_MAX: usize = 400;

/// What came of a scenario.
enum Came {
    Holds(String),
    Skipped(String),
    Broken(Vec<String>),
}

/// The place where scenarios run. Dropping it removes everything that was made for them.
pub struct Field {
    ground: Result<Ground, String>,
}

struct Ground {
    network: net::Network,
    _lock: Flock<File>,
}

impl Field {
    /// Makes the network and puts the calling thread into it: has to be called before a runtime has threads. A
    /// computer that does not allow it is no error; every scenario will then be skipped.
    ///
    /// # Errors
    /// [`DemoError`] if another run is under way.
    pub fn open() -> Result<Field, DemoError> {
        if !nix::unistd::geteuid().is_root() {
            return Ok(Field { ground: Err("network namespaces need root".to_owned()) });
        }
        let lock = File::create(LOCK).map_err(system(format!("make {LOCK}")))?;
        let busy = format!("lock {LOCK}, which another run holds");
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| system(busy)(errno.into()))?;
        Ok(Field { ground: prepare(lock) })
    }

    /// Runs these scenarios; a line for each.
    ///
    /// # Errors
    /// [`DemoError::DidNotHold`] if one of them did not hold.
    pub async fn run(&self, home: &Home, scenarios: &[Scenario], seed: u64) -> Result<(), DemoError> {
        let (began, mut failed, mut skipped) = (Instant::now(), 0, 0);
        for (number, scenario) in (1..).zip(scenarios) {
            let room = format!("{number}-{}", scenario.describe().0);
            match self.one(home, *scenario, seed, &room).await? {
                Came::Holds(_) => {}
                Came::Skipped(_) => skipped += 1,
                Came::Broken(_) => failed += 1,
            }
        }
        summary(home, scenarios.len(), failed, skipped, began)
    }

    /// Runs scenarios that are drawn by chance until the time is over. What holds leaves no files.
    ///
    /// # Errors
    /// [`DemoError::DidNotHold`] if one of them did not hold.
    pub async fn soak(&self, home: &Home, length: Duration, seed: u64) -> Result<(), DemoError> {
        say(&format!("seed {seed}; each line ends with the seed that draws its chances again"))?;
        let mut chance = StdRng::seed_from_u64(seed);
        let (began, mut count, mut failed, mut skipped) = (Instant::now(), 0, 0, 0);
        while began.elapsed() < length && skipped < Scenario::ALL.len() * 10 {
            let drawn = chance.random_range(0..Scenario::ALL.len());
            let Some(scenario) = Scenario::ALL.get(drawn) else { break };
            count += 1;
            let room = format!("{count}-{}", scenario.describe().0);
            match self.one(home, *scenario, chance.random_range(0..1_000_000), &room).await? {
                Came::Holds(_) => {
                    let dir = home.dir().join(&room);
                    std::fs::remove_dir_all(&dir).map_err(system(format!("remove {}", dir.display())))?;
                }
                Came::Skipped(_) => skipped += 1,
                Came::Broken(_) => failed += 1,
            }
        }
        summary(home, count, failed, skipped, began)
    }

    async fn one(&self, home: &Home, scenario: Scenario, seed: u64, room: &str) -> Result<Came, DemoError> {
        let began = Instant::now();
        let result = match &self.ground {
            Err(unfit) => Came::Skipped(unfit.clone()),
            Ok(ground) => match scenario.missing() {
                Some(missing) => Came::Skipped(missing),
                None => play(home, &ground.network, scenario, seed, room).await,
            },
        };
        let (name, done) = scenario.describe();
        let took = began.elapsed().as_secs_f64();
        match &result {
            Came::Holds(measured) => {
                say(&format!("PASS    {name:<22} {took:>5.1} s  {done}: {measured} (seed {seed})"))?;
            }
            Came::Skipped(why) => say(&format!("SKIPPED: {name}: {why}"))?,
            Came::Broken(broken) => {
                say(&format!("FAIL    {name:<22} {took:>5.1} s  {done} (seed {seed})"))?;
                for line in broken.iter().flat_map(|sentence| sentence.lines()) {
                    say(&format!("        {}", shorten(line)))?;
                }
                say(&format!("        logs: {}", home.dir().join(room).display()))?;
            }
        }
        Ok(result)
    }
}

/// One scenario from nothing to the checks.
async fn play(home: &Home, network: &net::Network, scenario: Scenario, seed: u64, room: &str) -> Came {
    match act(home, network, scenario, seed, room).await {
        Err(error) => Came::Broken(vec![causes(&error)]),
        Ok((measured, broken)) if broken.is_empty() => Came::Holds(measured),
        Ok((_, broken)) => Came::Broken(broken),
    }
}

async fn act(
    home: &Home,
    network: &net::Network,
    scenario: Scenario,
    seed: u64,
    room: &str,
) -> Result<(String, Vec<String>), DemoError> {
    let dir = home.room(room)?;
    let mut scene = Scene::build(home, network, dir.clone(), &scenario.setting(), seed).await?;
    let measured = scenario.act(&mut scene).await?;
    let facts = gather::gather(scene).await?;
    let text = serde_json::to_string_pretty(&facts)
        .map_err(|error| DemoError::Unexpected(format!("write the facts: {error}")))?;
    keep(&dir.join("facts.json"), &text)?;
    let trail = trail::trail(&facts);
    let lines =
        trail.iter().flatten().map(|(at, fact)| shorten(&format!("{:>11.6} {fact}", *at as f64 / 1e6)));
    keep(&dir.join("trail.txt"), &lines.collect::<Vec<_>>().join("\n"))?;
    let orders = facts.acked.len();
    let broken = checks::broken(&facts).into_iter().chain(court::broken(&trail)).collect();
    Ok((format!("{measured}; {orders} acknowledged orders"), broken))
}

/// A line of a log may be longer than anybody reads; it is in the log.
fn shorten(line: &str) -> String {
    match line.char_indices().nth(LINE_CHARS_MAX) {
        None => line.to_owned(),
        Some((end, _)) => format!("{}...", line.get(..end).unwrap_or_default()),
    }
}

/// Makes sure that this computer allows what scenarios need, removes what an earlier run left, makes the network.
fn prepare(lock: Flock<File>) -> Result<Ground, String> {
    if let Some(missing) = net::missing() {
        return Err(missing);
    }
    let refused = |error: DemoError| causes(&error);
    control::sweep();
    faultfs::sweep().map_err(refused)?;
    let network = net::Network::build().map_err(refused)?;
    network.enter().map_err(refused)?;
    Ok(Ground { network, _lock: lock })
}

fn summary(
    home: &Home,
    count: usize,
    failed: usize,
    skipped: usize,
    began: Instant,
) -> Result<(), DemoError> {
    let passed = count - failed - skipped;
    let seconds = began.elapsed().as_secs();
    say(&format!("{passed} passed, {failed} failed, {skipped} skipped in {seconds} s"))?;
    match failed {
        0 => Ok(()),
        failed => Err(DemoError::DidNotHold { failed, of: count, logs: home.dir().to_owned() }),
    }
}
