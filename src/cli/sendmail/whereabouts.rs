//! Which profile a call is for, and where its session is.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

use crate::cli::access::{LOCK_WAIT, Opener, OwnSession, Place};
use crate::cli::args::Globals;
use crate::cli::exit::{Exit, Failure};
use crate::cli::session_glue::SpoolOpener;
use crate::mapi::MapiResult;
use crate::observe::Observer;
use crate::profile::{Catalog, Dirs, Environment, Profile, ProfileName};
use crate::session::{FsckReport, FsckRequest, Logon};

/// Where profiles and spools lie that are nobody's own.
#[derive(Clone, Copy, Debug)]
struct SystemDirs<'a> {
    config: &'a Path,
    state: &'a Path,
    /// Where its daemon takes mail of every user.
    socket: &'a Path,
}

/// A profile that was found.
#[derive(Debug)]
pub(super) struct Found {
    catalog: Catalog,
    name: ProfileName,
    /// Where mail is handed over when the profile is somebody else's.
    socket: Option<PathBuf>,
}

/// Finds the profile: the one of `-C`, else the one that options and environment name, else the
/// user's default, else, for a user who has no profile at all, the default of the system.
///
/// # Errors
/// 78 when there is none.
pub(super) fn find(
    named: Option<&Path>,
    globals: &Globals,
    environment: &Environment,
) -> Result<Found, Failure> {
    let system = SystemDirs {
        config: Path::new(SYSTEM_CONFIG),
        state: Path::new(SYSTEM_STATE),
        socket: Path::new(SYSTEM_SOCKET),
    };
    // A program may have been started in a folder that is gone by now.
    let current = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    find_among(named, globals, environment, system, &current)
}

const SYSTEM_CONFIG: &str = "/etc/postrider";
const SYSTEM_STATE: &str = "/var/lib/postrider";
const SYSTEM_SOCKET: &str = "/run/postrider/submit.sock";

fn find_among(
    named: Option<&Path>,
    globals: &Globals,
    environment: &Environment,
    system: SystemDirs<'_>,
    current: &Path,
) -> Result<Found, Failure> {
    let given = |path: &Option<PathBuf>| path.clone().filter(|path| !path.as_os_str().is_empty());
    let (config, state) = (given(&globals.config), given(&globals.state));
    if let Some(file) = named {
        let file = current.join(file);
        let name = file.extension().is_some_and(|ending| ending == "toml");
        let name = file.file_stem().filter(|_| name).and_then(|stem| stem.to_str()?.parse().ok());
        let Some(name) = name else {
            let words =
                format!("-C {}: it must be the file of a profile, NAME.toml", file.display());
            return Err(Failure::new(Exit::Config, words));
        };
        let dirs = Dirs::resolve(file.parent(), state.as_deref(), environment, current);
        let dirs = dirs.map_err(|why| Failure::new(Exit::Config, why))?;
        let catalog = Catalog::new(dirs, environment.clone());
        return Ok(Found { catalog, name, socket: None });
    }
    let asked = globals.profile.as_deref().filter(|name| !name.is_empty());
    let own = Dirs::resolve(config.as_deref(), state.as_deref(), environment, current);
    let own = own.map(|dirs| Catalog::new(dirs, environment.clone()));
    let has_own = own.as_ref().is_ok_and(|own| own.names().map_or(true, |names| !names.is_empty()));
    let mut is_of_system = false;
    let catalog = match own {
        Ok(own) if has_own || asked.is_some() || config.is_some() => own,
        own => {
            let state = state.unwrap_or_else(|| system.state.to_owned());
            let dirs = Dirs { config: system.config.to_owned(), state: current.join(state) };
            let of_system = Catalog::new(dirs, environment.clone());
            match (of_system.names().map_or(true, |names| !names.is_empty()), own) {
                (true, _) => {
                    is_of_system = true;
                    of_system
                }
                // The error names both folders.
                (false, Ok(own)) => {
                    return Err(Failure::new(
                        Exit::Config,
                        format!(
                            "no profile, neither yours in {} nor one for all users in {}; \
                             `postrider profile new NAME` makes one",
                            own.dirs().config.display(),
                            system.config.display()
                        ),
                    ));
                }
                (false, Err(why)) => return Err(Failure::new(Exit::Config, why)),
            }
        }
    };
    let name = match asked {
        Some(name) => name.parse().map_err(Failure::usage)?,
        None => catalog.default_name()?,
    };
    let is_ours = owner_of(&catalog.dirs().state_folder(&name)).is_none_or(is_this_user);
    let socket = (is_of_system && !is_ours).then(|| system.socket.to_owned());
    Ok(Found { catalog, name, socket })
}

/// The owner of a folder, or of the one above it that is there.
fn owner_of(folder: &Path) -> Option<u32> {
    folder.ancestors().find_map(|folder| std::fs::metadata(folder).ok()).map(|found| found.uid())
}

fn is_this_user(user: u32) -> bool {
    user == rustix::process::geteuid().as_raw()
}

impl Found {
    /// The socket at which mail is handed over to the daemon of another user.
    pub(super) fn submission_socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// That it is this user's, who alone sees what is in the queue.
    ///
    /// # Errors
    /// 77 where mail is only handed over to the daemon of another user.
    pub(super) fn must_be_own(&self, what: &str) -> Result<(), Failure> {
        match &self.socket {
            None => Ok(()),
            Some(_) => Err(Failure::new(
                Exit::NotPermitted,
                format!(
                    "cannot {what}: profile and queue of this machine belong to another user; you \
                     may only hand over mail"
                ),
            )),
        }
    }

