//! Which slow path fits a machine: facts in, a choice and its reason out. A pure function, so that every row is tested.
//!
//! The first row that applies decides. What somebody has said comes before what a hypervisor offers, and what its host
//! says about the CPUs as well: a system that said something and got what the detection preferred has no way left to say
//! it. "–" is no, "·" is whatever; "bare" is no hypervisor, or nothing that says that there is one.
//!
//! | #  | setting | wish           | CPUs | beneath          | offers                       | domains | choice |
//! |----|---------|----------------|------|------------------|------------------------------|---------|--------|
//! | 1  | ·       | a slow path    | ·    | ·                | ·                            | ·     | the wish |
//! | 2  | ·       | `numa=on`      | ·    | ·                | ·                            | ·     | `numa` |
//! | 3  | threads | not dedicated  | ·    | ·                | ·                            | ·     | `parking` |
//! | 4  | threads | dedicated      | 1    | ·                | ·                            | ·     | `parking` |
//! | 5  | threads | dedicated      | 2+, ? | bare            | ·                            | 2+    | `numa` |
//! | 6  | threads | dedicated      | 2+, ? | ·               | ·                            | ·     | `native` |
//! | 7  | kernel  | ·              | 1    | ·                | ·                            | ·     | `native` |
//! | 8  | kernel  | ·              | 2+, ? | bare            | ·                            | 2+    | `numa` |
//! | 9  | kernel  | ·              | 2+, ? | none            | ·                            | 0, 1  | `native` |
//! | 10 | kernel  | ·              | 2+, ? | not known       | ·                            | 0, 1  | `native` |
//! | 11 | kernel  | `nopvspin`     | 2+, ? | any             | ·                            | ·     | `native` |
//! | 12 | kernel  | dedicated      | 2+, ? | any             | ·                            | ·     | `native` |
//! | 13 | kernel  | –              | 2+, ? | KVM             | a promise not to preempt     | ·     | `native` |
//! | 14 | kernel  | –              | 2+, ? | KVM             | wait and kick                | ·     | `paravirt` |
//! | 15 | kernel  | –              | 2+, ? | Xen             | ·                            | ·     | `paravirt` |
//! | 16 | kernel  | –              | 2+, ? | Hyper-V         | local APIC, cluster IPI, guest idle: all | · | `paravirt` |
//! | 17 | kernel  | –              | 2+, ? | KVM, Hyper-V    | not that                     | ·     | `test-and-set` |
//! | 18 | kernel  | –              | 2+, ? | VMware, TCG, others | ·                        | ·     | `test-and-set` |
//!
//! * *Nothing known* is `native` (row 10). A machine that cannot be asked is bare metal far more often than not, and an
//!   unfair lock there is a loss that only a benchmark notices. For the same reason a test-and-set lock is chosen only
//!   where a hypervisor was seen.
//! * *One CPU* (row 7): nobody else can hold the lock, so nobody waits. A thread on one CPU does wait (row 4): for an
//!   owner that cannot run while it spins.
//! * *Domains* are memory nodes, or last-level caches where those are what counts. With `numa=off` they are not counted: there
//!   is one.
//! * *`numa=on`* is unconditional (row 2), as a slow path by name is: also in a guest, with one domain, and for threads that do
//!   not own their CPUs, whose waiters spin then.
//! * *`nopvspin`* means the plain queue under every hypervisor, also one that offers nothing.
//! * *`numa` and `paravirt` are never combined.* A guest's memory nodes are not trusted: the host may have made them up,
//!   and may move virtual CPUs between real ones (so rows 11 to 18 do not ask for them). And the two contradict each other:
//!   the one reorders the queue behind its head, the other promotes whoever is next, who may be asleep; what a waiter that
//!   was set aside for its node means, if it is halted, nobody has worked out. Who knows better says `numa=on`.

mod beneath;
#[cfg(test)]
mod tests;
mod wishes;

#[cfg(target_arch = "x86_64")]
pub use beneath::cpuid;
pub use beneath::{Beneath, KvmBits};
pub use wishes::{NumaWish, WishError, Wishes};

use core::fmt;

/// A slow path, as a value. Only those that can be named; more will.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SlowPathKind {
    /// [`Native`](crate::slowpath::Native).
    Native,
    /// [`Numa`](crate::slowpath::Numa).
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
    /// KVM, perhaps behind another's signature.
    Kvm,
    /// Xen.
    Xen,
    /// Hyper-V.
    HyperV,
    /// VMware.
    VMware,
    /// QEMU without a hypervisor: it translates.
    Tcg,
    /// There is one, and it is none of the above.
    Other,
    /// The machine could not be asked.
    Unknown,
}

