//! The disk of a member: what was written is safe only once it was synced, and sometimes not even written.
//!
//! Why it exists: the storage engine must be tried byte by byte on a disk that tears, loses, fails and lies.
//! What it never does: know what is stored.

use super::world::World;
use policies::MemberId;
use raft_store::ground::Medium;
use std::io;
use std::time::Duration;

/// What a disk does to its bytes: the unit that survives a power loss whole.
const SECTOR: usize = 512;

/// The head of a redb file, with the two commit slots. A damaged slot cannot be told from a commit that a power failure has
/// torn: the store goes back to the one before, as it must after a torn one. That it does not rot is an assumption
/// (docs/TESTING.md; safety seed 15948 broke it).
const HEAD: u64 = 320;

/// The bytes, as they are on the platter and as the operating system believes them to be.
#[derive(Debug, Default)]
pub struct Platter {
    /// What a process reads.
    cached: Vec<u8>,
    /// What survives.
    durable: Vec<u8>,
    /// Writes since the last sync, in order.
    unsynced: Vec<Change>,
    /// Every operation fails from now on.
    pub failing: Option<io::ErrorKind>,
    /// A sync reports success and does nothing.
    pub lying: bool,
    /// Milliseconds that a transaction takes.
    pub pace: u64,
    /// Count of syncs.
    pub syncs: u64,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, data: Vec<u8> },
    Length(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Length(length) => bytes.resize(*length, 0),
            Change::Write { offset, data } => {
                let end = offset + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(data);
            }
        }
    }

    /// Only some of its sectors arrive.
    fn torn(&self, keep: impl Fn(usize) -> bool) -> Vec<Change> {
        match self {
            Change::Length(_) => vec![self.clone()],
            Change::Write { offset, data } => {
                let sectors = data.chunks(SECTOR).enumerate().filter(|(sector, _)| keep(*sector));
                let write = |(sector, data): (usize, &[u8])| Change::Write {
                    offset: offset + sector * SECTOR,
                    data: data.to_vec(),
                };
                sectors.map(write).collect()
            }
        }
    }
}

impl Platter {
    /// The power goes (a process that is killed loses nothing: the page cache outlives it): each write since the last
    /// sync arrived whole, in part, or not at all.
    pub fn lose_power(&mut self, dice: &mut super::dice::Dice) {
        for change in std::mem::take(&mut self.unsynced) {
            match dice.between(0, 2) {
                0 => {}
                1 => change.apply(&mut self.durable),
                _ => {
                    let sectors = dice.draw();
                    for part in change.torn(|sector| sectors >> (sector % 64) & 1 == 1) {
                        part.apply(&mut self.durable);
                    }
                }
            }
        }
        self.cached = self.durable.clone();
    }

    /// Bytes change while nobody reads them; but for those of redb's commit slots ([`HEAD`]).
    pub fn rot(&mut self, bytes: u64, dice: &mut super::dice::Dice) {
        for _ in 0..bytes {
            let Some(last) = (self.durable.len() as u64).checked_sub(1) else { return };
            let at = usize::try_from(dice.between(HEAD.min(last), last)).unwrap_or(0);
            self.durable[at] ^= 1 << dice.between(0, 7);
        }
        self.cached = self.durable.clone();
    }

    fn working(&self) -> io::Result<()> {
        self.failing.map_or(Ok(()), |kind| Err(io::Error::new(kind, "the simulated disk fails")))
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        self.working()?;
        change.apply(&mut self.cached);
        self.unsynced.push(change);
        Ok(())
    }
}

/// The disk as one life of a member sees it.
#[derive(Debug)]
pub struct Disk {
    /// Where it is.
    pub world: World,
    /// Whose it is.
    pub member: MemberId,
    /// Which life.
    pub life: u64,
}

impl Disk {
    /// Does something to the platter, unless this life is over: then nothing reaches it any more.
    fn with<T>(&self, doing: impl FnOnce(&mut Platter) -> io::Result<T>) -> io::Result<T> {
        self.world.with(|world| {
            let process = world.process(self.member);
            if !process.is(self.life) {
                return Err(io::Error::other("this life is over"));
            }
            doing(&mut process.platter)
        })
    }
}

impl Medium for Disk {
    fn len(&self) -> io::Result<u64> {
        self.with(|platter| Ok(platter.cached.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|platter| {
            let from = usize::try_from(offset).map_err(io::Error::other)?;
            let bytes = platter.cached.get(from..from + out.len());
            out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        self.with(|platter| platter.change(Change::Write { offset, data: data.to_vec() }))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let length = usize::try_from(len).map_err(io::Error::other)?;
        self.with(|platter| platter.change(Change::Length(length)))
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|platter| {
            platter.working()?;
            platter.syncs += 1;
            if !platter.lying {
                for change in std::mem::take(&mut platter.unsynced) {
                    change.apply(&mut platter.durable);
                }
            }
            Ok(())
        })?;
        self.world.with(|world| world.maybe_die_after_sync(self.member));
        Ok(())
    }

    fn pace(&self) -> Duration {
        let pace = self.world.with(|world| {
            let most = world.process(self.member).platter.pace;
            world.dice.between(0, most)
        });
        Duration::from_millis(pace)
    }
}
