//! Which transport gets which recipient; pure (AT-3, AT-4, OB-20).

use std::collections::BTreeSet;

use crate::mapi::Recipient;
use crate::spi::AddressTypes;

/// What routing knows of a transport. Targets are given in transport order.
#[derive(Clone, Debug)]
pub(crate) struct RouteTarget {
    /// Name in the profile.
    pub(crate) name: String,
    /// Addresses that choose it as senders: its identity and aliases.
    pub(crate) senders: Vec<String>,
    /// What it takes; `None` while it is not logged on. Such a target still gets what is meant
    /// for it by its sender or account, which then waits instead of taking the wrong way.
    pub(crate) types: Option<AddressTypes>,
}

/// What routing needs of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RouteRequest<'a> {
    /// Address of the sender.
    pub(crate) sender: &'a str,
    /// `PR_PRIMARY_SEND_ACCOUNT` (OB-20).
    pub(crate) account: Option<&'a str>,
    /// The recipient table; rows with responsibility are left alone.
    pub(crate) recipients: &'a [Recipient],
}

/// Recipients by transport.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Routing {
    /// Index of the target and the rows it gets, in the order in which targets are to be asked.
    pub(crate) groups: Vec<(usize, BTreeSet<u32>)>,
    /// Rows that nobody takes.
    pub(crate) nobody: BTreeSet<u32>,
}

/// Assigns every open recipient to the first target that matches, `refused` pairs of target and
/// row left out (they answered `MAPI_E_NOT_ME`).
pub(crate) fn route(
    targets: &[RouteTarget],
    request: RouteRequest<'_>,
    refused: &BTreeSet<(usize, u32)>,
) -> Routing {
    let order = order_of_asking(targets, request);
    let mut routing = Routing::default();
    for recipient in request.recipients.iter().filter(|recipient| !recipient.responsibility) {
        let open = |index: &usize| !refused.contains(&(*index, recipient.row));
        match first_match(targets, &order, request, recipient, open) {
            None => {
                routing.nobody.insert(recipient.row);
            }
            Some(index) => match routing.groups.iter_mut().find(|(target, _)| *target == index) {
                Some((_, rows)) => {
                    rows.insert(recipient.row);
                }
                None => routing.groups.push((index, BTreeSet::from([recipient.row]))),
            },
        }
    }
    routing
}

impl RouteTarget {
    fn is_chosen(&self, request: RouteRequest<'_>) -> bool {
        request.account.is_some_and(|account| account.eq_ignore_ascii_case(&self.name))
    }

    fn is_own(&self, request: RouteRequest<'_>) -> bool {
        self.senders.iter().any(|own| own.eq_ignore_ascii_case(request.sender))
    }
}

/// The chosen account, then the sender's, then transport order; those that take anything last.
fn order_of_asking(targets: &[RouteTarget], request: RouteRequest<'_>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..targets.len()).collect();
    order.sort_by_key(|index| {
        let target = targets.get(*index);
        let chosen = target.is_some_and(|target| target.is_chosen(request));
        let own = target.is_some_and(|target| target.is_own(request));
        let any = target.is_some_and(|target| target.types == Some(AddressTypes::Any));
        (!chosen, any, !own, *index)
    });
    order
}

