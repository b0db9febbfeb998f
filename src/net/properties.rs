//! What has to hold whatever an IMAP server says.

use std::time::Duration;

use super::{ImapReply, ReplyStatus};

/// A reply is read or not; its words are fit for a terminal; a request for patience is bounded
/// and never success.
pub fn imap_reply(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Some(reply) = ImapReply::parse(&text) else { return };
    let words = reply.words();
    assert!(!words.chars().any(char::is_control), "{words:?}");
    assert!(words.chars().count() <= 301, "{words}");
    let _ = reply.has_code("ALERT");
    if let Some(throttle) = reply.throttle() {
        assert_ne!(reply.status, ReplyStatus::Ok);
        assert!(throttle.pause.is_none_or(|pause| pause <= Duration::from_secs(3600)));
    }
}
