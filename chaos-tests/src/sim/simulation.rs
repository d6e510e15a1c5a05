//! Plays a script: forms the cluster, lets things go wrong, and watches.
//!
//! Why it exists: one thread, one queue, one clock; the same script gives the same history, byte for byte.
//! What it never does: use anything of the machine it runs on.

use super::dice::Dice;
use super::fault::{Fault, Order};
use super::libc;
use super::machine::{Life as NodeLife, Machine, Mood};
use super::member::{Call, Life};
use super::scene::{Inventory, Setup, inventory};
use super::script::{BEGIN, END, Mode, Script, node_names};
use super::trace::Trace;
use super::world::{Death, Inner, World};
use crate::checkers::{Court, Fact, Violation, all};
use policies::{
    ClusterState, Command, Epoch, InstanceId, InstanceRecord, MemberId, Network, NodeId, NodeState,
};
use raft_store::{Snapshots, Timing};
use std::collections::BTreeMap;
use std::sync::Arc;
use supervisor::seal::Seal;

/// The step of the world, in µs: no packet and no device is faster. Smaller steps find the same bugs and cost more.
const QUANTUM: u64 = 5_000;
/// Between two lives of a member that stopped by itself, in µs: systemd's `RestartSec=1`.
const RESTART: u64 = 1_000_000;
/// In liveness mode everything must be back so long after the healing, in ms: 30 s in which the product settles after a
/// hold, 30 s of doubt after mass silence, and three takeovers in a row that do not start.
const RECOVERY: u64 = 150_000;

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// The digest of the whole history.
    pub digest: u64,
    /// What was broken.
    pub violations: Vec<Violation>,
    /// Interesting things that were reached, and how often.
    pub sometimes: BTreeMap<&'static str, u64>,
    /// Facts.
    pub facts: u64,
    /// Simulated ms.
    pub length: u64,
    /// The lines, if they were kept.
    pub lines: Vec<(u64, String)>,
    /// The story, if lines were kept.
    pub story: Vec<(u64, String)>,
}

/// A run.
struct Simulation {
    world: World,
    script: Script,
    setup: Arc<Setup>,
    inventory: Inventory,
    lives: BTreeMap<MemberId, Life>,
    now: u64,
}

/// Plays a script. `only`: the faults with these numbers; `until`: in ms; `lines`: keep the lines.
pub fn play(script: Script, only: Option<&[usize]>, until: Option<u64>, lines: bool) -> Report {
    libc::seed(Dice::of(script.seed, "libc").draw());
    let mut simulation = Simulation::new(script, lines);
    if simulation.form() {
        simulation.trouble(only);
        let end = until.unwrap_or(END).min(END) * 1000;
        simulation.run_until(end);
        if simulation.script.mode == Mode::Liveness && until.is_none() {
            simulation.recover();
        }
    }
    simulation.finish()
}

impl Simulation {
    fn new(script: Script, lines: bool) -> Self {
        let dice = Dice::of(script.seed, "world");
        #[expect(clippy::expect_used, reason = "32 bytes are a key")]
        let seal = Seal::new(&[7; 32], "sim").expect("a key");
        let inventory = inventory(&seal, &script, &mut Dice::of(script.seed, "keys"));
        let setup = Setup {
            founder: MemberId(1),
            timing: Timing::default(),
            snapshots: Snapshots { after_entries: script.snapshot_after, keep_entries: 10 },
            policy: script.policy.clone(),
            seal,
        };
        let world = World::new(dice, Trace::new(lines), Court::new(all()));
        let simulation =
            Simulation { world, setup: Arc::new(setup), inventory, lives: BTreeMap::new(), now: 0, script };
        simulation.world.with(|inner| simulation.furnish(inner));
        simulation
    }

    /// The nodes, what they run, and the devices' manners.
    fn furnish(&self, inner: &mut Inner) {
        let script = &self.script;
        inner.net.usual_loss = script.loss;
        inner.calm_network();
        (inner.array.is_exclusive, inner.array.compares_tokens) = (script.exclusive, script.tokens);
        let names = node_names(script.instances, script.spares);
        let mut hot = script.hot;
        for (name, (boot_time, off_time, shared)) in names.iter().zip(&script.nodes) {
            let Some(key) = self.inventory.keys.get(name) else { continue };
            let carries = self.inventory.documents.instances.iter().any(|instance| instance.node == *name);
            let waits = !carries && hot > 0;
            hot -= u64::from(waits);
            let epoch = if waits { Epoch::STANDBY } else { Epoch(u64::from(carries)) };
            let mut machine = Machine::new(name.clone(), key.clone(), carries || waits, epoch);
            (machine.boot_time, machine.off_time) = (*boot_time, *off_time);
            machine.bmc_dies_with_power = *shared && carries;
            inner.machines.insert(name.clone(), machine);
        }
        for instance in &self.inventory.documents.instances {
            let vlans = instance.networks.first().and_then(Network::vlans);
            if let (Some(volume), Some(vlans)) = (instance.volumes.first(), vlans) {
                inner.array.place(&instance.name, &volume.volume, vlans.vlan, &instance.node);
            }
        }
        let mut hot = Dice::of(script.seed, "standby");
        for name in names {
            inner.announce(&name);
            inner.beat_for_ever(name.clone());
            if script.hot > 0 {
                inner.wait_for_ever(name, Dice::new(hot.draw()));
            }
        }
        for (member, rate) in (1..).map(MemberId).zip(&script.rates) {
            if member.0 <= script.members {
                let process = inner.process(member);
                process.restart_at = Some(0);
                process.rate = *rate;
                // Machines that were switched on at different times.
                process.local = member.0 * 1_000_000_000_000;
            }
        }
    }

