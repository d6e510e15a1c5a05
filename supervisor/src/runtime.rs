//! The loop that feeds the brain and carries out what it wants. One member, one loop, one closed set of inputs.
//!
//! Why it exists: the engine is a function; someone has to bring it the world and take its wishes to the world. What
//! it never does: decide, or wait inside the loop. Work that takes time runs in a set of tasks that is watched: a
//! panic in one of them ends the process, for half a supervisor is worse than none.

use crate::consoles::Consoles;
use crate::drift::{self, News, Rounds};
use crate::executor::Executor;
use crate::flight::Recorder;
use crate::ingest::{self, Counters, Ears, IngestError};
use crate::metrics::Metrics;
use crate::outside::Outside;
use crate::poll::Poll;
use crate::probe::About;
use crate::seal::{Seal, Secret};
use crate::{clock, probe};
use fencing::{Console, Look};
use ha_agent::key::Key;
use policies::watch::Limits;
use policies::{
    BootId, Command, Engine, Input, LogIndex, MemberId, Millis, NodeId, Output, Proposal, ProviderId,
    Refusal, Report, View,
};
use provisioning::inventory::Census;
use raft_store::{Store, StoreEvent, Tape};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often the brain sees time pass. All deadlines are found late by up to this; a heartbeat interval is 250 ms.
const TICK: Duration = Duration::from_millis(20);
/// How often the view for people is made anew. A pass over all nodes; nobody reads faster.
const VIEW_EVERY: Duration = Duration::from_millis(100);
/// How often it is looked after which consoles are to be listened to. A pass over all nodes.
const LISTEN_EVERY: Duration = Duration::from_secs(1);
/// Findings that wait for the loop. A full queue slows the tasks that wait for devices, never the loop.
const FINDINGS_MAX: usize = 4096;

/// Why a member stopped.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// Its memory is gone: a failed disk, or a dead Raft core. It must not live on half dead.
    #[error("the store failed: {0}")]
    Store(String),
    /// Heartbeats are no longer read; without ears every node would seem dead.
    #[error("the ingest of heartbeats ended")]
    Ingest(#[source] Option<IngestError>),
    /// A task of ours panicked.
    #[error("a task failed")]
    Task(#[source] JoinError),
}

/// What comes back from work beside the loop.
enum Finding {
    /// For the brain.
    Input(Input),
    /// What asking a node's kernel found.
    Asked(NodeId, probe::Answer),
    /// A node without an agent answered.
    Answered(NodeId),
    /// How many objects are other at a cloud than described, or why nobody knows.
    Surveyed(ProviderId, Result<usize, String>),
}

/// What a member is made of.
pub struct Runtime<O> {
    /// Its memory.
    pub store: Store,
    /// What the memory says.
    pub events: mpsc::UnboundedReceiver<StoreEvent>,
    /// Its ears.
    pub ears: Ears,
    /// What its ears count.
    pub heard: Arc<Counters>,
    /// Its hands.
    pub executor: Executor<O>,
    /// What they reach.
    pub outside: Arc<O>,
    /// Opens secrets.
    pub seal: Seal,
    /// Counters.
    pub metrics: Metrics,
    /// Where the view for people goes.
    pub view: watch::Sender<Arc<View>>,
    /// Those who want to know something of the loop.
    pub questions: mpsc::Receiver<Question>,
    /// Who we are.
    pub me: MemberId,
    /// The failure domain we stand in.
    pub domain: String,
    /// Where observations are written down.
    pub tape: Tape,
}

/// What somebody wants to know, and where the answer goes.
pub enum Question {
    /// A copy of the brain, to ask it what it would do.
    Brain(oneshot::Sender<Engine>),
    /// The power of a node, looked at now at each of its fencing levels; nothing comes if there is no such node.
    Power(NodeId, oneshot::Sender<Vec<Result<Look, Refusal>>>),
    /// What a cloud has, asked now and until then; or why it could not be read.
    Census(ProviderId, Instant, oneshot::Sender<Result<Census, String>>),
    /// What the console of a node says; nothing comes if it is not listened to here.
    Console(NodeId, oneshot::Sender<Arc<Console>>),
}

struct Loop<O: Outside> {
    store: Store,
    ears: mpsc::Sender<ingest::Command>,
    poll: Poll,
    executor: Executor<O>,
    outside: Arc<O>,
    seal: Seal,
    metrics: Metrics,
    heard: Arc<Counters>,
    view: watch::Sender<Arc<View>>,
    questions: mpsc::Receiver<Question>,
    me: MemberId,
    engine: Engine,
    results: mpsc::Sender<Finding>,
    tasks: JoinSet<()>,
    voters: Vec<MemberId>,
    viewed: Instant,
    recorder: Recorder,
    consoles: Consoles<O::Power>,
    listened: Instant,
    rounds: Rounds,
    /// Whose kernel could not be asked, and why.
    unasked: BTreeMap<NodeId, String>,
}

impl<O: Outside> Runtime<O> {
    /// Runs the member until `stop` says so.
    ///
    /// # Errors
    /// [`Stopped`] if it cannot go on; the process must then end.
    pub async fn run(self, mut stop: watch::Receiver<bool>) -> Result<(), Stopped> {
        let Runtime { store, mut events, ears, heard, executor, outside, seal, metrics, view, .. } = self;
        let Runtime { questions, me, domain, tape, .. } = self;
        let Ears { commands: ears, mut news, mut listening } = ears;
        let (results, mut findings) = mpsc::channel(FINDINGS_MAX);
        let boot = BootId(rand::random());
        let engine = Engine::new(me, boot, &domain);
        let recorder = Recorder::new(tape, boot, &domain);
        let (poll, tasks, voters) = (Poll::new(clock::mono()), JoinSet::new(), vec![]);
        let viewed = Instant::now();
        let mut body = Loop {
            store,
            ears,
            poll,
            executor,
            outside,
            seal,
            metrics,
            heard,
            view,
            questions,
            me,
            engine,
            results,
            tasks,
            voters,
            viewed,
            recorder,
            consoles: Consoles::default(),
            listened: viewed,
            rounds: Rounds::default(),
            unasked: BTreeMap::new(),
        };
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => body.store_event(event)?,
                    None => return Err(Stopped::Store("it ended".to_owned())),
                },
                Some(batch) = news.recv() => {
                    for (node, change) in batch.changes {
                        tracing::debug!(%node, ?change, "heard");
                        body.feed(Input::Changed { node, change });
                    }
                    for (node, found) in batch.found {
                        body.feed(Input::Found { node, found });
                    }
                }
                ended = &mut listening => {
                    return Err(Stopped::Ingest(ended.map_err(Stopped::Task)?.err()));
                }
                Some(finding) = findings.recv() => body.take(finding),
                Some(ended) = body.tasks.join_next() => ended.map_err(Stopped::Task)?,
                _ = tick.tick() => body.tick(),
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            }
        }
    }
}

