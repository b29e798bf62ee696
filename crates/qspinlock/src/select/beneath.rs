//! Who runs beneath, from the CPUID leaves that are set aside for hypervisors.
//!
//! Each hypervisor documents its own; no two share more than where they begin.

use super::{Facts, Features, Hypervisor};

/// EAX, EBX, ECX, EDX.
type Registers = [u32; 4];

/// Asks the CPU that one runs on: a leaf, and its subleaf.
#[cfg(target_arch = "x86_64")]
#[must_use]
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let r = core::arch::x86_64::__cpuid_count(leaf, subleaf);
    [r.eax, r.ebx, r.ecx, r.edx]
}

/// Leaf 1, EDX: there is a local APIC.
const LOCAL_APIC: u32 = 1 << 9;
/// Leaf 1, ECX: there is a hypervisor. Without it the leaves below are undefined.
const IS_GUEST: u32 = 1 << 31;

/// The first leaf for hypervisors. Each has 256 of them; one that speaks for another as well puts that one's first.
const FIRST: u32 = 0x4000_0000;
const PAST: u32 = 0x4001_0000;
const STEP: usize = 0x100;

const KVM: &[u8; 12] = b"KVMKVMKVM\0\0\0";
const XEN: &[u8; 12] = b"XenVMMXenVMM";

/// KVM, first leaf + 1, EAX: a kick wakes a halted virtual CPU, or one that is about to halt.
const KVM_PV_UNHALT: u32 = 1 << 7;
/// KVM, first leaf + 1, EDX: virtual CPUs are never preempted for long.
const KVM_REALTIME: u32 = 1 << 0;

/// Hyper-V, leaf + 1, EAX: the leaves that follow are as its specification says.
const HYPER_V_INTERFACE: u32 = u32::from_le_bytes(*b"Hv#1");
/// Hyper-V, leaf + 3, EAX: the register for idle guests may be read.
const HYPER_V_GUEST_IDLE: u32 = 1 << 10;
/// Hyper-V, leaf + 4, EAX: the call for interrupts to several CPUs is recommended.
const HYPER_V_CLUSTER_IPI: u32 = 1 << 10;

/// What is beneath.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Beneath {
    /// Who.
    pub hypervisor: Hypervisor,
    /// What it offers.
    pub features: Features,
    /// The signature in the first leaf for hypervisors: of who is beneath, or of whom it speaks for.
    pub signature: Option<[u8; 12]>,
    /// KVM's own bits.
    pub kvm: Option<KvmBits>,
}

/// What KVM says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvmBits {
    /// Features.
    pub features: u32,
    /// Hints.
    pub hints: u32,
}

impl Beneath {
    /// The machine could not be asked.
    pub const UNKNOWN: Self =
        Self { hypervisor: Hypervisor::Unknown, features: Features::NONE, signature: None, kvm: None };
    /// Bare metal.
    pub const NOBODY: Self = Self { hypervisor: Hypervisor::None, ..Self::UNKNOWN };

    /// Asks the CPU that one runs on. Elsewhere than on x86-64 there is nothing to ask.
    #[must_use]
    pub fn this_machine() -> Self {
        #[cfg(target_arch = "x86_64")]
        return Self::ask(cpuid);
        #[cfg(not(target_arch = "x86_64"))]
        Self::UNKNOWN
    }

    /// Whether there is anybody, and not who: one question. [`Hypervisor::Other`] if there is.
    #[must_use]
    pub fn glance() -> Hypervisor {
        #[cfg(target_arch = "x86_64")]
        return Self::is_guest(&|leaf| cpuid(leaf, 0))
            .map_or(Hypervisor::Unknown, |(is_guest, _)| if is_guest { Hypervisor::Other } else { Hypervisor::None });
        #[cfg(not(target_arch = "x86_64"))]
        Hypervisor::Unknown
    }

    /// And the flags that come with it.
    fn is_guest(ask: &impl Fn(u32) -> Registers) -> Option<(bool, u32)> {
        if ask(0)[0] < 1 {
            return None;
        }
        let [.., flags, more_flags] = ask(1);
        Some((flags & IS_GUEST != 0, more_flags))
    }

