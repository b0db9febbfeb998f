//! The questions about one account.

use super::person::{Person, choose};
use super::servers::{self, Found};
use super::{MAILDIR, nothing_written, sign_in};
use crate::cli::args::AccountArguments;
use crate::cli::exit::Failure;
use crate::cli::provider_limits;
use crate::discovery::{Discoverer, MailDomain, Provider};
use crate::profile::{
    IdentityProfile, NewOAuth2, NewPassword, NewReceiving, NewServer, NewTransport, Protocol,
    ServerUrl, parse_mailbox,
};

/// What is known of an account that is not written yet.
#[derive(Clone, Debug)]
pub(crate) struct AccountPlan {
    pub(crate) identity: IdentityProfile,
    pub(crate) smtp: Option<ServerUrl>,
    pub(crate) imap: Option<ServerUrl>,
    /// A text is one that was typed, and goes into a file of its own.
    pub(crate) password: Option<NewPassword>,
    /// Signing in by OAuth 2.0 instead. A client secret that is a text was typed, too.
    pub(crate) oauth2: Option<NewOAuth2>,
    /// File with the authorities to trust, or a fingerprint.
    pub(crate) trust: Option<String>,
    /// The provider, where the table knows it.
    pub(crate) provider: Option<&'static Provider>,
    /// Whether every login worked.
    pub(crate) tried: bool,
}

impl AccountPlan {
    /// What is found and what the options say about it.
    pub(super) fn of(
        identity: IdentityProfile,
        found: Found,
        arguments: &AccountArguments,
    ) -> Result<Self, Failure> {
        let Found { smtp, imap, mut provider, .. } = found;
        let mut hosts = smtp.iter().chain(&imap).map(|server| server.host.as_str());
        provider = provider.or_else(|| hosts.find_map(provider_limits::provider_of));
        let mut plan = AccountPlan {
            identity,
            smtp,
            imap,
            password: super::given::password(arguments),
            oauth2: super::given::oauth2(arguments, provider)?,
            trust: arguments.ca_file.clone(),
            provider,
            tried: false,
        };
        if let Some(user) = &arguments.user {
            plan.set_user(Some(user));
        }
        Ok(plan)
    }

    /// Whether it is not known how to log in where that is wanted.
    pub(super) fn lacks_login(&self) -> bool {
        self.password.is_none() && self.oauth2.is_none() && self.wants_login()
    }

    /// As it is written.
    pub(crate) fn transport(&self, name: &str) -> NewTransport {
        let limits = self.provider.map(|provider| provider.limits).unwrap_or_default();
        let server = |url: &ServerUrl| {
            let trust = self.trust.clone();
            let is_digest = trust.as_ref().is_some_and(|trust| trust.starts_with("sha256:"));
            let (ca_file, fingerprint) = if is_digest { (None, trust) } else { (trust, None) };
            let mut url = url.clone();
            // A user without a password would be a profile that cannot be read.
            url.user = url.user.filter(|_| self.password.is_some() || self.oauth2.is_some());
            NewServer { ca_file, fingerprint, ..NewServer::from(url) }
        };
        let mut smtp = self.smtp.as_ref().map(server);
        let mut imap = self.imap.as_ref().map(|url| NewReceiving::from(server(url)));
        provider_limits::fill_in(limits, smtp.as_mut(), imap.as_mut());
        NewTransport {
            name: name.to_owned(),
            identity: self.identity.clone(),
            aliases: Vec::new(),
            remarks: self.remarks(),
            password: self.password.clone(),
            smtp,
            imap,
            oauth2: self.oauth2.clone(),
        }
    }

    /// What the table knows and the profile has no key for.
    fn remarks(&self) -> Vec<String> {
        let Some(provider) = self.provider else { return Vec::new() };
        let mut remarks = vec![provider.name.clone()];
        let most = provider.limits.messages_per_day;
        remarks.extend(most.map(|most| format!("It allows {most} messages in a day.")));
        if provider.saves_sent {
            remarks.push("It keeps a copy of what is sent by itself.".to_owned());
        }
        remarks
    }

    /// Whether a password is of use.
    pub(crate) fn wants_login(&self) -> bool {
        self.imap.is_some() || self.smtp.as_ref().is_some_and(|smtp| smtp.user.is_some())
    }

    /// Sets the user of both servers.
    pub(crate) fn set_user(&mut self, user: Option<&str>) {
        for server in self.smtp.iter_mut().chain(&mut self.imap) {
            server.user = user.map(str::to_owned);
        }
    }

