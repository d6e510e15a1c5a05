//! The demo's processes: started, watched, ended.
//!
//! Why it exists: whatever happens to the demo, nothing of it goes on running.
//! What it never does: end a process that it did not start; it goes by the handle of the child, never by a name.

use super::DemoError;
use super::error::{system, tail};
use crate::rack::offspring::Offspring;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout, timeout_at};

/// Longest time for a program that is run for its answer: `hactl member add` waits until a member has caught up, a service of the
/// testbed until it answers, and the computer is busy.
const ANSWER_MAX: Duration = Duration::from_secs(240);

/// What a program finds around it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Around {
    /// Variables of its environment, on top of ours.
    pub(crate) environment: Vec<(String, String)>,
    /// The file of the network namespace that it is put into; `None`: ours.
    pub(crate) net: Option<PathBuf>,
}

/// How to start processes that cannot outlive the demo.
#[derive(Clone, Debug)]
pub(crate) struct Starter {
    offspring: Offspring,
    /// The `rack` program, whose verb `child` becomes a program that the kernel ends with its parent.
    rack: PathBuf,
}

impl Starter {
    pub(crate) fn new(rack: PathBuf) -> Result<Self, DemoError> {
        Ok(Starter { offspring: Offspring::start().map_err(system("start the thread that forks"))?, rack })
    }

    /// Starts a program that runs on; its words go to `log`.
    pub(crate) async fn start<A: AsRef<OsStr>>(
        &self,
        name: &str,
        program: &Path,
        args: impl IntoIterator<Item = A>,
        around: &Around,
        log: PathBuf,
    ) -> Result<Process, DemoError> {
        let doing = || format!("start {name}, which logs to {}", log.display());
        let said = File::create(&log).map_err(system(doing()))?;
        let also = said.try_clone().map_err(system(doing()))?;
        let mut command = Command::new(&self.rack);
        command.args(["child", "--parent", &std::process::id().to_string()]);
        if let Some(net) = &around.net {
            command.arg("--net").arg(net);
        }
        command.arg("--").arg(program).args(args);
        command.envs(around.environment.iter().map(|(name, value)| (name, value)));
        // A group of its own: Ctrl-C at the terminal reaches only the demo, which ends everything in order.
        command.stdin(Stdio::null()).stdout(said).stderr(also).process_group(0);
        let child = self.offspring.spawn(command).await.map_err(system(doing()))?;
        Ok(Process { name: name.to_owned(), child, log, _forked_by: self.offspring.clone() })
    }
}

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// The kernel ends the child when the thread that forked it ends; so the thread lives as long as its children.
    _forked_by: Offspring,
}

impl Process {
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Makes sure that it still runs.
    pub(crate) fn check(&mut self) -> Result<(), DemoError> {
        match self.child.try_wait().map_err(system(format!("look after {}", self.name)))? {
            None => Ok(()),
            Some(status) => Err(DemoError::Ended {
                name: self.name.clone(),
                status: status.to_string(),
                log: self.log.clone(),
                tail: tail(&self.log),
            }),
        }
    }

    /// Ends it at once, as a power failure would (SIGKILL).
    pub(crate) async fn kill(&mut self) -> Result<(), DemoError> {
        self.child.kill().await.map_err(system(format!("kill {}", self.name)))
    }

    /// Asks it to end (SIGTERM).
    pub(crate) fn ask_to_end(&self) {
        // A child without a pid has ended. One that ends just now is no error either.
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
        }
    }

    /// Waits for its end until the deadline, then kills it.
    pub(crate) async fn ended(mut self, deadline: Instant) -> Result<(), DemoError> {
        match timeout_at(deadline, self.child.wait()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(system(format!("wait for the end of {}", self.name))(error)),
            Err(_) => self.kill().await,
        }
    }
}

/// Ends programs in order: all are asked, and killed if they take longer than this.
pub(crate) async fn end_all(processes: Vec<Process>, within: Duration) -> Result<(), DemoError> {
    processes.iter().for_each(Process::ask_to_end);
    let deadline = Instant::now() + within;
    for process in processes {
        process.ended(deadline).await?;
    }
    Ok(())
}

/// Runs a program for its answer.
///
/// # Errors
/// [`DemoError::Program`] with everything that it said, if it fails or takes too long.
pub(crate) async fn answer<A: AsRef<OsStr>>(
    program: &Path,
    args: impl IntoIterator<Item = A>,
    environment: &[(&str, &str)],
) -> Result<String, DemoError> {
    let mut command = Command::new(program);
    command.args(args).envs(environment.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    let typed = typed(&command);
    let output = match timeout(ANSWER_MAX, command.output()).await {
        Ok(output) => output.map_err(system(format!("run {typed}")))?,
        Err(_) => {
            let status = format!("no end in {ANSWER_MAX:?}");
            return Err(DemoError::Program { command: typed, status, output: String::new() });
        }
    };
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    if !output.status.success() {
        let (status, output) = (output.status.to_string(), said.concat());
        return Err(DemoError::Program { command: typed, status, output });
    }
    let [answer, _] = said;
    Ok(answer)
}

/// Runs a program that must succeed.
pub(crate) fn run(command: &mut std::process::Command, input: Option<&str>) -> Result<(), DemoError> {
    let typed = format!("{command:?}").replace('"', "");
    let doing = || system(format!("run {typed}"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(doing())?;
    if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
        pipe.write_all(input.as_bytes()).map_err(doing())?;
    }
    let output = child.wait_with_output().map_err(doing())?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Err(DemoError::Program { command: typed, status: output.status.to_string(), output: said.concat() })
}

/// The command as one would type it.
pub(super) fn typed(command: &Command) -> String {
    let command = command.as_std();
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    let quoted = words.map(|word| {
        let word = word.to_string_lossy();
        if word.contains(' ') { format!("'{word}'") } else { word.into_owned() }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failing_program_is_shown_as_typed_with_what_it_said() {
        let script = ["-c", "echo no luck; exit 3"];
        let error = answer(Path::new("/bin/sh"), script, &[]).await.unwrap_err();
        let said = error.to_string();
        assert!(
            said.starts_with("sh -c 'echo no luck; exit 3'\n  failed (exit status: 3):\nno luck"),
            "{said}"
        );
    }
}
