//! A hot spare: asks the members' boot service what it is to run, loads that while the failed node is being fenced, and says
//! when to go on.
//!
//! Why it exists: a spare that has started already is there in the time in which a kernel starts. What it never does:
//! decide. Nothing is loaded that a leader did not name, and nothing is started before it says so.

use crate::kept::{Kept, NoAnswer, NotFetched, mark};
use crate::kexec;
use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
use policies::{BootRole, Booting, HttpUrl, Image, NodeId};
use std::io;
use std::time::Duration;
use ureq::Agent;
use ureq::http::{StatusCode, header};

/// How long a member may keep a question whose answer has not changed. Members wait at most so long, too; longer: a member
/// that has died in the meantime is noticed later.
const WAIT: Duration = Duration::from_secs(2);
/// Longest time for an answer beyond that.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Longest time for the next part of a kernel or RAM disk.
const PART_MAX: Duration = Duration::from_secs(10);
/// Longest answer of a member.
const ROLE_BYTES_MAX: u64 = 64 << 10;
/// Pause after something failed. An election takes less than a second.
const PAUSE: Duration = Duration::from_millis(500);

/// The kind of an initial RAM disk without tmpfs (linux/magic.h), which nix does not name.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// What a waiting spare says.
#[derive(Debug)]
pub enum News {
    /// For the log.
    Said(String),
    /// The instance's kernel is loaded: go on into it.
    GoOn(Booting),
    /// The node must not run: switch it off.
    Halt(String),
}

/// Why a spare could not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// A member did not tell.
    #[error(transparent)]
    NotTold(NoAnswer),
    /// The answer makes no sense to us.
    #[error("{url} does not tell a role")]
    Role {
        /// Of which.
        url: String,
        /// Why.
        source: serde_json::Error,
    },
    /// An image that a running system cannot go on into.
    #[error("image {name} is a disk in the network: only a Linux kernel can be gone on into")]
    NoKernel {
        /// Its name.
        name: String,
    },
    /// A part of the image could not be had.
    #[error("fetch image {name}")]
    NotFetched {
        /// Its name.
        name: String,
        /// Which part, and why.
        source: NotFetched,
    },
    /// The running kernel did not take it.
    #[error("load the kernel of {name}")]
    Load {
        /// The image.
        name: String,
        /// Why.
        source: io::Error,
    },
}

/// A spare that waits.
pub struct Standby<T> {
    services: Vec<HttpUrl>,
    node: NodeId,
    http: Agent,
    /// The member that is asked, by its place.
    asked: usize,
    /// The mark of the last answer.
    known: Option<String>,
    /// What is loaded.
    loaded: Option<Booting>,
    /// What need not be fetched for that.
    kept: Kept,
    /// What was said last: it is not said again until something else is.
    said: String,
    /// False: nobody listens any more.
    tell: T,
}

impl<T: FnMut(News) -> bool + Send + 'static> Standby<T> {
    /// Asks, in a thread of its own, until nobody listens any more.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(services: Vec<HttpUrl>, node: NodeId, tell: T) -> io::Result<()> {
        let (http, said, kept) = (http(), String::new(), Kept::default());
        let mut standby =
            Standby { services, node, http, asked: 0, known: None, loaded: None, kept, said, tell };
        let work = move || while standby.step() {};
        std::thread::Builder::new().name("standby".into()).spawn(work)?;
        Ok(())
    }

    /// One question and what follows from the answer. False: nobody listens.
    fn step(&mut self) -> bool {
        let done = self.ask().and_then(|role| match role {
            Some(role) => self.obey(role),
            None => Ok(None),
        });
        match done {
            Ok(None) => true,
            Ok(Some(News::Said(what))) => self.say(what),
            Ok(Some(news @ (News::GoOn(_) | News::Halt(_)))) => {
                let heard = (self.tell)(news);
                // If it fails, it is asked and tried again.
                self.known = None;
                std::thread::sleep(PAUSE);
                heard
            }
            Err(trouble) => {
                self.known = None;
                self.asked += 1;
                let heard = self.say(policies::causes(&trouble));
                std::thread::sleep(PAUSE);
                heard
            }
        }
    }

    fn say(&mut self, what: String) -> bool {
        if what == self.said {
            return true;
        }
        self.said.clone_from(&what);
        (self.tell)(News::Said(what))
    }

    /// The role, if it is another than before.
    fn ask(&mut self) -> Result<Option<BootRole>, Trouble> {
        let Some(service) = self.services.get(self.asked % self.services.len().max(1)) else {
            return Ok(None);
        };
        let url = format!("http://{}/boot/node/{}", service.authority(), self.node);
        let mut question = self.http.get(&url).header("Prefer", format!("wait={}", WAIT.as_secs()));
        if let Some(known) = &self.known {
            question = question.header(header::IF_NONE_MATCH, known);
        }
        let no_answer = |source| NoAnswer::Get { url: url.clone(), source: Box::new(source) };
        let failed = |source| Trouble::NotTold(no_answer(source));
        let mut answer = question.call().map_err(failed)?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED => return Ok(None),
            status => return Err(Trouble::NotTold(NoAnswer::Status { url, status })),
        }
        let text = answer.body_mut().with_config().limit(ROLE_BYTES_MAX).read_to_string().map_err(failed)?;
        let role = serde_json::from_str(&text).map_err(|source| Trouble::Role { url, source })?;
        self.known = mark(&answer);
        Ok(Some(role))
    }

    fn obey(&mut self, role: BootRole) -> Result<Option<News>, Trouble> {
        let told = role.to_string();
        Ok(Some(match role {
            BootRole::Boots(booting) => {
                self.prepare(&booting)?;
                News::GoOn(booting)
            }
            BootRole::Stands { prepares: Some(booting), .. } => {
                self.prepare(&booting)?;
                News::Said(format!("{told}: loaded"))
            }
            BootRole::Halts { why } => News::Halt(why),
            BootRole::Stands { image, prepares: None, .. } => News::Said(match self.foresee(&image) {
                Ok(()) => told,
                Err(why) => format!("{told}; beforehand: {}", policies::causes(&why)),
            }),
            BootRole::Local { .. } | BootRole::Waits { .. } => News::Said(told),
        }))
    }

    /// Keeps what it was started with itself: that is often what instances are started with. What is not kept is fetched when it is
    /// needed, so nothing depends on it.
    fn foresee(&mut self, image: &Image) -> Result<(), NotFetched> {
        match image {
            Image::Linux { kernel, initrd, .. } => {
                let urls: Vec<String> = [kernel].into_iter().chain(initrd).cloned().collect();
                self.kept.foresee(&self.http, &urls)
            }
            Image::San { .. } => Ok(()),
        }
    }

    /// Loads the kernel, unless it is loaded.
    fn prepare(&mut self, booting: &Booting) -> Result<(), Trouble> {
        if self.loaded.as_ref() == Some(booting) {
            return Ok(());
        }
        self.loaded = None;
        let name = &booting.name;
        let Image::Linux { kernel, initrd, args } = &booting.image else {
            return Err(Trouble::NoKernel { name: name.clone() });
        };
        let not_fetched = |source| Trouble::NotFetched { name: name.clone(), source };
        let kernel = self.kept.fetch(&self.http, std::slice::from_ref(kernel)).map_err(not_fetched)?;
        // Several are read by the kernel as one, if they follow each other.
        let initrd = match initrd.as_slice() {
            [] => None,
            initrd => Some(self.kept.fetch(&self.http, initrd).map_err(not_fetched)?),
        };
        let failed = |source| Trouble::Load { name: name.clone(), source };
        kexec::load(&kernel, initrd.as_ref(), args).map_err(failed)?;
        self.loaded = Some(booting.clone());
        Ok(())
    }
}

