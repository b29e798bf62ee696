//! Where the lock stays in one domain for a while: who may be passed by whom.
//!
//! Judged by arrival and by hand-offs alone. How those who are passed are kept is the slow path's own affair.

use qspinlock::queue::Tail;
use qspinlock::word::Value;

use super::ghost::cpu_of;

/// What is promised to CPUs of several domains. Nobody passes a waiter of the domain that the lock is to stay in, or an
/// urgent one; and nobody passes at all once those who were passed have waited long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Near {
    /// Domains that the CPUs are spread over, in turn.
    pub domains: u32,
    /// The first CPU of those, up to the last, whose waiters are urgent. Those of interrupts are, on every CPU.
    pub urgent_from: u8,
}

impl Near {
    fn domain(self, code: u16) -> u8 {
        (cpu_of(code) as u32 % self.domains) as u8
    }

    fn is_urgent(self, code: u16) -> bool {
        level_of(code) > 0 || cpu_of(code) >= usize::from(self.urgent_from)
    }
}

fn level_of(code: u16) -> usize {
    Tail::from_code(code.into()).map_or(0, Tail::level)
}

/// Who leads a queue, and for which domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Lead {
    /// Code of the head, 0 if nobody knows that it is.
    head: u16,
    /// CPU + 1 that has claimed, and has yet to make somebody the head.
    owes: u8,
    /// The domain that the lock is to stay in.
    home: u8,
    /// Those who were passed have waited long enough.
    is_due: bool,
}

impl Lead {
    /// A waiter has queued, alone or behind others.
    pub(crate) fn joined(&mut self, promised: Near, me: u16, is_alone: bool) {
        if is_alone && self.owes == 0 {
            *self = Self { head: me, home: promised.domain(me), ..Self::default() };
        }
    }

    /// A claim by the head of those who wait, in their order of arrival. The code of the head.
    pub(crate) fn claims(&mut self, cpu: usize, name: &str, waiting: &[u16], new: u32) -> Result<u16, String> {
        let me = self.head;
        if me == 0 || cpu_of(me) != cpu {
            let head = if me == 0 { None } else { Some(cpu_of(me)) };
            return Err(format!("promotion: cpu {cpu} claims as head, and the head is {head:?}"));
        }
        let last = waiting.iter().rfind(|&&code| code != me).copied();
        let named = Value::from_bits(new).tail().map(|tail| tail.code() as u16);
        if named != last && (name != "word.claim-head" || last.is_none()) {
            let [named, last] = [named, last].map(|code| code.map(cpu_of));
            return Err(format!("order: cpu {cpu} leaves a queue whose last is {named:?}, and last came {last:?}"));
        }
        self.head = 0;
        self.owes = if last.is_some() { cpu as u8 + 1 } else { 0 };
        Ok(me)
    }

    /// The owner makes one of those who wait, in their order of arrival, the head.
    pub(crate) fn granted(&mut self, promised: Near, cpu: usize, to: u16, waiting: &[u16]) -> Result<(), String> {
        if self.head != 0 || usize::from(self.owes) != cpu + 1 {
            return Err(format!("promotion: cpu {cpu} makes cpu {} the head, and owes it nothing", cpu_of(to)));
        }
        let passed = waiting.iter().copied().take_while(|&code| code != to);
        for whom in passed.clone() {
            let (to_cpu, whom_cpu) = (cpu_of(to), cpu_of(whom));
            if self.is_due {
                return Err(format!("due: cpu {to_cpu} passes cpu {whom_cpu}, which has waited for long enough"));
            }
            if promised.is_urgent(whom) {
                return Err(format!("urgent: cpu {to_cpu} passes cpu {whom_cpu}, which is urgent"));
            }
            if promised.domain(whom) == self.home {
                return Err(format!("near: cpu {to_cpu} passes cpu {whom_cpu}, and the lock is to stay in its domain"));
            }
        }
        let home = if passed.count() > 0 { self.home } else { promised.domain(to) };
        *self = Self { head: to, home, ..Self::default() };
        Ok(())
    }

    /// The CPU is told that the time of those who were passed is over.
    pub(crate) fn told_due(&mut self, waiting: &[u16]) {
        self.is_due |= waiting.first() != Some(&self.head);
    }

    /// The level at which this CPU leads the queue, if it does.
    pub(crate) fn led_by(&self, cpu: usize) -> Option<usize> {
        (self.head != 0 && cpu_of(self.head) == cpu).then(|| level_of(self.head))
    }

    pub(crate) fn bytes(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head.to_ne_bytes());
        out.extend_from_slice(&[self.owes, self.home, u8::from(self.is_due)]);
    }
}
