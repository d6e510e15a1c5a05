//! `--wait`: after an order, looks until it is done, and says on standard error how it goes.
//!
//! Why it exists: an order is answered when it is committed, which is long before it is carried out. What it never does:
//! order again, or take silence for success: whoever waited in vain gets the exit code for "unknown".

use crate::feed::Feed;
use crate::run::{Done, Failure, Session, segment};
use openstack::CallError;
use policies::{LogIndex, MemberId, NodeId, PlanId};
use std::collections::BTreeSet;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;
use supervisor::api::Code;
use supervisor::api::answers::{FailoverDetail, FailoverLine, InstanceDetail, NodeDetail, Status};
use supervisor::client::ClientError;
use supervisor::progress::{self, Progress};
use tokio::time::Instant;

/// How long to wait for an event before looking anyway: beliefs and waits change without one.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// The same while a member comes or goes: that it catches up is no event, and takes a second or two.
const LOOK_AT_MEMBERS_AGAIN: Duration = Duration::from_millis(500);

/// What was said already, so that each line is said once.
#[derive(Default)]
struct Told {
    lines: BTreeSet<String>,
    last: String,
}

impl Told {
    fn tell(&mut self, lines: Vec<String>) -> Result<(), Failure> {
        for line in lines {
            self.last.clone_from(&line);
            if self.lines.insert(line) {
                let said = writeln!(std::io::stderr(), "{}", self.last);
                said.map_err(|error| Failure::local("write to standard error", &error))?;
            }
        }
        Ok(())
    }
}

impl Session {
    /// Looks until it is done, has ended otherwise, or `limit` is over: after each event, and after `again` without one.
    /// Without a limit nobody asked to wait.
    async fn wait(
        &self,
        limit: Option<Duration>,
        again: Duration,
        look: impl AsyncFn() -> Result<Progress, ClientError>,
    ) -> Done {
        let Some(limit) = limit else { return Ok(ExitCode::SUCCESS) };
        let until = Instant::now() + limit;
        let mut feed = Feed::from_now(&self.client);
        let mut told = Told::default();
        loop {
            // Listening begins before the look, so that nothing falls between.
            let looked = tokio::time::timeout_at(until, async {
                feed.listen().await?;
                look().await
            });
            match looked.await {
                Ok(Ok(Progress::UnderWay(lines))) => told.tell(lines)?,
                Ok(Ok(Progress::Done(lines))) => {
                    told.tell(lines)?;
                    return Ok(ExitCode::SUCCESS);
                }
                Ok(Ok(Progress::Ended(lines, why))) => {
                    told.tell(lines)?;
                    return Err(Failure::Ended(why));
                }
                Ok(Err(error)) if may_pass(&error) => {
                    told.tell(vec![format!("still waiting: {}", policies::causes(&error))])?;
                }
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => {}
            }
            if Instant::now() >= until {
                return Err(Failure::TimeOver { limit, last: told.last });
            }
            feed.something(until.min(Instant::now() + again)).await?;
        }
    }

    pub(crate) async fn wait_for_evacuation(
        &self,
        limit: Option<Duration>,
        order: LogIndex,
        name: &str,
    ) -> Done {
        let path = format!("/v1/instances/{}", segment(name));
        let look = async || {
            let detail: InstanceDetail = self.client.get(&path).await?;
            let plans = self.plans(order, &detail.failovers, |_| true).await?;
            Ok(progress::evacuation(order, &detail, &plans))
        };
        self.wait(limit, LOOK_AGAIN, look).await
    }

    pub(crate) async fn wait_for_approval(
        &self,
        limit: Option<Duration>,
        order: LogIndex,
        name: &str,
    ) -> Done {
        let path = format!("/v1/instances/{}", segment(name));
        let look = async || {
            let before: InstanceDetail = self.client.get(&path).await?;
            let node = format!("/v1/nodes/{}", before.record.node);
            let node = match self.client.get::<NodeDetail>(&node).await {
                Ok(node) => Some(node),
                // Nodes are not a tenant's to see.
                Err(error) if is_refused_as(&error, Code::NotAllowed) => None,
                Err(error) => return Err(error),
            };
            let detail: InstanceDetail = self.client.get(&path).await?;
            let plans = self.plans(order, &detail.failovers, |_| true).await?;
            Ok(progress::approval(order, node.as_ref(), &detail, &plans))
        };
        self.wait(limit, LOOK_AGAIN, look).await
    }

