//! `postoffice`: an SMTP and IMAP server on loopback for trying out mail programs.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use postoffice::{AuthPolicy, Builder, Flaw, Limits, Listener, PostOffice, UnknownRecipients};
use tokio::signal::unix::{SignalKind, signal};

/// An SMTP and IMAP server on loopback whose mailboxes are shared: what is sent to it can be fetched from it.
///
/// Nothing is kept on disk but the authority's certificate. Addresses with names such as `550-5.1.1@`,
/// `dot-drop@` or `rcpt-hang@` cause the fault they name.
#[derive(Debug, Parser)]
#[command(name = "postoffice", version)]
struct Arguments {
    /// A user and password; may be given several times. Default: ann:secret
    #[arg(long = "user", value_name = "NAME:PASSWORD", value_parser = pair)]
    users: Vec<(String, String)>,

    /// A bearer token of a user, for XOAUTH2 and OAUTHBEARER
    #[arg(long = "token", value_name = "NAME:TOKEN", value_parser = pair)]
    tokens: Vec<(String, String)>,

    /// Mail for an address or a domain goes to this user's INBOX
    #[arg(long = "route", value_name = "ADDRESS:USER", value_parser = pair)]
    routes: Vec<(String, String)>,

    /// Mail for everyone else goes to this user's INBOX
    #[arg(long, value_name = "USER")]
    catch_all: Option<String>,

    /// Refuse recipients that belong to no user
    #[arg(long)]
    reject_unknown: bool,

    /// Address to listen at
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), value_name = "ADDRESS")]
    bind: IpAddr,

    /// Port of SMTP with STARTTLS; 0 takes a free one
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    smtp: u16,

    /// Port of SMTP within TLS; 0 takes a free one
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    smtps: u16,

    /// Port of IMAP with STARTTLS; 0 takes a free one
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    imap: u16,

    /// Port of IMAP within TLS; 0 takes a free one
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    imaps: u16,

    /// Refuse mail from clients that have not logged in
    #[arg(long)]
    require_auth: bool,

    /// Take names such as `550-5.1.1@` for ordinary ones
    #[arg(long)]
    no_named_faults: bool,

    /// What is wrong with the certificate: none, wrong-name, expired, not-yet-valid or unknown-issuer
    #[arg(long, default_value = "none", value_parser = flaw, value_name = "FLAW")]
    certificate: Flaw,

    /// Where to write the authority's certificate. Default: a file in the folder for temporary files
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// Print what is said on all connections when the server ends
    #[arg(long)]
    transcript: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once(':')
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "expected two parts with a colon between".to_owned())
}

fn flaw(text: &str) -> Result<Flaw, String> {
    match text {
        "none" => Ok(Flaw::None),
        "wrong-name" => Ok(Flaw::WrongName),
        "expired" => Ok(Flaw::Expired),
        "not-yet-valid" => Ok(Flaw::NotYetValid),
        "unknown-issuer" => Ok(Flaw::UnknownIssuer),
        _ => Err("none, wrong-name, expired, not-yet-valid or unknown-issuer".to_owned()),
    }
}

impl Arguments {
    fn builder(&self) -> Builder {
        // Records of a server that runs for days have to stay small.
        let limits = Limits { accepted: 10_000, ..Limits::default() };
        let mut builder = PostOffice::builder().certificate(self.certificate).limits(limits);
        for (listener, port) in [
            (Listener::Smtp, self.smtp),
            (Listener::Smtps, self.smtps),
            (Listener::Imap, self.imap),
            (Listener::Imaps, self.imaps),
        ] {
            builder = builder.listen(listener, SocketAddr::new(self.bind, port));
        }
        let default = [("ann".to_owned(), "secret".to_owned())];
        let users = if self.users.is_empty() { &default[..] } else { &self.users[..] };
        for (name, password) in users {
            builder = builder.user(name, password);
        }
        for (name, token) in &self.tokens {
            builder = builder.token(name, token);
        }
        for (from, user) in &self.routes {
            builder = builder.route(from, user);
        }
        if let Some(user) = &self.catch_all {
            builder = builder.catch_all(user);
        }
        if self.reject_unknown {
            builder = builder.unknown_recipients(UnknownRecipients::Reject);
        }
        if self.require_auth {
            builder = builder.auth(AuthPolicy::Required);
        }
        if self.no_named_faults {
            builder = builder.without_named_faults();
        }
        builder
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "postoffice: {error}");
            ExitCode::from(74)
        }
    }
}

async fn run(arguments: Arguments) -> std::io::Result<()> {
    // Installed before anything is printed: whoever reads the addresses may send the signal at once.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let office = arguments.builder().start().await?;
    let ours = arguments.ca_file.is_none();
    let ca_file = arguments.ca_file.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("postoffice-{}-ca.pem", std::process::id()))
    });
    tokio::fs::write(&ca_file, office.ca_pem()).await?;
    print(&office, &ca_file)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    office.stop().await;
    if arguments.transcript {
        let mut out = std::io::stdout().lock();
        out.write_all(office.transcript_text().as_bytes())?;
        for violation in office.violations() {
            writeln!(out, "violation {violation:?}")?;
        }
    }
    if ours {
        tokio::fs::remove_file(&ca_file).await?;
    }
    Ok(())
}

fn print(office: &PostOffice, ca_file: &std::path::Path) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for listener in Listener::ALL {
        if let Some(url) = office.url(listener) {
            writeln!(out, "{} {url}", listener.scheme())?;
        }
    }
    writeln!(out, "ca-file {}", ca_file.display())?;
    writeln!(out, "fingerprint sha256:{}", office.certificate().fingerprint())?;
    writeln!(out, "ready")?;
    out.flush()
}
