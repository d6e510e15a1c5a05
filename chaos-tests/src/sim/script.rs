//! Everything that a seed decides before anything happens.
//!
//! Why it exists: swarm testing (Groce et al., ISSTA 2012): each seed allows a random subset of troubles at random
//! rates, so that rare combinations are not drowned by common ones.
//! What it never does: depend on what happens; the same seed gives the same script in every version of the product.

use super::ambush;
use super::array::Manner;
use super::dice::Dice;
use super::fault::{Fault, Order};
use super::machine::Mood;
use super::world::Death;
use policies::{After, MemberId, Millis, NodeId, Policy};

/// How a run is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Mode {
    /// Anything may go wrong at any time; nothing bad may happen.
    Safety,
    /// After a while a core that can work is healed, the rest stays broken, and everything must come back.
    Liveness,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Mode::Safety => "safety",
            Mode::Liveness => "liveness",
        })
    }
}

/// From this time on, in ms, things go wrong: before it the cluster is formed.
pub const BEGIN: u64 = 5_000;
/// Until then, in ms.
pub const END: u64 = 60_000;

/// What a seed decides.
#[derive(Clone, Debug)]
pub struct Script {
    /// The seed.
    pub seed: u64,
    /// How it is judged.
    pub mode: Mode,
    /// Members at the beginning.
    pub members: u64,
    /// Instances, each on a node of its own.
    pub instances: u64,
    /// Nodes without one.
    pub spares: u64,
    /// How many of them wait hot at the beginning; all of them would when they start.
    pub hot: u64,
    /// The policy of all instances.
    pub policy: Policy,
    /// Storage refuses a second node on a volume.
    pub exclusive: bool,
    /// Devices compare tokens.
    pub tokens: bool,
    /// Entries between snapshots.
    pub snapshot_after: u64,
    /// Of 1,000 packets, how many are usually lost.
    pub loss: u64,
    /// The clock rate of each member, in millionths.
    pub rates: Vec<u64>,
    /// For each node: boot time and off time in ms, and whether its BMC dies with its power.
    pub nodes: Vec<(u64, u64, bool)>,
    /// What goes wrong, with its time in ms.
    pub faults: Vec<(u64, Fault)>,
}

/// The names of the nodes, in the order of the inventory.
pub fn node_names(instances: u64, spares: u64) -> Vec<NodeId> {
    let kind = |number| if number < instances { "n" } else { "s" };
    let names = (0..instances + spares).map(|number| format!("{}{number:02}", kind(number)));
    names.filter_map(|name| name.parse().ok()).collect()
}

/// A kind of trouble: draws one.
type Kind = fn(&mut Dice, &Script) -> Fault;

const KINDS: [Kind; 26] = [
    |dice, script| Fault::Die { member: member(dice, script), death: death(dice), down: down(dice) },
    |dice, script| {
        let syncs = dice.between(0, 20);
        Fault::DieAfterSyncs { member: member(dice, script), syncs, death: death(dice), down: down(dice) }
    },
    |dice, script| {
        let sends = dice.between(0, 3);
        Fault::DieAfterSends { member: member(dice, script), sends, death: death(dice), down: down(dice) }
    },
    |dice, script| Fault::Pause { member: member(dice, script), length: dice.between(50, 4_000) },
    |dice, script| Fault::Suspend { member: member(dice, script), length: dice.between(50, 5_000) },
    |dice, script| Fault::Rate { member: member(dice, script), rate: dice.between(992_000, 1_008_000) },
    |dice, script| Fault::WallClock { member: member(dice, script), ahead: dice.between(1, 86_400_000) },
    |dice, script| {
        let (from, to) = two_members(dice, script);
        Fault::OneWay { from, to, length: length(dice) }
    },
    |dice, script| Fault::Isolate { member: member(dice, script), length: length(dice) },
    |dice, _| {
        let (in_thousand, delay) = (dice.between(20, 300), dice.between(1_000, 100_000));
        Fault::Lossy { in_thousand, delay, length: length(dice) }
    },
    |dice, script| {
        let pace = dice.between(20, 400);
        Fault::SlowDisk { member: member(dice, script), pace, length: length(dice) }
    },
    |dice, script| Fault::FailingDisk {
        member: member(dice, script),
        full: dice.chance(300),
        down: down(dice),
    },
    |dice, script| Fault::Hang { node: node(dice, script), length: dice.between(300, 30_000) },
    |dice, script| Fault::Hang { node: node(dice, script), length: 100_000 },
    |dice, script| Fault::AgentDies { node: node(dice, script), length: dice.between(300, 30_000) },
    |dice, script| Fault::Panic { node: node(dice, script) },
    |dice, script| Fault::PowerLoss { node: node(dice, script), with_bmc: dice.chance(300) },
    |dice, script| Fault::Nic { node: node(dice, script), length: dice.between(300, 20_000) },
    |dice, script| Fault::Deaf {
        node: node(dice, script),
        member: member(dice, script),
        length: length(dice),
    },
    |dice, script| Fault::DeafToAll { member: member(dice, script), length: length(dice) },
    |dice, script| Fault::Bmc {
        node: node(dice, script),
        mood: mood(dice),
        length: dice.between(1_000, 40_000),
    },
    |dice, script| Fault::SelfBoot { node: node(dice, script) },
    |dice, script| Fault::WontBoot { node: node(dice, script), length: dice.between(1_000, 40_000) },
    |dice, _| {
        let device = usize::from(dice.byte() % 3);
        Fault::Provider { device, manner: manner(dice), length: dice.between(500, 15_000) }
    },
    |dice, script| Fault::Order(order(dice, script)),
    |dice, script| Fault::Order(order(dice, script)),
];

