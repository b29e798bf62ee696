//! The locks that can be measured and tortured, by name.

use std::cell::UnsafeCell;
use std::convert::Infallible;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use qspinlock::RawSpinLock;
use qspinlock::resilient;
use qspinlock::slowpath::{
    ByLoad, Chosen, Fallible, Native, Numa, Paravirt, Parking, ParkingExact, Sleeping, SlowPath, TestAndSet,
};
use qspinlock::threads::Threads;

/// A lock without data. Closures, so that locks which need a node or a guard fit as well.
pub(crate) trait Contender: Send + Sync + 'static {
    fn new() -> Self;
    fn with<R>(&self, section: impl FnOnce() -> R) -> R;
    /// `None` if the lock was not to be had at once.
    fn try_with<R>(&self, section: impl FnOnce() -> R) -> Option<R>;
    /// `None` if the lock was not to be had in time. Only where [`TIMED`](Self::TIMED): others merely try.
    fn with_for<R>(&self, _most: Duration, section: impl FnOnce() -> R) -> Option<R> {
        self.try_with(section)
    }
    /// Whether a wait for it can have a time limit.
    const TIMED: bool = false;
    /// The lock without closures and guards, if one thread may lock it and another one unlock it.
    fn by_hand(&self) -> Option<&dyn ByHand> {
        None
    }
    /// Bytes of the lock itself, without data.
    fn size() -> usize
    where
        Self: Sized,
    {
        size_of::<Self>()
    }
}

/// A lock that a thread may take and another one release.
pub(crate) trait ByHand {
    fn lock(&self);

    /// # Safety
    /// The lock was taken by [`lock`](Self::lock), by any thread, and not released since.
    unsafe fn unlock(&self);
}

