//! A node: power, operating system, agent and BMC. Obeys what reaches it; knows nothing of plans.
//!
//! Why it exists: nodes hang, panic, come back by themselves, and their BMCs are slow, dead, or lie.
//! What it never does: stop using what it was given before it is really cut off.

use super::dice::Dice;
use super::world::Inner;
use crate::checkers::{Deed, Fact};
use ha_agent::key::Key;
use ha_agent::wire::{Beat, NodeTag, encode};
use policies::{BootId, BootRole, Epoch, Heartbeat, LastGasp, MemberId, Millis, NodeId};

/// Between two heartbeats.
const BEAT: u64 = 250_000;
/// From the agent's farewell to the end of power when a node shuts down, in µs.
const SHUTDOWN: (u64, u64) = (500_000, 20_000_000);
/// Operating systems in a thousand that ignore the power button.
const DEAF_TO_THE_BUTTON: u64 = 100;

/// What runs on a node that has power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Nothing yet.
    Boots,
    /// Everything.
    Works,
    /// The kernel alone.
    KernelOnly,
    /// Nothing answers; memory and sessions are still there.
    Hangs,
}

/// How a BMC behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// As it should.
    Honest,
    /// Takes this many ms for an answer.
    Slow(u64),
    /// Says that it has switched off, reads as off, and does nothing.
    Lies,
    /// Answers nothing.
    Dead,
    /// Takes commands, answers nothing, and carries them out as late as it may.
    Late,
    /// Lets nobody in.
    Full,
    /// Says no.
    Refuses,
}

/// A node.
#[derive(Debug)]
pub struct Machine {
    /// Its name.
    pub name: NodeId,
    key: Key,
    /// Whether it has power.
    pub power: bool,
    /// What runs on it.
    pub life: Life,
    /// Counts its starts; also its boot id.
    pub starts: u64,
    sequence: u64,
    /// The placement that it believes to run.
    pub epoch: Epoch,
    /// Nothing goes in or out of its network card until then.
    pub nic_cut_until: u64,
    /// What its BMC does.
    pub mood: Mood,
    /// The BMC has no power of its own.
    pub bmc_dies_with_power: bool,
    /// What a lying BMC claims.
    claims_off: bool,
    /// It stays dark when it is switched on.
    pub boots: bool,
    /// Milliseconds from power-on to the first heartbeat.
    pub boot_time: u64,
    /// Milliseconds from the command to the end of power.
    pub off_time: u64,
    gasp: Option<LastGasp>,
    last_write: u64,
}

impl Machine {
    /// A node that is on and works, or is off.
    pub fn new(name: NodeId, key: Key, power: bool, epoch: Epoch) -> Self {
        Machine {
            name,
            key,
            power,
            life: Life::Works,
            starts: 1,
            sequence: 0,
            epoch,
            nic_cut_until: 0,
            mood: Mood::Honest,
            bmc_dies_with_power: false,
            claims_off: false,
            boots: true,
            boot_time: 1000,
            off_time: 50,
            gasp: None,
            last_write: 0,
        }
    }

    /// True if its kernel would answer a question that reaches it.
    pub fn kernel_answers(&self) -> bool {
        self.power && matches!(self.life, Life::Works | Life::KernelOnly)
    }

    /// What its BMC says of power; `None`: it does not answer.
    pub fn reads_on(&self) -> Option<bool> {
        match self.mood {
            Mood::Dead | Mood::Late | Mood::Full => None,
            _ if self.bmc_dies_with_power && !self.power => None,
            Mood::Lies => Some(self.power && !self.claims_off),
            Mood::Honest | Mood::Slow(_) | Mood::Refuses => Some(self.power),
        }
    }

    /// True if it waits for an instance.
    fn waits_hot(&self) -> bool {
        self.power && self.life == Life::Works && self.epoch == Epoch::STANDBY
    }

    /// True if nothing is wrong with it.
    pub fn is_well(&self, now: u64) -> bool {
        self.power && self.life == Life::Works && now >= self.nic_cut_until
    }
}

