//! tgt's control program.
//!
//! Why it exists: `tgtadm` is the only documented way to configure tgt. What it never does: wait without a limit, or show a
//! secret in an error. (tgtadm takes CHAP secrets on its command line only: `docs/drivers/iscsi.md`, limits.)

use super::config::{BackingType, Config, VolumeConfig};
use super::show::{self, ShowError, Target};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// Longest time of one call. They take milliseconds; a tgtd that hangs must not hold us.
const CALL_MAX: Duration = Duration::from_secs(5);
/// Longest complaint that is kept, in bytes.
const COMPLAINT_MAX: u64 = 300;
/// The only logical unit of a target; tgt's own controller is 0.
pub(super) const LUN: u64 = 1;

/// How one tgtd is spoken with.
#[derive(Clone, Debug)]
pub struct Tgt {
    program: PathBuf,
    socket: Option<PathBuf>,
    control_port: u16,
}

/// tgt did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum TgtError {
    /// The program could not be run.
    #[error("{doing}: run {}", program.display())]
    Run {
        /// What we were doing.
        doing: String,
        /// The program.
        program: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It took too long.
    #[error("{doing}: tgtd did not answer within {CALL_MAX:?}")]
    Late {
        /// What we were doing.
        doing: String,
    },
    /// It said no, or tgtd is not there.
    #[error("{doing}: {said}")]
    Failed {
        /// What we were doing.
        doing: String,
        /// In its words.
        said: String,
    },
    /// Its answer is not understood.
    #[error("{doing}")]
    Unreadable {
        /// What we were doing.
        doing: String,
        /// Why not.
        source: ShowError,
    },
}

impl Tgt {
    /// The tgtd that the configuration names.
    pub fn new(config: &Config) -> Tgt {
        let (program, socket) = (config.tgtadm.clone(), config.socket.clone());
        Tgt { program, socket, control_port: config.control_port }
    }

    /// All targets, as they are now.
    ///
    /// # Errors
    /// [`TgtError`] if that cannot be told.
    pub async fn targets(&self) -> Result<Vec<Target>, TgtError> {
        let doing = "read targets";
        let text = self.call(doing, &["--mode", "target", "--op", "show"]).await?;
        show::targets(&text).map_err(|source| TgtError::Unreadable { doing: doing.to_owned(), source })
    }

    /// A target, to which nobody has a right. It has no logical unit yet.
    pub(super) async fn make_target(&self, tid: u32, volume: &VolumeConfig) -> Result<(), TgtError> {
        let doing = format!("make target {tid}");
        let tid = tid.to_string();
        self.done(&doing, &["--mode", "target", "--op", "new", "--tid", &tid, "-T", &volume.target]).await
    }

    /// Its logical unit.
    pub(super) async fn make_lun(&self, tid: u32, volume: &VolumeConfig) -> Result<(), TgtError> {
        let path = volume.backing.to_string_lossy();
        let doing = format!("make the logical unit of target {tid} from {path} (is it there?)");
        let (tid, lun) = (tid.to_string(), LUN.to_string());
        let store: &[&str] = match volume.backing_type {
            BackingType::Direct => &["--bstype", "rdwr", "--bsoflags", "direct"],
            BackingType::Cached => &["--bstype", "rdwr"],
            BackingType::Aio => &["--bstype", "aio"],
        };
        let mut words = vec!["--mode", "logicalunit", "--op", "new", "--tid", &tid, "--lun", &lun];
        words.extend_from_slice(store);
        words.extend(["-b", &path]);
        self.done(&doing, &words).await
    }

    /// Gives it the volume's name as id and serial number. tgt's own come from its numbers, and nodes would see another disk
    /// after each restart.
    pub(super) async fn name_lun(&self, tid: u32, volume: &VolumeConfig) -> Result<(), TgtError> {
        let doing = format!("name the logical unit of target {tid}");
        let (tid, lun) = (tid.to_string(), LUN.to_string());
        let ids = format!("scsi_id={0},scsi_sn={0}", volume.name);
        let words =
            ["--mode", "logicalunit", "--op", "update", "--tid", &tid, "--lun", &lun, "--params", &ids];
        self.done(&doing, &words).await
    }

    /// Fails while somebody is logged in.
    pub(super) async fn delete_target(&self, tid: u32) -> Result<(), TgtError> {
        let doing = format!("delete target {tid}");
        self.done(&doing, &["--mode", "target", "--op", "delete", "--tid", &tid.to_string()]).await
    }

