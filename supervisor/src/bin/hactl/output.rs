//! How an answer is printed: as a screen for people, as JSON or as YAML.
//!
//! Why it exists: verbs that need no cluster print in the same way as those that do. What it never does: know what is
//! printed.

use crate::args::{Cli, Output};
use crate::run::{Done, Failure};
use jiff::tz::TimeZone;
use policies::Event;
use serde::Serialize;
use std::ffi::OsStr;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use supervisor::clock;
use supervisor::render::{self, Screen};

/// Clears a terminal and begins at its top (ECMA-48 ED, CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Where and how answers are printed.
pub(crate) struct Printer {
    output: Output,
    screen: Screen,
    is_terminal: bool,
}

impl Printer {
    pub(crate) fn new(cli: &Cli) -> Printer {
        let is_terminal = std::io::stdout().is_terminal();
        let colour = is_coloured(is_terminal, std::env::var_os("NO_COLOR").as_deref());
        let wide = cli.output == Output::Wide;
        Printer {
            output: cli.output,
            screen: Screen { now: clock::wall(), zone: TimeZone::system(), colour, wide },
            is_terminal,
        }
    }

    /// The screen at this moment.
    pub(crate) fn screen(&self) -> Screen {
        Screen { now: clock::wall(), ..self.screen.clone() }
    }

    pub(crate) fn print<A: Serialize>(&self, answer: &A, screen: impl Fn(&A) -> String) -> Done {
        let text = match self.output {
            Output::Table | Output::Wide => screen(answer),
            Output::Json => {
                let json = serde_json::to_string_pretty(answer);
                json.map_err(|error| Failure::local("write JSON", &error))? + "\n"
            }
            Output::Yaml => yaml(answer)?,
        };
        say(&text)
    }

    /// One of many answers: a screen for people, a line of JSON, a YAML document.
    pub(crate) fn print_one<A: Serialize>(
        &self,
        answer: &A,
        screen: impl Fn(&A) -> String,
    ) -> Result<Reader, Failure> {
        let text = match self.output {
            Output::Table | Output::Wide => screen(answer),
            Output::Json => {
                serde_json::to_string(answer).map_err(|error| Failure::local("write JSON", &error))? + "\n"
            }
            Output::Yaml => format!("---\n{}", yaml(answer)?),
        };
        write(&text)
    }

    /// Whether a screen is painted over the one before it.
    pub(crate) fn repaints(&self) -> bool {
        match self.output {
            Output::Table | Output::Wide => self.is_terminal,
            Output::Json | Output::Yaml => false,
        }
    }

    /// One of many answers to the same question: over the last one on a terminal, else below it. Says when it was.
    pub(crate) fn print_again<A: Serialize>(
        &self,
        answer: &A,
        screen: &impl Fn(&A, &Screen) -> String,
    ) -> Result<Reader, Failure> {
        let now = self.screen();
        let clear = if self.repaints() { CLEAR } else { "" };
        let at = render::local(now.now, &now.zone);
        self.print_one(answer, |answer| format!("{clear}{at}\n{}\n", screen(answer, &now)))
    }

    pub(crate) fn print_event(&self, event: &Event) -> Result<Reader, Failure> {
        self.print_one(event, |event| render::event(event, &self.screen))
    }
}

/// Colours are for terminals whose owner wants them; NO_COLOR counts if it is not empty (https://no-color.org).
fn is_coloured(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

fn yaml(answer: &impl Serialize) -> Result<String, Failure> {
    serde_saphyr::to_string(answer).map_err(|error| Failure::local("write YAML", &error))
}

/// Whether anybody still reads what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    There,
    Gone,
}

/// That the reader has gone (`| head`) is no error.
pub(crate) fn say(text: &str) -> Done {
    write(text).map(|_| ExitCode::SUCCESS)
}

pub(crate) fn write(text: &str) -> Result<Reader, Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(Failure::local("write to standard output", &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_whose_owner_wants_them() {
        let wants = |is_terminal, no_color: Option<&str>| is_coloured(is_terminal, no_color.map(OsStr::new));
        assert!(wants(true, None) && wants(true, Some("")));
        assert!(!wants(true, Some("1")) && !wants(true, Some("0")));
        assert!(!wants(false, None));
    }
}
