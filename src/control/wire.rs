//! What travels over the control socket beside the types of `session::service`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::mapi::{Attachment, MapiCode, MapiError, MapiResult, MessageData, PropList, Recipient};
use crate::session::{FsckEvent, Submission};

/// The largest message object, in bytes of JSON. Attachments are base64 in it.
pub(super) const LARGEST_SUBMISSION: usize = 128 * 1024 * 1024;

/// The largest body of any other request, and of the line before a raw message, in bytes.
pub(super) const LARGEST_REQUEST: usize = 4 * 1024 * 1024;

/// The largest JSON answer a client reads, in bytes.
pub(super) const LARGEST_ANSWER: usize = 64 * 1024 * 1024;

/// Most rows of the queue in one answer.
pub(super) const MOST_ROWS: usize = 1000;

/// An error of the contract as JSON.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(super) struct WireError {
    pub(super) code: u32,
    pub(super) name: String,
    pub(super) detail: String,
}

impl From<&MapiError> for WireError {
    fn from(error: &MapiError) -> Self {
        WireError {
            code: error.code().0,
            name: error.code().to_string(),
            detail: error.detail().to_owned(),
        }
    }
}

impl From<WireError> for MapiError {
    fn from(error: WireError) -> Self {
        MapiError::new(MapiCode(error.code), error.detail)
    }
}

/// A line of the answer to `fsck`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[derive(utoipa::ToSchema)]
pub(super) enum WireEvent {
    Event(FsckEvent),
    Error(WireError),
}

impl From<MapiResult<FsckEvent>> for WireEvent {
    fn from(event: MapiResult<FsckEvent>) -> Self {
        match event {
            Ok(event) => WireEvent::Event(event),
            Err(error) => WireEvent::Error(WireError::from(&error)),
        }
    }
}

impl From<WireEvent> for MapiResult<FsckEvent> {
    fn from(event: WireEvent) -> Self {
        match event {
            WireEvent::Event(event) => Ok(event),
            WireEvent::Error(error) => Err(error.into()),
        }
    }
}

/// The answer to a submission.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(super) struct Accepted {
    pub(super) id: String,
}

/// The answer to `retry`.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(super) struct Retried {
    pub(super) count: u64,
}

/// Whose story `POST /v1/trace` asks for.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(super) struct TraceQuery {
    /// An entry id, the beginning of one, or a `Message-ID`.
    pub(super) id: String,
}

/// The query of `GET /v1/queue`.
#[derive(Debug, Deserialize)]
pub(super) struct PageQuery {
    #[serde(default)]
    pub(super) after: Option<String>,
    #[serde(default = "most_rows")]
    pub(super) limit: usize,
}

fn most_rows() -> usize {
    MOST_ROWS
}

/// The query of `POST /v1/queue/ID/wait`.
#[derive(Debug, Deserialize)]
pub(super) struct WaitQuery {
    /// Milliseconds; without it the wait has no end.
    #[serde(default)]
    pub(super) limit_ms: Option<u64>,
}

/// A message object with its attachments in base64: JSON arrays of numbers would be three times
/// as large.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(super) struct WireSubmission {
    /// By property tag, as a number in decimal: a value under the name of its type.
    #[schema(value_type = Object)]
    props: PropList,
    /// Rows of the recipient table.
    #[schema(value_type = Vec<Object>)]
    recipients: Vec<Recipient>,
    #[serde(default)]
    attachments: Vec<WireAttachment>,
}

#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
struct WireAttachment {
    filename: String,
    mime_tag: String,
    content_id: String,
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    #[schema(value_type = String, content_encoding = "base64")]
    data: Vec<u8>,
}

fn to_base64<S: Serializer>(data: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(data))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    STANDARD.decode(text.as_bytes()).map_err(serde::de::Error::custom)
}

impl From<Submission> for WireSubmission {
    fn from(submission: Submission) -> Self {
        let MessageData { props, recipients, attachments } = submission.message;
        let attachments = attachments.into_iter().map(|attachment| WireAttachment {
            filename: attachment.filename,
            mime_tag: attachment.mime_tag,
            content_id: attachment.content_id,
            data: attachment.data,
        });
        WireSubmission { props, recipients, attachments: attachments.collect() }
    }
}

impl From<WireSubmission> for Submission {
    fn from(wire: WireSubmission) -> Self {
        let attachments = wire.attachments.into_iter().map(|attachment| Attachment {
            filename: attachment.filename,
            mime_tag: attachment.mime_tag,
            content_id: attachment.content_id,
            data: attachment.data,
        });
        Submission {
            message: MessageData {
                props: wire.props,
                recipients: wire.recipients,
                attachments: attachments.collect(),
            },
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::mapi::{EntryId, RecipientType, SysTime, tags};

    #[test]
    fn a_message_object_comes_back_as_it_was() {
        let mut message = MessageData::default();
        message.props.set(tags::SUBJECT, "Grüße\r\n");
        message.props.set(tags::PRIORITY, -1);
        message.props.set(tags::DEFERRED_SEND_TIME, SysTime::from_millis(1_700_000_000_000));
        message.props.set(tags::ENTRYID, &EntryId::from_bytes(&[0, 255]).unwrap());
        message.props.set(tags::ORIGINATOR_DELIVERY_REPORT_REQUESTED, true);
        message.recipients.push(Recipient::smtp(3, RecipientType::Bcc, "a@b.c").named("A"));
        message.attachments.push(Attachment {
            filename: "x.bin".into(),
            mime_tag: "a/b".into(),
            content_id: "cid".into(),
            data: (0..=255).collect(),
        });
        let sent = Submission { message: message.clone() };
        let json = serde_json::to_vec(&WireSubmission::from(sent)).unwrap();
        let read: WireSubmission = serde_json::from_slice(&json).unwrap();
        assert_eq!(Submission::from(read).message, message);
    }

    #[test]
    fn errors_keep_code_and_detail() {
        let error = MapiError::new(MapiCode::UNABLE_TO_ABORT, "it is sent");
        let json = serde_json::to_string(&WireError::from(&error)).unwrap();
        assert!(json.contains("\"MAPI_E_UNABLE_TO_ABORT\""), "{json}");
        let read: WireError = serde_json::from_str(&json).unwrap();
        assert_eq!(MapiError::from(read), error);
    }
}
