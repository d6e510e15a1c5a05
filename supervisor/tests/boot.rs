//! What a node is told when it starts: by the service, by our own look at it, and by iPXE in a real (QEMU's) firmware.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what a test did not expect must end it; the helpers of tests are tests too"
)]

mod daemon;

use axum::Router;
use axum::routing::get;
use daemon::*;
use fencing::contract::Lease;
use policies::{
    Action, Boot, BootRole, Check, Documents, Effect, Epoch, Finding, LogIndex, MemberId, Outcome, PlanId,
    ProviderKind, Refusal, Seen,
};
use provisioning::{Backend, Provider, Us, Wish, carry_out, check};
use reqwest::Method;
use std::process::Stdio;
use std::time::Duration;
use supervisor::api::Applying;
use supervisor::config::Home;
use supervisor::init;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::Instant;

/// What describes two nodes and an instance; its image is one more `[provider.images.NAME]`.
fn documents(urls: &str, image: &str) -> Documents {
    let node = |name: &str, last: u8| {
        format!(
            "[[node]]\nname = \"{name}\"\nboot_macs = [\"52:54:00:00:00:0{last}\"]\ninitiator = \"iqn.{name}\"\n\
             [[node.fencing]]\ndriver = \"ipmi\"\naddress = \"127.0.0.{last}:623\"\nuser = \"ha\"\npassword = \"calvin\"\n"
        )
    };
    let text = format!(
        "[[provider]]\nname = \"pxe\"\nkind = \"boot\"\nurls = [{urls}]\n{image}\n{}{}\
         [[instance]]\nname = \"web\"\nnode = \"n1\"\nboot = {{ provider = \"pxe\", image = \"own\" }}\n",
        node("n1", 1),
        node("s1", 2),
    );
    toml::from_str(&text).unwrap()
}

const LINUX: &str = "[provider.images.own.linux]\nkernel = \"http://h/vmlinuz\"\nargs = \"ha.epoch={epoch} root={instance}\"\n";

async fn apply(daemon: &Daemon, documents: Documents) {
    let applying = Applying { documents };
    daemon.client().order::<serde_json::Value>(Method::POST, "/v1/apply", &applying).await.unwrap();
}

