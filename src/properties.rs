//! What has to hold whatever bytes come from outside: one function a door, called with any bytes
//! by the tests below, by `fuzz/`, and by nobody else. A property that does not hold panics.
//!
//! `fuzz/corpus/NAME/` holds the beginnings. `cargo test --lib properties::` tries them, a number of
//! mutations of them, and some bytes of no origin; `POSTRIDER_PROPERTY_SECONDS` says how long each
//! door is tried instead. `ci/fuzz NAME` looks for new paths by coverage.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice
)]

pub use crate::cli::sendmail_property as sendmail;
pub use crate::control::properties::control;
pub use crate::mime::properties::{addresses, header, message_bytes, message_out};
pub use crate::net::properties::imap_reply;
pub use crate::profile::properties::profile;
pub use crate::spool::properties::spool_rows;
pub use crate::transport::reply_property as reply;

/// Takes bytes apart into values: short of bytes, everything is nothing.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// As many bytes as the next says, at most those left.
    pub(crate) fn piece(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (piece, rest) = self.0.split_at(length);
        self.0 = rest;
        piece
    }

    pub(crate) fn text(&mut self) -> String {
        String::from_utf8_lossy(self.piece()).into_owned()
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Runs what waits for nothing but its own streams.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(work))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::time::{Duration, Instant};

    /// Mutations where no time is given.
    const MUTATIONS: u64 = 500;

    /// Pieces that mean something to one of the doors.
    const WORDS: &[&str] = &[
        "\r\n",
        "\n",
        "\r",
        "\0",
        "\r\n\r\n",
        " ",
        "\t",
        "\"",
        "\\",
        "<",
        ">",
        "@",
        ",",
        ";",
        ":",
        "(",
        ")",
        "[",
        "]",
        "=?utf-8?Q?",
        "?=",
        "=?x?B?",
        "--",
        "--b",
        "Bcc: ",
        "Resent-To: ",
        "Content-Type: multipart/mixed; boundary=b\r\n",
        "Content-Type: message/rfc822\r\n",
        "Content-Transfer-Encoding: base64\r\n",
        "550 ",
        "550-",
        "5.7.1 ",
        "421 ",
        "250 ",
        "NO [",
        "backoff time: 99999999999999999999",
        "[[transport]]\n",
        "password = \"",
        "= { ",
        "'''",
        "\u{e4}",
        "\u{202e}",
        "\u{feff}",
        "HTTP/1.1\r\n",
        "content-length: ",
        "%2f",
        "{\"",
        "}",
        "\u{ff}",
        "18446744073709551616",
        "-1",
    ];

    fn corpus(name: &str) -> Vec<Vec<u8>> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut files: Vec<PathBuf> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "no corpus for {name}");
        files.iter().map(|file| fs::read(file).unwrap()).collect()
    }

    /// Changes a few places: bytes, runs of bytes, words, and pieces of another beginning.
    fn mutate(bytes: &mut Vec<u8>, other: &[u8], dice: &mut fastrand::Rng) {
        for _ in 0..dice.u32(1..6) {
            let at = dice.usize(..=bytes.len());
            let end = (at + dice.usize(..16)).min(bytes.len());
            match dice.u32(0..7) {
                0 if at < bytes.len() => bytes[at] ^= 1 << dice.u32(0..8),
                1 if at < bytes.len() => bytes[at] = dice.u8(..),
                2 => drop(bytes.drain(at..end)),
                3 => {
                    let again = bytes[at..end].repeat(dice.usize(1..40));
                    bytes.splice(at..at, again);
                }
                4 => {
                    let from = dice.usize(..=other.len());
                    let to = (from + dice.usize(..64)).min(other.len());
                    bytes.splice(at..end, other[from..to].iter().copied());
                }
                5 => bytes.truncate(at),
                _ => {
                    let word = dice.choice(WORDS).unwrap();
                    bytes.splice(at..end, word.bytes());
                }
            }
        }
        bytes.truncate(64 * 1024);
    }

    fn try_door(name: &str, door: fn(&[u8])) {
        let corpus = corpus(name);
        corpus.iter().for_each(|bytes| door(bytes));
        let seconds = std::env::var("POSTRIDER_PROPERTY_SECONDS").ok();
        let limit = seconds.map(|seconds| Duration::from_secs(seconds.parse().unwrap()));
        let seed = std::env::var("POSTRIDER_SEED").map_or(7, |seed| seed.parse().unwrap());
        let mut dice = fastrand::Rng::with_seed(seed);
        // What was come across lately is where the next mutations begin, now and then.
        let mut pool = corpus.clone();
        let began = Instant::now();
        let mut cases = 0;
        loop {
            let enough = match limit {
                Some(limit) => began.elapsed() >= limit,
                None => cases >= MUTATIONS,
            };
            if enough {
                break;
            }
            let mut bytes = dice.choice(&pool).unwrap().clone();
            if dice.u32(0..50) == 0 {
                bytes = (0..dice.usize(..400)).map(|_| dice.u8(..)).collect();
            }
            let other = dice.choice(&pool).unwrap().clone();
            mutate(&mut bytes, &other, &mut dice);
            let outcome = std::panic::catch_unwind(|| door(&bytes));
            if outcome.is_err() {
                let shown = bytes.escape_ascii().to_string();
                let found = std::env::temp_dir().join(format!("postrider-{name}.found"));
                fs::write(&found, &bytes).unwrap();
                panic!("{name}, case {cases} ({}): {shown}", found.display());
            }
            cases += 1;
            if dice.u32(0..20) == 0 {
                let place = dice.usize(..(pool.len() + 1).min(500));
                match pool.get_mut(place.max(corpus.len())) {
                    Some(old) => *old = bytes,
                    None => pool.push(bytes),
                }
            }
        }
        println!(
            "property {name}: {} beginnings, {cases} mutations, seed {seed}, {:.0} s",
            corpus.len(),
            began.elapsed().as_secs_f32()
        );
    }

    macro_rules! doors {
        ($($door:ident),*) => {
            $(#[test]
            fn $door() {
                try_door(stringify!($door), super::$door);
            })*

            #[test]
            fn every_door_has_its_target() {
                let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
                let manifest = fs::read_to_string(root.join("fuzz/Cargo.toml")).unwrap();
                for door in [$(stringify!($door)),*] {
                    assert!(manifest.contains(&format!("name = \"{door}\"")), "{door}");
                    let target = root.join(format!("fuzz/fuzz_targets/{door}.rs"));
                    assert!(fs::read_to_string(target).unwrap().contains(&format!("::{door}(")));
                }
            }
        };
    }

    doors!(
        addresses,
        control,
        header,
        imap_reply,
        message_bytes,
        message_out,
        profile,
        reply,
        sendmail,
        spool_rows
    );

    /// `MessageParser::parse` panics on some nested messages: nothing from outside may reach it.
    #[test]
    fn the_parser_that_panics_is_used_in_tests_only() {
        fn look(folder: &std::path::Path) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap();
                if path.is_dir() && name != "tests" {
                    look(&path);
                }
                let is_test = name.contains("tests") || name == "properties.rs";
                if name.ends_with(".rs") && !is_test {
                    let text = fs::read_to_string(&path).unwrap();
                    let text = text.split("#[cfg(test)]").next().unwrap();
                    assert!(!text.contains("MessageParser"), "{}", path.display());
                }
            }
        }
        look(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src"));
    }
}
