//! Cargo, run by a program that cargo runs.
//!
//! Why it exists: what cargo tells a program about its package would make build scripts think that they are that package's, and
//! everything behind them would be built anew. What it never does: say what to build.

use std::process::Command;

/// What the names begin with of the variables that cargo sets for a package.
const OF_A_PACKAGE: [&str; 4] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_"];

/// The cargo that runs us, or the one in the path, as if it was started by hand.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if OF_A_PACKAGE.iter().any(|own| text.starts_with(own)) {
            cargo.env_remove(&name);
        }
    }
    cargo
}
