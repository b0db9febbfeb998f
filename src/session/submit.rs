//! What a profile adds to a message that is submitted: its sender.

use super::RawEnvelope;
use crate::mapi::{MapiCode, MapiError, MapiResult, MessageData, tags};
use crate::mime::{AccountRule, AddressRules, Mailbox, Rewrite};
use crate::profile::{Profile, RewriteProfile, TransportProfile};
use crate::store::RawSubmission;

/// The message with a sender: its own, else the identity of the account the user chose, else of
/// the first that sends (OB-13, OB-20).
pub(super) fn with_sender(profile: &Profile, mut message: MessageData) -> MapiResult<MessageData> {
    let props = &mut message.props;
    if props.text(tags::SENDER_EMAIL_ADDRESS).is_none() {
        let represented = props.text(tags::SENT_REPRESENTING_EMAIL_ADDRESS).map(str::to_owned);
        let account = props.text(tags::PRIMARY_SEND_ACCOUNT);
        let sender = sender_of(profile, account, represented.as_deref())?;
        // Whoever writes under an address of his own account sends under it, too.
        let own = represented.filter(|address| has_address(sender, address));
        let address = own.as_deref().unwrap_or(&sender.identity.address);
        props.set(tags::SENDER_EMAIL_ADDRESS, address);
        if !sender.identity.name.is_empty() {
            props.set(tags::SENDER_NAME, sender.identity.name.as_str());
        }
    } else if props.text(tags::SENDER_NAME).is_none()
        && let Some(name) = name_of(profile, props.text(tags::SENDER_EMAIL_ADDRESS))
    {
        props.set(tags::SENDER_NAME, name);
    }
    Ok(message)
}

/// A raw submission with the sender that stands in where the message names none.
pub(super) fn raw(profile: &Profile, envelope: RawEnvelope) -> MapiResult<RawSubmission> {
    let identity = &sender_of(profile, None, None)?.identity;
    let rules = rules(profile);
    // A message that names nobody is from who its envelope names, when that is a whole address.
    let (address, name) = match envelope.from.as_deref().filter(|from| from.contains('@')) {
        Some(from) => (from, name_of(profile, Some(from)).unwrap_or_default()),
        None => (identity.address.as_str(), identity.name.as_str()),
    };
    let sender = Mailbox::new(envelope.sender_name.as_deref().unwrap_or(name), address);
    let account = rules.account([address]);
    let sender = account.and_then(|account| rules.replaced(&sender, account)).unwrap_or(sender);
    Ok(RawSubmission {
        default_sender: sender.address,
        default_sender_name: sender.name,
        rules,
        excluded: envelope.excluded,
        submitter: envelope.submitter,
        from: envelope.from,
        recipients: envelope.recipients,
        recipients_from_header: envelope.recipients_from_header,
        delivery_report: envelope.delivery_report,
        deferred_send_time: envelope.deferred_send_time,
        expiry_time: envelope.expiry_time,
        importance: envelope.importance,
        priority: envelope.priority,
        dsn: envelope.dsn,
    })
}

/// What becomes of addresses of this machine.
pub(crate) fn rules(profile: &Profile) -> AddressRules {
    let sends = |transport: &&TransportProfile| transport.smtp.is_some();
    let account = |transport: &TransportProfile| AccountRule {
        identity: Mailbox::new(&*transport.identity.name, &*transport.identity.address),
        aliases: transport.aliases.clone(),
        rewrite: match transport.rewrite {
            RewriteProfile::Local => Rewrite::Local,
            RewriteProfile::All => Rewrite::All,
            RewriteProfile::Never => Rewrite::Never,
        },
    };
    AddressRules {
        accounts: profile.transports.iter().filter(sends).map(account).collect(),
        host: crate::store::host_name(),
        aliases: profile.local.aliases.clone(),
        default: profile.local.default.clone(),
    }
}

/// The account the user chose, else the one of who is represented, else the first that sends.
fn sender_of<'a>(
    profile: &'a Profile,
    account: Option<&str>,
    represented: Option<&str>,
) -> MapiResult<&'a TransportProfile> {
    let mut senders = profile.transports.iter().filter(|transport| transport.smtp.is_some());
    let chosen = senders
        .clone()
        .find(|one| account.is_some_and(|account| account.eq_ignore_ascii_case(&one.name)));
    let represented = senders
        .clone()
        .find(|one| represented.is_some_and(|represented| has_address(one, represented)));
    chosen.or(represented).or_else(|| senders.next()).ok_or_else(|| {
        let words = format!("no transport of the profile {} sends mail", profile.name);
        MapiError::new(MapiCode::UNCONFIGURED, words)
    })
}

/// Whether an address is the identity of an account or one of its aliases.
fn has_address(transport: &TransportProfile, address: &str) -> bool {
    let own = std::iter::once(&transport.identity.address).chain(&transport.aliases);
    own.into_iter().any(|own| own.eq_ignore_ascii_case(address))
}

/// The name of the identity with this address.
fn name_of<'a>(profile: &'a Profile, address: Option<&str>) -> Option<&'a str> {
    let address = address?;
    profile
        .transports
        .iter()
        .map(|transport| &transport.identity)
        .find(|identity| identity.address.eq_ignore_ascii_case(address))
        .map(|identity| identity.name.as_str())
        .filter(|name| !name.is_empty())
}
