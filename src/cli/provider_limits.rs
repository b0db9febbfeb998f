//! What the provider of a server is known to allow, written into a new profile.

use crate::discovery::{Limits, Provider, providers};
use crate::profile::{NewReceiving, NewServer, is_loopback};

/// What a transport does of itself, so that nothing has to be written: most recipients of a
/// transaction.
const USUAL_RECIPIENTS: u64 = 100;

/// The provider that runs a host, for hosts that a person or a file named.
pub(crate) fn provider_of(host: &str) -> Option<&'static Provider> {
    let runs = |provider: &&Provider| !is_loopback(host) && provider.runs(host);
    providers().iter().find(runs)
}

/// Fills in the limits that are not set.
pub(crate) fn fill_in(
    limits: Limits,
    smtp: Option<&mut NewServer>,
    imap: Option<&mut NewReceiving>,
) {
    if let Some(smtp) = smtp {
        smtp.connections = smtp.connections.or(limits.smtp_connections);
        smtp.messages_per_minute = smtp.messages_per_minute.or(limits.messages_per_minute);
        let recipients = limits.recipients_per_message.filter(|most| *most < USUAL_RECIPIENTS);
        smtp.recipients_per_message = smtp.recipients_per_message.or(recipients);
    }
    if let Some(imap) = imap {
        let server = &mut imap.server;
        server.connections = server.connections.or(limits.imap_connections);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::profile::ServerUrl;

    fn server(url: &str) -> NewServer {
        url.parse::<ServerUrl>().unwrap().into()
    }

    #[test]
    fn what_is_set_stays_and_the_rest_is_filled_in() {
        let limits = provider_of("smtp.office365.com").unwrap().limits;
        let mut smtp = server("smtp+starttls://smtp.office365.com");
        smtp.connections = Some(1);
        fill_in(limits, Some(&mut smtp), None);
        assert_eq!((smtp.connections, smtp.messages_per_minute), (Some(1), Some(28)));
        assert_eq!(smtp.recipients_per_message, None);

        let limits = provider_of("imap.gmail.com").unwrap().limits;
        let mut imap = NewReceiving::from(server("imaps://imap.gmail.com"));
        fill_in(limits, None, Some(&mut imap));
        assert_eq!(imap.server.connections, Some(5));
    }

    #[test]
    fn a_limit_above_what_is_done_anyway_is_not_written() {
        for (most, written) in [(99, Some(99)), (100, None), (500, None)] {
            let limits = Limits { recipients_per_message: Some(most), ..Limits::default() };
            let mut smtp = server("smtps://smtp.example.org");
            fill_in(limits, Some(&mut smtp), None);
            assert_eq!(smtp.recipients_per_message, written);
        }
    }

    #[test]
    fn hosts_of_nobody_have_no_limits() {
        assert!(provider_of("smtp.example.org").is_none() && provider_of("127.0.0.1").is_none());
    }
}