    /// Forms the cluster and describes the inventory. False if it takes too long.
    fn form(&mut self) -> bool {
        let wanted: Vec<MemberId> = (1..=self.script.members).map(MemberId).collect();
        for member in wanted {
            let joined = |simulation: &Simulation| simulation.voters().contains(&member);
            let ask = |inner: &mut Inner| {
                if member.0 > 1
                    && let Some(calls) = &inner.process(MemberId(1)).calls
                {
                    drop(calls.send(Call::Admit(member)));
                }
            };
            if !self.insist(ask, joined) {
                return self.give_up(&format!("{member} does not join"));
            }
        }
        let documents = self.inventory.documents.clone();
        let describe = |inner: &mut Inner| {
            inner.propose("admin", Command::Describe(Box::new(documents.clone())));
        };
        let described = |inner: &Inner| !inner.court.scene.state.nodes.is_empty();
        if !self.insist(describe, |simulation| simulation.world.with(|inner| described(inner))) {
            return self.give_up("the inventory is not taken");
        }
        let arm = |inner: &mut Inner| inner.propose("admin", Command::Arm { reason: "sim".to_owned() });
        if !self.insist(arm, |simulation| simulation.world.with(|inner| inner.court.scene.state.armed.armed))
        {
            return self.give_up("the cluster is not armed");
        }
        self.run_until(BEGIN * 1000);
        true
    }

    fn give_up(&self, why: &str) -> bool {
        self.world.with(|inner| inner.court.accuse(inner.now, "form", why.to_owned()));
        false
    }

    /// Does something every 200 ms until it has worked.
    fn insist(&mut self, ask: impl Fn(&mut Inner), done: impl Fn(&Simulation) -> bool) -> bool {
        while !done(self) && self.now < 4 * BEGIN * 1000 {
            self.world.with(&ask);
            let end = self.now + 200_000;
            while !done(self) && self.now < end {
                self.step();
            }
        }
        done(self)
    }

    fn voters(&self) -> Vec<MemberId> {
        let store = self.lives.get(&MemberId(1)).and_then(|life| life.store.borrow().clone());
        let members = store.map(|store| store.members()).unwrap_or_default();
        members.into_iter().filter(|member| member.voter).map(|member| member.id).collect()
    }

    fn trouble(&mut self, only: Option<&[usize]>) {
        let faults = self.script.faults.clone();
        self.world.with(|inner| {
            inner.clients();
            for (number, (at, fault)) in faults.into_iter().enumerate() {
                if only.is_none_or(|only| only.contains(&number)) {
                    inner.at(at * 1000, move |inner| inner.happen(&fault));
                }
            }
        });
    }

    fn run_until(&mut self, end: u64) {
        while self.now < end {
            self.step();
            if self.world.with(|inner| !inner.court.violations.is_empty()) {
                return;
            }
        }
    }

    /// One quantum: what is due happens, then every member runs.
    fn step(&mut self) {
        self.now += QUANTUM;
        let now = self.now;
        self.world.with(|inner| inner.advance(now));
        let mut members: Vec<MemberId> = self.world.with(|inner| inner.processes.keys().copied().collect());
        // Nobody is always first.
        let turn = self.world.with(|inner| inner.dice.draw());
        let first = usize::try_from(turn % members.len() as u64).unwrap_or(0);
        members.rotate_left(first);
        for member in members {
            self.step_member(member);
        }
    }

