//! Makes troubles happen, and what people do about them.
//!
//! Why it exists: one place where each trouble has its meaning.
//! What it never does: choose; the script has.

use super::dice::Dice;
use super::fault::{Fault, Order};
use super::machine::{Life, Mood};
use super::member::Call;
use super::world::{Death, ECHO, Inner};
use crate::checkers::{Fact, Request};
use policies::{
    After, Command, MemberId, Millis, NodeId, NodeState, Phase, PlanId, Policy, PolicyId, Proposal, Wall,
};
use std::sync::Arc;

const MS: u64 = 1000;
/// The longest usual delay of a packet, in µs.
const USUAL_DELAY: u64 = 2_000;
/// Between two orders of an operator in a hurry, in µs: shorter than any `effect_max`.
const HURRY: u64 = 300_000;

impl Inner {
    /// A trouble begins.
    pub fn happen(&mut self, fault: &Fault) {
        self.fact(Fact::Trouble { what: fault.to_string() });
        match fault.clone() {
            Fault::Die { member, death, down } => {
                self.process(member).down = down * MS;
                self.doom(member, Some(death));
            }
            Fault::DieAfterSyncs { member, syncs, death, down } => {
                let process = self.process(member);
                (process.down, process.dies_after_syncs) = (down * MS, Some((syncs, death)));
            }
            Fault::DieAfterSends { member, sends, death, down } => {
                let process = self.process(member);
                (process.down, process.dies_after_sends) = (down * MS, Some((sends, death)));
            }
            Fault::Pause { member, length } => {
                self.process(member).paused_until = self.now + length * MS;
            }
            Fault::Trap { moment, skips, blow, length } => {
                self.trap = Some((moment, skips, blow, length * MS));
            }
            Fault::Echo { in_thousand, length } => {
                self.echo = in_thousand;
                self.after(length * MS, |inner| inner.echo = ECHO);
            }
            Fault::Suspend { member, length } => {
                self.process(member).asleep_until = self.now + length * MS;
            }
            Fault::Rate { member, rate } => self.process(member).rate = rate,
            Fault::WallClock { member, ahead } => {
                let process = self.process(member);
                process.wall_step += ahead * MS * 1000;
                process.wall_stepped += ahead * MS * 1000;
            }
            Fault::OneWay { from, to, length } => self.cut(from, to, length * MS),
            Fault::Isolate { member, length } => self.isolate(member, length * MS),
            Fault::Lossy { in_thousand, delay, length } => {
                (self.net.loss, self.net.delay) = (in_thousand, delay);
                self.after(length * MS, Inner::calm_network);
            }
            Fault::SlowDisk { member, pace, length } => {
                self.process(member).platter.pace = pace;
                self.after(length * MS, move |inner| inner.process(member).platter.pace = 0);
            }
            Fault::FailingDisk { member, full, down } => {
                let process = self.process(member);
                let kind = if full { std::io::ErrorKind::StorageFull } else { std::io::ErrorKind::Other };
                process.platter.failing = Some(kind);
                process.down = down * MS;
                process.excused = true;
            }
            Fault::LyingDisk { member, length } => {
                self.process(member).platter.lying = true;
                self.after(length * MS, move |inner| {
                    inner.doom(member, Some(Death::Power));
                    inner.process(member).platter.lying = false;
                });
            }
            Fault::Rot { member, bytes, down } => {
                self.process(member).down = down * MS;
                self.doom(member, Some(Death::Power));
                let mut dice = Dice::new(self.dice.draw());
                let process = self.process(member);
                process.platter.rot(bytes, &mut dice);
                process.unsound = true;
            }
            other @ (Fault::Hang { .. }
            | Fault::AgentDies { .. }
            | Fault::Panic { .. }
            | Fault::PowerLoss { .. }
            | Fault::Nic { .. }
            | Fault::Deaf { .. }
            | Fault::DeafToAll { .. }
            | Fault::Bmc { .. }
            | Fault::SelfBoot { .. }
            | Fault::WontBoot { .. }
            | Fault::Provider { .. }
            | Fault::Order(_)) => self.happen_to_node(other),
        }
    }

