//! Machines, and what must be chosen on each.
//!
//! Who is beneath is injected: an emulator shows itself and nobody else. Nothing else is made up; CPUs and memory nodes
//! come from the firmware's tables of a machine that has so many.

use qspinlock::select::Hypervisor::{self, HyperV, Kvm, None as Bare, Other, Tcg, Unknown, VMware, Xen};
use qspinlock::select::Reason::{self, *};
use qspinlock::select::SlowPathKind::{self, Native, Numa, Paravirt, Parking, TestAndSet};

use super::machine::{MOST_CPUS, Machine};
use super::once::{Boot, End};

/// A boot and what must come of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    /// CPUs and memory nodes.
    pub(super) shape: (u32, u32),
    /// Who is beneath: words for the command line.
    leaves: &'static str,
    /// More words.
    words: &'static str,
    pub(super) beneath: Hypervisor,
    pub(super) chosen: SlowPathKind,
    pub(super) reason: Reason,
    /// What the kernel must have said besides.
    says: Option<&'static str>,
}

// Leaves as the hypervisors document them. The second one is features in EAX and hints in EDX for KVM; for Hyper-V the
// third one has the idle register in bit 10 of EAX, the fourth one the call for interrupts there.
const BARE: &str = "cpuid=1:-,-,0,-";
const SILENT: &str = "cpuid=0:0,-,-,-";
const KVM: &str = "cpuid=1:-,-,80000000,- cpuid=40000000:40000001,4b4d564b,564b4d56,4d cpuid=40000001:80,0,0,0";
const KVM_POOR: &str = "cpuid=1:-,-,80000000,- cpuid=40000000:40000001,4b4d564b,564b4d56,4d cpuid=40000001:0,0,0,0";
const KVM_REALTIME: &str =
    "cpuid=1:-,-,80000000,- cpuid=40000000:40000001,4b4d564b,564b4d56,4d cpuid=40000001:80,0,0,1";
const XEN: &str = "cpuid=1:-,-,80000000,- cpuid=40000000:40000002,566e6558,65584d4d,4d4d566e";
const HYPER_V: &str = "cpuid=1:-,-,80000000,- cpuid=40000000:40000005,7263694d,666f736f,76482074 \
                       cpuid=40000001:31237648,0,0,0 cpuid=40000003:400,0,0,0 cpuid=40000004:400,0,0,0";
const HYPER_V_POOR: &str = "cpuid=1:-,-,80000000,- cpuid=40000000:40000005,7263694d,666f736f,76482074 \
                            cpuid=40000001:31237648,0,0,0 cpuid=40000003:0,0,0,0 cpuid=40000004:400,0,0,0";
const KVM_BEHIND_HYPER_V: &str = "cpuid=1:-,-,80000000,- cpuid=40000000:40000005,7263694d,666f736f,76482074 \
                                  cpuid=40000001:31237648,0,0,0 cpuid=40000003:0,0,0,0 cpuid=40000004:0,0,0,0 \
                                  cpuid=40000100:40000101,4b4d564b,564b4d56,4d cpuid=40000101:80,0,0,0";
const VMWARE: &str = "cpuid=1:-,-,80000000,- cpuid=40000000:40000010,61774d56,4d566572,65726177";
const TCG: &str = "cpuid=1:-,-,80000000,- cpuid=40000000:40000001,54474354,43544743,47435447";
const NOBODY_KNOWN: &str = "cpuid=1:-,-,80000000,- cpuid=40000000:40000001,41414141,41414141,41414141";

/// `name, CPUs / nodes, beneath (leaves), words => slow path, reason`
macro_rules! rows {
    ($($name:literal, $cpus:literal / $nodes:literal, $beneath:ident($leaves:ident), $words:literal
        => $chosen:ident, $reason:ident $(, says $says:literal)?;)*) => {
        &[$(Row {
            name: $name, shape: ($cpus, $nodes), leaves: $leaves, words: $words, beneath: $beneath, chosen: $chosen,
            reason: $reason, says: rows!(@says $($says)?),
        },)*]
    };
    (@says) => { Option::None };
    (@says $says:literal) => { Some($says) };
}

