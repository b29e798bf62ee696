//! A test kernel for x86-64 that takes the qspinlock family for its locks, as any kernel would.
//!
//! QEMU loads it by itself (PVH): no boot loader, no image. It looks at the machine, chooses how locks wait, rewrites the call
//! sites, starts the other CPUs and tests what it has. What it finds goes to the serial port; its exit code says whether
//! all was well.

#![no_std]
#![no_main]

mod apic;
mod clock;
mod console;
mod cpu;
mod interrupts;
mod mem;
mod paging;
mod percpu;
mod smp;
mod start_info;
mod tables;

use console::{Exit, println};
use start_info::StartInfo;

core::arch::global_asm!(
    concat!(".set TRAMPOLINE, 0x8000\n.set AP_STACK, 0x8000\n", include_str!("entry.s")),
    options(att_syntax)
);

#[unsafe(no_mangle)]
extern "C" fn first_cpu(start_info: u64) -> ! {
    console::start();
    // SAFETY: this CPU alone runs, with interrupts off, and will be number 0.
    unsafe {
        tables::fill_gates();
        tables::load(0);
        percpu::enter(0, 0);
    }
    interrupts::mask_old_controllers();
    paging::protect();
    println!("guest: up");
    // SAFETY: what the entry was called with.
    let Some(info) = (unsafe { StartInfo::read(start_info) }) else {
        panic!("no start information at {start_info:#x}: was this kernel started by PVH?");
    };
    let hertz = clock::calibrate();
    apic::start();
    apic::calibrate();
    println!("guest: clock {} MHz", hertz.unwrap_or(0) / 1_000_000);
    smp::start((0..8).map(|n| (n, 0)));
    println!("guest: {} CPUs", smp::count());
    println!("guest: {} MiB of memory in {} ranges", info.usable() >> 20, info.ranges());
    console::exit(Exit::Passed)
}
