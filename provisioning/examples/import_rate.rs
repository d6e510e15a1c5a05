//! How long a look at a whole cloud takes: recorded answers for many nodes, served on this machine.
//!
//! Why it exists: the goal is 1,000 nodes in 10 s. What it never does: say how long a real Ironic thinks about its answers; the
//! number of its calls is what is ours.
//!
//! `cargo run --release -p provisioning --example import_rate -- [NODES] [ENTRIES OF A PAGE]`
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "the shelf is a part of tests")]

#[path = "../../openstack/tests/support/shelf.rs"]
mod shelf;

use policies::{ClusterState, Provider};
use provisioning::inventory::{SpareRule, survey};
use provisioning::{Backend, Provider as _, Us};
use shelf::Shelf;
use std::error::Error;
use std::io::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// What is deployed on nine nodes of ten.
const IMAGE: &str = "http://images/web.qcow2";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |default: usize| arguments.next().map_or(Ok(default), |text| text.parse());
    let (nodes, page) = (next(1000)?, next(500)?);
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure(nodes, page))
}

async fn measure(nodes: usize, page: usize) -> Result<(), Box<dyn Error>> {
    let mut shelf = Shelf::default();
    (0..nodes).for_each(|number| shelf.node(number, (number % 10 != 0).then_some(IMAGE)));
    let (address, calls) = shelf.serve(page).await;
    let provider: Provider = toml::from_str(&format!(
        "name = \"cloud\"\nkind = \"openstack\"\nkeystone = \"http://{address}/keystone/v3\"\nsecret = \"s\"\n\
         user = {{ by = \"application-credential\", id = \"x\" }}\n\
         deployments.web.instance_info = {{ image_source = \"{IMAGE}\" }}\n"
    ))?;
    let cloud = Backend::from_config(&provider.kind, b"s", Us::nobody())?;
    let begun = Instant::now();
    let census = cloud.census(begun + Duration::from_secs(600)).await?;
    let read = begun.elapsed();
    let found = survey(&provider, &SpareRule::Available, &census).against(&ClusterState::default());
    let all = begun.elapsed();
    writeln!(
        std::io::stdout(),
        "{nodes} nodes, pages of {page}: read in {read:.2?} with {} calls, compared after {all:.2?}; {} nodes and {} instances are new",
        calls.load(Ordering::Relaxed),
        found.additions.nodes.len(),
        found.additions.instances.len(),
    )?;
    Ok(())
}
