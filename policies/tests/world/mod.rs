//! A small world for the real engines: three members, machines with BMCs, devices, one virtual clock.
//! Why it exists: to play a scenario in milliseconds, always in the same way.
//! What it never does: decide anything, or look into an engine; it knows only inputs, outputs and public reasons.

mod machine;
mod script;

use machine::Machine;
use policies::watch::{Change, Slot, Watch};
use policies::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// The script's time 0 on the world's clock: by then the cluster has settled.
const SETTLED: u64 = 5_000;
/// Without an election that long a dead leader is not replaced.
const ELECTION: u64 = 1_000;
const BEAT: u64 = 250;
const MESSAGE: u64 = 1;
/// Time between two ticks: fine while something happens, coarse when nothing does.
const TICK: u64 = 10;
const TICK_QUIET: u64 = 100;
const QUIET_AFTER: u64 = 3_000;

/// Plays a script and returns what happened, line by line.
pub(crate) fn play(script: &str) -> Result<String, String> {
    let mut world = World::new();
    let end = script::load(&mut world, script)?;
    world.run(end)?;
    Ok(world.out)
}

/// What happens at a moment.
enum Event {
    /// Line `.0` of the script.
    Line(usize, String),
    Commit {
        from: MemberId,
        ticket: u64,
        command: Command,
        by: String,
    },
    Answered {
        to: MemberId,
        ticket: u64,
    },
    Asked {
        to: MemberId,
        node: NodeId,
    },
    PowerRead {
        to: MemberId,
        node: NodeId,
    },
    Report {
        to: MemberId,
        report: Report,
    },
    /// The device obeys.
    Strike(MemberId, Effect),
    Ended {
        to: MemberId,
        life: u64,
        effect: Effect,
        outcome: Outcome,
    },
    Booted(NodeId, u64),
    Elected(MemberId),
}

/// How an effect is scripted to end.
#[derive(Clone)]
struct Ending {
    /// `None`: never; the time limit ends it.
    after: Option<u64>,
    /// `None`: as wished.
    outcome: Option<Outcome>,
}

struct Member {
    engine: Engine,
    watch: Watch,
    /// Nodes by slot of the watch table.
    slots: Vec<NodeId>,
    /// Nodes that it neither hears nor reaches.
    cut_off: BTreeSet<NodeId>,
    /// Nodes that it cannot ask, for reasons of its own.
    cannot_ask: BTreeSet<NodeId>,
    up: bool,
    /// Entries do not reach it; it will get a snapshot.
    lags: bool,
    /// Its reports are on their way and do not arrive.
    held_up: Option<Vec<Report>>,
    /// Counts its starts: also its boot id.
    life: u64,
    idle: Option<String>,
}

struct World {
    now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    queued: u64,
    /// The committed state, applied once more beside the engines to learn what each entry did.
    truth: ClusterState,
    leader: Option<MemberId>,
    members: BTreeMap<MemberId, Member>,
    machines: BTreeMap<NodeId, Machine>,
    endings: Vec<(String, Ending)>,
    /// What providers say of the objects whose names begin so; of all others that they are fine.
    findings: Vec<(String, Finding)>,
    /// Questions to providers, which are answered at the next tick.
    checks: Vec<(MemberId, Check)>,
    commit_delay: u64,
    /// What members propose is lost.
    log_loses: bool,
    last_commit: u64,
    busy_until: u64,
    reasons: BTreeMap<Subject, BTreeSet<String>>,
    out: String,
}

impl World {
    fn new() -> Self {
        let mut world = World {
            now: 0,
            queue: BTreeMap::new(),
            queued: 0,
            truth: ClusterState::default(),
            leader: None,
            members: BTreeMap::new(),
            machines: BTreeMap::new(),
            endings: vec![],
            findings: vec![],
            checks: vec![],
            commit_delay: 2,
            log_loses: false,
            last_commit: 0,
            busy_until: QUIET_AFTER,
            reasons: BTreeMap::new(),
            out: String::new(),
        };
        for id in (1..=3).map(MemberId) {
            world.members.insert(id, Member::new(id, 1, 0, &format!("room-{id}")));
        }
        world
    }

    /// Each member's own clock; they never agree.
    fn clock(&self, member: MemberId) -> Now {
        Now { mono: Mono(self.now + 1_000_000 * member.0), wall: Wall(self.now) }
    }

