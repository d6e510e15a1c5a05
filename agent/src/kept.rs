//! Files of images in memory: fetched beforehand where they are known, and fetched anew only if the server has others.
//!
//! Why it exists: a kernel and its RAM disks are most of what a takeover waits for, and often those with which the hot spare
//! was started itself. What it never does: use a file whose server does not confirm that it is the newest.

use crate::kexec::file_in_memory;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body};

/// Largest kernel and largest initial RAM disk. With what is kept, they are in memory three times while they are loaded.
const IMAGE_BYTES_MAX: u64 = 2 << 30;

/// Why a server gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// It did not answer.
    #[error("get {url}")]
    Get {
        /// Of which.
        url: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// The answer was no.
    #[error("get {url}: {status}")]
    Status {
        /// Of which.
        url: String,
        /// HTTP status.
        status: StatusCode,
    },
}

/// Why a file could not be had.
#[derive(Debug, thiserror::Error)]
pub enum NotFetched {
    /// A server did not give it.
    #[error(transparent)]
    NoAnswer(NoAnswer),
    /// There is no memory for it, or it is too large.
    #[error("keep {url} in memory")]
    Memory {
        /// Of which.
        url: String,
        /// Why.
        source: io::Error,
    },
}

/// A file as its server had it.
#[derive(Debug)]
struct Copy {
    /// The server's mark for this content (ETag, RFC 9110 section 8.8.3).
    mark: String,
    bytes: File,
}

/// What is kept, by address. A server without marks has nothing kept of it.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    copies: BTreeMap<String, Copy>,
}

impl Kept {
    /// Fetches these beforehand, and forgets all others.
    pub(crate) fn foresee(&mut self, http: &Agent, urls: &[String]) -> Result<(), NotFetched> {
        self.copies.retain(|url, _| urls.contains(url));
        urls.iter().try_for_each(|url| self.newest(http, url).map(drop))
    }

    /// What is at these addresses now, one after the other, in one file.
    pub(crate) fn fetch(&mut self, http: &Agent, urls: &[String]) -> Result<File, NotFetched> {
        let failed = |url: &String| {
            let url = url.clone();
            move |source| NotFetched::Memory { url, source }
        };
        let mut all = file_in_memory("image").map_err(failed(&urls.join(" ")))?;
        let mut left = IMAGE_BYTES_MAX;
        for url in urls {
            let mut one = self.newest(http, url)?;
            let copied = one.rewind().and_then(|()| io::copy(&mut one, &mut all)).map_err(failed(url))?;
            left = left.checked_sub(copied).ok_or_else(|| failed(url)(too_large()))?;
        }
        Ok(all)
    }

    /// What is at this address now: what is kept, if the server says that this is it.
    fn newest(&mut self, http: &Agent, url: &String) -> Result<File, NotFetched> {
        let no_answer = |source| NoAnswer::Get { url: url.clone(), source: Box::new(source) };
        let get = |source| NotFetched::NoAnswer(no_answer(source));
        let failed = |source| NotFetched::Memory { url: url.clone(), source };
        let mut question = http.get(url);
        let kept = self.copies.get(url);
        if let Some(kept) = kept {
            question = question.header(header::IF_NONE_MATCH, &kept.mark);
        }
        let mut answer = question.call().map_err(get)?;
        match (answer.status(), kept) {
            (StatusCode::NOT_MODIFIED, Some(kept)) => return kept.bytes.try_clone().map_err(failed),
            (StatusCode::OK, _) => {}
            (status, _) => {
                return Err(NotFetched::NoAnswer(NoAnswer::Status { url: url.clone(), status }));
            }
        }
        let mut bytes = file_in_memory("file").map_err(failed)?;
        let mut body = answer.body_mut().as_reader().take(IMAGE_BYTES_MAX + 1);
        let copied = io::copy(&mut body, &mut bytes).map_err(|error| get(error.into()))?;
        if copied > IMAGE_BYTES_MAX {
            return Err(failed(too_large()));
        }
        match mark(&answer) {
            Some(mark) => {
                let copy = Copy { mark, bytes: bytes.try_clone().map_err(failed)? };
                self.copies.insert(url.clone(), copy);
            }
            None => drop(self.copies.remove(url)),
        }
        Ok(bytes)
    }
}

fn too_large() -> io::Error {
    io::Error::other(format!("it is larger than {IMAGE_BYTES_MAX} bytes"))
}

/// The mark that a server gives its answer.
pub(crate) fn mark(answer: &Response<Body>) -> Option<String> {
    answer.headers().get(header::ETAG)?.to_str().ok().map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::standby::tests::{UNCHANGED, member, told};

    fn read(mut file: File) -> String {
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn what_was_foreseen_is_fetched_anew_only_if_it_has_changed() {
        let (server, asked) = member(vec![
            told("kernel", "k1"),
            UNCHANGED.to_owned(),
            told("disk one, ", "d1"),
            told("disk two", "d2"),
            told("a newer kernel", "k2"),
        ]);
        let at = |name: &str| format!("http://{}/{name}", server.authority());
        let (http, mut kept) = (crate::standby::http(), Kept::default());
        let (kernel, disks) = ([at("kernel")], [at("one"), at("two")]);
        kept.foresee(&http, &kernel).unwrap();
        assert!(!asked.recv().unwrap().contains("if-none-match"), "nothing is kept yet");
        assert_eq!(read(kept.fetch(&http, &kernel).unwrap()), "kernel");
        assert!(asked.recv().unwrap().contains("if-none-match: \"k1\""), "the server is asked for news");
        assert_eq!(read(kept.fetch(&http, &disks).unwrap()), "disk one, disk two");
        assert_eq!(read(kept.fetch(&http, &kernel).unwrap()), "a newer kernel");
    }

    #[test]
    fn of_a_server_without_marks_nothing_is_kept() {
        let unmarked = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nk".to_owned();
        let gone = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned();
        let (server, asked) = member(vec![unmarked, gone]);
        let (http, mut kept) = (crate::standby::http(), Kept::default());
        let url = [format!("http://{}/k", server.authority())];
        kept.foresee(&http, &url).unwrap();
        let error = kept.fetch(&http, &url).unwrap_err();
        let NotFetched::NoAnswer(NoAnswer::Status { status: StatusCode::NOT_FOUND, .. }) = error else {
            panic!("{error}")
        };
        asked.recv().unwrap();
        assert!(!asked.recv().unwrap().contains("if-none-match"), "nothing was kept");
    }
}