/// True if the root file system is in memory: then going on into another kernel, or switching off, loses nothing.
///
/// # Errors
/// The kernel does not say.
pub fn root_is_in_memory() -> io::Result<bool> {
    let kind = statfs("/")?.filesystem_type();
    Ok(kind == TMPFS_MAGIC || kind == RAMFS_MAGIC)
}

/// Asks members and file servers.
pub(crate) fn http() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_connect(Some(ANSWER_MAX))
        .timeout_recv_response(Some(WAIT + ANSWER_MAX))
        .timeout_recv_body(Some(PART_MAX))
        .build()
        .into()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;

    /// Answers one question after the other, each over a connection of its own, and passes on what was asked.
    pub(crate) fn member(answers: Vec<String>) -> (HttpUrl, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let (pass_on, asked) = mpsc::channel();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
                let question: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                pass_on.send(question.join("\n").to_lowercase()).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        (url, asked)
    }

    pub(crate) fn told(role: &str, mark: &str) -> String {
        let length = role.len();
        format!(
            "HTTP/1.1 200 OK\r\nETag: \"{mark}\"\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{role}"
        )
    }

    pub(crate) const UNCHANGED: &str = "HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n";

    #[test]
    fn it_asks_the_next_member_waits_for_news_and_says_what_it_is_told() {
        let (leader, asked) = member(vec![
            told(r#"{"role":"waits","why":"an election"}"#, "a"),
            UNCHANGED.to_owned(),
            told(r#"{"role":"strange"}"#, "b"),
            told(r#"{"role":"halts","why":"s1 is quarantined by f7"}"#, "c"),
        ]);
        let (tell, news) = mpsc::channel();
        let services = vec!["http://127.0.0.1:1".parse().unwrap(), leader.clone(), leader];
        Standby::start(services, "s1".parse().unwrap(), move |what| tell.send(what).is_ok()).unwrap();
        let said = |news: News| match news {
            News::Said(text) => text,
            News::GoOn(_) | News::Halt(_) => panic!("{news:?}"),
        };
        let text = said(news.recv().unwrap());
        assert!(text.starts_with("get http://127.0.0.1:1/boot/node/s1: "), "{text}");
        assert_eq!(said(news.recv().unwrap()), "waits: an election");
        let text = said(news.recv().unwrap());
        assert!(text.contains("does not tell a role: unknown variant `strange`"), "{text}");
        assert!(matches!(news.recv().unwrap(), News::Halt(why) if why == "s1 is quarantined by f7"));
        let first = asked.recv().unwrap();
        assert!(first.starts_with("get /boot/node/s1 ") && first.contains("prefer: wait=2"), "{first}");
        assert!(!first.contains("if-none-match"), "it knows nothing yet: {first}");
        assert!(asked.recv().unwrap().contains("if-none-match: \"a\""), "it waits for another answer");
    }

    #[test]
    fn a_role_that_is_a_disk_in_the_network_is_refused_with_a_reason() {
        let booting = Booting {
            instance: "web".parse().unwrap(),
            epoch: policies::Epoch(2),
            name: "san".to_owned(),
            image: Image::San { uri: "iscsi:h:::1:iqn.t".to_owned() },
            initiator: None,
        };
        let role = serde_json::to_string(&BootRole::Boots(booting)).unwrap();
        let (leader, _asked) = member(vec![told(&role, "a")]);
        let (tell, news) = mpsc::channel();
        Standby::start(vec![leader], "s1".parse().unwrap(), move |what| tell.send(what).is_ok()).unwrap();
        let expected = "image san is a disk in the network: only a Linux kernel can be gone on into";
        assert!(matches!(news.recv().unwrap(), News::Said(text) if text == expected));
    }
}
