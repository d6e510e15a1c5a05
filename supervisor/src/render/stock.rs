//! What stands ready: `hactl spare list` and `hactl provider list`.

use super::list::{columns, pairs};
use super::{Screen, Tone, length, or_dash, table};
use crate::api::{ProviderLine, SpareLine};
use policies::{LastTakeover, Start};

/// Instances that are named in a row; the rest is counted.
const COVERS_MAX: usize = 3;

/// `hactl spare list`.
pub fn spares(spares: &[SpareLine], screen: &Screen) -> String {
    let row = |spare: &SpareLine| {
        let state = match (spare.cordoned, spare.maintenance) {
            (false, false) => screen.tint(Tone::Good, "ready"),
            (true, false) => screen.tint(Tone::Careful, "cordoned"),
            (false, true) => screen.tint(Tone::Careful, "maintenance"),
            (true, true) => screen.tint(Tone::Careful, "cordoned,maintenance"),
        };
        let power = match spare.power.as_deref() {
            _ if spare.waits_hot => screen.tint(Tone::Good, "hot"),
            Some("no answer") => screen.tint(Tone::Bad, "no answer"),
            // It would not boot what it takes over.
            Some("on") => screen.tint(Tone::Careful, "on"),
            read => or_dash(read.map(str::to_owned)),
        };
        let more = spare.covers.len().saturating_sub(COVERS_MAX);
        let mut covers: Vec<String> = spare.covers.iter().take(COVERS_MAX).map(ToString::to_string).collect();
        covers.extend((more > 0).then(|| format!("+{more}")));
        let first = vec![
            spare.name.to_string(),
            state,
            power,
            or_dash(spare.takeover.map(takeover)),
            or_dash(spare.cpus.map(|cpus| cpus.to_string())),
            or_dash(spare.memory.map(|memory| memory.to_string())),
            spare.strikes.len().to_string(),
            or_dash(Some(pairs(&spare.domains))),
            spare.fits.to_string(),
            or_dash(Some(covers.join(","))),
        ];
        let wide = vec![or_dash(spare.serial.clone()), or_dash(Some(spare.hardware.join(", ")))];
        columns(screen, first, wide, vec![or_dash(Some(spare.misses.join("; ")))])
    };
    let first =
        vec!["NAME", "STATE", "POWER", "TAKEOVER", "CPUS", "MEMORY", "STRIKES", "DOMAINS", "FITS", "COVERS"];
    let headers = columns(screen, first, vec!["SERIAL", "HARDWARE"], vec!["MISSES"]);
    let none =
        "There is no spare; `hactl spare add NAME` describes one, `hactl node release NODE` frees one.";
    table(&headers, spares.iter().map(row).collect(), none)
}

fn takeover(LastTakeover { start, took }: LastTakeover) -> String {
    match start {
        Start::Kexec => format!("{} hot", length(took)),
        Start::PowerOn | Start::PowerCycle => format!("{} cold", length(took)),
        Start::Deploy => format!("{} deployed", length(took)),
    }
}

/// `hactl provider list`.
pub fn providers(providers: &[ProviderLine], screen: &Screen) -> String {
    let row = |provider: &ProviderLine| {
        let first = vec![
            provider.name.to_string(),
            provider.kind.clone(),
            provider.address.clone(),
            provider.nodes.to_string(),
            provider.instances.to_string(),
        ];
        columns(screen, first, vec![], vec![])
    };
    let headers = ["NAME", "KIND", "ADDRESS", "NODES", "INSTANCES"];
    table(&headers, providers.iter().map(row).collect(), "No providers are described yet.")
}
