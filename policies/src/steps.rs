//! Which actions belong to which phase of a plan: a function of the committed state, for the planner that proposes
//! them and for `apply` that checks them.

use crate::command::Hand;
use crate::effect::{Action, Bearing, Effect};
use crate::network::{Network, Vlans};
use crate::plan::{Cause, Intent, Phase, Plan, Start, isolation};
use crate::snapshot::SnapshotName;
use crate::state::{ByHand, ClusterState, InstanceRecord};
use crate::words::{Millis, NodeId, ProviderId, VolumeId};

impl ClusterState {
    /// The instance whose volumes and networks the old node may still touch: the one that moves, or, for a plan that
    /// only fences, the one that the node carries.
    pub(crate) fn carried(&self, plan: &Plan) -> Option<&InstanceRecord> {
        match &plan.decision.instance {
            Some(instance) => self.instances.get(instance),
            None => self.instance_on(&plan.decision.from),
        }
    }

    /// What asks the old node's system to shut down, if this plan does that.
    pub fn shutdown_action(&self, plan: &Plan) -> Option<Action> {
        plan.decision.shutdown.and_then(|_| self.first_level(plan)).map(|node| Action::ShutDown { node })
    }

    /// What reads why the old node died. One that was moved by an order did not die.
    pub fn diagnose_action(&self, plan: &Plan) -> Option<Action> {
        match plan.decision.cause {
            Cause::Ordered => None,
            Cause::Silent | Cause::PowerOff | Cause::Gasped | Cause::GrayTooLong | Cause::DidNotStart => {
                self.first_level(plan).map(|node| Action::Diagnose { node })
            }
        }
    }

    /// What makes the old node's kernel write a crash dump. One that has told of its death does so by itself, and one that is off
    /// or was moved by an order has none to write.
    pub fn crash_dump_action(&self, plan: &Plan) -> Option<Action> {
        match plan.decision.cause {
            Cause::Ordered | Cause::PowerOff | Cause::Gasped => None,
            Cause::Silent | Cause::GrayTooLong | Cause::DidNotStart => {
                self.first_level(plan).map(|node| Action::Interrupt { node })
            }
        }
    }

    /// The old node, if it has a fencing device that can be asked.
    fn first_level(&self, plan: &Plan) -> Option<NodeId> {
        let from = self.nodes.get(&plan.decision.from)?;
        (!from.node.fencing.is_empty()).then(|| from.node.name.clone())
    }

    /// Everything that cuts the old node off: each fencing level, each volume, each port.
    pub fn fence_actions(&self, plan: &Plan) -> Vec<Action> {
        let Some(from) = self.nodes.get(&plan.decision.from) else { return vec![] };
        let instance = self.carried(plan).map(|record| &*record.instance);
        let levels = (0..from.node.fencing.len())
            .map(|level| Action::PowerOff { node: from.node.name.clone(), level });
        levels.chain(isolation(&from.node, instance)).collect()
    }

    /// Everything that gives the spare the instance's volumes, networks and boot source. A hot one that is told its boot source
    /// goes on into it at once, so there that belongs to its start.
    pub fn move_actions(&self, plan: &Plan) -> Vec<Action> {
        let spare = plan.decision.spare.as_ref().and_then(|spare| self.nodes.get(spare));
        let (Some(spare), Some(record)) = (spare, self.carried(plan)) else { return vec![] };
        let (node, instance) = (&spare.node.name, &record.instance);
        let volumes = instance.volumes.iter().zip(0..).map(|(volume, index)| Action::Attach {
            node: node.clone(),
            provider: volume.provider.clone(),
            volume: volume.volume.clone(),
            index,
        });
        let ports = instance.networks.iter().zip(&spare.node.ports).map(|(network, port)| {
            let (node, provider, port) = (node.clone(), port.provider.clone(), port.port.clone());
            match network {
                Network::Vlans(Vlans { vlan, tagged, mac }) => {
                    let (tagged, mac) = (tagged.clone(), mac.clone());
                    Action::OpenPort { node, provider, port, vlan: *vlan, tagged, mac }
                }
                Network::Vif(vif) => Action::AttachVif { node, provider, port, vif: vif.clone() },
            }
        });
        let boot = match plan.decision.start {
            Start::PowerOn => self.boot_action(plan),
            Start::Kexec | Start::PowerCycle | Start::Deploy => None,
        };
        volumes.chain(ports).chain(boot).collect()
    }

    /// What gives the spare the instance's boot source, if it has one.
    pub(crate) fn boot_action(&self, plan: &Plan) -> Option<Action> {
        let instance = &self.carried(plan)?.instance;
        let boot = instance.boot.as_ref()?;
        Some(Action::SetBoot {
            node: plan.decision.spare.clone()?,
            provider: boot.provider.clone(),
            instance: instance.name.clone(),
            image: boot.image.clone(),
            epoch: plan.epoch,
        })
    }

    /// Everything that may start the spare. A hot one is told to go on into the instance's kernel, or is switched off at one of
    /// its fencing levels, told what to boot, and switched on.
    pub fn start_actions(&self, plan: &Plan) -> Vec<Action> {
        let spare = plan.decision.spare.as_ref().and_then(|spare| self.nodes.get(spare));
        let Some(node) = spare.map(|spare| &spare.node) else { return vec![] };
        let on = Action::PowerOn { node: node.name.clone() };
        let levels = (0..node.fencing.len()).map(|level| Action::PowerOff { node: node.name.clone(), level });
        match plan.decision.start {
            Start::PowerOn => vec![on],
            Start::Deploy => self.boot_action(plan).into_iter().chain([on]).collect(),
            Start::Kexec | Start::PowerCycle => {
                self.boot_action(plan).into_iter().chain(levels).chain([on]).collect()
            }
        }
    }

