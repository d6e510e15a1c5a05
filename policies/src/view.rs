//! What a member believes and why it waits, as values for `hactl`, the metrics and the console. Read only.

use crate::engine::Engine;
use crate::observation::{Power, SelfDoubt, Sight};
use crate::planner::Subject;
use crate::readiness::{Checked, Finding};
use crate::waiting::Waiting;
use crate::words::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One member's beliefs and reasons.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Whose.
    pub member: MemberId,
    /// When.
    pub at: Wall,
    /// The leadership under which it acts; `None`: it does not.
    pub leads: Option<LeaderEpoch>,
    /// Why it does not act.
    pub not_acting: Option<Waiting>,
    /// What it knows of the other members.
    pub members: BTreeMap<MemberId, MemberView>,
    /// What is believed of the nodes.
    pub nodes: BTreeMap<NodeId, NodeView>,
    /// Why instances are not moved.
    pub instances: BTreeMap<InstanceId, Vec<Waiting>>,
    /// What failovers wait for.
    pub plans: BTreeMap<PlanId, Vec<Waiting>>,
    /// What providers say beforehand of ports, volumes and boot images; known to the leader only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Checked>,
}

impl View {
    /// What is not fine.
    pub fn troubles(&self) -> impl Iterator<Item = &Checked> {
        self.checks.iter().filter(|checked| checked.finding != Finding::Fine)
    }
}

/// A member as seen through its reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// Its failure domain.
    pub domain: String,
    /// Age of its newest report.
    pub report_age: Millis,
    /// Why it does not trust its own eyes.
    pub doubt: Option<SelfDoubt>,
}

/// A node as seen by the members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// What each member sees.
    pub sights: BTreeMap<MemberId, Sight>,
    /// What its BMC said last, and how long ago; `None` inside: it did not answer.
    pub power: Option<(Option<Power>, Millis)>,
    /// Why it is not judged, moved, fenced or released.
    pub waiting: Vec<Waiting>,
}

impl NodeView {
    /// True if some member hears it wait as a hot spare.
    pub fn waits_hot(&self) -> bool {
        self.sights.values().any(Sight::waits_hot)
    }
}

impl Engine {
    /// The present view. Costs a pass over all nodes: for people and scrapes, not for each input.
    pub fn view(&self, now: Now) -> View {
        let mut view = View {
            member: self.me(),
            at: now.wall,
            leads: self.leads(),
            not_acting: self.not_acting(),
            checks: self.checks(now.mono),
            ..View::default()
        };
        for node in self.state().nodes.keys() {
            let power = self.power_reading(node).map(|(power, at)| (power, now.mono.since(at)));
            view.nodes.insert(node.clone(), NodeView { power, ..NodeView::default() });
        }
        for (report, at) in self.reports() {
            let report_age = now.mono.since(at);
            let (domain, doubt) = (report.domain.clone(), report.doubt.clone());
            view.members.insert(report.member, MemberView { domain, report_age, doubt });
            for (node, sight) in &report.sights {
                if let Some(node) = view.nodes.get_mut(node) {
                    node.sights.insert(report.member, sight.clone());
                }
            }
        }
        for (subject, reasons) in self.waiting() {
            match subject {
                Subject::Node(node) => {
                    if let Some(node) = view.nodes.get_mut(node) {
                        node.waiting.clone_from(reasons);
                    }
                }
                Subject::Instance(instance) => {
                    view.instances.insert(instance.clone(), reasons.clone());
                }
                Subject::Plan(plan) => {
                    view.plans.insert(*plan, reasons.clone());
                }
            }
        }
        view
    }
}
