//! Small stories, each with what the replay says of it, and properties over stories from a seed.

use super::*;
use crate::flight::{Duty, Fact, Sign, Standing};
use crate::observation::{LastGasp, Power};
use proptest::prelude::*;

const BEGIN: u64 = 1_795_411_200_000;
const MEMBERS: u64 = 3;

/// What three members would have written down under the policy `cautious`, which suspects after 2 s.
struct Story {
    records: Vec<(MemberId, Record)>,
    end: u64,
    down: Vec<(u64, u64, u64)>,
}

fn node(number: u64) -> NodeId {
    format!("n{number}").parse().unwrap()
}

impl Story {
    /// Nodes `n1` to `n{nodes}`, four in a rack, all alive, each protected by `cautious`.
    fn new(nodes: u64, end: u64) -> Self {
        let mut story = Story { records: vec![], end, down: vec![] };
        for member in 1..=MEMBERS {
            story.begin(member, 0, 1);
            for number in 1..=nodes {
                let domains = [("rack".to_owned(), format!("r{}", (number - 1) / 4 + 1))].into();
                let duty = Duty::Protected("cautious".parse().unwrap());
                story.sign(
                    member,
                    number,
                    1,
                    Sign::Stands(Standing { duty, has_probe: true, has_agent: true, domains }),
                );
                story.sign(member, number, 2, Sign::Heard { epoch: Epoch(1) });
            }
        }
        story
    }

    fn put(&mut self, member: u64, at: u64, fact: Fact) {
        self.records.push((MemberId(member), Record { at: Wall(BEGIN + at), fact }));
    }

    fn begin(&mut self, member: u64, at: u64, boot: u64) {
        self.put(member, at, Fact::Began { boot: BootId(boot), lost: 0, domain: format!("room-{member}") });
    }

    fn sign(&mut self, member: u64, number: u64, at: u64, sign: Sign) {
        self.put(member, at, Fact::Node(node(number), sign));
    }

    /// One member does not hear the node in this time. `answers`: its kernel, if it is asked.
    fn deaf(mut self, member: u64, number: u64, from: u64, to: Option<u64>, answers: bool) -> Self {
        let long = to.is_none_or(|to| to - from > 2000);
        if long {
            self.sign(member, number, from + 2000, Sign::Silent { lasting: Millis(2000) });
            self.sign(member, number, from + 2200, Sign::Asked(Some(answers)));
        }
        match to {
            Some(to) if long => self.sign(member, number, to, Sign::Heard { epoch: Epoch(1) }),
            Some(to) => self.sign(member, number, to, Sign::Gap { lasting: Millis(to - from) }),
            None => {}
        }
        self
    }

    /// No member hears the node in this time.
    fn silent(self, number: u64, from: u64, to: Option<u64>) -> Self {
        (1..=MEMBERS).fold(self, |story, member| story.deaf(member, number, from, to, false))
    }

    fn told(mut self, number: u64, at: u64, sign: &Sign) -> Self {
        for member in 1..=MEMBERS {
            self.sign(member, number, at, sign.clone());
        }
        self
    }

    /// The member does not run in this time.
    fn down(mut self, member: u64, from: u64, to: u64) -> Self {
        self.down.push((member, from, to));
        self
    }

    fn records(mut self) -> Vec<(MemberId, Record)> {
        for member in 1..=MEMBERS {
            for at in (0..=self.end).step_by(10_000) {
                self.put(member, at, Fact::Mark);
            }
        }
        let down = self.down.clone();
        let runs = |member: u64, at: u64| {
            !down.iter().any(|(down, from, to)| *down == member && at >= *from && at < *to)
        };
        self.records.retain(|(member, record)| runs(member.0, record.at.0 - BEGIN));
        for (member, _, to) in down {
            self.begin(member, to, to);
        }
        self.records.sort_by_key(|(_, record)| record.at);
        self.records
    }

    fn play(self, candidate: &Policy) -> Replay {
        replay(&trial(candidate), self.records()).unwrap()
    }
}

fn trial(candidate: &Policy) -> Trial {
    Trial {
        in_force: Policy::presets().into_iter().collect(),
        name: "cautious".parse().unwrap(),
        candidate: candidate.clone(),
        voters: 3,
        since: Wall(BEGIN),
        failover_takes: Millis(60_000),
    }
}

fn cautious(changes: &[(&str, &str)]) -> Policy {
    Policy::presets().remove(0).1.with(changes.iter().copied()).unwrap()
}

