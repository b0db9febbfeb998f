//! What each kind of file becomes: accounts, and a remark for everything that has no counterpart.

use std::path::PathBuf;

use super::*;
use crate::profile::{AfterProfile, NewPassword};

/// What is worth comparing of an account, in one line for each server.
fn shown(account: &ImportedAccount) -> Vec<String> {
    let who = account.identity.as_ref().map(|who| format!("{} <{}>", who.name, who.address));
    let mut lines = vec![format!("{}: {}", account.name, who.unwrap_or_default())];
    let receiving = account.imap.as_ref().map(|imap| &imap.server);
    for server in account.smtp.iter().chain(receiving) {
        let password = match &server.password {
            None => String::new(),
            Some(NewPassword::Text(text)) => format!(" text {}", **text),
            Some(other) => format!(" {other:?}"),
        };
        lines.push(format!("{}{password}", server.url));
    }
    lines
}

fn accounts(kind: ImportKind, text: &str) -> Vec<Vec<String>> {
    import(kind, text).accounts.iter().map(shown).collect()
}

fn remarks(kind: ImportKind, text: &str) -> Vec<(usize, String)> {
    import(kind, text).remarks.into_iter().map(|one| (one.line, one.text)).collect()
}

fn has_remark(kind: ImportKind, text: &str, line: usize, part: &str) {
    let remarks = remarks(kind, text);
    let found = remarks.iter().any(|(at, text)| *at == line && text.contains(part));
    assert!(found, "no remark with {part:?} at line {line}: {remarks:#?}");
}

const MSMTPRC: &str = r#"# set for all accounts
defaults
auth           on
tls            on
tls_trust_file /etc/ssl/certs/ca-certificates.crt
logfile        ~/.msmtp.log

account        work
host           smtp.example.org
port           465
tls_starttls   off
from           ann@example.org
user           ann
passwordeval   "pass show mail/work"

account        side : work
from           ann@side.example
host           mail.side.example
port           587
tls_starttls   on
password       "hunter2 x"

account        lan
host           relay.lan
auth           off
tls            off
from           root@host.lan

account default : side
"#;

#[test]
fn msmtp_accounts_are_read() {
    assert_eq!(
        accounts(ImportKind::Msmtp, MSMTPRC),
        [
            vec![
                "work:  <ann@example.org>".to_owned(),
                "smtps://ann@smtp.example.org:465 Command(\"pass show mail/work\")".to_owned(),
            ],
            vec![
                "side:  <ann@side.example>".to_owned(),
                // Its own text comes before the command of the account it copies, as in msmtp.
                "smtp+starttls://ann@mail.side.example:587 text hunter2 x".to_owned(),
            ],
            vec!["lan:  <root@host.lan>".to_owned(), "smtp://relay.lan:25".to_owned()],
        ]
    );
    let imported = import(ImportKind::Msmtp, MSMTPRC);
    let first: Vec<bool> = imported.accounts.iter().map(|account| account.first).collect();
    assert_eq!(first, [false, true, false]);
    has_remark(ImportKind::Msmtp, MSMTPRC, 6, "logfile: not taken over");
    let logfile = imported.remarks.iter().filter(|one| one.text.contains("logfile")).count();
    assert_eq!(logfile, 1, "one line is told once");
}

