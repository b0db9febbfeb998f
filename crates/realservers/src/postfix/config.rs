//! The text of a Postfix' `main.cf` and `master.cf`.

use crate::certificates::Certificates;
use crate::postfix::PostfixOptions;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

/// All that the configuration depends on.
pub(super) struct Setup<'a> {
    pub(super) work: &'a Path,
    pub(super) token: &'a str,
    pub(super) domain: &'a str,
    pub(super) smtp: SocketAddr,
    pub(super) submission: SocketAddr,
    pub(super) submissions: SocketAddr,
    pub(super) lmtp: SocketAddr,
    pub(super) auth_socket: &'a Path,
    pub(super) certificates: &'a Certificates,
    pub(super) options: &'a PostfixOptions,
}

/// `main.cf`: mail for the domain goes to Dovecot, for every other domain it bounces here.
pub(super) fn main_cf(setup: &Setup<'_>) -> String {
    let work = setup.work.display();
    let (token, domain) = (setup.token, setup.domain);
    let chain = setup.certificates.chain_file().display();
    let key = setup.certificates.key_file().display();
    let auth = setup.auth_socket.display();
    let (lmtp_host, lmtp_port) = (setup.lmtp.ip(), setup.lmtp.port());
    let defaults = format!(
        "\
compatibility_level = 3.6
queue_directory = {work}/queue
data_directory = {work}/data
maillog_file = {work}/postfix.log
maillog_file_prefixes = {work}
myhostname = mail.{domain}
mydomain = {domain}
myorigin = {domain}
smtpd_banner = $myhostname ESMTP {token}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_peername_lookup = no
smtp_dns_support_level = disabled

mydestination =
alias_maps =
local_recipient_maps =
local_transport = error:5.1.1 there are no local users here
virtual_mailbox_domains = {domain}
virtual_mailbox_maps = texthash:{work}/mailboxes
virtual_transport = lmtp:inet:{lmtp_host}:{lmtp_port}
# Nothing leaves the machine. The error service would not do: smtpd knows it and refuses the recipient at
# once, but the tests want a report that comes later, too.
default_transport = nowhere
relay_transport = $default_transport
relay_domains =
mynetworks =

# Our clients are loopback clients; a client of a real submission server is not, and its headers are left
# as they are.
local_header_rewrite_clients =
smtpd_error_sleep_time = 0
smtpd_tls_chain_files = {key}, {chain}
smtpd_tls_security_level = may
smtpd_sasl_type = dovecot
smtpd_sasl_path = {auth}
smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination

# When Dovecot is away it is asked again soon.
queue_run_delay = 1s
minimal_backoff_time = 1s
maximal_backoff_time = 2s
transport_retry_time = 1s
"
    );
    with_options(&defaults, &setup.options.main)
}

/// The parameters with others in place of those of the same name. Each name stands once: Postfix
/// warns of a second one in every process, and so many warnings before its logger runs fill the
/// logger's socket, upon which all of it stands still.
fn with_options(defaults: &str, options: &[(String, String)]) -> String {
    let is_set = |line: &&str| {
        let name = line.split('=').next().unwrap_or_default().trim();
        !options.iter().any(|(option, _)| option == name)
    };
    let mut text = defaults.lines().filter(is_set).fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{line}");
        text
    });
    for (name, value) in options {
        let _ = writeln!(text, "{name} = {value}");
    }
    text
}

/// `master.cf`: three services for clients and what Postfix needs inside; nothing is chrooted.
pub(super) fn master_cf(setup: &Setup<'_>) -> String {
    let (smtp, submission, submissions) = (setup.smtp, setup.submission, setup.submissions);
    format!(
        "\
{smtp} inet n - n - - smtpd
{submission} inet n - n - - smtpd
  -o syslog_name=postfix/submission
  -o smtpd_tls_security_level=encrypt
  -o smtpd_tls_auth_only=yes
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject
{submissions} inet n - n - - smtpd
  -o syslog_name=postfix/submissions
  -o smtpd_tls_wrappermode=yes
  -o smtpd_tls_security_level=encrypt
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
showq unix n - n - - showq
error unix - - n - - error
nowhere unix - n n - - pipe
  user=nobody argv=/bin/sh -c {{echo 5.4.4 this test server relays nothing; exit 69}}
retry unix - - n - - error
discard unix - - n - - discard
lmtp unix - - n - - lmtp
# For measurements, whose options name a host to relay to.
smtp unix - - n - - smtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"
    )
}

/// The table of mailboxes: the addresses that RCPT accepts in the domain.
pub(super) fn mailboxes(addresses: &[String]) -> String {
    addresses.iter().fold(String::new(), |mut text, address| {
        let _ = writeln!(text, "{address} exists");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::with_options;

    #[test]
    fn an_option_takes_the_place_of_a_default() {
        let options = [("b".to_owned(), "new".to_owned()), ("d".to_owned(), "4".to_owned())];
        let text = with_options("a = 1\n# b = x\nb = old\nc =\n", &options);
        assert_eq!(text, "a = 1\n# b = x\nc =\nb = new\nd = 4\n");
    }
}
