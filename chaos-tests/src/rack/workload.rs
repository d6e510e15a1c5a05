//! The workload of a machine: it counts, on its volume.
//!
//! What this is: the body of `rack workload`, one process.
//! Why it exists: a growing number shows every lost write, every double writer and every pause.
//! What it never does: it gives up. Cut off, refused or stopped for an hour, it tries to write again, as a real
//! service with a stubborn initiator would.

use policies::{Millis, VolumeId};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

/// Pause before the next login.
const LOGIN_PAUSE: Duration = Duration::from_millis(20);

/// What it writes where.
#[derive(Debug, clap::Args)]
pub struct Workload {
    /// Address of the storage array
    #[arg(long)]
    pub array: String,
    /// The name by which the array knows this machine
    #[arg(long)]
    pub initiator: String,
    /// The volume
    #[arg(long)]
    pub volume: VolumeId,
    /// Time between two writes
    #[arg(long)]
    pub every: Millis,
    /// File that is touched after each acknowledged write
    #[arg(long)]
    pub touch: PathBuf,
}

impl Workload {
    /// Writes until the process is ended.
    ///
    /// # Errors
    /// Only if its file cannot be touched; whatever the array does is no reason to end.
    pub fn run(&self) -> io::Result<()> {
        // The file is made by the first acknowledged write: its age is that of the last one.
        let mut touched = None;
        loop {
            if let Err(Ended::Touch(error)) = self.session(&mut touched) {
                return Err(error);
            }
            sleep(LOGIN_PAUSE);
        }
    }

    /// One session, up to its end.
    fn session(&self, touched: &mut Option<File>) -> Result<(), Ended> {
        let mut stream = TcpStream::connect(&self.array)?;
        stream.set_nodelay(true)?;
        let mut answers = BufReader::new(stream.try_clone()?);
        writeln!(stream, "login {} {}", self.initiator, self.volume)?;
        let mut value = answer(&mut answers, "last")?;
        let every = Duration::from_millis(self.every.0);
        let mut next = Instant::now();
        loop {
            value += 1;
            // One write, one packet: a line in two packets would wait for an acknowledgement in between.
            stream.write_all(format!("write {value}\n").as_bytes())?;
            answer(&mut answers, "acked")?;
            self.touch(touched).map_err(Ended::Touch)?;
            // After a standstill it goes on in its pace and does not make up for what it missed.
            next = (next + every).max(Instant::now());
            sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    fn touch(&self, touched: &mut Option<File>) -> io::Result<()> {
        match touched {
            Some(file) => file.set_modified(SystemTime::now()),
            None => {
                *touched = Some(File::create(&self.touch)?);
                Ok(())
            }
        }
    }
}

enum Ended {
    /// By the array or the network; the error was told by whoever caused it.
    Array,
    /// By our own file.
    Touch(io::Error),
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Ended::Array
    }
}

fn answer(answers: &mut BufReader<TcpStream>, word: &str) -> Result<u64, Ended> {
    let mut line = String::new();
    answers.read_line(&mut line)?;
    let number = line.strip_prefix(word).and_then(|rest| rest.trim().parse().ok());
    number.ok_or(Ended::Array)
}
