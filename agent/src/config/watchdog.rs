//! The section `[watchdog]`: which watchdogs the agent feeds, and while what holds.

use super::{MEMBERS_MAX, PathConfig};
use crate::watchdog::{Rules, bound};
use policies::Millis;
use serde::Deserialize;
use std::fmt;
use std::path::PathBuf;

/// The members are asked for an answer with one heartbeat in so many, over one path after the other. Fewer: members send
/// more than it tells, and those that do not know the question (they are older) take no heartbeat at all; more: the loss
/// of a member is noticed later.
pub const ASK_EVERY: u64 = 4;
/// Each path is asked at least so often within `heard_within`. Fewer: a few lost datagrams reset a healthy node.
const ASKS_MIN: u64 = 4;

/// Without `device` and `bmc`.
const DEVICE: &str = "/dev/watchdog";
/// Most servers' and virtual machines' watchdogs can do it, and it bridges any stall that a healthy system has.
const TIMEOUT: Millis = Millis::secs(10);
/// Members that elect a leader or are upgraded one by one answer all the same; it bridges a switch that starts anew.
const HEARD_WITHIN: Millis = Millis::secs(10);
/// With a write probe.
const WRITE_WITHIN: Millis = Millis::secs(60);

/// Shortest timeout: it is fed four times in it, and a stall of half a second is nothing special. The kernel counts in
/// whole seconds.
const TIMEOUT_MIN: Millis = Millis::secs(2);
/// Longest of any of the times: a node that cuts itself off later is of no use to anybody.
const LONGEST: Millis = Millis::secs(600);

/// Which watchdogs are fed, and while what holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchdogConfig {
    /// The kernel's watchdog device.
    pub device: Option<PathBuf>,
    /// The kernel's device of the BMC in this node, whose watchdog is to switch the power off.
    pub bmc: Option<PathBuf>,
    /// Not fed for so long, they act. What the kernel's device makes of it counts; it is told when it is armed.
    pub timeout: Millis,
    /// Members of the cluster.
    pub members: usize,
    /// While what holds.
    pub rules: Rules,
}

impl fmt::Display for WatchdogConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let devices = [&self.device, &self.bmc].into_iter().flatten();
        let devices: Vec<String> = devices.map(|device| device.display().to_string()).collect();
        let (Rules { quorum, heard_within, write_within }, of) = (self.rules, self.members);
        write!(
            f,
            "{} with {}: fed while {quorum} of {of} members have answered",
            devices.join(", "),
            self.timeout
        )?;
        write!(f, " in the last {heard_within}")?;
        if let Some(write_within) = write_within {
            write!(f, ", and a disk write in the last {write_within}")?;
        }
        write!(f, "; else it acts within {}", bound(heard_within, self.timeout))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWatchdog {
    device: Option<PathBuf>,
    bmc: Option<PathBuf>,
    timeout: Option<Millis>,
    heard_within: Option<Millis>,
    write_within: Option<Millis>,
    members: Option<usize>,
}

