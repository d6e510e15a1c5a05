//! What can go wrong with a node of a cloud, or with the cloud itself, one by one, and what must come of it.
//!
//! Why it exists: `cloud test`. What it never does: look into the product; it asks the services, the BMCs, the storage and the API.
//!
//! After each the instance is in a newer epoch on another node of its pool, which alone has its port and volume; the old node can
//! reach neither, is off if its power could be proven, and Ironic keeps it in maintenance.

use super::machine::Life;
use super::phases::Phases;
use super::site::Site;
use super::testbed::{Cleaning, unexpected};
use super::{Described, Pool};
use crate::clock::now;
use crate::demo::DemoError;
use crate::demo::tally::Tally;
use crate::demo::wait::Look;
use crate::field::control;
use clap::ValueEnum;
use nix::sys::signal::Signal;
use openstack::{FixedIp, ProvisionState};
use policies::{Accepted, Epoch, NodeId, NodeState, Plan, PlanId, Wall, causes};
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Trial {
    /// A node started from virtual media hangs
    Hang,
    /// A node with a volume hangs
    HangVolume,
    /// It hangs, and its BMC answers nothing any more
    BmcHangs,
    /// It hangs, and its BMC refuses connections
    BmcRefuses,
    /// It hangs, and its BMC answers every request with an error
    BmcFails,
    /// A node with a volume hangs, and its BMC is frozen
    BmcFrozen,
    /// A node with a volume hangs; at each step of its failover Ironic is killed, and started again
    IronicDies,
    /// The same with Keystone
    KeystoneDies,
    /// The same with Neutron
    NeutronDies,
    /// The same with Cinder
    CinderDies,
    /// It hangs while Keystone does not answer
    KeystoneAway,
    /// It hangs while Neutron does not answer
    NeutronAway,
    /// A node with a volume hangs while Cinder does not answer
    CinderAway,
    /// It hangs, and the leader dies when it has begun to fence
    LeaderDiesFencing,
    /// It hangs, and the leader dies when it has told Ironic to deploy
    LeaderDiesDeploying,
    /// It hangs, and the leader stands still when it is giving the spare its volume; another one ends the failover, and it goes on
    LeaderDeposed,
    /// It hangs, and every token of the members becomes invalid when they have begun to fence
    TokenRevoked,
    /// A node with a volume hangs, of which Cinder says that it is being detached
    VolumeDetaching,
    /// It hangs, and the BMC of the spare dies when that is to be deployed
    SpareFails,
    /// A node of each kind hangs
    TwoAtOnce,
    /// A node with a volume hangs, and is fenced; somebody ends its maintenance and switches it on
    OnAgain,
    /// A node with a volume hangs, and somebody else has taken the next spare in Ironic
    SpareClaimed,
    /// A node with a volume hangs, and is released; Ironic fails to clean it, and cleans it when it is released again
    CleaningFails,
}

/// What begins with a failover's steps, in their order, as events tell them.
const STEPS: [&str; 5] = [": power off ", ": revoke ", ": attach ", ": attach VIF ", ": let "];

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

/// Runs these at a site that is up, a line for each; between them everything is made whole.
///
/// # Errors
/// [`DemoError::DidNotHold`] if one of them did not hold; the site itself stops the rest.
pub async fn test(
    site: &mut Site,
    trials: &[Trial],
    dir: &Path,
    tell: &dyn Fn(&str),
) -> Result<(), DemoError> {
    let mut tally = Tally::new(tell);
    for trial in trials {
        tally.run(trial, trial.run(site)).await;
        site.repair().await?;
        site.check()?;
    }
    tally.end(dir)
}

impl Trial {
    /// Whose node it befalls.
    fn pool(self) -> Pool {
        match self {
            Trial::HangVolume
            | Trial::BmcFrozen
            | Trial::IronicDies
            | Trial::KeystoneDies
            | Trial::NeutronDies
            | Trial::CinderDies
            | Trial::CinderAway
            | Trial::LeaderDeposed
            | Trial::VolumeDetaching
            | Trial::SpareFails
            | Trial::OnAgain
            | Trial::SpareClaimed
            | Trial::CleaningFails => Pool::Pxe,
            Trial::Hang
            | Trial::BmcHangs
            | Trial::BmcRefuses
            | Trial::BmcFails
            | Trial::KeystoneAway
            | Trial::NeutronAway
            | Trial::LeaderDiesFencing
            | Trial::LeaderDiesDeploying
            | Trial::TokenRevoked
            | Trial::TwoAtOnce => Pool::Redfish,
        }
    }

