//! `profile new` and `profile add`: an account from options, and from questions when on a
//! terminal; its servers found, tried out, and only then written.

mod account;
mod certificate;
mod given;
mod person;
mod servers;
mod sign_in;
mod terminal;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
mod trial;

use zeroize::Zeroizing;

use super::args::{AccountArguments, NewArguments};
use super::console::Console;
use super::exit::{Exit, Failure};
use super::profile_commands::name;
use crate::discovery::Discoverer;
use crate::profile::{Catalog, KeptSecret, NewPassword, NewProfile, NewTransport, ProfileName};

use account::AccountPlan;
pub(crate) use person::Person;
pub(crate) use sign_in::ask_password;
pub(crate) use terminal::Terminal;
use trial::Trial;

/// Where mail is kept when nothing else is said.
pub(crate) const MAILDIR: &str = "~/Mail";

/// What an account is to become.
pub(crate) enum Target {
    /// A profile of its own.
    New { profile: ProfileName, default: bool },
    /// One more account of a profile that is there.
    Added { profile: ProfileName },
}

impl Target {
    fn profile(&self) -> &ProfileName {
        match self {
            Target::New { profile, .. } | Target::Added { profile } => profile,
        }
    }
}

/// What asks the world and the person.
pub(crate) struct Helpers<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) discoverer: Discoverer,
    pub(crate) trial: &'a dyn Trial,
    /// Nobody, where there is no terminal.
    pub(crate) person: Option<&'a mut dyn Person>,
}

/// `profile new`. The first profile is the default one.
pub(crate) async fn new(
    catalog: &Catalog,
    console: &mut Console<'_>,
    arguments: &NewArguments,
) -> Result<(), Failure> {
    let profile = name(&arguments.name)?;
    // Before the first question, not behind the last one.
    catalog.check_free(&profile)?;
    let default = catalog.names()?.is_empty();
    let target = Target::New { profile, default };
    let mut terminal = Terminal::open();
    let person = terminal.as_mut().map(|terminal| terminal as &mut dyn Person);
    let trial = trial::Servers;
    let discoverer = Discoverer::system();
    let helpers = Helpers { catalog, discoverer, trial: &trial, person };
    make(helpers, console, &target, &arguments.account, arguments.maildir.as_deref()).await
}

/// `profile add`.
pub(crate) async fn add(
    catalog: &Catalog,
    console: &mut Console<'_>,
    arguments: &super::args::AddArguments,
) -> Result<(), Failure> {
    let target = Target::Added { profile: name(&arguments.name)? };
    catalog.load(target.profile())?;
    let mut terminal = Terminal::open();
    let person = terminal.as_mut().map(|terminal| terminal as &mut dyn Person);
    let trial = trial::Servers;
    let discoverer = Discoverer::system();
    let helpers = Helpers { catalog, discoverer, trial: &trial, person };
    make(helpers, console, &target, &arguments.account, None).await
}

/// Makes the account and writes it.
pub(crate) async fn make(
    mut helpers: Helpers<'_>,
    console: &mut Console<'_>,
    target: &Target,
    arguments: &AccountArguments,
    maildir: Option<&str>,
) -> Result<(), Failure> {
    let mut plan = match &mut helpers.person {
        Some(person) => account::ask(arguments, &helpers.discoverer, *person).await?,
        None => given::account(arguments, &helpers.discoverer, console).await?,
    };
    let maildir = match (maildir, &mut helpers.person, target) {
        (Some(folder), ..) => folder.to_owned(),
        (None, Some(person), Target::New { .. }) => account::ask_maildir(*person)?,
        _ => MAILDIR.to_owned(),
    };
    let transport = transport_name(helpers.catalog, target, arguments, &plan)?;
    // Who is not signed in yet cannot log in.
    let signs_in = plan.oauth2.is_some();
    if !signs_in && (helpers.person.is_some() && !arguments.no_check || arguments.check) {
        trial::until_content(&mut helpers, console, target, &transport, &mut plan).await?;
    }
    write(&helpers, console, target, &transport, &plan, &maildir)
}

