//! The metrics of one member, in the Prometheus text form.
//!
//! Why it exists: names, labels and units are promises to people's dashboards and alerts, so they are all in one table.
//! What it never does: decide, keep a history, or put an address or a secret into a label.
//!
//! Counters and histograms are told what happened; gauges that describe the cluster are computed from the committed
//! state when somebody asks, so they cannot go stale.

use policies::{
    Action, ClusterState, Command, Coverage, MemberId, Millis, NodeState, Outcome, PlanId, Proposal,
    ProviderId, Step,
};
use prometheus::core::Collector;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use raft_store::{Progress, TapeState};
use serde::Serialize;
use serde_json::Value;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// A metric could not be made or written: a mistake in the table below, found by its test.
#[derive(Debug, thiserror::Error)]
#[error("{doing} metrics")]
pub struct MetricsError {
    doing: &'static str,
    source: prometheus::Error,
}

/// The metrics of one member. Clones share their values.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    heartbeats: IntCounterVec,
    answers: IntCounterVec,
    detections: IntCounterVec,
    decisions: IntCounterVec,
    guard_blocks: IntCounterVec,
    effects: IntCounterVec,
    effect_seconds: HistogramVec,
    failovers: IntCounterVec,
    cut_again: IntCounterVec,
    phase_seconds: HistogramVec,
    commit_seconds: HistogramVec,
    flight_records: IntCounterVec,
    flight_bytes: IntGauge,
    drift: IntGaugeVec,
    api_requests: IntCounterVec,
    api_seconds: HistogramVec,
}

/// Upper bounds in seconds for commits and API requests: from an SSD's fsync to the longest time limit.
const FAST: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// Upper bounds in seconds for effects and phases: from a BMC that answers at once to a server's slow POST.
const SLOW: [f64; 13] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// Registers one metric.
fn add<C: Collector + Clone + 'static>(
    registry: &Registry,
    made: prometheus::Result<C>,
) -> Result<C, MetricsError> {
    let failed = |source| MetricsError { doing: "register", source };
    let metric = made.map_err(failed)?;
    registry.register(Box::new(metric.clone())).map_err(failed)?;
    Ok(metric)
}

fn flight_metrics(r: &Registry) -> Result<(IntCounterVec, IntGauge), MetricsError> {
    let help = "Flight records, by what became of them; lost ones only make a replay see less.";
    let records = add(r, IntCounterVec::new(Opts::new("ha_flight_records_total", help), &["result"]))?;
    let help = "What the flight record takes on disk, when last measured.";
    Ok((records, add(r, IntGauge::new("ha_flight_size_bytes", help))?))
}

/// What a scrape needs beside the counters.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// The committed state as this member has applied it.
    pub state: &'a ClusterState,
    /// This member.
    pub me: MemberId,
    /// The leader that it sees.
    pub leader: Option<MemberId>,
    /// How far its log is.
    pub progress: &'a Progress,
    /// Who is covered, if this member leads.
    pub coverage: Option<&'a Coverage>,
}

