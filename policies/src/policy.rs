//! Policy documents: what to protect and how carefully. Data, and one place that checks how the numbers relate.

use crate::concession::Concession;
use crate::keys;
use crate::network::MacRule;
use crate::select::Applies;
use crate::state::STRIKES_KEPT_MAX;
use crate::window::{Hour, Window};
use crate::words::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// How carefully an instance is protected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Which instances it protects although they do not name it.
    #[serde(default, skip_serializing_if = "Applies::is_empty")]
    pub applies: Applies,
    /// When a node counts as failed.
    pub detection: Detection,
    /// What proves that it can touch nothing.
    pub fencing: Fencing,
    /// How the spare takes over.
    pub takeover: Takeover,
    /// When not to act.
    pub brakes: Brakes,
    /// Which spares will do.
    #[serde(default)]
    pub spares: Spares,
    /// Whether to act without being asked.
    #[serde(default)]
    pub acting: Acting,
    /// What operators may order to be kept of volumes.
    #[serde(default, skip_serializing_if = "Backups::is_default")]
    pub backups: Backups,
}

/// When a node counts as failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detection {
    /// Silence after which a member suspects a node. Lower: stalls and bursts of loss look like death; measured
    /// 0.5 false fences a node-year at 500 ms, 0 in 60 node-years at 2 s. Higher: longer outages.
    pub suspect_after: Millis,
    /// Time between two questions to a node without an agent, and how long an answer may take; absent: a third of
    /// `suspect_after`. Lower: more load, and slow answers are lost. Higher: one lost answer is most of the silence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_interval: Option<Millis>,
    /// How often a suspect's kernel is asked before it counts as mute.
    pub reprobe_count: u32,
    /// Time between these questions.
    pub reprobe_interval: Millis,
    /// How long a node may be silent while its kernel still answers (gray) before it counts as failed.
    pub gray_after: Millis,
    /// Age of the last acknowledged disk write from which on a node that still beats is gray.
    pub write_stale_after: Millis,
    /// Members that must see the node dead; absent: a majority of the voters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members_min: Option<u32>,
    /// Different failure domains that these members must stand in.
    pub domains_min: u32,
    /// Heartbeat paths on which a node must be heard, as far as it has shown so many; on fewer it is gray. Absent: one.
    /// Higher: a node with a cut cable, which its clients or its storage may be behind, is replaced after `gray_after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths_min: Option<u8>,
}

/// Questions to a node without an agent within one `suspect_after`: one may be lost without the node falling silent.
const PROBES_PER_DEADLINE: u64 = 3;
/// The least of them: with fewer, one lost answer is a silence.
const PROBES_PER_DEADLINE_MIN: u64 = 2;

impl Detection {
    /// Time between two questions to a node without an agent.
    pub fn probe_pause(&self) -> Millis {
        self.probe_interval.unwrap_or(Millis((self.suspect_after.0 / PROBES_PER_DEADLINE).max(1)))
    }
}

/// What proves that a node can touch nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fencing {
    /// How long power is tried before isolation at storage and network alone is accepted as proof; `never`: a human
    /// must decide when a BMC died with its node.
    pub isolation_alone: After,
    /// Accept power proof alone where the instance has neither volumes nor networks to revoke.
    pub power_alone: bool,
    /// How long the BMC is asked why the node died, before its power is touched (volumes and ports are cut off meanwhile);
    /// 0ms: not at all. Lower: slow BMCs tell nothing. Higher: a failover from a node whose BMC hangs takes longer.
    #[serde(default)]
    pub diagnose_max: Millis,
    /// How long the kernel of a node that fell silent has to write its crash dump after it was interrupted (NMI), before its
    /// power is cut (volumes and ports are cut off meanwhile); 0ms: it is not interrupted. Lower: the dump is cut short.
    /// Higher: each such failover takes as much longer.
    #[serde(default)]
    pub crash_dump_max: Millis,
    /// How long one fencing level is given before the next is tried.
    pub level_deadline: Millis,
    /// Pause between attempts of the same step.
    pub retry_after: Millis,
    /// The latest that a power command may take effect after it was sent (BMC session time-out and firmware queue).
    /// Lower than the truth: a late power-off could hit the rightful owner. Higher: a quarantined node waits longer.
    pub power_effect_max: Millis,
    /// The same for storage, switch and boot providers.
    pub provider_effect_max: Millis,
}

