//! From the first instruction to the tests. The order matters: how locks wait depends on the machine, and is settled
//! before there is a second CPU to lock against.
//!
//! ```text
//!   serial port, interrupt gates, page rights
//!   memory map ---> ACPI: CPUs, nodes, distances ---+
//!   command line ---> wishes, leaves ---> CPUID ----+---> facts ---> choice ---> call sites follow
//!   other CPUs start ---> tests ---> exit code
//! ```
//!
//! What the firmware says wrong is said on the serial port, and costs what it is about: without CPUs one runs, without
//! nodes there is one.

use core::sync::atomic::{AtomicBool, Ordering};

use guest_firmware::Words;
use guest_firmware::acpi::{Cpus, Tables};

use crate::console::{self, Exit, println};
use crate::percpu::{self, CPUS};
use crate::start_info::StartInfo;
use crate::{apic, clock, cpu, interrupts, locks, machine, paging, smp, tables, tests};

#[unsafe(no_mangle)]
extern "C" fn first_cpu(start_info: u64) -> ! {
    let begin = cpu::ticks();
    console::start();
    // SAFETY: this CPU alone runs, with interrupts off, and will be number 0.
    unsafe {
        percpu::enter(0, 0);
        tables::fill_gates();
        tables::load(0);
    }
    interrupts::mask_old_controllers();
    paging::protect();
    // SAFETY: what the entry was called with.
    let Some(info) = (unsafe { StartInfo::read(start_info) }) else {
        panic!("no start information at {start_info:#x}: was this kernel started by PVH?");
    };
    println!("guest: {} MiB of memory in {} ranges", info.usable() >> 20, info.ranges());
    let words = words(&info);
    let controller = apic::find();
    apic::start();
    let hertz = clock::calibrate(begin);
    apic::calibrate();
    match hertz {
        Some(hertz) => println!("guest: clock of {} MHz", hertz / 1_000_000),
        None => println!("guest: no timer to measure the clock by; times are guesses"),
    }

    locks_before_the_choice();
    let machine = look_at_cpus(&info, &words, controller);
    let before = clock::now();
    match locks::choose_locks(machine.count() as u32, machine.nodes(), &words) {
        Ok(started) => {
            println!("guest: beneath: {}", started.hypervisor.name());
            println!("guest: locks: {}", started.choice);
            println!("guest: code: {}", started.code);
            let (now, took) = (clock::now(), clock::now() - before);
            println!("guest: chosen {} us after the start, in {} us", now / 1000, took / 1000);
            // A linker script that has lost the sites would otherwise be noticed by nobody.
            assert!(started.code.available && started.code.sites > 0, "no call sites in this image");
            assert_eq!(started.code.following, started.code.sites, "all call sites follow");
        }
        Err(error) => println!("guest: locks: {error}"),
    }
    let site = qspinlock::patch::sites().next().map_or(paging::image().0, |site| site.address());
    assert!(interrupts::is_read_only(site), "code can be written");

    println!("guest: kicks by {}", machine::choose_kick());
    smp::start(machine.list());
    println!("guest: {} of {} CPUs up, {} nodes", smp::count(), machine.count(), machine.nodes());
    // SAFETY: gates, stacks and controllers are set up.
    unsafe { cpu::interrupts_on() };
    let passed = tests::run(&words);
    println!("guest: {}", if passed { "PASSED" } else { "FAILED" });
    console::exit(if passed { Exit::Passed } else { Exit::Failed })
}

/// An NMI comes before it is known how locks wait, and takes some. One that is free it gets, and one that this CPU holds
/// is refused; nothing is decided by that, since nobody has waited.
fn locks_before_the_choice() {
    static PLAIN: locks::Mutex<u32> = locks::Mutex::new(0);
    static HELD: locks::ResilientMutex<u32> = locks::ResilientMutex::new(0);
    static REFUSED: AtomicBool = AtomicBool::new(false);
    interrupts::ON_NMI.set(Some(|| {
        *PLAIN.lock() += 1;
        REFUSED.store(HELD.lock().is_err_and(|error| error.is_deadlock()), Ordering::Relaxed);
    }));
    let held = HELD.lock();
    apic::send_nmi(apic::id());
    let late = clock::now() + 1_000_000_000;
    while percpu::mine().nmis.load(Ordering::Relaxed) == 0 && clock::now() < late {
        cpu::relax();
    }
    interrupts::ON_NMI.set(None);
    drop(held);
    assert!(*PLAIN.lock() == 1 && REFUSED.load(Ordering::Relaxed), "locks in an NMI before the choice");
    println!("guest: an NMI before the choice: it had a free lock, and was refused one that its CPU holds");
}

