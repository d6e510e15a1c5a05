//! Stands between the client and the real services, and writes down what is said about one call.
//!
//! Why it exists: what a test plays is what a service has said, not what we believe that it says. Secrets and tokens are not
//! written down.

use super::{Answered, Asked, Exchange, Transcript, plain_client};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

/// The services by name, with their real addresses (`127.0.0.1:17385`) and those at which we stand in for them.
#[derive(Clone)]
struct Place {
    service: &'static str,
    real: String,
    ours: SocketAddr,
}

#[derive(Default)]
struct Said {
    /// What is being written down now.
    exchanges: Option<Vec<Exchange>>,
    /// The token that was given last.
    token: String,
}

#[derive(Clone)]
pub(crate) struct Recorder {
    places: Arc<Vec<Place>>,
    said: Arc<Mutex<Said>>,
    http: reqwest::Client,
}

impl Recorder {
    /// In front of these services.
    pub(crate) async fn new(services: &[(&'static str, String)]) -> Recorder {
        let (mut places, mut listeners) = (vec![], vec![]);
        for (service, real) in services {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            places.push(Place { service, real: real.clone(), ours: listener.local_addr().unwrap() });
            listeners.push(listener);
        }
        let recorder = Recorder { places: Arc::new(places), said: Arc::default(), http: plain_client() };
        for (place, listener) in recorder.places.iter().cloned().zip(listeners) {
            let app = Router::new().fallback(pass).with_state((recorder.clone(), place));
            tokio::spawn(async move { axum::serve(listener, app).await });
        }
        recorder
    }

    /// Where we stand in for a service.
    pub(crate) fn address(&self, service: &str) -> SocketAddr {
        self.places.iter().find(|place| place.service == service).unwrap().ours
    }

    /// The token that Keystone gave last.
    pub(crate) fn token(&self) -> String {
        self.said.lock().unwrap().token.clone()
    }

    /// Does one thing and, if `UPDATE_EXPECT` is set, keeps what was said as `testdata/NAME.json`.
    pub(crate) async fn record<T>(
        &self,
        name: &str,
        about: &str,
        ids: &[(&str, &str)],
        what: impl Future<Output = T>,
    ) -> T {
        self.said.lock().unwrap().exchanges = Some(vec![]);
        let end = what.await;
        let exchanges = self.said.lock().unwrap().exchanges.take().unwrap();
        assert!(!exchanges.is_empty(), "{name}: nothing was asked");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            let ids: BTreeMap<_, _> =
                ids.iter().map(|&(name, id)| (name.to_owned(), id.to_owned())).collect();
            Transcript { about: about.to_owned(), ids, exchanges }.write(name);
        }
        end
    }
}

/// Passes one request on.
async fn pass(State((recorder, place)): State<(Recorder, Place)>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let path = head.uri.path_and_query().unwrap().to_string();
    let asked = Asked::new(place.service, head.method.as_str(), &path, &head.headers, &body);
    let mut headers = head.headers;
    headers.remove("host");
    let request = recorder.http.request(head.method, format!("http://{}{path}", place.real));
    let answer = request.headers(headers).body(body).send().await.unwrap();
    let (status, given) = (answer.status(), answer.headers().clone());
    let text = String::from_utf8(answer.bytes().await.unwrap().to_vec()).unwrap();
    let mut said = recorder.said.lock().unwrap();
    let mut headers = HeaderMap::new();
    if let Some(token) = given.get("x-subject-token") {
        said.token = token.to_str().unwrap().to_owned();
        headers.insert("x-subject-token", token.clone());
    }
    if let Some(exchanges) = &mut said.exchanges {
        let named =
            |text: String, place: &Place| text.replace(&place.real, &format!("{}.test", place.service));
        let text = recorder.places.iter().fold(text.clone(), named);
        let body = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).unwrap_or(Value::String(text))
        };
        exchanges.push(Exchange { ask: asked, answer: Answered { status: status.as_u16(), body } });
    }
    let moved = |text: String, place: &Place| text.replace(&place.real, &place.ours.to_string());
    let text = recorder.places.iter().fold(text, moved);
    (status, headers, Bytes::from(text)).into_response()
}
