//! The ordering audit: each access of the library is weakened a step, and something must break.
//!
//! What breaks, and where, is the reason for the ordering. If nothing does, the ordering is not needed within the
//! bounds that were explored.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{self, AtomicUsize};
use std::thread;

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

/// Weakens every ordered access that the scenarios make, and explores the scenarios in turn until one breaks, several
/// weakenings at a time. `progress` is told how many explorations are done, of how many: first each scenario as it
/// stands, then each weakening.
///
/// # Errors
/// If a scenario fails as it stands, or is not finished: then an audit means nothing.
pub fn audit(
    scenarios: &[Scenario],
    search: &Search,
    progress: impl Fn(usize, usize) + Sync,
) -> Result<Vec<Finding>, String> {
    let outcomes = side_by_side(scenarios, |scenario| scenario.explore(search), &progress);
    // Which scenarios make an access; others need not be explored for it.
    let mut users = BTreeMap::<&str, (Access, Vec<Scenario>)>::new();
    for (scenario, outcome) in scenarios.iter().zip(outcomes) {
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
    let finding = |&(access, weakened, users): &(Access, Ordering, &Vec<Scenario>)| {
        let mut search = search.clone();
        search.orders.insert(access.name, weakened);
        Finding { access, weakened, fate: fate(users, &search) }
    };
    Ok(side_by_side(&weakenings, finding, &progress))
}

fn fate(scenarios: &[Scenario], search: &Search) -> Fate {
    let mut fate = Fate::Survived;
    for scenario in scenarios {
        let outcome = scenario.explore(search);
        match outcome.verdict {
            Verdict::Holds => {}
            Verdict::Broken(broken) => {
                return Fate::Caught { what: broken.what, scenario: *scenario, states: outcome.states };
            }
            Verdict::Unfinished(why) => fate = Fate::Unfinished(why),
        }
    }
    fate
}

/// What `f` makes of each, in their order, by as many threads as there are CPUs.
fn side_by_side<T: Sync, R: Send>(
    of: &[T],
    f: impl Fn(&T) -> R + Sync,
    progress: &(impl Fn(usize, usize) + Sync),
) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(of.len());
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|s| {
        for _ in 0..threads {
            s.spawn(|| {
                while let n = next.fetch_add(1, atomic::Ordering::Relaxed)
                    && let Some(item) = of.get(n)
                {
                    let result = f(item);
                    let mut done = done.lock().expect("an exploration does not panic");
                    done.push((n, result));
                    progress(done.len(), of.len());
                }
            });
        }
    });
    let mut done = done.into_inner().expect("an exploration does not panic");
    done.sort_by_key(|&(n, _)| n);
    done.into_iter().map(|(_, result)| result).collect()
}
