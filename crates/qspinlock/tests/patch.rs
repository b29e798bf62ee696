//! Call sites follow the choice: what stands there, that locks work whatever does, and what happens where code cannot
//! be rewritten. Each case is a process of its own, since each process has one choice.

#[path = "support/patching.rs"]
mod patching;

use std::time::Duration;

use patching::{in_child, in_child_of};
use qspinlock::patch::{self, Edit, Edits, SiteKind, TextWriter};
use qspinlock::select::SlowPathKind;
use qspinlock::slowpath::{ByLoad, Chosen, Sleeping};
use qspinlock::start::{AdoptError, adopt, decided};
use qspinlock::threads::Threads;
use qspinlock::{RawSpinLock, lock_api};

type Mutex<S> = lock_api::Mutex<RawSpinLock<Threads, S>, u64>;

/// Threads that exclude each other, by every way to lock and unlock.
fn hammer<S: Sleeping<Threads> + qspinlock::slowpath::HandsOver<Threads>>() {
    const THREADS: u64 = 2;
    // Few: with other load, a fair lock is handed to threads that do not run.
    const ROUNDS: u64 = 300;
    let lock = Mutex::<S>::new(0);
    std::thread::scope(|s| {
        for _ in 0..THREADS {
            s.spawn(|| {
                for round in 0..ROUNDS {
                    let mut guard = match round % 4 {
                        0 => lock.try_lock().unwrap_or_else(|| lock.lock()),
                        1 => lock.try_lock_for(Duration::from_millis(1)).unwrap_or_else(|| lock.lock()),
                        _ => lock.lock(),
                    };
                    let seen = *guard;
                    if round % 64 == 0 {
                        std::thread::yield_now();
                    }
                    *guard = seen + 1;
                    if round % 5 == 0 {
                        lock_api::MutexGuard::unlock_fair(guard);
                    }
                }
            });
        }
    });
    assert_eq!(*lock.lock(), THREADS * ROUNDS);
}

fn hammer_both() {
    hammer::<Chosen>();
    hammer::<ByLoad>();
}

/// Every site of this program follows what is chosen.
fn assert_following() {
    let status = patch::status();
    assert_eq!(status.slow_path, decided());
    assert_eq!(
        (status.following, status.looking_up, status.unknown, status.refused),
        (status.sites, 0, 0, None),
        "{status}"
    );
    assert_eq!(status.sites > 0, status.available, "{status}");
}

#[test]
fn locks_exclude_whatever_is_chosen() {
    for &kind in SlowPathKind::ALL {
        in_child_of("locks_exclude_whatever_is_chosen", kind.name(), || {
            adopt(kind).expect("nobody has waited");
            assert_following();
            hammer_both();
            assert_eq!(adopt(SlowPathKind::Native), Err(AdoptError::Twice));
            assert_following();
        });
    }
}

#[test]
fn the_choice_is_closed_by_a_waiter_and_sites_stay() {
    in_child("the_choice_is_closed_by_a_waiter_and_sites_stay", || {
        assert_following();
        let lock = Mutex::<Chosen>::new(0);
        let guard = lock.lock();
        std::thread::scope(|s| {
            s.spawn(|| *lock.lock() += 1);
            // SAFETY: it is only looked at.
            while !unsafe { lock.raw() }.is_contended() {
                std::thread::yield_now();
            }
            drop(guard);
        });
        assert_eq!(adopt(SlowPathKind::Native), Err(AdoptError::Late));
        assert_eq!(decided(), Some(SlowPathKind::Parking));
        assert_following();
    });
}

#[cfg(target_os = "linux")]
#[test]
fn code_is_not_rewritten_beneath_another_thread() {
    use std::sync::Barrier;
    in_child("code_is_not_rewritten_beneath_another_thread", || {
        let (before, barrier) = (patch::status(), Barrier::new(2));
        std::thread::scope(|s| {
            // Uses no lock, so that this fails where it should, and not by what the thread runs into.
            s.spawn(|| [barrier.wait(), barrier.wait()]);
            barrier.wait();
            let adopted = adopt(SlowPathKind::Native);
            barrier.wait();
            if before.available {
                assert_eq!(adopted, Err(AdoptError::OtherThreads));
                assert_eq!(patch::status(), before);
                assert_eq!(adopt(SlowPathKind::Parking), Ok(()), "it is what they follow");
                assert_following();
            } else {
                assert_eq!(adopted, Ok(()), "the caller has to see to it");
            }
        });
    });
}

/// Writes code through a door that no protection closes.
struct Mem {
    file: std::fs::File,
    /// So many edits, and then an error.
    room: usize,
}

impl Mem {
    fn new(room: usize) -> Self {
        let file = std::fs::OpenOptions::new().write(true).open("/proc/self/mem").expect("our own memory");
        Self { file, room }
    }

