//! Open vSwitch as a network provider, over its database (OVSDB, RFC 7047).
//!
//! What this is: a port of the switch as one row that is read and written in transactions: access VLAN, further tagged VLANs,
//! or the park VLAN, in which a fenced node reaches nobody.
//! Why it exists: switches that speak OVSDB are opened and closed without a vendor's controller.
//! What it never does: it believes no database row that the switch itself has not yet taken over (`cur_cfg`), writes to no
//! row that somebody else has changed since it was read, and touches no key of others.

use crate::{ProviderError, State, Wish};
use policies::{Check, Finding, LogIndex, Permit, Refusal, vlans};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{Error, ErrorKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

/// Longest time for a connection, TLS included. A database on the management network answers in a millisecond.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Largest answer that is read, in bytes. One port with its links has a few hundred.
const ANSWER_MAX: usize = 256 * 1024;
/// Links of one port (a bond) whose state is read. A switch allows eight in a LAG.
const LINKS_MAX: usize = 16;
/// Key in `external_ids` of a port: the newest token that was written (R8).
const TOKEN_KEY: &str = "ha-token";

/// `vlan_mode` of a port that passes one VLAN, untagged (ovs-vswitchd.conf.db(5)).
const ACCESS: &str = "access";
/// ... and of one that passes others beside it, tagged. With none of these it would pass every VLAN.
const NATIVE_UNTAGGED: &str = "native-untagged";

/// How the database is reached, and where fenced nodes go.
#[derive(Clone, Debug)]
pub struct Settings<'a> {
    /// `tcp://host:port` or `ssl://host:port`; OVSDB's port is 6640 (RFC 7047 §4.1, IANA).
    pub url: &'a str,
    /// VLAN of closed ports. Nothing else may be in it.
    pub park_vlan: u16,
    /// For `ssl`: the authority that signed the switch's certificate, PEM.
    pub ca: Option<&'a str>,
    /// For `ssl`: our certificate, PEM.
    pub certificate: Option<&'a str>,
    /// For `ssl`: its key, PEM. Empty without TLS.
    pub key: &'a [u8],
}

/// Client of one switch's database.
#[derive(Clone)]
pub struct Ovsdb {
    address: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    park_vlan: u16,
}

impl fmt::Debug for Ovsdb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ovsdb").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A port as its database row says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Port {
    tag: Option<u16>,
    trunks: BTreeSet<u16>,
    mode: Option<String>,
    protected: bool,
    external_ids: BTreeMap<String, String>,
    links: Vec<String>,
}

/// How a port is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    /// The VLAN that it gives access to.
    tag: u16,
    /// Those beside it, tagged.
    trunks: BTreeSet<u16>,
    /// Parked ports do not even reach each other.
    protected: bool,
}

impl Ovsdb {
    /// A client with these settings.
    ///
    /// # Errors
    /// [`ProviderError::Configuration`] if the address, a certificate or the key cannot be used.
    pub fn new(settings: &Settings<'_>) -> Result<Self, ProviderError> {
        let url = settings.url;
        let unusable = |why: String| ProviderError::Configuration(format!("ovsdb at {url}: {why}"));
        let (scheme, address) = url
            .split_once("://")
            .ok_or_else(|| unusable("the address has to be tcp://host:port or ssl://host:port".to_owned()))?;
        let host = address.rsplit_once(':').map(|(host, _)| host.trim_matches(['[', ']']));
        let host = host.ok_or_else(|| unusable("it names no port; OVSDB's is 6640".to_owned()))?;
        let tls = match scheme {
            "tcp" => None,
            "ssl" => {
                let name =
                    ServerName::try_from(host.to_owned()).map_err(|error| unusable(error.to_string()))?;
                let config =
                    tls_config(settings).map_err(|error| unusable(policies::causes(error.as_ref())))?;
                Some((TlsConnector::from(Arc::new(config)), name))
            }
            other => return Err(unusable(format!("{other} is neither tcp nor ssl"))),
        };
        Ok(Ovsdb { address: address.to_owned(), tls, park_vlan: settings.park_vlan })
    }

    pub(crate) async fn look(&self, wish: &Wish, deadline: Instant) -> Result<State, ProviderError> {
        let doing = format!("look whether to {wish}");
        let (name, wanted) = self.wanted(wish)?;
        let mut wire = self.connect(&doing, deadline).await?;
        let (port, is_applied) = wire.read_port(&doing, name).await?;
        let links = wire.read_links(&doing, &port.links).await?;
        let holds = port.is(&wanted) && is_applied;
        Ok(State::new(holds, port.reading(&links, is_applied)))
    }

