//! The text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write};

/// What kind of family it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A text that grows family by family.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    text: String,
}

impl Exposition {
    /// Begins a family; its samples follow.
    pub(crate) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        self.text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// One sample of the family that was begun.
    pub(crate) fn sample(
        &mut self,
        name: &str,
        labels: &[(&'static str, String)],
        value: impl Display,
    ) {
        self.text.push_str(name);
        for (place, (label, value)) in labels.iter().enumerate() {
            self.text.push(if place == 0 { '{' } else { ',' });
            self.text.push_str(&format!("{label}=\"{}\"", escaped(value)));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        // Writing to a text does not fail.
        let _ = writeln!(self.text, " {value}");
    }

    /// The text.
    pub(crate) fn into_text(self) -> String {
        self.text
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_cannot_break_out_of_their_quotes() {
        let mut out = Exposition::default();
        out.family("x", Kind::Gauge, "two\nlines");
        out.sample("x", &[("name", "a\"b\\c\nd".to_owned()), ("other", "ü".to_owned())], 1.5);
        assert_eq!(
            out.into_text(),
            "# HELP x two\\nlines\n# TYPE x gauge\nx{name=\"a\\\"b\\\\c\\nd\",other=\"ü\"} 1.5\n"
        );
    }
}