/// How the spare takes over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Takeover {
    /// Limit for one effect.
    pub step_deadline: Millis,
    /// How long the spare waits for a snapshot of each volume before it gets it; 0ms: none is made. The failover goes on
    /// however that ends. Lower: slow storage keeps nothing. Higher: a failover with storage that hangs takes longer.
    #[serde(default)]
    pub snapshot_max: Millis,
    /// How many snapshots of ours a volume has at most; the device deletes older ones as it makes a new one, and touches nobody
    /// else's. Lower: a failover soon after another leaves nothing from before the first. Higher: they fill the storage.
    #[serde(default = "two")]
    pub snapshots_kept: u32,
    /// How long the system of a drained node has to shut down before the node is fenced, where the order does not say.
    /// Lower: data in its memory is lost. Higher: a system that hangs holds its drain up longer.
    #[serde(default = "five_minutes")]
    pub shutdown_deadline: Millis,
    /// How long a hot spare has to be heard in the new epoch after it was told to go on into the instance's kernel; then it is
    /// switched off and on. Covers the start of the instance's system, without the server's POST. Lower: a hot spare that
    /// would have been there soon is started again. Higher: one whose hardware does not survive it is waited for. 0: hot
    /// spares are switched off and on at once.
    #[serde(default)]
    pub kexec_max: Millis,
    /// From power-on to the first heartbeat of the new epoch; then the spare is given up. Covers the server's POST.
    pub start_deadline: Millis,
}

/// When not to act. All are absolute numbers: percentages break at three nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Brakes {
    /// Fences under way at the same time, in the whole cluster.
    pub fences_in_flight_max: u32,
    /// Fences begun within ten minutes, in the whole cluster.
    pub fences_per_10min_max: u32,
    /// With more nodes failed (those fenced within ten minutes included), nothing more is fenced: it is probably us.
    pub hold_above_failed: u32,
    /// The same within one failure domain (a rack, a PDU, a switch).
    pub hold_above_failed_per_domain: u32,
}

/// Which spares will do, beside what the instance itself needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spares {
    /// Kinds of failure domain (`rack`, `pdu`, ...) in which the spare must stand elsewhere than the failed node. A node
    /// that is in no domain of such a kind does not fit: nobody knows that it stands elsewhere.
    #[serde(default)]
    pub differs_in: Vec<String>,
    /// Labels that the spare must carry: a pool.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How often a spare may have been fenced within `strikes_within` because it had failed or did not start; absent: as
    /// often as it likes. Lower: one bad day keeps good hardware out. Higher: hardware that fails again and again is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strikes_max: Option<u32>,
    /// How long such a strike counts.
    #[serde(default = "a_week")]
    pub strikes_within: Millis,
    /// Which of these are wishes rather than needs: if no spare fits, the first is given up, then the first two, and so on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub give_up: Vec<Concession>,
    /// Whether the instance may get another MAC address there.
    #[serde(default, skip_serializing_if = "MacRule::is_any")]
    pub mac: MacRule,
}

fn two() -> u32 {
    2
}

fn five_minutes() -> Millis {
    Millis::secs(5 * 60)
}

fn a_week() -> Millis {
    Millis::secs(7 * 24 * 60 * 60)
}

impl Default for Spares {
    fn default() -> Self {
        Spares {
            differs_in: vec![],
            labels: BTreeMap::new(),
            strikes_max: None,
            strikes_within: a_week(),
            give_up: vec![],
            mac: MacRule::Any,
        }
    }
}

/// Whether to act without being asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acting {
    /// See [`Mode`].
    #[serde(default)]
    pub mode: Mode,
    /// Where approval is waited for: act anyway if nobody has answered for this long, counted from the failure and from the
    /// hour at which approval began to be needed; `never`: wait for a human.
    #[serde(default)]
    pub unapproved_after: After,
    /// The hours in which `mode` counts, by the leader's clock; none: always.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
    /// What counts outside of them; absent: `approval`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<Mode>,
}

