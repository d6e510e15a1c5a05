//! What a policy would change at this moment, before it is set.
//!
//! Why it exists: a number in a policy decides who is fenced, and it should be seen before it counts whom. The answer is what
//! the same functions say with the one policy and with the other. What it never does: touch the engine that acts; it works
//! on a copy. It looks at one moment; what a policy would have done in the past, a replay tells.

use crate::command::{Command, Rejected, Step};
use crate::coverage::{Cover, Coverage, Held, Loss};
use crate::engine::Engine;
use crate::observation::Sight;
use crate::plan::Verdict;
use crate::planner::Subject;
use crate::policy::{Detection, Policy, PolicyChange};
use crate::state::{ClusterState, InstanceRecord, Order, PolicyRecord};
use crate::unable::Unable;
use crate::waiting::Waiting;
use crate::words::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Two things that are not the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed<T> {
    /// With the policy as it is.
    pub before: T,
    /// With the policy as it would be.
    pub after: T,
}

/// What would change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// The version that it would replace; 0: none, or an untouched preset.
    pub version: LogIndex,
    /// True if there is no policy of this name yet.
    pub new: bool,
    /// The keys.
    pub changes: Vec<PolicyChange>,
    /// Instances that it protects.
    pub instances: u64,
    /// Instances that another policy would protect.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub protected: BTreeMap<InstanceId, Changed<PolicyId>>,
    /// Nodes that would be judged otherwise now.
    pub verdicts: BTreeMap<NodeId, Changed<Verdict>>,
    /// Nodes that would be fenced now, or no longer: what would be done to each.
    pub fences: BTreeMap<NodeId, Changed<Fate>>,
    /// Instances that would have another spare, or none.
    pub covers: BTreeMap<InstanceId, Changed<Cover>>,
    /// Failure domains whose loss would be covered otherwise.
    pub losses: BTreeMap<String, Changed<LossTold>>,
    /// What it would newly want of volumes and storage cannot do, as far as that is known: what nothing wants yet was not
    /// asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unable: Vec<Unable>,
}

/// What is done to a node that should be acted on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Nothing is to be done.
    LeftAlone,
    /// It is fenced; its instance moves to this spare.
    Fenced {
        /// The spare; absent where nothing moves.
        spare: Option<NodeId>,
    },
    /// It should be, and is not.
    Withheld(Waiting),
}

/// Whether the loss of a failure domain is covered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossTold {
    /// Instances that would have a spare.
    pub covered: u64,
    /// Of so many.
    pub of: u64,
    /// Why nothing would be done at all.
    pub held: Option<Held>,
}

/// How things stand with one set of policies.
struct Outlook {
    verdicts: BTreeMap<NodeId, Verdict>,
    fates: BTreeMap<NodeId, Fate>,
    coverage: Coverage,
}

impl Preview {
    /// True if the policy is so already.
    pub fn is_nothing(&self) -> bool {
        !self.new && self.changes.is_empty()
    }
}

impl Engine {
    /// What would change now if the policy of this name were this one. Costs two copies of the engine and two passes over
    /// all nodes: for people, beside the loop.
    ///
    /// # Errors
    /// [`Rejected::Ambiguous`]: it would apply to an instance as specifically as another policy does.
    pub fn preview(&self, now: Now, name: &PolicyId, policy: &Policy) -> Result<Preview, Rejected> {
        let before = self.clone().outlook(now);
        let mut tried = self.clone();
        let old = self.state().policies.get(name);
        let version = old.map_or(LogIndex(0), |record| record.version);
        let record = PolicyRecord { policy: policy.clone(), version, order: Order::default() };
        tried.state_mut().policies.insert(name.clone(), record);
        tried.state_mut().select_policies()?;
        let protected = changed(&protection(self.state()), &protection(tried.state()), &PolicyId::default());
        let checks = self.view(now).checks;
        let known = Unable::all(self.state(), &checks);
        let unable =
            Unable::all(tried.state(), &checks).into_iter().filter(|it| !known.contains(it)).collect();
        tried.see_as_it_would(self.state());
        let after = tried.outlook(now);
        let protects = |record: &&InstanceRecord| record.policy == *name;
        Ok(Preview {
            version,
            new: old.is_none(),
            changes: old.map(|old| policy.changes_since(&old.policy)).unwrap_or_default(),
            instances: self.state().instances.values().filter(protects).count() as u64,
            protected,
            verdicts: changed(&before.verdicts, &after.verdicts, &Verdict::Unknown),
            fences: changed(&before.fates, &after.fates, &Fate::LeftAlone),
            covers: changed(&before.coverage.instances, &after.coverage.instances, &no_cover()),
            losses: changed(&told(&before.coverage), &told(&after.coverage), &no_loss()),
            unable,
        })
    }