/// What an operator would be told, in short; moments in ms since the story began.
fn said(replay: &Replay) -> Vec<String> {
    let fence = |fence: &Fence| {
        let mut text = format!("{}", fence.at.0 - BEGIN);
        for (holds, word) in [(fence.assumed, " assumed"), (fence.really, " really")] {
            text.push_str(if holds { word } else { "" });
        }
        fence.back_after.map_or(text.clone(), |after| format!("{text} back after {after}"))
    };
    let one = |found: &Option<Fence>| found.as_ref().map_or("-".to_owned(), fence);
    let mut lines: Vec<String> = vec![];
    for (who, doings) in [("in force", &replay.in_force), ("candidate", &replay.candidate)] {
        for fence in &doings.fences {
            lines.push(format!("{who}: fences {}: {}", fence.node, fence.cause));
        }
        for braked in &doings.braked {
            let later = if braked.fenced_later { ", later fenced" } else { "" };
            lines.push(format!(
                "{who}: withholds {} at {}: {}{later}",
                braked.node,
                braked.at.0 - BEGIN,
                braked.why
            ));
        }
    }
    for row in &replay.differences {
        let downtime = row.downtime_ms.map_or("?".to_owned(), |ms| ms.to_string());
        let (old, new) = (one(&row.in_force), one(&row.candidate));
        lines.push(format!("{:?} {}: {old} => {new}, downtime {downtime}", row.difference, row.node));
    }
    lines
}

#[test]
fn a_quick_policy_would_have_fenced_a_node_that_stalled() {
    let story = Story::new(3, 60_000).silent(1, 20_000, Some(21_200));
    assert_eq!(
        said(&story.play(&cautious(&[("detection.suspect_after", "500ms")]))),
        [
            "candidate: fences n1: silent, and its kernel does not answer",
            "Added n1: - => 20700 assumed back after 500ms, downtime 59500",
        ]
    );
}

#[test]
fn a_more_careful_policy_is_later_by_what_it_waits() {
    let story = || Story::new(3, 60_000).silent(2, 20_000, None);
    assert_eq!(
        said(&story().play(&cautious(&[("detection.suspect_after", "3500ms")]))),
        [
            "in force: fences n2: silent, and its kernel does not answer",
            "candidate: fences n2: silent, and its kernel does not answer",
            "Later n2: 22200 => 23700, downtime 1500",
        ]
    );
    // A node that was really cut off is judged from what was seen until then.
    let standing = Standing { duty: Duty::Cut, has_probe: true, has_agent: true, domains: BTreeMap::new() };
    let replay = story()
        .told(2, 22_300, &Sign::Stands(standing))
        .play(&cautious(&[("detection.suspect_after", "3500ms")]));
    assert_eq!(said(&replay)[2], "Later n2: 22200 really => 23700 really, downtime 1500");
    assert_eq!(replay.really_fenced, (1, 1));
}

#[test]
fn a_more_careful_policy_leaves_alone_what_comes_back() {
    let story = Story::new(3, 60_000).silent(1, 20_000, Some(23_000));
    assert_eq!(
        said(&story.play(&cautious(&[("detection.suspect_after", "5s")]))),
        [
            "in force: fences n1: silent, and its kernel does not answer",
            "Avoided n1: 22200 back after 800ms => -, downtime -59200",
        ]
    );
}

#[test]
fn a_switch_that_drops_a_rack_is_held() {
    // Four of twelve: too few for the members to doubt themselves, too many for one rack.
    let story = (1..=4)
        .fold(Story::new(12, 120_000), |story, number| story.silent(number, 20_000 + number, Some(40_000)));
    let replay = story.play(&cautious(&[("detection.suspect_after", "1s")]));

    let lines = said(&replay);
    assert_eq!(replay.candidate.fences, []);
    assert!(!replay.differs() && lines.len() == 8, "{lines:#?}");
    assert!(lines.iter().all(|line| line.contains("withholds")), "{lines:#?}");
}

#[test]
fn members_that_hear_nobody_doubt_themselves() {
    let story = (1..=8)
        .fold(Story::new(8, 120_000), |story, number| story.silent(number, 20_000 + number, Some(40_000)));
    let replay = story.play(&cautious(&[("detection.suspect_after", "500ms")]));
    assert_eq!(said(&replay), Vec::<String>::new());
}

#[test]
fn a_member_that_was_down_proves_nothing() {
    // Two of three members do not record; the third does not hear n1.
    let story = Story::new(3, 120_000)
        .deaf(3, 1, 60_000, Some(90_000), false)
        .down(1, 30_000, 100_000)
        .down(2, 30_000, 100_000);
    let replay = story.play(&cautious(&[("detection.suspect_after", "500ms")]));
    assert_eq!(said(&replay), Vec::<String>::new());
    let blind: Vec<u64> = replay.members.iter().map(|member| member.blind.0).collect();
    assert_eq!(blind, [80_000, 80_000, 0]);
}

