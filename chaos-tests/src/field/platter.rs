//! A disk as plain data: what was written, what of it is safe, and what the next power loss takes.
//!
//! Why it exists: a program keeps what it acknowledged only if it asked for durability at the right moments, and only a
//! disk that forgets everything else shows whether it did.
//! What it never does: no FUSE, no clock, no threads; `faultfs.rs` serves it to the kernel.
//!
//! The rules are those of ext4: `fsync` of a file makes its content and its own name safe; renames and removals become
//! safe by `fsync` of the directory.

use nix::errno::Errno;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;

/// The number of the root directory (FUSE_ROOT_ID).
pub(super) const ROOT: u64 = 1;
/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// What is wrong with the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ills {
    /// Every `fsync` fails with EIO and makes nothing safe.
    pub(super) fsync_fails: bool,
    /// Bytes that can still be written before the disk is full; `None`: any number.
    pub(super) space_left: Option<u64>,
}

/// What becomes of the writes that were not made safe when the power fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PowerLoss {
    /// All are lost.
    LosesUnsynced,
    /// Each sector is lost or kept, by chance.
    Tears {
        /// Of the chance.
        seed: u64,
    },
}

/// A file or a directory.
#[derive(Debug)]
struct Item {
    mode: u16,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Directory { entries: Entries, safe: Entries },
    File { data: Vec<u8>, safe: Vec<u8>, unsafe_writes: Vec<(usize, Vec<u8>)> },
}

type Entries = BTreeMap<String, u64>;

/// What there is to know about an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) number: u64,
    pub(super) directory: bool,
    pub(super) size: u64,
    pub(super) mode: u16,
}

/// The content of the disk.
#[derive(Debug)]
pub(super) struct Platter {
    items: BTreeMap<u64, Item>,
    newest: u64,
    pub(super) ills: Ills,
    /// How many times something could not be made safe.
    pub(super) fsyncs_failed: u64,
    /// How many writes found no space.
    pub(super) writes_refused: u64,
}

impl Default for Platter {
    fn default() -> Self {
        let body = Body::Directory { entries: Entries::new(), safe: Entries::new() };
        let items = BTreeMap::from([(ROOT, Item { mode: 0o755, body })]);
        Platter { items, newest: ROOT, ills: Ills::default(), fsyncs_failed: 0, writes_refused: 0 }
    }
}

impl Platter {
    pub(super) fn stat(&self, number: u64) -> Result<Stat, Errno> {
        let item = self.items.get(&number).ok_or(Errno::ENOENT)?;
        let (directory, size) = match &item.body {
            Body::Directory { .. } => (true, 0),
            Body::File { data, .. } => (false, u64::try_from(data.len()).unwrap_or(u64::MAX)),
        };
        Ok(Stat { number, directory, size, mode: item.mode })
    }

    pub(super) fn find(&self, parent: u64, name: &str) -> Result<Stat, Errno> {
        let number = *self.entries(parent)?.get(name).ok_or(Errno::ENOENT)?;
        self.stat(number)
    }

    /// Names and numbers in a directory.
    pub(super) fn list(&self, directory: u64) -> Result<Vec<(String, Stat)>, Errno> {
        let entries = self.entries(directory)?;
        entries.iter().map(|(name, number)| Ok((name.clone(), self.stat(*number)?))).collect()
    }

    pub(super) fn make_file(&mut self, parent: u64, name: &str, mode: u16) -> Result<Stat, Errno> {
        let body = Body::File { data: Vec::new(), safe: Vec::new(), unsafe_writes: Vec::new() };
        self.make(parent, name, Item { mode, body })
    }

    pub(super) fn make_directory(&mut self, parent: u64, name: &str, mode: u16) -> Result<Stat, Errno> {
        let body = Body::Directory { entries: Entries::new(), safe: Entries::new() };
        self.make(parent, name, Item { mode, body })
    }

