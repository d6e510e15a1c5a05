//! What a member's memory stands on: the bytes of its file, the way to other members, and who does slow work.
//!
//! Why it exists: the memory that runs on a machine must be the one that is tried in a simulation, line for line. So
//! what it stands on is given to it. [`crate::Store::open`] gives it a machine; a simulation gives it something worse.
//! What it never does: know which of the two it is.

use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// Something that will be there later.
pub type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The bytes of a store. What was written counts only once it was synced.
pub trait Medium: Debug + Send + Sync + 'static {
    /// Length in bytes.
    ///
    /// # Errors
    /// The device failed, as for all of these.
    fn len(&self) -> io::Result<u64>;
    /// Whether nothing was ever written.
    ///
    /// # Errors
    /// The device failed.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills `out` with the bytes from `offset` on; past the end is an error.
    ///
    /// # Errors
    /// The device failed, or there are fewer bytes.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    /// Writes `data` at `offset`.
    ///
    /// # Errors
    /// The device failed; then nothing is known of what is there.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Cuts, or fills up with zeros.
    ///
    /// # Errors
    /// The device failed.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Returns when all that was written is safe.
    ///
    /// # Errors
    /// The device failed; what was written since the last sync may be lost.
    fn sync(&self) -> io::Result<()>;
    /// How long the next transaction will take.
    fn pace(&self) -> Duration;
}

/// A byte stream to or from another member.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Whether the far end has proven to be the member with this number.
pub type Proven = Box<dyn Fn(u64) -> bool + Send + Sync>;

/// A connection that is being made from outside.
pub struct Knock {
    /// From where, for the log.
    pub from: String,
    /// The stream, once the peer has proven who it is.
    pub enters: Later<io::Result<(Box<dyn Stream>, Proven)>>,
}

/// How other members are reached. Whoever is at the far end of a stream has proven its identity.
pub trait Wire: Send + Sync + 'static {
    /// Connects to `member`, which is said to be at `address`.
    fn dial(&self, member: u64, address: &str) -> Later<io::Result<Box<dyn Stream>>>;
}

/// Where other members connect to us. Closed when it is dropped.
pub trait Door: Send + Sync + 'static {
    /// The next one that connects to us.
    fn accept(&self) -> Later<io::Result<Knock>>;
}

/// All of it.
pub struct Ground {
    /// Where the store is.
    pub medium: Arc<dyn Medium>,
    /// How members are reached.
    pub wire: Arc<dyn Wire>,
    /// Where they reach us.
    pub door: Box<dyn Door>,
}

/// Who does slow work, such as writing to disk.
#[derive(Clone, Debug)]
pub(crate) enum Workers {
    /// Threads of their own.
    Threads,
    /// Tasks of the runtime; a transaction takes as long as the medium says.
    Tasks(Arc<dyn Medium>),
}

impl Workers {
    /// Does work that would hold the runtime up.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, tokio::task::JoinError> {
        match self {
            Workers::Threads => tokio::task::spawn_blocking(work).await,
            Workers::Tasks(_) => Ok(work()),
        }
    }
}

/// A medium as the storage engine wants it.
#[derive(Debug)]
pub(crate) struct Backend(pub(crate) Arc<dyn Medium>);

impl StorageBackend for Backend {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> Result<(), io::Error> {
        self.0.sync()
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.0.write(offset, data)
    }
}

/// A medium that is gone when the process is: for copies of a file.
#[derive(Debug, Default)]
pub struct Memory(InMemoryBackend);

impl Memory {
    /// One that holds these bytes.
    ///
    /// # Errors
    /// There are more than fit.
    pub fn of(bytes: &[u8]) -> io::Result<Self> {
        let memory = Memory::default();
        memory.0.set_len(bytes.len() as u64)?;
        memory.0.write(0, bytes)?;
        Ok(memory)
    }

    /// What it holds.
    ///
    /// # Errors
    /// There are more than fit.
    pub fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.0.len()?).map_err(io::Error::other)?];
        self.0.read(0, &mut bytes)?;
        Ok(bytes)
    }
}

impl Medium for Memory {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        // The engine's own panics where there are no such bytes.
        let end = offset.checked_add(out.len() as u64);
        if end.is_none_or(|end| self.0.len().is_ok_and(|length| end > length)) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.0.read(offset, out)
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn pace(&self) -> Duration {
        Duration::ZERO
    }
}