macro_rules! contenders {
    ($($(#[doc = $about:literal])* $variant:ident = $name:literal, $ty:ty, fair: $fair:literal, sleeps: $sleeps:literal;)*) => {
        /// A lock, by name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(crate) enum LockName {
            $($(#[doc = $about])* $variant,)*
        }

        impl LockName {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)*];

            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Serves its waiters in the order of arrival.
            pub(crate) const fn is_fair(self) -> bool {
                match self { $(Self::$variant => $fair,)* }
            }

            /// Its waiters give their CPU up, sooner or later.
            pub(crate) const fn sleeps(self) -> bool {
                match self { $(Self::$variant => $sleeps,)* }
            }

            /// Runs `job` with the type of this lock.
            pub(crate) fn with_type<J: LockJob>(self, job: J) -> J::Output {
                match self { $(Self::$variant => job.run::<$ty>(),)* }
            }
        }
    };
}

/// Something to do with a lock of any type.
pub(crate) trait LockJob {
    type Output;
    fn run<L: Contender>(self) -> Self::Output;
}

contenders! {
    /// This library's queued spinlock.
    Native = "native", Untimed<Native>, fair: true, sleeps: false;
    /// The same, which stays in one domain for a while.
    Numa = "numa", Untimed<Numa>, fair: false, sleeps: false;
    /// This library's lock for virtual CPUs, whose waiters spin for a while and then sleep.
    Paravirt = "paravirt", Untimed<Paravirt>, fair: false, sleeps: true;
    /// This library's lock whose waiters sleep.
    Parking = "parking", Timed<Parking>, fair: false, sleeps: true;
    /// The same, whose unlock is one atomic step and whose sleeps have no end of their own.
    ParkingExact = "parking-exact", Timed<ParkingExact>, fair: false, sleeps: true;
    /// What this library chose for this process.
    Chosen = "chosen", Timed<Chosen>, fair: false, sleeps: true;
    /// The same, looked up each time, also where call sites can be rewritten.
    ChosenByLoad = "chosen-by-load", Timed<ByLoad>, fair: false, sleeps: true;
    /// This library's lock that fails instead of waiting for ever, with the slow path that was chosen.
    Resilient = "resilient", Resilient<Chosen>, fair: false, sleeps: true;
    /// The same, whose waiters spin in a queue.
    ResilientNative = "resilient-native", Resilient<Native>, fair: true, sleeps: false;
    /// The same, which hand the lock to near ones first, for a while.
    ResilientNuma = "resilient-numa", Resilient<Numa>, fair: false, sleeps: false;
    /// The same, for virtual CPUs.
    ResilientParavirt = "resilient-paravirt", Resilient<Paravirt>, fair: false, sleeps: true;
    /// The same, without a queue.
    ResilientTestAndSet = "resilient-test-and-set", Resilient<TestAndSet>, fair: false, sleeps: false;
    /// This library's test-and-set slow path.
    TestAndSetOurs = "test-and-set", Untimed<TestAndSet>, fair: false, sleeps: false;
    Std = "std", std::sync::Mutex<()>, fair: false, sleeps: true;
    ParkingLot = "parking_lot", parking_lot::Mutex<()>, fair: false, sleeps: true;
    Spin = "spin", spin::mutex::SpinMutex<()>, fair: false, sleeps: false;
    SpinTicket = "spin-ticket", spin::mutex::TicketMutex<()>, fair: true, sleeps: false;
    Mcs = "mcs", mcslock::raw::spins::Mutex<()>, fair: true, sleeps: false;
    PthreadMutex = "pthread-mutex", PthreadMutex, fair: false, sleeps: true;
    PthreadSpin = "pthread-spin", PthreadSpin, fair: false, sleeps: false;
    /// Broken on purpose, to see that a test can fail.
    Broken = "broken", Broken, fair: false, sleeps: false;
}

impl LockName {
    /// Locks that keep their promise.
    pub(crate) fn working() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|&l| l != Self::Broken)
    }

    /// What `bench` measures if it is not told. The exact form of a lock is there to test the lock, not to be used; and of
    /// resilient locks one is enough to see what that costs.
    pub(crate) fn usual() -> impl Iterator<Item = Self> {
        const UNUSUAL: [LockName; 5] = [
            LockName::ParkingExact,
            LockName::ResilientNative,
            LockName::ResilientNuma,
            LockName::ResilientParavirt,
            LockName::ResilientTestAndSet,
        ];
        Self::working().filter(|lock| !UNUSUAL.contains(lock))
    }

    /// It waits as the process is configured to.
    pub(crate) const fn is_patient(self) -> bool {
        matches!(
            self,
            Self::Paravirt
                | Self::Parking
                | Self::ParkingExact
                | Self::Chosen
                | Self::ChosenByLoad
                | Self::Resilient
                | Self::ResilientParavirt
        )
    }

    /// A form of another lock, to see what it costs that the slow path was chosen when the program started, or that it
    /// can fail.
    pub(crate) const fn is_form_of_another(self) -> bool {
        matches!(self, Self::Chosen | Self::ChosenByLoad) || self.is_resilient()
    }

    /// It returns an error instead of waiting for ever.
    pub(crate) const fn is_resilient(self) -> bool {
        matches!(
            self,
            Self::Resilient
                | Self::ResilientNative
                | Self::ResilientNuma
                | Self::ResilientParavirt
                | Self::ResilientTestAndSet
        )
    }
}

/// Bytes of a lock of this name.
pub(crate) fn size_of_lock(lock: LockName) -> usize {
    struct Size;
    impl LockJob for Size {
        type Output = usize;
        fn run<L: Contender>(self) -> usize {
            L::size()
        }
    }
    lock.with_type(Size)
}

impl std::str::FromStr for LockName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|l| l.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|l| l.name()).collect();
            format!("unknown lock '{name}'; known are {}", names.join(", "))
        })
    }
}

impl std::fmt::Display for LockName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for LockName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for LockName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

