//! What is read of a BMC's documents: a service root, a collection, a system.
//!
//! Why it exists: BMCs answer with hundreds of properties and their makers' own; these are all that count. What it never
//! does: I/O. Absent and unknown properties are no error until they are needed; paths stay on the BMC.

use policies::{Identity, Power};
use serde::Deserialize;

/// Longest path that is followed, in bytes.
const PATH_MAX: usize = 256;
/// Systems of a collection that are looked at: a chassis has tens of them at most.
const SYSTEMS_MAX: usize = 64;
/// Longest text that is shown, in characters.
const TEXT_MAX: usize = 160;

/// The service root (DSP2046, ServiceRoot).
#[derive(Debug, Deserialize)]
#[serde(from = "RootRead")]
pub struct Root {
    /// Path of the collection of systems.
    pub systems: String,
}

#[derive(Deserialize)]
struct RootRead {
    #[serde(rename = "Systems")]
    systems: Option<Link>,
}

impl From<RootRead> for Root {
    /// Where nearly all have it, if it is not told.
    fn from(read: RootRead) -> Root {
        let told = read.systems.and_then(|link| path(link.id));
        Root { systems: told.unwrap_or_else(|| "/redfish/v1/Systems".to_owned()) }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Link {
    #[serde(rename = "@odata.id", default)]
    id: String,
}

/// A collection (DSP0266 7.6).
#[derive(Debug, Deserialize)]
pub struct Collection {
    #[serde(rename = "Members", default)]
    members: Vec<Link>,
}

impl Collection {
    /// Paths of its members.
    pub fn paths(&self) -> Vec<String> {
        self.members.iter().take(SYSTEMS_MAX).filter_map(|link| path(link.id.clone())).collect()
    }
}

/// A path on this BMC; anything else is none, such as another host's address.
fn path(text: String) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~:@%()'#".contains(&byte);
    let is_one = text.starts_with("/redfish/") && text.len() <= PATH_MAX && text.bytes().all(plain);
    (is_one && !text.contains("..")).then_some(text)
}

/// The last part of a path, by which people know a system.
pub fn last(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or(path)
}

/// How a system's power is changed (DSP0268, Resource, ResetType).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// Switch on.
    On,
    /// Switch on at once; for BMCs without `On`.
    ForceOn,
    /// Switch off at once.
    ForceOff,
    /// Ask the operating system.
    GracefulShutdown,
    /// Interrupt its kernel.
    Nmi,
}

impl Reset {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Reset::On => "On",
            Reset::ForceOn => "ForceOn",
            Reset::ForceOff => "ForceOff",
            Reset::GracefulShutdown => "GracefulShutdown",
            Reset::Nmi => "Nmi",
        }
    }
}

/// A system (DSP2046, ComputerSystem).
#[derive(Debug, Default, Deserialize)]
pub struct System {
    #[serde(rename = "PowerState")]
    power_state: Option<String>,
    #[serde(rename = "UUID")]
    uuid: Option<String>,
    #[serde(rename = "SerialNumber")]
    serial: Option<String>,
    #[serde(rename = "Status", default)]
    status: Status,
    #[serde(rename = "BootProgress", default)]
    boot_progress: BootProgress,
    #[serde(rename = "LastResetTime")]
    last_reset: Option<String>,
    #[serde(rename = "Actions", default)]
    actions: Actions,
}

