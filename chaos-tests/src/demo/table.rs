//! How the demo speaks: lines, timelines, tables.
//!
//! Why it exists: what a newcomer sees is the demo; it has one look, and colours only on a terminal.
//! What it never does: round a number that matters or hide one; times have three decimals, or one in milliseconds.

use super::DemoError;
use super::error::system;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// Columns of a line. Narrower than most terminals, so that nothing is broken twice.
const WIDTH: usize = 110;
/// Columns before the text of a timeline.
const TIME_WIDTH: usize = 11;

/// How a text is to stand out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ink {
    Bold,
    Dim,
    Good,
    Bad,
}

/// The text in that ink, if standard output is a terminal and nobody asked for plain text (no-color.org).
pub(super) fn ink(ink: Ink, text: &str) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if plain || !std::io::stdout().is_terminal() {
        return text.to_owned();
    }
    let code = match ink {
        Ink::Bold => "1",
        Ink::Dim => "2",
        Ink::Good => "32",
        Ink::Bad => "31",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// Says it.
///
/// # Errors
/// If standard output is gone: then nobody listens and the demo ends.
pub(crate) fn say(text: &str) -> Result<(), DemoError> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(system("write to standard output"))
}

/// Seconds with three decimals.
pub(super) fn seconds(length: Duration) -> String {
    format!("{:.3}", length.as_secs_f64())
}

/// Milliseconds with one decimal, for what takes no second.
pub(super) fn milliseconds(length: Duration) -> String {
    format!("{:.1}", length.as_secs_f64() * 1000.0)
}

/// Seconds with a unit, or a dash for what did not happen.
pub(super) fn moment(length: Option<Duration>) -> String {
    length.map_or_else(|| "-".to_owned(), |length| format!("{} s", seconds(length)))
}

/// One line of a timeline; a long text goes on below itself.
pub(super) fn timeline(at: Duration, text: &str) -> String {
    let mut lines = wrap(text, WIDTH - TIME_WIDTH).into_iter();
    let first = lines.next().unwrap_or_default();
    let mut shown = format!("{:>width$}  {first}", seconds(at), width = TIME_WIDTH - 2);
    for line in lines {
        shown.push('\n');
        shown.push_str(&" ".repeat(TIME_WIDTH));
        shown.push_str(&line);
    }
    shown
}

/// Breaks a text between words.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A table without borders: the first column is left-aligned, the others right-aligned.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = head
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([title.chars().count()]).max().unwrap_or(0)
        })
        .collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.into_iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let head = line(head.to_vec());
    let rows = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    std::iter::once(head).chain(rows).collect::<Vec<_>>().join("\n")
}

/// Median, least and greatest; `None` of nothing.
pub(crate) fn spread(values: &[Duration]) -> Option<(Duration, Duration, Duration)> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let (least, greatest) = (*sorted.first()?, *sorted.last()?);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get((sorted.len() - 1) / 2)?;
    Some(((lower + upper) / 2, least, greatest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_of_a_timeline_goes_on_below_itself() {
        let text = format!("{} {}", "a".repeat(60), "b".repeat(60));
        let shown = timeline(Duration::from_micros(742_400), &text);
        let expected = format!("    0.742  {}\n           {}", "a".repeat(60), "b".repeat(60));
        assert_eq!(shown, expected);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows =
            [vec!["hang".to_owned(), "0.742 s".to_owned()], vec!["partition".to_owned(), "-".to_owned()]];
        assert_eq!(
            table(&["kind", "back"], &rows),
            "kind          back\nhang       0.742 s\npartition        -"
        );
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        let ms = Duration::from_millis;
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[ms(5)]), Some((ms(5), ms(5), ms(5))));
        assert_eq!(spread(&[ms(9), ms(1), ms(4)]), Some((ms(4), ms(1), ms(9))));
        assert_eq!(spread(&[ms(9), ms(1), ms(4), ms(6)]), Some((ms(5), ms(1), ms(9))));
    }
}
