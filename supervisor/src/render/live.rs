//! `hactl watch`: the whole terminal as one view of the cluster, a function of what the API answered and of the time.
//!
//! What it never does: hide trouble for lack of space. What does not fit is counted, and the history gives way first.

use super::{Screen, Tone, status, table, time};
use crate::api::answers::{FailoverLine, NodeLine, Status};
use crate::api::facts::state_word;
use policies::{Event, Verdict, Wall};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

/// Lines for trouble and for failovers, each, on a screen of 24; on higher ones they get a quarter.
const SECTION_LINES_MIN: usize = 4;
/// The word for a node's state is at most so wide.
const STATE_WIDTH: usize = 12;

/// What is shown.
#[derive(Clone, Debug)]
pub struct Live {
    /// The status.
    pub status: Status,
    /// All nodes.
    pub nodes: Vec<NodeLine>,
    /// The newest events, oldest first.
    pub events: Vec<Event>,
    /// Why nothing newer is shown, if so.
    pub trouble: Option<String>,
}

/// Fills the area. `None`: nothing was answered yet.
pub fn live(live: Option<&Live>, screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let height = usize::from(area.height);
    let mut lines = match live {
        Some(live) => body(live, screen, height.saturating_sub(1), usize::from(area.width)),
        None => vec![Line::from("Asking the cluster ...")],
    };
    lines.truncate(height.saturating_sub(1));
    lines.resize(height.saturating_sub(1), Line::default());
    lines.push(foot(screen, usize::from(area.width)));
    for (y, line) in (area.top()..area.bottom()).zip(&lines) {
        buffer.set_line(area.left(), y, line, area.width);
    }
}

fn body(live: &Live, screen: &Screen, height: usize, width: usize) -> Vec<Line<'static>> {
    let section_max = SECTION_LINES_MIN.max(height / 4);
    let mut lines = vec![title(&live.status, screen)];
    lines.extend(doubts(live, screen));
    lines.extend(nodes(live, screen, width));
    lines.extend(under_way(&live.status, screen, section_max));
    lines.extend(attention(&live.status, screen, section_max));
    // The history gets what is left, and at least its newest line.
    let left = height.saturating_sub(lines.len() + 1).max(1);
    lines.push(heading("Events", screen));
    let newest = live.events.iter().skip(live.events.len().saturating_sub(left));
    let event = |event: &Event| Line::from(format!("  {}  {}", seconds(event.at, screen), event.text));
    lines.extend(newest.map(event));
    lines
}

/// How to leave, and a clock that shows that the screen lives.
fn foot(screen: &Screen, width: usize) -> Line<'static> {
    let (keys, clock) = ("q quits", seconds(screen.now, screen));
    let gap = width.saturating_sub(keys.len());
    Line::from(Span::styled(format!("{keys}{clock:>gap$}"), Style::new().add_modifier(Modifier::DIM)))
}

fn seconds(at: Wall, screen: &Screen) -> String {
    time::clock(at, &screen.zone).split('.').next().unwrap_or_default().to_owned()
}

/// Cluster, switch and members.
fn title(status: &Status, screen: &Screen) -> Line<'static> {
    let (armed, tone) = match status.armed.armed {
        true => ("armed", Tone::Good),
        false => ("disarmed", Tone::Careful),
    };
    let plain = Screen { colour: false, ..screen.clone() };
    let members = status::members(status, &plain);
    Line::from(vec![
        Span::styled(status.cluster.clone(), style(Tone::Strong, screen)),
        Span::raw("  "),
        Span::styled(armed, style(tone, screen)),
        Span::raw(format!("  {members}")),
    ])
}

/// What everything below is to be read with.
fn doubts(live: &Live, screen: &Screen) -> Vec<Line<'static>> {
    let status = &live.status;
    let local = status
        .local
        .then(|| format!("Only member {} answers, from its own memory: no quorum.", status.answered_by.0));
    let old = live.trouble.as_ref().map(|why| format!("This is old: {why}"));
    let acting = status.not_acting.as_ref().map(|why| format!("Not acting: {why}"));
    let judging = status.not_judging.as_ref().map(|why| format!("Not judging: {why}"));
    let said = [old, local, acting, judging].into_iter().flatten();
    said.map(|text| Line::from(Span::styled(text, style(Tone::Bad, screen)))).collect()
}

