#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use super::*;
use crate::spool::disk::{RealDisk, as_real_disk};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Mutex;

fn open(root: &Path) -> Maildir {
    let disk = Arc::new(crate::spool::disk::RealDisk);
    Maildir::open(root, "box".into(), SysTime::from_millis(1_700_000_000_000), disk).unwrap()
}

fn place(mailbox: &str, key: &[u8], look: Look) -> Place {
    Place {
        mailbox: mailbox.into(),
        token: Token::of(Origin::Received, key),
        time: SysTime::from_millis(1_600_000_000_000),
        state: FileState::New,
        look,
    }
}

fn put(maildir: &Maildir, place: &Place, bytes: &[u8]) -> Result<(), MaildirError> {
    let mut draft = maildir.draft()?;
    draft.write(bytes)?;
    maildir.deliver(draft, place)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn files_are_private_dated_and_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("deep/Mail");
    let maildir = open(&root);
    put(&maildir, &place("INBOX", b"1", Look::Here), b"a\r\nb\nc\0").unwrap();
    put(&maildir, &place("Lists/Rust", b"2", Look::Here), b"x").unwrap();
    let new = names(&root.join("new"));
    assert_eq!(new.len(), 1);
    let file = root.join("new").join(&new[0]);
    assert_eq!(std::fs::read(&file).unwrap(), b"a\r\nb\nc\0");
    let meta = std::fs::metadata(&file).unwrap();
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    let modified = meta.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(modified.as_secs(), 1_600_000_000);
    assert_eq!(names(&root.join(".Lists.Rust")), ["cur", "maildirfolder", "new", "tmp"]);
    assert_eq!(names(&root.join(".Lists.Rust/new")).len(), 1);
    for folder in ["", "tmp", ".Lists.Rust", ".Lists.Rust/new"] {
        let mode = std::fs::metadata(root.join(folder)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{folder}");
    }
    assert!(names(&root.join("tmp")).is_empty());
}

#[test]
fn what_is_there_is_neither_replaced_nor_doubled() {
    let dir = tempfile::tempdir().unwrap();
    let maildir = open(dir.path());
    put(&maildir, &place("INBOX", b"1", Look::Here), b"first").unwrap();
    put(&maildir, &place("INBOX", b"1", Look::Here), b"second").unwrap();
    let new = names(&dir.path().join("new"));
    assert_eq!(new.len(), 1);
    assert_eq!(std::fs::read(dir.path().join("new").join(&new[0])).unwrap(), b"first");
    assert!(names(&dir.path().join("tmp")).is_empty());
}

/// Proves: IB-6
#[test]
fn a_repeat_finds_what_was_read_moved_or_taken_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    put(&open(dir.path()), &place("INBOX", b"1", Look::Here), b"x").unwrap();
    put(&open(dir.path()), &place("Other", b"2", Look::Here), b"x").unwrap();
    let (new, cur) = (dir.path().join("new"), dir.path().join("cur"));
    let name = names(&new).remove(0);
    std::fs::rename(new.join(&name), cur.join(format!("{name}:2,RS"))).unwrap();
    let maildir = open(dir.path());
    put(&maildir, &place("INBOX", b"1", Look::Everywhere), b"x").unwrap();
    // Under another time too: the name's time is no part of what is looked for.
    let mut later = place("INBOX", b"2", Look::Everywhere);
    later.time = SysTime::from_millis(1);
    put(&maildir, &later, b"x").unwrap();
    assert!(names(&new).is_empty());
    // What is not there is delivered, once.
    put(&maildir, &place("INBOX", b"3", Look::Everywhere), b"x").unwrap();
    put(&maildir, &place("INBOX", b"4", Look::Here), b"x").unwrap();
    let cases = [b"3", b"4"];
    for key in cases {
        let moved = names(&new);
        for name in &moved {
            std::fs::rename(new.join(name), cur.join(format!("{name}:2,"))).unwrap();
        }
        put(&maildir, &place("INBOX", key, Look::Everywhere), b"x").unwrap();
        assert!(names(&new).is_empty());
    }
}

#[test]
fn links_below_the_root_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (root, outside) = (dir.path().join("Mail"), dir.path().join("outside"));
    let maildir = open(&root);
    for folder in ["outside", "outside/new", "outside/cur", "outside/tmp"] {
        std::fs::create_dir(dir.path().join(folder)).unwrap();
    }
    symlink(&outside, root.join(".Evil")).unwrap();
    assert!(put(&maildir, &place("Evil", b"1", Look::Here), b"x").is_err());
    std::fs::remove_dir(root.join("new")).unwrap();
    symlink(outside.join("new"), root.join("new")).unwrap();
    assert!(put(&maildir, &place("INBOX", b"1", Look::Here), b"x").is_err());
    assert!(names(&outside.join("new")).is_empty());
    assert!(names(&root.join("tmp")).is_empty());
}