    fn at(&mut self, time: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((time.max(self.now), self.queued), event);
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    /// Prints a line, once the cluster has settled.
    fn say(&mut self, kind: &str, text: &str) {
        self.busy_until = self.now + QUIET_AFTER;
        // The setting up is not part of the story, unless it went wrong.
        let shown = self.now >= SETTLED || kind == "no";
        if let Some(time) = shown.then(|| self.now.saturating_sub(SETTLED)) {
            let stamp = format!("{}.{:03}", time / 1000, time % 1000);
            let written = writeln!(self.out, "{stamp:>8} {kind:<4} {text}");
            written.unwrap_or_else(|error| unreachable!("a String takes every line: {error}"));
        }
    }

    fn run(&mut self, end: u64) -> Result<(), String> {
        let mut tick = 0;
        while self.now < end {
            match self.queue.first_key_value().map(|((time, _), _)| *time) {
                Some(time) if time <= tick => {
                    self.move_on(time);
                    if let Some((_, event)) = self.queue.pop_first() {
                        self.happen(event)?;
                    }
                }
                Some(_) | None => {
                    self.move_on(tick);
                    self.tick();
                    tick += if self.now < self.busy_until { TICK } else { TICK_QUIET };
                }
            }
        }
        for (id, member) in self.members.iter().filter(|(_, member)| member.up && !member.lags) {
            if *member.engine.state() != self.truth {
                return Err(format!("{id} has another state than the log gives"));
            }
        }
        Ok(())
    }

    /// Time passes; before it does, the reasons at the end of this moment are told.
    fn move_on(&mut self, to: u64) {
        if to > self.now {
            self.up().into_iter().for_each(|id| self.tell_reasons(id));
            self.now = to;
        }
    }

    fn tick(&mut self) {
        let beats: Vec<(NodeId, Heartbeat)> = self
            .machines
            .iter_mut()
            .filter_map(|(node, machine)| Some((node.clone(), machine.beat(self.now, BEAT)?)))
            .collect();
        for (node, beat) in beats {
            self.beat(&node, &beat);
        }
        for (id, check) in std::mem::take(&mut self.checks) {
            let finding = self.finding(&check);
            self.feed(id, Input::Checked { check, finding });
        }
        for id in self.up() {
            let now = self.clock(id);
            let mut news = vec![];
            if let Some(member) = self.members.get_mut(&id) {
                member.watch.tick(now.mono, &mut news);
            }
            for (slot, change) in news {
                self.changed(id, slot, change);
            }
            self.feed(id, Input::Tick);
        }
    }

    fn up(&self) -> Vec<MemberId> {
        self.members.iter().filter(|(_, member)| member.up).map(|(id, _)| *id).collect()
    }

    fn finding(&self, check: &Check) -> Finding {
        let said =
            self.findings.iter().rev().find(|(prefix, _)| check.to_string().starts_with(prefix.as_str()));
        said.map_or(Finding::Fine, |(_, finding)| finding.clone())
    }

    /// Every member that is not cut off hears the node.
    fn beat(&mut self, node: &NodeId, beat: &Heartbeat) {
        let paths = self.machines.get(node).map_or(vec![], |machine| machine.paths.clone());
        for id in self.up() {
            let now = self.clock(id);
            let Some(member) = self.members.get_mut(&id) else { continue };
            let slot = member.slots.iter().position(|other| other == node);
            let Some(slot) = slot.filter(|_| !member.cut_off.contains(node)).map(slot_of) else { continue };
            let change = member.watch.beat(slot, now.mono, beat);
            paths.iter().for_each(|path| member.watch.came_by(slot, *path));
            if let Some(change) = change {
                self.changed(id, slot, change);
            }
        }
    }

    fn changed(&mut self, id: MemberId, slot: Slot, change: Change) {
        let node = self.members.get(&id).and_then(|member| member.slots.get(slot.0 as usize)).cloned();
        if let Some(node) = node {
            self.feed(id, Input::Changed { node, change });
        }
    }

    fn feed(&mut self, id: MemberId, input: Input) {
        let now = self.clock(id);
        let Some(member) = self.members.get_mut(&id).filter(|member| member.up) else { return };
        for output in member.engine.handle(now, input) {
            self.carry_out(id, output);
        }
    }

    fn carry_out(&mut self, id: MemberId, output: Output) {
        match output {
            Output::Propose { ticket, command } => {
                let by = format!("member/{id}");
                self.commit_in_turn(Event::Commit { from: id, ticket, command, by });
            }
            Output::Execute { effect, limit } => self.execute(id, effect, limit),
            Output::Ask { node, silent: _, count, interval } => {
                self.after(u64::from(count) * interval.0, Event::Asked { to: id, node });
            }
            Output::Check(check) => self.checks.push((id, check)),
            Output::ReadPower { node } => self.after(30, Event::PowerRead { to: id, node }),
            Output::Broadcast(report) => self.broadcast(id, report),
            Output::Watch { node, limits, pause: _ } => {
                let now = self.clock(id).mono;
                if let Some(member) = self.members.get_mut(&id) {
                    let slot = member.slots.iter().position(|other| *other == node);
                    let slot = slot.unwrap_or_else(|| {
                        member.slots.push(node);
                        member.slots.len() - 1
                    });
                    member.watch.enroll(slot_of(slot), limits, now);
                }
            }
            Output::Unwatch { node } => {
                if let Some(member) = self.members.get_mut(&id)
                    && let Some(slot) = member.slots.iter().position(|other| *other == node)
                {
                    member.watch.forget(slot_of(slot));
                }
            }
        }
    }

    /// The log keeps the order in which its leader proposed.
    fn commit_in_turn(&mut self, commit: Event) {
        self.last_commit = (self.now + self.commit_delay).max(self.last_commit);
        self.at(self.last_commit, commit);
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Line(number, line) => {
                self.say(">", &line);
                return script::act(self, &line).map_err(|why| format!("line {number}: {why}"));
            }
            Event::Commit { from, ticket, command, by } => self.commit(from, ticket, command, by),
            Event::Answered { to, ticket } => self.feed(to, Input::Answered { ticket, index: None }),
            Event::Asked { to, node } => {
                let answers = self.kernel_answers(to, &node);
                self.feed(to, Input::Asked { node, answers });
            }
            Event::PowerRead { to, node } => {
                let power = self.machines.get(&node).and_then(Machine::read_power);
                self.feed(to, Input::PowerRead { node, power });
            }
            Event::Report { to, report } => self.feed(to, Input::Report(report)),
            Event::Strike(to, effect) if self.wants(to, &effect) => self.strike(&effect),
            Event::Strike(..) => {}
            Event::Ended { to, life, effect, outcome } => self.ended(to, life, &effect, outcome),
            Event::Booted(node, life) => {
                let epoch = self.truth.instances.values().find(|record| record.node == node);
                let epoch = epoch.map_or(Epoch(0), |record| record.epoch);
                if let Some(machine) = self.machines.get_mut(&node) {
                    machine.booted(life, epoch);
                }
            }
            Event::Elected(id) => self.elected(Some(id)),
        }
        Ok(())
    }

