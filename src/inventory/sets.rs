//! What stands between host expressions: `,` union, `!` difference, `&` intersection, `^` one of both.
//!
//! As ClusterShell reads them: from left to right, none binds closer than another. A `^` where an
//! expression begins is pdsh's `^FILE`, for which an operator has no use there.

use std::collections::{HashMap, HashSet};

use super::error::InputError;
use super::expression::{self, ExpressionError, HostSpec, NODE_LIMIT, Piece};

/// What is done with the hosts of an expression and those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    /// `,`: add them.
    Union,
    /// `!`: take them away.
    Difference,
    /// `&`: keep only them.
    Intersection,
    /// `^`: keep what is on one side only.
    Either,
}

/// An expression and the operator before it.
pub(super) struct Term<'a> {
    pub operator: Operator,
    pub piece: Piece<'a>,
}

/// The expressions of a text with their operators; the first is a union.
pub(super) fn terms(text: &str) -> Result<Vec<Term<'_>>, ExpressionError> {
    let split = expression::split(text, |sign, before| match sign {
        ',' | '!' | '&' => true,
        '^' => !before.trim().is_empty() && before.trim() != "^",
        _ => false,
    })?;
    let terms = split.into_iter().map(|(sign, piece)| Term {
        operator: match sign {
            '!' => Operator::Difference,
            '&' => Operator::Intersection,
            '^' => Operator::Either,
            _ => Operator::Union,
        },
        piece,
    });
    Ok(terms.collect())
}

/// Hosts in order, each once, with what is known about where it was said.
pub(super) struct HostSet<T> {
    entries: Vec<(HostSpec, T)>,
    known: HashSet<HostSpec>,
    /// How many more hosts may be named.
    room: usize,
    /// How many more hosts may be named after `!` and `&`, which make no nodes but take time.
    side_room: usize,
}

impl<T> HostSet<T> {
    pub(super) fn new(room: usize) -> Self {
        Self {
            entries: Vec::new(),
            known: HashSet::new(),
            room,
            side_room: NODE_LIMIT,
        }
    }

    /// How many hosts the next operand may name.
    pub(super) fn room(&self, operator: Operator) -> usize {
        match operator {
            Operator::Union | Operator::Either => self.room,
            Operator::Difference | Operator::Intersection => self.side_room,
        }
    }

    /// Applies an operator to the hosts so far and these.
    ///
    /// A host without user or port on the right stands for every user and port on the left: nobody
    /// should have to repeat them in `ops@node[1-9]:2222!node3`.
    pub(super) fn apply(
        &mut self,
        operator: Operator,
        hosts: Vec<(HostSpec, T)>,
    ) -> Result<(), InputError> {
        let left = self.room(operator).checked_sub(hosts.len());
        let left = left.ok_or_else(expression::too_many)?;
        match operator {
            Operator::Union | Operator::Either => self.room = left,
            Operator::Difference | Operator::Intersection => self.side_room = left,
        }
        match operator {
            Operator::Union => self.add(hosts),
            Operator::Difference => self.keep(&Matcher::new(&hosts), false),
            Operator::Intersection => self.keep(&Matcher::new(&hosts), true),
            Operator::Either => {
                let old = Matcher::new(&self.entries);
                let new = Matcher::new(&hosts);
                self.keep(&new, false);
                let added = hosts.into_iter().filter(|(spec, _)| !old.has(spec));
                self.add(added.collect());
            }
        }
        Ok(())
    }

    pub(super) fn into_entries(self) -> impl Iterator<Item = (HostSpec, T)> {
        self.entries.into_iter()
    }

    fn add(&mut self, hosts: Vec<(HostSpec, T)>) {
        for (spec, said) in hosts {
            if self.known.insert(spec.clone()) {
                self.entries.push((spec, said));
            }
        }
    }

    fn keep(&mut self, matcher: &Matcher, wanted: bool) {
        let known = &mut self.known;
        self.entries.retain(|(spec, _)| {
            let keep = matcher.has(spec) == wanted;
            if !keep {
                known.remove(spec);
            }
            keep
        });
    }
}

/// User and port, as far as they are said.
type Login = (Option<String>, Option<u16>);

/// Finds a host among others, where a missing user or port on either side stands for any.
struct Matcher(HashMap<String, Vec<Login>>);

impl Matcher {
    fn new<T>(hosts: &[(HostSpec, T)]) -> Self {
        let mut known: HashMap<String, Vec<_>> = HashMap::with_capacity(hosts.len());
        for (spec, _) in hosts {
            let said = (spec.user.clone(), spec.port);
            known.entry(spec.host.clone()).or_default().push(said);
        }
        Self(known)
    }

    fn has(&self, spec: &HostSpec) -> bool {
        fn fits<V: PartialEq>(one: &Option<V>, two: &Option<V>) -> bool {
            one.is_none() || two.is_none() || one == two
        }
        self.0.get(&spec.host).is_some_and(|said| {
            said.iter()
                .any(|(user, port)| fits(user, &spec.user) && fits(port, &spec.port))
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::inventory::hosts;

    fn names(text: &str) -> Vec<String> {
        let found = hosts::expand(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        found.into_iter().map(|spec| spec.host).collect()
    }

    #[test]
    fn operators_work_from_left_to_right() {
        assert_eq!(names("n[1-4]!n[2-3]"), ["n1", "n4"]);
        assert_eq!(names("n[1-4]&n[2-9]"), ["n2", "n3", "n4"]);
        assert_eq!(names("n[1-3]^n[3-4]"), ["n1", "n2", "n4"]);
        assert_eq!(names("n[1-3]!n2,n2"), ["n1", "n3", "n2"]);
        assert_eq!(names("a,b & b ! c ^ d"), ["b", "d"]);
        assert_eq!(names("n[01-03]!n[1-3]"), ["n01", "n02", "n03"]);
        assert!(names("a!a").is_empty());
    }

    #[test]
    fn user_and_port_need_not_be_repeated_to_take_a_host_away() {
        assert_eq!(names("ops@n[1-3]:2222!n2"), ["n1", "n3"]);
        assert_eq!(names("n1:2201,n1:2202!n1:2202"), ["n1"]);
        assert_eq!(names("ops@n1!root@n1"), ["n1"]);
    }

    #[test]
    fn a_missing_operand_is_told_with_its_place() {
        for (text, at) in [("a!", 2), ("a&!b", 2), ("&a", 0), ("a^", 2), ("a!,b", 2)] {
            let error = hosts::expand(text).unwrap_err();
            assert_eq!(error.at, at, "{text}");
            assert!(error.to_string().contains("missing"), "{text}: {error}");
        }
        let error = hosts::expand("a,^file").unwrap_err();
        assert_eq!(error.at, 2);
        assert!(error.to_string().contains("--hosts"), "{error}");
    }

    #[test]
    fn what_is_taken_away_is_limited_too() {
        assert_eq!(names("n[1-100000]!n[2-100000]"), ["n1"]);
        for text in [
            "n1!n[1-100001]",
            "n1!n[1-60000]&n[1-60000]",
            "n[1-60000]^n[1-60000]",
        ] {
            let error = hosts::expand(text).unwrap_err().to_string();
            assert!(error.contains("more than 100000"), "{text}: {error}");
        }
    }
}
