//! The clouds of the inventory: for each one a client, made from its description.
//!
//! Why it exists: a client holds the token and the connections, so whoever speaks to a cloud often keeps one. What it never does: go on
//! with a description that has changed.

use crate::seal::{Seal, Secret};
use openstack::{Cloud, Settings};
use policies::{Provider, ProviderId, ProviderKind, Refusal};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Clients by the provider's name, each with the description that it was made from.
#[derive(Debug)]
pub struct Clouds {
    seal: Seal,
    known: Mutex<BTreeMap<ProviderId, (ProviderKind, Cloud)>>,
}

impl Clouds {
    /// None yet; they are met as they are asked for.
    pub fn new(seal: Seal) -> Clouds {
        Clouds { seal, known: Mutex::default() }
    }

    /// The client of this cloud as it is described now.
    ///
    /// # Errors
    /// [`Refusal::NotConfigured`] if it is no cloud, or its description cannot be used.
    pub fn cloud(&self, provider: &Provider) -> Result<Cloud, Refusal> {
        let ProviderKind::Openstack { cloud: access, secret, .. } = &provider.kind else {
            let why = format!("provider {} is not of the kind `openstack`", provider.name);
            return Err(Refusal::NotConfigured(why));
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((described, cloud)) = known.get(&provider.name)
            && *described == provider.kind
        {
            return Ok(cloud.clone());
        }
        let secret = self.seal.open(Secret::ProviderToken(&provider.name), secret);
        let secret = secret.map_err(|error| Refusal::NotConfigured(policies::causes(&error)))?;
        let cloud = Settings::new(access, &secret).and_then(Cloud::new)?;
        known.insert(provider.name.clone(), (provider.kind.clone(), cloud.clone()));
        Ok(cloud)
    }
}
