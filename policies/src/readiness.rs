//! What a failover will need of providers, and what they say of it beforehand: ports, volumes, boot images.
//!
//! Why it exists: a port that nobody has, a volume that was deleted and an image that is not served are found at three in
//! the morning, unless somebody asks before. What it never does: ask itself, commit what it was told, or keep a failover
//! from beginning; a spare whose port is certainly not there is a misfit, and an instance that lacks something is uncovered.

use crate::inventory::{Boot, Instance, Node, SwitchPort, Volume};
use crate::planner::Subject;
use crate::provider::ProviderKind;
use crate::state::{ClusterState, InstanceRecord, NodeState};
use crate::waiting::Waiting;
use crate::words::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// How often each object is asked for, on average: each has a pause of its own between half of this and one and a half, so
/// that they spread by themselves. Lower: more load on storage and switches (10,000 objects are 170 questions a second).
/// Higher: what has gone is known later; a failover in between finds out by itself, as without any check.
pub const CHECK_EVERY: Millis = Millis(60_000);
/// The pause after an answer that was a no. Lower: a provider that restarts and knows nothing yet is asked by all at once.
/// Higher: what was repaired, or was never wrong, keeps a spare out longer.
const CHECK_AGAIN: Millis = Millis(10_000);
/// Questions to one provider at the same time. Lower: one that is slow is asked too seldom. Higher: it is slower still when
/// a failover needs it.
const CHECKS_IN_FLIGHT_MAX: usize = 4;
/// How long nobody may be able to tell before it counts as a lack. Lower: each restart of a storage controller raises an
/// alarm. Higher: an outage in which no failover could end is told later.
pub const CANNOT_TELL_MAX: Millis = Millis(300_000);
/// How often the reasons are worked out anew. Lower: a provider that is away costs a pass over all that it has again and
/// again. Higher: people read older news.
const REASONS_EVERY: Millis = Millis(1000);
/// Spares and instances that are named in the reasons; the coverage names all. Bounds the work for each input.
const REASONS_MAX: usize = 100;
/// Longest text of a provider that is kept, in characters.
const WORDS_MAX: usize = 300;

/// An object at a provider that a failover will need.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The switch has this port, and there is a link.
    Port(SwitchPort),
    /// The storage has this volume.
    Volume(Volume),
    /// The boot service serves this image.
    Boot(Boot),
    /// The storage can make snapshots of this volume, where the policy wants them. Nothing fails without.
    Snapshot(Volume),
    /// The same while somebody writes to it, where the policy keeps backups. Nothing fails without.
    Backup(Volume),
    /// The cloud keeps this node for us: it is free, and nobody else can be given it.
    Free(CloudNode),
}

/// A node, as its cloud knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CloudNode {
    /// The cloud.
    pub provider: ProviderId,
    /// Its UUID there.
    pub node: String,
}

impl Check {
    /// Who is asked.
    pub fn provider(&self) -> &ProviderId {
        match self {
            Check::Port(port) => &port.provider,
            Check::Volume(volume) | Check::Snapshot(volume) | Check::Backup(volume) => &volume.provider,
            Check::Boot(boot) => &boot.provider,
            Check::Free(node) => &node.provider,
        }
    }

    /// This object's own pause, so that not all are asked at once.
    fn pause(&self) -> Millis {
        // FNV-1a with a last stir, for names that differ in one letter: any hash will do that is the same everywhere.
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let hash: u64 = self.to_string().bytes().fold(0xcbf2_9ce4_8422_2325, mix);
        let hash = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        Millis(CHECK_EVERY.0 / 2 + hash % CHECK_EVERY.0)
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Check::Port(SwitchPort { provider, port }) => write!(f, "port {port} at {provider}"),
            Check::Volume(Volume { provider, volume }) => write!(f, "volume {volume} at {provider}"),
            Check::Boot(Boot { provider, image }) => write!(f, "image {image} at {provider}"),
            Check::Snapshot(Volume { provider, volume }) => {
                write!(f, "snapshots of volume {volume} at {provider}")
            }
            Check::Free(CloudNode { provider, node }) => write!(f, "node {node} at {provider}"),
            Check::Backup(Volume { provider, volume }) => {
                write!(f, "backups of volume {volume} at {provider}")
            }
        }
    }
}

