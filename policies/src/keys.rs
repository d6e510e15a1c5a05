//! Every key of a policy document: what it is, how it is typed, what it means. The one list of them.
//!
//! Why it exists: `hactl policy set`, its refusals and the table in `docs/CONFIGURATION.md` must speak of the same keys; the
//! table is written from here by a test. What it never does: know which values are good; [`Policy::validate`] does.
//!
//! [`Policy::validate`]: crate::Policy::validate

/// What a key holds, and how people type it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A length of time: `250ms`, `2s`, `10m`, `1h`, `7d`.
    Time,
    /// The same, or `never`.
    TimeOrNever,
    /// A whole number.
    Count,
    /// `true` or `false`.
    Truth,
    /// One word of a few.
    Word,
    /// Words: `rack,pdu`.
    Words,
    /// Names with values: `pool=gold,gpu=yes`.
    Pairs,
    /// Hours on days: `Mon,Wed 08:00-18:00, Sat 22:00-02:00`.
    Windows,
}

impl Kind {
    /// In words, for the table.
    pub fn told(self) -> &'static str {
        match self {
            Kind::Time => "time",
            Kind::TimeOrNever => "time, or `never`",
            Kind::Count => "number",
            Kind::Truth => "`true`, `false`",
            Kind::Word => "word",
            Kind::Words => "list",
            Kind::Pairs => "pairs",
            Kind::Windows => "windows",
        }
    }

    /// How nothing is written where a document leaves the key out.
    pub fn nothing(self) -> &'static str {
        match self {
            Kind::Words | Kind::Windows => "[]",
            Kind::Pairs => "{}",
            Kind::Time | Kind::TimeOrNever | Kind::Count | Kind::Truth | Kind::Word => "absent",
        }
    }

    /// A value as people type it; lists and tables as TOML, too. What cannot be read stays a text, and is refused as one
    /// where something else is wanted.
    pub(crate) fn typed(self, text: &str) -> toml::Value {
        let words = || text.split(',').map(str::trim).filter(|word| !word.is_empty());
        let number = || text.parse::<i64>().ok().map(toml::Value::Integer);
        let truth = || text.parse::<bool>().ok().map(toml::Value::Boolean);
        let read = match self {
            Kind::Count => number(),
            Kind::Truth => truth(),
            Kind::Words | Kind::Pairs | Kind::Windows if text.starts_with(['[', '{']) => {
                let written = toml::from_str::<toml::Table>(&format!("value = {text}"));
                written.ok().and_then(|mut table| table.remove("value"))
            }
            Kind::Windows => Some(windows(text).into()),
            Kind::Words => Some(words().map(str::to_owned).collect::<Vec<_>>().into()),
            Kind::Pairs => {
                // A word without `=` becomes a key without a value, and is refused as such.
                let pairs = words().map(|word| word.split_once('=').unwrap_or((word, "")));
                let pairs = pairs.map(|(key, value)| (key.trim().into(), value.trim().into()));
                Some(toml::Value::Table(pairs.collect()))
            }
            Kind::Time | Kind::TimeOrNever | Kind::Word => None,
        };
        read.unwrap_or_else(|| text.into())
    }
}

/// The comma separates windows, and days within one: a window ends with its hours.
fn windows(text: &str) -> Vec<String> {
    let mut windows: Vec<String> = vec![];
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match windows.last_mut().filter(|window| !window.contains(':')) {
            Some(days) => days.push_str(&format!(",{part}")),
            None => windows.push(part.to_owned()),
        }
    }
    windows
}

/// A key of a policy document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// `section.key`
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether a document may leave it out where no default takes its place; an empty value then removes it.
    pub optional: bool,
    /// In a few words; the reasons for each value stand at its field.
    pub meaning: &'static str,
}

const fn key(name: &'static str, kind: Kind, meaning: &'static str) -> Key {
    Key { name, kind, optional: false, meaning }
}

const fn optional(name: &'static str, kind: Kind, meaning: &'static str) -> Key {
    Key { name, kind, optional: true, meaning }
}