/// UIDs of all targets come before types of any (AT-3).
fn first_match(
    targets: &[RouteTarget],
    order: &[usize],
    request: RouteRequest<'_>,
    recipient: &Recipient,
    open: impl Fn(&usize) -> bool,
) -> Option<usize> {
    let uid = recipient.provider_uid();
    let by_uid = |target: &RouteTarget| match &target.types {
        Some(AddressTypes::These { uids, .. }) => uid.is_some_and(|uid| uids.contains(&uid)),
        _ => false,
    };
    let by_type = |target: &RouteTarget| match &target.types {
        Some(AddressTypes::These { types, .. }) => {
            types.iter().any(|kind| !kind.is_empty() && recipient.is_type(kind))
        }
        Some(AddressTypes::Any) => true,
        None => target.is_chosen(request) || target.is_own(request),
    };
    let asked: Vec<(usize, &RouteTarget)> = order
        .iter()
        .filter(|index| open(index))
        .filter_map(|index| targets.get(*index).map(|target| (*index, target)))
        .collect();
    let found = asked.iter().find(|(_, target)| by_uid(target));
    found.or_else(|| asked.iter().find(|(_, target)| by_type(target))).map(|(index, _)| *index)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::mapi::{RecipientType, tags};

    fn target(name: &str, senders: &[&str], types: &[&str]) -> RouteTarget {
        RouteTarget {
            name: name.to_owned(),
            senders: senders.iter().map(|text| (*text).to_owned()).collect(),
            types: Some(AddressTypes::These {
                types: types.iter().map(|text| (*text).to_owned()).collect(),
                uids: Vec::new(),
            }),
        }
    }

    fn to(row: u32, kind: &str) -> Recipient {
        let mut recipient = Recipient::smtp(row, RecipientType::To, "someone");
        recipient.addr_type = kind.to_owned();
        recipient
    }

    fn groups(routing: &Routing) -> Vec<(usize, Vec<u32>)> {
        routing
            .groups
            .iter()
            .map(|(index, rows)| (*index, rows.iter().copied().collect()))
            .collect()
    }

    /// Proves: AT-3, OB-20
    #[test]
    fn the_senders_transport_comes_first_else_the_first() {
        let targets =
            [target("work", &["ann@work"], &["SMTP"]), target("home", &["ann@home"], &["SMTP"])];
        let recipients = [to(0, "SMTP")];
        for (sender, account, index) in [
            ("ann@home", None, 1),
            ("ANN@HOME", None, 1),
            ("ann@elsewhere", None, 0),
            ("ann@work", Some("home"), 1),
            ("ann@home", Some("unknown"), 1),
        ] {
            let request = RouteRequest { sender, account, recipients: &recipients };
            let routing = route(&targets, request, &BTreeSet::new());
            assert_eq!(groups(&routing), [(index, vec![0])], "{sender} {account:?}");
        }
    }

    /// Proves: AT-3, AT-4
    #[test]
    fn types_decide_and_what_nobody_takes_is_named() {
        let mut any = target("any", &[], &[]);
        let targets = [target("log", &[], &["LOG"]), target("smtp", &[], &["SMTP"])];
        let mut done = to(4, "SMTP");
        done.responsibility = true;
        let recipients = [to(0, "smtp"), to(1, "LOG"), to(2, "FAX"), to(3, "SMTP"), done];
        let request = RouteRequest { sender: "x", account: None, recipients: &recipients };
        let routing = route(&targets, request, &BTreeSet::new());
        assert_eq!(groups(&routing), [(1, vec![0, 3]), (0, vec![1])]);
        assert_eq!(routing.nobody, BTreeSet::from([2]));
        any.types = Some(AddressTypes::Any);
        let with_any = [any, targets[0].clone(), targets[1].clone()];
        let routing = route(&with_any, request, &BTreeSet::new());
        assert_eq!(groups(&routing), [(2, vec![0, 3]), (1, vec![1]), (0, vec![2])]);
    }

    /// Proves: AT-3
    #[test]
    fn a_refusal_goes_on_to_the_next_match() {
        let targets = [target("one", &[], &["SMTP"]), target("two", &[], &["SMTP"])];
        let recipients = [to(0, "SMTP"), to(1, "SMTP")];
        let request = RouteRequest { sender: "x", account: None, recipients: &recipients };
        let routing = route(&targets, request, &BTreeSet::from([(0, 1)]));
        assert_eq!(groups(&routing), [(0, vec![0]), (1, vec![1])]);
        let routing = route(&targets, request, &BTreeSet::from([(0, 1), (1, 1)]));
        assert_eq!(routing.nobody, BTreeSet::from([1]));
    }

    #[test]
    fn what_is_meant_for_a_transport_that_is_not_logged_on_waits_for_it() {
        let mut away = target("away", &["ann@away"], &[]);
        away.types = None;
        let targets = [target("work", &["ann@work"], &["SMTP"]), away];
        let recipients = [to(0, "SMTP")];
        for (sender, account, index) in
            [("ann@away", None, 1), ("ann@work", Some("away"), 1), ("ann@work", None, 0)]
        {
            let request = RouteRequest { sender, account, recipients: &recipients };
            let routing = route(&targets, request, &BTreeSet::new());
            assert_eq!(groups(&routing), [(index, vec![0])], "{sender} {account:?}");
        }
    }

    /// Proves: AT-3
    #[test]
    fn uids_come_before_types() {
        let mut second = target("second", &[], &[]);
        second.types =
            Some(AddressTypes::These { types: vec![String::new()], uids: vec![[9; 16]] });
        let targets = [target("first", &[], &["SMTP"]), second];
        let mut recipient = to(0, "SMTP");
        let entry: Vec<u8> = [0; 4].into_iter().chain([9; 16]).chain([1, 2]).collect();
        recipient.props.set(tags::ENTRYID, entry);
        let recipients = [recipient];
        let request = RouteRequest { sender: "x", account: None, recipients: &recipients };
        assert_eq!(groups(&route(&targets, request, &BTreeSet::new())), [(1, vec![0])]);
    }
}
