//! Keys and codes of RMCP+ (IPMI 2.0 §13.28-13.32): the two cipher suites, the RAKP codes, the session keys.
//!
//! Why it exists: both ends of a session, our client and the emulated BMC, compute the same codes from one text.
//! What it never does: input or output, drawing random numbers, or showing a key (`Debug` prints none, drop wipes).

use aes::Aes128;
use cbc::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};
use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::Sha256;
use std::fmt;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Longest password and longest K_g, in bytes (IPMI 2.0 §22.30 and §13.31).
pub const SECRET_MAX: usize = 20;
/// Longest user name, in bytes (IPMI 2.0 §13.20).
pub const USER_MAX: usize = 16;
/// Block of AES-128 and length of its initialisation vector, in bytes (IPMI 2.0 §13.29).
pub const AES_BLOCK: usize = 16;
/// Block of SHA-1 and SHA-256, in bytes. HMAC fills a shorter key with zeros up to it (RFC 2104), and every key of
/// RMCP+ is shorter, so a key is kept as one filled block.
const HASH_BLOCK: usize = 64;
/// Longest code that either hash gives, in bytes.
pub const CODE_MAX: usize = 32;

/// The cipher suites that we speak (IPMI 2.0 table 22-20). Suites without authentication, integrity or encryption,
/// suite 0 above all, do not exist here and so cannot be negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// RAKP-HMAC-SHA1, HMAC-SHA1-96, AES-CBC-128.
    Three,
    /// RAKP-HMAC-SHA256, HMAC-SHA256-128, AES-CBC-128.
    Seventeen,
}

/// Raw algorithm numbers of an Open Session exchange (IPMI 2.0 §13.28).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Algorithms {
    /// Authentication algorithm (table 13-17).
    pub authentication: u8,
    /// Integrity algorithm (table 13-18).
    pub integrity: u8,
    /// Confidentiality algorithm (table 13-19).
    pub confidentiality: u8,
}

impl Suite {
    /// The suite of that number; `None` for all that we do not speak.
    pub fn from_number(number: u8) -> Option<Suite> {
        [Suite::Three, Suite::Seventeen].into_iter().find(|suite| suite.number() == number)
    }

    /// The suite that these algorithms make; `None` for all that we do not speak.
    pub fn from_algorithms(algorithms: Algorithms) -> Option<Suite> {
        [Suite::Three, Suite::Seventeen].into_iter().find(|suite| suite.algorithms() == algorithms)
    }

    /// Its number in table 22-20.
    pub fn number(self) -> u8 {
        match self {
            Suite::Three => 3,
            Suite::Seventeen => 17,
        }
    }

    /// The algorithms that it stands for.
    pub fn algorithms(self) -> Algorithms {
        let (authentication, integrity) = match self {
            Suite::Three => (1, 1),
            Suite::Seventeen => (3, 4),
        };
        Algorithms { authentication, integrity, confidentiality: 1 }
    }

    /// Length of an authentication code in RAKP 2 and 3, in bytes.
    pub fn code_len(self) -> usize {
        match self {
            Suite::Three => 20,
            Suite::Seventeen => 32,
        }
    }

    /// Length of the integrity check value in RAKP 4 and of the code after each packet, in bytes.
    pub fn check_len(self) -> usize {
        match self {
            Suite::Three => 12,
            Suite::Seventeen => 16,
        }
    }

    fn code(self, key: &Key, parts: &[&[u8]]) -> Code {
        match self {
            Suite::Three => hmac_over::<Hmac<Sha1>>(Hmac::new(&key.0.into()), parts),
            Suite::Seventeen => hmac_over::<Hmac<Sha256>>(Hmac::new(&key.0.into()), parts),
        }
    }
}

fn hmac_over<M: Mac>(mut mac: M, parts: &[&[u8]]) -> Code {
    for part in parts {
        mac.update(part);
    }
    Code::new(&mac.finalize().into_bytes())
}

/// A secret as HMAC wants it: one block, filled with zeros. Wiped on drop, never shown.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Key([u8; HASH_BLOCK]);

impl Key {
    /// A password or a K_g; `None` if it is longer than [`SECRET_MAX`].
    pub fn from_secret(secret: &[u8]) -> Option<Key> {
        (secret.len() <= SECRET_MAX).then(|| Key::filled(secret))
    }

    fn filled(bytes: &[u8]) -> Key {
        let mut block = [0; HASH_BLOCK];
        for (to, from) in block.iter_mut().zip(bytes) {
            *to = *from;
        }
        Key(block)
    }
}

impl From<Code> for Key {
    fn from(code: Code) -> Key {
        Key::filled(code.as_bytes())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<key>")
    }
}

/// An HMAC or the front part of one; at most [`CODE_MAX`] bytes. Compared in constant time.
#[derive(Clone, Copy, Debug, Zeroize)]
pub struct Code {
    bytes: [u8; CODE_MAX],
    len: usize,
}

impl Code {
    /// The code of these bytes; what is beyond [`CODE_MAX`] is cut off.
    pub fn new(from: &[u8]) -> Code {
        let mut bytes = [0; CODE_MAX];
        for (to, from) in bytes.iter_mut().zip(from) {
            *to = *from;
        }
        Code { bytes, len: from.len().min(CODE_MAX) }
    }

    /// Its first `len` bytes.
    pub fn cut(self, len: usize) -> Code {
        Code { len: self.len.min(len), ..self }
    }

