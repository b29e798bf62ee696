//! Which slow path fits a machine: facts in, a choice and its reason out. A pure function, so that every row is tested.
//!
//! The first row that applies decides. An explicit wish comes before everything else, also before what a hypervisor
//! offers: a system that asked for something and got what the detection preferred has no way left to ask.
//!
//! | # | wish | setting | CPUs | hypervisor | dedicated | wait/kick | nodes | choice |
//! |---|------|---------|------|------------|-----------|-----------|-------|--------|
//! | 1 | yes  | ·       | ·    | ·          | ·         | ·         | ·     | the wish |
//! | 2 | –    | user    | ·    | ·          | ·         | ·         | ·     | `parking` |
//! | 3 | –    | kernel  | 0, 1 | ·          | ·         | ·         | ·     | `native` |
//! | 4 | –    | kernel  | 2+   | none       | ·         | ·         | 0, 1  | `native` |
//! | 5 | –    | kernel  | 2+   | none       | ·         | ·         | 2+    | `native`, until there is a `numa` |
//! | 6 | –    | kernel  | 2+   | not known  | ·         | ·         | ·     | `native` |
//! | 7 | –    | kernel  | 2+   | any        | yes       | ·         | ·     | `native` |
//! | 8 | –    | kernel  | 2+   | any        | no        | yes       | ·     | `test-and-set`, until there is a `paravirt` |
//! | 9 | –    | kernel  | 2+   | any        | no        | no        | ·     | `test-and-set` |
//!
//! Row 6 errs towards bare metal: a machine that cannot be asked is one far more often, and an unfair lock there is a
//! loss that nobody would notice.

/// A slow path, as a value. Only those that exist can be named; more will.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SlowPathKind {
    /// [`Native`](crate::slowpath::Native).
    Native,
    /// Several memory nodes: the lock stays on one for a while. Runs [`Native`](crate::slowpath::Native) until it is there.
    Numa,
    /// [`Paravirt`](crate::slowpath::Paravirt).
    Paravirt,
    /// [`Parking`](crate::slowpath::Parking).
    Parking,
    /// [`TestAndSet`](crate::slowpath::TestAndSet).
    TestAndSet,
}

impl SlowPathKind {
    /// All there are.
    pub const ALL: &'static [Self] = &[Self::Native, Self::Numa, Self::Paravirt, Self::Parking, Self::TestAndSet];

    /// The name, as a user writes it; the same as [`SlowPath::NAME`](crate::slowpath::SlowPath::NAME).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Numa => "numa",
            Self::Paravirt => "paravirt",
            Self::Parking => "parking",
            Self::TestAndSet => "test-and-set",
        }
    }

    /// The slow path of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

/// Who runs beneath the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Hypervisor {
    /// Nobody: bare metal.
    None,
    /// KVM.
    Kvm,
    /// Xen.
    Xen,
    /// Hyper-V.
    HyperV,
    /// VMware.
    VMware,
    /// There is one, and it is none of the above.
    Other,
    /// The machine could not be asked.
    Unknown,
}

/// Who waits for the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Setting {
    /// CPUs, real or virtual, with preemption off.
    Kernel,
    /// Threads, which the scheduler may take away at any moment.
    UserSpace,
}

/// What is known of a machine. More will be asked in later versions, so start from [`Facts::new`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Facts {
    /// CPUs that can wait for a lock.
    pub cpus: u32,
    /// Memory nodes.
    pub domains: u32,
    /// Who runs beneath.
    pub hypervisor: Hypervisor,
    /// Whether a virtual CPU can halt until another one kicks it (KVM's `PV_UNHALT`, and its like).
    #[doc(alias = "KVM_FEATURE_PV_UNHALT")]
    pub wait_kick: bool,
    /// Whether the host says that it does not take the virtual CPUs away.
    #[doc(alias = "KVM_HINTS_REALTIME")]
    pub dedicated_hint: bool,
    /// Who waits.
    pub setting: Setting,
    /// What the user asked for.
    pub wish: Option<SlowPathKind>,
}

