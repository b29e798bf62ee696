//! Locks of a program whose call sites follow the choice: says how they stand, and uses them. Fails if a site does not
//! follow although it could, or if the lock does not exclude.

use qspinlock::{Mutex, patch};

fn main() {
    static COUNT: Mutex<u64> = Mutex::new(0);
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| (0..1000).for_each(|_| *COUNT.lock() += 1));
        }
    });
    let status = patch::status();
    println!("{status}");
    let all = status.following == status.sites && (status.sites > 0) == status.available;
    std::process::exit(i32::from(!all || *COUNT.lock() != 4000));
}
