//! The audit trail as the checkers read it: the members' logs, the rack's journal and the operator's orders, as one row
//! of [`Fact`]s in the order in which they happened.
//!
//! Why it exists: real and simulated runs are judged by the same code, and these are the facts that it asks for.
//! What it never does: judge, or leave out what it does not understand; such a trail is no trail.
//!
//! How the order is found. All programs of a run share one clock, the rack writes the exact time, entries bear whole
//! milliseconds of the moment in which they were proposed. So an intent counts from the beginning of its millisecond and
//! every other entry from the end of its: what follows from an intent comes after it, what an entry tells of came before
//! it. The log's own order, and the rack's, are kept; and what bears a token comes after the entry that is its token.

use super::facts::Facts;
use crate::checkers::{Answer, Deed, Fact, Request};
use crate::rack::Change;
use policies::{Command, LogIndex, MemberId, NodeId, Proposal, Step, VolumeId, Wall};
use provisioning::rack::{PortChange, PortSetting, VolumeChange};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Wall clocks are moved by whole days (`clock-jumps`), and no run lasts half a day.
const DAY_MS: u64 = 24 * 3600 * 1000;
/// More days than any clock is wrong.
const DAYS_MAX: u64 = 10_000;
const NS_PER_MS: u64 = 1_000_000;
const NS_PER_US: u64 = 1000;

/// A fact, and when it was, in ns since 1970.
type Dated = (u64, Fact);

/// Everything that happened, each with its time in µs since the first of it.
///
/// # Errors
/// What is missing or not understood.
pub(super) fn trail(facts: &Facts) -> Result<Vec<(u64, Fact)>, String> {
    let log = Log::of(facts);
    let mut all = applied(facts, &log);
    // Behind the entries: what has the same time as an entry follows from it.
    all.extend(Rack::new(facts, &log).read(facts)?);
    all.extend(orders(facts, &log));
    all.sort_by_key(|(at, _)| *at);
    let first = all.first().map_or(0, |(at, _)| *at);
    Ok(all.into_iter().map(|(at, fact)| ((at - first) / NS_PER_US, fact)).collect())
}

/// The entries that any member has, and when each was.
struct Log<'a>(BTreeMap<LogIndex, (u64, &'a Proposal)>);

impl<'a> Log<'a> {
    fn of(facts: &'a Facts) -> Self {
        let mut entries = BTreeMap::new();
        for (index, proposal) in facts.logs.values().flat_map(|log| &log.entries) {
            entries.entry(*index).or_insert((0, proposal.as_ref()));
        }
        let mut newest = 0;
        for (at, proposal) in entries.values_mut() {
            newest = moment(proposal, facts.report.started).max(newest);
            *at = newest;
        }
        Log(entries)
    }

    fn at(&self, index: LogIndex) -> u64 {
        self.0.get(&index).map_or(0, |(at, _)| *at)
    }

    /// Who led at a time.
    fn leader(&self, at: u64) -> MemberId {
        let until = self.0.values().rev().skip_while(|(entry, _)| *entry > at);
        let mut took_over = until.filter_map(|(_, proposal)| {
            let Command::TookOver { member, .. } = &proposal.command else { return None };
            Some(*member)
        });
        took_over.next().unwrap_or(MemberId(0))
    }
}

/// When a proposal was made, ns since 1970.
fn moment(proposal: &Proposal, started: Wall) -> u64 {
    let half = DAY_MS / 2;
    let off = (proposal.at.0 + DAYS_MAX * DAY_MS + half).saturating_sub(started.0) % DAY_MS;
    let ms = (started.0 + off).saturating_sub(half);
    let ended = !matches!(proposal.command, Command::Lead { step: Step::Intend { .. }, .. });
    (ms + u64::from(ended)) * NS_PER_MS
}

/// What each member has in its log.
fn applied(facts: &Facts, log: &Log<'_>) -> Vec<Dated> {
    let mut all: Vec<(LogIndex, Dated)> = Vec::new();
    for (&member, of_it) in &facts.logs {
        let state = Arc::clone(&of_it.begins);
        let index = state.applied;
        all.push((index, (log.at(index), Fact::Installed { member, state })));
        all.extend(of_it.entries.iter().map(|(&index, proposal)| {
            let proposal = Arc::clone(proposal);
            (index, (log.at(index), Fact::Applied { member, index, proposal }))
        }));
    }
    all.sort_by_key(|(index, _)| *index);
    // A state without any entry before it is as old as the log.
    let first = log.0.values().next().map_or(0, |(at, _)| *at);
    all.into_iter().map(|(_, (at, fact))| (at.max(first), fact)).collect()
}