/// Whatever a mailbox is called, its mail lies in one folder right below the root, and nothing
/// outside of it is made or changed.
#[test]
fn no_name_leads_out_of_the_maildir() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("deep/Mail");
    let maildir = open(&root);
    let long = "ü/".repeat(400);
    let evil = [
        "..",
        ".",
        "",
        "/",
        "//",
        "../..",
        "../../outside",
        "/etc/passwd",
        "a/../../b",
        "cur",
        "new",
        "tmp",
        "cur/x",
        "new/../..",
        "a\0b",
        "a\nb",
        "..\\..",
        "&AC8-",
        "&AC4ALg-/x",
        "inbox/..",
        "C:\\x",
        "~root",
        "$HOME",
        "%2E%2E",
        ".%2E",
        " ",
        "\u{202e}x",
        &long,
    ];
    for (number, name) in evil.iter().enumerate() {
        put(&maildir, &place(name, &number.to_be_bytes(), Look::Here), b"x").unwrap();
    }
    assert_eq!(names(dir.path()), ["deep"]);
    assert_eq!(names(&dir.path().join("deep")), ["Mail"]);
    let mut mail = 0;
    for folder in names(&root) {
        if ["cur", "new", "tmp"].contains(&folder.as_str()) {
            assert!(names(&root.join(&folder)).is_empty(), "{folder}");
            continue;
        }
        assert!(folder.starts_with('.'), "{folder}");
        assert_eq!(names(&root.join(&folder)), ["cur", "maildirfolder", "new", "tmp"], "{folder}");
        mail += names(&root.join(&folder).join("new")).len();
    }
    assert_eq!(mail, evil.len());
}

#[test]
fn links_in_a_folder_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (root, outside) = (dir.path().join("Mail"), dir.path().join("outside"));
    let maildir = open(&root);
    std::fs::create_dir(&outside).unwrap();
    put(&maildir, &place("Sub", b"1", Look::Here), b"x").unwrap();
    for part in ["new", "cur", "tmp"] {
        let part = root.join(".Sub").join(part);
        let kept = part.with_extension("kept");
        std::fs::rename(&part, &kept).unwrap();
        symlink(&outside, &part).unwrap();
        assert!(put(&maildir, &place("Sub", b"2", Look::Here), b"x").is_err());
        std::fs::remove_file(&part).unwrap();
        std::fs::rename(&kept, &part).unwrap();
    }
    // A link that waits for the mark of a new folder.
    std::fs::create_dir(root.join(".Other")).unwrap();
    symlink(outside.join("made"), root.join(".Other/maildirfolder")).unwrap();
    put(&maildir, &place("Other", b"3", Look::Here), b"x").unwrap();
    assert!(names(&outside).is_empty());
    assert!(names(&root.join("tmp")).is_empty());
    put(&maildir, &place("Sub", b"2", Look::Here), b"x").unwrap();
}

#[test]
fn a_root_that_is_a_link_is_the_users_choice() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("real")).unwrap();
    symlink(dir.path().join("real"), dir.path().join("Mail")).unwrap();
    put(&open(&dir.path().join("Mail")), &place("INBOX", b"1", Look::Here), b"x").unwrap();
    assert_eq!(names(&dir.path().join("real/new")).len(), 1);
}

#[test]
fn leftovers_of_dead_processes_are_swept() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let tmp = dir.path().join("tmp");
    let own = std::process::id();
    let files = [
        ("postrider.999999999.x.box".to_owned(), false),
        (format!("postrider.{own}.x.box"), true),
        ("postrider.999999999.x.otherbox".to_owned(), true),
        ("1700000000.M1P2.box".to_owned(), true),
    ];
    for (name, _) in &files {
        std::fs::write(tmp.join(name), "x").unwrap();
        let file = std::fs::File::options().write(true).open(tmp.join(name)).unwrap();
        let recent = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_699_999_999);
        file.set_modified(recent).unwrap();
    }
    open(dir.path());
    let left = names(&tmp);
    for (name, stays) in &files {
        assert_eq!(left.contains(name), *stays, "{name}");
    }
}

// ----- beginnings of large messages -----

const KEY: &[u8] = b"work INBOX 7 8";

fn token() -> Token {
    Token::of(Origin::Received, KEY)
}

fn text(octets: usize) -> Vec<u8> {
    (0..octets).map(|number| b'a' + u8::try_from(number * 7 % 26).unwrap()).collect()
}

/// Leaves the first octets of a message behind.
fn begin(maildir: &Maildir, octets: usize) {
    let mut draft = maildir.begin(token(), 5000).unwrap();
    draft.write(&text(octets)).unwrap();
    maildir.keep(draft).unwrap();
}