/// Windows of one policy.
const WINDOWS_MAX: usize = 32;

impl Acting {
    /// What kind of hour it is.
    pub fn hour(&self, now: Wall) -> Hour {
        Hour::of(&self.windows, now)
    }

    /// What counts in such an hour.
    pub fn mode_in(&self, hour: &Hour) -> Mode {
        match hour {
            Hour::Any | Hour::Inside { .. } => self.mode,
            Hour::Outside { .. } => self.outside.unwrap_or(Mode::Approval),
        }
    }

    fn validate(&self) -> Result<(), BadPolicy> {
        let contradiction = |left: String, relation: &str, right: String| {
            Err(BadPolicy::Contradiction { left, relation: relation.to_owned(), right })
        };
        let outside = match (self.windows.is_empty(), self.outside) {
            (true, None) => None,
            (true, Some(outside)) => {
                let (left, right) = (format!("acting.outside = {outside}"), "acting.windows".to_owned());
                return contradiction(left, "left out, or needs", right);
            }
            (false, None) => Some((Mode::Approval, " (which it is if left out)")),
            (false, Some(outside)) => Some((outside, "")),
        };
        if self.windows.len() > WINDOWS_MAX {
            return Err(BadPolicy::Unreadable(format!("acting.windows: more than {WINDOWS_MAX} windows")));
        }
        if let Some((outside, note)) = outside.filter(|(outside, _)| *outside <= self.mode) {
            let (left, right) =
                (format!("acting.outside = {outside}{note}"), format!("acting.mode = {}", self.mode));
            return contradiction(left, "stricter than", right);
        }
        let asks =
            self.mode == Mode::Approval || outside.is_some_and(|(outside, _)| outside == Mode::Approval);
        if !asks && self.unapproved_after != After::Never {
            let left = format!("acting.unapproved_after = {}", String::from(self.unapproved_after));
            let right = "acting.mode or acting.outside = approval".to_owned();
            return contradiction(left, "left out, or needs", right);
        }
        Ok(())
    }
}

/// What operators may order to be kept of the volumes of an instance that runs (`hactl instance backup`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backups {
    /// How many backups a volume has at most; the device deletes older ones once a new one is there, and touches neither what
    /// failovers kept nor anybody else's. 0: none is made. Lower: one that was made after the damage pushes the last
    /// good one out. Higher: they fill the storage, and some of it gets slower with each.
    pub kept: u32,
    /// How long one volume may take. Lower: slow storage keeps nothing. Higher: storage that hangs is told of later, and the
    /// next backup of that instance can be ordered later. A failover waits for neither.
    pub deadline: Millis,
}

impl Default for Backups {
    fn default() -> Self {
        Backups { kept: 0, deadline: Millis::secs(2 * 60) }
    }
}

impl Backups {
    /// So is a policy that says nothing of them, and so it is written: members of before there were any read it.
    pub(crate) fn is_default(&self) -> bool {
        *self == Backups::default()
    }
}

/// What happens when a failover is decided; the later, the stricter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It begins.
    #[default]
    Automatic,
    /// It waits for `hactl failover approve`.
    Approval,
    /// It is recorded and never begins: to try a policy, or to watch what is not ours yet.
    Shadow,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Automatic => "automatic",
            Mode::Approval => "approval",
            Mode::Shadow => "shadow",
        })
    }
}

/// A length of time, or never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum After {
    /// Not at all.
    #[default]
    Never,
    /// After this time.
    Time(Millis),
}

impl TryFrom<String> for After {
    type Error = BadMillis;
    fn try_from(text: String) -> Result<Self, BadMillis> {
        if text == "never" { Ok(After::Never) } else { text.parse().map(After::Time) }
    }
}
impl From<After> for String {
    fn from(after: After) -> String {
        match after {
            After::Never => "never".to_owned(),
            After::Time(length) => length.to_string(),
        }
    }
}