    /// A port without a link may only have a node that is off, so that is no fault.
    pub(crate) async fn check(&self, check: &Check, deadline: Instant) -> Result<Finding, ProviderError> {
        let doing = format!("look for {check}");
        let port = match check {
            Check::Port(port) => &port.port,
            Check::Volume(_) | Check::Boot(_) | Check::Snapshot(_) | Check::Backup(_) | Check::Free(_) => {
                return Err(ProviderError::Configuration(format!("{doing}: a switch has ports only")));
            }
        };
        match self.connect(&doing, deadline).await?.read_port(&doing, port).await {
            Ok(_) => Ok(Finding::Fine),
            Err(ProviderError::Refused { why: Refusal::NotConfigured(missing), .. }) => {
                Ok(Finding::Absent(missing))
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn act(
        &self,
        wish: &Wish,
        token: LogIndex,
        permit: &dyn Permit,
        deadline: Instant,
    ) -> Result<(), ProviderError> {
        let doing = wish.to_string();
        let refused = |why| ProviderError::Refused { doing: doing.clone(), why };
        let (name, wanted) = self.wanted(wish)?;
        let mut wire = self.connect(&doing, deadline).await?;
        let (port, _) = wire.read_port(&doing, name).await.map_err(unsent)?;
        let newest = port.token();
        if newest > token {
            return Err(refused(Refusal::TokenTooOld { ours: token, newest }));
        }
        let operations = change(name, &port, &wanted, token, &doing);
        permit.check().map_err(refused)?;
        let results = wire.transact(&doing, &operations).await?;
        match results.get(1).and_then(|result| result.get("count")).and_then(Value::as_u64) {
            Some(1) => Ok(()),
            Some(count) => Err(refused(Refusal::NotConfigured(format!("{count} ports are named {name}")))),
            None => Err(ProviderError::Garbled { doing, why: "it does not say what it changed".to_owned() }),
        }
    }

    /// The port of a wish, and how it is to be. Volumes and boot sources are no switch's work.
    fn wanted<'w>(&self, wish: &'w Wish) -> Result<(&'w str, Setting), ProviderError> {
        match wish {
            Wish::PortClosed { port, holder: _ } => {
                Ok((port, Setting { tag: self.park_vlan, trunks: BTreeSet::new(), protected: true }))
            }
            Wish::PortOpen { vlan, tagged, .. }
                if tagged.iter().chain([vlan]).any(|vlan| *vlan == self.park_vlan) =>
            {
                Err(ProviderError::Configuration(format!(
                    "{wish}: that is the park VLAN, in which nothing but closed ports may be"
                )))
            }
            Wish::PortOpen { port, vlan, tagged, mac: _ } => {
                Ok((port, Setting { tag: *vlan, trunks: tagged.clone(), protected: false }))
            }
            Wish::VifAttached { .. } | Wish::Claimed { .. } | Wish::Cleaned { .. } => {
                Err(crate::clouds_only(wish))
            }
            Wish::Revoked { .. } | Wish::Attached { .. } | Wish::Snapshot { .. } | Wish::Boots { .. } => {
                Err(ProviderError::Configuration(format!("a switch cannot {wish}")))
            }
        }
    }

    async fn connect(&self, doing: &str, deadline: Instant) -> Result<Wire, ProviderError> {
        let limit = deadline.min(Instant::now() + CONNECT_MAX);
        let unreachable = |source: Error| ProviderError::Unreachable {
            doing: format!("{doing} at {}", self.address),
            source: source.into(),
        };
        let connecting = async {
            let stream = TcpStream::connect(&self.address).await?;
            stream.set_nodelay(true)?;
            let stream: Box<dyn Stream> = match &self.tls {
                None => Box::new(stream),
                Some((connector, name)) => Box::new(connector.connect(name.clone(), stream).await?),
            };
            Ok(stream)
        };
        let stream = timeout_at(limit, connecting)
            .await
            .unwrap_or_else(|_| Err(Error::from(ErrorKind::TimedOut)))
            .map_err(unreachable)?;
        Ok(Wire { stream, read: vec![], id: 0, deadline })
    }
}

/// Until the change itself is sent, no failure leaves anything behind.
fn unsent(error: ProviderError) -> ProviderError {
    match error {
        ProviderError::NoAnswer { doing, .. } => ProviderError::Refused {
            doing,
            why: Refusal::Unreachable(
                "the database did not answer the question before the change".to_owned(),
            ),
        },
        ProviderError::Garbled { doing, why } => {
            ProviderError::Refused { doing, why: Refusal::DeviceRefused(why) }
        }
        error @ (ProviderError::Unreachable { .. }
        | ProviderError::Refused { .. }
        | ProviderError::Configuration(_)) => error,
    }
}

/// The transaction that sets a port. It fails as a whole if the row's token is not the one that was read (§5.2.6), and asks
/// the switch to say when it has taken the change over.
fn change(name: &str, port: &Port, wanted: &Setting, token: LogIndex, doing: &str) -> Vec<Value> {
    let named = json!([["name", "==", name]]);
    let ids = |ids: &BTreeMap<String, String>| json!(["map", ids.iter().collect::<Vec<_>>()]);
    let mut next = port.external_ids.clone();
    next.insert(TOKEN_KEY.to_owned(), token.0.to_string());
    let row = json!({
        "tag": wanted.tag,
        "trunks": ["set", wanted.trunks],
        "vlan_mode": wanted.mode(),
        "protected": wanted.protected,
        "external_ids": ids(&next),
    });
    vec![
        json!({ "op": "wait", "timeout": 0, "table": "Port", "where": named, "columns": ["external_ids"],
            "until": "==", "rows": [{ "external_ids": ids(&port.external_ids) }] }),
        json!({ "op": "update", "table": "Port", "where": named, "row": row }),
        json!({ "op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]] }),
        json!({ "op": "comment", "comment": format!("failover supervisor, {token}: {doing}") }),
    ]
}

impl Setting {
    fn mode(&self) -> &'static str {
        if self.trunks.is_empty() { ACCESS } else { NATIVE_UNTAGGED }
    }
}

impl Port {
    /// Reads a row of the table `Port`.
    fn of(row: &Map<String, Value>) -> Option<Port> {
        let column = |name: &str| row.get(name);
        let vlan = |value: &Value| value.as_u64().and_then(|vlan| u16::try_from(vlan).ok());
        Some(Port {
            tag: set(column("tag")?)?.first().copied().and_then(vlan),
            trunks: set(column("trunks")?)?.into_iter().map(vlan).collect::<Option<_>>()?,
            mode: set(column("vlan_mode")?)?.first().and_then(|mode| mode.as_str()).map(str::to_owned),
            protected: column("protected")?.as_bool()?,
            external_ids: map(column("external_ids")?)?,
            links: set(column("interfaces")?)?.into_iter().map(uuid).collect::<Option<_>>()?,
        })
    }

    fn is(&self, wanted: &Setting) -> bool {
        self.tag == Some(wanted.tag)
            && self.trunks == wanted.trunks
            && self.protected == wanted.protected
            && self.mode.as_deref() == Some(wanted.mode())
    }

    fn token(&self) -> LogIndex {
        LogIndex(self.external_ids.get(TOKEN_KEY).and_then(|token| token.parse().ok()).unwrap_or_default())
    }

    fn reading(&self, links: &[(String, String)], is_applied: bool) -> String {
        let mode = match self.mode.as_deref() {
            Some(ACCESS) => String::new(),
            Some(mode) => format!(", {mode}"),
            None => ", no mode".to_owned(),
        };
        let tag = self.tag.map_or_else(|| "no vlan".to_owned(), |tag| format!("vlan {tag}"));
        let vlans = vlans(tag, &self.trunks);
        let protected = if self.protected { ", isolated" } else { "" };
        let links: String = links.iter().map(|(name, state)| format!(", link {name} {state}")).collect();
        let pending = if is_applied { "" } else { ", not yet taken over by the switch" };
        format!("{vlans}{mode}{protected}{links}, token {}{pending}", self.token())
    }
}

/// A set (§5.1): an atom stands for a set of one.
fn set(value: &Value) -> Option<Vec<&Value>> {
    match value.as_array().map(Vec::as_slice) {
        Some([kind, items]) if kind == "set" => Some(items.as_array()?.iter().collect()),
        Some([kind, _]) if kind == "uuid" => Some(vec![value]),
        Some(_) => None,
        None => Some(vec![value]),
    }
}

/// A map of texts (§5.1).
fn map(value: &Value) -> Option<BTreeMap<String, String>> {
    let [kind, pairs] = value.as_array()?.as_slice() else { return None };
    let pair = |pair: &Value| match pair.as_array()?.as_slice() {
        [key, value] => Some((key.as_str()?.to_owned(), value.as_str()?.to_owned())),
        _ => None,
    };
    (kind == "map").then(|| pairs.as_array()?.iter().map(pair).collect())?
}

fn uuid(value: &Value) -> Option<String> {
    match value.as_array()?.as_slice() {
        [kind, uuid] if kind == "uuid" => Some(uuid.as_str()?.to_owned()),
        _ => None,
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// One connection, for one look or one change.
struct Wire {
    stream: Box<dyn Stream>,
    read: Vec<u8>,
    id: u64,
    deadline: Instant,
}

impl Wire {
    /// The port of this name, and whether the switch has taken over all that the database says.
    async fn read_port(&mut self, doing: &str, name: &str) -> Result<(Port, bool), ProviderError> {
        let columns = ["tag", "trunks", "vlan_mode", "protected", "external_ids", "interfaces"];
        let operations = [
            json!({ "op": "select", "table": "Port", "where": [["name", "==", name]], "columns": columns }),
            json!({ "op": "select", "table": "Open_vSwitch", "where": [], "columns": ["next_cfg", "cur_cfg"] }),
        ];
        let results = self.transact(doing, &operations).await?;
        let garbled = |what: &str| ProviderError::Garbled { doing: doing.to_owned(), why: what.to_owned() };
        let row = match rows(&results, 0).ok_or_else(|| garbled("no rows"))? {
            [row] => row,
            [] => {
                let why = Refusal::NotConfigured(format!("the switch has no port {name}"));
                return Err(ProviderError::Refused { doing: doing.to_owned(), why });
            }
            [_, _, ..] => return Err(garbled("several ports of one name")),
        };
        let port = row.as_object().and_then(Port::of).ok_or_else(|| garbled("a port that cannot be read"))?;
        let config = rows(&results, 1).and_then(<[Value]>::first).ok_or_else(|| garbled("no switch"))?;
        let count = |column: &str| config.get(column).and_then(Value::as_i64);
        let (next, current) = count("next_cfg").zip(count("cur_cfg")).ok_or_else(|| garbled("no cur_cfg"))?;
        Ok((port, current >= next))
    }

    /// Name and state of each link of a port.
    async fn read_links(
        &mut self,
        doing: &str,
        links: &[String],
    ) -> Result<Vec<(String, String)>, ProviderError> {
        let select = |link: &String| {
            json!({ "op": "select", "table": "Interface", "where": [["_uuid", "==", ["uuid", link]]],
                "columns": ["name", "link_state"] })
        };
        let operations: Vec<Value> = links.iter().take(LINKS_MAX).map(select).collect();
        let results = self.transact(doing, &operations).await?;
        let link = |index: usize| {
            let row = rows(&results, index)?.first()?;
            let state = set(row.get("link_state")?)?.first().and_then(|state| state.as_str());
            Some((row.get("name")?.as_str()?.to_owned(), state.unwrap_or("unknown").to_owned()))
        };
        Ok((0..operations.len()).filter_map(link).collect())
    }

    /// One transaction (§4.1.3): the results of its operations, or why it did not happen.
    async fn transact(&mut self, doing: &str, operations: &[Value]) -> Result<Vec<Value>, ProviderError> {
        self.id += 1;
        let mut params = vec![json!("Open_vSwitch")];
        params.extend_from_slice(operations);
        let request = json!({ "method": "transact", "params": params, "id": self.id }).to_string();
        let (deadline, no_answer) = (self.deadline, |source: Option<Error>| ProviderError::NoAnswer {
            doing: doing.to_owned(),
            source: source.map(Into::into),
        });
        let exchange = async {
            self.stream.write_all(request.as_bytes()).await?;
            self.stream.flush().await?;
            self.answer().await
        };
        let answer = match timeout_at(deadline, exchange).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(source)) if source.kind() == ErrorKind::InvalidData => {
                return Err(ProviderError::Garbled { doing: doing.to_owned(), why: source.to_string() });
            }
            Ok(Err(source)) => return Err(no_answer(Some(source))),
            Err(_) => return Err(no_answer(None)),
        };
        let refused = |why: &Value| {
            let said = |key: &str| why.get(key).and_then(Value::as_str).unwrap_or_default();
            let text = format!("{} {}", said("error"), said("details"));
            let why = Refusal::DeviceRefused(text.trim().chars().take(200).collect());
            ProviderError::Refused { doing: doing.to_owned(), why }
        };
        if let Some(error) = answer.get("error").filter(|error| !error.is_null()) {
            return Err(refused(error));
        }
        let garbled = || ProviderError::Garbled { doing: doing.to_owned(), why: "no result".to_owned() };
        let results = answer.get("result").and_then(Value::as_array).ok_or_else(garbled)?;
        // A failed operation undoes the whole transaction (§4.1.3); what comes after it is null.
        match results.iter().find(|result| result.get("error").is_some()) {
            Some(error) => Err(refused(error)),
            None => Ok(results.clone()),
        }
    }

    /// The answer to the newest request. What the server asks of us meanwhile (`echo`) can wait: connections are short.
    async fn answer(&mut self) -> Result<Value, Error> {
        loop {
            let mut values = serde_json::Deserializer::from_slice(&self.read).into_iter::<Value>();
            let next = values.next();
            let used = values.byte_offset();
            match next {
                Some(Ok(value)) => {
                    self.read.drain(..used);
                    if value.get("id").and_then(Value::as_u64) == Some(self.id)
                        && value.get("method").is_none()
                    {
                        return Ok(value);
                    }
                    continue;
                }
                Some(Err(error)) if !error.is_eof() => return Err(Error::new(ErrorKind::InvalidData, error)),
                Some(Err(_)) | None => {}
            }
            if self.read.len() > ANSWER_MAX {
                let why = format!("the answer is longer than {ANSWER_MAX} bytes");
                return Err(Error::new(ErrorKind::InvalidData, why));
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(Error::from(ErrorKind::UnexpectedEof));
            }
        }
    }
}

fn rows(results: &[Value], index: usize) -> Option<&[Value]> {
    results.get(index)?.get("rows")?.as_array().map(Vec::as_slice)
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

fn tls_config(settings: &Settings<'_>) -> Result<ClientConfig, AnyError> {
    let ca = settings.ca.ok_or("ssl needs `ca`")?;
    let certificate = settings.certificate.ok_or("ssl needs `certificate`")?;
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(root?)?;
    }
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(settings.key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(SignedByOurs(verifier)))
        .with_client_auth_cert(chain, key)?;
    // Open vSwitch demands a certificate but names no session context, so OpenSSL ends a resumed session with an internal
    // error (SSL_CTX_set_session_id_context(3)); seen with 3.1.0.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// What OVSDB's own tools demand of a switch's certificate: that our authority has signed it, whatever name it bears
/// (`ovs-pki` writes the switch's id, not its address).
#[derive(Debug)]
struct SignedByOurs(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for SignedByOurs {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The chain is verified before the name.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_json() -> impl Strategy<Value = Value> {
        let words = ["set", "map", "uuid", "rows", "error", "tag", "7", ""];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            proptest::sample::select(words.to_vec()).prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 6, move |inner| {
            let columns =
                ["tag", "trunks", "vlan_mode", "protected", "external_ids", "interfaces", "rows", "count"];
            let key = proptest::sample::select(columns.to_vec()).prop_map(str::to_owned);
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::btree_map(key, inner, 0..8)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_row_is_read_or_is_none(value in any_json()) {
            let read = value.as_object().and_then(Port::of);
            prop_assert!(read.is_none_or(|port| value["protected"] == port.protected));
            let (_, _, _) = (set(&value), map(&value), uuid(&value));
            prop_assert!(rows(&[value], 1).is_none());
        }
    }

    #[test]
    fn a_row_as_the_switch_writes_it() {
        let row = json!({ "tag": ["set", []], "trunks": ["set", [7, 8]], "vlan_mode": "trunk", "protected": false,
            "external_ids": ["map", [["ha-token", "12"]]], "interfaces": ["set", [["uuid", "a"], ["uuid", "b"]]] });
        let port = Port::of(row.as_object().unwrap()).unwrap();
        assert_eq!((port.tag, port.token(), port.links.len()), (None, LogIndex(12), 2));
        assert_eq!(
            port.reading(&[("l1".to_owned(), "up".to_owned())], false),
            "no vlan +7 +8, trunk, link l1 up, token i12, not yet taken over by the switch"
        );
    }
}
