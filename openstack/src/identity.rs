//! Whom a token stands for: what Keystone says of one that somebody has shown us (Identity API v3, `GET /auth/tokens`).
//!
//! Why it exists: who has an account in the cloud needs none of ours. What it never does: keep the token, show it in an error or in
//! the log, or believe it without asking.

use crate::auth::{Project, Role};
use crate::error::CallError;
use crate::exchange::parse;
use crate::ids::ProjectId;
use crate::session::Cloud;
use jiff::Timestamp;
use serde::Deserialize;
use std::collections::BTreeSet;
use tokio::time::Instant;
use zeroize::Zeroizing;

/// Whom a token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The user's id.
    pub user: String,
    /// The user's name, which only its domain knows.
    pub user_name: String,
    /// What it is for; absent: for a domain, for the whole system or for nothing yet.
    pub project: Option<ProjectId>,
    /// Names of the roles there, implied ones included.
    pub roles: BTreeSet<String>,
    /// When it ends, by Keystone's clock.
    pub expires: Timestamp,
}

#[derive(Deserialize)]
struct Answer {
    token: Body,
}

#[derive(Deserialize)]
struct Body {
    user: User,
    project: Option<Project>,
    #[serde(default)]
    roles: Vec<Role>,
    expires_at: String,
}

#[derive(Deserialize)]
struct User {
    id: String,
    name: String,
}

impl Cloud {
    /// Whom this token stands for; `None`: Keystone does not know it, or it is over. Our own user needs the role `service` (or `admin`) for
    /// the question. A token that is bound to certain requests (access rules of an application credential) counts as unknown, as Keystone
    /// has it for who does not say that it heeds these.
    ///
    /// # Errors
    /// [`CallError`]; the token is in none.
    pub async fn subject(
        &self,
        shown: &Zeroizing<String>,
        deadline: Instant,
    ) -> Result<Option<Subject>, CallError> {
        let doing = "ask whom a token stands for";
        let body = match self.look_up(doing, shown, deadline).await {
            Ok(body) => body,
            Err(error) if error.is_absent() => return Ok(None),
            Err(error) => return Err(error),
        };
        let Answer { token: Body { user, project, roles, expires_at } } = parse(doing.to_owned(), &body)?;
        let expires = expires_at.parse().map_err(|error| CallError::Unclear {
            doing: doing.to_owned(),
            why: format!("its time {expires_at:?}: {error}"),
        })?;
        Ok(Some(Subject {
            user: user.id,
            user_name: user.name,
            project: project.map(|project| project.id),
            roles: roles.into_iter().map(|role| role.name).collect(),
            expires,
        }))
    }
}
