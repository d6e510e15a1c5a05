//! The scenarios: what is done, on what ground, what it needs.
//!
//! Why it exists: the list of them is the list of promises. What it never does: hold how a fault is made.

use super::clock;
use super::control::Controller;
use super::net;
use super::scene::{Scene, Setting};
use super::{disks, kills, nodes, partitions, scarcity};
use crate::demo::DemoError;
use std::path::Path;

/// One scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Scenario {
    /// kill -9 of the leader in the middle of a failover
    LeaderKilled,
    /// kill -9 of one member after the other
    AllKilledInTurn,
    /// The leader is stopped in mid-fence for longer than its lease, then goes on
    LeaderStopped,
    /// All members stand still at once for longer than nodes may be silent
    AllFrozen,
    /// The followers do not hear the leader, it hears them
    LeaderNotHeard,
    /// The leader does not hear the followers, they hear it
    LeaderDoesNotHear,
    /// The leader is cut off from all nodes
    LeaderWithoutNodes,
    /// A follower is cut off from all nodes
    FollowerWithoutNodes,
    /// A node is not heard, and goes on writing
    NodeBeatsLost,
    /// A node is heard, and its writes do not arrive
    NodeWritesLost,
    /// The disk of a follower is full
    DiskFull,
    /// fsync fails for the leader
    FsyncFails,
    /// All members lose power and what they had not synced, in the middle of a failover
    PowerLoss,
    /// The same with torn writes
    TornWrites,
    /// The leader alone loses power, its last writes torn
    TornLeader,
    /// A follower comes back with an empty disk under its old id
    DiskReplaced,
    /// The leader's wall clock jumps 5 days ahead and 10 days back
    ClockJumps,
    /// The leader can open no further file
    NoFiles,
    /// The kernel kills the leader for want of memory
    NoMemory,
    /// All members get 5 % of a core
    NoProcessor,
}

impl Scenario {
    /// All, in the order in which they are run.
    pub const ALL: [Scenario; 20] = [
        Scenario::LeaderKilled,
        Scenario::AllKilledInTurn,
        Scenario::LeaderStopped,
        Scenario::AllFrozen,
        Scenario::LeaderNotHeard,
        Scenario::LeaderDoesNotHear,
        Scenario::LeaderWithoutNodes,
        Scenario::FollowerWithoutNodes,
        Scenario::NodeBeatsLost,
        Scenario::NodeWritesLost,
        Scenario::DiskFull,
        Scenario::FsyncFails,
        Scenario::PowerLoss,
        Scenario::TornWrites,
        Scenario::TornLeader,
        Scenario::DiskReplaced,
        Scenario::ClockJumps,
        Scenario::NoFiles,
        Scenario::NoMemory,
        Scenario::NoProcessor,
    ];

    /// Its name on the command line, and what is done.
    pub fn describe(self) -> (String, String) {
        use clap::ValueEnum;
        let value = self.to_possible_value();
        let name = value.as_ref().map_or_else(String::new, |value| value.get_name().to_owned());
        let help = value.and_then(|value| value.get_help().map(ToString::to_string));
        (name, help.unwrap_or_default())
    }

    /// What it is built on.
    pub(super) fn setting(self) -> Setting {
        match self {
            Scenario::DiskFull
            | Scenario::FsyncFails
            | Scenario::PowerLoss
            | Scenario::TornWrites
            | Scenario::TornLeader
            | Scenario::DiskReplaced => Setting { disks: true, ..Setting::default() },
            Scenario::ClockJumps => Setting { clocks: true, ..Setting::default() },
            // With `cautious` a node may be gray for half a minute.
            Scenario::NodeWritesLost => Setting { policy: "quick", ..Setting::default() },
            Scenario::LeaderKilled
            | Scenario::AllKilledInTurn
            | Scenario::LeaderStopped
            | Scenario::AllFrozen
            | Scenario::LeaderNotHeard
            | Scenario::LeaderDoesNotHear
            | Scenario::LeaderWithoutNodes
            | Scenario::FollowerWithoutNodes
            | Scenario::NodeBeatsLost
            | Scenario::NoFiles
            | Scenario::NoMemory
            | Scenario::NoProcessor => Setting::default(),
        }
    }