pub(super) const ROWS: &[Row] = rows! {
    "bare metal, 1 node", 4 / 1, Bare(BARE), "" => Native, BareMetal;
    "bare metal, 2 nodes", 4 / 2, Bare(BARE), "" => Numa, BareMetalManyNodes;
    "bare metal, 4 nodes", 8 / 4, Bare(BARE), "" => Numa, BareMetalManyNodes;
    "bare metal, 1 CPU", 1 / 1, Bare(BARE), "" => Native, OneCpu;
    "a CPU that says nothing", 4 / 1, Unknown(SILENT), "" => Native, NothingKnown;
    "KVM, wait and kick", 4 / 2, Kvm(KVM), "" => Paravirt, WaitKick;
    "KVM, no wait and kick", 4 / 2, Kvm(KVM_POOR), "" => TestAndSet, NoWaitKick;
    "KVM, realtime", 4 / 2, Kvm(KVM_REALTIME), "" => Native, HostPromise;
    "KVM, 1 CPU", 1 / 1, Kvm(KVM), "" => Native, OneCpu;
    "KVM behind Hyper-V's name", 4 / 1, Kvm(KVM_BEHIND_HYPER_V), "" => Paravirt, WaitKick;
    "Xen", 4 / 1, Xen(XEN), "" => Paravirt, WaitKick;
    "Hyper-V, all it takes", 4 / 1, HyperV(HYPER_V), "" => Paravirt, WaitKick;
    "Hyper-V, no idle register", 4 / 1, HyperV(HYPER_V_POOR), "" => TestAndSet, NoWaitKick;
    "VMware", 4 / 2, VMware(VMWARE), "" => TestAndSet, NeverWaitKick;
    "QEMU's emulator", 4 / 2, Tcg(TCG), "" => TestAndSet, NeverWaitKick;
    "a hypervisor nobody knows", 4 / 2, Other(NOBODY_KNOWN), "" => TestAndSet, NeverWaitKick;
    "KVM, nopvspin", 4 / 2, Kvm(KVM), "nopvspin" => Native, NoParavirt;
    "KVM, dedicated", 4 / 2, Kvm(KVM), "qspinlock=dedicated" => Native, OwnVirtualCpus;
    "KVM, qspinlock=numa", 4 / 2, Kvm(KVM), "qspinlock=numa" => Numa, AskedFor;
    "KVM, numa_spinlock=on", 4 / 2, Kvm(KVM), "numa_spinlock=on" => Numa, NumaOn;
    "2 nodes, numa_spinlock=off", 4 / 2, Bare(BARE), "numa_spinlock=off" => Native, BareMetal;
    "2 nodes, qspinlock=parking", 4 / 2, Bare(BARE), "qspinlock=parking" => Parking, AskedFor;
    "a slip of the pen", 4 / 2, Bare(BARE), "qspinlok=native" => Numa, BareMetalManyNodes,
        says "guest: 'qspinlok=native' is ignored: no such word";
    "a wish nobody knows", 4 / 2, Kvm(KVM), "qspinlock=fast" => Paravirt, WaitKick,
        says "guest: 'qspinlock=fast' is ignored: there is no `fast`: choose from";
    "a contradiction", 4 / 2, Bare(BARE), "qspinlock=native numa_spinlock=on" => Native, AskedFor,
        says "guest: 'numa_spinlock=on' is ignored: ";
    "distances", 4 / 4, Bare(BARE), "" => Numa, BareMetalManyNodes,
        says "guest: ACPI: distances from domain 1: [21, 10, 21, 22]";
    "no memory to start others from", 4 / 2, Bare(BARE), "pretend=no-low-memory" => Native, OneCpu,
        says "guest: no memory at ";
    "room for two CPUs", 4 / 2, Bare(BARE), "pretend=no-slots" => Native, BareMetal,
        says "guest: there is room for 2 CPUs; 2 are left out";
    "maxcpus=1", 4 / 2, Kvm(KVM), "maxcpus=1" => Native, OneCpu;
    "more CPUs than there is room for", 65 / 1, Bare(BARE), "" => Native, BareMetal,
        says "guest: there is room for 64 CPUs; 1 are left out";
};

impl Row {
    pub(super) fn machine(&self) -> Machine {
        let (cpus, nodes) = self.shape;
        let parts = [self.leaves, self.words, "test=none"].map(str::split_ascii_whitespace);
        Machine { cpus, nodes, append: parts.into_iter().flatten().collect::<Vec<_>>().join(" ") }
    }

    /// CPUs that must run, and their nodes.
    fn up(&self) -> (u32, u32) {
        match self.words {
            "maxcpus=1" | "pretend=no-low-memory" => (1, 1),
            "pretend=no-slots" => (2, 1),
            _ => (self.shape.0.min(MOST_CPUS), self.shape.1),
        }
    }

    /// What is not as it must be; nothing, if all is well.
    pub(super) fn wrong(&self, boot: &Boot) -> Vec<String> {
        let log = &boot.log;
        let mut wrong = Vec::new();
        if boot.end != End::Passed {
            wrong.push(boot.end.to_string());
        }
        let mut compare = |what: &str, said: Option<String>, expected: String| {
            if said.as_ref() != Some(&expected) {
                wrong.push(format!("{what}: {}, and not {expected}", said.as_deref().unwrap_or("nothing")));
            }
        };
        let chosen = log.choice.as_ref();
        compare("beneath", log.beneath.clone(), self.beneath.name().to_owned());
        compare("chosen", chosen.map(|(kind, _)| kind.name().to_owned()), self.chosen.name().to_owned());
        compare("because", chosen.map(|(_, reason)| reason.clone()), self.reason.text().to_owned());
        let follows = log.code.as_ref().and_then(|code| code.rsplit_once(" rewritten for "));
        compare("call sites for", follows.map(|(_, name)| name.to_owned()), self.chosen.name().to_owned());
        let shape = |(cpus, nodes): (u32, u32)| format!("{cpus} CPUs in {nodes} nodes");
        compare("up", log.up.map(shape), shape(self.up()));
        let complaints = || log.lines.iter().filter(|line| line.contains(" is ignored: "));
        match self.says {
            Some(says) if !log.lines.iter().any(|line| line.starts_with(says)) => {
                wrong.push(format!("not said: {says}"));
            }
            None => wrong.extend(complaints().cloned()),
            Some(_) => {}
        }
        wrong
    }
}
