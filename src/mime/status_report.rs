//! Reading delivery status notifications that come in (RFC 3464, RFC 6522, RFC 6533) while their
//! octets stream by. What they say is the word of strangers: everything is bounded, nothing is
//! believed.

mod fields;

use mail_parser::parsers::MessageStream;

use super::header::fields as header_fields;
use super::walk::{End, Entity, Kind, Piece, Transfer, Visitor, Walker};
use crate::mapi::ReportOutcome;

/// Octets of a message that are looked at; what says more first is no report we can read.
const MAX_LOOKED: usize = 1024 * 1024;

/// Octets of the part with the fields, and of the returned header, that are kept.
const MAX_PART: usize = 64 * 1024;

/// Most recipients that are kept.
const MAX_RECIPIENTS: usize = 50;

/// Most Message-IDs of `In-Reply-To` and `References` that are kept.
const MAX_REFERENCES: usize = 20;

/// What a notification says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusReport {
    /// `Original-Envelope-Id`; empty for none.
    pub envelope_id: String,
    /// `Reporting-MTA` with its type.
    pub reporting_mta: String,
    /// `Message-ID` of the returned message or header, with its angle brackets; empty for none.
    pub original_message_id: String,
    /// The Message-IDs of `In-Reply-To`, then those of `References` from the last; at most 20.
    pub references: Vec<String>,
    /// What it says of whom; at most 50, at least one.
    pub recipients: Vec<StatusOfRecipient>,
    /// Recipients above that number.
    pub more: u32,
}

/// What a notification says of one recipient (RFC 3464 section 2.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusOfRecipient {
    /// `Original-Recipient` without its type; empty for none.
    pub original: String,
    /// `Final-Recipient` without its type.
    pub final_recipient: String,
    /// `Action`.
    pub action: StatusAction,
    /// `Status`; empty for none.
    pub status: String,
    /// `Diagnostic-Code` with its type; empty for none.
    pub diagnostic: String,
    /// `Remote-MTA` with its type; empty for none.
    pub remote_mta: String,
}

/// `Action` (RFC 3464 section 2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StatusAction {
    /// It could not be delivered.
    Failed,
    /// It has not been delivered yet.
    Delayed,
    /// It was delivered.
    Delivered,
    /// It was handed to a system that makes no reports.
    Relayed,
    /// It was delivered to several others.
    Expanded,
}

impl StatusAction {
    /// Its name in the field.
    pub fn name(self) -> &'static str {
        match self {
            StatusAction::Failed => "failed",
            StatusAction::Delayed => "delayed",
            StatusAction::Delivered => "delivered",
            StatusAction::Relayed => "relayed",
            StatusAction::Expanded => "expanded",
        }
    }
}

impl StatusReport {
    /// What it says on the whole: the worst that is final, else a delay.
    pub fn outcome(&self) -> ReportOutcome {
        let says = |actions: &[StatusAction]| {
            self.recipients.iter().any(|recipient| actions.contains(&recipient.action))
        };
        if says(&[StatusAction::Failed]) {
            ReportOutcome::Failed
        } else if says(&[StatusAction::Delayed])
            && !says(&[StatusAction::Delivered, StatusAction::Relayed, StatusAction::Expanded])
        {
            ReportOutcome::Delayed
        } else {
            ReportOutcome::Delivered
        }
    }

    /// `PR_MESSAGE_CLASS` of the notification (IB-8).
    pub fn message_class(&self) -> String {
        self.outcome().message_class("IPM.Note")
    }
}

/// Reads a notification in pieces of any size, in bounded memory.
pub struct StatusReportReader {
    /// `None` once enough was seen.
    walker: Option<Walker<Finder>>,
    found: Finder,
    looked: usize,
}

impl StatusReportReader {
    /// A reader for the message that begins with these octets, if its header block says that it is
    /// a notification; it is to be given the message from its start.
    pub fn for_header(block: &[u8]) -> Option<Self> {
        announces_report(super::header::split_header(block)).then(|| StatusReportReader {
            walker: Some(Walker::new(Finder::default())),
            found: Finder::default(),
            looked: 0,
        })
    }

    /// Takes more octets.
    pub fn push(&mut self, bytes: &[u8]) {
        let room = MAX_LOOKED.saturating_sub(self.looked);
        let bytes = bytes.get(..room).unwrap_or(bytes);
        self.looked += bytes.len();
        if let Some(walker) = &mut self.walker {
            walker.push(bytes);
            if walker.visitor.is_done() || self.looked >= MAX_LOOKED {
                self.settle();
            }
        }
    }

    /// What it says; `None` when it is no notification after all.
    pub fn finish(mut self) -> Option<StatusReport> {
        self.settle();
        self.found.report()
    }

    fn settle(&mut self) {
        if let Some(walker) = self.walker.take() {
            self.found = walker.finish();
        }
    }
}

/// Whether a header block is that of a multipart/report about delivery. A missing `report-type`
/// is forgiven: the parts will show.
pub(crate) fn announces_report(block: &[u8]) -> bool {
    let Some(field) = header_fields(block).find(|field| field.is("content-type")) else {
        return false;
    };
    let text = field.text();
    if !text.get(..16).is_some_and(|start| start.eq_ignore_ascii_case("multipart/report")) {
        return false;
    }
    let line = format!("{text}\n");
    let mail_parser::HeaderValue::ContentType(value) =
        MessageStream::new(line.as_bytes()).parse_content_type()
    else {
        return false;
    };
    value.subtype().is_some_and(|sub| sub.eq_ignore_ascii_case("report"))
        && value
            .attribute("report-type")
            .is_none_or(|kind| kind.eq_ignore_ascii_case("delivery-status"))
}