    pub(crate) async fn wait_for_fence(&self, limit: Option<Duration>, order: LogIndex, name: &str) -> Done {
        let path = format!("/v1/nodes/{}", segment(name));
        let look = async || {
            // The node first: an order that is gone by then has a failover that is seen after it.
            let detail: NodeDetail = self.client.get(&path).await?;
            let all: Vec<FailoverLine> = self.client.get("/v1/failovers").await?;
            let node: &NodeId = &detail.record.node.name;
            let plans = self.plans(order, &all, |line| line.from == *node).await?;
            Ok(progress::fence(order, &detail, &plans))
        };
        self.wait(limit, LOOK_AGAIN, look).await
    }

    pub(crate) async fn wait_for_release(&self, limit: Option<Duration>, name: &str) -> Done {
        let path = format!("/v1/nodes/{}", segment(name));
        let look = async || Ok(progress::release(&self.client.get::<NodeDetail>(&path).await?));
        self.wait(limit, LOOK_AGAIN, look).await
    }

    pub(crate) async fn wait_for_hand(&self, limit: Option<Duration>, order: LogIndex, name: &str) -> Done {
        let path = format!("/v1/nodes/{}", segment(name));
        let look = async || Ok(progress::by_hand(order, &self.client.get::<NodeDetail>(&path).await?));
        self.wait(limit, LOOK_AGAIN, look).await
    }

    pub(crate) async fn wait_for_backup(&self, limit: Option<Duration>, order: LogIndex, name: &str) -> Done {
        let path = format!("/v1/instances/{}", segment(name));
        let look = async || Ok(progress::backup(order, &self.client.get::<InstanceDetail>(&path).await?));
        self.wait(limit, LOOK_AGAIN, look).await
    }

    pub(crate) async fn wait_for_member(&self, limit: Option<Duration>, id: MemberId, learner: bool) -> Done {
        let look = async || Ok(progress::joined(id, learner, &self.leaders_status().await?));
        self.wait(limit, LOOK_AT_MEMBERS_AGAIN, look).await
    }

    pub(crate) async fn wait_for_removal(&self, limit: Option<Duration>, id: MemberId) -> Done {
        let look = async || Ok(progress::removed(id, &self.leaders_status().await?));
        self.wait(limit, LOOK_AT_MEMBERS_AGAIN, look).await
    }

    pub(crate) async fn wait_for_transfer(&self, limit: Option<Duration>, to: MemberId) -> Done {
        let look = async || Ok(progress::transferred(to, &self.leaders_status().await?));
        self.wait(limit, LOOK_AT_MEMBERS_AGAIN, look).await
    }

    async fn leaders_status(&self) -> Result<Status, ClientError> {
        self.client.get("/v1/status").await
    }

    /// The wanted failovers from after the order in full, oldest first.
    async fn plans(
        &self,
        order: LogIndex,
        newest_first: &[FailoverLine],
        wanted: impl Fn(&FailoverLine) -> bool,
    ) -> Result<Vec<FailoverDetail>, ClientError> {
        let after = newest_first.iter().rev().filter(|line| line.id.0 > order.0 && wanted(line));
        let ids: Vec<PlanId> = after.map(|line| line.id).collect();
        let mut plans = vec![];
        for id in ids {
            plans.push(self.client.get(&format!("/v1/failovers/{id}")).await?);
        }
        Ok(plans)
    }
}

pub(crate) fn is_refused_as(error: &ClientError, code: Code) -> bool {
    matches!(error, ClientError::Refused(problem) if problem.code == code)
}

/// Whether it makes sense to look again after this.
pub(crate) fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable(_) => true,
        ClientError::Refused(problem) => match problem.code {
            Code::NoQuorum | Code::NotYet | Code::OutcomeUnknown | Code::Broken => true,
            Code::BadRequest
            | Code::NotAuthenticated
            | Code::NotAllowed
            | Code::NotThere
            | Code::Rejected
            | Code::BreaksCoverage
            | Code::TooLarge => false,
        },
        ClientError::Keystone(error) => {
            !matches!(error, CallError::Refused { .. } | CallError::Unusable { .. })
        }
        ClientError::BadAnswer { .. }
        | ClientError::Clouds(_)
        | ClientError::Context(_)
        | ClientError::File(_)
        | ClientError::Document(_)
        | ClientError::Tls(_) => false,
    }
}
