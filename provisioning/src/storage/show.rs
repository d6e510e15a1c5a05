//! Reads what `tgtadm --lld iscsi --mode target --op show` prints.
//!
//! What this is: a parser of the exact form of tgt 1.0 (`tgt_target_show_all` in usr/target.c).
//! Why it exists: this text is the only proof that somebody's right and sessions are gone.
//! What it never does: it skips no line that it does not know. Parts of the text come from initiators (their names and
//! aliases); a text that is not exactly as tgt prints it says nothing, and is never read as "nobody".

use std::collections::BTreeSet;

/// Longest text that is read, in bytes: about a thousand targets.
pub const TEXT_MAX: usize = 1024 * 1024;

/// A target of tgt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// tgt's number for it.
    pub tid: u32,
    /// Its iSCSI name.
    pub name: String,
    /// Who is logged in.
    pub sessions: Vec<Session>,
    /// What it offers.
    pub luns: Vec<Lun>,
    /// Accounts of which one has to be shown at login; none: nobody is asked.
    pub accounts: Vec<String>,
    /// Initiator names, addresses or `ALL`; none: nobody may log in.
    pub rules: Vec<String>,
}

/// An I_T nexus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// tgt's number for it.
    pub sid: u64,
    /// The name that the initiator gave.
    pub initiator: String,
    /// Numbers of its connections.
    pub connections: Vec<u32>,
}

/// A logical unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lun {
    /// Its number; tgt's own controller is 0.
    pub number: u64,
    /// Device or file behind it; tgt says `None` for its controller.
    pub path: String,
    /// Its serial number.
    pub serial: String,
}

/// The text is not what tgt prints.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShowError {
    /// It is longer than [`TEXT_MAX`].
    #[error("it is longer than {TEXT_MAX} bytes")]
    TooLong,
    /// A line is not one that may be there.
    #[error("line {line} of what tgtadm shows is not understood")]
    Line {
        /// Counts from 1.
        line: usize,
    },
    /// It ends too early, or names something twice.
    #[error("what tgtadm shows {0}")]
    Whole(&'static str),
}

/// The parts of a target, in tgt's order. Each is there exactly once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Head,
    System,
    Sessions,
    Luns,
    Accounts,
    Rules,
}

impl Part {
    fn next(self) -> Option<(&'static str, Part)> {
        match self {
            Part::Head => Some(("System information:", Part::System)),
            Part::System => Some(("I_T nexus information:", Part::Sessions)),
            Part::Sessions => Some(("LUN information:", Part::Luns)),
            Part::Luns => Some(("Account information:", Part::Accounts)),
            Part::Accounts => Some(("ACL information:", Part::Rules)),
            Part::Rules => None,
        }
    }
}

/// All targets.
///
/// # Errors
/// [`ShowError`] if the text is not exactly what tgt prints.
pub fn targets(text: &str) -> Result<Vec<Target>, ShowError> {
    if text.len() > TEXT_MAX {
        return Err(ShowError::TooLong);
    }
    let (mut targets, mut part) = (Vec::<Target>::new(), Part::Rules);
    for (index, line) in text.lines().enumerate() {
        let understood = match line.strip_prefix("Target ") {
            Some(rest) if part == Part::Rules => begin(rest).map(|target| {
                targets.push(target);
                part = Part::Head;
            }),
            Some(_) => None,
            None => targets.last_mut().and_then(|target| add(target, &mut part, line)),
        };
        understood.ok_or(ShowError::Line { line: index + 1 })?;
    }
    if part != Part::Rules {
        return Err(ShowError::Whole("ends too early"));
    }
    let (mut tids, mut names) = (BTreeSet::new(), BTreeSet::new());
    if !targets.iter().all(|target| tids.insert(target.tid) && names.insert(&target.name)) {
        return Err(ShowError::Whole("names a target twice"));
    }
    let is_whole = |session: &Session| !session.initiator.is_empty();
    if !targets.iter().flat_map(|target| &target.sessions).all(is_whole) {
        return Err(ShowError::Whole("has a session of nobody"));
    }
    Ok(targets)
}

fn begin(rest: &str) -> Option<Target> {
    let (tid, name) = rest.split_once(": ")?;
    Some(Target { tid: tid.parse().ok()?, name: word(name)?, ..Target::default() })
}

/// Takes one line; none: it must not be there.
fn add(target: &mut Target, part: &mut Part, line: &str) -> Option<()> {
    let text = line.trim_start_matches(' ');
    match line.len() - text.len() {
        4 => {
            let (head, next) = part.next()?;
            *part = (text == head).then_some(next)?;
            Some(())
        }
        depth => match part {
            Part::Head => None,
            Part::System => (depth == 8).then_some(()),
            Part::Sessions => add_session(&mut target.sessions, depth, text),
            Part::Luns => add_lun(&mut target.luns, depth, text),
            Part::Accounts => {
                let name = text.strip_suffix(" (outgoing)").unwrap_or(text);
                (depth == 8).then(|| word(name).map(|name| target.accounts.push(name)))?
            }
            Part::Rules => (depth == 8).then(|| word(text).map(|rule| target.rules.push(rule)))?,
        },
    }
}

fn add_session(sessions: &mut Vec<Session>, depth: usize, text: &str) -> Option<()> {
    match (depth, text.split_once(": ")?) {
        (8, ("I_T nexus", sid)) => {
            sessions.push(Session { sid: sid.parse().ok()?, ..Session::default() });
            Some(())
        }
        (12, ("Initiator", who)) => {
            let session = sessions.last_mut().filter(|session| session.initiator.is_empty())?;
            let (name, _alias) = who.split_once(" alias: ")?;
            session.initiator = word(name)?;
            Some(())
        }
        (12, ("Connection", cid)) => {
            sessions.last_mut()?.connections.push(cid.parse().ok()?);
            Some(())
        }
        (16, ("IP Address" | "RDMA IP Address", _)) => sessions.last().map(|_| ()),
        _ => None,
    }
}