/// Why a policy is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum BadPolicy {
    /// Two numbers contradict each other.
    #[error("{left} must be {relation} {right}")]
    Contradiction {
        /// Key and value.
        left: String,
        /// In words.
        relation: String,
        /// Key and value.
        right: String,
    },
    /// A key or value that cannot be read.
    #[error("{0}")]
    Unreadable(String),
}

/// Longest name of a domain or label in a section, in bytes.
const SECTION_TEXT_MAX: usize = 256;
/// Domains, labels and tenants in a section, names and values counted.
const SECTION_TEXTS_MAX: usize = 64;

/// Snapshots of ours that a volume may have. Storage of that kind gets slow with each (LVM) or is full long before; and a list
/// of them must be an answer that a member reads.
pub const SNAPSHOTS_KEPT_MAX: u32 = 100;

/// The time between two heartbeats of an agent by default; `suspect_after` must leave room for lost ones.
pub const HEARTBEAT_INTERVAL: Millis = Millis(250);
/// Paths that a node's heartbeats take at most. A member keeps one bit for each; a datagram goes by each to every member.
pub const HEARTBEAT_PATHS_MAX: u8 = 8;

impl Policy {
    /// The presets that every cluster has: `cautious` (the default) and `quick`.
    pub fn presets() -> Vec<(PolicyId, Policy)> {
        let texts = [
            ("cautious", include_str!("../presets/cautious.toml")),
            ("quick", include_str!("../presets/quick.toml")),
        ];
        // A test reads both files, so that nothing is left out here.
        texts
            .iter()
            .filter_map(|(name, text)| Some((name.parse().ok()?, toml::from_str(text).ok()?)))
            .collect()
    }

