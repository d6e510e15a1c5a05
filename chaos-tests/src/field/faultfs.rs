//! A disk that loses, refuses and fails, as a real file system: [`Platter`] served to the kernel over FUSE.
//!
//! Why it exists: the programs under test must not know that their disk is ours, and this needs neither libfuse nor a
//! block device.
//! What it never does: keep anything on a real disk; what it holds ends with the mount.

use super::platter::{Ills, Platter, PowerLoss, Stat};
use crate::demo::DemoError;
use crate::demo::error::system;
use fuser::{
    BackgroundSession, FileAttr, FileType, Filesystem, MountOption, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, consts,
};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// By this name the mount table shows that a mount is ours.
pub(super) const FS_NAME: &str = "vf-faultfs";
/// Nothing may be remembered by the kernel: the content changes without it when the power fails.
const NOTHING_REMEMBERED: Duration = Duration::ZERO;
/// Said to whoever asks for the size: blocks of 4 KiB, 4 GiB of them.
const BLOCKS: u64 = 1 << 20;

/// A disk and how it is. Cheap to clone; all clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Arc<Mutex<Platter>>);

impl Disk {
    fn platter(&self) -> MutexGuard<'_, Platter> {
        // A panic elsewhere would have ended the FUSE session, which the programs under test see as EIO.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is wrong with it from now on.
    pub(super) fn set(&self, ills: Ills) {
        self.platter().ills = ills;
    }

    /// See [`Platter::lose_power`].
    pub(super) fn lose_power(&self, loss: PowerLoss) -> usize {
        self.platter().lose_power(loss)
    }

    /// It is replaced by a new one, which is empty. Whoever had it open must be gone.
    pub(super) fn replace(&self) {
        *self.platter() = Platter::default();
    }

    /// `fsync`s that failed, and writes that found no space.
    pub(super) fn counts(&self) -> (u64, u64) {
        let platter = self.platter();
        (platter.fsyncs_failed, platter.writes_refused)
    }
}

/// A mounted disk. Dropping it takes the mount away.
pub(super) struct Mounted {
    pub(super) disk: Disk,
    at: PathBuf,
    session: Option<BackgroundSession>,
}

impl Mounted {
    /// Mounts an empty disk at a directory.
    pub(super) fn at(at: &Path) -> Result<Mounted, DemoError> {
        let failed = |doing: &str| system(format!("{doing} {}", at.display()));
        std::fs::create_dir_all(at).map_err(failed("make directory"))?;
        let disk = Disk::default();
        let options = [MountOption::FSName(FS_NAME.to_owned()), MountOption::DefaultPermissions];
        let session =
            fuser::spawn_mount2(Served(disk.clone()), at, &options).map_err(failed("mount a disk at"))?;
        Ok(Mounted { disk, at: at.to_owned(), session: Some(session) })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Detached first: a program that is still dying must not keep the mount, and then fuser finds it gone.
        umount2(&self.at, MntFlags::MNT_DETACH).ok();
        drop(self.session.take());
    }
}

/// What the kernel asks.
struct Served(Disk);

fn attributes(stat: Stat) -> FileAttr {
    let Stat { number, directory, size, mode } = stat;
    FileAttr {
        ino: number,
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: SystemTime::now(),
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if directory { FileType::Directory } else { FileType::RegularFile },
        perm: mode,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn name(name: &OsStr) -> Result<&str, Errno> {
    name.to_str().ok_or(Errno::EINVAL)
}

fn permissions(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or(0o600)
}

fn offset(offset: i64) -> Result<u64, Errno> {
    u64::try_from(offset).map_err(|_| Errno::EINVAL)
}

fn done(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno as i32),
    }
}

fn entry(reply: ReplyEntry, result: Result<Stat, Errno>) {
    match result {
        Ok(stat) => reply.entry(&NOTHING_REMEMBERED, &attributes(stat), 0),
        Err(errno) => reply.error(errno as i32),
    }
}

fn attr(reply: ReplyAttr, result: Result<Stat, Errno>) {
    match result {
        Ok(stat) => reply.attr(&NOTHING_REMEMBERED, &attributes(stat)),
        Err(errno) => reply.error(errno as i32),
    }
}

impl Filesystem for Served {
    fn lookup(&mut self, _: &Request<'_>, parent: u64, of: &OsStr, reply: ReplyEntry) {
        entry(reply, name(of).and_then(|of| self.0.platter().find(parent, of)));
    }

    fn getattr(&mut self, _: &Request<'_>, number: u64, _: Option<u64>, reply: ReplyAttr) {
        attr(reply, self.0.platter().stat(number));
    }

    fn setattr(
        &mut self,
        _: &Request<'_>,
        number: u64,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<u64>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<u32>,
        reply: ReplyAttr,
    ) {
        let mut platter = self.0.platter();
        let size = size.map_or(Ok(()), |size| platter.set_size(number, size));
        let set = size.and_then(|()| mode.map_or(Ok(()), |mode| platter.set_mode(number, permissions(mode))));
        attr(reply, set.and_then(|()| platter.stat(number)));
    }