impl Hypervisor {
    /// All there are.
    pub const ALL: &'static [Self] =
        &[Self::None, Self::Kvm, Self::Xen, Self::HyperV, Self::VMware, Self::Tcg, Self::Other, Self::Unknown];

    /// The name, as a user writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Kvm => "kvm",
            Self::Xen => "xen",
            Self::HyperV => "hyper-v",
            Self::VMware => "vmware",
            Self::Tcg => "tcg",
            Self::Other => "other",
            Self::Unknown => "unknown",
        }
    }

    /// Whether one was seen.
    #[must_use]
    pub const fn is_there(self) -> bool {
        !matches!(self, Self::None | Self::Unknown)
    }
}

/// What a hypervisor offers to its guests' locks. What is not known is not offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Features {
    /// KVM: a halted virtual CPU stays woken if it is kicked before it halts.
    #[doc(alias = "KVM_FEATURE_PV_UNHALT")]
    pub wait_kick: bool,
    /// KVM: the host promises that it does not take the virtual CPUs away.
    #[doc(alias = "KVM_HINTS_REALTIME")]
    pub dedicated_hint: bool,
    /// Hyper-V: there is a local APIC, to kick with.
    pub local_apic: bool,
    /// Hyper-V: it recommends its call for interrupts to several CPUs, and so has what a kick needs.
    pub cluster_ipi: bool,
    /// Hyper-V: a register whose reading waits for an interrupt.
    #[doc(alias = "HV_X64_MSR_GUEST_IDLE")]
    pub guest_idle: bool,
}

impl Features {
    /// Nothing is offered.
    pub const NONE: Self =
        Self { wait_kick: false, dedicated_hint: false, local_apic: false, cluster_ipi: false, guest_idle: false };
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
    /// Who waits.
    pub setting: Setting,
    /// CPUs that can wait for a lock. A kernel counts all that may ever be there. 0: not known.
    pub cpus: u32,
    /// Domains that have any of these CPUs: memory nodes, or last-level caches where these are what counts. 0: not known.
    pub domains: u32,
    /// Who runs beneath.
    pub hypervisor: Hypervisor,
    /// What it offers.
    pub features: Features,
    /// What the user asked for.
    pub wishes: Wishes,
}

impl Facts {
    /// So many CPUs, and nothing else known.
    #[must_use]
    pub const fn new(setting: Setting, cpus: u32) -> Self {
        Self {
            setting,
            cpus,
            domains: 0,
            hypervisor: Hypervisor::Unknown,
            features: Features::NONE,
            wishes: Wishes::NONE,
        }
    }

    /// Whether there is more than one domain to choose by.
    const fn has_domains(&self) -> bool {
        self.domains > 1 && !matches!(self.wishes.numa, NumaWish::Off)
    }
}

/// What was chosen, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Choice {
    /// The slow path.
    pub slow_path: SlowPathKind,
    /// Why.
    pub reason: Reason,
}

/// Somebody asked for it by name.
impl From<SlowPathKind> for Choice {
    fn from(slow_path: SlowPathKind) -> Self {
        Self { slow_path, reason: Reason::AskedFor }
    }
}

