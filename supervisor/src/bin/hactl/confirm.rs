//! Asking before what cannot be taken back, or takes cover away.
//!
//! Why it exists: a wrong line of the shell's history must not fence a node, and whoever pulls a machine out must stand
//! before the right one. What it never does: show the serial number that is asked for.

use crate::args::Yes;
use crate::run::{Failure, Session, segment};
use crate::wait::is_refused_as;
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{BufRead, IsTerminal, Read, Write};
use supervisor::api::answers::{InstanceDetail, NodeDetail};
use supervisor::api::{Code, Problem};
use supervisor::client::ClientError;

/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 256;

/// What must be typed before a dangerous verb is carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Typed {
    /// The name of what it is about.
    Name(String),
    /// The serial number that is printed on this node.
    Serial { node: String, serial: String },
}

impl Typed {
    /// What is asked for.
    fn wish(&self) -> String {
        match self {
            Typed::Name(_) => "its name".to_owned(),
            Typed::Serial { node, .. } => format!("the serial number that is printed on {node}"),
        }
    }

    /// Whether this was typed. Printed serial numbers are in capitals, and people type as they like.
    fn check(&self, typed: &str) -> Result<(), Failure> {
        let (is_it, wanted) = match self {
            Typed::Name(name) => (typed == name, format!("{name:?}")),
            Typed::Serial { node, serial } => {
                (typed.eq_ignore_ascii_case(serial), format!("the serial number of {node}"))
            }
        };
        match is_it {
            true => Ok(()),
            false => Err(Failure::Usage(format!("{typed:?} is not {wanted}: nothing was done"))),
        }
    }
}

impl Session {
    /// Before something is done to a node: its serial number must be typed if it is known, else its name.
    pub(crate) async fn confirm_node(&self, node: &str, yes: Yes, warning: &str) -> Result<(), Failure> {
        let typed = self.typed_for(node, node).await?;
        self.confirm(node, &typed, yes, warning)
    }

    /// Before something is done to the node on which this instance runs.
    pub(crate) async fn confirm_node_of(
        &self,
        instance: &str,
        yes: Yes,
        warning: &str,
    ) -> Result<(), Failure> {
        let path = format!("/v1/instances/{}", segment(instance));
        let typed = match self.client.get::<InstanceDetail>(&path).await {
            Ok(detail) => self.typed_for(detail.record.node.as_str(), instance).await?,
            Err(error) if is_refused_as(&error, Code::NotThere) => Typed::Name(instance.to_owned()),
            Err(error) => return Err(error.into()),
        };
        self.confirm(instance, &typed, yes, warning)
    }

    /// Before something is done to anything else: its name must be typed.
    pub(crate) fn confirm_name(&self, name: &str, yes: Yes, warning: &str) -> Result<(), Failure> {
        self.confirm(name, &Typed::Name(name.to_owned()), yes, warning)
    }

    /// What is not there will be refused with its name by whoever gets the order.
    async fn typed_for(&self, node: &str, name: &str) -> Result<Typed, Failure> {
        let path = format!("/v1/nodes/{}", segment(node));
        let serial = match self.client.get::<NodeDetail>(&path).await {
            Ok(detail) => detail.record.node.identity.serial.clone(),
            // Nor does a tenant stand before a node: nodes are not its to see.
            Err(error)
                if is_refused_as(&error, Code::NotThere) || is_refused_as(&error, Code::NotAllowed) =>
            {
                None
            }
            Err(error) => return Err(error.into()),
        };
        Ok(match serial {
            Some(serial) => Typed::Serial { node: node.to_owned(), serial },
            None => Typed::Name(name.to_owned()),
        })
    }

    fn confirm(&self, name: &str, typed: &Typed, yes: Yes, warning: &str) -> Result<(), Failure> {
        // Whoever has several clusters must see which one is meant.
        let cluster = self.cluster().map(|cluster| format!(" in {cluster}")).unwrap_or_default();
        match yes.yes {
            Some(yes) => typed.check(&yes),
            None if std::io::stdin().is_terminal() => {
                let answer = ask(&format!("{name}{cluster}: {warning}. Type {} to go on: ", typed.wish()))?;
                typed.check(&answer)
            }
            None => Err(Failure::Usage(match typed {
                Typed::Name(name) => {
                    format!("{name}{cluster}: {warning}; without a terminal say --yes {name}")
                }
                Typed::Serial { .. } => {
                    format!("{name}{cluster}: {warning}; without a terminal say --yes and {}", typed.wish())
                }
            })),
        }
    }

    /// Gives an order that may take cover away: by force only if it was asked for, or somebody at the terminal says so.
    pub(crate) async fn order_gated<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        force: bool,
    ) -> Result<A, Failure> {
        let by_force = format!("{path}?force=true");
        let first = if force { &by_force } else { path };
        match self.client.order(method.clone(), first, body).await {
            Err(ClientError::Refused(problem)) if problem.code == Code::BreaksCoverage => {
                match std::io::stdin().is_terminal() && does_it_anyway(&problem)? {
                    true => Ok(self.client.order(method, &by_force, body).await?),
                    false => Err(ClientError::Refused(problem).into()),
                }
            }
            answer => Ok(answer?),
        }
    }
}

fn does_it_anyway(problem: &Problem) -> Result<bool, Failure> {
    let answer = ask(&format!("{}\nDo it anyway? [y/N] ", problem.error))?;
    Ok(["y", "yes"].contains(&answer.to_ascii_lowercase().as_str()))
}

fn ask(question: &str) -> Result<String, Failure> {
    write!(std::io::stderr(), "{question}").map_err(|error| Failure::local("ask", &error))?;
    let mut line = String::new();
    let read = std::io::stdin().lock().take(ANSWER_BYTES_MAX).read_line(&mut line);
    read.map_err(|error| Failure::local("read the answer", &error))?;
    Ok(line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_is_typed_as_printed_and_never_shown() {
        let serial = Typed::Serial { node: "n1".into(), serial: "CZJ0123456".into() };
        assert!(serial.check("czj0123456").is_ok());
        let refused = serial.check("n1").unwrap_err().to_string();
        assert_eq!(refused, "hactl: \"n1\" is not the serial number of n1: nothing was done");
        assert!(!serial.wish().contains("CZJ"), "{}", serial.wish());
        let name = Typed::Name("n1".into());
        assert!(name.check("n1").is_ok() && name.check("N1").is_err());
    }
}
