//! The kernel example, with threads in the place of CPUs.

#[path = "../examples/bare_machine.rs"]
#[allow(unused_attributes, unreachable_pub, reason = "they are for when it is a crate")]
mod bare_machine;
#[path = "support/watchdog.rs"]
mod watchdog;

use std::cell::Cell;
use std::time::{Duration, Instant};

use bare_machine::{BareMachine, CPUS, Mutex, MutexGuard, count_frame};
use qspinlock::Machine;
use watchdog::Watchdog;

std::thread_local!(static CPU: Cell<u32> = const { Cell::new(0) });

#[unsafe(no_mangle)]
fn kernel_cpu_number() -> u32 {
    CPU.get()
}

#[unsafe(no_mangle)]
fn kernel_nanoseconds() -> u64 {
    std::time::UNIX_EPOCH.elapsed().expect("it is later").as_nanos() as u64
}

#[test]
fn cpus_exclude_each_other() {
    let _watchdog = Watchdog::arm("cpus_exclude_each_other", Duration::from_secs(60));
    // Two halves that a section makes differ and equal again: two CPUs at once would see them differ.
    static PAIR: Mutex<(u64, u64)> = Mutex::new((0, 0));
    let end = Instant::now() + Duration::from_millis(300);
    let sections: u64 = std::thread::scope(|s| {
        let cpu = |number| {
            move || {
                CPU.set(number);
                let mut sections = 0;
                while Instant::now() < end {
                    let mut pair: MutexGuard<'_, _> = PAIR.lock();
                    assert_eq!(pair.0, pair.1);
                    pair.0 += 1;
                    std::hint::black_box(&mut *pair);
                    pair.1 += 1;
                    sections += 1;
                }
                sections
            }
        };
        // The last one has no slot.
        let cpus = [0, CPUS as u32 - 1, CPUS as u32].map(|number| s.spawn(cpu(number)));
        cpus.into_iter().map(|cpu| cpu.join().expect("sections do not panic")).sum()
    });
    assert_eq!(*PAIR.lock(), (sections, sections));
    assert_eq!(count_frame() + 1, count_frame());
    assert_eq!(size_of::<Mutex<()>>(), 4);
    assert!(BareMachine.now() > 0);
}
