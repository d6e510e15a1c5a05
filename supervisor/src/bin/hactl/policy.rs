//! The verbs about policies.
//!
//! Why it exists: a policy is a document that people read, try and change; what is common to these is here.
//! What it never does: know which values are good; the document itself does ([`Policy::validate`]).

use crate::args::PolicyVerb;
use crate::output::say;
use crate::replay::Wanted;
use crate::run::{Done, Failure, Session, read_input, segment};
use policies::{LogIndex, Millis, Policy, Preview, Unable};
use reqwest::Method;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode};
use supervisor::api::answers::{Committed, PolicyDetail};
use supervisor::api::{Became, Code, Deleting, EffectivePolicy, Policing, PolicyVersion, Problem};
use supervisor::client::ClientError;
use supervisor::document;
use supervisor::render::{self, Screen};

/// What opens a document if neither VISUAL nor EDITOR says, as POSIX wants it.
const EDITOR: &str = "vi";

/// Reads a document and says whether a cluster would take it; needs none.
pub(crate) fn lint(file: &Path) -> Done {
    let (name, text) = read_input(file)?;
    let policy = read(&name, &text)?;
    say(&format!("{name}: a policy that would be taken\n"))?;
    // Which storage its instances have only a cluster knows.
    match policy.takeover.snapshot_max > Millis(0) || policy.backups.kept > 0 {
        true => say(
            "It wants snapshots of volumes; once it is set, `hactl policy lint` tells which storage cannot.\n",
        ),
        false => Ok(ExitCode::SUCCESS),
    }
}

impl Session {
    pub(crate) async fn policy(&self, verb: PolicyVerb) -> Done {
        match verb {
            PolicyVerb::List(watch) => {
                let screen = |list: &Vec<PolicyDetail>, screen: &Screen| render::policies(list, screen);
                self.show_or_watch(watch, "/v1/policies", screen).await
            }
            PolicyVerb::Get { name, watch } => {
                let path = format!("/v1/policies/{}", segment(&name));
                let screen = |detail: &PolicyDetail, _: &Screen| {
                    render::policy(detail).unwrap_or_else(|error| format!("write TOML: {error}\n"))
                };
                self.show_or_watch(watch, &path, screen).await
            }
            PolicyVerb::Effective { instance } => {
                let path = format!("/v1/instances/{}/policy", segment(&instance));
                let effective: EffectivePolicy = self.client.get(&path).await?;
                let text = render::effective_policy(&effective).map_err(not_written)?;
                self.print(&effective, |_| text.clone())
            }
            PolicyVerb::Lint { file: Some(file) } => lint(&file),
            PolicyVerb::Lint { file: None } => self.lint_in_force().await,
            PolicyVerb::Plan { name, changes, file } => {
                let planned = self.plan(&name, &changes, file.as_deref()).await;
                planned.map_err(|failure| Failure::NoAnswer(Box::new(failure)))
            }
            PolicyVerb::Set { name, changes, file, check, reason, force } => {
                let (changes, policy) = content(&changes, file.as_deref())?;
                let policing = Policing { changes, policy, check, reason };
                self.change_policy(&name, &policing, force.force).await
            }
            PolicyVerb::Edit { name, reason, force } => self.edit(&name, reason, force.force).await,
            PolicyVerb::History { name, watch } => {
                let screen =
                    |versions: &Vec<PolicyVersion>, screen: &Screen| render::policy_history(versions, screen);
                self.show_or_watch(watch, &history_path(&name), screen).await
            }
            PolicyVerb::Rollback { name, to, reason, force } => {
                self.roll_back(&name, to, &reason, force.force).await
            }
            PolicyVerb::Delete { name, reason, check, force } => {
                let path = format!("/v1/policies/{}", segment(&name));
                let deleting = Deleting { check, reason };
                let committed: Committed =
                    self.order_gated(Method::DELETE, &path, &deleting, force.force).await?;
                self.print(&committed, render::committed)
            }
            PolicyVerb::Replay { file, name, since, failover_takes } => {
                let replayed = self.replay(Wanted { file, name, since, failover_takes }).await;
                replayed.map_err(|failure| Failure::NoAnswer(Box::new(failure)))
            }
        }
    }

