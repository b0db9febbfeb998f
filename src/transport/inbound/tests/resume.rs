//! A large message goes on where it stopped.

use std::time::Duration;

use postoffice::{Action, Fault, ImapAction, ImapPhase};

use super::rig::{LONG, Rig, message, struck};

const SIZE: usize = 200_000;
const PIECE: u32 = 10_000;

async fn rig() -> Rig {
    let mut rig = Rig::new().await;
    rig.settings.tuning.small = 2000;
    rig.settings.tuning.piece = PIECE;
    rig.deliver([message(1, SIZE)]);
    rig
}

/// Offsets and lengths of the pieces that were asked for, in order.
fn asked(rig: &Rig) -> Vec<(u64, u64)> {
    let text = rig.office.transcript_text();
    let pieces = text.split("BODY.PEEK[]<").skip(1).filter_map(|rest| {
        let (offset, length) = rest.split('>').next()?.split_once('.')?;
        Some((offset.parse().ok()?, length.parse().ok()?))
    });
    pieces.collect()
}

/// How often the octets of the message were asked for, beside the last piece, which is asked for
/// to see the end, and the looks at the ends of what there is.
fn twice(rig: &Rig) -> u64 {
    let octets: u64 = asked(rig).iter().map(|(_, length)| length).sum();
    octets.saturating_sub(SIZE as u64)
}

/// A broken connection and the piece that was on it; two looks of 4 KiB.
const ONCE_MORE: u64 = 2 * PIECE as u64 + 2 * 4096 + PIECE as u64;

/// Waits until something is kept and tells how many octets: what was being handed over ends by
/// itself.
async fn kept(rig: &Rig) -> u64 {
    let kept = async {
        loop {
            if let Some(kept) = rig.store.beginnings.lock().unwrap().values().next() {
                return kept.len() as u64;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, kept).await.unwrap()
}

/// Proves: IB-6
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_costs_one_piece() {
    let rig = rig().await;
    let cut = Fault::imap(ImapPhase::MidLiteral, Action::Drop).nth(12).once();
    let cut = rig.office.inject(cut);
    let life = rig.start();
    rig.saved(1).await;
    assert_eq!(cut.hits(), 1);
    rig.assert_same(vec![message(1, SIZE)]);
    assert!(twice(&rig) <= ONCE_MORE, "{:?}", asked(&rig));
    assert!(asked(&rig).contains(&(110_000, u64::from(PIECE))), "{:?}", asked(&rig));
    assert_eq!(asked(&rig).iter().filter(|piece| piece.0 == 0).count(), 2, "{:?}", asked(&rig));
    life.inbound.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_life_goes_on_where_the_last_one_stopped() {
    let rig = rig().await;
    let hang = Fault::imap(ImapPhase::MidLiteral, Action::Hang).nth(12).once();
    let hang = rig.office.inject(hang);
    let life = rig.start();
    struck(&hang, 1).await;
    life.inbound.stop(Duration::ZERO).await;
    let kept = kept(&rig).await;
    assert!(kept >= 100_000, "{kept}");
    let before = asked(&rig).len();
    rig.one_flush().await;
    rig.assert_same(vec![message(1, SIZE)]);
    let again = &asked(&rig)[before..];
    assert_eq!(again[..3], [(0, 4096), (kept - 4096, 4096), (kept, 10_000)], "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_fetched_anew() {
    for wrong in [10, 109_990] {
        let rig = rig().await;
        let cut = Fault::imap(ImapPhase::MidLiteral, Action::Drop).nth(12).once();
        rig.office.inject(cut);
        // No second try before what was kept has been changed.
        let gone =
            rig.office.inject(Fault::imap(ImapPhase::Login, ImapAction::No("wait".into())).nth(2));
        let life = rig.start();
        struck(&gone, 1).await;
        kept(&rig).await;
        {
            let mut beginnings = rig.store.beginnings.lock().unwrap();
            let kept = beginnings.values_mut().next().unwrap();
            assert_eq!(kept.len(), 110_000);
            kept[wrong] ^= 1;
        }
        rig.office.remove_faults();
        rig.saved(1).await;
        rig.assert_same(vec![message(1, SIZE)]);
        assert!(asked(&rig).iter().filter(|piece| **piece == (0, 10_000)).count() == 2);
        life.inbound.stop(LONG).await;
    }
}

/// A server that answers nonsense for a piece has not said anything about what came before; still
/// the message is taken from its start then.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_contradiction_nothing_is_kept() {
    let rig = rig().await;
    let nothing = Fault::imap(ImapPhase::Fetch, ImapAction::FetchNothing).matching("<110000.");
    let nothing = rig.office.inject(nothing.once());
    let life = rig.start();
    rig.saved(1).await;
    assert_eq!(nothing.hits(), 1);
    rig.assert_same(vec![message(1, SIZE)]);
    assert_eq!(asked(&rig).iter().filter(|piece| **piece == (0, 10_000)).count(), 2);
    assert!(rig.store.beginnings.lock().unwrap().is_empty());
    life.inbound.stop(LONG).await;
}
