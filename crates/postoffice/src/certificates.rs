//! Certificates made at start: an authority of our own and leaves for `localhost`, `127.0.0.1` and `::1`,
//! sound ones and ones with one chosen flaw.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

/// Names the sound certificate is valid for.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// The one name in a leaf made with [`Flaw::WrongName`].
const WRONG_NAME: &str = "elsewhere.invalid";

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Key generation or signing failed.
    #[error("cannot make a certificate: {0}")]
    Making(#[from] rcgen::Error),
    /// The TLS library refused the certificate or the protocol versions.
    #[error("cannot use the certificate: {0}")]
    Using(#[from] rustls::Error),
}

/// What is wrong with the certificate a server presents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flaw {
    /// Nothing: valid from yesterday for 90 days, for `localhost`, `127.0.0.1` and `::1`.
    #[default]
    None,
    /// Issued for another name (`elsewhere.invalid`).
    WrongName,
    /// Its validity ended yesterday.
    Expired,
    /// Its validity begins tomorrow.
    NotYetValid,
    /// Signed by an authority other than the one clients are told to trust.
    UnknownIssuer,
}

/// A certificate authority that exists for the life of a test or a server.
///
/// Give the same authority to several servers ([`crate::Builder::authority`]) when one client has to trust them all.
#[derive(Clone)]
pub struct Authority {
    pem: Arc<str>,
    der: CertificateDer<'static>,
    issuer: Arc<Issuer<'static, KeyPair>>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a new authority with a fresh key.
    ///
    /// # Errors
    /// [`CertificateError::Making`] if key generation or signing fails.
    pub fn new() -> Result<Self, CertificateError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name("postoffice test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let now = OffsetDateTime::now_utc();
        params.not_before = now - Duration::days(2);
        params.not_after = now + Duration::days(365);
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            pem: certificate.pem().into(),
            der: certificate.der().clone(),
            issuer: Arc::new(Issuer::new(params, key)),
        })
    }

    /// The authority's certificate as PEM, for a client's `ca_file`.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The authority's certificate as DER, for a client's root store.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Issues a server certificate with the given flaw.
    ///
    /// # Errors
    /// [`CertificateError::Making`] if key generation or signing fails.
    pub fn issue(&self, flaw: Flaw) -> Result<ServerCertificate, CertificateError> {
        if flaw == Flaw::UnknownIssuer {
            let stranger = Self::new()?;
            return stranger.leaf(flaw);
        }
        self.leaf(flaw)
    }

    fn leaf(&self, flaw: Flaw) -> Result<ServerCertificate, CertificateError> {
        let names: Vec<String> = match flaw {
            Flaw::WrongName => vec![WRONG_NAME.to_owned()],
            _ => NAMES.iter().map(|&name| name.to_owned()).collect(),
        };
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = common_name("postoffice");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let now = OffsetDateTime::now_utc();
        let (from, until) = match flaw {
            Flaw::Expired => (-2, -1),
            Flaw::NotYetValid => (1, 90),
            Flaw::None | Flaw::WrongName | Flaw::UnknownIssuer => (-1, 90),
        };
        params.not_before = now + Duration::days(from);
        params.not_after = now + Duration::days(until);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(ServerCertificate { flaw, leaf: certificate.der().clone(), key: key.serialize_der() })
    }
}

/// A leaf certificate with its key.
#[derive(Clone)]
pub struct ServerCertificate {
    flaw: Flaw,
    leaf: CertificateDer<'static>,
    key: Vec<u8>,
}

impl std::fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerCertificate").field("flaw", &self.flaw).finish_non_exhaustive()
    }
}

impl ServerCertificate {
    /// The leaf as DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.leaf
    }

    /// The SHA-256 digest of the leaf in lower-case hexadecimal, as certificate pins are written.
    pub fn fingerprint(&self) -> String {
        crate::message::hex(ring::digest::digest(&ring::digest::SHA256, &self.leaf).as_ref())
    }

    pub(crate) fn server_config(&self) -> Result<Arc<ServerConfig>, CertificateError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![self.leaf.clone()], key)?;
        Ok(Arc::new(config))
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_flaw_yields_a_usable_server_configuration() {
        let authority = Authority::new().unwrap();
        for flaw in
            [Flaw::None, Flaw::WrongName, Flaw::Expired, Flaw::NotYetValid, Flaw::UnknownIssuer]
        {
            let certificate = authority.issue(flaw).unwrap();
            certificate.server_config().unwrap();
            assert_eq!(certificate.fingerprint().len(), 64);
        }
    }

    #[test]
    fn debug_output_shows_no_key() {
        let authority = Authority::new().unwrap();
        let shown = format!("{:?} {:?}", authority, authority.issue(Flaw::None).unwrap());
        assert_eq!(shown, "Authority { .. } ServerCertificate { flaw: None, .. }");
    }
}
