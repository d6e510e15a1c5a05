//! Requests about what a cloud has: read just now, and compared with what is described.
//!
//! Why it exists: an import is looked at before it is made, and what a cloud has become since then is to be seen. What it never
//! does: change anything. What is to be described goes through `apply`, as if a person had written it.

use super::read::parse;
use super::{ApiState, Code, Problem};
use crate::clock;
use crate::runtime::Question;
use crate::seal::hide_node;
use axum::Json;
use axum::extract::{Path, Query, State};
use policies::{
    ClusterState, Command, Difference, Differences, Documents, Drift, Field, LogIndex, Proposal, Provider,
    ProviderId, ProviderKind, Remark, first_of,
};
use provisioning::inventory::{Census, SpareRule, survey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

/// Of the time for a request, the part in which the cloud is read, in tenths. The rest is for comparing (a thousand nodes take
/// milliseconds) and for the answer; without it the caller would learn only that there was no answer in time.
const READING_TENTHS: u64 = 9;

/// What is to be compared.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// Which of the cloud's free nodes are to be spares: `none` (if it is left out), `available`, `resource-class=CLASS`, `trait=TRAIT`.
    spares: Option<String>,
}

/// A cloud, against what is described.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProviderInventory {
    /// The cloud.
    #[schema(value_type = String)]
    pub provider: ProviderId,
    /// How many nodes it has.
    pub nodes: u64,
    /// Each object that is not the same in both.
    pub differences: Vec<DifferenceLine>,
    /// The cloud's nodes that nobody has described and that are not proposed, with the reason.
    pub left_out: Vec<RemarkLine>,
    /// What was not compared, or not understood.
    pub notes: Vec<RemarkLine>,
    /// Documents of what is new, for `apply`.
    #[schema(value_type = Object)]
    pub additions: Documents,
    /// Documents of what is described already, as the cloud has it now; secrets are hidden, and kept by `apply`.
    #[schema(value_type = Object)]
    pub changes: Documents,
    /// Why `apply` would refuse the additions as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

impl ProviderInventory {
    /// How many objects that are described are other at the cloud, or gone.
    pub fn drifted(&self) -> usize {
        self.differences.iter().filter(|line| line.how != How::New).count()
    }
}

/// An object that is not the same in both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DifferenceLine {
    /// `node/n1`, `instance/web`, ...
    pub object: String,
    /// How it differs.
    pub how: How,
    /// The keys that do, if it is changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldLine>,
}

/// How an object differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// Nobody has described it.
    New,
    /// It is described, and otherwise.
    Changed,
    /// It is described, and the cloud has it no more.
    Gone,
}

/// A key that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldLine {
    /// The key, as in a document.
    pub key: String,
    /// What is described; empty: nothing.
    pub ours: String,
    /// What the cloud has; empty: nothing.
    pub theirs: String,
}

/// Something that is to be said of an object or of several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RemarkLine {
    /// Of which.
    pub about: String,
    /// What.
    pub text: String,
}

/// Reads a cloud, and says what of it is not as described.
#[utoipa::path(get, path = "/v1/providers/{name}/inventory", params(("name" = String, Path), Asked), responses((status = 200, body = ProviderInventory), (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn compare(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(Asked { spares }): Query<Asked>,
) -> Result<Json<ProviderInventory>, Problem> {
    let name: ProviderId = parse(&name)?;
    let rule = spares.as_deref().unwrap_or("none").parse::<SpareRule>();
    let rule = rule.map_err(|error| Problem::bad_request(error.to_string(), "nothing was read"))?;
    let provider = state.store.read(|committed| committed.providers.get(&name).cloned());
    let provider =
        provider.ok_or_else(|| Problem::not_there(&format!("provider {name}"), "provider list"))?;
    if !matches!(provider.kind, ProviderKind::Openstack { .. }) {
        let why = format!("provider {name} is not of the kind `openstack`");
        return Err(Problem::bad_request(why, "only a cloud keeps an inventory of nodes"));
    }
    let census = census(&state, &name).await?;
    // A copy, for the state's lock must not be held as long as this takes.
    let committed = state.store.read(Clone::clone);
    let found = tokio::task::spawn_blocking(move || answer(&provider, &rule, &census, &committed)).await;
    found.map(Json).map_err(|error| Problem::broken(format!("compare the cloud: {error}")))
}

async fn census(state: &ApiState, name: &ProviderId) -> Result<Census, Problem> {
    let limit = Duration::from_millis(state.config.api.request_time_max.0 / 10 * READING_TENTHS);
    let (answer, census) = oneshot::channel();
    let gone = || Problem::new(Code::NotYet, "this member is starting or stopping", "try again");
    let question = Question::Census(name.clone(), Instant::now() + limit, answer);
    state.ask.send(question).await.map_err(|_| gone())?;
    let census = census.await.map_err(|_| gone())?;
    census.map_err(|why| {
        let hint = "nothing was changed; docs/openstack.md says what the cloud has to allow";
        Problem::new(Code::Rejected, format!("read what {name} has: {why}"), hint)
    })
}

fn answer(provider: &Provider, rule: &SpareRule, census: &Census, state: &ClusterState) -> ProviderInventory {
    let found = survey(provider, rule, census).against(state);
    let refused = refusal(state, &found.additions);
    let Differences { lines, additions, mut changes, left_out, notes } = found;
    changes.nodes.iter_mut().for_each(hide_node);
    ProviderInventory {
        provider: provider.name.clone(),
        nodes: census.everything.nodes.len() as u64,
        differences: lines.into_iter().map(DifferenceLine::from).collect(),
        left_out: gathered(left_out),
        notes: gathered(notes),
        additions,
        changes,
        refused,
    }
}

/// Tries the additions on a copy of the state: two nodes with one initiator, say, are only seen together.
fn refusal(state: &ClusterState, additions: &Documents) -> Option<String> {
    let command = Command::Describe(Box::new(additions.clone()));
    let proposal = Proposal { at: clock::wall(), by: "import".to_owned(), command };
    let tried = state.clone().apply(LogIndex(state.applied.0 + 1), &proposal);
    tried.err().map(|why| why.to_string())
}

/// Objects that a remark names before it counts the rest.
const NAMED_MAX: usize = 5;

/// One line for each text, whatever the number of objects that it is about.
fn gathered(remarks: Vec<Remark>) -> Vec<RemarkLine> {
    let mut about: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for remark in remarks {
        about.entry(remark.text).or_default().push(remark.about);
    }
    let line = |(text, about): (String, Vec<String>)| RemarkLine {
        about: first_of(about, NAMED_MAX).join(", "),
        text,
    };
    about.into_iter().map(line).collect()
}

impl From<Difference> for DifferenceLine {
    fn from(Difference { object, drift }: Difference) -> DifferenceLine {
        let (how, fields) = match drift {
            Drift::New => (How::New, vec![]),
            Drift::Changed(fields) => (How::Changed, fields),
            Drift::Gone => (How::Gone, vec![]),
        };
        let line = |Field { key, ours, theirs }: Field| FieldLine { key: key.to_owned(), ours, theirs };
        DifferenceLine { object, how, fields: fields.into_iter().map(line).collect() }
    }
}