impl Metrics {
    /// The counters and histograms, with their help texts, labels and buckets.
    ///
    /// # Errors
    /// [`MetricsError`], which the test of this file rules out.
    pub fn new(cluster: &str, me: MemberId) -> Result<Metrics, MetricsError> {
        let r = Registry::new();
        let counters =
            |name, help, labels: &[&str]| add(&r, IntCounterVec::new(Opts::new(name, help), labels));
        let seconds = |name, help, labels: &[&str], buckets: &[f64]| {
            add(&r, HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels))
        };
        let build = Opts::new("ha_build_info", "1; version, cluster and member are labels.");
        let build = add(&r, IntGaugeVec::new(build, &["version", "cluster", "member"]))?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), cluster, &me.0.to_string()]).set(1);
        let (flight_records, flight_bytes) = flight_metrics(&r)?;
        let drift = "Objects that are other at their cloud than described, or gone, when it was last looked at; told by the leader, and not while the cloud cannot be read.";
        let drift = Opts::new("ha_provider_drift", drift);
        Ok(Metrics {
            heartbeats: counters(
                "ha_heartbeats_total",
                "Heartbeat datagrams received, by result.",
                &["result"],
            )?,
            answers: counters(
                "ha_heartbeat_answers_total",
                "Answers to heartbeats of nodes under a watchdog, by result.",
                &["result"],
            )?,
            detections: counters("ha_detections_total", "Verdicts committed.", &["verdict"])?,
            decisions: counters(
                "ha_decisions_total",
                "Decisions committed, refusals included.",
                &["decision"],
            )?,
            guard_blocks: counters(
                "ha_guard_blocks_total",
                "Failed nodes not acted on, by reason.",
                &["guard"],
            )?,
            effects: counters(
                "ha_effects_total",
                "Effects that this member carried out.",
                &["action", "result"],
            )?,
            effect_seconds: seconds(
                "ha_effect_duration_seconds",
                "Time that effects took.",
                &["action"],
                &SLOW,
            )?,
            cut_again: counters(
                "ha_quarantine_power_off_total",
                "Quarantined nodes that were found to be on, and are switched off again.",
                &["node"],
            )?,
            failovers: counters("ha_failover_total", "Failovers that ended, or got stuck.", &["result"])?,
            phase_seconds: seconds(
                "ha_failover_phase_duration_seconds",
                "Time that failovers spent in a phase that they have left.",
                &["phase"],
                &SLOW,
            )?,
            commit_seconds: seconds(
                "ha_raft_commit_duration_seconds",
                "From proposal to commit, at the member that proposed.",
                &["result"],
                &FAST,
            )?,
            flight_records,
            flight_bytes,
            drift: add(&r, IntGaugeVec::new(drift, &["provider"]))?,
            api_requests: counters(
                "ha_api_requests_total",
                "API requests answered.",
                &["method", "route", "code"],
            )?,
            api_seconds: seconds(
                "ha_api_request_duration_seconds",
                "Time to answer requests.",
                &["route"],
                &FAST,
            )?,
            registry: r,
        })
    }

    /// This member carried out an effect.
    pub fn effect(&self, action: &Action, outcome: &Outcome, took: Millis) {
        let action = word(action);
        self.effects.with_label_values(&[action.as_str(), &word(outcome)]).inc();
        self.effect_seconds.with_label_values(&[action.as_str()]).observe(seconds(took));
    }

    /// An entry was applied; `state` is the state after it. Every member counts every entry, so dashboards take the
    /// maximum over members and not the sum.
    pub fn applied(&self, proposal: &Proposal, state: &ClusterState) {
        match proposal.command.unforced() {
            Command::Lead { step, .. } => self.applied_step(step, state),
            Command::Cancel { plan, .. } => self.ended(state, *plan, "cancelled"),
            Command::Note { .. }
            | Command::Describe(_)
            | Command::SetPolicy { .. }
            | Command::DeletePolicy { .. }
            | Command::Delete { .. }
            | Command::Forced { .. }
            | Command::Arm { .. }
            | Command::Disarm { .. }
            | Command::Cordon { .. }
            | Command::Maintain { .. }
            | Command::Evacuate { .. }
            | Command::Drain { .. }
            | Command::Fence { .. }
            | Command::ConfirmOff { .. }
            | Command::Approve { .. }
            | Command::Release { .. }
            | Command::ByHand { .. }
            | Command::Backup { .. }
            | Command::TookOver { .. } => {}
        }
    }

    fn applied_step(&self, step: &Step, state: &ClusterState) {
        match step {
            Step::Judge { verdict, .. } => self.detections.with_label_values(&[&word(verdict)]).inc(),
            Step::Withhold { why, .. } => {
                self.guard_blocks.with_label_values(&[&word(why)]).inc();
                self.decisions.with_label_values(&["withheld"]).inc();
            }
            Step::Begin(decision) => {
                let what = if decision.instance.is_some() { "failover" } else { "fence" };
                self.decisions.with_label_values(&[what]).inc();
            }
            Step::Replace { plan, .. } => {
                self.decisions.with_label_values(&["replacement"]).inc();
                self.ended(state, *plan, "replaced");
            }
            Step::Finish { plan, .. } => self.ended(state, *plan, "done"),
            Step::CutAgain { node } => self.cut_again.with_label_values(&[node.as_str()]).inc(),
            Step::Stick { why: Some(_), .. } => self.failovers.with_label_values(&["stuck"]).inc(),
            Step::Stick { why: None, .. }
            | Step::Intend { .. }
            | Step::Resolve { .. }
            | Step::Place { .. }
            | Step::Lapse { .. }
            | Step::Claim { .. }
            | Step::Clean { .. }
            | Step::Cleaned { .. }
            | Step::Keep { .. }
            | Step::Discover { .. } => {}
        }
    }

    fn ended(&self, state: &ClusterState, plan: PlanId, result: &str) {
        self.failovers.with_label_values(&[result]).inc();
        let entered = state.plans.get(&plan).map_or(&[][..], |plan| &plan.entered);
        for pair in entered.windows(2) {
            if let [(phase, from), (_, until)] = pair {
                let spent = self.phase_seconds.with_label_values(&[&phase.to_string()]);
                spent.observe(seconds(until.since(*from)));
            }
        }
    }

    /// This member proposed an entry; `result` is `applied`, `rejected` or `failed`.
    pub fn proposed(&self, result: &str, took: Duration) {
        self.commit_seconds.with_label_values(&[result]).observe(took.as_secs_f64());
    }

    /// Totals of the heartbeat socket since its start: `accepted`, `bad_mac`, ...
    pub fn heartbeats<'a>(&self, totals: impl IntoIterator<Item = (&'a str, u64)>) {
        reach(&self.heartbeats, totals);
    }

    /// Totals of the answers to heartbeats since the start: `sent`, `dropped`.
    pub fn answers<'a>(&self, totals: impl IntoIterator<Item = (&'a str, u64)>) {
        reach(&self.answers, totals);
    }

    /// How the flight recorder is.
    pub fn flight(&self, tape: &TapeState) {
        let (kept, lost) = (tape.kept.load(Relaxed), tape.lost.load(Relaxed));
        reach(&self.flight_records, [("kept", kept), ("lost", lost)]);
        self.flight_bytes.set(i64::try_from(tape.bytes.load(Relaxed)).unwrap_or(i64::MAX));
    }

    /// What is known of each cloud; nothing of the others.
    pub fn drift<'a>(&self, known: impl IntoIterator<Item = (&'a ProviderId, usize)>) {
        self.drift.reset();
        for (provider, drifted) in known {
            let gauge = self.drift.with_label_values(&[provider.as_str()]);
            gauge.set(i64::try_from(drifted).unwrap_or(i64::MAX));
        }
    }

    /// A request was answered. `route` is the pattern, not the path, so that names do not become labels.
    pub fn answered(&self, method: &str, route: &str, code: u16, took: Duration) {
        self.api_requests.with_label_values(&[method, route, &code.to_string()]).inc();
        self.api_seconds.with_label_values(&[route]).observe(took.as_secs_f64());
    }

    /// All metrics in the Prometheus text form.
    ///
    /// # Errors
    /// [`MetricsError`], which the test of this file rules out.
    pub fn text(&self, scene: Scene<'_>) -> Result<String, MetricsError> {
        let gauges = Registry::new();
        describe_cluster(&gauges, scene)?;
        describe_nodes(&gauges, scene.state)?;
        if let Some(coverage) = scene.coverage {
            describe_coverage(&gauges, coverage)?;
        }
        let mut families = self.registry.gather();
        families.extend(gauges.gather());
        let written = TextEncoder::new().encode_to_string(&families);
        written.map_err(|source| MetricsError { doing: "write", source })
    }
}

