//! Neither locking nor unlocking allocates: not on the first contended acquire of a thread, which claims its slot, and
//! not when waiting without a node; nor does a resilient lock that fails, or its report.
//!
//! With glibc also what C code allocates is seen.

#![cfg(target_os = "linux")]

#[path = "support/queue_only.rs"]
mod queue_only;
#[path = "support/watchdog.rs"]
mod watchdog;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use qspinlock::slowpath::{Fallible, Native, Paravirt, Parking, SlowPath, TestAndSet};
use qspinlock::threads::{Threads, slots_in_use};
use qspinlock::{RawResilientLock, RawSpinLock};
use queue_only::QueueOnly;
use watchdog::Watchdog;

/// Counts what a thread allocates while it says that it must not.
struct Counting;

static FORBIDDEN: AtomicU64 = AtomicU64::new(0);

std::thread_local! {
    static LOCKING: Cell<bool> = const { Cell::new(false) };
}

fn note() {
    if LOCKING.with(Cell::get) {
        FORBIDDEN.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        note();
        // SAFETY: passed on.
        unsafe { System.dealloc(p, layout) }
    }

    unsafe fn realloc(&self, p: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        // SAFETY: passed on.
        unsafe { System.realloc(p, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The C library's own allocations, such as those of `pthread_setspecific`: glibc lets a program take their place.
#[cfg(target_env = "gnu")]
mod c {
    use std::ffi::c_void;

    unsafe extern "C" {
        fn __libc_malloc(size: usize) -> *mut c_void;
        fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
    }

    // SAFETY: replaces the C library's function of this name, and passes on to it.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
        super::note();
        // SAFETY: passed on.
        unsafe { __libc_malloc(size) }
    }

    // SAFETY: as above.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
        super::note();
        // SAFETY: passed on.
        unsafe { __libc_calloc(count, size) }
    }
}

/// Two threads contend for a while, none of them with a slot from before. Gives how many had one in the end.
fn contend<S: SlowPath<Threads, Error = std::convert::Infallible> + 'static>() -> usize {
    let lock = RawSpinLock::<Threads, S>::new();
    let in_step = Barrier::new(3);
    let end = Instant::now() + Duration::from_millis(300);
    // Nothing may panic in here: the others would wait for ever.
    let slots = std::thread::scope(|s| {
        let contender = |_| {
            s.spawn(|| {
                in_step.wait();
                LOCKING.set(true);
                while Instant::now() < end {
                    let Ok(()) = lock.acquire_on(&Threads);
                    // Hold it until somebody waits, or nobody seems to come: else two CPUs hardly ever meet.
                    (0..1000).take_while(|_| !lock.is_contended()).for_each(|_| std::thread::yield_now());
                    // SAFETY: acquired above.
                    unsafe { lock.release_on(&Threads) };
                }
                LOCKING.set(false);
                in_step.wait();
                in_step.wait();
            })
        };
        let contenders = [0, 1].map(contender);
        in_step.wait();
        in_step.wait();
        let slots = slots_in_use();
        in_step.wait();
        // A scope does not wait for exit hooks, which give slots back; joining does.
        contenders.into_iter().for_each(|contender| contender.join().expect("a contender ends"));
        slots
    });
    assert_eq!(FORBIDDEN.load(Ordering::Relaxed), 0, "allocations while locking or unlocking");
    slots
}

/// Resilient locks, on all ways out: taken, held already, in a circle, too late; and what there is to tell.
fn resilient<S: Fallible<Threads>>() {
    let locks = [(); 2].map(|()| RawResilientLock::<Threads, S>::new());
    let in_step = Barrier::new(2);
    let told = std::thread::scope(|s| {
        let run = |mine: usize| {
            let (locks, in_step) = (&locks, &in_step);
            s.spawn(move || {
                in_step.wait();
                LOCKING.set(true);
                let first = locks[mine].acquire_on(&Threads);
                let again = locks[mine].acquire_on(&Threads);
                LOCKING.set(false);
                in_step.wait();
                LOCKING.set(true);
                let late = locks[1 - mine].acquire_within_on(&Threads, 0);
                let tried = locks[1 - mine].try_acquire_on(&Threads);
                LOCKING.set(false);
                in_step.wait();
                LOCKING.set(true);
                let circle = locks[1 - mine].acquire_within_on(&Threads, 10_000_000_000);
                let report = circle.err().and_then(|error| error.report());
                // SAFETY: acquired above, each that was.
                let released = unsafe {
                    (circle.is_err() || locks[1 - mine].release_on(&Threads).is_ok())
                        && locks[mine].release_on(&Threads).is_ok()
                };
                LOCKING.set(false);
                in_step.wait();
                let is_so = first.is_ok() && again.is_err() && !tried && released;
                // Late, or the other one's wait was just to be seen.
                (is_so && late.is_err(), report.is_some())
            })
        };
        let threads = [0, 1].map(run);
        threads.map(|thread| thread.join().expect("it ends"))
    });
    assert!(told[0].0 && told[1].0 && (told[0].1 || told[1].1), "{told:?}");
    assert_eq!(FORBIDDEN.load(Ordering::Relaxed), 0, "{}: allocations while locking or unlocking", S::NAME);
}

// One test, so that no other allocates meanwhile.
#[test]
fn locking_does_not_allocate() {
    let _watchdog = Watchdog::arm("locking_does_not_allocate", Duration::from_secs(60));
    assert_ne!(contend::<QueueOnly>(), 0, "no slot was claimed, so claiming one was not tested");
    contend::<Native>();
    contend::<Parking>();
    assert_eq!(contend::<TestAndSet>(), 0, "who does not queue needs no slot");

    resilient::<Native>();
    resilient::<Parking>();
    resilient::<Paravirt>();
    resilient::<TestAndSet>();

    // That the counters count.
    LOCKING.set(true);
    drop(std::hint::black_box(Box::new(1)));
    // SAFETY: allocates and gives back.
    unsafe { libc::free(std::hint::black_box(libc::calloc(1, 1))) };
    LOCKING.set(false);
    let (rust, c) = (2, if cfg!(target_env = "gnu") { 2 } else { 0 });
    assert_eq!(FORBIDDEN.load(Ordering::Relaxed), rust + c);
}
