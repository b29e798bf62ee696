//! Who lies in the queue of a lock whose waiters sleep, who owns it, and what is owed to them: judged from the steps on
//! its word, and on the nodes of those that lie.

use qspinlock::word::Value;

use super::ghost::{MOST, cpu_of};

const LOCKED: u32 = 1;
const GRANTED: u32 = 2;
const ASKED: u32 = 1 << 9;

/// What a node of a sleeper says.
const IDLE: u32 = 0;
const STARVING: u32 = 2;
const OWNER: u32 = 4;
const ABANDONED: u32 = 5;

/// What a lock whose waiters sleep promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sleeping {
    /// Unlocks that may pass a sleeper beyond those that take out who lay down before it; and unlocks that may pass one
    /// that has asked for a grant. One, if the unlock looks and then stores: it may have looked before.
    pub holes: u8,
    /// A sleeper that was woken so many times in vain is handed the lock when its turn comes.
    pub turns: u8,
}

/// One that lies in the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Sleeper {
    code: u16,
    /// How many unlocks may still pass it, taking out others, and how many by having looked before it lay down.
    left: u8,
    holes: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Sleepers {
    /// First the oldest.
    queue: [Sleeper; MOST],
    length: u8,
    /// Code of one that the queue does not name any more, and that has not been told so.
    taken: u16,
    /// CPU + 1.
    owner: u8,
    /// For each CPU, how often it was woken since it last had the lock.
    vain: [u8; MOST],
    /// Handlers that ran on each CPU when it last lay down. One over these that takes the lock is not who waits.
    nesting: [u8; MOST],
    /// Unlocks that did not grant the lock although that was asked for.
    refused: u8,
    /// An unlock passed the whole queue. Until one is taken out, only naps help.
    pub(crate) is_passed: bool,
}

impl Sleepers {
    fn lying(&self) -> &[Sleeper] {
        &self.queue[..usize::from(self.length)]
    }

    /// Whether a node of this code has lain down and not been told since.
    pub(crate) fn has(&self, code: u16) -> bool {
        self.taken == code || self.lying().iter().any(|s| s.code == code)
    }

    /// A step on the word that changed it.
    pub(crate) fn step(
        &mut self,
        promised: Sleeping,
        (cpu, nesting): (usize, u8),
        name: &str,
        (old, new): (u32, u32),
    ) -> Result<(), String> {
        let (was, is) = (old & 0xff, new & 0xff);
        if was != LOCKED && is == LOCKED {
            if was == GRANTED && matches!(name, "word.try" | "word.barge") {
                return Err(format!("grant: cpu {cpu} takes the lock in passing, and it is granted to who waits"));
            }
            self.owner = cpu as u8 + 1;
            // Who claims it while lying in the queue may be about to release it, for the first there.
            if nesting == self.nesting[cpu] && !self.lying().iter().any(|s| cpu_of(s.code) == cpu) {
                self.vain[cpu] = 0;
            }
        }
        match name {
            "sleepers.push" => {
                if was != LOCKED {
                    return Err(format!("sleepers: cpu {cpu} lies down although nobody owns the lock"));
                }
                let code = Value::from_bits(new).tail().expect("a push leaves a tail").code() as u16;
                let left = self.length + u8::from(self.taken != 0);
                self.queue[usize::from(self.length)] = Sleeper { code, left, holes: promised.holes };
                self.length += 1;
                self.nesting[cpu] = nesting;
            }
            "sleepers.emptied" => {
                if usize::from(self.owner) != cpu + 1 || self.length != 1 {
                    let length = self.length;
                    return Err(format!(
                        "sleepers: cpu {cpu} empties a queue of {length}; the owner takes out the last"
                    ));
                }
                self.taken = self.pop();
            }
            _ if was == LOCKED && is != LOCKED => self.release(promised, cpu, name == "word.release-hot", old, is)?,
            _ => {}
        }
        if new & ASKED == 0 {
            self.refused = 0;
        }
        Ok(())
    }

