#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use super::*;

fn rules(rewrite: Rewrite) -> AddressRules {
    let account = |name: &str, address: &str, aliases: &[&str]| AccountRule {
        identity: Mailbox::new(name, address),
        aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
        rewrite,
    };
    let alias = |name: &str, targets: &[&str]| {
        (name.to_owned(), targets.iter().map(|one| (*one).to_owned()).collect())
    };
    AddressRules {
        accounts: vec![
            account("Ann Example", "ann@example.org", &["info@example.net", "www-data@localhost"]),
            account("", "ops@ops.example", &["root@localhost"]),
        ],
        host: "Web1.example.com".to_owned(),
        aliases: [
            alias("postmaster", &["root"]),
            alias("root", &["ops@ops.example", "ann@example.org"]),
            alias("ring", &["gnir"]),
            alias("gnir", &["ring@localhost"]),
        ]
        .into_iter()
        .collect(),
        default: None,
    }
}

#[test]
fn what_is_of_this_machine() {
    let rules = rules(Rewrite::Local);
    for local in [
        "root",
        "root@localhost",
        "root@LOCALHOST",
        "root@localhost.localdomain",
        "root@web1.localdomain",
        "root@app.localhost",
        "root@web1.example.com",
        "root@web1",
        "root@[127.0.0.1]",
        "root@localhost.",
    ] {
        assert!(rules.is_local(local), "{local}");
    }
    for world in
        ["ann@example.org", "x@example.net", "x@example.com", "x@web2.example.com", "x@nas.lan"]
    {
        assert!(!rules.is_local(world), "{world}");
    }
    // A machine that is called as its owner's domain.
    let same = AddressRules { host: "example.org".to_owned(), ..rules };
    assert!(!same.is_local("root@example.org"));
}

#[test]
fn senders_are_replaced_as_the_account_says() {
    let replaced = |rewrite, name: &str, address: &str| {
        let rules = rules(rewrite);
        let account = rules.account([address]).unwrap();
        rules.replaced(&Mailbox::new(name, address), account).map(|new| new.to_string())
    };
    let ann = |name: &str| Some(format!("{name} <ann@example.org>"));
    for (rewrite, name, address, wanted) in [
        (Rewrite::Local, "", "cron", ann("Ann Example")),
        (Rewrite::Local, "Cron Daemon", "cron", ann("Cron Daemon")),
        (Rewrite::Local, "", "www-data@localhost", ann("Ann Example")),
        // An alias chooses the account.
        (Rewrite::Local, "", "root@localhost", Some("ops@ops.example".to_owned())),
        (Rewrite::Local, "", "stranger@example.com", None),
        (Rewrite::Local, "", "info@example.net", None),
        (Rewrite::Local, "", "ANN@example.org", None),
        (Rewrite::All, "", "stranger@example.com", ann("Ann Example")),
        (Rewrite::All, "", "info@example.net", None),
        (Rewrite::All, "", "www-data@localhost", ann("Ann Example")),
        (Rewrite::All, "", "ops@ops.example", None),
        (Rewrite::Never, "", "root@localhost", None),
    ] {
        assert_eq!(replaced(rewrite, name, address), wanted, "{rewrite:?} {address}");
    }
}

#[test]
fn the_first_known_sender_chooses_the_account() {
    let rules = rules(Rewrite::Local);
    let chosen = |senders: &[&str]| {
        rules.account(senders.iter().copied()).unwrap().identity.address.as_str()
    };
    assert_eq!(chosen(&["x@y.example", "OPS@ops.example", "ann@example.org"]), "ops@ops.example");
    assert_eq!(chosen(&["x@y.example"]), "ann@example.org");
    assert_eq!(chosen(&[]), "ann@example.org");
}

#[test]
fn names_lead_where_the_aliases_say() {
    let rules = rules(Rewrite::Local);
    assert_eq!(rules.resolve("bob@example.com"), ["bob@example.com"]);
    assert_eq!(rules.resolve("root"), ["ops@ops.example", "ann@example.org"]);
    assert_eq!(rules.resolve("Postmaster@localhost"), ["ops@ops.example", "ann@example.org"]);
    assert_eq!(rules.resolve("bob"), ["ann@example.org"]);
    // Names that lead in a ring lead nowhere.
    assert_eq!(rules.resolve("ring"), ["ann@example.org"]);
    let elsewhere = AddressRules { default: Some("all@example.com".to_owned()), ..rules };
    assert_eq!(elsewhere.resolve("bob"), ["all@example.com"]);
    assert!(AddressRules::default().resolve("bob").is_empty());
}

#[test]
fn others_can_read_a_list_of_recipients() {
    let rules = rules(Rewrite::Local);
    let list = [Mailbox::new("", "bob"), Mailbox::new("Carl", "carl@example.com")];
    let readable: Vec<String> =
        rules.readable(&list).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(readable, ["bob <ann@example.org>", "Carl <carl@example.com>"]);
    assert!(rules.readable(&list[1..]).is_none());
}

/// Nobody who is named is left out without a word.
#[test]
fn a_name_in_an_alias_that_leads_nowhere_gets_its_mail_at_the_default() {
    let targets = vec!["ops@ops.example".to_owned(), "operator".to_owned()];
    let default = Some("all@example.com".to_owned());
    let mut rules = AddressRules { default, ..rules(Rewrite::Local) };
    rules.aliases.insert("watch".to_owned(), targets);
    assert_eq!(rules.resolve("watch"), ["ops@ops.example", "all@example.com"]);
    assert_eq!(rules.resolve("operator"), ["all@example.com"]);
}
