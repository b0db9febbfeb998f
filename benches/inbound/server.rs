//! Dovecot with mailboxes that are filled by hand, which is quicker than delivering to them.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use realservers::Dovecot;

use crate::real;

/// Dovecot with the users ann and bob.
pub(crate) fn start() -> Dovecot {
    real::dovecot(&[])
}

/// Sizes as those of real mail: log-normal, most of a few KB, a few very large, 12.7 KB on average.
pub(crate) fn sizes(count: usize) -> Vec<usize> {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut sizes: Vec<f64> = (0..count)
        .map(|_| {
            let (one, two) = (rng.f64().max(1e-12), rng.f64());
            let normal = (-2.0 * one.ln()).sqrt() * (std::f64::consts::TAU * two).cos();
            (8.2 + 1.4 * normal).exp()
        })
        .collect();
    let scale = 12_700.0 * count as f64 / sizes.iter().sum::<f64>();
    sizes.iter_mut().for_each(|size| *size *= scale);
    sizes.into_iter().map(|size| (size as usize).max(300)).collect()
}

/// A message of about this size, with LF as Dovecot stores it.
pub(crate) fn message(number: usize, size: usize) -> Vec<u8> {
    let mut text = format!(
        "From: bob@example.test\nTo: ann@example.test\nSubject: number {number}\n\
         Message-ID: <{number}@example.test>\n\n"
    )
    .into_bytes();
    let mut rng = fastrand::Rng::with_seed(number as u64);
    while text.len() < size {
        let line: Vec<u8> = (0..76).map(|_| rng.alphanumeric() as u8).collect();
        text.extend_from_slice(&line);
        text.push(b'\n');
    }
    text
}

/// Puts messages of these sizes into INBOX and lets Dovecot index it.
pub(crate) fn fill(dovecot: &Dovecot, user: &str, sizes: &[usize]) {
    let root = dovecot.maildir(user, "INBOX");
    // Dovecot makes the folders.
    dovecot.log_in(user).unwrap().command("SELECT INBOX").unwrap();
    for (number, size) in sizes.iter().enumerate() {
        place(
            &root,
            &message(number, *size),
            &format!("{}.M{number}P1.bench", 1_700_000_000 + number),
        );
    }
    let mut probe = dovecot.log_in(user).unwrap();
    probe.command("EXAMINE INBOX").unwrap();
}

/// Moves a message into the Maildir of Dovecot.
pub(crate) fn place(root: &Path, text: &[u8], name: &str) {
    let lines = memchr::memchr_iter(b'\n', text).count();
    let name = format!("{name},S={},W={}", text.len(), text.len() + lines);
    let tmp = root.join("tmp").join(&name);
    fs::write(&tmp, text).unwrap();
    let owner = fs::metadata(root).unwrap();
    if owner.uid() != fs::metadata(&tmp).unwrap().uid() {
        chown(&tmp, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    fs::rename(&tmp, root.join("new").join(&name)).unwrap();
}
