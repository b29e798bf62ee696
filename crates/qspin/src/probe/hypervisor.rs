//! Who runs beneath, from the CPUID leaves that are set aside for hypervisors.

use qspinlock::select::Hypervisor;
use serde::Serialize;

use super::tree::Tree;

/// The first such leaf. Each hypervisor has 256 of them; one that speaks for another puts its own first.
const FIRST: u32 = 0x4000_0000;
const PAST: u32 = 0x4001_0000;
const STEP: u32 = 0x100;
const KVM: &[u8; 12] = b"KVMKVMKVM\0\0\0";
/// KVM, features (EAX): a halted virtual CPU can be kicked.
const KVM_PV_UNHALT: u32 = 1 << 7;
/// KVM, hints (EDX): virtual CPUs are never preempted for long.
const KVM_REALTIME: u32 = 1 << 0;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Beneath {
    /// `None`: cannot be told. `false`: bare metal.
    pub(super) present: Option<bool>,
    /// The vendor's signature as the first leaf has it.
    pub(super) signature: Option<String>,
    /// KVM's feature and hint bits, if KVM is beneath, perhaps behind another signature.
    pub(super) kvm_features: Option<u32>,
    pub(super) kvm_hints: Option<u32>,
    /// What these say. `None`: they are not known, or not KVM's.
    pub(super) wait_kick: Option<bool>,
    pub(super) dedicated_hint: Option<bool>,
    #[serde(skip)]
    pub(super) kind: Hypervisor,
}

impl Beneath {
    const UNKNOWN: Self = Self {
        present: None,
        signature: None,
        kvm_features: None,
        kvm_hints: None,
        wait_kick: None,
        dedicated_hint: None,
        kind: Hypervisor::Unknown,
    };
    const NOBODY: Self = Self { present: Some(false), kind: Hypervisor::None, ..Self::UNKNOWN };