/// What is known of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// It is there and does what it can be seen to do.
    Fine,
    /// It is certainly not there: its provider says so, in these words.
    Absent(String),
    /// It is there and certainly does not work, as a port without a link. A provider must not say so of a port whose node may
    /// only be switched off.
    Faulty(String),
    /// A node that is free, and that its cloud could give to anybody: nobody has claimed it.
    Unclaimed,
    /// Nobody knows: no answer, one that is not understood, or a provider that is not set up.
    CannotTell(String),
}

impl Finding {
    fn clipped(self) -> Self {
        let clip = |words: String| match words.char_indices().nth(WORDS_MAX) {
            Some((end, _)) => format!("{}...", words.get(..end).unwrap_or_default()),
            None => words,
        };
        match self {
            Finding::Fine => Finding::Fine,
            Finding::Unclaimed => Finding::Unclaimed,
            Finding::Absent(words) => Finding::Absent(clip(words)),
            Finding::Faulty(words) => Finding::Faulty(clip(words)),
            Finding::CannotTell(words) => Finding::CannotTell(clip(words)),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Fine => write!(f, "fine"),
            Finding::Unclaimed => write!(f, "it is free, and not yet claimed for us"),
            Finding::Absent(words) | Finding::Faulty(words) => write!(f, "{words}"),
            Finding::CannotTell(words) => write!(f, "cannot tell: {words}"),
        }
    }
}

/// What was found of an object, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// The object.
    pub check: Arc<Check>,
    /// The newest finding.
    pub finding: Finding,
    /// How old it is.
    pub age: Millis,
    /// For how long each finding was of this kind.
    pub lasting: Millis,
}

impl Checked {
    /// True if an instance that needs the object would not come back. A port that has no link can still be closed, and a
    /// failover goes on without a snapshot.
    fn is_lack(&self) -> bool {
        match (&self.finding, &*self.check) {
            (Finding::Fine, _)
            | (_, Check::Snapshot(_) | Check::Backup(_))
            | (Finding::Faulty(_), Check::Port(_)) => false,
            (Finding::Absent(_) | Finding::Unclaimed, _)
            | (Finding::Faulty(_), Check::Volume(_) | Check::Boot(_) | Check::Free(_)) => true,
            (Finding::CannotTell(_), _) => self.lasting > CANNOT_TELL_MAX,
        }
    }
}

/// Looks up what was found of an object, if it is not fine.
pub(crate) type Trouble<'a> = &'a dyn Fn(&Check) -> Option<Checked>;

/// What the instance would lack in a failover: its volumes, its boot source, and ports that could not be closed.
pub(crate) fn lacks(instance: &Instance, from: &Node, trouble: Trouble) -> Option<Waiting> {
    not_ready(needs(instance).chain(ports(from)), trouble, Checked::is_lack)
}

/// What an instance needs wherever it runs.
fn needs(instance: &Instance) -> impl Iterator<Item = Check> {
    let volumes = instance.volumes.iter().cloned().map(Check::Volume);
    volumes.chain(instance.boot.iter().cloned().map(Check::Boot))
}

/// What its policy would like to have.
pub(crate) fn likes<'a>(
    state: &ClusterState,
    record: &'a InstanceRecord,
) -> impl Iterator<Item = Check> + use<'a> {
    let policy = state.policies.get(&record.policy).map(|record| &record.policy);
    let snapshots = policy.is_some_and(|policy| policy.takeover.snapshot_max > Millis(0));
    let backups = policy.is_some_and(|policy| policy.backups.kept > 0);
    let of_each = |wants: bool| record.instance.volumes.iter().filter(move |_| wants).cloned();
    of_each(snapshots).map(Check::Snapshot).chain(of_each(backups).map(Check::Backup))
}

/// What a node has.
fn ports(node: &Node) -> impl Iterator<Item = Check> {
    node.ports.iter().cloned().map(Check::Port)
}

/// That the clouds to which a spare belongs keep it for us.
fn free(node: &Node) -> impl Iterator<Item = Check> {
    node.fencing.iter().filter_map(|device| {
        let provider = device.cloud()?;
        let node = device.node_at(provider)?.to_owned();
        Some(Check::Free(CloudNode { provider: provider.clone(), node }))
    })
}

/// Why a spare is not ours to take: somebody else has it, or could get it, and would be fenced should it not start for us.
pub(crate) fn taken(node: &Node, trouble: Trouble) -> Option<Finding> {
    free(node).find_map(|check| trouble(&check).map(|checked| checked.finding).filter(is_out))
}

/// True if it certainly cannot be used.
fn is_out(finding: &Finding) -> bool {
    match finding {
        Finding::Absent(_) | Finding::Faulty(_) | Finding::Unclaimed => true,
        Finding::Fine | Finding::CannotTell(_) => false,
    }
}

