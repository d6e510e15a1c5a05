//! A site's own program (`docs/drivers/exec.md`) in plain shell, that keeps its state in files beside itself.

use super::{Device, Face, Script};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

/// What every device does: it writes down what it is told, and takes the wish out of it.
const BEGIN: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
read -r request
printf '%s\n' "$request" >>told
env | grep -v -e ^PATH= -e ^PWD= -e ^OLDPWD= -e ^SHLVL= -e ^_= >environment
op=${request#*'"op":"'}; op=${op%%'"'*}
wish=${request#*'"wish":'}; wish=${wish%%'}'*}
token=${request#*'"token":'}; token=${token%%,*}
look() { if grep -qF "$wish" done 2>/dev/null; then echo '{"holds":true,"reading":"as wished"}'; else echo '{"holds":false,"reading":"as before"}'; fi; }
obey() { printf '%s\n' "$wish" >>done; }
hang() { sleep 3600 & echo $! >child; wait; }
"#;

/// The device of this script; without one, nobody has put a program there.
pub(super) fn device(script: Option<Script>) -> Device {
    let programs = TempDir::new().unwrap();
    if let Some(script) = script {
        let file = programs.path().join("device");
        fs::write(&file, [BEGIN, &manners(script)].concat()).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    Device {
        face: Face::Exec,
        url: String::new(),
        seen: Arc::default(),
        task: None,
        programs: Some(programs),
    }
}

fn manners(script: Script) -> String {
    let case = |look: &str, act: &str| {
        let check = "echo '{\"finding\":\"fine\"}'";
        format!("case $op in look) {look} ;; act) {act} ;; check) {check} ;; esac\n")
    };
    let accepted = "echo '{\"accepted\":{}}'";
    match script {
        Script::Obey | Script::KeepSessions | Script::HeldByOther | Script::NoLink => {
            case("look", &format!("obey; {accepted}"))
        }
        Script::SeenToken(newest) => {
            let old = format!(
                "echo '{{\"refused\":{{\"why\":\"token_too_old\",\"newest\":{newest}}}}}'",
                newest = newest.0
            );
            case(
                "look",
                &format!("if [ \"$token\" -lt {} ]; then {old}; else obey; {accepted}; fi", newest.0),
            )
        }
        Script::HangOnChange => case("look", "hang"),
        Script::HangOnLook => case("hang", "obey"),
        Script::ObeyAndDropTheConnection => case("look", "obey; kill -9 $$"),
        Script::Lie => case("look", accepted),
        Script::ObeyAfterLooks(looks) => case(
            &format!(
                "if [ -f late ]; then echo x >>waited; [ $(wc -l <waited) -le {looks} ] || cat late >>done; fi; look"
            ),
            &format!("printf '%s\\n' \"$wish\" >late; {accepted}"),
        ),
        Script::Answer(status) if status < 500 => {
            case("look", "echo '{\"refused\":{\"why\":\"device_refused\",\"text\":\"no\"}}'")
        }
        Script::Answer(_) => case("look", "echo broken >&2; exit 3"),
        Script::Garbage | Script::HasNothing | Script::LookAnswers(_) => {
            "echo neither yes nor no\n".to_owned()
        }
        Script::Flood => "yes\n".to_owned(),
        Script::Complains => {
            "secret=${request#*'\"secret\":\"'}; echo \"cannot log in with ${secret%%'\"'*}\" >&2; exit 1\n"
                .to_owned()
        }
        Script::NeverApply | Script::ChangedMeanwhile => unreachable!("a switch's manners"),
        Script::Fails | Script::Lose | Script::ForgotToSwitchOff => unreachable!("a cloud's manners"),
    }
}

impl Device {
    /// Where its program is; for the others nowhere.
    pub(crate) fn programs(&self) -> PathBuf {
        self.programs.as_ref().map_or_else(|| PathBuf::from("/nowhere"), |dir| dir.path().to_owned())
    }

    fn kept(&self, file: &str) -> String {
        fs::read_to_string(self.programs().join(file)).unwrap_or_default()
    }

    /// Every request so far, a line each.
    pub(crate) fn told(&self) -> String {
        self.kept("told")
    }

    /// What its environment held beside the usual words of a shell.
    pub(crate) fn environment(&self) -> String {
        self.kept("environment")
    }

    /// The process that it started.
    pub(crate) fn child(&self) -> u32 {
        self.kept("child").trim().parse().unwrap()
    }

    pub(super) fn counted(&self, words: &str) -> usize {
        self.told().lines().filter(|line| line.contains(words)).count()
    }
}
