//! The Redfish driver: the contract table against a BMC with moods, and the real `sushy-emulator` (sushy-tools).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod redfish_bmc;

use fencing::contract::{self, GUID, Lease, Mood, Rig};
use fencing::redfish::{Redfish, Settings};
use fencing::{Act, DriverError, PowerDriver};
use policies::{BootDevice, Identity, Outcome, Refusal, Seen};
use redfish_bmc::{Bmc, PASSWORD, PATIENCE, Shared, USER, serve, settings, within};
use serde_json::{Value, json};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use tempfile::TempDir;
use tokio::time::Instant;

fn nobody() -> Identity {
    Identity::default()
}

/// A BMC for each row.
#[derive(Default)]
struct Bmcs {
    newest: Mutex<Option<Shared>>,
}

impl Rig for Bmcs {
    type Driver = Redfish;

    async fn device(&self, mood: Mood) -> Redfish {
        let bmc = Bmc::new(mood);
        *self.newest.lock().unwrap() = Some(bmc.clone());
        Redfish::new(settings(serve(bmc).await)).unwrap()
    }

    fn commands(&self) -> Vec<Act> {
        self.newest.lock().unwrap().as_ref().unwrap().lock().unwrap().commands.clone()
    }
}

#[tokio::test]
async fn the_driver_keeps_the_contract() {
    contract::check(&Bmcs::default()).await.unwrap_or_else(|broken| panic!("{broken}"));
}

#[tokio::test]
async fn the_boot_source_is_set_before_each_power_on_and_only_then() {
    let bmc = Bmc::new(Mood::AlreadyOff);
    let at = serve(bmc.clone()).await;
    let driver = Redfish::new(settings(at).with_boot_device(Some(BootDevice::PxeUefi))).unwrap();
    let permit = Lease::endless();
    driver.act(Act::Off, &permit, within(PATIENCE)).await.unwrap();
    assert_eq!(bmc.lock().unwrap().boots, [] as [Value; 0]);
    driver.act(Act::On, &permit, within(PATIENCE)).await.unwrap();
    let boot = json!({ "BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe",
                       "BootSourceOverrideMode": "UEFI" });
    assert_eq!(bmc.lock().unwrap().boots, [json!({ "Boot": boot })]);
    // One check before each change: the boot source was set, then the lease ended.
    let refused = driver.act(Act::On, &Lease::of(1), within(PATIENCE)).await;
    assert!(matches!(refused, Err(DriverError::NotPermitted(Refusal::LeaseEnded))), "{refused:?}");
    assert_eq!(bmc.lock().unwrap().commands, [Act::Off, Act::On]);
    let lines = driver.diagnose(within(PATIENCE)).await.unwrap();
    assert_eq!(lines, ["system: power On; health Critical"]);
}

#[tokio::test]
async fn a_wrong_password_is_told_as_such_and_shown_nowhere() {
    let at = serve(Bmc::new(Mood::Obeys)).await;
    let wrong = Settings::new(&format!("http://{at}"), USER, b"wrong-secret", None, None).unwrap();
    let driver = Redfish::new(wrong).unwrap();
    let refused = driver.look(within(PATIENCE)).await.unwrap_err();
    assert!(matches!(refused, DriverError::NotAdmitted(_)), "{refused}");
    assert!(refused.to_string().ends_with("401 Unauthorized: who are you?"), "{refused}");
    assert!(!format!("{refused} {refused:?} {driver:?}").contains("wrong-secret"));
}

/// `sushy-emulator` with two systems, over TLS with a certificate of its own.
struct Sushy {
    process: Child,
    directory: TempDir,
    port: u16,
}

