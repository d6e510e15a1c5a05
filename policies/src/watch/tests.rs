//! The watch table against plain examples, and against a model that looks at every node at every tick.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const LIMITS: Limits = Limits { suspect_after: Millis(500), write_stale_after: Millis(1000), paths_min: 2 };
const NODE: Slot = Slot(3);

fn alive(boot: u64) -> Heartbeat {
    Heartbeat { boot: BootId(boot), epoch: Epoch(1), write_age: None, last_gasp: None }
}

fn gasp(boot: u64, why: LastGasp) -> Heartbeat {
    Heartbeat { last_gasp: Some(why), ..alive(boot) }
}

fn heard(boot: u64) -> Option<Change> {
    Some(Change::Heard { boot: BootId(boot), epoch: Epoch(1) })
}

fn enrolled() -> Watch {
    let mut watch = Watch::new(Mono(0));
    watch.enroll(NODE, LIMITS, Mono(0));
    watch
}

fn tick(watch: &mut Watch, now: u64) -> Vec<(Slot, Change)> {
    let mut out = vec![];
    watch.tick(Mono(now), &mut out);
    out
}

#[test]
fn a_record_with_its_share_of_the_wheel_fits_160_bytes() {
    // The chains run through the records; the heads are 2 KiB for the whole table.
    assert!(size_of::<Record>() <= 96, "{}", size_of::<Record>());
}

#[test]
fn a_node_is_silent_at_the_first_tick_after_its_deadline_and_heard_again_at_its_next_heartbeat() {
    let mut watch = enrolled();
    assert_eq!(watch.beat(NODE, Mono(100), &alive(7)), heard(7));
    assert_eq!(watch.beat(NODE, Mono(350), &alive(7)), None);
    assert_eq!(tick(&mut watch, 849), vec![]);
    assert_eq!(tick(&mut watch, 850), vec![(NODE, Change::Silent { since: Mono(350) })]);
    assert_eq!(tick(&mut watch, 5000), vec![]);
    assert_eq!(watch.beat(NODE, Mono(5001), &alive(7)), heard(7));
    assert_eq!(watch.last(NODE), Some(Seen { at: Mono(5001), heartbeat: alive(7) }));
    assert_eq!(tick(&mut watch, 5510), vec![(NODE, Change::Silent { since: Mono(5001) })]);
}

#[test]
fn a_node_that_was_never_heard_is_not_called_silent() {
    let mut watch = enrolled();
    assert_eq!(tick(&mut watch, 499), vec![]);
    assert_eq!(tick(&mut watch, 500), vec![(NODE, Change::NeverHeard { since: Mono(0) })]);
    assert_eq!(watch.last(NODE), None);
    assert_eq!(watch.beat(NODE, Mono(600), &alive(7)), heard(7));
}

#[test]
fn a_forgotten_node_is_no_news_and_its_slot_begins_anew() {
    let mut watch = enrolled();
    assert_eq!(watch.beat(NODE, Mono(100), &alive(7)), heard(7));
    watch.forget(NODE);
    assert_eq!(watch.beat(NODE, Mono(200), &alive(7)), None);
    assert_eq!(tick(&mut watch, 2000), vec![]);
    watch.enroll(NODE, LIMITS, Mono(2000));
    assert_eq!(watch.beat(NODE, Mono(2001), &alive(8)), heard(8));
}

#[test]
fn new_limits_count_from_the_last_heartbeat() {
    let mut watch = enrolled();
    assert_eq!(watch.beat(NODE, Mono(100), &alive(7)), heard(7));
    watch.enroll(NODE, Limits { suspect_after: Millis(50), ..LIMITS }, Mono(120));
    assert_eq!(tick(&mut watch, 140), vec![]);
    assert_eq!(tick(&mut watch, 150), vec![(NODE, Change::Silent { since: Mono(100) })]);
}

