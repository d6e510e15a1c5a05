//! What the emulated servers run: Debian's kernel, a system in memory, and the agent.
//!
//! Why it exists: the recipe is `chaos-tests/lab/guest/build`; here are the parts that each server has of its own, and the
//! commands that are the servers. What it never does: install anything.

use super::fabric::Card;
use super::{MACHINES, at, storage};
use crate::demo::DemoError;
use crate::demo::error::system;
use crate::demo::process::run;
use crate::rack::description::MachineDescription;
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get};
use policies::causes;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Command;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Memory of a machine. Less than this and the kernel does not find room for the RAM disks.
const MEMORY: &str = "384";

/// The common parts, built.
#[derive(Clone, Debug)]
pub struct Guest {
    dir: PathBuf,
}

impl Guest {
    /// Makes them in this directory, unless they are there. Fetches Debian's packages.
    ///
    /// # Errors
    /// [`DemoError`] with what the recipe said.
    pub fn build(dir: &Path) -> Result<Guest, DemoError> {
        let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/guest/build");
        run(Command::new(recipe).arg(dir), None)?;
        Ok(Guest { dir: dir.to_owned() })
    }

    /// One of the files: `vmlinuz`, `base.cpio`, `lab.cpio`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&self, file: &str) -> Result<Vec<u8>, DemoError> {
        let path = self.dir.join(file);
        fs::read(&path).map_err(system(format!("read {}", path.display())))
    }

    /// The program that is most of the system; the lab's DHCP server, too.
    pub fn busybox(&self) -> PathBuf {
        self.dir.join("busybox")
    }

    /// A RAM disk with the agent, the libraries that it is linked with, and files: the path in the guest and the contents. It
    /// is put together below `tree`.
    ///
    /// # Errors
    /// If a program that it takes fails, or a file cannot be written.
    pub fn own_disk(&self, tree: &Path, agent: &Path, files: &[(&str, &str)]) -> Result<Vec<u8>, DemoError> {
        let put = |from: &Path, to: &str| {
            let to = tree.join(to.trim_start_matches('/'));
            let parent = to.parent().unwrap_or(tree);
            let copied = fs::create_dir_all(parent).and_then(|()| fs::copy(from, &to));
            copied.map(drop).map_err(system(format!("copy {}", from.display())))
        };
        put(agent, "/bin/ha-agent")?;
        // What debuggers need is most of it, and every byte is fetched and hashed by an emulated processor.
        run(Command::new("strip").arg(tree.join("bin/ha-agent")), None)?;
        for library in libraries(agent)? {
            put(Path::new(&library), &library)?;
        }
        for (path, text) in files {
            let to = tree.join(path.trim_start_matches('/'));
            let parent = to.parent().unwrap_or(tree);
            let written = fs::create_dir_all(parent).and_then(|()| fs::write(&to, text));
            written.map_err(system(format!("write {}", to.display())))?;
        }
        let packed = tree.with_extension("cpio");
        let mut pack = Command::new("sh");
        pack.args(["-c", "find . | \"$0\" cpio -o -H newc > \"$1\""]).arg(self.busybox()).arg(&packed);
        run(pack.current_dir(tree), None)?;
        fs::read(&packed).map_err(system(format!("read {}", packed.display())))
    }
}

fn libraries(program: &Path) -> Result<Vec<String>, DemoError> {
    let output = Command::new("ldd").arg(program).output().map_err(system("run ldd"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect())
}

/// The emulator that is the machine of this number.
pub(super) fn emulator(number: u8) -> Vec<String> {
    let words = format!(
        "qemu-system-x86_64 -machine q35,graphics=off -accel tcg -cpu max -m {MEMORY} -nodefaults -display none \
         -boot n"
    );
    // The first card starts the machine; the second has no firmware, which would only ask in vain.
    let cards = [(Card::Infra, at::boot_mac(number), ""), (Card::Tenant, at::spare_mac(number), ",romfile=")];
    let cards = cards.into_iter().flat_map(|(card, mac, more)| {
        let port = card.port(number);
        [
            "-netdev".to_owned(),
            format!("tap,id={port},ifname={port},script=no,downscript=no,vnet_hdr=off"),
            "-device".to_owned(),
            format!("virtio-net-pci,netdev={port},mac={mac}{more}"),
        ]
    });
    words.split_whitespace().map(str::to_owned).chain(cards).collect()
}

/// Serves a file, with a mark by which a client knows whether it has it already, as any web server does.
fn file(bytes: Vec<u8>) -> MethodRouter {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    let (mark, bytes) = (format!("\"{:016x}\"", hasher.finish()), Bytes::from(bytes));
    get(async move |headers: HeaderMap| {
        let has_it =
            headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == mark.as_bytes());
        match has_it {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => ([(header::ETAG, mark)], bytes).into_response(),
        }
    })
}

/// Serves what machines start from, until it is dropped.
pub(super) struct Files {
    task: JoinHandle<()>,
}

impl Files {
    /// The common parts, each machine's own, and the first script.
    pub(super) async fn serve(
        guest: &Guest,
        machines: &[MachineDescription],
        agent: &Path,
        dir: &Path,
        first_script: String,
    ) -> Result<Files, DemoError> {
        let mut router = Router::new();
        let mut add = |name: &str, bytes: Vec<u8>| {
            router = std::mem::take(&mut router).route(&format!("/{name}"), file(bytes));
        };
        add("start", first_script.into_bytes());
        for file in ["vmlinuz", "base.cpio", "lab.cpio"] {
            add(file, guest.read(file)?);
        }
        for (number, machine) in (1..=MACHINES).zip(machines) {
            let secret = format!("node-{number} {}\n", storage::chap_secret(number));
            let files = [("/etc/ha-agent.toml", &*agent_config(machine)), ("/etc/chap", &*secret)];
            let disk = guest.own_disk(&dir.join(machine.name.as_str()), agent, &files)?;
            add(&format!("{}.cpio", machine.name), disk);
        }
        let address = SocketAddrV4::new(at::STORAGE, at::FILES);
        let listener =
            TcpListener::bind(address).await.map_err(system(format!("serve files at {address}")))?;
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(error = causes(&error), "the file server ended");
            }
        });
        Ok(Files { task })
    }

    /// Where a file of that name is.
    pub(super) fn url(name: &str) -> String {
        format!("http://{}:{}/{name}", at::STORAGE, at::FILES)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn agent_config(machine: &MachineDescription) -> String {
    let members: Vec<String> =
        (1..=3).map(|number| format!("\"{}:7300\"", at::member_infra(number))).collect();
    let services: Vec<String> =
        (1..=3).map(|number| format!("\"http://{}:{}\"", at::member_infra(number), at::BOOT)).collect();
    format!(
        "node = \"{}\"\nkey = \"{}\"\nepoch_file = \"/run/epoch\"\ninventory = false\nboot_services = [{}]\n\
         [write_probe]\nfile = \"/run/written\"\nmode = \"age-of-file\"\n\
         [[paths]]\nname = \"infra\"\nmembers = [{}]\n",
        machine.name,
        machine.agent_key.0,
        services.join(", "),
        members.join(", ")
    )
}
