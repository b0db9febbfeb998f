//! `fsck`.

use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};

use super::access::Place;
use super::args::FsckArguments;
use super::console::Console;
use super::exit::{Exit, Failure};
use super::table::{Mood, Table};
use super::text::size;
use crate::mapi::{MapiCode, MapiError};
use crate::session::{FsckEvent, FsckReport, FsckRequest, Logon, Service};
use crate::spool::{CheckMode, CheckPhase, CheckProgress, FindingKind, Remedy};

/// Exit 0 when all is well, 1 when something was found, mended or not.
pub(crate) async fn fsck(
    place: &Place,
    console: &mut Console<'_>,
    arguments: &FsckArguments,
) -> Result<(), Failure> {
    let export = match &arguments.export {
        // The daemon works in a folder of its own.
        Some(folder) => Some(
            std::path::absolute(folder)
                .map_err(|error| Failure::io(format!("export to {}", folder.display()), &error))?,
        ),
        None => None,
    };
    let mode = if arguments.repair { CheckMode::Repair } else { CheckMode::Look };
    let request = FsckRequest { mode, export };
    let checked = place.with("check the spool", Logon::None, async |access| {
        let report = listen(access.service(), request.clone(), console).await;
        report.map_err(|error| Failure::contract("check the spool", &error))
    });
    let report = match checked.await {
        Err(failure) if failure.code == Some(MapiCode::CORRUPT_STORE) => {
            let why = failure.line().unwrap_or_default();
            let report = place.opener.fsck_unreadable(&why, request).await;
            report.map_err(|error| Failure::contract("check the spool", &error))?
        }
        checked => checked?,
    };
    if console.json {
        console.document(&report)?;
    } else {
        tell(&report, console)?;
    }
    if report.check.is_clean() { Ok(()) } else { Err(Failure::silent(Exit::Negative)) }
}

async fn listen(
    service: &dyn Service,
    request: FsckRequest,
    console: &Console<'_>,
) -> Result<FsckReport, MapiError> {
    let mut events = service.fsck(request).await?;
    let mut shown = console.shows_progress.then(Progress::default);
    while let Some(event) = events.next().await {
        match event? {
            FsckEvent::Report(report) => return Ok(*report),
            FsckEvent::Progress(progress) => {
                if let Some(shown) = &mut shown {
                    shown.show(progress);
                }
            }
        }
    }
    Err(MapiError::new(MapiCode::NETWORK_ERROR, "the check ended without a report"))
}

/// How far the check is: which phase, how many in it, how fast. How many there will be nobody
/// knows before they were looked at.
#[derive(Default)]
struct Progress {
    bar: Option<(CheckPhase, ProgressBar)>,
}

impl Progress {
    fn show(&mut self, progress: CheckProgress) {
        if self.bar.as_ref().is_none_or(|(phase, _)| *phase != progress.phase) {
            self.end();
            let (step, what) = name_of(progress.phase);
            let bar = ProgressBar::new_spinner();
            let template = "checking {msg:20} {pos:>9}  {per_sec:>12}  {elapsed:>5}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_message(format!("{what} ({step} of 6)"));
            self.bar = Some((progress.phase, bar));
        }
        if let Some((_, bar)) = &self.bar {
            bar.set_position(progress.done);
        }
    }

    fn end(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

fn name_of(phase: CheckPhase) -> (u8, &'static str) {
    match phase {
        CheckPhase::Records => (1, "records"),
        CheckPhase::Bodies => (2, "bodies"),
        CheckPhase::Messages => (3, "messages"),
        CheckPhase::Indexes => (4, "indexes"),
        CheckPhase::Files => (5, "files"),
        CheckPhase::Counts => (6, "counts"),
    }
}

fn kind_name(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::UnreadableRecord => "unreadable record",
        FindingKind::UnknownRow => "unknown row",
        FindingKind::DanglingIndex => "dangling index",
        FindingKind::MissingIndex => "missing index",
        FindingKind::DamagedBody => "damaged body",
        FindingKind::LostBodyRow => "lost body row",
        FindingKind::WrongUseCount => "wrong use count",
        FindingKind::UnusedBody => "unused body",
        FindingKind::OrphanBody => "orphan body",
        FindingKind::StagingLeftover => "leftover",
        FindingKind::WrongTombstone => "wrong tombstone",
        FindingKind::WrongCounts => "wrong counts",
        FindingKind::UnreadableTree => "unreadable spool",
    }
}

fn remedy_name(remedy: Remedy) -> (String, Mood) {
    let (name, mood) = match remedy {
        Remedy::Repairable => ("repairable", Mood::Bad),
        Remedy::Repaired => ("repaired", Mood::Good),
        Remedy::SetAside => ("set aside", Mood::Waiting),
        Remedy::InUse => ("in use", Mood::Waiting),
    };
    (name.to_owned(), mood)
}

fn tell(report: &FsckReport, console: &mut Console<'_>) -> Result<(), Failure> {
    let check = &report.check;
    if !check.findings.is_empty() {
        let mut table = Table::new(&["FOUND", "WHERE", "DETAIL", "REMEDY"]);
        for finding in &check.findings {
            table.moody_row([
                (kind_name(finding.kind).to_owned(), Mood::Plain),
                (finding.what.clone(), Mood::Plain),
                (finding.detail.clone(), Mood::Plain),
                remedy_name(finding.remedy),
            ]);
        }
        table.print(console)?;
    }
    console.line(format_args!(
        "{} messages, {} histories, {} bodies ({}): {}",
        check.messages,
        check.histories,
        check.bodies,
        size(check.body_bytes),
        match check.found() {
            0 => "clean".to_owned(),
            found => format!("{found} found"),
        }
    ))?;
    for (count, what) in [
        (check.quarantined, "records in quarantine"),
        (check.set_aside, "messages on hold because their body is lost"),
    ] {
        if count > 0 {
            console.line(format_args!("{count} {what}"))?;
        }
    }
    if let Some(exported) = &report.exported {
        console.line(format_args!(
            "exported to {}: {} messages ({} of them in part), {} records",
            exported.folder.display(),
            exported.messages,
            exported.incomplete,
            exported.records
        ))?;
    }
    if !check.is_clean() && check.mode == CheckMode::Look {
        console.note("nothing was changed; `postrider fsck --repair` mends it");
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cli::access::fake::place;
    use crate::control::fake::FakeService;

    async fn run(fake: FakeService, arguments: &FsckArguments) -> (Result<(), Failure>, String) {
        let at = place(fake, 0);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut console = Console::new(&mut out, &mut err, false);
        let answer = fsck(&at.place, &mut console, arguments).await;
        let calls = at.fake.calls().join(" ");
        assert!(calls.starts_with("fsck "), "{calls}");
        (answer, String::from_utf8(out).unwrap())
    }

    #[tokio::test]
    async fn a_clean_spool_is_exit_0_and_a_finding_is_exit_1() {
        let look = FsckArguments { repair: false, export: None };
        let (answer, out) = run(FakeService::default(), &look).await;
        assert_eq!((answer, out.contains("5 messages") && out.contains("clean")), (Ok(()), true));
        let fake = FakeService { damaged: true, ..FakeService::default() };
        let (answer, out) = run(fake, &look).await;
        assert_eq!(answer.unwrap_err().exit, Exit::Negative);
        assert!(out.contains("missing index") && out.contains("1 found"), "{out}");
    }
}
