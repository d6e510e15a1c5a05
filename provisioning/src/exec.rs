//! A site's own executable as a provider: JSON on standard input, JSON on standard output, one run for each question.
//!
//! What this is: the protocol of `docs/drivers/exec.md`, spoken with such a program (`program`).
//! Why it exists: switches and arrays that nobody else has are driven by a script, as CNI plug-ins and fence agents are.
//! What it never does: it runs nothing outside of the member's own directory, shows the secret to nobody but the program's
//! standard input, leaves nothing running behind a deadline, and takes "accepted" for no proof.

use crate::program::{Ended, Run};
use crate::{ProviderError, State, Wish};
use policies::{
    Check, Epoch, Finding, InstanceId, LogIndex, NodeId, Permit, ProgramName, Refusal, SnapshotName, VolumeId,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

/// Version of the protocol, in every request.
const VERSION: u32 = 1;

/// One program with its settings.
#[derive(Clone)]
pub struct Exec {
    program: PathBuf,
    settings: Arc<BTreeMap<String, String>>,
    secret: Arc<Zeroizing<String>>,
}

impl fmt::Debug for Exec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exec").field("program", &self.program).finish_non_exhaustive()
    }
}

/// What is asked.
#[derive(Serialize)]
struct Request<'a> {
    version: u32,
    #[serde(flatten)]
    question: Question<'a>,
    settings: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    secret: &'a str,
}