    /// As it goes over the wire.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

impl PartialEq for Code {
    fn eq(&self, other: &Code) -> bool {
        self.as_bytes().ct_eq(other.as_bytes()).into()
    }
}
impl Eq for Code {}

/// A user name; at most [`USER_MAX`] bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct UserName(Vec<u8>);

impl UserName {
    /// The name; `None` if it is longer than [`USER_MAX`].
    pub fn new(name: &[u8]) -> Option<UserName> {
        (name.len() <= USER_MAX).then(|| UserName(name.to_vec()))
    }

    /// As it goes over the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its length as RAKP 1 and the codes carry it.
    pub fn len_byte(&self) -> u8 {
        u8::try_from(self.0.len()).unwrap_or(u8::MAX)
    }
}

impl fmt::Debug for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// Everything that both ends know after RAKP 2 besides the secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The negotiated suite.
    pub suite: Suite,
    /// Session id that the console chose; packets to the console carry it.
    pub console_session: u32,
    /// Session id that the BMC chose; packets to the BMC carry it.
    pub bmc_session: u32,
    /// The console's random number.
    pub console_random: [u8; 16],
    /// The BMC's random number.
    pub bmc_random: [u8; 16],
    /// The BMC's GUID, in wire order.
    pub bmc_guid: [u8; 16],
    /// The role byte of RAKP 1, whole: privilege level and the name-only-lookup bit.
    pub role: u8,
    /// The user.
    pub user: UserName,
}

impl Handshake {
    /// The code with which the BMC proves in RAKP 2 that it knows the password (IPMI 2.0 §13.31).
    pub fn rakp2_code(&self, password: &Key) -> Code {
        let (console, bmc) = (self.console_session.to_le_bytes(), self.bmc_session.to_le_bytes());
        let role = [self.role, self.user.len_byte()];
        let [rm, rc, guid] = [&self.console_random, &self.bmc_random, &self.bmc_guid];
        self.suite.code(password, &[&console, &bmc, rm, rc, guid, &role, self.user.as_bytes()])
    }

    /// The code with which the console proves in RAKP 3 that it knows the password (IPMI 2.0 §13.31).
    pub fn rakp3_code(&self, password: &Key) -> Code {
        let console = self.console_session.to_le_bytes();
        let role = [self.role, self.user.len_byte()];
        self.suite.code(password, &[&self.bmc_random, &console, &role, self.user.as_bytes()])
    }

    /// The keys of the session. `k_g` is the BMC's key where it has one; else the password stands in (IPMI 2.0
    /// §13.31, §13.32).
    pub fn session_keys(&self, password: &Key, k_g: Option<&Key>) -> SessionKeys {
        let role = [self.role, self.user.len_byte()];
        let [rm, rc] = [&self.console_random, &self.bmc_random];
        let key = k_g.unwrap_or(password);
        let sik = Key::from(self.suite.code(key, &[rm, rc, &role, self.user.as_bytes()]));
        let k1 = Key::from(self.suite.code(&sik, &[&[1; 20]]));
        let mut k2 = [0; AES_BLOCK];
        for (to, from) in k2.iter_mut().zip(self.suite.code(&sik, &[&[2; 20]]).as_bytes()) {
            *to = *from;
        }
        SessionKeys { suite: self.suite, sik, k1, k2 }
    }
}

/// The keys of one session. Wiped on drop, never shown.
#[derive(Clone, ZeroizeOnDrop)]
pub struct SessionKeys {
    #[zeroize(skip)]
    suite: Suite,
    sik: Key,
    k1: Key,
    k2: [u8; AES_BLOCK],
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<keys of suite {}>", self.suite.number())
    }
}

impl SessionKeys {
    /// The suite that they belong to.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The value with which the BMC proves in RAKP 4 that it has the same session key (IPMI 2.0 §13.31).
    pub fn rakp4_check(&self, handshake: &Handshake) -> Code {
        let bmc = handshake.bmc_session.to_le_bytes();
        let parts: [&[u8]; 3] = [&handshake.console_random, &bmc, &handshake.bmc_guid];
        self.suite.code(&self.sik, &parts).cut(self.suite.check_len())
    }

    /// The code after a packet, over everything from the authentication type to the next header (IPMI 2.0 §13.28.4).
    pub fn packet_check(&self, covered: &[u8]) -> Code {
        self.suite.code(&self.k1, &[covered]).cut(self.suite.check_len())
    }

    /// Encrypts whole blocks in place; a rest shorter than a block stays as it is.
    pub fn encrypt(&self, iv: &[u8; AES_BLOCK], blocks: &mut [u8]) {
        let mut cipher = cbc::Encryptor::<Aes128>::new(&self.k2.into(), &(*iv).into());
        for block in blocks.chunks_exact_mut(AES_BLOCK) {
            cipher.encrypt_block_mut(block.into());
        }
    }

    /// Decrypts whole blocks in place; a rest shorter than a block stays as it is.
    pub fn decrypt(&self, iv: &[u8; AES_BLOCK], blocks: &mut [u8]) {
        let mut cipher = cbc::Decryptor::<Aes128>::new(&self.k2.into(), &(*iv).into());
        for block in blocks.chunks_exact_mut(AES_BLOCK) {
            cipher.decrypt_block_mut(block.into());
        }
    }
}