#[test]
fn another_life_is_not_taken_while_the_known_one_is_heard_and_a_displaced_one_never_comes_back() {
    let mut watch = enrolled();
    assert_eq!(watch.beat(NODE, Mono(100), &alive(7)), heard(7));
    assert!(!watch.admits(NODE, BootId(8)));
    assert_eq!(watch.beat(NODE, Mono(200), &alive(8)), None);
    assert_eq!(watch.last(NODE).map(|seen| seen.at), Some(Mono(100)), "a refused life keeps nothing alive");
    assert_eq!(tick(&mut watch, 600), vec![(NODE, Change::Silent { since: Mono(100) })]);
    assert_eq!(watch.beat(NODE, Mono(700), &alive(8)), heard(8));
    assert_eq!(tick(&mut watch, 1200), vec![(NODE, Change::Silent { since: Mono(700) })]);
    assert_eq!(watch.beat(NODE, Mono(1300), &alive(7)), None);
    assert_eq!(watch.beat(NODE, Mono(1300), &alive(8)), heard(8));
}

#[test]
fn a_farewell_is_told_once_lets_the_next_life_in_at_once_and_is_taken_back_by_a_heartbeat() {
    let mut watch = enrolled();
    assert_eq!(watch.beat(NODE, Mono(100), &alive(7)), heard(7));
    let shutdown = gasp(7, LastGasp::Shutdown);
    assert_eq!(watch.beat(NODE, Mono(110), &shutdown), Some(Change::LastGasp(LastGasp::Shutdown)));
    assert_eq!(watch.beat(NODE, Mono(111), &shutdown), None);
    let panic = gasp(7, LastGasp::Panic);
    assert_eq!(watch.beat(NODE, Mono(112), &panic), Some(Change::LastGasp(LastGasp::Panic)));
    assert_eq!(watch.beat(NODE, Mono(120), &alive(7)), heard(7));
    assert_eq!(watch.beat(NODE, Mono(130), &shutdown), Some(Change::LastGasp(LastGasp::Shutdown)));
    assert_eq!(watch.beat(NODE, Mono(140), &alive(8)), heard(8));
}

#[test]
fn a_stuck_disk_is_news_when_it_gets_stale_and_when_it_is_written_again() {
    let mut watch = enrolled();
    let written = |age| Heartbeat { write_age: age, ..alive(7) };
    assert_eq!(watch.beat(NODE, Mono(1), &written(Some(Millis(5000)))), heard(7), "weightier news first");
    let stale = |age| Some(Change::WriteStale { age: Millis(age) });
    assert_eq!(watch.beat(NODE, Mono(2), &written(Some(Millis(5001)))), stale(5001));
    assert_eq!(watch.beat(NODE, Mono(3), &written(Some(Millis(5002)))), None);
    assert_eq!(watch.beat(NODE, Mono(4), &written(Some(Millis(1000)))), Some(Change::WriteFresh));
    assert_eq!(watch.beat(NODE, Mono(5), &written(Some(Millis(1001)))), stale(1001));
    assert_eq!(watch.beat(NODE, Mono(6), &written(None)), Some(Change::WriteFresh));
    assert_eq!(watch.beat(NODE, Mono(7), &written(Some(Millis(2000)))), stale(2000));
    assert_eq!(tick(&mut watch, 600), vec![(NODE, Change::Silent { since: Mono(7) })]);
    assert_eq!(watch.beat(NODE, Mono(601), &written(Some(Millis(2600)))), heard(7));
    assert_eq!(watch.beat(NODE, Mono(602), &written(Some(Millis(2601)))), stale(2601), "told anew");
}

#[test]
fn a_path_that_was_heard_is_missed_after_a_round_and_one_that_never_was_is_not() {
    let mut watch = enrolled();
    assert_eq!(watch.beat(NODE, Mono(0), &alive(7)), heard(7));
    let came = |watch: &mut Watch, now: u64, life: u64, paths: &[u8]| {
        let change = watch.beat(NODE, Mono(now), &alive(life));
        paths.iter().for_each(|path| watch.came_by(NODE, *path));
        change
    };
    let few = Some(Change::PathsFew(FewPaths { heard: 1, wanted: 2 }));
    for now in (250..=2000).step_by(250) {
        assert_eq!(came(&mut watch, now, 7, &[0]), None, "it has only one path, as far as anybody knows");
    }
    assert_eq!(came(&mut watch, 2250, 7, &[0, 1, 200]), None, "a number that no path has is none");
    assert_eq!(came(&mut watch, 2500, 7, &[0]), None, "it was heard on both in this round");
    assert_eq!(came(&mut watch, 3000, 7, &[0]), few);
    assert_eq!(came(&mut watch, 3250, 7, &[1]), None, "told once");
    assert_eq!(came(&mut watch, 3500, 7, &[0]), Some(Change::PathsEnough), "both in one round");
    assert_eq!(came(&mut watch, 4000, 7, &[0]), few);
    assert_eq!(tick(&mut watch, 9000).len(), 1);
    assert_eq!(came(&mut watch, 9100, 7, &[0]), heard(7), "the same life after a silence");
    assert_eq!(came(&mut watch, 9600, 7, &[0]), few, "told anew");
    watch.enroll(NODE, Limits { paths_min: 1, ..LIMITS }, Mono(9700));
    assert_eq!(came(&mut watch, 10_100, 7, &[0]), Some(Change::PathsEnough), "one is enough now");
    watch.enroll(NODE, LIMITS, Mono(10_100));
    assert_eq!(tick(&mut watch, 20_000).len(), 1);
    assert_eq!(came(&mut watch, 20_100, 8, &[0]), heard(8), "another life may have other paths");
    assert_eq!(came(&mut watch, 20_600, 8, &[0]), None);
}