    /// Asks a CPU: `cpuid` gives EAX, EBX, ECX, EDX for a leaf and subleaf.
    ///
    /// In a guest each question may be a trip to the hypervisor. There are a handful, and 250 more under one that hides
    /// nobody behind its signature and is not known: a fraction of a millisecond, once.
    #[must_use]
    pub fn ask(cpuid: impl Fn(u32, u32) -> [u32; 4]) -> Self {
        let ask = |leaf| cpuid(leaf, 0);
        let flags = match Self::is_guest(&ask) {
            None => return Self::UNKNOWN,
            Some((false, _)) => return Self::NOBODY,
            Some((true, flags)) => flags,
        };
        let first = ask(FIRST);
        let shown = signature(first);
        let (hypervisor, base, [last, ..]) = match &shown {
            b"VMwareVMware" => (Hypervisor::VMware, FIRST, first),
            b"TCGTCGTCGTCG" => (Hypervisor::Tcg, FIRST, first),
            _ => match find(&ask) {
                Some(found) => found,
                None if &shown == b"Microsoft Hv" => (Hypervisor::HyperV, FIRST, first),
                None => (Hypervisor::Other, FIRST, first),
            },
        };
        // A leaf past the last has anything in it.
        let leaf = |n| if base + n <= last { ask(base + n) } else { [0; 4] };
        let mut features = Features { local_apic: flags & LOCAL_APIC != 0, ..Features::NONE };
        let mut kvm = None;
        match hypervisor {
            Hypervisor::Kvm => {
                // The oldest say that their last leaf is 0, and have one all the same.
                let [bits, .., hints] = if last == 0 { ask(base + 1) } else { leaf(1) };
                features.wait_kick = bits & KVM_PV_UNHALT != 0;
                features.dedicated_hint = hints & KVM_REALTIME != 0;
                kvm = Some(KvmBits { features: bits, hints });
            }
            Hypervisor::HyperV if leaf(1)[0] == HYPER_V_INTERFACE => {
                features.guest_idle = leaf(3)[0] & HYPER_V_GUEST_IDLE != 0;
                features.cluster_ipi = leaf(4)[0] & HYPER_V_CLUSTER_IPI != 0;
            }
            _ => {}
        }
        Self { hypervisor, features, signature: Some(shown), kvm }
    }

    /// Writes it to the facts about a machine.
    pub const fn note(&self, facts: &mut Facts) {
        facts.hypervisor = self.hypervisor;
        facts.features = self.features;
    }
}

/// Those that may stand behind another's signature: which, where, and what the first of its leaves says.
fn find(ask: &impl Fn(u32) -> Registers) -> Option<(Hypervisor, u32, Registers)> {
    (FIRST..PAST).step_by(STEP).find_map(|base| {
        let registers = ask(base);
        match &signature(registers) {
            KVM => Some((Hypervisor::Kvm, base, registers)),
            XEN => Some((Hypervisor::Xen, base, registers)),
            _ => None,
        }
    })
}

