//! What the kernel says on its serial port: lines for people, some of which a program understands as well.

use std::collections::{BTreeMap, VecDeque};

use qspinlock::select::SlowPathKind;

/// Lines that are kept, the last ones: a kernel may say the same for ever.
const KEPT: usize = 20_000;

/// A figure that the kernel measured: the first number, and what is said behind it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figure {
    pub(super) value: f64,
    pub(super) unit: String,
}

/// All that was said so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    /// The lines, without the counter of progress.
    pub(super) lines: VecDeque<String>,
    /// Who is beneath, by name.
    pub(super) beneath: Option<String>,
    /// What was chosen, and why.
    pub(super) choice: Option<(SlowPathKind, String)>,
    /// What became of the call sites.
    pub(super) code: Option<String>,
    /// From the first instruction to the choice, in microseconds.
    pub(super) chosen_us: Option<u64>,
    /// Looking and choosing alone, in microseconds.
    pub(super) choosing_us: Option<u64>,
    /// CPUs that run, and memory nodes that have any of them.
    pub(super) up: Option<(u32, u32)>,
    /// The test that runs.
    pub(super) test: Option<String>,
    /// Tests that have begun.
    pub(super) tests: Vec<String>,
    /// What was measured, by name.
    pub(super) figures: BTreeMap<String, Figure>,
    /// The last word.
    pub(super) passed: Option<bool>,
    /// The counter of progress.
    pub(super) progress: Option<u64>,
}

/// What a line was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A line of the log.
    Line,
    /// The counter of progress, and it has changed.
    Progress,
    /// The counter of progress as it was: somebody is alive, but does not get on.
    NoProgress,
}

impl Log {
    /// Takes a line to the rest.
    pub(super) fn take(&mut self, line: &str) -> Heard {
        let said = line.strip_prefix("guest: ");
        if let Some(count) = said.and_then(|said| said.strip_prefix("progress ")).and_then(|n| n.parse().ok()) {
            let before = self.progress.replace(count);
            return if before == Some(count) { Heard::NoProgress } else { Heard::Progress };
        }
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line.to_owned());
        if let Some(said) = said {
            self.understand(said);
        }
        Heard::Line
    }

    fn understand(&mut self, said: &str) {
        match said.split_once(' ').unwrap_or((said, "")) {
            ("PASSED", "") => self.passed = Some(true),
            ("FAILED", "") => self.passed = Some(false),
            ("beneath:", who) => self.beneath = Some(who.to_owned()),
            ("locks:", choice) => {
                let parts = choice.split_once(": ");
                let kind = parts.and_then(|(name, _)| SlowPathKind::from_name(name));
                self.choice = kind.zip(parts.map(|(_, reason)| reason.to_owned()));
            }
            ("code:", code) => self.code = Some(code.to_owned()),
            ("chosen", times) => {
                let micros = |text: &str| text.strip_suffix(" us")?.parse().ok();
                if let Some((after, within)) = times.split_once(" after the start, in ") {
                    (self.chosen_us, self.choosing_us) = (micros(after), micros(within));
                }
            }
            ("test", name) if !name.contains(' ') => {
                self.test = Some(name.to_owned());
                self.tests.push(name.to_owned());
            }
            ("figure", said) => self.figures.extend(figure(said)),
            _ => self.up = up(said).or(self.up),
        }
    }

    /// The last lines, for a report.
    pub(super) fn tail(&self, most: usize) -> impl Iterator<Item = &str> {
        self.lines.iter().skip(self.lines.len().saturating_sub(most)).map(String::as_str)
    }
}

/// `overcommit native 1594 acquisitions in 1000 ms`: a name, a number, and of what.
fn figure(said: &str) -> Option<(String, Figure)> {
    let words: Vec<_> = said.split(' ').collect();
    let (at, value) = words.iter().enumerate().skip(1).find_map(|(at, word)| Some((at, word.parse().ok()?)))?;
    let name = words[..at].join(" ").trim_end_matches(':').to_owned();
    Some((name, Figure { value, unit: words[at + 1..].join(" ") }))
}

/// `8 of 8 CPUs up, 2 nodes`
fn up(said: &str) -> Option<(u32, u32)> {
    let (up, nodes) = said.split_once(" CPUs up, ")?;
    let (up, _of) = up.split_once(" of ")?;
    Some((up.parse().ok()?, nodes.strip_suffix(" nodes")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: &str = "\
guest: 511 MiB of memory in 9 ranges
guest: beneath: tcg
guest: locks: test-and-set: virtual CPUs may be preempted: and more
guest: code: all 16 call sites rewritten for test-and-set
guest: chosen 23691 us after the start, in 1699 us
guest: 4 of 8 CPUs up, 2 nodes
guest: test exclusion
guest: progress 22
guest: figure handoff 1.5 us
guest: figure told in NMIs: 26908 ns on average, 93136 ns at worst
guest: test exclusion FAILED
guest: FAILED";

    #[test]
    fn a_boot_is_understood() {
        let mut log = Log::default();
        BOOT.lines().for_each(|line| {
            log.take(line);
        });
        assert_eq!(log.beneath.as_deref(), Some("tcg"));
        assert_eq!(log.choice, Some((SlowPathKind::TestAndSet, "virtual CPUs may be preempted: and more".to_owned())));
        assert_eq!(log.code.as_deref(), Some("all 16 call sites rewritten for test-and-set"));
        assert_eq!((log.chosen_us, log.choosing_us), (Some(23691), Some(1699)));
        assert_eq!(log.up, Some((4, 2)));
        assert_eq!(log.tests, ["exclusion"]);
        assert_eq!(log.figures["handoff"], Figure { value: 1.5, unit: "us".to_owned() });
        let told = &log.figures["told in NMIs"];
        assert_eq!((told.value, told.unit.as_str()), (26908.0, "ns on average, 93136 ns at worst"));
        assert_eq!((log.passed, log.progress), (Some(false), Some(22)));
        assert_eq!(log.lines.len(), 11, "the counter is none of them");
    }

    #[test]
    fn who_repeats_a_number_does_not_get_on() {
        let mut log = Log::default();
        let heard = ["progress 1", "progress 1", "progress 2", "test a", "progress 2"]
            .map(|said| log.take(&format!("guest: {said}")));
        assert_eq!(heard, [Heard::Progress, Heard::NoProgress, Heard::Progress, Heard::Line, Heard::NoProgress]);
    }

    #[test]
    fn what_makes_no_sense_is_a_line() {
        let mut log = Log::default();
        for line in [
            "",
            "guest:",
            "guest: locks: mutex: who knows",
            "guest: chosen x us after the start, in y us",
            "PASSED",
            "guest: figure",
            "guest: figure 1 us",
            "guest: progress x",
            "guest: 1 of CPUs up, nodes",
        ] {
            assert_eq!(log.take(line), Heard::Line, "{line}");
        }
        assert_eq!((log.choice, log.chosen_us, log.passed, log.up), (None, None, None, None));
        assert!(log.figures.is_empty());
    }
}
