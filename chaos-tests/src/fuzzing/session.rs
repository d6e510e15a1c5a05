//! Target `rmcp_session`: a script of what a network and a BMC may do to an open session.
//!
//! Why it exists: an answer of another session, of another request, or of no request, taken for "the power is off",
//! starts an instance twice. The model beside the session knows which datagrams are the answer; the session may take
//! no other. The addresses in a message are not compared: its code says that the BMC of this session made it, and BMCs
//! are known to fill them in as they like.

use super::ipmi::keys;
use super::script::Script;
use fencing::ipmi::codec::{self, Datagram, LanMessage};
use fencing::ipmi::crypto::{SessionKeys, Suite};
use fencing::ipmi::parse::Session;
use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::Duration;
use tokio::time::Instant;

const CONSOLE: u32 = 7;
const BMC: u32 = 9;
/// Steps of one script; the 64 request numbers are used up in fewer.
const STEPS_MAX: usize = 200;

/// One clock for all calls, so that a script says the same each time.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A datagram that the BMC made.
struct Authentic {
    datagram: Vec<u8>,
    session: u32,
    sequence: u32,
    message: LanMessage,
    /// The request that it answers; `None`: it came of itself.
    answers: Option<u32>,
}

struct Model {
    session: Session,
    keys: SessionKeys,
    request: LanMessage,
    /// Counts the requests; a retransmission is the same request.
    asked: u32,
    /// What the console sent and the BMC has not answered, with the request that it carries.
    sent: Vec<(LanMessage, u32)>,
    /// Request numbers under which the present request went out.
    numbers: BTreeSet<u8>,
    wire: Vec<Authentic>,
    bmc_sequence: u32,
    console_sequence: u32,
    taken: BTreeSet<u32>,
    /// The BMC speaks without being asked: then an early answer may use up a number whose true answer comes later.
    unasked: bool,
    now: Instant,
    answered: bool,
}

pub(super) fn run(data: &[u8]) -> bool {
    let mut script = Script::new(data);
    let suite = if script.byte().is_multiple_of(2) { Suite::Seventeen } else { Suite::Three };
    let keys = keys(suite, 1);
    let mut model = Model {
        session: Session::new(keys.clone(), CONSOLE, BMC),
        keys,
        request: LanMessage::request(0, 1, 0, vec![]),
        asked: 0,
        sent: vec![],
        numbers: BTreeSet::new(),
        wire: vec![],
        bmc_sequence: 0,
        console_sequence: 0,
        taken: BTreeSet::new(),
        unasked: false,
        now: *START,
        answered: false,
    };
    for _ in 0..STEPS_MAX {
        if script.is_over() {
            break;
        }
        model.step(&mut script);
    }
    model.answered
}

impl Model {
    fn step(&mut self, script: &mut Script<'_>) {
        match script.byte() % 9 {
            0 => self.ask(script),
            1 => self.send(),
            2 => self.answer(script),
            3 => self.speak(script),
            4 => {
                let datagram = script.pick(&self.wire).map(|authentic| authentic.datagram.clone());
                self.deliver(&datagram.unwrap_or_default());
            }
            5 => {
                let picked = script.pick(&self.wire).map(|authentic| authentic.datagram.clone());
                let damaged = script.damage(&picked.unwrap_or_default());
                self.deliver(&damaged);
            }
            6 => self.deliver(script.bytes()),
            7 => self.now += Duration::from_millis(u64::from(script.byte()) * 4),
            _ => {
                if let Some(last) = self.wire.last().map(|authentic| authentic.datagram.clone()) {
                    self.deliver(&last);
                }
            }
        }
    }

    fn ask(&mut self, script: &mut Script<'_>) {
        let (net_fn, command) = [(0, 1), (0, 2), (6, 1), (10, 0x43)][usize::from(script.byte() % 4)];
        self.request = LanMessage::request(net_fn, command, 0, vec![]);
        self.asked += 1;
        self.numbers.clear();
        self.session.begin();
        self.send();
    }