impl Inner {
    /// A node by its name.
    pub fn machine(&mut self, node: &NodeId) -> &mut Machine {
        let place = self.machines.get_mut(node);
        #[expect(clippy::expect_used, reason = "every node of a simulation is made at its beginning")]
        place.expect("a node of this world")
    }

    /// Its next heartbeats, for ever.
    pub fn beat_for_ever(&mut self, node: NodeId) {
        let pause = self.dice.between(BEAT - 2_000, BEAT + 2_000);
        self.after(pause, move |inner| {
            inner.beat(&node);
            inner.beat_for_ever(node);
        });
    }

    fn beat(&mut self, node: &NodeId) {
        let now = self.now;
        let writes = self.array.may_write(node);
        let machine = self.machine(node);
        if writes && machine.life == Life::Works {
            machine.last_write = now;
        }
        if !machine.is_well(now) {
            return;
        }
        machine.sequence += 1;
        let runs = machine.epoch.0 > 0 && machine.epoch != Epoch::STANDBY;
        let write_age = runs.then(|| Millis((now - machine.last_write) / 1000));
        let said = Heartbeat {
            boot: BootId(machine.starts),
            epoch: machine.epoch,
            write_age,
            last_gasp: machine.gasp,
        };
        let tag = NodeTag::of(machine.name.as_str());
        let beat = Beat { node: tag, path: 0, sequence: machine.sequence, asks: false, said };
        let datagram = encode(&beat, &machine.key);
        let members: Vec<MemberId> = self.processes.keys().copied().collect();
        for member in members {
            self.send_beat(node, member, datagram);
        }
    }

    /// A datagram: late, twice, or never.
    fn send_beat(&mut self, node: &NodeId, member: MemberId, datagram: [u8; 64]) {
        if self.is_node_cut(node, member) || self.dice.chance(self.net.loss) {
            return;
        }
        let copies = 1 + u64::from(self.dice.chance(5));
        for _ in 0..copies {
            let late = if self.dice.chance(5) { self.dice.between(0, 800_000) } else { 0 };
            let delay = self.dice.between(100, 2_000) + late;
            let node = node.clone();
            self.after(delay, move |inner| inner.hear(&node, member, datagram));
        }
    }

    fn hear(&mut self, node: &NodeId, member: MemberId, datagram: [u8; 64]) {
        let now = self.now;
        let process = self.process(member);
        if !process.is_up() {
            return;
        }
        process.inbox.push(datagram);
        if let Some(ears) = process.ears.take() {
            ears.wake();
        }
        self.court.heard(now, node, member);
    }

    /// Whether nothing passes between a node and a member.
    pub fn is_node_cut(&self, node: &NodeId, member: MemberId) -> bool {
        let until = self.cut_nodes.get(&(node.clone(), member)).copied().unwrap_or(0);
        let nic = self.machines.get(node).map_or(0, |machine| machine.nic_cut_until);
        self.now < until.max(nic)
    }

    /// The kernel panics: its last words, then silence.
    pub fn panic(&mut self, node: &NodeId) {
        let machine = self.machine(node);
        if machine.power && machine.life == Life::Works {
            machine.gasp = Some(LastGasp::Panic);
            self.beat(node);
            self.machine(node).life = Life::Hangs;
        }
    }

    /// The diagnostic interrupt: whatever runs stops, and nothing tells of it.
    pub fn interrupt(&mut self, node: &NodeId) {
        let machine = self.machine(node);
        if machine.power {
            machine.life = Life::Hangs;
        }
    }

    /// The power button is pressed shortly: what works says farewell, ends its work, and is off a while later. What hangs
    /// does not notice, and some do not listen.
    pub fn press_button(&mut self, node: &NodeId) {
        let machine = self.machine(node);
        if !machine.power || machine.life != Life::Works || self.dice.chance(DEAF_TO_THE_BUTTON) {
            return;
        }
        self.machine(node).gasp = Some(LastGasp::Shutdown);
        self.beat(node);
        let machine = self.machine(node);
        machine.life = Life::KernelOnly;
        let (start, node) = (machine.starts, node.clone());
        let length = self.dice.between(SHUTDOWN.0, SHUTDOWN.1);
        self.after(length, move |inner| {
            if inner.machine(&node).starts == start {
                inner.lose_power(&node);
            }
        });
    }