impl<O: Outside> Loop<O> {
    fn feed(&mut self, input: Input) {
        let now = clock::now();
        self.recorder.input(now, &input);
        let outputs = self.engine.handle(now, input);
        self.executor.lead(self.engine.leads());
        for output in outputs {
            self.carry_out(output);
        }
    }

    fn take(&mut self, finding: Finding) {
        match finding {
            Finding::Input(input) => self.feed(input),
            Finding::Asked(node, answer) => {
                let answers = answer.answers();
                self.notice(&node, answer);
                self.feed(Input::Asked { node, answers });
            }
            Finding::Surveyed(cloud, seen) => {
                match self.rounds.ended(&cloud, seen, Instant::now()) {
                    Some(News::Drift(text)) => self.note(text),
                    Some(News::Unread(why)) => {
                        tracing::warn!(%cloud, why, "a cloud cannot be compared with what is described");
                    }
                    None => {}
                }
                self.metrics.drift(self.rounds.drifted());
            }
            Finding::Answered(node) => {
                if let Some(change) = self.poll.answered(&node, clock::mono()) {
                    self.feed(Input::Changed { node, change });
                }
            }
        }
    }

    /// Says once why a kernel could not be asked; it is asked each second.
    fn notice(&mut self, node: &NodeId, answer: probe::Answer) {
        match answer {
            probe::Answer::Answers | probe::Answer::Mute => drop(self.unasked.remove(node)),
            probe::Answer::CouldNotAsk(why) => {
                if self.unasked.get(node) != Some(&why) {
                    tracing::warn!(%node, why, "could not ask a kernel; it counts as neither alive nor dead");
                    self.unasked.insert(node.clone(), why);
                }
            }
        }
    }

    /// Asks the nodes without agents, and notices those that stay silent.
    fn poll(&mut self) {
        let now = clock::mono();
        for (node, limit) in self.poll.due(now) {
            let Some(record) = self.engine.state().nodes.get(&node) else { continue };
            let (outside, asked) = (Arc::clone(&self.outside), record.node.probe.clone());
            self.work(async move {
                let answer = outside.ask(&asked, About::Work, 1, limit).await;
                (answer == probe::Answer::Answers).then_some(Finding::Answered(node))
            });
        }
        for (node, change) in self.poll.tick(now) {
            self.feed(Input::Changed { node, change });
        }
    }