/// What the operator asked for and was answered. It knows neither stamp nor name that its order got, so these are taken
/// from the log; the order itself is its own.
fn orders(facts: &Facts, log: &Log<'_>) -> Vec<Dated> {
    let orders = (1..).zip(&facts.acked).flat_map(|(request, acked)| {
        let found = log.0.get(&acked.index).map(|(_, proposal)| *proposal);
        let (at, by) = found.map_or((Wall(0), String::new()), |found| (found.at, found.by.clone()));
        let command = as_sent(&acked.order, found.map(|found| &found.command));
        let proposal = Arc::new(Proposal { at, by, command });
        let asked = Fact::Asked { request, what: Request::Propose(proposal) };
        let answered = Fact::Answered { request, answer: Answer::Committed(acked.index) };
        [(acked.asked * NS_PER_US, asked), (acked.answered * NS_PER_US, answered)]
    });
    orders.collect()
}

/// The order as the API puts it into the log: on which version of a policy a change rests, it looks up itself. An order
/// that is given again, for its first answer was lost, rests on its own first version.
fn as_sent(order: &Command, found: Option<&Command>) -> Command {
    match (order, found) {
        (Command::SetPolicy { name, policy, reason, .. }, Some(Command::SetPolicy { check, .. })) => {
            let (name, policy, reason) = (name.clone(), policy.clone(), reason.clone());
            Command::SetPolicy { name, policy, check: *check, reason }
        }
        (order, _) => order.clone(),
    }
}

/// Reads the rack's journal.
struct Rack<'a> {
    log: &'a Log<'a>,
    ports: &'a BTreeMap<String, NodeId>,
    nodes: BTreeMap<&'a str, (u16, &'a NodeId)>,
    powered: BTreeSet<NodeId>,
    /// Nodes that were told to go off and are not off.
    going: BTreeSet<NodeId>,
    /// What each open port of a node leads into.
    open: BTreeMap<NodeId, BTreeMap<String, u16>>,
    /// The checkers know an instance by its network. In this rack all share two, and the MAC address makes the
    /// identity: so each gets a number, that of the node which had it first.
    identities: BTreeMap<String, u16>,
}

impl<'a> Rack<'a> {
    fn new(facts: &'a Facts, log: &'a Log<'a>) -> Self {
        let names = (1..).zip(&facts.initiators);
        Rack {
            log,
            ports: &facts.ports,
            nodes: names.map(|(number, (node, name))| (name.as_str(), (number, node))).collect(),
            powered: BTreeSet::new(),
            going: BTreeSet::new(),
            open: BTreeMap::new(),
            identities: BTreeMap::new(),
        }
    }

    fn read(mut self, facts: &Facts) -> Result<Vec<Dated>, String> {
        let journal = &facts.journal;
        if journal.forgotten > 0 {
            return Err(format!("the rack has forgotten {} changes", journal.forgotten));
        }
        let mut happened: Vec<(u64, LogIndex, Vec<Fact>)> = Vec::new();
        let started = facts.report.started.0 * NS_PER_MS;
        for noted in &journal.changes {
            let at = started + noted.at;
            let (token, facts) = self.change(at, &noted.change)?;
            happened.push((at, token, facts));
        }
        // A write that was accepted shows that writes arrive, whatever the journal says.
        for volume in &facts.report.volumes {
            for run in &volume.runs {
                let wrote = self.session(&volume.volume, &run.initiator, true)?;
                let at = [run.first_at, run.last_at];
                happened.extend(at.map(|at| (started + at, LogIndex(0), vec![wrote.clone()])));
            }
        }
        happened.sort_by_key(|(at, ..)| *at);
        let mut newest = 0;
        let dated = happened.into_iter().flat_map(|(at, token, facts)| {
            newest = newest.max(at).max(self.log.at(token));
            facts.into_iter().map(move |fact| (newest, fact))
        });
        Ok(dated.collect())
    }

