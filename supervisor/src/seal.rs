//! Seals the secrets of the inventory (BMC passwords, agent keys, provider tokens) before they enter the log.
//!
//! Why it exists: the log, its snapshots, the history and the API's answers go to many disks and eyes; a sealed secret
//! may go there too. What it never does: show a secret or the key in an error, in `Debug` or in a log line, or open a
//! record that was sealed for another owner.
//!
//! XChaCha20-Poly1305 with a random 192-bit nonce for each record (draft-irtf-cfrg-xchacha-03): random nonces of that
//! length do not collide. The associated data are the cluster's id, the kind of the secret and its owner's name, so a
//! record that is copied to another node, field or cluster does not open.

use crate::files::{self, FileError};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use policies::{FenceDevice, Node, NodeId, Provider, ProviderId, Sealed};
use rand::TryRngCore;
use std::fmt;
use std::path::Path;
use zeroize::Zeroizing;

/// How every sealed text begins. A field of an incoming document that begins otherwise holds the plain secret.
pub const SEALED: &str = "sealed:";
pub(crate) const SEALED_V1: &str = "sealed:v1:";
/// What answers show in place of a sealed secret; in an incoming document it means "as it was".
pub const UNCHANGED: &str = "sealed:unchanged";

/// Longest secret in bytes: IPMI allows 20 (IPMI 2.0 §22.30), tokens of back ends may be long JWTs.
const SECRET_BYTES_MAX: usize = 8192;
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;

/// Why a secret was not sealed or not opened. Never says anything of the secret.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file could not be read.
    #[error("read the sealing key")]
    Key(#[source] FileError),
    /// The key file holds something else.
    #[error("{path}: a sealing key is 64 hexadecimal digits")]
    BadKey {
        /// The file.
        path: String,
    },
    /// No random numbers.
    #[error("draw a nonce from the operating system")]
    Random(#[source] rand::rand_core::OsError),
    /// Too long or empty.
    #[error("{what}: must have 1 to {SECRET_BYTES_MAX} bytes")]
    Length {
        /// Kind and owner.
        what: String,
    },
    /// It was not sealed by this cluster for this owner, or it was changed.
    #[error(
        "{what} does not open: it was sealed for another owner or cluster, or it was changed; give the plain secret again"
    )]
    DoesNotOpen {
        /// Kind and owner.
        what: String,
    },
    /// `sealed:unchanged` for something that is new.
    #[error("{what} says {UNCHANGED:?}, but there is none yet; give the plain secret")]
    NothingToKeep {
        /// Kind and owner.
        what: String,
    },
}

/// Which secret of whom. Part of what is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secret<'a> {
    /// The password of a node's BMCs.
    BmcPassword(&'a NodeId),
    /// The key of a node's heartbeats.
    AgentKey(&'a NodeId),
    /// The token of a provider.
    ProviderToken(&'a ProviderId),
}

impl Secret<'_> {
    fn kind_and_owner(&self) -> (&'static str, &str) {
        match self {
            Secret::BmcPassword(node) => ("bmc-password", node.as_str()),
            Secret::AgentKey(node) => ("agent-key", node.as_str()),
            Secret::ProviderToken(provider) => ("provider-token", provider.as_str()),
        }
    }
}

impl fmt::Display for Secret<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::BmcPassword(node) => write!(f, "the BMC password of node {node}"),
            Secret::AgentKey(node) => write!(f, "agent_key of node {node}"),
            Secret::ProviderToken(provider) => write!(f, "the token of provider {provider}"),
        }
    }
}

/// The cluster's sealing key, ready for use. Its memory is cleared when the last clone is dropped.
#[derive(Clone)]
pub struct Seal {
    cipher: XChaCha20Poly1305,
    cluster_id: String,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(<key>)")
    }
}

impl Seal {
    /// Reads the key file (64 hexadecimal digits).
    ///
    /// # Errors
    /// [`SealError::Key`], [`SealError::BadKey`].
    pub fn load(path: &Path, cluster_id: &str) -> Result<Seal, SealError> {
        let text = Zeroizing::new(files::read_text(path).map_err(SealError::Key)?);
        let bad = || SealError::BadKey { path: path.display().to_string() };
        let key = Zeroizing::new(from_hex(text.trim()).ok_or_else(bad)?);
        Seal::new(&key, cluster_id).ok_or_else(bad)
    }

    /// The cluster's id.
    pub fn cluster(&self) -> &str {
        &self.cluster_id
    }

    /// From the key's 32 bytes; `None` if it has another length.
    pub fn new(key: &[u8], cluster_id: &str) -> Option<Seal> {
        let cipher = XChaCha20Poly1305::new_from_slice(key).ok()?;
        Some(Seal { cipher, cluster_id: cluster_id.to_owned() })
    }

