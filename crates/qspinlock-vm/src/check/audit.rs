//! The ordering audit: each access of the library is weakened a step, and something must break.
//!
//! What breaks, and where, is the reason for the ordering. If nothing does, the ordering is not needed within the
//! bounds that were explored.

use std::collections::BTreeMap;

use qspinlock::machine::{Access, Ordering};

use super::model::{Search, Verdict};
use super::scenario::Scenario;

/// What became of a weakened access.
#[derive(Clone, Debug)]
pub enum Fate {
    /// A property broke.
    Caught {
        /// Which, and how.
        what: String,
        /// In which scenario, the first of those given.
        scenario: Scenario,
        /// States explored until then, in that scenario.
        states: usize,
    },
    /// Nothing broke in any scenario.
    Survived,
    /// Nothing broke, but not every scenario was finished.
    Unfinished(&'static str),
}

/// An access, weakened.
#[derive(Clone, Debug)]
pub struct Finding {
    /// As the code has it.
    pub access: Access,
    /// As it was explored.
    pub weakened: Ordering,
    /// What became of it.
    pub fate: Fate,
}

/// The orderings one step weaker.
#[must_use]
pub const fn weaker(order: Ordering) -> &'static [Ordering] {
    match order {
        Ordering::SeqCst => &[Ordering::AcqRel],
        Ordering::AcqRel => &[Ordering::Acquire, Ordering::Release],
        Ordering::Acquire | Ordering::Release => &[Ordering::Relaxed],
        _ => &[],
    }
}

/// Weakens every ordered access that the scenarios make, and explores the scenarios in turn until one breaks.
/// `progress` is told before each weakening: how many are done, of how many.
///
/// # Errors
/// If a scenario fails as it stands, or is not finished: then an audit means nothing.
pub fn audit(
    scenarios: &[Scenario],
    search: &Search,
    mut progress: impl FnMut(usize, usize),
) -> Result<Vec<Finding>, String> {
    // Which scenarios make an access; others need not be explored for it.
    let mut users = BTreeMap::<&str, (Access, Vec<Scenario>)>::new();
    for scenario in scenarios {
        let outcome = scenario.explore(search);
        match outcome.verdict {
            Verdict::Holds => {}
            Verdict::Broken(broken) => return Err(format!("{scenario} fails as it stands: {}", broken.what)),
            Verdict::Unfinished(why) => return Err(format!("{scenario} is not finished as it stands: {why}")),
        }
        for access in outcome.accesses {
            users.entry(access.name).or_insert((access, Vec::new())).1.push(*scenario);
        }
    }
    let weakenings: Vec<_> = users
        .values()
        .flat_map(|(access, users)| weaker(access.order).iter().map(move |&weakened| (*access, weakened, users)))
        .collect();
    let mut findings = Vec::new();
    for (n, &(access, weakened, users)) in weakenings.iter().enumerate() {
        progress(n, weakenings.len());
        let mut search = search.clone();
        search.orders.insert(access.name, weakened);
        let mut fate = Fate::Survived;
        for scenario in users {
            let outcome = scenario.explore(&search);
            match outcome.verdict {
                Verdict::Holds => {}
                Verdict::Broken(broken) => {
                    fate = Fate::Caught { what: broken.what, scenario: *scenario, states: outcome.states };
                    break;
                }
                Verdict::Unfinished(why) => fate = Fate::Unfinished(why),
            }
        }
        findings.push(Finding { access, weakened, fate });
    }
    Ok(findings)
}
