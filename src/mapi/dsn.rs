//! What a client may ask of delivery status notifications in the envelope (RFC 3461).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{PropList, Recipient, tags};

/// The parameters of RFC 3461 that came with an envelope. The default asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct DsnRequest {
    /// ENVID, decoded; `None` takes the entry id.
    pub envelope_id: Option<String>,
    /// RET.
    pub returned: Option<DsnReturned>,
    /// What was asked for the forward-paths, in their order.
    pub recipients: Vec<DsnRecipient>,
    /// NOTIFY for all behind the last of them, those of the header included; `None` leaves the
    /// choice to the servers.
    pub others: Option<DsnWish>,
}

/// How much of the message a report returns (RFC 3461 section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DsnReturned {
    /// The whole message.
    Full,
    /// Its headers.
    Headers,
}

/// What was asked for one forward-path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct DsnRecipient {
    /// NOTIFY; `None` leaves the choice to the servers.
    pub notify: Option<DsnWish>,
    /// ORCPT, decoded and without its type, which is always `rfc822`.
    pub original: Option<String>,
}

/// The keywords of NOTIFY; without any of them it is NEVER.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct DsnWish {
    /// Report success.
    pub success: bool,
    /// Report failure.
    pub failure: bool,
    /// Report delay.
    pub delay: bool,
}

impl DsnRequest {
    /// Sets the properties of the message that say what was asked for it as a whole.
    pub fn describe(&self, props: &mut PropList) {
        if let Some(envelope_id) = &self.envelope_id {
            props.set(tags::ENVELOPE_ID, envelope_id.as_str());
        }
        if let Some(returned) = self.returned {
            let word = match returned {
                DsnReturned::Full => "FULL",
                DsnReturned::Headers => "HDRS",
            };
            props.set(tags::ENVELOPE_RETURN, word);
        }
    }

    /// Sets the properties of the row of the forward-path with this number.
    pub fn describe_row(&self, number: usize, row: &mut Recipient) {
        let asked = self.recipients.get(number);
        let wish = asked.map_or(self.others, |asked| asked.notify);
        if let Some(wish) = wish {
            row.props.set(tags::ORIGINATOR_DELIVERY_REPORT_REQUESTED, wish.success);
            row.props.set(tags::ORIGINATOR_NON_DELIVERY_REPORT_REQUESTED, wish.failure);
            row.props.set(tags::DELAY_REPORT_REQUESTED, wish.delay);
        }
        if let Some(original) = asked.and_then(|asked| asked.original.as_ref()) {
            row.props.set(tags::ORIGINAL_RECIPIENT, original.as_str());
        }
    }
}
