//! The pages and their blocks.

use std::path::Path;

/// Why a block may be left out.
pub(crate) const REASONS: [&str; 4] =
    ["changes the machine", "builds programs", "for a profile of yours", "asks a person"];

pub(crate) struct Page {
    /// Path below the root of the tree.
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) blocks: Vec<Block>,
}

/// What stands between two fences.
pub(crate) struct Block {
    pub(crate) language: String,
    pub(crate) text: String,
    /// The heading it stands below.
    pub(crate) section: String,
    /// The reason of the mark before it.
    pub(crate) not_run: Option<String>,
}

/// README.md and everything in docs/.
pub(crate) fn pages() -> Vec<Page> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = vec!["README.md".to_owned()];
    for entry in std::fs::read_dir(root.join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            names.push(format!("docs/{name}"));
        }
    }
    names.sort();
    let read = |name: String| {
        let text = std::fs::read_to_string(root.join(&name)).unwrap();
        Page { blocks: blocks(&text), name, text }
    };
    names.into_iter().map(read).collect()
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let (mut open, mut mark, mut section) = (None::<Block>, None, String::new());
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, Some(language)) => {
                let language = language.trim().to_owned();
                let (section, not_run) = (section.clone(), mark.take());
                open = Some(Block { language, text: String::new(), section, not_run });
            }
            (None, None) => {
                if line.starts_with('#') {
                    section = line.to_owned();
                }
                let reason = line.strip_prefix("<!-- not run: ");
                mark = reason.and_then(|rest| rest.strip_suffix(" -->")).map(str::to_owned);
            }
        }
    }
    assert!(open.is_none(), "a block does not end");
    blocks
}

/// All sources of the library as one text, with the lines of long texts joined.
pub(crate) fn sources() -> String {
    let mut text = String::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
    let mut joined = String::new();
    let mut parts = text.split("\\\n");
    joined.push_str(parts.next().unwrap());
    parts.for_each(|part| joined.push_str(part.trim_start()));
    joined.replace("\\\"", "\"")
}

fn collect(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}
