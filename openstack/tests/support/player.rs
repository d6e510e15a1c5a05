//! Plays what was recorded: answers each request as the real service has, and no other.
//!
//! Every transcript begins after entering; tokens and versions come from `enter.json`, as often as they are asked for.

use super::{Asked, Exchange, Transcript};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use openstack::{Cloud, Credentials, Domain, Reference, Scope, Settings};
use policies::CloudInterface;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use zeroize::Zeroizing;

#[derive(Default)]
struct Play {
    entering: Vec<Exchange>,
    next: VecDeque<Exchange>,
    /// Tokens that were given.
    tokens: u32,
    wrong: Vec<String>,
    /// How long each answer takes, by a clock that is moved.
    delay: Option<Duration>,
}

pub(crate) struct Player {
    address: SocketAddr,
    play: Arc<Mutex<Play>>,
    ids: BTreeMap<String, String>,
}

impl Player {
    /// Plays a transcript.
    pub(crate) async fn of(name: &str) -> Player {
        Player::with(Transcript::read(name)).await
    }

    /// Plays what a test has made of one.
    pub(crate) async fn with(transcript: Transcript) -> Player {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let entering = Transcript::read("enter").exchanges;
        let next = transcript.exchanges.into();
        let play = Arc::new(Mutex::new(Play { entering, next, ..Play::default() }));
        let app = Router::new().fallback(answer).with_state((address, Arc::clone(&play)));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Player { address, play, ids: transcript.ids }
    }

    pub(crate) fn settings(&self) -> Settings {
        let named =
            |name: &str| Reference::Name { name: name.to_owned(), domain: Domain::Id("default".to_owned()) };
        let (user, scope) = (named("failover"), Scope::Project(named("service")));
        let password = Zeroizing::new("secret".to_owned());
        Settings {
            keystone: format!("http://{}/keystone/v3", self.address),
            ca: None,
            region: None,
            interface: CloudInterface::Public,
            credentials: Credentials::Password { user, password, scope },
        }
    }

    pub(crate) fn cloud(&self) -> Cloud {
        Cloud::new(self.settings()).unwrap()
    }

    /// From now on each answer takes that long: the clock is moved, nobody waits.
    pub(crate) fn slow(&self, delay: Duration) {
        self.play.lock().unwrap().delay = Some(delay);
    }

    /// An id that was noted.
    pub(crate) fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(&self, name: &str) -> T {
        self.ids[name].parse().unwrap()
    }

    /// How many tokens were given.
    pub(crate) fn tokens(&self) -> u32 {
        self.play.lock().unwrap().tokens
    }

    /// Everything was asked that was recorded, and nothing else.
    pub(crate) fn done(self) {
        let play = self.play.lock().unwrap();
        assert_eq!(play.wrong, Vec::<String>::new());
        assert!(play.next.is_empty(), "not asked: {:?}", play.next.front());
    }
}

async fn answer(State((address, play)): State<(SocketAddr, Arc<Mutex<Play>>)>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let delay = play.lock().unwrap().delay;
    if let Some(delay) = delay {
        pass(delay).await;
    }
    let path = head.uri.path_and_query().unwrap().as_str();
    let (service, path) = path.trim_start_matches('/').split_once('/').unwrap();
    let asked = Asked::new(service, head.method.as_str(), &format!("/{path}"), &head.headers, &body);
    let mut play = play.lock().unwrap();
    let is_entering = service == "keystone";
    let token = head.headers.get("x-auth-token").map(|token| token.to_str().unwrap());
    if !is_entering && token != Some(format!("token-{}", play.tokens).as_str()) {
        let last = play.tokens;
        play.wrong.push(format!("{asked:?} came with the token {token:?}, the last given was {last}"));
    }
    let answer = match play.next.front() {
        Some(next) if next.ask == asked => play.next.pop_front().unwrap().answer,
        next => {
            let next = format!("{next:?}");
            let Some(entering) = play.entering.iter().find(|it| it.ask == asked).cloned() else {
                play.wrong.push(format!("asked {asked:?}\n  instead of {next}"));
                return StatusCode::IM_A_TEAPOT.into_response();
            };
            entering.answer
        }
    };
    let mut headers = HeaderMap::new();
    if is_entering && answer.status == 201 {
        play.tokens += 1;
        headers.insert("x-subject-token", format!("token-{}", play.tokens).parse().unwrap());
    }
    let text = match answer.body {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text,
        body => body.to_string(),
    };
    let services = ["keystone", "baremetal", "network", "volume"];
    let moved =
        |text: String, name: &&str| text.replace(&format!("{name}.test"), &format!("{address}/{name}"));
    let text = services.iter().fold(text, moved);
    (StatusCode::from_u16(answer.status).unwrap(), headers, Bytes::from(text)).into_response()
}

/// Moves the clock.
pub(crate) async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}