    /// What a change of the journal means, and the token that it bears.
    fn change(&mut self, at: u64, change: &Change) -> Result<(LogIndex, Vec<Fact>), String> {
        let none = LogIndex(0);
        Ok(match change {
            Change::Power { node, on } => (none, self.power(node, *on)),
            Change::Commanded { node, on } => {
                let node = node.clone();
                if !on && self.powered.contains(&node) {
                    self.going.insert(node.clone());
                }
                let deed = if *on { Deed::PowerOn { node } } else { Deed::PowerOff { node } };
                (none, vec![Fact::Sent { member: self.log.leader(at), deed, token: None }])
            }
            Change::Asked { node } => {
                let deed = Deed::ShutDown { node: node.clone() };
                (none, vec![Fact::Sent { member: self.log.leader(at), deed, token: None }])
            }
            Change::Told { node, on } => {
                (none, vec![Fact::Looked { member: self.log.leader(at), node: node.clone(), on: *on }])
            }
            Change::Volume { volume, change } => {
                let volume = volume.clone();
                let (deed, token) = match change {
                    VolumeChange::Attach { initiator, token } => {
                        (Deed::Attach { node: self.node(initiator)?.1.clone(), volume }, *token)
                    }
                    VolumeChange::Revoke { initiator, token } => {
                        (Deed::Revoke { node: self.node(initiator)?.1.clone(), volume }, *token)
                    }
                };
                (token, self.carried_out(at, deed, token))
            }
            Change::Snapshot { volume, change } => {
                let deed = Deed::Snapshot { volume: volume.clone(), name: change.name };
                (change.token, self.carried_out(at, deed, change.token))
            }
            Change::Reach { volume, initiator, open } => {
                (none, vec![self.session(volume, initiator, *open)?])
            }
            Change::Port { port, change } => (change.token, self.port(at, port, change)?),
            Change::Boot { node, change } => {
                let (instance, epoch) = (change.assignment.instance.clone(), change.assignment.epoch);
                let deed = Deed::Boot { node: node.clone(), instance, epoch };
                (change.token, self.carried_out(at, deed, change.token))
            }
        })
    }

    fn node(&self, initiator: &str) -> Result<(u16, &'a NodeId), String> {
        let unknown = || format!("the array speaks of {initiator:?}, which is no node's");
        self.nodes.get(initiator).copied().ok_or_else(unknown)
    }

    /// Who sent it, the rack does not know. It is said to have been the leader, and no checker here may ask.
    fn carried_out(&self, at: u64, deed: Deed, token: LogIndex) -> Vec<Fact> {
        let member = self.log.leader(at);
        vec![Fact::Sent { member, deed: deed.clone(), token: Some(token) }, Fact::Struck { deed }]
    }

    fn power(&mut self, node: &NodeId, on: bool) -> Vec<Fact> {
        let fact = Fact::Power { node: node.clone(), on };
        if on {
            self.powered.insert(node.clone());
            return vec![fact];
        }
        self.powered.remove(node);
        // Without a command, somebody pulled the plug.
        let struck =
            self.going.remove(node).then(|| Fact::Struck { deed: Deed::PowerOff { node: node.clone() } });
        struck.into_iter().chain([fact]).collect()
    }

    fn session(&self, volume: &VolumeId, initiator: &str, open: bool) -> Result<Fact, String> {
        Ok(Fact::Session { node: self.node(initiator)?.1.clone(), volume: volume.clone(), open })
    }

    fn port(&mut self, at: u64, port: &str, change: &PortChange) -> Result<Vec<Fact>, String> {
        let unknown = || format!("the switch speaks of port {port:?}, behind which no node is");
        let node = self.ports.get(port).ok_or_else(unknown)?.clone();
        let number = self.nodes.values().find(|(_, known)| **known == node).map_or(0, |(number, _)| *number);
        let open = self.open.entry(node.clone()).or_default();
        let (deed, leads) = match &change.setting {
            PortSetting::Closed => {
                open.remove(port);
                (Deed::Close { node: node.clone() }, None)
            }
            PortSetting::Open { vlan, mac, .. } => {
                let identity = mac.clone().unwrap_or_else(|| format!("vlan {vlan}"));
                let identity = *self.identities.entry(identity).or_insert(number);
                open.insert(port.to_owned(), identity);
                (Deed::Open { node: node.clone(), vlan: *vlan }, Some(identity))
            }
        };
        // As long as one port is open, the node is on the network.
        let vlan = leads.or_else(|| open.values().next().copied());
        let wired = Fact::Port { node, vlan };
        Ok(match change.token {
            LogIndex(0) => vec![wired],
            token => self.carried_out(at, deed, token).into_iter().chain([wired]).collect(),
        })
    }
}
