//! Finding a message that somebody asks for, and the rows that tell its story.

use super::queue_view::Traffic;
use super::{TraceReport, trace_view};
use crate::mapi::{EntryId, MapiCode, MapiError, MapiResult, tags};
use crate::spool::Spool;

/// Rows of the Outbox looked at by page.
const PAGE: usize = 256;

/// Characters of an entry id of this crate's store.
const WHOLE: usize = 26;

/// The entry id that `id` names: itself, the beginning of one, or a `Message-ID`.
///
/// # Errors
/// `MAPI_E_NOT_FOUND`, `MAPI_E_INVALID_ENTRYID`; those of the spool.
pub(super) async fn resolve(spool: &dyn Spool, id: &str) -> MapiResult<EntryId> {
    let id = id.trim();
    if let Ok(entry) = id.parse() {
        return Ok(entry);
    }
    if id.contains('@') || id.starts_with('<') {
        return by_message_id(spool, id).await;
    }
    let bounds = beginning(id).ok_or_else(|| {
        let words = format!("{id:?} is neither an entry id nor a Message-ID");
        MapiError::new(MapiCode::INVALID_ENTRYID, words)
    })?;
    let found = spool.known_between(&bounds.0, &bounds.1, 2).await?;
    match found.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(unknown(format!("no message that is known begins with {id}"))),
        _ => {
            let words = format!("more than one message begins with {id}; give more of its id");
            Err(MapiError::new(MapiCode::INVALID_ENTRYID, words))
        }
    }
}

/// The first and the last entry id of this crate's store that begin so.
fn beginning(text: &str) -> Option<(EntryId, EntryId)> {
    if text.is_empty() || text.len() >= WHOLE || !text.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let filled = |fill: char| {
        let filler = std::iter::repeat_n(fill, WHOLE - text.len());
        text.chars().chain(filler).collect::<String>().parse().ok()
    };
    Some((filled('0')?, filled('Z')?))
}

/// By the index, and before any transport has it, by a walk over the Outbox.
async fn by_message_id(spool: &dyn Spool, id: &str) -> MapiResult<EntryId> {
    if let Some(entry) = spool.by_message_id(id, 1).await?.into_iter().next() {
        return Ok(entry);
    }
    let bare = |id: &str| id.trim().trim_matches(['<', '>']).to_owned();
    let wanted = bare(id);
    let (mut after, mut found) = (None, None);
    loop {
        let page = spool.outbox_page(after.as_ref(), PAGE).await?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        let has_it = |props: &crate::mapi::PropList| {
            props.text(tags::INTERNET_MESSAGE_ID).is_some_and(|id| bare(id) == wanted)
        };
        let newest = page.into_iter().rev().find(|(_, record)| has_it(&record.props));
        found = newest.map(|(entry, _)| entry).or(found);
    }
    found.ok_or_else(|| unknown(format!("no message that is known has the Message-ID {id}")))
}

/// What the rows of a message tell.
///
/// # Errors
/// `MAPI_E_NOT_FOUND`; those of the spool.
pub(super) async fn report(
    spool: &dyn Spool,
    entry: &EntryId,
    traffic: Traffic,
) -> MapiResult<TraceReport> {
    // In the order in which a message leaves them, so that none is missed on its way.
    let outbox = spool.outbox(entry).await?;
    let queue = spool.queue(entry).await?;
    let history = spool.history(entry).await?;
    let rows = trace_view::Rows {
        outbox: outbox.as_ref(),
        queue: queue.as_ref(),
        history: history.as_ref(),
    };
    trace_view::report(entry, &rows, traffic).ok_or_else(|| {
        let words = format!("nothing is known of {entry}; what happened is kept for 30 days");
        unknown(words)
    })
}

fn unknown(words: String) -> MapiError {
    MapiError::new(MapiCode::NOT_FOUND, words)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_stands_for_all_that_begin_so() {
        let (first, last) = beginning("01hqz").unwrap();
        assert!(
            first.to_string().starts_with("01HQZ000") && last.to_string().starts_with("01HQZZZ")
        );
        assert!(first < last);
        let whole = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
        for text in ["", whole, "a b", "a/b", "zz", "\u{e9}"] {
            assert!(beginning(text).is_none(), "{text}");
        }
    }
}
