//! Who would take over, and which losses are covered, before anything is lost.
//!
//! Why it exists: a spare that does not fit is found out when it is needed, unless somebody asks before. The questions are
//! those that a failover would ask, in the same words. What it never does: reserve or promise; the next moment may differ.

use crate::concession::{Concession, Rung};
use crate::inventory::Instance;
use crate::memory::{LastPower, Presence};
use crate::placement::{
    Candidate, Preference, Wish, candidates, choose, elsewhere, misfit, preference, takes_part,
};
use crate::plan::Verdict;
use crate::policy::{After, Mode, Spares};
use crate::readiness::{Check, Checked, lacks};
use crate::sights::doubt;
use crate::state::{ClusterState, InstanceRecord, NodeRecord, NodeState};
use crate::view::{NodeView, View};
use crate::waiting::Waiting;
use crate::words::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

/// What would happen to every instance if its node were lost now, and to all of them if a failure domain were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Each instance.
    pub instances: BTreeMap<InstanceId, Cover>,
    /// Each failure domain in which an instance runs, as `rack/r1`.
    pub losses: BTreeMap<String, Loss>,
    /// What failovers would need of providers and is not fine, or of which nobody can tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<Checked>,
}

/// What would happen to one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cover {
    /// This spare would take over.
    Spare(NodeId),
    /// This spare would take over, for none has all that the policy wishes.
    Lesser {
        /// Which.
        spare: NodeId,
        /// What the policy gives up.
        gives_up: Vec<Concession>,
    },
    /// It is being moved by this failover.
    Moving(PlanId),
    /// It would not come back by itself.
    Uncovered(Waiting),
}

/// What would happen if everything in a failure domain were lost at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// The spare of each instance that runs there; `None`: none is left for it, or it is uncovered by itself.
    pub spares: BTreeMap<InstanceId, Option<NodeId>>,
    /// What the policy gives up, of each instance that gets a lesser spare.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gives_up: BTreeMap<InstanceId, Vec<Concession>>,
    /// Why nothing would be done at all.
    pub held: Option<Held>,
}

/// Why a loss would be left to people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// The brake of this policy holds.
    Brake {
        /// Which policy.
        policy: PolicyId,
        /// Its key.
        key: String,
        /// Nodes that would have failed.
        failed: u32,
        /// The limit.
        max: u32,
    },
    /// So many nodes would be silent that the members doubt themselves.
    Doubt {
        /// Nodes that would be silent.
        silent: u32,
        /// Nodes that are watched.
        watched: u32,
    },
}

impl std::fmt::Display for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Held::Brake { policy, key, failed, max } => {
                write!(f, "{failed} nodes would have failed, and {key} of policy {policy} is {max}")
            }
            Held::Doubt { silent, watched } => {
                write!(
                    f,
                    "{silent} of {watched} nodes would be silent, and the members would doubt themselves"
                )
            }
        }
    }
}

impl Loss {
    /// True if every instance would come back by itself.
    pub fn is_covered(&self) -> bool {
        self.held.is_none() && self.spares.values().all(Option::is_some)
    }
}

impl Coverage {
    /// Of this state, by the newest readings of the member that acts.
    pub fn of(state: &ClusterState, view: &View) -> Coverage {
        let troubles = Troubles::of(view);
        let candidates = troubles.candidates(state, view);
        let policies = state.policies.iter();
        let ladders = policies.map(|(name, record)| (name.clone(), record.policy.spares.ladder())).collect();
        let (ladders, troubles, candidates) = (&ladders, &troubles, candidates.as_slice());
        Survey { state, now: view.at, ladders, candidates, troubles, classes: vec![] }.take()
    }

    /// Instances that would not come back by themselves.
    pub fn uncovered(&self) -> impl Iterator<Item = (&InstanceId, &Waiting)> {
        self.instances.iter().filter_map(|(name, cover)| match cover {
            Cover::Uncovered(why) => Some((name, why)),
            Cover::Spare(_) | Cover::Lesser { .. } | Cover::Moving(_) => None,
        })
    }
}

/// What a view knows of providers that is not fine, by what was asked.
pub(crate) struct Troubles(BTreeMap<Arc<Check>, Checked>);

impl Troubles {
    pub(crate) fn of(view: &View) -> Self {
        Troubles(view.troubles().map(|it| (Arc::clone(&it.check), it.clone())).collect())
    }

