//! Carries out one verb: a request, an answer, a screen.

use crate::args::{Cli, FailoverVerb, InstanceVerb, MemberVerb, NodeVerb, OnOff, Output, Verb};
use jiff::tz::TimeZone;
use policies::{Documents, Event, LogIndex, MemberId, Wall};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::io::{BufRead, IsTerminal, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use supervisor::api::answers::{
    Committed, Described, Events, FailoverDetail, FailoverLine, InstanceDetail, InstanceLine, Members,
    NodeDetail, NodeLine, Status,
};
use supervisor::api::explain::Explanation;
use supervisor::api::{Applying, Code, NewMember, Reason, Switch, Transfer};
use supervisor::client::{Client, ClientError};
use supervisor::render::{self, Screen};
use supervisor::{clock, document, files};

/// Pause before a new member is asked again whether it has caught up.
const CAUGHT_UP_AGAIN: Duration = Duration::from_millis(200);
/// Pause before a broken stream of events is opened again.
const FOLLOW_AGAIN: Duration = Duration::from_millis(500);

/// Why a verb was not carried out.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line or a file given to it is wrong.
    Usage(String),
    /// This machine refused.
    Local(String),
    /// The cluster refused or is not there.
    Cluster(ClientError),
}

impl Failure {
    pub(crate) fn local(doing: &str, error: &dyn std::error::Error) -> Self {
        Failure::Local(format!("{doing}: {error}"))
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Usage(_) => 2,
            Failure::Local(_) => 3,
            Failure::Cluster(error) => match error {
                ClientError::Context(_)
                | ClientError::File(_)
                | ClientError::Document(_)
                | ClientError::Tls(_) => 2,
                ClientError::Unreachable(_) | ClientError::BadAnswer { .. } => 3,
                ClientError::Refused(problem) => match problem.code {
                    Code::Rejected | Code::NotThere => 1,
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
            Failure::Usage(why) | Failure::Local(why) => write!(f, "hactl: {why}"),
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
    output: Output,
    screen: Screen,
    timeout: Duration,
}

impl Session {
    pub(crate) fn open(cli: &Cli) -> Result<Session, Failure> {
        let client = Client::open(&cli.context, cli.timeout)?;
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let screen = Screen { now: clock::wall(), zone: TimeZone::system(), colour };
        Ok(Session { client, output: cli.output, screen, timeout: cli.timeout })
    }

    pub(crate) fn now(&self) -> Wall {
        self.screen.now
    }

    pub(crate) fn screen(&self) -> &Screen {
        &self.screen
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) async fn carry_out(&self, verb: Verb) -> Done {
        match verb {
            Verb::Status => self.status().await,
            Verb::Apply { file } => self.apply(&file).await,
            Verb::Node(verb) => self.node(verb).await,
            Verb::Instance(verb) => self.instance(verb).await,
            Verb::Failover(verb) => self.failover(verb).await,
            Verb::Explain { name } => {
                let path = match name.split_once('/') {
                    Some((kind, name)) => format!("/v1/explain/{}/{}", segment(kind), segment(name)),
                    None => format!("/v1/explain/{}", segment(&name)),
                };
                self.show(&path, render::explanation as fn(&Explanation, &Screen) -> String).await
            }
            Verb::Fence { node, reason, yes } => {
                confirm(&node, yes, "This cuts it off from power, volumes and network")?;
                self.order(&format!("/v1/nodes/{}/fence", segment(&node)), &Reason { reason }).await
            }
            Verb::ConfirmOff { node, reason, yes } => {
                confirm(&node, yes, "If it is not off, two machines will write to one volume")?;
                self.order(&format!("/v1/nodes/{}/confirm-off", segment(&node)), &Reason { reason }).await
            }
            Verb::Arm { reason } => self.order("/v1/arm", &Reason { reason }).await,
            Verb::Disarm { reason } => self.order("/v1/disarm", &Reason { reason }).await,
            Verb::Member(verb) => self.member(verb).await,
            Verb::Policy(verb) => self.policy(verb).await,
            Verb::Events { follow, about, since, limit } => self.events(follow, about, since, limit).await,
            Verb::Completion { .. } | Verb::Man { .. } => Ok(ExitCode::SUCCESS),
        }
    }

    /// Without a quorum any member's own memory is better than nothing, and the screen says what it is.
    async fn status(&self) -> Done {
        let status: Status = match self.client.get("/v1/status").await {
            Err(ClientError::Refused(problem)) if problem.code == Code::NoQuorum => {
                self.client.get("/v1/status?local=true").await?
            }
            answer => answer?,
        };
        let code = match (status.local, status.attention.is_empty()) {
            (true, _) => ExitCode::from(4),
            (false, true) => ExitCode::SUCCESS,
            (false, false) => ExitCode::FAILURE,
        };
        self.print(&status, |status| render::status(status, &self.screen))?;
        Ok(code)
    }

    async fn apply(&self, file: &Path) -> Done {
        let (name, text) = read_input(file)?;
        let documents: Documents =
            document::read(&name, &text).map_err(|error| Failure::Usage(error.to_string()))?;
        let described: Described =
            self.client.order(Method::POST, "/v1/apply", &Applying { documents }).await?;
        self.print(&described, |described| render::described(described, &self.screen))
    }

    async fn node(&self, verb: NodeVerb) -> Done {
        let path = |name: &str, verb: &str| format!("/v1/nodes/{}/{verb}", segment(name));
        match verb {
            NodeVerb::List => {
                self.show("/v1/nodes", |nodes: &Vec<NodeLine>, screen: &Screen| render::nodes(nodes, screen))
                    .await
            }
            NodeVerb::Show { name } => {
                let path = format!("/v1/nodes/{}", segment(&name));
                self.show(&path, render::node as fn(&NodeDetail, &Screen) -> String).await
            }
            NodeVerb::Cordon { name } => {
                self.order(&path(&name, "cordon"), &Switch { on: true, reason: None }).await
            }
            NodeVerb::Uncordon { name } => {
                self.order(&path(&name, "cordon"), &Switch { on: false, reason: None }).await
            }
            NodeVerb::Maintenance { switch, name, reason } => {
                let on = match switch {
                    OnOff::On => true,
                    OnOff::Off => false,
                };
                self.order(&path(&name, "maintenance"), &Switch { on, reason }).await
            }
            NodeVerb::Release { name, reason } => {
                self.order(&path(&name, "release"), &Reason { reason }).await
            }
        }
    }

    async fn instance(&self, verb: InstanceVerb) -> Done {
        match verb {
            InstanceVerb::List => {
                let screen = |list: &Vec<InstanceLine>, screen: &Screen| render::instances(list, screen);
                self.show("/v1/instances", screen).await
            }
            InstanceVerb::Show { name } => {
                let path = format!("/v1/instances/{}", segment(&name));
                self.show(&path, render::instance as fn(&InstanceDetail, &Screen) -> String).await
            }
            InstanceVerb::Evacuate { name, reason, yes } => {
                confirm(&name, yes, "Its node is fenced first")?;
                self.order(&format!("/v1/instances/{}/evacuate", segment(&name)), &Reason { reason }).await
            }
        }
    }

    async fn failover(&self, verb: FailoverVerb) -> Done {
        match verb {
            FailoverVerb::List => {
                let screen = |list: &Vec<FailoverLine>, screen: &Screen| render::failovers(list, screen);
                self.show("/v1/failovers", screen).await
            }
            FailoverVerb::Show { id } => {
                let path = format!("/v1/failovers/{}", segment(&id));
                self.show(&path, render::failover as fn(&FailoverDetail, &Screen) -> String).await
            }
            FailoverVerb::Cancel { id, reason } => {
                self.order(&format!("/v1/failovers/{}/cancel", segment(&id)), &Reason { reason }).await
            }
        }
    }

    async fn member(&self, verb: MemberVerb) -> Done {
        match verb {
            MemberVerb::List => {
                self.show("/v1/members", render::members as fn(&Members, &Screen) -> String).await
            }
            MemberVerb::Add { id, addrs, learner } => {
                let (member_addr, api_addr) = (addrs.member_addr, addrs.api_addr);
                let new = NewMember { id: MemberId(id), member_addr, api_addr };
                let mut committed: Committed = self.client.order(Method::POST, "/v1/members", &new).await?;
                if !learner {
                    let promoted = self.promote(id).await?;
                    committed.index = promoted.index;
                    committed.events.extend(promoted.events);
                }
                self.print(&committed, render::committed)
            }
            MemberVerb::Remove { id } => {
                let path = format!("/v1/members/{id}");
                let committed: Committed = self.client.order(Method::DELETE, &path, &()).await?;
                self.print(&committed, render::committed)
            }
            MemberVerb::Transfer { id } => {
                let transfer = Transfer { to: MemberId(id) };
                self.client.order_quietly(Method::POST, "/v1/leader", &transfer).await?;
                self.print(&transfer, |transfer| format!("member {} leads\n", transfer.to.0))
            }
        }
    }

    /// Asks until the new member has caught up; the client itself asks again while the answer is "not yet".
    async fn promote(&self, id: u64) -> Result<Committed, Failure> {
        let began = Instant::now();
        loop {
            let path = format!("/v1/members/{id}/promote");
            match self.client.order::<Committed>(Method::POST, &path, &()).await {
                Err(ClientError::Refused(problem))
                    if problem.code == Code::NotYet && began.elapsed() < self.timeout =>
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
            let since =
                self.screen.now.0.saturating_sub(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
            query.push_str(&format!("&since={since}"));
        }
        if follow {
            return self.follow(&query).await;
        }
        let events: Events = self.client.get(&format!("/v1/events?{query}")).await?;
        let lines =
            |events: &Events| events.events.iter().map(|event| render::event(event, &self.screen)).collect();
        self.print(&events, lines)
    }

    /// Prints events as they happen; when a member goes away, goes on at another one after the last event seen.
    async fn follow(&self, query: &str) -> Done {
        let mut after: Option<LogIndex> = None;
        loop {
            let resume = after.map(|index| format!("&after={}", index.0)).unwrap_or_default();
            let mut stream = self.client.stream(&format!("/v1/events/follow?{query}{resume}")).await?;
            let mut buffer = vec![];
            // A broken stream is opened again; only not finding any member is an error.
            while let Ok(Some(chunk)) = stream.chunk().await {
                buffer.extend_from_slice(&chunk);
                while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = buffer.drain(..=end).collect();
                    let event: Event = serde_json::from_slice(&line)
                        .map_err(|error| Failure::local("read an event", &error))?;
                    after = Some(event.index);
                    self.print_line(&event)?;
                }
            }
            tokio::time::sleep(FOLLOW_AGAIN).await;
        }
    }

    pub(crate) async fn show<A: DeserializeOwned + Serialize>(
        &self,
        path: &str,
        screen: impl Fn(&A, &Screen) -> String,
    ) -> Done {
        let answer: A = self.client.get(path).await?;
        self.print(&answer, |answer| screen(answer, &self.screen))
    }

    async fn order(&self, path: &str, body: &impl Serialize) -> Done {
        let committed: Committed = self.client.order(Method::POST, path, body).await?;
        self.print(&committed, render::committed)
    }

    pub(crate) fn print<A: Serialize>(&self, answer: &A, screen: impl Fn(&A) -> String) -> Done {
        let text = match self.output {
            Output::Table => screen(answer),
            Output::Json => {
                let json = serde_json::to_string_pretty(answer);
                json.map_err(|error| Failure::local("write JSON", &error))? + "\n"
            }
            Output::Yaml => {
                serde_saphyr::to_string(answer).map_err(|error| Failure::local("write YAML", &error))?
            }
        };
        say(&text)
    }

    /// One event: a line for people, a line of JSON, a YAML document.
    fn print_line(&self, event: &Event) -> Done {
        let text = match self.output {
            Output::Table => render::event(event, &self.screen),
            Output::Json => {
                serde_json::to_string(event).map_err(|error| Failure::local("write JSON", &error))? + "\n"
            }
            Output::Yaml => {
                let yaml = serde_saphyr::to_string(event);
                format!("---\n{}", yaml.map_err(|error| Failure::local("write YAML", &error))?)
            }
        };
        say(&text)
    }
}

/// That the reader has gone (`| head`) is no error.
pub(crate) fn say(text: &str) -> Done {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(Failure::local("write to standard output", &error)),
    }
}

/// What a dangerous verb is about must be typed once more: a wrong line of the shell's history must not fence a node.
fn confirm(name: &str, yes: Option<String>, warning: &str) -> Result<(), Failure> {
    let typed = match yes {
        Some(yes) => yes,
        None if std::io::stdin().is_terminal() => {
            let ask = write!(std::io::stderr(), "{name}: {warning}. Type its name to go on: ");
            ask.map_err(|error| Failure::local("ask", &error))?;
            let mut line = String::new();
            let read = std::io::stdin().lock().take(256).read_line(&mut line);
            read.map_err(|error| Failure::local("read the answer", &error))?;
            line.trim().to_owned()
        }
        None => {
            return Err(Failure::Usage(format!("{name}: {warning}; without a terminal say --yes {name}")));
        }
    };
    match typed == name {
        true => Ok(()),
        false => Err(Failure::Usage(format!("{typed:?} is not {name:?}: nothing was done"))),
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
