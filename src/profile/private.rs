//! Folders and files that others must not be able to change: whoever can change a profile runs
//! commands as its owner, whoever can change a spool reads and sends its mail.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// What the kernel shows for users of another namespace: nobody in this one can act as them.
const UNMAPPED: u32 = 65534;

/// Makes a folder with mode 0700, and those above it, where they are missing; takes away what
/// others may read in one that is there. Independent of the umask.
///
/// # Errors
/// `PermissionDenied` when it belongs to another user, when others can write to it (what they
/// have put there already is not to be trusted), or when others can exchange a folder above it;
/// other I/O errors.
pub(crate) fn make_private_folder(folder: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // Where it leads to is what counts: the owner may have it on another disk.
    let folder = &folder.canonicalize()?;
    let metadata = std::fs::metadata(folder)?;
    if !is_own(metadata.uid()) {
        return Err(refused(format!("it belongs to the user with the number {}", metadata.uid())));
    }
    let mode = metadata.permissions().mode();
    if mode & 0o022 != 0 {
        return Err(refused(
            "others can write to it; look at what is in it, then chmod 700 mends that".to_owned(),
        ));
    }
    check_above(folder)?;
    if mode & 0o077 != 0 {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Checks that nobody but its owner and root can exchange a file or folder by changing a folder
/// above it. Group members are the owner's own choice.
///
/// # Errors
/// `PermissionDenied` with the folder's name; other I/O errors.
pub(super) fn check_above(path: &Path) -> io::Result<()> {
    let path = path.canonicalize()?;
    for folder in path.ancestors().skip(1) {
        let metadata = std::fs::metadata(folder)?;
        let (mode, owner) = (metadata.permissions().mode(), metadata.uid());
        let shown = folder.display();
        // In a sticky folder such as /tmp everybody can only remove what is theirs.
        if mode & 0o002 != 0 && mode & 0o1000 == 0 {
            return Err(refused(format!("everybody can write to {shown}; chmod o-w mends that")));
        }
        if !is_own(owner) && owner != 0 && owner != UNMAPPED {
            return Err(refused(format!("{shown} belongs to the user with the number {owner}")));
        }
    }
    Ok(())
}

/// Whether a user is the one this process acts for.
pub(super) fn is_own(user: u32) -> bool {
    user == rustix::process::geteuid().as_raw()
}

fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::chown;

    use super::*;

    fn with_mode(mode: u32) -> (tempfile::TempDir, std::path::PathBuf) {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("state");
        std::fs::create_dir(&folder).unwrap();
        set_permissions(&folder, Permissions::from_mode(mode)).unwrap();
        (temp, folder)
    }

    #[test]
    fn what_others_can_only_read_is_closed() {
        for mode in [0o700, 0o750, 0o755] {
            let (_temp, folder) = with_mode(mode);
            make_private_folder(&folder).unwrap();
            assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn what_others_could_write_is_refused() {
        for mode in [0o770, 0o777, 0o1777, 0o720] {
            let (_temp, folder) = with_mode(mode);
            let error = make_private_folder(&folder).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            assert!(error.to_string().contains("chmod 700"), "{error}");
        }
    }

    #[test]
    fn folders_above_count_too() {
        let (_temp, folder) = with_mode(0o777);
        let below = folder.join("a/b");
        let error = make_private_folder(&below).unwrap_err();
        assert!(error.to_string().contains("everybody can write"), "{error}");
        set_permissions(&folder, Permissions::from_mode(0o1777)).unwrap();
        make_private_folder(&below).unwrap();
        set_permissions(&folder, Permissions::from_mode(0o775)).unwrap();
        make_private_folder(&below).unwrap();
    }

    #[test]
    fn a_link_is_judged_by_where_it_leads() {
        let (temp, folder) = with_mode(0o777);
        let link = temp.path().join("link");
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        assert!(make_private_folder(&link).is_err());
        set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
        make_private_folder(&link).unwrap();
    }

    #[test]
    fn what_belongs_to_others_is_refused() {
        if !rustix::process::geteuid().is_root() {
            // Only root can give something away.
            return;
        }
        let (_temp, folder) = with_mode(0o700);
        chown(&folder, Some(4321), None).unwrap();
        let error = make_private_folder(&folder).unwrap_err();
        assert!(error.to_string().contains("4321"), "{error}");
        let error = make_private_folder(&folder.join("below")).unwrap_err();
        assert!(error.to_string().contains("4321"), "{error}");
    }
}