    /// Power comes. Booting takes a while, and what is booted is what the boot service says by then.
    pub fn gain_power(&mut self, node: &NodeId) {
        let machine = self.machine(node);
        if machine.power {
            return;
        }
        (machine.power, machine.life, machine.gasp) = (true, Life::Boots, None);
        machine.starts += 1;
        machine.epoch = Epoch(0);
        let (start, boot_time, boots) = (machine.starts, machine.boot_time * 1000, machine.boots);
        self.fact(Fact::Power { node: node.clone(), on: true });
        self.use_what_it_may(node);
        if boots {
            let node = node.clone();
            self.after(boot_time, move |inner| inner.booted(&node, start));
        }
    }

    /// While it waits as a hot spare, for ever: it asks what it is to run, and is told what was so when it asked, soon or late.
    pub fn wait_for_ever(&mut self, node: NodeId, mut dice: Dice) {
        self.after(dice.between(50_000, 150_000), move |inner| {
            let now = inner.now;
            let machine = inner.machine(&node);
            let (waits, start) = (machine.waits_hot() && machine.is_well(now), machine.starts);
            if waits {
                let late = if dice.chance(20) { dice.between(0, 2_000_000) } else { 0 };
                let (delay, told) = (dice.between(500, 5_000) + late, node.clone());
                let role = inner.court.scene.state.boot_role(&node, None);
                inner.after(delay, move |inner| inner.told(&told, start, role));
            }
            inner.wait_for_ever(node, dice);
        });
    }

    /// A hot spare hears what it is to run. With its life its questions end.
    fn told(&mut self, node: &NodeId, start: u64, role: BootRole) {
        let machine = self.machine(node);
        if machine.starts != start || !machine.waits_hot() {
            return;
        }
        match role {
            BootRole::Boots(booting) => {
                machine.gasp = Some(LastGasp::Shutdown);
                self.beat(node);
                let machine = self.machine(node);
                (machine.life, machine.gasp) = (Life::Boots, None);
                machine.starts += 1;
                let (start, boot_time, boots) = (machine.starts, machine.boot_time * 1000, machine.boots);
                if boots {
                    let node = node.clone();
                    self.after(boot_time, move |inner| inner.works(&node, start, booting.epoch));
                }
            }
            BootRole::Halts { .. } => self.lose_power(node),
            BootRole::Stands { .. } | BootRole::Local { .. } | BootRole::Waits { .. } => {}
        }
    }

    fn booted(&mut self, node: &NodeId, start: u64) {
        let stands = matches!(self.court.scene.state.boot_role(node, None), BootRole::Stands { .. });
        let epoch = if stands { Epoch::STANDBY } else { self.array.boots(node) };
        self.works(node, start, epoch);
    }

    fn works(&mut self, node: &NodeId, start: u64, epoch: Epoch) {
        let now = self.now;
        let machine = self.machine(node);
        if machine.power && machine.starts == start && machine.life == Life::Boots {
            (machine.life, machine.epoch, machine.last_write) = (Life::Works, epoch, now);
        }
    }

    /// Power goes.
    pub fn lose_power(&mut self, node: &NodeId) {
        let machine = self.machine(node);
        if machine.power {
            machine.power = false;
            self.drop_sessions(node);
            self.fact(Fact::Power { node: node.clone(), on: false });
        }
    }

    /// A power command takes effect.
    pub fn switch(&mut self, node: &NodeId, on: bool) {
        let machine = self.machine(node);
        match (machine.mood, on) {
            (Mood::Lies, false) => machine.claims_off = true,
            (_, false) => {
                let (start, off_time) = (machine.starts, machine.off_time * 1000);
                let deed = Deed::PowerOff { node: node.clone() };
                self.fact(Fact::Struck { deed });
                let node = node.clone();
                self.after(off_time, move |inner| {
                    if inner.machine(&node).starts == start {
                        inner.lose_power(&node);
                    }
                });
            }
            (_, true) => {
                machine.claims_off = false;
                let deed = Deed::PowerOn { node: node.clone() };
                self.fact(Fact::Struck { deed });
                self.gain_power(node);
            }
        }
    }
}
