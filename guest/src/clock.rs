//! Time: the CPU's counter, measured once by the timer of old.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::cpu;

/// Of the timer of old, hertz.
const PIT: u64 = 1_193_182;
/// Its ticks while the counter is measured, and how often that is done.
const MEASURED: u16 = 4_773;
const TIMES: usize = 3;

static START: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds a tick, in units of 2^-32.
static SCALE: AtomicU64 = AtomicU64::new(1 << 32);

/// Ticks of the counter in so many of the timer's; `None` if that does not answer.
fn measure() -> Option<u64> {
    // SAFETY: channel 2 of an 8254, counting down once, with the loudspeaker off.
    unsafe {
        cpu::out8(0x61, (cpu::in8(0x61) & !2) | 1);
        cpu::out8(0x43, 0xb0);
        cpu::out8(0x42, MEASURED as u8);
        let begin = cpu::ticks();
        cpu::out8(0x42, (MEASURED >> 8) as u8);
        let answered = (0..50_000_000).any(|_| cpu::in8(0x61) & 0x20 != 0);
        answered.then(|| cpu::ticks() - begin)
    }
}

/// Measures how fast the counter runs, three times in 4 ms: who is held up in between counts too much, so the least is
/// right. Hertz; if the timer does not answer, a guess of 1 GHz, and `None`.
/// Time begins at `start`, in ticks.
pub(crate) fn calibrate(start: u64) -> Option<u64> {
    let measured = core::iter::repeat_with(measure).take(TIMES).flatten().min();
    let hertz = measured.map(|ticks| ticks * PIT / u64::from(MEASURED)).filter(|hertz| *hertz > 1_000_000);
    let scale = (1_000_000_000_u128 << 32) / u128::from(hertz.unwrap_or(1_000_000_000));
    SCALE.store(scale as u64, Ordering::Relaxed);
    START.store(start, Ordering::Relaxed);
    hertz
}

/// Nanoseconds since the clock was measured.
pub(crate) fn now() -> u64 {
    let ticks = cpu::ticks().saturating_sub(START.load(Ordering::Relaxed));
    ((u128::from(ticks) * u128::from(SCALE.load(Ordering::Relaxed))) >> 32) as u64
}

/// Waits so many nanoseconds.
pub(crate) fn pause_for(nanoseconds: u64) {
    let until = now() + nanoseconds;
    while now() < until {
        core::hint::spin_loop();
    }
}
