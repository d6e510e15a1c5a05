//! The lab's storage host: tgt, and the real `ha-storage` beside it.
//!
//! Why it exists: a volume that a real initiator writes to, and that can be taken from it.
//! What it never does: keep the volumes' contents anywhere but in its directory.

use super::{INSTANCES, MACHINES, at, ledger};
use crate::demo::DemoError;
use crate::demo::error::system;
use crate::demo::process::{Around, Process, Starter, answer};
use crate::demo::wait::{Look, until};
use policies::causes;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const START_MAX: Duration = Duration::from_secs(20);

/// tgtd and `ha-storage`.
pub(super) struct Storage {
    dir: PathBuf,
    tgtd: Process,
    pub(super) daemon: Process,
    /// Who signed the daemon's certificate: itself.
    pub(super) ca: String,
    pub(super) token: String,
}

impl Storage {
    /// A volume for each instance, nobody's.
    pub(super) async fn start(
        starter: &Starter,
        dir: &Path,
        ha_storage: &Path,
    ) -> Result<Storage, DemoError> {
        let (key, certificate) = (dir.join("key.pem"), dir.join("cert.pem"));
        make_certificate(&key, &certificate).await?;
        let token = secret();
        for number in 1..=INSTANCES {
            let file = volume_file(dir, number);
            let made = fs::File::create(&file).and_then(|made| made.set_len(ledger::VOLUME_BYTES));
            made.map_err(system(format!("make {}", file.display())))?;
        }
        for number in 1..=MACHINES {
            write_secret(&dir.join(format!("chap-{number}")), &chap_secret(number))?;
        }
        write_secret(&dir.join("token"), &token)?;
        let config = dir.join("ha-storage.toml");
        write_secret(&config, &configuration(dir))?;

        let socket = dir.join("tgt");
        let environment = vec![("TGT_IPC_SOCKET".to_owned(), socket.to_string_lossy().into_owned())];
        let around = Around { environment, ..Around::default() };
        let portal = format!("portal={}:3260", at::STORAGE);
        let log = dir.join("tgtd.log");
        let tgtd = starter.start("tgtd", Path::new("tgtd"), ["-f", "--iscsi", &portal], &around, log).await?;
        let args = ["--config".as_ref(), config.as_os_str()];
        let log = dir.join("ha-storage.log");
        let daemon = starter.start("ha-storage", ha_storage, args, &Around::default(), log).await?;
        let ca =
            fs::read_to_string(&certificate).map_err(system(format!("read {}", certificate.display())))?;
        let log = daemon.log().to_owned();
        let mut storage = Storage { dir: dir.to_owned(), tgtd, daemon, ca, token };
        until("ha-storage to answer", START_MAX, &log, async || {
            storage.check()?;
            Ok(match storage.ask(1, &[]).await {
                Ok(_) => Look::There(()),
                Err(why) => Look::NotYet(causes(&why)),
            })
        })
        .await?;
        Ok(storage)
    }

    /// Gives a volume to the machine on which its instance runs at first: once, by hand, as the manual says.
    pub(super) async fn give(&self, instance: u8, machine: u8) -> Result<(), DemoError> {
        let wish = serde_json::json!({ "change": "attach", "initiator": at::initiator(machine), "token": 0 });
        self.ask(instance, &["-X", "PUT", "-d", &wish.to_string()]).await.map(drop)
    }

    async fn ask(&self, instance: u8, more: &[&str]) -> Result<String, DemoError> {
        let url = format!("https://{}:{}/v1/volumes/vol-{instance}", at::STORAGE, at::HA_STORAGE);
        let bearer = format!("Authorization: Bearer {}", self.token);
        let authority = self.dir.join("cert.pem");
        let words =
            ["--silent", "--show-error", "--fail-with-body", "--cacert", &authority.to_string_lossy()]
                .map(str::to_owned);
        let rest = ["-H", &bearer].into_iter().chain(more.iter().copied()).chain([url.as_str()]);
        let words = words.iter().map(String::as_str).chain(rest);
        answer(Path::new("curl"), words, &[]).await
    }

    /// What stands on a volume.
    pub(super) fn read(&self, instance: u8) -> Result<Vec<u8>, DemoError> {
        let file = volume_file(&self.dir, instance);
        fs::read(&file).map_err(system(format!("read {}", file.display())))
    }

    pub(super) fn check(&mut self) -> Result<(), DemoError> {
        self.tgtd.check()?;
        self.daemon.check()
    }

    pub(super) fn into_processes(self) -> impl Iterator<Item = Process> {
        [self.daemon, self.tgtd].into_iter()
    }
}

fn volume_file(dir: &Path, instance: u8) -> PathBuf {
    dir.join(format!("vol-{instance}.img"))
}

/// What a machine proves with that it is the initiator that it says.
pub(super) fn chap_secret(machine: u8) -> String {
    format!("secret-of-node-{machine}")
}

fn secret() -> String {
    crate::rack::hex(&rand::random::<[u8; 16]>())
}

fn configuration(dir: &Path) -> String {
    let at = dir.display();
    let mut text = format!(
        "listen = \"{}:{}\"\ncertificate = \"{at}/cert.pem\"\nkey = \"{at}/key.pem\"\n\
         token_file = \"{at}/token\"\nstate = \"{at}/state\"\nsocket = \"{at}/tgt\"\n",
        at::STORAGE,
        at::HA_STORAGE
    );
    for number in 1..=INSTANCES {
        let (target, backing) = (at::target(number), volume_file(dir, number));
        text += &format!(
            "[[volume]]\nname = \"vol-{number}\"\ntarget = \"{target}\"\nbacking = \"{}\"\n",
            backing.display()
        );
    }
    for number in 1..=MACHINES {
        text += &format!(
            "[[initiator]]\nname = \"{}\"\nchap_user = \"node-{number}\"\nchap_secret_file = \"{at}/chap-{number}\"\n",
            at::initiator(number)
        );
    }
    text
}

async fn make_certificate(key: &Path, certificate: &Path) -> Result<(), DemoError> {
    let (key, certificate) = (key.to_string_lossy(), certificate.to_string_lossy());
    let name = format!("subjectAltName=IP:{}", at::STORAGE);
    let words =
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "7"];
    // Otherwise it is an authority's, which nobody takes for a server's.
    let own = ["-subj", "/CN=the lab's storage", "-addext", "basicConstraints=critical,CA:FALSE"];
    let rest = ["-addext", &name, "-keyout", &key, "-out", &certificate];
    answer(Path::new("openssl"), words.into_iter().chain(own).chain(rest), &[]).await.map(drop)
}

fn write_secret(path: &Path, text: &str) -> Result<(), DemoError> {
    let opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    opened
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(system(format!("write {}", path.display())))
}
