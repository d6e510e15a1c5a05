//! What runs on the cloud's nodes: a server that its BMC switches, and that knows what it is from what Ironic has given it.
//!
//! Why it exists: the testbed's BMCs switch nothing. Here, a node that is on reads its configuration drive or its iPXE script,
//! looks whether it can reach its volume, and sends heartbeats by the real agent, until it is off. What it never does: ask the
//! members, or what anybody believes.

use super::testbed::{Testbed, unexpected};
use super::{Belongings, Described, Pool};
use crate::clock::now;
use crate::demo::DemoError;
use crate::demo::error::system;
use crate::demo::process::{Around, Process, Starter, answer};
use crate::field::control;
use nix::sys::signal::Signal;
use policies::{Epoch, NodeId, Wall, causes};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// Pause between two looks at a BMC; what is measured by it is as coarse.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A system that ran on a node, from its start to the end of the node's power.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) node: NodeId,
    pub(super) instance: String,
    pub(super) epoch: Epoch,
    pub(super) from: Wall,
    pub(super) until: Option<Wall>,
}

/// What a node runs, as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Role {
    instance: String,
    epoch: Epoch,
}

/// The servers. Dropping it ends all.
pub(super) struct Machines {
    seen: Arc<Mutex<Seen>>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    lives: Vec<Life>,
    /// The agents that run.
    pids: BTreeMap<NodeId, u32>,
}

/// One of them.
struct Machine {
    node: Described,
    bed: Testbed,
    belongings: Belongings,
    starter: Starter,
    agent: PathBuf,
    dir: PathBuf,
    members: Vec<String>,
    seen: Arc<Mutex<Seen>>,
}

impl Machines {
    /// Lets each node be what its BMC says from now on.
    pub(super) fn start(
        nodes: &[Described],
        belongings: &BTreeMap<Pool, Belongings>,
        bed: &Testbed,
        starter: &Starter,
        agent: &Path,
        dir: &Path,
        members: &[String],
    ) -> Machines {
        let (seen, mut tasks) = (Arc::<Mutex<Seen>>::default(), JoinSet::new());
        for node in nodes {
            let Some(belongings) = belongings.get(&node.pool).cloned() else { continue };
            let (node, bed, starter, agent) = (node.clone(), bed.clone(), starter.clone(), agent.to_owned());
            let (dir, members, seen) = (dir.to_owned(), members.to_vec(), Arc::clone(&seen));
            tasks.spawn(Machine { node, bed, belongings, starter, agent, dir, members, seen }.live());
        }
        Machines { seen, _tasks: tasks }
    }

    /// Lets a node stand still.
    pub(super) fn hang(&self, node: &NodeId) -> Result<(), DemoError> {
        self.signal(node, Signal::SIGSTOP)
    }

    fn signal(&self, node: &NodeId, signal: Signal) -> Result<(), DemoError> {
        let pid = locked(&self.seen).pids.get(node).copied();
        control::signal(pid.ok_or_else(|| unexpected(format!("nothing runs on {node}")))?, signal)
    }

    /// All that ran, oldest first.
    pub(super) fn lives(&self) -> Vec<Life> {
        locked(&self.seen).lives.clone()
    }
}

