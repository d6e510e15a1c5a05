//! `hactl debug bundle`: asks the cluster for everything that helps to find out why, and writes it into one archive.
//!
//! Why it exists: a bundle is wanted when something is broken, so whatever cannot be had is named and left out. What it
//! never does: send anything anywhere, or overwrite a file that it was not told to.

use crate::args::Bundling;
use crate::run::{Done, Failure, Session, segment};
use policies::PlanId;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use supervisor::api::answers::MemberLine;
use supervisor::bundle::Bundle;
use supervisor::client::{Client, ClientError};
use supervisor::context::ContextDetail;
use supervisor::files::{self, Access};
use supervisor::{clock, render};

/// Nodes, instances and failovers that are collected in full, each. More would be more questions than a cluster in
/// trouble should be asked; the lists have all of them.
const DETAILS_MAX: usize = 100;
/// How long one member is asked for what only it can say. A dead one must not hold up the bundle.
const MEMBER_PATIENCE: Duration = Duration::from_secs(2);

impl Session {
    pub(crate) async fn bundle(&self, context: &ContextDetail, bundling: Bundling) -> Done {
        let Bundling { file, events, force } = bundling;
        if let Some(file) = file.as_ref().filter(|file| !force && file.exists()) {
            return Err(exists(file));
        }
        let mut bundle = Bundle::new(self.client.secrets());
        // Without any answer there is nothing to write. Without a quorum, a member's own memory is better than nothing.
        let status = self.read_status().await?;
        let source = if status.local { Source::OwnMemory } else { Source::Leader };
        take(&mut bundle, "status.json", Ok(serde_json::to_value(&status)))?;
        self.collect_lists(&mut bundle, source, events).await?;
        self.collect_members(&mut bundle, &status.members).await?;
        let now = clock::wall();
        let at = render::utc(now).replace(['-', ':'], "");
        let folder = format!("hactl-debug-{}-{at}", segment(&status.cluster));
        add_own(&mut bundle, context, source)?;
        let archive = bundle.archive(&folder, now.0 / 1000);
        let archive = archive.map_err(|error| Failure::local("make the archive", &error))?;
        let file = file.unwrap_or_else(|| PathBuf::from(format!("{folder}.tar.gz")));
        let written = match force {
            true => files::replace(&file, &archive, Access::Private),
            false => files::create(&file, &archive, Access::Private),
        };
        written.map_err(|error| Failure::Local(policies::causes(&error)))?;
        let contents = bundle.contents(file, archive.len() as u64);
        self.print(&contents, render::bundle)
    }

    async fn collect_lists(&self, bundle: &mut Bundle, source: Source, events: usize) -> Result<(), Failure> {
        let detailed = [("nodes", "name"), ("instances", "name"), ("failovers", "id")];
        let plain = [("policies", ""), ("spares", ""), ("providers", "")];
        for (kind, key) in detailed.into_iter().chain(plain) {
            let list = self.client.get::<Value>(&source.path(&format!("/v1/{kind}"))).await;
            let list = take(bundle, &format!("{kind}.json"), list.map(Ok))?;
            let lines = list.as_ref().and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            for name in lines.iter().filter_map(|line| name_in(line, key)).take(DETAILS_MAX) {
                let name = segment(&name);
                let detail = self.client.get::<Value>(&source.path(&format!("/v1/{kind}/{name}"))).await;
                // If one does not come, the others would only take the same time in vain.
                if take(bundle, &format!("{kind}/{name}.json"), detail.map(Ok))?.is_none() {
                    break;
                }
            }
        }
        let path = format!("/v1/events?limit={events}");
        take(bundle, "events.json", self.client.get::<Value>(&path).await.map(Ok)).map(drop)
    }

    /// What each member says of itself.
    async fn collect_members(&self, bundle: &mut Bundle, members: &[MemberLine]) -> Result<(), Failure> {
        for line in members {
            let folder = format!("members/{}", line.id);
            match self.client.at(&line.api, MEMBER_PATIENCE) {
                Ok(member) => collect_member(bundle, &folder, &member).await?,
                Err(error) => bundle.lack(&folder, policies::causes(&error)),
            }
        }
        Ok(())
    }
}

/// Where the answers come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// The leader, with a quorum behind it.
    Leader,
    /// One member; no quorum stands behind it.
    OwnMemory,
}

impl Source {
    fn path(self, path: &str) -> String {
        match self {
            Source::Leader => path.to_owned(),
            Source::OwnMemory => format!("{path}?local=true"),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Source::Leader => "the leader",
            Source::OwnMemory => "one member's own memory: no quorum stands behind this",
        }
    }
}

async fn collect_member(bundle: &mut Bundle, folder: &str, member: &Client) -> Result<(), Failure> {
    let members = member.get::<Value>("/v1/members").await;
    if take(bundle, &format!("{folder}/members.json"), members.map(Ok))?.is_none() {
        // It is not there; each further question would take its time again.
        return Ok(());
    }
    // Of the whole description of the API only the version says anything about this member.
    let described = member.get::<Value>("/openapi.json").await;
    let version =
        described.map(|described| Ok(described.pointer("/info/version").cloned().unwrap_or_default()));
    take(bundle, &format!("{folder}/version.json"), version)?;
    match member.get_text("/metrics").await {
        Ok(text) => bundle.add(&format!("{folder}/metrics.txt"), &text),
        Err(error) => bundle.lack(&format!("{folder}/metrics.txt"), policies::causes(&error)),
    }
    Ok(())
}

/// The name of a line of a list, as it stands in a path.
fn name_in(line: &Value, key: &str) -> Option<String> {
    let name = line.get(key)?;
    name.as_str().map(str::to_owned).or_else(|| Some(PlanId(name.as_u64()?).to_string()))
}

/// Takes an answer into the bundle and gives it back; what there is none of is noted.
fn take(
    bundle: &mut Bundle,
    name: &str,
    answer: Result<serde_json::Result<Value>, ClientError>,
) -> Result<Option<Value>, Failure> {
    match answer {
        Ok(answer) => {
            let answer = answer.map_err(|error| failed(&error))?;
            bundle.add(name, &serde_json::to_string_pretty(&answer).map_err(|error| failed(&error))?);
            Ok(Some(answer))
        }
        Err(error) => {
            bundle.lack(name, policies::causes(&error));
            Ok(None)
        }
    }
}

/// What this program knows itself: its version, the context, what is missing.
fn add_own(bundle: &mut Bundle, context: &ContextDetail, source: Source) -> Result<(), Failure> {
    let own = serde_json::json!({
        "hactl": env!("CARGO_PKG_VERSION"),
        "answered_by": source.word(),
        "context": context,
        "missing": bundle.missing(),
    });
    bundle.add("hactl.json", &serde_json::to_string_pretty(&own).map_err(|error| failed(&error))?);
    Ok(())
}

fn failed(error: &serde_json::Error) -> Failure {
    Failure::local("write JSON", error)
}

fn exists(file: &std::path::Path) -> Failure {
    let why = "is there already, and nothing was written; choose another name, or say --force";
    Failure::Usage(format!("{} {why}", file.display()))
}
