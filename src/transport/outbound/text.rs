//! The text of a queued message, from the spool to the wire.

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

use super::body::TextReader;
use super::transaction::{TextError, TextForm, TextSource};
use crate::mime::{Accepts, Recoder, Survey};
use crate::spool::{BodyId, Spool, SpoolError};

/// The body of a message.
pub(super) struct StoredText {
    spool: Arc<dyn Spool>,
    body: BodyId,
}

/// What is left for a server without 8BITMIME. Headers were made fit when the message was taken.
const SEVEN_BIT: Accepts = Accepts { eight_bit_mime: false, smtputf8: true };

impl StoredText {
    pub(super) fn new(spool: Arc<dyn Spool>, body: BodyId) -> Self {
        StoredText { spool, body }
    }

    async fn stored(&self) -> Result<TextReader, TextError> {
        Ok(TextReader::new(self.spool.open_body(self.body).await?.reader))
    }

    /// Reads the body twice: to see which parts must change, and to change them.
    async fn recoded(&self) -> Result<Pin<Box<dyn AsyncRead + Send>>, TextError> {
        let mut survey = Survey::new();
        let mut first = self.stored().await?;
        loop {
            let piece = first.next().await?;
            survey.push(piece);
            if TextReader::is_last(piece) {
                break;
            }
        }
        let recoder = Recoder::new(&survey.finish(), SEVEN_BIT);
        let state = (self.stored().await?, Some(recoder));
        Ok(Box::pin(StreamReader::new(Box::pin(stream::try_unfold(state, recode_piece)))))
    }
}

type Recoding = (TextReader, Option<Recoder>);

async fn recode_piece(
    (mut text, recoder): Recoding,
) -> Result<Option<(Bytes, Recoding)>, std::io::Error> {
    let Some(mut recoder) = recoder else { return Ok(None) };
    let mut out = Vec::new();
    // A piece may come to nothing yet; an empty one would be taken for the end.
    while out.is_empty() {
        let piece = text.next().await?;
        recoder.push(piece, &mut out);
        if TextReader::is_last(piece) {
            recoder.finish(&mut out);
            return Ok(Some((Bytes::from(out), (text, None))));
        }
    }
    Ok(Some((Bytes::from(out), (text, Some(recoder)))))
}

#[async_trait]
impl TextSource for StoredText {
    async fn open(&self, form: TextForm) -> Result<Pin<Box<dyn AsyncRead + Send>>, TextError> {
        match form {
            TextForm::AsKept => Ok(self.spool.open_body(self.body).await?.reader),
            TextForm::SevenBit => self.recoded().await,
        }
    }
}

impl From<SpoolError> for TextError {
    fn from(error: SpoolError) -> Self {
        match error {
            SpoolError::Corrupt(why) => TextError::Damaged(why),
            other => TextError::Unreadable(other.to_string()),
        }
    }
}