async fn ask(daemon: &Daemon, path: &str) -> (u16, String) {
    let http = provisioning::rack::plain_client(PATIENCE).unwrap();
    let answer = http.get(format!("http://{}{path}", daemon.boot)).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn role(daemon: &Daemon, path: &str) -> BootRole {
    let (status, body) = ask(daemon, path).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_told_what_the_committed_state_says_of_it() {
    let (_dir, daemon) = one_member().await;
    let own = format!("\"http://{}\"", daemon.boot);
    apply(&daemon, documents(&own, LINUX)).await;
    let (status, script) = ask(&daemon, "/boot/mac/52-54-00-00-00-01/ipxe").await;
    let expected = "#!ipxe\necho boots web in e1 from own\nset initiator-iqn iqn.n1\nimgfree\n\
                    kernel http://h/vmlinuz ha.epoch=1 root=web\nboot\n";
    assert_eq!((status, script.as_str()), (200, expected));
    let (status, start) = ask(&daemon, "/boot/start/pxe").await;
    assert_eq!(status, 200);
    assert!(start.contains(&format!("chain --autofree http://{}/boot/mac/", daemon.boot)), "{start}");
    assert!(matches!(role(&daemon, "/boot/mac/52:54:00:00:00:01?epoch=1").await, BootRole::Boots(_)));
    for (path, word) in [
        ("/boot/mac/52:54:00:00:00:01?epoch=7", "web is in e1, no longer in e7"),
        ("/boot/mac/52:54:00:00:00:02", "s1 is spare"),
        ("/boot/node/s1", "s1 is spare"),
    ] {
        let role = role(&daemon, path).await;
        assert!(matches!(&role, BootRole::Halts { why } if why == word), "{path}: {role}");
    }
    for path in ["/boot/mac/52:54:00:00:00:09", "/boot/node/n9"] {
        assert!(matches!(role(&daemon, path).await, BootRole::Waits { .. }), "{path}");
    }
    for (path, expected) in [
        ("/boot/mac/52:54/ipxe", 400),
        ("/boot/mac/52:54:00:00:00:01?epoch=x", 400),
        ("/boot/start/other", 404),
        ("/v1/status", 404),
    ] {
        assert_eq!(ask(&daemon, path).await.0, expected, "{path}");
    }
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_does_not_lead_says_so_and_gives_the_first_script_only() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::new(dir.path().join("m1"));
    init::init(&home, MemberId(1), "test", addresses(), jiff::Timestamp::now()).unwrap();
    std::fs::remove_file(home.founding()).unwrap();
    let daemon = Daemon::start(home).await;
    for path in ["/boot", "/boot/node/n1", "/boot/mac/52:54:00:00:00:01/ipxe"] {
        assert_eq!(ask(&daemon, path).await.0, 503, "{path}");
    }
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_knows_its_role_is_told_when_it_changes() {
    let (_dir, daemon) = one_member().await;
    let own = format!("\"http://{}\"", daemon.boot);
    apply(&daemon, documents(&own, LINUX)).await;
    let http = provisioning::rack::plain_client(PATIENCE).unwrap();
    let ask = |mark: &str, wait: &str| {
        let question = http.get(format!("http://{}/boot/node/n1", daemon.boot));
        question.header("If-None-Match", mark).header("Prefer", wait).send()
    };
    let answer = ask("\"another\"", "wait=2").await.unwrap();
    assert_eq!(answer.status(), 200, "it knows something else");
    let mark = answer.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(ask(&mark, "respond-async").await.unwrap().status(), 304, "it does not want to wait");
    let waiting = tokio::spawn(ask(&mark, "wait=2"));
    apply(&daemon, documents(&own, &LINUX.replace("vmlinuz", "vmlinux"))).await;
    let answer = waiting.await.unwrap().unwrap();
    // Whether it was asked before the change or after.
    assert_eq!(answer.status(), 200);
    assert!(answer.text().await.unwrap().contains("vmlinux"));
    daemon.end().await;
}

fn set_boot(epoch: u64) -> Effect {
    let action = Action::SetBoot {
        node: "n1".parse().unwrap(),
        provider: "pxe".parse().unwrap(),
        instance: "web".parse().unwrap(),
        image: "own".to_owned(),
        epoch: Epoch(epoch),
    };
    Effect { token: LogIndex(7), plan: Some(PlanId(1)), action }
}

fn backend(urls: &[String]) -> Backend {
    let urls = urls.iter().map(|url| url.parse().unwrap()).collect();
    let images = toml::from_str::<Documents>(&format!(
        "[[provider]]\nname = \"pxe\"\nkind = \"boot\"\nurls = []\n{LINUX}"
    ));
    let Some(ProviderKind::Boot { images, .. }) =
        images.unwrap().providers.pop().map(|provider| provider.kind)
    else {
        panic!("no boot provider")
    };
    Backend::from_config(&ProviderKind::Boot { urls, images }, b"", Us::nobody()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_look_sees_what_the_node_will_be_told() {
    let (_dir, daemon) = one_member().await;
    let own = format!("http://{}", daemon.boot);
    apply(&daemon, documents(&format!("{own:?}"), LINUX)).await;
    let nobody = "http://127.0.0.1:1".to_owned();
    let soon = || Instant::now() + PATIENCE;
    let run = async |urls: &[String], epoch| {
        carry_out(&backend(urls), &set_boot(epoch), None, &Lease::endless(), soon()).await
    };

    let both = [nobody.clone(), own.clone()];
    let done = run(&both, 1).await;
    let read_back = "boots web in e1 from own".to_owned();
    assert_eq!(done, Outcome::Done(Seen::ReadBack(read_back)), "a member that is away is passed over");
    let refused = run(&both, 2).await;
    assert!(matches!(&refused, Outcome::Refused(Refusal::DeviceRefused(_))), "{refused:?}");
    let refused = run(std::slice::from_ref(&nobody), 1).await;
    assert!(
        matches!(&refused, Outcome::Refused(Refusal::Unreachable(why)) if why.contains("127.0.0.1:1")),
        "{refused:?}"
    );

    let find = async |urls: &[String], image: &str| {
        let boot = Boot { provider: "pxe".parse().unwrap(), image: image.to_owned() };
        check(&backend(urls), &Check::Boot(boot), soon()).await
    };
    assert_eq!(find(&both, "own").await, Finding::Fine);
    assert!(matches!(find(&both, "other").await, Finding::Absent(why) if why.contains("other")));
    assert!(matches!(find(std::slice::from_ref(&nobody), "own").await, Finding::CannotTell(_)));

    let volume = Wish::Revoked { volume: "v".parse().unwrap(), holder: "i".to_owned() };
    assert!(backend(&both).look(&volume, soon()).await.is_err(), "it keeps no volumes");
    daemon.end().await;
}

/// A machine whose firmware is SeaBIOS with iPXE; ended when it is dropped. Its user network leads to our loopback.
struct Machine {
    _child: tokio::process::Child,
    console: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
    heard: Vec<String>,
}

impl Machine {
    fn start(mac: &str, daemon: &Daemon) -> Machine {
        let network = format!("user,id=n,bootfile=http://10.0.2.2:{}/boot/start/pxe", daemon.boot.port());
        let card = format!("virtio-net-pci,netdev=n,mac={mac}");
        let mut command = tokio::process::Command::new("qemu-system-x86_64");
        command.args([
            "-machine",
            "q35,graphics=off",
            "-accel",
            "tcg",
            "-m",
            "256",
            "-nodefaults",
            "-display",
            "none",
        ]);
        command.args(["-netdev", &network, "-device", &card, "-boot", "n", "-serial", "stdio"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn();
        let mut child =
            child.expect("start QEMU: it is in Debian's package qemu-system-x86, which `make test` installs");
        let console = BufReader::new(child.stdout.take().unwrap()).lines();
        Machine { _child: child, console, heard: vec![] }
    }

    /// Waits until its console shows the text.
    async fn shows(&mut self, text: &str) {
        let listening = async {
            while let Some(line) = self.console.next_line().await.unwrap() {
                let found = line.contains(text);
                self.heard.push(line);
                if found {
                    return;
                }
            }
            panic!("it ended");
        };
        // Firmware takes seconds; here it is emulated, beside other tests.
        if tokio::time::timeout(Duration::from_secs(180), listening).await.is_err() {
            panic!("{text:?} did not come; its console: {:#?}", self.heard);
        }
    }
}

/// The smallest kernel that a loader takes (Multiboot 0.6.96 §3.1, loaded and entered at 1 MiB): it writes its command line
/// to the first serial port and halts.
fn kernel() -> Vec<u8> {
    const MAGIC: u32 = 0x1bad_b002;
    const LOAD: u32 = 0x10_0000;
    const HEADER: u32 = 32;
    const ADDRESSES_VALID: u32 = 1 << 16;
    let checksum = MAGIC.wrapping_add(ADDRESSES_VALID).wrapping_neg();
    let header = [MAGIC, ADDRESSES_VALID, checksum, LOAD, LOAD, 0, 0, LOAD + HEADER];
    #[rustfmt::skip]
    let code = [
        0x8b, 0x73, 0x10,       //       mov esi, [ebx + 16]    ; its command line (§3.3)
        0xac,                   // next: lodsb
        0x84, 0xc0, 0x74, 0x14, //       test al, al; jz end
        0x88, 0xc4,             //       mov ah, al
        0x66, 0xba, 0xfd, 0x03, //       mov dx, 0x3fd
        0xec, 0xa8, 0x20,       // wait: in al, dx; test al, 0x20 ; may be written
        0x74, 0xfb,             //       jz wait
        0x88, 0xe0,             //       mov al, ah
        0x66, 0xba, 0xf8, 0x03, //       mov dx, 0x3f8
        0xee, 0xeb, 0xe7,       //       out dx, al; jmp next
        0xb0, 0x0a, 0xee,       // end:  mov al, 10; out dx, al
        0xf4, 0xeb, 0xfd,       // halt: hlt; jmp halt
    ];
    header.into_iter().flat_map(u32::to_le_bytes).chain(code).collect()
}

async fn serve_kernel() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = Router::new().route("/kernel", get(async || kernel()));
    tokio::spawn(async move { axum::serve(listener, router).await });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_firmware_boots_the_instance_and_a_spare_is_told_to_halt() {
    let (_dir, daemon) = one_member().await;
    let port = serve_kernel().await;
    let image = format!(
        "[provider.images.own.linux]\nkernel = \"http://10.0.2.2:{port}/kernel\"\n\
         args = \"it runs {{instance}} in {{epoch}} on {{node}}\"\n"
    );
    // Nobody listens at the first.
    let urls = format!("\"http://10.0.2.2:1\", \"http://10.0.2.2:{}\"", daemon.boot.port());
    apply(&daemon, documents(&urls, &image)).await;
    let mut node = Machine::start("52:54:00:00:00:01", &daemon);
    node.shows("boots web in e1 from own").await;
    node.shows("/kernel it runs web in 1 on n1").await;
    let mut spare = Machine::start("52:54:00:00:00:02", &daemon);
    spare.shows("must not run: s1 is spare").await;
    // This iPXE cannot switch off: it is told again, for as long as it is on.
    spare.shows("must not run: s1 is spare").await;
    daemon.end().await;
}

/// A sector that the BIOS starts: it writes a line to the first serial port and halts.
fn boot_sector(line: &str) -> Vec<u8> {
    #[rustfmt::skip]
    let code = [
        0x31, 0xc0, 0x8e, 0xd8, //       xor ax, ax; mov ds, ax
        0xbe, 0x21, 0x7c,       //       mov si, 0x7c21 ; the line, after the code
        0xac,                   // next: lodsb
        0x84, 0xc0, 0x74, 0x12, //       test al, al; jz halt
        0x88, 0xc4,             //       mov ah, al
        0xba, 0xfd, 0x03,       //       mov dx, 0x3fd
        0xec, 0xa8, 0x20,       // wait: in al, dx; test al, 0x20 ; may be written
        0x74, 0xfb,             //       jz wait
        0x88, 0xe0,             //       mov al, ah
        0xba, 0xf8, 0x03,       //       mov dx, 0x3f8
        0xee, 0xeb, 0xe9,       //       out dx, al; jmp next
        0xf4, 0xeb, 0xfd,       // halt: hlt; jmp halt
    ];
    let mut sector = [&code[..], line.as_bytes(), b"\r\n\0"].concat();
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector
}

/// tgt with one volume, to which one initiator has a right.
struct Storage {
    directory: tempfile::TempDir,
    _tgtd: tokio::process::Child,
    port: u16,
}

impl Storage {
    async fn start(target: &str, initiator: &str, sector: &[u8]) -> Storage {
        let directory = tempfile::tempdir().unwrap();
        // tgtd takes no listener of ours; that the port is still free a moment later is likely, and it says so if not.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut tgtd = tokio::process::Command::new("tgtd");
        tgtd.args(["-f", "--iscsi", &format!("portal=127.0.0.1:{port}")]);
        tgtd.env("TGT_IPC_SOCKET", directory.path().join("tgt")).stderr(Stdio::null()).kill_on_drop(true);
        let tgtd =
            tgtd.spawn().expect("start tgtd: it is in Debian's package tgt, which `make test` installs");
        let storage = Storage { directory, _tgtd: tgtd, port };
        until("tgtd answers", || storage.tgtadm("--mode sys --op show")).await;
        let disk = storage.directory.path().join("disk");
        std::fs::write(&disk, sector).unwrap();
        // A BIOS counts cylinders of 255 * 63 sectors, and needs one.
        std::fs::File::options().write(true).open(&disk).unwrap().set_len(16 << 20).unwrap();
        let lun = format!("--mode logicalunit --op new --tid 1 --lun 1 -b {}", disk.display());
        let bind = format!("--mode target --op bind --tid 1 --initiator-name {initiator}");
        for words in [&format!("--mode target --op new --tid 1 -T {target}"), &lun, &bind] {
            assert!(storage.tgtadm(words), "{words}");
        }
        storage
    }

    fn tgtadm(&self, words: &str) -> bool {
        let mut tgtadm = std::process::Command::new("tgtadm");
        tgtadm.args(["--lld", "iscsi"]).args(words.split(' '));
        tgtadm.env("TGT_IPC_SOCKET", self.directory.path().join("tgt"));
        tgtadm.output().unwrap().status.success()
    }
}

/// The node says who it is as storage knows it: without the right name tgt lets nobody in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_firmware_boots_from_a_volume_as_the_nodes_initiator() {
    let (_dir, daemon) = one_member().await;
    let sector = boot_sector("it runs from its volume");
    let storage = Storage::start("iqn.2026-11.test:web-root", "iqn.n1", &sector).await;
    let uri = format!("iscsi:10.0.2.2::{}:1:iqn.2026-11.test:{{instance}}-root", storage.port);
    let urls = format!("\"http://10.0.2.2:{}\"", daemon.boot.port());
    apply(&daemon, documents(&urls, &format!("[provider.images.own.san]\nuri = \"{uri}\"\n"))).await;
    let mut node = Machine::start("52:54:00:00:00:01", &daemon);
    node.shows("it runs from its volume").await;
    daemon.end().await;
}