    fn open(&mut self, _: &Request<'_>, _: u64, _: i32, reply: ReplyOpen) {
        reply.opened(0, consts::FOPEN_DIRECT_IO);
    }

    fn create(
        &mut self,
        _: &Request<'_>,
        parent: u64,
        of: &OsStr,
        mode: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        match name(of).and_then(|of| self.0.platter().make_file(parent, of, permissions(mode))) {
            Ok(stat) => {
                reply.created(&NOTHING_REMEMBERED, &attributes(stat), 0, 0, consts::FOPEN_DIRECT_IO);
            }
            Err(errno) => reply.error(errno as i32),
        }
    }

    fn mkdir(&mut self, _: &Request<'_>, parent: u64, of: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        entry(reply, name(of).and_then(|of| self.0.platter().make_directory(parent, of, permissions(mode))));
    }

    fn unlink(&mut self, _: &Request<'_>, parent: u64, of: &OsStr, reply: ReplyEmpty) {
        done(reply, name(of).and_then(|of| self.0.platter().remove(parent, of)));
    }

    fn rmdir(&mut self, _: &Request<'_>, parent: u64, of: &OsStr, reply: ReplyEmpty) {
        done(reply, name(of).and_then(|of| self.0.platter().remove(parent, of)));
    }

    fn rename(
        &mut self,
        _: &Request<'_>,
        parent: u64,
        of: &OsStr,
        new_parent: u64,
        new: &OsStr,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let names = name(of).and_then(|of| Ok((of, name(new)?)));
        done(reply, names.and_then(|(of, new)| self.0.platter().rename((parent, of), (new_parent, new))));
    }

    fn read(
        &mut self,
        _: &Request<'_>,
        number: u64,
        _: u64,
        at: i64,
        size: u32,
        _: i32,
        _: Option<u64>,
        reply: ReplyData,
    ) {
        let platter = self.0.platter();
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        match offset(at).and_then(|at| platter.read(number, at, length)) {
            Ok(bytes) => reply.data(bytes),
            Err(errno) => reply.error(errno as i32),
        }
    }

    fn write(
        &mut self,
        _: &Request<'_>,
        number: u64,
        _: u64,
        at: i64,
        bytes: &[u8],
        _: u32,
        _: i32,
        _: Option<u64>,
        reply: ReplyWrite,
    ) {
        match offset(at).and_then(|at| self.0.platter().write(number, at, bytes)) {
            Ok(()) => reply.written(u32::try_from(bytes.len()).unwrap_or(u32::MAX)),
            Err(errno) => reply.error(errno as i32),
        }
    }

    fn flush(&mut self, _: &Request<'_>, _: u64, _: u64, _: u64, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&mut self, _: &Request<'_>, number: u64, _: u64, _: bool, reply: ReplyEmpty) {
        done(reply, self.0.platter().sync_file(number));
    }

    fn fsyncdir(&mut self, _: &Request<'_>, number: u64, _: u64, _: bool, reply: ReplyEmpty) {
        done(reply, self.0.platter().sync_directory(number));
    }

    fn statfs(&mut self, _: &Request<'_>, _: u64, reply: ReplyStatfs) {
        reply.statfs(BLOCKS, BLOCKS / 2, BLOCKS / 2, BLOCKS, BLOCKS / 2, 4096, 255, 4096);
    }

    fn readdir(&mut self, _: &Request<'_>, number: u64, _: u64, from: i64, mut reply: ReplyDirectory) {
        let listed = self.0.platter().list(number);
        let (listed, from) = match listed.and_then(|listed| Ok((listed, offset(from)?))) {
            Ok(found) => found,
            Err(errno) => return reply.error(errno as i32),
        };
        let dots = [".", ".."].map(|dot| (dot.to_owned(), number, FileType::Directory));
        let items = listed.into_iter().map(|(name, stat)| (name, stat.number, attributes(stat).kind));
        let skipped = usize::try_from(from).unwrap_or(usize::MAX);
        for (next, (name, number, kind)) in (1..).zip(dots.into_iter().chain(items)).skip(skipped) {
            if reply.add(number, next, kind, name) {
                break;
            }
        }
        reply.ok();
    }
}

/// Takes mounts away that an earlier run left.
pub(super) fn sweep() -> Result<(), DemoError> {
    let table = "/proc/self/mounts";
    let mounts = std::fs::read_to_string(table).map_err(system(format!("read {table}")))?;
    let ours = mounts.lines().filter_map(|line| line.strip_prefix(FS_NAME)?.split_whitespace().next());
    for at in ours {
        umount2(at, MntFlags::MNT_DETACH).map_err(|errno| system(format!("unmount {at}"))(errno.into()))?;
    }
    Ok(())
}
