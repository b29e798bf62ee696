//! The serial port, and how the kernel ends.

use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::cpu;

const PORT: u16 = 0x3f8;
/// QEMU's `isa-debug-exit`: writing v ends it with exit code 2v + 1.
const EXIT_PORT: u16 = 0xf4;

/// What the kernel has to say when it ends. QEMU's exit code is twice this and 1.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Exit {
    /// 33.
    Passed = 16,
    /// 35.
    Failed = 17,
    /// 37: a panic, or an exception that nobody expected.
    Broken = 18,
}

struct Port;

impl Write for Port {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                send(b'\r');
            }
            send(byte);
        }
        Ok(())
    }
}

fn send(byte: u8) {
    // SAFETY: the serial port's registers. A port that is never ready, or not there, must not hang the kernel.
    unsafe {
        let _ = (0..100_000).find(|_| cpu::in8(PORT + 5) & 0x20 != 0);
        cpu::out8(PORT, byte);
    }
}

/// Sets the port up: 115,200 bits a second, no interrupts.
pub(crate) fn start() {
    // SAFETY: the registers of a 16550.
    unsafe {
        for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, 7), (4, 3)] {
            cpu::out8(PORT + register, value);
        }
    }
}

/// Who prints. Not one of the library's locks: the console is to work when they do not.
static BUSY: AtomicBool = AtomicBool::new(false);

/// Prints a line as a whole. Who cannot have the port for long takes it all the same: its owner may be what this CPU
/// has interrupted, or gone.
pub(crate) fn print(line: fmt::Arguments<'_>) {
    let mine = (0..10_000_000).any(|_| {
        let mine = !BUSY.swap(true, Ordering::Acquire);
        core::hint::spin_loop();
        mine
    });
    let _ = Port.write_fmt(format_args!("{line}\n"));
    if mine {
        BUSY.store(false, Ordering::Release);
    }
}

/// Prints a line.
macro_rules! println {
    ($($text:tt)*) => { $crate::console::print(format_args!($($text)*)) };
}
pub(crate) use println;

/// Ends the machine.
pub(crate) fn exit(how: Exit) -> ! {
    // SAFETY: if the device is not there, nothing happens.
    unsafe { cpu::out32(EXIT_PORT, how as u32) };
    cpu::stop()
}

static PANICKED: AtomicBool = AtomicBool::new(false);

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    cpu::interrupts_off();
    // One report is enough; and a panic while panicking ends as well.
    if PANICKED.swap(true, Ordering::Relaxed) {
        exit(Exit::Broken);
    }
    println!("guest: {info}");
    exit(Exit::Broken)
}
