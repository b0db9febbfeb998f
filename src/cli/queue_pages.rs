//! The queue a page at a time, so that a long one needs no more memory than a short one, and one
//! message of it by the beginning of its entry id.

use super::exit::{Exit, Failure};
use crate::mapi::{EntryId, MapiCode, MapiError, MapiResult};
use crate::session::{QueueRow, Service};

/// Rows asked for at once.
pub(crate) const PAGE: usize = 500;

/// The length of an entry id of this crate's store as text.
const WHOLE: usize = 26;

/// The queue in order, a page at a time. It goes on behind what was seen, whoever is asked next.
/// A page that is not full is the last: what comes in meanwhile must not keep it going.
#[derive(Debug, Default)]
pub(crate) struct QueuePages {
    after: Option<EntryId>,
    is_over: bool,
}

impl QueuePages {
    /// The next rows; none when there are no more. What is cancelled has taken nothing.
    ///
    /// # Errors
    /// Those of [`Service::queue`].
    pub(crate) async fn next(&mut self, service: &dyn Service) -> MapiResult<Vec<QueueRow>> {
        if self.is_over {
            return Ok(Vec::new());
        }
        let page = service.queue(self.after.clone(), PAGE).await?;
        self.is_over = page.len() < PAGE;
        if let Some(last) = page.last() {
            let parsed = last.id.parse().map_err(|_| {
                let detail = format!("{:?} in the queue is no entry id", last.id);
                MapiError::new(MapiCode::CORRUPT_DATA, detail)
            })?;
            self.after = Some(parsed);
        }
        Ok(page)
    }
}

/// The entry id that `text` names: itself, or the one in the queue that begins with it. Asks for
/// two rows, however long the queue is.
pub(crate) async fn resolve(service: &dyn Service, text: &str) -> Result<EntryId, Failure> {
    if let Ok(entry) = text.parse() {
        return Ok(entry);
    }
    let possible =
        (1..WHOLE).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
    if !possible {
        let error = MapiError::new(MapiCode::INVALID_ENTRYID, format!("{text:?} is no entry id"));
        return Err(Failure::contract("look that up", &error));
    }
    let wanted = text.to_ascii_uppercase();
    let rows = match format!("{wanted:0<WHOLE$}").parse::<EntryId>() {
        Ok(first) => service.queue(before(&first), 2).await,
        // No entry id has such letters.
        Err(_) => Ok(Vec::new()),
    };
    let rows = rows.map_err(|error| Failure::contract("read the queue", &error))?;
    let mut found = rows.iter().filter(|row| row.id.starts_with(&wanted));
    match (found.next().and_then(|row| row.id.parse().ok()), found.next()) {
        (Some(entry), None) => Ok(entry),
        (Some(_), Some(_)) => Err(Failure::new(
            Exit::Usage,
            format!("more than one message begins with {text}; give more of its entry id"),
        )),
        (None, _) => {
            let detail = format!("no message of the queue begins with {text}");
            let error = MapiError::new(MapiCode::NOT_FOUND, detail);
            Err(Failure::contract("find that", &error))
        }
    }
}

/// The entry id right before this one, which is one of 16 bytes; `None` before the first.
fn before(entry: &EntryId) -> Option<EntryId> {
    let number = u128::from_be_bytes(entry.as_bytes().try_into().ok()?).checked_sub(1)?;
    EntryId::from_bytes(&number.to_be_bytes()).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::control::fake::{FakeService, entry, row};
    use crate::session::QueueRowState;

    #[tokio::test]
    async fn beginnings_name_one_message() {
        let rows = (0..1200).map(|n| row(n, QueueRowState::Queued)).collect();
        let service = FakeService::with_rows(rows);
        let whole = entry(7).to_string();
        assert_eq!(resolve(&service, &whole).await.unwrap(), entry(7));
        assert_eq!(resolve(&service, &whole.to_lowercase()).await.unwrap(), entry(7));
        // 32 ids share all but the last letter.
        let beginning: String = whole.chars().take(25).collect();
        let many = resolve(&service, &beginning).await.unwrap_err();
        assert_eq!(many.exit, Exit::Usage);
        let one = FakeService::with_rows(vec![row(7, QueueRowState::Queued)]);
        assert_eq!(resolve(&one, &beginning.to_lowercase()).await.unwrap(), entry(7));
        for stranger in ["ZZZ", "0L", "00000000000000000000000000"] {
            let none = resolve(&one, stranger).await;
            // What is whole names itself, in the queue or not.
            if stranger.len() < WHOLE {
                let none = none.unwrap_err();
                assert_eq!((none.exit, none.code), (Exit::Negative, Some(MapiCode::NOT_FOUND)));
            } else {
                assert!(none.is_ok());
            }
        }
        for nonsense in ["", "a/b", "0123456789012345678901234567"] {
            assert_eq!(resolve(&one, nonsense).await.unwrap_err().exit, Exit::Usage);
        }
    }

    #[tokio::test]
    async fn every_beginning_of_every_message_finds_it_or_is_too_short() {
        let service = FakeService::with_rows(
            [0, 1, 31, 32, 33, 1023, 1024].map(|n| row(n, QueueRowState::Queued)).into(),
        );
        let all = QueuePages::default().next(&service).await.unwrap();
        for wanted in &all {
            for length in 1..WHOLE {
                let (beginning, _) = wanted.id.split_at(length);
                let alike = all.iter().filter(|row| row.id.starts_with(beginning)).count();
                match resolve(&service, beginning).await {
                    Ok(found) => assert_eq!((found.to_string(), alike), (wanted.id.clone(), 1)),
                    Err(failure) => {
                        assert!(failure.exit == Exit::Usage && alike > 1, "{beginning}")
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn pages_are_the_whole_queue_once() {
        let rows = (0..1200).map(|n| row(n, QueueRowState::Queued)).collect();
        let service = FakeService::with_rows(rows);
        let (mut pages, mut seen) = (QueuePages::default(), Vec::new());
        loop {
            let page = pages.next(&service).await.unwrap();
            if page.is_empty() {
                break;
            }
            assert!(page.len() <= PAGE);
            seen.extend(page.into_iter().map(|row| row.id));
        }
        let wanted: Vec<String> = (0..1200).map(|n| entry(n).to_string()).collect();
        assert_eq!(seen, wanted);
        assert_eq!(pages.next(&service).await.unwrap(), []);
    }
}
