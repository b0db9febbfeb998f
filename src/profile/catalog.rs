//! The folder of profiles: list, choose, add, make default, remove.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use toml::de::DeTable;

use super::load::read_profile_file;
use super::{Dirs, Environment, Profile, ProfileError, ProfileName, make_private_folder};

/// The profiles of one user.
#[derive(Clone, Debug)]
pub struct Catalog {
    dirs: Dirs,
    environment: Environment,
}

/// A profile of the catalog, which may be one that cannot be used.
#[derive(Debug)]
pub struct CatalogEntry {
    /// Its name.
    pub name: ProfileName,
    /// Whether it says that it is the default.
    pub default: bool,
    /// What it says, or why it cannot be used.
    pub profile: Result<Profile, ProfileError>,
}

impl Catalog {
    /// The profiles in the configuration folder of `dirs`.
    pub fn new(dirs: Dirs, environment: Environment) -> Self {
        Catalog { dirs, environment }
    }

    /// The folders it works on.
    pub fn dirs(&self) -> &Dirs {
        &self.dirs
    }

    /// Reads one profile.
    ///
    /// # Errors
    /// As [`Profile::load`].
    pub fn load(&self, name: &ProfileName) -> Result<Profile, ProfileError> {
        Profile::load(&self.dirs, name, &self.environment)
    }

    /// Names of all profiles, sorted. A missing folder has none.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn names(&self) -> Result<Vec<ProfileName>, ProfileError> {
        let folder = &self.dirs.config;
        let failed = |error: std::io::Error| ProfileError::of_file(folder, error.to_string());
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let file_name = entry.map_err(failed)?.file_name();
            let stem = file_name.to_str().and_then(|name| name.strip_suffix(".toml"));
            names.extend(stem.and_then(|stem| stem.parse::<ProfileName>().ok()));
        }
        names.sort();
        Ok(names)
    }

    /// All profiles, sorted by name, also those that cannot be used.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> Result<Vec<CatalogEntry>, ProfileError> {
        let entry = |name: ProfileName| CatalogEntry {
            default: self.says_default(&name),
            profile: self.load(&name),
            name,
        };
        Ok(self.names()?.into_iter().map(entry).collect())
    }

    /// The profile to use when none is named: the only one that says `default = true`, else the
    /// only one there is.
    ///
    /// # Errors
    /// When there is none, or no telling which.
    pub fn default_name(&self) -> Result<ProfileName, ProfileError> {
        let unclear = |why: &str| Err(ProfileError::of_file(&self.dirs.config, why));
        let mut names = self.names()?;
        let mut defaults: Vec<ProfileName> = names.clone();
        defaults.retain(|name| self.says_default(name));
        match (defaults.pop(), defaults.is_empty(), names.pop(), names.is_empty()) {
            (Some(name), true, ..) | (None, _, Some(name), true) => Ok(name),
            (Some(_), false, ..) => unclear(
                "more than one profile says default = true; choose with --profile NAME or \
                 `postrider profile default NAME`",
            ),
            (None, _, Some(_), false) => unclear(
                "no profile says default = true; choose with --profile NAME or `postrider profile \
                 default NAME`",
            ),
            (None, _, None, _) => {
                unclear("there is no profile yet; `postrider profile new NAME` makes one")
            }
        }
    }

    /// Whether the profile says that it is the default. One that cannot be read says nothing.
    fn says_default(&self, name: &ProfileName) -> bool {
        let Ok((text, _)) = read_profile_file(&self.dirs.profile_file(name)) else { return false };
        DeTable::parse(&text).is_ok_and(|table| {
            table.get_ref().get("default").and_then(|value| value.get_ref().as_bool()) == Some(true)
        })
    }

    /// Adds a profile, readable only by its owner. What is there stays as it is.
    ///
    /// # Errors
    /// When the name is taken, `text` is no profile, or the folder cannot be written.
    pub fn add(&self, name: &ProfileName, text: &str) -> Result<(), ProfileError> {
        let file = self.dirs.profile_file(name);
        let failed = |error: std::io::Error| {
            let why = match error.kind() {
                std::io::ErrorKind::AlreadyExists => {
                    format!("a profile {name} is there already; choose another name or remove it")
                }
                _ => error.to_string(),
            };
            ProfileError::of_file(&file, why)
        };
        Profile::parse(name.as_str(), text, &file, &self.environment)?;
        make_private_parent(&self.dirs.config).map_err(failed)?;
        write_durably(&file, text, 0o600, Existing::Keep).map_err(failed)
    }

    /// Makes a profile the default, and no other.
    ///
    /// # Errors
    /// When there is no such profile or a file cannot be read or written.
    pub fn set_default(&self, name: &ProfileName) -> Result<(), ProfileError> {
        self.write_default(name, true)?;
        for other in self.names()?.iter().filter(|other| *other != name) {
            if self.says_default(other) {
                self.write_default(other, false)?;
            }
        }
        Ok(())
    }

    fn write_default(&self, name: &ProfileName, value: bool) -> Result<(), ProfileError> {
        let file = self.dirs.profile_file(name);
        let (text, mode) = read_profile_file(&file)?;
        let changed = with_default(&text, value)
            .map_err(|why| ProfileError::of_file(&file, format!("this is not TOML: {why}")))?;
        let failed = |error: std::io::Error| ProfileError::of_file(&file, error.to_string());
        // A link to a file elsewhere stays a link.
        let target = fs::canonicalize(&file).map_err(failed)?;
        write_durably(&target, &changed, mode & 0o777, Existing::Replace).map_err(failed)
    }

    /// Removes a profile. Its state folder stays.
    ///
    /// # Errors
    /// When there is no such profile or it cannot be removed.
    pub fn remove(&self, name: &ProfileName) -> Result<(), ProfileError> {
        let file = self.dirs.profile_file(name);
        let removed = fs::remove_file(&file).and_then(|()| sync_folder(&self.dirs.config));
        removed.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                ProfileError::of_file(&file, "there is no such profile")
            }
            _ => ProfileError::of_file(&file, error.to_string()),
        })
    }
}