    /// Checks all relations between the numbers; the only place that does.
    ///
    /// # Errors
    /// The first contradiction, naming both keys.
    pub fn validate(&self) -> Result<(), BadPolicy> {
        let (d, f, b) = (&self.detection, &self.fencing, &self.brakes);
        let millis = |key: &str, value: Millis| (format!("{key} = {value}"), value.0);
        let count = |key: &str, value: u32| (format!("{key} = {value}"), u64::from(value));
        let two_beats = millis("two heartbeat intervals", Millis(2 * HEARTBEAT_INTERVAL.0));
        let at_least = [
            (millis("detection.suspect_after", d.suspect_after), two_beats),
            (
                millis("detection.suspect_after", d.suspect_after),
                (
                    format!("two of detection.probe_interval = {}", d.probe_pause()),
                    d.probe_pause().0.saturating_mul(PROBES_PER_DEADLINE_MIN),
                ),
            ),
            (millis("detection.probe_interval", d.probe_pause()), millis("the shortest", Millis(50))),
            (count("detection.reprobe_count", d.reprobe_count), count("one question", 1)),
            (millis("detection.reprobe_interval", d.reprobe_interval), millis("the shortest", Millis(10))),
            (
                millis("detection.gray_after", d.gray_after),
                millis("detection.suspect_after", d.suspect_after),
            ),
            (
                millis("detection.write_stale_after", d.write_stale_after),
                millis("detection.suspect_after", d.suspect_after),
            ),
            (count("detection.domains_min", d.domains_min), count("one domain", 1)),
            (count("detection.members_min", d.members_min.unwrap_or(1)), count("one member", 1)),
            (count("detection.paths_min", u32::from(d.paths_min.unwrap_or(1))), count("one path", 1)),
            (
                count("the most paths of a node", u32::from(HEARTBEAT_PATHS_MAX)),
                count("detection.paths_min", u32::from(d.paths_min.unwrap_or(1))),
            ),
            (millis("fencing.retry_after", f.retry_after), millis("the shortest", Millis(100))),
            (millis("fencing.level_deadline", f.level_deadline), millis("the shortest", Millis::secs(1))),
            (
                millis("fencing.power_effect_max", f.power_effect_max),
                millis("fencing.level_deadline", f.level_deadline),
            ),
            (
                millis("takeover.step_deadline", self.takeover.step_deadline),
                millis("the shortest", Millis::secs(1)),
            ),
            (
                millis("takeover.start_deadline", self.takeover.start_deadline),
                millis("takeover.step_deadline", self.takeover.step_deadline),
            ),
            (
                millis("takeover.step_deadline", self.takeover.step_deadline),
                millis("takeover.snapshot_max", self.takeover.snapshot_max),
            ),
            // Else a spare would be given up before it was given anything.
            (
                millis("takeover.start_deadline", self.takeover.start_deadline),
                (
                    format!(
                        "takeover.snapshot_max = {} and takeover.step_deadline = {} together",
                        self.takeover.snapshot_max, self.takeover.step_deadline
                    ),
                    self.takeover.snapshot_max.0.saturating_add(self.takeover.step_deadline.0),
                ),
            ),
            (count("takeover.snapshots_kept", self.takeover.snapshots_kept), count("one snapshot", 1)),
            (
                count("the most that are kept", SNAPSHOTS_KEPT_MAX),
                count("takeover.snapshots_kept", self.takeover.snapshots_kept),
            ),
            (count("the most that are kept", SNAPSHOTS_KEPT_MAX), count("backups.kept", self.backups.kept)),
            (millis("backups.deadline", self.backups.deadline), millis("the shortest", Millis::secs(1))),
            (millis("an hour", Millis::secs(3_600)), millis("backups.deadline", self.backups.deadline)),
            (
                millis("takeover.shutdown_deadline", self.takeover.shutdown_deadline),
                millis("the shortest", Millis::secs(1)),
            ),
            (
                millis("fencing.level_deadline", f.level_deadline),
                millis("fencing.diagnose_max", f.diagnose_max),
            ),
            (millis("an hour", Millis::secs(3_600)), millis("fencing.crash_dump_max", f.crash_dump_max)),
            // Else a spare would be given up while older commands drain.
            (
                millis("takeover.start_deadline", self.takeover.start_deadline),
                millis("fencing.power_effect_max", f.power_effect_max),
            ),
            (
                millis("takeover.start_deadline", self.takeover.start_deadline),
                millis("fencing.provider_effect_max", f.provider_effect_max),
            ),
            (count("brakes.fences_in_flight_max", b.fences_in_flight_max), count("one fence", 1)),
            (
                count("brakes.fences_per_10min_max", b.fences_per_10min_max),
                count("brakes.fences_in_flight_max", b.fences_in_flight_max),
            ),
            (count("brakes.hold_above_failed", b.hold_above_failed), count("one node", 1)),
            (
                count("brakes.hold_above_failed", b.hold_above_failed),
                count("brakes.hold_above_failed_per_domain", b.hold_above_failed_per_domain),
            ),
        ];
        let Spares { differs_in, labels, .. } = &self.spares;
        check_texts("spares", differs_in.iter().map(String::as_str), labels)?;
        check_texts("applies", self.applies.tenants.iter().map(TenantId::as_str), &self.applies.labels)?;
        if self.spares.strikes_max.is_some_and(|max| max as usize >= STRIKES_KEPT_MAX) {
            return Err(BadPolicy::Contradiction {
                left: format!("spares.strikes_max = {}", self.spares.strikes_max.unwrap_or_default()),
                relation: "less than".to_owned(),
                right: format!("the strikes that are kept = {STRIKES_KEPT_MAX}"),
            });
        }
        let given_up = &self.spares.give_up;
        if let Some(twice) =
            given_up.iter().enumerate().find(|(at, word)| given_up.iter().take(*at).any(|w| w == *word))
        {
            return Err(BadPolicy::Unreadable(format!("spares.give_up: {} is given up twice", twice.1)));
        }
        self.acting.validate()?;
        match at_least.into_iter().find(|((_, left), (_, right))| left < right) {
            None => Ok(()),
            Some(((left, _), (right, _))) => {
                Err(BadPolicy::Contradiction { left, relation: "at least".to_owned(), right })
            }
        }
    }

