//! Cells of a simulated machine, and the memory that they lie in.
//!
//! A cell is the 4 bytes that it is on a real machine, so the library's own types have their real layout, and the
//! address of a cell says which line it is in. What an access costs is for the [world](super::world) to say that runs on
//! this thread. Where none runs, cells are plain memory: whoever sets a run up, or looks at what is left of it, pays
//! nothing.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::Cell as StdCell;
use std::marker::PhantomData;
use std::ptr::NonNull;

use qspinlock::machine::{Access, Cell, ConstCell};

use super::world::World;

/// Bytes of a line.
pub const LINE: usize = 64;

const PAGE: usize = 4096;

/// A 32-bit word of a simulated machine.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct SimCell(StdCell<u32>);

const _: () = assert!(size_of::<SimCell>() == 4);

impl SimCell {
    /// A cell that holds `value`.
    #[must_use]
    pub const fn new(value: u32) -> Self {
        Self(StdCell::new(value))
    }

    /// What memory holds, whatever is still in some CPU's store buffer. Costs nothing.
    #[must_use]
    pub fn get(&self) -> u32 {
        self.0.get()
    }

    pub(super) fn set(&self, value: u32) {
        self.0.set(value);
    }
}

const LOW: u32 = 0xff;

// SAFETY: one virtual CPU acts at a time, and each access is one step. All of them are in one order that all CPUs
// agree on, but that a CPU's stores may come after its later loads, which only a SeqCst fence (it waits for them) or an atomic
// would forbid: total store order, stronger than any ordering that an `Access` can name.
unsafe impl Cell for SimCell {
    fn load(&self, _: Access) -> u32 {
        World::with(|world| world.load(self, false)).unwrap_or_else(|| self.get())
    }

    fn store(&self, value: u32, _: Access) {
        if World::with(|world| world.store(self, value, !0)).is_none() {
            self.set(value);
        }
    }

    fn cas(&self, old: u32, new: u32, access: Access) -> Result<u32, u32> {
        self.update(access, |v| (v == old).then_some(new))
    }

    fn update(&self, _: Access, f: impl Fn(u32) -> Option<u32>) -> Result<u32, u32> {
        let old = World::with(|world| world.atomic(self, &f)).unwrap_or_else(|| {
            let old = self.get();
            self.set(f(old).unwrap_or(old));
            old
        });
        f(old).map(|_| old).ok_or(old)
    }

    fn load_byte1(&self, _: Access) -> u32 {
        World::with(|world| world.load(self, true)).unwrap_or_else(|| self.get()) & 0xff00
    }

    fn store_low8(&self, value: u8, _: Access) {
        if World::with(|world| world.store(self, value.into(), LOW)).is_none() {
            self.set(self.get() & !LOW | u32::from(value));
        }
    }

    fn count_up_own(&self, access: Access) {
        self.store(self.load(access).wrapping_add(1), access);
    }
}

impl ConstCell for SimCell {
    const ZERO: Self = Self::new(0);
}

/// The memory of a world: whole pages, given out from the start and never taken back before the world ends.
#[derive(Debug)]
pub struct Arena {
    base: NonNull<u8>,
    layout: Layout,
    used: StdCell<usize>,
    owns: PhantomData<u8>,
}

impl Arena {
    /// Room for so many bytes. Those that are never touched take no memory.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let layout =
            Layout::from_size_align(bytes.max(PAGE).next_multiple_of(PAGE), PAGE).expect("fits an address space");
        // SAFETY: the layout is not empty.
        let base = unsafe { alloc_zeroed(layout) };
        let base = NonNull::new(base).unwrap_or_else(|| handle_alloc_error(layout));
        Self { base, layout, used: StdCell::new(0), owns: PhantomData }
    }

    /// Moves a value into it, at a line of its own.
    ///
    /// # Panics
    /// If there is no room.
    #[allow(clippy::mut_from_ref, reason = "shared, and fresh")]
    pub fn put<T>(&self, value: T) -> &T {
        const { assert!(!std::mem::needs_drop::<T>()) };
        let at = self.used.get().next_multiple_of(align_of::<T>().max(LINE));
        let end = at + size_of::<T>();
        assert!(end <= self.layout.size(), "the arena of a world is full");
        self.used.set(end);
        // SAFETY: inside the block, aligned (the block is to a page, and no type here to more), and given out once; it lives as
        // long as the arena, which the reference borrows.
        unsafe {
            let place = self.base.add(at).cast::<T>();
            place.write(value);
            place.as_ref()
        }
    }

    /// Moves so many values into it, one after the other.
    ///
    /// # Panics
    /// The same.
    pub(super) fn put_all<T>(&self, number: usize, mut value: impl FnMut(usize) -> T) -> &[T] {
        const { assert!(size_of::<T>().is_multiple_of(LINE)) };
        let Some(last) = number.checked_sub(1) else { return &[] };
        let first = self.put(value(0));
        for i in 1..=last {
            self.put(value(i));
        }
        // SAFETY: each is whole lines and begins at the next one, so they lie side by side.
        unsafe { std::slice::from_raw_parts(first, number) }
    }

    /// Lines of it.
    pub(super) fn lines(&self) -> usize {
        self.layout.size() / LINE
    }

    /// Where a cell is, in bytes from the start.
    pub(super) fn offset<T>(&self, of: &T) -> usize {
        let offset = std::ptr::from_ref(of).addr().wrapping_sub(self.base.addr().get());
        assert!(offset < self.layout.size(), "a cell of a running world lies in its arena");
        offset
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; nothing borrows it any more.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}