/// What one node is in the model.
#[derive(Clone, Debug)]
struct Plain {
    limits: Limits,
    enrolled: Mono,
    seen: Option<Seen>,
    displaced: BTreeSet<u64>,
    reported: bool,
    stale: bool,
}

/// The same rules without a wheel: all deadlines in a map, every node looked at in every tick.
#[derive(Default)]
struct Model {
    nodes: BTreeMap<u32, Plain>,
    deadlines: BTreeMap<u32, u64>,
    turned: u64,
}

impl Model {
    fn enroll(&mut self, slot: u32, limits: Limits, now: Mono) {
        let fresh = Plain {
            limits,
            enrolled: now,
            seen: None,
            displaced: BTreeSet::new(),
            reported: false,
            stale: false,
        };
        let node = self.nodes.entry(slot).or_insert(fresh);
        node.limits = limits;
        if !node.reported {
            let from = node.seen.map_or(node.enrolled, |seen| seen.at);
            self.deadlines.insert(slot, from.0 + limits.suspect_after.0);
        }
    }

    fn forget(&mut self, slot: u32) {
        self.nodes.remove(&slot);
        self.deadlines.remove(&slot);
    }

    fn beat(&mut self, slot: u32, now: Mono, beat: &Heartbeat) -> Option<Change> {
        let node = self.nodes.get_mut(&slot)?;
        let (was, silent) = (node.seen.map(|seen| seen.heartbeat), node.reported);
        if let Some(was) = was.filter(|was| was.boot != beat.boot) {
            if node.displaced.contains(&beat.boot.0) || !(silent || was.last_gasp.is_some()) {
                return None;
            }
            node.displaced.insert(was.boot.0);
        }
        node.seen = Some(Seen { at: now, heartbeat: *beat });
        node.reported = false;
        self.deadlines.insert(slot, now.0 + node.limits.suspect_after.0);
        let same = was.is_some_and(|was| was.boot == beat.boot) && !silent;
        if let Some(gasp) = beat.last_gasp {
            let again = same && was.is_some_and(|was| was.last_gasp == Some(gasp));
            return (!again).then_some(Change::LastGasp(gasp));
        }
        if !same || was.is_some_and(|was| was.last_gasp.is_some() || was.epoch != beat.epoch) {
            node.stale = false;
            return Some(Change::Heard { boot: beat.boot, epoch: beat.epoch });
        }
        let stale = beat.write_age.is_some_and(|age| age > node.limits.write_stale_after);
        let flipped = stale != node.stale;
        node.stale = stale;
        match (flipped, stale, beat.write_age) {
            (true, true, Some(age)) => Some(Change::WriteStale { age }),
            (true, _, _) => Some(Change::WriteFresh),
            (false, _, _) => None,
        }
    }

    fn tick(&mut self, now: Mono) -> Vec<(Slot, Change)> {
        let today = now.0 / STEP_MS;
        if today <= self.turned {
            return vec![];
        }
        self.turned = today;
        let passed: Vec<u32> = self
            .deadlines
            .iter()
            .filter(|(_, due)| **due <= today * STEP_MS)
            .map(|(slot, _)| *slot)
            .collect();
        let mut out = vec![];
        for slot in passed {
            self.deadlines.remove(&slot);
            let node = self.nodes.get_mut(&slot).unwrap();
            node.reported = true;
            let change = match node.seen {
                Some(seen) => Change::Silent { since: seen.at },
                None => Change::NeverHeard { since: node.enrolled },
            };
            out.push((Slot(slot), change));
        }
        out
    }
}

