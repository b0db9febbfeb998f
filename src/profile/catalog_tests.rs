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