    /// Judges and plans as a leader would, and commits its verdicts in this copy.
    fn outlook(mut self, now: Now) -> Outlook {
        for command in self.judge_now(now.mono) {
            let Command::Lead { step: Step::Judge { node, verdict, evidence }, .. } = command else {
                continue;
            };
            let Some(record) = self.state_mut().nodes.get_mut(&node) else { continue };
            (record.verdict, record.evidence) = (verdict, evidence);
            (record.withheld, record.approved) = (None, None);
        }
        let wishes = self.plan_now(now);
        let mut fates = BTreeMap::new();
        for (subject, reasons) in &wishes.waiting {
            let Subject::Instance(instance) = subject else { continue };
            let (Some(record), Some(why)) = (self.state().instances.get(instance), reasons.last()) else {
                continue;
            };
            fates.insert(record.node.clone(), Fate::Withheld(why.clone()));
        }
        for command in wishes.commands {
            if let Command::Lead { step: Step::Begin(decision), .. } = command {
                fates.insert(decision.from, Fate::Fenced { spare: decision.spare });
            }
        }
        let coverage = Coverage::of(self.state(), &self.view(now));
        let verdicts = self.state().nodes.iter().map(|(node, record)| (node.clone(), record.verdict.clone()));
        Outlook { verdicts: verdicts.collect(), fates, coverage }
    }

    /// What the members would report with longer limits of silence than those of `before`, node by node. Silence that is
    /// shorter than the limits in force no member has reported, so shorter limits find nothing new here.
    fn see_as_it_would(&mut self, before: &ClusterState) {
        fn rules<'a>(state: &'a ClusterState, node: &NodeId) -> Option<&'a Detection> {
            state.policy_of_node(node).map(|(_, record)| &record.policy.detection)
        }
        let state = self.state();
        let others = state.nodes.keys().filter_map(|node| {
            let now = rules(state, node)?;
            (rules(before, node) != Some(now)).then(|| (node.clone(), now.clone()))
        });
        let others: BTreeMap<NodeId, Detection> = others.collect();
        for report in self.reports_mut() {
            for (node, sight) in &mut report.sights {
                let Some(rules) = others.get(node) else { continue };
                match sight {
                    Sight::Silent { lasting, never: false, .. } if *lasting < rules.suspect_after => {
                        let epoch = Epoch(0);
                        *sight = Sight::Alive { epoch, write_stale: None, few_paths: None };
                    }
                    Sight::Alive { write_stale, few_paths, .. } => {
                        *write_stale = write_stale.filter(|age| *age >= rules.write_stale_after);
                        let wanted = u32::from(rules.paths_min.unwrap_or(1));
                        *few_paths = few_paths.filter(|few| few.heard < wanted);
                    }
                    Sight::Silent { .. } | Sight::Gasped(_) => {}
                }
            }
        }
    }
}

fn protection(state: &ClusterState) -> BTreeMap<InstanceId, PolicyId> {
    state.instances.iter().map(|(name, record)| (name.clone(), record.policy.clone())).collect()
}

fn no_cover() -> Cover {
    Cover::Uncovered(Waiting::NoFittingSpare { missing: vec![] })
}

fn no_loss() -> LossTold {
    LossTold { covered: 0, of: 0, held: None }
}

impl LossTold {
    /// The loss in short.
    pub fn of(loss: &Loss) -> Self {
        let covered = loss.spares.values().flatten().count() as u64;
        LossTold { covered, of: loss.spares.len() as u64, held: loss.held.clone() }
    }
}

fn told(coverage: &Coverage) -> BTreeMap<String, LossTold> {
    coverage.losses.iter().map(|(domain, loss)| (domain.clone(), LossTold::of(loss))).collect()
}