    fn step_member(&mut self, member: MemberId) {
        let turn = self.world.with(|inner| {
            let now = inner.now;
            let process = inner.process(member);
            let length = QUANTUM * process.rate / 1000;
            process.local += length;
            let asleep = now < process.asleep_until;
            let stepped = std::mem::take(&mut process.wall_stepped);
            *(if asleep { &mut process.suspended } else { &mut process.unserved }) += length;
            if !process.running {
                (process.unserved, process.suspended) = (0, 0);
            }
            let paused = asleep || now < process.paused_until;
            let suspended = if paused { 0 } else { std::mem::take(&mut process.suspended) };
            let owed = if paused { 0 } else { std::mem::take(&mut process.unserved) };
            let restarts = !process.running && process.restart_at.is_some_and(|at| now >= at);
            Turn { length: owed, jump: owed > 2 * length, suspended, stepped, restarts, paused }
        });
        if turn.restarts {
            self.world.with(|inner| inner.process(member).restart_at = None);
            match Life::begin(&self.world, member, &self.setup) {
                Ok(life) => drop(self.lives.insert(member, life)),
                Err(error) => self.world.with(|inner| {
                    inner.court.accuse(inner.now, "simulator", error.to_string());
                }),
            }
        }
        let Some(life) = self.lives.get_mut(&member) else { return };
        if turn.suspended > 0 {
            life.suspend(turn.suspended);
        }
        life.step_wall(turn.stepped);
        if !turn.paused && self.world.with(|inner| inner.process(member).doomed.is_none()) {
            life.run(turn.length, turn.jump);
        }
        if self.world.with(|inner| inner.process(member).doomed.is_some()) {
            self.bury(member);
        }
    }

    /// A life is over: everything that it was doing is dropped where it stands.
    fn bury(&mut self, member: MemberId) {
        self.lives.remove(&member);
        self.world.with(|inner| {
            let now = inner.now;
            let process = inner.process(member);
            let death = process.doomed.take();
            process.running = false;
            process.calls = None;
            process.platter.failing = None;
            let stopped = death == Some(Death::Stopped);
            let down = if stopped && !process.excused { RESTART } else { process.down.max(QUANTUM) };
            let excused = std::mem::take(&mut process.excused) | process.unsound;
            process.restart_at = (!process.retired).then_some(now + down);
            if stopped && !excused && !process.retired {
                let what = format!("{member} stopped by itself, and nothing was wrong with its disk");
                inner.court.accuse(now, "stopped", what);
            }
        });
    }

    /// Heals what is needed, breaks the rest for good, and waits until every instance works again.
    fn recover(&mut self) {
        let script = self.script.clone();
        self.world.with(|inner| heal(inner, &script));
        let end = self.now + RECOVERY * 1000;
        let mut next = self.now;
        while self.now < end {
            if self.now >= next {
                next = self.now + 2_000_000;
                self.world.with(|inner| tend(inner, &script));
            }
            self.step();
            if self.world.with(|inner| !inner.court.violations.is_empty() || sick(inner).is_empty()) {
                return;
            }
        }
        self.world.with(|inner| {
            for what in sick(inner) {
                inner.court.accuse(inner.now, "recovery", what);
            }
        });
    }

    fn finish(self) -> Report {
        let stores = self.lives.values().filter_map(|life| life.store.borrow().clone());
        let states: Vec<policies::ClusterState> = stores.map(|store| store.read(Clone::clone)).collect();
        let now = self.now;
        drop(self.lives);
        self.world.with(|inner| {
            for state in states {
                if state.applied == inner.court.scene.state.applied && state != inner.court.scene.state {
                    inner.court.accuse(now, "log", "a member's state at the end differs".to_owned());
                }
            }
            inner.court.end(now);
            inner.mix(&[libc::drawn(), inner.dice.drawn()]);
            Report {
                digest: inner.trace.digest(),
                violations: std::mem::take(&mut inner.court.violations),
                sometimes: inner.court.sometimes(),
                facts: inner.trace.facts,
                length: now / 1000,
                lines: inner.trace.lines().to_vec(),
                story: inner.trace.story().to_vec(),
            }
        })
    }
}

/// What a member does in one quantum.
struct Turn {
    length: u64,
    jump: bool,
    suspended: u64,
    stepped: u64,
    restarts: bool,
    paused: bool,
}

/// A core that can work: a majority of members, all providers, spares that boot. Everything else stays as it is.
fn heal(inner: &mut Inner, script: &Script) {
    inner.fact(Fact::Trouble { what: "a core is healed, the rest stays broken".to_owned() });
    inner.net.usual_loss = 0;
    inner.calm_network();
    inner.net.cut.clear();
    inner.cut_nodes.clear();
    inner.array.manners = Default::default();
    inner.trap = None;
    let members: Vec<MemberId> = inner.processes.keys().copied().collect();
    lose_some(inner, script);
    let now = inner.now;
    for member in members {
        let process = inner.process(member);
        process.platter.pace = 0;
        process.paused_until = 0;
        process.down = 0;
        (process.dies_after_syncs, process.dies_after_sends) = (None, None);
        process.excused |= process.platter.failing.is_some();
        process.restart_at = process.restart_at.map(|at| at.min(now));
    }
    let policy = script.policy.clone();
    inner.change_policy(|now| *now = policy);
    for machine in inner.machines.values_mut() {
        machine.boots = true;
        // What is broken now stays broken: a node that hangs goes on hanging.
        if machine.life == NodeLife::Hangs || machine.life == NodeLife::KernelOnly {
            machine.starts += u64::from(machine.power);
        }
        machine.nic_cut_until = if machine.nic_cut_until > inner.now { u64::MAX } else { 0 };
        let spare = machine.name.as_str().starts_with('s');
        machine.mood = if spare { Mood::Honest } else { machine.mood };
        machine.bmc_dies_with_power = false;
    }
}