    fn make(&mut self, parent: u64, name: &str, item: Item) -> Result<Stat, Errno> {
        if self.entries(parent)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        self.newest += 1;
        let number = self.newest;
        self.items.insert(number, item);
        self.entries_mut(parent)?.insert(name.to_owned(), number);
        self.stat(number)
    }

    /// Takes a name away. The item stays as long as the disk, for somebody may have it open.
    pub(super) fn remove(&mut self, parent: u64, name: &str) -> Result<(), Errno> {
        let number = self.find(parent, name)?.number;
        if self.entries(number).is_ok_and(|entries| !entries.is_empty()) {
            return Err(Errno::ENOTEMPTY);
        }
        self.entries_mut(parent)?.remove(name);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: (u64, &str), to: (u64, &str)) -> Result<(), Errno> {
        let number = self.find(from.0, from.1)?.number;
        self.entries(to.0)?;
        self.entries_mut(from.0)?.remove(from.1);
        self.entries_mut(to.0)?.insert(to.1.to_owned(), number);
        Ok(())
    }

    pub(super) fn set_mode(&mut self, number: u64, mode: u16) -> Result<(), Errno> {
        self.items.get_mut(&number).ok_or(Errno::ENOENT)?.mode = mode;
        Ok(())
    }

    pub(super) fn set_size(&mut self, number: u64, size: u64) -> Result<(), Errno> {
        let size = usize::try_from(size).map_err(|_| Errno::EFBIG)?;
        let left = self.ills.space_left;
        let (data, _, unsafe_writes) = self.file(number)?;
        let grows = size.saturating_sub(data.len());
        if left.is_some_and(|left| u64::try_from(grows).is_ok_and(|grows| grows > left)) {
            self.writes_refused += 1;
            return Err(Errno::ENOSPC);
        }
        data.resize(size, 0);
        for (at, bytes) in unsafe_writes.iter_mut() {
            bytes.truncate(size.saturating_sub(*at));
        }
        Ok(())
    }

    pub(super) fn read(&self, number: u64, at: u64, length: usize) -> Result<&[u8], Errno> {
        match &self.items.get(&number).ok_or(Errno::ENOENT)?.body {
            Body::Directory { .. } => Err(Errno::EISDIR),
            Body::File { data, .. } => {
                let from = usize::try_from(at).unwrap_or(usize::MAX).min(data.len());
                let until = from.saturating_add(length).min(data.len());
                Ok(data.get(from..until).unwrap_or_default())
            }
        }
    }

    pub(super) fn write(&mut self, number: u64, at: u64, bytes: &[u8]) -> Result<(), Errno> {
        let (at, length) = (usize::try_from(at).map_err(|_| Errno::EFBIG)?, bytes.len());
        if let Some(left) = &mut self.ills.space_left {
            let length = u64::try_from(length).unwrap_or(u64::MAX);
            let Some(rest) = left.checked_sub(length) else {
                self.writes_refused += 1;
                return Err(Errno::ENOSPC);
            };
            *left = rest;
        }
        let (data, _, unsafe_writes) = self.file(number)?;
        put(data, at, bytes);
        unsafe_writes.push((at, bytes.to_vec()));
        Ok(())
    }

    /// Makes a file safe, and its name.
    pub(super) fn sync_file(&mut self, number: u64) -> Result<(), Errno> {
        self.may_sync()?;
        let (data, safe, unsafe_writes) = self.file(number)?;
        safe.resize(data.len(), 0);
        for (at, bytes) in unsafe_writes.drain(..) {
            put(safe, at, &bytes);
        }
        for item in self.items.values_mut() {
            if let Body::Directory { entries, safe } = &mut item.body {
                let names = entries.iter().filter(|(_, named)| **named == number);
                safe.extend(names.map(|(name, number)| (name.clone(), *number)));
            }
        }
        Ok(())
    }