pub(super) fn member(dice: &mut Dice, script: &Script) -> MemberId {
    MemberId(dice.between(1, script.members))
}

pub(super) fn two_members(dice: &mut Dice, script: &Script) -> (MemberId, MemberId) {
    let from = dice.between(1, script.members);
    let to = (from + dice.between(0, script.members - 2)) % script.members + 1;
    (MemberId(from), MemberId(to))
}

pub(super) fn node(dice: &mut Dice, script: &Script) -> NodeId {
    let names = node_names(script.instances, script.spares);
    dice.one_of(&names).clone()
}

fn death(dice: &mut Dice) -> Death {
    *dice.one_of(&[Death::Killed, Death::Power])
}

pub(super) fn down(dice: &mut Dice) -> u64 {
    dice.between(20, 6_000)
}

fn length(dice: &mut Dice) -> u64 {
    dice.between(100, 12_000)
}

fn mood(dice: &mut Dice) -> Mood {
    let slow = Mood::Slow(dice.between(100, 1_500));
    *dice.one_of(&[Mood::Lies, Mood::Dead, Mood::Late, Mood::Full, Mood::Refuses, slow])
}

fn manner(dice: &mut Dice) -> Manner {
    let slow = Manner::Slow(dice.between(100, 1_500));
    *dice.one_of(&[Manner::Away, Manner::Late, Manner::Refuses, slow])
}

fn order(dice: &mut Dice, script: &Script) -> Order {
    match dice.between(0, 12) {
        0 => Order::Evacuate(dice.between(0, script.instances - 1)),
        12 => Order::Drain { node: node(dice, script), shutdown: Millis(dice.between(1_000, 15_000)) },
        1 => Order::Fence(node(dice, script)),
        2 => Order::CancelAny,
        3 | 4 => Order::ReleaseAll,
        5 => Order::ConfirmOff,
        6 => Order::Disarm { length: dice.between(1_000, 10_000) },
        7 => Order::Maintain { node: node(dice, script), length: dice.between(1_000, 20_000) },
        8 => Order::Cordon { node: node(dice, script), length: dice.between(1_000, 20_000) },
        9 => Order::Policy {
            fences_in_flight_max: u32::try_from(dice.between(1, 4)).unwrap_or(1),
            isolation_alone: dice.chance(500),
        },
        10 => Order::Chase { length: dice.between(1_000, 10_000) },
        _ => match dice.chance(500) {
            true => Order::Transfer(member(dice, script)),
            false => Order::Replace {
                old: member(dice, script),
                new: MemberId(script.members + dice.between(1, 2)),
            },
        },
    }
}

/// A policy whose times fit into a minute.
fn policy(dice: &mut Dice, mode: Mode) -> Policy {
    let mut presets = Policy::presets();
    let (_, mut policy) = presets.remove(1);
    policy.detection.gray_after = Millis(dice.between(2_000, 8_000));
    policy.detection.write_stale_after = Millis(dice.between(2_000, 8_000));
    let fencing = &mut policy.fencing;
    let isolation_alone = mode == Mode::Liveness || dice.chance(700);
    let after = Millis(dice.between(500, 3_000));
    fencing.isolation_alone = if isolation_alone { After::Time(after) } else { After::Never };
    fencing.level_deadline = Millis(2_000);
    fencing.retry_after = Millis(dice.between(100, 500));
    fencing.power_effect_max = Millis(dice.between(2_000, 5_000));
    fencing.provider_effect_max = Millis(dice.between(1_000, 4_000));
    fencing.diagnose_max = if dice.chance(300) { Millis(dice.between(100, 1_000)) } else { Millis(0) };
    policy.takeover.step_deadline = Millis(dice.between(1_000, 3_000));
    policy.takeover.start_deadline = Millis(dice.between(6_000, 10_000));
    let brakes = &mut policy.brakes;
    let number = |dice: &mut Dice, least, most| u32::try_from(dice.between(least, most)).unwrap_or(1);
    brakes.fences_in_flight_max = number(dice, 1, 3);
    brakes.fences_per_10min_max = number(dice, 3, 8);
    brakes.hold_above_failed_per_domain = number(dice, 2, 4);
    brakes.hold_above_failed = number(dice, 4, 8);
    if mode == Mode::Liveness {
        (brakes.fences_in_flight_max, brakes.fences_per_10min_max) = (4, 1_000);
        (brakes.hold_above_failed, brakes.hold_above_failed_per_domain) = (1_000, 1_000);
    }
    policy
}

