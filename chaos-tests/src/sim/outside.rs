//! What a member reaches the world by: BMCs, providers, questions to kernels.
//!
//! Why it exists: the product's executor, its fencing algorithm and its carry-out algorithm are the real ones; only
//! the device at the far end is simulated. A command that was sent belongs to the world: it arrives even if its sender
//! is dead by then, late, or twice.
//! What it never does: break the physical assumption of R5: what has not taken effect by `effect_max` never will.

use super::array::{Manner, No};
use super::fault::Moment;
use super::machine::Mood;
use super::world::{Inner, World};
use crate::checkers::{Deed, Fact};
use fencing::{Act, DriverError, Look, PowerDriver, Weight};
use policies::{
    Check, ClusterState, Finding, Identity, LogIndex, MemberId, Millis, Node, NodeId, Permit, Power, Probe,
    Provider, Refusal,
};
use provisioning::{ProviderError, State, Wish};
use std::sync::Arc;
use std::time::Duration;
use supervisor::outside::Outside;
use supervisor::probe::{About, Answer};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// How long a driver waits for a mute BMC before it says so.
const MUTE_AFTER: Duration = Duration::from_millis(700);
/// Safety margin between the latest effect and what the policy promises, in µs.
const MARGIN: u64 = 100_000;

/// The world as one life of a member reaches it.
#[derive(Clone, Debug)]
pub struct SimOutside {
    /// The world.
    pub world: World,
    /// Who reaches.
    pub member: MemberId,
    /// In which life.
    pub life: u64,
    /// The longest time after which a power command may take effect.
    pub power_effect_max: Millis,
    /// The same for providers.
    pub provider_effect_max: Millis,
}

/// One node's BMC.
#[derive(Debug)]
pub struct SimPower {
    outside: SimOutside,
    node: NodeId,
}

impl Outside for SimOutside {
    type Power = SimPower;
    type Provider = SimOutside;

    fn power(&self, _state: &ClusterState, node: &Node, level: usize) -> Result<Arc<SimPower>, Refusal> {
        let known = node.fencing.get(level).is_some();
        let missing = || Refusal::NotConfigured(format!("fencing level {} of {}", level + 1, node.name));
        let power = SimPower { outside: self.clone(), node: node.name.clone() };
        known.then(|| Arc::new(power)).ok_or_else(missing)
    }

    fn provider(&self, _provider: &Provider) -> Result<SimOutside, Refusal> {
        Ok(self.clone())
    }

    async fn ask(&self, probe: &Probe, _about: About, count: u32, interval: Duration) -> Answer {
        let (Some(name), end) = (&probe.tcp, Instant::now() + interval * count) else { return Answer::Mute };
        let Ok(node) = name.parse::<NodeId>() else { return Answer::CouldNotAsk(name.clone()) };
        for _ in 0..count {
            let (answer, answered) = oneshot::channel();
            let member = self.member;
            let asked = node.clone();
            self.world.with(|inner| {
                let delay = inner.dice.between(200, 3_000);
                let lost = inner.dice.chance(inner.net.loss);
                inner.after(delay, move |inner| {
                    let reached = !lost && !inner.is_node_cut(&asked, member);
                    if reached && inner.machine(&asked).kernel_answers() {
                        answer.send(()).unwrap_or_default();
                    }
                });
            });
            if let Ok(Ok(())) = timeout_at(Instant::now() + interval, answered).await {
                return Answer::Answers;
            }
        }
        tokio::time::sleep_until(end).await;
        Answer::Mute
    }
}

impl SimOutside {
    fn is_over(&self, inner: &mut Inner) -> bool {
        !inner.process(self.member).is(self.life)
    }

    /// Says that a command leaves, and whether it really does.
    fn send(&self, inner: &mut Inner, deed: &Deed, token: Option<LogIndex>) -> bool {
        if self.is_over(inner) {
            return false;
        }
        inner.fact(Fact::Sent { member: self.member, deed: deed.clone(), token });
        inner.maybe_die_after_send(self.member);
        true
    }
}

/// How soon a device obeys.
#[derive(Clone, Copy, Debug)]
enum Pace {
    Usual,
    Slow,
    Late,
}

