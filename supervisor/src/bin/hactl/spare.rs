//! The verbs about spares and providers.
//!
//! Why it exists: spares are looked after as a stock: added when hardware comes, removed when it goes. What it never does: a
//! thing of its own; a spare is a node, and these are a node's document, deletion and release.

use crate::args::{ProviderVerb, SpareAdd, SpareVerb};
use crate::run::{Done, Failure, Session, read_input, segment};
use policies::{Documents, FenceDevice, Identity, Node, Probe, Sealed, SwitchPort};
use reqwest::Method;
use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use supervisor::api::answers::{Committed, Described, NodeDetail};
use supervisor::api::{Applying, Code, ProviderLine, Reason, SpareLine};
use supervisor::client::ClientError;
use supervisor::render::{self, Screen};

/// Where IPMI over LAN listens (IPMI 2.0 §13.1.2).
const RMCP_PORT: u16 = 623;

impl Session {
    pub(crate) async fn spare(&self, verb: SpareVerb) -> Done {
        match verb {
            SpareVerb::List(watch) => {
                let screen = |list: &Vec<SpareLine>, screen: &Screen| render::spares(list, screen);
                self.show_or_watch(watch, "/v1/spares", screen).await
            }
            SpareVerb::Add(add) => self.add_spare(*add).await,
            SpareVerb::Remove(remove) => self.delete_node(remove).await,
            SpareVerb::Release(release) => self.release(release).await,
        }
    }

    pub(crate) async fn provider(&self, verb: ProviderVerb) -> Done {
        match verb {
            ProviderVerb::List(watch) => {
                let screen = |list: &Vec<ProviderLine>, screen: &Screen| render::providers(list, screen);
                self.show_or_watch(watch, "/v1/providers", screen).await
            }
            ProviderVerb::Delete { name, reason } => {
                let path = format!("/v1/providers/{}", segment(&name));
                let committed: Committed =
                    self.client.order(Method::DELETE, &path, &Reason { reason }).await?;
                self.print(&committed, render::committed)
            }
        }
    }

    /// Applies the document of a new node. One that is there is not changed by a verb that says "add".
    async fn add_spare(&self, add: SpareAdd) -> Done {
        let path = format!("/v1/nodes/{}", segment(&add.name));
        match self.client.get::<NodeDetail>(&path).await {
            Err(ClientError::Refused(problem)) if problem.code == Code::NotThere => {}
            Err(error) => return Err(error.into()),
            Ok(known) => {
                return Err(Failure::Ended(format!(
                    "{} is there already ({}); `hactl apply` changes it",
                    add.name, known.record.state
                )));
            }
        }
        let (source, text) = read_input(&add.password_file)?;
        let password = text.lines().next().unwrap_or_default();
        if password.is_empty() {
            return Err(Failure::Usage(format!("{source}: no password in its first line")));
        }
        let documents = Documents { nodes: vec![node(&add, password)?], ..Documents::default() };
        let described: Described =
            self.client.order(Method::POST, "/v1/apply", &Applying { documents }).await?;
        self.print(&described, |described| render::described(described, &self.printer.screen()))
    }
}

fn node(add: &SpareAdd, password: &str) -> Result<Node, Failure> {
    let name = add.name.parse().map_err(|error| Failure::Usage(format!("{error}")))?;
    let port = |text: &String| {
        let (provider, port) = text.split_once('/').ok_or_else(|| {
            Failure::Usage(format!("--port {text:?} is not PROVIDER/PORT, as in rack/sw1/3"))
        })?;
        let provider =
            provider.parse().map_err(|error| Failure::Usage(format!("--port {text:?}: {error}")))?;
        Ok(SwitchPort { provider, port: port.to_owned() })
    };
    let device = FenceDevice::Ipmi {
        address: bmc_address(&add.bmc),
        user: add.user.clone(),
        password: Sealed(password.to_owned()),
        cipher_suite: add.cipher_suite,
        boot_device: add.boot_device,
        console: false,
    };
    Ok(Node {
        name,
        identity: Identity { guid: add.guid.clone(), serial: add.serial.clone() },
        domains: pairs("--domain", &add.domain)?,
        labels: pairs("--label", &add.label)?,
        fencing: vec![device],
        ports: add.port.iter().map(port).collect::<Result<_, Failure>>()?,
        boot_macs: add.boot_mac.clone(),
        // A hot spare has an agent, whose key comes with a document (`hactl apply`).
        standby: None,
        initiator: add.initiator.clone(),
        probe: Probe { tcp: add.probe_tcp.clone(), ..Probe::default() },
        agent_key: None,
        capabilities: policies::Capabilities::default(),
    })
}

fn pairs(option: &str, texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut pairs = BTreeMap::new();
    for text in texts {
        let pair = text.split_once('=').filter(|(key, value)| !key.is_empty() && !value.is_empty());
        let (key, value) =
            pair.ok_or_else(|| Failure::Usage(format!("{option} {text:?} is not KEY=VALUE")))?;
        if pairs.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(Failure::Usage(format!("{option} {key} is given twice")));
        }
    }
    Ok(pairs)
}

/// `host:port`, with the usual port if none was typed.
fn bmc_address(typed: &str) -> String {
    if let Ok(address) = typed.parse::<Ipv6Addr>() {
        return format!("[{address}]:{RMCP_PORT}");
    }
    match typed.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => typed.to_owned(),
        Some(_) | None => format!("{typed}:{RMCP_PORT}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bmc_has_its_usual_port_unless_another_is_typed() {
        for (typed, address) in [
            ("10.1.0.9", "10.1.0.9:623"),
            ("10.1.0.9:7623", "10.1.0.9:7623"),
            ("bmc-9.lan", "bmc-9.lan:623"),
            ("fd00::9", "[fd00::9]:623"),
            ("[fd00::9]", "[fd00::9]:623"),
            ("[fd00::9]:7623", "[fd00::9]:7623"),
        ] {
            assert_eq!(bmc_address(typed), address);
        }
    }

    #[test]
    fn a_pair_is_given_once_and_whole() {
        let pairs = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            super::pairs("--domain", &texts).map_err(|failure| failure.to_string())
        };
        assert_eq!(pairs(&["rack=r2", "pdu=a"]).unwrap().len(), 2);
        assert_eq!(pairs(&["rack"]), Err("hactl: --domain \"rack\" is not KEY=VALUE".to_owned()));
        assert_eq!(pairs(&["rack=1", "rack=2"]), Err("hactl: --domain rack is given twice".to_owned()));
    }
}
