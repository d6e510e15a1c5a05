//! A small BMC for the driver's tests: real RMCP+ on loopback, with the moods of the contract table and a few more.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use fencing::contract::{GUID, Mood};
use fencing::ipmi::codec::{self, Datagram, LanMessage, Payload};
use fencing::ipmi::crypto::{Handshake, Key, SessionKeys, Suite};
use fencing::ipmi::rakp::{BmcPart, OpenRequest, OpenResponse, Opened, Rakp1, Rakp2, Rakp3, Rakp4, Status};
use fencing::ipmi::window::Window;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

pub(crate) const USER: &str = "admin";
pub(crate) const PASSWORD: &[u8] = b"secret";

/// How the BMC is set up and what it saw; tests change and read it at will.
pub(crate) struct State {
    pub(crate) suite: Suite,
    pub(crate) k_g: Option<Key>,
    pub(crate) mood: Mood,
    pub(crate) off_delay: Duration,
    pub(crate) sessions_max: usize,
    /// One in this many datagrams is lost, each way; 0: none.
    pub(crate) lose_one_in: u64,
    /// Answers to Chassis Status number n (from 1) come this much later.
    pub(crate) delay_status: fn(u32) -> Duration,
    /// Before each good answer to Chassis Status comes a forged one that says "off".
    pub(crate) forge: bool,
    pub(crate) sessions: HashMap<u32, Session>,
    pub(crate) opens: u32,
    /// Every Chassis Control byte that arrived.
    pub(crate) controls: Vec<u8>,
    /// The data of every Set System Boot Options that arrived, with the number of Chassis Controls before it.
    pub(crate) boots: Vec<(usize, Vec<u8>)>,
    /// What it answers to them; `None`: nothing.
    pub(crate) boot_completion: Option<u8>,
    pub(crate) device_ids: u32,
    pub(crate) statuses: u32,
    pub(crate) off: bool,
    /// The last two bytes of Chassis Status.
    pub(crate) chassis: [u8; 2],
    /// The event log, the oldest record first.
    pub(crate) log: Vec<[u8; 16]>,
    /// Get SEL Entry gives the newest record whatever it is asked for.
    pub(crate) log_is_stuck: bool,
    /// So many exchanges about the event log are answered; later ones are not.
    pub(crate) log_answers: usize,
    /// The data records of its sensors, with headers; ids are places.
    pub(crate) sdr: Vec<Vec<u8>>,
    /// How often one was asked for.
    pub(crate) sdr_reads: u32,
    /// It gives at most 16 bytes of one at a time.
    pub(crate) sdr_in_pieces: bool,
    /// What its sensors read, by number.
    pub(crate) readings: Vec<(u8, [u8; 4])>,
    /// What it answers to every question about chassis, event log and sensors instead of the truth: completion code and data.
    pub(crate) nonsense: Option<(u8, Vec<u8>)>,
    commanded_at: Option<Instant>,
    statuses_since: u32,
    next_session: u32,
    random: u64,
}

pub(crate) struct Session {
    handshake: Handshake,
    keys: Option<SessionKeys>,
    privilege: u8,
    sequence: u32,
    window: Window,
}

pub(crate) struct FakeBmc {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    _task: JoinSet<()>,
}