    /// Sends the request, for the first time or again.
    fn send(&mut self) {
        if self.asked == 0 {
            return;
        }
        let Ok(datagram) = self.session.pack(&mut self.request, self.now) else { return };
        let Ok(Datagram::Protected(packet)) = codec::decode(&datagram) else {
            return assert!(datagram.is_empty(), "a request that is no packet");
        };
        assert!(packet.session == BMC && packet.sequence > self.console_sequence, "a number was used twice");
        self.console_sequence = packet.sequence;
        let message = packet.open(&self.keys).ok().and_then(|bytes| LanMessage::decode(&bytes).ok());
        assert_eq!(message.as_ref(), Some(&self.request), "another request went out");
        assert!(self.numbers.insert(self.request.sequence), "a request number that waits was used again");
        self.sent.push((self.request.clone(), self.asked));
    }

    /// The BMC answers something that it got; each datagram once, as a BMC with a sequence window does.
    fn answer(&mut self, script: &mut Script<'_>) {
        let Some(at) = usize::from(script.byte()).checked_rem(self.sent.len()) else { return };
        let (request, asked) = self.sent.remove(at);
        let message = request.response(script.byte() & 0xc0, script.bytes());
        self.put(CONSOLE, message, Some(asked));
    }

    /// The BMC says something to this session or another, that is the answer to nothing.
    fn speak(&mut self, script: &mut Script<'_>) {
        let session = if script.byte().is_multiple_of(3) { CONSOLE + 1 } else { CONSOLE };
        let mut message = LanMessage::request(script.byte(), script.byte(), script.byte(), vec![]);
        message.data = script.bytes().to_vec();
        self.unasked |= session == CONSOLE;
        self.put(session, message, None);
    }

    fn put(&mut self, session: u32, message: LanMessage, answers: Option<u32>) {
        self.bmc_sequence += 1;
        let sequence = self.bmc_sequence;
        let datagram = codec::seal(&self.keys, session, sequence, [4; 16], &message);
        self.wire.push(Authentic { datagram, session, sequence, message, answers });
    }

    /// The one question: is this taken for the answer, and is it?
    fn deliver(&mut self, datagram: &[u8]) {
        let Ok(answer) = self.session.accept(datagram, &self.request) else { return };
        let authentic = self.wire.iter().find(|authentic| authentic.datagram == datagram);
        let authentic = authentic.expect("the BMC did not make what was taken for its answer");
        let message = &authentic.message;
        assert_eq!(authentic.session, CONSOLE, "the answer of another session was taken");
        assert!(self.taken.insert(authentic.sequence), "an answer was taken twice");
        assert!(self.numbers.remove(&message.sequence), "the answer to no request in flight was taken");
        assert_eq!(message.net_fn, self.request.net_fn | 1, "something else than a response was taken");
        assert_eq!(message.command, self.request.command, "the answer to another command was taken");
        let said = [&[answer.completion], answer.data.as_slice()].concat();
        assert_eq!(said, message.data, "the answer says something else than the BMC");
        let earlier = authentic.answers.is_some_and(|asked| asked != self.asked);
        assert!(self.unasked || !earlier, "the answer to an earlier request was taken");
        self.answered = true;
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let answered = [0, 0, 0, 2, 0, 0, 1, 1, 8];
    let late = [1, 0, 0, 0, 0, 2, 0, 0, 1, 9, 8, 2, 0, 0, 1, 8, 8];
    let again = [0, 0, 0, 1, 1, 2, 2, 0, 1, 1, 4, 0, 2, 0, 0, 1, 1, 4, 1];
    let damaged = [0, 0, 1, 2, 0, 0, 1, 1, 5, 0, 9, 0, 1, 4, 0];
    let stranger = [0, 0, 0, 3, 0, 1, 1, 0, 2, 0, 1, 8, 2, 0, 0, 1, 1, 8];
    let slow = [0, 0, 0, 7, 255, 2, 0, 0, 1, 1, 8, 0, 2, 2, 0, 0, 2, 1, 2, 8];
    [&answered[..], &late, &again, &damaged, &stranger, &slow].into_iter().map(<[u8]>::to_vec).collect()
}