/// One line for each state that nodes are in, the sick ones first.
fn nodes(live: &Live, screen: &Screen, width: usize) -> Vec<Line<'static>> {
    let mut lines = vec![heading(&format!("Nodes {}", live.nodes.len()), screen)];
    for word in ["active", "fencing", "quarantined", "cleaning", "reserved", "spare"] {
        let mut there: Vec<&NodeLine> =
            live.nodes.iter().filter(|node| state_word(&node.state) == word).collect();
        if there.is_empty() {
            continue;
        }
        there.sort_by_key(|node| is_well(node));
        lines.push(names(word, &there, screen, width));
    }
    lines
}

fn is_well(node: &NodeLine) -> bool {
    match node.verdict {
        Verdict::Healthy | Verdict::Unknown => !node.maintenance && !node.cordoned,
        Verdict::Gray | Verdict::Failed(_) => false,
    }
}

/// As many names as fit, and how many more there are.
fn names(word: &str, there: &[&NodeLine], screen: &Screen, width: usize) -> Line<'static> {
    let mut spans = vec![Span::raw(format!("  {word:<STATE_WIDTH$}{:>4} ", there.len()))];
    let mut left = width.saturating_sub(STATE_WIDTH + 7);
    for (at, node) in there.iter().enumerate() {
        let tone = match node.verdict {
            Verdict::Healthy => Some(Tone::Good),
            Verdict::Unknown => None,
            Verdict::Gray => Some(Tone::Careful),
            Verdict::Failed(_) => Some(Tone::Bad),
        };
        let mark = match (&node.verdict, node.maintenance, node.cordoned) {
            (Verdict::Failed(_), _, _) => ":failed",
            (Verdict::Gray, _, _) => ":gray",
            (Verdict::Unknown | Verdict::Healthy, true, _) => ":maintenance",
            (Verdict::Unknown | Verdict::Healthy, false, true) => ":cordoned",
            (Verdict::Unknown | Verdict::Healthy, false, false) => "",
        };
        let name = format!(" {}{mark}", node.name);
        let more = format!(" +{}", there.len() - at);
        let is_last = at + 1 == there.len();
        if name.len() + if is_last { 0 } else { more.len() } > left {
            spans.push(Span::raw(more));
            break;
        }
        left -= name.len();
        spans.push(Span::styled(name, tone.map(|tone| style(tone, screen)).unwrap_or_default()));
    }
    Line::from(spans)
}

fn under_way(status: &Status, screen: &Screen, max: usize) -> Vec<Line<'static>> {
    let mut lines = vec![heading("Failovers under way", screen)];
    if status.failovers.is_empty() {
        lines.push(Line::from("  none"));
        return lines;
    }
    let shown = || status.failovers.iter().take(max);
    let table = table(&[""; 5], shown().map(|failover| row(failover, screen)).collect(), "");
    lines.extend(table.lines().skip(1).zip(shown()).map(|(row, failover)| {
        let tone = if failover.stuck.is_some() { Tone::Bad } else { Tone::Careful };
        Line::from(Span::styled(format!("  {row}"), style(tone, screen)))
    }));
    lines.extend(more(status.failovers.len(), max, "hactl failover list"));
    lines
}

/// What moves where, how far it is, and the best reason there is: what a human has to do, what it waits for, or the cause.
fn row(failover: &FailoverLine, screen: &Screen) -> Vec<String> {
    let what = match (&failover.instance, &failover.spare) {
        (Some(instance), Some(spare)) => format!("{instance}: {} to {spare}", failover.from),
        (Some(_), None) | (None, _) => format!("fence {}", failover.from),
    };
    let phase = match failover.stuck {
        Some(_) => format!("{},stuck", failover.phase),
        None => failover.phase.to_string(),
    };
    let waiting = (!failover.waiting.is_empty()).then(|| failover.waiting.join("; "));
    let reason = failover.stuck.clone().or(waiting).unwrap_or_else(|| failover.cause.to_string());
    vec![failover.id.to_string(), what, phase, time::length(screen.now.since(failover.at)), reason]
}

