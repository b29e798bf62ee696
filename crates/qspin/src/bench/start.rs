//! What it costs a program that its lock is chosen when it starts: the time that its constructors take, all of them.
//! The library's is one, and no other has much to do.
//!
//! The watch is a constructor itself, that comes before most. In a process that was started to be timed it calls those
//! that are to come, once each, as the loader would have done, says how long they took, and ends the process. Nothing
//! has run yet then, so their code and data have to be fetched, as at every start.

use std::process::{Command, Stdio};

use super::verdict::quantile;

/// In microseconds, of some starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Start {
    pub(super) median: f64,
    /// A tenth took longer.
    pub(super) p90: f64,
    pub(super) starts: usize,
}

const STARTS: usize = 31;

/// In the environment of a process that is to be timed.
const TIMED: &std::ffi::CStr = c"QSPIN_TIME_THE_START";

/// Starts this program a few times. `None` where there is no watch.
pub(super) fn measure() -> Option<Start> {
    if cfg!(not(target_os = "linux")) {
        return None;
    }
    let own = std::env::current_exe().ok()?;
    let one = |_| {
        let start = Command::new(&own).env(TIMED.to_str().ok()?, "1").stdin(Stdio::null()).output().ok()?;
        Some(nanos(&start.stdout)? / 1000.0)
    };
    let found: Vec<f64> = (0..STARTS).map_while(one).collect();
    Some(Start { median: quantile(found.clone(), 0.5)?, p90: quantile(found.clone(), 0.9)?, starts: found.len() })
}

fn nanos(said: &[u8]) -> Option<f64> {
    std::str::from_utf8(said).ok()?.trim().parse().ok()
}

#[cfg(target_os = "linux")]
mod watch {
    use std::io::Write;

    use rustix::time::{ClockId, clock_gettime};

    type Constructor = extern "C" fn();

    // Those with a number come before those without, as the library's is.
    #[used]
    // SAFETY: the section holds pointers to functions that the loader calls, with arguments that this one ignores.
    #[unsafe(link_section = ".init_array.00101")]
    static AT_START: Constructor = at_start;

    unsafe extern "C" {
        // Where the list of constructors begins and ends: the linker's.
        static __init_array_start: [Constructor; 0];
        static __init_array_end: [Constructor; 0];
    }

    extern "C" fn at_start() {
        // SAFETY: a string with an end; there is one thread.
        if unsafe { libc::getenv(super::TIMED.as_ptr()) }.is_null() {
            return;
        }
        let (start, end) = (&raw const __init_array_start, &raw const __init_array_end);
        let count = (end.addr() - start.addr()) / size_of::<Constructor>();
        // SAFETY: the list is an array of pointers to functions.
        let all = unsafe { std::slice::from_raw_parts(start.cast::<Constructor>(), count) };
        let to_come = all.iter().skip_while(|&&one| one as usize != at_start as Constructor as usize).skip(1);
        let before = now();
        for constructor in to_come {
            constructor();
        }
        let took = now() - before;
        let mut said = [0; 24];
        let mut rest = &mut said[..];
        let _ = writeln!(rest, "{took}");
        let left = rest.len();
        // SAFETY: a live buffer. The process ends before anybody could call the constructors again.
        unsafe {
            libc::write(1, said.as_ptr().cast(), said.len() - left);
            libc::_exit(0);
        }
    }

    fn now() -> u64 {
        let time = clock_gettime(ClockId::Monotonic);
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }
}

#[cfg(test)]
mod tests {
    use super::nanos;

    #[test]
    fn only_a_number_is_one() {
        assert_eq!(nanos(b"1500\n"), Some(1500.0));
        assert_eq!(nanos(b""), None);
        assert_eq!(nanos(b"usage: \xff"), None);
    }
}