    /// All spares, by what the member that acts knows of them.
    pub(crate) fn candidates<'a>(&self, state: &'a ClusterState, view: &View) -> Vec<Candidate<'a>> {
        let presence = |node: &NodeId| {
            let node = view.nodes.get(node);
            let power = node.and_then(|node| node.power);
            let power = power.map_or(LastPower::NeverAsked, |(power, _)| LastPower::of(power));
            Presence { power, waits_hot: node.is_some_and(NodeView::waits_hot) }
        };
        candidates(state, presence, &|check| self.about(check), view.at)
    }

    fn about(&self, check: &Check) -> Option<Checked> {
        self.0.get(check).cloned()
    }
}

/// Instances that need the same, and the spares that fit them wherever they run, by name.
struct Class<'a> {
    instance: &'a Instance,
    spares: &'a Spares,
    fitting: Rc<[&'a Candidate<'a>]>,
}

struct Survey<'a> {
    state: &'a ClusterState,
    now: Wall,
    /// The wishes of each policy.
    ladders: &'a BTreeMap<PolicyId, Vec<Rung>>,
    candidates: &'a [Candidate<'a>],
    troubles: &'a Troubles,
    classes: Vec<Class<'a>>,
}

/// Kind and name of a failure domain.
type Domain<'a> = (&'a str, &'a str);

/// How many nodes are watched and how many of them have failed: in the cluster, and in each domain.
#[derive(Default)]
struct Census<'a> {
    watched: u32,
    failed: u32,
    watched_in: BTreeMap<Domain<'a>, u32>,
    failed_in: BTreeMap<Domain<'a>, u32>,
}

impl<'a> Survey<'a> {
    fn take(mut self) -> Coverage {
        let troubles = self.troubles.0.values().cloned().collect();
        let mut coverage = Coverage { troubles, ..Coverage::default() };
        let mut domains: BTreeMap<Domain, Vec<(&'a InstanceRecord, &'a NodeRecord)>> = BTreeMap::new();
        for record in self.state.instances.values() {
            let name = &record.instance.name;
            let Some(from) = self.state.nodes.get(&record.node) else { continue };
            if let Some(plan) = self.state.plan_of_instance(name) {
                coverage.instances.insert(name.clone(), Cover::Moving(plan.id));
                continue;
            }
            for (kind, domain) in &from.node.domains {
                domains.entry((kind, domain)).or_default().push((record, from));
            }
            let obstacle = obstacle(self.state, record, from)
                .or_else(|| lacks(&record.instance, &from.node, &|check| self.troubles.about(check)));
            let cover = obstacle.map_or_else(|| self.cover(record, from), Cover::Uncovered);
            coverage.instances.insert(name.clone(), cover);
        }
        let census = Census::of(self.state);
        for (domain, instances) in domains {
            let held = held(self.state, domain, &instances, &census);
            let loss = Loss { held, ..self.place_all(domain, &instances, &coverage) };
            coverage.losses.insert(format!("{}/{}", domain.0, domain.1), loss);
        }
        coverage
    }

    fn cover(&mut self, record: &'a InstanceRecord, from: &'a NodeRecord) -> Cover {
        let instance = &record.instance;
        let Some(policy) = self.state.policies.get(&record.policy).map(|record| &record.policy) else {
            return Cover::Uncovered(Waiting::NoFittingSpare { missing: vec![] });
        };
        let wish =
            Wish { instance, spares: &policy.spares, from, kexecs: self.state.kexecs(instance, policy) };
        let hour = policy.acting.hour(self.now);
        match (self.best(record, from, |_| true), policy.acting.mode_in(&hour)) {
            (Some((spare, [])), Mode::Automatic | Mode::Approval) => Cover::Spare(spare),
            (Some((spare, gives_up)), Mode::Automatic | Mode::Approval) => {
                Cover::Lesser { spare, gives_up: gives_up.to_vec() }
            }
            (Some((spare, _)), Mode::Shadow) => {
                let shadow = Waiting::Shadow { node: from.node.name.clone(), spare };
                Cover::Uncovered(hour.excuse(shadow))
            }
            (None, _) => {
                let missing = choose(self.state, self.candidates, &wish).err().unwrap_or_default();
                Cover::Uncovered(Waiting::NoFittingSpare { missing })
            }
        }
    }

