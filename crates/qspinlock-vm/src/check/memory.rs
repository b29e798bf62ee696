//! The weak memory: C11 release/acquire with relaxed accesses, release sequences and SC fences; no load buffering.
//!
//! A cell is its *messages*, in modification order. A CPU has a *view*: for each cell, the oldest message that it may
//! still read. A load reads any message not older than the view. A store goes anywhere newer than the view, but not
//! between a read-modify-write and what that one read. A read-modify-write stands next to what it reads, and its
//! message carries the view of that one on: a release sequence. Reading a message with acquire joins its view.
//!
//! Not modelled: load buffering (a load that reads from a store which depends on it or follows it in program order)
//! and its relatives; accesses of mixed sizes. Every execution found here is one that C11 allows.

use super::op::{acquires, releases};
use super::presume::EVERYBODY;
use qspinlock::machine::Ordering;

/// Cells that one exploration may touch. A view is an array of this many bytes.
pub(crate) const MAX_CELLS: usize = 32;

/// For each cell, the index of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct View(pub(crate) [u8; MAX_CELLS]);

impl View {
    pub(crate) const ZERO: Self = Self([0; MAX_CELLS]);

    fn join(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine = (*mine).max(theirs);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Message {
    pub(crate) value: u32,
    /// It follows, with nothing between, the message that a read-modify-write read.
    pub(crate) from_rmw: bool,
    /// Its value will not be read, as it is presumed.
    pub(crate) buried: bool,
    pub(crate) view: View,
}

const NOTHING: Message = Message { value: 0, from_rmw: false, buried: false, view: View::ZERO };

/// What a CPU knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Views {
    /// What it may still read.
    pub(crate) current: View,
    /// What an acquire fence would add: the views of all messages it read.
    pub(crate) acquire: View,
    /// What its relaxed stores publish: the view at its last release fence.
    pub(crate) release: View,
}

/// All cells, and what each CPU knows of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Memory {
    /// The messages of all cells, cell by cell, each in modification order.
    messages: Vec<Message>,
    /// How many messages each cell has.
    counts: [u8; MAX_CELLS],
    pub(crate) cpus: Vec<Views>,
    /// What the SC fences so far have seen, together.
    sc: View,
    /// For each CPU, what those knew who have kicked it since it last woke.
    kicks: Vec<View>,
}

impl Memory {
    /// Cells that hold 0. `ignorant`: for each cell, who may touch it without knowing its last write. Unless that is
    /// everybody, the first message stands for all that those who matter can not read any more.
    pub(crate) fn new(ignorant: &[u8], cpus: usize) -> Self {
        let mut counts = [0; MAX_CELLS];
        let mut current = View::ZERO;
        for (cell, &ignorant) in ignorant.iter().enumerate() {
            current.0[cell] = u8::from(ignorant != EVERYBODY);
            counts[cell] = 1 + current.0[cell];
        }
        let views = Views { current, acquire: current, release: View::ZERO };
        let messages = counts.iter().map(|&n| usize::from(n)).sum();
        Self {
            messages: vec![NOTHING; messages],
            counts,
            cpus: vec![views; cpus],
            sc: View::ZERO,
            kicks: vec![View::ZERO; cpus],
        }
    }

    fn start(&self, cell: usize) -> usize {
        self.counts[..cell].iter().map(|&n| usize::from(n)).sum()
    }

    /// The messages of a cell.
    pub(crate) fn of(&self, cell: usize) -> &[Message] {
        let start = self.start(cell);
        &self.messages[start..start + usize::from(self.counts[cell])]
    }

    /// The last value in modification order.
    pub(crate) fn newest(&self, cell: usize) -> u32 {
        self.of(cell).last().expect("a cell has a message").value
    }

    /// The indices of the messages that a CPU may read.
    pub(crate) fn readable(&self, cpu: usize, cell: usize) -> std::ops::Range<usize> {
        usize::from(self.cpus[cpu].current.0[cell])..usize::from(self.counts[cell])
    }

    /// Whether a CPU knows the last write of a cell.
    pub(crate) fn is_informed(&self, cpu: usize, cell: usize) -> bool {
        self.cpus[cpu].current.0[cell] + 1 == self.counts[cell]
    }