    async fn run(self, site: &mut Site) -> Result<String, DemoError> {
        let moving = Moving::begin(site, self.pool()).await?;
        if self == Trial::TwoAtOnce {
            let other = Moving::begin(site, Pool::Pxe).await?;
            site.machines.hang(&moving.from)?;
            site.machines.hang(&other.from)?;
            return Ok(format!("{}; {}", moving.end(site).await?, other.end(site).await?));
        }
        if self == Trial::SpareClaimed {
            return spare_claimed(site, moving).await;
        }
        if self == Trial::LeaderDeposed {
            return leader_deposed(site, moving).await;
        }
        let from = moving.from.clone();
        self.strike(site, &from).await?;
        let said = moving.end(site).await?;
        if self == Trial::OnAgain {
            on_again(site, &from).await?;
        }
        if self == Trial::CleaningFails {
            cleaning_fails(site, &from).await?;
        }
        Ok(said)
    }

    /// What befalls the node, and whoever has to deal with it.
    async fn strike(self, site: &mut Site, node: &NodeId) -> Result<(), DemoError> {
        match self {
            Trial::Hang
            | Trial::HangVolume
            | Trial::TwoAtOnce
            | Trial::OnAgain
            | Trial::LeaderDeposed
            | Trial::SpareClaimed
            | Trial::CleaningFails => site.machines.hang(node),
            Trial::BmcHangs => bmc(site, node, "hang").await,
            Trial::BmcRefuses => bmc(site, node, "refuse").await,
            Trial::BmcFails => bmc(site, node, "500").await,
            Trial::BmcFrozen => bmc(site, node, "freeze").await,
            Trial::IronicDies => dies(site, node, "ironic").await,
            Trial::KeystoneDies => dies(site, node, "keystone").await,
            Trial::NeutronDies => dies(site, node, "neutron").await,
            Trial::CinderDies => dies(site, node, "cinder-api").await,
            Trial::KeystoneAway => away(site, node, "keystone", ": close port ").await,
            Trial::NeutronAway => away(site, node, "neutron", ": close port ").await,
            Trial::CinderAway => away(site, node, "cinder-api", ": revoke ").await,
            Trial::LeaderDiesFencing => leader_dies(site, node, ": power off ").await,
            Trial::LeaderDiesDeploying => leader_dies(site, node, ": let ").await,
            Trial::TokenRevoked => token_revoked(site, node).await,
            Trial::VolumeDetaching => {
                let volume = &site.belongings(self.pool())?.volume;
                site.bed.set_status(volume, "detaching").await?;
                site.machines.hang(node)
            }
            Trial::SpareFails => spare_fails(site, node).await,
        }
    }
}

async fn bmc(site: &Site, node: &NodeId, what: &str) -> Result<(), DemoError> {
    site.bed.bmc(site.described(node)?, what).await?;
    site.machines.hang(node)
}

/// Kills a service whenever a step begins, and starts it again.
async fn dies(site: &Site, node: &NodeId, service: &str) -> Result<(), DemoError> {
    let events = site.members.events();
    site.machines.hang(node)?;
    for step in STEPS {
        site.members.told(events, step).await?;
        site.bed.service(service, "kill").await?;
        site.bed.service(service, "start").await?;
    }
    Ok(())
}

/// Lets a service stand still until the failover waits for it, and has seen that it does.
async fn away(site: &Site, node: &NodeId, service: &str, step: &str) -> Result<(), DemoError> {
    let events = site.members.events();
    site.bed.service(service, "freeze").await?;
    let struck = async {
        site.machines.hang(node)?;
        site.members.told(events, step).await
    };
    let struck = struck.await;
    site.bed.service(service, "thaw").await?;
    struck
}

/// Kills the leader when an event says this, and starts it again.
async fn leader_dies(site: &mut Site, node: &NodeId, moment: &str) -> Result<(), DemoError> {
    let (leader, events) = (site.members.leader().await?, site.members.events());
    site.machines.hang(node)?;
    site.members.leader_dies(leader, events, moment).await
}

/// What a leader had begun when it was deposed comes late, after another one has ended the failover, and changes nothing any more.
async fn leader_deposed(site: &Site, moving: Moving) -> Result<String, DemoError> {
    let (leader, events) = (site.members.leader().await?, site.members.events());
    site.machines.hang(&moving.from)?;
    site.members.told(events, ": attach ").await?;
    let pid = site.members.cluster.pid(leader);
    let pid = pid.ok_or_else(|| unexpected(format!("{leader} does not run")))?;
    control::signal(pid, Signal::SIGSTOP)?;
    let moved = site.moved(moving.pool, moving.epoch).await;
    control::signal(pid, Signal::SIGCONT)?;
    moved?;
    site.members.follows(leader).await?;
    moving.end(site).await
}

