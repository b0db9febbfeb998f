//! The folder of profiles: list, choose, add, make default, remove.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use toml::de::DeTable;
use zeroize::Zeroizing;

use super::load::read_profile_file;
use super::{Dirs, Environment, Profile, ProfileError, ProfileName, make_private_folder};

/// The profiles of one user.
#[derive(Clone, Debug)]
pub struct Catalog {
    dirs: Dirs,
    environment: Environment,
}

/// A password that is to lie in a file of its own beside the profiles.
#[derive(Clone)]
pub struct KeptSecret {
    /// Name of the file; it is new.
    pub file: String,
    /// The password.
    pub secret: Zeroizing<String>,
}

impl std::fmt::Debug for KeptSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeptSecret").field("file", &self.file).finish_non_exhaustive()
    }
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
                std::io::ErrorKind::AlreadyExists => taken(name),
                _ => error.to_string(),
            };
            ProfileError::of_file(&file, why)
        };
        Profile::parse(name.as_str(), text, &file, &self.environment)?;
        make_private_parent(&self.dirs.config).map_err(failed)?;
        write_durably(&file, text, 0o600, Existing::Keep).map_err(failed)
    }

    /// What stops a profile of this name from being added.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn check_free(&self, name: &ProfileName) -> Result<(), ProfileError> {
        let file = self.dirs.profile_file(name);
        match fs::symlink_metadata(&file) {
            Ok(_) => Err(ProfileError::of_file(&file, taken(name))),
            Err(_) => Ok(()),
        }
    }

    /// Checks a text that is not yet the profile `name`.
    ///
    /// # Errors
    /// As [`Profile::parse`].
    pub fn parse(&self, name: &ProfileName, text: &str) -> Result<Profile, ProfileError> {
        Profile::parse(name.as_str(), text, &self.dirs.profile_file(name), &self.environment)
    }

    /// The name of a file for a password that is not there yet: `STEM.password`, or with a number.
    pub fn free_secret_file(&self, stem: &str) -> String {
        let fits = |c: char| c.is_alphanumeric() || "-_.@+".contains(c);
        let stem: String = stem.chars().map(|c| if fits(c) { c } else { '_' }).collect();
        let stem = stem.trim_start_matches(['.', '-']);
        let free = |name: &String| !self.dirs.config.join(name).exists();
        let first = format!("{stem}.password");
        let numbered = (2..1000).map(|number| format!("{stem}-{number}.password"));
        std::iter::once(first.clone()).chain(numbered).find(free).unwrap_or(first)
    }

    /// Adds a profile as [`Catalog::add`] does, and the passwords it names, each in a file that
    /// only its owner can read. All are written, or none.
    ///
    /// # Errors
    /// As [`Catalog::add`]; also when a file for a password is there already.
    pub fn add_with_secrets(
        &self,
        name: &ProfileName,
        text: &str,
        secrets: &[KeptSecret],
    ) -> Result<(), ProfileError> {
        self.parse(name, text)?;
        self.check_free(name)?;
        self.with_secrets(secrets, || self.add(name, text))
    }

    /// Adds text behind a profile that is there, and the passwords the text names.
    ///
    /// # Errors
    /// When there is no such profile, the whole would be none, or a file cannot be written; then
    /// it is as before.
    pub fn append(
        &self,
        name: &ProfileName,
        more: &str,
        secrets: &[KeptSecret],
    ) -> Result<(), ProfileError> {
        let file = self.dirs.profile_file(name);
        let (text, mode) = read_profile_file(&file)?;
        let end = if text.ends_with('\n') { "" } else { "\n" };
        let whole = Zeroizing::new(format!("{}{end}{more}", *text));
        self.parse(name, &whole)?;
        let failed = |error: std::io::Error| ProfileError::of_file(&file, error.to_string());
        let target = fs::canonicalize(&file).map_err(failed)?;
        self.with_secrets(secrets, || {
            write_durably(&target, &whole, mode & 0o777, Existing::Replace).map_err(failed)
        })
    }

    fn with_secrets(
        &self,
        secrets: &[KeptSecret],
        work: impl FnOnce() -> Result<(), ProfileError>,
    ) -> Result<(), ProfileError> {
        let folder = &self.dirs.config;
        if !secrets.is_empty() {
            make_private_parent(folder)
                .map_err(|error| ProfileError::of_file(folder, error.to_string()))?;
        }
        let mut written = Vec::new();
        let write = || {
            for kept in secrets {
                let file = folder.join(&kept.file);
                let line = Zeroizing::new(format!("{}\n", *kept.secret));
                let done = write_durably(&file, &line, 0o600, Existing::Keep);
                done.map_err(|error| ProfileError::of_file(&file, error.to_string()))?;
                written.push(file);
            }
            work()
        };
        let answer = write();
        if answer.is_err() {
            written.iter().for_each(|file| {
                // What is left is a password without a profile: harmless, and told by its name.
                let _gone = fs::remove_file(file);
            });
        }
        answer
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

fn taken(name: &ProfileName) -> String {
    format!("a profile {name} is there already; choose another name or remove it")
}

/// The text of a profile with its `default` key set; everything else stays letter by letter.
fn with_default(text: &str, value: bool) -> Result<Zeroizing<String>, String> {
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
