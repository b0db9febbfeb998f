//! `fetch` and `flush`: FlushQueues, with progress on a terminal.

use std::convert::Infallible;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::access::Place;
use super::args::FlushArguments;
use super::console::Console;
use super::exit::{Exit, Failure};
use crate::session::Logon;
use crate::session::{FlushRequest, FlushSummary, Service, StatusReport};

/// How often progress is looked at.
const GLANCE: Duration = Duration::from_millis(200);

/// `fetch`.
pub(crate) async fn fetch(place: &Place, console: &mut Console<'_>) -> Result<(), Failure> {
    let request = FlushRequest { upload: false, download: true };
    flush_queues(place, console, "fetch", request).await
}

/// `flush`; both directions when none is named.
pub(crate) async fn flush(
    place: &Place,
    console: &mut Console<'_>,
    arguments: &FlushArguments,
) -> Result<(), Failure> {
    let both = !arguments.upload && !arguments.download;
    let request =
        FlushRequest { upload: arguments.upload || both, download: arguments.download || both };
    flush_queues(place, console, "flush", request).await
}

async fn flush_queues(
    place: &Place,
    console: &mut Console<'_>,
    what: &str,
    request: FlushRequest,
) -> Result<(), Failure> {
    let shows_progress = console.shows_progress;
    let summary = place.with(what, Logon::Closed, async |access| {
        let service = access.service();
        let flushed = service.flush(request);
        let summary = if shows_progress {
            tokio::select! {
                summary = flushed => summary,
                never = show_progress(service, request) => match never {},
            }
        } else {
            flushed.await
        };
        summary.map_err(|error| Failure::contract(what, &error))
    });
    let summary = summary.await?;
    tell(&summary, request, console)
}

fn tell(
    summary: &FlushSummary,
    request: FlushRequest,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    if console.json {
        console.document(summary)?;
    } else {
        let mut words = Vec::new();
        if request.upload {
            words.push(format!("{} sent, {} left", summary.sent, summary.left));
        }
        if request.download {
            words.push(format!("{} received", summary.received));
        }
        console.line(words.join(", "))?;
    }
    for trouble in &summary.troubles {
        console.note(trouble);
    }
    // What could not be moved now stays where it is and can be tried again.
    if summary.troubles.is_empty() { Ok(()) } else { Err(Failure::silent(Exit::TryAgain)) }
}

/// Shows what moves until it is dropped.
async fn show_progress(service: &dyn Service, request: FlushRequest) -> Infallible {
    let bars = MultiProgress::new();
    let upload = request.upload.then(|| Progress::new(&bars, "sending"));
    let download = request.download.then(|| Progress::new(&bars, "receiving"));
    let (mut upload, mut download) = (upload, download);
    let mut glances = tokio::time::interval(GLANCE);
    loop {
        glances.tick().await;
        let Ok(report) = service.status().await else { continue };
        if let Some(bar) = &mut upload {
            bar.show(outstanding(&report));
        }
        if let Some(bar) = &mut download {
            bar.show(report.inbound.iter().map(|mailbox| mailbox.pending).sum());
        }
    }
}

fn outstanding(report: &StatusReport) -> u64 {
    let queue = &report.queue;
    queue.queued.saturating_add(queue.sending).saturating_add(queue.deferred)
}

/// A bar that knows only how much is left.
struct Progress {
    bar: ProgressBar,
    most: u64,
}

impl Progress {
    fn new(bars: &MultiProgress, name: &'static str) -> Self {
        let bar = bars.add(ProgressBar::new(0).with_message(name));
        let template = "{msg:10} {wide_bar} {pos}/{len}  {per_sec:>10}  {eta:>5} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Progress { bar, most: 0 }
    }

    fn show(&mut self, left: u64) {
        // More may have come in while it runs: the bar grows, it does not run backwards.
        let done = self.bar.position();
        self.most = self.most.max(done.saturating_add(left));
        self.bar.set_length(self.most);
        self.bar.set_position(self.most.saturating_sub(left).max(done));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_never_runs_backwards() {
        let bars = MultiProgress::with_draw_target(indicatif::ProgressDrawTarget::hidden());
        let mut progress = Progress::new(&bars, "sending");
        let mut shown = Vec::new();
        for left in [10, 7, 9, 3, 0] {
            progress.show(left);
            shown.push((progress.bar.position(), progress.bar.length()));
        }
        assert_eq!(
            shown,
            [(0, Some(10)), (3, Some(10)), (3, Some(12)), (9, Some(12)), (12, Some(12))]
        );
    }
}