/// Brings counters to the totals that somebody else counts.
fn reach<'a>(counters: &IntCounterVec, totals: impl IntoIterator<Item = (&'a str, u64)>) {
    for (result, total) in totals {
        let counter = counters.with_label_values(&[result]);
        counter.inc_by(total.saturating_sub(counter.get()));
    }
}

fn describe_cluster(r: &Registry, scene: Scene<'_>) -> Result<(), MetricsError> {
    let state = scene.state;
    let gauge = |name, help, value: u64| {
        let gauge: IntGauge = add(r, IntGauge::new(name, help))?;
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        Ok(())
    };
    let leads = u64::from(scene.leader == Some(scene.me));
    gauge("ha_raft_is_leader", "1 if this member leads.", leads)?;
    let led = u64::from(scene.leader.is_some());
    gauge("ha_raft_has_leader", "1 if this member sees a leader; at 0 nothing is done.", led)?;
    gauge("ha_raft_applied_index", "Log index of the last applied entry.", state.applied.0)?;
    let last = scene.progress.last.map_or(0, |index| index.0);
    gauge("ha_raft_last_index", "Log index of the last entry on this member's disk.", last)?;
    let snapshot = scene.progress.snapshot.map_or(0, |index| index.0);
    gauge("ha_raft_snapshot_index", "Log index of the last entry in the snapshot.", snapshot)?;
    let behind = Opts::new("ha_raft_behind_entries", "Entries that a member lacks, as the leader knows.");
    let behind: IntGaugeVec = add(r, IntGaugeVec::new(behind, &["member"]))?;
    for (member, index) in &scene.progress.replicated {
        let lacks = i64::try_from(last.saturating_sub(index.0)).unwrap_or(i64::MAX);
        behind.with_label_values(&[&member.0.to_string()]).set(lacks);
    }
    gauge("ha_armed", "1 if the cluster acts by itself.", u64::from(state.armed.armed))?;
    gauge("ha_instances", "Instances described.", state.instances.len() as u64)?;
    gauge("ha_failover_in_progress", "Failovers under way.", state.running().count() as u64)?;
    let stuck = state.running().filter(|plan| plan.stuck.is_some()).count() as u64;
    gauge("ha_failover_stuck", "Failovers under way that need a human.", stuck)?;
    let policies =
        Opts::new("ha_policy_version_info", "Log index of each policy's version; 0: untouched preset.");
    let policies: IntGaugeVec = add(r, IntGaugeVec::new(policies, &["policy"]))?;
    for (name, record) in &state.policies {
        policies.with_label_values(&[name.as_str()]).set(i64::try_from(record.version.0).unwrap_or(i64::MAX));
    }
    Ok(())
}