    pub(super) async fn accounts(&self) -> Result<Vec<String>, TgtError> {
        let doing = "read accounts";
        let text = self.call(doing, &["--mode", "account", "--op", "show"]).await?;
        show::accounts(&text).map_err(|source| TgtError::Unreadable { doing: doing.to_owned(), source })
    }

    pub(super) async fn make_account(&self, user: &str, secret: &str) -> Result<(), TgtError> {
        let words = ["--mode", "account", "--op", "new", "--user", user, "--password", secret];
        self.done(&format!("make account {user}"), &words).await
    }

    pub(super) async fn bind_account(&self, tid: u32, user: &str) -> Result<(), TgtError> {
        let words = ["--mode", "account", "--op", "bind", "--tid", &tid.to_string(), "--user", user];
        self.done(&format!("bind account {user} to target {tid}"), &words).await
    }

    pub(super) async fn unbind_account(&self, tid: u32, user: &str) -> Result<(), TgtError> {
        let words = ["--mode", "account", "--op", "unbind", "--tid", &tid.to_string(), "--user", user];
        self.done(&format!("unbind account {user} from target {tid}"), &words).await
    }

    pub(super) async fn bind(&self, tid: u32, initiator: &str) -> Result<(), TgtError> {
        let doing = format!("let {initiator} log in to target {tid}");
        let tid = tid.to_string();
        let words = ["--mode", "target", "--op", "bind", "--tid", &tid, "--initiator-name", initiator];
        self.done(&doing, &words).await
    }

    /// Takes a rule out of the access list, a name or (somebody else made it) an address.
    pub(super) async fn unbind(&self, tid: u32, rule: &str) -> Result<(), TgtError> {
        let doing = format!("let {rule} log in to target {tid} no more");
        let tid = tid.to_string();
        let unbind =
            |kind: &'static str| ["--mode", "target", "--op", "unbind", "--tid", tid.as_str(), kind, rule];
        match self.done(&doing, &unbind("--initiator-name")).await {
            Err(TgtError::Failed { .. }) => self.done(&doing, &unbind("--initiator-address")).await,
            done => done,
        }
    }

    pub(super) async fn end_connection(&self, tid: u32, sid: u64, cid: u32) -> Result<(), TgtError> {
        let doing = format!("end connection {cid} of session {sid} with target {tid}");
        let (tid, sid, cid) = (tid.to_string(), sid.to_string(), cid.to_string());
        let words = ["--mode", "conn", "--op", "delete", "--tid", &tid, "--sid", &sid, "--cid", &cid];
        self.done(&doing, &words).await
    }

    async fn done(&self, doing: &str, words: &[&str]) -> Result<(), TgtError> {
        self.call(doing, words).await.map(drop)
    }

    /// One run: what it prints.
    async fn call(&self, doing: &str, words: &[&str]) -> Result<String, TgtError> {
        let run = |source| TgtError::Run { doing: doing.to_owned(), program: self.program.clone(), source };
        let mut command = Command::new(&self.program);
        command.args(["--control-port", &self.control_port.to_string(), "--lld", "iscsi"]).args(words);
        if let Some(socket) = &self.socket {
            command.env("TGT_IPC_SOCKET", socket);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(run)?;
        let (output, complaint) = (child.stdout.take(), child.stderr.take());
        let length = u64::try_from(show::TEXT_MAX).unwrap_or(u64::MAX).saturating_add(1);
        let ended = async {
            let (output, complaint) = tokio::try_join!(hear(output, length), hear(complaint, COMPLAINT_MAX))?;
            Ok((output, complaint, child.wait().await?))
        };
        let ended = tokio::time::timeout(CALL_MAX, ended).await;
        let (output, complaint, status) =
            ended.map_err(|_| TgtError::Late { doing: doing.to_owned() })?.map_err(run)?;
        if !status.success() {
            let said = String::from_utf8_lossy(&complaint).trim().to_owned();
            return Err(TgtError::Failed { doing: doing.to_owned(), said });
        }
        String::from_utf8(output).map_err(|_| TgtError::Unreadable {
            doing: doing.to_owned(),
            source: ShowError::Whole("is not a text"),
        })
    }
}

/// What comes, up to so many bytes; who says more finds nobody listening.
async fn hear(from: Option<impl AsyncRead + Unpin>, length: u64) -> Result<Vec<u8>, std::io::Error> {
    let mut heard = Vec::new();
    if let Some(from) = from {
        from.take(length).read_to_end(&mut heard).await?;
    }
    Ok(heard)
}
