//! The environment variables a program was started with, as a value: tests make their own.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Environment variables. A variable that is set to nothing counts as not set.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
}

impl Environment {
    /// No variables.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Those of this process, as of now.
    pub fn of_process() -> Self {
        Environment { variables: std::env::vars_os().collect() }
    }

    /// The environment with one more variable; for building in one expression.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// The value of a variable.
    pub fn value(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str).filter(|v| !v.is_empty())
    }

    /// The home folder (`HOME`), when it is an absolute path.
    pub fn home(&self) -> Option<&Path> {
        self.value("HOME").map(Path::new).filter(|home| home.is_absolute())
    }

    /// A path as people write it: `~` at the start is the home folder, `$NAME` and `${NAME}` are
    /// variables.
    ///
    /// # Errors
    /// A sentence that names what is not known.
    pub fn expand(&self, text: &str) -> Result<PathBuf, String> {
        let mut path = OsString::new();
        let mut rest = text;
        if let Some(after) = text.strip_prefix('~') {
            if !(after.is_empty() || after.starts_with('/')) {
                return Err("the home folders of others are not known here; write it out".into());
            }
            path.push(self.home().ok_or("~ is not known because HOME is not set")?);
            rest = after;
        }
        while let Some((before, after)) = rest.split_once('$') {
            path.push(before);
            let (name, next) = variable_name(after)?;
            path.push(self.value(name).ok_or_else(|| format!("the variable {name} is not set"))?);
            rest = next;
        }
        path.push(rest);
        Ok(PathBuf::from(path))
    }
}

/// Splits `NAME/rest` or `{NAME}/rest`, what follows a dollar sign, into name and rest.
fn variable_name(text: &str) -> Result<(&str, &str), String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (name, rest) = match text.strip_prefix('{') {
        Some(inner) => inner.split_once('}').ok_or("a ${ has no }")?,
        None => text.split_at(text.find(|c| !is_name(c)).unwrap_or(text.len())),
    };
    if name.is_empty() || !name.chars().all(is_name) {
        return Err("a $ is not followed by the name of a variable".into());
    }
    Ok((name, rest))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn expands_home_and_variables() {
        let env = Environment::empty().with("HOME", "/home/ann").with("MAIL_DIR", "post");
        for (text, path) in [
            ("~", "/home/ann"),
            ("~/Mail", "/home/ann/Mail"),
            ("/srv/$MAIL_DIR/x", "/srv/post/x"),
            ("/srv/${MAIL_DIR}x~", "/srv/postx~"),
            ("/plain", "/plain"),
        ] {
            assert_eq!(env.expand(text).unwrap(), Path::new(path), "{text}");
        }
    }

    #[test]
    fn says_what_it_does_not_know() {
        let env = Environment::empty().with("EMPTY", "");
        for (text, named) in [
            ("~/Mail", "HOME"),
            ("~bob/Mail", "home folders of others"),
            ("$EMPTY/x", "EMPTY"),
            ("${NOPE/x", "no }"),
            ("/a/$/b", "name of a variable"),
        ] {
            assert!(env.expand(text).unwrap_err().contains(named), "{text}");
        }
    }
}
