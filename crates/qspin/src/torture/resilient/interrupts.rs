//! Signals at any moment of acquiring and releasing, up to four handlers deep.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::super::signals;
use super::ground::Ground;
use super::seat::{LEVELS, Seat};
use super::subject::Resilient;

/// What a handler does.
type Handler<R> = fn(&'static Ground<R>, &'static Seat, u32);

/// Whose thread this is, for a handler. No destructor, so it can be read at any time in the life of a thread.
#[derive(Clone, Copy)]
struct Me {
    ground: *const (),
    seat: usize,
    handler: *const (),
    run: unsafe fn(Me, u32),
}

std::thread_local! {
    static ME: Cell<Me> = const { Cell::new(NOBODY) };
}

const NOBODY: Me = Me { ground: ptr::null(), seat: 0, handler: ptr::null(), run: ignore };

/// Meant for a thread that has ended, whose id another one has got.
unsafe fn ignore(_: Me, _: u32) {}

/// # Safety
/// `me` was made by [`attach`] with the same `R`.
unsafe fn run<R: Resilient>(me: Me, level: u32) {
    // SAFETY: made from a `&'static Ground<R>`.
    let ground = unsafe { &*me.ground.cast::<Ground<R>>() };
    // SAFETY: made from a `Handler<R>`.
    let handler = unsafe { std::mem::transmute::<*const (), Handler<R>>(me.handler) };
    let seat = &ground.seats[me.seat];
    seat.interrupted(level, || handler(ground, seat, level));
}

extern "C" fn handler(signal: libc::c_int) {
    // SAFETY: the address of the thread's own errno.
    let errno = unsafe { *libc::__errno_location() };
    let me = ME.get();
    // SAFETY: they were stored together.
    unsafe { (me.run)(me, (signal - libc::SIGRTMIN()) as u32) };
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Installs the handlers. Call with the signals blocked: threads inherit that, and only workers want them.
pub(super) fn install() -> std::io::Result<()> {
    (1..=LEVELS as u32).try_for_each(|level| {
        let mask = signals::set(1..=level);
        signals::set_handler(signals::signal(level), handler as *const () as usize, libc::SA_RESTART, mask)
    })
}

/// The calling thread takes signals while this lives.
pub(super) struct Attached(&'static Seat);

pub(super) fn attach<R: Resilient>(ground: &'static Ground<R>, seat: usize, handler: Handler<R>) -> Attached {
    let me = Me { ground: ptr::from_ref(ground).cast(), seat, handler: handler as *const (), run: run::<R> };
    ME.set(me);
    let seat = &ground.seats[seat];
    seat.tid.store(rustix::thread::gettid().as_raw_nonzero().get(), Relaxed);
    signals::unblock();
    Attached(seat)
}

impl Drop for Attached {
    fn drop(&mut self) {
        signals::block();
        self.0.tid.store(0, Relaxed);
        ME.set(NOBODY);
    }
}

fn send(seat: &Seat, level: u32) {
    let tid = seat.tid.load(Relaxed);
    if tid != 0 {
        seat.handlers_sent.fetch_add(1, Relaxed);
        // SAFETY: no memory is involved. A thread that has ended meanwhile is an error that does not matter; the group
        // id keeps the signal in this process.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, signals::signal(level)) };
    }
}

/// The calling thread interrupts itself.
pub(super) fn interrupt_myself(seat: &Seat, level: u32) {
    send(seat, level);
}

/// Handlers that may run during one step of a thread: more would hide that it never ends.
const PER_STEP: u32 = 6;

/// The body of the thread that sends signals.
pub(super) fn pester<R: Resilient>(ground: &'static Ground<R>, targets: usize) {
    let mut seen = vec![(0, 0); targets];
    let me = &ground.seats[targets];
    while !ground.is_over() {
        std::thread::sleep(Duration::from_micros(20 + me.below(300)));
        let at = me.below(targets as u64) as usize;
        let (target, (steps, sent)) = (&ground.seats[at], &mut seen[at]);
        if target.steps() != *steps {
            (*steps, *sent) = (target.steps(), 0);
        }
        // Real-time signals queue up.
        let waiting = target.handlers_sent.load(Relaxed).saturating_sub(target.handlers_run.load(Relaxed));
        if *sent < PER_STEP && waiting < 3 {
            *sent += 1;
            (1..=LEVELS as u32).filter(|_| me.one_in(2)).for_each(|level| send(target, level));
        }
    }
}