    fn kernel_answers(&self, member: MemberId, node: &NodeId) -> Option<bool> {
        let member = self.members.get(&member)?;
        if member.cannot_ask.contains(node) {
            return None;
        }
        let machine = self.machines.get(node);
        Some(!member.cut_off.contains(node) && machine.is_some_and(Machine::kernel_answers))
    }

    /// An entry reaches the log, unless its proposer has lost the right to propose.
    fn commit(&mut self, from: MemberId, ticket: u64, command: Command, by: String) {
        let by_member = by.starts_with("member/");
        if by_member && self.members.get(&from).is_none_or(|member| !member.up) {
            return;
        }
        if by_member && self.log_loses {
            return self.feed(from, Input::Answered { ticket, index: None });
        }
        let index = LogIndex(self.truth.applied.0 + 1);
        let proposal = Proposal { at: Wall(self.now), by, command };
        match self.truth.apply(index, &proposal) {
            Ok(applied) => applied.events.iter().for_each(|event| self.say("log", &event.text)),
            Err(rejected) => self.say("no", &format!("[{}] {rejected}", variant(&rejected))),
        }
        for to in self
            .up()
            .into_iter()
            .filter(|id| self.members.get(id).is_some_and(|member| !member.lags))
            .collect::<Vec<_>>()
        {
            self.feed(to, Input::Applied { index, proposal: proposal.clone() });
        }
        if by_member {
            self.feed(from, Input::Answered { ticket, index: Some(index) });
        }
    }

    fn execute(&mut self, id: MemberId, effect: Effect, limit: Millis) {
        let action = effect.action.to_string();
        self.say("do", &format!("{action} ({})", effect.token));
        let scripted = self.endings.iter().rev().find(|(prefix, _)| action.starts_with(prefix.as_str()));
        let usual =
            || self.machines.get(effect.action.node()).map_or(Ending::usual(&effect), |m| m.ending(&effect));
        let ending = scripted.map_or_else(usual, |(_, ending)| ending.clone());
        let (time, outcome) = ending.resolve(&effect, limit);
        if matches!(outcome, Outcome::Done(_)) {
            self.after(time, Event::Strike(id, effect.clone()));
        }
        let life = self.members.get(&id).map_or(0, |member| member.life);
        self.after(time, Event::Ended { to: id, life, effect, outcome });
    }

    /// What the member that sends it would be told by its executor.
    fn wants(&self, sender: MemberId, effect: &Effect) -> bool {
        let sender = self.members.get(&sender);
        sender.is_none_or(|member| !member.up || member.engine.state().wants(effect))
    }

