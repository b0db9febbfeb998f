//! From a message object to the body that is kept: RFC 5322, fit for any server with 8BITMIME.

use std::io::Cursor;
use std::pin::Pin;

use bytes::Bytes;
use tokio::io::AsyncRead;

use crate::mapi::{
    EntryId, MapiCode, MapiError, MapiResult, MessageData, PropList, Recipient, SysTime, tags,
};
use crate::mime::{
    self, Accepts, Defaults, Mailbox, MimeError, Normalised, Normaliser, Octets, Recoder, Survey,
    Surveyed,
};
use crate::spi::{Message, Yield};
use crate::spool::{BodyId, BodyWriter, SpoolError, StagedBody};
use crate::transport::Identity;
use crate::transport::outbound::body::TextReader;
use crate::transport::outbound::shared::Shared;

/// A body and what is to be known of it.
pub(super) struct Converted {
    /// The body, unless the spool has it already.
    pub(super) staged: Option<StagedBody>,
    pub(super) body: BodyId,
    pub(super) size: u64,
    pub(super) subject: String,
    pub(super) message_id: String,
    /// Whether 8BITMIME is needed to send it as it is.
    pub(super) eight_bit: bool,
    /// Whether SMTPUTF8 is needed.
    pub(super) smtputf8: bool,
}

/// Why a conversion failed: the host's store, the message, or the spool.
#[derive(Debug)]
pub(super) enum ConvertError {
    Mapi(MapiError),
    Spool(SpoolError),
}

impl From<MapiError> for ConvertError {
    fn from(error: MapiError) -> Self {
        ConvertError::Mapi(error)
    }
}

impl From<MimeError> for ConvertError {
    fn from(error: MimeError) -> Self {
        ConvertError::Mapi(error.into())
    }
}

impl From<SpoolError> for ConvertError {
    fn from(error: SpoolError) -> Self {
        ConvertError::Spool(error)
    }
}

impl From<std::io::Error> for ConvertError {
    fn from(error: std::io::Error) -> Self {
        let code = match error.kind() {
            std::io::ErrorKind::InvalidData => MapiCode::CORRUPT_DATA,
            _ => MapiCode::DISK_ERROR,
        };
        MapiError::new(code, format!("the message cannot be read: {error}")).into()
    }
}

/// Octets between two calls of SpoolerYield.
const STRIDE: u64 = 256 * 1024;

/// Lets others work while a large message is converted and stored (OB-18).
struct Pace<'a> {
    shared: &'a Shared,
    entry: &'a EntryId,
    since: u64,
}

impl<'a> Pace<'a> {
    fn new(shared: &'a Shared, entry: &'a EntryId) -> Self {
        Pace { shared, entry, since: 0 }
    }

    /// So many octets were gone through.
    ///
    /// # Errors
    /// `MAPI_E_USER_CANCEL` when the host wants the message no more.
    async fn step(&mut self, octets: usize) -> MapiResult<()> {
        self.since += octets as u64;
        if self.since < STRIDE {
            return Ok(());
        }
        self.since = 0;
        match self.shared.events.yield_to_host(self.entry).await {
            Yield::Continue => Ok(()),
            Yield::CancelMessage => {
                let words = format!("{} is not wanted any more", self.entry);
                Err(MapiError::new(MapiCode::USER_CANCEL, words))
            }
        }
    }
}

/// Where the text of a message object comes from; can be read again.
enum Source<'a> {
    /// RFC 5322 bytes of the host.
    Content(&'a dyn Message),
    /// Made from properties and attachments.
    Composed(Bytes),
}

impl Source<'_> {
    /// The text from its start, and its digest where the host knows it.
    async fn open(&self) -> MapiResult<(TextReader, Option<[u8; 32]>)> {
        let (reader, digest): (Pin<Box<dyn AsyncRead + Send>>, _) = match self {
            Source::Content(message) => {
                let content = message.content().await?.ok_or_else(|| {
                    MapiError::new(MapiCode::CORRUPT_DATA, "the content of the message is gone")
                })?;
                (content.reader, content.digest)
            }
            Source::Composed(bytes) => (Box::pin(Cursor::new(bytes.clone())), None),
        };
        Ok((TextReader::new(reader), digest))
    }
}

/// What the first pass found.
struct Surveyance {
    normalised: Normalised,
    surveyed: Surveyed,
    /// Digest and size of the normalised text.
    digest: [u8; 32],
    size: u64,
    /// What the host says of its own.
    given: Option<[u8; 32]>,
}

