//! What every bench prints for a program to read: one line per figure.
//!
//! ```text
//! figure NAME VALUE UNIT ratio RATIO aim AIM
//! ```
//!
//! `NAME` is `<bench>.<what>`, `<bench>` being the name of the program in `benches/`, so that a
//! reader knows what to run again. `RATIO` is always "more is better" and compares with something
//! measured in the same run, so that it says the same on another machine: ours by the peer's for
//! a rate, the peer's (or the floor, or what is allowed) by ours for a cost. `AIM` is the ratio
//! from which the figure is as good as it should be, or `-` when it is only told.
//! `ci/bench-compare` reads these lines, from a run and from `docs/performance*.md`.

/// Prints a figure. No part may contain white space.
pub(crate) fn figure(name: &str, value: f64, unit: &str, ratio: f64, aim: Option<f64>) {
    let aim = aim.map_or_else(|| "-".to_owned(), short);
    println!("figure {name} {} {unit} ratio {} aim {aim}", short(value), short(ratio));
}

/// Three significant digits at least, and no more than anybody reads.
fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        small if small >= 0.1 || small == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
