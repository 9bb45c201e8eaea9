//! The cluster CA. Every node holds it, so that whoever survives can admit and replace others.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
    SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use time::{Duration, OffsetDateTime};

use super::{Identity, PkiError};
use crate::clock;

/// Validity begins long before the day of issue: a machine whose clock is behind must still find its cluster.
const BEGIN: (i32, u8) = (2020, 1);
/// Years a CA is good for.
const CA_YEARS: i32 = 80;
/// Years a node certificate is good for. A cluster must not stop by itself because a date has come.
const NODE_YEARS: i64 = 25;
/// Most bytes of a certificate request.
pub const MAX_REQUEST: usize = 8 * 1024;

/// A node's key pair and the request to certify it. The key never leaves the node.
pub struct NodeKey {
    /// Key, PEM (PKCS#8).
    pub key: String,
    /// Certificate request, PEM.
    pub request: String,
}

impl NodeKey {
    /// Draws a new key.
    ///
    /// # Errors
    /// The random source or the encoder fails.
    pub fn generate(node: &str) -> Result<Self, PkiError> {
        let key = draw()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name(node);
        let request = params.serialize_request(&key).and_then(|request| request.pem()).map_err(made)?;
        Ok(Self { key: key.serialize_pem(), request })
    }
}

/// What a request asks to have certified.
#[derive(Debug)]
pub struct Request {
    params: CertificateSigningRequestParams,
    /// blake3 of the public key, 64 hexadecimal digits: tells one joining process from another.
    pub key: String,
}

impl Request {
    /// Reads a request and checks that its sender holds the key.
    ///
    /// # Errors
    /// Too long, not PEM, not signed by its own key, or a key of another kind.
    pub fn parse(pem: &str) -> Result<Self, PkiError> {
        if pem.len() > MAX_REQUEST {
            return Err(PkiError(format!("the certificate request is longer than {MAX_REQUEST} bytes")));
        }
        let params = CertificateSigningRequestParams::from_pem(pem)
            .map_err(|error| PkiError::new("the certificate request is not readable", error))?;
        if params.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(PkiError("the certificate request holds a key that is not ECDSA P-256".to_owned()));
        }
        let key = rcgen::PublicKeyData::subject_public_key_info(&params.public_key);
        Ok(Self { params, key: blake3::hash(&key).to_hex().to_string() })
    }
}

/// The CA with its key.
pub struct Authority {
    cluster: String,
    certificate: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new CA for a new cluster.
    ///
    /// # Errors
    /// The random source or the encoder fails.
    pub fn create(cluster: &str) -> Result<Self, PkiError> {
        let key = draw()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&format!("safed cluster {cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(serial());
        params.not_before = begin();
        params.not_after = rcgen::date_time_ymd(BEGIN.0 + CA_YEARS, BEGIN.1, 1);
        let certificate = params.self_signed(&key).map_err(made)?;
        Ok(Self {
            cluster: cluster.to_owned(),
            certificate: certificate.pem(),
            der: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        })
    }

    /// The CA of these files.
    ///
    /// # Errors
    /// They are not readable.
    pub fn load(cluster: &str, certificate: &str, key: &str) -> Result<Self, PkiError> {
        let der = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|error| PkiError::new("the CA certificate is not readable", error))?;
        let key =
            KeyPair::from_pem(key).map_err(|error| PkiError::new("the CA key is not readable", error))?;
        let issuer = Issuer::from_ca_cert_der(&der, key)
            .map_err(|error| PkiError::new("the CA certificate is not readable", error))?;
        Ok(Self { cluster: cluster.to_owned(), certificate: certificate.to_owned(), der, issuer })
    }

