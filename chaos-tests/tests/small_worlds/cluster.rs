//! The cluster of a small world as an operator describes it: a few nodes, one or two instances, one policy.
//!
//! Why it exists: the engines under test must begin with real, validated documents. What it never does: move anything.

use super::rules::Rules;
use policies::*;

/// How long a step of time is, and what it is longer than. The limits of the policy lie so far apart that only the
/// sizes of ages matter, never their sums: this keeps the number of states finite and loses no behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Span {
    /// Longer than every pause before a retry, far shorter than any command may be late.
    Retry,
    /// Longer than any command may be late.
    Drain,
    /// Longer than a spare may take to start.
    Start,
}

impl Span {
    pub(crate) fn length(self) -> Millis {
        match self {
            Span::Retry => Millis::secs(10),
            Span::Drain => Millis(2 * EFFECT_MAX.0),
            Span::Start => Millis(2 * START_DEADLINE.0),
        }
    }

    /// The size of an age, as all that the engine's limits can tell of it.
    pub(crate) fn of_age(age: Millis) -> u8 {
        match age.0 {
            0 => b'0',
            age if age < EFFECT_MAX.0 => b'r',
            age if age < START_DEADLINE.0 => b'd',
            _ => b's',
        }
    }
}

const EFFECT_MAX: Millis = Millis::secs(100_000);
const START_DEADLINE: Millis = Millis::secs(1_000_000_000);

/// The node with this number, counted from 0.
pub(crate) fn node(number: usize) -> NodeId {
    format!("n{}", number + 1).parse().unwrap()
}

/// The number of a node.
pub(crate) fn number(node: &NodeId) -> usize {
    node.as_str()[1..].parse::<usize>().unwrap() - 1
}

/// The instance with this number; it begins on the node with the same number.
pub(crate) fn instance(number: usize) -> InstanceId {
    format!("w{}", number + 1).parse().unwrap()
}

/// The number of a volume: that of its instance.
pub(crate) fn volume_number(volume: &VolumeId) -> usize {
    volume.as_str()[1..].parse::<usize>().unwrap() - 1
}

/// The number of the instance whose network this is.
pub(crate) fn network_number(vlan: u16) -> usize {
    usize::from(vlan) - 1
}

/// The committed state before the first election: everything described, every instance ordered to move that shall.
pub(crate) fn described(rules: &Rules) -> ClusterState {
    let mut state = ClusterState::default();
    // The presets would only make the states longer to print.
    state.policies.clear();
    let documents: Documents = toml::from_str(&document(rules)).unwrap();
    let orders = (0..rules.instances)
        .map(|number| Command::Evacuate { instance: instance(number), reason: "o".to_owned() });
    let commands =
        [Command::Describe(Box::new(documents)), Command::Arm { reason: "o".to_owned() }].into_iter();
    for (index, command) in commands.chain(orders).enumerate() {
        let proposal = Proposal { at: Wall(0), by: "o".to_owned(), command };
        state.apply(LogIndex(index as u64 + 1), &proposal).unwrap();
    }
    state
}

fn document(rules: &Rules) -> String {
    let mut text =
        "[[provider]]\nname = \"p\"\nkind = \"rack\"\nurl = \"http://r\"\ntoken = \"t\"\n".to_owned();
    for name in (0..rules.nodes()).map(node) {
        let device =
            format!("{{ driver = \"ipmi\", address = \"{name}:1\", user = \"u\", password = \"p\" }}");
        text += &format!(
            "[[node]]\nname = \"{name}\"\ninitiator = \"iqn.{name}\"\nagent_key = \"k\"\nfencing = [{device}]\n"
        );
        if rules.ports {
            text += &format!("ports = [{{ provider = \"p\", port = \"{name}\" }}]\n");
        }
    }
    for number in 0..rules.instances {
        let (name, node) = (instance(number), node(number));
        text += &format!("[[instance]]\nname = \"{name}\"\nnode = \"{node}\"\npolicy = \"cautious\"\n");
        text += &format!("volumes = [{{ provider = \"p\", volume = \"v{}\" }}]\n", number + 1);
        if rules.ports {
            text += &format!("networks = [{{ vlan = {} }}]\n", number + 1);
        }
    }
    text + &policy(rules)
}

fn policy(rules: &Rules) -> String {
    // A policy that promises more of the devices than they keep: nothing drains.
    let (power, provider) =
        if rules.drains() { (EFFECT_MAX, EFFECT_MAX) } else { (Millis::secs(1), Millis(0)) };
    let level = if rules.drains() { EFFECT_MAX } else { Millis::secs(1) };
    let brakes = rules.instances.max(1);
    format!(
        "[[policy]]\nname = \"cautious\"\n[policy.detection]\nsuspect_after = \"2s\"\nreprobe_count = 1\n\
         reprobe_interval = \"50ms\"\ngray_after = \"30s\"\nwrite_stale_after = \"30s\"\ndomains_min = 1\n\
         [policy.fencing]\nisolation_alone = \"never\"\npower_alone = false\nlevel_deadline = \"{level}\"\n\
         retry_after = \"100ms\"\npower_effect_max = \"{power}\"\nprovider_effect_max = \"{provider}\"\n\
         [policy.takeover]\nstep_deadline = \"1s\"\nstart_deadline = \"{START_DEADLINE}\"\n\
         [policy.brakes]\nfences_in_flight_max = {brakes}\nfences_per_10min_max = 90\nhold_above_failed = 90\n\
         hold_above_failed_per_domain = 90\n"
    )
}