macro_rules! guarded {
    ($ty:ty $(, $also:ident)* $(; $($of:tt)*)?) => {
        impl $($($of)*)? Contender for $ty {
            fn new() -> Self {
                <$ty>::new(())
            }

            #[inline]
            fn with<R>(&self, section: impl FnOnce() -> R) -> R {
                let _guard = self.lock();
                section()
            }

            #[inline]
            fn try_with<R>(&self, section: impl FnOnce() -> R) -> Option<R> {
                let _guard = self.try_lock()?;
                Some(section())
            }

            $(guarded!(@ $also);)*
        }
    };
    (@ timed) => {
        const TIMED: bool = true;

        #[inline]
        fn with_for<R>(&self, most: Duration, section: impl FnOnce() -> R) -> Option<R> {
            let _guard = self.try_lock_for(most)?;
            Some(section())
        }
    };
    (@ by_hand) => {
        fn by_hand(&self) -> Option<&dyn ByHand> {
            Some(&**self)
        }
    };
}

// `timed` belongs to each lock whose raw mutex is a `lock_api::RawMutexTimed`.
guarded!(parking_lot::Mutex<()>, timed);
guarded!(spin::mutex::SpinMutex<()>);
guarded!(spin::mutex::TicketMutex<()>);

type Ours<S> = lock_api::Mutex<RawSpinLock<Threads, S>, ()>;