/// Makes the body. Two passes in bounded memory: one to see what it is like, one to write it; the
/// second is not needed when the spool has just these bytes already.
///
/// # Errors
/// `MAPI_E_CORRUPT_DATA`, `MAPI_E_INVALID_PARAMETER` for what cannot be a message; those of the
/// host's store and of the spool.
pub(super) async fn convert(
    shared: &Shared,
    entry: &EntryId,
    message: &dyn Message,
    props: &PropList,
    recipients: &[Recipient],
    smtputf8: bool,
    now: SysTime,
) -> Result<Converted, ConvertError> {
    let defaults = defaults(&shared.settings.identity, entry, props, now);
    let mut pace = Pace::new(shared, entry);
    let source = match message.content().await? {
        Some(_) => Source::Content(message),
        None => {
            let data = MessageData {
                props: props.clone(),
                // One that is no address fails alone, by the envelope.
                recipients: recipients
                    .iter()
                    .filter(|row| mime::address::check("recipient", &row.address).is_ok())
                    .cloned()
                    .collect(),
                attachments: message.attachments().await?,
            };
            pace.step(data.attachments.iter().map(|one| one.data.len()).sum()).await?;
            Source::Composed(Bytes::from(mime::compose(&data, &defaults)?))
        }
    };
    let found = survey(&source, &defaults, &mut pace).await?;
    let accepts = Accepts { eight_bit_mime: true, smtputf8 };
    let must_change = found.surveyed.must_change(accepts);
    let facts = &found.normalised.facts;
    let eight_bit = facts.body == Octets::EightBit;
    let mut header = facts.header_octets;
    let kept = BodyId(found.digest);
    let have = !must_change
        && found.given == Some(found.digest)
        && shared.spool.open_body(kept).await.is_ok();
    let (staged, body, size) = if have {
        (None, kept, found.size)
    } else {
        let recoder = must_change.then(|| Recoder::new(&found.surveyed, accepts));
        let writer = shared.spool.new_body(Some(found.size)).await?;
        let (staged, octets) = write(&source, &defaults, recoder, writer, &mut pace).await?;
        header = octets.unwrap_or(header);
        let (body, size) = (staged.id(), staged.size());
        (Some(staged), body, size)
    };
    let smtputf8 = smtputf8 || header == Octets::EightBit;
    Ok(Converted {
        staged,
        body,
        size,
        subject: subject(props, &found.normalised),
        message_id: found.normalised.message_id.clone(),
        eight_bit: eight_bit || header == Octets::EightBit,
        smtputf8,
    })
}

fn subject(props: &PropList, normalised: &Normalised) -> String {
    let subject = props.text(tags::SUBJECT).unwrap_or(&normalised.facts.header.subject);
    subject.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What is added where the message lacks it. The Message-ID is made from the entry id, so that a
/// message that is taken twice is the same message.
fn defaults(identity: &Identity, entry: &EntryId, props: &PropList, now: SysTime) -> Defaults {
    let address = props
        .text(tags::SENT_REPRESENTING_EMAIL_ADDRESS)
        .or_else(|| props.text(tags::SENDER_EMAIL_ADDRESS))
        .unwrap_or(&identity.address);
    let name = props
        .text(tags::SENT_REPRESENTING_NAME)
        .or_else(|| props.text(tags::SENDER_NAME))
        .unwrap_or_default();
    let domain = address.rsplit_once('@').map_or("localhost", |(_, domain)| domain);
    let domain = if domain.is_ascii() { domain } else { "localhost" };
    let made = format!("<{}@{domain}>", entry.to_string().to_ascii_lowercase());
    Defaults {
        from: Some(Mailbox::new(name, address)),
        date: props.time(tags::CLIENT_SUBMIT_TIME).unwrap_or(now),
        message_id: props.text(tags::INTERNET_MESSAGE_ID).map_or(made, str::to_owned),
    }
}

async fn survey(
    source: &Source<'_>,
    defaults: &Defaults,
    pace: &mut Pace<'_>,
) -> Result<Surveyance, ConvertError> {
    let (mut text, given) = source.open().await?;
    let mut normaliser = Normaliser::new(defaults.clone());
    let mut survey = Survey::new();
    let mut hasher = blake3::Hasher::new();
    let mut size = 0u64;
    let mut out = Vec::new();
    loop {
        let piece = text.next().await?;
        pace.step(piece.len()).await?;
        let last = TextReader::is_last(piece);
        out.clear();
        normaliser.push(piece, &mut out)?;
        let normalised = if last {
            let taken = std::mem::replace(&mut normaliser, Normaliser::new(defaults.clone()));
            Some(taken.finish(&mut out)?)
        } else {
            None
        };
        survey.push(&out);
        hasher.update(&out);
        size += out.len() as u64;
        if let Some(normalised) = normalised {
            let digest = *hasher.finalize().as_bytes();
            return Ok(Surveyance { normalised, surveyed: survey.finish(), digest, size, given });
        }
    }
}

/// Writes the normalised, and where needed re-encoded, text. Answers which octets the header has
/// after a re-encoding.
async fn write(
    source: &Source<'_>,
    defaults: &Defaults,
    mut recoder: Option<Recoder>,
    mut writer: Box<dyn BodyWriter>,
    pace: &mut Pace<'_>,
) -> Result<(StagedBody, Option<Octets>), ConvertError> {
    let (mut text, _) = source.open().await?;
    let mut normaliser = Some(Normaliser::new(defaults.clone()));
    let mut header = None;
    let (mut normal, mut out) = (Vec::new(), Vec::new());
    while let Some(mut filter) = normaliser.take() {
        let piece = text.next().await?;
        pace.step(piece.len()).await?;
        normal.clear();
        filter.push(piece, &mut normal)?;
        if TextReader::is_last(piece) {
            filter.finish(&mut normal)?;
        } else {
            normaliser = Some(filter);
        }
        match recoder.take() {
            None => writer.write(&normal).await?,
            Some(mut coder) => {
                out.clear();
                coder.push(&normal, &mut out);
                if normaliser.is_none() {
                    header = Some(coder.finish(&mut out));
                } else {
                    recoder = Some(coder);
                }
                writer.write(&out).await?;
            }
        }
    }
    Ok((writer.finish().await?, header))
}
