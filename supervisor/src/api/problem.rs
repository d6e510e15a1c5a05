//! How the API says no: one JSON form, one status for each kind.
//!
//! Why it exists: whoever reads an error needs to know what was wrong, whether anything was changed, and what to do.
//! What it never does: say anything of a secret or of who else may ask.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use policies::Rejected;
use raft_store::{MemberError, ProposeError};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An answer that says no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What kind of no.
    pub code: Code,
    /// What is wrong, and whether anything was changed.
    pub error: String,
    /// What to do.
    pub hint: String,
}

/// What kind of no, for programs. Each has one HTTP status and one exit code of `hactl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request cannot be right, whatever the state: 400.
    BadRequest,
    /// Nobody has said who they are: 401.
    NotAuthenticated,
    /// They may not do this: 403.
    NotAllowed,
    /// There is no such thing: 404.
    NotThere,
    /// The cluster refused; nothing was changed: 409.
    Rejected,
    /// It would leave without cover what is covered now; nothing was changed, and `?force=true` does it: 409.
    BreaksCoverage,
    /// More than the limit: 413.
    TooLarge,
    /// No quorum; nothing was changed, and it may be tried again: 503.
    NoQuorum,
    /// Nothing was changed, and a moment later it will go: 503.
    NotYet,
    /// It may have happened: 503.
    OutcomeUnknown,
    /// This member cannot go on: 500.
    Broken,
}

impl Code {
    fn status(self) -> StatusCode {
        match self {
            Code::BadRequest => StatusCode::BAD_REQUEST,
            Code::NotAuthenticated => StatusCode::UNAUTHORIZED,
            Code::NotAllowed => StatusCode::FORBIDDEN,
            Code::NotThere => StatusCode::NOT_FOUND,
            Code::Rejected | Code::BreaksCoverage => StatusCode::CONFLICT,
            Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Code::NoQuorum | Code::NotYet | Code::OutcomeUnknown => StatusCode::SERVICE_UNAVAILABLE,
            Code::Broken => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl Problem {
    /// The request cannot be right, whatever the state: 400.
    pub fn bad_request(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Problem::new(Code::BadRequest, error, hint)
    }

    /// There is no such thing: 404.
    pub fn not_there(what: &str, list: &str) -> Self {
        Problem::new(
            Code::NotThere,
            format!("there is no {what}"),
            format!("`hactl {list}` shows what there is"),
        )
    }

    /// The state machine refused: 409. Nothing was changed.
    pub fn rejected(why: &Rejected) -> Self {
        let hint = match why {
            Rejected::PolicyChanged { .. } => "read the policy again and repeat your change",
            Rejected::PointOfNoReturn { .. } => {
                "it goes forward from here; `hactl explain` shows how far it is"
            }
            Rejected::NotArmed => "`hactl arm --reason ...` arms it",
            Rejected::NotThere { .. } => {
                "`hactl node list`, `hactl instance list` and `hactl policy list` show what there is"
            }
            Rejected::BadPolicy { .. }
            | Rejected::Ambiguous { .. }
            | Rejected::Conflict { .. }
            | Rejected::InUse { .. }
            | Rejected::TooMany { .. }
            | Rejected::OldLeadership { .. }
            | Rejected::PlanExists { .. }
            | Rejected::WrongState { .. }
            | Rejected::WrongPhase { .. }
            | Rejected::NotAStep { .. }
            | Rejected::NotProven { .. }
            | Rejected::AlreadyIntended { .. }
            | Rejected::BadValue { .. }
            | Rejected::NothingLapsed
            | Rejected::EndedAlready { .. } => "nothing was changed",
        };
        Problem::new(Code::Rejected, why.to_string(), hint)
    }

    /// It would leave without cover what is covered now: 409.
    pub(super) fn breaks_coverage(count: usize, told: &[String]) -> Self {
        let what = if count == 1 { "one that has it".to_owned() } else { format!("{count} that have it") };
        Problem::new(
            Code::BreaksCoverage,
            format!("this would leave {what} without cover, so nothing was changed: {}", told.join("; ")),
            "`--force` (`?force=true`) does it all the same; `hactl coverage` shows what is covered now",
        )
    }

    /// No quorum, and the request was not carried out: 503.
    pub fn no_quorum() -> Self {
        Problem::new(
            Code::NoQuorum,
            "this member sees no leader: the cluster has no quorum, and nothing was changed",
            "look at the members with `hactl member list`; a majority of the voters must run and reach each other",
        )
    }

    /// The request was handed over and no answer came: 503.
    pub fn outcome_unknown() -> Self {
        Problem::new(
            Code::OutcomeUnknown,
            "the cluster did not confirm in time: the outcome is unknown, it may still happen",
            "look whether it happened (`hactl events`) before you try again",
        )
    }

    /// Why a proposal has no result.
    pub(super) fn of_propose(error: &ProposeError) -> Self {
        match error {
            ProposeError::NotLeader { leader: Some(leader) } => {
                let error = format!("{} has just become the leader; nothing was changed", leader.id);
                Problem::new(Code::NotYet, error, "try again")
            }
            ProposeError::NotLeader { leader: None } => Problem::no_quorum(),
            ProposeError::OutcomeUnknown { .. } => Problem::outcome_unknown(),
            ProposeError::TooLarge { .. } => {
                let error = format!("{error}; nothing was changed");
                Problem::new(Code::TooLarge, error, "apply fewer objects at once")
            }
            ProposeError::Fatal(_) => Problem::broken(error.to_string()),
        }
    }

    /// Why the members did not change.
    pub(super) fn of_member(error: &MemberError) -> Self {
        match error {
            MemberError::NotLeader(error) => Problem::of_propose(error),
            MemberError::NotAMember(id) => Problem::not_there(&format!("member {id}"), "member list"),
            MemberError::Taken(_) | MemberError::NotAVoter(_) | MemberError::LastVoter(_) => {
                Problem::new(Code::Rejected, error.to_string(), "nothing was changed")
            }
            MemberError::Behind { .. } | MemberError::Busy => {
                Problem::new(Code::NotYet, format!("{error}; nothing was changed"), "try again in a moment")
            }
            MemberError::NotElected { .. } => {
                Problem::new(Code::Rejected, error.to_string(), "`hactl member list` shows who leads now")
            }
            MemberError::OutcomeUnknown { .. } => Problem::outcome_unknown(),
            MemberError::Fatal(_) => Problem::broken(error.to_string()),
        }
    }

    /// This member cannot go on: 500.
    pub fn broken(error: impl Into<String>) -> Self {
        let hint = "look at the log of this member; ask another member meanwhile";
        Problem::new(Code::Broken, error, hint)
    }

    /// Any other kind.
    pub fn new(code: Code, error: impl Into<String>, hint: impl Into<String>) -> Self {
        Problem { code, error: error.into(), hint: hint.into() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.code.status(), Json(self)).into_response()
    }
}
