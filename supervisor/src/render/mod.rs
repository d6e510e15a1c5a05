//! What `hactl` prints: screens as pure functions of what the API answered and of the time.
//!
//! Why it exists: an operator decides by these lines at three in the morning, so each screen is compared with a text
//! in `testdata/`. What it never does: ask for the time, for the terminal or for the cluster.

mod beforehand;
mod detail;
mod inventory;
mod list;
mod live;
mod replay;
mod status;
mod stock;
mod time;

pub use beforehand::{coverage, losing, policy_lint, policy_plan};
pub use detail::{
    bundle, committed, context, described, effective_policy, event, explanation, failover, instance, node,
    policy, policy_history, power,
};
pub use inventory::{drift, import};
pub use list::{contexts, failovers, instances, members, nodes, policies};
pub use live::{Live, live};
pub use replay::{Replayed, replayed};
pub use status::status;
pub use stock::{providers, spares};
pub use time::{ago, at, clock, length, local, utc};

use comfy_table::{ContentArrangement, Table, TableComponent, presets};
use jiff::tz::TimeZone;
use policies::{Checked, Finding, Wall};

/// Where and when a screen is shown.
#[derive(Clone, Debug)]
pub struct Screen {
    /// The reader's clock.
    pub now: Wall,
    /// The reader's time zone.
    pub zone: TimeZone,
    /// Colours are shown on terminals only.
    pub colour: bool,
    /// Lists show more columns.
    pub wide: bool,
}

/// How a word is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tone {
    Good,
    Bad,
    Careful,
    Strong,
}

impl Screen {
    /// The text in its colour (ECMA-48 SGR), or plain.
    fn tint(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Careful => "33",
            Tone::Strong => "1",
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn at(&self, at: Wall) -> String {
        time::at(at, self.now, &self.zone)
    }
}

/// Columns without borders, as `kubectl` prints them; a note instead of an empty table.
fn table(headers: &[&str], rows: Vec<Vec<String>>, none: &str) -> String {
    if rows.is_empty() {
        return format!("{none}\n");
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.remove_style(TableComponent::HeaderLines);
    table.set_header(headers.to_vec());
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// What a provider says of one object, and how fresh that is.
fn checked(checked: &Checked, screen: &Screen) -> String {
    let Checked { check, finding, age, lasting } = checked;
    let age = time::length(*age);
    let (tone, since) = match finding {
        Finding::Fine => (Tone::Good, String::new()),
        Finding::Absent(_) | Finding::Faulty(_) | Finding::Unclaimed => (Tone::Bad, String::new()),
        Finding::CannotTell(_) => (Tone::Careful, format!(", so for {}", time::length(*lasting))),
    };
    format!("{check}: {} ({age} ago{since})", screen.tint(tone, &finding.to_string()))
}

/// `-` for what is not there, so that columns stay aligned for `awk`.
fn or_dash(text: Option<String>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned())
}

#[cfg(test)]
pub(crate) mod tests;
