//! When a node may live, and what a feeder says of it.

use super::*;
use crate::config::{EpochSource, WriteProbe, WriteProbeMode};

const RULES: Rules = Rules { quorum: 2, heard_within: Millis(1000), write_within: Some(Millis(5000)) };

fn answers(sent: &[(u64, u64)]) -> BTreeMap<MemberId, Mono> {
    sent.iter().map(|(member, sent)| (MemberId(*member), Mono(*sent))).collect()
}

#[test]
fn it_lives_while_a_quorum_answers_and_its_disk_takes_writes() {
    let few = |answered| Err(WhyNot::FewAnswers { answered, quorum: 2, within: Millis(1000) });
    let both = answers(&[(1, 5000), (2, 5500)]);
    for (sent, write_age, now, expected) in [
        (&answers(&[]), None, 5000, few(0)),
        (&answers(&[(1, 5000)]), None, 5000, few(1)),
        (&both, None, 5500, Ok(())),
        (&both, Some(5000), 6000, Ok(())),
        (&both, None, 6001, few(1)),
        (&answers(&[(1, 5000), (2, 5500), (3, 5900)]), None, 6500, Ok(())),
        (&both, None, 9000, few(0)),
        (&both, Some(5001), 6000, Err(WhyNot::OldWrite { age: Millis(5001), within: Millis(5000) })),
    ] {
        assert_eq!(may_feed(&RULES, sent, write_age.map(Millis), Mono(now)), expected, "{sent:?} at {now}");
    }
    let without_writes = Rules { write_within: None, ..RULES };
    assert_eq!(may_feed(&without_writes, &both, Some(Millis(u64::MAX)), Mono(5500)), Ok(()));
}

#[test]
fn the_bound_is_when_a_process_that_stops_at_the_worst_moment_is_reset() {
    // It looks at the clock just before the answers are too old, stops, and feeds just before the watchdog acts.
    assert_eq!(bound(Millis::secs(10), Millis::secs(5)), Millis::secs(20));
    assert_eq!(bound(Millis(u64::MAX), Millis(u64::MAX)), Millis(u64::MAX));
}

fn config(write_probe: Option<WriteProbe>) -> crate::config::Config {
    let text = "node = \"n1\"\nboot_id = \"b\"\npaths = [{ name = \"a\", members = [\"127.0.0.1:1\"] }]\n";
    let text = format!("key = \"{}\"\n{text}", "ab".repeat(32));
    let none = |_: &std::path::Path, _| unreachable!("no other file is named");
    let config = crate::config::Config::parse("agent.toml".as_ref(), &text, none).unwrap();
    crate::config::Config { write_probe, epoch: EpochSource::Fixed(policies::Epoch(1)), ..config }
}

fn guard(rules: Rules, write_probe: Option<WriteProbe>) -> Guard {
    let watched = Arc::new(Watched::start(&config(write_probe)).unwrap());
    Guard { rules, answered: Mutex::default(), watched }
}

#[test]
fn an_old_answer_that_comes_late_does_not_count_and_a_new_one_is_not_forgotten() {
    let guard = guard(RULES, None);
    guard.heard(MemberId(1), Mono(700));
    guard.heard(MemberId(1), Mono(300));
    assert_eq!(*guard.answered.lock().unwrap(), answers(&[(1, 700)]));
}

#[test]
fn nothing_is_armed_before_the_node_may_live() {
    let rules = Rules { quorum: 1, heard_within: Millis::secs(600), write_within: None };
    let guard = guard(rules, None);
    let nothing = Device::Kernel("/nowhere".into());
    let mut armed = None;
    let course = step(&nothing, Millis::secs(10), &guard, &mut armed);
    let expected = "watchdog /nowhere: not armed yet: 0 members have answered in the last 10m, 1 have to";
    assert_eq!(told(&nothing, &rules, &course), expected);
    guard.heard(MemberId(1), crate::beacon::now());
    let course = step(&nothing, Millis::secs(10), &guard, &mut armed);
    let said = told(&nothing, &rules, &course);
    assert!(said.contains("No such file or directory") && said.ends_with("; trying again"), "{said}");
}

#[test]
fn a_disk_that_takes_no_writes_starves_the_watchdog() {
    let written = tempfile::NamedTempFile::new().unwrap();
    let probe = WriteProbe { file: written.path().to_owned(), mode: WriteProbeMode::AgeOfFile };
    written.as_file().set_modified(std::time::SystemTime::now() - Duration::from_secs(60)).unwrap();
    let rules = Rules { quorum: 1, heard_within: Millis::secs(600), write_within: Some(Millis::secs(30)) };
    let guard = guard(rules, Some(probe));
    guard.heard(MemberId(1), crate::beacon::now());
    let why = guard.may_feed().unwrap_err();
    assert!(matches!(why, WhyNot::OldWrite { .. }), "{why}");
}

#[test]
fn each_change_is_said_once() {
    let few = |answered| WhyNot::FewAnswers { answered, quorum: 2, within: Millis(1) };
    let old = WhyNot::OldWrite { age: Millis(2), within: Millis(1) };
    assert_eq!(Course::Starves(few(0)).kind(), Course::Starves(few(1)).kind());
    assert_ne!(Course::Starves(few(0)).kind(), Course::Starves(old).kind());
    assert_ne!(Course::Starves(few(0)).kind(), Course::Waits(few(0)).kind());
    let fed = Course::Fed { timeout: Millis::secs(5) };
    assert_ne!(fed.kind(), Course::Fails(io::ErrorKind::Other.into()).kind());
    let said = told(&Device::Bmc("/dev/ipmi0".into()), &RULES, &fed);
    let expected = "the BMC's watchdog, through /dev/ipmi0: fed, it waits 5s; it acts within 11s after the last heartbeat \
                    that 2 members answered";
    assert_eq!(said, expected);
}