/// A part of which the octets are kept.
struct Kept {
    number: usize,
    transfer: Transfer,
    octets: Vec<u8>,
}

/// Finds the parts of a notification: they stand right below the report.
#[derive(Default)]
struct Finder {
    references: Vec<String>,
    status: Option<Kept>,
    /// The returned header, when it stands in a part of its own.
    headers: Option<Kept>,
    /// The entity that is the returned message.
    returned: Option<usize>,
    original_message_id: Option<String>,
    /// Whether the part with the fields came to its end.
    status_ended: bool,
}

impl Finder {
    fn is_done(&self) -> bool {
        self.status_ended && self.original_message_id.is_some()
    }

    fn part(&mut self, entity: Entity, kind: &Kind, block: &[u8]) {
        let keep = |transfer| Some(Kept { number: entity.number, transfer, octets: Vec::new() });
        match (kind, media_type(block).as_str()) {
            (
                Kind::Leaf { transfer, .. },
                "message/delivery-status" | "message/global-delivery-status",
            ) if self.status.is_none() => self.status = keep(*transfer),
            (
                Kind::Leaf { transfer, .. },
                "text/rfc822-headers"
                | "message/global-headers"
                | "message/rfc822"
                | "message/global",
            ) if self.headers.is_none() && self.returned.is_none() => {
                self.headers = keep(*transfer);
            }
            (Kind::Message, _) if self.headers.is_none() && self.returned.is_none() => {
                self.returned = Some(entity.number);
            }
            _ => {}
        }
    }

    fn report(self) -> Option<StatusReport> {
        let status = self.status?;
        let mut report = fields::parse(&decoded(&status), MAX_RECIPIENTS)?;
        let from_headers = || self.headers.map(|kept| message_id_of(&decoded(&kept)));
        report.original_message_id =
            self.original_message_id.or_else(from_headers).unwrap_or_default();
        report.references = self.references;
        Some(report)
    }
}

impl Visitor for Finder {
    fn header(&mut self, entity: Entity, kind: &Kind, block: &[u8], _blank: &[u8]) {
        match entity.parent {
            None => self.references = references_of(block),
            Some(0) => self.part(entity, kind, block),
            Some(parent) if self.returned == Some(parent) && entity.message => {
                self.original_message_id.get_or_insert_with(|| message_id_of(block));
            }
            Some(_) => {}
        }
    }

    fn body(&mut self, entity: Entity, piece: Piece<'_>) {
        for kept in [&mut self.status, &mut self.headers].into_iter().flatten() {
            if kept.number == entity.number {
                let room = MAX_PART.saturating_sub(kept.octets.len());
                let octets = piece.text.iter().chain(piece.end).take(room);
                kept.octets.extend(octets);
            }
        }
    }

    fn body_end(&mut self, entity: Entity, _end: End) {
        self.status_ended |= self.status.as_ref().is_some_and(|kept| kept.number == entity.number);
    }

    fn boundary(&mut self, _line: &[u8]) {}

    fn between(&mut self, _piece: Piece<'_>) {}
}

/// Type and subtype of a part, in lower case.
fn media_type(block: &[u8]) -> String {
    let field = header_fields(block).find(|field| field.is("content-type"));
    let text = field.map(|field| field.text()).unwrap_or_default();
    let name = text.split([';', ' ', '\t', '(']).next().unwrap_or_default();
    name.trim().to_ascii_lowercase()
}

fn message_id_of(block: &[u8]) -> String {
    let block = super::header::split_header(block);
    let field = header_fields(block).find(|field| field.is("message-id"));
    field.and_then(|field| message_ids(&field.text()).next()).unwrap_or_default()
}

fn references_of(block: &[u8]) -> Vec<String> {
    let of = |name: &str| {
        let field = header_fields(block).find(|field| field.is(name));
        field.map(|field| field.text()).unwrap_or_default()
    };
    let mut references: Vec<String> =
        message_ids(&of("in-reply-to")).take(MAX_REFERENCES).collect();
    let older: Vec<String> = message_ids(&of("references")).collect();
    for id in older.into_iter().rev() {
        if references.len() < MAX_REFERENCES && !references.contains(&id) {
            references.push(id);
        }
    }
    references
}

/// The Message-IDs in a text, with their angle brackets.
fn message_ids(text: &str) -> impl Iterator<Item = String> {
    /// The longest that is taken: the longest line there can be.
    const LONGEST: usize = 998;
    text.split('<').skip(1).filter_map(|rest| {
        let (id, _) = rest.split_once('>')?;
        let fits = !id.is_empty() && id.len() <= LONGEST && !id.contains(char::is_whitespace);
        fits.then(|| format!("<{id}>"))
    })
}

/// The octets of a part without their encoding.
fn decoded(kept: &Kept) -> Vec<u8> {
    match kept.transfer {
        Transfer::Identity => kept.octets.clone(),
        Transfer::Base64 => fields::from_base64(&kept.octets),
        Transfer::QuotedPrintable => fields::from_quoted_printable(&kept.octets),
    }
}

#[cfg(test)]
mod tests;