/// What keeps a spare out, and what nobody has been able to tell of it for too long.
fn lacks_of_spare(node: &Node, trouble: Trouble) -> Option<Waiting> {
    let is_lack = |checked: &Checked| checked.is_lack() || matches!(checked.finding, Finding::Faulty(_));
    not_ready(ports(node).chain(free(node)), trouble, is_lack)
}

fn not_ready(
    checks: impl Iterator<Item = Check>,
    trouble: Trouble,
    is_lack: impl Fn(&Checked) -> bool,
) -> Option<Waiting> {
    let found = checks.filter_map(|check| trouble(&check)).filter(is_lack);
    let lacks: Vec<_> = found.map(|checked| (Check::clone(&checked.check), checked.finding)).collect();
    (!lacks.is_empty()).then_some(Waiting::NotReady { lacks })
}

/// Ports of a spare that certainly do not work, by their place. What nobody can tell keeps no spare out: a switch that is
/// away must not stop every failover.
pub(crate) fn ports_out(node: &Node, trouble: Trouble) -> Vec<(usize, Finding)> {
    let findings = ports(node).map(|port| Some(trouble(&port)?.finding)).enumerate();
    findings.filter_map(|(at, finding)| Some((at, finding.filter(is_out)?))).collect()
}

/// A leader's questions and what was answered. Lost with the leadership; a new leader asks again at once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checks {
    queues: BTreeMap<ProviderId, Queue>,
    objects: BTreeMap<Arc<Check>, Object>,
    /// Those whose newest finding is not fine.
    troubled: BTreeSet<Arc<Check>>,
    /// Why spares cannot be taken and instances would not come back, as of that moment.
    reasons: Option<(Mono, Vec<(Subject, Waiting)>)>,
}

/// The questions to one provider.
#[derive(Clone, Debug)]
struct Queue {
    /// As it was described; described otherwise, it is asked anew.
    kind: ProviderKind,
    due: BTreeSet<(Mono, Arc<Check>)>,
    in_flight: BTreeSet<Arc<Check>>,
}

#[derive(Clone, Debug, Default)]
struct Object {
    /// Who needs it.
    owners: Vec<Subject>,
    found: Option<Found>,
}

#[derive(Clone, Debug)]
struct Found {
    finding: Finding,
    at: Mono,
    since: Mono,
}

impl Checks {
    /// Brings the questions in line with what is described. What is new is due at once.
    pub(crate) fn describe(&mut self, state: &ClusterState, now: Mono) {
        let mut wanted: BTreeMap<Arc<Check>, Object> = BTreeMap::new();
        let mut want = |check: Check, owner: Subject| match wanted.get_mut(&check) {
            Some(object) => object.owners.push(owner),
            None => drop(wanted.insert(Arc::new(check), Object { owners: vec![owner], found: None })),
        };
        for (name, record) in &state.nodes {
            ports(&record.node).for_each(|check| want(check, Subject::Node(name.clone())));
            if matches!(record.state, NodeState::Spare | NodeState::Reserved { .. }) {
                free(&record.node).for_each(|check| want(check, Subject::Node(name.clone())));
            }
        }
        for (name, record) in &state.instances {
            let checks = needs(&record.instance).chain(likes(state, record));
            checks.for_each(|check| want(check, Subject::Instance(name.clone())));
        }
        self.queues.retain(|name, queue| state.providers.get(name).is_some_and(|it| it.kind == queue.kind));
        let kept: BTreeSet<ProviderId> = self.queues.keys().cloned().collect();
        for (name, provider) in &state.providers {
            let (due, in_flight) = (BTreeSet::new(), BTreeSet::new());
            let new = || Queue { kind: provider.kind.clone(), due, in_flight };
            self.queues.entry(name.clone()).or_insert_with(new);
        }
        for queue in self.queues.values_mut() {
            queue.due.retain(|(_, check)| wanted.contains_key(check));
            queue.in_flight.retain(|check| wanted.contains_key(check));
        }
        for (check, object) in &mut wanted {
            match self.objects.get_mut(check).filter(|_| kept.contains(check.provider())) {
                Some(known) => object.found = known.found.take(),
                None => {
                    if let Some(queue) = self.queues.get_mut(check.provider()) {
                        queue.due.insert((now, Arc::clone(check)));
                    }
                }
            }
        }
        self.troubled.retain(|check| wanted.get(check).is_some_and(|object| object.found.is_some()));
        self.objects = wanted;
        self.reasons = None;
    }