    /// Makes the names in a directory safe.
    pub(super) fn sync_directory(&mut self, number: u64) -> Result<(), Errno> {
        self.may_sync()?;
        match &mut self.items.get_mut(&number).ok_or(Errno::ENOENT)?.body {
            Body::File { .. } => Err(Errno::ENOTDIR),
            Body::Directory { entries, safe } => {
                safe.clone_from(entries);
                Ok(())
            }
        }
    }

    fn may_sync(&mut self) -> Result<(), Errno> {
        if self.ills.fsync_fails {
            self.fsyncs_failed += 1;
            return Err(Errno::EIO);
        }
        Ok(())
    }

    /// The power fails. Whoever had the disk open must be gone. Returns how many writes were lost or torn.
    pub(super) fn lose_power(&mut self, loss: PowerLoss) -> usize {
        let mut chance = match loss {
            PowerLoss::LosesUnsynced => None,
            PowerLoss::Tears { seed } => Some(StdRng::seed_from_u64(seed)),
        };
        let mut struck = 0;
        for item in self.items.values_mut() {
            match &mut item.body {
                Body::Directory { entries, safe } => entries.clone_from(safe),
                Body::File { data, safe, unsafe_writes } => {
                    struck += unsafe_writes.len();
                    for (at, bytes) in unsafe_writes.drain(..) {
                        if let Some(chance) = &mut chance {
                            put_sectors(safe, at, &bytes, chance);
                        }
                    }
                    data.clone_from(safe);
                }
            }
        }
        struck
    }

    fn entries(&self, directory: u64) -> Result<&Entries, Errno> {
        match &self.items.get(&directory).ok_or(Errno::ENOENT)?.body {
            Body::Directory { entries, .. } => Ok(entries),
            Body::File { .. } => Err(Errno::ENOTDIR),
        }
    }

    fn entries_mut(&mut self, directory: u64) -> Result<&mut Entries, Errno> {
        match &mut self.items.get_mut(&directory).ok_or(Errno::ENOENT)?.body {
            Body::Directory { entries, .. } => Ok(entries),
            Body::File { .. } => Err(Errno::ENOTDIR),
        }
    }

    fn file(&mut self, number: u64) -> Result<FileParts<'_>, Errno> {
        match &mut self.items.get_mut(&number).ok_or(Errno::ENOENT)?.body {
            Body::Directory { .. } => Err(Errno::EISDIR),
            Body::File { data, safe, unsafe_writes } => Ok((data, safe, unsafe_writes)),
        }
    }
}

/// Content, safe content, writes that are in the first and not in the second.
type FileParts<'a> = (&'a mut Vec<u8>, &'a mut Vec<u8>, &'a mut Vec<(usize, Vec<u8>)>);

fn put(data: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at.saturating_add(bytes.len());
    if data.len() < end {
        data.resize(end, 0);
    }
    if let Some(place) = data.get_mut(at..end) {
        place.copy_from_slice(bytes);
    }
}