/// Told by the leader only, so that dashboards need no sum over members.
fn describe_coverage(r: &Registry, coverage: &Coverage) -> Result<(), MetricsError> {
    let help =
        "Instances that would not come back by themselves if their node were lost; told by the leader.";
    let uncovered: IntGauge = add(r, IntGauge::new("ha_instances_uncovered", help))?;
    uncovered.set(i64::try_from(coverage.uncovered().count()).unwrap_or(i64::MAX));
    let help = "Failure domains whose loss is not covered, by kind; told by the leader.";
    let losses: IntGaugeVec = add(r, IntGaugeVec::new(Opts::new("ha_losses_uncovered", help), &["kind"]))?;
    for (domain, loss) in &coverage.losses {
        let kind = domain.split('/').next().unwrap_or_default();
        losses.with_label_values(&[kind]).add(i64::from(!loss.is_covered()));
    }
    let help = "Ports, volumes, boot images, snapshots and backups that are not fine, by what their provider says; told by the leader.";
    let failed = Opts::new("ha_checks_failed", help);
    let failed: IntGaugeVec = add(r, IntGaugeVec::new(failed, &["kind", "finding"]))?;
    for kind in ["port", "volume", "boot", "snapshot"] {
        for finding in ["absent", "faulty", "cannot_tell"] {
            failed.with_label_values(&[kind, finding]).set(0);
        }
    }
    for checked in &coverage.troubles {
        failed.with_label_values(&[&word(&*checked.check), &word(&checked.finding)]).inc();
    }
    Ok(())
}

fn describe_nodes(r: &Registry, state: &ClusterState) -> Result<(), MetricsError> {
    let gauges = |name, help, labels: &[&str]| add(r, IntGaugeVec::new(Opts::new(name, help), labels));
    let states: IntGaugeVec =
        gauges("ha_node_state", "1 for the state that the node is in.", &["node", "state"])?;
    let verdicts =
        gauges("ha_node_verdict", "1 for the cluster's belief about the node.", &["node", "verdict"])?;
    let waiting = gauges(
        "ha_node_withheld",
        "1 if a failed node is not acted on, or a released one could not be cleaned, and why.",
        &["node", "reason"],
    )?;
    let counts = gauges("ha_nodes", "Nodes by state.", &["state"])?;
    let maintenance = gauges("ha_node_maintenance", "1 if the node is in maintenance.", &["node"])?;
    let mismatch =
        gauges("ha_node_mismatch", "1 if the node's agent found less hardware than is declared.", &["node"])?;
    for state in ["spare", "reserved", "active", "fencing", "quarantined", "cleaning"] {
        counts.with_label_values(&[state]).set(0);
    }
    for (name, record) in &state.nodes {
        let name = name.as_str();
        let state = word(&record.state);
        states.with_label_values(&[name, state.as_str()]).set(1);
        counts.with_label_values(&[state.as_str()]).inc();
        verdicts.with_label_values(&[name, &word(&record.verdict)]).set(1);
        if let Some(why) = &record.withheld {
            waiting.with_label_values(&[name, &word(why)]).set(1);
        }
        if record.maintenance.is_some() {
            maintenance.with_label_values(&[name]).set(1);
        }
        if let NodeState::Quarantined { unclean: Some(_), .. } = record.state {
            waiting.with_label_values(&[name, "unclean"]).set(1);
        }
        if record.mismatch().is_some() {
            mismatch.with_label_values(&[name]).set(1);
        }
    }
    Ok(())
}

