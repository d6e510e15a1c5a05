//! The IPMI driver against a BMC that we did not write: OpenIPMI's `ipmi_sim`, cipher suite 3 (it lacks 17).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use fencing::contract::Lease;
use fencing::ipmi::commands::{
    BootDevice, ChassisControl, GetBootDevice, GetChassisStatus, ReadSensor, SetBootDevice,
};
use fencing::ipmi::{Bmc, Port, Privilege, Settings};
use fencing::{Console, DriverError, PowerDriver, fence, interrupt, power_on, shut_down};
use ipmi_rs_core::app::GetDeviceId;
use ipmi_rs_core::storage::sel::GetSelInfo;
use policies::{Identity, Outcome, Power, Refusal, Seen};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, timeout_at};

/// The simulator keeps 15 bytes of it and ends them with a zero.
const GUID_TEXT: &str = "fencing-test-bm";
const USER: &str = "admin";
const PASSWORD: &[u8] = b"secret";

fn within(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

/// A running `ipmi_sim`; ended on drop. Its machine's power is a file.
struct Sim {
    child: Child,
    directory: TempDir,
    address: String,
}

/// `ipmi_sim` runs this for each power command: `get power`, `set power 0|1`, `set reset 1`, `set shutdown 1`, ...
/// (`ipmi_sim_chassis_control(8)`). A machine that shuts down is on until its power was read once.
const CHASSIS_CONTROL: &str = "#!/bin/sh
directory=$1; shift
case \"$1 $2\" in
'get power')
  read -r power <\"$directory/power\"
  if [ \"$power\" = stopping ]; then echo 0 >\"$directory/power\"; power=1; fi
  echo \"power:$power\" ;;
'get boot') printf 'boot:default\\n' ;;
'set boot') echo \"$3\" >\"$directory/boot\" ;;
'set power') echo \"$3\" >\"$directory/power\" ;;
'set shutdown') echo stopping >\"$directory/power\" ;;
esac
";

const EMULATION: &str = "mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
sensor_add 0x20 0 1 0x01 0x01
sensor_set_value 0x20 0 1 45 0
sensor_set_threshold 0x20 0 1 settable 111000 0x6e 0x64 0x5a 00 00 00
sensor_set_event_support 0x20 0 1 enable scanning per-state 000111111000000 000111111000000 000111111000000 000111111000000
sensor_add 0x20 0 2 0x08 0x6f
sensor_set_bit 0x20 0 2 3 1 0
sensor_set_event_support 0x20 0 2 enable scanning per-state 000000000001011 000000000001011 000000000001011 000000000001011
sel_add 0x20 0x02 0x00 0x00 0x00 0x00 0x20 0x00 0x04 0x01 0x01 0x01 0x59 0x2d 0x2d
mc_enable 0x20
";

impl Sim {
    async fn start() -> Sim {
        Sim::start_with("").await
    }

    /// With more lines in the description of its BMC.
    async fn start_with(more: &str) -> Sim {
        // Another process may take the free port before the simulator does; then the next one is tried.
        for _ in 0..5 {
            if let Some(sim) = Sim::try_start(more).await {
                return sim;
            }
        }
        panic!("ipmi_sim answered on none of five ports");
    }