// Two types, for all slow paths each: what a lock can do does not depend on whether its slow path is a type of its own.
macro_rules! ours {
    ($($(#[doc = $about:literal])* $name:ident: $bound:path $(, $timed:ident)?;)*) => {$(
        $(#[doc = $about])*
        pub(crate) struct $name<S: $bound>(Ours<S>);

        impl<S: $bound> $name<S> {
            const fn new((): ()) -> Self {
                Self(Ours::new(()))
            }
        }

        impl<S: $bound> Deref for $name<S> {
            type Target = Ours<S>;

            #[inline]
            fn deref(&self) -> &Ours<S> {
                &self.0
            }
        }

        guarded!($name<S>, by_hand $(, $timed)?; <S: $bound + 'static>);
    )*};
}

ours! {
    /// A lock of this library.
    Untimed: Waits;
    /// One that can be waited for with a time limit.
    Timed: Sleeping<Threads>, timed;
}

impl<S: Waits> ByHand for Ours<S> {
    fn lock(&self) {
        // SAFETY: it is unlocked once for each time it is locked.
        let Ok(()) = unsafe { self.raw() }.acquire_on(&Threads);
    }

    unsafe fn unlock(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.raw().release_on(&Threads) };
    }
}

/// A slow path that always gets the lock.
pub(crate) trait Waits: SlowPath<Threads, Error = Infallible> {}

impl<S: SlowPath<Threads, Error = Infallible>> Waits for S {}

impl Contender for std::sync::Mutex<()> {
    fn new() -> Self {
        Self::new(())
    }

    #[inline]
    fn with<R>(&self, section: impl FnOnce() -> R) -> R {
        let _guard = self.lock().expect("no section panics");
        section()
    }

    #[inline]
    fn try_with<R>(&self, section: impl FnOnce() -> R) -> Option<R> {
        let _guard = self.try_lock().ok()?;
        Some(section())
    }
}

/// A lock that can fail. Where it is compared with others it waits for as long as they do.
pub(crate) struct Resilient<S: Fallible<Threads>>(resilient::Mutex<Threads, S, ()>);

impl<S: Fallible<Threads> + 'static> Contender for Resilient<S> {
    fn new() -> Self {
        Self(resilient::Mutex::new(()))
    }

    #[inline]
    fn with<R>(&self, section: impl FnOnce() -> R) -> R {
        let _guard = self.0.lock_within(Duration::MAX).expect("nobody locks it twice, and nobody locks two");
        section()
    }

    #[inline]
    fn try_with<R>(&self, section: impl FnOnce() -> R) -> Option<R> {
        let _guard = self.0.try_lock()?;
        Some(section())
    }

    #[inline]
    fn with_for<R>(&self, most: Duration, section: impl FnOnce() -> R) -> Option<R> {
        let _guard = self.0.lock_within(most).ok()?;
        Some(section())
    }

    const TIMED: bool = true;
}

impl Contender for mcslock::raw::spins::Mutex<()> {
    fn new() -> Self {
        Self::new(())
    }

    #[inline]
    fn with<R>(&self, section: impl FnOnce() -> R) -> R {
        self.lock_then(|_guard| section())
    }

    #[inline]
    fn try_with<R>(&self, section: impl FnOnce() -> R) -> Option<R> {
        self.try_lock_then(|guard| guard.map(|_guard| section()))
    }
}

#[repr(align(128))]
struct Aligned<T>(T);

macro_rules! pthread {
    ($ty:ident, $raw:ty, $init:expr, $lock:ident, $trylock:ident, $unlock:ident, $destroy:ident) => {
        // In a box, since an initialised pthread object must not move; on a line of its own, as every lock that is
        // measured.
        pub(crate) struct $ty(Box<Aligned<UnsafeCell<$raw>>>);

        // SAFETY: the pthread object is made for use by several threads; the box keeps it in place.
        unsafe impl Send for $ty {}
        // SAFETY: as above.
        unsafe impl Sync for $ty {}

        impl Contender for $ty {
            fn new() -> Self {
                Self(Box::new(Aligned(UnsafeCell::new($init))))
            }

            #[inline]
            fn with<R>(&self, section: impl FnOnce() -> R) -> R {
                // SAFETY: the object is initialised and not moved.
                unsafe { libc::$lock(self.0.0.get()) };
                let result = section();
                // SAFETY: locked above, by this thread.
                unsafe { libc::$unlock(self.0.0.get()) };
                result
            }

            #[inline]
            fn try_with<R>(&self, section: impl FnOnce() -> R) -> Option<R> {
                // SAFETY: the object is initialised and not moved.
                if unsafe { libc::$trylock(self.0.0.get()) } != 0 {
                    return None;
                }
                let result = section();
                // SAFETY: locked above, by this thread.
                unsafe { libc::$unlock(self.0.0.get()) };
                Some(result)
            }

            fn size() -> usize {
                size_of::<$raw>()
            }
        }

        impl Drop for $ty {
            fn drop(&mut self) {
                // SAFETY: nobody uses it any more.
                unsafe { libc::$destroy(self.0.0.get()) };
            }
        }
    };
}

pthread!(
    PthreadMutex,
    libc::pthread_mutex_t,
    libc::PTHREAD_MUTEX_INITIALIZER,
    pthread_mutex_lock,
    pthread_mutex_trylock,
    pthread_mutex_unlock,
    pthread_mutex_destroy
);

pthread!(
    PthreadSpin,
    libc::pthread_spinlock_t,
    {
        let mut raw = 0;
        // SAFETY: initialises the integer that the object is.
        unsafe { libc::pthread_spin_init(&raw mut raw, libc::PTHREAD_PROCESS_PRIVATE) };
        raw
    },
    pthread_spin_lock,
    pthread_spin_trylock,
    pthread_spin_unlock,
    pthread_spin_destroy
);

/// A lock that looks and then sets: now and then two threads are in.
pub(crate) struct Broken(AtomicBool);

impl Contender for Broken {
    fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    fn with<R>(&self, section: impl FnOnce() -> R) -> R {
        while self.0.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        self.0.store(true, Ordering::Relaxed);
        let result = section();
        self.0.store(false, Ordering::Release);
        result
    }

    fn try_with<R>(&self, section: impl FnOnce() -> R) -> Option<R> {
        if self.0.load(Ordering::Acquire) {
            return None;
        }
        Some(self.with(section))
    }
}
