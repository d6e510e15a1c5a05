//! The demo's cluster: three members, made and spoken to as a user would.
//!
//! Why it exists: what the demo shows is what the real programs do; it takes no short cut into them.
//! What it never does: decide or repair anything.

use super::error::system;
use super::ground::{BeforeRun, MEMBERS, Seat};
use super::process::{Process, Starter, answer};
use super::wait::{Look, until};
use super::{DemoError, Home};
use policies::{MemberId, causes};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use supervisor::api::CONSOLE_HOW;
use supervisor::api::answers::Members;
use supervisor::client::{Client, ClientError};
use supervisor::config::Home as MemberHome;
use supervisor::init::Context;

/// How long a question looks for a member that can answer it. A new leader is there within 1.5 s.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a question to one certain member looks for it.
const PATIENCE_WITH_ONE: Duration = Duration::from_secs(1);
/// From the start of a member to its first answer, on a busy computer.
const START_MAX: Duration = Duration::from_secs(20);
/// A running cluster.
pub(crate) struct Cluster {
    dir: PathBuf,
    supervisord: PathBuf,
    hactl: PathBuf,
    context: PathBuf,
    starter: Starter,
    seats: BTreeMap<MemberId, Seat>,
    members: BTreeMap<MemberId, Process>,
    /// How often each member was started.
    lives: BTreeMap<MemberId, u32>,
    client: Client,
}

impl Cluster {
    /// Makes a cluster in `dir` and waits until all its members vote.
    pub(crate) async fn start(
        home: &Home,
        dir: &Path,
        starter: &Starter,
        seats: BTreeMap<MemberId, Seat>,
        before_run: BeforeRun,
    ) -> Result<Cluster, DemoError> {
        let supervisord = home.program("ha-supervisord");
        make_directories(&supervisord, dir, &seats).await?;
        before_run(dir)?;
        let context = MemberHome::new(dir.join("m1")).hactl();
        let client = open(&context, PATIENCE)?;
        let (dir, hactl, starter) = (dir.to_owned(), home.program("hactl"), starter.clone());
        let (members, lives) = (BTreeMap::new(), BTreeMap::new());
        let mut cluster =
            Cluster { dir, supervisord, hactl, context, starter, seats, members, lives, client };
        for id in cluster.seats.keys().copied().collect::<Vec<_>>() {
            cluster.run(id).await?;
        }
        cluster.gather().await?;
        Ok(cluster)
    }

    /// Starts the process of a member that does not run.
    pub(crate) async fn run(&mut self, id: MemberId) -> Result<(), DemoError> {
        let Some(seat) = self.seats.get(&id) else {
            return Err(DemoError::Unexpected(format!("{id} is to run, but has no seat")));
        };
        *self.lives.entry(id).or_default() += 1;
        let (name, log, dir) = (format!("member {id}"), self.newest_log(id), self.dir.join(id.to_string()));
        let args = ["run".as_ref(), "--dir".as_ref(), dir.as_os_str()];
        let member = self.starter.start(&name, &self.supervisord, args, &seat.around, log).await?;
        self.members.insert(id, member);
        Ok(())
    }

    /// Waits for the first member to lead and adds the others.
    async fn gather(&mut self) -> Result<(), DemoError> {
        let log = self.log(MemberId(1));
        until("member 1 to lead", START_MAX, &log, async || self.has_leader().await).await?;
        for (id, addresses) in self.seats.iter().filter(|(id, _)| id.0 != 1) {
            let (member, api) = (addresses.member.to_string(), addresses.api.to_string());
            let id = id.0.to_string();
            let add = ["member", "add", &id, "--member-addr", &member, "--api-addr", &api];
            self.hactl(add).await?;
        }
        until("three members to vote", START_MAX, &log, async || {
            self.check()?;
            Ok(match self.members_seen().await {
                Ok(seen) if seen.members.iter().filter(|member| member.voter).count() == MEMBERS => {
                    Look::There(())
                }
                Ok(seen) => Look::NotYet(format!("{} members", seen.members.len())),
                Err(error) => Look::NotYet(causes(&error)),
            })
        })
        .await
    }

    async fn has_leader(&mut self) -> Result<Look<()>, DemoError> {
        self.check()?;
        Ok(match self.leader().await {
            Ok(Some(_)) => Look::There(()),
            Ok(None) => Look::NotYet("no leader".to_owned()),
            Err(error) => Look::NotYet(causes(&error)),
        })
    }

