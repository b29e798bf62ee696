//! Locks in a function that the linker keeps, and in one that it may drop: fails if the sites of the one that is
//! kept are not recorded.

#![allow(unsafe_code, reason = "a function with a name that lasts until the program is linked")]

use qspinlock::{Mutex, patch};

mod users {
    use qspinlock::Mutex;

    #[inline(never)]
    pub(crate) fn used(count: &Mutex<u64>) {
        *count.lock() += 1;
    }

    /// Nobody calls it. Having a name it is compiled all the same, and left to the linker.
    #[unsafe(no_mangle)]
    pub(crate) extern "C" fn patched_dropped_unused(count: &Mutex<u64>) {
        *count.lock() += 2;
    }
}

fn main() {
    static COUNT: Mutex<u64> = Mutex::new(0);
    users::used(&COUNT);
    let used = users::used as fn(&Mutex<u64>) as usize;
    let recorded = patch::sites().filter(|site| site.address().wrapping_sub(used) < 0x60).count();
    println!("{}: {recorded} of them are ours", patch::status());
    std::process::exit(i32::from(patch::status().available && recorded < 2));
}
