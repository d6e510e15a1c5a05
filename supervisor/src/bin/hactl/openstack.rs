//! `hactl openstack import` and `drift`: what a cloud has, looked at and taken over.

use crate::args::OpenstackVerb;
use crate::output::say;
use crate::run::{Done, Failure, Session, segment};
use policies::Documents;
use reqwest::Method;
use std::process::ExitCode;
use supervisor::api::answers::Described;
use supervisor::api::{Applying, ProviderInventory, RemarkLine};
use supervisor::render;

impl Session {
    pub(crate) async fn openstack(&self, verb: OpenstackVerb) -> Done {
        match verb {
            OpenstackVerb::Import { provider, spares, document, apply, change, force } => {
                let found = self.inventory(&provider, &spares).await?;
                match (document, apply) {
                    (true, _) => say(&self::document(&found)?),
                    (false, true) => self.take(found, &change, force.force).await,
                    (false, false) => {
                        self.print(&found, |found| render::import(found, &self.printer.screen()))
                    }
                }
            }
            OpenstackVerb::Drift { provider } => {
                let found = self.inventory(&provider, "none").await;
                let found = found.map_err(|failure| Failure::NoAnswer(Box::new(failure)))?;
                self.print(&found, |found| render::drift(found, &self.printer.screen()))?;
                Ok(if found.drifted() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
        }
    }

    async fn inventory(&self, provider: &str, spares: &str) -> Result<ProviderInventory, Failure> {
        let path = format!("/v1/providers/{}/inventory?spares={}", segment(provider), segment(spares));
        Ok(self.client.get(&path).await?)
    }

    /// Describes what is new, and of what is other the objects that were named.
    async fn take(&self, found: ProviderInventory, change: &[String], force: bool) -> Done {
        let documents = taken(found, change)?;
        if documents == Documents::default() {
            return say("There is nothing new, and nothing was changed.\n");
        }
        let described: Described =
            self.order_gated(Method::POST, "/v1/apply", &Applying { documents }, force).await?;
        self.print(&described, |described| render::described(described, &self.printer.screen()))
    }
}

fn taken(found: ProviderInventory, change: &[String]) -> Result<Documents, Failure> {
    let ProviderInventory { additions: mut documents, changes, .. } = found;
    let nodes = changes.nodes.into_iter().map(|it| (format!("node/{}", it.name), it));
    let instances = changes.instances.into_iter().map(|it| (format!("instance/{}", it.name), it));
    let (nodes, instances): (Vec<_>, Vec<_>) = (nodes.collect(), instances.collect());
    let known = |object: &String| {
        nodes.iter().any(|(name, _)| name == object) || instances.iter().any(|(name, _)| name == object)
    };
    if let Some(unknown) = change.iter().find(|object| !known(object)) {
        return Err(Failure::Usage(format!(
            "--change {unknown}: nothing that a description could change is other there; nothing was changed"
        )));
    }
    documents.nodes.extend(nodes.into_iter().filter(|(name, _)| change.contains(name)).map(|(_, node)| node));
    let instances = instances.into_iter().filter(|(name, _)| change.contains(name));
    documents.instances.extend(instances.map(|(_, instance)| instance));
    Ok(documents)
}

/// What is new in TOML, with what is to be known of it before.
fn document(found: &ProviderInventory) -> Result<String, Failure> {
    let documents = toml::to_string(&found.additions);
    let documents = documents.map_err(|error| Failure::local("write TOML", &error))?;
    let line = |it: &RemarkLine| format!("# {}: {}\n", flat(&it.about), flat(&it.text));
    let refused =
        found.refused.iter().map(|why| format!("# `hactl apply` would refuse this: {}\n", flat(why)));
    let head = format!("# What is new at {}.\n", found.provider);
    let remarks = found.left_out.iter().chain(&found.notes).map(line);
    Ok([head].into_iter().chain(refused).chain(remarks).chain(["\n".to_owned(), documents]).collect())
}

/// A text of the cloud's must not end a comment.
fn flat(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
