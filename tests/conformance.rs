//! Keeps `docs/conformance.md` true: every rule of the contract has its line, every test that is
//! named exists, and every test that says what it proves is named.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What the table says of a rule.
#[derive(Debug, Default)]
struct Line {
    /// File and test.
    tests: BTreeSet<(String, String)>,
    /// What is not proven yet.
    open: Option<String>,
    /// Why it does not apply.
    not_applicable: Option<String>,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Splits `TN-6` into its letters and its number.
fn rule_id(text: &str) -> Option<(&str, u32)> {
    let (letters, number) = text.split_once('-')?;
    let sound = letters.len() == 2 && letters.bytes().all(|byte| byte.is_ascii_uppercase());
    sound.then(|| number.parse().ok().map(|number| (letters, number))).flatten()
}

/// The ids of the list, and those of them that are for later.
fn rules() -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut all, mut later) = (BTreeSet::new(), BTreeSet::new());
    let text = read("docs/contract-rules.txt");
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [id, words, pages] = cells[..] else { panic!("not three parts: {line}") };
        assert!(rule_id(id).is_some(), "no rule id: {line}");
        assert!(!words.is_empty() && !pages.is_empty(), "incomplete: {line}");
        assert!(all.insert(id.to_owned()), "{id} is listed twice");
        if words.starts_with("later:") {
            later.insert(id.to_owned());
        }
    }
    (all, later)
}

/// The ids in the order of the list.
fn rules_in_order() -> Vec<String> {
    let text = read("docs/contract-rules.txt");
    let ids = text.lines().filter_map(|line| line.split_once('|').map(|(id, _)| id.trim()));
    ids.filter(|id| rule_id(id).is_some()).map(str::to_owned).collect()
}

/// The table by rule.
fn table() -> BTreeMap<String, Line> {
    let mut table: BTreeMap<String, Line> = BTreeMap::new();
    for line in read("docs/conformance.md").lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let Some(id) = cells.first().filter(|id| rule_id(id).is_some()) else { continue };
        assert_eq!(cells.len(), 3, "not three cells: {line}");
        let mut entry = Line::default();
        for part in cells[1].split("<br>").map(str::trim).filter(|part| !part.is_empty()) {
            let (file, tests) = part
                .split_once(" :: ")
                .unwrap_or_else(|| panic!("{id}: not `file :: test, test`: {part}"));
            for test in tests.split(',').map(str::trim) {
                entry.tests.insert((file.to_owned(), test.to_owned()));
            }
        }
        let note = cells[2];
        entry.open = note.strip_prefix("not proven yet: ").map(str::to_owned);
        entry.not_applicable = note.strip_prefix("does not apply: ").map(str::to_owned);
        let said = entry.open.is_some() || entry.not_applicable.is_some();
        // An update may be about to add the tests.
        let updating = std::env::var_os("UPDATE_CONFORMANCE").is_some();
        let enough = !entry.tests.is_empty() || said || updating;
        assert!(enough, "{id}: neither a test nor a reason");
        assert!(note.is_empty() || said, "{id}: what does this say? {note}");
        assert!(table.insert((*id).to_owned(), entry).is_none(), "{id} has two lines");
    }
    table
}

/// All Rust files below a folder, as paths from the root.
fn sources(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(path.strip_prefix(root()).unwrap().display().to_string());
            }
        }
    }
    found.sort_unstable();
    found
}

/// The name of the function that a line begins to define.
fn function_of(line: &str) -> Option<&str> {
    let after = line.trim_start().strip_prefix("pub ").unwrap_or(line.trim_start());
    let after = after.strip_prefix("async ").unwrap_or(after).strip_prefix("fn ")?;
    after.split(['(', '<']).next()
}

/// The tests of a file: functions behind a test attribute, also those of a property test.
fn tests_in(text: &str) -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    let mut marked = false;
    for line in text.lines() {
        let trimmed = line.trim_start();
        if trimmed.starts_with("#[test") || trimmed.starts_with("#[tokio::test") {
            marked = true;
        } else if let Some(name) = function_of(line).filter(|_| marked) {
            tests.insert(name.to_owned());
            marked = false;
        }
    }
    tests
}

/// What tests say they prove: file, test, rules.
fn claims(file: &str, text: &str) -> Vec<(String, String, Vec<String>)> {
    let mut claims = Vec::new();
    let mut rules: Vec<String> = Vec::new();
    for line in text.lines() {
        if let Some(list) = line.trim_start().strip_prefix("/// Proves:") {
            rules.extend(
                list.trim().trim_end_matches('.').split(',').map(|id| id.trim().to_owned()),
            );
        } else if let Some(name) = function_of(line)
            && !rules.is_empty()
        {
            claims.push((file.to_owned(), name.to_owned(), std::mem::take(&mut rules)));
        }
    }
    assert!(rules.is_empty(), "{file}: {rules:?} are proven by nothing");
    claims
}