fn signature([_, b, c, d]: Registers) -> [u8; 12] {
    let mut bytes = [0; 12];
    for (chunk, register) in bytes.chunks_exact_mut(4).zip([b, c, d]) {
        chunk.copy_from_slice(&register.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    extern crate alloc;

    use alloc::vec::Vec;

    use super::*;

    fn first(last: u32, signature: &[u8; 12]) -> Registers {
        let word = |i: usize| u32::from_le_bytes(signature[4 * i..][..4].try_into().expect("four bytes"));
        [last, word(0), word(1), word(2)]
    }

    /// A guest of whom these leaves are known; with an APIC.
    fn ask(leaves: &[(u32, Registers)]) -> Beneath {
        Beneath::ask(|leaf, subleaf| match (leaf, subleaf) {
            (0, 0) => [0x16, 0, 0, 0],
            (1, 0) => [0, 0, 1 << 31, 1 << 9],
            (_, 0) => leaves.iter().find(|l| l.0 == leaf).map_or([0; 4], |l| l.1),
            _ => panic!("no leaf of these has subleaves"),
        })
    }

    fn kvm(features: u32, hints: u32) -> Beneath {
        ask(&[(FIRST, first(FIRST + 1, KVM)), (FIRST + 1, [features, 0, 0, hints])])
    }

    #[test]
    fn kvm_with_and_without_its_bits() {
        let has = |beneath: Beneath| (beneath.hypervisor, beneath.features.wait_kick, beneath.features.dedicated_hint);
        // As its documentation writes them: features bit 7, hints bit 0.
        assert_eq!(has(kvm(!(1 << 7), !1)), (Hypervisor::Kvm, false, false));
        assert_eq!(has(kvm(1 << 7, 0)), (Hypervisor::Kvm, true, false));
        assert_eq!(has(kvm(0, 1)), (Hypervisor::Kvm, false, true));
        assert_eq!(kvm(0x80, 3).kvm, Some(KvmBits { features: 0x80, hints: 3 }));
        assert_eq!(kvm(0, 0).signature.as_ref(), Some(KVM));
    }

    #[test]
    fn leaves_past_the_last_say_nothing() {
        let short = ask(&[(FIRST, first(FIRST, KVM)), (FIRST + 1, [!0; 4])]);
        assert_eq!((short.hypervisor, short.features.wait_kick), (Hypervisor::Kvm, false));
        let oldest = ask(&[(FIRST, first(0, KVM)), (FIRST + 1, [KVM_PV_UNHALT, 0, 0, 0])]);
        assert!(oldest.features.wait_kick);
        let leaves = [
            (FIRST, first(FIRST + 3, b"Microsoft Hv")),
            (FIRST + 1, [HYPER_V_INTERFACE, 0, 0, 0]),
            (FIRST + 3, [!0; 4]),
        ];
        let hyper_v = ask(&[&leaves[..], &[(FIRST + 4, [!0; 4])]].concat());
        assert_eq!((hyper_v.features.guest_idle, hyper_v.features.cluster_ipi), (true, false));
    }

    #[test]
    fn kvm_and_xen_behind_another_signature() {
        for (hidden, hypervisor) in [(KVM, Hypervisor::Kvm), (XEN, Hypervisor::Xen)] {
            for place in [1, 2, 255] {
                let base = FIRST + place * 0x100;
                let both = ask(&[
                    (FIRST, first(FIRST + 5, b"Microsoft Hv")),
                    (FIRST + 1, [!0; 4]),
                    (base, first(base + 1, hidden)),
                    (base + 1, [KVM_PV_UNHALT, 0, 0, KVM_REALTIME]),
                ]);
                assert_eq!(both.hypervisor, hypervisor);
                let is_kvm = hypervisor == Hypervisor::Kvm;
                assert_eq!((both.features.wait_kick, both.features.dedicated_hint), (is_kvm, is_kvm));
                assert_eq!(both.signature.as_ref(), Some(b"Microsoft Hv"));
            }
        }
    }

    #[test]
    fn hyper_v_and_each_of_its_bits() {
        let ask = |interface, idle, ipi| {
            let beneath = ask(&[
                (FIRST, first(FIRST + 5, b"Microsoft Hv")),
                (FIRST + 1, [interface, 0, 0, 0]),
                (FIRST + 3, [idle, 0, 0, 0]),
                (FIRST + 4, [ipi, 0, 0, 0]),
            ]);
            assert_eq!((beneath.hypervisor, beneath.kvm), (Hypervisor::HyperV, None));
            (beneath.features.guest_idle, beneath.features.cluster_ipi)
        };
        // As its specification writes them: AccessGuestIdleReg, and "recommend using cluster IPI hypercalls".
        assert_eq!(ask(0x3123_7648, 1 << 10, 1 << 10), (true, true));
        assert_eq!(ask(HYPER_V_INTERFACE, !(1 << 10), !0), (false, true));
        assert_eq!(ask(HYPER_V_INTERFACE, !0, !(1 << 10)), (true, false));
        assert_eq!(ask(0, !0, !0), (false, false), "another interface has other leaves");
    }

    #[test]
    fn the_local_apic_is_the_cpus() {
        for (flags, has) in [(LOCAL_APIC, true), (!LOCAL_APIC, false)] {
            let beneath = Beneath::ask(|leaf, _| match leaf {
                0 => [1, 0, 0, 0],
                1 => [0, 0, IS_GUEST, flags],
                _ => [0; 4],
            });
            assert_eq!(beneath.features.local_apic, has);
        }
    }

    #[test]
    fn others_have_no_bits() {
        for (shown, hypervisor) in [
            (XEN, Hypervisor::Xen),
            (b"VMwareVMware", Hypervisor::VMware),
            (b"TCGTCGTCGTCG", Hypervisor::Tcg),
            (b"bhyve bhyve ", Hypervisor::Other),
            (&[0; 12], Hypervisor::Other),
        ] {
            let leaves = (1..6).map(|n| (FIRST + n, [!0; 4]));
            let leaves: Vec<_> = leaves.chain([(FIRST, first(FIRST + 5, shown))]).collect();
            let seen = ask(&leaves);
            assert_eq!(seen.hypervisor, hypervisor);
            assert_eq!(seen.features, Features { local_apic: true, ..Features::NONE }, "another's bits");
        }
    }

    #[test]
    fn none_and_not_known_are_not_the_same() {
        let only = |last, flags| {
            Beneath::ask(move |leaf, _| match leaf {
                0 => [last, 0, 0, 0],
                1 if last > 0 => [0, 0, flags, 0],
                _ => panic!("leaf {leaf:#x} is undefined here"),
            })
        };
        assert_eq!(only(1, !IS_GUEST), Beneath::NOBODY);
        assert_eq!(only(0, 0), Beneath::UNKNOWN);
    }

    #[test]
    fn the_facts_are_told_all() {
        let mut facts = Facts::new(super::super::Setting::Kernel, 2);
        kvm(KVM_PV_UNHALT, 0).note(&mut facts);
        assert_eq!((facts.hypervisor, facts.features.wait_kick), (Hypervisor::Kvm, true));
    }
}
