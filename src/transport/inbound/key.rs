//! The name of a message by its place on the server.

/// `PR_SEARCH_KEY` of a fetched message: the same place always gives the same key, so a store
/// that finds it has the message already (IB-6).
pub(super) fn search_key(transport: &str, mailbox: &str, uid_validity: u32, uid: u32) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    for part in [transport, mailbox] {
        // Lengths keep ("ab", "c") and ("a", "bc") apart.
        hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.update(&uid_validity.to_be_bytes());
    hasher.update(&uid.to_be_bytes());
    hasher.finalize().as_bytes().to_vec()
}

/// First half of a BLAKE3 digest: by it a message is found again when its mailbox was rebuilt.
pub(super) type ContentDigest = [u8; 16];

/// Digests a message.
pub(super) fn content_digest(hasher: &blake3::Hasher) -> ContentDigest {
    let mut digest = ContentDigest::default();
    for (to, from) in digest.iter_mut().zip(hasher.finalize().as_bytes()) {
        *to = *from;
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_counts() {
        let key = search_key("work", "INBOX", 7, 8);
        assert_eq!(key.len(), 32);
        assert_eq!(key, search_key("work", "INBOX", 7, 8));
        let others = [
            search_key("home", "INBOX", 7, 8),
            search_key("work", "Archive", 7, 8),
            search_key("work", "INBOX", 8, 7),
            search_key("work", "INBOX", 7, 9),
            search_key("workI", "NBOX", 7, 8),
        ];
        for other in others {
            assert_ne!(key, other);
        }
    }
}
