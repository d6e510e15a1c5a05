//! Running a site's own program: one run, within the time of whoever waits for it.
//!
//! Why it exists: `exec` providers and the snapshots of `ha-storage` are other people's programs, that may hang, talk without
//! end, and start what outlives them. What it never does: leave anything running once nobody waits for it any more, or give
//! the program anything of our environment.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::io::Error;
use std::path::Path;
use std::process::Stdio;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// Longest answer (standard output), in bytes.
const ANSWER_MAX: u64 = 64 * 1024;
/// Longest complaint (standard error) that is kept, in bytes.
const COMPLAINT_MAX: u64 = 1000;
/// What the program finds in `PATH`; nothing else of our environment is given to it.
const PROGRAM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that runs, with everything that it starts: a process group of its own, which ends with this unless it has
/// ended by itself.
pub(crate) struct Run {
    child: Child,
    group: Option<Pid>,
}

/// How a run ended.
pub(crate) struct Ended {
    /// What it answered.
    pub(crate) answer: Vec<u8>,
    /// What it complained of.
    pub(crate) complaint: String,
    /// Whether its exit code was 0.
    pub(crate) success: bool,
}

impl Run {
    pub(crate) fn start<'a>(
        program: &Path,
        words: impl IntoIterator<Item = &'a OsStr>,
    ) -> Result<Run, Error> {
        let child = Command::new(program)
            .args(words)
            .env_clear()
            .env("PATH", PROGRAM_PATH)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        Ok(Run { child, group })
    }

    /// Tells it the request and waits for its end.
    pub(crate) async fn talk(&mut self, request: &[u8]) -> Result<Ended, Error> {
        let missing = || Error::other("it has no standard streams");
        let mut input = self.child.stdin.take().ok_or_else(missing)?;
        let output = self.child.stdout.take().ok_or_else(missing)?;
        let complaint = self.child.stderr.take().ok_or_else(missing)?;
        let tell = async {
            // Some answer without having read it all.
            if input.write_all(request).await.is_ok() {
                input.shutdown().await.unwrap_or_default();
            }
            drop(input);
            Ok(())
        };
        let (mut answer, mut said) = (vec![], vec![]);
        let mut output = output.take(ANSWER_MAX + 1);
        let listen = async {
            let mut begin = complaint.take(COMPLAINT_MAX);
            begin.read_to_end(&mut said).await?;
            // It must not stand still because nobody hears the rest.
            tokio::io::copy(&mut begin.into_inner(), &mut tokio::io::sink()).await
        };
        let take = async {
            let length = output.read_to_end(&mut answer).await?;
            match u64::try_from(length) {
                Ok(0..=ANSWER_MAX) => Ok(()),
                Ok(_) | Err(_) => Err(Error::other(format!("its answer is longer than {ANSWER_MAX} bytes"))),
            }
        };
        let ((), (), _) = tokio::try_join!(tell, take, listen)?;
        let status = self.child.wait().await?;
        // It has ended, so its number may soon be another's.
        self.group = None;
        let complaint = String::from_utf8_lossy(&said).trim().to_owned();
        Ok(Ended { answer, complaint, success: status.success() })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // What it started must not act later than we believe. That the group is gone already is no error.
        if let Some(group) = self.group {
            killpg(group, Signal::SIGKILL).unwrap_or_default();
        }
    }
}
