//! Who is where, as the word's own steps tell it: what order and bypass are judged by.
//!
//! The steps are known by the names of their accesses, and all of them are read-modify-writes of one cell, so they have
//! one order on which all CPUs agree.

use qspinlock::queue::{LEVELS, Tail};
use qspinlock::word::Value;

use super::halting::{Halted, Halting};
use super::near::{Lead, Near};
use super::sleepers::{Sleepers, Sleeping};

/// What a slow path promises beyond exclusion and progress. By default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promises {
    /// Who has queued is served in the order of queueing, nobody takes the pending lane past a queue, and each
    /// hand-off makes exactly the next in line the head.
    pub fifo: bool,
    /// What is promised where CPUs are of several domains, instead of the order of queueing.
    pub near: Option<Near>,
    /// How often, at most, a waiter is passed by each other CPU, by a claim without waiting.
    pub bypass: Option<u8>,
    /// What is promised to waiters that sleep, who are served in the order of lying down, each once, by the lock's owner.
    pub sleeping: Option<Sleeping>,
    /// What is promised to virtual CPUs that halt in a queue, each woken once by an unlock.
    pub halting: Option<Halting>,
}

pub(crate) const MOST: usize = 8;

/// The waiters of one lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Ghost {
    /// Codes of the queued nodes, first the head.
    queue: [u16; MOST],
    length: u8,
    /// Of those, as bits, whose owners have given up.
    abandoned: u8,
    /// Code of one that has taken the lock and is in the queue no more, and has yet to say who the head is. Only where
    /// one may leave.
    handing_on: u16,
    /// CPU + 1 that holds the lock. Only where it is asked for.
    owner: u8,
    /// The head knows that it is.
    promoted: bool,
    /// CPU + 1 in the pending lane.
    pending: u8,
    /// For each waiting CPU: how often each other has passed it, four bits each.
    passed_by: [u32; MOST],
    lead: Lead,
    pub(crate) sleepers: Sleepers,
    pub(crate) halted: Halted,
}