/// Every key, section by section.
pub const KEYS: &[Key] = &[
    key(
        "applies.tenants",
        Kind::Words,
        "which instances it protects although they name no policy: those of these tenants; both keys empty: none",
    ),
    key("applies.labels", Kind::Pairs, "and which carry all of these labels (`tier=gold`)"),
    key("detection.suspect_after", Kind::Time, "silence after which a member suspects a node"),
    optional(
        "detection.probe_interval",
        Kind::Time,
        "time between two questions to a node without an agent, and how long an answer may take; absent: a third of `suspect_after`; at most half of it",
    ),
    key(
        "detection.reprobe_count",
        Kind::Count,
        "how often a suspect's kernel is asked before it counts as mute",
    ),
    key("detection.reprobe_interval", Kind::Time, "time between these questions"),
    key(
        "detection.gray_after",
        Kind::Time,
        "how long a silent node whose kernel answers may stay so before it counts as failed",
    ),
    key(
        "detection.write_stale_after",
        Kind::Time,
        "age of the last acknowledged write from which on a beating node is gray",
    ),
    optional(
        "detection.members_min",
        Kind::Count,
        "members that must see it dead; absent: a majority of the voters",
    ),
    key("detection.domains_min", Kind::Count, "failure domains in which these members must stand"),
    optional(
        "detection.paths_min",
        Kind::Count,
        "heartbeat paths on which a node must be heard, if it has shown so many, not to be gray; absent: one",
    ),
    key(
        "fencing.isolation_alone",
        Kind::TimeOrNever,
        "power is tried this long before isolation at storage and network alone is proof",
    ),
    key("fencing.power_alone", Kind::Truth, "power proof alone is enough where there is nothing to revoke"),
    key(
        "fencing.diagnose_max",
        Kind::Time,
        "how long the BMC is asked why the node died before its power is touched (volumes and ports are cut off \
         meanwhile); `0ms`: not at all",
    ),
    key(
        "fencing.crash_dump_max",
        Kind::Time,
        "how long the kernel of a silent node has to write its crash dump after an interrupt (NMI), before its power is \
         cut (volumes and ports are cut off meanwhile); `0ms`: it is not interrupted",
    ),
    key("fencing.level_deadline", Kind::Time, "time for one fencing level before the next is tried"),
    key("fencing.retry_after", Kind::Time, "pause between attempts of one step"),
    key(
        "fencing.power_effect_max",
        Kind::Time,
        "the latest that a power command may take effect after it was sent",
    ),
    key("fencing.provider_effect_max", Kind::Time, "the same for storage, switch and boot"),
    key("takeover.step_deadline", Kind::Time, "limit for one effect"),
    key(
        "takeover.snapshot_max",
        Kind::Time,
        "how long the spare waits for a snapshot of each volume before it gets it; `0ms`: none is made",
    ),
    key(
        "takeover.snapshots_kept",
        Kind::Count,
        "how many of our snapshots (`ha-fN`) a volume has at most; the device deletes older ones as it makes a new one",
    ),
    key(
        "takeover.shutdown_deadline",
        Kind::Time,
        "how long a drained node's system has to shut down before it is fenced, where the order does not say",
    ),
    key(
        "takeover.kexec_max",
        Kind::Time,
        "how long a hot spare has to be heard after it was told to go on into the instance; then, or with `0ms` at once, it is switched off and on",
    ),
    key(
        "takeover.start_deadline",
        Kind::Time,
        "from power-on to the first heartbeat; then the spare is given up",
    ),
    key(
        "brakes.fences_in_flight_max",
        Kind::Count,
        "fences under way at the same time, in the whole cluster",
    ),
    key("brakes.fences_per_10min_max", Kind::Count, "fences begun within ten minutes, in the whole cluster"),
    key("brakes.hold_above_failed", Kind::Count, "with more nodes failed nothing is fenced any more"),
    key("brakes.hold_above_failed_per_domain", Kind::Count, "the same within one failure domain"),
    key(
        "spares.differs_in",
        Kind::Words,
        "kinds of failure domain (`rack,pdu`) in which the spare must stand elsewhere than the failed node",
    ),
    key("spares.labels", Kind::Pairs, "labels that a spare must carry (`pool=gold`)"),
    optional(
        "spares.strikes_max",
        Kind::Count,
        "how often a spare may have been fenced within `strikes_within` because it had failed or did not start; absent: as often as it likes",
    ),
    key("spares.strikes_within", Kind::Time, "how long such a strike counts"),
    key(
        "spares.give_up",
        Kind::Words,
        "which of these are wishes rather than needs (`strikes`, `labels`, `differs_in`): if no spare fits, the first is given up, then the first two, and so on",
    ),
    key(
        "spares.mac",
        Kind::Word,
        "`any` (also if it is left out): a cloud may give the instance the MAC address of the spare's NIC; `keep`: no spare fits where it would, that is wherever the instance has a `vif`",
    ),
    key(
        "acting.mode",
        Kind::Word,
        "`automatic`: a decided failover begins; `approval`: it waits for `hactl failover approve`; `shadow`: it is recorded and never begins",
    ),
    key(
        "acting.unapproved_after",
        Kind::TimeOrNever,
        "where it waits for approval: begin anyway if nobody has answered for so long",
    ),
    key(
        "acting.windows",
        Kind::Windows,
        "hours in which `mode` counts, in UTC by the leader's clock (`Mon..Fri 08:00-18:00, Sat 22:00-02:00`, `00:00-06:00`); none: always",
    ),
    optional(
        "acting.outside",
        Kind::Word,
        "what counts outside of the windows, stricter than `mode`: `approval` (also if it is left out) or `shadow`",
    ),
    key(
        "backups.kept",
        Kind::Count,
        "how many backups (`ha-bN`, `hactl instance backup`) a volume has at most; the device deletes older ones once a \
         new one is there; `0` (also if it is left out): none is made",
    ),
    key("backups.deadline", Kind::Time, "how long one volume's backup may take; left out: `2m`"),
];