    fn release(&mut self, promised: Sleeping, cpu: usize, is_hot: bool, old: u32, is: u32) -> Result<(), String> {
        if usize::from(self.owner) != cpu + 1 {
            return Err(format!("owner: cpu {cpu} releases the lock, and has handed it over or never had it"));
        }
        let asked = old & ASKED != 0;
        if (is == GRANTED) != asked {
            // Granted to nobody, or not granted.
            if !asked || self.refused >= promised.holes {
                return Err(format!("grant: cpu {cpu} releases the lock, asked {asked}, as {is}"));
            }
            self.refused += 1;
        }
        self.owner = 0;
        self.is_passed |= is_hot && self.length > 0;
        self.pass(is_hot)
    }

    /// The lock goes to somebody else than those that lie.
    fn pass(&mut self, is_hot: bool) -> Result<(), String> {
        for sleeper in &mut self.queue[..usize::from(self.length)] {
            let left = if is_hot { &mut sleeper.holes } else { &mut sleeper.left };
            *left = left.checked_sub(1).ok_or_else(|| {
                format!("bypass: more unlocks pass the sleeping cpu {} than are promised", cpu_of(sleeper.code))
            })?;
        }
        Ok(())
    }

    fn pop(&mut self) -> u16 {
        let first = self.queue[0].code;
        self.queue.copy_within(1.., 0);
        self.length = self.length.saturating_sub(1);
        self.queue[usize::from(self.length)] = Sleeper::default();
        first
    }

    /// The node of this code is told that its owner lies no more.
    pub(crate) fn told(
        &mut self,
        promised: Sleeping,
        (cpu, nesting): (usize, u8),
        code: u16,
        (old, new): (u32, u32),
    ) -> Result<(), String> {
        let whom = cpu_of(code);
        if usize::from(self.owner) != cpu + 1 {
            return Err(format!("sleepers: cpu {cpu} takes cpu {whom} out of the queue and does not own the lock"));
        }
        // One that claimed the lock from the queue, as the first there, has it.
        let lies = self.lying().iter().map(|s| s.code).chain((self.taken != 0).then_some(self.taken));
        let is_itself = whom == cpu && nesting == self.nesting[cpu] && lies.map(cpu_of).any(|of| of == cpu);
        let first = if self.taken == 0 { self.pop() } else { std::mem::take(&mut self.taken) };
        if first != code {
            return Err(format!("fifo: cpu {cpu} wakes cpu {whom}, but first in line is cpu {}", cpu_of(first)));
        }
        if new == IDLE {
            // Nobody waits there any more, and so nobody is about to look at the lock.
            return Ok(());
        }
        if old == ABANDONED {
            return Err(format!("sleepers: cpu {cpu} wakes cpu {whom}, which has given up"));
        }
        self.is_passed = false;
        let starves = self.vain[whom] >= promised.turns;
        if new == OWNER {
            // One that unlocked in another's name and then woke itself is counted as served here, and was not.
            if old != STARVING || !(starves || promised.holes > 0) {
                return Err(format!("hand-over: cpu {cpu} hands the lock to cpu {whom}, which does not starve"));
            }
            self.owner = whom as u8 + 1;
            self.vain[whom] = 0;
            return self.pass(false);
        }
        if is_itself {
            self.vain[whom] = 0;
        } else if starves {
            return Err(format!("hand-over: cpu {cpu} wakes cpu {whom} once more, which starves"));
        } else {
            self.vain[whom] += 1;
        }
        Ok(())
    }

    pub(crate) fn bytes(&self, out: &mut Vec<u8>) {
        for sleeper in self.lying() {
            out.extend_from_slice(&sleeper.code.to_ne_bytes());
            out.extend_from_slice(&[sleeper.left, sleeper.holes]);
        }
        out.extend_from_slice(&self.taken.to_ne_bytes());
        out.extend_from_slice(&[self.length, self.owner, self.refused, u8::from(self.is_passed)]);
        out.extend_from_slice(&self.vain);
        out.extend_from_slice(&self.nesting);
    }
}
