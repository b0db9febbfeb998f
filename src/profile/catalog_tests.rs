#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;

struct Fixture {
    _temp: tempfile::TempDir,
    catalog: Catalog,
}

fn fixture() -> Fixture {
    let temp = tempfile::tempdir().unwrap();
    let dirs = Dirs { config: temp.path().join("config"), state: temp.path().join("state") };
    let environment = Environment::empty().with("HOME", "/home/ann");
    Fixture { catalog: Catalog::new(dirs, environment), _temp: temp }
}

fn name(text: &str) -> ProfileName {
    text.parse().unwrap()
}

const PROFILE: &str = r#"# of Ann
[[transport]]
name = "work"
identity = "ann@example.org"
[transport.smtp]
host = "localhost"  # ours
tls = "none"
[store]
maildir = "~/Mail"
"#;

fn kept(file: &str) -> KeptSecret {
    KeptSecret { file: file.to_owned(), secret: Zeroizing::new("hunter2".to_owned()) }
}

#[test]
fn passwords_are_written_with_their_profile_or_not_at_all() {
    let Fixture { catalog, _temp } = &fixture();
    let folder = catalog.dirs().config.clone();
    catalog.add_with_secrets(&name("work"), PROFILE, &[kept("work.password")]).unwrap();
    let file = folder.join("work.password");
    assert_eq!(fs::read_to_string(&file).unwrap(), "hunter2\n");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(catalog.free_secret_file("work"), "work-2.password");
    assert_eq!(catalog.free_secret_file("../x y"), "_x_y.password");
    // A name that is taken, a text that is no profile, a password that is there already.
    let taken = catalog.add_with_secrets(&name("work"), PROFILE, &[kept("other.password")]);
    assert!(taken.unwrap_err().why.contains("already"));
    assert!(catalog.add_with_secrets(&name("x"), "nonsense", &[kept("x.password")]).is_err());
    let both = [kept("x.password"), kept("work.password")];
    assert!(catalog.add_with_secrets(&name("x"), PROFILE, &both).is_err());
    let files: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files.len(), 2, "{files:?}");
    assert!(!format!("{:?}", kept("x")).contains("hunter2"));
}

#[test]
fn text_is_added_behind_a_profile_only_when_the_whole_is_one() {
    let Fixture { catalog, _temp } = &fixture();
    catalog.add(&name("work"), PROFILE).unwrap();
    let more = PROFILE.split("[store]").next().unwrap().replace("\"work\"", "\"more\"");
    catalog.append(&name("work"), &more, &[kept("more.password")]).unwrap();
    assert_eq!(catalog.load(&name("work")).unwrap().transports.len(), 2);
    let before = fs::read(catalog.dirs().profile_file(&name("work"))).unwrap();
    // The same name a second time.
    assert!(catalog.append(&name("work"), &more, &[kept("again.password")]).is_err());
    assert_eq!(fs::read(catalog.dirs().profile_file(&name("work"))).unwrap(), before);
    assert!(!catalog.dirs().config.join("again.password").exists());
    assert!(catalog.append(&name("nope"), &more, &[]).is_err());
}

#[test]
fn a_new_profile_is_private_and_never_replaces_one() {
    let Fixture { catalog, _temp } = &fixture();
    assert!(catalog.names().unwrap().is_empty());
    catalog.add(&name("work"), PROFILE).unwrap();
    let file = catalog.dirs().profile_file(&name("work"));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&catalog.dirs().config).unwrap().permissions().mode() & 0o777, 0o700);
    let why = catalog.add(&name("work"), PROFILE).unwrap_err();
    assert!(why.to_string().contains("already"), "{why}");
    assert_eq!(fs::read_to_string(&file).unwrap(), PROFILE);
    assert_eq!(fs::read_dir(&catalog.dirs().config).unwrap().count(), 1, "a file was left over");
    assert!(catalog.add(&name("bad"), "nonsense").is_err());
    assert_eq!(catalog.names().unwrap(), [name("work")]);
}

#[test]
fn the_default_is_told_or_the_only_one() {
    let Fixture { catalog, _temp } = &fixture();
    assert!(catalog.default_name().unwrap_err().why.contains("no profile yet"));
    catalog.add(&name("one"), PROFILE).unwrap();
    assert_eq!(catalog.default_name().unwrap(), name("one"));
    catalog.add(&name("two"), PROFILE).unwrap();
    assert!(catalog.default_name().unwrap_err().why.contains("no profile says"));
    catalog.set_default(&name("one")).unwrap();
    assert_eq!(catalog.default_name().unwrap(), name("one"));
    catalog.set_default(&name("two")).unwrap();
    assert_eq!(catalog.default_name().unwrap(), name("two"));
    catalog.add(&name("three"), &format!("default = true\n{PROFILE}")).unwrap();
    assert!(catalog.default_name().unwrap_err().why.contains("more than one"));
    assert!(catalog.set_default(&name("four")).is_err());
}

#[test]
fn making_default_changes_nothing_else() {
    assert_eq!(*with_default(PROFILE, true).unwrap(), format!("default = true\n{PROFILE}"));
    let text = format!("a.b = 1\ndefault   =  true # x\n{PROFILE}");
    let changed = with_default(&text, false).unwrap();
    assert_eq!(*changed, text.replace("=  true", "=  false"));
    let Fixture { catalog, _temp } = &fixture();
    catalog.add(&name("one"), PROFILE).unwrap();
    let file = catalog.dirs().profile_file(&name("one"));
    let elsewhere = catalog.dirs().config.join("elsewhere");
    fs::rename(&file, &elsewhere).unwrap();
    fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
    catalog.set_default(&name("one")).unwrap();
    assert!(fs::symlink_metadata(&file).unwrap().is_symlink());
    assert_eq!(fs::metadata(&elsewhere).unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn a_broken_profile_is_listed_and_stops_no_other() {
    let Fixture { catalog, _temp } = &fixture();
    catalog.add(&name("good"), PROFILE).unwrap();
    fs::write(catalog.dirs().config.join("bad.toml"), "=").unwrap();
    fs::write(catalog.dirs().config.join("note.txt"), "=").unwrap();
    let list = catalog.list().unwrap();
    assert_eq!(list.len(), 2);
    assert!(list[0].profile.is_err() && list[0].name == name("bad"));
    assert!(list[1].profile.is_ok());
    catalog.set_default(&name("good")).unwrap();
    catalog.remove(&name("bad")).unwrap();
    assert!(catalog.remove(&name("bad")).is_err());
    assert_eq!(catalog.names().unwrap(), [name("good")]);
}
