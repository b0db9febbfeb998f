//! The pages are true: every command in a block marked `sh` runs as it stands there, every profile
//! loads, every error text is one the program has, every link leads to something.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs,
    dead_code
)]

#[path = "support/house.rs"]
mod house;
#[path = "support/office.rs"]
mod office;
#[path = "documented/page.rs"]
mod page;
#[path = "support/program.rs"]
mod program;
#[path = "documented/stage.rs"]
mod stage;

use std::path::Path;

use page::{Block, Page, pages, sources};
use postrider::profile::{Environment, Profile};
use stage::Stage;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_runs() {
    let mut ran = 0;
    for page in pages() {
        let (mut stage, mut daemon) = (Stage::new().await, None);
        let mut section = String::new();
        for block in page.blocks.iter().filter(|block| block.language == "sh") {
            // Each section is read alone, so it has to work from an empty home directory.
            if section != block.section {
                section.clone_from(&block.section);
                (stage, daemon) = (Stage::new().await, None);
            }
            match &block.not_run {
                // What cannot run has to be words this program knows, all the same.
                Some(_) => stage.understand(&page, &block.text).await,
                None => {
                    stage.run(&page, block, &mut daemon).await;
                    ran += 1;
                }
            }
        }
    }
    assert!(ran >= 7, "only {ran} blocks ran");
}

/// The commands amid the text, such as `postrider queue show ID`. Those of sendmail have flags of
/// their own, which its own tests know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_in_the_text_is_one_of_the_program() {
    let stage = Stage::new().await;
    let mut known = 0;
    for page in pages() {
        let text = page.text.replace('\n', " ");
        for span in text.split('`').filter_map(|span| span.strip_prefix("postrider ")) {
            let words = span.replace(['[', ']'], "");
            let first = words.split(' ').next().unwrap();
            if ["sendmail", "mailq", "newaliases"].contains(&first) || words.contains("...") {
                continue;
            }
            stage.understand(&page, &format!("postrider {words}")).await;
            known += 1;
        }
    }
    assert!(known >= 30, "only {known} commands");
}

/// Reasons are few, so that a mark never becomes the easy way out.
#[test]
fn marks_name_one_of_the_known_reasons() {
    for page in pages() {
        for reason in page.blocks.iter().filter_map(|block| block.not_run.as_deref()) {
            assert!(page::REASONS.contains(&reason), "{}: {reason:?}", page.name);
        }
    }
}

#[test]
fn every_profile_loads() {
    let mut loaded = 0;
    for page in pages() {
        for block in page.blocks.iter().filter(|block| block.language == "toml") {
            let text = completed(block);
            let file = Path::new("/nowhere/documented.toml");
            let profile = Profile::parse(
                "documented",
                &text,
                file,
                &Environment::of_process().with("HOME", "/nowhere"),
            );
            profile.unwrap_or_else(|error| panic!("{}: {error}\n{text}", page.name));
            loaded += 1;
        }
    }
    assert!(loaded >= 8, "only {loaded} profiles");
}

/// A part of a profile, with what it leaves out.
fn completed(block: &Block) -> String {
    let mut text = block.text.clone();
    let account = "[[transport]]\nname = \"work\"\nidentity = \"Ann <ann@example.org>\"\n";
    if !text.contains("[[transport]]") {
        let server = if text.contains("[transport.smtp]") {
            account.to_owned()
        } else {
            format!("{account}[transport.smtp]\nhost = \"smtp.example.org\"\n")
        };
        text = format!("{server}{text}");
    }
    if !text.contains("[store]") {
        text.push_str("\n[store]\nmaildir = \"/nowhere/Mail\"\n");
    } else if !text.contains("maildir") && text.contains("mda") {
        text = text.replace("[store]", "[store]\nsent = false");
    }
    text
}

#[test]
fn every_error_text_is_one_of_the_program() {
    let sources = sources();
    let pages = pages();
    let page = pages.iter().find(|page| page.name == "docs/troubleshooting.md").unwrap();
    let mut known = 0;
    for line in page.text.lines() {
        let Some(quoted) = line.strip_prefix("| `").and_then(|rest| rest.split_once("` |")) else {
            continue;
        };
        assert!(sources.contains(quoted.0), "no such text in the sources: {}", quoted.0);
        known += 1;
    }
    assert!(known >= 40, "only {known} texts");
}

#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for Page { name, text, .. } in pages() {
        let folder = root.join(&name).parent().unwrap().to_owned();
        for rest in text.split("](").skip(1) {
            let target = rest.split(')').next().unwrap().split('#').next().unwrap();
            if !target.is_empty() && !target.contains("://") {
                assert!(folder.join(target).exists(), "{name}: {target}");
            }
        }
    }
}