fn put_sectors(data: &mut Vec<u8>, at: usize, bytes: &[u8], chance: &mut StdRng) {
    for (index, sector) in bytes.chunks(SECTOR).enumerate() {
        if chance.random() {
            put(data, at + index * SECTOR, sector);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(platter: &Platter, name: &str) -> Option<Vec<u8>> {
        let number = platter.find(ROOT, name).ok()?.number;
        platter.read(number, 0, usize::MAX).ok().map(<[u8]>::to_vec)
    }

    #[test]
    fn a_power_loss_takes_what_was_not_synced() {
        let mut platter = Platter::default();
        let file = platter.make_file(ROOT, "log", 0o600).unwrap().number;
        platter.write(file, 0, b"safe").unwrap();
        platter.sync_file(file).unwrap();
        platter.write(file, 4, b"lost").unwrap();
        let other = platter.make_file(ROOT, "never-synced", 0o600).unwrap().number;
        platter.write(other, 0, b"x").unwrap();
        assert_eq!(content(&platter, "log").unwrap(), b"safelost");
        assert_eq!(platter.lose_power(PowerLoss::LosesUnsynced), 2);
        assert_eq!(content(&platter, "log").unwrap(), b"safe");
        assert_eq!(content(&platter, "never-synced"), None, "its name was not safe either");
    }

    #[test]
    fn a_rename_counts_once_its_directory_is_synced() {
        for synced in [false, true] {
            let mut platter = Platter::default();
            for (name, text) in [("old", b"1"), ("new", b"2")] {
                let file = platter.make_file(ROOT, name, 0o600).unwrap().number;
                platter.write(file, 0, text).unwrap();
                platter.sync_file(file).unwrap();
            }
            platter.rename((ROOT, "new"), (ROOT, "old")).unwrap();
            if synced {
                platter.sync_directory(ROOT).unwrap();
            }
            platter.lose_power(PowerLoss::LosesUnsynced);
            let expected = if synced { b"2" } else { b"1" };
            assert_eq!(content(&platter, "old").unwrap(), expected);
            assert_eq!(content(&platter, "new").is_some(), !synced);
        }
    }

    #[test]
    fn a_torn_write_keeps_whole_sectors_by_chance_and_the_same_ones_for_the_same_seed() {
        let torn = |seed| {
            let mut platter = Platter::default();
            let file = platter.make_file(ROOT, "log", 0o600).unwrap().number;
            platter.sync_file(file).unwrap();
            platter.write(file, 0, &[7; 16 * SECTOR]).unwrap();
            platter.lose_power(PowerLoss::Tears { seed });
            content(&platter, "log").unwrap()
        };
        let kept = torn(1);
        assert!(kept.contains(&7) && kept != [7; 16 * SECTOR], "some are kept and some are lost");
        assert!(kept.chunks(SECTOR).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
        assert_eq!(kept, torn(1));
        assert_ne!(kept, torn(2));
    }

    #[test]
    fn a_failed_fsync_makes_nothing_safe_and_a_full_disk_takes_nothing() {
        let mut platter = Platter::default();
        let file = platter.make_file(ROOT, "log", 0o600).unwrap().number;
        platter.write(file, 0, b"1234").unwrap();
        platter.ills.fsync_fails = true;
        assert_eq!(platter.sync_file(file), Err(Errno::EIO));
        assert_eq!(platter.sync_directory(ROOT), Err(Errno::EIO));
        platter.ills = Ills { space_left: Some(3), ..Ills::default() };
        assert_eq!(platter.write(file, 4, b"5678"), Err(Errno::ENOSPC));
        assert_eq!(platter.set_size(file, 100), Err(Errno::ENOSPC));
        platter.write(file, 4, b"567").unwrap();
        assert_eq!(content(&platter, "log").unwrap(), b"1234567");
        assert_eq!((platter.fsyncs_failed, platter.writes_refused), (2, 2));
        platter.lose_power(PowerLoss::LosesUnsynced);
        assert_eq!(content(&platter, "log"), None);
    }

    #[test]
    fn a_shorter_file_does_not_grow_again_by_older_writes() {
        let mut platter = Platter::default();
        let file = platter.make_file(ROOT, "log", 0o600).unwrap().number;
        platter.write(file, 0, b"12345678").unwrap();
        platter.set_size(file, 2).unwrap();
        platter.sync_file(file).unwrap();
        platter.lose_power(PowerLoss::LosesUnsynced);
        assert_eq!(content(&platter, "log").unwrap(), b"12");
        platter.make_directory(ROOT, "d", 0o700).unwrap();
        assert_eq!(platter.make_directory(ROOT, "d", 0o700), Err(Errno::EEXIST));
        assert_eq!(platter.list(ROOT).unwrap().len(), 2);
        platter.remove(ROOT, "d").unwrap();
        assert_eq!(platter.find(ROOT, "d"), Err(Errno::ENOENT));
    }
}