    /// True if this step may start the spare now. A hot one that is not to go on into the instance's kernel is told nothing
    /// before it was seen off; and power on does nothing to it before that.
    pub(crate) fn may_start(&self, plan: &Plan, action: &Action) -> bool {
        let seen_off = || plan.restart().is_some_and(Intent::is_done);
        let in_order = match (action, plan.decision.start) {
            (Action::PowerOn { .. }, Start::Kexec | Start::PowerCycle) => {
                seen_off() && self.boot_action(plan).is_none_or(|boot| plan.did(&boot))
            }
            (Action::PowerOn { .. }, Start::Deploy) => {
                self.boot_action(plan).is_none_or(|boot| plan.did(&boot))
            }
            (Action::SetBoot { .. }, Start::PowerCycle) => seen_off(),
            (_, _) => true,
        };
        in_order && self.start_actions(plan).contains(action)
    }

    /// What keeps the state of a volume before `attach` gives it to the spare, if the policy wants that and nobody may write
    /// to it yet. What was asked for stays what it was, whatever the policy says by now (R1).
    pub(crate) fn snapshot_before(&self, plan: &Plan, attach: &Action) -> Option<Action> {
        let Action::Attach { node, provider, volume, index: _ } = attach else { return None };
        if plan.tried(attach) {
            return None;
        }
        let of_it = |at: &ProviderId, of: &VolumeId| (at, of) == (provider, volume);
        let keeps_it = |action: &&Action| matches!(action, Action::Snapshot { provider: at, volume: of, .. } if of_it(at, of));
        let asked = plan.intents.iter().map(|intent| &intent.action).find(keeps_it);
        let takeover = &self.policies.get(&plan.decision.policy.0)?.policy.takeover;
        let wanted = || Action::Snapshot {
            node: node.clone(),
            provider: provider.clone(),
            volume: volume.clone(),
            name: SnapshotName::Failover(plan.id),
            keep: takeover.snapshots_kept,
        };
        asked.cloned().or_else(|| (takeover.snapshot_max > Millis(0)).then(wanted))
    }

    /// Each volume's snapshot.
    pub fn snapshot_actions(&self, plan: &Plan) -> Vec<Action> {
        self.move_actions(plan).iter().filter_map(|attach| self.snapshot_before(plan, attach)).collect()
    }

    /// True if an effect that is about to be sent is still wanted. One that was held up, by a slow device or a stopped
    /// process, may find that its failover has gone on: then it must give nothing to a node that has been given up since,
    /// nor ask politely one that is being fenced, nor switch off a spare that has been switched on, nor keep a volume that
    /// somebody may write to. What cuts a node off does no harm late, for the point of no return is behind it (R6).
    pub fn wants(&self, effect: &Effect) -> bool {
        let Some(plan) = effect.plan else { return self.wants_by_hand(effect) };
        let Some(plan) = self.plans.get(&plan) else { return false };
        let phase = plan.phase_of(&effect.action);
        match (&effect.action, effect.action.bearing()) {
            (Action::PowerOff { .. }, _) if phase == Phase::Starting => {
                plan.phase == phase
                    && plan.restart().is_some_and(|newest| newest.token == effect.token && !newest.is_done())
            }
            (Action::ShutDown { .. } | Action::Interrupt { .. }, _) | (_, Bearing::Gives) => {
                plan.phase == phase
            }
            (Action::Snapshot { .. }, _) => {
                plan.phase == Phase::Moving && self.snapshot_actions(plan).contains(&effect.action)
            }
            (_, Bearing::Takes | Bearing::Reads) => true,
        }
    }

    /// The same of what was ordered by hand: no failover has begun that is about the node, and it may still be done to it.
    fn wants_by_hand(&self, effect: &Effect) -> bool {
        if matches!(effect.action, Action::Snapshot { .. }) {
            return self.wants_backup(effect);
        }
        let node = effect.action.node();
        let Some(record) = self.nodes.get(node).filter(|_| self.plan_of_node(node).is_none()) else {
            return false;
        };
        let is_it = |by_hand: &&ByHand| by_hand.intent.token == effect.token && by_hand.intent.end.is_none();
        let is_allowed = match &effect.action {
            Action::PowerOn { .. } => record.allows(Hand::PowerOn).is_ok(),
            Action::PowerOff { .. } => record.allows(Hand::PowerOff).is_ok(),
            Action::Interrupt { .. } => record.allows(Hand::Interrupt).is_ok(),
            Action::Claim { .. } => record.claimer().as_ref() == Some(&effect.action),
            Action::Clean { .. } => record.cleaner().as_ref() == Some(&effect.action),
            Action::ShutDown { .. }
            | Action::Diagnose { .. }
            | Action::Revoke { .. }
            | Action::ClosePort { .. }
            | Action::Snapshot { .. }
            | Action::Attach { .. }
            | Action::OpenPort { .. }
            | Action::AttachVif { .. }
            | Action::SetBoot { .. } => false,
        };
        is_allowed && record.by_hand.iter().any(|by_hand| is_it(&by_hand))
    }

    /// The actions of the plan's present phase.
    pub fn phase_actions(&self, plan: &Plan) -> Vec<Action> {
        match plan.phase {
            Phase::Reserved | Phase::Stopping | Phase::Fencing => {
                let before = self.shutdown_action(plan).into_iter().chain(self.diagnose_action(plan));
                before.chain(self.crash_dump_action(plan)).chain(self.fence_actions(plan)).collect()
            }
            Phase::Moving => self.snapshot_actions(plan).into_iter().chain(self.move_actions(plan)).collect(),
            Phase::Starting => self.start_actions(plan),
            Phase::Done | Phase::Replaced | Phase::Cancelled => vec![],
        }
    }
}