fn resume(maildir: &Maildir, size: u64) -> Option<(Vec<u8>, Resumed)> {
    let mut seen = Vec::new();
    let resumed = maildir.resume(token(), size, |bytes| seen.extend_from_slice(bytes)).unwrap()?;
    Some((seen, resumed))
}

fn only_beginning(root: &Path) -> std::path::PathBuf {
    let names = names(&root.join("tmp"));
    assert_eq!(names.len(), 1, "{names:?}");
    root.join("tmp").join(&names[0])
}

#[test]
fn a_beginning_is_taken_up_by_the_next_process_and_delivered() {
    let dir = tempfile::tempdir().unwrap();
    begin(&open(dir.path()), 3000);
    // What a crash leaves behind the octets that were noted.
    let file = only_beginning(dir.path());
    let mut behind = std::fs::OpenOptions::new().append(true).open(&file).unwrap();
    std::io::Write::write_all(&mut behind, &[0; 700]).unwrap();
    drop(behind);
    let maildir = open(dir.path());
    let (seen, mut resumed) = resume(&maildir, 5000).unwrap();
    assert_eq!((seen.len(), resumed.octets), (3000, 3000));
    assert_eq!(seen, text(3000));
    let mut again = Vec::new();
    std::io::Read::read_to_end(&mut resumed.reader, &mut again).unwrap();
    assert_eq!(again, text(3000));
    // While it is written nobody else gets it.
    assert!(resume(&open(dir.path()), 5000).is_none());
    resumed.draft.write(&text(5000)[3000..]).unwrap();
    let place = Place { token: token(), ..place("INBOX", KEY, Look::Here) };
    maildir.deliver(resumed.draft, &place).unwrap();
    let new = names(&dir.path().join("new"));
    assert_eq!(std::fs::read(dir.path().join("new").join(&new[0])).unwrap(), text(5000));
    assert!(names(&dir.path().join("tmp")).is_empty());
}

#[test]
fn what_is_no_beginning_of_it_is_removed() {
    let damage: [fn(&Path); 4] = [
        |file| {
            let mut bytes = std::fs::read(file).unwrap();
            bytes[1234] ^= 1;
            std::fs::write(file, bytes).unwrap();
        },
        |file| std::fs::write(file, b"short").unwrap(),
        |file| {
            let other = file.to_str().unwrap().replace(".5000.", ".5001.");
            std::fs::rename(file, other).unwrap();
        },
        |file| {
            let other = file.to_str().unwrap().replace(".3000.", ".2999.");
            std::fs::rename(file, other).unwrap();
        },
    ];
    for damage in damage {
        let dir = tempfile::tempdir().unwrap();
        let maildir = open(dir.path());
        begin(&maildir, 3000);
        damage(&only_beginning(dir.path()));
        assert!(resume(&maildir, 5000).is_none());
        assert_eq!(names(&dir.path().join("tmp")), Vec::<String>::new());
    }
}

#[test]
fn beginnings_are_few_and_do_not_grow_old() {
    let dir = tempfile::tempdir().unwrap();
    let maildir = open(dir.path());
    for number in 0..20_u8 {
        let mut draft = maildir.begin(Token::of(Origin::Received, &[number]), 5000).unwrap();
        draft.write(b"octets").unwrap();
        maildir.keep(draft).unwrap();
    }
    assert_eq!(names(&dir.path().join("tmp")).len(), 8);
    let two_days = SysTime::from_millis(
        u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap() + 172_800_000,
    );
    let disk = Arc::new(crate::spool::disk::RealDisk);
    drop(Maildir::open(dir.path(), "box".into(), two_days, disk).unwrap());
    assert_eq!(names(&dir.path().join("tmp")), Vec::<String>::new());
}

#[test]
fn a_full_disk_takes_no_account_of_beginnings() {
    let dir = tempfile::tempdir().unwrap();
    let maildir = open(dir.path());
    begin(&maildir, 3000);
    assert!(maildir.admit(u64::MAX).is_err());
    assert_eq!(names(&dir.path().join("tmp")), Vec::<String>::new());
}

#[test]
fn nothing_is_left_of_a_beginning_that_is_there_already_or_was_never_noted() {
    let dir = tempfile::tempdir().unwrap();
    let maildir = open(dir.path());
    put(&maildir, &place("INBOX", KEY, Look::Here), b"whole").unwrap();
    begin(&maildir, 3000);
    let (_, resumed) = resume(&maildir, 5000).unwrap();
    maildir.deliver(resumed.draft, &place("INBOX", KEY, Look::Everywhere)).unwrap();
    let mut draft = maildir.begin(token(), 5000).unwrap();
    draft.write(b"octets").unwrap();
    drop(draft);
    assert_eq!(names(&dir.path().join("tmp")), Vec::<String>::new());
}

