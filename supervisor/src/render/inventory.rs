//! What a cloud has, against what is described: `hactl openstack import` and `hactl openstack drift`.

use super::{Screen, Tone, or_dash, table};
use crate::api::{DifferenceLine, How, ProviderInventory, RemarkLine};

/// `hactl openstack import`: all differences, what was left out and what to do next.
pub fn import(found: &ProviderInventory, screen: &Screen) -> String {
    let ProviderInventory { provider, nodes, differences, .. } = found;
    let none = format!("{provider} has {nodes} nodes, and nothing of them is new or other than described.");
    let mut text = table(&HEADERS, rows(differences.iter(), screen), &none);
    text.push_str(&remarks("Left out", &found.left_out));
    text.push_str(&remarks("Notes", &found.notes));
    text.push_str(&next(found));
    text
}

/// `hactl openstack drift`: what is described and is other at the cloud, or gone.
pub fn drift(found: &ProviderInventory, screen: &Screen) -> String {
    let ProviderInventory { provider, nodes, differences, .. } = found;
    let drifted = differences.iter().filter(|line| line.how != How::New);
    let none = format!("{provider} has {nodes} nodes; what is described of them is so.");
    let mut text = table(&HEADERS, rows(drifted, screen), &none);
    text.push_str(&remarks("Notes", &found.notes));
    if found.drifted() > 0 {
        text.push_str(&format!("\n{}", other(found)));
    }
    text
}

const HEADERS: [&str; 5] = ["OBJECT", "DIFFERENCE", "KEY", "DESCRIBED", "AT THE CLOUD"];

fn rows<'a>(lines: impl Iterator<Item = &'a DifferenceLine>, screen: &Screen) -> Vec<Vec<String>> {
    let row = |line: &DifferenceLine| {
        let how = match line.how {
            How::New => screen.tint(Tone::Good, "new"),
            How::Changed => screen.tint(Tone::Careful, "changed"),
            How::Gone => screen.tint(Tone::Bad, "gone"),
        };
        let cells = |key: &str, ours: &str, theirs: &str| {
            let rest = [key, ours, theirs].map(|text| or_dash(Some(text.to_owned())));
            [line.object.clone(), how.clone()].into_iter().chain(rest).collect::<Vec<_>>()
        };
        match line.fields.as_slice() {
            [] => vec![cells("", "", "")],
            fields => fields.iter().map(|it| cells(&it.key, &it.ours, &it.theirs)).collect(),
        }
    };
    lines.flat_map(row).collect()
}

fn remarks(title: &str, remarks: &[RemarkLine]) -> String {
    let lines = remarks.iter().map(|it| format!("  {}: {}\n", it.about, it.text));
    if remarks.is_empty() { String::new() } else { format!("\n{title}:\n{}", lines.collect::<String>()) }
}

fn next(found: &ProviderInventory) -> String {
    let (nodes, instances) = (found.additions.nodes.len(), found.additions.instances.len());
    let provider = &found.provider;
    let mut text = String::new();
    match (&found.refused, nodes + instances) {
        (Some(why), _) => text.push_str(&format!("\nWhat is new cannot be described as it is: {why}\n")),
        (None, 0) => {}
        (None, _) => text.push_str(&format!(
            "\nNext: `hactl openstack import {provider} --apply` (with the same --spares) describes what is new: {nodes} nodes, {instances} instances.\n\
             `--document` prints it for `hactl apply -f`, to be looked at or completed first.\n"
        )),
    }
    if found.drifted() > 0 {
        text.push_str(&format!("\n{}", other(found)));
    }
    text
}

fn other(found: &ProviderInventory) -> String {
    let provider = &found.provider;
    format!(
        "What is other stays as described until somebody takes it: `hactl openstack import {provider} --apply --change OBJECT`.\n\
         What is gone is deleted by hand (`hactl instance delete`, `hactl node delete`); `node` is changed by a failover only.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::FieldLine;
    use crate::render::tests::{golden, screen};
    use policies::Documents;

    fn line(object: &str, how: How, fields: &[(&str, &str, &str)]) -> DifferenceLine {
        let field = |(key, ours, theirs): &(&str, &str, &str)| {
            let [key, ours, theirs] = [key, ours, theirs].map(|text| (*text).to_owned());
            FieldLine { key, ours, theirs }
        };
        DifferenceLine { object: object.to_owned(), how, fields: fields.iter().map(field).collect() }
    }

    fn found() -> ProviderInventory {
        let additions = "[[node]]\nname = \"bm-4\"\n[[node]]\nname = \"bm-5\"\n[[instance]]\nname = \"db\"\nnode = \"bm-4\"\n";
        let remark = |about: &str, text: &str| RemarkLine { about: about.to_owned(), text: text.to_owned() };
        ProviderInventory {
            provider: "cloud".parse().unwrap(),
            nodes: 12,
            differences: vec![
                line("node/bm-4", How::New, &[]),
                line("instance/db", How::New, &[]),
                line("node/bm-5", How::New, &[]),
                line(
                    "node/bm-1",
                    How::Changed,
                    &[
                        ("capabilities.memory", "memory 256GiB", "memory 128GiB"),
                        ("initiator", "", "iqn.2026-01.test:bm-1"),
                    ],
                ),
                line("instance/web", How::Changed, &[("node", "bm-1", "bm-3")]),
                line("node/bm-9", How::Gone, &[]),
            ],
            left_out: vec![remark(
                "node/bm-6, node/bm-7",
                "it is available, and no spare by the rule `none`",
            )],
            notes: vec![remark(
                "instance/db",
                "VIF 00000004-0000-4000-8000-000000000001 is the parent of a trunk: VLAN 20 move along",
            )],
            additions: toml::from_str(additions).unwrap(),
            changes: Documents::default(),
            refused: None,
        }
    }

    #[test]
    fn differences_are_told_with_both_sides_and_what_to_do() {
        golden("openstack_import", &import(&found(), &screen()));
        golden("openstack_drift", &drift(&found(), &screen()));
        let why = "initiator iqn.x is claimed by both node/bm-4 and node/bm-5";
        let refused = ProviderInventory { refused: Some(why.to_owned()), ..found() };
        assert!(import(&refused, &screen()).contains("cannot be described as it is: initiator iqn.x"));
        let (differences, additions) = (vec![], Documents::default());
        let same = ProviderInventory { differences, additions, left_out: vec![], notes: vec![], ..found() };
        assert_eq!(
            import(&same, &screen()),
            "cloud has 12 nodes, and nothing of them is new or other than described.\n"
        );
        assert_eq!(drift(&same, &screen()), "cloud has 12 nodes; what is described of them is so.\n");
    }
}
