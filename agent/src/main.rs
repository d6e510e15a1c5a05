//! The agent's process: reads its arguments, paces the heartbeats, says farewell.
//!
//! Why it exists: a small static binary that a node can run with nothing else installed.
//! What it never does: it does not fork, obey anybody but its signals and its boot service, or write anything but lines on
//! its standard error, and food for its watchdogs.

use ha_agent::beacon::Beacon;
use ha_agent::config::{Config, EpochSource};
use ha_agent::hardware::Hardware;
use ha_agent::kexec;
use ha_agent::standby::{self, News, Standby};
use ha_agent::watchdog::Watchdog;
use ha_agent::wire::NodeTag;
use nix::sys::signal::{SigSet, Signal};
use policies::{Epoch, LastGasp};
use std::env::consts::ARCH;
use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

const HELP: &str = "\
Heartbeats of this node for the failover supervisor.

Usage:
  ha-agent run --config FILE               send heartbeats until a signal comes
                                           SIGTERM, SIGINT: say farewell, end; SIGHUP: end without a word
  ha-agent spare --config FILE             the same as a hot spare: wait for an instance, load its kernel, and go on
                                           into it (kexec) when the cluster says so; needs boot_services in FILE
  ha-agent gasp --panic --config FILE      say once that the kernel panicked (for a crash kernel's hook)
  ha-agent gasp --shutdown --config FILE   say once that the system is shutting down
  ha-agent check --config FILE             read and check the configuration, send nothing
  ha-agent inventory                       print this node's hardware as a [node.capabilities] table
  ha-agent --help | --version
";

/// A farewell is sent this often, for there is no second chance and a datagram may be lost.
const GASPS: u32 = 3;
/// Between the farewells: more than the gap of one lost burst frame, less than anyone waits for.
const GASP_PAUSE: Duration = Duration::from_millis(20);

/// What the arguments ask for.
#[derive(Debug, PartialEq, Eq)]
enum Ask {
    Help,
    Version,
    Run(PathBuf),
    Spare(PathBuf),
    Gasp(LastGasp, PathBuf),
    Check(PathBuf),
    Inventory,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match parse(&arguments) {
        Ok(Ask::Help) => print(HELP),
        Ok(Ask::Version) => print(concat!("ha-agent ", env!("CARGO_PKG_VERSION"), "\n")),
        Ok(Ask::Run(file)) => run(&file),
        Ok(Ask::Spare(file)) => spare(&file),
        Ok(Ask::Gasp(why, file)) => read(&file).and_then(|config| {
            farewell(&mut Beacon::new(config)?, why);
            Ok(())
        }),
        Ok(Ask::Check(file)) => check(&file),
        Ok(Ask::Inventory) => print(&Hardware::look(Path::new("/"), ARCH).to_document()),
        Err(wrong) => {
            say(format_args!("{wrong}\n\n{HELP}"));
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
            say(format_args!("{error}{source}"));
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Result<Ask, String> {
    let (mut verb, mut file, mut gasp) = (None, None, None);
    let mut rest = arguments.iter().map(String::as_str);
    while let Some(argument) = rest.next() {
        match argument {
            "--help" | "-h" | "help" => return Ok(Ask::Help),
            "--version" | "-V" => return Ok(Ask::Version),
            "--config" => file = Some(PathBuf::from(rest.next().ok_or("--config needs a file")?)),
            "--panic" => gasp = Some(LastGasp::Panic),
            "--shutdown" => gasp = Some(LastGasp::Shutdown),
            "run" | "spare" | "gasp" | "check" | "inventory" if verb.is_none() => verb = Some(argument),
            unknown => return Err(format!("unknown argument {unknown:?}")),
        }
    }
    let verb = verb.ok_or("say what to do: run, spare, gasp, check or inventory")?;
    if verb == "inventory" {
        let alone = file.is_none() && gasp.is_none();
        return if alone { Ok(Ask::Inventory) } else { Err("inventory takes no other arguments".into()) };
    }
    let file = file.ok_or_else(|| format!("{verb} needs --config FILE"))?;
    match (verb, gasp) {
        ("run", None) => Ok(Ask::Run(file)),
        ("spare", None) => Ok(Ask::Spare(file)),
        ("check", None) => Ok(Ask::Check(file)),
        ("gasp", Some(why)) => Ok(Ask::Gasp(why, file)),
        ("gasp", None) => Err("gasp needs --panic or --shutdown".into()),
        (verb, _) => Err(format!("{verb} takes no --panic or --shutdown")),
    }
}

fn read(file: &Path) -> Result<Config, Box<dyn Error>> {
    Ok(Config::read(file)?)
}

fn check(file: &Path) -> Result<(), Box<dyn Error>> {
    let config = read(file)?;
    let members: usize = config.paths.iter().map(|path| path.members.len()).sum();
    print(&format!(
        "node {} (tag {}), a heartbeat every {} over {} paths to {members} addresses\n",
        config.node,
        NodeTag::of(config.node.as_str()),
        config.interval,
        config.paths.len(),
    ))?;
    match config.watchdog {
        Some(watchdog) => print(&format!("{watchdog}\n")),
        None => Ok(()),
    }
}

/// What ends the even beat.
enum Event {
    Signal(Signal),
    Standby(News),
    Watchdog(String),
}

fn run(file: &Path) -> Result<(), Box<dyn Error>> {
    let signals = block()?;
    let (pass_on, events) = mpsc::channel();
    pass_on_signals(signals, pass_on.clone())?;
    live(read(file)?, &events, pass_on)
}

/// Waits for an instance as a hot spare.
fn spare(file: &Path) -> Result<(), Box<dyn Error>> {
    if !standby::root_is_in_memory()? {
        return Err("the root file system is not in memory: a hot spare leaves its system behind at any moment, and may \
                    switch the machine off; start it from a RAM disk"
            .into());
    }
    let signals = block()?;
    let mut config = read(file)?;
    if config.boot_services.is_empty() {
        let file = file.display();
        return Err(format!(
            "{file}: a hot spare asks the members' boot services: write boot_services = [...]"
        )
        .into());
    }
    config.epoch = EpochSource::Fixed(Epoch::STANDBY);
    let (pass_on, events) = mpsc::channel();
    pass_on_signals(signals, pass_on.clone())?;
    let told = pass_on.clone();
    let tell = move |news| told.send(Event::Standby(news)).is_ok();
    Standby::start(config.boot_services.clone(), config.node.clone(), tell)?;
    live(config, &events, pass_on)
}

/// Blocks the signals before the first thread starts, so that all threads leave them to the one that waits for them.
fn block() -> Result<SigSet, Box<dyn Error>> {
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    signals.thread_block()?;
    Ok(signals)
}

/// Beats until something ends it. What the watchdogs say goes through `pass_on`, so that they never wait for a line to be
/// taken.
fn live(config: Config, events: &Receiver<Event>, pass_on: Sender<Event>) -> Result<(), Box<dyn Error>> {
    let interval = Duration::from_millis(config.interval.0);
    say(format_args!("node {} {}: a heartbeat every {}", config.node, config.boot, config.interval));
    let looks = if config.inventory { Some(Hardware::keep_looking(ARCH)?) } else { None };
    let watchdog = config.watchdog.clone();
    let mut beacon = Beacon::new(config)?;
    let mut watchdog = watchdog.map(|config| Watchdog::new(config, beacon.watched()));
    // Fails only if this thread has ended, and with it the process.
    let tell = move |line| drop(pass_on.send(Event::Watchdog(line)));
    watchdog.as_mut().map_or(Ok(()), |watchdog| watchdog.start(&tell))?;
    loop {
        match beat_until_event(&mut beacon, watchdog.as_ref(), interval, events, looks.as_ref())? {
            Event::Signal(signal @ Signal::SIGHUP) => {
                let_go(watchdog.as_mut());
                say(format_args!("{signal}: ending without a farewell"));
                return Ok(());
            }
            Event::Signal(signal) => {
                farewell(&mut beacon, LastGasp::Shutdown);
                let_go(watchdog.as_mut());
                say(format_args!("{signal}: said farewell, ending"));
                return Ok(());
            }
            Event::Watchdog(what) | Event::Standby(News::Said(what)) => say(format_args!("{what}")),
            // Members take a new life of a node only after the old one has ended.
            Event::Standby(News::GoOn(booting)) => {
                say(format_args!("going on into {booting}"));
                farewell(&mut beacon, LastGasp::Shutdown);
                // Nobody would feed them while the other kernel starts.
                let_go(watchdog.as_mut());
                say(format_args!("going on into {booting} failed: {}", kexec::go()));
                watchdog.as_mut().map_or(Ok(()), |watchdog| watchdog.start(&tell))?;
            }
            Event::Standby(News::Halt(why)) => {
                say(format_args!("switching off: {why}"));
                farewell(&mut beacon, LastGasp::Shutdown);
                let_go(watchdog.as_mut());
                say(format_args!("switching off failed: {}", kexec::power_off()));
                watchdog.as_mut().map_or(Ok(()), |watchdog| watchdog.start(&tell))?;
            }
        }
    }
}

fn let_go(watchdog: Option<&mut Watchdog>) {
    for line in watchdog.map(Watchdog::stop).unwrap_or_default() {
        say(format_args!("{line}"));
    }
}

/// Keeps the beat on a grid, so that the time of sending adds up to nothing; beats that a stall has made late are
/// left out, for only the newest says anything.
fn beat_until_event(
    beacon: &mut Beacon,
    watchdog: Option<&Watchdog>,
    interval: Duration,
    events: &Receiver<Event>,
    looks: Option<&Receiver<Hardware>>,
) -> Result<Event, Box<dyn Error>> {
    let mut due = Instant::now();
    let mut untold = false;
    loop {
        for notice in beacon.send(None) {
            say(format_args!("{notice}"));
        }
        if let Some(watchdog) = watchdog {
            beacon.hear().into_iter().for_each(|(member, sent)| watchdog.heard(member, sent));
        }
        // After a heartbeat: members believe only a life that they hear.
        if let Some(hardware) = looks.and_then(|looks| looks.try_recv().ok()) {
            match beacon.tell(&hardware.capabilities) {
                Ok(notices) => notices.iter().for_each(|notice| say(format_args!("{notice}"))),
                Err(error) if !untold => {
                    untold = true;
                    say(format_args!("{error}"));
                }
                Err(_) => {}
            }
        }
        due += interval;
        let now = Instant::now();
        if due < now {
            due = now;
        }
        match events.recv_timeout(due - now) {
            Ok(event) => return Ok(event),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err("the threads that wait for signals ended".into());
            }
        }
    }
}

/// Starts a thread that passes on the first of the signals.
fn pass_on_signals(signals: SigSet, pass_on: Sender<Event>) -> io::Result<()> {
    let work = move || {
        if let Ok(signal) = signals.wait() {
            // Fails only if the main thread has ended, and with it the process.
            pass_on.send(Event::Signal(signal)).ok();
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(work)?;
    Ok(())
}

fn farewell(beacon: &mut Beacon, why: LastGasp) {
    for gasp in 0..GASPS {
        if gasp > 0 {
            std::thread::sleep(GASP_PAUSE);
        }
        for notice in beacon.send(Some(why)) {
            say(format_args!("{notice}"));
        }
    }
}

/// A line for the journal. If nobody takes it, heartbeats matter more.
fn say(line: fmt::Arguments<'_>) {
    writeln!(io::stderr(), "ha-agent: {line}").ok();
}

fn print(text: &str) -> Result<(), Box<dyn Error>> {
    Ok(io::stdout().write_all(text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(line: &str) -> Result<Ask, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_are_read_in_any_order() {
        assert_eq!(ask("run --config /c"), Ok(Ask::Run("/c".into())));
        assert_eq!(ask("--config /c gasp --panic"), Ok(Ask::Gasp(LastGasp::Panic, "/c".into())));
        assert_eq!(ask("gasp --shutdown --config /c"), Ok(Ask::Gasp(LastGasp::Shutdown, "/c".into())));
        assert_eq!(ask("check --config /c"), Ok(Ask::Check("/c".into())));
        assert_eq!(ask("spare --config /c"), Ok(Ask::Spare("/c".into())));
        assert_eq!(ask("inventory"), Ok(Ask::Inventory));
        assert_eq!(ask("run --help"), Ok(Ask::Help));
        assert_eq!(ask("--version"), Ok(Ask::Version));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (line, expected) in [
            ("", "say what to do"),
            ("run", "run needs --config FILE"),
            ("run --config", "--config needs a file"),
            ("run --conf /c", "\"--conf\""),
            ("run check --config /c", "\"check\""),
            ("gasp --config /c", "gasp needs --panic or --shutdown"),
            ("run --panic --config /c", "run takes no --panic"),
            ("inventory --config /c", "inventory takes no other"),
        ] {
            let error = ask(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
