//! Whether received mail could be handed over, found out without handing anything over.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{HandOptions, Receiver, lmtp};

/// What was found out about a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HandCheck {
    /// The program, or the address of the server.
    pub(crate) receiver: String,
    /// What the server offers; else why nothing can be handed over.
    pub(crate) offers: Result<Vec<String>, String>,
}

/// Looks for the program, or asks the LMTP server whether it would take mail for the recipient.
pub(crate) async fn check(options: &HandOptions, host: &str) -> HandCheck {
    match &options.receiver {
        Receiver::Program { words, .. } => {
            let name = words.first().map_or("", String::as_str);
            let found = find_program(name, std::env::var_os("PATH").as_deref());
            HandCheck { receiver: name.to_owned(), offers: found.map(|()| Vec::new()) }
        }
        Receiver::Lmtp(address) => {
            let asked = lmtp::ask(address, host, &options.recipient, options.timeout).await;
            HandCheck { receiver: address.to_string(), offers: asked }
        }
    }
}

/// Whether a program would be found as the system does it, and may be run.
fn find_program(name: &str, path: Option<&std::ffi::OsStr>) -> Result<(), String> {
    if name.contains('/') {
        return runnable(Path::new(name)).map_err(|why| format!("the program {name}: {why}"));
    }
    let folders = path.map(std::env::split_paths).into_iter().flatten();
    let mut places = folders.map(|folder: PathBuf| folder.join(name));
    match places.any(|place| runnable(&place).is_ok()) {
        true => Ok(()),
        false => Err(format!("the program {name} is in no folder of PATH")),
    }
}

fn runnable(file: &Path) -> Result<(), String> {
    let metadata = std::fs::metadata(file).map_err(|error| error.to_string())?;
    match metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
        true => Ok(()),
        false => Err("it is no file that can be run".to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_path_and_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mda");
        std::fs::write(&file, "#!/bin/sh\n").unwrap();
        let mode = |mode| std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&file, mode(0o644)).unwrap();
        let path = std::env::join_paths([Path::new("/nonexistent"), folder.path()]).unwrap();
        let named = file.to_str().unwrap();
        assert!(find_program(named, None).unwrap_err().contains("no file that can be run"));
        assert!(find_program("mda", Some(&path)).unwrap_err().contains("PATH"));
        std::fs::set_permissions(&file, mode(0o755)).unwrap();
        assert_eq!(find_program(named, None), Ok(()));
        assert_eq!(find_program("mda", Some(&path)), Ok(()));
        assert!(find_program("mda", None).is_err() && find_program("", Some(&path)).is_err());
    }
}