/// As a line for a log: a system should say what it runs.
impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.slow_path.name(), self.reason)
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:expr,)*) => {
        /// Why a slow path was chosen: the row of the [table](self).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// All there are.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// In a sentence for the user.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

reasons! {
    /// Row 1.
    AskedFor = "asked for",
    /// Row 2.
    NumaOn = "numa=on: a fair queue that keeps the lock in a domain for a while, whatever is beneath",
    /// Row 3.
    Preemptible = "threads: the scheduler may take any of them away, so waiters sleep and running threads pass",
    /// Row 4.
    OneCpuForThreads = "threads on one CPU: who spins keeps the owner from running, also on a CPU of one's own",
    /// Row 5.
    OwnCpusManyNodes = "CPUs of one's own, in several domains: a fair queue that keeps the lock in one of them for a \
                        while",
    /// Row 6.
    OwnCpus = "CPUs of one's own: a waiter is never taken off its CPU, so a fair queue costs nothing extra",
    /// Row 7.
    OneCpu = "one CPU: nobody else can hold the lock, so nobody waits",
    /// Row 8.
    BareMetalManyNodes = "bare metal with several domains: a fair queue that keeps the lock in one of them for a while",
    /// Row 9.
    BareMetal = "bare metal: a waiter is never taken off its CPU, so a fair queue costs nothing extra",
    /// Row 10.
    NothingKnown = "nothing says that there is a hypervisor, so the CPUs are taken for real ones",
    /// Row 11.
    NoParavirt = "nopvspin: no halting in the lock, so the plain queue, as on bare metal",
    /// Row 12.
    OwnVirtualCpus = "dedicated: virtual CPUs that are said not to be taken away are as good as real ones",
    /// Row 13.
    HostPromise = "the host says that virtual CPUs are not taken away: as good as bare metal",
    /// Rows 14 to 16.
    WaitKick = "virtual CPUs may be preempted, and a queue would wait for one that is; the hypervisor offers wait and \
                kick, so waiters halt",
    /// Row 17.
    NoWaitKick = "virtual CPUs may be preempted, and a queue would wait for one that is; the hypervisor could offer \
                  wait and kick, but does not, so waiters take turns as they run",
    /// Row 18.
    NeverWaitKick = "virtual CPUs may be preempted, and a queue would wait for one that is; this hypervisor has no wait \
                     and kick, so waiters take turns as they run",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// Chooses. Total: every combination of facts has an answer.
///
/// Wishes that contradict each other are an error where they are said ([`Wishes::validate`]); here a slow path that is
/// named wins.
#[must_use]
pub const fn choose(facts: &Facts) -> Choice {
    let (slow_path, reason) = match (facts.wishes.slow_path, facts.setting) {
        (Some(wish), _) => (wish, Reason::AskedFor),
        _ if matches!(facts.wishes.numa, NumaWish::On) => (SlowPathKind::Numa, Reason::NumaOn),
        (None, Setting::UserSpace) => for_threads(facts),
        (None, Setting::Kernel) if facts.cpus == 1 => (SlowPathKind::Native, Reason::OneCpu),
        (None, Setting::Kernel) if facts.hypervisor.is_there() => in_guest(facts),
        (None, Setting::Kernel) => on_metal(facts),
    };
    Choice { slow_path, reason }
}

const fn for_threads(facts: &Facts) -> (SlowPathKind, Reason) {
    if !facts.wishes.dedicated {
        (SlowPathKind::Parking, Reason::Preemptible)
    } else if facts.cpus == 1 {
        (SlowPathKind::Parking, Reason::OneCpuForThreads)
    } else if facts.has_domains() && !facts.hypervisor.is_there() {
        (SlowPathKind::Numa, Reason::OwnCpusManyNodes)
    } else {
        (SlowPathKind::Native, Reason::OwnCpus)
    }
}

const fn on_metal(facts: &Facts) -> (SlowPathKind, Reason) {
    match facts.hypervisor {
        _ if facts.has_domains() => (SlowPathKind::Numa, Reason::BareMetalManyNodes),
        Hypervisor::None => (SlowPathKind::Native, Reason::BareMetal),
        _ => (SlowPathKind::Native, Reason::NothingKnown),
    }
}

const fn in_guest(facts: &Facts) -> (SlowPathKind, Reason) {
    let has = facts.features;
    // Wishes and promises first: "no wait and kick" would otherwise hide them.
    if facts.wishes.no_paravirt {
        return (SlowPathKind::Native, Reason::NoParavirt);
    }
    if facts.wishes.dedicated {
        return (SlowPathKind::Native, Reason::OwnVirtualCpus);
    }
    match facts.hypervisor {
        Hypervisor::Kvm if has.dedicated_hint => (SlowPathKind::Native, Reason::HostPromise),
        Hypervisor::Kvm if has.wait_kick => (SlowPathKind::Paravirt, Reason::WaitKick),
        Hypervisor::Xen => (SlowPathKind::Paravirt, Reason::WaitKick),
        Hypervisor::HyperV if has.local_apic && has.cluster_ipi && has.guest_idle => {
            (SlowPathKind::Paravirt, Reason::WaitKick)
        }
        Hypervisor::Kvm | Hypervisor::HyperV => (SlowPathKind::TestAndSet, Reason::NoWaitKick),
        _ => (SlowPathKind::TestAndSet, Reason::NeverWaitKick),
    }
}
