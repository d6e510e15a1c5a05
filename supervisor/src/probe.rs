//! Asks a node from outside: whether its kernel lives (TCP connect, ICMP echo), and whether it does its work (HTTP).
//!
//! Why it exists: a silent agent is no dead machine; a kernel that answers is proof of life, and one that does not is
//! evidence of death. What it never does: count our own trouble (no route, no descriptor, no right) as silence.

mod http;

use fencing::PowerDriver;
use http::Got;
use policies::{HttpUrl, Millis, Probe};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

/// A BMC counts in tenths of a second, and was read after the silence was measured.
const WATCHDOG_BLUR: Millis = Millis(200);

/// What asking found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It answered; of a kernel, also with a refusal.
    Answers,
    /// Every question went out, none was answered.
    Mute,
    /// At least one question could not be asked, and no other was answered.
    CouldNotAsk(String),
}

impl Answer {
    /// For [`policies::Input::Asked`].
    pub fn answers(&self) -> Option<bool> {
        match self {
            Answer::Answers => Some(true),
            Answer::Mute => Some(false),
            Answer::CouldNotAsk(_) => None,
        }
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// Whether the node does its work. Where the inventory names an HTTP address, only that one can tell.
    Work,
    /// Whether its kernel lives. Every way that the inventory names can tell.
    Kernel,
}

/// Asks `count` times, one question each `interval`, by every way that can tell. Returns at the first answer, or one
/// interval after the last question.
pub async fn ask(probe: &Probe, about: About, count: u32, interval: Duration) -> Answer {
    let start = Instant::now();
    let end = start + interval * count;
    let mut questions = JoinSet::new();
    let only_http = Probe { http: probe.http.clone(), ..Probe::default() };
    let probe = if about == About::Work && probe.http.is_some() { &only_http } else { probe };
    for i in 0..count {
        let at = start + interval * i;
        if let Some(url) = probe.http.clone() {
            questions.spawn(async move {
                sleep_until(at).await;
                fetch(&url, about, end).await
            });
        }
        if let Some(address) = probe.tcp.clone() {
            questions.spawn(async move {
                sleep_until(at).await;
                connect(TcpStream::connect(&address), &address, end).await
            });
        }
        if let Some(address) = probe.icmp.clone() {
            questions.spawn(async move {
                sleep_until(at).await;
                echo(&address, end).await
            });
        }
    }
    let mut found = Answer::Mute;
    while let Some(joined) = questions.join_next().await {
        match joined {
            Ok(Answer::Answers) => return Answer::Answers,
            Ok(Answer::Mute) => {}
            Ok(trouble @ Answer::CouldNotAsk(_)) => found = trouble,
            Err(error) => found = Answer::CouldNotAsk(error.to_string()),
        }
    }
    found
}

/// As the kernel answers, or its node's watchdog does, whose BMC has `limit` for that: fed after the node fell silent, it is
/// proof of life. Not fed, or not to be read, it says nothing: it is fed once a second, and only while the node is heard.
pub async fn with_watchdog(
    kernel: impl Future<Output = Answer>,
    watchdog: Option<Arc<impl PowerDriver>>,
    silent: Millis,
    limit: Duration,
) -> Answer {
    let fed = async {
        let fed = watchdog?.fed(Instant::now() + limit).await.ok()??;
        (fed.0 + WATCHDOG_BLUR.0 < silent.0).then_some(())
    };
    let (mut fed, mut kernel) = (pin!(fed), pin!(kernel));
    tokio::select! {
        answer = &mut kernel => match answer {
            Answer::Answers => Answer::Answers,
            answer @ (Answer::Mute | Answer::CouldNotAsk(_)) => fed.await.map_or(answer, |()| Answer::Answers),
        },
        fed = &mut fed => match fed {
            Some(()) => Answer::Answers,
            None => kernel.await,
        },
    }
}

/// One HTTP question. What is below 500 is an answer of somebody who works, also "not found" and "log in first"; the
/// address may simply be written wrongly, and no node is to be fenced for that. A redirect is one too, and not followed.
async fn fetch(url: &HttpUrl, about: About, deadline: Instant) -> Answer {
    match about {
        About::Kernel => {
            let connecting = TcpStream::connect((url.host(), url.port()));
            connect(connecting, url.authority(), deadline).await
        }
        About::Work => match http::get(url, deadline).await {
            Ok(Got::Status(0..500)) => Answer::Answers,
            Ok(Got::Status(500..) | Got::NoAnswer) => Answer::Mute,
            Err(error) => match meaning(&error, url.authority()) {
                // Its kernel refuses because nobody works there.
                Answer::Answers | Answer::Mute => Answer::Mute,
                trouble @ Answer::CouldNotAsk(_) => trouble,
            },
        },
    }
}

/// One TCP connection. A refusal (RST) is an answer of the kernel (RFC 9293 §3.5.2).
async fn connect(
    connecting: impl Future<Output = io::Result<TcpStream>>,
    address: &str,
    deadline: Instant,
) -> Answer {
    match timeout_at(deadline, connecting).await {
        Ok(Ok(_)) => Answer::Answers,
        Ok(Err(error)) => meaning(&error, address),
        Err(_) => Answer::Mute,
    }
}

/// Whose trouble an error is. What we do not know is ours.
fn meaning(error: &io::Error, address: &str) -> Answer {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Answer::Answers,
        // Our kernel asked for the node's link address or for an answer, and nobody gave one.
        ErrorKind::HostUnreachable | ErrorKind::TimedOut => Answer::Mute,
        _ => Answer::CouldNotAsk(format!("ask {address}: {error}")),
    }
}