impl RawWatchdog {
    /// Checks it against the rest of the configuration.
    pub(super) fn check(
        self,
        paths: &[PathConfig],
        interval: Millis,
        has_write_probe: bool,
    ) -> Result<WatchdogConfig, String> {
        // A path that leaves out members (they are not in its network) must not make the cluster look smaller than it is,
        // so the longest counts; too large a number only asks for more answers.
        let listed = paths.iter().map(|path| path.members.len()).max().unwrap_or(0);
        let members = self.members.unwrap_or(listed);
        if !(listed..=MEMBERS_MAX).contains(&members) {
            let wrong = "there must be as many as the longest path lists, or more, and at most";
            return Err(format!("watchdog.members is {members}; {wrong} {MEMBERS_MAX}"));
        }
        let quorum = members / 2 + 1;
        let timeout = self.timeout.unwrap_or(TIMEOUT);
        if !(TIMEOUT_MIN..=LONGEST).contains(&timeout) || !timeout.0.is_multiple_of(1000) {
            return Err(format!(
                "watchdog.timeout {timeout} is not a number of whole seconds from {TIMEOUT_MIN} to {LONGEST}"
            ));
        }
        let heard_within = self.heard_within.unwrap_or(HEARD_WITHIN);
        let count = paths.len() as u64;
        let heard_min = Millis(interval.0 * ASK_EVERY * ASKS_MIN * count);
        if !(heard_min..=LONGEST).contains(&heard_within) {
            return Err(format!(
                "watchdog.heard_within {heard_within} is not between {heard_min} and {LONGEST}: one heartbeat in \
                 {ASK_EVERY} (interval {interval}) asks, over one of {count} paths, and each path must be asked {ASKS_MIN} \
                 times"
            ));
        }
        let write_within = match (self.write_within, has_write_probe) {
            (Some(_), false) => {
                return Err("watchdog.write_within needs a [write_probe] that tells when was written".into());
            }
            (None, false) => None,
            (within, true) => Some(within.unwrap_or(WRITE_WITHIN)),
        };
        if let Some(within) = write_within.filter(|within| !(Millis::secs(1)..=LONGEST).contains(within)) {
            return Err(format!("watchdog.write_within {within} is not between 1s and {LONGEST}"));
        }
        let device = match (self.device, &self.bmc) {
            (None, None) => Some(PathBuf::from(DEVICE)),
            (device, _) => device,
        };
        let rules = Rules { quorum, heard_within, write_within };
        Ok(WatchdogConfig { device, bmc: self.bmc, timeout, members, rules })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, ConfigError};
    use std::path::Path;

    const GOOD: &str = r#"
node = "n1"
key = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
boot_id = "life one"
paths = [
    { name = "blue", members = ["127.0.0.1:1", "127.0.0.2:1", "127.0.0.3:1"] },
    { name = "green", members = ["127.0.1.1:1", "127.0.1.2:1"] },
]
"#;

    fn read(section: &str) -> Result<WatchdogConfig, String> {
        let no_file = |file: &Path, what| {
            Err(ConfigError::Read {
                what,
                file: file.to_owned(),
                source: std::io::ErrorKind::NotFound.into(),
            })
        };
        let text = format!("{GOOD}{section}");
        let config =
            Config::parse(Path::new("agent.toml"), &text, no_file).map_err(|error| error.to_string())?;
        Ok(config.watchdog.unwrap())
    }

    #[test]
    fn an_empty_section_is_the_kernels_device_and_a_majority_of_the_longest_path() {
        let config = read("[watchdog]").unwrap();
        assert_eq!((config.device, config.bmc), (Some("/dev/watchdog".into()), None));
        assert_eq!((config.timeout, config.members), (Millis::secs(10), 3));
        let rules = Rules { quorum: 2, heard_within: Millis::secs(10), write_within: None };
        assert_eq!(config.rules, rules);
        let told =
            read("[watchdog]\nmembers = 5\nbmc = \"/dev/ipmi0\"\ntimeout = \"1m\"").unwrap().to_string();
        let expected = "/dev/ipmi0 with 1m: fed while 3 of 5 members have answered in the last 10s; else it acts within 130s";
        assert_eq!(told, expected);
    }

    #[test]
    fn disk_writes_count_where_they_are_probed() {
        let probe = "[write_probe]\nfile = \"/w\"\nmode = \"age-of-file\"\n[watchdog]\n";
        assert_eq!(read(probe).unwrap().rules.write_within, Some(Millis::secs(60)));
        let other = read(&format!("{probe}write_within = \"5s\"")).unwrap();
        assert_eq!(other.rules.write_within, Some(Millis::secs(5)));
    }

    #[test]
    fn what_does_not_fit_together_is_refused_with_a_reason() {
        for (line, expected) in [
            ("device = 1", "invalid type"),
            ("devise = \"/d\"", "unknown field `devise`"),
            ("members = 2", "watchdog.members is 2; there must be as many as the longest path lists"),
            ("members = 17", "and at most 16"),
            ("timeout = \"1s\"", "watchdog.timeout 1s is not a number of whole seconds from 2s to 10m"),
            ("timeout = \"2500ms\"", "watchdog.timeout 2500ms is not"),
            ("timeout = \"11m\"", "watchdog.timeout 11m is not"),
            ("heard_within = \"7s\"", "watchdog.heard_within 7s is not between 8s and 10m"),
            ("write_within = \"5s\"", "watchdog.write_within needs a [write_probe]"),
        ] {
            let error = read(&format!("[watchdog]\n{line}")).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
