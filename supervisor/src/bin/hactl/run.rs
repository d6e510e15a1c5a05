//! Carries out one verb: a request, an answer, a screen.

use crate::args::{
    AsTenant, Cli, DebugVerb, FailoverVerb, InstanceVerb, MemberVerb, NodeDelete, NodeRelease, NodeVerb,
    OnOff, PowerVerb, Verb, Watch,
};
use crate::console;
use crate::feed::Feed;
use crate::output::{Printer, Reader};
use ::openstack::CallError;
use policies::{Coverage, Documents, LogIndex, Loss, MemberId, NodeState};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use supervisor::api::answers::{
    Committed, Described, Events, FailoverDetail, FailoverLine, InstanceDetail, InstanceLine, Members,
    NodeDetail, NodeLine, NodePower, Status,
};
use supervisor::api::explain::Explanation;
use supervisor::api::{Applying, Code, Draining, Limited, NewMember, Powering, Reason, Switch, Transfer};
use supervisor::client::{Client, ClientError};
use supervisor::clouds_yaml::Places;
use supervisor::context::{ContextDetail, ContextFile};
use supervisor::render::{self, Screen};
use supervisor::{clock, document, files};

/// Pause before a new member is asked again whether it has caught up.
const CAUGHT_UP_AGAIN: Duration = Duration::from_millis(200);

/// Why a verb was not carried out.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line or a file given to it is wrong.
    Usage(String),
    /// This machine refused.
    Local(String),
    /// The cluster refused or is not there.
    Cluster(ClientError),
    /// Any of these, of a verb whose exit code 1 is an answer.
    NoAnswer(Box<Failure>),
    /// What was ordered will not be done, at least not without a human.
    Ended(String),
    /// What was ordered was not done in time, and may still be.
    TimeOver {
        /// How long it was waited for.
        limit: Duration,
        /// What was seen last; empty if nothing was.
        last: String,
    },
}

impl Failure {
    pub(crate) fn local(doing: &str, error: &dyn std::error::Error) -> Self {
        Failure::Local(format!("{doing}: {error}"))
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Ended(_) => 1,
            Failure::TimeOver { .. } => 5,
            Failure::Usage(_) => 2,
            Failure::Local(_) => 3,
            Failure::NoAnswer(_) => 255,
            Failure::Cluster(error) => match error {
                ClientError::Context(_)
                | ClientError::File(_)
                | ClientError::Document(_)
                | ClientError::Clouds(_)
                | ClientError::Keystone(CallError::Unusable { .. })
                | ClientError::Tls(_) => 2,
                ClientError::Keystone(CallError::Refused { .. }) => 6,
                ClientError::Keystone(
                    CallError::Unreachable { .. }
                    | CallError::NotPermitted { .. }
                    | CallError::Locked { .. }
                    | CallError::Unclear { .. }
                    | CallError::NoAnswer { .. },
                )
                | ClientError::Unreachable(_)
                | ClientError::BadAnswer { .. } => 3,
                ClientError::Refused(problem) => match problem.code {
                    Code::Rejected | Code::BreaksCoverage | Code::NotThere => 1,
                    Code::BadRequest | Code::TooLarge => 2,
                    Code::Broken => 3,
                    Code::NoQuorum | Code::NotYet => 4,
                    Code::OutcomeUnknown => 5,
                    Code::NotAuthenticated | Code::NotAllowed => 6,
                },
            },
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NoAnswer(failure) => failure.fmt(f),
            Failure::Usage(why) | Failure::Local(why) | Failure::Ended(why) => write!(f, "hactl: {why}"),
            Failure::TimeOver { limit, last } => {
                write!(f, "hactl: not done after {limit:?}, and it may go on")?;
                if last.is_empty() { Ok(()) } else { write!(f, "; what was seen last: {last}") }
            }
            Failure::Cluster(ClientError::Refused(problem)) => {
                write!(f, "hactl: {}\n  {}", problem.error, problem.hint)
            }
            Failure::Cluster(error) => {
                write!(f, "hactl: {error}")?;
                let mut source = std::error::Error::source(error);
                while let Some(error) = source {
                    write!(f, ": {error}")?;
                    source = error.source();
                }
                Ok(())
            }
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Failure::Cluster(error)
    }
}

pub(crate) type Done = Result<ExitCode, Failure>;

/// One run of `hactl`.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) printer: Printer,
    context: ContextDetail,
    timeout: Duration,
}