impl Facts {
    /// So many CPUs, and nothing else known.
    #[must_use]
    pub const fn new(setting: Setting, cpus: u32) -> Self {
        Self {
            cpus,
            domains: 1,
            hypervisor: Hypervisor::Unknown,
            wait_kick: false,
            dedicated_hint: false,
            setting,
            wish: None,
        }
    }
}

/// What was chosen, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The slow path.
    pub slow_path: SlowPathKind,
    /// Why, in a sentence for the user. Says so where a slow path that is not there yet would fit better.
    pub reason: &'static str,
}

const WISHED: &str = "asked for";
const USER_SPACE: &str = "threads: the scheduler may take any of them away, so waiters sleep and running threads pass";
const ONE_CPU: &str = "one CPU: nobody else can hold the lock, so nobody waits";
const BARE: &str = "bare metal: a waiter is never taken off its CPU, so a fair queue costs nothing extra";
const BARE_NODES: &str = "bare metal with several memory nodes: fair; a slow path that keeps the lock on a node for a \
                          while would be faster, and is not there yet";
const UNKNOWN: &str = "nothing says that there is a hypervisor, so the CPUs are taken for real ones";
const DEDICATED: &str = "the host says that virtual CPUs are not taken away: as good as bare metal";
const WAIT_KICK: &str = "virtual CPUs may be preempted, and a queue would wait for one that is; the hypervisor offers \
                         wait and kick, but the slow path that uses it is not there yet";
const VIRTUAL: &str = "virtual CPUs may be preempted, and a queue would wait for one that is; no wait and kick";

/// Chooses. Total: every combination of facts has an answer.
#[must_use]
pub const fn choose(facts: &Facts) -> Choice {
    use SlowPathKind::{Native, Parking, TestAndSet};

    let (slow_path, reason) = match (facts.wish, facts.setting, facts.hypervisor) {
        (Some(wish), _, _) => (wish, WISHED),
        (None, Setting::UserSpace, _) => (Parking, USER_SPACE),
        (None, Setting::Kernel, _) if facts.cpus <= 1 => (Native, ONE_CPU),
        (None, Setting::Kernel, Hypervisor::None) if facts.domains > 1 => (Native, BARE_NODES),
        (None, Setting::Kernel, Hypervisor::None) => (Native, BARE),
        (None, Setting::Kernel, Hypervisor::Unknown) => (Native, UNKNOWN),
        (None, Setting::Kernel, _) if facts.dedicated_hint => (Native, DEDICATED),
        (None, Setting::Kernel, _) if facts.wait_kick => (TestAndSet, WAIT_KICK),
        (None, Setting::Kernel, _) => (TestAndSet, VIRTUAL),
    };
    Choice { slow_path, reason }
}

#[cfg(test)]
mod tests {
    use super::SlowPathKind::{Native, Parking, TestAndSet};
    use super::*;

    const GUESTS: [Hypervisor; 5] =
        [Hypervisor::Kvm, Hypervisor::Xen, Hypervisor::HyperV, Hypervisor::VMware, Hypervisor::Other];

    fn kernel(cpus: u32, hypervisor: Hypervisor) -> Facts {
        Facts { hypervisor, ..Facts::new(Setting::Kernel, cpus) }
    }

    /// Every combination of facts.
    fn all() -> impl Iterator<Item = Facts> {
        let wishes = [None, Some(Native), Some(Parking), Some(TestAndSet)];
        let beneath = GUESTS.into_iter().chain([Hypervisor::None, Hypervisor::Unknown]);
        beneath.flat_map(move |hypervisor| {
            wishes.into_iter().flat_map(move |wish| {
                (0..2 * 2 * 2 * 3 * 3_u32).map(move |n| Facts {
                    cpus: n / 8 % 3,
                    domains: n / 24,
                    hypervisor,
                    wait_kick: n & 1 != 0,
                    dedicated_hint: n & 2 != 0,
                    setting: if n & 4 != 0 { Setting::Kernel } else { Setting::UserSpace },
                    wish,
                })
            })
        })
    }