fn add_lun(luns: &mut Vec<Lun>, depth: usize, text: &str) -> Option<()> {
    match (depth, text.split_once(": ").or_else(|| text.split_once(':'))?) {
        (8, ("LUN", number)) => {
            luns.push(Lun { number: number.parse().ok()?, ..Lun::default() });
            Some(())
        }
        (12, ("Backing store path", path)) => {
            luns.last_mut()?.path = path.to_owned();
            Some(())
        }
        (12, ("SCSI SN", serial)) => {
            luns.last_mut()?.serial = serial.to_owned();
            Some(())
        }
        (12, _) => luns.last().map(|_| ()),
        _ => None,
    }
}

/// A name as tgt's interfaces can carry it.
fn word(text: &str) -> Option<String> {
    let is_word = !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control());
    is_word.then(|| text.to_owned())
}

/// The names that `tgtadm --mode account --op show` prints.
///
/// # Errors
/// [`ShowError`] if the text is not exactly what tgt prints.
pub fn accounts(text: &str) -> Result<Vec<String>, ShowError> {
    if text.len() > TEXT_MAX {
        return Err(ShowError::TooLong);
    }
    let mut lines = (1..).zip(text.lines());
    match lines.next() {
        // Without any account tgt prints nothing at all.
        None => Ok(vec![]),
        Some((_, "Account list:")) => lines
            .map(|(line, text)| text.strip_prefix("    ").and_then(word).ok_or(ShowError::Line { line }))
            .collect(),
        Some((line, _)) => Err(ShowError::Line { line }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from tgt 1.0.85.
    const BUSY: &str = include_str!("../../testdata/tgt/busy.txt");
    const FREE: &str = include_str!("../../testdata/tgt/free.txt");

    #[test]
    fn a_target_in_use_is_read() {
        let target = targets(BUSY).unwrap().remove(0);
        assert_eq!((target.tid, target.name.as_str()), (1, "iqn.2026-01.lab:v1"));
        let session = Session { sid: 2, initiator: "iqn.n1".to_owned(), connections: vec![0] };
        assert_eq!(target.sessions, [session]);
        let [controller, disk] = target.luns.as_slice() else { panic!("{:?}", target.luns) };
        assert_eq!((controller.number, controller.path.as_str()), (0, "None"));
        assert_eq!((disk.number, disk.path.as_str()), (1, "/srv/v1.img"));
        assert_eq!(disk.serial, "beaf11");
        assert_eq!((target.accounts, target.rules), (vec!["u1".to_owned()], vec!["iqn.n1".to_owned()]));
        let free = targets(FREE).unwrap().remove(0);
        assert!(free.sessions.is_empty() && free.rules.is_empty());
        assert_eq!(targets(""), Ok(vec![]), "a tgtd that was just started");
    }

    #[test]
    fn what_is_not_whole_is_not_nobody() {
        let end = BUSY.len();
        for (at, _) in BUSY.match_indices('\n').filter(|(at, _)| at + 1 < end) {
            let cut = targets(&BUSY[..at]);
            let is_whole_but_for_rules = BUSY[..at].contains("ACL information:");
            assert_eq!(cut.is_ok(), is_whole_but_for_rules, "{}", &BUSY[..at]);
        }
        assert_eq!(targets(&format!("{BUSY}{BUSY}")), Err(ShowError::Whole("names a target twice")));
        assert_eq!(targets(&"x".repeat(TEXT_MAX + 1)), Err(ShowError::TooLong));
    }

    #[test]
    fn a_line_that_is_lost_hides_nobody() {
        let whole = targets(BUSY).unwrap().remove(0);
        for (lost, line) in BUSY.lines().enumerate() {
            let rest = BUSY.lines().enumerate().filter(|(at, _)| *at != lost);
            let rest: Vec<&str> = rest.map(|(_, line)| line).collect();
            if let Ok(read) = targets(&rest.join("\n")) {
                let names = |target: &Target| -> Vec<String> {
                    target.sessions.iter().map(|session| session.initiator.clone()).collect()
                };
                assert_eq!(names(&read[0]), names(&whole), "{line}");
                assert!(read[0].rules == whole.rules || line.trim() == "iqn.n1", "{line}");
            }
        }
    }

    /// An alias is what the initiator likes it to be, but its name comes before it.
    #[test]
    fn an_alias_with_line_breaks_hides_nobody() {
        let alias = "x\n    LUN information:\n    Account information:\n    ACL information:";
        let forged = BUSY.replace("alias: none", &format!("alias: {alias}"));
        assert!(matches!(targets(&forged), Err(ShowError::Line { .. })));
        let system =
            "\nTarget 9: iqn.x\n    System information:\n    I_T nexus information:\n        I_T nexus: 7";
        let forged = BUSY
            .replace("alias: none", &format!("alias: {alias}{system}\n            Initiator: y alias: z"));
        let read = targets(&forged).unwrap();
        assert_eq!((read.len(), read[0].sessions[0].initiator.as_str()), (2, "iqn.n1"));
    }

    #[test]
    fn accounts_are_read() {
        let names = accounts("Account list:\n    u2\n    u1\n");
        assert_eq!(names, Ok(vec!["u2".to_owned(), "u1".to_owned()]));
        assert_eq!(accounts("Account list:\n  u2\n"), Err(ShowError::Line { line: 2 }));
        assert_eq!(accounts("Accounts:\n"), Err(ShowError::Line { line: 1 }));
        assert_eq!(accounts(""), Ok(vec![]));
    }
}
