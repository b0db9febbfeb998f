//! Message objects too large for a row: what moves into a body beside it, and back.

use crate::mapi::{MapiCode, MapiError, MapiResult, MessageData, PropList, tags};
use crate::spool::{BodyId, OutboxRecord, Spool, StagedBody};

/// Texts of up to this many octets together stand in the row.
const IN_ROW: usize = 8 * 1024;

/// The properties that may be large.
const TEXTS: [crate::mapi::PropTag; 2] = [tags::BODY, tags::HTML];

/// What one octet of data may grow to in the stored form, and what that adds.
const SLACK: u64 = 1024 * 1024;

/// Octets of everything a message holds.
pub(super) fn size_of(message: &MessageData) -> u64 {
    let texts: usize = message
        .props
        .iter()
        .map(|(_, value)| match value {
            crate::mapi::PropValue::Unicode(text) => text.len(),
            crate::mapi::PropValue::Binary(bytes) => bytes.len(),
            _ => 8,
        })
        .sum();
    let attached: usize = message
        .attachments
        .iter()
        .map(|attachment| attachment.data.len() + attachment.filename.len())
        .sum();
    let rows: usize =
        message.recipients.iter().map(|row| row.address.len() + row.display_name.len()).sum();
    (texts + attached + rows) as u64
}

/// Moves out of `message` what is too large for a row; `None` when nothing is.
pub(super) async fn take_out(
    message: &mut MessageData,
    spool: &dyn Spool,
) -> MapiResult<Option<StagedBody>> {
    let texts: usize = TEXTS.iter().filter_map(|tag| message.props.text(*tag)).map(str::len).sum();
    if message.attachments.is_empty() && texts <= IN_ROW {
        return Ok(None);
    }
    let mut object = MessageData {
        attachments: std::mem::take(&mut message.attachments),
        ..MessageData::default()
    };
    // Either all texts move or none, so that a row that has one has them all.
    if texts > IN_ROW {
        for tag in TEXTS {
            if let Some(text) = message.props.text(tag).map(str::to_owned) {
                message.props.remove(tag);
                object.props.set(tag, text);
            }
        }
    }
    let bytes = postcard::to_stdvec(&object)
        .map_err(|error| MapiError::new(MapiCode::CALL_FAILED, error.to_string()))?;
    drop(object);
    let mut writer = spool.new_body(Some(bytes.len() as u64)).await?;
    for piece in bytes.chunks(1024 * 1024) {
        writer.write(piece).await?;
    }
    Ok(Some(writer.finish().await?))
}

/// Whether the properties of the row are all there are.
pub(super) fn row_is_whole(record: &OutboxRecord) -> bool {
    record.object.is_none() || TEXTS.iter().any(|tag| record.props.value(*tag).is_some())
}

/// What was moved out.
pub(super) async fn load(
    record: &OutboxRecord,
    object: BodyId,
    spool: &dyn Spool,
) -> MapiResult<MessageData> {
    let limit = record.size.saturating_mul(2).saturating_add(SLACK);
    let bytes = spool.read_body(object, limit).await?;
    postcard::from_bytes(&bytes).map_err(|error| {
        let words = format!("the stored message object {object} cannot be read: {error}");
        MapiError::new(MapiCode::CORRUPT_DATA, words)
    })
}

/// The whole message: the row, and what was moved out of it.
pub(super) async fn whole(record: &OutboxRecord, spool: &dyn Spool) -> MapiResult<MessageData> {
    let mut message = record.data();
    if let Some(object) = record.object {
        let MessageData { props, attachments, .. } = load(record, object, spool).await?;
        message.props = with_moved(&message.props, props);
        message.attachments = attachments;
    }
    Ok(message)
}

/// Properties of the row together with those that were moved out; the row's win.
pub(super) fn with_moved(row: &PropList, mut moved: PropList) -> PropList {
    moved.merge(row.clone());
    moved
}
