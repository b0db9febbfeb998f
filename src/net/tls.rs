//! TLS towards a server whose identity is checked as the profile says.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{
    ClientCertificate, Fingerprint, NetError, NetErrorKind, Server, Stream, TlsReason, Trust,
};

/// Makes the TLS settings for a server. Reads files: not for an async task.
pub(super) fn client_config(server: &Server, name: &str) -> Result<Arc<ClientConfig>, NetError> {
    let settings = |detail: String| NetError::new(NetErrorKind::Settings, name, detail);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match &server.trust {
        Trust::Platform => Arc::new(
            rustls_platform_verifier::Verifier::new(Arc::clone(&provider))
                .map_err(|error| settings(no_platform(&error)))?,
        ),
        Trust::CaFile(path) => {
            let roots = Arc::new(roots(path).map_err(settings)?);
            WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
                .build()
                .map_err(|error| settings(format!("ca_file {}: {error}", path.display())))?
        }
        Trust::Fingerprint(wanted) => {
            Arc::new(Pinned { wanted: *wanted, provider: Arc::clone(&provider) })
        }
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| settings(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match &server.client {
        None => config.with_no_client_auth(),
        Some(client) => {
            let (chain, key) = shown(client).map_err(settings)?;
            config.with_client_auth_cert(chain, key).map_err(|error| {
                settings(format!("client_cert {}: {error}", client.certificate.display()))
            })?
        }
    };
    Ok(Arc::new(config))
}

/// Why what the system trusts cannot be used.
fn no_platform(error: &rustls::Error) -> String {
    match error {
        // The verifier's word for it that it found none, as in a container with nothing but a program.
        rustls::Error::General(_) => "no certificates of authorities on this system; install \
                                      ca-certificates or set ca_file"
            .to_owned(),
        error => format!("the system's certificates: {error}"),
    }
}

/// What is shown to the server: the certificate, those that signed it, and its key.
fn shown(
    client: &ClientCertificate,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let ClientCertificate { certificate, key } = client;
    let wrong = |why: &dyn fmt::Display| format!("client_cert {}: {why}", certificate.display());
    let chain = CertificateDer::pem_file_iter(certificate).map_err(|error| wrong(&error))?;
    let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(|error| wrong(&error))?;
    if chain.is_empty() {
        return Err(wrong(&"there is no certificate in it"));
    }
    let wrong = |why: &dyn fmt::Display| format!("client_key {}: {why}", key.display());
    let metadata = std::fs::metadata(key).map_err(|error| wrong(&error))?;
    if metadata.mode() & 0o044 != 0 {
        return Err(wrong(&"others can read it; chmod 600 mends that"));
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(&error))?;
    Ok((chain, key))
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let wrong = |why: &dyn fmt::Display| format!("ca_file {}: {why}", path.display());
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))? {
        let certificate = certificate.map_err(|error| wrong(&error))?;
        store.add(certificate).map_err(|error| wrong(&error))?;
    }
    if store.is_empty() {
        return Err(wrong(&"there is no certificate in it"));
    }
    Ok(store)
}

/// The handshake; the caller sets the deadline.
pub(super) async fn handshake(
    tcp: TcpStream,
    host: &str,
    server: &str,
    config: Arc<ClientConfig>,
) -> Result<Stream, NetError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| {
        NetError::new(NetErrorKind::Settings, server, format!("{host:?} is no host name"))
    })?;
    match TlsConnector::from(config).connect(name, tcp).await {
        Ok(tls) => Ok(Stream::tls(tls)),
        Err(error) => Err(classify(server, &error)),
    }
}

fn classify(server: &str, error: &io::Error) -> NetError {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return NetError::from_io(server, error);
    };
    let reason = match tls {
        rustls::Error::InvalidCertificate(why) => match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                TlsReason::Expired
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                TlsReason::NotYetValid
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                TlsReason::WrongName
            }
            // An authority of the same name and another key has not signed it either.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                TlsReason::UnknownIssuer
            }
            CertificateError::Other(other) if other.0.is::<FingerprintMismatch>() => {
                TlsReason::Fingerprint
            }
            _ => TlsReason::Other,
        },
        rustls::Error::InvalidMessage(_) => TlsReason::NotTls,
        _ => TlsReason::Other,
    };
    NetError::new(NetErrorKind::Tls(reason), server, tls.to_string())
}

/// Trusts one certificate, whatever its name and date. That the peer owns its key is still
/// proved by the signature of the handshake.
#[derive(Debug)]
struct Pinned {
    wanted: Fingerprint,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
struct FingerprintMismatch(Fingerprint);

impl fmt::Display for FingerprintMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the certificate shown is {}", self.0)
    }
}

impl std::error::Error for FingerprintMismatch {}

/// The digest by which a certificate is named.
pub(super) fn fingerprint(certificate: &CertificateDer<'_>) -> Fingerprint {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    let mut bytes = [0; 32];
    for (to, from) in bytes.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    Fingerprint(bytes)
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
        let shown = fingerprint(end_entity);
        if shown == self.wanted {
            return Ok(ServerCertVerified::assertion());
        }
        let mismatch = OtherError(Arc::new(FingerprintMismatch(shown)));
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(mismatch)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
