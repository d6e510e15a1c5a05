//! Starting the rack's child processes.
//!
//! What this is: one thread that forks, for the whole rack.
//! Why it exists: the kernel ends a child that asked for it (PR_SET_PDEATHSIG) when the *thread* that forked it ends,
//! see prctl(2); threads of a runtime come and go, this one lives as long as the rack.
//! What it never does: it waits for no child; whoever asked for one owns it.

use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};
use std::io;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

type Request = (Command, oneshot::Sender<io::Result<Child>>);

/// Handle of the forking thread. The thread ends when the last handle is dropped, and the children with it.
#[derive(Clone, Debug)]
pub struct Offspring {
    requests: std::sync::mpsc::Sender<Request>,
}

impl Offspring {
    /// Starts the thread. Has to be called inside a tokio runtime, which later tells how children ended.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start() -> io::Result<Self> {
        let (runtime, rack) = (tokio::runtime::Handle::current(), getpid());
        let (requests, inbox) = std::sync::mpsc::channel::<Request>();
        let fork = move || {
            let _inside = runtime.enter();
            for (mut command, reply) in inbox {
                end_with(rack, &mut command);
                // If nobody waits for the child any more, dropping it kills it.
                drop(reply.send(command.kill_on_drop(true).spawn()));
            }
        };
        std::thread::Builder::new().name("offspring".to_owned()).spawn(fork)?;
        Ok(Offspring { requests })
    }

    /// Starts a child. When this returns, the child runs its program, and nothing, not even stopping it, keeps the
    /// kernel from ending it with us.
    ///
    /// # Errors
    /// What the system says, or `BrokenPipe` if the thread has ended.
    pub async fn spawn(&self, command: Command) -> io::Result<Child> {
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the forking thread has ended");
        let (reply, answer) = oneshot::channel();
        self.requests.send((command, reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// Lets the kernel kill the child when its parent ends. The child asks for it before its program runs: a program
/// that asked for itself could be stopped before it did, and then outlive everything.
#[allow(unsafe_code, reason = "only what runs between fork and exec cannot be stopped too early")]
fn end_with(parent: Pid, command: &mut Command) {
    let ask = move || {
        set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have ended before the kernel knew of our wish.
        if getppid() == parent { Ok(()) } else { Err(Errno::ESRCH.into()) }
    };
    // SAFETY: `ask` calls prctl(2) and getppid(2) only, which are async-signal-safe, and allocates nothing.
    unsafe {
        command.pre_exec(ask);
    }
}