    /// The same policy with `section.key = value` changes, as `hactl policy set NAME key=value...` gives them.
    ///
    /// # Errors
    /// The key that does not exist (with the nearest right one), the value that cannot be read, or the contradiction.
    pub fn with<'a>(
        &self,
        changes: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Policy, BadPolicy> {
        let unreadable = |e: &dyn std::fmt::Display| BadPolicy::Unreadable(e.to_string());
        let mut table = toml::Table::try_from(self).map_err(|e| unreadable(&e))?;
        for (name, value) in changes {
            let known = keys::find(name).and_then(|key| Some((key, name.split_once('.')?)));
            let Some((key, (section, name))) = known else {
                return Err(BadPolicy::Unreadable(keys::unknown(name)));
            };
            // A section of which nothing is set may not be there.
            let section = table.entry(section).or_insert_with(|| toml::Table::new().into());
            let Some(section) = section.as_table_mut() else { continue };
            match value.is_empty() && key.optional {
                true => drop(section.remove(name)),
                false => drop(section.insert(name.to_owned(), key.kind.typed(value))),
            }
        }
        let policy: Policy = table.try_into().map_err(|e| unreadable(&e))?;
        policy.validate()?;
        Ok(policy)
    }
}

/// Bounds the texts of a section.
fn check_texts<'a>(
    section: &str,
    words: impl Iterator<Item = &'a str>,
    labels: &'a BTreeMap<String, String>,
) -> Result<(), BadPolicy> {
    let bad = |why: String| Err(BadPolicy::Unreadable(format!("{section}: {why}")));
    let texts: Vec<&str> = words.chain(labels.iter().flat_map(|(key, value)| [&**key, &**value])).collect();
    if texts.iter().any(|text| text.is_empty() || text.len() > SECTION_TEXT_MAX) {
        return bad(format!("a name or label has no text or more than {SECTION_TEXT_MAX} bytes"));
    }
    match texts.len() > SECTION_TEXTS_MAX {
        true => bad(format!("more than {SECTION_TEXTS_MAX} names and labels")),
        false => Ok(()),
    }
}

/// A key that is not the same in two versions of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyChange {
    /// `section.key`
    pub key: String,
    /// What it was; absent: it was not set.
    pub old: Option<String>,
    /// What it is.
    pub new: Option<String>,
}

impl fmt::Display for PolicyChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
        write!(f, "{}: {} -> {}", self.key, text(&self.old), text(&self.new))
    }
}

impl Policy {
    /// What is not as it was in `old`, by key.
    pub fn changes_since(&self, old: &Policy) -> Vec<PolicyChange> {
        let (old, new) = (old.flat(), self.flat());
        let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let change = |key: &String| PolicyChange {
            key: key.clone(),
            old: old.get(key).cloned(),
            new: new.get(key).cloned(),
        };
        keys.into_iter().filter(|key| old.get(*key) != new.get(*key)).map(change).collect()
    }

