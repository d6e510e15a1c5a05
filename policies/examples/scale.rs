//! How long the brain takes on a large cluster: `cargo run --release -p policies --example scale [NODES]`.
//!
//! Nine of ten nodes carry an instance, the others are spares; racks of twenty. Prints the median of several rounds.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark prints, and one whose own texts are wrong must end"
)]

use policies::*;
use std::time::{Duration, Instant};

const ROUNDS: usize = 11;

fn documents(nodes: usize) -> Documents {
    let provider = "[[provider]]\nname = \"sw\"\nkind = \"rack\"\nurl = \"http://h\"\ntoken = \"sealed\"\n";
    let mut documents: Documents = toml::from_str(provider).expect("a provider");
    let text = "name = \"n\"\nprobe = { tcp = \"10.0.0.1:22\" }\nagent_key = \"sealed\"\n\
                ports = [{ provider = \"sw\", port = \"p\" }]\n\
                [[fencing]]\ndriver = \"ipmi\"\naddress = \"b:623\"\nuser = \"u\"\npassword = \"sealed\"\n";
    let node: Node = toml::from_str(text).expect("a node");
    let text = "name = \"i\"\nnode = \"n\"\npolicy = \"quick\"\nnetworks = [{ vlan = 10 }]\nneeds = { pool = \"gold\" }\n";
    let instance: Instance = toml::from_str(text).expect("an instance");
    for number in 0..nodes {
        let mut node = node.clone();
        node.name = format!("n{number:05}").parse().expect("a name");
        node.domains.insert("rack".to_owned(), format!("r{}", number / 20));
        node.domains.insert("pdu".to_owned(), format!("p{}", number / 10));
        node.domains.insert("switch".to_owned(), format!("s{}", number / 40));
        node.labels.insert("pool".to_owned(), if number % 3 == 0 { "gold" } else { "iron" }.to_owned());
        for port in &mut node.ports {
            port.port = format!("p{number}");
        }
        for device in &mut node.fencing {
            match device {
                FenceDevice::Ipmi { address, .. } => *address = format!("b{number}:623"),
                FenceDevice::Redfish { url, .. } => *url = format!("https://b{number}"),
                FenceDevice::Ironic { .. } => {}
            }
        }
        if number % 10 != 0 {
            let mut instance = instance.clone();
            instance.name = format!("i{number:05}").parse().expect("a name");
            instance.node = node.name.clone();
            documents.instances.push(instance);
        }
        documents.nodes.push(node);
    }
    documents
}

/// A leader of three that has heard every node, and its index.
struct Leader {
    engine: Engine,
    index: u64,
    now: u64,
}

impl Leader {
    fn new(nodes: usize) -> Self {
        let mut leader = Leader { engine: Engine::new(MemberId(1), BootId(1), "room"), index: 0, now: 1_000 };
        let me = MemberId(1);
        leader.input(Input::Voters(vec![me, MemberId(2), MemberId(3)]));
        leader.commit(Command::Describe(Box::new(documents(nodes))));
        leader.input(Input::Leader { leader: Some(me) });
        leader.commit(Command::TookOver { member: me, boot: BootId(1) });
        leader
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        let now = Now { mono: Mono(self.now), wall: Wall(self.now) };
        self.engine.handle(now, input)
    }

    /// So many nodes have failed, and no brake holds.
    fn fail(&mut self, nodes: usize) {
        let mut state = self.engine.state().clone();
        for record in state.policies.values_mut() {
            let brakes = &mut record.policy.brakes;
            brakes.hold_above_failed = u32::MAX;
            brakes.hold_above_failed_per_domain = u32::MAX;
            brakes.fences_per_10min_max = u32::MAX;
            brakes.fences_in_flight_max = u32::MAX;
        }
        state.armed.armed = true;
        let active =
            state.nodes.values_mut().filter(|record| matches!(record.state, NodeState::Active { .. }));
        for record in active.take(nodes) {
            record.verdict = Verdict::Failed(Cause::Silent);
        }
        self.input(Input::Installed(Box::new(state)));
        self.commit(Command::TookOver { member: MemberId(1), boot: BootId(1) });
    }

    fn commit(&mut self, command: Command) {
        self.index += 1;
        let proposal = Proposal { at: Wall(self.now), by: "bench".to_owned(), command };
        self.input(Input::Applied { index: LogIndex(self.index), proposal });
    }
}

fn median(mut round: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS).map(|_| round()).collect();
    times.sort();
    times[ROUNDS / 2]
}

fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let began = Instant::now();
    std::hint::black_box(work());
    began.elapsed()
}

fn main() {
    let nodes = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let mut leader = Leader::new(nodes);
    println!("{nodes} nodes, median of {ROUNDS}");
    println!("tick                    {:?}", median(|| timed(|| leader.input(Input::Tick))));
    let n: NodeId = "n00001".parse().expect("a name");
    let read = || Input::PowerRead { node: n.clone(), power: Some(Power::On) };
    println!("power reading           {:?}", median(|| timed(|| leader.input(read()))));
    let now = Now { mono: Mono(leader.now), wall: Wall(leader.now) };
    println!("view                    {:?}", median(|| timed(|| leader.engine.view(now))));
    println!("clone of the engine     {:?}", median(|| timed(|| leader.engine.clone())));
    let quiet = median(|| timed(|| leader.input(Input::Tick)));
    leader.fail(1_000);
    let busy = median(|| timed(|| leader.input(Input::Tick)));
    println!(
        "placement of 1000       {:?} (a tick with 1000 failed nodes, less one with none)",
        busy.saturating_sub(quiet)
    );
    let leader = Leader::new(nodes);
    let view = leader.engine.view(now);
    let name: PolicyId = "quick".parse().expect("a name");
    let mut policy = leader.engine.state().policies[&name].policy.clone();
    policy.spares.differs_in = vec!["switch".to_owned()];
    println!("policy plan             {:?}", median(|| timed(|| leader.engine.preview(now, &name, &policy))));
    println!("coverage                {:?}", median(|| timed(|| Coverage::of(leader.engine.state(), &view))));
}