/// One ICMP echo over an unprivileged datagram socket (`ping(8)` uses the same; see `net.ipv4.ping_group_range`).
async fn echo(address: &str, deadline: Instant) -> Answer {
    match timeout_at(deadline, exchange(address)).await {
        Ok(Ok(())) => Answer::Answers,
        Ok(Err(error)) => meaning(&error, address),
        Err(_) => Answer::Mute,
    }
}

async fn exchange(address: &str) -> io::Result<()> {
    let nowhere = || io::Error::new(ErrorKind::InvalidInput, "no such address");
    let to = lookup_host((address, 0)).await?.next().ok_or_else(nowhere)?;
    let (domain, protocol, kind) = match to.ip() {
        // RFC 792 type 8, RFC 4443 type 128.
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol)).map_err(with_remedy)?;
    socket.set_nonblocking(true)?;
    let socket = UdpSocket::from_std(socket.into())?;
    socket.connect(SocketAddr::new(to.ip(), 0)).await?;
    // The kernel fills in identifier and checksum of datagram echo sockets and hands us only our own replies.
    socket.send(&[kind, 0, 0, 0, 0, 0, 0, 1]).await?;
    let mut reply = [0u8; 64];
    loop {
        let length = socket.recv(&mut reply).await?;
        if let Some([0 | 129, ..]) = reply.get(..length) {
            return Ok(());
        }
    }
}

