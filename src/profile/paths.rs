//! Where profiles, spools and the control socket lie.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::private::make_private_folder;
use super::{Environment, ProfileError};

/// The name of a profile. It names a file and a folder, so it is made of letters, digits, `-`,
/// `_`, `.`, `@` and `+`, does not begin with a dot or dash, and has at most 64 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProfileName(String);

/// The longest name of a profile in bytes: the socket's whole path has about 100.
const LONGEST_NAME: usize = 64;

impl ProfileName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProfileName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let allowed = |c: char| c.is_alphanumeric() || "-_.@+".contains(c);
        if name.is_empty() || name.len() > LONGEST_NAME {
            return Err(format!("a profile name has 1 to {LONGEST_NAME} bytes"));
        }
        if name.starts_with(['.', '-']) || !name.chars().all(allowed) {
            return Err(format!(
                "{name:?} cannot be the name of a profile: letters, digits and - _ . @ + are \
                 possible, a dot or dash not in front"
            ));
        }
        Ok(ProfileName(name.to_owned()))
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The two folders everything lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirs {
    /// Profiles: `NAME.toml`.
    pub config: PathBuf,
    /// One folder for each profile with its spool and socket.
    pub state: PathBuf,
}

impl Dirs {
    /// The folders as asked for, else `$XDG_CONFIG_HOME/postrider` and
    /// `$XDG_STATE_HOME/postrider`, else those below `~/.config` and `~/.local/state`. A relative
    /// path is taken from `current`.
    ///
    /// # Errors
    /// A sentence when neither an option nor the environment says where.
    pub fn resolve(
        config: Option<&Path>,
        state: Option<&Path>,
        environment: &Environment,
        current: &Path,
    ) -> Result<Self, String> {
        let place = |asked: Option<&Path>, variable: &str, below_home: &str, option: &str| {
            let asked = asked.filter(|path| !path.as_os_str().is_empty());
            if let Some(path) = asked {
                return Ok(current.join(path));
            }
            let xdg = environment.value(variable).map(Path::new).filter(|path| path.is_absolute());
            match (xdg, environment.home()) {
                (Some(base), _) => Ok(base.join("postrider")),
                (None, Some(home)) => Ok(home.join(below_home).join("postrider")),
                (None, None) => Err(format!("HOME is not set; name a folder with {option}")),
            }
        };
        Ok(Dirs {
            config: place(config, "XDG_CONFIG_HOME", ".config", "--config")?,
            state: place(state, "XDG_STATE_HOME", ".local/state", "--state")?,
        })
    }

    /// The file of a profile.
    pub fn profile_file(&self, name: &ProfileName) -> PathBuf {
        self.config.join(format!("{name}.toml"))
    }

    /// The folder with the spool of a profile.
    pub fn state_folder(&self, name: &ProfileName) -> PathBuf {
        self.state.join(name.as_str())
    }

    /// The control socket of a profile's daemon.
    pub fn socket(&self, name: &ProfileName) -> PathBuf {
        self.state_folder(name).join("control.sock")
    }

    /// Makes the state folder of a profile, which only its owner can enter (0700).
    ///
    /// # Errors
    /// When it belongs to another user, or others can write to it or exchange it; I/O errors. The
    /// folder is named.
    pub fn make_state_folder(&self, name: &ProfileName) -> Result<PathBuf, ProfileError> {
        let folder = self.state_folder(name);
        make_private_folder(&folder)
            .map_err(|error| ProfileError::of_file(&folder, error.to_string()))?;
        Ok(folder)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn names_cannot_leave_their_folder() {
        for name in ["", ".", "..", ".hidden", "a/b", "/etc", "-v", "a b", "a\0b", "a\nb"] {
            assert!(name.parse::<ProfileName>().is_err(), "{name:?}");
        }
        assert!("x".repeat(65).parse::<ProfileName>().is_err());
        for name in ["work", "ann@example.org", "büro", "a.b-c_d+e", &"x".repeat(64)] {
            assert_eq!(name.parse::<ProfileName>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn options_come_before_xdg_and_xdg_before_home() {
        let home = Environment::empty().with("HOME", "/home/ann");
        let xdg = home.clone().with("XDG_STATE_HOME", "/var/xdg").with("XDG_CONFIG_HOME", "rel");
        let here = Path::new("/here");
        let dirs = Dirs::resolve(None, None, &home, here).unwrap();
        assert_eq!(dirs.config, Path::new("/home/ann/.config/postrider"));
        assert_eq!(dirs.state, Path::new("/home/ann/.local/state/postrider"));
        let dirs = Dirs::resolve(Some(Path::new("conf")), None, &xdg, here).unwrap();
        assert_eq!(dirs.config, Path::new("/here/conf"));
        assert_eq!(dirs.state, Path::new("/var/xdg/postrider"));
        let dirs = Dirs::resolve(Some(Path::new("")), None, &xdg, here).unwrap();
        assert_eq!(dirs.config, Path::new("/home/ann/.config/postrider"));
        let why = Dirs::resolve(None, None, &Environment::empty(), here).unwrap_err();
        assert!(why.contains("--config"), "{why}");
        let name = "work".parse().unwrap();
        assert_eq!(dirs.socket(&name), Path::new("/var/xdg/postrider/work/control.sock"));
    }

    #[test]
    fn state_folders_are_private() {
        let temp = tempfile::tempdir().unwrap();
        let dirs = Dirs { config: temp.path().into(), state: temp.path().join("state") };
        let name = "work".parse().unwrap();
        let folder = dirs.make_state_folder(&name).unwrap();
        let mode = || std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o700);
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        dirs.make_state_folder(&name).unwrap();
        assert_eq!(mode(), 0o700);
    }
}
