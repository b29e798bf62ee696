//! What an access to a line costs: who has it, how far away that is, and who else is in front.
//!
//! * A load hits if the CPU has the line, alone or with others; a store or an atomic hits if it has it alone. Hits do
//!   not queue.
//! * Anything else queues for the line, and is served in the order in which it was issued. A store or an atomic keeps
//!   the line busy for as long as it takes. So does a load of a line that one CPU alone has; a load of one that is shared
//!   takes long and keeps it only briefly.
//! * A write takes the line from everybody else.

use super::model::{Distance, Model, OwnCosts, Transfer};

/// What a CPU does with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Load,
    /// A load that takes the line from everybody else, for a write that will follow.
    LoadMine,
    Store,
    Atomic,
}

/// How an access was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Served {
    /// When the line turned to it.
    pub(super) start: u64,
    /// When it was done.
    pub(super) done: u64,
    /// Others have lost their copies.
    pub(super) takes: bool,
    /// Who had the line alone has it no more, but still has a copy.
    pub(super) shares: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// In memory only.
    Nobody,
    /// By the CPU at this place, alone.
    Alone(u32),
    /// By those in the set.
    Shared,
}

#[derive(Clone, Debug)]
struct Line {
    held: Held,
    /// When who has it alone can read it.
    there: u64,
    /// When it can serve the next request.
    free: u64,
    sharers: Box<[u64]>,
    /// When a shared line has come, or comes, to each last-level cache.
    comes: Box<[u64]>,
}

/// The costs of a model, ready to look up. A CPU's *place* is its number in an order in which neighbours are together:
/// threads of a core, cores of a last-level cache, caches of a socket.
#[derive(Debug)]
pub(super) struct Distances {
    smt: u32,
    per_l3: u32,
    per_socket: u32,
    sockets: u32,
    all_cores: u32,
    /// For two sockets, the index of what a transfer costs between them.
    between: Vec<Vec<usize>>,
    /// By index: core, last-level cache, socket, one hop, two.
    transfers: Vec<Transfer>,
}

const CORE: usize = 0;
const L3: usize = 1;
const SOCKET: usize = 2;

const NO_TRANSFER: Transfer = Transfer {
    load_modified: 0,
    load_shared: 0,
    load_shared_occupies: 0,
    store_modified: 0,
    store_shared: 0,
    atomic_modified: 0,
    atomic_shared: 0,
};

fn index(distance: Distance) -> usize {
    match distance {
        Distance::Core => CORE,
        Distance::L3 => L3,
        Distance::Socket => SOCKET,
        Distance::Hops(hops) => SOCKET + usize::from(hops),
    }
}

impl Distances {
    /// # Errors
    /// The model has two CPUs at a distance for which it has no costs.
    pub(super) fn new(model: &Model) -> Result<Self, String> {
        let shape = &model.shape;
        let mut needed = Vec::new();
        needed.extend((shape.smt > 1).then_some(Distance::Core));
        needed.extend((shape.cores > 1).then_some(Distance::L3));
        needed.extend((shape.l3s > 1).then_some(Distance::Socket));
        needed.extend(shape.hops.iter().flatten().filter(|&&h| h > 0).map(|&h| Distance::Hops(h)));
        let mut transfers = vec![NO_TRANSFER; index(Distance::Hops(u8::MAX)) + 1];
        for distance in needed {
            let Some(found) = model.transfers.iter().find(|t| t.0 == distance) else {
                return Err(format!("{} has CPUs at a distance of {distance}, and no costs for it", model.name));
            };
            transfers[index(distance)] = found.1;
        }
        let between = shape.hops.iter().map(|row| row.iter().map(|&h| SOCKET + usize::from(h)).collect()).collect();
        let per_l3 = shape.cores * shape.smt;
        let all_cores = shape.sockets * shape.l3s * shape.cores;
        let per_socket = per_l3 * shape.l3s;
        let (smt, sockets) = (shape.smt, shape.sockets);
        Ok(Self { smt, per_l3, per_socket, sockets, all_cores, between, transfers })
    }

    /// The place of a CPU of the model.
    pub(super) fn place(&self, cpu: u32) -> u32 {
        cpu % self.all_cores * self.smt + cpu / self.all_cores
    }

    fn places(&self) -> u32 {
        self.per_socket * self.sockets
    }

    fn l3(&self, place: u32) -> usize {
        (place / self.per_l3) as usize
    }

    fn l3s(&self) -> usize {
        (self.places() / self.per_l3) as usize
    }

    /// How far two places are apart, from near to far.
    pub(super) fn apart(&self, a: u32, b: u32) -> usize {
        if a / self.smt == b / self.smt {
            CORE
        } else if a / self.per_l3 == b / self.per_l3 {
            L3
        } else {
            self.between[(a / self.per_socket) as usize][(b / self.per_socket) as usize]
        }
    }

    /// How far the nearest of a set is from a place, and the farthest. The place itself does not count.
    fn reach(&self, set: &[u64], me: u32) -> Option<(usize, usize)> {
        let any = |from: u32, to: u32| any_in(set, from, to);
        let beside = |size: u32, inner: u32| {
            let (outer, own) = (me / size * size, me / inner * inner);
            any(outer, own) || any(own + inner, outer + size)
        };
        let is_near = [
            (CORE, beside(self.smt, 1)),
            (L3, beside(self.per_l3, self.smt)),
            (SOCKET, beside(self.per_socket, self.per_l3)),
        ];
        let socket = me / self.per_socket;
        let far = (0..self.sockets)
            .filter(|&s| s != socket && any(s * self.per_socket, (s + 1) * self.per_socket))
            .map(|s| self.between[socket as usize][s as usize]);
        is_near.into_iter().filter(|n| n.1).map(|n| n.0).chain(far).fold(None, |reach, d| {
            let (near, far) = reach.unwrap_or((d, d));
            Some((near.min(d), far.max(d)))
        })
    }