impl FakeBmc {
    pub(crate) async fn start(mood: Mood) -> FakeBmc {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let address = socket.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            suite: Suite::Seventeen,
            k_g: None,
            mood,
            off_delay: Duration::ZERO,
            sessions_max: 15,
            lose_one_in: 0,
            delay_status: |_| Duration::ZERO,
            forge: false,
            sessions: HashMap::new(),
            opens: 0,
            controls: vec![],
            boots: vec![],
            boot_completion: Some(0),
            device_ids: 0,
            statuses: 0,
            off: mood == Mood::AlreadyOff,
            chassis: [0, 0],
            log: vec![],
            log_is_stuck: false,
            sdr: vec![],
            sdr_reads: 0,
            sdr_in_pieces: false,
            readings: vec![],
            log_answers: usize::MAX,
            nonsense: None,
            commanded_at: None,
            statuses_since: 0,
            next_session: 0x1000,
            random: 0x9e37_79b9_7f4a_7c15,
        }));
        let mut task = JoinSet::new();
        task.spawn(serve(socket, Arc::clone(&state)));
        FakeBmc { address, state, _task: task }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn opens_and_statuses(&self) -> (u32, u32) {
        let state = self.state();
        (state.opens, state.statuses)
    }

    /// Waits until the state is as wished, or fails after ten seconds.
    pub(crate) async fn wait_for(&self, what: &str, mut wish: impl FnMut(&State) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !wish(&self.state()) {
            assert!(Instant::now() < deadline, "waited in vain for: {what}");
            sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn serve(socket: Arc<UdpSocket>, state: Arc<Mutex<State>>) {
    let mut buffer = [0; 2048];
    let mut late = JoinSet::new();
    loop {
        let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
        let answers = {
            let mut state = state.lock().unwrap();
            if state.lost() { vec![] } else { state.handle(&buffer[..len]) }
        };
        for (delay, answer) in answers {
            if state.lock().unwrap().lost() {
                continue;
            }
            if delay.is_zero() {
                let datagram = state.lock().unwrap().made(answer);
                socket.send_to(&datagram, from).await.unwrap();
            } else {
                let (socket, state) = (Arc::clone(&socket), Arc::clone(&state));
                late.spawn(async move {
                    sleep(delay).await;
                    let datagram = state.lock().unwrap().made(answer);
                    socket.send_to(&datagram, from).await.unwrap();
                });
            }
        }
    }
}

/// An answer, before it leaves.
pub(crate) enum Answer {
    Datagram(Vec<u8>),
    /// To the session of that id; numbered when it leaves, as a real BMC does.
    InSession(u32, LanMessage),
}

type Answers = Vec<(Duration, Answer)>;

fn at_once(payload: Payload, bytes: &[u8]) -> Answers {
    vec![(Duration::ZERO, Answer::Datagram(codec::setup(payload, bytes)))]
}

impl State {
    fn lost(&mut self) -> bool {
        // xorshift64: the tests need no better chance, but the same one each time.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.lose_one_in > 0 && self.random.is_multiple_of(self.lose_one_in)
    }

    /// The datagram; empty if its session is gone.
    fn made(&mut self, answer: Answer) -> Vec<u8> {
        match answer {
            Answer::Datagram(datagram) => datagram,
            Answer::InSession(id, message) => {
                let Some(session) = self.sessions.get_mut(&id) else {
                    return vec![];
                };
                let Some(keys) = &session.keys else {
                    return vec![];
                };
                session.sequence += 1;
                codec::seal(keys, session.handshake.console_session, session.sequence, [7; 16], &message)
            }
        }
    }

    fn handle(&mut self, datagram: &[u8]) -> Answers {
        if self.mood == Mood::Deaf {
            return vec![];
        }
        match codec::decode(datagram) {
            Ok(Datagram::Setup { payload: Payload::OpenRequest, bytes }) => self.open(bytes),
            Ok(Datagram::Setup { payload: Payload::Rakp1, bytes }) => self.rakp1(bytes),
            Ok(Datagram::Setup { payload: Payload::Rakp3, bytes }) => self.rakp3(bytes),
            Ok(Datagram::Protected(packet)) => self.protected(packet),
            Ok(_) | Err(_) => vec![],
        }
    }

    fn open(&mut self, bytes: &[u8]) -> Answers {
        let Ok(request) = OpenRequest::decode(bytes) else {
            return vec![];
        };
        self.opens += 1;
        let result = if request.algorithms != self.suite.algorithms() {
            Err(Status::NO_SUITE_MATCH)
        } else if self.sessions.len() >= self.sessions_max {
            Err(Status::NO_RESOURCES)
        } else {
            self.next_session += 1;
            let handshake = Handshake {
                suite: self.suite,
                console_session: request.console_session,
                bmc_session: self.next_session,
                console_random: [0; 16],
                bmc_random: [0x5a; 16],
                bmc_guid: [0xee; 16],
                role: 0,
                user: fencing::ipmi::crypto::UserName::new(b"").unwrap(),
            };
            let session =
                Session { handshake, keys: None, privilege: 2, sequence: 0, window: Window::default() };
            self.sessions.insert(self.next_session, session);
            Ok(Opened { privilege: 4, bmc_session: self.next_session, algorithms: request.algorithms })
        };
        let response = OpenResponse { tag: request.tag, console_session: request.console_session, result };
        at_once(Payload::OpenResponse, &response.encode())
    }

    fn rakp1(&mut self, bytes: &[u8]) -> Answers {
        let Ok(request) = Rakp1::decode(bytes) else {
            return vec![];
        };
        let Some(session) = self.sessions.get_mut(&request.bmc_session) else {
            return vec![];
        };
        let handshake = &mut session.handshake;
        let result = if request.user.as_bytes() == USER.as_bytes() {
            (handshake.console_random, handshake.role) = (request.console_random, request.role);
            handshake.user = request.user;
            let code = handshake.rakp2_code(&Key::from_secret(PASSWORD).unwrap());
            Ok(BmcPart { random: handshake.bmc_random, guid: handshake.bmc_guid, code })
        } else {
            Err(Status::UNAUTHORIZED_NAME)
        };
        let response = Rakp2 { tag: request.tag, console_session: handshake.console_session, result };
        if response.result.is_err() {
            self.sessions.remove(&request.bmc_session);
        }
        at_once(Payload::Rakp2, &response.encode())
    }

    fn rakp3(&mut self, bytes: &[u8]) -> Answers {
        let Ok(request) = Rakp3::decode(bytes) else {
            return vec![];
        };
        let Some(session) = self.sessions.get_mut(&request.bmc_session) else {
            return vec![];
        };
        let password = Key::from_secret(PASSWORD).unwrap();
        let (tag, console_session) = (request.tag, session.handshake.console_session);
        let result = match request.result {
            Ok(code) if code == session.handshake.rakp3_code(&password) => {
                let keys = session.handshake.session_keys(&password, self.k_g.as_ref());
                let check = keys.rakp4_check(&session.handshake);
                session.keys = Some(keys);
                Ok(check)
            }
            Ok(_) | Err(_) => {
                self.sessions.remove(&request.bmc_session);
                Err(Status::INVALID_CHECK)
            }
        };
        at_once(Payload::Rakp4, &Rakp4 { tag, console_session, result }.encode())
    }

    fn protected(&mut self, packet: codec::Protected<'_>) -> Answers {
        let Some(session) = self.sessions.get_mut(&packet.session) else {
            return vec![];
        };
        let Some(keys) = session.keys.clone() else {
            return vec![];
        };
        let Ok(message) = packet.open(&keys) else {
            return vec![];
        };
        assert!(session.window.accept(packet.sequence), "the driver must number its packets anew");
        let request = LanMessage::decode(&message).unwrap();
        let console = session.handshake.console_session;
        let Some((delay, completion, data)) = self.command(packet.session, &request) else {
            return vec![];
        };
        let response = request.response(completion, &data);
        let mut answers = vec![];
        if self.forge && (request.net_fn, request.command) == (0, 1) {
            let forged = request.response(0, &[0, 0, 0]);
            let mut strangers = codec::seal(&keys, console, u32::MAX, [0; 16], &forged);
            *strangers.last_mut().unwrap() ^= 1;
            answers.push((Duration::ZERO, Answer::Datagram(strangers)));
        }
        answers.push((delay, Answer::InSession(packet.session, response)));
        answers
    }

    fn command(&mut self, session: u32, request: &LanMessage) -> Option<(Duration, u8, Vec<u8>)> {
        if self.mood == Mood::FallsSilent && self.commanded_at.is_some() {
            return None;
        }
        let answer = |completion: u8, data: &[u8]| Some((Duration::ZERO, completion, data.to_vec()));
        match (request.net_fn, request.command) {
            (0x00, 0x01) | (0x04 | 0x0a, _) if self.nonsense.is_some() => {
                let (completion, data) = self.nonsense.clone().unwrap();
                answer(completion, &data)
            }
            (0x00, 0x01) => {
                self.statuses += 1;
                let delay = (self.delay_status)(self.statuses);
                let [before, misc] = self.chassis;
                Some((delay, 0, vec![u8::from(self.power_on()) | 0x60, before, misc]))
            }
            (0x0a, 0x22) => answer(0, &[7, 0]),
            (0x0a, 0x23) => {
                self.sdr_reads += 1;
                let [r0, r1, i0, i1, offset, count] = request.data[..] else { return answer(0xc7, &[]) };
                let place = usize::from(u16::from_le_bytes([i0, i1]));
                let Some(record) = self.sdr.get(place) else { return answer(0xcb, &[]) };
                if self.sdr_in_pieces && count > 16 {
                    return answer(0xca, &[]);
                }
                if offset > 0 && [r0, r1] != [7, 0] {
                    return answer(0xc5, &[]);
                }
                let [n0, n1, ..] =
                    if place + 1 < self.sdr.len() { (place + 1).to_le_bytes() } else { [0xff; 8] };
                let piece = record.iter().skip(offset.into()).take(count.into()).copied();
                let data: Vec<u8> = [n0, n1].into_iter().chain(piece).collect();
                answer(0, &data)
            }
            (0x04, 0x2d) => match self.readings.iter().find(|(number, _)| [*number] == request.data[..]) {
                Some((_, reading)) => answer(0, reading),
                None => answer(0xcb, &[]),
            },
            (0x0a, _) if self.log_answers == 0 => None,
            (0x0a, 0x40) => {
                self.log_answers -= 1;
                let [low, high, ..] = self.log.len().to_le_bytes();
                answer(0, &[0x51, low, high, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02])
            }
            (0x0a, 0x43) => {
                self.log_answers -= 1;
                let newest = self.log_is_stuck || request.data[2..4] == [0xff, 0xff];
                let is_meant = |record: &[u8; 16]| newest || record[..2] == request.data[2..4];
                let Some(place) = self.log.iter().rposition(is_meant) else { return answer(0xcb, &[]) };
                let next = self.log.get(place + 1).map_or([0xff, 0xff], |next| [next[0], next[1]]);
                answer(0, &[&next[..], &self.log[place]].concat())
            }
            (0x00, 0x02) => self.control(session, &request.data),
            (0x00, 0x08) => {
                self.boots.push((self.controls.len(), request.data.clone()));
                self.boot_completion.and_then(|completion| answer(completion, &[]))
            }
            (0x06, 0x01) => {
                self.device_ids += 1;
                answer(0, &[0x20, 1, 2, 3, 2, 0x9f, 0x91, 0x12, 0, 2, 0x0f])
            }
            (0x06, 0x37) if self.mood == Mood::OtherIdentity => answer(0, &[0xff; 16]),
            (0x06, 0x37) if self.mood == Mood::NoIdentity => answer(0, &[0; 16]),
            (0x06, 0x37) => answer(0, &guid()),

            (0x06, 0x3b) => {
                self.sessions.get_mut(&session).unwrap().privilege = request.data[0];
                answer(0, &request.data[..1])
            }
            (0x06, 0x3c) => {
                self.sessions.remove(&session);
                None
            }
            _ => answer(0xc1, &[]),
        }
    }

    fn control(&mut self, session: u32, data: &[u8]) -> Option<(Duration, u8, Vec<u8>)> {
        self.controls.push(data[0]);
        if self.mood == Mood::Refuses || self.sessions[&session].privilege < 3 {
            return Some((Duration::ZERO, 0xd4, vec![]));
        }
        if self.mood == Mood::OnlyHardOff && data[0] == 5 {
            return Some((Duration::ZERO, 0xcc, vec![]));
        }
        if matches!(data[0], 0 | 5) && self.commanded_at.is_none() {
            self.commanded_at = Some(Instant::now());
            self.statuses_since = 0;
        }
        let mute = matches!(self.mood, Mood::ObeysMute | Mood::FallsSilent) || data[0] == 3;
        (!mute).then_some((Duration::ZERO, 0, vec![]))
    }

    fn power_on(&mut self) -> bool {
        let Some(at) = self.commanded_at else {
            return !(self.off || (self.mood == Mood::OffOnce && self.statuses == 1));
        };
        self.statuses_since += 1;
        let late = if self.mood == Mood::ObeysLate { Duration::from_millis(200) } else { self.off_delay };
        let wavers = self.mood == Mood::Wavers && self.statuses_since == 2;
        let lies = self.mood == Mood::Lies && self.statuses_since.is_multiple_of(2);
        wavers || lies || self.mood == Mood::Ignores || at.elapsed() < late
    }
}

fn guid() -> Vec<u8> {
    (0..GUID.len()).step_by(2).map(|at| u8::from_str_radix(&GUID[at..at + 2], 16).unwrap()).collect()
}