    /// Draws a key, as the text of a key file.
    ///
    /// # Errors
    /// [`SealError::Random`].
    pub fn draw_key() -> Result<Zeroizing<String>, SealError> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        random(key.as_mut())?;
        Ok(Zeroizing::new(hex(key.as_ref())))
    }

    /// Seals one secret.
    ///
    /// # Errors
    /// [`SealError::Length`], [`SealError::Random`].
    pub fn seal(&self, secret: Secret<'_>, plain: &[u8]) -> Result<Sealed, SealError> {
        let length = || SealError::Length { what: secret.to_string() };
        if plain.is_empty() || plain.len() > SECRET_BYTES_MAX {
            return Err(length());
        }
        let mut nonce = [0; NONCE_BYTES];
        random(&mut nonce)?;
        let aad = self.associated_data(secret);
        let payload = Payload { msg: plain, aad: &aad };
        let sealed = self.cipher.encrypt(XNonce::from_slice(&nonce), payload).map_err(|_| length())?;
        Ok(Sealed(format!("{SEALED_V1}{}{}", hex(&nonce), hex(&sealed))))
    }

    /// Opens what [`Seal::seal`] has sealed for the same owner.
    ///
    /// # Errors
    /// [`SealError::DoesNotOpen`].
    pub fn open(&self, secret: Secret<'_>, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, SealError> {
        self.try_open(secret, &sealed.0).ok_or_else(|| SealError::DoesNotOpen { what: secret.to_string() })
    }

    fn try_open(&self, secret: Secret<'_>, sealed: &str) -> Option<Zeroizing<Vec<u8>>> {
        let bytes = from_hex(sealed.strip_prefix(SEALED_V1)?)?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_BYTES)?;
        let aad = self.associated_data(secret);
        let payload = Payload { msg: sealed, aad: &aad };
        self.cipher.decrypt(XNonce::from_slice(nonce), payload).ok().map(Zeroizing::new)
    }

    /// Each part with its length before it, so that no two lists of parts give the same bytes.
    fn associated_data(&self, secret: Secret<'_>) -> Vec<u8> {
        let (kind, owner) = secret.kind_and_owner();
        let mut aad = Vec::with_capacity(128);
        for part in [self.cluster_id.as_str(), kind, owner] {
            aad.extend_from_slice(&(part.len() as u64).to_be_bytes());
            aad.extend_from_slice(part.as_bytes());
        }
        aad
    }

    /// Seals the plain secrets of a node as it came from an operator. What is the same as in `old` keeps its old text,
    /// so that applying one document twice changes nothing.
    ///
    /// # Errors
    /// [`SealError`], naming the field and the node.
    pub fn seal_node(&self, node: &mut Node, old: Option<&Node>) -> Result<(), SealError> {
        let secret = Secret::BmcPassword(&node.name);
        for (level, device) in node.fencing.iter_mut().enumerate() {
            let old = old.and_then(|old| old.fencing.get(level)).and_then(FenceDevice::password);
            if let Some(password) = device.password_mut() {
                self.seal_field(secret, password, old)?;
            }
        }
        let old_key = old.and_then(|old| old.agent_key.as_ref());
        match &mut node.agent_key {
            Some(key) => self.seal_field(Secret::AgentKey(&node.name), key, old_key),
            None => Ok(()),
        }
    }

    /// Seals the plain secrets of a provider, as [`Seal::seal_node`].
    ///
    /// # Errors
    /// [`SealError`], naming the field and the provider.
    pub fn seal_provider(&self, provider: &mut Provider, old: Option<&Provider>) -> Result<(), SealError> {
        let old = old.and_then(|old| old.kind.secret());
        let Some(field) = provider.kind.secret_mut() else { return Ok(()) };
        self.seal_field(Secret::ProviderToken(&provider.name), field, old)
    }

    fn seal_field(
        &self,
        secret: Secret<'_>,
        field: &mut Sealed,
        old: Option<&Sealed>,
    ) -> Result<(), SealError> {
        if field.0 == UNCHANGED {
            let kept = old.ok_or_else(|| SealError::NothingToKeep { what: secret.to_string() })?;
            *field = kept.clone();
            return Ok(());
        }
        if field.0.starts_with(SEALED) {
            return self.open(secret, field).map(|_| ());
        }
        let plain = Zeroizing::new(std::mem::take(&mut field.0));
        let same = |old: &&Sealed| self.try_open(secret, &old.0).is_some_and(|old| *old == plain.as_bytes());
        *field = match old.filter(same) {
            Some(old) => old.clone(),
            None => self.seal(secret, plain.as_bytes())?,
        };
        Ok(())
    }
}

/// Replaces a node's sealed secrets by [`UNCHANGED`]: what an answer may show and `apply` takes back.
pub fn hide_node(node: &mut Node) {
    node.fencing.iter_mut().filter_map(FenceDevice::password_mut).for_each(hide);
    if let Some(key) = &mut node.agent_key {
        hide(key);
    }
}

/// Replaces a provider's sealed secrets by [`UNCHANGED`].
pub fn hide_provider(provider: &mut Provider) {
    if let Some(secret) = provider.kind.secret_mut() {
        hide(secret);
    }
}

fn hide(field: &mut Sealed) {
    UNCHANGED.clone_into(&mut field.0);
}

