//! Targets of what members say to each other and keep: `member_frame`, `log_record`, `snapshot`, `commands`.
//!
//! Why it exists: a frame comes from another member, a record from a disk; neither may be believed before it was read,
//! and what was read must be the same in every copy.

use super::any_log::{self, Want};
use policies::{
    BootId, ClusterState, Command, Engine, Input, LogIndex, MemberId, Mono, Now, Proposal, Report, Stamp,
    Wall,
};
use raft_store::parse;
use serde_json::{Value, json};

/// Kinds of frames (`raft-store/src/frame.rs`).
const HELLO: u8 = 1;
const MESSAGE: u8 = 10;
/// Entries of one log: enough for two failovers. The state is compared after each, so twice as many cost four times.
const COMMANDS_MAX: usize = 80;

/// Frames off a connection, or one frame of a kind whose head is right. The first byte says which.
pub(super) fn frame(data: &[u8]) -> bool {
    let Some((&choice, bytes)) = data.split_first() else { return false };
    let max = if choice & 1 == 0 { parse::FRAME_MAX.0 } else { parse::FRAME_MAX.1 };
    if choice & 2 == 0 {
        return frames(bytes, max);
    }
    frames(&parse::framed(choice >> 2, bytes), max)
}

fn frames(mut stream: &[u8], max: usize) -> bool {
    let mut taken = false;
    while let Some(announced) = stream.first_chunk::<4>() {
        let (announced, before) = (u32::from_be_bytes(*announced) as usize, stream);
        let (frame, body) = match parse::read_frame(&mut stream, max) {
            Ok(read) => read,
            // A length that is refused is refused for itself, before anything is allocated or read for it.
            Err(error) => {
                let refused = error.kind() == std::io::ErrorKind::InvalidData;
                assert!(announced <= max || refused, "{announced} bytes were waited for: {error}");
                return taken;
            }
        };
        assert!(announced <= max, "a frame of {announced} bytes was taken");
        assert_eq!(before.get(..frame.len()), Some(&frame[..]), "a frame has one form");
        if let Some(again) = parse::content(&frame) {
            assert_eq!(parse::content(&again).as_ref(), Some(&again), "written again it says something else");
            taken = true;
        }
        if frame.get(4) == Some(&MESSAGE) {
            report(&body);
        }
    }
    taken
}

/// The message that members send each other. Whatever it says, the brain goes on.
fn report(body: &[u8]) {
    let Ok(mut report) = serde_json::from_slice::<Report>(body) else { return };
    let again = serde_json::to_vec(&report).ok().and_then(|json| serde_json::from_slice(&json).ok());
    assert_eq!(again.as_ref(), Some(&report), "written again it says something else");
    // Of now, or the engine would not look at it.
    report.heard.insert(MemberId(1), Stamp { boot: BootId(1), moment: 1000 });
    think(described(), Some(report));
}

fn described() -> ClusterState {
    any_log::check([]).expect("the setup holds together")
}

/// Lets a leader look at a state, with this report of another member, for a while.
fn think(state: ClusterState, report: Option<Report>) {
    let mut engine = Engine::new(MemberId(1), BootId(1), "room-1");
    let leader = Some(MemberId(1));
    let took_over = Proposal {
        at: Wall(1),
        by: "member/m1".to_owned(),
        command: Command::TookOver { member: MemberId(1), boot: BootId(1) },
    };
    let index = LogIndex(state.applied.0.saturating_add(1));
    let inputs = [
        Input::Installed(Box::new(state)),
        Input::Voters(vec![MemberId(1), MemberId(2), MemberId(3)]),
        Input::Leader { leader },
        Input::Applied { index, proposal: took_over },
    ];
    let now = |ms: u64| Now { mono: Mono(ms), wall: Wall(1_790_000_000_000 + ms) };
    for (at, input) in inputs.into_iter().chain(report.map(Input::Report)).enumerate() {
        engine.handle(now(1000 + at as u64), input);
    }
    for at in [2000, 2500, 9000, 700_000] {
        engine.handle(now(at), Input::Tick);
    }
    assert!(engine.view(now(700_001)).members.len() <= 3, "more members report than there are");
}