#[test]
fn msmtp_corners() {
    let one = |text: &str| accounts(ImportKind::Msmtp, text);
    for (text, url) in [
        // Without tls_starttls: STARTTLS on the port of SMTP, as msmtp does it.
        ("account a\nhost h.example\ntls on\n", "smtp+starttls://h.example:25"),
        ("account a\nhost h.example\ntls on\ntls_starttls off\n", "smtps://h.example:465"),
        ("account a\nhost h.example\nuser u\n", "smtp://h.example:25"),
        (
            "account a\nhost localhost\nport 2525\nauth on\nuser u\npassword p\n",
            "smtp://u@localhost:2525 text p",
        ),
        // No password travels in clear.
        (
            "account a\nhost h.example\nauth on\nuser u\npassword p\n",
            "smtp+starttls://u@h.example:25 text p",
        ),
    ] {
        assert_eq!(one(text)[0][1], url, "{text}");
    }
    let clear = "account a\nhost h.example\nauth on\nuser u\npassword p\n";
    has_remark(ImportKind::Msmtp, clear, 1, "STARTTLS is used");
    has_remark(ImportKind::Msmtp, "account a\nhost h.example\nuser u\n", 3, "nobody logs in");
    has_remark(ImportKind::Msmtp, "account a\nfrom x@y.z\n", 1, "names no host");
    has_remark(ImportKind::Msmtp, "account a : b\nhost h.example\n", 1, "there is no account b");
    has_remark(ImportKind::Msmtp, "host h.example\n", 1, "before any account");
    has_remark(ImportKind::Msmtp, "account a\nhost h.example\nfrom *@x.y\n", 3, "no address alone");
    has_remark(
        ImportKind::Msmtp,
        "account a\nhost h.example\nauth scram-sha-256\nuser u\n",
        3,
        "the best that is offered",
    );
    let digest = ["AB"; 32].join(":");
    let text = format!("account a\nhost h.example\ntls on\ntls_fingerprint {digest}\n");
    let server = import(ImportKind::Msmtp, &text).accounts[0].smtp.clone().unwrap();
    assert_eq!(server.fingerprint, Some(format!("sha256:{}", "ab".repeat(32))));
    has_remark(
        ImportKind::Msmtp,
        "account a\nhost h.example\ntls on\ntls_fingerprint 00:11\n",
        4,
        "SHA-256",
    );
}

const MBSYNCRC: &str = r#"SyncState *

IMAPAccount work
Host imap.example.org
User ann@example.org
PassCmd "+pass show mail/work"
TLSType IMAPS
PipelineDepth 10

IMAPStore work-remote
Account work

MaildirStore work-local
Path ~/Mail/
Inbox ~/Mail/INBOX
SubFolders Verbatim