/// When a command takes effect, in µs from now: usually soon, sometimes as late as it may; a slow device is often late.
fn effect_delay(inner: &mut Inner, pace: Pace, max: Millis) -> u64 {
    let latest = (max.0 * 1000).saturating_sub(MARGIN);
    let late = match pace {
        Pace::Usual => inner.dice.chance(10),
        Pace::Slow => inner.dice.chance(300),
        Pace::Late => true,
    };
    match late {
        true => inner.dice.between(0, latest),
        false => inner.dice.between(200, 5_000),
    }
}

impl PowerDriver for SimPower {
    async fn look(&self, deadline: Instant) -> Result<Look, DriverError> {
        let (answer, answered) = oneshot::channel();
        let (node, member) = (self.node.clone(), self.outside.member);
        self.outside.world.with(|inner| {
            if self.outside.is_over(inner) {
                return;
            }
            let slow = if let Mood::Slow(ms) = inner.machine(&node).mood { ms * 1000 } else { 0 };
            let delay = inner.dice.between(200, 3_000) + slow;
            let node = node.clone();
            inner.after(delay, move |inner| {
                if let Some(on) = inner.machine(&node).reads_on() {
                    inner.fact(Fact::Looked { member, node, on });
                    let power = if on { Power::On } else { Power::Off };
                    drop(answer.send(Look { power, identity: Identity::default(), weight: Weight::Lasts }));
                }
            });
        });
        let limit = deadline.min(Instant::now() + MUTE_AFTER);
        match timeout_at(limit, answered).await {
            Ok(Ok(look)) => Ok(look),
            // The world has dropped the question; the driver learns that only by waiting.
            Ok(Err(_)) | Err(_) => {
                tokio::time::sleep_until(limit).await;
                let what = format!("the BMC of {}", self.node);
                Err(DriverError::Unreachable { what, source: None })
            }
        }
    }

    async fn act(&self, act: Act, permit: &dyn Permit, deadline: Instant) -> Result<(), DriverError> {
        permit.check().map_err(DriverError::NotPermitted)?;
        let node = self.node.clone();
        let (deed, on) = match act {
            Act::On => (Deed::PowerOn { node: node.clone() }, true),
            Act::Off => (Deed::PowerOff { node: node.clone() }, false),
            Act::SoftOff => {
                return self.touch(Deed::ShutDown { node }, Inner::press_button, deadline).await;
            }
            Act::Interrupt => return self.touch(Deed::Interrupt { node }, Inner::interrupt, deadline).await,
        };
        let (answer, answered) = oneshot::channel();
        self.outside.world.with(|inner| {
            if !self.outside.send(inner, &deed, None) {
                return;
            }
            let max = self.outside.power_effect_max;
            let pace = inner.power_pace(&node);
            let delay = effect_delay(inner, pace, max);
            if inner.dice.chance(inner.echo) {
                let again = effect_delay(inner, Pace::Late, max).max(delay);
                let (node, deed) = (node.clone(), deed.clone());
                inner.travel(again, deed, move |inner| inner.obey_power(&node, on).0);
            }
            inner.travel(delay, deed, move |inner| {
                let (obeyed, says) = inner.obey_power(&node, on);
                if let Some(says) = says {
                    let back = inner.dice.between(200, 3_000);
                    inner.after(back, move |_| answer.send(says).unwrap_or_default());
                }
                obeyed
            });
        });
        self.said(answered, deadline).await
    }

    async fn diagnose(&self, deadline: Instant) -> Result<Vec<String>, DriverError> {
        let power = match self.look(deadline).await?.power {
            Power::On => "on",
            Power::Off => "off",
        };
        Ok(vec![format!("chassis: power {power}; no fault reported"), "event log: empty".to_owned()])
    }
}

