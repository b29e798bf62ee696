//! Who waits in the queue of a lock for virtual CPUs, who is the head and whether it sleeps, and who owes it a kick:
//! judged from the steps on the word, and from promotions and kicks.

use qspinlock::word::Value;

use super::ghost::{MOST, cpu_of};
use super::model::MAX_WORDS;

const LOCKED: u32 = 1;
const SLOW: u32 = 4;
/// An unlock has found it slow.
const COUNTED: u32 = 3;
const HEAD_AWAKE: u32 = 1 << 8;

/// What a node says of a head that is awake.
const HEAD: u32 = 3;
/// What nodes say of those who sleep and are not the head, and of a head that sleeps.
const ASLEEP: [u32; 2] = [1, 2];
const HEAD_ASLEEP: [u32; 2] = [4, 5];
/// Of who has given up, and left its node in the queue.
const GONE: u32 = 7;

/// What a lock for virtual CPUs promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Halting {
    /// A head that was woken so many times in vain sleeps, and nobody may steal the lock.
    pub turns: u8,
    /// How often a CPU may pass the queue by a look from before anybody was there: once for each of its contexts.
    pub slips: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Halted {
    /// Codes of the queued nodes, first the head.
    queue: [u16; MOST],
    length: u8,
    /// The first knows that it is the head.
    promoted: bool,
    /// The head has said that it is awake, and not since that it sleeps.
    risen: bool,
    /// It sleeps with nobody allowed to steal.
    starving: bool,
    /// It sleeps, or is about to, and nobody has woken it since.
    asleep: bool,
    /// Code of the context that has taken somebody who gave up out of the queue, and is about to make the next the head.
    leading: u8,
    /// Somebody has given up since the lock was marked slow.
    left: bool,
    /// It has slept since it last rose; and how often it rose, after that, in vain.
    slept: bool,
    vain: u8,
    /// How often each CPU has passed the queue by an old look, since it is not empty.
    slips: [u8; MOST],
    /// Code of the head that each CPU, by how many handlers run there, owes a kick.
    owed: [[u16; MAX_WORDS]; MOST],
    /// For each CPU, bits of the contexts that are in the middle of an unlock.
    unlocking: [u8; MOST],
}

/// A name for what runs on a CPU, never 0.
fn code_of((cpu, nesting): (usize, u8)) -> u8 {
    1 + (cpu * MAX_WORDS) as u8 + nesting
}

impl Halted {
    fn first(&self) -> Option<usize> {
        (self.length > 0).then(|| cpu_of(self.queue[0]))
    }

    /// Whether a node of this code waits here.
    pub(crate) fn has(&self, code: u16) -> bool {
        self.queue[..usize::from(self.length)].contains(&code)
    }