fn attention(status: &Status, screen: &Screen, max: usize) -> Vec<Line<'static>> {
    let mut lines = vec![heading("Needs attention", screen)];
    if status.attention.is_empty() {
        lines.push(Line::from("  nothing"));
    }
    lines.extend(status.attention.iter().take(max).map(|item| {
        let about = Span::styled(item.about.clone(), style(Tone::Strong, screen));
        Line::from(vec![Span::raw("  "), about, Span::raw(format!(": {}", item.what))])
    }));
    lines.extend(more(status.attention.len(), max, "hactl status"));
    lines
}

fn more(all: usize, shown: usize, verb: &str) -> Option<Line<'static>> {
    let more = all.saturating_sub(shown);
    (more > 0).then(|| Line::from(format!("  and {more} more: {verb}")))
}

fn heading(text: &str, screen: &Screen) -> Line<'static> {
    Line::from(Span::styled(text.to_owned(), style(Tone::Strong, screen)))
}

/// The colours of the other screens; without colours only what is strong is marked.
fn style(tone: Tone, screen: &Screen) -> Style {
    let colour = match tone {
        Tone::Strong => return Style::new().add_modifier(Modifier::BOLD),
        Tone::Good => Color::Green,
        Tone::Bad => Color::Red,
        Tone::Careful => Color::Yellow,
    };
    if screen.colour { Style::new().fg(colour) } else { Style::new() }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{golden, mid_failover, name, screen, status_of};
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn drawn(shown: Option<&Live>, screen: &Screen, width: u16, height: u16) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| live(shown, screen, frame.area(), frame.buffer_mut())).unwrap();
        terminal
    }

    fn text(shown: &Live, width: u16, height: u16) -> String {
        drawn(Some(shown), &screen(), width, height).backend().to_string()
    }

    fn shown() -> Live {
        let story = mid_failover();
        Live { status: status_of(&story), nodes: story.facts().nodes(), events: story.events, trouble: None }
    }

    #[test]
    fn a_failover_fits_a_terminal_of_80_by_24() {
        golden("watch_80x24", &text(&shown(), 80, 24));
        golden("watch_120x40", &text(&shown(), 120, 40));
    }

    #[test]
    fn trouble_is_not_pushed_out_by_much_else() {
        let mut shown = shown();
        let (node, event) = (shown.nodes[2].clone(), shown.events[0].clone());
        for number in 10..200 {
            let verdict = if number == 150 { Verdict::Gray } else { Verdict::Healthy };
            shown.nodes.push(NodeLine {
                name: name(&format!("n{number}")),
                cordoned: false,
                verdict,
                ..node.clone()
            });
            shown.events.push(event.clone());
            shown.status.attention.push(shown.status.attention[0].clone());
            shown.status.failovers.push(shown.status.failovers[0].clone());
        }
        shown.trouble = Some("no member can be reached: 10.2.0.1:7201: connection refused".into());
        shown.status.local = true;
        golden("watch_crowded_80x24", &text(&shown, 80, 24));
    }

    #[test]
    fn a_quiet_cluster_and_no_answer_yet() {
        let mut shown = shown();
        shown.status.failovers.clear();
        shown.status.attention.clear();
        shown.events.truncate(2);
        golden("watch_quiet_80x24", &text(&shown, 80, 24));
        let asking = drawn(None, &screen(), 40, 3);
        assert!(asking.backend().to_string().starts_with("\"Asking the cluster ..."));
    }

    #[test]
    fn colours_are_left_out_if_they_are_not_wanted() {
        let colours = |colour| {
            let terminal = drawn(Some(&shown()), &Screen { colour, ..screen() }, 80, 24);
            terminal.backend().buffer().content.iter().filter(|cell| cell.fg != Color::Reset).count()
        };
        assert_eq!(colours(false), 0);
        assert!(colours(true) > 20);
    }

    #[test]
    fn any_size_is_filled_and_none_panics() {
        let shown = shown();
        for (width, height) in (1..90).step_by(7).zip(1..50) {
            text(&shown, width, height);
            text(&shown, height, width);
        }
        assert!(text(&shown, 80, 1).contains("q quits"));
    }
}
