//! What is logged, to standard error.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::args::LogFormat;

/// How much is said without `-v`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Talkativeness {
    /// A command: what it returns says what went wrong, so only what nobody returns.
    Command,
    /// The daemon: what it does.
    Daemon,
}

/// Starts logging. Called once.
pub(crate) fn start(base: Talkativeness, verbose: u8, format: LogFormat) {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter(base, verbose));
    // A program that embeds this one's parts may have set a logger; then that one is used.
    let _set_already = match format {
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal() && !has_no_color();
            registry.with(lines.with_ansi(colours)).try_init()
        }
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
}

/// Whether the user wants no colours (no-color.org).
fn has_no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// The dependencies that speak the mail protocols write whole lines of them into the log, also
/// those with a password: they are never heard, however often `-v` is given.
fn filter(base: Talkativeness, verbose: u8) -> Targets {
    let steps = match base {
        Talkativeness::Command => verbose,
        Talkativeness::Daemon => verbose.saturating_add(1),
    };
    let own = match steps {
        0 => LevelFilter::ERROR,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // It says of a certificate what the error says that it returns, in the middle of a dialogue.
    let verifier = if verbose == 0 { LevelFilter::OFF } else { LevelFilter::WARN };
    Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("rustls_platform_verifier", verifier)
        .with_target("postrider", own)
        .with_target("lettre", LevelFilter::OFF)
        .with_target("async_imap", LevelFilter::OFF)
        .with_target("imap_proto", LevelFilter::OFF)
        .with_target("imap_next", LevelFilter::OFF)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn protocol_lines_are_never_logged() {
        for verbose in 0..=9 {
            let filter = filter(Talkativeness::Daemon, verbose);
            for target in
                ["lettre::transport::smtp::client", "async_imap::imap_stream", "imap_proto::parser"]
            {
                assert!(!filter.would_enable(target, &Level::ERROR), "{target} at {verbose}");
            }
        }
    }

    #[test]
    fn what_an_error_says_anyway_is_not_logged_beside_it() {
        for base in [Talkativeness::Command, Talkativeness::Daemon] {
            let heard = |verbose| {
                filter(base, verbose)
                    .would_enable("rustls_platform_verifier::verification::others", &Level::ERROR)
            };
            assert_eq!((heard(0), heard(1)), (false, true));
        }
    }

    #[test]
    fn each_v_says_more() {
        let heard = |base, verbose| {
            let filter = filter(base, verbose);
            let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
            levels.iter().filter(|level| filter.would_enable("postrider::cli", level)).count()
        };
        let command: Vec<usize> = (0..5).map(|v| heard(Talkativeness::Command, v)).collect();
        assert_eq!(command, [1, 3, 4, 5, 5]);
        assert_eq!(heard(Talkativeness::Daemon, 0), 3);
    }
}