    async fn try_start(more: &str) -> Option<Sim> {
        let directory = TempDir::new().unwrap();
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        write_files(directory.path(), port, more);
        let child = Command::new("ipmi_sim")
            .args(["-n", "-c"])
            .arg(directory.path().join("lan.conf"))
            .arg("-f")
            .arg(directory.path().join("bmc.emu"))
            .arg("-s")
            .arg(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start ipmi_sim: it is in Debian's package openipmi, which `make test` installs");
        let mut sim = Sim { child, directory, address };
        let deadline = within(20);
        let bmc = sim.bmc();
        while Instant::now() < deadline && sim.child.try_wait().unwrap().is_none() {
            if bmc.look(within(1)).await.is_ok() {
                return Some(sim);
            }
            sleep(Duration::from_millis(10)).await;
        }
        None
    }

    fn settings(&self, password: &[u8]) -> Settings {
        Settings::new(&self.address, USER, password, 3).unwrap()
    }

    fn bmc(&self) -> Bmc {
        Bmc::new(self.settings(PASSWORD), &Port::new())
    }

    fn power_file(&self) -> String {
        self.file("power")
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(name)).unwrap().trim().to_owned()
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn write_files(directory: &Path, port: u16, more: &str) {
    let control = directory.join("chassis-control");
    std::fs::write(&control, CHASSIS_CONTROL).unwrap();
    std::fs::set_permissions(&control, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(directory.join("power"), "1\n").unwrap();
    // Where `ipmi_sim` named `test` keeps the main repository of its BMC 0x20.
    let state = directory.join("ipmi_sim/test");
    std::fs::create_dir_all(&state).unwrap();
    std::fs::write(directory.join("sensors"), SENSORS).unwrap();
    let mut compiler = Command::new("sdrcomp");
    let compiled = compiler.arg("-o").arg(state.join("sdr.20.main")).arg(directory.join("sensors")).output();
    let compiled = compiled.expect("start sdrcomp: it comes with ipmi_sim");
    assert!(compiled.status.success(), "{compiled:?}");
    std::fs::write(directory.join("bmc.emu"), EMULATION).unwrap();
    let lan = format!(
        "name \"test\"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 {port}
    priv_limit admin
    allowed_auths_callback md5
    allowed_auths_user md5
    allowed_auths_operator md5
    allowed_auths_admin md5
    guid \"{GUID_TEXT}\"
  endlan
  chassis_control \"{} {}\"
{more}  user 1 false \"\" \"\" user 1 none
  user 2 true \"{USER}\" \"secret\" admin 10 md5
  user 3 true \"reader\" \"secret\" user 10 md5
",
        control.display(),
        directory.display(),
    );
    std::fs::write(directory.join("lan.conf"), lan).unwrap();
}

#[tokio::test]
async fn status_and_identity_are_read() {
    let sim = Sim::start().await;
    let look = sim.bmc().look(within(10)).await.unwrap();
    assert_eq!(look.power, Power::On);
    let guid: String = GUID_TEXT.bytes().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(look.identity.guid, Some(guid + "00"));
    let id = sim.bmc().ask(GetDeviceId, within(10)).await.unwrap();
    assert_eq!((id.manufacturer_id, id.product_id), (0x1291, 0x0f02));
}

#[tokio::test]
async fn a_node_is_fenced_confirmed_and_switched_on_again() {
    let sim = Sim::start().await;
    let bmc = sim.bmc();
    let identity = bmc.look(within(10)).await.unwrap().identity;
    let outcome = fence(&bmc, &identity, &Lease::endless(), within(20)).await;
    assert!(matches!(outcome, Outcome::Done(Seen::OffTwice { already: false, .. })), "{outcome:?}");
    assert_eq!(sim.power_file(), "0");
    let again = fence(&bmc, &identity, &Lease::endless(), within(20)).await;
    assert!(matches!(again, Outcome::Done(Seen::OffTwice { already: true, .. })), "{again:?}");
    let on = power_on(&bmc, &identity, &Lease::endless(), within(20)).await;
    assert_eq!((on, sim.power_file().as_str()), (Outcome::Done(Seen::On), "1"));
}

#[tokio::test]
async fn a_node_is_switched_on_from_the_network_if_it_is_described_so() {
    let sim = Sim::start().await;
    let settings = sim.settings(PASSWORD).with_boot_device(Some(policies::BootDevice::Pxe));
    let bmc = Bmc::new(settings, &Port::new());
    let identity = bmc.look(within(10)).await.unwrap().identity;
    bmc.tell(ChassisControl::Off, &Lease::endless(), within(10)).await.unwrap();
    let on = power_on(&bmc, &identity, &Lease::endless(), within(20)).await;
    assert_eq!((on, sim.power_file().as_str()), (Outcome::Done(Seen::On), "1"));
    assert_eq!(sim.file("boot"), "pxe");
}

#[tokio::test]
async fn an_operating_system_that_is_asked_shuts_down() {
    let sim = Sim::start().await;
    let bmc = sim.bmc();
    let identity = bmc.look(within(10)).await.unwrap().identity;
    let outcome = shut_down(&bmc, &identity, &Lease::endless(), within(20)).await;
    assert!(matches!(outcome, Outcome::Done(Seen::OffTwice { already: false, .. })), "{outcome:?}");
    assert_eq!(sim.power_file(), "0");
    let again = shut_down(&bmc, &identity, &Lease::endless(), within(20)).await;
    assert!(matches!(again, Outcome::Done(Seen::OffTwice { already: true, .. })), "{again:?}");
}

/// The simulator does not know the diagnostic interrupt.
#[tokio::test]
async fn a_bmc_that_knows_no_interrupt_is_a_refusal() {
    let sim = Sim::start().await;
    let bmc = sim.bmc();
    let identity = bmc.look(within(10)).await.unwrap().identity;
    let outcome = interrupt(&bmc, &identity, &Lease::endless(), within(20)).await;
    let Outcome::Refused(Refusal::DeviceRefused(why)) = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("0xcc"), "{why}");
}

/// Somebody else's client puts the events in.
fn ipmitool(sim: &Sim, words: &str) {
    let (host, port) = sim.address.rsplit_once(':').unwrap();
    let mut command = Command::new("ipmitool");
    command.args(["-I", "lanplus", "-C", "3", "-H", host, "-p", port, "-U", USER, "-P", "secret"]);
    let output = command.args(words.split(' ')).output();
    let output =
        output.expect("start ipmitool: it is in Debian's package ipmitool, which `make test` installs");
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Events as `ipmitool sel add` reads them: revision, sensor type and number, event type, data.
const EVENTS: &str = "\
0x04 0x01 0x30 0x01 0x59 0x66 0x64 # a temperature above its limit
0x04 0x0c 0x53 0x6f 0x01 0xff 0xff # a memory error
0x04 0x08 0x60 0xef 0x01 0xff 0xff # a power supply that works again
";

#[tokio::test]
async fn what_ipmitool_logged_is_diagnosed() {
    let sim = Sim::start().await;
    // Set SEL Time (IPMI 2.0 §31.11): 2026-11-28 11:07:15 UTC.
    ipmitool(&sim, "raw 0x0a 0x49 0xe3 0xb5 0x0a 0x6b");
    let events = sim.directory.path().join("events");
    std::fs::write(&events, EVENTS).unwrap();
    ipmitool(&sim, &format!("sel add {}", events.display()));
    // Add SEL Entry: a watchdog that powered off, with a time of its own.
    ipmitool(&sim, "raw 0x0a 0x44 0 0 2 0x80 0x43 0x6d 0x38 0x20 0 4 0x23 3 0x6f 2 0xff 0xff");
    let mut lines = sim.bmc().diagnose(within(20)).await.unwrap();
    let sensors = lines.pop().unwrap();
    assert!(sensors.starts_with("sensors: not read"), "{sensors}");
    let last = lines.pop().unwrap();
    // The record of the emulation's file, from before the clock was set.
    let event = "Temperature sensor 0x01: Upper Critical - going high [data 59 2d 2d]";
    assert!(last.ends_with(&format!(" s after the log's start, clock not set: {event}")), "{last}");
    let after = |line: &String| match line.split_once("Z: ") {
        Some((time, event)) => {
            assert!(time.starts_with("2026-11-28T11:"), "{line}");
            event.to_owned()
        }
        None => line.clone(),
    };
    let want = [
        "chassis: power on; no fault reported",
        "chassis: last power event: none reported",
        "event log: 5 entries, the newest first",
        "Watchdog 2 sensor 0x03: Power Down",
        "Power Supply sensor 0x60: Power Supply Failure detected, no longer",
        "Memory sensor 0x53: Uncorrectable ECC / other uncorrectable memory error",
        "Temperature sensor 0x30: Upper Critical - going high [data 59 66 64]",
    ];
    assert_eq!(lines.iter().map(after).collect::<Vec<_>>(), want);
    assert_eq!(sim.power_file(), "1");
}

/// Data records as OpenIPMI's `sdrcomp` compiles them: a name in capitals is packed into six bits a letter.
const SENSORS: &str = "\
sdr type 1
  sensor_owner_id 0x20
  sensor_owner_lun 0
  channel_number 0
  sensor_number 1
  entity_id system_board
  entity_instance 1
  sensor_type Temperature
  event_reading_type_code 1
  analog_data_format unsigned
  base_unit degrees_C
  linearization linear
  m 1
  b 0
  r_exp 0
  b_exp 0
  id_string \"Cpu temp\"
endsdr
sdr type 2
  sensor_owner_id 0x20
  sensor_owner_lun 0
  channel_number 0
  sensor_number 2
  entity_id power_supply
  entity_instance 1
  sensor_type Power_Supply
  event_reading_type_code 0x6f
  id_string \"PSU1\"
endsdr
";

#[tokio::test]
async fn sensors_are_told_by_name_with_what_is_wrong() {
    let sim = Sim::start().await;
    let bmc = sim.bmc();
    assert_eq!(bmc.learn_sensors(within(20)).await.unwrap(), 2);
    let lines = bmc.diagnose(within(20)).await.unwrap();
    let sensors = lines.iter().position(|line| line.starts_with("sensors: ")).unwrap();
    assert_eq!(
        lines[sensors..],
        [
            "sensors: 2 read; 1 tell of trouble",
            "Power Supply sensor PSU1 Power Supply input lost (AC/DC)",
            "temperatures: Cpu temp 45 °C",
        ]
    );
}

async fn console_says(console: &Console, wish: impl Fn(&[u8]) -> bool) {
    let deadline = within(20);
    let mut more = console.more();
    loop {
        more.mark_unchanged();
        let (said, _) = console.since(0);
        if wish(&said) {
            return;
        }
        let waited = timeout_at(deadline, more.changed()).await;
        assert!(waited.is_ok(), "{}; it said {:?}", console.how(), String::from_utf8_lossy(&said));
    }
}

async fn is_listened_to(console: &Console) {
    let deadline = within(20);
    while !console.how().starts_with("listened to since ") {
        assert!(Instant::now() < deadline, "{}", console.how());
        sleep(Duration::from_millis(10)).await;
    }
}

/// The machine's serial line is a TCP connection here.
#[tokio::test]
async fn what_the_console_says_is_kept_and_told() {
    let machine = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = machine.local_addr().unwrap().port();
    let sim = Sim::start_with(&format!("  sol \"tcp:127.0.0.1:{port}\" 115200\n")).await;
    let bmc = sim.bmc();
    let console = bmc.console().unwrap();
    bmc.listen(true);
    is_listened_to(&console).await;
    let (mut line, _) = timeout_at(within(20), machine.accept()).await.unwrap().unwrap();
    let boot: String = (0..2000).map(|number| format!("[{number:5}] a line of the kernel\r\n")).collect();
    line.write_all(boot.as_bytes()).await.unwrap();
    line.write_all(b"Kernel panic - not syncing: Fatal exception\r\n").await.unwrap();
    console_says(&console, |said| said.ends_with(b"Fatal exception\r\n")).await;
    let (said, _) = console.since(0);
    let all = format!("{boot}Kernel panic - not syncing: Fatal exception\r\n");
    assert!(all.as_bytes().ends_with(&said), "something is missing or comes twice");
    // The other way.
    console.type_in(b"root\r").unwrap();
    let mut typed = [0; 5];
    timeout_at(within(20), line.read_exact(&mut typed)).await.unwrap().unwrap();
    assert_eq!(&typed, b"root\r");
    // More than goes at once.
    let pasted: Vec<u8> = (b'a'..=b'z').cycle().take(200).collect();
    console.type_in(&pasted).unwrap();
    let mut typed = [0; 200];
    timeout_at(within(20), line.read_exact(&mut typed)).await.unwrap().unwrap();
    assert_eq!(typed.as_slice(), pasted);
    // The fence's own session is another one.
    let lines = bmc.diagnose(within(20)).await.unwrap();
    assert_eq!(lines.last().unwrap(), "Kernel panic - not syncing: Fatal exception");
    let head = &lines[lines.len() - 16];
    assert!(head.starts_with("console, listened to since ") && head.ends_with(", its last lines:"), "{head}");
    // Given back, another has it at once.
    bmc.listen(false);
    let other = sim.bmc();
    other.listen(true);
    is_listened_to(&other.console().unwrap()).await;
}

#[tokio::test]
async fn another_machine_is_not_switched_off() {
    let sim = Sim::start().await;
    let expected = Identity { guid: Some("00".repeat(16)), ..Identity::default() };
    let outcome = fence(&sim.bmc(), &expected, &Lease::endless(), within(10)).await;
    assert!(matches!(outcome, Outcome::Refused(Refusal::WrongIdentity { .. })), "{outcome:?}");
    assert_eq!(sim.power_file(), "1");
}

#[tokio::test]
async fn a_dead_bmc_is_unreachable() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let bmc = Bmc::new(Settings::new(&address, USER, PASSWORD, 3).unwrap(), &Port::new());
    let outcome = fence(&bmc, &Identity::default(), &Lease::endless(), within(1)).await;
    let Outcome::Refused(Refusal::Unreachable(why)) = outcome else { panic!("{outcome:?}") };
    assert!(why.contains(&address), "{why}");
}

#[tokio::test]
async fn a_bmc_that_dies_and_comes_back_is_found_again() {
    let mut sim = Sim::start().await;
    let bmc = sim.bmc();
    bmc.look(within(10)).await.unwrap();
    sim.child.kill().unwrap();
    sim.child.wait().unwrap();
    assert!(bmc.look(within(1)).await.is_err());
    let directory = sim.directory.path();
    sim.child = Command::new("ipmi_sim")
        .args(["-n", "-c"])
        .arg(directory.join("lan.conf"))
        .arg("-f")
        .arg(directory.join("bmc.emu"))
        .arg("-s")
        .arg(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(bmc.look(within(20)).await.unwrap().power, Power::On);
}

async fn refusal(settings: Settings) -> String {
    match Bmc::new(settings, &Port::new()).look(within(10)).await {
        Err(DriverError::NotAdmitted(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn wrong_password_user_suite_and_privilege_are_told_apart() {
    let sim = Sim::start().await;
    let why = refusal(sim.settings(b"wrong")).await;
    assert!(why.contains("wrong password"), "{why}");
    let why = refusal(Settings::new(&sim.address, "nobody", PASSWORD, 3).unwrap()).await;
    assert!(why.contains("user"), "{why}");
    let why = refusal(Settings::new(&sim.address, USER, PASSWORD, 17).unwrap()).await;
    assert!(why.contains("RMCP+ status"), "{why}");
    // The simulator gives a reader any privilege level that it asks for; so this one does not ask.
    let reader = Settings::new(&sim.address, "reader", PASSWORD, 3).unwrap();
    let reader = Bmc::new(reader.with_privilege(Privilege::User), &Port::new());
    assert_eq!(reader.look(within(10)).await.unwrap().power, Power::On);
    let outcome = fence(&reader, &Identity::default(), &Lease::endless(), within(10)).await;
    assert!(matches!(outcome, Outcome::Refused(Refusal::DeviceRefused(_))), "{outcome:?}");
    assert_eq!(sim.power_file(), "1");
}

/// `ipmi_sim` has 63 sessions.
#[tokio::test]
async fn taken_sessions_are_named_and_ours_are_given_back() {
    let sim = Sim::start().await;
    let port = Port::new();
    for round in 0..200 {
        let bmc = Bmc::new(sim.settings(PASSWORD), &port);
        let device = bmc.ask(GetDeviceId, within(10)).await;
        assert!(device.is_ok(), "open {round}: {device:?}");
    }
    let mut open = vec![];
    let error = loop {
        let bmc = Bmc::new(sim.settings(PASSWORD), &port);
        match bmc.ask(GetDeviceId, within(10)).await {
            Ok(_) => open.push(bmc),
            Err(error) => break error,
        }
        assert!(open.len() < 80, "the simulator has no limit");
    };
    assert!(open.len() >= 50, "only {} sessions: {error}", open.len());
    assert!(matches!(&error, DriverError::NotAdmitted(why) if why.contains("sessions")), "{error}");
    drop(open);
    assert!(Bmc::new(sim.settings(PASSWORD), &port).ask(GetDeviceId, within(10)).await.is_ok());
}

#[tokio::test]
async fn many_nodes_share_one_port() {
    let (first, second) = (Sim::start().await, Sim::start().await);
    let port: Arc<Port> = Port::new();
    let one = Bmc::new(first.settings(PASSWORD), &port);
    let two = Bmc::new(second.settings(PASSWORD), &port);
    one.tell(ChassisControl::Off, &Lease::endless(), within(10)).await.unwrap();
    assert_eq!(one.look(within(10)).await.unwrap().power, Power::Off);
    assert_eq!(two.ask(GetChassisStatus, within(10)).await.unwrap().power, Power::On);
}

#[tokio::test]
async fn boot_device_events_and_sensors_are_understood() {
    let sim = Sim::start().await;
    let bmc = Bmc::new(sim.settings(PASSWORD).with_privilege(Privilege::Administrator), &Port::new());
    let lease = Lease::endless();
    let boot = SetBootDevice { device: BootDevice::Pxe, persistent: false, uefi: false };
    bmc.tell(boot, &lease, within(10)).await.unwrap();
    // The simulator never sets the valid bit, so it reports no override.
    assert_eq!(bmc.ask(GetBootDevice, within(10)).await.unwrap(), None);
    let events = bmc.ask(GetSelInfo, within(10)).await.unwrap().entries;
    let log = bmc.event_log(0, 100, within(10)).await.unwrap();
    assert_eq!((log.len(), usize::from(events)), (1, 1), "{log:?}");
    let reading = bmc.ask(ReadSensor { number: 1 }, within(10)).await.unwrap();
    assert_eq!(reading.value, Some(45));
}