    /// What the policies in force want and storage cannot do; exit code 1 if anything.
    async fn lint_in_force(&self) -> Done {
        let unable: Vec<Unable> = self.client.get("/v1/lint").await?;
        self.printer.print(&unable, |unable| render::policy_lint(unable, &self.printer.screen()))?;
        Ok(if unable.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }

    async fn policy_detail(&self, name: &str) -> Result<PolicyDetail, Failure> {
        Ok(self.client.get(&format!("/v1/policies/{}", segment(name))).await?)
    }

    /// What a change would change now; exit code 1 if anything.
    async fn plan(&self, name: &str, changes: &[String], file: Option<&Path>) -> Done {
        let id = name.parse().map_err(|error| Failure::Usage(format!("{error}")))?;
        let (changes, policy) = content(changes, file)?;
        let policing = Policing { changes, policy, check: None, reason: String::new() };
        let path = format!("/v1/policies/{}/plan", segment(name));
        let preview: Preview = self.client.order(Method::POST, &path, &policing).await?;
        self.printer.print(&preview, |preview| render::policy_plan(&id, preview, &self.printer.screen()))?;
        Ok(if preview.is_nothing() { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }

    async fn change_policy(&self, name: &str, policing: &Policing, force: bool) -> Done {
        let path = format!("/v1/policies/{}", segment(name));
        let committed: Committed = self.order_gated(Method::PUT, &path, policing, force).await?;
        self.print(&committed, render::committed)
    }

    /// Sets an earlier version again, unless somebody changes the policy meanwhile.
    async fn roll_back(&self, name: &str, to: Option<LogIndex>, reason: &str, force: bool) -> Done {
        let versions: Vec<PolicyVersion> = self.client.get(&history_path(name)).await?;
        let wanted = match to {
            Some(to) => versions.iter().find(|known| known.version == to),
            // Of a deleted policy, the version that was deleted.
            None => versions.iter().find(|known| known.became == Became::Replaced),
        };
        let Some(wanted) = wanted else {
            let what = to.map_or_else(|| "an earlier version".to_owned(), |to| format!("version {to}"));
            let why = format!("{what} of policy {name} is not known");
            let hint = format!("`hactl policy history {name}` shows which are kept");
            return Err(ClientError::Refused(Problem::new(Code::NotThere, why, hint)).into());
        };
        let in_force = versions.first().filter(|newest| newest.became == Became::InForce);
        let policing = Policing {
            changes: vec![],
            policy: Some(wanted.policy.clone()),
            check: Some(in_force.map_or(LogIndex(0), |newest| newest.version)),
            reason: format!("back to version {}: {reason}", wanted.version),
        };
        self.change_policy(name, &policing, force).await
    }

    /// Opens the policy in an editor until what is saved can be taken, as `kubectl edit` does, and sets it if nobody else
    /// has changed it meanwhile. What was typed is never lost.
    async fn edit(&self, name: &str, reason: String, force: bool) -> Done {
        let detail = self.policy_detail(name).await?;
        let draft = Draft::new(name, &toml(&detail)?)?;
        let policy = match draft.edit_until_read() {
            Ok(policy) => policy,
            Err(failure) => return draft.keep(failure),
        };
        if policy == detail.policy {
            return say(&format!("policy {name} is as it was; nothing was changed\n"));
        }
        let check = Some(detail.version);
        let policing = Policing { changes: vec![], policy: Some(policy), check, reason };
        match self.change_policy(name, &policing, force).await {
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

fn history_path(name: &str) -> String {
    format!("/v1/policies/{}/history", segment(name))
}

/// What marks a line as ours in a draft.
const COMPLAINT: &str = "#! ";

pub(crate) fn read(source: &str, text: &str) -> Result<Policy, Failure> {
    let policy: Policy = document::read(source, text).map_err(|error| Failure::Usage(error.to_string()))?;
    policy.validate().map_err(|why| Failure::Usage(format!("{source}: {why}")))?;
    Ok(policy)
}

fn toml(detail: &PolicyDetail) -> Result<String, Failure> {
    render::policy(detail).map_err(not_written)
}

fn not_written(error: impl std::error::Error) -> Failure {
    Failure::local("write TOML", &error)
}

/// Single keys with their values, or the whole content of a file.
type Content = (Vec<(String, String)>, Option<Policy>);

fn content(changes: &[String], file: Option<&Path>) -> Result<Content, Failure> {
    let Some(file) = file else { return Ok((split(changes)?, None)) };
    let (source, text) = read_input(file)?;
    Ok((vec![], Some(read(&source, &text)?)))
}

fn split(changes: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let split = |change: &String| match change.split_once('=') {
        Some((key, value)) => Ok((key.trim().to_owned(), value.trim().to_owned())),
        None => Err(Failure::Usage(format!("{change:?} is not section.key=value"))),
    };
    changes.iter().map(split).collect()
}
