//! `profile import`: a profile of the configuration files of other programs.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Serialize;
use zeroize::Zeroizing;

use super::args::{ImportArguments, KindName, PasswordArguments};
use super::console::Console;
use super::exit::{Exit, Failure};
use super::profile_commands::{name, print_checks};
use super::profile_new::{MAILDIR, Person, Terminal, ask_password};
use super::provider_limits::{fill_in, provider_of};
use super::text::one_line;
use crate::profile::import::{
    ImportKind, ImportedAccount, LARGEST_FILE, Remark, decode, import as read_accounts, merge,
};
use crate::profile::{
    Catalog, Environment, IdentityProfile, KeptSecret, NewPassword, NewProfile, NewServer,
    NewTransport, ProfileName, parse_mailbox,
};
use crate::session::check_profile;

impl From<KindName> for ImportKind {
    fn from(name: KindName) -> Self {
        match name {
            KindName::Msmtp => ImportKind::Msmtp,
            KindName::Mbsync => ImportKind::Mbsync,
            KindName::Fetchmail => ImportKind::Fetchmail,
            KindName::Getmail => ImportKind::Getmail,
            KindName::Prf => ImportKind::Prf,
        }
    }
}

/// What became of the files.
#[derive(Debug, Serialize)]
struct Report {
    profile: String,
    file: PathBuf,
    transports: Vec<String>,
    remarks: Vec<RemarkView>,
}

/// A line of a file that has no counterpart, or another one than expected.
#[derive(Debug, Serialize)]
struct RemarkView {
    file: PathBuf,
    line: usize,
    text: String,
}

/// `profile import`.
pub(crate) async fn import(
    catalog: &Catalog,
    console: &mut Console<'_>,
    arguments: &ImportArguments,
) -> Result<(), Failure> {
    let profile = name(&arguments.name)?;
    catalog.check_free(&profile)?;
    let mut remarks = Vec::new();
    let mut accounts = Vec::new();
    for file in &arguments.files {
        let text = read(file)?;
        let kind = arguments.kind.map(ImportKind::from).or_else(|| ImportKind::guess(file, &text));
        let Some(kind) = kind else {
            return Err(Failure::usage(format!(
                "{}: cannot tell whose configuration this is; say it with --kind",
                file.display()
            )));
        };
        let imported = read_accounts(kind, &text);
        let told = |Remark { line, text }| RemarkView { file: file.clone(), line, text };
        remarks.extend(imported.remarks.into_iter().map(told));
        for mut account in imported.accounts {
            missing_files(&mut account, file, &mut remarks);
            accounts.push((file.clone(), account));
        }
    }
    let accounts = identified(accounts, arguments)?;
    if accounts.is_empty() {
        tell(console, &remarks)?;
        return Err(Failure::new(Exit::Data, "no account in it can be used; nothing was written"));
    }
    let mut accounts = merge(accounts);
    let mut terminal = Terminal::open();
    let mut person = terminal.as_mut().map(|terminal| terminal as &mut dyn Person);
    for account in &mut accounts {
        complete(account, &arguments.source, &mut person)?;
    }
    let maildir = arguments.maildir.clone().unwrap_or_else(|| MAILDIR.to_owned());
    let default = catalog.names()?.is_empty();
    let new = NewProfile { transports: transports(accounts)?, maildir, default };
    if arguments.check {
        check(catalog, console, &profile, &new).await?;
    }
    let (new, secrets) = with_kept_secrets(catalog, &profile, new);
    catalog.add_with_secrets(&profile, &new.to_toml(), &secrets)?;
    let file = catalog.dirs().profile_file(&profile);
    let transports = new.transports.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
    if console.json {
        let profile = profile.to_string();
        return console.document(&Report { profile, file, transports, remarks });
    }
    tell(console, &remarks)?;
    console.note(format_args!("wrote {} with {}", file.display(), transports.join(", ")));
    for kept in &secrets {
        let file = catalog.dirs().config.join(&kept.file);
        console.note(format_args!("a password is now in {}, for your eyes only", file.display()));
    }
    console.note(format_args!("`postrider profile check {profile}` tries it out"));
    Ok(())
}

