//! Starting the rack's child processes.
//!
//! What this is: one thread that forks, for the whole rack.
//! Why it exists: the kernel ends a child that asked for it (PR_SET_PDEATHSIG) when the *thread* that forked it ends,
//! see prctl(2); threads of a runtime come and go, this one lives as long as the rack.
//! What it never does: it waits for no child; whoever asked for one owns it.

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
        let runtime = tokio::runtime::Handle::current();
        let (requests, inbox) = std::sync::mpsc::channel::<Request>();
        let fork = move || {
            let _inside = runtime.enter();
            for (mut command, reply) in inbox {
                // If nobody waits for the child any more, dropping it kills it.
                drop(reply.send(command.kill_on_drop(true).spawn()));
            }
        };
        std::thread::Builder::new().name("offspring".to_owned()).spawn(fork)?;
        Ok(Offspring { requests })
    }

    /// Starts a child.
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