#[derive(Debug, Default, Deserialize)]
struct Status {
    #[serde(rename = "Health")]
    health: Option<String>,
    #[serde(rename = "State")]
    state: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct BootProgress {
    #[serde(rename = "LastState")]
    last_state: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Actions {
    #[serde(rename = "#ComputerSystem.Reset")]
    reset: Option<ResetAction>,
}

#[derive(Debug, Default, Deserialize)]
struct ResetAction {
    #[serde(default)]
    target: String,
    /// Absent: the BMC does not say here, and may say it when it is asked (DSP0266 7.8).
    #[serde(rename = "ResetType@Redfish.AllowableValues")]
    allowed: Option<Vec<String>>,
}

impl System {
    /// Its power. Only `Off` is off: a system that is powering off is not, and one that is paused may go on.
    ///
    /// # Errors
    /// What it said instead.
    pub fn power(&self) -> Result<Power, String> {
        match self.power_state.as_deref() {
            Some("Off") => Ok(Power::Off),
            Some("On" | "PoweringOn" | "PoweringOff" | "Paused") => Ok(Power::On),
            Some(other) => Err(format!("{:?}", cut(other))),
            None => Err("not told".to_owned()),
        }
    }

    /// Who it says that it is: its UUID as 32 hexadecimal digits, in the order in which it is written.
    pub fn identity(&self) -> Identity {
        let digits = self.uuid.as_deref().map(|uuid| uuid.replace('-', "").to_ascii_lowercase());
        let guid =
            digits.filter(|uuid| uuid.len() == 32 && uuid.bytes().all(|byte| byte.is_ascii_hexdigit()));
        Identity { guid, serial: None }
    }

    /// Where the first of these is asked for that the BMC allows.
    ///
    /// # Errors
    /// In words, if there is none.
    pub fn reset(&self, wanted: &[Reset]) -> Result<(String, Reset), String> {
        let action = self.actions.reset.as_ref().ok_or("it has no action to change its power")?;
        let target = path(action.target.clone()).ok_or("its action to change its power has no path here")?;
        let is_allowed = |reset: &&Reset| {
            action.allowed.as_ref().is_none_or(|allowed| allowed.iter().any(|word| word == reset.word()))
        };
        match wanted.iter().find(is_allowed) {
            Some(reset) => Ok((target, *reset)),
            None => {
                let words: Vec<&str> = wanted.iter().map(|reset| reset.word()).collect();
                let allowed = action.allowed.iter().flatten().map(|word| cut(word)).collect::<Vec<_>>();
                Err(format!("it does not allow {}, only: {}", words.join(" or "), cut(&allowed.join(", "))))
            }
        }
    }

    /// What it says of itself, for people.
    pub fn lines(&self) -> Vec<String> {
        let told =
            |name: &str, text: &Option<String>| text.as_ref().map(|text| format!("{name} {}", cut(text)));
        let parts = [
            told("power", &self.power_state),
            told("state", &self.status.state),
            told("health", &self.status.health),
            told("boot progress", &self.boot_progress.last_state),
            told("last reset", &self.last_reset),
            told("serial number", &self.serial),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if parts.is_empty() { vec![] } else { vec![format!("system: {}", parts.join("; "))] }
    }
}

/// The error of a refused request (DSP0266 8.6): its first message.
pub fn message(body: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    let error = value.get("error")?;
    let extended = error.get("@Message.ExtendedInfo").and_then(|list| list.get(0)?.get("Message"));
    let text = extended.or_else(|| error.get("message"))?.as_str()?;
    Some(cut(text))
}

/// A text from the BMC as it is shown: one line, not too long.
fn cut(text: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(TEXT_MAX).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(text: &str) -> System {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn only_off_is_off() {
        let power = |state: &str| system(&format!("{{\"PowerState\":\"{state}\"}}")).power();
        assert_eq!(power("Off"), Ok(Power::Off));
        for on in ["On", "PoweringOn", "PoweringOff", "Paused"] {
            assert_eq!(power(on), Ok(Power::On), "{on}");
        }
        assert_eq!(power("off"), Err("\"off\"".to_owned()));
        assert_eq!(system("{}").power(), Err("not told".to_owned()));
        assert_eq!(system("{\"PowerState\":null}").power(), Err("not told".to_owned()));
    }

    #[test]
    fn an_identity_is_a_uuid_or_none() {
        let guid = |uuid: &str| system(&format!("{{\"UUID\":\"{uuid}\"}}")).identity().guid;
        let digits = "4c4c4544003957108052b4c04f384833";
        assert_eq!(guid("4C4C4544-0039-5710-8052-B4C04F384833").as_deref(), Some(digits));
        assert_eq!(guid("not-a-uuid"), None);
        assert_eq!(system("{}").identity().guid, None);
    }

    #[test]
    fn an_action_is_chosen_from_what_is_allowed_and_stays_on_the_bmc() {
        let with = |target: &str, allowed: &str| {
            system(&format!(
                "{{\"Actions\":{{\"#ComputerSystem.Reset\":{{\"target\":\"{target}\"{allowed}}}}}}}"
            ))
        };
        let target = "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset";
        let allow = |words: &str| format!(",\"ResetType@Redfish.AllowableValues\":[{words}]");
        let wanted = [Reset::On, Reset::ForceOn];
        assert_eq!(with(target, "").reset(&wanted), Ok((target.to_owned(), Reset::On)));
        let forced = with(target, &allow("\"ForceOn\"")).reset(&wanted);
        assert_eq!(forced, Ok((target.to_owned(), Reset::ForceOn)));
        let refused = with(target, &allow("\"Nmi\"")).reset(&wanted).unwrap_err();
        assert_eq!(refused, "it does not allow On or ForceOn, only: Nmi");
        for elsewhere in ["http://10.0.0.9/redfish/v1/x", "/redfish/../etc", "", "/redfish/a b"] {
            assert!(with(elsewhere, "").reset(&wanted).is_err(), "{elsewhere}");
        }
        assert!(system("{}").reset(&wanted).is_err());
    }

    #[test]
    fn the_first_message_of_an_error_is_told_in_one_line() {
        let body = br#"{"error":{"message":"general","@Message.ExtendedInfo":[{"Message":"no\nway"}]}}"#;
        assert_eq!(message(body).as_deref(), Some("no way"));
        assert_eq!(message(br#"{"error":{"message":"general"}}"#).as_deref(), Some("general"));
        assert_eq!(message(b"<html>"), None);
    }

    #[test]
    fn a_root_without_systems_has_them_where_all_have_them() {
        let root = |text: &str| serde_json::from_str::<Root>(text).unwrap().systems;
        assert_eq!(root("{}"), "/redfish/v1/Systems");
        assert_eq!(root("{\"Systems\":{\"@odata.id\":\"/redfish/v1/S\"}}"), "/redfish/v1/S");
        assert_eq!(root("{\"Systems\":{\"@odata.id\":\"http://other/\"}}"), "/redfish/v1/Systems");
        assert_eq!(last("/redfish/v1/Systems/437XR/"), "437XR");
    }
}
