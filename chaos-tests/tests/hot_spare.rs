//! Spares that are machines (QEMU's): firmware, iPXE, the boot service, a kernel, the agent, kexec, and a watchdog, all real.
//!
//! Why it exists: whether a running kernel goes on into the instance's, and whether a watchdog that the agent feeds no more
//! resets the machine, shows only on one. What it never does: leave its own network namespace; there 10.0.2.2 is us, as
//! QEMU's user network has it for its guests.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says what it measured"
)]

mod rack_support;

use axum::Router;
use axum::routing::get;
use chaos_tests::lab::guest::Guest;
use chaos_tests::rack::{Binaries, Description, Fault, MoodChange, Rack, RackSpec};
use ha_agent::watchdog::bound;
use policies::{Boot, Documents, Millis, NodeId, ProviderKind};
use rack_support::{node, programs, rack_binary};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use supervisor::client::Client;
use supervisor::config::Home;

/// Long enough for an emulated machine to start on a loaded computer.
const PATIENCE: Duration = Duration::from_secs(300);
/// Of node-3's watchdog, with `heard_within`. Its kernel's watchdog counts in the time of an emulated processor, which may
/// stand still for a while: hence no shorter.
const WATCHDOG_TIMEOUT: Millis = Millis::secs(6);
const HEARD_WITHIN: Millis = Millis::secs(6);
/// Set in the process that is in a network namespace of its own.
const INSIDE: &str = "HA_TEST_INSIDE";

#[test]
fn a_hot_spare_goes_on_into_the_instance_and_a_cold_one_starts_and_fences_itself() {
    if std::env::var_os(INSIDE).is_some() {
        tokio::runtime::Runtime::new().unwrap().block_on(story());
        return;
    }
    programs::build();
    guest();
    let mut inside = Command::new("unshare");
    inside.args(["--map-root-user", "--net"]).arg(std::env::current_exe().unwrap()).arg("--nocapture");
    let said = programs::run(inside.env(INSIDE, "1")).unwrap();
    eprintln!("{said}");
}

fn guest() -> Guest {
    Guest::build(&rack_binary().ancestors().nth(2).unwrap().join("guest")).unwrap()
}

async fn story() {
    for words in ["link set lo up", "addr add 10.0.2.2/32 dev lo"] {
        assert!(Command::new("ip").args(words.split(' ')).status().unwrap().success(), "ip {words}");
    }
    let dir = tempfile::tempdir().unwrap();
    let mut description = Description::draw(&RackSpec {
        machines: 3,
        spares: 2,
        ..RackSpec::new("quick".parse().unwrap(), vec!["127.0.0.1:7301".to_owned()])
    })
    .unwrap();
    for machine in description.machines.iter_mut().skip(1) {
        machine.emulator = emulator(&machine.name);
    }
    serve_files(&description, dir.path()).await;
    let rack = Rack::start(description, dir.path(), Binaries::beside(rack_binary())).await.unwrap();
    let member = Member::start(dir.path());
    member.hactl(&[
        "policy",
        "set",
        "quick",
        "takeover.kexec_max=5m",
        "takeover.start_deadline=5m",
        "--reason",
        "slow",
    ]);
    let inventory = dir.path().join("inventory.toml");
    std::fs::write(&inventory, toml::to_string(&documents(rack.description())).unwrap()).unwrap();
    member.hactl(&["apply", "-f", inventory.to_str().unwrap()]);
    member.hactl(&["arm", "--reason", "ready"]);

    rack.fault(&node(2), Fault::PowerOn).await;
    member.until("/v1/spares", "node-2 waits hot", |spares| spares[0]["waits_hot"] == true).await;

    // As a real BMC: the spare loads the kernel meanwhile.
    let slow = MoodChange::OffDelay(Millis(3_000));
    for number in 1..=2 {
        rack.fault(&node(number), Fault::BmcMood { mood: slow }).await;
    }
    let hot = fail_over(&rack, &member, 1, 2).await;
    let console = std::fs::read_to_string(dir.path().join("machines/node-2/console")).unwrap();
    for told in [
        "waits as a hot spare in standby",
        "going on into web-1 in e2 from system",
        "[guest] runs web-1 in 2",
    ] {
        assert!(console.contains(told), "{told:?} is not in {console}");
    }
    assert_eq!(console.matches("iPXE initialising").count(), 1, "it was not started again: {console}");

    let cold = fail_over(&rack, &member, 2, 3).await;
    // No firmware's self-test is among it, which takes minutes on real hardware; so this says little of the difference there.
    eprintln!("from the fault to the new epoch: hot {hot:?}, cold {cold:?}");
    fences_itself(member, &dir.path().join("machines/node-3/console")).await;
    rack.stop().await;
}