    /// Asks the CPU.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn ask_cpu() -> Self {
        let present = raw_cpuid::CpuId::new().get_feature_info().map(|info| info.has_hypervisor());
        Self::decode(present, |leaf| {
            let r = raw_cpuid::native_cpuid::cpuid_count(leaf, 0);
            [r.eax, r.ebx, r.ecx, r.edx]
        })
    }

    /// Other instruction sets have no such thing to ask.
    #[cfg(not(target_arch = "x86_64"))]
    pub(super) fn ask_cpu() -> Self {
        Self::UNKNOWN
    }

    /// What files say, when the CPU that they are about cannot be asked.
    pub(super) fn from_files(tree: &Tree) -> Self {
        let xen = tree.text("/sys/hypervisor/type").as_deref() == Some("xen");
        if xen {
            return Self { present: Some(true), kind: Hypervisor::Xen, ..Self::UNKNOWN };
        }
        match tree.field("/proc/cpuinfo", "flags").map(|flags| flags.split(' ').any(|flag| flag == "hypervisor")) {
            Some(true) => Self { present: Some(true), kind: Hypervisor::Other, ..Self::UNKNOWN },
            Some(false) => Self::NOBODY,
            None => Self::UNKNOWN,
        }
    }

    /// `cpuid` gives EAX, EBX, ECX, EDX of a leaf.
    fn decode(present: Option<bool>, cpuid: impl Fn(u32) -> [u32; 4]) -> Self {
        match present {
            None => return Self::UNKNOWN,
            Some(false) => return Self::NOBODY,
            Some(true) => {}
        }
        let signature = |base| {
            let [_, b, c, d] = cpuid(base);
            let mut bytes = [0; 12];
            for (chunk, register) in bytes.chunks_exact_mut(4).zip([b, c, d]) {
                chunk.copy_from_slice(&register.to_le_bytes());
            }
            bytes
        };
        let first = signature(FIRST);
        let kvm =
            (FIRST..PAST).step_by(STEP as usize).find(|&base| signature(base) == *KVM).map(|base| cpuid(base + 1));
        let kind = match &first {
            _ if kvm.is_some() => Hypervisor::Kvm,
            b"XenVMMXenVMM" => Hypervisor::Xen,
            b"Microsoft Hv" => Hypervisor::HyperV,
            b"VMwareVMware" => Hypervisor::VMware,
            _ => Hypervisor::Other,
        };
        let text: String =
            first.iter().take_while(|b| b.is_ascii_graphic() || **b == b' ').map(|&b| b as char).collect();
        Self {
            present: Some(true),
            signature: (!text.is_empty()).then_some(text),
            kvm_features: kvm.map(|[features, ..]| features),
            kvm_hints: kvm.map(|[.., hints]| hints),
            wait_kick: kvm.map(|[features, ..]| features & KVM_PV_UNHALT != 0),
            dedicated_hint: kvm.map(|[.., hints]| hints & KVM_REALTIME != 0),
            kind,
        }
    }

    pub(super) fn describe(&self) -> String {
        let name = match (self.present, &self.signature) {
            (None, _) => return "unknown".into(),
            (Some(false), _) => return "none: bare metal".into(),
            (Some(true), Some(signature)) => signature.clone(),
            (Some(true), None) if self.kind == Hypervisor::Xen => "Xen".into(),
            (Some(true), None) => "there is one; its name is unknown".into(),
        };
        let (Some(features), Some(hints)) = (self.kvm_features, self.kvm_hints) else { return name };
        let yes = |bit| if bit == Some(true) { "yes" } else { "no" };
        format!(
            "{name} (KVM features {features:#x}, hints {hints:#x}; wait and kick: {}; dedicated CPUs: {})",
            yes(self.wait_kick),
            yes(self.dedicated_hint)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registers(signature: &[u8; 12]) -> [u32; 4] {
        let word = |i: usize| u32::from_le_bytes(signature[4 * i..][..4].try_into().expect("four bytes"));
        [0x4000_0001, word(0), word(1), word(2)]
    }

    fn decode(leaves: &[(u32, [u32; 4])]) -> Beneath {
        Beneath::decode(Some(true), |leaf| leaves.iter().find(|l| l.0 == leaf).map_or([0; 4], |l| l.1))
    }

    #[test]
    fn kvm_with_and_without_its_bits() {
        let plain = decode(&[(FIRST, registers(KVM)), (FIRST + 1, [0x0100_007b, 0, 0, 0])]);
        assert_eq!((plain.kind, plain.wait_kick, plain.dedicated_hint), (Hypervisor::Kvm, Some(false), Some(false)));
        assert_eq!(plain.signature.as_deref(), Some("KVMKVMKVM"));
        let all = decode(&[(FIRST, registers(KVM)), (FIRST + 1, [0x80, 0, 0, 1])]);
        assert_eq!((all.wait_kick, all.dedicated_hint), (Some(true), Some(true)));
    }

    #[test]
    fn kvm_that_speaks_hyper_v() {
        let both = decode(&[
            (FIRST, registers(b"Microsoft Hv")),
            (FIRST + 1, [0xffff_ffff; 4]),
            (FIRST + STEP, registers(KVM)),
            (FIRST + STEP + 1, [0x80, 0, 0, 0]),
        ]);
        assert_eq!((both.kind, both.wait_kick, both.dedicated_hint), (Hypervisor::Kvm, Some(true), Some(false)));
        assert_eq!(both.signature.as_deref(), Some("Microsoft Hv"));
    }

    #[test]
    fn others() {
        for (signature, kind) in [
            (b"XenVMMXenVMM", Hypervisor::Xen),
            (b"Microsoft Hv", Hypervisor::HyperV),
            (b"VMwareVMware", Hypervisor::VMware),
            (b"bhyve bhyve ", Hypervisor::Other),
            (&[0; 12], Hypervisor::Other),
        ] {
            let seen = decode(&[(FIRST, registers(signature)), (FIRST + 1, [!0; 4])]);
            // Another's bits are not KVM's.
            assert_eq!((seen.kind, seen.wait_kick, seen.dedicated_hint), (kind, None, None));
        }
    }

    #[test]
    fn none_and_not_known_are_not_the_same() {
        let nothing = |_| -> [u32; 4] { panic!("leaves of a hypervisor that is not there are undefined") };
        assert_eq!(Beneath::decode(Some(false), nothing).kind, Hypervisor::None);
        assert_eq!(Beneath::decode(None, nothing).kind, Hypervisor::Unknown);
    }
}
