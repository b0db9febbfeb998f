//! Counters that only grow, by family and labels.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::exposition::{Exposition, Kind};

/// Most series of all families together: labels come from the profile, and this bounds what a
/// mistake in that can cost.
const MOST_SERIES: usize = 2000;

/// Upper bounds of the histogram of the time in the queue, in seconds.
const BOUNDS: [u64; 8] = [1, 5, 30, 300, 3_600, 14_400, 86_400, 432_000];

/// A family of counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    /// Messages accepted for sending.
    Accepted,
    /// Their size.
    AcceptedBytes,
    /// Attempts of which a server heard.
    Attempts,
    /// Messages that left the queue.
    Ended,
    /// Recipients of messages that left the queue.
    Recipients,
    /// Messages put into the store.
    Received,
    /// Reports put into INBOX.
    Reports,
    /// Times an account went into trouble.
    Troubles,
    /// Hooks that were run.
    Hooks,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Family::Accepted => "postrider_messages_accepted_total",
            Family::AcceptedBytes => "postrider_messages_accepted_bytes_total",
            Family::Attempts => "postrider_attempts_total",
            Family::Ended => "postrider_messages_ended_total",
            Family::Recipients => "postrider_recipients_total",
            Family::Received => "postrider_messages_received_total",
            Family::Reports => "postrider_reports_total",
            Family::Troubles => "postrider_troubles_total",
            Family::Hooks => "postrider_hooks_total",
        }
    }

    fn help(self) -> &'static str {
        match self {
            Family::Accepted => "Messages accepted for sending; each was durable when it counted.",
            Family::AcceptedBytes => "Bytes of the messages accepted for sending.",
            Family::Attempts => "Attempts of which a server heard, by what they came to.",
            Family::Ended => "Messages that left the queue.",
            Family::Recipients => "Recipients of messages that left the queue, by outcome.",
            Family::Received => "Messages put into the store, by mailbox.",
            Family::Reports => "Reports put into INBOX, by what they say.",
            Family::Troubles => "How often a direction of a transport went into trouble.",
            Family::Hooks => "Hooks that were called, by how that ended.",
        }
    }

    const ALL: [Family; 9] = [
        Family::Accepted,
        Family::AcceptedBytes,
        Family::Attempts,
        Family::Ended,
        Family::Recipients,
        Family::Received,
        Family::Reports,
        Family::Troubles,
        Family::Hooks,
    ];

    /// Whether it has a series before anything is counted: one without labels.
    fn starts_at_zero(self) -> bool {
        matches!(self, Family::Accepted | Family::AcceptedBytes)
    }
}

/// How a message left the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Finished,
    Cancelled,
}

/// The labels of a series.
type Labels = Vec<(&'static str, String)>;

/// Counters of one process.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    series: BTreeMap<(Family, Labels), u64>,
    /// How many messages took no longer than each bound; the last: longer than all.
    seconds: [u64; BOUNDS.len() + 1],
    seconds_sum: Duration,
}

impl Counters {
    /// Counts `count` more.
    pub(crate) fn add(&self, family: Family, labels: &[(&'static str, &str)], count: u64) {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let mut counted = self.lock();
        let full = counted.series.len() >= MOST_SERIES;
        let key = (family, labels);
        if full && !counted.series.contains_key(&key) {
            return;
        }
        let value = counted.series.entry(key).or_default();
        *value = value.saturating_add(count);
    }

    /// Counts a message that left the queue after this time.
    pub(crate) fn ended(&self, how: Ended, after: Duration) {
        let how = match how {
            Ended::Finished => "finished",
            Ended::Cancelled => "cancelled",
        };
        self.add(Family::Ended, &[("how", how)], 1);
        if how == "cancelled" {
            return;
        }
        let place = BOUNDS.iter().position(|bound| after <= Duration::from_secs(*bound));
        let mut counted = self.lock();
        if let Some(bucket) = counted.seconds.get_mut(place.unwrap_or(BOUNDS.len())) {
            *bucket = bucket.saturating_add(1);
        }
        counted.seconds_sum = counted.seconds_sum.saturating_add(after);
    }

    /// Writes all of them.
    pub(crate) fn expose(&self, out: &mut Exposition) {
        let counted = self.lock();
        for family in Family::ALL {
            out.family(family.name(), Kind::Counter, family.help());
            let mut any = false;
            for ((of, labels), value) in &counted.series {
                if *of == family {
                    any = true;
                    out.sample(family.name(), labels, *value);
                }
            }
            if !any && family.starts_at_zero() {
                out.sample(family.name(), &[], 0_u64);
            }
        }
        let name = "postrider_queue_seconds";
        out.family(name, Kind::Histogram, "Time from acceptance to the end of a message.");
        let bucket = format!("{name}_bucket");
        let mut sum = 0_u64;
        for (count, bound) in counted.seconds.iter().zip(BOUNDS) {
            sum = sum.saturating_add(*count);
            out.sample(&bucket, &[("le", bound.to_string())], sum);
        }
        sum = sum.saturating_add(counted.seconds.last().copied().unwrap_or_default());
        out.sample(&bucket, &[("le", "+Inf".to_owned())], sum);
        out.sample(&format!("{name}_sum"), &[], counted.seconds_sum.as_secs_f64());
        out.sample(&format!("{name}_count"), &[], sum);
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_labels_and_writes_a_cumulative_histogram() {
        let counters = Counters::default();
        counters.add(Family::Attempts, &[("transport", "a"), ("result", "deferred")], 2);
        counters.add(Family::Attempts, &[("transport", "a"), ("result", "deferred")], 1);
        counters.ended(Ended::Finished, Duration::from_secs(2));
        counters.ended(Ended::Finished, Duration::from_secs(1_000_000));
        counters.ended(Ended::Cancelled, Duration::from_secs(1));
        let mut out = Exposition::default();
        counters.expose(&mut out);
        let text = out.into_text();
        for line in [
            "postrider_messages_accepted_total 0",
            "postrider_attempts_total{transport=\"a\",result=\"deferred\"} 3",
            "postrider_messages_ended_total{how=\"finished\"} 2",
            "postrider_messages_ended_total{how=\"cancelled\"} 1",
            "postrider_queue_seconds_bucket{le=\"1\"} 0",
            "postrider_queue_seconds_bucket{le=\"5\"} 1",
            "postrider_queue_seconds_bucket{le=\"432000\"} 1",
            "postrider_queue_seconds_bucket{le=\"+Inf\"} 2",
            "postrider_queue_seconds_sum 1000002",
            "postrider_queue_seconds_count 2",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn series_have_a_bound() {
        let counters = Counters::default();
        for number in 0..MOST_SERIES + 10 {
            counters.add(Family::Received, &[("mailbox", &number.to_string())], 1);
        }
        assert_eq!(counters.lock().series.len(), MOST_SERIES);
        counters.add(Family::Received, &[("mailbox", "0")], 1);
        let known = (Family::Received, vec![("mailbox", "0".to_owned())]);
        assert_eq!(counters.lock().series.get(&known), Some(&2));
    }
}