    /// Runs `hactl`.
    pub(crate) async fn hactl<'a>(
        &self,
        args: impl IntoIterator<Item = &'a str>,
    ) -> Result<String, DemoError> {
        let context = self.context.to_string_lossy();
        answer(&self.hactl, args, &[("HACTL_CONFIG", &context)]).await
    }

    /// Asks the cluster.
    pub(crate) async fn get<A: DeserializeOwned>(
        &self,
        doing: &'static str,
        path: &str,
    ) -> Result<A, DemoError> {
        self.client.get(path).await.map_err(|source| DemoError::Cluster { doing, source })
    }

    /// Since when a node's console is listened to, or why it is not, in the leader's words.
    pub(crate) async fn console(&self, node: &str) -> Result<String, DemoError> {
        let failed = |source| DemoError::Cluster { doing: "ask about a console", source };
        let answer = self.client.stream(&format!("/v1/nodes/{node}/console")).await.map_err(failed)?;
        let how = answer.headers().get(CONSOLE_HOW).and_then(|how| how.to_str().ok());
        Ok(how.unwrap_or_default().to_owned())
    }

    async fn members_seen(&self) -> Result<Members, DemoError> {
        self.get("ask who the members are", "/v1/members").await
    }

    /// Who leads, as the first member that answers sees it.
    pub(crate) async fn leader(&self) -> Result<Option<MemberId>, DemoError> {
        let seen = self.members_seen().await?;
        Ok(seen.members.iter().find(|member| member.leader).map(|member| member.id))
    }

    /// A client for each member that asks this member only.
    pub(crate) fn clients(&self) -> Result<Vec<Arc<Client>>, DemoError> {
        let home = MemberHome::new(self.dir.join("m1"));
        let open_one = |(id, addresses): (&MemberId, &Seat)| {
            let context = Context {
                endpoints: vec![format!("https://{}", addresses.api)],
                ca: home.ca_cert(),
                cert: Some(home.admin_cert()),
                key: Some(home.admin_key()),
                token_file: None,
            };
            let path = self.dir.join(format!("only-{id}.toml"));
            let text = toml::to_string(&context)
                .map_err(|error| DemoError::Unexpected(format!("write {}: {error}", path.display())))?;
            std::fs::write(&path, text).map_err(system(format!("write {}", path.display())))?;
            open(&path, PATIENCE_WITH_ONE).map(Arc::new)
        };
        self.seats.iter().map(open_one).collect()
    }

    /// Kills a member as a power failure would.
    pub(crate) async fn kill(&mut self, id: MemberId) -> Result<(), DemoError> {
        match self.members.remove(&id) {
            Some(mut member) => member.kill().await,
            None => Err(DemoError::Unexpected(format!("{id} is to be killed, but does not run"))),
        }
    }

    /// Makes sure that all members still run.
    pub(crate) fn check(&mut self) -> Result<(), DemoError> {
        self.members.values_mut().try_for_each(Process::check)
    }

    /// Gives up the members that have ended, each with how it ended.
    pub(crate) fn bury(&mut self) -> Vec<(MemberId, String)> {
        let mut ended = Vec::new();
        self.members.retain(|id, member| match member.check() {
            Ok(()) => true,
            Err(DemoError::Ended { status, .. }) => {
                ended.push((*id, status));
                false
            }
            Err(error) => {
                ended.push((*id, causes(&error)));
                false
            }
        });
        ended
    }

    /// The process of a member, if it runs.
    pub(crate) fn pid(&self, id: MemberId) -> Option<u32> {
        self.members.get(&id)?.pid()
    }

    /// Each member's log.
    pub(crate) fn logs(&self) -> BTreeMap<MemberId, PathBuf> {
        self.seats.keys().map(|id| (*id, self.log(*id))).collect()
    }

    fn log(&self, id: MemberId) -> PathBuf {
        self.dir.join(format!("{id}.log"))
    }

    /// The log of a member's newest life: each has its own, so that a later one does not hide why an earlier one ended.
    pub(crate) fn newest_log(&self, id: MemberId) -> PathBuf {
        self.log_of(id, self.lives.get(&id).copied().unwrap_or(1))
    }

    fn log_of(&self, id: MemberId, life: u32) -> PathBuf {
        match life {
            0 | 1 => self.log(id),
            life => self.dir.join(format!("{id}-{life}.log")),
        }
    }

    /// The logs of all members in all their lives.
    pub(crate) fn all_logs(&self) -> Vec<PathBuf> {
        let of = |(id, lives): (&MemberId, &u32)| {
            let (id, lives) = (*id, *lives);
            (1..=lives).map(move |life| self.log_of(id, life))
        };
        self.lives.iter().flat_map(of).collect()
    }

    /// Where the members hear heartbeats.
    pub(crate) fn heartbeat_addresses(&self) -> Vec<String> {
        self.seats.values().map(|addresses| addresses.heartbeat.to_string()).collect()
    }

    /// The file that tells `hactl` where the cluster is.
    pub(crate) fn context(&self) -> &Path {
        &self.context
    }

    /// Its processes, to be ended.
    pub(crate) fn into_processes(self) -> impl Iterator<Item = Process> {
        self.members.into_values()
    }
}

/// `init` for the first member, `invite` and `join` for the others.
async fn make_directories(
    supervisord: &Path,
    dir: &Path,
    addresses: &BTreeMap<MemberId, Seat>,
) -> Result<(), DemoError> {
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let first = text(dir.join("m1"));
    for (id, addresses) in addresses {
        let (own, number) = (text(dir.join(id.to_string())), id.0.to_string());
        let flags = addresses.flags();
        let flags = flags.iter().map(String::as_str);
        if id.0 == 1 {
            let init = ["init", "--dir", &own, "--id", &number, "--cluster", "demo"];
            answer(supervisord, init.into_iter().chain(flags), &[]).await?;
        } else {
            let bundle = text(dir.join(format!("{id}.bundle")));
            let invite = ["invite", "--dir", &first, "--id", &number, "--out", &bundle];
            answer(supervisord, invite.into_iter().chain(flags), &[]).await?;
            answer(supervisord, ["join", "--dir", &own, "--bundle", &bundle], &[]).await?;
            // It holds keys, and it was used.
            std::fs::remove_file(&bundle).map_err(system(format!("remove {bundle}")))?;
        }
    }
    Ok(())
}

fn open(context: &Path, patience: Duration) -> Result<Client, DemoError> {
    let doing = "prepare to speak to the cluster";
    Client::open(context, patience).map_err(|source: ClientError| DemoError::Cluster { doing, source })
}
