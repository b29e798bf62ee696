//! A test kernel for x86-64 that takes the qspinlock family for its locks, as any kernel would.
//!
//! QEMU loads it by itself (PVH): no boot loader, no image. It looks at the machine, chooses how locks wait, rewrites
//! the call sites, starts the other CPUs and tests what it has. What it finds goes to the serial port; its exit code
//! says whether all was well.
//!
//! Read [`boot`] first, then [`machine`], [`locks`] and [`irq`]: that is what another kernel needs as well.

#![no_std]
#![no_main]

mod apic;
mod boot;
mod clock;
mod console;
mod cpu;
mod interrupts;
mod irq;
mod locks;
mod machine;
// `x86_64-unknown-none` brings its own.
#[cfg_attr(target_os = "none", allow(dead_code))]
mod mem;
mod paging;
mod percpu;
mod smp;
mod start_info;
mod stop;
mod tables;
mod tests;

core::arch::global_asm!(
    concat!(".set TRAMPOLINE, 0x8000\n.set AP_STACK, 0x8000\n", include_str!("entry.s")),
    options(att_syntax)
);
const _: () = assert!(paging::TRAMPOLINE == 0x8000 && smp::STACK == 0x8000, "as the assembly has it");