    /// What it costs to fetch a line that nobody has: as from the farthest CPU. It happens once a line.
    fn farthest(&self) -> usize {
        (0..self.transfers.len()).rev().find(|&d| self.transfers[d] != NO_TRANSFER).unwrap_or(CORE)
    }
}

/// Whether a set has any from `from` to below `to`.
fn any_in(set: &[u64], from: u32, to: u32) -> bool {
    let mut at = from;
    while at < to {
        let bits = set[(at / 64) as usize] >> (at % 64);
        let width = (64 - at % 64).min(to - at);
        let mask = if width == 64 { !0 } else { (1 << width) - 1 };
        if bits & mask != 0 {
            return true;
        }
        at += width;
    }
    false
}

fn has(set: &[u64], place: u32) -> bool {
    set[(place / 64) as usize] >> (place % 64) & 1 != 0
}

fn insert(set: &mut [u64], place: u32) {
    set[(place / 64) as usize] |= 1 << (place % 64);
}

/// All lines of a world.
#[derive(Debug)]
pub(super) struct Lines {
    own: OwnCosts,
    distances: Distances,
    words: usize,
    lines: Vec<Line>,
}

impl Lines {
    pub(super) fn new(own: OwnCosts, distances: Distances, lines: usize) -> Self {
        let words = distances.places().div_ceil(64) as usize;
        let line = Line { held: Held::Nobody, there: 0, free: 0, sharers: Box::default(), comes: Box::default() };
        Self { own, distances, words, lines: vec![line; lines] }
    }

    pub(super) fn distances(&self) -> &Distances {
        &self.distances
    }

    /// Whether the CPU at a place has a line alone.
    pub(super) fn is_alone(&self, line: usize, me: u32) -> bool {
        self.lines[line].held == Held::Alone(me)
    }

    /// The CPU at a place accesses a line. Calls come in the order of time.
    pub(super) fn access(&mut self, line: usize, me: u32, want: Want, at: u64) -> Served {
        let Self { own, distances, words, lines } = self;
        let line = &mut lines[line];
        let hit = match want {
            Want::Load | Want::LoadMine => own.load,
            Want::Store => own.store,
            Want::Atomic => own.atomic,
        };
        let is_shared_by_me = line.held == Held::Shared && has(&line.sharers, me);
        if line.held == Held::Alone(me) || (is_shared_by_me && want == Want::Load) {
            let start = if is_shared_by_me { at } else { at.max(line.there) };
            return Served { start, done: start + u64::from(hit), takes: false, shares: false };
        }
        let start = at.max(line.free);
        let (latency, busy) = match line.held {
            Held::Nobody => {
                let far = &distances.transfers[distances.farthest()];
                (far.load_modified.max(hit), far.load_modified)
            }
            Held::Alone(owner) => {
                let from = &distances.transfers[distances.apart(me, owner)];
                let latency = match want {
                    Want::Load => from.load_modified,
                    Want::LoadMine | Want::Store => from.store_modified,
                    Want::Atomic => from.atomic_modified,
                };
                (latency, latency)
            }
            Held::Shared => match distances.reach(&line.sharers, me) {
                // Nobody else has it.
                None => (hit, hit),
                Some((near, far)) => {
                    let (near, far) = (&distances.transfers[near], &distances.transfers[far]);
                    match want {
                        Want::Load => (near.load_shared, near.load_shared_occupies),
                        Want::LoadMine | Want::Store => (far.store_shared, far.store_shared),
                        Want::Atomic => (far.atomic_shared, far.atomic_shared),
                    }
                }
            },
        };
        let mut done = start + u64::from(latency);
        line.free = start + u64::from(busy);
        let before = line.held;
        match (want, before) {
            (Want::Load, Held::Alone(owner)) => {
                if line.sharers.is_empty() {
                    line.sharers = vec![0; *words].into_boxed_slice();
                    line.comes = vec![u64::MAX; distances.l3s()].into_boxed_slice();
                }
                line.sharers.fill(0);
                insert(&mut line.sharers, owner);
                insert(&mut line.sharers, me);
                line.held = Held::Shared;
                line.comes.fill(u64::MAX);
                line.comes[distances.l3(me)] = done;
                line.comes[distances.l3(owner)] = line.there;
            }
            (Want::Load, Held::Shared) => {
                insert(&mut line.sharers, me);
                let comes = &mut line.comes[distances.l3(me)];
                if *comes == u64::MAX {
                    *comes = done;
                } else {
                    // A neighbour has asked for it already, but it may be on its way still.
                    done = done.max(comes.saturating_add(latency.into()));
                }
            }
            _ => {
                // A copy that it has can be read while the others are told to drop theirs.
                line.there = if is_shared_by_me { at } else { done };
                line.held = Held::Alone(me);
            }
        }
        let takes = want != Want::Load && before != Held::Nobody;
        let shares = want == Want::Load && matches!(before, Held::Alone(_));
        Served { start, done, takes, shares }
    }
}