    /// What is known of a node is news of its past, for it has been repaired: it is asked for at once.
    pub(crate) fn ask_again(&mut self, node: &Node, now: Mono) {
        for check in ports(node).chain(free(node)) {
            let Some(queue) = self.queues.get_mut(check.provider()) else { continue };
            if let Some(due) = queue.due.iter().find(|(_, other)| **other == check).cloned() {
                queue.due.remove(&due);
                queue.due.insert((now, due.1));
            }
        }
    }

    /// The questions to ask now.
    pub(crate) fn due(&mut self, now: Mono) -> Vec<Check> {
        let mut due = vec![];
        for queue in self.queues.values_mut() {
            let free = CHECKS_IN_FLIGHT_MAX.saturating_sub(queue.in_flight.len());
            let next = queue.due.iter().take_while(|(at, _)| *at <= now).take(free);
            let next: Vec<(Mono, Arc<Check>)> = next.cloned().collect();
            for asked in next {
                queue.due.remove(&asked);
                due.push(Check::clone(&asked.1));
                queue.in_flight.insert(asked.1);
            }
        }
        due
    }

    /// An answer. One that nobody waits for is dropped: it is about something that is described otherwise by now.
    pub(crate) fn answered(&mut self, check: &Check, finding: Finding, now: Mono) {
        let Some(queue) = self.queues.get_mut(check.provider()) else { return };
        let (Some(check), Some(object)) = (queue.in_flight.take(check), self.objects.get_mut(check)) else {
            return;
        };
        let kind = std::mem::discriminant(&finding);
        let last = object.found.take().filter(|last| std::mem::discriminant(&last.finding) == kind);
        let pause = match &finding {
            Finding::Fine | Finding::CannotTell(_) => check.pause(),
            Finding::Absent(_) | Finding::Faulty(_) | Finding::Unclaimed => CHECK_AGAIN,
        };
        match finding {
            Finding::Fine => drop(self.troubled.remove(&check)),
            Finding::Absent(_) | Finding::Faulty(_) | Finding::Unclaimed | Finding::CannotTell(_) => {
                self.troubled.insert(Arc::clone(&check));
            }
        }
        let since = last.map_or(now, |last| last.since);
        object.found = Some(Found { finding: finding.clipped(), at: now, since });
        queue.due.insert((now + pause, check));
    }

    /// All that is known.
    pub(crate) fn all(&self, now: Mono) -> Vec<Checked> {
        self.objects.iter().filter_map(|(check, object)| object.told(check, now)).collect()
    }

    /// What was found of an object, if it is not fine.
    pub(crate) fn trouble(&self, check: &Check, now: Mono) -> Option<Checked> {
        let check = self.troubled.get(check)?;
        self.objects.get(check)?.told(check, now)
    }

    /// The spares that their clouds keep for nobody, and how old that news is.
    pub(crate) fn unclaimed(&self, now: Mono) -> impl Iterator<Item = (&NodeId, Millis)> {
        let found = self.troubled.iter().filter_map(|check| self.objects.get(check));
        let nodes = found.filter_map(move |object| {
            let found = object.found.as_ref().filter(|found| found.finding == Finding::Unclaimed)?;
            let owners = object.owners.iter().map(move |owner| (owner, now.since(found.at)));
            Some(owners.filter_map(|(owner, age)| match owner {
                Subject::Node(node) => Some((node, age)),
                Subject::Instance(_) | Subject::Plan(_) => None,
            }))
        });
        nodes.flatten()
    }

    /// Spares that cannot be taken and instances that would not come back, each with the reason.
    pub(crate) fn reasons(&mut self, state: &ClusterState, now: Mono) -> &[(Subject, Waiting)] {
        let old = self.reasons.take().filter(|(at, _)| now.since(*at) < REASONS_EVERY);
        &self.reasons.insert(old.unwrap_or_else(|| (now, self.reasons_now(state, now)))).1
    }

    fn reasons_now(&self, state: &ClusterState, now: Mono) -> Vec<(Subject, Waiting)> {
        let owners = self.troubled.iter().filter_map(|check| self.objects.get(check));
        let subjects: BTreeSet<Subject> =
            owners.flat_map(|object| &object.owners).map(|owner| concerned(owner, state)).collect();
        let trouble = |check: &Check| self.trouble(check, now);
        let reason = |subject: Subject| {
            let why = match &subject {
                Subject::Node(name) => lacks_of_spare(&state.nodes.get(name)?.node, &trouble),
                Subject::Instance(name) => {
                    let record = state.instances.get(name)?;
                    lacks(&record.instance, &state.nodes.get(&record.node)?.node, &trouble)
                }
                Subject::Plan(_) => None,
            };
            why.map(|why| (subject, why))
        };
        subjects.into_iter().filter_map(reason).take(REASONS_MAX).collect()
    }
}