/// Which groups may send echoes is a setting of the kernel (icmp(7)), and some systems begin with none.
fn with_remedy(error: io::Error) -> io::Error {
    if error.kind() != ErrorKind::PermissionDenied {
        return error;
    }
    let text = format!("{error}; allow it: sysctl -w net.ipv4.ping_group_range='0 2147483647'");
    io::Error::new(ErrorKind::PermissionDenied, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fencing::{Act, DriverError, Look};
    use policies::Permit;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Long enough for a loaded machine.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// A listener that reads a request and gives this answer, for as long as it is asked; and its address.
    async fn serve(at: &str, answer: &'static [u8]) -> (Probe, JoinSet<()>) {
        let listener = TcpListener::bind(at).await.unwrap();
        let url = format!("http://{}/healthz?deep=1", listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![];
                while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.unwrap_or(0) > 0
                {
                }
                assert!(request.starts_with(b"GET /healthz?deep=1 HTTP/1.1\r\n"));
                // Whoever asked may have heard enough.
                stream.write_all(answer).await.unwrap_or_default();
            }
        });
        (Probe { http: Some(url.parse().unwrap()), ..Probe::default() }, tasks)
    }

    #[tokio::test]
    async fn every_status_below_500_is_the_answer_of_a_node_that_works() {
        for answer in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"[..],
            b"HTTP/1.1 204 No Content\r\n\r\n",
            b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.0 401 Who are you\r\n\r\n",
            // The body is not waited for.
            b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n",
        ] {
            let (probe, _listening) = serve("127.0.0.1:0", answer).await;
            let found = ask(&probe, About::Work, 1, PATIENCE).await;
            assert_eq!(found, Answer::Answers, "{}", String::from_utf8_lossy(answer));
        }
    }

    #[tokio::test]
    async fn a_node_that_says_5xx_or_nonsense_does_not_work_and_its_kernel_lives() {
        let endless: &[u8] =
            Box::leak([&b"HTTP/1.1 200 OK\r\nX: "[..], &[b'x'; 100_000]].concat().into_boxed_slice());
        for answer in [
            &b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"[..],
            b"HTTP/1.1 500 Oops\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"",
            endless,
        ] {
            let (probe, _listening) = serve("127.0.0.1:0", answer).await;
            let said = String::from_utf8_lossy(answer.get(..40).unwrap_or(answer)).into_owned();
            assert_eq!(ask(&probe, About::Work, 1, PATIENCE).await, Answer::Mute, "{said}");
            assert_eq!(ask(&probe, About::Kernel, 1, PATIENCE).await, Answer::Answers, "{said}");
        }
    }

    #[tokio::test]
    async fn a_refusal_proves_a_kernel_and_no_work_and_an_open_port_beside_it_changes_nothing() {
        let (probe, listening) = serve("127.0.0.1:0", b"").await;
        drop(listening);
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let probe = Probe { tcp: Some(open.local_addr().unwrap().to_string()), ..probe };
        assert_eq!(ask(&probe, About::Work, 2, PATIENCE).await, Answer::Mute);
        assert_eq!(ask(&Probe { tcp: None, ..probe }, About::Kernel, 2, PATIENCE).await, Answer::Answers);
    }

    #[tokio::test]
    async fn a_node_that_takes_the_question_and_says_nothing_is_mute() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let probe = Probe { http: Some(url.parse().unwrap()), ..Probe::default() };
        assert_eq!(ask(&probe, About::Work, 1, Duration::from_millis(100)).await, Answer::Mute);
    }

    #[tokio::test]
    async fn http_is_asked_over_ipv6() {
        let (probe, _listening) = serve("[::1]:0", b"HTTP/1.1 200 OK\r\n\r\n").await;
        assert_eq!(ask(&probe, About::Work, 1, PATIENCE).await, Answer::Answers);
    }

    /// A BMC whose watchdog was fed so long ago, if it says so.
    struct Watched(Option<Millis>);

    impl PowerDriver for Watched {
        async fn look(&self, _: Instant) -> Result<Look, DriverError> {
            Err(DriverError::Refused("only a watchdog".to_owned()))
        }

        async fn act(&self, _: Act, _: &dyn Permit, _: Instant) -> Result<(), DriverError> {
            Err(DriverError::Refused("only a watchdog".to_owned()))
        }

        async fn fed(&self, _: Instant) -> Result<Option<Millis>, DriverError> {
            Ok(self.0)
        }
    }

    #[tokio::test]
    async fn a_watchdog_that_was_fed_since_is_a_sign_of_life_and_all_else_of_it_is_none() {
        let answer = async |kernel: Answer, fed: Option<u64>, silent| {
            let watchdog = Some(Arc::new(Watched(fed.map(Millis))));
            with_watchdog(async { kernel }, watchdog, Millis(silent), PATIENCE).await
        };
        assert_eq!(answer(Answer::Mute, Some(1_000), 2_000).await, Answer::Answers);
        assert_eq!(answer(Answer::Mute, Some(1_900), 2_000).await, Answer::Mute, "it may have been before");
        assert_eq!(answer(Answer::Mute, Some(9_000), 2_000).await, Answer::Mute);
        assert_eq!(answer(Answer::Mute, None, 2_000).await, Answer::Mute);
        assert_eq!(answer(Answer::Answers, None, 2_000).await, Answer::Answers);
        let could_not = Answer::CouldNotAsk("no route".to_owned());
        assert_eq!(answer(could_not.clone(), Some(9_000), 2_000).await, could_not);
        assert_eq!(answer(could_not, Some(100), 2_000).await, Answer::Answers);
    }

    fn tcp(address: SocketAddr) -> Probe {
        Probe { tcp: Some(address.to_string()), ..Probe::default() }
    }

    #[tokio::test]
    async fn an_open_port_and_a_refusal_are_answers_of_the_kernel() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(ask(&tcp(address), About::Work, 2, PATIENCE).await, Answer::Answers);
        drop(listener);
        assert_eq!(ask(&tcp(address), About::Kernel, 2, PATIENCE).await, Answer::Answers);
    }

    #[tokio::test]
    async fn a_full_accept_queue_is_a_mute_kernel() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let filler = std::net::TcpStream::connect(address).unwrap();
        assert_eq!(ask(&tcp(address), About::Kernel, 2, Duration::from_millis(50)).await, Answer::Mute);
        drop(filler);
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_our_trouble() {
        let probe = Probe { tcp: Some("nowhere.invalid:22".into()), ..Probe::default() };
        assert!(matches!(ask(&probe, About::Kernel, 1, PATIENCE).await, Answer::CouldNotAsk(_)));
    }

    #[test]
    fn no_route_is_our_trouble_and_no_neighbour_is_the_nodes() {
        let of = |code| meaning(&io::Error::from_raw_os_error(code), "n1").answers();
        assert_eq!(of(nix::libc::ECONNREFUSED), Some(true));
        assert_eq!(of(nix::libc::EHOSTUNREACH), Some(false));
        for ours in [nix::libc::ENETUNREACH, nix::libc::EMFILE, nix::libc::EACCES, nix::libc::ENETDOWN] {
            assert_eq!(of(ours), None);
        }
    }
}