    /// Certificate, PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Key, PEM.
    #[must_use]
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// What a token names it by.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint(&self.der)
    }

    /// Certifies a node. Nothing of the request counts but its key.
    ///
    /// # Errors
    /// The encoder fails.
    pub fn certify_node(
        &self,
        request: Request,
        node: &str,
        addresses: &[IpAddr],
    ) -> Result<String, PkiError> {
        let mut names =
            vec![SanType::DnsName(node.try_into().map_err(made)?), self.uri(&node_identity(node))?];
        names.extend(addresses.iter().copied().map(SanType::IpAddress));
        let both = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let mut request = request.params;
        request.params = leaf(node, names, &both, begin() + Duration::days(365 * NODE_YEARS));
        Ok(request.signed_by(&self.issuer).map_err(made)?.pem())
    }

    /// A new key with a certificate for a person or program: certificate and key, PEM.
    ///
    /// # Errors
    /// The random source or the encoder fails.
    pub fn issue_user(&self, identity: &Identity, days: u32) -> Result<(String, String), PkiError> {
        let key = draw()?;
        let names = vec![self.uri(identity)?];
        let now = i64::try_from(clock::unix_s()).unwrap_or(i64::MAX);
        let now = OffsetDateTime::from_unix_timestamp(now).map_err(made)?;
        let end = now.max(begin()) + Duration::days(i64::from(days));
        let params = leaf(&identity.to_string(), names, &[ExtendedKeyUsagePurpose::ClientAuth], end);
        let certificate = params.signed_by(&key, &self.issuer).map_err(made)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    fn uri(&self, identity: &Identity) -> Result<SanType, PkiError> {
        Ok(SanType::URI(identity.uri(&self.cluster).try_into().map_err(made)?))
    }
}

/// What a token names a CA by: blake3 of its certificate.
#[must_use]
pub fn fingerprint(der: &[u8]) -> [u8; 32] {
    *blake3::hash(der).as_bytes()
}

fn leaf(
    common: &str,
    names: Vec<SanType>,
    usages: &[ExtendedKeyUsagePurpose],
    end: OffsetDateTime,
) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(common);
    params.subject_alt_names = names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages.to_vec();
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial());
    params.not_before = begin();
    params.not_after = end;
    params
}

fn node_identity(node: &str) -> Identity {
    Identity::Node(node.to_owned())
}

fn begin() -> OffsetDateTime {
    rcgen::date_time_ymd(BEGIN.0, BEGIN.1, 1)
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "safed");
    name.push(DnType::CommonName, common);
    name
}

fn draw() -> Result<KeyPair, PkiError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|error| PkiError::new("no key could be drawn", error))
}

fn serial() -> SerialNumber {
    let mut bytes = crate::random::bytes::<16>();
    // Positive and of fixed length, as the standard wants it.
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn made(error: impl std::fmt::Display) -> PkiError {
    PkiError::new("the certificate could not be made", error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::Role;

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    #[test]
    fn a_node_certificate_names_node_and_addresses() {
        let authority = Authority::create("demo").unwrap();
        let again = Authority::load("demo", authority.certificate(), &authority.key()).unwrap();
        assert_eq!(authority.fingerprint(), again.fingerprint());
        let request = Request::parse(&NodeKey::generate("n1").unwrap().request).unwrap();
        let pem = again.certify_node(request, "n1", &["10.0.0.1".parse().unwrap()]).unwrap();
        let der = der(&pem);
        assert_eq!(Identity::of_certificate(&der, "demo").unwrap(), Identity::Node("n1".to_owned()));
        assert!(Identity::of_certificate(&der, "other").is_err());
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
        assert_eq!(parsed.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 3);
    }

    #[test]
    fn a_user_certificate_carries_its_role() {
        let authority = Authority::create("demo").unwrap();
        let ann = Identity::User { role: Role::Monitor, name: "ann".to_owned() };
        let (certificate, _) = authority.issue_user(&ann, 1).unwrap();
        assert_eq!(Identity::of_certificate(&der(&certificate), "demo").unwrap(), ann);
    }

    #[test]
    fn requests_are_checked() {
        assert!(Request::parse("nonsense").is_err());
        assert!(Request::parse(&"x".repeat(MAX_REQUEST + 1)).is_err());
        let mut altered = NodeKey::generate("n1").unwrap().request;
        let middle = altered.len() / 2;
        altered.replace_range(middle..=middle, if &altered[middle..=middle] == "A" { "B" } else { "A" });
        assert!(Request::parse(&altered).is_err());
    }
}
