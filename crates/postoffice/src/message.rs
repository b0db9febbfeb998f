//! What is kept of a message's content: its bytes, or only size and digest.

use std::fmt::Write as _;
use std::sync::Arc;

use ring::digest::{Context, SHA256, digest};

/// The content of an accepted message.
#[derive(Clone, PartialEq, Eq)]
pub enum Body {
    /// The exact bytes as received, dot-stuffing undone.
    Kept(Arc<[u8]>),
    /// Only what is needed to tell whether it was the right message ([`crate::Builder::keep_bodies_up_to`]).
    Digest {
        /// Size in octets.
        size: u64,
        /// SHA-256 of the bytes.
        sha256: [u8; 32],
    },
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Body({} octets, sha256 {})", self.size(), hex(&self.sha256()))
    }
}

impl Body {
    /// Size in octets.
    pub fn size(&self) -> u64 {
        match self {
            Self::Kept(bytes) => bytes.len() as u64,
            Self::Digest { size, .. } => *size,
        }
    }

    /// The bytes, unless only a digest was kept.
    pub fn bytes(&self) -> Option<&Arc<[u8]>> {
        match self {
            Self::Kept(bytes) => Some(bytes),
            Self::Digest { .. } => None,
        }
    }

    /// SHA-256 of the bytes.
    pub fn sha256(&self) -> [u8; 32] {
        match self {
            Self::Kept(bytes) => finish(digest(&SHA256, bytes).as_ref()),
            Self::Digest { sha256, .. } => *sha256,
        }
    }

    /// The bytes as text, for messages of assertions; invalid UTF-8 is replaced, a digest gives "".
    pub fn text(&self) -> String {
        self.bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
    }
}

/// Collects a body as it arrives, within the limits for what is kept and what is accepted.
pub(crate) struct BodySink {
    keep: u64,
    accept: u64,
    size: u64,
    bytes: Vec<u8>,
    digest: Option<Context>,
}

impl BodySink {
    pub(crate) fn new(keep: u64, accept: u64) -> Self {
        Self { keep, accept, size: 0, bytes: Vec::new(), digest: None }
    }

    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.size = self.size.saturating_add(chunk.len() as u64);
        if self.too_big() {
            // Refused in the end: nothing more has to be remembered.
            self.bytes = Vec::new();
            self.digest = None;
            return;
        }
        if let Some(digest) = &mut self.digest {
            digest.update(chunk);
        } else if self.size > self.keep {
            let mut digest = Context::new(&SHA256);
            digest.update(&self.bytes);
            digest.update(chunk);
            self.bytes = Vec::new();
            self.digest = Some(digest);
        } else {
            self.bytes.extend_from_slice(chunk);
        }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn too_big(&self) -> bool {
        self.size > self.accept
    }

    pub(crate) fn finish(self) -> Body {
        match self.digest {
            Some(digest) => {
                Body::Digest { size: self.size, sha256: finish(digest.finish().as_ref()) }
            }
            None => Body::Kept(self.bytes.into()),
        }
    }
}

fn finish(digest: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(digest) {
        *to = *from;
    }
    out
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(keep: u64, accept: u64, chunks: &[&[u8]]) -> (bool, Body) {
        let mut sink = BodySink::new(keep, accept);
        for chunk in chunks {
            sink.push(chunk);
        }
        (sink.too_big(), sink.finish())
    }

    #[test]
    fn a_digest_is_the_same_whether_the_bytes_were_kept_or_not() {
        let (_, kept) = collect(100, 100, &[b"abc", b"def"]);
        let (_, light) = collect(4, 100, &[b"abc", b"def"]);
        assert!(kept.bytes().is_some());
        assert!(light.bytes().is_none());
        assert_eq!(kept.sha256(), light.sha256());
        assert_eq!((kept.size(), light.size()), (6, 6));
    }

    #[test]
    fn what_is_too_big_is_noticed_and_forgotten() {
        let (too_big, body) = collect(100, 5, &[b"abc", b"def"]);
        assert!(too_big);
        assert_eq!(body.bytes().map(|bytes| bytes.len()), Some(0));
    }
}
