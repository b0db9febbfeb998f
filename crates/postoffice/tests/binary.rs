//! The program itself.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

#[test]
fn it_prints_where_it_is_and_ends_at_sigterm() {
    let folder = std::env::temp_dir().join(format!("postoffice-test-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let ca_file = folder.join("ca.pem");
    let mut child = Command::new(env!("CARGO_BIN_EXE_postoffice"))
        .args(["--user", "ann:secret", "--transcript", "--ca-file"])
        .arg(&ca_file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let printed: Vec<String> = lines.by_ref().take_while(|line| line != "ready").collect();
    let keys: Vec<&str> = printed.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(keys, ["smtp", "smtps", "imap", "imaps", "ca-file", "fingerprint"]);
    let pem = std::fs::read_to_string(&ca_file).unwrap();
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----"), "{pem}");
    let address = printed[0].trim_start_matches("smtp smtp://");
    let mut greeting = String::new();
    let connection = std::net::TcpStream::connect(address).unwrap();
    BufReader::new(connection).read_line(&mut greeting).unwrap();
    assert_eq!(greeting, "220 localhost ESMTP postoffice\r\n");
    let status = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(status.success());
    assert!(child.wait().unwrap().success());
    let transcript: Vec<String> = lines.collect();
    assert!(transcript.iter().any(|line| line.contains("S: 220 localhost")), "{transcript:?}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn wrong_arguments_are_refused() {
    for arguments in [["--user", "ann"], ["--certificate", "rotten"], ["--smtp", "port"]] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_postoffice")).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}