    /// The user name that is shown and asked about.
    pub(crate) fn user(&self) -> Option<&str> {
        let servers = self.imap.iter().chain(&self.smtp);
        servers.filter_map(|server| server.user.as_deref()).next()
    }

    pub(crate) fn server(&self, protocol: Protocol) -> Option<&ServerUrl> {
        match protocol {
            Protocol::Smtp => self.smtp.as_ref(),
            Protocol::Imap => self.imap.as_ref(),
        }
    }
}

/// Asks for what the options do not say.
pub(super) async fn ask(
    arguments: &AccountArguments,
    discoverer: &Discoverer,
    person: &mut dyn Person,
) -> Result<AccountPlan, Failure> {
    let identity = match &arguments.address {
        Some(text) => super::given::address(text)?,
        None => ask_identity(person)?,
    };
    let found = ask_servers(arguments, &identity, discoverer, person).await?;
    if found.smtp.is_none() && found.imap.is_none() {
        return Err(nothing_written("a profile needs a server in at least one direction"));
    }
    let ways = found.sign_in.clone();
    let mut plan = AccountPlan::of(identity, found, arguments)?;
    if plan.lacks_login() {
        plan.oauth2 = sign_in::explain(plan.provider, &ways, person)?;
    }
    if plan.lacks_login() {
        plan.password = Some(sign_in::ask_password(plan.user().unwrap_or_default(), person)?);
    }
    Ok(plan)
}

fn ask_identity(person: &mut dyn Person) -> Result<IdentityProfile, Failure> {
    let mut identity = loop {
        let answer = person.ask("Your mail address", "")?;
        match parse_mailbox(&answer) {
            Ok(identity) => break identity,
            Err(_) if answer.is_empty() => {}
            Err(why) => person.say(&format!("  {why}"))?,
        }
    };
    while identity.name.is_empty() {
        let name = person.ask("Your name, as readers see it (Enter for none)", "")?;
        if name.is_empty() {
            break;
        }
        if name.chars().any(|c| c.is_control() || "<>".contains(c)) {
            person.say("  A name without < and > please.")?;
        } else {
            identity.name = name;
        }
    }
    Ok(identity)
}

async fn ask_servers(
    arguments: &AccountArguments,
    identity: &IdentityProfile,
    discoverer: &Discoverer,
    person: &mut dyn Person,
) -> Result<Found, Failure> {
    if let Some(found) = super::given::servers(arguments)? {
        return Ok(found);
    }
    let domain = MailDomain::of(&identity.address);
    let mut found = match (&arguments.autoconfig, domain) {
        (Some(file), Some(domain)) => {
            let proposal = super::given::autoconfig(file, &domain)?;
            servers::confirm(proposal, &domain, person)?
        }
        (None, Some(domain)) => servers::find(discoverer, &domain, person).await?,
        (_, None) => None,
    };
    if found.is_none() {
        found = Some(servers::ask(&identity.address, person)?);
    }
    let mut found = found.unwrap_or_default();
    match arguments.only {
        Some(super::super::args::Only::Send) => found.imap = None,
        Some(super::super::args::Only::Receive) => found.smtp = None,
        None => {}
    }
    Ok(found)
}

/// Where mail is kept.
pub(super) fn ask_maildir(person: &mut dyn Person) -> Result<String, Failure> {
    loop {
        let folder = person.ask("Folder for your mail (a Maildir, made when missing)", MAILDIR)?;
        if folder.starts_with(['~', '/', '$']) {
            return Ok(folder);
        }
        person.say("  It has to begin with / or ~.")?;
    }
}

/// What to change of servers that do not work.
pub(super) fn ask_server_again(
    plan: &mut AccountPlan,
    protocol: Protocol,
    person: &mut dyn Person,
) -> Result<(), Failure> {
    let suggestion = plan.server(protocol).map(ToString::to_string).unwrap_or_default();
    let server = servers::ask_one(protocol, &suggestion, plan.user(), person)?;
    match protocol {
        Protocol::Smtp => plan.smtp = server,
        Protocol::Imap => plan.imap = server,
    }
    Ok(())
}

/// What to do with servers that were found.
pub(super) fn ask_use(person: &mut dyn Person) -> Result<&'static str, Failure> {
    choose(person, "Use them", &["yes", "send-only", "receive-only", "others"], "yes")
}
