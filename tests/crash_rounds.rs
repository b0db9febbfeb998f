//! The daemon is killed at random instants, again and again, with traffic both ways; at the end
//! every message has to be accounted for.
//!
//! `POSTRIDER_CRASH_ROUNDS` says how often it is killed (default 15), `POSTRIDER_SEED` repeats
//! the choices of an earlier run: what is sent, what is asked for, which faults strike and how
//! long each life lasts. The instants themselves are up to the machine.
//!
//! ```text
//! POSTRIDER_CRASH_ROUNDS=200 cargo test --test crash_rounds -- --nocapture
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs,
    dead_code
)]

#[path = "crash/ledger.rs"]
mod ledger;
#[path = "crash/life.rs"]
mod life;
#[path = "crash/mailbag.rs"]
mod mailbag;
#[path = "crash/traffic.rs"]
mod traffic;
#[path = "crash/verdict.rs"]
mod verdict;
#[path = "crash/weather.rs"]
mod weather;

#[path = "support/house.rs"]
mod house;
#[path = "support/maildir.rs"]
mod maildir;
#[path = "support/office.rs"]
mod office;
#[path = "support/program.rs"]
mod program;
#[path = "support/real.rs"]
mod real;

use std::sync::Arc;
use std::time::{Duration, Instant};

use house::{Account, profile_text};
use ledger::Ledger;
use life::Lives;
use mailbag::Mailbag;
use office::{account, office};
use program::Program;
use traffic::{LETTERS_PER_ROUND, Traffic};
use weather::Weather;

/// How long what is left may take when nothing is in its way any more.
const DRAIN: Duration = Duration::from_secs(180);

/// How often the daemon is killed unless the environment says otherwise.
const ROUNDS: u32 = 15;

fn from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value:?}")))
}

/// Proves: IB-6, SP-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_instant_nothing_is_lost_and_nothing_comes_twice() {
    let rounds = from_environment("POSTRIDER_CRASH_ROUNDS")
        .map_or(ROUNDS, |rounds| u32::try_from(rounds).unwrap());
    let seed =
        from_environment("POSTRIDER_SEED").unwrap_or_else(|| fastrand::u64(..u64::from(u32::MAX)));
    println!("crash_rounds: POSTRIDER_SEED={seed} POSTRIDER_CRASH_ROUNDS={rounds}");
    let begun = Instant::now();
    let mut dice = fastrand::Rng::with_seed(seed);

    let office = Arc::new(office().await);
    let dovecot = Arc::new(real::dovecot(&[]));
    let program = Arc::new(Program::new(&office, &[]));
    let config = program.path("config");
    let password = dovecot.password_of("ann").unwrap();
    let accounts = [
        account(&office, &config, &["after = \"delete\""]),
        Account::new("second", "Zoe Example <zoe@example.org>")
            .imap(real::imaps(&dovecot).login("ann", &password).with("after = \"seen\"")),
    ];
    program.write_profile(&profile_text(&accounts, &program.maildir()));

    let ledger = Arc::new(Ledger::default());
    let bag = Mailbag::new(Arc::clone(&office), Arc::clone(&dovecot), dice.fork());
    let traffic = Traffic::start(&program, &ledger, &mut dice);
    let mut lives = Lives::new(Arc::clone(&program), Arc::clone(&office));
    let mut weather = Weather::new(Arc::clone(&office), dice.fork());
    for round in 0..rounds {
        weather.change();
        traffic.allow(LETTERS_PER_ROUND);
        lives.begin().await;
        bag.fill(round).await;
        // A third is killed while it starts, or soon after; the others when they are at work.
        let begun = dice.u32(0..3) > 0;
        if begun {
            lives.ready().await;
        }
        lives.end_after(life_span(begun, &mut dice)).await;
        weather.shake();
        lives.check_spool(round).await;
        // Commands find no daemon for a while, sometimes.
        tokio::time::sleep(Duration::from_millis(dice.u64(0..200) * dice.u64(0..2))).await;
    }
    traffic.end().await;
    weather.clear();

    lives.begin().await;
    lives.drain(&ledger, &bag, DRAIN).await;
    lives.stop().await;
    lives.check_spool(rounds).await;
    // What the last life left behind is gone when the next one has been there.
    lives.begin().await;
    lives.ready().await;
    lives.stop().await;

    let verdict = verdict::judge(&ledger, &office, &bag, &lives, &program).await;
    println!("{verdict}");
    println!("crash_rounds: {rounds} rounds in {:.1} s", begun.elapsed().as_secs_f32());
    assert!(verdict.is_clean(), "see above; POSTRIDER_SEED={seed}");
    assert!(verdict.has_seen_enough(rounds), "the rounds did not try what they are to try");
}

/// How long a daemon lives, from its start or from when it is ready.
fn life_span(begun: bool, dice: &mut fastrand::Rng) -> Duration {
    let most = match (begun, dice.u32(0..8)) {
        (false, _) => 400,
        (true, 0) => 2500,
        (true, _) => 900,
    };
    Duration::from_millis(dice.u64(1..most))
}
