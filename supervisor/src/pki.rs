//! Makes the cluster's own certificates: the CA, the members', the operators'.
//!
//! Why it exists: a cluster must be safe from its first packet without a certificate authority that someone has to run.
//! What it never does: trust any other authority, keep the CA's key in memory, or put it anywhere but in the
//! directory in which the cluster was made.

use crate::config::host_port;
use jiff::{Timestamp, ToSpan, tz::TimeZone};
use policies::MemberId;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use zeroize::Zeroizing;

/// Certificates are valid for ten years, as the hardware they live on: nothing here may stop a cluster because nobody
/// remembered a date. Who leaves the cluster is removed from it by `hactl member remove`, not by expiry.
const VALID_YEARS: i64 = 10;

/// A certificate or key could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The generator refused.
    #[error("{doing}")]
    Generate {
        /// What was being made.
        doing: &'static str,
        /// Why not.
        source: rcgen::Error,
    },
    /// The clock is outside of the years that certificates can say.
    #[error("this machine's clock does not show a date that a certificate can have")]
    Clock(#[source] jiff::Error),
}

/// A certificate with its key, both as PEM. The key's memory is cleared on drop.
pub struct Issued {
    /// The certificate.
    pub cert: String,
    /// Its key (PKCS #8).
    pub key: Zeroizing<String>,
}

/// Name in a member's certificate: its common name and one of its DNS names.
pub fn member_name(id: MemberId) -> String {
    format!("member-{}", id.0)
}

/// Makes the CA of a new cluster.
///
/// # Errors
/// [`PkiError`].
pub fn make_ca(cluster: &str, now: Timestamp) -> Result<Issued, PkiError> {
    let mut params = params(&format!("{cluster} ha-supervisor CA"), vec![], now)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().map_err(failed("make the CA's key"))?;
    let cert = params.self_signed(&key).map_err(failed("make the CA's certificate"))?;
    Ok(Issued { cert: cert.pem(), key: Zeroizing::new(key.serialize_pem()) })
}

/// Makes a member's certificate: server and client, for its number, its addresses' hosts and `localhost`.
///
/// # Errors
/// [`PkiError`], also if the CA's files do not hold a CA.
pub fn make_member(ca: &Issued, id: MemberId, addrs: &[&str], now: Timestamp) -> Result<Issued, PkiError> {
    let mut names = vec![member_name(id), "localhost".to_owned()];
    names.extend(addrs.iter().filter_map(|addr| host_port(addr)).map(|(host, _)| host.to_owned()));
    names.sort();
    names.dedup();
    let mut params = params(&member_name(id), names, now)?;
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    issue(ca, params)
}

/// Makes an operator's client certificate. `name` is `admin` or begins with `operator-`.
///
/// # Errors
/// [`PkiError`], also if the CA's files do not hold a CA.
pub fn make_operator(ca: &Issued, name: &str, now: Timestamp) -> Result<Issued, PkiError> {
    let mut params = params(name, vec![], now)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    issue(ca, params)
}

fn params(name: &str, subject_names: Vec<String>, now: Timestamp) -> Result<CertificateParams, PkiError> {
    let mut params =
        CertificateParams::new(subject_names).map_err(failed("put the names into a certificate"))?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    // A day back, for members whose clocks differ.
    let today = now.to_zoned(TimeZone::UTC).date();
    let from = today.checked_sub(1.day()).map_err(PkiError::Clock)?;
    let until = today.checked_add(VALID_YEARS.years()).map_err(PkiError::Clock)?;
    let midnight = |date: jiff::civil::Date| {
        rcgen::date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    params.not_before = midnight(from);
    params.not_after = midnight(until);
    Ok(params)
}

fn issue(ca: &Issued, mut params: CertificateParams) -> Result<Issued, PkiError> {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let ca_key = KeyPair::from_pem(&ca.key).map_err(failed("read the CA's key"))?;
    let issuer = Issuer::from_ca_cert_pem(&ca.cert, ca_key).map_err(failed("read the CA's certificate"))?;
    let key = KeyPair::generate().map_err(failed("make a key"))?;
    let cert = params.signed_by(&key, &issuer).map_err(failed("sign a certificate"))?;
    Ok(Issued { cert: cert.pem(), key: Zeroizing::new(key.serialize_pem()) })
}

fn failed(doing: &'static str) -> impl FnOnce(rcgen::Error) -> PkiError {
    move |source| PkiError::Generate { doing, source }
}
