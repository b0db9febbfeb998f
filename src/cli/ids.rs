//! Entry ids as people give them: whole or the beginning of one.

use super::exit::{Exit, Failure};
use crate::mapi::{EntryId, MapiCode, MapiError};
use crate::session::{QueueRow, Service};

/// Rows asked for at once.
const PAGE: usize = 500;

/// The length of an entry id of this crate's store as text.
const WHOLE: usize = 26;

/// Every row of the queue.
pub(crate) async fn all_rows(service: &dyn Service) -> Result<Vec<QueueRow>, MapiError> {
    let mut rows: Vec<QueueRow> = Vec::new();
    loop {
        let after = rows.last().and_then(|row| row.id.parse::<EntryId>().ok());
        let page = service.queue(after, PAGE).await?;
        let is_last = page.is_empty();
        rows.extend(page);
        if is_last {
            return Ok(rows);
        }
    }
}

/// The entry id that `text` names: itself, or the one in the queue that begins with it.
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
    let rows = all_rows(service).await;
    let rows = rows.map_err(|error| Failure::contract("read the queue", &error))?;
    let wanted = text.to_ascii_uppercase();
    let mut found = rows.iter().filter(|row| row.id.to_ascii_uppercase().starts_with(&wanted));
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
        let none = resolve(&one, "ZZZ").await.unwrap_err();
        assert_eq!((none.exit, none.code), (Exit::Negative, Some(MapiCode::NOT_FOUND)));
        for nonsense in ["", "a/b", "0123456789012345678901234567"] {
            assert_eq!(resolve(&one, nonsense).await.unwrap_err().exit, Exit::Usage);
        }
        assert_eq!(all_rows(&service).await.unwrap().len(), 1200);
    }
}