#[derive(Clone, Debug)]
enum Act {
    Enroll(u32, Limits),
    Forget(u32),
    Beat(u32, Heartbeat),
    Tick(u64),
}

fn heartbeats() -> impl Strategy<Value = Heartbeat> {
    let gasps =
        prop_oneof![8 => Just(None), 1 => Just(Some(LastGasp::Shutdown)), 1 => Just(Some(LastGasp::Panic))];
    // No more lives than the record remembers, so that the model may remember all.
    (0..=LIVES_REMEMBERED as u64, 0..2u64, proptest::option::of(0..3000u64), gasps).prop_map(
        |(boot, epoch, age, last_gasp)| Heartbeat {
            boot: BootId(boot),
            epoch: Epoch(epoch),
            write_age: age.map(Millis),
            last_gasp,
        },
    )
}

fn acts() -> impl Strategy<Value = Act> {
    let limits = (0..9000u64, 0..3000u64).prop_map(|(suspect, stale)| Limits {
        suspect_after: Millis(suspect),
        write_stale_after: Millis(stale),
        paths_min: 1,
    });
    // Steps of one tick, and leaps beyond a whole turn of the wheel (5120 ms).
    let spans = prop_oneof![8 => 0..30u64, 3 => 30..900u64, 1 => 900..12_000u64];
    prop_oneof![
        2 => (0..6u32, limits).prop_map(|(slot, limits)| Act::Enroll(slot, limits)),
        1 => (0..6u32).prop_map(Act::Forget),
        8 => (0..6u32, heartbeats()).prop_map(|(slot, beat)| Act::Beat(slot, beat)),
        8 => spans.prop_map(Act::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn the_wheel_tells_the_same_news_at_the_same_ticks_as_looking_at_every_node(
        start in 0..20_000u64,
        acts in proptest::collection::vec(acts(), 1..200),
    ) {
        let mut now = Mono(start);
        let mut watch = Watch::new(now);
        let mut model = Model { turned: start / STEP_MS, ..Model::default() };
        for act in acts {
            match act {
                Act::Enroll(slot, limits) => {
                    watch.enroll(Slot(slot), limits, now);
                    model.enroll(slot, limits, now);
                }
                Act::Forget(slot) => {
                    watch.forget(Slot(slot));
                    model.forget(slot);
                }
                Act::Beat(slot, beat) => {
                    prop_assert_eq!(watch.beat(Slot(slot), now, &beat), model.beat(slot, now, &beat));
                }
                Act::Tick(span) => {
                    now = now + Millis(span);
                    prop_assert_eq!(tick(&mut watch, now.0), model.tick(now));
                }
            }
            for slot in 0..6 {
                let seen = model.nodes.get(&slot).and_then(|node| node.seen);
                prop_assert_eq!(watch.last(Slot(slot)), seen);
            }
        }
    }
}

#[test]
fn a_gap_is_told_if_it_is_longer_than_two_intervals_and_no_news() {
    let mut watch = Watch::new(Mono(0));
    let limits = Limits { suspect_after: Millis(2000), write_stale_after: Millis(u64::MAX), paths_min: 1 };
    watch.enroll(Slot(0), limits, Mono(0));
    let beat = Heartbeat { boot: BootId(1), epoch: Epoch(1), write_age: None, last_gasp: None };
    assert_eq!(watch.gap(Slot(0), Mono(1900)), None, "not heard yet");
    watch.beat(Slot(0), Mono(1900), &beat);
    assert_eq!(watch.gap(Slot(0), Mono(2400)), None, "two intervals are no gap");
    assert_eq!(watch.gap(Slot(0), Mono(3100)), Some(Millis(1200)));
    assert_eq!(watch.beat(Slot(0), Mono(3100), &beat), None, "and no news");
    let mut passed = vec![];
    watch.tick(Mono(5200), &mut passed);
    assert_eq!(passed.len(), 1);
    assert_eq!(watch.gap(Slot(0), Mono(5200)), None, "this silence was news");
    assert_eq!(watch.gap(Slot(1), Mono(5200)), None);
}
