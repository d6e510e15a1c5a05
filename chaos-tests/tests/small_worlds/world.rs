//! The state of a small world, and what each event does to it: log, elections, executors, devices, time.
//!
//! Why it exists: to bring two real engines into every order of events that their assumptions allow.
//! What it never does: choose. Which events may happen is said in `moves.rs`, which must not in `laws.rs`.

use super::cluster::{Span, described, node, number, volume_number};
use super::ground::Ground;
use super::member::{Entry, Member, canonical, hash_of};
use super::naive;
use super::rules::{Budget, Rules, Shortcut};
use policies::watch::Change;
use policies::*;
use std::collections::{BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// An effect that a member's executor is carrying out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) member: usize,
    pub(crate) token: LogIndex,
    /// The token's name: see [`Entry`].
    name: u64,
    pub(crate) action: Action,
}

/// A command on its way to a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Letter {
    pub(crate) action: Action,
    /// Who sent it; told apart only where a deposed leader may send.
    pub(crate) sender: Option<usize>,
}

/// Harm that is done at one moment and would not be seen afterwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Harm {
    /// A volume was attached before its old node had been off.
    pub(crate) early: bool,
    /// A command of the past cut the rightful owner off.
    pub(crate) struck: bool,
}

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) members: [Arc<Member>; 2],
    /// Whom the Raft cluster follows.
    pub(crate) leader: usize,
    /// The last index before the present leader was elected.
    elected: u64,
    /// False for a deposed leader that does not know.
    pub(crate) aware: [bool; 2],
    /// Committed entries that the member that is not aware has not applied.
    pub(crate) unread: Vec<Entry>,
    /// What the leader has proposed and the log has not taken yet.
    pub(crate) pending: VecDeque<(u64, Command)>,
    /// What the leader has applied and no other member knows ([`Shortcut::ActsBeforeCommit`]).
    pub(crate) alone: VecDeque<Entry>,
    pub(crate) jobs: Vec<Job>,
    pub(crate) bag: BTreeSet<Letter>,
    pub(crate) ground: Ground,
    pub(crate) budget: Budget,
    pub(crate) harm: Harm,
    rules: Rules,
    now: u64,
    index: u64,
    print: u64,
}

impl World {
    /// Everything is described, the orders are given, member 0 is elected.
    pub(crate) fn new(rules: &Rules) -> Self {
        let state = described(rules);
        let index = state.applied.0;
        let members = [1, 2].map(|id| Arc::new(Member::new(MemberId(id), BootId(10 * id))));
        let mut world = World {
            members,
            leader: 0,
            elected: index,
            aware: [true; 2],
            unread: vec![],
            pending: VecDeque::new(),
            alone: VecDeque::new(),
            jobs: vec![],
            bag: BTreeSet::new(),
            ground: Ground::new(rules),
            budget: rules.budget,
            harm: Harm::default(),
            rules: *rules,
            now: 1,
            index,
            print: 0,
        };
        for member in 0..2 {
            world.start(member, state.clone());
        }
        world.seal()
    }