impl SimPower {
    /// What does not switch power itself: the button, pressed shortly, and the interrupt. What comes of it, if anything, is the
    /// operating system's.
    async fn touch(
        &self,
        deed: Deed,
        effect: fn(&mut Inner, &NodeId),
        deadline: Instant,
    ) -> Result<(), DriverError> {
        let (answer, answered) = oneshot::channel();
        let node = self.node.clone();
        self.outside.world.with(|inner| {
            if !self.outside.send(inner, &deed, None) {
                return;
            }
            let pace = inner.power_pace(&node);
            let delay = effect_delay(inner, pace, self.outside.power_effect_max);
            inner.travel(delay, deed.clone(), move |inner| {
                let (obeys, says) = inner.takes_power_command(&node);
                if obeys && inner.machine(&node).power {
                    inner.fact(Fact::Struck { deed });
                    effect(inner, &node);
                }
                if let Some(says) = says {
                    let back = inner.dice.between(200, 3_000);
                    inner.after(back, move |_| answer.send(says).unwrap_or_default());
                }
                obeys
            });
        });
        self.said(answered, deadline).await
    }

    async fn said(&self, answered: oneshot::Receiver<bool>, deadline: Instant) -> Result<(), DriverError> {
        let began = Instant::now();
        match timeout_at(deadline, answered).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(DriverError::Refused("the BMC says no".to_owned())),
            Ok(Err(_)) | Err(_) => {
                tokio::time::sleep_until(deadline).await;
                let waited = Millis(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
                Err(DriverError::NoAnswer { what: format!("the BMC of {}", self.node), waited })
            }
        }
    }
}

impl Inner {
    /// A power command arrives. Whether it has an effect, and what the BMC answers (`None`: nothing).
    fn obey_power(&mut self, node: &NodeId, on: bool) -> (bool, Option<bool>) {
        let (obeys, says) = self.takes_power_command(node);
        if obeys {
            self.switch(node, on);
        }
        (obeys, says)
    }

    /// Whether a BMC does what it is told, and what it answers (`None`: nothing).
    fn takes_power_command(&mut self, node: &NodeId) -> (bool, Option<bool>) {
        let machine = self.machine(node);
        let unpowered = machine.bmc_dies_with_power && !machine.power;
        match machine.mood {
            _ if unpowered => (false, None),
            Mood::Dead => (false, None),
            Mood::Full | Mood::Refuses => (false, Some(false)),
            Mood::Late => (true, None),
            Mood::Honest | Mood::Slow(_) | Mood::Lies => (true, Some(true)),
        }
    }

    fn power_pace(&mut self, node: &NodeId) -> Pace {
        match self.machine(node).mood {
            Mood::Late => Pace::Late,
            Mood::Slow(_) => Pace::Slow,
            Mood::Honest | Mood::Lies | Mood::Dead | Mood::Full | Mood::Refuses => Pace::Usual,
        }
    }

    /// A command is under way for `delay` µs.
    fn travel(&mut self, delay: u64, deed: Deed, arrive: impl FnOnce(&mut Inner) -> bool + Send + 'static) {
        self.court.under_way(&deed, 1);
        self.after(delay, move |inner| {
            inner.court.under_way(&deed, -1);
            arrive(inner);
        });
    }
}

/// Which of the array's three devices is meant.
fn device(deed: &Deed) -> usize {
    match deed {
        Deed::Revoke { .. }
        | Deed::Snapshot { .. }
        | Deed::Attach { .. }
        | Deed::PowerOff { .. }
        | Deed::ShutDown { .. }
        | Deed::Interrupt { .. }
        | Deed::PowerOn { .. } => 0,
        Deed::Close { .. } | Deed::Open { .. } => 1,
        Deed::Boot { .. } => 2,
    }
}

fn no_answer(doing: &Wish) -> ProviderError {
    ProviderError::NoAnswer { doing: doing.to_string(), source: None }
}

