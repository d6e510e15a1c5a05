//! Target `store_file`: the file of a member's store with some of its bytes changed.
//!
//! Why it exists: a member that opens a damaged store and no longer knows its vote may vote twice, and two leaders may
//! follow. So a file opens to what the store said at some moment of its life, or it is refused; nothing else.
//!
//! The input is not the file, which would be a megabyte for each idea, but what is done to one: which of the files of
//! a store's life (as `kill -9` would leave it; the last was closed in order), and edits.

use super::script::Script;
use raft_store::parse;
use std::sync::LazyLock;

/// Most edits of one file.
const EDITS_MAX: usize = 24;
/// Pages of redb; edits are placed by page, so that few bytes reach all of the file.
const PAGE: usize = 4096;

struct Life {
    /// What the store said after each write.
    said: Vec<String>,
    files: Vec<Vec<u8>>,
    /// Pages that hold anything, in any of the files; the others are not worth an edit.
    pages: Vec<usize>,
}

static LIFE: LazyLock<Life> = LazyLock::new(|| {
    let stores = parse::stores().expect("a store in memory");
    let (said, files): (Vec<_>, Vec<_>) = stores.into_iter().unzip();
    let is_used = |page: &usize| {
        let holds = |file: &Vec<u8>| {
            let page = file.chunks(PAGE).nth(*page).unwrap_or_default();
            page.iter().any(|byte| *byte != 0)
        };
        files.iter().any(holds)
    };
    let length = files.iter().map(Vec::len).max().unwrap_or(0);
    let pages = (0..length.div_ceil(PAGE)).filter(is_used).collect();
    Life { said, files, pages }
});

pub(super) fn run(data: &[u8]) -> bool {
    let mut script = Script::new(data);
    let life = &*LIFE;
    let at = usize::from(script.byte()) % life.files.len();
    let mut file = life.files[at].clone();
    for _ in 0..EDITS_MAX {
        if script.is_over() {
            break;
        }
        edit(&mut file, &mut script, life);
    }
    let Ok(said) = parse::store(&file) else {
        assert!(file != life.files[at], "a store that is whole was refused");
        return false;
    };
    let known = life.said[..=at].contains(&said);
    assert!(known, "the store opened and says what it never said: {said}");
    true
}

fn edit(file: &mut Vec<u8>, script: &mut Script<'_>, life: &Life) {
    let kind = script.byte();
    let page = script.pick(&life.pages).copied().unwrap_or(0) * PAGE;
    let at = page + usize::from(script.u16()) % PAGE;
    match kind % 5 {
        0 | 1 => {
            let value = script.byte();
            if let Some(byte) = file.get_mut(at) {
                *byte ^= value;
            }
        }
        // A page of another moment: a write that was lost, or came too early.
        2 => {
            let other = script.pick(&life.files).and_then(|other| other.get(page..page + PAGE));
            if let (Some(to), Some(from)) = (file.get_mut(page..page + PAGE), other) {
                to.copy_from_slice(from);
            }
        }
        3 => {
            if let Some(to) = file.get_mut(page..page + PAGE) {
                to.fill(script.byte());
            }
        }
        _ => file.truncate(at),
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    (0..).zip(&LIFE.files).map(|(at, _)| vec![at]).collect()
}