    fn poke(&self, address: usize, code: &[u8]) {
        std::os::unix::fs::FileExt::write_all_at(&self.file, code, address as u64).expect("written");
    }
}

// SAFETY: one thread runs this code in these tests, and not while it is written.
unsafe impl TextWriter for Mem {
    type Error = &'static str;

    fn write(&mut self, edits: &Edits) -> Result<(), Self::Error> {
        let list: Vec<Edit> = edits.iter().collect();
        for (n, edit) in list.iter().enumerate() {
            if n == self.room {
                return Err("full");
            }
            self.poke(edit.address, &edit.code);
        }
        Ok(())
    }
}

#[test]
fn half_of_the_sites_follow_and_half_look_up() {
    if !patch::status().available {
        return;
    }
    for &kind in SlowPathKind::ALL {
        in_child_of("half_of_the_sites_follow_and_half_look_up", kind.name(), || {
            let sites = patch::status().sites;
            assert!(sites >= 2);
            patch::loosen_with(&mut Mem::new(usize::MAX)).expect("room for all");
            assert_eq!(patch::status().looking_up, sites);
            assert_eq!(patch::follow_with(&mut Mem::new(sites / 2)), Err("full"));
            let status = patch::status();
            assert_eq!((status.following, status.looking_up), (sites / 2, sites - sites / 2), "{status}");
            assert_eq!(patch::loosen_with(&mut Mem::new(0)), Err("full"));
            adopt(kind).expect("a process loosens by its own means");
            assert_following();
            // Half of the other way, under contention.
            patch::loosen_with(&mut Mem::new(sites / 2)).expect_err("full");
            hammer_both();
            patch::follow().expect("allowed");
            assert_following();
        });
    }
}

#[test]
fn unknown_code_is_left_alone_and_counted() {
    if !patch::status().available {
        return;
    }
    in_child("unknown_code_is_left_alone_and_counted", || {
        let mem = Mem::new(0);
        let first = |kind| patch::sites().find(|site| site.kind() == kind).expect("a site");
        let (broken, loose) = (first(SiteKind::Release), first(SiteKind::Acquire));
        let mut breakpoint = broken.present().to_vec();
        breakpoint[0] = 0xcc;
        mem.poke(broken.address(), &breakpoint);
        mem.poke(loose.address(), &loose.code(None).expect("its own"));
        assert_eq!((patch::status().unknown, patch::status().looking_up), (1, 1));
        patch::follow().expect("allowed");
        let status = patch::status();
        assert_eq!((status.unknown, status.following), (1, status.sites - 1), "{status}");
        assert_eq!(*broken.present(), *breakpoint);
        assert!(status.to_string().contains("unknown code at 1, left alone"), "{status}");
        // There may be an old form beneath it.
        assert_eq!(adopt(SlowPathKind::Native), Err(AdoptError::Followed));
        assert_eq!(*broken.present(), *breakpoint);
        assert_eq!(patch::status(), status);
    });
}

#[cfg(target_os = "linux")]
#[test]
fn refused_sites_look_up_the_choice() {
    for call in [libc::SYS_mprotect, libc::SYS_mremap] {
        for &kind in SlowPathKind::ALL {
            let test = "refused_sites_look_up_the_choice";
            patching::in_child_with(
                test,
                &format!("{call} {}", kind.name()),
                |command| patching::refuse(command, call),
                || {
                    let status = patch::status();
                    if status.available {
                        assert!(status.sites > 0);
                        assert_eq!((status.looking_up, status.refused), (status.sites, Some(libc::EPERM)), "{status}");
                        assert!(status.to_string().ends_with("the system refused (error 1)"), "{status}");
                        patch::follow().expect_err("still refused");
                    }
                    adopt(kind).expect("no site follows another choice");
                    assert_eq!(patch::status().looking_up, status.sites);
                    hammer_both();
                },
            );
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn no_page_is_writable_and_executable() {
    in_child("no_page_is_writable_and_executable", || {
        patching::assert_maps();
        adopt(SlowPathKind::Native).expect("nobody has waited");
        assert_following();
        patching::assert_maps();
    });
}

#[cfg(target_os = "linux")]
#[test]
fn sites_are_the_same_after_fork() {
    for &kind in SlowPathKind::ALL {
        in_child_of("sites_are_the_same_after_fork", kind.name(), || {
            adopt(kind).expect("nobody has waited");
            // SAFETY: the other threads of this process hold no lock and wait for none that is used below.
            let child = unsafe { libc::fork() };
            assert!(child >= 0);
            assert_following();
            hammer::<Chosen>();
            if child == 0 {
                std::process::exit(0);
            }
            let mut status = -1;
            // SAFETY: waits for our own child, into a live integer.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0);
        });
    }
}