    /// Reads the profile.
    pub(super) fn profile(&self) -> Result<Profile, Failure> {
        Ok(self.catalog.load(&self.name)?)
    }

    /// Where its session is to be found. The profile is read only when there is no daemon.
    pub(super) fn place(&self) -> Place {
        let dirs = self.catalog.dirs();
        Place {
            socket: dirs.socket(&self.name),
            listen: None,
            submissions: None,
            metrics: None,
            opener: Box::new(LazyOpener {
                catalog: self.catalog.clone(),
                name: self.name.clone(),
                state_folder: dirs.state_folder(&self.name),
            }),
            lock_wait: LOCK_WAIT,
        }
    }

    pub(super) fn has_state_folder(&self) -> bool {
        self.catalog.dirs().state_folder(&self.name).exists()
    }
}

/// Reads the profile when the spool has to be opened.
struct LazyOpener {
    catalog: Catalog,
    name: ProfileName,
    state_folder: PathBuf,
}

impl LazyOpener {
    fn opener(&self) -> SpoolOpener {
        let state_folder = self.state_folder.clone();
        SpoolOpener {
            profile: self.catalog.load(&self.name),
            state_folder,
            observer: Observer::default(),
        }
    }
}

#[async_trait]
impl Opener for LazyOpener {
    async fn open(&self, logon: Logon, lock_wait: Duration) -> MapiResult<Box<dyn OwnSession>> {
        self.opener().open(logon, lock_wait).await
    }

    async fn fsck_unreadable(&self, why: &str, request: FsckRequest) -> MapiResult<FsckReport> {
        self.opener().fsck_unreadable(why, request).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    struct Machine {
        folder: tempfile::TempDir,
    }

    impl Machine {
        fn new(files: &[&str]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for file in files {
                let file = folder.path().join(file);
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(file, "").unwrap();
            }
            Machine { folder }
        }

        /// The profile's file and its state folder, below the folder.
        fn found(
            &self,
            named: Option<&str>,
            globals: &Globals,
            home: bool,
        ) -> Result<(String, String), u8> {
            let at = self.folder.path();
            let environment = Environment::empty();
            let environment =
                if home { environment.with("HOME", at.join("home")) } else { environment };
            let (config, state, socket) = (at.join("etc"), at.join("var"), at.join("run"));
            let system = SystemDirs { config: &config, state: &state, socket: &socket };
            let named = named.map(Path::new);
            let found = find_among(named, globals, &environment, system, at);
            let found = found.map_err(|failure| failure.exit.number())?;
            assert_eq!(found.submission_socket(), None, "the folders are this user's");
            let dirs = found.catalog.dirs();
            let below = |path: PathBuf| path.strip_prefix(at).unwrap().display().to_string();
            Ok((below(dirs.profile_file(&found.name)), below(dirs.state_folder(&found.name))))
        }
    }

    fn pair(file: &str, state: &str) -> Result<(String, String), u8> {
        Ok((file.to_owned(), state.to_owned()))
    }

    #[test]
    fn the_users_own_profile_comes_before_that_of_the_system() {
        let none = Globals::default();
        let own = "home/.config/postrider/ann.toml";
        let both = Machine::new(&[own, "etc/system.toml"]);
        let state = "home/.local/state/postrider/ann";
        assert_eq!(both.found(None, &none, true), pair(own, state));
        // A program without a home folder.
        assert_eq!(both.found(None, &none, false), pair("etc/system.toml", "var/system"));
        let system = Machine::new(&["etc/system.toml"]);
        assert_eq!(system.found(None, &none, true), pair("etc/system.toml", "var/system"));
        assert_eq!(Machine::new(&[]).found(None, &none, true), Err(78));
        assert_eq!(Machine::new(&[]).found(None, &none, false), Err(78));
    }

    #[test]
    fn what_belongs_to_another_user_is_not_shown() {
        let machine = Machine::new(&["etc/system.toml"]);
        let dirs = Dirs { config: machine.folder.path().join("etc"), state: "/".into() };
        let (name, socket) = ("system".parse().unwrap(), None);
        let catalog = Catalog::new(dirs, Environment::empty());
        let own = Found { catalog, name, socket };
        own.must_be_own("show the queue").unwrap();
        let others = Found { socket: Some("/run/submit.sock".into()), ..own };
        let failure = others.must_be_own("show the queue").unwrap_err();
        assert_eq!(failure.exit, Exit::NotPermitted);
    }

    #[test]
    fn what_is_named_is_taken_or_missed() {
        let machine = Machine::new(&["etc/system.toml", "other/x.toml", "other/y.toml"]);
        let globals = |profile: Option<&str>, config: Option<&str>| Globals {
            profile: profile.map(str::to_owned),
            config: config.map(PathBuf::from),
            state: Some("spools".into()),
            ..Globals::default()
        };
        let file = Some("other/x.toml");
        assert_eq!(
            machine.found(file, &globals(None, None), true),
            pair("other/x.toml", "spools/x")
        );
        let named = globals(Some("y"), Some("other"));
        assert_eq!(machine.found(None, &named, true), pair("other/y.toml", "spools/y"));
        // A folder that is named and has no profile is not replaced by another one.
        assert_eq!(machine.found(None, &globals(None, Some("empty")), true), Err(78));
        assert_eq!(machine.found(Some("sendmail.cf"), &globals(None, None), true), Err(78));
    }
}