    fn happen_to_node(&mut self, fault: Fault) {
        let now = self.now;
        match fault {
            Fault::Hang { node, length } => self.live(&node, Life::Hangs, length),
            Fault::AgentDies { node, length } => self.live(&node, Life::KernelOnly, length),
            Fault::Panic { node } => self.panic(&node),
            Fault::PowerLoss { node, with_bmc } => {
                self.lose_power(&node);
                if with_bmc {
                    self.machine(&node).mood = Mood::Dead;
                }
            }
            Fault::Nic { node, length } => self.machine(&node).nic_cut_until = now + length * MS,
            Fault::Deaf { node, member, length } => {
                self.cut_nodes.insert((node, member), now + length * MS);
            }
            Fault::DeafToAll { member, length } => {
                let nodes: Vec<NodeId> = self.machines.keys().cloned().collect();
                for node in nodes {
                    self.cut_nodes.insert((node, member), now + length * MS);
                }
            }
            Fault::Bmc { node, mood, length } => {
                self.machine(&node).mood = mood;
                self.after(length * MS, move |inner| inner.machine(&node).mood = Mood::Honest);
            }
            Fault::SelfBoot { node } => self.gain_power(&node),
            Fault::WontBoot { node, length } => {
                self.machine(&node).boots = false;
                self.after(length * MS, move |inner| inner.machine(&node).boots = true);
            }
            Fault::Provider { device, manner, length } => {
                self.array.manners[device] = manner;
                self.after(length * MS, move |inner| inner.array.manners[device] = Default::default());
            }
            Fault::Order(order) => self.order(order),
            Fault::Die { .. }
            | Fault::DieAfterSyncs { .. }
            | Fault::DieAfterSends { .. }
            | Fault::Pause { .. }
            | Fault::Trap { .. }
            | Fault::LyingDisk { .. }
            | Fault::Rot { .. }
            | Fault::Echo { .. }
            | Fault::Suspend { .. }
            | Fault::Rate { .. }
            | Fault::WallClock { .. }
            | Fault::OneWay { .. }
            | Fault::Isolate { .. }
            | Fault::Lossy { .. }
            | Fault::SlowDisk { .. }
            | Fault::FailingDisk { .. } => {}
        }
    }

    /// Packets are lost and late as usual.
    pub fn calm_network(&mut self) {
        (self.net.loss, self.net.delay) = (self.net.usual_loss, USUAL_DELAY);
    }

    fn cut(&mut self, from: MemberId, to: MemberId, length: u64) {
        self.net.cut.insert((from, to), self.now + length);
    }

    /// Nothing passes between a member and the others, for so many µs.
    pub fn isolate(&mut self, member: MemberId, length: u64) {
        let others: Vec<MemberId> = self.processes.keys().copied().collect();
        for other in others.into_iter().filter(|other| *other != member) {
            self.cut(member, other, length);
            self.cut(other, member, length);
        }
    }

    /// A node lives like this for a while, then goes on as before if it still has power.
    fn live(&mut self, node: &NodeId, life: Life, length: u64) {
        let machine = self.machine(node);
        if !machine.power || machine.life != Life::Works {
            return;
        }
        machine.life = life;
        let start = machine.starts;
        let node = node.clone();
        self.after(length * MS, move |inner| {
            let machine = inner.machine(&node);
            if machine.power && machine.starts == start && machine.life == life {
                machine.life = Life::Works;
            }
        });
    }

    /// An operator who waits for nothing.
    fn hurry(&mut self, until: u64) {
        if self.now >= until {
            return;
        }
        self.order(Order::ReleaseAll);
        let number = self.dice.between(0, 7);
        self.order(Order::Evacuate(number));
        self.after(HURRY, move |inner| inner.hurry(until));
    }

    /// An operator who trusts no node that has just taken over.
    fn chase(&mut self, until: u64) {
        if self.now >= until {
            return;
        }
        let last = self.court.scene.state.plans.values().next_back();
        if let Some(node) =
            last.filter(|plan| plan.phase == Phase::Done).and_then(|plan| plan.decision.spare.clone())
        {
            self.propose("operator", Command::Fence { node, reason: "sim".to_owned() });
        }
        self.after(HURRY, move |inner| inner.chase(until));
    }

    fn order(&mut self, order: Order) {
        let reason = || "sim".to_owned();
        match order {
            Order::Evacuate(number) => {
                let Ok(instance) = format!("i{number:02}").parse() else { return };
                self.propose("operator", Command::Evacuate { instance, reason: reason() });
            }
            Order::Backup(number) => {
                let Ok(instance) = format!("i{number:02}").parse() else { return };
                self.propose("operator", Command::Backup { instance, reason: reason() });
            }
            Order::Drain { node, shutdown } => {
                self.propose("operator", Command::Drain { node, reason: reason(), shutdown });
            }
            Order::Fence(node) => self.propose("operator", Command::Fence { node, reason: reason() }),
            Order::CancelAny => {
                let plans = self.court.scene.state.running();
                let plans: Vec<PlanId> = plans.map(|plan| plan.id).collect();
                for plan in plans {
                    self.propose("operator", Command::Cancel { plan, reason: reason() });
                }
            }
            Order::ReleaseAll => {
                for node in self.nodes_that(|state| matches!(state, NodeState::Quarantined { .. })) {
                    self.propose("operator", Command::Release { node, reason: reason() });
                }
            }
            Order::Chase { length } => self.chase(self.now + length * MS),
            Order::Hurry { length } => self.hurry(self.now + length * MS),
            Order::ConfirmOff => {
                for node in self.nodes_that(|state| matches!(state, NodeState::Fencing { .. })) {
                    // Operators look before they vouch.
                    if !self.machine(&node).power {
                        self.propose("operator", Command::ConfirmOff { node, reason: reason() });
                    }
                }
            }
            Order::Disarm { length } => {
                self.propose("operator", Command::Disarm { reason: reason(), until: None });
                self.after(length * MS, |inner| {
                    inner.propose("operator", Command::Arm { reason: "sim".to_owned() });
                });
            }
            Order::Maintain { node, length } => {
                let command = Command::Maintain { node: node.clone(), reason: Some(reason()), until: None };
                self.propose("operator", command);
                self.after(length * MS, |inner| {
                    inner.propose("operator", Command::Maintain { node, reason: None, until: None });
                });
            }
            Order::Cordon { node, length } => {
                self.propose("operator", Command::Cordon { node: node.clone(), on: true });
                self.after(length * MS, |inner| {
                    inner.propose("operator", Command::Cordon { node, on: false });
                });
            }
            Order::Policy { fences_in_flight_max, isolation_alone } => {
                self.change_policy(|policy| {
                    policy.brakes.fences_in_flight_max = fences_in_flight_max;
                    let brake = &mut policy.brakes.fences_per_10min_max;
                    *brake = (*brake).max(fences_in_flight_max);
                    let after = After::Time(Millis(1000));
                    policy.fencing.isolation_alone = if isolation_alone { after } else { After::Never };
                });
            }
            Order::Transfer(member) => self.ask_leader(Call::Transfer(member)),
            Order::Replace { old, new } => self.replace(old, new),
        }
    }

