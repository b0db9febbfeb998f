//! Texts of others on a terminal: no control characters, one line, not too long.

/// The text in one line: line ends and the blanks around them become one space, other control
/// characters (which could steer the terminal) a question mark.
pub(crate) fn one_line(text: &str) -> String {
    let joined: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let shown = |c: char| {
        let steers =
            c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if steers { '?' } else { c }
    };
    joined.join(" ").replace('\t', " ").chars().map(shown).collect()
}

/// Bytes for people: `17 B`, `4.2 kB`, `13 MB`.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    // In tenths of the unit, rounded half up.
    let mut divisor: u64 = 100;
    for unit in units {
        let tenths = (bytes + divisor / 2) / divisor;
        if tenths < 100 {
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
        if tenths < 9995 || unit == "TB" {
            return format!("{} {unit}", (tenths + 5) / 10);
        }
        divisor *= 1000;
    }
    format!("{bytes} B")
}

/// An RFC 3339 instant as people read it, seen from `now`: `in 5m`, `3h ago`; as it is when it
/// cannot be read.
pub(crate) fn relative(instant: &str, now: jiff::Timestamp) -> String {
    let Ok(then) = instant.parse::<jiff::Timestamp>() else { return one_line(instant) };
    let seconds = then.as_second().saturating_sub(now.as_second());
    match seconds {
        0 => "now".to_owned(),
        1.. => format!("in {}", span(seconds.unsigned_abs())),
        _ => format!("{} ago", span(seconds.unsigned_abs())),
    }
}

fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(one_line("a\r\n  b\n\nc"), "a b c");
        assert_eq!(one_line("\u{1b}[31mred\u{7}\tx"), "?[31mred? x");
        assert_eq!(one_line("Grüße \u{202e}evil"), "Grüße ?evil");
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (4249, "4.2 kB"),
            (9_949, "9.9 kB"),
            (12_600, "13 kB"),
            (999_400, "999 kB"),
            (999_500, "1.0 MB"),
            (13_000_000, "13 MB"),
            (2_000_000_000, "2.0 GB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn times_are_seen_from_now() {
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        for (instant, text) in [
            ("2026-01-02T03:04:05Z", "now"),
            ("2026-01-02T03:04:35Z", "in 30s"),
            ("2026-01-02T03:14:05Z", "in 10m"),
            ("2026-01-01T21:04:05Z", "6h ago"),
            ("2025-12-30T03:04:05Z", "3d ago"),
            ("soon", "soon"),
        ] {
            assert_eq!(relative(instant, now), text, "{instant}");
        }
    }
}
