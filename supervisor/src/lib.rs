//! The body of the failover supervisor: the daemon `ha-supervisord` and the command line `hactl`.
//!
//! What this is: everything that touches the outside: configuration, certificates, the HTTPS API, the console's
//! screens, probes, the executor, the loop that feeds the brain. Why it exists: `policies` decides and does nothing;
//! someone has to do. What it never does: decide. Each choice that matters is a value that `policies` returned.

pub mod auth;
pub mod config;
pub mod document;
pub mod files;
pub mod init;
pub mod metrics;
pub mod notify;
pub mod pki;
pub mod render;
pub mod seal;
pub mod telemetry;
pub mod tls;