impl Object {
    fn told(&self, check: &Arc<Check>, now: Mono) -> Option<Checked> {
        let Found { finding, at, since } = self.found.as_ref()?;
        let (age, lasting) = (now.since(*at), at.since(*since));
        Some(Checked { check: Arc::clone(check), finding: finding.clone(), age, lasting })
    }
}

/// Whom it concerns that an object is not fine: a node's ports its instance, if it has one.
fn concerned(owner: &Subject, state: &ClusterState) -> Subject {
    match owner {
        Subject::Node(node) => match state.instance_on(node) {
            Some(record) => Subject::Instance(record.instance.name.clone()),
            None => owner.clone(),
        },
        Subject::Instance(_) | Subject::Plan(_) => owner.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, Documents, Proposal};
    use crate::coverage::tests::{PROVIDER, instance, node};

    fn describe(state: &mut ClusterState, text: &str) {
        let documents: Documents = toml::from_str(text).unwrap();
        let command = Command::Describe(Box::new(documents));
        let proposal = Proposal { at: Wall(0), by: "test".to_owned(), command };
        state.apply(LogIndex(state.applied.0 + 1), &proposal).unwrap();
    }

    fn cluster(text: &str) -> ClusterState {
        let mut state = ClusterState::default();
        describe(&mut state, &[PROVIDER, text].concat());
        state
    }

    fn told(checks: &[Check]) -> Vec<String> {
        checks.iter().map(ToString::to_string).collect()
    }

    /// All answers at once, as long as questions come.
    fn answer(checks: &mut Checks, now: Mono, finding: impl Fn(&Check) -> Finding) -> usize {
        let mut asked = 0;
        loop {
            let due = checks.due(now);
            if due.is_empty() {
                return asked;
            }
            assert!(due.len() <= CHECKS_IN_FLIGHT_MAX);
            asked += due.len();
            due.iter().for_each(|check| checks.answered(check, finding(check), now));
        }
    }

    #[test]
    fn what_is_new_is_asked_at_once_and_then_about_once_a_minute_each_at_its_own_time() {
        let nodes: String = (10..40).map(|i| node(&format!("n{i}"), "r1")).collect();
        let (mut checks, mut state) = (Checks::default(), cluster(&nodes));
        checks.describe(&state, Mono(0));
        assert_eq!(answer(&mut checks, Mono(0), |_| Finding::Fine), 30);
        let mut at_once = vec![];
        for second in 1..=600 {
            at_once.push(answer(&mut checks, Mono(second * 1000), |_| Finding::Fine));
        }
        let all: usize = at_once.iter().sum();
        assert!((240..400).contains(&all), "{all} questions in ten minutes for 30 objects");
        assert!(at_once.iter().all(|asked| *asked < 8), "they are spread: {at_once:?}");
        describe(&mut state, &node("s1", "r1"));
        checks.describe(&state, Mono(600_000));
        assert_eq!(told(&checks.due(Mono(600_000))), ["port s1 at sw"], "the others have been asked");
    }

    #[test]
    fn a_provider_that_hangs_is_asked_four_things_at_a_time() {
        let other = PROVIDER.replace("sw", "array");
        let volumes = "volumes = [{ provider = \"array\", volume = \"v1\" }]";
        let nodes: String = (0..9).map(|i| node(&format!("n{i}"), "r1")).collect();
        let state = cluster(&[other, nodes, instance("web", "n1", volumes)].concat());
        let mut checks = Checks::default();
        checks.describe(&state, Mono(0));
        assert_eq!(checks.due(Mono(0)).len(), CHECKS_IN_FLIGHT_MAX + 1, "each provider by itself");
        assert_eq!(told(&checks.due(Mono(60_000))), Vec::<String>::new());
        let volume = Check::Volume(state.instances.values().next().unwrap().instance.volumes[0].clone());
        checks.answered(&volume, Finding::Fine, Mono(60_000));
        assert_eq!(told(&checks.due(Mono(160_000))), ["volume v1 at array"]);
    }

    #[test]
    fn for_snapshots_is_asked_where_the_policy_wants_them_and_nothing_lacks_them() {
        let volumes = "volumes = [{ provider = \"sw\", volume = \"v1\" }]";
        let mut state = cluster(&[node("n1", "r1"), instance("web", "n1", volumes)].concat());
        let mut checks = Checks::default();
        checks.describe(&state, Mono(0));
        assert_eq!(answer(&mut checks, Mono(0), |_| Finding::Fine), 2, "the port and the volume");
        let policies = state.policies.values_mut();
        policies.for_each(|record| record.policy.takeover.snapshot_max = Millis(1000));
        checks.describe(&state, Mono(1));
        let policies = state.policies.values_mut();
        policies.for_each(|record| record.policy.backups.kept = 1);
        checks.describe(&state, Mono(1));
        let due = checks.due(Mono(1));
        assert_eq!(told(&due), ["snapshots of volume v1 at sw", "backups of volume v1 at sw"]);
        for due in &due {
            checks.answered(due, Finding::Absent("it cannot".to_owned()), Mono(1));
            assert!(checks.trouble(due, Mono(1)).is_some(), "it is told");
        }
        assert!(checks.reasons_now(&state, Mono(1)).is_empty(), "and keeps nothing from coming back");
    }

    #[test]
    fn only_what_was_asked_and_is_still_described_so_is_learned() {
        let mut state = cluster(&node("s1", "r1"));
        let mut checks = Checks::default();
        checks.describe(&state, Mono(0));
        let port = Check::Port(state.nodes.values().next().unwrap().node.ports[0].clone());
        let absent = || Finding::Absent("x".repeat(1000));
        checks.answered(&port, absent(), Mono(0));
        assert!(checks.trouble(&port, Mono(0)).is_none(), "nobody had asked");
        answer(&mut checks, Mono(0), |_| absent());
        let trouble = checks.trouble(&port, Mono(5)).unwrap();
        assert!(trouble.finding.to_string().len() < WORDS_MAX + 10);
        assert_eq!(checks.reasons_now(&state, Mono(5)).len(), 1);
        // The provider is described otherwise: what it said counts no longer, and it is asked again.
        let anew = PROVIDER.replace("http://h", "http://other");
        describe(&mut state, &anew);
        checks.describe(&state, Mono(10));
        assert!(checks.trouble(&port, Mono(10)).is_none() && checks.reasons_now(&state, Mono(10)).is_empty());
        assert_eq!(told(&checks.due(Mono(10))), ["port s1 at sw"]);
        describe(&mut state, &node("s1", "r1").replace("port = \"s1\"", "port = \"s1-2\""));
        checks.describe(&state, Mono(20));
        checks.answered(&port, absent(), Mono(20));
        assert!(checks.trouble(&port, Mono(20)).is_none(), "that port is nobody's any more");
    }

    #[test]
    fn how_long_nobody_could_tell_counts_from_the_first_time() {
        let state = cluster(&(node("n1", "r1") + &instance("web", "n1", "")));
        let mut checks = Checks::default();
        checks.describe(&state, Mono(0));
        let unknown = |_: &Check| Finding::CannotTell("no answer".to_owned());
        let mut now = 0;
        while now <= CANNOT_TELL_MAX.0 {
            answer(&mut checks, Mono(now), unknown);
            let reasons = checks.reasons_now(&state, Mono(now));
            assert!(reasons.is_empty(), "not yet: {now} {reasons:?}");
            now += 10_000;
        }
        answer(&mut checks, Mono(now + CHECK_EVERY.0 * 2), unknown);
        let reasons = checks.reasons_now(&state, Mono(now + CHECK_EVERY.0 * 2));
        let why = "not ready for a failover; port n1 at sw: for more than 5m nobody can tell: no answer";
        assert_eq!(reasons.iter().map(|(_, why)| why.to_string()).collect::<Vec<_>>(), [why]);
        checks.ask_again(&state.nodes.values().next().unwrap().node, Mono(now + CHECK_EVERY.0 * 2 + 1));
        assert_eq!(told(&checks.due(Mono(now + CHECK_EVERY.0 * 2 + 1))), ["port n1 at sw"]);
        let port = Check::Port(state.nodes.values().next().unwrap().node.ports[0].clone());
        checks.answered(&port, Finding::CannotTell("no answer".to_owned()), Mono(now + CHECK_EVERY.0 * 3));
        answer(&mut checks, Mono(now + CHECK_EVERY.0 * 5), |_| Finding::Fine);
        assert!(checks.reasons_now(&state, Mono(now + CHECK_EVERY.0 * 5)).is_empty());
    }
}