    /// What this computer lacks to run it, if anything.
    pub(super) fn missing(self) -> Option<String> {
        let controller = match self {
            Scenario::AllFrozen => Some(Controller::Freezer),
            Scenario::NoMemory => Some(Controller::Memory),
            Scenario::NoProcessor => Some(Controller::Cpu),
            Scenario::LeaderKilled
            | Scenario::AllKilledInTurn
            | Scenario::LeaderStopped
            | Scenario::LeaderNotHeard
            | Scenario::LeaderDoesNotHear
            | Scenario::LeaderWithoutNodes
            | Scenario::FollowerWithoutNodes
            | Scenario::NodeBeatsLost
            | Scenario::NodeWritesLost
            | Scenario::DiskFull
            | Scenario::FsyncFails
            | Scenario::PowerLoss
            | Scenario::TornWrites
            | Scenario::TornLeader
            | Scenario::DiskReplaced
            | Scenario::ClockJumps
            | Scenario::NoFiles => None,
        };
        let Setting { disks, clocks, .. } = self.setting();
        let no_fuse =
            || (disks && !Path::new("/dev/fuse").exists()).then(|| "there is no /dev/fuse".to_owned());
        let no_faketime = || {
            (clocks && clock::library().is_none())
                .then(|| "there is no libfaketimeMT (Debian: faketime)".to_owned())
        };
        net::missing().or_else(no_fuse).or_else(no_faketime).or_else(|| controller?.missing())
    }

    /// Breaks things and waits; returns what was measured.
    pub(super) async fn act(self, scene: &mut Scene<'_>) -> Result<String, DemoError> {
        match self {
            Scenario::LeaderKilled => kills::leader_in_mid_failover(scene).await,
            Scenario::AllKilledInTurn => kills::all_in_turn(scene).await,
            Scenario::LeaderStopped => kills::leader_stopped_past_its_lease(scene).await,
            Scenario::AllFrozen => kills::all_frozen(scene).await,
            Scenario::LeaderNotHeard => partitions::leader_is_not_heard(scene).await,
            Scenario::LeaderDoesNotHear => partitions::leader_does_not_hear(scene).await,
            Scenario::LeaderWithoutNodes => partitions::leader_without_nodes(scene).await,
            Scenario::FollowerWithoutNodes => partitions::follower_without_nodes(scene).await,
            Scenario::NodeBeatsLost => nodes::beats_are_lost(scene).await,
            Scenario::NodeWritesLost => nodes::writes_are_lost(scene).await,
            Scenario::DiskFull => disks::full(scene).await,
            Scenario::FsyncFails => disks::fsync_fails(scene).await,
            Scenario::PowerLoss => disks::power_loss(scene).await,
            Scenario::TornWrites => disks::torn(scene).await,
            Scenario::TornLeader => disks::torn_leader(scene).await,
            Scenario::DiskReplaced => disks::replaced(scene).await,
            Scenario::ClockJumps => scarcity::clock_jumps(scene).await,
            Scenario::NoFiles => scarcity::no_files(scene).await,
            Scenario::NoMemory => scarcity::no_memory(scene).await,
            Scenario::NoProcessor => scarcity::no_processor(scene).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_scenario_is_in_the_list_once_and_says_what_is_done() {
        use clap::ValueEnum;
        let listed: BTreeSet<Scenario> = Scenario::ALL.into_iter().collect();
        assert_eq!(listed.len(), Scenario::value_variants().len());
        assert!(Scenario::ALL.iter().all(|scenario| !scenario.describe().1.is_empty()));
    }
}