/// The text of a profile with its `default` key set; everything else stays letter by letter.
fn with_default(text: &str, value: bool) -> Result<zeroize::Zeroizing<String>, String> {
    let table = DeTable::parse(text).map_err(|error| error.message().to_owned())?;
    let changed = match table.get_ref().get("default").map(toml::Spanned::span) {
        None => format!("default = {value}\n{text}"),
        Some(span) => {
            let before = text.get(..span.start).unwrap_or_default();
            let after = text.get(span.end..).unwrap_or_default();
            format!("{before}{value}{after}")
        }
    };
    Ok(changed.into())
}

/// Makes the folder of profiles, private when it is new; one that is there keeps its mode.
fn make_private_parent(folder: &Path) -> std::io::Result<()> {
    if folder.is_dir() { Ok(()) } else { make_private_folder(folder) }
}

enum Existing {
    Keep,
    Replace,
}

/// Writes a file so that after a crash it is there whole or as it was before.
fn write_durably(file: &Path, text: &str, mode: u32, existing: Existing) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or_else(|| Path::new("."));
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let fresh = folder.join(format!(".{name}.{}.new", std::process::id()));
    let _left_over = fs::remove_file(&fresh);
    let written = write_new(&fresh, text, mode).and_then(|()| match existing {
        // A link fails where a file is, a rename would replace it.
        Existing::Keep => fs::hard_link(&fresh, file),
        Existing::Replace => fs::rename(&fresh, file),
    });
    let _moved = fs::remove_file(&fresh);
    written.and_then(|()| sync_folder(folder))
}

fn write_new(file: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let mut opened = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(file)?;
    // The umask took bits away that the old file had.
    opened.set_permissions(fs::Permissions::from_mode(mode))?;
    opened.write_all(text.as_bytes())?;
    opened.sync_all()
}

fn sync_folder(folder: &Path) -> std::io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
#[path = "catalog_tests.rs"]
mod tests;
