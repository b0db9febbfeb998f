//! The local Maildir as a mail program sees it.

use std::fs;
use std::path::{Path, PathBuf};

use realservers::wait;

use crate::house::PATIENCE;

/// The messages of a mailbox in `new` and `cur`, in no particular order; `INBOX` is the root.
pub(crate) fn messages(maildir: &Path, mailbox: &str) -> Vec<Vec<u8>> {
    // A mail program may move files while they are read; nobody does in a test.
    files(maildir, mailbox).iter().map(|file| fs::read(file).unwrap()).collect()
}

fn files(maildir: &Path, mailbox: &str) -> Vec<PathBuf> {
    let folder = match mailbox {
        "INBOX" => maildir.to_owned(),
        name => maildir.join(format!(".{name}")),
    };
    let listed = ["new", "cur"].into_iter().filter_map(|part| fs::read_dir(folder.join(part)).ok());
    listed.flatten().map(|entry| entry.unwrap().path()).collect()
}

/// Waits until there are `count` messages, and gives them. More are a failure.
pub(crate) async fn await_messages(maildir: &Path, mailbox: &str, count: usize) -> Vec<Vec<u8>> {
    let what = format!("{count} messages in {mailbox}");
    let waited = wait::until_async(&what, PATIENCE, async || {
        (files(maildir, mailbox).len() >= count).then_some(())
    });
    if let Err(error) = waited.await {
        panic!("{error}; there are {}", files(maildir, mailbox).len());
    }
    let messages = messages(maildir, mailbox);
    assert_eq!(messages.len(), count, "messages in {mailbox}");
    messages
}

/// The one message with this text in it.
pub(crate) fn one_with<'a>(messages: &'a [Vec<u8>], text: &str) -> &'a [u8] {
    let mut found = messages.iter().filter(|message| contains(message, text.as_bytes()));
    let first = found.next().unwrap_or_else(|| panic!("no message with {text:?}"));
    assert!(found.next().is_none(), "more than one message with {text:?}");
    first
}

/// Whether `part` is in `bytes`.
pub(crate) fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