impl provisioning::Provider for SimOutside {
    async fn look(&self, wish: &Wish, deadline: Instant) -> Result<State, ProviderError> {
        let deed = Deed::of(wish).ok_or_else(|| no_cloud(wish))?;
        let (answer, answered) = oneshot::channel();
        self.world.with(|inner| {
            if self.is_over(inner) {
                return;
            }
            let mut delay = match inner.array.manners[device(&deed)] {
                Manner::Slow(ms) => inner.dice.between(0, ms * 1000),
                Manner::Away | Manner::Late => return,
                Manner::Well | Manner::Refuses => inner.dice.between(200, 3_000),
            };
            if inner.spring(self.member, Moment::Asked) {
                // About when another leads.
                delay += inner.dice.between(800_000, 2_000_000);
            }
            inner.after(delay, move |inner| {
                let holds = inner.array.holds(&deed);
                drop(answer.send(State::new(holds, if holds { "as wished" } else { "not yet" }.into())));
            });
        });
        match timeout_at(deadline, answered).await {
            Ok(Ok(state)) => Ok(state),
            Ok(Err(_)) | Err(_) => {
                tokio::time::sleep_until(deadline).await;
                Err(no_answer(wish))
            }
        }
    }

    async fn check(&self, check: &Check, deadline: Instant) -> Result<Finding, ProviderError> {
        let (answer, answered) = oneshot::channel();
        self.world.with(|inner| {
            if self.is_over(inner) {
                return;
            }
            let device = match check {
                Check::Volume(_) | Check::Snapshot(_) | Check::Backup(_) => 0,
                Check::Port(_) | Check::Free(_) => 1,
                Check::Boot(_) => 2,
            };
            let delay = match inner.array.manners[device] {
                Manner::Slow(ms) => inner.checks.between(0, ms * 1000),
                Manner::Away | Manner::Late => return,
                Manner::Well | Manner::Refuses => inner.checks.between(200, 3_000),
            };
            let check = check.clone();
            inner.after(delay, move |inner| drop(answer.send(inner.find(&check))));
        });
        match timeout_at(deadline, answered).await {
            Ok(Ok(finding)) => Ok(finding),
            Ok(Err(_)) | Err(_) => {
                tokio::time::sleep_until(deadline).await;
                Err(ProviderError::NoAnswer { doing: format!("look for {check}"), source: None })
            }
        }
    }

    async fn act(
        &self,
        wish: &Wish,
        token: LogIndex,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), ProviderError> {
        let deed = Deed::of(wish).ok_or_else(|| no_cloud(wish))?;
        let refused = |why| ProviderError::Refused { doing: wish.to_string(), why };
        permit.check().map_err(refused)?;
        let (answer, answered) = oneshot::channel();
        self.world.with(|inner| {
            if !self.send(inner, &deed, Some(token)) {
                return;
            }
            let pace = match inner.array.manners[device(&deed)] {
                Manner::Late => Pace::Late,
                Manner::Slow(_) => Pace::Slow,
                Manner::Well | Manner::Away | Manner::Refuses => Pace::Usual,
            };
            let max = self.provider_effect_max;
            let delay = effect_delay(inner, pace, max);
            if inner.dice.chance(inner.echo) {
                let again = effect_delay(inner, Pace::Late, max).max(delay);
                let repeated = deed.clone();
                inner.travel(again, deed.clone(), move |inner| inner.change(&repeated, token).is_ok());
            }
            inner.travel(delay, deed.clone(), move |inner| {
                let said = match inner.array.manners[device(&deed)] {
                    Manner::Away => return false,
                    Manner::Refuses => Err(No::Just),
                    Manner::Late => return inner.change(&deed, token).is_ok(),
                    Manner::Well | Manner::Slow(_) => inner.change(&deed, token),
                };
                let back = inner.dice.between(200, 3_000);
                let done = said.is_ok();
                inner.after(back, move |_| drop(answer.send(said)));
                done
            });
        });
        match timeout_at(deadline, answered).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(No::Old { newest }))) => Err(refused(Refusal::TokenTooOld { ours: token, newest })),
            Ok(Ok(Err(No::Held(holder)))) => Err(refused(Refusal::HeldByOther(holder.to_string()))),
            Ok(Ok(Err(No::Just))) => Err(refused(Refusal::DeviceRefused("not now".to_owned()))),
            Ok(Err(_)) | Err(_) => {
                tokio::time::sleep_until(deadline).await;
                Err(no_answer(wish))
            }
        }
    }
}

fn no_cloud(wish: &Wish) -> ProviderError {
    ProviderError::Configuration(format!("in the simulated world nobody can {wish}"))
}