impl Sushy {
    fn start() -> Sushy {
        let directory = TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'\nSUSHY_EMULATOR_LISTEN_PORT = {port}\n\
             SUSHY_EMULATOR_STATE_DIR = '{0}'\nSUSHY_EMULATOR_SSL_CERT = '{0}/cert.pem'\n\
             SUSHY_EMULATOR_SSL_KEY = '{0}/key.pem'\nSUSHY_EMULATOR_FAKE_DRIVER = True\n\
             SUSHY_EMULATOR_FAKE_SYSTEMS = [\n  {{'uuid': '{uuid}', 'name': 'n1', 'power_state': 'On', 'nics': []}},\n  \
             {{'uuid': '00000000-0000-0000-0000-000000000002', 'name': 'n2', 'power_state': 'On', 'nics': []}}]\n",
            directory.path().display(),
            uuid = SUSHY_UUID,
        );
        std::fs::write(path("sushy.conf"), config).unwrap();
        let words =
            ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "7", "-subj", "/CN=bmc", "-keyout"];
        let openssl = Command::new("openssl")
            .args(words)
            .args([path("key.pem"), "-out".to_owned(), path("cert.pem")])
            .stderr(Stdio::null())
            .status();
        assert!(openssl.unwrap().success());
        let log = std::fs::File::create(path("log")).unwrap();
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/sushy/bin/sushy-emulator");
        let process = Command::new(program)
            .args(["--config", &path("sushy.conf")])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}; `make tools` installs it"));
        Sushy { process, directory, port }
    }

    /// As `openssl x509 -fingerprint -sha256` prints it.
    fn fingerprint(&self) -> String {
        let words = ["x509", "-noout", "-fingerprint", "-sha256", "-in"];
        let said = Command::new("openssl").args(words).arg(self.directory.path().join("cert.pem")).output();
        let said = String::from_utf8(said.unwrap().stdout).unwrap();
        said.trim().rsplit('=').next().unwrap().to_owned()
    }

    fn driver(&self, fingerprint: &str, system: Option<&str>) -> Redfish {
        let url = format!("https://127.0.0.1:{}", self.port);
        let settings = Settings::new(&url, USER, PASSWORD, None, Some(fingerprint)).unwrap();
        let settings = settings.with_system(system.map(str::to_owned));
        Redfish::new(settings.with_boot_device(Some(BootDevice::Pxe))).unwrap()
    }
}

impl Drop for Sushy {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

const SUSHY_UUID: &str = "00000000-0000-0000-0000-0000000000a1";

#[tokio::test]
async fn sushy_emulator_is_fenced_and_switched_on() {
    let sushy = Sushy::start();
    let driver = sushy.driver(&sushy.fingerprint(), Some(SUSHY_UUID));
    let end = within(PATIENCE);
    while let Err(error) = driver.look(end).await {
        assert!(matches!(error, DriverError::Unreachable { .. }), "{error}");
        assert!(Instant::now() < end, "{error}; it said: {}", {
            std::fs::read_to_string(sushy.directory.path().join("log")).unwrap()
        });
    }
    let expected = Identity { guid: Some(SUSHY_UUID.replace('-', "")), ..Identity::default() };
    let lease = Lease::endless();
    let fenced = fencing::fence(&driver, &expected, &lease, within(PATIENCE)).await;
    assert!(matches!(fenced, Outcome::Done(Seen::OffTwice { already: false, .. })), "{fenced:?}");
    let again = fencing::fence(&driver, &expected, &lease, within(PATIENCE)).await;
    assert!(matches!(again, Outcome::Done(Seen::OffTwice { already: true, .. })), "{again:?}");
    let on = fencing::power_on(&driver, &expected, &lease, within(PATIENCE)).await;
    assert!(matches!(on, Outcome::Done(Seen::On)), "{on:?}");
    let stranger =
        fencing::fence(&driver, &Identity { guid: Some(GUID.to_owned()), ..nobody() }, &lease, end).await;
    assert!(matches!(stranger, Outcome::Refused(Refusal::WrongIdentity { .. })), "{stranger:?}");

    let which = sushy.driver(&sushy.fingerprint(), None).look(within(PATIENCE)).await.unwrap_err();
    assert!(which.to_string().contains("which system? `system` has to name one of: "), "{which}");
    let pinned = sushy.driver(&"ab".repeat(32), Some(SUSHY_UUID)).look(within(PATIENCE)).await.unwrap_err();
    assert!(pinned.to_string().contains("its certificate has another fingerprint"), "{pinned}");
}
