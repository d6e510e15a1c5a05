//! Where the demo lives: its directory, the programs beside it, whose BMCs it uses.
//!
//! Why it exists: each run begins with nothing, and two runs never share a directory.
//! What it never does: remove a directory that no demo made.

use super::DemoError;
use super::error::system;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// The file by which a demo knows its own directory; locked while a demo runs there.
const MARK: &str = ".ha-demo";
/// The programs that the demo runs.
const PROGRAMS: [&str; 4] = ["ha-supervisord", "hactl", "rack", "ha-agent"];

/// Whose BMCs the nodes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Bmcs {
    /// The rack's own: IPMI 2.0 with cipher suite 17.
    Own,
    /// OpenIPMI's `ipmi_sim`, with cipher suite 3.
    #[value(name = "ipmi_sim", alias = "ipmi-sim")]
    IpmiSim,
}

impl Bmcs {
    /// The word on the command line of `rack init`.
    pub(super) fn word(self) -> &'static str {
        match self {
            Bmcs::Own => "own",
            Bmcs::IpmiSim => "ipmi_sim",
        }
    }
}

/// An empty directory that is ours, and everything that is needed to fill it.
#[derive(Debug)]
pub struct Home {
    dir: PathBuf,
    programs: PathBuf,
    bmcs: Bmcs,
    /// Held as long as the demo runs.
    _lock: Flock<File>,
}

impl Home {
    /// Looks for the programs beside this one and empties the directory: the given one, or that of the `usual` name in cargo's
    /// target directory.
    ///
    /// # Errors
    /// [`DemoError`] if a program is missing, or the directory holds something else or is in use.
    pub fn prepare(dir: Option<&Path>, usual: &str, bmcs: Bmcs) -> Result<Home, DemoError> {
        let this = std::env::current_exe().map_err(system("find this program"))?;
        let programs = this.parent().unwrap_or(Path::new(".")).to_owned();
        for program in PROGRAMS {
            let path = programs.join(program);
            if !path.exists() {
                return Err(DemoError::NotBuilt(path));
            }
        }
        if bmcs == Bmcs::IpmiSim && !is_on_path("ipmi_sim") {
            return Err(DemoError::NoIpmiSim);
        }
        let dir = dir.map_or_else(|| programs.parent().unwrap_or(&programs).join(usual), Path::to_owned);
        let dir = std::path::absolute(&dir).map_err(system(format!("find {}", dir.display())))?;
        let lock = claim(&dir)?;
        Ok(Home { dir, programs, bmcs, _lock: lock })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the programs are.
    pub(super) fn programs(&self) -> &Path {
        &self.programs
    }

    /// One of the programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// Whose BMCs.
    pub(super) fn bmcs(&self) -> Bmcs {
        self.bmcs
    }

    /// A new directory below ours.
    pub(crate) fn room(&self, name: &str) -> Result<PathBuf, DemoError> {
        let room = self.dir.join(name);
        fs::create_dir(&room).map_err(system(format!("make directory {}", room.display())))?;
        Ok(room)
    }
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Makes the directory, or empties the one that an earlier demo left.
fn claim(dir: &Path) -> Result<Flock<File>, DemoError> {
    let refused = |why| DemoError::Directory { dir: dir.to_owned(), why };
    let failed = |doing: &str| system(format!("{doing} {}", dir.display()));
    fs::create_dir_all(dir).map_err(failed("make directory"))?;
    let mark = dir.join(MARK);
    let used = fs::read_dir(dir).map_err(failed("list"))?.next().is_some();
    if used && !mark.exists() {
        return Err(refused("is not empty and was not made by the demo; choose another --dir"));
    }
    let file = File::create(&mark).map_err(failed("mark"))?;
    let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((_, Errno::EWOULDBLOCK)) => {
            return Err(refused("is in use by another demo; choose another --dir"));
        }
        Err((_, errno)) => return Err(failed("lock")(errno.into())),
    };
    for entry in fs::read_dir(dir).map_err(failed("list"))? {
        let path = entry.map_err(failed("list"))?.path();
        let removed = match path {
            ref path if *path == mark => Ok(()),
            ref path if path.is_dir() => fs::remove_dir_all(path),
            ref path => fs::remove_file(path),
        };
        removed.map_err(failed("empty"))?;
    }
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_a_demo_is_emptied_and_any_other_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let ours = dir.path().join("demo");
        let lock = claim(&ours).unwrap();
        fs::create_dir(ours.join("m1")).unwrap();
        fs::write(ours.join("log"), "old").unwrap();
        let said = claim(&ours).unwrap_err().to_string();
        assert!(said.contains("in use by another demo"), "{said}");
        assert!(ours.join("log").exists(), "it is not touched while it is in use");
        drop(lock);
        claim(&ours).unwrap();
        assert_eq!(fs::read_dir(&ours).unwrap().count(), 1, "only the mark is left");

        let other = dir.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("thesis"), "years of work").unwrap();
        let said = claim(&other).unwrap_err().to_string();
        assert!(said.contains("not made by the demo"), "{said}");
        assert!(other.join("thesis").exists());
    }
}