impl Session {
    pub(crate) fn open(cli: &Cli) -> Result<Session, Failure> {
        let file = ContextFile::load(&cli.context)?;
        let cluster = cli.cluster.as_deref();
        let AsTenant { os_cloud, os_provider } = &cli.tenant;
        let client = match (os_cloud, os_provider) {
            (None, None) => Client::open_cluster(&file, cluster, cli.timeout)?,
            // Said here, for of two global arguments one may stand before the verb and one after it.
            (None, Some(_)) => return Err(Failure::Usage("--os-provider needs --os-cloud".to_owned())),
            (Some(cloud), provider) => {
                let entrance = Places::of(|name| std::env::var_os(name)).entrance(cloud);
                let entrance = entrance.map_err(ClientError::Clouds)?;
                Client::open_as_tenant(&file, cluster, entrance, provider.clone(), cli.timeout)?
            }
        };
        let context = file.show(cli.cluster.as_deref())?;
        Ok(Session { client, printer: Printer::new(cli), context, timeout: cli.timeout })
    }

    /// The name of the cluster that is meant, if there are several.
    pub(crate) fn cluster(&self) -> Option<&str> {
        self.context.name.as_deref()
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) async fn carry_out(&self, verb: Verb) -> Done {
        match verb {
            Verb::Status(watch) => self.status(watch).await,
            Verb::Watch => self.watch_all().await,
            Verb::Apply { file, force } => self.apply(&file, force.force).await,
            Verb::Node(verb) => self.node(verb).await,
            Verb::Instance(verb) => self.instance(verb).await,
            Verb::Spare(verb) => self.spare(verb).await,
            Verb::Provider(verb) => self.provider(verb).await,
            Verb::Openstack(verb) => self.openstack(verb).await,
            Verb::Failover(verb) => self.failover(verb).await,
            Verb::Explain { name, watch } => {
                let path = match name.split_once('/') {
                    Some((kind, name)) => format!("/v1/explain/{}/{}", segment(kind), segment(name)),
                    None => format!("/v1/explain/{}", segment(&name)),
                };
                let screen = render::explanation as fn(&Explanation, &Screen) -> String;
                self.show_or_watch(watch, &path, screen).await
            }
            Verb::Coverage { losing } => self.coverage(losing.as_deref()).await,
            Verb::Fence { node, reason, yes, wait } => {
                self.confirm_node(&node, yes, "This cuts it off from power, volumes and network").await?;
                let path = format!("/v1/nodes/{}/fence", segment(&node));
                let order = self.commit(&path, &Reason { reason }).await?;
                self.wait_for_fence(wait.wait, order, &node).await
            }
            Verb::ConfirmOff { node, reason, yes } => {
                let warning = "If it is not off, two machines will write to one volume";
                self.confirm_node(&node, yes, warning).await?;
                self.order(&format!("/v1/nodes/{}/confirm-off", segment(&node)), &Reason { reason }).await
            }
            Verb::Arm { reason } => self.order("/v1/arm", &Reason { reason }).await,
            Verb::Disarm { reason, until } => self.order("/v1/disarm", &Limited { reason, until }).await,
            Verb::Member(verb) => self.member(verb).await,
            Verb::Policy(verb) => self.policy(verb).await,
            Verb::Events { follow, about, since, limit } => self.events(follow, about, since, limit).await,
            Verb::Debug(DebugVerb::Bundle(bundling)) => self.bundle(&self.context, bundling).await,
            Verb::Context(_) | Verb::Completion { .. } | Verb::Man { .. } => Ok(ExitCode::SUCCESS),
        }
    }

    /// Without a quorum any member's own memory is better than nothing, and the screen says what it is.
    pub(crate) async fn read_status(&self) -> Result<Status, ClientError> {
        match self.client.get("/v1/status").await {
            Err(ClientError::Refused(problem)) if problem.code == Code::NoQuorum => {
                self.client.get("/v1/status?local=true").await
            }
            answer => answer,
        }
    }

    async fn status(&self, watch: Watch) -> Done {
        if watch.watch {
            return self.watch(async || self.read_status().await, render::status).await;
        }
        let status = self.read_status().await?;
        let code = match (status.local, status.attention.is_empty()) {
            (true, _) => ExitCode::from(4),
            (false, true) => ExitCode::SUCCESS,
            (false, false) => ExitCode::FAILURE,
        };
        self.print(&status, |status| render::status(status, &self.printer.screen()))?;
        Ok(code)
    }

    async fn apply(&self, file: &Path, force: bool) -> Done {
        let (name, text) = read_input(file)?;
        let documents: Documents =
            document::read(&name, &text).map_err(|error| Failure::Usage(error.to_string()))?;
        let described: Described =
            self.order_gated(Method::POST, "/v1/apply", &Applying { documents }, force).await?;
        self.print(&described, |described| render::described(described, &self.printer.screen()))
    }

