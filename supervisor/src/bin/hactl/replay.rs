//! `hactl policy replay`: what would have been different with another policy.
//!
//! Why it exists: the records of all members are needed at one place, and the answer must cost no member anything. What
//! it never does: decide what a record means; [`policies::replay`] does.

use crate::run::{Done, Failure, Session, read_input};
use policies::flight::Record;
use policies::replay::{self, BadTrial, Trial};
use policies::{MemberId, Millis, Phase, PolicyId, Wall, causes};
use std::cell::RefCell;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use supervisor::api::answers::{FailoverLine, MemberLine, Members, PolicyDetail};
use supervisor::client::ClientError;
use supervisor::render::{self, Replayed};

/// Largest record of one member: half of what it keeps by default on disk, and far more than a replay takes.
const RECORD_BYTES_MAX: usize = 512 << 20;
/// What a failover is taken to last if none was seen: a server's POST is most of it.
const FAILOVER_TAKES: Millis = Millis(120_000);
/// Longest time that is asked for.
const SINCE_MAX: Duration = Duration::from_secs(3650 * 86_400);

/// What was asked for.
pub(crate) struct Wanted {
    /// The candidate.
    pub(crate) file: PathBuf,
    /// Which policy it would replace.
    pub(crate) name: PolicyId,
    /// How long ago to begin.
    pub(crate) since: Duration,
    /// How long a failover takes, if the operator says.
    pub(crate) failover_takes: Option<Duration>,
}

/// The records of the members that could be asked, and why the others' are missing.
type Tapes = (Vec<(MemberId, Vec<u8>)>, Vec<(MemberId, String)>);

impl Session {
    /// Exit code 0: both would have done the same; 1: they would not.
    pub(crate) async fn replay(&self, wanted: Wanted) -> Done {
        let (source, text) = read_input(&wanted.file)?;
        let candidate = crate::policy::read(&source, &text)?;
        let members: Members = self.client.get("/v1/members").await?;
        let in_force: Vec<PolicyDetail> = self.client.get("/v1/policies").await?;
        let ago = u64::try_from(wanted.since.min(SINCE_MAX).as_millis()).unwrap_or(0);
        let since = Wall(supervisor::clock::wall().0.saturating_sub(ago));
        let (failover_takes, failovers_measured) = self.failover_takes(wanted.failover_takes).await?;
        let (tapes, mut missing) = self.tapes(&members.members, since).await?;
        let voters = members.members.iter().filter(|member| member.voter).count();
        let trial = Trial {
            in_force: in_force.into_iter().map(|detail| (detail.name, detail.policy)).collect(),
            name: wanted.name,
            candidate,
            voters: u32::try_from(voters).unwrap_or(u32::MAX),
            since,
            failover_takes,
        };
        let replay = play(&trial, &tapes, &mut missing)?;
        let code = if replay.differs() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        let replayed = Replayed { candidate: source, missing, failover_takes, failovers_measured, replay };
        self.print(&replayed, |replayed| render::replayed(replayed, &self.printer.screen()))?;
        Ok(code)
    }

    /// As the operator says, or the median of those that were seen, or a guess; and of how many it is the median.
    async fn failover_takes(&self, given: Option<Duration>) -> Result<(Millis, usize), Failure> {
        if let Some(given) = given {
            return Ok((Millis(u64::try_from(given.as_millis()).unwrap_or(u64::MAX)), 0));
        }
        let failovers: Vec<FailoverLine> = self.client.get("/v1/failovers").await?;
        let done = failovers.iter().filter(|line| line.phase == Phase::Done && line.instance.is_some());
        let mut took: Vec<Millis> = done.map(|line| line.entered.since(line.at)).collect();
        took.sort_unstable();
        Ok(took.get(took.len() / 2).map_or((FAILOVER_TAKES, 0), |median| (*median, took.len())))
    }

    async fn tapes(&self, members: &[MemberLine], since: Wall) -> Result<Tapes, Failure> {
        let (mut tapes, mut missing) = (vec![], vec![]);
        for member in members.iter().filter(|member| member.voter) {
            match self.tape(&member.api, since).await {
                Ok(tape) => {
                    progress(&format!(
                        "{} ({}): {} kB of records",
                        member.id,
                        member.api,
                        tape.len() / 1000
                    ))?;
                    tapes.push((member.id, tape));
                }
                Err(why) => {
                    progress(&format!("{} ({}): no record: {why}", member.id, member.api))?;
                    missing.push((member.id, why));
                }
            }
        }
        Ok((tapes, missing))
    }

    async fn tape(&self, api: &str, since: Wall) -> Result<Vec<u8>, String> {
        let said = |error: ClientError| causes(&error);
        let stream = self.client.stream_from(api, &format!("/v1/flight?since={}", since.0)).await;
        let (mut stream, mut tape) = (stream.map_err(said)?, vec![]);
        loop {
            let chunk = tokio::time::timeout(self.timeout(), stream.chunk()).await;
            let chunk = chunk.map_err(|_| "it stopped answering in the middle".to_owned())?;
            let Some(chunk) = chunk.map_err(|error| causes(&error))? else { return Ok(tape) };
            if tape.len() + chunk.len() > RECORD_BYTES_MAX {
                return Err(format!("more than {RECORD_BYTES_MAX} bytes; choose a shorter time"));
            }
            tape.extend_from_slice(&chunk);
        }
    }
}

/// Plays the tapes. A record that cannot be read ends its tape, and that is said.
fn play(
    trial: &Trial,
    tapes: &[(MemberId, Vec<u8>)],
    missing: &mut Vec<(MemberId, String)>,
) -> Result<replay::Replay, Failure> {
    let bad = Damages::default();
    let kept = tapes.iter().filter(|(_, tape)| !tape.is_empty());
    let records = replay::in_order(kept.map(|(member, tape)| (*member, records(*member, tape, &bad))));
    let replay = replay::replay(trial, records).map_err(|error| match error {
        BadTrial::NoSuchPolicy(..) | BadTrial::TooManyRecords => Failure::Usage(error.to_string()),
        BadTrial::TooManyMembers | BadTrial::TooFewMembers { .. } => Failure::local("replay", &error),
    })?;
    let empty = tapes.iter().filter(|(_, tape)| tape.is_empty());
    missing.extend(empty.map(|(member, _)| (*member, "it has no records of this time".to_owned())));
    missing.extend(bad.into_inner());
    Ok(replay)
}

/// Members whose tapes end in something that is no record, and what it is.
type Damages = RefCell<Vec<(MemberId, String)>>;

fn records<'a>(member: MemberId, tape: &'a [u8], bad: &'a Damages) -> impl Iterator<Item = Record> + 'a {
    let mut rest = tape;
    std::iter::from_fn(move || {
        Record::decode(&mut rest).unwrap_or_else(|error| {
            rest = &[];
            bad.borrow_mut().push((member, format!("from some point on: {error}")));
            None
        })
    })
}

/// Progress is for people who wait; the answer goes to standard output.
fn progress(text: &str) -> Result<(), Failure> {
    writeln!(std::io::stderr(), "{text}").map_err(|error| Failure::local("write to standard error", &error))
}
