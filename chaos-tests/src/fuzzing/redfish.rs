//! The target of what a Redfish BMC answers: `redfish`.
//!
//! Why it exists: whatever it answers, only `Off` is off, and no path leads to another machine.

use fencing::redfish::model::{Collection, Reset, Root, System, message};
use policies::Power;

/// What is shown of one answer, in bytes: six texts of 160 characters with their names.
const SHOWN_MAX: usize = 6 * (160 * 4 + 20);

fn stays(path: &str) {
    assert!(path.starts_with("/redfish/") && !path.contains("..") && path.is_ascii(), "a path to {path:?}");
}

pub(super) fn run(data: &[u8]) -> bool {
    if let Some(text) = message(data) {
        assert!(text.chars().count() <= 160 && !text.contains('\n'), "an error of {} bytes", text.len());
    }
    if let Ok(root) = serde_json::from_slice::<Root>(data) {
        stays(&root.systems);
    }
    if let Ok(systems) = serde_json::from_slice::<Collection>(data) {
        systems.paths().iter().for_each(|path| stays(path));
    }
    let Ok(system) = serde_json::from_slice::<System>(data) else { return false };
    if system.power() == Ok(Power::Off) {
        assert!(data.windows(3).any(|word| word == b"Off") || data.contains(&b'\\'), "off out of nowhere");
    }
    if let Some(guid) = system.identity().guid {
        assert!(guid.len() == 32 && guid.bytes().all(|byte| byte.is_ascii_hexdigit()), "the GUID {guid}");
    }
    for reset in [Reset::On, Reset::ForceOn, Reset::ForceOff, Reset::GracefulShutdown, Reset::Nmi] {
        if let Ok((target, chosen)) = system.reset(&[reset]) {
            stays(&target);
            assert_eq!(chosen, reset);
        }
    }
    assert!(system.lines().iter().map(String::len).sum::<usize>() <= SHOWN_MAX);
    true
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let system = r##"{"PowerState":"Off","UUID":"4c4c4544-0039-5710-8052-b4c04f384833","SerialNumber":"X1","Status":{"Health":"OK","State":"Enabled"},"BootProgress":{"LastState":"OSRunning"},"Actions":{"#ComputerSystem.Reset":{"target":"/redfish/v1/Systems/1/Actions/ComputerSystem.Reset","ResetType@Redfish.AllowableValues":["On","ForceOff"]}}}"##;
    let root = r#"{"Systems":{"@odata.id":"/redfish/v1/Systems"}}"#;
    let systems = r#"{"Members":[{"@odata.id":"/redfish/v1/Systems/1"}]}"#;
    let error = r#"{"error":{"message":"no","@Message.ExtendedInfo":[{"Message":"no way"}]}}"#;
    [system, root, systems, error].map(|text| text.as_bytes().to_vec()).to_vec()
}