Channel work
Far :work-remote:
Near :work-local:
Patterns INBOX "Sent Items" Lists/* !Trash
Sync All
Create Near

IMAPAccount home
Host mail.home.example
Port 1143
User bob
Pass hunter2

IMAPStore home
Account home

Channel home-inbox
Master :home:
Slave :work-local:
Sync Pull

Channel home-archive
Master :home:Archive
Slave :work-local:archive
"#;

#[test]
fn mbsync_accounts_are_read() {
    assert_eq!(
        accounts(ImportKind::Mbsync, MBSYNCRC),
        [
            vec![
                "work:  <ann@example.org>".to_owned(),
                "imaps://ann@example.org@imap.example.org Command(\"pass show mail/work\")"
                    .to_owned(),
            ],
            vec![
                "home:  <bob@home.example>".to_owned(),
                "imap+starttls://bob@mail.home.example:1143 text hunter2".to_owned(),
            ],
        ]
    );
    let imported = import(ImportKind::Mbsync, MBSYNCRC);
    let mailboxes = |at: usize| imported.accounts[at].imap.clone().unwrap().mailboxes;
    assert_eq!(mailboxes(0), ["INBOX", "Sent Items"]);
    assert_eq!(mailboxes(1), ["INBOX", "Archive"]);
    for (line, part) in [
        (1, "SyncState"),
        (8, "pipelinedepth"),
        (13, "stays with mbsync"),
        (21, "Lists/*"),
        (21, "!Trash"),
        (22, "only brought in"),
        (23, "create"),
        (25, "taken is bob@home.example"),
    ] {
        has_remark(ImportKind::Mbsync, MBSYNCRC, line, part);
    }
    let text = "IMAPStore s\nHost imaps:old.example.org\nUser u\nPass p\n";
    assert_eq!(accounts(ImportKind::Mbsync, text)[0][1], "imaps://u@old.example.org text p");
    let text = "IMAPAccount s\nHost h.example\nUser u\nPass p\nSSLType None\n";
    assert_eq!(accounts(ImportKind::Mbsync, text)[0][1], "imap+starttls://u@h.example:143 text p");
    has_remark(ImportKind::Mbsync, "IMAPAccount t\nTunnel \"ssh x\"\n", 1, "a tunnel");
}

const FETCHMAILRC: &str = r#"# poll every five minutes
set daemon 300
set postmaster "ann"
defaults proto imap ssl

poll imap.example.org
    user 'ann' there with password "hunter2 # x" is 'annie' here
    keep folder INBOX, "Lists/rust"
    and mda "/usr/bin/procmail -d %T"
  user "bob@example.org" pass secret2 nokeep ssl

poll pop.example.net protocol pop3 user x password y
skip old.example.net proto imap user x password y
poll plain.example.net no ssl with proto imap port 143, user carl, password z, keep
"#;

#[test]
fn fetchmail_accounts_are_read() {
    let imported = import(ImportKind::Fetchmail, FETCHMAILRC);
    let shown: Vec<Vec<String>> = imported.accounts.iter().map(shown).collect();
    assert_eq!(
        shown[0],
        [
            "ann@imap.example.org:  <ann@example.org>",
            "imaps://ann@imap.example.org text hunter2 # x",
        ]
    );
    assert_eq!(
        shown[1],
        [
            "bob@example.org:  <bob@example.org>",
            "imaps://bob@example.org@imap.example.org text secret2",
        ]
    );
    let imap = |at: usize| imported.accounts[at].imap.clone().unwrap();
    assert_eq!(imap(0).mailboxes, ["INBOX", "Lists/rust"]);
    assert_eq!((imap(0).after, imap(1).after), (AfterProfile::Keep, AfterProfile::Delete));
    assert_eq!(imap(0).poll_interval.as_deref(), Some("300s"));
    assert_eq!(shown[2][1], "imap+starttls://carl@plain.example.net:143 text z");
    assert_eq!(shown.len(), 3);
    for (line, part) in [
        (3, "set postmaster"),
        (7, "is annie"),
        (9, "mda"),
        (10, "deletes what it has fetched"),
        (12, "fetched by pop3"),
        (13, "skip old.example.net"),
    ] {
        has_remark(ImportKind::Fetchmail, FETCHMAILRC, line, part);
    }
    let plain = "poll mail.example.net proto imap user carl password z keep\n";
    assert_eq!(
        accounts(ImportKind::Fetchmail, plain)[0][1],
        "imap+starttls://carl@mail.example.net text z"
    );
}

const GETMAILRC: &str = r#"[retriever]
type = SimpleIMAPSSLRetriever
server = imap.example.org
username = ann
password_command = ("pass", "show mail", "it's")
mailboxes = ("INBOX", "Lists/rust")
timeout = 60

[destination]
type = Maildir
path = ~/Maildir/

[options]
delete = true
read_all = false
delete_after = 7
max_message_size = 1000
"#;

#[test]
fn getmail_accounts_are_read() {
    assert_eq!(
        accounts(ImportKind::Getmail, GETMAILRC),
        [vec![
            "ann:  <ann@example.org>".to_owned(),
            "imaps://ann@imap.example.org Command(\"pass 'show mail' 'it'\\\\''s'\")".to_owned(),
        ]]
    );
    let imap = import(ImportKind::Getmail, GETMAILRC).accounts[0].imap.clone().unwrap();
    assert_eq!(imap.mailboxes, ["INBOX", "Lists/rust"]);
    assert_eq!(imap.after, AfterProfile::Delete);
    for (line, part) in [
        (7, "timeout"),
        (9, "~/Maildir/ stays with getmail"),
        (16, "delete_after"),
        (17, "max_message_size"),
    ] {
        has_remark(ImportKind::Getmail, GETMAILRC, line, part);
    }
    let plain = "[retriever]\ntype = SimpleIMAPRetriever\nserver = h.example\nusername = u\npassword = p w\n";
    assert_eq!(
        accounts(ImportKind::Getmail, plain)[0][1],
        "imap+starttls://u@h.example:143 text p w"
    );
    has_remark(ImportKind::Getmail, "[retriever]\ntype = SimplePOP3Retriever\n", 2, "only IMAP");
    has_remark(ImportKind::Getmail, "x", 1, "no [retriever]");
}

const PRF: &str = "; an example\r\n[General]\r\nProfileName=Work\r\nDefaultAccount=Account2\r\n\
[Service List]\r\nService1=Outlook Address Book\r\n[Internet Account List]\r\n\
Account1=I_Mail\r\nAccount2=IMAP_I_Mail\r\nAccount3=INET_HTTP\r\nAccount4=IMAP_I_Mail\r\n\
[Account1]\r\nAccountName=Old\r\nPOP3Server=pop.example.org\r\nPOP3UserName=ann\r\n\
SMTPServer=smtp.example.org\r\nSMTPUseAuth=1\r\nSMTPPort=587\r\nSMTPSecureConnection=2\r\n\
EmailAddress=ann@example.org\r\nDisplayName=Ann Example\r\n\
[Account2]\r\nAccountName=New\r\nIMAPServer=imap.example.org\r\nIMAPUserName=ann\r\n\
IMAPPort=0x3E1\r\nIMAPUseSSL=1\r\nSMTPServer=smtp.example.org\r\nSMTPUseAuth=1\r\nSMTPPort=465\r\n\
SMTPUseSSL=1\r\nEmailAddress=ann@example.net\r\nDisplayName=Ann\r\nOrganization=Example\r\n\
[Account3]\r\nAccountName=Web\r\n";

#[test]
fn prf_accounts_are_read() {
    assert_eq!(
        accounts(ImportKind::Prf, PRF),
        [
            vec![
                "Old: Ann Example <ann@example.org>".to_owned(),
                "smtp+starttls://ann@smtp.example.org:587".to_owned(),
            ],
            vec![
                "New: Ann <ann@example.net>".to_owned(),
                "smtps://ann@smtp.example.org:465".to_owned(),
                "imaps://ann@imap.example.org:993".to_owned(),
            ],
        ]
    );
    let imported = import(ImportKind::Prf, PRF);
    assert!(imported.accounts.iter().all(ImportedAccount::lacks_password));
    assert_eq!(imported.accounts.iter().map(|one| one.first).collect::<Vec<_>>(), [false, true]);
    for (line, part) in [
        (5, "services of MAPI"),
        (11, "no section"),
        (12, "POP3"),
        (34, "organization"),
        (35, "inet_http"),
    ] {
        has_remark(ImportKind::Prf, PRF, line, part);
    }
}

#[test]
fn kinds_are_recognised() {
    for (file, text, kind) in [
        ("/home/ann/.msmtprc", "", Some(ImportKind::Msmtp)),
        ("/home/ann/.config/msmtp/config", "", Some(ImportKind::Msmtp)),
        ("/home/ann/.config/isyncrc", "", Some(ImportKind::Mbsync)),
        ("outlook.PRF", "", Some(ImportKind::Prf)),
        ("x", MSMTPRC, Some(ImportKind::Msmtp)),
        ("x", MBSYNCRC, Some(ImportKind::Mbsync)),
        ("x", FETCHMAILRC, Some(ImportKind::Fetchmail)),
        ("x", GETMAILRC, Some(ImportKind::Getmail)),
        ("x", PRF, Some(ImportKind::Prf)),
        ("x", "hello world", None),
    ] {
        assert_eq!(ImportKind::guess(&PathBuf::from(file), text), kind, "{file}");
    }
}

#[test]
fn no_remark_repeats_a_password() {
    for (kind, text) in [
        (
            ImportKind::Msmtp,
            "account a\nhost h.example\nauth on\nuser u\npassword hunter2\nhunter2x\n",
        ),
        (
            ImportKind::Fetchmail,
            "poll h.example proto imap user u password \"x\" hunter2 y\nhunter2\n",
        ),
        (ImportKind::Fetchmail, "hunter2 hunter2"),
        (ImportKind::Mbsync, "IMAPAccount a\nHost h.example\nUser u\nPass hunter2\n"),
        (
            ImportKind::Getmail,
            "[retriever]\ntype = SimpleIMAPRetriever\nserver = h.example\nusername = u\npassword = hunter2\n",
        ),
    ] {
        let imported = import(kind, text);
        let told = format!("{:?}{:?}", imported.remarks, imported.accounts);
        let told = told.replace("hunter2x", "");
        assert!(!told.contains("hunter2"), "{kind:?}: {told}");
    }
}

#[test]
fn halves_of_one_account_are_joined() {
    let msmtp = import(ImportKind::Msmtp, MSMTPRC).accounts;
    let mbsync = import(ImportKind::Mbsync, MBSYNCRC).accounts;
    let joined = merge(msmtp.into_iter().chain(mbsync).collect());
    let names: Vec<&str> = joined.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["side", "work", "lan", "home"], "the default account comes first");
    assert!(joined[1].smtp.is_some() && joined[1].imap.is_some());
}

#[test]
fn nonsense_does_no_harm() {
    let kinds = [
        ImportKind::Msmtp,
        ImportKind::Mbsync,
        ImportKind::Fetchmail,
        ImportKind::Getmail,
        ImportKind::Prf,
    ];
    let texts = [
        "",
        "\0",
        "account",
        "poll",
        "poll \"",
        "IMAPAccount",
        "Channel x\nFar :",
        "[",
        "[]=",
        "[internet account list]\na",
        "set",
        "poll h user",
        "folder",
        "account default :",
        "account : a\n",
    ];
    for kind in kinds {
        for text in texts {
            let _read = import(kind, text);
        }
    }
}