    fn tick(&mut self) {
        self.poll();
        let voters = self.store.members().into_iter().filter(|member| member.voter).map(|member| member.id);
        let voters: Vec<MemberId> = voters.collect();
        if voters != self.voters {
            self.voters.clone_from(&voters);
            self.feed(Input::Voters(voters));
        }
        self.feed(Input::Tick);
        while let Ok(question) = self.questions.try_recv() {
            self.answer(question);
        }
        if self.listened.elapsed() >= LISTEN_EVERY {
            self.listened = Instant::now();
            self.listen();
            self.look_at_clouds();
        }
        if self.viewed.elapsed() >= VIEW_EVERY {
            self.viewed = Instant::now();
            self.metrics.heartbeats(self.heard.totals());
            self.metrics.answers(self.heard.answered.totals());
            let now = clock::now();
            self.recorder.look(now, self.engine.state());
            if let Some(tape) = self.recorder.state() {
                self.metrics.flight(tape);
            }
            self.view.send_replace(Arc::new(self.engine.view(now)));
        }
    }

    fn listen(&mut self) {
        let leads = self.engine.leads().is_some();
        self.consoles
            .tend(self.engine.state(), leads, |node| self.outside.power(self.engine.state(), node, 0));
    }

    fn look_at_clouds(&mut self) {
        let (now, leads) = (Instant::now(), self.engine.leads().is_some());
        if !leads {
            self.metrics.drift([]);
        }
        for cloud in self.rounds.due(self.engine.state(), leads, now) {
            let census = self.executor.census(self.engine.state(), &cloud, now + drift::LOOK_MAX);
            let store = self.store.clone();
            self.work(async move {
                let seen = drift::compare(&store, &cloud, census).await;
                Some(Finding::Surveyed(cloud, seen))
            });
        }
    }

    /// Writes something into the history that nothing is decided by.
    fn note(&mut self, text: String) {
        let (store, by) = (self.store.clone(), format!("member/{}", self.me));
        let proposal = Proposal { at: clock::wall(), by, command: Command::Note { text: text.clone() } };
        self.work(async move {
            if let Err(error) = store.propose(proposal).await {
                tracing::warn!(%error, text, "could not be written into the history");
            }
            None
        });
    }

    /// Whoever asked may have gone away.
    fn answer(&mut self, question: Question) {
        match question {
            Question::Brain(answer) => drop(answer.send(self.engine.clone())),
            Question::Console(node, answer) => {
                if let Some(console) = self.consoles.of(&node) {
                    drop(answer.send(console));
                }
            }
            Question::Census(cloud, deadline, answer) => {
                let census = self.executor.census(self.engine.state(), &cloud, deadline);
                self.work(async move {
                    drop(answer.send(census.await));
                    None
                });
            }
            Question::Power(node, answer) => {
                let Some(record) = self.engine.state().nodes.get(&node) else { return };
                let looks = self.executor.looks(self.engine.state(), &record.node);
                self.work(async move {
                    drop(answer.send(looks.await));
                    None
                });
            }
        }
    }