/// The snake-case name of an enum's variant, the same as in JSON: one word per idea, in labels too.
fn word(variant: &impl Serialize) -> String {
    match serde_json::to_value(variant) {
        Ok(Value::String(name)) => name,
        Ok(Value::Object(fields)) => match fields.get("do") {
            Some(Value::String(action)) => action.clone(),
            Some(_) | None => fields.keys().next().cloned().unwrap_or_default(),
        },
        Ok(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_)) | Err(_) => String::new(),
    }
}

fn seconds(length: Millis) -> f64 {
    Duration::from_millis(length.0).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies::*;

    fn text(metrics: &Metrics, state: &ClusterState) -> String {
        let replicated = [(MemberId(2), LogIndex(7))].into();
        let progress = Progress { last: Some(LogIndex(9)), replicated, ..Progress::default() };
        let leader = Some(MemberId(1));
        let losses = [(
            "rack/r1".to_owned(),
            Loss { spares: [("web".parse().unwrap(), None)].into(), ..Loss::default() },
        )];
        let coverage = &Coverage { losses: losses.into(), ..Coverage::default() };
        let (me, progress) = (MemberId(1), &progress);
        metrics.text(Scene { state, me, leader, progress, coverage: Some(coverage) }).unwrap()
    }

    #[test]
    fn an_empty_cluster_shows_its_gauges() {
        let metrics = Metrics::new("demo", MemberId(1)).unwrap();
        let text = text(&metrics, &ClusterState::default());
        for line in [
            "ha_armed 0",
            "ha_raft_behind_entries{member=\"2\"} 2",
            "ha_raft_is_leader 1",
            "ha_nodes{state=\"spare\"} 0",
            "ha_failover_in_progress 0",
            "ha_instances_uncovered 0",
            "ha_losses_uncovered{kind=\"rack\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.contains("ha_build_info{cluster=\"demo\",member=\"1\",version="));
    }

    #[test]
    fn what_happened_is_counted_by_its_words() {
        let metrics = Metrics::new("demo", MemberId(1)).unwrap();
        let node: NodeId = "n1".parse().unwrap();
        let done = Outcome::Done(Seen::On);
        metrics.effect(&Action::PowerOn { node: node.clone() }, &done, Millis(300));
        metrics.heartbeats([("accepted", 5)]);
        metrics.heartbeats([("accepted", 7)]);
        metrics.answered("GET", "/v1/nodes/{name}", 200, Duration::from_millis(2));
        let step = Step::Withhold { node, why: Waiting::FencesInFlight { now: 1, max: 1 } };
        let command = Command::Lead { leader: LeaderEpoch(1), step };
        metrics.applied(&Proposal { at: Wall(0), by: "member/m1".into(), command }, &ClusterState::default());
        let text = text(&metrics, &ClusterState::default());
        for line in [
            "ha_effects_total{action=\"power_on\",result=\"done\"} 1",
            "ha_effect_duration_seconds_bucket{action=\"power_on\",le=\"0.5\"} 1",
            "ha_heartbeats_total{result=\"accepted\"} 7",
            "ha_guard_blocks_total{guard=\"fences_in_flight\"} 1",
            "ha_decisions_total{decision=\"withheld\"} 1",
            "ha_api_requests_total{code=\"200\",method=\"GET\",route=\"/v1/nodes/{name}\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn every_name_follows_the_conventions() {
        let metrics = Metrics::new("demo", MemberId(1)).unwrap();
        metrics.proposed("applied", Duration::from_millis(1));
        metrics.heartbeats([("accepted", 1)]);
        for line in
            text(&metrics, &ClusterState::default()).lines().filter(|line| line.starts_with("# TYPE "))
        {
            let words: Vec<&str> = line.split(' ').collect();
            let (name, kind) = (words[2], words[3]);
            assert!(name.starts_with("ha_"), "{name}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            assert_eq!(kind == "histogram", name.ends_with("_seconds"), "{name}");
        }
    }

    /// Every family once, so that each shows its labels.
    fn everything() -> String {
        let metrics = Metrics::new("demo", MemberId(1)).unwrap();
        let mut state = ClusterState::default();
        let node: Node = toml::from_str("name = \"n1\"\ncapabilities = { cpus = 64 }").unwrap();
        let documents = Documents { nodes: vec![node], ..Documents::default() };
        let n1: NodeId = "n1".parse().unwrap();
        let maintain = Command::Maintain { node: n1.clone(), reason: Some("fans".into()), until: None };
        let took_over = Command::TookOver { member: MemberId(1), boot: BootId(1) };
        let lead = |step| Command::Lead { leader: LeaderEpoch(3), step };
        let verdict = Verdict::Failed(Cause::Silent);
        let judge = lead(Step::Judge { node: n1.clone(), verdict, evidence: Evidence::default() });
        let withhold = lead(Step::Withhold { node: n1.clone(), why: Waiting::NothingToMove });
        let found = Box::new(Capabilities { cpus: Some(32), ..Capabilities::default() });
        let discover = lead(Step::Discover { node: n1.clone(), found });
        let describe = Command::Describe(Box::new(documents));
        let commands = [describe, maintain, took_over, judge, withhold, discover];
        for (index, command) in (1..).zip(commands) {
            let proposal = Proposal { at: Wall(0), by: "test".into(), command };
            state.apply(LogIndex(index), &proposal).unwrap();
            metrics.applied(&proposal, &state);
        }
        metrics.effect(&Action::PowerOn { node: n1 }, &Outcome::Done(Seen::On), Millis(300));
        metrics.heartbeats([("accepted", 1)]);
        metrics.answers([("sent", 1)]);
        metrics.flight(&TapeState::default());
        metrics.drift([(&"gone".parse().unwrap(), 7)]);
        metrics.drift([(&"cloud".parse().unwrap(), 2)]);
        metrics.proposed("applied", Duration::from_millis(1));
        metrics.answered("GET", "/v1/status", 200, Duration::from_millis(2));
        metrics.failovers.with_label_values(&["done"]).inc();
        metrics.cut_again.with_label_values(&["n1"]).inc();
        metrics.phase_seconds.with_label_values(&["fencing"]).observe(1.0);
        text(&metrics, &state)
    }

    #[test]
    fn the_alert_rules_ask_for_metrics_that_there_are() {
        let text = everything();
        let rules = include_str!("../../docs/alerts.yml");
        let words = rules.lines().filter(|line| line.trim_start().starts_with("expr:"));
        let words = words.flat_map(|line| line.split(|c: char| c != '_' && !c.is_ascii_alphanumeric()));
        let names: Vec<&str> = words.filter(|word| word.starts_with("ha_")).collect();
        assert!(names.len() >= 8, "{names:?}");
        for name in names {
            assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
        }
    }

    #[test]
    fn the_table_in_the_documentation_is_the_table_in_the_program() {
        let text = everything();
        let mut found = String::from(
            "# Metrics\n\nServed at `/metrics` of each member to callers with the role `reader`; \
             docs/CONFIGURATION.md shows how to scrape.\nWritten by `UPDATE_EXPECT=1 cargo test -p supervisor metrics`; \
             do not edit.\n\n| name | kind | labels | meaning |\n| --- | --- | --- | --- |\n",
        );
        for line in text.lines() {
            let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' '))
            else {
                continue;
            };
            let kind = text.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {name} "))).unwrap();
            let is_its = |line: &&str| line.starts_with(name) && !line.starts_with('#');
            let sample = text.lines().find(is_its).unwrap();
            let labels = sample
                .split_once('{')
                .and_then(|(_, rest)| rest.rsplit_once('}'))
                .map_or("", |(labels, _)| labels);
            let labels =
                labels.split("\",").filter_map(|label| label.split_once('=')).map(|(label, _)| label);
            let labels: Vec<&str> = labels.filter(|label| *label != "le").collect();
            found.push_str(&format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", ")));
        }
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/METRICS.md");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, &found).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), found);
    }
}