    /// The committed state.
    pub(crate) fn truth(&self) -> &ClusterState {
        self.members[self.leader].engine.state()
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(crate) fn print(&self) -> u64 {
        self.print
    }

    fn now(&self) -> Now {
        Now { mono: Mono(self.now), wall: Wall(0) }
    }

    /// A member's process begins with the state that the store has.
    fn start(&mut self, member: usize, state: ClusterState) {
        self.feed(member, Input::Voters([1, 2, 3].map(MemberId).to_vec()));
        self.feed(member, Input::Installed(Box::new(state)));
        let leader = Some(MemberId(self.leader as u64 + 1));
        self.feed(member, Input::Leader { leader });
    }

    /// True for a member that can do nothing any more: it does not lead, will never be elected, and may not send.
    /// Its beliefs make no difference; it is left alone.
    pub(crate) fn is_idle(&self, member: usize) -> bool {
        let may_send = self.rules.takes(Shortcut::NoLease) && !self.aware[member];
        member != self.leader && self.budget.elections == 0 && !may_send
    }

    pub(crate) fn feed(&mut self, member: usize, input: Input) {
        if self.is_idle(member) {
            return;
        }
        let now = self.now();
        for output in Arc::make_mut(&mut self.members[member]).handle(now, input) {
            self.carry_out(member, output);
        }
    }

    fn carry_out(&mut self, member: usize, output: Output) {
        match output {
            Output::Propose { ticket, command } if member == self.leader => self.propose(ticket, command),
            Output::Execute { effect, .. } => self.execute(member, &effect),
            // A deposed leader's proposal is lost.
            Output::Propose { ticket, .. } => self.feed(member, Input::Answered { ticket, index: None }),
            // About watching, which this world leaves out.
            Output::ReadPower { .. }
            | Output::Check(_)
            | Output::Ask { .. }
            | Output::Broadcast(_)
            | Output::Watch { .. }
            | Output::Unwatch { .. } => {}
        }
    }

    fn propose(&mut self, ticket: u64, command: Command) {
        if self.rules.takes(Shortcut::ActsBeforeCommit) {
            let entry = self.entry(self.leader, command);
            self.alone.push_back(entry.clone());
            self.apply(self.leader, &entry);
            self.feed(self.leader, Input::Answered { ticket, index: Some(entry.index) });
        } else {
            self.pending.push_back((ticket, command));
        }
    }

    /// The lease (R5): a new leader is elected after the old one's lease is over, so only the leader may send; and only
    /// what it wants as that leader, not what it still wants from an earlier leadership (R10).
    fn may_send(&self, member: usize) -> bool {
        let leads = self.members[member].engine.leads();
        let is_leader = member == self.leader;
        let as_such = leads.is_some_and(|epoch| epoch.0 > self.elected);
        let any = self.rules.takes(Shortcut::LeaseOfAnyLeadership);
        self.rules.takes(Shortcut::NoLease) || is_leader && (as_such || any)
    }

    fn execute(&mut self, member: usize, effect: &Effect) {
        let no_lease = self.rules.takes(Shortcut::NoLease);
        if !self.may_send(member) {
            let outcome = Outcome::Refused(Refusal::LeaseEnded);
            return self.feed(member, Input::Ended { token: effect.token, outcome });
        }
        let (token, action) = (effect.token, effect.action.clone());
        let name = self.members[member].names.get(&token.0).copied().unwrap_or(token.0);
        self.jobs.push(Job { member, token, name, action: action.clone() });
        self.jobs.sort_by_key(|job| (job.member, job.name));
        // Two equal commands on their way are one that may arrive twice, which has a budget of its own.
        self.bag.insert(Letter { action, sender: no_lease.then_some(member) });
    }

    // ---- the log -----------------------------------------------------------------------------------------------

    /// The next entry, as the state of `member` names it.
    fn entry(&mut self, member: usize, command: Command) -> Entry {
        self.index += 1;
        let name = self.members[member].name(&command);
        let proposal = Proposal { at: Wall(0), by: "m".to_owned(), command };
        Entry { index: LogIndex(self.index), name, ticket: None, proposal }
    }

    fn apply(&mut self, member: usize, entry: &Entry) {
        if self.is_idle(member) {
            return;
        }
        Arc::make_mut(&mut self.members[member]).knows(entry);
        let (index, proposal) = (entry.index, entry.proposal.clone());
        self.feed(member, Input::Applied { index, proposal });
    }

    /// An entry is committed: the leader applies it, and so does the other, if it is not cut off.
    pub(crate) fn commit(&mut self, command: Command) -> LogIndex {
        let entry = self.entry(self.leader, command);
        let other = 1 - self.leader;
        self.apply(self.leader, &entry);
        match self.aware[other] {
            true => self.apply(other, &entry),
            false => self.unread.push(entry.clone()),
        }
        naive::after_commit(self, &entry.proposal.command);
        entry.index
    }

    /// The log takes the oldest proposal.
    pub(crate) fn commit_next(&mut self) {
        if let Some((ticket, command)) = self.pending.pop_front() {
            let index = self.commit(command);
            self.feed(self.leader, Input::Answered { ticket, index: Some(index) });
        } else if let Some(entry) = self.alone.pop_front() {
            self.apply(1 - self.leader, &entry);
        }
    }

    /// The other member is elected; of what the old leader had proposed, `kept` entries are in the log. A new leader has
    /// applied all of it before its own first entry; one that did not notice that it was deposed does so as a leader.
    pub(crate) fn elect(&mut self, kept: usize) {
        let (old, new) = (self.leader, 1 - self.leader);
        let noticed = self.aware[new];
        let proposed = std::mem::take(&mut self.pending);
        self.leader = new;
        self.elected = self.index + kept.min(proposed.len()) as u64;
        for entry in std::mem::take(&mut self.unread) {
            self.catch_up(new, &entry);
        }
        let entries = self.outlive(old, new, proposed, kept);
        self.budget.elections -= 1;
        (self.aware, self.unread) = ([true; 2], entries);
        self.aware[old] = false;
        if !noticed && !self.rules.takes(Shortcut::LeaseOfAnyLeadership) {
            // The store tells every leadership, also one that follows another of the same member.
            self.feed(new, Input::Leader { leader: None });
        }
        self.feed(new, Input::Leader { leader: Some(MemberId(new as u64 + 1)) });
        // Only an entry of its own that it has not applied yet makes a deposed leader want anything new.
        if self.unread.is_empty() {
            self.learn();
        }
    }

    /// The leader's process dies, starts again, and is elected again. What it was sending is on its way.
    pub(crate) fn restart(&mut self, kept: usize) {
        self.budget.restarts -= 1;
        let leader = self.leader;
        let mut state = self.truth().clone();
        let mut names = Arc::clone(&self.members[leader].names);
        for command in self.pending.drain(..).take(kept).map(|(_, command)| command).collect::<Vec<_>>() {
            let entry = self.entry(leader, command);
            // A rejected entry changes nothing, here as in every member.
            state.apply(entry.index, &entry.proposal).ok();
            Arc::make_mut(&mut names).insert(entry.index.0, entry.name);
            self.apply(1 - leader, &entry);
        }
        self.elected = self.index;
        self.jobs.retain(|job| job.member != leader);
        let id = MemberId(leader as u64 + 1);
        let boot = BootId(10 * id.0 + 1 + u64::from(self.budget.restarts));
        self.members[leader] = Arc::new(Member { names, ..Member::new(id, boot) });
        self.start(leader, state);
    }

    /// The first `kept` entries of a leader that is gone reach the log, the others are lost.
    fn outlive(
        &mut self,
        old: usize,
        new: usize,
        proposed: VecDeque<(u64, Command)>,
        kept: usize,
    ) -> Vec<Entry> {
        let mut entries = vec![];
        for (place, (ticket, command)) in proposed.into_iter().enumerate() {
            if place >= kept {
                self.feed(old, Input::Answered { ticket, index: None });
                continue;
            }
            let entry = Entry { ticket: Some(ticket), ..self.entry(new, command) };
            self.apply(new, &entry);
            entries.push(entry);
        }
        if self.rules.takes(Shortcut::ActsBeforeCommit) {
            for entry in self.alone.drain(..).take(kept).collect::<Vec<_>>() {
                self.apply(new, &entry);
            }
            self.index = self.members[new].engine.state().applied.0;
            self.elected = self.index;
            self.jobs.retain(|job| job.member != old);
        }
        entries
    }

    /// A deposed leader applies one entry more; from a take-over it learns that it is deposed.
    pub(crate) fn read(&mut self) {
        let entry = self.unread.remove(0);
        self.catch_up(1 - self.leader, &entry);
        if let Command::TookOver { .. } = entry.proposal.command {
            self.learn();
        }
    }

    /// A deposed leader is told who leads.
    pub(crate) fn learn(&mut self) {
        let other = 1 - self.leader;
        self.aware[other] = true;
        self.feed(other, Input::Leader { leader: Some(MemberId(self.leader as u64 + 1)) });
        for entry in std::mem::take(&mut self.unread) {
            self.catch_up(other, &entry);
        }
    }

    fn catch_up(&mut self, member: usize, entry: &Entry) {
        self.apply(member, entry);
        if let Some(ticket) = entry.ticket {
            self.feed(member, Input::Answered { ticket, index: Some(entry.index) });
        }
    }

    // ---- devices -----------------------------------------------------------------------------------------------

    /// A command reaches its device. `copy`: and stays on its way.
    pub(crate) fn deliver(&mut self, letter: &Letter, copy: bool) {
        if copy {
            self.budget.copies -= 1;
        } else {
            self.open(letter);
        }
        self.harm.early |= self.is_early(&letter.action);
        self.harm.struck |= self.strikes_owner(&letter.action);
        self.ground.obey(&letter.action, &self.rules);
    }

    pub(crate) fn lie(&mut self, letter: &Letter) {
        self.budget.lies -= 1;
        self.open(letter);
        self.ground.lie(number(letter.action.node()));
    }

    fn open(&mut self, letter: &Letter) {
        self.bag.remove(letter);
    }

    /// True if this gives a volume away that a node held which was never off.
    fn is_early(&self, action: &Action) -> bool {
        let Action::Attach { node, volume, .. } = action else { return false };
        let volume = volume_number(volume);
        self.ground.held[volume] & !self.ground.was_off & !(1 << number(node)) != 0
    }

    /// True if this takes something from a node that has it by right.
    fn strikes_owner(&self, action: &Action) -> bool {
        let place = number(action.node());
        let state = &self.truth().nodes[action.node()].state;
        let takes = match action {
            Action::ShutDown { .. } | Action::PowerOff { .. } => self.ground.is_on(place),
            Action::Revoke { volume, .. } => self.ground.access[volume_number(volume)] & 1 << place != 0,
            Action::ClosePort { .. } => self.ground.open.iter().any(|open| open & 1 << place != 0),
            Action::Diagnose { .. }
            | Action::Interrupt { .. }
            | Action::Snapshot { .. }
            | Action::Attach { .. }
            | Action::OpenPort { .. }
            | Action::AttachVif { .. }
            | Action::Claim { .. }
            | Action::Clean { .. }
            | Action::SetBoot { .. }
            | Action::PowerOn { .. } => false,
        };
        takes && matches!(state, NodeState::Active { .. })
    }

    /// An executor is done with an effect.
    pub(crate) fn end(&mut self, job: &Job, outcome: Outcome) {
        self.jobs.retain(|other| other != job);
        self.feed(job.member, Input::Ended { token: job.token, outcome });
    }

    /// A node that is on beats; every member hears it.
    pub(crate) fn beat(&mut self, place: usize) {
        let change = Change::Heard { boot: BootId(1), epoch: Epoch(0) };
        for member in 0..2 {
            self.feed(member, Input::Changed { node: node(place), change });
        }
    }

    // ---- time --------------------------------------------------------------------------------------------------

    /// Time passes. What is still on its way after a long time never arrives, if the policy knows its devices.
    pub(crate) fn pass(&mut self, span: Span) {
        self.now += span.length().0;
        let leader = self.leader;
        match span {
            Span::Retry => {}
            Span::Start if !self.rules.drains() => self.budget.changes -= 1,
            Span::Start | Span::Drain => {
                self.budget.changes -= u8::from(span == Span::Start);
                self.bag.retain(|letter| letter.sender.is_some_and(|sender| sender != leader));
            }
        }
        for member in 0..2 {
            self.feed(member, Input::Tick);
        }
    }

    // ---- fingerprint -------------------------------------------------------------------------------------------

    /// Takes the fingerprint, after a change.
    pub(crate) fn seal(mut self) -> Self {
        let now = self.now();
        let other = 1 - self.leader;
        if self.is_idle(other) {
            self.aware[other] = true;
            self.unread.clear();
            self.jobs.retain(|job| job.member != other);
        }
        let idle = [0, 1].map(|member| self.is_idle(member));
        for (member, _) in self.members.iter_mut().zip(idle).filter(|(member, idle)| member.touched && !idle)
        {
            Arc::make_mut(member).take_print(now);
        }
        let names = &self.members[self.leader].names;
        let commands: Vec<&Command> = self.pending.iter().map(|(_, command)| command).collect();
        // What follows a take-over is read all at once; then it is what the leader's state says.
        let is_own = |entry: &&Entry| !matches!(entry.proposal.command, Command::TookOver { .. });
        let unread = self.unread.iter().take_while(is_own).chain(&self.alone);
        let unread: Vec<(u64, &Command)> = unread.map(|e| (e.name, &e.proposal.command)).collect();
        let queues = if commands.is_empty() && unread.is_empty() {
            0
        } else {
            canonical(&(commands, unread), names, now.mono)
        };
        let jobs: Vec<(usize, u64)> = self.jobs.iter().map(|job| (job.member, job.name)).collect();
        let bag = self.bag.iter().map(|letter| (letter.action.to_string(), letter.sender));
        let bag: Vec<(String, Option<usize>)> = bag.collect();
        let members = [0, 1].map(|member| if idle[member] { 0 } else { self.members[member].print });
        let who = (self.leader, self.aware, self.harm, self.budget);
        self.print = hash_of(&(members, who, queues, jobs, bag, &self.ground));
        self
    }
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        self.print == other.print
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.print);
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plans: Vec<String> =
            self.truth().plans.values().map(|plan| format!("{} {}", plan.id, plan.phase)).collect();
        write!(f, "{plans:?} {:?} bag {:?} jobs {}", self.ground, self.bag, self.jobs.len())
    }
}