    async fn node(&self, verb: NodeVerb) -> Done {
        let path = |name: &str, verb: &str| format!("/v1/nodes/{}/{verb}", segment(name));
        match verb {
            NodeVerb::List(watch) => {
                let screen = |list: &Vec<NodeLine>, screen: &Screen| render::nodes(list, screen);
                self.show_or_watch(watch, "/v1/nodes", screen).await
            }
            NodeVerb::Show { name, watch } => {
                let path = format!("/v1/nodes/{}", segment(&name));
                self.show_or_watch(watch, &path, render::node as fn(&NodeDetail, &Screen) -> String).await
            }
            NodeVerb::Cordon { name, force } => {
                let switch = Switch { on: true, reason: None, until: None };
                self.switch(&path(&name, "cordon"), &switch, force.force).await
            }
            NodeVerb::Uncordon { name } => {
                self.order(&path(&name, "cordon"), &Switch { on: false, reason: None, until: None }).await
            }
            NodeVerb::Maintenance { switch, name, reason, until, force } => {
                let on = match switch {
                    OnOff::On => true,
                    OnOff::Off => false,
                };
                self.switch(&path(&name, "maintenance"), &Switch { on, reason, until }, force.force).await
            }
            NodeVerb::Drain { name, reason, shutdown, yes, force, wait } => {
                self.confirm_node(&name, yes, "Its system is shut down, then it is fenced").await?;
                let node: NodeDetail = self.client.get(&format!("/v1/nodes/{}", segment(&name))).await?;
                let (path, draining) = (path(&name, "drain"), Draining { reason, shutdown });
                let committed: Committed =
                    self.order_gated(Method::POST, &path, &draining, force.force).await?;
                self.print(&committed, render::committed)?;
                match node.record.state {
                    NodeState::Active { instance } => {
                        self.wait_for_evacuation(wait.wait, committed.index, instance.as_str()).await
                    }
                    // It carries nothing that could move.
                    NodeState::Spare
                    | NodeState::Reserved { .. }
                    | NodeState::Fencing { .. }
                    | NodeState::Quarantined { .. }
                    | NodeState::Cleaning { .. } => Ok(ExitCode::SUCCESS),
                }
            }
            NodeVerb::Delete(delete) => self.delete_node(delete).await,
            NodeVerb::Release(release) => self.release(release).await,
            NodeVerb::Console(console) => console::attach(&self.client, &console).await,
            NodeVerb::Power(verb) => self.power(verb).await,
            NodeVerb::Nmi { name, reason, yes, wait } => {
                let warning = "Its kernel dies; an instance on it fails over";
                self.confirm_node(&name, yes, warning).await?;
                let order = self.commit(&path(&name, "nmi"), &Reason { reason }).await?;
                self.wait_for_hand(wait.wait, order, &name).await
            }
        }
    }