    /// Places the instances of a lost domain one after the other, as a leader would in the order of their names.
    fn place_all(
        &mut self,
        (kind, domain): Domain,
        instances: &[(&'a InstanceRecord, &'a NodeRecord)],
        coverage: &Coverage,
    ) -> Loss {
        let mut used: BTreeSet<NodeId> = BTreeSet::new();
        let mut loss = Loss::default();
        for (record, from) in instances {
            let name = &record.instance.name;
            let has_one = match coverage.instances.get(name) {
                Some(Cover::Spare(_) | Cover::Lesser { .. }) => true,
                Some(Cover::Moving(_) | Cover::Uncovered(_)) | None => false,
            };
            let is_left = |spare: &NodeRecord| {
                spare.node.domains.get(kind).is_none_or(|of_spare| of_spare != domain)
                    && !used.contains(&spare.node.name)
            };
            let spare = has_one.then(|| self.best(record, from, is_left)).flatten();
            if let Some((_, gives_up @ [_, ..])) = spare {
                loss.gives_up.insert(name.clone(), gives_up.to_vec());
            }
            let spare = spare.map(|(spare, _)| spare);
            used.extend(spare.clone());
            loss.spares.insert(name.clone(), spare);
        }
        loss
    }

    /// The spare that the planner would choose among those that are left, and what it would give up for it.
    fn best(
        &mut self,
        record: &'a InstanceRecord,
        from: &'a NodeRecord,
        is_left: impl Fn(&NodeRecord) -> bool,
    ) -> Option<(NodeId, &'a [Concession])> {
        let kexecs = self.state.kexecs(&record.instance, &self.state.policies.get(&record.policy)?.policy);
        self.ladders.get(&record.policy)?.iter().find_map(|Rung { gives_up, spares }| {
            let wish = Wish { instance: &record.instance, spares, from, kexecs };
            Some((self.best_by(&wish, &is_left)?, gives_up.as_slice()))
        })
    }

    fn best_by(&mut self, wish: &Wish<'a>, is_left: &impl Fn(&NodeRecord) -> bool) -> Option<NodeId> {
        let mut found: Option<Preference> = None;
        for spare in self.fitting(wish.instance, wish.spares).iter() {
            if !is_left(spare.record) || elsewhere(wish, spare).is_some() {
                continue;
            }
            let preference = preference(wish, spare);
            found = Some(found.map_or(preference, |best| best.min(preference)));
            // The hot ones come first, then by name: no later one is better.
            if preference.is_best() {
                break;
            }
        }
        found.map(|best| best.node.clone())
    }

    fn fitting(&mut self, instance: &'a Instance, spares: &'a Spares) -> Rc<[&'a Candidate<'a>]> {
        let same = |class: &&Class| class.instance.needs_the_same_as(instance) && class.spares == spares;
        if let Some(class) = self.classes.iter().find(same) {
            return Rc::clone(&class.fitting);
        }
        let fits = |spare: &&Candidate| {
            misfit(instance, spares, spare).is_none() && takes_part(spare, None).is_none()
        };
        let fitting: Rc<[&Candidate]> = self.candidates.iter().filter(fits).collect();
        self.classes.push(Class { instance, spares, fitting: Rc::clone(&fitting) });
        fitting
    }
}

/// What would keep an instance from moving whatever spares there are.
fn obstacle(state: &ClusterState, record: &InstanceRecord, from: &NodeRecord) -> Option<Waiting> {
    let (instance, node) = (&record.instance, from.node.name.clone());
    if let Some(order) = &from.maintenance {
        return Some(Waiting::Maintenance { node, reason: order.reason.clone() });
    }
    let fencing = &state.policies.get(&record.policy)?.policy.fencing;
    let isolable = !instance.volumes.is_empty() || !from.node.ports.is_empty();
    if from.verdict == Verdict::Unknown {
        Some(Waiting::NeverHeard)
    } else if from.node.fencing.is_empty() && fencing.isolation_alone == After::Never {
        Some(Waiting::PowerProofMissing { node, last: None, isolation_alone: After::Never })
    } else if !isolable && !fencing.power_alone {
        Some(Waiting::NothingToIsolate { node })
    } else {
        None
    }
}