    /// Reads message `index`.
    pub(crate) fn read(&mut self, cpu: usize, cell: usize, index: usize, order: Ordering) -> u32 {
        let message = self.of(cell)[index];
        let views = &mut self.cpus[cpu];
        views.current.0[cell] = views.current.0[cell].max(index as u8);
        if acquires(order) {
            views.current.join(&message.view);
        }
        views.acquire.join(&message.view);
        views.acquire.join(&views.current);
        message.value
    }

    /// The places where a CPU may store: a new message gets that index.
    pub(crate) fn places(&self, cpu: usize, cell: usize) -> impl Iterator<Item = usize> {
        let first = usize::from(self.cpus[cpu].current.0[cell]) + 1;
        (first..=self.of(cell).len()).filter(move |&at| self.of(cell).get(at).is_none_or(|m| !m.from_rmw))
    }

    /// Stores at a place.
    pub(crate) fn write(&mut self, cpu: usize, cell: usize, at: usize, value: u32, order: Ordering) {
        self.insert(cpu, cell, at, value, order, None);
    }

    /// Whether a read-modify-write may read message `index`: nobody stands next to it yet.
    pub(crate) fn modifiable(&self, cell: usize, index: usize) -> bool {
        self.of(cell).get(index + 1).is_none_or(|m| !m.from_rmw)
    }

    /// Reads message `index` and writes next to it.
    pub(crate) fn modify(&mut self, cpu: usize, cell: usize, index: usize, value: u32, order: Ordering) {
        let sequence = self.of(cell)[index].view;
        self.read(cpu, cell, index, order);
        self.insert(cpu, cell, index + 1, value, order, Some(sequence));
    }

    fn insert(&mut self, cpu: usize, cell: usize, at: usize, value: u32, order: Ordering, sequence: Option<View>) {
        self.each_view(|view| view.0[cell] += u8::from(usize::from(view.0[cell]) >= at));
        let views = &mut self.cpus[cpu];
        views.current.0[cell] = at as u8;
        views.acquire.join(&views.current);
        let mut view = if releases(order) { views.current } else { views.release };
        view.0[cell] = at as u8;
        if let Some(sequence) = sequence {
            view.join(&sequence);
        }
        let place = self.start(cell) + at;
        self.messages.insert(place, Message { value, from_rmw: sequence.is_some(), buried: false, view });
        self.counts[cell] = self.counts[cell].checked_add(1).expect("fewer than 256 messages of a cell matter");
    }

    /// A cell has nearly as many messages that matter as can be told apart. What stays in bounds keeps few of them.
    pub(crate) fn is_full(&self) -> bool {
        self.counts.iter().any(|&count| count > u8::MAX - MAX_CELLS as u8)
    }

    pub(crate) fn fence(&mut self, cpu: usize, order: Ordering) {
        let views = &mut self.cpus[cpu];
        if acquires(order) {
            views.current = views.acquire;
        }
        if order == Ordering::SeqCst {
            views.current.join(&self.sc);
            self.sc = views.current;
            views.acquire.join(&views.current);
        }
        if releases(order) {
            views.release = views.current;
        }
    }

    /// A kick happens before the end of the sleep that it ends, as if it passed a message.
    pub(crate) fn kick(&mut self, cpu: usize, target: usize) {
        self.kicks[target].join(&self.cpus[cpu].current);
    }

    /// A sleep has ended, by the kicks so far.
    pub(crate) fn wake(&mut self, cpu: usize) {
        let kicks = std::mem::replace(&mut self.kicks[cpu], View::ZERO);
        let views = &mut self.cpus[cpu];
        views.current.join(&kicks);
        views.acquire.join(&kicks);
    }

    /// A CPU touches plain data. False if it does not know of the last touch: a race.
    ///
    /// Such a cell has one message, whose value says whether it was touched at all; a view of 1 knows of the last.
    pub(crate) fn touch(&mut self, cpu: usize, cell: usize) -> bool {
        let start = self.start(cell);
        let known = self.messages[start].value == 0 || self.cpus[cpu].current.0[cell] == 1;
        self.messages[start].value = 1;
        self.each_view(|view| view.0[cell] = 0);
        self.cpus[cpu].current.0[cell] = 1;
        self.cpus[cpu].acquire.0[cell] = 1;
        known
    }

    /// Reads or writes a cell that only this CPU ever touches.
    pub(crate) fn private(&mut self, cell: usize) -> &mut u32 {
        let start = self.start(cell);
        &mut self.messages[start].value
    }