impl Ghost {
    /// A step on the word that changed it.
    pub(crate) fn step(
        &mut self,
        promises: Promises,
        (cpu, nesting): (usize, u8),
        name: &str,
        (old, new): (u32, u32),
    ) -> Result<(), String> {
        let is_held = |value: u32| matches!(value & 0xff, 1 | 3 | 4);
        match (is_held(old), is_held(new)) {
            (false, true) => self.owner = cpu as u8 + 1,
            (true, false) => self.owner = 0,
            _ if name == "judge.is-mine" && usize::from(self.owner) != cpu + 1 => {
                let owner = self.owner.checked_sub(1);
                return Err(format!("deadlock: cpu {cpu} is told that it holds the lock, and its owner is {owner:?}"));
            }
            _ => {}
        }
        if let Some(promised) = promises.sleeping {
            return self.sleepers.step(promised, (cpu, nesting), name, (old, new));
        }
        if let Some(promised) = promises.halting {
            return self.halted.step(promised, (cpu, nesting), name, (old, new));
        }
        let queue = &self.queue[..usize::from(self.length)];
        match name {
            "word.pend" => {
                if (promises.fifo || promises.near.is_some()) && self.length > 0 {
                    return Err(format!("fifo: cpu {cpu} took the pending lane past a queue"));
                }
                self.pending = cpu as u8 + 1;
            }
            "tail.exchange" => {
                let me = Value::from_bits(new).tail().expect("an exchange leaves a tail").code() as u16;
                self.promoted |= self.length == 0;
                if let Some(promised) = promises.near {
                    self.lead.joined(promised, me, self.length == 0);
                }
                self.queue[usize::from(self.length)] = me;
                self.length += 1;
            }
            "word.claim-pending" => {
                if usize::from(self.pending) != cpu + 1 {
                    return Err(format!("fifo: cpu {cpu} claims from a pending lane that is not its own"));
                }
                self.pending = 0;
                self.passed_by[cpu] = 0;
            }
            "word.unpend" => {
                if usize::from(self.pending) != cpu + 1 {
                    return Err(format!("fifo: cpu {cpu} leaves a pending lane in which it is not"));
                }
                self.pending = 0;
                self.passed_by[cpu] = 0;
            }
            "word.leave-to" => {
                let code = Value::from_bits(old).tail().expect("who leaves was the last").code() as u16;
                self.gone(promises, cpu, code)?;
            }
            "word.leave" => {
                let code = Value::from_bits(old).tail().expect("who leaves was the last").code() as u16;
                self.gone(promises, cpu, code)?;
                if promises.fifo && self.length > 0 {
                    return Err(format!("fifo: cpu {cpu} empties a queue in which others wait"));
                }
            }
            "word.claim-sole" | "word.claim-head" | "word.claim-bringing-back" if promises.near.is_some() => {
                let head = self.lead.claims(cpu, name, queue, new)?;
                let at = queue.iter().position(|&queued| queued == head).expect("it waits here");
                self.take_out(at);
                self.passed_by[cpu] = 0;
            }
            "word.claim-sole" | "word.claim-head" | "word.claim-bringing-back" => {
                let first = queue.first().map(|&code| cpu_of(code));
                if promises.fifo && (first != Some(cpu) || self.abandoned & 1 != 0) {
                    return Err(format!("fifo: cpu {cpu} claims as head, but first in line is {first:?}"));
                }
                if promises.fifo && name == "word.claim-bringing-back" {
                    return Err(format!("fifo: cpu {cpu} brings back who was set aside, and nobody may be"));
                }
                let waits = |&(at, &code): &(usize, &u16)| cpu_of(code) == cpu && self.abandoned >> at & 1 == 0;
                let Some((at, &code)) = queue.iter().enumerate().find(waits) else {
                    return Err(format!("fifo: cpu {cpu} claims as head of a queue in which it does not wait"));
                };
                if name == "word.claim-head" && may_leave(code) {
                    self.handing_on = code;
                }
                self.take_out(at);
                self.passed_by[cpu] = 0;
            }
            // A waiter without a node barges, and promises nothing.
            "word.try" if let Some(most) = promises.bypass => {
                let pending = usize::from(self.pending).checked_sub(1);
                let abandoned = self.abandoned;
                let waiting = queue.iter().enumerate().filter(|(at, _)| abandoned >> at & 1 == 0);
                let waiting = waiting.map(|(_, &code)| cpu_of(code));
                for waiter in waiting.chain(pending).filter(|&waiter| waiter != cpu) {
                    if self.passed_by[waiter] >> (4 * cpu) & 0xf >= u32::from(most) {
                        let times = if most == 1 { "a second time".to_owned() } else { format!("over {most} times") };
                        return Err(format!("bypass: cpu {cpu} passed the waiting cpu {waiter} {times}"));
                    }
                    self.passed_by[waiter] += 1 << (4 * cpu);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes one out of the queue, which where waiters are set aside need not be the first.
    fn take_out(&mut self, at: usize) {
        self.queue.copy_within(at + 1.., at);
        self.length -= 1;
        self.queue[usize::from(self.length)] = 0;
        let before = (1 << at) - 1;
        self.abandoned = self.abandoned & before | self.abandoned >> 1 & !before;
        self.promoted = false;
    }

    /// The owner of this node gives up in the middle of the queue.
    pub(crate) fn abandoned(&mut self, promises: Promises, cpu: usize, code: u16) -> Result<(), String> {
        let at = self.queue.iter().position(|&queued| queued == code).expect("it waits here");
        if promises.fifo && (cpu_of(code) != cpu || self.promoted && at == 0) {
            return Err(format!("promotion: cpu {cpu} leaves a node in the queue that is not its own, or the head's"));
        }
        self.abandoned |= 1 << at;
        self.passed_by[cpu] = 0;
        Ok(())
    }

    /// A node goes out of the queue without the lock, if it is still there: the head's own, or an abandoned one.
    pub(crate) fn gone(&mut self, promises: Promises, cpu: usize, code: u16) -> Result<(), String> {
        if self.handing_on == code {
            self.handing_on = 0;
            return Ok(());
        }
        let Some(at) = self.queue[..usize::from(self.length)].iter().position(|&queued| queued == code) else {
            return Ok(());
        };
        if self.abandoned >> at & 1 == 0 && cpu_of(code) != cpu {
            let whose = cpu_of(code);
            return Err(format!("fifo: cpu {cpu} takes a node of cpu {whose} out of the queue, which waits there"));
        }
        let is_own = self.promoted && cpu_of(code) == cpu && self.abandoned & 1 == 0;
        if promises.fifo && (self.queue[0] != code || !(is_own || self.abandoned & 1 != 0)) {
            let whose = cpu_of(code);
            return Err(format!("fifo: cpu {cpu} takes a node of cpu {whose} out of the queue before its turn"));
        }
        self.take_out(at);
        if cpu_of(code) == cpu {
            self.passed_by[cpu] = 0;
        }
        Ok(())
    }

    /// The head leaves before its successor has linked, which then is the head.
    pub(crate) fn left(&mut self, promises: Promises, cpu: usize, code: u16) -> Result<(), String> {
        self.gone(promises, cpu, code)?;
        if promises.fifo && (self.promoted || self.length == 0) {
            return Err(format!("promotion: cpu {cpu} leaves the queue to whoever comes, and nobody does"));
        }
        self.promoted = true;
        Ok(())
    }

    /// Whether a node of this code waits here.
    pub(crate) fn has(&self, code: u16) -> bool {
        self.queue[..usize::from(self.length)].contains(&code)
    }

    /// Whether it does, or is the node of one that has just had its turn.
    pub(crate) fn knows(&self, code: u16) -> bool {
        self.handing_on == code || self.has(code)
    }

    /// A grant to a node that waits here.
    pub(crate) fn granted(&mut self, promises: Promises, cpu: usize, code: u16) -> Result<(), String> {
        if let Some(promised) = promises.near {
            return self.lead.granted(promised, cpu, code, &self.queue[..usize::from(self.length)]);
        }
        if promises.fifo && (self.promoted || self.queue[0] != code || self.abandoned & 1 != 0) {
            let (to, first) = (cpu_of(code), cpu_of(self.queue[0]));
            let again = if self.promoted { " again" } else { "" };
            return Err(format!("promotion: cpu {cpu} makes cpu {to} the head{again}; first in line is {first}"));
        }
        self.promoted = true;
        Ok(())
    }

    /// The level at which this CPU leads the queue, if it does, and there is more to that than the order of queueing.
    pub(crate) fn led_by(&self, cpu: usize) -> Option<usize> {
        self.lead.led_by(cpu)
    }

    /// Whom it leads are to come first again, if it has been passed.
    pub(crate) fn told_due(&mut self) {
        self.lead.told_due(&self.queue[..usize::from(self.length)]);
    }

    pub(crate) fn bytes(&self, out: &mut Vec<u8>) {
        self.queue.iter().for_each(|code| out.extend_from_slice(&code.to_ne_bytes()));
        out.extend_from_slice(&self.handing_on.to_ne_bytes());
        out.extend_from_slice(&[self.owner, self.length, self.abandoned, u8::from(self.promoted), self.pending]);
        self.passed_by.iter().for_each(|by| out.extend_from_slice(&by.to_ne_bytes()));
        self.lead.bytes(out);
        self.sleepers.bytes(out);
        self.halted.bytes(out);
    }
}

/// Whether it is a node for a wait that may end before its turn.
fn may_leave(code: u16) -> bool {
    Tail::from_code(code.into()).is_some_and(|tail| tail.level() >= LEVELS)
}

pub(crate) fn cpu_of(code: u16) -> usize {
    Tail::from_code(code.into()).expect("a node waits").cpu().index()
}