#[derive(Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
enum Question<'a> {
    Look { wish: Wanted<'a> },
    Act { wish: Wanted<'a>, token: LogIndex },
    Check { object: &'a Check },
}

/// A wish in the words of the protocol.
#[derive(Serialize)]
#[serde(tag = "want", rename_all = "snake_case")]
enum Wanted<'a> {
    Revoked {
        volume: &'a VolumeId,
        initiator: &'a str,
    },
    Attached {
        volume: &'a VolumeId,
        initiator: &'a str,
    },
    Snapshot {
        volume: &'a VolumeId,
        name: SnapshotName,
        keep: u32,
    },
    /// A wish of its own: a program that only knows the other one must not make a torn one for it.
    Backup {
        volume: &'a VolumeId,
        name: SnapshotName,
        keep: u32,
    },
    PortClosed {
        port: &'a str,
    },
    PortOpen {
        port: &'a str,
        vlan: u16,
        #[serde(skip_serializing_if = "BTreeSet::is_empty")]
        tagged: &'a BTreeSet<u16>,
        mac: Option<&'a str>,
    },
    Boots {
        node: &'a NodeId,
        instance: &'a InstanceId,
        image: &'a str,
        epoch: Epoch,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Looked {
    holds: bool,
    reading: String,
}

/// What came of a change. Only `refused` promises that nothing happened.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Acted {
    Accepted(Nothing),
    Refused(No),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(tag = "why", rename_all = "snake_case", deny_unknown_fields)]
enum No {
    DeviceRefused { text: String },
    HeldByOther { text: String },
    NotAdmitted { text: String },
    NotConfigured { text: String },
    Unreachable { text: String },
    TokenTooOld { newest: LogIndex },
}

#[derive(Deserialize)]
#[serde(tag = "finding", rename_all = "snake_case", deny_unknown_fields)]
enum Checked {
    Fine {},
    Absent { text: String },
    Faulty { text: String },
    CannotTell { text: String },
}

impl Exec {
    /// The program of this name in the member's directory of programs.
    ///
    /// # Errors
    /// [`ProviderError::Configuration`] if the secret is no text. Whether the program is there is seen when it is run.
    pub fn new(
        program: &ProgramName,
        settings: &BTreeMap<String, String>,
        secret: &[u8],
        programs: &Path,
    ) -> Result<Self, ProviderError> {
        let secret = std::str::from_utf8(secret)
            .map_err(|_| ProviderError::Configuration(format!("{program}: its secret is not a text")))?;
        Ok(Exec {
            program: programs.join(program.as_str()),
            settings: Arc::new(settings.clone()),
            secret: Arc::new(Zeroizing::new(secret.to_owned())),
        })
    }

    pub(crate) async fn look(&self, wish: &Wish, deadline: Instant) -> Result<State, ProviderError> {
        let doing = format!("look whether to {wish}");
        let question = Question::Look { wish: wanted(wish)? };
        let Looked { holds, reading } = self.ask(&doing, question, &Always, deadline).await?;
        Ok(State::new(holds, reading))
    }

    pub(crate) async fn check(&self, check: &Check, deadline: Instant) -> Result<Finding, ProviderError> {
        let doing = format!("look for {check}");
        Ok(match self.ask(&doing, Question::Check { object: check }, &Always, deadline).await? {
            Checked::Fine {} => Finding::Fine,
            Checked::Absent { text } => Finding::Absent(text),
            Checked::Faulty { text } => Finding::Faulty(text),
            Checked::CannotTell { text } => Finding::CannotTell(text),
        })
    }

    pub(crate) async fn act(
        &self,
        wish: &Wish,
        token: LogIndex,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), ProviderError> {
        let doing = wish.to_string();
        let question = Question::Act { wish: wanted(wish)?, token };
        let why = match self.ask(&doing, question, permit, deadline).await? {
            Acted::Accepted(Nothing {}) => return Ok(()),
            Acted::Refused(No::DeviceRefused { text }) => Refusal::DeviceRefused(text),
            Acted::Refused(No::HeldByOther { text }) => Refusal::HeldByOther(text),
            Acted::Refused(No::NotAdmitted { text }) => Refusal::NotAdmitted(text),
            Acted::Refused(No::NotConfigured { text }) => Refusal::NotConfigured(text),
            Acted::Refused(No::Unreachable { text }) => Refusal::Unreachable(text),
            Acted::Refused(No::TokenTooOld { newest }) => Refusal::TokenTooOld { ours: token, newest },
        };
        Err(ProviderError::Refused { doing, why })
    }

    /// One run: the permit is checked right before the program is told what to do (R5).
    async fn ask<A: DeserializeOwned>(
        &self,
        doing: &str,
        question: Question<'_>,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<A, ProviderError> {
        let refused = |why| ProviderError::Refused { doing: doing.to_owned(), why };
        let garbled = |why: String| ProviderError::Garbled { doing: doing.to_owned(), why: self.hide(&why) };
        let request =
            Request { version: VERSION, question, settings: &self.settings, secret: self.secret.as_str() };
        let mut request = serde_json::to_vec(&request)
            .map(Zeroizing::new)
            .map_err(|error| ProviderError::Configuration(format!("{doing}: write the request: {error}")))?;
        request.push(b'\n');
        let program = self.program.display();
        let mut run = Run::start(&self.program, [])
            .map_err(|error| refused(Refusal::NotConfigured(format!("start {program}: {error}"))))?;
        permit.check().map_err(refused)?;
        let ended = timeout_at(deadline, run.talk(&request)).await;
        let Ended { answer, complaint, success } = match ended {
            Ok(Ok(ended)) => ended,
            Ok(Err(error)) => return Err(garbled(format!("talk with {program}: {error}"))),
            Err(_) => return Err(ProviderError::NoAnswer { doing: doing.to_owned(), source: None }),
        };
        if !success {
            return Err(garbled(format!("{program} failed: {complaint}")));
        }
        serde_json::from_slice(&answer).map_err(|error| garbled(format!("{program} answers: {error}")))
    }

    /// Programs repeat what they were given when they fail.
    fn hide(&self, text: &str) -> String {
        match self.secret.is_empty() {
            true => text.to_owned(),
            false => text.replace(self.secret.as_str(), "(secret)"),
        }
    }
}

/// A look needs no leave.
struct Always;

impl Permit for Always {
    fn check(&self) -> Result<(), Refusal> {
        Ok(())
    }

    fn token(&self) -> policies::LogIndex {
        policies::LogIndex(7)
    }
}

fn wanted(wish: &Wish) -> Result<Wanted<'_>, ProviderError> {
    Ok(match wish {
        Wish::Revoked { volume, holder } => Wanted::Revoked { volume, initiator: holder },
        Wish::Attached { volume, holder, index: _ } => Wanted::Attached { volume, initiator: holder },
        Wish::Snapshot { volume, name: name @ SnapshotName::Failover(_), keep } => {
            Wanted::Snapshot { volume, name: *name, keep: *keep }
        }
        Wish::Snapshot { volume, name: name @ SnapshotName::Backup(_), keep } => {
            Wanted::Backup { volume, name: *name, keep: *keep }
        }
        Wish::PortClosed { port, holder: _ } => Wanted::PortClosed { port },
        Wish::VifAttached { .. } | Wish::Claimed { .. } | Wish::Cleaned { .. } => {
            return Err(crate::clouds_only(wish));
        }
        Wish::PortOpen { port, vlan, tagged, mac } => {
            Wanted::PortOpen { port, vlan: *vlan, tagged, mac: mac.as_deref() }
        }
        Wish::Boots { node, holder: _, instance, image, epoch } => {
            Wanted::Boots { node, instance, image, epoch: *epoch }
        }
    })
}
