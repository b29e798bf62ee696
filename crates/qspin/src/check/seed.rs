//! A failing execution in one word: which scenario, with which orderings, by whose code, and the way through it.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use qspinlock::machine::Ordering;
use qspinlock_vm::check::{Handler, Lock, Scenario, Search, Sorting, Usage, Waiting};

/// The version of the code that a seed is of. An execution is a list of choices, which mean something else in other code.
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seed {
    pub(crate) scenario: Scenario,
    weakened: Vec<(String, Ordering)>,
    preemptions: Option<u8>,
    pub(crate) choices: Vec<u32>,
}

impl Seed {
    pub(crate) fn new(scenario: &Scenario, search: &Search, choices: &[u32]) -> Self {
        let weakened = search.orders.iter().map(|(name, order)| ((*name).to_owned(), *order)).collect();
        Self { scenario: *scenario, weakened, preemptions: search.preemptions, choices: choices.to_vec() }
    }

    pub(crate) fn search(&self) -> Search {
        // A handful of names per process: leaking them costs nothing.
        let orders: HashMap<&'static str, Ordering> =
            self.weakened.iter().map(|(name, order)| (&*name.clone().leak(), *order)).collect();
        Search { orders, preemptions: self.preemptions, ..Search::default() }
    }

    pub(crate) fn weakened_text(&self) -> String {
        self.weakened.iter().map(|(name, order)| format!(", {name} as {order:?}")).collect()
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scenario { lock, cpus, acquires, domains, interrupts, handler, nodeless, .. } = self.scenario;
        let Scenario { sorting, urgent, waiting, usage, .. } = self.scenario;
        let sorting = if sorting == Sorting::Always { "" } else { sorting.name() };
        let urgent = if urgent == 0 { String::new() } else { format!("+{urgent}") };
        let usage = if usage == Usage::Plain { "" } else { usage.name() };
        let handler = if handler == Handler::Same { "same" } else { "other" };
        let waiting = if waiting == Waiting::All { "" } else { waiting.name() };
        write!(
            f,
            "{VERSION}/{}/{cpus}x{acquires}{waiting}/{domains}{sorting}{urgent}/{nodeless}{usage}/{interrupts}{handler}/",
            lock.name()
        )?;
        let weakened: Vec<_> = self.weakened.iter().map(|(name, order)| format!("{name}={order:?}")).collect();
        let preemptions = self.preemptions.map_or("-".to_owned(), |n| n.to_string());
        let choices: Vec<_> = self.choices.iter().map(u32::to_string).collect();
        write!(f, "{}/{preemptions}/{}", weakened.join(","), choices.join("."))
    }
}

impl FromStr for Seed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |what: &str| format!("'{text}' is no seed: {what}");
        let parts: Vec<&str> = text.split('/').collect();
        if let [version, _, ..] = parts[..]
            && version != VERSION
        {
            return Err(format!("this seed is of version {version}, and this is {VERSION}: explore anew"));
        }
        let [_, lock, size, domains, nodeless, interrupts, weakened, preemptions, choices] = parts[..] else {
            return Err(bad("it has nine parts, separated by '/'"));
        };
        let number = |text: &str, what| text.parse::<u32>().map_err(|_| bad(what));
        let (cpus, acquires) = size.split_once('x').ok_or_else(|| bad("its size is like 3x2"))?;
        let (acquires, waiting) =
            acquires.split_at(acquires.find(|c: char| !c.is_ascii_digit()).unwrap_or(acquires.len()));
        let (nodeless, usage) =
            nodeless.split_at(nodeless.find(|c: char| !c.is_ascii_digit()).unwrap_or(nodeless.len()));
        let digits = interrupts.trim_end_matches(|c: char| !c.is_ascii_digit());
        let handler = match &interrupts[digits.len()..] {
            "other" => Handler::Other,
            "same" => Handler::Same,
            _ => return Err(bad("its interrupts are like 1other or 1same")),
        };
        let (domains, urgent) = domains.split_once('+').unwrap_or((domains, "0"));
        let (domains, sorting) = domains.split_at(domains.find(|c: char| !c.is_ascii_digit()).unwrap_or(domains.len()));
        let small = |text: &str, what| text.parse::<u8>().map_err(|_| bad(what));
        let scenario = Scenario {
            domains: number(domains, "its domains are a number")?,
            nodeless: number(nodeless, "its CPUs without a node are a number")? as usize,
            sorting: if sorting.is_empty() { Sorting::Always } else { sorting.parse()? },
            urgent: number(urgent, "its urgent CPUs are a number")? as usize,
            usage: if usage.is_empty() { Usage::Plain } else { usage.parse()? },
            waiting: if waiting.is_empty() { Waiting::All } else { waiting.parse()? },
            ..Scenario::new(
                lock.parse::<Lock>()?,
                number(cpus, "its CPUs are a number")? as usize,
                number(acquires, "its acquisitions are a number")? as usize,
            )
            .interrupted(small(digits, "its interrupts are a number")?, handler)
        };
        let weakened = weakened.split(',').filter(|part| !part.is_empty()).map(|part| {
            let (name, order) = part.split_once('=').ok_or_else(|| bad("its orderings are like name=Relaxed"))?;
            Ok((name.to_owned(), ordering(order).ok_or_else(|| bad("it names an unknown ordering"))?))
        });
        Ok(Self {
            scenario,
            weakened: weakened.collect::<Result<_, String>>()?,
            preemptions: match preemptions {
                "-" => None,
                n => Some(small(n, "its preemptions are a number or '-'")?),
            },
            choices: choices
                .split('.')
                .filter(|part| !part.is_empty())
                .map(|part| number(part, "its choices are numbers"))
                .collect::<Result<_, _>>()?,
        })
    }
}

fn ordering(name: &str) -> Option<Ordering> {
    use Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
    [Relaxed, Acquire, Release, AcqRel, SeqCst].into_iter().find(|order| format!("{order:?}") == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_read_back() {
        let mut search = Search { preemptions: Some(3), ..Search::default() };
        search.orders.insert("word.release", Ordering::Relaxed);
        for waiting in Waiting::ALL {
            let scenario = Scenario::new(Lock::Native, 3, 2).interrupted(1, Handler::Same).waiting(waiting);
            for usage in Usage::ALL {
                for sorting in Sorting::ALL {
                    let scenario = Scenario { urgent: waiting as usize, ..scenario.used(usage).spread(2, sorting) };
                    let seed = Seed::new(&scenario, &search, &[0, 12, 3]);
                    assert_eq!(seed.to_string().parse(), Ok(seed));
                }
            }
        }
    }

    #[test]
    fn what_is_no_seed_is_refused_with_a_reason() {
        let good = Seed::new(&Scenario::new(Lock::Native, 2, 1), &Search::default(), &[1]).to_string();
        assert!(good.parse::<Seed>().is_ok());
        for (from, to, why) in [
            (VERSION, "0.0.0", "version 0.0.0"),
            ("native", "naive", "unknown lock"),
            ("2x1", "2", "size"),
            ("2x1", "2x1awake", "unknown way to wait"),
            ("0other", "0third", "interrupts"),
            ("0/0other", "0lent/0other", "unknown usage"),
            ("/1/0/", "/1sorted/0/", "unknown way to sort"),
            ("/1/0/", "/1+some/0/", "urgent CPUs"),
            ("-/1", "-/one", "choices"),
        ] {
            let text = good.replace(from, to);
            let error = text.parse::<Seed>().expect_err(&text);
            assert!(error.contains(why), "{error}");
        }
        assert!("".parse::<Seed>().is_err());
    }
}