/// What is not the same in both; what one of them does not know is `absent` there.
fn changed<K: Ord + Clone, T: Clone + PartialEq>(
    before: &BTreeMap<K, T>,
    after: &BTreeMap<K, T>,
    absent: &T,
) -> BTreeMap<K, Changed<T>> {
    let keys: BTreeSet<&K> = before.keys().chain(after.keys()).collect();
    let pair = |key: &K| {
        let value = |of: &BTreeMap<K, T>| of.get(key).unwrap_or(absent).clone();
        Changed { before: value(before), after: value(after) }
    };
    let pairs = keys.into_iter().map(|key| (key.clone(), pair(key)));
    pairs.filter(|(_, pair)| pair.before != pair.after).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::command::{Documents, Proposal};
    use crate::coverage::tests::{PROVIDER, instance, node};
    use crate::engine::Input;
    use crate::observation::{Kernel, Report, Stamp};
    use crate::plan::{Cause, Decision};

    const ME: MemberId = MemberId(1);
    const NOW: Now = Now { mono: Mono(100_000), wall: Wall(100_000) };
    pub(crate) const LATER: Now = Now { mono: Mono(101_000), wall: Wall(101_000) };

    pub(crate) fn commit(engine: &mut Engine, command: Command) {
        let index = LogIndex(engine.state().applied.0 + 1);
        let proposal = Proposal { at: Wall(0), by: "test".to_owned(), command };
        engine.handle(NOW, Input::Applied { index, proposal });
    }

    fn sees(engine: &mut Engine, now: Now, member: u64, node: &str, sight: Sight) {
        let stamp = Stamp { boot: BootId(1), moment: now.mono.0 };
        let sights = BTreeMap::from([(node.parse().unwrap(), sight)]);
        let report = Report {
            member: MemberId(member),
            written: stamp,
            heard: BTreeMap::from([(ME, stamp)]),
            domain: "room".to_owned(),
            doubt: None,
            sights,
        };
        engine.handle(now, Input::Report(report));
    }

    /// A leader of three; `web` runs on n1 by `quick`, and n1 was healthy.
    fn leader() -> Engine {
        let mut engine = Engine::new(ME, BootId(1), "room");
        let text =
            [PROVIDER.to_owned(), node("n1", "r1"), node("s1", "r1"), instance("web", "n1", "")].concat();
        let documents: Documents = toml::from_str(&text).unwrap();
        engine.handle(NOW, Input::Voters(vec![ME, MemberId(2), MemberId(3)]));
        commit(&mut engine, Command::Describe(Box::new(documents)));
        commit(&mut engine, Command::Arm { reason: "go".to_owned() });
        engine.handle(NOW, Input::Leader { leader: Some(ME) });
        commit(&mut engine, Command::TookOver { member: ME, boot: BootId(1) });
        let alive = Sight::Alive { epoch: Epoch(1), write_stale: None, few_paths: None };
        sees(&mut engine, NOW, 2, "n1", alive);
        let leader = engine.leads().unwrap();
        let (node, evidence) = ("n1".parse().unwrap(), crate::plan::Evidence::default());
        let step = Step::Judge { node, verdict: Verdict::Healthy, evidence };
        commit(&mut engine, Command::Lead { leader, step });
        engine
    }

    /// The same, with `quick` changed, once n1 is judged failed.
    pub(crate) fn fallen(changes: &[(&str, &str)]) -> Engine {
        let mut engine = leader();
        let name: PolicyId = "quick".parse().unwrap();
        let policy = Box::new(engine.state().policies[&name].policy.with(changes.iter().copied()).unwrap());
        commit(&mut engine, Command::SetPolicy { name, policy, check: None, reason: "why not".to_owned() });
        let leader = engine.leads().unwrap();
        let verdict = Verdict::Failed(Cause::Silent);
        let evidence = crate::plan::Evidence::default();
        let step = Step::Judge { node: "n1".parse().unwrap(), verdict, evidence };
        commit(&mut engine, Command::Lead { leader, step });
        engine
    }

    /// What it would decide now.
    pub(crate) fn decided(engine: &Engine, now: Now) -> Option<Decision> {
        engine.plan_now(now).commands.into_iter().find_map(|command| {
            let Command::Lead { step: Step::Begin(decision), .. } = command else { return None };
            Some(*decision)
        })
    }

    /// What its gates say beside the brakes, or why nothing is decided.
    pub(crate) fn gates(engine: &Engine, now: Now) -> Vec<String> {
        let of_the_policy =
            |gate: &crate::plan::Gate| ["wishes", "window", "approval"].contains(&&*gate.name);
        match decided(engine, now) {
            Some(decision) => {
                let gates = decision.gates.into_iter().filter(of_the_policy);
                gates.map(|gate| format!("{}: {}", gate.name, gate.found)).collect()
            }
            None => engine.plan_now(now).waiting.into_values().flatten().map(|why| why.to_string()).collect(),
        }
    }

    fn preview(engine: &Engine, changes: &[(&str, &str)]) -> Preview {
        let name: PolicyId = "quick".parse().unwrap();
        let policy = engine.state().policies[&name].policy.with(changes.iter().copied()).unwrap();
        engine.preview(LATER, &name, &policy).unwrap()
    }

    #[test]
    fn fewer_members_would_fence_a_node_that_one_of_them_sees_dead() {
        let mut engine = leader();
        let dead = Sight::Silent { lasting: Millis(900), never: false, kernel: Kernel::Mute };
        sees(&mut engine, LATER, 3, "n1", dead);
        assert!(preview(&engine, &[]).is_nothing());
        let told = preview(&engine, &[("detection.members_min", "1")]);
        let (n1, s1): (NodeId, NodeId) = ("n1".parse().unwrap(), "s1".parse().unwrap());
        let failed = Verdict::Failed(Cause::Silent);
        assert_eq!(told.verdicts[&n1], Changed { before: Verdict::Healthy, after: failed });
        let fenced = Fate::Fenced { spare: Some(s1) };
        assert_eq!(told.fences[&n1], Changed { before: Fate::LeftAlone, after: fenced });
        // With a limit that its silence has not reached, nothing would be seen of it.
        let told = preview(&engine, &[("detection.members_min", "1"), ("detection.suspect_after", "1s")]);
        assert_eq!((told.verdicts.len(), told.fences.len(), told.changes.len()), (0, 0, 2));
        assert_eq!(engine.state().nodes[&n1].verdict, Verdict::Healthy, "the engine itself is as it was");
    }

    #[test]
    fn a_policy_that_wants_another_rack_takes_the_spare_away() {
        let told = preview(&leader(), &[("spares.differs_in", "rack")]);
        let missing = vec![("s1".parse().unwrap(), "in rack r1, as the failed node".to_owned())];
        let after = Cover::Uncovered(Waiting::NoFittingSpare { missing });
        let before = Cover::Spare("s1".parse().unwrap());
        assert_eq!(told.covers[&"web".parse().unwrap()], Changed { before, after });
        assert_eq!(told.instances, 1);
    }

    #[test]
    fn a_policy_that_would_apply_takes_instances_over_with_their_nodes_and_says_so() {
        let mut engine = leader();
        let text = "[[instance]]\nname = \"web\"\nnode = \"n1\"\nlabels = { tier = \"gold\" }\n";
        commit(&mut engine, Command::Describe(Box::new(toml::from_str(text).unwrap())));
        let dead = Sight::Silent { lasting: Millis(900), never: false, kernel: Kernel::Mute };
        sees(&mut engine, LATER, 3, "n1", dead);
        let gold: PolicyId = "gold".parse().unwrap();
        let quick = &engine.state().policies[&"quick".parse().unwrap()].policy;
        let told = |changes: &[(&str, &str)]| {
            let changes = changes.iter().copied().chain([("applies.labels", "tier=gold")]);
            engine.preview(LATER, &gold, &quick.with(changes).unwrap()).unwrap()
        };
        let preview = told(&[("detection.members_min", "1")]);
        let web: InstanceId = "web".parse().unwrap();
        assert_eq!(preview.protected[&web], Changed { before: PolicyId::default(), after: gold.clone() });
        assert_eq!(preview.verdicts[&"n1".parse().unwrap()].after, Verdict::Failed(Cause::Silent));
        // By the rules of the policy that would take it over, this silence would not have been seen.
        let preview = told(&[("detection.members_min", "1"), ("detection.suspect_after", "1s")]);
        assert_eq!((preview.protected.len(), preview.verdicts.len()), (1, 0));
        let silver: PolicyId = "silver".parse().unwrap();
        let policy = quick.with([("applies.labels", "tier=gold")]).unwrap();
        let set = Command::SetPolicy {
            name: silver.clone(),
            policy: Box::new(policy.clone()),
            check: None,
            reason: String::new(),
        };
        commit(&mut engine, set);
        let refused = engine.preview(LATER, &gold, &policy).unwrap_err();
        assert_eq!(refused, Rejected::Ambiguous { instance: web, first: gold, second: silver });
    }
}
