//! The body of the failover supervisor: the daemon `ha-supervisord` and the command line `hactl`.
//!
//! What this is: everything that touches the outside: configuration, certificates, the HTTPS API, the console's
//! screens, probes, the executor, the loop that feeds the brain. Why it exists: `policies` decides and does nothing;
//! someone has to do. What it never does: decide. Each choice that matters is a value that `policies` returned.

pub mod api;
pub mod auth;
pub mod bundle;
pub mod client;
pub mod clock;
pub mod clouds;
pub mod clouds_yaml;
pub mod config;
mod consoles;
pub mod context;
pub mod daemon;
pub mod document;
mod drift;
pub mod executor;
pub mod files;
pub mod flight;
pub mod ingest;
pub mod init;
pub mod metrics;
pub mod notify;
pub mod outside;
#[doc(hidden)]
pub mod parse;
pub mod pki;
mod poll;
pub mod probe;
pub mod progress;
pub mod render;
pub mod runtime;
pub mod seal;
pub mod still;
pub mod telemetry;
pub mod tenants;
pub mod tls;