/// Fewer than half of the members never come back; but not while one is being replaced, for then who votes is in flux.
fn lose_some(inner: &mut Inner, script: &Script) {
    let replaces = |fault: &Fault| matches!(fault, Fault::Order(Order::Replace { .. }));
    if script.faults.iter().any(|(_, fault)| replaces(fault)) {
        return;
    }
    let first = inner.dice.between(1, script.members);
    let lost = inner.dice.between(0, (script.members - 1) / 2);
    for number in 0..lost {
        inner.retire(MemberId((first + number) % script.members + 1));
    }
}

/// What operators do while they wait: arm, end maintenance, repair and release what is quarantined.
fn tend(inner: &mut Inner, script: &Script) {
    let state = inner.court.scene.state.clone();
    if !state.armed.armed {
        inner.propose("operator", Command::Arm { reason: "sim".to_owned() });
    }
    evacuate_by_hand(inner, &state);
    let wanted = script.policy.clone();
    if state.policies.iter().any(|(name, record)| name.as_str() == "sim" && record.policy != wanted) {
        inner.change_policy(|now| *now = wanted);
    }
    for (name, record) in &state.nodes {
        if record.maintenance.is_some() {
            inner.propose("operator", Command::Maintain { node: name.clone(), reason: None, until: None });
        }
        if record.cordoned {
            inner.propose("operator", Command::Cordon { node: name.clone(), on: false });
        }
        if let NodeState::Quarantined { .. } = record.state {
            inner.lose_power(name);
            let machine = inner.machine(name);
            (machine.mood, machine.boots, machine.nic_cut_until) = (Mood::Honest, true, 0);
            inner.propose("operator", Command::Release { node: name.clone(), reason: "sim".to_owned() });
        }
        let called_off = matches!(record.withheld, Some(policies::Waiting::CalledOff { .. }));
        if let (true, Some(instance)) = (called_off, state.instance_on(name)) {
            let instance: InstanceId = instance.instance.name.clone();
            inner.propose("operator", Command::Evacuate { instance, reason: "sim".to_owned() });
        }
        // A spare that somebody switched on does not fit; they switch it off again.
        if record.state == NodeState::Spare {
            inner.lose_power(name);
        }
    }
}

/// When most nodes are silent the program holds, by design, for it is probably its own network. That they are really dead
/// only a human can tell, who then orders what is to be moved.
fn evacuate_by_hand(inner: &mut Inner, state: &ClusterState) {
    let now = inner.now;
    let dead = |inner: &mut Inner, node: &NodeId| !inner.machine(node).is_well(now);
    let records: Vec<&InstanceRecord> = state.instances.values().collect();
    let sick: Vec<&&InstanceRecord> = records.iter().filter(|record| dead(inner, &record.node)).collect();
    if sick.len() * 2 < records.len() {
        return;
    }
    for record in sick {
        let instance = record.instance.name.clone();
        if record.evacuate.is_none() && state.plan_of_instance(&instance).is_none() {
            inner.propose("operator", Command::Evacuate { instance, reason: "sim".to_owned() });
        }
    }
}

/// Instances that do not work, each with what is known about it.
fn sick(inner: &mut Inner) -> Vec<String> {
    let records: Vec<_> = inner.court.scene.state.instances.values().cloned().collect();
    let mut sick = vec![];
    for record in records {
        let now = inner.now;
        let machine = inner.machine(&record.node);
        let works = machine.is_well(now) && machine.epoch == record.epoch;
        let state = &inner.court.scene.state;
        let plan = state.plan_of_instance(&record.instance.name);
        let active = state.nodes.get(&record.node).map(|node| &node.state);
        let carries =
            matches!(active, Some(NodeState::Active { instance }) if *instance == record.instance.name);
        if works && carries && plan.is_none() {
            continue;
        }
        let node = state.nodes.get(&record.node);
        sick.push(format!(
            "{} on {} ({}) does not work: {}, {:?}, {:?}",
            record.instance.name,
            record.node,
            record.epoch,
            node.map_or_else(String::new, |node| node.verdict.to_string()),
            node.and_then(|node| node.withheld.as_ref()),
            plan.map(|plan| (plan.id, plan.phase, plan.stuck.clone())),
        ));
    }
    sick
}