fn read(file: &Path) -> Result<Zeroizing<String>, Failure> {
    let shown = file.display();
    let failed = |error: std::io::Error| Failure::io(format_args!("read {shown}"), &error);
    let opened = std::fs::File::open(file).map_err(failed)?;
    let mut bytes = Zeroizing::new(Vec::new());
    opened.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > LARGEST_FILE {
        return Err(Failure::new(
            Exit::Data,
            format!("{shown} is too large to be a configuration"),
        ));
    }
    Ok(decode(&bytes))
}

/// Leaves out files of authorities that cannot be read: the profile could not be used.
fn missing_files(account: &mut ImportedAccount, file: &Path, remarks: &mut Vec<RemarkView>) {
    let line = account.line;
    let receiving = account.imap.as_mut().map(|imap| &mut imap.server);
    for server in account.smtp.iter_mut().chain(receiving) {
        let Some(named) = server.ca_file.take() else { continue };
        let path = Environment::of_process().expand(&named);
        let text = match path {
            Ok(path) if is_of_system(&path) => {
                "the system's authorities are trusted without being named".to_owned()
            }
            Ok(path) => match std::fs::File::open(&path) {
                Ok(_) if path.is_absolute() => {
                    server.ca_file = Some(named);
                    continue;
                }
                Ok(_) => format!("{named}: it is left out because it does not begin with / or ~"),
                Err(error) => format!("{named}: it is left out ({error})"),
            },
            Err(why) => format!("{named}: it is left out ({why})"),
        };
        remarks.push(RemarkView { file: file.to_owned(), line, text });
    }
}

/// Where systems keep what they trust anyhow.
fn is_of_system(path: &Path) -> bool {
    ["/etc/ssl", "/etc/pki", "/usr/share/ca-certificates", "/usr/local/share/certs"]
        .iter()
        .any(|folder| path.starts_with(folder))
}

/// The accounts with their addresses.
fn identified(
    accounts: Vec<(PathBuf, ImportedAccount)>,
    arguments: &ImportArguments,
) -> Result<Vec<ImportedAccount>, Failure> {
    let named = arguments.address.as_deref().map(parse_mailbox).transpose();
    let named = named.map_err(|why| Failure::new(Exit::Data, why))?;
    let mut whole = Vec::new();
    for (file, mut account) in accounts {
        account.identity = account.identity.or_else(|| named.clone());
        if account.identity.is_none() {
            return Err(Failure::new(
                Exit::Data,
                format!(
                    "{}:{}: the account {} has no address; name it with --address",
                    file.display(),
                    account.line,
                    one_line(&account.name)
                ),
            ));
        }
        whole.push(account);
    }
    Ok(whole)
}

/// Gives an account the password that its file does not have.
fn complete(
    account: &mut ImportedAccount,
    source: &PasswordArguments,
    person: &mut Option<&mut dyn Person>,
) -> Result<(), Failure> {
    let halves = |account: &ImportedAccount| {
        let receiving = account.imap.as_ref().map(|imap| imap.server.password.clone());
        let sending = account.smtp.as_ref().map(|smtp| smtp.password.clone());
        sending.flatten().or(receiving.flatten())
    };
    if !account.lacks_password() {
        return Ok(());
    }
    // One half often knows what the other one does not.
    let known = halves(account).or_else(|| source.given());
    let password = match (known, person) {
        (Some(password), _) => password,
        (None, Some(person)) => {
            let user = user_of(account);
            ask_password(&user, *person)?
        }
        (None, None) => {
            return Err(Failure::usage(format!(
                "the account {} has no password in its file; say where it comes from with \
                 --password-command, --password-env, --password-file or --password-keyring",
                one_line(&account.name)
            )));
        }
    };
    let receiving = account.imap.as_mut().map(|imap| &mut imap.server);
    for server in account.smtp.iter_mut().chain(receiving) {
        if server.url.user.is_some() && server.password.is_none() {
            server.password = Some(password.clone());
        }
    }
    Ok(())
}

fn user_of(account: &ImportedAccount) -> String {
    let receiving = account.imap.as_ref().map(|imap| &imap.server);
    let servers = account.smtp.iter().chain(receiving);
    let mut users = servers.filter_map(|server| server.url.user.clone());
    users.next().unwrap_or_else(|| account.name.clone())
}