/// The key of this name.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// What is said of a key that does not exist.
pub(crate) fn unknown(name: &str) -> String {
    let likeness = |key: &&Key| strsim::jaro_winkler(name, key.name);
    match KEYS.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))) {
        Some(nearest) => format!("there is no key {name:?} in a policy; did you mean {:?}?", nearest.name),
        None => format!("there is no key {name:?} in a policy"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Policy;

    const MARKS: (&str, &str) = ("<!-- policy keys: made by a test -->\n", "<!-- end of policy keys -->");

    /// The table as it stands in the documentation.
    fn table() -> String {
        let presets: Vec<_> =
            Policy::presets().into_iter().map(|(name, policy)| (name, policy.flat())).collect();
        let names: String = presets.iter().map(|(name, _)| format!(" {name} |")).collect();
        let mut table = format!(
            "| key | type |{names} meaning |\n| --- | --- |{} --- |\n",
            " --- |".repeat(presets.len())
        );
        for Key { name, kind, meaning, .. } in KEYS {
            let value = |preset: &std::collections::BTreeMap<String, String>| {
                preset.get(*name).cloned().unwrap_or_else(|| kind.nothing().to_owned())
            };
            let values: String = presets.iter().map(|(_, preset)| format!(" {} |", value(preset))).collect();
            table.push_str(&format!("| `{name}` | {} |{values} {meaning} |\n", kind.told()));
        }
        table
    }

    #[test]
    fn the_table_in_the_documentation_is_this_list() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/CONFIGURATION.md");
        let page = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = page.split_once(MARKS.0).unwrap();
        let (old, after) = rest.split_once(MARKS.1).unwrap();
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            let new = [before, MARKS.0, &table(), MARKS.1, after].concat();
            return std::fs::write(&path, new).unwrap();
        }
        assert_eq!(old, table(), "UPDATE_EXPECT=1 cargo test -p policies keys writes it");
    }

    #[test]
    fn each_kind_is_typed_as_it_is_meant() {
        assert_eq!(Kind::Count.typed("5"), 5.into());
        assert_eq!(Kind::Word.typed("5"), "5".into());
        assert_eq!(Kind::Truth.typed("yes"), "yes".into());
        assert_eq!(Kind::Words.typed("[\"a\"]"), Kind::Words.typed(" a ,"));
        assert_eq!(Kind::Pairs.typed("{ a = \"1\" }"), Kind::Pairs.typed("a=1"));
        assert_eq!(Kind::Words.typed("[a"), "[a".into());
    }
}