    /// A step on the word that changed it.
    pub(crate) fn step(
        &mut self,
        promised: Halting,
        who: (usize, u8),
        name: &str,
        (old, new): (u32, u32),
    ) -> Result<(), String> {
        let (cpu, nesting) = who;
        let (was, is) = (old & 0xff, new & 0xff);
        let by_head =
            matches!(name, "word.rise" | "word.claim-first" | "word.slow-down" | "word.step-down" | "word.take-back");
        if by_head && !(self.promoted && self.first() == Some(cpu)) {
            return Err(format!("fifo: cpu {cpu} does as if it were the head, which is {:?}", self.first()));
        }
        match (was, is) {
            (0, LOCKED) if by_head => self.pop(),
            (0, LOCKED) => self.pass(promised, cpu, name)?,
            (_, 0) if was != 0 => self.release(who, was)?,
            (SLOW, COUNTED) => self.unlocking[cpu] |= 1 << nesting,
            (COUNTED, SLOW) => return Err(format!("wake: cpu {cpu} sleeps, and the unlock has looked for it already")),
            (LOCKED, SLOW) if name == "word.mark-slow" && !self.promoted => {
                return Err(format!("wake: cpu {cpu} marks a lock slow that has no head"));
            }
            (0, _) if is != 0 => return Err(format!("wake: cpu {cpu} takes the lock as {is}")),
            _ => {}
        }
        match name {
            "sleepers.join" => {
                let me = Value::from_bits(new).tail().expect("who joins is the newest").code() as u16;
                self.promoted |= Value::from_bits(old).tail().is_none();
                self.queue[usize::from(self.length)] = me;
                self.length += 1;
            }
            "word.rise" if was != 0 => {
                self.vain += u8::from(self.slept && self.vain < promised.turns);
                (self.risen, self.starving, self.asleep, self.slept) = (true, false, false, false);
            }
            "word.slow-down" if was != 0 => {
                self.starving = new & HEAD_AWAKE != 0;
                (self.risen, self.asleep, self.slept) = (false, true, true);
                if self.vain >= promised.turns && !self.starving {
                    let vain = self.vain;
                    return Err(format!("bypass: cpu {cpu}, woken {vain} times in vain, may be passed once more"));
                }
            }
            "word.step-down" if was != 0 => {
                self.pop();
                self.left |= was != LOCKED;
                self.leading = if Value::from_bits(new).tail().is_some() { code_of(who) } else { 0 };
            }
            "word.take-back" => self.asleep = false,
            "sleepers.disband" => {
                if std::mem::take(&mut self.leading) != code_of(who) {
                    return Err(format!("fifo: cpu {cpu} leaves the queue empty, and does not lead it"));
                }
                if let Some(first) = self.first() {
                    return Err(format!("fifo: cpu {cpu} takes cpu {first} out of the queue"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The first leaves.
    fn pop(&mut self) {
        self.queue.copy_within(1.., 0);
        self.length -= 1;
        self.queue[usize::from(self.length)] = 0;
        if self.length == 0 {
            self.slips = [0; MOST];
        }
        (self.promoted, self.risen, self.starving, self.asleep, self.slept) = (false, false, false, false, false);
        (self.vain, self.leading) = (0, 0);
    }

    /// Somebody who is not the head takes the lock.
    fn pass(&mut self, promised: Halting, cpu: usize, name: &str) -> Result<(), String> {
        let Some(first) = self.first() else { return Ok(()) };
        match name {
            "word.try" if self.slips[cpu] >= promised.slips => {
                return Err(format!("bypass: cpu {cpu} passes cpu {first} by a look once more"));
            }
            "word.try" => self.slips[cpu] += 1,
            "word.steal" if self.risen || self.starving => {
                let why = if self.risen { "is awake" } else { "starves" };
                return Err(format!("bypass: cpu {cpu} steals the lock from cpu {first}, which {why}"));
            }
            _ => {}
        }
        Ok(())
    }

    /// An unlock, of a lock that is slow if it is not merely locked.
    fn release(&mut self, (cpu, nesting): (usize, u8), was: u32) -> Result<(), String> {
        let is_led = self.leading != 0 && self.leading != code_of((cpu, nesting));
        match self.first() {
            Some(first) if !self.promoted && !is_led => {
                return Err(format!("promotion: cpu {cpu} unlocks, and cpu {first} does not know that it is the head"));
            }
            Some(first) if self.asleep => {
                return Err(format!("wake: cpu {cpu} unlocks as {was} and leaves the head, cpu {first}, asleep"));
            }
            None if was != LOCKED && !self.left => {
                return Err(format!("wake: cpu {cpu} unlocks a slow lock without a queue"));
            }
            _ => {}
        }
        self.unlocking[cpu] &= !(1 << nesting);
        self.left = false;
        Ok(())
    }

    /// The node of this code is made the head, which sleeps on if it does; or is taken out of the queue.
    pub(crate) fn promoted(&mut self, who: (usize, u8), code: u16, (old, new): (u32, u32)) -> Result<(), String> {
        let is_led = self.leading != 0 && self.leading != code_of(who);
        if self.promoted || is_led || self.queue[0] != code || old == new && old != GONE {
            let (cpu, to, first) = (who.0, cpu_of(code), cpu_of(self.queue[0]));
            let again = if self.promoted { " again" } else { "" };
            return Err(format!("promotion: cpu {cpu} makes cpu {to} the head{again}; first in line is {first}"));
        }
        if old == GONE {
            self.pop();
            self.leading = code_of(who);
            return Ok(());
        }
        (self.promoted, self.leading) = (true, 0);
        (self.asleep, self.slept) = (new != HEAD, new != HEAD);
        Ok(())
    }

    /// A context has the node of this code say that its head is awake: an unlock, of a head that sleeps, or one that
    /// leads the queue. If it slept, it is owed a kick; if it has given up, it is out of the queue.
    pub(crate) fn woken(&mut self, who: (usize, u8), code: u16, old: u32) -> Result<(), String> {
        let (cpu, nesting) = who;
        let is_unlocking = self.unlocking[cpu] & 1 << nesting != 0;
        let (leads, whom) = (self.leading == code_of(who), cpu_of(code));
        if self.queue[0] != code {
            return Err(format!("wake: cpu {cpu} wakes who is not the first: {code:#x}"));
        }
        if !(leads || is_unlocking && self.promoted) {
            return Err(format!("wake: cpu {cpu} wakes cpu {whom}, and neither unlocks nor leads the queue"));
        }
        if self.promoted && !self.asleep {
            return Err(format!("wake: cpu {cpu} wakes cpu {whom}, which is awake"));
        }
        if old == GONE {
            self.pop();
            self.leading = code_of(who);
            self.left |= is_unlocking;
            return Ok(());
        }
        let was_asleep = if self.promoted { HEAD_ASLEEP } else { ASLEEP }.contains(&old);
        if self.promoted && !was_asleep {
            return Err(format!("wake: cpu {cpu} wakes cpu {whom}, whose node says {old}"));
        }
        if !self.promoted {
            self.slept = was_asleep;
        }
        (self.promoted, self.leading, self.asleep) = (true, 0, false);
        if was_asleep && std::mem::replace(&mut self.owed[cpu][usize::from(nesting)], code) != 0 {
            return Err(format!("kick: cpu {cpu} owes two kicks at a time"));
        }
        Ok(())
    }

    /// A context kicks somebody. Whom it owes a kick, which it does no longer. Nobody, while it still has to unlock.
    pub(crate) fn kicks(&mut self, (cpu, nesting): (usize, u8)) -> Option<usize> {
        if self.unlocking[cpu] & 1 << nesting != 0 {
            return None;
        }
        let code = std::mem::take(&mut self.owed[cpu][usize::from(nesting)]);
        (code != 0).then(|| cpu_of(code))
    }

    /// Somebody who owes a kick, and whom.
    pub(crate) fn owes(&self) -> Option<(usize, usize)> {
        let mut owed = self.owed.iter().enumerate().flat_map(|(cpu, owed)| owed.iter().map(move |&code| (cpu, code)));
        owed.find(|&(_, code)| code != 0).map(|(cpu, code)| (cpu, cpu_of(code)))
    }

    pub(crate) fn bytes(&self, out: &mut Vec<u8>) {
        self.queue[..usize::from(self.length)].iter().for_each(|code| out.extend_from_slice(&code.to_ne_bytes()));
        let flags = [self.promoted, self.risen, self.starving, self.asleep, self.slept, self.left];
        out.extend_from_slice(&[self.length, self.leading]);
        out.push(flags.iter().fold(0, |bits, &flag| bits << 1 | u8::from(flag)));
        out.push(self.vain);
        out.extend_from_slice(&self.slips);
        out.extend_from_slice(&self.unlocking);
        for (n, code) in self.owed.iter().flatten().enumerate().filter(|(_, code)| **code != 0) {
            out.push(n as u8);
            out.extend_from_slice(&code.to_ne_bytes());
        }
    }
}
