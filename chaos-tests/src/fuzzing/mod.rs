//! One function for each parser that faces the network or a file: bytes of strangers in, and what must hold of them.
//!
//! What this is: the targets of `make fuzz`, and the same functions for the property tests and the replay of the kept
//! corpora (`tests/fuzzing.rs`). Why it exists: three ways to find a mistake should not be three descriptions of it.
//! What it never does: no target keeps anything between two calls, opens a socket or a file, or says the same bytes
//! differently twice.
//!
//! A target panics if something does not hold, and gives true if its parser took the bytes (or, where the bytes are a
//! script, if something came of it). Its seeds are valid: it must take each of them. `chaos-tests/fuzz/README.md` says
//! how to add one.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a target says by panicking that something is wrong"
)]

#[path = "../../../policies/tests/any_log/mod.rs"]
mod any_log;
mod bmc;
mod heartbeat;
mod ipmi;
mod members;
mod redfish;
mod script;
mod session;
mod store;
mod texts;

/// A parser under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of the corpus, and of the target of `make fuzz`.
    pub name: &'static str,
    /// Gives it bytes; true if it took them.
    pub run: fn(&[u8]) -> bool,
    /// Valid inputs to begin from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 17] = [
    Target { name: "rmcp", run: ipmi::rmcp, seeds: ipmi::rmcp_seeds },
    Target { name: "rmcp_session", run: session::run, seeds: session::seeds },
    Target { name: "ipmi_answer", run: ipmi::answer, seeds: ipmi::answer_seeds },
    Target { name: "bmc", run: bmc::run, seeds: bmc::seeds },
    Target { name: "redfish", run: redfish::run, seeds: redfish::seeds },
    Target { name: "heartbeat", run: heartbeat::run, seeds: heartbeat::seeds },
    Target { name: "member_frame", run: members::frame, seeds: members::frame_seeds },
    Target { name: "log_record", run: members::log_record, seeds: members::log_record_seeds },
    Target { name: "snapshot", run: members::snapshot, seeds: members::snapshot_seeds },
    Target { name: "store_file", run: store::run, seeds: store::seeds },
    Target { name: "documents_toml", run: texts::documents, seeds: texts::documents_seeds },
    Target { name: "policy_set", run: texts::policy_set, seeds: texts::policy_set_seeds },
    Target { name: "agent_config", run: texts::agent_config, seeds: texts::agent_config_seeds },
    Target { name: "member_config", run: texts::member_config, seeds: texts::member_config_seeds },
    Target { name: "tokens_file", run: texts::tokens, seeds: texts::tokens_seeds },
    Target { name: "api_body", run: texts::body, seeds: texts::body_seeds },
    Target { name: "commands", run: members::commands, seeds: members::commands_seeds },
];

/// Gives the target of this name bytes.
///
/// # Panics
/// If there is no such target, or if something does not hold.
pub fn run(name: &str, data: &[u8]) -> bool {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of this name");
    (target.run)(data)
}