    #[track_caller]
    fn row(facts: Facts, slow_path: SlowPathKind, reason: &'static str) {
        assert_eq!(choose(&facts), Choice { slow_path, reason }, "{facts:?}");
    }

    #[test]
    fn row_1_a_wish_wins_over_everything() {
        for facts in all() {
            if let Some(wish) = facts.wish {
                row(facts, wish, WISHED);
            }
        }
    }

    #[test]
    fn row_2_user_space() {
        for facts in all().filter(|f| f.wish.is_none() && f.setting == Setting::UserSpace) {
            row(facts, Parking, USER_SPACE);
        }
    }

    #[test]
    fn row_3_one_cpu() {
        for hypervisor in GUESTS.into_iter().chain([Hypervisor::None, Hypervisor::Unknown]) {
            row(kernel(1, hypervisor), Native, ONE_CPU);
            row(Facts { wait_kick: true, domains: 2, ..kernel(0, hypervisor) }, Native, ONE_CPU);
        }
    }

    #[test]
    fn rows_4_to_6_bare_metal_and_what_may_be() {
        row(kernel(2, Hypervisor::None), Native, BARE);
        row(Facts { domains: 0, ..kernel(2, Hypervisor::None) }, Native, BARE);
        row(Facts { domains: 2, ..kernel(2, Hypervisor::None) }, Native, BARE_NODES);
        row(kernel(2, Hypervisor::Unknown), Native, UNKNOWN);
        // Features without anybody who offers them change nothing.
        row(Facts { wait_kick: true, ..kernel(2, Hypervisor::Unknown) }, Native, UNKNOWN);
        row(Facts { wait_kick: true, ..kernel(2, Hypervisor::None) }, Native, BARE);
    }

    #[test]
    fn row_7_dedicated_cpus_do_not_need_wait_and_kick() {
        for hypervisor in GUESTS {
            for wait_kick in [false, true] {
                row(Facts { dedicated_hint: true, wait_kick, ..kernel(64, hypervisor) }, Native, DEDICATED);
            }
        }
    }

    #[test]
    fn rows_8_and_9_preemptible_cpus() {
        for hypervisor in GUESTS {
            row(Facts { wait_kick: true, ..kernel(2, hypervisor) }, TestAndSet, WAIT_KICK);
            row(Facts { domains: 4, ..kernel(64, hypervisor) }, TestAndSet, VIRTUAL);
        }
    }

    #[test]
    fn an_unfair_lock_is_never_the_choice_but_under_a_hypervisor() {
        for facts in all().filter(|f| f.wish.is_none() && choose(f).slow_path == TestAndSet) {
            assert!(GUESTS.contains(&facts.hypervisor) && facts.setting == Setting::Kernel, "{facts:?}");
        }
    }

    #[test]
    fn names_go_both_ways() {
        for &kind in SlowPathKind::ALL {
            assert_eq!(SlowPathKind::from_name(kind.name()), Some(kind));
        }
        assert_eq!(SlowPathKind::from_name("Native"), None);
        assert_eq!(SlowPathKind::from_name(""), None);
    }

    #[cfg(feature = "std")]
    #[test]
    fn names_are_those_of_the_slow_paths() {
        use crate::slowpath::{self, SlowPath};
        use crate::threads::Threads;
        assert_eq!(Native.name(), <slowpath::Native as SlowPath<Threads>>::NAME);
        assert_eq!(Parking.name(), <slowpath::Parking as SlowPath<Threads>>::NAME);
        assert_eq!(TestAndSet.name(), <slowpath::TestAndSet as SlowPath<Threads>>::NAME);
    }
}