#[test]
fn every_rule_has_its_line_and_no_other_has() {
    let (rules, later) = rules();
    let table = table();
    let listed: BTreeSet<String> = table.keys().cloned().collect();
    let missing: Vec<_> = rules.difference(&listed).collect();
    let unknown: Vec<_> = listed.difference(&rules).collect();
    assert!(missing.is_empty(), "without a line in docs/conformance.md: {missing:?}");
    assert!(unknown.is_empty(), "not in docs/contract-rules.txt: {unknown:?}");
    for id in &later {
        assert!(table[id].not_applicable.is_some(), "{id} is for later and has no reason");
    }
}

#[test]
fn every_test_that_is_named_exists() {
    let mut known: BTreeMap<&Path, BTreeSet<String>> = BTreeMap::new();
    let table = table();
    let mut wrong = Vec::new();
    for (id, line) in &table {
        for (file, test) in &line.tests {
            let path = Path::new(file);
            if !root().join(path).is_file() {
                wrong.push(format!("{id}: there is no file {file}"));
                continue;
            }
            let tests = known.entry(path).or_insert_with(|| tests_in(&read(file)));
            if !tests.contains(test) {
                wrong.push(format!("{id}: {file} has no test {test}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The page as the tests make it: their claims, and the remarks that stand there already.
fn page() -> String {
    let (rules, _) = rules();
    let table = table();
    let mut proven: BTreeMap<String, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    for file in sources("src").into_iter().chain(sources("tests")) {
        if file == "tests/conformance.rs" {
            continue;
        }
        for (file, test, ids) in claims(&file, &read(&file)) {
            for id in ids {
                assert!(rules.contains(&id), "{file} :: {test} proves {id}, which is no rule");
                let tests = proven.entry(id).or_default().entry(file.clone()).or_default();
                tests.push(test.clone());
            }
        }
    }
    let (head, rows) = PAGE_HEAD.split_once("{counts}").unwrap();
    let mut lines = String::new();
    for id in rules_in_order() {
        let Some(line) = table.get(&id) else { continue };
        let tests = proven.remove(&id).unwrap_or_default();
        let tests: Vec<_> =
            tests.iter().map(|(file, tests)| format!("{file} :: {}", tests.join(", "))).collect();
        let remark = match (&line.open, &line.not_applicable) {
            (Some(open), _) => format!(" not proven yet: {open}"),
            (_, Some(reason)) => format!(" does not apply: {reason}"),
            (None, None) => String::new(),
        };
        lines.push_str(&format!("| {id} | {} |{remark} |\n", tests.join("<br>")));
    }
    format!("{head}{}{rows}{lines}", counts(&table))
}

/// The head of the page.
const PAGE_HEAD: &str = "\
# Which test proves which rule

The rules are those of `contract-rules.txt`. A test that proves one says so in the line `/// Proves:`
above it, and this table is made from those lines: `UPDATE_CONFORMANCE=1 cargo test --test conformance`
writes it, without the variable the same command fails when a line is missing, when a test that is named
does not exist or when the table is not up to date. A remark says what the tests of a rule leave open,
or why it does not apply; remarks are written by hand. The tests of `src/transport/model.rs` run under a
scheduler of their own: `cargo test --lib --features model-check model::`.

{counts}

| rule | tests | remark |
| --- | --- | --- |
";

fn counts(table: &BTreeMap<String, Line>) -> String {
    let not_applicable = table.values().filter(|line| line.not_applicable.is_some()).count();
    let open = table.values().filter(|line| line.open.is_some()).count();
    format!(
        "Of {} rules: {} proven, {open} not proven yet, {not_applicable} that do not apply.",
        table.len(),
        table.len() - open - not_applicable
    )
}

#[test]
fn the_page_says_what_the_tests_say() {
    let page = page();
    if std::env::var_os("UPDATE_CONFORMANCE").is_some() {
        fs::write(root().join("docs/conformance.md"), &page).unwrap();
    }
    let stale = read("docs/conformance.md") != page;
    assert!(!stale, "run UPDATE_CONFORMANCE=1 cargo test --test conformance");
}

#[test]
fn every_rule_that_is_mentioned_is_one() {
    let (rules, _) = rules();
    let letters: BTreeSet<&str> =
        rules.iter().filter_map(|id| rule_id(id)).map(|(letters, _)| letters).collect();
    let mut wrong = Vec::new();
    for file in sources("src").into_iter().chain(sources("examples")) {
        let text = read(&file);
        for word in text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')) {
            if rule_id(word).is_some_and(|(first, _)| letters.contains(first))
                && !rules.contains(word)
            {
                wrong.push(format!("{file} mentions {word}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_readers_of_this_test_read() {
    let text = "    /// Proves: TN-6, ST-4\n    #[tokio::test]\n    async fn one() {}\n\
                fn helper() {}\n#[test]\nfn two<'a>() {}\n";
    assert_eq!(tests_in(text), BTreeSet::from(["one".to_owned(), "two".to_owned()]));
    let expected = ("f".to_owned(), "one".to_owned(), vec!["TN-6".to_owned(), "ST-4".to_owned()]);
    assert_eq!(claims("f", text), [expected]);
    assert_eq!(rule_id("TN-19"), Some(("TN", 19)));
    assert_eq!(rule_id("PEEK-1"), None);
}
