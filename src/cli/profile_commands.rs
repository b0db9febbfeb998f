//! `profile list`, `show`, `check`, `default`, `new`, `remove`.

use serde::Serialize;

use super::access::Place;
use super::args::RemoveArguments;
use super::console::Console;
use super::exit::{Exit, Failure};
use super::profile_view::{ProfileView, identity};
use super::table::{Mood, Table};
use super::text::one_line;
use crate::profile::{Catalog, Password, Profile, ProfileName};
use crate::session::Logon;
use crate::session::{CheckReport, Direction};

/// A profile of the list, as JSON.
#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    default: bool,
    file: String,
    identities: Vec<String>,
    error: Option<String>,
}

/// The name of a profile on the command line.
pub(crate) fn name(text: &str) -> Result<ProfileName, Failure> {
    text.parse().map_err(Failure::usage)
}

/// `profile list`.
pub(crate) fn list(catalog: &Catalog, console: &mut Console<'_>) -> Result<(), Failure> {
    let entries = catalog.list()?.into_iter().map(|entry| {
        let file = catalog.dirs().profile_file(&entry.name).display().to_string();
        let (identities, error) = match &entry.profile {
            Ok(profile) => {
                (profile.transports.iter().map(|t| identity(&t.identity)).collect(), None)
            }
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        Listed { name: entry.name.to_string(), default: entry.default, file, identities, error }
    });
    let entries: Vec<Listed> = entries.collect();
    if console.json {
        return console.document(&entries);
    }
    if entries.is_empty() {
        console.note("there is no profile yet; `postrider profile new NAME` makes one");
        return Ok(());
    }
    let mut table = Table::new(&["NAME", "DEFAULT", "IDENTITIES"]);
    for entry in entries {
        let (told, mood) = match entry.error {
            Some(error) => (error, Mood::Bad),
            None => (entry.identities.join(", "), Mood::Plain),
        };
        let default = if entry.default { "default" } else { "" };
        table.moody_row([
            (entry.name, Mood::Plain),
            (default.to_owned(), Mood::Good),
            (told, mood),
        ]);
    }
    table.print(console)
}

/// `profile show`.
pub(crate) fn show(profile: &Profile, console: &mut Console<'_>) -> Result<(), Failure> {
    let view = ProfileView::from(profile);
    if console.json {
        return console.document(&view);
    }
    let text = toml::to_string(&view)
        .map_err(|error| Failure::new(Exit::Internal, format!("cannot show it: {error}")))?;
    console.bytes(text.as_bytes())
}

/// `profile default`.
pub(crate) fn set_default(catalog: &Catalog, text: &str) -> Result<(), Failure> {
    Ok(catalog.set_default(&name(text)?)?)
}

/// `profile remove`. Mail that waits in the spool would be out of reach without its profile.
pub(crate) async fn remove(
    catalog: &Catalog,
    console: &mut Console<'_>,
    arguments: &RemoveArguments,
    place: impl FnOnce(&ProfileName) -> Result<Place, Failure>,
) -> Result<(), Failure> {
    let profile = name(&arguments.name)?;
    let folder = catalog.dirs().state_folder(&profile);
    if !arguments.force && folder.exists() {
        let waiting = place(&profile)?
            .with("remove the profile", Logon::None, async |access| {
                if access.is_daemon() {
                    return Err(Failure::new(
                        Exit::Negative,
                        format!("cannot remove {profile}: its daemon is running; stop it first"),
                    ));
                }
                let rows = access.service().queue(None, 1).await;
                let rows = rows.map_err(|error| Failure::contract("look at its queue", &error))?;
                Ok(!rows.is_empty())
            })
            .await?;
        if waiting {
            return Err(Failure::new(
                Exit::Negative,
                format!(
                    "cannot remove {profile}: mail waits in its queue; send or cancel it, or use \
                     --force"
                ),
            ));
        }
    }
    let secrets = kept_secrets(catalog, &profile);
    catalog.remove(&profile)?;
    for file in secrets {
        console.note(format_args!("its password is still in {}", file.display()));
    }
    if folder.exists() {
        console.note(format_args!("what is in {} was left there", folder.display()));
    }
    Ok(())
}

/// The files with passwords that lie beside a profile and are named by it.
fn kept_secrets(catalog: &Catalog, name: &ProfileName) -> Vec<std::path::PathBuf> {
    let Ok(profile) = catalog.load(name) else { return Vec::new() };
    let folder = &catalog.dirs().config;
    let mut files: Vec<_> = profile
        .passwords()
        .filter_map(|password| match password {
            Password::File(file) if file.parent() == Some(folder) => Some(file.clone()),
            _ => None,
        })
        .filter(|file| file.exists())
        .collect();
    files.sort();
    files.dedup();
    files
}

/// Prints what a trial login found out.
pub(crate) fn print_checks(
    reports: &[CheckReport],
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    if console.json {
        console.document(reports)?;
    } else {
        for report in reports {
            let direction = match report.direction {
                Direction::Inbound => "receives from",
                Direction::Outbound => "sends with",
                Direction::Delivery => "delivers to",
            };
            let verdict = match &report.error {
                None if report.ok => "ok".to_owned(),
                None => "failed".to_owned(),
                Some(error) => format!("failed: {}", one_line(error)),
            };
            let transport = one_line(&report.transport);
            let server = one_line(&report.server);
            console.line(format_args!("{transport} {direction} {server}: {verdict}"))?;
            if !report.offers.is_empty() {
                console.line(format_args!("  offers {}", one_line(&report.offers.join(", "))))?;
            }
        }
    }
    if reports.iter().all(|report| report.ok) {
        Ok(())
    } else {
        Err(Failure::silent(Exit::Negative))
    }
}