impl Machine {
    async fn live(self) {
        let (mut looks, mut system) = (interval(LOOK_EVERY), None::<Process>);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let done = match (self.bed.is_on(&self.node).await, &mut system) {
                (Ok(true), None) => self.boot().await.map(|booted| system = booted),
                (Ok(false), Some(running)) => {
                    let killed = running.kill().await;
                    system = None;
                    self.ended();
                    killed
                }
                (Ok(_), _) => Ok(()),
                (Err(error), _) => Err(error),
            };
            if let Err(error) = done {
                tracing::warn!(node = %self.node.name, error = causes(&error), "a server of the cloud");
            }
        }
    }

    /// Starts what it was given; `None` if that is nothing, or cannot start: it will try again, as firmware does.
    async fn boot(&self) -> Result<Option<Process>, DemoError> {
        let Some(Role { instance, epoch }) = self.role().await? else { return Ok(None) };
        if self.node.pool.has_volume()
            && !self.bed.reaches(&self.node.initiator(), &self.belongings.volume).await
        {
            return Ok(None);
        }
        let name = self.node.name.clone();
        let file = self.dir.join(format!("{name}.toml"));
        std::fs::write(&file, self.config(epoch)).map_err(system(format!("write {}", file.display())))?;
        let args = ["run".as_ref(), "--config".as_ref(), file.as_os_str()];
        let (title, log) = (format!("agent of {name}"), self.dir.join(format!("{name}-{epoch}.log")));
        let agent = self.starter.start(&title, &self.agent, args, &Around::default(), log).await?;
        let mut seen = locked(&self.seen);
        seen.pids.extend(agent.pid().map(|pid| (name.clone(), pid)));
        seen.lives.push(Life { node: name, instance, epoch, from: now(), until: None });
        Ok(Some(agent))
    }

    fn ended(&self) {
        let mut seen = locked(&self.seen);
        seen.pids.remove(&self.node.name);
        let life = seen.lives.iter_mut().rev().find(|life| life.node == self.node.name);
        if let Some(life) = life {
            life.until = Some(now());
        }
    }

    /// What Ironic has given it: on the configuration drive, or in the words for the kernel.
    async fn role(&self) -> Result<Option<Role>, DemoError> {
        match self.node.pool {
            Pool::Redfish => {
                let Some(url) = self.bed.drive(&self.node).await? else { return Ok(None) };
                let file = self.dir.join(format!("{}.iso", self.node.name));
                let drive = self.bed.fetch(&url).await?;
                std::fs::write(&file, drive).map_err(system(format!("write {}", file.display())))?;
                let file = file.to_string_lossy();
                let words = ["-R", "-i", &file, "-x", "/openstack/latest/meta_data.json"];
                Ok(on_drive(&answer(Path::new("isoinfo"), words, &[]).await?))
            }
            Pool::Pxe => Ok(for_kernel(&self.bed.ipxe(&self.node.mac).await?)),
        }
    }

    fn config(&self, epoch: Epoch) -> String {
        let Described { name, agent_key, .. } = &self.node;
        // All servers share this computer's kernel, and its boot id.
        let boot_id = crate::rack::hex(&rand::random::<[u8; 8]>());
        let mut text = format!(
            "node = \"{name}\"\nkey = \"{agent_key}\"\nboot_id = \"{boot_id}\"\nepoch = {}\ninventory = false\n\
             [[paths]]\nname = \"net\"\nmembers = [",
            epoch.0
        );
        for member in &self.members {
            // Writing into a String cannot fail.
            write!(text, "\"{member}\", ").ok();
        }
        text + "]\n"
    }
}

/// The role in `meta_data.json` (docs/openstack.md).
fn on_drive(meta_data: &str) -> Option<Role> {
    let meta_data: Value = serde_json::from_str(meta_data).ok()?;
    let role = meta_data.get("ha")?;
    let instance = role.get("instance")?.as_str()?.to_owned();
    Some(Role { instance, epoch: Epoch(role.get("epoch")?.as_u64()?) })
}

/// The role in an iPXE script, among the words for the kernel of the deployed system.
fn for_kernel(script: &str) -> Option<Role> {
    let (_, section) = script.split_once("\n:boot_ramdisk")?;
    let kernel = section.lines().find(|line| line.starts_with("kernel "))?;
    let word = |key: &str| kernel.split_whitespace().find_map(|word| word.strip_prefix(key));
    Some(Role { instance: word("ha.instance=")?.to_owned(), epoch: Epoch(word("ha.epoch=")?.parse().ok()?) })
}

fn locked(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_reads_what_it_is_from_its_drive_or_its_script() {
        let role = Role { instance: "db".to_owned(), epoch: Epoch(3) };
        let drive = r#"{"name": "db", "ha": {"instance": "db", "epoch": 3, "node": "rf2"}}"#;
        assert_eq!(on_drive(drive), Some(role.clone()));
        assert_eq!(on_drive("{}"), None);
        let script = "#!ipxe\n:deploy\nkernel a ha.instance=no ha.epoch=1\n:boot_ramdisk\nimgfree\n\
                      kernel http://h/kernel root=/dev/ram0 text ha.instance=db ha.epoch=3 initrd=ramdisk || goto x\n";
        assert_eq!(for_kernel(script), Some(role));
        assert_eq!(for_kernel("#!ipxe\n"), None);
    }
}
