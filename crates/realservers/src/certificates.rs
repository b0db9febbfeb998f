//! A certificate authority of the test's own, and the server certificate it signed.

use crate::Error;
use crate::workdir::set_mode;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme,
    StreamOwned,
};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the server certificate says about itself.
#[derive(Clone, Debug)]
pub struct CertificateOptions {
    /// DNS names and IP addresses it is valid for.
    pub names: Vec<String>,
    /// Whether a client should find it in date.
    pub validity: Validity,
}

/// The time in which a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// It holds today.
    Current,
    /// It ended in the year 2001.
    Expired,
}

impl Default for CertificateOptions {
    /// Valid today for `localhost` and `127.0.0.1`.
    fn default() -> Self {
        Self {
            names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
            validity: Validity::Current,
        }
    }
}

/// PEM files of an authority and of a server certificate signed by it.
#[derive(Clone, Debug)]
pub struct Certificates {
    authority: PathBuf,
    chain: PathBuf,
    key: PathBuf,
}

impl Certificates {
    /// Makes a new authority and a server certificate and writes them into `folder`; the key file is
    /// readable by its owner only.
    ///
    /// # Errors
    /// [`Error::Tls`] when a name is no DNS name and no IP address; [`Error::File`].
    pub fn generate(folder: &Path, options: &CertificateOptions) -> Result<Self, Error> {
        let authority_key = KeyPair::generate().map_err(Error::tls("making a key"))?;
        let authority_params = authority_params();
        let authority = authority_params
            .self_signed(&authority_key)
            .map_err(Error::tls("signing the authority's certificate"))?;
        let issuer = Issuer::new(authority_params, authority_key);

        let key = KeyPair::generate().map_err(Error::tls("making a key"))?;
        let server = server_params(options)?
            .signed_by(&key, &issuer)
            .map_err(Error::tls("signing the server's certificate"))?;

        let files = Self {
            authority: folder.join("ca.pem"),
            chain: folder.join("server.pem"),
            key: folder.join("server.key"),
        };
        write(&files.authority, &authority.pem(), 0o644)?;
        write(&files.chain, &server.pem(), 0o644)?;
        write(&files.key, &key.serialize_pem(), 0o600)?;
        Ok(files)
    }

    /// The authority's certificate: what a client has to trust.
    #[must_use]
    pub fn authority_file(&self) -> &Path {
        &self.authority
    }

    /// The server's certificate.
    #[must_use]
    pub fn chain_file(&self) -> &Path {
        &self.chain
    }

    /// The server's private key.
    #[must_use]
    pub fn key_file(&self) -> &Path {
        &self.key
    }

    /// Does a TLS handshake as a client that knows the server's very certificate: so it succeeds also
    /// where the certificate is out of date or made out to another name, and only with this server.
    pub(crate) fn handshake(&self, mut socket: TcpStream) -> Result<TlsStream, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(Error::tls("setting up TLS"))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned {
                certificate: read(&self.chain)?,
                provider,
            }))
            .with_no_client_auth();
        let name = ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let mut connection =
            ClientConnection::new(Arc::new(config), name).map_err(Error::tls("setting up TLS"))?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket).map_err(Error::tls("the TLS handshake"))?;
        }
        Ok(StreamOwned::new(connection, socket))
    }
}

/// A TLS connection to one of the servers.
pub(crate) type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// Accepts one certificate, whatever it says about itself.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity == self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("Test authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn server_params(options: &CertificateOptions) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(options.names.clone())
        .map_err(Error::tls("the certificate's names"))?;
    params.distinguished_name = named("Test server");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    if options.validity == Validity::Expired {
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2001, 1, 1);
    }
    Ok(params)
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn write(path: &Path, pem: &str, mode: u32) -> Result<(), Error> {
    fs::write(path, pem).map_err(Error::file(path))?;
    set_mode(path, mode)
}

fn read(path: &Path) -> Result<CertificateDer<'static>, Error> {
    CertificateDer::from_pem_file(path).map_err(Error::tls("reading a certificate"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use std::os::unix::fs::PermissionsExt;

    /// What a client that trusts the authority makes of the server's certificate.
    fn judge(options: &CertificateOptions, host: &str) -> Result<(), rustls::Error> {
        let folder = tempfile::tempdir().unwrap();
        let files = Certificates::generate(folder.path(), options).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(read(files.authority_file()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let shown = read(files.chain_file()).unwrap();
        verifier.verify_server_cert(&shown, &[], &name, &[], UnixTime::now()).map(|_| ())
    }

    #[test]
    fn a_client_that_trusts_the_authority_accepts_both_names() {
        let options = CertificateOptions::default();
        assert_eq!(judge(&options, "localhost"), Ok(()));
        assert_eq!(judge(&options, "127.0.0.1"), Ok(()));
        assert!(judge(&options, "mail.example.org").is_err());
    }

    #[test]
    fn an_expired_certificate_is_seen_as_such() {
        let options =
            CertificateOptions { validity: Validity::Expired, ..CertificateOptions::default() };
        let verdict = judge(&options, "localhost").unwrap_err();
        assert!(verdict.to_string().contains("expired"), "{verdict}");
    }

    #[test]
    fn others_cannot_read_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let files = Certificates::generate(folder.path(), &CertificateOptions::default()).unwrap();
        let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(files.key_file()), 0o600);
        assert_eq!(mode(files.authority_file()), 0o644);
    }
}