fn random(bytes: &mut [u8]) -> Result<(), SealError> {
    rand::rngs::OsRng.try_fill_bytes(bytes).map_err(SealError::Random)
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Reads an even number of hexadecimal digits.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |[high, low]: &[u8; 2]| Some(digit(high)? << 4 | digit(low)?);
    rest.is_empty().then(|| pairs.iter().map(byte).collect()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seal_of(cluster: &str) -> Seal {
        Seal::new(&[7; KEY_BYTES], cluster).unwrap()
    }

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    #[test]
    fn only_the_same_owner_kind_and_cluster_open() {
        let (seal, n1, n2) = (seal_of("c1"), node("n1"), node("n2"));
        let sealed = seal.seal(Secret::BmcPassword(&n1), b"calvin").unwrap();
        assert_eq!(&**seal.open(Secret::BmcPassword(&n1), &sealed).unwrap(), b"calvin");
        assert!(seal.open(Secret::BmcPassword(&n2), &sealed).is_err());
        assert!(seal.open(Secret::AgentKey(&n1), &sealed).is_err());
        assert!(seal_of("c2").open(Secret::BmcPassword(&n1), &sealed).is_err());
        assert!(Seal::new(&[8; 32], "c1").unwrap().open(Secret::BmcPassword(&n1), &sealed).is_err());
    }

    #[test]
    fn nothing_shows_a_secret() {
        let seal = seal_of("c1");
        let n1 = node("n1");
        let sealed = seal.seal(Secret::BmcPassword(&n1), b"calvin").unwrap();
        assert_eq!(format!("{seal:?} {sealed:?}"), "Seal(<key>) <sealed>");
        assert!(!sealed.0.contains("calvin") && !sealed.0.contains(&hex(b"calvin")));
        let error = seal.open(Secret::AgentKey(&n1), &Sealed("calvin".into())).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("calvin"));
    }

    fn described(password: &str) -> Node {
        let text = format!(
            "name = \"n1\"\nagent_key = \"00ff\"\n[[fencing]]\ndriver = \"ipmi\"\naddress = \"127.0.0.1:623\"\n\
             user = \"ha\"\npassword = \"{password}\"\n"
        );
        toml::from_str(&text).unwrap()
    }

    #[test]
    fn a_document_applied_twice_is_the_same_and_a_hidden_one_keeps_its_secrets() {
        let seal = seal_of("c1");
        let mut first = described("calvin");
        seal.seal_node(&mut first, None).unwrap();
        assert!(first.fencing[0].password().unwrap().0.starts_with(SEALED_V1));
        let mut again = described("calvin");
        seal.seal_node(&mut again, Some(&first)).unwrap();
        assert_eq!(again, first);
        let mut hidden = first.clone();
        hide_node(&mut hidden);
        assert_eq!(hidden.fencing[0].password().unwrap().0, UNCHANGED);
        assert!(
            seal.seal_node(&mut hidden.clone(), None).unwrap_err().to_string().contains("there is none yet")
        );
        seal.seal_node(&mut hidden, Some(&first)).unwrap();
        assert_eq!(hidden, first);
        let mut other = described("hobbes");
        seal.seal_node(&mut other, Some(&first)).unwrap();
        assert_ne!(other, first);
        assert_eq!(
            &**seal.open(Secret::BmcPassword(&other.name), other.fencing[0].password().unwrap()).unwrap(),
            b"hobbes"
        );
    }

    #[test]
    fn a_foreign_sealed_text_is_refused_at_the_door() {
        let mut node = described("sealed:v1:00");
        let error = seal_of("c1").seal_node(&mut node, None).unwrap_err();
        assert!(error.to_string().starts_with("the BMC password of node n1 does not open"));
    }

    #[test]
    fn key_files_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seal.key");
        std::fs::write(&path, format!("{}\n", *Seal::draw_key().unwrap())).unwrap();
        assert!(Seal::load(&path, "c1").is_ok());
        std::fs::write(&path, "abcd").unwrap();
        assert!(matches!(Seal::load(&path, "c1"), Err(SealError::BadKey { .. })));
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_noticed(plain in proptest::collection::vec(any::<u8>(), 1..40), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let (seal, n1) = (seal_of("c1"), node("n1"));
            let sealed = seal.seal(Secret::AgentKey(&n1), &plain).unwrap();
            prop_assert_eq!(&**seal.open(Secret::AgentKey(&n1), &sealed).unwrap(), &plain[..]);
            let mut bytes = from_hex(sealed.0.strip_prefix(SEALED_V1).unwrap()).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let changed = Sealed(format!("{SEALED_V1}{}", hex(&bytes)));
            prop_assert!(seal.open(Secret::AgentKey(&n1), &changed).is_err());
        }

        #[test]
        fn any_text_is_opened_or_refused(text in "\\PC{0,80}") {
            let n1 = node("n1");
            let sealed = Sealed(format!("{SEALED_V1}{text}"));
            prop_assert!(seal_of("c1").open(Secret::AgentKey(&n1), &sealed).is_err());
        }

        #[test]
        fn hexadecimal_digits_go_there_and_back(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(from_hex(&hex(&bytes)), Some(bytes));
        }
    }
}