    async fn power(&self, verb: PowerVerb) -> Done {
        let path = |name: &str| format!("/v1/nodes/{}/power", segment(name));
        let (name, powering, wait) = match verb {
            PowerVerb::Status { name } => {
                let power: NodePower = self.client.get(&path(&name)).await?;
                self.print(&power, |power| render::power(power, &self.printer.screen()))?;
                let is_read = power.levels.iter().any(|level| level.power.is_some());
                return Ok(if is_read { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            PowerVerb::On { name, reason, wait } => (name, Powering { on: true, reason }, wait),
            PowerVerb::Off { name, reason, yes, wait } => {
                self.confirm_node(&name, yes, "It is switched off at once, whatever it does").await?;
                (name, Powering { on: false, reason }, wait)
            }
        };
        let order = self.commit(&path(&name), &powering).await?;
        self.wait_for_hand(wait.wait, order, &name).await
    }

    async fn switch(&self, path: &str, switch: &Switch, force: bool) -> Done {
        let committed: Committed = self.order_gated(Method::POST, path, switch, force).await?;
        self.print(&committed, render::committed)
    }

    pub(crate) async fn release(&self, NodeRelease { name, reason, wait }: NodeRelease) -> Done {
        self.commit(&format!("/v1/nodes/{}/release", segment(&name)), &Reason { reason }).await?;
        self.wait_for_release(wait.wait, &name).await
    }

    pub(crate) async fn delete_node(&self, delete: NodeDelete) -> Done {
        let NodeDelete { name, reason, yes, force } = delete;
        self.confirm_node(&name, yes, "It will not be watched, fenced or counted on any more").await?;
        let path = format!("/v1/nodes/{}", segment(&name));
        let committed: Committed =
            self.order_gated(Method::DELETE, &path, &Reason { reason }, force.force).await?;
        self.print(&committed, render::committed)
    }

    async fn instance(&self, verb: InstanceVerb) -> Done {
        match verb {
            InstanceVerb::List(watch) => {
                let screen = |list: &Vec<InstanceLine>, screen: &Screen| render::instances(list, screen);
                self.show_or_watch(watch, "/v1/instances", screen).await
            }
            InstanceVerb::Show { name, watch } => {
                let path = format!("/v1/instances/{}", segment(&name));
                let screen = render::instance as fn(&InstanceDetail, &Screen) -> String;
                self.show_or_watch(watch, &path, screen).await
            }
            InstanceVerb::Evacuate { name, reason, yes, wait } => {
                self.confirm_node_of(&name, yes, "Its node is fenced first").await?;
                let path = format!("/v1/instances/{}/evacuate", segment(&name));
                let order = self.commit(&path, &Reason { reason }).await?;
                self.wait_for_evacuation(wait.wait, order, &name).await
            }
            InstanceVerb::Backup { name, reason, wait } => {
                let path = format!("/v1/instances/{}/backup", segment(&name));
                let order = self.commit(&path, &Reason { reason }).await?;
                self.wait_for_backup(wait.wait, order, &name).await
            }
            InstanceVerb::Delete { name, reason, yes, force } => {
                self.confirm_name(&name, yes, "Nothing will protect it any more")?;
                let path = format!("/v1/instances/{}", segment(&name));
                let committed: Committed =
                    self.order_gated(Method::DELETE, &path, &Reason { reason }, force.force).await?;
                self.print(&committed, render::committed)
            }
        }
    }

    async fn coverage(&self, losing: Option<&str>) -> Done {
        let coverage: Coverage = self.client.get("/v1/coverage").await?;
        let covered = match losing {
            None => {
                self.printer
                    .print(&coverage, |coverage| render::coverage(coverage, &self.printer.screen()))?;
                coverage.uncovered().next().is_none() && coverage.losses.values().all(Loss::is_covered)
            }
            Some(domain) => {
                let Some(loss) = coverage.losses.get(domain) else {
                    let known: Vec<&str> = coverage.losses.keys().map(String::as_str).collect();
                    let meant = document::nearest(domain, known.iter().copied());
                    let hint = meant.map_or_else(String::new, |meant| format!("; did you mean {meant:?}?"));
                    return Err(Failure::Usage(format!(
                        "no instance runs in the failure domain {domain:?}{hint}"
                    )));
                };
                self.printer.print(loss, |loss| render::losing(domain, loss, &self.printer.screen()))?;
                loss.is_covered()
            }
        };
        Ok(if covered { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }

    async fn failover(&self, verb: FailoverVerb) -> Done {
        match verb {
            FailoverVerb::List(watch) => {
                let screen = |list: &Vec<FailoverLine>, screen: &Screen| render::failovers(list, screen);
                self.show_or_watch(watch, "/v1/failovers", screen).await
            }
            FailoverVerb::Show { id, watch } => {
                let path = format!("/v1/failovers/{}", segment(&id));
                let screen = render::failover as fn(&FailoverDetail, &Screen) -> String;
                self.show_or_watch(watch, &path, screen).await
            }
            FailoverVerb::Approve { instance, reason, wait } => {
                let path = format!("/v1/instances/{}/approve", segment(&instance));
                let order = self.commit(&path, &Reason { reason }).await?;
                self.wait_for_approval(wait.wait, order, &instance).await
            }
            FailoverVerb::Cancel { id, reason } => {
                self.order(&format!("/v1/failovers/{}/cancel", segment(&id)), &Reason { reason }).await
            }
        }
    }

    async fn member(&self, verb: MemberVerb) -> Done {
        match verb {
            MemberVerb::List(watch) => {
                let screen = render::members as fn(&Members, &Screen) -> String;
                self.show_or_watch(watch, "/v1/members", screen).await
            }
            MemberVerb::Add { id, addrs, learner, wait } => {
                let (member_addr, api_addr) = (addrs.member_addr, addrs.api_addr);
                let new = NewMember { id: MemberId(id), member_addr, api_addr };
                self.add_member(&new, learner, wait.wait).await
            }
            MemberVerb::Remove { id, wait } => {
                let path = format!("/v1/members/{id}");
                let committed: Committed = self.client.order(Method::DELETE, &path, &()).await?;
                self.print(&committed, render::committed)?;
                self.wait_for_removal(wait.wait, MemberId(id)).await
            }
            MemberVerb::Transfer { id, wait } => {
                let transfer = Transfer { to: MemberId(id) };
                self.client.order_quietly(Method::POST, "/v1/leader", &transfer).await?;
                self.wait_for_transfer(wait.wait, transfer.to).await?;
                self.print(&transfer, |transfer| format!("member {} leads\n", transfer.to.0))
            }
        }
    }

    async fn add_member(&self, new: &NewMember, learner: bool, wait: Option<Duration>) -> Done {
        let began = Instant::now();
        let mut committed: Committed = self.client.order(Method::POST, "/v1/members", new).await?;
        let left = |limit: Duration| limit.saturating_sub(began.elapsed());
        // As a learner first, for until then it cannot vote, and here it is told what it still lacks.
        if let Err(failure) = self.wait_for_member(wait, new.id, true).await {
            // It was added all the same.
            self.print(&committed, render::committed)?;
            return Err(failure);
        }
        if !learner {
            let promoted = self.promote(new.id, left(wait.unwrap_or(self.timeout))).await?;
            committed.index = promoted.index;
            committed.events.extend(promoted.events);
        }
        self.print(&committed, render::committed)?;
        self.wait_for_member(wait.filter(|_| !learner).map(left), new.id, false).await
    }

    /// Asks until the new member has caught up; the client itself asks again while the answer is "not yet".
    async fn promote(&self, id: MemberId, limit: Duration) -> Result<Committed, Failure> {
        let began = Instant::now();
        loop {
            let path = format!("/v1/members/{}/promote", id.0);
            match self.client.order::<Committed>(Method::POST, &path, &()).await {
                Err(ClientError::Refused(problem))
                    if problem.code == Code::NotYet && began.elapsed() < limit =>
                {
                    tokio::time::sleep(CAUGHT_UP_AGAIN).await;
                }
                answer => return Ok(answer?),
            }
        }
    }

    async fn events(
        &self,
        follow: bool,
        about: Option<String>,
        since: Option<Duration>,
        limit: usize,
    ) -> Done {
        let mut query = format!("limit={limit}");
        if let Some(about) = about {
            query.push_str(&format!("&about={}", segment(&about)));
        }
        if let Some(since) = since {
            let since = clock::wall().0.saturating_sub(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
            query.push_str(&format!("&since={since}"));
        }
        if follow {
            return self.follow(query).await;
        }
        let events: Events = self.client.get(&format!("/v1/events?{query}")).await?;
        let screen = self.printer.screen();
        let lines =
            |events: &Events| events.events.iter().map(|event| render::event(event, &screen)).collect();
        self.print(&events, lines)
    }

    /// Prints events as they happen; when a member goes away, goes on at another one after the last event seen.
    async fn follow(&self, query: String) -> Done {
        let mut feed = Feed::new(&self.client, query);
        while self.printer.print_event(&feed.next().await?)? == Reader::There {}
        Ok(ExitCode::SUCCESS)
    }

    pub(crate) async fn show<A: DeserializeOwned + Serialize>(
        &self,
        path: &str,
        screen: impl Fn(&A, &Screen) -> String,
    ) -> Done {
        let answer: A = self.client.get(path).await?;
        self.print(&answer, |answer| screen(answer, &self.printer.screen()))
    }

    async fn order(&self, path: &str, body: &impl Serialize) -> Done {
        self.commit(path, body).await.map(|_| ExitCode::SUCCESS)
    }

    /// Orders, prints what that did, and says where in the log it is.
    async fn commit(&self, path: &str, body: &impl Serialize) -> Result<LogIndex, Failure> {
        let committed: Committed = self.client.order(Method::POST, path, body).await?;
        self.print(&committed, render::committed)?;
        Ok(committed.index)
    }

    pub(crate) fn print<A: Serialize>(&self, answer: &A, screen: impl Fn(&A) -> String) -> Done {
        self.printer.print(answer, screen)
    }
}

/// A file, or standard input for `-`.
pub(crate) fn read_input(file: &Path) -> Result<(String, String), Failure> {
    if file != Path::new("-") {
        let text =
            files::read_text(file).map_err(|error| Failure::Usage(format!("{error}: {}", cause(&error))))?;
        return Ok((file.display().to_string(), text));
    }
    let mut text = String::new();
    let read = std::io::stdin().lock().take(files::FILE_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| Failure::local("read standard input", &error))?;
    Ok(("standard input".to_owned(), text))
}

fn cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| "it cannot be used".to_owned(), ToString::to_string)
}

/// One segment of a path (RFC 3986 §3.3): whatever is typed as a name, it stays one.
pub(crate) fn segment(name: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let code = |byte: u8| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    name.bytes().map(code).collect()
}