impl Script {
    /// What `seed` decides.
    pub fn draw(seed: u64, mode: Mode) -> Script {
        let mut dice = Dice::of(seed, "script");
        let dice = &mut dice;
        let members = if dice.chance(150) { 5 } else { 3 };
        let (instances, spares) = match mode {
            Mode::Safety => (8, 4),
            Mode::Liveness => (6, 6),
        };
        let mut script = Script {
            seed,
            mode,
            members,
            instances,
            spares,
            hot: 0,
            policy: policy(dice, mode),
            exclusive: dice.chance(500),
            tokens: dice.chance(300),
            snapshot_after: *dice.one_of(&[15, 40, 200, 5_000]),
            loss: *dice.one_of(&[0, 0, 1, 5]),
            rates: (0..members + 2).map(|_| dice.between(995_000, 1_005_000)).collect(),
            nodes: vec![],
            faults: vec![],
        };
        for _ in 0..instances + spares {
            let off_time = *dice.one_of(&[0, 10, 50, 300]);
            script.nodes.push((dice.between(200, 3_000), off_time, dice.chance(150)));
        }
        // Dice of their own, as for the ambush.
        let hot = &mut Dice::of(seed, "hot");
        script.hot = if hot.chance(500) { hot.between(1, spares) } else { 0 };
        script.policy.takeover.kexec_max =
            if hot.chance(800) { Millis(hot.between(1_000, 4_000)) } else { Millis(0) };
        script.faults = faults(dice, &script);
        // Dice of their own: whatever else a seed means stays as it is.
        script.policy.takeover.snapshot_max = snapshot_max(&mut Dice::of(seed, "snapshots"));
        let dumps = &mut Dice::of(seed, "crash dumps");
        script.policy.fencing.crash_dump_max =
            if dumps.chance(200) { Millis(dumps.between(100, 1_500)) } else { Millis(0) };
        script.faults.extend(ambush::lay(&mut Dice::of(seed, "ambush"), &script));
        let backups = backups(&mut Dice::of(seed, "backups"), &script);
        script.policy.backups.kept = if backups.is_empty() { 0 } else { 2 };
        script.faults.extend(backups);
        script.faults.extend(heard_by_one(&mut Dice::of(seed, "heard by one"), &script));
        script.faults.sort_by_key(|(at, _)| *at);
        if mode == Mode::Liveness {
            // A member whose disk is not to be trusted is lost for good, and two such are a quorum lost.
            let lost = |fault: &Fault| matches!(fault, Fault::LyingDisk { .. } | Fault::Rot { .. });
            script.faults.retain(|(_, fault)| !lost(fault));
        }
        script
    }
}

/// A third of all seeds keeps what is on a volume before it is given on; some are in a hurry.
fn snapshot_max(dice: &mut Dice) -> Millis {
    if dice.chance(300) { Millis(dice.between(100, 1_000)) } else { Millis(0) }
}

/// In a third of all seeds operators back instances up, so often that failovers begin in between.
fn backups(dice: &mut Dice, script: &Script) -> Vec<(u64, Fault)> {
    if !dice.chance(300) {
        return vec![];
    }
    let orders = dice.between(5, 60);
    let order = |dice: &mut Dice| Fault::Order(Order::Backup(dice.between(0, script.instances - 1)));
    (0..orders).map(|_| (dice.between(BEGIN, END), order(dice))).collect()
}

/// Once in a while all members but one go deaf to the same node: too rare by chance.
fn heard_by_one(dice: &mut Dice, script: &Script) -> Vec<(u64, Fault)> {
    if !dice.chance(100) {
        return vec![];
    }
    let (at, node) = (dice.between(2 * BEGIN, END - 2 * BEGIN), node(dice, script));
    let hears = dice.between(1, script.members);
    let deaf = (1..=script.members).filter(|member| *member != hears).map(MemberId);
    deaf.map(|member| (at, Fault::Deaf { node: node.clone(), member, length: 2 * BEGIN })).collect()
}

/// A random subset of the kinds, each with a weight of its own, at a random rate.
fn faults(dice: &mut Dice, script: &Script) -> Vec<(u64, Fault)> {
    let share = dice.between(150, 700);
    let mut kinds: Vec<Kind> = vec![];
    for kind in KINDS {
        if dice.chance(share) {
            let weight = dice.between(1, 4);
            kinds.extend(std::iter::repeat_n(kind, usize::try_from(weight).unwrap_or(1)));
        }
    }
    let pause = dice.between(400, 4_000);
    let (mut now, mut faults) = (BEGIN, vec![]);
    // Something must fail, or nothing is tried.
    let victim = Fault::Hang { node: node(dice, script), length: 100_000 };
    faults.push((BEGIN + dice.between(0, 20_000), victim));
    while !kinds.is_empty() {
        now += dice.between(1, 2 * pause);
        if now >= END {
            break;
        }
        let kind = *dice.one_of(&kinds);
        faults.push((now, kind(dice, script)));
    }
    faults.sort_by_key(|(at, _)| *at);
    faults
}
