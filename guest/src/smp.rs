//! The other CPUs: started, numbered, and given work.

use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use crate::console::println;
use crate::cpu::Shared;
use crate::paging::TRAMPOLINE;
use crate::percpu::{self, CPUS};
use crate::tables::{self, vector};
use crate::{apic, clock, cpu, mem};

/// Of the stack that each runs on. `entry.s` finds it by this.
pub(crate) const STACK: usize = 0x8000;

#[repr(C, align(4096))]
struct Stack([u8; STACK]);

#[unsafe(no_mangle)]
static ap_stacks: Shared<[Stack; CPUS]> = Shared::new([const { Stack([0; STACK]) }; CPUS]);

unsafe extern "C" {
    static ap_trampoline: Shared<u8>;
    static ap_trampoline_end: Shared<u8>;
}

/// CPUs that may be started, the first one among them.
static EXPECTED: AtomicU32 = AtomicU32::new(1);
/// Nodes, by number of CPU.
static NODES: [AtomicU32; CPUS] = [const { AtomicU32::new(0) }; CPUS];

/// CPUs that were to run: numbers are below this.
pub(crate) fn expected() -> u32 {
    EXPECTED.load(Ordering::Relaxed)
}

/// The memory node of a CPU.
pub(crate) fn node_of(number: usize) -> u32 {
    NODES[number].load(Ordering::Relaxed)
}

/// How many CPUs run.
pub(crate) fn count() -> usize {
    (0..CPUS).filter(|n| percpu::of(*n).is_up().load(Ordering::Acquire)).count()
}

/// Which ones run: their numbers.
pub(crate) fn all() -> impl Iterator<Item = usize> {
    (0..CPUS).filter(|n| percpu::of(*n).is_up().load(Ordering::Acquire))
}

/// Starts the CPUs with these names and nodes; the first is the one that runs already. Those that do not answer within
/// a second are done without.
///
/// # Panics
/// If there are more than [`CPUS`].
pub(crate) fn start(cpus: impl Iterator<Item = (u32, u32)>) {
    let mut expected = 0;
    for (number, (apic_id, node)) in cpus.enumerate() {
        assert!(number < CPUS, "more CPUs than slots");
        percpu::of(number).apic_id().store(apic_id, Ordering::Relaxed);
        NODES[number].store(node, Ordering::Relaxed);
        expected = number + 1;
    }
    EXPECTED.store(expected as u32, Ordering::Release);
    percpu::mine().node.set(NODES[0].load(Ordering::Relaxed));
    percpu::of(0).is_up().store(true, Ordering::Release);
    let others = || (1..expected).map(percpu::of).filter(|cpu| !cpu.is_up().load(Ordering::Acquire));
    // SAFETY: the trampoline's bytes; the page it goes to is memory that nobody uses, which the caller has checked.
    unsafe {
        let (from, past) = (&raw const ap_trampoline, &raw const ap_trampoline_end);
        let code = core::slice::from_raw_parts(from.cast::<u8>(), past.addr() - from.addr());
        mem::write_bytes(core::ptr::with_exposed_provenance_mut(TRAMPOLINE), code);
    }
    others().for_each(|cpu| apic::send_init(cpu.apic_id().load(Ordering::Relaxed)));
    clock::pause_for(10_000_000);
    // The second one is for CPUs of old that overlook the first. Virtual ones may be late.
    for patience in [500_000_000, 10_000_000_000] {
        others().for_each(|cpu| apic::send_start(cpu.apic_id().load(Ordering::Relaxed), TRAMPOLINE));
        let until = clock::now() + patience;
        while others().next().is_some() && clock::now() < until {
            core::hint::spin_loop();
        }
    }
    for cpu in others() {
        println!(
            "guest: CPU with APIC id {} does not start; going on without it",
            cpu.apic_id().load(Ordering::Relaxed)
        );
    }
}

#[unsafe(no_mangle)]
extern "C" fn other_cpu() -> ! {
    let apic_id = apic::id();
    let expected = EXPECTED.load(Ordering::Acquire) as usize;
    let number = (1..expected).find(|n| percpu::of(*n).apic_id().load(Ordering::Relaxed) == apic_id);
    // Nobody has asked for this one.
    let Some(number) = number else { cpu::stop() };
    // SAFETY: each has an id of its own, so this number is nobody else's. Interrupts are off. In this order: as soon as
    // an NMI has where to go, its handler asks who this is.
    unsafe {
        percpu::enter(number, NODES[number].load(Ordering::Relaxed));
        tables::load(number);
    }
    apic::start();
    percpu::of(number).is_up().store(true, Ordering::Release);
    work(number)
}

/// What all are to do: changed by the first CPU alone.
static WORK: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
static ROUND: AtomicU32 = AtomicU32::new(0);
static DONE: [AtomicU32; CPUS] = [const { AtomicU32::new(0) }; CPUS];

/// Another CPU's whole life.
fn work(number: usize) -> ! {
    let mut round = 0;
    loop {
        cpu::interrupts_off();
        if ROUND.load(Ordering::Acquire) == round {
            // SAFETY: the tables are there. The call that comes with a new round is pending if it has come already.
            unsafe { cpu::interrupts_on_and_halt() };
            continue;
        }
        // SAFETY: as above.
        unsafe { cpu::interrupts_on() };
        round = ROUND.load(Ordering::Acquire);
        // SAFETY: it was made of such a function.
        let what = unsafe { core::mem::transmute::<*mut (), fn(usize)>(WORK.load(Ordering::Relaxed)) };
        what(number);
        DONE[number].store(round, Ordering::Release);
    }
}

/// Has each CPU run a function, with its number; this one, the first, as well. Meanwhile, and until all are done,
/// `watch` is called now and then; with `false` it gives up, and this returns `false`.
pub(crate) fn on_all(what: fn(usize), mut watch: impl FnMut() -> bool) -> bool {
    WORK.store(what as *mut (), Ordering::Relaxed);
    let round = ROUND.load(Ordering::Relaxed) + 1;
    ROUND.store(round, Ordering::Release);
    for number in all().skip(1) {
        apic::send(percpu::of(number).apic_id().load(Ordering::Relaxed), vector::CALL);
    }
    what(0);
    while all().skip(1).any(|number| DONE[number].load(Ordering::Acquire) != round) {
        if !watch() {
            return false;
        }
        core::hint::spin_loop();
    }
    true
}