/// Keystone takes back what it has given while the failover is under way.
async fn token_revoked(site: &Site, node: &NodeId) -> Result<(), DemoError> {
    let events = site.members.events();
    site.machines.hang(node)?;
    site.members.told(events, ": power off ").await?;
    site.bed.revoke_tokens().await
}

/// The spare is given up, and another one takes over.
async fn spare_fails(site: &Site, node: &NodeId) -> Result<(), DemoError> {
    let events = site.members.events();
    site.machines.hang(node)?;
    site.members.told(events, ": let ").await?;
    let lines = site.members.failovers().await?;
    let spare = lines.iter().filter(|line| !line.phase.is_over()).find_map(|line| line.spare.clone());
    let spare = spare.ok_or_else(|| unexpected("no failover is under way".to_owned()))?;
    site.bed.bmc(site.described(&spare)?, "freeze").await?;
    site.members.told(events, &format!("gives {spare} up")).await
}

/// Somebody switches a fenced node on: the cluster switches it off again, and has it in maintenance again.
async fn on_again(site: &Site, node: &NodeId) -> Result<(), DemoError> {
    let (described, events) = (site.described(node)?, site.members.events());
    site.bed.switch_on(described).await?;
    site.members.told(events, &format!("{node} is quarantined, and its power is on")).await?;
    site.bed.fenced(described).await
}

/// A node that its cloud could not clean is nobody's spare; that is told with the reason, and mended by releasing it once more.
async fn cleaning_fails(site: &Site, node: &NodeId) -> Result<(), DemoError> {
    let described = site.described(node)?;
    let release = ["node", "release", node.as_str(), "--reason", "repaired", "--wait"];
    let cleaned = site.bed.cleaned(described).await?;
    site.bed.set_cleaning(node, Cleaning::Fails).await?;
    let released = site.members.cluster.hactl(release).await;
    site.bed.set_cleaning(node, Cleaning::Cleans).await?;
    let why = released.err().map(|error| causes(&error)).unwrap_or_default();
    let told = site.members.cluster.hactl(["node", "show", node.as_str()]).await?;
    let state = site.bed.node(&described.uuid).await?.provision_state;
    let is_told = [&why, &told].iter().all(|text| text.contains("failed step") && text.contains("send_raw"));
    if !is_told || state != ProvisionState::CleanFailed {
        return Err(unexpected(format!("Ironic failed to clean {node} ({state:?}): {why}; {told}")));
    }
    site.members.cluster.hactl(release).await?;
    match site.bed.cleaned(described).await? > cleaned {
        true => Ok(()),
        false => Err(unexpected(format!("{node} was never cleaned"))),
    }
}

/// The spare that would be next is somebody else's by Ironic's own book: another one is taken.
async fn spare_claimed(site: &Site, moving: Moving) -> Result<String, DemoError> {
    let lines = site.members.nodes().await?;
    let (pool, prefix) = (moving.pool, moving.pool.prefix());
    let next =
        lines.iter().find(|line| line.state == NodeState::Spare && line.name.as_str().starts_with(prefix));
    let next = next.ok_or_else(|| unexpected("there is no spare".to_owned()))?.name.clone();
    let (described, cluster) = (site.described(&next)?, &site.members.cluster);
    // Nobody claims what is cordoned, so there is no race for it.
    cluster.hactl(["node", "cordon", next.as_str()]).await?;
    let claim = site.bed.take(described).await?;
    cluster.hactl(["node", "uncordon", next.as_str()]).await?;
    let moved = async {
        site.members
            .look(&format!("{next} to be known as claimed"), async || {
                let said = cluster.hactl(["node", "show", next.as_str()]).await?;
                Ok(if said.contains("it is claimed") { Look::There(()) } else { Look::NotYet(said) })
            })
            .await?;
        site.machines.hang(&moving.from)?;
        Moving { began: now(), ..moving }.end(site).await
    };
    let moved = moved.await;
    site.bed.unclaim(&claim).await?;
    let said = moved?;
    match site.members.placed(pool.instance()).await?.0 == next {
        true => Err(unexpected(format!("{next} was taken: {said}"))),
        false => Ok(said),
    }
}

