//! What ties a login to the TLS connection it is made over (channel binding, RFC 5056), so that who
//! stands between with a certificate of its own cannot pass it on.

use ring::digest;
use rustls::{ClientConnection, ProtocolVersion};

/// A channel binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChannelBinding {
    /// Its registered name.
    pub(crate) kind: &'static str,
    /// What both ends of the connection know, and nobody else has for another connection.
    pub(crate) data: Vec<u8>,
}

/// The label of `tls-exporter`, RFC 9266 section 4.2.
const LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// Octets of `tls-exporter`.
const EXPORTED: usize = 32;

/// `tls-exporter` (RFC 9266) under TLS 1.3; under TLS 1.2, where that is safe with an extension
/// only, `tls-server-end-point` (RFC 5929 section 4). `None` where there is neither.
pub(super) fn of(connection: &ClientConnection) -> Option<ChannelBinding> {
    match connection.protocol_version()? {
        ProtocolVersion::TLSv1_3 => {
            let exported =
                connection.export_keying_material(vec![0; EXPORTED], LABEL, Some(b"")).ok()?;
            Some(ChannelBinding { kind: "tls-exporter", data: exported })
        }
        _ => {
            let certificate = connection.peer_certificates()?.first()?;
            Some(ChannelBinding {
                kind: "tls-server-end-point",
                data: end_point(certificate.as_ref())?,
            })
        }
    }
}

/// The digest of a certificate by the algorithm of its own signature; SHA-256 for those that are
/// too weak. `None` where the signature has no single digest.
fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (fields, _) = element(certificate, SEQUENCE)?;
    let (_, behind) = element(fields, SEQUENCE)?;
    let (algorithm, _) = element(behind, SEQUENCE)?;
    let (identifier, _) = element(algorithm, OBJECT_IDENTIFIER)?;
    let digest = match identifier {
        // md5, sha1, sha256 with RSA; sha1, sha256 with ECDSA
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 4 | 5 | 11]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 2] => &digest::SHA256,
        // sha384 and sha512 with RSA and ECDSA
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 12]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 3] => &digest::SHA384,
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 13]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 4] => &digest::SHA512,
        _ => return None,
    };
    Some(digest::digest(digest, certificate).as_ref().to_vec())
}

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// The content of the DER element that `bytes` begins with, and what stands behind it.
fn element(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, bytes) = bytes.split_first()?;
    let (first, bytes) = bytes.split_first()?;
    let (length, bytes) = match first {
        0..=0x7f => (usize::from(*first), bytes),
        0x81..=0x84 => {
            let (octets, bytes) = bytes.split_at_checked(usize::from(first & 0x7f))?;
            let length =
                octets.iter().fold(0_usize, |length, octet| length << 8 | usize::from(*octet));
            (length, bytes)
        }
        _ => return None,
    };
    if *tag != wanted {
        return None;
    }
    bytes.split_at_checked(length)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_end_point_is_the_digest_that_the_signature_uses() {
        for (algorithm, digest) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Some(&digest::SHA256)),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Some(&digest::SHA384)),
            (&rcgen::PKCS_ED25519, None),
        ] {
            let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            let certificate = params.self_signed(&key).unwrap();
            let der = certificate.der().as_ref();
            let wanted = digest.map(|one| digest::digest(one, der).as_ref().to_vec());
            assert_eq!(end_point(der), wanted);
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_end_point() {
        for garbage in
            [&b""[..], b"0", b"0\x80", b"0\x85aaaaaa", b"0\x84\xff\xff\xff\xff", b"0\x03abc"]
        {
            assert_eq!(end_point(garbage), None, "{garbage:?}");
        }
    }
}
