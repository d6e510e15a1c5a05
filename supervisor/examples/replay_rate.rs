//! How long a replay takes: a month of a large cluster with plausible noise, made from a seed.
//!
//! Why it exists: an operator waits for `hactl policy replay`; the goal is 10,000 nodes and 30 days in 60 s. What it never
//! does: say how often real networks stall; the noise is chosen to be more than that.
//!
//! `cargo run --release -p supervisor --example replay_rate -- [NODES] [DAYS] [SEED]`

use policies::flight::{Duty, Fact, MARK_EVERY, Record, Sign, Standing};
use policies::replay::{self, Trial};
use policies::{BootId, Epoch, MemberId, Millis, NodeId, Policy, Wall};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::error::Error;
use std::io::Write;
use std::time::Instant;

type Failure = Box<dyn Error + Send + Sync>;

const BEGIN: u64 = 1_795_392_000_000;
const DAY: u64 = 86_400_000;
const MEMBERS: usize = 3;
/// Nodes in one rack.
const RACK: u64 = 40;
/// What happens to one node in one day, in thousandths: a gap on the path to one member, a stall that all members see,
/// a silence of some seconds, a death.
const PER_DAY: [u32; 4] = [2000, 300, 3, 1];

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (nodes, days, seed) = (next(10_000)?, next(30)?, next(1)?);
    let began = Instant::now();
    let tapes = (1..).map(MemberId).zip(month(nodes, days, seed)?).collect::<Vec<_>>();
    let bytes: usize = tapes.iter().map(|(_, tape)| tape.len()).sum();
    let made = began.elapsed();
    let presets = Policy::presets();
    let (name, cautious) = presets.first().ok_or("no presets")?;
    let trial = Trial {
        in_force: presets.iter().cloned().collect(),
        name: name.clone(),
        candidate: cautious.with([("detection.suspect_after", "800ms")])?,
        voters: 3,
        since: Wall(BEGIN),
        failover_takes: Millis::secs(60),
    };
    let began = Instant::now();
    let mut count = 0_u64;
    let read = tapes.iter().map(|(member, tape)| {
        let mut rest = tape.as_slice();
        (*member, std::iter::from_fn(move || Record::decode(&mut rest).ok().flatten()))
    });
    let records = replay::in_order(read).inspect(|_| count += 1);
    let replay = replay::replay(&trial, records)?;
    let took = began.elapsed();
    writeln!(
        std::io::stdout(),
        "{nodes} nodes, {days} days, {count} records in {} MB (made in {made:.1?}): replayed twice in {took:.2?}; \
         {} fences in force, {} with the candidate, {} withheld, {} differences",
        bytes / 1_000_000,
        replay.in_force.fences.len(),
        replay.candidate.fences.len(),
        replay.candidate.braked.len(),
        replay.differences.len(),
    )?;
    Ok(())
}

fn node(number: u64) -> Result<NodeId, Failure> {
    Ok(format!("node-{number}").parse()?)
}

fn standing(number: u64) -> Result<Sign, Failure> {
    let duty = if number.is_multiple_of(10) { Duty::Spare } else { Duty::Protected("cautious".parse()?) };
    let domains = [("rack".to_owned(), format!("r{}", number / RACK))].into();
    Ok(Sign::Stands(Standing { duty, has_probe: true, has_agent: true, domains }))
}

/// The tape of each member.
fn month(nodes: u64, days: u64, seed: u64) -> Result<Vec<Vec<u8>>, Failure> {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut tapes = vec![vec![]; MEMBERS];
    for day in 0..days {
        let noise = noise(nodes, BEGIN + day * DAY, &mut dice)?;
        for (tape, noise) in tapes.iter_mut().zip(noise) {
            for record in today(nodes, BEGIN + day * DAY, noise)? {
                record.encode(tape);
            }
        }
    }
    Ok(tapes)
}

/// One member's day: everything told anew, marks, and what happened.
fn today(nodes: u64, begin: u64, noise: Vec<Record>) -> Result<Vec<Record>, Failure> {
    let mut records = vec![];
    let mut put = |at, fact| records.push(Record { at: Wall(at), fact });
    put(begin, Fact::Began { boot: BootId(1), lost: 0, domain: "room".to_owned() });
    for number in 0..nodes {
        put(begin, Fact::Node(node(number)?, standing(number)?));
        put(begin, Fact::Node(node(number)?, Sign::Heard { epoch: Epoch(1) }));
    }
    for at in (begin + MARK_EVERY.0..begin + DAY).step_by(10_000) {
        put(at, Fact::Mark);
    }
    records.extend(noise);
    records.sort_by_key(|record| record.at);
    Ok(records)
}

/// What happened to the nodes in a day, for each member.
fn noise(nodes: u64, begin: u64, dice: &mut StdRng) -> Result<Vec<Vec<Record>>, Failure> {
    let mut noise = vec![vec![]; MEMBERS];
    for number in 0..nodes {
        let name = node(number)?;
        for (kind, per_day) in PER_DAY.iter().enumerate() {
            let certain = per_day / 1000;
            let times = certain + u32::from(dice.random_ratio(per_day % 1000, 1000));
            for _ in 0..times {
                let at = begin + dice.random_range(60_000..DAY - 600_000);
                let lasting = match kind {
                    0 | 1 => dice.random_range(510..1990),
                    2 => dice.random_range(2100..30_000),
                    _ => 300_000,
                };
                let one = dice.random_range(0..MEMBERS);
                let witnesses = if kind == 0 { one..one + 1 } else { 0..MEMBERS };
                for tape in noise.iter_mut().skip(witnesses.start).take(witnesses.len()) {
                    tape.extend(silence(&name, at, lasting));
                }
            }
        }
    }
    // One switch restarts: a rack is gone for half a minute.
    let (rack, at) =
        (dice.random_range(0..nodes.div_ceil(RACK)), begin + dice.random_range(60_000..DAY - 600_000));
    for number in (rack * RACK..(rack + 1) * RACK).filter(|number| *number < nodes) {
        let (name, late) = (node(number)?, dice.random_range(0..250));
        for tape in &mut noise {
            tape.extend(silence(&name, at + late, 35_000));
        }
    }
    Ok(noise)
}

fn silence(name: &NodeId, at: u64, lasting: u64) -> Vec<Record> {
    let record = |at, sign| Record { at: Wall(at), fact: Fact::Node(name.clone(), sign) };
    if lasting <= 2000 {
        return vec![record(at + lasting, Sign::Gap { lasting: Millis(lasting) })];
    }
    vec![
        record(at + 2000, Sign::Silent { lasting: Millis(2000) }),
        record(at + 2200, Sign::Asked(Some(false))),
        record(at + lasting, Sign::Heard { epoch: Epoch(1) }),
    ]
}