    /// Every key that is set, as `section.key`, with its value as one types it.
    pub(crate) fn flat(&self) -> BTreeMap<String, String> {
        // A policy can always be written: a test writes every key.
        let sections = toml::Table::try_from(self).unwrap_or_default();
        let mut flat = BTreeMap::new();
        for (section, values) in &sections {
            for (key, value) in values.as_table().into_iter().flatten() {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                flat.insert(format!("{section}.{key}"), text);
            }
        }
        flat
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_presets_are_read_and_hold_their_relations() {
        let presets = Policy::presets();
        assert_eq!(presets.len(), 2);
        for (name, policy) in presets {
            assert_eq!(policy.validate(), Ok(()), "{name}");
        }
    }

    #[test]
    fn the_list_of_keys_is_the_document() {
        let mut policy = Policy::presets().remove(0).1;
        policy.detection.members_min = Some(2);
        policy.detection.paths_min = Some(2);
        policy.detection.probe_interval = Some(Millis(500));
        policy.spares.strikes_max = Some(2);
        policy.spares.give_up = vec![Concession::Labels];
        policy.spares.mac = MacRule::Keep;
        policy.acting.windows = vec!["Mon 08:00-18:00".parse().unwrap()];
        policy.acting.outside = Some(Mode::Shadow);
        policy.backups.kept = 3;
        policy.applies = Applies {
            tenants: ["acme".parse().unwrap()].into(),
            labels: [("tier".to_owned(), "gold".to_owned())].into(),
        };
        let table = toml::Table::try_from(&policy).unwrap();
        let mut found: Vec<String> = vec![];
        for (section, values) in &table {
            found.extend(values.as_table().unwrap().keys().map(|key| format!("{section}.{key}")));
        }
        found.sort();
        let mut listed: Vec<&str> = keys::KEYS.iter().map(|key| key.name).collect();
        listed.sort_unstable();
        assert_eq!(found, listed);
    }

    #[test]
    fn a_snapshot_has_its_time_and_one_is_kept() {
        let policy = Policy::presets().remove(0).1;
        let with = |changes: &[(&str, &str)]| policy.with(changes.iter().copied()).map_err(|e| e.to_string());
        assert!(with(&[("takeover.snapshot_max", "30s"), ("takeover.snapshots_kept", "100")]).is_ok());
        for (changes, why) in [
            (
                &[("takeover.snapshot_max", "31s")][..],
                "takeover.step_deadline = 30s must be at least takeover.snapshot_max = 31s",
            ),
            (
                &[("takeover.snapshot_max", "30s"), ("takeover.start_deadline", "59s")],
                "takeover.start_deadline = 59s must be at least takeover.snapshot_max = 30s and \
                 takeover.step_deadline = 30s together",
            ),
            (
                &[("takeover.snapshots_kept", "0")],
                "takeover.snapshots_kept = 0 must be at least one snapshot = 1",
            ),
            (
                &[("takeover.snapshots_kept", "101")],
                "the most that are kept = 100 must be at least takeover.snapshots_kept = 101",
            ),
            (&[("backups.kept", "101")], "the most that are kept = 100 must be at least backups.kept = 101"),
            (&[("backups.deadline", "999ms")], "backups.deadline = 999ms must be at least the shortest = 1s"),
        ] {
            assert_eq!(with(changes), Err(why.to_owned()));
        }
    }

    #[test]
    fn a_change_is_refused_whole_with_the_reason() {
        let policy = Policy::presets().remove(0).1;
        let text = |r: Result<Policy, BadPolicy>| r.map(|_| ()).unwrap_err().to_string();
        assert_eq!(
            text(policy.with([("detection.suspect_afetr", "1s")])),
            "there is no key \"detection.suspect_afetr\" in a policy; did you mean \"detection.suspect_after\"?"
        );
        assert_eq!(
            text(policy.with([("detection.suspect_after", "100ms")])),
            "detection.suspect_after = 100ms must be at least two heartbeat intervals = 500ms"
        );
        assert!(text(policy.with([("detection.suspect_after", "soon")])).contains("not a length of time"));
        assert_eq!(
            text(policy.with([("detection.probe_interval", "1001ms")])),
            "detection.suspect_after = 2s must be at least two of detection.probe_interval = 1001ms"
        );
        assert!(
            text(policy.with([("detection.probe_interval", "1ms")])).contains("at least the shortest = 50ms")
        );
        let often = policy.with([("detection.probe_interval", "1s")]).unwrap().detection;
        assert_eq!((policy.detection.probe_pause(), often.probe_pause()), (Millis(666), Millis(1000)));
        let changed =
            policy.with([("detection.suspect_after", "1s"), ("fencing.isolation_alone", "5s")]).unwrap();
        assert_eq!(changed.detection.suspect_after, Millis::secs(1));
        assert_eq!(changed.fencing.isolation_alone, After::Time(Millis::secs(5)));
        assert_eq!(
            text(policy.with([("acting.unapproved_after", "5m")])),
            "acting.unapproved_after = 5m must be left out, or needs acting.mode or acting.outside = approval"
        );
        assert!(text(policy.with([("acting.mode", "shado")])).contains("automatic"));
    }

    #[test]
    fn windows_and_what_counts_outside_of_them_do_not_contradict() {
        let policy = Policy::presets().remove(0).1;
        let with = |changes: &[(&str, &str)]| {
            policy.with(changes.iter().copied()).map(|policy| policy.acting).map_err(|why| why.to_string())
        };
        let day = ("acting.windows", "Mon,Wed 08:00-12:00, Fri..Sun 22:00-02:00,13:00-14:00");
        let acting = with(&[day]).unwrap();
        let windows: Vec<String> = acting.windows.iter().map(ToString::to_string).collect();
        assert_eq!(windows, ["Mon,Wed 08:00-12:00", "Fri..Sun 22:00-02:00", "13:00-14:00"]);
        let night = Wall(0);
        assert_eq!(acting.mode_in(&acting.hour(night)), Mode::Approval);
        assert_eq!(acting.mode_in(&acting.hour(Wall(13 * 3_600_000))), Mode::Automatic);
        assert!(with(&[day, ("acting.unapproved_after", "10m")]).is_ok(), "outside somebody is asked");
        let shadow = ("acting.outside", "shadow");
        assert!(
            with(&[day, ("acting.mode", "approval"), shadow, ("acting.unapproved_after", "10m")]).is_ok()
        );
        let refused = [
            (vec![shadow], "acting.outside = shadow must be left out, or needs acting.windows"),
            (
                vec![day, ("acting.outside", "automatic")],
                "acting.outside = automatic must be stricter than acting.mode = automatic",
            ),
            (
                vec![day, ("acting.mode", "approval")],
                "acting.outside = approval (which it is if left out) must be stricter than acting.mode = approval",
            ),
            (
                vec![day, shadow, ("acting.unapproved_after", "10m")],
                "acting.unapproved_after = 10m must be left out, or needs acting.mode or acting.outside = approval",
            ),
        ];
        for (changes, why) in refused {
            assert_eq!(with(&changes).unwrap_err(), why);
        }
        assert!(
            with(&[("acting.windows", "Mno 08:00-18:00")]).unwrap_err().contains("did you mean \"Mon\"?")
        );
        assert!(
            with(&[("acting.windows", &"08:00-18:00,".repeat(33))]).unwrap_err().contains("more than 32")
        );
        let both = policy.with([day, shadow]).unwrap();
        assert_eq!(both.with([("acting.windows", ""), ("acting.outside", "")]).unwrap(), policy);
    }

    #[test]
    fn lists_and_tables_are_typed_as_people_type_them() {
        let policy = Policy::presets().remove(0).1;
        let pool = BTreeMap::from([("pool".to_owned(), "gold".to_owned())]);
        for (domains, labels) in [("rack, pdu", "pool=gold"), (r#"["rack","pdu"]"#, r#"{ pool = "gold" }"#)] {
            let changed = policy.with([("spares.differs_in", domains), ("spares.labels", labels)]).unwrap();
            assert_eq!(
                changed.spares,
                Spares {
                    differs_in: vec!["rack".into(), "pdu".into()],
                    labels: pool.clone(),
                    ..policy.spares.clone()
                }
            );
            let emptied = changed.with([("spares.differs_in", ""), ("spares.labels", "")]).unwrap();
            assert_eq!(emptied, policy);
        }
        let chosen = policy.with([("applies.tenants", "acme,foo"), ("applies.labels", "tier=gold")]).unwrap();
        assert_eq!(chosen.applies.to_string(), "tenant acme or foo, label tier=gold");
        assert_eq!(chosen.with([("applies.tenants", ""), ("applies.labels", "")]).unwrap(), policy);
        assert_eq!(policy.with([("spares.strikes_max", "")]).unwrap().spares.strikes_max, None);
        assert!(policy.with([("brakes.hold_above_failed", "")]).is_err(), "it has no default");
        assert!(policy.with([("applies.tenants", "Acme")]).is_err(), "a tenant is a name");
        assert!(policy.with([("spares.labels", "gold")]).is_err(), "a label has a value");
        assert!(policy.with([("spares.strikes_max", "10")]).is_err(), "only ten strikes are kept");
        assert!(policy.with([("spares.differs_in", "[rack")]).is_err());
    }
}