#[test]
fn a_gray_node_has_the_slower_deadline_and_a_farewell_needs_none() {
    let story =
        || (1..=3).fold(Story::new(3, 120_000), |story, member| story.deaf(member, 1, 20_000, None, true));
    let replay = story().play(&cautious(&[("detection.gray_after", "40s")]));
    assert_eq!(said(&replay)[2], "Later n1: 52200 => 62200, downtime 10000");
    let story = Story::new(3, 60_000).told(1, 20_000, &Sign::Gasped(LastGasp::Panic));
    let replay = story.play(&cautious(&[]));
    assert_eq!(said(&replay)[0], "in force: fences n1: it said farewell");
    assert_eq!(replay.in_force.fences[0].at.0 - BEGIN, 20_000);
}

#[test]
fn power_that_reads_off_is_positive_proof() {
    let story = Story::new(3, 60_000).silent(1, 20_000, None).told(1, 22_050, &Sign::Power(Some(Power::Off)));
    let replay = story.play(&cautious(&[]));
    assert_eq!(replay.in_force.fences[0].at.0 - BEGIN, 22_050);
    assert_eq!(replay.in_force.fences[0].cause, Cause::PowerOff);
}

#[test]
fn one_fence_at_a_time_and_few_in_ten_minutes() {
    let story = (1..=2)
        .fold(Story::new(12, 120_000), |story, number| story.silent(number * 5, 20_000 + number, None));
    let replay = story.play(&cautious(&[("brakes.fences_in_flight_max", "2")]));
    assert_eq!(
        said(&replay)[2],
        "in force: withholds n10 at 22202: 1 fences are under way, at most 1 may be, later fenced"
    );
    assert_eq!(said(&replay).last().map(String::as_str), Some("Sooner n10: 27201 => 22202, downtime -4999"));
}

#[test]
fn a_trial_that_cannot_be_is_refused() {
    let mut other = trial(&cautious(&[]));
    other.name = "mine".parse().unwrap();
    let refused = replay(&other, []).unwrap_err().to_string();
    assert_eq!(
        refused,
        "there is no policy mine in force that the candidate could replace; name one of: cautious, quick"
    );
    let refused = replay(&trial(&cautious(&[])), []).unwrap_err().to_string();
    assert_eq!(refused, "a verdict needs 2 members, and there are records of 0");
}

/// Any signs of any nodes at any moments, as no member would write them down.
fn wild() -> impl Strategy<Value = Vec<(u64, u64, u64, u8, u64)>> {
    proptest::collection::vec((1..=MEMBERS, 1..6_u64, 0..200_000_u64, 0..14_u8, 0..40_000_u64), 0..120)
}

fn wild_story(signs: Vec<(u64, u64, u64, u8, u64)>) -> Story {
    let mut story = Story::new(5, 200_000);
    for (member, number, at, kind, length) in signs {
        let lasting = Millis(length);
        let standing = |duty| Standing { duty, has_probe: true, has_agent: true, domains: BTreeMap::new() };
        let sign = match kind {
            0 | 1 => Sign::Heard { epoch: Epoch(1) },
            2 => Sign::Gap { lasting: Millis(length % 2000) },
            3 | 4 => Sign::Silent { lasting: Millis(2000) },
            5 => Sign::NeverHeard { lasting },
            6 => Sign::Gasped(LastGasp::Shutdown),
            7 => Sign::WriteStale { age: lasting },
            8 => Sign::WriteFresh,
            9 => Sign::Asked((length % 3 != 0).then_some(length % 2 == 0)),
            10 => Sign::Power(Some(Power::Off)),
            11 => Sign::Stands(standing(if length % 2 == 0 { Duty::Cut } else { Duty::Aside })),
            12 => Sign::Stands(standing(Duty::Protected("cautious".parse().unwrap()))),
            _ => {
                story.begin(member, at, length);
                continue;
            }
        };
        story.sign(member, number, at, sign);
    }
    story
}

proptest! {
    #[test]
    fn the_same_policy_makes_no_difference(signs in wild()) {
        let replay = wild_story(signs).play(&cautious(&[]));
        prop_assert!(!replay.differs() && replay.downtime_ms == 0);
        prop_assert_eq!(replay.in_force, replay.candidate);
    }

    #[test]
    fn any_record_is_played_under_any_candidate(signs in wild(), suspect in 500..10_000_u64, flight in 1..5_u32) {
        let mut candidate = cautious(&[]);
        candidate.detection.suspect_after = Millis(suspect);
        candidate.brakes.fences_in_flight_max = flight;
        let replay = wild_story(signs).play(&candidate);
        let rows = replay.differences.iter().filter(|row| row.in_force.is_none() && row.candidate.is_none());
        prop_assert_eq!(rows.count(), 0);
    }
}