    fn strike(&mut self, effect: &Effect) {
        let node = effect.action.node();
        let farewell = self.machines.get(node).and_then(|it| it.farewell(&effect.action, self.now));
        if let Some(farewell) = farewell {
            self.beat(node, &farewell);
        }
        let boots = match self.machines.get_mut(effect.action.node()) {
            Some(machine) => machine.obey(&effect.action),
            None => None,
        };
        if let Some((delay, life)) = boots {
            self.after(delay, Event::Booted(effect.action.node().clone(), life));
        }
    }

    fn ended(&mut self, to: MemberId, life: u64, effect: &Effect, outcome: Outcome) {
        // Whoever died while waiting never hears of it.
        if self.members.get(&to).is_none_or(|member| !member.up || member.life != life) {
            return;
        }
        let outcome = match outcome {
            Outcome::Done(_) if !self.wants(to, effect) => Outcome::Refused(Refusal::Withdrawn),
            outcome => outcome,
        };
        let end = match &outcome {
            Outcome::Done(_) => "done".to_owned(),
            Outcome::Refused(refusal) => format!("refused [{}] {refusal}", variant(refusal)),
            Outcome::Unknown(doubt) => format!("unknown: {doubt}"),
        };
        self.say("end", &format!("{} ({}): {end}", effect.action, effect.token));
        if let (Action::Claim { node, provider }, Outcome::Done(_)) = (&effect.action, &outcome)
            && let (Some(record), Some(provider)) =
                (self.truth.nodes.get(node), self.truth.providers.get(provider))
        {
            let known_as = record.node.known_to(provider).unwrap_or_default();
            self.findings.push((format!("node {known_as}"), Finding::Fine));
        }
        self.feed(to, Input::Ended { token: effect.token, outcome });
    }

    fn elected(&mut self, leader: Option<MemberId>) {
        self.leader = leader;
        for id in self.up() {
            self.feed(id, Input::Leader { leader });
        }
    }

    /// Prints each reason that is new.
    fn tell_reasons(&mut self, id: MemberId) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let idle = member.engine.not_acting().map(|why| format!("{id} [{}] {why}", variant(&why)));
        let changed = member.idle != idle;
        member.idle.clone_from(&idle);
        let acts = self.leader == Some(id) && idle.is_none();
        let mut lines: Vec<String> = idle.filter(|_| changed).into_iter().collect();
        if acts {
            let mut reasons: BTreeMap<Subject, BTreeSet<String>> = BTreeMap::new();
            for (subject, all) in member.engine.waiting() {
                let known = self.reasons.get(subject);
                let said = reasons.entry(subject.clone()).or_default();
                for why in all {
                    let text = format!("[{}] {why}", variant(why));
                    if !known.is_some_and(|known| known.contains(&text)) && !said.contains(&text) {
                        lines.push(format!("{} {text}", name_of(subject)));
                    }
                    said.insert(text);
                }
            }
            // What already holds when the story begins is told in its first moment.
            if self.now >= SETTLED {
                self.reasons = reasons;
            }
        }
        lines.iter().for_each(|line| self.say("wait", line));
    }

    fn broadcast(&mut self, from: MemberId, report: Report) {
        if let Some(held_up) = self.members.get_mut(&from).and_then(|member| member.held_up.as_mut()) {
            return held_up.push(report);
        }
        for to in self.up().into_iter().filter(|to| *to != from) {
            self.after(MESSAGE, Event::Report { to, report: report.clone() });
        }
    }
}

impl Member {
    fn new(id: MemberId, life: u64, now: u64, domain: &str) -> Self {
        let engine = Engine::new(id, BootId(100 * id.0 + life), domain);
        let watch = Watch::new(Mono(now + 1_000_000 * id.0));
        let (cut_off, cannot_ask) = (BTreeSet::new(), BTreeSet::new());
        Member {
            engine,
            watch,
            slots: vec![],
            cut_off,
            cannot_ask,
            up: true,
            lags: false,
            held_up: None,
            life,
            idle: None,
        }
    }
}

fn slot_of(place: usize) -> Slot {
    Slot(u32::try_from(place).unwrap_or(u32::MAX))
}

fn name_of(subject: &Subject) -> String {
    match subject {
        Subject::Node(node) => node.to_string(),
        Subject::Instance(instance) => instance.to_string(),
        Subject::Plan(plan) => plan.to_string(),
    }
}

/// The name of an enum's variant, as its `Debug` begins.
fn variant(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").chars().take_while(|c| c.is_ascii_alphanumeric()).collect()
}