pub(super) fn frame_seeds() -> Vec<Vec<u8>> {
    let vote = json!({ "term": 2, "member": 1, "committed": true });
    let last = json!({ "term": 2, "member": 1, "index": 9 });
    let members =
        json!({ "voters": [[1, 2], [1, 3]], "addresses": { "1": { "peer": "a:1", "api": "a:2" } } });
    let hello = json!({ "protocol": 1, "cluster": "c", "member": 3, "store": 7, "purpose": "append" });
    let entries = json!([
        { "id": last, "content": "blank" },
        { "id": last, "content": { "members": members } },
        { "id": last, "content": { "proposal": proposal() } },
    ]);
    let append = json!({ "vote": vote, "previous": last, "entries": entries, "committed": null });
    let ballot = json!({ "vote": vote, "last": last });
    let head = json!({ "last": last, "members_at": null, "members": members, "id": "x" });
    let chunk = json!({ "vote": vote, "head": head, "offset": 0, "done": true }).to_string();
    let chunk =
        [&u32::try_from(chunk.len()).unwrap_or(u32::MAX).to_be_bytes()[..], chunk.as_bytes(), b"data"]
            .concat();
    let silent = json!({ "silent": { "lasting": "3s", "never": false, "kernel": "mute" } });
    let report = json!({ "member": 2, "domain": "r", "doubt": null, "sights": { "n1": silent } });
    let bodies = [
        (HELLO, hello.to_string().into_bytes()),
        (2, json!({ "store": 7 }).to_string().into_bytes()),
        (3, json!({ "why": "no" }).to_string().into_bytes()),
        (4, append.to_string().into_bytes()),
        (5, ballot.to_string().into_bytes()),
        (6, chunk),
        (7, json!({ "vote": vote }).to_string().into_bytes()),
        (8, json!({ "upto": last }).to_string().into_bytes()),
        (8, json!({ "vote": vote, "granted": true, "last": null }).to_string().into_bytes()),
        (9, json!({ "why": "later" }).to_string().into_bytes()),
        (MESSAGE, report.to_string().into_bytes()),
    ];
    let whole = |(kind, body): &(u8, Vec<u8>)| [&[1][..], &parse::framed(*kind, body)].concat();
    let bare = |(kind, body): &(u8, Vec<u8>)| [&[3 | kind << 2][..], body].concat();
    bodies.iter().map(whole).chain(bodies.iter().skip(3).map(bare)).collect()
}

fn proposal() -> Value {
    let arm = Command::Arm { reason: "ready".to_owned() };
    json!({ "at": 1_790_000_000_000_u64, "by": "admin", "command": arm })
}

/// A record as it is on disk, or (odd first byte) JSON with the right head: its checksum keeps damage out, so what lies
/// behind it must be reached in another way.
fn record(data: &[u8]) -> Vec<u8> {
    match data.split_first() {
        Some((choice, json)) if choice % 2 == 1 => parse::sealed(json),
        Some((_, record)) => record.to_vec(),
        None => vec![],
    }
}

/// An entry of the log: what is taken is the same when it is written and read again, and can be applied.
pub(super) fn log_record(data: &[u8]) -> bool {
    let record = record(data);
    let Ok((again, proposal)) = parse::log_record(&record) else { return false };
    let reread = parse::log_record(&again).map(|(again, _)| again);
    assert_eq!(reread.as_ref(), Ok(&again), "written again it says something else");
    damaged(&record, |bytes| parse::log_record(bytes).is_ok());
    let Some(proposal) = proposal else { return true };
    let (mut state, mut copy) = (described(), described());
    let before = state.clone();
    let index = LogIndex(before.applied.0 + 1);
    let result = state.apply(index, &proposal);
    assert!(result == copy.apply(index, &proposal) && state == copy, "two copies of the state disagree");
    if result.is_err() {
        assert_eq!(state, ClusterState { applied: index, ..before }, "a rejected entry changed something");
    }
    think(snapshot_of(&state), None);
    true
}

/// A record with one wrong bit is refused, wherever the bit is. A few places stand for all.
fn damaged(record: &[u8], taken: impl Fn(&[u8]) -> bool) {
    for at in [0, 2, 5, record.len() / 2, record.len() - 1] {
        let mut bytes = record.to_vec();
        bytes[at] ^= 0x10;
        assert!(!taken(&bytes), "a record with a wrong bit in byte {at} was taken");
    }
}

/// The state after a snapshot was made of it and read.
fn snapshot_of(state: &ClusterState) -> ClusterState {
    let json = serde_json::to_vec(state).expect("a state can be written");
    let (_, read) = parse::snapshot(&parse::sealed(&json)).expect("a state can be read");
    assert_eq!(read, *state, "the snapshot says something else");
    read
}

