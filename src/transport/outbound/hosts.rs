//! In which order the hosts of an account are tried. Pure: no I/O, no clock.

use std::time::Duration;

use crate::mapi::SysTime;

/// How long a host that is out of reach is not tried first.
const FIRST_AGAIN: Duration = Duration::from_secs(5 * 60);

/// Which host is used, while it is not the first one.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    detour: Option<Detour>,
}

#[derive(Debug)]
struct Detour {
    host: usize,
    /// When the first one is tried again.
    first_again: SysTime,
    /// Why it is not used.
    why: String,
}

impl Hosts {
    /// The hosts to try, best first: the profile's order, or for a while after the first ones were
    /// out of reach from the one that worked.
    pub(super) fn order(&self, count: usize, now: SysTime) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        if let Some(detour) = &self.detour
            && now < detour.first_again
            && detour.host < count
        {
            order.rotate_left(detour.host);
        }
        order
    }

    /// A host was logged in to. `why` is what had kept the first one from being used, when that
    /// was tried.
    pub(super) fn connected(&mut self, host: usize, why: Option<String>, now: SysTime) {
        if host == 0 {
            self.detour = None;
            return;
        }
        let (first_again, why) = match (why, self.detour.take()) {
            (Some(why), _) => (now.saturating_add(FIRST_AGAIN), why),
            (None, Some(detour)) => (detour.first_again, detour.why),
            (None, None) => (now.saturating_add(FIRST_AGAIN), String::new()),
        };
        self.detour = Some(Detour { host, first_again, why });
    }

    /// The host that is used instead of the first one, and why.
    pub(super) fn detour(&self) -> Option<(usize, &str)> {
        self.detour.as_ref().map(|detour| (detour.host, detour.why.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SysTime {
        SysTime::from_millis(seconds * 1000)
    }

    #[test]
    fn the_first_one_is_left_alone_for_a_while_and_then_tried_again() {
        let mut hosts = Hosts::default();
        assert_eq!(hosts.order(3, at(0)), [0, 1, 2]);
        hosts.connected(1, Some("refused".to_owned()), at(0));
        assert_eq!((hosts.order(3, at(1)), hosts.detour()), (vec![1, 2, 0], Some((1, "refused"))));
        // Others are connected to it meanwhile; that makes the wait no longer.
        hosts.connected(1, None, at(200));
        assert_eq!(hosts.order(3, at(299)), [1, 2, 0]);
        assert_eq!(hosts.order(3, at(300)), [0, 1, 2]);
        hosts.connected(2, Some("still refused".to_owned()), at(300));
        assert_eq!(hosts.order(3, at(301)), [2, 0, 1]);
        hosts.connected(0, None, at(600));
        assert_eq!((hosts.order(3, at(600)), hosts.detour()), (vec![0, 1, 2], None));
    }

    #[test]
    fn one_host_is_always_itself() {
        let mut hosts = Hosts::default();
        hosts.connected(0, None, at(0));
        assert_eq!(hosts.order(1, at(0)), [0]);
    }
}
