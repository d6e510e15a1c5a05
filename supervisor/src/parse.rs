//! Entry points for the fuzz harness (`chaos_tests::fuzzing`): readers of strangers' bytes that are private otherwise.
//!
//! Why it exists: the heartbeat table, the bodies of requests and the tokens file have no other way in without a
//! socket or a file. What it never does: be used by the product, or add anything to what it lets in to.

pub use crate::ingest::Table;

use crate::api::Problem;
use crate::auth::{self, AuthError};
use serde::de::DeserializeOwned;
use std::path::Path;

/// Reads the body of a request.
///
/// # Errors
/// What the caller is answered.
pub fn body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    crate::api::read_json(bytes)
}

/// Reads a tokens file; gives the names of the callers in it.
///
/// # Errors
/// [`AuthError`] if it is no tokens file.
pub fn tokens(text: &str) -> Result<Vec<String>, AuthError> {
    let tokens = auth::parse(Path::new("tokens.toml"), text)?;
    Ok(tokens.into_iter().map(|(caller, _)| caller.name).collect())
}
