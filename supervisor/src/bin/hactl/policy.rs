//! The verbs about policies.
//!
//! Why it exists: a policy is a document that people read, try and change; what is common to these is here.
//! What it never does: know which values are good; the document itself does ([`Policy::validate`]).

use crate::args::PolicyVerb;
use crate::replay::Wanted;
use crate::run::{Done, Failure, Session, read_input, say, segment};
use policies::Policy;
use reqwest::Method;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use supervisor::api::Policing;
use supervisor::api::answers::{Committed, InstanceDetail, PolicyDetail};
use supervisor::document;
use supervisor::render::{self, Screen};

/// What opens a document if neither VISUAL nor EDITOR says, as POSIX wants it.
const EDITOR: &str = "vi";

/// Reads a document and says whether a cluster would take it; needs none.
pub(crate) fn lint(file: &Path) -> Done {
    let (name, text) = read_input(file)?;
    read(&name, &text)?;
    say(&format!("{name}: a policy that would be taken\n"))
}

impl Session {
    pub(crate) async fn policy(&self, verb: PolicyVerb) -> Done {
        match verb {
            PolicyVerb::List => {
                let screen = |list: &Vec<PolicyDetail>, _: &Screen| render::policies(list);
                self.show("/v1/policies", screen).await
            }
            PolicyVerb::Get { name } => {
                let detail = self.policy_detail(&name).await?;
                let text = toml(&detail)?;
                self.print(&detail, |_| text.clone())
            }
            PolicyVerb::Effective { instance } => {
                let path = format!("/v1/instances/{}", segment(&instance));
                let named: InstanceDetail = self.client.get(&path).await?;
                let detail = self.policy_detail(named.record.instance.policy.as_str()).await?;
                let text = format!("# {instance} names policy {}\n{}", detail.name, toml(&detail)?);
                self.print(&detail, |_| text.clone())
            }
            PolicyVerb::Lint { file } => lint(&file),
            PolicyVerb::Set { name, changes, file, check } => {
                let policing = match file {
                    Some(file) => {
                        let (source, text) = read_input(&file)?;
                        Policing { changes: vec![], policy: Some(read(&source, &text)?), check }
                    }
                    None => Policing { changes: split(&changes)?, policy: None, check },
                };
                self.change_policy(&name, &policing).await
            }
            PolicyVerb::Edit { name } => self.edit(&name).await,
            PolicyVerb::Replay { file, name, since, failover_takes } => {
                self.replay(Wanted { file, name, since, failover_takes }).await
            }
        }
    }

    async fn policy_detail(&self, name: &str) -> Result<PolicyDetail, Failure> {
        Ok(self.client.get(&format!("/v1/policies/{}", segment(name))).await?)
    }

    async fn change_policy(&self, name: &str, policing: &Policing) -> Done {
        let path = format!("/v1/policies/{}", segment(name));
        let committed: Committed = self.client.order(Method::PUT, &path, policing).await?;
        self.print(&committed, render::committed)
    }

    /// Opens the policy in an editor until what is saved can be taken, as `kubectl edit` does, and sets it if nobody else
    /// has changed it meanwhile. What was typed is never lost.
    async fn edit(&self, name: &str) -> Done {
        let detail = self.policy_detail(name).await?;
        let draft = Draft::new(name, &toml(&detail)?)?;
        let policy = match draft.edit_until_read() {
            Ok(policy) => policy,
            Err(failure) => return draft.keep(failure),
        };
        if policy == detail.policy {
            return say(&format!("policy {name} is as it was; nothing was changed\n"));
        }
        let policing = Policing { changes: vec![], policy: Some(policy), check: Some(detail.version) };
        match self.change_policy(name, &policing).await {
            Ok(code) => Ok(code),
            Err(failure) => draft.keep(failure),
        }
    }
}

/// A document that is being edited, in a file that only its owner may read.
struct Draft(tempfile::NamedTempFile);

impl Draft {
    fn new(name: &str, text: &str) -> Result<Self, Failure> {
        let make = |error: std::io::Error| Failure::local("make a file to edit", &error);
        let prefix = format!("hactl-{}-", segment(name));
        let mut file = tempfile::Builder::new().prefix(&prefix).suffix(".toml").tempfile().map_err(make)?;
        file.write_all(text.as_bytes()).and_then(|()| file.flush()).map_err(make)?;
        Ok(Draft(file))
    }

    /// The policy, once it can be read. Whoever saves the same mistake twice does not want to go on.
    fn edit_until_read(&self) -> Result<Policy, Failure> {
        let mut refused: Option<String> = None;
        loop {
            self.open_editor()?;
            let (_, text) = read_input(self.0.path())?;
            let typed: String =
                text.split_inclusive('\n').filter(|line| !line.starts_with(COMPLAINT)).collect();
            match read("what was typed", &typed) {
                Ok(policy) => return Ok(policy),
                Err(failure) if refused.as_ref() == Some(&typed) => return Err(failure),
                Err(failure) => {
                    let why = failure.to_string();
                    let complaint: String = why.lines().map(|line| format!("{COMPLAINT}{line}\n")).collect();
                    std::fs::write(self.0.path(), complaint + &typed)
                        .map_err(|error| Failure::local("write the file to edit", &error))?;
                    refused = Some(typed);
                }
            }
        }
    }

    fn open_editor(&self) -> Result<(), Failure> {
        let set = |name| std::env::var(name).ok().filter(|editor| !editor.trim().is_empty());
        let editor = set("VISUAL").or_else(|| set("EDITOR")).unwrap_or_else(|| EDITOR.to_owned());
        // By the shell, for the variable may hold arguments (`code --wait`).
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("{editor} \"$1\"")).arg("hactl").arg(self.0.path());
        let status = shell.status().map_err(|error| Failure::local("start the editor", &error))?;
        match status.success() {
            true => Ok(()),
            false => {
                Err(Failure::Usage(format!("the editor `{editor}` ended with {status}; nothing was changed")))
            }
        }
    }

    /// Ends with a failure, but leaves the file.
    fn keep(self, failure: Failure) -> Done {
        let said = match self.0.keep() {
            Ok((_, path)) => writeln!(std::io::stderr(), "What was typed is in {}", path.display()),
            Err(error) => writeln!(std::io::stderr(), "What was typed could not be kept: {error}"),
        };
        said.map_err(|error| Failure::local("write to standard error", &error))?;
        Err(failure)
    }
}

/// What marks a line as ours in a draft.
const COMPLAINT: &str = "#! ";

pub(crate) fn read(source: &str, text: &str) -> Result<Policy, Failure> {
    let policy: Policy = document::read(source, text).map_err(|error| Failure::Usage(error.to_string()))?;
    policy.validate().map_err(|why| Failure::Usage(format!("{source}: {why}")))?;
    Ok(policy)
}

fn toml(detail: &PolicyDetail) -> Result<String, Failure> {
    render::policy(detail).map_err(|error| Failure::local("write TOML", &error))
}

fn split(changes: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let split = |change: &String| match change.split_once('=') {
        Some((key, value)) => Ok((key.trim().to_owned(), value.trim().to_owned())),
        None => Err(Failure::Usage(format!("{change:?} is not section.key=value"))),
    };
    changes.iter().map(split).collect()
}
