//! `top` at a real terminal (a pseudo terminal), before a daemon that stands still.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    missing_docs,
    dead_code
)]

#[path = "support/house.rs"]
mod house;
#[path = "support/office.rs"]
mod office;
#[path = "support/program.rs"]
mod program;
#[path = "support/terminal.rs"]
mod terminal;

use std::time::Duration;

use office::office;
use program::{Daemon, Program};
use rustix::process::{Pid, Signal, kill_process};
use terminal::Session;

/// How soon `q` has to end it: far below the time a request may take.
const AT_ONCE: Duration = Duration::from_secs(10);

fn signal(daemon: &Daemon, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

fn top(program: &Program) -> Session {
    let mut command = program.command(&["top"]);
    command.env("TERM", "xterm");
    let mut top = Session::start(command.into_std());
    top.shows("queue: ");
    top
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_stands_still_is_told_of_and_so_is_its_return() {
    let office = office().await;
    let program = Program::new(&office, &[]);
    let daemon = program.daemon().await;
    let mut top = top(&program);
    signal(&daemon, Signal::STOP);
    top.shows("does not answer");
    // Keys are heard meanwhile.
    top.type_in("f");
    top.shows("flushing");
    signal(&daemon, Signal::CONT);
    top.shows("answers again");
    top.shows("flushed: ");
    top.type_in("q");
    assert!(top.end_within(AT_ONCE).success());
}

#[tokio::test(flavor = "multi_thread")]
async fn q_ends_it_while_the_daemon_stands_still() {
    let office = office().await;
    let program = Program::new(&office, &[]);
    let daemon = program.daemon().await;
    for end in ["q", "\u{3}"] {
        let mut top = top(&program);
        signal(&daemon, Signal::STOP);
        top.type_in("f");
        top.shows("does not answer");
        top.type_in(end);
        assert!(top.end_within(AT_ONCE).success());
        signal(&daemon, Signal::CONT);
    }
}
