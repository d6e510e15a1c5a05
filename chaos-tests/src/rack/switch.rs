//! The switch: which port passes what.
//!
//! What this is: ports that are closed or open into a VLAN, as plain data.
//! Why it exists: a node that nobody can switch off is still harmless behind closed ports.
//! What it never does: it forwards nothing itself; `nic` asks it for each datagram.

use super::conflict::{DeviceError, newest_first};
use policies::LogIndex;
use provisioning::rack::{PortChange, PortSetting, PortState};
use std::collections::BTreeMap;

/// The switch.
#[derive(Debug)]
pub struct Switch {
    ports: BTreeMap<String, PortState>,
}

impl Switch {
    /// A switch with these ports.
    pub fn new(ports: impl IntoIterator<Item = (String, PortSetting)>) -> Self {
        let port = |(name, setting)| (name, PortState { setting, newest: LogIndex(0), link: None });
        Switch { ports: ports.into_iter().map(port).collect() }
    }

    /// Reads a port. Whether there is a link is not its to say: it knows no cable.
    ///
    /// # Errors
    /// [`DeviceError::NotFound`] if there is no such port.
    pub fn state(&self, name: &str) -> Result<PortState, DeviceError> {
        self.ports.get(name).cloned().ok_or_else(|| DeviceError::NotFound { what: format!("port {name}") })
    }

    /// True if the port passes traffic.
    pub fn passes(&self, name: &str) -> bool {
        self.ports.get(name).is_some_and(|port| match port.setting {
            PortSetting::Closed => false,
            PortSetting::Open { .. } => true,
        })
    }

    /// Sets a port.
    ///
    /// # Errors
    /// [`DeviceError`] if there is no such port or the token is older than the newest seen. Nothing has changed then.
    pub fn change(&mut self, name: &str, change: PortChange) -> Result<(), DeviceError> {
        let not_found = || DeviceError::NotFound { what: format!("port {name}") };
        let port = self.ports.get_mut(name).ok_or_else(not_found)?;
        newest_first(port.newest, change.token)?;
        *port = PortState { setting: change.setting, newest: change.token, link: None };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use provisioning::rack::Conflict;

    #[test]
    fn a_port_opens_and_closes_and_refuses_older_tokens() {
        let mut switch = Switch::new([("a-1".to_owned(), PortSetting::Closed)]);
        assert!(!switch.passes("a-1") && !switch.passes("b-1"));
        let open = PortSetting::Open { vlan: 100, tagged: [200].into(), mac: None };
        switch.change("a-1", PortChange { setting: open.clone(), token: LogIndex(4) }).unwrap();
        assert!(switch.passes("a-1"));
        let late = PortChange { setting: PortSetting::Closed, token: LogIndex(3) };
        let old = Conflict::TokenTooOld { newest: LogIndex(4) };
        assert_eq!(switch.change("a-1", late.clone()), Err(old.into()));
        assert_eq!(switch.state("a-1"), Ok(PortState { setting: open, newest: LogIndex(4), link: None }));
        assert!(matches!(switch.change("b-1", late), Err(DeviceError::NotFound { .. })));
    }
}