/// One instance on its way to another node: how it was before, and all that must hold after.
struct Moving {
    pool: Pool,
    from: NodeId,
    epoch: Epoch,
    addresses: Vec<FixedIp>,
    /// Failovers before.
    known: BTreeSet<PlanId>,
    began: Wall,
}

impl Moving {
    async fn begin(site: &Site, pool: Pool) -> Result<Moving, DemoError> {
        let (from, epoch) = site.members.placed(pool.instance()).await?;
        let addresses = site.bed.port(&site.belongings(pool)?.port).await?.fixed_ips;
        let known = site.members.failovers().await?.iter().map(|line| line.id).collect();
        Ok(Moving { pool, from, epoch, addresses, known, began: now() })
    }

    /// Waits until it is elsewhere, and looks at everything.
    async fn end(self, site: &Site) -> Result<String, DemoError> {
        site.moved(self.pool, self.epoch).await?;
        let (to, epoch) = site.members.placed(self.pool.instance()).await?;
        let plan = site.members.newest_failover(self.pool.instance()).await?;
        if self.known.contains(&plan.id) {
            return Err(unexpected("there was no failover".to_owned()));
        }
        let (old, new) = (site.described(&self.from)?, site.described(&to)?);
        let mut wrong = self.wrong(site, old, new).await?;
        wrong.extend(self.wrong_at(site, old, &plan).await?);
        wrong.extend(twice(&site.machines.lives(), self.pool, &self.from, &plan));
        if to == self.from || epoch <= self.epoch {
            wrong.push(format!("it is on {to} in {epoch}, and was on {} in {}", self.from, self.epoch));
        }
        let phases = Phases::of(&plan, self.began, &site.logs()?);
        let phases = phases.ok_or_else(|| unexpected(format!("failover {} lacks a stamp", plan.id)))?;
        if phases.calls == 0 || phases.calls > phases.calls_max() {
            wrong.push(format!("it took {} calls, at most {}: {phases}", phases.calls, phases.calls_max()));
        }
        match wrong.as_slice() {
            [] => Ok(format!("{} from {} to {to}: {phases}", self.pool.instance(), self.from)),
            wrong => Err(unexpected(wrong.join("\n"))),
        }
    }

    /// What is wrong with what the instance has.
    async fn wrong(&self, site: &Site, old: &Described, new: &Described) -> Result<Vec<String>, DemoError> {
        let (mut wrong, belongings) = (site.away_from(self.pool, new).await?, site.belongings(self.pool)?);
        let port = site.bed.port(&belongings.port).await?;
        if port.fixed_ips != self.addresses {
            wrong.push(format!("its port had {:?} and has {:?}", self.addresses, port.fixed_ips));
        }
        if self.pool.has_volume() && site.bed.reaches(&old.initiator(), &belongings.volume).await {
            wrong.push(format!("{} can still reach its volume", old.name));
        }
        Ok(wrong)
    }

    /// What is wrong with how the old node was left.
    async fn wrong_at(&self, site: &Site, old: &Described, plan: &Plan) -> Result<Vec<String>, DemoError> {
        let mut wrong = vec![];
        let node = site.bed.node(&old.uuid).await?;
        // Of a node whose BMC is dead, Ironic may have noticed that before.
        if !(node.is_fenced() || node.maintenance && !is_power_proven(plan)) {
            wrong.push(format!("{} is not in our maintenance: {node:?}", old.name));
        }
        if is_power_proven(plan) && site.bed.is_on(old).await? {
            wrong.push(format!("{} is on, and was proven to be off", old.name));
        }
        Ok(wrong)
    }
}

fn is_power_proven(plan: &Plan) -> bool {
    match plan.proof.as_ref().map(|proof| proof.accepted()) {
        Some(Accepted::PowerAndIsolation | Accepted::PowerAlone) => true,
        Some(Accepted::IsolationAlone { .. } | Accepted::OperatorAndIsolation { .. }) | None => false,
    }
}

/// Whether the instance ran on two nodes at once although the power of the first was proven to be off.
fn twice(lives: &[Life], pool: Pool, old: &NodeId, plan: &Plan) -> Option<String> {
    let its = |life: &&Life| life.instance == pool.instance();
    let before = lives.iter().filter(its).rev().find(|life| life.node == *old)?;
    let after = lives.iter().filter(its).find(|life| life.epoch > before.epoch)?;
    let is_over = before.until.is_some_and(|until| until <= after.from);
    (is_power_proven(plan) && !is_over).then(|| format!("it ran on {old} and on {} at once", after.node))
}
