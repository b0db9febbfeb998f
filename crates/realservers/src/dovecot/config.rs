//! The text of a Dovecot 2.3 configuration and of its password file.

use crate::certificates::Certificates;
use crate::workdir::{Account, group};
use crate::{Error, dovecot::DovecotOptions};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write as _;
use std::path::Path;

/// All that the configuration text depends on.
pub(super) struct Setup<'a> {
    pub(super) work: &'a Path,
    pub(super) token: &'a str,
    pub(super) imap_port: u16,
    pub(super) imaps_port: u16,
    pub(super) lmtp_port: u16,
    pub(super) accounts: &'a Accounts,
    pub(super) certificates: &'a Certificates,
    pub(super) options: &'a DovecotOptions,
}

/// Under which system accounts Dovecot's processes run.
#[derive(Clone, Debug)]
pub(super) enum Accounts {
    /// Started by root: Dovecot's own accounts for its services, this one for the mail. Dovecot refuses
    /// to touch mail as root.
    Packaged {
        /// The owner of all mail.
        mail: Account,
    },
    /// Started by an ordinary user, who then does everything.
    Single {
        /// That user.
        me: Account,
        /// The name of the user's group.
        group: String,
    },
}

impl Accounts {
    /// Finds out who runs this process.
    ///
    /// # Errors
    /// [`Error::Usage`] when the system's tables lack an account.
    pub(super) fn detect() -> Result<Self, Error> {
        let unknown =
            |what: &str| Error::Usage(format!("{what} is not in /etc/passwd, /etc/group"));
        if crate::workdir::is_root() {
            let mail = Account::by_name("mail").ok_or_else(|| unknown("the user `mail`"))?;
            return Ok(Self::Packaged { mail });
        }
        let me = Account::mine().ok_or_else(|| unknown("the user who runs this"))?;
        let (group, _) =
            group(|_, gid| gid == me.gid).ok_or_else(|| unknown("this user's group"))?;
        Ok(Self::Single { me, group })
    }

    /// Who owns the mail.
    pub(super) fn mail(&self) -> &Account {
        match self {
            Self::Packaged { mail } => mail,
            Self::Single { me, .. } => me,
        }
    }
}

/// The configuration file.
pub(super) fn dovecot_conf(setup: &Setup<'_>) -> String {
    let mut text = general(setup);
    text.push_str(&listeners(setup));
    if setup.options.introspection_url.is_some() {
        text.push_str(&tokens(setup.work));
    }
    text.push_str(&accounts(setup.accounts));
    text.push_str(&mailboxes(setup.options));
    text.push_str(&setup.options.extra_config);
    text.push('\n');
    text
}

fn general(setup: &Setup<'_>) -> String {
    let work = setup.work.display();
    let token = setup.token;
    let chain = setup.certificates.chain_file().display();
    let key = setup.certificates.key_file().display();
    let mail = setup.accounts.mail();
    let (uid, gid) = (mail.uid, mail.gid);
    format!(
        "\
protocols = imap lmtp
listen = 127.0.0.1
instance_name = {token}
base_dir = {work}/run
state_dir = {work}/state
log_path = {work}/dovecot.log
login_greeting = {token} ready
shutdown_clients = yes
ssl = yes
ssl_cert = <{chain}
ssl_key = <{key}
auth_mechanisms = plain login
auth_username_format = %Ln
auth_verbose = yes
# No waiting after a wrong password: the tests ask for it on purpose.
auth_failure_delay = 0
mail_max_userip_connections = 1000
mail_location = maildir:~/Maildir
first_valid_uid = 1
first_valid_gid = 0
passdb {{
  driver = passwd-file
  args = {work}/users
}}
userdb {{
  driver = passwd-file
  args = {work}/users
  default_fields = uid={uid} gid={gid} home={work}/mail/%n
}}
"
    )
}

fn listeners(setup: &Setup<'_>) -> String {
    let (imap, imaps, lmtp) = (setup.imap_port, setup.imaps_port, setup.lmtp_port);
    format!(
        "\
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
    ssl = yes
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    port = {lmtp}
  }}
}}
service auth {{
  unix_listener auth-submission {{
    mode = 0666
  }}
}}
service anvil {{
  # Or a wrong password slows down the next logins from the same address.
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  unix_listener stats-writer {{
    mode = 0666
  }}
}}
"
    )
}

/// Logins by token, told apart by the mechanism.
fn tokens(work: &Path) -> String {
    let work = work.display();
    format!(
        "\
auth_mechanisms = plain login oauthbearer xoauth2
passdb {{
  driver = oauth2
  mechanisms = oauthbearer xoauth2
  args = {work}/oauth2.conf
}}
"
    )
}

/// `oauth2.conf`: each token is shown to the authorization server.
pub(super) fn oauth2_conf(introspection_url: &str) -> String {
    format!(
        "\
introspection_mode = post
introspection_url = {introspection_url}
username_attribute = username
username_format = %Ln
active_attribute = active
active_value = true
"
    )
}

fn accounts(accounts: &Accounts) -> String {
    match accounts {
        Accounts::Packaged { .. } => String::new(),
        // Only root can change users and roots of processes.
        Accounts::Single { me, group } => {
            let name = &me.name;
            let mut text = format!(
                "\
default_internal_user = {name}
default_login_user = {name}
default_internal_group = {group}
"
            );
            for service in ["anvil", "imap-login", "lmtp", "stats", "imap-urlauth-login"] {
                let _ = writeln!(text, "service {service} {{\n  chroot =\n}}");
            }
            text
        }
    }
}

fn mailboxes(options: &DovecotOptions) -> String {
    let mut text = String::from("namespace inbox {\n  inbox = yes\n");
    for mailbox in &options.mailboxes {
        let _ = writeln!(text, "  mailbox \"{}\" {{\n    auto = create", mailbox.name);
        if let Some(special_use) = &mailbox.special_use {
            let _ = writeln!(text, "    special_use = {special_use}");
        }
        text.push_str("  }\n");
    }
    text.push_str("}\n");
    text
}

/// The password file.
///
/// Dovecot reads it again when its modification second or its size is another one, so `revision` also
/// makes it longer each time: two changes within a second are two sizes.
pub(super) fn passwd_file<'a>(
    users: impl Iterator<Item = (&'a str, &'a str)>,
    revision: usize,
) -> String {
    let mut text = String::new();
    for (name, password) in users {
        // Encoded, because a colon or a non-ASCII letter would end the field or be misread.
        let password = STANDARD.encode(password);
        let _ = writeln!(text, "{name}:{{PLAIN.b64}}{password}::::::");
    }
    let _ = writeln!(text, "#{}", "+".repeat(revision));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_revision_of_the_password_file_has_another_size() {
        let write = |password, revision| passwd_file([("ann", password)].into_iter(), revision);
        assert_ne!(write("aaa", 1).len(), write("bbb", 2).len());
        assert!(write("a:b", 1).starts_with("ann:{PLAIN.b64}YTpi:"));
    }
}