    fn store_event(&mut self, event: StoreEvent) -> Result<(), Stopped> {
        match event {
            StoreEvent::Applied { index, proposal } => {
                self.feed(Input::Applied { index, proposal: (*proposal).clone() });
                self.metrics.applied(&proposal, self.engine.state());
            }
            StoreEvent::Installed(state) => self.feed(Input::Installed(Box::new((*state).clone()))),
            StoreEvent::Leader { term_leader: leader, me: _ } => {
                tracing::info!(?leader, "leadership changed");
                self.feed(Input::Leader { leader });
            }
            StoreEvent::Message { from, bytes } => match serde_json::from_slice::<Report>(&bytes) {
                Ok(report) if report.member == from => self.feed(Input::Report(report)),
                Ok(report) => {
                    tracing::warn!(%from, claims = %report.member, "a member reported in another's name");
                }
                Err(error) => tracing::warn!(%from, %error, "read a member's report"),
            },
            StoreEvent::Fatal(why) => return Err(Stopped::Store(why)),
        }
        Ok(())
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Propose { ticket, command } => self.propose(ticket, command),
            Output::Execute { effect, limit } => {
                let job = self.executor.prepare(self.engine.state(), effect.clone(), limit);
                let metrics = self.metrics.clone();
                self.work(async move {
                    let began = clock::mono();
                    let outcome = Executor::carry_out(job).await;
                    metrics.effect(&effect.action, &outcome, clock::mono().since(began));
                    Some(Finding::Input(Input::Ended { token: effect.token, outcome }))
                });
            }
            Output::Ask { node, silent, count, interval } => {
                let Some(record) = self.engine.state().nodes.get(&node) else { return };
                let interval = Duration::from_millis(interval.0);
                let (outside, asked) = (Arc::clone(&self.outside), record.node.probe.clone());
                let watchdog = asked
                    .bmc_watchdog
                    .then(|| self.outside.power(self.engine.state(), &record.node, 0).ok())
                    .flatten();
                self.work(async move {
                    let answer = outside.ask(&asked, About::Kernel, count, interval);
                    let answer = probe::with_watchdog(answer, watchdog, silent, interval * count).await;
                    Some(Finding::Asked(node, answer))
                });
            }
            Output::ReadPower { node } => self.read_power(node),
            Output::Check(check) => {
                let asked = self.executor.checker(self.engine.state(), check);
                self.work(async move {
                    let (check, finding) = asked.await;
                    Some(Finding::Input(Input::Checked { check, finding }))
                });
            }
            Output::Broadcast(report) => {
                self.recorder.reports(clock::now(), report.doubt.is_some());
                match serde_json::to_vec(&report) {
                    Ok(bytes) if self.store.broadcast(&bytes) => {}
                    Ok(bytes) => tracing::error!(bytes = bytes.len(), "a report is too large to be sent"),
                    Err(error) => tracing::error!(%error, "write a report"),
                }
            }
            Output::Watch { node, limits, pause } => self.watch(node, limits, pause),
            Output::Unwatch { node } => {
                self.poll.forget(&node);
                self.unasked.remove(&node);
                self.recorder.unwatched(clock::now(), &node);
                self.tell_ears(ingest::Command::Forget { node });
            }
        }
    }

    fn propose(&mut self, ticket: u64, command: Command) {
        let by = format!("member/{}", self.me);
        let proposal = Proposal { at: clock::wall(), by, command };
        let (store, metrics) = (self.store.clone(), self.metrics.clone());
        self.work(async move {
            let began = Instant::now();
            let index: Option<LogIndex> = match store.propose(proposal).await {
                Ok((index, Ok(_))) => {
                    metrics.proposed("applied", began.elapsed());
                    Some(index)
                }
                Ok((index, Err(rejected))) => {
                    metrics.proposed("rejected", began.elapsed());
                    tracing::info!(%rejected, "a proposal of ours did not fit the state any more");
                    Some(index)
                }
                Err(error) => {
                    metrics.proposed("lost", began.elapsed());
                    tracing::info!(%error, "a proposal of ours was not confirmed");
                    None
                }
            };
            Some(Finding::Input(Input::Answered { ticket, index }))
        });
    }

    fn read_power(&mut self, node: NodeId) {
        let Some(record) = self.engine.state().nodes.get(&node) else { return };
        match self.executor.power_reader(self.engine.state(), &record.node) {
            Ok(reader) => self.work(async move {
                let power = reader.await;
                Some(Finding::Input(Input::PowerRead { node, power }))
            }),
            Err(refusal) => tracing::warn!(%node, %refusal, "read power"),
        }
    }

    fn watch(&mut self, node: NodeId, limits: Limits, pause: Millis) {
        let Some(record) = self.engine.state().nodes.get(&node) else { return };
        let Some(sealed) = &record.node.agent_key else {
            self.tell_ears(ingest::Command::Forget { node: node.clone() });
            return self.poll.enroll(node, limits, pause, clock::mono());
        };
        self.poll.forget(&node);
        match self.seal.open(Secret::AgentKey(&node), sealed) {
            Err(error) => tracing::error!(%node, %error, "its heartbeats cannot be read"),
            Ok(text) => match std::str::from_utf8(&text).unwrap_or_default().parse::<Key>() {
                Ok(key) => self.tell_ears(ingest::Command::Enroll { node, key, limits }),
                Err(error) => tracing::error!(%node, %error, "its heartbeats cannot be read"),
            },
        }
    }

    /// Tells the ingest, in order and without waiting.
    fn tell_ears(&mut self, command: ingest::Command) {
        if self.ears.try_send(command).is_err() {
            // The queue holds every node of the largest cluster; it is full only if the ingest no longer works.
            tracing::error!("the ingest does not take commands");
        }
    }

    /// Runs something beside the loop; its result comes back as an input.
    fn work(&mut self, work: impl Future<Output = Option<Finding>> + Send + 'static) {
        let results = self.results.clone();
        self.tasks.spawn(async move {
            if let Some(finding) = work.await {
                // Sending fails only when the loop has ended, and then nobody needs the result.
                results.send(finding).await.ok();
            }
        });
    }
}