/// Whether anything would be done at all. What was fenced within ten minutes counts too when it happens; it is left out
/// here, for only a leader's clock knows of it.
fn held(
    state: &ClusterState,
    domain: Domain,
    instances: &[(&InstanceRecord, &NodeRecord)],
    census: &Census,
) -> Option<Held> {
    let count = |of: &BTreeMap<Domain, u32>| of.get(&domain).copied().unwrap_or(0);
    let (silent, already) = (count(&census.watched_in), count(&census.failed_in));
    if doubt(&mut None, silent, census.watched, Mono(0)).is_some() {
        return Some(Held::Doubt { silent, watched: census.watched });
    }
    let inside = silent + already;
    let all = inside + census.failed - already;
    instances.iter().find_map(|(record, _)| {
        let (policy, record) = state.policies.get_key_value(&record.policy)?;
        let brakes = &record.policy.brakes;
        let held = |key: &str, failed, max| {
            let key = format!("brakes.{key}");
            (failed > max).then(|| Held::Brake { policy: policy.clone(), key, failed, max })
        };
        held("hold_above_failed_per_domain", inside, brakes.hold_above_failed_per_domain)
            .or_else(|| held("hold_above_failed", all, brakes.hold_above_failed))
    })
}

impl<'a> Census<'a> {
    fn of(state: &'a ClusterState) -> Self {
        let mut census = Census::default();
        for record in state.nodes.values().filter(|record| record.maintenance.is_none()) {
            let is_failed = matches!(record.verdict, Verdict::Failed(_));
            let (watched, failed) = match record.state {
                NodeState::Active { .. } => (!is_failed, is_failed),
                NodeState::Spare => (!is_failed && record.verdict != Verdict::Unknown, is_failed),
                NodeState::Fencing { .. } => (false, true),
                NodeState::Reserved { .. } | NodeState::Quarantined { .. } | NodeState::Cleaning { .. } => {
                    (false, is_failed)
                }
            };
            census.watched += u32::from(watched);
            census.failed += u32::from(failed);
            for (kind, name) in &record.node.domains {
                *census.watched_in.entry((kind, name)).or_default() += u32::from(watched);
                *census.failed_in.entry((kind, name)).or_default() += u32::from(failed);
            }
        }
        census
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::command::{Command, Documents, Proposal, Step};
    use crate::concession::given_up;
    use crate::inventory::SwitchPort;
    use crate::placement::Choice;
    use crate::plan::{Cause, Evidence};
    use crate::readiness::{CANNOT_TELL_MAX, Finding};
    use proptest::prelude::*;

    /// A cluster whose nodes are all healthy: `n*` carry an instance each, `s*` are spares.
    fn cluster(documents: &str) -> ClusterState {
        let mut state = ClusterState::default();
        let documents: Documents = toml::from_str(documents).unwrap();
        let active: Vec<NodeId> = documents.instances.iter().map(|instance| instance.node.clone()).collect();
        apply(&mut state, Command::Describe(Box::new(documents)));
        apply(&mut state, Command::TookOver { member: MemberId(1), boot: BootId(1) });
        for node in active {
            judge(&mut state, &node, Verdict::Healthy);
        }
        state
    }

    fn apply(state: &mut ClusterState, command: Command) {
        let proposal = Proposal { at: Wall(0), by: "test".to_owned(), command };
        state.apply(LogIndex(state.applied.0 + 1), &proposal).unwrap();
    }

    fn judge(state: &mut ClusterState, node: &NodeId, verdict: Verdict) {
        let leader = state.leadership.unwrap().epoch;
        let step = Step::Judge { node: node.clone(), verdict, evidence: Evidence::default() };
        apply(state, Command::Lead { leader, step });
    }

    pub(crate) fn node(name: &str, rack: &str) -> String {
        format!(
            "[[node]]\nname = \"{name}\"\ndomains = {{ rack = \"{rack}\" }}\nprobe = {{ tcp = \"10.0.0.1:22\" }}\n\
             ports = [{{ provider = \"sw\", port = \"{name}\" }}]\n\
             [[node.fencing]]\ndriver = \"ipmi\"\naddress = \"{name}:623\"\nuser = \"u\"\npassword = \"sealed\"\n"
        )
    }

    pub(crate) fn instance(name: &str, node: &str, more: &str) -> String {
        format!("[[instance]]\nname = \"{name}\"\nnode = \"{node}\"\npolicy = \"quick\"\n{more}\n")
    }

    pub(crate) const PROVIDER: &str =
        "[[provider]]\nname = \"sw\"\nkind = \"rack\"\nurl = \"http://h\"\ntoken = \"sealed\"\n";

    fn told(coverage: &Coverage) -> Vec<String> {
        let cover = |cover: &Cover| match cover {
            Cover::Spare(node) => node.to_string(),
            Cover::Lesser { spare, gives_up } => format!("{spare} without {}", given_up(gives_up)),
            Cover::Moving(plan) => format!("moving by {plan}"),
            Cover::Uncovered(why) => format!("uncovered: {why}"),
        };
        let one = coverage.instances.iter().map(|(name, covered)| format!("{name}: {}", cover(covered)));
        let loss = |(domain, loss): (&String, &Loss)| {
            let spare = |(name, spare): (&InstanceId, &Option<NodeId>)| {
                let without = loss.gives_up.get(name).map(|words| format!(" without {}", given_up(words)));
                let spare = spare.as_ref().map_or("none", NodeId::as_str);
                format!(" {name}->{spare}{}", without.unwrap_or_default())
            };
            let spares: String = loss.spares.iter().map(spare).collect();
            let held = loss.held.as_ref().map_or(String::new(), |held| format!(" held: {held}"));
            format!("{domain}:{spares}{held}")
        };
        one.chain(coverage.losses.iter().map(loss)).collect()
    }

    #[test]
    fn one_spare_covers_each_node_but_not_the_rack() {
        let text = [PROVIDER.to_owned(), node("n1", "r1"), node("n2", "r1"), node("s1", "r2")].concat()
            + &instance("db", "n1", "")
            + &instance("web", "n2", "");
        let coverage = Coverage::of(&cluster(&text), &View::default());
        assert_eq!(told(&coverage), ["db: s1", "web: s1", "rack/r1: db->s1 web->none"]);
        assert!(!coverage.losses["rack/r1"].is_covered());
    }

    #[test]
    fn what_is_uncovered_says_what_a_failover_would_say() {
        let text = [PROVIDER.to_owned(), node("n1", "r1"), node("n2", "r1"), node("s1", "r1")].concat()
            + &instance("db", "n1", "needs = { gpu = \"yes\" }")
            + &instance("web", "n2", "");
        let mut state = cluster(&text);
        let maintain = |node: &str| Command::Maintain {
            node: node.parse().unwrap(),
            reason: Some("DIMMs".into()),
            until: None,
        };
        apply(&mut state, maintain("n2"));
        let view = View::default();
        let told = |state: &ClusterState| told(&Coverage::of(state, &view));
        assert_eq!(
            told(&state),
            [
                "db: uncovered: no spare fits; s1: label gpu=yes is missing",
                "web: uncovered: n2 is in maintenance (DIMMs): hands off",
                "rack/r1: db->none web->none"
            ]
        );
    }

    #[test]
    fn a_loss_that_the_brakes_hold_is_not_covered_however_many_spares_there_are() {
        let mut text = PROVIDER.to_owned();
        for i in 1..=9 {
            // Five of nine in one rack: quick holds above three. In the other rack, most of a small cluster.
            text += &node(&format!("n{i}"), if i <= 5 { "r1" } else { "r2" });
            text += &node(&format!("s{i}"), "r3");
            text += &instance(&format!("i{i}"), &format!("n{i}"), "");
        }
        let mut state = cluster(&text);
        let view = View::default();
        let held = |state: &ClusterState, rack: &str| Coverage::of(state, &view).losses[rack].held.clone();
        assert_eq!(held(&state, "rack/r1"), Some(Held::Doubt { silent: 5, watched: 9 }));
        let key = |key: &str, failed, max| {
            let policy = "quick".parse().unwrap();
            Some(Held::Brake { policy, key: format!("brakes.{key}"), failed, max })
        };
        assert_eq!(held(&state, "rack/r2"), key("hold_above_failed_per_domain", 4, 3));
        let maintain =
            Command::Maintain { node: "n6".parse().unwrap(), reason: Some("x".into()), until: None };
        apply(&mut state, maintain);
        assert_eq!(held(&state, "rack/r2"), None);
        judge(&mut state, &"n1".parse().unwrap(), Verdict::Failed(Cause::Silent));
        assert_eq!(held(&state, "rack/r2"), key("hold_above_failed", 4, 3));
    }

    /// What was found of a node's port: each finding, young and old.
    fn checked(node: &str, finding: u8) -> Option<Checked> {
        let (provider, port) = ("sw".parse().unwrap(), node.to_owned());
        let check = Arc::new(Check::Port(SwitchPort { provider, port }));
        let words = || "it says so".to_owned();
        let (finding, lasting) = match finding {
            0 => (Finding::Absent(words()), Millis(0)),
            1 => (Finding::Faulty(words()), Millis(0)),
            2 => (Finding::CannotTell(words()), CANNOT_TELL_MAX),
            3 => (Finding::CannotTell(words()), Millis(CANNOT_TELL_MAX.0 + 1)),
            4 => (Finding::Fine, CANNOT_TELL_MAX),
            _ => return None,
        };
        Some(Checked { check, finding, age: Millis(0), lasting })
    }

    proptest! {
        /// What is said beforehand is what the planner would choose.
        #[test]
        fn the_cover_is_the_planners_choice(
            nodes in proptest::collection::vec((0..4u8, 0..3u8, any::<bool>(), 0..2u8, 0..8u8), 1..24),
            (differs, pool, strikes_max) in (any::<bool>(), any::<bool>(), any::<bool>()),
            struck in proptest::collection::vec(any::<bool>(), 24),
            give_up in Just(vec![Concession::Strikes, Concession::Labels, Concession::DiffersIn]).prop_shuffle(),
            gives_up in 0..4usize,
        ) {
            let mut text = PROVIDER.to_owned();
            let mut view = View::default();
            for (i, (rack, label, spare, needs, port)) in nodes.iter().enumerate() {
                let name = format!("{}{i}", if *spare { "s" } else { "n" });
                let labels = format!("labels = {{ kind = \"k{label}\" }}\nports =");
                text += &node(&name, &format!("r{rack}")).replace("ports =", &labels);
                view.checks.extend(checked(&name, *port));
                if !spare {
                    text += &instance(&format!("i{i}"), &name, &format!("needs = {{ kind = \"k{needs}\" }}"));
                }
            }
            let mut state = cluster(&text);
            if let Some(quick) = state.policies.get_mut(&"quick".parse().unwrap()) {
                let spares = &mut quick.policy.spares;
                spares.differs_in = if differs { vec!["rack".to_owned()] } else { vec![] };
                spares.labels = pool.then(|| ("kind".to_owned(), "k0".to_owned())).into_iter().collect();
                spares.strikes_max = strikes_max.then_some(0);
                spares.give_up = give_up.into_iter().take(gives_up).collect();
            }
            for (record, struck) in state.nodes.values_mut().zip(struck) {
                record.strikes = struck.then_some(Wall(0)).into_iter().collect();
            }
            let coverage = Coverage::of(&state, &view);
            let trouble = |check: &Check| view.troubles().find(|it| *it.check == *check).cloned();
            let all = || candidates(&state, |_| crate::placement::UNSEEN, &trouble, Wall(0));
            let chosen = |record: &InstanceRecord, candidates: &[Candidate]| {
                let (instance, from) = (&record.instance, &state.nodes[&record.node]);
                let spares = &state.policies[&record.policy].policy.spares;
                choose(&state, candidates, &Wish { instance, spares, from, kexecs: false })
            };
            for record in state.instances.values() {
                let (instance, from) = (&record.instance, &state.nodes[&record.node]);
                let expected = match (lacks(instance, &from.node, &trouble), chosen(record, &all())) {
                    (Some(why), _) => Cover::Uncovered(why),
                    (None, Ok(Choice { spare, gives_up, .. })) if gives_up.is_empty() => Cover::Spare(spare),
                    (None, Ok(Choice { spare, gives_up, .. })) => Cover::Lesser { spare, gives_up },
                    (None, Err(missing)) => Cover::Uncovered(Waiting::NoFittingSpare { missing }),
                };
                prop_assert_eq!(&coverage.instances[&instance.name], &expected);
                let loss = &coverage.losses[&format!("rack/{}", from.node.domains["rack"])];
                let taken: Vec<_> = loss.spares.values().flatten().collect();
                prop_assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), taken.len(), "one each");
            }
            // A whole rack at once: one after the other, each among the spares elsewhere that are left.
            for (domain, loss) in &coverage.losses {
                let rack = domain.trim_start_matches("rack/");
                let mut left = all();
                left.retain(|spare| spare.record.node.domains["rack"] != rack);
                for (name, spare) in &loss.spares {
                    let is_covered = !matches!(coverage.instances[name], Cover::Uncovered(_));
                    let choice = chosen(&state.instances[name], &left).ok().filter(|_| is_covered);
                    prop_assert_eq!(spare.as_ref(), choice.as_ref().map(|choice| &choice.spare));
                    let gives_up = choice.map(|choice| choice.gives_up).filter(|words| !words.is_empty());
                    prop_assert_eq!(loss.gives_up.get(name), gives_up.as_ref());
                    left.retain(|other| Some(&other.record.node.name) != spare.as_ref());
                }
            }
        }
    }
}