/// What the command line says, and a line for each word that makes no sense.
fn words(info: &StartInfo) -> Words<'static> {
    let line = core::str::from_utf8(info.command_line).unwrap_or_else(|error| {
        println!("guest: the command line is no text from byte {} on; that part is ignored", error.valid_up_to());
        core::str::from_utf8(&info.command_line[..error.valid_up_to()]).unwrap_or_default()
    });
    println!("guest: command line: {}", line.escape_debug());
    Words::read(line, |complaint| println!("guest: {complaint}"))
}

/// The CPUs that are to run.
struct Found {
    cpus: Option<Cpus<CPUS>>,
    most: usize,
}

impl Found {
    /// APIC id and node of each, the one that runs already first.
    fn list(&self) -> impl Iterator<Item = (u32, u32)> {
        let first = self.cpus.is_none().then(|| (apic::id(), 0));
        let others = self.cpus.iter().flat_map(|cpus| cpus.list()).filter(|cpu| cpu.is_enabled);
        let all = first.into_iter().chain(others.map(|cpu| (cpu.apic_id, cpu.node)));
        all.filter(|(apic_id, _)| *apic_id < apic::NOBODY).take(self.most)
    }

    /// Nodes that have any of them.
    fn nodes(&self) -> u32 {
        let is_new = |n: usize, node: u32| !self.list().take(n).any(|(_, other)| other == node);
        self.list().enumerate().filter(|(n, (_, node))| is_new(*n, *node)).count() as u32
    }

    fn count(&self) -> usize {
        self.list().count()
    }
}

fn look_at_cpus(info: &StartInfo, words: &Words<'_>, controller: Option<u64>) -> Found {
    let mut found = Found { cpus: None, most: CPUS };
    let read = || {
        let tables = Tables::find(info, info.rsdp)?;
        Ok::<_, guest_firmware::acpi::Error>((tables, tables.cpus::<CPUS>()?))
    };
    let (tables, mut cpus) = match read() {
        Ok(read) => read,
        Err(error) => {
            println!("guest: ACPI: {error}; one CPU is used");
            return found;
        }
    };
    println!("guest: ACPI: {} CPUs", cpus.possible());
    let room = if words.pretends("no-slots") { 2 } else { CPUS };
    let left_out = cpus.possible().saturating_sub(room as u32);
    if left_out > 0 {
        println!("guest: there is room for {room} CPUs; {left_out} are left out");
    }
    found.most = room;
    match controller {
        None => {
            println!("guest: the CPU's interrupt controller is off, or of another kind; one CPU is used");
            return found;
        }
        Some(address) if address != cpus.controller => {
            println!("guest: ACPI: the interrupt controller is at {address:#x}, and not at {:#x}", cpus.controller);
        }
        Some(_) => {}
    }
    let nodes = tables.place(&mut cpus).unwrap_or_else(|error| {
        println!("guest: ACPI: {error}; taken for one node");
        1
    });
    if !cpus.put_first(apic::id()) {
        println!("guest: ACPI: the CPU that runs, APIC id {}, is not listed; one CPU is used", apic::id());
        return found;
    }
    match tables.distances() {
        Ok(Some(distances)) => {
            let there = |n: &u32| cpus.list().iter().find(|cpu| cpu.node == *n).map(|cpu| cpu.domain);
            for from in (0..nodes).filter_map(|n| there(&n)) {
                let to = |to| distances.between(from, to).unwrap_or(u8::MAX);
                let mut row = [0; 8];
                let len = row.len().min(nodes as usize);
                for (n, distance) in row[..len].iter_mut().enumerate() {
                    *distance = there(&(n as u32)).map_or(u8::MAX, to);
                }
                println!("guest: ACPI: distances from domain {from}: {:?}", &row[..len]);
            }
        }
        Ok(None) => {}
        Err(error) => println!("guest: ACPI: {error}; distances are not known"),
    }
    if words.pretends("no-low-memory") || !info.is_usable(paging::TRAMPOLINE as u64, 4096) {
        println!("guest: no memory at {:#x} to start other CPUs from; one CPU is used", paging::TRAMPOLINE);
        found.most = 1;
    }
    found.most = found.most.min(words.most_cpus.map_or(CPUS, |most| most as usize));
    found.cpus = Some(cpus);
    found
}