/// A disk on which somebody else does something right after a file was opened.
struct Overtaken(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Overtaken {
    fn maildir(root: &Path, by: impl FnOnce() + Send + 'static) -> Maildir {
        let disk = Arc::new(Overtaken(Mutex::new(Some(Box::new(by)))));
        Maildir::open(root, "box".into(), SysTime::from_millis(1_700_000_000_000), disk).unwrap()
    }
}

impl std::fmt::Debug for Overtaken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Overtaken")
    }
}

impl Disk for Overtaken {
    as_real_disk!(create write sync_file make_folder rename link unlink sync_folder);

    fn open(&self, at: At<'_>) -> io::Result<std::fs::File> {
        let opened = RealDisk.open(at)?;
        if let Some(by) = self.0.lock().unwrap().take() {
            by();
        }
        Ok(opened)
    }
}

/// A save whose caller has left goes on: it may deliver the very file that is being taken up.
#[test]
fn a_beginning_that_is_delivered_meanwhile_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    begin(&open(dir.path()), 3000);
    let part = only_beginning(dir.path());
    let mut rest = std::fs::OpenOptions::new().append(true).open(&part).unwrap();
    std::io::Write::write_all(&mut rest, &text(5000)[3000..]).unwrap();
    let delivered = dir.path().join("new/1.x.box");
    let (from, to) = (part.clone(), delivered.clone());
    let maildir = Overtaken::maildir(dir.path(), move || std::fs::rename(from, to).unwrap());
    assert!(resume(&maildir, 5000).is_none());
    assert!(std::fs::read(&delivered).unwrap() == text(5000), "it was cut off");
}

#[test]
fn only_the_file_that_was_looked_at_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    begin(&open(dir.path()), 3000);
    let part = only_beginning(dir.path());
    let (from, to) = (part.clone(), dir.path().join("new/1.x.box"));
    let maildir = Overtaken::maildir(dir.path(), move || {
        std::fs::rename(&from, to).unwrap();
        std::fs::write(from, text(3000)).unwrap();
    });
    maildir.give_up_beginnings().unwrap();
    assert_eq!(only_beginning(dir.path()), part);
    maildir.give_up_beginnings().unwrap();
    assert!(!part.exists());
}

/// Such as an earlier try that still has its file.
#[test]
fn a_beginning_that_somebody_holds_keeps_no_message_from_being_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let maildir = open(dir.path());
    let (large, size) = (vec![b'x'; 17 << 20], 40 << 20);
    let mut draft = maildir.begin(token(), size).unwrap();
    draft.write(&large).unwrap();
    maildir.keep(draft).unwrap();
    let part = only_beginning(dir.path());
    let holder = std::fs::File::open(&part).unwrap();
    let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    rustix::fs::flock(&holder, exclusive).unwrap();
    assert!(resume(&maildir, size).is_none());
    let mut draft = maildir.begin(token(), size).unwrap();
    draft.write(&large).unwrap();
    maildir.note(&mut draft).unwrap();
    // Further on there is a name for it again.
    draft.write(&large).unwrap();
    maildir.note(&mut draft).unwrap();
    assert_eq!(names(&dir.path().join("tmp")).len(), 2);
    draft.write(&large[..6 << 20]).unwrap();
    maildir.deliver(draft, &place("INBOX", KEY, Look::Here)).unwrap();
    let new = names(&dir.path().join("new"));
    assert_eq!(std::fs::metadata(dir.path().join("new").join(&new[0])).unwrap().len(), size);
    assert_eq!(only_beginning(dir.path()), part);
    // One that is given up at the same octet leaves nothing.
    let mut draft = maildir.begin(token(), size).unwrap();
    draft.write(&large).unwrap();
    maildir.keep(draft).unwrap();
    assert_eq!(only_beginning(dir.path()), part);
}

#[test]
fn a_folder_that_was_moved_away_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let maildir = open(dir.path());
    put(&maildir, &place("Lists", b"1", Look::Here), b"one").unwrap();
    std::fs::rename(dir.path().join(".Lists"), dir.path().join(".Old")).unwrap();
    put(&maildir, &place("Lists", b"2", Look::Here), b"two").unwrap();
    std::fs::remove_dir_all(dir.path().join(".Lists")).unwrap();
    put(&maildir, &place("Lists", b"3", Look::Here), b"three").unwrap();
    assert_eq!(names(&dir.path().join(".Old/new")).len(), 1);
    assert_eq!(names(&dir.path().join(".Lists/new")).len(), 1);
}