/// The name of the account in the profile: as asked for, else the profile's, else the domain's.
fn transport_name(
    catalog: &Catalog,
    target: &Target,
    arguments: &AccountArguments,
    plan: &AccountPlan,
) -> Result<String, Failure> {
    let taken: Vec<String> = match target {
        Target::New { .. } => Vec::new(),
        Target::Added { profile } => {
            catalog.load(profile)?.transports.into_iter().map(|one| one.name).collect()
        }
    };
    if let Some(name) = &arguments.transport {
        return match taken.contains(name) {
            true => Err(Failure::usage(format!("--transport {name}: there is one of that name"))),
            false => Ok(name.clone()),
        };
    }
    if let Target::New { profile, .. } = target {
        return Ok(profile.to_string());
    }
    let domain = plan.identity.address.rsplit_once('@').map_or("", |(_, domain)| domain);
    let label = domain.split('.').next().filter(|label| !label.is_empty()).unwrap_or("account");
    let label: String = label.chars().take(40).collect();
    let numbered = (2..1000).map(|number| format!("{label}-{number}"));
    let free = |name: &String| !taken.contains(name);
    let mut names = std::iter::once(label.clone()).chain(numbered);
    Ok(names.find(free).unwrap_or(label))
}

/// The text that is written: the whole profile, or the account that is added to one.
fn text(target: &Target, transport: NewTransport, maildir: &str) -> Zeroizing<String> {
    match target {
        Target::Added { .. } => transport.to_toml(),
        Target::New { default, .. } => {
            let maildir = maildir.to_owned();
            NewProfile { transports: vec![transport], maildir, default: *default }.to_toml()
        }
    }
}

fn write(
    helpers: &Helpers<'_>,
    console: &mut Console<'_>,
    target: &Target,
    transport: &str,
    plan: &AccountPlan,
    maildir: &str,
) -> Result<(), Failure> {
    let catalog = helpers.catalog;
    let profile = target.profile();
    let (mut secrets, mut names) = (Vec::new(), Vec::new());
    let mut plan = plan.clone();
    // A password that was typed goes into a file of its own.
    if let Some(NewPassword::Text(secret)) = &plan.password {
        let stem = match profile.as_str() == transport {
            true => transport.to_owned(),
            false => format!("{profile}-{transport}"),
        };
        let file = catalog.free_secret_file(&stem);
        secrets.push(KeptSecret { file: file.clone(), secret: secret.clone() });
        names.push("the password");
        plan.password = Some(NewPassword::File(file));
    }
    if let Some(oauth2) = &mut plan.oauth2
        && let Some(NewPassword::Text(secret)) = &oauth2.client_secret
    {
        let file = catalog.free_secret_file(&format!("{profile}-{transport}-client"));
        secrets.push(KeptSecret { file: file.clone(), secret: secret.clone() });
        names.push("the secret of the client");
        oauth2.client_secret = Some(NewPassword::File(file));
    }
    let text = text(target, plan.transport(transport), maildir);
    match target {
        Target::New { .. } => catalog.add_with_secrets(profile, &text, &secrets)?,
        Target::Added { .. } => catalog.append(profile, &text, &secrets)?,
    }
    let dirs = catalog.dirs();
    let file = dirs.profile_file(profile);
    match target {
        Target::New { .. } => console.note(format_args!("wrote {}", file.display())),
        Target::Added { .. } => {
            console.note(format_args!("added the account {transport} to {}", file.display()));
        }
    }
    for (kept, what) in secrets.iter().zip(&names) {
        let file = dirs.config.join(&kept.file);
        console.note(format_args!("{what} is in {}, for your eyes only", file.display()));
    }
    tell_next(console, target, transport, &plan);
    Ok(())
}

/// What a new user can do now.
fn tell_next(console: &mut Console<'_>, target: &Target, transport: &str, plan: &AccountPlan) {
    let profile = target.profile();
    let choice = match target {
        Target::New { default: true, .. } => String::new(),
        _ => format!(" --profile {profile}"),
    };
    if plan.oauth2.is_some() {
        let account = match target {
            Target::New { .. } => String::new(),
            Target::Added { .. } => format!(" {transport}"),
        };
        console.note(format_args!("next: `postrider{choice} auth login{account}` signs in"));
    } else if plan.tried {
        console.note(format_args!(
            "next: `postrider{choice} run` is the daemon, `postrider{choice} send -t ADDRESS` sends"
        ));
    } else {
        console.note(format_args!(
            "next: `postrider profile check {profile}` tries it out, `postrider{choice} run` is the \
             daemon"
        ));
    }
}

/// Ends with nothing written.
fn nothing_written(why: &str) -> Failure {
    Failure::new(Exit::Negative, format!("{why}; nothing was written"))
}
