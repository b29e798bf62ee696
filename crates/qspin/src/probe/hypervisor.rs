//! Who runs beneath, as far as it can be shown.

use qspinlock::select::{self, Hypervisor};
use serde::Serialize;

use super::tree::Tree;

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
    /// What Hyper-V says. `None`: not known, or not Hyper-V's.
    pub(super) local_apic: Option<bool>,
    pub(super) cluster_ipi: Option<bool>,
    pub(super) guest_idle: Option<bool>,
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
        local_apic: None,
        cluster_ipi: None,
        guest_idle: None,
        kind: Hypervisor::Unknown,
    };
    const NOBODY: Self = Self { present: Some(false), kind: Hypervisor::None, ..Self::UNKNOWN };

    /// Asks the CPU.
    pub(super) fn ask_cpu() -> Self {
        Self::of(&select::Beneath::this_machine())
    }

    fn of(beneath: &select::Beneath) -> Self {
        let text = |signature: [u8; 12]| {
            let shown = signature.into_iter().take_while(|b| b.is_ascii_graphic() || *b == b' ');
            Some(shown.map(char::from).collect::<String>()).filter(|text| !text.is_empty())
        };
        let features = &beneath.features;
        let of = |hypervisor, feature| (beneath.hypervisor == hypervisor).then_some(feature);
        Self {
            present: (beneath.hypervisor != Hypervisor::Unknown).then_some(beneath.hypervisor.is_there()),
            signature: beneath.signature.and_then(text),
            kvm_features: beneath.kvm.map(|kvm| kvm.features),
            kvm_hints: beneath.kvm.map(|kvm| kvm.hints),
            wait_kick: of(Hypervisor::Kvm, features.wait_kick),
            dedicated_hint: of(Hypervisor::Kvm, features.dedicated_hint),
            local_apic: of(Hypervisor::HyperV, features.local_apic),
            cluster_ipi: of(Hypervisor::HyperV, features.cluster_ipi),
            guest_idle: of(Hypervisor::HyperV, features.guest_idle),
            kind: beneath.hypervisor,
        }
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

    pub(super) fn describe(&self) -> String {
        let name = match (self.present, &self.signature) {
            (None, _) => return "unknown".into(),
            (Some(false), _) => return "none: bare metal".into(),
            (Some(true), Some(signature)) => signature.clone(),
            (Some(true), None) if self.kind == Hypervisor::Xen => "Xen".into(),
            (Some(true), None) => "there is one; its name is unknown".into(),
        };
        let yes = |bit| if bit == Some(true) { "yes" } else { "no" };
        if let (Some(apic), Some(ipi), Some(idle)) = (self.local_apic, self.cluster_ipi, self.guest_idle) {
            let [apic, ipi, idle] = [apic, ipi, idle].map(|bit| yes(Some(bit)));
            return format!("{name} (local APIC: {apic}; cluster IPI: {ipi}; guest idle: {idle})");
        }
        let (Some(features), Some(hints)) = (self.kvm_features, self.kvm_hints) else { return name };
        format!(
            "{name} (KVM features {features:#x}, hints {hints:#x}; wait and kick: {}; dedicated CPUs: {})",
            yes(self.wait_kick),
            yes(self.dedicated_hint)
        )
    }
}

#[cfg(test)]
mod tests {
    use qspinlock::select::{Features, KvmBits};

    use super::*;

    fn shown(change: impl FnOnce(&mut select::Beneath)) -> Beneath {
        let mut beneath = select::Beneath::UNKNOWN;
        change(&mut beneath);
        Beneath::of(&beneath)
    }

    #[test]
    fn each_hypervisor_shows_what_is_its_own() {
        let kvm = shown(|beneath| {
            beneath.hypervisor = Hypervisor::Kvm;
            beneath.features.wait_kick = true;
            beneath.signature = Some(*b"KVMKVMKVM\0\0\0");
            beneath.kvm = Some(KvmBits { features: 0x80, hints: 2 });
        });
        assert_eq!((kvm.wait_kick, kvm.dedicated_hint, kvm.guest_idle), (Some(true), Some(false), None));
        let words = "KVMKVMKVM (KVM features 0x80, hints 0x2; wait and kick: yes; dedicated CPUs: no)";
        assert_eq!(kvm.describe(), words);
        let hyper_v = shown(|beneath| {
            beneath.hypervisor = Hypervisor::HyperV;
            beneath.features.guest_idle = true;
            beneath.signature = Some(*b"Microsoft Hv");
        });
        assert_eq!((hyper_v.wait_kick, hyper_v.local_apic, hyper_v.guest_idle), (None, Some(false), Some(true)));
        assert_eq!(hyper_v.describe(), "Microsoft Hv (local APIC: no; cluster IPI: no; guest idle: yes)");
        let odd = shown(|beneath| {
            beneath.hypervisor = Hypervisor::Other;
            beneath.features = Features::NONE;
            beneath.signature = Some(*b"\x01odd\0\0\0\0\0\0\0\0");
        });
        assert_eq!(odd.describe(), "there is one; its name is unknown");
    }

    #[test]
    fn none_and_not_known_are_not_the_same() {
        assert_eq!(Beneath::of(&select::Beneath::UNKNOWN), Beneath::UNKNOWN);
        assert_eq!(Beneath::of(&select::Beneath::NOBODY), Beneath::NOBODY);
    }
}