    fn replace(&mut self, old: MemberId, new: MemberId) {
        // An id is never used again.
        let process = self.process(new);
        if process.life > 0 {
            return;
        }
        process.restart_at = Some(0);
        for pause in [500, 2_000, 4_000] {
            self.after(pause * MS, move |inner| inner.ask_leader(Call::Admit(new)));
        }
        for pause in [6_000, 8_000, 12_000] {
            self.after(pause * MS, move |inner| inner.ask_leader(Call::Remove { old, new }));
        }
    }

    /// Whoever has removed a member switches it off for good.
    pub fn retire(&mut self, member: MemberId) {
        let process = self.process(member);
        (process.retired, process.restart_at) = (true, None);
        self.doom(member, Some(Death::Killed));
    }

    fn nodes_that(&self, are: impl Fn(&NodeState) -> bool) -> Vec<NodeId> {
        let nodes = self.court.scene.state.nodes.values();
        nodes.filter(|record| are(&record.state)).map(|record| record.node.name.clone()).collect()
    }

    /// Changes the policy of all instances.
    pub fn change_policy(&mut self, change: impl FnOnce(&mut Policy)) {
        let state = &self.court.scene.state;
        let Some((name, record)) = state.policies.iter().find(|(name, _)| name.as_str() == "sim") else {
            return;
        };
        let (name, mut policy): (PolicyId, Policy) = (name.clone(), record.policy.clone());
        change(&mut policy);
        let (policy, reason) = (Box::new(policy), "drawn".to_owned());
        self.propose("operator", Command::SetPolicy { name, policy, check: None, reason });
    }

    /// Whoever leads, as far as is known; else anybody who runs.
    fn someone(&mut self) -> Option<MemberId> {
        let leader = self.court.scene.state.leadership.map(|leadership| leadership.member);
        let up = |member: &MemberId| self.processes.get(member).is_some_and(super::world::Process::is_up);
        let running: Vec<MemberId> = self.processes.keys().copied().filter(up).collect();
        let leader = leader.filter(up);
        match (running.is_empty(), leader) {
            (true, _) => None,
            (false, Some(leader)) if self.dice.chance(900) => Some(leader),
            (false, _) => Some(*self.dice.one_of(&running)),
        }
    }

    fn ask_leader(&mut self, call: Call) {
        let Some(member) = self.someone() else { return };
        self.call(member, call);
    }

    fn call(&mut self, member: MemberId, call: Call) {
        if let Some(calls) = &self.process(member).calls {
            // A member that has just died answers nobody.
            drop(calls.send(call));
        }
    }

    /// A client asks somebody to put a command into the log.
    pub fn propose(&mut self, by: &str, command: Command) {
        let Some(member) = self.someone() else { return };
        self.requests += 1;
        // A stamp that no other proposal has, so that each can be told from all others.
        let at = Wall(1_000_000 + self.requests);
        let proposal = Arc::new(Proposal { at, by: by.to_owned(), command });
        let request = self.requests;
        self.fact(Fact::Asked { request, what: Request::Propose(Arc::clone(&proposal)) });
        self.call(member, Call::Propose { request, proposal });
    }

    /// A client asks somebody for the newest state.
    pub fn read(&mut self) {
        let Some(member) = self.someone() else { return };
        self.requests += 1;
        let request = self.requests;
        self.fact(Fact::Asked { request, what: Request::Read });
        self.call(member, Call::Read { request });
    }

    /// Clients, for ever.
    pub fn clients(&mut self) {
        let pause = self.dice.between(100, 900);
        self.after(pause * MS, |inner| {
            match inner.dice.chance(600) {
                true => inner.propose("client", Command::Note { text: format!("note {}", inner.requests) }),
                false => inner.read(),
            }
            inner.clients();
        });
    }
}