pub(super) fn log_record_seeds() -> Vec<Vec<u8>> {
    let id = json!({ "term": 7, "member": 3, "index": 42 });
    let members = json!({ "voters": [[1, 2, 3]], "addresses": { "1": { "peer": "a:1", "api": "a:2" } } });
    let [describe, arm, took_over] = any_log::setup();
    let wants = [[16, 0, 1, 3, 1, 41], [14, 0, 3, 0, 0, 0], [12, 0, 0, 0, 0, 0], [21, 0, 0, 0, 1, 0]];
    let state = described();
    let wanted = wants.map(|want| any_log::command(&state, &Want::read(want)));
    let commands = [describe, arm, took_over].into_iter().chain(wanted);
    let proposals = commands.map(|command| json!({ "at": 1, "by": "admin", "command": command }));
    let contents = [json!("blank"), json!({ "members": members })].into_iter();
    let contents = contents.chain(proposals.map(|proposal| json!({ "proposal": proposal })));
    let entry = |content: Value| json!({ "id": id, "content": content }).to_string().into_bytes();
    let entries: Vec<_> = contents.map(entry).collect();
    let whole = [&[0][..], &parse::sealed(&entries[0])].concat();
    std::iter::once(whole).chain(entries.iter().map(|json| [&[1][..], json].concat())).collect()
}

/// The data of a snapshot: what is taken is the same when it is written and read again; and whatever state it is, any
/// entry can be applied to it, and a leader can look at it.
pub(super) fn snapshot(data: &[u8]) -> bool {
    let record = record(data);
    let Ok((again, state)) = parse::snapshot(&record) else { return false };
    let reread = parse::snapshot(&again).map(|(again, _)| again);
    assert_eq!(reread.as_ref(), Ok(&again), "written again it says something else");
    damaged(&record, |bytes| parse::snapshot(bytes).is_ok());
    let wants = (0..55).map(|kind| Want::read([kind, kind / 2, 0, 3, 1, 41]));
    let state = any_log::check_total(state, wants).expect("any state takes any entry");
    think(state, None);
    true
}

pub(super) fn snapshot_seeds() -> Vec<Vec<u8>> {
    let moved = [[16, 0, 1, 3, 1, 41], [21, 0, 0, 0, 1, 0], [33, 0, 0, 0, 0, 0], [45, 0, 99, 0, 0, 0]];
    let long: Vec<_> = (0..120_u8).map(|at| [at.wrapping_mul(37), at, at / 3, at % 5, 1, 41]).collect();
    let states = [vec![], moved.to_vec(), long];
    let json = |wants: Vec<any_log::Choice>| {
        let state = any_log::check(wants.into_iter().map(Want::read)).expect("a log that holds together");
        [&[1][..], &serde_json::to_vec(&state).expect("a state can be written")].concat()
    };
    let empty = serde_json::to_vec(&ClusterState::default()).expect("a state can be written");
    let whole = [&[0][..], &parse::sealed(&empty)].concat();
    std::iter::once(whole).chain(states.map(json)).collect()
}

/// Entries of the log in bytes: six for each (`policies/tests/any_log`).
pub(super) fn commands(data: &[u8]) -> bool {
    let (choices, _) = data.as_chunks::<6>();
    let state = any_log::check(choices.iter().take(COMMANDS_MAX).map(|choice| Want::read(*choice)));
    let state = state.expect("the state holds together");
    snapshot_of(&state);
    !state.plans.is_empty()
}

pub(super) fn commands_seeds() -> Vec<Vec<u8>> {
    let begin = [16, 0, 0, 3, 1, 41];
    let act = |at: u8| [[21, 0, at, 0, 1, 0], [33, 0, at, 0, 0, 0]].concat();
    let fence = [act(0), act(1), act(2)].concat();
    let place = [45, 0, 255, 0, 0, 0];
    let begun = [&begin[..], &[9, 0, 0, 0, 0, 0], &begin].concat();
    let moved = [&begin[..], &fence, &place, &fence, &[49, 0, 0, 0, 0, 0]].concat();
    let long: Vec<u8> =
        (0..1200_u16).map(|at| u8::try_from(at.wrapping_mul(211) >> 2 & 0xff).unwrap_or(0)).collect();
    vec![
        begun,
        [&moved[..], &[10, 0, 0, 0, 0, 0], &[52, 0, 0, 0, 0, 0]].concat(),
        moved,
        [&begin[..], &long].concat(),
    ]
}
