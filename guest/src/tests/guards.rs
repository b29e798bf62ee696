//! Guards of locks that interrupt handlers take: interrupts are off as long as there is one, in whichever order they
//! end.

use super::Settings;
use crate::console::println;
use crate::cpu;
use crate::locks::{IrqMutex, Mutex};

static ONE: IrqMutex<u32> = IrqMutex::new(0);
static OTHER: IrqMutex<u32> = IrqMutex::new(0);
static PLAIN: Mutex<u32> = Mutex::new(0);

pub(crate) fn run(_: &Settings) -> bool {
    let mut passed = true;
    let mut expect = |what: &str, on: bool| {
        if cpu::interrupts_are_on() != on {
            println!("guest: interrupts are {} {what}", if on { "off" } else { "on" });
            passed = false;
        }
    };
    expect("at the start", true);
    {
        let _plain = PLAIN.lock();
        expect("with a plain lock", true);
    }
    let one = ONE.lock();
    expect("with one guard", false);
    let other = OTHER.lock();
    drop(one);
    expect("with the second guard, the first one dropped", false);
    let refused = OTHER.try_lock().is_none();
    expect("after a try that failed", false);
    drop(other);
    expect("without a guard", true);
    let other = OTHER.try_lock();
    expect("after a try that went well", false);
    let one = ONE.lock();
    drop(one);
    expect("with the first guard, the second one dropped", false);
    drop(other);
    expect("without a guard", true);

    // Off before, off after.
    cpu::interrupts_off();
    drop(ONE.lock());
    expect("where they were off", false);
    // SAFETY: as they were at the start.
    unsafe { cpu::interrupts_on() };
    if !refused {
        println!("guest: a lock was taken twice");
    }
    passed && refused
}