/// The accounts as they are written, each with a name of its own.
fn transports(accounts: Vec<ImportedAccount>) -> Result<Vec<NewTransport>, Failure> {
    let mut taken = BTreeSet::new();
    let mut transports = Vec::new();
    for account in accounts {
        let ImportedAccount { name, identity, mut smtp, mut imap, .. } = account;
        let limits = |host: &str| provider_of(host).map(|one| one.limits).unwrap_or_default();
        if let Some(smtp) = &mut smtp {
            fill_in(limits(&smtp.url.host), Some(smtp), None);
        }
        if let Some(imap) = &mut imap {
            fill_in(limits(&imap.server.url.host), None, Some(imap));
        }
        let identity =
            identity.unwrap_or(IdentityProfile { name: String::new(), address: String::new() });
        let plain: String = name.chars().filter(|c| !c.is_control()).take(40).collect();
        let plain = if plain.is_empty() { "account".to_owned() } else { plain };
        let numbered = (2..1000).map(|number| format!("{plain}-{number}"));
        let mut names = std::iter::once(plain.clone()).chain(numbered);
        let name = names.find(|name| !taken.contains(name)).unwrap_or(plain);
        taken.insert(name.clone());
        transports.push(NewTransport {
            name,
            identity,
            aliases: Vec::new(),
            remarks: Vec::new(),
            password: None,
            smtp,
            imap,
            oauth2: None,
        });
    }
    Ok(transports)
}

/// Moves passwords that stand as text in the files into files of their own.
fn with_kept_secrets(
    catalog: &Catalog,
    profile: &ProfileName,
    mut new: NewProfile,
) -> (NewProfile, Vec<KeptSecret>) {
    let mut secrets: Vec<KeptSecret> = Vec::new();
    for transport in &mut new.transports {
        let stem = format!("{profile}-{}", transport.name);
        let receiving = transport.imap.as_mut().map(|imap| &mut imap.server);
        for server in transport.smtp.iter_mut().chain(receiving) {
            keep(catalog, server, &stem, &mut secrets);
        }
    }
    (new, secrets)
}

fn keep(catalog: &Catalog, server: &mut NewServer, stem: &str, secrets: &mut Vec<KeptSecret>) {
    let Some(NewPassword::Text(secret)) = &server.password else { return };
    let same = secrets.iter().find(|kept| kept.secret == *secret && kept.file.starts_with(stem));
    let file = match same {
        Some(kept) => kept.file.clone(),
        None => {
            let numbered = (2..1000).map(|number| format!("{stem}-{number}"));
            let mut stems = std::iter::once(stem.to_owned()).chain(numbered);
            let taken = |file: &String| secrets.iter().any(|kept| kept.file == *file);
            let free = stems.find_map(|stem| {
                let file = catalog.free_secret_file(&stem);
                (!taken(&file)).then_some(file)
            });
            let file = free.unwrap_or_else(|| catalog.free_secret_file(stem));
            secrets.push(KeptSecret { file: file.clone(), secret: secret.clone() });
            file
        }
    };
    server.password = Some(NewPassword::File(file));
}

/// Logs in everywhere; nothing is written when that fails.
async fn check(
    catalog: &Catalog,
    console: &mut Console<'_>,
    profile: &ProfileName,
    new: &NewProfile,
) -> Result<(), Failure> {
    let parsed = catalog.parse(profile, &new.to_toml())?;
    let reports = check_profile(&parsed).await;
    let reports = reports.map_err(|error| Failure::contract("check the profile", &error))?;
    if reports.iter().all(|report| report.ok) {
        return Ok(());
    }
    print_checks(&reports, console).map_err(|failure| match failure.line() {
        None => Failure::new(Exit::Negative, "a trial login failed; nothing was written"),
        Some(_) => failure,
    })
}

fn tell(console: &mut Console<'_>, remarks: &[RemarkView]) -> Result<(), Failure> {
    for RemarkView { file, line, text } in remarks {
        console.line(format_args!(
            "{}:{line}: {}",
            one_line(&file.display().to_string()),
            one_line(text)
        ))?;
    }
    Ok(())
}