/// Kills the only member, and waits until the watchdog of the node that lives by its answers resets it.
async fn fences_itself(member: Member, console: &Path) {
    let said = || std::fs::read_to_string(console).unwrap();
    until(
        &|| said().contains("watchdog /dev/watchdog: fed, it waits 6s"),
        "its watchdog is armed",
        PATIENCE,
        &said,
    )
    .await;
    assert!(!said().contains("not fed any more"), "it may live: {}", said());
    drop(member);
    let killed = Instant::now();
    let bound = Duration::from_millis(bound(HEARD_WITHIN, WATCHDOG_TIMEOUT).0);
    // Of the kernel that is about to be reset. How long that took is told and not judged: a loaded computer stops the machine
    // and its watchdog with it.
    until(&|| said().contains("Initiating system reboot"), "it is reset", PATIENCE, &said).await;
    let took = killed.elapsed();
    assert!(
        said().contains("not fed any more: 0 members have answered in the last 6s, 1 have to"),
        "{}",
        said()
    );
    until(
        &|| said().matches("iPXE initialising").count() == 2,
        "its firmware starts it anew",
        PATIENCE,
        &said,
    )
    .await;
    eprintln!("from the death of the member to the node's reset: {took:?}, of at most {bound:?}");
}

/// Looks until it holds.
async fn until(holds: &dyn Fn() -> bool, what: &str, patience: Duration, said: &dyn Fn() -> String) {
    let deadline = Instant::now() + patience;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {patience:?}\n{}", said());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Lets a node hang, and waits until its instance is on the other one.
async fn fail_over(rack: &Rack, member: &Member, from: usize, to: usize) -> Duration {
    let began = Instant::now();
    assert!(rack.fault(&node(from), Fault::Hang).await);
    let is_done = |failovers: &Value| {
        let to = format!("node-{to}");
        failovers.as_array().is_some_and(|all| {
            all.iter().any(|failover| failover["spare"] == to.as_str() && failover["phase"] == "done")
        })
    };
    member.until("/v1/failovers", &format!("the instance is on node-{to}"), is_done).await;
    began.elapsed()
}

fn mac(node: &NodeId) -> String {
    let number: u8 = node.as_str().rsplit('-').next().unwrap().parse().unwrap();
    format!("52:54:00:00:00:{number:02x}")
}

/// A machine that starts from the network.
fn emulator(node: &NodeId) -> Vec<String> {
    let card = format!("virtio-net-pci,netdev=n,mac={}", mac(node));
    let words = "qemu-system-x86_64 -machine q35,graphics=off -accel tcg -cpu max -m 512 -nodefaults -display none \
                 -serial stdio -boot n -netdev user,id=n,bootfile=http://10.0.2.2:7480/boot/start/pxe -device";
    words.split_whitespace().map(str::to_owned).chain([card]).collect()
}

/// What the members know: the rack's inventory, with spares that start from the boot service.
fn documents(description: &Description) -> Documents {
    let mut documents = description.inventory().unwrap();
    let boot = r#"
        [[provider]]
        name = "pxe"
        kind = "boot"
        urls = ["http://10.0.2.2:7480"]
        [provider.images.standby.linux]
        kernel = "http://10.0.2.2:7500/vmlinuz"
        initrd = ["http://10.0.2.2:7500/base.cpio", "http://10.0.2.2:7500/{node}.cpio"]
        args = "console=ttyS0 quiet no_timer_check ha.standby"
        [provider.images.system.linux]
        kernel = "http://10.0.2.2:7500/vmlinuz"
        initrd = ["http://10.0.2.2:7500/base.cpio", "http://10.0.2.2:7500/{node}.cpio"]
        args = "console=ttyS0 quiet no_timer_check ha.instance={instance} ha.epoch={epoch}"
    "#;
    let Documents { providers, .. } = toml::from_str(boot).unwrap();
    assert!(matches!(providers[0].kind, ProviderKind::Boot { .. }));
    documents.providers.extend(providers);
    let served = |image: &str| Some(Boot { provider: "pxe".parse().unwrap(), image: image.to_owned() });
    for spare in documents.nodes.iter_mut().skip(1) {
        spare.boot_macs = vec![mac(&spare.name).parse().unwrap()];
    }
    documents.nodes[1].standby = served("standby");
    documents.instances[0].boot = served("system");
    documents
}

/// Serves the kernel, the common RAM disk, and each spare's own with its agent and its key.
async fn serve_files(description: &Description, dir: &Path) {
    let (mut router, guest) = (Router::new(), guest());
    let agent = rack_binary().with_file_name("ha-agent");
    for file in ["vmlinuz", "base.cpio"] {
        let bytes = axum::body::Bytes::from(guest.read(file).unwrap());
        router = router.route(&format!("/{file}"), get(async move || bytes));
    }
    for machine in description.machines.iter().skip(1) {
        let (node, key) = (&machine.name, &machine.agent_key.0);
        let config = format!(
            "node = \"{node}\"\nkey = \"{key}\"\nepoch_file = \"/run/epoch\"\ninventory = false\n\
             boot_services = [\"http://10.0.2.2:7480\"]\n[[paths]]\nname = \"a\"\nmembers = [\"10.0.2.2:7301\"]\n"
        );
        // The last spare is the one that is alone with its watchdog in the end.
        let watchdog =
            format!("[watchdog]\ntimeout = \"{WATCHDOG_TIMEOUT}\"\nheard_within = \"{HEARD_WITHIN}\"\n");
        let config = config + if *node == self::node(3) { &watchdog } else { "" };
        let disk =
            guest.own_disk(&dir.join(format!("{node}-disk")), &agent, &[("/etc/ha-agent.toml", &config)]);
        let bytes = axum::body::Bytes::from(disk.unwrap());
        router = router.route(&format!("/{node}.cpio"), get(async move || bytes));
    }
    let listener = tokio::net::TcpListener::bind("0.0.0.0:7500").await.unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
}

/// One real member; killed when it is dropped.
struct Member {
    home: Home,
    process: std::process::Child,
    client: Client,
}

impl Member {
    fn start(dir: &Path) -> Member {
        let supervisord = rack_binary().with_file_name("ha-supervisord");
        let home = Home::new(dir.join("m1"));
        let mut init = Command::new(&supervisord);
        init.args(["init", "--id", "1", "--cluster", "test", "--member-addr", "127.0.0.1:7101"]);
        init.args(["--api-addr", "127.0.0.1:7201", "--heartbeat-addr", "127.0.0.1:7301", "--dir"]);
        programs::run(init.arg(home.dir())).unwrap();
        let config = home.dir().join("config.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        let with_boot = text.replacen("[member]\n", "[member]\nboot_listen = \"0.0.0.0:7480\"\n", 1);
        assert_ne!(text, with_boot);
        std::fs::write(&config, with_boot).unwrap();
        let log = std::fs::File::create(dir.join("m1.log")).unwrap();
        let mut run = Command::new(supervisord);
        let process =
            run.args(["run", "--dir"]).arg(home.dir()).stdout(log.try_clone().unwrap()).stderr(log).spawn();
        let client = Client::open(&home.hactl(), PATIENCE).unwrap();
        Member { home, process: process.unwrap(), client }
    }

    fn hactl(&self, words: &[&str]) {
        let mut hactl = Command::new(rack_binary().with_file_name("hactl"));
        programs::run(hactl.env("HACTL_CONFIG", self.home.hactl()).args(words)).unwrap();
    }

    /// What the machines have said, for whoever has to find out why one does not.
    fn consoles(&self) -> String {
        let machines = self.home.dir().with_file_name("machines");
        let mut said = String::new();
        for machine in std::fs::read_dir(machines).unwrap() {
            let console = machine.unwrap().path().join("console");
            if let Ok(text) = std::fs::read_to_string(&console) {
                said += &format!("--- {}\n{text}\n", console.display());
            }
        }
        said
    }

    /// Asks until the answer is as wished.
    async fn until(&self, path: &str, what: &str, holds: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer: Value = self.client.get(path).await.unwrap();
            if holds(&answer) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{what}: not within {PATIENCE:?}; the last answer: {answer:#}\n{}",
                self.consoles()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}