    /// What a CPU that has ended knows is known to nobody.
    pub(crate) fn end(&mut self, cpu: usize) {
        self.cpus[cpu] = Views { current: View::ZERO, acquire: View::ZERO, release: View::ZERO };
        self.kicks[cpu] = View::ZERO;
    }

    /// Forgets what a cell holds, which nobody will read. Only its owner, a CPU that knows the last write and will write
    /// the next, knows afterwards that there was one. False, and nothing is done, if the owner does not know.
    pub(crate) fn bury(&mut self, cell: usize, owner: usize, owner_runs: bool) -> bool {
        if owner_runs && !self.is_informed(owner, cell) {
            return false;
        }
        let start = self.start(cell);
        let count = usize::from(self.counts[cell]);
        self.messages.drain(start + 2..start + count);
        self.messages[start + 1] = Message { buried: true, ..NOTHING };
        self.counts[cell] = 2;
        self.each_view(|view| view.0[cell] = 0);
        if owner_runs {
            let views = &mut self.cpus[owner];
            views.current.0[cell] = 1;
            views.acquire.0[cell] = 1;
        }
        true
    }

    fn each_view(&mut self, f: impl Fn(&mut View)) {
        self.messages.iter_mut().for_each(|m| f(&mut m.view));
        for views in &mut self.cpus {
            f(&mut views.current);
            f(&mut views.acquire);
            f(&mut views.release);
        }
        f(&mut self.sc);
        self.kicks.iter_mut().for_each(f);
    }

    /// Forgets what nobody can tell apart: messages that no running CPU may read any more, or none that may be ignorant
    /// of newer ones, and the difference between views of them. `runs` says which CPUs still run.
    pub(crate) fn collect(&mut self, runs: impl Fn(usize) -> bool, fences: bool, ignorant: &[u8; MAX_CELLS]) {
        let mut oldest = [u8::MAX; MAX_CELLS];
        for (cpu, views) in self.cpus.iter().enumerate().filter(|(cpu, _)| runs(*cpu)) {
            for ((oldest, current), ignorant) in oldest.iter_mut().zip(views.current.0).zip(ignorant) {
                if ignorant & 1 << cpu != 0 {
                    *oldest = (*oldest).min(current);
                }
            }
        }
        let mut start = 0;
        let mut dropped = [0; MAX_CELLS];
        for cell in 0..MAX_CELLS {
            let count = self.counts[cell];
            if count > 0 {
                // The newest stays, for whoever comes to read it at the end; and a first that stands for all older ones.
                let stays = u8::from(ignorant[cell] != EVERYBODY);
                oldest[cell] = oldest[cell].min(count - 1);
                dropped[cell] = oldest[cell] - stays;
                let first = start + usize::from(stays);
                self.messages.drain(first..first + usize::from(dropped[cell]));
                self.counts[cell] -= dropped[cell];
                // What the first one followed is gone.
                self.messages[first].from_rmw = false;
                start += usize::from(self.counts[cell]);
            }
        }
        let renumber = |view: &mut View| {
            for ((index, dropped), oldest) in view.0.iter_mut().zip(dropped).zip(oldest) {
                *index = if *index < oldest { 0 } else { *index - dropped };
            }
        };
        self.messages.iter_mut().for_each(|m| renumber(&mut m.view));
        renumber(&mut self.sc);
        self.kicks.iter_mut().for_each(renumber);
        for views in &mut self.cpus {
            renumber(&mut views.current);
            if fences {
                renumber(&mut views.acquire);
                renumber(&mut views.release);
            } else {
                // No fence will ever look at these.
                views.acquire = View::ZERO;
                views.release = View::ZERO;
            }
        }
    }

    /// Everything, as bytes that are equal if and only if the memories are.
    pub(crate) fn bytes(&self, out: &mut Vec<u8>, cells: usize) {
        out.extend_from_slice(&self.counts[..cells]);
        for message in &self.messages {
            out.extend_from_slice(&message.value.to_ne_bytes());
            out.push(u8::from(message.from_rmw) | u8::from(message.buried) << 1);
            out.extend_from_slice(&message.view.0[..cells]);
        }
        for views in &self.cpus {
            for view in [&views.current, &views.acquire, &views.release] {
                out.extend_from_slice(&view.0[..cells]);
            }
        }
        out.extend_from_slice(&self.sc.0[..cells]);
        self.kicks.iter().for_each(|view| out.extend_from_slice(&view.0[..cells]));
    }
}
