//! Troubles that show their worth only together: a few at related times, aimed at one weakness.
//!
//! Why it exists: some mistakes need three things to go wrong within seconds, and chance alone brings them together once
//! in thousands of seeds. Each ambush here stands for a planted bug that was found too seldom, or not at all, without it.
//! What it never does: more than a swarm could do; it only makes it likely.

use super::array::Manner;
use super::dice::Dice;
use super::fault::{Blow, Fault, Moment, Order};
use super::machine::Mood;
use super::script::{BEGIN, END, Script, down, member, node, node_names, two_members};

/// The boot service among the providers' devices.
const BOOT: usize = 2;

/// Draws one; the time is when it begins, in ms.
type Ambush = fn(&mut Dice, &Script, u64) -> Vec<(u64, Fault)>;

/// Those that are in it more often find what is else found seldom.
const AMBUSHES: [Ambush; 13] = [
    struck_in_the_act,
    struck_in_the_act,
    struck_in_the_act,
    cut_off_while_asking,
    cut_off_while_asking,
    contradicted,
    contradicted,
    echoes,
    late_opinion,
    late_opinion,
    spares_refuse,
    given_up_while_asking,
    bad_disk,
];

/// The ambushes of a seed; three in five have some.
pub fn lay(dice: &mut Dice, script: &Script) -> Vec<(u64, Fault)> {
    let mut faults = vec![];
    if dice.chance(400) {
        return faults;
    }
    for _ in 0..dice.between(1, 6) {
        let at = dice.between(BEGIN, END - 5_000);
        let ambush = *dice.one_of(&AMBUSHES);
        faults.extend(ambush(dice, script, at));
    }
    faults
}

/// A member is struck between asking a device and acting, or right after.
fn struck_in_the_act(dice: &mut Dice, _: &Script, at: u64) -> Vec<(u64, Fault)> {
    let moment = *dice.one_of(&[Moment::Asked, Moment::Sent]);
    let blow = *dice.one_of(&[Blow::Pause, Blow::Kill]);
    vec![(at, Fault::Trap { moment, skips: dice.between(0, 5), blow, length: dice.between(500, 3_000) })]
}

/// The leader is cut off while it waits for a device whose answer comes when another leads: its lease must be over.
fn cut_off_while_asking(dice: &mut Dice, script: &Script, at: u64) -> Vec<(u64, Fault)> {
    let length = dice.between(1_500, 4_000);
    let trap = Fault::Trap { moment: Moment::Asked, skips: dice.between(0, 3), blow: Blow::CutOff, length };
    let order = Order::Evacuate(dice.between(0, script.instances - 1));
    vec![(at, trap), (at + dice.between(1, 500), Fault::Order(order))]
}

/// A device refuses, is slow or late, commands are doubled; the leader may die; and what it wanted is contradicted at once.
fn contradicted(dice: &mut Dice, script: &Script, at: u64) -> Vec<(u64, Fault)> {
    let device = usize::from(dice.byte() % 3);
    let (manner, length) = match dice.between(0, 2) {
        0 => (Manner::Late, dice.between(500, 3_000)),
        1 => (Manner::Slow(1_500), dice.between(500, 3_000)),
        // So long that the spare is given up.
        _ => (Manner::Refuses, dice.between(7_000, 12_000)),
    };
    let echo = Fault::Echo { in_thousand: dice.between(300, 900), length: 12_000 };
    let evacuate = Order::Evacuate(dice.between(0, script.instances - 1));
    let chase = Order::Chase { length: dice.between(5_000, 15_000) };
    let mut faults = vec![
        (at, echo),
        (at, Fault::Order(evacuate)),
        (at, Fault::Order(chase)),
        (at + dice.between(0, 300), Fault::Provider { device, manner, length }),
    ];
    if dice.chance(300) {
        let blow = *dice.one_of(&[Blow::CutOff, Blow::Kill]);
        let skips = dice.between(0, 7);
        faults.push((at, Fault::Trap { moment: Moment::Sent, skips, blow, length: 2_000 }));
    }
    faults
}

/// Commands are doubled, and operators wait for nothing.
fn echoes(dice: &mut Dice, _: &Script, at: u64) -> Vec<(u64, Fault)> {
    let length = dice.between(2_000, 20_000);
    let echo = Fault::Echo { in_thousand: dice.between(100, 800), length };
    let hurry = Fault::Order(Order::Hurry { length });
    vec![(at, echo), (at + dice.between(0, 1_000), hurry)]
}

/// A member is cut off from the others, then finds a node silent, and is stopped just after it has written so. When the
/// way is free again, its kernel delivers what it wrote; by then it would hear the node, and another member does not.
fn late_opinion(dice: &mut Dice, script: &Script, at: u64) -> Vec<(u64, Fault)> {
    let (early, late) = two_members(dice, script);
    let node = node(dice, script);
    // Before it can tell that the node is silent: what it wrote until then says that it lives.
    let cut = dice.between(300, 700);
    // Long enough to ask the node's kernel.
    let deaf = dice.between(1_500, 2_000);
    // So long that what it wrote is too old, and so short that TCP still tries.
    let free = dice.between(4_000, 4_400);
    vec![
        (at, Fault::Deaf { node: node.clone(), member: early, length: deaf }),
        (at + cut, Fault::Isolate { member: early, length: free - cut }),
        (at + deaf - dice.between(0, 100), Fault::Pause { member: early, length: 6_000 }),
        (at + free - dice.between(0, 800), Fault::Deaf { node, member: late, length: 5_000 }),
    ]
}

/// The BMCs of the spares refuse, commands are doubled, and operators wait for nothing: a spare that was given up is
/// released while it may yet be switched on.
fn spares_refuse(dice: &mut Dice, script: &Script, at: u64) -> Vec<(u64, Fault)> {
    let length = dice.between(9_000, 15_000);
    let echo = Fault::Echo { in_thousand: dice.between(500, 1_000), length: 20_000 };
    let evacuate = Order::Evacuate(dice.between(0, script.instances - 1));
    let mut faults =
        vec![(at, echo), (at, Fault::Order(evacuate)), (at, Fault::Order(Order::Hurry { length: 20_000 }))];
    let names = node_names(script.instances, script.spares);
    let spares = names.into_iter().skip(usize::try_from(script.instances).unwrap_or(0));
    faults.extend(spares.map(|node| (at, Fault::Bmc { node, mood: Mood::Refuses, length })));
    faults
}

/// The boot service is away, then slow: a spare is given up while the last command for it still waits for an answer.
fn given_up_while_asking(dice: &mut Dice, script: &Script, at: u64) -> Vec<(u64, Fault)> {
    let away = dice.between(4_000, 9_000);
    let evacuate = Order::Evacuate(dice.between(0, script.instances - 1));
    vec![
        (at, Fault::Order(evacuate)),
        (at, Fault::Provider { device: BOOT, manner: Manner::Away, length: away }),
        (at + away + 1, Fault::Provider { device: BOOT, manner: Manner::Slow(3_000), length: 4_000 }),
    ]
}

/// A disk does not keep what it should. Seldom: its member is mostly lost for the rest of the run.
fn bad_disk(dice: &mut Dice, script: &Script, at: u64) -> Vec<(u64, Fault)> {
    if dice.chance(600) {
        return vec![];
    }
    let member = member(dice, script);
    let fault = match dice.chance(500) {
        true => Fault::LyingDisk { member, length: dice.between(10, 10_000) },
        false => {
            let bytes = *dice.one_of(&[1, 1, 10, 1_000]);
            Fault::Rot { member, bytes, down: down(dice) }
        }
    };
    vec![(at, fault)]
}
