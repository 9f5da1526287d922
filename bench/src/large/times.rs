//! What is measured of requests and of daemons, and what is held against a goal.

use std::time::Duration;

use serde::Serialize;

use crate::error::BenchError;

use super::site::Site;

/// A request, and of what it is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Case {
    FirstSign,
    GetAny,
    GetSome,
    ListAny,
    ListFirst,
    SignAny,
    SignPrimary,
    SignSome,
}

impl Case {
    /// What keys are asked, each round in this order: first what finds a daemon that was just started.
    pub(super) const ALL: [Self; 7] = [
        Self::FirstSign,
        Self::ListFirst,
        Self::ListAny,
        Self::GetAny,
        Self::GetSome,
        Self::SignAny,
        Self::SignSome,
    ];
    /// What the versions of a key are asked.
    pub(super) const WITH_PRIMARY: [Self; 8] = [
        Self::FirstSign,
        Self::ListFirst,
        Self::ListAny,
        Self::GetAny,
        Self::GetSome,
        Self::SignAny,
        Self::SignSome,
        Self::SignPrimary,
    ];

    /// In records.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::FirstSign => "sign.first",
            Self::GetAny => "get.random",
            Self::GetSome => "get.warm",
            Self::ListAny => "list.random",
            Self::ListFirst => "list.first",
            Self::SignAny => "sign.random",
            Self::SignPrimary => "sign.primary",
            Self::SignSome => "sign.warm",
        }
    }

    /// For people.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::FirstSign => "sign, each for the first time after a start",
            Self::GetAny => "get any of them",
            Self::GetSome => "get one of 100 in use",
            Self::ListAny => "list a page of 100 anywhere",
            Self::ListFirst => "list the first page of 100",
            Self::SignAny => "sign with any of them",
            Self::SignPrimary => "sign with the primary version",
            Self::SignSome => "sign with one of 100 in use",
        }
    }

    /// How often in a round.
    const fn operations(self) -> u32 {
        match self {
            Self::FirstSign => 500,
            Self::ListAny | Self::ListFirst => 300,
            _ => 1500,
        }
    }

    fn ask(self, site: &mut Site, round: u32, n: u32) -> Result<Duration, BenchError> {
        let count = site.count.max(1);
        let some = scattered(n % SOME, count);
        let any = site.any();
        let caller = site.caller()?;
        match self {
            Self::FirstSign => caller.sign(scattered(round * self.operations() + n, count)),
            Self::GetAny => caller.get(any),
            Self::GetSome => caller.get(some),
            Self::ListAny => {
                let page = site.pages.get(any as usize % site.pages.len().max(1));
                caller.page(page.map(String::as_str).unwrap_or_default())
            }
            Self::ListFirst => caller.page(""),
            Self::SignAny => caller.sign(any),
            Self::SignPrimary => caller.sign_with_primary(),
            Self::SignSome => caller.sign(some),
        }
    }
}

/// The `n`th of `count`, in an order that has nothing to do with names or ages and repeats nothing early.
fn scattered(n: u32, count: u32) -> u32 {
    // A prime that divides no count that anybody asks for.
    let at = u64::from(n) * 1_000_003 % u64::from(count);
    u32::try_from(at).unwrap_or_default()
}

/// Within what time half, and 99 of 100, were answered.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Times {
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Result<Self, BenchError> {
        times.sort_unstable();
        let at = |share: usize| {
            let time = times.get(times.len() * share / 100);
            time.map(|time| time.as_secs_f64() * 1e6)
                .ok_or(BenchError::Protocol("a case without operations"))
        };
        Ok(Self { p50_us: at(50)?, p99_us: at(99)? })
    }
}

/// Asks both daemons the same, a few times the one and a few times the other, so that what disturbs the one
/// disturbs the other as well.
pub(super) fn alternate(
    case: Case,
    sites: [&mut Site; 2],
    round: u32,
) -> Result<[Times; 2], BenchError> {
    let [few, many] = sites;
    let mut times = [Vec::new(), Vec::new()];
    for begin in (0..case.operations()).step_by(TURN as usize) {
        for (site, times) in [&mut *few, &mut *many].into_iter().zip(&mut times) {
            for n in begin..begin + TURN {
                times.push(case.ask(site, round, n)?);
            }
        }
    }
    let [few, many] = times;
    Ok([Times::of(few)?, Times::of(many)?])
}

/// What must not be exceeded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Goal(pub(super) f64);

/// One figure of a daemon with many.
#[derive(Debug, Serialize)]
pub(super) struct Figure {
    pub(super) name: String,
    #[serde(skip)]
    pub(super) title: String,
    pub(super) value: f64,
    pub(super) unit: &'static str,
    #[serde(flatten)]
    pub(super) goal: Option<Reached>,
}

/// A goal, and whether it is met.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Reached {
    pub(super) goal_at_most: f64,
    pub(super) goal_met: bool,
}

impl Goal {
    /// Holds `value` against it.
    pub(super) fn judge(self, value: f64) -> Reached {
        Reached { goal_at_most: self.0, goal_met: value <= self.0 }
    }
}

impl Figure {
    pub(super) fn new(
        name: &str,
        title: &str,
        value: f64,
        unit: &'static str,
        goal: Option<Goal>,
    ) -> Self {
        let (name, title) = (name.to_owned(), title.to_owned());
        Self { name, title, value, unit, goal: goal.map(|goal| goal.judge(value)) }
    }

    pub(super) fn seconds(name: &str, title: String, value: Duration, goal: Option<Goal>) -> Self {
        Self::new(name, &title, value.as_secs_f64(), "s", goal)
    }
}

/// The p99 of many to that of few.
pub(super) const P99_RATIO_MAX: Goal = Goal(2.0);
/// How many are in use where not any is asked.
const SOME: u32 = 100;
/// How many requests to one daemon before the other has its turn.
const TURN: u32 = 25;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn what_is_asked_for_the_first_time_was_not_asked_before() {
        for count in [1000, 100_000, 1_000_000] {
            let asked: HashSet<u32> =
                (0..Case::FirstSign.operations()).map(|n| scattered(500 + n, count)).collect();
            assert_eq!(asked.len(), Case::FirstSign.operations() as usize);
        }
    }

    #[test]
    fn times_are_those_of_half_and_of_nearly_all() {
        let times = (1..=200).rev().map(Duration::from_micros).collect();
        let Times { p50_us, p99_us } = Times::of(times).unwrap();
        assert_eq!((p50_us.round(), p99_us.round()), (101.0, 199.0));
        assert!(Times::of(Vec::new()).is_err());
    }

    #[test]
    fn turns_fill_a_round() {
        for case in Case::WITH_PRIMARY {
            assert_eq!(case.operations() % TURN, 0);
        }
    }

    #[test]
    fn a_goal_is_met_up_to_its_bound() {
        assert!(Goal(2.0).judge(2.0).goal_met);
        assert!(!Goal(2.0).judge(2.01).goal_met);
    }
}
